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
            first = Some(held.midway());
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

/// A table is imported in the same window in which another is lost. The tool takes an imported table for dropped as long as its redo log
/// begins before that, so that a second capture would fail for it, if it did not begin behind a checkpoint.
#[test]
fn a_capture_that_is_taken_again_begins_behind_a_checkpoint() {
    let (server, folder) = (MariaDb::start(), scratch());
    let haulout = Haulout::on(format!("file://{}", folder.path().join("repository").display()));
    haulout.run(["init"]).ok();
    server.sql(
        "CREATE DATABASE shop; USE shop; CREATE TABLE held (id INT PRIMARY KEY) ENGINE=InnoDB; INSERT INTO held SELECT seq FROM seq_1_to_50;
         CREATE TABLE source LIKE held; INSERT INTO source SELECT seq FROM seq_1_to_90;
         CREATE TABLE one (id INT PRIMARY KEY) ENGINE=Aria; INSERT INTO one SELECT seq FROM seq_1_to_100; FLUSH TABLES;
         SET GLOBAL innodb_log_checkpoint_now = ON",
    );
    let place = server.datadir().join("shop").display().to_string();
    let tool = GatedTool::in_folder(folder.path());
    let (run, captured) = tool.backup(&haulout, &server, &[], &[1 << 20], |held| {
        if held.run == 0 {
            assert!(held.midway());
            server.sql(&format!(
                "USE shop; RENAME TABLE one TO uno; FLUSH TABLES source FOR EXPORT;\n\\! cp {place}/source.ibd {place}/kept\n\
                 UNLOCK TABLES; ALTER TABLE held DISCARD TABLESPACE;\n\\! mv {place}/kept {place}/held.ibd\n\
                 ALTER TABLE held IMPORT TABLESPACE"
            ));
        }
    });
    let run = run.ok();
    assert_eq!(captured.len(), 2, "{}\n{}", run.stdout, run.stderr);
    let datadir = folder.path().join("restored");
    haulout.run(["restore", "--datadir", datadir.to_str().unwrap()]).ok();
    let restored = MariaDb::on(&datadir, Default::default());
    assert_eq!(restored.checksums(), server.checksums());
}
