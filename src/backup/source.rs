//! Where pages come from. `mariadb-backup` is the first source; a simulation is another.

use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;

use super::lag::LagWatch;
use crate::error::{Diagnose, Kind};
use crate::mariadb::binlog::BinlogEnd;
use crate::mariadb::child::{BackupChild, BackupOptions, ChildError, ChildReport};
use crate::mariadb::connection::Connection;
use crate::mariadb::facts::{FactsError, ServerFacts};
use crate::mariadb::identity::{DatadirLayout, DatadirWalk, FileIdentity, WalkError, identity_of};
use crate::mariadb::messages::{ChildEvent, Remedy, printed_at};
use crate::mariadb::page::{page_lsn, page_no, page_space_id};
use crate::mariadb::plain_tables::PlainTables;
use crate::mariadb::sql::Session;
use crate::mariadb::tool::{ToolError, ToolFit, ToolPaths, Tools};
use crate::model::{Clock, Level, Lsn, PageNo, PageSize, Progress, SpaceId, SystemClock};

/// The server before or after a capture.
#[derive(Debug, Clone)]
pub struct Survey {
    /// What the server says of itself.
    pub facts: ServerFacts,
    /// Its files.
    pub walk: DatadirWalk,
    /// Version of the tool that captures.
    pub tool_version: String,
}

impl Survey {
    /// The binlog file of this name; none when the server keeps no such file.
    pub(super) fn binlog(&self, name: &str) -> Option<FileIdentity> {
        // The tool gives a name without a directory.
        let plain = std::path::Path::new(name).file_name().is_some_and(|file| file == name);
        identity_of(&self.facts.binlog_base.as_ref().filter(|_| plain)?.with_file_name(name))
    }
}

/// A source of streams in the format of `mariadb-backup`.
pub trait Source: Send + Sync {
    /// Asks the server and looks at its files.
    ///
    /// # Errors
    /// When the server refuses, or no backup could be taken of it.
    fn survey(&self, progress: &dyn Progress) -> Result<Survey, SourceError>;

    /// Looks at the server's files again.
    ///
    /// # Errors
    /// When they cannot be read.
    fn look_again(&self, before: &Survey) -> Result<DatadirWalk, SourceError>;

    /// The tablespace that the file of InnoDB named `name` holds, by its first page on disk.
    fn space_on_disk(&self, survey: &Survey, name: &str) -> Option<SpaceId>;

    /// True when the server has a file `name` in its datadir, now.
    fn has(&self, survey: &Survey, name: &str) -> bool;

    /// True when that file is a symbolic link, now.
    fn is_link(&self, survey: &Survey, name: &str) -> bool;

    /// LSN that page `page` of the file of InnoDB named `name` has on disk; none when there is no such page.
    fn page_lsn_on_disk(&self, survey: &Survey, name: &str, page: PageNo, page_size: PageSize) -> Option<Lsn>;

    /// Lets the server make a checkpoint, so that its redo log begins behind what happened until now; false when it cannot be
    /// had.
    fn checkpoint(&self) -> bool;

    /// Begins to capture all pages, or those newer than `from`.
    ///
    /// # Errors
    /// When it cannot begin.
    fn start(
        &self,
        survey: &Survey,
        from: Option<Lsn>,
        progress: Arc<dyn Progress>,
    ) -> Result<Box<dyn Capture>, SourceError>;
}

/// A capture that is under way; dropping it ends it.
pub trait Capture: Send {
    /// The stream, once.
    fn take_stream(&mut self) -> Option<Box<dyn Read + Send>>;

    /// Ends the capture from any thread.
    fn stopper(&self) -> Box<dyn Fn() + Send + Sync>;

    /// The verdict, once the stream has been read to its end.
    ///
    /// # Errors
    /// Unless the capture is known to be whole.
    fn finish(self: Box<Self>) -> Result<Finished, SourceError>;
}

/// A capture that is whole.
#[derive(Debug, Clone)]
pub struct Finished {
    /// What the tool said.
    pub report: ChildReport,
    /// The server's files while all DDL was blocked, so that they are those of the backup's last LSN; none when nobody
    /// looked in time.
    pub blocked: Option<DatadirWalk>,
    /// Files of other engines than InnoDB when nothing could be written any more; none when the tool blocks writing in no stages,
    /// and copies such files under one lock.
    pub plain: Option<PlainTables>,
    /// Where the binlog ended once nothing could be committed any more; none when there is none or nobody looked.
    pub binlog: Option<BinlogEnd>,
}

/// Why a source gives nothing.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// A tool is missing or does not fit.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// The server refuses.
    #[error(transparent)]
    Facts(#[from] FactsError),
    /// The server's files cannot be read.
    #[error(transparent)]
    Walk(#[from] WalkError),
    /// The tool failed.
    #[error(transparent)]
    Child(#[from] ChildError),
    /// The tool's directory for small files cannot be made.
    #[error("cannot make a directory for temporary files in {}", directory.display())]
    Scratch {
        /// Where.
        directory: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The server has tables that this version cannot back up.
    #[error("the server has the storage engine {engine}, whose tables this version cannot back up")]
    Engine {
        /// The engine.
        engine: &'static str,
    },
    /// InnoDB's files lie where a restore would not put them.
    #[error("{setting} is {found:?}: this version backs up servers whose InnoDB files lie in the datadir")]
    Elsewhere {
        /// The setting.
        setting: &'static str,
        /// Its value.
        found: String,
    },
}

impl SourceError {
    /// What a run can do by itself.
    pub fn remedy(&self) -> Remedy {
        match self {
            SourceError::Child(error) => error.remedy(),
            _ => Remedy::Stop,
        }
    }
}

impl Diagnose for SourceError {
    fn kind(&self) -> Kind {
        match self {
            SourceError::Tool(error) => error.kind(),
            SourceError::Facts(error) => error.kind(),
            SourceError::Walk(error) => error.kind(),
            SourceError::Child(error) => error.kind(),
            SourceError::Scratch { .. } => Kind::Failed,
            SourceError::Engine { .. } | SourceError::Elsewhere { .. } => Kind::DatabaseRefused,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            SourceError::Tool(error) => error.hint(),
            SourceError::Facts(error) => error.hint(),
            SourceError::Walk(error) => error.hint(),
            SourceError::Child(error) => error.hint(),
            SourceError::Scratch { .. } => {
                Some("give TMPDIR or --spool-dir a directory that can be written".to_owned())
            }
            SourceError::Engine { .. } => Some("move its tables to InnoDB, or back them up by other means".to_owned()),
            SourceError::Elsewhere { .. } => Some("move the files into the datadir and unset it".to_owned()),
        }
    }
}

/// Captures with `mariadb-backup`.
#[derive(Debug, Clone)]
pub struct MariadbBackup {
    /// Where to find the tools.
    pub tools: ToolPaths,
    /// How to reach the server.
    pub connection: Connection,
    /// Files that the tool reads at once.
    pub parallel: u16,
    /// Niceness of the tool.
    pub nice: Option<i32>,
    /// Further options for the tool.
    pub extra_args: Vec<String>,
    /// A directory in which the tool's own temporary directory is made.
    pub scratch: PathBuf,
    /// The tools once they were looked for, none if in vain: asking them for their versions takes a twentieth of a second, in which
    /// other things can be done.
    pub found: Arc<OnceLock<Option<Tools>>>,
}

impl MariadbBackup {
    fn tools(&self) -> Result<Tools, ToolError> {
        match self.found.get_or_init(|| Tools::discover_for_backup(&self.tools).ok()) {
            Some(tools) => Ok(tools.clone()),
            // Again, for the reason.
            None => Tools::discover_for_backup(&self.tools),
        }
    }
}

impl Source for MariadbBackup {
    fn survey(&self, progress: &dyn Progress) -> Result<Survey, SourceError> {
        let tools = self.tools()?;
        tools.client()?;
        let session = Session::new(&tools, &self.connection);
        let facts = ServerFacts::gather(&session).map_err(SourceError::Facts)?;
        facts.check()?;
        if tools.fit(&facts.version)? == ToolFit::OlderPatch {
            progress.warn(&format!(
                "mariadb-backup {} is older than the server {}: install the same version",
                tools.backup.version, facts.version
            ));
        }
        check_engines(&facts)?;
        check_layout(&facts)?;
        let walk = DatadirWalk::walk(&DatadirLayout::of(&facts))?;
        Ok(Survey { facts, walk, tool_version: tools.backup.version.to_string() })
    }

    fn look_again(&self, before: &Survey) -> Result<DatadirWalk, SourceError> {
        Ok(DatadirWalk::walk(&DatadirLayout::of(&before.facts))?)
    }

    fn space_on_disk(&self, survey: &Survey, name: &str) -> Option<SpaceId> {
        let mut head = [0; 64];
        let mut file = std::fs::File::open(survey.walk.place(name)).ok()?;
        file.read_exact(&mut head).ok()?;
        page_space_id(&head)
    }

    fn has(&self, survey: &Survey, name: &str) -> bool {
        // What cannot be looked at is there, as far as anyone knows.
        !matches!(survey.walk.datadir.join(name).symlink_metadata(), Err(error) if error.kind() == io::ErrorKind::NotFound)
    }

    fn is_link(&self, survey: &Survey, name: &str) -> bool {
        survey.walk.datadir.join(name).symlink_metadata().is_ok_and(|meta| meta.file_type().is_symlink())
    }

    fn page_lsn_on_disk(&self, survey: &Survey, name: &str, page: PageNo, page_size: PageSize) -> Option<Lsn> {
        let mut head = [0; 64];
        let file = std::fs::File::open(survey.walk.place(name)).ok()?;
        file.read_exact_at(&mut head, u64::from(page.0) * page_size.bytes() as u64).ok()?;
        // Pages that were freed may have been wiped.
        let lsn = Some(page_lsn(&head)).filter(|lsn| *lsn > Lsn(0));
        lsn.filter(|_| page_no(&head) == Some(page))
    }

    fn checkpoint(&self) -> bool {
        let Ok(tools) = self.tools() else { return false };
        // The statement waits until all pages are on disk; it asks for SUPER, which an account for backups need not have.
        Session::new(&tools, &self.connection).query("SET GLOBAL innodb_log_checkpoint_now = ON; SELECT 1").is_ok()
    }

    fn start(
        &self,
        survey: &Survey,
        from: Option<Lsn>,
        progress: Arc<dyn Progress>,
    ) -> Result<Box<dyn Capture>, SourceError> {
        let tools = self.tools()?;
        let scratch = Scratch::new(&self.scratch)
            .map_err(|source| SourceError::Scratch { directory: self.scratch.clone(), source })?;
        let options = BackupOptions {
            incremental_from: from,
            parallel: self.parallel,
            scratch: scratch.0.clone(),
            nice: self.nice,
            extra_args: self.extra_args.clone(),
        };
        let layout = DatadirLayout::of(&survey.facts);
        let blocked = Arc::new(Mutex::new(None));
        let looked = blocked.clone();
        let plain = Arc::new(Mutex::new(None));
        let (found_plain, datadir) = (plain.clone(), survey.walk.datadir.clone());
        let binlog = Arc::new(Mutex::new(None));
        let (found_binlog, base) = (binlog.clone(), survey.facts.binlog_base.clone());
        let watched = progress.clone();
        let on_line = move |event: &ChildEvent, line: &str| {
            tracing::debug!(target: "mariadb-backup", "{line}");
            match event {
                ChildEvent::Warning(_) => progress.note(line),
                ChildEvent::RedoScanned(lsn) => progress.level(Level::RedoGot, lsn.0),
                // The tool goes on meanwhile, with work for longer: it has all plain files to copy before it lets go. What it says then
                // must not wait for the walk.
                ChildEvent::DdlBlocked => {
                    let layout = layout.clone();
                    let walk = std::thread::spawn(move || DatadirWalk::walk(&layout).ok());
                    *looked.lock().unwrap_or_else(PoisonError::into_inner) = Some(walk);
                }
                // The tool still waits for its copy of the redo log. Were this late, files would look changed that are not.
                ChildEvent::CommitBlocked => {
                    let end = base
                        .as_deref()
                        .and_then(|base| BinlogEnd::look(base, printed_at(line), SystemClock.now().0.into()));
                    *found_binlog.lock().unwrap_or_else(PoisonError::into_inner) = end;
                    let found = PlainTables::look(&datadir);
                    *found_plain.lock().unwrap_or_else(PoisonError::into_inner) = Some(found);
                }
                _ => {}
            }
        };
        let child = BackupChild::spawn(&tools, &self.connection, &options, Some(Box::new(on_line)))?;
        let datadir = survey.walk.datadir.clone();
        watched.level(Level::RedoGot, survey.facts.innodb.lsn_last_checkpoint.0);
        let lag = LagWatch::begin(tools, self.connection.clone(), survey.facts.innodb.log_file_bytes, watched);
        Ok(Box::new(ChildCapture { child, blocked, datadir, plain, binlog, _scratch: scratch, _lag: lag }))
    }
}

/// Checks that all tables are of engines that are backed up.
///
/// # Errors
/// [`SourceError::Engine`] for RocksDB, whose files the stream does not hold in a form that is read here.
pub fn check_engines(facts: &ServerFacts) -> Result<(), SourceError> {
    if facts.has_engine("ROCKSDB") { Err(SourceError::Engine { engine: "RocksDB" }) } else { Ok(()) }
}

/// Checks that InnoDB's files lie in the datadir: restore puts every file there, and the server would look elsewhere.
///
/// # Errors
/// [`SourceError::Elsewhere`] with the setting.
pub fn check_layout(facts: &ServerFacts) -> Result<(), SourceError> {
    let datadir = facts.datadir.canonicalize().unwrap_or_else(|_| facts.datadir.clone());
    let innodb = &facts.innodb;
    for (setting, found) in
        [("innodb_data_home_dir", &innodb.data_home_dir), ("innodb_undo_directory", &innodb.undo_directory)]
    {
        let place = facts.in_datadir(found);
        if place.canonicalize().unwrap_or(place) != datadir {
            return Err(SourceError::Elsewhere { setting, found: found.clone() });
        }
    }
    if innodb.data_file_path.split(';').any(|file| file.contains('/')) {
        let found = innodb.data_file_path.clone();
        return Err(SourceError::Elsewhere { setting: "innodb_data_file_path", found });
    }
    Ok(())
}

/// A directory that goes away with its owner.
struct Scratch(PathBuf);

impl Scratch {
    fn new(parent: &std::path::Path) -> io::Result<Scratch> {
        std::fs::create_dir_all(parent)?;
        // What runs left that were killed.
        for entry in std::fs::read_dir(parent)?.flatten() {
            let number = entry.file_name().to_str().and_then(|name| name.strip_prefix("capture-")?.parse::<u32>().ok());
            if number.is_some_and(|number| !std::path::Path::new("/proc").join(number.to_string()).exists()) {
                let _ = std::fs::remove_dir_all(entry.path());
            }
        }
        let directory = parent.join(format!("capture-{}", std::process::id()));
        // An earlier process of the same number may have left one.
        if directory.exists() {
            std::fs::remove_dir_all(&directory)?;
        }
        std::fs::create_dir(&directory)?;
        Ok(Scratch(directory))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What stays behind is small, and cleared by a later run.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

struct ChildCapture {
    child: BackupChild,
    blocked: Arc<Mutex<Option<JoinHandle<Option<DatadirWalk>>>>>,
    datadir: PathBuf,
    plain: Arc<Mutex<Option<io::Result<PlainTables>>>>,
    binlog: Arc<Mutex<Option<BinlogEnd>>>,
    _scratch: Scratch,
    _lag: LagWatch,
}

impl Capture for ChildCapture {
    fn take_stream(&mut self) -> Option<Box<dyn Read + Send>> {
        Some(Box::new(self.child.take_stdout()?))
    }

    fn stopper(&self) -> Box<dyn Fn() + Send + Sync> {
        let stopper = self.child.stopper();
        Box::new(move || stopper.stop())
    }

    fn finish(self: Box<Self>) -> Result<Finished, SourceError> {
        let report = self.child.finish()?;
        let blocked = self.blocked.lock().unwrap_or_else(PoisonError::into_inner).take();
        // One that panicked has seen nothing in time either.
        let blocked = blocked.and_then(|walk| walk.join().ok()).flatten();
        let plain = self.plain.lock().unwrap_or_else(PoisonError::into_inner).take();
        let plain = plain.transpose().map_err(|source| WalkError::Read { path: self.datadir.clone(), source })?;
        let binlog = self.binlog.lock().unwrap_or_else(PoisonError::into_inner).take();
        Ok(Finished { report, blocked, plain, binlog })
    }
}

/// [`FileIdentity`] as page maps keep it.
pub(super) fn stored(identity: FileIdentity) -> crate::format::map::FileIdentity {
    crate::format::map::FileIdentity { inode: identity.inode, born_ns: identity.birth_ns }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_of_runs_that_were_killed_go_away_and_others_stay() {
        let parent = tempfile::tempdir().unwrap();
        // No process has a number so high: the kernel gives none beyond 4194304.
        for name in ["capture-4194999", "capture-1", "capture-x", "other"] {
            std::fs::create_dir(parent.path().join(name)).unwrap();
        }
        let scratch = Scratch::new(parent.path()).unwrap();
        let own = format!("capture-{}", std::process::id());
        let names = || {
            let entries = std::fs::read_dir(parent.path()).unwrap();
            let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        };
        let mut expected = vec!["capture-1".to_owned(), "capture-x".to_owned(), own.clone(), "other".to_owned()];
        expected.sort();
        assert_eq!(names(), expected);
        drop(scratch);
        assert!(!names().contains(&own));
    }
}
