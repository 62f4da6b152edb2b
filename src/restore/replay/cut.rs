//! The bytes of segments, with some transactions left out, as one binary log.

use super::cutter::{Cutter, Verdict};
use crate::mariadb::binlog::{BinlogError, EventParser, HEADER_BYTES, MAGIC, Step, Transaction, Transactions, kinds};

/// What a segment's bytes came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Transactions that were replayed.
    pub applied: u64,
    /// The last of them.
    pub last: Option<Transaction>,
}

/// Takes one segment after another, and gives the bytes that are to be replayed.
#[derive(Debug)]
pub(super) struct Cut {
    cutter: Cutter,
    /// The description of the format that was given last: events are read by it.
    described: Vec<u8>,
    begun: bool,
    pub tally: Tally,
}

/// A segment that is being cut.
#[derive(Debug)]
pub(super) struct SegmentCut {
    parser: EventParser,
    transactions: Transactions,
    what: String,
    /// The first bytes, until they are known to be those that a file begins with.
    magic: Vec<u8>,
    /// Bytes of the event in hand, where its fate is not known yet.
    held: Vec<u8>,
    /// True while a transaction is given.
    open: bool,
    /// Transactions that may still begin; all when absent.
    left: Option<u64>,
    /// Nothing more is wanted of it.
    ended: bool,
    whole: bool,
}

impl Cut {
    pub fn new(cutter: Cutter) -> Cut {
        Cut { cutter, described: Vec::new(), begun: false, tally: Tally::default() }
    }

    pub fn cutter(&mut self) -> &mut Cutter {
        &mut self.cutter
    }

    /// Begins with a segment that errors call `what`, of which `first` transactions are looked at, or all.
    pub fn segment(&self, what: String, first: Option<u64>) -> SegmentCut {
        SegmentCut {
            parser: EventParser::new(what.clone(), MAGIC.len() as u64),
            transactions: Transactions::default(),
            what,
            magic: Vec::new(),
            held: Vec::new(),
            open: false,
            left: first,
            ended: false,
            whole: false,
        }
    }

    /// Takes the next bytes of a segment, and appends what of them is to be replayed to `out`.
    ///
    /// # Errors
    /// When they are no binary log.
    pub fn push(&mut self, segment: &mut SegmentCut, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), BinlogError> {
        let mut rest = bytes;
        if segment.magic.len() < MAGIC.len() {
            let (magic, after) = rest.split_at(rest.len().min(MAGIC.len() - segment.magic.len()));
            segment.magic.extend_from_slice(magic);
            rest = after;
            if segment.magic.len() == MAGIC.len() && segment.magic != MAGIC {
                let problem = "it does not begin as a binary log does".to_owned();
                return Err(BinlogError::Damaged { what: segment.what.clone(), at: 0, problem });
            }
        }
        while !rest.is_empty() {
            let (before, at) = (rest, segment.parser.at());
            let event = segment.parser.next(&mut rest)?;
            let taken = &before[..before.len() - rest.len()];
            let inside = segment.transactions.is_open();
            match (inside, segment.open) {
                (true, true) => out.extend_from_slice(taken),
                (true, false) => {}
                (false, _) => segment.held.extend_from_slice(taken),
            }
            let Some(event) = event else { continue };
            let step = segment.transactions.step(&event, &segment.what, at)?;
            match step {
                Step::Begin(transaction) => {
                    segment.ended |= segment.left == Some(0);
                    segment.left = segment.left.map(|left| left.saturating_sub(1));
                    segment.open = !segment.ended && self.cutter.decide(&transaction) == Verdict::Apply;
                    if segment.open {
                        out.append(&mut segment.held);
                        self.tally.applied += 1;
                        self.tally.last = Some(transaction);
                    }
                }
                Step::Between if event.kind == kinds::FORMAT_DESCRIPTION => self.describe(&segment.held, out),
                _ => {}
            }
            if !inside {
                segment.held.clear();
            }
            segment.whole = segment.parser.is_between() && !segment.transactions.is_open();
        }
        Ok(())
    }

    /// Gives a description of the format where it is another than the one before, its time left out.
    fn describe(&mut self, event: &[u8], out: &mut Vec<u8>) {
        let differs = self.described.get(HEADER_BYTES..) != event.get(HEADER_BYTES..);
        if !self.begun {
            out.extend_from_slice(&MAGIC);
            self.begun = true;
        }
        if differs {
            out.extend_from_slice(event);
            self.described = event.to_vec();
        }
    }
}

impl SegmentCut {
    /// True when nothing more of the segment is wanted.
    pub fn is_ended(&self) -> bool {
        self.ended
    }

    /// That the bytes ended where a transaction does.
    ///
    /// # Errors
    /// When they did not, or fewer transactions came than were wanted.
    pub fn finish(&self) -> Result<(), BinlogError> {
        if self.ended || (self.whole && self.left.unwrap_or(0) == 0) {
            return Ok(());
        }
        let problem = "it ends inside of a transaction, or before the one that is wanted".to_owned();
        Err(BinlogError::Damaged { what: self.what.clone(), at: self.parser.at(), problem })
    }
}
