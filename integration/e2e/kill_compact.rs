//! Compactions that are killed at each step on their way to new editions.

use super::kill_points::{Point, assert_clean, assert_whole, behind_a_gate, kill_at, long, there, usual, wanted};
use crate::support::{Lineage, ServerOptions, Side, full};

const POINTS: [Point; 15] = [
    long("before its lease", "PUT lease", 1, Side::Asked),
    long("lease stored, answer lost", "PUT lease", 1, Side::Answered),
    long("map read, answer lost", "GET map pack", 1, Side::Answered),
    long("data read, answer lost", "GET data pack", 1, Side::Answered),
    long("before the data pack", "PUT data pack", 1, Side::Asked),
    usual("data pack stored, answer lost", "PUT data pack", 1, Side::Answered),
    long("before the map pack", "PUT map pack", 1, Side::Asked),
    long("map pack stored, answer lost", "PUT map pack", 1, Side::Answered),
    long("packs listed for the proof, answer lost", "LIST packs", 2, Side::Answered),
    long("plans listed, answer lost", "LIST prune", 2, Side::Answered),
    long("before the first edition", "PUT edition", 1, Side::Asked),
    usual("first edition stored, answer lost", "PUT edition", 1, Side::Answered),
    long("second edition stored, answer lost", "PUT edition", 2, Side::Answered),
    long("before the end of its lease", "PUT end of lease", 1, Side::Asked),
    long("end of its lease stored, answer lost", "PUT end of lease", 1, Side::Answered),
];

#[test]
fn a_compaction_that_is_killed_at_any_step_loses_nothing_and_the_next_one_works() {
    // What little there is, is to be moved and merged.
    const COMPACT: [&str; 6] = ["--json", "compact", "--live-share", "100", "--pieces", "1"];
    let (site, gate) = behind_a_gate();
    let mut lineage = Lineage::default();
    let mut ids: Vec<String> = Vec::new();
    let options = ServerOptions::new();
    // A few pages of the table: the newest backup has it in two pieces then.
    let steps = |number: usize| {
        let (first, last) = (number * 200, number * 200 + 3);
        format!(
            "UPDATE shop.item SET text = MD5(RAND()) WHERE id BETWEEN {first} AND {last};
             FLUSH TABLES shop.item FOR EXPORT; UNLOCK TABLES"
        )
    };
    for number in 0..2 {
        ids.push(lineage.step(&site, &steps(number), &[])["backup_id"].as_str().unwrap().to_owned());
    }
    for (number, point) in wanted("compact", &POINTS).iter().enumerate() {
        ids.push(lineage.step(&site, &steps(number + 2), &[])["backup_id"].as_str().unwrap().to_owned());
        kill_at(&gate, point, || site.haulout.spawn(COMPACT));
        assert_eq!(there(&site), ids, "after {}", point.name);
        assert_whole(&site, point.name);
        if full() {
            lineage.newest(&site, &options);
            std::fs::remove_dir_all(site.folder().join(format!("of-{}", ids.last().unwrap()))).unwrap();
        }
        site.haulout.run(COMPACT).ok();
        assert_whole(&site, point.name);
        // What was superseded goes, and what the killed run left.
        site.haulout.run(["prune", "--keep-last", "2", "--grace", "0s"]).ok();
        ids.remove(0);
        lineage.let_go(&[0]);
        assert_eq!(there(&site), ids, "after {}", point.name);
        assert_whole(&site, point.name);
    }
    // What was stored since the newest backup stays until the next one.
    lineage.step(&site, &steps(POINTS.len() + 2), &[]);
    lineage.let_go(&[0]);
    site.haulout.run(["prune", "--keep-last", "2", "--grace", "0s"]).ok();
    assert_clean(&site, "the last prune");
    lineage.all_restore(&site, &options, |_, _| {});
}
