//! What ends a prune before it has carried out anything, or in the middle.

use crate::error::{Diagnose, Kind};
use crate::model::{BackupId, Timestamp};
use crate::repository::RepositoryError;

/// Why a prune did not come to its end. Whatever it did until then, the next run goes on from.
#[derive(Debug, thiserror::Error)]
pub enum PruneError {
    /// The repository cannot be read or written.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// A backup was named that never goes.
    #[error("backup {id} stays: it is {reason}")]
    Stays {
        /// The backup.
        id: BackupId,
        /// Why it stays.
        reason: &'static str,
    },
    /// A backup was named that the store keeps.
    #[error("backup {id} is locked until {until}")]
    Locked {
        /// The backup.
        id: BackupId,
        /// When the lock ends, at the earliest.
        until: Timestamp,
    },
    /// No plan names the backup.
    #[error("backup {id} is in no plan: nothing deletes it")]
    NotPlanned {
        /// The backup.
        id: BackupId,
    },
    /// The backup is gone.
    #[error("backup {id} is deleted already")]
    TooLate {
        /// The backup.
        id: BackupId,
    },
    /// The backup's plan is being carried out.
    #[error("whether backup {id} stays is not known: a prune that lets go of it has begun")]
    Sweeping {
        /// The backup.
        id: BackupId,
    },
    /// Something came between a compaction and its editions.
    #[error("nothing was compacted: {what}")]
    Overtaken {
        /// What came.
        what: String,
    },
    /// A backup has as many editions as there are names for.
    #[error("backup {id} has as many editions as can be named")]
    Editions {
        /// The backup.
        id: BackupId,
    },
    /// A signal came.
    #[error("interrupted")]
    Interrupted,
}

impl Diagnose for PruneError {
    fn kind(&self) -> Kind {
        match self {
            PruneError::Repository(error) => error.kind(),
            PruneError::Locked { .. }
            | PruneError::Stays { .. }
            | PruneError::NotPlanned { .. }
            | PruneError::TooLate { .. } => Kind::Failed,
            PruneError::Overtaken { .. } | PruneError::Sweeping { .. } => Kind::Locked,
            PruneError::Editions { .. } => Kind::Failed,
            PruneError::Interrupted => Kind::Interrupted,
        }
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            PruneError::Repository(error) => return error.hint(),
            PruneError::Stays { reason, .. } if *reason == super::policy::PROVEN => {
                "prove a newer one first with `haulout drill`; then this one can go"
            }
            PruneError::Stays { .. } => "take another backup first; then this one can go",
            PruneError::Locked { .. } => "run `haulout prune` again when the lock has ended",
            PruneError::NotPlanned { .. } => "`haulout list` tells which backups are to go",
            PruneError::TooLate { .. } => {
                "its grace period was over; a bucket with versions, or a copy, may still have its objects"
            }
            PruneError::Sweeping { .. } => {
                "it stays if that prune had not looked yet: run `haulout prune` once more, so that it comes to its end, and see `haulout list`"
            }
            PruneError::Overtaken { .. } => "what it wrote is deleted by a later prune; run it again",
            PruneError::Editions { .. } => "let go of it by `haulout prune --let-go`",
            PruneError::Interrupted => "run it again: it goes on from here, or starts over",
        };
        Some(hint.to_owned())
    }
}
