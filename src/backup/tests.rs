//! Generations of a made-up server go through the whole pipeline, and every page of every backup comes back.

use std::collections::{BTreeMap, HashMap};
use std::io::{Cursor, Read};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use object_store::memory::InMemory;
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};

use super::*;
use crate::format::map::{Content, Extent, FileMap, FilePiece, FileSource, Location, SpaceMap};
use crate::format::{Namer, pack};
use crate::mariadb::child::ChildReport;
use crate::mariadb::control::{BackupType, Checkpoints};
use crate::mariadb::delta::{DeltaMeta, write_delta};
use crate::mariadb::facts::{InnodbFacts, Privileges, ServerFacts};
use crate::mariadb::identity::{DatadirLayout, DatadirWalk};
use crate::mariadb::redo_write::RedoWriter;
use crate::mariadb::xbstream::StreamPath;
use crate::mariadb::xbstream_write::StreamWriter;
use crate::model::{Lsn, PageNo, PageSize, Silent, SpaceId, SystemClock, SystemEntropy};
use crate::store::faulty::{Fault as StoreFault, FaultyStore, Operation, Rule, Script};
use crate::store::{Store, StoreOptions};

const PAGE: usize = 4096;
/// `FSP_SPACE_FLAGS` of full_crc32 with pages of 4 KiB.
const FLAGS: u32 = 0x13;

/// Histories that are tried, at a second each.
const SEEDS: u64 = 8;

/// A tablespace: its name, its length as page 0 says it, and its pages that are not zero.
#[derive(Clone, Debug, Default)]
struct Space {
    name: String,
    size: u32,
    pages: BTreeMap<u32, Vec<u8>>,
}

impl Space {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.size as usize * PAGE];
        for (number, page) in &self.pages {
            bytes[*number as usize * PAGE..][..PAGE].copy_from_slice(page);
        }
        bytes
    }
}

fn page(rng: &mut StdRng, space: u32, number: u32, size: u32, lsn: Lsn) -> Vec<u8> {
    let mut page = vec![0; PAGE];
    rng.fill_bytes(&mut page[200..600]);
    page[4..8].copy_from_slice(&number.to_be_bytes());
    page[16..24].copy_from_slice(&lsn.0.to_be_bytes());
    page[24..26].copy_from_slice(&(if number == 0 { 8_u16 } else { 6 }).to_be_bytes());
    page[34..38].copy_from_slice(&space.to_be_bytes());
    if number == 0 {
        page[38..42].copy_from_slice(&space.to_be_bytes());
        page[46..50].copy_from_slice(&size.to_be_bytes());
        page[54..58].copy_from_slice(&FLAGS.to_be_bytes());
        // What a descriptor page says of its extents is not made up here.
        page[150..PAGE - 8].fill(0);
        page[100..108].copy_from_slice(&rng.next_u64().to_be_bytes());
    }
    page[PAGE - 8..PAGE - 4].copy_from_slice(&(lsn.0 as u32).to_be_bytes());
    let crc = crc32c::crc32c(&page[..PAGE - 4]);
    page[PAGE - 4..].copy_from_slice(&crc.to_be_bytes());
    page
}

fn lsn_of(page: &[u8]) -> Lsn {
    crate::mariadb::page::page_lsn(page)
}

/// What can happen to a stream.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// It ends early, though the tool says that all is well.
    Cut,
    /// A bit is another.
    Flip,
}

/// A server that lives, and whose files are on disk as far as identities go.
struct World {
    rng: StdRng,
    datadir: tempfile::TempDir,
    spaces: BTreeMap<u32, Space>,
    plain: BTreeMap<String, Vec<u8>>,
    /// Bodies of the redo log's records with the LSN at which each begins.
    log: Vec<(Lsn, Vec<u8>)>,
    now: Lsn,
    checkpoint: Lsn,
    next_space: u32,
    /// What the last capture put into its stream: files by path.
    streamed: BTreeMap<String, Vec<u8>>,
    /// What happens to the next stream on its way.
    fault: Option<Fault>,
}

impl World {
    fn new(seed: u64) -> World {
        let start = Lsn(1 << 20);
        let mut world = World {
            rng: StdRng::seed_from_u64(seed),
            datadir: tempfile::tempdir().unwrap(),
            spaces: BTreeMap::new(),
            plain: BTreeMap::new(),
            log: Vec::new(),
            now: start,
            checkpoint: start,
            next_space: 1,
            streamed: BTreeMap::new(),
            fault: None,
        };
        std::fs::create_dir(world.datadir.path().join("mysql")).unwrap();
        std::fs::create_dir(world.datadir.path().join("db")).unwrap();
        world.create(0, "ibdata1", 90);
        for _ in 0..3 {
            world.create_table();
        }
        world.plain.insert("db/db.opt".to_owned(), Vec::new());
        world.plain.insert("aria_log.00000001".to_owned(), vec![7; 3 << 19]);
        world
    }

    fn log(&mut self, bytes: usize) -> Lsn {
        let mut body = vec![0; bytes];
        self.rng.fill_bytes(&mut body);
        let mut writer = RedoWriter::new(redo::RedoFormat::Plain, self.now);
        writer.page(SpaceId(1), PageNo(1), &body);
        writer.commit();
        self.log.push((self.now, body));
        self.now = writer.end();
        self.now
    }

    fn create(&mut self, id: u32, name: &str, size: u32) {
        std::fs::write(self.datadir.path().join(name), []).unwrap();
        self.spaces.insert(id, Space { name: name.to_owned(), size, pages: BTreeMap::new() });
        self.change(id, 0);
        for _ in 0..self.rng.random_range(0..size) {
            let number = self.rng.random_range(0..size);
            self.change(id, number);
        }
    }

    fn create_table(&mut self) -> u32 {
        let id = self.next_space;
        self.next_space += 1;
        let size = self.rng.random_range(1..400);
        self.create(id, &format!("db/t{id}.ibd"), size);
        id
    }

    fn change(&mut self, id: u32, number: u32) {
        let bytes = self.rng.random_range(20..200);
        let lsn = self.log(bytes);
        let size = self.spaces[&id].size;
        let made = page(&mut self.rng, id, number, size, lsn);
        self.spaces.get_mut(&id).unwrap().pages.insert(number, made);
    }

    fn some_table(&mut self) -> Option<u32> {
        let ids: Vec<u32> = self.spaces.keys().copied().filter(|id| *id != 0).collect();
        (!ids.is_empty()).then(|| ids[self.rng.random_range(0..ids.len())])
    }

    fn dml(&mut self, changes: u32) {
        for _ in 0..changes {
            let ids: Vec<u32> = self.spaces.keys().copied().collect();
            let id = ids[self.rng.random_range(0..ids.len())];
            let number = self.rng.random_range(0..self.spaces[&id].size);
            self.change(id, number);
        }
        if self.rng.random_bool(0.2) {
            self.log(300 << 10);
        }
    }

    /// What happens between two backups.
    fn live(&mut self) {
        let changes = self.rng.random_range(0..120);
        self.dml(changes);
        match self.rng.random_range(0..6) {
            0 => drop(self.create_table()),
            1 => {
                if let Some(id) = self.some_table() {
                    let space = self.spaces.remove(&id).unwrap();
                    std::fs::remove_file(self.datadir.path().join(space.name)).unwrap();
                }
            }
            2 => {
                if let Some(id) = self.some_table() {
                    let name = format!("db/r{}.ibd", self.rng.next_u32());
                    let from = std::mem::replace(&mut self.spaces.get_mut(&id).unwrap().name, name.clone());
                    std::fs::rename(self.datadir.path().join(from), self.datadir.path().join(name)).unwrap();
                }
            }
            3 | 4 => {
                if let Some(id) = self.some_table() {
                    let more = self.rng.random_range(0..200);
                    self.spaces.get_mut(&id).unwrap().size += more;
                    self.change(id, 0);
                }
            }
            // Shrinks, as an undo tablespace does: what lies beyond is gone, and comes back as zeros.
            _ => {
                if let Some(id) = self.some_table() {
                    let size = self.spaces[&id].size;
                    let size = self.rng.random_range(1..=size);
                    let space = self.spaces.get_mut(&id).unwrap();
                    space.size = size;
                    space.pages.retain(|number, _| *number < size);
                    self.change(id, 0);
                }
            }
        }
        let bytes = self.rng.random_range(0..5000);
        let mut frm = vec![0; bytes];
        self.rng.fill_bytes(&mut frm);
        self.plain.insert("db/t.frm".to_owned(), frm);
    }

    /// Streams a backup: pages are read at various moments of the window.
    fn stream(&mut self, from: Option<Lsn>) -> Vec<u8> {
        let earliest = self.checkpoint;
        let boundaries: Vec<Lsn> = self.log.iter().map(|(lsn, _)| *lsn).filter(|lsn| *lsn >= earliest).collect();
        self.checkpoint = boundaries[self.rng.random_range(0..boundaries.len())];
        let start = self.checkpoint;
        // A page is read before the window's changes or after them.
        let before = self.spaces.clone();
        let changes = self.rng.random_range(0..60);
        self.dml(changes);
        let created = self.rng.random_bool(0.3).then(|| self.create_table());
        let mut spaces = before.clone();
        for (id, space) in &mut spaces {
            for (number, page) in &self.spaces[id].pages {
                if self.rng.random_bool(0.5) {
                    space.pages.insert(*number, page.clone());
                }
            }
        }
        self.log(50);
        let mut files: Vec<(String, Vec<u8>)> = Vec::new();
        self.streamed.clear();
        for (id, space) in &spaces {
            self.streamed.insert(space.name.clone(), space.bytes());
            let Some(from) = from else {
                files.push((space.name.clone(), space.bytes()));
                continue;
            };
            let page_size = PageSize::new(PAGE as u32).unwrap();
            let meta = DeltaMeta { page_size, zip_size: None, space_id: SpaceId(*id) };
            let newer = space.pages.iter().filter(|(_, page)| lsn_of(page) > from);
            let newer: Vec<(PageNo, &[u8])> = newer.map(|(number, page)| (PageNo(*number), &page[..])).collect();
            files.push((format!("{}.meta", space.name), meta.to_text().into_bytes()));
            files.push((format!("{}.delta", space.name), write_delta(page_size, &newer)));
        }
        if let Some(id) = created {
            let space = &self.spaces[&id];
            self.streamed.insert(space.name.clone(), space.bytes());
            files.push((space.name.replace(".ibd", ".new"), space.bytes()));
        }
        let mut writer = RedoWriter::new(redo::RedoFormat::Plain, start);
        for (_, body) in self.log.iter().filter(|(lsn, _)| *lsn >= start) {
            writer.page(SpaceId(1), PageNo(1), body);
            writer.commit();
        }
        writer.checkpoint();
        let last = writer.end();
        let redo = writer.into_file();
        while self.now < last {
            self.log(20);
        }
        self.plain.insert(collect::REDO_FILE.to_owned(), redo);
        let checkpoints = Checkpoints {
            backup_type: if from.is_some() { BackupType::Incremental } else { BackupType::Full },
            from_lsn: from.unwrap_or(Lsn(0)),
            to_lsn: start,
            last_lsn: last,
            recover_binlog_info: Some(false),
        };
        self.plain.insert("xtrabackup_checkpoints".to_owned(), checkpoints.to_text().into_bytes());
        let info = format!(
            "uuid = u\nname = \ntool_name = mariadb-backup\ntool_command = x\ntool_version = 10.11.19-MariaDB\n\
             ibbackup_version = 10.11.19-MariaDB\nserver_version = 10.11.19-MariaDB\nstart_time = 2026-11-22 01:00:00\n\
             end_time = 2026-11-22 01:00:01\nlock_time = 0\nbinlog_pos = \ninnodb_from_lsn = {}\ninnodb_to_lsn = {start}\n\
             partial = N\nincremental = {}\nformat = xbstream\ncompressed = N\n",
            from.unwrap_or(Lsn(0)),
            if from.is_some() { "Y" } else { "N" },
        );
        self.plain.insert("backup-my.cnf".to_owned(), b"[mysqld]\ninnodb_page_size=4096\n".to_vec());
        self.plain.insert("xtrabackup_info".to_owned(), info.into_bytes());
        for (path, bytes) in &self.plain {
            self.streamed.insert(path.clone(), bytes.clone());
            files.push((path.clone(), bytes.clone()));
        }
        let mut stream = self.interleave(&files);
        match self.fault.take() {
            None => {}
            Some(Fault::Cut) => {
                let end = self.rng.random_range(0..stream.len());
                stream.truncate(end);
            }
            Some(Fault::Flip) => {
                // In the second half of a long chunk: what is in a header may be read as another stream that is whole.
                let at = stream.len() / 2;
                let chunk = at + stream[at..].windows(9).position(|bytes| bytes == b"XBSTCK01\0").unwrap_or_default();
                let place = (chunk + 200).min(stream.len() - 400);
                stream[place] ^= 1 << self.rng.random_range(0..8);
            }
        }
        stream
    }

    /// Puts the files into one stream, a few of them at a time; a `.meta` comes whole before its `.delta`.
    fn interleave(&mut self, files: &[(String, Vec<u8>)]) -> Vec<u8> {
        let mut stream = StreamWriter::new(Vec::new());
        let mut waiting = files.iter().map(|(path, bytes)| (StreamPath::new(path).unwrap(), &bytes[..]));
        let mut open: Vec<(StreamPath, &[u8])> = Vec::new();
        loop {
            while open.len() < 3 {
                match waiting.next() {
                    Some((path, bytes)) if path.as_str().ends_with(".meta") => stream.file(&path, bytes, 9999).unwrap(),
                    Some(file) => open.push(file),
                    None => break,
                }
            }
            if open.is_empty() {
                return stream.into_inner();
            }
            let at = self.rng.random_range(0..open.len());
            let (path, rest) = &mut open[at];
            let taken = self.rng.random_range(1..200_000).min(rest.len());
            if taken > 0 {
                stream.data(path, &rest[..taken]).unwrap();
            }
            *rest = &rest[taken..];
            if rest.is_empty() {
                stream.end(path).unwrap();
                open.swap_remove(at);
            }
        }
    }

    fn facts(&self) -> ServerFacts {
        let now = SystemClock.now();
        ServerFacts {
            version: "10.11.19-MariaDB".parse().unwrap(),
            account: "root@localhost".to_owned(),
            now,
            started: now,
            hostname: "made-up".to_owned(),
            server_id: 1,
            server_uid: None,
            datadir: self.datadir.path().to_owned(),
            socket: None,
            innodb: InnodbFacts {
                page_size: PageSize::new(PAGE as u32).unwrap(),
                data_file_path: "ibdata1:12M:autoextend".to_owned(),
                data_home_dir: String::new(),
                undo_tablespaces: 0,
                undo_directory: "./".to_owned(),
                log_group_home_dir: "./".to_owned(),
                log_archive: false,
                encrypt_log: false,
                log_file_bytes: 96 << 20,
                lsn_current: self.now,
                lsn_last_checkpoint: self.checkpoint,
                checkpoint_age: 0,
                checkpoint_max_age: 1,
            },
            log_bin: false,
            binlog_base: None,
            gtid_binlog_pos: String::new(),
            gtid_current_pos: String::new(),
            replica: false,
            galera: false,
            engines: vec!["InnoDB".to_owned()],
            privileges: Privileges::default(),
        }
    }
}

/// [`World`] as the pipeline sees it.
struct MadeUp(Mutex<World>);

impl Source for MadeUp {
    fn survey(&self, _: &dyn Progress) -> Result<Survey, SourceError> {
        let facts = self.0.lock().unwrap().facts();
        let walk = DatadirWalk::walk(&DatadirLayout::of(&facts))?;
        Ok(Survey { facts, walk, tool_version: "10.11.19-MariaDB".to_owned() })
    }

    fn look_again(&self, before: &Survey) -> Result<DatadirWalk, SourceError> {
        Ok(DatadirWalk::walk(&DatadirLayout::of(&before.facts))?)
    }

    fn space_on_disk(&self, _: &Survey, name: &str) -> Option<SpaceId> {
        let world = self.0.lock().unwrap();
        world.spaces.iter().find(|(_, space)| space.name == name).map(|(id, _)| SpaceId(*id))
    }

    fn has(&self, survey: &Survey, name: &str) -> bool {
        survey.walk.datadir.join(name).exists()
    }

    fn is_link(&self, _: &Survey, _: &str) -> bool {
        false
    }

    fn checkpoint(&self) -> bool {
        false
    }

    fn page_lsn_on_disk(&self, _: &Survey, name: &str, page: PageNo, _: PageSize) -> Option<Lsn> {
        let world = self.0.lock().unwrap();
        let (_, space) = world.spaces.iter().find(|(_, space)| space.name == name)?;
        space.pages.get(&page.0).map(|page| lsn_of(page))
    }

    fn start(&self, survey: &Survey, from: Option<Lsn>, _: Arc<dyn Progress>) -> Result<Box<dyn Capture>, SourceError> {
        let stream = self.0.lock().unwrap().stream(from);
        Ok(Box::new(Streamed { stream: Some(stream), blocked: self.look_again(survey)? }))
    }
}

struct Streamed {
    stream: Option<Vec<u8>>,
    blocked: DatadirWalk,
}

impl Capture for Streamed {
    fn take_stream(&mut self) -> Option<Box<dyn Read + Send>> {
        self.stream.take().map(|bytes| Box::new(Cursor::new(bytes)) as Box<dyn Read + Send>)
    }

    fn stopper(&self) -> Box<dyn Fn() + Send + Sync> {
        Box::new(|| {})
    }

    fn finish(self: Box<Self>) -> Result<Finished, SourceError> {
        let report = ChildReport {
            server: None,
            redo_copied: None,
            ddl_count: 0,
            page_retries: 0,
            vanished: Vec::new(),
            dropped: Vec::new(),
            unopened: Default::default(),
            warnings: Vec::new(),
        };
        Ok(Finished { report, blocked: Some(self.blocked), plain: None, binlog: None })
    }
}

/// Reads a backup back as someone would who has read FORMAT.md: every file, whole.
struct Reader<'a> {
    repository: &'a Repository,
    chunks: HashMap<(crate::model::PackId, u32), Vec<u8>>,
}

impl Reader<'_> {
    async fn files(&mut self, manifest: &Manifest) -> BTreeMap<String, Vec<u8>> {
        let mut found = BTreeMap::new();
        let root = self.repository.map_root(manifest).await.unwrap();
        for record in self.repository.map_spaces(&root).await.unwrap() {
            let page_bytes = record.page_size.bytes();
            let mut bytes = vec![0xee; record.pages as usize * page_bytes];
            let extents = match &record.map {
                SpaceMap::Inline(extents) => extents.clone(),
                SpaceMap::Blocks(blocks) => {
                    let mut extents = Vec::new();
                    for block in blocks {
                        extents.extend(self.repository.map_extents(record.key, block).await.unwrap());
                    }
                    extents
                }
            };
            let mut written = vec![0_u8; record.pages as usize];
            for extent in &extents {
                self.extent(extent, page_bytes, &mut bytes, &mut written).await;
            }
            assert!(written.iter().all(|times| *times == 1), "{}: pages not covered once", record.name);
            assert!(found.insert(record.name, bytes).is_none());
        }
        for record in self.repository.map_files(&root).await.unwrap() {
            let pieces = match &record.map {
                FileMap::Inline(pieces) => pieces.clone(),
                FileMap::Blocks(blocks) => {
                    let mut pieces = Vec::new();
                    for block in blocks {
                        pieces.extend(self.repository.map_file_pieces(block).await.unwrap());
                    }
                    pieces
                }
            };
            let mut bytes = Vec::new();
            for piece in pieces {
                bytes.extend(self.piece(&piece).await);
            }
            assert_eq!(bytes.len() as u64, record.bytes, "{}", record.path);
            assert!(found.insert(record.path, bytes).is_none());
        }
        found
    }

    async fn extent(&mut self, extent: &Extent, page_bytes: usize, bytes: &mut [u8], written: &mut [u8]) {
        for piece in &extent.pieces {
            for index in piece.mask.indices() {
                let number = (extent.no.first_page().0 + index) as usize;
                written[number] += 1;
                let target = &mut bytes[number * page_bytes..][..page_bytes];
                match &piece.content {
                    Content::Zero => target.fill(0),
                    Content::Chunk(chunk) => {
                        let raw = self.chunk(&chunk.at, chunk.pages.len() as usize * page_bytes).await;
                        let hashes = Namer::new(&[0; 32]).pages(raw, page_bytes);
                        assert_eq!(Namer::new(&[0; 32]).chunk_of_pages(&hashes), chunk.id);
                        assert!(chunk.pages.contains(index), "a piece takes a page that its chunk does not hold");
                        target.copy_from_slice(&raw[chunk.pages.rank(index) as usize * page_bytes..][..page_bytes]);
                    }
                }
            }
        }
    }

    async fn piece(&mut self, piece: &FilePiece) -> Vec<u8> {
        match piece.source {
            FileSource::Zero => vec![0; piece.bytes as usize],
            FileSource::Chunk { id, raw_bytes, skip, at } => {
                let raw = self.chunk(&at, raw_bytes as usize).await;
                assert_eq!(Namer::new(&[0; 32]).chunk_of_file(raw), id);
                raw[skip as usize..][..piece.bytes as usize].to_vec()
            }
        }
    }

    async fn chunk(&mut self, at: &Location, raw_bytes: usize) -> &[u8] {
        let key = (at.pack.id, at.offset);
        if !self.chunks.contains_key(&key) {
            let start = u64::from(at.offset);
            let range = start..start + u64::from(at.stored_bytes);
            let stored = self.repository.read_range(at.pack.id, range).await.unwrap();
            let raw = pack::decompress("chunk", at.encoding, &stored, raw_bytes).unwrap();
            self.chunks.insert(key, raw);
        }
        &self.chunks[&key]
    }
}

async fn repository() -> Arc<Repository> {
    let store = Store::over("memory:///", Arc::new(InMemory::new()), StoreOptions::default());
    Arc::new(Repository::init(store, &SystemClock, &SystemEntropy).await.unwrap())
}

fn context(repository: &Arc<Repository>) -> (Context, watch::Sender<bool>) {
    let (stop, cancel) = watch::channel(false);
    let context = Context {
        repository: repository.clone(),
        clock: Arc::new(Ticking(std::sync::atomic::AtomicI64::new(0))),
        entropy: Arc::new(SystemEntropy),
        progress: Arc::new(Silent),
        cancel,
    };
    (context, stop)
}

/// A second for each question, so that backups have an order.
struct Ticking(std::sync::atomic::AtomicI64);

impl Clock for Ticking {
    fn now(&self) -> Timestamp {
        let seconds = 1_795_000_000 + self.0.fetch_add(1, Ordering::SeqCst);
        Timestamp(jiff::Timestamp::from_second(seconds).unwrap())
    }
}

fn options(want: Want, depth_max: u32) -> BackupOptions {
    BackupOptions {
        want,
        compression_level: 1,
        workers: 3,
        uploads_max: 2,
        spool: SpoolOptions { directory: PathBuf::new(), bytes_max: 0 },
        depth_max,
        tags: Vec::new(),
    }
}

/// The first difference, told by file and page.
fn assert_same(what: &str, found: &BTreeMap<String, Vec<u8>>, expected: &BTreeMap<String, Vec<u8>>) {
    let names = |files: &BTreeMap<String, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(found), names(expected), "{what}");
    for (name, expected) in expected {
        let found = &found[name];
        assert_eq!(found.len(), expected.len(), "{what}: length of {name}");
        let differs = found.iter().zip(expected).position(|(one, other)| one != other);
        assert_eq!(differs, None, "{what}: {name} differs at page {:?}", differs.map(|at| at / PAGE));
    }
}

async fn generations(seed: u64, count: u32) {
    generations_in(repository().await, seed, count).await;
}

async fn generations_in(repository: Arc<Repository>, seed: u64, count: u32) {
    let (context, _stop) = context(&repository);
    let source = Arc::new(MadeUp(Mutex::new(World::new(seed))));
    let mut taken = Vec::new();
    for generation in 0..count {
        let full = generation == 0 || source.0.lock().unwrap().rng.random_bool(0.2);
        let want = if full { Want::Full } else { Want::Incremental };
        let outcome = backup(&context, source.clone(), &options(want, u32::MAX)).await;
        let outcome = outcome.unwrap_or_else(|error| panic!("seed {seed}, backup {generation}: {}", chain(&error)));
        let world = &mut *source.0.lock().unwrap();
        taken.push((outcome.manifest, world.streamed.clone()));
        world.live();
    }
    // Read at the end: a later backup must not have changed what an earlier one stands on.
    let mut reader = Reader { repository: &repository, chunks: HashMap::new() };
    for (generation, (manifest, expected)) in taken.iter().enumerate() {
        let what = format!("seed {seed}, backup {generation}, {:?}", manifest.kind);
        assert_same(&what, &reader.files(manifest).await, expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_page_of_every_backup_comes_back() {
    for seed in 0..SEEDS {
        generations(seed, 8).await;
    }
}

/// What an agent may have whose credentials must not destroy anything, and some stores are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lineage_needs_no_leave_to_delete_and_no_conditional_put() {
    for rules in [
        vec![Rule::always(Operation::Delete, StoreFault::Denied)],
        vec![Rule::always(Operation::Put, StoreFault::IgnoreCondition)],
        vec![
            Rule::always(Operation::Delete, StoreFault::Denied),
            Rule::always(Operation::Put, StoreFault::RefuseCondition),
        ],
    ] {
        let objects = FaultyStore::new(Arc::new(InMemory::new()), Script { rules, ..Script::default() });
        let store = Store::over("memory:///", Arc::new(objects), StoreOptions::default());
        generations_in(Arc::new(Repository::init(store, &SystemClock, &SystemEntropy).await.unwrap()), 3, 5).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_was_damaged_on_its_way_is_no_backup() {
    let repository = repository().await;
    let (context, _stop) = context(&repository);
    let source = Arc::new(MadeUp(Mutex::new(World::new(77))));
    let mut sound = Vec::new();
    for turn in 0..12 {
        let fault = [None, Some(Fault::Cut), Some(Fault::Flip)][turn % 3];
        source.0.lock().unwrap().fault = fault;
        let want = if turn % 2 == 0 { Want::Full } else { Want::Either };
        let outcome = backup(&context, source.clone(), &options(want, u32::MAX)).await;
        let streamed = source.0.lock().unwrap().streamed.clone();
        match (fault, outcome) {
            (None, Ok(outcome)) => sound.push((outcome.manifest, streamed)),
            (Some(_), Err(_)) => {}
            (fault, outcome) => panic!("turn {turn}: {fault:?} ended with {:?}", outcome.map(|done| done.manifest.id)),
        }
        assert_eq!(repository.backup_ids().await.unwrap().len(), sound.len(), "turn {turn}");
        source.0.lock().unwrap().live();
    }
    let mut reader = Reader { repository: &repository, chunks: HashMap::new() };
    for (manifest, expected) in &sound {
        assert_same(manifest.id.as_str(), &reader.files(manifest).await, expected);
    }
}

/// What a sweep does, seen from a run that it did not see.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_that_a_sweep_overtook_is_not_committed() {
    let repository = repository().await;
    let (context, _stop) = context(&repository);
    let source = Arc::new(MadeUp(Mutex::new(World::new(5))));
    backup(&context, source.clone(), &options(Want::Full, u32::MAX)).await.unwrap();
    let lease = repository.lease("backup", &SystemEntropy).await.unwrap();
    let taken = lease.taken();
    assert_eq!(swept::plans(&context, taken).await.unwrap(), []);
    let step = |second: &str, done| crate::format::PruneStep {
        plan: format!("{second}-aaaaaa").parse().unwrap(),
        done,
        deleted: crate::format::SweepTally::default(),
    };
    for (second, done) in [("20261122T010000Z", false), ("20261122T010000Z", true), ("20261122T020000Z", false)] {
        repository.put_prune_step(&step(second, done)).await.unwrap();
    }
    let plans = swept::plans(&context, taken).await.unwrap();
    assert_eq!(plans.len(), 2, "of one it is known that it has ended since, of one that it has not");
    let lease = Arc::new(tokio::sync::Mutex::new(lease));
    repository.give_back(&lease, &Silent).await;
    // A sweep that is at a standstill keeps no backup from going on.
    source.0.lock().unwrap().live();
    let manifest = backup(&context, source.clone(), &options(Want::Either, u32::MAX)).await.unwrap().manifest;
    let lease = repository.lease("backup", &SystemEntropy).await.unwrap();
    let lease = Arc::new(tokio::sync::Mutex::new(lease));
    swept::check(&context, &manifest, &lease, &plans).await.unwrap();
    let mut references = crate::repository::References::default();
    references.add(&repository, &manifest).await.unwrap();
    let mut gone = 0;
    for pack in repository.packs().await.unwrap().into_keys().filter(|pack| references.need(pack)) {
        let bytes = repository.read_pack(pack).await.unwrap();
        repository.delete(&crate::repository::ObjectKey::Pack(pack)).await.unwrap();
        let error = swept::check(&context, &manifest, &lease, &plans).await.unwrap_err();
        assert!(matches!(error, BackupError::Swept { .. }), "{}", chain(&error));
        repository.put_pack(pack, bytes).await.unwrap();
        gone += 1;
    }
    assert!(gone > 2);
}

/// A server whose files are taken back in place, and which then writes until its LSN has passed the parent's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_was_taken_back_in_place_is_found_out_before_the_capture() {
    for seed in 0..SEEDS {
        let repository = repository().await;
        let (context, _stop) = context(&repository);
        let source = Arc::new(MadeUp(Mutex::new(World::new(seed))));
        backup(&context, source.clone(), &options(Want::Full, u32::MAX)).await.unwrap();
        let kept = {
            let world = &mut *source.0.lock().unwrap();
            let kept = (world.spaces.clone(), world.log.clone(), world.now, world.checkpoint);
            world.dml(60);
            kept
        };
        let parent = backup(&context, source.clone(), &options(Want::Incremental, u32::MAX)).await.unwrap();
        {
            let world = &mut *source.0.lock().unwrap();
            (world.spaces, world.log, world.now, world.checkpoint) = kept;
            while world.now <= parent.manifest.lsn.last {
                world.dml(3);
                world.log(100 << 10);
            }
        }
        let error = backup(&context, source.clone(), &options(Want::Incremental, u32::MAX)).await.unwrap_err();
        assert!(matches!(error, BackupError::NeedsFull(Obstacle::Forked { .. })), "seed {seed}: {}", chain(&error));
        let full = backup(&context, source.clone(), &options(Want::Either, u32::MAX)).await.unwrap();
        assert_eq!(full.manifest.kind, BackupKind::Full, "seed {seed}");
        backup(&context, source.clone(), &options(Want::Incremental, u32::MAX)).await.unwrap();
    }
}
