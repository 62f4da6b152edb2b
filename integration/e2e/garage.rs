//! A store that is a real cluster of three nodes, of which some die. Garage answers 200 to conditional requests and overwrites.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
};

use super::{bad_store::settings, outage::make_pictures};
use crate::support::{
    Haulout, MariaDb, ServerOptions, Site,
    binary::Running,
    full, not_shown,
    site::{assert_says, assert_unlocked},
};

/// A cluster that ends with its test.
struct Cluster {
    folder: PathBuf,
    environment: Vec<(String, String)>,
    _scratch: tempfile::TempDir,
}

impl Cluster {
    fn start() -> Cluster {
        let scratch = crate::support::scratch();
        let mut cluster = Cluster { folder: scratch.path().join("g"), environment: Vec::new(), _scratch: scratch };
        let told = cluster.run(&["start", "--until-exit-of", &std::process::id().to_string()]);
        cluster.environment = told
            .lines()
            .filter_map(|line| line.split_once('='))
            .map(|(name, value)| (name.into(), value.into()))
            .collect();
        assert_eq!(cluster.environment.len(), 4, "{told}");
        cluster
    }

    fn run(&self, arguments: &[&str]) -> String {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("integration/garage.sh");
        let output = Command::new(script).args(arguments).arg("--dir").arg(&self.folder).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn kill(&self, nodes: &[&str]) {
        self.run(&[&["kill"], nodes].concat());
    }

    fn revive(&self, nodes: &[&str]) {
        self.run(&[&["revive"], nodes].concat());
    }

    /// The program on a repository in the cluster, which waits for its store as long as anywhere.
    fn haulout(&self) -> Haulout {
        Haulout::on("s3://lab/db1").with(self.environment.iter().cloned())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.run(&["stop"]);
        }
    }
}

/// Waits until a backup has captured some of its bytes, and is not over.
fn in_the_middle_of_a_backup(running: &mut Running) {
    running.wait_for_line("the capture", |line| {
        line.contains("\"phase\":\"capture\"") && !line.contains("\"done\":0,") && line.contains("\"ended\":false")
    });
}

/// Waits until a restore into `datadir` has written some of its bytes, which takes less than a second in all.
fn in_the_middle_of_a_restore(running: &mut Running, datadir: &Path) {
    let work = datadir.with_extension("haulout");
    running.wait_for("the fetch", |_| stored_below(&work) > 8 << 20);
}

/// Bytes on disk of the files in a folder and below.
fn stored_below(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let of = |entry: fs::DirEntry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => stored_below(&entry.path()),
        Ok(meta) => meta.blocks() * 512,
        Err(_) => 0,
    };
    entries.map(of).sum()
}

fn restore(haulout: &Haulout, datadir: &Path) -> Running {
    // One request at a time takes longer, so that the middle is long.
    haulout.spawn(["--json", "restore", "--datadir", datadir.to_str().unwrap(), "--connections", "1"])
}

#[test]
fn a_cluster_that_loses_nodes_costs_no_backup() {
    if !full() {
        not_shown("backups to a cluster of which nodes die; integration/test.sh --full");
        return;
    }
    let cluster = Cluster::start();
    let site = Site::on(cluster.haulout());
    make_pictures(&site, 100);
    let impatient = settings(site.folder());
    let impatient = cluster.haulout().with([("HAULOUT_CONFIG", impatient.to_str().unwrap())]);
    let rows = site.server.checksums();

    // One dies while a backup is taken, another, when the first is back, while it is restored.
    let mut backup = site.haulout.spawn_backup(&site.server, &["--uploads=1", "--", "--throttle=20"]);
    in_the_middle_of_a_backup(&mut backup);
    cluster.kill(&["2"]);
    let first = backup.wait().ok().summary().clone();
    site.haulout.run(["check", "--read-data"]).ok();
    cluster.revive(&["2"]);
    let datadir = site.folder().join("one");
    let mut running = restore(&site.haulout, &datadir);
    in_the_middle_of_a_restore(&mut running, &datadir);
    cluster.kill(&["3"]);
    running.wait().ok();
    let restored = MariaDb::on(&datadir, ServerOptions::new());
    assert_eq!((restored.check_all(), restored.checksums()), (vec![], rows));
    drop(restored);

    // With two away nothing can be read or written, and that is what is said.
    cluster.kill(&["2"]);
    for run in [impatient.backup(&site.server, &[]), impatient.run(["--json", "check"])] {
        assert_says(&run.exits(22), 22, "Could not reach quorum", "");
    }
    assert_unlocked(&site.server);
    cluster.revive(&["2", "3"]);
    site.change();
    let mut backup = impatient.spawn_backup(&site.server, &["--full", "--uploads=1", "--", "--throttle=20"]);
    in_the_middle_of_a_backup(&mut backup);
    cluster.kill(&["2", "3"]);
    backup.wait().exits(22);
    cluster.revive(&["2", "3"]);
    assert_eq!(site.listing().len(), 1);
    site.change();
    let second = site.backed_up(&["--incremental"]);
    assert_eq!(second["parent"], first["backup_id"]);
    let rows = site.server.checksums();

    // The same of a restore.
    let datadir = site.folder().join("two");
    let mut running = restore(&impatient, &datadir);
    in_the_middle_of_a_restore(&mut running, &datadir);
    cluster.kill(&["2", "3"]);
    running.wait().exits(22);
    assert!(!datadir.exists());
    cluster.revive(&["2", "3"]);
    restore(&site.haulout, &datadir).wait().ok();
    let restored = MariaDb::on(&datadir, ServerOptions::new());
    assert_eq!((restored.check_all(), restored.checksums()), (vec![], rows));
    site.haulout.run(["check", "--read-data"]).ok();
}
