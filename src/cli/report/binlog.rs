//! What `binlog` tells.

use std::path::PathBuf;

use serde::Serialize;

use crate::{
    cli::{human, output::Message, paint::Paint},
    format::{BinlogSource, Gap, Segment, StreamLink},
    model::{Gtid, GtidSet, StreamId, Timestamp},
    repository::{StoredSegment, StoredStream},
};

/// A `binlog_stream` line: what one archiver stored without a break.
#[derive(Debug, Clone, Serialize)]
pub struct BinlogStreamLine<'a> {
    stream: &'a StreamId,
    segments: u64,
    first_number: Option<u32>,
    first_time: Option<Timestamp>,
    last_time: Option<Timestamp>,
    first_gtid: Option<Gtid>,
    stored_bytes: u64,
    missing: Vec<(u32, u32)>,
    source: Option<&'a BinlogSource>,
    continues: Option<&'a StreamLink>,
    gap: Option<&'a Gap>,
}

impl Message for BinlogStreamLine<'_> {
    const TYPE: &'static str = "binlog_stream";
}

impl<'a> BinlogStreamLine<'a> {
    /// That of `stream`, whose first segment is `first`; `missing` are numbers that lack.
    pub fn of(stream: &'a StoredStream, first: Option<&'a Segment>, missing: Vec<(u32, u32)>) -> BinlogStreamLine<'a> {
        let segments = &stream.segments;
        BinlogStreamLine {
            stream: &stream.id,
            segments: segments.len() as u64,
            first_number: segments.first().map(|segment| segment.key.number),
            first_time: segments.iter().map(|segment| segment.key.first).min(),
            last_time: segments.iter().map(|segment| segment.key.last).max(),
            first_gtid: segments.first().map(|segment| segment.key.gtid),
            stored_bytes: segments.iter().map(|segment| segment.bytes).sum(),
            missing,
            source: first.map(|first| &first.source),
            continues: first.and_then(|first| first.continues.as_ref()),
            gap: first.and_then(|first| first.gap.as_ref()),
        }
    }
}

/// A `binlog_segment` line; of one whose document cannot be read, what its key tells.
#[derive(Debug, Clone, Serialize)]
pub struct BinlogSegmentLine<'a> {
    stream: &'a StreamId,
    number: u32,
    first_time: Timestamp,
    last_time: Timestamp,
    first_gtid: Gtid,
    stored_bytes: u64,
    readable: bool,
    last_gtid: Option<Gtid>,
    before: Option<&'a GtidSet>,
    after: Option<&'a GtidSet>,
    transactions: Option<u64>,
    file: Option<&'a str>,
    start: Option<u64>,
    end: Option<u64>,
    raw_bytes: Option<u64>,
    archived: Option<Timestamp>,
}

impl Message for BinlogSegmentLine<'_> {
    const TYPE: &'static str = "binlog_segment";
}

impl<'a> BinlogSegmentLine<'a> {
    /// That of `stored`, whose document is `segment`.
    pub fn of(stored: &'a StoredSegment, segment: Option<&'a Segment>) -> BinlogSegmentLine<'a> {
        let key = &stored.key;
        BinlogSegmentLine {
            stream: &key.stream,
            number: key.number,
            first_time: key.first,
            last_time: key.last,
            first_gtid: key.gtid,
            stored_bytes: stored.bytes,
            readable: segment.is_some(),
            last_gtid: segment.map(|segment| segment.last_gtid),
            before: segment.map(|segment| &segment.before),
            after: segment.map(|segment| &segment.after),
            transactions: segment.map(|segment| segment.transactions),
            file: segment.map(|segment| segment.file.as_str()),
            start: segment.map(|segment| segment.start),
            end: segment.map(|segment| segment.end),
            raw_bytes: segment.map(|segment| segment.raw_bytes),
            archived: segment.map(|segment| segment.archived),
        }
    }
}

/// Summary of `binlog list`.
#[derive(Debug, Clone, Serialize)]
pub struct BinlogListSummary {
    /// Where the repository is.
    pub url: String,
    /// The range as it was understood.
    pub from: Option<Timestamp>,
    /// Its end.
    pub to: Option<Timestamp>,
    /// Streams that have something in it.
    pub streams: u64,
    /// Segments in it.
    pub segments: u64,
    /// Bytes of these as they are stored.
    pub stored_bytes: u64,
    /// Segments that are missing in these streams.
    pub missing: u64,
    /// Documents that cannot be read.
    pub damaged: u64,
}

impl Message for BinlogListSummary {
    const TYPE: &'static str = "summary";
}

impl BinlogListSummary {
    /// For people.
    pub fn text(&self, paint: Paint) -> String {
        let (segments, streams) = (human::counted(self.segments, "segment"), human::counted(self.streams, "stream"));
        let mut text = format!("{segments} in {streams}; {} stored", human::bytes(self.stored_bytes));
        if self.missing > 0 {
            text += &format!("; {}", paint.red(&format!("{} missing", human::counted(self.missing, "segment"))));
        }
        if self.damaged > 0 {
            text += &format!("; {}", paint.red(&format!("{} damaged", human::counted(self.damaged, "segment"))));
        }
        text + "\n"
    }
}

/// Summary of `binlog fetch`.
#[derive(Debug, Clone, Serialize)]
pub struct BinlogFetchSummary {
    /// The directory.
    pub into: PathBuf,
    /// Names of the files in it, in the order of the segments.
    pub files: Vec<String>,
    /// Their bytes.
    pub written_bytes: u64,
}

impl Message for BinlogFetchSummary {
    const TYPE: &'static str = "summary";
}

impl BinlogFetchSummary {
    /// For people.
    pub fn text(&self, _: Paint) -> String {
        let (files, bytes) = (human::counted(self.files.len() as u64, "file"), human::bytes(self.written_bytes));
        format!("wrote {files} ({bytes}) into {}\n", self.into.display())
    }
}
