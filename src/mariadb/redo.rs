//! The redo log of a backup: its header, and whether it goes without a gap from the start checkpoint to the last LSN.
//!
//! A backup's `ib_logfile0` is in the server's own format of MariaDB 10.8 and later, but it never wraps: behind a header of
//! 12288 bytes the byte of LSN `l` stands at 12288 + (l − C), C being the start checkpoint, and each mini-transaction ends
//! with the sequence byte 1 and a CRC-32C. The scan walks these, and reads of the records no more than which files they
//! create, rename or delete. Encrypted logs are walked without keys: the lengths of records are clear, and the CRC covers
//! the ciphertext.
//!
//! The tool copies whole mini-transactions, so the log ends exactly with its `last_lsn`, which is the end of one (seen in
//! every backup of 10.11.19 under load, plain and encrypted).
//!
//! Source: MariaDB `storage/innobase/include/log0log.h`, `mtr0types.h`, `log/log0recv.cc` (`recv_sys_t::find_checkpoint`,
//! `recv_sys_t::parse`), `log/log0crypt.cc`; `extra/mariabackup/xtrabackup.cc` (`log_hdr_init`, `xtrabackup_copy_logfile`).

use std::collections::{BTreeSet, HashSet};

use crate::{
    error::{Diagnose, Kind},
    mariadb::{page_set::PageSet, redo_names::FileNames},
    model::{Lsn, PageNo, SpaceId},
};

/// Length of the header, behind which the log begins (`log_t::START_OFFSET`).
pub const HEADER_BYTES: usize = 12288;
/// Offsets of the two checkpoint blocks.
pub(super) const CHECKPOINTS: [usize; 2] = [4096, 8192];
/// Most bytes of records in a mini-transaction; recovery reads no more (`recv_sys_t::MTR_SIZE_MAX`).
const MTR_BYTES_MAX: usize = 1 << 20;

/// Types of the records that free a page, and write it anew from nothing.
const FREE: u8 = 0x00;
const INIT: u8 = 0x10;
/// Most file operations remembered: 8 MiB or so. A server of a million tables that all changed has as many.
pub const FILE_OPS_MAX: usize = 1 << 20;

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RedoFormat {
    /// MariaDB 10.8 and later, not encrypted.
    Plain,
    /// Encrypted as MariaDB 10.8 began it: types, lengths and page numbers are clear.
    Encrypted,
    /// Encrypted as 10.11.18 and 11.8 do it: only types and lengths are clear (`FORMAT_ENC_11`).
    EncryptedWhole,
}

impl RedoFormat {
    /// Bytes between the sequence byte and the CRC of a mini-transaction.
    const fn nonce_bytes(self) -> usize {
        match self {
            RedoFormat::Plain => 0,
            RedoFormat::Encrypted | RedoFormat::EncryptedWhole => 8,
        }
    }
}

/// A redo log that this program cannot use, or that is damaged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RedoError {
    /// The header is not whole.
    #[error("redo log has {found} bytes, its header alone has {expected}")]
    Truncated {
        /// Bytes needed.
        expected: usize,
        /// Bytes there.
        found: usize,
    },
    /// The log is of an older server.
    #[error("redo log from LSN {start} is in the format of {name} (written by {creator:?}), which is not supported")]
    Old {
        /// The servers that write it.
        name: &'static str,
        /// Who wrote this one.
        creator: String,
        /// Its start checkpoint.
        start: Lsn,
    },
    /// The log is in a format that this program does not know.
    #[error("redo log format {found:#010x} (written by {creator:?}) is not known")]
    Unknown {
        /// The format's number.
        found: u32,
        /// Who wrote it.
        creator: String,
    },
    /// The header's checksum is wrong.
    #[error("checksum of the redo log header is {found:08x}, expected {expected:08x}")]
    HeaderChecksum {
        /// Checksum that the header holds.
        expected: u32,
        /// Checksum of its bytes.
        found: u32,
    },
    /// Neither checkpoint block is valid.
    #[error("redo log has no valid checkpoint")]
    NoCheckpoint,
    /// The log does not begin at its checkpoint, so it is a server's and no backup's.
    #[error("redo log begins at LSN {first} and not at its checkpoint {checkpoint}")]
    NotABackup {
        /// LSN of its first byte.
        first: Lsn,
        /// Its checkpoint.
        checkpoint: Lsn,
    },
    /// The log stops being one before the end that the tool claims.
    #[error("redo log is whole only from LSN {start} to {found}, expected to {expected}: {stop}")]
    Gap {
        /// The start checkpoint.
        start: Lsn,
        /// The last LSN of the backup.
        expected: Lsn,
        /// The end of the last mini-transaction that is whole.
        found: Lsn,
        /// What is there.
        stop: Stop,
    },
    /// A record contradicts itself, in a mini-transaction whose checksum is right.
    #[error("redo log record {kind:#04x} of the mini-transaction at LSN {at} is malformed")]
    Malformed {
        /// Start of the mini-transaction.
        at: Lsn,
        /// Type byte of the record.
        kind: u8,
    },
    /// The record that recovery looks for first is missing.
    #[error("redo log from LSN {start} to {end} has no FILE_CHECKPOINT record of its start, expected at {expected}")]
    NoCheckpointRecord {
        /// The start checkpoint.
        start: Lsn,
        /// The end of the log.
        end: Lsn,
        /// Where the header says that the record stands.
        expected: Lsn,
    },
}

impl Diagnose for RedoError {
    fn kind(&self) -> Kind {
        match self {
            RedoError::Old { .. } | RedoError::Unknown { .. } => Kind::DatabaseRefused,
            _ => Kind::Corrupt,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            RedoError::Old { .. } => Some("MariaDB 10.8 or newer, with its own backup tool, is needed".to_owned()),
            RedoError::Unknown { .. } => {
                Some("the server may be newer than this program: look for a newer release".to_owned())
            }
            _ => Some("take the backup again; if it fails the same way, check the server's redo log device".to_owned()),
        }
    }
}

/// Why a scan ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Stop {
    /// The bytes end between two mini-transactions.
    #[error("the log ends")]
    End,
    /// The bytes end inside a mini-transaction.
    #[error("the log ends inside a mini-transaction")]
    Cut,
    /// No mini-transaction begins: padding.
    #[error("no mini-transaction begins there")]
    Padding,
    /// The end of a mini-transaction does not carry the sequence byte of a backup.
    #[error("the sequence byte of a mini-transaction is {found}, expected 1")]
    Sequence {
        /// The byte.
        found: u8,
    },
    /// A mini-transaction's checksum is wrong.
    #[error("the checksum of a mini-transaction is {found:08x}, expected {expected:08x}")]
    Checksum {
        /// Checksum that it holds.
        expected: u32,
        /// Checksum of its bytes.
        found: u32,
    },
    /// A mini-transaction has no end within the length that recovery accepts.
    #[error("a mini-transaction is longer than {MTR_BYTES_MAX} bytes")]
    TooLong,
}

/// Header of a backup's `ib_logfile0`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedoHeader {
    /// How the log is written.
    pub format: RedoFormat,
    /// The start checkpoint C: LSN of the first byte of the log.
    pub start: Lsn,
    /// End of the checkpoint: where its FILE_CHECKPOINT record stands.
    pub checkpoint_end: Lsn,
    /// Who wrote it, such as `Backup 10.11.19`.
    pub creator: String,
}

impl RedoHeader {
    /// Parses and verifies the first 12288 bytes of `ib_logfile0`; bytes behind them are passed over.
    ///
    /// # Errors
    /// [`RedoError::Old`] already for the first 512 bytes of an older log. See [`RedoError`] for the others.
    pub fn parse(bytes: &[u8]) -> Result<RedoHeader, RedoError> {
        let block = bytes.get(..512).ok_or(RedoError::Truncated { expected: HEADER_BYTES, found: bytes.len() })?;
        let creator = creator(&block[16..48]);
        let start = Lsn(u64_at(block, 8));
        let number = u32_at(block, 0);
        let format = match number {
            // The encryption's fields are zero in a plain log.
            0x5068_7973 if block[48..76].iter().all(|byte| *byte == 0) => RedoFormat::Plain,
            0x5068_7973 => RedoFormat::Encrypted,
            0xf09f_979d => RedoFormat::EncryptedWhole,
            _ => {
                return Err(match old_format(number) {
                    Some(name) => RedoError::Old { name, creator, start },
                    None => RedoError::Unknown { found: number, creator },
                });
            }
        };
        let (expected, found) = (u32_at(block, 508), crc32c::crc32c(&block[..508]));
        if expected != found {
            return Err(RedoError::HeaderChecksum { expected, found });
        }
        let header =
            bytes.get(..HEADER_BYTES).ok_or(RedoError::Truncated { expected: HEADER_BYTES, found: bytes.len() })?;
        let (checkpoint, checkpoint_end) = CHECKPOINTS
            .into_iter()
            .filter_map(|at| checkpoint(&header[at..at + 64]))
            .max()
            .ok_or(RedoError::NoCheckpoint)?;
        if checkpoint != start {
            return Err(RedoError::NotABackup { first: start, checkpoint });
        }
        Ok(RedoHeader { format, start, checkpoint_end, creator })
    }
}

/// LSN and end LSN of a checkpoint block, if it is valid.
fn checkpoint(block: &[u8]) -> Option<(Lsn, Lsn)> {
    let (lsn, end) = (Lsn(u64_at(block, 0)), Lsn(u64_at(block, 8)));
    let valid = lsn > Lsn(0) && lsn <= end && u32_at(block, 60) == crc32c::crc32c(&block[..60]);
    valid.then_some((lsn, end))
}

/// Servers that wrote logs of this format; its top bit says that they are encrypted.
fn old_format(number: u32) -> Option<&'static str> {
    match number & 0x7fff_ffff {
        0x5048_5953 => Some("MariaDB 10.5 to 10.7"),
        104 => Some("MariaDB 10.4"),
        103 => Some("MariaDB 10.3"),
        1 => Some("MariaDB 10.2 or MySQL 5.7"),
        0 => Some("MariaDB 10.1 or older"),
        _ => None,
    }
}

fn creator(field: &[u8]) -> String {
    let text = field.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}

/// Tablespaces whose files the log creates, renames, deletes or names as changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileOps {
    /// FILE_CREATE.
    pub created: BTreeSet<SpaceId>,
    /// FILE_RENAME.
    pub renamed: BTreeSet<SpaceId>,
    /// FILE_DELETE.
    pub deleted: BTreeSet<SpaceId>,
    /// FILE_MODIFY: changed since the checkpoint before.
    pub modified: BTreeSet<SpaceId>,
    /// True when there were more than [`FILE_OPS_MAX`], and some are not in the sets.
    pub overflowed: bool,
}

impl FileOps {
    fn add(&mut self, (operation, space): (FileOp, SpaceId)) {
        let count = self.created.len() + self.renamed.len() + self.deleted.len() + self.modified.len();
        let set = match operation {
            FileOp::Create => &mut self.created,
            FileOp::Rename => &mut self.renamed,
            FileOp::Delete => &mut self.deleted,
            FileOp::Modify => &mut self.modified,
        };
        if count < FILE_OPS_MAX {
            set.insert(space);
        } else if !set.contains(&space) {
            self.overflowed = true;
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FileOp {
    Create,
    Rename,
    Delete,
    Modify,
}

/// What a whole log held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedoSummary {
    /// The start checkpoint.
    pub start: Lsn,
    /// End of the last mini-transaction, at or after the backup's last LSN.
    pub end: Lsn,
    /// Number of mini-transactions.
    pub mini_transactions: u64,
    /// Operations on files; none if the log hides them ([`RedoFormat::EncryptedWhole`]).
    pub file_ops: Option<FileOps>,
    /// Names at the end of the log; none unless asked for, or if the log hides them.
    pub names: Option<FileNames>,
    /// Pages whose old content is void, since the log writes them anew from nothing (INIT_PAGE) or frees them
    /// (FREE_PAGE, MariaDB `recv_sys_t::parse`); none if the log hides them.
    pub voided: Option<PageSet>,
    /// Records of types that this program does not know.
    pub unknown_records: u64,
    /// Bytes behind the end, which are no mini-transaction.
    pub trailing_bytes: u64,
}

/// Walks the mini-transactions of a backup's log, from bytes pushed to it in pieces of any size.
///
/// Memory: a mini-transaction that lies across pieces is carried over, at most 3 MiB of it.
#[derive(Debug)]
pub struct RedoScanner {
    format: RedoFormat,
    start: Lsn,
    checkpoint_end: Lsn,
    end: Lsn,
    carry: Vec<u8>,
    /// How far the mini-transaction in `carry` was walked, so that no byte of it is walked twice.
    walk: Walk,
    /// Length that `carry` must reach before it is worth looking at again.
    needed: usize,
    stop: Option<Stop>,
    trailing_bytes: u64,
    mini_transactions: u64,
    unknown_records: u64,
    checkpoint_record: bool,
    file_ops: FileOps,
    names: Option<FileNames>,
    voided: PageSet,
}

impl RedoSummary {
    /// Files of tables, as `schema/table.ibd`, whose first page the log writes anew; none unless names were asked for and are not
    /// hidden.
    pub fn unwritten(&self) -> HashSet<String> {
        let (Some(names), Some(voided)) = (&self.names, &self.voided) else { return HashSet::new() };
        let first = PageNo(0);
        let is_written = |space| voided.overflowed() || voided.of(space, first.extent()).contains(first.index());
        let by_name = names.by_name().into_iter();
        by_name.filter(|(_, space)| is_written(*space)).map(|(name, _)| name.to_owned()).collect()
    }
}

impl RedoScanner {
    /// Begins at the start checkpoint: the first byte pushed is the one behind the header.
    pub fn new(header: &RedoHeader) -> RedoScanner {
        RedoScanner {
            format: header.format,
            start: header.start,
            checkpoint_end: header.checkpoint_end,
            end: header.start,
            carry: Vec::new(),
            walk: Walk::default(),
            needed: 0,
            stop: None,
            trailing_bytes: 0,
            mini_transactions: 0,
            unknown_records: 0,
            checkpoint_record: false,
            file_ops: FileOps::default(),
            names: None,
            voided: PageSet::default(),
        }
    }

    /// Follows the names of files too.
    #[must_use]
    pub fn with_names(mut self) -> RedoScanner {
        self.names = Some(FileNames::default());
        self
    }

    /// End of the last whole mini-transaction so far.
    pub fn end(&self) -> Lsn {
        self.end
    }

    /// Takes the next bytes of the log.
    ///
    /// # Errors
    /// [`RedoError::Malformed`] only: a log that stops early shows in [`RedoScanner::finish`].
    pub fn push(&mut self, mut bytes: &[u8]) -> Result<(), RedoError> {
        while self.stop.is_none() && !self.carry.is_empty() && !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(self.needed.saturating_sub(self.carry.len()).max(1)));
            self.carry.extend_from_slice(now);
            bytes = later;
            if self.carry.len() < self.needed {
                break;
            }
            // No more than was needed is taken, so a mini-transaction that is whole now ends with the carried bytes.
            let mut carry = std::mem::take(&mut self.carry);
            if self.step(&carry)? == 0 && self.stop.is_none() {
                self.carry = carry;
            } else {
                if self.stop.is_some() {
                    self.trailing_bytes += carry.len() as u64;
                }
                carry.clear();
                self.carry = carry;
            }
        }
        while self.stop.is_none() && !bytes.is_empty() {
            match self.step(bytes)? {
                0 => break,
                len => bytes = &bytes[len..],
            }
        }
        if self.stop.is_some() {
            self.trailing_bytes += bytes.len() as u64;
        } else {
            self.carry.extend_from_slice(bytes);
        }
        Ok(())
    }

    /// Ends the log, and holds it to the `last_lsn` of the backup's checkpoints file.
    ///
    /// # Errors
    /// [`RedoError::Gap`] if the log is whole only to an earlier LSN, [`RedoError::NoCheckpointRecord`] if recovery could not
    /// begin. What stands behind `last_lsn` does not matter.
    pub fn finish(self, last_lsn: Lsn) -> Result<RedoSummary, RedoError> {
        let (start, end) = (self.start, self.end);
        if end < last_lsn {
            let stop = self.stop.unwrap_or(if self.carry.is_empty() { Stop::End } else { Stop::Cut });
            return Err(RedoError::Gap { start, expected: last_lsn, found: end, stop });
        }
        let hidden = self.format == RedoFormat::EncryptedWhole;
        if end <= self.checkpoint_end || !(hidden || self.checkpoint_record) {
            return Err(RedoError::NoCheckpointRecord { start, end, expected: self.checkpoint_end });
        }
        Ok(RedoSummary {
            start,
            end,
            mini_transactions: self.mini_transactions,
            file_ops: (!hidden).then_some(self.file_ops),
            names: self.names.filter(|_| !hidden),
            voided: (!hidden).then_some(self.voided),
            unknown_records: self.unknown_records,
            trailing_bytes: self.trailing_bytes + self.carry.len() as u64,
        })
    }

    /// Takes the mini-transaction at the beginning of `bytes` and returns its length; 0 if it is not whole or there is none.
    fn step(&mut self, bytes: &[u8]) -> Result<usize, RedoError> {
        let (records, len) = match measure(bytes, self.format.nonce_bytes(), &mut self.walk) {
            Measure::Whole { records, len } => (&bytes[..records], len),
            Measure::More(needed) => {
                self.needed = needed;
                return Ok(0);
            }
            Measure::Stop(stop) => {
                self.stop = Some(stop);
                return Ok(0);
            }
        };
        if self.format != RedoFormat::EncryptedWhole {
            self.read(records)?;
        }
        self.end = Lsn(self.end.0.saturating_add(len as u64));
        self.mini_transactions += 1;
        self.walk = Walk::default();
        Ok(len)
    }

    /// Reads the file operations of a mini-transaction whose checksum was right.
    fn read(&mut self, records: &[u8]) -> Result<(), RedoError> {
        let mut rest = records;
        let mut page_before = false;
        while let Some((kind, body, later)) = next_record(rest) {
            rest = later;
            let malformed = RedoError::Malformed { at: self.end, kind };
            let same_page = kind & 0x80 != 0;
            if kind & 0x70 == 0x60 {
                self.unknown_records += 1;
                continue;
            }
            if same_page && page_before {
                // FREE_PAGE and INIT_PAGE always say which page.
                if matches!(kind & 0x70, FREE | INIT) {
                    return Err(malformed);
                }
                continue;
            }
            if kind == 0xf1 && body == [0] {
                continue;
            }
            let (space, after_space) = varint(body).ok_or(malformed.clone())?;
            let (page, name) = varint(after_space).ok_or(malformed.clone())?;
            page_before = !same_page;
            if same_page {
                self.read_file_record(kind, SpaceId(space), page, name).ok_or(malformed)?;
            } else if matches!(kind & 0x70, FREE | INIT) {
                self.voided.insert(SpaceId(space), PageNo(page));
            }
        }
        Ok(())
    }

    /// Reads a record on a whole file; none if it is malformed.
    fn read_file_record(&mut self, kind: u8, space: SpaceId, page: u32, body: &[u8]) -> Option<()> {
        let operation = match kind & 0xf0 {
            0x80 => FileOp::Create,
            0x90 => FileOp::Delete,
            0xa0 => FileOp::Rename,
            0xb0 => FileOp::Modify,
            0xf0 => {
                if let Ok(lsn) = <[u8; 8]>::try_from(body) {
                    self.checkpoint_record |= u64::from_be_bytes(lsn) == self.start.0;
                }
                return (space == SpaceId(0) && page == 0).then_some(());
            }
            _ => {
                self.unknown_records += 1;
                return Some(());
            }
        };
        if space == SpaceId(0) || page != 0 || body.is_empty() {
            return None;
        }
        self.file_ops.add((operation, space));
        if let Some(names) = &mut self.names {
            match operation {
                FileOp::Create | FileOp::Modify => names.named(space, body),
                FileOp::Rename => return names.renamed(space, body).then_some(()),
                FileOp::Delete => names.deleted(space),
            }
        }
        Some(())
    }
}

/// What stands at the beginning of some bytes of the log.
#[derive(Debug, PartialEq, Eq)]
enum Measure {
    /// A mini-transaction of `len` bytes, whose first `records` are its records.
    Whole { records: usize, len: usize },
    /// The beginning of one; to go on, this many bytes are needed.
    More(usize),
    /// None.
    Stop(Stop),
}

/// Place in a mini-transaction at which a record begins.
#[derive(Debug, Clone, Copy, Default)]
struct Walk {
    at: usize,
    /// Length of the records so far as recovery counts it, which leaves the type bytes out.
    counted: usize,
}

/// Measures the mini-transaction at the beginning of `bytes` by the rules of recovery (`log_parse_start`), going on from
/// `walk`.
fn measure(bytes: &[u8], nonce_bytes: usize, walk: &mut Walk) -> Measure {
    loop {
        let at = walk.at;
        let Some(&kind) = bytes.get(at) else { return Measure::More(at + 1) };
        if walk.counted >= MTR_BYTES_MAX {
            return Measure::Stop(Stop::TooLong);
        }
        if kind <= 1 {
            break;
        }
        let len = match kind & 15 {
            0 => {
                let Some(&first) = bytes.get(at + 1) else { return Measure::More(at + 2) };
                let end = at + 1 + varint_bytes(first);
                let Some(field) = bytes.get(at + 1..end) else { return Measure::More(end) };
                match varint(field) {
                    Some((added, _)) if (added as usize) < MTR_BYTES_MAX => added as usize + 15,
                    _ => return Measure::Stop(Stop::TooLong),
                }
            }
            short => usize::from(short),
        };
        walk.at += 1 + len;
        walk.counted += len;
    }
    let at = walk.at;
    if at == 0 {
        return Measure::Stop(Stop::Padding);
    }
    if bytes[at] != 1 {
        return Measure::Stop(Stop::Sequence { found: bytes[at] });
    }
    let crc_at = at + 1 + nonce_bytes;
    let Some(stored) = bytes.get(crc_at..crc_at + 4) else { return Measure::More(crc_at + 4) };
    let expected = u32_at(stored, 0);
    let found = crc32c::crc32c_append(crc32c::crc32c(&bytes[..at]), &bytes[at + 1..crc_at]);
    if expected != found {
        return Measure::Stop(Stop::Checksum { expected, found });
    }
    Measure::Whole { records: at, len: crc_at + 4 }
}

/// Type byte and body of the first record, and what follows it; `records` was measured.
fn next_record(records: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&kind, rest) = records.split_first()?;
    let (skipped, len) = match kind & 15 {
        0 => {
            let skipped = varint_bytes(*rest.first()?);
            (skipped, varint(rest)?.0 as usize + 15 - skipped)
        }
        short => (0, usize::from(short)),
    };
    let body = rest.get(skipped..skipped + len)?;
    Some((kind, body, rest.get(skipped + len..)?))
}

/// Length of the number that begins with this byte.
fn varint_bytes(first: u8) -> usize {
    match first {
        0..0x80 => 1,
        0x80..0xc0 => 2,
        0xc0..0xe0 => 3,
        0xe0..0xf0 => 4,
        _ => 5,
    }
}

/// Decodes a number (`mlog_decode_varint`) and returns what follows it. Longer forms begin where shorter ones end.
fn varint(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let first = *bytes.first()?;
    let (field, rest) = bytes.split_at_checked(varint_bytes(first))?;
    let tail = field[1..].iter().fold(0, |value: u32, byte| value << 8 | u32::from(*byte));
    let value = match field.len() {
        1 => u32::from(first),
        2 => 128 + (u32::from(first & 0x3f) << 8 | tail),
        3 => 16_512 + (u32::from(first & 0x1f) << 16 | tail),
        4 => 2_113_664 + (u32::from(first & 0x0f) << 24 | tail),
        _ if first == 0xf0 => 270_549_120_u32.checked_add(tail)?,
        _ => return None,
    };
    Some((value, rest))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|bytes| bytes.first_chunk()).map_or(0, |bytes| u32::from_be_bytes(*bytes))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(|bytes| bytes.first_chunk()).map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

#[cfg(test)]
#[path = "redo_tests.rs"]
mod tests;
