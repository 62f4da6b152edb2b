//! Why a table is not brought back.

use std::path::PathBuf;

use crate::error::{Diagnose, Kind};
use crate::mariadb::facts::FactsError;
use crate::mariadb::scratch::ScratchError;
use crate::mariadb::sql::SqlError;
use crate::restore::TableName;

/// What the account needs.
const PRIVILEGES: &str = "GRANT SELECT, INSERT, CREATE, ALTER, DROP, TRIGGER on the table's schema, and BINLOG ADMIN ON *.* \
                          where there is a binary log, to the account";
/// How a table of any kind comes back.
const BY_HAND: &str =
    "restore the backup into another datadir, start a server on it and copy the table with mariadb-dump";

/// Why a table is not brought back into a running server; the table there is as it was.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// Tables of this kind are not brought back.
    #[error("table {table} is not restored: {why}")]
    Unsupported {
        /// The table of the backup.
        table: TableName,
        /// What is special about it.
        why: String,
        /// How it comes back otherwise.
        hint: &'static str,
    },
    /// The server cannot take a table.
    #[error("the server takes no table: {why}")]
    Server {
        /// Why not.
        why: String,
        /// What to do.
        hint: &'static str,
    },
    /// There is such a table, and it holds something.
    #[error("table {table} exists and has rows")]
    Exists {
        /// The table of the server.
        table: TableName,
    },
    /// What is there cannot be replaced.
    #[error("{table} is not replaced: {why}")]
    InTheWay {
        /// What is there.
        table: TableName,
        /// Why not.
        why: String,
        /// What to do.
        hint: &'static str,
    },
    /// The server's files are not here.
    #[error("the server's files are not in {datadir:?} on this machine: {why}")]
    Elsewhere {
        /// Its datadir, as it says.
        datadir: PathBuf,
        /// How it is known.
        why: &'static str,
    },
    /// The prepare wrote nothing by which the table can be imported.
    #[error("mariadb-backup --prepare --export wrote no {file:?}")]
    NotExported {
        /// The file.
        file: String,
    },
    /// The table was imported, and is not sound.
    #[error("table {table} was imported and CHECK TABLE finds: {found}")]
    Unsound {
        /// The table of the backup.
        table: TableName,
        /// What it says.
        found: String,
    },
    /// The server refuses.
    #[error("cannot {action}")]
    Sql {
        /// What was to be done.
        action: &'static str,
        /// What the server says.
        source: SqlError,
    },
    /// The server cannot be asked.
    #[error(transparent)]
    Facts(#[from] FactsError),
    /// The definition of the table cannot be read.
    #[error(transparent)]
    Scratch(#[from] ScratchError),
    /// The table under its working name cannot be removed.
    #[error("table {left} cannot be removed, which was to become {table}")]
    LeftBehind {
        /// The table that is to be dropped by hand.
        left: String,
        /// The table that was to be restored.
        table: String,
        /// What the server says.
        source: Box<SqlError>,
    },
}

impl TableError {
    /// A kind of table that comes back by a dump only.
    pub(super) fn unsupported(table: &TableName, why: impl Into<String>) -> TableError {
        TableError::Unsupported { table: table.clone(), why: why.into(), hint: BY_HAND }
    }
}

impl Diagnose for TableError {
    fn kind(&self) -> Kind {
        match self {
            TableError::Unsupported { .. } | TableError::Exists { .. } | TableError::InTheWay { .. } => Kind::Usage,
            TableError::Elsewhere { .. } => Kind::Usage,
            TableError::Unsound { .. } => Kind::Corrupt,
            TableError::Server { .. } | TableError::NotExported { .. } | TableError::LeftBehind { .. } => {
                Kind::DatabaseRefused
            }
            TableError::Sql { source, .. } => source.kind(),
            TableError::Facts(error) => error.kind(),
            TableError::Scratch(error) => error.kind(),
        }
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            TableError::Unsupported { hint, .. } | TableError::Server { hint, .. } => hint,
            TableError::InTheWay { hint, .. } => hint,
            TableError::Exists { .. } => "restore it under another name with --as, or give --replace",
            TableError::Elsewhere { .. } => "run this on the server's own machine, as root or as the server's user",
            TableError::NotExported { .. } | TableError::Unsound { .. } => {
                "restore the table from another backup, and run `haulout check --read-data`"
            }
            TableError::Sql { source: SqlError::MissingPrivilege { .. }, .. } => PRIVILEGES,
            TableError::Sql { source, .. } => return source.hint(),
            TableError::Facts(error) => return error.hint(),
            TableError::Scratch(error) => return error.hint(),
            TableError::LeftBehind { .. } => "drop it by hand",
        };
        Some(hint.to_owned())
    }
}
