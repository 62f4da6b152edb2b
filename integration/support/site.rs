//! A server with its repository: what most tests of backups begin with.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;
use tempfile::TempDir;

use super::{Bucket, Haulout, LocalStack, MariaDb, ServerOptions, binary::Run, scratch};

/// A little shop in InnoDB and Aria. Its pages are on disk: of a table whose first page is not, the tool makes a `.new`.
pub const SHOP: &str = "CREATE DATABASE shop; USE shop;
    CREATE TABLE item (id INT PRIMARY KEY AUTO_INCREMENT, text VARCHAR(400)) ENGINE=InnoDB;
    INSERT INTO item (text) SELECT REPEAT(MD5(seq), 8) FROM seq_1_to_4000;
    CREATE TABLE note ENGINE=Aria AS SELECT * FROM item WHERE id < 50;
    FLUSH TABLES item FOR EXPORT; UNLOCK TABLES;";

/// A server with its repository.
#[derive(Debug)]
pub struct Site {
    pub server: MariaDb,
    pub haulout: Haulout,
    folder: TempDir,
}

/// A key file, and its path.
fn put_key(folder: &TempDir) -> String {
    let key = folder.path().join("key");
    fs::write(&key, "5a".repeat(32)).unwrap();
    key.to_str().unwrap().to_owned()
}

impl Site {
    /// A small shop and an empty repository on disk.
    pub fn new() -> Site {
        Site::with(ServerOptions::new())
    }

    /// As [`Site::new`], with a server of these options.
    pub fn with(options: ServerOptions) -> Site {
        let folder = scratch();
        let url = format!("file://{}", folder.path().join("repository").display());
        Site::at(MariaDb::with(options), Haulout::on(url), folder, &["init"])
    }

    /// A small shop and an empty repository on disk that is sealed with the key file [`Site::key_file`].
    pub fn sealed() -> Site {
        let folder = scratch();
        let key = put_key(&folder);
        let url = format!("file://{}", folder.path().join("repository").display());
        let haulout = Haulout::on(url).with([("HAULOUT_KEY_FILE", key)]);
        Site::at(MariaDb::start(), haulout, folder, &["init", "--encrypt"])
    }

    /// The key file of a sealed repository.
    pub fn key_file(&self) -> PathBuf {
        self.folder.path().join("key")
    }

    /// The program on the site's repository, with nothing in its environment but this: another operator.
    pub fn operator(&self, environment: &[(&str, &str)]) -> Haulout {
        Haulout::on(format!("file://{}", self.repository().display())).with(environment.iter().copied())
    }

    /// A small shop and an empty repository in a bucket.
    pub fn in_bucket() -> (Site, Bucket) {
        let bucket = LocalStack::shared().bucket();
        let haulout = Haulout::in_bucket(&bucket, "db1");
        (Site::at(MariaDb::start(), haulout, scratch(), &["init"]), bucket)
    }

    /// As [`Site::in_bucket`], with a server of these options.
    pub fn in_bucket_with(options: ServerOptions) -> (Site, Bucket) {
        let bucket = LocalStack::shared().bucket();
        let haulout = Haulout::in_bucket(&bucket, "db1");
        (Site::at(MariaDb::with(options), haulout, scratch(), &["init"]), bucket)
    }

    /// A small shop and an empty repository whose objects are locked, in a bucket with object lock.
    pub fn locked(lock: &[&str]) -> (Site, Bucket) {
        let bucket = LocalStack::shared().bucket_with_locks();
        let haulout = Haulout::in_bucket(&bucket, "db1");
        (Site::at(MariaDb::start(), haulout, scratch(), &[&["init"], lock].concat()), bucket)
    }

    /// A small shop and no repository yet, in a bucket with object lock.
    pub fn in_bucket_with_locks() -> (Site, Bucket) {
        let bucket = LocalStack::shared().bucket_with_locks();
        let haulout = Haulout::in_bucket(&bucket, "db1");
        (Site::at(MariaDb::start(), haulout, scratch(), &["--version"]), bucket)
    }

    /// As [`Site::locked`], and sealed with the key file [`Site::key_file`].
    pub fn sealed_and_locked(lock: &[&str]) -> (Site, Bucket) {
        let bucket = LocalStack::shared().bucket_with_locks();
        let folder = scratch();
        let key = put_key(&folder);
        let haulout = Haulout::in_bucket(&bucket, "db1").with([("HAULOUT_KEY_FILE", key)]);
        (Site::at(MariaDb::start(), haulout, folder, &[&["init", "--encrypt"], lock].concat()), bucket)
    }

    /// A small shop and an empty repository wherever `haulout` keeps it.
    pub fn on(haulout: Haulout) -> Site {
        Site::at(MariaDb::start(), haulout, scratch(), &["init"])
    }

    fn at(server: MariaDb, haulout: Haulout, folder: TempDir, init: &[&str]) -> Site {
        server.sql(SHOP);
        haulout.run(init).ok();
        Site { server, haulout, folder }
    }

    /// The repository's directory, when it is on disk.
    pub fn repository(&self) -> PathBuf {
        self.folder.path().join("repository")
    }

    /// A folder for whatever the test needs.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Runs `haulout --json backup`, with more arguments.
    pub fn backup(&self, more: &[&str]) -> Run {
        self.haulout.backup(&self.server, more)
    }

    /// Takes a backup and gives its summary.
    #[track_caller]
    pub fn backed_up(&self, more: &[&str]) -> Value {
        self.backup(more).ok().summary().clone()
    }

    /// Restores `backup` into a datadir of its own, and gives it.
    #[track_caller]
    pub fn restored(&self, backup: &Value) -> PathBuf {
        let id = backup["backup_id"].as_str().unwrap();
        let datadir = self.folder.path().join(format!("of-{id}"));
        self.haulout.run(["restore", "--backup", id, "--datadir", datadir.to_str().unwrap()]).ok();
        datadir
    }

    /// The backups, as `list` tells them.
    #[track_caller]
    pub fn listing(&self) -> Vec<Value> {
        listing(&self.haulout)
    }

    /// Changes a few rows.
    pub fn change(&self) {
        self.server.sql("UPDATE shop.item SET text = CONCAT('changed ', RAND()) WHERE id % 1000 = 0");
    }

    /// Panics unless `run` ends with `code`, its message and causes hold `says` and its hint holds `hint`, and unless
    /// nothing was committed, no lease stayed behind and nothing was left locked.
    #[track_caller]
    pub fn refuses(&self, code: i32, says: &str, hint: &str, run: impl FnOnce() -> Run) -> Run {
        let before = self.listing();
        let run = run().exits(code);
        assert_says(&run, code, says, hint);
        assert_eq!(self.listing(), before, "something was committed");
        assert_eq!(self.leases_held(), [""; 0]);
        run
    }

    /// As [`Site::refuses`], of a backup with more arguments.
    #[track_caller]
    pub fn refuses_backup(&self, code: i32, says: &str, hint: &str, more: &[&str]) -> Run {
        self.refuses(code, says, hint, || self.backup(more))
    }

    /// Panics unless the next backup must be a full one and gives `reason`, whatever is asked for, and unless an
    /// incremental is possible again after it.
    #[track_caller]
    pub fn needs_full(&self, reason: &str) -> Value {
        self.refuses_backup(21, reason, "haulout backup --full", &["--incremental"]);
        let full = self.backed_up(&[]);
        assert_eq!(full["kind"], "full", "{full}");
        assert!(full["reason"].as_str().unwrap().contains(reason), "{full}");
        self.change();
        let next = self.backed_up(&["--incremental"]);
        assert_eq!(next["parent"], full["backup_id"]);
        full
    }

    /// Leases that were taken and not given back, in a repository on disk.
    pub fn leases_held(&self) -> Vec<String> {
        let leases = fs::read_dir(self.repository().join("leases")).into_iter().flatten().flatten();
        let names = leases.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.filter(|name| name.ends_with("-live.json")).collect()
    }

    /// Objects of the repository on disk below `under`.
    pub fn objects(&self, under: &str) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut folders = vec![self.repository().join(under)];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                if entry.path().is_dir() { folders.push(entry.path()) } else { found.push(entry.path()) }
            }
        }
        found.sort();
        found
    }

    /// Where the manifest of `backup` lies.
    pub fn manifest(&self, backup: &Value) -> PathBuf {
        self.repository().join(format!("backups/{}.json", backup["backup_id"].as_str().unwrap()))
    }
}

/// The backups of a repository, as `list` tells them.
#[track_caller]
pub fn listing(haulout: &Haulout) -> Vec<Value> {
    let run = haulout.run(["--json", "list"]);
    assert!(matches!(run.code(), Some(0 | 3)), "{}\n{}", run.stdout, run.stderr);
    run.messages.into_iter().filter(|message| message["message_type"] == "backup").collect()
}

/// Panics unless the error of `run` has this code, and these texts in its message or causes and in its hint.
#[track_caller]
pub fn assert_says(run: &Run, code: i32, says: &str, hint: &str) {
    let error = run.message("error");
    assert_eq!(error["code"], code, "{error}");
    let mut said = vec![error["message"].as_str().unwrap().to_owned()];
    said.extend(error["causes"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned));
    let told = said.join(": ");
    assert!(told.contains(says), "{says:?} is not in {told:?}");
    assert!(error["hint"].as_str().unwrap_or_default().contains(hint), "{hint:?} is not the hint: {error}");
}

/// Panics unless nobody holds a lock that a backup takes.
#[track_caller]
pub fn assert_unlocked(server: &MariaDb) {
    server.sql(
        "SET lock_wait_timeout = 20; BACKUP STAGE START; BACKUP STAGE BLOCK_COMMIT; BACKUP STAGE END;
         CREATE OR REPLACE TABLE shop.free (id INT) ENGINE=InnoDB; INSERT INTO shop.free VALUES (1)",
    );
}
