//! Prunes of made-up repositories, on a clock that the tests set.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};

use super::synthetic::{KEY_FILE, Synthetic};
use super::*;
use crate::error::{Diagnose, Kind};
use crate::format::{KeySlot, PruneStep, SecretKey, SweepTally, key_of_file};
use crate::model::{ProofId, Silent, SystemEntropy};
use crate::repository::{Access, KeySource, LEASE_SECONDS, ObjectKey};
use crate::store::faulty::{Fault, FaultyStore, Operation, Rule, Script};
use crate::store::timed::TimedStore;
use crate::store::{RetryPolicy, Store, StoreOptions};

pub(super) const DAY: i64 = 86_400;

/// A clock that goes on by a second with each look.
pub(super) struct Hand(AtomicI64);

impl Clock for Hand {
    fn now(&self) -> Timestamp {
        Timestamp(jiff::Timestamp::from_second(self.0.fetch_add(1, Ordering::SeqCst)).unwrap())
    }
}

/// Chance that is the same in each run.
pub(super) struct Counting(AtomicU64);

impl Entropy for Counting {
    fn fill(&self, bytes: &mut [u8]) {
        let number = self.0.fetch_add(1, Ordering::SeqCst).to_le_bytes();
        bytes.iter_mut().zip(number.iter().cycle()).for_each(|(byte, digit)| *byte = *digit);
    }
}

/// A key file.
struct KeyFile(SecretKey);

#[async_trait::async_trait]
impl KeySource for KeyFile {
    async fn key(&self, slot: &KeySlot) -> Result<Option<SecretKey>, String> {
        Ok(slot.open(&self.0).is_ok().then(|| self.0.clone()))
    }
}

/// Opens sealed repositories by a key file that holds `bytes`.
pub(super) fn access(bytes: &[u8]) -> Access {
    Access { keys: Arc::new(KeyFile(key_of_file(bytes).unwrap())), entropy: Arc::new(SystemEntropy) }
}

/// A made-up server, its repository, and the time.
pub(super) struct Bench {
    /// Nothing in a copy, which makes no further backups.
    pub(super) server: Option<Synthetic>,
    pub(super) objects: Arc<InMemory>,
    pub(super) manifests: Vec<Manifest>,
    timed: TimedStore,
    /// What a sealed repository is opened with.
    pub(super) access: Option<Access>,
    pub(super) clock: Arc<Hand>,
    pub(super) entropy: Arc<Counting>,
    stop: watch::Sender<bool>,
}

impl Bench {
    /// A lineage of `backups` backups, of which each changes something.
    pub(super) async fn new(seed: u64, backups: usize) -> Bench {
        Bench::with(seed, backups, None).await
    }

    /// The same in a sealed repository.
    pub(super) async fn sealed(seed: u64, backups: usize) -> Bench {
        Bench::with(seed, backups, Some(access(KEY_FILE))).await
    }

    async fn with(seed: u64, backups: usize, access: Option<Access>) -> Bench {
        let clock = Arc::new(Hand(AtomicI64::new(1_795_000_000)));
        let objects = Arc::new(InMemory::new());
        let timed = TimedStore::new(objects.clone(), clock.clone());
        let mut server = match access {
            None => Synthetic::on(seed, objects.clone(), Arc::new(timed.clone())).await,
            Some(_) => Synthetic::sealed_on(seed, objects.clone(), Arc::new(timed.clone())).await,
        };
        server.populate();
        let server = Some(server);
        let entropy = Arc::new(Counting(AtomicU64::new(1)));
        let stop = watch::Sender::new(false);
        let mut bench = Bench { server, objects, manifests: Vec::new(), timed, access, clock, entropy, stop };
        for _ in 0..backups {
            bench.backup().await;
        }
        bench
    }

    pub(super) async fn backup(&mut self) {
        let server = self.server.as_mut().unwrap();
        server.live(40);
        self.manifests.push(server.backup().await);
    }

    /// A copy on which something else may happen.
    pub(super) async fn fork(&self) -> Bench {
        let clock = Arc::new(Hand(AtomicI64::new(self.clock.0.load(Ordering::SeqCst))));
        let objects = Arc::new(InMemory::new());
        for (key, bytes) in self.objects().await {
            objects.put(&key.into(), bytes.into()).await.unwrap();
        }
        let timed = self.timed.fork(objects.clone(), clock.clone());
        let (manifests, entropy) = (self.manifests.clone(), self.entropy.clone());
        let access = self.access.clone();
        Bench { server: None, objects, manifests, timed, access, clock, entropy, stop: watch::Sender::new(false) }
    }

    pub(super) async fn tamper(&self, key: &str, bytes: Vec<u8>) {
        self.objects.put(&key.into(), bytes.into()).await.unwrap();
    }

    pub(super) async fn packs(&self) -> BTreeSet<PackId> {
        self.open(Vec::new()).await.unwrap().packs().await.unwrap().into_keys().collect()
    }

    pub(super) fn pass(&self, seconds: i64) {
        self.clock.0.fetch_add(seconds, Ordering::SeqCst);
    }

    pub(super) fn id(&self, number: usize) -> BackupId {
        self.manifests[number].id.clone()
    }

    /// The repository behind a script of faults.
    pub(super) async fn open(&self, rules: Vec<Rule>) -> Result<Arc<Repository>, RepositoryError> {
        let faulty = FaultyStore::new(Arc::new(self.timed.clone()), Script { rules, ..Script::default() });
        let retry = RetryPolicy { attempts_max: 1, ..RetryPolicy::default() };
        let store = Store::over("memory:///", Arc::new(faulty), StoreOptions { retry, ..StoreOptions::default() });
        let opened = match &self.access {
            None => Repository::open(store).await?,
            Some(access) => Repository::unlock(store, access).await?,
        };
        Ok(Arc::new(opened))
    }

    pub(super) fn context(&self, repository: Arc<Repository>) -> Context {
        let (clock, entropy) = (self.clock.clone(), self.entropy.clone());
        Context { repository, clock, entropy, progress: Arc::new(Silent), cancel: self.stop.subscribe() }
    }

    pub(super) async fn prune_with(&self, options: &PruneOptions, rules: Vec<Rule>) -> Result<PruneReport, PruneError> {
        prune(&self.context(self.open(rules).await?), options).await
    }

    pub(super) async fn prune(&self, options: &PruneOptions) -> PruneReport {
        self.prune_with(options, Vec::new()).await.unwrap()
    }

    /// Backups that are there.
    pub(super) async fn there(&self) -> Vec<BackupId> {
        self.open(Vec::new()).await.unwrap().backup_ids().await.unwrap()
    }

    /// Every key and its bytes.
    pub(super) async fn objects(&self) -> BTreeMap<String, bytes::Bytes> {
        let metas: Vec<_> = self.objects.list(None).try_collect().await.unwrap();
        let mut objects = BTreeMap::new();
        for meta in metas {
            let bytes = self.objects.get(&meta.location).await.unwrap().bytes().await.unwrap();
            objects.insert(meta.location.to_string(), bytes);
        }
        objects
    }

    /// Proves that every backup has all that it needs; gives the packs that none needs.
    pub(super) async fn unneeded(&self) -> Vec<PackId> {
        let repository = self.open(Vec::new()).await.unwrap();
        let mut references = References::default();
        for (id, manifest) in repository.manifests().await.unwrap() {
            references.add(&repository, &manifest.unwrap()).await.unwrap_or_else(|error| panic!("{id}: {error}"));
        }
        let packs = repository.packs().await.unwrap();
        assert_eq!(references.missing(|pack| packs.contains_key(pack)), []);
        packs.into_keys().filter(|pack| !references.need(pack)).collect()
    }
}

/// Keeps the newest `last`, with a day of grace.
pub(super) fn keep(last: u32) -> PruneOptions {
    PruneOptions { policy: KeepPolicy { last, ..KeepPolicy::default() }, grace_seconds: 86_400, ..Default::default() }
}

#[tokio::test]
async fn what_is_let_go_of_is_deleted_after_its_grace_and_not_before() {
    let bench = Bench::new(1, 5).await;
    let report = bench.prune(&keep(2)).await;
    let made = report.made.unwrap();
    assert_eq!(made.backups, [bench.id(0), bench.id(1), bench.id(2)]);
    assert!(made.packs > 0 && made.pack_bytes > 0, "{made:?}");
    assert_eq!(bench.there().await.len(), 5);
    bench.pass(DAY - 600);
    let report = bench.prune(&keep(2)).await;
    assert_eq!((report.swept.len(), report.waiting, report.made), (0, 1, None));
    assert_eq!(bench.there().await.len(), 5);
    bench.pass(1200);
    let before = bench.unneeded().await;
    assert!(before.is_empty());
    let report = bench.prune(&keep(2)).await;
    let [swept] = report.swept.as_slice() else { panic!("{report:?}") };
    assert_eq!((swept.packs, swept.pack_bytes), (made.packs, made.pack_bytes));
    assert_eq!(bench.there().await, [bench.id(3), bench.id(4)]);
    assert_eq!(bench.unneeded().await, []);
    assert_eq!(bench.prune(&keep(2)).await.made, None);
}

#[tokio::test]
async fn a_dry_run_tells_the_same_and_writes_nothing() {
    let bench = Bench::new(2, 4).await;
    let before = bench.objects().await;
    let dry = bench.prune(&PruneOptions { dry_run: true, ..keep(1) }).await.made.unwrap();
    assert_eq!(bench.objects().await, before);
    let made = bench.prune(&keep(1)).await.made.unwrap();
    assert_eq!((dry.plan, &dry.backups, dry.packs, dry.pack_bytes), (None, &made.backups, made.packs, made.pack_bytes));
}

#[tokio::test]
async fn without_grace_a_plan_is_carried_out_at_once() {
    let bench = Bench::new(3, 4).await;
    let report = bench.prune(&PruneOptions { grace_seconds: 0, ..keep(1) }).await;
    assert_eq!(report.swept[0].backups.len(), 3);
    assert_eq!(bench.there().await, [bench.id(3)]);
    assert_eq!(bench.unneeded().await, []);
}

#[tokio::test]
async fn what_was_undeleted_stays_until_it_is_named() {
    let bench = Bench::new(4, 4).await;
    bench.prune(&keep(1)).await;
    let repository = bench.open(Vec::new()).await.unwrap();
    undelete(&repository, &[bench.id(0)], &*bench.entropy).await.unwrap();
    assert_eq!(planned(&repository, &[bench.id(0), bench.id(1)]).await.unwrap()[0].0, bench.id(1));
    bench.pass(2 * DAY);
    let report = bench.prune(&keep(1)).await;
    assert_eq!(report.swept[0].spared, [bench.id(0)]);
    assert_eq!(bench.there().await, [bench.id(0), bench.id(3)]);
    bench.pass(2 * DAY);
    assert_eq!(bench.prune(&keep(1)).await.made, None);
    assert_eq!(bench.unneeded().await, []);
    let named = PruneOptions { named: [bench.id(0)].into(), ..keep(1) };
    assert_eq!(bench.prune(&named).await.made.unwrap().backups, [bench.id(0)]);
    bench.pass(2 * DAY);
    bench.prune(&keep(1)).await;
    assert_eq!(bench.there().await, [bench.id(3)]);
    assert_eq!(bench.unneeded().await, []);
    let gone = undelete(&repository, &[bench.id(0)], &*bench.entropy).await.unwrap_err();
    assert!(matches!(gone, PruneError::TooLate { .. }), "{gone}");
    let not_planned = undelete(&repository, &[bench.id(3)], &*bench.entropy).await.unwrap_err();
    assert!(matches!(not_planned, PruneError::NotPlanned { .. }), "{not_planned}");
}

/// Undeletes a backup as soon as a prune counts what those need that stay.
struct Undeletes {
    repository: Arc<Repository>,
    id: BackupId,
    entropy: Arc<Counting>,
}

impl Progress for Undeletes {
    fn begin(&self, phase: Phase, _: Option<u64>) {
        if phase == Phase::Check {
            // The second time it is at work already.
            let undelete = undelete(&self.repository, std::slice::from_ref(&self.id), &*self.entropy);
            tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(undelete)).ok();
        }
    }
    fn advance(&self, _: Phase, _: u64) {}
    fn end(&self, _: Phase) {}
    fn note(&self, _: &str) {}
    fn warn(&self, _: &str) {}
}

/// A backup that a plan let go of has not been counted when the plan is carried out.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_is_undeleted_just_before_a_sweep_keeps_its_packs_though_a_listing_is_old() {
    let bench = Bench::new(24, 4).await;
    bench.prune(&keep(1)).await;
    bench.pass(2 * DAY);
    for skip in 0..8 {
        let copy = bench.fork().await;
        let repository = copy.open(Vec::new()).await.unwrap();
        let undeletes = Undeletes { repository, id: bench.id(2), entropy: copy.entropy.clone() };
        let old = Rule { skip, ..Rule::once(Operation::List, Fault::OldList(2)).on_keys("backups") };
        let context = copy.context(copy.open(vec![old]).await.unwrap());
        prune(&Context { progress: Arc::new(undeletes), ..context }, &keep(1)).await.unwrap();
        assert!(copy.there().await.ends_with(&[bench.id(2), bench.id(3)]), "old listing {skip}");
        copy.unneeded().await;
    }
}

/// A prune that has begun may have read what stays before the mark was there: nobody is told that the backup stays.
#[tokio::test]
async fn nobody_is_told_that_a_backup_stays_whose_plan_is_being_carried_out() {
    let bench = Bench::new(4, 4).await;
    let plan = bench.prune(&keep(1)).await.made.unwrap().plan.unwrap();
    let repository = bench.open(Vec::new()).await.unwrap();
    let step = |done| PruneStep { plan: plan.clone(), done, deleted: SweepTally::default() };
    repository.put_prune_step(&step(false)).await.unwrap();
    let error = undelete(&repository, &[bench.id(0)], &*bench.entropy).await.unwrap_err();
    assert!(matches!(error, PruneError::Sweeping { .. }), "{error}");
    assert_eq!(error.kind(), Kind::Locked);
    // That prune died, and had not looked yet: the mark counts for the one that ends it.
    bench.pass(2 * DAY);
    assert_eq!(bench.prune(&keep(1)).await.swept[0].spared, [bench.id(0)]);
    assert_eq!(bench.there().await, [bench.id(0), bench.id(3)]);
}

#[tokio::test]
async fn a_backup_of_which_nothing_tells_is_not_called_deleted() {
    let bench = Bench::new(21, 3).await;
    let named = PruneOptions { named: [bench.id(0)].into(), grace_seconds: 0, ..Default::default() };
    bench.prune(&named).await;
    assert_eq!(bench.there().await, [bench.id(1), bench.id(2)]);
    let repository = bench.open(Vec::new()).await.unwrap();
    let unknown: BackupId = "20200101T000000Z-aaaaaa".parse().unwrap();
    let error = undelete(&repository, std::slice::from_ref(&unknown), &*bench.entropy).await.unwrap_err();
    assert!(matches!(error, PruneError::Repository(RepositoryError::NoBackup { .. })), "{error}");
    let gone = undelete(&repository, &[bench.id(0)], &*bench.entropy).await.unwrap_err();
    assert!(matches!(gone, PruneError::TooLate { .. }), "{gone}");
}

#[tokio::test]
async fn a_plan_of_which_something_cannot_be_read_keeps_no_prune_from_its_end() {
    for (part, is_lost) in [("-packs-", false), ("-packs-", true), ("-plan.json", false)] {
        let bench = Bench::new(23, 4).await;
        assert!(bench.prune(&keep(1)).await.made.unwrap().packs > 0);
        let key = bench.objects().await.into_keys().find(|key| key.contains(part)).unwrap();
        match is_lost {
            true => bench.objects.delete(&key.as_str().into()).await.unwrap(),
            false => bench.tamper(&key, b"{}".to_vec()).await,
        }
        let mut skips = Vec::new();
        for _ in 0..4 {
            bench.pass(2 * DAY);
            skips.push(bench.prune(&keep(1)).await.skipped.len());
        }
        assert_eq!(bench.there().await, [bench.id(3)], "{part}");
        assert_eq!(bench.unneeded().await, [], "{part}");
        // Once it is told, and of a plan itself for as long as it is there.
        assert_eq!(skips, if part == "-packs-" { [1, 0, 0, 0] } else { [1; 4] }, "{part}");
        bench.pass(31 * DAY);
        bench.prune(&keep(1)).await;
        assert_eq!(bench.prune(&keep(1)).await.skipped, [], "{part}");
    }
}

#[tokio::test]
async fn lists_of_damage_that_nobody_reads_any_more_go_after_a_month() {
    let bench = Bench::new(22, 2).await;
    let repository = bench.open(Vec::new()).await.unwrap();
    for number in 0..20 {
        let damaged = (0..=number).map(|name| PackId([name; 32])).collect();
        let findings = crate::repository::Findings { damaged, ..Default::default() };
        repository.record_damage(&findings, &*bench.clock, &*bench.entropy).await.unwrap().0.unwrap();
    }
    let lists = async || {
        let objects = bench.objects().await.into_keys();
        objects.filter(|key| key.starts_with("damage/")).collect::<Vec<String>>()
    };
    let (known, all) = (repository.known_damage().await.unwrap(), lists().await);
    assert_eq!((known.packs.len(), all.len()), (20, 20));
    bench.prune(&keep(2)).await;
    assert_eq!(lists().await, all, "people look for what happened");
    bench.pass(31 * DAY);
    bench.prune(&keep(2)).await;
    assert_eq!(lists().await, all[4..], "the newest that a reader may come to");
    assert_eq!(repository.known_damage().await.unwrap(), known);
}

#[tokio::test]
async fn a_rule_that_keeps_a_backup_by_the_time_of_the_sweep_spares_it() {
    let bench = Bench::new(5, 4).await;
    bench.prune(&keep(1)).await;
    bench.pass(2 * DAY);
    let report = bench.prune(&keep(3)).await;
    assert_eq!(
        (&report.swept[0].backups, &report.swept[0].spared),
        (&vec![bench.id(0)], &vec![bench.id(1), bench.id(2)])
    );
    assert_eq!(bench.there().await, [bench.id(1), bench.id(2), bench.id(3)]);
    assert_eq!(bench.unneeded().await, []);
}

#[tokio::test]
async fn what_a_backup_has_come_to_need_since_the_plan_stays() {
    let mut bench = Bench::new(6, 3).await;
    // Of the oldest and the newest, some packs are shared; that the newest goes on needing them, only the second count sees.
    let named = PruneOptions { named: [bench.id(0), bench.id(1)].into(), grace_seconds: 86_400, ..Default::default() };
    bench.prune(&named).await;
    bench.backup().await;
    bench.pass(2 * DAY);
    bench.backup().await;
    bench.prune(&PruneOptions { grace_seconds: 86_400, ..Default::default() }).await;
    assert_eq!(bench.there().await, [bench.id(2), bench.id(3), bench.id(4)]);
    bench.unneeded().await;
}

#[tokio::test]
async fn the_newest_backup_cannot_be_named() {
    let bench = Bench::new(7, 2).await;
    let named = PruneOptions { named: [bench.id(1)].into(), ..keep(1) };
    let error = bench.prune_with(&named, Vec::new()).await.unwrap_err();
    assert!(matches!(error, PruneError::Stays { .. }), "{error}");
    let unknown = PruneOptions { named: ["20200101T000000Z-aaaaaa".parse().unwrap()].into(), ..keep(1) };
    assert_eq!(bench.prune_with(&unknown, Vec::new()).await.unwrap_err().kind(), Kind::Failed);
    assert_eq!(bench.there().await.len(), 2);
}

/// Ends a prune after any number of requests, and has the next go on.
async fn dies_anywhere(fault: &Fault, due: bool) -> usize {
    let begin = Bench::new(8, 4).await;
    if due {
        begin.prune(&keep(2)).await;
        begin.pass(2 * DAY);
    }
    let whole = begin.fork().await;
    whole.prune(&keep(2)).await;
    let expected = whole.there().await;
    for requests in 0.. {
        let bench = begin.fork().await;
        // What is not known when the run ends is known to the store: the next run starts as if nothing had been answered.
        let died = bench.prune_with(&keep(2), vec![Rule::after(requests, fault.clone())]).await;
        for backup in bench.there().await {
            assert!(expected.contains(&backup) || bench.manifests.iter().any(|manifest| manifest.id == backup));
        }
        bench.unneeded().await;
        bench.pass(i64::from(LEASE_SECONDS) + 10);
        bench.prune(&keep(2)).await;
        if due {
            assert_eq!(bench.there().await, expected, "after {requests} requests");
            assert_eq!(bench.unneeded().await, [], "after {requests} requests");
        }
        bench.pass(2 * DAY);
        bench.prune(&keep(2)).await;
        assert_eq!(bench.there().await, [bench.id(2), bench.id(3)], "after {requests} requests");
        assert_eq!(bench.unneeded().await, [], "after {requests} requests");
        if died.is_ok() {
            return requests as usize;
        }
    }
    unreachable!()
}

#[tokio::test]
async fn a_prune_that_dies_anywhere_is_finished_by_the_next() {
    let planning = dies_anywhere(&Fault::Reset, false).await;
    let sweeping = dies_anywhere(&Fault::Reset, true).await;
    let unanswered = dies_anywhere(&Fault::LoseAnswer, true).await;
    println!("killed after each of {planning} requests of a plan, {sweeping} and {unanswered} of a sweep");
    assert!(planning > 10 && sweeping > 20 && unanswered > 0);
}

#[tokio::test]
async fn credentials_that_may_not_delete_are_told_what_they_need_and_the_plan_stays() {
    let bench = Bench::new(9, 4).await;
    bench.prune(&keep(1)).await;
    bench.pass(2 * DAY);
    let before = bench.there().await;
    let denied = || vec![Rule::always(Operation::Delete, Fault::Denied)];
    let report = bench.prune_with(&keep(1), denied()).await.unwrap();
    let [skip] = report.skipped.as_slice() else { panic!("{report:?}") };
    assert!(skip.hint.as_ref().unwrap().contains("s3:DeleteObject"), "{skip:?}");
    assert_eq!((report.swept.len(), bench.there().await), (0, before));
    bench.pass(600);
    // Manifests may go, packs may not.
    let denied = || vec![Rule::always(Operation::Delete, Fault::Denied).on_keys("packs/")];
    let report = bench.prune_with(&keep(1), denied()).await.unwrap();
    assert_eq!((report.skipped.len(), bench.there().await), (1, vec![bench.id(3)]));
    assert!(!bench.unneeded().await.is_empty());
    bench.pass(600);
    bench.prune(&keep(1)).await;
    assert_eq!(bench.unneeded().await, []);
}

#[tokio::test]
async fn where_it_cannot_be_counted_what_a_backup_needs_no_pack_goes() {
    for what in ["manifest", "map"] {
        let bench = Bench::new(10, 4).await;
        bench.prune(&keep(2)).await;
        bench.pass(2 * DAY);
        let packs = bench.packs().await;
        let key = match what {
            "manifest" => ObjectKey::Manifest(bench.id(2)).text(),
            _ => ObjectKey::Pack(bench.manifests[2].map.pack).text(),
        };
        let whole = bench.objects().await[&key].clone();
        bench.tamper(&key, vec![0; whole.len()]).await;
        let report = bench.prune(&keep(2)).await;
        assert!(!report.skipped.is_empty(), "{what}: {report:?}");
        assert_eq!(bench.packs().await, packs, "{what}");
        bench.tamper(&key, whole.to_vec()).await;
        bench.pass(600);
        bench.prune(&keep(2)).await;
        assert_eq!(bench.there().await, [bench.id(2), bench.id(3)], "{what}");
        bench.pass(2 * DAY);
        bench.prune(&keep(2)).await;
        assert_eq!(bench.unneeded().await, [], "{what}");
    }
}

#[tokio::test]
async fn nothing_is_deleted_while_a_backup_is_at_work() {
    let bench = Bench::new(11, 4).await;
    bench.prune(&keep(1)).await;
    bench.pass(2 * DAY);
    let repository = bench.open(Vec::new()).await.unwrap();
    let mut lease = repository.lease("backup", &*bench.entropy).await.unwrap();
    let report = bench.prune(&keep(1)).await;
    assert!(report.put_off.is_some() && report.swept.is_empty(), "{report:?}");
    assert_eq!(bench.there().await.len(), 4);
    repository.release(&mut lease).await.unwrap();
    assert_eq!(bench.prune(&keep(1)).await.swept.len(), 1);
}

#[tokio::test]
async fn a_second_prune_gives_way() {
    let bench = Bench::new(12, 2).await;
    let repository = bench.open(Vec::new()).await.unwrap();
    let _lease = repository.lease("prune", &*bench.entropy).await.unwrap();
    let error = bench.prune_with(&keep(1), Vec::new()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Locked);
}

#[tokio::test]
async fn packs_of_runs_that_died_go_once_there_is_a_newer_backup() {
    let mut bench = Bench::new(13, 2).await;
    let stray = bytes::Bytes::from_static(b"what a run left that died");
    let id = crate::format::pack_id(&stray);
    let repository = bench.open(Vec::new()).await.unwrap();
    repository.put_pack(id, stray).await.unwrap();
    let none = PruneOptions { grace_seconds: 86_400, ..PruneOptions::default() };
    assert_eq!(bench.prune(&none).await.made, None);
    bench.backup().await;
    assert_eq!(bench.prune(&none).await.made.unwrap().packs, 1);
    bench.pass(2 * DAY);
    bench.prune(&none).await;
    assert_eq!(bench.unneeded().await, []);
    assert_eq!(bench.there().await.len(), 3);
}

#[tokio::test]
async fn records_that_nobody_needs_any_more_go_too() {
    let bench = Bench::new(14, 3).await;
    bench.prune(&keep(1)).await;
    bench.pass(2 * DAY);
    bench.prune(&keep(1)).await;
    bench.pass(40 * DAY);
    bench.prune(&keep(1)).await;
    let left: Vec<String> = bench.objects().await.into_keys().collect();
    let of = |folder: &str| left.iter().filter(|key| key.starts_with(folder)).count();
    assert_eq!((of("prune/"), of("backups/")), (0, 1), "{left:?}");
    assert!(of("leases/") <= 2, "{left:?}");
}

/// Stores a proof of backup number `number`.
async fn prove(bench: &Bench, number: usize, passed: bool) -> String {
    let repository = bench.open(Vec::new()).await.unwrap();
    let mut proof = if passed { crate::format::proof_passing() } else { crate::format::proof_example() };
    (proof.repository_id, proof.backup) = (repository.config().repository_id, bench.id(number));
    proof.id = ProofId::new(bench.clock.now(), &*bench.entropy);
    repository.put_proof(&proof).await.unwrap().text()
}

#[tokio::test]
async fn the_last_proven_backup_stays_in_the_plan_and_in_the_sweep_until_a_newer_one_is_proven() {
    let bench = Bench::new(16, 6).await;
    prove(&bench, 0, true).await;
    prove(&bench, 1, true).await;
    prove(&bench, 2, false).await;
    let made = bench.prune(&keep(1)).await.made.unwrap();
    assert_eq!(made.backups, [bench.id(0), bench.id(2), bench.id(3), bench.id(4)]);
    let named = PruneOptions { named: [bench.id(1)].into(), ..keep(1) };
    let error = bench.prune_with(&named, Vec::new()).await.unwrap_err();
    assert!(error.to_string().contains("was proven") && error.hint().unwrap().contains("haulout drill"), "{error}");
    // One that the plan lets go of is proven before the plan is carried out, also by a prune without any rule.
    let late = prove(&bench, 3, true).await;
    bench.pass(2 * DAY);
    let report = bench.prune(&PruneOptions { grace_seconds: 86_400, ..Default::default() }).await;
    assert_eq!(report.swept[0].spared, [bench.id(3)]);
    assert_eq!(bench.there().await, [bench.id(1), bench.id(3), bench.id(5)]);
    // A proof that is damaged does not count, and the one before it does.
    bench.tamper(&late, b"{}".to_vec()).await;
    let made = bench.prune(&keep(1)).await.made.unwrap();
    assert_eq!(made.backups, [bench.id(3)]);
    assert_eq!(bench.unneeded().await, []);
}

#[tokio::test]
async fn where_proofs_cannot_be_listed_nothing_is_let_go_of() {
    let bench = Bench::new(17, 3).await;
    let before = bench.there().await;
    let rules = vec![Rule::always(Operation::List, Fault::Denied).on_keys("proofs")];
    let error = bench.prune_with(&keep(1), rules).await.unwrap_err();
    assert_eq!(error.kind(), Kind::StorageUnavailable, "{error}");
    assert_eq!(bench.there().await, before);
    assert_eq!(bench.open(Vec::new()).await.unwrap().prune_state().await.unwrap().plans.len(), 0);
}

#[tokio::test]
async fn proofs_of_backups_that_are_gone_go_when_they_are_old_and_no_others() {
    let bench = Bench::new(18, 3).await;
    let gone = prove(&bench, 0, true).await;
    let stays = prove(&bench, 2, true).await;
    let all_of = |objects: BTreeMap<String, bytes::Bytes>| -> Vec<String> {
        objects.into_keys().filter(|key| key.starts_with("proofs/")).collect()
    };
    let all = [gone.clone(), stays.clone()];
    bench.prune(&keep(1)).await;
    bench.pass(2 * DAY);
    bench.prune(&keep(1)).await;
    assert_eq!(bench.there().await, [bench.id(2)]);
    assert_eq!(all_of(bench.objects().await), all, "people may look for it");
    bench.pass(29 * DAY);
    let denied = vec![Rule::always(Operation::Delete, Fault::Denied).on_keys("proofs/")];
    bench.prune_with(&keep(1), denied).await.unwrap();
    assert_eq!(all_of(bench.objects().await), all);
    bench.prune(&keep(1)).await;
    assert_eq!(all_of(bench.objects().await), [stays]);
}

#[tokio::test]
async fn a_backup_that_is_committed_while_a_prune_looks_loses_nothing() {
    let mut bench = Bench::new(15, 3).await;
    let repository = bench.open(Vec::new()).await.unwrap();
    let (context, options) = (bench.context(repository.clone()), keep(3));
    let run = Run { context: &context, options: &options, lease: None };
    let now = bench.clock.now();
    let pending = Pending::read(&repository).await.unwrap();
    let backups = run.decide(&pending, now).await.unwrap();
    bench.backup().await;
    let mut report = PruneReport::default();
    let draft = run.draft(&pending, &backups, &mut Count::default(), now, &mut report).await.unwrap();
    assert_eq!(draft.map(|draft| draft.packs), None);
}
