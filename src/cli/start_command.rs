//! Runs the operator's command that starts a restored server.

use std::{process::Stdio, time::Duration};

use tokio::process::Command;

use crate::restore::ReplicaError;

/// Time for the command: a service manager waits until the server is up.
const LIMIT: Duration = Duration::from_secs(600);

/// Runs `command`. What it says on stderr goes to ours; a server that it leaves running goes on without us.
///
/// # Errors
/// [`ReplicaError::Start`] when it fails, or does not end in time.
pub async fn run(command: &str) -> Result<(), ReplicaError> {
    let failed = |problem: String| ReplicaError::Start { command: command.to_owned(), problem };
    // Its own group: an interrupt that ends this program is not meant for the server.
    let mut child = Command::new("/bin/sh")
        .args(["-c", command])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .process_group(0)
        .spawn()
        .map_err(|error| failed(format!("it cannot be run: {error}")))?;
    match tokio::time::timeout(LIMIT, child.wait()).await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(failed(status.to_string())),
        Ok(Err(error)) => Err(failed(error.to_string())),
        Err(_) => Err(failed(format!("it did not end within {} minutes", LIMIT.as_secs() / 60))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_command_that_fails_is_told_with_its_status_and_one_that_leaves_something_running_is_over() {
        run("true").await.unwrap();
        let error = run("exit 3").await.unwrap_err().to_string();
        assert!(error.contains("\"exit 3\"") && error.contains("exit status: 3"), "{error}");
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            sender.send(runtime.block_on(run("sleep 20 &")).is_ok()).unwrap();
        });
        assert_eq!(receiver.recv_timeout(Duration::from_secs(10)), Ok(true), "it waits for what was left running");
    }
}
