//! Whether a restore may have a datadir: nothing is in it, and no server runs on it.

use std::{
    fmt,
    fs::{self, File},
    io,
    os::unix::{fs::FileTypeExt, net::UnixStream},
    path::{Path, PathBuf},
};

use rustix::process::{Flock, FlockType};

use crate::error::{Diagnose, Kind};

/// Files that a running server holds a lock on: InnoDB the first of the system tablespace, Aria its control file.
const LOCKED_FILES: [&str; 2] = ["ibdata1", "aria_log_control"];

/// Names of the server's program in `/proc/<pid>/comm`.
const SERVER_NAMES: [&str; 2] = ["mariadbd", "mysqld"];

/// Entries of a directory that are looked at for sockets and pid files.
const ENTRIES_MAX: usize = 100_000;

/// How it is known that a server runs on a datadir.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerEvidence {
    /// A process holds the server's lock on a file.
    LockedFile {
        /// The file.
        file: PathBuf,
        /// The process; 0 when it lives in another container.
        pid: i32,
    },
    /// A server's working directory is the datadir, as is every MariaDB server's.
    WorkingDirectory {
        /// The process.
        pid: i32,
    },
    /// A pid file names a running server.
    PidFile {
        /// The file.
        file: PathBuf,
        /// The process.
        pid: i32,
    },
    /// Someone answers on a socket in the datadir.
    Socket {
        /// The socket.
        file: PathBuf,
    },
}

impl fmt::Display for ServerEvidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServerEvidence::LockedFile { file, pid } => write!(f, "process {pid} holds a lock on {file:?}"),
            ServerEvidence::WorkingDirectory { pid } => {
                write!(f, "it is the working directory of server process {pid}")
            }
            ServerEvidence::PidFile { file, pid } => write!(f, "{file:?} names the running server process {pid}"),
            ServerEvidence::Socket { file } => write!(f, "a server answers on {file:?}"),
        }
    }
}

/// Checks that a restore may put its files at `datadir`: nothing is there, or an empty directory, or one with nothing but
/// the `lost+found` of a file system's root, and no server runs there.
///
/// # Errors
/// When something is in the way, or cannot be looked at.
pub fn ensure_vacant(datadir: &Path) -> Result<(), DatadirError> {
    if let Some(evidence) = server_runs_on(datadir)? {
        return Err(DatadirError::InUse { datadir: datadir.to_owned(), evidence });
    }
    let entries = match fs::read_dir(datadir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // A dangling link is no free place: what is made through it lands where nobody looks.
            return match fs::symlink_metadata(datadir) {
                Err(_) => Ok(()),
                Ok(_) => Err(DatadirError::Look { path: datadir.to_owned(), source: error }),
            };
        }
        Err(source) => return Err(DatadirError::Look { path: datadir.to_owned(), source }),
    };
    for entry in entries {
        let entry = entry.map_err(|source| DatadirError::Look { path: datadir.to_owned(), source })?;
        if entry.file_name() != "lost+found" {
            return Err(DatadirError::NotEmpty { datadir: datadir.to_owned(), found: entry.file_name().into() });
        }
    }
    Ok(())
}

/// Looks for a server that runs on `datadir`, even when its files were deleted under it.
///
/// Nothing found is no proof on network storage, where the server may run on another machine.
///
/// # Errors
/// When the directory or a file that a server would lock cannot be read.
pub fn server_runs_on(datadir: &Path) -> Result<Option<ServerEvidence>, DatadirError> {
    for name in LOCKED_FILES {
        let path = datadir.join(name);
        if let Some(pid) = lock_holder(&path).map_err(|source| DatadirError::Look { path: path.clone(), source })? {
            return Ok(Some(ServerEvidence::LockedFile { file: path, pid }));
        }
    }
    if let Some(pid) = working_there(datadir) {
        return Ok(Some(ServerEvidence::WorkingDirectory { pid }));
    }
    answering(datadir)
}

/// The process that holds a write lock on the file (MariaDB `os0file.cc`, `os_file_lock`).
fn lock_holder(path: &Path) -> io::Result<Option<i32>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    // A read lock would be refused by the server's write lock; the question needs no right to write.
    let holder = rustix::process::fcntl_getlk(&file, &Flock::from(FlockType::ReadLock))?;
    Ok(holder.map(|lock| lock.pid.map_or(0, |pid| pid.as_raw_nonzero().get())))
}

/// A server whose working directory is, or was before it was deleted, `datadir`.
///
/// Processes of other users cannot be looked at without root, and are passed over.
fn working_there(datadir: &Path) -> Option<i32> {
    let wanted = resolved(datadir)?;
    let mut deleted = wanted.clone().into_os_string();
    deleted.push(" (deleted)");
    for entry in fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let there = |cwd: PathBuf| cwd == wanted || cwd == *deleted;
        if is_server(pid) && fs::read_link(entry.path().join("cwd")).is_ok_and(there) {
            return Some(pid);
        }
    }
    None
}

/// The path without symbolic links; its last part need not exist.
fn resolved(path: &Path) -> Option<PathBuf> {
    let absolute = std::path::absolute(path).ok()?;
    let parent = || Some(absolute.parent()?.canonicalize().ok()?.join(absolute.file_name()?));
    absolute.canonicalize().ok().or_else(parent)
}

fn is_server(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| SERVER_NAMES.contains(&name.trim_end()))
}

/// Looks at sockets and pid files in the datadir.
fn answering(datadir: &Path) -> Result<Option<ServerEvidence>, DatadirError> {
    let entries = match fs::read_dir(datadir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(DatadirError::Look { path: datadir.to_owned(), source }),
    };
    for entry in entries.take(ENTRIES_MAX) {
        let entry = entry.map_err(|source| DatadirError::Look { path: datadir.to_owned(), source })?;
        let file = entry.path();
        let socket = entry.file_type().is_ok_and(|kind| kind.is_socket());
        if socket && UnixStream::connect(&file).is_ok() {
            return Ok(Some(ServerEvidence::Socket { file }));
        }
        if file.extension().is_some_and(|ending| ending == "pid") {
            let pid = fs::read_to_string(&file).ok().and_then(|text| text.trim().parse().ok());
            if let Some(pid) = pid.filter(|pid| is_server(*pid)) {
                return Ok(Some(ServerEvidence::PidFile { file, pid }));
            }
        }
    }
    Ok(None)
}

/// Why a datadir cannot be restored into.
#[derive(Debug, thiserror::Error)]
pub enum DatadirError {
    /// Something is in it.
    #[error("datadir {datadir:?} is not empty: it holds {found:?}")]
    NotEmpty {
        /// The datadir.
        datadir: PathBuf,
        /// One of its entries.
        found: PathBuf,
    },
    /// A server runs on it.
    #[error("a server runs on datadir {datadir:?}: {evidence}")]
    InUse {
        /// The datadir.
        datadir: PathBuf,
        /// How it is known.
        evidence: ServerEvidence,
    },
    /// It cannot be looked at.
    #[error("cannot look at {path:?}")]
    Look {
        /// The directory or file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

impl Diagnose for DatadirError {
    fn kind(&self) -> Kind {
        match self {
            DatadirError::InUse { .. } => Kind::DatabaseRefused,
            DatadirError::NotEmpty { .. } => Kind::Usage,
            DatadirError::Look { .. } => Kind::Failed,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            DatadirError::NotEmpty { .. } => {
                Some("move its content away, or restore into another directory".to_owned())
            }
            DatadirError::InUse { .. } => Some("stop the server first".to_owned()),
            DatadirError::Look { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Some("run the restore as root or as the server's own user".to_owned())
            }
            DatadirError::Look { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_and_empty_directories_are_vacant() {
        let dir = tempfile::tempdir().unwrap();
        assert!(ensure_vacant(&dir.path().join("absent")).is_ok());
        assert!(ensure_vacant(dir.path()).is_ok());
        fs::create_dir(dir.path().join("lost+found")).unwrap();
        assert!(ensure_vacant(dir.path()).is_ok());
    }

    #[test]
    fn anything_else_is_in_the_way_and_named() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("ibdata1"), "").unwrap();
        let error = ensure_vacant(dir.path()).unwrap_err();
        assert!(error.to_string().contains("ibdata1") && error.kind() == Kind::Usage, "{error}");
        assert!(matches!(ensure_vacant(&dir.path().join("ibdata1")), Err(DatadirError::Look { .. })));
        std::os::unix::fs::symlink("/nowhere/at/all", dir.path().join("dangling")).unwrap();
        assert!(ensure_vacant(&dir.path().join("dangling")).is_err());
    }

    #[test]
    fn left_over_pid_files_and_sockets_are_no_server() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("old.pid"), "999999999\n").unwrap();
        fs::write(dir.path().join("own.pid"), format!("{}\n", std::process::id())).unwrap();
        drop(std::os::unix::net::UnixListener::bind(dir.path().join("old.sock")).unwrap());
        assert_eq!(server_runs_on(dir.path()).unwrap(), None);
    }
}
