//! `mariadb-backup --backup --stream=xbstream` as a child.

use std::{
    collections::{BTreeSet, HashSet},
    os::unix::process::ExitStatusExt,
    path::PathBuf,
    process::{ChildStdout, ExitStatus, Stdio},
    time::Duration,
};

use super::{
    connection::{Connection, ConnectionError},
    messages::{Cause, ChildEvent, Ddl, Remedy},
    process::{Ended, Listener, Process, Stopper},
    tool::{ServerVersion, Tools},
};
use crate::{
    error::{Diagnose, Kind},
    model::Lsn,
};

/// Size asked for the pipe between the tool and the parser: what Linux lets any user have. Too small, it costs a switch of
/// threads for each 64 KiB.
const PIPE_BYTES: usize = 1 << 20;

/// Time the tool has to end after its last byte on stdout: it closes its connections and frees memory.
const FINISH_LIMIT: Duration = Duration::from_secs(120);

/// Names of dropped and renamed tablespaces that are remembered; beyond, no vanished tablespace counts as explained.
const NAMES_MAX: usize = 100_000;

/// Warnings and vanished tablespaces that are kept.
const WARNINGS_MAX: usize = 100;

/// Options that the operator may add: those that change neither what is in the stream nor what it means.
const EXTRA_OPTIONS: [&str; 19] = [
    "aria-log-dir-path",
    "extended-validation",
    "ftwrl-wait-timeout",
    "galera-info",
    "innodb-log-checkpoint-now",
    "kill-long-queries-timeout",
    "kill-long-query-type",
    "lock-ddl-per-table",
    "log-copy-interval",
    "open-files-limit",
    "plugin-dir",
    "rocksdb-datadir",
    "safe-slave-backup",
    "safe-slave-backup-timeout",
    "skip-innodb-log-checkpoint-now",
    "slave-info",
    "startup-wait-timeout",
    "throttle",
    "use-memory",
];

/// Gets each line of the tool and what it means, in the thread that reads them: it must be quick.
pub type OnLine = Box<dyn FnMut(&ChildEvent, &str) + Send>;

/// How a backup is taken.
#[derive(Debug, Clone)]
pub struct BackupOptions {
    /// Pages newer than this; all when absent. The parent's start checkpoint less one, never its `to_lsn`.
    pub incremental_from: Option<Lsn>,
    /// Files that the tool reads at once.
    pub parallel: u16,
    /// An existing, empty directory for the tool's small temporary files.
    pub scratch: PathBuf,
    /// Niceness of the child, 0 to 19.
    pub nice: Option<i32>,
    /// Further options of `mariadb-backup`, such as `--galera-info`.
    pub extra_args: Vec<String>,
}

/// The running child; dropping it ends it.
pub struct BackupChild {
    process: Process<Watch>,
    stdout: Option<ChildStdout>,
}

impl BackupChild {
    /// Starts the child.
    ///
    /// # Errors
    /// When an extra option is not allowed, the connection's options are wrong, or the tool does not start.
    pub fn spawn(
        tools: &Tools,
        connection: &Connection,
        options: &BackupOptions,
        on_line: Option<OnLine>,
    ) -> Result<BackupChild, ChildError> {
        check_extra(&options.extra_args)?;
        let connection = connection.open()?;
        let mut command = tools.command(&tools.backup);
        connection.apply(&mut command);
        command.args(["--backup", "--stream=xbstream"]);
        // An option file must not make the stream unsafe behind our back.
        command.args(["--skip-no-lock", "--skip-log-innodb-page-corruption"]);
        for (name, path) in [("--target-dir=", &options.scratch), ("--tmpdir=", &options.scratch)] {
            let mut arg = std::ffi::OsString::from(name);
            arg.push(path);
            command.arg(arg);
        }
        command.arg(format!("--parallel={}", options.parallel.max(1)));
        if let Some(lsn) = options.incremental_from {
            command.arg(format!("--incremental-lsn={lsn}"));
        }
        // Its lines tell local time: see `printed_at`.
        command.args(&options.extra_args).env("TZ", "UTC0").stdout(Stdio::piped());
        let watch = Watch { on_line, findings: Findings::default(), _connection: connection };
        let mut process = Process::spawn(command, watch)
            .map_err(|source| ChildError::Start { path: tools.backup.path.clone(), source })?;
        let stdout = process.take_stdout();
        if let Some(pipe) = &stdout {
            // Less than asked for is slower, not wrong.
            rustix::pipe::fcntl_setpipe_size(pipe, PIPE_BYTES).ok();
        }
        if let Some(nice) = options.nice {
            // Threads inherit the niceness of the thread that starts them, and the tool has just one yet.
            rustix::process::setpriority_process(Some(process.pid()), nice.clamp(0, 19)).ok();
        }
        Ok(BackupChild { process, stdout })
    }

    /// The stream, once.
    pub fn take_stdout(&mut self) -> Option<ChildStdout> {
        self.stdout.take()
    }

    /// A handle that ends the child from any thread.
    pub fn stopper(&self) -> Stopper {
        self.process.stopper()
    }

    /// Process id of the child.
    pub fn id(&self) -> u32 {
        self.process.pid().as_raw_nonzero().get().unsigned_abs()
    }

    /// Takes the child's verdict; call it when the stream has been read to its end.
    ///
    /// # Errors
    /// Unless the child ended with 0, said `completed OK!` and reported nothing that makes the backup worthless.
    pub fn finish(self) -> Result<ChildReport, ChildError> {
        drop(self.stdout);
        let ended = self.process.wait(Some(FINISH_LIMIT)).map_err(|_| ChildError::Stuck { limit: FINISH_LIMIT })?;
        let Ended { status, listener: Watch { findings, .. }, tail, stopped } = ended;
        // What it said before counts also of a tool that was stopped because its stream made no sense any more.
        if findings.cause.as_ref().is_some_and(|cause| cause.remedy() == Remedy::TakeFull) {
            return Err(ChildError::Failed { status, cause: findings.cause, tail });
        }
        if stopped {
            return Err(ChildError::Stopped);
        }
        if let Some(signal) = status.signal() {
            return Err(ChildError::Killed { signal, tail });
        }
        let fatal = findings.cause.as_ref().is_some_and(Cause::is_final);
        match (status.success() && !fatal, findings.completed) {
            (true, true) => Ok(findings.report()),
            (true, false) => Err(ChildError::Incomplete { tail }),
            (false, _) => Err(ChildError::Failed { status, cause: findings.cause, tail }),
        }
    }
}

/// What a successful child said.
#[derive(Debug, Clone, Default)]
pub struct ChildReport {
    /// Version of the server.
    pub server: Option<ServerVersion>,
    /// Redo log as printed: the newest checkpoint, and the end of the copy.
    pub redo_copied: Option<(Lsn, Lsn)>,
    /// Creations, renames and drops that the child tracked.
    pub ddl_count: u64,
    /// Pages read again because they were torn.
    pub page_retries: u64,
    /// Tablespaces that the child left out, which no rename or drop that it tracked explains, as `db/table`.
    pub vanished: Vec<String>,
    /// Tablespaces that the child left out and that were indeed dropped or renamed meanwhile, as `db/table`.
    pub dropped: Vec<String>,
    /// Files of other engines that the child could not open, by their paths in the datadir.
    pub unopened: BTreeSet<String>,
    /// Warnings, the first hundred.
    pub warnings: Vec<String>,
}

struct Watch {
    on_line: Option<OnLine>,
    findings: Findings,
    /// Keeps the password's memory file while the child may read it.
    _connection: super::connection::ConnectionArgs,
}

impl Listener for Watch {
    fn line(&mut self, line: &str) {
        let event = ChildEvent::classify(line);
        if let Some(on_line) = &mut self.on_line {
            on_line(&event, line);
        }
        self.findings.note(event);
    }
}

#[derive(Debug, Default)]
struct Findings {
    completed: bool,
    cause: Option<Cause>,
    report: ChildReport,
    left_out: Vec<String>,
    gone: HashSet<String>,
    too_many: bool,
}

impl Findings {
    fn note(&mut self, event: ChildEvent) {
        match event {
            ChildEvent::Completed => self.completed = true,
            ChildEvent::Server(version) => self.report.server = Some(version),
            ChildEvent::RedoCopied { from, to } => self.report.redo_copied = Some((from, to)),
            ChildEvent::Ddl { name, ddl, .. } => self.note_ddl(&name, &ddl),
            ChildEvent::Vanished { name } => self.note_left_out(plain_name(&name)),
            ChildEvent::Unopened { path } if self.report.unopened.len() <= NAMES_MAX => {
                self.report.unopened.insert(path);
            }
            ChildEvent::PageRetry => self.report.page_retries += 1,
            ChildEvent::Failure(cause) => self.note_cause(cause),
            ChildEvent::Warning(line) if self.report.warnings.len() < WARNINGS_MAX => self.report.warnings.push(line),
            ChildEvent::Warning(_)
            | ChildEvent::Unopened { .. }
            | ChildEvent::DdlBlocked
            | ChildEvent::CommitBlocked
            | ChildEvent::RedoRetry
            | ChildEvent::RedoScanned(_)
            | ChildEvent::Other => {}
        }
    }

    fn note_ddl(&mut self, name: &str, ddl: &Ddl) {
        self.report.ddl_count += 1;
        if *ddl == Ddl::Create {
            return;
        }
        if self.gone.len() < NAMES_MAX {
            self.gone.insert(plain_name(name));
        } else {
            self.too_many = true;
        }
    }

    fn note_left_out(&mut self, name: String) {
        if self.left_out.len() >= NAMES_MAX {
            self.too_many = true;
        } else if !self.left_out.contains(&name) {
            self.left_out.push(name);
        }
    }

    /// The first cause that says something is the cause; what follows are its consequences.
    fn note_cause(&mut self, cause: Cause) {
        // Should the tool get over it and end well, it is still worth telling.
        if self.report.warnings.len() < WARNINGS_MAX {
            self.report.warnings.push(cause.to_string());
        }
        let better = match &self.cause {
            None => true,
            Some(known) => !known.is_specific() && cause.is_specific(),
        };
        if better {
            self.cause = Some(cause);
        }
    }

    fn report(mut self) -> ChildReport {
        let explained = |name: &String| !self.too_many && self.gone.contains(name);
        (self.report.dropped, self.report.vanished) = self.left_out.into_iter().partition(explained);
        self.report
    }
}

/// `db/table` of a tablespace file, wherever it lies: `./db/table.ibd`, `/elsewhere/db/table.ibd`.
fn plain_name(path: &str) -> String {
    let mut parts = path.rsplitn(3, '/');
    let file = parts.next().unwrap_or_default();
    let table = file.strip_suffix(".ibd").unwrap_or(file);
    match parts.next() {
        Some(dir) if dir != "." => format!("{dir}/{table}"),
        _ => table.to_owned(),
    }
}

fn check_extra(args: &[String]) -> Result<(), ChildError> {
    for arg in args {
        let name = arg.split('=').next().unwrap_or_default();
        if !name.strip_prefix("--").is_some_and(|name| EXTRA_OPTIONS.contains(&name)) {
            return Err(ChildError::NotAllowed { option: name.to_owned() });
        }
    }
    Ok(())
}

/// The last lines of a tool, for an error message.
pub(super) fn last_words(tail: &[String]) -> String {
    let words: Vec<&str> = tail.iter().rev().map(|line| line.trim()).filter(|line| !line.is_empty()).take(3).collect();
    if words.is_empty() {
        "it said nothing".to_owned()
    } else {
        words.into_iter().rev().collect::<Vec<_>>().join(" | ")
    }
}

fn why(cause: &Option<Cause>, tail: &[String]) -> String {
    cause.as_ref().map_or_else(|| last_words(tail), Cause::to_string)
}

/// Why there is no backup.
#[derive(Debug, thiserror::Error)]
pub enum ChildError {
    /// The connection's options are wrong.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    /// An extra option is not one of those that may be added.
    #[error("option {option} of mariadb-backup cannot be added")]
    NotAllowed {
        /// Name of the option.
        option: String,
    },
    /// The tool does not start.
    #[error("cannot start {path:?}")]
    Start {
        /// The program.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The tool failed.
    #[error("mariadb-backup failed ({status}): {}", why(cause, tail))]
    Failed {
        /// How it ended.
        status: ExitStatus,
        /// What it told of the reason.
        cause: Option<Cause>,
        /// Its last lines.
        tail: Vec<String>,
    },
    /// The tool ended with 0 and did not say that it was done.
    #[error("mariadb-backup ended with 0 but without \"completed OK!\": {}", last_words(tail))]
    Incomplete {
        /// Its last lines.
        tail: Vec<String>,
    },
    /// Someone killed the tool.
    #[error("mariadb-backup was killed by signal {signal}: {}", last_words(tail))]
    Killed {
        /// Number of the signal.
        signal: i32,
        /// Its last lines.
        tail: Vec<String>,
    },
    /// The tool closed its stdout and did not end.
    #[error("mariadb-backup closed its stream and did not end within {} seconds", limit.as_secs())]
    Stuck {
        /// How long was waited.
        limit: Duration,
    },
    /// This process stopped the tool.
    #[error("mariadb-backup was stopped")]
    Stopped,
}

impl ChildError {
    /// What a run can do by itself.
    pub fn remedy(&self) -> Remedy {
        match self {
            ChildError::Failed { cause: Some(cause), .. } => cause.remedy(),
            ChildError::Killed { .. } | ChildError::Stuck { .. } => Remedy::Retry,
            _ => Remedy::Stop,
        }
    }
}

impl Diagnose for ChildError {
    fn kind(&self) -> Kind {
        match self {
            ChildError::Connection(error) => error.kind(),
            ChildError::NotAllowed { .. } => Kind::Usage,
            ChildError::Stopped => Kind::Interrupted,
            _ => Kind::DatabaseRefused,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            ChildError::Connection(error) => error.hint(),
            ChildError::NotAllowed { .. } => Some(format!("allowed are: --{}", EXTRA_OPTIONS.join(", --"))),
            ChildError::Failed { cause, .. } => cause.as_ref().and_then(Cause::hint),
            ChildError::Killed { signal: 9, .. } => {
                Some("see the system's log for the out-of-memory killer".to_owned())
            }
            ChildError::Incomplete { .. } => {
                Some("reinstall mariadb-backup, or name the path of the right one".to_owned())
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::mariadb::tool::{Tool, tests::script_file};

    /// Runs a script in place of the tool.
    fn run(script: &str) -> (Vec<u8>, Result<ChildReport, ChildError>) {
        let dir = tempfile::tempdir().unwrap();
        let path = script_file(dir.path(), script);
        let tools = Tools::of(Tool { path, version: "10.11.19-MariaDB".parse().unwrap() });
        let options = BackupOptions {
            incremental_from: Some(Lsn(7)),
            parallel: 1,
            scratch: dir.path().into(),
            nice: None,
            extra_args: vec![],
        };
        let mut child = BackupChild::spawn(&tools, &Connection::default(), &options, None).unwrap();
        let mut bytes = vec![];
        child.take_stdout().unwrap().read_to_end(&mut bytes).unwrap();
        (bytes, child.finish())
    }

    #[test]
    fn ending_with_0_is_not_enough() {
        let (bytes, result) = run("echo stream; echo 'almost done' >&2");
        assert_eq!(bytes, b"stream\n");
        let error = result.unwrap_err();
        assert!(matches!(error, ChildError::Incomplete { .. }), "{error}");
        assert_eq!(error.kind(), Kind::DatabaseRefused);
        assert!(error.to_string().contains("almost done"), "{error}");
    }

    #[test]
    fn saying_completed_is_not_enough() {
        let (_, result) = run("echo '[00] 2026-11-22 17:23:45 completed OK!' >&2; exit 1");
        assert!(matches!(result, Err(ChildError::Failed { cause: None, .. })));
        assert!(run("echo '[00] 2026-11-22 17:23:45 completed OK!' >&2").1.is_ok());
        let (_, result) = run("echo 'Was only able to copy log from 1 to 2, not 3' >&2; echo 'completed OK!' >&2");
        assert_eq!(result.unwrap_err().remedy(), Remedy::Retry);
    }

    #[test]
    fn a_killed_child_is_named_so() {
        let (_, result) = run("echo working >&2; kill -9 $$");
        let error = result.unwrap_err();
        assert!(matches!(error, ChildError::Killed { signal: 9, .. }), "{error}");
        assert!(error.to_string().contains("signal 9: working"), "{error}");
    }

    #[test]
    fn nothing_of_our_environment_reaches_the_tool() {
        let (bytes, _) = run("env | grep -vE '^(PATH|LC_ALL|LANG|PWD|SHLVL|_|OLDPWD)='");
        assert_eq!(String::from_utf8(bytes).unwrap(), "TZ=UTC0\n", "its lines are to tell the time in UTC");
    }

    #[test]
    fn a_vanished_tablespace_counts_as_dropped_only_when_ddl_explains_it() {
        let script = "cat >&2 <<'END'
[01] 2026-11-22 17:22:53 mariabackup: error: cannot open tablespace ./db/gone.ibd
[01] 2026-11-22 17:22:53 Warning: We assume the  table was dropped during xtrabackup execution and ignore the tablespace ./db/gone.ibd
[01] 2026-11-22 17:22:53 Warning: We assume the  table was dropped during xtrabackup execution and ignore the tablespace ./db/lost.ibd
[00] 2026-11-22 17:34:54 DDL tracking : delete 7 \"./db/gone.ibd\"
[00] 2026-11-22 17:34:54 DDL tracking : create 8 \"./db/lost.ibd\"
[00] 2026-11-22 17:34:54 completed OK!
END";
        let report = run(script).1.unwrap();
        assert_eq!((report.dropped, report.vanished), (vec!["db/gone".to_owned()], vec!["db/lost".to_owned()]));
        assert_eq!(report.ddl_count, 2);
    }

    #[test]
    fn options_that_change_the_stream_cannot_be_added() {
        for arg in ["--no-lock", "--compress", "--tables=x", "--password=x", "--stream=tar", "--pass=x", "galera-info"]
        {
            assert!(check_extra(&[arg.to_owned()]).is_err(), "{arg}");
        }
        assert!(check_extra(&["--throttle=100".to_owned(), "--galera-info".to_owned()]).is_ok());
    }

    #[test]
    fn names_are_the_same_wherever_the_file_lies() {
        for path in ["./db/t.ibd", "db/t.ibd", "/elsewhere/db/t.ibd"] {
            assert_eq!(plain_name(path), "db/t");
        }
        assert_eq!(plain_name("./undo001"), "undo001");
    }
}
