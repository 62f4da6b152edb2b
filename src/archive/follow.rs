//! Reads the copies of the server's files as they grow, one after the other.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Instant;

use rustix::fs::FallocateFlags;

use super::ArchiveError;
use super::cut::{Cutter, Draft};
use crate::mariadb::binlog::{BinlogError, MAGIC};
use crate::model::GtidSet;

/// Bytes read at a time.
const READ_BYTES: usize = 256 << 10;
/// Bytes of a copy that are kept in memory until they are stored, so that they are not read again: a segment of the usual size. What is longer
/// than that is read again.
const KEPT_BYTES_MAX: usize = 17 << 20;
/// Bytes that are read again at a time.
const READ_AGAIN_BYTES: usize = 1 << 20;
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

/// The bytes of a copy that were read last, a stretch of it.
#[derive(Default)]
pub(super) struct Kept {
    bytes: Vec<u8>,
    /// Where the stretch begins in the copy.
    at: u64,
    /// How much of it was taken apart.
    taken: usize,
    /// Its length.
    end: usize,
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kept").field("at", &self.at).field("taken", &self.taken).field("end", &self.end).finish()
    }
}

impl Kept {
    fn is_taken(&self) -> bool {
        self.taken == self.end
    }

    fn rest(&self) -> &[u8] {
        &self.bytes[self.taken..self.end]
    }

    /// Room for the next bytes; where there is none, all that was taken is let go of.
    fn room(&mut self) -> &mut [u8] {
        if self.end + READ_BYTES > self.bytes.len() {
            self.let_go(self.taken);
        }
        let end = self.bytes.len().min(self.end + READ_BYTES);
        &mut self.bytes[self.end..end]
    }

    fn let_go(&mut self, length: usize) {
        self.bytes.copy_within(length..self.end, 0);
        (self.at, self.taken, self.end) = (self.at + length as u64, self.taken - length, self.end - length);
    }

    fn let_go_before(&mut self, at: u64) {
        let length = usize::try_from(at.saturating_sub(self.at)).unwrap_or(usize::MAX);
        self.let_go(length.min(self.taken));
    }

    /// Begins anew, at the beginning of another copy.
    fn begin(&mut self) {
        (self.at, self.taken, self.end) = (0, 0, 0);
    }

    /// The first bytes of `range` of the copy `file`: from memory, where they are kept, else read anew into `buffer`, as many as fit.
    ///
    /// # Errors
    /// When the copy cannot be read.
    pub(super) fn read<'a>(&'a self, file: &File, range: Range<u64>, buffer: &'a mut Vec<u8>) -> io::Result<&'a [u8]> {
        let (first, behind) = (self.at, self.at + self.taken as u64);
        if (first..behind).contains(&range.start) {
            let from = (range.start - first) as usize;
            let length = usize::try_from(range.end - range.start).unwrap_or(usize::MAX).min(self.taken - from);
            return Ok(&self.bytes[from..from + length]);
        }
        let end = if range.start < first { range.end.min(first) } else { range.end };
        let length = usize::try_from(end - range.start).unwrap_or(usize::MAX).min(READ_AGAIN_BYTES);
        buffer.resize(READ_AGAIN_BYTES.max(length), 0);
        file.read_exact_at(&mut buffer[..length], range.start)?;
        Ok(&buffer[..length])
    }
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
    kept: Kept,
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
            kept: Kept { bytes: vec![0; KEPT_BYTES_MAX], ..Kept::default() },
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
        if self.kept.is_taken() && !self.fill()? {
            // What is there of a later file was written when this one had been closed.
            if self.later()?.is_none() {
                return Ok(Found::Nothing);
            }
            if !self.fill()? {
                return Ok(Found::FileEnd);
            }
        }
        let mut bytes = self.kept.rest();
        while self.magic < MAGIC.len() && !bytes.is_empty() {
            if bytes[0] != MAGIC[self.magic] {
                let problem = "it does not begin as a binary log does".to_owned();
                return Err(BinlogError::Damaged { what: self.name.clone(), at: 0, problem }.into());
            }
            (self.magic, bytes) = (self.magic + 1, &bytes[1..]);
        }
        let full = self.cutter.push(&mut bytes, now, bytes_max);
        self.kept.taken = self.kept.end - bytes.len();
        Ok(if full? { Found::Full } else { Found::Some })
    }

    fn fill(&mut self) -> Result<bool, ArchiveError> {
        let Some(file) = &mut self.file else { return Ok(false) };
        match file.read(self.kept.room()) {
            Ok(length) => {
                self.kept.end += length;
                Ok(length > 0)
            }
            Err(error) => Err(self.spool(error)),
        }
    }

    /// Lends what was read and is not stored yet; until it is brought back, nothing can be read.
    pub(super) fn lend(&mut self) -> Kept {
        std::mem::take(&mut self.kept)
    }

    /// Takes back what was lent; what is settled is kept no longer.
    pub(super) fn bring_back(&mut self, mut kept: Kept) {
        kept.let_go_before(self.cutter.settled_copy());
        self.kept = kept;
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
        (self.name, self.file, self.magic, self.cut_away) = (next, None, 0, 0);
        self.kept.begin();
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_kept_and_what_is_read_again_are_the_bytes_of_the_copy(
            steps in prop::collection::vec((0usize..400, 0u64..900), 1..12),
            from in 0u64..2500,
        ) {
            let bytes: Vec<u8> = (0..2500u32).map(|at| (at * 7 % 251) as u8).collect();
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), &bytes).unwrap();
            let mut reading = File::open(file.path()).unwrap();
            // Less than is read at a time: so all is let go of, again and again.
            let mut kept = Kept { bytes: vec![0; 700], ..Kept::default() };
            for (taken, settled) in steps {
                let length = reading.read(kept.room()).unwrap();
                kept.end += length;
                kept.taken = kept.end.min(kept.taken + taken.max(1));
                kept.let_go_before(settled);
                if !kept.is_taken() {
                    let at = kept.at as usize + kept.taken;
                    prop_assert_eq!(kept.rest(), &bytes[at..at + kept.rest().len()]);
                }
                kept.taken = kept.end;
            }
            let (mut found, mut at, mut buffer) = (Vec::new(), from, Vec::new());
            while at < 2500 {
                let part = kept.read(&reading, at..2500, &mut buffer).unwrap();
                prop_assert!(!part.is_empty());
                found.extend_from_slice(part);
                at += part.len() as u64;
            }
            prop_assert_eq!(&found[..], &bytes[from as usize..]);
        }
    }
}
