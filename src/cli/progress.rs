//! How far an operation is: bars on a terminal, `status` lines with `--json`, nothing in a pipe.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use indicatif::{MultiProgress, ProgressBar, ProgressState, ProgressStyle};
use serde::Serialize;

use super::{
    human,
    output::{Message, Output},
};
use crate::model::{Level, Phase, Progress};

/// Pause between two `status` lines.
const STATUS_PAUSE: Duration = Duration::from_secs(1);

/// What a phase counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Objects in the store.
    Objects,
    /// Bytes of redo log.
    Lsn,
}

impl Unit {
    fn amount(self, amount: u64) -> String {
        match self {
            Unit::Bytes | Unit::Lsn => human::bytes(amount),
            Unit::Objects => human::count(amount),
        }
    }

    fn rate(self, amount: u64, seconds: f64) -> String {
        match self {
            Unit::Bytes | Unit::Lsn => human::rate(amount, seconds),
            Unit::Objects if seconds > 0.0 => format!("{:.0}/s", amount as f64 / seconds),
            Unit::Objects => "–".to_owned(),
        }
    }
}

/// Name of `phase` in JSON, and the word for it while it runs and after it.
fn words(phase: Phase) -> (&'static str, &'static str, &'static str) {
    match phase {
        Phase::Capture => ("capture", "reading", "read"),
        Phase::Upload => ("upload", "uploading", "uploaded"),
        Phase::Copy => ("copy", "copying", "copied"),
        Phase::Fetch => ("fetch", "fetching", "fetched"),
        Phase::Prepare => ("prepare", "preparing", "prepared"),
        Phase::Replay => ("replay", "replaying", "replayed"),
        Phase::Move => ("move", "moving", "moved"),
        Phase::Check => ("check", "checking", "checked"),
        Phase::Delete => ("delete", "deleting", "deleted"),
        Phase::Thaw => ("thaw", "thawing", "thawed"),
    }
}

/// Watches an operation on behalf of the operator.
pub struct Watcher {
    output: Arc<Output>,
    check_unit: Unit,
    /// False when the operator wants notes and warnings alone.
    shown: bool,
    phases: Mutex<HashMap<Phase, Running>>,
}

struct Running {
    began: Instant,
    told: Option<Instant>,
    done: u64,
    total: Option<u64>,
    bar: Option<ProgressBar>,
}

impl Watcher {
    /// Tells `output`; `check_unit` is what [`Phase::Check`] counts, and `shown` whether progress is wanted.
    pub fn new(output: Arc<Output>, check_unit: Unit, shown: bool) -> Watcher {
        let shown = shown && !output.options.quiet;
        Watcher { output, check_unit, shown, phases: Mutex::default() }
    }

    fn unit(&self, phase: Phase) -> Unit {
        match phase {
            Phase::Check => self.check_unit,
            Phase::Delete | Phase::Thaw => Unit::Objects,
            Phase::Prepare => Unit::Lsn,
            _ => Unit::Bytes,
        }
    }

    fn phases(&self) -> std::sync::MutexGuard<'_, HashMap<Phase, Running>> {
        self.phases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A `status` line, where the last one is a while ago.
    fn status(&self, phase: Phase, running: &mut Running, now: Instant, ended: bool) {
        if !self.shown || !self.output.is_json() {
            return;
        }
        let due = running.told.is_none_or(|told| now.duration_since(told) >= STATUS_PAUSE);
        if due || ended {
            running.told = Some(now);
            let seconds = now.duration_since(running.began).as_secs_f64();
            let (name, ..) = words(phase);
            let (done, total, unit) = (running.done, running.total, self.unit(phase));
            self.output.json(&Status { phase: name, done, total, unit, seconds: tenths(seconds), ended });
        }
    }
}

impl std::fmt::Debug for Watcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watcher")
            .field("check_unit", &self.check_unit)
            .field("shown", &self.shown)
            .finish_non_exhaustive()
    }
}

impl Progress for Watcher {
    fn begin(&self, phase: Phase, total: Option<u64>) {
        let bars = self.output.screen.bars().filter(|_| self.shown);
        let bar = bars.map(|bars| bar(bars, words(phase).1, self.unit(phase), total));
        let now = Instant::now();
        let mut running = Running { began: now, told: None, done: 0, total, bar };
        let mut phases = self.phases();
        self.status(phase, &mut running, now, false);
        if let Some(Running { bar: Some(old), .. }) = phases.insert(phase, running) {
            old.finish_and_clear();
        }
    }

    fn advance(&self, phase: Phase, amount: u64) {
        let mut phases = self.phases();
        let Some(running) = phases.get_mut(&phase) else { return };
        running.done = running.done.saturating_add(amount);
        match &running.bar {
            Some(bar) => bar.set_position(running.done),
            None => self.status(phase, running, Instant::now(), false),
        }
    }

    fn end(&self, phase: Phase) {
        let Some(mut running) = self.phases().remove(&phase) else { return };
        self.status(phase, &mut running, Instant::now(), true);
        if let Some(bar) = running.bar {
            bar.finish_and_clear();
            let (unit, elapsed) = (self.unit(phase), running.began.elapsed());
            let amount = unit.amount(running.done);
            let (time, rate) = (human::duration(elapsed.as_secs()), unit.rate(running.done, elapsed.as_secs_f64()));
            self.output.screen.write(&format!("{:>10} {amount} in {time}, {rate}\n", words(phase).2));
        }
    }

    fn note(&self, message: &str) {
        self.output.note(message);
    }

    fn warn(&self, message: &str) {
        self.output.warn(message);
    }

    fn level(&self, level: Level, bytes: u64) {
        self.output.figures.note(level, bytes);
    }
}

/// How far a phase is.
#[derive(Debug, Serialize)]
pub struct Status {
    /// Name of the phase.
    pub phase: &'static str,
    /// What is done.
    pub done: u64,
    /// What there is to do, where that is known.
    pub total: Option<u64>,
    /// What `done` and `total` count.
    pub unit: Unit,
    /// Time since the phase began.
    pub seconds: f64,
    /// True in the last line of the phase.
    pub ended: bool,
}

impl Message for Status {
    const TYPE: &'static str = "status";
}

/// `seconds` cut to tenths.
pub fn tenths(seconds: f64) -> f64 {
    (seconds * 10.0).round() / 10.0
}

fn bar(bars: &MultiProgress, word: &'static str, unit: Unit, total: Option<u64>) -> ProgressBar {
    let template = match total {
        Some(_) => "{prefix:>10} {wide_bar} {percent:>3}%  {done} of {length}  {speed}  {left} left",
        None => "{prefix:>10} {spinner} {done}  {speed}",
    };
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let style = style
        .progress_chars("━╸─")
        .with_key("done", move |state: &ProgressState, text: &mut dyn std::fmt::Write| {
            let _ = text.write_str(&unit.amount(state.pos()));
        })
        .with_key("length", move |state: &ProgressState, text: &mut dyn std::fmt::Write| {
            let _ = text.write_str(&unit.amount(state.len().unwrap_or_default()));
        })
        .with_key("speed", move |state: &ProgressState, text: &mut dyn std::fmt::Write| {
            let _ = write!(text, "{:>10}", unit.rate(state.per_sec() as u64, 1.0));
        })
        .with_key("left", |state: &ProgressState, text: &mut dyn std::fmt::Write| {
            // Before anything is done nobody knows.
            let left = if state.pos() == 0 { "–".to_owned() } else { human::duration(state.eta().as_secs()) };
            let _ = write!(text, "{left:>6}");
        });
    let bar = bars.add(ProgressBar::new(total.unwrap_or_default()).with_style(style).with_prefix(word));
    if total.is_none() {
        bar.unset_length();
    }
    // Without it a bar stands still, rate and all, while its operation does.
    bar.enable_steady_tick(Duration::from_millis(250));
    bar
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::{OutputOptions, tests::sheets};

    fn watched(options: OutputOptions, shown: bool, steps: u64) -> (String, String) {
        let (output, out, err) = sheets(options);
        let watcher = Watcher::new(Arc::new(output), Unit::Objects, shown);
        watcher.begin(Phase::Check, Some(steps));
        for _ in 0..steps {
            watcher.advance(Phase::Check, 1);
        }
        watcher.note("noted");
        watcher.end(Phase::Check);
        watcher.advance(Phase::Fetch, 1);
        watcher.end(Phase::Fetch);
        (out.text(), err.text())
    }

    #[test]
    fn a_pipe_sees_notes_and_no_progress() {
        assert_eq!(watched(OutputOptions::default(), true, 10), (String::new(), "haulout: noted\n".to_owned()));
    }

    #[test]
    fn json_has_a_status_line_at_the_start_at_the_end_and_each_second() {
        let (out, err) = watched(OutputOptions { json: true, ..Default::default() }, true, 10_000);
        let lines: Vec<serde_json::Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert!(lines.len() >= 3 && lines.len() < 100, "{out}");
        let (first, last) = (&lines[0], &lines[lines.len() - 1]);
        assert_eq!((&first["done"], &first["ended"]), (&0.into(), &false.into()));
        assert_eq!((&last["done"], &last["total"], &last["ended"]), (&10_000.into(), &10_000.into(), &true.into()));
        assert_eq!(
            (&last["message_type"], &last["phase"], &last["unit"]),
            (&"status".into(), &"check".into(), &"objects".into())
        );
        assert_eq!(err, "");
    }

    #[test]
    fn progress_that_is_not_wanted_is_not_told() {
        let options = OutputOptions { json: true, ..Default::default() };
        assert_eq!(watched(options, false, 10).0.lines().count(), 1, "the note alone");
        assert_eq!(watched(OutputOptions { quiet: true, ..options }, true, 10).0, "");
    }
}
