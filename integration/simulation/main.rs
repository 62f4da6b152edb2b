//! Agents at work on one repository, each of which can die at any request, on a store that fails and a clock that jumps.
//!
//! A seed decides what happens: backups of a made-up server, prunes, undeletes, checks and fetches, up to three at a time, some on a
//! store with faults, some killed after so many requests, some asleep for longer than a lease holds. Then the
//! weather is made fair, and must hold:
//!
//! - every backup that is there comes back byte for byte, and all packs that any needs are right;
//! - a backup that was committed is there unless a plan let go of it, and what was undeleted is there;
//! - after one more backup and a prune with its grace period, nothing is left that nobody needs.
//!
//! The threads of a capture are not under the seed's command: a seed repeats the plan and the faults, and mostly the interleaving.
//! `HAULOUT_SIMULATION_FIRST=seed HAULOUT_SIMULATION_SEEDS=1` runs one again.

#![recursion_limit = "256"]

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::TryStreamExt;
use object_store::memory::InMemory;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::watch;

// The made-up server calls the rooms as the library does.
use haulout::{backup, error, mariadb, model, prune, repository, restore, store, verify};

use backup::{BackupOptions, SpoolOptions, Want};
use error::{Diagnose, Kind};
use model::{BackupId, Clock, Entropy, PackId, Silent, Timestamp};
use prune::{KeepPolicy, PruneOptions};
use repository::{References, Repository};
use store::faulty::{Fault, FaultyStore, Odds, Rule, Script};
use store::timed::TimedStore;
use store::{RetryPolicy, Store, StoreOptions};

#[path = "../../src/backup/made_up.rs"]
#[allow(dead_code, reason = "the pipeline's own tests use the rest of it")]
mod made_up;

use made_up::{MadeUp, World};

/// Seeds of every test run, and of a long one.
const SEEDS: u64 = 300;
const SEEDS_FULL: u64 = 10_000;
/// Most pages of a table: a run takes some tens of milliseconds.
const PAGES_MAX: u32 = 24;
const DAY: i64 = 86_400;
/// Time for one seed, which takes well below a second.
const SEED_LIMIT: Duration = Duration::from_secs(120);

/// A clock that goes on by a second with each look, and by more when the seed says so.
struct Hand {
    seconds: AtomicI64,
    /// How far it jumps at every look with this number, and what the looks are counted by.
    naps: Mutex<BTreeMap<u64, i64>>,
    looks: AtomicU64,
}

impl Hand {
    fn pass(&self, seconds: i64) {
        self.seconds.fetch_add(seconds, Ordering::SeqCst);
    }
}

impl Clock for Hand {
    fn now(&self) -> Timestamp {
        let look = self.looks.fetch_add(1, Ordering::SeqCst);
        if let Some(nap) = self.naps.lock().unwrap().remove(&look) {
            self.pass(nap);
        }
        Timestamp(jiff::Timestamp::from_second(self.seconds.fetch_add(1, Ordering::SeqCst)).unwrap())
    }
}

/// Chance by a seed.
struct Seeded(Mutex<StdRng>);

impl Entropy for Seeded {
    fn fill(&self, bytes: &mut [u8]) {
        rand::RngCore::fill_bytes(&mut *self.0.lock().unwrap(), bytes);
    }
}

/// What an agent does.
#[derive(Debug, Clone)]
enum Work {
    Backup(Want),
    Prune { last: u32, daily: u32, grace_hours: u64 },
    Undelete(usize),
    Check,
    Fetch(usize),
}

/// How the world treats it.
#[derive(Debug, Clone)]
enum Weather {
    Fair,
    /// The process dies with this request; `true` if the request still reaches the store.
    Dies(u64, bool),
    Faults(u64),
}

struct Site {
    seed: u64,
    timed: TimedStore,
    clock: Arc<Hand>,
    entropy: Arc<Seeded>,
    source: Arc<MadeUp>,
    folder: tempfile::TempDir,
    log: Mutex<Vec<String>>,
    /// Backups whose run ended well.
    committed: Mutex<BTreeSet<BackupId>>,
    /// Backups of which somebody was told that they stay.
    undeleted: Mutex<BTreeSet<BackupId>>,
    fetches: AtomicUsize,
}

/// What a run did, for the figures at the end.
#[derive(Debug, Default, Clone)]
struct Tally {
    backups: usize,
    restored: usize,
    killed: usize,
    deleted: usize,
    faults: u64,
}

impl Site {
    async fn new(seed: u64) -> Site {
        let clock =
            Arc::new(Hand { seconds: AtomicI64::new(1_795_000_000), naps: Mutex::default(), looks: AtomicU64::new(0) });
        let timed = TimedStore::new(Arc::new(InMemory::new()), clock.clone());
        let entropy = Arc::new(Seeded(Mutex::new(StdRng::seed_from_u64(seed ^ 0xabcd))));
        let world = World { shrinks: false, ..World::of(seed, PAGES_MAX) };
        let source = Arc::new(MadeUp(Mutex::new(world)));
        let folder = tempfile::tempdir().unwrap();
        let site = Site {
            seed,
            timed,
            clock,
            entropy,
            source,
            folder,
            log: Mutex::default(),
            committed: Mutex::default(),
            undeleted: Mutex::default(),
            fetches: AtomicUsize::new(0),
        };
        Repository::init(site.store(Script::default()).0, &*site.clock, &*site.entropy).await.unwrap();
        site
    }

    fn store(&self, script: Script) -> (Store, FaultyStore) {
        let faulty = FaultyStore::new(Arc::new(self.timed.clone()), script);
        let retry = RetryPolicy {
            attempts_max: 3,
            pause_first: Duration::from_millis(1),
            pause_max: Duration::from_millis(2),
            ..RetryPolicy::default()
        };
        let options =
            StoreOptions { retry, clock: self.clock.clone(), entropy: self.entropy.clone(), ..StoreOptions::default() };
        (Store::over("memory:///", Arc::new(faulty.clone()), options), faulty)
    }

    fn say(&self, text: String) {
        self.log.lock().unwrap().push(text);
    }

    /// Does `work` in `weather`.
    async fn agent(&self, number: usize, work: Work, weather: Weather, tally: &Mutex<Tally>) {
        let script = match weather {
            Weather::Fair => Script::default(),
            Weather::Dies(requests, reaches) => Script {
                rules: vec![
                    Rule { times: u64::from(reaches), ..Rule::after(requests, Fault::LoseAnswer) },
                    Rule::after(if reaches { 0 } else { requests }, Fault::Reset),
                ],
                ..Script::default()
            },
            Weather::Faults(seed) => Script {
                odds: Odds {
                    reset: 30,
                    lose_answer: 30,
                    cut_body: 20,
                    break_body: 20,
                    flip_bit: 20,
                    old_list: 20,
                    ..Odds::default()
                },
                seed,
                ..Script::default()
            },
        };
        let (store, faulty) = self.store(script);
        let told = match Repository::open(store).await {
            Ok(repository) => self.work(Arc::new(repository), &work, tally).await,
            Err(error) => Err(format!("{:?}: {error}", error.kind())),
        };
        let faults = faulty.faults();
        let mut tally = tally.lock().unwrap();
        tally.faults += faults;
        tally.killed += usize::from(matches!(weather, Weather::Dies(..)) && faults > 0);
        self.say(format!("  agent {number}: {work:?} in {weather:?}, {faults} faults: {told:?}"));
    }

    async fn work(&self, repository: Arc<Repository>, work: &Work, tally: &Mutex<Tally>) -> Result<String, String> {
        let (_stop, cancel) = watch::channel(false);
        let failed = |kind: Kind, error: &dyn std::error::Error| format!("{kind:?}: {error}");
        let (clock, entropy, progress) = (self.clock.clone(), self.entropy.clone(), Arc::new(Silent));
        match work {
            Work::Backup(want) => {
                let options = BackupOptions {
                    want: *want,
                    compression_level: 1,
                    workers: 1,
                    uploads_max: 2,
                    spool: SpoolOptions { directory: PathBuf::new(), bytes_max: 0 },
                    depth_max: u32::MAX,
                    tags: Vec::new(),
                    sweep_pause: Duration::from_millis(1),
                };
                let context = backup::Context { repository, clock, entropy, progress, cancel };
                // On the heap: the compiler lays futures out only so many deep.
                let outcome = Box::pin(backup::backup(&context, self.source.clone(), &options)).await;
                let outcome = outcome.map_err(|error| failed(error.kind(), &error))?;
                tally.lock().unwrap().backups += 1;
                self.committed.lock().unwrap().insert(outcome.manifest.id.clone());
                Ok(format!("{} {:?}", outcome.manifest.id, outcome.manifest.kind))
            }
            Work::Prune { last, daily, grace_hours } => {
                let policy = KeepPolicy { last: *last, daily: *daily, ..KeepPolicy::default() };
                let options = PruneOptions { policy, grace_seconds: grace_hours * 3600, ..PruneOptions::default() };
                let context = prune::Context { repository, clock, entropy, progress, cancel };
                let report = prune::prune(&context, &options).await.map_err(|error| failed(error.kind(), &error))?;
                let deleted: Vec<&BackupId> = report.swept.iter().flat_map(|swept| &swept.backups).collect();
                tally.lock().unwrap().deleted += deleted.len();
                Ok(format!(
                    "deleted {deleted:?}, made {:?}, skipped {:?}, put off {:?}",
                    report.made, report.skipped, report.put_off
                ))
            }
            Work::Undelete(number) => {
                let ids = repository.backup_ids().await.map_err(|error| failed(error.kind(), &error))?;
                let planned = prune::planned(&repository, &ids).await.map_err(|error| failed(error.kind(), &error))?;
                let Some((id, _)) = planned.get(number % planned.len().max(1)) else {
                    return Ok("nothing to undelete".to_owned());
                };
                prune::undelete(&repository, std::slice::from_ref(id), &*entropy)
                    .await
                    .map_err(|error| failed(error.kind(), &error))?;
                self.undeleted.lock().unwrap().insert(id.clone());
                Ok(format!("undeleted {id}"))
            }
            Work::Check => {
                let all = verify::Selection::All;
                let read = Some(verify::ReadData { percent: 100, seed: 0 });
                let report = verify::check(&repository, &all, read, &Silent).await;
                let report = report.map_err(|error| failed(error.kind(), &error))?;
                Ok(format!("{} damages", report.damages.len()))
            }
            Work::Fetch(number) => {
                let ids = repository.backup_ids().await.map_err(|error| failed(error.kind(), &error))?;
                let Some(id) = ids.get(number % ids.len().max(1)) else { return Ok("nothing to fetch".to_owned()) };
                self.fetched(&repository, id).await
            }
        }
    }

    /// Fetches a backup, and panics if it is another than was taken; not if it cannot be fetched.
    async fn fetched(&self, repository: &Repository, id: &BackupId) -> Result<String, String> {
        let manifest = repository.manifest(id).await.map_err(|error| format!("{:?}: {error}", error.kind()))?;
        let number = self.fetches.fetch_add(1, Ordering::SeqCst);
        let target = self.folder.path().join(format!("fetched-{number}"));
        let (_stop, cancel) = watch::channel(false);
        let watch = restore::Watch { progress: Arc::new(Silent), cancel: cancel.into() };
        let options = restore::FetchOptions { requests: 2 };
        let fetched = restore::fetch(repository, &manifest, &target, options, &watch).await;
        fetched.map_err(|error| format!("{:?}: {error}", error.kind()))?;
        let world = self.source.0.lock().unwrap();
        let expected = world
            .history
            .get(&manifest.lsn.last)
            .unwrap_or_else(|| panic!("seed {}: {id} is of no capture", self.seed));
        for (path, bytes) in expected.iter().filter(|(path, _)| *path != "xtrabackup_checkpoints") {
            let found = std::fs::read(target.join(path))
                .unwrap_or_else(|error| panic!("seed {}: {id}: {path}: {error}", self.seed));
            // Laid over its parent, a tablespace gets four pages at least, as the tool makes them.
            let mut expected = bytes.clone();
            if path.ends_with(".ibd") {
                expected.resize(bytes.len().max(4 * made_up::PAGE), 0);
            }
            let differs = found.iter().zip(&expected).position(|(one, other)| one != other);
            let lengths = (found.len(), expected.len());
            assert!(
                found == *bytes || found == expected,
                "seed {}: {id}: {path} differs at {differs:?}, {lengths:?} bytes",
                self.seed
            );
        }
        std::fs::remove_dir_all(&target).unwrap();
        Ok(format!("fetched {id}"))
    }

    /// Makes the weather fair and looks at what is there.
    async fn settle(&self, tally: &Mutex<Tally>, policies: &[(u32, u32)]) {
        self.clock.naps.lock().unwrap().clear();
        let open = async || Arc::new(Repository::open(self.store(Script::default()).0).await.unwrap());
        let repository = open().await;
        let there: BTreeSet<BackupId> = repository.backup_ids().await.unwrap().into_iter().collect();
        // Whatever a plan let go of was once named by one; nothing else may be gone.
        let prunes = !policies.is_empty();
        for id in self.committed.lock().unwrap().iter().filter(|id| !there.contains(*id)) {
            assert!(prunes, "seed {}: {id} is gone, and nobody pruned", self.seed);
        }
        for id in self.undeleted.lock().unwrap().iter() {
            assert!(there.contains(id), "seed {}: {id} was undeleted, and is gone", self.seed);
        }
        if let Some(newest) = self.committed.lock().unwrap().last() {
            assert!(there.contains(newest), "seed {}: the newest backup {newest} is gone", self.seed);
        }
        for id in &there {
            self.fetched(&repository, id).await.unwrap_or_else(|error| panic!("seed {}: {id}: {error}", self.seed));
            tally.lock().unwrap().restored += 1;
        }
        let read = Some(verify::ReadData { percent: 100, seed: 0 });
        let report = verify::check(&repository, &verify::Selection::All, read, &Silent).await.unwrap();
        assert!(report.is_clean(), "seed {}: {report:#?}", self.seed);
        // Another backup, and what nobody needs goes after its grace.
        self.clock.pass(DAY);
        let work = |work: Work| async move {
            let repository = open().await;
            self.work(repository, &work, tally)
                .await
                .unwrap_or_else(|error| panic!("seed {}: {work:?}: {error}", self.seed));
        };
        work(Work::Backup(Want::Either)).await;
        for _ in 0..2 {
            work(Work::Prune { last: 3, daily: 0, grace_hours: 24 }).await;
            self.clock.pass(2 * DAY);
        }
        work(Work::Prune { last: 3, daily: 0, grace_hours: 24 }).await;
        let repository = open().await;
        let mut references = References::default();
        let manifests = repository.manifests().await.unwrap();
        for (_, manifest) in manifests {
            references.add(&repository, &manifest.unwrap()).await.unwrap();
        }
        let packs = repository.packs().await.unwrap();
        let unneeded: Vec<&PackId> = packs.keys().filter(|pack| !references.need(pack)).collect();
        assert!(unneeded.is_empty(), "seed {}: nobody needs {unneeded:?}", self.seed);
        let keys: Vec<_> = repository.store().list(None).try_collect().await.unwrap();
        let others = keys.iter().filter(|object| !object.key.as_str().starts_with("packs/")).count();
        assert!(others < 80, "seed {}: {others} objects besides packs", self.seed);
        for id in repository.backup_ids().await.unwrap() {
            self.fetched(&repository, &id).await.unwrap_or_else(|error| panic!("seed {}: {id}: {error}", self.seed));
            tally.lock().unwrap().restored += 1;
        }
    }
}

fn work(rng: &mut StdRng) -> Work {
    match rng.random_range(0..10) {
        0..5 => Work::Backup([Want::Either, Want::Full][usize::from(rng.random_bool(0.2))]),
        5..8 => Work::Prune {
            last: rng.random_range(1..4),
            daily: rng.random_range(0..2),
            grace_hours: [0, 1, 24][rng.random_range(0..3)],
        },
        8 => match rng.random_range(0..2) {
            0 => Work::Undelete(rng.random_range(0..9)),
            _ => Work::Check,
        },
        _ => Work::Fetch(rng.random_range(0..9)),
    }
}

fn weather(rng: &mut StdRng) -> Weather {
    match rng.random_range(0..10) {
        0..5 => Weather::Fair,
        5..8 => Weather::Dies(rng.random_range(0..40), rng.random_bool(0.5)),
        _ => Weather::Faults(rng.random()),
    }
}

async fn history(seed: u64, told: Arc<Mutex<Vec<String>>>) -> Tally {
    let mut rng = StdRng::seed_from_u64(seed);
    let site = Site::new(seed).await;
    let tally = Mutex::new(Tally::default());
    let mut policies = Vec::new();
    for round in 0..rng.random_range(3..9) {
        let agents = if rng.random_bool(0.5) { 1 } else { rng.random_range(2..4) };
        let works: Vec<(Work, Weather)> = (0..agents).map(|_| (work(&mut rng), weather(&mut rng))).collect();
        policies.extend(works.iter().filter_map(|(work, _)| match work {
            Work::Prune { last, daily, .. } => Some((*last, *daily)),
            _ => None,
        }));
        site.say(format!("round {round}:"));
        if rng.random_bool(0.3) {
            // Somebody sleeps for longer than a lease holds.
            let look = site.clock.looks.load(Ordering::SeqCst) + rng.random_range(1..60);
            site.clock.naps.lock().unwrap().insert(look, rng.random_range(301..5000));
        }
        let runs =
            works.into_iter().enumerate().map(|(number, (work, weather))| site.agent(number, work, weather, &tally));
        futures::future::join_all(runs).await;
        told.lock().unwrap().append(&mut site.log.lock().unwrap());
        site.source.0.lock().unwrap().live();
        site.clock.pass([60, 400, 3 * 3600, DAY, 2 * DAY][rng.random_range(0..5)]);
    }
    site.clock.pass(400);
    site.settle(&tally, &policies).await;
    told.lock().unwrap().append(&mut site.log.lock().unwrap());
    tally.into_inner().unwrap()
}

/// One seed, in a runtime of its own.
fn run(seed: u64) -> Result<Tally, String> {
    let told = Arc::new(Mutex::new(Vec::new()));
    let log = told.clone();
    let ended = std::panic::catch_unwind(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let limited = async { tokio::time::timeout(SEED_LIMIT, history(seed, log)).await };
        runtime.block_on(limited).unwrap_or_else(|_| panic!("seed {seed}: stands still"))
    });
    ended.map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default();
        let log = told.lock().unwrap_or_else(std::sync::PoisonError::into_inner).join("\n");
        format!("{text}\n{log}")
    })
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn whatever_happens_no_backup_is_lost_and_nothing_is_left() {
    let full = std::env::var_os("HAULOUT_TEST_FULL").is_some();
    let count = number("HAULOUT_SIMULATION_SEEDS").unwrap_or(if full { SEEDS_FULL } else { SEEDS });
    let first = number("HAULOUT_SIMULATION_FIRST").unwrap_or(1);
    let next = AtomicU64::new(first);
    let (sum, failed) = (Mutex::new(Tally::default()), Mutex::new(BTreeMap::new()));
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::SeqCst);
                    if seed >= first + count {
                        return;
                    }
                    match run(seed) {
                        Ok(tally) => {
                            let mut sum = sum.lock().unwrap();
                            sum.backups += tally.backups;
                            sum.restored += tally.restored;
                            sum.killed += tally.killed;
                            sum.deleted += tally.deleted;
                            sum.faults += tally.faults;
                        }
                        Err(why) => drop(failed.lock().unwrap().insert(seed, why)),
                    }
                }
            });
        }
    });
    let (sum, failed) = (sum.into_inner().unwrap(), failed.into_inner().unwrap());
    println!("{count} seeds from {first}: {sum:?}");
    for (seed, why) in failed.iter().take(3) {
        println!("--- seed {seed}\n{why}");
    }
    let seeds: HashSet<&u64> = failed.keys().collect();
    assert!(failed.is_empty(), "{} seeds failed: {seeds:?}", failed.len());
    if count >= SEEDS {
        assert!(sum.killed > 100 && sum.deleted > 100 && sum.faults > 1000, "{sum:?}");
    }
}
