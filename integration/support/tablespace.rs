//! DISCARD and IMPORT TABLESPACE, as an operator does them, and pages on disk.

use std::time::Duration;

use super::{MariaDb, wait};

/// Puts the files of another table of the same definition in the place of `table`'s.
pub fn import(server: &MariaDb, table: &str) {
    make_source(server, table);
    discard(server, table);
    import_source(server, table);
}

/// Makes `shop.source`, a table like `table` with 3000 rows that say so.
pub fn make_source(server: &MariaDb, table: &str) {
    server.sql(&format!(
        "USE shop; CREATE TABLE shop.source LIKE {table};
         INSERT INTO shop.source (text) SELECT REPEAT('imported', 30) FROM seq_1_to_3000;"
    ));
}

pub fn discard(server: &MariaDb, table: &str) {
    server.sql(&format!("ALTER TABLE {table} DISCARD TABLESPACE"));
}

/// Imports the files of `shop.source` into `table`, which was discarded, and drops the source.
pub fn import_source(server: &MariaDb, table: &str) {
    let [source, place] =
        ["shop.source", table].map(|table| server.datadir().join(table.replace('.', "/")).display().to_string());
    // The copies are made while the tables are locked; the session must stay open for so long.
    server.sql(&format!(
        "FLUSH TABLES shop.source FOR EXPORT; \\! cp {source}.ibd {place}.ibd && cp {source}.cfg {place}.cfg\nUNLOCK TABLES;"
    ));
    server.sql(&format!("ALTER TABLE {table} IMPORT TABLESPACE; DROP TABLE shop.source"));
    assert_eq!(server.sql(&format!("SELECT COUNT(*) FROM {table} WHERE text LIKE 'imported%'")).trim(), "3000");
}

/// Waits until every page is on disk and below the server's checkpoint.
pub fn on_disk(server: &MariaDb) {
    server.sql("SET GLOBAL innodb_max_dirty_pages_pct_lwm = 0; SET GLOBAL innodb_max_dirty_pages_pct = 0");
    wait::until("all pages to be on disk", Duration::from_secs(60), || {
        let dirty = server.sql(
            "SELECT variable_value FROM information_schema.global_status
             WHERE variable_name = 'INNODB_BUFFER_POOL_PAGES_DIRTY'",
        );
        (dirty.trim() == "0").then_some(())
    });
}
