//! Why objects could not be brought back.

use crate::error::{Diagnose, Kind};
use crate::repository::RepositoryError;

/// A failure on the way; what was brought back before stays so.
#[derive(Debug, thiserror::Error)]
pub enum UnhideError {
    /// The repository failed.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
}

impl Diagnose for UnhideError {
    fn kind(&self) -> Kind {
        match self {
            UnhideError::Repository(error) => error.kind(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            UnhideError::Repository(error) => error.hint(),
        }
    }
}
