//! A whole restore: from a backup to a datadir that a server can be started on.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::choice::TableChoice;
use super::datadir::Datadir;
use super::fetch::FetchFigures;
use super::marker::{Marker, State};
use super::plan::{RestorePlan, available_bytes, check_tool};
use super::replay::{self, ReplayOrder, Replayed};
use super::reuse::{self, Source};
use super::steps::{self, Passage, PrepareSettings, Watch, blocking};
use super::tree::{self, Owner};
use super::workdir::{Leftovers, WorkDir};
use super::{FetchOptions, RestoreError, galera, others, thaw};
use crate::format::Manifest;
use crate::mariadb::galera::GaleraState;
use crate::mariadb::tool::Tools;
use crate::model::BackupId;
use crate::repository::Repository;

/// How a backup is restored.
#[derive(Debug, Clone, Default)]
pub struct RestoreOptions {
    /// User and group of the restored files; those of the datadir, where it exists, when absent.
    pub owner: Option<Owner>,
    /// Where files are gathered, in place of the place that is chosen; it is empty or missing, and gone afterwards. On
    /// another file system than the datadir's it costs a copy.
    pub work_dir: Option<PathBuf>,
    /// Whether a datadir that is there is written over, and what is right of it left as it is; not with a `work_dir`.
    pub reuse: bool,
    /// Whether files that were fetched stay when the restore fails, so that the next run need not fetch them again.
    pub keep_fetched: bool,
    /// How files are fetched.
    pub fetch: FetchOptions,
    /// How they are prepared.
    pub prepare: PrepareSettings,
    /// Whether the datadir tells the server where it stands in its Galera cluster.
    pub galera: bool,
    /// What is replayed on the backup, where it is to become a later moment.
    pub replay: Option<ReplayOrder>,
}

/// How long the parts of a restore took.
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Serialize)]
pub struct PhaseSeconds {
    /// Reading the page map and checking the place.
    pub plan: f64,
    /// Fetching; 0 when an earlier run had done it.
    pub fetch: f64,
    /// Preparing; 0 when an earlier run had done it.
    pub prepare: f64,
    /// Replaying binary log; 0 when there was none, or an earlier run had done it.
    pub replay: f64,
    /// Moving into the datadir.
    pub move_in: f64,
}

/// What a restore did.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct RestoreOutcome {
    /// The backup.
    pub backup: BackupId,
    /// The datadir, without symbolic links.
    pub datadir: PathBuf,
    /// What fetching took; zeros when an earlier run had done it.
    #[serde(flatten)]
    pub figures: FetchFigures,
    /// Bytes of all files as the backup has them.
    pub logical_bytes: u64,
    /// What was in the datadir and the backup does not have.
    pub aside: Option<Aside>,
    /// How the files came into the datadir.
    pub passage: Passage,
    /// Where the server stands in its Galera cluster, when that was wanted and is known.
    pub galera: Option<GaleraState>,
    /// What was replayed; none when an earlier run had done it.
    pub replayed: Option<Replayed>,
    /// How long each part took.
    pub seconds: PhaseSeconds,
}

/// Files of a datadir that the backup does not have, and where they went.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Aside {
    /// The directory that they went to, or would.
    pub directory: PathBuf,
    /// Files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// What a restore into a datadir does.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct PlacedPlan {
    /// What is fetched and written.
    #[serde(flatten)]
    pub plan: RestorePlan,
    /// The datadir, without symbolic links.
    pub datadir: PathBuf,
    /// Where files are gathered.
    pub work_dir: PathBuf,
    /// Bytes that are free there.
    pub free_bytes: u64,
    /// True when that is on another file system than the datadir, so that the files are copied there in the end.
    pub copied: bool,
    /// Bytes that are there already, and would not be written.
    pub reused_bytes: u64,
    /// What would go aside.
    pub aside: Option<Aside>,
}

/// Reads the plan of a restore into `datadir`, and what of this machine is in its way: a datadir that is not free, too little room.
///
/// The tools are not looked at: whoever plans may be about to install them.
///
/// # Errors
/// When the backup's map is damaged, or the directories cannot be looked at.
pub async fn plan_restore(
    repository: &Repository,
    manifest: &Manifest,
    datadir: &Path,
    options: &RestoreOptions,
    watch: &Watch,
) -> Result<(PlacedPlan, Vec<RestoreError>), RestoreError> {
    let place = if options.reuse { reuse::place(datadir)? } else { Datadir::look(datadir)? };
    let source = if options.reuse { reuse::find(&place)? } else { Source::Nowhere };
    let free = if options.reuse { Ok(()) } else { check_free(&place) };
    let mut in_the_way: Vec<RestoreError> = free.err().into_iter().collect();
    let work_dir = work_dir(options, &place)?;
    let read = async || RestorePlan::read(repository, manifest, options.fetch, &watch.cancel).await;
    let plan = thaw::thawed(repository, manifest, None, watch, read).await?;
    if source != Source::Nowhere {
        return plan_over(repository, manifest, plan, (&place, source), options, watch).await;
    }
    let on_disk = existing_ancestor(&work_dir)?;
    let free_bytes = available_bytes(&on_disk)?;
    in_the_way.extend(plan.check_space(&on_disk, free_bytes).err());
    let copied = device(&on_disk)? != device(place.on_disk())?;
    let datadir = place.path().to_owned();
    Ok((PlacedPlan { plan, datadir, work_dir, free_bytes, copied, reused_bytes: 0, aside: None }, in_the_way))
}

/// The plan of a restore over files, which are all read for it.
async fn plan_over(
    repository: &Repository,
    manifest: &Manifest,
    mut plan: RestorePlan,
    (place, source): (&Datadir, Source),
    options: &RestoreOptions,
    watch: &Watch,
) -> Result<(PlacedPlan, Vec<RestoreError>), RestoreError> {
    let root = reuse::root(place, source);
    let mut looked = FetchFigures::default();
    if source == Source::Datadir {
        looked = reuse::check_kin(repository, manifest, &plan, (place.path(), &root), watch).await?;
    }
    let free_bytes = reuse::check_space(&plan, &root)?;
    let survey = reuse::survey(repository, manifest, &plan, &root, options.fetch, watch).await?;
    let others = others::find(&root, &plan)?;
    let (files, bytes) = others::figures(&root, &others)?;
    let aside =
        (files > 0).then(|| place.new_aside().map(|directory| Aside { directory, files, bytes })).transpose()?;
    plan.written_bytes -= survey.reused_bytes;
    plan.fetched_bytes = looked.bytes_fetched + survey.fetched_bytes;
    plan.requests = looked.requests + survey.requests;
    let (datadir, work_dir) = (place.path().to_owned(), place.work().to_owned());
    let reused_bytes = survey.reused_bytes;
    Ok((PlacedPlan { plan, datadir, work_dir, free_bytes, copied: false, reused_bytes, aside }, Vec::new()))
}

fn device(path: &Path) -> Result<u64, RestoreError> {
    Ok(std::fs::metadata(path).map_err(RestoreError::io("look at", path))?.dev())
}

/// A datadir must be free unless an earlier run has left something to be put right.
fn check_free(place: &Datadir) -> Result<(), RestoreError> {
    if place.work().symlink_metadata().is_err() { place.check_vacant() } else { Ok(()) }
}

/// Where files are gathered: apart from the datadir, which a rename could not replace otherwise.
fn work_dir(options: &RestoreOptions, place: &Datadir) -> Result<PathBuf, RestoreError> {
    let Some(given) = &options.work_dir else { return Ok(place.work().to_owned()) };
    let (work, datadir) = (tree::resolved(given)?, place.path());
    if work != place.work() && (work.starts_with(datadir) || datadir.starts_with(&work)) {
        return Err(RestoreError::Entangled { work_dir: work, datadir: datadir.to_owned() });
    }
    Ok(work)
}

fn existing_ancestor(path: &Path) -> Result<PathBuf, RestoreError> {
    let absolute = std::path::absolute(path).map_err(RestoreError::io("look at", path))?;
    Ok(absolute.ancestors().find(|ancestor| ancestor.is_dir()).unwrap_or(Path::new("/")).to_owned())
}

/// Restores a backup into `datadir`, which is empty or missing and on which no server runs.
///
/// Files are gathered in `<datadir>.haulout`, or in `<datadir>/.haulout` where the datadir is a mount point. Only when they
/// are prepared, given to their owner and durable do they come into the datadir, by one rename where that can be. So a run
/// that is killed leaves the datadir as it was, and the next one removes or uses what it left.
///
/// With `reuse` the datadir itself becomes that directory, where it holds something, and what is right in it stays.
///
/// # Errors
/// [`RestoreError::Restore`] with the reason; the datadir is then as it was. [`RestoreError::Reusing`] once it was taken over.
pub async fn restore(
    repository: &Repository,
    manifest: &Manifest,
    datadir: &Path,
    tools: &Tools,
    options: &RestoreOptions,
    watch: &Watch,
) -> Result<RestoreOutcome, RestoreError> {
    let mut left = Left::Nothing;
    let run = Run { repository, manifest, tools, options, watch };
    let result = match run.attempt(datadir, &mut left).await {
        Err(error) => Err(thaw::told(error, repository, manifest, &TableChoice::All, watch).await),
        restored => restored,
    };
    result.map_err(|source| {
        let (backup, datadir, source) = (manifest.id.clone(), datadir.to_owned(), Box::new(source));
        match left {
            Left::Taken(work_dir) => RestoreError::Reusing { backup, datadir, work_dir, source },
            Left::Kept(kept) => RestoreError::Restore { backup, datadir, kept: Some(kept), source },
            Left::Nothing => RestoreError::Restore { backup, datadir, kept: None, source },
        }
    })
}

/// What a restore that failed leaves behind.
#[derive(Debug, PartialEq, Eq)]
enum Left {
    Nothing,
    /// Files that were fetched.
    Kept(PathBuf),
    /// The files of the datadir.
    Taken(PathBuf),
}

struct Run<'a> {
    repository: &'a Repository,
    manifest: &'a Manifest,
    tools: &'a Tools,
    options: &'a RestoreOptions,
    watch: &'a Watch,
}

impl Run<'_> {
    async fn attempt(&self, datadir: &Path, left: &mut Left) -> Result<RestoreOutcome, RestoreError> {
        let Run { repository, manifest, tools, options, watch } = self;
        let begun = Instant::now();
        check_tool(&manifest.server.version, tools)?;
        let place = if options.reuse { reuse::place(datadir)? } else { Datadir::look(datadir)? };
        if !options.reuse {
            check_free(&place)?;
        }
        let source = if options.reuse { reuse::find(&place)? } else { Source::Nowhere };
        // Costs money and hours: whatever else is in the way is found before.
        let work = work_dir(options, &place)?;
        thaw::thaw(repository, manifest, &TableChoice::All, options.fetch.thaw, watch).await?;
        let plan = RestorePlan::read(repository, manifest, options.fetch, &watch.cancel).await?;
        let (place, mut dir, looked) = self.take(place, source, &work, &plan).await?;
        if dir.marker().is_taken() {
            *left = Left::Taken(work.clone());
        }
        let mut seconds = PhaseSeconds { plan: begun.elapsed().as_secs_f64(), ..PhaseSeconds::default() };
        let gathered = match place.check_vacant() {
            Ok(()) => self.gather(&plan, &mut dir, &mut seconds).await,
            Err(error) => Err(error),
        };
        let (figures, replayed) = match gathered {
            Ok((mut figures, replayed)) => {
                figures.bytes_fetched += looked.bytes_fetched;
                figures.requests += looked.requests;
                (figures, replayed)
            }
            Err(error) => {
                give_up(dir, options.keep_fetched, left).await;
                return Err(error);
            }
        };
        let (path, wanted) = (dir.path().to_owned(), options.galera);
        let galera = match blocking(move || galera::settle(&path, wanted)).await {
            Ok(galera) => galera,
            Err(error) => {
                give_up(dir, options.keep_fetched, left).await;
                return Err(error);
            }
        };
        let aside = dir.marker().reuse.as_ref().map(|reuse| reuse.aside.clone());
        let begun = Instant::now();
        let moved = steps::move_in(dir, place, options.owner, watch).await;
        seconds.move_in = begun.elapsed().as_secs_f64();
        let moved = match moved {
            Ok(moved) => moved,
            Err(error) => {
                if !matches!(error, RestoreError::HalfMoved { .. })
                    && let Ok(dir) = WorkDir::open(&work)
                {
                    give_up(dir, options.keep_fetched, left).await;
                }
                return Err(error);
            }
        };
        let (backup, logical_bytes) = (manifest.id.clone(), plan.logical_bytes);
        let steps::Moved { passage, datadir, .. } = moved;
        let aside = aside.filter(|aside| aside.is_dir());
        let aside = aside.map(|directory| {
            let (files, bytes) = tree::figures(&directory, |_| false)?;
            Ok::<_, RestoreError>(Aside { directory, files, bytes })
        });
        // The restore is done, whatever can be told of them.
        let aside = aside.and_then(Result::ok);
        Ok(RestoreOutcome { backup, datadir, figures, logical_bytes, aside, passage, galera, replayed, seconds })
    }

    /// Takes the directory in which files are gathered, which may be the datadir; tells what looking at that took.
    async fn take(
        &self,
        mut place: Datadir,
        source: Source,
        work: &Path,
        plan: &RestorePlan,
    ) -> Result<(Datadir, WorkDir, FetchFigures), RestoreError> {
        let Run { repository, manifest, options, watch, .. } = self;
        let (work, mut marker) = (work.to_owned(), Marker::filling(manifest));
        if let Some(order) = &options.replay {
            marker = marker.replayed_to(order.plan.identity());
        }
        if source == Source::Nowhere {
            let dir = blocking(move || WorkDir::take(&work, marker, Leftovers::Use)).await?;
            if dir.marker().is_taken() {
                place.inherit(dir.path())?;
            }
            return Ok((place, dir, FetchFigures::default()));
        }
        let root = reuse::root(&place, source);
        let mut looked = FetchFigures::default();
        if source == Source::Datadir {
            looked = reuse::check_kin(repository, manifest, plan, (place.path(), &root), watch).await?;
        }
        reuse::check_space(plan, &root)?;
        watch.cancel.check()?;
        blocking(move || {
            let dir = reuse::take(&mut place, source, marker)?;
            Ok((place, dir, looked))
        })
        .await
    }

    /// Fills and prepares the directory and replays what is to be replayed, as far as an earlier run had not.
    async fn gather(
        &self,
        plan: &RestorePlan,
        dir: &mut WorkDir,
        seconds: &mut PhaseSeconds,
    ) -> Result<(FetchFigures, Option<Replayed>), RestoreError> {
        let Run { repository, manifest, tools, options, watch } = self;
        let mut figures = FetchFigures::default();
        if dir.state() == State::Filling {
            let begun = Instant::now();
            figures = steps::fill(repository, manifest, &TableChoice::All, plan, dir, options.fetch, watch).await?;
            seconds.fetch = begun.elapsed().as_secs_f64();
        } else {
            let (state, path) = (dir.state().name(), dir.path());
            watch.progress.note(&format!("going on with what an earlier run left {state} in {path:?}"));
        }
        if dir.state() == State::Fetched {
            let begun = Instant::now();
            steps::run_prepare(dir, tools, &options.prepare, watch).await?;
            seconds.prepare = begun.elapsed().as_secs_f64();
        }
        let mut replayed = None;
        if let (State::Prepared, Some(order)) = (dir.state(), &options.replay) {
            let memory_bytes = options.prepare.memory_bytes;
            let done = replay::replay(repository, dir, order, tools, memory_bytes, watch).await?;
            seconds.replay = done.seconds;
            replayed = Some(done);
        }
        Ok((figures, replayed))
    }
}

/// Leaves what was there before, and what is whole when it should be kept, and removes it otherwise.
async fn give_up(dir: WorkDir, keep: bool, left: &mut Left) {
    if dir.marker().is_taken() {
        return;
    }
    if keep && matches!(dir.state(), State::Fetched | State::Prepared | State::Replayed) {
        *left = Left::Kept(dir.path().to_owned());
        return;
    }
    // Should files stay, the next restore removes them; the first error tells more.
    blocking(move || dir.remove_whole()).await.ok();
}
