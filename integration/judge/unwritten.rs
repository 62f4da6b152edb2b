//! Tables of the window of which not a page is on disk yet when they are copied.

use super::tool::GatedTool;
use crate::support::{Haulout, MariaDb, ServerOptions, scratch};

/// Pages are written when they must be.
const LAZY: &str = "SET GLOBAL innodb_max_dirty_pages_pct = 99.9; SET GLOBAL innodb_max_dirty_pages_pct_lwm = 99";

/// The server's log of DDL makes the tool remove `p#P#*` at the end, which are the files of the table as it was.
#[test]
fn partitions_that_become_innodb_in_the_window_are_not_taken_for_those_before() {
    let (server, folder) = (MariaDb::with(ServerOptions::new().argument("--innodb-buffer-pool-size=256M")), scratch());
    let haulout = Haulout::on(format!("file://{}", folder.path().join("repository").display()));
    haulout.run(["init"]).ok();
    server.sql(
        "CREATE DATABASE shop; USE shop;
         CREATE TABLE p (id INT PRIMARY KEY) ENGINE=MyISAM PARTITION BY HASH (id) PARTITIONS 3;
         INSERT INTO p SELECT seq FROM seq_1_to_100;",
    );
    let tool = GatedTool::in_folder(folder.path());
    for kind in ["full", "incremental"] {
        let mut runs = 0;
        let (run, _) = tool.backup(&haulout, &server, &[], &[100 << 10], |held| {
            runs = held.run + 1;
            if held.run == 0 {
                assert!(held.midway());
                server.sql(LAZY);
                server.sql("ALTER TABLE shop.p ENGINE=InnoDB");
            }
        });
        assert_eq!((run.ok().summary()["kind"].as_str(), runs), (Some(kind), 1));
        let datadir = folder.path().join(kind);
        haulout.run(["restore", "--datadir", datadir.to_str().unwrap()]).ok();
        let restored = MariaDb::on(&datadir, ServerOptions::new());
        assert_eq!(restored.check_all(), [""; 0]);
        assert_eq!(restored.checksums(), server.checksums());
        server.sql("ALTER TABLE shop.p ENGINE=MyISAM");
    }
}
