//! A store that is not there, goes away, or is no repository; and a spool that has no room.
//!
//! A wrong secret is not shown here: the store of these tests takes any signature. The store room's own tests show it
//! against a server that answers 403.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::support::{
    Fault, FaultyPath, Haulout, LocalStack, MariaDb, ServerOptions, Site,
    binary::Running,
    scratch, server,
    site::{assert_says, assert_unlocked, listing},
    store::environment,
    wait,
};

/// What the store gives up after, instead of the 48 s that an operator has by default.
const IMPATIENT: &str = "[s3]\ngive_up_after = 3\n";

/// A settings file for haulout.
pub fn settings(folder: &Path) -> PathBuf {
    let file = folder.join("settings.toml");
    fs::write(&file, IMPATIENT).unwrap();
    file
}

#[test]
fn a_place_without_a_repository_is_named() {
    let site = Site::new();
    let backup = |url: String| {
        let haulout = Haulout::on(url);
        haulout.backup(&site.server, &[])
    };
    let nothing = format!("file://{}/nothing", site.folder().display());
    site.refuses(10, "nothing does not exist", "that the disk is mounted", || backup(nothing));
    let empty = site.folder().join("empty");
    fs::create_dir(&empty).unwrap();
    let url = format!("file://{}", empty.display());
    site.refuses(10, &format!("there is no repository at {url}"), "haulout init", || backup(url.clone()));
    assert_eq!(fs::read_dir(&empty).unwrap().count(), 0);
    let bucket = LocalStack::shared().bucket();
    let there = Haulout::in_bucket(&bucket, "empty").run(["--json", "list"]).exits(10);
    assert_says(&there, 10, "there is no repository at s3://", "haulout init");
    for command in ["init", "list"] {
        let gone = Haulout::on("s3://haulout-no-such-bucket/db1").with(bucket.environment());
        let run = gone.run(["--json", command]).exits(10);
        assert_says(&run, 10, "there is no bucket for s3://haulout-no-such-bucket/db1", "create the bucket");
    }
}

#[test]
fn a_repository_of_a_newer_format_is_left_alone() {
    let site = Site::new();
    let config = site.repository().join("haulout.json");
    let text = fs::read_to_string(&config).unwrap();
    for (edited, code, says) in [
        (text.replace("\"format\":1", "\"format\":2"), 10, "format 2"),
        (text.replace("none", "some"), 20, "its body hashes to"),
        (text[..text.len() / 2].to_owned(), 20, "haulout.json"),
        (String::new(), 20, "haulout.json"),
    ] {
        fs::write(&config, edited).unwrap();
        let before = site.objects("");
        for command in ["backup", "list", "show"] {
            let run = match command {
                "backup" => site.backup(&[]),
                command => site.haulout.run(["--json", command]),
            };
            assert_says(&run.exits(code), code, says, "");
        }
        let run = site.haulout.run(["--json", "init"]).exits(1);
        assert_says(&run, 1, "there is already a repository", "");
        assert_eq!(site.objects(""), before);
    }
    fs::write(&config, text).unwrap();
    site.backed_up(&[]);
}

#[test]
fn an_endpoint_that_is_down_ends_with_22() {
    let closed = format!("http://127.0.0.1:{}", server::free_port());
    let folder = scratch();
    let config = settings(folder.path());
    let haulout =
        Haulout::on("s3://bucket/db1").with(environment(&closed)).with([("HAULOUT_CONFIG", config.to_str().unwrap())]);
    let begun = Instant::now();
    let run = haulout.run(["--json", "backup", "--socket=/nowhere"]).exits(22);
    assert_says(&run, 22, "Connection refused", &closed);
    let told =
        run.messages.iter().find(|message| message["message_type"] == "warning").unwrap_or_else(|| panic!("{run:?}"));
    assert!(told["message"].as_str().unwrap().contains("still trying"), "{told}");
    assert!(begun.elapsed() < Duration::from_secs(20));
}

/// A shop in a bucket behind a path that can fail.
pub fn behind_a_path(impatient: bool) -> (Site, FaultyPath) {
    let (mut site, bucket) = Site::in_bucket();
    let path = FaultyPath::to(LocalStack::shared().address());
    site.haulout = Haulout::in_bucket(&bucket, "db1").with(environment(&path.endpoint()));
    if impatient {
        let config = settings(site.folder());
        site.haulout = Haulout::in_bucket(&bucket, "db1")
            .with(environment(&path.endpoint()))
            .with([("HAULOUT_CONFIG", config.to_str().unwrap())]);
    }
    (site, path)
}

#[test]
fn a_lineage_in_a_bucket_is_what_list_says() {
    let (site, bucket) = Site::in_bucket();
    let first = site.backed_up(&[]);
    site.change();
    let second = site.backed_up(&["--incremental"]);
    let full = site.backed_up(&["--full"]);
    let ids: Vec<Value> = site.listing().iter().map(|backup| backup["backup_id"].clone()).collect();
    let mut expected = vec![first["backup_id"].clone(), second["backup_id"].clone(), full["backup_id"].clone()];
    expected.sort_by_key(|id| id.as_str().unwrap().to_owned());
    let mut sorted = ids.clone();
    sorted.sort_by_key(|id| id.as_str().unwrap().to_owned());
    assert_eq!(sorted, expected);
    assert_eq!(second["parent"], first["backup_id"]);
    let uploaded = |backup: &Value| backup["sizes"]["uploaded_bytes"].as_u64().unwrap();
    assert!(uploaded(&second) < uploaded(&first) / 2 && uploaded(&full) < uploaded(&first) / 2);
    assert_eq!(bucket.keys("db1/backups/").len(), 3);
    assert!(bucket.keys("db1/leases/").iter().all(|key| key.ends_with("-done.json")));
}

#[test]
fn a_store_that_goes_away_for_a_moment_costs_nothing() {
    let (site, path) = behind_a_path(false);
    path.set(Fault::DownAfter(400_000));
    let mut running = site.haulout.spawn_backup(&site.server, &[]);
    running.wait_for("the store to go away", |_| path.fault() == Fault::Down);
    let cut = path.connections();
    // It was asked again, and in vain.
    running.wait_for("another request", |_| path.connections() > cut + 1);
    path.set(Fault::None);
    let first = running.wait().ok();
    // Answers that are lost or cut short are asked for again too; the request may have been carried out.
    path.set(Fault::CutAnswerAfter(2000));
    site.change();
    let mut running = site.haulout.spawn_backup(&site.server, &["--incremental"]);
    let begun = path.connections();
    running.wait_for("a few answers to be cut", |_| path.connections() > begun + 4);
    path.set(Fault::None);
    let second = running.wait().ok();
    assert_eq!(second.summary()["parent"], first.summary()["backup_id"]);
    assert_eq!(site.listing().len(), 2);
}

#[test]
fn a_store_that_stays_away_ends_the_backup_with_22_and_without_a_manifest() {
    let (site, path) = behind_a_path(true);
    site.backed_up(&[]);
    // Enough to be cut in.
    site.server.sql(
        "USE shop; CREATE TABLE picture (id INT PRIMARY KEY, bytes BLOB) ENGINE=InnoDB;
         INSERT INTO picture SELECT seq, RANDOM_BYTES(1000) FROM seq_1_to_4000;",
    );
    let before = site.listing();
    path.set(Fault::DownAfter(1_000_000));
    let run = site.backup(&[]).exits(22);
    // Whichever comes first: that a pack cannot be stored, or that a block of the parent's map cannot be read.
    assert_says(&run, 22, " packs/", &path.endpoint());
    assert_eq!(path.fault(), Fault::Down);
    assert_unlocked(&site.server);
    path.set(Fault::None);
    assert_eq!(site.listing(), before);
    site.backed_up(&["--incremental"]);
}

#[test]
fn ctrl_c_is_heard_while_the_store_does_not_take_a_pack() {
    // The first backup reads nothing from the store once its capture has begun.
    let (site, path) = behind_a_path(false);
    let mut running = site.haulout.spawn_backup(&site.server, &[]);
    running.wait_for_line("the capture", |line| line.contains("\"phase\":\"capture\""));
    path.set(Fault::Stall);
    running.wait_for_line("the upload", |line| line.contains("\"phase\":\"upload\""));
    stops_at_once(&site, &path, running, &[]);
    site.backed_up(&[]);
}

#[test]
fn ctrl_c_is_heard_while_the_store_does_not_give_the_parents_map() {
    let (site, path) = behind_a_path(false);
    site.server.sql(
        "USE shop; CREATE TABLE picture (id INT PRIMARY KEY, bytes BLOB) ENGINE=InnoDB;
         INSERT INTO picture SELECT seq, RANDOM_BYTES(1000) FROM seq_1_to_12000;",
    );
    site.backed_up(&[]);
    site.server.sql("UPDATE shop.picture SET bytes = RANDOM_BYTES(1000) WHERE id % 100 = 0");
    let before = site.listing();
    let mut running = site.haulout.spawn_backup(&site.server, &["--incremental"]);
    running.wait_for_line("the choice", |line| line.contains("nothing speaks against it"));
    path.set(Fault::Stall);
    stops_at_once(&site, &path, running, &before);
    site.backed_up(&["--incremental"]);
}

/// Interrupts a run behind a path that is stalled: it ends soon, and nothing is committed or stays locked.
fn stops_at_once(site: &Site, path: &FaultyPath, running: Running, before: &[Value]) {
    let asked = Instant::now();
    running.interrupt();
    let run = running.wait().exits(130);
    assert!(asked.elapsed() < Duration::from_secs(25), "{:?}", asked.elapsed());
    assert_says(&run, 130, "stopped by a signal", "");
    path.set(Fault::None);
    assert_unlocked(&site.server);
    assert_eq!(site.listing(), before);
}

/// A file system of its own, unmounted at the end.
struct Disk(tempfile::TempDir);

impl Disk {
    fn of(bytes: u64) -> Disk {
        let folder = scratch();
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "tmpfs"])
            .arg(folder.path())
            .status()
            .unwrap();
        assert!(status.success(), "a file system can be mounted: these tests are run by root");
        Disk(folder)
    }

    fn flag(&self) -> String {
        format!("--spool-dir={}", self.0.path().display())
    }

    /// Leaves so many bytes free.
    fn fill(&self, left: u64) {
        let room = rustix::fs::statvfs(self.0.path()).unwrap();
        let bytes = (room.f_bavail * room.f_frsize).saturating_sub(left);
        fs::write(self.0.path().join("filler"), vec![1; usize::try_from(bytes).unwrap()]).unwrap();
    }

    fn packs(&self) -> usize {
        packs(self.0.path())
    }
}

/// Packs in a folder or below it.
fn packs(folder: &Path) -> usize {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| {
            if entry.path().is_dir() {
                packs(&entry.path())
            } else {
                usize::from(entry.path().extension().is_some_and(|extension| extension == "pack"))
            }
        })
        .sum()
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

#[test]
fn a_spool_that_can_hold_nothing_is_found_out_before_the_capture() {
    let (site, _bucket) = Site::in_bucket();
    let disk = Disk::of(8 << 20);
    let before = site.listing();
    let run = site.backup(&[&disk.flag()]).exits(1);
    assert_says(&run, 1, "the spool directory", "--spool-dir");
    assert!(!run.stdout.contains("\"phase\":\"capture\""), "{}", run.stdout);
    let file = site.folder().join("file");
    fs::write(&file, "no directory").unwrap();
    let run = site.backup(&["--spool-dir", file.join("below").to_str().unwrap()]).exits(1);
    assert_says(&run, 1, "the spool directory", "--spool-dir");
    assert_eq!(site.listing(), before);
    site.backed_up(&[]);
}

#[test]
fn a_store_that_is_slow_for_a_while_fills_the_spool_and_then_the_disk_and_the_backup_succeeds() {
    let (site, path) = behind_a_path(false);
    // One pack is on its way and two wait in memory, 16 MiB each; the spool's disk then has room for one or two.
    site.server.sql(
        "USE shop; CREATE TABLE picture (id INT PRIMARY KEY, bytes MEDIUMBLOB) ENGINE=InnoDB;
         INSERT INTO picture SELECT seq, RANDOM_BYTES(1024) FROM seq_1_to_110000;",
    );
    let disk = Disk::of(80 << 20);
    let mut running = site.haulout.spawn_backup(&site.server, &["--uploads=1", &disk.flag()]);
    running.wait_for_line("the capture", |line| line.contains("\"phase\":\"capture\""));
    path.set(Fault::Stall);
    disk.fill(40 << 20);
    running.wait_for("packs in the spool", |_| disk.packs() >= 1);
    running.wait_for_line("word of the full disk", |line| line.contains("disk is full"));
    path.set(Fault::None);
    let run = running.wait().ok();
    assert!(run.summary()["sizes"]["uploaded_bytes"].as_u64().unwrap() > 110_000 * 1024, "{}", run.stdout);
    wait::until("the spool to be empty", Duration::from_secs(10), || (disk.packs() == 0).then_some(()));
    assert_eq!(listing(&site.haulout).len(), 1);
    assert_eq!(site.backed_up(&["--incremental"])["parent"], run.summary()["backup_id"]);
}

/// Packs are handed over while others fail: the operator is told of the failure, not of what follows from it.
#[test]
fn a_disk_that_takes_no_pack_is_named() {
    let site = Site::new();
    site.server.sql(
        "USE shop; CREATE TABLE random (id INT PRIMARY KEY, text VARBINARY(2000)) ENGINE=InnoDB;
         INSERT INTO random SELECT seq, CONCAT(RANDOM_BYTES(1000), RANDOM_BYTES(1000)) FROM seq_1_to_40000",
    );
    let haulout = Haulout::on(format!("file://{}", site.repository().display())).with_limit("-f 4096");
    site.refuses(22, "no space left to store packs/", "free space", || haulout.backup(&site.server, &[]));
    site.backed_up(&[]);
}

/// The line of a restore is cut in the middle of answers; then it stays so.
#[test]
fn a_restore_whose_line_is_cut_goes_on_and_one_whose_store_stays_away_ends_with_22() {
    let (site, path) = behind_a_path(true);
    site.server.sql(
        "USE shop; CREATE TABLE picture (id INT PRIMARY KEY, bytes BLOB) ENGINE=InnoDB;
         INSERT INTO picture SELECT seq, RANDOM_BYTES(1000) FROM seq_1_to_8000;",
    );
    let backup = site.backed_up(&[]);
    let expected = site.server.checksums();
    let restore = |name: &str| {
        let (id, datadir) = (backup["backup_id"].as_str().unwrap(), site.folder().join(name));
        site.haulout.spawn(["--json", "restore", "--backup", id, "--datadir", datadir.to_str().unwrap()])
    };
    path.set(Fault::CutAnswerAfter(1_000_000));
    let begun = path.connections();
    let mut running = restore("cut");
    running.wait_for("a few answers to be cut", |_| path.connections() > begun + 3);
    path.set(Fault::None);
    running.wait().ok();
    assert_eq!(MariaDb::on(&site.folder().join("cut"), ServerOptions::new()).checksums(), expected);

    path.set(Fault::CutAnswerAfter(1_000_000));
    let mut running = restore("away");
    running.wait_for("files of the restore", |_| site.folder().join("away.haulout").exists());
    path.set(Fault::Down);
    let run = running.wait().exits(22);
    assert_says(&run, 22, "is as it was", &path.endpoint());
    assert!(!site.folder().join("away").exists());
    path.set(Fault::None);
    restore("away").wait().ok();
    assert_eq!(MariaDb::on(&site.folder().join("away"), ServerOptions::new()).checksums(), expected);
}
