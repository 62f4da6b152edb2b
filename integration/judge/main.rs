//! The differential judge: backups of a busy server, each restored by haulout and held against two judges.
//!
//! A seed decides on a server, a load and its backups. Then every backup of the lineage is restored with haulout, with the
//! stock chain of N+1 prepares over the very same streams, and held against a replica of the server that was stopped at the
//! backup's GTID. A fault names its seed; `HAULOUT_JUDGE_FIRST=seed HAULOUT_JUDGE_SEEDS=1` runs that one again. What was
//! counted is in `integration/out/judge.json`.

mod acts;
mod changes;
mod chunks;
mod emptied;
mod judges;
mod lost;
mod moments;
mod plan;
mod replica;
mod report;
mod seed;
mod state;
mod stock;
#[path = "../support/mod.rs"]
mod support;
mod tool;
mod unwritten;

use std::{
    num::NonZero,
    panic::{self, AssertUnwindSafe},
    sync::Mutex,
    thread,
    time::Instant,
};

use report::Counts;
use seed::Outcome;

/// Seeds of an ordinary run, and of a full one.
const SEEDS: u64 = 2;
const SEEDS_FULL: u64 = 300;

/// First seed of an ordinary run: with it all cases are seen.
const FIRST: u64 = 1;

/// Further seeds, one after another, while a case is still to be seen: what the streams hold depends on the machine's pace too.
const SEEDS_MORE: u64 = 3;

/// Seeds judged at a time: each has four servers.
const AT_ONCE_MAX: usize = 2;

/// What must have been seen at least once, for a run to have shown anything.
const CASES: [&str; 17] = [
    "backups_full",
    "backups_incremental",
    "checkpoint_far",
    "gates_midway",
    "ddl_at_gates",
    "created_in_window",
    "renamed_in_window",
    "dropped_in_window",
    "files_new",
    "files_ren",
    "files_del",
    "chunks_seek",
    "chunks_rename",
    "chunks_remove",
    "files_rewritten",
    "stock_agrees",
    "replica_agrees",
];

fn number(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{variable} is no number: {value:?}")))
}

#[test]
fn every_backup_of_a_busy_server_restores_as_stock_and_a_replica_have_it() {
    let started = Instant::now();
    let count = number("HAULOUT_JUDGE_SEEDS").unwrap_or(if support::full() { SEEDS_FULL } else { SEEDS });
    let first = number("HAULOUT_JUDGE_FIRST").unwrap_or(FIRST);
    let seeds: Vec<u64> = (first..first + count).collect();
    let (next, total) = (Mutex::new(seeds.iter().copied()), Mutex::new((Counts::default(), Vec::new())));
    let at_once = thread::available_parallelism().map_or(1, NonZero::get).min(AT_ONCE_MAX);
    thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                loop {
                    let Some(seed) = next.lock().unwrap().next() else { break };
                    let begun = Instant::now();
                    let outcome = judged(seed);
                    let (seconds, faults) = (begun.elapsed().as_secs_f64(), outcome.faults.len());
                    println!("seed {seed}: {seconds:.0} s, {faults} faults, without {:?}", unseen(&outcome.counts));
                    let mut total = total.lock().unwrap();
                    total.0.join(&outcome.counts);
                    total.1.extend(outcome.faults);
                    total.0.write(&seeds, &total.1, started.elapsed().as_secs_f64());
                }
            });
        }
    });
    let (mut counts, mut faults) = total.into_inner().unwrap();
    for seed in (first + count..).take(SEEDS_MORE as usize) {
        if count < SEEDS || unseen(&counts).is_empty() {
            break;
        }
        println!("seed {seed} too, without {:?}", unseen(&counts));
        let outcome = judged(seed);
        counts.join(&outcome.counts);
        faults.extend(outcome.faults);
        counts.write(&seeds, &faults, started.elapsed().as_secs_f64());
    }
    println!("{}", counts.table());
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
    assert!(counts.get("seeds") >= count);
    if count >= SEEDS {
        assert_eq!(unseen(&counts), [""; 0], "never seen");
    }
}

/// Cases that are still to be seen.
fn unseen(counts: &Counts) -> Vec<&'static str> {
    CASES.into_iter().filter(|case| counts.get(case) == 0).collect()
}

/// A panic of a run is a fault like others.
fn judged(seed: u64) -> Outcome {
    panic::catch_unwind(AssertUnwindSafe(|| seed::run(seed))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default();
        Outcome { counts: Counts::default(), faults: vec![format!("seed {seed}: {text}")] }
    })
}
