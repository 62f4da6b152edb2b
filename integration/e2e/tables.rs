//! What is inside of a backup, and single tables of it.

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use serde_json::Value;

use crate::support::{MariaDb, ServerOptions, Site, site::assert_says};

/// Tables of every kind that a server of these tests can hold, with names of every kind.
const ALL_KINDS: &str = "CREATE DATABASE `sp ace é`; USE shop;
    CREATE TABLE `o rder$ü` (id INT PRIMARY KEY, v TEXT, FULLTEXT (v)) ENGINE=InnoDB;
    INSERT INTO `o rder$ü` VALUES (1, 'hello world');
    CREATE TABLE part (id INT PRIMARY KEY) ENGINE=InnoDB PARTITION BY RANGE (id) SUBPARTITION BY HASH (id) SUBPARTITIONS 2
        (PARTITION p0 VALUES LESS THAN (100), PARTITION `p 1` VALUES LESS THAN MAXVALUE);
    CREATE TABLE my (id INT) ENGINE=MyISAM;
    CREATE TABLE merged (id INT) ENGINE=MERGE UNION=(my);
    CREATE TABLE comma (id INT NOT NULL) ENGINE=CSV; INSERT INTO comma VALUES (7);
    CREATE TABLE heap (id INT) ENGINE=MEMORY;
    CREATE VIEW seen AS SELECT * FROM item;
    CREATE SEQUENCE counter;
    CREATE TABLE `sp ace é`.`a/b.c#d` (id INT PRIMARY KEY) ENGINE=InnoDB; INSERT INTO `sp ace é`.`a/b.c#d` VALUES (5);
    CREATE TABLE `select` (id INT PRIMARY KEY) ENGINE=InnoDB;
    FLUSH TABLES `o rder$ü`, part, counter, `sp ace é`.`a/b.c#d`, `select` FOR EXPORT; UNLOCK TABLES;";

/// The `table` lines of `show --tables`, by name, outside of the server's own schemas.
fn tables(site: &Site) -> BTreeMap<String, Value> {
    let run = site.haulout.run(["--json", "show", "latest", "--tables"]).ok();
    let lines =
        run.messages.into_iter().filter(|message| message["message_type"] == "table" && message["own"] == false);
    lines
        .map(|line| (format!("{}.{}", line["schema"].as_str().unwrap(), line["table"].as_str().unwrap()), line))
        .collect()
}

#[test]
fn every_kind_of_table_is_listed_under_its_own_name_with_its_engine() {
    let site = Site::new();
    site.server.sql(ALL_KINDS);
    let backup = site.backed_up(&[]);
    let found = tables(&site);
    let engines: BTreeMap<&str, &str> = found
        .iter()
        .filter(|(name, _)| !name.contains(".FTS_"))
        .map(|(name, line)| (name.as_str(), line["engine"].as_str().unwrap()))
        .collect();
    let expected = [
        ("shop.comma", "csv"),
        ("shop.counter", "innodb"),
        ("shop.heap", "no_files"),
        ("shop.item", "innodb"),
        ("shop.merged", "merge"),
        ("shop.my", "myisam"),
        ("shop.note", "aria"),
        ("shop.o rder$ü", "innodb"),
        ("shop.part", "innodb"),
        ("shop.seen", "view"),
        ("shop.select", "innodb"),
        ("sp ace é.a/b.c#d", "innodb"),
    ];
    assert_eq!(engines, BTreeMap::from(expected));
    let partitions = &found["shop.part"]["partitions"];
    let names: Vec<_> = partitions.as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    assert_eq!(names, ["p 1/p 1sp0", "p 1/p 1sp1", "p0/p0sp0", "p0/p0sp1"]);
    assert!(found.keys().any(|name| name.starts_with("shop.FTS_")), "{found:?}");
    // The same names as the server has them, views and all.
    let names = site.server.sql(
        "SELECT CONCAT(table_schema, '.', table_name) FROM information_schema.tables
         WHERE table_schema IN ('shop', 'sp ace é') ORDER BY 1",
    );
    let mut listed: Vec<&str> = engines.into_keys().collect();
    let mut served: Vec<&str> = names.lines().collect();
    listed.sort_unstable();
    served.sort_unstable();
    assert_eq!(listed, served);

    // Sums: of the tables and the rest, and those of the manifest.
    let run = site.haulout.run(["--json", "show", "latest", "--tables"]).ok();
    let summary = run.summary();
    for sum in ["logical_bytes", "stored_bytes"] {
        assert_eq!(summary[sum], backup["sizes"][sum], "{summary}");
        let lines = run.messages.iter().filter(|message| message["message_type"] == "table");
        let of_tables: u64 = lines.map(|line| line[sum].as_u64().unwrap()).sum();
        assert_eq!(of_tables + summary[format!("other_{sum}")].as_u64().unwrap(), summary[sum].as_u64().unwrap());
    }
    assert_eq!(
        summary["files"].as_u64().unwrap(),
        backup["spaces"].as_u64().unwrap() + backup["files"].as_u64().unwrap()
    );
    let ibd = site.server.datadir().join("shop/item.ibd");
    let frm = site.server.datadir().join("shop/item.frm");
    let on_disk = fs::metadata(ibd).unwrap().len() + fs::metadata(frm).unwrap().len();
    assert_eq!(found["shop.item"]["logical_bytes"], on_disk);
}

#[test]
fn names_of_files_are_those_that_the_server_gives_them() {
    // Every character of the basic plane that a name can hold, by the server's own conversion.
    let server = MariaDb::start();
    let answer = server.sql(
        "SET NAMES utf8mb4; SELECT seq, CONVERT(CONVERT(CONVERT(CHAR(seq USING utf32) USING utf8mb4) USING filename) USING binary)
         FROM mysql.seq_1_to_65535 WHERE seq NOT BETWEEN 55296 AND 57343",
    );
    let mut compared = 0;
    for line in answer.lines() {
        let (number, file) = line.split_once('\t').unwrap();
        let name = char::from_u32(number.parse().unwrap()).unwrap().to_string();
        assert_eq!(haulout::mariadb::filename::encode(&name).as_deref(), Some(file), "{number}");
        assert_eq!(haulout::mariadb::filename::decode(file).as_deref(), Some(name.as_str()), "{number}");
        compared += 1;
    }
    assert_eq!(compared, 65_535 - 2048);
}

/// Names of the files in `directory` that are `schema`'s, sorted.
fn files(directory: &Path, schema: &str) -> Vec<String> {
    let entries = fs::read_dir(directory.join(schema)).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

#[test]
fn single_tables_are_fetched_and_the_stock_tool_exports_them_for_another_server() {
    let site = Site::new();
    site.server.sql(ALL_KINDS);
    site.server.sql("CREATE TABLE shop.items_other (id INT PRIMARY KEY) ENGINE=InnoDB");
    site.backed_up(&[]);
    // An incremental, with redo log for tables that are not fetched.
    site.server.sql(
        "USE shop; INSERT INTO shop.items_other SELECT seq FROM seq_1_to_500; CREATE TABLE shop.late (id INT PRIMARY KEY) ENGINE=InnoDB;
         INSERT INTO shop.late VALUES (1)",
    );
    site.change();
    site.backed_up(&[]);
    let target = site.folder().join("tables");
    let arguments = ["--tables", "shop.item", "--tables", "sp?ace*.a*"];
    let run = site.haulout.run(["--json", "fetch", "--target", &text(&target)].into_iter().chain(arguments)).ok();
    assert_eq!(run.summary()["tables"], 2);
    assert_eq!(files(&target, "sp@0020ace@0020@0p"), ["a@002fb@002ec@0023d.frm", "a@002fb@002ec@0023d.ibd", "db.opt"]);
    let shop: Vec<_> = files(&target, "shop").into_iter().filter(|name| !name.starts_with("FTS_")).collect();
    assert_eq!(shop, ["db.opt", "item.frm", "item.ibd"]);
    assert!(!target.join("sys").exists() && target.join("mysql/innodb_table_stats.ibd").exists());

    let mut export = Command::new("mariadb-backup");
    export.args(["--no-defaults", "--prepare", "--export"]).arg(format!("--target-dir={}", target.display()));
    let output = export.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.contains("completed OK!"), "{said}");
    let other = MariaDb::start();
    other.sql(
        "CREATE DATABASE o; CREATE TABLE o.item (id INT PRIMARY KEY AUTO_INCREMENT, text VARCHAR(400)) ENGINE=InnoDB;
         ALTER TABLE o.item DISCARD TABLESPACE",
    );
    for ending in ["ibd", "cfg"] {
        let name = format!("item.{ending}");
        fs::copy(target.join("shop").join(&name), other.datadir().join("o").join(&name)).unwrap();
    }
    other.sql("ALTER TABLE o.item IMPORT TABLESPACE");
    let checksum = |server: &MariaDb, table: &str| {
        let line = server.sql(&format!("CHECKSUM TABLE {table}"));
        line.trim().rsplit_once('\t').unwrap().1.to_owned()
    };
    assert_eq!(checksum(&other, "o.item"), checksum(&site.server, "shop.item"));
    assert_eq!(other.check_all(), [""; 0]);
}

#[test]
fn single_tables_are_never_taken_for_a_datadir() {
    let site = Site::new();
    let backup = site.backed_up(&[]);
    let (target, datadir) = (site.folder().join("tables"), site.folder().join("data"));
    let (target_text, datadir_text) = (text(&target), text(&datadir));
    site.haulout.run(["fetch", "--target", &target_text, "--tables", "shop.item"]).ok();
    let steps = |command: &'static str| {
        site.haulout.run(["--json", command, "--target", &target_text, "--datadir", &datadir_text]).exits(2)
    };
    let refused = site.haulout.run(["--json", "prepare", "--target", &target_text]).exits(2);
    assert_says(&refused, 2, "single tables", "--export");
    for command in ["move-back", "copy-back"] {
        assert_says(&steps(command), 2, "single tables", "fetch without --tables");
    }
    let prepared = site.haulout.run(["--json", "prepare", "--export", "--target", &target_text]).ok();
    assert_eq!(prepared.summary()["exported"], true);
    assert!(target.join("shop/item.cfg").exists());
    for command in ["move-back", "copy-back"] {
        assert_says(&steps(command), 2, "single tables", "fetch without --tables");
    }
    // A restore that gathers its files there takes none of them.
    let id = backup["backup_id"].as_str().unwrap();
    let restore = ["restore", "--backup", id, "--datadir", &datadir_text, "--work-dir", &target_text];
    site.haulout.run(restore).ok();
    let expected = site.server.checksums();
    let mut restored = MariaDb::on(&datadir, ServerOptions::new());
    assert_eq!(restored.checksums(), expected);
    restored.stop();

    // A whole backup that was prepared for export is none either.
    let whole = text(&site.folder().join("whole"));
    site.haulout.run(["fetch", "--target", &whole]).ok();
    site.haulout.run(["prepare", "--export", "--target", &whole]).ok();
    let other = text(&site.folder().join("other"));
    let run = site.haulout.run(["--json", "move-back", "--target", &whole, "--datadir", &other]).exits(2);
    assert_says(&run, 2, "--export", "without --export");
}

#[test]
fn a_pattern_that_means_no_table_says_what_there_is() {
    let site = Site::new();
    site.backed_up(&[]);
    let target = site.folder().join("none");
    let fetch = |pattern: &str| site.haulout.run(["--json", "fetch", "--target", &text(&target), "--tables", pattern]);
    assert_says(&fetch("shop.itme"), 2, "has no table shop.itme", "did you mean shop.item?");
    assert_says(&fetch("shop.x*"), 2, "has no table shop.x*", "show ID --tables");
    fetch("item").exits(2);
    assert!(!target.exists(), "something was fetched");
}
