//! What `restore-table` tells.

use std::path::PathBuf;

use serde::Serialize;

use super::Facts;
use crate::{
    cli::{human, output::Message, paint::Paint},
    model::BackupId,
};

/// Summary of `restore-table --dry-run`.
#[derive(Debug, Clone, Serialize)]
pub struct RestoreTablePlan {
    /// Always true.
    pub dry_run: bool,
    /// The backup.
    pub backup_id: BackupId,
    /// The table in it.
    pub table: String,
    /// What it would be called.
    pub target: String,
    /// Whether a table of the server would be replaced.
    pub replaces: bool,
    /// The server's datadir.
    pub datadir: PathBuf,
    /// Where the table would be made ready.
    pub work_dir: PathBuf,
    /// Bytes of the table's files.
    pub table_bytes: u64,
    /// Bytes to write.
    pub written_bytes: u64,
    /// Bytes to read from the store.
    pub fetched_bytes: u64,
    /// Requests to the store.
    pub requests: u64,
    /// Free space where the table would be made ready.
    pub free_bytes: u64,
}

impl Message for RestoreTablePlan {
    const TYPE: &'static str = "summary";
}

impl RestoreTablePlan {
    /// For people.
    pub fn text(&self, paint: Paint) -> String {
        let fate = if self.replaces { "replaced" } else { "made" };
        let (written, free) = (human::bytes(self.written_bytes), human::bytes(self.free_bytes));
        let (fetched, requests) = (human::bytes(self.fetched_bytes), human::counted(self.requests, "request"));
        let facts = Facts::default()
            .with("backup", self.backup_id.to_string())
            .with("table", format!("{}, to be {fate} as {}", human::bytes(self.table_bytes), self.target))
            .with("datadir", self.datadir.display().to_string())
            .with("work dir", self.work_dir.display().to_string())
            .with("to write", format!("{written}; {free} are free"))
            .with("to fetch", format!("{fetched} in {requests}"));
        format!("would restore table {}; nothing was done\n{}", paint.bold(&self.table), facts.text(paint))
    }
}

/// How long the parts of it took.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct TableStepSeconds {
    /// Fetching.
    pub fetch: f64,
    /// Preparing, and reading the definition.
    pub prepare: f64,
    /// Importing and checking.
    pub import: f64,
}

/// Summary of `restore-table`.
#[derive(Debug, Clone, Serialize)]
pub struct RestoreTableSummary {
    /// The backup.
    pub backup_id: BackupId,
    /// The table in it.
    pub table: String,
    /// What it is called now.
    pub target: String,
    /// Whether a table of the server was replaced.
    pub replaced: bool,
    /// The server's datadir.
    pub datadir: PathBuf,
    /// Bytes of the table's files.
    pub table_bytes: u64,
    /// Bytes read from the store.
    pub fetched_bytes: u64,
    /// Requests to the store.
    pub requests: u64,
    /// Triggers that the table has in the backup, and that were not made.
    pub triggers: Vec<String>,
    /// Time that it took.
    pub seconds: f64,
    /// How long the parts took.
    pub steps: TableStepSeconds,
}

impl Message for RestoreTableSummary {
    const TYPE: &'static str = "summary";
}

impl RestoreTableSummary {
    /// For people.
    pub fn text(&self, paint: Paint) -> String {
        let fate = if self.replaced { "replaced" } else { "made" };
        let seconds = |seconds: f64| human::duration(seconds.round() as u64);
        let TableStepSeconds { fetch, prepare, import } = self.steps;
        let took = format!(
            "{}: fetch {}, prepare {}, import and check {}",
            seconds(self.seconds),
            seconds(fetch),
            seconds(prepare),
            seconds(import)
        );
        let (fetched, requests) = (human::bytes(self.fetched_bytes), human::counted(self.requests, "request"));
        let facts = Facts::default()
            .with("backup", self.backup_id.to_string())
            .with("table", format!("{} {fate}, {}, CHECK TABLE says OK", self.target, human::bytes(self.table_bytes)))
            .with("fetched", format!("{fetched} in {requests}"))
            .with("took", took)
            .with("next", "haulout backup, which takes a full one: an import is not in the redo log");
        format!("restored table {}\n{}", paint.bold(&self.table), facts.text(paint))
    }
}
