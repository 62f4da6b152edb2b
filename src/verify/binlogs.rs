//! Checks archived binary log: each stream is a row, and each segment is what its document says.
//!
//! That the row fits what comes before and after it, and the backups, is held by [`Windows`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::StreamExt;

use super::error::{chain, damage};
use super::windows::Windows;
use super::{Damage, ReadData, VerifyError, is_sampled};
use crate::error::{Diagnose, Kind};
use crate::format::{Manifest, Segment};
use crate::mariadb::binlog::{BinlogError, Event, EventParser, MAGIC, Step, Transactions};
use crate::model::{Gtid, GtidSet, PackId, Phase, Progress, StreamId, Timestamp};
use crate::repository::{ObjectKey, Repository, RepositoryError, SegmentReader, StoredSegment, StoredStream};

/// Segments read at the same time: each may hold a pack of 16 MiB, and most are small and wait for the store.
const SEGMENTS_AHEAD: usize = 4;

/// What was looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BinlogTally {
    /// Streams.
    pub streams: u64,
    /// Segments whose documents and packs were looked at.
    pub segments: u64,
    /// Bytes of binary log whose events were read.
    pub read_bytes: u64,
    /// Transactions in them.
    pub transactions: u64,
}

/// Checks all streams, and that all `backups` lie in them that windows begin from; what is wrong is told in the order of the streams, and then of the windows.
pub(super) async fn check(
    repository: &Repository,
    backups: &[Manifest],
    read_data: Option<ReadData>,
    progress: &dyn Progress,
) -> Result<(BinlogTally, Vec<Damage>), VerifyError> {
    let streams = repository.binlog_streams().await?;
    if streams.is_empty() {
        return Ok(Default::default());
    }
    // What cannot be read is told where it is looked at.
    let (history, _) = repository.binlog_history().await?;
    let windows = Windows::new(&history, backups);
    let (tally, damages) = (BinlogTally::default(), Vec::new());
    let mut check = Check { repository, read_data, windows, let_go: None, tally, damages };
    progress.begin(Phase::Check, Some(streams.iter().map(|stream| check.weight(stream)).sum()));
    for stream in &streams {
        check.stream(stream, progress).await?;
    }
    progress.end(Phase::Check);
    check.damages.extend(check.windows.wrong());
    Ok((check.tally, check.damages))
}

struct Check<'a> {
    repository: &'a Repository,
    read_data: Option<ReadData>,
    windows: Windows,
    /// Of each stream the number below which prunes that were begun let go of segments; read when something is missing.
    let_go: Option<BTreeMap<StreamId, u32>>,
    tally: BinlogTally,
    damages: Vec<Damage>,
}

/// What a segment's document says, and what came of reading it.
type Looked = Result<(Segment, Result<Option<Contents>, RepositoryError>), RepositoryError>;

impl Check<'_> {
    /// What progress counts: bytes that are read, or segments.
    fn weight(&self, stream: &StoredStream) -> u64 {
        match self.read_data {
            Some(_) => stream.segments.iter().map(|segment| segment.bytes).sum(),
            None => stream.segments.len() as u64,
        }
    }

    async fn stream(&mut self, stream: &StoredStream, progress: &dyn Progress) -> Result<(), VerifyError> {
        self.tally.streams += 1;
        let (repository, read_data) = (self.repository, self.read_data);
        let wanted = self.windows.wanted(&stream.id);
        let looks = stream.segments.iter().map(|stored| {
            let wanted = wanted.clone();
            async move { (stored, look(repository, stored, read_data, wanted).await) }
        });
        let mut looks = futures::stream::iter(looks).buffered(SEGMENTS_AHEAD);
        let (mut last, mut expected): (Option<Segment>, Option<u32>) = (None, None);
        while let Some((stored, looked)) = looks.next().await {
            let number = stored.key.number;
            if let Some(expected) = expected.filter(|expected| *expected < number) {
                let first = expected.max(self.let_go_below(&stream.id).await?);
                if first < number {
                    self.missing(&stream.id, first, number - 1);
                }
            }
            expected = number.checked_add(1);
            progress.advance(Phase::Check, if read_data.is_some() { stored.bytes } else { 1 });
            match looked {
                Ok((segment, contents)) => {
                    self.tally.segments += 1;
                    let before = last.take().filter(|last| last.number.checked_add(1) == Some(number));
                    self.judge(stored, &segment, before.as_ref(), contents)?;
                    last = Some(segment);
                }
                Err(error) => {
                    last = None;
                    self.windows.pass_over(&stream.id, number);
                    // A prune may have come by since it was listed.
                    let is_gone = matches!(&error, RepositoryError::Store(error) if error.is_not_found());
                    if !is_gone || number >= self.let_go_below(&stream.id).await? {
                        let problem = if is_gone { chain(&error) } else { damage(error)? };
                        self.wrong(stored, problem);
                    }
                }
            }
        }
        Ok(())
    }

    /// Adds what is wrong with a segment, `before` being the one before it.
    fn judge(
        &mut self,
        stored: &StoredSegment,
        segment: &Segment,
        before: Option<&Segment>,
        contents: Result<Option<Contents>, RepositoryError>,
    ) -> Result<(), VerifyError> {
        for pack in &segment.packs {
            let there = stored.packs.iter().find(|(id, _)| *id == pack.pack);
            match there {
                None => self.wrong_pack(stored, pack.pack, "it is missing".to_owned()),
                Some((_, found)) if *found != u64::from(pack.bytes) => {
                    self.wrong_pack(stored, pack.pack, format!("it has {found} bytes, expected {}", pack.bytes));
                }
                Some(_) => {}
            }
        }
        if let Some(before) = before
            && let Some(problem) = link_problem(before, segment)
        {
            self.wrong(stored, problem);
        }
        match &contents {
            Ok(contents) => self.windows.take(segment, contents.as_ref().map(|contents| &contents.came)),
            Err(_) => self.windows.pass_over(&segment.stream, segment.number),
        }
        let fits = stored.packs.len() == segment.packs.len()
            && segment.packs.iter().all(|pack| stored.packs.contains(&(pack.pack, u64::from(pack.bytes))));
        match contents {
            Ok(None) => {}
            Ok(Some(contents)) => {
                self.tally.read_bytes += segment.raw_bytes;
                self.tally.transactions += contents.transactions;
                if let Some(problem) = contents.problem(segment) {
                    self.wrong(stored, problem);
                }
            }
            // Of what is missing or has another length it was told already.
            Err(_) if !fits => {}
            Err(RepositoryError::Pack { pack, source }) => self.wrong_pack(stored, pack, source.to_string()),
            Err(error) => {
                let problem = damage(error)?;
                self.wrong(stored, problem);
            }
        }
        Ok(())
    }

    fn wrong(&mut self, stored: &StoredSegment, problem: String) {
        self.add(ObjectKey::Segment(stored.key.clone()).text(), problem);
    }

    fn wrong_pack(&mut self, stored: &StoredSegment, pack: PackId, problem: String) {
        self.add(ObjectKey::SegmentPack(stored.key.stream.clone(), stored.key.number, pack).text(), problem);
    }

    fn missing(&mut self, stream: &StreamId, first: u32, last: u32) {
        let problem = match first == last {
            true => format!("segment {first} is missing"),
            false => format!("segments {first} to {last} are missing"),
        };
        self.add(format!("{}/{stream}", ObjectKey::BINLOGS), problem);
    }

    fn add(&mut self, object: String, problem: String) {
        self.damages.push(Damage { object, problem, backups: Vec::new(), files: Vec::new() });
    }

    /// Number below which segments of `stream` may be missing, because a prune that was begun lets go of them.
    async fn let_go_below(&mut self, stream: &StreamId) -> Result<u32, VerifyError> {
        if self.let_go.is_none() {
            let mut let_go = BTreeMap::new();
            for (id, _) in self.repository.prune_state().await?.plans.iter().filter(|(_, plan)| plan.begun.is_some()) {
                match self.repository.prune_plan(id).await {
                    Ok(plan) => {
                        for entry in plan.binlogs {
                            let known: &mut u32 = let_go.entry(entry.stream).or_default();
                            *known = entry.below.max(*known);
                        }
                    }
                    // What cannot be read excuses nothing.
                    Err(error) if matches!(error.kind(), Kind::Corrupt | Kind::WrongKey) => {}
                    Err(RepositoryError::Store(error)) if error.is_not_found() => {}
                    Err(error) => return Err(error.into()),
                }
            }
            self.let_go = Some(let_go);
        }
        Ok(self.let_go.as_ref().and_then(|let_go| let_go.get(stream)).copied().unwrap_or(0))
    }
}

/// Reads a segment's document, and when its bytes are to be read those.
async fn look(
    repository: &Repository,
    stored: &StoredSegment,
    read_data: Option<ReadData>,
    wanted: Arc<BTreeSet<Gtid>>,
) -> Looked {
    let segment = repository.read_segment(&stored.key).await?;
    let is_chosen = segment.packs.first().is_some_and(|pack| read_data.is_some_and(|how| is_sampled(pack.pack, how)));
    let contents = match is_chosen {
        false => Ok(None),
        true if repository.needs_data_key().is_ok() => Contents::read(repository, &segment, wanted).await.map(Some),
        // What is in them is not for this key.
        true => repository.prove_segment_packs(&segment).await.map(|()| None),
    };
    Ok((segment, contents))
}

/// Why `next` does not go on from `last`, if it does not.
fn link_problem(last: &Segment, next: &Segment) -> Option<String> {
    let number = last.number;
    match () {
        () if next.previous != Some(last.sum) => Some(format!("it names another predecessor than segment {number}")),
        () if next.before != last.after => {
            Some(format!("it begins at {}, and segment {number} ends at {}", next.before, last.after))
        }
        () if next.file == last.file && next.file_created == last.file_created && next.start != last.end => {
            Some(format!("it begins at byte {}, and segment {number} ends at {}", next.start, last.end))
        }
        () => None,
    }
}

/// What the events of a segment are.
#[derive(Debug, Default)]
struct Contents {
    transactions: u64,
    first: Option<Gtid>,
    last: Option<Gtid>,
    position: GtidSet,
    times: Option<(u32, u32)>,
    /// Length of what stands before the server's bytes.
    head: u64,
    damage: Option<String>,
    /// Transactions that are looked for, and those of them that came.
    wanted: Arc<BTreeSet<Gtid>>,
    came: BTreeSet<Gtid>,
}

impl Contents {
    /// Reads all bytes of a segment, which are proven by that, and the events that they are.
    async fn read(
        repository: &Repository,
        segment: &Segment,
        wanted: Arc<BTreeSet<Gtid>>,
    ) -> Result<Contents, RepositoryError> {
        let what = ObjectKey::Segment(segment.key()).text();
        let mut reader = SegmentReader::new(repository, segment);
        let mut contents = Contents { position: segment.before.clone(), wanted, ..Contents::default() };
        let mut parser = EventParser::new(what.clone(), MAGIC.len() as u64);
        let (mut steps, mut magic) = (Transactions::default(), Vec::new());
        while let Some(bytes) = reader.next().await? {
            let mut rest = &bytes[..];
            if magic.len() < MAGIC.len() {
                let (some, others) = rest.split_at(rest.len().min(MAGIC.len() - magic.len()));
                magic.extend_from_slice(some);
                rest = others;
            }
            // The bytes are read to their end all the same: they are what was stored, or not.
            if contents.damage.is_none()
                && let Err(error) = contents.take(&mut parser, &mut steps, &mut rest, &what)
            {
                contents.damage = Some(error.to_string());
            }
        }
        if magic != MAGIC {
            contents.damage = Some("it does not begin as a binary log file".to_owned());
        }
        if contents.damage.is_none() && (!parser.is_between() || steps.is_open()) {
            contents.damage = Some("it ends inside of a transaction".to_owned());
        }
        Ok(contents)
    }

    fn take(
        &mut self,
        parser: &mut EventParser,
        steps: &mut Transactions,
        rest: &mut &[u8],
        what: &str,
    ) -> Result<(), BinlogError> {
        loop {
            let at = parser.at();
            let Some(event) = parser.next(rest)? else { return Ok(()) };
            if self.head == 0 {
                self.head = MAGIC.len() as u64 + u64::from(event.bytes);
            }
            self.step(steps, &event, what, at)?;
        }
    }

    fn step(&mut self, steps: &mut Transactions, event: &Event, what: &str, at: u64) -> Result<(), BinlogError> {
        if let Step::End(transaction) = steps.step(event, what, at)? {
            self.transactions += 1;
            self.first.get_or_insert(transaction.gtid);
            self.last = Some(transaction.gtid);
            self.position.note(transaction.gtid);
            if self.wanted.contains(&transaction.gtid) {
                self.came.insert(transaction.gtid);
            }
            let (least, most) = self.times.unwrap_or((transaction.time, transaction.time));
            self.times = Some((least.min(transaction.time), most.max(transaction.time)));
        }
        Ok(())
    }

    /// What the document says otherwise.
    fn problem(&self, segment: &Segment) -> Option<String> {
        let times = self.times.map(|(least, most)| (Timestamp::from_seconds(least), Timestamp::from_seconds(most)));
        let differs = |what: &str, found: &dyn std::fmt::Debug, said: &dyn std::fmt::Debug| {
            Some(format!("its {what} are {found:?}, and it says {said:?}"))
        };
        match () {
            () if self.damage.is_some() => self.damage.clone(),
            () if self.transactions != segment.transactions => {
                differs("transactions", &self.transactions, &segment.transactions)
            }
            () if (self.first, self.last) != (Some(segment.first_gtid), Some(segment.last_gtid)) => differs(
                "first and last transactions",
                &(self.first.map(|gtid| gtid.to_string()), self.last.map(|gtid| gtid.to_string())),
                &(segment.first_gtid.to_string(), segment.last_gtid.to_string()),
            ),
            () if self.position != segment.after => {
                Some(format!("it ends at {}, and says that it ends at {}", self.position, segment.after))
            }
            () if times != Some((segment.first_time, segment.last_time)) => {
                let text = |(least, most): (Timestamp, Timestamp)| format!("{least} to {most}");
                differs("times", &times.map(text), &text((segment.first_time, segment.last_time)))
            }
            () if segment.raw_bytes.checked_sub(self.head) != Some(segment.end - segment.start) => Some(format!(
                "it has {} bytes of the server's, and says {} to {}",
                segment.raw_bytes.saturating_sub(self.head),
                segment.start,
                segment.end
            )),
            () => None,
        }
    }
}

#[cfg(test)]
mod tests;
