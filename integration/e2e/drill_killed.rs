//! Drills that are killed, stopped, or meet each other.

use std::{fs, path::Path, time::Duration};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use super::drill::{arguments, drill, scratch_of, working_in};
use crate::support::{Site, Tool, binary::Running, site::assert_says, wait};

const LIMIT: Duration = Duration::from_secs(60);

/// An assertion that a drill waits for.
const LONG: [&str; 2] = ["--assert", "SELECT SLEEP(600)"];

fn spawn(site: &Site, more: &[&str]) -> Running {
    site.haulout.spawn(arguments(site, more))
}

/// Waits until the drill asks [`LONG`].
fn asks(running: &mut Running) {
    running.wait_for_line("the check's end", |line| {
        line.contains("\"phase\":\"check\"") && line.contains("\"ended\":true")
    });
}

/// The process of the drill's server.
fn server(scratch: &Path) -> Pid {
    let text = fs::read_to_string(scratch.join("run/haulout.pid")).unwrap();
    Pid::from_raw(text.trim().parse().unwrap()).unwrap()
}

/// Shells that are children of `parent`.
fn shells_of(parent: i32) -> Vec<Pid> {
    let processes = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let is_one = |pid: &i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let Some((name, rest)) = stat.rsplit_once(") ") else { return false };
        let of_parent = rest.split_ascii_whitespace().nth(1) == Some(parent.to_string().as_str());
        of_parent && ["(sh", "(dash", "(bash"].iter().any(|shell| name.ends_with(shell))
    };
    processes.filter(is_one).filter_map(Pid::from_raw).collect()
}

#[test]
fn a_drill_that_is_killed_in_any_phase_is_cleaned_up_by_the_next_which_passes() {
    let site = Site::new();
    site.backed_up(&[]);
    let scratch = scratch_of(&site);
    let marks: [(&str, &[&str]); 8] = [
        ("MiB are free", &[]),
        ("\"phase\":\"fetch\"", &[]),
        ("the fetch's end", &["\"phase\":\"fetch\"", "\"ended\":true"]),
        ("\"phase\":\"prepare\"", &[]),
        ("the prepare's end", &["\"phase\":\"prepare\"", "\"ended\":true"]),
        ("starting mariadbd", &[]),
        ("\"phase\":\"check\"", &[]),
        ("the check's end", &["\"phase\":\"check\"", "\"ended\":true"]),
    ];
    for (name, texts) in marks {
        let mut running = spawn(&site, &LONG);
        running.wait_for_line(name, |line| {
            if texts.is_empty() { line.contains(name) } else { texts.iter().all(|text| line.contains(text)) }
        });
        running.kill9();
        assert!(scratch.join("haulout-drill.json").exists(), "{name}");
    }
    let run = drill(&site, &[]).ok();
    assert!(run.stdout.contains("what a killed drill had left"), "{}", run.stdout);
    assert_eq!(site.objects("proofs").len(), 1, "those that were killed proved nothing");
}

#[test]
fn the_server_of_a_killed_drill_ends_with_it() {
    let site = Site::new();
    site.backed_up(&[]);
    let scratch = scratch_of(&site);
    let mut running = spawn(&site, &LONG);
    asks(&mut running);
    let server = server(&scratch);
    assert!(test_kill_process(server).is_ok());
    running.kill9();
    wait::until("the server's end", LIMIT, || working_in(&scratch).is_empty().then_some(()));
    drill(&site, &[]).ok();
}

#[test]
fn a_server_that_outlives_its_killed_drill_is_ended_by_the_next_and_no_other_is() {
    let site = Site::new();
    site.backed_up(&[]);
    let scratch = scratch_of(&site);
    let mut running = spawn(&site, &LONG);
    asks(&mut running);
    let server = server(&scratch);
    // Whoever would end the server with the drill is killed first, as when all of a service's processes but one are.
    let keepers = shells_of(i32::try_from(running.pid()).unwrap());
    assert_eq!(keepers.len(), 1, "{keepers:?}");
    let watchers = shells_of(keepers[0].as_raw_nonzero().get());
    assert_eq!(watchers.len(), 1, "{watchers:?}");
    for shell in watchers.into_iter().chain(keepers) {
        kill_process(shell, Signal::KILL).unwrap();
    }
    running.kill9();
    assert_eq!(working_in(&scratch), [server.as_raw_nonzero().get()]);
    let run = drill(&site, &[]).ok();
    assert!(run.stdout.contains("what a killed drill had left"), "{}", run.stdout);
    // Whoever inherited it may take a moment to bury it.
    wait::until("the server's end", LIMIT, || test_kill_process(server).is_err().then_some(()));
    site.server.sql("SELECT 1");
}

#[test]
fn a_prepare_that_outlives_its_killed_drill_is_ended_by_the_next() {
    let site = Site::new();
    site.backed_up(&[]);
    let scratch = scratch_of(&site);
    // Stands still while it holds InnoDB's lock on the files; in a session of its own, or the kernel would hang up on it with the drill.
    let tool = Tool::new(
        "for a in \"$@\"; do case $a in --target-dir=*) dir=${a#--target-dir=} ;; esac; done
         inode=$(stat -c %i \"$dir/ibdata1\")
         setsid \"$real\" \"$@\" & tool=$!
         until grep -q \":$inode \" /proc/locks; do kill -0 $tool || exit 1; done
         kill -STOP $tool; echo $tool > \"$here/pid\"; mv \"$here/pid\" \"$here/stopped\"; wait $tool",
    );
    // A short prepare can be over before its lock was seen: that drill is none of those wanted here.
    let held = (0..10).find_map(|_| {
        let mut running = spawn(&site, &[&tool.flag()]);
        wait::until("the prepare to stand still, or the end", LIMIT, || {
            (tool.has("stopped") || running.ended()).then_some(())
        });
        tool.has("stopped").then_some(running)
    });
    held.expect("a prepare that was held").kill9();
    let stopped = fs::read_to_string(tool.folder().join("stopped")).unwrap();
    let stopped = Pid::from_raw(stopped.trim().parse().unwrap()).unwrap();
    assert_eq!(working_in(&scratch), [stopped.as_raw_nonzero().get()]);
    drill(&site, &[]).ok();
    wait::until("the prepare's end", LIMIT, || test_kill_process(stopped).is_err().then_some(()));
    assert!(!scratch.exists());
}

#[test]
fn a_drill_that_is_stopped_leaves_nothing_and_records_nothing() {
    let site = Site::new();
    site.backed_up(&[]);
    for (signal, what) in
        [(Signal::INT, "\"phase\":\"fetch\""), (Signal::TERM, "\"phase\":\"check\""), (Signal::INT, "")]
    {
        let mut running = spawn(&site, &LONG);
        if what.is_empty() {
            asks(&mut running)
        } else {
            running.wait_for_line(what, |line| line.contains(what))
        }
        running.signal(signal);
        let run = running.wait().exits(130);
        assert_says(&run, 130, "stopped", "");
        assert!(!scratch_of(&site).exists(), "{}", run.stdout);
        assert_eq!(working_in(&scratch_of(&site)), [0; 0]);
    }
    assert_eq!(site.objects("proofs").len(), 0);
}

#[test]
fn of_two_drills_in_one_directory_the_second_is_refused_and_the_first_goes_on() {
    let site = Site::new();
    site.backed_up(&[]);
    let mut first = spawn(&site, &["--assert", "SELECT SLEEP(8) = 0"]);
    asks(&mut first);
    let second = site.haulout.run(arguments(&site, &[])).exits(11);
    assert_says(
        &second,
        11,
        &format!("another drill works in {:?}: process {}", scratch_of(&site), first.pid()),
        "--scratch",
    );
    first.wait().ok();
    assert!(!scratch_of(&site).exists());
}
