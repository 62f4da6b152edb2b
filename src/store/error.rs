//! What can go wrong with a store, and what the operator does about it.

use std::{error::Error, fmt, path::PathBuf, sync::Arc};

use super::ObjectLock;
use crate::error::{Diagnose, Kind};

/// The cause of an error, for its `source`.
pub type Cause = Box<dyn Error + Send + Sync>;

/// What a request was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Storing an object.
    Store,
    /// Reading an object or a range of one.
    Read,
    /// Asking for an object's size.
    Look,
    /// Listing a folder.
    List,
    /// Deleting an object.
    Delete,
    /// Asking how an object is locked.
    LookAtLock,
    /// Locking an object for longer.
    Lock,
    /// Asking whether an object is archived.
    LookAtArchive,
    /// Asking for an object to be thawed.
    Thaw,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Action::Store => "store",
            Action::Read => "read",
            Action::Look => "look at",
            Action::List => "list",
            Action::Delete => "delete",
            Action::LookAtLock => "look at the lock of",
            Action::Lock => "extend the lock of",
            Action::LookAtArchive => "ask for the storage class of",
            Action::Thaw => "thaw",
        })
    }
}

/// How a store is reached, for hints. Holds no secret.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Origin {
    /// The repository's URL.
    pub url: String,
    /// Endpoint, where it is not the provider's own.
    pub endpoint: Option<String>,
    /// Region that requests are signed for.
    pub region: Option<String>,
    /// Where the credentials came from, such as `profile backup, access key AKIA…WXYZ`.
    pub credentials: Option<String>,
}

impl Origin {
    fn told(&self) -> String {
        let mut told = String::new();
        if let Some(credentials) = &self.credentials {
            told.push_str(&format!("; credentials came from {credentials}"));
        }
        if let Some(endpoint) = &self.endpoint {
            told.push_str(&format!("; the endpoint is {endpoint}"));
        }
        told
    }
}

/// Why a store refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refused {
    /// The secret key does not belong to the access key.
    WrongSecret,
    /// The store does not know the access key.
    UnknownKey,
    /// The session token has expired, and a new one was refused too.
    Expired,
    /// The account may not do this.
    Permission,
}

/// A failure of a store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The text names no place that could hold a repository.
    #[error("not a repository URL: {url}: {reason}")]
    BadUrl {
        /// The text, without what might be a secret.
        url: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The text is not the name of an object.
    #[error("not a key: {key:?}: {reason}")]
    BadKey {
        /// The text.
        key: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Settings of the store are wrong or missing.
    #[error("{what}")]
    BadOptions {
        /// The setting and what is wrong with it.
        what: String,
        /// What to do.
        hint: &'static str,
        /// Cause.
        source: Option<Cause>,
    },
    /// No credentials were found, or they could not be fetched.
    #[error("no credentials for {url}")]
    NoCredentials {
        /// The repository's URL.
        url: String,
        /// Cause.
        source: Cause,
    },
    /// The directory of a `file://` repository is not there.
    #[error("directory {} does not exist", directory.display())]
    NoDirectory {
        /// The directory.
        directory: PathBuf,
    },
    /// The directory of a `file://` repository was taken away or replaced while it was in use.
    #[error("directory {} is no longer the one that was opened", directory.display())]
    DirectoryGone {
        /// The directory.
        directory: PathBuf,
    },
    /// The bucket does not exist.
    #[error("there is no bucket for {}", origin.url)]
    NoBucket {
        /// How the store is reached.
        origin: Arc<Origin>,
        /// Cause.
        source: Cause,
    },
    /// The object does not exist.
    #[error("object {key} does not exist")]
    NotFound {
        /// Its key.
        key: String,
        /// Cause.
        source: Cause,
    },
    /// An object of this key exists and holds something else.
    #[error("object {key} exists already, with other content")]
    AlreadyExists {
        /// Its key.
        key: String,
    },
    /// The object is longer than anything that is ever stored under its key.
    #[error("object {key} is {found} bytes long, more than the {expected} allowed")]
    TooLarge {
        /// Its key.
        key: String,
        /// The most that the reader accepts.
        expected: u64,
        /// Its length.
        found: u64,
    },
    /// The object is shorter than it should be.
    #[error("object {key} has no bytes up to {expected}: it ends at {found}")]
    Truncated {
        /// Its key.
        key: String,
        /// End of the range asked for.
        expected: u64,
        /// The object's length.
        found: u64,
    },
    /// The store refuses this account.
    #[error("not allowed to {action} {what} at {}", origin.url)]
    Denied {
        /// What was tried.
        action: Action,
        /// The object or folder.
        what: String,
        /// Why.
        reason: Refused,
        /// How the store is reached.
        origin: Arc<Origin>,
        /// Cause.
        source: Cause,
    },
    /// The object lies in a storage class of which nothing can be read before it is thawed.
    #[error("object {key} is archived at {} and cannot be read before it is thawed", origin.url)]
    Archived {
        /// Its key.
        key: String,
        /// How the store is reached.
        origin: Arc<Origin>,
        /// Cause.
        source: Cause,
    },
    /// The store keeps no versions of objects.
    #[error("no versions of objects are kept at {url}")]
    NoVersions {
        /// The repository's URL.
        url: String,
    },
    /// The store cannot lock objects.
    #[error("objects at {url} cannot be locked: {reason}")]
    NoLocks {
        /// The repository's URL.
        url: String,
        /// Why.
        reason: String,
    },
    /// The object is locked and is not deleted.
    #[error("object {key} is locked {}", locked_text(*lock))]
    Locked {
        /// Its key.
        key: String,
        /// Its lock.
        lock: ObjectLock,
    },
    /// This machine's clock and the store's differ too much for signatures to be valid.
    #[error("the clocks of this machine and of {} differ too much", origin.url)]
    ClockSkew {
        /// How the store is reached.
        origin: Arc<Origin>,
        /// Cause.
        source: Cause,
    },
    /// The bucket lies in another region.
    #[error("the bucket of {} is not in region {}", origin.url, origin.region.as_deref().unwrap_or("us-east-1"))]
    WrongRegion {
        /// The region that the store names, where it names one.
        expected: Option<String>,
        /// How the store is reached.
        origin: Arc<Origin>,
        /// Cause.
        source: Cause,
    },
    /// The endpoint's certificate is not trusted, or not for its name.
    #[error("the certificate of the endpoint of {} is not trusted", origin.url)]
    Untrusted {
        /// How the store is reached.
        origin: Arc<Origin>,
        /// Cause.
        source: Cause,
    },
    /// The store cannot be reached, is overloaded or does not answer.
    #[error("could not {action} {what} at {}: {attempts} attempts in {seconds} s failed", origin.url)]
    Unavailable {
        /// What was tried.
        action: Action,
        /// The object or folder.
        what: String,
        /// How the store is reached.
        origin: Arc<Origin>,
        /// How often it was tried.
        attempts: u32,
        /// How long that took.
        seconds: u64,
        /// Cause of the last failure.
        source: Cause,
    },
    /// There is no room left.
    #[error("no space left to store {key} at {}", origin.url)]
    NoSpace {
        /// The object's key.
        key: String,
        /// How the store is reached.
        origin: Arc<Origin>,
        /// Cause.
        source: Cause,
    },
    /// Anything else.
    #[error("could not {action} {what} at {}", origin.url)]
    Other {
        /// What was tried.
        action: Action,
        /// The object or folder.
        what: String,
        /// How the store is reached.
        origin: Arc<Origin>,
        /// Cause.
        source: Cause,
    },
}

impl StoreError {
    /// True when the object is not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, StoreError::NotFound { .. })
    }

    /// The lock because of which an object was not deleted.
    pub fn lock(&self) -> Option<ObjectLock> {
        match self {
            StoreError::Locked { lock, .. } => Some(*lock),
            _ => None,
        }
    }

    /// True when the object has to be thawed before it can be read.
    pub fn is_archived(&self) -> bool {
        matches!(self, StoreError::Archived { .. })
    }
}

fn locked_text(lock: ObjectLock) -> String {
    match (lock.legal_hold, lock.retention) {
        (true, _) => "by a legal hold".to_owned(),
        (false, Some(retention)) => format!("until {} ({})", retention.until, retention.mode),
        (false, None) => "by the store".to_owned(),
    }
}

impl Diagnose for StoreError {
    fn kind(&self) -> Kind {
        match self {
            StoreError::BadUrl { .. }
            | StoreError::BadOptions { .. }
            | StoreError::NoLocks { .. }
            | StoreError::NoVersions { .. } => Kind::Usage,
            StoreError::NoDirectory { .. } | StoreError::NoBucket { .. } => Kind::NoRepository,
            StoreError::TooLarge { .. } | StoreError::Truncated { .. } => Kind::Corrupt,
            StoreError::BadKey { .. }
            | StoreError::NotFound { .. }
            | StoreError::AlreadyExists { .. }
            | StoreError::Locked { .. } => Kind::Failed,
            StoreError::NoCredentials { .. }
            | StoreError::DirectoryGone { .. }
            | StoreError::Denied { .. }
            | StoreError::Archived { .. }
            | StoreError::ClockSkew { .. }
            | StoreError::WrongRegion { .. }
            | StoreError::Untrusted { .. }
            | StoreError::Unavailable { .. }
            | StoreError::NoSpace { .. }
            | StoreError::Other { .. } => Kind::StorageUnavailable,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            StoreError::BadUrl { .. } => {
                "write s3://bucket/prefix, gs://bucket/prefix, az://container/prefix or file:///directory; keep secrets \
                 in the environment or a file"
                    .to_owned()
            }
            StoreError::BadOptions { hint, .. } => (*hint).to_owned(),
            StoreError::NoCredentials { .. } => "give a profile, set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or \
                 run where the machine or pod has a role"
                .to_owned(),
            StoreError::NoDirectory { .. } => {
                "check the path and that the disk is mounted; `init` creates the directory".to_owned()
            }
            StoreError::DirectoryGone { .. } => "check that the disk is still mounted".to_owned(),
            StoreError::NoBucket { origin, .. } => {
                format!("create the bucket, or correct its name, the region or the endpoint{}", origin.told())
            }
            StoreError::Denied { action, reason, origin, .. } => denied_hint(*action, *reason, origin),
            StoreError::Archived { .. } => "`restore`, `fetch`, `drill` and `restore-table` ask the store to thaw what a backup needs with --thaw \
                 (`aws s3api restore-object` does it for a single object); have no lifecycle rule move objects to Glacier or Deep \
                 Archive: Glacier Instant Retrieval can be read at once"
                .to_owned(),
            StoreError::ClockSkew { .. } => "set this machine's clock right, for example with NTP".to_owned(),
            StoreError::WrongRegion { expected: Some(region), .. } => format!("set the region to {region}"),
            StoreError::WrongRegion { expected: None, .. } => "set the region in which the bucket lies".to_owned(),
            StoreError::Untrusted { .. } => {
                "give the PEM file of the authority that signed it as the CA file, and use the host name that it names"
                    .to_owned()
            }
            StoreError::Unavailable { origin, .. } => match &origin.endpoint {
                Some(endpoint) => format!("check that {endpoint} is up and reachable from here, then run again"),
                None => "check the network and the provider's status, then run again".to_owned(),
            },
            StoreError::NoSpace { .. } => "free space or raise the quota, then run again".to_owned(),
            StoreError::NoVersions { .. } => "what is lost there has to come from another copy".to_owned(),
            StoreError::NoLocks { .. } => "make a bucket with object lock (`aws s3api create-bucket --object-lock-enabled-for-bucket`), or do without --lock"
                    .to_owned(),
            StoreError::Locked { lock, .. } if lock.legal_hold => {
                "whoever placed the legal hold can take it away".to_owned()
            }
            StoreError::Locked { .. } => "run again when the lock has ended".to_owned(),
            StoreError::AlreadyExists { .. } => "somebody else has written there; where the bucket keeps versions, `haulout \
                 unhide` brings the first one back"
                .to_owned(),
            StoreError::BadKey { .. }
            | StoreError::NotFound { .. }
            | StoreError::TooLarge { .. }
            | StoreError::Truncated { .. }
            | StoreError::Other { .. } => return None,
        })
    }
}

fn denied_hint(action: Action, reason: Refused, origin: &Origin) -> String {
    let advice = match (reason, origin.credentials.is_some()) {
        (Refused::WrongSecret, _) => "the secret key does not belong to the access key: correct it",
        (Refused::UnknownKey, _) => "the store does not know the access key: check that it belongs to this endpoint",
        (Refused::Expired, _) => "renew the session, or use credentials that renew themselves",
        (Refused::Permission, false) => "check the owner and mode of the directory, and that it is not read-only",
        (Refused::Permission, true) => match action {
            Action::Store => {
                "allow the account s3:PutObject on the prefix, and s3:PutObjectRetention where the repository locks its objects"
            }
            Action::Read | Action::Look | Action::LookAtArchive => {
                "allow the account s3:GetObject on the prefix and s3:ListBucket on the bucket (without the latter a \
                 missing object looks like a forbidden one)"
            }
            Action::List => "allow the account s3:ListBucket on the bucket",
            Action::Delete => "allow the account s3:DeleteObject on the prefix, and check object lock",
            Action::LookAtLock => "allow the account s3:GetObjectRetention and s3:GetObjectLegalHold on the prefix",
            Action::Lock => "allow the account s3:PutObjectRetention on the prefix",
            Action::Thaw => "allow the account s3:RestoreObject on the prefix",
        },
    };
    format!("{advice}{}", origin.told())
}
