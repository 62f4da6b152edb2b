//! One capture: source, parser, workers, assembler and uploads, from the first byte to the last pack.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crossbeam_channel::{bounded, unbounded};

use super::altered::Altered;
use super::assemble::Assembler;
use super::base::Base;
use super::collect::{Collector, Origin, Outlets, REDO_FILE, RedoFacts, StreamFacts};
use super::drafts::{Drafts, SpaceDraft};
use super::resolve::{Surroundings, resolve};
use super::source::stored;
use super::work::Workshop;
use super::write_map::write_map;
use super::{BackupError, Finished, Obstacle, Source, Stash, Survey, timeline};
use crate::format::map::{BlockRef, MapTotals};
use crate::format::{LsnRange, Namer, Timeline};
use crate::mariadb::binlog::{self, BinlogEnd};
use crate::mariadb::child::ChildReport;
use crate::mariadb::control::{
    BINLOG_INFO_NAMES, BackupInfo, BinlogPosition, CHECKPOINTS_NAMES, CONFIG_NAME, Checkpoints, ControlError,
    INFO_NAMES,
};
use crate::mariadb::identity::DatadirWalk;
use crate::mariadb::messages::Remedy;
use crate::mariadb::redo::{RedoHeader, RedoSummary};
use crate::mariadb::xbstream::{ParseError, StreamSummary, parse};
use crate::model::{Lsn, Phase, Progress, SpaceId};

/// Bytes of pages on their way between parser and assembler, before and after compression.
const IN_FLIGHT_BYTES: usize = 16 << 20;
/// Fewest jobs on their way, so that workers have something to do with pages of 64 KiB too.
const IN_FLIGHT_MIN: usize = 4;

/// Everything a capture needs.
pub(super) struct Order {
    pub source: Arc<dyn Source>,
    pub stash: Arc<dyn Stash>,
    pub namer: Namer,
    pub survey: Survey,
    /// What pages are compared with.
    pub base: Option<Arc<Base>>,
    /// True when `base` is the parent of an incremental.
    pub incremental: bool,
    pub compression_level: i32,
    pub workers: usize,
    pub progress: Arc<dyn Progress>,
    pub cancelled: Arc<AtomicBool>,
}

/// What a capture brought.
#[derive(Debug)]
pub(super) struct Captured {
    pub root: BlockRef,
    pub totals: MapTotals,
    pub lsn: LsnRange,
    pub redo: RedoHeader,
    pub position: Option<BinlogPosition>,
    pub timeline: Timeline,
    pub stream: StreamSummary,
    pub report: ChildReport,
    pub uploaded_bytes: u64,
    pub unverifiable_pages: u64,
}

/// A handle with which another task ends the capture that runs at the moment.
#[derive(Default)]
pub(super) struct Brake(std::sync::Mutex<Option<Box<dyn Fn() + Send + Sync>>>);

impl Brake {
    pub(super) fn pull(&self) {
        if let Some(stop) = &*self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner) {
            stop();
        }
    }

    fn set(&self, stop: Option<Box<dyn Fn() + Send + Sync>>) {
        *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = stop;
    }
}

/// Captures; blocks until everything is handed to the stash.
pub(super) fn capture(order: &Order, brake: &Brake) -> Result<Captured, BackupError> {
    let parent = order.base.as_ref().filter(|_| order.incremental);
    let from = parent.map(|parent| Lsn(parent.start().0.saturating_sub(1)));
    let facts = StreamFacts {
        incremental: order.incremental,
        system_files: super::system_files(&order.survey.facts.innodb.data_file_path),
        page_size: order.survey.facts.innodb.page_size,
        base: order.base.clone(),
    };
    let mut assembler = Assembler::new(order.stash.clone(), order.namer.clone(), &facts)?;
    let (mut drafts, stream, Finished { report, blocked, plain, binlog }) =
        stream(order, &facts, &mut assembler, from, brake)?;
    let redo = drafts.redo.take().ok_or_else(|| missing(REDO_FILE))?;
    let header = redo.header.clone();
    let (lsn, position, summary) = check_end(&drafts, redo, &report, order, parent, from)?;
    if let Some(plain) = &plain {
        drafts.altered.compare(&drafts.files, plain)?;
    }
    if let (Some(base), Some(blocked), Some(position)) = (&order.survey.facts.binlog_base, &binlog, &position) {
        check_binlog(base, blocked, position)?;
    }
    Altered::drop_leftovers(&mut drafts.files);
    let around = surroundings(order, &facts, &drafts, &summary, lsn.last, blocked)?;
    let timeline = Timeline {
        binlog: position
            .as_ref()
            .and_then(|position| order.survey.binlog(&position.file))
            .map(|file| stored(file).into()),
        witnesses: timeline::witnesses(drafts.spaces.iter(), parent.map(|parent| &**parent)),
    };
    let unverifiable_pages = drafts.unverifiable_pages;
    let Assembler { slots, maps, .. } = &mut assembler;
    let records = resolve(drafts, parent, &around, slots, maps)?;
    let (root, totals) = write_map(records, order.base.as_deref(), maps)?;
    let uploaded_bytes = assembler.uploaded_bytes + assembler.maps.uploaded_bytes;
    Ok(Captured {
        root,
        totals,
        lsn,
        redo: header,
        position,
        timeline,
        stream,
        report,
        uploaded_bytes,
        unverifiable_pages,
    })
}

/// Runs the pipeline until the stream ends.
fn stream(
    order: &Order,
    facts: &StreamFacts,
    assembler: &mut Assembler,
    from: Option<Lsn>,
    brake: &Brake,
) -> Result<(Drafts, StreamSummary, Finished), BackupError> {
    let mut capture = order.source.start(&order.survey, from, order.progress.clone())?;
    brake.set(Some(capture.stopper()));
    let stop = capture.stopper();
    let input = capture.take_stream().ok_or(BackupError::Abandoned)?;
    if order.cancelled.load(Ordering::SeqCst) {
        return Err(BackupError::Interrupted);
    }
    let in_flight = (IN_FLIGHT_BYTES / facts.page_size.extent_bytes()).max(IN_FLIGHT_MIN);
    let (spare_in, spare) = bounded(in_flight);
    let workshop = Workshop {
        namer: order.namer.clone(),
        stash: order.stash.clone(),
        compression_level: order.compression_level,
        parent_last: order.base.as_ref().map_or(Lsn(0), |base| base.manifest.lsn.last),
        gives_way: order.incremental,
        spare: spare_in,
    };
    let (jobs_in, jobs) = unbounded();
    let (steps_in, steps) = bounded(in_flight);
    // An estimate: the redo log and other files come besides, as much as they are then.
    let pages: u64 = order.survey.walk.files().map(|(_, identity)| identity.bytes).sum();
    order.progress.begin(Phase::Capture, (!order.incremental).then_some(pages));
    let (parsed, assembled) = thread::scope(|scope| {
        for _ in 0..order.workers.max(1) {
            let jobs = jobs.clone();
            let workshop = &workshop;
            scope.spawn(move || workshop.run(&jobs));
        }
        drop(jobs);
        let assembling = scope.spawn(move || assembler.run(&steps));
        let parsed = {
            let outlets = Outlets { jobs: jobs_in, steps: steps_in, spare };
            let mut collector = Collector::new(facts, outlets, &*order.progress);
            parse(input, &mut collector)
        };
        // A tool that ended the stream by itself is ending, and tells why: were it stopped now, nobody would know.
        let ended = matches!(parsed, Err(ParseError::Truncated { .. } | ParseError::Unended { .. }));
        if parsed.is_err() && !ended {
            stop();
        }
        (parsed, assembling.join().unwrap_or(Err(BackupError::Abandoned)))
    });
    order.progress.end(Phase::Capture);
    let finished = capture.finish();
    brake.set(None);
    if order.cancelled.load(Ordering::SeqCst) {
        return Err(BackupError::Interrupted);
    }
    verdict(parsed, assembled, finished)
}

/// Of several failures, the one that caused the others.
fn verdict(
    parsed: Result<StreamSummary, ParseError<BackupError>>,
    assembled: Result<Drafts, BackupError>,
    finished: Result<Finished, super::SourceError>,
) -> Result<(Drafts, StreamSummary, Finished), BackupError> {
    use crate::mariadb::child::ChildError;
    let stopped = matches!(&finished, Err(super::SourceError::Child(ChildError::Stopped)));
    match (parsed, assembled, finished) {
        (Ok(stream), Ok(drafts), Ok(finished)) => Ok((drafts, stream, finished)),
        // The tool tells why its stream ended in the middle.
        (_, _, Err(error)) if error.remedy() == Remedy::TakeFull => {
            Err(BackupError::NeedsFull(Obstacle::UndoTablespaces))
        }
        (_, Err(error), _) if !matches!(error, BackupError::Abandoned | BackupError::Unfinished { .. }) => Err(error),
        (Err(ParseError::Sink { source, .. }), _, _) if !matches!(source, BackupError::Abandoned) => Err(source),
        (_, _, Err(error)) if !stopped => Err(error.into()),
        (Err(error), _, _) => Err(BackupError::Stream { source: Box::new(error) }),
        (_, Err(error), _) => Err(error),
        (_, _, Err(error)) => Err(error.into()),
    }
}

fn missing(name: &str) -> BackupError {
    BackupError::FileMissing { name: name.to_owned() }
}

/// Rule 4, as far as the stream alone can tell.
fn check_end(
    drafts: &Drafts,
    redo: RedoFacts,
    report: &ChildReport,
    order: &Order,
    parent: Option<&Arc<Base>>,
    from: Option<Lsn>,
) -> Result<(LsnRange, Option<BinlogPosition>, RedoSummary), BackupError> {
    let (name, checkpoints) =
        control(drafts, CHECKPOINTS_NAMES, Checkpoints::parse)?.ok_or_else(|| missing(CHECKPOINTS_NAMES[0]))?;
    let (info_name, info) = control(drafts, INFO_NAMES, BackupInfo::parse)?.ok_or_else(|| missing(INFO_NAMES[0]))?;
    if !drafts.controls.contains_key(CONFIG_NAME) {
        return Err(missing(CONFIG_NAME));
    }
    let lsn = LsnRange {
        from: from.unwrap_or(Lsn(0)),
        start: redo.header.start,
        to: checkpoints.to_lsn,
        last: checkpoints.last_lsn,
    };
    if checkpoints.from_lsn != lsn.from {
        return Err(control_fault(name, format!("from_lsn is {}, {} was asked for", checkpoints.from_lsn, lsn.from)));
    }
    let summary = redo.scanner.finish(lsn.last).map_err(|source| BackupError::Redo { source })?;
    if info.partial || info.compressed {
        return Err(BackupError::Partial { name: info_name });
    }
    let position = control(drafts, BINLOG_INFO_NAMES, BinlogPosition::parse)?.map(|(_, position)| position);
    if let Some(parent) = parent
        && (lsn.start < parent.start() || lsn.last < parent.manifest.lsn.last)
    {
        let (parent, found) = (parent.start(), lsn.start);
        return Err(BackupError::NeedsFull(Obstacle::StartWentBack { parent, found }));
    }
    check_left_out(drafts, report)?;
    check_unopened(drafts, report, order)?;
    drafts.altered.check(&drafts.files)?;
    let page0 = drafts.spaces.iter().any(|draft| draft.begun.key.space == SpaceId(0));
    if !page0 {
        let first = super::system_files(&order.survey.facts.innodb.data_file_path).into_iter().next();
        return Err(missing(&first.unwrap_or_default()));
    }
    Ok((lsn, position.or(info.binlog), summary))
}

/// The file of the tool that has one of these names, and what it says.
fn control<T>(
    drafts: &Drafts,
    names: [&'static str; 2],
    parse: impl Fn(&[u8]) -> Result<T, ControlError>,
) -> Result<Option<(&'static str, T)>, BackupError> {
    let found = names.iter().find_map(|name| Some((*name, drafts.controls.get(*name)?)));
    let Some((name, bytes)) = found else { return Ok(None) };
    match parse(bytes) {
        Ok(parsed) => Ok(Some((name, parsed))),
        Err(source) => Err(BackupError::Control { name: name.to_owned(), source: Box::new(source) }),
    }
}

fn control_fault(name: &str, problem: String) -> BackupError {
    BackupError::Control { name: name.to_owned(), source: problem.into() }
}

/// Checks that nothing was written to the binlog while commits were blocked: the position would count it, and the backup may not
/// have it. A statement on a table of Aria that waits there longer than `lock_wait_timeout` fails, stays done, and is written
/// to the binlog, while its rows may still be in the buffer of Aria's log (seen on 10.11.19 and 11.8.9).
fn check_binlog(base: &Path, blocked: &BinlogEnd, position: &BinlogPosition) -> Result<(), BackupError> {
    let at = |file: &str, byte: u64| format!("{file} at byte {byte}");
    let found = if !binlog::stands_still(base, blocked, &position.file, position.position) {
        at(&position.file, position.position)
    } else if let Some(gtid) =
        position.gtid.as_deref().and_then(|gtid| binlog::counted_beyond(base, &position.file, position.position, gtid))
    {
        format!("GTID {gtid}")
    } else {
        return Ok(());
    };
    let blocked = if blocked.late { "an earlier place".to_owned() } else { at(&blocked.file, blocked.bytes) };
    Err(BackupError::Binlogged { blocked, found })
}

/// The tool ends with 0 when it leaves out a table whose file it cannot open. A `.new` that came instead explains it.
fn check_left_out(drafts: &Drafts, report: &ChildReport) -> Result<(), BackupError> {
    let arrived: HashSet<&str> = drafts
        .spaces
        .iter()
        .filter(|draft| draft.begun.origin == Origin::New)
        .map(|draft| draft.begun.name.as_str())
        .chain(drafts.blanks.iter().map(|(_, draft)| draft.path.as_str()))
        .chain(drafts.renamed.iter().flat_map(|(from, to)| [from.as_str(), to.as_str()]))
        .chain(drafts.deleted.iter().map(String::as_str))
        .collect();
    let explained = |name: &&String| {
        let name = name.trim_start_matches("./");
        arrived.contains(name) || arrived.contains(format!("{name}.ibd").as_str())
    };
    let left_out: Vec<&str> = report.vanished.iter().filter(|name| !explained(name)).map(String::as_str).collect();
    if left_out.is_empty() { Ok(()) } else { Err(BackupError::LeftOut { names: left_out.join(", ") }) }
}

/// The tool ends with 0 when it leaves out a file of another engine that it cannot open. That it is gone explains it, or
/// that it came after all: the tool copies tables again that were renamed or made anew.
fn check_unopened(drafts: &Drafts, report: &ChildReport, order: &Order) -> Result<(), BackupError> {
    let lost = |path: &&String| !drafts.files.contains_key(*path) && order.source.has(&order.survey, path);
    let lost: Vec<&str> = report.unopened.iter().filter(lost).map(String::as_str).collect();
    if lost.is_empty() {
        return Ok(());
    }
    let linked = lost.iter().any(|path| order.source.is_link(&order.survey, path));
    Err(BackupError::Unopened { paths: lost.join(", "), linked })
}

/// Checks that the tool left nothing out without a word: a tablespace file that was there before and at the end of the
/// capture was there all the time, under whatever names, and must have come.
fn check_none_silent(order: &Order, drafts: &Drafts, after: &DatadirWalk) -> Result<(), BackupError> {
    let gone: HashSet<&str> = drafts.deleted.iter().map(String::as_str).collect();
    let new: HashSet<SpaceId> = spaces(drafts, |draft| draft.begun.origin == Origin::New);
    let stays = |draft: &SpaceDraft| !gone.contains(draft.begun.name.as_str()) || new.contains(&draft.begun.key.space);
    let came: HashSet<SpaceId> = spaces(drafts, stays);
    let stayed = drafts.spaces.iter().filter(|draft| stays(draft)).map(|draft| draft.begun.name.as_str());
    let blanks = drafts.blanks.iter().map(|(_, draft)| draft.path.as_str());
    let names: HashSet<&str> = stayed.chain(blanks).chain(drafts.files.keys().map(String::as_str)).collect();
    let before: HashMap<(u64, Option<i64>), &str> =
        order.survey.walk.files().map(|(name, file)| ((file.inode, file.birth_ns), name)).collect();
    let system = super::system_files(&order.survey.facts.innodb.data_file_path);
    let mut silent = Vec::new();
    for (name, file) in after.files() {
        let Some(earlier) = before.get(&(file.inode, file.birth_ns)) else { continue };
        // The tool passes over what ALTER TABLE is still building, as haulout wants it.
        let unfinished = name.rsplit('/').next().is_some_and(|file| file.starts_with("#sql"));
        if unfinished || names.contains(name) || names.contains(earlier) {
            continue;
        }
        let missing = match order.source.space_on_disk(&order.survey, name) {
            // Of the system tablespace only the first file says so itself.
            _ if !name.contains('/') => system.iter().any(|file| file == name),
            Some(space) => space != SpaceId(0) && !came.contains(&space),
            None => false,
        };
        if missing {
            silent.push(name);
        }
    }
    if silent.is_empty() { Ok(()) } else { Err(BackupError::LeftOut { names: silent.join(", ") }) }
}

/// The tablespaces of the drafts for which `holds`.
fn spaces(drafts: &Drafts, holds: impl Fn(&SpaceDraft) -> bool) -> HashSet<SpaceId> {
    drafts.spaces.iter().filter(|draft| holds(draft)).map(|draft| draft.begun.key.space).collect()
}

/// What the file system says before the capture and at its end.
fn surroundings(
    order: &Order,
    facts: &StreamFacts,
    drafts: &Drafts,
    redo: &RedoSummary,
    last: Lsn,
    blocked: Option<DatadirWalk>,
) -> Result<Surroundings, BackupError> {
    let before = &order.survey.walk;
    // What happened to files once DDL was no longer blocked is none of this backup's business, but if nobody looked in time,
    // more may look suspicious than is.
    let settled = blocked.is_some();
    let after = match blocked {
        Some(walk) => walk,
        None => order.source.look_again(&order.survey)?,
    };
    check_none_silent(order, drafts, &after)?;
    let deleted_spaces: HashSet<SpaceId> =
        redo.file_ops.iter().flat_map(|operations| &operations.deleted).copied().collect();
    let read_before: HashSet<SpaceId> = drafts
        .spaces
        .iter()
        .filter(|draft| draft.begun.origin != Origin::New && before.identity(&draft.begun.name).is_some())
        .map(|draft| draft.begun.key.space)
        .collect();
    let inodes: HashSet<(u64, Option<i64>)> =
        before.files().map(|(_, identity)| (identity.inode, identity.birth_ns)).collect();
    let mut appeared = Vec::new();
    let mut unwritten = redo.unwritten();
    for (name, identity) in after.files() {
        if inodes.contains(&(identity.inode, identity.birth_ns)) {
            continue;
        }
        if redo.names.is_none() {
            unwritten.insert(name.to_owned());
        }
        if settled && name.rsplit_once('/').is_some_and(|(_, file)| !file.starts_with("#sql")) {
            appeared.push(name.to_owned());
        }
        // The file was put in place during the capture. If it says that it is a tablespace that was read from another file,
        // or one that was discarded meanwhile, it was imported.
        let Some(space) = order.source.space_on_disk(&order.survey, name).filter(|space| space.0 != 0) else {
            continue;
        };
        if read_before.contains(&space) || deleted_spaces.contains(&space) {
            return Err(BackupError::NeedsFull(Obstacle::ReplacedDuring { name: name.to_owned() }));
        }
    }
    let mut identities = std::collections::HashMap::new();
    for draft in &drafts.spaces {
        let name = &draft.begun.name;
        let identity = before.identity(name).filter(|_| draft.begun.origin != Origin::New);
        if let Some(identity) = identity.or_else(|| after.identity(name).filter(|_| settled)) {
            identities.insert(name.clone(), stored(identity));
        }
    }
    let blanks = drafts.blanks.iter().map(|(_, draft)| &draft.path);
    let modes = drafts.spaces.iter().map(|draft| &draft.begun.name).chain(blanks).chain(drafts.files.keys());
    let modes = modes.map(|path| (path.clone(), after.file_ownership(path).mode)).collect();
    let voided = redo.voided.clone();
    let system_files = facts.system_files.clone();
    Ok(Surroundings { identities, modes, system_files, deleted_spaces, voided, appeared, unwritten, last })
}
