//! What LSNs do not see, on real servers: each hole of an overlay of incrementals, and how it is closed. Whatever is
//! committed here is restored and compared.

use std::{collections::BTreeMap, fs, os::unix::fs::FileExt, path::Path, process::Command};

use serde_json::Value;

use crate::support::{
    MariaDb, Recording, ServerOptions, Site, Tool, scratch,
    site::assert_says,
    tablespace::{discard, import, import_source, make_source, on_disk},
    tool::{self, real},
};

/// Restores `backup`, and panics unless all of its tables are sound and hold what `expected` says.
#[track_caller]
pub fn restores_to(site: &Site, backup: &Value, expected: &BTreeMap<String, String>) {
    let id = backup["backup_id"].as_str().unwrap();
    let folder = scratch();
    let datadir = folder.path().join("data");
    site.haulout.run(["--json", "restore", "--backup", id, "--datadir", datadir.to_str().unwrap()]).ok();
    let mut server = MariaDb::on(&datadir, ServerOptions::new());
    assert_eq!(server.check_all(), [""; 0], "{backup}");
    assert_eq!(&server.checksums(), expected, "{backup}");
    server.stop();
}

/// Pages of `table` in a stock incremental that reaches back to `from`, and pages of its file.
fn pages_in_delta(server: &MariaDb, from: u64, table: &str) -> (usize, usize) {
    let target = scratch();
    let mut command = Command::new(real("mariadb-backup"));
    command.args(["--no-defaults", "--backup", "--stream=xbstream"]).args(server.flags());
    command.arg(format!("--incremental-lsn={from}")).arg(format!("--target-dir={}", target.path().display()));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let delta = tool::file(&output.stdout, &format!("{table}.ibd.delta"));
    let file = server.datadir().join(format!("{table}.ibd")).metadata().unwrap().len();
    // One block of page numbers, and the pages.
    (delta.len() / 16_384 - 1, file as usize / 16_384)
}

fn start_lsn(backup: &Value) -> u64 {
    backup["lsn"]["start"].as_u64().unwrap()
}

#[test]
fn an_import_between_backups_is_what_an_incremental_leaves_out_and_a_full_has() {
    let site = Site::new();
    let parent = site.backed_up(&[]);
    import(&site.server, "shop.item");
    on_disk(&site.server);
    // The hole: nearly nothing of the new pages has an LSN.
    let (came, all) = pages_in_delta(&site.server, start_lsn(&parent) - 1, "shop/item");
    assert!(came * 10 < all, "{came} of {all} pages came");
    let full = site.backed_up(&[]);
    assert_eq!(full["kind"], "full");
    restores_to(&site, &full, &site.server.checksums());
    // What was imported is like any other table from then on.
    site.change();
    let next = site.backed_up(&["--incremental"]);
    restores_to(&site, &next, &site.server.checksums());
}

/// IMPORT ends with a checkpoint, so that a backup which starts after it does not meet the DISCARD in its redo log, of which
/// the tool would make that the table is gone.
#[test]
fn an_import_right_before_a_full_is_in_it() {
    let site = Site::new();
    import(&site.server, "shop.item");
    let full = site.backed_up(&[]);
    restores_to(&site, &full, &site.server.checksums());
}

#[test]
fn an_import_into_a_table_that_was_discarded_during_the_parent_gets_a_full() {
    let site = Site::new();
    make_source(&site.server, "shop.item");
    discard(&site.server, "shop.item");
    // The parent has no file of the table, so that the space id is new to it.
    site.backed_up(&[]);
    import_source(&site.server, "shop.item");
    let full = site.needs_full("shop/item.ibd");
    restores_to(&site, &site.listing().pop().unwrap(), &site.server.checksums());
    assert_eq!(full["depth"], 0);
}

#[test]
fn an_import_whose_pages_were_all_changed_since_comes_whole() {
    let site = Site::new();
    site.backed_up(&[]);
    site.server.sql("CREATE TABLE shop.fresh LIKE shop.item");
    import(&site.server, "shop.fresh");
    // Each row gets longer, so that every page is written anew and has an LSN; many are in the redo log alone.
    site.server.sql("UPDATE shop.fresh SET text = CONCAT(text, REPEAT('!', 120))");
    let next = site.backed_up(&[]);
    restores_to(&site, &next, &site.server.checksums());
}

/// What happens while a backup runs.
type Happening<'a> = Box<dyn Fn(&MariaDb) + 'a>;

/// Takes a backup, full or incremental, while `happening` happens at `bytes` of its stream.
fn backed_up_while(site: &Site, tool: &Tool, more: &[&str], happening: &Happening<'_>) -> crate::support::binary::Run {
    let flag = tool.flag();
    // With one thread that reads files the tool reads no file while its stream waits.
    let arguments = [more, &[flag.as_str(), "--parallel=1"]].concat();
    let mut running = site.haulout.spawn_backup(&site.server, &arguments);
    running.wait_for("the tool to be held", |_| tool.has("held"));
    happening(&site.server);
    tool.let_go();
    running.wait()
}

/// Whether the file was read before the import or after it: the pages of one and the redo log of the other do not fit.
#[test]
fn an_import_during_a_backup_is_never_in_it_by_halves() {
    let site = Site::new();
    // So that the import is not the first thing that happens to it, and the tool has something to read for a while.
    site.server.sql(
        "USE shop; CREATE TABLE picture (id INT PRIMARY KEY, bytes BLOB) ENGINE=InnoDB;
         INSERT INTO picture SELECT seq, RANDOM_BYTES(1000) FROM seq_1_to_16000;
         FLUSH TABLES picture FOR EXPORT; UNLOCK TABLES",
    );
    site.backed_up(&[]);
    let length = Recording::of(&site.server).stream.len() as u64;
    let mut replaced = 0;
    for (kind, place) in [("--full", 1), ("--full", length / 3), ("--full", length / 2), ("--incremental", 1)] {
        make_source(&site.server, "shop.item");
        let happening: Happening<'_> = Box::new(|server| {
            discard(server, "shop.item");
            import_source(server, "shop.item");
        });
        let run = backed_up_while(&site, &Tool::held(place), &[kind], &happening);
        if kind == "--incremental" {
            assert_says(&run.exits(21), 21, "the file of shop/item.ibd was replaced during the backup", "--full");
            replaced += 1;
        } else {
            replaced += usize::from(run.ok().stdout.contains("was replaced during the backup"));
            restores_to(&site, site.listing().last().unwrap(), &site.server.checksums());
        }
        restores_to(&site, &site.backed_up(&[]), &site.server.checksums());
    }
    assert!(replaced >= 2, "{replaced}");
}

#[test]
fn a_table_made_discarded_and_imported_during_a_backup_is_never_in_it_by_halves() {
    let site = Site::new();
    site.backed_up(&[]);
    for kind in ["--full", "--incremental"] {
        let happening: Happening<'_> = Box::new(|server| {
            server.sql(
                "CREATE OR REPLACE TABLE shop.fresh LIKE shop.item; INSERT INTO shop.fresh SELECT * FROM shop.item",
            );
            import(server, "shop.fresh");
        });
        let run = backed_up_while(&site, &Tool::held(1), &[kind], &happening);
        if run.code() == Some(0) {
            restores_to(&site, run.summary(), &site.server.checksums());
        } else {
            assert_says(&run.exits(21), 21, "shop/fresh.ibd was replaced during the backup", "--full");
        }
        restores_to(&site, &site.backed_up(&[]), &site.server.checksums());
    }
}

/// The parent has the table as it was before the import, and must not take the imported file for the one that it read.
#[test]
fn a_table_made_during_a_backup_and_imported_right_after_its_last_lsn_gets_a_full() {
    for kind in ["--full", "--incremental"] {
        let site = Site::new();
        site.backed_up(&[]);
        let expected = std::cell::RefCell::new(BTreeMap::new());
        let tool = Tool::new(
            "[ ! -e \"$here/held\" ] || exec \"$real\" \"$@\"
             mkfifo \"$here/pipe\"
             \"$real\" \"$@\" > \"$here/pipe\" & tool=$!
             { head -c 1; eval \"$(cat \"$here/during\")\"; cat; } < \"$here/pipe\" > \"$here/stream\"
             wait $tool || exit
             : > \"$here/held\"
             until [ -e \"$here/on\" ]; do read -r nothing < \"$here/pulse\"; done
             cat \"$here/stream\"",
        )
        .with_pulse();
        let sql =
            "CREATE TABLE shop.fresh LIKE shop.item; INSERT INTO shop.fresh SELECT * FROM shop.item WHERE id < 200;
                   FLUSH TABLES shop.fresh FOR EXPORT; UNLOCK TABLES";
        let client = site.server.flags().join(" ");
        fs::write(tool.folder().join("during"), format!("mariadb --no-defaults {client} -e '{sql}'")).unwrap();
        let happening: Happening<'_> = Box::new(|server| {
            *expected.borrow_mut() = server.checksums();
            import(server, "shop.fresh");
        });
        let run = backed_up_while(&site, &tool, &[kind], &happening).ok();
        restores_to(&site, run.summary(), &expected.borrow());
        on_disk(&site.server);
        site.needs_full("the file of shop/fresh.ibd was replaced since the parent");
        restores_to(&site, site.listing().last().unwrap(), &site.server.checksums());
    }
}

/// Other undo tablespaces for a while, and then as many as before: no setting tells.
#[test]
fn undo_tablespaces_that_changed_and_changed_back_get_a_full() {
    let mut site = Site::new();
    let before = site.server.sql("SELECT @@innodb_undo_tablespaces").trim().to_owned();
    site.backed_up(&[]);
    for count in ["4", &before] {
        // Their number can be changed when nothing is in them.
        site.server.sql("SET GLOBAL innodb_fast_shutdown = 0");
        site.server.stop();
        site.server.add_argument(&format!("--innodb-undo-tablespaces={count}"));
        site.server.restart();
    }
    assert_eq!(site.server.sql("SELECT @@innodb_undo_tablespaces").trim(), before);
    on_disk(&site.server);
    let run = site.backup(&["--incremental"]);
    if run.code() == Some(0) {
        restores_to(&site, run.summary(), &site.server.checksums());
    } else {
        assert_says(&run.exits(21), 21, "undo tablespaces changed", "--full");
        let full = site.backed_up(&[]);
        assert_eq!(full["kind"], "full");
    }
    restores_to(&site, &site.backed_up(&[]), &site.server.checksums());
}

/// A tool that says nothing at all of what it leaves out.
#[test]
fn a_table_that_is_missing_in_the_stream_without_a_word_is_never_left_out() {
    let site = Site::new();
    site.server.sql("CREATE TABLE shop.t2 LIKE shop.item; INSERT INTO shop.t2 SELECT * FROM shop.item");
    on_disk(&site.server);
    let recording = Recording::of(&site.server);
    let strip = |table: &str| -> Vec<u8> {
        let kept = recording.chunks().into_iter().filter(|chunk| chunk.path != table);
        kept.flat_map(|chunk| recording.stream[chunk.start..chunk.end].to_vec()).collect()
    };
    for table in ["shop/t2.ibd", "shop/item.ibd", "mysql/innodb_table_stats.ibd"] {
        let tool = recording.with(strip(table)).tool();
        site.refuses_backup(20, &format!("left out {table}"), "run the backup again", &["--full", &tool.flag()]);
    }
    site.backed_up(&["--full", &recording.tool().flag()]);
}

/// Files of other engines go missing when tables are altered while the tool copies them; a quieter moment may come.
#[test]
fn tables_of_other_engines_that_are_not_whole_are_refused_when_the_third_attempt_fails_too() {
    let site = Site::new();
    site.server.sql(
        "USE shop; CREATE TABLE scan (id INT) ENGINE=MyISAM; CREATE TABLE sheet (id INT NOT NULL) ENGINE=CSV;
         CREATE TABLE merged (id INT) ENGINE=MERGE UNION=(scan); INSERT INTO scan VALUES (1); INSERT INTO sheet VALUES (1);",
    );
    let recording = Recording::of(&site.server);
    for lost in ["note.MAD", "note.MAI", "scan.MYI", "scan.MYD", "sheet.CSV", "merged.MRG"] {
        let kept = recording.chunks().into_iter().filter(|chunk| chunk.path != format!("shop/{lost}"));
        let stream = kept.flat_map(|chunk| recording.stream[chunk.start..chunk.end].to_vec()).collect();
        let tool = recording.with(stream).tool();
        let (table, _) = lost.split_once('.').unwrap();
        let says = format!(
            "lost track of tables that were created, altered, emptied, renamed or dropped while it copied them: shop/{table}"
        );
        let run =
            site.refuses_backup(23, &says, "run the backup again while no MyISAM or Aria", &["--full", &tool.flag()]);
        let again = run.messages.iter().filter(|message| message["message"].to_string().contains("trying again"));
        assert_eq!(again.count(), 2, "{lost}");
    }
    site.backed_up(&["--full", &recording.tool().flag()]);
}

/// Options that leave tables out, wherever they come from. The tool takes them from option files without a word.
#[test]
fn filters_are_refused_wherever_they_come_from() {
    let site = Site::new();
    site.server.sql("CREATE DATABASE other; CREATE TABLE other.t (id INT PRIMARY KEY) ENGINE=InnoDB");
    let list = site.folder().join("list");
    fs::write(&list, "shop.item\n").unwrap();
    let list = list.display();
    for option in [
        "databases=shop".to_owned(),
        "databases-exclude=other".to_owned(),
        "tables=shop.*".to_owned(),
        "tables-exclude=other.*".to_owned(),
        format!("tables-file={list}"),
        format!("databases-file={list}"),
    ] {
        let flag = format!("--{option}");
        site.refuses(2, "cannot be handed through", "", || site.backup(&["--full", "--", &flag]));
        for group in ["mariadb-backup", "mariabackup", "xtrabackup"] {
            let file = site.folder().join("options.cnf");
            fs::write(&file, format!("[{group}]\n{option}\n")).unwrap();
            let defaults = format!("--defaults-file={}", file.display());
            site.refuses_backup(23, "left something out", "--defaults-file", &["--full", &defaults]);
        }
    }
    site.backed_up(&[]);
}

/// The tool warns and ends with 0 when redo log belongs to a tablespace that is not there.
#[test]
fn a_tablespace_that_is_missing_at_prepare_is_an_error() {
    let site = Site::new();
    // Changes that are in the redo log alone.
    site.server.sql("UPDATE shop.item SET text = CONCAT('changed ', id) WHERE id < 2000");
    let tool = Tool::held(1);
    let happening: Happening<'_> = Box::new(|server| {
        server.sql("UPDATE shop.item SET text = CONCAT('again ', id) WHERE id < 2000");
    });
    backed_up_while(&site, &tool, &["--full"], &happening).ok();
    let target = site.folder().join("target");
    let target = target.to_str().unwrap();
    site.haulout.run(["fetch", "--target", target]).ok();
    fs::remove_file(Path::new(target).join("shop/item.ibd")).unwrap();
    let copy = site.folder().join("copy");
    crate::support::server::copy(Path::new(target), &copy);
    let stock = Command::new(real("mariadb-backup"))
        .args(["--no-defaults", "--prepare", &format!("--target-dir={}", copy.display())])
        .output()
        .unwrap();
    // The hole: the stock tool says that all is well.
    let said = String::from_utf8_lossy(&stock.stderr).into_owned();
    assert!(stock.status.success() && said.contains("completed OK!"), "{said}");
    assert!(said.contains("All redo log for this file will be ignored"), "{said}");
    let run = site.haulout.run(["--json", "prepare", "--target", target]);
    assert_says(&run.exits(20), 20, "shop/item.ibd", "restore another backup");
}

/// A server that has the page in memory does not notice. The tool knows such a file from one that is still to be written.
#[test]
fn a_table_whose_first_page_is_lost_on_disk_is_no_backup_until_it_is_written_anew() {
    let site = Site::new();
    on_disk(&site.server);
    site.server.sql("SET GLOBAL innodb_log_checkpoint_now = ON");
    let file = fs::OpenOptions::new().write(true).open(site.server.datadir().join("shop/item.ibd")).unwrap();
    let bytes = file.metadata().unwrap().len() as usize;
    for lost in [16_384, bytes] {
        file.write_all_at(&vec![0; lost], 0).unwrap();
        site.refuses_backup(23, "shop/item", "ALTER TABLE … FORCE", &["--full"]);
    }
    site.server.sql("ALTER TABLE shop.item FORCE");
    let backup = site.backed_up(&[]);
    restores_to(&site, &backup, &site.server.checksums());
}

/// The log of such a server does not tell which pages it writes.
#[test]
fn a_table_made_shortly_before_the_backup_of_a_server_that_encrypts_its_log_is_in_it() {
    let folder = scratch();
    let options = ServerOptions::new().keys(&folder.path().join("keys")).argument("--innodb-encrypt-log=ON");
    let site = Site::with(options.clone());
    site.server.sql(
        "SET GLOBAL innodb_max_dirty_pages_pct = 99.9; SET GLOBAL innodb_max_dirty_pages_pct_lwm = 99;
         USE shop; CREATE TABLE shop.fresh ENGINE=InnoDB AS SELECT seq FROM seq_1_to_1000;",
    );
    let mut head = [1; 1024];
    fs::File::open(site.server.datadir().join("shop/fresh.ibd")).unwrap().read_exact_at(&mut head, 0).unwrap();
    assert_eq!(head, [0; 1024], "the server has written it already: this test shows nothing");
    let backup = site.backed_up(&[]);
    let id = backup["backup_id"].as_str().unwrap();
    let datadir = folder.path().join("data");
    site.haulout.run(["restore", "--backup", id, "--datadir", datadir.to_str().unwrap()]).ok();
    let restored = MariaDb::on(&datadir, options);
    assert_eq!(restored.checksums(), site.server.checksums());
}
