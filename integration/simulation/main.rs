//! Agents at work on one repository, each of which can die at any request, on a store that fails and a clock that jumps.
//!
//! A seed decides what happens: backups of a made-up server, prunes, compactions, undeletes, checks, repairs, copies and fetches, up to four at
//! a time, some on a store with faults, some killed after so many requests, some asleep for longer than a lease holds, each with a
//! clock that is wrong by minutes. It also decides what the repository is: sealed or not, in a bucket with object lock or not, in a store
//! that passes over conditions, that lists in pages of different moments, and whether something that is stored rots. Then the weather
//! is made fair, and must hold:
//!
//! - every backup that is there comes back byte for byte, and all packs that any needs are right; after rot, each comes back so or
//!   fails, and those that fail are the ones that a check names;
//! - a backup that was committed is there unless a plan let go of it, and what was undeleted is there;
//! - what a backup needs was locked for the period when it was committed, and nothing was deleted while it was locked;
//! - after one more backup and a prune with its grace period, nothing is left that nobody needs, and after a month no records;
//! - what rotted is stored anew by the next full backup after `check --repair`;
//! - of half of the seeds, which have a copy in another bucket: all that is in it comes back byte for byte, and after one more `copy` all that is
//!   newer is.
//!
//! The threads of a capture are not under the seed's command: a seed repeats the plan and the faults, and mostly the interleaving.
//! `HAULOUT_SIMULATION_FIRST=seed HAULOUT_SIMULATION_SEEDS=1` runs one again.

#![recursion_limit = "256"]

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::TryStreamExt;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

// The made-up server calls the rooms as the library does.
use haulout::{backup, mariadb, model, repository::References};

#[path = "../../src/backup/made_up.rs"]
#[allow(dead_code, reason = "the pipeline's own tests use the rest of it")]
mod made_up;
mod settle;
mod site;
mod work;

use site::{Site, Tally, Weather};
use work::Work;

/// Seeds of every test run, and of a long one.
const SEEDS: u64 = 300;
const SEEDS_FULL: u64 = 10_000;
const DAY: i64 = 86_400;
/// Time for one seed, which takes well below a second.
const SEED_LIMIT: Duration = Duration::from_secs(120);
/// Seeds at a time for each core: most of a run is waiting for its own threads.
const SEEDS_PER_CORE: usize = 3;

/// When an agent begins, after the others of its round.
#[derive(Clone, Copy)]
enum Delay {
    /// After so many turns of others.
    Turns(u32),
    /// After so many milliseconds: captures have threads of their own, which take no turns.
    Millis(u64),
}

impl Delay {
    fn of(rng: &mut StdRng) -> Delay {
        match rng.random_range(0..3) {
            0 => Delay::Turns(0),
            1 => Delay::Turns(rng.random_range(0..200)),
            _ => Delay::Millis(rng.random_range(0..12)),
        }
    }

    async fn pass(self) {
        match self {
            Delay::Turns(turns) => {
                for _ in 0..turns {
                    tokio::task::yield_now().await;
                }
            }
            Delay::Millis(millis) => tokio::time::sleep(Duration::from_millis(millis)).await,
        }
    }
}

async fn history(seed: u64, told: Arc<Mutex<Vec<String>>>) -> Tally {
    let mut rng = StdRng::seed_from_u64(seed);
    let site = Site::new(seed, &mut rng, told).await;
    let rounds = rng.random_range(3..9);
    let rots_in = rng.random_range(1..rounds);
    let (mut pruned, mut rotten) = (false, false);
    // By chance of its own, so that seeds of repositories without a copy are what they were.
    let mut of_copy = StdRng::seed_from_u64(seed ^ 0xc09e);
    let has_copy = of_copy.random_bool(0.5);
    // A lineage to begin with.
    for _ in 0..rng.random_range(0..4) {
        site.agent(0, Work::Backup(backup::Want::Either), Weather::Fair, 0).await;
        site.source.0.lock().unwrap().live();
        site.clock.pass(DAY);
    }
    for round in 0..rounds {
        let agents = if !site.habits.quarrel && rng.random_bool(0.3) { 1 } else { rng.random_range(2..5) };
        let works: Vec<(Work, Weather)> =
            (0..agents).map(|_| (Work::of(&mut rng, site.habits.quarrel), Weather::of(&mut rng))).collect();
        let works: Vec<(Work, Weather)> = works
            .into_iter()
            .map(|(work, weather)| match has_copy && of_copy.random_bool(0.25) {
                true => (Work::of_copy(&mut of_copy), weather),
                false => (work, weather),
            })
            .collect();
        pruned |= works.iter().any(|(work, _)| matches!(work, Work::Prune { .. }));
        site.say(format!("round {round}:"));
        if site.habits.quarrel || rng.random_bool(0.5) {
            // Somebody sleeps for longer than a lease holds.
            site.clock.nap(rng.random_range(1..60), rng.random_range(301..5000));
        }
        let delays: Vec<Delay> = works.iter().map(|_| Delay::of(&mut rng)).collect();
        let seeds: Vec<u64> = works.iter().map(|_| rng.random()).collect();
        let runs = works.into_iter().zip(delays).zip(seeds).enumerate();
        let site = &site;
        let runs = runs.map(|(number, (((work, weather), delay), seed))| async move {
            delay.pass().await;
            site.agent(number, work, weather, seed).await;
        });
        futures::future::join_all(runs).await;
        if site.habits.rots && round == rots_in {
            rotten = rot(site, &mut rng).await;
        }
        site.source.0.lock().unwrap().live();
        site.clock.pass([60, 400, 3 * 3600, DAY, 2 * DAY][rng.random_range(0..5)]);
    }
    site.settle(pruned, rotten).await;
    if has_copy {
        site.copy_is_right(rotten).await;
    }
    site.tally.into_inner().unwrap()
}

/// Changes, cuts or removes an object; false where there is none that may rot.
async fn rot(site: &Site, rng: &mut StdRng) -> bool {
    let repository = site.machine().await.repository;
    let objects: Vec<_> = repository.store().list(None).try_collect().await.unwrap();
    // Nothing is left without these two, and leases are of no consequence.
    let kept = ["haulout.json", "keys/", "leases/"];
    let mut keys: Vec<&str> = objects.iter().map(|object| object.key.as_str()).collect();
    keys.retain(|key| !kept.iter().any(|kept| key.starts_with(kept)));
    // What no backup needs is read by no check: nobody could tell the next backup not to go on from it.
    let mut references = References::default();
    for (_, manifest) in repository.manifests().await.unwrap() {
        if let Ok(manifest) = manifest {
            references.add(&repository, &manifest).await.ok();
        }
    }
    let is_needed = |name: &str| name.parse().is_ok_and(|pack| references.need(&pack));
    keys.retain(|key| !key.starts_with("packs/") || key.rsplit('/').next().is_some_and(is_needed));
    if rng.random_bool(0.6) {
        keys.retain(|key| key.starts_with("packs/"));
    }
    if keys.is_empty() {
        return false;
    }
    let key = keys[rng.random_range(0..keys.len())];
    let (how, place, bit) = (rng.random_range(0..3), rng.random::<u64>() as usize, rng.random_range(0..8));
    match how {
        0 => drop(site.bucket.lose(key)),
        1 => drop(site.bucket.rot(key, |bytes| bytes.truncate(place % bytes.len().max(1)))),
        _ => drop(site.bucket.rot(key, |bytes| {
            if let Some(length) = bytes.len().checked_sub(1) {
                bytes[place % (length + 1)] ^= 1 << bit;
            }
        })),
    }
    if let Some(name) = key.strip_prefix("backups/")
        && let Ok(id) = name[..name.len().min(23)].parse()
    {
        site.lost.lock().unwrap().insert(id);
    }
    if key.starts_with("prune/") {
        // Nothing may be left to tell that a plan let go of a backup.
        let committed = site.committed.lock().unwrap().clone();
        site.lost.lock().unwrap().extend(committed);
    }
    site.tally(|tally| tally.rotten += 1);
    site.say(format!("  {key} rots: {}", ["lost", "cut", "changed"][how]));
    true
}

/// One seed, in a runtime of its own; `aloud` prints what happened also when all went well.
fn run(seed: u64, aloud: bool) -> Result<Tally, String> {
    let told = Arc::new(Mutex::new(Vec::new()));
    let log = told.clone();
    let ended = std::panic::catch_unwind(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let limited = async { tokio::time::timeout(SEED_LIMIT, history(seed, log)).await };
        runtime.block_on(limited).unwrap_or_else(|_| panic!("seed {seed}: stands still"))
    });
    if aloud {
        println!("{}", told.lock().unwrap_or_else(std::sync::PoisonError::into_inner).join("\n"));
    }
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
    let threads = std::thread::available_parallelism().map_or(2, usize::from) * SEEDS_PER_CORE;
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::SeqCst);
                    if seed >= first + count {
                        return;
                    }
                    match run(seed, count == 1) {
                        Ok(tally) => {
                            sum.lock().unwrap().add(&tally);
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
        assert!(sum.compacted > 50 && sum.locks > 500 && sum.sealed > 30 && sum.rotten > 10, "{sum:?}");
    }
}
