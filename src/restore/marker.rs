//! The file that says what a directory holds and how far it is on its way to a datadir.
//!
//! It lies in the directory itself, so that it goes wherever that goes, and its name ends in `.tmp`: such files
//! `mariadb-backup --copy-back` leaves behind (MariaDB `backup_copy.cc`, `copy_back`), and `--prepare` and the server pass
//! over them.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::RestoreError;
use crate::format::Manifest;
use crate::model::{BackupId, Lsn, RepositoryId};
use crate::repository::ProcessIdentity;

/// Name of the file.
pub(super) const MARKER_NAME: &str = "haulout-restore.tmp";
/// Name of the file while it is being written.
const MARKER_NEXT_NAME: &str = "haulout-restore.next.tmp";
/// Longest file that is read: it names the entries of a datadir's top level, a hundred bytes for each schema.
const MARKER_BYTES_MAX: u64 = 64 << 20;
/// Version of the file of a whole backup.
const MARKER_FORMAT: u32 = 1;
/// Version of the file of single tables: who knows the first alone must not take them for a whole backup.
const PARTIAL_FORMAT: u32 = 2;
/// Version of the file of a directory whose files are written over: who does not know of it must not remove a datadir.
const REUSE_FORMAT: u32 = 3;

/// Version of the file of a directory in which binary log is replayed: who does not know of that must not take it for done before it is.
const REPLAY_FORMAT: u32 = 4;

/// How far a directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum State {
    /// The entries of a datadir are being moved in, whose files are reused.
    Taking,
    /// Files are being written.
    Filling,
    /// All files are there, as the backup has them.
    Fetched,
    /// `mariadb-backup --prepare` runs.
    Preparing,
    /// The files are those of a server that was shut down.
    Prepared,
    /// Binary log is being replayed.
    Replaying,
    /// All of it has been, and the files are again those of a server that was shut down.
    Replayed,
    /// Entries are being moved into the datadir one by one.
    Moving,
    /// All entries that a datadir needs are in one.
    Moved,
}

impl State {
    /// The word in messages.
    pub const fn name(self) -> &'static str {
        match self {
            State::Taking => "half taken over",
            State::Filling => "half fetched",
            State::Fetched => "fetched",
            State::Preparing => "half prepared",
            State::Prepared => "prepared",
            State::Replaying => "half replayed",
            State::Replayed => "replayed",
            State::Moving => "half moved",
            State::Moved => "moved into its datadir",
        }
    }
}

/// Entries on their way into a datadir.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Moving {
    /// The datadir.
    pub datadir: PathBuf,
    /// Names of the entries.
    pub entries: Vec<String>,
}

/// What a restore writes over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Reuse {
    /// True when the files were those of the datadir itself: nobody but a restore that reuses them may remove them.
    pub taken: bool,
    /// Where those go that the backup does not have.
    pub aside: PathBuf,
}

/// What a directory holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Marker {
    format: u32,
    /// How far it is.
    pub state: State,
    /// The repository that the backup is from.
    pub repository: RepositoryId,
    /// The backup.
    pub backup: BackupId,
    /// Version of its server.
    pub server_version: String,
    /// Where its redo log ends.
    pub last_lsn: Lsn,
    /// Length of its redo log, which the prepare goes through.
    pub redo_bytes: u64,
    /// Permission bits of the datadir.
    pub datadir_mode: u32,
    /// The run that works in the directory, or that worked there last.
    pub process: ProcessIdentity,
    /// Entries that are being moved.
    pub moving: Option<Moving>,
    /// True when only some tables were fetched.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub partial: bool,
    /// True when the prepare made its tables ready for other servers.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub exported: bool,
    /// What was there when it began to be filled, where that is reused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reuse: Option<Reuse>,
    /// Where it is replayed to, where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
}

impl Marker {
    /// A directory that begins to be filled with `manifest`'s backup.
    pub fn filling(manifest: &Manifest) -> Marker {
        Marker {
            format: MARKER_FORMAT,
            state: State::Filling,
            repository: manifest.repository_id,
            backup: manifest.id.clone(),
            server_version: manifest.server.version.clone(),
            last_lsn: manifest.lsn.last,
            redo_bytes: manifest.redo.bytes,
            datadir_mode: super::plan::Modes::of(manifest).datadir(),
            process: ProcessIdentity::current(),
            moving: None,
            partial: false,
            exported: false,
            reuse: None,
            target: None,
        }
    }

    /// The same of a directory in which binary log is replayed up to `target`.
    pub fn replayed_to(self, target: String) -> Marker {
        Marker { format: REPLAY_FORMAT, target: Some(target), ..self }
    }

    /// What it is once nothing is left to be done before it moves.
    pub fn done(&self) -> State {
        if self.target.is_some() { State::Replayed } else { State::Prepared }
    }

    /// The same of single tables.
    pub fn of_tables(self) -> Marker {
        Marker { format: PARTIAL_FORMAT, partial: true, ..self }
    }

    /// The same of a directory that holds something, which is written over.
    pub fn over(self, reuse: Reuse) -> Marker {
        let format = if self.target.is_some() { REPLAY_FORMAT } else { REUSE_FORMAT };
        Marker { format, reuse: Some(reuse), ..self }
    }

    /// True when the directory was the datadir.
    pub fn is_taken(&self) -> bool {
        self.reuse.as_ref().is_some_and(|reuse| reuse.taken)
    }

    fn expected_format(&self) -> u32 {
        match (&self.reuse, self.partial) {
            _ if self.target.is_some() => REPLAY_FORMAT,
            (Some(_), _) => REUSE_FORMAT,
            (None, true) => PARTIAL_FORMAT,
            (None, false) => MARKER_FORMAT,
        }
    }

    /// True when the directory holds the same of the same backup as `other`.
    pub fn is_of_same_backup(&self, other: &Marker) -> bool {
        self.repository == other.repository
            && self.backup == other.backup
            && (self.partial, self.exported, &self.target) == (other.partial, other.exported, &other.target)
    }

    /// Names lead nowhere but into a directory's top level, whoever wrote them.
    fn names_are_plain(&self) -> bool {
        let plain = |name: &String| !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\0']);
        self.moving.as_ref().is_none_or(|moving| moving.entries.iter().all(plain))
    }

    /// The marker of `directory`, if it has one that can be read.
    ///
    /// # Errors
    /// When the file is there and cannot be read.
    pub fn read(directory: &Path) -> Result<Option<Marker>, RestoreError> {
        let path = directory.join(MARKER_NAME);
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(RestoreError::io("open", &path))?,
        };
        let mut bytes = Vec::new();
        file.take(MARKER_BYTES_MAX).read_to_end(&mut bytes).map_err(RestoreError::io("read", &path))?;
        let marker: Option<Marker> = serde_json::from_slice(&bytes).ok();
        Ok(marker.filter(|marker| marker.format == marker.expected_format() && marker.names_are_plain()))
    }

    /// Writes the marker of `directory`, which is then either the old one or the new one, also after a power cut.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, directory: &Path) -> Result<(), RestoreError> {
        let (next, path) = (directory.join(MARKER_NEXT_NAME), directory.join(MARKER_NAME));
        let bytes = serde_json::to_vec(self).map_err(|error| RestoreError::io("write", &path)(error.into()))?;
        let write = || {
            let mut file = File::create(&next)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            fs::rename(&next, &path)?;
            File::open(directory)?.sync_all()
        };
        write().map_err(RestoreError::io("write", &path))
    }

    /// Removes the marker of `directory`, if it has one.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn remove(directory: &Path) -> Result<(), RestoreError> {
        for name in [MARKER_NEXT_NAME, MARKER_NAME] {
            let path = directory.join(name);
            match fs::remove_file(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                removed => removed.map_err(RestoreError::io("remove", path))?,
            }
        }
        Ok(())
    }
}

/// True for names of this file, in whatever state.
pub(super) fn is_marker(name: &str) -> bool {
    name == MARKER_NAME || name == MARKER_NEXT_NAME
}
