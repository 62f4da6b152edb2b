//! A segment of archived binary log, and the stream that it is part of.

use serde::{Deserialize, Serialize};

use super::{Document, FormatError};
use crate::model::{ChunkId, Gtid, GtidSet, PackId, RepositoryId, StreamId, Timestamp};

/// Most packs of one segment: a transaction of a TiB would take as many.
pub const SEGMENT_PACKS_MAX: usize = 65_536;

/// The server whose binary log it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BinlogSource {
    /// `@@hostname`.
    pub hostname: String,
    /// `@@port`.
    pub port: u16,
    /// `@@server_id`.
    pub server_id: u32,
    /// `@@version`.
    pub version: String,
}

/// What a stream goes on from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamLink {
    /// The stream.
    pub stream: StreamId,
    /// Its segment behind which the new stream begins, at the very byte.
    pub number: u32,
    /// [`Segment::sum`] of that segment.
    pub sum: ChunkId,
}

/// Why a stream does not begin where what was archived before ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// What happened, for people.
    pub reason: String,
    /// Where what was archived before ended.
    pub after: GtidSet,
}

/// An object with a part of a segment's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentPack {
    /// Its name: the hash of its bytes.
    pub pack: PackId,
    /// Its size in bytes.
    pub bytes: u32,
}

/// A run of whole transactions of one binary log file.
///
/// Its packs hold, one chunk after another, a binary log file that is complete in itself: the four bytes that one begins with, the event that
/// describes its format, and the server's bytes from `start` to `end`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// The repository.
    pub repository_id: RepositoryId,
    /// The stream.
    pub stream: StreamId,
    /// Its number in the stream, from 0, without a gap.
    pub number: u32,
    /// [`Segment::sum`] of the one before it in the stream; absent in the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<ChunkId>,
    /// In the first segment of a stream: what it goes on from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub continues: Option<StreamLink>,
    /// In the first segment of a stream: why it does not go on from what was archived before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gap: Option<Gap>,
    /// The server.
    pub source: BinlogSource,
    /// The server's file.
    pub file: String,
    /// When the server began the file, in seconds since 1970: another file of the same name has another time.
    pub file_created: u32,
    /// First byte in the server's file.
    pub start: u64,
    /// The byte behind the last.
    pub end: u64,
    /// Where the log stood before it.
    pub before: GtidSet,
    /// Where it stands after it.
    pub after: GtidSet,
    /// The first transaction.
    pub first_gtid: Gtid,
    /// The last one.
    pub last_gtid: Gtid,
    /// The earliest time of a transaction; the server's clock.
    pub first_time: Timestamp,
    /// The latest one.
    pub last_time: Timestamp,
    /// Number of transactions.
    pub transactions: u64,
    /// Length of the binary log file that it is.
    pub raw_bytes: u64,
    /// The name that a file's chunk has whose bytes are the names of all its chunks, in order.
    pub sum: ChunkId,
    /// The objects that hold them, in order.
    pub packs: Vec<SegmentPack>,
    /// When they had been stored, by the archiver's clock.
    pub archived: Timestamp,
}

impl Segment {
    fn problem(&self) -> Option<&'static str> {
        match () {
            () if (self.number == 0) != self.previous.is_none() => Some("it has no predecessor, or one too many"),
            () if self.number > 0 && (self.continues.is_some() || self.gap.is_some()) => {
                Some("it tells how its stream begins, and is not the first of it")
            }
            () if self.continues.is_some() && self.gap.is_some() => Some("it goes on from what it has a gap to"),
            () if self.start >= self.end => Some("it ends before it begins"),
            () if self.transactions == 0 => Some("it has no transaction"),
            () if self.first_time > self.last_time => Some("its times are in the wrong order"),
            () if self.packs.is_empty() || self.packs.len() > SEGMENT_PACKS_MAX => {
                Some("its number of packs cannot be")
            }
            () if self.after.get(self.last_gtid.domain) != Some(self.last_gtid) => {
                Some("its last transaction is not where it ends")
            }
            () => None,
        }
    }
}

impl Document for Segment {
    const WORD: &'static str = "binlog";

    fn check(&self) -> Result<(), FormatError> {
        let Some(problem) = self.problem() else { return Ok(()) };
        let what = format!("segment {} of binary log stream {}", self.number, self.stream);
        Err(FormatError::Document { what, problem: problem.to_owned() })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::format::{decode_document, encode_document};

    /// The segment that FORMAT.md shows.
    pub(crate) fn example() -> Segment {
        let moment = |text: &str| Timestamp(text.parse().unwrap());
        Segment {
            repository_id: RepositoryId([0x5a; 16]),
            stream: "20261122T020500Z-51c0de".parse().unwrap(),
            number: 0,
            previous: None,
            continues: None,
            gap: Some(Gap {
                reason: "the server has purged its binary logs up to db1-bin.000041".to_owned(),
                after: "0-1-90".parse().unwrap(),
            }),
            source: BinlogSource {
                hostname: "db1".to_owned(),
                port: 3306,
                server_id: 1,
                version: "10.11.19-MariaDB-log".to_owned(),
            },
            file: "db1-bin.000042".to_owned(),
            file_created: 1_795_312_800,
            start: 342,
            end: 88_061,
            before: "0-1-100".parse().unwrap(),
            after: "0-1-207,3-1-7".parse().unwrap(),
            first_gtid: "0-1-101".parse().unwrap(),
            last_gtid: "0-1-207".parse().unwrap(),
            first_time: moment("2026-11-22T02:05:00Z"),
            last_time: moment("2026-11-22T02:05:04Z"),
            transactions: 114,
            raw_bytes: 87_975,
            sum: ChunkId([0x11; 32]),
            packs: vec![SegmentPack { pack: PackId([0xab; 32]), bytes: 30_121 }],
            archived: moment("2026-11-22T02:05:05Z"),
        }
    }

    #[test]
    fn the_segment_of_the_specification_is_what_is_written() {
        let written = String::from_utf8(encode_document(&example()).unwrap()).unwrap();
        assert!(include_str!("FORMAT.md").contains(&format!("\n{written}```\n")), "FORMAT.md lacks\n{written}");
        assert_eq!(decode_document::<Segment>("segment", written.as_bytes()).unwrap(), example());
    }

    #[test]
    fn a_segment_that_contradicts_itself_is_refused() {
        let accepted = |change: fn(&mut Segment)| {
            let mut segment = example();
            change(&mut segment);
            decode_document::<Segment>("segment", &encode_document(&segment).unwrap()).is_ok()
        };
        assert!(accepted(|_| ()));
        assert!(accepted(|segment| {
            (segment.number, segment.previous, segment.gap) = (1, Some(ChunkId([1; 32])), None);
        }));
        for broken in [
            |segment: &mut Segment| segment.number = 1,
            |segment: &mut Segment| segment.previous = Some(ChunkId([1; 32])),
            |segment: &mut Segment| (segment.number, segment.previous) = (1, Some(ChunkId([1; 32]))),
            |segment: &mut Segment| {
                let stream = segment.stream.clone();
                segment.continues = Some(StreamLink { stream, number: 7, sum: ChunkId([1; 32]) });
            },
            |segment: &mut Segment| segment.end = segment.start,
            |segment: &mut Segment| segment.transactions = 0,
            |segment: &mut Segment| std::mem::swap(&mut segment.first_time, &mut segment.last_time),
            |segment: &mut Segment| segment.packs.clear(),
            |segment: &mut Segment| segment.last_gtid = segment.first_gtid,
        ] {
            assert!(!accepted(broken));
        }
    }
}
