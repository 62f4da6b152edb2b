//! Cuts files that are not InnoDB's, and the redo log.

use crossbeam_channel::bounded;

use super::{Origin, Outlets, REDO_FILE, RedoFacts, Step, StreamFacts};
use crate::backup::BackupError;
use crate::backup::work::{FileJob, Job};
use crate::format::map::FilePiece;
use crate::mariadb::plain_tables::{HEAD_BYTES, has_head};
use crate::mariadb::redo::{HEADER_BYTES, RedoHeader, RedoScanner};
use crate::mariadb::xbstream::FileNo;
use crate::model::Lsn;

/// Length of a chunk of a plain file, and of the redo log in LSNs.
const PIECE_BYTES: u64 = 1 << 20;
/// Longest plain file: the data file of a MyISAM table with the usual pointers of six bytes. What lies between two stretches is
/// written down as zeros, so that a stretch at the end of the world would take all memory.
const PLAIN_BYTES_MAX: u64 = 1 << 48;
/// Longest `.meta`, `.del` or `.ren`: a few lines.
const SMALL_BYTES_MAX: usize = 64 << 10;
/// Longest of the tool's own files that the run reads; the info file holds the command line and the GTIDs.
const CONTROL_BYTES_MAX: usize = 1 << 20;

/// A file of a few lines, kept in memory.
pub(super) struct SmallFile {
    path: String,
    bytes: Vec<u8>,
}

impl SmallFile {
    pub(super) fn new(path: &str) -> SmallFile {
        SmallFile { path: path.to_owned(), bytes: Vec::new() }
    }

    pub(super) fn data(&mut self, offset: u64, bytes: &[u8]) -> Result<(), BackupError> {
        let expected = self.bytes.len() as u64;
        if offset != expected || self.bytes.len() + bytes.len() > SMALL_BYTES_MAX {
            return Err(BackupError::OutOfOrder { path: self.path.clone(), expected, found: offset });
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    pub(super) fn take(self) -> (String, Vec<u8>) {
        (self.path, self.bytes)
    }
}

fn send(
    file: FileNo,
    offset: u64,
    bytes: Vec<u8>,
    base: Option<FilePiece>,
    outlets: &Outlets,
) -> Result<(), BackupError> {
    let (reply, result) = bounded(1);
    outlets.step(Step::Piece(file, offset, result))?;
    outlets.job(Job::File(FileJob { bytes, base }, reply))
}

/// Cuts a plain file at multiples of 1 MiB.
pub(super) struct PlainCutter {
    path: String,
    /// How it came, if it is the file of a tablespace without a first page.
    blank: Option<Origin>,
    /// A copy of the bytes, of the tool's own files.
    copy: Option<Vec<u8>>,
    /// First bytes of a table's definition.
    head: Option<Vec<u8>>,
    start: u64,
    buffer: Vec<u8>,
    length: u64,
}

impl PlainCutter {
    pub(super) fn blank(path: &str, origin: Origin) -> PlainCutter {
        PlainCutter { blank: Some(origin), ..PlainCutter::new(path, false) }
    }

    pub(super) fn new(path: &str, is_control: bool) -> PlainCutter {
        let head = (path.ends_with(".frm") || has_head(path)).then(Vec::new);
        let copy = is_control.then(Vec::new);
        PlainCutter { path: path.to_owned(), blank: None, copy, head, start: 0, buffer: Vec::new(), length: 0 }
    }

    pub(super) fn begin(&mut self, file: FileNo, outlets: &Outlets) -> Result<(), BackupError> {
        outlets.step(Step::BeginFile(file, self.path.clone()))?;
        self.blank.map_or(Ok(()), |origin| outlets.step(Step::Blank(file, origin)))
    }

    pub(super) fn data(
        &mut self,
        file: FileNo,
        offset: u64,
        bytes: &[u8],
        facts: &StreamFacts,
        outlets: &Outlets,
    ) -> Result<(), BackupError> {
        if offset.checked_add(bytes.len() as u64).is_none_or(|end| end > PLAIN_BYTES_MAX) {
            return Err(BackupError::TooLong { path: self.path.clone(), found: offset, limit: PLAIN_BYTES_MAX });
        }
        if offset != self.start + self.buffer.len() as u64 {
            // The tool went back to a header that it had left for later.
            self.flush(file, facts, outlets)?;
            self.start = offset;
        }
        if let Some(copy) = &mut self.copy {
            if offset != copy.len() as u64 || copy.len() + bytes.len() > CONTROL_BYTES_MAX {
                let expected = copy.len() as u64;
                return Err(BackupError::OutOfOrder { path: self.path.clone(), expected, found: offset });
            }
            copy.extend_from_slice(bytes);
        }
        if let Some(head) = &mut self.head
            && offset == head.len() as u64
        {
            head.extend_from_slice(&bytes[..bytes.len().min(HEAD_BYTES - head.len())]);
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            let end = (self.start / PIECE_BYTES + 1) * PIECE_BYTES;
            let room = (end - self.start) as usize - self.buffer.len();
            let taken = rest.len().min(room);
            self.buffer.extend_from_slice(&rest[..taken]);
            rest = &rest[taken..];
            if taken == room {
                self.flush(file, facts, outlets)?;
            }
        }
        self.length = self.length.max(self.start + self.buffer.len() as u64);
        Ok(())
    }

    fn flush(&mut self, file: FileNo, facts: &StreamFacts, outlets: &Outlets) -> Result<(), BackupError> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let bytes = std::mem::take(&mut self.buffer);
        let length = bytes.len() as u64;
        let base = match &facts.base {
            Some(base) => base.file_piece(&self.path, self.start, length)?,
            None => None,
        };
        send(file, self.start, bytes, base, outlets)?;
        self.start += length;
        Ok(())
    }

    pub(super) fn end(mut self, file: FileNo, facts: &StreamFacts, outlets: &Outlets) -> Result<(), BackupError> {
        self.flush(file, facts, outlets)?;
        if let Some(head) = self.head {
            outlets.step(Step::Definition(self.path.clone(), head))?;
        }
        if let Some(copy) = self.copy {
            outlets.step(Step::Control(self.path, copy))?;
        }
        outlets.step(Step::EndFile(file, self.length))
    }
}

/// Cuts the redo log at multiples of 1 MiB of LSN, and reads it on the way.
///
/// The parent's log often reaches beyond this one's start checkpoint; cut by LSN, what both hold is the same chunks.
pub(super) struct RedoCutter {
    head: Vec<u8>,
    header: Option<RedoHeader>,
    scanner: Option<RedoScanner>,
    position: u64,
    /// File offset of the first byte of `buffer`.
    start: u64,
    buffer: Vec<u8>,
}

impl RedoCutter {
    pub(super) fn new() -> RedoCutter {
        RedoCutter { head: Vec::new(), header: None, scanner: None, position: 0, start: 0, buffer: Vec::new() }
    }

    pub(super) fn begin(&mut self, file: FileNo, outlets: &Outlets) -> Result<(), BackupError> {
        outlets.step(Step::BeginFile(file, REDO_FILE.to_owned()))
    }

    pub(super) fn data(
        &mut self,
        file: FileNo,
        offset: u64,
        bytes: &[u8],
        facts: &StreamFacts,
        outlets: &Outlets,
    ) -> Result<(), BackupError> {
        if offset != self.position {
            let path = REDO_FILE.to_owned();
            return Err(BackupError::OutOfOrder { path, expected: self.position, found: offset });
        }
        self.position += bytes.len() as u64;
        let mut rest = bytes;
        if self.header.is_none() {
            let taken = rest.len().min(HEADER_BYTES - self.head.len());
            self.head.extend_from_slice(&rest[..taken]);
            rest = &rest[taken..];
            if self.head.len() < HEADER_BYTES {
                return Ok(());
            }
            let header = RedoHeader::parse(&self.head).map_err(|source| BackupError::Redo { source })?;
            send(file, 0, std::mem::take(&mut self.head), self.base(0, HEADER_BYTES as u64, facts)?, outlets)?;
            self.start = HEADER_BYTES as u64;
            self.scanner = Some(RedoScanner::new(&header).with_names());
            self.header = Some(header);
        }
        if let Some(scanner) = &mut self.scanner {
            scanner.push(rest).map_err(|source| BackupError::Redo { source })?;
        }
        while !rest.is_empty() {
            let lsn = self.lsn_at(self.start + self.buffer.len() as u64);
            let room = (PIECE_BYTES - lsn % PIECE_BYTES) as usize;
            let taken = rest.len().min(room);
            self.buffer.extend_from_slice(&rest[..taken]);
            rest = &rest[taken..];
            if taken == room {
                self.flush(file, facts, outlets)?;
            }
        }
        Ok(())
    }

    /// Where the redo log ends that has come; none before its header.
    pub(super) fn end_so_far(&self) -> Option<Lsn> {
        Some(self.scanner.as_ref()?.end())
    }

    fn lsn_at(&self, offset: u64) -> u64 {
        let start = self.header.as_ref().map_or(0, |header| header.start.0);
        start.saturating_add(offset.saturating_sub(HEADER_BYTES as u64))
    }

    /// What the parent has for the same LSNs.
    fn base(&self, offset: u64, bytes: u64, facts: &StreamFacts) -> Result<Option<FilePiece>, BackupError> {
        let Some(base) = &facts.base else { return Ok(None) };
        if offset < HEADER_BYTES as u64 {
            return base.file_piece(REDO_FILE, offset, bytes);
        }
        match self.lsn_at(offset).checked_sub(base.start().0) {
            Some(distance) => base.file_piece(REDO_FILE, HEADER_BYTES as u64 + distance, bytes),
            None => Ok(None),
        }
    }

    fn flush(&mut self, file: FileNo, facts: &StreamFacts, outlets: &Outlets) -> Result<(), BackupError> {
        let bytes = std::mem::take(&mut self.buffer);
        let length = bytes.len() as u64;
        if length > 0 {
            let base = self.base(self.start, length, facts)?;
            send(file, self.start, bytes, base, outlets)?;
            self.start += length;
        }
        Ok(())
    }

    pub(super) fn end(mut self, file: FileNo, facts: &StreamFacts, outlets: &Outlets) -> Result<(), BackupError> {
        let (Some(header), Some(scanner)) = (self.header.take(), self.scanner.take()) else {
            return Err(BackupError::RedoShort { bytes: self.position });
        };
        self.header = Some(header.clone());
        self.flush(file, facts, outlets)?;
        outlets.step(Step::EndFile(file, self.position))?;
        outlets.step(Step::Redo(Box::new(RedoFacts { header, scanner })))
    }
}
