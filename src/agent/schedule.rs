//! What is due: a function of the settings, of what is remembered and of the clock.
//!
//! A moment of a schedule is dealt with when its run begins; of several that were missed, while the machine was off or another run was at
//! work, one run is begun. A moment that is dealt with never comes again, also where the clock goes back.

use std::collections::BTreeMap;

use super::{
    config::{AgentConfig, Planned, Task, exclude},
    memory::{Begun, Last, Memory, Proven, Retry, shortened},
};
use crate::{
    model::Timestamp,
    web::service::{Ended, Job, Outcome, Upcoming},
};

/// Seconds behind its time from which on a run was missed, and not only delayed by a tick.
const LATE_SECONDS: i64 = 60;
/// Seconds that the clock may have gone back since a moment was dealt with. Beyond that the clock had been wrong, and the schedule begins
/// at what it says now: else no run would come for years.
const BACK_SECONDS_MAX: i64 = 24 * 3600;
/// Longest pause before a run that failed is repeated.
const RETRY_SECONDS_MAX: i64 = 30 * 60;
/// For how long a run that fails is repeated; the next one by the schedule ends that, too.
const RETRY_WINDOW_SECONDS: i64 = 12 * 3600;
/// Seconds by which a full backup may come early: else one a week, by a schedule of days, would come on the eighth.
const FULL_EARLY_SECONDS: u64 = 3600;
/// Exit codes of failures that pass: another run is at work, the store is away, the server is away.
const PASSING: [i32; 3] = [11, 22, 23];
/// No repository is there. One that was there may come back: a disk that is mounted late, a bucket that is made anew.
const NO_REPOSITORY: i32 = 10;
/// Moments of the schedule that are told.
pub const UPCOMING_MAX: usize = 100;

/// Why a run is begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// It is its time.
    Schedule,
    /// Its time was missed.
    Missed,
    /// It failed, or was interrupted, before.
    Retry,
    /// Nothing is known of any backup.
    First,
    /// The archive has a gap, which a backup answers.
    Gap,
    /// Somebody asked for it.
    Page,
}

impl Cause {
    /// Its name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Cause::Schedule => "schedule",
            Cause::Missed => "missed",
            Cause::Retry => "retry",
            Cause::First => "first",
            Cause::Gap => "gap",
            Cause::Page => "page",
        }
    }
}

/// What waits for its turn.
#[derive(Debug, Clone, Default)]
pub struct Scheduler {
    waiting: BTreeMap<Task, Cause>,
}

impl Scheduler {
    /// Brings what is remembered in line with the settings and the clock, before anything is begun.
    pub fn settle(&mut self, config: &AgentConfig, memory: &mut Memory, now: Timestamp) {
        memory.since.get_or_insert(now);
        self.waiting.retain(|task, _| config.planned.iter().any(|planned| planned.task == *task));
        memory.retries.retain(|task, _| config.has(task.job()));
        memory.settled.retain(|task, _| config.planned.iter().any(|planned| planned.task == *task));
        for planned in &config.planned {
            let settled = memory.settled.entry(planned.task).or_insert(now);
            if settled.seconds_since(now) > BACK_SECONDS_MAX {
                *settled = now;
            }
        }
        for retry in memory.retries.values_mut() {
            if retry.at.seconds_since(now) > RETRY_SECONDS_MAX {
                retry.at = now.after(RETRY_SECONDS_MAX);
            }
        }
    }

    /// Looks what has become due.
    pub fn look(&mut self, config: &AgentConfig, memory: &mut Memory, now: Timestamp) {
        self.settle(config, memory, now);
        for planned in &config.planned {
            let Some(due) = next_due(config, memory, planned) else { continue };
            if due <= now {
                let late = now.seconds_since(due) > LATE_SECONDS;
                self.waiting.entry(planned.task).or_insert(if late { Cause::Missed } else { Cause::Schedule });
            }
        }
        // What was interrupted is repeated whenever that can be; what fails is not for ever.
        memory.retries.retain(|_, retry| retry.until >= now || retry.failures == 0);
        let at_work = |job: Job| memory.begun.iter().filter(move |begun| begun.task.job() == job);
        for (task, retry) in &memory.retries {
            if retry.at <= now && at_work(task.job()).next().is_none() {
                self.waiting.entry(*task).or_insert(Cause::Retry);
            }
        }
        if config.has(Job::Backup) {
            let task = backup_task(config);
            if !memory.last.contains_key(&Job::Backup) && at_work(Job::Backup).next().is_none() {
                self.waiting.entry(task).or_insert(Cause::First);
            }
            let failed = memory.last.get(&Job::Backup).is_some_and(|last| {
                last.outcome == Outcome::Failed && (0..RETRY_SECONDS_MAX).contains(&now.seconds_since(last.finished))
            });
            if let Some(gap) = memory.gap_since
                && !failed
                && !at_work(Job::Backup).any(|begun| begun.started >= gap)
            {
                self.waiting.insert(task, Cause::Gap);
            }
        }
    }

    /// What may begin now beside `running`.
    pub fn next(&self, running: &[Job]) -> Option<(Task, Cause)> {
        let free = |task: &Task| running.iter().all(|job| !exclude(task.job(), *job));
        let task = Task::ALL.into_iter().filter(|task| self.waiting.contains_key(task)).find(free)?;
        Some((task, self.waiting[&task]))
    }

    /// Takes down that `task` begins, and gives its number.
    pub fn begin(
        &mut self,
        config: &AgentConfig,
        memory: &mut Memory,
        task: Task,
        cause: Cause,
        now: Timestamp,
    ) -> u64 {
        memory.last_run += 1;
        for planned in config.planned.iter().filter(|planned| planned.task.job() == task.job()) {
            // A full backup is a backup; the other way round it is not.
            if planned.task == task || task == Task::FullBackup {
                self.waiting.remove(&planned.task);
                let settled = now.after(-delay(config, planned.task));
                let before = memory.settled.entry(planned.task).or_insert(settled);
                *before = (*before).max(settled);
            }
        }
        self.waiting.remove(&task);
        memory.begun.push(Begun { run: memory.last_run, task, cause: cause.name().to_owned(), started: now });
        memory.last_run
    }

    /// Takes down how a run ended that was begun.
    pub fn end(&mut self, config: &AgentConfig, memory: &mut Memory, ended: Ended, retry_seconds: u32) {
        let Some(at) = memory.begun.iter().position(|begun| begun.run == ended.run) else { return };
        let task = memory.begun.remove(at).task;
        let now = ended.finished;
        let succeeded = ended.outcome == Outcome::Succeeded;
        // Damage is no success, but of a backup: that was taken.
        let done = succeeded || (ended.outcome == Outcome::Damaged && ended.job == Job::Backup);
        let before = memory.last.get(&ended.job).and_then(|last| last.succeeded);
        let last = Last {
            outcome: ended.outcome,
            finished: now,
            seconds: now.seconds_since(ended.started).max(0),
            succeeded: if done { Some(now) } else { before },
        };
        memory.last.insert(ended.job, last);
        if done {
            note_success(memory, &ended);
        }
        match next_attempt(config, memory, task, &ended, retry_seconds) {
            Some(retry) => memory.retries.insert(task, retry),
            None => memory.retries.remove(&task),
        };
        let summary = ended.summary.map(shortened);
        memory.keep(Ended { summary, ..ended });
    }

    /// True when something waits for its turn.
    pub fn is_waiting(&self, task: Task) -> bool {
        self.waiting.contains_key(&task)
    }
}

/// Ends what a process had begun that was killed: it is begun again at once, and so is what was interrupted.
pub fn recover(memory: &mut Memory, now: Timestamp) {
    for retry in memory.retries.values_mut().filter(|retry| retry.failures == 0) {
        retry.at = now;
    }
    for begun in std::mem::take(&mut memory.begun) {
        let until = now.after(RETRY_WINDOW_SECONDS);
        memory.retries.entry(begun.task).or_insert(Retry { at: now, failures: 0, until });
        let ended = Ended {
            run: begun.run,
            job: begun.task.job(),
            cause: begun.cause,
            started: begun.started,
            finished: now.max(begun.started),
            outcome: Outcome::Interrupted,
            exit_code: None,
            message: "the agent ended before this run did".to_owned(),
            hint: None,
            summary: None,
        };
        memory.keep(ended);
    }
}

/// The next moment of a schedule that is not dealt with, with its delay.
pub fn next_due(config: &AgentConfig, memory: &Memory, planned: &Planned) -> Option<Timestamp> {
    let settled = *memory.settled.get(&planned.task)?;
    Some(planned.cron.next_after(settled)?.after(delay(config, planned.task)))
}

/// Seconds by which `task` comes later than its schedule says: always the same on one server, and another one on each.
pub fn delay(config: &AgentConfig, task: Task) -> i64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(config.name.as_bytes()).update(&[0]).update(format!("{task:?}").as_bytes());
    let [a, b, c, d, ..] = *hasher.finalize().as_bytes();
    i64::from(u32::from_le_bytes([a, b, c, d])) % (i64::from(config.jitter_seconds) + 1)
}

/// Whether a backup that begins at `at` is to be a full one.
pub fn is_full(config: &AgentConfig, memory: &Memory, task: Task, at: Timestamp) -> bool {
    let every = config.full_every_seconds;
    let due = every.zip(memory.last_full.or(memory.since)).is_some_and(|(every, last)| {
        let early = FULL_EARLY_SECONDS.min(every / 10);
        at.seconds_since(last) >= i64::try_from(every - early).unwrap_or(i64::MAX)
    });
    task == Task::FullBackup || task == Task::Backup && due
}

/// The part of the data that the next check reads, counted from 1, and the number of parts.
pub fn part(config: &AgentConfig, memory: &Memory) -> Option<(u32, u32)> {
    let parts = config.check_parts?;
    // Less than `parts`, which is a u32.
    Some(((memory.parts_read % u64::from(parts)) as u32 + 1, parts))
}

/// What the schedule will do after `now`, the next first.
pub fn upcoming(config: &AgentConfig, memory: &Memory, now: Timestamp) -> Vec<Upcoming> {
    let mut next: Vec<(Timestamp, &Planned)> =
        config.planned.iter().filter_map(|planned| Some((next_due(config, memory, planned)?, planned))).collect();
    let mut found = Vec::new();
    let mut memory = Memory { recent: Vec::new(), ..memory.clone() };
    while found.len() < UPCOMING_MAX {
        let Some(at) = (0..next.len()).min_by_key(|at| next[*at].0) else { break };
        let (due, planned) = next[at];
        let shown = due.max(now);
        let full = is_full(config, &memory, planned.task, shown);
        if full {
            memory.last_full = Some(shown);
        }
        let detail = detail(config, &memory, planned.task, full);
        if planned.task == Task::Check {
            memory.parts_read += 1;
        }
        found.push(Upcoming {
            at: shown,
            job: planned.task.job(),
            schedule: planned.cron.fields().to_owned(),
            zone: planned.cron.zone_name().to_owned(),
            detail,
        });
        let delay = delay(config, planned.task);
        // What was missed comes once.
        match planned.cron.next_after(shown.after(-delay)) {
            Some(after) => next[at].0 = after.after(delay),
            None => drop(next.swap_remove(at)),
        }
    }
    found
}

/// The next `count` moments of each part of the schedule, of an agent that begins now.
pub fn preview(config: &AgentConfig, now: Timestamp, count: usize) -> Vec<(&Planned, Vec<Timestamp>)> {
    let moments = |planned: &Planned| {
        let delay = delay(config, planned.task);
        let next = |moment: &Timestamp| planned.cron.next_after(*moment);
        let first = planned.cron.next_after(now.after(-delay));
        std::iter::successors(first, next).take(count).map(|moment| moment.after(delay)).collect()
    };
    config.planned.iter().map(|planned| (planned, moments(planned))).collect()
}

fn detail(config: &AgentConfig, memory: &Memory, task: Task, full: bool) -> String {
    match task {
        Task::Backup | Task::FullBackup if full => "full".to_owned(),
        Task::Check => part(config, memory).map(|(part, parts)| format!("part {part} of {parts}")).unwrap_or_default(),
        Task::Drill => config.drill_time.as_ref().map(|time| format!("{time} of checks")).unwrap_or_default(),
        _ => String::new(),
    }
}

/// The task that takes a backup where one is wanted at once.
pub fn backup_task(config: &AgentConfig) -> Task {
    let usual = config.planned.iter().any(|planned| planned.task == Task::Backup);
    if usual { Task::Backup } else { Task::FullBackup }
}

fn note_success(memory: &mut Memory, ended: &Ended) {
    let field = |name: &str| ended.summary.as_ref().and_then(|summary| summary.get(name));
    match ended.job {
        Job::Backup => {
            if field("kind").and_then(|kind| kind.as_str()) == Some("full") {
                memory.last_full = Some(ended.started);
            }
            if let Some(sizes) = field("sizes") {
                memory.sizes = serde_json::from_value(sizes.clone()).ok();
            }
            if memory.gap_since.is_some_and(|gap| gap <= ended.started) {
                memory.gap_since = None;
            }
        }
        Job::Check => memory.parts_read += 1,
        Job::Drill => {
            let rto_seconds = field("rto_seconds").and_then(serde_json::Value::as_f64);
            memory.proven = Some(Proven { finished: ended.finished, rto_seconds });
        }
        _ => {}
    }
}

/// Whether what a run failed of may be over by itself, by its exit code and the last run before it.
fn passes(code: i32, last: Option<&Last>) -> bool {
    PASSING.contains(&code) || code == NO_REPOSITORY && last.is_some_and(|last| last.succeeded.is_some())
}

/// When a run that ended so is begun again.
fn next_attempt(config: &AgentConfig, memory: &Memory, task: Task, ended: &Ended, pause: u32) -> Option<Retry> {
    let now = ended.finished;
    let before = memory.retries.get(&task);
    let window = || now.after(RETRY_WINDOW_SECONDS);
    match ended.outcome {
        Outcome::Interrupted => {
            let (failures, until) = before.map_or_else(|| (0, window()), |before| (before.failures, before.until));
            Some(Retry { at: now.after(i64::from(pause)), failures, until })
        }
        Outcome::Failed if ended.exit_code.is_none_or(|code| passes(code, memory.last.get(&task.job()))) => {
            if ended.cause == Cause::Page.name() && before.is_none() {
                return None;
            }
            let failures = before.map_or(0, |before| before.failures).saturating_add(1);
            let doubled = i64::from(pause).saturating_mul(1 << (failures - 1).min(10));
            let at = now.after(doubled.min(RETRY_SECONDS_MAX));
            let until = before.map_or_else(window, |before| before.until);
            // The next one by the schedule comes anyway.
            let planned = config.planned.iter().find(|planned| planned.task == task);
            let next = planned.and_then(|planned| next_due(config, memory, planned));
            (at <= until && next.is_none_or(|next| at < next)).then_some(Retry { at, failures, until })
        }
        _ => None,
    }
}

#[cfg(test)]
#[path = "schedule_tests.rs"]
mod tests;
