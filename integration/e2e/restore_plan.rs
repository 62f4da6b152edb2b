//! What a restore takes is told beforehand, on a machine that lacks for it what it may.

use std::{
    fs,
    os::unix::fs::{MetadataExt, symlink},
    path::Path,
};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{Site, Tool, binary::Run, not_shown, scratch, site::assert_says, tool};

/// A folder for `--tool-dir` in which these names stand for these programs.
fn programs(named: &[(&str, &Path)]) -> (TempDir, String) {
    let folder = scratch();
    named.iter().for_each(|(name, program)| symlink(program, folder.path().join(name)).unwrap());
    let flag = format!("--tool-dir={}", folder.path().display());
    (folder, flag)
}

/// Runs `restore` into a datadir that is missing, with more arguments.
fn restore(site: &Site, name: &str, more: &[&str]) -> Run {
    let datadir = site.folder().join(name).display().to_string();
    site.haulout.run([&["--json", "restore", "--datadir", &datadir], more].concat())
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

/// Program and version of what is lacking.
fn lacking(plan: &Value) -> Vec<(String, Option<String>)> {
    let lines = plan["lacking"].as_array().unwrap().iter();
    lines.map(|line| (text(&line["program"]), line["found"].as_str().map(str::to_owned))).collect()
}

fn device(path: &Path) -> u64 {
    fs::metadata(path).unwrap().dev()
}

fn notes(run: &Run) -> String {
    let told = run.messages.iter().filter(|line| ["note", "warning"].contains(&line["message_type"].as_str().unwrap()));
    told.map(|line| text(&line["message"]) + "\n").collect()
}

#[test]
fn a_machine_without_mariadb_is_told_packages_sizes_and_what_nobody_has_measured() {
    let site = Site::sealed();
    let backup = site.backed_up(&[]);
    let (_empty, flag) = programs(&[]);
    let run = restore(&site, "data", &["--dry-run", "--owner", "nobody-of-that-name", &flag]);
    let plan = run.summary().clone();
    assert_eq!(lacking(&plan), [("mariadb-backup".to_owned(), None), ("mariadbd".to_owned(), None)]);
    let (series, version) = (site.server.series(), site.server.sql("SELECT VERSION()"));
    let release = version.trim().split('-').next().unwrap();
    for line in plan["lacking"].as_array().unwrap() {
        assert_eq!((text(&line["series"]), text(&line["version"])), (series.clone(), release.to_owned()));
    }
    let install = text(&plan["install"]).to_lowercase();
    assert!(install.contains("mariadb-backup") && install.contains(&format!("{series}.*")), "{install}");
    assert_eq!(text(&plan["server_version"]), version.trim());

    // Sizes, and times as far as anybody has measured them.
    let figure = |name: &str| plan[name].as_u64().unwrap_or_else(|| panic!("no {name} in {plan}"));
    assert!(figure("needed_bytes") > figure("written_bytes") && figure("free_bytes") > figure("needed_bytes"));
    assert!(
        figure("logical_bytes") >= figure("written_bytes") && figure("redo_bytes") > 0 && figure("fetched_bytes") > 0
    );
    assert_eq!(plan["redo_bytes"], site.listing()[0]["redo"]["bytes"]);
    let read = plan["measured"]["bytes"].as_u64().unwrap();
    assert!(read > 0 && read <= figure("fetched_bytes"), "{plan}");
    assert_eq!(read, figure("fetched_bytes"), "a small backup is read as a whole: {plan}");
    let estimate = &plan["estimate"];
    assert!(estimate["fetch_seconds"].as_f64().unwrap() > 0.0, "{plan}");
    for name in ["prepare_seconds", "start_seconds", "seconds"] {
        assert!(estimate[name].is_null(), "nobody has measured {name}: {plan}");
    }
    assert!(plan["drill"].is_null(), "{plan}");

    // All that is in the way is told, and the first of it is the error.
    let obstacles = plan["obstacles"].to_string();
    assert!(obstacles.contains("not installed") && obstacles.contains("no user nobody-of-that-name"), "{plan}");
    assert_says(
        &run,
        23,
        "mariadb-backup is not installed",
        &format!("mariadb-server of MariaDB {series}, {release} or later"),
    );
    let run = restore(&site, "data", &[&flag]);
    assert_says(&run, 23, "mariadb-backup is not installed", "mariadb-server");
    assert!(!site.folder().join("data").exists() && run.messages.iter().all(|line| line["message_type"] != "status"));

    let datadir = site.folder().join("data").display().to_string();
    let run = site.haulout.run(["restore", "--dry-run", "--datadir", &datadir, &flag]).exits(23);
    for words in ["to install", "no mariadb-backup", "nobody has measured", "must be free", "read just now"] {
        assert!(run.stdout.contains(words), "{words:?}: {}", run.stdout);
    }
    assert!(run.stdout.contains(text(&backup["backup_id"]).as_str()));
}

#[test]
fn programs_of_another_series_are_told_with_the_packages_that_fit() {
    let site = Site::new();
    site.backed_up(&[]);
    let series = site.server.series();
    let other = Tool::of_version("11.4.2-MariaDB");
    let run = restore(&site, "data", &["--dry-run", &other.flag()]);
    assert_eq!(lacking(run.summary()), [("mariadb-backup".to_owned(), Some("11.4.2-MariaDB".to_owned()))]);
    let hint = format!("install mariadb-backup of MariaDB {series}");
    assert_says(&run, 23, "mariadb-backup is of version 11.4.2-MariaDB", &hint);
    assert_says(&restore(&site, "data", &[&other.flag()]), 23, "is of version 11.4.2-MariaDB", &hint);

    // A server is not needed to restore; whoever wants to start one is told.
    let (real, newer) = (tool::real("mariadb-backup"), other.folder().join("mariadb-backup"));
    for (name, server, said) in [
        ("without", None, "mariadbd is not installed"),
        ("newer", Some(newer.as_path()), "mariadbd is of version 11.4.2-MariaDB"),
    ] {
        let named = [Some(("mariadb-backup", real.as_path())), server.map(|path| ("mariadbd", path))];
        let (_folder, flag) = programs(&named.into_iter().flatten().collect::<Vec<_>>());
        let plan = restore(&site, name, &["--dry-run", &flag]).ok().summary().clone();
        assert_eq!(lacking(&plan), [("mariadbd".to_owned(), server.map(|_| "11.4.2-MariaDB".to_owned()))]);
        assert_eq!(plan["obstacles"].as_array().unwrap().len(), 0, "{plan}");
        let run = restore(&site, name, &[&flag]).ok();
        assert!(notes(&run).contains(said) && notes(&run).contains("mariadb-server"), "{}", notes(&run));
        assert!(site.folder().join(name).join("ibdata1").exists());
    }
    let plan = restore(&site, "data", &["--dry-run"]).ok().summary().clone();
    assert_eq!((lacking(&plan), plan["install"].is_null()), (Vec::new(), true), "{plan}");
}

#[test]
fn times_are_estimated_from_the_last_drill_and_a_stretch_that_is_read() {
    let site = Site::new();
    site.backed_up(&[]);
    let scratch = site.folder().join("drill");
    let before = restore(&site, "first", &[]).ok();
    assert!(notes(&before).contains("nobody has measured"), "{}", notes(&before));
    let drill = site.haulout.run(["--json", "drill", "--scratch", scratch.to_str().unwrap()]).ok().summary().clone();
    site.change();
    site.backed_up(&[]);
    let plan = restore(&site, "data", &["--dry-run"]).ok().summary().clone();
    assert_eq!((&plan["drill"]["proof_id"], &plan["drill"]["host"]), (&drill["proof_id"], &drill["host"]), "{plan}");
    let number = |value: &Value| value.as_f64().unwrap_or_else(|| panic!("no number in {plan}"));
    let (estimate, steps) = (&plan["estimate"], &drill["steps"]);
    let parts = ["fetch_seconds", "prepare_seconds", "start_seconds"].map(|name| number(&estimate[name]));
    assert!((parts.iter().sum::<f64>() - number(&estimate["seconds"])).abs() < 1e-6, "{plan}");
    assert!(parts[1] >= number(&steps["prepare"]) && (parts[2] - number(&steps["start"])).abs() < 1e-6, "{plan}");
    // Of a copy into the datadir nobody knows how long it takes.
    let elsewhere = Path::new("/dev/shm");
    if elsewhere.is_dir() && device(elsewhere) != device(site.folder()) {
        let work_dir = elsewhere.join(format!("haulout-{}", std::process::id())).display().to_string();
        let plan = restore(&site, "data", &["--dry-run", "--work-dir", &work_dir]).ok().summary().clone();
        assert_eq!((&plan["copied"], plan["estimate"]["seconds"].is_null()), (&true.into(), true), "{plan}");
        assert!(!plan["estimate"]["fetch_seconds"].is_null(), "{plan}");
    } else {
        not_shown("that a copy into the datadir has no estimate: there is no second file system");
    }
    let run = restore(&site, "data", &[]).ok();
    let proof = text(&drill["proof_id"]);
    assert!(notes(&run).contains(&format!("until the server answers, by drill {proof}")), "{}", notes(&run));
}

#[test]
fn what_is_in_the_way_of_a_restore_is_told_beforehand_beside_what_it_takes() {
    let site = Site::new();
    site.backed_up(&[]);
    fs::create_dir(site.folder().join("data")).unwrap();
    fs::write(site.folder().join("data/ibdata1"), "of another server").unwrap();
    let run = restore(&site, "data", &["--dry-run"]);
    let real = restore(&site, "data", &[]);
    assert_eq!(run.message("error")["code"], real.message("error")["code"]);
    assert!(run.summary()["obstacles"][0].as_str().unwrap().contains("is not empty"), "{}", run.summary());
    assert!(run.summary()["fetched_bytes"].as_u64().unwrap() > 0);

    // A pack that is gone is noticed where it is among those that are read.
    let packs = site.objects("packs");
    let is_data = |path: &&std::path::PathBuf| fs::read(path).unwrap()[9] == 1;
    packs.iter().filter(is_data).for_each(|pack| fs::remove_file(pack).unwrap());
    let run = restore(&site, "other", &["--dry-run"]);
    assert_says(&run, 20, "is missing", "");
    assert!(run.summary()["measured"].is_null() && run.summary()["estimate"]["fetch_seconds"].is_null());
}
