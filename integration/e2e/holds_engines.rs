//! What a server can hold: tables of every engine, sequences, and engines that are refused.

use crate::support::{Lineage, ServerOptions, Site};

const ROWS: &str = "(id INT NOT NULL PRIMARY KEY AUTO_INCREMENT, text VARCHAR(400), KEY (text(50)))";

fn fill(table: &str, rows: u32) -> String {
    format!("INSERT INTO {table} (text) SELECT CONCAT(MD5(RAND()), REPEAT('x', seq % 200)) FROM seq_1_to_{rows};")
}

fn change(table: &str) -> String {
    format!(
        "UPDATE {table} SET text = REVERSE(text) WHERE id % 3 = 0; DELETE FROM {table} WHERE id % 7 = 1;{}",
        fill(table, 200)
    )
}

#[test]
fn tables_of_every_engine_and_sequences_restore() {
    let options = ServerOptions::new().plugin("ha_archive");
    let site = Site::with(options.clone());
    let tables = [
        ("aria", "ENGINE=Aria TRANSACTIONAL=1"),
        ("aria_loose", "ENGINE=Aria TRANSACTIONAL=0 ROW_FORMAT=DYNAMIC"),
        ("aria_fixed", "ENGINE=Aria TRANSACTIONAL=0 ROW_FORMAT=FIXED"),
        ("isam", "ENGINE=MyISAM"),
        ("isam_fixed", "ENGINE=MyISAM ROW_FORMAT=FIXED"),
        ("merged_1", "ENGINE=MyISAM"),
        ("merged_2", "ENGINE=MyISAM"),
        ("inno", "ENGINE=InnoDB"),
    ];
    let mut create = "CREATE DATABASE zoo CHARACTER SET utf8mb4; USE zoo;".to_owned();
    for (name, engine) in tables {
        create += &format!("CREATE TABLE {name} {ROWS} {engine};{}", fill(name, 1500));
    }
    create += "CREATE TABLE merged (id INT NOT NULL, text VARCHAR(400), KEY (id), KEY (text(50)))
             ENGINE=MERGE UNION=(merged_1, merged_2) INSERT_METHOD=LAST;
         CREATE TABLE csv (id INT NOT NULL, text VARCHAR(400) NOT NULL) ENGINE=CSV;
         INSERT INTO csv SELECT seq, CONCAT('\"quoted\", ', MD5(seq)) FROM seq_1_to_500;
         CREATE TABLE archive (id INT, text VARCHAR(400)) ENGINE=ARCHIVE;
         INSERT INTO archive SELECT seq, MD5(seq) FROM seq_1_to_2000;
         CREATE TABLE memory (id INT) ENGINE=MEMORY;
         CREATE TABLE isam_parted (id INT PRIMARY KEY, text VARCHAR(90)) ENGINE=MyISAM PARTITION BY HASH (id) PARTITIONS 3;
         INSERT INTO isam_parted SELECT seq, MD5(seq) FROM seq_1_to_900;
         CREATE TABLE aria_parted (id INT PRIMARY KEY, text VARCHAR(90)) ENGINE=Aria PARTITION BY KEY (id) PARTITIONS 3;
         INSERT INTO aria_parted SELECT seq, MD5(seq) FROM seq_1_to_900;
         CREATE SEQUENCE counted START WITH 100 INCREMENT BY 7 MAXVALUE 100000 CACHE 10 CYCLE;
         CREATE SEQUENCE counted_aria ENGINE=Aria; SELECT NEXTVAL(counted), NEXTVAL(counted_aria);
         CREATE TABLE numbered (id INT DEFAULT NEXTVAL(counted), text TEXT); INSERT INTO numbered (text) VALUES ('a');";
    let mut lineage = Lineage::default();
    let mut sequences = Vec::new();
    let next_values =
        "SELECT next_not_cached_value FROM zoo.counted UNION ALL SELECT next_not_cached_value FROM zoo.counted_aria";
    lineage.step(&site, &create, &[]);
    sequences.push(site.server.sql(next_values));
    for _ in 0..2 {
        let mut changes = "USE zoo;".to_owned();
        changes.extend(tables.map(|(name, _)| change(name)));
        changes += "INSERT INTO csv SELECT id + 1000, text FROM csv WHERE id % 5 = 0; DELETE FROM csv WHERE id % 3 = 0;
             INSERT INTO archive SELECT id, REVERSE(text) FROM archive WHERE id % 4 = 0;
             UPDATE isam_parted SET text = REVERSE(text) WHERE id % 3 = 0; DELETE FROM aria_parted WHERE id % 11 = RAND() * 3;
             UPDATE aria_parted SET text = REVERSE(text) WHERE id % 3 = 0; INSERT INTO memory VALUES (1);
             SELECT NEXTVAL(counted) FROM seq_1_to_25; SELECT NEXTVAL(counted_aria) FROM seq_1_to_2000;
             INSERT INTO numbered (text) SELECT text FROM numbered;";
        lineage.step(&site, &changes, &["--incremental"]);
        sequences.push(site.server.sql(next_values));
    }
    let others = ["merged", "csv", "archive", "isam_parted", "aria_parted", "numbered"];
    for name in tables.iter().map(|(name, _)| *name).chain(others) {
        lineage.assert_changed(&format!("`zoo`.`{name}`"));
    }
    // Rows of MEMORY tables are gone when a server starts anew, wherever its files come from.
    lineage.forget("`zoo`.`memory`");
    lineage.all_restore(&site, &options, |place, server| {
        assert_eq!(server.sql(next_values), sequences[place], "backup {place}");
        assert_eq!(server.sql("SELECT COUNT(*) FROM zoo.memory").trim(), "0");
        server.sql("INSERT INTO zoo.merged VALUES (9999999, 'last'); INSERT INTO zoo.archive VALUES (1, 'more')");
        assert_eq!(server.sql("SELECT COUNT(*) FROM zoo.merged_2 WHERE id = 9999999").trim(), "1");
    });
}

/// The stream does not hold RocksDB's tables in a form that could be restored, so they are refused before anything is read.
#[test]
fn a_server_with_rocksdb_is_refused_by_name() {
    let site = Site::with(ServerOptions::new().plugin("ha_rocksdb").argument("--rocksdb-block-cache-size=8M"));
    site.server
        .sql("CREATE TABLE shop.rocks (id INT PRIMARY KEY) ENGINE=RocksDB; INSERT INTO shop.rocks VALUES (1), (2)");
    assert_eq!(site.server.sql("SELECT COUNT(*) FROM shop.rocks").trim(), "2");
    site.refuses_backup(23, "the server has the storage engine RocksDB", "InnoDB", &[]);
}
