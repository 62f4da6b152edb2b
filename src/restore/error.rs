//! Failures of a restore.

use std::io;
use std::path::PathBuf;

use super::memory;
use super::replay::TargetError;
use super::replica::ReplicaError;
use super::table::TableError;
use super::thaw_error::ThawError;
use crate::error::{Diagnose, Kind};
use crate::format::FormatError;
use crate::mariadb::control::ControlError;
use crate::mariadb::datadir::DatadirError;
use crate::mariadb::prepare::PrepareError;
use crate::mariadb::tool::{NotAVersion, ToolError};
use crate::model::{BackupId, PackId};
use crate::repository::RepositoryError;

/// A failure of a restore or of one of its steps.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The repository cannot be read, or what it holds is damaged.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// The page map does not say where all bytes of a file come from.
    #[error("page map of {what} is damaged: {problem}")]
    Map {
        /// The file, or the backup.
        what: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The stored bytes of a file cannot be read.
    #[error("cannot restore {file}")]
    Unread {
        /// The first file that needs them.
        file: String,
        /// Which pack, and why.
        source: RepositoryError,
    },
    /// The stored bytes of a file are not what was stored.
    #[error("cannot restore {file}: pack {pack} is damaged")]
    Damaged {
        /// The file.
        file: String,
        /// The pack.
        pack: PackId,
        /// What is wrong.
        source: FormatError,
    },
    /// The version in the manifest is none.
    #[error("cannot tell which mariadb-backup fits the backup")]
    Version(#[from] NotAVersion),
    /// The checkpoints file of the backup cannot be read.
    #[error(transparent)]
    Checkpoints(#[from] ControlError),
    /// The tool is missing, or does not fit the server.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// The datadir is not free.
    #[error(transparent)]
    Datadir(#[from] DatadirError),
    /// The prepare failed.
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    /// The prepare found damage, and could not take the redo log at once, which can spoil what is sound.
    #[error("prepare failed with {} MiB of memory for a redo log of {} MiB", memory_bytes >> 20, redo_bytes.div_ceil(1 << 20))]
    LittleMemory {
        /// Memory that it had.
        memory_bytes: u64,
        /// Length of the redo log.
        redo_bytes: u64,
        /// What it said.
        source: PrepareError,
    },
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
    /// The file system has not enough room.
    #[error("{directory:?} has room for {} MiB, the restore needs {} MiB", available >> 20, needed.div_ceil(1 << 20))]
    NoSpace {
        /// Directory on the file system.
        directory: PathBuf,
        /// Bytes that the restore needs.
        needed: u64,
        /// Bytes that are free.
        available: u64,
    },
    /// The directory with the files and the datadir lie in each other.
    #[error("directory {work_dir:?} and datadir {datadir:?} are one, or one lies in the other")]
    Entangled {
        /// The work directory.
        work_dir: PathBuf,
        /// The datadir.
        datadir: PathBuf,
    },
    /// There is something where the files are to be put.
    #[error("directory {directory:?} is not empty: it holds {found:?}")]
    NotEmpty {
        /// The directory.
        directory: PathBuf,
        /// One of its entries.
        found: PathBuf,
    },
    /// The directory holds no backup that `fetch` wrote.
    #[error("directory {directory:?} holds no backup that was fetched")]
    NotFetched {
        /// The directory.
        directory: PathBuf,
    },
    /// The directory is not in the state that the step needs.
    #[error("directory {directory:?} is {found}, expected {expected}")]
    WrongState {
        /// The directory.
        directory: PathBuf,
        /// Its state.
        found: &'static str,
        /// The state that is needed.
        expected: &'static str,
        /// What to do.
        hint: &'static str,
    },
    /// The directory holds single tables, and the step needs a whole backup.
    #[error("directory {directory:?} holds single tables of a backup: it is no datadir and never will be one")]
    SingleTables {
        /// The directory.
        directory: PathBuf,
    },
    /// The tables of the directory were made ready for other servers.
    #[error("directory {directory:?} was prepared with --export, to take tables out of it: it is no datadir")]
    Exported {
        /// The directory.
        directory: PathBuf,
    },
    /// Recovery left files under the names of others.
    #[error("mariadb-backup --prepare left the wrong tablespace in {files}{}", others(*.more))]
    Misplaced {
        /// The first of them.
        files: String,
        /// How many more there are.
        more: usize,
    },
    /// A pattern means no table of the backup.
    #[error("backup {backup} has no table {pattern}")]
    NoTable {
        /// The backup.
        backup: BackupId,
        /// The pattern.
        pattern: String,
        /// Names that are like it.
        near: Vec<String>,
    },
    /// A table cannot be brought back into a running server.
    #[error(transparent)]
    Table(Box<TableError>),
    /// The restored server is no replica.
    #[error(transparent)]
    Replica(Box<ReplicaError>),
    /// Another run works in the directory.
    #[error("another restore works in {directory:?}: {who}")]
    Busy {
        /// The directory.
        directory: PathBuf,
        /// Who it is.
        who: String,
    },
    /// Files were being moved, and could be moved neither on nor back.
    #[error("the files of {directory:?} are partly in {datadir:?}, and cannot be put back")]
    HalfMoved {
        /// Where they came from.
        directory: PathBuf,
        /// Where they were to go.
        datadir: PathBuf,
        /// Why they cannot be put back.
        source: io::Error,
    },
    /// A restore failed; its datadir is as it was.
    #[error("restore of backup {backup} failed; datadir {datadir:?} is as it was")]
    Restore {
        /// The backup.
        backup: BackupId,
        /// The datadir.
        datadir: PathBuf,
        /// Where the files are that were fetched, when they were kept.
        kept: Option<PathBuf>,
        /// Why it failed.
        source: Box<RestoreError>,
    },
    /// A restore that reuses a datadir failed, after that had become the work directory.
    #[error(
        "restore of backup {backup} failed; what was datadir {datadir:?} is in {work_dir:?}, and no server can use it"
    )]
    Reusing {
        /// The backup.
        backup: BackupId,
        /// The datadir that is not there any more.
        datadir: PathBuf,
        /// Where its files are.
        work_dir: PathBuf,
        /// Why it failed.
        source: Box<RestoreError>,
    },
    /// The files of a datadir are in the way, which a restore was about to reuse.
    #[error("directory {directory:?} is a datadir that `haulout restore --reuse` began to write over")]
    TakenOver {
        /// The directory.
        directory: PathBuf,
    },
    /// There is a datadir, and a directory that was one.
    #[error(
        "datadir {datadir:?} is not empty, and {work_dir:?} is a datadir that `haulout restore --reuse` began to write over"
    )]
    BothThere {
        /// The datadir.
        datadir: PathBuf,
        /// What was a datadir.
        work_dir: PathBuf,
    },
    /// A datadir that was to be reused has hardly anything of the backup.
    #[error(
        "datadir {datadir:?} holds hardly anything of backup {backup}: of {looked_at} chunks that were looked for, {equal}"
    )]
    Foreign {
        /// The backup.
        backup: BackupId,
        /// The datadir.
        datadir: PathBuf,
        /// Chunks that were looked for.
        looked_at: u64,
        /// Chunks that were found.
        equal: u64,
    },
    /// The moment that was wanted cannot be restored.
    #[error(transparent)]
    Target(Box<TargetError>),
    /// What it needs has to be thawed.
    #[error(transparent)]
    Thaw(#[from] Box<ThawError>),
    /// The operator or a signal stopped the restore.
    #[error("the restore was stopped")]
    Interrupted,
    /// A thread of this program died.
    #[error("a thread of the restore died")]
    Thread(#[from] tokio::task::JoinError),
}

impl From<TableError> for RestoreError {
    fn from(error: TableError) -> RestoreError {
        RestoreError::Table(Box::new(error))
    }
}

impl From<ThawError> for RestoreError {
    fn from(error: ThawError) -> RestoreError {
        RestoreError::Thaw(Box::new(error))
    }
}

impl From<TargetError> for RestoreError {
    fn from(error: TargetError) -> RestoreError {
        RestoreError::Target(Box::new(error))
    }
}

impl From<ReplicaError> for RestoreError {
    fn from(error: ReplicaError) -> RestoreError {
        RestoreError::Replica(Box::new(error))
    }
}

impl RestoreError {
    /// Makes an [`RestoreError::Io`] of what the system says.
    pub(super) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> RestoreError {
        move |source| RestoreError::Io { action, path: path.into(), source }
    }

    /// True when an object has to be thawed before it can be read, and no more is known.
    pub(super) fn is_archived(&self) -> bool {
        match self {
            RestoreError::Repository(error) | RestoreError::Unread { source: error, .. } => error.is_archived(),
            _ => false,
        }
    }
}

impl Diagnose for RestoreError {
    fn kind(&self) -> Kind {
        match self {
            RestoreError::Repository(error) | RestoreError::Unread { source: error, .. } => error.kind(),
            RestoreError::Map { .. } | RestoreError::Version(_) | RestoreError::Checkpoints(_) => Kind::Corrupt,
            RestoreError::Damaged { source, .. } => source.kind(),
            RestoreError::Tool(error) => error.kind(),
            RestoreError::Table(error) => error.kind(),
            RestoreError::Replica(error) => error.kind(),
            RestoreError::Target(error) => error.kind(),
            RestoreError::Thaw(error) => error.kind(),
            RestoreError::Datadir(error) => error.kind(),
            RestoreError::Prepare(error) => error.kind(),
            RestoreError::NotEmpty { .. }
            | RestoreError::Entangled { .. }
            | RestoreError::NotFetched { .. }
            | RestoreError::SingleTables { .. }
            | RestoreError::Exported { .. }
            | RestoreError::NoTable { .. }
            | RestoreError::TakenOver { .. }
            | RestoreError::BothThere { .. }
            | RestoreError::Foreign { .. }
            | RestoreError::WrongState { .. } => Kind::Usage,
            RestoreError::Busy { .. } => Kind::Locked,
            RestoreError::Restore { source, .. } | RestoreError::Reusing { source, .. } => source.kind(),
            RestoreError::Interrupted => Kind::Interrupted,
            RestoreError::Io { .. }
            | RestoreError::NoSpace { .. }
            | RestoreError::Misplaced { .. }
            | RestoreError::HalfMoved { .. }
            | RestoreError::LittleMemory { .. }
            | RestoreError::Thread(_) => Kind::Failed,
        }
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            RestoreError::Repository(error) => return error.hint(),
            RestoreError::Tool(error) => return error.hint(),
            RestoreError::Table(error) => return error.hint(),
            RestoreError::Replica(error) => return error.hint(),
            RestoreError::Target(error) => return error.hint(),
            RestoreError::Thaw(error) => return error.hint(),
            RestoreError::Datadir(error) => return error.hint(),
            RestoreError::Prepare(error) => return error.hint(),
            RestoreError::LittleMemory { redo_bytes, memory_bytes, .. } => {
                let at_once = memory::to_take_at_once(*redo_bytes);
                // Many short records take more than that.
                let enough = if *memory_bytes < at_once { at_once } else { memory_bytes.saturating_mul(2) };
                let wanted = enough.div_ceil(1 << 20);
                return Some(format!(
                    "recovery in parts can spoil tables that are sound: give it --use-memory={wanted}M or more, and restore again"
                ));
            }
            RestoreError::Restore { kept, source, .. } => return Some(next_step(kept, source)),
            RestoreError::Reusing { source, .. } => {
                let first = source.hint().map(|hint| format!("{hint}; then ")).unwrap_or_default();
                return Some(format!("{first}run the same command again, with --reuse: it goes on with what is there"));
            }
            RestoreError::TakenOver { .. } => {
                "go on with `haulout restore --reuse`, or move the directory away: nobody else removes it"
            }
            RestoreError::BothThere { .. } => "move away the one that is not wanted any more",
            RestoreError::Foreign { .. } => {
                "if it is what should be replaced, move it away and restore without --reuse"
            }
            RestoreError::Unread { source, .. } if source.kind() != Kind::Corrupt => return source.hint(),
            RestoreError::Map { .. }
            | RestoreError::Unread { .. }
            | RestoreError::Damaged { .. }
            | RestoreError::Checkpoints(_) => {
                "run `haulout check --read-data` to learn which backups are whole, and restore one of them"
            }
            RestoreError::Io { source, .. } => return io_hint(source).map(str::to_owned),
            RestoreError::NoSpace { .. } => "free some space, or restore on a larger file system",
            RestoreError::Entangled { .. } => "name a directory beside the datadir",
            RestoreError::NotEmpty { .. } => "name an empty directory, or one that does not exist yet",
            RestoreError::NotFetched { .. } => {
                "write one with `haulout fetch`; what mariadb-backup wrote, mariadb-backup prepares and copies back"
            }
            RestoreError::SingleTables { .. } => {
                "run `haulout prepare --export` on it and import its tables one by one, or fetch without --tables"
            }
            RestoreError::Exported { .. } => "fetch the backup again and prepare it without --export",
            RestoreError::Misplaced { .. } => {
                "the backup is whole, but recovery had too little memory and took the redo log in parts: give it three times the \
                 log's size (see `haulout show`) by --use-memory"
            }
            RestoreError::NoTable { near, .. } if near.is_empty() => "see `haulout show ID --tables` for what there is",
            RestoreError::NoTable { near, .. } => return Some(format!("did you mean {}?", near.join(" or "))),
            RestoreError::WrongState { hint, .. } => hint,
            RestoreError::Busy { .. } => "wait for it to end, or stop it",
            RestoreError::HalfMoved { .. } => "run the same command again: it puts the files back before it begins",
            RestoreError::Version(_) | RestoreError::Interrupted | RestoreError::Thread(_) => return None,
        };
        Some(hint.to_owned())
    }
}

fn others(more: usize) -> String {
    if more == 0 { String::new() } else { format!(" and {more} others") }
}

/// How to go on after a restore that failed.
fn next_step(kept: &Option<PathBuf>, source: &RestoreError) -> String {
    let first = match (source, source.hint()) {
        // It says of another command, to be run instead.
        (RestoreError::Foreign { .. } | RestoreError::LittleMemory { .. } | RestoreError::Thaw(_), Some(hint)) => {
            return hint;
        }
        (_, hint) => hint.map(|hint| format!("{hint}; then ")).unwrap_or_default(),
    };
    match kept {
        Some(kept) => format!("{first}run the same command again: it goes on with what it fetched into {kept:?}"),
        None => format!("{first}run the same command again"),
    }
}

fn io_hint(source: &io::Error) -> Option<&'static str> {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Some("free some space, or restore on a larger file system")
        }
        io::ErrorKind::PermissionDenied => Some("run the restore as root or as the server's own user"),
        io::ErrorKind::ReadOnlyFilesystem => Some("make the file system writable"),
        _ => None,
    }
}
