//! Events of a binary log, read as their bytes come: framing, checksum, and the little of their contents that matters here.
//!
//! An event is a header of 19 bytes, a body, and where the file's first event says so a CRC32 of both (MariaDB `sql/log_event.h`). No event
//! is ever whole in memory: of a long one the beginning is kept and the end.

use crate::error::{Diagnose, Kind};
use crate::model::Gtid;

/// The first four bytes of a file.
pub const MAGIC: [u8; 4] = [0xfe, b'b', b'i', b'n'];
/// Length of an event's header in bytes.
pub const HEADER_BYTES: usize = 19;
/// Length of the checksum at an event's end in bytes, where there is one.
const CHECKSUM_BYTES: usize = 4;
/// The bit of [`Event::flags`] that says that the file is being written; it is left out of the first event's checksum.
const IN_USE: u8 = 1;
/// The bit of [`Event::flags`] that says that a reader may pass over the event (`LOG_EVENT_IGNORABLE_F`). So the server sends what it begins an encrypted
/// file with, while it sends what follows in the clear.
const IGNORABLE: u16 = 0x80;
/// Bytes kept of a body that tells where the log stands: with many domains and servers it is long.
const STATE_BYTES_MAX: usize = 4 << 20;
/// Bytes kept of any other body.
const BODY_BYTES_MAX: usize = 512;
/// Bytes kept of a body's end, its checksum included: enough for the words that end a transaction.
const END_BYTES: usize = 32;

/// Types of events (`enum Log_event_type`).
pub mod kinds {
    /// A statement.
    pub const QUERY: u8 = 2;
    /// The server shut down.
    pub const STOP: u8 = 3;
    /// The log goes on in another file.
    pub const ROTATE: u8 = 4;
    /// A value for the next statement.
    pub const INTVAR: u8 = 5;
    /// A part of a file that is loaded.
    pub const APPEND_BLOCK: u8 = 9;
    /// Seeds for the next statement.
    pub const RAND: u8 = 13;
    /// A variable for the next statement.
    pub const USER_VAR: u8 = 14;
    /// What the file is written like; its first event.
    pub const FORMAT_DESCRIPTION: u8 = 15;
    /// The end of a transaction of InnoDB's.
    pub const XID: u8 = 16;
    /// The first part of a file that is loaded.
    pub const BEGIN_LOAD_QUERY: u8 = 17;
    /// Which table rows are of.
    pub const TABLE_MAP: u8 = 19;
    /// The server has lost events.
    pub const INCIDENT: u8 = 26;
    /// The server lives, and has nothing to send.
    pub const HEARTBEAT: u8 = 27;
    /// The end of the first part of a distributed transaction.
    pub const XA_PREPARE: u8 = 38;
    /// The statement that rows come from.
    pub const ANNOTATE_ROWS: u8 = 160;
    /// From which file on the server would read after a crash.
    pub const BINLOG_CHECKPOINT: u8 = 161;
    /// The begin of a transaction, and its name.
    pub const GTID: u8 = 162;
    /// Where the log stood when the file was begun.
    pub const GTID_LIST: u8 = 163;
    /// What follows is encrypted.
    pub const START_ENCRYPTION: u8 = 164;
    /// A statement, compressed.
    pub const QUERY_COMPRESSED: u8 = 165;
}

/// Bytes that are no binary log, or not the whole one.
#[derive(Debug, thiserror::Error)]
pub enum BinlogError {
    /// The bytes are not what a server writes.
    #[error("{what} is damaged at byte {at}: {problem}")]
    Damaged {
        /// What was being read.
        what: String,
        /// Where in it the event begins.
        at: u64,
        /// What was found.
        problem: String,
    },
    /// Nobody who has no key of the server's can read it.
    #[error("{what} is encrypted from byte {at} on")]
    Encrypted {
        /// What was being read.
        what: String,
        /// Where it begins to be.
        at: u64,
    },
    /// The server itself says that the log lacks something.
    #[error("the server lost events at byte {at} of {what}")]
    Incident {
        /// What was being read.
        what: String,
        /// Where.
        at: u64,
    },
}

impl Diagnose for BinlogError {
    fn kind(&self) -> Kind {
        Kind::Corrupt
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            BinlogError::Damaged { .. } => "take a backup: what comes after it does not need these bytes",
            BinlogError::Encrypted { .. } => "read it from the server, which decrypts it",
            BinlogError::Incident { .. } => "take a backup: the log leads nowhere from before to after this place",
        };
        Some(hint.to_owned())
    }
}

/// An event that was read to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// When its statement began, in seconds since 1970.
    pub timestamp: u32,
    /// Its type, one of [`kinds`].
    pub kind: u8,
    /// `server_id` of the server that wrote it first.
    pub server: u32,
    /// Its length in bytes, header and checksum included.
    pub bytes: u32,
    /// Position behind it in the server's file, in its lowest 32 bits; 0 when it is in no file, and within a transaction of 11.4 or later.
    pub next: u32,
    /// Bits.
    pub flags: u16,
    /// The beginning of what follows the header, its checksum left out.
    pub body: Vec<u8>,
    /// The last bytes of it.
    end: Vec<u8>,
}

/// The event that a transaction begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GtidEvent {
    /// The transaction's name.
    pub gtid: Gtid,
    /// True when a single event follows, which no COMMIT ends.
    pub standalone: bool,
}

impl Event {
    fn integer<const N: usize>(&self, at: usize) -> Option<u64> {
        let bytes: &[u8; N] = self.body.get(at..)?.first_chunk()?;
        Some(bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    /// The transaction that begins with it.
    pub fn gtid(&self) -> Option<GtidEvent> {
        if self.kind != kinds::GTID {
            return None;
        }
        let (sequence, domain, flags) = (self.integer::<8>(0)?, self.integer::<4>(8)? as u32, self.integer::<1>(12)?);
        Some(GtidEvent { gtid: Gtid { domain, server: self.server, sequence }, standalone: flags & 1 != 0 })
    }

    /// The file that the log goes on in.
    pub fn rotates_to(&self) -> Option<&str> {
        let name = (self.kind == kinds::ROTATE).then(|| self.body.get(8..)).flatten()?;
        std::str::from_utf8(name).ok()
    }

    /// True when it is a statement that says COMMIT or ROLLBACK and nothing else.
    pub fn is_commit_or_rollback(&self) -> bool {
        matches!(self.kind, kinds::QUERY | kinds::QUERY_COMPRESSED)
            && (self.end.ends_with(b"\0COMMIT") || self.end.ends_with(b"\0ROLLBACK"))
    }

    /// True when its type is one of those that stand between transactions.
    pub fn stands_between(&self) -> bool {
        matches!(
            self.kind,
            kinds::FORMAT_DESCRIPTION
                | kinds::ROTATE
                | kinds::STOP
                | kinds::HEARTBEAT
                | kinds::GTID_LIST
                | kinds::BINLOG_CHECKPOINT
                | kinds::START_ENCRYPTION
        )
    }

    /// True when the server made it up for who reads from it, so that it is in no file.
    ///
    /// Within a transaction no place says nothing: since 11.4 the server leaves it out there, unless it has `binlog_legacy_event_pos`.
    pub fn is_artificial(&self) -> bool {
        self.flags & 0x20 != 0 || (self.next == 0 && self.stands_between())
    }
}

/// Takes a file's bytes, from behind [`MAGIC`] on, and gives its events.
#[derive(Debug)]
pub struct EventParser {
    what: String,
    /// Where the event in hand begins.
    at: u64,
    /// Whether events have checksums; nothing before the first event has said so.
    checksums: Option<bool>,
    header: Vec<u8>,
    pending: Option<Pending>,
}

#[derive(Debug)]
struct Pending {
    event: Event,
    /// Bytes of the body that are still to come, its checksum included.
    left: usize,
    /// Bytes that are still to be kept.
    keep: usize,
    crc: crc32fast::Hasher,
    /// The last bytes, which are not yet part of the sum.
    held: Vec<u8>,
}

impl EventParser {
    /// A parser of what errors call `what`, whose first event begins at byte `at` of it.
    pub fn new(what: impl Into<String>, at: u64) -> EventParser {
        let header = Vec::with_capacity(HEADER_BYTES);
        EventParser { what: what.into(), at, checksums: None, header, pending: None }
    }

    /// Where the event in hand begins, or the next one: the sum of the lengths of those before it.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// True when no event has been begun.
    pub fn is_between(&self) -> bool {
        self.header.is_empty() && self.pending.is_none()
    }

    fn damaged(&self, problem: impl Into<String>) -> BinlogError {
        BinlogError::Damaged { what: self.what.clone(), at: self.at, problem: problem.into() }
    }

    /// Takes bytes off `bytes` up to the end of an event, and gives it; none when all are taken and the event goes on.
    ///
    /// # Errors
    /// When the framing or the checksum is wrong, or what follows is encrypted.
    pub fn next(&mut self, bytes: &mut &[u8]) -> Result<Option<Event>, BinlogError> {
        if self.pending.is_none() {
            let part = take(bytes, HEADER_BYTES - self.header.len());
            self.header.extend_from_slice(part);
            if self.header.len() < HEADER_BYTES {
                return Ok(None);
            }
            self.pending = Some(self.begin()?);
        }
        let Some(pending) = &mut self.pending else { return Ok(None) };
        let part = take(bytes, pending.left);
        pending.push(part);
        if pending.left > 0 {
            return Ok(None);
        }
        let Some(pending) = self.pending.take() else { return Ok(None) };
        self.header.clear();
        let event = self.finish(pending)?;
        self.at += u64::from(event.bytes);
        Ok(Some(event))
    }

    fn begin(&self) -> Result<Pending, BinlogError> {
        let number = |at: usize, bytes: usize| {
            self.header[at..at + bytes].iter().rev().fold(0, |number: u32, byte| number << 8 | u32::from(*byte))
        };
        let (kind, bytes) = (self.header[4], number(9, 4));
        let event = Event {
            timestamp: number(0, 4),
            kind,
            server: number(5, 4),
            bytes,
            next: number(13, 4),
            flags: number(17, 2) as u16,
            body: Vec::new(),
            end: Vec::new(),
        };
        if self.checksums.is_none() && kind != kinds::FORMAT_DESCRIPTION {
            return Err(self.damaged(format!("it begins with an event of type {kind}")));
        }
        let least = HEADER_BYTES + if self.checksums == Some(true) { CHECKSUM_BYTES } else { 0 };
        if (bytes as usize) < least {
            return Err(self.damaged(format!("an event of {bytes} bytes, {least} at least")));
        }
        if kind == 0 {
            return Err(self.damaged("an event of type 0"));
        }
        let mut crc = crc32fast::Hasher::new();
        if kind == kinds::FORMAT_DESCRIPTION {
            let mut header = self.header.clone();
            header[17] &= !IN_USE;
            crc.update(&header);
        } else {
            crc.update(&self.header);
        }
        let keep = match kind {
            kinds::FORMAT_DESCRIPTION | kinds::GTID_LIST | kinds::ROTATE => STATE_BYTES_MAX,
            _ => BODY_BYTES_MAX,
        };
        Ok(Pending { event, left: bytes as usize - HEADER_BYTES, keep, crc, held: Vec::with_capacity(END_BYTES) })
    }

    fn finish(&mut self, pending: Pending) -> Result<Event, BinlogError> {
        let Pending { mut event, mut crc, mut held, .. } = pending;
        let body_bytes = event.bytes as usize - HEADER_BYTES;
        if event.kind == kinds::FORMAT_DESCRIPTION {
            // How sums are built stands before the event's own, which is there either way.
            let how = body_bytes.checked_sub(CHECKSUM_BYTES + 1).and_then(|at| event.body.get(at));
            self.checksums = match how {
                Some(0) => Some(false),
                Some(1) => Some(true),
                _ => return Err(self.damaged("its first event is of no server that writes checksums")),
            };
        }
        let checked = self.checksums == Some(true);
        let has_sum = checked || event.kind == kinds::FORMAT_DESCRIPTION;
        if has_sum {
            let sum = held.split_off(held.len().saturating_sub(CHECKSUM_BYTES));
            crc.update(&held);
            let found = crc.finalize();
            if checked && sum != found.to_le_bytes() {
                return Err(self.damaged(format!("checksum {}, its bytes have {found:08x}", hex::encode(sum))));
            }
            event.body.truncate(body_bytes - CHECKSUM_BYTES);
        }
        event.end = held;
        match event.kind {
            kinds::START_ENCRYPTION if event.flags & IGNORABLE == 0 => {
                Err(BinlogError::Encrypted { what: self.what.clone(), at: self.at })
            }
            kinds::INCIDENT => Err(BinlogError::Incident { what: self.what.clone(), at: self.at }),
            _ => Ok(event),
        }
    }
}

impl Pending {
    fn push(&mut self, part: &[u8]) {
        let kept = part.len().min(self.keep);
        self.event.body.extend_from_slice(&part[..kept]);
        (self.keep, self.left) = (self.keep - kept, self.left - part.len());
        // The last bytes wait, for the sum is among them.
        let all = self.held.len() + part.len();
        let ready = all.saturating_sub(END_BYTES);
        let of_held = ready.min(self.held.len());
        self.crc.update(&self.held[..of_held]);
        self.held.drain(..of_held);
        let of_part = ready - of_held;
        self.crc.update(&part[..of_part]);
        self.held.extend_from_slice(&part[of_part..]);
    }
}

fn take<'a>(bytes: &mut &'a [u8], most: usize) -> &'a [u8] {
    let (part, rest) = bytes.split_at(most.min(bytes.len()));
    *bytes = rest;
    part
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// An event with its checksum.
    pub(crate) fn event(timestamp: u32, kind: u8, next: u32, body: &[u8]) -> Vec<u8> {
        let bytes = (HEADER_BYTES + body.len() + CHECKSUM_BYTES) as u32;
        let mut event = timestamp.to_le_bytes().to_vec();
        event.push(kind);
        event.extend(1u32.to_le_bytes());
        event.extend(bytes.to_le_bytes());
        event.extend(next.to_le_bytes());
        event.extend([0; 2]);
        event.extend(body);
        let sum = crc32fast::hash(&event);
        event.extend(sum.to_le_bytes());
        event
    }

    /// The event that a file begins with.
    pub(crate) fn format_description(timestamp: u32) -> Vec<u8> {
        let mut body = vec![4, 0];
        body.extend([b'x'; 50]);
        body.extend([0; 190]);
        body.push(1);
        let mut bytes = event(timestamp, kinds::FORMAT_DESCRIPTION, 256, &body);
        bytes[17] |= IN_USE;
        bytes
    }

    pub(crate) fn gtid(timestamp: u32, gtid: &str, standalone: bool) -> Vec<u8> {
        let gtid: Gtid = gtid.parse().unwrap();
        let mut body = gtid.sequence.to_le_bytes().to_vec();
        body.extend(gtid.domain.to_le_bytes());
        body.push(u8::from(standalone));
        body.extend([0; 6]);
        let mut bytes = event(timestamp, kinds::GTID, 1, &body);
        bytes[5..9].copy_from_slice(&gtid.server.to_le_bytes());
        let end = bytes.len() - CHECKSUM_BYTES;
        let sum = crc32fast::hash(&bytes[..end]);
        bytes[end..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// A transaction of one statement and its end.
    pub(crate) fn transaction(timestamp: u32, name: &str, statement: &str) -> Vec<u8> {
        let query = event(timestamp, kinds::QUERY, 1, &[&[0; 13][..], b"shop\0", statement.as_bytes()].concat());
        [gtid(timestamp, name, false), query, event(timestamp, kinds::XID, 1, &[0; 8])].concat()
    }

    fn parse(parts: &[&[u8]]) -> Result<Vec<Event>, BinlogError> {
        let (mut parser, mut events) = (EventParser::new("b.000001", 4), Vec::new());
        for part in parts {
            let mut rest = *part;
            while let Some(event) = parser.next(&mut rest)? {
                events.push(event);
            }
        }
        Ok(events)
    }

    fn file() -> Vec<u8> {
        let rotate = event(9, kinds::ROTATE, 1, b"\x04\0\0\0\0\0\0\0b.000002");
        [format_description(7), transaction(8, "3-1-5", &"x".repeat(900)), rotate].concat()
    }

    #[test]
    fn events_are_what_their_bytes_say() {
        let events = parse(&[&file()]).unwrap();
        let kinds: Vec<u8> = events.iter().map(|event| event.kind).collect();
        assert_eq!(kinds, [kinds::FORMAT_DESCRIPTION, kinds::GTID, kinds::QUERY, kinds::XID, kinds::ROTATE]);
        let begin = events[1].gtid().unwrap();
        assert_eq!((begin.gtid.to_string().as_str(), begin.standalone), ("3-1-5", false));
        assert_eq!(events[4].rotates_to(), Some("b.000002"));
        assert!(!events[2].is_commit_or_rollback());
        let commit = event(8, kinds::QUERY, 1, &[&[0; 13][..], b"shop\0COMMIT"].concat());
        assert!(parse(&[&format_description(7), &commit]).unwrap()[1].is_commit_or_rollback());
    }

    #[test]
    fn a_file_that_is_encrypted_is_refused_and_one_that_was_and_is_sent_in_the_clear_is_read() {
        let mut begins = event(8, kinds::START_ENCRYPTION, 1, &[1; 17]);
        let rest = transaction(8, "3-1-5", "INSERT");
        let error = parse(&[&format_description(7), &begins, &rest]).unwrap_err();
        assert!(matches!(error, BinlogError::Encrypted { .. }), "{error}");
        begins[17] = IGNORABLE as u8;
        let end = begins.len() - CHECKSUM_BYTES;
        let sum = crc32fast::hash(&begins[..end]);
        begins[end..].copy_from_slice(&sum.to_le_bytes());
        assert_eq!(parse(&[&format_description(7), &begins, &rest]).unwrap().len(), 5);
    }

    #[test]
    fn a_changed_byte_is_noticed_wherever_it_is() {
        let file = file();
        let first = format_description(7).len();
        for at in 0..file.len() {
            let mut changed = file.clone();
            changed[at] ^= 2;
            let read = parse(&[&changed]);
            let whole = read.as_ref().is_ok_and(|events| events.len() == 5);
            // The bit that the server sets while it writes is not covered, and it is bit 0.
            assert!(!whole, "byte {at} of {first} and more");
        }
    }

    proptest! {
        #[test]
        fn bytes_may_come_in_any_parts(cuts in prop::collection::vec(0usize..1500, 0..9)) {
            let file = file();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(file.len())).collect();
            cuts.extend([0, file.len()]);
            cuts.sort_unstable();
            let parts: Vec<&[u8]> = cuts.windows(2).map(|ends| &file[ends[0]..ends[1]]).collect();
            prop_assert_eq!(parse(&parts).unwrap(), parse(&[&file]).unwrap());
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            drop(parse(&[&bytes]));
            drop(parse(&[&format_description(7), &bytes]));
        }
    }
}
