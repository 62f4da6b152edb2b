//! The archiver: a run that goes on for as long as the agent does, and is begun again when it ends.

use std::time::Duration;

use serde_json::Value;
use tokio::{sync::watch, time::Instant};

use super::{child::End, progress::Said};
use crate::{
    model::Timestamp,
    web::service::{Archiving, Ended, Job, Outcome},
};

/// Pause before an archiver is begun again that ended; it doubles each time.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// Longest such pause.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// An archiver that was at work for so long had no trouble in beginning.
const SETTLED: Duration = Duration::from_secs(120);

/// The archiver.
#[derive(Debug)]
pub struct Archiver {
    /// What it has said since it was begun.
    pub said: Said,
    /// Turned true to end it; `None` when it is not at work.
    pub stop: Option<watch::Sender<bool>>,
    /// Number of its run.
    pub run: u64,
    /// When it was begun.
    pub started: Timestamp,
    begun: Instant,
    pause: Duration,
    not_before: Instant,
    gaps: u64,
    problem: Option<String>,
}

impl Archiver {
    /// One that is not at work yet.
    pub fn new(now: Timestamp) -> Archiver {
        Archiver {
            said: Said::default(),
            stop: None,
            run: 0,
            started: now,
            begun: Instant::now(),
            pause: PAUSE_MIN,
            not_before: Instant::now(),
            gaps: 0,
            problem: None,
        }
    }

    /// True when it is not at work and its pause is over.
    pub fn is_due(&self) -> bool {
        self.stop.is_none() && Instant::now() >= self.not_before
    }

    /// When it is to be begun again, while it is not at work.
    pub fn due(&self) -> Option<Instant> {
        self.stop.is_none().then_some(self.not_before)
    }

    /// It begins as run `run`.
    pub fn begin(&mut self, run: u64, now: Timestamp) -> watch::Receiver<bool> {
        let (stop, stopped) = watch::channel(false);
        (self.stop, self.run, self.started, self.gaps) = (Some(stop), run, now, 0);
        (self.said, self.begun) = (Said::default(), Instant::now());
        stopped
    }

    /// Takes a line down; true when there is a gap that was not there before.
    pub fn hear(&mut self, line: Value, now: Timestamp) -> bool {
        let is_archive = line["message_type"] == "archive";
        let gaps = line["gaps"].as_u64();
        self.said.hear(line, now);
        if is_archive && self.said.archive.as_ref().is_some_and(|line| line["following"] == true) {
            self.problem = None;
        }
        let new = gaps.is_some_and(|gaps| gaps > self.gaps);
        self.gaps = gaps.unwrap_or(self.gaps);
        new
    }

    /// It has ended; tells how.
    pub fn end(&mut self, end: &End, asked: bool, now: Timestamp) -> Option<Ended> {
        self.stop = None;
        if asked {
            self.not_before = Instant::now();
            return None;
        }
        if self.begun.elapsed() >= SETTLED {
            self.pause = PAUSE_MIN;
        }
        self.not_before = Instant::now() + self.pause;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        let (outcome, message, hint) = super::orders::verdict(Job::Archive, &self.said, end);
        // One that ends by itself, whatever it says, does not do what it is for.
        let outcome = if outcome == Outcome::Succeeded { Outcome::Interrupted } else { outcome };
        self.problem = Some(message.clone());
        Some(Ended {
            run: self.run,
            job: Job::Archive,
            cause: "schedule".to_owned(),
            started: self.started,
            finished: now,
            outcome,
            exit_code: end.exit_code,
            message,
            hint,
            summary: self.said.summary.take(),
        })
    }

    /// How far it is.
    pub fn state(&self, gaps: u64) -> Archiving {
        let line = self.said.archive.as_ref();
        let number = |name: &str| line.and_then(|line| line[name].as_u64());
        let last_event = line.and_then(|line| line["last_event"].as_str()?.parse().ok());
        Archiving {
            following: self.stop.is_some() && line.is_some_and(|line| line["following"] == true),
            last_event: last_event.map(Timestamp),
            waiting_seconds: number("waiting_seconds").unwrap_or_default(),
            behind_bytes: number("behind_bytes"),
            spooled_bytes: number("spooled_bytes").unwrap_or_default(),
            gaps,
            problem: self.problem.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_archiver_that_ends_is_begun_again_after_a_pause_that_grows_until_it_stays() {
        let now = Timestamp::from_seconds(1);
        let mut archiver = Archiver::new(now);
        assert!(archiver.is_due());
        let end = End { exit_code: Some(23), ..End::default() };
        for pause in [1, 2, 4, 8, 16, 32, 60, 60] {
            archiver.begin(1, now);
            let told = archiver.end(&end, false, now).unwrap();
            assert_eq!((told.outcome, told.exit_code), (Outcome::Failed, Some(23)));
            assert!(archiver.state(0).problem.is_some() && !archiver.is_due());
            tokio::time::advance(Duration::from_secs(pause)).await;
            assert!(archiver.is_due(), "{pause}");
        }
        archiver.begin(1, now);
        tokio::time::advance(SETTLED).await;
        archiver.end(&end, false, now);
        tokio::time::advance(PAUSE_MIN).await;
        assert!(archiver.is_due());
        archiver.begin(1, now);
        assert!(archiver.end(&end, true, now).is_none() && archiver.is_due(), "asked to end");
    }

    #[tokio::test]
    async fn each_gap_is_told_once_and_following_ends_a_problem() {
        let now = Timestamp::from_seconds(1);
        let mut archiver = Archiver::new(now);
        archiver.begin(1, now);
        archiver.end(&End::default(), false, now);
        archiver.begin(2, now);
        let line = |gaps: u64| json!({"message_type": "archive", "following": true, "gaps": gaps, "waiting_seconds": 3, "behind_bytes": 9, "spooled_bytes": 7, "last_event": "2026-11-28T08:00:00Z"});
        let heard: Vec<bool> = [0, 1, 1, 2].into_iter().map(|gaps| archiver.hear(line(gaps), now)).collect();
        assert_eq!(heard, [false, true, false, true]);
        let state = archiver.state(2);
        assert_eq!((state.following, state.waiting_seconds, state.behind_bytes, state.gaps), (true, 3, Some(9), 2));
        assert!(state.problem.is_none() && state.last_event.is_some());
    }
}
