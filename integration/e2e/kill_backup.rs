//! Backups that are killed at each step on their way to a manifest.

use std::time::Duration;

use serde_json::Value;

use super::kill_points::{Point, assert_clean, assert_whole, behind_a_gate, kill_at, long, usual, wanted};
use crate::support::{Lineage, ServerOptions, Side, Site, Tool, binary::Running, full, site::assert_unlocked, wait};

const POINTS: [Point; 19] = [
    // The first of them: a full, in an empty repository.
    usual("first data pack stored, answer lost", "PUT data pack", 1, Side::Answered),
    long("before it opens the repository", "GET haulout.json", 1, Side::Asked),
    long("before its lease", "PUT lease", 1, Side::Asked),
    long("lease stored, answer lost", "PUT lease", 1, Side::Answered),
    long("others' leases listed, answer lost", "LIST leases", 1, Side::Answered),
    long("the parent's manifest read, answer lost", "GET manifest", 1, Side::Answered),
    long("before the first data pack", "PUT data pack", 1, Side::Asked),
    long("size of the first data pack told, answer lost", "HEAD data pack", 1, Side::Answered),
    long("before the second data pack", "PUT data pack", 2, Side::Asked),
    long("second data pack stored, answer lost", "PUT data pack", 2, Side::Answered),
    long("before the map pack", "PUT map pack", 1, Side::Asked),
    long("map pack stored, answer lost", "PUT map pack", 1, Side::Answered),
    long("before it looks for sweeps", "LIST prune", 1, Side::Asked),
    long("sweeps listed, answer lost", "LIST prune", 1, Side::Answered),
    usual("before the manifest", "PUT manifest", 1, Side::Asked),
    usual("manifest stored, answer lost", "PUT manifest", 1, Side::Answered),
    long("before the end of its lease", "PUT end of lease", 1, Side::Asked),
    long("end of its lease stored, answer lost", "PUT end of lease", 1, Side::Answered),
    long("lease document removed, answer lost", "DELETE lease", 1, Side::Answered),
];

/// Points behind the manifest: the backup is there.
fn is_committed(point: &Point) -> bool {
    let last = POINTS.iter().position(|other| other.name == "manifest stored, answer lost");
    POINTS.iter().position(|other| other.name == point.name) >= last
}

/// What changes before each backup: enough for two packs where the second one is meant.
fn change(site: &Site, point: &Point) {
    site.change();
    if point.number == 2 {
        site.server.sql(
            "USE shop; CREATE OR REPLACE TABLE shop.picture (id INT PRIMARY KEY, bytes BLOB) ENGINE=InnoDB;
             INSERT INTO shop.picture SELECT seq, RANDOM_BYTES(1000) FROM seq_1_to_24000;
             FLUSH TABLES shop.picture FOR EXPORT; UNLOCK TABLES",
        );
    }
}

#[test]
fn a_backup_that_is_killed_at_any_step_loses_nothing_and_the_next_one_works() {
    let (site, gate) = behind_a_gate();
    let mut lineage = Lineage::default();
    let mut uncertain = None;
    for point in wanted("backup", &POINTS) {
        change(&site, &point);
        kill_at(&gate, &point, || site.haulout.spawn_backup(&site.server, &[]));
        if is_committed(&point) {
            uncertain = Some(lineage.len());
        }
        goes_on(&site, &mut lineage, &point, is_committed(&point));
    }
    let tail = while_commits_are_blocked(&site);
    goes_on(&site, &mut lineage, &tail, false);
    // No backup goes, but what the killed ones left.
    site.haulout.run(["--json", "prune", "--keep-last", "1000", "--grace", "0s"]).ok();
    assert_clean(&site, "the prune");
    let options = ServerOptions::new();
    if full() {
        lineage.all_restore(&site, &options, |_, _| {});
    } else {
        lineage.newest(&site, &options);
        lineage.restored(&site, uncertain.expect("a kill behind a manifest"), &options);
    }
}

/// Panics unless all is well after a kill at `point`, of which a manifest is there if it `is_committed`, and the next backup is
/// taken.
#[track_caller]
fn goes_on(site: &Site, lineage: &mut Lineage, point: &Point, is_committed: bool) {
    let name = point.name;
    wait::until("the tool's end", Duration::from_secs(60), || site.server.backups_running().is_empty().then_some(()));
    assert_unlocked(&site.server);
    let before = site.listing();
    assert_eq!(before.len(), lineage.len() + usize::from(is_committed), "backups after {name}");
    if is_committed {
        lineage.note(newest(&before), &site.server);
    }
    if !before.is_empty() {
        assert_whole(site, name);
    }
    let next = lineage.backed_up(site, &[]);
    let parent = before.iter().map(|backup| backup["backup_id"].as_str().unwrap()).max();
    assert_eq!(next["parent"].as_str(), parent, "after {name}");
    assert_whole(site, name);
}

fn newest(listing: &[Value]) -> Value {
    listing.iter().max_by_key(|backup| backup["backup_id"].as_str().unwrap().to_owned()).unwrap().clone()
}

/// Kills a backup when the server lets nobody commit because of it, with the tool standing still.
fn while_commits_are_blocked(site: &Site) -> Point {
    let point = long("while the tool blocks commits", "", 1, Side::Asked);
    println!("killed: {}", point.name);
    // The kernel wakes what stands still when its run is killed; the hangup that goes with it is not to end it.
    let tool = Tool::new(
        "trap '' HUP
         mkfifo \"$here/said\"
         \"$real\" \"$@\" 2> \"$here/said\" & tool=$!
         while IFS= read -r line; do
           case $line in *'Acquired locks for BACKUP STAGE BLOCK_COMMIT'*) kill -STOP $tool; : > \"$here/held\";; esac
         done < \"$here/said\"
         wait $tool",
    );
    site.change();
    let mut running: Running = site.haulout.spawn_backup(&site.server, &[&tool.flag()]);
    running.wait_for(point.name, |_| tool.has("held"));
    assert_eq!(running.kill9().signal(), Some(9));
    point
}
