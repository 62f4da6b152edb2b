//! A store that goes away in the middle of a backup under write load, or that is slower than the server.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::bad_store::behind_a_path;
use crate::support::{
    Fault, Load, MariaDb, ServerOptions, Site,
    binary::{Run, Running},
    full,
    load::{self, assert_books_balance},
    not_shown,
    site::{assert_says, assert_unlocked},
    wait,
};

/// The servers' redo log: what is not copied in time is overwritten.
const LOG_BYTES: u64 = 16 << 20;

/// Makes a table of some `mib` MiB that no compression shortens, and has it on disk.
pub fn make_pictures(site: &Site, mib: u64) {
    site.server.sql(&format!(
        "USE shop; CREATE TABLE picture (id INT PRIMARY KEY, bytes BLOB) ENGINE=InnoDB;
         INSERT INTO picture SELECT seq, RANDOM_BYTES(1000) FROM seq_1_to_{};
         FLUSH TABLES picture FOR EXPORT; UNLOCK TABLES;",
        mib * 1000
    ));
}

/// Statements of each session in an outage: some 22 MiB of redo log, of which the server keeps what it writes in most of that time.
const STATEMENTS: u64 = 2200;

/// Starts a bank that waits for its first transfers, and beside it somebody who writes much.
fn bank(site: &Site) -> Load {
    load::make_bank(&site.server);
    site.server.sql("CREATE TABLE bank.journal (id INT PRIMARY KEY, bytes BLOB) ENGINE=InnoDB");
    let transfer: load::Statements = Box::new(load::transfer);
    let write: load::Statements = Box::new(|random| {
        format!("REPLACE INTO bank.journal VALUES ({}, REPEAT('{:016x}', 600));", random.below(100), random.next())
    });
    Load::of(&site.server.client(), 1, [(7, transfer), (8, write)])
}

/// Number of the last byte of the redo log.
fn lsn(site: &Site) -> u64 {
    let status = site.server.sql("SHOW GLOBAL STATUS LIKE 'Innodb_lsn_current'");
    status.split_whitespace().last().unwrap().parse().unwrap()
}

fn warnings(run: &Run) -> Vec<String> {
    let told = run.messages.iter().filter(|message| message["message_type"] == "warning");
    told.map(|message| message["message"].as_str().unwrap().to_owned()).collect()
}

/// Bytes of redo log in a backup.
fn redo_bytes(backup: &Value) -> u64 {
    let number =
        |name: &str| backup["lsn"][name].as_str().map_or(backup["lsn"][name].as_u64(), |text| text.parse().ok());
    number("last").unwrap() - number("start").unwrap()
}

/// Bytes of the files in a folder and below.
fn bytes_below(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| {
            if entry.path().is_dir() {
                bytes_below(&entry.path())
            } else {
                entry.metadata().map_or(0, |meta| meta.len())
            }
        })
        .sum()
}

/// The most memory that a run has had so far, in bytes.
fn peak_memory(running: &Running) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", running.pid())).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// Has the bank work at an even pace for as long as the store is away, and until the server has overwritten its redo log.
fn work_for(site: &Site, load: &Load, outage: Duration) {
    let (begun, first, mut given) = (Instant::now(), load.done(0), 0);
    let from = lsn(site);
    wait::until("the end of the outage", outage + Duration::from_secs(120), || {
        let elapsed = begun.elapsed().min(outage);
        let due = STATEMENTS * elapsed.as_millis() as u64 / outage.as_millis() as u64;
        load.allow(due - given);
        given = due;
        (begun.elapsed() >= outage && lsn(site) > from + 5 * LOG_BYTES / 4).then_some(())
    });
    println!("away for {:?}, {} bytes of redo log", begun.elapsed(), lsn(site) - from);
    assert!(load.done(0) > first + STATEMENTS / 2, "the bank stood still: {} transfers", load.done(0) - first);
}

/// Checksum of the pictures, which the bank leaves alone.
fn checksum(server: &MariaDb) -> String {
    server.sql("CHECKSUM TABLE shop.picture EXTENDED")
}

/// Panics unless `backup` restores to sound tables, books that balance and these pictures.
#[track_caller]
fn restores(site: &Site, backup: &Value, pictures: &str) {
    let restored = MariaDb::on(&site.restored(backup), ServerOptions::new());
    assert_eq!(restored.check_all(), [""; 0]);
    assert_books_balance(&restored);
    assert_eq!(checksum(&restored), pictures);
}

/// The copy goes on from begin to end of the outage, and so does the redo log, of which more is written than the server keeps.
#[test]
fn a_store_that_is_away_in_the_middle_of_a_backup_costs_neither_the_backup_nor_redo_log() {
    let (seconds, mib, throttle) = if full() {
        (300, 240, "--throttle=2")
    } else {
        not_shown("a store that is away for five minutes; integration/test.sh --full");
        (18, 60, "--throttle=20")
    };
    let (site, path) = behind_a_path(false);
    make_pictures(&site, mib);
    let load = bank(&site);
    let spool = site.folder().join("spool");
    let spool_dir = format!("--spool-dir={}", spool.display());
    path.set(Fault::DownAfter(1 << 20));
    let mut running = site.haulout.spawn_backup(&site.server, &["--uploads=1", &spool_dir, "--", throttle]);
    running.wait_for("the store to go away", |_| path.fault() == Fault::Down);
    work_for(&site, &load, Duration::from_secs(seconds));
    let spooled = bytes_below(&spool);
    path.set(Fault::None);
    let run = running.wait().ok();
    let backup = run.summary().clone();
    println!("{spooled} bytes were in the spool, {} of redo log in the backup", redo_bytes(&backup));
    assert_eq!(backup["kind"], "full");
    assert_eq!(taken_again(&run), [""; 0], "{}", run.stdout);
    assert!(spooled > 16 << 20 && redo_bytes(&backup) > LOG_BYTES, "{spooled}: {backup}");
    let figures = |name: &str| -> Vec<u64> {
        let lines = run.messages.iter().filter(|line| line["message_type"] == "figures");
        lines.map(|line| line[name].as_u64().unwrap()).collect()
    };
    let lag = figures("redo_lag_bytes");
    println!("redo log not copied yet: {lag:?}");
    assert!(figures("redo_kept_bytes")[1..].iter().all(|kept| *kept == LOG_BYTES));
    assert!(lag.iter().any(|lag| *lag > 0) && lag.iter().all(|lag| *lag < LOG_BYTES) && lag.last() == Some(&0));

    // An incremental reads its parent's map, too, where pages have changed.
    let pictures = checksum(&site.server);
    site.server.sql("UPDATE shop.picture SET bytes = RANDOM_BYTES(1000) WHERE id % 500 = 0");
    let mut running = site.haulout.spawn_backup(&site.server, &["--incremental"]);
    running.wait_for_line("the capture", |line| line.contains("\"phase\":\"capture\""));
    path.set(Fault::Down);
    work_for(&site, &load, Duration::from_secs(18));
    path.set(Fault::None);
    let run = running.wait().ok();
    assert_eq!(run.summary()["parent"], backup["backup_id"]);
    assert_eq!(taken_again(&run), [""; 0], "{}", run.stdout);
    load.stop();
    restores(&site, &backup, &pictures);
    restores(&site, run.summary(), &checksum(&site.server));
    site.haulout.run(["check", "--read-data"]).ok();
}

/// What a run says of captures that it had to take again.
fn taken_again(run: &Run) -> Vec<String> {
    warnings(run).into_iter().filter(|warning| warning.contains("trying again")).collect()
}

/// What a line takes that is slower than the server reads its files.
const SLOW_BYTES_PER_SECOND: u64 = 20 << 20;

#[test]
fn a_store_slower_than_the_server_fills_the_spool_to_its_limit_and_memory_stays_bounded() {
    const SPOOL_BYTES: u64 = 52 << 20;
    const MEMORY_MAX: u64 = 208 << 20;
    let mib = if full() { 600 } else { 230 };
    let (site, path) = behind_a_path(false);
    make_pictures(&site, mib);
    let load = bank(&site);
    let spool = site.folder().join("spool");
    let flags = [format!("--spool-dir={}", spool.display()), format!("--spool-size={SPOOL_BYTES}")];
    path.set(Fault::Slow(SLOW_BYTES_PER_SECOND));
    let mut running = site.haulout.spawn_backup(&site.server, &[&flags[0], &flags[1]]);
    let (mut memory, mut spooled) = (0, 0);
    load.allow(2000);
    running.wait_for("the end", |running| {
        memory = memory.max(peak_memory(running));
        spooled = spooled.max(bytes_below(&spool));
        running.has_said("\"message_type\":\"summary\"")
    });
    let run = running.wait().ok();
    println!("{mib} MiB: {} MiB of memory, {} MiB in the spool, {:.1} s", memory >> 20, spooled >> 20, run.seconds);
    assert!(mib << 20 > MEMORY_MAX && memory < MEMORY_MAX, "{memory} bytes of memory");
    assert!(spooled > SPOOL_BYTES / 2 && spooled <= SPOOL_BYTES, "{spooled} bytes in the spool");
    let told = warnings(&run);
    for words in ["the store is slower than the backup", "the spool is full"] {
        assert!(told.iter().any(|warning| warning.contains(words)), "{words}: {told:?}");
    }
    path.set(Fault::None);
    load.stop();
    restores(&site, run.summary(), &checksum(&site.server));
}

/// When memory and spool are full the capture waits, and the server goes on. What that costs is told, and taken again.
#[test]
fn a_full_spool_holds_the_capture_up_and_redo_log_that_is_lost_by_that_is_told_and_copied_again() {
    let (site, path) = behind_a_path(false);
    make_pictures(&site, 120);
    let load = bank(&site);
    path.set(Fault::DownAfter(2 << 20));
    let mut running = site.haulout.spawn_backup(&site.server, &["--spool-size=16MiB", "--uploads=1"]);
    running.wait_for_line("word of the full spool", |line| line.contains("the spool is full"));
    assert_eq!(path.fault(), Fault::Down);
    // Three times what the server keeps.
    let begun = lsn(&site);
    load.allow(20_000);
    wait::until("the redo log to be overwritten", Duration::from_secs(120), || {
        (lsn(&site) > begun + 3 * LOG_BYTES).then_some(())
    });
    path.set(Fault::None);
    let run = running.wait().ok();
    let told = warnings(&run);
    assert!(told.iter().any(|warning| warning.contains("overwrote its redo log")), "{told:?}");
    load.stop();
    restores(&site, run.summary(), &checksum(&site.server));
    site.haulout.run(["check", "--read-data"]).ok();
}

/// A run that waits for room and a store that stays away end, and the server is free again.
#[test]
fn a_full_spool_and_a_store_that_stays_away_end_the_backup_with_22() {
    if !full() {
        not_shown("a store that stays away with a full spool; integration/test.sh --full");
        return;
    }
    let (site, path) = behind_a_path(false);
    make_pictures(&site, 120);
    path.set(Fault::DownAfter(2 << 20));
    let mut running = site.haulout.spawn_backup(&site.server, &["--spool-size=16MiB", "--uploads=1"]);
    running.wait_for_line("word of the full spool", |line| line.contains("the spool is full"));
    let begun = Instant::now();
    let run = running.wait().exits(22);
    println!("given up after {:?}", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(150), "{:?}", begun.elapsed());
    assert_says(&run, 22, " packs/", &path.endpoint());
    assert_unlocked(&site.server);
    path.set(Fault::None);
    assert_eq!(site.listing(), [Value::Null; 0]);
    site.backed_up(&[]);
}
