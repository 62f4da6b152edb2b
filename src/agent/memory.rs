//! What an agent remembers from one start to the next, in one file that is replaced as a whole.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::config::Task;
use crate::{
    model::Timestamp,
    web::service::{Ended, Job, Outcome, RECENT_RUNS_MAX},
};

/// Longest file: a hundred runs with their summaries take some hundred KiB.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// Longest summary that is kept of a run; of a longer one, lists and objects are left out.
pub const SUMMARY_BYTES_MAX: usize = 16 << 10;
/// The file's name in the state directory.
const NAME: &str = "agent.json";

/// The last run of a job, and the last that succeeded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Last {
    /// How the last one ended.
    pub outcome: Outcome,
    /// When it ended.
    pub finished: Timestamp,
    /// How long it took.
    pub seconds: i64,
    /// When the last one that succeeded ended.
    pub succeeded: Option<Timestamp>,
}

/// A run that is to be repeated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retry {
    /// Not before.
    pub at: Timestamp,
    /// Failures in a row.
    pub failures: u32,
    /// Given up after.
    pub until: Timestamp,
}

/// A run that was begun and has not ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begun {
    /// Its number.
    pub run: u64,
    /// What it is.
    pub task: Task,
    /// Why it was begun.
    pub cause: String,
    /// When.
    pub started: Timestamp,
}

/// All that is remembered.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    /// Number of the last run.
    pub last_run: u64,
    /// Since when something is remembered.
    pub since: Option<Timestamp>,
    /// Up to when the moments of a schedule are dealt with.
    pub settled: BTreeMap<Task, Timestamp>,
    /// The last runs.
    pub last: BTreeMap<Job, Last>,
    /// When the last full backup was begun.
    pub last_full: Option<Timestamp>,
    /// Parts of the data that checks have read.
    pub parts_read: u64,
    /// What is to be repeated.
    pub retries: BTreeMap<Task, Retry>,
    /// What runs, or ran when the process was killed.
    pub begun: Vec<Begun>,
    /// Since when a gap of the archive waits for a backup that is begun after it.
    pub gap_since: Option<Timestamp>,
    /// Gaps of the archive that were seen.
    pub gaps: u64,
    /// Bytes of the last backup.
    pub sizes: Option<Sizes>,
    /// The last drill that passed: when it ended, and how long it took until the server answered.
    pub proven: Option<Proven>,
    /// Runs that have ended, the newest first.
    pub recent: Vec<Kept>,
}

/// Bytes of a backup, as its summary has them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sizes {
    /// Once restored.
    pub logical_bytes: u64,
    /// Read from `mariadb-backup`.
    pub stream_bytes: u64,
    /// Uploaded for it.
    pub uploaded_bytes: u64,
    /// That it needs in all.
    pub stored_bytes: u64,
}

/// A drill that passed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Proven {
    /// When it ended.
    pub finished: Timestamp,
    /// Seconds until the restored server answered.
    pub rto_seconds: Option<f64>,
}

/// A run that has ended; equal by its number.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Kept(pub Ended);

impl PartialEq for Kept {
    fn eq(&self, other: &Kept) -> bool {
        self.0.run == other.0.run
    }
}

impl Memory {
    /// Keeps `ended` as the newest run.
    pub fn keep(&mut self, ended: Ended) {
        self.recent.insert(0, Kept(ended));
        self.recent.truncate(RECENT_RUNS_MAX);
    }
}

/// The file.
#[derive(Debug, Clone)]
pub struct MemoryFile {
    path: PathBuf,
}

impl MemoryFile {
    /// The one in `directory`.
    pub fn within(directory: &Path) -> MemoryFile {
        MemoryFile { path: directory.join(NAME) }
    }

    /// Reads it. What cannot be read is set aside, and the second value says so.
    pub fn read(&self, now: Timestamp) -> (Memory, Option<String>) {
        let problem = match self.try_read() {
            Ok(memory) => return (memory, None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return (Memory::default(), None),
            Err(error) => error,
        };
        let aside = self.path.with_extension(format!("broken-{}", now.compact()));
        let told = match fs::rename(&self.path, &aside) {
            Ok(()) => format!("it is set aside as {}", aside.display()),
            Err(error) => format!("it cannot be set aside: {error}"),
        };
        let message = format!(
            "cannot read what was remembered of earlier runs in {}: {problem}; {told}, and the schedule begins anew",
            self.path.display()
        );
        (Memory::default(), Some(message))
    }

    fn try_read(&self) -> io::Result<Memory> {
        let mut text = Vec::new();
        File::open(&self.path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut text)?;
        if text.len() as u64 > FILE_BYTES_MAX {
            return Err(io::Error::other(format!("it is longer than {FILE_BYTES_MAX} bytes")));
        }
        Ok(serde_json::from_slice(&text)?)
    }

    /// Replaces it: after a crash it holds the one or the other.
    ///
    /// # Errors
    /// The system's; then the file is as it was.
    pub fn write(&self, memory: &Memory) -> io::Result<()> {
        let text = serde_json::to_vec(memory)?;
        let new = self.path.with_extension("new");
        let written = File::create(&new).and_then(|mut file| {
            file.write_all(&text)?;
            file.sync_all()
        });
        let renamed = written.and_then(|()| fs::rename(&new, &self.path));
        if renamed.is_err() {
            let _ = fs::remove_file(&new);
        }
        renamed
    }
}

/// `summary` for keeping: of one that is too long, plain values alone.
pub fn shortened(summary: serde_json::Value) -> serde_json::Value {
    if summary.to_string().len() <= SUMMARY_BYTES_MAX {
        return summary;
    }
    let serde_json::Value::Object(mut fields) = summary else { return serde_json::Value::Null };
    fields.retain(|_, value| match value {
        serde_json::Value::String(text) => text.len() < 256,
        value => !value.is_array() && !value.is_object(),
    });
    let short = serde_json::Value::Object(fields);
    if short.to_string().len() <= SUMMARY_BYTES_MAX { short } else { serde_json::Value::Null }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        Timestamp("2026-11-28T08:00:00Z".parse().unwrap())
    }

    fn memory() -> Memory {
        let mut memory = Memory { last_run: 7, since: Some(now()), last_full: Some(now()), ..Memory::default() };
        memory.settled.insert(Task::FullBackup, now());
        memory.begun.push(Begun { run: 7, task: Task::Check, cause: "schedule".to_owned(), started: now() });
        memory
    }

    #[test]
    fn what_was_remembered_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let file = MemoryFile::within(folder.path());
        assert_eq!(file.read(now()), (Memory::default(), None));
        file.write(&memory()).unwrap();
        assert_eq!(file.read(now()), (memory(), None));
    }

    #[test]
    fn a_broken_file_is_set_aside_and_told() {
        let folder = tempfile::tempdir().unwrap();
        let file = MemoryFile::within(folder.path());
        for broken in ["", "{", "7", "{\"last_run\": -1}", "{\"settled\": {\"nothing\": 1}}"] {
            fs::write(folder.path().join(NAME), broken).unwrap();
            let (memory, told) = file.read(now());
            assert_eq!(memory, Memory::default());
            let told = told.unwrap();
            assert!(told.contains("agent.broken-20261128T080000Z"), "{told}");
            assert_eq!(fs::read_to_string(folder.path().join("agent.broken-20261128T080000Z")).unwrap(), broken);
            assert!(!folder.path().join(NAME).exists());
        }
    }

    #[test]
    fn a_write_that_fails_leaves_the_file_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let file = MemoryFile::within(folder.path());
        file.write(&memory()).unwrap();
        // A directory in the place of the new file.
        fs::create_dir(folder.path().join("agent.new")).unwrap();
        assert!(file.write(&Memory::default()).is_err());
        assert_eq!(file.read(now()).0, memory());
    }

    #[test]
    fn a_summary_that_is_too_long_loses_its_lists() {
        let short = serde_json::json!({"backup_id": "x", "sizes": {"logical_bytes": 1}});
        assert_eq!(shortened(short.clone()), short);
        let long = serde_json::json!({"backup_id": "x", "warnings": vec!["w"; 10_000]});
        assert_eq!(shortened(long), serde_json::json!({"backup_id": "x"}));
    }
}
