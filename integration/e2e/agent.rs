//! The agent beside a server.

use std::{
    fs,
    io::{Read, Write},
    net::TcpListener,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use serde_json::Value;

use crate::support::{Agent, Haulout, Site, Tool, random::Random, site::assert_says, wait};

/// Kinds and ids of the backups.
fn backups(site: &Site) -> Vec<String> {
    site.listing().iter().map(|backup| backup["kind"].as_str().unwrap().to_owned()).collect()
}

const SUCCEEDED: &str = "haulout_job_runs_total{job=\"backup\",outcome=\"succeeded\"}";

#[test]
fn an_agent_takes_the_first_backup_at_once_and_others_by_the_schedule() {
    let site = Site::new();
    let agent = Agent::of(
        &site,
        "[agent.backup]\nschedule = \"* * * * *\"\n[agent.check]\nschedule = \"* * * * *\"\neverything_within = \"2m\"",
    );
    let mut running = agent.start(&site);
    agent.wait_for(&mut running, SUCCEEDED, |runs| runs >= 1.0);
    assert_eq!(backups(&site), ["full"]);
    assert_eq!(agent.get("/readyz").unwrap(), (200, "ok\n".to_owned()));
    assert_eq!(agent.get("/healthz").unwrap().0, 200);
    agent.wait_for(&mut running, SUCCEEDED, |runs| runs >= 2.0);
    agent.wait_for(&mut running, "haulout_job_runs_total{job=\"check\",outcome=\"succeeded\"}", |runs| runs >= 1.0);
    assert_eq!(backups(&site)[..2], ["full", "incremental"]);
    assert!(agent.metric("haulout_job_last_success_age_seconds{job=\"backup\"}").is_some_and(|age| age < 60.0));
    assert_eq!(agent.metric("haulout_job_last_outcome{job=\"backup\",outcome=\"succeeded\"}"), Some(1.0));
    running.signal(Signal::TERM);
    let run = running.wait().ok();
    assert!(run.stderr.contains("run 1 begins: Backup (first)"), "{}", run.stderr);
    assert!(run.stderr.contains("(schedule)"), "{}", run.stderr);
    assert_eq!(site.leases_held(), [""; 0]);
}

#[test]
fn an_agent_that_is_told_to_end_ends_its_backup_and_the_next_one_takes_it() {
    let site = Site::new();
    let tool = Tool::held(1_000_000);
    let program = tool.flag().split_once('=').unwrap().1.to_owned();
    let sections = format!("# mariadb: mariadb_backup = {program:?}\n[agent.backup]\nschedule = \"0 2 * * *\"");
    let agent = Agent::of(&site, &sections);
    let mut running = agent.start(&site);
    running.wait_for("the backup to stand still", |_| tool.has("held"));
    let asked = Instant::now();
    running.signal(Signal::TERM);
    let run = running.wait().ok();
    assert!(asked.elapsed().as_secs() < 30, "{:?}", asked.elapsed());
    assert!(run.stderr.contains("run 1 ended: Backup interrupted"), "{}", run.stderr);
    assert_eq!((backups(&site).len(), site.leases_held()), (0, Vec::new()));
    // The tool holds its first backup up, and no other.
    let mut running = agent.start(&site);
    agent.wait_for(&mut running, SUCCEEDED, |runs| runs >= 1.0);
    running.signal(Signal::TERM);
    let run = running.wait().ok();
    assert!(run.stderr.contains("run 2 begins: Backup (retry"), "{}", run.stderr);
    assert_eq!(backups(&site), ["full"]);
}

#[test]
fn a_second_agent_of_one_state_directory_is_told_of_the_first() {
    let site = Site::new();
    let agent = Agent::of(&site, "[agent.prune]\nschedule = \"0 2 * * *\"\n[prune]\nkeep_last = 3");
    let mut running = agent.start(&site);
    running.wait_for("it to be ready", |_| agent.get("/readyz").is_some());
    let arguments = ["--json", "--config", agent.file.to_str().unwrap(), "agent"];
    let second = site.haulout.run(arguments).exits(11);
    assert_says(&second, 11, &format!("process {}", running.pid()), "state_dir");
    running.signal(Signal::TERM);
    running.wait().ok();
}

#[test]
fn settings_that_change_are_taken_over_and_wrong_ones_are_not() {
    let site = Site::new();
    let agent = Agent::of(&site, "[agent.prune]\nschedule = \"0 2 * * *\"\n[prune]\nkeep_last = 3");
    let mut running = agent.start(&site);
    let good = "haulout_config_last_reload_successful";
    agent.wait_for(&mut running, good, |good| good == 1.0);
    agent.write(&site, "[agent.prune]\nschedule = \"0 25 * * *\"\n[prune]\nkeep_last = 3");
    agent.wait_for(&mut running, good, |good| good == 0.0);
    assert!(
        agent.metric("haulout_job_next_run_timestamp_seconds{job=\"prune\"}").is_some(),
        "the old ones are in force"
    );
    agent.write(&site, "[agent.backup]\nschedule = \"0 2 * * *\"");
    running.signal(Signal::HUP);
    agent.wait_for(&mut running, good, |good| good == 1.0);
    agent.wait_for(&mut running, SUCCEEDED, |runs| runs >= 1.0);
    assert!(agent.metric("haulout_job_next_run_timestamp_seconds{job=\"prune\"}").is_none());
    running.signal(Signal::TERM);
    let run = running.wait().ok();
    assert!(run.stderr.contains("not taken over") && run.stderr.contains("[agent.prune] schedule"), "{}", run.stderr);
}

#[test]
fn an_agent_archives_the_binary_log_and_takes_its_archiver_along_when_it_is_killed() {
    let site = crate::archive::shop(crate::support::ServerOptions::new());
    let agent = Agent::of(&site, "[agent.archive]\nenabled = true\n[archive]\nevery = \"1s\"");
    let mut running = agent.start(&site);
    agent.wait_for(&mut running, "haulout_archive_following", |following| following == 1.0);
    crate::archive::write(&site.server, 20);
    let binlogs = crate::archive::at(&site);
    crate::archive::wait_for_all(&mut running, &binlogs, &site.server);
    running.kill9();
    // Its archiver ends with it and lets go of the lease, or the next one would wait for it.
    let mut running = agent.start(&site);
    agent.wait_for(&mut running, "haulout_archive_following", |following| following == 1.0);
    crate::archive::write(&site.server, 20);
    crate::archive::wait_for_all(&mut running, &binlogs, &site.server);
    running.signal(Signal::TERM);
    running.wait().ok();
    crate::archive::assert_all(&binlogs, &site.server);
    assert_eq!(site.leases_held(), [""; 0]);
}

#[test]
fn a_settings_file_is_checked_and_shown_before_an_agent_has_it() {
    let site = Site::new();
    let agent = Agent::of(&site, "[agent.backup]\nschedule = \"30 2 * * *\"\nfull_schedule = \"0 3 * * 0\"");
    let file = agent.file.to_str().unwrap();
    let run = site.haulout.run(["--json", "--config", file, "config", "check"]).ok();
    let planned: Vec<_> = run.messages.iter().filter(|line| line["message_type"] == "planned").collect();
    assert_eq!(planned.len(), 2);
    assert!(planned.iter().all(|line| line["next"].as_array().unwrap().len() == 5), "{planned:?}");
    assert!(planned[0]["next"][0].as_str().unwrap().contains("T02:30:00"), "{}", planned[0]);
    assert_eq!((&run.summary()["server"], &run.summary()["planned"]), (&"db1".into(), &2.into()));
    let shown = site.haulout.run(["--json", "--config", file, "config", "show"]).ok();
    let setting = |key: &str| shown.messages.iter().find(|line| line["key"] == key).unwrap().clone();
    assert_eq!(setting("[agent] name")["value"], "db1");
    assert!(setting("[agent] name")["origin"].as_str().unwrap().starts_with(file));
    assert_eq!(setting("[repository] url")["origin"], "--repo");
    assert_eq!(setting("[backup] uploads")["origin"], "default");
    assert!(setting("[s3] region")["value"].is_null());

    for (wrong, says) in [
        ("[agent.backup]\nschedule = \"30 2 * *\"", "haulout.toml:2: [agent.backup] schedule: expected five fields"),
        ("[agent.backup]\nschedul = \"30 2 * * *\"", "unknown key `schedul` in [agent.backup]"),
        ("[agent.bakcup]\nschedule = \"30 2 * * *\"", "unknown section [agent.bakcup]"),
        ("[agent.drill]\nschedule = \"30 2 * * *\"", "no scratch directory is named"),
        ("[agent.copy]\nschedule = \"30 2 * * *\"", "no place is named for the copy"),
        ("", "nothing to do"),
    ] {
        agent.write(&site, wrong);
        for command in [&["config", "check"][..], &["agent"]] {
            let run = site.haulout.run([&["--json", "--config", file], command].concat()).exits(2);
            assert_says(&run, 2, says, "");
        }
    }
    fs::remove_file(file).unwrap();
    assert_says(&site.haulout.run(["--json", "agent"]).exits(2), 2, "there is none", "--config");
}

/// What a listener was told; one that hangs answers nobody.
fn listener(answers: bool) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let heard = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&heard);
    thread::spawn(move || {
        let mut held = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            if !answers {
                held.push(stream);
                continue;
            }
            let mut text = Vec::new();
            let mut buffer = [0; 64 << 10];
            // One that is whole: its length is told in its head.
            while let Ok(length) = stream.read(&mut buffer) {
                text.extend_from_slice(&buffer[..length]);
                let so_far = String::from_utf8_lossy(&text).into_owned();
                let (head, body) = so_far.split_once("\r\n\r\n").unwrap_or((&so_far, ""));
                let wanted = head.to_lowercase().lines().find_map(|line| {
                    line.strip_prefix("content-length: ").map(|length| length.parse::<usize>().unwrap())
                });
                if length == 0 || so_far.contains("\r\n\r\n") && body.len() >= wanted.unwrap_or(0) {
                    break;
                }
            }
            sink.lock().unwrap().push(String::from_utf8_lossy(&text).into_owned());
            let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n");
        }
    });
    (url, heard)
}

#[test]
fn hooks_webhooks_and_heartbeat_tell_of_a_backup_that_a_hanging_one_does_not_hold_up() {
    let site = Site::new();
    let ((hanging, _), (webhook, told), (heartbeat, beats)) = (listener(false), listener(true), listener(true));
    let (before, after) = (site.folder().join("before"), site.folder().join("after"));
    let sections = format!(
        "[agent.backup]\nschedule = \"0 2 * * *\"\n[agent.hooks]\nbefore = \"cat > {}\"\nafter = \"cat > {}\"\n\
         [agent.webhooks]\nurls = [{hanging:?}, {webhook:?}]\n[agent.heartbeat]\nurls = [{heartbeat:?}]",
        before.display(),
        after.display()
    );
    let agent = Agent::of(&site, &sections);
    let mut running = agent.start(&site);
    agent.wait_for(&mut running, SUCCEEDED, |runs| runs >= 1.0);
    running.wait_for("the heartbeat", |_| !beats.lock().unwrap().is_empty());
    running.wait_for("both webhooks", |_| told.lock().unwrap().len() >= 2);
    running.wait_for("the hook after it", |_| fs::read(&after).is_ok_and(|body| !body.is_empty()));
    let body = |text: &str| -> Value { serde_json::from_str(text.split_once("\r\n\r\n").unwrap().1).unwrap() };
    let stories: Vec<Value> = told.lock().unwrap().iter().map(|text| body(text)).collect();
    assert_eq!((&stories[0]["event"], &stories[1]["event"]), (&"run_begins".into(), &"run_ended".into()));
    let run = &stories[1]["run"];
    assert_eq!((&run["job"], &run["outcome"], &run["cause"]), (&"backup".into(), &"succeeded".into(), &"first".into()));
    assert!(run["summary"]["backup_id"].is_string(), "{run}");
    let read = |path| serde_json::from_slice::<Value>(&fs::read(path).unwrap()).unwrap();
    assert_eq!((read(&before), read(&after)), (stories[0].clone(), stories[1].clone()));
    assert!(beats.lock().unwrap()[0].starts_with("GET /hook"));
    for (name, at_least) in [
        ("haulout_backup_read_bytes", 1e6),
        ("haulout_backup_logical_bytes", 1e6),
        ("haulout_store_requests_total{kind=\"put\"}", 3.0),
        ("haulout_store_sent_bytes_total", 1e4),
        ("haulout_run_memory_peak_bytes{job=\"backup\"}", 1e6),
        ("haulout_backup_spool_limit_bytes", 0.0),
    ] {
        assert!(agent.metric(name).is_some_and(|value| value >= at_least), "{name}: {:?}", agent.metric(name));
    }
    running.signal(Signal::TERM);
    running.wait().ok();
}

#[test]
fn a_hook_that_is_required_and_fails_keeps_a_run_from_beginning() {
    let site = Site::new();
    let sections = "[agent.backup]\nschedule = \"0 2 * * *\"\n[agent.hooks]\nbefore = \"echo not now >&2; exit 1\"\n";
    let agent = Agent::of(&site, &format!("{sections}required = true"));
    let mut running = agent.start(&site);
    let skipped = "haulout_job_runs_total{job=\"backup\",outcome=\"skipped\"}";
    agent.wait_for(&mut running, skipped, |runs| runs >= 1.0);
    running.signal(Signal::TERM);
    let run = running.wait().ok();
    assert!(run.stderr.contains("not now"), "{}", run.stderr);
    assert_eq!(backups(&site).len(), 0);
    // One that is not required is told, and no more.
    agent.write(&site, &sections.replace("0 2", "* *"));
    let mut running = agent.start(&site);
    agent.wait_for(&mut running, SUCCEEDED, |runs| runs >= 1.0);
    assert_eq!(agent.metric("haulout_hook_failures_total"), Some(1.0));
    running.signal(Signal::TERM);
    running.wait().ok();
}

#[test]
fn an_agent_that_is_killed_again_and_again_harms_no_backup() {
    let site = Site::new();
    let agent = Agent::of(&site, "[agent.backup]\nschedule = \"* * * * *\"");
    // The same moments at each run.
    let mut random = Random::new(7);
    for _ in 0..5 {
        site.change();
        let mut running = agent.start(&site);
        running.wait_for_line("a run", |line| line.contains("begins: Backup"));
        let begun = Instant::now();
        let pause = Duration::from_millis(random.below(1500));
        wait::try_until(pause, || None::<()>);
        assert!(begun.elapsed() >= pause);
        running.kill9();
    }
    let mut running = agent.start(&site);
    agent.wait_for(&mut running, SUCCEEDED, |runs| runs >= 1.0);
    running.signal(Signal::TERM);
    running.wait().ok();
    wait::until("runs of agents that are gone to end", Duration::from_secs(30), || {
        site.leases_held().is_empty().then_some(())
    });
    let check = site.haulout.run(["--json", "check", "--read-data"]).ok();
    assert!(check.summary()["backups"].as_u64().unwrap() >= 1);
    let last = site.listing().pop().unwrap();
    site.restored(&last);
}

#[test]
fn a_server_that_is_away_is_waited_for() {
    let mut site = Site::new();
    site.server.stop();
    let agent = Agent::of(&site, "[agent.backup]\nschedule = \"0 2 * * *\"");
    let mut running = agent.start(&site);
    let failed = "haulout_job_runs_total{job=\"backup\",outcome=\"failed\"}";
    agent.wait_for(&mut running, failed, |runs| runs >= 2.0);
    assert_eq!(agent.get("/healthz").unwrap().0, 200);
    site.server.restart();
    agent.wait_for(&mut running, SUCCEEDED, |runs| runs >= 1.0);
    running.signal(Signal::TERM);
    running.wait().ok();
    assert_eq!(backups(&site), ["full"]);
}

#[test]
fn a_state_directory_that_takes_nothing_more_costs_no_backup_and_a_broken_memory_is_set_aside() {
    let site = Site::new();
    let agent = Agent::of(&site, "[agent.backup]\nschedule = \"0 2 * * *\"");
    let state = site.folder().join("state");
    // A directory in the place of the new file keeps it from being written, whoever writes.
    fs::create_dir_all(state.join("agent.new")).unwrap();
    fs::write(state.join("agent.json"), "{ broken").unwrap();
    let mut running = agent.start(&site);
    agent.wait_for(&mut running, SUCCEEDED, |runs| runs >= 1.0);
    assert!(agent.metric("haulout_agent_state_write_failures_total").is_some_and(|times| times >= 1.0));
    running.signal(Signal::TERM);
    let run = running.wait().ok();
    assert!(
        run.stderr.contains("it is set aside") && run.stderr.contains("cannot write what is to be"),
        "{}",
        run.stderr
    );
    let aside = fs::read_dir(&state)
        .unwrap()
        .flatten()
        .any(|entry| entry.file_name().to_string_lossy().starts_with("agent.broken-"));
    assert!(aside);
}

#[test]
fn two_agents_of_one_server_on_two_machines_lose_nothing() {
    let site = crate::archive::shop(crate::support::ServerOptions::new());
    let sections =
        "[agent.backup]\nschedule = \"* * * * *\"\n[agent.archive]\nenabled = true\n[archive]\nevery = \"1s\"";
    let (one, other) = (Agent::of(&site, sections), Agent::of_machine(&site, "other", sections));
    let (mut first, mut second) = (one.start(&site), other.start(&site));
    let followed = |agent: &Agent| agent.metric("haulout_archive_following") == Some(1.0);
    first.wait_for("one of them to archive", |_| followed(&one) || followed(&other));
    crate::archive::write(&site.server, 20);
    one.wait_for(&mut first, SUCCEEDED, |runs| runs >= 1.0);
    other.wait_for(&mut second, SUCCEEDED, |runs| runs >= 1.0);
    let binlogs = crate::archive::at(&site);
    crate::archive::wait_for_all(&mut first, &binlogs, &site.server);
    // The other takes over when the one is gone.
    first.signal(Signal::TERM);
    first.wait().ok();
    crate::archive::write(&site.server, 20);
    crate::archive::wait_for_all(&mut second, &binlogs, &site.server);
    second.signal(Signal::TERM);
    second.wait().ok();
    crate::archive::assert_all(&binlogs, &site.server);
    site.haulout.run(["--json", "check", "--read-data"]).ok();
    assert_eq!(site.leases_held(), [""; 0]);
}

#[test]
fn a_drill_by_the_schedule_is_a_proof_that_the_metrics_tell() {
    let site = Site::new();
    let scratch = site.folder().join("d");
    let agent = Agent::of(
        &site,
        &format!(
            "[agent.backup]\nschedule = \"0 2 * * *\"\n[agent.drill]\nschedule = \"* * * * *\"\n[drill]\nscratch = {scratch:?}"
        ),
    );
    let mut running = agent.start(&site);
    agent.wait_for(&mut running, "haulout_job_runs_total{job=\"drill\",outcome=\"succeeded\"}", |runs| runs >= 1.0);
    assert!(agent.metric("haulout_restore_rto_seconds").is_some_and(|seconds| seconds > 0.0));
    assert!(agent.metric("haulout_restore_proven_timestamp_seconds").is_some());
    running.signal(Signal::TERM);
    running.wait().ok();
    assert!(site.listing()[0]["proven"].is_string());
}

#[test]
fn the_example_for_machines_is_right() {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/infra/haulout.toml.example");
    let run = Haulout::new().run(["--json", "--config", example, "config", "check"]).ok();
    assert_eq!((&run.summary()["url"], &run.summary()["archive"]), (&"s3://backups/db1".into(), &true.into()));
    let jobs: Vec<_> = run.messages.iter().filter_map(|line| line["job"].as_str()).collect();
    assert_eq!(jobs, ["backup", "check", "drill", "prune", "compact"]);
}
