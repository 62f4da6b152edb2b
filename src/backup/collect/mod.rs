//! The parser's side of the pipeline: sorts the files of a stream and cuts them into jobs.
//!
//! Nothing here waits for a worker: a job and the place where its result will appear go out together, results are taken
//! in the order of the stream by the assembler, and the length of that row bounds what is in memory.

mod files;
mod pages;

use std::collections::HashMap;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender};

use super::base::Base;
use super::work::{FileResult, Job, PageResult};
use super::{BackupError, Obstacle};
use crate::mariadb::control::{BINLOG_INFO_NAMES, CHECKPOINTS_NAMES, CONFIG_NAME, INFO_NAMES};
use crate::mariadb::delta::DeltaMeta;
use crate::mariadb::page::{Page0, is_undo_file};
use crate::mariadb::redo::{RedoHeader, RedoScanner};
use crate::mariadb::xbstream::{FileNo, FileSink, StreamPath};
use crate::model::{Level, PageNo, PageSize, Progress};
use files::{PlainCutter, RedoCutter, SmallFile};
use pages::{DeltaCutter, WholeCutter};

use crate::format::map::SpaceKey;

/// The redo log's name in the stream.
pub(super) const REDO_FILE: &str = "ib_logfile0";
/// True for files of the tool's own that the run must read itself.
fn is_control(path: &str) -> bool {
    [CHECKPOINTS_NAMES, INFO_NAMES, BINLOG_INFO_NAMES].iter().flatten().any(|name| *name == path) || path == CONFIG_NAME
}

/// What the run knows before the stream begins.
#[derive(Debug, Clone)]
pub(super) struct StreamFacts {
    /// True when the stream is that of an incremental.
    pub incremental: bool,
    /// Names of the system tablespace's files, in order.
    pub system_files: Vec<String>,
    /// The server's page size.
    pub page_size: PageSize,
    /// What the run is compared with.
    pub base: Option<Arc<Base>>,
}

/// How an InnoDB file came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// All pages.
    Whole,
    /// All pages of a file that appeared while the others were copied (`.new`); goes before others of its name.
    New,
    /// Pages newer than the parent.
    Delta,
}

/// An InnoDB file in the stream has begun, and which one it is is known.
#[derive(Debug, Clone)]
pub(super) struct SpaceBegun {
    pub origin: Origin,
    /// Path of the tablespace's file, without the suffixes of the stream.
    pub name: String,
    pub key: SpaceKey,
    pub page_size: PageSize,
}

/// What is known of an InnoDB file at its end.
#[derive(Debug, Clone)]
pub(super) struct SpaceEnded {
    /// Page 0, where it was in the stream.
    pub page0: Option<Page0>,
    /// Pages of a whole file.
    pub pages: u32,
    /// Highest page in the stream.
    pub page_max: Option<PageNo>,
}

/// One thing that the stream brought, in its order.
pub(super) enum Step {
    BeginSpace(FileNo, SpaceBegun),
    Extent(FileNo, Receiver<Result<PageResult, BackupError>>),
    EndSpace(FileNo, SpaceEnded),
    BeginFile(FileNo, String),
    /// The file that has just begun is a tablespace's, and has no first page yet.
    Blank(FileNo, Origin),
    Piece(FileNo, u64, Receiver<Result<FileResult, BackupError>>),
    EndFile(FileNo, u64),
    /// First bytes of a `.frm`, or of an index file of Aria or MyISAM.
    Definition(String, Vec<u8>),
    /// A file got another name, whether or not the stream has brought it.
    Rename(String, String),
    /// A file is no part of the backup; with a `*` at the end, all whose paths begin so.
    Remove(String),
    /// A `.del`: the tablespace of this name (without extension) is gone.
    Deleted(String),
    /// A `.ren`: the tablespace of the first name is now called by the second.
    Renamed(String, String),
    Meta(String, DeltaMeta),
    Control(String, Vec<u8>),
    Redo(Box<RedoFacts>),
}

/// The redo log of the stream, read to its end. Whether that is far enough, only the last LSN tells.
#[derive(Debug)]
pub(super) struct RedoFacts {
    pub header: RedoHeader,
    pub scanner: RedoScanner,
}

/// Where jobs and steps go.
#[derive(Clone)]
pub(super) struct Outlets {
    pub jobs: Sender<Job>,
    pub steps: Sender<Step>,
    /// Buffers that are no longer needed, many of them as long as an extent.
    pub spare: Receiver<Vec<u8>>,
}

impl Outlets {
    fn step(&self, step: Step) -> Result<(), BackupError> {
        self.steps.send(step).map_err(|_| BackupError::Abandoned)
    }

    fn job(&self, job: Job) -> Result<(), BackupError> {
        self.jobs.send(job).map_err(|_| BackupError::Abandoned)
    }
}

enum Open {
    Whole(Box<WholeCutter>),
    Delta(Box<DeltaCutter>),
    Plain(Box<PlainCutter>),
    Redo(Box<RedoCutter>),
    Small(SmallFile),
}

/// Receives the files of a stream.
pub(super) struct Collector<'a> {
    facts: &'a StreamFacts,
    outlets: Outlets,
    open: HashMap<FileNo, Open>,
    metas: HashMap<String, DeltaMeta>,
    progress: &'a dyn Progress,
}

impl<'a> Collector<'a> {
    pub(super) fn new(facts: &'a StreamFacts, outlets: Outlets, progress: &'a dyn Progress) -> Collector<'a> {
        Collector { facts, outlets, open: HashMap::new(), metas: HashMap::new(), progress }
    }

    fn opened(&self, path: &str) -> Result<Open, BackupError> {
        let suffix = |suffix: &str| path.strip_suffix(suffix);
        let in_schema = path.contains('/');
        if path == REDO_FILE {
            return Ok(Open::Redo(Box::new(RedoCutter::new())));
        }
        if let Some(name) = suffix(".delta")
            && self.facts.incremental
        {
            let meta = self.metas.get(name).copied();
            return Ok(Open::Delta(Box::new(DeltaCutter::new(name, meta, self.part_of(name)))));
        }
        if let Some(name) = suffix(".new").filter(|_| in_schema) {
            let name = format!("{name}.ibd");
            return Ok(Open::Whole(Box::new(WholeCutter::new(Origin::New, &name, None))));
        }
        let small = (suffix(".meta").is_some() && self.facts.incremental)
            || ((suffix(".del").is_some() || suffix(".ren").is_some()) && in_schema);
        if small {
            return Ok(Open::Small(SmallFile::new(path)));
        }
        let system = self.part_of(path);
        if suffix(".ibd").is_some() || system.is_some() || is_undo_file(path) {
            return Ok(Open::Whole(Box::new(WholeCutter::new(Origin::Whole, path, system))));
        }
        Ok(Open::Plain(Box::new(PlainCutter::new(path, is_control(path)))))
    }

    /// Place of `name` among the files of the system tablespace.
    fn part_of(&self, name: &str) -> Option<u16> {
        let place = self.facts.system_files.iter().position(|file| file == name)?;
        u16::try_from(place).ok()
    }

    fn small(&mut self, file: SmallFile) -> Result<(), BackupError> {
        let (path, bytes) = file.take();
        let text = || String::from_utf8_lossy(&bytes).trim().to_owned();
        if let Some(name) = path.strip_suffix(".meta") {
            let meta = DeltaMeta::parse(&bytes).map_err(|source| BackupError::Meta { path: path.clone(), source })?;
            self.metas.insert(name.to_owned(), meta);
            return self.outlets.step(Step::Meta(name.to_owned(), meta));
        }
        if let Some(name) = path.strip_suffix(".del") {
            return self.outlets.step(Step::Deleted(tablespace_file(name)));
        }
        if let Some(name) = path.strip_suffix(".ren") {
            let target =
                StreamPath::new(&text()).map_err(|source| BackupError::Rename { path: path.clone(), source })?;
            return self.outlets.step(Step::Renamed(tablespace_file(name), tablespace_file(target.as_str())));
        }
        Ok(())
    }
}

/// The tool names tablespaces in `.del`, `.ren` and `.new` without extension.
fn tablespace_file(name: &str) -> String {
    if name.ends_with(".ibd") { name.to_owned() } else { format!("{name}.ibd") }
}

impl FileSink for Collector<'_> {
    type Error = BackupError;

    fn begin(&mut self, file: FileNo, path: &StreamPath, _replace: bool) -> Result<(), BackupError> {
        let mut opened = self.opened(path.as_str())?;
        if let Open::Plain(cutter) = &mut opened {
            cutter.begin(file, &self.outlets)?;
        }
        if let Open::Redo(cutter) = &mut opened {
            cutter.begin(file, &self.outlets)?;
        }
        self.open.insert(file, opened);
        Ok(())
    }

    fn data(&mut self, file: FileNo, offset: u64, bytes: &[u8]) -> Result<(), BackupError> {
        self.progress.advance(crate::model::Phase::Capture, bytes.len() as u64);
        let (facts, outlets) = (self.facts, &self.outlets);
        let Some(open) = self.open.get_mut(&file) else { return Ok(()) };
        match open {
            Open::Whole(cutter) => {
                let turned = cutter.data(file, offset, bytes, facts, outlets)?;
                if let Some(mut plain) = turned {
                    plain.begin(file, outlets)?;
                    plain.data(file, 0, &cutter.head(), facts, outlets)?;
                    *open = Open::Plain(plain);
                }
                Ok(())
            }
            Open::Delta(cutter) => cutter.data(file, bytes, facts, outlets),
            Open::Plain(cutter) => cutter.data(file, offset, bytes, facts, outlets),
            Open::Redo(cutter) => {
                cutter.data(file, offset, bytes, facts, outlets)?;
                if let Some(end) = cutter.end_so_far() {
                    self.progress.level(Level::RedoGot, end.0);
                }
                Ok(())
            }
            Open::Small(small) => small.data(offset, bytes),
        }
    }

    fn room(&mut self, file: FileNo, offset: u64) -> Option<&mut [u8]> {
        match self.open.get_mut(&file) {
            Some(Open::Whole(cutter)) => cutter.room(offset, &self.outlets),
            _ => None,
        }
    }

    fn filled(&mut self, file: FileNo, _offset: u64, len: usize) -> Result<(), BackupError> {
        self.progress.advance(crate::model::Phase::Capture, len as u64);
        match self.open.get_mut(&file) {
            Some(Open::Whole(cutter)) => cutter.filled(file, len, self.facts, &self.outlets),
            _ => Ok(()),
        }
    }

    fn end(&mut self, file: FileNo) -> Result<(), BackupError> {
        let (facts, outlets) = (self.facts, &self.outlets);
        match self.open.remove(&file) {
            None => Ok(()),
            Some(Open::Whole(cutter)) => cutter.end(file, facts, outlets),
            Some(Open::Delta(cutter)) => cutter.end(file, facts, outlets),
            Some(Open::Plain(cutter)) => cutter.end(file, facts, outlets),
            Some(Open::Redo(cutter)) => cutter.end(file, facts, outlets),
            Some(Open::Small(small)) => self.small(small),
        }
    }

    fn rename(&mut self, from: &StreamPath, to: &StreamPath) -> Result<(), BackupError> {
        self.outlets.step(Step::Rename(from.to_string(), to.to_string()))
    }

    fn rename_undelivered(&mut self, from: &StreamPath, to: &StreamPath) -> Result<(), BackupError> {
        self.rename(from, to)
    }

    fn remove(&mut self, path: &StreamPath) -> Result<(), BackupError> {
        self.outlets.step(Step::Remove(path.to_string()))
    }
}

/// A new tablespace came without its first page.
fn page0_missing(name: &str) -> BackupError {
    BackupError::NeedsFull(Obstacle::Page0Missing { name: name.to_owned() })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::mariadb::delta::write_delta;
    use crate::mariadb::xbstream::{ParseError, parse};
    use crate::mariadb::xbstream_write::StreamWriter;
    use crate::model::{Silent, SpaceId};

    const PAGE_SIZE: PageSize = match PageSize::new(16384) {
        Some(size) => size,
        None => unreachable!(),
    };

    fn path(path: &str) -> StreamPath {
        StreamPath::new(path).unwrap()
    }

    /// What collecting an incremental's stream fails with.
    fn refused<W: Write + AsRef<[u8]>>(stream: StreamWriter<W>) -> BackupError {
        collected(stream).map(|steps| steps.len()).unwrap_err()
    }

    /// Steps that an incremental's stream gives.
    fn collected<W: Write + AsRef<[u8]>>(stream: StreamWriter<W>) -> Result<Vec<Step>, BackupError> {
        let facts = StreamFacts {
            incremental: true,
            system_files: vec!["ibdata1".to_owned()],
            page_size: PAGE_SIZE,
            base: None,
        };
        let ((jobs, _jobs), (steps, taken)) = (crossbeam_channel::unbounded(), crossbeam_channel::unbounded());
        let mut collector = Collector::new(&facts, Outlets { jobs, steps, spare: crossbeam_channel::never() }, &Silent);
        let parsed = parse(stream.into_inner().as_ref(), &mut collector);
        drop(collector);
        match parsed {
            Ok(_) => Ok(taken.iter().collect()),
            Err(ParseError::Sink { source, .. }) => Err(source),
            Err(other) => panic!("{other:?}"),
        }
    }

    /// A file whose page 0 is still to be written says neither whose it is nor how long its pages are: what follows is no part of
    /// page 0, if the pages are shorter than those of the server.
    #[test]
    fn a_file_whose_page_0_is_still_to_be_written_goes_along_as_it_is() {
        for page_bytes in [1024_usize, 4096, 8192, 16384] {
            let mut file = vec![0; 64 << 10];
            file[page_bytes..][..64].fill(7);
            let mut stream = StreamWriter::new(Vec::new());
            stream.file(&path("db/t.new"), &file, 100).unwrap();
            stream.file(&path("db/u.new"), &file, 9999).unwrap();
            let steps = collected(stream).unwrap();
            let taken: Vec<_> = steps
                .iter()
                .filter_map(|step| match step {
                    Step::BeginFile(_, path) => Some(path.clone()),
                    Step::EndFile(_, bytes) => Some(bytes.to_string()),
                    Step::BeginSpace(..) => Some("space".to_owned()),
                    _ => None,
                })
                .collect();
            assert_eq!(taken, ["db/t.ibd", "65536", "db/u.ibd", "65536"], "{page_bytes}");
        }
    }

    #[test]
    fn a_table_that_calls_itself_the_system_tablespace_is_refused() {
        let mut page = vec![0; PAGE_SIZE.bytes()];
        page[16..24].copy_from_slice(&9_u64.to_be_bytes());
        let mut stream = StreamWriter::new(Vec::new());
        stream.file(&path("db/t.ibd"), &page, 9999).unwrap();
        let error = refused(stream);
        assert!(matches!(error, BackupError::IsSystem { .. }), "{error}");
    }

    /// Two MyISAM pages 8 EiB apart would be written down with two thousand million pieces of zeros between them.
    #[test]
    fn a_file_that_goes_on_at_the_end_of_the_world_is_refused() {
        for far in [(1 << 48) - 1, 1 << 62, u64::MAX - 8] {
            let mut stream = StreamWriter::new(Vec::new());
            let name = path("db/t.MYD");
            stream.data(&name, b"here").unwrap();
            stream.seek(&name, far).unwrap();
            stream.data(&name, b"there").unwrap();
            stream.end(&name).unwrap();
            let error = refused(stream);
            assert!(matches!(error, BackupError::TooLong { found, .. } if found == far), "{error}");
        }
    }

    #[test]
    fn a_delta_whose_pages_are_not_as_long_as_its_tablespaces_is_refused() {
        let mut page = vec![0; PAGE_SIZE.bytes()];
        page[16..24].copy_from_slice(&9_u64.to_be_bytes());
        page[38..42].copy_from_slice(&5_u32.to_be_bytes());
        // Flags of full_crc32 with pages of 4 KiB.
        page[54..58].copy_from_slice(&0x13_u32.to_be_bytes());
        let meta = DeltaMeta { page_size: PAGE_SIZE, zip_size: None, space_id: SpaceId(5) };
        let mut stream = StreamWriter::new(Vec::new());
        stream.file(&path("db/t.ibd.meta"), meta.to_text().as_bytes(), 100).unwrap();
        stream.file(&path("db/t.ibd.delta"), &write_delta(PAGE_SIZE, &[(PageNo(0), &page)]), 9999).unwrap();
        let error = refused(stream);
        assert!(matches!(error, BackupError::PageSize { expected: 4096, found: 16384, .. }), "{error}");
    }
}
