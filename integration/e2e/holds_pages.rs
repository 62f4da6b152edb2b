//! What a server can hold: pages of every size and form.

use std::fs;

use crate::support::{Lineage, ServerOptions, Site, state::disk_bytes};

/// Rows that differ in every run and compress well or badly, as `kind` of column `text` says.
fn fill(table: &str, rows: u32) -> String {
    format!("INSERT INTO {table} (text) SELECT CONCAT(MD5(RAND()), REPEAT('x', seq % 400)) FROM seq_1_to_{rows};")
}

/// Changes to a table that move, split, empty and free pages.
fn churn(table: &str) -> String {
    format!(
        "UPDATE {table} SET text = CONCAT(text, MD5(RAND()), MD5(RAND())) WHERE id % 3 = 0;
         DELETE FROM {table} WHERE id % 7 = 0;
         UPDATE {table} SET text = LEFT(text, 5) WHERE id % 5 = 0;
         {}",
        fill(table, 300)
    )
}

const COLUMNS: &str = "id INT PRIMARY KEY AUTO_INCREMENT, text VARCHAR(4000), KEY (text(100))";

/// Tables of every row format, with pages of their own and beside the rows, are changed and come back.
fn pages_of(kib: u32) {
    let options = ServerOptions::new().install_argument(format!("--innodb-page-size={kib}K"));
    let site = Site::with(options.clone());
    assert_eq!(site.server.sql("SELECT @@innodb_page_size").trim(), (kib * 1024).to_string());
    let mut formats = vec!["ROW_FORMAT=REDUNDANT", "ROW_FORMAT=COMPACT", "ROW_FORMAT=DYNAMIC", "PAGE_COMPRESSED=1"];
    let zips = [1, 2, 4, 8, 16].into_iter().filter(|zip| kib <= 16 && *zip <= kib);
    let zips: Vec<_> = zips.map(|zip| format!("ROW_FORMAT=COMPRESSED KEY_BLOCK_SIZE={zip}")).collect();
    formats.extend(zips.iter().map(String::as_str));
    let tables: Vec<_> = (0..formats.len()).map(|number| format!("pages.t{number}")).collect();
    let mut create = "CREATE DATABASE pages CHARACTER SET utf8mb4; USE pages; SET innodb_strict_mode = ON;".to_owned();
    for (table, format) in tables.iter().zip(&formats) {
        create += &format!("CREATE TABLE {table} ({COLUMNS}) ENGINE=InnoDB {format};{}", fill(table, 1500));
    }
    create += "CREATE TABLE pages.blobs (id INT PRIMARY KEY AUTO_INCREMENT, text LONGTEXT, bytes LONGBLOB);
         INSERT INTO pages.blobs (text, bytes) SELECT REPEAT(MD5(RAND()), 4000), RANDOM_BYTES(1024) FROM seq_1_to_20;
         CREATE TABLE pages.keyless (text TEXT, number INT) ENGINE=InnoDB;
         INSERT INTO pages.keyless SELECT REPEAT('k', seq % 300), seq FROM seq_1_to_2000;";
    let mut lineage = Lineage::default();
    lineage.step(&site, &create, &[]);
    for _ in 0..2 {
        let mut change = "USE pages;".to_owned();
        change.extend(tables.iter().map(|table| churn(table)));
        change += "UPDATE pages.blobs SET text = CONCAT(text, MD5(RAND())), bytes = REPEAT(RANDOM_BYTES(1000), 500)
             WHERE id % 4 = 1;
             DELETE FROM pages.keyless WHERE number % 11 = 0 LIMIT 50; UPDATE pages.keyless SET number = number + 1;";
        lineage.step(&site, &change, &["--incremental"]);
    }
    let changed = tables.into_iter().chain(["pages.blobs".to_owned(), "pages.keyless".to_owned()]);
    changed.for_each(|table| lineage.assert_changed(&format!("`{}`", table.replace('.', "`.`"))));
    lineage.all_restore(&site, &options, |_, _| ());
}

#[test]
fn every_row_format_restores_with_pages_of_4_kib() {
    pages_of(4);
}

#[test]
fn every_row_format_restores_with_pages_of_8_kib() {
    pages_of(8);
}

#[test]
fn every_row_format_restores_with_pages_of_16_kib() {
    pages_of(16);
}

#[test]
fn every_row_format_restores_with_pages_of_32_kib() {
    pages_of(32);
}

#[test]
fn every_row_format_restores_with_pages_of_64_kib() {
    pages_of(64);
}

/// Files written before MariaDB 10.5 have this form, and servers that are told to go on with it.
#[test]
fn files_of_the_form_before_full_crc32_restore() {
    let options = ServerOptions::new().install_argument("--innodb-checksum-algorithm=crc32");
    let site = Site::with(options.clone());
    let mut lineage = Lineage::default();
    let tables = ["old.plain", "old.squeezed", "old.zipped"];
    let mut create = "CREATE DATABASE old CHARACTER SET utf8mb4; USE old;".to_owned();
    for (table, format) in tables.iter().zip(["", "PAGE_COMPRESSED=1", "ROW_FORMAT=COMPRESSED KEY_BLOCK_SIZE=4"]) {
        create += &format!("CREATE TABLE {table} ({COLUMNS}) ENGINE=InnoDB {format};{}", fill(table, 2000));
    }
    lineage.step(&site, &create, &[]);
    let change: String = tables.iter().map(|table| churn(table)).collect();
    lineage.step(&site, &format!("USE old; {change}"), &["--incremental"]);
    for table in ["`old`.`plain`", "`old`.`squeezed`", "`old`.`zipped`"] {
        lineage.assert_changed(table);
    }
    lineage.all_restore(&site, &options, |_, _| ());
}

/// The server punches holes into these files; so must whoever restores them.
#[test]
fn a_page_compressed_table_takes_no_more_disk_restored_than_before() {
    let options = ServerOptions::new();
    let site = Site::with(options.clone());
    let mut lineage = Lineage::default();
    let table = "holes.squeezed";
    let create = format!(
        "CREATE DATABASE holes CHARACTER SET utf8mb4; USE holes; CREATE TABLE {table} ({COLUMNS}) ENGINE=InnoDB PAGE_COMPRESSED=1 PAGE_COMPRESSION_LEVEL=6;
         INSERT INTO {table} (text) SELECT REPEAT(MD5(seq), 60) FROM seq_1_to_4000;
         FLUSH TABLES {table} FOR EXPORT; UNLOCK TABLES;"
    );
    let file = site.server.datadir().join("holes/squeezed.ibd");
    let mut taken = Vec::new();
    let looks = |taken: &mut Vec<u64>| {
        let length = fs::metadata(&file).unwrap().len();
        let disk = disk_bytes(&file);
        assert!(length > 4 << 20 && disk < length / 2, "{disk} bytes of {length} are no proof of holes");
        taken.push(disk);
    };
    lineage.step(&site, &create, &[]);
    looks(&mut taken);
    for _ in 0..2 {
        let change = format!(
            "UPDATE {table} SET text = REPEAT(MD5(RAND()), 60) WHERE id % 20 = 0; DELETE FROM {table} WHERE id % 13 = 1;
             SET GLOBAL innodb_max_purge_lag_wait = 0; FLUSH TABLES {table} FOR EXPORT; UNLOCK TABLES;"
        );
        lineage.step(&site, &change, &["--incremental"]);
        looks(&mut taken);
    }
    lineage.assert_changed("`holes`.`squeezed`");
    for (place, taken) in taken.iter().enumerate() {
        let datadir = lineage.datadir(&site, place);
        let restored = disk_bytes(&datadir.join("holes/squeezed.ibd"));
        assert!(restored <= *taken, "backup {place}: {restored} bytes on disk, {taken} before");
        drop(lineage.started(place, &datadir, &options));
    }
}
