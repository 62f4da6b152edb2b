//! What ends a copy before it has come to its end.

use crate::error::{Diagnose, Kind};
use crate::model::PlanId;
use crate::repository::RepositoryError;

/// Why a copy did not come to its end. What has come across is found by the next run.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// One of the two repositories cannot be read or written.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// Source and copy are one.
    #[error("{url} would be its own copy")]
    SamePlace {
        /// The place.
        url: String,
    },
    /// Prunes of the copy come one after the other.
    #[error("plan {plan} of the copy was carried out meanwhile, and others before it")]
    Swept {
        /// The last of them.
        plan: PlanId,
    },
    /// A prune of the copy has begun to delete what a backup needs that is to be copied, and has not ended.
    #[error("plan {plan} of the copy was begun and has not ended")]
    Unended {
        /// The plan.
        plan: PlanId,
    },
    /// A task of this program broke.
    #[error("a task ended unexpectedly")]
    Abandoned,
    /// A signal came.
    #[error("interrupted")]
    Interrupted,
}

impl Diagnose for CopyError {
    fn kind(&self) -> Kind {
        match self {
            CopyError::Repository(error) => error.kind(),
            CopyError::SamePlace { .. } => Kind::Usage,
            CopyError::Swept { .. } | CopyError::Unended { .. } => Kind::Locked,
            CopyError::Abandoned => Kind::Failed,
            CopyError::Interrupted => Kind::Interrupted,
        }
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            CopyError::Repository(error) => return error.hint(),
            CopyError::SamePlace { .. } => "name another place with --to",
            CopyError::Swept { .. } => "run it again when no prune of the copy is at work",
            CopyError::Unended { .. } => "run `haulout prune` on the copy, which carries it out, and then this again",
            CopyError::Abandoned => "this is a bug of haulout: please report it with the output of -v",
            CopyError::Interrupted => "run it again: what has come across is not copied again",
        };
        Some(hint.to_owned())
    }
}
