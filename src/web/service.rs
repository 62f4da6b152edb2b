//! What a page shows of an agent at work, and what it may ask of it.
//!
//! The agent implements [`Service`]; the page knows nothing else of it. All of it is one value that is replaced as a whole, so a page never
//! shows half of a change. Field names are those of the JSON API.

use std::sync::Arc;

use async_trait::async_trait;
use serde::Serialize;
use tokio::sync::watch;

use crate::model::Timestamp;

/// Lines of a run's log that are kept for the page.
pub const LOG_LINES_MAX: usize = 200;
/// Runs that have ended and are kept for the page, the newest first.
pub const RECENT_RUNS_MAX: usize = 100;

/// What an agent does by a schedule, or without a break (`archive`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Job {
    Backup,
    Archive,
    Check,
    Prune,
    Compact,
    Drill,
    Copy,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    Succeeded,
    Damaged,
    Failed,
    Interrupted,
    Skipped,
}

/// A line of a run's log: a note, a warning, an error.
#[derive(Debug, Clone, Serialize)]
pub struct LogLine {
    pub at: Timestamp,
    pub level: String,
    pub message: String,
}

/// How far one phase of a run is.
#[derive(Debug, Clone, Serialize)]
pub struct Phase {
    /// As in the `status` lines of the command.
    pub phase: String,
    pub done: u64,
    pub total: Option<u64>,
    pub unit: String,
    pub seconds: f64,
    pub ended: bool,
    /// Units per second over the last half minute.
    pub rate: Option<f64>,
    pub seconds_left: Option<f64>,
}

/// A run at work.
#[derive(Debug, Clone, Serialize)]
pub struct Running {
    pub run: u64,
    pub job: Job,
    /// `schedule`, `page`, `missed`, `retry`, `first` (no backup is known of) or `gap` (of the archive, which a backup answers).
    pub cause: String,
    pub started: Timestamp,
    pub phases: Vec<Phase>,
    pub log: Vec<LogLine>,
}

/// A run that has ended.
#[derive(Debug, Clone, Serialize, serde::Deserialize)]
pub struct Ended {
    pub run: u64,
    pub job: Job,
    pub cause: String,
    pub started: Timestamp,
    pub finished: Timestamp,
    pub outcome: Outcome,
    pub exit_code: Option<i32>,
    /// One sentence: what it did, or why it failed.
    pub message: String,
    pub hint: Option<String>,
    /// The last `summary` line of the command.
    pub summary: Option<serde_json::Value>,
}

/// What the schedule will do.
#[derive(Debug, Clone, Serialize)]
pub struct Upcoming {
    pub at: Timestamp,
    pub job: Job,
    pub schedule: String,
    pub zone: String,
    /// Beyond the job's name: `full`, `part 3 of 30`; may be empty.
    pub detail: String,
}

/// How far the archive of binary log is.
#[derive(Debug, Clone, Serialize)]
pub struct Archiving {
    pub following: bool,
    pub last_event: Option<Timestamp>,
    pub waiting_seconds: u64,
    pub behind_bytes: Option<u64>,
    pub spooled_bytes: u64,
    pub gaps: u64,
    pub problem: Option<String>,
}

/// All that is known of an agent at one moment.
#[derive(Debug, Clone, Serialize)]
pub struct AgentStatus {
    pub server: String,
    pub repository: String,
    pub version: String,
    pub host: String,
    pub started: Timestamp,
    pub config_file: String,
    pub config_loaded: Timestamp,
    /// Why the file as it is now was refused; the one before stays in force.
    pub config_problem: Option<String>,
    pub running: Vec<Running>,
    pub recent: Vec<Ended>,
    pub archiving: Option<Archiving>,
    /// What the schedule will do, the next first; a hundred at most.
    pub upcoming: Vec<Upcoming>,
}

/// Why a run was not begun.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("{0:?} is running already")]
    Busy(Job),
    #[error("{0:?} is not set up for this agent")]
    NotSetUp(Job),
    #[error("the agent is stopping")]
    Stopping,
}

/// An agent, as the page sees it.
#[async_trait]
pub trait Service: Send + Sync {
    fn status(&self) -> Arc<AgentStatus>;
    /// Changes whenever [`status`](Service::status) does.
    fn changes(&self) -> watch::Receiver<Arc<AgentStatus>>;
    /// Begins a run now, and returns its number.
    async fn start(&self, job: Job) -> Result<u64, Refusal>;
    /// The metrics in Prometheus' text format.
    fn metrics(&self) -> String;
    /// Why the agent is not ready, or nothing.
    fn ready(&self) -> Result<(), String>;
}
