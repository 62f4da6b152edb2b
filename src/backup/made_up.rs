//! A made-up server: what `mariadb-backup` would stream of it, and what a restore must yield.

use std::collections::BTreeMap;
use std::io::{Cursor, Read};
use std::sync::{Arc, Mutex};

use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};

use crate::backup::{Capture, Finished, Source, SourceError, Survey};
use crate::mariadb::child::ChildReport;
use crate::mariadb::control::{BackupType, Checkpoints};
use crate::mariadb::delta::{DeltaMeta, write_delta};
use crate::mariadb::facts::{InnodbFacts, Privileges, ServerFacts};
use crate::mariadb::identity::{DatadirLayout, DatadirWalk};
use crate::mariadb::redo::RedoFormat;
use crate::mariadb::redo_write::RedoWriter;
use crate::mariadb::xbstream::StreamPath;
use crate::mariadb::xbstream_write::StreamWriter;
use crate::model::{Clock, Lsn, PageNo, PageSize, Progress, SpaceId, SystemClock};

pub const PAGE: usize = 4096;
/// `FSP_SPACE_FLAGS` of full_crc32 with pages of 4 KiB.
const FLAGS: u32 = 0x13;

/// A tablespace: its name, its length as page 0 says it, and its pages that are not zero.
#[derive(Clone, Debug, Default)]
pub struct Space {
    pub name: String,
    pub size: u32,
    pub pages: BTreeMap<u32, Vec<u8>>,
}

impl Space {
    pub fn bytes(&self) -> Vec<u8> {
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
pub enum Fault {
    /// It ends early, though the tool says that all is well.
    Cut,
    /// A bit is another.
    Flip,
}

/// A server that lives, and whose files are on disk as far as identities go.
pub struct World {
    pub rng: StdRng,
    pub datadir: tempfile::TempDir,
    pub spaces: BTreeMap<u32, Space>,
    pub plain: BTreeMap<String, Vec<u8>>,
    /// Bodies of the redo log's records with the LSN at which each begins.
    pub log: Vec<(Lsn, Vec<u8>)>,
    pub now: Lsn,
    pub checkpoint: Lsn,
    pub next_space: u32,
    /// What the last capture put into its stream: files by path.
    pub streamed: BTreeMap<String, Vec<u8>>,
    /// What each capture put into its stream, by the last LSN.
    pub history: BTreeMap<Lsn, BTreeMap<String, Vec<u8>>>,
    /// What happens to the next stream on its way.
    pub fault: Option<Fault>,
    /// Most pages of a new table.
    pub pages_max: u32,
    /// Whether tables shrink now and then. One that shrinks and grows again between two backups has pages that nobody wrote,
    /// and of which no LSN tells: what they hold is anyone's guess, on a real server too.
    pub shrinks: bool,
}

impl World {
    /// A server whose tables have some hundred pages.
    pub fn new(seed: u64) -> World {
        World::of(seed, 400)
    }

    /// A server whose tables have `pages_max` pages at most.
    pub fn of(seed: u64, pages_max: u32) -> World {
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
            history: BTreeMap::new(),
            fault: None,
            pages_max,
            shrinks: true,
        };
        std::fs::create_dir(world.datadir.path().join("mysql")).unwrap();
        std::fs::create_dir(world.datadir.path().join("db")).unwrap();
        world.create(0, "ibdata1", 90.min(pages_max));
        for _ in 0..3 {
            world.create_table();
        }
        world.plain.insert("db/db.opt".to_owned(), Vec::new());
        world.plain.insert("aria_log.00000001".to_owned(), vec![7; pages_max as usize * 3932]);
        world
    }

    pub fn log(&mut self, bytes: usize) -> Lsn {
        let mut body = vec![0; bytes];
        self.rng.fill_bytes(&mut body);
        let mut writer = RedoWriter::new(RedoFormat::Plain, self.now);
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

    pub fn create_table(&mut self) -> u32 {
        let id = self.next_space;
        self.next_space += 1;
        let size = self.rng.random_range(1..self.pages_max);
        self.create(id, &format!("db/t{id}.ibd"), size);
        id
    }

    pub fn change(&mut self, id: u32, number: u32) {
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

    pub fn dml(&mut self, changes: u32) {
        for _ in 0..changes {
            let ids: Vec<u32> = self.spaces.keys().copied().collect();
            let id = ids[self.rng.random_range(0..ids.len())];
            let number = self.rng.random_range(0..self.spaces[&id].size);
            self.change(id, number);
        }
        if self.rng.random_bool(0.2) {
            self.log((self.pages_max as usize) << 10);
        }
    }

    /// What happens between two backups.
    pub fn live(&mut self) {
        let changes = self.rng.random_range(0..self.pages_max / 3);
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
                    let more = self.rng.random_range(0..self.pages_max / 2);
                    self.spaces.get_mut(&id).unwrap().size += more;
                    self.change(id, 0);
                }
            }
            // Shrinks, as an undo tablespace does: what lies beyond is gone, and comes back as zeros.
            _ => {
                if let Some(id) = self.some_table().filter(|_| self.shrinks) {
                    let size = self.spaces[&id].size;
                    let size = self.rng.random_range(1..=size);
                    let space = self.spaces.get_mut(&id).unwrap();
                    space.size = size;
                    space.pages.retain(|number, _| *number < size);
                    self.change(id, 0);
                }
            }
        }
        let bytes = self.rng.random_range(0..self.pages_max as usize * 12);
        let mut frm = vec![0; bytes];
        self.rng.fill_bytes(&mut frm);
        self.plain.insert("db/t.frm".to_owned(), frm);
    }

    /// Streams a backup: pages are read at various moments of the window.
    pub fn stream(&mut self, from: Option<Lsn>) -> Vec<u8> {
        let earliest = self.checkpoint;
        let boundaries: Vec<Lsn> = self.log.iter().map(|(lsn, _)| *lsn).filter(|lsn| *lsn >= earliest).collect();
        self.checkpoint = boundaries[self.rng.random_range(0..boundaries.len())];
        let start = self.checkpoint;
        // A page is read before the window's changes or after them.
        let before = self.spaces.clone();
        let changes = self.rng.random_range(0..self.pages_max / 6);
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
        let mut writer = RedoWriter::new(RedoFormat::Plain, start);
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
        self.plain.insert("ib_logfile0".to_owned(), redo);
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
        self.history.insert(last, self.streamed.clone());
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
pub struct MadeUp(pub Mutex<World>);

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

/// A capture of it.
pub struct Streamed {
    pub stream: Option<Vec<u8>>,
    pub blocked: DatadirWalk,
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
