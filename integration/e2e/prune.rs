//! Retention on real servers: what goes, goes; what stays, restores.

use std::time::Duration;

use serde_json::Value;

use super::bad_store::behind_a_path;
use crate::support::{Fault, ServerOptions, Site, binary::Run, site::assert_says, state::Lineage, wait};

fn id(backup: &Value) -> String {
    backup["backup_id"].as_str().unwrap().to_owned()
}

/// Ids of the backups that are there, the oldest first.
fn there(site: &Site) -> Vec<String> {
    let mut ids: Vec<String> = site.listing().iter().map(id).collect();
    ids.sort();
    ids
}

fn prune(site: &Site, options: &[&str]) -> Run {
    site.haulout.run(["--json", "prune"].iter().chain(options))
}

/// A full and five incrementals, with DDL between them.
fn history(site: &Site) -> (Lineage, Vec<String>) {
    let mut lineage = Lineage::default();
    let steps = [
        "SELECT 1",
        "USE shop; CREATE TABLE shop.second (id INT PRIMARY KEY, t TEXT); INSERT INTO shop.second SELECT seq, MD5(seq) FROM seq_1_to_3000",
        "USE shop; CREATE TABLE shop.big (id INT PRIMARY KEY, b BLOB); INSERT INTO shop.big SELECT seq, RANDOM_BYTES(1000) FROM seq_1_to_24000",
        "DROP TABLE shop.big; RENAME TABLE shop.item TO shop.swap, shop.second TO shop.item, shop.swap TO shop.second; TRUNCATE TABLE shop.item",
        "DELETE FROM shop.second WHERE id % 3 = 0; INSERT INTO shop.item VALUES (7, 'seven')",
        "ALTER TABLE shop.second ADD COLUMN more INT DEFAULT 5, ALGORITHM=COPY",
    ];
    let ids = steps.iter().map(|step| id(&lineage.step(site, step, &[]))).collect();
    (lineage, ids)
}

#[test]
fn the_base_of_a_lineage_goes_and_every_other_backup_restores() {
    let (site, _bucket) = Site::in_bucket();
    let (mut lineage, ids) = history(&site);
    let stored = || site.haulout.run(["--json", "check"]).ok().summary()["bytes"].as_u64().unwrap();
    let before = stored();
    // The full, and one in the middle with a table that no other has.
    let summary = prune(&site, &["--let-go", &ids[0], "--let-go", &ids[2], "--grace", "0s"]).ok().summary().clone();
    assert_eq!(summary["deleted_backups"], 2, "{summary}");
    assert!(summary["deleted_packs"].as_u64().unwrap() > 0 && stored() < before, "{summary}");
    assert_eq!(there(&site), [&ids[1], &ids[3], &ids[4], &ids[5]].map(String::clone));
    let check = site.haulout.run(["--json", "check", "--read-data"]).ok().summary().clone();
    assert_eq!((&check["damaged_objects"], &check["unreferenced_objects"]), (&0.into(), &0.into()));
    // The lineage goes on.
    let next = lineage.step(
        &site,
        "USE shop; INSERT INTO shop.item SELECT seq, 'more' FROM seq_100_to_900",
        &["--incremental"],
    );
    assert_eq!(next["parent"], ids[5].as_str());
    lineage.let_go(&[0, 2]);
    lineage.all_restore(&site, &ServerOptions::new(), |_, _| {});
}

#[test]
fn what_goes_is_told_beforehand_and_can_be_undeleted() {
    let site = Site::new();
    let ids: Vec<String> = (0..4)
        .map(|number| {
            site.change();
            id(&site.backed_up(if number == 1 { &["--tag", "release"] } else { &[] }))
        })
        .collect();
    let rules = ["--keep-last", "1", "--keep-tag", "release"];
    let dry = prune(&site, &[&rules[..], &["--dry-run"]].concat()).ok();
    let actions = |run: &Run| -> Vec<(String, String)> {
        let lines = run.messages.iter().filter(|line| line["message_type"] == "retention");
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        lines.map(|line| (text(&line["action"]), text(&line["reasons"][0]))).collect()
    };
    let expected = [
        ("goes", "no rule keeps it"),
        ("stays", "tag release"),
        ("goes", "no rule keeps it"),
        ("stays", "the newest backup"),
    ];
    let expected: Vec<(String, String)> =
        expected.iter().map(|(action, reason)| ((*action).to_owned(), (*reason).to_owned())).collect();
    assert_eq!(actions(&dry), expected);
    assert_eq!(site.objects("prune"), [""; 0].map(std::path::PathBuf::from));
    assert_eq!(actions(&prune(&site, &rules).ok()), expected);
    let due = |backup: &str| site.listing().iter().any(|line| id(line) == backup && line["deleted_after"].is_string());
    assert!(due(&ids[0]) && due(&ids[2]) && !due(&ids[1]));
    let target = site.folder().join("fetched");
    let fetched = site.haulout.run(["fetch", "--backup", &ids[0], "--target", target.to_str().unwrap()]).ok();
    assert!(fetched.stderr.contains("haulout undelete"), "{}", fetched.stderr);
    site.haulout.run(["undelete", &ids[0]]).ok();
    assert!(!due(&ids[0]) && due(&ids[2]));
    // Before its time, nothing goes.
    assert_eq!(prune(&site, &rules).ok().summary()["deleted_backups"], 0);
    assert_eq!(there(&site), ids);
    // Of another plan, without grace: what was undeleted stays.
    let summary = prune(&site, &["--let-go", &ids[1], "--grace", "0s"]).ok().summary().clone();
    assert_eq!(summary["deleted_backups"], 1);
    assert_eq!(there(&site), [&ids[0], &ids[2], &ids[3]].map(String::clone));
    site.haulout.run(["check", "--read-data"]).ok();
}

#[test]
fn what_cannot_be_done_is_refused_or_named() {
    let site = Site::new();
    let first = id(&site.backed_up(&[]));
    let run = |arguments: &[&str]| site.haulout.run([&["--json"], arguments].concat());
    assert_says(
        &run(&["prune", "--let-go", "latest"]),
        1,
        "stays: it is the newest backup",
        "take another backup first",
    );
    assert_says(&run(&["undelete", &first]), 1, "is in no plan", "haulout list");
    assert_says(&run(&["undelete", "20200101T000000Z-aaaaaa"]), 1, "there is no backup", "haulout list");
    assert_says(&run(&["prune", "--keep-last", "0"]), 2, "expected a number from 1", "");
    assert_says(&run(&["prune", "--grace", "6mo"]), 2, "expected hours, days or weeks", "");
    assert_says(&run(&["prune", "--keep-within", "soon"]), 2, "expected a stretch of time", "");
    assert_says(&run(&["backup", "--tag", "two words"]), 2, "expected a word", "");
    // A backup that is lost keeps everything, until it is named.
    site.change();
    let second = id(&site.backed_up(&[]));
    site.change();
    site.backed_up(&[]);
    let manifest = site.repository().join(format!("backups/{second}.json"));
    std::fs::write(&manifest, "{}").unwrap();
    let packs = site.objects("packs").len();
    let run = prune(&site, &["--keep-last", "1", "--grace", "0s"]).exits(3);
    assert!(run.summary()["skipped"][0].as_str().unwrap().contains(&second), "{}", run.summary());
    assert_eq!(site.objects("packs").len(), packs);
    let summary = prune(&site, &["--let-go", &second, "--grace", "0s"]).ok().summary().clone();
    assert_eq!(summary["deleted_backups"], 1, "{summary}");
    let check = site.haulout.run(["--json", "check", "--read-data"]).ok().summary().clone();
    assert_eq!((&check["backups"], &check["unreferenced_objects"]), (&1.into(), &0.into()));
}

/// The line goes down after so many bytes, the run is killed, and the next goes on from wherever it was.
#[test]
fn prunes_that_are_killed_one_after_the_other_come_to_their_end() {
    let (site, path) = behind_a_path(false);
    let (mut lineage, ids) = history(&site);
    let newest = ids.last().unwrap();
    let mut kills = 0;
    let whole = loop {
        path.set(Fault::DownAfter(1_500 * (kills + 1)));
        let mut running = site.haulout.spawn(["--json", "prune", "--keep-last", "1", "--grace", "0s"]);
        wait::until("the line to go down, or the end", Duration::from_secs(60), || {
            (path.fault() == Fault::Down || running.ended()).then_some(())
        });
        let killed = path.fault() == Fault::Down;
        path.set(Fault::None);
        if !killed {
            break running.wait().ok();
        }
        running.kill9();
        kills += 1;
        let check = site.haulout.run(["--json", "check"]).ok().summary().clone();
        assert_eq!(check["damaged_objects"], 0, "after {kills} kills: {check}");
    };
    println!("killed {kills} times");
    assert!(kills > 10, "{kills}");
    assert_eq!(there(&site).as_slice(), std::slice::from_ref(newest), "{}", whole.summary());
    let check = site.haulout.run(["--json", "check", "--read-data"]).ok().summary().clone();
    assert_eq!((&check["damaged_objects"], &check["unreferenced_objects"]), (&0.into(), &0.into()), "{kills} kills");
    lineage.let_go(&[0, 1, 2, 3, 4]);
    lineage.all_restore(&site, &ServerOptions::new(), |_, _| {});
}
