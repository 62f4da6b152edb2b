//! What commands tell when they end: the JSON that scripts rely on (OUTPUT.md), and the same for people.

mod archive;
mod backup;
mod binlog;
mod check;
mod compact;
mod config;
mod copy;
mod drill;
mod key;
mod prune;
mod repair;
mod restore;
mod restore_table;
mod restore_terms;
mod tables;
mod unhide;

use serde::Serialize;

pub use archive::{ArchiveStatus, ArchiveSummary};
pub use backup::{BackupLine, BackupSummary, LineagePlace, Lsns};
pub(in crate::cli) use backup::{capture_seconds, details};
pub use binlog::{BinlogFetchSummary, BinlogListSummary, BinlogSegmentLine, BinlogStreamLine};
pub use check::{CheckSummary, Damage, DoctorSummary, Finding, Level, LockedCheckSummary};
pub use compact::{CompactSummary, RestoreCost};
pub use config::{ConfigCheckSummary, ConfigShowSummary, PlannedLine, SettingLine};
pub use copy::{CopiedLine, CopyState, CopySummary};
pub use drill::{DrillPlanSummary, DrillSeconds, DrillSummary, ProofLine};
pub(in crate::cli) use drill::{last_passed, proof_cells};
pub use key::{KeyChange, KeyLine, KeySummary};
pub use prune::{PruneLine, PruneSummary, UndeleteSummary};
pub use repair::{DamagedBackup, Names, Repair};
pub use restore::{
    FetchSummary, GaleraReport, MoveAction, MoveSummary, PrepareSummary, ReplayReport, ReplicaReport, RestorePlan,
    RestoreSummary, StepSeconds,
};
pub use restore_table::{RestoreTablePlan, RestoreTableSummary, TableStepSeconds};
pub(in crate::cli) use restore_terms::announcement;
pub use restore_terms::{LackingProgram, RestoreTerms};
pub use tables::{TableLine, TablesSummary};
pub use unhide::{Unhidden, UnhideSummary};

use super::{output::Message, paint::Paint};
use crate::model::{LockPolicy, RepositoryId, SlotId, Timestamp};

/// Summary of `init`.
#[derive(Debug, Clone, Serialize)]
pub struct InitSummary {
    /// Random name of the repository.
    pub repository_id: RepositoryId,
    /// Where it is.
    pub url: String,
    /// When it was made.
    pub created: Timestamp,
    /// Name of the key slot that opens it; null when it is not sealed.
    pub key_id: Option<SlotId>,
    /// How its objects are locked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lock: Option<LockPolicy>,
}

impl Message for InitSummary {
    const TYPE: &'static str = "summary";
}

impl InitSummary {
    /// For people.
    pub fn text(&self, paint: Paint) -> String {
        let InitSummary { repository_id, url, .. } = self;
        let locked = match self.lock {
            Some(lock) => format!("every object is locked for {lock}\n"),
            None => String::new(),
        };
        match self.key_id {
            None => format!("created repository {repository_id} at {url}\n{locked}"),
            Some(slot) => format!(
                "created repository {repository_id} at {url}, sealed; key slot {slot} opens it\n{locked}\
                 {}: without it nothing in this repository can ever be read again, by nobody.\n\
                 Keep a copy of it away from this machine and from the bucket, and see that it opens the repository from there\n",
                paint.bold("Keep the key")
            ),
        }
    }
}

/// Lines of a label and what it says, aligned.
#[derive(Debug, Default)]
pub struct Facts {
    lines: Vec<(&'static str, String)>,
}

impl Facts {
    /// Adds a line.
    #[must_use]
    pub fn with(mut self, label: &'static str, value: impl Into<String>) -> Facts {
        self.lines.push((label, value.into()));
        self
    }

    /// Adds a line where there is something to say.
    #[must_use]
    pub fn with_some(self, label: &'static str, value: Option<impl Into<String>>) -> Facts {
        match value {
            Some(value) => self.with(label, value),
            None => self,
        }
    }

    /// The lines, indented, with their values in one column.
    pub fn text(&self, paint: Paint) -> String {
        let width = self.lines.iter().map(|(label, _)| label.chars().count()).max().unwrap_or_default();
        let line = |(label, value): &(&str, String)| {
            let pad = " ".repeat(width - label.chars().count());
            let value = value.replace('\n', &format!("\n{}", " ".repeat(width + 4)));
            format!("  {}{pad}  {value}\n", paint.dim(label))
        };
        self.lines.iter().map(line).collect()
    }
}

#[cfg(test)]
mod tests;
