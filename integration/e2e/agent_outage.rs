//! An agent while the store, the server or room on the disk is away: it goes on, and nothing is lost.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

use rustix::process::Signal;
use serde_json::Value;

use crate::{
    archive::{assert_all, wait_for_all, write},
    support::{
        Agent, Binlogs, Fault, FaultyPath, Haulout, LocalStack, MariaDb, Page, ServerOptions, Site, Tool,
        binary::Running, not_shown, site::listing, store::environment,
    },
};

const TOKEN: &str = "a-token-that-nobody-guesses-4711";
const SUCCEEDED: &str = "haulout_job_runs_total{job=\"backup\",outcome=\"succeeded\"}";
const FAILED: &str = "haulout_job_runs_total{job=\"backup\",outcome=\"failed\"}";
const AGE: &str = "haulout_job_last_success_age_seconds{job=\"backup\"}";
const LAG: &str = "haulout_archive_lag_seconds";
const FOLLOWING: &str = "haulout_archive_following";
/// Seconds for which the store is away: more than a request is repeated for, and than lie between two backups of the schedule.
const STORE_AWAY: f64 = 90.0;
/// Seconds for which the server is away.
const SERVER_AWAY: f64 = 60.0;

/// Backups that have ended, the oldest first: why each was begun, when, and how it ended.
fn backups(page: Page) -> Vec<[String; 3]> {
    let runs = page.json("/runs");
    let of = |run: &Value| ["cause", "started", "outcome"].map(|name| run[name].as_str().unwrap().to_owned());
    runs["recent"].as_array().unwrap().iter().rev().filter(|run| run["job"] == "backup").map(of).collect()
}

/// Waits until a metric is as wanted, and all the while the agent is alive and ready, and answers.
fn wait_ready(agent: &Agent, running: &mut Running, name: &str, wanted: impl Fn(f64) -> bool) {
    running.wait_for(name, |_| {
        for path in ["/healthz", "/readyz"] {
            assert_eq!(agent.get(path), Some((200, "ok\n".to_owned())), "{path}");
        }
        agent.metric(name).is_some_and(&wanted)
    });
}

#[test]
fn an_agent_outlasts_a_store_and_then_a_server_that_is_away_and_nothing_is_lost() {
    let options = ServerOptions::new().argument("--log-bin=binlog").argument("--server-id=1");
    let (mut site, bucket) = Site::in_bucket_with(options.argument("--binlog-format=ROW"));
    let path = FaultyPath::to(LocalStack::shared().address());
    let behind = Haulout::in_bucket(&bucket, "db1").with(environment(&path.endpoint()));
    let direct = std::mem::replace(&mut site.haulout, behind);
    let binlogs = Binlogs::at(&bucket.url("db1"));
    let (tool, token) = (Tool::held(1_000_000), site.folder().join("token"));
    fs::write(&token, TOKEN).unwrap();
    let program = tool.flag().split_once('=').unwrap().1.to_owned();
    let agent = Agent::of(
        &site,
        &format!(
            "# mariadb: mariadb_backup = {program:?}\n[agent.backup]\nschedule = \"* * * * *\"\n[agent.archive]\nenabled = true\n\
             [archive]\nevery = \"1s\"\n[serve]\ntoken_file = {token:?}"
        ),
    );
    let page = agent.page();
    let mut running = agent.start(&site);
    running.wait_for("the backup to stand still", |_| tool.has("held"));
    write(&site.server, 20);
    wait_for_all(&mut running, &binlogs, &site.server);
    // Runs are begun by whoever has the token alone, and one at a time.
    for (given, status) in [(None, 401), (Some("another-token-that-is-long"), 401), (Some(TOKEN), 409)] {
        let answer = page.begin("backup", given);
        assert_eq!(answer.status, status, "{given:?}: {}", answer.body);
    }

    // The store goes away in the middle of the backup and of the log.
    path.set(Fault::Down);
    tool.let_go();
    write(&site.server, 20);
    wait_ready(&agent, &mut running, LAG, |seconds| seconds >= STORE_AWAY / 2.0);
    write(&site.server, 20);
    wait_ready(&agent, &mut running, LAG, |seconds| seconds >= STORE_AWAY);
    assert_eq!((agent.metric(SUCCEEDED), agent.metric(FAILED)), (None, None));
    assert_eq!(agent.metric("haulout_job_running{job=\"backup\"}"), Some(1.0));
    assert!(agent.metric("haulout_archive_spool_bytes").is_some_and(|bytes| bytes > 0.0));
    let log = page.json("/runs")["running"][0]["log"].to_string();
    let says = format!("requests to {} fail", bucket.url("db1"));
    assert!(log.contains(&says) && log.contains("still trying"), "the run's log does not tell of the store: {log}");
    assert_eq!(listing(&direct), [Value::Null; 0]);
    path.set(Fault::None);
    agent.wait_for(&mut running, SUCCEEDED, |runs| runs >= 1.0);
    wait_for_all(&mut running, &binlogs, &site.server);
    agent.wait_for(&mut running, LAG, |seconds| seconds < 5.0);
    // What was missed meanwhile.
    agent.wait_for(&mut running, SUCCEEDED, |runs| runs >= 2.0);

    // The server is killed, and stays away.
    site.server.kill9();
    wait_ready(&agent, &mut running, AGE, |seconds| seconds >= SERVER_AWAY);
    assert_eq!((agent.metric(SUCCEEDED), agent.metric(FOLLOWING)), (Some(2.0), Some(0.0)));
    assert!(agent.metric(FAILED).is_some_and(|runs| runs >= 1.0), "{:?}", agent.metric(FAILED));
    assert_eq!(agent.metric("haulout_job_last_outcome{job=\"backup\",outcome=\"failed\"}"), Some(1.0));
    site.server.restart();
    agent.wait_for(&mut running, FOLLOWING, |following| following == 1.0);
    write(&site.server, 20);
    agent.wait_for(&mut running, SUCCEEDED, |runs| runs >= 4.0);
    write(&site.server, 20);
    site.server.sql("DELETE FROM shop.item WHERE id = 7");
    wait_for_all(&mut running, &binlogs, &site.server);
    let runs = backups(page);
    assert_eq!(agent.metric("haulout_archive_gaps_total"), Some(0.0));
    running.signal(Signal::TERM);
    let run = running.wait().ok();
    println!("{runs:#?}");

    // One run was begun at once for all moments of the schedule that the first one had missed; no moment had two, and none came late
    // but that one.
    assert_eq!([&runs[0][0], &runs[0][2]], ["first", "succeeded"], "{}", run.stderr);
    assert_eq!([&runs[1][0], &runs[1][2]], ["schedule", "succeeded"], "{}", run.stderr);
    let minutes: Vec<&str> = runs.iter().filter(|run| run[0] == "schedule").map(|run| &run[1][..16]).collect();
    assert_eq!(minutes.iter().collect::<BTreeSet<_>>().len(), minutes.len(), "{minutes:?}");
    // The server's absence ends with one success, and then the schedule's.
    let back = runs.iter().rposition(|run| run[2] == "failed").unwrap();
    assert!(runs[back + 1..].iter().all(|run| run[2] == "succeeded"), "{runs:?}");
    assert!(runs[back + 2..].iter().all(|run| run[0] == "schedule"), "{runs:?}");

    assert_all(&binlogs, &site.server);
    direct.run(["check", "--read-data"]).ok();
    let windows = direct.run(["--json", "list", "--windows"]).ok();
    let window = windows.message("window");
    assert_eq!((&windows.summary()["windows"], &window["gap"]), (&1.into(), &Value::Null), "{}", windows.stdout);
    let position = site.server.sql("SELECT @@gtid_binlog_pos").trim().to_owned();
    assert_eq!(window["gtid"], position.as_str());
    let last = position.split(',').find(|gtid| gtid.starts_with("0-1-")).unwrap();
    let (newest, datadir) = (site.folder().join("newest"), site.folder().join("last"));
    direct.run(["restore", "--datadir", newest.to_str().unwrap()]).ok();
    assert_eq!(MariaDb::on(&newest, ServerOptions::new()).check_all(), [""; 0]);
    direct.run(["restore", "--to-gtid", last, "--datadir", datadir.to_str().unwrap()]).ok();
    let restored = MariaDb::on(&datadir, ServerOptions::new());
    assert_eq!(restored.check_all(), [""; 0]);
    assert_eq!(restored.checksums(), site.server.checksums());
}

/// A file system of its own in memory. Unmounted when dropped.
struct Disk {
    at: PathBuf,
}

impl Disk {
    /// One of `kib` KiB at `at`; none, said aloud, where nothing may be mounted.
    fn mount(at: &Path, kib: u32) -> Option<Disk> {
        fs::create_dir_all(at).unwrap();
        let options = format!("size={kib}k,mode=700");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "haulout-test"]).arg(at).output();
        if !mounted.is_ok_and(|output| output.status.success()) {
            not_shown("an agent whose disk is full: this account may not mount anything");
            return None;
        }
        Some(Disk { at: at.to_owned() })
    }

    /// Fills it to the last byte.
    fn fill(&self) {
        let mut ballast = File::create(self.at.join("ballast")).unwrap();
        let error = loop {
            if let Err(error) = ballast.write_all(&[7; 1024]) {
                break error;
            }
        };
        assert_eq!(error.kind(), std::io::ErrorKind::StorageFull, "{error}");
    }

    fn make_room(&self) {
        fs::remove_file(self.at.join("ballast")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: whoever still has a file open there lets go of it when it ends.
        let _ = Command::new("umount").arg("--lazy").arg(&self.at).status();
    }
}

/// The number of the last run that the agent has written down.
fn last_run(agent: &Agent) -> u64 {
    let text = fs::read(agent.state().join("agent.json")).unwrap();
    serde_json::from_slice::<Value>(&text).unwrap()["last_run"].as_u64().unwrap()
}

#[test]
fn an_agent_on_a_full_disk_warns_and_backs_up_and_writes_its_memory_when_there_is_room_again() {
    let site = Site::new();
    let token = site.folder().join("token");
    fs::write(&token, TOKEN).unwrap();
    let agent = Agent::of(&site, &format!("[agent.backup]\nschedule = \"0 2 1 1 *\"\n[serve]\ntoken_file = {token:?}"));
    let Some(disk) = Disk::mount(agent.state(), 64) else { return };
    let failures = "haulout_agent_state_write_failures_total";
    let mut running = agent.start(&site);
    agent.wait_for(&mut running, SUCCEEDED, |runs| runs >= 1.0);
    running.wait_for("it to be written down", |_| last_run(&agent) == 1);
    assert_eq!(agent.metric(failures), Some(0.0));
    // It fills up while the agent runs.
    disk.fill();
    let begin = |running: &mut Running, runs: f64| {
        let answer = agent.page().begin("backup", Some(TOKEN));
        assert_eq!(answer.status, 202, "{}", answer.body);
        agent.wait_for(running, SUCCEEDED, |succeeded| succeeded >= runs);
    };
    begin(&mut running, 2.0);
    begin(&mut running, 3.0);
    assert!(agent.metric(failures).is_some_and(|times| times >= 4.0), "{:?}", agent.metric(failures));
    assert_eq!((last_run(&agent), agent.get("/readyz").unwrap().0), (1, 200), "what was written before stays whole");
    let run = running.kill9();
    let warnings = run.stderr.matches("cannot write what is to be remembered").count();
    assert!(warnings == 1 && run.stderr.contains("No space left"), "told {warnings} times: {}", run.stderr);
    // Another begins on the full disk, with what was remembered last.
    let mut running = agent.start(&site);
    running.wait_for_line("word of the disk", |line| line.contains("No space left"));
    begin(&mut running, 1.0);
    assert_eq!(last_run(&agent), 1);
    disk.make_room();
    begin(&mut running, 2.0);
    running.wait_for("it to be written down", |_| last_run(&agent) >= 3);
    let told = agent.metric(failures);
    begin(&mut running, 3.0);
    assert_eq!(agent.metric(failures), told);
    running.signal(Signal::TERM);
    let run = running.wait().ok();
    assert_eq!(run.stderr.matches("cannot write what is to be remembered").count(), 1, "{}", run.stderr);
    let taken: Vec<_> = site.listing().iter().map(|backup| backup["kind"].as_str().unwrap().to_owned()).collect();
    assert_eq!(taken, ["full", "incremental", "incremental", "incremental", "incremental", "incremental"]);
    assert_eq!(site.leases_held(), [""; 0]);
}
