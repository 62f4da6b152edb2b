//! Why a backup did not come about.

use std::io;
use std::path::PathBuf;

use crate::error::{Diagnose, Kind};
use crate::format::FormatError;
use crate::mariadb::delta::{DeltaError, MetaError};
use crate::mariadb::page::{Page0Error, PageFault};
use crate::mariadb::redo::RedoError;
use crate::mariadb::xbstream::PathFault;
use crate::model::{BackupId, Lsn, PackId, PageNo, PlanId, SpaceId};
use crate::repository::RepositoryError;

/// Why an incremental would not be certain to restore, so that a full backup is due.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Obstacle {
    /// There is no backup yet.
    #[error("there is no backup yet")]
    First,
    /// The newest manifest cannot be read.
    #[error("the newest backup {id} cannot be read: {reason}")]
    ParentUnreadable {
        /// The backup.
        id: BackupId,
        /// What is wrong with it.
        reason: String,
    },
    /// The parent needs a pack that is gone.
    #[error("the parent {id} needs pack {pack}, which is missing")]
    ParentIncomplete {
        /// The parent.
        id: BackupId,
        /// The pack.
        pack: PackId,
    },
    /// The parent needs a pack that is damaged.
    #[error("the parent {id} needs pack {pack}, which a check found damaged")]
    ParentDamaged {
        /// The parent.
        id: BackupId,
        /// The pack.
        pack: PackId,
    },
    /// The server is another one, or its files were put in place anew.
    #[error("the server's system tablespace is not the file that the parent read: it was restored, copied or replaced")]
    OtherTimeline,
    /// The server's LSN went back.
    #[error("the server is at LSN {found}, its parent backup reached {parent}: it was restored to an older state")]
    WentBack {
        /// Last LSN of the parent.
        parent: Lsn,
        /// The server's.
        found: Lsn,
    },
    /// Another major version.
    #[error("the server was upgraded from {parent} to {found}")]
    Upgraded {
        /// Version at the parent.
        parent: String,
        /// Version now.
        found: String,
    },
    /// A setting of InnoDB's files changed.
    #[error("{setting} changed from {parent} to {found}")]
    Setting {
        /// Its name.
        setting: &'static str,
        /// Value at the parent.
        parent: String,
        /// Value now.
        found: String,
    },
    /// Options that choose what is backed up changed.
    #[error("options that choose what is backed up changed")]
    Filters,
    /// A tablespace's file was replaced under the same id, as `ALTER TABLE … IMPORT TABLESPACE` does.
    #[error("the file of {name} was replaced since the parent, as IMPORT TABLESPACE does")]
    Replaced {
        /// The table's file.
        name: String,
    },
    /// A tablespace was replaced while the parent was taken.
    #[error("{name} was discarded or replaced while the parent was being taken")]
    Suspect {
        /// The table's file.
        name: String,
    },
    /// The parent read a file, and nobody saw which.
    #[error("it is not known which file of {name} the parent read")]
    Unseen {
        /// The table's file.
        name: String,
    },
    /// A tablespace's file was replaced during the backup.
    #[error("the file of {name} was replaced during the backup, as IMPORT TABLESPACE does")]
    ReplacedDuring {
        /// The table's file.
        name: String,
    },
    /// A new tablespace came without its first page.
    #[error("{name} is new, and its first page is older than the parent, as after IMPORT TABLESPACE")]
    Page0Missing {
        /// The table's file.
        name: String,
    },
    /// A new tablespace came without pages that it uses.
    #[error("{name} is new, and {pages} pages that it uses are older than the parent, as after IMPORT TABLESPACE")]
    PagesMissing {
        /// The table's file.
        name: String,
        /// How many.
        pages: u64,
    },
    /// The files of the system tablespace do not fit the parent's.
    #[error("the length of {name} cannot be told from the parent's")]
    SystemFiles {
        /// The file.
        name: String,
    },
    /// The tool says that undo tablespaces changed.
    #[error("the number of undo tablespaces changed")]
    UndoTablespaces,
    /// A page on disk cannot follow the parent's.
    #[error(
        "page {page} of {name} is of LSN {found} on the server's disk, which cannot follow the parent's {parent}: the \
         server's files were taken back to an older state"
    )]
    Forked {
        /// The file.
        name: String,
        /// The page.
        page: PageNo,
        /// LSN that the parent has of it.
        parent: Lsn,
        /// LSN that it has on disk.
        found: Lsn,
    },
    /// The binlog that the parent saw is another, or shorter.
    #[error(
        "binlog {name} had {parent} bytes at the parent and is another file now, of {found} bytes: the server's files were \
         taken back to an older state"
    )]
    BinlogWentBack {
        /// Its name.
        name: String,
        /// Length at the parent.
        parent: u64,
        /// Length now.
        found: u64,
    },
    /// The start checkpoint lies before the parent's.
    #[error("the backup began at LSN {found}, before its parent's {parent}: the server was restored to an older state")]
    StartWentBack {
        /// The parent's start checkpoint.
        parent: Lsn,
        /// This one's.
        found: Lsn,
    },
    /// A lineage has become as long as it may.
    #[error("the lineage has {depth} incrementals")]
    Long {
        /// Incrementals since the full.
        depth: u32,
    },
    /// Operator's wish.
    #[error("--full was given")]
    Asked,
}

/// Why a backup did not come about. No manifest was written.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// An incremental was asked for, or begun, and is not safe.
    #[error("an incremental backup is not safe: {0}")]
    NeedsFull(Obstacle),
    /// The repository failed.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// Stored bytes are damaged, or cannot be made.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The source of the pages failed.
    #[error(transparent)]
    Source(#[from] super::SourceError),
    /// The stream of the tool breaks its own rules.
    #[error("the stream of mariadb-backup is damaged")]
    Stream {
        /// Where and how.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A page in the stream is damaged.
    #[error("page {page} of {path} is damaged")]
    Page {
        /// The file.
        path: String,
        /// The page.
        page: PageNo,
        /// What is wrong with it.
        #[source]
        fault: PageFault,
    },
    /// Page 0 of a tablespace makes no sense.
    #[error("the first page of {path} makes no sense")]
    Page0 {
        /// The file.
        path: String,
        /// Why.
        source: Page0Error,
    },
    /// Flags in the map that no tablespace has.
    #[error("the page map says that {path} has flags {flags:#x}, which no tablespace has")]
    Flags {
        /// The file.
        path: String,
        /// The flags.
        flags: u32,
    },
    /// A file of the system tablespace says that it is another's.
    #[error("{path} is a file of the system tablespace and says that it is of tablespace {space}")]
    NotSystem {
        /// The file.
        path: String,
        /// What it says.
        space: SpaceId,
    },
    /// A file of one table says that it is of the system tablespace.
    #[error("{path} says that it is a file of the system tablespace")]
    IsSystem {
        /// The file.
        path: String,
    },
    /// A `.delta` breaks its own rules.
    #[error("{path} in the stream is damaged")]
    Delta {
        /// The file.
        path: String,
        /// Where and how.
        source: DeltaError,
    },
    /// A `.meta` makes no sense.
    #[error("{path} in the stream makes no sense")]
    Meta {
        /// The file.
        path: String,
        /// Why.
        source: MetaError,
    },
    /// A `.delta` without its `.meta`.
    #[error("{path} came without its .meta")]
    MetaMissing {
        /// The file.
        path: String,
    },
    /// A `.ren` that names no file.
    #[error("{path} in the stream names no file")]
    Rename {
        /// The file.
        path: String,
        /// Why.
        source: PathFault,
    },
    /// Pages and `.meta` name different tablespaces.
    #[error("{path} should be tablespace {expected}, its pages say {found}")]
    SpaceMismatch {
        /// The file.
        path: String,
        /// What the `.meta` says.
        expected: SpaceId,
        /// What the pages say.
        found: SpaceId,
    },
    /// Bytes of a file came out of order.
    #[error("{path} continues at byte {found}, expected {expected}")]
    OutOfOrder {
        /// The file.
        path: String,
        /// Where it should go on.
        expected: u64,
        /// Where it does.
        found: u64,
    },
    /// A file is longer than any that a server has.
    #[error("{path} goes on at byte {found}, and no file is longer than {limit} bytes")]
    TooLong {
        /// The file.
        path: String,
        /// Where it goes on.
        found: u64,
        /// The longest possible.
        limit: u64,
    },
    /// The pages of a `.delta` are not as long as those of their tablespace.
    #[error("{path} has pages of {found} bytes, its tablespace has pages of {expected}")]
    PageSize {
        /// The file.
        path: String,
        /// Page size by the tablespace's flags.
        expected: usize,
        /// Page size of the `.delta`.
        found: usize,
    },
    /// An InnoDB file ends in the middle of a page.
    #[error("{path} has {bytes} bytes, which are not whole pages of {page_bytes}")]
    PartialPage {
        /// The file.
        path: String,
        /// Its length.
        bytes: u64,
        /// The page size.
        page_bytes: u64,
    },
    /// The redo log is damaged or has a gap.
    #[error("the redo log in the stream is damaged")]
    Redo {
        /// Where and how.
        source: RedoError,
    },
    /// The redo log ends before its header does.
    #[error("the redo log in the stream has {bytes} bytes, less than its header")]
    RedoShort {
        /// Bytes found.
        bytes: u64,
    },
    /// A file that every backup has is not in the stream.
    #[error("{name} is missing in the stream")]
    FileMissing {
        /// The file.
        name: String,
    },
    /// A file of the tool's makes no sense.
    #[error("{name} in the stream makes no sense")]
    Control {
        /// The file.
        name: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The tool was told to leave something out, or to compress.
    #[error("mariadb-backup left something out or compressed it, as an option file tells it to: so says {name}")]
    Partial {
        /// The tool's file that says so.
        name: &'static str,
    },
    /// A page is newer than the redo log.
    #[error("{path} has a page of LSN {found}, beyond the backup's last LSN {last}")]
    FutureLsn {
        /// The file.
        path: String,
        /// The page's LSN.
        found: Lsn,
        /// Last LSN of the backup.
        last: Lsn,
    },
    /// Two files claim one tablespace.
    #[error("{one} and {other} are both tablespace {space}")]
    SameSpace {
        /// The tablespace.
        space: SpaceId,
        /// One file.
        one: String,
        /// The other.
        other: String,
    },
    /// Two tablespaces claim one file.
    #[error("tablespaces {one} and {other} are both called {name}")]
    SameName {
        /// The file.
        name: String,
        /// One tablespace.
        one: SpaceId,
        /// The other.
        other: SpaceId,
    },
    /// The tool left out tablespaces, and nothing that happened to tables explains it.
    #[error("mariadb-backup left out {names}, and no DDL explains it")]
    LeftOut {
        /// The tablespaces.
        names: String,
    },
    /// Files of tablespaces begin with zeros, and recovery would not write their first page.
    #[error("the first page of {paths} is zero on disk, and the redo log does not write it")]
    Blank {
        /// Their paths in the datadir.
        paths: String,
    },
    /// The tool could not open files that are there, and went on.
    #[error("mariadb-backup could not open {paths} and left it out")]
    Unopened {
        /// Their paths in the datadir.
        paths: String,
        /// True when one of them is a symbolic link, which the tool never opens; else DDL may have been in the way.
        linked: bool,
    },
    /// Tables of other engines than InnoDB were altered while the tool copied them, and it lost track of them.
    #[error(
        "mariadb-backup lost track of tables that were created, altered, emptied, renamed or dropped while it copied them: {names}{}",
        others(.more)
    )]
    TablesAltered {
        /// The first of them, with their engines.
        names: String,
        /// How many more there are.
        more: usize,
    },
    /// The server wrote to its binlog while it held all commits back.
    #[error(
        "the binlog went on from {blocked} to {found} while commits were blocked for the backup, which may lack what that was"
    )]
    Binlogged {
        /// Where it ended when commits were blocked.
        blocked: String,
        /// Where the tool found it to end.
        found: String,
    },
    /// A map block of the parent stands in the wrong place.
    #[error("a map block of backup {backup} for {path} stands in another's place")]
    ForeignBlock {
        /// The parent.
        backup: BackupId,
        /// The file.
        path: String,
    },
    /// A file had no end.
    #[error("{path} has no end in the stream")]
    Unfinished {
        /// The file.
        path: String,
    },
    /// The spool directory cannot be used.
    #[error("the spool directory {} cannot hold packs", directory.display())]
    Spool {
        /// The directory.
        directory: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// zstd cannot be set up.
    #[error("zstd cannot be set up")]
    Compressor {
        /// Why.
        source: io::Error,
    },
    /// A sweep deleted packs that the backup needs.
    #[error("packs that this backup needs were deleted by prune plan {plan} while it ran")]
    Swept {
        /// The plan.
        plan: PlanId,
    },
    /// The store does not answer for the moment, and the tool must not wait; whoever asked does without.
    #[error("the store does not answer for the moment")]
    NotSoon,
    /// A thread of the pipeline ended early; another error tells why.
    #[error("the pipeline stopped")]
    Abandoned,
    /// A signal stopped the run.
    #[error("stopped by a signal")]
    Interrupted,
}

fn others(more: &usize) -> String {
    if *more == 0 { String::new() } else { format!(" and {more} more") }
}

impl Diagnose for BackupError {
    fn kind(&self) -> Kind {
        match self {
            BackupError::NeedsFull(_) => Kind::ChainBroken,
            BackupError::Repository(error) => error.kind(),
            BackupError::Format(error) => error.kind(),
            BackupError::Source(error) => error.kind(),
            BackupError::Interrupted => Kind::Interrupted,
            BackupError::Swept { .. } => Kind::Failed,
            BackupError::Unopened { .. } | BackupError::Partial { .. } => Kind::DatabaseRefused,
            BackupError::TablesAltered { .. } | BackupError::Binlogged { .. } => Kind::DatabaseRefused,
            BackupError::Redo { source } => source.kind(),
            BackupError::Spool { .. } | BackupError::Compressor { .. } | BackupError::Abandoned => Kind::Failed,
            BackupError::NotSoon => Kind::StorageUnavailable,
            _ => Kind::Corrupt,
        }
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            BackupError::Repository(error) => return error.hint(),
            BackupError::Format(error) => return error.hint(),
            BackupError::Source(error) => return error.hint(),
            BackupError::Redo { source } => return source.hint(),
            BackupError::NeedsFull(_) => {
                "run `haulout backup --full`, or without --incremental, which then takes a full"
            }
            BackupError::Page { fault, .. } => return fault.hint(),
            BackupError::Spool { .. } => {
                "give --spool-dir a directory on a disk with room for the spool, or a smaller --spool-size"
            }
            BackupError::Swept { .. } => {
                "nothing was committed; run the command again: what is still stored is not uploaded again"
            }
            BackupError::Interrupted => "nothing was committed; run the command again",
            BackupError::LeftOut { .. } => {
                "run the backup again; after an IMPORT TABLESPACE, SET GLOBAL innodb_log_checkpoint_now=ON first; if it \
                 happens again, check the files' permissions"
            }
            BackupError::Blank { .. } => {
                "the file is damaged, though the server may still have the page in memory: write the table anew with ALTER TABLE … \
                 FORCE or from an earlier backup, then run the backup again"
            }
            BackupError::TablesAltered { .. } => {
                "run the backup again while no MyISAM or Aria table is altered, truncated, repaired, renamed or dropped; for InnoDB tables that does not matter"
            }
            BackupError::Partial { .. } => {
                "take options such as databases, tables, their -exclude and -file, and compress out of the groups [mariadb-backup], \
                 [mariabackup] and [xtrabackup] of the option files, or name another file with --defaults-file"
            }
            BackupError::Binlogged { .. } => {
                "statements on Aria tables that wait longer than lock_wait_timeout fail and are written to the binlog all the same: \
                 let the clients that write to such tables wait longer than a backup blocks commits, then run the backup again"
            }
            BackupError::Unopened { .. } => {
                "the tool does not follow symbolic links, as Aria tables with DATA DIRECTORY or INDEX DIRECTORY have: make \
                 such tables anew without these options; otherwise check the files' permissions and run the backup again"
            }
            _ => "no backup was committed; run the command again, and look at the tool's output with --verbose",
        };
        Some(hint.to_owned())
    }
}
