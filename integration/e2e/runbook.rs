//! The pages of `infra/RUNBOOK.md` work as they stand there, on a server and a bucket to which it has happened.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use haulout::format::{Manifest, decode_document, encode_document};
use serde_json::Value;

use crate::support::{Bucket, Haulout, LocalStack, MariaDb, ServerOptions, scratch, server::copy, site::listing};

const RUNBOOK: &str = include_str!("../../infra/RUNBOOK.md");

/// What stands for `systemctl`: a server of the test's own, and timers whose state is a file.
const SYSTEMCTL: &str = r#"#!/bin/bash
set -eu
act=$1
shift
for unit; do
  case $act.$unit in
    stop.mariadb)
      pid=$(cat PLACE/pid)
      kill "$pid"
      while kill -0 "$pid" 2>/dev/null && ! grep -q '^State:.Z' "/proc/$pid/status" 2>/dev/null; do read -r -t 0.05 <> <(:) || true; done ;;
    start.mariadb)
      # The options of a node, for a datadir that is one's.
      node=()
      ! test -e PLACE/mysql/grastate.dat -o -e PLACE/new-cluster || mapfile -t node <PLACE/node
      ! test -e PLACE/new-cluster || node+=(--wsrep-new-cluster)
      mariadbd --no-defaults --user=root --datadir=PLACE/mysql --socket=PLACE/socket --pid-file=PLACE/pid --skip-networking \
        --tmpdir=PLACE/tmp --innodb-buffer-pool-size=32M "${node[@]}" >PLACE/log 2>&1 &
      for _ in $(seq 600); do
        mariadb --no-defaults --socket=PLACE/socket --user=root -e 'SELECT 1' >/dev/null 2>&1 && continue 2
        read -r -t 0.1 <> <(:) || true
      done
      cat PLACE/log; exit 1 ;;
    stop.haulout-*.timer) test -e UNITS/$unit; rm -f PLACE/timers/$unit ;;
    start.haulout-*.timer) test -e UNITS/$unit; touch PLACE/timers/$unit ;;
    *) echo "systemctl $act $unit: unknown" >&2; exit 1 ;;
  esac
done
"#;

const REPLICA: &str = "replica to be seeded";
pub const NODE: &str = "galera node to be seeded";
/// Pages that are not for a bad day of the server that is backed up.
const APART: [&str; 4] = [REPLICA, NODE, "region lost, before that day", "region lost"];

/// The shell blocks of a page, in order, after those of all pages.
fn page(name: &str) -> String {
    let mut blocks = Vec::new();
    let mut own = 0;
    for block in RUNBOOK.split("<!-- page: ").skip(1) {
        let (of, rest) = block.split_once(" -->\n```sh\n").expect("a block of shell");
        own += usize::from(of == name);
        if of == "all" || of == name || (of == "all of the server that is backed up" && !APART.contains(&name)) {
            blocks.push(rest.split("\n```").next().unwrap());
        }
    }
    assert!(own > 0, "the runbook has no page {name:?}");
    blocks.join("\n")
}

/// A machine with a server and a repository in a bucket.
pub struct Machine {
    pub bucket: Bucket,
    place: tempfile::TempDir,
    pub key: Option<String>,
    pub checksums: Vec<String>,
    /// What its environment has besides.
    pub environment: Vec<(&'static str, String)>,
}

impl Machine {
    /// With `init` as given, which may seal and lock, and a backup. The server is stopped.
    pub fn new(bucket: Bucket, init: &[&str]) -> Machine {
        let mut machine = Machine::without_repository(bucket);
        if init.contains(&"--encrypt") {
            let key = machine.path("etc/haulout.key");
            fs::write(&key, "5a".repeat(32)).unwrap();
            fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
            machine.key = Some(key.to_str().unwrap().to_owned());
        }
        machine.haulout().run([&["init"], init].concat()).ok();
        machine.backed_up(&[]);
        machine
    }

    /// With a server that nobody has backed up.
    pub fn without_repository(bucket: Bucket) -> Machine {
        let machine = Machine::without_server(bucket);
        let mut server = MariaDb::start();
        server.sql("CREATE DATABASE shop; USE shop; CREATE TABLE item (id INT PRIMARY KEY) AS SELECT seq AS id FROM seq_1_to_1000");
        server.stop();
        copy(server.datadir(), &machine.path("mysql"));
        machine
    }

    /// With nothing but the program and an account for the bucket.
    pub fn without_server(bucket: Bucket) -> Machine {
        let folder = scratch();
        let place = folder.path();
        for name in ["bin", "tmp", "etc", "safe", "timers", "srv"] {
            fs::create_dir(place.join(name)).unwrap();
        }
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_haulout"), place.join("bin/haulout")).unwrap();
        let machine = Machine { bucket, place: folder, key: None, checksums: Vec::new(), environment: Vec::new() };
        let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("infra/systemd");
        machine.command("systemctl", &SYSTEMCTL.replace("UNITS", units.to_str().unwrap()));
        machine
    }

    /// Puts a script on its PATH, in which `PLACE` is where everything of it is.
    pub fn command(&self, name: &str, script: &str) {
        let path = self.path("bin").join(name);
        fs::write(&path, script.replace("PLACE", self.place.path().to_str().unwrap())).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    /// The program with the key that it has from the beginning.
    pub fn haulout(&self) -> Haulout {
        let key = self.key.iter().map(|key| ("HAULOUT_KEY_FILE", key.clone()));
        Haulout::in_bucket(&self.bucket, "db1").with(key)
    }

    /// Runs `act` on the running server, which is stopped again.
    pub fn served<T>(&self, act: impl FnOnce(&MariaDb) -> T) -> T {
        let mut server = MariaDb::on(&self.path("mysql"), ServerOptions::new());
        let result = act(&server);
        server.stop();
        result
    }

    /// Changes the server by `sql` statements and takes a backup.
    pub fn backed_up(&mut self, sql: &[&str]) -> Value {
        let (backup, checksums) = self.served(|server| {
            sql.iter().for_each(|sql| drop(server.sql(sql)));
            (self.haulout().backup(server, &[]).ok().summary().clone(), format!("{:?}", server.checksums()))
        });
        self.checksums.push(checksums);
        backup
    }

    /// Runs a page with these words in the place of its own, then `after`; all that was said.
    #[track_caller]
    pub fn follows(&self, name: &str, words: &[(&str, &str)], after: &str) -> String {
        let place = self.place.path().to_str().unwrap();
        let mut script = page(name);
        for (word, instead) in words {
            assert!(script.contains(word), "the page {name:?} has no {word}");
            script = script.replace(word, instead);
        }
        let script = script
            .replace("s3://example-backups/", &self.bucket.url(""))
            .replace("/srv", &format!("{place}/srv"))
            .replace("/etc/haulout", &format!("{place}/etc/haulout"))
            .replace("/mnt/safe", &format!("{place}/safe"))
            .replace("/var/lib/mysql", &format!("{place}/mysql"))
            .replace("/run/mysqld/mysqld.sock", &format!("{place}/socket"))
            .replace("mysql:mysql", "root:root")
            .replace("--user=mysql", "--user=root");
        let start = if self.path("mysql").exists() { "systemctl start mariadb" } else { "" };
        let all = format!("trap 'systemctl stop mariadb; kill $(jobs -p) || true' EXIT\n{start}\n{script}\n{after}\n");
        for timer in ["haulout-backup.timer", "haulout-prune.timer"] {
            fs::write(self.path("timers").join(timer), "").unwrap();
        }
        let path = format!("{place}/bin:{}", std::env::var("PATH").unwrap());
        let mut command = Command::new("bash");
        command.args(["-euxo", "pipefail", "-c", &all]).env_clear().envs(self.bucket.environment());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        let output =
            command.env("PATH", path).env("HOME", place).env("TMPDIR", format!("{place}/tmp")).output().unwrap();
        let said = format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{said}");
        // What was stopped at the beginning runs again at the end.
        for timer in ["haulout-backup.timer", "haulout-prune.timer"] {
            let stopped = script.contains("systemctl stop haulout-backup.timer haulout-prune.timer");
            assert!(stopped || APART.contains(&name), "{name}");
            assert!(self.path("timers").join(timer).exists(), "{timer} was not started again");
        }
        said
    }

    /// Panics unless `backup` restores to what the server held when it was the `number`th.
    #[track_caller]
    pub fn restores(&self, backup: &Value, number: usize) {
        let id = backup["backup_id"].as_str().unwrap();
        let datadir = self.path(&format!("of-{id}"));
        self.haulout().run(["restore", "--backup", id, "--datadir", datadir.to_str().unwrap()]).ok();
        let mut server = MariaDb::on(&datadir, ServerOptions::new());
        assert_eq!(format!("{:?}", server.checksums()), self.checksums[number], "{id}");
        server.stop();
    }
}

fn locked() -> Bucket {
    LocalStack::shared().bucket_with_locks()
}

pub const COUNT: &str =
    r#"mariadb --socket="$HAULOUT_SOCKET" --user=root -NBe 'SELECT CONCAT("rows ", COUNT(*)) FROM shop.item'"#;
pub const MORE: &str = "USE shop; INSERT INTO shop.item SELECT seq FROM seq_1001_to_2000";

#[test]
fn the_page_for_an_emptied_bucket_brings_everything_back() {
    let mut machine = Machine::new(locked(), &["--lock", "3d", "--lock-mode", "governance"]);
    let second = machine.backed_up(&[MORE]);
    let first = listing(&machine.haulout())[0].clone();
    for (number, key) in machine.bucket.keys("db1/").into_iter().enumerate() {
        if number % 3 == 0 {
            machine.bucket.put(&key, b"garbage".to_vec());
        }
        machine.bucket.delete(&key);
    }
    machine.haulout().run(["list"]).exits(10);
    machine.follows("bucket emptied", &[], COUNT);
    machine.restores(&first, 0);
    machine.restores(&second, 1);
    assert_eq!(listing(&machine.haulout()).len(), 3);
}

#[test]
fn the_page_for_an_emptied_bucket_without_locks_brings_everything_back() {
    let machine = Machine::new(locked(), &[]);
    let first = listing(&machine.haulout())[0].clone();
    machine.bucket.keys("db1/").iter().for_each(|key| machine.bucket.delete(key));
    machine.haulout().run(["list"]).exits(10);
    machine.follows("bucket emptied, nothing locked", &[], COUNT);
    machine.restores(&first, 0);
    assert_eq!(listing(&machine.haulout()).len(), 2);
}

#[test]
fn the_page_for_a_corrupted_server_brings_it_back() {
    let mut machine = Machine::new(LocalStack::shared().bucket(), &[]);
    machine.backed_up(&[MORE]);
    let table = machine.path("mysql/shop/item.ibd");
    let bytes = fs::read(&table).unwrap();
    fs::write(&table, bytes.iter().map(|byte| byte ^ 0xff).collect::<Vec<_>>()).unwrap();
    let said = machine.follows("server corrupted", &[], COUNT);
    assert!(said.contains("\nrows 2000\n"), "{said}");
    assert!(!machine.path("mysql.corrupt").exists());
    let backups = listing(&machine.haulout());
    assert_eq!((backups.len(), &backups[2]["kind"]), (3, &Value::from("full")), "{backups:?}");
}

/// A backup that was taken after the DROP has not got the table.
#[test]
fn the_pages_for_a_dropped_table_bring_it_back() {
    for (name, sql) in [
        ("one table dropped", ""),
        (
            "one table dropped, the long way",
            "ALTER TABLE shop.item ADD COLUMN other INT, ADD FOREIGN KEY (other) REFERENCES shop.item (id)",
        ),
    ] {
        let mut machine = Machine::new(LocalStack::shared().bucket(), &[]);
        let before = machine.backed_up(&[sql, "USE shop; INSERT INTO item (id) SELECT seq FROM seq_1001_to_2000"]);
        machine.backed_up(&["DROP TABLE shop.item"]);
        let words = [("20261122T170445Z-3f9a1c", before["backup_id"].as_str().unwrap())];
        let said = machine.follows(name, &words, COUNT);
        assert!(said.contains("\nrows 2000\n"), "{name}: {said}");
    }
}

#[test]
fn the_page_for_a_lost_key_has_another_one_take_its_place() {
    let mut machine = Machine::new(LocalStack::shared().bucket(), &["--encrypt", "--label", "of the server"]);
    let first = listing(&machine.haulout())[0].clone();
    let slots = |machine: &Machine| -> Vec<String> {
        let keys = machine.bucket.keys("db1/keys/");
        keys.iter().map(|key| key.trim_start_matches("db1/keys/").trim_end_matches(".json").to_owned()).collect()
    };
    let lost = slots(&machine).remove(0);
    fs::write(machine.path("safe/haulout.key"), "5b".repeat(32)).unwrap();
    let safe = machine.path("safe/haulout.key");
    machine.haulout().run(["key", "add", "--new-key-file", safe.to_str().unwrap(), "--label", "in the safe"]).ok();
    fs::remove_file(machine.path("etc/haulout.key")).unwrap();
    machine.follows("key lost", &[("0f1e2d3c4b5a6978", &lost)], COUNT);
    // The key at the old place is a new one; the lost one's slot is gone, and both that are left open everything.
    assert_ne!(fs::read_to_string(machine.path("etc/haulout.key")).unwrap().trim(), "5a".repeat(32));
    assert!(slots(&machine).len() == 2 && !slots(&machine).contains(&lost));
    machine.restores(&first, 0);
    machine.key = Some(safe.to_str().unwrap().to_owned());
    machine.haulout().run(["check", "--read-data"]).ok();
    assert_eq!(listing(&machine.haulout()).len(), 2);
}

#[test]
fn the_page_for_a_lost_key_without_another_begins_anew_with_two_keys() {
    let machine = Machine::new(LocalStack::shared().bucket(), &["--encrypt"]);
    fs::remove_file(machine.path("etc/haulout.key")).unwrap();
    machine.haulout().run(["list"]).exits(2);
    machine.follows("key lost, and no other", &[], COUNT);
    for name in ["etc/haulout.key", "safe/haulout.key"] {
        let key = machine.path(name);
        let anew = Haulout::in_bucket(&machine.bucket, "db1-anew").with([("HAULOUT_KEY_FILE", key.to_str().unwrap())]);
        let backups = listing(&anew);
        assert_eq!((backups.len(), &backups[0]["kind"]), (1, &Value::from("full")));
        anew.run(["check", "--read-data"]).ok();
        let permissions = fs::metadata(&key).unwrap().permissions().mode();
        assert_eq!(permissions & 0o077, 0, "others may read {name}");
    }
}

/// Names of pages stand in the tests that follow them.
#[test]
fn every_page_of_the_runbook_is_run_by_a_test() {
    let tests = [include_str!("runbook.rs"), include_str!("runbook_galera.rs"), include_str!("runbook_region.rs")];
    let blocks = RUNBOOK.matches("\n```sh\n").count();
    let marked: Vec<&str> =
        RUNBOOK.split("<!-- page: ").skip(1).map(|rest| rest.split(" -->\n```sh\n").next().unwrap()).collect();
    assert_eq!(marked.len(), blocks, "a block of shell is no page's");
    for name in &marked {
        let named = tests.iter().any(|test| test.contains(&format!("\"{name}\"")));
        assert!(named, "no test runs the page {name:?}");
    }
    for day in ["region", "bucket", "server", "table", "key", "credentials", "replica", "Galera node"] {
        let heading = RUNBOOK.lines().filter(|line| line.starts_with("## ")).any(|line| line.contains(day));
        assert!(heading, "the runbook has no page for a {day}");
    }
}

/// The thief may put and not delete, as `infra/iam/agent.json` has it.
#[test]
fn the_page_for_stolen_credentials_undoes_what_can_be_done_with_them() {
    let mut machine = Machine::new(locked(), &["--lock", "3d", "--lock-mode", "governance"]);
    let second = machine.backed_up(&[MORE]);
    let first = listing(&machine.haulout())[0].clone();
    let manifest = format!("db1/backups/{}.json", first["backup_id"].as_str().unwrap());
    let mut forged: Manifest = decode_document(&manifest, &machine.bucket.get(&manifest)).unwrap();
    forged.reason = "forged".to_owned();
    for (number, key) in machine.bucket.keys("db1/").into_iter().enumerate() {
        match number % 2 {
            0 => machine.bucket.put(&key, Vec::new()),
            _ => machine.bucket.put(&key, b"garbage".to_vec()),
        }
    }
    machine.bucket.put(&manifest, encode_document(&forged).unwrap());
    machine.bucket.put("db1/backups/20990101T000000Z-abcdef.json", b"a bogus backup".to_vec());
    let said = machine.follows("credentials stolen", &[], COUNT);
    assert!(said.contains("20990101T000000Z-abcdef"), "{said}");
    machine.restores(&first, 0);
    machine.restores(&second, 1);
    let backups = listing(&machine.haulout());
    let newest = backups.iter().filter(|backup| backup["kind"] == "full").count();
    assert_eq!(newest, 2, "{backups:?}");
}

#[test]
fn the_page_for_a_replica_has_one_follow_its_source() {
    let bucket = LocalStack::shared().bucket();
    let source = MariaDb::with(ServerOptions::new().tcp().argument("--log-bin=binlog").argument("--server-id=7"));
    source.sql("CREATE USER repl@127.0.0.1 IDENTIFIED BY 'a secret'; GRANT REPLICATION SLAVE ON *.* TO repl@127.0.0.1");
    source.sql(
        "CREATE DATABASE shop; USE shop; CREATE TABLE item (id INT PRIMARY KEY) AS SELECT seq AS id FROM seq_1_to_1000",
    );
    let haulout = Haulout::in_bucket(&bucket, "db1");
    haulout.run(["init"]).ok();
    haulout.backup(&source, &[]).ok();
    source.sql(MORE);
    let machine = Machine::without_repository(bucket);
    fs::write(machine.path("etc/haulout.repl"), "a secret\n").unwrap();
    let there = format!("--source-host 127.0.0.1 --source-port {}", source.port());
    let follows =
        format!("for _ in $(seq 600); do {COUNT} | grep 'rows 2000' && break; read -r -t 0.1 <> <(:) || true; done");
    let said = machine.follows(REPLICA, &[("--source-host db1", &there)], &follows);
    assert!(said.contains("\nrows 2000\n"), "{said}");
    assert!(!machine.path("mysql.old").exists() && !machine.path("mysql/haulout-replica.sql").exists());
}
