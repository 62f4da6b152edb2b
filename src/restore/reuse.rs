//! Restores over a datadir that holds much of the backup already.
//!
//! ```text
//! no server? ─► much alike? ─► room? ─► the datadir becomes the work directory ─► others aside ─► compare, fetch ─► as any restore
//! ```
//! The datadir is written over in place, because whoever has a broken replica of terabytes seldom has room for it twice. So
//! it stops being a datadir before its first byte is changed: by one rename it becomes the work directory, in which the marker
//! says what it is, and under its own name there is nothing that a server could be started on. From there on it is in the
//! states of any restore, and comes back by the same rename. A run that dies leaves the work directory, and the next one
//! compares it anew: what it believes is hashes, and nothing that the run before may have noted.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::catalogue;
use super::compare::{Compared, Comparison};
use super::datadir::Datadir;
use super::fetch::{FetchFigures, Windows};
use super::marker::{Marker, Reuse, State};
use super::others;
use super::plan::{RestorePlan, available_bytes};
use super::steps::Watch;
use super::walk::Walk;
use super::window::Window;
use super::workdir::{Leftovers, WorkDir, rename_to_nothing, undo};
use super::{FetchOptions, RestoreError, TableChoice};
use crate::format::Manifest;
use crate::mariadb::datadir::{DatadirError, server_runs_on};
use crate::model::{PackId, Phase};
use crate::repository::{Repository, RepositoryError, StoredPack};

/// Pieces that are looked at to tell whether a datadir holds anything of the backup: 64 MiB at the most, in a moment.
const SAMPLE_PIECES: u64 = 64;
/// At least one in so many of them must be there. A datadir that holds less is another server's, for all that can be told,
/// or so old that fetching everything takes no longer.
const KIN_SHARE: u64 = 16;

/// Where there is something to be reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// Nowhere.
    Nowhere,
    /// In the datadir.
    Datadir,
    /// In the work directory, where an earlier run left it.
    Work,
}

/// The place of `datadir`; of a link to a datadir that was taken over, and so leads nowhere, that of the datadir.
///
/// # Errors
/// When it cannot be looked at.
pub(super) fn place(datadir: &Path) -> Result<Datadir, RestoreError> {
    let missing = fs::metadata(datadir).is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
    if missing
        && let Ok(target) = fs::read_link(datadir)
        && let Ok(place) = Datadir::look(&datadir.parent().unwrap_or(Path::new("")).join(target))
        && Marker::read(place.work())?.is_some_and(|marker| marker.is_taken())
    {
        return Ok(place);
    }
    Datadir::look(datadir)
}

/// Looks where there is something to be reused.
///
/// # Errors
/// When a server runs on the datadir, or both it and the work directory hold what may be somebody's.
pub(super) fn find(place: &Datadir) -> Result<Source, RestoreError> {
    check_unused(place, place.path())?;
    let marker = Marker::read(place.work())?;
    let vacant = match place.check_vacant() {
        Ok(()) => true,
        Err(RestoreError::Datadir(DatadirError::NotEmpty { .. })) => false,
        Err(error) => return Err(error),
    };
    match (vacant, marker) {
        (true, None) => Ok(Source::Nowhere),
        (true, Some(_)) => Ok(Source::Work),
        // What has left the one and not come to the other is put right first.
        (false, Some(marker)) if marker.state == State::Taking || marker.moving.is_some() => Ok(Source::Work),
        (false, Some(marker)) if marker.is_taken() && marker.state != State::Moved => Err(both(place)),
        (false, _) => Ok(Source::Datadir),
    }
}

fn both(place: &Datadir) -> RestoreError {
    RestoreError::BothThere { datadir: place.path().to_owned(), work_dir: place.work().to_owned() }
}

fn check_unused(place: &Datadir, path: &Path) -> Result<(), RestoreError> {
    match server_runs_on(path)? {
        Some(evidence) => Err(DatadirError::InUse { datadir: place.path().to_owned(), evidence }.into()),
        None => Ok(()),
    }
}

/// Makes what is at `source` the work directory, which is then to be filled or further.
///
/// # Errors
/// When a server runs there, somebody else works there, or something cannot be moved; the datadir is then as it was.
pub(super) fn take(place: &mut Datadir, source: Source, wanted: Marker) -> Result<WorkDir, RestoreError> {
    if source == Source::Work {
        let mut dir = WorkDir::take(place.work(), wanted, Leftovers::Reuse)?;
        if dir.state() == State::Taking {
            dir = take_entries(place, dir)?;
        }
        if dir.marker().is_taken() {
            place.inherit(dir.path())?;
        }
        return Ok(dir);
    }
    if place.work().symlink_metadata().is_ok() {
        // What an ordinary restore left.
        WorkDir::take(place.work(), wanted.clone(), Leftovers::Remove)?.remove_whole()?;
    }
    let mut wanted = wanted.over(Reuse { taken: true, aside: place.new_aside()? });
    if place.is_inside() {
        wanted.state = State::Taking;
        let dir = WorkDir::take(place.work(), wanted, Leftovers::Remove)?;
        return take_entries(place, dir);
    }
    check_unused(place, place.path())?;
    let datadir = place.path().to_owned();
    place.inherit(&datadir)?;
    let dir = WorkDir::adopt(&datadir, place.work(), wanted)?;
    // A server that was just starting has found its files, and not its datadir any more.
    if let Err(error) = check_unused(place, dir.path()) {
        dir.give_back(&datadir)?;
        return Err(error);
    }
    Ok(dir)
}

/// Moves the entries of a datadir that cannot be renamed itself into the work directory in it.
fn take_entries(place: &Datadir, mut dir: WorkDir) -> Result<WorkDir, RestoreError> {
    match move_entries(place, dir.path()) {
        Ok(()) => {
            dir.set_state(State::Filling)?;
            Ok(dir)
        }
        Err(error) => {
            // Should it stay, the next run goes on with it; the first error tells more.
            dir.leave().ok();
            Err(error)
        }
    }
}

fn move_entries(place: &Datadir, work: &Path) -> Result<(), RestoreError> {
    let datadir = place.path().to_owned();
    check_unused(place, &datadir)?;
    let entries = place.entries()?;
    if let Some(odd) = entries.iter().find(|name| name.to_str().is_none()) {
        return Err(RestoreError::io("move", datadir.join(odd))(io::Error::other("its name is no text")));
    }
    if entries.iter().any(|name| work.join(name).symlink_metadata().is_ok()) {
        return Err(both(place));
    }
    let moved = entries.iter().try_for_each(|name| {
        let error = |error: rustix::io::Errno| RestoreError::io("move", datadir.join(name))(error.into());
        rename_to_nothing(&datadir.join(name), &work.join(name)).map_err(error)
    });
    if let Err(error) = moved.and_then(|()| check_unused(place, work)).and_then(|()| check_unused(place, &datadir)) {
        undo(&datadir, work, entries.iter().filter_map(|name| name.to_str()))?;
        return Err(error);
    }
    Ok(())
}

/// Checks, before anything is given up, that the files below `root` hold anything of the backup, and that all packs are there
/// that it needs; tells what that took.
///
/// What counts is the backup's own tables, since the server's are alike everywhere; without any, it is all files.
///
/// # Errors
/// [`RestoreError::Foreign`]; or when a pack is missing, or of another size.
pub(super) async fn check_kin(
    repository: &Repository,
    manifest: &Manifest,
    plan: &RestorePlan,
    (datadir, root): (&Path, &Path),
    watch: &Watch,
) -> Result<FetchFigures, RestoreError> {
    let every = plan.pieces.div_ceil(SAMPLE_PIECES).max(1);
    let looking = async {
        let packs = repository.packs().await?;
        let map = repository.map_root(manifest).await?;
        let mut sum = Compared::default();
        for all in [false, true] {
            let mut windows = Windows::over(Walk::of(repository, &map, &TableChoice::All));
            let mut comparison = Comparison::of_sample(repository, root);
            let mut seen = 0;
            while let Some(mut window) = windows.next().await? {
                check_packs(&window, &packs)?;
                let files = window.files.clone();
                window.needs.retain(|need| {
                    let own = catalogue::schema_of(&files[need.file as usize].path);
                    let wanted = all || own.is_some_and(|schema| !catalogue::is_servers(&schema));
                    seen += u64::from(wanted);
                    wanted && seen % every == 0
                });
                sum.add(comparison.settle(&mut window).await?);
            }
            if sum.pieces > 0 {
                break;
            }
        }
        Ok(sum)
    };
    let sum = watch.cancel.or(looking).await?;
    if sum.equal > 0 && sum.equal * KIN_SHARE >= sum.pieces {
        return Ok(FetchFigures {
            bytes_fetched: sum.bytes_fetched,
            requests: sum.requests,
            ..FetchFigures::default()
        });
    }
    let (backup, datadir) = (manifest.id.clone(), datadir.to_owned());
    Err(RestoreError::Foreign { backup, datadir, looked_at: sum.pieces, equal: sum.equal })
}

fn check_packs(window: &Window, packs: &HashMap<PackId, StoredPack>) -> Result<(), RestoreError> {
    for need in &window.needs {
        let pack = window.packs[need.pack as usize];
        let source = match packs.get(&pack.id) {
            Some(found) if found.bytes == u64::from(pack.bytes) => continue,
            Some(found) => RepositoryError::PackSize { pack: pack.id, expected: pack.bytes.into(), found: found.bytes },
            None => RepositoryError::PackMissing { pack: pack.id },
        };
        let file = window.files[need.file as usize].path.clone();
        return Err(RestoreError::Unread { file, source });
    }
    Ok(())
}

/// What a restore over files would do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Survey {
    /// Bytes that are there.
    pub reused_bytes: u64,
    /// Bytes that would be fetched.
    pub fetched_bytes: u64,
    /// Requests for them.
    pub requests: u64,
}

/// Compares all of a backup with the files below `root`, and changes nothing.
///
/// # Errors
/// When the map or a file cannot be read.
pub(super) async fn survey(
    repository: &Repository,
    manifest: &Manifest,
    plan: &RestorePlan,
    root: &Path,
    options: FetchOptions,
    watch: &Watch,
) -> Result<Survey, RestoreError> {
    watch.progress.begin(Phase::Fetch, Some(plan.written_bytes));
    let looking = async {
        let map = repository.map_root(manifest).await?;
        let mut windows = Windows::over(Walk::of(repository, &map, &TableChoice::All));
        let (mut sum, mut comparison) = (Survey::default(), Comparison::with(repository, root));
        while let Some(mut window) = windows.next().await? {
            let found = comparison.settle(&mut window).await?;
            watch.progress.advance(Phase::Fetch, found.bytes);
            sum.reused_bytes += found.bytes;
            sum.fetched_bytes += found.bytes_fetched;
            sum.requests += found.requests;
            for request in window.requests(options) {
                sum.fetched_bytes += request.bytes.end - request.bytes.start;
                sum.requests += 1;
            }
        }
        Ok(sum)
    };
    let sum = watch.cancel.or(looking).await;
    watch.progress.end(Phase::Fetch);
    sum
}

/// Checks that there is room for what `plan` adds to the files below `root`.
///
/// # Errors
/// [`RestoreError::NoSpace`].
pub(super) fn check_space(plan: &RestorePlan, root: &Path) -> Result<u64, RestoreError> {
    let free = available_bytes(root)?;
    plan.check_space_over(root, free, others::held_bytes(root, plan)?)?;
    Ok(free)
}

/// Where the files lie that are to be reused.
pub(super) fn root(place: &Datadir, source: Source) -> PathBuf {
    if source == Source::Work { place.work().to_owned() } else { place.path().to_owned() }
}
