//! Why a drill has no verdict.

use std::io;
use std::path::PathBuf;

use crate::error::{Diagnose, Kind};
use crate::mariadb::datadir::{DatadirError, ServerEvidence};
use crate::mariadb::scratch::ScratchError;
use crate::mariadb::tool::{NotAVersion, ServerVersion, ToolError};
use crate::restore::RestoreError;

/// Why a drill came to no verdict. What it finds wrong with a backup is none of these, but a proof that it failed.
#[derive(Debug, thiserror::Error)]
pub enum DrillError {
    /// The backup cannot be restored here, for reasons that are not its own.
    #[error(transparent)]
    Restore(Box<RestoreError>),
    /// The server cannot be started here, for reasons that are not the backup's.
    #[error("mariadbd cannot be started on the restored files")]
    Server(#[source] Box<ScratchError>),
    /// A tool is missing.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// The manifest names a server of no known version.
    #[error(transparent)]
    Version(#[from] NotAVersion),
    /// This machine's server is of another release series than the backup's.
    #[error("mariadbd is of version {found}, but the backup is of a server of version {wanted}")]
    OtherSeries {
        /// Version of `mariadbd`.
        found: ServerVersion,
        /// Version of the backup's server.
        wanted: ServerVersion,
    },
    /// The scratch directory has not enough room.
    #[error("{scratch:?} has room for {} MiB, the drill needs {} MiB", available >> 20, needed.div_ceil(1 << 20))]
    NoSpace {
        /// The directory.
        scratch: PathBuf,
        /// Bytes that the drill needs.
        needed: u64,
        /// Bytes that are free.
        available: u64,
    },
    /// Something is in the scratch directory that no drill left there.
    #[error("scratch directory {scratch:?} is not empty: it holds {found:?}")]
    NotEmpty {
        /// The directory.
        scratch: PathBuf,
        /// One of its entries.
        found: PathBuf,
    },
    /// Another drill works there.
    #[error("another drill works in {scratch:?}: {who}")]
    Busy {
        /// The directory.
        scratch: PathBuf,
        /// Who it is.
        who: String,
    },
    /// A process works on the files of a drill that was killed, and is not known to be that drill's server.
    #[error("somebody works in what a drill left behind in {scratch:?}: {evidence}")]
    Occupied {
        /// The directory.
        scratch: PathBuf,
        /// How it is known.
        evidence: ServerEvidence,
    },
    /// The directory cannot be looked at.
    #[error(transparent)]
    Datadir(#[from] DatadirError),
    /// A file or directory cannot be read or written.
    #[error("cannot {action} {path:?}")]
    Io {
        /// What was to be done, such as `create`.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The operator or a signal stopped the drill.
    #[error("the drill was stopped")]
    Interrupted,
    /// A thread of this program died.
    #[error("a thread of the drill died")]
    Thread(#[from] tokio::task::JoinError),
}

impl From<RestoreError> for DrillError {
    fn from(error: RestoreError) -> DrillError {
        match error {
            RestoreError::Interrupted => DrillError::Interrupted,
            error => DrillError::Restore(Box::new(error)),
        }
    }
}

impl DrillError {
    /// Makes a [`DrillError::Io`] of what the system says.
    pub(super) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> DrillError {
        move |source| DrillError::Io { action, path: path.into(), source }
    }
}

impl Diagnose for DrillError {
    fn kind(&self) -> Kind {
        match self {
            DrillError::Restore(error) => error.kind(),
            DrillError::Server(error) => error.kind(),
            DrillError::Tool(error) => error.kind(),
            DrillError::Datadir(error) => error.kind(),
            DrillError::Version(_) => Kind::Corrupt,
            DrillError::OtherSeries { .. } => Kind::DatabaseRefused,
            DrillError::NotEmpty { .. } => Kind::Usage,
            DrillError::Busy { .. } => Kind::Locked,
            DrillError::Interrupted => Kind::Interrupted,
            DrillError::NoSpace { .. }
            | DrillError::Occupied { .. }
            | DrillError::Io { .. }
            | DrillError::Thread(_) => Kind::Failed,
        }
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            DrillError::Restore(error) => return error.hint(),
            DrillError::Server(error) => return error.hint(),
            DrillError::Tool(error) => return error.hint(),
            DrillError::Datadir(error) => return error.hint(),
            DrillError::OtherSeries { wanted, .. } => {
                let (major, minor) = wanted.series();
                return Some(format!(
                    "install the package mariadb-server-core of MariaDB {major}.{minor}, or name its directory with --tool-dir"
                ));
            }
            DrillError::NoSpace { .. } => "free some space, or name a directory on a larger file system with --scratch",
            DrillError::NotEmpty { .. } => {
                "name an empty directory with --scratch, or one that does not exist yet: all that is in it is removed afterwards"
            }
            DrillError::Busy { .. } => "wait for it to end, or name another directory with --scratch",
            DrillError::Occupied { .. } => "end that process, or name another directory with --scratch",
            DrillError::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                "name a directory that this user may write to with --scratch"
            }
            DrillError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                "the directory above that of --scratch must exist"
            }
            DrillError::Version(_) | DrillError::Io { .. } | DrillError::Interrupted | DrillError::Thread(_) => {
                return None;
            }
        };
        Some(hint.to_owned())
    }
}
