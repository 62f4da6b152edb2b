//! What a page shows of an agent at work, and what it may ask of it.
//!
//! The agent implements [`Service`]; the page knows nothing else of it. All of it is one value that is replaced as a whole, so a page never
//! shows half of a change. Field names are those of the JSON API.

use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use utoipa::ToSchema;

use crate::model::Timestamp;

/// Lines of a run's log that are kept for the page.
pub const LOG_LINES_MAX: usize = 200;
/// Runs that have ended and are kept for the page, the newest first.
pub const RECENT_RUNS_MAX: usize = 100;

/// What an agent does by a schedule, or without a break (`archive`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Job {
    /// `haulout backup`.
    Backup,
    /// `haulout archive`, which does not end.
    Archive,
    /// `haulout check`.
    Check,
    /// `haulout prune`.
    Prune,
    /// `haulout compact`.
    Compact,
    /// `haulout drill`.
    Drill,
    /// `haulout copy`.
    Copy,
}

impl Job {
    /// Its name: that of the command, in JSON and in labels, too.
    pub fn name(self) -> &'static str {
        match self {
            Job::Backup => "backup",
            Job::Archive => "archive",
            Job::Check => "check",
            Job::Prune => "prune",
            Job::Compact => "compact",
            Job::Drill => "drill",
            Job::Copy => "copy",
        }
    }
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// All is well.
    Succeeded,
    /// It came to its end, with damage or skips that it named.
    Damaged,
    /// It did not do what it was to do.
    Failed,
    /// It was told to stop.
    Interrupted,
    /// It was not begun: its turn had passed, or another was at work.
    Skipped,
}

impl Outcome {
    /// Its name, in JSON and in labels, too.
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Succeeded => "succeeded",
            Outcome::Damaged => "damaged",
            Outcome::Failed => "failed",
            Outcome::Interrupted => "interrupted",
            Outcome::Skipped => "skipped",
        }
    }
}

/// A line of a run's log: a note, a warning, an error.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct LogLine {
    /// When it was read.
    pub at: Timestamp,
    /// `note`, `warning` or `error`.
    pub level: String,
    /// What it says.
    pub message: String,
}

/// How far one phase of a run is.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Phase {
    /// As in the `status` lines of the command.
    pub phase: String,
    /// Units that are done.
    pub done: u64,
    /// Units that there are, where that is known.
    pub total: Option<u64>,
    /// `bytes`, `objects` or the like.
    pub unit: String,
    /// Seconds since it began.
    pub seconds: f64,
    /// Whether it came to its end.
    pub ended: bool,
    /// Units per second over the last half minute.
    pub rate: Option<f64>,
    /// Seconds that it will take at that rate.
    pub seconds_left: Option<f64>,
}

/// A run at work.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Running {
    /// Number of the run.
    pub run: u64,
    /// What it does.
    pub job: Job,
    /// `schedule`, `page`, `missed`, `retry`, `first` (no backup is known of) or `gap` (of the archive, which a backup answers).
    pub cause: String,
    /// When it was begun.
    pub started: Timestamp,
    /// Its phases, the present one last.
    pub phases: Vec<Phase>,
    /// The last lines of its log, the oldest first.
    pub log: Vec<LogLine>,
}

/// A run that has ended.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Ended {
    /// Number of the run.
    pub run: u64,
    /// What it did.
    pub job: Job,
    /// As in [`Running::cause`].
    pub cause: String,
    /// When it was begun.
    pub started: Timestamp,
    /// When it ended.
    pub finished: Timestamp,
    /// How.
    pub outcome: Outcome,
    /// Exit code of the command; none where a signal ended it, or nothing was begun.
    pub exit_code: Option<i32>,
    /// One sentence: what it did, or why it failed.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
    /// The last `summary` line of the command.
    #[schema(value_type = Option<Object>)]
    pub summary: Option<serde_json::Value>,
}

/// What the schedule will do.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Upcoming {
    /// When.
    pub at: Timestamp,
    /// What.
    pub job: Job,
    /// The cron expression that says so.
    pub schedule: String,
    /// The zone in which that is read.
    pub zone: String,
    /// Beyond the job's name: `full`, `part 3 of 30`; may be empty.
    pub detail: String,
}

/// How far the archive of binary log is.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Archiving {
    /// Whether the server is being followed now.
    pub following: bool,
    /// Time of the last event that was received.
    pub last_event: Option<Timestamp>,
    /// Seconds for which the oldest event that is not stored has waited.
    pub waiting_seconds: u64,
    /// Bytes that the server has and the archiver has not received.
    pub behind_bytes: Option<u64>,
    /// Bytes that wait in the spool.
    pub spooled_bytes: u64,
    /// Gaps that were met since it began.
    pub gaps: u64,
    /// Why it does not go on.
    pub problem: Option<String>,
}

/// All that is known of an agent at one moment.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct AgentStatus {
    /// What the agent calls its server.
    pub server: String,
    /// URL of the repository, without secrets.
    pub repository: String,
    /// Version of the agent.
    pub version: String,
    /// The machine that it runs on.
    pub host: String,
    /// When it was started.
    pub started: Timestamp,
    /// Its settings file.
    pub config_file: String,
    /// When that was read last.
    pub config_loaded: Timestamp,
    /// Why the file as it is now was refused; the one before stays in force.
    pub config_problem: Option<String>,
    /// What is at work.
    pub running: Vec<Running>,
    /// What has ended, the newest first; [`RECENT_RUNS_MAX`] at most.
    pub recent: Vec<Ended>,
    /// The archive of binary log, where it is set up.
    pub archiving: Option<Archiving>,
    /// What the schedule will do, the next first; a hundred at most.
    pub upcoming: Vec<Upcoming>,
}

/// Why a run was not begun.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// One of its kind is at work.
    #[error("{0:?} is running already")]
    Busy(Job),
    /// The settings do not say how.
    #[error("{0:?} is not set up for this agent")]
    NotSetUp(Job),
    /// No run is begun any more.
    #[error("the agent is stopping")]
    Stopping,
}

/// An agent, as the page sees it.
#[async_trait]
pub trait Service: Send + Sync {
    /// What is known now.
    fn status(&self) -> Arc<AgentStatus>;
    /// Changes whenever [`status`](Service::status) does.
    fn changes(&self) -> watch::Receiver<Arc<AgentStatus>>;
    /// Begins a run now, and returns its number.
    ///
    /// # Errors
    /// When it is not begun.
    async fn start(&self, job: Job) -> Result<u64, Refusal>;
    /// The metrics in Prometheus' text format.
    fn metrics(&self) -> String;
    /// Whether it works: one that is stuck is better begun anew.
    fn alive(&self) -> bool {
        true
    }
    /// Whether the agent is ready.
    ///
    /// # Errors
    /// Says why it is not.
    fn ready(&self) -> Result<(), String>;
}
