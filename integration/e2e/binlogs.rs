//! What was archived of a server's binary log: looking at it, checking it, letting go of it.

use std::{fs, path::PathBuf, process::Command};

use haulout::format::Segment;
use jiff::{SignedDuration, Timestamp, tz::Offset};

use crate::support::{MariaDb, ServerOptions, Site, binlogs};

const STREAM: &str = "20261122T020500Z-51c0de";
/// Seconds between the transactions of [`story`].
const STEP: i64 = 10;

/// A server with rows that come and, in the ninth transaction, a table that goes, ten seconds apart and in an hour: what the file begins with
/// is of now. Gives the file, and when the first transaction is.
fn story() -> (Site, PathBuf, Timestamp) {
    let site = Site::with(ServerOptions::new().argument("--log-bin=db1-bin").argument("--binlog-format=ROW"));
    let began: i64 = site.server.sql("SELECT UNIX_TIMESTAMP() + 3600").trim().parse().unwrap();
    let mut sql = "FLUSH BINARY LOGS; USE shop;".to_owned();
    for number in 0..10 {
        sql += &format!("SET TIMESTAMP = {};", began + number * STEP);
        sql += &match number {
            0 => "CREATE TABLE orders (id INT PRIMARY KEY, what TEXT);".to_owned(),
            8 => "DROP TABLE orders;".to_owned(),
            9 => "CREATE TABLE too_late (id INT);".to_owned(),
            _ => format!("INSERT INTO orders VALUES ({number}, 'row {number}');"),
        };
    }
    site.server.sql(&sql);
    site.server.sql("FLUSH BINARY LOGS");
    let file = site.server.datadir().join("db1-bin.000002");
    (site, file, Timestamp::from_second(began).unwrap())
}

fn archived() -> (Site, Vec<Segment>, Timestamp) {
    let (site, file, began) = story();
    let segments = binlogs::archive(&binlogs::repository(&site.repository()), &file, STREAM);
    assert_eq!(segments.len(), 4);
    (site, segments, began)
}

#[test]
fn the_moment_of_a_drop_is_found_in_what_was_archived() {
    let (site, _, began) = archived();
    let after = |seconds| began + SignedDuration::from_secs(seconds);
    let plain = |seconds| after(seconds).strftime("%Y-%m-%d %H:%M:%S").to_string();
    let operator = site.operator(&[("TZ", "UTC")]);
    let show = |range: &[&str]| operator.run([&["binlog", "show"], range].concat()).ok();
    let all = show(&[]);
    assert!(all.stdout.contains("DROP TABLE `orders`") && all.stdout.contains("###   @2='row 3'"), "{}", all.stdout);
    let begins = all.stdout.lines().filter(|line| line.contains("Start: binlog v 4")).count();
    assert_eq!(begins, 1, "segments of one file are one");
    let east = Offset::constant(1).to_datetime(after(80)).strftime("%Y-%m-%dT%H:%M:%S+01:00").to_string();
    let run = show(&["--from", &plain(75), "--to", &east]);
    let understood = format!("from {} UTC to {} +01 (+01; {})", plain(75), plain(80 + 3600), after(80));
    assert!(run.stderr.contains(&understood), "{understood}: {}", run.stderr);
    let dropped = after(80).strftime("%y%m%d %k:%M:%S server id").to_string();
    assert!(run.stdout.contains("DROP TABLE `orders`") && run.stdout.contains(&dropped), "{dropped}: {}", run.stdout);
    assert!(!run.stdout.contains("too_late") && !run.stdout.contains("row 7"), "{}", run.stdout);
    let run = operator.run(["--json", "binlog", "list", "--from", &plain(75)]).ok();
    let summary = run.summary();
    assert_eq!((&summary["segments"], &summary["missing"]), (&2.into(), &0.into()), "{summary}");
    let none = operator.run(["binlog", "show", "--to", &plain(-1)]).exits(1);
    assert!(none.stderr.contains("no binary log of that range is archived"), "{}", none.stderr);
}

#[test]
fn what_was_archived_is_checked_to_the_events_and_what_is_lost_is_named() {
    let (site, segments, _) = archived();
    let run = site.haulout.run(["--json", "check", "--read-data"]).ok();
    let read: u64 = segments.iter().map(|segment| segment.raw_bytes).sum();
    let summary = run.summary();
    assert_eq!((&summary["binlog_segments"], &summary["binlog_bytes_read"]), (&4.into(), &read.into()), "{summary}");
    let pack = site.objects("binlogs").into_iter().find(|path| path.extension().is_some_and(|kind| kind == "pack"));
    fs::remove_file(pack.unwrap()).unwrap();
    let run = site.haulout.run(["check"]).exits(3);
    assert!(run.stdout.contains(".pack: it is missing\n  needed by restores to a moment"), "{}", run.stdout);
}

#[test]
fn fetched_segments_are_binary_logs_that_a_server_takes_one_after_the_other() {
    let (site, segments, _) = archived();
    let into = site.folder().join("binlogs");
    let run =
        site.haulout.run(["--json", "binlog", "fetch", "--into", into.to_str().unwrap(), "--stream", "20261122"]).ok();
    let names: Vec<String> =
        run.summary()["files"].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect();
    let mut there: Vec<String> =
        fs::read_dir(&into).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    there.sort();
    assert_eq!(names, there);
    assert_eq!(fs::metadata(into.join(&names[0])).unwrap().len(), segments[0].raw_bytes);
    // All but the last, in which the table is dropped.
    let other = MariaDb::start();
    other.sql("CREATE DATABASE shop");
    for name in &names[..2] {
        let text = Command::new("mariadb-binlog").arg("--no-defaults").arg(into.join(name)).output().unwrap();
        assert!(text.status.success(), "{}", String::from_utf8_lossy(&text.stderr));
        other.sql(&String::from_utf8(text.stdout).unwrap());
    }
    assert_eq!(other.sql("SELECT MAX(id) FROM shop.orders").trim(), "5");
}
