//! Archives and thawing, with a scripted HTTP server for the store.

use std::num::NonZeroU32;

use futures::TryStreamExt;

use super::{
    http_tests::{Reply, Server, key, ok, refuse},
    *,
};
use crate::{
    error::{Diagnose, Kind},
    model::{Archive, ThawOrder, ThawTier},
};

fn order(tier: ThawTier) -> ThawOrder {
    ThawOrder { days: NonZeroU32::new(7).unwrap(), tier }
}

fn page(objects: &[(&str, &str)], next: Option<&str>) -> Reply {
    let objects: String = objects
        .iter()
        .map(|(name, more)| format!("<Contents><Key>some/prefix/{name}</Key><Size>9</Size>{more}</Contents>"))
        .collect();
    let token = next.map_or(String::new(), |token| format!("<NextContinuationToken>{token}</NextContinuationToken>"));
    let truncated = next.is_some();
    ok(&format!("<ListBucketResult>{objects}<IsTruncated>{truncated}</IsTruncated>{token}</ListBucketResult>"))
}

fn class(name: &str) -> String {
    format!("<StorageClass>{name}</StorageClass>")
}

fn restored(class_name: &str, status: &str) -> String {
    format!("{}<RestoreStatus>{status}</RestoreStatus>", class(class_name))
}

#[tokio::test]
async fn a_listing_tells_what_is_archived_what_is_thawing_and_what_it_cannot_know() {
    let thawing = restored("GLACIER", "<IsRestoreInProgress>true</IsRestoreInProgress>");
    let thawed = restored(
        "DEEP_ARCHIVE",
        "<IsRestoreInProgress>false</IsRestoreInProgress><RestoreExpiryDate>2026-12-20T00:00:00.000Z</RestoreExpiryDate>",
    );
    let classes = ["STANDARD", "GLACIER_IR", "GLACIER", "DEEP_ARCHIVE", "INTELLIGENT_TIERING"].map(class);
    let first: Vec<(&str, &str)> = ["packs/a", "packs/b", "packs/c", "packs/d", "packs/e"]
        .into_iter()
        .zip(classes.iter().map(String::as_str))
        .chain([("no key", "")])
        .collect();
    let last = [("packs/f", &thawing[..]), ("packs/g", &thawed[..]), ("packs/h", "")];
    let replies = vec![refuse("503 Slow Down", "SlowDown"), page(&first, Some("t/1")), page(&last, None)];
    let server = Server::start(replies);
    let store = server.store().await;
    let found: Vec<ListedFrost> = store.frosts("packs/").try_collect().await.unwrap();
    let told: Vec<_> = found.iter().map(|one| (one.key.as_str(), one.frost, one.sure)).collect();
    let expected = [
        ("packs/a", Frost::Readable, true),
        ("packs/b", Frost::Readable, true),
        ("packs/c", Frost::Frozen(Archive::Glacier), false),
        ("packs/d", Frost::Frozen(Archive::Deep), false),
        ("packs/e", Frost::Readable, false),
        ("packs/f", Frost::Thawing(Archive::Glacier), true),
        ("packs/g", Frost::Readable, true),
        ("packs/h", Frost::Readable, true),
    ];
    assert_eq!(told, expected);
    let requests = server.requests();
    assert!(requests[1].starts_with("GET /bucket/?list-type=2&prefix=some%2Fprefix%2Fpacks%2F "), "{}", requests[1]);
    assert!(requests[1].to_ascii_lowercase().contains("x-amz-optional-object-attributes: restorestatus\r\n"));
    assert!(requests[2].contains("continuation-token=t%2F1"), "{}", requests[2]);
    assert_eq!((store.counters().counts().lists, store.counters().counts().retries), (3, 1));
}

#[tokio::test]
async fn an_object_that_is_looked_at_tells_where_it_lies_and_whether_it_thaws() {
    const UNDER_WAY: &str = "x-amz-restore: ongoing-request=\"true\"\r\n";
    const DONE: &str = "x-amz-restore: ongoing-request=\"false\", expiry-date=\"Fri, 21 Dec 2012 00:00:00 GMT\"\r\n";
    const GLACIER: &str = "x-amz-storage-class: GLACIER\r\n";
    const DEEP: &str = "x-amz-storage-class: DEEP_ARCHIVE\r\n";
    const TIERING: &str = "x-amz-storage-class: INTELLIGENT_TIERING\r\n";
    const TIER: &str = "x-amz-archive-status: ARCHIVE_ACCESS\r\n";
    const DEEP_TIER: &str = "x-amz-archive-status: DEEP_ARCHIVE_ACCESS\r\n";
    for (headers, expected) in [
        (vec![], Frost::Readable),
        (vec![GLACIER], Frost::Frozen(Archive::Glacier)),
        (vec![DEEP, UNDER_WAY], Frost::Thawing(Archive::Deep)),
        (vec![DEEP, DONE], Frost::Readable),
        (vec![TIERING], Frost::Readable),
        (vec![TIERING, TIER], Frost::Frozen(Archive::Tier)),
        (vec![TIERING, DEEP_TIER, UNDER_WAY], Frost::Thawing(Archive::DeepTier)),
        (vec!["x-amz-storage-class: GLACIER_IR\r\n"], Frost::Readable),
    ] {
        let server = Server::start(vec![Reply::Answer("200 OK", headers.concat().leak(), String::new())]);
        assert_eq!(server.store().await.frost(&key()).await.unwrap(), expected, "{headers:?}");
        assert!(server.requests()[0].starts_with("HEAD /bucket/some/prefix/packs/ab/abcd HTTP/1.1"));
    }
    let server = Server::start(vec![refuse("404 Not Found", "")]);
    assert!(server.store().await.frost(&key()).await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn a_wish_to_thaw_names_days_and_tier_and_of_intelligent_tiering_the_tier_alone() {
    let namespace = "xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"";
    let job = |tier| format!("<GlacierJobParameters><Tier>{tier}</Tier></GlacierJobParameters>");
    for (archive, tier, days, name) in [
        (Archive::Glacier, ThawTier::Standard, "<Days>7</Days>", "Standard"),
        (Archive::Deep, ThawTier::Bulk, "<Days>7</Days>", "Bulk"),
        (Archive::Tier, ThawTier::Expedited, "", "Expedited"),
        (Archive::DeepTier, ThawTier::Standard, "", "Standard"),
    ] {
        let server = Server::start(vec![Reply::Answer("202 Accepted", "", String::new())]);
        let store = server.store().await;
        assert_eq!(store.thaw(&key(), archive, order(tier)).await.unwrap(), ThawAnswer::Accepted);
        let line = server.requests()[0].lines().next().unwrap().to_owned();
        assert_eq!(line, "POST /bucket/some/prefix/packs/ab/abcd?restore HTTP/1.1");
        let expected = format!("<RestoreRequest {namespace}>{days}{}</RestoreRequest>", job(name));
        assert_eq!(server.bodies()[0], expected);
        assert_eq!(store.counters().counts().thaws, 1);
    }
}

#[tokio::test]
async fn a_wish_that_was_made_before_or_is_not_needed_is_no_failure() {
    for (status, code, expected) in [
        ("409 Conflict", "RestoreAlreadyInProgress", ThawAnswer::UnderWay),
        ("403 Forbidden", "InvalidObjectState", ThawAnswer::Readable),
        ("403 Forbidden", "ObjectAlreadyInActiveTierError", ThawAnswer::Readable),
    ] {
        let server = Server::start(vec![refuse("503 Slow Down", "SlowDown"), refuse(status, code)]);
        let store = server.store().await;
        let answer = store.thaw(&key(), Archive::Glacier, order(ThawTier::Bulk)).await.unwrap();
        assert_eq!((answer, server.requests().len()), (expected, 2), "{code}");
    }
}

#[tokio::test]
async fn who_may_not_thaw_is_told_which_right_is_missing() {
    let server = Server::start(vec![refuse("403 Forbidden", "AccessDenied")]);
    let error = server.store().await.thaw(&key(), Archive::Deep, order(ThawTier::Standard)).await.unwrap_err();
    assert_eq!(error.to_string(), "not allowed to thaw packs/ab/abcd at s3://bucket/some/prefix");
    assert!(error.hint().unwrap().starts_with("allow the account s3:RestoreObject on the prefix"), "{error:?}");
    assert_eq!((error.kind(), server.requests().len()), (Kind::StorageUnavailable, 1));
}

#[tokio::test]
async fn a_directory_has_no_archive_and_is_not_asked() {
    let folder = tempfile::tempdir().unwrap();
    let url = StoreUrl::directory(folder.path()).unwrap();
    let store = open(&url, &StoreOptions::default()).await.unwrap();
    store.put(&key(), "content").await.unwrap();
    let before = store.counters().counts();
    assert!(!store.has_archives());
    assert_eq!(store.frosts("packs/").try_collect::<Vec<_>>().await.unwrap(), []);
    assert_eq!(store.frost(&key()).await.unwrap(), Frost::Readable);
    let answer = store.thaw(&key(), Archive::Deep, order(ThawTier::Standard)).await.unwrap();
    assert_eq!((answer, store.counters().counts()), (ThawAnswer::Readable, before));
}
