//! A long-running tool in a process group of its own, whose messages are read line by line as they come.
//!
//! A Ctrl-C at the terminal does not reach the group: the run decides when its tool ends. Should this process be killed,
//! `mariadb-backup --backup` ends at its next write, because nobody holds the other end of its stdout any more.

use std::{
    collections::VecDeque,
    io::{self, BufRead, BufReader, Read},
    os::unix::process::CommandExt,
    process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, channel},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};

/// Longest line kept of the tool's messages; the rest of a longer one is dropped.
const LINE_BYTES_MAX: usize = 8 << 10;

/// Lines kept for the error message of a tool that fails.
const TAIL_LINES: usize = 30;

/// Time a tool has between the polite signals and SIGKILL; it holds nothing that it could save.
const STOP_LIMIT: Duration = Duration::from_secs(3);

/// Time that the rest of a tool's group has, once the tool was waited for: the kernel takes back what a killed process had.
const GROUP_LIMIT: Duration = Duration::from_secs(3);

/// Pause between two looks at the group.
const GROUP_PAUSE: Duration = Duration::from_millis(5);

/// Gets each line that the tool prints on stderr, in the reading thread.
pub(super) trait Listener: Send + 'static {
    fn line(&mut self, line: &str);
}

/// A running tool; dropping it ends the tool.
#[derive(Debug)]
pub(super) struct Process<L> {
    child: Child,
    stopper: Stopper,
    ended: Receiver<(L, Vec<String>)>,
}

/// How a tool ended.
pub(super) struct Ended<L> {
    pub status: ExitStatus,
    pub listener: L,
    /// Last lines that it printed.
    pub tail: Vec<String>,
    /// True when [`Stopper::stop`] was called before.
    pub stopped: bool,
}

impl<L: Listener> Process<L> {
    /// Starts `command`, whose stderr goes to `listener`.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn spawn(mut command: Command, listener: L) -> io::Result<Process<L>> {
        let mut child = command.stderr(Stdio::piped()).process_group(0).spawn()?;
        let pid = Pid::from_child(&child);
        let stderr = child.stderr.take();
        let (sender, ended) = channel();
        thread::spawn(move || {
            let (listener, tail) = listen(stderr, listener);
            await_end(pid);
            // The owner may have given up waiting.
            drop(sender.send((listener, tail)));
        });
        let state = State { pid: Some(pid), stopped: false };
        Ok(Process { child, stopper: Stopper { shared: Arc::new((Mutex::new(state), Condvar::new())) }, ended })
    }

    /// The tool's stdout, once, when the command piped it.
    pub fn take_stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// The tool's stdin, once, when the command piped it.
    pub fn take_stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// Process id of the tool.
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// A handle that ends the tool from any thread.
    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    /// True when the tool has ended and was not waited for yet.
    pub fn has_ended(&self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        !matches!(rustix::process::waitid(WaitId::Pid(self.pid()), options), Ok(None))
    }

    /// Waits for the tool's end, for `limit` at most where there is one.
    ///
    /// # Errors
    /// When the limit passed: the tool is killed.
    pub fn wait(mut self, limit: Option<Duration>) -> io::Result<Ended<L>> {
        let got = match limit {
            Some(limit) => self.ended.recv_timeout(limit).ok(),
            None => self.ended.recv().ok(),
        };
        let (listener, tail) = got.ok_or(io::ErrorKind::TimedOut)?;
        let status = self.reap()?;
        let stopped = self.stopper.lock().stopped;
        Ok(Ended { status, listener, tail, stopped })
    }
}

impl<L> Process<L> {
    /// Takes the exit status, and waits for the end of what the tool started. From here on the process id can belong to someone else, so
    /// that no signal may follow.
    fn reap(&mut self) -> io::Result<ExitStatus> {
        let mut state = self.stopper.lock();
        state.pid = None;
        let status = self.child.wait();
        self.stopper.shared.1.notify_all();
        drop(state);
        await_group(Pid::from_child(&self.child));
        status
    }
}

impl<L> Drop for Process<L> {
    fn drop(&mut self) {
        if self.stopper.lock().pid.is_none() {
            return;
        }
        // A tool that blocks on its stdout is woken by the pipe's end.
        drop(self.child.stdout.take());
        self.stopper.signal(&[Signal::INT, Signal::TERM]);
        if self.ended.recv_timeout(STOP_LIMIT).is_err() {
            self.stopper.signal(&[Signal::KILL]);
        }
        drop(self.reap());
    }
}

#[derive(Debug)]
struct State {
    /// Absent once the process has been waited for.
    pid: Option<Pid>,
    stopped: bool,
}

/// Ends a running tool; does nothing once it has ended.
#[derive(Debug, Clone)]
pub struct Stopper {
    shared: Arc<(Mutex<State>, Condvar)>,
}

impl Stopper {
    /// Asks the tool to end, and kills it when it has not within three seconds. Returns at once.
    pub fn stop(&self) {
        self.lock().stopped = true;
        // mariadb-backup blocks SIGTERM in all its threads; SIGINT may be ignored since before it was started.
        self.signal(&[Signal::INT, Signal::TERM]);
        let stopper = self.clone();
        thread::spawn(move || {
            let (state, ended) = &*stopper.shared;
            let guard = state.lock().unwrap_or_else(PoisonError::into_inner);
            drop(ended.wait_timeout_while(guard, STOP_LIMIT, |state| state.pid.is_some()));
            stopper.signal(&[Signal::KILL]);
        });
    }

    fn signal(&self, signals: &[Signal]) {
        // The lock is held while signalling: the process cannot be waited for in between, and its id stays its own.
        let state = self.lock();
        if let Some(pid) = state.pid {
            for signal in signals {
                // The group may just have ended.
                rustix::process::kill_process_group(pid, *signal).ok();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Blocks until the process has ended, and leaves its status to be taken.
fn await_end(pid: Pid) {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    while matches!(rustix::process::waitid(WaitId::Pid(pid), options), Err(rustix::io::Errno::INTR)) {}
}

/// Blocks until no process is left in the group of a tool that was waited for, [`GROUP_LIMIT`] at most.
fn await_group(group: Pid) {
    let begun = Instant::now();
    while rustix::process::test_kill_process_group(group).is_ok() && begun.elapsed() < GROUP_LIMIT {
        thread::sleep(GROUP_PAUSE);
    }
}

fn listen<L: Listener>(stderr: Option<impl Read>, mut listener: L) -> (L, Vec<String>) {
    let mut tail = VecDeque::new();
    if let Some(stderr) = stderr {
        each_line(BufReader::new(stderr), |bytes| {
            let line = redact(&String::from_utf8_lossy(bytes));
            listener.line(&line);
            if tail.len() == TAIL_LINES {
                tail.pop_front();
            }
            tail.push_back(line);
        });
    }
    (listener, tail.into())
}

/// Calls `line` with each line, cut to [`LINE_BYTES_MAX`]; a read error ends it like the end of the file.
fn each_line(mut reader: impl BufRead, mut line: impl FnMut(&[u8])) {
    let mut kept = vec![];
    loop {
        let bytes = match reader.fill_buf() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Ok(bytes) if !bytes.is_empty() => bytes,
            _ => break,
        };
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let part = &bytes[..end.unwrap_or(bytes.len())];
        let room = LINE_BYTES_MAX - kept.len();
        kept.extend_from_slice(&part[..part.len().min(room)]);
        let used = part.len() + usize::from(end.is_some());
        reader.consume(used);
        if end.is_some() {
            line(kept.trim_ascii_end());
            kept.clear();
        }
    }
    if !kept.is_empty() {
        line(kept.trim_ascii_end());
    }
}

/// What `mariadb-backup` prints secrets behind: the password hash of `SHOW GRANTS`, when a privilege is missing, and the
/// settings of encryption plugins, of which one unlocks the keys (`file_key_management_filekey`).
const SECRETS: [&str; 2] = ["IDENTIFIED ", "Encryption plugin parameter "];

/// Cuts off secrets.
fn redact(line: &str) -> String {
    match SECRETS.iter().find_map(|secret| Some((line.split_once(secret)?.0, secret))) {
        Some((before, secret)) => format!("{before}{secret}(hidden)"),
        None => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default)]
    struct Lines(Vec<String>);

    impl Listener for Lines {
        fn line(&mut self, line: &str) {
            self.0.push(line.to_owned());
        }
    }

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]).stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    #[test]
    fn lines_come_whole_and_the_last_without_its_break() {
        let process = Process::spawn(shell("printf 'one\\ntwo\\r\\n\\nthree' >&2; exit 7"), Lines::default()).unwrap();
        let ended = process.wait(Some(Duration::from_secs(60))).unwrap();
        assert_eq!(ended.listener.0, ["one", "two", "", "three"]);
        assert_eq!(ended.status.code(), Some(7));
        assert_eq!(ended.tail.len(), 4);
    }

    #[test]
    fn a_line_without_end_takes_no_memory() {
        let script = "head -c 3000000 /dev/zero | tr '\\0' x >&2; echo >&2; seq 100 >&2";
        let ended = Process::spawn(shell(script), Lines::default()).unwrap().wait(None).unwrap();
        assert_eq!(ended.listener.0[0].len(), LINE_BYTES_MAX);
        assert_eq!(ended.listener.0[1], "1");
        assert_eq!(ended.tail.len(), TAIL_LINES);
    }

    #[test]
    fn a_password_hash_is_cut_off() {
        let line = "  1.GRANT USAGE ON *.* TO `b2`@`localhost` IDENTIFIED BY PASSWORD '*B69027D44F6E5EDC'";
        assert_eq!(redact(line), "  1.GRANT USAGE ON *.* TO `b2`@`localhost` IDENTIFIED (hidden)");
    }

    #[test]
    fn settings_of_encryption_plugins_are_cut_off() {
        let line = "[00] 2026-11-24 22:32:33 \t Encryption plugin parameter :  '--file_key_management_filekey=hunter2'";
        assert_eq!(redact(line), "[00] 2026-11-24 22:32:33 \t Encryption plugin parameter (hidden)");
    }

    #[test]
    fn a_tool_that_ignores_polite_signals_is_killed_with_its_children() {
        let script = "trap '' INT TERM; echo $$ >&2; while :; do sleep 600; done";
        let process = Process::spawn(shell(script), Lines::default()).unwrap();
        process.stopper().stop();
        // The grandchild holds the other end of stderr too: the end of the messages is the end of both.
        let ended = process.wait(Some(Duration::from_secs(60))).unwrap();
        assert!(ended.stopped && !ended.status.success());
    }

    #[test]
    fn a_dropped_tool_is_gone() {
        let process = Process::spawn(shell("exec sleep 600"), Lines::default()).unwrap();
        let (pid, stopper) = (process.pid(), process.stopper());
        drop(process);
        assert!(rustix::process::test_kill_process(pid).is_err());
        stopper.stop();
    }

    #[test]
    fn what_a_tool_had_started_is_gone_with_it() {
        // Both take their time, and neither holds the pipe of messages.
        let quiet = "exec 2>/dev/null; trap 'sleep 0.2; exit' TERM; while :; do sleep 0.01; done";
        for end in ["exit 0", "wait"] {
            let script = format!("({quiet}) & echo ready >&2; sleep 0.1; kill $!; {end}");
            let process = Process::spawn(shell(&script), Lines::default()).unwrap();
            let group = process.pid();
            process.wait(Some(Duration::from_secs(60))).unwrap();
            assert!(rustix::process::test_kill_process_group(group).is_err(), "{end}");
        }
    }

    #[test]
    fn a_tool_that_outlives_its_limit_is_killed() {
        let process = Process::spawn(shell("exec sleep 600"), Lines::default()).unwrap();
        let pid = process.pid();
        assert!(process.wait(Some(Duration::from_millis(20))).is_err());
        assert!(rustix::process::test_kill_process(pid).is_err());
    }
}
