//! Restores: every backup of a lineage comes back, and whatever goes wrong leaves the datadir as it was.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use crate::support::{
    Fault, FaultyPath, LocalStack, MariaDb, ServerOptions, Site, binary::Run, site::assert_says, store,
};

fn id(backup: &Value) -> &str {
    backup["backup_id"].as_str().unwrap()
}

/// Runs `haulout restore` of a backup into `datadir`.
fn restore(site: &Site, backup: &str, datadir: &Path) -> Run {
    let datadir = datadir.to_str().unwrap();
    site.haulout.run(["--json", "restore", "--backup", backup, "--datadir", datadir])
}

/// Checksums of what a server on `datadir` holds, all of its tables being sound.
fn checksums_of(datadir: &Path) -> std::collections::BTreeMap<String, String> {
    let mut server = MariaDb::on(datadir, ServerOptions::new());
    assert_eq!(server.check_all(), [""; 0]);
    let checksums = server.checksums();
    server.stop();
    checksums
}

/// A full backup and three incrementals with DDL between, each with the checksums of its moment.
fn lineage(site: &Site) -> Vec<(Value, std::collections::BTreeMap<String, String>)> {
    let steps = [
        "SELECT 1",
        "USE shop; CREATE TABLE shop.second (id INT PRIMARY KEY, t TEXT) ROW_FORMAT=COMPRESSED;
         INSERT INTO shop.second SELECT seq, REPEAT(MD5(seq), 20) FROM seq_1_to_3000;
         DELETE FROM shop.item WHERE id % 3 = 0",
        "RENAME TABLE shop.item TO shop.swap, shop.second TO shop.item, shop.swap TO shop.second;
         CREATE TABLE shop.third (id INT PRIMARY KEY) ENGINE=InnoDB; INSERT INTO shop.third VALUES (1), (2);
         TRUNCATE TABLE shop.item; INSERT INTO shop.item VALUES (7, 'seven')",
        "DROP TABLE shop.third; ALTER TABLE shop.second ADD COLUMN more INT DEFAULT 5, ALGORITHM=COPY;
         CREATE DATABASE empty; INSERT INTO shop.note SELECT * FROM shop.note",
    ];
    steps
        .iter()
        .map(|step| {
            site.server.sql(step);
            (site.backed_up(&[]), site.server.checksums())
        })
        .collect()
}

#[test]
fn every_backup_of_a_lineage_restores_to_its_own_moment() {
    let site = Site::new();
    for (backup, checksums) in lineage(&site) {
        let datadir = site.folder().join(format!("of-{}", id(&backup)));
        let summary = restore(&site, id(&backup), &datadir).ok().summary().clone();
        assert_eq!(summary["backup_id"], backup["backup_id"]);
        assert_eq!(checksums_of(&datadir), checksums, "{backup}");
    }
    let kinds: Vec<_> = site.listing().iter().map(|backup| backup["kind"].as_str().unwrap().to_owned()).collect();
    assert_eq!(kinds, ["full", "incremental", "incremental", "incremental"]);
    site.haulout.run(["check", "--read-data"]).ok();
}

#[test]
fn the_stock_tool_alone_prepares_and_copies_back_what_fetch_wrote() {
    let site = Site::new();
    let lineage = lineage(&site);
    let (target, datadir) = (site.folder().join("fetched"), site.folder().join("stock"));
    site.haulout.run(["fetch", "--backup", "latest", "--target", target.to_str().unwrap()]).ok();
    let stock = |arguments: &[String]| {
        let output = Command::new("mariadb-backup").args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let target_dir = format!("--target-dir={}", target.display());
    stock(&["--no-defaults".into(), "--prepare".into(), target_dir.clone()]);
    stock(&["--no-defaults".into(), "--copy-back".into(), target_dir, format!("--datadir={}", datadir.display())]);
    assert_eq!(checksums_of(&datadir), lineage.last().unwrap().1);
}

#[test]
fn single_steps_do_what_restore_does_and_copy_back_keeps_the_originals() {
    let site = Site::new();
    site.change();
    site.backed_up(&[]);
    let expected = site.server.checksums();
    let target = site.folder().join("steps");
    let (copied, moved) = (site.folder().join("copied"), site.folder().join("moved"));
    let text = |path: &PathBuf| path.to_str().unwrap().to_owned();
    site.haulout.run(["fetch", "--target", &text(&target)]).ok();
    site.haulout.run(["prepare", "--target", &text(&target)]).ok();
    site.haulout.run(["copy-back", "--target", &text(&target), "--datadir", &text(&copied)]).ok();
    assert!(target.join("ibdata1").exists());
    site.haulout.run(["move-back", "--target", &text(&target), "--datadir", &text(&moved)]).ok();
    assert!(!target.join("ibdata1").exists());
    assert_eq!(checksums_of(&copied), expected);
    assert_eq!(checksums_of(&moved), expected);
}

/// As many of the map's blocks are read ahead as may be on their way at all: nobody waits for another.
#[test]
fn few_connections_are_enough() {
    let site = Site::new();
    site.backed_up(&[]);
    for connections in ["1", "2", "8"] {
        let target = site.folder().join(connections);
        let target = target.to_str().unwrap();
        site.haulout.run(["fetch", "--target", target, "--connections", connections]).ok();
        site.haulout.run(["restore", "--datadir", &format!("{target}-data"), "--connections", connections]).ok();
        let again = format!("{target}-data");
        site.haulout.run(["restore", "--reuse", "--datadir", &again, "--connections", connections]).ok();
        site.haulout.run(["check", "--read-data", "--connections", connections]).ok();
    }
}

#[test]
fn a_datadir_in_use_is_refused_and_left_alone() {
    let mut site = Site::new();
    let backup = site.backed_up(&[]);
    let run = restore(&site, id(&backup), site.server.datadir());
    assert_says(&run.exits(23), 23, "a server runs on datadir", "stop the server");
    site.server.sql("SELECT COUNT(*) FROM shop.item");
    site.server.stop();
    let run = restore(&site, id(&backup), site.server.datadir());
    assert_eq!(run.code(), Some(2), "{}", run.stdout);
    site.server.restart();
    assert_eq!(site.server.sql("SELECT COUNT(*) FROM shop.item").trim(), "4000");
}

#[test]
fn modes_of_files_come_back() {
    use std::os::unix::fs::PermissionsExt;
    let site = Site::new();
    let mode =
        |path: PathBuf| fs::metadata(&path).unwrap_or_else(|error| panic!("{path:?}: {error}")).permissions().mode();
    let odd = site.server.datadir().join("shop/note.MAD");
    fs::set_permissions(&odd, fs::Permissions::from_mode(0o640)).unwrap();
    let backup = site.backed_up(&[]);
    let datadir = site.folder().join("modes");
    restore(&site, id(&backup), &datadir).ok();
    for path in ["shop/note.MAD", "shop/item.ibd", "ibdata1", "shop", "mysql"] {
        assert_eq!(mode(datadir.join(path)) & 0o777, mode(site.server.datadir().join(path)) & 0o777, "{path}");
    }
}

#[test]
fn damage_is_named_by_check_and_restores_nothing() {
    let site = Site::new();
    let backup = site.backed_up(&[]);
    let packs = site.objects("packs");
    let largest = packs.iter().max_by_key(|pack| fs::metadata(pack).unwrap().len()).unwrap().clone();
    let whole = fs::read(&largest).unwrap();
    let changed = {
        let mut bytes = whole.clone();
        let middle = bytes.len() / 3;
        bytes[middle] ^= 1;
        bytes
    };
    let datadir = site.folder().join("damaged");
    for damaged in [None, Some(whole[..whole.len() / 2].to_vec()), Some(changed)] {
        fs::remove_file(&largest).unwrap();
        let same_size = damaged.as_ref().is_some_and(|bytes| bytes.len() == whole.len());
        if let Some(bytes) = damaged {
            fs::write(&largest, bytes).unwrap();
        }
        let run = restore(&site, id(&backup), &datadir);
        let name = largest.file_name().unwrap().to_str().unwrap();
        assert_says(&run, 20, name, "check");
        assert!(!datadir.exists(), "something was restored");
        let check = if same_size { ["--json", "check", "--read-data"].to_vec() } else { ["--json", "check"].to_vec() };
        let run = site.haulout.run(check).exits(3);
        assert_eq!(run.message("damage")["backups"][0], backup["backup_id"]);
        fs::write(&largest, &whole).unwrap();
    }
    restore(&site, id(&backup), &datadir).ok();
    site.haulout.run(["check", "--read-data"]).ok();
}

#[test]
fn a_disk_without_room_is_told_before_anything_is_written() {
    let site = Site::new();
    let backup = site.backed_up(&[]);
    let disk = Disk::new(site.folder().join("disk"), "8m");
    let run = restore(&site, id(&backup), &disk.0.join("data"));
    let left = fs::read_dir(&disk.0).unwrap().count();
    assert_eq!(run.code(), Some(1), "{}", run.stdout);
    assert!(run.stdout.contains("free"), "{}", run.stdout);
    assert_eq!(left, 0);
}

#[test]
fn a_disk_that_fills_in_the_middle_leaves_no_datadir_and_the_next_run_works() {
    let (site, bucket) = Site::in_bucket();
    let backup = site.backed_up(&[]);
    let expected = site.server.checksums();
    let disk = Disk::new(site.folder().join("disk"), "600m");
    let datadir = disk.0.join("data");
    let path = FaultyPath::to(LocalStack::shared().address());
    let slow = crate::support::Haulout::on(bucket.url("db1")).with(store::environment(&path.endpoint()));
    let arguments = ["--json", "restore", "--backup", id(&backup), "--datadir", datadir.to_str().unwrap()];

    // There was room when the restore began; then another program takes all of it.
    path.set(Fault::CutAnswerAfter(200_000));
    let mut running = slow.spawn(arguments);
    running.wait_for("files of the restore", |_| disk.0.join("data.haulout").exists());
    let filler = disk.0.join("filler");
    let full = io::copy(&mut io::repeat(1), &mut fs::File::create(&filler).unwrap()).unwrap_err();
    assert_eq!(full.kind(), io::ErrorKind::StorageFull);
    path.set(Fault::None);
    let run = running.wait();
    assert_says(&run, 1, "No space left", "free some space");
    assert!(!datadir.exists(), "something was restored");

    fs::remove_file(filler).unwrap();
    slow.run(arguments).ok();
    assert_eq!(checksums_of(&datadir), expected);
}

/// A small file system in memory, gone with its owner.
struct Disk(PathBuf);

impl Disk {
    fn new(path: PathBuf, size: &str) -> Disk {
        fs::create_dir(&path).unwrap();
        let size = format!("size={size}");
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&path).status().unwrap();
        assert!(mount.success(), "a file system can be mounted: these tests run as root");
        Disk(path)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn a_restore_from_a_bucket_that_was_killed_leaves_no_datadir_and_the_next_run_works() {
    let (site, bucket) = Site::in_bucket();
    let backup = site.backed_up(&[]);
    let expected = site.server.checksums();
    let path = FaultyPath::to(LocalStack::shared().address());
    let slow = crate::support::Haulout::on(bucket.url("db1")).with(store::environment(&path.endpoint()));
    let datadir = site.folder().join("from-bucket");
    let arguments = ["--json", "restore", "--backup", id(&backup), "--datadir", datadir.to_str().unwrap()];

    // Killed while the store holds its answers back: the datadir is as it was, absent.
    path.set(Fault::CutAnswerAfter(200_000));
    let mut running = slow.spawn(arguments);
    running.wait_for("files of the restore", |_| site.folder().join("from-bucket.haulout").exists());
    running.kill9();
    assert!(!datadir.exists());

    path.set(Fault::None);
    slow.run(arguments).ok();
    assert_eq!(checksums_of(&datadir), expected);
}

#[test]
fn an_interrupted_restore_exits_with_130_and_leaves_nothing() {
    let (site, bucket) = Site::in_bucket();
    let backup = site.backed_up(&[]);
    let path = FaultyPath::to(LocalStack::shared().address());
    let slow = crate::support::Haulout::on(bucket.url("db1")).with(store::environment(&path.endpoint()));
    let datadir = site.folder().join("stopped");
    path.set(Fault::CutAnswerAfter(200_000));
    let arguments = ["--json", "restore", "--backup", id(&backup), "--datadir", datadir.to_str().unwrap()];
    let mut running = slow.spawn(arguments);
    running.wait_for("files of the restore", |_| site.folder().join("stopped.haulout").exists());
    running.interrupt();
    running.wait().exits(130);
    assert!(!datadir.exists() && !site.folder().join("stopped.haulout").exists());
    // The next run works, on a line that is whole.
    path.set(Fault::None);
    slow.run(arguments).ok();
}

/// By name, as an operator gives it.
#[test]
fn restored_files_belong_to_the_owner_that_was_named() {
    let site = Site::new();
    let backup = site.backed_up(&[]);
    let datadir = site.folder().join("owned");
    let restore = |owner: &str| {
        let datadir = datadir.to_str().unwrap();
        site.haulout.run(["--json", "restore", "--backup", id(&backup), "--datadir", datadir, "--owner", owner])
    };
    let unknown = restore("nobody-of-that-name:nogroup").exits(2);
    assert_says(&unknown, 2, "nobody-of-that-name", "");
    assert!(!datadir.exists());
    restore("nobody:nogroup").ok();
    let of = |path: &Path| {
        let output = Command::new("stat").args(["--format", "%U:%G"]).arg(path).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    for path in [datadir.clone(), datadir.join("ibdata1"), datadir.join("shop"), datadir.join("shop/item.ibd")] {
        assert_eq!(of(&path), "nobody:nogroup", "{path:?}");
    }
}
