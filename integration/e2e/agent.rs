//! The agent beside a server.

use std::{fs, time::Instant};

use rustix::process::Signal;

use crate::support::{Agent, Site, Tool, site::assert_says};

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
