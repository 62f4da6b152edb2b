//! Any moment behind a backup, from archived binary log.

use std::{collections::BTreeMap, fs, path::PathBuf};

use crate::support::{MariaDb, ServerOptions, Site, binlogs::Stream, scratch, site::assert_says};

const STREAM: &str = "20261122T020500Z-51c0de";

/// A moment in the server's life: what it was called, and what the server held.
struct Known {
    gtid: String,
    checksums: BTreeMap<String, String>,
}

fn known(server: &MariaDb) -> Known {
    let gtid = server.sql("SELECT @@gtid_binlog_pos").trim().to_owned();
    Known { gtid, checksums: server.checksums() }
}

fn site() -> Site {
    site_with(ServerOptions::new())
}

fn site_with(options: ServerOptions) -> Site {
    let site = Site::with(options.argument("--log-bin=db1-bin").argument("--server-id=1"));
    site.server.sql(
        "USE shop; CREATE TABLE shop.account (id INT PRIMARY KEY, money INT) ENGINE=InnoDB;
         INSERT INTO shop.account SELECT seq, 100 FROM seq_1_to_50;
         CREATE TABLE shop.flat (id INT PRIMARY KEY AUTO_INCREMENT, text VARCHAR(400)) ENGINE=MyISAM;",
    );
    site
}

/// Everything that a binary log can hold, in steps after each of which the server's state is known.
const STEPS: [&str; 14] = [
    "INSERT INTO item (text) VALUES ('row'), ('based'); UPDATE item SET text = 'changed' WHERE id % 7 = 0",
    "SET binlog_format = STATEMENT; INSERT INTO item (text) SELECT CONCAT('statement ', id) FROM item WHERE id < 90",
    "SET binlog_format = STATEMENT; SET @v = 'a variable''s', timestamp = 1795000000; INSERT INTO item (text) VALUES (CONCAT(@v, NOW(), RAND(7)))",
    "SET binlog_format = STATEMENT; CREATE TEMPORARY TABLE t (id INT); INSERT INTO t SELECT id FROM item WHERE id < 20;
     INSERT INTO item (text) SELECT CONCAT('of t ', id) FROM t; DROP TEMPORARY TABLE t",
    "INSERT INTO flat (text) SELECT text FROM item WHERE id < 30; UPDATE flat SET text = 'x' WHERE id = 3",
    "BEGIN; UPDATE account SET money = money - 7 WHERE id = 1; UPDATE account SET money = money + 7 WHERE id = 2; COMMIT",
    "BEGIN; INSERT INTO flat (text) VALUES ('stays'); UPDATE account SET money = 0; ROLLBACK",
    "SET gtid_domain_id = 3; UPDATE account SET money = money - 1 WHERE id = 3; UPDATE account SET money = money + 1 WHERE id = 4",
    "XA START 'one'; UPDATE account SET money = money - 2 WHERE id = 5; XA END 'one'; XA PREPARE 'one'; XA COMMIT 'one';
     XA START 'two'; UPDATE account SET money = 0 WHERE id = 6; XA END 'two'; XA PREPARE 'two'; XA ROLLBACK 'two'",
    "CREATE TABLE made (id INT PRIMARY KEY, KEY (id)) ENGINE=InnoDB SELECT id FROM item WHERE id < 40; ALTER TABLE made ADD COLUMN more VARCHAR(9) DEFAULT 'x';
     RENAME TABLE made TO renamed; TRUNCATE note",
    "CREATE USER u@localhost IDENTIFIED BY 'p'; GRANT SELECT ON shop.* TO u@localhost; CREATE VIEW v AS SELECT id FROM item;
     CREATE PROCEDURE p() SELECT 1; CREATE EVENT e ON SCHEDULE EVERY 1 DAY DO SELECT 1; CREATE TRIGGER t BEFORE INSERT ON flat FOR EACH ROW SET NEW.text = 'triggered'",
    "INSERT INTO flat (text) VALUES ('plain'); DROP USER u@localhost",
    "SET binlog_format = STATEMENT; LOAD DATA LOCAL INFILE '{file}' INTO TABLE item (text)",
    "DROP TABLE renamed; DELETE FROM item WHERE id > 100; INSERT INTO item (text) SELECT REPEAT(MD5(seq), 12) FROM seq_1_to_3000",
];

/// Runs the steps, and tells the server's states.
fn live(site: &Site, steps: &[&str]) -> Vec<Known> {
    let file = site.folder().join("load.txt");
    fs::write(&file, "one line\nand another\n").unwrap();
    let run = |sql: &str| {
        site.server.sql(&format!("USE shop; {}", sql.replace("{file}", file.to_str().unwrap())));
        known(&site.server)
    };
    steps.iter().map(|sql| run(sql)).collect()
}

fn restore(site: &Site, name: &str, arguments: &[&str]) -> (PathBuf, crate::support::binary::Run) {
    let datadir = site.folder().join(name);
    let all = [&["--json", "restore", "--datadir", datadir.to_str().unwrap()], arguments].concat();
    let run = site.haulout.run(all);
    (datadir, run)
}

/// Restores after the last transaction of `moment`'s first domain, and compares.
fn comes_back(site: &Site, name: &str, moment: &Known, last: &str) {
    let (datadir, run) = restore(site, name, &["--to-gtid", last]);
    let run = run.ok();
    assert_eq!(run.summary()["position"]["gtid"], moment.gtid, "{name}");
    let restored = MariaDb::on(&datadir, ServerOptions::new());
    assert_eq!(restored.check_all(), [""; 0], "{name}");
    let users = restored.sql("SELECT COUNT(*) FROM mysql.global_priv WHERE user LIKE 'haulout%'");
    assert_eq!(users.trim(), "0", "an account stays behind");
    assert_eq!(restored.checksums(), moment.checksums, "{name}");
    drop(restored);
    fs::remove_dir_all(datadir).unwrap();
}

/// The transaction that made `after` of `before`; all steps end in one domain.
fn last_of(before: &str, after: &str) -> String {
    after.split(',').find(|gtid| !before.split(',').any(|other| other == *gtid)).unwrap().to_owned()
}

#[test]
fn every_state_of_a_server_comes_back_by_its_gtid() {
    let site = site();
    let mut states = live(&site, &STEPS[..2]);
    site.backed_up(&[]);
    states.extend(live(&site, &STEPS[2..7]));
    site.backed_up(&["--incremental"]);
    site.server.sql("FLUSH BINARY LOGS");
    states.extend(live(&site, &STEPS[7..]));
    let mut stream = Stream::new(&site.repository(), STREAM, &site.server, 3);
    stream.store(&site.server, &["db1-bin.000001", "db1-bin.000002"]);
    for (number, pair) in states.windows(2).enumerate().skip(1) {
        let last = last_of(&pair[0].gtid, &pair[1].gtid);
        comes_back(&site, &format!("state{number}"), &pair[1], &last);
    }
    let before = &states[6];
    let next = last_of(&before.gtid, &states[7].gtid);
    let first = format!("3-1-{}", next.rsplit('-').next().unwrap().parse::<u64>().unwrap() - 1);
    let (datadir, run) = restore(&site, "before", &["--before-gtid", &first]);
    assert_eq!(run.ok().summary()["position"]["gtid"], before.gtid);
    assert_eq!(MariaDb::on(&datadir, ServerOptions::new()).checksums(), before.checksums);
    let (_, run) = restore(&site, "nowhere", &["--to-gtid", "0-1-9999"]);
    assert_says(&run, 2, "transaction 0-1-9999 cannot be restored", "haulout binlog show");
}

/// Whom accounts stand in for, and which roles they have. Who made a role, and may give it, a binary log does not tell.
const GIVEN: &str =
    "SELECT User, Host, Proxied_user FROM mysql.proxies_priv WHERE User IN ('anna', 'bert') ORDER BY 1, 3;
    SELECT User, Role, Admin_option FROM mysql.roles_mapping WHERE User <> 'root' ORDER BY 1, 2;
    SELECT User, is_role, default_role FROM mysql.user WHERE User NOT LIKE 'mariadb%' ORDER BY 1, 2";

#[test]
fn what_accounts_were_given_comes_back_roles_and_whom_they_stand_in_for_too() {
    let site = site();
    site.server.sql(
        "CREATE ROLE old; CREATE ROLE other; CREATE USER anna@localhost; CREATE USER bert@localhost;
         GRANT other TO anna@localhost",
    );
    site.backed_up(&[]);
    let steps = [
        "GRANT old TO anna@localhost; SET DEFAULT ROLE old FOR anna@localhost; REVOKE other FROM anna@localhost",
        "CREATE ROLE new; GRANT SELECT ON shop.* TO new; GRANT new TO bert@localhost; GRANT old TO bert@localhost WITH ADMIN OPTION;
         GRANT other TO new; GRANT PROXY ON anna@localhost TO bert@localhost WITH GRANT OPTION",
        "DROP ROLE other; REVOKE PROXY ON anna@localhost FROM bert@localhost; DROP USER bert@localhost",
    ];
    let states: Vec<_> =
        steps.iter().map(|step| (live(&site, &[step]).remove(0).gtid, site.server.sql(GIVEN))).collect();
    let mut stream = Stream::new(&site.repository(), STREAM, &site.server, 2);
    stream.store(&site.server, &["db1-bin.000001"]);
    for (gtid, given) in &states {
        let (datadir, run) = restore(&site, "then", &["--to-gtid", gtid]);
        run.ok();
        assert_eq!(MariaDb::on(&datadir, ServerOptions::new()).sql(GIVEN), *given, "{gtid}");
        fs::remove_dir_all(datadir).unwrap();
    }
}

#[test]
fn a_moment_of_a_server_that_encrypts_its_tables_comes_back() {
    let folder = scratch();
    let keys = folder.path().join("keys");
    let options = ServerOptions::new().keys(&keys);
    let site = site_with(options.argument("--innodb-encrypt-tables=ON").argument("--innodb-encrypt-log=ON"));
    site.backed_up(&[]);
    let steps = [
        "INSERT INTO item (text) VALUES ('in an encrypted table'); UPDATE account SET money = 7 WHERE id = 1",
        "CREATE TABLE secret (id INT PRIMARY KEY, t TEXT) ENCRYPTED=YES ENCRYPTION_KEY_ID=1; INSERT INTO secret VALUES (1, 'x')",
        "DROP TABLE secret",
    ];
    let states = live(&site, &steps);
    let mut stream = Stream::new(&site.repository(), STREAM, &site.server, 2);
    stream.store(&site.server, &["db1-bin.000001"]);
    let last = last_of(&states[0].gtid, &states[1].gtid);
    let (datadir, run) = restore(&site, "then", &["--to-gtid", &last]);
    assert_eq!(run.ok().summary()["position"]["gtid"], states[1].gtid);
    let restored = MariaDb::on(&datadir, ServerOptions::new().keys(&keys));
    assert_eq!(restored.checksums(), states[1].checksums);
    assert_eq!(restored.check_all(), [""; 0]);
    // What the replay wrote is encrypted, too.
    restored.sql("FLUSH TABLES shop.secret FOR EXPORT; UNLOCK TABLES");
    let encrypted = "SELECT COUNT(*) FROM information_schema.innodb_tablespaces_encryption WHERE name IN ('shop/secret', 'shop/item') AND encryption_scheme = 1";
    assert_eq!(restored.sql(encrypted).trim(), "2");
}

/// Statements at seconds of their own, by the clock that the session says it has.
fn at(second: u32, sql: &str) -> String {
    format!("SET timestamp = {}; {sql}", NOON + second)
}

/// 2026-11-22T12:00:00Z.
const NOON: u32 = 1_795_348_800;

#[test]
fn a_time_is_the_end_of_its_second_and_what_cannot_be_restored_is_refused_with_what_can() {
    let site = site();
    // The backup says that it is of today; what the server did, that it was later.
    site.backed_up(&[]);
    let later = |second: u32| format!("2030-01-01T00:00:{second:02}Z");
    let year_2030 = 1_893_456_000 - NOON;
    let insert = |second: u32| at(year_2030 + second, "INSERT INTO item (text) VALUES ('x')");
    let steps: Vec<String> = [10, 20, 20, 21, 30].map(insert).into();
    let states = live(&site, &steps.iter().map(String::as_str).collect::<Vec<_>>());
    let mut stream = Stream::new(&site.repository(), STREAM, &site.server, 2);
    stream.store(&site.server, &["db1-bin.000001"]);
    for (second, state) in [(10, 0), (19, 0), (20, 2), (21, 3), (29, 3), (30, 4)] {
        let (datadir, run) = restore(&site, "then", &["--to-time", &later(second)]);
        assert_eq!(run.ok().summary()["position"]["gtid"], states[state].gtid, "second {second}");
        let restored = MariaDb::on(&datadir, ServerOptions::new());
        assert_eq!(restored.checksums(), states[state].checksums, "second {second}");
        drop(restored);
        fs::remove_dir_all(datadir).unwrap();
    }
    let (datadir, run) = restore(&site, "dry", &["--to-time", &later(20), "--dry-run"]);
    let run = run.ok();
    let replay = &run.summary()["replay"];
    assert_eq!(replay["gtid"], states[2].gtid);
    assert_eq!((&replay["last"]["time"], &replay["next"]["time"]), (&later(20).into(), &later(21).into()), "{replay}");
    assert_eq!(replay["next"]["gtid"], last_of(&states[2].gtid, &states[3].gtid));
    assert!(!datadir.exists());
    // Without an offset a time is of this machine's zone.
    let (_, run) = restore(&site, "dry", &["--to-time", "2030-01-01 00:00:20", "--dry-run"]);
    assert!(run.stdout.contains("restoring to the end of second 2030-01-01 00:00:20 UTC"), "{}", run.stdout);

    let (_, run) = restore(&site, "late", &["--to-time", &later(31)]);
    let last = "the last moment before it that can is 2030-01-01T00:00:30Z";
    assert_says(&run, 2, last, "haulout list --windows");
    let (_, run) = restore(&site, "early", &["--to-time", "2020-01-01T00:00:00Z"]);
    assert_says(
        &run,
        2,
        "2020-01-01T00:00:00Z cannot be restored: the first moment that can is",
        "haulout list --windows",
    );
    let place = site.server.sql("SHOW MASTER STATUS");
    let end: u64 = place.split_whitespace().nth(1).unwrap().parse().unwrap();
    let (_, run) = restore(&site, "inside", &["--to-position", &format!("db1-bin.000001:{}", end - 7)]);
    assert_says(&run, 2, "is inside of a transaction", "name one of the two");
    let (datadir, run) = restore(&site, "place", &["--to-position", &format!("db1-bin.000001:{end}")]);
    assert_eq!(run.ok().summary()["position"]["gtid"], states[4].gtid);
    assert_eq!(MariaDb::on(&datadir, ServerOptions::new()).checksums(), states[4].checksums);

    let run = site.haulout.run(["--json", "list", "--windows"]).ok();
    let window = run.message("window");
    assert_eq!((&window["to"], &window["gtid"]), (&later(30).into(), &states[4].gtid.clone().into()), "{window}");
    assert_eq!(run.summary()["windows"], 1);
}

#[test]
fn after_a_failover_the_history_goes_on_with_the_new_server_and_what_was_lost_is_not_part_of_it() {
    let mut site = site_with(ServerOptions::new().argument("--gtid-strict-mode=ON").argument("--log-bin-compress=ON"));
    site.backed_up(&[]);
    live(&site, &STEPS[..1]);
    // The replica has got this far when the old server is lost.
    let begun = known(&site.server);
    site.server.stop();
    let kept = site.folder().join("new");
    crate::support::server::copy(site.server.datadir(), &kept);
    site.server.restart();
    let lost = live(&site, &["INSERT INTO item (text) VALUES ('nobody else got this')", STEPS[5]]);
    let mut old = Stream::new(&site.repository(), STREAM, &site.server, 1);
    old.store(&site.server, &["db1-bin.000001", "db1-bin.000002"]);
    let options = ServerOptions::new().argument("--log-bin=db1-bin").argument("--server-id=2");
    let old_server = std::mem::replace(&mut site.server, MariaDb::on(&kept, options));
    // The same file names as on the old one, and other contents.
    let states = live(&site, &[STEPS[0], STEPS[5], STEPS[9]]);
    let mut new = Stream::new(&site.repository(), "20261122T030000Z-aaaaaa", &site.server, 1);
    new.begin_at(&begun.gtid);
    new.store(&site.server, &["db1-bin.000002"]);
    drop(old_server);
    for (number, state) in states.iter().enumerate() {
        let own = state.gtid.split(',').find(|gtid| gtid.starts_with("0-2-")).unwrap();
        comes_back(&site, &format!("new{number}"), state, own);
    }
    // What the old server alone had is still there for who asks for it by name.
    let last = lost[1].gtid.split(',').find(|gtid| gtid.starts_with("0-1-")).unwrap();
    comes_back(&site, "lost", &lost[1], last);
    let run = site.haulout.run(["--json", "list", "--windows"]).ok();
    assert_eq!(run.message("window")["streams"].as_array().unwrap().len(), 2, "{}", run.stdout);
    // A backup of the new server is one of the same history.
    site.backed_up(&["--full"]);
    let more = live(&site, &[STEPS[4]]);
    let mut next = Stream::new(&site.repository(), "20261122T040000Z-bbbbbb", &site.server, 1);
    site.server.sql("FLUSH BINARY LOGS");
    next.begin_at(&begun.gtid);
    next.store(&site.server, &["db1-bin.000002"]);
    let own = more[0].gtid.split(',').find(|gtid| gtid.starts_with("0-2-")).unwrap();
    comes_back(&site, "more", &more[0], own);
}

#[test]
fn a_stream_that_goes_on_where_another_ended_is_one_history_with_it() {
    let site = site();
    site.backed_up(&[]);
    live(&site, &STEPS[..1]);
    site.server.sql("FLUSH BINARY LOGS");
    let mut first = Stream::new(&site.repository(), STREAM, &site.server, 1);
    first.store(&site.server, &["db1-bin.000001"]);
    let middle = known(&site.server);
    let states = live(&site, &STEPS[4..6]);
    let mut second = Stream::new(&site.repository(), "20261122T030000Z-aaaaaa", &site.server, 1);
    second.begin_at(&middle.gtid);
    second.continues = Some(first.link());
    second.store(&site.server, &["db1-bin.000002"]);
    comes_back(&site, "second", &states[1], &states[1].gtid);
    comes_back(&site, "first", &middle, &middle.gtid);
    // A segment that is gone takes what comes after it along, and no more.
    let gone = site.objects("binlogs").into_iter().find(|path| path.to_str().unwrap().contains("aaaaaa/00000000-2"));
    fs::remove_file(gone.unwrap()).unwrap();
    let (_, run) = restore(&site, "gone", &["--to-gtid", &states[1].gtid]);
    assert_says(&run, 2, "no backup leads to it", "haulout binlog show");
    comes_back(&site, "still", &middle, &middle.gtid);
}

#[test]
fn a_replay_that_is_killed_begins_anew_and_each_transaction_comes_once() {
    let site = site();
    site.backed_up(&[]);
    let states =
        live(&site, &["INSERT INTO item (text) SELECT REPEAT(MD5(seq), 12) FROM seq_1_to_9000", STEPS[5], STEPS[4]]);
    let mut stream = Stream::new(&site.repository(), STREAM, &site.server, 2);
    stream.store(&site.server, &["db1-bin.000001"]);
    let datadir = site.folder().join("killed");
    let arguments = ["--json", "restore", "--datadir", datadir.to_str().unwrap(), "--to-gtid", &states[2].gtid];
    for said in ["starting a server", "\"phase\":\"replay\""] {
        let mut running = site.haulout.spawn(arguments);
        running.wait_for("the replay", |run| run.has_said(said));
        running.kill9();
        assert!(!datadir.exists());
    }
    site.haulout.run(arguments).ok();
    assert_eq!(MariaDb::on(&datadir, ServerOptions::new()).checksums(), states[2].checksums);
}

#[test]
fn a_moment_is_restored_over_what_is_there_and_as_a_replica_begins_at_it() {
    let site = site();
    site.backed_up(&[]);
    let states = live(&site, &[STEPS[0], STEPS[9], STEPS[13]]);
    let mut stream = Stream::new(&site.repository(), STREAM, &site.server, 2);
    stream.store(&site.server, &["db1-bin.000001"]);
    let (datadir, run) = restore(&site, "again", &["--to-gtid", &states[0].gtid]);
    run.ok();
    let more = ["--reuse", "--to-gtid", &states[1].gtid, "--as-replica", "--source-host", "db1"];
    let (_, run) = restore(&site, "again", &more);
    let run = run.ok();
    let told = run.summary()["replica"]["statements"].to_string();
    assert!(told.contains(&format!("gtid_slave_pos = '{}'", states[1].gtid)), "{told}");
    fs::remove_file(datadir.join("haulout-replica.sql")).unwrap();
    let restored = MariaDb::on(&datadir, ServerOptions::new());
    assert_eq!(restored.checksums(), states[1].checksums);
    assert_eq!(restored.check_all(), [""; 0]);
}
