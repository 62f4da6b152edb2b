//! What an agent is told to do, every layer resolved.

use std::{net::SocketAddr, path::PathBuf};

use serde::{Deserialize, Serialize};

use url::Url;

use super::{cron::Cron, hooks::Hooks};
use crate::web::service::Job;

/// Something that a schedule begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// A backup, full where the policy says so.
    Backup,
    /// A full backup.
    FullBackup,
    /// A check.
    Check,
    /// A prune.
    Prune,
    /// A compaction.
    Compact,
    /// A drill.
    Drill,
    /// A copy.
    Copy,
}

impl Task {
    /// All of them; where two may begin and exclude each other, the first does.
    pub const ALL: [Task; 7] =
        [Task::FullBackup, Task::Backup, Task::Copy, Task::Check, Task::Drill, Task::Prune, Task::Compact];

    /// The job that it is.
    pub fn job(self) -> Job {
        match self {
            Task::Backup | Task::FullBackup => Job::Backup,
            Task::Check => Job::Check,
            Task::Prune => Job::Prune,
            Task::Compact => Job::Compact,
            Task::Drill => Job::Drill,
            Task::Copy => Job::Copy,
        }
    }

    /// The task that somebody means who asks for `job`; the archive is none.
    pub fn of(job: Job) -> Option<Task> {
        match job {
            Job::Archive => None,
            Job::Backup => Some(Task::Backup),
            Job::Check => Some(Task::Check),
            Job::Prune => Some(Task::Prune),
            Job::Compact => Some(Task::Compact),
            Job::Drill => Some(Task::Drill),
            Job::Copy => Some(Task::Copy),
        }
    }
}

/// Whether `one` and `other` may not run at the same time.
///
/// What deletes or moves waits for what reads, and the other way round; a backup waits for nothing else, since a check or a drill may take
/// hours. A drill and a check would only fight for the store and the disk.
pub fn exclude(one: Job, other: Job) -> bool {
    use Job::{Archive, Backup, Check, Compact, Copy, Drill, Prune};
    match (one, other) {
        (Archive, _) | (_, Archive) => false,
        (Prune | Compact, _) | (_, Prune | Compact) => true,
        (Check, Drill) | (Drill, Check) => true,
        (one @ (Backup | Check | Drill | Copy), other) => one == other,
    }
}

/// Class of a run's reads and writes among those of other programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IoClass {
    /// The last of the usual ones.
    BestEffort,
    /// When nobody else wants the disk.
    Idle,
}

/// When a task is due.
#[derive(Debug, Clone)]
pub struct Planned {
    /// The task.
    pub task: Task,
    /// When.
    pub cron: Cron,
}

/// All that an agent needs to know.
#[derive(Debug, Clone)]
pub struct AgentConfig {
    /// Name of the server in pages, metrics and messages; the draw of its delays.
    pub name: String,
    /// URL of the repository.
    pub repository: String,
    /// The settings file.
    pub file: PathBuf,
    /// Where it answers HTTP.
    pub listen: Option<SocketAddr>,
    /// Directory of its memory and its lock.
    pub state_dir: PathBuf,
    /// Longest delay of a run behind its time, in seconds.
    pub jitter_seconds: u32,
    /// Niceness of the runs.
    pub nice: u8,
    /// I/O class of the runs.
    pub io_class: Option<IoClass>,
    /// The schedule.
    pub planned: Vec<Planned>,
    /// Seconds after which a backup is to be a full one.
    pub full_every_seconds: Option<u64>,
    /// Whether the server's binary log is archived.
    pub archive: bool,
    /// Checks in which every byte is read once; none is read when absent.
    pub check_parts: Option<u32>,
    /// How long a drill checks tables, for people.
    pub drill_time: Option<String>,
    /// Commands before and after runs.
    pub hooks: Hooks,
    /// Addresses that are told of runs.
    pub webhooks: Vec<Url>,
    /// Addresses that are asked for each time all is well.
    pub heartbeat: Vec<Url>,
    /// Arguments of every run before its command: they say where the repository is when no setting does.
    pub arguments: Vec<String>,
}

impl AgentConfig {
    /// True when `job` was set up.
    pub fn has(&self, job: Job) -> bool {
        match job {
            Job::Archive => self.archive,
            job => self.planned.iter().any(|planned| planned.task.job() == job),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_deletes_runs_alone_and_a_backup_waits_for_nothing_else() {
        let jobs = [Job::Backup, Job::Archive, Job::Check, Job::Prune, Job::Compact, Job::Drill, Job::Copy];
        for one in jobs {
            assert_eq!(exclude(one, one), one != Job::Archive);
            assert!(!exclude(Job::Archive, one));
            for other in jobs {
                assert_eq!(exclude(one, other), exclude(other, one), "{one:?} {other:?}");
            }
            let waits = exclude(Job::Backup, one);
            assert_eq!(waits, matches!(one, Job::Backup | Job::Prune | Job::Compact), "{one:?}");
        }
    }
}
