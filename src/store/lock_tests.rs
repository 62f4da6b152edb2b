//! Object lock, with a scripted HTTP server for the store.

use std::num::NonZeroU32;

use super::{
    http_tests::{Reply, Server, key, ok, refuse},
    *,
};
use crate::{
    error::{Diagnose, Kind},
    model::{LockMode, LockPolicy, SystemClock},
};

fn policy() -> LockPolicy {
    LockPolicy { mode: LockMode::Compliance, days: NonZeroU32::new(30).unwrap() }
}

async fn locking(server: &Server) -> Store {
    let store = server.store().await;
    assert!(store.lock_puts(policy()));
    store
}

const LOCKED: &str =
    "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled></ObjectLockConfiguration>";

fn until(text: &str) -> Reply {
    ok(&format!("<Retention><Mode>GOVERNANCE</Mode><RetainUntilDate>{text}</RetainUntilDate></Retention>"))
}

fn hold(status: &str) -> Reply {
    ok(&format!("<LegalHold><Status>{status}</Status></LegalHold>"))
}

fn methods(server: &Server) -> Vec<String> {
    let line = |head: &String| head.lines().next().unwrap().replace("/bucket/some/prefix/packs/ab/abcd", "");
    server.requests().iter().map(|head| line(head).trim_end_matches(" HTTP/1.1").to_owned()).collect()
}

#[tokio::test]
async fn a_locked_put_carries_lock_condition_and_checksum_in_one_request() {
    let server = Server::start(vec![ok("")]);
    let store = locking(&server).await;
    assert_eq!(store.put(&key(), "content").await.unwrap(), PutOutcome::Stored);
    let request = server.requests()[0].to_ascii_lowercase();
    let expected = policy().retention(crate::model::Clock::now(&SystemClock)).until.to_string();
    assert!(request.starts_with("put /bucket/some/prefix/packs/ab/abcd"), "{request}");
    for header in [
        "if-none-match: *",
        "x-amz-checksum-sha256: 7xactdnprirfijv9giusferzd722aw0+yumil7nsn3m=",
        "x-amz-object-lock-mode: compliance",
        // To the hour: the test takes time.
        &format!("x-amz-object-lock-retain-until-date: {}", expected[..14].to_ascii_lowercase()),
        "/us-east-1/s3/aws4_request",
    ] {
        assert!(request.contains(header), "{header} in {request}");
    }
    assert!(!request.contains("hunter2"));
    let counts = store.counters().counts();
    assert_eq!((counts.puts, counts.bytes_up), (1, 7));
}

#[tokio::test]
async fn what_is_kept_for_a_moment_is_not_locked() {
    let server = Server::start(vec![ok("")]);
    locking(&server).await.put_brief(&key(), "content").await.unwrap();
    assert!(!server.requests()[0].to_ascii_lowercase().contains("object-lock"));
}

#[tokio::test]
async fn a_locked_put_whose_connection_breaks_recognises_its_own_success() {
    let exists = refuse("412 Precondition Failed", "PreconditionFailed");
    let server = Server::start(vec![Reply::Close, exists.clone(), ok("content")]);
    assert_eq!(locking(&server).await.put(&key(), "content").await.unwrap(), PutOutcome::AlreadyThere);
    let server = Server::start(vec![refuse("503 Slow Down", "SlowDown"), exists, ok("CONTENT")]);
    let error = locking(&server).await.put(&key(), "content").await.unwrap_err();
    assert!(matches!(error, StoreError::AlreadyExists { .. }), "{error:?}");
}

#[tokio::test]
async fn a_locked_put_that_is_refused_says_why() {
    let server = Server::start(vec![refuse("403 Forbidden", "SignatureDoesNotMatch")]);
    let error = locking(&server).await.put(&key(), "content").await.unwrap_err();
    assert!(matches!(error, StoreError::Denied { reason: Refused::WrongSecret, .. }), "{error:?}");
    assert_eq!(server.requests().len(), 1);
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert_eq!(cause, "the store answered 403 SignatureDoesNotMatch: told by the store (request R1)");
    let server = Server::start(vec![refuse("403 Forbidden", "AccessDenied")]);
    let error = locking(&server).await.put(&key(), "content").await.unwrap_err();
    assert!(error.hint().unwrap().contains("s3:PutObjectRetention"), "{:?}", error.hint());
}

#[tokio::test]
async fn a_locked_object_is_not_deleted_and_the_refusal_says_until_when() {
    let server = Server::start(vec![ok(LOCKED), until("2999-01-02T03:04:05Z")]);
    let store = server.store().await;
    let error = store.delete(&key()).await.unwrap_err();
    assert_eq!(error.to_string(), "object packs/ab/abcd is locked until 2999-01-02T03:04:05Z (governance)");
    assert_eq!((error.kind(), error.lock().unwrap().legal_hold), (Kind::Failed, false));
    assert_eq!(methods(&server), ["GET /bucket/?object-lock", "GET ?retention"]);

    let server = Server::start(vec![ok(LOCKED), until("2001-01-02T03:04:05Z"), hold("ON")]);
    let error = server.store().await.delete(&key()).await.unwrap_err();
    assert_eq!(error.to_string(), "object packs/ab/abcd is locked by a legal hold");
}

#[tokio::test]
async fn an_object_whose_lock_is_over_is_deleted() {
    let none = refuse("404 Not Found", "NoSuchObjectLockConfiguration");
    for retention in [until("2001-01-02T03:04:05Z"), none.clone()] {
        for hold in [hold("OFF"), none.clone()] {
            let server = Server::start(vec![ok(LOCKED), retention.clone(), hold, ok("")]);
            server.store().await.delete(&key()).await.unwrap();
            assert_eq!(methods(&server).last().unwrap(), "DELETE ");
        }
    }
}

#[tokio::test]
async fn in_a_bucket_without_locks_they_are_asked_for_once() {
    for reply in [
        refuse("404 Not Found", "ObjectLockConfigurationNotFoundError"),
        refuse("501 Not Implemented", "NotImplemented"),
    ] {
        let server = Server::start(vec![reply, ok("")]);
        let store = server.store().await;
        store.delete(&key()).await.unwrap();
        store.delete(&key()).await.unwrap();
        assert_eq!(methods(&server), ["GET /bucket/?object-lock", "DELETE ", "DELETE "]);
    }
}

#[tokio::test]
async fn who_may_not_ask_for_locks_may_delete_all_the_same() {
    let denied = refuse("403 Forbidden", "AccessDenied");
    let server = Server::start(vec![denied.clone(), denied, ok("")]);
    server.store().await.delete(&key()).await.unwrap();
}

#[tokio::test]
async fn a_lock_is_extended_by_version() {
    let server = Server::start(vec![refuse("503 Slow Down", "SlowDown"), ok("")]);
    let store = server.store().await;
    let retention = policy().retention(crate::model::Clock::now(&SystemClock));
    store.extend_lock(&key(), Some("v1"), retention).await.unwrap();
    let lines = methods(&server);
    assert!(lines[1].starts_with("PUT ?") && lines[1].contains("retention") && lines[1].contains("versionId=v1"));
    assert_eq!((store.counters().counts().locks, store.counters().counts().retries), (2, 1));
}

#[tokio::test]
async fn a_directory_locks_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let url = StoreUrl::directory(folder.path()).unwrap();
    let store = open(&url, &StoreOptions::default()).await.unwrap();
    assert!(!store.lock_puts(policy()));
    assert_eq!(store.object_lock(&key()).await.unwrap(), ObjectLock::default());
    store.delete(&key()).await.unwrap();
    let error = store.extend_lock(&key(), None, policy().retention(crate::model::Clock::now(&SystemClock))).await;
    assert_eq!(error.unwrap_err().kind(), Kind::Usage);
}

#[tokio::test]
async fn a_store_that_forgets_locks_is_refused() {
    let none = refuse("404 Not Found", "NoSuchObjectLockConfiguration");
    for reply in [none.clone(), refuse("501 Not Implemented", "NotImplemented"), until("2001-01-02T03:04:05Z")] {
        // What it says of a lock, and of a legal hold.
        let server = Server::start(vec![reply, none.clone()]);
        let error = server.store().await.check_locked(&key()).await.unwrap_err();
        assert!(error.to_string().contains("it took the lock of packs/ab/abcd and does not keep it"), "{error}");
        assert_eq!(error.kind(), Kind::Usage);
    }
    let server = Server::start(vec![until("2999-01-02T03:04:05Z")]);
    server.store().await.check_locked(&key()).await.unwrap();
}

#[tokio::test]
async fn a_bucket_without_versions_or_locks_is_refused_before_anything_is_stored() {
    let versions =
        |status: &str| ok(&format!("<VersioningConfiguration><Status>{status}</Status></VersioningConfiguration>"));
    let missing = refuse("404 Not Found", "ObjectLockConfigurationNotFoundError");
    for replies in [vec![versions("Suspended"), ok(LOCKED)], vec![versions("Enabled"), missing]] {
        let server = Server::start(replies);
        let error = server.store().await.check_locks().await.unwrap_err();
        assert!(matches!(error, StoreError::NoLocks { .. }), "{error:?}");
    }
    let server = Server::start(vec![versions("Enabled"), ok(LOCKED)]);
    server.store().await.check_locks().await.unwrap();
}

#[tokio::test]
async fn a_listing_of_versions_goes_on_where_its_page_ends() {
    let page = |more: &str, versions: &str| {
        ok(&format!(
            "<ListVersionsResult>{versions}<IsTruncated>{}</IsTruncated>{more}</ListVersionsResult>",
            !more.is_empty()
        ))
    };
    let version = |name: &str, id: &str, latest: bool| {
        format!(
            "<Version><Key>some/prefix/{name}</Key><VersionId>{id}</VersionId><IsLatest>{latest}</IsLatest><Size>7</Size>\
             <LastModified>2026-11-22T17:00:00Z</LastModified></Version>"
        )
    };
    let next = "<NextKeyMarker>some/prefix/b</NextKeyMarker><NextVersionIdMarker>2</NextVersionIdMarker>";
    let marker = version("a", "9", true).replace("Version>", "DeleteMarker>");
    let first =
        format!("{}{}{marker}{}", version("a", "1", false), version("b", "2", true), version("no key", "3", true));
    let replies = vec![refuse("503 Slow Down", "SlowDown"), page(next, &first), page("", &version("b", "1", false))];
    let server = Server::start(replies);
    let found: Vec<_> = futures::TryStreamExt::try_collect(server.store().await.versions("")).await.unwrap();
    let told: Vec<_> =
        found.iter().map(|one| (one.key.as_str(), &one.version[..], one.is_marker, one.is_latest)).collect();
    let expected =
        [("a", "1", false, false), ("a", "9", true, true), ("b", "2", false, true), ("b", "1", false, false)];
    assert_eq!(told, expected);
    let requests = server.requests();
    for part in ["?versions&", "&key-marker=some%2Fprefix%2Fb&", "&version-id-marker=2 "] {
        assert!(requests[2].contains(part), "{part} in {}", requests[2]);
    }
}
