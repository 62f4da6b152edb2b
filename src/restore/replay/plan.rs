//! From a moment to the backup and the segments that lead there.

use std::fmt;

use super::TargetError;
use super::scan::{Scanned, scan};
use crate::format::{Manifest, Segment};
use crate::mariadb::binlog::Transaction;
use crate::model::{BackupId, Gtid, GtidSet, Timestamp};
use crate::repository::{
    BinlogHistory, Join, Leg, Repository, SegmentKey, StoredSegment, StreamPart, leg_of, position_of,
};
use crate::restore::RestoreError;

/// A moment in a server's history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The end of that second: all up to the first transaction of a later one.
    Time(Timestamp),
    /// After that transaction.
    Gtid(Gtid),
    /// Before that transaction.
    BeforeGtid(Gtid),
    /// After the transaction that ends at that byte of the server's file.
    Position {
        /// The file's name.
        file: String,
        /// The byte.
        position: u64,
    },
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Time(time) => time.fmt(f),
            Target::Gtid(gtid) => write!(f, "transaction {gtid}"),
            Target::BeforeGtid(gtid) => write!(f, "the moment before transaction {gtid}"),
            Target::Position { file, position } => write!(f, "position {position} of {file}"),
        }
    }
}

/// Segments of one stream that are replayed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PlannedLeg {
    pub segments: Vec<SegmentKey>,
    /// Where another stream goes on, by GTIDs.
    pub until: Option<GtidSet>,
}

/// A transaction as people want to see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Moment {
    /// Its name.
    pub gtid: Gtid,
    /// Its time by the server's clock.
    pub time: Timestamp,
}

impl From<Transaction> for Moment {
    fn from(transaction: Transaction) -> Moment {
        Moment { gtid: transaction.gtid, time: Timestamp::from_seconds(transaction.time) }
    }
}

/// What a restore to a moment replays on top of its backup.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ReplayPlan {
    /// The backup.
    pub backup: BackupId,
    /// Where its state ends.
    pub start: GtidSet,
    /// Where the log stands before the first segment.
    #[serde(skip)]
    pub(super) before: GtidSet,
    #[serde(skip)]
    pub(super) legs: Vec<PlannedLeg>,
    /// Transactions of the last segment that are looked at.
    #[serde(skip)]
    pub(super) of_last: u64,
    /// Where the restored server stands.
    pub gtid: GtidSet,
    /// Segments that are read.
    pub segments: u64,
    /// Bytes of them in the store.
    pub stored_bytes: u64,
    /// The last transaction before the moment, in or behind the backup.
    pub last: Option<Moment>,
    /// The first one that is left out, if it is archived.
    pub next: Option<Moment>,
}

impl ReplayPlan {
    /// What tells this replay from any other of the same backup.
    pub(in crate::restore) fn identity(&self) -> String {
        let last = self.legs.iter().rev().find_map(|leg| leg.segments.last());
        match last {
            Some(SegmentKey { stream, number, .. }) => format!("{} of {stream}/{number}, {}", self.of_last, self.gtid),
            None => self.gtid.to_string(),
        }
    }
}

/// Where the replay ends.
struct End<'a> {
    legs: Vec<Leg<'a>>,
    /// Index of the segment in the last leg.
    segment: usize,
    /// Transactions of it that are looked at.
    of_last: u64,
    state: GtidSet,
    last: Option<Moment>,
    next: Option<Moment>,
}

/// Finds the way to `target`: the newest of `backups` that leads there, and what has to be replayed on it.
///
/// # Errors
/// When nothing leads there, which names the nearest moments; or when segments cannot be read.
pub async fn plan_replay(
    repository: &Repository,
    backups: &[Manifest],
    target: &Target,
) -> Result<ReplayPlan, RestoreError> {
    // What cannot be read leads nowhere; the check names it.
    let (history, _) = repository.binlog_history().await?;
    let planner = Planner { repository, history: &history, target };
    let mut without_backup = None;
    for end in planner.ends() {
        let Some(mut end) = planner.end_in(end).await? else { continue };
        if end.last.is_none() {
            end.last = planner.last_before(&end).await?;
        }
        match planner.beginning(&end, backups).await? {
            Some(plan) => return Ok(plan),
            None => without_backup = Some(end.state.clone()),
        }
    }
    let windows = history.windows(backups);
    let told = target.to_string();
    let Target::Time(time) = *target else {
        let why = match without_backup {
            Some(_) => "no backup leads to it".to_owned(),
            None => "it is not in any archived binary log".to_owned(),
        };
        return Err(TargetError::NotFound { target: told, why }.into());
    };
    let before = windows.iter().map(|window| window.to).filter(|to| *to <= time).max();
    let after = windows.iter().map(|window| window.from).filter(|from| *from > time).min();
    Err(TargetError::OutsideWindows { target: told, before, after }.into())
}

struct Planner<'a> {
    repository: &'a Repository,
    history: &'a BinlogHistory,
    target: &'a Target,
}

impl<'a> Planner<'a> {
    /// The parts in whose histories the target may lie, the likeliest first.
    fn ends(&self) -> Vec<usize> {
        match self.target {
            // What no other stream goes on from is what counts.
            Target::Time(_) => self.history.ends(),
            // Any transaction that was ever archived can be asked for.
            _ => (0..self.history.parts().len()).rev().collect(),
        }
    }

    async fn end_in(&self, end: usize) -> Result<Option<End<'a>>, RestoreError> {
        let legs = self.history.leading_to(end);
        match self.target {
            Target::Time(time) => self.end_at_time(legs, *time).await,
            Target::Gtid(gtid) => self.end_at_gtid(legs, *gtid, true).await,
            Target::BeforeGtid(gtid) => self.end_at_gtid(legs, *gtid, false).await,
            Target::Position { file, position } => self.end_at_position(legs, file, *position).await,
        }
    }

    async fn end_at_time(&self, mut legs: Vec<Leg<'a>>, time: Timestamp) -> Result<Option<End<'a>>, RestoreError> {
        let latest = legs.iter().flat_map(leg_segments).map(|segment| segment.key.last).max();
        if latest.is_none_or(|latest| latest < time) {
            return Ok(None);
        }
        let later = legs.iter().enumerate().find_map(|(number, leg)| {
            Some((number, leg_segments(leg).iter().position(|segment| segment.key.last > time)?))
        });
        // In the last second of all, everything counts.
        let (leg, segment) = later.unwrap_or_else(|| {
            let last = legs.len().saturating_sub(1);
            (last, leg_segments(&legs[last]).len().saturating_sub(1))
        });
        legs.truncate(leg + 1);
        let document = self.document(&legs[leg], segment).await?;
        let scanned = scan(self.repository, &document).await?;
        let within = |scanned: &&Scanned| Timestamp::from_seconds(scanned.transaction.time) <= time;
        let of_last = scanned.iter().take_while(within).count();
        Ok(Some(end_of(legs, segment, &document, &scanned, of_last)))
    }

    async fn end_at_gtid(
        &self,
        legs: Vec<Leg<'a>>,
        gtid: Gtid,
        inclusive: bool,
    ) -> Result<Option<End<'a>>, RestoreError> {
        let Some(leg) = legs.last() else { return Ok(None) };
        let beyond = |state: &GtidSet| state.get(gtid.domain).is_some_and(|last| last.sequence >= gtid.sequence);
        if !beyond(&leg.part.last.after) || beyond(&leg.part.first.before) {
            return Ok(None);
        }
        let segment = self.first_where(leg, |segment| beyond(&segment.after)).await?;
        let Some(segment) = segment.filter(|segment| *segment < leg.part.segments.len()) else { return Ok(None) };
        let document = self.document(leg, segment).await?;
        let scanned = scan(self.repository, &document).await?;
        let Some(place) = scanned.iter().position(|scanned| scanned.transaction.gtid == gtid) else {
            return Ok(None);
        };
        Ok(Some(end_of(legs, segment, &document, &scanned, place + usize::from(inclusive))))
    }

    async fn end_at_position(
        &self,
        legs: Vec<Leg<'a>>,
        file: &str,
        position: u64,
    ) -> Result<Option<End<'a>>, RestoreError> {
        let Some(leg) = legs.last() else { return Ok(None) };
        let wanted = (file_number(file), position);
        let beyond = |segment: &Segment| (file_number(&segment.file), segment.end) >= wanted;
        let segment = self.first_where(leg, beyond).await?;
        let Some(segment) = segment.filter(|segment| *segment < leg.part.segments.len()) else { return Ok(None) };
        let document = self.document(leg, segment).await?;
        if document.file != file || position < document.start {
            return Ok(None);
        }
        let scanned = scan(self.repository, &document).await?;
        let of_last = scanned.iter().take_while(|scanned| scanned.end <= position).count();
        let before = of_last.checked_sub(1).map_or(document.start, |last| scanned[last].end);
        if before != position && position != document.end {
            let after = scanned.get(of_last).map_or(document.end, |next| next.end);
            return Err(TargetError::Inside { target: self.target.to_string(), before, after }.into());
        }
        Ok(Some(end_of(legs, segment, &document, &scanned, of_last)))
    }

    /// The last transaction of the segment before the one in which the end lies.
    async fn last_before(&self, end: &End<'_>) -> Result<Option<Moment>, RestoreError> {
        let Some((last, older)) = end.legs.split_last() else { return Ok(None) };
        let segment = match end.segment.checked_sub(1) {
            Some(before) => self.document(last, before).await?,
            None => match older.last() {
                Some(leg) => self.document(leg, leg_segments(leg).len().saturating_sub(1)).await?,
                None => return Ok(None),
            },
        };
        Ok(Some(Moment { gtid: segment.last_gtid, time: segment.last_time }))
    }

    async fn document(&self, leg: &Leg<'_>, segment: usize) -> Result<Segment, RestoreError> {
        Ok(self.repository.read_segment(&leg.part.segments[segment].key).await?)
    }

    /// The first segment of a part of which `holds` is true, as it is of all that come after it; the number of segments when it is of none.
    async fn first_where(
        &self,
        leg: &Leg<'_>,
        holds: impl Fn(&Segment) -> bool,
    ) -> Result<Option<usize>, RestoreError> {
        let (mut low, mut high) = (0, leg.part.segments.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if holds(&self.document(leg, middle).await?) { high = middle } else { low = middle + 1 }
        }
        Ok(Some(low))
    }

    /// The plan that begins from the newest backup that leads to `end`.
    async fn beginning(&self, end: &End<'a>, backups: &[Manifest]) -> Result<Option<ReplayPlan>, RestoreError> {
        let mut newest: Vec<&Manifest> = backups.iter().collect();
        newest.sort_by_key(|manifest| std::cmp::Reverse(manifest.finished));
        let usable = newest.into_iter().find_map(|manifest| {
            let position = position_of(manifest)?;
            let leads = end.state.covers(&position);
            let leg = leads.then(|| leg_of(&end.legs, &position))??;
            Some((manifest, position, leg))
        });
        let Some((manifest, position, first_leg)) = usable else { return Ok(None) };
        let begin = self.begin_in(&end.legs[first_leg], manifest, &position).await?;
        let (mut legs, mut stored_bytes) = (Vec::new(), 0);
        let mut before = position.clone();
        for (number, leg) in end.legs.iter().enumerate().skip(first_leg) {
            let from = if number == first_leg { begin } else { 0 };
            let last = number + 1 == end.legs.len();
            let segments = leg_segments(leg);
            let to = if last { end.segment + 1 } else { segments.len() };
            let segments = segments.get(from..to).unwrap_or_default();
            if number == first_leg && !segments.is_empty() {
                before = self.document(leg, from).await?.before;
            }
            stored_bytes += segments.iter().map(|segment| segment.bytes).sum::<u64>();
            let until = match leg.next {
                Some((Join::ByGtid, bound)) => Some(bound.clone()),
                _ => None,
            };
            legs.push(PlannedLeg { segments: segments.iter().map(|segment| segment.key.clone()).collect(), until });
        }
        let segments = legs.iter().map(|leg| leg.segments.len() as u64).sum();
        Ok(Some(ReplayPlan {
            backup: manifest.id.clone(),
            start: position,
            before,
            legs,
            of_last: end.of_last,
            gtid: end.state.clone(),
            segments,
            stored_bytes,
            last: end.last,
            next: end.next,
        }))
    }

    /// The segment of a leg from which on there is something that the backup does not have.
    async fn begin_in(&self, leg: &Leg<'_>, manifest: &Manifest, position: &GtidSet) -> Result<usize, RestoreError> {
        let StreamPart { first, .. } = leg.part;
        let own =
            first.source.hostname == manifest.server.hostname && first.source.server_id == manifest.server.server_id;
        if let (true, Some(file), Some(place)) = (own, &manifest.position.file, manifest.position.position) {
            let wanted = (file_number(file), place);
            let beyond = |segment: &Segment| (file_number(&segment.file), segment.end) > wanted;
            let at = self.first_where(leg, beyond).await?.unwrap_or_default();
            let here = match leg.part.segments.get(at) {
                Some(_) => self.document(leg, at).await?,
                None => leg.part.last.clone(),
            };
            // The numbers say the same: it is not another file of that name.
            if position.covers(&here.before) && stem(&here.file) == stem(file) {
                return Ok(at);
            }
        }
        let at = self.first_where(leg, |segment| !position.covers(&segment.after)).await?;
        Ok(at.unwrap_or_default())
    }
}

/// The segments of a leg that are part of the history.
fn leg_segments<'a>(leg: &Leg<'a>) -> &'a [StoredSegment] {
    let (segments, last) = (&leg.part.segments, leg.last_number());
    let count = segments.partition_point(|segment| segment.key.number <= last);
    &segments[..count]
}

fn end_of<'a>(legs: Vec<Leg<'a>>, segment: usize, document: &Segment, scanned: &[Scanned], of_last: usize) -> End<'a> {
    let mut state = document.before.clone();
    scanned[..of_last].iter().for_each(|scanned| state.note(scanned.transaction.gtid));
    // What the history lost later is not part of it.
    if let Some((Join::ByGtid, bound)) = legs.last().and_then(|leg| leg.next) {
        let lost = |gtid: &Gtid| bound.get(gtid.domain).is_none_or(|last| gtid.sequence > last.sequence);
        let clipped = state.iter().filter_map(|gtid| if lost(&gtid) { bound.get(gtid.domain) } else { Some(gtid) });
        state = clipped.collect();
    }
    let moment = |scanned: &Scanned| Moment::from(scanned.transaction);
    let last = of_last.checked_sub(1).map(|last| moment(&scanned[last]));
    End { legs, segment, of_last: of_last as u64, state, last, next: scanned.get(of_last).map(moment) }
}

/// The number at the end of a file's name, by which files follow each other.
fn file_number(file: &str) -> u64 {
    file.rsplit('.').next().and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

fn stem(file: &str) -> &str {
    let name = file.rsplit('/').next().unwrap_or(file);
    name.rsplit_once('.').map_or(name, |(stem, _)| stem)
}
