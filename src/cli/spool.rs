//! The directory in which a run keeps what waits for the store.

use std::{
    fs::{self, DirBuilder, Permissions},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use super::failure::Failure;
use crate::error::Kind;

/// A directory of one repository's backups on this machine, which nobody else can read.
///
/// Its parent is often `/var/tmp`, where everyone may write: what waits there are pages of the database, and what lies
/// there from an earlier run is deleted. So neither strangers nor the backups of another repository may share it.
#[derive(Debug)]
pub struct SpoolDirectory(PathBuf);

impl SpoolDirectory {
    /// Makes the directory of repository `url` in `parent`, or finds the one of an earlier run.
    ///
    /// # Errors
    /// When it cannot be made, or something of another user stands in its place.
    pub fn make(parent: &Path, url: &str) -> Result<SpoolDirectory, Failure> {
        SpoolDirectory::named(parent, "haulout", url)
    }

    /// Makes the directory for binary logs that go to repository `url`: backups clear theirs.
    ///
    /// # Errors
    /// As of [`SpoolDirectory::make`].
    pub fn make_for_binlogs(parent: &Path, url: &str) -> Result<SpoolDirectory, Failure> {
        SpoolDirectory::named(parent, "haulout-binlogs", url)
    }

    fn named(parent: &Path, name: &str, url: &str) -> Result<SpoolDirectory, Failure> {
        let hash = blake3::hash(url.as_bytes()).to_hex();
        let path = parent.join(format!("{name}-{}", &hash[..16]));
        let failed = |error: io::Error| {
            Failure::of_io(format!("cannot make the spool directory {}", path.display()), &error)
                .with_hint("give a directory that can be written, with --spool-dir")
        };
        DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(failed)?;
        let found = fs::symlink_metadata(&path).map_err(failed)?;
        if !found.is_dir() || found.uid() != rustix::process::geteuid().as_raw() {
            let message = format!("spool directory {} belongs to somebody else", path.display());
            return Err(Failure::new(Kind::Failed, message).with_hint("give a directory of your own, with --spool-dir"));
        }
        if found.mode() & 0o077 != 0 {
            fs::set_permissions(&path, Permissions::from_mode(0o700)).map_err(failed)?;
        }
        Ok(SpoolDirectory(path))
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for SpoolDirectory {
    fn drop(&mut self) {
        // Fails where something is left in it, which the next run clears.
        let _ = fs::remove_dir(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spool_is_of_one_repository_and_closed_to_others() {
        let parent = tempfile::tempdir().unwrap();
        let one = SpoolDirectory::make(parent.path(), "s3://b/db1").unwrap();
        let other = SpoolDirectory::make(parent.path(), "s3://b/db2").unwrap();
        assert_ne!(one.path(), other.path());
        assert_ne!(one.path(), SpoolDirectory::make_for_binlogs(parent.path(), "s3://b/db1").unwrap().path());
        assert_eq!(one.path().parent(), Some(parent.path()));
        assert_eq!(fs::metadata(one.path()).unwrap().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_spool_left_open_is_closed() {
        let parent = tempfile::tempdir().unwrap();
        let path = SpoolDirectory::make(parent.path(), "s3://b").unwrap().path().to_owned();
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o777)).unwrap();
        let again = SpoolDirectory::make(parent.path(), "s3://b").unwrap();
        assert_eq!(fs::metadata(again.path()).unwrap().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_link_in_its_place_is_not_followed() {
        let parent = tempfile::tempdir().unwrap();
        let path = SpoolDirectory::make(parent.path(), "s3://b").unwrap().path().to_owned();
        let elsewhere = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(elsewhere.path(), &path).unwrap();
        assert!(SpoolDirectory::make(parent.path(), "s3://b").unwrap_err().message.contains("somebody else"));
    }

    #[test]
    fn an_empty_spool_leaves_nothing_behind_and_a_full_one_stays() {
        let parent = tempfile::tempdir().unwrap();
        let spool = SpoolDirectory::make(parent.path(), "s3://b").unwrap();
        let path = spool.path().to_owned();
        drop(spool);
        assert!(!path.exists());
        let spool = SpoolDirectory::make(parent.path(), "s3://b").unwrap();
        fs::write(path.join("1.pack"), "x").unwrap();
        drop(spool);
        assert!(path.exists());
    }

    #[test]
    fn a_parent_that_cannot_be_is_named_with_a_hint() {
        let parent = tempfile::NamedTempFile::new().unwrap();
        let failure = SpoolDirectory::make(parent.path(), "s3://b").unwrap_err();
        assert!(failure.hint.unwrap().contains("--spool-dir"));
    }
}
