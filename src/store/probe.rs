//! What a store really does, found out by trying.

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::{PutMode, PutPayload};
use serde::Serialize;

use super::{
    Key, Store, StoreError,
    classify::{Failure, Next, chain_text},
    error::Action,
};

/// Folder of all objects that probes and the conformance suite write.
pub(super) const PROBE_FOLDER: &str = "probe";

/// Clock difference in seconds from which on an operator is told: file times and schedules begin to mislead.
const SKEW_WEAK_SECONDS: u64 = 60;

/// Clock difference in seconds from which on S3 refuses signatures.
const SKEW_FAILED_SECONDS: u64 = 900;

/// One answer of a store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "answer", content = "reason", rename_all = "snake_case")]
pub enum Answer {
    /// It can, or has.
    Yes,
    /// It cannot, or has not; the reason where it is known.
    No(String),
    /// It could not be found out, and why.
    Unknown(String),
}

/// What a store and an account can do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Capabilities {
    /// The account may store objects.
    pub write: Answer,
    /// The account may read objects.
    pub read: Answer,
    /// The account may list, and a new object appears at once.
    pub list: Answer,
    /// The account may delete objects.
    pub delete: Answer,
    /// A second put of one key is refused (`If-None-Match: *` is honoured).
    pub conditional_put: Answer,
    /// The bucket keeps versions.
    pub versioning: Answer,
    /// The bucket has object lock.
    pub object_lock: Answer,
    /// Mode and length of the lock that each new object gets.
    pub default_retention: Option<String>,
    /// Seconds by which the store's clock is ahead of this machine's.
    pub clock_skew_seconds: Option<i64>,
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As it should be.
    Good,
    /// Worth knowing; the program copes.
    Weak,
    /// Not found out.
    Unknown,
    /// It would stop a backup or a restore.
    Failed,
}

/// The named result of a check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Name of the check.
    pub name: &'static str,
    /// How it ended.
    pub verdict: Verdict,
    /// What was found: lower case, no full stop; empty when there is nothing to say.
    pub detail: String,
}

impl Capabilities {
    /// The capabilities as named results, for an operator.
    pub fn findings(&self) -> Vec<Finding> {
        let mut findings = vec![
            finding("write", &self.write, Verdict::Failed, "objects can be stored"),
            finding("read", &self.read, Verdict::Failed, "objects can be read"),
            finding("list", &self.list, Verdict::Failed, "objects can be listed"),
            finding("delete", &self.delete, Verdict::Weak, "objects can be deleted"),
            finding("conditional_put", &self.conditional_put, Verdict::Weak, "the second put of a key is refused"),
            finding("versioning", &self.versioning, Verdict::Good, "the bucket keeps versions"),
            finding("object_lock", &self.object_lock, Verdict::Good, "the bucket has object lock"),
        ];
        if let (Some(retention), Some(lock)) = (&self.default_retention, findings.last_mut()) {
            lock.detail = format!("{}: each object is kept for {retention}", lock.detail);
        }
        findings.push(match self.clock_skew_seconds {
            None => named("clock", Verdict::Unknown, "the store's clock could not be read"),
            Some(skew) => {
                let verdict = match skew.unsigned_abs() {
                    seconds if seconds >= SKEW_FAILED_SECONDS => Verdict::Failed,
                    seconds if seconds >= SKEW_WEAK_SECONDS => Verdict::Weak,
                    _ => Verdict::Good,
                };
                let side = if skew < 0 { "behind" } else { "ahead of" };
                named(
                    "clock",
                    verdict,
                    &format!("the store's clock is {} s {side} this machine's", skew.unsigned_abs()),
                )
            }
        });
        findings
    }
}

impl Store {
    /// Finds out what the store and the account can do, with one small object below `probe/`, which is deleted again
    /// where that is allowed; in a file system its empty folder stays.
    ///
    /// # Errors
    /// Those that leave nothing to find out: no bucket, no credentials, a wrong secret, a store that does not answer.
    /// What the account may not do is part of the result.
    pub async fn probe(&self) -> Result<Capabilities, StoreError> {
        let mut random = [0; 8];
        self.shared.options.entropy.fill(&mut random);
        let clock = &self.shared.options.clock;
        let before = clock.now();
        let folder = Key::new(PROBE_FOLDER)?;
        let key = folder.join(&format!("{}-{}", before.compact(), hex::encode(random)))?;
        let first = Bytes::from(format!("haulout probe 1 {key}"));
        let write = permission(self.put_brief(&key, first.clone()).await.map(drop))?;
        let after = clock.now();
        let written = write == Answer::Yes;

        let mut clock_skew_seconds = None;
        let mut read = not_written();
        let mut conditional_put = not_written();
        if written {
            if let Ok(info) = self.head(&key).await {
                let (early, late) = (info.last_modified.seconds_since(before), info.last_modified.seconds_since(after));
                // Stores tell whole seconds, cut off: one second early is not early.
                clock_skew_seconds = Some(if late > 0 { late } else { (early + 1).min(0) });
            }
            read = match self.get(&key, first.len() as u64).await {
                Ok(found) if found == first => Answer::Yes,
                Ok(_) => Answer::No("the object read is not the one stored".to_owned()),
                error => permission(error.map(drop))?,
            };
            conditional_put = self.probe_conditional_put(&key).await;
        }
        let list = self.probe_list(&folder, written.then_some(&key)).await?;
        let delete = if written { permission(self.delete_brief(&key).await)? } else { not_written() };
        let (versioning, object_lock, default_retention) = self.probe_bucket().await;
        Ok(Capabilities {
            write,
            read,
            list,
            delete,
            conditional_put,
            versioning,
            object_lock,
            default_retention,
            clock_skew_seconds,
        })
    }

    async fn probe_conditional_put(&self, key: &Key) -> Answer {
        let second = PutPayload::from(format!("haulout probe 2 {key}"));
        let path = key.path();
        let attempt = self.attempt(Action::Store, key.as_str());
        let tried = self.repeat(&attempt, || async {
            match self.send(&attempt, &path, &second, PutMode::Create.into()).await {
                Ok(()) => Ok(Answer::No("the store ignores If-None-Match and overwrites".to_owned())),
                Err(Failure { next: Next::Compare, .. }) => Ok(Answer::Yes),
                Err(Failure { next: Next::PutPlain, .. }) => {
                    Ok(Answer::No("the store knows no conditional put".to_owned()))
                }
                Err(failure) => Err(failure),
            }
        });
        tried.await.unwrap_or_else(|error| Answer::Unknown(chain_text(&error)))
    }

    async fn probe_list(&self, folder: &Key, written: Option<&Key>) -> Result<Answer, StoreError> {
        let mut listing = self.list(Some(folder));
        let mut found = written.is_none();
        loop {
            match listing.try_next().await {
                Ok(Some(info)) => found |= Some(&info.key) == written,
                Ok(None) if found => return Ok(Answer::Yes),
                Ok(None) => return Ok(Answer::No("a new object does not appear in the listing".to_owned())),
                Err(error) => return permission(Err(error)),
            }
        }
    }

    /// Asks for the settings of the bucket: versions, object lock, its default retention.
    pub(super) async fn probe_bucket(&self) -> (Answer, Answer, Option<String>) {
        let Some(client) = &self.shared.bucket else {
            let no = || Answer::Unknown("found out for S3 alone".to_owned());
            return (no(), no(), None);
        };
        let bucket = &self.shared.bucket_name;
        let versioning = match client.get_bucket_versioning().bucket(bucket).send().await {
            Ok(answer) if answer.status().is_some_and(|status| status.as_str() == "Enabled") => Answer::Yes,
            Ok(_) => Answer::No("versioning is off".to_owned()),
            Err(error) => bucket_answer(&error, "the store has no versions"),
        };
        let lock = match client.get_object_lock_configuration().bucket(bucket).send().await {
            Ok(answer) => answer.object_lock_configuration,
            Err(error) => return (versioning, bucket_answer(&error, "object lock is off"), None),
        };
        let enabled =
            lock.as_ref().and_then(|lock| lock.object_lock_enabled()).is_some_and(|on| on.as_str() == "Enabled");
        if !enabled {
            return (versioning, Answer::No("object lock is off".to_owned()), None);
        }
        let retention = lock.and_then(|lock| lock.rule).and_then(|rule| rule.default_retention).map(|retention| {
            let mode = retention.mode().map_or("unknown", |mode| mode.as_str()).to_owned();
            match (retention.days(), retention.years()) {
                (Some(days), _) => format!("{days} days ({mode})"),
                (None, Some(years)) => format!("{years} years ({mode})"),
                (None, None) => mode,
            }
        });
        (versioning, Answer::Yes, retention)
    }
}

/// A yes, a no for lack of rights, or the error that ends the probe.
fn permission(result: Result<(), StoreError>) -> Result<Answer, StoreError> {
    use super::error::Refused;
    match result {
        Ok(()) => Ok(Answer::Yes),
        Err(error @ StoreError::Denied { reason: Refused::Permission, .. }) => Ok(Answer::No(chain_text(&error))),
        Err(
            error @ (StoreError::NotFound { .. }
            | StoreError::AlreadyExists { .. }
            | StoreError::Truncated { .. }
            | StoreError::TooLarge { .. }
            | StoreError::Other { .. }),
        ) => Ok(Answer::Unknown(chain_text(&error))),
        Err(error) => Err(error),
    }
}

fn not_written() -> Answer {
    Answer::Unknown("no object could be stored to try it".to_owned())
}

/// The answer for a refused question about the bucket: `absent` when the store has no such thing.
fn bucket_answer<E>(error: &E, absent: &str) -> Answer
where
    E: aws_sdk_s3::error::ProvideErrorMetadata + std::error::Error + 'static,
{
    match error.code() {
        Some("ObjectLockConfigurationNotFoundError" | "NotImplemented" | "MethodNotAllowed") => {
            Answer::No(absent.to_owned())
        }
        Some(code) => Answer::Unknown(format!("the store answered {code}")),
        None => Answer::Unknown(chain_text(error)),
    }
}

fn finding(name: &'static str, answer: &Answer, no: Verdict, yes: &str) -> Finding {
    match answer {
        Answer::Yes => named(name, Verdict::Good, yes),
        Answer::No(reason) => named(name, no, reason),
        Answer::Unknown(reason) => named(name, Verdict::Unknown, reason),
    }
}

fn named(name: &'static str, verdict: Verdict, detail: &str) -> Finding {
    Finding { name, verdict, detail: detail.to_owned() }
}
