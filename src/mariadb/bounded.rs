//! Runs a short-lived program with a limit on its time and its output.

use std::{
    io::{self, Read, Write},
    os::unix::process::CommandExt,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal};

/// What a program printed and how it ended.
#[derive(Debug)]
pub(super) struct Output {
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

/// Why a program was not run to its end.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// It did not start, or its pipes broke.
    #[error("cannot start or read it")]
    Io(#[from] io::Error),
    /// It was killed after its time.
    #[error("it did not end within {} seconds", .0.as_secs())]
    Timeout(Duration),
    /// It printed more than was asked for.
    #[error("it printed more than {0} bytes")]
    TooLong(usize),
}

/// Runs `command` with `input` on stdin, for `limit` at most, reading up to `bytes_max` of stdout and of stderr each.
///
/// # Errors
/// When it does not start, does not end in time or prints too much; it is then killed.
pub(super) fn run(
    mut command: Command,
    input: Option<&[u8]>,
    limit: Duration,
    bytes_max: usize,
) -> Result<Output, RunError> {
    let deadline = Instant::now() + limit;
    command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0).spawn()?;
    let stdout = read_aside(child.stdout.take(), bytes_max);
    let stderr = read_aside(child.stderr.take(), bytes_max);
    let given = child.stdin.take().map(|mut pipe| {
        let bytes = input.unwrap_or_default().to_vec();
        // A program that ends before it read all breaks the pipe; what it then says on stderr is the better error.
        thread::spawn(move || drop(pipe.write_all(&bytes)))
    });
    let result = collect(&stdout, &stderr, deadline, limit, bytes_max);
    if result.is_err() {
        kill(&mut child);
    }
    let status = child.wait()?;
    if let Some(thread) = given {
        drop(thread.join());
    }
    let (stdout, stderr) = result?;
    Ok(Output { status, stdout, stderr })
}

type Reading = Receiver<io::Result<Vec<u8>>>;

fn read_aside(pipe: Option<impl Read + Send + 'static>, bytes_max: usize) -> Reading {
    let (sender, receiver) = channel();
    if let Some(pipe) = pipe {
        thread::spawn(move || {
            let mut bytes = vec![];
            let read = pipe.take(bytes_max as u64 + 1).read_to_end(&mut bytes);
            // Nobody listens any more after a timeout.
            drop(sender.send(read.map(|_| bytes)));
        });
    }
    receiver
}

fn collect(
    stdout: &Reading,
    stderr: &Reading,
    deadline: Instant,
    limit: Duration,
    bytes_max: usize,
) -> Result<(Vec<u8>, Vec<u8>), RunError> {
    let one = |reading: &Reading| -> Result<Vec<u8>, RunError> {
        let left = deadline.saturating_duration_since(Instant::now());
        let bytes = reading.recv_timeout(left).map_err(|_| RunError::Timeout(limit))??;
        if bytes.len() > bytes_max { Err(RunError::TooLong(bytes_max)) } else { Ok(bytes) }
    };
    Ok((one(stdout)?, one(stderr)?))
}

fn kill(child: &mut Child) {
    // The group, because a wrapper script may stand between us and the tool.
    if let Some(pid) = Pid::from_raw(child.id() as i32) {
        rustix::process::kill_process_group(pid, Signal::KILL).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_program_that_does_not_end_is_killed() {
        let error = run(shell("exec sleep 600"), None, Duration::from_millis(50), 100).unwrap_err();
        assert!(matches!(error, RunError::Timeout(_)), "{error}");
    }

    #[test]
    fn output_is_limited() {
        let error = run(shell("exec cat /dev/zero"), None, Duration::from_secs(60), 1000).unwrap_err();
        assert!(matches!(error, RunError::TooLong(1000)), "{error}");
    }

    #[test]
    fn input_larger_than_a_pipe_comes_back_whole() {
        let input = vec![b'x'; 1 << 20];
        let output = run(shell("exec cat"), Some(&input), Duration::from_secs(60), 2 << 20).unwrap();
        assert_eq!(output.stdout, input);
        assert!(output.status.success());
    }
}
