//! Restores over a datadir that holds much of the backup already.

use std::{
    fs,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::kill_points::{behind_a_gate, kill_at, long};
use super::kill_restore::stopped;
use crate::support::{Lineage, MariaDb, ServerOptions, Side, Site, site::assert_says};

/// A table of 60 MB that do not compress, so that the files every server has weigh little beside it.
const PICTURES: &str = "USE shop; CREATE TABLE shop.picture (id INT PRIMARY KEY, bytes BLOB) ENGINE=InnoDB;
    INSERT INTO shop.picture SELECT seq, RANDOM_BYTES(1000) FROM seq_1_to_50000;
    CREATE TABLE shop.thin (id INT PRIMARY KEY, t TEXT) ENGINE=InnoDB PAGE_COMPRESSED=1;
    INSERT INTO shop.thin SELECT seq, REPEAT(MD5(seq), 30) FROM seq_1_to_2000;
    FLUSH TABLES picture, thin FOR EXPORT; UNLOCK TABLES";

fn id(backup: &Value) -> &str {
    backup["backup_id"].as_str().unwrap()
}

/// The summary of a restore of a backup into `datadir`, with more arguments.
#[track_caller]
fn restored(site: &Site, backup: &Value, datadir: &Path, more: &[&str]) -> Value {
    let datadir = datadir.to_str().unwrap();
    let arguments = ["--json", "restore", "--backup", id(backup), "--datadir", datadir];
    site.haulout.run(arguments.iter().chain(more)).ok().summary().clone()
}

fn number(summary: &Value, name: &str) -> u64 {
    summary[name].as_u64().unwrap_or_else(|| panic!("{name} in {summary}"))
}

/// Where a datadir is while it is written over.
fn beside(datadir: &Path) -> PathBuf {
    PathBuf::from(format!("{}.haulout", datadir.display()))
}

#[test]
fn an_unchanged_datadir_fetches_less_than_a_hundredth() {
    for mut site in [Site::new(), Site::sealed()] {
        let mut lineage = Lineage::default();
        site.server.sql(PICTURES);
        // All of its pages are written then, so that the backup's redo log is short.
        site.server.stop();
        site.server.restart();
        let backup = lineage.backed_up(&site, &[]);
        let datadir = site.folder().join("datadir");
        let whole = restored(&site, &backup, &datadir, &[]);
        let again = restored(&site, &backup, &datadir, &["--reuse"]);
        println!("{again}");
        let (fetched, all) = (number(&again, "fetched_bytes"), number(&whole, "fetched_bytes"));
        assert!(fetched * 100 < all, "{fetched} of {all}: {again}");
        let reused = number(&again, "reused_bytes") + number(&again, "written_bytes");
        assert_eq!((reused, number(&whole, "reused_bytes")), (number(&whole, "written_bytes"), 0));
        drop(lineage.started(0, &datadir, &ServerOptions::new()));
        // A server has run on it since, and stopped in good order.
        let used = restored(&site, &backup, &datadir, &["--reuse"]);
        println!("{used}");
        assert!(number(&used, "fetched_bytes") * 10 < all, "{used}");
        drop(lineage.started(0, &datadir, &ServerOptions::new()));
        assert!(!beside(&datadir).exists());
    }
}

#[test]
fn yesterdays_datadir_and_one_that_went_on_fetch_what_changed() {
    let mut site = Site::new();
    let mut lineage = Lineage::default();
    lineage.step(&site, PICTURES, &[]);
    let change = "UPDATE shop.picture SET bytes = RANDOM_BYTES(1000) WHERE id BETWEEN 1000 AND 4000;
        UPDATE shop.thin SET t = REPEAT('x', 900) WHERE id < 300; CREATE TABLE shop.new SELECT * FROM shop.item;
        DROP TABLE shop.note";
    lineage.step(&site, change, &[]);
    let datadir = lineage.datadir(&site, 0);
    let points = site.listing();
    let (old, new) = (points[0].clone(), points[1].clone());
    let plan = restored(&site, &new, &datadir, &["--reuse", "--dry-run"]);
    assert!(datadir.join("shop/note.MAD").exists(), "a plan changes nothing");
    let summary = restored(&site, &new, &datadir, &["--reuse"]);
    println!("{summary}");
    for figure in ["fetched_bytes", "reused_bytes", "written_bytes", "requests"] {
        assert_eq!(plan[figure], summary[figure], "{figure}");
    }
    assert_eq!(plan["aside"], summary["aside"]);
    assert!(number(&summary, "fetched_bytes") * 3 < number(&new["sizes"], "stored_bytes"), "{summary}");
    // The dropped table is not lost.
    let aside = PathBuf::from(summary["aside"]["directory"].as_str().unwrap());
    assert!(aside.join("shop/note.MAD").exists() && !datadir.join("shop/note.MAD").exists());
    let server = lineage.started(1, &datadir, &ServerOptions::new());
    drop(server);
    // And back, over what the server itself has: it went on, and was cut off.
    site.server.sql("UPDATE shop.picture SET bytes = RANDOM_BYTES(1000) WHERE id < 500; CREATE DATABASE later");
    site.server.kill9();
    let live = site.server.datadir().to_owned();
    let summary = restored(&site, &old, &live, &["--reuse"]);
    println!("{summary}");
    assert!(number(&summary, "fetched_bytes") * 2 < number(&old["sizes"], "stored_bytes"), "{summary}");
    drop(lineage.started(0, &live, &ServerOptions::new()));
    assert!(beside(&live).with_extension("haulout-aside").join("later").is_dir());
}

#[test]
fn a_datadir_with_flipped_bytes_is_healed() {
    let site = Site::new();
    let mut lineage = Lineage::default();
    let backup = lineage.step(&site, PICTURES, &[]);
    let datadir = lineage.datadir(&site, 0);
    for (path, at) in [("shop/picture.ibd", 20_000_000), ("shop/item.ibd", 70_000), ("ibdata1", 500_000)] {
        let file = fs::OpenOptions::new().write(true).open(datadir.join(path)).unwrap();
        file.write_all_at(b"rotten", at).unwrap();
    }
    fs::remove_file(datadir.join("shop/note.MAI")).unwrap();
    let summary = restored(&site, &backup, &datadir, &["--reuse"]);
    assert!(number(&summary, "reused_bytes") > number(&summary, "written_bytes"), "{summary}");
    drop(lineage.started(0, &datadir, &ServerOptions::new()));
}

#[test]
fn a_server_that_runs_and_a_datadir_of_another_one_are_refused_and_left_alone() {
    let mut site = Site::new();
    let mut lineage = Lineage::default();
    let backup = lineage.step(&site, PICTURES, &[]);
    let reuse = |datadir: &Path| {
        let datadir = datadir.to_str().unwrap();
        site.haulout.run(["--json", "restore", "--backup", id(&backup), "--datadir", datadir, "--reuse"])
    };
    assert_says(&reuse(site.server.datadir()).exits(23), 23, "a server runs on datadir", "stop the server");
    assert_eq!(site.server.sql("SELECT COUNT(*) FROM shop.picture").trim(), "50000");
    let mut other = MariaDb::start();
    other.sql("CREATE DATABASE shop; CREATE TABLE shop.item (id INT PRIMARY KEY); INSERT INTO shop.item VALUES (7)");
    other.stop();
    let run = reuse(other.datadir());
    assert_says(&run.exits(2), 2, "holds hardly anything of backup", "restore without --reuse");
    other.restart();
    assert_eq!(other.sql("SELECT * FROM shop.item").trim(), "7");
    site.server.stop();
}

#[test]
fn a_restore_over_a_datadir_that_is_killed_is_gone_on_with() {
    let (site, gate) = behind_a_gate();
    let mut lineage = Lineage::default();
    let backup = lineage.step(&site, PICTURES, &[]);
    let datadir = lineage.datadir(&site, 0);
    let spoil = |directory: &Path| {
        let file = fs::OpenOptions::new().write(true).open(directory.join("shop/picture.ibd")).unwrap();
        (0..20).for_each(|place| file.write_all_at(b"rotten", 1_000_000 + place * 2_000_000).unwrap());
    };
    let text = datadir.to_str().unwrap().to_owned();
    let arguments = ["--json", "restore", "--backup", id(&backup), "--datadir", &text, "--reuse"];
    for side in [Side::Asked, Side::Answered] {
        spoil(&datadir);
        let point = long("the first of what differs", "GET data pack", 1, side);
        kill_at(&gate, &point, || site.haulout.spawn(arguments));
        assert!(beside(&datadir).join("shop/picture.ibd").exists() && !datadir.exists(), "{side:?}");
        // Nobody else takes it for leftovers.
        let run = site.haulout.run(["--json", "restore", "--backup", id(&backup), "--datadir", &text]);
        assert_says(&run.exits(2), 2, "began to write over", "--reuse");
        let summary = site.haulout.run(arguments).ok().summary().clone();
        assert!(number(&summary, "reused_bytes") > number(&summary, "written_bytes"), "{summary}");
        drop(lineage.started(0, &datadir, &ServerOptions::new()));
        assert!(!beside(&datadir).exists());
    }
    // In the middle of the prepare, which goes on alone for a while and holds the directory as long.
    let tool = stopped();
    let mut running = site.haulout.spawn(arguments.iter().copied().chain([tool.flag().as_str()]));
    running.wait_for("the prepare", |_| tool.has("held"));
    assert_eq!(running.kill9().signal(), Some(9));
    assert!(beside(&datadir).exists() && !datadir.exists());
    let run = crate::support::wait::until("the prepare to end", std::time::Duration::from_secs(60), || {
        let run = site.haulout.run(arguments);
        (run.code() != Some(11)).then_some(run)
    });
    let summary = run.ok().summary().clone();
    assert!(number(&summary, "reused_bytes") > number(&summary, "written_bytes"), "{summary}");
    drop(lineage.started(0, &datadir, &ServerOptions::new()));
}
