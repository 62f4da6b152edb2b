//! Ctrl-C, SIGTERM and SIGHUP: the first asks the operation to stop, the second ends the process at once.

use std::{io, sync::Arc};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};

use super::{employment, output::Output};
use crate::error::Kind;

/// Turns true when the operation is to stop; hand clones to whatever waits.
pub type Stop = watch::Receiver<bool>;

/// Listens to SIGINT, SIGTERM and SIGHUP from now on, inside a runtime.
///
/// # Errors
/// When the system does not let signals be caught.
pub fn listen(output: Arc<Output>) -> io::Result<Stop> {
    listen_to(output, Signals::new()?)
}

/// As [`listen`], but to SIGINT and SIGTERM alone: SIGHUP has another meaning for a service.
///
/// # Errors
/// As of [`listen`].
pub fn listen_as_service(output: Arc<Output>) -> io::Result<Stop> {
    listen_to(output, Signals { hangup: None, ..Signals::new()? })
}

fn listen_to(output: Arc<Output>, mut signals: Signals) -> io::Result<Stop> {
    let (sender, receiver) = watch::channel(false);
    tokio::spawn(async move {
        let name = signals.next().await;
        output.warn(&format!("{name}: stopping. Once more to stop at once"));
        // Fails only when nobody waits any more.
        let _ = sender.send(true);
        // A terminal that goes away tells so more than once, and so does an agent.
        signals.hangup = signals.hangup.filter(|_| name != HANGUP);
        signals.next().await;
        output.screen.clear();
        std::process::exit(i32::from(Kind::Interrupted.exit_code()));
    });
    Ok(receiver)
}

/// What is told of SIGHUP.
const HANGUP: &str = "the terminal is gone, or the agent";

struct Signals {
    interrupt: Signal,
    terminate: Signal,
    /// Absent when it is ignored, as `nohup` has it.
    hangup: Option<Signal>,
}

impl Signals {
    fn new() -> io::Result<Signals> {
        Ok(Signals {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: if is_ignored(SignalKind::hangup().as_raw_value()) {
                None
            } else {
                Some(signal(SignalKind::hangup())?)
            },
        })
    }

    async fn next(&mut self) -> &'static str {
        loop {
            tokio::select! {
                _ = self.interrupt.recv() => return "interrupted",
                _ = self.terminate.recv() => return "told to terminate",
                _ = recv(&mut self.hangup) => if !employment::agent_lives() { return HANGUP },
            }
        }
    }
}

async fn recv(signal: &mut Option<Signal>) -> Option<()> {
    match signal {
        Some(signal) => signal.recv().await,
        None => std::future::pending().await,
    }
}

/// True when whoever started this process wants it to ignore signal `number` (`proc_pid_status(5)`, `SigIgn`).
fn is_ignored(number: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (number - 1) & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::{OutputOptions, tests::sheets};

    #[tokio::test]
    async fn the_first_signal_asks_to_stop() {
        let (output, _, err) = sheets(OutputOptions::default());
        let mut stop = listen(Arc::new(output)).unwrap();
        assert!(!*stop.borrow());
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM).unwrap();
        stop.wait_for(|stop| *stop).await.unwrap();
        assert!(err.text().contains("told to terminate: stopping"), "{}", err.text());
    }
}
