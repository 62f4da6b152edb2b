//! Figures of `prune` and `check` on a repository of 10 TB and 1,000 backups, of which the page maps are real and the data packs
//! holes of the right size. Run it with `cargo bench --bench retention`; `HAULOUT_RETENTION_BACKUPS` and `HAULOUT_RETENTION_TABLES` make it smaller.
//!
//! Each table has 10 GiB in pages of 16 KiB, so 20 blocks of 512 extents. The first backup has all of them; each later one changes a page of
//! every extent of one table, so it writes 20 blocks, a directory and a root.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use haulout::format::map::{
    BlockRef, Content, Extent, ExtentBlock, ExtentBlockRef, Location, MapRoot, MapTotals, PackRef, PageChunk, Piece,
    SpaceDirectory, SpaceKey, SpaceMap, SpaceRecord,
};
use haulout::format::pack::{self, Encoding, NewChunk, PackBuilder, PackKind, Placed};
use haulout::format::{BackupKind, GtidPosition, LsnRange, Manifest, RedoFormat, Server, Sizes, StoredBlock, Timeline};
use haulout::model::{
    BackupId, ChunkId, ExtentNo, Lsn, PackId, PageMask, PageSize, SpaceId, SystemClock, SystemEntropy, Timestamp,
};
use haulout::repository::Repository;
use haulout::store::{self, StoreOptions};

const EXTENTS: u32 = 10 << 10;
const BLOCK_EXTENTS: u32 = 512;
/// Stored bytes of a whole extent, and of a page.
const EXTENT_STORED: u32 = 270_000;
const PAGE_STORED: u32 = 9_000;
/// Extents, and pages, in a pack.
const EXTENTS_PER_PACK: u64 = 60;
const PAGES_PER_PACK: u64 = 1_800;
const PACK_BYTES: u32 = 16_400_000;

/// What is wanted of a command.
const SECONDS_MAX: f64 = 60.0;
const PEAK_MIB_MAX: u64 = 512;

fn name(what: &str, numbers: [u64; 3]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(what.as_bytes());
    for number in numbers {
        hasher.update(&number.to_le_bytes());
    }
    *hasher.finalize().as_bytes()
}

/// Packs map blocks; what is in one call lies in packs of its own.
struct Blocks<'a> {
    repository: &'a Repository,
    compressor: zstd::bulk::Compressor<'static>,
}

impl Blocks<'_> {
    async fn store(&mut self, blocks: &[Vec<u8>]) -> Vec<BlockRef> {
        let mut stored = Vec::new();
        let mut builder = PackBuilder::new(PackKind::Map);
        let mut open = Vec::new();
        for (place, raw) in blocks.iter().enumerate() {
            let id = self.repository.namer().map_block(raw);
            let mut bytes = Vec::new();
            let encoding = pack::compress(&mut self.compressor, raw, &mut bytes).unwrap();
            let chunk = NewChunk { id, raw_bytes: raw.len() as u32, encoding, sums: &[], stored: &bytes };
            let Placed { offset, stored_bytes } = builder.add(&chunk);
            open.push((id, raw.len() as u32, offset, stored_bytes, encoding));
            if builder.is_full() || place + 1 == blocks.len() {
                let pack = std::mem::replace(&mut builder, PackBuilder::new(PackKind::Map)).finish().unwrap();
                let home = PackRef { id: pack.id, bytes: pack.bytes.len() as u32 };
                self.repository.put_pack(pack.id, pack.bytes.into()).await.unwrap();
                stored.extend(open.drain(..).map(|(id, raw_bytes, offset, stored_bytes, encoding)| BlockRef {
                    id,
                    raw_bytes,
                    at: Location { pack: home, offset, stored_bytes, encoding },
                }));
            }
        }
        stored
    }
}

struct Generator<'a> {
    folder: PathBuf,
    tables: u64,
    blocks: Blocks<'a>,
    /// Blocks of each table, and the directories.
    extents: Vec<Vec<ExtentBlockRef>>,
    directories: Vec<(SpaceKey, BlockRef)>,
    stored_bytes: u64,
}

fn key(table: u64) -> SpaceKey {
    SpaceKey { space: SpaceId(table as u32 + 1), part: 0 }
}

fn chunk(id: [u8; 32], pages: PageMask, pack: [u8; 32], place: u64, stored_bytes: u32) -> Content {
    let pack = PackRef { id: PackId(pack), bytes: PACK_BYTES };
    let at = Location { pack, offset: 48 + place as u32 * stored_bytes, stored_bytes, encoding: Encoding::Zstd };
    Content::Chunk(PageChunk { id: ChunkId(id), pages, at })
}

/// Extent `no` of a table, with the page that backup `changed` has changed.
fn extent(table: u64, no: u32, changed: Option<u64>) -> Extent {
    let number = table * u64::from(EXTENTS) + u64::from(no);
    let pack = name("pack", [number / EXTENTS_PER_PACK, 0, 0]);
    let content =
        chunk(name("extent", [number, 0, 0]), PageMask::first(64), pack, number % EXTENTS_PER_PACK, EXTENT_STORED);
    let Some(backup) = changed else {
        return Extent { no: ExtentNo(no), pieces: vec![Piece { mask: PageMask::first(64), content }] };
    };
    let page = PageMask::only(no % 63 + 1);
    let pack = name("pack", [backup, u64::from(no) / PAGES_PER_PACK, 1]);
    let newer = chunk(name("page", [number, backup, 0]), page, pack, u64::from(no) % PAGES_PER_PACK, PAGE_STORED);
    let pieces = vec![Piece { mask: PageMask::first(64).without(page), content }, Piece { mask: page, content: newer }];
    Extent { no: ExtentNo(no), pieces }
}

impl Generator<'_> {
    fn pack_file(&self, id: [u8; 32]) {
        let name = PackId(id).to_string();
        let folder = self.folder.join("packs").join(&name[..2]);
        fs::create_dir_all(&folder).unwrap();
        fs::File::create(folder.join(name)).unwrap().set_len(PACK_BYTES.into()).unwrap();
    }

    async fn store_table(&mut self, table: u64, changed: Option<u64>) {
        let stored = u64::from(BLOCK_EXTENTS) * u64::from(EXTENT_STORED + changed.map_or(0, |_| PAGE_STORED));
        let blocks: Vec<Vec<u8>> = (0..EXTENTS / BLOCK_EXTENTS)
            .map(|index| {
                let numbers = index * BLOCK_EXTENTS..(index + 1) * BLOCK_EXTENTS;
                let extents = numbers.map(|no| extent(table, no, changed)).collect();
                ExtentBlock { key: key(table), index, extents }.encode()
            })
            .collect();
        let stored_blocks = self.blocks.store(&blocks).await;
        let refs = stored_blocks.into_iter().enumerate();
        let refs = refs.map(|(index, block)| ExtentBlockRef { index: index as u32, stored_bytes: stored, block });
        self.extents[table as usize] = refs.collect();
        if changed.is_some() {
            self.stored_bytes += u64::from(EXTENTS) * u64::from(PAGE_STORED);
        }
    }

    /// Directory number `bucket`, of 64 space ids.
    fn directory(&self, bucket: u64) -> Option<(SpaceKey, Vec<u8>)> {
        let tables: Vec<u64> = (0..self.tables).filter(|table| (table + 1) >> 6 == bucket).collect();
        let records = tables.iter().map(|table| SpaceRecord {
            key: key(*table),
            name: format!("db/t{table}.ibd"),
            page_size: PageSize::new(16384).unwrap(),
            flags: 21,
            encrypted: None,
            pages: EXTENTS * 64,
            identity: None,
            suspect: false,
            mode: None,
            map: SpaceMap::Blocks(self.extents[*table as usize].clone()),
        });
        Some((key(*tables.first()?), SpaceDirectory { records: records.collect() }.encode()))
    }

    async fn backup(&mut self, number: u64, parent: Option<&Manifest>) -> Manifest {
        let repository = self.blocks.repository;
        let buckets = if number == 0 {
            for table in 0..self.tables {
                self.store_table(table, None).await;
            }
            (0..=self.tables >> 6).collect()
        } else {
            let table = number % self.tables;
            self.store_table(table, Some(number)).await;
            vec![(table + 1) >> 6]
        };
        let made: Vec<(SpaceKey, Vec<u8>)> = buckets.iter().filter_map(|bucket| self.directory(*bucket)).collect();
        let raw: Vec<Vec<u8>> = made.iter().map(|(_, bytes)| bytes.clone()).collect();
        for ((first, _), block) in made.iter().zip(self.blocks.store(&raw).await) {
            self.directories.retain(|(key, _)| key != first);
            self.directories.push((*first, block));
        }
        self.directories.sort_by_key(|(key, _)| *key);
        let totals = MapTotals {
            spaces: self.tables,
            files: 0,
            logical_bytes: (self.tables * u64::from(EXTENTS)) << 20,
            stored_bytes: self.stored_bytes,
        };
        let root = MapRoot { totals, spaces: self.directories.clone(), files: Vec::new() };
        let root = self.blocks.store(&[root.encode()]).await[0];
        let started = Timestamp(jiff::Timestamp::from_second(1_700_000_000 + 3600 * number as i64).unwrap());
        let start = 1000 * (number + 1);
        let manifest = Manifest {
            repository_id: repository.config().repository_id,
            id: BackupId::new(started, &SystemEntropy),
            edition: 0,
            kind: if parent.is_some() { BackupKind::Incremental } else { BackupKind::Full },
            reason: "made up".to_owned(),
            tags: Vec::new(),
            parent: parent.map(|parent| parent.id.clone()),
            depth: number as u32,
            started,
            finished: started,
            haulout_version: "0.0.0".to_owned(),
            tool_version: "10.11.19-MariaDB".to_owned(),
            server: Server {
                version: "10.11.19-MariaDB".to_owned(),
                hostname: "nowhere".to_owned(),
                server_id: 1,
                datadir: "/var/lib/mysql".to_owned(),
                page_size: 16384,
                data_file_path: "ibdata1:12M:autoextend".to_owned(),
                undo_tablespaces: 0,
                system_file: None,
                datadir_mode: None,
                directory_mode: None,
                directory_modes: Default::default(),
                galera: None,
            },
            lsn: LsnRange {
                from: Lsn(parent.map_or(0, |parent| parent.lsn.start.0 - 1)),
                start: Lsn(start),
                to: Lsn(start + 100),
                last: Lsn(start + 500),
            },
            redo: RedoFormat { creator: "Backup 10.11.19-MariaDB".to_owned(), encrypted: false, bytes: 500 },
            position: GtidPosition::default(),
            timeline: Timeline::default(),
            filters: Vec::new(),
            sizes: Sizes { logical_bytes: totals.logical_bytes, stored_bytes: totals.stored_bytes, ..Sizes::default() },
            spaces: totals.spaces,
            files: 0,
            warnings: Vec::new(),
            map: StoredBlock::from(root),
            locked_until: None,
        };
        // Packs before the manifest, so that they are older.
        if number == 0 {
            let packs = (self.tables * u64::from(EXTENTS)).div_ceil(EXTENTS_PER_PACK);
            (0..packs).for_each(|pack| self.pack_file(name("pack", [pack, 0, 0])));
        } else {
            let packs = u64::from(EXTENTS).div_ceil(PAGES_PER_PACK);
            (0..packs).for_each(|pack| self.pack_file(name("pack", [number, pack, 1])));
        }
        repository.commit(&manifest, parent).await.unwrap();
        manifest
    }
}

/// Seconds, peak in MiB, and what was said.
fn measured(repository: &str, arguments: &[&str]) -> (f64, u64, String) {
    let begun = Instant::now();
    let mut child = Command::new(env!("CARGO_BIN_EXE_haulout"))
        .args(["--no-progress", "--repo", repository])
        .args(arguments)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let status = format!("/proc/{}/status", child.id());
    let (told, peak) = std::thread::scope(|scope| {
        let mut stdout = child.stdout.take().unwrap();
        let told = scope.spawn(move || std::io::read_to_string(&mut stdout).unwrap());
        let mut peak = 0;
        while child.try_wait().unwrap().is_none() {
            let text = fs::read_to_string(&status).unwrap_or_default();
            let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
            peak = peak.max(kib.unwrap_or(0) >> 10);
            std::thread::yield_now();
            std::thread::park_timeout(std::time::Duration::from_millis(20));
        }
        (told.join().unwrap(), peak)
    });
    let code = child.wait().unwrap().code();
    assert_eq!(code, Some(0), "{arguments:?}: {told}");
    (begun.elapsed().as_secs_f64(), peak, told)
}

fn number(name: &str, usual: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

async fn generate(folder: &Path, tables: u64, backups: u64) {
    let url = format!("file://{}", folder.display()).parse().unwrap();
    let store = store::open(&url, &StoreOptions { create_directory: true, ..StoreOptions::default() }).await.unwrap();
    let repository = Arc::new(Repository::init(store, &SystemClock, &SystemEntropy).await.unwrap());
    let compressor = zstd::bulk::Compressor::new(1).unwrap();
    let mut generator = Generator {
        folder: folder.to_owned(),
        tables,
        blocks: Blocks { repository: &repository, compressor },
        extents: vec![Vec::new(); tables as usize],
        directories: Vec::new(),
        stored_bytes: tables * u64::from(EXTENTS) * u64::from(EXTENT_STORED),
    };
    let mut parent = None;
    for number in 0..backups {
        parent = Some(generator.backup(number, parent.as_ref()).await);
    }
}

fn main() {
    let (tables, backups) = (number("HAULOUT_RETENTION_TABLES", 1000), number("HAULOUT_RETENTION_BACKUPS", 1000));
    let folder = tempfile::tempdir().unwrap();
    let begun = Instant::now();
    tokio::runtime::Runtime::new().unwrap().block_on(generate(folder.path(), tables, backups));
    let packs = walk(&folder.path().join("packs"));
    println!(
        "{backups} backups of {tables} tables, {:.1} TB; {packs} packs; made in {:.0} s",
        ((tables * u64::from(EXTENTS)) << 20) as f64 / 1e12,
        begun.elapsed().as_secs_f64()
    );
    let repository = format!("file://{}", folder.path().display());
    let half = (backups / 2).max(1).to_string();
    println!("\n| command | seconds | wanted | peak MiB | wanted | |\n|---|---:|---:|---:|---:|---|");
    let mut met = true;
    for arguments in [
        &["check"][..],
        &["prune", "--keep-last", &half, "--dry-run"],
        &["prune", "--keep-last", &half],
        &["prune", "--keep-last", &half, "--grace", "0s"],
        &["prune", "--keep-last", "1", "--grace", "0s"],
    ] {
        let (seconds, peak, told) = measured(&repository, arguments);
        let fits = seconds <= SECONDS_MAX && peak <= PEAK_MIB_MAX;
        met &= fits;
        let verdict = if fits { "met" } else { "missed" };
        println!(
            "| `{}` | {seconds:.1} | ≤ {SECONDS_MAX} | {peak} | ≤ {PEAK_MIB_MAX} | {verdict} |",
            arguments.join(" ")
        );
        eprintln!("{}", told.lines().rev().take(3).collect::<Vec<_>>().join("\n"));
    }
    println!("\n{}", if met { "all met" } else { "not all met" });
}

fn walk(folder: &Path) -> usize {
    fs::read_dir(folder).unwrap().flatten().map(|shard| fs::read_dir(shard.path()).unwrap().count()).sum()
}
