//! What keeps the server's binary log from being archived.

use std::io;
use std::path::PathBuf;

use crate::error::{Diagnose, Kind};
use crate::mariadb::binlog::{BinlogError, DumpError};
use crate::mariadb::sql::SqlError;
use crate::repository::RepositoryError;

/// Why the log is not archived. What was stored before is whole, and the next run goes on behind it.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The repository cannot be read or written.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// The server cannot be asked.
    #[error(transparent)]
    Sql(#[from] SqlError),
    /// The log is not sent.
    #[error(transparent)]
    Dump(#[from] DumpError),
    /// What is sent is damaged, or lacks something.
    #[error(transparent)]
    Binlog(#[from] BinlogError),
    /// The server writes no log.
    #[error("the server writes no binary log")]
    LogOff,
    /// Files came or went while they were looked at.
    #[error("the server's binary logs changed while they were looked at")]
    Moved,
    /// The file is another than the one that was chosen by its name.
    #[error("{file} was begun at another time than what was archived of it")]
    OtherFile {
        /// The file.
        file: String,
    },
    /// The log has no transaction that was archived.
    #[error("the server's binary log was begun anew behind what was archived")]
    BegunAnew,
    /// The disk does not take what is received, or give it back.
    #[error("cannot keep what is received in {directory:?}")]
    Spool {
        /// The directory.
        directory: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A task of this program broke.
    #[error("a task ended unexpectedly")]
    Abandoned,
    /// A signal came before anything was received.
    #[error("interrupted")]
    Interrupted,
}

impl Diagnose for ArchiveError {
    fn kind(&self) -> Kind {
        match self {
            ArchiveError::Repository(error) => error.kind(),
            ArchiveError::Sql(error) => error.kind(),
            ArchiveError::Dump(error) => error.kind(),
            ArchiveError::Binlog(error) => error.kind(),
            ArchiveError::LogOff | ArchiveError::Moved | ArchiveError::OtherFile { .. } | ArchiveError::BegunAnew => {
                Kind::DatabaseRefused
            }
            ArchiveError::Spool { .. } | ArchiveError::Abandoned => Kind::Failed,
            ArchiveError::Interrupted => Kind::Interrupted,
        }
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            ArchiveError::Repository(error) => return error.hint(),
            ArchiveError::Sql(SqlError::MissingPrivilege { .. }) => {
                "GRANT REPLICATION SLAVE, BINLOG MONITOR ON *.* to the account"
            }
            ArchiveError::Sql(error) => return error.hint(),
            ArchiveError::Dump(error) => return error.hint(),
            ArchiveError::Binlog(error) => return error.hint(),
            ArchiveError::LogOff => "set log_bin in the server's option file, and restart it",
            ArchiveError::Spool { .. } => "give a directory with room, with --spool-dir",
            ArchiveError::Moved | ArchiveError::OtherFile { .. } | ArchiveError::BegunAnew => "run it again",
            ArchiveError::Abandoned => "this is a bug of haulout: please report it with the output of -v",
            ArchiveError::Interrupted => return None,
        };
        Some(hint.to_owned())
    }
}
