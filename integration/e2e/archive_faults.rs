//! The binary log is archived whatever happens: kills, other servers, logs that are begun anew, a store that is away.

use std::{fs, os::unix::fs::symlink, process::Stdio, time::Duration};

use super::{
    archive::{arguments, assert_all, at, follow, gaps, once, shop, wait_for_all, write},
    bad_store::settings,
};
use crate::support::{
    Binlogs, Fault, FaultyPath, Haulout, Load, LoadOptions, LocalStack, MariaDb, ServerOptions, Site,
    binlog_streams as binlogs, full, not_shown, random::Random, scratch, store::environment, wait,
};

const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn an_archiver_that_is_killed_at_any_moment_leaves_nothing_out_and_nothing_twice() {
    let rounds = if full() { 40 } else { 8 };
    if !full() {
        not_shown("32 more kills of the archiver; integration/test.sh --full");
    }
    let seed = 20_261_128;
    println!("seed {seed}");
    let mut random = Random::new(seed);
    let site = shop(ServerOptions::new().argument("--max-binlog-size=65536"));
    let load = Load::start(&site.server, LoadOptions { seed, ddl: true });
    let binlogs = at(&site);
    for _ in 0..rounds {
        let mut running = follow(&site, &["--segment-size=64KiB"]);
        // So many segments, and then so many transactions: it is killed amid whatever it then does.
        let (segments, transfers) = (binlogs.count() + random.below(4) as usize, random.below(40));
        running.wait_for("more segments", |_| binlogs.count() >= segments);
        load.wait_for(transfers, 0);
        running.kill9();
    }
    load.stop();
    once(&site, &[]).ok();
    let row = assert_all(&binlogs, &site.server);
    println!("{} transactions, {} streams", row.gtids.len(), 1 + row.continued + row.joined);
    assert!(row.continued >= 3 && row.joined == 0, "{} {}", row.continued, row.joined);
    assert_eq!(binlogs::readers_left(&site.server), 0, "a killed archiver leaves its child behind");
}

#[test]
fn a_log_that_is_reset_while_it_is_followed_is_a_gap_and_archived_on() {
    let site = shop(ServerOptions::new());
    let mut running = follow(&site, &[]);
    let binlogs = at(&site);
    write(&site.server, 20);
    wait_for_all(&mut running, &binlogs, &site.server);
    let before = binlogs::gtids(&site.server);
    site.server.sql("RESET MASTER");
    write(&site.server, 9);
    wait_for_all(&mut running, &binlogs, &site.server);
    running.interrupt();
    let run = running.wait().exits(3);
    assert_eq!(gaps(&run).len(), 1, "{}", run.stdout);
    let rows = binlogs.rows();
    assert_eq!((rows.len(), &rows[0].gtids, &rows[1].gtids), (2, &before, &binlogs::gtids(&site.server)));
}

/// Names of files, domain and server are the same, and numbers have passed those that were archived.
#[test]
fn a_log_that_was_reset_and_has_grown_past_what_was_archived_is_not_taken_for_its_continuation() {
    let site = shop(ServerOptions::new());
    write(&site.server, 6);
    once(&site, &[]).ok();
    let before = binlogs::gtids(&site.server);
    // The second in which it is reset is another.
    let second = || site.server.sql("SELECT UNIX_TIMESTAMP() DIV 1");
    let now = second();
    wait::until("the next second", LIMIT, || (second() != now).then_some(()));
    site.server.sql("RESET MASTER");
    write(&site.server, 60);
    let run = once(&site, &[]).exits(3);
    assert_eq!(gaps(&run).len(), 1, "{}", run.stdout);
    let rows = at(&site).rows();
    assert_eq!((rows.len(), &rows[0].gtids, &rows[1].gtids), (2, &before, &binlogs::gtids(&site.server)));
}

/// Applies all that `from` has in its log to `to`, under the same GTIDs, as a replica does.
fn replicate(from: &MariaDb, to: &MariaDb) {
    let mut dump = std::process::Command::new("mariadb-binlog")
        .arg("--no-defaults")
        .args(binlogs::files(from))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let client = to.client().command().stdin(dump.stdout.take().unwrap()).status().unwrap();
    assert!(client.success() && dump.wait().unwrap().success());
}

#[test]
fn another_server_behind_the_same_socket_is_joined_by_its_gtids() {
    let mut site = shop(ServerOptions::new());
    let other = MariaDb::with(ServerOptions::new().argument("--log-bin=binlog").argument("--server-id=2"));
    let (link, binlogs) = (site.folder().join("socket"), at(&site));
    symlink(site.server.socket(), &link).unwrap();
    let flag = format!("--socket={}", link.display());
    let mut running = site.haulout.spawn(["--json", "archive", "--every=1s", "--user=root", &flag]);
    write(&site.server, 20);
    wait_for_all(&mut running, &binlogs, &site.server);
    // Archived and replicated; the names of the files are the same, and their places are not.
    replicate(&site.server, &other);
    assert_eq!(binlogs::position(&other), binlogs::position(&site.server));
    let first = binlogs::gtids(&site.server);
    let next = site.folder().join("next");
    symlink(other.socket(), &next).unwrap();
    fs::rename(&next, &link).unwrap();
    site.server.stop();
    write(&other, 20);
    wait_for_all(&mut running, &binlogs, &other);
    running.interrupt();
    running.wait().ok();
    let rows = binlogs.rows();
    assert_eq!((rows.len(), rows[0].joined), (1, 1), "{rows:?}");
    assert_eq!(rows[0].gtids, binlogs::gtids(&other));
    assert_eq!(rows[0].gtids[..first.len()], first);
    assert!(rows[0].gtids.iter().any(|gtid| gtid.contains("-2-")));

    // One that lacks what was archived cannot be joined.
    let late = MariaDb::with(ServerOptions::new().argument("--log-bin=binlog").argument("--server-id=3"));
    site.server = late;
    site.server.sql("CREATE DATABASE shop; CREATE TABLE shop.item (id INT PRIMARY KEY, text TEXT) ENGINE=InnoDB");
    let run = once(&site, &[]).exits(3);
    assert!(gaps(&run)[0].contains("the server lacks"), "{}", run.stdout);
}

#[test]
fn a_store_that_is_away_is_waited_for_and_nothing_is_lost() {
    let options = ServerOptions::new().argument("--log-bin=binlog").argument("--server-id=1");
    let options = options.argument("--binlog-format=ROW");
    let (mut site, bucket) = Site::in_bucket_with(options);
    let path = FaultyPath::to(LocalStack::shared().address());
    let config = settings(site.folder());
    site.haulout = Haulout::in_bucket(&bucket, "db1")
        .with(environment(&path.endpoint()))
        .with([("HAULOUT_CONFIG", config.to_str().unwrap())]);
    let binlogs = Binlogs::at(&bucket.url("db1"));
    let mut running =
        site.haulout.spawn(arguments(&site.server, &["--every=1s", "--segment-size=1MiB", "--spool-size=2MiB"]));
    write(&site.server, 20);
    wait_for_all(&mut running, &binlogs, &site.server);
    path.set(Fault::Down);
    site.server.sql("CREATE TABLE shop.picture (id INT PRIMARY KEY, bytes BLOB) ENGINE=InnoDB");
    for part in 0..8 {
        site.server.sql(&format!(
            "INSERT INTO shop.picture SELECT seq + {part} * 10000, RANDOM_BYTES(1000) FROM shop.seq_1_to_1200"
        ));
    }
    running.wait_for_line("word of the store", |line| line.contains("the store takes no binary log"));
    running.wait_for_line("word of the spool", |line| line.contains("is full"));
    // Whoever is alarmed by that must be.
    running.wait_for_line("word of what waits", |line| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap_or_default();
        let number = |name: &str| line[name].as_u64().unwrap_or_default();
        line["message_type"] == "archive" && number("waiting_seconds") >= 5 && number("behind_bytes") > 8 << 20
    });
    path.set(Fault::None);
    wait_for_all(&mut running, &binlogs, &site.server);
    // Answers are lost: what was stored is known again.
    path.set(Fault::CutAnswerAfter(0));
    write(&site.server, 20);
    let cut = path.connections();
    running.wait_for("answers to be lost", |_| path.connections() > cut + 3);
    path.set(Fault::None);
    write(&site.server, 20);
    wait_for_all(&mut running, &binlogs, &site.server);
    running.interrupt();
    running.wait().ok();
    assert_all(&binlogs, &site.server);
}

/// What `SHOW BINLOG EVENTS` has, which reads encrypted files, too.
fn gtids_by_server(server: &MariaDb) -> Vec<String> {
    let files = server.sql("SHOW BINARY LOGS");
    let of = |file: &str| {
        let events = server.sql(&format!("SHOW BINLOG EVENTS IN '{file}'"));
        let gtids = events.lines().filter(|line| line.contains("\tGtid\t"));
        let gtids = gtids.filter_map(|line| line.split_once("GTID ")?.1.split_whitespace().next());
        gtids.map(str::to_owned).collect::<Vec<_>>()
    };
    files.lines().flat_map(|line| of(line.split('\t').next().unwrap())).collect()
}

#[test]
fn encrypted_and_compressed_logs_and_logs_without_checksums_are_archived_in_the_clear_and_whole() {
    let keys = scratch();
    let options = ServerOptions::new().keys(&keys.path().join("keys"));
    let site = shop(options.argument("--encrypt-binlog=ON").argument("--log-bin-compress=ON"));
    for checksum in ["NONE", "CRC32"] {
        site.server.sql(&format!("SET GLOBAL binlog_checksum = {checksum}"));
        write(&site.server, 9);
        site.server.sql("INSERT INTO shop.item (text) SELECT REPEAT(RAND(), 15) FROM shop.seq_1_to_900");
        once(&site, &[]).ok();
        write(&site.server, 9);
        once(&site, &[]).ok();
    }
    let (rows, own) = (at(&site).rows(), gtids_by_server(&site.server));
    assert!(own.len() > 40, "{own:?}");
    assert_eq!((rows.len(), &rows[0].gtids), (1, &own));
    assert_eq!((rows[0].continued, rows[0].joined), (3, 0));
}

/// A machine that lost power can leave half an event at the end of a file.
#[test]
fn a_file_whose_end_is_torn_is_passed_over_and_nothing_is_missing() {
    let mut site = shop(ServerOptions::new());
    write(&site.server, 9);
    once(&site, &[]).ok();
    write(&site.server, 9);
    let torn = binlogs::files(&site.server).pop().unwrap();
    let whole = binlogs::gtids(&site.server);
    site.server.kill9();
    let bytes = fs::read(&torn).unwrap();
    fs::write(&torn, [&bytes[..], &bytes[4..34]].concat()).unwrap();
    site.server.restart();
    write(&site.server, 9);
    let run = once(&site, &[]).ok();
    let rows = at(&site).rows();
    let next = binlogs::gtids_in(&binlogs::files(&site.server)[1..]);
    assert_eq!((rows.len(), &rows[0].gtids), (1, &[whole, next].concat()), "{}", run.stdout);
    assert_eq!((rows[0].continued, rows[0].joined), (1, 1));
}

#[test]
fn damage_in_the_middle_of_a_file_is_a_gap_and_what_is_behind_it_in_later_files_is_archived() {
    let site = shop(ServerOptions::new());
    write(&site.server, 9);
    once(&site, &[]).ok();
    write(&site.server, 9);
    let whole = binlogs::gtids(&site.server);
    let file = binlogs::files(&site.server).pop().unwrap();
    let from = fs::metadata(&file).unwrap().len() as usize;
    write(&site.server, 9);
    site.server.sql("FLUSH BINARY LOGS");
    write(&site.server, 9);
    let mut bytes = fs::read(&file).unwrap();
    bytes[from + 60] ^= 4;
    fs::write(&file, bytes).unwrap();
    let run = once(&site, &[]).exits(3);
    assert_eq!(gaps(&run).len(), 1, "{}", run.stdout);
    let rows = at(&site).rows();
    let later = binlogs::gtids_in(&binlogs::files(&site.server)[1..]);
    assert_eq!((rows.len(), &rows[0].gtids, &rows[1].gtids), (2, &whole, &later), "{}", run.stdout);
}
