//! Tables of which the stock tool loses track are not lost in silence.

use super::{chunks::Chunks, stock::Chain, tool::GatedTool};
use crate::support::{Haulout, MariaDb, scratch};

/// An Aria table is renamed and a MyISAM table dropped and made anew after the tool has listed them. It completes, and lacks
/// them; such a stream is not committed, and the next, which nothing disturbs, is.
#[test]
fn a_backup_whose_stream_lacks_a_table_is_taken_again() {
    let (server, folder) = (MariaDb::start(), scratch());
    let haulout = Haulout::on(format!("file://{}", folder.path().join("repository").display()));
    haulout.run(["init"]).ok();
    server.sql(
        "CREATE DATABASE shop; USE shop; CREATE TABLE item (id INT PRIMARY KEY) ENGINE=InnoDB;
         CREATE TABLE one (id INT PRIMARY KEY) ENGINE=Aria; INSERT INTO one SELECT seq FROM seq_1_to_100;
         CREATE TABLE two (id INT PRIMARY KEY) ENGINE=MyISAM; INSERT INTO two SELECT seq FROM seq_1_to_200; FLUSH TABLES;",
    );
    let tool = GatedTool::in_folder(folder.path());
    let (mut first, mut runs) = (None, 0);
    let (run, captured) = tool.backup(&haulout, &server, &[], &[1 << 20], |held| {
        runs = held.run + 1;
        if held.run == 0 {
            first = Some(held.midway);
            server.sql(
                "USE shop; RENAME TABLE one TO uno; DROP TABLE two; CREATE TABLE two (id INT PRIMARY KEY) ENGINE=MyISAM;
                 INSERT INTO two SELECT seq FROM seq_1_to_300;",
            );
        }
    });
    let run = run.ok();
    assert_eq!((first, runs), (Some(true), 2), "{}\n{}", run.stdout, run.stderr);
    let warning = run.message("warning")["message"].as_str().unwrap();
    assert!(warning.contains("mariadb-backup lost track of tables") && warning.contains("shop/"), "{warning}");

    // What stock makes of the first stream, which ended with "completed OK!".
    let lost = folder.path().join("streams/0/stream");
    let counted = Chunks::of(&lost).unwrap().summary;
    assert!(counted.rename_chunks + counted.remove_chunks > 0, "{counted:?}");
    let target = folder.path().join("stock");
    let (_chain, prepared) = Chain::full(&target, &lost);
    assert_eq!(prepared, Ok(()));
    let of_stock = MariaDb::on(&target, Default::default());
    let damage = of_stock.check_all();
    let tables = of_stock.tables();
    assert!(
        !damage.is_empty() || !tables.contains(&"`shop`.`two`".to_owned()),
        "the stock tool lost nothing: {tables:?}"
    );
    drop(of_stock);

    assert_eq!(captured.len(), 2);
    let datadir = folder.path().join("restored");
    haulout.run(["restore", "--datadir", datadir.to_str().unwrap()]).ok();
    let restored = MariaDb::on(&datadir, Default::default());
    assert_eq!(restored.check_all(), [""; 0]);
    assert_eq!(
        restored
            .sql("SELECT COUNT(*) FROM shop.uno; SELECT COUNT(*) FROM shop.two")
            .split_whitespace()
            .collect::<Vec<_>>(),
        ["100", "300"]
    );
    assert_eq!(restored.checksums(), server.checksums());
}
