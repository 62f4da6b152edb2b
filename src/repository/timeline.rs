//! Streams of binary log as one history: how they join, and which moments can be restored.
//!
//! A stream that goes on where another ended says so. Others join by GTIDs: a stream of another server goes on from an older one when the
//! position at which it begins lies in that one, and what the older one has beyond that position is not part of the history any more: after a
//! failover it is what the lost server had committed and nobody else had got.

use std::collections::BTreeSet;

use futures::{StreamExt, TryStreamExt};

use super::{Repository, RepositoryError, StoredSegment, StoredStream};
use crate::error::{Diagnose, Kind};
use crate::format::{Manifest, Segment, StreamLink};
use crate::model::{BackupId, GtidSet, StreamId, Timestamp};

/// Documents of segments read at the same time.
const SEGMENTS_IN_FLIGHT: usize = 16;

/// An unbroken row of segments of one stream.
#[derive(Debug, Clone)]
pub struct StreamPart {
    /// The stream.
    pub stream: StreamId,
    /// Its segments; at least one.
    pub segments: Vec<StoredSegment>,
    /// The document of the first.
    pub first: Segment,
    /// The document of the last.
    pub last: Segment,
}

/// How a part goes on from an older one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Join {
    /// At the byte where segment `0` of that one ends.
    Behind(u32),
    /// At the transactions that its [`Segment::before`] names, one of each domain.
    ByGtid,
}

/// A part of a history.
#[derive(Debug, Clone, Copy)]
pub struct Leg<'a> {
    /// The segments.
    pub part: &'a StreamPart,
    /// How the next leg goes on from it, and where; none in the last leg.
    pub next: Option<(Join, &'a GtidSet)>,
}

impl Leg<'_> {
    /// Where it ends at the latest.
    pub fn bound(&self) -> &GtidSet {
        self.next.map_or(&self.part.last.after, |(_, bound)| bound)
    }

    /// The number of its last segment.
    pub fn last_number(&self) -> u32 {
        match self.next {
            Some((Join::Behind(number), _)) => number,
            _ => self.part.last.number,
        }
    }

    /// True when the position lies in it, as far as the numbers of its transactions tell.
    pub fn holds(&self, position: &GtidSet) -> bool {
        position.covers(&self.part.first.before) && self.bound().covers(position)
    }
}

/// What a window needs to know of a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestorePoint {
    /// The backup.
    pub id: BackupId,
    /// When it was done.
    pub finished: Timestamp,
    /// The GTID position of its state.
    pub position: GtidSet,
}

impl RestorePoint {
    /// That of a backup; none where its server wrote no binary log.
    pub fn of(manifest: &Manifest) -> Option<RestorePoint> {
        let position = position_of(manifest)?;
        Some(RestorePoint { id: manifest.id.clone(), finished: manifest.finished, position })
    }
}

/// All parts, by the time at which their streams were begun.
#[derive(Debug, Clone, Default)]
pub struct BinlogHistory {
    parts: Vec<StreamPart>,
}

/// A time in which every second can be restored.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Window {
    /// When its first backup was done.
    pub from: Timestamp,
    /// Time of the last transaction that was archived.
    pub to: Timestamp,
    /// The backups that it begins from, the oldest first.
    pub backups: Vec<BackupId>,
    /// The streams that lead through it.
    pub streams: Vec<StreamId>,
    /// Number of segments from the first backup on, at most.
    pub segments: u64,
    /// Bytes of these.
    pub bytes: u64,
    /// GTID position at its end.
    pub gtid: GtidSet,
    /// Why what came before does not lead here, where something did.
    pub gap: Option<String>,
}

impl Repository {
    /// The history of all streams, and what of them could not be read.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn binlog_history(&self) -> Result<(BinlogHistory, Vec<RepositoryError>), RepositoryError> {
        let streams = self.binlog_streams().await?;
        let parts = streams.into_iter().flat_map(unbroken).map(|(stream, segments)| self.part(stream, segments));
        let parts: Vec<_> = futures::stream::iter(parts).buffered(SEGMENTS_IN_FLIGHT).try_collect().await?;
        let (mut history, mut damaged) = (BinlogHistory::default(), Vec::new());
        for part in parts {
            match part {
                Ok(part) => history.parts.push(part),
                Err(error) => damaged.push(error),
            }
        }
        Ok((history, damaged))
    }

    async fn part(
        &self,
        stream: StreamId,
        segments: Vec<StoredSegment>,
    ) -> Result<Result<StreamPart, RepositoryError>, RepositoryError> {
        let (Some(first), Some(last)) = (segments.first(), segments.last()) else {
            return Ok(Err(RepositoryError::NoBackup { id: stream.to_string() }));
        };
        match (self.read_segment(&first.key).await, self.read_segment(&last.key).await) {
            (Ok(first), Ok(last)) => Ok(Ok(StreamPart { stream, segments, first, last })),
            (Err(error), _) | (_, Err(error)) => match error.kind() {
                Kind::Corrupt | Kind::WrongKey | Kind::NoRepository => Ok(Err(error)),
                // It was pruned meanwhile.
                _ if matches!(&error, RepositoryError::Store(error) if error.is_not_found()) => Ok(Err(error)),
                _ => Err(error),
            },
        }
    }
}

/// The rows of a stream in which no number is missing.
fn unbroken(stream: StoredStream) -> Vec<(StreamId, Vec<StoredSegment>)> {
    let follows = |one: &StoredSegment, other: &StoredSegment| one.key.number.checked_add(1) == Some(other.key.number);
    stream.segments.chunk_by(follows).map(|row| (stream.id.clone(), row.to_vec())).collect()
}

impl BinlogHistory {
    /// The history that `parts` make.
    pub fn of(mut parts: Vec<StreamPart>) -> BinlogHistory {
        parts.sort_by(|one, other| (&one.stream, one.first.number).cmp(&(&other.stream, other.first.number)));
        BinlogHistory { parts }
    }

    /// All parts, the oldest first.
    pub fn parts(&self) -> &[StreamPart] {
        &self.parts
    }

    /// The part that `part` goes on from, and how.
    fn predecessor(&self, part: usize) -> Option<(usize, Join)> {
        let StreamPart { stream, first, .. } = &self.parts[part];
        if let Some(StreamLink { stream, number, .. }) = &first.continues {
            let holds = |older: &StreamPart| {
                older.stream == *stream && (older.first.number..=older.last.number).contains(number)
            };
            let older = self.parts[..part].iter().rposition(holds)?;
            return Some((older, Join::Behind(*number)));
        }
        // What lost its beginning, or says that something lacks, joins nothing.
        if first.number > 0 || first.gap.is_some() {
            return None;
        }
        let leads_here = |older: &StreamPart| {
            older.stream != *stream
                && older.last.after.covers(&first.before)
                && first.before.covers(&older.first.before)
        };
        Some((self.parts[..part].iter().rposition(leads_here)?, Join::ByGtid))
    }

    /// The history that ends with `part`, the oldest leg first.
    pub fn leading_to(&self, part: usize) -> Vec<Leg<'_>> {
        let mut legs = Vec::new();
        let (mut part, mut next) = (part, None);
        loop {
            legs.push(Leg { part: &self.parts[part], next });
            let Some((older, join)) = self.predecessor(part) else { break };
            next = Some((join, &self.parts[part].first.before));
            part = older;
        }
        legs.reverse();
        legs
    }

    /// The parts that no other goes on from, the newest first.
    pub fn ends(&self) -> Vec<usize> {
        let older: BTreeSet<usize> = (0..self.parts.len()).filter_map(|part| Some(self.predecessor(part)?.0)).collect();
        (0..self.parts.len()).rev().filter(|part| !older.contains(part)).collect()
    }

    /// The times in which every second can be restored from one of `backups`, the oldest first.
    pub fn windows(&self, backups: &[Manifest]) -> Vec<Window> {
        let points: Vec<RestorePoint> = backups.iter().filter_map(RestorePoint::of).collect();
        self.windows_from(&points)
    }

    /// As [`BinlogHistory::windows`].
    pub fn windows_from(&self, backups: &[RestorePoint]) -> Vec<Window> {
        let mut windows: Vec<Window> = self.ends().into_iter().filter_map(|end| self.window(end, backups)).collect();
        windows.sort_by_key(|window| (window.from, window.to));
        windows
    }

    fn window(&self, end: usize, backups: &[RestorePoint]) -> Option<Window> {
        let legs = self.leading_to(end);
        let mut found: Vec<(&RestorePoint, usize)> =
            backups.iter().filter_map(|point| Some((point, leg_of(&legs, &point.position)?))).collect();
        found.sort_by_key(|(point, _)| point.finished);
        let (oldest, leg) = *found.first()?;
        let last = &self.parts[end];
        let from = oldest.finished;
        let latest = legs.iter().flat_map(|leg| leg.part.segments.last()).map(|segment| segment.key.last).max()?;
        let used = || legs[leg..].iter().flat_map(|leg| leg.part.segments.iter().map(move |segment| (leg, segment)));
        let used =
            || used().filter(|(leg, segment)| segment.key.number <= leg.last_number() && segment.key.last >= from);
        Some(Window {
            from,
            to: latest.max(from),
            backups: found.iter().map(|(point, _)| point.id.clone()).collect(),
            streams: legs[leg..].iter().map(|leg| leg.part.stream.clone()).collect(),
            segments: used().count() as u64,
            bytes: used().map(|(_, segment)| segment.bytes).sum(),
            gtid: last.last.after.clone(),
            gap: legs.first().and_then(|leg| leg.part.first.gap.as_ref()).map(|gap| gap.reason.clone()),
        })
    }
}

/// The GTID position at which a backup's state ends; none where its server wrote no binary log.
pub fn position_of(manifest: &Manifest) -> Option<GtidSet> {
    // A log in which nothing has been written yet has no GTIDs.
    manifest.position.file.as_ref()?;
    manifest.position.gtid.as_deref().unwrap_or_default().parse().ok()
}

/// The leg in which a position lies; of several the last.
pub fn leg_of(legs: &[Leg<'_>], position: &GtidSet) -> Option<usize> {
    let leg = legs.iter().rposition(|leg| leg.holds(position))?;
    // What the history lost later may be in the backup.
    legs[leg..].iter().all(|leg| leg.bound().covers(position)).then_some(leg)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::{GtidPosition, segment_example};

    fn moment(second: u32) -> Timestamp {
        Timestamp::from_seconds(1_795_348_800 + second)
    }

    /// A part of one segment from `before` to `after`, ten seconds long.
    fn part(stream: &str, before: &str, after: &str, begin: u32) -> StreamPart {
        let mut segment = segment_example();
        segment.stream = format!("202611{stream}T020500Z-51c0de").parse().unwrap();
        (segment.before, segment.after) = (before.parse().unwrap(), after.parse().unwrap());
        (segment.first_time, segment.last_time, segment.gap) = (moment(begin), moment(begin + 10), None);
        let stored = StoredSegment { key: segment.key(), stored: moment(begin + 12), bytes: 100, packs: Vec::new() };
        StreamPart { stream: segment.stream.clone(), segments: vec![stored], first: segment.clone(), last: segment }
    }

    fn backup(gtid: Option<&str>, finished: u32) -> Manifest {
        let mut manifest = crate::format::manifest_example();
        manifest.id = BackupId::new(moment(finished), &crate::model::SystemEntropy);
        manifest.finished = moment(finished);
        let (file, position) = (Some("b.000001".to_owned()), Some(4));
        manifest.position = GtidPosition { file, position, gtid: gtid.map(str::to_owned) };
        manifest
    }

    fn windows(parts: Vec<StreamPart>, backups: &[Manifest]) -> Vec<(u32, u32, usize)> {
        let second = |time: Timestamp| time.seconds_since(moment(0)) as u32;
        let windows = BinlogHistory { parts }.windows(backups).into_iter();
        windows.map(|window| (second(window.from), second(window.to), window.backups.len())).collect()
    }

    #[test]
    fn a_backup_of_a_server_that_has_logged_nothing_yet_begins_a_window() {
        assert_eq!(windows(vec![part("01", "", "0-1-9", 5)], &[backup(None, 3)]), [(3, 15, 1)]);
        let mut without_log = backup(None, 3);
        without_log.position = GtidPosition::default();
        assert_eq!(windows(vec![part("01", "", "0-1-9", 5)], &[without_log]), []);
    }

    #[test]
    fn streams_that_join_are_one_window_and_those_with_a_gap_are_two() {
        let backups = [backup(Some("0-1-3"), 3), backup(Some("0-2-12"), 33)];
        let joined = vec![part("01", "0-1-3", "0-1-9", 5), part("02", "0-1-8", "0-2-20", 30)];
        assert_eq!(windows(joined.clone(), &backups), [(3, 40, 2)]);
        let mut apart = joined;
        apart[1].first.before = "0-1-10".parse().unwrap();
        assert_eq!(windows(apart, &backups), [(3, 15, 1), (33, 40, 1)]);
    }

    #[test]
    fn a_backup_of_what_a_failover_lost_leads_nowhere() {
        let parts = vec![part("01", "0-1-3", "0-1-9", 5), part("02", "0-1-8", "0-2-20", 30)];
        let history = BinlogHistory { parts };
        let legs = history.leading_to(1);
        let leg = |position: &str| leg_of(&legs, &position.parse().unwrap());
        assert_eq!((leg("0-1-3"), leg("0-1-7"), leg("0-1-8"), leg("0-2-12")), (Some(0), Some(0), Some(1), Some(1)));
        assert_eq!((leg("0-1-2"), leg("0-1-3,4-1-1"), leg("0-2-21")), (None, None, None));
    }
}
