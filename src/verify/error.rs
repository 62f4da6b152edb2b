//! What ends a check before it can tell anything.

use crate::error::{Diagnose, Kind};
use crate::repository::RepositoryError;

/// Why a check has no result; damage is not an error but its result.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The repository cannot be read.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// A thread of this program died.
    #[error("a thread of the check died")]
    Thread(#[from] tokio::task::JoinError),
}

impl Diagnose for VerifyError {
    fn kind(&self) -> Kind {
        match self {
            VerifyError::Repository(error) => error.kind(),
            VerifyError::Thread(_) => Kind::Failed,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            VerifyError::Repository(error) => error.hint(),
            VerifyError::Thread(_) => None,
        }
    }
}

/// What is wrong with a stored object, or the error when nothing can be told of it now.
///
/// A store that does not answer says nothing of the objects in it, and ends the check.
pub(super) fn damage(error: RepositoryError) -> Result<String, VerifyError> {
    match error.kind() {
        Kind::Corrupt | Kind::WrongKey | Kind::NoRepository => Ok(chain(&error)),
        _ => Err(error.into()),
    }
}

/// An error with its causes, in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text += ": ";
        text += &cause.to_string();
        source = cause.source();
    }
    text
}
