//! Named points at which a run is killed, and what must be so afterwards.
//!
//! The program knows nothing of them: those that are requests are recognised by the gate before the store, others by what the
//! backup tool does or what lies in a directory.

use std::time::Duration;

use crate::support::{
    Gate, Haulout, LocalStack, Side, Site,
    binary::{Run, Running},
    full, not_shown,
    store::environment,
    wait,
};

/// Time for a run to come to a point.
const REACH_LIMIT: Duration = Duration::from_secs(120);

/// A request at which a run is killed.
#[derive(Debug, Clone, Copy)]
pub struct Point {
    /// Its name, for people.
    pub name: &'static str,
    /// What is asked for, in the words of [`Gate::hold_at`].
    pub what: &'static str,
    /// Which of such requests of the run, from 1.
    pub number: usize,
    pub side: Side,
    /// True when every run of the tests takes it; others are taken by long ones alone.
    pub usual: bool,
}

/// A point of long runs: name, request, which of them, and on which side of the store.
pub const fn long(name: &'static str, what: &'static str, number: usize, side: Side) -> Point {
    Point { name, what, number, side, usual: false }
}

/// The same of every run.
pub const fn usual(name: &'static str, what: &'static str, number: usize, side: Side) -> Point {
    Point { name, what, number, side, usual: true }
}

/// The points that are taken now, and a word on the others.
pub fn wanted(command: &str, points: &[Point]) -> Vec<Point> {
    let taken: Vec<Point> = points.iter().copied().filter(|point| point.usual || full()).collect();
    let (all, taken_count) = (points.len(), taken.len());
    if taken_count < all {
        not_shown(&format!("{command} killed at {} of {all} points; integration/test.sh --full", all - taken_count));
    }
    println!("{command}: {taken_count} of {all} kill points");
    taken
}

/// A shop in a bucket behind a gate. The bucket lives as long as the store does.
pub fn behind_a_gate() -> (Site, Gate) {
    let (mut site, bucket) = Site::in_bucket();
    let gate = Gate::to(LocalStack::shared().address(), "db1");
    site.haulout = Haulout::in_bucket(&bucket, "db1").with(environment(&gate.endpoint()));
    (site, gate)
}

/// Starts a run and kills it at `point`.
#[track_caller]
pub fn kill_at(gate: &Gate, point: &Point, spawn: impl FnOnce() -> Running) -> Run {
    println!("killed: {}", point.name);
    gate.hold_at(point.what, point.number, point.side);
    let mut running = spawn();
    wait::until(point.name, REACH_LIMIT, || {
        let is_reached = gate.is_reached();
        assert!(is_reached || !running.ended(), "{}: it asked for {:?}", point.name, gate.trace());
        is_reached.then_some(())
    });
    let run = running.kill9();
    gate.release();
    assert_eq!(run.signal(), Some(9), "{}: {}", point.name, run.stderr);
    run
}

/// Panics unless `check` finds everything that is listed whole.
#[track_caller]
pub fn assert_whole(site: &Site, after: &str) {
    let check = site.haulout.run(["--json", "check"]).ok().summary().clone();
    assert_eq!(check["damaged_objects"], 0, "after {after}: {check}");
}

/// Panics unless every byte is right, and nothing is there that no backup needs.
#[track_caller]
pub fn assert_clean(site: &Site, after: &str) {
    let check = site.haulout.run(["--json", "check", "--read-data"]).ok().summary().clone();
    assert_eq!((&check["damaged_objects"], &check["unreferenced_objects"]), (&0.into(), &0.into()), "{after}: {check}");
}

/// Ids of the backups that are there, the oldest first.
pub fn there(site: &Site) -> Vec<String> {
    let mut ids: Vec<String> =
        site.listing().iter().map(|backup| backup["backup_id"].as_str().unwrap().to_owned()).collect();
    ids.sort();
    ids
}
