//! Brings one table of a backup back into a running server.
//!
//! ```text
//! fetch ──► prepare --export ──► definition from a scratch server ──► CREATE under a working name ──► DISCARD
//!       ──► file into the datadir ──► IMPORT, CHECK ──► one RENAME
//! ```
//! The table that the server has is not touched before the RENAME, so that whatever goes wrong leaves it as it was. Nothing
//! is written to the binary log: a replica does not have the file.
//!
//! The definition comes from a server of our own on the prepared directory, because only a server reads `.frm` files; it
//! changes nothing there. That open transactions are rolled back before is the export's work
//! (`extra/mariabackup/xtrabackup.cc`, `SRV_OPERATION_RESTORE_EXPORT`).

mod definition;
mod error;
mod target;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use definition::Definition;
pub use error::TableError;
use target::{Present, Target};

use super::catalogue::{Catalogue, Engine, TableEntry, TableName};
use super::choice::TableChoice;
use super::marker::Marker;
use super::plan::{RestorePlan, available_bytes, check_tool};
use super::steps::{self, PrepareSettings, Watch, blocking};
use super::tree::copy_file;
use super::workdir::{Leftovers, WorkDir};
use super::{FetchOptions, RestoreError, thaw};
use crate::error::Diagnose;
use crate::format::Manifest;
use crate::mariadb::connection::Connection;
use crate::mariadb::filename;
use crate::mariadb::scratch::{ScratchError, ScratchServer};
use crate::mariadb::tool::Tools;
use crate::model::{BackupId, Phase};
use crate::repository::Repository;

/// Longest time for a statement that reads no rows but may wait for a lock.
const STATEMENT_LIMIT: Duration = Duration::from_secs(300);
/// Ending of the directory beside a datadir in which a table is made ready.
const WORK_ENDING: &str = ".haulout-table";

/// Where a table comes back.
#[derive(Debug, Clone, Copy)]
pub struct TableTarget<'a> {
    /// MariaDB's tools.
    pub tools: &'a Tools,
    /// The way to the server.
    pub connection: &'a Connection,
}

/// How a table is brought back.
#[derive(Debug, Clone)]
pub struct TableOptions {
    /// The table of the backup.
    pub table: TableName,
    /// What it will be called.
    pub target: TableName,
    /// Whether a table with rows may be replaced.
    pub replace: bool,
    /// Where the table is made ready, in place of the place that is chosen; it is empty or missing, and gone afterwards.
    pub work_dir: Option<PathBuf>,
    /// Tells working names of this run from those of others.
    pub suffix: String,
    /// How files are fetched.
    pub fetch: FetchOptions,
    /// How they are prepared.
    pub prepare: PrepareSettings,
}

/// What bringing a table back takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TablePlan {
    /// The server's datadir.
    pub datadir: PathBuf,
    /// Where the table is made ready.
    pub work_dir: PathBuf,
    /// Whether a table of the server is replaced.
    pub replaces: bool,
    /// Bytes of the table's files.
    pub table_bytes: u64,
    /// Bytes to write, those of the system's files among them.
    pub written_bytes: u64,
    /// Bytes to fetch.
    pub fetched_bytes: u64,
    /// Requests for them.
    pub requests: u64,
    /// Bytes that are free in the work directory.
    pub free_bytes: u64,
}

/// What bringing a table back did.
#[derive(Debug, Clone, PartialEq)]
pub struct TableOutcome {
    /// The backup.
    pub backup: BackupId,
    /// The server's datadir.
    pub datadir: PathBuf,
    /// Whether a table of the server was replaced.
    pub replaced: bool,
    /// Bytes of the table's files.
    pub table_bytes: u64,
    /// Bytes fetched.
    pub fetched_bytes: u64,
    /// Requests for them.
    pub requests: u64,
    /// Triggers of the table in the backup, which were not made.
    pub triggers: Vec<String>,
    /// Seconds for fetching, preparing and importing.
    pub seconds: [f64; 3],
}

/// Finds out what bringing a table back takes, and whether it can be.
///
/// # Errors
/// When it cannot; nothing was done.
pub async fn plan_table(
    repository: &Repository,
    manifest: &Manifest,
    target: TableTarget<'_>,
    options: &TableOptions,
    watch: &Watch,
) -> Result<TablePlan, RestoreError> {
    let job = Job { repository, manifest, target, options, watch };
    let ready = job.look().await?;
    Ok(ready.plan)
}

/// Brings a table of a backup back into a running server on this machine.
///
/// # Errors
/// When it cannot be brought back; the server's tables are then as they were, unless the error names one that is left.
pub async fn restore_table(
    repository: &Repository,
    manifest: &Manifest,
    target: TableTarget<'_>,
    options: &TableOptions,
    watch: &Watch,
) -> Result<TableOutcome, RestoreError> {
    let job = Job { repository, manifest, target, options, watch };
    let ready = job.look().await?;
    let marker = Marker::filling(manifest).of_tables();
    let path = ready.plan.work_dir.clone();
    // Beside the datadir nobody but this leaves anything; what is whole in a place that was named is somebody's.
    let leftovers = if options.work_dir.is_some() { Leftovers::RemoveBroken } else { Leftovers::Remove };
    let mut dir = blocking(move || WorkDir::take(&path, marker, leftovers)).await?;
    let result = job.bring(&ready, &mut dir).await;
    // Should files stay, the next run removes them; the first error tells more.
    blocking(move || dir.remove_whole()).await.ok();
    match result {
        Err(error) => Err(thaw::told(error, repository, manifest, &ready.choice, watch).await),
        brought => brought,
    }
}

struct Job<'a> {
    repository: &'a Repository,
    manifest: &'a Manifest,
    target: TableTarget<'a>,
    options: &'a TableOptions,
    watch: &'a Watch,
}

/// A table that can be brought back, as far as can be seen before.
struct Ready<'a> {
    choice: TableChoice,
    server: Target<'a>,
    fetch: RestorePlan,
    plan: TablePlan,
}

impl<'a> Job<'a> {
    async fn look(&self) -> Result<Ready<'a>, RestoreError> {
        let Job { repository, manifest, target, options, watch } = self;
        let TableTarget { tools, connection } = *target;
        check_tool(&manifest.server.version, tools)?;
        let read = async || Catalogue::read(repository, manifest, &watch.cancel).await;
        let catalogue = thaw::thawed(repository, manifest, options.fetch.thaw, watch, read).await?;
        let entry = self.find(&catalogue)?;
        // The client program is short-lived, and asks for what the server has in memory.
        let server = tokio::task::block_in_place(|| Target::look(tools, connection, &options.target, &options.suffix))?;
        let (present, unfinished) =
            tokio::task::block_in_place(|| Ok::<_, TableError>((server.present()?, server.unfinished()?)))?;
        for table in unfinished {
            watch.progress.warn(&format!("{table} is left of a run that was killed, unless one is under way: drop it"));
        }
        if present == Present::Rows && !options.replace {
            return Err(TableError::Exists { table: options.target.clone() }.into());
        }
        let choice = TableChoice::These(BTreeSet::from([options.table.clone()]));
        thaw::thaw(repository, manifest, &choice, options.fetch.thaw, watch).await?;
        let read = async || RestorePlan::of(repository, manifest, &choice, options.fetch, &watch.cancel).await;
        let fetch = thaw::thawed(repository, manifest, None, watch, read).await?;
        let work_dir = options.work_dir.clone().unwrap_or_else(|| beside(&server.datadir));
        let on_disk = work_dir.ancestors().find(|ancestor| ancestor.is_dir()).unwrap_or(Path::new("/"));
        let free_bytes = available_bytes(on_disk)?;
        fetch.check_space(on_disk, free_bytes)?;
        let (available, needed) = (available_bytes(&server.datadir)?, entry.logical_bytes);
        if is_elsewhere(on_disk, &server.datadir) && available < needed {
            return Err(RestoreError::NoSpace { directory: server.datadir.clone(), needed, available });
        }
        let plan = TablePlan {
            datadir: server.datadir.clone(),
            work_dir,
            replaces: present != Present::Nothing,
            table_bytes: entry.logical_bytes,
            written_bytes: fetch.written_bytes,
            fetched_bytes: fetch.fetched_bytes,
            requests: fetch.requests,
            free_bytes,
        };
        Ok(Ready { choice, server, fetch, plan })
    }

    /// The table in the backup, of a kind that can be brought back as far as its files tell.
    fn find<'c>(&self, catalogue: &'c Catalogue) -> Result<&'c TableEntry, RestoreError> {
        let (table, manifest) = (&self.options.table, self.manifest);
        let Some(entry) = catalogue.tables.iter().find(|entry| entry.name == *table) else {
            let near = catalogue.near(table).into_iter().map(TableName::to_string).collect();
            return Err(RestoreError::NoTable { backup: manifest.id.clone(), pattern: table.to_string(), near });
        };
        match obstacle(entry, &self.options.target, manifest.redo.encrypted) {
            Some(why) => Err(TableError::unsupported(table, why).into()),
            None => Ok(entry),
        }
    }

    async fn bring(&self, ready: &Ready<'_>, dir: &mut WorkDir) -> Result<TableOutcome, RestoreError> {
        let Job { repository, manifest, target, options, watch } = self;
        let mut seconds = [0.0; 3];
        let begun = Instant::now();
        let figures = steps::fill(repository, manifest, &ready.choice, &ready.fetch, dir, options.fetch, watch).await?;
        seconds[0] = begun.elapsed().as_secs_f64();
        let begun = Instant::now();
        let how = PrepareSettings { export: true, ..options.prepare.clone() };
        steps::run_prepare(dir, target.tools, &how, watch).await?;
        let stem = exported(dir.path(), &options.table)?;
        // Blocks where the runtime has other threads for what goes on meanwhile.
        let definition = tokio::task::block_in_place(|| self.definition(dir.path()))?;
        seconds[1] = begun.elapsed().as_secs_f64();
        let begun = Instant::now();
        watch.progress.begin(Phase::Move, Some(ready.plan.table_bytes));
        let imported = tokio::task::block_in_place(|| self.import(ready, &definition, &stem));
        watch.progress.end(Phase::Move);
        imported?;
        seconds[2] = begun.elapsed().as_secs_f64();
        Ok(TableOutcome {
            backup: manifest.id.clone(),
            datadir: ready.plan.datadir.clone(),
            replaced: ready.plan.replaces,
            table_bytes: ready.plan.table_bytes,
            fetched_bytes: figures.bytes_fetched,
            requests: figures.requests,
            triggers: definition.triggers,
            seconds,
        })
    }

    fn definition(&self, directory: &Path) -> Result<Definition, RestoreError> {
        let stop = || self.watch.cancel.is_requested();
        let server = match ScratchServer::start(self.target.tools, directory, &stop) {
            Err(ScratchError::Stopped) => return Err(RestoreError::Interrupted),
            server => server.map_err(TableError::from)?,
        };
        Ok(Definition::ask(&server, self.target.tools, &self.options.table)?)
    }

    /// Makes the table under a working name, and lets it take its place once it is sound.
    fn import(&self, ready: &Ready<'_>, definition: &Definition, stem: &Path) -> Result<(), RestoreError> {
        let server = &ready.server;
        let made = self.make(server, definition, stem);
        let swapped = made.and_then(|()| {
            // Somebody may have filled it since.
            let present = server.present()?;
            if present == Present::Rows && !self.options.replace {
                return Err(TableError::Exists { table: self.options.target.clone() }.into());
            }
            Ok(server.swap(present, self.options.replace)?)
        });
        match swapped {
            // The new table is in its place; only the old one could not be dropped.
            Err(RestoreError::Table(error)) if matches!(*error, TableError::LeftBehind { .. }) => Err((*error).into()),
            Err(error) => {
                if let Err(left) = server.undo() {
                    self.watch.progress.warn(&format!("{left}; {}", left.hint().unwrap_or_default()));
                }
                Err(error)
            }
            Ok(()) => {
                if server.checkpoint().is_err() {
                    let warning = "the account may not SET GLOBAL innodb_log_checkpoint_now = ON: until the server has made a \
                                   checkpoint by itself, mariadb-backup leaves the table out, and a backup fails for it";
                    self.watch.progress.warn(warning);
                }
                Ok(())
            }
        }
    }

    fn make(&self, server: &Target<'_>, definition: &Definition, stem: &Path) -> Result<(), RestoreError> {
        let Watch { progress, cancel } = self.watch;
        cancel.check()?;
        let place = server.create(definition)?;
        server.discard()?;
        place.fill(stem, |from, to| copy_file(from, to, progress.as_ref(), cancel))?;
        cancel.check()?;
        server.import(&place)?;
        cancel.check()
    }
}

/// What keeps a table from being brought back, as far as its files tell.
fn obstacle(entry: &TableEntry, target: &TableName, redo_encrypted: bool) -> Option<String> {
    match entry.engine {
        _ if entry.name.is_servers() || target.is_servers() => Some("the schema is the server's own".to_owned()),
        Engine::View => Some("it is a view".to_owned()),
        Engine::FulltextIndex => Some("it is a part of another table's FULLTEXT index".to_owned()),
        Engine::NoFiles => Some(
            "it has no file of its own: its rows are in memory, on another server, or in the system tablespace"
                .to_owned(),
        ),
        Engine::Innodb if !entry.partitions.is_empty() => {
            Some(format!("it is partitioned, in {}", entry.partitions.len()))
        }
        Engine::Innodb if entry.encrypted || redo_encrypted => {
            Some("it is encrypted, with the keys of the server that it is from".to_owned())
        }
        Engine::Innodb if entry.linked => Some("its file lies outside of the datadir".to_owned()),
        Engine::Innodb => None,
        engine => Some(format!("its engine is {}, not InnoDB", engine.name())),
    }
}

/// The exported files of `table` in a prepared directory: their path without ending.
fn exported(directory: &Path, table: &TableName) -> Result<PathBuf, RestoreError> {
    let names = filename::encode(&table.schema).zip(filename::encode(&table.table));
    let (schema, name) = names.ok_or_else(|| TableError::unsupported(table, "its name fits no file"))?;
    let stem = directory.join(&schema).join(&name);
    for ending in ["ibd", "cfg"] {
        if !stem.with_extension(ending).is_file() {
            return Err(TableError::NotExported { file: format!("{schema}/{name}.{ending}") }.into());
        }
    }
    Ok(stem)
}

/// True when two directories are on different file systems.
fn is_elsewhere(one: &Path, other: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let device = |path: &Path| std::fs::metadata(path).map(|meta| meta.dev()).ok();
    device(one) != device(other)
}

/// The place beside the datadir, on the same file system where that can be.
fn beside(datadir: &Path) -> PathBuf {
    let mut beside = datadir.to_owned().into_os_string();
    beside.push(WORK_ENDING);
    beside.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_files_tell_against_a_table_is_named() {
        let name = |schema: &str| TableName { schema: schema.to_owned(), table: "t".to_owned() };
        let entry = |engine| TableEntry {
            name: name("shop"),
            engine,
            partitions: Vec::new(),
            encrypted: false,
            linked: false,
            files: 2,
            logical_bytes: 1,
            stored_bytes: 1,
        };
        let innodb = || entry(Engine::Innodb);
        let why = |entry: &TableEntry| obstacle(entry, &name("shop"), false).unwrap_or_default();
        assert_eq!(why(&innodb()), "");
        assert!(why(&TableEntry { encrypted: true, ..innodb() }).contains("encrypted"));
        assert!(obstacle(&innodb(), &name("shop"), true).unwrap().contains("encrypted"));
        assert!(why(&TableEntry { linked: true, ..innodb() }).contains("outside"));
        assert!(why(&TableEntry { partitions: vec!["p0".to_owned()], ..innodb() }).contains("partition"));
        assert!(obstacle(&innodb(), &name("mysql"), false).unwrap().contains("the server's own"));
        assert!(why(&entry(Engine::Archive)).contains("its engine is ARCHIVE"));
    }
}
