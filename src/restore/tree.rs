//! Directories on disk: listed, emptied, given away, copied, made durable.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::SeekFrom;
use rustix::io::Errno;

use super::{Cancel, RestoreError};
use crate::model::{Phase, Progress};

/// Files copied at the same time: a disk's queue is filled, and no reader waits for the others long.
const COPY_THREADS: usize = 4;
/// Bytes copied by one system call: progress shows, and a wish to stop is heard.
const COPY_BYTES: usize = 8 << 20;
/// What a file system's root holds besides files.
const LOST_AND_FOUND: &str = "lost+found";

/// User and group that restored files are given to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// Number of the user.
    pub uid: u32,
    /// Number of the group.
    pub gid: u32,
}

/// `path`, absolute and without symbolic links; it may be missing.
pub(super) fn resolved(path: &Path) -> Result<PathBuf, RestoreError> {
    let absolute = std::path::absolute(path).map_err(RestoreError::io("look at", path))?;
    match absolute.canonicalize() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let named = absolute.parent().zip(absolute.file_name());
            Ok(named.map_or(absolute.clone(), |(parent, name)| {
                parent.canonicalize().unwrap_or_else(|_| parent.to_owned()).join(name)
            }))
        }
        found => found.map_err(RestoreError::io("look at", path)),
    }
}

/// Names of the entries of `directory`, `lost+found` left out; none when it does not exist.
pub(super) fn entries(directory: &Path) -> Result<Vec<PathBuf>, RestoreError> {
    let listing = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        listing => listing.map_err(RestoreError::io("list", directory))?,
    };
    let mut names = Vec::new();
    for entry in listing {
        let name = entry.map_err(RestoreError::io("list", directory))?.file_name();
        if name != LOST_AND_FOUND {
            names.push(name.into());
        }
    }
    names.sort();
    Ok(names)
}

/// Removes what is in `directory` besides the names that are `kept`, and leaves it.
pub(super) fn clear(directory: &Path, kept: impl Fn(&str) -> bool) -> Result<(), RestoreError> {
    for name in entries(directory)? {
        if name.to_str().is_some_and(&kept) {
            continue;
        }
        let path = directory.join(name);
        let kind = fs::symlink_metadata(&path).map_err(RestoreError::io("look at", &path))?;
        let removed = if kind.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.map_err(RestoreError::io("remove", path))?;
    }
    Ok(())
}

/// Makes durable all that was written on the file system of `directory`.
///
/// One call for the file system costs less than one for each of a hundred thousand files, and reports the same errors
/// (Linux 5.8 and later).
pub(super) fn sync(directory: &Path) -> Result<(), RestoreError> {
    let file = File::open(directory).map_err(RestoreError::io("open", directory))?;
    rustix::fs::syncfs(&file).map_err(|error| RestoreError::io("make durable", directory)(error.into()))
}

/// Makes durable which entries `directory` has.
pub(super) fn sync_entries(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Everything in `directory` and below, directories before what is in them.
pub(super) fn descendants(directory: &Path) -> Result<Vec<PathBuf>, RestoreError> {
    let mut found = Vec::new();
    let mut open = VecDeque::from([directory.to_owned()]);
    while let Some(next) = open.pop_front() {
        for name in entries(&next)? {
            let path = next.join(name);
            let kind = fs::symlink_metadata(&path).map_err(RestoreError::io("look at", &path))?;
            if kind.is_dir() {
                open.push_back(path.clone());
            }
            found.push(path);
        }
    }
    Ok(found)
}

/// Number of the files in `directory` and below, and the sum of their bytes; names of its top level that are `left_out`
/// are not counted.
pub(super) fn figures(directory: &Path, left_out: impl Fn(&str) -> bool) -> Result<(u64, u64), RestoreError> {
    let mut figures = (0, 0);
    for path in descendants(directory)? {
        let top = path.strip_prefix(directory).ok().and_then(Path::to_str);
        let meta = fs::symlink_metadata(&path).map_err(RestoreError::io("look at", &path))?;
        if meta.is_file() && !top.is_some_and(&left_out) {
            figures = (figures.0 + 1, figures.1 + meta.len());
        }
    }
    Ok(figures)
}

/// Gives `directory` and all that is in it to `owner`.
pub(super) fn give(directory: &Path, owner: Owner) -> Result<(), RestoreError> {
    let give = |path: &Path| {
        std::os::unix::fs::lchown(path, Some(owner.uid), Some(owner.gid))
            .map_err(RestoreError::io("change the owner of", path))
    };
    descendants(directory)?.iter().try_for_each(|path| give(path))?;
    give(directory)
}

/// Copies what is in `from` into the empty directory `to`: permission bits and holes too, the names in `left_out` of the
/// top level not.
pub(super) fn copy(
    from: &Path,
    to: &Path,
    left_out: impl Fn(&str) -> bool,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<(), RestoreError> {
    let mut files = VecDeque::new();
    for path in descendants(from)? {
        let Ok(relative) = path.strip_prefix(from) else { continue };
        if relative.to_str().is_some_and(&left_out) {
            continue;
        }
        let (target, meta) =
            (to.join(relative), fs::symlink_metadata(&path).map_err(RestoreError::io("look at", &path))?);
        if meta.is_dir() {
            fs::create_dir(&target).map_err(RestoreError::io("create", &target))?;
            let mode = fs::Permissions::from_mode(meta.mode() & 0o777);
            fs::set_permissions(&target, mode).map_err(RestoreError::io("set the mode of", &target))?;
        } else if meta.is_file() {
            files.push_back((path, target));
        } else {
            // Nothing else is ever fetched, and a link would lead out of the datadir.
            let source = io::Error::other("it is neither a file nor a directory");
            return Err(RestoreError::Io { action: "copy", path, source });
        }
    }
    let files = Mutex::new(files);
    let work = || {
        loop {
            let next = files.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            let Some((source, target)) = next else { return Ok(()) };
            copy_file(&source, &target, progress, cancel)?;
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..COPY_THREADS).map(|_| scope.spawn(work)).collect();
        let died = |_| RestoreError::io("copy", from)(io::Error::other("a thread died"));
        let ended: Vec<_> = threads.into_iter().map(|thread| thread.join().map_err(died)?).collect();
        ended.into_iter().collect()
    })
}

/// Copies one file, stretch by stretch of data; what lies between stays a hole.
pub(super) fn copy_file(
    source: &Path,
    target: &Path,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<(), RestoreError> {
    let from = File::open(source).map_err(RestoreError::io("open", source))?;
    let meta = from.metadata().map_err(RestoreError::io("look at", source))?;
    let mode = meta.mode() & 0o777;
    let made = OpenOptions::new().write(true).create_new(true).mode(mode).open(target);
    let to = made.map_err(RestoreError::io("create", target))?;
    to.set_permissions(fs::Permissions::from_mode(mode)).map_err(RestoreError::io("set the mode of", target))?;
    to.set_len(meta.len()).map_err(RestoreError::io("set the length of", target))?;
    let mut at = 0;
    while at < meta.len() {
        let data = match rustix::fs::seek(&from, SeekFrom::Data(at)) {
            Ok(data) => data,
            Err(Errno::NXIO) => break,
            Err(error) => return Err(RestoreError::io("read", source)(error.into())),
        };
        let hole = rustix::fs::seek(&from, SeekFrom::Hole(data));
        let hole = hole.map_err(|error| RestoreError::io("read", source)(error.into()))?;
        at = data;
        while at < hole {
            cancel.check()?;
            let wanted = usize::try_from(hole - at).unwrap_or(usize::MAX).min(COPY_BYTES);
            let copied = copy_some(&from, &to, at, wanted).map_err(RestoreError::io("write", target))?;
            if copied == 0 {
                let source_error = io::ErrorKind::UnexpectedEof.into();
                return Err(RestoreError::Io { action: "read", path: source.to_owned(), source: source_error });
            }
            at += copied as u64;
            progress.advance(Phase::Move, copied as u64);
        }
    }
    Ok(())
}

/// Copies up to `bytes` bytes at `at`, inside of the kernel where the file systems can.
fn copy_some(from: &File, to: &File, at: u64, bytes: usize) -> io::Result<usize> {
    let (mut from_at, mut to_at) = (at, at);
    match rustix::fs::copy_file_range(from.as_fd(), Some(&mut from_at), to.as_fd(), Some(&mut to_at), bytes) {
        Err(Errno::XDEV | Errno::NOSYS | Errno::OPNOTSUPP | Errno::INVAL | Errno::PERM) => {
            use std::os::unix::fs::FileExt;
            let mut buffer = vec![0; bytes.min(1 << 20)];
            let read = from.read_at(&mut buffer, at)?;
            to.write_all_at(&buffer[..read], at)?;
            Ok(read)
        }
        copied => Ok(copied?),
    }
}

/// True when `path` is where a file system is mounted; false also where the kernel does not tell (before Linux 5.8).
pub(super) fn is_mount_point(path: &Path) -> bool {
    use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
    statx(CWD, path, AtFlags::empty(), StatxFlags::BASIC_STATS).is_ok_and(|found| {
        found.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT)
            && found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;
    use crate::model::Silent;

    #[test]
    fn a_copy_is_equal_and_keeps_holes_and_modes() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::create_dir_all(from.join("shop")).unwrap();
        fs::create_dir(&to).unwrap();
        fs::set_permissions(from.join("shop"), fs::Permissions::from_mode(0o750)).unwrap();
        let sparse = File::create(from.join("shop/t.ibd")).unwrap();
        sparse.set_len(32 << 20).unwrap();
        sparse.write_all_at(&[7; 10_000], 12 << 20).unwrap();
        fs::set_permissions(from.join("shop/t.ibd"), fs::Permissions::from_mode(0o640)).unwrap();
        fs::write(from.join("empty"), "").unwrap();
        fs::write(from.join("left"), "out").unwrap();
        copy(&from, &to, |name| name == "left", &Silent, &Cancel::never()).unwrap();
        assert!(fs::read(from.join("shop/t.ibd")).unwrap() == fs::read(to.join("shop/t.ibd")).unwrap());
        let meta = fs::metadata(to.join("shop/t.ibd")).unwrap();
        assert_eq!(meta.mode() & 0o777, 0o640);
        assert!(meta.blocks() * 512 < 1 << 20);
        assert_eq!(fs::metadata(to.join("shop")).unwrap().mode() & 0o777, 0o750);
        assert_eq!(entries(&to).unwrap(), [PathBuf::from("empty"), PathBuf::from("shop")]);
    }

    #[test]
    fn a_copy_that_is_stopped_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::create_dir(&from).unwrap();
        fs::create_dir(&to).unwrap();
        fs::write(from.join("a"), [1; 10]).unwrap();
        let cancel = Cancel::from(tokio::sync::watch::channel(true).1);
        assert!(matches!(copy(&from, &to, |_| false, &Silent, &cancel), Err(RestoreError::Interrupted)));
    }

    #[test]
    fn a_link_is_not_copied() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::create_dir(&from).unwrap();
        fs::create_dir(&to).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", from.join("a")).unwrap();
        assert!(copy(&from, &to, |_| false, &Silent, &Cancel::never()).is_err());
    }
}
