//! The steps of a restore, each alone: fetch, prepare, move back, copy back.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use super::choice::TableChoice;
use super::datadir::{Datadir, gather_copy, rename_into};
use super::fetch::{FetchFigures, Ground, fetch_files};
use super::marker::{Marker, State};
use super::misplaced::Expected;
use super::plan::{RestorePlan, available_bytes, check_tool};
use super::tree::{self, Owner};
use super::workdir::{Leftovers, WorkDir};
use super::{Cancel, FetchOptions, RestoreError, checkpoints, holes, links, memory, others, thaw};
use crate::format::Manifest;
use crate::mariadb::prepare::{OnPrepareLine, Prepare, PrepareError, PrepareEvent, PrepareOptions};
use crate::mariadb::tool::{ToolFit, Tools};
use crate::model::{BackupId, Lsn, Phase, Progress};
use crate::repository::Repository;

/// Who watches a step, and who may stop it.
#[derive(Clone)]
pub struct Watch {
    /// Is told how far the step is.
    pub progress: Arc<dyn Progress>,
    /// Asks the step to stop.
    pub cancel: Cancel,
}

/// What `fetch` did.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct FetchOutcome {
    /// The backup.
    pub backup: BackupId,
    /// The directory that holds it.
    pub target: PathBuf,
    /// What it took.
    #[serde(flatten)]
    pub figures: FetchFigures,
    /// How long it took.
    pub seconds: f64,
}

/// How a directory is prepared.
#[derive(Debug, Clone, Default)]
pub struct PrepareSettings {
    /// Memory for the tool's buffer pool; when absent, 1 GiB, or more for a long redo log if the machine has it.
    pub memory_bytes: Option<u64>,
    /// Directory of encryption plugins, where it is not the tool's own.
    pub plugin_dir: Option<PathBuf>,
    /// Whether tables are made ready to be imported into another server, which single tables need.
    pub export: bool,
}

/// What `prepare` did.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct PrepareOutcome {
    /// The backup.
    pub backup: BackupId,
    /// The directory that holds it.
    pub target: PathBuf,
    /// LSN of its state.
    pub lsn: Lsn,
    /// How long it took.
    pub seconds: f64,
}

/// How files came into a datadir.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Passage {
    /// Renamed; no byte was written.
    Renamed,
    /// Copied; the originals are gone, or stay.
    Copied,
}

/// What `move-back` or `copy-back` did.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct MoveOutcome {
    /// The backup.
    pub backup: BackupId,
    /// The datadir, without symbolic links.
    pub datadir: PathBuf,
    /// How its files came there.
    pub passage: Passage,
    /// Files that came.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// How long it took.
    pub seconds: f64,
}

/// Writes the files of a backup into the directory `target`, which is empty or missing.
///
/// It is then a full backup as `mariadb-backup` makes one: the stock tool prepares it and copies it back. What an earlier
/// fetch left there that was killed is removed.
///
/// # Errors
/// When there is no room or something in the way, or the backup is damaged. What was written is removed again.
pub async fn fetch(
    repository: &Repository,
    manifest: &Manifest,
    target: &Path,
    options: FetchOptions,
    watch: &Watch,
) -> Result<FetchOutcome, RestoreError> {
    fetch_tables(repository, manifest, &TableChoice::All, target, options, watch).await
}

/// As [`fetch`], of chosen tables and what `mariadb-backup --prepare --export` needs besides.
///
/// The directory says of itself that it holds single tables: it is no datadir, and is not taken for one.
///
/// # Errors
/// Those of [`fetch`].
pub async fn fetch_tables(
    repository: &Repository,
    manifest: &Manifest,
    tables: &TableChoice,
    target: &Path,
    options: FetchOptions,
    watch: &Watch,
) -> Result<FetchOutcome, RestoreError> {
    let fetched = fetch_readable(repository, manifest, tables, target, options, watch).await;
    match fetched {
        Err(error) => Err(thaw::told(error, repository, manifest, tables, watch).await),
        fetched => fetched,
    }
}

async fn fetch_readable(
    repository: &Repository,
    manifest: &Manifest,
    tables: &TableChoice,
    target: &Path,
    options: FetchOptions,
    watch: &Watch,
) -> Result<FetchOutcome, RestoreError> {
    thaw::thaw(repository, manifest, tables, options.thaw, watch).await?;
    let begun = Instant::now();
    let plan = RestorePlan::of(repository, manifest, tables, options, &watch.cancel).await?;
    let marker = Marker::filling(manifest);
    let (path, marker) = (target.to_owned(), if tables.is_all() { marker } else { marker.of_tables() });
    let mut dir = blocking(move || WorkDir::take(&path, marker, Leftovers::RemoveBroken)).await?;
    let filled = fill(repository, manifest, tables, &plan, &mut dir, options, watch).await;
    match filled {
        Ok(figures) => {
            let (backup, target) = (manifest.id.clone(), target.to_owned());
            Ok(FetchOutcome { backup, target, figures, seconds: begun.elapsed().as_secs_f64() })
        }
        Err(error) => {
            // Should files stay, the next fetch removes them; the first error tells more.
            blocking(move || dir.remove()).await.ok();
            Err(error)
        }
    }
}

/// Fills a directory that was taken.
pub(super) async fn fill(
    repository: &Repository,
    manifest: &Manifest,
    tables: &TableChoice,
    plan: &RestorePlan,
    dir: &mut WorkDir,
    options: FetchOptions,
    watch: &Watch,
) -> Result<FetchFigures, RestoreError> {
    let ground = match dir.marker().reuse.clone() {
        None => Ground::Empty,
        Some(reuse) => {
            let (path, plan) = (dir.path().to_owned(), plan.clone());
            blocking(move || others::clear_away(&path, &plan, &reuse)).await?;
            Ground::Files
        }
    };
    let held = if ground == Ground::Files { others::held_bytes(dir.path(), plan)? } else { 0 };
    plan.check_space_over(dir.path(), available_bytes(dir.path())?, held)?;
    let progress = watch.progress.as_ref();
    progress.begin(Phase::Fetch, Some(plan.written_bytes));
    let fetched = fetch_files(repository, manifest, tables, (dir.path(), ground), options, watch).await;
    progress.end(Phase::Fetch);
    let figures = fetched?;
    let linked = links::remove(dir.path(), plan)?;
    if !linked.is_empty() {
        let tables = linked.join(", ");
        progress.warn(&format!("tables that had a DATA DIRECTORY are restored into the datadir: {tables}"));
    }
    checkpoints::write(dir.path(), manifest, &manifest.server.version.parse()?)?;
    let path = dir.path().to_owned();
    // The bytes take their time to the disk; the marker's own are few.
    blocking(move || tree::sync(&path)).await?;
    dir.set_state(State::Fetched)?;
    Ok(figures)
}

/// Prepares a directory that `fetch` wrote: its redo log is applied by `mariadb-backup --prepare`.
///
/// # Errors
/// When the directory was not fetched, or holds single tables and is not to be exported, the tool does not fit the backup's server, or the prepare fails; the directory is
/// then of no use, and has to be fetched again.
pub async fn prepare(
    target: &Path,
    tools: &Tools,
    settings: &PrepareSettings,
    watch: &Watch,
) -> Result<PrepareOutcome, RestoreError> {
    let begun = Instant::now();
    let path = target.to_owned();
    let mut dir = blocking(move || WorkDir::open(&path)).await?;
    let hint = match dir.state() {
        State::Fetched if !checkpoints::says_prepared(target) => "",
        State::Fetched | State::Prepared => "go on with `haulout move-back` or `haulout copy-back`",
        State::Filling | State::Preparing => "fetch the backup again",
        State::Replaying | State::Replayed => "run `haulout restore` again",
        State::Taking => "run `haulout restore --reuse` again",
        State::Moving | State::Moved => "start the server",
    };
    if dir.state() == State::Fetched && !hint.is_empty() {
        let (directory, found) = (dir.path().to_owned(), "prepared, by mariadb-backup itself");
        return Err(RestoreError::WrongState { directory, found, expected: State::Fetched.name(), hint });
    }
    expect(&dir, State::Fetched, hint.is_empty(), hint)?;
    if dir.marker().partial && !settings.export {
        return Err(RestoreError::SingleTables { directory: dir.path().to_owned() });
    }
    let prepared = run_prepare(&mut dir, tools, settings, watch).await;
    // Unlike a restore, which removes it, this leaves a directory of which someone must know what to do with it.
    prepared.map_err(|error| match error {
        RestoreError::Interrupted if dir.state() == State::Preparing => PrepareError::Stopped.into(),
        error => error,
    })?;
    let (backup, target, lsn) = (dir.marker().backup.clone(), target.to_owned(), dir.marker().last_lsn);
    Ok(PrepareOutcome { backup, target, lsn, seconds: begun.elapsed().as_secs_f64() })
}

fn expect(dir: &WorkDir, expected: State, holds: bool, hint: &'static str) -> Result<(), RestoreError> {
    if holds {
        return Ok(());
    }
    let (directory, found) = (dir.path().to_owned(), dir.state().name());
    Err(RestoreError::WrongState { directory, found, expected: expected.name(), hint })
}

/// Prepares a directory that was taken and filled.
pub(super) async fn run_prepare(
    dir: &mut WorkDir,
    tools: &Tools,
    settings: &PrepareSettings,
    watch: &Watch,
) -> Result<(), RestoreError> {
    let marker = dir.marker();
    if check_tool(&marker.server_version, tools)? == ToolFit::OlderPatch {
        let (tool, server) = (&tools.backup.version, &marker.server_version);
        watch.progress.warn(&format!("mariadb-backup {tool} is older than the backup's server {server}"));
    }
    let options = PrepareOptions {
        // The tool's own working directory is the target's.
        directory: std::path::absolute(dir.path()).map_err(RestoreError::io("look at", dir.path()))?,
        memory_bytes: settings.memory_bytes.or_else(|| Some(memory::for_prepare(marker.redo_bytes))),
        last_lsn: Some(marker.last_lsn),
        plugin_dir: settings.plugin_dir.clone(),
        export: settings.export,
        partial: marker.partial,
    };
    let (redo_bytes, last) = (marker.redo_bytes, marker.last_lsn);
    watch.cancel.check()?;
    let path = dir.path().to_owned();
    let expected = blocking(move || Expected::of(&path, last)).await?;
    if settings.export {
        dir.set_exported()?;
    }
    dir.set_state(State::Preparing)?;
    let progress = watch.progress.clone();
    progress.begin(Phase::Prepare, Some(redo_bytes));
    let process = Prepare::spawn(tools, &options, Some(tell(progress)));
    let ended = match process {
        Ok(process) => finish(process, watch).await,
        Err(error) => {
            // Nothing was done yet.
            dir.set_state(State::Fetched)?;
            Err(error.into())
        }
    };
    watch.progress.end(Phase::Prepare);
    if let (Err(RestoreError::Prepare(PrepareError::NoMemory { .. })), false) = (&ended, settings.export) {
        // It has not begun; an export starts a server besides when it has.
        dir.set_state(State::Fetched)?;
    }
    ended.map_err(|error| short_of_memory(error, options.memory_bytes, redo_bytes))?;
    let (path, cancel) = (dir.path().to_owned(), watch.cancel.clone());
    blocking(move || {
        expected.check(&path)?;
        holes::punch_freed(&path, &cancel)?;
        tree::sync(&path)
    })
    .await?;
    dir.set_state(State::Prepared)
}

/// Damage that a prepare found with less memory than the redo log takes may be of its own making: with too little, recovery takes the log
/// in parts, and then MariaDB was seen to call sound pages corrupted and to put files under others' names.
fn short_of_memory(error: RestoreError, memory_bytes: Option<u64>, redo_bytes: u64) -> RestoreError {
    match (error, memory_bytes) {
        (RestoreError::Prepare(source @ PrepareError::Damaged { in_parts, .. }), Some(memory_bytes))
            if in_parts || memory_bytes < memory::to_take_at_once(redo_bytes) =>
        {
            RestoreError::LittleMemory { memory_bytes, redo_bytes, source }
        }
        (error, _) => error,
    }
}

async fn finish(process: Prepare, watch: &Watch) -> Result<(), RestoreError> {
    let stopper = process.stopper();
    let mut ended = tokio::task::spawn_blocking(move || process.finish());
    let report = tokio::select! {
        biased;
        report = &mut ended => report?,
        () = watch.cancel.requested() => {
            stopper.stop();
            // Its files must not be removed under it.
            drop(ended.await);
            return Err(RestoreError::Interrupted);
        }
    };
    for error in report?.errors {
        watch.progress.warn(&format!("mariadb-backup --prepare: {error}"));
    }
    Ok(())
}

/// Tells how far recovery is, as the LSNs that it reports go on.
fn tell(progress: Arc<dyn Progress>) -> OnPrepareLine {
    let mut at: Option<Lsn> = None;
    Box::new(move |event, _| {
        let next = match event {
            PrepareEvent::From(lsn) => *lsn,
            PrepareEvent::Recovered(lsn, _) | PrepareEvent::EndOfLog(lsn) => *lsn,
            _ => return,
        };
        let before = at.unwrap_or(next);
        progress.advance(Phase::Prepare, next.0.saturating_sub(before.0));
        at = Some(next.max(before));
    })
}

/// Moves the files of a prepared directory into `datadir`, which is empty or missing; the directory is gone afterwards.
///
/// On the same file system files are renamed, all at once unless the datadir is a mount point. Otherwise they are copied
/// and then removed.
///
/// # Errors
/// When the directory is not prepared, the datadir is not free, or a file cannot be moved; the datadir is then as it was.
pub async fn move_back(
    target: &Path,
    datadir: &Path,
    owner: Option<Owner>,
    watch: &Watch,
) -> Result<MoveOutcome, RestoreError> {
    let begun = Instant::now();
    let (path, datadir) = (target.to_owned(), datadir.to_owned());
    let (dir, place) = blocking(move || open_prepared(&path, &datadir)).await?;
    let backup = dir.marker().backup.clone();
    let Moved { passage, datadir, files, bytes } = move_in(dir, place, owner, watch).await?;
    Ok(MoveOutcome { backup, datadir, passage, files, bytes, seconds: begun.elapsed().as_secs_f64() })
}

/// Copies the files of a prepared directory into `datadir`, which is empty or missing; the directory stays.
///
/// # Errors
/// When the directory is not prepared, the datadir is not free, there is no room, or a file cannot be copied; the datadir
/// is then as it was.
pub async fn copy_back(
    target: &Path,
    datadir: &Path,
    owner: Option<Owner>,
    watch: &Watch,
) -> Result<MoveOutcome, RestoreError> {
    let begun = Instant::now();
    let (path, datadir) = (target.to_owned(), datadir.to_owned());
    let (dir, place) = blocking(move || open_prepared(&path, &datadir)).await?;
    let backup = dir.marker().backup.clone();
    let task = watch.clone();
    warn_of_root(&place, owner, watch);
    let moved = blocking(move || copy_in(&dir, &place, owner, &task)).await?;
    let Moved { passage, datadir, files, bytes } = moved;
    Ok(MoveOutcome { backup, datadir, passage, files, bytes, seconds: begun.elapsed().as_secs_f64() })
}

/// Opens a prepared directory and looks at the datadir, which must be free.
fn open_prepared(target: &Path, datadir: &Path) -> Result<(WorkDir, Datadir), RestoreError> {
    let dir = WorkDir::open(target)?;
    let (prepared, hint) = match dir.state() {
        State::Prepared | State::Replayed => (true, ""),
        State::Fetched => (checkpoints::says_prepared(target), "run `haulout prepare` first"),
        State::Filling | State::Preparing => (false, "fetch the backup again"),
        State::Replaying => (false, "run `haulout restore` again"),
        State::Taking => (false, "run `haulout restore --reuse` again"),
        State::Moving | State::Moved => (false, "start the server"),
    };
    let Marker { partial, exported, .. } = *dir.marker();
    if partial || exported {
        let directory = dir.path().to_owned();
        return Err(if partial {
            RestoreError::SingleTables { directory }
        } else {
            RestoreError::Exported { directory }
        });
    }
    expect(&dir, State::Prepared, prepared, hint)?;
    let place = Datadir::look(datadir)?;
    let apart = !place.path().starts_with(dir.path()) && !dir.path().starts_with(place.path());
    // Where the datadir is a mount point, a restore gathers the files in it.
    if !apart && dir.path() != place.work() {
        let (work_dir, datadir) = (dir.path().to_owned(), place.path().to_owned());
        return Err(RestoreError::Entangled { work_dir, datadir });
    }
    place.check_vacant()?;
    Ok((dir, place))
}

/// Files that came into a datadir.
#[derive(Debug)]
pub(super) struct Moved {
    pub passage: Passage,
    pub datadir: PathBuf,
    pub files: u64,
    pub bytes: u64,
}

/// Moves a prepared directory into its datadir.
pub(super) async fn move_in(
    dir: WorkDir,
    place: Datadir,
    owner: Option<Owner>,
    watch: &Watch,
) -> Result<Moved, RestoreError> {
    warn_of_root(&place, owner, watch);
    let task = watch.clone();
    blocking(move || {
        let mut dir = dir;
        let datadir = place.path().to_owned();
        if let Some((files, bytes)) = rename_into(&mut dir, &place, owner, &task.cancel)? {
            forget(dir);
            return Ok(Moved { passage: Passage::Renamed, datadir, files, bytes });
        }
        let moved = copy_in(&dir, &place, owner, &task)?;
        forget(dir);
        Ok(moved)
    })
    .await
}

/// Removes what is left of a directory whose files are in the datadir; should something stay, it is in nobody's way.
fn forget(mut dir: WorkDir) {
    if dir.path().exists() {
        // For whoever finds it half removed.
        dir.end_moving(State::Moved).ok();
        dir.remove_whole().ok();
    }
}

fn copy_in(dir: &WorkDir, place: &Datadir, owner: Option<Owner>, watch: &Watch) -> Result<Moved, RestoreError> {
    let progress = watch.progress.as_ref();
    let mut copy = gather_copy(dir, place, progress, &watch.cancel)?;
    let apart = || std::io::ErrorKind::CrossesDevices.into();
    let renamed = rename_into(&mut copy, place, owner, &watch.cancel)
        .and_then(|renamed| renamed.ok_or_else(|| RestoreError::io("rename", copy.path())(apart())));
    match renamed {
        Ok((files, bytes)) => {
            forget(copy);
            Ok(Moved { passage: Passage::Copied, datadir: place.path().to_owned(), files, bytes })
        }
        // What is left says to the next run how to put it right.
        Err(error @ RestoreError::HalfMoved { .. }) => Err(error),
        Err(error) => {
            copy.remove_whole().ok();
            Err(error)
        }
    }
}

fn warn_of_root(place: &Datadir, owner: Option<Owner>, watch: &Watch) {
    let roots = place.owner(owner).is_none_or(|owner| owner.uid == 0) && rustix::process::geteuid().is_root();
    if roots {
        watch.progress.warn("the restored files belong to root: give them to the server's user before it starts");
    }
}

/// Runs what blocks where it blocks nobody.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RestoreError> + Send + 'static,
) -> Result<T, RestoreError> {
    tokio::task::spawn_blocking(work).await?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Diagnose, Kind};
    use crate::mariadb::prepare::Damage;

    #[test]
    fn damage_that_too_little_memory_can_have_made_is_told_as_such() {
        let damaged = |in_parts| -> RestoreError {
            let message = "InnoDB: Unable to apply log to corrupted page 9 in file ddl/d1.ibd".to_owned();
            PrepareError::Damaged { damage: Damage::Start, message, in_parts }.into()
        };
        let little = short_of_memory(damaged(false), Some(64 << 20), 40 << 20);
        assert_eq!(little.kind(), Kind::Failed);
        assert!(little.hint().unwrap().contains("--use-memory=120M"), "{:?}", little.hint());
        for (memory_bytes, redo_bytes) in [(Some(120 << 20), 40 << 20), (None, 40 << 20)] {
            assert_eq!(short_of_memory(damaged(false), memory_bytes, redo_bytes).kind(), Kind::Corrupt);
        }
        // Many short records take more than three times their length.
        let in_parts = short_of_memory(damaged(true), Some(64 << 20), 20 << 20);
        assert_eq!(in_parts.kind(), Kind::Failed);
        assert!(in_parts.hint().unwrap().contains("--use-memory=128M"), "{:?}", in_parts.hint());
        assert_eq!(short_of_memory(RestoreError::Interrupted, Some(1), 9).kind(), Kind::Interrupted);
    }
}
