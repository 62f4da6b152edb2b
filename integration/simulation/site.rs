//! The place where it all happens: a bucket, a clock, a made-up server, and what everybody was told.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::watch;

use haulout::format::{Credential, KeySlot, NewSlot, SecretKey, Wraps, key_of_file};
use haulout::model::{BackupId, Clock, Entropy, LockMode, LockPolicy, PackId, Silent, Timestamp};
use haulout::repository::{Access, KeySource, Repository, RepositoryError};
use haulout::restore;
use haulout::store::bucket::{Bucket, Limits};
use haulout::store::faulty::{Fault, FaultyStore, Odds, Rule, Script};
use haulout::store::{RetryPolicy, Store, StoreOptions};

use crate::made_up::{self, MadeUp, World};

/// Most pages of a table: a run takes some tens of milliseconds.
const PAGES_MAX: u32 = 24;
/// By how much the clock of a machine is wrong, in seconds.
const SKEWS: [i64; 6] = [0, 0, 0, -600, 240, 600];
/// Time after which a request is given up: what hangs, hangs for real.
const SILENCE: Duration = Duration::from_millis(40);
const KEY_FILE: &[u8] = b"a key file of the simulation, long enough";

/// A clock that goes on by a second with each look, and by more when the seed says so.
pub struct Hand {
    seconds: AtomicI64,
    /// How far it jumps at every look with this number, and what the looks are counted by.
    naps: Mutex<BTreeMap<u64, i64>>,
    looks: AtomicU64,
}

impl Hand {
    pub fn pass(&self, seconds: i64) {
        self.seconds.fetch_add(seconds, Ordering::SeqCst);
    }

    /// Has whoever looks at the clock for the `looks`th time from now on sleep for `seconds`.
    pub fn nap(&self, looks: u64, seconds: i64) {
        let look = self.looks.load(Ordering::SeqCst) + looks;
        self.naps.lock().unwrap().insert(look, seconds);
    }

    pub fn wake(&self) {
        self.naps.lock().unwrap().clear();
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

/// The clock of the store, which never sleeps.
struct Steady(Arc<Hand>);

impl Clock for Steady {
    fn now(&self) -> Timestamp {
        Timestamp(jiff::Timestamp::from_second(self.0.seconds.fetch_add(1, Ordering::SeqCst)).unwrap())
    }
}

/// The clock of a machine, which is wrong by a while.
struct Skewed(Arc<Hand>, i64);

impl Clock for Skewed {
    fn now(&self) -> Timestamp {
        self.0.now().after(self.1)
    }
}

/// Chance by a seed.
pub struct Seeded(Mutex<StdRng>);

impl Entropy for Seeded {
    fn fill(&self, bytes: &mut [u8]) {
        rand::RngCore::fill_bytes(&mut *self.0.lock().unwrap(), bytes);
    }
}

struct KeyFile(SecretKey);

#[async_trait::async_trait]
impl KeySource for KeyFile {
    async fn key(&self, slot: &KeySlot) -> Result<Option<SecretKey>, String> {
        Ok(slot.open(&self.0).is_ok().then(|| self.0.clone()))
    }
}

/// How the world treats an agent.
#[derive(Debug, Clone)]
pub enum Weather {
    Fair,
    /// The process dies with this request; `true` if the request still reaches the store.
    Dies(u64, bool),
    Faults(u64),
}

impl Weather {
    pub fn of(rng: &mut StdRng) -> Weather {
        match rng.random_range(0..10) {
            0..4 => Weather::Fair,
            4..8 => {
                // Most works are of 10 to 40 requests.
                let most = if rng.random_bool(0.7) { 30 } else { 90 };
                Weather::Dies(rng.random_range(0..most), rng.random_bool(0.5))
            }
            _ => Weather::Faults(rng.random()),
        }
    }

    fn script(&self, turns_max: u64, seed: u64) -> Script {
        let script = Script { seed, turns_max, ..Script::default() };
        match *self {
            Weather::Fair => script,
            Weather::Dies(requests, reaches) => Script {
                rules: vec![
                    Rule { times: u64::from(reaches), ..Rule::after(requests, Fault::LoseAnswer) },
                    Rule::after(if reaches { 0 } else { requests }, Fault::Reset),
                ],
                ..script
            },
            Weather::Faults(seed) => Script {
                odds: Odds {
                    reset: 25,
                    lose_answer: 25,
                    cut_body: 15,
                    break_body: 15,
                    flip_bit: 20,
                    old_list: 20,
                    throttle: 20,
                    expire: 4,
                    conflict: 10,
                    delay: 10,
                    hang: 2,
                },
                seed,
                ..script
            },
        }
    }
}

/// What the repository is like.
#[derive(Debug, Clone)]
pub struct Habits {
    pub lock: Option<LockPolicy>,
    pub sealed: bool,
    /// Keys of a page of a listing.
    page_keys: usize,
    /// The store passes over `If-None-Match`.
    ignores_conditions: bool,
    /// Turns that a request leaves to others.
    turns_max: u64,
    /// Whether something stored rots on the way.
    pub rots: bool,
    /// Prunes without grace, compactions and backups all at once, and always somebody who sleeps.
    pub quarrel: bool,
}

impl Habits {
    fn of(rng: &mut StdRng) -> Habits {
        let days = rng.random_range(1..4);
        let lock = LockPolicy { mode: LockMode::Compliance, days: NonZeroU32::new(days).unwrap() };
        Habits {
            lock: rng.random_bool(0.25).then_some(lock),
            sealed: rng.random_bool(0.2),
            page_keys: [1000, 1000, 6][rng.random_range(0..3)],
            ignores_conditions: rng.random_bool(0.1),
            turns_max: [0, 2, 6][rng.random_range(0..3)],
            rots: rng.random_bool(0.25),
            quarrel: rng.random_bool(0.25),
        }
    }
}

/// An agent's machine: its way to the store, its clock.
pub struct Machine {
    pub repository: Arc<Repository>,
    /// The store of the copy, reached as well as that of the repository.
    pub copy: Store,
    pub clock: Arc<dyn Clock>,
}

pub struct Site {
    pub seed: u64,
    pub habits: Habits,
    pub bucket: Bucket,
    /// The way to it that all others stand beside.
    way: FaultyStore,
    /// The way to the bucket of the copy.
    copy_way: FaultyStore,
    pub clock: Arc<Hand>,
    pub entropy: Arc<Seeded>,
    pub source: Arc<MadeUp>,
    folder: tempfile::TempDir,
    access: Access,
    pub log: Arc<Mutex<Vec<String>>>,
    /// Backups whose run ended well.
    pub committed: Mutex<BTreeSet<BackupId>>,
    /// Backups of which somebody was told that they stay.
    pub undeleted: Mutex<BTreeSet<BackupId>>,
    /// Backups whose manifests rotted, or the plans that may have let go of them.
    pub lost: Mutex<BTreeSet<BackupId>>,
    fetches: AtomicUsize,
    pub tally: Mutex<Tally>,
}

/// What a run did, for the figures at the end.
#[derive(Debug, Default, Clone)]
pub struct Tally {
    pub backups: usize,
    pub restored: usize,
    pub killed: usize,
    pub deleted: usize,
    pub compacted: usize,
    /// Backups that came across into the copy, and those of it that were restored.
    pub copied: usize,
    pub of_copy: usize,
    pub faults: u64,
    pub requests: u64,
    /// Packs whose locks were looked at when a backup that needs them had been committed.
    pub locks: usize,
    pub sealed: usize,
    /// Objects that rotted, and backups that could not be restored for it.
    pub rotten: usize,
    pub lost: usize,
}

impl Tally {
    pub fn add(&mut self, other: &Tally) {
        self.backups += other.backups;
        self.restored += other.restored;
        self.killed += other.killed;
        self.deleted += other.deleted;
        self.compacted += other.compacted;
        self.copied += other.copied;
        self.of_copy += other.of_copy;
        self.faults += other.faults;
        self.requests += other.requests;
        self.locks += other.locks;
        self.sealed += other.sealed;
        self.rotten += other.rotten;
        self.lost += other.lost;
    }
}

impl Site {
    pub async fn new(seed: u64, rng: &mut StdRng, told: Arc<Mutex<Vec<String>>>) -> Site {
        let clock =
            Arc::new(Hand { seconds: AtomicI64::new(1_795_000_000), naps: Mutex::default(), looks: AtomicU64::new(0) });
        let habits = Habits::of(rng);
        let limits = Limits {
            page_keys: habits.page_keys,
            ignores_conditions: habits.ignores_conditions,
            unconditional: habits.ignores_conditions,
            ..Limits::default()
        };
        let bucket = match habits.lock {
            Some(_) => Bucket::locking(Arc::new(Steady(clock.clone())), limits),
            None => Bucket::plain(Arc::new(Steady(clock.clone())), limits),
        };
        let entropy = Arc::new(Seeded(Mutex::new(StdRng::seed_from_u64(seed ^ 0xabcd))));
        let world = World { shrinks: false, ..World::of(seed, PAGES_MAX) };
        let key = key_of_file(KEY_FILE).unwrap();
        let site = Site {
            seed,
            way: FaultyStore::over_bucket(&bucket, Script::default()),
            copy_way: FaultyStore::over_bucket(
                &Bucket::plain(Arc::new(Steady(clock.clone())), limits),
                Script::default(),
            ),
            bucket,
            clock,
            access: Access { keys: Arc::new(KeyFile(key.clone())), entropy: entropy.clone() },
            entropy,
            source: Arc::new(MadeUp(Mutex::new(world))),
            folder: tempfile::tempdir().unwrap(),
            log: told,
            committed: Mutex::default(),
            undeleted: Mutex::default(),
            lost: Mutex::default(),
            fetches: AtomicUsize::new(0),
            tally: Mutex::new(Tally { sealed: usize::from(habits.sealed), ..Tally::default() }),
            habits,
        };
        let store = site.store(&site.way, Script::default(), site.clock.clone()).0;
        let slot = NewSlot { credential: Credential::File(key), wraps: Wraps::All, label: String::new() };
        let (lock, clock, entropy) = (site.habits.lock, &*site.clock, site.entropy.clone());
        match lock {
            _ if site.habits.sealed => Repository::init_sealed(store, lock, clock, entropy, &slot).await.unwrap(),
            Some(lock) => Repository::init_locked(store, lock, clock, &*entropy).await.unwrap(),
            None => Repository::init(store, clock, &*entropy).await.unwrap(),
        };
        site.say(format!("{:?}", site.habits));
        site
    }

    fn store(&self, at: &FaultyStore, script: Script, clock: Arc<dyn Clock>) -> (Store, FaultyStore) {
        // Whoever is dead needs no second attempt, and where nothing hangs a busy machine is no fault.
        let by_chance = script.odds != Odds::default();
        let (attempts_max, silence_max) = if by_chance { (4, SILENCE) } else { (1, Duration::from_secs(30)) };
        let retry = RetryPolicy {
            attempts_max,
            pause_first: Duration::from_millis(1),
            pause_max: Duration::from_millis(2),
            silence_max,
            ..RetryPolicy::default()
        };
        let way = at.beside(script);
        let options = StoreOptions { retry, clock, entropy: self.entropy.clone(), ..StoreOptions::default() };
        let name = if std::ptr::eq(at, &self.copy_way) { "memory:///copy" } else { "memory:///" };
        (way.store(name, options), way)
    }

    pub async fn open(&self, store: Store) -> Result<Arc<Repository>, RepositoryError> {
        let opened = match self.habits.sealed {
            true => Repository::unlock(store, &self.access).await?,
            false => Repository::open(store).await?,
        };
        Ok(Arc::new(opened))
    }

    /// A machine on which all is well, and which never sleeps.
    pub async fn machine(&self) -> Machine {
        let clock = Arc::new(Steady(self.clock.clone()));
        let store = self.store(&self.way, Script::default(), clock.clone()).0;
        let copy = self.store(&self.copy_way, Script::default(), clock.clone()).0;
        Machine { repository: self.open(store).await.unwrap(), copy, clock }
    }

    /// A machine in `weather`, and its way to the store; or why there is none.
    pub async fn machine_in(&self, weather: &Weather, seed: u64) -> (Result<Machine, RepositoryError>, FaultyStore) {
        let clock = Arc::new(Skewed(self.clock.clone(), SKEWS[seed as usize % SKEWS.len()]));
        let script = weather.script(self.habits.turns_max, seed);
        let copy = self.store(&self.copy_way, script.clone(), clock.clone()).0;
        let (store, way) = self.store(&self.way, script, clock.clone());
        (self.open(store).await.map(|repository| Machine { repository, copy, clock }), way)
    }

    pub fn say(&self, text: String) {
        self.log.lock().unwrap().push(text);
    }

    pub fn tally(&self, note: impl FnOnce(&mut Tally)) {
        note(&mut self.tally.lock().unwrap());
    }

    /// Until when a pack is locked.
    pub fn locked_until(&self, pack: &PackId) -> Option<Timestamp> {
        let name = pack.to_string();
        self.bucket.first_locked_until(&format!("packs/{}/{name}", &name[..2]))
    }

    /// Fetches a backup, and panics if it is another than was taken; not if it cannot be fetched.
    pub async fn fetched(&self, repository: &Repository, id: &BackupId) -> Result<String, String> {
        use haulout::error::Diagnose;

        let manifest = repository.manifest(id).await.map_err(|error| format!("{:?}: {error}", error.kind()))?;
        let number = self.fetches.fetch_add(1, Ordering::SeqCst);
        let target: PathBuf = self.folder.path().join(format!("fetched-{number}"));
        let (_stop, cancel) = watch::channel(false);
        let watch = restore::Watch { progress: Arc::new(Silent), cancel: cancel.into() };
        let options = restore::FetchOptions { requests: 2, ..Default::default() };
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
}
