//! Servers that left the timeline of their parent backup.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use crate::{
    holes::restores_to,
    support::{MariaDb, ServerOptions, Site, server, tablespace::on_disk},
};

/// Writes each file of `from` over the one of its name in `to`, as `rsync --inplace --delete` and a storage snapshot that is
/// rolled back do: inodes and times of birth stay.
fn roll_back(to: &Path, from: &Path) {
    let script = "cd \"$1\" && find . -type f | while read -r file; do
            if [ -e \"$2/$file\" ]; then cat \"$2/$file\" > \"$file\"; else rm \"$file\"; fi; done
        cp -an \"$2/.\" .";
    let status = Command::new("/bin/sh").args(["-c", script, "sh"]).arg(to).arg(from).status().unwrap();
    assert!(status.success());
}

/// Lets the server write until its LSN has passed `lsn`, without a change to what was there.
fn pass(server: &MariaDb, lsn: u64) {
    let current = || -> u64 {
        let sql =
            "SELECT variable_value FROM information_schema.global_status WHERE variable_name = 'INNODB_LSN_CURRENT'";
        server.sql(sql).trim().parse().unwrap()
    };
    for _ in 0..100 {
        if current() > lsn {
            return;
        }
        server.sql("USE shop; INSERT INTO shop.filler (text) SELECT REPEAT(MD5(RAND()), 20) FROM seq_1_to_1000");
    }
    panic!("LSN {lsn} was not passed");
}

fn last_lsn(backup: &Value) -> u64 {
    backup["lsn"]["last"].as_u64().unwrap()
}

/// A site whose server was taken back to a state from before its last backup, and has passed that backup's LSN.
fn forked(mut site: Site) -> Site {
    site.server.sql("CREATE TABLE shop.filler (id INT PRIMARY KEY AUTO_INCREMENT, text TEXT) ENGINE=InnoDB");
    on_disk(&site.server);
    site.backed_up(&[]);
    on_disk(&site.server);
    site.server.stop();
    let kept: PathBuf = site.folder().join("kept");
    server::copy(site.server.datadir(), &kept);
    site.server.restart();
    // What the other timeline never sees, on disk and below the checkpoint at which the parent starts.
    site.server.sql("UPDATE shop.item SET text = CONCAT('lost ', id) WHERE id < 3000");
    on_disk(&site.server);
    site.server.sql("SET GLOBAL innodb_log_checkpoint_now = ON");
    let parent = site.backed_up(&["--incremental"]);
    site.server.stop();
    let inode = |site: &Site| {
        std::os::unix::fs::MetadataExt::ino(&fs::metadata(site.server.datadir().join("ibdata1")).unwrap())
    };
    let before = inode(&site);
    roll_back(site.server.datadir(), &kept);
    assert_eq!(inode(&site), before);
    site.server.restart();
    pass(&site.server, last_lsn(&parent));
    on_disk(&site.server);
    site
}

/// Naively, the incremental would be taken, and its restore would have the rows of the other timeline: the pages of
/// `shop.item` are older than the parent, so they do not come.
#[test]
fn a_server_taken_back_in_place_gets_a_full_even_when_its_lsn_has_passed() {
    let site = forked(Site::new());
    site.needs_full("cannot follow the parent's");
    let rows = site.server.sql("SELECT COUNT(*) FROM shop.item WHERE text LIKE 'lost%'");
    assert_eq!(rows.trim(), "0");
    restores_to(&site, site.listing().last().unwrap(), &site.server.checksums());
}

#[test]
fn a_binlog_that_is_shorter_than_the_parent_saw_it_gets_a_full() {
    let mut site = Site::with(ServerOptions::new().argument("--log-bin=binlog"));
    site.change();
    let parent = site.backed_up(&[]);
    let name = parent["position"]["file"].as_str().unwrap().to_owned();
    let length = parent["position"]["position"].as_u64().unwrap();
    // A restart alone is fine: another file is begun.
    site.server.stop();
    site.server.restart();
    site.change();
    let next = site.backed_up(&["--incremental"]);
    assert_ne!(next["position"]["file"], name.as_str());
    let newest = next["position"]["file"].as_str().unwrap().to_owned();
    site.server.stop();
    let file = fs::File::options().write(true).open(site.server.datadir().join(&newest)).unwrap();
    file.set_len(length.min(300)).unwrap();
    site.server.restart();
    site.needs_full(&format!("binlog {newest} had"));
    // Purged binlogs tell nothing.
    site.server.sql("FLUSH BINARY LOGS; FLUSH BINARY LOGS");
    let newest = site.server.sql("SHOW MASTER STATUS").split('\t').next().unwrap().to_owned();
    site.server.sql(&format!("PURGE BINARY LOGS TO '{newest}'"));
    site.change();
    site.backed_up(&["--incremental"]);
}

/// A busy server that is restarted, by fair means and foul, stays on its timeline.
#[test]
fn a_server_that_is_killed_and_restarted_is_still_on_its_timeline() {
    let mut site = Site::with(ServerOptions::new().argument("--log-bin=binlog"));
    site.backed_up(&[]);
    for round in 0..4 {
        site.server.sql(
            "UPDATE shop.item SET text = CONCAT(text, '.') WHERE id % 7 = 0; DELETE FROM shop.item WHERE id % 50 = 0",
        );
        site.server.sql(&format!(
            "CREATE TABLE shop.t{round} LIKE shop.item; INSERT INTO shop.t{round} SELECT * FROM shop.item"
        ));
        if round % 2 == 0 {
            site.server.kill9()
        } else {
            site.server.stop()
        }
        site.server.restart();
        let next = site.backed_up(&["--incremental"]);
        restores_to(&site, &next, &site.server.checksums());
        site.server.sql("TRUNCATE TABLE shop.t0; OPTIMIZE TABLE shop.item");
    }
}
