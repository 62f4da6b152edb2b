//! The page of `infra/RUNBOOK.md` for a lost region works as it stands there, when the first bucket and the server are gone.

use std::fs;

use serde_json::Value;

use crate::{
    runbook::{COUNT, MORE, Machine},
    support::{Haulout, LocalStack, MariaDb, ServerOptions, server::copy, site::listing, tool},
};

/// What stands for `apt-get` on a machine without MariaDB: its packages bring the programs, and start a server that is empty.
const APT_GET: &str = r#"#!/bin/bash
set -eu
case "$*" in
  update) ;;
  "install --yes mariadb-backup=1:SERIES.* mariadb-server=1:SERIES.*")
    ln -s BACKUP PLACE/tools/mariadb-backup
    ln -s SERVER PLACE/tools/mariadbd
    ln -s CLIENT PLACE/tools/mariadb
    cp -a PLACE/packaged PLACE/mysql
    systemctl start mariadb ;;
  *) echo "apt-get $*: no such packages" >&2; exit 100 ;;
esac
"#;

/// A machine on which haulout finds no program of MariaDB's before `apt-get` has brought it.
fn bare(bucket: crate::support::Bucket, series: &str) -> Machine {
    let mut machine = Machine::without_server(bucket);
    let tools = machine.path("tools");
    fs::create_dir(&tools).unwrap();
    machine.environment.push(("HAULOUT_TOOL_DIR", tools.display().to_string()));
    let program = |name: &str| tool::real(name).display().to_string();
    let script = APT_GET.replace("SERIES", series).replace("BACKUP", &program("mariadb-backup"));
    machine.command("apt-get", &script.replace("SERVER", &program("mariadbd")).replace("CLIENT", &program("mariadb")));
    let mut empty = MariaDb::start();
    empty.stop();
    copy(empty.datadir(), &machine.path("packaged"));
    machine
}

#[test]
fn the_page_for_a_lost_region_brings_the_server_back_from_the_second_bucket() {
    let [first, second, third] = [(); 3].map(|()| LocalStack::shared().bucket());
    let base = |bucket: &crate::support::Bucket| bucket.url("").trim_end_matches('/').to_owned();
    let (west, new) = (base(&second), base(&third));
    let mut machine = Machine::new(first, &["--encrypt"]);
    machine.backed_up(&[MORE]);
    let series = machine.served(MariaDb::series);
    let before = machine.follows("region lost, before that day", &[("s3://example-backups-west", &west)], COUNT);
    assert!(before.contains("copied 2 backups") && before.contains("and is not behind"), "{before}");
    let ids = |haulout: &Haulout| -> Vec<Value> {
        listing(haulout).iter().map(|backup| backup["backup_id"].clone()).collect()
    };
    let lost = ids(&machine.haulout());
    let (key, checksums) = (fs::read(machine.path("etc/haulout.key")).unwrap(), machine.checksums.clone());
    let gone = machine.haulout();

    // The region with all that is in it.
    let Machine { bucket, .. } = machine;
    bucket.destroy();
    gone.run(["list"]).exits(10);

    let mut machine = bare(second, &series);
    fs::write(machine.path("safe/haulout.key"), key).unwrap();
    machine.key = Some(machine.path("safe/haulout.key").display().to_string());
    machine.checksums = checksums;
    assert_eq!(ids(&machine.haulout()), lost);
    let words = [("s3://example-backups-west", west.as_str()), ("s3://example-backups-new", &new), ("10.11", &series)];
    let said = machine.follows("region lost", &words, COUNT);
    assert!(said.contains("\nrows 2000\n"), "{said}");
    // What the page says is there to be seen: the server, what to install, and how long it takes, by the drill of the copy.
    for words in ["1 repository under", "to install", &format!("'mariadb-server=1:{series}.*'"), "about ", "drill 2"] {
        assert!(said.contains(words), "{words:?}: {said}");
    }
    assert!(!machine.path("mysql.empty").exists());
    let held = machine.served(|server| format!("{:?}", server.checksums()));
    assert_eq!(held, machine.checksums[1], "the restored server");
    let backups = listing(&machine.haulout());
    assert_eq!((backups.len(), &backups[2]["kind"]), (3, &Value::from("full")), "{backups:?}");
    for (number, backup) in backups[..2].iter().enumerate() {
        machine.restores(backup, number);
    }

    // And from there it goes on, in a third place, too.
    let new = Haulout::in_bucket(&third, "db1").with([("HAULOUT_KEY_FILE", machine.key.clone().unwrap())]);
    assert_eq!(ids(&new), ids(&machine.haulout()));
    new.run(["check", "--read-data"]).ok();
}

/// Nothing of the machine that is lost is needed but the bucket and the key; without the latter it is told that it is wanted.
#[test]
fn a_new_machine_without_the_key_is_told_that_it_wants_one() {
    let machine = Machine::new(LocalStack::shared().bucket(), &["--encrypt"]);
    let stranger = Haulout::in_bucket(&machine.bucket, "db1");
    let datadir = machine.path("restored").display().to_string();
    for command in [&["list"][..], &["restore", "--dry-run", "--datadir", &datadir]] {
        let run = stranger.run(command).exits(12);
        assert!(run.stderr.contains("key"), "{}", run.stderr);
    }
    let restored = machine.haulout().run(["restore", "--datadir", &datadir]).ok();
    assert!(restored.stdout.contains("restored backup"));
    let mut server = MariaDb::on(&machine.path("restored"), ServerOptions::new());
    assert_eq!(format!("{:?}", server.checksums()), machine.checksums[0]);
    server.stop();
}
