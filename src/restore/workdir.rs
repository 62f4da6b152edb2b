//! The directory that a restore fills, locked while somebody works in it.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FlockOperation, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::marker::{Marker, Moving, Reuse, State, is_marker};
use super::{RestoreError, tree};
use crate::mariadb::datadir::{DatadirError, server_runs_on};

/// How long a directory is waited for that somebody holds. A run that was killed needs a moment to end, with its threads
/// in the middle of a write; a living one needs hours.
const LOCK_LIMIT: Duration = Duration::from_secs(5);
/// Pause between two looks at it.
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// What may be done with what an earlier run left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leftovers {
    /// What never was whole is removed; what is whole is somebody's.
    RemoveBroken,
    /// What is whole and of the same backup is used, all else removed: nobody but restores uses the place.
    Use,
    /// All is removed: nobody but restores uses the place.
    Remove,
    /// What is whole and of the same backup is used, and all else written over.
    Reuse,
}

/// A directory that this run alone works in.
#[derive(Debug)]
pub(super) struct WorkDir {
    path: PathBuf,
    marker: Marker,
    /// True when this run made the directory.
    made: bool,
    /// Holds the lock. A child inherits it: a prepare outlives a run that is killed, and nobody else may come in till it ends.
    _lock: Option<OwnedFd>,
}

impl WorkDir {
    /// Takes the directory at `path` for the backup that `wanted` speaks of, and makes it where it is missing.
    ///
    /// What an earlier run left there is put right first: entries that were being moved into a datadir are put back.
    ///
    /// # Errors
    /// When somebody works there, or there is something that no earlier run left, or a datadir that a run took over which reused it.
    pub fn take(path: &Path, wanted: Marker, leftovers: Leftovers) -> Result<WorkDir, RestoreError> {
        let path = &tree::resolved(path)?;
        let (made, lock) = lock(path, true)?;
        let found = Marker::read(path)?;
        let mut dir = WorkDir { path: path.to_owned(), marker: wanted, made, _lock: lock };
        if let Some(mut found) = found {
            put_back(path, &mut found)?;
            let whole = matches!(found.state, State::Fetched | State::Prepared | State::Replayed);
            match leftovers {
                Leftovers::Use | Leftovers::Reuse if whole && found.is_of_same_backup(&dir.marker) => {
                    dir.marker.state = found.state;
                    if let Some(reuse) = found.reuse {
                        dir.marker = dir.marker.over(reuse);
                    }
                    dir.marker.write(path)?;
                    return Ok(dir);
                }
                Leftovers::RemoveBroken if whole => {
                    return Err(RestoreError::WrongState {
                        directory: path.to_owned(),
                        found: found.state.name(),
                        expected: "empty or missing",
                        hint: "go on with it, or name another directory",
                    });
                }
                // All that a datadir needs is in one: what is left here is nobody's.
                _ if found.state == State::Moved => dir.clear()?,
                Leftovers::Reuse => {
                    // What is half taken over is no further than that, whatever the backup.
                    dir.marker.state = if found.state == State::Taking { State::Taking } else { State::Filling };
                    dir.marker = dir.marker.over(found.reuse.unwrap_or(Reuse { taken: false, aside: PathBuf::new() }));
                    dir.marker.write(path)?;
                    return Ok(dir);
                }
                _ if found.is_taken() => return Err(RestoreError::TakenOver { directory: path.to_owned() }),
                _ => dir.clear()?,
            }
        }
        // A run that was killed while it wrote its first marker left no more than that.
        let foreign = tree::entries(path)?.into_iter().find(|name| !name.to_str().is_some_and(is_marker));
        if let Some(found) = foreign {
            return Err(not_empty(path, found));
        }
        dir.marker.write(path)?;
        Ok(dir)
    }

    /// Opens a directory that was fetched, and puts back what was being moved out of it.
    ///
    /// # Errors
    /// When somebody works there, or it was not fetched.
    pub fn open(path: &Path) -> Result<WorkDir, RestoreError> {
        let not_fetched = || RestoreError::NotFetched { directory: path.to_owned() };
        if !path.is_dir() {
            return Err(not_fetched());
        }
        let path = &tree::resolved(path)?;
        let (_, lock) = lock(path, false)?;
        let mut marker = Marker::read(path)?.ok_or_else(not_fetched)?;
        put_back(path, &mut marker)?;
        marker.process = crate::repository::ProcessIdentity::current();
        marker.write(path)?;
        Ok(WorkDir { path: path.to_owned(), marker, made: false, _lock: lock })
    }

    /// Makes the datadir at `datadir` the work directory at `path`, where nothing is, by one rename; `wanted` was written into it before.
    ///
    /// # Errors
    /// When somebody works there, or it cannot be renamed; it is then as it was.
    pub fn adopt(datadir: &Path, path: &Path, wanted: Marker) -> Result<WorkDir, RestoreError> {
        let (_, lock) = lock(datadir, false)?;
        let dir = WorkDir { path: path.to_owned(), marker: wanted, made: false, _lock: lock };
        dir.marker.write(datadir)?;
        if let Err(error) = rename_to_nothing(datadir, path) {
            Marker::remove(datadir).ok();
            return Err(RestoreError::io("rename", datadir)(error.into()));
        }
        match path.parent().map_or(Ok(()), tree::sync_entries) {
            Ok(()) => Ok(dir),
            Err(error) => {
                dir.give_back(datadir)?;
                Err(RestoreError::io("make durable", path)(error))
            }
        }
    }

    /// Makes it the datadir again that it was before [`WorkDir::adopt`].
    pub fn give_back(self, datadir: &Path) -> Result<(), RestoreError> {
        rename_to_nothing(&self.path, datadir).map_err(|error| RestoreError::io("rename", &self.path)(error.into()))?;
        Marker::remove(datadir)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it holds.
    pub fn marker(&self) -> &Marker {
        &self.marker
    }

    /// How far it is.
    pub fn state(&self) -> State {
        self.marker.state
    }

    /// Says durably how far it is; what was written before is made durable first.
    pub fn set_state(&mut self, state: State) -> Result<(), RestoreError> {
        tree::sync(&self.path)?;
        self.marker.state = state;
        self.marker.write(&self.path)
    }

    /// Says durably that the tables in it are about to be made ready for other servers.
    pub fn set_exported(&mut self) -> Result<(), RestoreError> {
        self.marker.exported = true;
        self.marker.write(&self.path)
    }

    /// Says durably that entries begin to move into a datadir.
    pub fn begin_moving(&mut self, moving: Moving) -> Result<(), RestoreError> {
        self.marker.state = State::Moving;
        self.marker.moving = Some(moving);
        self.marker.write(&self.path)
    }

    /// Says durably that no entry is on its way any more, and how far the directory is.
    pub fn end_moving(&mut self, state: State) -> Result<(), RestoreError> {
        self.marker.state = state;
        self.marker.moving = None;
        self.marker.write(&self.path)
    }

    /// Removes what is in it, and itself where this run made it.
    pub fn remove(mut self) -> Result<(), RestoreError> {
        self.clear()?;
        Marker::remove(&self.path)?;
        if self.made { self.remove_empty() } else { Ok(()) }
    }

    /// Removes it where nothing is in it but the marker.
    pub fn leave(self) -> Result<(), RestoreError> {
        if tree::entries(&self.path)?.iter().all(|name| name.to_str().is_some_and(is_marker)) {
            Marker::remove(&self.path)?;
            self.remove_empty()?;
        }
        Ok(())
    }

    /// Removes it with all that is in it.
    pub fn remove_whole(mut self) -> Result<(), RestoreError> {
        self.clear()?;
        Marker::remove(&self.path)?;
        self.remove_empty()
    }

    /// Removes all but the marker, which says before that nothing here is whole: a run that is killed meanwhile leaves what
    /// the next one knows.
    fn clear(&mut self) -> Result<(), RestoreError> {
        if self.marker.state != State::Moved {
            self.marker.state = State::Filling;
        }
        self.marker.moving = None;
        self.marker.write(&self.path)?;
        tree::clear(&self.path, is_marker)
    }

    fn remove_empty(self) -> Result<(), RestoreError> {
        fs::remove_dir(&self.path).map_err(RestoreError::io("remove", &self.path))
    }
}

fn not_empty(directory: &Path, found: PathBuf) -> RestoreError {
    RestoreError::NotEmpty { directory: directory.to_owned(), found }
}

/// Opens and locks the directory at `path`; tells whether it was made.
fn lock(path: &Path, make: bool) -> Result<(bool, Option<OwnedFd>), RestoreError> {
    let begun = Instant::now();
    loop {
        let made = make && make_directory(path)?;
        // Without CLOEXEC: a child keeps the lock.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        let directory = match rustix::fs::openat(CWD, path, flags, Mode::empty()) {
            // Its owner has just removed or moved it.
            Err(Errno::NOENT) if make && begun.elapsed() < LOCK_LIMIT => continue,
            directory => directory.map_err(|error| RestoreError::io("open", path)(error.into()))?,
        };
        let who = match rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) if is_at(&directory, path) => return Ok((made, Some(directory))),
            Ok(()) => "it changes all the time".to_owned(),
            // What somebody fetched is his, whoever was killed at it.
            Err(Errno::WOULDBLOCK) => match holder(path, make)? {
                None => continue,
                Some(who) => who,
            },
            // Network file systems that lock files only: there, nothing tells two runs at once apart.
            Err(_) => return Ok((made, None)),
        };
        if begun.elapsed() >= LOCK_LIMIT {
            return Err(RestoreError::Busy { directory: path.to_owned(), who });
        }
        std::thread::sleep(LOCK_PAUSE);
    }
}

/// Makes the directory; tells whether it was missing.
fn make_directory(path: &Path) -> Result<bool, RestoreError> {
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        made => made.map(|()| true).map_err(RestoreError::io("create", path)),
    }
}

/// True when `path` still leads to `directory`, which somebody may have moved or removed before it was locked.
fn is_at(directory: &OwnedFd, path: &Path) -> bool {
    let (Ok(opened), Ok(named)) = (rustix::fs::fstat(directory), rustix::fs::lstat(path)) else { return false };
    (opened.st_dev, opened.st_ino) == (named.st_dev, named.st_ino)
}

/// Who holds the lock; nobody any more where only the prepare of a run that was killed did, and its directory may be, and is,
/// removed. What was a datadir is not: the prepare is waited for.
fn holder(path: &Path, may_remove: bool) -> Result<Option<String>, RestoreError> {
    let Some(marker) = Marker::read(path)? else { return Ok(Some("a run that just begins".to_owned())) };
    if !marker.process.is_known_dead() {
        return Ok(Some(marker.process.to_string()));
    }
    // The prepare goes on in files without names until it notices.
    let at_work = matches!(marker.state, State::Preparing | State::Replaying);
    let removed = may_remove && at_work && !marker.is_taken() && fs::remove_dir_all(path).is_ok();
    let who = if at_work { "the prepare that" } else { "what" };
    Ok((!removed).then(|| format!("{who} {} left behind", marker.process)))
}

/// Moves entries back that were on their way into a datadir when their run died, unless all had arrived.
fn put_back(path: &Path, marker: &mut Marker) -> Result<(), RestoreError> {
    let Some(moving) = marker.moving.take() else { return Ok(()) };
    let arrived = |name: &String| {
        moving.datadir.join(name).symlink_metadata().is_ok() && path.join(name).symlink_metadata().is_err()
    };
    if moving.entries.iter().all(arrived) {
        marker.state = State::Moved;
    } else {
        if let Some(evidence) = server_runs_on(&moving.datadir)? {
            return Err(DatadirError::InUse { datadir: moving.datadir, evidence }.into());
        }
        undo(path, &moving.datadir, moving.entries.iter().map(String::as_str))?;
        marker.state = marker.done();
    }
    marker.write(path)
}

/// Moves `entries` of `datadir` back to `path`, those that came so far.
pub(super) fn undo<'a>(
    path: &Path,
    datadir: &Path,
    entries: impl Iterator<Item = &'a str>,
) -> Result<(), RestoreError> {
    let half_moved =
        |source: io::Error| RestoreError::HalfMoved { directory: path.to_owned(), datadir: datadir.to_owned(), source };
    for name in entries {
        match rename_to_nothing(&datadir.join(name), &path.join(name)) {
            Ok(()) => {}
            // It never left.
            Err(Errno::NOENT | Errno::EXIST) => {}
            Err(error) => return Err(half_moved(error.into())),
        }
    }
    tree::sync_entries(path).map_err(half_moved)
}

/// Renames `from`, and replaces nothing.
pub(super) fn rename_to_nothing(from: &Path, to: &Path) -> Result<(), Errno> {
    match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // File systems that know no flags.
        Err(Errno::INVAL | Errno::NOSYS) => match fs::symlink_metadata(to) {
            Ok(_) => Err(Errno::EXIST),
            Err(_) => rustix::fs::rename(from, to),
        },
        renamed => renamed,
    }
}
