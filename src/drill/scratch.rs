//! The directory in which a drill works, and what is left there of one that was killed.
//!
//! ```text
//! <scratch>/haulout-drill.json   whose all of this is; written first, removed last
//! <scratch>/data                 the restored files
//! <scratch>/run                  socket, process id and init file of the server
//! <scratch>/tmp                  temporary files of the server
//! ```
//! A lock on the directory says that a drill is at work; it ends with the process, and no child inherits it. So whoever has the lock and
//! finds the marker knows that the drill is gone. Its children may not be: a prepare goes on, and a server takes a moment to notice. They
//! are known by what they do, not by their names: the process that InnoDB's or Aria's lock on the files names, or the server's own file
//! with its process id, and whose working directory these files are.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

use super::DrillError;
use crate::mariadb::datadir::{ServerEvidence, server_runs_on};
use crate::mariadb::scratch::PID_FILE;
use crate::model::BackupId;
use crate::repository::ProcessIdentity;

/// Name of the marker.
const MARKER: &str = "haulout-drill.json";
/// Name of the directory with the restored files.
const DATA: &str = "data";
/// Name of the directory with socket and process id.
const RUN: &str = "run";
/// Name of the directory with temporary files.
const TEMPORARY: &str = "tmp";
/// What the root of a file system holds besides.
const LOST_AND_FOUND: &str = "lost+found";
/// How long a directory is waited for that somebody holds: a run that was killed needs a moment to end, a living one hours.
const LOCK_LIMIT: Duration = Duration::from_secs(5);
/// How long a child of a drill that was killed has to end after SIGKILL: the kernel takes its memory back.
const KILL_LIMIT: Duration = Duration::from_secs(60);
/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(50);
/// Threads that remove files.
const REMOVERS: usize = 4;
/// Directories whose files are removed by several threads: schemas, mostly. Those of others are removed one by one.
const DIRECTORIES_MAX: usize = 10_000;
/// Longest marker and file with a process id that are read.
const SMALL_BYTES_MAX: u64 = 4096;

/// Whose the directory is, for people and for the next drill.
#[derive(Debug, Serialize, Deserialize)]
struct Marker {
    backup: BackupId,
    process: ProcessIdentity,
    /// True when a drill made the directory.
    made: bool,
}

/// A directory that this drill alone works in.
#[derive(Debug)]
pub(super) struct Scratch {
    path: PathBuf,
    /// True when this drill, or the one whose leftovers it found, made the directory.
    made: bool,
    /// What a drill that was killed had left.
    pub leftovers: bool,
    _lock: Option<OwnedFd>,
}

impl Scratch {
    /// Takes the directory at `path`, and makes it where it is missing. What a drill left there that was killed is ended and removed.
    ///
    /// # Errors
    /// When another drill works there, or something is in it that no drill left.
    pub fn take(path: &Path, backup: &BackupId) -> Result<Scratch, DrillError> {
        let absolute = std::path::absolute(path).map_err(DrillError::io("look at", path))?;
        let (made, lock) = lock(&absolute)?;
        // The server is told the path without links, as the kernel knows it.
        let path = absolute.canonicalize().map_err(DrillError::io("look at", &absolute))?;
        let marker = path.join(MARKER);
        let leftovers = !made && marker.symlink_metadata().is_ok();
        let made = made || read_marker(&marker).is_some_and(|marker| marker.made);
        let scratch = Scratch { path, made, leftovers, _lock: lock };
        if leftovers {
            scratch.remove_leftovers()?;
        }
        if let Some(found) = scratch.foreign()? {
            return Err(DrillError::NotEmpty { scratch: scratch.path, found });
        }
        scratch.mark(backup)?;
        for name in [RUN, TEMPORARY] {
            let path = scratch.path.join(name);
            fs::DirBuilder::new().mode(0o700).create(&path).map_err(DrillError::io("create", path))?;
        }
        Ok(scratch)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the restored files lie.
    pub fn data(&self) -> PathBuf {
        self.path.join(DATA)
    }

    /// Where socket and process id lie.
    pub fn run(&self) -> PathBuf {
        self.path.join(RUN)
    }

    /// Where temporary files lie.
    pub fn temporary(&self) -> PathBuf {
        self.path.join(TEMPORARY)
    }

    /// Removes all that the drill made.
    ///
    /// # Errors
    /// When something cannot be removed; the next drill tries again.
    pub fn remove(self) -> Result<(), DrillError> {
        self.clear()?;
        let marker = self.path.join(MARKER);
        fs::remove_file(&marker).map_err(DrillError::io("remove", marker))?;
        if self.made { fs::remove_dir(&self.path).map_err(DrillError::io("remove", &self.path)) } else { Ok(()) }
    }

    fn mark(&self, backup: &BackupId) -> Result<(), DrillError> {
        let path = self.path.join(MARKER);
        let marker = Marker { backup: backup.clone(), process: ProcessIdentity::current(), made: self.made };
        let bytes = serde_json::to_vec(&marker).map_err(|error| DrillError::io("write", &path)(error.into()))?;
        fs::write(&path, bytes).map_err(DrillError::io("write", path))
    }

    /// Removes all but the marker.
    fn clear(&self) -> Result<(), DrillError> {
        for name in [DATA, RUN, TEMPORARY] {
            let path = self.path.join(name);
            unlink_files(&path);
            match fs::remove_dir_all(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                removed => removed.map_err(DrillError::io("remove", path))?,
            }
        }
        Ok(())
    }

    /// An entry that no drill makes.
    fn foreign(&self) -> Result<Option<PathBuf>, DrillError> {
        for entry in fs::read_dir(&self.path).map_err(DrillError::io("list", &self.path))? {
            let name = entry.map_err(DrillError::io("list", &self.path))?.file_name();
            if name != MARKER && name != LOST_AND_FOUND {
                return Ok(Some(name.into()));
            }
        }
        Ok(None)
    }

    /// Ends the children of a drill that was killed, and removes its files. A child that has just begun holds no lock yet and may make
    /// another file while they are removed: it is found by a second look, or ends by itself because its files are gone.
    fn remove_leftovers(&self) -> Result<(), DrillError> {
        let begun = Instant::now();
        loop {
            self.stop_leftovers()?;
            match self.clear() {
                Err(DrillError::Io { .. }) if begun.elapsed() < LOCK_LIMIT => std::thread::sleep(PAUSE),
                cleared => return cleared,
            }
        }
    }

    /// Ends the children of a drill that was killed.
    fn stop_leftovers(&self) -> Result<(), DrillError> {
        let (data, pid_file) = (self.data(), self.run().join(PID_FILE));
        let begun = Instant::now();
        while data.is_dir() {
            let evidence = server_runs_on(&data)?;
            let named = read_small(&pid_file).and_then(|text| text.trim().parse().ok());
            let children: Vec<OwnedFd> = [evidence.as_ref().and_then(pid_of), named]
                .into_iter()
                .flatten()
                .filter_map(|pid| child(pid, &data))
                .collect();
            match evidence {
                None if children.is_empty() => return Ok(()),
                Some(evidence) if children.is_empty() && begun.elapsed() > LOCK_LIMIT => {
                    return Err(DrillError::Occupied { scratch: self.path.clone(), evidence });
                }
                Some(evidence) if begun.elapsed() > KILL_LIMIT => {
                    return Err(DrillError::Occupied { scratch: self.path.clone(), evidence });
                }
                _ => {}
            }
            for child in children {
                // It may just have ended.
                pidfd_send_signal(&child, Signal::KILL).ok();
            }
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }
}

/// Removes files under the directory `path`, as far as that goes: several at once, because taking what the system keeps of a file's bytes
/// from its memory is a quarter of a second for each GiB. Directories stay, and files that come meanwhile.
fn unlink_files(path: &Path) {
    let (mut directories, mut next) = (vec![path.to_owned()], 0);
    while next < directories.len() {
        let entries = fs::read_dir(&directories[next]).into_iter().flatten().flatten();
        let inner = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        let inner: Vec<_> =
            inner.map(|entry| entry.path()).take(DIRECTORIES_MAX.saturating_sub(directories.len())).collect();
        directories.extend(inner);
        next += 1;
    }
    for directory in directories {
        let Ok(entries) = fs::read_dir(&directory) else { continue };
        let entries = Mutex::new(entries.flatten());
        std::thread::scope(|scope| {
            for _ in 0..REMOVERS {
                scope.spawn(|| {
                    let next = || entries.lock().unwrap_or_else(PoisonError::into_inner).next();
                    while let Some(entry) = next() {
                        if entry.file_type().is_ok_and(|kind| !kind.is_dir()) {
                            // Whatever stays is for the one that removes the directory, and tells why it cannot.
                            fs::remove_file(entry.path()).ok();
                        }
                    }
                });
            }
        });
    }
}

/// The process that is known to work on a drill's files.
fn pid_of(evidence: &ServerEvidence) -> Option<i32> {
    match evidence {
        ServerEvidence::LockedFile { pid, .. }
        | ServerEvidence::WorkingDirectory { pid }
        | ServerEvidence::PidFile { pid, .. } => Some(*pid).filter(|pid| *pid > 0),
        ServerEvidence::Socket { .. } => None,
    }
}

/// The process `pid`, if its working directory is `data`. That is looked at after the process was taken hold of, so that what gets the
/// signal is what was looked at, or nothing.
fn child(pid: i32, data: &Path) -> Option<OwnedFd> {
    let handle = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
    let directory = fs::read_link(format!("/proc/{pid}/cwd")).ok()?;
    (directory == data).then_some(handle)
}

fn read_small(path: &Path) -> Option<String> {
    use std::io::Read;
    let mut text = String::new();
    fs::File::open(path).ok()?.take(SMALL_BYTES_MAX).read_to_string(&mut text).ok()?;
    Some(text)
}

fn read_marker(path: &Path) -> Option<Marker> {
    serde_json::from_str(&read_small(path)?).ok()
}

/// Makes, opens and locks the directory at `path`; tells whether it was made.
fn lock(path: &Path) -> Result<(bool, Option<OwnedFd>), DrillError> {
    let begun = Instant::now();
    loop {
        let made = match fs::DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
            made => made.map(|()| true).map_err(DrillError::io("create", path))?,
        };
        // With CLOEXEC: children are told apart from the drill by it.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = match rustix::fs::openat(CWD, path, flags, Mode::empty()) {
            // Its drill has just removed it.
            Err(Errno::NOENT) if begun.elapsed() < LOCK_LIMIT => continue,
            directory => directory.map_err(|error| DrillError::io("open", path)(error.into()))?,
        };
        match rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) if is_at(&directory, path) => return Ok((made, Some(directory))),
            Ok(()) | Err(Errno::WOULDBLOCK) if begun.elapsed() < LOCK_LIMIT => std::thread::sleep(PAUSE),
            Ok(()) | Err(Errno::WOULDBLOCK) => {
                let marker = read_marker(&path.join(MARKER));
                let who = marker.map_or("a run that just begins".to_owned(), |marker| marker.process.to_string());
                return Err(DrillError::Busy { scratch: path.to_owned(), who });
            }
            // File systems that lock files only: there, nothing tells two drills at once apart.
            Err(_) => return Ok((made, None)),
        }
    }
}

/// True when `path` still leads to `directory`, which its drill may have removed before it was locked.
fn is_at(directory: &OwnedFd, path: &Path) -> bool {
    let (Ok(opened), Ok(named)) = (rustix::fs::fstat(directory), rustix::fs::stat(path)) else { return false };
    (opened.st_dev, opened.st_ino) == (named.st_dev, named.st_ino)
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;

    fn id() -> BackupId {
        "20261122T020000Z-3f9a16".parse().unwrap()
    }

    fn entries(path: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_drill_leaves_nothing_and_no_directory_that_it_made() {
        let folder = tempfile::tempdir().unwrap();
        let (made, found) = (folder.path().join("made"), folder.path().join("found"));
        fs::create_dir(&found).unwrap();
        for (path, stays) in [(&made, false), (&found, true)] {
            let scratch = Scratch::take(path, &id()).unwrap();
            assert!(!scratch.leftovers && entries(path) == [MARKER, RUN, TEMPORARY], "{:?}", entries(path));
            fs::create_dir(scratch.data()).unwrap();
            fs::write(scratch.data().join("ibdata1"), "pages").unwrap();
            scratch.remove().unwrap();
            assert_eq!(path.exists(), stays);
        }
        assert_eq!(entries(&found), [""; 0]);
    }

    #[test]
    fn what_is_removed_are_a_drills_files_and_links_and_not_what_links_lead_to() {
        let folder = tempfile::tempdir().unwrap();
        let (elsewhere, path) = (folder.path().join("elsewhere"), folder.path().join("drill"));
        fs::create_dir(&elsewhere).unwrap();
        fs::write(elsewhere.join("t.ibd"), "mine").unwrap();
        let scratch = Scratch::take(&path, &id()).unwrap();
        for schema in ["", "shop", "shop/deeper"] {
            fs::create_dir_all(scratch.data().join(schema)).unwrap();
            for table in 0..40 {
                fs::write(scratch.data().join(schema).join(format!("t{table}.ibd")), "pages").unwrap();
            }
        }
        std::os::unix::fs::symlink(&elsewhere, scratch.data().join("directory")).unwrap();
        std::os::unix::fs::symlink(elsewhere.join("t.ibd"), scratch.data().join("shop/file")).unwrap();
        unlink_files(&scratch.data());
        assert_eq!(
            (entries(&scratch.data()), entries(&scratch.data().join("shop"))),
            (vec!["shop".into()], vec!["deeper".into()])
        );
        scratch.remove().unwrap();
        assert_eq!((path.exists(), entries(&elsewhere)), (false, vec!["t.ibd".into()]));
    }

    #[test]
    fn a_directory_that_a_killed_drill_had_made_goes_with_what_it_left() {
        let folder = tempfile::tempdir().unwrap();
        let (made, found) = (folder.path().join("made"), folder.path().join("found"));
        fs::create_dir(&found).unwrap();
        for (path, stays) in [(&made, false), (&found, true)] {
            for _ in 0..3 {
                drop(Scratch::take(path, &id()).unwrap());
            }
            let scratch = Scratch::take(path, &id()).unwrap();
            assert!(scratch.leftovers);
            scratch.remove().unwrap();
            assert_eq!(path.exists(), stays);
        }
    }

    #[test]
    fn what_no_drill_left_is_not_touched() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["ibdata1", "data"] {
            let path = folder.path().join(name);
            fs::create_dir(&path).unwrap();
            fs::write(path.join(name), "mine").unwrap();
            let error = Scratch::take(&path, &id()).unwrap_err();
            assert!(matches!(error, DrillError::NotEmpty { .. }), "{error}");
            assert_eq!(entries(&path), [name]);
        }
        // Nor what lies beside the leftovers of a drill.
        let path = folder.path().join("both");
        fs::create_dir(&path).unwrap();
        fs::write(path.join(MARKER), "{").unwrap();
        fs::write(path.join("letter"), "mine").unwrap();
        assert!(Scratch::take(&path, &id()).is_err());
        assert_eq!(entries(&path), [MARKER, "letter"]);
    }

    #[test]
    fn two_drills_do_not_work_in_one_directory_and_the_second_says_who_does() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("scratch");
        let first = Scratch::take(&path, &id()).unwrap();
        let error = Scratch::take(&path, &id()).unwrap_err();
        assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
        first.remove().unwrap();
        Scratch::take(&path, &id()).unwrap().remove().unwrap();
    }

    /// A process in `directory` that a pid file there may name.
    fn process(directory: &Path) -> Child {
        Command::new("/bin/cat").current_dir(directory).stdin(Stdio::piped()).spawn().unwrap()
    }

    #[test]
    fn of_the_leftovers_of_a_killed_drill_its_server_is_ended_and_nobody_elses() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("scratch");
        let scratch = Scratch::take(&path, &id()).unwrap();
        fs::create_dir(scratch.data()).unwrap();
        // As after a kill: the lock is gone, the files are not.
        drop(scratch);
        let data = path.canonicalize().unwrap().join(DATA);
        let (mut server, mut shell, mut elsewhere) = (process(&data), process(&data), process(folder.path()));
        fs::write(path.join(RUN).join(PID_FILE), format!("{}\n", server.id())).unwrap();
        let scratch = Scratch::take(&path, &id()).unwrap();
        assert!(scratch.leftovers);
        assert!(!server.wait().unwrap().success());
        // Whoever merely looks at the files is none of the drill's.
        assert!(shell.try_wait().unwrap().is_none());
        // A number that was another's before is not believed.
        fs::create_dir(scratch.data()).unwrap();
        fs::write(path.join(RUN).join(PID_FILE), format!("{}\n", elsewhere.id())).unwrap();
        drop(scratch);
        Scratch::take(&path, &id()).unwrap().remove().unwrap();
        assert!(elsewhere.try_wait().unwrap().is_none());
        for child in [&mut shell, &mut elsewhere] {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}
