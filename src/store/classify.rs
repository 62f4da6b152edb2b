//! From the store crate's errors to ours: what happened, and whether to try again.

use std::{error::Error, io, sync::Arc, time::Duration};

use object_store::client::HttpError;

use super::{
    error::{Action, Cause, Origin, Refused, StoreError},
    refusal::Refusal,
};

/// What to do about a failed request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// It would fail again.
    GiveUp,
    /// It may succeed the next time.
    Retry,
    /// It may succeed with new credentials.
    Renew,
    /// An object of that key exists already; its content decides.
    Compare,
    /// The store cannot put an object only where none is.
    PutPlain,
}

/// A failed request.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: StoreError,
    pub(super) next: Next,
}

impl Failure {
    pub(super) fn give_up(error: StoreError) -> Failure {
        Failure { error, next: Next::GiveUp }
    }

    /// True for an answer of the store that refuses.
    pub(super) fn is_refusal(&self) -> bool {
        self.error.source().is_some_and(|cause| cause.is::<Refusal>())
    }

    /// Time for which the store wants no further request.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        self.error.source()?.downcast_ref::<Refusal>()?.retry_after
    }

    /// True for a refusal without a code: an answer to HEAD has no body that could say why.
    pub(super) fn is_bare_refusal(&self) -> bool {
        let refusal = self.error.source().and_then(|cause| cause.downcast_ref::<Refusal>());
        refusal.is_some_and(|refusal| matches!(refusal.status, 400 | 401 | 403) && refusal.code.is_none())
    }
}

/// One operation, as its errors name it.
#[derive(Debug, Clone)]
pub(super) struct Attempt {
    pub(super) action: Action,
    pub(super) what: String,
    pub(super) origin: Arc<Origin>,
}

/// A cause that is known by its text alone.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Reason(pub(super) String);

impl Attempt {
    /// A failure that may pass; the number of attempts is filled in when they end.
    pub(super) fn unavailable(&self, source: Cause) -> Failure {
        let error = StoreError::Unavailable {
            action: self.action,
            what: self.what.clone(),
            origin: self.origin.clone(),
            attempts: 1,
            seconds: 0,
            source,
        };
        Failure { error, next: Next::Retry }
    }

    fn denied(&self, reason: Refused, source: Cause) -> Failure {
        Failure::give_up(StoreError::Denied {
            action: self.action,
            what: self.what.clone(),
            reason,
            origin: self.origin.clone(),
            source,
        })
    }

    fn other(&self, source: Cause) -> Failure {
        Failure::give_up(StoreError::Other {
            action: self.action,
            what: self.what.clone(),
            origin: self.origin.clone(),
            source,
        })
    }

    fn no_space(&self, source: Cause) -> Failure {
        Failure::give_up(StoreError::NoSpace { key: self.what.clone(), origin: self.origin.clone(), source })
    }

    /// Judges an error of the store crate.
    pub(super) fn classify(&self, error: object_store::Error) -> Failure {
        if let Some(refusal) = find::<Refusal>(&error) {
            return self.refused(refusal.clone());
        }
        if let Some(broken) = find::<HttpError>(&error) {
            // What stands above it repeats the URL, and how long one attempt took.
            let text = chain_text(broken.source().unwrap_or(broken));
            // The TLS library's words; its type is not to be had here. Missed, the error is merely found later.
            let untrusted = text.contains("invalid peer certificate");
            let source = Box::new(Reason(text));
            if untrusted {
                return Failure::give_up(StoreError::Untrusted { origin: self.origin.clone(), source });
            }
            return self.unavailable(source);
        }
        if let Some(cause) = find::<StoreError>(&error) {
            // Credentials are fetched inside a request, and their failure is told as such.
            return match cause {
                StoreError::NoCredentials { url, .. } => {
                    let source = Box::new(Reason(chain_text(cause.source().unwrap_or(cause))));
                    Failure { error: StoreError::NoCredentials { url: url.clone(), source }, next: Next::Retry }
                }
                _ => self.other(Box::new(error)),
            };
        }
        if let Some(failure) = find::<io::Error>(&error).and_then(|cause| self.local(cause, &error)) {
            return failure;
        }
        let source = Box::new(Reason(chain_text(&error)));
        match error {
            object_store::Error::NotFound { .. } => {
                Failure::give_up(StoreError::NotFound { key: self.what.clone(), source })
            }
            object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. } => {
                Failure { error: StoreError::AlreadyExists { key: self.what.clone() }, next: Next::Compare }
            }
            object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => {
                self.denied(Refused::Permission, source)
            }
            object_store::Error::NotImplemented { .. } | object_store::Error::NotSupported { .. }
                if self.action == Action::Store =>
            {
                Failure { next: Next::PutPlain, ..self.other(source) }
            }
            _ => self.other(source),
        }
    }

    fn refused(&self, refusal: Refusal) -> Failure {
        let code = refusal.code.clone().unwrap_or_default();
        let status = refusal.status;
        let storing = self.action == Action::Store;
        let region = refusal.region.clone();
        let elsewhere = region.is_some() && region != self.origin.region;
        let source: Cause = Box::new(refusal);
        match (status, code.as_str()) {
            (_, "NoSuchBucket" | "ContainerNotFound") => {
                Failure::give_up(StoreError::NoBucket { origin: self.origin.clone(), source })
            }
            (404, _) => Failure::give_up(StoreError::NotFound { key: self.what.clone(), source }),
            (_, "RequestTimeTooSkewed") => {
                Failure::give_up(StoreError::ClockSkew { origin: self.origin.clone(), source })
            }
            (_, "ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired" | "InvalidToken") => {
                Failure { next: Next::Renew, ..self.denied(Refused::Expired, source) }
            }
            (_, "SignatureDoesNotMatch") => self.denied(Refused::WrongSecret, source),
            (_, "InvalidAccessKeyId") => self.denied(Refused::UnknownKey, source),
            (_, "AuthorizationHeaderMalformed" | "PermanentRedirect" | "IllegalLocationConstraintException")
            | (301 | 307 | 308, _) => self.wrong_region(region, source),
            // A HEAD has no body: its 400 is told from others by the region alone.
            (400, "") if elsewhere => self.wrong_region(region, source),
            (507, _) | (_, "QuotaExceeded" | "XMinioStorageFull") if storing => self.no_space(source),
            (501, _) | (_, "NotImplemented") if storing => Failure { next: Next::PutPlain, ..self.other(source) },
            // 409 is S3's answer to two conditional puts at a time: the object may be there or not.
            (304 | 409 | 412, _) if storing => {
                Failure { error: StoreError::AlreadyExists { key: self.what.clone() }, next: Next::Compare }
            }
            // Bytes were changed on their way, or the answer took too long: both pass.
            (_, "BadDigest" | "XAmzContentSHA256Mismatch" | "XAmzContentChecksumMismatch" | "IncompleteBody")
            | (_, "RequestTimeout" | "OperationAborted" | "SlowDown")
            | (408 | 409 | 429 | 500 | 502 | 503 | 504, _) => self.unavailable(source),
            (403, "InvalidObjectState") => {
                Failure::give_up(StoreError::Archived { key: self.what.clone(), origin: self.origin.clone(), source })
            }
            (401 | 403, _) => self.denied(Refused::Permission, source),
            _ => self.other(source),
        }
    }

    fn wrong_region(&self, expected: Option<String>, source: Cause) -> Failure {
        Failure::give_up(StoreError::WrongRegion { expected, origin: self.origin.clone(), source })
    }

    /// Judges an error of the operating system, which comes from a file system or from a connection.
    fn local(&self, cause: &io::Error, whole: &object_store::Error) -> Option<Failure> {
        use io::ErrorKind;

        let source = || -> Cause { Box::new(Reason(chain_text(whole))) };
        Some(match cause.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => self.no_space(source()),
            ErrorKind::PermissionDenied if self.action == Action::Store && is_link_refused(cause) => {
                Failure { next: Next::PutPlain, ..self.denied(Refused::Permission, source()) }
            }
            ErrorKind::Unsupported | ErrorKind::TooManyLinks if self.action == Action::Store => {
                Failure { next: Next::PutPlain, ..self.other(source()) }
            }
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => self.denied(Refused::Permission, source()),
            ErrorKind::ConnectionRefused
            | ErrorKind::ConnectionReset
            | ErrorKind::ConnectionAborted
            | ErrorKind::NotConnected
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
            | ErrorKind::NetworkDown
            | ErrorKind::BrokenPipe
            | ErrorKind::TimedOut
            | ErrorKind::UnexpectedEof
            | ErrorKind::StaleNetworkFileHandle
            | ErrorKind::Interrupted => self.unavailable(source()),
            _ => return None,
        })
    }
}

/// EPERM is how a file system without hard links refuses one; a lack of rights is EACCES.
fn is_link_refused(cause: &io::Error) -> bool {
    cause.raw_os_error() == Some(rustix::io::Errno::PERM.raw_os_error())
}

/// The first error of type `T` among `error` and its sources.
pub(super) fn find<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    let mut next = Some(error);
    // Chains are a handful long; a limit keeps one that loops from doing so here.
    for _ in 0..32 {
        let error = next?;
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// The texts of `error` and its sources, each once: many errors repeat the text of their source.
pub(super) fn chain_text(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    for _ in 0..32 {
        let Some(error) = next else { break };
        let part = error.to_string();
        if !text.contains(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
        next = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Diagnose, Kind};

    fn attempt(action: Action) -> Attempt {
        let origin = Origin {
            url: "s3://bucket/prefix".to_owned(),
            endpoint: None,
            region: Some("us-east-1".to_owned()),
            credentials: Some("profile backup".to_owned()),
        };
        Attempt { action, what: "packs/ab".to_owned(), origin: Arc::new(origin) }
    }

    fn io(kind: io::ErrorKind) -> object_store::Error {
        object_store::Error::Generic { store: "test", source: Box::new(io::Error::from(kind)) }
    }

    #[test]
    fn a_full_disk_is_named_and_not_tried_again() {
        let full = io::Error::from_raw_os_error(rustix::io::Errno::NOSPC.raw_os_error());
        let error = object_store::Error::Generic { store: "test", source: Box::new(full) };
        let failure = attempt(Action::Store).classify(error);
        assert_eq!(failure.next, Next::GiveUp);
        assert!(matches!(failure.error, StoreError::NoSpace { .. }), "{:?}", failure.error);
        assert_eq!(failure.error.kind(), Kind::StorageUnavailable);
    }

    #[test]
    fn a_broken_connection_is_tried_again() {
        for kind in [io::ErrorKind::ConnectionReset, io::ErrorKind::TimedOut, io::ErrorKind::UnexpectedEof] {
            assert_eq!(attempt(Action::Read).classify(io(kind)).next, Next::Retry, "{kind:?}");
        }
    }

    #[test]
    fn a_certificate_that_is_not_trusted_is_not_tried_again() {
        let refused = io::Error::other("invalid peer certificate: UnknownIssuer");
        let broken = HttpError::new(object_store::client::HttpErrorKind::Connect, refused);
        let error = object_store::Error::Generic { store: "test", source: Box::new(broken) };
        let failure = attempt(Action::Read).classify(error);
        assert_eq!(failure.next, Next::GiveUp);
        assert!(matches!(failure.error, StoreError::Untrusted { .. }), "{:?}", failure.error);
    }

    #[test]
    fn each_refusal_says_what_to_do() {
        let cases: [(u16, &str, Next, Kind, &str); 10] = [
            (403, "SignatureDoesNotMatch", Next::GiveUp, Kind::StorageUnavailable, "secret key"),
            (403, "InvalidAccessKeyId", Next::GiveUp, Kind::StorageUnavailable, "access key"),
            (403, "AccessDenied", Next::GiveUp, Kind::StorageUnavailable, "s3:PutObject"),
            (403, "InvalidObjectState", Next::GiveUp, Kind::StorageUnavailable, "thaw"),
            (400, "ExpiredToken", Next::Renew, Kind::StorageUnavailable, "renew"),
            (403, "RequestTimeTooSkewed", Next::GiveUp, Kind::StorageUnavailable, "clock"),
            (404, "NoSuchBucket", Next::GiveUp, Kind::NoRepository, "create the bucket"),
            (301, "PermanentRedirect", Next::GiveUp, Kind::StorageUnavailable, "eu-west-1"),
            (503, "SlowDown", Next::Retry, Kind::StorageUnavailable, "network"),
            (507, "", Next::GiveUp, Kind::StorageUnavailable, "free space"),
        ];
        for (status, code, next, kind, hint) in cases {
            let refusal = Refusal {
                status,
                code: (!code.is_empty()).then(|| code.to_owned()),
                region: Some("eu-west-1".to_owned()),
                ..Refusal::default()
            };
            let failure = attempt(Action::Store).refused(refusal);
            assert_eq!(failure.next, next, "{status} {code}");
            assert_eq!(failure.error.kind(), kind, "{status} {code}");
            let found = failure.error.hint().unwrap();
            assert!(found.contains(hint), "{status} {code}: {found}");
        }
    }

    #[test]
    fn a_chain_tells_each_cause_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("outer: {0}")]
        struct Outer(#[source] Reason);
        assert_eq!(chain_text(&Outer(Reason("inner".to_owned()))), "outer: inner");
    }
}
