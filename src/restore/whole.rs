//! A whole restore: from a backup to a datadir that a server can be started on.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::choice::TableChoice;
use super::datadir::Datadir;
use super::fetch::FetchFigures;
use super::marker::{Marker, State};
use super::plan::{RestorePlan, available_bytes, check_tool};
use super::steps::{self, Passage, PrepareSettings, Watch, blocking};
use super::tree::{self, Owner};
use super::workdir::{Leftovers, WorkDir};
use super::{FetchOptions, RestoreError, galera};
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
    /// Whether files that were fetched stay when the restore fails, so that the next run need not fetch them again.
    pub keep_fetched: bool,
    /// How files are fetched.
    pub fetch: FetchOptions,
    /// How they are prepared.
    pub prepare: PrepareSettings,
    /// Whether the datadir tells the server where it stands in its Galera cluster.
    pub galera: bool,
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
    /// How the files came into the datadir.
    pub passage: Passage,
    /// Where the server stands in its Galera cluster, when that was wanted and is known.
    pub galera: Option<GaleraState>,
    /// How long each part took.
    pub seconds: PhaseSeconds,
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
    let place = Datadir::look(datadir)?;
    let mut in_the_way: Vec<RestoreError> = check_free(&place).err().into_iter().collect();
    let work_dir = work_dir(options, &place)?;
    let plan = RestorePlan::read(repository, manifest, options.fetch, &watch.cancel).await?;
    let on_disk = existing_ancestor(&work_dir)?;
    let free_bytes = available_bytes(&on_disk)?;
    in_the_way.extend(plan.check_space(&on_disk, free_bytes).err());
    let copied = device(&on_disk)? != device(place.on_disk())?;
    Ok((PlacedPlan { plan, datadir: place.path().to_owned(), work_dir, free_bytes, copied }, in_the_way))
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
/// # Errors
/// [`RestoreError::Restore`] with the reason; the datadir is then as it was.
pub async fn restore(
    repository: &Repository,
    manifest: &Manifest,
    datadir: &Path,
    tools: &Tools,
    options: &RestoreOptions,
    watch: &Watch,
) -> Result<RestoreOutcome, RestoreError> {
    let mut kept = None;
    let run = Run { repository, manifest, tools, options, watch };
    let result = run.attempt(datadir, &mut kept).await;
    result.map_err(|source| RestoreError::Restore {
        backup: manifest.id.clone(),
        datadir: datadir.to_owned(),
        kept,
        source: Box::new(source),
    })
}

struct Run<'a> {
    repository: &'a Repository,
    manifest: &'a Manifest,
    tools: &'a Tools,
    options: &'a RestoreOptions,
    watch: &'a Watch,
}

impl Run<'_> {
    async fn attempt(&self, datadir: &Path, kept: &mut Option<PathBuf>) -> Result<RestoreOutcome, RestoreError> {
        let Run { repository, manifest, tools, options, watch } = self;
        let begun = Instant::now();
        check_tool(&manifest.server.version, tools)?;
        let place = Datadir::look(datadir)?;
        check_free(&place)?;
        let plan = RestorePlan::read(repository, manifest, options.fetch, &watch.cancel).await?;
        let work = work_dir(options, &place)?;
        let (work_dir, marker) = (work.clone(), Marker::filling(manifest));
        let mut dir = blocking(move || WorkDir::take(&work_dir, marker, Leftovers::Use)).await?;
        let mut seconds = PhaseSeconds { plan: begun.elapsed().as_secs_f64(), ..PhaseSeconds::default() };
        let gathered = match place.check_vacant() {
            Ok(()) => self.gather(&plan, &mut dir, &mut seconds).await,
            Err(error) => Err(error),
        };
        let figures = match gathered {
            Ok(figures) => figures,
            Err(error) => {
                *kept = give_up(dir, options.keep_fetched).await;
                return Err(error);
            }
        };
        let (path, wanted) = (dir.path().to_owned(), options.galera);
        let galera = match blocking(move || galera::settle(&path, wanted)).await {
            Ok(galera) => galera,
            Err(error) => {
                *kept = give_up(dir, options.keep_fetched).await;
                return Err(error);
            }
        };
        let begun = Instant::now();
        let moved = steps::move_in(dir, place, options.owner, watch).await;
        seconds.move_in = begun.elapsed().as_secs_f64();
        let moved = match moved {
            Ok(moved) => moved,
            Err(error) => {
                if !matches!(error, RestoreError::HalfMoved { .. })
                    && let Ok(dir) = WorkDir::open(&work)
                {
                    *kept = give_up(dir, options.keep_fetched).await;
                }
                return Err(error);
            }
        };
        let (backup, logical_bytes) = (manifest.id.clone(), plan.logical_bytes);
        let steps::Moved { passage, datadir, .. } = moved;
        Ok(RestoreOutcome { backup, datadir, figures, logical_bytes, passage, galera, seconds })
    }

    /// Fills and prepares the directory, as far as an earlier run had not.
    async fn gather(
        &self,
        plan: &RestorePlan,
        dir: &mut WorkDir,
        seconds: &mut PhaseSeconds,
    ) -> Result<FetchFigures, RestoreError> {
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
        Ok(figures)
    }
}

/// Leaves what is whole when it should be kept, and removes it otherwise.
async fn give_up(dir: WorkDir, keep: bool) -> Option<PathBuf> {
    if keep && matches!(dir.state(), State::Fetched | State::Prepared) {
        return Some(dir.path().to_owned());
    }
    // Should files stay, the next restore removes them; the first error tells more.
    blocking(move || dir.remove_whole()).await.ok();
    None
}
