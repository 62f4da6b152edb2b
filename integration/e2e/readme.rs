//! The tour of the README works as it stands there.

use std::{fs, os::unix::fs::PermissionsExt, process::Command};

use crate::support::{MariaDb, scratch};

const README: &str = include_str!("../../README.md");

/// Shell blocks that are marked as part of the tour, in order.
fn tour() -> Vec<String> {
    let blocks = README.split("<!-- tour -->\n```sh\n").skip(1);
    blocks.map(|block| block.split("\n```").next().unwrap().to_owned()).collect()
}

/// What stands for `systemctl`: a server of the test's own on the datadir.
const SYSTEMCTL: &str = r#"#!/bin/bash
set -eu
case $1 in
  stop)
    pid=$(cat PLACE/pid)
    kill "$pid"
    while kill -0 "$pid" 2>/dev/null && ! grep -q '^State:.Z' "/proc/$pid/status" 2>/dev/null; do read -r -t 0.05 <> <(:) || true; done ;;
  start)
    mariadbd --no-defaults --log-bin=binlog --server-id=1 --user=root --datadir=PLACE/mysql --socket=PLACE/socket --pid-file=PLACE/pid --skip-networking \
      --tmpdir=PLACE/tmp --innodb-buffer-pool-size=32M >PLACE/log 2>&1 &
    for _ in $(seq 600); do
      mariadb --no-defaults --socket=PLACE/socket --user=root -e 'SELECT 1' >/dev/null 2>&1 && exit
      read -r -t 0.1 <> <(:) || true
    done
    cat PLACE/log; exit 1 ;;
esac
"#;

#[test]
fn the_tour_runs_as_it_stands_in_the_readme() {
    let folder = scratch();
    let place = folder.path();
    let mut server = MariaDb::start();
    server.sql("CREATE DATABASE shop; USE shop; CREATE TABLE t AS SELECT seq FROM seq_1_to_1000");
    server.stop();
    fs::create_dir_all(place.join("bin")).unwrap();
    fs::create_dir_all(place.join("tmp")).unwrap();
    fs::create_dir_all(place.join("srv")).unwrap();
    assert!(Command::new("cp").arg("-a").arg(server.datadir()).arg(place.join("mysql")).status().unwrap().success());
    let systemctl = place.join("bin/systemctl");
    fs::write(&systemctl, SYSTEMCTL.replace("PLACE", place.to_str().unwrap())).unwrap();
    fs::set_permissions(&systemctl, fs::Permissions::from_mode(0o755)).unwrap();
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_haulout"), place.join("bin/haulout")).unwrap();

    let option_file = format!("[client]\nsocket={}\nuser=root\n", place.join("socket").display());
    fs::write(place.join(".my.cnf"), option_file).unwrap();

    let blocks = tour();
    assert!(blocks.len() >= 7, "the README has lost its tour");
    let script = blocks
        .join("\n")
        .replace("/srv", place.join("srv").to_str().unwrap())
        .replace("/var/lib/mysql", place.join("mysql").to_str().unwrap())
        .replace("/run/mysqld/mysqld.sock", place.join("socket").to_str().unwrap())
        .replace("mysql:mysql", "root:root");
    let question = format!(
        "mariadb --no-defaults --socket={0}/socket --user=root -NBe 'SELECT COUNT(*) FROM shop.t'",
        place.display()
    );
    let all = format!("trap 'systemctl stop mariadb' EXIT\nsystemctl start mariadb\n{script}\n{question}\n");
    let path = format!("{}:{}", place.join("bin").display(), std::env::var("PATH").unwrap());
    let output = Command::new("bash")
        .args(["-euxo", "pipefail", "-c", &all])
        .env("PATH", path)
        .env("HOME", place)
        .env("TMPDIR", place.join("tmp"))
        .output()
        .unwrap();
    let said = format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");
    assert!(output.stdout.ends_with(b"\n1000\n"), "{said}");
    // The table that was dropped, with the row that no backup has.
    assert!(said.contains("\n1001\n"), "{said}");
}
