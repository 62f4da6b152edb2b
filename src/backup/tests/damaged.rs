//! Backups of a repository in which a check found damage.

use std::collections::BTreeSet;

use object_store::ObjectStoreExt;

use super::*;
use crate::backup::made_up::Streamed;
use crate::mariadb::identity::DatadirWalk;
use crate::model::PackId;
use crate::model::{Lsn, PageNo, PageSize, SpaceId};
use crate::repository::{Findings, ObjectKey};

/// A repository in memory, a server, and what was backed up.
struct History {
    objects: Arc<InMemory>,
    repository: Arc<Repository>,
    source: Arc<MadeUp>,
    context: Context,
    _stop: watch::Sender<bool>,
    taken: Vec<(Manifest, BTreeMap<String, Vec<u8>>)>,
}

impl History {
    async fn new(seed: u64, rules: Vec<Rule>) -> History {
        let objects = Arc::new(InMemory::new());
        let faulty = FaultyStore::new(objects.clone(), Script { rules, ..Script::default() });
        let store = Store::over("memory:///", Arc::new(faulty), StoreOptions::default());
        let repository = Repository::init(store, &SystemClock, &SystemEntropy).await.unwrap();
        History::of(seed, objects, repository)
    }

    /// The same in a sealed repository.
    async fn sealed(seed: u64) -> History {
        let objects = Arc::new(InMemory::new());
        let repository = sealed_in(&objects).await;
        History::of(seed, objects, repository)
    }

    fn of(seed: u64, objects: Arc<InMemory>, repository: Repository) -> History {
        let repository = Arc::new(repository);
        let source = Arc::new(MadeUp(Mutex::new(World::new(seed))));
        let (context, stop) = context(&repository);
        History { objects, repository, source, context, _stop: stop, taken: Vec::new() }
    }

    async fn backup(&mut self, want: Want) -> &Manifest {
        let outcome = backup(&self.context, self.source.clone(), &options(want, u32::MAX)).await;
        let outcome = outcome.unwrap_or_else(|error| panic!("{}", chain(&error)));
        self.taken.push((outcome.manifest, self.source.0.lock().unwrap().streamed.clone()));
        &self.taken.last().unwrap().0
    }

    fn live(&self) {
        self.source.0.lock().unwrap().live();
    }

    async fn packs(&self) -> BTreeSet<PackId> {
        self.repository.packs().await.unwrap().into_keys().collect()
    }

    async fn bytes(&self, pack: PackId) -> Vec<u8> {
        self.repository.read_pack(pack).await.unwrap().to_vec()
    }

    /// Flips a bit of a pack's first chunk.
    async fn rot(&self, pack: PackId) {
        let mut bytes = self.bytes(pack).await;
        bytes[60] ^= 1;
        let key = ObjectKey::Pack(pack).text();
        self.objects.put(&key.as_str().into(), bytes.into()).await.unwrap();
    }

    async fn is_whole(&self, pack: PackId) -> bool {
        pack::parse_pack(pack, &self.bytes(pack).await, self.repository.keyring()).is_ok()
    }

    async fn record(&self, damaged: BTreeSet<PackId>) {
        let findings = Findings { damaged, complete: true, ..Findings::default() };
        self.repository.record_damage(&findings, &SystemClock, &SystemEntropy).await.unwrap();
    }

    /// Packs that the backup's page map speaks of, those of the map itself too.
    async fn needs(&self, manifest: &Manifest) -> BTreeSet<PackId> {
        let mut needs = BTreeSet::from([manifest.map.pack]);
        let root = self.repository.map_root(manifest).await.unwrap();
        needs.extend(root.spaces.iter().map(|(_, block)| block.at.pack.id));
        needs.extend(root.files.iter().map(|(_, block)| block.at.pack.id));
        for record in self.repository.map_spaces(&root).await.unwrap() {
            let mut extents = Vec::new();
            match record.map {
                SpaceMap::Inline(inline) => extents = inline,
                SpaceMap::Blocks(blocks) => {
                    for block in blocks {
                        needs.insert(block.block.at.pack.id);
                        extents.extend(self.repository.map_extents(record.key, &block).await.unwrap());
                    }
                }
            }
            needs.extend(extents.iter().flat_map(|extent| &extent.pieces).filter_map(|piece| match &piece.content {
                Content::Chunk(chunk) => Some(chunk.at.pack.id),
                Content::Zero => None,
            }));
        }
        for record in self.repository.map_files(&root).await.unwrap() {
            let FileMap::Inline(pieces) = record.map else { panic!("small files") };
            needs.extend(pieces.iter().filter_map(|piece| match &piece.source {
                FileSource::Chunk { at, .. } => Some(at.pack.id),
                FileSource::Zero => None,
            }));
        }
        needs
    }

    async fn assert_restores(&self, number: usize) {
        let (manifest, expected) = &self.taken[number];
        let mut reader = Reader { repository: &self.repository, chunks: HashMap::new() };
        assert_same(manifest.id.as_str(), &reader.files(manifest).await, expected);
    }
}

/// Each pack in turn is cut short, and nobody has checked: the next backup is a full when it meets that, and a full after it is whole
/// in any case.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pack_that_is_cut_short_does_not_keep_the_next_backup_from_being_taken() {
    let mut fulls = 0;
    for number in 0.. {
        let mut history = History::new(7, Vec::new()).await;
        history.backup(Want::Full).await;
        history.live();
        history.backup(Want::Incremental).await;
        history.live();
        let mut packs = Vec::new();
        for pack in history.packs().await {
            packs.push((history.bytes(pack).await.len(), pack));
        }
        packs.sort_unstable();
        let Some((_, pack)) = packs.get(number).copied() else { break };
        let cut = history.bytes(pack).await[..26].to_vec();
        history.objects.put(&ObjectKey::Pack(pack).text().as_str().into(), cut.into()).await.unwrap();
        fulls += usize::from(history.backup(Want::Either).await.kind == BackupKind::Full);
        history.assert_restores(2).await;
    }
    assert!(fulls > 1, "{fulls}");
}

/// Whoever may write can put anything under the name of a manifest.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manifest_that_is_too_long_is_one_that_cannot_be_read() {
    let mut history = History::new(8, Vec::new()).await;
    let id = history.backup(Want::Full).await.id.clone();
    let long = vec![b' '; crate::format::DOCUMENT_BYTES_MAX as usize + 1];
    history.objects.put(&ObjectKey::Manifest(id.clone()).text().as_str().into(), long.into()).await.unwrap();
    let next = history.backup(Want::Either).await;
    assert_eq!(next.kind, BackupKind::Full);
    assert!(next.reason.contains(id.as_str()), "{}", next.reason);
    history.assert_restores(1).await;
    let read = history.repository.manifests().await.unwrap();
    assert_eq!(read.iter().map(|(_, manifest)| manifest.is_ok()).collect::<Vec<_>>(), [false, true]);
}

/// Each pack in turn, of data and of maps: whatever a check found damaged, the next backup is a full that says so, and has nothing in it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_new_rests_on_a_pack_that_a_check_found_damaged() {
    let mut fulls = 0;
    for number in 0.. {
        let mut history = History::new(5, Vec::new()).await;
        history.backup(Want::Full).await;
        history.live();
        history.backup(Want::Incremental).await;
        history.live();
        // By size, since names depend on inodes: each pack has its turn.
        let mut packs = Vec::new();
        for pack in history.packs().await {
            packs.push((history.bytes(pack).await.len(), pack));
        }
        packs.sort_unstable();
        let Some((_, pack)) = packs.get(number).copied() else { break };
        let needed = history.needs(&history.taken[1].0).await.contains(&pack);
        history.rot(pack).await;
        history.record(BTreeSet::from([pack])).await;
        let next = history.backup(Want::Either).await.clone();
        assert_eq!(next.kind == BackupKind::Full, needed, "{}", next.reason);
        if needed {
            let named = next.reason.contains(&pack.to_string()) && next.reason.contains("damaged");
            let unread = next.reason.contains("cannot be read");
            assert!(named || unread, "{}", next.reason);
            fulls += 1;
        }
        assert!(!history.needs(&next).await.contains(&pack));
        history.assert_restores(2).await;
        history.live();
        let after = history.backup(Want::Either).await.clone();
        assert_eq!((after.kind, after.parent), (BackupKind::Incremental, Some(next.id)), "{}", after.reason);
        history.assert_restores(3).await;
    }
    assert!(fulls >= 3, "{fulls}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_damaged_in_a_sealed_repository_is_stored_anew() {
    let mut history = History::sealed(8).await;
    let first = history.backup(Want::Full).await.clone();
    let damaged = history.needs(&first).await;
    for pack in &damaged {
        history.rot(*pack).await;
        assert!(!history.is_whole(*pack).await);
    }
    history.record(damaged.clone()).await;
    let known = history.repository.known_damage().await.unwrap();
    assert_eq!((&known.packs, known.unread.len()), (&damaged, 0));
    let list = ObjectKey::Damage(known.newest.unwrap()).text();
    let list = history.objects.get(&list.as_str().into()).await.unwrap().bytes().await.unwrap();
    let pack = damaged.first().unwrap().to_string();
    assert!(!list.windows(pack.len()).any(|text| text == pack.as_bytes()), "the list shows names");
    let next = history.backup(Want::Either).await.clone();
    assert_eq!(next.kind, BackupKind::Full, "{}", next.reason);
    assert!(history.needs(&next).await.is_disjoint(&damaged));
    history.assert_restores(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_incremental_that_is_asked_for_is_refused_when_its_parent_is_damaged() {
    let mut history = History::new(6, Vec::new()).await;
    let parent = history.backup(Want::Full).await.clone();
    let damaged: BTreeSet<PackId> = history.needs(&parent).await;
    history.record(damaged).await;
    let refused = backup(&history.context, history.source.clone(), &options(Want::Incremental, u32::MAX)).await;
    assert!(matches!(refused, Err(BackupError::NeedsFull(Obstacle::ParentDamaged { .. }))));
    let next = preview(&history.context, history.source.clone(), Want::Either).await.unwrap();
    assert_eq!(next.kind, BackupKind::Full);
    assert!(next.reason.contains("which a check found damaged"), "{}", next.reason);
}

/// A server that stands still: each capture brings the stream of the first.
struct Frozen {
    server: Arc<MadeUp>,
    stream: Mutex<Option<Vec<u8>>>,
}

impl Source for Frozen {
    fn survey(&self, progress: &dyn Progress) -> Result<Survey, SourceError> {
        self.server.survey(progress)
    }
    fn look_again(&self, before: &Survey) -> Result<DatadirWalk, SourceError> {
        self.server.look_again(before)
    }
    fn space_on_disk(&self, survey: &Survey, name: &str) -> Option<SpaceId> {
        self.server.space_on_disk(survey, name)
    }
    fn has(&self, survey: &Survey, name: &str) -> bool {
        self.server.has(survey, name)
    }
    fn is_link(&self, survey: &Survey, name: &str) -> bool {
        self.server.is_link(survey, name)
    }
    fn checkpoint(&self) -> bool {
        self.server.checkpoint()
    }
    fn page_lsn_on_disk(&self, survey: &Survey, name: &str, page: PageNo, size: PageSize) -> Option<Lsn> {
        self.server.page_lsn_on_disk(survey, name, page, size)
    }
    fn start(&self, survey: &Survey, from: Option<Lsn>, _: Arc<dyn Progress>) -> Result<Box<dyn Capture>, SourceError> {
        let mut stream = self.stream.lock().unwrap();
        let stream = stream.get_or_insert_with(|| self.server.0.lock().unwrap().stream(from)).clone();
        Ok(Box::new(Streamed { stream: Some(stream), blocked: self.look_again(survey)? }))
    }
}

/// What stands still makes up the very packs that were damaged: the same chunks in the same order.
///
/// What is damaged: all data packs when a check has told so, else all packs, and in a way that a listing shows. Gives the history, the
/// two backups, and the damaged packs.
async fn the_same_again(listed: bool, may_replace: bool) -> (History, [Manifest; 2], BTreeSet<PackId>) {
    let mut history = History::new(7, Vec::new()).await;
    let frozen = Arc::new(Frozen { server: history.source.clone(), stream: Mutex::new(None) });
    let first = backup(&history.context, frozen.clone(), &options(Want::Full, u32::MAX)).await.unwrap().manifest;
    let mut damaged = history.needs(&first).await;
    if listed {
        damaged.remove(&first.map.pack);
    }
    for pack in &damaged {
        history.rot(*pack).await;
        if !listed {
            let longer = [history.bytes(*pack).await, vec![0]].concat();
            history.objects.put(&ObjectKey::Pack(*pack).text().as_str().into(), longer.into()).await.unwrap();
        }
    }
    if listed {
        history.record(damaged.clone()).await;
    }
    let denied = damaged.iter().map(|pack| Rule::always(Operation::Put, StoreFault::Denied).on_keys(&pack.to_string()));
    let rules = if may_replace { Vec::new() } else { denied.collect() };
    let faulty = FaultyStore::new(history.objects.clone(), Script { rules, ..Script::default() });
    let store = Store::over("memory:///", Arc::new(faulty), StoreOptions::default());
    history.repository = Arc::new(Repository::open(store).await.unwrap());
    history.context.repository = history.repository.clone();
    let second = backup(&history.context, frozen, &options(Want::Full, u32::MAX)).await;
    let second = second.unwrap_or_else(|error| panic!("{}", chain(&error))).manifest;
    for manifest in [&first, &second] {
        history.taken.push((manifest.clone(), history.source.0.lock().unwrap().streamed.clone()));
    }
    (history, [first, second], damaged)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_makes_up_the_damaged_packs_again_mends_them_and_rests_on_others() {
    let (history, [_, second], damaged) = the_same_again(true, true).await;
    assert!(history.needs(&second).await.is_disjoint(&damaged));
    for pack in damaged {
        assert!(history.is_whole(pack).await, "{pack}");
    }
    history.assert_restores(0).await;
    history.assert_restores(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_makes_up_damaged_packs_again_needs_no_leave_to_replace_them() {
    let (history, [_, second], damaged) = the_same_again(true, false).await;
    assert!(history.needs(&second).await.is_disjoint(&damaged));
    for pack in damaged {
        assert!(!history.is_whole(pack).await, "{pack}");
    }
    history.assert_restores(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_makes_up_packs_again_of_whose_damage_nobody_knows_mends_them() {
    let (history, [_, second], damaged) = the_same_again(false, true).await;
    assert_eq!(history.needs(&second).await, damaged);
    history.assert_restores(0).await;
    history.assert_restores(1).await;
}

/// Gives the bytes of packs again.
async fn stored_again(history: &History, bytes: &[(PackId, Vec<u8>)]) -> Vec<Result<(), RepositoryError>> {
    let mut outcomes = Vec::new();
    for (pack, bytes) in bytes {
        outcomes.push(history.repository.put_pack(*pack, bytes.clone().into()).await.map(drop));
    }
    outcomes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pack_that_is_stored_again_takes_the_place_of_damaged_bytes() {
    let mut history = History::new(7, Vec::new()).await;
    history.backup(Want::Full).await;
    for change in 0..3 {
        let mut right = Vec::new();
        for pack in history.needs(&history.taken[0].0).await {
            let bytes = history.bytes(pack).await;
            let mut wrong = bytes.clone();
            match change {
                0 => wrong[50] ^= 1,
                1 => wrong.truncate(90),
                _ => wrong.push(0),
            }
            history.objects.put(&ObjectKey::Pack(pack).text().as_str().into(), wrong.into()).await.unwrap();
            right.push((pack, bytes));
        }
        for outcome in stored_again(&history, &right).await {
            outcome.unwrap();
        }
        history.assert_restores(0).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_pack_that_may_not_be_replaced_is_told_as_such() {
    let mut history = History::new(7, Vec::new()).await;
    let pack = history.backup(Want::Full).await.map.pack;
    let bytes = history.bytes(pack).await;
    history.rot(pack).await;
    // The first put is told that the object is there; the one that would replace it is refused.
    let rules = vec![Rule { skip: 1, ..Rule::always(Operation::Put, StoreFault::Denied) }];
    let faulty = FaultyStore::new(history.objects.clone(), Script { rules, ..Script::default() });
    let repository = Repository::open(Store::over("memory:///", Arc::new(faulty), StoreOptions::default())).await;
    let error = repository.unwrap().put_pack(pack, bytes.into()).await.unwrap_err();
    assert!(matches!(error, RepositoryError::NotMended { .. }), "{error}");
    assert!(!history.is_whole(pack).await);
}
