//! Runs that are stopped, killed, or get in each other's way.

use std::{
    fs,
    path::{Path, PathBuf},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{
    Haulout, MariaDb, Site, Tool,
    binary::Running,
    server::Client,
    site::{assert_says, assert_unlocked},
    wait,
};

const LIMIT: Duration = Duration::from_secs(60);

/// A tool whose stream stands still after some 3 MB, until [`go_on`].
fn standing_still() -> Tool {
    Tool::new(
        "[ -e \"$here/stopped\" ] && exec \"$real\" \"$@\"
         \"$real\" \"$@\" | {
           head -c 3000000
           sh -c 'echo $PPID > \"$0/pid\"; mv \"$0/pid\" \"$0/stopped\"; kill -STOP $PPID' \"$here\"
           exec cat
         }",
    )
}

fn stands_still(running: &mut Running, tool: &Tool) {
    // The file comes before the signal: what were continued in between would be stopped for ever.
    running.wait_for("the stream to stand still", |_| tool.has("stopped") && is_stopped(held(tool)));
}

/// The process that holds the stream.
fn held(tool: &Tool) -> Pid {
    let pid = fs::read_to_string(tool.folder().join("stopped")).unwrap();
    Pid::from_raw(pid.trim().parse().unwrap()).unwrap()
}

fn is_stopped(pid: Pid) -> bool {
    let status = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    // Its name stands in brackets before it.
    status.rsplit_once(") ").is_some_and(|(_, state)| state.starts_with('T'))
}

fn go_on(tool: &Tool) {
    // A run that was stopped has ended it.
    let _ = kill_process(held(tool), Signal::CONT);
}

/// A statement that keeps a backup from its next lock while it holds the first ones.
struct Obstacle {
    client: Client,
    session: JoinHandle<()>,
}

impl Obstacle {
    fn before(server: &MariaDb) -> Obstacle {
        // Of a table without transactions: a backup lets statements on others go on.
        server.sql("CREATE TABLE IF NOT EXISTS shop.flat (id INT) ENGINE=MyISAM");
        let client = server.client();
        let session = client.clone();
        let session = thread::spawn(move || drop(session.try_sql("INSERT INTO shop.flat SELECT SLEEP(600)")));
        let obstacle = Obstacle { client, session };
        wait::until("the obstacle", LIMIT, || obstacle.sessions("INSERT INTO shop.flat%").pop());
        obstacle
    }

    fn sessions(&self, statement: &str) -> Vec<String> {
        let sql = format!("SELECT id FROM information_schema.processlist WHERE info LIKE '{statement}'");
        self.client.sql(&sql).lines().map(str::to_owned).collect()
    }

    /// Waits until a backup waits for the obstacle.
    fn is_met(&self, running: &mut Running) {
        running.wait_for("the backup to wait for its lock", |_| !self.sessions("BACKUP STAGE BLOCK_DDL%").is_empty());
    }

    fn remove(self) {
        for id in self.sessions("INSERT INTO shop.flat%") {
            self.client.sql(&format!("KILL {id}"));
        }
        self.session.join().unwrap();
    }
}

/// Panics unless all is well after a run that was ended.
#[track_caller]
fn assert_all_is_well(site: &Site, before: &[serde_json::Value]) {
    wait::until("the tool's end", LIMIT, || site.server.backups_running().is_empty().then_some(()));
    assert_unlocked(&site.server);
    assert_eq!(site.listing(), before, "something was committed");
    site.change();
    let next = site.backed_up(&["--incremental"]);
    assert_eq!(next["parent"], before.last().unwrap()["backup_id"]);
}

/// Ends a run with `signal`, and looks at what it leaves.
fn stop_with(signal: Signal, site: &Site, running: Running, spool: &Path) {
    let asked = Instant::now();
    running.signal(signal);
    let run = running.wait().exits(130);
    assert!(asked.elapsed() < Duration::from_secs(20), "{:?}", asked.elapsed());
    assert_says(&run, 130, "stopped by a signal", "run the command again");
    assert_eq!(site.leases_held(), [""; 0]);
    assert_eq!(files(spool), [""; 0], "the tool's folder or a pack stayed behind");
    wait::until("the tool's end", LIMIT, || site.server.backups_running().is_empty().then_some(()));
}

/// Names of what lies in a folder and below.
fn files(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path.display().to_string()] }).collect()
}

#[test]
fn ctrl_c_sigterm_and_sighup_leave_nothing_behind_but_the_exit_code_130() {
    let site = Site::new();
    site.backed_up(&[]);
    let spool = site.folder().join("spool");
    let spool_flag = format!("--spool-dir={}", spool.display());
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        println!("{signal:?}");
        let before = site.listing();
        let tool = standing_still();
        let mut running = site.haulout.spawn_backup(&site.server, &["--full", &tool.flag(), &spool_flag]);
        stands_still(&mut running, &tool);
        stop_with(signal, &site, running, &spool);
        assert_all_is_well(&site, &before);
        let before = site.listing();
        let obstacle = Obstacle::before(&site.server);
        let mut running = site.haulout.spawn_backup(&site.server, &["--incremental", &spool_flag]);
        obstacle.is_met(&mut running);
        stop_with(signal, &site, running, &spool);
        obstacle.remove();
        assert_all_is_well(&site, &before);
    }
}

#[test]
fn a_kill_9_leaves_no_lock_and_the_next_run_works_at_once() {
    let site = Site::new();
    site.backed_up(&[]);
    let before = site.listing();
    let tool = standing_still();
    let mut running = site.haulout.spawn_backup(&site.server, &["--full", &tool.flag()]);
    stands_still(&mut running, &tool);
    assert_eq!(running.kill9().signal(), Some(9));
    // The tool finds its reader gone, as it does when nobody had stopped its stream.
    go_on(&tool);
    // Nobody gave the lease back, but its holder is known to be dead.
    assert_eq!(site.leases_held().len(), 1);
    assert_all_is_well(&site, &before);
    let before = site.listing();
    let obstacle = Obstacle::before(&site.server);
    let mut running = site.haulout.spawn_backup(&site.server, &[]);
    obstacle.is_met(&mut running);
    assert_eq!(running.kill9().signal(), Some(9));
    obstacle.remove();
    assert_all_is_well(&site, &before);
}

#[test]
fn of_two_backups_at_once_the_second_is_refused_and_the_first_is_right() {
    let site = Site::new();
    let tool = standing_still();
    let mut first = site.haulout.spawn_backup(&site.server, &[&tool.flag()]);
    stands_still(&mut first, &tool);
    let second = site.backup(&[]).exits(11);
    assert_says(&second, 11, &format!("a backup is running already: process {}", first.pid()), "wait for it to end");
    assert_eq!(site.leases_held().len(), 1, "the second took the first one's lease away");
    go_on(&tool);
    let first = first.wait().ok();
    assert_eq!(site.listing().len(), 1);
    assert_eq!(site.leases_held(), [""; 0]);
    assert_eq!(site.backed_up(&["--incremental"])["parent"], first.summary()["backup_id"]);
}

fn stored_bytes(site: &Site) -> u64 {
    // One that is still being written has another name, and can get its own just while it is looked at.
    let is_whole = |path: &&PathBuf| path.file_name().is_some_and(|name| name.len() == 64);
    site.objects("packs").iter().filter(is_whole).filter_map(|path| Some(fs::metadata(path).ok()?.len())).sum()
}

/// A backup is killed when nine tenths of its stream have come. What it has stored is not uploaded again, and what was not is.
#[test]
fn what_a_killed_backup_has_stored_is_not_uploaded_again() {
    let site = Site::new();
    site.server.sql(
        "USE shop; CREATE TABLE random (id INT PRIMARY KEY, text VARBINARY(2000)) ENGINE=InnoDB;
         INSERT INTO random SELECT seq, CONCAT(RANDOM_BYTES(1000), RANDOM_BYTES(1000)) FROM seq_1_to_60000;
         FLUSH TABLES random FOR EXPORT; UNLOCK TABLES;",
    );
    let twin = Haulout::on(format!("file://{}", site.folder().join("twin").display()));
    twin.run(["init"]).ok();
    let sizes = twin.backup(&site.server, &[]).ok().summary()["sizes"].clone();
    let size = |name: &str| sizes[name].as_u64().unwrap();
    let whole = size("uploaded_bytes");
    let tool = Tool::held(size("stream_bytes") * 9 / 10);
    let mut running = site.haulout.spawn_backup(&site.server, &[&tool.flag()]);
    running.wait_for("most packs to be stored", |_| tool.has("held") && stored_bytes(&site) > whole * 6 / 10);
    running.kill9();
    tool.let_go();
    let left = stored_bytes(&site);
    let run = site.backup(&[]).ok();
    let again = run.summary()["sizes"]["uploaded_bytes"].as_u64().unwrap();
    assert!(run.stdout.contains("packs are newer than the newest backup"), "{}", run.stdout);
    println!("{whole} bytes in all, {left} were stored, {again} were uploaded afterwards");
    assert!(left + again < whole * 21 / 20, "{left} bytes were stored, {again} uploaded again, {whole} in all");
    assert_eq!(stored_bytes(&site), left + again);
    site.haulout.run(["check", "--read-data"]).ok();
    let restored = MariaDb::on(&site.restored(run.summary()), Default::default());
    assert_eq!(restored.checksums(), site.server.checksums());
    // What was left counts as the backup's own from now on: nothing is left to be told of.
    site.change();
    let next = site.backup(&["--incremental"]).ok();
    assert!(!next.stdout.contains("newer than the newest"), "{}", next.stdout);
}

/// With `nohup` a backup outlives the terminal that it was started on.
#[test]
fn a_hangup_that_is_ignored_stops_nothing() {
    let site = Site::new();
    let tool = standing_still();
    let haulout = Haulout::on(format!("file://{}", site.repository().display())).with_limit("-n; trap '' HUP");
    let mut running = haulout.spawn_backup(&site.server, &[&tool.flag()]);
    stands_still(&mut running, &tool);
    running.signal(Signal::HUP);
    go_on(&tool);
    running.wait().ok();
}
