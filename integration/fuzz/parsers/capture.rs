//! A whole stream through a whole backup: what comes of it is an error, or a backup of which every byte can be proven.

use std::{
    io::{Cursor, Read},
    path::PathBuf,
    sync::{Arc, LazyLock},
};

use haulout::{
    backup::{
        BackupError, BackupOptions, Capture, Context, Finished, Source, SourceError, SpoolOptions, Survey, Want, backup,
    },
    mariadb::{
        child::ChildReport,
        control::{BackupType, Checkpoints},
        facts::{InnodbFacts, Privileges, ServerFacts},
        identity::{DatadirLayout, DatadirWalk},
        redo::RedoFormat,
        redo_write::RedoWriter,
        xbstream::StreamPath,
        xbstream_write::StreamWriter,
    },
    model::{Clock, Lsn, PageNo, PageSize, Progress, Silent, SpaceId, SystemClock, SystemEntropy},
    repository::Repository,
    store::{Store, StoreOptions},
    verify::{ReadData, Selection, check as verify},
};
use object_store::memory::InMemory;
use tokio::{runtime::Runtime, sync::watch};

use super::xbstream;

const PAGE_BYTES: usize = 4096;
/// `FSP_SPACE_FLAGS` of full_crc32 with pages of 4 KiB.
const FLAGS: u32 = 0x13;
const START: Lsn = Lsn(1 << 20);

/// The first byte tells whether the backup is an incremental, whether its stream gets the files that every stream has, and
/// whether its pages get their checksums; the stream follows.
pub fn check(input: &[u8]) {
    let Some((how, stream)) = input.split_first() else { return };
    let incremental = how & 1 != 0;
    let mut stream = stream.to_vec();
    let payloads = xbstream::repair(&mut stream);
    if how & 4 != 0 {
        for payload in payloads {
            let pages = &mut stream[payload];
            pages.chunks_exact_mut(PAGE_BYTES).filter(|page| page.iter().any(|byte| *byte != 0)).for_each(seal);
        }
        xbstream::repair(&mut stream);
    }
    if how & 2 == 0 {
        stream.extend_from_slice(&ending(incremental));
    }
    let world = &*WORLD;
    let objects = if incremental { world.base.fork() } else { InMemory::new() };
    world.runtime.block_on(async {
        let store = Store::over("memory:///", Arc::new(objects), StoreOptions::default());
        let repository = match incremental {
            true => Repository::open(store).await.unwrap(),
            false => Repository::init(store, &SystemClock, &SystemEntropy).await.unwrap(),
        };
        one(world, Arc::new(repository), stream, incremental).await;
    });
}

async fn one(world: &World, repository: Arc<Repository>, stream: Vec<u8>, incremental: bool) {
    let want = if incremental { Want::Incremental } else { Want::Full };
    let outcome = take(&world.survey, &repository, stream, want).await;
    let backups = repository.backup_ids().await.unwrap().len() - usize::from(incremental);
    match outcome {
        Ok(()) => {
            assert_eq!(backups, 1);
            let read_data = ReadData { percent: 100, seed: 0, part: None };
            let report = verify(&repository, &Selection::All, Some(read_data), &Silent).await.unwrap();
            assert!(report.is_clean(), "a committed backup is damaged: {:?}", report.damages);
        }
        // Somebody ended without a word.
        Err(BackupError::Abandoned) => panic!("a thread of the backup panicked"),
        Err(error) => assert_eq!(backups, 0, "a backup was committed in spite of {error}"),
    }
}

/// What is the same for each input.
struct World {
    runtime: Runtime,
    survey: Survey,
    /// A repository with one full backup.
    base: InMemory,
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let survey = survey();
    let objects = Arc::new(InMemory::new());
    runtime.block_on(async {
        let store = Store::over("memory:///", objects.clone(), StoreOptions::default());
        let repository = Arc::new(Repository::init(store, &SystemClock, &SystemEntropy).await.unwrap());
        take(&survey, &repository, full_stream(), Want::Full).await.unwrap();
    });
    World { runtime, survey, base: objects.fork() }
});

async fn take(survey: &Survey, repository: &Arc<Repository>, stream: Vec<u8>, want: Want) -> Result<(), BackupError> {
    // Held, because a channel that is closed cancels.
    let (_stop, cancel) = watch::channel(false);
    let context = Context {
        repository: repository.clone(),
        clock: Arc::new(SystemClock),
        entropy: Arc::new(SystemEntropy),
        progress: Arc::new(Silent),
        cancel,
    };
    let options = BackupOptions {
        want,
        compression_level: 1,
        workers: 1,
        uploads_max: 1,
        spool: SpoolOptions { directory: PathBuf::new(), bytes_max: 0 },
        depth_max: u32::MAX,
        tags: Vec::new(),
        sweep_pause: haulout::backup::SWEEP_PAUSE,
    };
    let source = Streamed { survey: survey.clone(), stream };
    backup(&context, Arc::new(source), &options).await.map(drop)
}

/// A server that gives one stream, and the same again when the capture is tried again.
struct Streamed {
    survey: Survey,
    stream: Vec<u8>,
}

impl Source for Streamed {
    fn survey(&self, _: &dyn Progress) -> Result<Survey, SourceError> {
        Ok(self.survey.clone())
    }

    fn look_again(&self, before: &Survey) -> Result<DatadirWalk, SourceError> {
        Ok(before.walk.clone())
    }

    fn space_on_disk(&self, _: &Survey, _: &str) -> Option<SpaceId> {
        None
    }

    fn has(&self, _: &Survey, _: &str) -> bool {
        false
    }

    fn is_link(&self, _: &Survey, _: &str) -> bool {
        false
    }

    fn page_lsn_on_disk(&self, _: &Survey, _: &str, _: PageNo, _: PageSize) -> Option<Lsn> {
        None
    }

    fn checkpoint(&self) -> bool {
        false
    }

    fn start(&self, survey: &Survey, _: Option<Lsn>, _: Arc<dyn Progress>) -> Result<Box<dyn Capture>, SourceError> {
        Ok(Box::new(OneStream { stream: Some(self.stream.clone()), walk: survey.walk.clone() }))
    }
}

struct OneStream {
    stream: Option<Vec<u8>>,
    walk: DatadirWalk,
}

impl Capture for OneStream {
    fn take_stream(&mut self) -> Option<Box<dyn Read + Send>> {
        self.stream.take().map(|bytes| Box::new(Cursor::new(bytes)) as Box<dyn Read + Send>)
    }

    fn stopper(&self) -> Box<dyn Fn() + Send + Sync> {
        Box::new(|| {})
    }

    fn finish(self: Box<Self>) -> Result<Finished, SourceError> {
        Ok(Finished { report: ChildReport::default(), blocked: Some(self.walk), plain: None, binlog: None })
    }
}

fn survey() -> Survey {
    let datadir = tempfile::tempdir().unwrap();
    std::fs::create_dir(datadir.path().join("db")).unwrap();
    for name in ["ibdata1", "db/t.ibd"] {
        std::fs::write(datadir.path().join(name), []).unwrap();
    }
    let now = SystemClock.now();
    let facts = ServerFacts {
        version: "10.11.19-MariaDB".parse().unwrap(),
        account: "root@localhost".to_owned(),
        now,
        started: now,
        hostname: "made-up".to_owned(),
        server_id: 1,
        server_uid: None,
        datadir: datadir.path().to_owned(),
        socket: None,
        innodb: InnodbFacts {
            page_size: PageSize::new(PAGE_BYTES as u32).unwrap(),
            data_file_path: "ibdata1:12M:autoextend".to_owned(),
            data_home_dir: String::new(),
            undo_tablespaces: 0,
            undo_directory: "./".to_owned(),
            log_group_home_dir: "./".to_owned(),
            log_archive: false,
            encrypt_log: false,
            log_file_bytes: 96 << 20,
            lsn_current: Lsn(START.0 + 4096),
            lsn_last_checkpoint: START,
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
    };
    // The files' identities are those of this walk: the folder is not looked at again.
    let walk = DatadirWalk::walk(&DatadirLayout::of(&facts)).unwrap();
    Survey { facts, walk, tool_version: "10.11.19-MariaDB".to_owned() }
}

/// A stream with two tablespaces of two and three pages.
fn full_stream() -> Vec<u8> {
    let mut stream = StreamWriter::new(Vec::new());
    for (name, space, pages) in [("ibdata1", 0, 2), ("db/t.ibd", 5, 3)] {
        let file: Vec<u8> = (0..pages).flat_map(|number| page(space, number, pages)).collect();
        stream.file(&path(name), &file, PAGE_BYTES).unwrap();
    }
    [stream.into_inner(), ending(false)].concat()
}

fn path(path: &str) -> StreamPath {
    StreamPath::new(path).unwrap()
}

fn page(space: u32, number: u32, pages: u32) -> Vec<u8> {
    let mut page = vec![0; PAGE_BYTES];
    page[4..8].copy_from_slice(&number.to_be_bytes());
    page[16..24].copy_from_slice(&START.0.to_be_bytes());
    page[34..38].copy_from_slice(&space.to_be_bytes());
    if number == 0 {
        page[38..42].copy_from_slice(&space.to_be_bytes());
        page[46..50].copy_from_slice(&pages.to_be_bytes());
        page[54..58].copy_from_slice(&FLAGS.to_be_bytes());
    }
    seal(&mut page);
    page
}

/// Gives a page of the full_crc32 form the end that it ought to have.
fn seal(page: &mut [u8]) {
    let end = page.len() - 4;
    page.copy_within(20..24, end - 4);
    let crc = crc32c::crc32c(&page[..end]);
    page[end..].copy_from_slice(&crc.to_be_bytes());
}

/// The files that every stream ends with.
fn ending(incremental: bool) -> Vec<u8> {
    let from = Lsn(if incremental { START.0 - 1 } else { 0 });
    let mut redo = RedoWriter::new(RedoFormat::Plain, START);
    redo.checkpoint();
    redo.page(SpaceId(5), PageNo(1), b"changed");
    redo.commit();
    let last = redo.end();
    let backup_type = if incremental { BackupType::Incremental } else { BackupType::Full };
    let checkpoints =
        Checkpoints { backup_type, from_lsn: from, to_lsn: START, last_lsn: last, recover_binlog_info: Some(false) };
    let info = format!(
        "uuid = u\ntool_version = 10.11.19-MariaDB\nserver_version = 10.11.19-MariaDB\nstart_time = 2026-11-22 01:00:00\n\
         end_time = 2026-11-22 01:00:01\nbinlog_pos = \ninnodb_from_lsn = {from}\ninnodb_to_lsn = {START}\n\
         partial = N\nincremental = {}\nformat = xbstream\ncompressed = N\n",
        if incremental { "Y" } else { "N" },
    );
    let (redo, checkpoints) = (redo.into_file(), checkpoints.to_text());
    let mut stream = StreamWriter::new(Vec::new());
    let files: [(&str, &[u8]); 4] = [
        ("ib_logfile0", &redo),
        ("xtrabackup_checkpoints", checkpoints.as_bytes()),
        ("backup-my.cnf", b"[mysqld]\ninnodb_page_size=4096\ninnodb_data_file_path=ibdata1:12M:autoextend\n"),
        ("xtrabackup_info", info.as_bytes()),
    ];
    for (name, bytes) in files {
        stream.file(&path(name), bytes, 1 << 20).unwrap();
    }
    stream.into_inner()
}
