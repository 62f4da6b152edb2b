//! What runs have asked of stores, added up over all of them.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::web::service::Job;

/// Kinds of requests, as `figures` lines have them.
const REQUESTS: [&str; 7] = ["put", "get", "head", "list", "delete", "lock", "thaw"];
/// Kinds of errors.
const ERRORS: [&str; 3] = ["refused", "unavailable", "other"];

/// Sums since the agent began, and levels of now.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tally {
    /// Requests by kind.
    pub requests: BTreeMap<&'static str, u64>,
    /// Those that failed, by kind.
    pub errors: BTreeMap<&'static str, u64>,
    /// Those that repeated a failed one.
    pub retries: u64,
    /// Bytes sent.
    pub sent_bytes: u64,
    /// Bytes received.
    pub received_bytes: u64,
    /// Bytes of the running backup that wait on disk.
    pub spooled_bytes: u64,
    /// How many may.
    pub spool_max_bytes: u64,
    /// Redo log that the server has written and the running backup has not got yet.
    pub redo_lag_bytes: u64,
    /// How much of it the server of the last backup keeps.
    pub redo_kept_bytes: u64,
    /// Most memory of the last run of each job.
    pub memory_peaks: BTreeMap<Job, u64>,
}

impl Tally {
    /// Adds what a run of `job` has done from `before` to `now`, two of its `figures` lines.
    pub fn add(&mut self, job: Job, before: Option<&Value>, now: &Value) {
        let number = |value: &Value| value.as_u64().unwrap_or_default();
        // A run that tells less than before tells nothing.
        let grown = |now: &Value, before: Option<&Value>| number(now).saturating_sub(before.map_or(0, number));
        for (kinds, sums, name) in
            [(&REQUESTS[..], &mut self.requests, "requests"), (&ERRORS[..], &mut self.errors, "errors")]
        {
            for kind in kinds {
                let sum = sums.entry(kind).or_default();
                *sum += grown(&now[name][kind], before.map(|before| &before[name][kind]));
            }
        }
        for (sum, name) in [
            (&mut self.retries, "retries"),
            (&mut self.sent_bytes, "sent_bytes"),
            (&mut self.received_bytes, "received_bytes"),
        ] {
            *sum += grown(&now[name], before.map(|before| &before[name]));
        }
        if job == Job::Backup {
            self.spooled_bytes = number(&now["spooled_bytes"]);
            self.spool_max_bytes = number(&now["spool_max_bytes"]);
            self.redo_lag_bytes = number(&now["redo_lag_bytes"]);
            self.redo_kept_bytes = number(&now["redo_kept_bytes"]);
        }
        self.memory_peaks.insert(job, number(&now["memory_peak_bytes"]));
    }

    /// A run of `job` has ended.
    pub fn end(&mut self, job: Job) {
        if job == Job::Backup {
            (self.spooled_bytes, self.redo_lag_bytes) = (0, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn figures_of_runs_are_added_up_whatever_they_are() {
        let line = |put: u64, sent: u64| {
            json!({"requests": {"put": put, "get": 1}, "errors": {"refused": 0, "unavailable": put}, "retries": 1,
                   "sent_bytes": sent, "spooled_bytes": 9, "spool_max_bytes": 10, "redo_lag_bytes": 5, "redo_kept_bytes": 6, "memory_peak_bytes": 7})
        };
        let mut tally = Tally::default();
        tally.add(Job::Backup, None, &line(2, 100));
        tally.add(Job::Backup, Some(&line(2, 100)), &line(5, 300));
        tally.add(Job::Check, None, &line(1, 0));
        assert_eq!((tally.requests["put"], tally.requests["get"], tally.errors["unavailable"]), (6, 2, 6));
        assert_eq!((tally.sent_bytes, tally.spooled_bytes, tally.memory_peaks[&Job::Check]), (300, 9, 7));
        assert_eq!((tally.redo_lag_bytes, tally.redo_kept_bytes), (5, 6));
        tally.end(Job::Backup);
        assert_eq!((tally.spooled_bytes, tally.redo_lag_bytes, tally.redo_kept_bytes), (0, 0, 6));
        let before = tally.clone();
        tally.add(Job::Check, None, &json!({"requests": [], "errors": 3, "sent_bytes": "x", "memory_peak_bytes": 7}));
        assert_eq!(tally, before);
    }
}
