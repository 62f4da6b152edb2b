//! Commands of the operator before and after runs.

use std::{process::Stdio, time::Duration};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::Command,
    time::timeout,
};

/// What a hook may say on standard error that is told.
const STDERR_BYTES_MAX: u64 = 2 << 10;
/// Time for what a hook said, once it has ended.
const DRAIN_TIME: Duration = Duration::from_secs(1);

/// Commands of the shell before and after each run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hooks {
    /// Before.
    pub before: Option<String>,
    /// After.
    pub after: Option<String>,
    /// Seconds that each has.
    pub seconds: u32,
    /// Whether a run is left out whose hook before it fails.
    pub required: bool,
}

/// Runs the command before a run, where there is one.
///
/// # Errors
/// Says why it failed.
pub async fn before(hooks: &Hooks, body: &[u8]) -> Result<(), String> {
    match &hooks.before {
        None => Ok(()),
        Some(command) => {
            let failed = |problem| format!("the hook before the run failed: {problem}");
            carry_out(command, body, hooks.seconds).await.map_err(failed)
        }
    }
}

/// Runs `command` in a shell with `body` on its standard input.
///
/// # Errors
/// Says why it failed: its exit code, and the last that it said; or that it took longer than `seconds`.
pub async fn carry_out(command: &str, body: &[u8], seconds: u32) -> Result<(), String> {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", command]).process_group(0).kill_on_drop(true);
    shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = shell.spawn().map_err(|error| format!("it cannot be started: {error}"))?;
    let group = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
    let (stdin, stderr) = (child.stdin.take(), child.stderr.take());
    let mut said = Vec::new();
    let whole = async {
        let give = async {
            if let Some(mut stdin) = stdin {
                // One that reads nothing is welcome, too.
                let _ = stdin.write_all(body).await;
            }
        };
        let hear = async {
            if let Some(mut stderr) = stderr {
                let _ = (&mut stderr).take(STDERR_BYTES_MAX).read_to_end(&mut said).await;
                // The rest is not kept, and must not hold it up.
                let _ = tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await;
            }
        };
        let talk = async { tokio::join!(give, hear) };
        tokio::pin!(talk);
        tokio::select! {
            ended = child.wait() => {
                // What it left behind can hold its output open.
                let _ = timeout(DRAIN_TIME, talk).await;
                ended
            }
            _ = &mut talk => child.wait().await,
        }
    };
    let ended = timeout(Duration::from_secs(seconds.into()), whole).await;
    if let (Err(_), Some(group)) = (&ended, group) {
        let _ = kill_process_group(group, Signal::KILL);
    }
    let said = String::from_utf8_lossy(&said);
    let last = said.trim().lines().last().map(|line| format!(": {line}")).unwrap_or_default();
    match ended {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(format!("it ended with {status}{last}")),
        Ok(Err(error)) => Err(format!("how it ended is not known: {error}")),
        Err(_) => Err(format!("it took longer than {seconds} s, and was killed{last}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_hook_reads_json_and_its_failure_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("heard");
        carry_out(&format!("cat > {}", file.display()), b"{\"event\":\"x\"}", 10).await.unwrap();
        assert_eq!(std::fs::read(&file).unwrap(), b"{\"event\":\"x\"}");
        carry_out("exit 0", &vec![b' '; 1 << 20], 10).await.unwrap();
        let told = carry_out("echo one >&2; echo two >&2; exit 7", b"", 10).await.unwrap_err();
        assert!(told.contains('7') && told.ends_with(": two"), "{told}");
        carry_out("head -c 1000000 /dev/zero >&2", b"", 10).await.unwrap();
    }

    #[tokio::test]
    async fn a_hook_that_hangs_is_killed_with_all_that_it_began() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pid");
        let told = carry_out(&format!("sleep 600 & echo $! > {}; wait", file.display()), b"", 1).await.unwrap_err();
        assert!(told.contains("longer than 1 s"), "{told}");
        let pid = std::fs::read_to_string(file).unwrap();
        let state = || std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
        let gone = || !state().contains(" S ");
        for _ in 0..1000 {
            if gone() {
                return;
            }
            tokio::task::yield_now().await;
        }
        assert!(gone(), "{}", state());
    }
}
