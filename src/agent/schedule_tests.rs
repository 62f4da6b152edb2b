use jiff::tz::TimeZone;
use proptest::prelude::*;

use super::*;
use crate::agent::Cron;

fn at(text: &str) -> Timestamp {
    Timestamp(text.parse().unwrap())
}

fn config(planned: &[(Task, &str)]) -> AgentConfig {
    let planned = planned
        .iter()
        .map(|(task, text)| Planned { task: *task, cron: Cron::parse(text, &TimeZone::UTC).unwrap() })
        .collect();
    AgentConfig {
        name: "db1".to_owned(),
        repository: "file:///x".to_owned(),
        file: "/etc/haulout.toml".into(),
        listen: None,
        state_dir: "/var/lib/haulout".into(),
        jitter_seconds: 0,
        nice: 0,
        io_class: None,
        planned,
        full_every_seconds: None,
        archive: false,
        check_parts: None,
        drill_time: None,
        hooks: super::super::hooks::Hooks::default(),
        webhooks: Vec::new(),
        heartbeat: Vec::new(),
        arguments: Vec::new(),
    }
}

/// An agent whose runs end at once.
struct World {
    config: AgentConfig,
    scheduler: Scheduler,
    memory: Memory,
}

impl World {
    /// One that knows of a backup.
    fn new(config: AgentConfig, now: Timestamp) -> World {
        let mut world = World { config, scheduler: Scheduler::default(), memory: Memory::default() };
        let last = Last { outcome: Outcome::Succeeded, finished: now, seconds: 1, succeeded: Some(now) };
        world.memory.last.insert(Job::Backup, last);
        world.scheduler.settle(&world.config, &mut world.memory, now);
        world
    }

    fn begin(&mut self, now: Timestamp) -> Vec<(u64, Task, Cause)> {
        self.scheduler.look(&self.config, &mut self.memory, now);
        let mut begun = Vec::new();
        loop {
            let running: Vec<Job> = self.memory.begun.iter().map(|begun| begun.task.job()).collect();
            let Some((task, cause)) = self.scheduler.next(&running) else { return begun };
            let run = self.scheduler.begin(&self.config, &mut self.memory, task, cause, now);
            begun.push((run, task, cause));
        }
    }

    fn end(&mut self, run: u64, code: Option<i32>, now: Timestamp) {
        self.end_with(run, code, now, serde_json::json!({"kind": "full"}));
    }

    fn end_with(&mut self, run: u64, code: Option<i32>, now: Timestamp, summary: serde_json::Value) {
        let begun = self.memory.begun.iter().find(|begun| begun.run == run).unwrap();
        let outcome = match code {
            Some(0) => Outcome::Succeeded,
            Some(3) => Outcome::Damaged,
            Some(130) => Outcome::Interrupted,
            _ => Outcome::Failed,
        };
        let ended = Ended {
            run,
            job: begun.task.job(),
            cause: begun.cause.clone(),
            started: begun.started,
            finished: now,
            outcome,
            exit_code: code,
            message: String::new(),
            hint: None,
            summary: Some(summary),
        };
        self.scheduler.end(&self.config, &mut self.memory, ended, 60);
    }

    /// What begins at `now`, and ends at once and well.
    fn pass(&mut self, now: Timestamp) -> Vec<(Task, Cause)> {
        let mut passed = Vec::new();
        loop {
            let begun = self.begin(now);
            if begun.is_empty() {
                return passed;
            }
            for (run, task, cause) in begun {
                passed.push((task, cause));
                self.end(run, Some(0), now);
            }
        }
    }

    /// A start of a new process with the same memory.
    fn restart(&mut self, now: Timestamp) {
        self.scheduler = Scheduler::default();
        recover(&mut self.memory, now);
    }
}

const NIGHTLY: &[(Task, &str)] = &[(Task::Backup, "0 2 * * *")];

#[test]
fn the_first_backup_of_an_agent_that_knows_of_none_is_taken_at_once() {
    let start = at("2026-11-28T08:00:00Z");
    let mut world = World::new(config(NIGHTLY), start);
    world.memory.last.clear();
    assert_eq!(world.pass(start), [(Task::Backup, Cause::First)]);
    assert_eq!(world.pass(start.after(3600)), []);
    assert_eq!(world.pass(at("2026-11-29T02:00:01Z")), [(Task::Backup, Cause::Schedule)]);
}

#[test]
fn runs_that_were_missed_are_caught_up_with_once() {
    let start = at("2026-11-28T08:00:00Z");
    let mut world = World::new(config(NIGHTLY), start);
    assert_eq!(world.pass(start), []);
    world.restart(at("2026-12-09T12:00:00Z"));
    assert_eq!(world.pass(at("2026-12-09T12:00:00Z")), [(Task::Backup, Cause::Missed)]);
    assert_eq!(world.pass(at("2026-12-09T12:00:05Z")), []);
    assert_eq!(world.pass(at("2026-12-10T02:00:00Z")), [(Task::Backup, Cause::Schedule)]);
}

#[test]
fn a_run_that_outlasts_its_next_time_is_followed_by_one() {
    let start = at("2026-11-28T08:30:00Z");
    let mut world = World::new(config(&[(Task::Backup, "0 * * * *")]), start);
    let begun = world.begin(at("2026-11-28T09:00:00Z"));
    for hour in 10..13 {
        assert_eq!(world.begin(at(&format!("2026-11-28T{hour}:00:00Z"))), [], "no two at a time");
    }
    let end = at("2026-11-28T12:30:00Z");
    world.end(begun[0].0, Some(0), end);
    assert_eq!(world.pass(end).len(), 1);
    assert_eq!(world.pass(at("2026-11-28T13:00:00Z")).len(), 1);
}

#[test]
fn what_excludes_each_other_waits_and_comes() {
    let start = at("2026-11-28T01:00:00Z");
    let tasks = [
        (Task::Backup, "0 2 * * *"),
        (Task::Prune, "0 2 * * *"),
        (Task::Check, "0 2 * * *"),
        (Task::Drill, "0 2 * * *"),
    ];
    let mut world = World::new(config(&tasks), start);
    let night = at("2026-11-28T02:00:00Z");
    let begun = world.begin(night);
    assert_eq!(begun.iter().map(|(_, task, _)| *task).collect::<Vec<_>>(), [Task::Backup, Task::Check]);
    world.end(begun[0].0, Some(0), night.after(100));
    assert_eq!(world.begin(night.after(100)), []);
    world.end(begun[1].0, Some(0), night.after(200));
    let drill = world.begin(night.after(200));
    assert_eq!(drill[0].1, Task::Drill);
    world.end(drill[0].0, Some(0), night.after(300));
    assert_eq!(world.begin(night.after(300))[0].1, Task::Prune);
}

#[test]
fn a_full_backup_is_a_backup_and_takes_its_place() {
    let start = at("2026-11-28T01:00:00Z");
    let mut world = World::new(config(&[(Task::Backup, "0 2 * * *"), (Task::FullBackup, "0 2 * * 0")]), start);
    assert_eq!(world.pass(at("2026-11-28T02:00:00Z")), [(Task::Backup, Cause::Schedule)]);
    assert_eq!(world.pass(at("2026-11-29T02:00:00Z")), [(Task::FullBackup, Cause::Schedule)], "a Sunday");
}

#[test]
fn a_full_backup_comes_as_often_as_was_asked_for() {
    let mut settings = config(NIGHTLY);
    settings.full_every_seconds = Some(7 * 86_400);
    let start = at("2026-11-28T02:00:07Z");
    let mut world = World::new(settings, start);
    world.memory.last_full = Some(start);
    let mut fulls = Vec::new();
    for day in 1..30 {
        // A few seconds earlier or later each day.
        let now = at("2026-11-28T02:00:00Z").after(day * 86_400 + day % 5);
        let full = is_full(&world.config, &world.memory, Task::Backup, now);
        let begun = world.begin(now);
        let kind = if full { "full" } else { "incremental" };
        world.end_with(begun[0].0, Some(0), now.after(60), serde_json::json!({"kind": kind}));
        if full {
            fulls.push(day);
        }
    }
    assert_eq!(fulls, [7, 14, 21, 28]);
}

#[test]
fn failures_that_pass_are_repeated_with_pauses_that_grow_and_others_are_not() {
    let start = at("2026-11-28T01:00:00Z");
    for code in [Some(11), Some(22), Some(23), None] {
        let mut world = World::new(config(NIGHTLY), start);
        let mut now = at("2026-11-28T02:00:00Z");
        let mut begun = world.begin(now);
        for pause in [60, 120, 240, 480, 960, 1800, 1800] {
            world.end(begun[0].0, code, now);
            assert_eq!(world.begin(now.after(pause - 1)), [], "{code:?}");
            now = now.after(pause);
            begun = world.begin(now);
            assert_eq!((begun[0].1, begun[0].2), (Task::Backup, Cause::Retry), "{code:?} {pause}");
        }
        world.end(begun[0].0, Some(0), now);
        assert!(world.memory.retries.is_empty() && world.begin(now.after(1800)).is_empty());
    }
    for code in [1, 2, 3, 10, 12, 20] {
        let mut world = World::new(config(NIGHTLY), start);
        world.memory.last.clear();
        let now = at("2026-11-28T02:00:00Z");
        let begun = world.begin(now);
        world.end(begun[0].0, Some(code), now);
        assert_eq!(world.begin(now.after(7200)), [], "{code}");
    }
}

#[test]
fn a_repository_that_was_there_may_come_back() {
    let mut world = World::new(config(NIGHTLY), at("2026-11-28T01:00:00Z"));
    let first = at("2026-11-28T02:00:00Z");
    let begun = world.begin(first);
    world.end(begun[0].0, Some(0), first);
    let next = first.after(86_400);
    let begun = world.begin(next);
    world.end(begun[0].0, Some(10), next);
    let again = world.begin(next.after(60));
    assert_eq!((again[0].1, again[0].2), (Task::Backup, Cause::Retry));
}

#[test]
fn repetitions_end_with_their_window_and_with_the_next_run_by_the_schedule() {
    let start = at("2026-11-28T01:00:00Z");
    let mut world = World::new(config(NIGHTLY), start);
    let mut now = at("2026-11-28T02:00:00Z");
    let mut causes = Vec::new();
    while now < at("2026-11-29T03:00:00Z") {
        for (run, _, cause) in world.begin(now) {
            causes.push((now, cause));
            world.end(run, Some(22), now);
        }
        now = now.after(60);
    }
    let retries = causes.iter().filter(|(_, cause)| *cause == Cause::Retry).count();
    assert!((25..40).contains(&retries), "{retries}");
    assert!(causes.iter().any(|(at, cause)| *cause == Cause::Schedule && *at > start.after(86_400)));
    let silent = causes.windows(2).map(|pair| pair[1].0.seconds_since(pair[0].0)).max().unwrap();
    assert!(silent > 8 * 3600, "given up after twelve hours: {silent}");
}

#[test]
fn what_was_interrupted_or_killed_is_begun_again_by_the_next_agent() {
    let start = at("2026-11-28T01:00:00Z");
    for interrupted in [true, false] {
        let mut world = World::new(config(NIGHTLY), start);
        let now = at("2026-11-28T02:00:00Z");
        let begun = world.begin(now);
        if interrupted {
            world.end(begun[0].0, Some(130), now.after(10));
        }
        world.restart(now.after(20));
        assert_eq!(world.pass(now.after(20)), [(Task::Backup, Cause::Retry)], "{interrupted}");
        assert_eq!(world.memory.recent[1].0.outcome, Outcome::Interrupted);
        assert_eq!(world.pass(now.after(3600)), []);
    }
}

#[test]
fn a_gap_is_answered_by_a_backup_that_begins_after_it() {
    let start = at("2026-11-28T08:00:00Z");
    let mut world = World::new(config(NIGHTLY), start);
    let begun = world.begin(at("2026-11-29T02:00:00Z"));
    let gap = at("2026-11-29T02:01:00Z");
    world.memory.gap_since = Some(gap);
    assert_eq!(world.begin(gap), []);
    world.end(begun[0].0, Some(0), gap.after(60));
    let answer = world.begin(gap.after(60));
    assert_eq!(answer[0].2, Cause::Gap, "the one that ran began before");
    assert_eq!(world.begin(gap.after(70)), []);
    world.end(answer[0].0, Some(1), gap.after(80));
    assert_eq!(world.begin(gap.after(90)), [], "one that fails is not repeated without a pause");
    let later = gap.after(80 + 1800);
    assert_eq!(world.pass(later), [(Task::Backup, Cause::Gap)]);
    assert_eq!(world.pass(later.after(10)), []);
}

#[test]
fn a_clock_that_was_years_ahead_does_not_end_the_schedule() {
    let mut world = World::new(config(NIGHTLY), at("2040-01-01T00:00:00Z"));
    world.pass(at("2040-01-02T02:00:00Z"));
    assert_eq!(world.pass(at("2026-11-28T08:00:00Z")), []);
    assert_eq!(world.pass(at("2026-11-29T02:00:00Z")), [(Task::Backup, Cause::Schedule)]);
}

#[test]
fn parts_of_the_data_follow_each_other_and_one_that_failed_comes_again() {
    let mut settings = config(&[(Task::Check, "0 * * * *")]);
    settings.check_parts = Some(3);
    let start = at("2026-11-28T08:30:00Z");
    let mut world = World::new(settings, start);
    let mut parts = Vec::new();
    for hour in 0..6 {
        let now = start.after(1800 + hour * 3600);
        parts.push(part(&world.config, &world.memory).unwrap().0);
        let begun = world.begin(now);
        world.end(begun[0].0, Some(if hour == 1 { 1 } else { 0 }), now);
    }
    assert_eq!(parts, [1, 2, 2, 3, 1, 2]);
    let told = upcoming(&world.config, &world.memory, start.after(6 * 3600));
    assert_eq!(
        told[..3].iter().map(|next| next.detail.as_str()).collect::<Vec<_>>(),
        ["part 3 of 3", "part 1 of 3", "part 2 of 3"]
    );
}

#[test]
fn what_the_schedule_will_do_is_what_it_does() {
    let mut settings =
        config(&[(Task::Backup, "0 */6 * * *"), (Task::Prune, "30 3 * * *"), (Task::FullBackup, "0 0 * * 0")]);
    settings.jitter_seconds = 900;
    let start = at("2026-11-28T08:00:00Z");
    let mut world = World::new(settings, start);
    let told = upcoming(&world.config, &world.memory, start);
    assert_eq!(told.len(), UPCOMING_MAX);
    assert!(told.windows(2).all(|pair| pair[0].at <= pair[1].at));
    for next in &told[..20] {
        let passed = world.pass(next.at);
        // The full backup takes the place of the other that is due at the same time.
        assert!(passed.iter().any(|(task, _)| task.job() == next.job) || passed.is_empty() && next.job == Job::Backup);
    }
}

#[test]
fn delays_differ_by_server_and_stay_the_same() {
    let mut one = config(NIGHTLY);
    one.jitter_seconds = 3600;
    let delays: std::collections::BTreeSet<i64> = (0..100)
        .map(|number| {
            one.name = format!("db{number}");
            assert_eq!(delay(&one, Task::Backup), delay(&one, Task::Backup));
            delay(&one, Task::Backup)
        })
        .collect();
    assert!(delays.len() > 80 && delays.iter().all(|delay| (0..=3600).contains(delay)));
}

/// What a clock does between two looks.
#[derive(Debug, Clone)]
enum Jump {
    Forward(i64),
    Back(i64),
    Restart,
}

fn jumps() -> impl Strategy<Value = Vec<Jump>> {
    let jump = prop_oneof![
        6 => (1i64..4000).prop_map(Jump::Forward),
        1 => (4000i64..300_000).prop_map(Jump::Forward),
        1 => (1i64..86_400).prop_map(Jump::Back),
        1 => Just(Jump::Restart),
    ];
    prop::collection::vec(jump, 1..120)
}

proptest! {
    /// Moments of the schedule are told apart by the hour in which they lie.
    #[test]
    fn no_moment_is_served_twice_and_none_is_left_out(jumps in jumps(), jitter in 0u32..2000) {
        let mut settings = config(&[(Task::Backup, "0 * * * *")]);
        settings.jitter_seconds = jitter;
        let start = at("2026-11-28T08:30:00Z");
        let delay = delay(&settings, Task::Backup);
        let mut world = World::new(settings, start);
        let (mut now, mut latest) = (start, start);
        let mut served = std::collections::BTreeSet::new();
        for jump in jumps {
            match jump {
                Jump::Forward(seconds) => now = now.after(seconds),
                // In all no more than a day behind the latest moment that was seen.
                Jump::Back(seconds) => now = now.after(-seconds).max(latest.after(-86_000)),
                Jump::Restart => world.restart(now),
            }
            let begun = world.pass(now);
            prop_assert!(begun.len() <= 1, "{:?}", begun);
            let hour = now.after(-delay).0.as_second().div_euclid(3600);
            if begun.is_empty() {
                // Then the last moment before is dealt with.
                let settled = world.memory.settled[&Task::Backup].0.as_second().div_euclid(3600);
                prop_assert!(settled >= hour || now <= start.after(1800 + delay), "left out");
            } else {
                prop_assert!(served.insert(hour), "twice");
                prop_assert!(now > latest, "again after the clock went back");
            }
            latest = latest.max(now);
        }
    }
}
