//! Cuts a file of the server's log at the ends of transactions, from its events as they come.

use std::ops::Range;
use std::time::Instant;

use crate::mariadb::binlog::{BinlogError, Event, EventParser, MAGIC, Step, Transaction, Transactions};
use crate::model::{Gtid, GtidSet, Timestamp};

/// Events of no file between two cuts: the server makes up two at the begin of a connection, and hardly any otherwise.
const MADE_UP_MAX: usize = 1000;

/// Whole transactions that make a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Draft {
    /// First byte in the server's file.
    pub start: u64,
    /// The byte behind the last one.
    pub end: u64,
    /// Where that lies in the copy.
    pub parts: Vec<Range<u64>>,
    /// Bytes at the beginning of the copy that describe its format.
    pub head_bytes: u64,
    /// When the server began the file, in seconds since 1970.
    pub created: u32,
    /// GTID position before it.
    pub before: GtidSet,
    /// GTID position behind it.
    pub after: GtidSet,
    /// The first transaction.
    pub first_gtid: Gtid,
    /// The last one.
    pub last_gtid: Gtid,
    /// The earliest time of a transaction.
    pub first_time: Timestamp,
    /// The latest one.
    pub last_time: Timestamp,
    /// How many they are.
    pub transactions: u64,
}

/// Reads one file of the log and puts whole transactions together.
#[derive(Debug)]
pub(super) struct Cutter {
    file: String,
    parser: EventParser,
    transactions: Transactions,
    /// Length of the copy's head, and when the server began the file; none before the first event.
    head: Option<(u64, u32)>,
    /// Where the server's file is followed from.
    first: u64,
    /// Where the next event begins in the server's file.
    offset: u64,
    position: GtidSet,
    /// Where the next segment begins: in the server's file, and in the copy.
    mark: (u64, u64),
    /// Events of no file since the mark, by their place in the copy.
    made_up: Vec<Range<u64>>,
    draft: Option<Draft>,
    /// Where the draft ends in the copy.
    draft_end: u64,
    /// When the first transaction came that is not cut.
    since: Option<Instant>,
}

impl Cutter {
    /// A cutter of `file`, followed from byte `first`, where the GTID position is `position`.
    pub(super) fn new(file: &str, first: u64, position: GtidSet) -> Cutter {
        Cutter {
            file: file.to_owned(),
            parser: EventParser::new(format!("the copy of {file}"), MAGIC.len() as u64),
            transactions: Transactions::default(),
            head: None,
            first,
            offset: first,
            position,
            mark: (first, 0),
            made_up: Vec::new(),
            draft: None,
            draft_end: 0,
            since: None,
        }
    }

    /// When the server began the file; none before its first event has come.
    pub(super) fn created(&self) -> Option<u32> {
        self.head.map(|(_, created)| created)
    }

    /// GTID position of all whole transactions that have come.
    pub(super) fn position(&self) -> &GtidSet {
        &self.position
    }

    /// Where the next event begins in the server's file.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// The byte of the server's file before which there is no transaction that is not cut.
    pub(super) fn settled(&self) -> u64 {
        if self.draft.is_none() && !self.transactions.is_open() { self.offset } else { self.mark.0 }
    }

    /// Where that is in the copy: nothing before it is needed any more, but for the head.
    pub(super) fn settled_copy(&self) -> u64 {
        if self.draft.is_none() && !self.transactions.is_open() { self.parser.at() } else { self.mark.1 }
    }

    /// When the first transaction came that is not cut.
    pub(super) fn since(&self) -> Option<Instant> {
        self.since
    }

    /// True when there are whole transactions that are not cut.
    pub(super) fn has_draft(&self) -> bool {
        self.draft.is_some()
    }

    /// True inside of an event or a transaction.
    pub(super) fn is_amid(&self) -> bool {
        !self.parser.is_between() || self.transactions.is_open()
    }

    /// Takes bytes off `bytes`, those behind the magic and on, which come at `now`. True when there are transactions of `bytes_max` bytes.
    ///
    /// # Errors
    /// When they are no log, or not the one that they should be.
    pub(super) fn push(&mut self, bytes: &mut &[u8], now: Instant, bytes_max: u64) -> Result<bool, BinlogError> {
        loop {
            if self.draft.as_ref().is_some_and(|draft| draft.end - draft.start >= bytes_max) {
                return Ok(true);
            }
            let Some(event) = self.parser.next(bytes)? else { return Ok(false) };
            self.take(&event, now)?;
        }
    }

    fn damaged<T>(&self, problem: String) -> Result<T, BinlogError> {
        Err(BinlogError::Damaged { what: self.file.clone(), at: self.offset, problem })
    }

    fn take(&mut self, event: &Event, now: Instant) -> Result<(), BinlogError> {
        let behind = self.parser.at();
        if self.head.is_none() {
            self.head = Some((behind, event.timestamp));
            // Of a file that is followed from a later byte on, its beginning is made up.
            if self.first == MAGIC.len() as u64 {
                self.advance(event)?;
            }
            self.mark = (self.offset, behind);
            return Ok(());
        }
        if event.is_artificial() {
            self.made_up.push(behind - u64::from(event.bytes)..behind);
            if self.made_up.len() > MADE_UP_MAX {
                return self.damaged(format!("more than {MADE_UP_MAX} events that are in no file"));
            }
            return Ok(());
        }
        self.advance(event)?;
        match self.transactions.step(event, &self.file, self.offset - u64::from(event.bytes))? {
            Step::Begin(_) => {
                self.since.get_or_insert(now);
            }
            Step::End(transaction) => self.end(transaction, behind),
            Step::Between | Step::Within => {}
        }
        Ok(())
    }

    /// Counts an event, which tells the lowest 32 bits of where it ends, or nothing.
    fn advance(&mut self, event: &Event) -> Result<(), BinlogError> {
        let end = self.offset + u64::from(event.bytes);
        if event.next != 0 && event.next != end as u32 {
            let next = event.next;
            return self.damaged(format!("its event ends at {next} by its own words, and at {end} by its length"));
        }
        self.offset = end;
        Ok(())
    }

    fn end(&mut self, transaction: Transaction, behind: u64) {
        let Transaction { gtid, time } = transaction;
        let time = Timestamp::from_seconds(time);
        let before = &self.position;
        let (head_bytes, created) = self.head.unwrap_or_default();
        let draft = self.draft.get_or_insert_with(|| Draft {
            start: self.mark.0,
            end: self.mark.0,
            parts: Vec::new(),
            head_bytes,
            created,
            before: before.clone(),
            after: GtidSet::new(),
            first_gtid: gtid,
            last_gtid: gtid,
            first_time: time,
            last_time: time,
            transactions: 0,
        });
        draft.end = self.offset;
        draft.last_gtid = gtid;
        draft.first_time = draft.first_time.min(time);
        draft.last_time = draft.last_time.max(time);
        draft.transactions += 1;
        self.draft_end = behind;
        self.position.note(gtid);
    }

    /// Gives the whole transactions that have come; what has come of the next one stays.
    pub(super) fn cut(&mut self, now: Instant) -> Option<Draft> {
        let mut draft = self.draft.take()?;
        draft.after = self.position.clone();
        let (mut from, end) = (self.mark.1, self.draft_end);
        for made_up in self.made_up.iter().filter(|made_up| made_up.start < end) {
            draft.parts.push(from..made_up.start);
            from = made_up.end;
        }
        draft.parts.push(from..end);
        draft.parts.retain(|part| !part.is_empty());
        self.made_up.retain(|made_up| made_up.start >= end);
        self.mark = (draft.end, end);
        self.since = self.transactions.is_open().then_some(now);
        Some(draft)
    }
}

#[cfg(test)]
#[path = "cut_tests.rs"]
mod tests;
