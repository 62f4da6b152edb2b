//! What a task is on the command line, and what is said of its end.

use serde_json::Value;

use super::{
    child::{End, Order},
    config::{AgentConfig, Task},
    progress::Said,
};
use crate::model::human;
use crate::web::service::{Job, Outcome};

/// Longest message on the end of a run, in characters.
const MESSAGE_CHARS_MAX: usize = 500;

/// The command of `task`; `settings` is the file with the settings in force, `part` what a check reads.
pub fn order(config: &AgentConfig, settings: &str, task: Task, full: bool, part: Option<(u32, u32)>) -> Order {
    let words: &[&str] = match task {
        Task::Backup | Task::FullBackup if full => &["backup", "--full"],
        Task::Backup | Task::FullBackup => &["backup"],
        Task::Check => &["check"],
        Task::Prune => &["prune"],
        Task::Compact => &["compact"],
        Task::Drill => &["drill"],
        Task::Copy => &["copy"],
    };
    let mut order = command(config, settings, words);
    if let (Task::Check, Some((part, parts))) = (task, part) {
        order.arguments.push(format!("--read-part={part}/{parts}"));
    }
    order
}

/// The command that archives the server's binary log.
pub fn archive(config: &AgentConfig, settings: &str) -> Order {
    Order { nice: 0, io_class: None, ..command(config, settings, &["archive"]) }
}

fn command(config: &AgentConfig, settings: &str, words: &[&str]) -> Order {
    let mut arguments = vec!["--json".to_owned(), "--config".to_owned(), settings.to_owned()];
    arguments.extend(config.arguments.iter().cloned());
    arguments.extend(words.iter().map(|&word| word.to_owned()));
    Order { arguments, nice: config.nice, io_class: config.io_class }
}

/// How a run ended, in a sentence, with a hint.
pub fn verdict(job: Job, said: &Said, end: &End) -> (Outcome, String, Option<String>) {
    let text = |value: &Value, name: &str| value[name].as_str().unwrap_or_default().to_owned();
    let outcome = match end.exit_code {
        Some(0) => Outcome::Succeeded,
        Some(3) => Outcome::Damaged,
        Some(130) => Outcome::Interrupted,
        None if end.skipped => Outcome::Skipped,
        _ => Outcome::Failed,
    };
    let (message, hint) = match (&said.error, &said.summary) {
        (Some(error), _) => {
            let mut message = text(error, "message");
            for cause in error["causes"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                message += ": ";
                message += cause;
            }
            (message, error["hint"].as_str().map(str::to_owned))
        }
        (None, Some(summary)) => (done(job, summary), None),
        (None, None) => {
            let problem = end.problem.clone().unwrap_or_else(|| match end.exit_code {
                Some(code) => format!("it ended with {code} and said nothing"),
                None => "it ended, nobody knows how".to_owned(),
            });
            let last = end.stderr.lines().last().unwrap_or_default();
            (if last.is_empty() { problem } else { format!("{problem}: {last}") }, None)
        }
    };
    (outcome, message.chars().take(MESSAGE_CHARS_MAX).collect(), hint)
}

/// What a run did, by its summary.
fn done(job: Job, summary: &Value) -> String {
    let number = |name: &str| summary[name].as_u64().unwrap_or_default();
    let counted = |name: &str, what: &str| human::counted(number(name), what);
    let text = |name: &str| summary[name].as_str().unwrap_or("?");
    match job {
        Job::Backup => format!(
            "{} backup {}, {} uploaded",
            text("kind"),
            text("backup_id"),
            human::bytes(summary["sizes"]["uploaded_bytes"].as_u64().unwrap_or_default())
        ),
        Job::Archive => format!("{} archived, {}", counted("segments", "segment"), counted("gaps", "gap")),
        Job::Check => format!(
            "{} and {} checked, {} damaged",
            counted("backups", "backup"),
            counted("objects", "object"),
            counted("damaged_objects", "object")
        ),
        Job::Prune => format!(
            "{} deleted, {} planned, {} stay",
            counted("deleted_backups", "backup"),
            number("planned_backups"),
            number("stays")
        ),
        Job::Compact => format!("{} written", counted("written_packs", "pack")),
        Job::Drill => match summary["passed"].as_bool() {
            Some(true) => {
                let seconds = summary["rto_seconds"].as_f64().unwrap_or_default().ceil().max(0.0);
                format!("backup {} restores, and answered after {}", text("backup_id"), human::duration(seconds as u64))
            }
            _ => {
                let first = summary["failures"][0].as_str().unwrap_or("look at its proof");
                format!("backup {} failed the drill: {first}", text("backup_id"))
            }
        },
        Job::Copy => format!("{} copied, {} behind", counted("copied_backups", "backup"), number("behind")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn summed(summary: Value) -> Said {
        let mut said = Said::default();
        said.summary = Some(summary);
        said
    }

    fn failed(error: Value) -> Said {
        let mut said = Said::default();
        said.error = Some(error);
        said
    }

    #[test]
    fn the_end_of_a_run_is_told_in_a_sentence() {
        let ended = |code| End { exit_code: code, stderr: "one\ntwo".to_owned(), ..End::default() };
        let error = json!({"code": 22, "message": "cannot reach s3://b", "causes": ["refused"], "hint": "mend it"});
        let said = failed(error);
        let expected = (Outcome::Failed, "cannot reach s3://b: refused".to_owned(), Some("mend it".to_owned()));
        assert_eq!(verdict(Job::Backup, &said, &ended(Some(22))), expected);
        let summary = json!({"kind": "full", "backup_id": "x", "sizes": {"uploaded_bytes": 7}});
        let said = summed(summary);
        let told = verdict(Job::Backup, &said, &ended(Some(0)));
        assert_eq!(told, (Outcome::Succeeded, "full backup x, 7 B uploaded".to_owned(), None));
        let silent = verdict(Job::Prune, &Said::default(), &ended(Some(1)));
        assert_eq!(silent, (Outcome::Failed, "it ended with 1 and said nothing: two".to_owned(), None));
        for job in [Job::Backup, Job::Archive, Job::Check, Job::Prune, Job::Compact, Job::Drill, Job::Copy] {
            let said = summed(json!({}));
            assert_eq!(verdict(job, &said, &ended(Some(3))).0, Outcome::Damaged);
        }
    }
}
