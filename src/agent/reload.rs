//! The settings in force, and the file that may have changed since.

use std::{fs::File, io, io::Write, os::fd::AsRawFd, os::unix::fs::MetadataExt, path::Path};

use rustix::fs::{MemfdFlags, memfd_create};

use super::config::AgentConfig;

/// Settings that were read and found right.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// What the agent is to do.
    pub config: AgentConfig,
    /// The file as it is.
    pub text: Vec<u8>,
    /// What the operator should know of it.
    pub warnings: Vec<String>,
}

/// Where settings come from.
pub trait Source: Send + Sync {
    /// Reads the file anew.
    ///
    /// # Errors
    /// Says what is wrong with it.
    fn load(&self) -> Result<Loaded, String>;
}

/// What tells a file from the one that it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    inode: u64,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// That of the file at `path`; `None` where there is none.
    pub fn of(path: &Path) -> Option<Stamp> {
        let found = std::fs::metadata(path).ok()?;
        Some(Stamp {
            inode: found.ino(),
            length: found.len(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        })
    }
}

/// The settings in force as a file that runs read: whatever becomes of the one on disk, and be the disk full.
#[derive(Debug)]
pub struct InForce {
    file: File,
}

impl InForce {
    /// Keeps `text`.
    ///
    /// # Errors
    /// The system's.
    pub fn keep(text: &[u8]) -> io::Result<InForce> {
        let mut file = File::from(memfd_create("haulout.toml", MemfdFlags::CLOEXEC)?);
        file.write_all(text)?;
        Ok(InForce { file })
    }

    /// Where a run of this user finds it.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_in_force_outlive_their_file() {
        let kept = InForce::keep(b"[repository]").unwrap();
        for _ in 0..2 {
            assert_eq!(std::fs::read(kept.path()).unwrap(), b"[repository]");
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        assert_eq!(Stamp::of(&path), None);
        std::fs::write(&path, "one").unwrap();
        let stamp = Stamp::of(&path).unwrap();
        assert_eq!(Stamp::of(&path), Some(stamp));
        std::fs::remove_file(&path).unwrap();
        std::fs::write(folder.path().join("g"), "x").unwrap();
        std::fs::write(&path, "two").unwrap();
        assert_ne!(Stamp::of(&path), Some(stamp));
    }
}
