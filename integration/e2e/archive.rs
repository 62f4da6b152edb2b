//! The server's binary log, archived as it is written.

use std::{fs, time::Duration};

use serde_json::Value;

use crate::support::{
    Binlogs, MariaDb, ServerOptions, Site,
    binary::{Run, Running},
    binlog_streams as binlogs,
    site::assert_says,
    wait,
};

/// Time for what was written to be stored.
const STORED: Duration = Duration::from_secs(60);

/// A shop whose server writes a binary log.
pub fn shop(options: ServerOptions) -> Site {
    Site::with(options.argument("--log-bin=binlog").argument("--server-id=1"))
}

/// Arguments of `archive` for `server`, with more.
pub fn arguments(server: &MariaDb, more: &[&str]) -> Vec<String> {
    let mut arguments = vec!["--json".to_owned(), "archive".to_owned()];
    arguments.extend(server.flags());
    arguments.extend(more.iter().map(|&argument| argument.to_owned()));
    arguments
}

/// Follows the server's log until it is told to end.
pub fn follow(site: &Site, more: &[&str]) -> Running {
    site.haulout.spawn(arguments(&site.server, &[&["--every=1s"], more].concat()))
}

/// Archives what the server has.
pub fn once(site: &Site, more: &[&str]) -> Run {
    site.haulout.run(arguments(&site.server, &[&["--once"], more].concat()))
}

pub fn at(site: &Site) -> Binlogs {
    Binlogs::at(&format!("file://{}", site.repository().display()))
}

/// Waits until all is archived that the server has now.
pub fn wait_for_all(running: &mut Running, binlogs: &Binlogs, server: &MariaDb) {
    let wanted = binlogs::position(server);
    running.wait_for("all of it to be archived", |_| binlogs.position() == wanted);
}

/// Panics unless all that the server has in its log is archived, once and in order, without a gap.
#[track_caller]
pub fn assert_all(binlogs: &Binlogs, server: &MariaDb) -> binlogs::Row {
    let mut rows = binlogs.rows();
    assert_eq!(rows.len(), 1, "{rows:?}");
    let expected = binlogs::gtids(server);
    assert!(expected.len() > 5, "{expected:?}");
    assert_eq!(rows[0].gtids, expected);
    rows.remove(0)
}

/// Many small transactions in two domains.
pub fn write(server: &MariaDb, count: u32) {
    let one = |number: u32| {
        let (domain, id) = (number % 2 * 3, 1 + number % 4000);
        format!("SET gtid_domain_id = {domain}; UPDATE shop.item SET text = CONCAT({number}, RAND()) WHERE id = {id};")
    };
    server.sql(&(0..count).map(one).collect::<String>());
}

#[test]
fn all_of_it_is_archived_and_each_run_goes_on_at_the_very_byte() {
    let site = shop(ServerOptions::new());
    write(&site.server, 30);
    site.server.sql("FLUSH BINARY LOGS");
    write(&site.server, 7);
    let run = once(&site, &[]).ok();
    assert_eq!((&run.summary()["gaps"], &run.summary()["segments"]), (&0.into(), &2.into()), "{}", run.stdout);
    let row = assert_all(&at(&site), &site.server);
    assert_eq!((row.continued, row.gtids.len() as u64), (0, run.summary()["transactions"].as_u64().unwrap()));
    assert!(row.gtids.iter().any(|gtid| gtid.starts_with("3-1-")));

    // Nothing new, then some in the same file, then some in later ones.
    let idle = once(&site, &[]).ok();
    assert_eq!((&idle.summary()["segments"], at(&site).segments().len()), (&0.into(), 1));
    write(&site.server, 5);
    once(&site, &[]).ok();
    site.server.sql("FLUSH BINARY LOGS; FLUSH BINARY LOGS");
    write(&site.server, 5);
    once(&site, &["--segment-size=64KiB"]).ok();
    let row = assert_all(&at(&site), &site.server);
    assert_eq!((row.continued, row.joined), (2, 0));

    // The bytes are the server's own.
    for archived in at(&site).segments().into_iter().flatten() {
        let (stored, own) = binlogs::both_sides(&archived, site.server.datadir());
        assert!(stored == own, "{:?}", archived.segment);
    }
    assert_eq!(site.leases_held(), [""; 0]);
}

#[test]
fn the_file_that_is_being_written_is_archived_within_seconds_and_a_signal_ends_it_with_0() {
    let site = shop(ServerOptions::new());
    let mut running = follow(&site, &[]);
    let binlogs = at(&site);
    wait_for_all(&mut running, &binlogs, &site.server);
    for round in 0..3 {
        write(&site.server, 20);
        wait_for_all(&mut running, &binlogs, &site.server);
        if round == 1 {
            site.server.sql("FLUSH BINARY LOGS");
        }
    }
    running.wait_for_line("a line that tells how far it is", |line| line.contains("\"message_type\":\"archive\""));
    write(&site.server, 20);
    running.interrupt();
    let run = running.wait().ok();
    let status = run.message("archive");
    assert_eq!((&status["following"], &status["gaps"]), (&true.into(), &0.into()), "{status}");
    assert!(status["segments"].as_u64().unwrap() >= 3 && status["last_event"].is_string(), "{status}");
    // What had come whole when the signal came is stored; the rest comes with the next run.
    once(&site, &[]).ok();
    assert_all(&binlogs, &site.server);
    assert_eq!(site.leases_held(), [""; 0]);
}

#[test]
fn a_server_that_restarts_or_is_killed_is_followed_on() {
    let mut site = shop(ServerOptions::new());
    let mut running = follow(&site, &[]);
    let binlogs = at(&site);
    for round in 0..4 {
        write(&site.server, 20);
        if round % 2 == 0 {
            wait_for_all(&mut running, &binlogs, &site.server);
            site.server.kill9();
        } else {
            site.server.stop();
        }
        site.server.restart();
        write(&site.server, 5);
        wait_for_all(&mut running, &binlogs, &site.server);
    }
    running.interrupt();
    running.wait().ok();
    let row = assert_all(&binlogs, &site.server);
    assert!(row.continued + row.joined >= 4, "{row:?}");
}

#[test]
fn the_first_run_begins_at_the_newest_backup() {
    let site = shop(ServerOptions::new());
    write(&site.server, 10);
    let before = binlogs::gtids(&site.server).len();
    let backup = site.backed_up(&[]);
    write(&site.server, 10);
    once(&site, &[]).ok();
    let rows = at(&site).rows();
    assert_eq!((rows.len(), &rows[0].gap), (1, &None));
    assert_eq!(rows[0].gtids, binlogs::gtids(&site.server)[before..]);
    let first = &at(&site).segments()[0][0].segment;
    assert_eq!(first.before.to_string(), backup["position"]["gtid"].as_str().unwrap());
    assert_eq!(first.start, backup["position"]["position"].as_u64().unwrap());
}

#[test]
fn a_transaction_larger_than_packs_and_spool_is_one_segment() {
    let site = shop(ServerOptions::new().argument("--binlog-format=ROW"));
    site.server.sql("CREATE TABLE shop.picture (id INT PRIMARY KEY, bytes BLOB) ENGINE=InnoDB");
    let running = follow(&site, &["--spool-size=8MiB", "--segment-size=1MiB"]);
    write(&site.server, 3);
    site.server.sql("USE shop; INSERT INTO picture SELECT seq, RANDOM_BYTES(1000) FROM seq_1_to_48000");
    write(&site.server, 3);
    let (mut running, binlogs) = (running, at(&site));
    wait_for_all(&mut running, &binlogs, &site.server);
    running.interrupt();
    running.wait().ok();
    assert_all(&binlogs, &site.server);
    let segments = binlogs.segments();
    let large = segments.iter().flatten().find(|archived| archived.segment.packs.len() > 2).expect("a large one");
    assert!(large.bytes.len() > 40 << 20);
    let (stored, own) = binlogs::both_sides(large, site.server.datadir());
    assert!(stored == own);
}

#[test]
fn a_sealed_repository_shows_nothing_of_what_was_written() {
    let mut site = Site::sealed();
    site.server = MariaDb::with(ServerOptions::new().argument("--log-bin=binlog").argument("--server-id=1"));
    site.server
        .sql("CREATE DATABASE shop; CREATE TABLE shop.item (id INT PRIMARY KEY, text VARCHAR(99)) ENGINE=InnoDB");
    for id in 0..9 {
        site.server.sql(&format!("INSERT INTO shop.item VALUES ({id}, 'an unmistakable text')"));
    }
    once(&site, &[]).ok();
    let binlogs = Binlogs::sealed(&format!("file://{}", site.repository().display()));
    assert_all(&binlogs, &site.server);
    for object in site.objects("binlogs") {
        let bytes = fs::read(&object).unwrap();
        for text in [&b"unmistakable"[..], b"CREATE TABLE", b"binlog.000001"] {
            assert!(!bytes.windows(text.len()).any(|found| found == text), "{}", object.display());
        }
    }
    let closed = site.operator(&[]).run(arguments(&site.server, &["--once"])).exits(12);
    assert_says(&closed, 12, "no key is given", "--key-file");
}

#[test]
fn what_keeps_it_from_beginning_is_told_with_what_to_do() {
    let off = Site::new();
    let run = once(&off, &[]).exits(23);
    assert_says(&run, 23, "writes no binary log", "set log_bin");

    let site = shop(ServerOptions::new());
    site.server
        .sql("CREATE USER few@localhost; GRANT BINLOG MONITOR ON *.* TO few@localhost; CREATE USER none@localhost");
    for user in ["few", "none"] {
        let (socket, user) = (&site.server.flags()[0], format!("--user={user}"));
        let run = site.haulout.run(["--json", "archive", "--once", socket, &user]).exits(23);
        assert_says(&run, 23, "", "GRANT REPLICATION SLAVE, BINLOG MONITOR");
    }
    let run = site.haulout.run(["--json", "archive", "--socket=/nowhere"]).exits(23);
    assert_says(&run, 23, "cannot be reached", "");

    let mut running = follow(&site, &[]);
    wait_for_all(&mut running, &at(&site), &site.server);
    let run = once(&site, &[]).exits(11);
    assert_says(&run, 11, "archive", "");
    running.interrupt();
    running.wait().ok();
    once(&site, &[]).ok();
}

/// Copies of the server's files go away as they are archived.
#[test]
fn what_is_stored_takes_no_room_in_the_spool() {
    let site = shop(ServerOptions::new().argument("--binlog-format=ROW"));
    let spool = site.folder().join("spool");
    let flag = format!("--spool-dir={}", spool.display());
    let mut running = follow(&site, &[&flag, "--segment-size=1MiB"]);
    site.server.sql("CREATE TABLE shop.picture (id INT PRIMARY KEY, bytes BLOB) ENGINE=InnoDB");
    for part in 0..6 {
        site.server.sql(&format!(
            "INSERT INTO shop.picture SELECT seq + {part} * 10000, RANDOM_BYTES(1000) FROM shop.seq_1_to_3000"
        ));
    }
    wait_for_all(&mut running, &at(&site), &site.server);
    let room = || {
        let folders = fs::read_dir(&spool).unwrap().flatten().flat_map(|entry| fs::read_dir(entry.path()).unwrap());
        let files = folders.flatten().flat_map(|entry| fs::read_dir(entry.path()).unwrap()).flatten();
        files.map(|file| std::os::unix::fs::MetadataExt::blocks(&file.metadata().unwrap()) * 512).sum::<u64>()
    };
    wait::until("the room to be given back", STORED, || (room() < 4 << 20).then_some(()));
    assert!(fs::metadata(binlogs::files(&site.server).last().unwrap()).unwrap().len() > 15 << 20);
    running.interrupt();
    running.wait().ok();
    assert!(!spool.exists() || fs::read_dir(&spool).unwrap().count() == 0);
}

pub fn gaps(run: &Run) -> Vec<&str> {
    let told = run.messages.iter().filter(|message| message["message_type"] == "warning");
    told.filter_map(|message| message["message"].as_str()).filter(|message| message.starts_with("a gap")).collect()
}

#[test]
fn a_gap_is_recorded_told_and_the_exit_code_says_so() {
    let site = shop(ServerOptions::new());
    write(&site.server, 10);
    once(&site, &[]).ok();
    let archived = binlogs::gtids(&site.server);
    // The server keeps what somebody reads.
    assert_eq!(binlogs::readers_left(&site.server), 0);
    // Purged before it was archived.
    write(&site.server, 10);
    site.server.sql("FLUSH BINARY LOGS");
    write(&site.server, 10);
    let last = site.server.sql("SHOW MASTER STATUS");
    let purge = format!("PURGE BINARY LOGS TO '{}'", last.split('\t').next().unwrap());
    // What a crash would need is kept until InnoDB has it on disk.
    wait::until("the purge", STORED, || {
        site.server.sql(&purge);
        (binlogs::files(&site.server).len() == 1).then_some(())
    });
    let left = binlogs::gtids(&site.server);
    let run = once(&site, &[]).exits(3);
    assert_eq!((gaps(&run).len(), &run.summary()["gaps"]), (1, &Value::from(1)), "{}", run.stdout);
    assert!(gaps(&run)[0].contains("haulout backup"), "{}", run.stdout);
    let rows = at(&site).rows();
    assert_eq!((rows.len(), &rows[0].gtids, &rows[1].gtids), (2, &archived, &left));
    assert!(rows[1].gap.as_ref().unwrap().contains("purged"), "{rows:?}");
    // It is told once, and archived on.
    write(&site.server, 10);
    let run = once(&site, &[]).ok();
    assert_eq!(gaps(&run), [""; 0]);
    assert_eq!(at(&site).rows()[1].gtids, binlogs::gtids(&site.server));
}
