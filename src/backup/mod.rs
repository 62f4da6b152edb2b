//! Takes a backup: chooses its kind, captures the server as the tool's stream flows, and commits a manifest.
//!
//! ```text
//! tool ──stream──► parser ──jobs──► workers (check, hash, compare, compress) ──► assembler ──packs──► uploads
//! ```
//! The parser never waits for a worker or an upload as long as there is room in memory and in the spool; the assembler takes
//! results in the order of the stream. Memory is bounded by the row of jobs, by the packs on their way, and by some 300
//! bytes for each table.

mod altered;
mod anew;
mod assemble;
mod base;
mod capture;
mod choose;
mod collect;
mod drafts;
mod error;
mod lag;
mod locks;
#[cfg(test)]
mod made_up;
mod mappack;
mod merge;
mod resolve;
mod salvage;
mod slots;
mod source;
mod stash;
mod swept;
#[cfg(test)]
mod tests;
mod timeline;
mod upload;
mod work;
mod write_map;

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{Mutex, watch};
use tokio::task::spawn_blocking;

pub use error::{BackupError, Obstacle};
pub use source::{Capture, Finished, MariadbBackup, Source, SourceError, Survey, check_engines, check_layout};
pub use stash::Stash;
pub use upload::SpoolOptions;

use crate::format::map::PackRef;
use crate::format::{BackupKind, GtidPosition, Manifest, RedoFormat, Server, Sizes, StoredBlock};
use crate::mariadb::messages::Remedy;
use crate::mariadb::redo;
use crate::model::{BackupId, Clock, Entropy, PackId, Phase, Progress, Timestamp};
use crate::repository::{LeaseGuard, Repository, RepositoryError};
use base::Base;
use capture::{Brake, Captured, Order};
use upload::Uploader;

/// Captures tried in one run: the first, one more after a fault that passes, and a full when an incremental is found unsafe.
const ATTEMPTS_MAX: u32 = 3;

/// Pause between two looks at a sweep that goes on: sweeps take seconds to minutes.
pub const SWEEP_PAUSE: Duration = Duration::from_secs(2);

/// What kind of backup is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// An incremental where that is safe, else a full.
    Either,
    /// A full.
    Full,
    /// An incremental, or an error.
    Incremental,
}

/// How a backup is taken.
#[derive(Debug, Clone)]
pub struct BackupOptions {
    /// What kind is wanted.
    pub want: Want,
    /// zstd level, 1 to 19.
    pub compression_level: i32,
    /// Threads that check, hash and compress.
    pub workers: usize,
    /// Packs uploaded at the same time.
    pub uploads_max: usize,
    /// Where packs wait that cannot be uploaded yet.
    pub spool: SpoolOptions,
    /// Incrementals on one full, after which the next is a full.
    pub depth_max: u32,
    /// Words that the operator gives the backup.
    pub tags: Vec<String>,
    /// Pause between two looks at a sweep that goes on, for which the commit waits.
    pub sweep_pause: Duration,
}

/// What a run works with.
#[derive(Clone)]
pub struct Context {
    /// Where the backup goes.
    pub repository: Arc<Repository>,
    /// Wall clock.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// Who watches.
    pub progress: Arc<dyn Progress>,
    /// Becomes true when the run should end.
    pub cancel: watch::Receiver<bool>,
}

/// A backup that was committed.
#[derive(Debug, Clone)]
pub struct BackupOutcome {
    /// Its manifest.
    pub manifest: Manifest,
    /// Pages whose checksum cannot be checked without keys or that have none.
    pub unverifiable_pages: u64,
    /// Where the manifest lies.
    pub key: String,
    /// Directory of the spool, where there is one.
    pub spool: Option<PathBuf>,
    /// Why what it needs is not locked as it should be.
    pub lock_warning: Option<String>,
}

/// Names of the system tablespace's files in `innodb_data_file_path`: `path:size[:autoextend[:max:size]]`, many with `;`.
fn system_files(data_file_path: &str) -> Vec<String> {
    let name = |file: &str| file.split(':').next().filter(|name| !name.is_empty()).map(str::to_owned);
    data_file_path.split(';').filter_map(name).collect()
}

/// Takes a backup of what `source` gives and commits it.
///
/// # Errors
/// Whatever goes wrong; then no manifest was written, and the repository is as it was but for packs that nobody needs.
pub async fn backup(
    context: &Context,
    source: Arc<dyn Source>,
    options: &BackupOptions,
) -> Result<BackupOutcome, BackupError> {
    let repository = &context.repository;
    repository.needs_data_key()?;
    // The server is asked while the store is.
    let survey = spawn_survey(context, &source);
    let lease = repository.lease("backup", &*context.entropy).await?;
    let taken = lease.taken();
    let lease = Arc::new(Mutex::new(lease));
    let renewal = {
        let (context, lease) = (context.clone(), lease.clone());
        tokio::spawn(async move { context.repository.keep_renewed(&lease, &*context.progress).await })
    };
    let outcome = run(context, source, survey, options, (&lease, taken)).await;
    renewal.abort();
    repository.give_back(&lease, &*context.progress).await;
    outcome
}

type Surveying = tokio::task::JoinHandle<Result<Survey, SourceError>>;

fn spawn_survey(context: &Context, source: &Arc<dyn Source>) -> Surveying {
    let (source, progress) = (source.clone(), context.progress.clone());
    spawn_blocking(move || source.survey(&*progress))
}

/// A decision, and what it stands on.
struct Choice {
    kind: BackupKind,
    reason: String,
    base: Option<Arc<Base>>,
}

async fn run(
    context: &Context,
    source: Arc<dyn Source>,
    survey: Surveying,
    options: &BackupOptions,
    (lease, taken): (&Arc<Mutex<LeaseGuard>>, Option<Timestamp>),
) -> Result<BackupOutcome, BackupError> {
    let started = context.clock.now().whole_seconds();
    let uploader = Arc::new(Uploader::new(
        context.repository.clone(),
        context.progress.clone(),
        options.spool.clone(),
        options.uploads_max,
        tokio::runtime::Handle::current(),
    )?);
    let (survey, newest) = tokio::join!(survey, unless_cancelled(context, newest(context, &uploader)));
    let (mut survey, newest) = (joined(survey)??, newest??);
    let id = BackupId::following(newest.id.as_ref(), started, &*context.entropy);
    let strays = unless_cancelled(context, salvage(context, &newest, &uploader)).await??;
    if !strays.is_empty() {
        // That can have taken minutes.
        survey = joined(spawn_survey(context, &source).await)??;
    }
    let base_stored = newest.stored;
    let mut choice = unless_cancelled(context, choose(newest, &source, &survey, options)).await??;
    if let Some(base) = choice.base.as_ref().filter(|_| choice.kind == BackupKind::Incremental) {
        context.progress.note(&format!("incremental on {}: {}", base.manifest.id, choice.reason));
    } else {
        context.progress.note(&format!("full: {}", choice.reason));
    }
    // What is lost from here on is more than a few requests; packs wait in the spool meanwhile.
    context.repository.store().hold_out();
    let mut attempt = 1;
    let captured = loop {
        let order = order(context, &source, &uploader, &survey, &choice, options);
        let error = match captured(context, order, &uploader).await {
            Ok(captured) => break captured,
            Err(error) => error,
        };
        let again = match &error {
            BackupError::NeedsFull(obstacle) => {
                let incremental = choice.kind == BackupKind::Incremental;
                let during = matches!(obstacle, Obstacle::ReplacedDuring { .. });
                (incremental && options.want != Want::Incremental) || (!incremental && during)
            }
            BackupError::Source(error) => error.remedy() == Remedy::Retry,
            BackupError::TablesAltered { .. } | BackupError::Binlogged { .. } => true,
            BackupError::Unopened { linked, .. } => !linked,
            // A table that was imported shortly before, or that got another name just while the tool looked which there are.
            BackupError::LeftOut { .. } => true,
            // A table that was made shortly before, if the redo log hides what it writes.
            BackupError::Blank { .. } => true,
            _ => false,
        };
        attempt += 1;
        if !again || attempt > ATTEMPTS_MAX || *context.cancel.borrow() {
            return Err(error);
        }
        // As long as the redo log begins before a DISCARD TABLESPACE, the tool takes the table for dropped, even if another
        // file was imported since. And behind a checkpoint, every table has its first page. Whatever the capture failed for, this may
        // have happened, too.
        let by_checkpoint = !matches!(error, BackupError::Source(_));
        match error {
            BackupError::NeedsFull(obstacle) => {
                context.progress.warn(&format!("taking a full backup instead: {obstacle}"));
                choice = Choice { kind: BackupKind::Full, reason: obstacle.to_string(), base: choice.base };
            }
            error => context.progress.warn(&format!("trying again: {error}")),
        }
        if by_checkpoint {
            let source = source.clone();
            if !joined(spawn_blocking(move || source.checkpoint()).await)? {
                let note = "the server made no checkpoint: the account may not set innodb_log_checkpoint_now";
                context.progress.note(note);
            }
        }
        survey = joined(spawn_survey(context, &source).await)??;
    };
    context.progress.begin(Phase::Upload, None);
    // Whatever begins to be swept from here on is put off, because this run is at work.
    let (finished, plans) =
        unless_cancelled(context, async { tokio::join!(uploader.finish(), swept::plans(context, taken)) }).await?;
    finished?;
    let plans = plans?;
    context.progress.end(Phase::Upload);
    let parent = choice.base.as_ref().filter(|_| choice.kind == BackupKind::Incremental);
    let unverifiable_pages = captured.unverifiable_pages;
    let uploaded_packs = uploader.uploaded_packs.load(Ordering::SeqCst);
    let mut manifest = manifest(context, captured, &survey, &choice, (id, started), uploaded_packs);
    manifest.tags.clone_from(&options.tags);
    let shared = locks::Shared { base: choice.base.as_deref(), base_stored, strays };
    // On the heap: the compiler lays futures out only so many deep.
    let securing = Box::pin(locks::secure(context, &manifest, &shared, &uploader));
    let secured = unless_cancelled(context, securing).await??;
    manifest.locked_until = secured.until;
    manifest.warnings.extend(secured.warning.clone());
    unless_cancelled(context, swept::check(context, &manifest, lease, &plans, options.sweep_pause)).await??;
    if *context.cancel.borrow() {
        return Err(BackupError::Interrupted);
    }
    context.repository.commit(&manifest, parent.map(|parent| &parent.manifest)).await?;
    let key = format!("backups/{}.json", manifest.id);
    let spool = (options.spool.bytes_max > 0).then(|| options.spool.directory.clone());
    Ok(BackupOutcome { manifest, unverifiable_pages, key, spool, lock_warning: secured.warning })
}

/// What the next backup would be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preview {
    /// Full or incremental.
    pub kind: BackupKind,
    /// Why.
    pub reason: String,
    /// The backup that an incremental would build on.
    pub parent: Option<BackupId>,
}

/// Tells what the next backup of `source` would be, without taking it or writing anything.
///
/// # Errors
/// What would also stop the backup before its capture begins.
pub async fn preview(context: &Context, source: Arc<dyn Source>, want: Want) -> Result<Preview, BackupError> {
    let no_spool = SpoolOptions { directory: PathBuf::new(), bytes_max: 0 };
    let (repository, progress) = (context.repository.clone(), context.progress.clone());
    let uploader = Uploader::new(repository, progress, no_spool.clone(), 1, tokio::runtime::Handle::current())?;
    let options = BackupOptions {
        want,
        compression_level: 1,
        workers: 1,
        uploads_max: 1,
        spool: no_spool,
        depth_max: u32::MAX,
        tags: Vec::new(),
        sweep_pause: SWEEP_PAUSE,
    };
    let uploader = Arc::new(uploader);
    let (survey, newest) = tokio::join!(spawn_survey(context, &source), newest(context, &uploader));
    let choice = choose(newest?, &source, &joined(survey)??, &options).await?;
    let Choice { mut kind, mut reason, base } = choice;
    if let Some(base) = base.clone().filter(|_| kind == BackupKind::Incremental)
        && let Some(obstacle) = joined(spawn_blocking(move || base.find_loss(&AtomicBool::new(false))).await)??
    {
        if want == Want::Incremental {
            return Err(BackupError::NeedsFull(obstacle));
        }
        (kind, reason) = (BackupKind::Full, obstacle.to_string());
    }
    let parent = base.filter(|_| kind == BackupKind::Incremental).map(|base| base.manifest.id.clone());
    Ok(Preview { kind, reason, parent })
}

/// What `work` gives, unless a signal comes first.
async fn unless_cancelled<T>(context: &Context, work: impl Future<Output = T>) -> Result<T, BackupError> {
    let mut cancel = context.cancel.clone();
    tokio::select! {
        result = work => Ok(result),
        Ok(_) = cancel.wait_for(|cancel| *cancel) => Err(BackupError::Interrupted),
    }
}

/// A panic in a thread of ours is a bug that must not look like success.
fn joined<T>(result: Result<T, tokio::task::JoinError>) -> Result<T, BackupError> {
    result.map_err(|_| BackupError::Abandoned)
}

fn order(
    context: &Context,
    source: &Arc<dyn Source>,
    uploader: &Arc<Uploader>,
    survey: &Survey,
    choice: &Choice,
    options: &BackupOptions,
) -> Order {
    Order {
        source: source.clone(),
        stash: uploader.clone(),
        namer: context.repository.namer().clone(),
        survey: survey.clone(),
        base: choice.base.clone(),
        incremental: choice.kind == BackupKind::Incremental,
        compression_level: options.compression_level,
        workers: options.workers,
        progress: context.progress.clone(),
        cancelled: Arc::new(AtomicBool::new(false)),
    }
}

/// Runs a capture in threads of its own and ends it on a signal, when an upload has failed for good, or when the parent of
/// an incremental turns out to have lost something, which is looked for meanwhile.
async fn captured(context: &Context, order: Order, uploader: &Uploader) -> Result<Captured, BackupError> {
    let brake = Arc::new(Brake::default());
    let cancelled = order.cancelled.clone();
    let enough = Arc::new(AtomicBool::new(false));
    let parent = order.base.clone().filter(|_| order.incremental);
    let mut look = {
        let enough = enough.clone();
        spawn_blocking(move || parent.map_or(Ok(None), |parent| parent.find_loss(&enough)))
    };
    let mut work = {
        let brake = brake.clone();
        spawn_blocking(move || capture::capture(&order, &brake))
    };
    let mut cancel = context.cancel.clone();
    let mut looking = true;
    let mut lost = Ok(());
    let result = loop {
        tokio::select! {
            result = &mut work => break result,
            found = &mut look, if looking => {
                looking = false;
                lost = nothing_lost(found);
                if lost.is_ok() {
                    continue;
                }
            }
            _ = cancel.wait_for(|cancel| *cancel) => {
                cancelled.store(true, Ordering::SeqCst);
                // The capture may be waiting for a store that does not answer.
                uploader.stop();
            }
            () = uploader.failed() => {}
        }
        brake.pull();
        break (&mut work).await;
    };
    let result = joined(result)?;
    enough.store(result.is_err(), Ordering::SeqCst);
    if result.is_err() {
        // An upload's failure says more than the end of the child that followed from it, unless the capture took it along.
        match uploader.failure() {
            Ok(()) | Err(BackupError::Abandoned) => {}
            Err(error) => return Err(error),
        }
    }
    if looking && result.is_ok() {
        lost = unless_cancelled(context, look).await.and_then(nothing_lost);
    }
    lost?;
    result
}

fn nothing_lost(
    found: Result<Result<Option<Obstacle>, BackupError>, tokio::task::JoinError>,
) -> Result<(), BackupError> {
    match joined(found)?? {
        None => Ok(()),
        Some(obstacle) => Err(BackupError::NeedsFull(obstacle)),
    }
}

/// The newest backup, which the next is compared with.
#[derive(Default)]
struct Newest {
    id: Option<BackupId>,
    /// When its manifest was stored.
    stored: Option<Timestamp>,
    base: Option<Arc<Base>>,
    /// Why there is no base.
    obstacle: Option<Obstacle>,
}

async fn newest(context: &Context, uploader: &Arc<Uploader>) -> Result<Newest, BackupError> {
    let (backups, known) = tokio::try_join!(context.repository.backups_stored(), context.repository.known_damage())?;
    for (list, problem) in known.unread {
        context.progress.warn(&format!(
            "which packs damage/{list}.json names is not known, and the backup may rest on them: {problem}; run `haulout check \
             --read-data --repair`"
        ));
    }
    if known.more > 0 {
        let more = known.more;
        context.progress.warn(&format!(
            "{more} damaged packs are not named, and the backup may rest on them: check again afterwards"
        ));
    }
    let damaged: HashSet<PackId> = known.packs.into_iter().collect();
    uploader.know_damaged(damaged.clone());
    let Some((id, stored)) = backups.into_iter().next_back() else {
        return Ok(Newest { obstacle: Some(Obstacle::First), ..Newest::default() });
    };
    match load_base(context, &id, damaged, uploader).await {
        Ok(base) => Ok(Newest { id: Some(id), stored: Some(stored), base: Some(Arc::new(base)), obstacle: None }),
        Err(BackupError::Repository(RepositoryError::Store(error))) => Err(RepositoryError::Store(error).into()),
        Err(error) => {
            let obstacle = Obstacle::ParentUnreadable { id: id.clone(), reason: chain(&error) };
            Ok(Newest { id: Some(id), stored: Some(stored), base: None, obstacle: Some(obstacle) })
        }
    }
}

/// Finds out what a run has stored that died since the newest backup: its packs, and when they were stored.
async fn salvage(
    context: &Context,
    newest: &Newest,
    uploader: &Uploader,
) -> Result<Vec<(PackId, Timestamp)>, BackupError> {
    let listed;
    let packs = match &newest.base {
        Some(base) => &base.packs,
        None => {
            listed = context.repository.packs().await?;
            &listed
        }
    };
    let mut strays = salvage::strays(packs.iter(), newest.stored);
    strays.retain(|pack| !uploader.is_damaged(&pack.id));
    if strays.is_empty() {
        return Ok(Vec::new());
    }
    let bytes = uploader.salvage.read(&context.repository, &strays).await?;
    context.progress.note(&format!(
        "{} packs are newer than the newest backup, as a run leaves them that did not end, or a compaction: of {} MiB nothing that is \
         still as it was is uploaded again",
        strays.len(),
        bytes >> 20
    ));
    let stored = |pack: &PackRef| Some((pack.id, packs.get(&pack.id)?.stored));
    Ok(strays.iter().filter_map(stored).collect())
}

async fn choose(
    Newest { base, mut obstacle, .. }: Newest,
    source: &Arc<dyn Source>,
    survey: &Survey,
    options: &BackupOptions,
) -> Result<Choice, BackupError> {
    if options.want != Want::Full
        && let Some(base) = &base
    {
        obstacle = choose::compare(&base.manifest, survey, options.depth_max).err();
        if obstacle.is_none() {
            let (base, source, survey) = (base.clone(), source.clone(), survey.clone());
            let compared = spawn_blocking(move || choose::compare_files(&base, &survey, &*source));
            obstacle = joined(compared.await)?.err();
        }
        // Else looked for while the capture runs; here it is likely to be found.
        if obstacle.is_none() && base.knows_damage() {
            let base = base.clone();
            obstacle = joined(spawn_blocking(move || base.find_loss(&AtomicBool::new(false))).await)??;
        }
    }
    if options.want != Want::Full && obstacle.is_none() {
        let reason = "nothing speaks against it".to_owned();
        return Ok(Choice { kind: BackupKind::Incremental, reason, base });
    }
    match obstacle {
        Some(obstacle) if options.want == Want::Incremental => Err(BackupError::NeedsFull(obstacle)),
        obstacle => {
            let obstacle = obstacle.filter(|_| options.want != Want::Full);
            Ok(Choice { kind: BackupKind::Full, reason: choose::full_reason(options.want, obstacle.as_ref()), base })
        }
    }
}

/// An error and its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

async fn load_base(
    context: &Context,
    id: &BackupId,
    damaged: HashSet<PackId>,
    uploader: &Arc<Uploader>,
) -> Result<Base, BackupError> {
    let repository = &context.repository;
    let manifest = repository.manifest(id).await?;
    let root = repository.map_root(&manifest).await?;
    let (spaces, files, packs) =
        tokio::try_join!(repository.map_spaces(&root), repository.map_files(&root), repository.packs())?;
    Ok(Base::new(manifest, root, spaces, files, packs, damaged, uploader.clone()))
}

fn manifest(
    context: &Context,
    captured: Captured,
    survey: &Survey,
    choice: &Choice,
    (id, started): (BackupId, Timestamp),
    uploaded_packs: u64,
) -> Manifest {
    let facts = &survey.facts;
    let parent = choice.base.as_ref().filter(|_| choice.kind == BackupKind::Incremental);
    let walk = &survey.walk;
    let schemas = walk.exceptions.iter().filter(|(path, _)| walk.datadir.join(path).is_dir());
    Manifest {
        repository_id: context.repository.config().repository_id,
        id,
        edition: 0,
        kind: choice.kind,
        reason: choice.reason.clone(),
        tags: Vec::new(),
        parent: parent.map(|parent| parent.manifest.id.clone()),
        depth: parent.map_or(0, |parent| parent.manifest.depth + 1),
        started,
        // Clocks can be set back while a backup runs.
        finished: context.clock.now().whole_seconds().max(started),
        haulout_version: env!("CARGO_PKG_VERSION").to_owned(),
        tool_version: survey.tool_version.clone(),
        server: Server {
            version: facts.version.to_string(),
            hostname: facts.hostname.clone(),
            server_id: u32::try_from(facts.server_id).unwrap_or_default(),
            datadir: facts.datadir.display().to_string(),
            page_size: facts.innodb.page_size.into(),
            data_file_path: facts.innodb.data_file_path.clone(),
            undo_tablespaces: facts.innodb.undo_tablespaces,
            system_file: choose::system_file(survey).map(Into::into),
            datadir_mode: Some(walk.root.mode),
            directory_mode: Some(walk.directories.mode),
            directory_modes: schemas.map(|(path, owner)| (path.clone(), owner.mode)).collect(),
            galera: Some(facts.galera),
        },
        lsn: captured.lsn,
        redo: RedoFormat {
            creator: captured.redo.creator,
            encrypted: captured.redo.format != redo::RedoFormat::Plain,
            bytes: captured.lsn.last.0.saturating_sub(captured.lsn.start.0),
        },
        position: captured.position.map_or_else(GtidPosition::default, |position| GtidPosition {
            file: Some(position.file),
            position: Some(position.position),
            gtid: position.gtid,
        }),
        timeline: captured.timeline,
        filters: Vec::new(),
        sizes: Sizes {
            logical_bytes: captured.totals.logical_bytes,
            stream_bytes: captured.stream.bytes,
            uploaded_bytes: captured.uploaded_bytes,
            stored_bytes: captured.totals.stored_bytes,
            uploaded_packs,
        },
        spaces: captured.totals.spaces,
        files: captured.totals.files,
        warnings: captured.report.warnings,
        locked_until: None,
        map: StoredBlock::from(captured.root),
    }
}
