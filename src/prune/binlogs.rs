//! Binary log that no backup which stays can use.
//!
//! A backup is gone on from by the log that was written since it began. So what lies before the oldest backup goes, or with
//! [`KeepPolicy::pitr`] what lies before the backup from which any second of that stretch is reached. Of a stream the first segments go
//! and no other, so that what stays is a row without a gap. What a plan names is held against the backups once more when it is carried out.

use std::collections::{BTreeMap, BTreeSet};

use futures::StreamExt;

use super::sweep::{DELETES_IN_FLIGHT, Deleted, denied};
use super::{Decided, Fate, KeepPolicy, Pending, PruneError, PruneReport, Run, Swept};
use crate::format::{BinlogLetGo, PrunePlan};
use crate::model::{BackupId, StreamId, Timestamp};
use crate::repository::{ObjectKey, PruneState, StoredStream};

/// How far before the beginning of a backup the log must have ended: its times are the server's clock's, and a transaction's time is
/// when its last statement began.
const MARGIN_SECONDS: i64 = 60 * 60;
/// Packs of a segment whose document has not come for so long are those of an archiver that died: one that lives stores a pack of it,
/// and then the document, within seconds or, of a transaction that is written for long, minutes.
const UNFINISHED_SECONDS: i64 = 24 * 60 * 60;

/// What goes, and how much it is.
#[derive(Debug, Default)]
pub(super) struct Goes {
    pub entries: Vec<BinlogLetGo>,
    pub segments: u64,
    pub bytes: u64,
}

/// Before which moment none of the backups that stay, told by begin and end, needs any log; none where there is no backup.
fn horizon(policy: &KeepPolicy, stays: &[(Timestamp, Timestamp)]) -> Option<Timestamp> {
    let base = policy.pitr_base(stays).map(|place| stays[place].0);
    let oldest = || stays.iter().map(|(started, _)| *started).min();
    base.or_else(oldest).map(|started| started.after(-MARGIN_SECONDS))
}

/// Number below which the segments of `stream` end before `horizon`.
fn below(stream: &StoredStream, horizon: Timestamp) -> u32 {
    let early = stream.segments.iter().take_while(|segment| segment.key.last < horizon);
    early.last().map_or(0, |segment| segment.key.number.saturating_add(1))
}

/// Segments whose document has not come, and when their newest pack was stored.
fn unfinished(stream: &StoredStream) -> BTreeMap<u32, Timestamp> {
    let mut newest: BTreeMap<u32, Timestamp> = BTreeMap::new();
    for (number, _, _, stored) in &stream.unfinished {
        let known = newest.entry(*number).or_insert(*stored);
        *known = (*known).max(*stored);
    }
    newest
}

/// Decides what goes of `streams`, by ascending name; `named` are what plans name already, and `is_locked` tells what the store would not
/// let go of.
fn choose(
    streams: &[StoredStream],
    horizon: Timestamp,
    named: &[&BinlogLetGo],
    now: Timestamp,
    is_locked: impl Fn(Timestamp) -> bool,
) -> Goes {
    let mut goes = Goes::default();
    let newest = streams.iter().rev().find_map(|stream| Some((&stream.id, stream.segments.last()?.key.number)));
    for stream in streams {
        let planned = || named.iter().filter(|entry| entry.stream == stream.id);
        let from = planned().map(|entry| entry.below).max().unwrap_or(0);
        let known: BTreeSet<u32> = planned().flat_map(|entry| entry.unfinished.iter().copied()).collect();
        let mut to = below(stream, horizon);
        if let Some((id, last)) = newest
            && *id == stream.id
        {
            // The archiver goes on from it, however long the server has been idle.
            to = to.min(last);
        }
        let first_locked = stream.segments.iter().find(|segment| is_locked(segment.stored));
        to = first_locked.map_or(to, |segment| to.min(segment.key.number));
        let segments: Vec<_> =
            stream.segments.iter().filter(|segment| (from..to).contains(&segment.key.number)).collect();
        let dead = unfinished(stream).into_iter().filter(|(number, stored)| {
            let old = now.seconds_since(*stored) > UNFINISHED_SECONDS;
            old && !is_locked(*stored) && !known.contains(number) && *number >= from
        });
        let dead: Vec<u32> = dead.map(|(number, _)| number).collect();
        if segments.is_empty() && dead.is_empty() {
            continue;
        }
        goes.segments += segments.len() as u64;
        goes.bytes += segments.iter().map(|segment| segment.bytes).sum::<u64>();
        goes.bytes += stream.unfinished.iter().filter(|pack| dead.contains(&pack.0)).map(|pack| pack.2).sum::<u64>();
        let below = if segments.is_empty() { 0 } else { to };
        goes.entries.push(BinlogLetGo { stream: stream.id.clone(), below, unfinished: dead });
    }
    goes
}

impl Run<'_> {
    /// What is to go of the binary logs when the backups in `backups` go that are to.
    pub(super) async fn needless_binlogs(
        &self,
        pending: &Pending,
        backups: &[Decided],
        now: Timestamp,
    ) -> Result<Goes, PruneError> {
        let stays = backups.iter().filter(|backup| backup.planned.is_none());
        let stays = stays.filter(|backup| matches!(backup.judged.fate, Fate::Stays(_)));
        let times: Vec<_> = stays.filter_map(times).collect();
        let Some(horizon) = horizon(&self.options.policy, &times) else { return Ok(Goes::default()) };
        let streams = self.context.repository.binlog_streams().await?;
        let named: Vec<&BinlogLetGo> = pending.plans.values().flat_map(|(plan, _)| &plan.binlogs).collect();
        Ok(choose(&streams, horizon, &named, now, |stored| self.locked(stored, now).is_some()))
    }

    /// Deletes what `plan` names of the binary logs and what no backup that is left needs; false if that is not allowed.
    pub(super) async fn delete_binlogs(
        &self,
        plan: &PrunePlan,
        backups: &[Decided],
        all: &[BackupId],
        swept: &mut Swept,
        report: &mut PruneReport,
    ) -> Result<bool, PruneError> {
        if plan.binlogs.is_empty() {
            return Ok(true);
        }
        let repository = &self.context.repository;
        let state = repository.prune_state().await?;
        let left = backups.iter().filter(|backup| !all.contains(&backup.judged.id));
        let times: Vec<_> = left.filter_map(times).collect();
        let Some(horizon) = self.horizon_of(plan, &state, &times) else { return Ok(true) };
        for entry in &plan.binlogs {
            // Anew for each: what is listed is long, and deleted is most of it.
            let Some(stream) = self.stream(&entry.stream).await? else { continue };
            let to = below(&stream, horizon).min(entry.below);
            let documents: Vec<_> = stream.segments.iter().filter(|segment| segment.key.number < to).collect();
            // A handful at a time and the lowest numbers first: a run that dies leaves a row whose beginning alone may have gaps.
            for some in documents.chunks(DELETES_IN_FLIGHT) {
                let keys = some.iter().map(|segment| ObjectKey::Segment(segment.key.clone())).collect();
                match self.delete_objects(keys, report).await? {
                    Deleted::Gone => {
                        swept.segments += some.len() as u64;
                    }
                    Deleted::Locked => break,
                    Deleted::Denied => return Ok(false),
                }
            }
            // Packs belong to nothing once their documents are gone, those too of which a run deleted the documents and then died.
            let Some(stream) = self.stream(&entry.stream).await? else { continue };
            let first = stream.segments.first().map_or(u32::MAX, |segment| segment.key.number);
            let headless = first.min(entry.below);
            let now = self.context.clock.now();
            let newest = unfinished(&stream);
            let is_dead = |number: u32| {
                let old = newest.get(&number).is_some_and(|stored| now.seconds_since(*stored) > UNFINISHED_SECONDS);
                number < headless || (entry.unfinished.contains(&number) && old)
            };
            let packs: Vec<_> = stream.unfinished.iter().filter(|pack| is_dead(pack.0)).collect();
            for some in packs.chunks(DELETES_IN_FLIGHT) {
                let keys = some.iter().map(|pack| ObjectKey::SegmentPack(stream.id.clone(), pack.0, pack.1)).collect();
                match self.delete_objects(keys, report).await? {
                    Deleted::Gone => swept.segment_bytes += some.iter().map(|pack| pack.2).sum::<u64>(),
                    Deleted::Locked => break,
                    Deleted::Denied => return Ok(false),
                }
            }
        }
        Ok(true)
    }

    /// Before which moment no log is needed now that the backups of these times are left; none where what the plan says holds no more.
    fn horizon_of(&self, plan: &PrunePlan, state: &PruneState, left: &[(Timestamp, Timestamp)]) -> Option<Timestamp> {
        let stored = state.plans.get(&plan.id).and_then(|state| state.stored);
        let undeleted = state.keeps.iter().any(|(.., kept)| stored.is_none_or(|stored| *kept >= stored));
        match self.options.policy.words().is_empty() {
            // Without rules a plan is carried out as it was made, unless a backup was undeleted since.
            true if undeleted => None,
            true => Some(Timestamp(jiff::Timestamp::MAX)),
            false => horizon(&self.options.policy, left),
        }
    }

    async fn stream(&self, id: &StreamId) -> Result<Option<StoredStream>, PruneError> {
        Ok(self.context.repository.binlog_stream(id).await?)
    }

    /// Deletes objects side by side, and tells the worst that came of it.
    async fn delete_objects(&self, keys: Vec<ObjectKey>, report: &mut PruneReport) -> Result<Deleted, PruneError> {
        let repository = &self.context.repository;
        let deletes = keys.iter().map(|key| repository.delete(key));
        let mut deletes = futures::stream::iter(deletes).buffer_unordered(DELETES_IN_FLIGHT);
        let mut worst = Deleted::Gone;
        while let Some(deleted) = deletes.next().await {
            match deleted {
                Ok(()) => {}
                Err(error) if error.is_locked() => worst = Deleted::Locked,
                Err(error) if error.is_denied() => {
                    report.skipped.push(denied(&error));
                    return Ok(Deleted::Denied);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(worst)
    }
}

/// Begin and end of a backup.
fn times(backup: &Decided) -> Option<(Timestamp, Timestamp)> {
    backup.manifest.as_deref().map(|manifest| (manifest.started, manifest.finished))
}

#[cfg(test)]
mod tests;
