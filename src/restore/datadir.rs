//! Brings prepared files into a datadir: all at once where the file system can, and never half.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::Access;
use rustix::io::Errno;

use super::marker::{Marker, Moving, State, is_marker};
use super::tree::{self, Owner};
use super::workdir::{Leftovers, WorkDir, rename_to_nothing, undo};
use super::{Cancel, RestoreError};
use crate::mariadb::datadir::{DatadirError, ensure_vacant};
use crate::model::{Phase, Progress};

/// Ending of the work directory beside a datadir.
const BESIDE_ENDING: &str = ".haulout";
/// Name of the work directory in a datadir beside which there can be none.
const INSIDE_NAME: &str = ".haulout";
/// Ending, beside the name of the work directory, of where files go that a backup does not have.
const ASIDE_ENDING: &str = "-aside";
/// Directories of that sort, from as many runs, that are looked at for a free name.
const ASIDES_MAX: u32 = 1000;

/// Files of a prepared backup that a datadir does not need, and that `mariadb-backup --copy-back` leaves behind too
/// (MariaDB `backup_copy.cc`, `copy_back`); `backup-my.cnf` can hold secrets.
const LEFT_OUT: [&str; 8] = [
    "backup-my.cnf",
    "xtrabackup_binary",
    "xtrabackup_binlog_info",
    "mariadb_backup_binlog_info",
    "xtrabackup_galera_info",
    "mariadb_backup_galera_info",
    "xtrabackup_checkpoints",
    "mariadb_backup_checkpoints",
];
/// Endings of further such files.
const LEFT_OUT_ENDINGS: [&str; 3] = [".qp", ".pmap", ".tmp"];

/// True for entries of a backup's top level that stay out of a datadir.
fn is_left_out(name: &str) -> bool {
    is_marker(name) || LEFT_OUT.contains(&name) || LEFT_OUT_ENDINGS.iter().any(|ending| name.ends_with(ending))
}

/// A datadir to be filled, and where its files are gathered before.
#[derive(Debug)]
pub(super) struct Datadir {
    path: PathBuf,
    /// Permission bits and owner of the directory that is there.
    existing: Option<(u32, Owner)>,
    /// Permission bits and owner of the directory that was there, when it was taken over.
    inherited: Option<(u32, Owner)>,
    work: PathBuf,
    inside: bool,
}

impl Datadir {
    /// Looks at the place, which may be missing, and chooses where to gather files.
    ///
    /// That is beside the datadir, on the same file system, so that one rename brings all files in. Where the datadir is a
    /// mount point, or nothing can be made beside it, it is inside, and entries are renamed one by one.
    ///
    /// # Errors
    /// When the place cannot be looked at, or its parent does not exist.
    pub fn look(datadir: &Path) -> Result<Datadir, RestoreError> {
        let absolute = std::path::absolute(datadir).map_err(RestoreError::io("look at", datadir))?;
        let (path, meta) = match absolute.canonicalize() {
            Ok(path) => {
                let meta = fs::metadata(&path).map_err(RestoreError::io("look at", &path))?;
                (path, Some(meta))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => (missing(&absolute)?, None),
            Err(error) => return Err(RestoreError::io("look at", datadir)(error)),
        };
        let inside = meta.as_ref().is_some_and(|meta| !can_be_replaced(&path, meta));
        let work = if inside {
            path.join(INSIDE_NAME)
        } else {
            let mut beside = path.clone().into_os_string();
            beside.push(BESIDE_ENDING);
            beside.into()
        };
        let existing = meta.as_ref().map(mode_and_owner);
        Ok(Datadir { path, existing, inherited: None, work, inside })
    }

    /// The datadir, without symbolic links.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where files are gathered.
    pub fn work(&self) -> &Path {
        &self.work
    }

    /// A directory that exists on the datadir's file system.
    pub fn on_disk(&self) -> &Path {
        match (&self.existing, self.path.parent()) {
            (None, Some(parent)) => parent,
            _ => &self.path,
        }
    }

    /// Checks that no server runs on the datadir, and that nothing is in it but the work directory.
    ///
    /// # Errors
    /// [`RestoreError::Datadir`].
    pub fn check_vacant(&self) -> Result<(), RestoreError> {
        match ensure_vacant(&self.path) {
            Err(DatadirError::NotEmpty { .. }) if self.inside => {
                let other = tree::entries(&self.path)?.into_iter().find(|name| !is_own(name));
                other.map_or(Ok(()), |found| Err(DatadirError::NotEmpty { datadir: self.path.clone(), found }.into()))
            }
            result => Ok(result?),
        }
    }

    /// Who the files are to belong to: `owner`, or whoever has the datadir already, where this process may give things away.
    pub fn owner(&self, owner: Option<Owner>) -> Option<Owner> {
        let present = self.existing.or(self.inherited).map(|(_, owner)| owner);
        owner.or_else(|| present.filter(|_| rustix::process::geteuid().is_root()))
    }

    fn mode(&self, marker: &Marker) -> u32 {
        self.existing.or(self.inherited).map_or(marker.datadir_mode, |(mode, _)| mode)
    }

    /// True when files are gathered in the datadir itself.
    pub fn is_inside(&self) -> bool {
        self.inside
    }

    /// Names of what is in the datadir, what restores put there left out.
    pub fn entries(&self) -> Result<Vec<PathBuf>, RestoreError> {
        let entries = tree::entries(&self.path)?;
        Ok(entries.into_iter().filter(|name| !self.inside || !is_own(name)).collect())
    }

    /// Notes that the datadir was taken over as the directory at `taken`, whose mode and owner the next one shall have.
    pub fn inherit(&mut self, taken: &Path) -> Result<(), RestoreError> {
        if !self.inside {
            let meta = fs::metadata(taken).map_err(RestoreError::io("look at", taken))?;
            (self.existing, self.inherited) = (None, Some(mode_and_owner(&meta)));
        }
        Ok(())
    }

    /// A name beside the work directory where nothing is yet, for files that a backup does not have.
    ///
    /// # Errors
    /// When there are too many of them.
    pub fn new_aside(&self) -> Result<PathBuf, RestoreError> {
        let named = |number: u32| {
            let mut name = self.work.clone().into_os_string();
            name.push(ASIDE_ENDING);
            if number > 1 {
                name.push(format!("-{number}"));
            }
            PathBuf::from(name)
        };
        let free = (1..=ASIDES_MAX).map(named).find(|path| path.symlink_metadata().is_err());
        free.ok_or_else(|| RestoreError::io("create", named(1))(io::ErrorKind::AlreadyExists.into()))
    }
}

fn mode_and_owner(meta: &fs::Metadata) -> (u32, Owner) {
    (meta.mode() & 0o777, Owner { uid: meta.uid(), gid: meta.gid() })
}

/// True for names in a datadir under which restores keep something there.
pub(super) fn is_own(name: &Path) -> bool {
    let rest = name.to_str().and_then(|name| name.strip_prefix(INSIDE_NAME));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(ASIDE_ENDING))
}

/// The place of a directory that does not exist, in a parent that does.
fn missing(absolute: &Path) -> Result<PathBuf, RestoreError> {
    let named = absolute.parent().zip(absolute.file_name());
    let nowhere = || RestoreError::io("look at", absolute)(io::ErrorKind::InvalidInput.into());
    let (parent, name) = named.ok_or_else(nowhere)?;
    Ok(parent.canonicalize().map_err(RestoreError::io("look at", parent))?.join(name))
}

/// True when a rename onto `path` can replace the directory that is there.
fn can_be_replaced(path: &Path, meta: &fs::Metadata) -> bool {
    let Some(parent) = path.parent() else { return false };
    let same_device = fs::metadata(parent).is_ok_and(|parent| parent.dev() == meta.dev());
    let writable = rustix::fs::access(parent, Access::WRITE_OK | Access::EXEC_OK).is_ok();
    let root_of_disk = path.join("lost+found").symlink_metadata().is_ok();
    same_device && writable && !root_of_disk && !tree::is_mount_point(path)
}

/// Brings the files of `dir` into `datadir` by renames, and tells how many files of how many bytes; nothing where only a
/// copy helps.
///
/// # Errors
/// When something fails; the datadir is then as it was.
pub(super) fn rename_into(
    dir: &mut WorkDir,
    datadir: &Datadir,
    owner: Option<Owner>,
    cancel: &Cancel,
) -> Result<Option<(u64, u64)>, RestoreError> {
    let path = dir.path().to_owned();
    if !same_device(&path, datadir) {
        return Ok(None);
    }
    let figures = tree::figures(&path, is_left_out)?;
    if let Some(owner) = datadir.owner(owner) {
        tree::give(&path, owner)?;
    }
    let mode = fs::Permissions::from_mode(datadir.mode(dir.marker()));
    fs::set_permissions(&path, mode).map_err(RestoreError::io("set the mode of", &path))?;
    tree::sync(&path)?;
    cancel.check()?;
    datadir.check_vacant()?;
    let renamed = (!datadir.inside && rename_whole(dir, datadir)?) || rename_entries(dir, datadir, owner)?;
    Ok(renamed.then_some(figures))
}

fn same_device(path: &Path, datadir: &Datadir) -> bool {
    let device = |path: &Path| fs::metadata(path).map(|meta| meta.dev()).ok();
    device(path).is_some() && device(path) == device(datadir.on_disk())
}

/// Renames the whole directory to the datadir: the files are there, or they are not.
fn rename_whole(dir: &WorkDir, datadir: &Datadir) -> Result<bool, RestoreError> {
    let path = dir.path();
    match rustix::fs::rename(path, &datadir.path) {
        Ok(()) => {}
        // A mount point that could not be told, a parent that may not be written, another file system after all.
        Err(Errno::XDEV | Errno::BUSY | Errno::ACCESS | Errno::PERM | Errno::ROFS | Errno::NOTEMPTY | Errno::EXIST) => {
            return Ok(false);
        }
        Err(error) => return Err(RestoreError::io("rename", path)(error.into())),
    }
    let durable = datadir.path.parent().into_iter().chain(path.parent()).try_for_each(tree::sync_entries);
    if let Err(error) = durable {
        take_out(path, datadir);
        return Err(RestoreError::io("make durable", &datadir.path)(error));
    }
    // The files are in; what should not be among them harms no server.
    for name in tree::entries(&datadir.path)? {
        if name.to_str().is_some_and(is_left_out) {
            fs::remove_file(datadir.path.join(name)).ok();
        }
    }
    tree::sync_entries(&datadir.path).ok();
    Ok(true)
}

/// Undoes a rename that may not last.
fn take_out(path: &Path, datadir: &Datadir) {
    if fs::rename(&datadir.path, path).is_ok()
        && let Some((mode, owner)) = datadir.existing
    {
        fs::create_dir(&datadir.path).ok();
        std::os::unix::fs::chown(&datadir.path, Some(owner.uid), Some(owner.gid)).ok();
        fs::set_permissions(&datadir.path, fs::Permissions::from_mode(mode)).ok();
    }
}

/// Renames entry after entry. The marker says so before, and whoever finds it moves them back.
pub(super) fn rename_entries(dir: &mut WorkDir, datadir: &Datadir, owner: Option<Owner>) -> Result<bool, RestoreError> {
    let path = dir.path().to_owned();
    let mut entries = Vec::new();
    for name in tree::entries(&path)? {
        match name.into_os_string().into_string() {
            Ok(name) if is_left_out(&name) => {}
            Ok(name) => entries.push(name),
            Err(name) => {
                return Err(RestoreError::io("move", path.join(name))(io::Error::other("its name is no text")));
            }
        }
    }
    if datadir.existing.is_none() {
        fs::create_dir(&datadir.path).map_err(RestoreError::io("create", &datadir.path))?;
        let mode = fs::Permissions::from_mode(datadir.mode(dir.marker()));
        fs::set_permissions(&datadir.path, mode).map_err(RestoreError::io("set the mode of", &datadir.path))?;
    }
    dir.begin_moving(Moving { datadir: datadir.path.clone(), entries: entries.clone() })?;
    let moved = entries.iter().try_for_each(|name| {
        rename_to_nothing(&path.join(name), &datadir.path.join(name)).map_err(|error| (name, error))
    });
    let moved = match moved {
        Ok(()) => finish_entries(datadir, owner).map(|()| true),
        Err((_, Errno::XDEV)) => Ok(false),
        Err((name, error)) => Err(RestoreError::io("move", path.join(name))(error.into())),
    };
    if matches!(moved, Ok(true)) {
        // The next run sees that all entries arrived, should this not be written.
        dir.end_moving(State::Moved).ok();
    } else {
        undo(&path, &datadir.path, entries.iter().map(String::as_str))?;
        let done = dir.marker().done();
        dir.end_moving(done)?;
    }
    moved
}

fn finish_entries(datadir: &Datadir, owner: Option<Owner>) -> Result<(), RestoreError> {
    if let Some(owner) = datadir.owner(owner) {
        std::os::unix::fs::chown(&datadir.path, Some(owner.uid), Some(owner.gid))
            .map_err(RestoreError::io("change the owner of", &datadir.path))?;
    }
    tree::sync_entries(&datadir.path).map_err(RestoreError::io("make durable", &datadir.path))
}

/// Copies the prepared files of `from` to where the files of `datadir` are gathered.
///
/// # Errors
/// When there is no room, or a file cannot be read or written; nothing is left then.
pub(super) fn gather_copy(
    from: &WorkDir,
    datadir: &Datadir,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<WorkDir, RestoreError> {
    let (_, bytes) = tree::figures(from.path(), is_left_out)?;
    let mut marker = from.marker().clone();
    (marker.state, marker.moving) = (State::Filling, None);
    let mut copy = WorkDir::take(&datadir.work, marker, Leftovers::Remove)?;
    progress.begin(Phase::Move, Some(bytes));
    let filled = fill(from.path(), &mut copy, progress, cancel);
    progress.end(Phase::Move);
    match filled {
        Ok(()) => Ok(copy),
        Err(error) => {
            // The first error tells more.
            copy.remove().ok();
            Err(error)
        }
    }
}

fn fill(from: &Path, copy: &mut WorkDir, progress: &dyn Progress, cancel: &Cancel) -> Result<(), RestoreError> {
    let mut needed = 0;
    for path in tree::descendants(from)? {
        needed += fs::symlink_metadata(&path).map_err(RestoreError::io("look at", &path))?.blocks() * 512;
    }
    let available = super::plan::available_bytes(copy.path())?;
    if available < needed {
        return Err(RestoreError::NoSpace { directory: copy.path().to_owned(), needed, available });
    }
    tree::copy(from, copy.path(), is_left_out, progress, cancel)?;
    let done = copy.marker().done();
    copy.set_state(done)
}
