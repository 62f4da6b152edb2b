//! One table of a backup comes back into a running server, or everything stays as it was.

use std::{fs, path::PathBuf, time::Duration};

use crate::support::{MariaDb, ServerOptions, Site, Tool, binary::Run, site::assert_says, wait};

/// Arguments of `restore-table` on the site's server, with more.
fn arguments(site: &Site, table: &str, more: &[&str]) -> Vec<String> {
    let mut all: Vec<String> = ["--json", "restore-table", "--table", table].map(str::to_owned).into();
    // The account can be another one.
    let flags = site.server.flags();
    all.extend(flags.into_iter().filter(|flag| !(flag.starts_with("--user") && more.contains(&"--user"))));
    all.extend(more.iter().map(|argument| (*argument).to_owned()));
    all
}

fn restore(site: &Site, table: &str, more: &[&str]) -> Run {
    site.haulout.run(arguments(site, table, more))
}

fn checksum(server: &MariaDb, table: &str) -> String {
    server.sql(&format!("CHECKSUM TABLE {table}")).trim().rsplit_once('\t').unwrap().1.to_owned()
}

/// All that the server holds and could have been left half done: tables, files of schemas, directories beside the datadir.
fn state(site: &Site) -> (Vec<String>, Vec<PathBuf>) {
    let tables = site.server.sql(
        "SELECT table_schema, table_name FROM information_schema.tables
         WHERE table_schema NOT IN ('mysql', 'sys', 'information_schema', 'performance_schema') ORDER BY 1, 2",
    );
    let beside = site.server.datadir().parent().unwrap();
    let mut files: Vec<PathBuf> = fs::read_dir(beside).unwrap().map(|entry| entry.unwrap().path()).collect();
    for entry in fs::read_dir(site.server.datadir()).unwrap().flatten().filter(|entry| entry.path().is_dir()) {
        files.extend(fs::read_dir(entry.path()).unwrap().map(|entry| entry.unwrap().path()));
    }
    // The backup's own view of the server's schemas is of no interest here.
    files.retain(|file| !["/mysql/", "/sys/"].iter().any(|own| file.to_string_lossy().contains(own)));
    files.sort();
    (tables.lines().map(str::to_owned).collect(), files)
}

/// Panics unless the restore ends with `code`, says why, and leaves everything as it was.
#[track_caller]
fn refuses(site: &Site, table: &str, more: &[&str], code: i32, says: &str, hint: &str) {
    let (before, checksums) = (state(site), site.server.checksums());
    let run = restore(site, table, more).exits(code);
    assert_says(&run, code, says, hint);
    assert_eq!(state(site), before);
    assert_eq!(site.server.checksums(), checksums);
}

#[test]
fn a_table_comes_back_as_it_was_and_the_next_backup_is_a_full_one() {
    let site = Site::new();
    let first = site.backed_up(&[]);
    let of_first = checksum(&site.server, "shop.item");
    site.change();
    site.backed_up(&["--incremental"]);
    let of_second = checksum(&site.server, "shop.item");
    site.server.sql("DELETE FROM shop.item WHERE id % 2 = 0");
    let id = first["backup_id"].as_str().unwrap();

    // Beside the living one, from either backup.
    let run = restore(&site, "shop.item", &["--as", "shop.before", "--backup", id]).ok();
    assert_eq!((&run.summary()["target"], &run.summary()["replaced"]), (&"shop.before".into(), &false.into()));
    restore(&site, "shop.item", &["--as", "shop.after"]).ok();
    assert_eq!(checksum(&site.server, "shop.before"), of_first);
    assert_eq!(checksum(&site.server, "shop.after"), of_second);

    // In its place, only when that is said.
    refuses(&site, "shop.item", &[], 2, "shop.item exists and has rows", "--replace");
    let run = restore(&site, "shop.item", &["--replace"]).ok();
    assert_eq!(run.summary()["replaced"], true);
    assert_eq!(checksum(&site.server, "shop.item"), of_second);
    // A table without rows, and one that is not there, need no word.
    site.server.sql("TRUNCATE TABLE shop.before; DROP TABLE shop.after");
    restore(&site, "shop.item", &["--as", "shop.before"]).ok();
    restore(&site, "shop.item", &["--as", "shop.after"]).ok();
    assert_eq!(checksum(&site.server, "shop.before"), of_second);
    assert_eq!(site.server.check_all(), [""; 0]);
    site.server.sql("INSERT INTO shop.item (text) VALUES ('goes on')");
    let (tables, files) = state(&site);
    assert!(!tables.iter().any(|table| table.contains("haulout")), "{tables:?}");
    assert!(!files.iter().any(|file| file.extension().is_some_and(|ending| ending == "cfg")), "{files:?}");

    // What was imported is in no redo log.
    let full = site.needs_full("IMPORT TABLESPACE");
    let datadir = site.folder().join("again");
    let expected = site.server.checksums();
    site.haulout.run(["restore", "--datadir", datadir.to_str().unwrap()]).ok();
    let mut restored = MariaDb::on(&datadir, ServerOptions::new());
    assert_eq!(restored.checksums(), expected, "{full}");
    restored.stop();
}

#[test]
fn tables_of_every_format_come_back_and_open_transactions_do_not() {
    let site = Site::with(ServerOptions::new().argument("--log-bin=binlog").argument("--server-id=7"));
    site.server.sql(
        "CREATE DATABASE `sp ace é`; USE shop;
         CREATE TABLE compressed (id INT PRIMARY KEY, t TEXT) ROW_FORMAT=COMPRESSED KEY_BLOCK_SIZE=4;
         INSERT INTO compressed SELECT seq, REPEAT(MD5(seq), 20) FROM seq_1_to_2000;
         CREATE TABLE redundant (id INT PRIMARY KEY, t TEXT) ROW_FORMAT=REDUNDANT; INSERT INTO redundant VALUES (1, 'x');
         SET GLOBAL innodb_default_row_format = COMPACT;
         CREATE TABLE compact (id INT PRIMARY KEY, t TEXT); INSERT INTO compact VALUES (1, 'x');
         SET GLOBAL innodb_default_row_format = DYNAMIC;
         CREATE TABLE versioned (id INT PRIMARY KEY, x INT) WITH SYSTEM VERSIONING;
         INSERT INTO versioned VALUES (1, 1); UPDATE versioned SET x = 2; DELETE FROM versioned;
         INSERT INTO versioned VALUES (2, 2);
         CREATE TABLE generated (id INT PRIMARY KEY AUTO_INCREMENT, a INT CHECK (a > 0), b INT AS (a * 2) VIRTUAL,
             c INT AS (a * 3) STORED, KEY (b), KEY (c)) COMMENT 'it''s `one`; -- \\\\ é';
         INSERT INTO generated (a) SELECT seq FROM seq_1_to_500;
         CREATE TABLE instant (id INT PRIMARY KEY); INSERT INTO instant VALUES (1);
         ALTER TABLE instant ADD COLUMN x INT DEFAULT 7, ALGORITHM=INSTANT; INSERT INTO instant VALUES (2, 8);
         CREATE TABLE `sp ace é`.`a/b.c#d` (`we ird``ü` INT PRIMARY KEY, `select` GEOMETRY NOT NULL, SPATIAL KEY (`select`));
         INSERT INTO `sp ace é`.`a/b.c#d` VALUES (5, POINT(1, 2));
         CREATE TABLE fixed AS SELECT seq AS id, seq * 3 AS n FROM seq_1_to_1000;
         CREATE TABLE open (id INT PRIMARY KEY, x INT); INSERT INTO open SELECT seq, 0 FROM seq_1_to_1000;
         CREATE TABLE triggered (id INT PRIMARY KEY); INSERT INTO triggered VALUES (1);
         CREATE TRIGGER tr BEFORE INSERT ON triggered FOR EACH ROW SET NEW.id = NEW.id;",
    );
    // A transaction that is open while the backup is taken, and whose pages are on disk.
    let mut session = site.server.client().command();
    let mut session = session.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let input = session.stdin.as_mut().unwrap();
    std::io::Write::write_all(input, b"BEGIN; UPDATE shop.open SET x = 1; SELECT 'updated';\n").unwrap();
    std::io::Write::flush(input).unwrap();
    let mut answer = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(session.stdout.as_mut().unwrap()), &mut answer).unwrap();
    assert_eq!(answer.trim(), "updated");
    site.server.sql("SET GLOBAL innodb_max_dirty_pages_pct = 0");
    site.backed_up(&[]);
    drop(session.stdin.take());
    session.wait().unwrap();
    let log = site.server.sql("SHOW MASTER STATUS");
    for table in ["compressed", "redundant", "compact", "versioned", "generated", "instant", "open", "fixed"] {
        restore(&site, &format!("shop.{table}"), &["--as", &format!("shop.r_{table}")]).ok();
        // CHECKSUM TABLE does not compute virtual columns, and reads what lies there.
        let history = if table == "versioned" { "FOR SYSTEM_TIME ALL ORDER BY id, row_start" } else { "ORDER BY id" };
        let more = if table == "versioned" { ", row_start, row_end" } else { "" };
        let rows = |name: &str| site.server.sql(&format!("SELECT *{more} FROM shop.{name} {history}"));
        assert_eq!(rows(&format!("r_{table}")), rows(table), "{table}");
        let shown = |name: &str| {
            let shown = site.server.sql(&format!("SHOW CREATE TABLE shop.{name}"));
            shown.split_once("CREATE TABLE").unwrap().1.replace(&format!("`{name}`"), "")
        };
        // A row format is said where the server's default is another one; the next number is that of the last row, as
        // after a restart.
        let bare = |text: String| {
            let text = text.replace(" ROW_FORMAT=COMPACT", "");
            text.split(' ').filter(|word| !word.starts_with("AUTO_INCREMENT=")).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(bare(shown(&format!("r_{table}"))), bare(shown(table)));
    }
    // A format that is named would change this sum.
    assert_eq!(checksum(&site.server, "shop.r_fixed"), checksum(&site.server, "shop.fixed"));
    let odd = "sp ace é.a/b.c#d";
    restore(&site, odd, &["--as", "sp ace é.neu ü"]).ok();
    let [found, expected] = ["`sp ace é`.`neu ü`", "`sp ace é`.`a/b.c#d`"].map(|name| checksum(&site.server, name));
    assert_eq!(found, expected);
    let run = restore(&site, "shop.triggered", &["--as", "shop.quiet"]).ok();
    assert_eq!(run.summary()["triggers"][0], "tr");
    assert_eq!(site.server.sql("SELECT COUNT(*) FROM shop.r_versioned FOR SYSTEM_TIME ALL").trim(), "3");
    assert_eq!(site.server.sql("SELECT SUM(x) FROM shop.r_open").trim(), "0");
    assert_eq!(site.server.check_all(), [""; 0]);
    assert_eq!(site.server.sql("SHOW MASTER STATUS"), log, "a replica would be told of files that it does not have");
    site.server.sql(
        "INSERT INTO shop.r_generated (a) VALUES (1); UPDATE shop.r_versioned SET x = 9; DROP DATABASE `sp ace é`",
    );
}

#[test]
fn tables_that_cannot_be_imported_are_refused_by_name() {
    let site = Site::new();
    site.server.sql(
        "USE shop; CREATE TABLE words (id INT PRIMARY KEY, t TEXT, FULLTEXT (t)); INSERT INTO words VALUES (1, 'a word');
         CREATE TABLE child (id INT PRIMARY KEY, item INT, FOREIGN KEY (item) REFERENCES item (id));
         CREATE TABLE part (id INT PRIMARY KEY) PARTITION BY HASH (id) PARTITIONS 3;
         CREATE TABLE my (id INT) ENGINE=MyISAM; CREATE TABLE comma (id INT NOT NULL) ENGINE=CSV;
         CREATE TABLE merged (id INT) ENGINE=MERGE UNION=(my); CREATE TABLE heap (id INT) ENGINE=MEMORY;
         CREATE VIEW seen AS SELECT 1; CREATE SEQUENCE counter;
         CREATE TABLE trx (id INT PRIMARY KEY, s BIGINT UNSIGNED GENERATED ALWAYS AS ROW START,
             e BIGINT UNSIGNED GENERATED ALWAYS AS ROW END, PERIOD FOR SYSTEM_TIME (s, e)) WITH SYSTEM VERSIONING;
         FLUSH TABLES words, child, part, counter, trx FOR EXPORT; UNLOCK TABLES;",
    );
    site.backed_up(&[]);
    for (table, why) in [
        ("words", "FULLTEXT"),
        ("child", "foreign keys"),
        ("part", "it is partitioned, in 3"),
        ("note", "its engine is Aria"),
        ("my", "its engine is MyISAM"),
        ("comma", "its engine is CSV"),
        ("merged", "its engine is MERGE"),
        ("heap", "no file of its own"),
        ("seen", "it is a view"),
        ("counter", "it is a sequence"),
        ("trx", "its history is kept by transactions"),
    ] {
        refuses(&site, &format!("shop.{table}"), &["--as", "shop.other"], 2, why, "mariadb-dump");
    }
    refuses(&site, "mysql.gtid_slave_pos", &["--replace"], 2, "the server's own", "");
    refuses(&site, "shop.itme", &[], 2, "has no table shop.itme", "did you mean shop.item?");
    refuses(&site, "shop.item", &["--as", "nowhere.item"], 23, "no schema nowhere", "CREATE DATABASE");
    // What stands in the place of a table and would be lost.
    refuses(&site, "shop.item", &["--replace"], 2, "a foreign key of table child", "--as");
    refuses(&site, "shop.item", &["--as", "shop.seen", "--replace"], 2, "it is a view", "--as");
    site.server.sql(
        "CREATE TABLE shop.t (id INT); CREATE TRIGGER shop.tr BEFORE INSERT ON shop.t FOR EACH ROW SET NEW.id = 1",
    );
    refuses(&site, "shop.item", &["--as", "shop.t"], 2, "trigger tr", "drop the trigger");
    site.haulout.run(arguments(&site, "shop.i*", &[])).exits(2);
}

#[test]
fn a_dry_run_tells_and_does_nothing() {
    let site = Site::new();
    site.backed_up(&[]);
    let before = state(&site);
    let run = restore(&site, "shop.item", &["--dry-run", "--replace"]).ok();
    let plan = run.summary();
    assert_eq!((&plan["dry_run"], &plan["replaces"]), (&true.into(), &true.into()));
    assert!(plan["fetched_bytes"].as_u64().unwrap() > 0 && plan["free_bytes"].as_u64().unwrap() > 0, "{plan}");
    assert_eq!(state(&site), before);
    refuses(&site, "shop.item", &["--dry-run"], 2, "exists and has rows", "--replace");
}

#[test]
fn an_account_of_the_named_privileges_is_enough_and_one_of_less_is_told() {
    let site = Site::with(ServerOptions::new().argument("--log-bin=binlog"));
    site.backed_up(&[]);
    site.server.sql(
        "CREATE USER less@localhost; GRANT SELECT ON shop.* TO less@localhost; CREATE USER just@localhost;
         GRANT SELECT, INSERT, CREATE, ALTER, DROP, TRIGGER ON shop.* TO just@localhost; GRANT BINLOG ADMIN ON *.* TO just@localhost",
    );
    refuses(&site, "shop.item", &["--as", "shop.other", "--user", "less"], 23, "privilege", "BINLOG ADMIN");
    restore(&site, "shop.item", &["--as", "shop.other", "--user", "just"]).ok();
    restore(&site, "shop.item", &["--replace", "--user", "just"]).ok();
    assert_eq!(site.server.check_all(), [""; 0]);
}

#[test]
fn a_server_whose_files_are_elsewhere_gets_nothing() {
    let site = Site::with(ServerOptions::new().tcp());
    site.backed_up(&[]);
    site.server.sql("CREATE USER far@127.0.0.1; GRANT ALL ON *.* TO far@127.0.0.1");
    let before = state(&site);
    let port = site.server.port().to_string();
    // Its path leads elsewhere, as on another machine; the server itself has the directory open.
    let (datadir, away) = (site.server.datadir().to_owned(), site.server.datadir().with_extension("away"));
    fs::rename(&datadir, &away).unwrap();
    fs::create_dir(&datadir).unwrap();
    let work = site.folder().join("work");
    let run = site.haulout.run(
        [
            "--json",
            "restore-table",
            "--table",
            "shop.item",
            "--as",
            "shop.other",
            "--user",
            "far",
            "--host",
            "127.0.0.1",
        ]
        .into_iter()
        .chain(["--port", &port, "--work-dir", work.to_str().unwrap()]),
    );
    let found = fs::read_dir(&datadir).unwrap().count();
    fs::remove_dir_all(&datadir).unwrap();
    fs::rename(&away, &datadir).unwrap();
    assert_says(&run.exits(2), 2, "are not in", "own machine");
    assert_eq!(found, 0, "something was written to a directory that is not the server's");
    assert_eq!(state(&site), before);
    assert!(!site.folder().join("work").exists());
}

/// A `mariadb-backup` that does `spoils` in the directory after an export.
fn spoiling(spoils: &str) -> Tool {
    Tool::new(&format!(
        "\"$real\" \"$@\" || exit\ncase \"$*\" in *--export*)\n  for arg; do case $arg in --target-dir=*) cd \"${{arg#*=}}\";; \
         esac; done\n  {spoils};;\nesac"
    ))
}

#[test]
fn whatever_fails_on_the_way_leaves_the_server_as_it_was() {
    let site = Site::new();
    site.backed_up(&[]);
    for (spoils, code, says) in [
        // The server reads every page when it imports.
        (
            "dd if=/dev/zero of=shop/item.ibd bs=1 seek=$((16384 * 4 + 50)) count=100 conv=notrunc 2>/dev/null",
            23,
            "import",
        ),
        ("printf garbage > shop/item.cfg", 23, "import"),
        ("rm shop/item.cfg", 23, "wrote no"),
        ("rm shop/item.frm", 23, "definition"),
        ("rm aria_log_control backup-my.cnf", 23, "scratch server"),
        ("exit 1", 23, "failed"),
    ] {
        let tool = spoiling(spoils);
        let flag = tool.flag();
        for more in [&["--as", "shop.other"][..], &["--replace"]] {
            let more: Vec<&str> = more.iter().copied().chain([flag.as_str()]).collect();
            println!("{spoils} {more:?}");
            refuses(&site, "shop.item", &more, code, says, "");
        }
    }
    let packs = site.objects("packs");
    let largest = packs.iter().max_by_key(|pack| fs::metadata(pack).unwrap().len()).unwrap();
    let mut bytes = fs::read(largest).unwrap();
    let middle = bytes.len() / 3;
    bytes[middle] ^= 1;
    fs::write(largest, &bytes).unwrap();
    refuses(&site, "shop.item", &["--replace"], 20, "damaged", "check --read-data");
    bytes[middle] ^= 1;
    fs::write(largest, &bytes).unwrap();
    restore(&site, "shop.item", &["--replace"]).ok();
}

#[test]
fn a_run_that_is_stopped_or_killed_leaves_nothing_in_the_way_of_the_next() {
    let site = Site::new();
    site.backed_up(&[]);
    let beside = PathBuf::from(format!("{}.haulout-table", site.server.datadir().display()));
    let (before, checksums) = (state(&site), site.server.checksums());
    // The tool goes on until it is ended, or its directory is gone: nobody ends the one of the run that is killed.
    let tool = spoiling("touch here; while [ -e here ]; do sleep 1; done; exit 1");
    let run = || site.haulout.spawn(arguments(&site, "shop.item", &["--replace", &tool.flag()]));
    let mut running = run();
    running.wait_for("the prepare", |_| beside.join("here").exists());
    running.interrupt();
    running.wait().exits(130);
    assert_eq!(state(&site), before);
    let mut running = run();
    running.wait_for("the prepare", |_| beside.join("here").exists());
    running.kill9();
    assert_eq!(site.server.checksums(), checksums);
    restore(&site, "shop.item", &["--replace"]).ok();
    assert_eq!(state(&site), before);
    assert_eq!(site.server.check_all(), [""; 0]);
}

/// The server's own table is whole whenever the run dies, and the next run works and tells what the dead one left.
#[test]
fn a_run_that_is_killed_while_the_server_imports_leaves_the_table_as_it_was() {
    let site = Site::new();
    site.server.sql(
        "USE shop; CREATE TABLE shop.big LIKE shop.item;
         INSERT INTO shop.big (text) SELECT REPEAT(MD5(seq), 12) FROM seq_1_to_60000",
    );
    site.backed_up(&[]);
    site.server.sql("UPDATE shop.big SET text = 'later' WHERE id < 100");
    let before = checksum(&site.server, "shop.big");
    let unfinished = || {
        site.server
            .sql("SELECT table_name FROM information_schema.tables WHERE table_name LIKE 'haulout\\_%'")
            .trim()
            .to_owned()
    };
    let mut run = site.haulout.spawn(arguments(&site, "shop.big", &["--replace"]));
    run.wait_for("the working table", |_| !unfinished().is_empty());
    run.kill9();
    assert_eq!(checksum(&site.server, "shop.big"), before);
    // The statement that the server was at may still be under way.
    let client =
        "SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE '%haulout_new%' AND id <> CONNECTION_ID()";
    wait::until("the import's end", Duration::from_secs(60), || (site.server.sql(client).trim() == "0").then_some(()));
    let left = unfinished();
    assert!(left.starts_with("haulout_new_"), "{left:?}");
    let again = restore(&site, "shop.big", &["--replace"]).ok();
    let told = format!("shop.{left} is left of a run that was killed");
    assert!(again.messages.iter().any(|message| message["message"].to_string().contains(&told)), "{again:?}");
    assert_ne!(checksum(&site.server, "shop.big"), before);
    site.server.sql(&format!("DROP TABLE shop.{left}"));
    let backup = site.backed_up(&["--full"]);
    assert_eq!(backup["kind"], "full");
}
