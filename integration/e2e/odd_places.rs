//! Places, limits and leftovers that an operator meets and nobody thought of.

use std::{fs, os::unix::fs::symlink, path::Path};

use serde_json::Value;

use crate::support::{Haulout, MariaDb, Site, site::assert_says};

fn id(backup: &Value) -> &str {
    backup["backup_id"].as_str().unwrap()
}

fn on(site: &Site) -> Haulout {
    Haulout::on(format!("file://{}", site.repository().display()))
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn directories_may_be_named_relatively_and_by_symbolic_links() {
    let site = Site::new();
    let backup = site.backed_up(&[]);
    let expected = site.server.checksums();
    let place = site.folder().join("place");
    fs::create_dir_all(place.join("real")).unwrap();
    symlink("real", place.join("link")).unwrap();
    let haulout = on(&site).in_directory(&place);
    for (target, datadir) in [("f1", "d1"), ("link", "d2"), ("link/", "d3/"), ("./f4", "../d4")] {
        haulout.run(["fetch", "--target", target]).ok();
        haulout.run(["prepare", "--target", target]).ok();
        haulout.run(["move-back", "--target", target, "--datadir", datadir]).ok();
        assert!(place.join(datadir).join("ibdata1").exists(), "{datadir}");
        fs::create_dir_all(place.join("real")).unwrap();
    }
    for (work, datadir) in [("w1", "r1"), ("link/", "r2")] {
        haulout.run(["restore", "--backup", id(&backup), "--work-dir", work, "--datadir", datadir]).ok();
        fs::create_dir_all(place.join("real")).unwrap();
    }
    assert_eq!(MariaDb::on(&place.join("d1"), Default::default()).checksums(), expected);
    assert_eq!(MariaDb::on(&place.join("r2"), Default::default()).checksums(), expected);
}

#[test]
fn a_fetched_directory_is_left_alone_by_what_does_not_fit_it() {
    let site = Site::new();
    site.backed_up(&[]);
    let target = site.folder().join("f");
    let target_flag = ["--target", text(&target)];
    let run = |words: &[&str]| site.haulout.run([&["--json"], words, &target_flag].concat());
    run(&["fetch"]).ok();
    assert_says(&run(&["fetch"]).exits(2), 2, "is fetched, expected empty or missing", "name another directory");
    run(&["prepare"]).ok();
    for datadir in [target.join("d"), target.clone()] {
        for command in ["copy-back", "move-back"] {
            let run = run(&[command, "--datadir", text(&datadir)]).exits(2);
            assert_says(&run, 2, "lies in the other", "beside the datadir");
        }
    }
    run(&["copy-back", "--datadir", text(&site.folder().join("d"))]).ok();
}

#[test]
fn a_work_directory_in_or_around_the_datadir_is_refused_and_both_stay() {
    let site = Site::new();
    site.backed_up(&[]);
    let place = site.folder().join("place");
    fs::create_dir_all(place.join("data")).unwrap();
    for work in [place.join("data"), place.join("data/work"), place.clone()] {
        let datadir = place.join("data");
        let run = site.haulout.run(["--json", "restore", "--work-dir", text(&work), "--datadir", text(&datadir)]);
        assert_says(&run.exits(2), 2, "lies in the other", "beside the datadir");
        assert_eq!(fs::read_dir(&place).unwrap().count(), 1);
        assert_eq!(fs::read_dir(&datadir).unwrap().count(), 0);
    }
}

/// Programs of the server's account leave such directories in its home.
#[test]
fn an_empty_directory_whose_name_begins_with_a_dot_is_in_nobody_s_way() {
    let site = Site::new();
    for name in [".cache", "..x"] {
        fs::create_dir(site.server.datadir().join(name)).unwrap();
    }
    site.backed_up(&[]);
    site.change();
    let backup = site.backed_up(&["--incremental"]);
    let restored = MariaDb::on(&site.restored(&backup), Default::default());
    assert_eq!(restored.checksums(), site.server.checksums());
}

#[test]
fn backups_without_their_haulout_json_are_not_made_another_repository() {
    let site = Site::new();
    let backup = site.backed_up(&[]);
    let config = site.repository().join("haulout.json");
    let bytes = fs::read(&config).unwrap();
    fs::remove_file(&config).unwrap();
    for command in ["list", "init", "check"] {
        let run = site.haulout.run(["--json", command]).exits(20);
        assert_says(&run, 20, "its haulout.json is gone", "bring haulout.json back");
        assert!(!config.exists());
    }
    fs::write(&config, bytes).unwrap();
    assert_eq!(site.listing()[0]["backup_id"], backup["backup_id"]);
}

/// A prepare opens all tables at once; what the shell lets a program open by default is too little.
#[test]
fn a_backup_of_more_tables_than_files_may_be_open_by_default_restores() {
    let site = Site::new();
    let create: String = (0..300).map(|number| format!("CREATE TABLE t{number} (id INT PRIMARY KEY);")).collect();
    // In the redo log of the backup, so that recovery opens them.
    let insert: String = (0..300).map(|number| format!("INSERT INTO t{number} VALUES ({number});")).collect();
    site.server.sql(&format!("CREATE DATABASE many; USE many; {create} {insert}"));
    let backup = site.backed_up(&[]);
    let datadir = site.folder().join("restored");
    let few = on(&site).with_limit("-Sn 128");
    few.run(["restore", "--backup", id(&backup), "--datadir", text(&datadir)]).ok();
    assert_eq!(MariaDb::on(&datadir, Default::default()).checksums(), site.server.checksums());
}

#[test]
fn a_prepare_that_gets_too_little_memory_leaves_the_directory_for_the_next() {
    let site = Site::new();
    site.backed_up(&[]);
    let target = site.folder().join("fetched");
    site.haulout.run(["fetch", "--target", text(&target)]).ok();
    let run = site.haulout.run(["--json", "prepare", "--target", text(&target), "--use-memory", "1000T"]);
    assert_says(&run.exits(1), 1, "too little memory", "--use-memory");
    site.haulout.run(["prepare", "--target", text(&target)]).ok();
}
