//! A scripted HTTP server plays what S3 and its imitators answer.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    time::Duration,
};

use super::*;
use crate::{
    error::{Diagnose, Kind},
    model::Secret,
};

/// One answer of the server.
#[derive(Clone)]
pub(super) enum Reply {
    /// Status line, further headers with `\r\n` each, body. The length is added.
    Answer(&'static str, &'static str, String),
    /// A body of fewer bytes than announced.
    Cut(&'static str, usize, &'static str),
    /// The request is read, and the connection closed.
    Close,
    /// The request is read, and nothing comes until the client goes.
    Silence,
}

#[derive(Default)]
pub(super) struct Seen {
    heads: Mutex<Vec<String>>,
    bodies: Mutex<Vec<String>>,
}

pub(super) struct Server {
    endpoint: String,
    seen: Arc<Seen>,
}

impl Server {
    /// Answers each request with the next reply, and the last one for ever after.
    pub(super) fn start(replies: Vec<Reply>) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Seen::default());
        let log = seen.clone();
        std::thread::spawn(move || {
            let mut replies = replies.into_iter().peekable();
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                let reply = replies.next().unwrap();
                if replies.peek().is_none() {
                    replies = vec![reply.clone()].into_iter().peekable();
                }
                let _ = serve(stream, reply, &log);
            }
        });
        Server { endpoint, seen }
    }

    pub(super) async fn store(&self) -> Store {
        store_at(&self.endpoint, PATIENT).await
    }

    async fn impatient_store(&self, silence_max: Duration) -> Store {
        store_at(&self.endpoint, silence_max).await
    }

    pub(super) fn requests(&self) -> Vec<String> {
        self.seen.heads.lock().unwrap().clone()
    }

    pub(super) fn bodies(&self) -> Vec<String> {
        self.seen.bodies.lock().unwrap().clone()
    }
}

fn serve(stream: TcpStream, reply: Reply, log: &Seen) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? <= 2 {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        head.push_str(&line);
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let is_head = head.starts_with("HEAD");
    log.heads.lock().unwrap().push(head);
    log.bodies.lock().unwrap().push(String::from_utf8_lossy(&body).into_owned());
    let mut stream = stream;
    match reply {
        Reply::Answer(status, headers, body) => {
            write!(
                stream,
                "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n",
                body.len()
            )?;
            if !is_head {
                stream.write_all(body.as_bytes())?;
            }
        }
        Reply::Cut(status, length, body) => {
            write!(stream, "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {length}\r\n{FOUND}\r\n{body}")?;
        }
        Reply::Close => {}
        Reply::Silence => {
            let _ = reader.read(&mut [0]);
        }
    }
    Ok(())
}

/// Longer than a busy machine takes for any answer that comes at all.
const PATIENT: Duration = Duration::from_secs(30);

/// Headers of an object that is there.
const FOUND: &str = "ETag: \"abc\"\r\nLast-Modified: Sun, 22 Nov 2026 17:00:00 GMT\r\n";

pub(super) fn ok(body: &str) -> Reply {
    Reply::Answer("200 OK", FOUND, body.to_owned())
}

pub(super) fn refuse(status: &'static str, code: &str) -> Reply {
    let body = format!("<Error><Code>{code}</Code><Message>told by the store</Message></Error>");
    Reply::Answer(status, "x-amz-request-id: R1\r\n", body)
}

async fn store_at(endpoint: &str, silence_max: Duration) -> Store {
    let access_key =
        AccessKey { id: "AKIAEXAMPLE00001".to_owned(), secret: Secret::new("hunter2"), session_token: None };
    let retry =
        RetryPolicy { attempts_max: 3, pause_first: Duration::from_millis(1), silence_max, ..RetryPolicy::default() };
    let options = StoreOptions {
        region: Some("us-east-1".to_owned()),
        endpoint: Some(endpoint.parse().unwrap()),
        access_key: Some(access_key),
        retry,
        ..StoreOptions::default()
    };
    open(&"s3://bucket/some/prefix".parse().unwrap(), &options).await.unwrap()
}

pub(super) fn key() -> Key {
    Key::new("packs/ab/abcd").unwrap()
}

#[tokio::test]
async fn a_put_is_conditional_signed_and_carries_its_checksum() {
    let server = Server::start(vec![ok("")]);
    let store = server.store().await;
    assert_eq!(store.put(&key(), "content").await.unwrap(), PutOutcome::Stored);
    let request = server.requests()[0].to_ascii_lowercase();
    assert!(request.starts_with("put /bucket/some/prefix/packs/ab/abcd http/1.1"), "{request}");
    for header in [
        "if-none-match: *",
        // SHA-256 of `content`, in the two forms.
        "x-amz-checksum-sha256: 7xactdnprirfijv9giusferzd722aw0+yumil7nsn3m=",
        "x-amz-content-sha256: ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73",
        "/us-east-1/s3/aws4_request",
    ] {
        assert!(request.contains(header), "{header} in {request}");
    }
    assert!(!request.contains("hunter2"));
}

#[tokio::test]
async fn an_overloaded_store_is_asked_again() {
    let server = Server::start(vec![refuse("503 Slow Down", "SlowDown"), refuse("429 Many", ""), ok("content")]);
    let store = server.store().await;
    assert_eq!(store.get(&key(), 100).await.unwrap(), "content");
    assert_eq!(store.counters().counts().retries, 2);
}

#[tokio::test]
async fn a_store_that_says_when_to_come_back_is_not_asked_before() {
    let later = Reply::Answer("503 Slow Down", "Retry-After: 1\r\n", String::new());
    let server = Server::start(vec![later, ok("content")]);
    let (store, started) = (server.store().await, std::time::Instant::now());
    assert_eq!(store.get(&key(), 100).await.unwrap(), "content");
    assert!(started.elapsed() >= Duration::from_secs(1), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_wrong_secret_is_refused_once_and_told_with_its_source() {
    let server = Server::start(vec![refuse("403 Forbidden", "SignatureDoesNotMatch")]);
    let store = server.store().await;
    let error = store.put(&key(), "content").await.unwrap_err();
    assert!(matches!(error, StoreError::Denied { reason: Refused::WrongSecret, .. }), "{error:?}");
    assert_eq!(server.requests().len(), 1);
    let hint = error.hint().unwrap();
    assert!(hint.contains("the settings, access key AKIA…0001"), "{hint}");
    assert!(hint.contains(&server.endpoint), "{hint}");
    let shown = format!("{error} {error:?} {hint}");
    assert!(!shown.contains("hunter2"), "{shown}");
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert_eq!(cause, "the store answered 403 SignatureDoesNotMatch: told by the store (request R1)");
}

#[tokio::test]
async fn a_missing_bucket_is_told_from_a_missing_object() {
    let bucket = Server::start(vec![refuse("404 Not Found", "NoSuchBucket")]);
    let error = bucket.store().await.get(&key(), 10).await.unwrap_err();
    assert!(matches!(error, StoreError::NoBucket { .. }), "{error:?}");
    assert_eq!(error.kind(), Kind::NoRepository);
    let object = Server::start(vec![refuse("404 Not Found", "NoSuchKey")]);
    assert!(object.store().await.get(&key(), 10).await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn a_bucket_in_another_region_is_named() {
    let body = "<Error><Code>AuthorizationHeaderMalformed</Code><Region>eu-west-1</Region></Error>".to_owned();
    let replies = [
        Reply::Answer("400 Bad Request", "", body),
        Reply::Answer("400 Bad Request", "x-amz-bucket-region: eu-west-1\r\n", String::new()),
        Reply::Answer("301 Moved Permanently", "x-amz-bucket-region: eu-west-1\r\n", String::new()),
    ];
    for reply in replies {
        let store = Server::start(vec![reply]).store().await;
        // The body of an answer to HEAD does not come through: there the answer to a GET tells.
        for error in [store.get(&key(), 10).await.unwrap_err(), store.head(&key()).await.unwrap_err()] {
            assert!(matches!(error, StoreError::WrongRegion { .. }), "{error:?}");
            assert_eq!(error.hint().unwrap(), "set the region to eu-west-1");
        }
    }
}

#[tokio::test]
async fn a_put_whose_connection_breaks_recognises_its_own_success() {
    let exists = refuse("412 Precondition Failed", "PreconditionFailed");
    let server = Server::start(vec![Reply::Close, exists.clone(), ok("content")]);
    assert_eq!(server.store().await.put(&key(), "content").await.unwrap(), PutOutcome::AlreadyThere);
    let server = Server::start(vec![Reply::Silence, exists.clone(), ok("CONTENT")]);
    let store = server.impatient_store(Duration::from_secs(2)).await;
    let error = store.put(&key(), "content").await.unwrap_err();
    assert!(matches!(error, StoreError::AlreadyExists { .. }), "{error:?}");
}

#[tokio::test]
async fn two_puts_at_a_time_that_both_come_to_nothing_are_tried_again() {
    let conflict = refuse("409 Conflict", "ConditionalRequestConflict");
    let server = Server::start(vec![conflict, refuse("404 Not Found", "NoSuchKey"), ok("")]);
    assert_eq!(server.store().await.put(&key(), "content").await.unwrap(), PutOutcome::Stored);
}

#[tokio::test]
async fn a_store_without_conditional_puts_is_asked_first() {
    let missing = refuse("404 Not Found", "");
    let refused = refuse("501 Not Implemented", "NotImplemented");
    let server = Server::start(vec![refused, missing.clone(), ok(""), missing, ok("")]);
    let store = server.store().await;
    assert_eq!(store.put(&key(), "content").await.unwrap(), PutOutcome::Stored);
    assert_eq!(store.put(&key(), "content").await.unwrap(), PutOutcome::Stored);
    let methods: Vec<_> = server.requests().iter().map(|head| head.split(' ').next().unwrap().to_owned()).collect();
    assert_eq!(methods, ["PUT", "HEAD", "PUT", "HEAD", "PUT"]);
    assert!(!server.requests()[2].to_ascii_lowercase().contains("if-none-match"));
}

#[tokio::test]
async fn a_body_that_ends_early_is_read_again() {
    let server = Server::start(vec![Reply::Cut("200 OK", 7, "con"), ok("content")]);
    let store = server.store().await;
    assert_eq!(store.get(&key(), 100).await.unwrap(), "content");
    assert_eq!(store.counters().counts().retries, 1);
}

#[tokio::test]
async fn a_range_that_is_not_the_one_asked_for_is_an_error() {
    let headers = "ETag: \"a\"\r\nLast-Modified: Sun, 22 Nov 2026 17:00:00 GMT\r\nContent-Range: bytes 0-4/5\r\n";
    let server = Server::start(vec![Reply::Answer("206 Partial Content", headers, "01234".to_owned())]);
    let error = server.store().await.get_range(&key(), 0..10).await.unwrap_err();
    assert!(matches!(error, StoreError::Truncated { expected: 10, found: 5, .. }), "{error:?}");
    let whole = Server::start(vec![ok("0123456789abcdef")]);
    let error = whole.store().await.get_range(&key(), 3..10).await.unwrap_err();
    assert!(matches!(error, StoreError::Other { .. }), "{error:?}");
}

#[tokio::test]
async fn an_object_over_the_limit_is_not_read() {
    let server = Server::start(vec![Reply::Cut("200 OK", 1 << 40, "")]);
    let error = server.store().await.get(&key(), 1000).await.unwrap_err();
    assert!(matches!(error, StoreError::TooLarge { found: 0x100_0000_0000, .. }), "{error:?}");
}

#[tokio::test]
async fn a_silent_store_is_given_up() {
    let server = Server::start(vec![Reply::Silence]);
    let store = server.impatient_store(Duration::from_millis(200)).await;
    for error in [store.put(&key(), "x").await.unwrap_err(), store.head(&key()).await.unwrap_err()] {
        assert!(matches!(error, StoreError::Unavailable { attempts: 3, .. }), "{error:?}");
    }
}

#[tokio::test]
async fn a_store_that_is_down_is_told_with_its_endpoint() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let error = store_at(&endpoint, PATIENT).await.get(&key(), 10).await.unwrap_err();
    assert_eq!(error.kind(), Kind::StorageUnavailable);
    assert!(error.hint().unwrap().contains(&endpoint));
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("Connection refused"), "{cause}");
}

#[tokio::test]
async fn an_expired_token_is_renewed_once() {
    let expired = refuse("400 Bad Request", "ExpiredToken");
    let server = Server::start(vec![expired.clone(), ok("content")]);
    assert_eq!(server.store().await.get(&key(), 100).await.unwrap(), "content");
    let server = Server::start(vec![expired]);
    let error = server.store().await.get(&key(), 100).await.unwrap_err();
    assert!(matches!(error, StoreError::Denied { reason: Refused::Expired, .. }), "{error:?}");
    assert_eq!(server.requests().len(), 2);
}

#[tokio::test]
async fn a_head_that_is_refused_without_a_reason_finds_it_out() {
    let bare = Reply::Answer("403 Forbidden", "", String::new());
    let expired = refuse("400 Bad Request", "ExpiredToken");
    let server = Server::start(vec![bare.clone(), refuse("403 Forbidden", "SignatureDoesNotMatch")]);
    let error = server.store().await.head(&key()).await.unwrap_err();
    assert!(matches!(error, StoreError::Denied { reason: Refused::WrongSecret, .. }), "{error:?}");
    let server = Server::start(vec![Reply::Answer("400 Bad Request", "", String::new()), expired, ok("content")]);
    assert_eq!(server.store().await.head(&key()).await.unwrap().size, 7);
    let server = Server::start(vec![bare.clone(), ok("content")]);
    let error = server.store().await.head(&key()).await.unwrap_err();
    assert!(matches!(error, StoreError::Denied { reason: Refused::Permission, .. }), "{error:?}");
}

#[tokio::test]
async fn settings_that_cannot_work_are_usage_errors() {
    let bad = |change: &dyn Fn(&mut StoreOptions)| {
        let access_key = AccessKey { id: "AKIA".to_owned(), secret: Secret::new("hunter2"), session_token: None };
        let mut options = StoreOptions {
            region: Some("us-east-1".to_owned()),
            access_key: Some(access_key),
            ..StoreOptions::default()
        };
        change(&mut options);
        options
    };
    let scratch = tempfile::tempdir().unwrap();
    let garbage = scratch.path().join("garbage.pem");
    std::fs::write(&garbage, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    let empty = scratch.path().join("empty.pem");
    std::fs::write(&empty, "").unwrap();
    let cases: [StoreOptions; 6] = [
        bad(&|options| options.endpoint = "ftp://host".parse().ok()),
        bad(&|options| options.endpoint = "https://user:hunter2@host".parse().ok()),
        bad(&|options| options.endpoint = "https://host/?x".parse().ok()),
        bad(&|options| options.ca_file = Some("/nonexistent.pem".into())),
        bad(&|options| options.ca_file = Some(garbage.clone())),
        bad(&|options| options.ca_file = Some(empty.clone())),
    ];
    for options in cases {
        let error = open(&"s3://bucket/p".parse().unwrap(), &options).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Usage, "{options:?}: {error:?}");
        assert!(!format!("{error:?} {error}").contains("hunter2"));
    }
}
