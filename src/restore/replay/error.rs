//! Why a moment cannot be restored.

use crate::error::{Diagnose, Kind};
use crate::mariadb::binlog::BinlogError;
use crate::mariadb::replay::ReplayError;
use crate::mariadb::scratch::ScratchError;
use crate::model::{BackupId, Gtid, GtidSet, Timestamp};

/// A failure of a restore to a moment.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// Nothing leads to that time.
    #[error("{target} cannot be restored: {}", match (before, after) {
        (None, None) => "there is no backup from which archived binary logs go on".to_owned(),
        (Some(before), None) => format!("the last moment before it that can is {before}"),
        (None, Some(after)) => format!("the first moment that can is {after}"),
        (Some(before), Some(after)) => format!("it lies in a gap: the nearest moments that can are {before} and {after}"),
    })]
    OutsideWindows {
        /// What was wanted.
        target: String,
        /// The nearest moment before it.
        before: Option<Timestamp>,
        /// The nearest moment after it.
        after: Option<Timestamp>,
    },
    /// No archived transaction is called so, or no backup leads to it.
    #[error("{target} cannot be restored: {why}")]
    NotFound {
        /// What was wanted.
        target: String,
        /// Why not.
        why: String,
    },
    /// The position is inside of a transaction.
    #[error("{target} is inside of a transaction: transactions end at {before} and {after}")]
    Inside {
        /// What was wanted.
        target: String,
        /// The end of the transaction before.
        before: u64,
        /// The end of the transaction that it is inside of.
        after: u64,
    },
    /// Archived bytes are not what a server writes.
    #[error("archived binary log cannot be replayed")]
    Binlog(#[from] BinlogError),
    /// The archived log does not hold what joins it.
    #[error("archived binary log cannot be replayed: it lacks {0}")]
    Missed(GtidSet),
    /// The replay ended elsewhere than was planned.
    #[error("the replay ended at {found}, and not at {expected}")]
    Elsewhere {
        /// Where it should have ended.
        expected: GtidSet,
        /// Where it ended.
        found: GtidSet,
    },
    /// The server did not take it.
    #[error("binary log was not replayed{}", at.map_or_else(String::new, |at| format!(", some way before {at} at the latest")))]
    Replay {
        /// The transaction that had been given to it last.
        at: Option<Gtid>,
        /// What happened.
        source: ReplayError,
    },
    /// The server on the restored files does not start or end.
    #[error("the server that replays binary log on the files of backup {backup} failed")]
    Server {
        /// The backup.
        backup: BackupId,
        /// What happened.
        source: ScratchError,
    },
}

impl Diagnose for TargetError {
    fn kind(&self) -> Kind {
        match self {
            TargetError::OutsideWindows { .. } | TargetError::NotFound { .. } | TargetError::Inside { .. } => {
                Kind::Usage
            }
            TargetError::Binlog(error) => error.kind(),
            TargetError::Missed(_) | TargetError::Elsewhere { .. } => Kind::Corrupt,
            TargetError::Replay { source, .. } => source.kind(),
            TargetError::Server { source, .. } => source.kind(),
        }
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            TargetError::OutsideWindows { before: None, after: None, .. } => {
                "run `haulout archive` beside the server, and `haulout backup` once it runs"
            }
            TargetError::OutsideWindows { .. } => "see `haulout list --windows` for what can be restored",
            TargetError::NotFound { .. } => "look for it with `haulout binlog show`",
            TargetError::Inside { .. } => "name one of the two",
            TargetError::Binlog(_) | TargetError::Missed(_) | TargetError::Elsewhere { .. } => {
                "run `haulout check --read-data` to learn what is damaged, and restore to a moment before it"
            }
            TargetError::Replay { source, .. } => return source.hint(),
            TargetError::Server { source, .. } => return source.hint(),
        };
        Some(hint.to_owned())
    }
}
