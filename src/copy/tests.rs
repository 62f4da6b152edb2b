//! Copies of made-up repositories, on a clock that the tests set.

mod late;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};

use super::synthetic::{KEY_FILE, Synthetic};
use super::*;
use crate::error::{Diagnose, Kind};
use crate::format::{
    Credential, KeySlot, LetGo, Manifest, NewSlot, PrunePlan, PruneStep, SecretKey, SweepTally, Wraps, key_of_file,
};
use crate::model::{Clock, Silent, SystemClock, SystemEntropy, Timestamp};
use crate::repository::{Access, Findings, KeySource, LEASE_SECONDS, ObjectKey};
use crate::store::faulty::{Fault, FaultyStore, Operation, Rule, Script};
use crate::store::timed::TimedStore;
use crate::store::{Counts, RetryPolicy, StoreOptions};

/// A clock that goes on by a second with each look.
struct Hand(AtomicI64);

impl Clock for Hand {
    fn now(&self) -> Timestamp {
        Timestamp(jiff::Timestamp::from_second(self.0.fetch_add(1, Ordering::SeqCst)).unwrap())
    }
}

/// Chance that is the same in each run.
struct Counting(AtomicU64);

impl Entropy for Counting {
    fn fill(&self, bytes: &mut [u8]) {
        let number = self.0.fetch_add(1, Ordering::SeqCst).to_le_bytes();
        bytes.iter_mut().zip(number.iter().cycle()).for_each(|(byte, digit)| *byte = *digit);
    }
}

struct KeyFile(SecretKey);

#[async_trait::async_trait]
impl KeySource for KeyFile {
    async fn key(&self, slot: &KeySlot) -> Result<Option<SecretKey>, String> {
        Ok(slot.open(&self.0).is_ok().then(|| self.0.clone()))
    }
}

/// What the run is opened with.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Key {
    /// Nothing: of a plain repository all that is needed, of a sealed one nothing.
    None,
    File(&'static [u8]),
}

const MAP_KEY: &[u8] = b"another key file, of the sort map alone";

/// A place for a repository.
#[derive(Clone)]
pub(super) struct Place {
    name: &'static str,
    objects: Arc<InMemory>,
    timed: TimedStore,
}

impl Place {
    fn new(name: &'static str, clock: Arc<Hand>) -> Place {
        let objects = Arc::new(InMemory::new());
        Place { name, timed: TimedStore::new(objects.clone(), clock), objects }
    }

    fn store(&self, rules: Vec<Rule>) -> Store {
        let faulty = FaultyStore::new(Arc::new(self.timed.clone()), Script { rules, ..Script::default() });
        let retry = RetryPolicy { attempts_max: 1, ..RetryPolicy::default() };
        Store::over(self.name, Arc::new(faulty), StoreOptions { retry, ..StoreOptions::default() })
    }

    pub(super) async fn open(&self, key: Key, rules: Vec<Rule>) -> Result<Arc<Repository>, RepositoryError> {
        let store = self.store(rules);
        let opened = match key {
            Key::None => Repository::open_as_stored(store).await?,
            Key::File(bytes) => {
                let keys = Arc::new(KeyFile(key_of_file(bytes).unwrap()));
                Repository::unlock(store, &Access { keys, entropy: Arc::new(SystemEntropy) }).await?
            }
        };
        Ok(Arc::new(opened))
    }

    /// Every key and its bytes, but for leases.
    async fn objects(&self) -> BTreeMap<String, bytes::Bytes> {
        let metas: Vec<_> = self.objects.list(None).try_collect().await.unwrap();
        let mut objects = BTreeMap::new();
        for meta in metas.into_iter().filter(|meta| !meta.location.as_ref().starts_with("leases")) {
            let bytes = self.objects.get(&meta.location).await.unwrap().bytes().await.unwrap();
            objects.insert(meta.location.to_string(), bytes);
        }
        objects
    }

    pub(super) async fn tamper(&self, key: &ObjectKey, change: impl FnOnce(&mut Vec<u8>)) {
        let path = key.text().into();
        let mut bytes = self.objects.get(&path).await.unwrap().bytes().await.unwrap().to_vec();
        change(&mut bytes);
        self.timed.put(&path, bytes.into()).await.unwrap();
    }
}

/// A server whose repository is copied.
pub(super) struct Bench {
    server: Synthetic,
    pub(super) manifests: Vec<Manifest>,
    pub(super) key: Key,
    pub(super) source: Place,
    pub(super) copy: Place,
    clock: Arc<Hand>,
    entropy: Arc<Counting>,
    stop: watch::Sender<bool>,
}

impl Bench {
    pub(super) async fn new(seed: u64, backups: usize) -> Bench {
        Bench::with(seed, backups, Key::None).await
    }

    pub(super) async fn sealed(seed: u64, backups: usize) -> Bench {
        Bench::with(seed, backups, Key::File(KEY_FILE)).await
    }

    async fn with(seed: u64, backups: usize, key: Key) -> Bench {
        let clock = Arc::new(Hand(AtomicI64::new(1_795_000_000)));
        let source = Place::new("memory:///source", clock.clone());
        let copy = Place::new("memory:///copy", clock.clone());
        let below: Arc<dyn ObjectStore> = Arc::new(source.timed.clone());
        let mut server = match key {
            Key::None => Synthetic::on(seed, source.objects.clone(), below).await,
            Key::File(_) => Synthetic::sealed_on(seed, source.objects.clone(), below).await,
        };
        server.populate();
        let (entropy, stop) = (Arc::new(Counting(AtomicU64::new(1))), watch::Sender::new(false));
        let mut bench = Bench { server, manifests: Vec::new(), key, source, copy, clock, entropy, stop };
        for _ in 0..backups {
            bench.backup().await;
        }
        bench
    }

    async fn backup(&mut self) {
        self.server.live(40);
        self.manifests.push(self.server.backup().await);
    }

    fn id(&self, number: usize) -> BackupId {
        self.manifests[number].id.clone()
    }

    fn ids(&self, numbers: impl IntoIterator<Item = usize>) -> Vec<BackupId> {
        numbers.into_iter().map(|number| self.id(number)).collect()
    }

    fn pass(&self, seconds: i64) {
        self.clock.0.fetch_add(seconds, Ordering::SeqCst);
    }

    /// Until no run that died holds a lease.
    pub(super) fn pass_lease(&self) {
        self.pass(i64::from(LEASE_SECONDS) + 10);
    }

    /// An empty place beside the present one of the copy.
    fn elsewhere(&mut self) {
        self.copy = Place::new("memory:///copy", self.clock.clone());
    }

    async fn context(&self, key: Key, source: Vec<Rule>, copy: Vec<Rule>) -> Result<Context, RepositoryError> {
        let source = self.source.open(key, source).await?;
        let (entropy, target) = (self.entropy.clone(), self.copy.store(copy));
        Ok(Context { source, target, entropy, progress: Arc::new(Silent), cancel: self.stop.subscribe() })
    }

    pub(super) async fn run_with(
        &self,
        (key, options): (Key, &CopyOptions),
        source: Vec<Rule>,
        copy: Vec<Rule>,
    ) -> Result<(CopyReport, Counts), CopyError> {
        let context = self.context(key, source, copy).await?;
        let report = super::copy(&context, options).await?;
        Ok((report, context.target.counters().counts()))
    }

    pub(super) async fn run(&self, options: &CopyOptions) -> CopyReport {
        self.run_with((self.key, options), Vec::new(), Vec::new()).await.unwrap().0
    }

    /// Backups that are in the copy.
    async fn there(&self) -> Vec<BackupId> {
        match self.copy.open(self.key, Vec::new()).await {
            Ok(copy) => copy.backup_ids().await.unwrap(),
            Err(error) if error.kind() == Kind::NoRepository => Vec::new(),
            // Slots come before what they open.
            Err(error) => panic!("{error}"),
        }
    }

    /// Proves that every backup of the copy has all that it needs, byte for byte, and gives the packs that none needs.
    async fn unneeded(&self) -> Vec<PackId> {
        let Ok(copy) = self.copy.open(self.key, Vec::new()).await else { return Vec::new() };
        let mut references = References::default();
        for (id, manifest) in copy.manifests().await.unwrap() {
            references.add(&copy, &manifest.unwrap()).await.unwrap_or_else(|error| panic!("{id}: {error}"));
        }
        let packs = copy.packs().await.unwrap();
        assert_eq!(references.missing(|pack| packs.contains_key(pack)), []);
        let mut unneeded = Vec::new();
        for pack in packs.into_keys() {
            if references.need(&pack) {
                copy.read_proven_pack(pack).await.unwrap();
            } else {
                unneeded.push(pack);
            }
        }
        unneeded
    }

    /// Packs that only these backups need, and packs that others need, too.
    async fn packs_of(&self, numbers: &[usize]) -> (BTreeSet<PackId>, BTreeSet<PackId>) {
        let source = self.source.open(self.key, Vec::new()).await.unwrap();
        let (mut own, mut others) = (References::default(), References::default());
        for (number, manifest) in self.manifests.iter().enumerate() {
            let into = if numbers.contains(&number) { &mut own } else { &mut others };
            into.add(&source, manifest).await.unwrap();
        }
        let shared = |pack: &PackId| others.need(pack);
        own.into_packs().into_iter().partition(|pack| !shared(pack))
    }

    async fn bytes_of(&self, place: &Place) -> u64 {
        let objects = place.objects().await.into_iter().filter(|(key, _)| key.starts_with("packs/"));
        objects.map(|(_, bytes)| bytes.len() as u64).sum()
    }
}

fn plan_of(second: &str, backups: Vec<BackupId>) -> PrunePlan {
    PrunePlan {
        id: format!("{second}-aaaaaa").parse().unwrap(),
        created: Timestamp(jiff::Timestamp::from_second(1_795_000_000).unwrap()),
        grace_seconds: 0,
        haulout_version: "0".to_owned(),
        policy: Vec::new(),
        backups: backups.into_iter().map(|id| LetGo { id, reason: "made up".to_owned(), named: true }).collect(),
        editions: Vec::new(),
        parts: 0,
        packs: 0,
        pack_bytes: 0,
        binlogs: Vec::new(),
        segments: 0,
        segment_bytes: 0,
    }
}

/// Does what a sweep of `place` does that lets go of `gone` and was counted before now: deletes manifests, then packs.
async fn sweep(repository: &Repository, plan: &PrunePlan, gone: &[BackupId], packs: &BTreeSet<PackId>) {
    for id in gone {
        repository.delete(&ObjectKey::Manifest(id.clone())).await.unwrap();
    }
    for pack in packs {
        repository.delete(&ObjectKey::Pack(*pack)).await.unwrap();
    }
    let step = PruneStep { plan: plan.id.clone(), done: true, deleted: SweepTally::default() };
    repository.put_prune_step(&step).await.unwrap();
}

async fn begin_sweep(repository: &Repository, plan: &mut PrunePlan, packs: &BTreeSet<PackId>) {
    repository.put_plan(plan, &packs.iter().copied().collect::<Vec<_>>()).await.unwrap();
    let step = PruneStep { plan: plan.id.clone(), done: false, deleted: SweepTally::default() };
    repository.put_prune_step(&step).await.unwrap();
}

#[tokio::test]
async fn a_copy_is_the_same_repository_and_grows_by_what_is_new() {
    let mut bench = Bench::new(1, 3).await;
    let first = bench.run(&CopyOptions::default()).await;
    assert!(first.made && first.skipped.is_empty() && first.behind.is_empty(), "{first:?}");
    assert_eq!(first.copied.iter().map(|copied| copied.id.clone()).collect::<Vec<_>>(), bench.ids(0..3));
    assert_eq!(bench.copy.objects().await, bench.source.objects().await, "byte for byte");
    assert_eq!(first.bytes, bench.bytes_of(&bench.source).await);
    bench.backup().await;
    let before = bench.bytes_of(&bench.copy).await;
    let context = bench.context(Key::None, Vec::new(), Vec::new()).await.unwrap();
    let ids = context.source.backup_ids().await.unwrap();
    let lag = lag(&context.source, &context.target, &ids).await.unwrap();
    assert_eq!((lag.behind, lag.backups.len()), (bench.ids([3]), 3));
    let second = bench.run(&CopyOptions::default()).await;
    assert_eq!(second.copied.iter().map(|copied| copied.id.clone()).collect::<Vec<_>>(), bench.ids([3]));
    assert_eq!((second.made, second.bytes), (false, bench.bytes_of(&bench.copy).await - before));
    assert_eq!(bench.copy.objects().await, bench.source.objects().await);
    let (third, counts) = bench.run_with((Key::None, &CopyOptions::default()), Vec::new(), Vec::new()).await.unwrap();
    assert_eq!((third.copied, third.packs, third.copy_backups, third.latest), (Vec::new(), 0, 4, Some(bench.id(3))));
    // Its lease alone.
    assert_eq!(counts.puts, 2, "{counts:?}");
    assert_eq!(bench.unneeded().await, []);
}

#[tokio::test]
async fn a_dry_run_tells_the_same_and_writes_nothing() {
    let bench = Bench::new(2, 4).await;
    let options = CopyOptions { wanted: Wanted::Named(bench.ids([1, 3]).into_iter().collect()), ..Default::default() };
    let dry = bench.run(&CopyOptions { dry_run: true, ..options.clone() }).await;
    assert_eq!(bench.copy.objects().await, BTreeMap::new());
    assert!(bench.copy.open(Key::None, Vec::new()).await.is_err());
    let wet = bench.run(&options).await;
    assert_eq!((&dry.copied, dry.packs, dry.bytes, dry.made), (&wet.copied, wet.packs, wet.bytes, wet.made));
    assert!(dry.copied.len() == 2 && dry.copied.iter().all(|copied| copied.bytes > 0), "{dry:?}");
    assert_eq!(bench.unneeded().await, []);
}

/// Ends a copy after any number of requests to one of the two stores, and has the next go on.
async fn dies_anywhere(bench: &mut Bench, key: Key, fault: &Fault, at_source: bool) -> u64 {
    let all = bench.ids(0..bench.manifests.len());
    let size = bench.bytes_of(&bench.source).await;
    for requests in 0.. {
        bench.elsewhere();
        let rules = vec![Rule::after(requests, fault.clone())];
        let (source, copy) = if at_source { (rules, Vec::new()) } else { (Vec::new(), rules) };
        let options = CopyOptions { packs_in_flight: 2, ..CopyOptions::default() };
        let died = bench.run_with((key, &options), source, copy).await;
        let there = bench.there().await;
        assert_eq!(there, all[..there.len()], "in the order in which they were taken, after {requests} requests");
        let found = bench.bytes_of(&bench.copy).await;
        bench.unneeded().await;
        bench.pass_lease();
        let (next, counts) = bench.run_with((key, &options), Vec::new(), Vec::new()).await.unwrap();
        assert_eq!(bench.there().await, all, "after {requests} requests: {next:?}");
        assert_eq!(next.bytes, size - found, "what had come across after {requests} requests was copied again");
        assert!(counts.bytes_up < size - found + (64 << 10), "{counts:?}");
        assert_eq!(bench.unneeded().await, []);
        if died.is_ok() {
            return requests;
        }
    }
    unreachable!()
}

#[tokio::test]
async fn a_copy_that_dies_anywhere_is_finished_by_the_next() {
    let mut bench = Bench::new(3, 3).await;
    let reset = dies_anywhere(&mut bench, Key::None, &Fault::Reset, false).await;
    let unanswered = dies_anywhere(&mut bench, Key::None, &Fault::LoseAnswer, false).await;
    let at_source = dies_anywhere(&mut bench, Key::None, &Fault::Reset, true).await;
    println!("killed after each of {reset} and {unanswered} requests to the copy, {at_source} to the source");
    assert!(reset > 30 && unanswered > 30 && at_source > 30, "{reset}, {unanswered}, {at_source}");
}

#[tokio::test]
async fn a_copy_without_the_key_that_dies_anywhere_is_finished_by_the_next() {
    let mut bench = Bench::sealed(4, 2).await;
    let reset = dies_anywhere(&mut bench, Key::None, &Fault::Reset, false).await;
    let unanswered = dies_anywhere(&mut bench, Key::None, &Fault::LoseAnswer, false).await;
    let with_key = dies_anywhere(&mut bench, Key::File(KEY_FILE), &Fault::Reset, false).await;
    println!("killed after each of {reset} and {unanswered} requests without the key, {with_key} with it");
    assert!(reset > 30 && unanswered > 30 && with_key > 30, "{reset}, {unanswered}, {with_key}");
}

#[tokio::test]
async fn what_a_prune_of_the_copy_let_go_of_does_not_come_back_unless_it_is_asked_for() {
    let mut bench = Bench::new(5, 4).await;
    bench.run(&CopyOptions::default()).await;
    let copy = bench.copy.open(Key::None, Vec::new()).await.unwrap();
    let (own, _) = bench.packs_of(&[0, 1]).await;
    assert!(!own.is_empty());
    sweep(&copy, &plan_of("20261122T010000Z", Vec::new()), &bench.ids([0, 1]), &own).await;
    bench.backup().await;
    bench.pass_lease();
    let next = bench.run(&CopyOptions::default()).await;
    assert_eq!(next.copied.iter().map(|copied| copied.id.clone()).collect::<Vec<_>>(), bench.ids([4]));
    assert_eq!(bench.there().await, bench.ids(2..5));
    let named = CopyOptions { wanted: Wanted::Named([bench.id(1)].into()), ..CopyOptions::default() };
    bench.run(&named).await;
    assert_eq!(bench.there().await, bench.ids(1..5));
    let all = CopyOptions { wanted: Wanted::All, ..CopyOptions::default() };
    let report = bench.run(&all).await;
    assert_eq!((report.copied.len(), bench.there().await), (1, bench.ids(0..5)));
    assert_eq!(bench.unneeded().await, []);
}

#[tokio::test]
async fn a_pack_that_is_damaged_or_gone_costs_the_backups_that_need_it_and_no_other() {
    for gone in [false, true] {
        let bench = Bench::new(6, 4).await;
        let (own, _) = bench.packs_of(&[1]).await;
        let pack = *own.first().unwrap();
        if gone {
            bench.source.objects.delete(&ObjectKey::Pack(pack).text().into()).await.unwrap();
        } else {
            bench.source.tamper(&ObjectKey::Pack(pack), |bytes| bytes[60] ^= 1).await;
        }
        let report = bench.run(&CopyOptions::default()).await;
        assert_eq!(bench.there().await, bench.ids([0, 2, 3]));
        let [skip] = report.skipped.as_slice() else { panic!("{report:?}") };
        assert!(skip.backup == Some(bench.id(1)) && skip.message.contains(&pack.to_string()), "{skip:?}");
        bench.unneeded().await;
        // Nor does it come with the next run, which has nothing to do; but when it is asked for.
        assert_eq!(bench.run(&CopyOptions::default()).await.copied, []);
        let named = CopyOptions { wanted: Wanted::Named([bench.id(1)].into()), ..CopyOptions::default() };
        assert_eq!(bench.run(&named).await.skipped.len(), 1);
    }
}

#[tokio::test]
async fn a_manifest_that_is_damaged_gives_way_to_the_edition_before_it_or_is_named() {
    let bench = Bench::new(7, 3).await;
    let source = bench.source.open(Key::None, Vec::new()).await.unwrap();
    let newer = Manifest { edition: 1, ..bench.manifests[0].clone() };
    source.commit(&newer, None).await.unwrap();
    source.commit(&Manifest { edition: 2, ..newer }, None).await.unwrap();
    bench.source.tamper(&ObjectKey::Edition(bench.id(0), 2), |bytes| bytes[100] ^= 1).await;
    bench.source.tamper(&ObjectKey::Manifest(bench.id(1)), |bytes| bytes.truncate(50)).await;
    let report = bench.run(&CopyOptions::default()).await;
    assert_eq!(
        report.copied.iter().map(|copied| (copied.id.clone(), copied.edition)).collect::<Vec<_>>(),
        [(bench.id(0), 1), (bench.id(2), 0)]
    );
    assert_eq!(report.skipped.iter().map(|skip| skip.backup.clone()).collect::<Vec<_>>(), [Some(bench.id(1))]);
    let copy = bench.copy.open(Key::None, Vec::new()).await.unwrap();
    let stored = copy.stored_backups().await.unwrap();
    assert_eq!(
        stored[0].editions.iter().map(|(edition, _)| *edition).collect::<Vec<_>>(),
        [1],
        "one edition is enough"
    );
    bench.unneeded().await;
}

#[tokio::test(start_paused = true)]
async fn so_many_packs_are_on_their_way_and_no_more() {
    let bench = Bench::new(8, 1).await;
    let packs = bench.source.open(Key::None, Vec::new()).await.unwrap().packs().await.unwrap().len() as u64;
    for packs_in_flight in [1, 3] {
        let mut bench = Bench { ..Bench::new(8, 1).await };
        bench.elsewhere();
        let slow = Rule::always(Operation::Put, Fault::Delay(Duration::from_secs(20))).on_keys("packs/");
        let options = CopyOptions { packs_in_flight, ..CopyOptions::default() };
        let begun = tokio::time::Instant::now();
        bench.run_with((Key::None, &options), Vec::new(), vec![slow]).await.unwrap();
        let turns = packs.div_ceil(packs_in_flight as u64);
        assert_eq!(begun.elapsed().as_secs() / 20, turns, "{packs} packs, {packs_in_flight} at a time");
    }
}

/// Has the first pack that is put wait for a while, so that something else can happen in the middle of a copy.
fn first_pack_waits() -> Vec<Rule> {
    vec![Rule::once(Operation::Put, Fault::Delay(Duration::from_secs(20))).on_keys("packs/")]
}

async fn in_the_middle(bench: &Bench, key: Key, copy: Vec<Rule>, what: impl Future<Output = ()>) -> CopyReport {
    let options = CopyOptions { packs_in_flight: 1, ..CopyOptions::default() };
    let what = async {
        tokio::time::sleep(Duration::from_secs(10)).await;
        what.await;
    };
    let (report, ()) = tokio::join!(bench.run_with((key, &options), Vec::new(), copy), what);
    report.unwrap().0
}

#[tokio::test(start_paused = true)]
async fn what_the_source_lets_go_of_meanwhile_is_left_out_and_no_damage() {
    for sealed in [false, true] {
        let bench = if sealed { Bench::sealed(9, 4).await } else { Bench::new(9, 4).await };
        let source = bench.source.open(bench.key, Vec::new()).await.unwrap();
        let (own, _) = bench.packs_of(&[1, 2]).await;
        let plan = plan_of("20261122T010000Z", Vec::new());
        let gone = bench.ids([1, 2]);
        // The first backup's packs are being copied already.
        let report = in_the_middle(&bench, Key::None, first_pack_waits(), sweep(&source, &plan, &gone, &own)).await;
        assert_eq!((report.let_go, report.skipped), (gone, Vec::new()));
        assert_eq!(bench.there().await, bench.ids([0, 3]));
        bench.unneeded().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_source_has_compacted_meanwhile_comes_as_it_is_then() {
    for (vanishes, key) in [(true, Key::None), (false, Key::None), (false, Key::File(KEY_FILE))] {
        let bench = Bench::sealed(22, 3).await;
        let source = bench.source.open(bench.key, Vec::new()).await.unwrap();
        source.delete(&ObjectKey::Manifest(bench.id(0))).await.unwrap();
        // Which packs no backup needs, a copy without the key cannot tell.
        let bytes = bytes::Bytes::from_static(b"of a run that died");
        let garbage = crate::format::pack_id(&bytes);
        source.put_pack(garbage, bytes).await.unwrap();
        let report = in_the_middle(&bench, key, first_pack_waits(), async {
            let newer = Manifest { edition: 1, ..bench.manifests[2].clone() };
            source.commit(&newer, None).await.unwrap();
            source.delete(&ObjectKey::Manifest(bench.id(2))).await.unwrap();
            if vanishes {
                source.delete(&ObjectKey::Pack(garbage)).await.unwrap();
            }
        })
        .await;
        let copied: Vec<_> = report.copied.iter().map(|copied| (copied.id.clone(), copied.edition)).collect();
        assert_eq!(copied, [(bench.id(1), 0), (bench.id(2), 1)], "{report:?}");
        assert_eq!((report.let_go, report.skipped), (Vec::new(), Vec::new()));
        bench.unneeded().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_sweep_of_the_copy_takes_meanwhile_is_there_before_the_manifest() {
    for sealed in [false, true] {
        let bench = if sealed { Bench::sealed(10, 3).await } else { Bench::new(10, 3).await };
        bench.run(&CopyOptions::default()).await;
        let copy = bench.copy.open(bench.key, Vec::new()).await.unwrap();
        // What the third backup needs is still there, but for one pack, which takes its time.
        let (mut own, _) = bench.packs_of(&[2]).await;
        copy.delete(&ObjectKey::Manifest(bench.id(2))).await.unwrap();
        copy.delete(&ObjectKey::Pack(own.pop_last().unwrap())).await.unwrap();
        assert!(!own.is_empty());
        bench.pass_lease();
        let key = if sealed { Key::None } else { bench.key };
        // Of a run that did not see this one, such as one that slept.
        let report = in_the_middle(&bench, key, first_pack_waits(), async {
            let mut plan = plan_of("20261122T010000Z", Vec::new());
            begin_sweep(&copy, &mut plan, &own).await;
            sweep(&copy, &plan, &[], &own).await;
        })
        .await;
        assert_eq!((report.skipped, report.copied.len(), report.packs), (Vec::new(), 1, own.len() as u64 + 1));
        assert_eq!(bench.there().await, bench.ids(0..3));
        bench.unneeded().await;
    }
}

#[tokio::test]
async fn nothing_rests_on_packs_that_a_sweep_of_the_copy_began_to_delete_and_may_go_on_with() {
    for (key, sealed) in [(Key::None, false), (Key::None, true), (Key::File(KEY_FILE), true)] {
        let mut bench = if sealed { Bench::sealed(20, 3).await } else { Bench::new(20, 3).await };
        bench.run(&CopyOptions::default()).await;
        let copy = bench.copy.open(bench.key, Vec::new()).await.unwrap();
        let (own, _) = bench.packs_of(&[2]).await;
        let mut plan = plan_of("20261122T010000Z", bench.ids([2]));
        begin_sweep(&copy, &mut plan, &own).await;
        copy.delete(&ObjectKey::Manifest(bench.id(2))).await.unwrap();
        bench.backup().await;
        bench.pass_lease();
        let refused = bench.run_with((key, &CopyOptions::default()), Vec::new(), Vec::new()).await.unwrap_err();
        assert!(matches!(refused, CopyError::Unended { .. }) && refused.kind() == Kind::Locked, "{refused}");
        assert_eq!(bench.there().await, bench.ids(0..2));
        bench.pass_lease();
        sweep(&copy, &plan, &[], &own).await;
        let (report, _) = bench.run_with((key, &CopyOptions::default()), Vec::new(), Vec::new()).await.unwrap();
        assert_eq!((bench.there().await, report.skipped), (bench.ids(0..4), Vec::new()));
        bench.unneeded().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_sweep_of_the_copy_that_is_under_way_is_waited_for() {
    let bench = Bench::new(11, 2).await;
    bench.run(&CopyOptions::default()).await;
    let copy = bench.copy.open(Key::None, Vec::new()).await.unwrap();
    copy.delete(&ObjectKey::Manifest(bench.id(1))).await.unwrap();
    let (own, _) = bench.packs_of(&[1]).await;
    bench.pass_lease();
    let pruner = copy.lease("prune", &*bench.entropy).await.unwrap();
    let mut plan = plan_of("20261122T010000Z", Vec::new());
    begin_sweep(&copy, &mut plan, &own).await;
    let pruner = Mutex::new(pruner);
    // Nothing is missing, so there is nothing to copy but the manifest, which would come before the sweep has deleted what it needs.
    let report = in_the_middle(&bench, Key::None, Vec::new(), async {
        assert_eq!(bench.there().await, bench.ids([0]), "the manifest has not waited");
        sweep(&copy, &plan, &[], &own).await;
        copy.give_back(&pruner, &Silent).await;
    })
    .await;
    assert_eq!((report.copied.len(), report.packs), (1, own.len() as u64));
    bench.unneeded().await;
}

#[tokio::test]
async fn sealed_data_is_copied_with_a_key_for_maps_and_without_any_and_shows_nothing() {
    let mut bench = Bench::sealed(12, 3).await;
    let source = bench.source.open(bench.key, Vec::new()).await.unwrap();
    let credential = Credential::File(key_of_file(MAP_KEY).unwrap());
    let slot = NewSlot { credential, wraps: Wraps::Map, label: String::new() };
    source.add_slot(&slot, &SystemClock).await.unwrap();
    // A pack that no backup needs any more comes along only where nobody can tell.
    bench.source.objects.delete(&ObjectKey::Manifest(bench.id(0)).text().into()).await.unwrap();
    let (own, _) = bench.packs_of(&[0]).await;
    for (key, with_all) in [(bench.key, false), (Key::File(MAP_KEY), false), (Key::None, true)] {
        bench.elsewhere();
        let (report, _) = bench.run_with((key, &CopyOptions::default()), Vec::new(), Vec::new()).await.unwrap();
        assert_eq!((report.copied.len(), report.skipped), (2, Vec::new()));
        assert_eq!(bench.there().await, bench.ids([1, 2]));
        let unneeded: BTreeSet<PackId> = bench.unneeded().await.into_iter().collect();
        assert_eq!(unneeded, if with_all { own.clone() } else { BTreeSet::new() });
        bench.copy.open(Key::File(MAP_KEY), Vec::new()).await.unwrap();
        // No lease says on which machine it ran.
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
        let leases: Vec<_> = bench.copy.objects.list(Some(&"leases".into())).try_collect().await.unwrap();
        assert!(!leases.is_empty());
        for meta in leases {
            let bytes = bench.copy.objects.get(&meta.location).await.unwrap().bytes().await.unwrap();
            assert!(!String::from_utf8_lossy(&bytes).contains(&format!("\\\"{}\\\"", host.trim())));
        }
    }
}

#[tokio::test]
async fn without_a_key_a_damaged_pack_keeps_every_backup_away_and_says_what_to_do() {
    let bench = Bench::sealed(13, 2).await;
    let (own, _) = bench.packs_of(&[1]).await;
    bench.source.tamper(&ObjectKey::Pack(*own.first().unwrap()), |bytes| bytes[60] ^= 1).await;
    let (report, _) = bench.run_with((Key::None, &CopyOptions::default()), Vec::new(), Vec::new()).await.unwrap();
    let [skip] = report.skipped.as_slice() else { panic!("{report:?}") };
    assert!(skip.message.contains(&own.first().unwrap().to_string()) && skip.hint.as_ref().unwrap().contains("`map`"));
    assert_eq!((bench.there().await, report.behind), (Vec::new(), bench.ids(0..2)));
    bench.run(&CopyOptions::default()).await;
    assert_eq!(bench.there().await, bench.ids([0]));
    bench.unneeded().await;
}

#[tokio::test]
async fn a_copy_with_and_without_the_key_is_seen_at_work() {
    let bench = Bench::sealed(14, 1).await;
    bench.run(&CopyOptions::default()).await;
    for (one, other) in [(Key::None, bench.key), (bench.key, Key::None), (Key::None, Key::None)] {
        bench.pass_lease();
        let copies = bench.copy.open(one, Vec::new()).await.unwrap();
        let looks = bench.copy.open(other, Vec::new()).await.unwrap();
        let lease = Mutex::new(copies.lease("backup", &*bench.entropy).await.unwrap());
        let mut prune = looks.lease("prune", &*bench.entropy).await.unwrap();
        assert!(looks.at_work("backup", &mut prune).await.unwrap().is_some(), "a sweep goes on");
        let refused = bench.run_with((other, &CopyOptions::default()), Vec::new(), Vec::new()).await.unwrap_err();
        assert_eq!(refused.kind(), Kind::Locked, "{refused}");
        copies.give_back(&lease, &Silent).await;
        assert_eq!(looks.at_work("backup", &mut prune).await.unwrap(), None);
        bench.run_with((other, &CopyOptions::default()), Vec::new(), Vec::new()).await.unwrap();
    }
}

#[tokio::test]
async fn another_repository_and_the_same_place_are_refused() {
    let bench = Bench::new(15, 1).await;
    let other = Bench::new(16, 1).await;
    let before = other.source.objects().await;
    let context = bench.context(Key::None, Vec::new(), Vec::new()).await.unwrap();
    for dry_run in [true, false] {
        let options = CopyOptions { dry_run, ..CopyOptions::default() };
        let into = |place: &Place, name| Context {
            target: Place { name, ..place.clone() }.store(Vec::new()),
            ..context.clone()
        };
        let error = super::copy(&into(&other.source, "memory:///other"), &options).await.unwrap_err();
        assert!(matches!(error, CopyError::Repository(RepositoryError::Another { .. })), "{error}");
        assert_eq!((error.kind(), other.source.objects().await), (Kind::Usage, before.clone()));
        let error = super::copy(&into(&bench.source, "memory:///source"), &options).await.unwrap_err();
        assert!(matches!(error, CopyError::SamePlace { .. }) && error.kind() == Kind::Usage, "{error}");
    }
    // Backups without what makes them a repository.
    bench.copy.objects.put(&ObjectKey::Manifest(bench.id(0)).text().into(), b"{}".to_vec().into()).await.unwrap();
    let error = super::copy(&context, &CopyOptions::default()).await.unwrap_err();
    assert!(matches!(error, CopyError::Repository(RepositoryError::Headless { .. })), "{error}");
    // Somebody has taken the seal away.
    let sealed = Bench::sealed(17, 1).await;
    sealed.run(&CopyOptions::default()).await;
    let key = ObjectKey::Config;
    let mut config = sealed.copy.open(sealed.key, Vec::new()).await.unwrap().config().clone();
    config.seal = crate::format::Config::SEAL_NONE.to_owned();
    let bytes = crate::format::encode_document(&config).unwrap();
    sealed.copy.objects.put(&key.text().into(), bytes.into()).await.unwrap();
    let error = sealed.run_with((sealed.key, &CopyOptions::default()), Vec::new(), Vec::new()).await.unwrap_err();
    assert!(matches!(error, CopyError::Repository(RepositoryError::UnlikeSeal { .. })), "{error}");
}

#[tokio::test]
async fn nothing_new_rests_on_a_pack_of_the_copy_that_is_damaged() {
    for cut in [true, false] {
        let mut bench = Bench::new(18, 2).await;
        bench.run(&CopyOptions::default()).await;
        bench.backup().await;
        let (_, shared) = bench.packs_of(&[2]).await;
        let pack = *shared.iter().next().unwrap();
        bench.copy.tamper(&ObjectKey::Pack(pack), |bytes| if cut { bytes.truncate(99) } else { bytes[60] ^= 1 }).await;
        if !cut {
            // Its size is right, so that only a check could tell; and one has.
            let copy = bench.copy.open(Key::None, Vec::new()).await.unwrap();
            let found = Findings { damaged: [pack].into(), ..Findings::default() };
            copy.record_damage(&found, &*bench.clock, &*bench.entropy).await.unwrap();
        }
        bench.pass_lease();
        let report = bench.run(&CopyOptions::default()).await;
        assert_eq!((report.copied.len(), report.skipped), (1, Vec::new()));
        // Proves the bytes of all packs that are needed.
        bench.unneeded().await;
    }
}

#[tokio::test]
async fn what_the_copy_has_lost_of_a_backup_that_is_named_is_put_again() {
    let bench = Bench::new(21, 3).await;
    bench.run(&CopyOptions::default()).await;
    let named = |number| CopyOptions { wanted: Wanted::Named([bench.id(number)].into()), ..CopyOptions::default() };
    let again = bench.run(&named(0)).await;
    assert_eq!((again.copied, again.packs), (Vec::new(), 0), "there is nothing to do");
    let (own, shared) = bench.packs_of(&[1]).await;
    let needed: Vec<PackId> = own.into_iter().chain(shared).take(3).collect();
    let [gone, cut, rotten] = needed[..] else { panic!("{needed:?}") };
    let copy = bench.copy.open(Key::None, Vec::new()).await.unwrap();
    copy.delete(&ObjectKey::Pack(gone)).await.unwrap();
    bench.copy.tamper(&ObjectKey::Pack(cut), |bytes| bytes.truncate(99)).await;
    bench.copy.tamper(&ObjectKey::Pack(rotten), |bytes| bytes[60] ^= 1).await;
    let found = Findings { damaged: [gone, cut, rotten].into(), ..Findings::default() };
    copy.record_damage(&found, &*bench.clock, &*bench.entropy).await.unwrap();
    bench.pass_lease();
    let dry = bench.run(&CopyOptions { dry_run: true, ..named(1) }).await;
    let report = bench.run(&named(1)).await;
    assert_eq!((report.packs, report.copied.len(), &report.skipped), (3, 1, &Vec::new()));
    assert_eq!(dry.copied, report.copied);
    bench.unneeded().await;
    // The copy was compacted by itself: its editions are its own.
    let source = bench.source.open(Key::None, Vec::new()).await.unwrap();
    for (repository, reason) in [(&source, "one"), (&copy, "another")] {
        let manifest = Manifest { edition: 1, reason: reason.to_owned(), ..bench.manifests[1].clone() };
        repository.commit(&manifest, None).await.unwrap();
    }
    let report = bench.run(&named(1)).await;
    assert!(report.skipped[0].message.contains("another manifest") && report.copied.is_empty(), "{report:?}");
}

#[tokio::test]
async fn a_copy_of_a_locked_repository_is_not_locked_and_the_same_repository() {
    let bench = Bench::new(19, 1).await;
    let mut config = bench.source.open(Key::None, Vec::new()).await.unwrap().config().clone();
    let lock = crate::model::LockPolicy { mode: crate::model::LockMode::Compliance, days: 30.try_into().unwrap() };
    config.lock = Some(lock);
    let bytes = crate::format::encode_document(&config).unwrap();
    bench.source.objects.put(&ObjectKey::Config.text().into(), bytes.into()).await.unwrap();
    bench.run(&CopyOptions::default()).await;
    let copy = bench.copy.open(Key::None, Vec::new()).await.unwrap();
    assert_eq!((copy.config().lock, copy.config().repository_id), (None, config.repository_id));
    bench.run(&CopyOptions::default()).await;
}
