//! Compactions of made-up repositories.

use crate::error::Diagnose;
use crate::format::map::{FileSource, Location, SpaceRecord};
use crate::format::pack::{self, PackKind};
use crate::format::{Credential, NewSlot, PruneStep, StoredChunk, SweepTally, Wraps, key_of_file};
use crate::model::{Clock, ExtentNo, LockMode, LockPolicy};
use crate::prune::tests::{Bench, DAY, access, keep};
use crate::repository::{LEASE_SECONDS, ObjectKey, Repository};
use crate::store::StoreOptions;
use crate::store::bucket::{self, Bucket};
use crate::store::faulty::{Fault, FaultyStore, Rule, Script};

use super::*;

/// What files hold, by their paths.
type Files = std::collections::BTreeMap<String, Vec<u8>>;

async fn chunk(repository: &Repository, id: crate::model::ChunkId, at: &Location, raw_bytes: usize) -> Vec<u8> {
    let range = u64::from(at.offset)..u64::from(at.offset) + u64::from(at.stored_bytes);
    let stored = repository.read_range(at.pack.id, range).await.unwrap();
    let Location { offset, encoding, .. } = *at;
    let place = StoredChunk { kind: PackKind::Data, id, offset, encoding, raw_bytes: raw_bytes as u32 };
    let raw = repository.keyring().open_chunk("chunk", &place, &stored).unwrap();
    let entry = repository.directory(at.pack).await.unwrap().iter().find(|entry| entry.offset == at.offset).cloned();
    let entry = entry.expect("the chunk stands in its pack's directory");
    assert_eq!((entry.id, entry.raw_bytes as usize), (id, raw_bytes));
    copy::prove(repository.keyring(), &entry, &stored).unwrap();
    raw
}

async fn extents(repository: &Repository, record: &SpaceRecord) -> Vec<crate::format::map::Extent> {
    match &record.map {
        crate::format::map::SpaceMap::Inline(extents) => extents.clone(),
        crate::format::map::SpaceMap::Blocks(blocks) => {
            let mut all = Vec::new();
            for block in blocks {
                all.extend(repository.map_extents(record.key, block).await.unwrap());
            }
            all
        }
    }
}

/// What a restore of the backup would write, every chunk proven.
async fn files(repository: &Repository, manifest: &Manifest) -> Files {
    let root = repository.map_root(manifest).await.unwrap();
    let mut files = Files::new();
    for record in repository.map_spaces(&root).await.unwrap() {
        let page_bytes = record.page_size.bytes();
        let mut bytes = vec![0; record.pages as usize * page_bytes];
        let mut stored = 0;
        for (number, extent) in extents(repository, &record).await.into_iter().enumerate() {
            assert_eq!((extent.no, extent.covered()), (ExtentNo(number as u32), record.pages_of(extent.no)));
            for piece in &extent.pieces {
                stored += piece.stored_bytes();
                let crate::format::map::Content::Chunk(of) = &piece.content else { continue };
                let raw = chunk(repository, of.id, &of.at, of.pages.len() as usize * page_bytes).await;
                for index in piece.mask.indices() {
                    let (from, to) = (of.pages.rank(index) as usize, extent.no.0 as usize * 64 + index as usize);
                    bytes[to * page_bytes..(to + 1) * page_bytes]
                        .copy_from_slice(&raw[from * page_bytes..(from + 1) * page_bytes]);
                }
            }
        }
        if let crate::format::map::SpaceMap::Blocks(blocks) = &record.map {
            assert_eq!(stored, blocks.iter().map(|block| block.stored_bytes).sum::<u64>());
        }
        files.insert(record.name, bytes);
    }
    for record in repository.map_files(&root).await.unwrap() {
        let mut bytes = Vec::new();
        let crate::format::map::FileMap::Inline(pieces) = &record.map else { panic!("{} is long", record.path) };
        for piece in pieces {
            match &piece.source {
                FileSource::Zero => bytes.resize(bytes.len() + piece.bytes as usize, 0),
                FileSource::Chunk { id, raw_bytes, skip, at } => {
                    let raw = chunk(repository, *id, at, *raw_bytes as usize).await;
                    bytes.extend_from_slice(&raw[*skip as usize..*skip as usize + piece.bytes as usize]);
                }
            }
        }
        files.insert(record.path, bytes);
    }
    files
}

/// Repository, and the state of the server at each backup.
struct History {
    bench: Bench,
    states: HashMap<BackupId, Files>,
    wanted: CompactOptions,
}

impl History {
    /// A lineage of `backups` backups, of which those in `gone` were let go of, and their packs deleted.
    async fn new(seed: u64, backups: usize, gone: &[usize]) -> History {
        History::on(Bench::new(seed, 0).await, backups, gone).await
    }

    /// The same in a sealed repository.
    async fn sealed(seed: u64, backups: usize, gone: &[usize]) -> History {
        History::on(Bench::sealed(seed, 0).await, backups, gone).await
    }

    async fn on(bench: Bench, backups: usize, gone: &[usize]) -> History {
        let mut history = History { bench, states: HashMap::new(), wanted: wanted() };
        for _ in 0..backups {
            history.backup().await;
        }
        let named = gone.iter().map(|number| history.bench.id(*number)).collect();
        let options = crate::prune::PruneOptions { named, grace_seconds: 0, ..Default::default() };
        history.bench.prune(&options).await;
        history
    }

    async fn backup(&mut self) {
        self.bench.backup().await;
        let state = self.bench.server.as_ref().unwrap().state();
        self.states.insert(self.bench.manifests.last().unwrap().id.clone(), state);
    }

    async fn fork(&self) -> History {
        History { bench: self.bench.fork().await, states: self.states.clone(), wanted: self.wanted.clone() }
    }

    async fn compact_with(&self, options: &CompactOptions, rules: Vec<Rule>) -> Result<CompactReport, PruneError> {
        compact(&self.bench.context(self.bench.open(rules).await?), options).await
    }

    async fn compact(&self) -> CompactReport {
        let report = self.compact_with(&self.wanted, Vec::new()).await.unwrap();
        assert_eq!(report.skipped, []);
        report
    }

    /// Proves that every backup restores to the state that it was taken of, and has all that it needs; gives the packs that none needs.
    async fn whole(&self) -> Vec<PackId> {
        let repository = self.bench.open(Vec::new()).await.unwrap();
        for (id, manifest) in repository.manifests().await.unwrap() {
            assert!(files(&repository, &manifest.unwrap()).await == self.states[&id], "{id} is another state");
        }
        self.bench.unneeded().await
    }

    async fn editions(&self) -> Vec<Vec<u32>> {
        let repository = self.bench.open(Vec::new()).await.unwrap();
        let numbers =
            |backup: crate::repository::StoredBackup| backup.editions.iter().map(|(edition, _)| *edition).collect();
        repository.stored_backups().await.unwrap().into_iter().map(numbers).collect()
    }

    /// The greatest number of chunks that an extent of the newest backup lies in.
    async fn pieces_max(&self) -> usize {
        let repository = self.bench.open(Vec::new()).await.unwrap();
        let newest = repository.manifests().await.unwrap().pop().unwrap().1.unwrap();
        let root = repository.map_root(&newest).await.unwrap();
        let mut most = 0;
        for record in repository.map_spaces(&root).await.unwrap() {
            for extent in extents(&repository, &record).await {
                let chunk =
                    |piece: &&crate::format::map::Piece| matches!(piece.content, crate::format::map::Content::Chunk(_));
                most = most.max(extent.pieces.iter().filter(chunk).count());
            }
        }
        most
    }

    /// Lets grace periods pass and sweeps.
    async fn pruned(&self) -> u64 {
        let mut editions = 0;
        loop {
            let report = self.bench.prune(&keep(100)).await;
            editions += report.swept.iter().map(|swept| swept.editions).sum::<u64>();
            if report.made.is_none() && report.waiting == 0 && report.swept.is_empty() {
                return editions;
            }
            self.bench.pass(2 * DAY);
        }
    }
}

fn wanted() -> CompactOptions {
    CompactOptions { live_share: 70, pieces_max: 3, ..CompactOptions::default() }
}

#[tokio::test]
async fn every_backup_restores_as_before_and_packs_hold_less_that_is_dead() {
    let history = History::new(1, 9, &[0, 2, 3, 5, 6]).await;
    assert!(history.pieces_max().await > 3);
    history.whole().await;
    let report = history.compact().await;
    assert!(report.data_packs > 0 && report.map_packs > 0 && report.moved_chunks > 0, "{report:?}");
    assert!(report.merged_extents > 0 && report.written_packs > 0, "{report:?}");
    let (before, after) = (report.before, report.after.unwrap());
    assert!(after.dead_bytes < before.dead_bytes && after.packs < before.packs, "{before:?} {after:?}");
    assert_eq!((report.backups, report.editions.len()), (4, 4));
    assert_eq!(history.editions().await, vec![vec![0, 1]; 4]);
    assert!(history.pieces_max().await <= 3);
    history.whole().await;
}

/// Proves that all packs and manifests are sealed, and no two packs with one salt.
async fn all_is_sealed(bench: &Bench) {
    let mut salts = HashSet::new();
    for (key, bytes) in bench.objects().await {
        match ObjectKey::parse(&key) {
            Some(ObjectKey::Pack(_)) => {
                let salt = pack::parse_header(&bytes[..pack::HEADER_BYTES]).unwrap().salt;
                assert!(salts.insert(salt.expect(&key)), "the salt of {key} was used before");
            }
            Some(ObjectKey::Manifest(_) | ObjectKey::Edition(..)) => {
                assert!(String::from_utf8_lossy(&bytes).contains("\"body\":{\"sealed\":\""), "{key}");
            }
            _ => {}
        }
    }
}

#[tokio::test]
async fn what_is_compacted_in_a_sealed_repository_is_sealed_anew_and_restores_as_before() {
    let mut history = History::sealed(1, 9, &[0, 2, 3, 5, 6]).await;
    let chunks = history.pieces_max().await;
    let report = history.compact().await;
    assert!(report.data_packs > 0 && report.map_packs > 0 && report.moved_chunks > 0, "{report:?}");
    assert!(report.merged_extents > 0 && chunks > 3 && history.pieces_max().await <= 3, "{report:?}");
    assert!(report.after.unwrap().dead_bytes < report.before.dead_bytes, "{report:?}");
    assert_eq!(history.editions().await, vec![vec![0, 1]; 4]);
    all_is_sealed(&history.bench).await;
    history.whole().await;
    assert_eq!(history.compact().await.written_packs, 0);
    // The next backup builds on it, and what was superseded goes.
    history.backup().await;
    history.compact().await;
    history.pruned().await;
    all_is_sealed(&history.bench).await;
    assert_eq!(history.whole().await, []);
}

#[tokio::test]
async fn a_chunk_of_a_sealed_repository_that_was_changed_is_left_as_it_is() {
    let history = History::sealed(10, 5, &[1, 2]).await;
    let repository = history.bench.open(Vec::new()).await.unwrap();
    let mut left = 0;
    for pack in repository.packs().await.unwrap().into_keys() {
        let key = ObjectKey::Pack(pack).text();
        let history = history.fork().await;
        let mut bytes = history.bench.objects().await[&key].to_vec();
        if bytes[9] != PackKind::Data.to_byte() {
            continue;
        }
        // In the ciphertext of the first chunk.
        bytes[pack::HEADER_BYTES + 40] ^= 1;
        history.bench.tamper(&key, bytes.clone()).await;
        let report = history.compact_with(&wanted(), Vec::new()).await.unwrap();
        left += usize::from(!report.skipped.is_empty());
        assert_eq!(history.bench.objects().await[&key], bytes);
    }
    assert!(left > 0);
}

#[tokio::test]
async fn a_key_for_maps_alone_compacts_nothing() {
    let mut history = History::sealed(2, 4, &[1]).await;
    let credential = Credential::File(key_of_file(&[7; 32]).unwrap());
    let slot = NewSlot { credential, wraps: Wraps::Map, label: String::new() };
    let repository = history.bench.open(Vec::new()).await.unwrap();
    repository.add_slot(&slot, &*history.bench.clock).await.unwrap();
    history.bench.access = Some(access(&[7; 32]));
    let before = history.bench.objects().await;
    for dry_run in [false, true] {
        let refused = history.compact_with(&CompactOptions { dry_run, ..wanted() }, Vec::new()).await.unwrap_err();
        assert_eq!(refused.kind(), crate::error::Kind::WrongKey, "{refused}");
    }
    assert_eq!(history.bench.objects().await, before);
}

#[tokio::test]
async fn a_second_compaction_finds_nothing_to_do() {
    let history = History::new(2, 8, &[0, 1, 3, 4]).await;
    history.compact().await;
    let objects = history.bench.objects().await;
    let again = history.compact().await;
    assert_eq!((again.editions.len(), again.written_packs, again.left), (0, 0, 0), "{again:?}");
    let without_leases = |objects: std::collections::BTreeMap<String, bytes::Bytes>| -> Vec<String> {
        objects.into_keys().filter(|key| !key.starts_with("leases/")).collect()
    };
    assert_eq!(without_leases(history.bench.objects().await), without_leases(objects));
}

#[tokio::test]
async fn a_dry_run_plans_the_same_and_writes_nothing() {
    let history = History::new(3, 8, &[0, 1, 3, 4]).await;
    let objects = history.bench.objects().await;
    let dry = history.compact_with(&CompactOptions { dry_run: true, ..wanted() }, Vec::new()).await.unwrap();
    assert_eq!(history.bench.objects().await, objects);
    let report = history.compact().await;
    let plan = |report: &CompactReport| {
        let CompactReport { before, data_packs, map_packs, moved_chunks, merged_extents, .. } = *report;
        (before, data_packs, map_packs, moved_chunks, merged_extents, report.editions.clone())
    };
    assert_eq!(plan(&dry), plan(&report));
    assert_eq!(dry.after, None);
}

#[tokio::test]
async fn what_a_compaction_superseded_is_deleted_after_its_grace_and_all_that_is_left_restores() {
    let mut history = History::new(4, 8, &[0, 1, 3, 4]).await;
    // A merged extent is stored besides its versions in other backups.
    history.wanted.pieces_max = 64;
    let stored = |objects: &std::collections::BTreeMap<String, bytes::Bytes>| -> usize {
        objects.iter().filter(|(key, _)| key.starts_with("packs/")).map(|(_, bytes)| bytes.len()).sum()
    };
    let before = stored(&history.bench.objects().await);
    history.compact().await;
    let report = history.bench.prune(&keep(100)).await;
    let made = report.made.unwrap();
    assert!(made.editions == 4 && made.packs > 0 && made.backups.is_empty(), "{made:?}");
    history.bench.pass(DAY - 600);
    history.bench.prune(&keep(100)).await;
    assert_eq!(history.editions().await, vec![vec![0, 1]; 4], "before its time");
    assert_eq!(history.pruned().await, 4);
    assert_eq!(history.editions().await, vec![vec![1]; 4]);
    assert_eq!(history.whole().await, []);
    assert!(stored(&history.bench.objects().await) < before);
    // With a backup go all of its editions.
    history.wanted.live_share = 100;
    let named = [history.bench.id(5)].into();
    history.bench.prune(&crate::prune::PruneOptions { named, grace_seconds: 0, ..Default::default() }).await;
    assert!(!history.compact().await.editions.is_empty());
    let named = [history.bench.id(6)].into();
    history.bench.prune(&crate::prune::PruneOptions { named, grace_seconds: 0, ..Default::default() }).await;
    assert_eq!(history.editions().await.len(), 2);
    let left: Vec<String> =
        history.bench.objects().await.into_keys().filter(|key| key.starts_with("backups/")).collect();
    assert!(!left.iter().any(|key| key.contains(history.bench.id(6).as_str())), "{left:?}");
    history.pruned().await;
    assert_eq!(history.whole().await, []);
}

#[tokio::test]
async fn a_backup_that_began_before_a_compaction_and_ends_after_it_is_whole() {
    let mut history = History::new(5, 7, &[0, 1, 3]).await;
    history.compact().await;
    // The made-up server goes on from the places that it knows: those of the first editions.
    history.backup().await;
    history.whole().await;
    history.pruned().await;
    assert_eq!(history.whole().await, []);
    history.compact().await;
    history.pruned().await;
    assert_eq!(history.whole().await, []);
}

#[tokio::test]
async fn a_plan_that_was_begun_and_cannot_be_read_puts_compactions_off_for_a_month() {
    let history = History::new(25, 5, &[1]).await;
    let keep = keep(3);
    let plan = history.bench.prune(&keep).await.made.unwrap().plan.unwrap();
    let key = format!("prune/{plan}-plan.json");
    assert!(history.bench.objects().await.contains_key(&key));
    let repository = history.bench.open(Vec::new()).await.unwrap();
    repository.put_prune_step(&PruneStep { plan, done: false, deleted: SweepTally::default() }).await.unwrap();
    history.bench.tamper(&key, b"{".to_vec()).await;
    let report = history.compact_with(&wanted(), Vec::new()).await.unwrap();
    let [skip] = report.skipped.as_slice() else { panic!("{report:?}") };
    assert!(skip.message.contains("cannot be read") && skip.hint.is_some(), "{skip:?}");
    assert_eq!((report.written_packs, report.editions), (0, Vec::new()));
    history.bench.pass(31 * DAY);
    history.bench.prune(&keep).await;
    assert!(!history.compact().await.editions.is_empty());
    history.whole().await;
}

#[tokio::test]
async fn nothing_is_compacted_while_a_backup_is_at_work() {
    let history = History::new(6, 4, &[1]).await;
    let repository = history.bench.open(Vec::new()).await.unwrap();
    let mut lease = repository.lease("backup", &*history.bench.entropy).await.unwrap();
    let report = history.compact().await;
    assert!(report.put_off.is_some() && report.editions.is_empty(), "{report:?}");
    repository.release(&mut lease).await.unwrap();
    assert!(!history.compact().await.editions.is_empty());
    let _lease = repository.lease("prune", &*history.bench.entropy).await.unwrap();
    let locked = history.compact_with(&wanted(), Vec::new()).await.unwrap_err();
    assert_eq!(locked.kind(), crate::error::Kind::Locked);
}

/// Ends a compaction after any number of requests, and has the next start over.
async fn dies_anywhere(fault: &Fault) -> u64 {
    let begin = History::new(7, 4, &[1, 2]).await;
    for requests in 0.. {
        let history = begin.fork().await;
        let died = history.compact_with(&wanted(), vec![Rule::after(requests, fault.clone())]).await;
        // Whatever was committed by then is whole; the bytes are looked at where that is cheap enough.
        history.bench.unneeded().await;
        history.bench.pass(i64::from(LEASE_SECONDS) + 10);
        history.compact().await;
        assert!(history.pieces_max().await <= 3, "after {requests} requests");
        if requests % 6 == 0 || died.is_ok() {
            history.whole().await;
            history.pruned().await;
            assert!(history.editions().await.iter().all(|editions| editions.len() == 1), "after {requests} requests");
        }
        if died.is_ok() {
            assert_eq!(history.bench.unneeded().await, []);
            return requests;
        }
    }
    unreachable!()
}

#[tokio::test]
async fn a_compaction_that_dies_anywhere_is_done_by_the_next() {
    let requests = dies_anywhere(&Fault::Reset).await;
    let unanswered = dies_anywhere(&Fault::LoseAnswer).await;
    println!("killed after each of {requests} and {unanswered} requests");
    assert!(requests > 30 && unanswered > 0);
}

#[tokio::test]
async fn an_edition_that_is_damaged_gives_way_to_the_one_before_it() {
    let history = History::new(8, 6, &[0, 2, 3]).await;
    history.compact().await;
    let newest = history.bench.id(5);
    let key = ObjectKey::edition(&newest, 1).text();
    history.bench.tamper(&key, b"{}".to_vec()).await;
    let repository = history.bench.open(Vec::new()).await.unwrap();
    assert_eq!(repository.manifest(&newest).await.unwrap().edition, 0);
    assert!(files(&repository, &repository.manifest(&newest).await.unwrap()).await == history.states[&newest]);
    // Nobody knows what the damaged one needs, so no pack goes, and the edition that serves stays.
    let packs = history.bench.packs().await;
    for _ in 0..2 {
        let report = history.bench.prune(&keep(100)).await;
        assert!(report.skipped.iter().any(|skip| skip.message.contains(newest.as_str())), "{report:?}");
        history.bench.pass(2 * DAY);
    }
    assert_eq!(history.bench.packs().await, packs);
    assert!(history.editions().await.last().unwrap() == &[0, 1]);
    history.compact().await;
    assert!(history.editions().await.last().unwrap() == &[0, 1, 2]);
    history.pruned().await;
    assert!(history.editions().await.last().unwrap() == &[2]);
    assert_eq!(history.whole().await, []);
}

#[tokio::test]
async fn an_edition_under_another_number_is_refused() {
    let history = History::new(14, 4, &[1]).await;
    history.compact().await;
    let (newest, other) = (history.bench.id(3), history.bench.id(2));
    let objects = history.bench.objects().await;
    let repository = history.bench.open(Vec::new()).await.unwrap();
    // An older edition in a newer one's place, and another backup's.
    for from in [ObjectKey::edition(&newest, 0), ObjectKey::edition(&newest, 1), ObjectKey::edition(&other, 0)] {
        history.bench.tamper(&ObjectKey::edition(&newest, 2).text(), objects[&from.text()].to_vec()).await;
        let error = repository.manifest_edition(&newest, 2).await.unwrap_err();
        assert_eq!(error.kind(), crate::error::Kind::Corrupt, "{error}");
        assert_eq!(repository.manifest(&newest).await.unwrap().edition, 1);
    }
    // Whatever number is there, the next is beyond it.
    history.compact().await;
    assert_eq!(history.editions().await.last().unwrap(), &[0, 1, 2, 3]);
    history.bench.tamper(&ObjectKey::edition(&newest, 999_999).text(), b"{}".to_vec()).await;
    let full = history.compact_with(&wanted(), Vec::new()).await.unwrap_err();
    assert!(matches!(full, PruneError::Editions { .. }), "{full}");
    assert_eq!(repository.manifest(&newest).await.unwrap().edition, 3);
}

#[tokio::test]
async fn an_edition_stays_while_what_superseded_it_cannot_be_read() {
    let history = History::new(9, 5, &[1, 2]).await;
    history.compact().await;
    let newest = history.bench.id(4);
    history.bench.prune(&keep(100)).await;
    history.bench.pass(2 * DAY);
    history.bench.tamper(&ObjectKey::edition(&newest, 1).text(), b"{}".to_vec()).await;
    let report = history.bench.prune(&keep(100)).await;
    assert!(report.skipped.iter().any(|skip| skip.message.contains("stays")), "{report:?}");
    assert_eq!(history.editions().await.last().unwrap(), &[0, 1]);
    history.whole().await;
}

#[tokio::test]
async fn what_is_damaged_is_left_as_it_is_and_told() {
    let history = History::new(10, 6, &[1, 2, 3]).await;
    let repository = history.bench.open(Vec::new()).await.unwrap();
    let dry = history.compact_with(&CompactOptions { dry_run: true, ..wanted() }, Vec::new()).await.unwrap();
    let mut left = 0;
    for pack in repository.packs().await.unwrap().into_keys() {
        let key = ObjectKey::Pack(pack).text();
        let history = history.fork().await;
        let mut bytes = history.bench.objects().await[&key].to_vec();
        // The first chunk, behind its frame's head.
        bytes[pack::HEADER_BYTES + 30] ^= 1;
        history.bench.tamper(&key, bytes).await;
        let report = history.compact_with(&wanted(), Vec::new()).await.unwrap();
        left += usize::from(!report.skipped.is_empty());
        assert!(report.moved_chunks <= dry.moved_chunks && report.merged_extents <= dry.merged_extents);
        let untouched: Vec<BackupId> = history.states.keys().cloned().collect();
        assert!(!untouched.is_empty());
        history.pruned().await;
        // The bytes that were damaged still are, where anybody needs them; all others are still there.
        let whole = history.bench.open(Vec::new()).await.unwrap();
        for (_, manifest) in whole.manifests().await.unwrap() {
            if let Ok(root) = whole.map_root(&manifest.unwrap()).await {
                drop(whole.map_spaces(&root).await);
            }
        }
    }
    assert!(left > 0);
    // A pack that is missing: nothing is done.
    let missing = repository.packs().await.unwrap().into_keys().next().unwrap();
    history.bench.objects().await;
    object_store::ObjectStoreExt::delete(&*history.bench.objects, &ObjectKey::Pack(missing).text().into())
        .await
        .unwrap();
    let report = history.compact_with(&wanted(), Vec::new()).await.unwrap();
    assert_eq!((report.skipped.len(), report.editions.len()), (1, 0), "{report:?}");
}

#[tokio::test]
async fn what_does_not_fit_into_memory_takes_more_turns_and_gives_the_same() {
    let history = History::new(11, 7, &[0, 1, 3, 4]).await;
    let run = |limits: Limits, dry_run: bool| {
        let history = &history;
        async move {
            let context = history.bench.context(history.bench.open(Vec::new()).await.unwrap());
            compact_within(&context, &CompactOptions { dry_run, ..wanted() }, &limits).await.unwrap()
        }
    };
    let usual = run(Limits::default(), true).await;
    for needs in [8, 40, 200] {
        assert_eq!(run(Limits { needs, ..Limits::default() }, true).await, usual, "{needs} at a time");
    }
    // In small steps, each of which leaves the rest to the next.
    let small = Limits { needs: 30, moves: 10, merges: 2, window_bytes: 1 };
    let mut runs = 0;
    loop {
        let report = run(small, false).await;
        assert_eq!(report.skipped, []);
        runs += 1;
        if report.editions.is_empty() {
            break;
        }
        assert!(runs < 100, "{report:?}");
    }
    assert!(runs > 3 && history.pieces_max().await <= 3, "{runs}");
    history.whole().await;
    history.pruned().await;
    assert_eq!(history.whole().await, []);
}

#[tokio::test]
async fn a_compaction_that_was_overtaken_writes_no_edition() {
    for what in ["compaction", "prune"] {
        let history = History::new(12, 5, &[1, 2]).await;
        let context = history.bench.context(history.bench.open(Vec::new()).await.unwrap());
        let repository = &context.repository;
        let lease = Mutex::new(repository.lease("prune", &*history.bench.entropy).await.unwrap());
        let (options, limits) = (wanted(), Limits::default());
        let run = Run { context: &context, options: &options, limits: &limits, lease: Some(&lease) };
        let backups = run.backups(&mut CompactReport::default()).await.unwrap().unwrap();
        assert_eq!(run.is_overtaken(&lease, &backups, &HashSet::new()).await.unwrap(), None);
        // The machine sleeps, and another one is at work.
        history.bench.pass(i64::from(LEASE_SECONDS) + 10);
        match what {
            "compaction" => drop(history.compact().await),
            _ => drop(history.bench.prune(&crate::prune::PruneOptions { grace_seconds: 0, ..keep(1) }).await),
        }
        assert!(run.is_overtaken(&lease, &backups, &HashSet::new()).await.unwrap().is_some(), "{what}");
        history.whole().await;
    }
}

#[tokio::test]
async fn a_backup_that_is_to_go_is_left_as_it_is() {
    let history = History::new(13, 6, &[1, 2]).await;
    history.bench.prune(&keep(2)).await;
    let report = history.compact().await;
    assert_eq!(report.backups, 2);
    assert_eq!(history.editions().await, [vec![0], vec![0], vec![0, 1], vec![0, 1]]);
    history.whole().await;
    let chosen = CompactOptions { backup: Some("20200101T000000Z-aaaaaa".parse().unwrap()), ..wanted() };
    let unknown = history.compact_with(&chosen, Vec::new()).await.unwrap_err();
    assert!(matches!(unknown, PruneError::Repository(RepositoryError::NoBackup { .. })), "{unknown}");
}

#[tokio::test]
async fn a_new_pack_takes_the_name_of_none_that_a_check_found_damaged() {
    let history = History::new(15, 6, &[1, 2, 3]).await;
    let before = history.bench.packs().await;
    let first = history.fork().await;
    first.compact().await;
    let damaged: BTreeSet<PackId> = first.bench.packs().await.difference(&before).copied().collect();
    let repository = history.bench.open(Vec::new()).await.unwrap();
    let findings = crate::repository::Findings { damaged: damaged.clone(), ..Default::default() };
    repository.record_damage(&findings, &*history.bench.clock, &*history.bench.entropy).await.unwrap();
    history.compact().await;
    let written: BTreeSet<PackId> = history.bench.packs().await.difference(&before).copied().collect();
    assert!(written.len() == damaged.len() && written.is_disjoint(&damaged), "{written:?}");
    history.whole().await;
}

/// A machine whose clock is ten minutes behind compacts just after a backup, with packs that a compaction left which died days ago.
#[tokio::test]
async fn an_edition_says_no_more_of_its_locks_than_what_was_stored_for_it() {
    let history = History::new(16, 2, &[]).await;
    let clock = history.bench.clock.clone();
    let policy = LockPolicy { mode: LockMode::Compliance, days: 3.try_into().unwrap() };
    let bucket = Bucket::locking(clock.clone(), bucket::Limits::default());
    let way = FaultyStore::over_bucket(&bucket, Script::default());
    let store = way.store("memory:///", StoreOptions { clock: clock.clone(), ..StoreOptions::default() });
    let repository = Repository::init_locked(store, policy, &*clock, &*history.bench.entropy).await.unwrap();
    let left = |number: u8| (PackId([number; 32]), bytes::Bytes::from(vec![number; 100]));
    let locked_until = |pack: PackId| bucket.first_locked_until(&ObjectKey::Pack(pack).text()).unwrap();
    let (old, fresh) = (left(1), left(2));
    repository.put_pack(old.0, old.1.clone()).await.unwrap();
    history.bench.pass(2 * DAY);
    repository.put_pack(fresh.0, fresh.1.clone()).await.unwrap();
    history.bench.pass(3600);
    let began = clock.now();
    let claimed = policy.retention(began.after(600)).until;
    let manifest = |number: usize| Manifest { locked_until: Some(claimed), ..history.bench.manifests[number].clone() };
    let backups: Vec<Editions> = [manifest(0), manifest(1)]
        .into_iter()
        .map(|manifest| Editions { id: manifest.id.clone(), all: vec![(0, Ok(manifest))] })
        .collect();
    let context = history.bench.context(repository.into());
    let (options, limits) = (wanted(), Limits::default());
    let run = Run { context: &context, options: &options, limits: &limits, lease: None };
    for (found, expected) in [
        (vec![], policy.retention(began).until),
        (vec![fresh.0], locked_until(fresh.0)),
        (vec![old.0, fresh.0], locked_until(fresh.0)),
    ] {
        // The one has another map, the other one only a damaged edition.
        let mut editions = [Manifest { map: manifest(1).map, ..manifest(0) }, Manifest { edition: 1, ..manifest(1) }];
        run.secure(began, found.clone(), &backups, &mut editions).await.unwrap();
        let told: Vec<_> = editions.iter().map(|edition| edition.locked_until).collect();
        assert_eq!(told, [Some(expected), Some(claimed)], "{found:?}");
    }
    assert!(locked_until(old.0) >= policy.retention(began).until, "it is not locked for the period");
}
