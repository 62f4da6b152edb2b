//! Reads the copies of the server's files as they grow, one after the other.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use rustix::fs::FallocateFlags;

use super::ArchiveError;
use super::cut::{Cutter, Draft};
use crate::mariadb::binlog::{BinlogError, MAGIC};
use crate::model::GtidSet;

/// Bytes read at a time.
const READ_BYTES: usize = 256 << 10;
/// Least that is cut away of a copy at once: each time costs the file system some work.
const CUT_AWAY_MIN: u64 = 1 << 20;
/// Blocks of a file system that a cut may have to leave.
const BLOCK_BYTES: u64 = 4096;
/// Bytes of a unit of `st_blocks`.
const STAT_BLOCK_BYTES: u64 = 512;

/// What reading on has given.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// There are transactions enough for a segment.
    Full,
    /// Bytes came.
    Some,
    /// All that is there was read.
    Nothing,
    /// The file is at its end, and the server's log goes on in another.
    FileEnd,
}

/// Files of a log in their order: numbers have six digits, or more.
pub(super) fn order(file: &str) -> (usize, &str) {
    (file.len(), file)
}

/// Follows the copies in a directory.
#[derive(Debug)]
pub(super) struct Reader {
    directory: PathBuf,
    name: String,
    cutter: Cutter,
    file: Option<File>,
    /// Bytes of the file's first four that have come.
    magic: usize,
    buffer: Vec<u8>,
    /// What was read and not taken yet.
    rest: std::ops::Range<usize>,
    cut_away: u64,
    /// False once the file system has refused to give room back.
    can_cut_away: bool,
}

impl Reader {
    /// A reader of the copies in `directory`, of which that of `name` comes first, from byte `position` on.
    pub(super) fn new(directory: PathBuf, name: &str, position: u64, at: GtidSet) -> Reader {
        Reader {
            directory,
            name: name.to_owned(),
            cutter: Cutter::new(name, position, at),
            file: None,
            magic: 0,
            buffer: vec![0; READ_BYTES],
            rest: 0..0,
            cut_away: 0,
            can_cut_away: true,
        }
    }

    /// The file in hand, by the server's name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// What is made of it.
    pub(super) fn cutter(&self) -> &Cutter {
        &self.cutter
    }

    /// Takes whole transactions, and where their bytes lie.
    pub(super) fn cut(&mut self, now: Instant) -> Option<(PathBuf, Draft)> {
        Some((self.path(), self.cutter.cut(now)?))
    }

    fn path(&self) -> PathBuf {
        self.directory.join(&self.name)
    }

    fn spool(&self, source: io::Error) -> ArchiveError {
        ArchiveError::Spool { directory: self.directory.clone(), source }
    }

    /// Reads on, a little.
    ///
    /// # Errors
    /// When the copy cannot be read or is damaged; what came before that can still be cut.
    pub(super) fn read(&mut self, now: Instant, bytes_max: u64) -> Result<Found, ArchiveError> {
        if self.file.is_none() {
            match File::open(self.path()) {
                Ok(file) => self.file = Some(file),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
                Err(error) => return Err(self.spool(error)),
            }
        }
        if self.rest.is_empty() && !self.fill()? {
            // What is there of a later file was written when this one had been closed.
            if self.later()?.is_none() {
                return Ok(Found::Nothing);
            }
            if !self.fill()? {
                return Ok(Found::FileEnd);
            }
        }
        let mut bytes = &self.buffer[self.rest.clone()];
        while self.magic < MAGIC.len() && !bytes.is_empty() {
            if bytes[0] != MAGIC[self.magic] {
                let problem = "it does not begin as a binary log does".to_owned();
                return Err(BinlogError::Damaged { what: self.name.clone(), at: 0, problem }.into());
            }
            (self.magic, bytes) = (self.magic + 1, &bytes[1..]);
        }
        let full = self.cutter.push(&mut bytes, now, bytes_max);
        self.rest.start = self.rest.end - bytes.len();
        Ok(if full? { Found::Full } else { Found::Some })
    }

    fn fill(&mut self) -> Result<bool, ArchiveError> {
        let Some(file) = &mut self.file else { return Ok(false) };
        match file.read(&mut self.buffer) {
            Ok(length) => {
                self.rest = 0..length;
                Ok(length > 0)
            }
            Err(error) => Err(self.spool(error)),
        }
    }

    /// The name of the file behind the one in hand.
    fn later(&self) -> Result<Option<String>, ArchiveError> {
        let entries = fs::read_dir(&self.directory).map_err(|error| self.spool(error))?;
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        Ok(names.filter(|name| order(name) > order(&self.name)).min_by(|one, other| order(one).cmp(&order(other))))
    }

    /// Goes on to the next file, when the one in hand is at its end and all of it is stored; true when the server had left a transaction
    /// unfinished, which then is none.
    ///
    /// # Errors
    /// When the directory cannot be read, or the file not be removed.
    pub(super) fn turn(&mut self) -> Result<bool, ArchiveError> {
        let Some(next) = self.later()? else { return Ok(false) };
        let unfinished = self.cutter.is_amid();
        fs::remove_file(self.path()).map_err(|error| self.spool(error))?;
        self.cutter = Cutter::new(&next, MAGIC.len() as u64, self.cutter.position().clone());
        (self.name, self.file, self.magic, self.rest, self.cut_away) = (next, None, 0, 0..0, 0);
        Ok(unfinished)
    }

    /// Gives back the room of what is stored. False when the file system cannot, told once.
    pub(super) fn give_back(&mut self) -> bool {
        let head = BLOCK_BYTES;
        let from = self.cut_away.max(head);
        let to = self.cutter.settled_copy() / BLOCK_BYTES * BLOCK_BYTES;
        if !self.can_cut_away || to < from + CUT_AWAY_MIN {
            return true;
        }
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let copy = OpenOptions::new().write(true).open(self.path());
        self.can_cut_away = copy.is_ok_and(|copy| rustix::fs::fallocate(copy, flags, from, to - from).is_ok());
        self.cut_away = to;
        self.can_cut_away
    }
}

/// Bytes on disk of the files below `directory`; what cannot be seen counts as nothing.
pub(super) fn bytes_below(directory: &Path) -> u64 {
    let files = fs::read_dir(directory).into_iter().flatten().flatten();
    files.filter_map(|file| Some(file.metadata().ok()?.blocks() * STAT_BLOCK_BYTES)).sum()
}
