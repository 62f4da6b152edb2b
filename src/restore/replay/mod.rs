//! From a backup to any moment behind it: archived binary log is replayed on the prepared files, by a server of our own.
//!
//! ```text
//! segments ─► read, proven ─► cut ─► mariadb-binlog ─► mariadb ─► mariadbd on the prepared files ─► shutdown
//! ```
//! The replay is one session, from the first transaction behind the backup to the last one before the target. It either ends where the plan
//! said, GTID by GTID, or the files are of no use and are gathered anew.

mod cut;
mod cutter;
mod error;
mod plan;
mod scan;

use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::time::{Duration, Instant};

use futures::StreamExt;
use tokio::sync::mpsc;

use cut::Cut;
use cutter::Cutter;
pub use error::TargetError;
pub use plan::{Moment, ReplayPlan, Target, plan_replay};

use super::marker::State;
use super::steps::{Watch, blocking};
use super::workdir::WorkDir;
use super::{RestoreError, memory, tree};
use crate::format::Segment;
use crate::mariadb::drill_server::{DrillServer, Use};
use crate::mariadb::replay::{Replay, ReplayError};
use crate::mariadb::scratch::{ScratchError, ScratchServer};
use crate::mariadb::tool::Tools;
use crate::model::{Entropy, Gtid, Phase, Secret, SystemEntropy};
use crate::repository::{ObjectKey, Repository, SegmentKey, SegmentReader};

/// Directory of the server's socket and of what statements load, in the work directory.
const PLACE: &str = "haulout-replay";
/// Longest time for the server to shut down: it writes all that it has changed.
const STOP_LIMIT: Duration = Duration::from_secs(3600);
/// Segments read ahead.
const SEGMENTS_AHEAD: usize = 8;
/// Bytes of a segment that is read ahead as a whole; of a longer one just the document is.
const AHEAD_BYTES_MAX: u64 = 4 << 20;
/// Time between two notes on how far it is by the server's time.
const NOTE_PAUSE: Duration = Duration::from_secs(10);
/// Pieces of log on their way to the server, of some MiB each at most.
const PIECES: usize = 4;

/// A replay that is to follow the prepare.
#[derive(Debug, Clone)]
pub struct ReplayOrder {
    /// What is replayed.
    pub plan: ReplayPlan,
    /// Options of the server as `--name=value`, which were checked.
    pub server_options: Vec<String>,
}

/// What a replay did.
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Serialize)]
pub struct Replayed {
    /// Transactions that were replayed.
    pub transactions: u64,
    /// Bytes of binary log.
    pub bytes: u64,
    /// The last of them.
    pub last: Option<Moment>,
    /// How long it took, from the start of the server to its end.
    pub seconds: f64,
}

/// Replays on a prepared directory, which is then again one of a server that was shut down.
///
/// # Errors
/// When segments are damaged, or the server does not take them: the directory is then of no use.
pub(super) async fn replay(
    repository: &Repository,
    dir: &mut WorkDir,
    order: &ReplayOrder,
    tools: &Tools,
    memory_bytes: Option<u64>,
    watch: &Watch,
) -> Result<Replayed, RestoreError> {
    let begun = Instant::now();
    let path = std::path::absolute(dir.path()).map_err(RestoreError::io("look at", dir.path()))?;
    if order.plan.segments == 0 {
        // The backup is the moment.
        dir.set_state(State::Replayed)?;
        return Ok(Replayed::default());
    }
    dir.set_state(State::Replaying)?;
    let run = Run { repository, order, tools, watch, path: &path, memory_bytes };
    watch.progress.begin(Phase::Replay, Some(order.plan.stored_bytes));
    let replayed = run.carry_out().await;
    watch.progress.end(Phase::Replay);
    let mut replayed = replayed?;
    let place = path.join(PLACE);
    blocking(move || {
        std::fs::remove_dir_all(&place).map_err(RestoreError::io("remove", &place))?;
        tree::sync(&path)
    })
    .await?;
    dir.set_state(State::Replayed)?;
    replayed.seconds = begun.elapsed().as_secs_f64();
    Ok(replayed)
}

struct Run<'a> {
    repository: &'a Repository,
    order: &'a ReplayOrder,
    tools: &'a Tools,
    watch: &'a Watch,
    path: &'a Path,
    memory_bytes: Option<u64>,
}

impl Run<'_> {
    fn server_failed(&self, source: ScratchError) -> RestoreError {
        match source {
            ScratchError::Stopped => RestoreError::Interrupted,
            source => TargetError::Server { backup: self.order.plan.backup.clone(), source }.into(),
        }
    }

    async fn carry_out(&self) -> Result<Replayed, RestoreError> {
        let server = self.start().await?.map_err(|error| self.server_failed(error))?;
        let fed = self.feed(&server).await;
        if self.watch.cancel.is_requested() {
            return Err(RestoreError::Interrupted);
        }
        let replayed = fed?;
        let tools = self.tools.clone();
        let stopped = tokio::task::spawn_blocking(move || {
            server.shut_down_after(&[&DrillServer::farewell()], &tools, STOP_LIMIT)
        });
        stopped.await?.map_err(|error| self.server_failed(error))?;
        Ok(replayed)
    }

    /// Starts the server on the prepared files.
    async fn start(&self) -> Result<Result<ScratchServer, ScratchError>, RestoreError> {
        let place = self.path.join(PLACE);
        std::fs::DirBuilder::new().mode(0o700).create(&place).map_err(RestoreError::io("create", &place))?;
        let mut random = [0; 16];
        SystemEntropy.fill(&mut random);
        // With characters of each sort, for plugins that want them.
        let password = Secret::new(format!("Hr1-{}", hex::encode(random)));
        let memory = self.memory_bytes.unwrap_or_else(|| memory::for_prepare(0));
        let (tools, options) = (self.tools.clone(), self.order.server_options.clone());
        let (datadir, cancel) = (self.path.to_owned(), self.watch.cancel.clone());
        self.watch.progress.note("starting a server on the restored files, to replay binary log");
        let started = tokio::task::spawn_blocking(move || {
            let server = DrillServer {
                datadir: &datadir,
                place: &place,
                temporary: &place,
                options: &options,
                password: &password,
                to: Use::Change(memory),
            };
            server.start(&tools, &|| cancel.is_requested())
        });
        Ok(started.await?)
    }

    /// Gives the server all that it is to replay, and waits until it has.
    async fn feed(&self, server: &ScratchServer) -> Result<Replayed, RestoreError> {
        let failed = |at: Option<Gtid>| move |source: ReplayError| TargetError::Replay { at, source };
        let place = self.path.join(PLACE);
        let (replay, input) = Replay::start(self.tools, server.connection(), &place).map_err(failed(None))?;
        let stoppers = replay.stoppers();
        let (pieces, mut wanted) = mpsc::channel::<Vec<u8>>(PIECES);
        let writer = tokio::task::spawn_blocking(move || {
            let Some(mut input) = input else { return };
            while let Some(piece) = wanted.blocking_recv() {
                // Whoever reads has failed, and says why.
                if input.write_all(&piece).is_err() {
                    return;
                }
            }
        });
        let mut cut = Cut::new(Cutter::new(&self.order.plan.start, &self.order.plan.before));
        let given = tokio::select! {
            biased;
            () = self.watch.cancel.requested() => Err(RestoreError::Interrupted),
            given = self.give(&mut cut, &pieces) => given,
        };
        drop(pieces);
        let last = cut.tally.last;
        if given.is_err() {
            // What was given stops where it is.
            stoppers.iter().for_each(|stopper| stopper.stop());
        }
        let (finished, cancel) = (tokio::task::spawn_blocking(move || replay.finish()), self.watch.cancel.clone());
        tokio::pin!(finished);
        let finished = tokio::select! {
            biased;
            finished = &mut finished => finished?,
            () = cancel.requested() => {
                stoppers.iter().for_each(|stopper| stopper.stop());
                finished.await?
            }
        };
        writer.await?;
        let bytes = match given {
            Ok(bytes) => bytes,
            Err(error) => return Err(error),
        };
        finished.map_err(failed(last.map(|last| last.gtid)))?;
        let (expected, found) = (&self.order.plan.gtid, cut.cutter().state());
        if expected != found {
            return Err(TargetError::Elsewhere { expected: expected.clone(), found: found.clone() }.into());
        }
        let transactions = cut.tally.applied;
        Ok(Replayed { transactions, bytes, last: last.map(Moment::from), seconds: 0.0 })
    }

    /// Reads the segments and gives what is to be replayed; ends early when nobody takes it.
    async fn give(&self, cut: &mut Cut, pieces: &mpsc::Sender<Vec<u8>>) -> Result<u64, RestoreError> {
        let plan = &self.order.plan;
        let final_leg = plan.legs.len().saturating_sub(1);
        let (mut bytes, mut told) = (0, Instant::now());
        for (number, leg) in plan.legs.iter().enumerate() {
            cut.cutter().begin_leg(leg.until.clone());
            let last = leg.segments.len().saturating_sub(1);
            let ahead = leg.segments.iter().map(|key| self.read_ahead(key));
            let mut ahead = futures::stream::iter(ahead).buffered(SEGMENTS_AHEAD).enumerate();
            while let Some((place, read)) = ahead.next().await {
                let read = read?;
                let of_last = (number == final_leg && place == last).then_some(plan.of_last);
                let Some(given) = self.give_segment(cut, &read, of_last, pieces).await? else { return Ok(bytes) };
                bytes += given;
                self.watch.progress.advance(Phase::Replay, read.stored_bytes());
                if told.elapsed() >= NOTE_PAUSE {
                    told = Instant::now();
                    let Segment { last_time, last_gtid, .. } = &read.segment;
                    self.watch
                        .progress
                        .note(&format!("replaying what the server did until {last_time}, transaction {last_gtid}"));
                }
            }
            let missed = cut.cutter().missed(number < final_leg);
            if !missed.is_empty() {
                return Err(TargetError::Missed(missed).into());
            }
        }
        Ok(bytes)
    }

    async fn read_ahead(&self, key: &SegmentKey) -> Result<Ahead, RestoreError> {
        let segment = self.repository.read_segment(key).await?;
        let mut chunks = None;
        if segment.raw_bytes <= AHEAD_BYTES_MAX {
            let (mut reader, mut read) = (SegmentReader::new(self.repository, &segment), Vec::new());
            while let Some(bytes) = reader.next().await? {
                read.push(bytes);
            }
            chunks = Some(read);
        }
        Ok(Ahead { segment, chunks })
    }

    /// Gives the bytes of a segment; none when nobody takes them any more.
    async fn give_segment(
        &self,
        cut: &mut Cut,
        read: &Ahead,
        of_last: Option<u64>,
        pieces: &mpsc::Sender<Vec<u8>>,
    ) -> Result<Option<u64>, RestoreError> {
        let mut part = cut.segment(ObjectKey::Segment(read.segment.key()).text(), of_last);
        let mut reader = SegmentReader::new(self.repository, &read.segment);
        let mut chunks = read.chunks.iter().flatten();
        let mut given = 0;
        loop {
            let mut out = Vec::new();
            if read.chunks.is_some() {
                let Some(bytes) = chunks.next() else { break };
                cut.push(&mut part, bytes, &mut out).map_err(TargetError::from)?;
            } else {
                let Some(bytes) = reader.next().await? else { break };
                cut.push(&mut part, &bytes, &mut out).map_err(TargetError::from)?;
            }
            given += out.len() as u64;
            if !out.is_empty() && pieces.send(out).await.is_err() {
                return Ok(None);
            }
            if part.is_ended() {
                break;
            }
        }
        part.finish().map_err(TargetError::from)?;
        Ok(Some(given))
    }
}

/// A segment that was read ahead, with its bytes where it is short.
struct Ahead {
    segment: Segment,
    chunks: Option<Vec<Vec<u8>>>,
}

impl Ahead {
    fn stored_bytes(&self) -> u64 {
        self.segment.packs.iter().map(|pack| u64::from(pack.bytes)).sum()
    }
}
