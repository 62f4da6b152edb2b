//! What is in a datadir that a backup does not have, and what of it is in the way.
//!
//! A restore over a datadir keeps what it finds under the names of the backup's files and directories. Everything else goes
//! aside by renames, so that nothing is lost and nothing takes room twice: tables that were made since, binary and relay logs,
//! options and certificates. Links too, and files that have several names: whoever writes through them writes elsewhere.

use std::collections::VecDeque;
use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::datadir::is_own;
use super::marker::{Reuse, is_marker};
use super::plan::join;
use super::workdir::rename_to_nothing;
use super::{RestoreError, RestorePlan, tree};

/// Names that are tried for a file of whose name there is one aside already.
const NAMES_MAX: u32 = 100;

/// Paths below `root` of what `plan` does not write over; of a directory that it does not have, the directory alone.
pub(super) fn find(root: &Path, plan: &RestorePlan) -> Result<Vec<PathBuf>, RestoreError> {
    let mut others = Vec::new();
    let mut open = VecDeque::from([PathBuf::new()]);
    while let Some(directory) = open.pop_front() {
        for name in tree::entries(&root.join(&directory))? {
            let top = directory.as_os_str().is_empty();
            if top && (is_own(&name) || name.to_str().is_some_and(is_marker)) {
                continue;
            }
            let path = directory.join(name);
            let full = root.join(&path);
            let meta = fs::symlink_metadata(&full).map_err(RestoreError::io("look at", &full))?;
            let name = path.to_str().unwrap_or_default();
            if meta.is_dir() && plan.directories.contains_key(name) {
                open.push_back(path);
            } else if !(meta.is_file() && meta.nlink() == 1 && has(plan, name)) {
                others.push(path);
            }
        }
    }
    Ok(others)
}

fn has(plan: &RestorePlan, path: &str) -> bool {
    plan.files.binary_search_by(|file| file.path.as_str().cmp(path)).is_ok()
}

/// Number of files, and sum of their bytes, of what [`find`] found.
pub(super) fn figures(root: &Path, others: &[PathBuf]) -> Result<(u64, u64), RestoreError> {
    let mut sum = (0, 0);
    for path in others {
        let path = root.join(path);
        let meta = fs::symlink_metadata(&path).map_err(RestoreError::io("look at", &path))?;
        let (files, bytes) = if meta.is_dir() { tree::figures(&path, |_| false)? } else { (1, meta.len()) };
        sum = (sum.0 + files, sum.1 + bytes);
    }
    Ok(sum)
}

/// Bytes on disk of the files below `root` that `plan` writes over, as far as it needs them.
pub(super) fn held_bytes(root: &Path, plan: &RestorePlan) -> Result<u64, RestoreError> {
    let mut held = 0;
    for file in &plan.files {
        let meta = join(root, &file.path)?.symlink_metadata();
        let blocks = meta.ok().filter(|meta| meta.is_file() && meta.nlink() == 1).map_or(0, |meta| meta.blocks());
        held += (blocks * 512).min(file.bytes);
    }
    Ok(held)
}

/// Takes out of `root` what `plan` does not write over: aside where it was a datadir, for good where it is what a fetch left.
///
/// # Errors
/// When something cannot be moved; what is aside then stays there.
pub(super) fn clear_away(root: &Path, plan: &RestorePlan, reuse: &Reuse) -> Result<(), RestoreError> {
    let others = find(root, plan)?;
    if others.is_empty() {
        return Ok(());
    }
    if reuse.taken {
        make_directories(&reuse.aside)?;
        let meta = fs::metadata(root).map_err(RestoreError::io("look at", root))?;
        // Without root's rights, it belongs to whoever has the datadir or may write it.
        std::os::unix::fs::chown(&reuse.aside, Some(meta.uid()), Some(meta.gid())).ok();
    }
    for path in others {
        let from = root.join(&path);
        if reuse.taken {
            put_aside(&from, &reuse.aside.join(path))?;
        } else {
            let is_dir = from.symlink_metadata().is_ok_and(|meta| meta.is_dir());
            let removed = if is_dir { fs::remove_dir_all(&from) } else { fs::remove_file(&from) };
            removed.map_err(RestoreError::io("remove", from))?;
        }
    }
    tree::sync(root)
}

fn put_aside(from: &Path, to: &Path) -> Result<(), RestoreError> {
    if let Some(parent) = to.parent() {
        make_directories(parent)?;
    }
    for number in 0..NAMES_MAX {
        let mut name = to.to_owned().into_os_string();
        if number > 0 {
            name.push(format!(".{number}"));
        }
        match rename_to_nothing(from, Path::new(&name)) {
            Err(Errno::EXIST) => {}
            renamed => return renamed.map_err(|error| RestoreError::io("move aside", from)(error.into())),
        }
    }
    Err(RestoreError::io("move aside", from)(Errno::EXIST.into()))
}

fn make_directories(path: &Path) -> Result<(), RestoreError> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(RestoreError::io("create", path))
}
