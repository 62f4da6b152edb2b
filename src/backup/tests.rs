//! Generations of a made-up server go through the whole pipeline, and every page of every backup comes back.

mod damaged;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use object_store::memory::InMemory;
use rand::Rng;

use super::made_up::{Fault, MadeUp, PAGE, World};
use super::*;
use crate::format::map::{Content, Extent, FileMap, FilePiece, FileSource, Location, SpaceMap};
use crate::format::pack::{self, PackKind};
use crate::format::{Credential, NewSlot, StoredChunk, Wraps, key_of_file};
use crate::model::{ChunkId, Silent, SystemClock, SystemEntropy};
use crate::store::faulty::{Fault as StoreFault, FaultyStore, Operation, Rule, Script};
use crate::store::{Store, StoreOptions};

/// Histories that are tried, at a second each.
const SEEDS: u64 = 8;

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
                        let namer = self.repository.namer();
                        let raw = self.chunk(chunk.id, &chunk.at, chunk.pages.len() * page_bytes as u32).await;
                        let hashes = namer.pages(raw, page_bytes);
                        assert_eq!(namer.chunk_of_pages(&hashes), chunk.id);
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
                let namer = self.repository.namer();
                let raw = self.chunk(id, &at, raw_bytes).await;
                assert_eq!(namer.chunk_of_file(raw), id);
                raw[skip as usize..][..piece.bytes as usize].to_vec()
            }
        }
    }

    async fn chunk(&mut self, id: ChunkId, at: &Location, raw_bytes: u32) -> &[u8] {
        let key = (at.pack.id, at.offset);
        if !self.chunks.contains_key(&key) {
            let start = u64::from(at.offset);
            let range = start..start + u64::from(at.stored_bytes);
            let stored = self.repository.read_range(at.pack.id, range).await.unwrap();
            let Location { offset, encoding, .. } = *at;
            let chunk = StoredChunk { kind: PackKind::Data, id, offset, encoding, raw_bytes };
            let raw = self.repository.keyring().open_chunk("chunk", &chunk, &stored).unwrap();
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
        sweep_pause: Duration::from_millis(1),
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

async fn sealed_in(objects: &Arc<InMemory>) -> Repository {
    let store = Store::over("memory:///", objects.clone(), StoreOptions::default());
    let credential = Credential::File(key_of_file(&[5; 32]).unwrap());
    let slot = NewSlot { credential, wraps: Wraps::All, label: String::new() };
    Repository::init_sealed(store, None, &SystemClock, Arc::new(SystemEntropy), &slot).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sealed_repository_holds_what_a_plain_one_holds() {
    generations_in(Arc::new(sealed_in(&Arc::new(InMemory::new())).await), 9, 5).await;
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
    swept::check(&context, &manifest, &lease, &plans, Duration::ZERO).await.unwrap();
    let mut references = crate::repository::References::default();
    references.add(&repository, &manifest).await.unwrap();
    let mut gone = 0;
    for pack in repository.packs().await.unwrap().into_keys().filter(|pack| references.need(pack)) {
        let bytes = repository.read_pack(pack).await.unwrap();
        repository.delete(&crate::repository::ObjectKey::Pack(pack)).await.unwrap();
        let error = swept::check(&context, &manifest, &lease, &plans, Duration::ZERO).await.unwrap_err();
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
