//! What a run has asked of stores and taken of the machine, told with `--json`.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};
use std::time::Duration;

use serde::Serialize;

use super::output::Message;
use crate::{model::Level, store::Counters};

/// Pause between two lines.
pub const PAUSE: Duration = Duration::from_secs(5);

/// The figures of this process.
#[derive(Debug, Default)]
pub struct Figures {
    wanted: AtomicBool,
    totals: Arc<Counters>,
    spooled: AtomicU64,
    spool_max: AtomicU64,
    redo_written: AtomicU64,
    redo_got: AtomicU64,
    redo_kept: AtomicU64,
}

impl Figures {
    /// Counts that all stores of the process add to.
    pub fn totals(&self) -> Arc<Counters> {
        Arc::clone(&self.totals)
    }

    /// From now on they are told.
    pub fn want(&self) {
        self.wanted.store(true, Ordering::Relaxed);
    }

    /// True when they are told.
    pub fn are_wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed)
    }

    /// Something stands at so many bytes.
    pub fn note(&self, level: Level, bytes: u64) {
        let figure = match level {
            Level::Spooled => &self.spooled,
            Level::SpoolMax => &self.spool_max,
            Level::RedoWritten => &self.redo_written,
            Level::RedoKept => &self.redo_kept,
            Level::RedoGot => {
                self.redo_got.fetch_max(bytes, Ordering::Relaxed);
                return;
            }
        };
        figure.store(bytes, Ordering::Relaxed);
    }

    /// The figures now.
    pub fn line(&self) -> FiguresLine {
        let counts = self.totals.counts();
        let (written, got) = (self.redo_written.load(Ordering::Relaxed), self.redo_got.load(Ordering::Relaxed));
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        FiguresLine {
            requests: Requests {
                put: counts.puts,
                get: counts.gets,
                head: counts.heads,
                list: counts.lists,
                delete: counts.deletes,
                lock: counts.locks,
                thaw: counts.thaws,
            },
            errors: Errors {
                refused: counts.refused,
                unavailable: counts.unavailable,
                other: counts.errors.saturating_sub(counts.refused + counts.unavailable),
            },
            retries: counts.retries,
            sent_bytes: counts.bytes_up,
            received_bytes: counts.bytes_down,
            spooled_bytes: self.spooled.load(Ordering::Relaxed),
            spool_max_bytes: self.spool_max.load(Ordering::Relaxed),
            redo_lag_bytes: written.saturating_sub(got),
            redo_kept_bytes: self.redo_kept.load(Ordering::Relaxed),
            memory_bytes: kibibytes(&status, "VmRSS:"),
            memory_peak_bytes: kibibytes(&status, "VmHWM:"),
        }
    }
}

/// A field of `/proc/self/status`, in bytes.
fn kibibytes(status: &str, field: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let number = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    number.unwrap_or(0) << 10
}

/// Requests by kind, repeated ones included.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Requests {
    put: u64,
    get: u64,
    head: u64,
    list: u64,
    delete: u64,
    lock: u64,
    thaw: u64,
}

/// Requests that failed, by kind.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Errors {
    refused: u64,
    unavailable: u64,
    other: u64,
}

/// The figures of a run so far.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct FiguresLine {
    /// Requests to stores.
    pub requests: Requests,
    /// Those that failed.
    pub errors: Errors,
    /// Those that repeated a failed one.
    pub retries: u64,
    /// Bytes of objects that were stored.
    pub sent_bytes: u64,
    /// Bytes of objects that were received.
    pub received_bytes: u64,
    /// Bytes that wait on disk for the store.
    pub spooled_bytes: u64,
    /// How many may wait there; 0 for a run without a spool.
    pub spool_max_bytes: u64,
    /// Redo log that the server has written and a capture has not got yet.
    pub redo_lag_bytes: u64,
    /// How much of it the server keeps; 0 for a run that captures nothing.
    pub redo_kept_bytes: u64,
    /// Memory of the process.
    pub memory_bytes: u64,
    /// The most that it has had.
    pub memory_peak_bytes: u64,
}

impl Message for FiguresLine {
    const TYPE: &'static str = "figures";
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::{OutputOptions, tests::sheets};

    #[test]
    fn figures_are_told_before_the_last_line_where_they_are_wanted() {
        let failure = crate::cli::failure::Failure::new(crate::error::Kind::Failed, "x");
        for (json, wanted, lines) in [(true, true, 2), (true, false, 1), (false, true, 0)] {
            let (output, out, _) = sheets(OutputOptions { json, ..OutputOptions::default() });
            if wanted {
                output.figures.want();
            }
            output.figures.note(Level::Spooled, 7);
            for (level, at) in [(Level::RedoWritten, 100), (Level::RedoGot, 90), (Level::RedoGot, 60)] {
                output.figures.note(level, at);
            }
            output.failure(&failure);
            let text = out.text();
            assert_eq!(text.lines().count(), lines);
            if lines == 2 {
                let line: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
                assert_eq!((&line["message_type"], &line["spooled_bytes"]), (&"figures".into(), &7.into()));
                assert_eq!((&line["redo_lag_bytes"], &line["redo_kept_bytes"]), (&10.into(), &0.into()));
                assert!(line["memory_peak_bytes"].as_u64().unwrap() >= line["memory_bytes"].as_u64().unwrap());
                assert!(line["memory_bytes"].as_u64().unwrap() > 1 << 20);
            }
        }
    }
}
