//! The store: whether it can be reached, what it and the account can do.

use std::time::{Duration, Instant};

use super::{Record, check};
use crate::{
    cli::{
        commands::{Context, doctor::Patient},
        failure::Failure,
        open,
        report::Level,
    },
    error::Kind,
    store::{Answer, Capabilities, Origin, Refused, RetryPolicy, Store, StoreError},
};

/// Limits of each request: a backup waits for minutes, somebody at a terminal wants to know now.
const RETRY: RetryPolicy = RetryPolicy {
    attempts_max: 3,
    pause_first: Duration::from_millis(200),
    pause_max: Duration::from_secs(2),
    time_max: Duration::from_secs(15),
    connect_max: Duration::from_secs(5),
    silence_max: Duration::from_secs(10),
    bytes_per_second_min: 16 << 10,
};

/// Time for opening the store, which asks for credentials, and for all probes together.
const STORE_LIMIT: Duration = Duration::from_secs(60);

/// Clock difference in seconds from which on file times and schedules mislead.
const SKEW_WARNING_SECONDS: u64 = 60;

/// Clock difference in seconds that is a problem: S3 refuses signatures from 15 minutes on, and clocks drift.
const SKEW_PROBLEM_SECONDS: u64 = 14 * 60;

/// Looks at the store, and returns it when a repository can be looked for in it.
pub(super) async fn examine(record: &mut Record<'_>, patient: &Patient, context: &Context) -> Option<Store> {
    let checks = checks(patient.is_bucket());
    let opening = open::patient_store(&patient.store, false, RETRY, None, context);
    let store = match tokio::time::timeout(STORE_LIMIT, opening).await {
        Ok(Ok(store)) => store,
        Ok(Err(error)) => {
            refused(record, error, &checks);
            return None;
        }
        Err(_) => {
            record.problem(check::STORE_CREDENTIALS, silent(STORE_LIMIT));
            record.skip(&checks, check::STORE_CREDENTIALS);
            return None;
        }
    };
    record.ok(check::STORE_SETTINGS, place(store.origin()));
    let started = Instant::now();
    match tokio::time::timeout(STORE_LIMIT, store.probe()).await {
        Ok(Ok(capabilities)) => {
            credentials_told(record, store.origin(), patient.is_bucket());
            let requests = requests(&store);
            let seconds = started.elapsed().as_secs_f64();
            record.ok(check::STORE_REACHABLE, format!("it answered {requests} requests in {seconds:.2} s"));
            capabilities_told(record, &capabilities, patient.is_bucket());
            Some(store)
        }
        Ok(Err(error)) => {
            if culprit(&error) != check::STORE_CREDENTIALS {
                credentials_told(record, store.origin(), patient.is_bucket());
            }
            refused(record, error, &checks);
            None
        }
        Err(_) => {
            credentials_told(record, store.origin(), patient.is_bucket());
            record.problem(check::STORE_REACHABLE, silent(STORE_LIMIT));
            record.skip(&checks, check::STORE_REACHABLE);
            None
        }
    }
}

/// The checks that such a store has: a directory has no credentials, versions and locks.
fn checks(is_bucket: bool) -> Vec<&'static str> {
    let of_buckets = [check::STORE_CREDENTIALS, check::STORE_VERSIONING, check::STORE_OBJECT_LOCK];
    check::STORE.iter().copied().filter(|check| is_bucket || !of_buckets.contains(check)).collect()
}

fn silent(limit: Duration) -> Failure {
    let failure = Failure::new(Kind::StorageUnavailable, format!("no answer within {} s", limit.as_secs()));
    failure.with_hint("check the network, the endpoint and the service that gives out credentials")
}

fn requests(store: &Store) -> u64 {
    let counts = store.counters().counts();
    counts.puts + counts.gets + counts.heads + counts.lists + counts.deletes
}

fn place(origin: &Origin) -> String {
    let endpoint = origin.endpoint.as_ref().map(|endpoint| format!(", endpoint {endpoint}")).unwrap_or_default();
    let region = origin.region.as_ref().map(|region| format!(", region {region}")).unwrap_or_default();
    format!("{}{region}{endpoint}", origin.url)
}

fn credentials_told(record: &mut Record<'_>, origin: &Origin, is_bucket: bool) {
    if is_bucket {
        let from = origin.credentials.as_deref().unwrap_or("the environment");
        record.ok(check::STORE_CREDENTIALS, format!("credentials came from {from}"));
    }
}

/// The check that `error` answers.
fn culprit(error: &StoreError) -> &'static str {
    match error {
        StoreError::BadUrl { .. }
        | StoreError::BadKey { .. }
        | StoreError::BadOptions { .. }
        | StoreError::NoDirectory { .. } => check::STORE_SETTINGS,
        StoreError::NoCredentials { .. }
        | StoreError::Denied { reason: Refused::WrongSecret | Refused::UnknownKey | Refused::Expired, .. } => {
            check::STORE_CREDENTIALS
        }
        StoreError::ClockSkew { .. } => check::STORE_CLOCK,
        StoreError::NoSpace { .. } => check::STORE_WRITE,
        _ => check::STORE_REACHABLE,
    }
}

/// Tells why the store cannot be looked at, and skips what is left of `checks`.
pub(super) fn refused(record: &mut Record<'_>, error: StoreError, checks: &[&str]) {
    let culprit = culprit(&error);
    record.problem(culprit, error);
    record.skip(checks, culprit);
}

/// Tells what the store and the account can do.
pub(super) fn capabilities_told(record: &mut Record<'_>, found: &Capabilities, is_bucket: bool) {
    needed(record, check::STORE_WRITE, &found.write, true, "objects can be stored", "s3:PutObject on the prefix");
    let wrote = found.write == Answer::Yes;
    needed(record, check::STORE_READ, &found.read, wrote, "objects can be read", "s3:GetObject on the prefix");
    needed(record, check::STORE_LIST, &found.list, true, "objects can be listed", "s3:ListBucket on the bucket");
    match &found.delete {
        Answer::Yes => record.ok(check::STORE_DELETE, "objects can be deleted, which only pruning needs"),
        Answer::No(reason) => record.warn(
            check::STORE_DELETE,
            reason,
            "backup and restore do without; pruning needs an account that may delete",
        ),
        Answer::Unknown(_) if !wrote => record.skip(&[check::STORE_DELETE], check::STORE_WRITE),
        Answer::Unknown(reason) => record.add(check::STORE_DELETE, Level::Skipped, reason, None),
    }
    match &found.conditional_put {
        Answer::Yes => record.ok(check::STORE_CONDITIONAL_PUT, "a second put of one key is refused"),
        Answer::No(reason) => record.warn(
            check::STORE_CONDITIONAL_PUT,
            reason,
            "nothing depends on it: every key is used once; but two runs by mistake are not told apart by the store",
        ),
        Answer::Unknown(_) if !wrote => record.skip(&[check::STORE_CONDITIONAL_PUT], check::STORE_WRITE),
        Answer::Unknown(reason) => record.add(check::STORE_CONDITIONAL_PUT, Level::Skipped, reason, None),
    }
    if is_bucket {
        told(record, check::STORE_VERSIONING, &found.versioning, "the bucket keeps versions");
        let lock = match &found.default_retention {
            Some(retention) => format!("the bucket has object lock: each object is kept for {retention}"),
            None => "the bucket has object lock, without a default retention".to_owned(),
        };
        told(record, check::STORE_OBJECT_LOCK, &found.object_lock, &lock);
    }
    clock(record, found.clock_skew_seconds, wrote);
}

/// Notes something without which there is no backup; `tried` when it could be found out.
fn needed(record: &mut Record<'_>, check: &str, answer: &Answer, tried: bool, yes: &str, right: &str) {
    match answer {
        Answer::Yes => record.ok(check, yes),
        Answer::Unknown(_) if !tried => record.skip(&[check], check::STORE_WRITE),
        Answer::No(reason) | Answer::Unknown(reason) => {
            record.add(check, Level::Problem, reason, Some(format!("allow the account {right}, or its like")));
        }
    }
}

/// Notes something that is as good as its opposite.
fn told(record: &mut Record<'_>, check: &str, answer: &Answer, yes: &str) {
    match answer {
        Answer::Yes => record.ok(check, yes),
        Answer::No(no) => record.ok(check, no),
        Answer::Unknown(reason) => record.add(check, Level::Skipped, reason, None),
    }
}

fn clock(record: &mut Record<'_>, skew_seconds: Option<i64>, wrote: bool) {
    let Some(skew) = skew_seconds else {
        return if wrote {
            record.add(check::STORE_CLOCK, Level::Skipped, "the store does not tell its time", None);
        } else {
            record.skip(&[check::STORE_CLOCK], check::STORE_WRITE);
        };
    };
    let side = if skew < 0 { "behind" } else { "ahead of" };
    let level = match skew.unsigned_abs() {
        seconds if seconds > SKEW_PROBLEM_SECONDS => Level::Problem,
        seconds if seconds > SKEW_WARNING_SECONDS => Level::Warning,
        _ => return record.ok(check::STORE_CLOCK, "the store's clock and this machine's agree"),
    };
    let message = format!("the store's clock is {} s {side} this machine's", skew.unsigned_abs());
    let hint = "set this machine's clock right, for example with NTP: S3 refuses signatures that are 15 minutes off";
    record.add(check::STORE_CLOCK, level, message, Some(hint.to_owned()));
}
