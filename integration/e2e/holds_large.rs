//! What a server can hold: a table whose file has more than 4 GiB.

use std::fs;

use crate::support::{Lineage, ServerOptions, Site, full, not_shown, state::disk_bytes};

/// Rows of 16 MiB: so many that offsets in the file need more than 32 bits.
const ROWS: u32 = 262;

/// With pages of 64 KiB that are compressed to 4 KiB each the file is large and takes little disk.
#[test]
fn a_table_of_more_than_4_gib_restores_with_changes_at_its_end() {
    let options = ServerOptions::new()
        .install_argument("--innodb-page-size=64K")
        .argument("--innodb-doublewrite=OFF")
        .argument("--innodb-flush-log-at-trx-commit=0")
        .argument("--innodb-buffer-pool-size=128M")
        .argument("--max-allowed-packet=64M");
    let rows = if full() {
        ROWS
    } else {
        not_shown("a file of more than 4 GiB takes more than 30 s; integration/test.sh --full makes one");
        2
    };
    let site = Site::with(options.clone());
    let mut lineage = Lineage::default();
    let create = format!(
        "CREATE DATABASE large; USE large; CREATE TABLE deep (id INT PRIMARY KEY, body LONGTEXT, short VARCHAR(50)) PAGE_COMPRESSED=1;
         INSERT INTO deep SELECT seq, REPEAT(CHAR(65 + seq % 26), 16 << 20), seq FROM seq_1_to_{rows};"
    );
    lineage.step(&site, &create, &[]);
    let file = site.server.datadir().join("large/deep.ibd");
    let length = fs::metadata(&file).unwrap().len();
    assert!(length > if full() { 4 << 30 } else { 16 << 20 }, "{length}");
    let change = format!(
        "USE large; UPDATE deep SET short = 'changed', body = REPEAT('z', 16 << 20) WHERE id IN (1, {rows});
         INSERT INTO deep VALUES ({rows} + 1, REPEAT('end', 5 << 20), 'new')"
    );
    let backup = lineage.step(&site, &change, &["--incremental"]);
    let uploaded = backup["sizes"]["uploaded_bytes"].as_u64().unwrap();
    assert!(uploaded < 64 << 20, "{uploaded}");
    lineage.assert_changed("`large`.`deep`");
    lineage.all_restore(&site, &options, |place, server| {
        let restored = server.datadir().join("large/deep.ibd");
        assert!(fs::metadata(&restored).unwrap().len() >= length);
        println!("backup {place}: {} bytes on disk of {length}", disk_bytes(&restored));
        assert!(disk_bytes(&restored) < length / 4);
    });
}
