//! What a run has said so far.

use std::{collections::VecDeque, time::Duration};

use serde_json::Value;
use tokio::time::Instant;

use crate::{
    model::Timestamp,
    web::service::{LOG_LINES_MAX, LogLine, Phase},
};

/// Phases that are kept of a run; there are ten.
const PHASES_MAX: usize = 16;
/// Longest message of a log that is kept, in characters.
const MESSAGE_CHARS_MAX: usize = 2000;
/// Time over which a rate is measured.
const RATE_TIME: Duration = Duration::from_secs(30);
/// Looks at a phase that are kept for its rate; `status` lines come each second.
const LOOKS_MAX: usize = 64;

/// What a run has said so far.
#[derive(Debug, Default)]
pub struct Said {
    phases: Vec<(Phase, VecDeque<(Instant, u64)>)>,
    /// Notes, warnings and errors, the newest last.
    pub log: VecDeque<LogLine>,
    /// The last summary.
    pub summary: Option<Value>,
    /// The error that ended it.
    pub error: Option<Value>,
    /// Its figures.
    pub figures: Option<Value>,
    /// How far the archive is.
    pub archive: Option<Value>,
}

impl Said {
    /// Takes a line down.
    pub fn hear(&mut self, line: Value, now: Timestamp) {
        let kind = line["message_type"].as_str().unwrap_or_default().to_owned();
        match kind.as_str() {
            "status" => self.status(&line),
            "note" | "warning" | "error" => {
                let message = line["message"].as_str().unwrap_or_default();
                self.note(&kind, message, now);
                if kind == "error" {
                    self.error = Some(line);
                }
            }
            "summary" => self.summary = Some(without_type(line)),
            "figures" => self.figures = Some(without_type(line)),
            "archive" => self.archive = Some(without_type(line)),
            _ => {}
        }
    }

    /// Adds a line to the log.
    pub fn note(&mut self, level: &str, message: &str, at: Timestamp) {
        let message = message.chars().take(MESSAGE_CHARS_MAX).collect();
        self.log.push_back(LogLine { at, level: level.to_owned(), message });
        while self.log.len() > LOG_LINES_MAX {
            self.log.pop_front();
        }
    }

    /// Phases in the order in which they began.
    pub fn phases(&self) -> Vec<Phase> {
        self.phases.iter().map(|(phase, _)| phase.clone()).collect()
    }

    fn status(&mut self, line: &Value) {
        let Some(name) = line["phase"].as_str() else { return };
        let at = match self.phases.iter().position(|(phase, _)| phase.phase == name) {
            Some(at) => at,
            None if self.phases.len() >= PHASES_MAX => return,
            None => {
                let phase = Phase {
                    phase: name.to_owned(),
                    done: 0,
                    total: None,
                    unit: String::new(),
                    seconds: 0.0,
                    ended: false,
                    rate: None,
                    seconds_left: None,
                };
                self.phases.push((phase, VecDeque::new()));
                self.phases.len() - 1
            }
        };
        let (phase, looks) = &mut self.phases[at];
        let done = line["done"].as_u64().unwrap_or_default();
        if done < phase.done {
            // It began anew.
            looks.clear();
        }
        phase.done = done;
        phase.total = line["total"].as_u64();
        phase.unit = line["unit"].as_str().unwrap_or_default().to_owned();
        phase.seconds = line["seconds"].as_f64().unwrap_or_default();
        phase.ended = line["ended"].as_bool().unwrap_or_default();
        let now = Instant::now();
        looks.push_back((now, done));
        while looks.len() > LOOKS_MAX || looks.front().is_some_and(|(at, _)| now - *at > RATE_TIME) {
            looks.pop_front();
        }
        (phase.rate, phase.seconds_left) = rate(looks, phase.total.filter(|_| !phase.ended));
    }
}

/// Units per second, and seconds until `total`.
fn rate(looks: &VecDeque<(Instant, u64)>, total: Option<u64>) -> (Option<f64>, Option<f64>) {
    let (Some((first_at, first)), Some((last_at, last))) = (looks.front(), looks.back()) else { return (None, None) };
    let seconds = (*last_at - *first_at).as_secs_f64();
    if seconds <= 0.0 {
        return (None, None);
    }
    let rate = last.saturating_sub(*first) as f64 / seconds;
    let left = total.filter(|_| rate > 0.0).map(|total| total.saturating_sub(*last) as f64 / rate);
    (Some(rate), left)
}

fn without_type(mut line: Value) -> Value {
    if let Value::Object(fields) = &mut line {
        fields.remove("message_type");
    }
    line
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_rate_is_that_of_the_last_half_minute() {
        let mut said = Said::default();
        let now = Timestamp::from_seconds(0);
        for second in 0u64..100 {
            let done = if second < 50 { second * 1000 } else { 50_000 + (second - 50) * 10 };
            said.hear(json!({"message_type": "status", "phase": "capture", "done": done, "total": 51_000, "unit": "bytes", "seconds": second, "ended": false}), now);
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        let phases = said.phases();
        assert_eq!((phases.len(), phases[0].done), (1, 50_490));
        assert_eq!((phases[0].rate, phases[0].seconds_left), (Some(10.0), Some(51.0)));
    }

    #[test]
    fn a_log_keeps_its_end() {
        let mut said = Said::default();
        for number in 0..500 {
            said.hear(
                json!({"message_type": "warning", "message": format!("{number} {}", "x".repeat(5000))}),
                Timestamp::from_seconds(0),
            );
        }
        said.hear(json!({"message_type": "error", "message": "last", "code": 22}), Timestamp::from_seconds(1));
        said.hear(json!({"message_type": "summary", "a": 1}), Timestamp::from_seconds(1));
        assert_eq!((said.log.len(), said.log[0].message.len()), (LOG_LINES_MAX, MESSAGE_CHARS_MAX));
        assert_eq!(said.log.back().map(|line| line.message.as_str()), Some("last"));
        assert_eq!((said.summary, said.error.unwrap()["code"].as_u64()), (Some(json!({"a": 1})), Some(22)));
        for strange in
            [json!({}), json!({"message_type": 1}), json!({"message_type": "status"}), json!({"message_type": "note"})]
        {
            Said::default().hear(strange, Timestamp::from_seconds(0));
        }
    }
}
