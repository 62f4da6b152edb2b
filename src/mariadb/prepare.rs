//! `mariadb-backup --prepare` as a child: crash recovery of a restored directory by the tool's own InnoDB.
//!
//! The tool ends with 0 and `completed OK!` also when it left a tablespace's redo log unapplied, or when the redo log was
//! cut short. Its sentences tell, and each that means lost data is an error here.

use std::{
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::{Arc, OnceLock},
};

use super::{
    child::last_words,
    datadir::{DatadirError, ServerEvidence, server_runs_on},
    messages::{is_completed, sentence},
    process::{Ended, Listener, Process, Stopper},
    tool::Tools,
};
use crate::{
    error::{Diagnose, Kind},
    model::Lsn,
};

/// Option file in the directory, which holds what InnoDB must know of the server's files.
const OPTION_FILE: &str = "backup-my.cnf";

/// Error lines that are kept.
const ERRORS_MAX: usize = 50;

/// Sentences that mean lost or unreadable data, even when the tool goes on and ends with 0.
///
/// `Ignoring data file … Another data file called … exists with the same space ID` is none of them: recovery says so of each
/// name that a tablespace had before it was renamed or exchanged within the redo log, whether or not there is such a file
/// (MariaDB `fil0fil.cc`, `fil_ibd_load`). That no two files are one tablespace is known from the page map.
const FATAL: [(&str, Damage); 13] = [
    ("when restoring a (partial?) backup. All redo log for this file will be ignored!", Damage::MissingTablespace),
    ("All redo log for this tablespace will be ignored!", Damage::MissingTablespace),
    ("Missing FILE_DELETE or FILE_MODIFY for [page id", Damage::MissingTablespace),
    ("Missing FILE_CREATE, FILE_DELETE or FILE_MODIFY", Damage::MissingTablespace),
    ("Attempted to open a previously opened tablespace", Damage::DuplicateTablespace),
    ("The log was only applied up to LSN", Damage::RedoLog),
    ("Invalid log header checksum", Damage::RedoLog),
    ("No valid checkpoint was found", Damage::RedoLog),
    ("is in the future!", Damage::RedoLog),
    ("Encryption key is not found", Damage::EncryptionKey),
    ("Obtaining redo log encryption key version", Damage::EncryptionKey),
    ("Aria log apply FAILED", Damage::Aria),
    ("srv_start() returned", Damage::Start),
];

/// What a prepare found wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    /// The redo log speaks of a tablespace that is not there.
    MissingTablespace,
    /// Two files are the same tablespace.
    DuplicateTablespace,
    /// The redo log is not the right one, or not whole.
    RedoLog,
    /// Encrypted files, and no key for them.
    EncryptionKey,
    /// The Aria tables' own log could not be applied.
    Aria,
    /// InnoDB did not start on the files.
    Start,
}

/// One message of `mariadb-backup --prepare`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PrepareEvent {
    /// Recovery begins here.
    From(Lsn),
    /// The redo log ends here.
    EndOfLog(Lsn),
    /// Recovery has come to the first LSN on its way to the second.
    Recovered(Lsn, Lsn),
    /// The tool says that it is done.
    Completed,
    /// Data is lost or unreadable.
    Damaged(Damage),
    /// There is not the memory that it was to use.
    NoMemory,
    /// Its memory does not hold the records of the whole redo log, which is applied in parts.
    InParts,
    /// No more files can be opened.
    OpenFiles,
    /// A page cannot be written, which the tool tries again without end.
    Unwritten,
    /// An error that is none of the known ones.
    Error,
    /// Anything else.
    Other,
}

impl PrepareEvent {
    /// Tells what a line of `mariadb-backup --prepare` means.
    pub fn classify(line: &str) -> PrepareEvent {
        let line = sentence(line);
        if is_completed(line) {
            return PrepareEvent::Completed;
        }
        if let Some((_, damage)) = FATAL.iter().find(|(text, _)| line.contains(text)) {
            // What ALTER TABLE left behind when it was interrupted belongs to no table.
            let leftover = *damage == Damage::MissingTablespace && line.contains("/#sql");
            return if leftover { PrepareEvent::Other } else { PrepareEvent::Damaged(*damage) };
        }
        if let Some(lsn) = lsn_after(line, "End of log at LSN=") {
            return PrepareEvent::EndOfLog(lsn);
        }
        if let Some(lsn) = lsn_after(line, "Starting crash recovery from checkpoint LSN=") {
            return PrepareEvent::From(lsn);
        }
        if let Some(at) = lsn_after(line, "To recover: LSN ")
            && let Some(end) = line.split_once('/').and_then(|(_, rest)| lsn_after(rest, ""))
        {
            return PrepareEvent::Recovered(at, end);
        }
        // MariaDB `log0recv.cc` (`recv_sys_t::parse`).
        if line.contains("Multi-batch recovery needed at LSN ") {
            return PrepareEvent::InParts;
        }
        // MariaDB `buf0buf.cc` and `os0file.cc` (`os_file_handle_error_cond_exit`).
        if line.contains("Cannot map innodb_buffer_pool_size")
            || line.contains("Cannot allocate memory for the buffer pool")
        {
            return PrepareEvent::NoMemory;
        }
        if line.contains("Error number 24 ") || line.contains("operating system error number 24 ") {
            return PrepareEvent::OpenFiles;
        }
        // MariaDB `fil0fil.cc` (`io_callback`), seen on 10.11.19 with a full disk: the page stays to be written.
        if line.contains("InnoDB: IO Error: ") && line.contains(" during write of ") {
            return PrepareEvent::Unwritten;
        }
        let error = ["[ERROR]", "FATAL ERROR", "Error: ", "error: ", "Can't find file: "]
            .iter()
            .any(|text| line.contains(text));
        if error { PrepareEvent::Error } else { PrepareEvent::Other }
    }
}

fn lsn_after(line: &str, text: &str) -> Option<Lsn> {
    let rest = &line[line.find(text)? + text.len()..];
    let end = rest.find(|char: char| !char.is_ascii_digit()).unwrap_or(rest.len());
    rest[..end].parse().ok().map(Lsn)
}

/// Gets each line of the tool and what it means, in the thread that reads them.
pub type OnPrepareLine = Box<dyn FnMut(&PrepareEvent, &str) + Send>;

/// How a directory is prepared.
#[derive(Debug, Clone, Default)]
pub struct PrepareOptions {
    /// The directory, with `backup-my.cnf` and a checkpoints file that calls it a full backup.
    pub directory: PathBuf,
    /// Memory for the tool's buffer pool; its own default, about 100 MB, when absent.
    pub memory_bytes: Option<u64>,
    /// Where the redo log must end at the least: the backup's `last_lsn`. The tool itself does not check it.
    pub last_lsn: Option<Lsn>,
    /// Directory of encryption plugins, where it is not the tool's own.
    pub plugin_dir: Option<PathBuf>,
    /// Whether a `.cfg` file is written for each table, by which another server imports it (`--export`).
    pub export: bool,
    /// Whether tablespaces are missing on purpose.
    pub partial: bool,
}

/// The running prepare; dropping it ends it, and leaves a directory that is of no use.
pub struct Prepare {
    process: Process<Watch>,
    last_lsn: Option<Lsn>,
}

impl Prepare {
    /// Starts the tool.
    ///
    /// # Errors
    /// When the directory has no option file or someone works on it, or the tool does not start.
    pub fn spawn(
        tools: &Tools,
        options: &PrepareOptions,
        on_line: Option<OnPrepareLine>,
    ) -> Result<Prepare, PrepareError> {
        let option_file = options.directory.join(OPTION_FILE);
        if !option_file.is_file() {
            return Err(PrepareError::NoOptionFile { path: option_file });
        }
        // A prepare outlives the process that started it if that is killed; two of them would ruin the files.
        if let Some(evidence) = server_runs_on(&options.directory)? {
            return Err(PrepareError::InUse { directory: options.directory.clone(), evidence });
        }
        let mut command = tools.command(&tools.backup);
        // Named, although the tool would find it: no option file of this machine's server may come in.
        command.arg(with_path("--defaults-file=", &option_file)).arg("--prepare");
        command.arg(with_path("--target-dir=", &options.directory));
        if let Some(bytes) = options.memory_bytes {
            command.arg(format!("--use-memory={bytes}"));
        }
        if options.export {
            command.arg("--export");
        }
        if let Some(dir) = &options.plugin_dir {
            command.arg(with_path("--plugin-dir=", dir));
        }
        command.stdout(Stdio::null());
        let stopper = Arc::new(OnceLock::new());
        let findings = Findings::default();
        let watch = Watch { on_line, partial: options.partial, stopper: stopper.clone(), findings };
        let process = Process::spawn(command, watch)
            .map_err(|source| PrepareError::Start { path: tools.backup.path.clone(), source })?;
        stopper.get_or_init(|| process.stopper());
        Ok(Prepare { process, last_lsn: options.last_lsn })
    }

    /// A handle that ends the tool from any thread.
    pub fn stopper(&self) -> Stopper {
        self.process.stopper()
    }

    /// Waits for the end, which can take hours.
    ///
    /// # Errors
    /// Unless the tool ended with 0, said `completed OK!`, reported no damage and found the redo log up to `last_lsn`.
    pub fn finish(self) -> Result<PrepareReport, PrepareError> {
        let ended = self.process.wait(None).map_err(|source| PrepareError::Lost { source })?;
        let Ended { status, listener: Watch { findings, .. }, tail, stopped } = ended;
        let done = status.success() && findings.completed;
        if let Some(message) = findings.no_memory.filter(|_| !done) {
            return Err(PrepareError::NoMemory { message });
        }
        if findings.open_files && !done {
            return Err(PrepareError::OpenFiles);
        }
        if let Some(message) = findings.unwritten {
            return Err(PrepareError::Unwritten { message });
        }
        if stopped {
            return Err(PrepareError::Stopped);
        }
        if let Some(signal) = status.signal() {
            return Err(PrepareError::Killed { signal, tail });
        }
        if let Some((damage, message)) = findings.damage {
            return Err(PrepareError::Damaged { damage, message, in_parts: findings.in_parts });
        }
        if !status.success() {
            return Err(PrepareError::Failed { status, tail });
        }
        if !findings.completed {
            return Err(PrepareError::Incomplete { tail });
        }
        match (self.last_lsn, findings.end_of_log) {
            (Some(expected), Some(found)) if found < expected => Err(PrepareError::RedoShort { expected, found }),
            (_, end_of_log) => Ok(PrepareReport { end_of_log, errors: findings.errors }),
        }
    }
}

/// What a successful prepare said.
#[derive(Debug, Clone, Default)]
pub struct PrepareReport {
    /// End of the redo log that was applied, where the tool told it.
    pub end_of_log: Option<Lsn>,
    /// Error lines that are none of the known ones, the first fifty: worth a warning.
    pub errors: Vec<String>,
}

struct Watch {
    on_line: Option<OnPrepareLine>,
    partial: bool,
    /// What ends the tool, as soon as it is known.
    stopper: Arc<OnceLock<Stopper>>,
    findings: Findings,
}

#[derive(Default)]
struct Findings {
    completed: bool,
    end_of_log: Option<Lsn>,
    damage: Option<(Damage, String)>,
    errors: Vec<String>,
    /// What it says of memory that is not there.
    no_memory: Option<String>,
    /// True when it applied the redo log in parts.
    in_parts: bool,
    /// True when it could open no more files.
    open_files: bool,
    /// The first page that could not be written.
    unwritten: Option<String>,
    /// True once the tool was told to end.
    halted: bool,
}

impl Listener for Watch {
    fn line(&mut self, line: &str) {
        let event = PrepareEvent::classify(line);
        if let Some(on_line) = &mut self.on_line {
            on_line(&event, line);
        }
        let findings = &mut self.findings;
        match event {
            PrepareEvent::Completed => findings.completed = true,
            PrepareEvent::EndOfLog(lsn) => findings.end_of_log = Some(lsn),
            PrepareEvent::Damaged(Damage::MissingTablespace) if self.partial => {}
            PrepareEvent::Damaged(damage) if findings.damage.is_none() => {
                let said = sentence(line).to_owned();
                let message = match damage {
                    // That InnoDB did not start is the consequence of what was said before.
                    Damage::Start => findings.errors.last().cloned().unwrap_or(said),
                    // So it is that there is no key; the plugin said why at its start.
                    Damage::EncryptionKey => {
                        findings.errors.first().map(|error| format!("{error}; {said}")).unwrap_or(said)
                    }
                    _ => said,
                };
                findings.damage = Some((damage, message));
            }
            PrepareEvent::NoMemory => {
                findings.no_memory.get_or_insert_with(|| sentence(line).to_owned());
            }
            PrepareEvent::InParts => findings.in_parts = true,
            PrepareEvent::OpenFiles => findings.open_files = true,
            PrepareEvent::Unwritten => {
                findings.unwritten.get_or_insert_with(|| sentence(line).to_owned());
                if let Some(stopper) = self.stopper.get().filter(|_| !findings.halted) {
                    findings.halted = true;
                    stopper.stop();
                }
            }
            PrepareEvent::Error if findings.errors.len() < ERRORS_MAX => {
                findings.errors.push(sentence(line).to_owned())
            }
            _ => {}
        }
    }
}

fn with_path(name: &str, path: &Path) -> std::ffi::OsString {
    let mut arg = std::ffi::OsString::from(name);
    arg.push(path);
    arg
}

/// Why a directory is not prepared.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// The directory is no backup.
    #[error("no backup to prepare: {path:?} is missing")]
    NoOptionFile {
        /// The file that is missing.
        path: PathBuf,
    },
    /// A server, or another prepare, works on the directory.
    #[error("{directory:?} is in use: {evidence}")]
    InUse {
        /// The directory.
        directory: PathBuf,
        /// How it is known.
        evidence: ServerEvidence,
    },
    /// The directory cannot be looked at.
    #[error(transparent)]
    Datadir(#[from] DatadirError),
    /// The tool does not start.
    #[error("cannot start {path:?}")]
    Start {
        /// The program.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The tool cannot be waited for.
    #[error("cannot wait for mariadb-backup --prepare")]
    Lost {
        /// The system's error.
        source: std::io::Error,
    },
    /// Data is lost or unreadable.
    #[error("prepare found damage: {message}")]
    Damaged {
        /// What is damaged.
        damage: Damage,
        /// The tool's sentence.
        message: String,
        /// True when it applied the redo log in parts, because its memory did not hold all records at once.
        in_parts: bool,
    },
    /// The redo log ends before the backup does.
    #[error("redo log ends at LSN {found}, but the backup needs it up to {expected}")]
    RedoShort {
        /// The backup's last LSN.
        expected: Lsn,
        /// The end that the tool found.
        found: Lsn,
    },
    /// The tool failed.
    #[error("mariadb-backup --prepare failed ({status}): {}", last_words(tail))]
    Failed {
        /// How it ended.
        status: ExitStatus,
        /// Its last lines.
        tail: Vec<String>,
    },
    /// The tool ended with 0 and did not say that it was done.
    #[error("mariadb-backup --prepare ended with 0 but without \"completed OK!\": {}", last_words(tail))]
    Incomplete {
        /// Its last lines.
        tail: Vec<String>,
    },
    /// Someone killed the tool.
    #[error("mariadb-backup --prepare was killed by signal {signal}: {}", last_words(tail))]
    Killed {
        /// Number of the signal.
        signal: i32,
        /// Its last lines.
        tail: Vec<String>,
    },
    /// There is not the memory that it was to use; nothing was done.
    #[error("mariadb-backup --prepare has too little memory: {message}")]
    NoMemory {
        /// The tool's sentence.
        message: String,
    },
    /// No more files can be opened.
    #[error("mariadb-backup --prepare may not open as many files as the backup has tables")]
    OpenFiles,
    /// The disk takes no more; the tool would have tried for ever.
    #[error("mariadb-backup --prepare could not write: {message}")]
    Unwritten {
        /// The tool's sentence, with the number of the system's error.
        message: String,
    },
    /// This process stopped the tool.
    #[error("mariadb-backup --prepare was stopped")]
    Stopped,
}

impl Diagnose for PrepareError {
    fn kind(&self) -> Kind {
        match self {
            PrepareError::NoOptionFile { .. } => Kind::Usage,
            PrepareError::Datadir(error) => error.kind(),
            PrepareError::Damaged { damage: Damage::EncryptionKey, .. } => Kind::DatabaseRefused,
            PrepareError::Damaged { .. } | PrepareError::RedoShort { .. } => Kind::Corrupt,
            PrepareError::Stopped => Kind::Interrupted,
            PrepareError::Unwritten { .. } | PrepareError::NoMemory { .. } | PrepareError::OpenFiles => Kind::Failed,
            _ => Kind::DatabaseRefused,
        }
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            PrepareError::Datadir(error) => return error.hint(),
            PrepareError::InUse { .. } => "wait for it, or end that process and fetch again",
            PrepareError::Damaged { damage: Damage::EncryptionKey, .. } => {
                "put the encryption keys and their plugin where the backup's backup-my.cnf says that they are; or fetch, \
                 change that file, and prepare"
            }
            PrepareError::Damaged { .. } | PrepareError::RedoShort { .. } => {
                "restore another backup, and run check --read-data"
            }
            PrepareError::NoMemory { .. } => {
                "give it less with --use-memory, or let this machine or container have more"
            }
            PrepareError::OpenFiles => {
                "raise the limit of open files (ulimit -n, or LimitNOFILE= of the service), and fetch again"
            }
            PrepareError::Unwritten { message } if message.contains("IO Error: 28 ") => {
                "free some space, or restore on a larger file system"
            }
            PrepareError::Unwritten { .. } => "see the system's log for what is wrong with the disk",
            PrepareError::Killed { signal: 9, .. } => {
                "fetch again; see the system's log for the out-of-memory killer, or give the prepare less memory"
            }
            PrepareError::Killed { .. } | PrepareError::Stopped => "fetch again before the next prepare",
            _ => return None,
        };
        Some(hint.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mariadb::tool::{Tool, tests::script_file};

    fn run(script: &str, last_lsn: u64) -> Result<PrepareReport, PrepareError> {
        run_on(script, last_lsn, false)
    }

    fn run_on(script: &str, last_lsn: u64, partial: bool) -> Result<PrepareReport, PrepareError> {
        let dir = tempfile::tempdir().unwrap();
        let path = script_file(dir.path(), script);
        std::fs::write(dir.path().join(OPTION_FILE), "").unwrap();
        let tools = Tools::of(Tool { path, version: "10.11.19-MariaDB".parse().unwrap() });
        let options = PrepareOptions {
            directory: dir.path().into(),
            memory_bytes: None,
            last_lsn: Some(Lsn(last_lsn)),
            plugin_dir: None,
            export: false,
            partial,
        };
        Prepare::spawn(&tools, &options, None).unwrap().finish()
    }

    const DONE: &str = "cat >&2 <<'END'
2026-11-22 17:33:04 0 [Note] InnoDB: Starting crash recovery from checkpoint LSN=310411590
2026-11-22 17:33:04 0 [Note] InnoDB: End of log at LSN=318751547
[00] 2026-11-22 17:33:04 completed OK!
END";

    #[test]
    fn a_redo_log_that_ends_early_is_an_error_though_the_tool_completes() {
        assert_eq!(run(DONE, 318751547).unwrap().end_of_log, Some(Lsn(318751547)));
        let error = run(DONE, 318751548).unwrap_err();
        assert!(matches!(error, PrepareError::RedoShort { .. }) && error.kind() == Kind::Corrupt, "{error}");
    }

    #[test]
    fn a_missing_tablespace_is_an_error_though_the_tool_completes() {
        let line = "2026-11-22 17:33:04 0 [Warning] InnoDB: Tablespace 9 was not found at ./db/t.ibd when restoring a \
                    (partial?) backup. All redo log for this file will be ignored!";
        let error = run(&format!("echo '{line}' >&2; {DONE}"), 1).unwrap_err();
        assert!(matches!(error, PrepareError::Damaged { damage: Damage::MissingTablespace, .. }), "{error}");
        assert!(error.to_string().contains("./db/t.ibd"), "{error}");
        let script = format!("echo '{line}' >&2; {DONE}");
        assert!(run_on(&script, 1, true).is_ok(), "of single tables it is no news");
        let short = DONE.replace("318751547", "9");
        assert!(run_on(&short, 318751547, true).is_err(), "a short redo log is");
        let leftover = line.replace("./db/t.ibd", "./db/#sql-ib21.ibd");
        assert!(run(&format!("echo '{leftover}' >&2; {DONE}"), 1).is_ok());
    }

    #[test]
    fn what_was_found_while_the_redo_log_was_applied_in_parts_says_so() {
        let parts = "2026-11-22 17:33:04 0 [Note] InnoDB: Multi-batch recovery needed at LSN 310411590";
        let damage = "2026-11-22 17:33:05 0 [ERROR] InnoDB: Unable to apply log to corrupted page 0 in file ddl/d5.ibd
mariadb-backup: srv_start() returned 11 (Generic error).";
        for (script, expected) in [(format!("{parts}\n{damage}"), true), (damage.to_owned(), false)] {
            let error = run(&format!("echo '{script}' >&2; exit 1"), 1).unwrap_err();
            assert!(matches!(error, PrepareError::Damaged { in_parts, .. } if in_parts == expected), "{error:?}");
        }
    }

    #[test]
    fn a_former_name_of_a_tablespace_in_the_redo_log_is_no_damage() {
        let line = "2026-11-24 22:32:40 0 [Note] InnoDB: Ignoring data file ./ddl/one.ibd with space ID 756. \
                    Another data file called ddl/two.ibd exists with the same space ID.";
        let line = line.replace("./ddl/one.ibd", "'./ddl/one.ibd'");
        assert_eq!(PrepareEvent::classify(&line), PrepareEvent::Other);
        let line = "2026-11-24 22:32:40 0 [ERROR] InnoDB: Attempted to open a previously opened tablespace.";
        assert_eq!(PrepareEvent::classify(line), PrepareEvent::Damaged(Damage::DuplicateTablespace));
    }

    #[test]
    fn a_disk_that_is_full_ends_the_tool_which_would_try_for_ever() {
        let line = "2026-11-25  9:26:43 0 [Note] InnoDB: IO Error: 28 during write of 16384 bytes, for file d/t.ibd(11), returned 0";
        let error = run(&format!("while echo '{line}' >&2; do :; done"), 1).unwrap_err();
        assert!(matches!(error, PrepareError::Unwritten { .. }) && error.kind() == Kind::Failed, "{error}");
        assert!(error.to_string().contains("for file d/t.ibd(11)"), "{error}");
        assert!(error.hint().unwrap().contains("free some space"));
    }

    #[test]
    fn what_the_machine_lacks_is_no_damage_of_the_backup() {
        let script = "cat >&2 <<'END'
2026-11-25 17:33:07 0 [ERROR] InnoDB: Cannot map innodb_buffer_pool_size_max=1048576m
[00] 2026-11-25 17:33:07 mariadb-backup: srv_start() returned 11 (Generic error).
END
exit 1";
        let error = run(script, 1).unwrap_err();
        assert!(matches!(error, PrepareError::NoMemory { .. }) && error.kind() == Kind::Failed, "{error}");
        let script = "cat >&2 <<'END'
2026-11-25 17:33:07 0 [ERROR] InnoDB: Operating system error number 24 in a file operation.
2026-11-25 17:33:07 0 [Note] InnoDB: Error number 24 means 'Too many open files'
2026-11-25 17:33:07 0 [ERROR] InnoDB: Cannot apply log to [page id: space=9, page number=0] of corrupted file './many/m1.ibd'
[00] 2026-11-25 17:33:07 mariadb-backup: srv_start() returned 11 (Generic error).
END
exit 1";
        let error = run(script, 1).unwrap_err();
        assert!(matches!(error, PrepareError::OpenFiles) && error.kind() == Kind::Failed, "{error}");
    }

    #[test]
    fn both_words_and_exit_code_are_needed() {
        assert!(matches!(run("echo hello >&2", 1), Err(PrepareError::Incomplete { .. })));
        assert!(matches!(run(&format!("{DONE}\nexit 1"), 1), Err(PrepareError::Failed { .. })));
        assert!(matches!(run(&format!("{DONE}\nkill -9 $$"), 1), Err(PrepareError::Killed { signal: 9, .. })));
    }

    #[test]
    fn an_innodb_that_does_not_start_tells_the_error_before() {
        let script = "cat >&2 <<'END'
2026-11-22 17:33:07 0 [ERROR] InnoDB: File ./ib_logfile0 was not found
[00] 2026-11-22 17:33:07 mariadb-backup: srv_start() returned 11 (Generic error).
END
exit 1";
        assert!(run(script, 1).unwrap_err().to_string().contains("ib_logfile0 was not found"));
    }

    #[test]
    fn progress_is_read_off() {
        let line = "2026-11-22 17:33:04 0 [Note] InnoDB: To recover: LSN 1000/3000; 77 pages";
        assert_eq!(PrepareEvent::classify(line), PrepareEvent::Recovered(Lsn(1000), Lsn(3000)));
        let line = "2026-11-22 17:33:04 0 [Note] InnoDB: To recover: 828 pages";
        assert_eq!(PrepareEvent::classify(line), PrepareEvent::Other);
    }

    proptest::proptest! {
        #[test]
        fn any_line_is_classified_without_a_panic(line in "\\PC*") {
            PrepareEvent::classify(&line);
            PrepareEvent::classify(&format!("To recover: LSN {line}"));
        }
    }
}
