//! The built program, run as an operator runs it.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    io::{BufRead, BufReader, Read},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use super::{Bucket, MariaDb, scratch, wait};

/// Time for one run; a test's database is small.
const RUN_LIMIT: Duration = Duration::from_secs(300);

/// How the program is run: which repository, which environment. It inherits PATH and nothing else.
#[derive(Debug)]
pub struct Haulout {
    repository: Option<String>,
    environment: BTreeMap<String, String>,
    home: TempDir,
    /// A limit as `ulimit` takes it.
    limit: Option<&'static str>,
    /// The directory in which it is run; the test's own if there is none.
    directory: Option<PathBuf>,
}

impl Haulout {
    /// Without a repository.
    pub fn new() -> Haulout {
        Haulout { repository: None, environment: BTreeMap::new(), home: scratch(), limit: None, directory: None }
    }

    /// With the repository at `url`.
    pub fn on(url: impl Into<String>) -> Haulout {
        Haulout { repository: Some(url.into()), ..Haulout::new() }
    }

    /// With a repository in `bucket`.
    pub fn in_bucket(bucket: &Bucket, prefix: &str) -> Haulout {
        Haulout::on(bucket.url(prefix)).with(bucket.environment())
    }

    /// With these in its environment.
    pub fn with<K: Into<String>, V: Into<String>>(mut self, variables: impl IntoIterator<Item = (K, V)>) -> Haulout {
        self.environment.extend(variables.into_iter().map(|(name, value)| (name.into(), value.into())));
        self
    }

    /// With a limit as `ulimit` takes it: with `-f KIB`, longer files fail in the middle, as on a full disk.
    pub fn with_limit(self, limit: &'static str) -> Haulout {
        Haulout { limit: Some(limit), ..self }
    }

    /// In this directory.
    pub fn in_directory(self, directory: &Path) -> Haulout {
        Haulout { directory: Some(directory.to_owned()), ..self }
    }

    /// Runs the program to its end.
    pub fn run<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Run {
        self.spawn(arguments).wait()
    }

    /// Runs `haulout --json backup` on `server`, with more arguments.
    pub fn backup(&self, server: &MariaDb, more: &[&str]) -> Run {
        self.spawn_backup(server, more).wait()
    }

    /// As [`Haulout::backup`], but does not wait.
    pub fn spawn_backup(&self, server: &MariaDb, more: &[&str]) -> Running {
        let mut arguments = vec!["--json".to_owned(), "backup".to_owned()];
        arguments.extend(server.flags());
        arguments.extend(more.iter().map(|&argument| argument.to_owned()));
        self.spawn(arguments)
    }

    /// Starts the program.
    pub fn spawn<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Running {
        const PROGRAM: &str = env!("CARGO_BIN_EXE_haulout");
        // Whoever runs the tests may have hangups ignored, as `nohup` does, and a program obeys that.
        let mut command = Command::new("/usr/bin/env");
        command.args(["--default-signal=HUP", if self.limit.is_some() { "/bin/bash" } else { PROGRAM }]);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", self.home.path()).env("TMPDIR", self.home.path()).env("LC_ALL", "C.UTF-8");
        command.envs(&self.environment);
        if let Some(limit) = self.limit {
            command.args(["-c", &format!("trap '' XFSZ; ulimit {limit}; exec \"$0\" \"$@\""), PROGRAM]);
        }
        if let Some(directory) = &self.directory {
            command.current_dir(directory);
        }
        if let Some(repository) = &self.repository {
            command.args(["--repo", repository]);
        }
        command.args(arguments);
        let described = format!("{command:?}");
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("haulout can be run");
        let stdout = Lines::read(child.stdout.take().unwrap());
        let stderr = Lines::read(child.stderr.take().unwrap());
        Running { child, started: Instant::now(), stdout, stderr, described }
    }
}

/// A stream's lines so far, read by a thread of their own so that the program never waits for the test.
#[derive(Debug)]
struct Lines {
    lines: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
}

impl Lines {
    fn read(stream: impl Read + Send + 'static) -> Lines {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&lines);
        let reader = thread::spawn(move || {
            let mut stream = BufReader::new(stream);
            let mut line = Vec::new();
            while stream.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
                sink.lock().unwrap().push(String::from_utf8_lossy(&line).trim_end_matches('\n').to_owned());
                line.clear();
            }
        });
        Lines { lines, reader: Some(reader) }
    }

    fn so_far(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    /// All lines of a program that has ended. A grandchild that outlives it can hold the stream open: what it might
    /// still write is not waited for long.
    fn all(&mut self) -> Vec<String> {
        if let Some(reader) = self.reader.take() {
            let _ = wait::try_until(Duration::from_secs(5), || reader.is_finished().then_some(()));
        }
        self.so_far()
    }
}

/// A run that goes on. Killed when dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    started: Instant,
    stdout: Lines,
    stderr: Lines,
    described: String,
}

impl Running {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until a line of standard output or error is as wanted; panics when the program ends before.
    pub fn wait_for_line(&mut self, what: &str, wanted: impl Fn(&str) -> bool) {
        self.wait_for(what, |running| {
            let lines = running.stdout.so_far().into_iter().chain(running.stderr.so_far());
            lines.into_iter().any(|line| wanted(&line))
        });
    }

    /// True when a line of standard output has these words.
    pub fn has_said(&self, words: &str) -> bool {
        self.stdout.so_far().iter().any(|line| line.contains(words))
    }

    /// Waits until `holds`; panics when the program ends before.
    pub fn wait_for(&mut self, what: &str, mut holds: impl FnMut(&Running) -> bool) {
        wait::until(what, RUN_LIMIT, || {
            let ended = self.child.try_wait().unwrap();
            if holds(self) {
                return Some(());
            }
            assert!(
                ended.is_none(),
                "{what}: the run ended before: {}\n{}\n{}",
                self.described,
                self.stdout.so_far().join("\n"),
                self.stderr.so_far().join("\n")
            );
            None
        });
    }

    /// True when the program has ended.
    pub fn ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Kills the program, and not its children, at once.
    pub fn kill9(mut self) -> Run {
        let _ = self.child.kill();
        self.wait()
    }

    /// Sends what Ctrl-C sends.
    pub fn interrupt(&self) {
        self.signal(Signal::INT);
    }

    /// Sends `signal` to the program alone.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for the end.
    pub fn wait(mut self) -> Run {
        let status = wait::try_until(RUN_LIMIT, || self.child.try_wait().unwrap());
        let seconds = self.started.elapsed().as_secs_f64();
        if status.is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        let (stdout, stderr) = (self.stdout.all().join("\n"), self.stderr.all().join("\n"));
        let status = status.unwrap_or_else(|| panic!("{} does not end:\n{stdout}\n{stderr}", self.described));
        let messages = stdout.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        Run { status, stdout, stderr, messages, seconds, described: self.described.clone() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A run that has ended.
#[derive(Debug)]
pub struct Run {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
    /// Lines of standard output that are JSON.
    pub messages: Vec<Value>,
    pub seconds: f64,
    described: String,
}

impl Run {
    /// Exit code; none when a signal ended the run.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// The signal that ended the run.
    pub fn signal(&self) -> Option<i32> {
        self.status.signal()
    }

    /// Panics, with all that was said, unless the run succeeded.
    #[track_caller]
    pub fn ok(self) -> Run {
        self.exits(0)
    }

    /// Panics, with all that was said, unless the run ended with `code`.
    #[track_caller]
    pub fn exits(self, code: i32) -> Run {
        assert_eq!(self.code(), Some(code), "{}\n{}\n{}\n{:?}", self.described, self.stdout, self.stderr, self.status);
        self
    }

    /// The last message of type `kind`: `summary`, `error`, `status`.
    #[track_caller]
    pub fn message(&self, kind: &str) -> &Value {
        let found = self.messages.iter().rev().find(|message| message["message_type"] == kind);
        found.unwrap_or_else(|| panic!("no {kind}: {}\n{}\n{}", self.described, self.stdout, self.stderr))
    }

    /// The summary.
    #[track_caller]
    pub fn summary(&self) -> &Value {
        self.message("summary")
    }
}
