//! What a server can hold: files in other places and other numbers than usual.

use std::{
    fs,
    path::Path,
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::support::{
    Lineage, MariaDb, ServerOptions, Site, Tool,
    server::{self, Client},
    wait,
};

const ROWS: &str = "(id INT PRIMARY KEY AUTO_INCREMENT, text VARCHAR(400))";

fn fill(table: &str, rows: u32) -> String {
    format!("INSERT INTO {table} (text) SELECT REPEAT(MD5(RAND()), 10) FROM seq_1_to_{rows};")
}

#[test]
fn a_system_tablespace_of_several_files_restores_with_tables_in_it() {
    let files = "--innodb-data-file-path=ibdata1:12M;ibdata2:4M;more:2M:autoextend";
    let options = ServerOptions::new().install_argument(files).argument("--innodb-file-per-table=OFF");
    let options = options.argument("--innodb-autoextend-increment=1");
    let site = Site::with(options.clone());
    let mut lineage = Lineage::default();
    let create =
        format!("CREATE DATABASE wide; USE wide; CREATE TABLE wide.inside {ROWS};{}", fill("wide.inside", 60_000));
    lineage.step(&site, &create, &[]);
    let length = |datadir: &Path, file: &str| fs::metadata(datadir.join(file)).unwrap().len();
    let mut lengths = vec![length(site.server.datadir(), "more")];
    for _ in 0..2 {
        // The last file grows, and pages of all files change.
        let change = format!(
            "USE wide; UPDATE wide.inside SET text = REVERSE(text) WHERE id % 3 = 0;{}",
            fill("wide.inside", 6000)
        );
        lineage.step(&site, &change, &["--incremental"]);
        lengths.push(length(site.server.datadir(), "more"));
    }
    assert!(lengths.windows(2).all(|pair| pair[0] < pair[1]), "{lengths:?}");
    lineage.assert_changed("`wide`.`inside`");
    lineage.all_restore(&site, &options, |place, server| {
        assert_eq!(length(server.datadir(), "ibdata1"), 12 << 20);
        assert_eq!(length(server.datadir(), "ibdata2"), 4 << 20);
        assert!(length(server.datadir(), "more") >= lengths[place], "backup {place}");
    });
}

/// A transaction that is not committed.
struct Transaction {
    client: Client,
    session: JoinHandle<()>,
}

impl Transaction {
    fn open(server: &MariaDb, sql: &str) -> Transaction {
        let client = server.client();
        let (session, sql) = (client.clone(), format!("BEGIN; {sql}; SELECT SLEEP(600)"));
        let session = thread::spawn(move || drop(session.try_sql(&sql)));
        let transaction = Transaction { client, session };
        wait::until("the transaction", Duration::from_secs(60), || transaction.ids().pop());
        transaction
    }

    fn ids(&self) -> Vec<String> {
        let sql = "SELECT id FROM information_schema.processlist WHERE info = 'SELECT SLEEP(600)'";
        self.client.sql(sql).lines().map(str::to_owned).collect()
    }

    fn end(self) {
        self.ids().iter().for_each(|id| drop(self.client.sql(&format!("KILL {id}"))));
        self.session.join().unwrap();
    }
}

#[test]
fn undo_tablespaces_restore_and_another_number_of_them_forces_a_full() {
    let options = ServerOptions::new().install_argument("--innodb-undo-tablespaces=3");
    let mut site = Site::with(options.clone());
    let mut lineage = Lineage::default();
    let mut lines = |sql: &str| lineage.step(&site, sql, &[]);
    let tables = ["undone", "held"].map(|name| format!("CREATE TABLE {name} {ROWS};{}", fill(name, 3000)));
    lines(&format!("USE shop; {}", tables.concat()));
    // It is rolled back where the backup is restored.
    let open = Transaction::open(
        &site.server,
        "UPDATE shop.held SET text = MD5(RAND()); DELETE FROM shop.held WHERE id > 900",
    );
    lines("USE shop; UPDATE shop.undone SET text = REVERSE(text); DELETE FROM shop.undone WHERE id % 4 = 0;");
    open.end();
    site.server.sql("SET GLOBAL innodb_fast_shutdown = 0");
    site.server.stop();
    site.server.add_argument("--innodb-undo-tablespaces=5");
    site.server.restart();
    site.needs_full("innodb_undo_tablespaces changed from 3 to 5");
    lineage.step(&site, "USE shop; UPDATE shop.undone SET text = 'again' WHERE id % 5 = 0", &["--incremental"]);
    let last = options.clone().argument("--innodb-undo-tablespaces=5");
    for (place, (options, count)) in [(&options, 3), (&options, 3), (&last, 5)].into_iter().enumerate() {
        let server = lineage.restored(&site, place, options);
        let files = fs::read_dir(server.datadir()).unwrap().flatten();
        let undo = files.filter(|file| file.file_name().to_string_lossy().starts_with("undo")).count();
        assert_eq!(undo, count, "backup {place}");
        assert_eq!(server.sql("SELECT @@innodb_undo_tablespaces").trim(), count.to_string());
    }
}

/// Every file of a restored server lies in its datadir; that of the server that was backed up, which may run on the same
/// machine, is not touched.
#[test]
fn tables_with_a_data_directory_restore_into_the_datadir_and_leave_the_originals_alone() {
    let options = ServerOptions::new();
    let site = Site::with(options.clone());
    let far = site.folder().join("far");
    fs::create_dir(&far).unwrap();
    let place = format!("DATA DIRECTORY='{}'", far.display());
    let index = format!("INDEX DIRECTORY='{}'", far.display());
    let create = format!(
        "CREATE DATABASE outside; USE outside;
         CREATE TABLE outside.plain {ROWS} {place}; {}
         CREATE TABLE outside.parted (id INT PRIMARY KEY, text VARCHAR(400)) PARTITION BY RANGE (id)
             (PARTITION near VALUES LESS THAN (1000), PARTITION far VALUES LESS THAN MAXVALUE {place});
         INSERT INTO outside.parted SELECT seq, MD5(seq) FROM seq_1_to_3000;
         CREATE TABLE outside.isam {ROWS} ENGINE=MyISAM {place} {index}; {}",
        fill("outside.plain", 3000),
        fill("outside.isam", 300)
    );
    let tables = ["plain", "parted", "isam"];
    let change: String = tables
        .map(|table| format!("UPDATE outside.{table} SET text = REVERSE(text) WHERE id % 7 = 0; DELETE FROM outside.{table} WHERE id % 5 = 0;"))
        .concat();
    let checksums = |server: &MariaDb| {
        let mut found = server.checksums();
        found.retain(|table, _| table.contains("outside"));
        found
    };
    let mut points = Vec::new();
    for (sql, more) in [(&create, &[][..]), (&change, &["--incremental"]), (&change, &["--incremental"])] {
        site.server.sql(sql);
        points.push((site.backed_up(more), checksums(&site.server)));
    }
    assert!(points.windows(2).all(|pair| pair[0].1 != pair[1].1));
    // More changes, so that the originals are no longer what any backup holds.
    site.server.sql(&format!("{change} FLUSH TABLES outside.plain, outside.parted FOR EXPORT; UNLOCK TABLES"));
    let kept = site.folder().join("kept");
    server::copy(&far, &kept);
    let same = || {
        let run = std::process::Command::new("diff").args(["-r", "-q"]).arg(&far).arg(&kept).output().unwrap();
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stdout));
    };
    for (backup, expected) in &points {
        let datadir = site.folder().join("restored");
        let id = backup["backup_id"].as_str().unwrap();
        let run = site.haulout.run(["--json", "restore", "--backup", id, "--datadir", datadir.to_str().unwrap()]).ok();
        let warned = run.messages.iter().filter_map(|message| message["message"].as_str());
        let warned = warned.filter(|message| message.contains("DATA DIRECTORY")).collect::<Vec<_>>().join("\n");
        assert!(warned.contains("outside/plain") && warned.contains("outside/parted#P#far"), "{warned}");
        let server = MariaDb::on(&datadir, options.clone());
        assert_eq!(server.check_all(), [""; 0]);
        assert_eq!(checksums(&server), *expected, "{backup}");
        // The restored tables are changed, emptied and built anew, and still nothing happens outside.
        server.sql(&format!("{change} TRUNCATE TABLE outside.isam; ALTER TABLE outside.plain FORCE, ALGORITHM=COPY; TRUNCATE TABLE outside.plain"));
        drop(server);
        same();
        let links = fs::read_dir(datadir.join("outside")).unwrap().flatten();
        let links = links.filter(|file| file.path().extension().is_some_and(|ending| ending == "isl")).count();
        assert_eq!(links, 0);
        fs::remove_dir_all(&datadir).unwrap();
    }
    assert_eq!(site.server.check_all(), [""; 0]);
}

/// The stock tool follows no link to an Aria file. It says so in passing, leaves the table out and ends well.
#[test]
fn an_aria_table_behind_links_that_the_tool_leaves_out_is_refused_by_name() {
    let site = Site::new();
    let far = site.folder().join("far");
    fs::create_dir(&far).unwrap();
    let far = far.display();
    site.server.sql(&format!(
        "CREATE DATABASE outside; CREATE TABLE outside.aria {ROWS} ENGINE=Aria DATA DIRECTORY='{far}' INDEX DIRECTORY='{far}'"
    ));
    site.refuses_backup(23, "could not open outside/aria.MAI", "INDEX DIRECTORY", &[]);
    site.server.sql("DROP TABLE outside.aria");
    // A file that is gone by the end was dropped meanwhile.
    let tool = Tool::new("echo '[00] Error on aria table file open ./outside/aria.MAI' >&2; exec \"$real\" \"$@\"");
    site.backed_up(&[&tool.flag()]);
}

/// Where InnoDB's own files lie elsewhere, a restore could not put them back: refused by name before anything is read.
#[test]
fn innodb_files_outside_the_datadir_are_refused_with_the_setting() {
    for (setting, file) in [("innodb_data_home_dir", "ibdata1"), ("innodb_undo_directory", "undo001")] {
        let mut site = Site::with(ServerOptions::new().install_argument("--innodb-undo-tablespaces=2"));
        let elsewhere = site.folder().join("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        site.server.stop();
        for entry in fs::read_dir(site.server.datadir()).unwrap().flatten() {
            let name = entry.file_name().into_string().unwrap();
            if name.starts_with(&file[..4]) {
                fs::rename(entry.path(), elsewhere.join(name)).unwrap();
            }
        }
        assert!(elsewhere.join(file).exists());
        site.server.add_argument(&format!("--{}={}", setting.replace('_', "-"), elsewhere.display()));
        site.server.restart();
        site.refuses_backup(23, &format!("{setting} is \"{}", elsewhere.display()), "move the files", &[]);
    }
}
