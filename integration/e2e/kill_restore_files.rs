//! Restores that are killed at steps which only the files in their directories tell of.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use super::kill_points::behind_a_gate;
use super::kill_restore::{backed_up, restore, works};
use crate::support::{Lineage, ServerOptions, Site, binary::Running, full, not_shown};

/// Runs that are killed until one was hit where it should be: the steps are short.
const TRIES: usize = 12;

/// The state that a directory's marker tells.
fn state(directory: &Path) -> Option<String> {
    let marker: serde_json::Value =
        serde_json::from_slice(&fs::read(directory.join("haulout-restore.tmp")).ok()?).ok()?;
    Some(marker["state"].as_str()?.to_owned())
}

/// Names in a directory but for haulout's own.
fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| !name.starts_with(".haulout") && !name.starts_with("haulout-restore")).collect()
}

/// Kills a run as soon as `look` sees what it looks for, which it does without a pause.
fn kill_when(mut running: Running, look: impl Fn() -> bool) {
    while !look() && !running.ended() {
        thread::yield_now();
    }
    running.kill9();
}

/// Restores and kills again and again until one was hit; in between, `again` puts things in order.
fn hit(name: &str, kill: impl Fn() -> bool, again: impl Fn()) {
    for attempt in 1..=TRIES {
        if kill() {
            println!("killed: {name}, at attempt {attempt}");
            return;
        }
        again();
    }
    panic!("{name}: not hit in {TRIES} runs");
}

fn beside(datadir: &Path) -> PathBuf {
    PathBuf::from(format!("{}.haulout", datadir.display()))
}

#[test]
fn a_restore_that_is_killed_between_its_steps_goes_on_or_begins_anew() {
    if !full() {
        not_shown("restore killed at 4 points between its steps; integration/test.sh --full");
        return;
    }
    let (site, _gate) = behind_a_gate();
    let (lineage, id) = backed_up(&site);
    let datadir = site.folder().join("datadir");
    let work = beside(&datadir);
    let clean = || {
        let _ = (fs::remove_dir_all(&datadir), fs::remove_dir_all(&work));
    };
    for wanted in ["fetched", "preparing", "prepared"] {
        let kill = || {
            kill_when(restore(&site, &id, &datadir, &[]), || state(&work).as_deref() == Some(wanted));
            state(&work).as_deref() == Some(wanted)
        };
        hit(wanted, kill, clean);
        assert!(!datadir.exists());
        works(&site, &lineage, &id, &datadir, &[]);
    }
    // The files are in the datadir: it is a restore, whatever else was still to be done.
    let kill = || {
        kill_when(restore(&site, &id, &datadir, &[]), || datadir.exists());
        datadir.exists()
    };
    hit("renamed into the datadir", kill, clean);
    drop(lineage.started(lineage.len() - 1, &datadir, &ServerOptions::new()));
}

/// A small file system in memory, gone with its owner.
struct Disk(PathBuf);

impl Disk {
    fn new(path: PathBuf) -> Disk {
        fs::create_dir(&path).unwrap();
        let mount =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=900m", "tmpfs"]).arg(&path).status().unwrap();
        assert!(mount.success(), "a file system can be mounted: these tests run as root");
        Disk(path)
    }

    fn clear(&self) {
        for entry in fs::read_dir(&self.0).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

/// Where the datadir is a mount point, files come in one by one; where they were put together on another disk, as copies.
#[test]
fn a_restore_that_is_killed_with_half_of_its_files_in_the_datadir_takes_them_out_again() {
    let (site, _gate) = behind_a_gate();
    // Many entries, so that a kill comes in between.
    let schemas: String = (0..400).map(|number| format!("CREATE DATABASE s{number};")).collect();
    site.server.sql(&schemas);
    let (lineage, id) = backed_up(&site);
    let disk = Disk::new(site.folder().join("disk"));
    let (datadir, work) = (&disk.0, disk.0.join(".haulout"));
    let kill = || {
        kill_when(restore(&site, &id, datadir, &[]), || !names(datadir).is_empty());
        println!("{} entries in the datadir, {} still beside it", names(datadir).len(), names(&work).len());
        state(&work).as_deref() == Some("moving") && !names(datadir).is_empty()
    };
    hit("entries on their way into the datadir", kill, || disk.clear());
    runs_in_place(&site, &lineage, &id, &disk, &[]);
    if !full() {
        not_shown("restore killed while it copies into the datadir; integration/test.sh --full");
        return;
    }
    let elsewhere = site.folder().join("elsewhere");
    let flag = format!("--work-dir={}", elsewhere.display());
    let kill = || {
        kill_when(restore(&site, &id, datadir, &[&flag]), || !names(&work).is_empty());
        println!("{} entries copied", names(&work).len());
        state(&work).as_deref() == Some("filling") && !names(&work).is_empty()
    };
    hit("copies on their way into the datadir", kill, || disk.clear());
    assert_eq!(state(&elsewhere).as_deref(), Some("prepared"));
    runs_in_place(&site, &lineage, &id, &disk, &[&flag]);
    assert!(!elsewhere.exists());
}

/// Panics unless the restore works now, and what it restored is right.
#[track_caller]
fn runs_in_place(site: &Site, lineage: &Lineage, id: &str, disk: &Disk, more: &[&str]) {
    restore(site, id, &disk.0, more).wait().ok();
    assert!(!disk.0.join(".haulout").exists());
    drop(lineage.started(lineage.len() - 1, &disk.0, &ServerOptions::new()));
    disk.clear();
}
