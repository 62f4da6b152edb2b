//! What is told to others of runs: hooks read it on standard input, webhooks as their body (WEBHOOKS.md).

use serde::Serialize;
use serde_json::Value;

use crate::{
    model::Timestamp,
    web::service::{Job, Outcome},
};

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Happening {
    /// A run begins.
    RunBegins,
    /// A run has ended.
    RunEnded,
    /// The archive has a gap.
    ArchiveGap,
    /// The archiver ended by itself, and is begun again.
    ArchiverEnded,
    /// The settings file is wrong, and the settings before stay in force.
    SettingsRefused,
    /// Other settings are in force.
    SettingsTakenOver,
}

/// Something that happened.
#[derive(Debug, Clone, Serialize)]
pub struct Story {
    /// What.
    pub event: Happening,
    /// When.
    pub at: Timestamp,
    /// Name of the server.
    pub server: String,
    /// Name of the agent's machine.
    pub host: String,
    /// Where the repository is.
    pub repository: String,
    /// Version of the agent.
    pub version: &'static str,
    /// A sentence for people.
    pub message: String,
    /// The run of which this is told.
    pub run: Option<RunStory>,
}

/// The run of which something is told; what is not known before its end is null until then.
#[derive(Debug, Clone, Serialize)]
pub struct RunStory {
    /// Its number.
    pub run: u64,
    /// What it is.
    pub job: Job,
    /// Why it was begun.
    pub cause: String,
    /// Whether a full backup was asked for.
    pub full: bool,
    /// When it was begun.
    pub started: Timestamp,
    /// When it ended.
    pub finished: Option<Timestamp>,
    /// How it ended.
    pub outcome: Option<Outcome>,
    /// Its exit code.
    pub exit_code: Option<i32>,
    /// What to do.
    pub hint: Option<String>,
    /// The last summary of the command.
    pub summary: Option<Value>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_documented() {
        let text = include_str!("WEBHOOKS.md");
        let example: Value =
            serde_json::from_str(text.split("```json").nth(1).unwrap().split("```").next().unwrap()).unwrap();
        let moment = Timestamp("2026-11-28T02:00:01Z".parse().unwrap());
        let run = RunStory {
            run: 42,
            job: Job::Backup,
            cause: "schedule".to_owned(),
            full: true,
            started: moment,
            finished: None,
            outcome: Some(Outcome::Succeeded),
            exit_code: Some(0),
            hint: None,
            summary: None,
        };
        let story = Story {
            event: Happening::RunEnded,
            at: moment,
            server: "db1".to_owned(),
            host: "db1.example.com".to_owned(),
            repository: "s3://backups/db1".to_owned(),
            version: "0.1.0",
            message: String::new(),
            run: Some(run),
        };
        let told = serde_json::to_value(&story).unwrap();
        let names = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&told), names(&example));
        assert_eq!(names(&told["run"]), names(&example["run"]));
        for event in [
            Happening::RunBegins,
            Happening::RunEnded,
            Happening::ArchiveGap,
            Happening::ArchiverEnded,
            Happening::SettingsRefused,
            Happening::SettingsTakenOver,
        ] {
            let name = serde_json::to_value(event).unwrap();
            assert!(text.contains(&format!("`{}`", name.as_str().unwrap())), "{name}");
        }
    }
}
