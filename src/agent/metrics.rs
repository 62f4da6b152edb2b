//! The metrics, in the text format of OpenMetrics.

use std::collections::BTreeMap;

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::ConstCounter, family::Family, gauge::Gauge, info::Info},
    registry::{Registry, Unit},
};

use super::{
    memory::{Last, Proven, Sizes},
    tally::Tally,
};
use crate::{
    model::Timestamp,
    web::service::{AgentStatus, Job, Outcome},
};

/// What the metrics tell beyond the status, at one moment.
#[derive(Debug, Clone, Default)]
pub struct Sample {
    /// The last runs.
    pub last: BTreeMap<Job, Last>,
    /// Runs that have ended since the agent began.
    pub ended: BTreeMap<(Job, &'static str), u64>,
    /// The last drill that passed.
    pub proven: Option<Proven>,
    /// Times that the memory could not be written since the agent began.
    pub memory_failures: u64,
    /// Bytes of the last backup.
    pub sizes: Option<Sizes>,
    /// What runs have asked of stores, and their memory.
    pub tally: Tally,
    /// Messages to others that arrived, and that did not.
    pub sent: (u64, u64),
    /// Hooks that failed.
    pub hook_failures: u64,
    /// Whether settings were refused, and how many times they were read anew.
    pub reloads: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfJob {
    job: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfOutcome {
    job: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfKind {
    kind: &'static str,
}

type Numbers<L> = Family<L, Gauge<f64, std::sync::atomic::AtomicU64>>;

const OUTCOMES: [Outcome; 5] =
    [Outcome::Succeeded, Outcome::Damaged, Outcome::Failed, Outcome::Interrupted, Outcome::Skipped];

fn seconds(moment: Timestamp) -> f64 {
    moment.0.as_millisecond() as f64 / 1000.0
}

/// The metrics at `now`.
pub fn text(sample: &Sample, status: &AgentStatus, now: Timestamp) -> String {
    let mut registry = Registry::with_prefix("haulout");
    about_agent(&mut registry, sample, status);
    about_jobs(&mut registry, sample, status, now);
    about_archive(&mut registry, status);
    about_backup(&mut registry, sample);
    about_stores(&mut registry, &sample.tally);
    let mut text = String::new();
    match encode(&mut text, &registry) {
        Ok(()) => text,
        // Formatting into a String does not fail.
        Err(_) => "# EOF\n".to_owned(),
    }
}

fn number(registry: &mut Registry, name: &str, help: &str, unit: Option<Unit>, value: Option<f64>) {
    let Some(value) = value else { return };
    let gauge = Gauge::<f64, std::sync::atomic::AtomicU64>::default();
    gauge.set(value);
    match unit {
        Some(unit) => registry.register_with_unit(name, help, unit, gauge),
        None => registry.register(name, help, gauge),
    }
}

fn about_agent(registry: &mut Registry, sample: &Sample, status: &AgentStatus) {
    let labels = vec![
        ("version", status.version.clone()),
        ("server", status.server.clone()),
        ("repository", status.repository.clone()),
    ];
    registry.register("agent", "The agent and what it looks after", Info::new(labels));
    let start = Some(seconds(status.started));
    number(registry, "agent_start_timestamp", "When the agent began", Some(Unit::Seconds), start);
    let refused = status.config_problem.is_some();
    let good = Some(f64::from(u8::from(!refused)));
    number(registry, "config_last_reload_successful", "Whether the settings file as it is now is in force", None, good);
    let loaded = Some(seconds(status.config_loaded));
    number(registry, "config_loaded_timestamp", "When the settings in force were read", Some(Unit::Seconds), loaded);
    let help = "Times that the settings file was read anew";
    registry.register("config_reloads", help, ConstCounter::new(sample.reloads));
    let help = "Messages to webhooks and heartbeats that arrived";
    registry.register("webhook_deliveries", help, ConstCounter::new(sample.sent.0));
    let help = "Messages to webhooks and heartbeats that were given up";
    registry.register("webhook_failures", help, ConstCounter::new(sample.sent.1));
    registry.register("hook_failures", "Hooks that failed", ConstCounter::new(sample.hook_failures));
    let help = "Times that what the agent remembers could not be written";
    registry.register("agent_state_write_failures", help, ConstCounter::new(sample.memory_failures));
    let (proven, rto) =
        (sample.proven.map(|proven| seconds(proven.finished)), sample.proven.and_then(|p| p.rto_seconds));
    number(registry, "restore_proven_timestamp", "When a drill last passed", Some(Unit::Seconds), proven);
    let help = "Time until the restored server of that drill answered";
    number(registry, "restore_rto", help, Some(Unit::Seconds), rto);
}

fn about_backup(registry: &mut Registry, sample: &Sample) {
    let Some(sizes) = sample.sizes else { return };
    let bytes = [
        ("backup_logical", "Bytes of the last backup once restored", sizes.logical_bytes),
        ("backup_read", "Bytes that the last backup read from mariadb-backup", sizes.stream_bytes),
        ("backup_uploaded", "Bytes uploaded for the last backup", sizes.uploaded_bytes),
        ("backup_stored", "Bytes in the repository that the last backup needs", sizes.stored_bytes),
    ];
    for (name, help, value) in bytes {
        number(registry, name, help, Some(Unit::Bytes), Some(value as f64));
    }
    if sizes.stored_bytes > 0 {
        let new = sizes.uploaded_bytes.min(sizes.stored_bytes) as f64 / sizes.stored_bytes as f64;
        let help = "Share of what the last backup needs that was in the repository already";
        number(registry, "backup_dedup_ratio", help, None, Some(1.0 - new));
    }
}

fn about_stores(registry: &mut Registry, tally: &Tally) {
    let counts = |of: &BTreeMap<&'static str, u64>| {
        let family = Family::<OfKind, prometheus_client::metrics::counter::Counter>::default();
        for (kind, count) in of {
            family.get_or_create(&OfKind { kind }).inc_by(*count);
        }
        family
    };
    registry.register("store_requests", "Requests of runs to stores, repeated ones included", counts(&tally.requests));
    registry.register("store_errors", "Requests of runs to stores that failed", counts(&tally.errors));
    let help = "Requests of runs to stores that repeated a failed one";
    registry.register("store_retries", help, ConstCounter::new(tally.retries));
    let help = "Bytes that runs have sent to stores";
    registry.register_with_unit("store_sent", help, Unit::Bytes, ConstCounter::new(tally.sent_bytes));
    let help = "Bytes that runs have received from stores";
    registry.register_with_unit("store_received", help, Unit::Bytes, ConstCounter::new(tally.received_bytes));
    let help = "Bytes of the running backup that wait on disk for the store";
    number(registry, "backup_spool", help, Some(Unit::Bytes), Some(tally.spooled_bytes as f64));
    let help = "How many may wait there";
    number(registry, "backup_spool_limit", help, Some(Unit::Bytes), Some(tally.spool_max_bytes as f64));
    let help = "Redo log that the server has written and the running backup has not got yet, some 10 MiB more than is not copied";
    number(registry, "backup_redo_lag", help, Some(Unit::Bytes), Some(tally.redo_lag_bytes as f64));
    let help = "How much redo log the server keeps: with more lag than that the backup fails";
    number(registry, "backup_redo_kept", help, Some(Unit::Bytes), Some(tally.redo_kept_bytes as f64));
    let peaks = Numbers::default();
    for (job, peak) in &tally.memory_peaks {
        peaks.get_or_create(&OfJob { job: job.name() }).set(*peak as f64);
    }
    let help = "Most memory that the last run of the job has had, without MariaDB's tools";
    registry.register_with_unit("run_memory_peak", help, Unit::Bytes, peaks);
    let help = "Memory of the agent itself";
    number(registry, "agent_resident_memory", help, Some(Unit::Bytes), own_memory());
}

/// Memory of this process, in bytes.
fn own_memory() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let kibibytes = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(kibibytes.split_whitespace().next()?.parse::<f64>().ok()? * 1024.0)
}

fn about_jobs(registry: &mut Registry, sample: &Sample, status: &AgentStatus, now: Timestamp) {
    let (succeeded, age, finished, took) =
        (Numbers::default(), Numbers::default(), Numbers::default(), Numbers::default());
    let (outcomes, next, running) = (Numbers::default(), Numbers::default(), Numbers::default());
    for (job, last) in &sample.last {
        let of = OfJob { job: job.name() };
        finished.get_or_create(&of).set(seconds(last.finished));
        took.get_or_create(&of).set(last.seconds as f64);
        if let Some(moment) = last.succeeded {
            succeeded.get_or_create(&of).set(seconds(moment));
            age.get_or_create(&of).set(now.seconds_since(moment) as f64);
        }
        for outcome in OUTCOMES {
            let of = OfOutcome { job: job.name(), outcome: outcome.name() };
            outcomes.get_or_create(&of).set(f64::from(u8::from(outcome == last.outcome)));
        }
    }
    for upcoming in status.upcoming.iter().rev() {
        next.get_or_create(&OfJob { job: upcoming.job.name() }).set(seconds(upcoming.at));
        running.get_or_create(&OfJob { job: upcoming.job.name() }).set(0.0);
    }
    for run in &status.running {
        running.get_or_create(&OfJob { job: run.job.name() }).set(1.0);
    }
    let help = "When a run of the job last succeeded";
    registry.register_with_unit("job_last_success_timestamp", help, Unit::Seconds, succeeded);
    registry.register_with_unit("job_last_success_age", "Time since then", Unit::Seconds, age);
    let help = "When the last run of the job ended";
    registry.register_with_unit("job_last_run_timestamp", help, Unit::Seconds, finished);
    registry.register_with_unit("job_last_duration", "How long it took", Unit::Seconds, took);
    registry.register("job_last_outcome", "How it ended: 1 for what happened", outcomes);
    let help = "When the schedule begins the job next";
    registry.register_with_unit("job_next_run_timestamp", help, Unit::Seconds, next);
    registry.register("job_running", "Whether the job runs", running);
    let runs = Family::<OfOutcome, prometheus_client::metrics::counter::Counter>::default();
    for ((job, outcome), count) in &sample.ended {
        runs.get_or_create(&OfOutcome { job: job.name(), outcome }).inc_by(*count);
    }
    registry.register("job_runs", "Runs that have ended since the agent began", runs);
}

fn about_archive(registry: &mut Registry, status: &AgentStatus) {
    let Some(archive) = &status.archiving else { return };
    let following = Some(f64::from(u8::from(archive.following)));
    number(registry, "archive_following", "Whether the server's binary log is followed", None, following);
    let help = "For how long the oldest transaction has waited that is not stored";
    number(registry, "archive_lag", help, Some(Unit::Seconds), Some(archive.waiting_seconds as f64));
    let behind = archive.behind_bytes.map(|bytes| bytes as f64);
    number(registry, "archive_behind", "Bytes of the server's log that are not stored", Some(Unit::Bytes), behind);
    let help = "Bytes of binary log that wait on disk for the store";
    number(registry, "archive_spool", help, Some(Unit::Bytes), Some(archive.spooled_bytes as f64));
    let last = archive.last_event.map(seconds);
    let help = "Time of the newest transaction that is stored";
    number(registry, "archive_last_event_timestamp", help, Some(Unit::Seconds), last);
    let help = "Gaps of the archive that this agent has seen";
    registry.register("archive_gaps", help, ConstCounter::new(archive.gaps));
}

#[cfg(test)]
#[path = "metrics_tests.rs"]
mod tests;
