//! A run: one connection after the other, and what becomes of each.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::{JoinError, JoinHandle, spawn_blocking};

use super::choose::{BackupPlace, Findings, Known, Start, is_source};
use super::follow::{Found, Reader, bytes_below, order};
use super::{ArchiveError, ArchiveOptions, Context, Figures, ship};
use crate::error::{Diagnose, Kind};
use crate::format::{BinlogSource, Gap, Segment, StreamLink};
use crate::mariadb::binlog::{BinlogDump, DumpOrder, LogFile, ServerLog, positions};
use crate::mariadb::sql::{Session, SqlError};
use crate::model::{ChunkId, StreamId};

/// Streams of which the last segment is read when a run begins: one for each connection of the last days.
const STREAMS_MAX: usize = 64;
/// Segments, and manifests, that may be damaged before one is found that is not.
const DAMAGED_MAX: usize = 4;
/// Pause between two looks at a copy that does not grow.
const LOOK: Duration = Duration::from_millis(200);
/// Pause between two looks at the server: at its files, and at what it is.
const ASK: Duration = Duration::from_secs(5);
/// Time without a byte, while the server has some, after which the connection is begun anew.
const STALL_MAX: Duration = Duration::from_secs(30);
/// Pause between two looks at the room that copies take.
const SPOOL_LOOK: Duration = Duration::from_secs(1);
/// Pauses between tries, the first and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// Time between two warnings of the same sort.
const WARN_AGAIN: Duration = Duration::from_secs(60);
/// Tries of a connection that brings nothing, where somebody waits for the end.
const TRIES_MAX: u32 = 5;
/// The same for a server that was never followed: mostly it is the account or an option.
const FIRST_TRIES_MAX: u32 = 2;
/// The highest bit of a replica's server id: people give their servers small ones.
const SERVER_ID_HIGH: u32 = 1 << 31;

/// How a connection ended that did not fail.
#[derive(Debug, PartialEq, Eq)]
enum Ended {
    /// The run is over.
    Done,
    /// Another one is to go on behind it.
    Again,
}

/// A stream as it is written.
#[derive(Debug)]
struct Stream {
    id: StreamId,
    source: BinlogSource,
    number: u32,
    previous: Option<ChunkId>,
    continues: Option<StreamLink>,
    gap: Option<Gap>,
}

/// A connection.
struct Link {
    known: Known,
    start: Start,
    stream: Stream,
    directory: PathBuf,
    /// Absent once it is to receive no more.
    dump: Option<BinlogDump>,
    reader: Reader,
    /// What was cut and is on its way to the store: when its first transaction came, and the byte of the server's file where it begins.
    shipping: Option<(Instant, u64)>,
    /// True when it is known that the file is the one that was chosen.
    verified: bool,
    /// Where the server's log ended when it was begun.
    target: Option<LogFile>,
    /// When the last byte came.
    grown: Instant,
    asked: Instant,
    asking: Option<JoinHandle<Result<ServerLog, SqlError>>>,
    /// Looks in a row at which the server had no such place as has been read, and no byte came.
    lost: u32,
    looked: Instant,
}

/// A run.
pub(super) struct Run<'a> {
    context: &'a Context,
    options: &'a ArchiveOptions,
    /// The last segment of each stream, that of the newest first.
    lasts: Vec<Segment>,
    newest_stream: Option<StreamId>,
    backup: Option<BackupPlace>,
    findings: Findings,
    /// Where damage was met last.
    damage: Option<(String, u64)>,
    /// Connections so far.
    links: u64,
    followed: bool,
    told_gap: Option<Gap>,
    told_partial: bool,
    warned: Option<Instant>,
    /// What segments are made in.
    room: Arc<ship::Room>,
}

impl<'a> Run<'a> {
    pub(super) fn new(context: &'a Context, options: &'a ArchiveOptions) -> Run<'a> {
        Run {
            context,
            options,
            lasts: Vec::new(),
            newest_stream: None,
            backup: None,
            findings: Findings::default(),
            damage: None,
            links: 0,
            followed: false,
            told_gap: None,
            told_partial: false,
            warned: None,
            room: Arc::default(),
        }
    }

    fn is_cancelled(&self) -> bool {
        *self.context.cancel.borrow()
    }

    fn spool_error(&self, source: io::Error) -> ArchiveError {
        ArchiveError::Spool { directory: self.options.spool.clone(), source }
    }

    /// Archives until the end.
    pub(super) async fn archive(mut self) -> Result<Figures, ArchiveError> {
        self.clear_spool().map_err(|error| self.spool_error(error))?;
        let mut cancel = self.context.cancel.clone();
        tokio::select! {
            loaded = self.load() => loaded?,
            Ok(_) = cancel.wait_for(|cancel| *cancel) => return Err(ArchiveError::Interrupted),
        }
        let mut tries = 0;
        loop {
            let before = self.context.figures.borrow().segments;
            let ended = self.connection().await;
            if self.context.figures.borrow().segments > before {
                tries = 0;
            }
            tries += 1;
            match ended {
                Ok(Ended::Done) => break,
                Ok(Ended::Again) => {}
                Err(error) if self.is_cancelled() && error.kind() != Kind::StorageUnavailable => break,
                Err(error) if self.is_final(&error, tries) => return Err(error),
                Err(error) => self.warn(&format!("{}; trying again", chain(&error))),
            }
            let pause = PAUSES.0.saturating_mul(1 << (tries - 1).min(10)).min(PAUSES.1);
            if self.pause(pause).await {
                break;
            }
        }
        Ok(self.context.figures.borrow().clone())
    }

    /// Waits; true when the run is to end.
    async fn pause(&self, pause: Duration) -> bool {
        let mut cancel = self.context.cancel.clone();
        tokio::select! {
            () = tokio::time::sleep(pause) => false,
            Ok(_) = cancel.wait_for(|cancel| *cancel) => true,
        }
    }

    /// Whether there is no point in another try.
    fn is_final(&self, error: &ArchiveError, tries: u32) -> bool {
        match error {
            ArchiveError::Repository(error) => self.options.once || error.kind() != Kind::StorageUnavailable,
            ArchiveError::Spool { .. } | ArchiveError::Abandoned | ArchiveError::Interrupted => true,
            // A look behind the server's back is a matter of tries.
            ArchiveError::Moved
            | ArchiveError::OtherFile { .. }
            | ArchiveError::BegunAnew
            | ArchiveError::Binlog(_) => self.options.once && tries >= TRIES_MAX,
            ArchiveError::Sql(_) | ArchiveError::LogOff if !self.followed => true,
            ArchiveError::Dump(_) if !self.followed => tries >= FIRST_TRIES_MAX,
            ArchiveError::Sql(_) | ArchiveError::LogOff | ArchiveError::Dump(_) => {
                self.options.once && tries >= TRIES_MAX
            }
        }
    }

    /// Tells what goes on, now and then.
    fn warn(&mut self, message: &str) {
        if self.warned.is_none_or(|warned| warned.elapsed() >= WARN_AGAIN) {
            self.warned = Some(Instant::now());
            self.context.progress.warn(message);
        } else {
            self.context.progress.note(message);
        }
    }

    /// Removes what an earlier run received and did not store: the server still has it.
    fn clear_spool(&self) -> io::Result<()> {
        fs::create_dir_all(&self.options.spool)?;
        for entry in fs::read_dir(&self.options.spool)? {
            let path = entry?.path();
            if path.is_dir() {
                fs::remove_dir_all(path)?;
            }
        }
        Ok(())
    }

    /// Finds out what was archived so far.
    async fn load(&mut self) -> Result<(), ArchiveError> {
        let repository = &self.context.repository;
        let streams = repository.binlog_streams().await?;
        self.newest_stream = streams.last().map(|stream| stream.id.clone());
        for stream in streams.iter().rev().filter(|stream| !stream.segments.is_empty()).take(STREAMS_MAX) {
            for segment in stream.segments.iter().rev().take(DAMAGED_MAX) {
                match repository.read_segment(&segment.key).await {
                    Ok(segment) => {
                        self.lasts.push(segment);
                        break;
                    }
                    Err(error) if error.kind() == Kind::Corrupt => {
                        let (number, stream) = (segment.key.number, &stream.id);
                        let warning = format!("segment {number} of binary log stream {stream} is passed over: {error}");
                        self.context.progress.warn(&warning);
                    }
                    Err(error) => return Err(error.into()),
                }
            }
        }
        if self.lasts.is_empty() {
            for id in repository.backup_ids().await?.iter().rev().take(DAMAGED_MAX) {
                match repository.manifest(id).await {
                    Ok(manifest) => {
                        self.backup = Some(BackupPlace::from(&manifest));
                        break;
                    }
                    Err(error) if error.kind() == Kind::Corrupt => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }

    /// Asks the server, and chooses where to begin.
    async fn choose(&self) -> Result<(Known, Start), ArchiveError> {
        let context = self.context.clone();
        let (lasts, backup, findings) = (self.lasts.clone(), self.backup.clone(), self.findings.clone());
        let chosen = spawn_blocking(move || {
            let session = Session::new(&context.tools, &context.connection);
            let server = ServerLog::ask(&session)?;
            let own = lasts.iter().find(|last| is_source(&last.source, &server)).cloned();
            let known = Known { server, newest: lasts.first().cloned(), own, backup, findings };
            let start = known.choose(&mut |places| positions(&session, places))?;
            Ok((known, start))
        });
        chosen.await.map_err(|_| ArchiveError::Abandoned)?
    }

    fn tell(&mut self, known: &Known, start: &Start) {
        let progress = &self.context.progress;
        if known.server.partial && !self.told_partial {
            self.told_partial = true;
            progress.warn(
                "the server is a replica with log_slave_updates off: what it replicates is not in its binary log",
            );
        }
        match &start.gap {
            Some(gap) if self.told_gap.as_ref() != Some(gap) => {
                let Gap { reason, after } = gap;
                progress.warn(&format!(
                    "a gap: {reason}; what came behind {after} is missing, and no restore leads across; run `haulout backup` now, from \
                     which on any second can be restored again"
                ));
                self.told_gap = Some(gap.clone());
            }
            Some(_) => {}
            None => {
                let at = &start.at;
                progress.note(&format!("following {} from byte {} on, at GTID {at}", start.file, start.position));
            }
        }
        if let Some(backup) =
            self.backup.as_ref().filter(|backup| self.lasts.is_empty() && !backup.gtid.covers(&start.at))
        {
            progress.warn(&format!(
                "the newest backup stands at {}, and the server's binary logs begin at {}: run `haulout backup`, from which on any \
                 second can be restored",
                backup.gtid, start.at
            ));
        }
    }

    /// A connection from its begin to its end.
    async fn connection(&mut self) -> Result<Ended, ArchiveError> {
        let (known, start) = self.choose().await?;
        self.tell(&known, &start);
        self.links += 1;
        let directory = self.options.spool.join(format!("dump-{}", self.links));
        fs::create_dir_all(&directory).map_err(|error| self.spool_error(error))?;
        let order = DumpOrder {
            file: start.file.clone(),
            position: start.position,
            directory: directory.clone(),
            server_id: self.replica_id(known.server.server_id),
        };
        let dump = Some(BinlogDump::spawn(&self.context.tools, &self.context.connection, &order)?);
        let clock = &self.context.clock;
        let server = &known.server;
        let stream = Stream {
            id: StreamId::following(self.newest_stream.as_ref(), clock.now(), &*self.context.entropy),
            source: BinlogSource {
                hostname: server.hostname.clone(),
                port: server.port,
                server_id: server.server_id,
                version: server.version.clone(),
            },
            number: 0,
            previous: None,
            continues: start.continues.clone().map(|(link, _)| link),
            gap: start.gap.clone(),
        };
        let target = server.end().cloned().filter(|_| self.options.once);
        let reader = Reader::new(directory.clone(), &start.file, start.position, start.at.clone());
        let now = Instant::now();
        let mut link = Link {
            known,
            start,
            stream,
            directory,
            dump,
            reader,
            shipping: None,
            verified: false,
            target,
            grown: now,
            asked: now,
            asking: None,
            lost: 0,
            looked: now,
        };
        let ended = self.follow(&mut link).await;
        if let Err(error) = &ended {
            self.learn(&link, error);
        }
        link.dump = None;
        // What is left in it was not stored, and the server has it; the next run clears what cannot be removed.
        let _ = fs::remove_dir_all(&link.directory);
        self.context.figures.send_modify(|figures| (figures.following, figures.spooled_bytes) = (false, 0));
        ended
    }

    /// A server id that no other replica has, hopefully: the server ends the older of two connections that have one.
    fn replica_id(&self, own: u32) -> u32 {
        let mut random = [0; 4];
        self.context.entropy.fill(&mut random);
        let id = u32::from_le_bytes(random) | SERVER_ID_HIGH;
        if id == own { id ^ 1 } else { id }
    }

    /// What the next connection is to know of how this one ended.
    fn learn(&mut self, link: &Link, error: &ArchiveError) {
        match error {
            ArchiveError::OtherFile { .. } => self.findings.other_file = true,
            ArchiveError::BegunAnew => self.findings.begun_anew = true,
            ArchiveError::Binlog(error) => {
                let place = (link.reader.name().to_owned(), link.reader.cutter().offset());
                // Read twice, it is the server's own.
                if self.damage.as_ref() == Some(&place) {
                    self.findings.unreadable = Some((place.0.clone(), error.to_string()));
                }
                self.damage = Some(place);
            }
            // A file whose end is torn is sent no further, while later ones are.
            ArchiveError::Dump(_) if link.stream.number == 0 && link.start.continues.is_some() => {
                let place = (link.start.file.clone(), link.start.position);
                let later = link.known.server.end().is_some_and(|end| end.name != link.start.file);
                self.findings.no_further = later && self.damage.as_ref() == Some(&place);
                self.damage = Some(place);
            }
            _ => {}
        }
    }

    async fn follow(&mut self, link: &mut Link) -> Result<Ended, ArchiveError> {
        loop {
            if self.is_cancelled() {
                link.dump = None;
            }
            let over = link.dump.as_ref().is_none_or(BinlogDump::has_ended);
            let found = link.reader.read(Instant::now(), self.options.segment_bytes);
            self.verify(link)?;
            match found {
                Err(error) => {
                    // Whole transactions before it are as good as any.
                    self.ship(link).await?;
                    return Err(error);
                }
                Ok(Found::Full) => self.ship(link).await?,
                Ok(Found::Some) => link.grown = Instant::now(),
                Ok(Found::FileEnd) => {
                    self.ship(link).await?;
                    if link.reader.turn()? {
                        let note = "a transaction that the server had not finished when it ended is left out, as the server does";
                        self.context.progress.note(note);
                    }
                    continue;
                }
                Ok(Found::Nothing) if over => {
                    self.ship(link).await?;
                    return match link.dump.take() {
                        Some(dump) => Err(dump.finish().into()),
                        None if self.is_cancelled() => Ok(Ended::Done),
                        None => Ok(Ended::Again),
                    };
                }
                Ok(Found::Nothing) => {
                    self.pause(LOOK).await;
                }
            }
            if link.reader.cutter().has_draft()
                && link.reader.cutter().since().is_some_and(|since| since.elapsed() >= self.options.every)
            {
                self.ship(link).await?;
            }
            if self.has_reached(link).await? {
                return Ok(Ended::Done);
            }
            self.bound_spool(link, false);
            self.guard(link).await;
        }
    }

    /// Looks at the file's first event as soon as it is there, before anything of it is stored.
    fn verify(&mut self, link: &mut Link) -> Result<(), ArchiveError> {
        if let Some(created) = link.reader.cutter().created().filter(|_| !link.verified) {
            link.known.verify(&link.start, created)?;
            (link.verified, self.followed) = (true, true);
            self.context.figures.send_modify(|figures| figures.following = true);
        }
        Ok(())
    }

    /// True when all is stored that was there when the connection began, and that is the end of the run.
    async fn has_reached(&mut self, link: &mut Link) -> Result<bool, ArchiveError> {
        let Some(target) = link.target.clone() else { return Ok(false) };
        let beyond = |reader: &Reader, byte| {
            let (own, end) = (order(reader.name()), order(&target.name));
            own > end || (own == end && byte >= target.bytes)
        };
        if !beyond(&link.reader, link.reader.cutter().offset()) {
            return Ok(false);
        }
        self.ship(link).await?;
        Ok(beyond(&link.reader, link.reader.cutter().settled()))
    }

    /// Stops receiving when what was received takes too much room and `waits` for the store. One transaction may take more.
    fn bound_spool(&mut self, link: &mut Link, waits: bool) {
        if link.looked.elapsed() < SPOOL_LOOK {
            return;
        }
        link.looked = Instant::now();
        let (spooled, limit) = (bytes_below(&link.directory), self.options.spool_bytes_max);
        let since = link.waiting().map(|since| self.context.clock.now().after(-(since.elapsed().as_secs() as i64)));
        self.context.figures.send_modify(|figures| (figures.spooled_bytes, figures.waiting_since) = (spooled, since));
        if waits && spooled > limit && link.dump.take().is_some() {
            let directory = self.options.spool.display();
            let warning = format!(
                "the spool {directory} is full: {} MiB of binary log wait for the store, and no more is received until they are stored; the \
                 server must keep its binary logs for so long",
                spooled >> 20
            );
            self.context.progress.warn(&warning);
        }
    }

    /// Compares the server with what was read, now and then, and stops receiving what does not come any more.
    async fn guard(&mut self, link: &mut Link) {
        let answer = self.answer(link).await;
        if let Some(answer) = answer {
            match answer {
                Ok(Ok(log)) => self.compare(link, &log),
                // A server that does not answer ends its connections by itself, or is back soon.
                Ok(Err(error)) if link.grown.elapsed() > STALL_MAX => {
                    self.warn(&format!("the server does not answer: {}; connecting anew", chain(&error)));
                    link.dump = None;
                }
                Ok(Err(_)) | Err(_) => {}
            }
        }
        if link.dump.is_some() {
            self.ask(link);
        }
    }

    /// Has the server asked for its log, unless that was done lately.
    fn ask(&self, link: &mut Link) {
        if link.asking.is_none() && link.asked.elapsed() >= ASK {
            link.asked = Instant::now();
            let context = self.context.clone();
            link.asking =
                Some(spawn_blocking(move || ServerLog::ask(&Session::new(&context.tools, &context.connection))));
        }
    }

    /// What the server answered, if it has, after noting how far the archive is behind it.
    async fn answer(&self, link: &mut Link) -> Option<Result<Result<ServerLog, SqlError>, JoinError>> {
        let answer = link.asking.take_if(|asking| asking.is_finished())?.await;
        if let Ok(Ok(log)) = &answer {
            let behind = log.bytes_behind(link.reader.name(), link.stored());
            if behind.is_some() {
                self.context.figures.send_modify(|figures| figures.behind_bytes = behind);
            }
        }
        Some(answer)
    }

    fn compare(&mut self, link: &mut Link, log: &ServerLog) {
        let (name, cutter) = (link.reader.name(), link.reader.cutter());
        let still = link.grown.elapsed() >= ASK;
        let reason = if !is_source(&link.stream.source, log) {
            Some("another server answers")
        } else {
            match log.bytes_behind(name, cutter.offset()) {
                None => {
                    link.lost = if still { link.lost + 1 } else { 0 };
                    (link.lost > 1).then_some("the server's log has no such place any more")
                }
                Some(bytes) => {
                    link.lost = 0;
                    (bytes > 0 && link.grown.elapsed() >= STALL_MAX)
                        .then_some("nothing comes, though the server has more")
                }
            }
        };
        if let Some(reason) = reason.filter(|_| link.dump.take().is_some()) {
            self.warn(&format!("{reason}: connecting anew"));
        }
    }

    /// Goes on telling how far the archive is behind while nothing is read, because the store takes its time.
    async fn watch_waiting(&mut self, link: &mut Link) {
        self.bound_spool(link, true);
        self.answer(link).await;
        self.ask(link);
    }

    /// Does `work` again and again until the store takes it.
    async fn stored<T, F: Future<Output = Result<T, ArchiveError>>>(
        &mut self,
        link: &mut Link,
        mut work: impl FnMut() -> F,
    ) -> Result<T, ArchiveError> {
        let mut pause = PAUSES.0;
        loop {
            let mut once = Box::pin(work());
            let result = loop {
                tokio::select! {
                    result = &mut once => break result,
                    () = tokio::time::sleep(SPOOL_LOOK) => self.watch_waiting(link).await,
                }
            };
            let error = match result {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            if error.kind() != Kind::StorageUnavailable || self.options.once || self.is_cancelled() {
                return Err(error);
            }
            self.warn(&format!("the store takes no binary log: {}; what comes waits in the spool", chain(&error)));
            let until = Instant::now() + pause;
            while Instant::now() < until && !self.pause(LOOK).await {
                self.watch_waiting(link).await;
            }
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    /// Stores the whole transactions that have come.
    async fn ship(&mut self, link: &mut Link) -> Result<(), ArchiveError> {
        let context = self.context;
        let cutter = link.reader.cutter();
        let begun = (cutter.since().unwrap_or_else(Instant::now), cutter.settled());
        let Some((copy, draft)) = link.reader.cut(Instant::now()) else { return Ok(()) };
        link.shipping = Some(begun);
        let (stream, number) = (link.stream.id.clone(), link.stream.number);
        let repository = &context.repository;
        let (kept, room) = (link.reader.lend(), self.room.clone());
        let stored =
            self.stored(link, || ship::packs(repository, (&stream, number), (&copy, &kept), &draft, &room)).await;
        link.reader.bring_back(kept);
        let written = stored?;
        let segment = Segment {
            repository_id: repository.config().repository_id,
            stream: stream.clone(),
            number,
            previous: link.stream.previous,
            continues: link.stream.continues.take(),
            gap: link.stream.gap.take(),
            source: link.stream.source.clone(),
            file: link.reader.name().to_owned(),
            file_created: draft.created,
            start: draft.start,
            end: draft.end,
            before: draft.before.clone(),
            after: draft.after.clone(),
            first_gtid: draft.first_gtid,
            last_gtid: draft.last_gtid,
            first_time: draft.first_time,
            last_time: draft.last_time,
            transactions: draft.transactions,
            raw_bytes: written.raw_bytes,
            sum: written.sum,
            packs: written.packs,
            archived: context.clock.now().whole_seconds(),
        };
        self.stored(link, || ship::document(repository, &segment)).await?;
        link.stream.number += 1;
        link.stream.previous = Some(segment.sum);
        // Nothing was read meanwhile, and so nothing could come.
        (link.shipping, link.grown) = (None, Instant::now());
        self.publish(link, &segment);
        self.newest_stream = Some(stream.clone());
        self.lasts.retain(|last| last.stream != stream);
        self.lasts.insert(0, segment);
        self.lasts.truncate(STREAMS_MAX);
        (self.findings, self.damage) = (Findings::default(), None);
        if !link.reader.give_back() {
            let directory = self.options.spool.display();
            let note = format!(
                "the file system of {directory} keeps the room of what is stored until the server begins its next file"
            );
            context.progress.note(&note);
        }
        Ok(())
    }

    fn publish(&self, link: &Link, segment: &Segment) {
        self.context.figures.send_modify(|figures| {
            figures.file = Some(segment.file.clone());
            figures.position = segment.end;
            figures.gtid = segment.after.clone();
            figures.last_event = Some(segment.last_time);
            figures.waiting_since = link.waiting().map(|_| self.context.clock.now());
            figures.behind_bytes = figures.behind_bytes.map(|bytes| bytes.saturating_sub(segment.end - segment.start));
            figures.segments += 1;
            figures.transactions += segment.transactions;
            figures.binlog_bytes += segment.end - segment.start;
            figures.stored_bytes += segment.packs.iter().map(|pack| u64::from(pack.bytes)).sum::<u64>();
            figures.gaps += u64::from(segment.gap.is_some());
        });
    }
}

impl Link {
    /// When the first transaction came that is not stored.
    fn waiting(&self) -> Option<Instant> {
        self.shipping.map(|(since, _)| since).or(self.reader.cutter().since())
    }

    /// The byte of the server's file up to which all is stored.
    fn stored(&self) -> u64 {
        self.shipping.map_or(self.reader.cutter().settled(), |(_, from)| from)
    }
}

/// An error and its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
