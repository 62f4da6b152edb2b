//! Prunes that are killed at each step of a plan and its sweep.

use super::kill_points::{Point, assert_clean, assert_whole, behind_a_gate, kill_at, long, there, usual, wanted};
use crate::support::{Lineage, ServerOptions, Side, full};

const POINTS: [Point; 24] = [
    long("before its lease", "PUT lease", 1, Side::Asked),
    long("lease stored, answer lost", "PUT lease", 1, Side::Answered),
    long("manifest read, answer lost", "GET manifest", 1, Side::Answered),
    long("map read for the count, answer lost", "GET map pack", 1, Side::Answered),
    long("packs listed for the plan, answer lost", "LIST packs", 1, Side::Answered),
    long("before the packs of its plan", "PUT packs of plan", 1, Side::Asked),
    long("packs of its plan stored, answer lost", "PUT packs of plan", 1, Side::Answered),
    long("before its plan", "PUT plan", 1, Side::Asked),
    usual("plan stored, answer lost", "PUT plan", 1, Side::Answered),
    long("lease renewed before the sweep, answer lost", "PUT lease", 2, Side::Answered),
    long("before it says that it sweeps", "PUT begin of plan", 1, Side::Asked),
    long("begin of the sweep stored, answer lost", "PUT begin of plan", 1, Side::Answered),
    long("second look for backups, answer lost", "LIST leases", 3, Side::Answered),
    long("before the manifest goes", "DELETE manifest", 1, Side::Asked),
    usual("manifest deleted, answer lost", "DELETE manifest", 1, Side::Answered),
    long("packs listed for the second count, answer lost", "LIST packs", 2, Side::Answered),
    long("before the first pack goes", "DELETE data pack", 1, Side::Asked),
    usual("first pack deleted, answer lost", "DELETE data pack", 1, Side::Answered),
    long("map pack deleted, answer lost", "DELETE map pack", 1, Side::Answered),
    long("before it says that the plan is done", "PUT end of plan", 1, Side::Asked),
    long("end of the plan stored, answer lost", "PUT end of plan", 1, Side::Answered),
    long("before the end of its lease", "PUT end of lease", 1, Side::Asked),
    long("end of its lease stored, answer lost", "PUT end of lease", 1, Side::Answered),
    long("lease document removed, answer lost", "DELETE lease", 3, Side::Answered),
];

#[test]
fn a_prune_that_is_killed_at_any_step_loses_nothing_and_the_next_one_ends_it() {
    const PRUNE: [&str; 6] = ["--json", "prune", "--keep-last", "2", "--grace", "0s"];
    let (site, gate) = behind_a_gate();
    let mut lineage = Lineage::default();
    let mut ids: Vec<String> = Vec::new();
    for _ in 0..2 {
        site.change();
        ids.push(lineage.backed_up(&site, &[])["backup_id"].as_str().unwrap().to_owned());
    }
    let options = ServerOptions::new();
    for point in wanted("prune", &POINTS) {
        // Each backup writes over what the one before it changed: something goes with each.
        site.change();
        ids.push(lineage.backed_up(&site, &[])["backup_id"].as_str().unwrap().to_owned());
        kill_at(&gate, &point, || site.haulout.spawn(PRUNE));
        let left = there(&site);
        assert!(left == ids || left == ids[1..], "after {}: {left:?} of {ids:?}", point.name);
        assert_whole(&site, point.name);
        site.haulout.run(PRUNE).ok();
        ids.remove(0);
        lineage.let_go(&[0]);
        assert_eq!(there(&site), ids, "after {}", point.name);
        assert_clean(&site, point.name);
        if full() {
            lineage.newest(&site, &options);
        }
    }
    for restored in std::fs::read_dir(site.folder()).unwrap().flatten() {
        std::fs::remove_dir_all(restored.path()).unwrap();
    }
    lineage.all_restore(&site, &options, |_, _| {});
}
