//! What becomes of archived binary log: copied, pruned, and restored from; and what archiving needs of the machine.

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use super::archive::{assert_all, at, once, shop, write};
use crate::support::{Haulout, MariaDb, ServerOptions, Site, not_shown, site::assert_says};

/// Where the server's log stands, and what the server holds.
fn state(server: &MariaDb) -> (String, BTreeMap<String, String>) {
    (server.sql("SELECT @@gtid_binlog_pos").trim().to_owned(), server.checksums())
}

/// Archives what the server has written, and gives its last transaction and what it holds.
fn moment(site: &Site) -> (String, BTreeMap<String, String>) {
    write(&site.server, 9);
    once(site, &[]).ok();
    let (position, checksums) = state(&site.server);
    (position.split(',').find(|gtid| gtid.starts_with("0-")).unwrap().to_owned(), checksums)
}

#[track_caller]
fn restores(haulout: &Haulout, datadir: &Path, (gtid, checksums): &(String, BTreeMap<String, String>)) {
    haulout.run(["--json", "restore", "--datadir", datadir.to_str().unwrap(), "--to-gtid", gtid]).ok();
    assert_eq!(MariaDb::on(datadir, ServerOptions::new()).checksums(), *checksums);
    fs::remove_dir_all(datadir).unwrap();
}

#[test]
fn a_copy_has_every_second_too_and_a_prune_keeps_those_that_are_asked_for() {
    let site = shop(ServerOptions::new());
    site.backed_up(&[]);
    let early = moment(&site);
    moment(&site);
    site.backed_up(&[]);
    let late = moment(&site);
    let folder = site.folder().join("copy");
    fs::create_dir(&folder).unwrap();
    let to = format!("file://{}", folder.display());
    let summary = site.haulout.run(["--json", "copy", "--to", &to]).ok().summary().clone();
    assert_eq!((&summary["copied_backups"], summary["copied_segments"].as_u64().unwrap()), (&2.into(), 3), "{summary}");
    let (copy, datadir) = (Haulout::on(&to), site.folder().join("restored"));
    let prune =
        |haulout: &Haulout, rules: &[&str]| haulout.run([&["--json", "prune", "--grace", "0s"], rules].concat()).ok();
    // All of it is younger than two weeks.
    let kept = prune(&copy, &["--keep-last", "1", "--keep-pitr", "14d"]);
    assert_eq!(kept.summary()["deleted_backups"], 0, "{}", kept.stdout);
    let pruned = prune(&site.haulout, &["--keep-last", "1"]);
    assert_eq!(pruned.summary()["deleted_backups"], 1, "{}", pruned.stdout);
    let gone = site.haulout.run(["--json", "restore", "--datadir", datadir.to_str().unwrap(), "--to-gtid", &early.0]);
    assert_says(&gone, 2, &format!("transaction {} cannot be restored", early.0), "");
    for haulout in [&site.haulout, &copy] {
        haulout.run(["check", "--read-data"]).ok();
        restores(haulout, &datadir, &late);
    }
    restores(&copy, &datadir, &early);
    // The next copy brings what is new, and nothing back.
    let later = moment(&site);
    site.haulout.run(["copy", "--to", &to]).ok();
    restores(&copy, &datadir, &later);
}

/// Hides the tool wherever it is, and runs the rest of its arguments.
const WITHOUT: &str = r#"
for program in $(which -a mariadb-backup mariabackup); do
  place=$(readlink -f "$program")
  [ "$place" = /dev/null ] || mountpoint -q "$place" || mount --bind /dev/null "$place"
done
exec "$@"
"#;

#[test]
fn a_machine_without_mariadb_backup_archives() {
    let without = ["--mount", "--propagation", "private", "bash", "-euc", WITHOUT, "without"];
    if !Command::new("unshare").args(without).arg("true").status().unwrap().success() {
        not_shown("that a machine without mariadb-backup archives: this account may not mount anything");
        return;
    }
    let site = shop(ServerOptions::new());
    write(&site.server, 9);
    let url = format!("file://{}", site.repository().display());
    let run = |command: &str, more: &[&str]| {
        let mut all = Command::new("unshare");
        all.args(without).args([env!("CARGO_BIN_EXE_haulout"), "--repo", &url, command]).args(site.server.flags());
        let output = all.args(more).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, said) = run("backup", &[]);
    assert!(code == Some(23) && said.contains("mariadb-backup"), "{code:?}: {said}");
    let spool = site.folder().join("spool");
    let (code, said) = run("archive", &["--once", "--spool-dir", spool.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{said}");
    assert_all(&at(&site), &site.server);
}
