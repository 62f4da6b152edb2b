//! A run: a child process of the agent's own program, its lines, its end.

use std::{
    collections::VecDeque,
    ffi::OsString,
    io,
    path::PathBuf,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader},
    process::{Child, Command},
    sync::{mpsc, watch},
    time::timeout,
};

use super::config::IoClass;

/// Longest line of a run that is read: a summary with all its warnings. The rest of a longer one is passed over.
const LINE_BYTES_MAX: usize = 1 << 20;
/// Bytes of standard error that are kept, its end: what a program says before it dies.
const STDERR_BYTES_MAX: usize = 8 << 10;
/// Time that a run has to end by itself after SIGTERM; the agent itself has 30 s.
const TERM_TIME: Duration = Duration::from_secs(20);
/// Time for the rest of the output of a run that has ended: grandchildren that outlive it can hold it open.
const DRAIN_TIME: Duration = Duration::from_secs(2);
/// Lines that wait for the agent; then the run does.
pub const LINES_MAX: usize = 64;

/// How runs are started.
#[derive(Debug, Clone)]
pub struct Launcher {
    /// The agent's own program.
    pub program: PathBuf,
    /// What a run has in its environment beyond the agent's own, and what it has not.
    pub environment: Vec<(OsString, Option<OsString>)>,
    /// Name of the variable that tells a run whose it is, and how nice.
    pub variable: &'static str,
}

/// What a run said, or how it ended.
#[derive(Debug)]
pub enum Event {
    /// A line of JSON.
    Line(Value),
    /// It ended.
    Ended(End),
}

/// How a run ended.
#[derive(Debug, Clone, Default)]
pub struct End {
    /// Its exit code; none when a signal ended it, or it could not be started.
    pub exit_code: Option<i32>,
    /// The end of its standard error.
    pub stderr: String,
    /// What happened, where there is no exit code.
    pub problem: Option<String>,
    /// True when it was never begun, because it was not to be.
    pub skipped: bool,
}

/// What a run is given.
#[derive(Debug, Clone)]
pub struct Order {
    /// Arguments of the program.
    pub arguments: Vec<String>,
    /// Niceness.
    pub nice: u8,
    /// I/O class.
    pub io_class: Option<IoClass>,
}

impl Launcher {
    fn command(&self, order: &Order) -> Command {
        let mut command = match order.io_class {
            None => Command::new(&self.program),
            // It replaces itself by the program.
            Some(class) => {
                let mut command = Command::new("ionice");
                match class {
                    IoClass::BestEffort => command.args(["-c", "2", "-n", "7"]),
                    IoClass::Idle => command.args(["-c", "3"]),
                };
                command.arg(&self.program);
                command
            }
        };
        command.args(&order.arguments);
        for (name, value) in &self.environment {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.env(self.variable, format!("{}:{}", std::process::id(), order.nice));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        command
    }

    /// Carries `order` out as run `run` and tells `events`; the last one is its end. When `stop` turns true, the run is told to end, and is
    /// killed if it does not.
    pub async fn run(&self, run: u64, order: &Order, events: mpsc::Sender<(u64, Event)>, stop: watch::Receiver<bool>) {
        let events = Events { run, sender: events };
        let end = match self.command(order).spawn() {
            Ok(child) => attend(child, &events, stop).await,
            Err(error) => End { problem: Some(format!("it cannot be started: {error}")), ..End::default() },
        };
        events.send(Event::Ended(end)).await;
    }
}

struct Events {
    run: u64,
    sender: mpsc::Sender<(u64, Event)>,
}

impl Events {
    /// False when nobody listens any more.
    async fn send(&self, event: Event) -> bool {
        self.sender.send((self.run, event)).await.is_ok()
    }
}

async fn attend(mut child: Child, events: &Events, mut stop: watch::Receiver<bool>) -> End {
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let group = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
    let lines = async {
        if let Some(stdout) = stdout {
            read_lines(stdout, events).await;
        }
    };
    let mut tail = VecDeque::new();
    let ended = {
        let output = async { tokio::join!(lines, read_tail(stderr, &mut tail)) };
        let status = async {
            tokio::select! {
                status = child.wait() => return status,
                _ = stop.wait_for(|stop| *stop) => {}
            }
            signal(group, |pid| kill_process(pid, Signal::TERM));
            match timeout(TERM_TIME, child.wait()).await {
                Ok(status) => status,
                Err(_) => {
                    signal(group, |pid| kill_process_group(pid, Signal::KILL));
                    child.wait().await
                }
            }
        };
        tokio::pin!(output, status);
        // Output is read for as long as it runs, or it would wait for room in the pipe.
        tokio::select! {
            status = &mut status => {
                let _ = timeout(DRAIN_TIME, output).await;
                status
            }
            _ = &mut output => status.await,
        }
    };
    let stderr = String::from_utf8_lossy(&tail.into_iter().collect::<Vec<u8>>()).trim().to_owned();
    end_of(ended, stderr)
}

fn signal(group: Option<Pid>, send: impl FnOnce(Pid) -> rustix::io::Result<()>) {
    if let Some(pid) = group {
        // It may have ended just now.
        let _ = send(pid);
    }
}

fn end_of(ended: io::Result<ExitStatus>, stderr: String) -> End {
    match ended {
        Ok(status) => {
            let problem = status.code().is_none().then(|| format!("it was ended by {status}"));
            End { exit_code: status.code(), stderr, problem, skipped: false }
        }
        Err(error) => {
            let problem = Some(format!("how it ended is not known: {error}"));
            End { stderr, problem, ..End::default() }
        }
    }
}

/// Hands on lines that are JSON objects.
async fn read_lines(stream: impl AsyncRead + Unpin, events: &Events) {
    let mut stream = BufReader::with_capacity(8 << 10, stream);
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = (&mut stream).take(LINE_BYTES_MAX as u64).read_until(b'\n', &mut line).await;
        if !read.is_ok_and(|length| length > 0) {
            return;
        }
        if line.last() != Some(&b'\n') && line.len() >= LINE_BYTES_MAX && !skip_line(&mut stream).await {
            return;
        }
        if let Ok(value @ Value::Object(_)) = serde_json::from_slice(&line)
            && !events.send(Event::Line(value)).await
        {
            return;
        }
    }
}

/// Reads up to the end of the line, and keeps nothing of it; false when the stream ends before.
async fn skip_line(stream: &mut BufReader<impl AsyncRead + Unpin>) -> bool {
    loop {
        let Ok(buffer) = stream.fill_buf().await else { return false };
        if buffer.is_empty() {
            return false;
        }
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let length = end.map_or(buffer.len(), |end| end + 1);
        stream.consume(length);
        if end.is_some() {
            return true;
        }
    }
}

/// Reads all, and keeps the end of it.
async fn read_tail(stream: Option<impl AsyncRead + Unpin>, tail: &mut VecDeque<u8>) {
    let Some(mut stream) = stream else { return };
    let mut buffer = [0; 1024];
    while let Ok(length) = stream.read(&mut buffer).await {
        if length == 0 {
            return;
        }
        tail.extend(&buffer[..length]);
        let surplus = tail.len().saturating_sub(STDERR_BYTES_MAX);
        tail.drain(..surplus);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn run(script: &str, stop: watch::Receiver<bool>) -> (Vec<Value>, End) {
        let launcher = Launcher { program: "/bin/sh".into(), environment: Vec::new(), variable: "HAULOUT_TEST" };
        let order = Order { arguments: vec!["-c".to_owned(), script.to_owned()], nice: 0, io_class: None };
        let (sender, mut events) = mpsc::channel(LINES_MAX);
        let task = tokio::spawn(async move { launcher.run(1, &order, sender, stop).await });
        let mut lines = Vec::new();
        loop {
            match events.recv().await.unwrap().1 {
                Event::Line(line) => lines.push(line),
                Event::Ended(end) => {
                    task.await.unwrap();
                    return (lines, end);
                }
            }
        }
    }

    fn never() -> (watch::Sender<bool>, watch::Receiver<bool>) {
        watch::channel(false)
    }

    #[tokio::test]
    async fn lines_of_json_and_the_end_of_stderr_are_told() {
        let (_sender, stop) = never();
        let script = "echo '{\"a\":1}'; echo nonsense; echo '[1]'; echo '{\"b\":2}'; echo oh dear >&2; exit 22";
        let (lines, end) = run(script, stop).await;
        assert_eq!(lines, [serde_json::json!({"a": 1}), serde_json::json!({"b": 2})]);
        assert_eq!((end.exit_code, end.stderr.as_str()), (Some(22), "oh dear"));
    }

    #[tokio::test]
    async fn a_line_without_end_costs_no_memory_and_hides_no_later_one() {
        let (_sender, stop) = never();
        let script = "head -c 5000000 /dev/zero | tr '\\0' x; echo; echo '{\"b\":2}'; head -c 100000 /dev/zero >&2";
        let (lines, end) = run(script, stop).await;
        assert_eq!(lines, [serde_json::json!({"b": 2})]);
        assert!(end.stderr.len() <= STDERR_BYTES_MAX);
    }

    #[tokio::test]
    async fn a_run_is_told_to_end_and_a_program_that_is_missing_is_told() {
        let (sender, stop) = never();
        sender.send(true).unwrap();
        let (_, end) = run("trap 'exit 130' TERM; echo '{}'; while :; do sleep 0.1; done", stop).await;
        assert!(matches!(end.exit_code, Some(130) | None), "{end:?}");
        let launcher =
            Launcher { program: "/nowhere/haulout".into(), environment: Vec::new(), variable: "HAULOUT_TEST" };
        let order = Order { arguments: Vec::new(), nice: 0, io_class: None };
        let (events, mut told) = mpsc::channel(1);
        launcher.run(1, &order, events, never().1).await;
        let Some((1, Event::Ended(end))) = told.recv().await else { panic!() };
        assert!(end.problem.unwrap().contains("cannot be started"));
    }
}
