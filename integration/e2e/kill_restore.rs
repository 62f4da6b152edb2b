//! Restores that are killed at each step until the files are in the datadir.

use std::path::{Path, PathBuf};

use super::kill_points::{Point, behind_a_gate, kill_at, long, usual, wanted};
use crate::support::{Lineage, ServerOptions, Side, Site, Tool, binary::Running, full, not_shown};

const POINTS: [Point; 8] = [
    long("before it opens the repository", "GET haulout.json", 1, Side::Asked),
    long("manifest read, answer lost", "GET manifest", 1, Side::Answered),
    long("before the first of the map", "GET map pack", 1, Side::Asked),
    long("first of the map read, answer lost", "GET map pack", 1, Side::Answered),
    long("second of the map read, answer lost", "GET map pack", 2, Side::Answered),
    long("before the first data", "GET data pack", 1, Side::Asked),
    long("first data read, answer lost", "GET data pack", 1, Side::Answered),
    usual("second data read, answer lost", "GET data pack", 2, Side::Answered),
];

/// A shop of which a backup was taken, the lineage, and its id.
pub fn backed_up(site: &Site) -> (Lineage, String) {
    let mut lineage = Lineage::default();
    lineage.step(
        site,
        "USE shop; CREATE TABLE shop.picture (id INT PRIMARY KEY, bytes BLOB) ENGINE=InnoDB;
         INSERT INTO shop.picture SELECT seq, RANDOM_BYTES(1000) FROM seq_1_to_20000",
        &[],
    );
    site.change();
    let backup = lineage.backed_up(site, &[]);
    (lineage, backup["backup_id"].as_str().unwrap().to_owned())
}

/// Starts a restore of `id` into `datadir`.
pub fn restore(site: &Site, id: &str, datadir: &Path, more: &[&str]) -> Running {
    let datadir = datadir.to_str().unwrap();
    site.haulout.spawn(["--json", "restore", "--backup", id, "--datadir", datadir].iter().chain(more))
}

#[test]
fn a_restore_that_is_killed_while_it_reads_leaves_the_datadir_as_it_was_and_the_next_one_works() {
    let (site, gate) = behind_a_gate();
    let (lineage, id) = backed_up(&site);
    for point in wanted("restore", &POINTS) {
        let datadir = site.folder().join("datadir");
        kill_at(&gate, &point, || restore(&site, &id, &datadir, &[]));
        assert!(!datadir.exists(), "{}", point.name);
        works(&site, &lineage, &id, &datadir, &[]);
    }
}

/// Panics unless a restore into `datadir` works, and what it restored is right; removes it again.
#[track_caller]
pub fn works(site: &Site, lineage: &Lineage, id: &str, datadir: &Path, more: &[&str]) {
    restore(site, id, datadir, more).wait().ok();
    let beside = PathBuf::from(format!("{}.haulout", datadir.display()));
    assert!(!beside.exists(), "{} was left behind", beside.display());
    drop(lineage.started(lineage.len() - 1, datadir, &ServerOptions::new()));
    std::fs::remove_dir_all(datadir).unwrap();
}

/// In place of the tool: the prepare is held before or after it works, the first time it is wanted.
fn held(prepare: &str) -> Tool {
    Tool::new(&format!(
        "case \"$*\" in *--prepare*) ;; *) exec \"$real\" \"$@\";; esac
         [ ! -e \"$here/held\" ] || exec \"$real\" \"$@\"
         wait_here() {{ : > \"$here/held\"; until [ -e \"$here/on\" ]; do read -r nothing < \"$here/pulse\"; done; }}
         {prepare}"
    ))
    .with_pulse()
}

/// In place of the tool: the prepare stands still when it begins with the redo log, the first time it is wanted. When its run is killed
/// the kernel wakes it (a process group that nobody waits for any more is sent SIGHUP and SIGCONT), and it goes on alone.
pub fn stopped() -> Tool {
    Tool::new(
        "case \"$*\" in *--prepare*) ;; *) exec \"$real\" \"$@\";; esac
         [ ! -e \"$here/held\" ] || exec \"$real\" \"$@\"
         trap '' HUP
         mkfifo \"$here/said\"
         \"$real\" \"$@\" 2> \"$here/said\" & tool=$!
         while IFS= read -r line; do
           case $line in *'Starting crash recovery from'*) kill -STOP $tool; : > \"$here/held\";; esac
         done < \"$here/said\"
         wait $tool",
    )
}

#[test]
fn a_restore_that_is_killed_in_its_prepare_leaves_the_datadir_as_it_was_and_the_next_one_works() {
    let (site, _gate) = behind_a_gate();
    let (lineage, id) = backed_up(&site);
    let mut points = vec![("in the middle of the prepare", stopped(), false)];
    if full() {
        points.push(("the prepare is about to begin", held("wait_here; exec \"$real\" \"$@\""), true));
        let ended = held("\"$real\" \"$@\"; code=$?; wait_here; exit $code");
        points.push(("the prepare has ended, and nobody heard", ended, true));
    } else {
        not_shown("restore killed before and after its prepare; integration/test.sh --full");
    }
    for (name, tool, waits) in points {
        println!("killed: {name}");
        let datadir = site.folder().join("datadir");
        let mut running = restore(&site, &id, &datadir, &[&tool.flag()]);
        running.wait_for(name, |_| tool.has("held"));
        assert_eq!(running.kill9().signal(), Some(9));
        assert!(!datadir.exists(), "{name}");
        // What the killed run left of its prepare is still there meanwhile.
        works(&site, &lineage, &id, &datadir, &[&tool.flag()]);
        if waits {
            tool.let_go();
        }
    }
}
