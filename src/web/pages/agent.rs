//! An agent at work: what runs, what has run, and what comes next.

use askama::Template;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;

use super::super::App;
use super::super::service::{Job, Outcome, Phase};
use super::super::svg;
use super::super::text::{ago, escaped, moment, second, seconds};
use super::{Frame, page, told};
use crate::model::human;

/// Jobs that a page can start.
pub(super) const STARTABLE: [(Job, &str); 3] =
    [(Job::Backup, "Back up now"), (Job::Check, "Check now"), (Job::Drill, "Drill now")];

struct PhaseRow {
    name: String,
    done: String,
    percent: Option<String>,
    bar: String,
    rate: String,
    left: String,
    ended: bool,
}

fn phase_row(phase: &Phase) -> PhaseRow {
    let amount = |value: u64| {
        if phase.unit == "bytes" { human::bytes(value) } else { format!("{} {}", human::count(value), phase.unit) }
    };
    let share = phase.total.filter(|total| *total > 0).map(|total| phase.done as f64 / total as f64);
    PhaseRow {
        name: phase.phase.clone(),
        done: phase
            .total
            .map_or_else(|| amount(phase.done), |total| format!("{} of {}", amount(phase.done), amount(total))),
        percent: share.map(|share| format!("{:.0}", (share * 100.0).min(100.0))),
        bar: svg::share(phase.done.min(phase.total.unwrap_or(phase.done)), phase.total.unwrap_or(phase.done)),
        rate: phase.rate.map_or_else(String::new, |rate| format!("{}/s", amount(rate as u64))),
        left: phase.seconds_left.map_or_else(String::new, |left| format!("{} left", seconds(left))),
        ended: phase.ended,
    }
}

struct RunRow {
    run: u64,
    job: &'static str,
    cause: String,
    started: String,
    took: String,
    phases: Vec<PhaseRow>,
    log: Vec<(String, String, String)>,
}

struct EndedRow {
    run: u64,
    job: &'static str,
    cause: String,
    finished: String,
    took: String,
    outcome: &'static str,
    severity: &'static str,
    message: String,
    hint: String,
}

#[derive(Template)]
#[template(path = "running.html")]
struct RunningPage {
    frame: Frame,
    facts: Vec<(&'static str, String)>,
    running: Vec<RunRow>,
    recent: Vec<EndedRow>,
    jobs: Vec<(&'static str, &'static str)>,
    archiving: Vec<(&'static str, String)>,
}

pub(in crate::web) async fn running(State(app): State<App>, headers: HeaderMap) -> Response {
    let status = match app.agent() {
        Ok(service) => service.status(),
        Err(missing) => return told(&app, &headers, missing),
    };
    let now = app.now();
    let running = status.running.iter().map(|run| RunRow {
        run: run.run,
        job: run.job.name(),
        cause: run.cause.clone(),
        started: moment(run.started),
        took: human::duration(now.seconds_since(run.started).max(0).unsigned_abs()),
        phases: run.phases.iter().map(phase_row).collect(),
        log: run.log.iter().map(|line| (second(line.at), line.level.clone(), line.message.clone())).collect(),
    });
    let recent = status.recent.iter().map(|run| {
        let (outcome, severity) = match run.outcome {
            Outcome::Succeeded => ("succeeded", "fine"),
            Outcome::Damaged => ("damage found", "critical"),
            Outcome::Failed => ("failed", "critical"),
            Outcome::Interrupted => ("interrupted", "warning"),
            Outcome::Skipped => ("skipped", "warning"),
        };
        EndedRow {
            run: run.run,
            job: run.job.name(),
            cause: run.cause.clone(),
            finished: moment(run.finished),
            took: human::duration(run.finished.seconds_since(run.started).max(0).unsigned_abs()),
            outcome,
            severity,
            message: run.message.clone(),
            hint: run.hint.clone().unwrap_or_default(),
        }
    });
    let mut facts = vec![
        ("Server", escaped(&status.server)),
        ("Repository", escaped(&status.repository)),
        (
            "Agent",
            format!(
                "haulout {} on {}, since {}",
                escaped(&status.version),
                escaped(&status.host),
                moment(status.started)
            ),
        ),
        ("Settings", format!("{}, read {}", escaped(&status.config_file), ago(status.config_loaded, now))),
    ];
    if let Some(problem) = &status.config_problem {
        facts.push(("Settings refused", escaped(problem)));
    }
    let archiving = status.archiving.as_ref().map_or_else(Vec::new, |archiving| {
        let mut told = vec![
            ("Following", if archiving.following { "yes".to_owned() } else { "no".to_owned() }),
            (
                "Last event",
                archiving.last_event.map_or_else(|| "–".to_owned(), |at| format!("{} ({})", second(at), ago(at, now))),
            ),
            ("Not stored for", human::duration(archiving.waiting_seconds)),
            ("In the spool", human::bytes(archiving.spooled_bytes)),
            ("Gaps", human::count(archiving.gaps)),
        ];
        if let Some(bytes) = archiving.behind_bytes {
            told.push(("Behind the server", human::bytes(bytes)));
        }
        if let Some(problem) = &archiving.problem {
            told.push(("Problem", escaped(problem)));
        }
        told
    });
    let page_template = RunningPage {
        running: running.collect(),
        recent: recent.collect(),
        jobs: STARTABLE.map(|(job, label)| (job.name(), label)).into(),
        facts,
        archiving,
        frame: app.frame("Running", "running", &headers),
    };
    page(&page_template)
}

#[derive(Template)]
#[template(path = "upcoming.html")]
struct UpcomingPage {
    frame: Frame,
    /// Days, and what comes on each.
    days: Vec<(String, Vec<UpcomingRow>)>,
}

struct UpcomingRow {
    at: String,
    until: String,
    job: &'static str,
    detail: String,
    schedule: String,
    zone: String,
}

pub(in crate::web) async fn upcoming(State(app): State<App>, headers: HeaderMap) -> Response {
    let status = match app.agent() {
        Ok(service) => service.status(),
        Err(missing) => return told(&app, &headers, missing),
    };
    let now = app.now();
    let mut days: Vec<(String, Vec<UpcomingRow>)> = Vec::new();
    for turn in &status.upcoming {
        let day = turn.at.0.strftime("%A, %d %B").to_string();
        let row = UpcomingRow {
            at: moment(turn.at),
            until: ago(turn.at, now),
            job: turn.job.name(),
            detail: turn.detail.clone(),
            schedule: turn.schedule.clone(),
            zone: turn.zone.clone(),
        };
        match days.last_mut().filter(|(last, _)| *last == day) {
            Some((_, rows)) => rows.push(row),
            None => days.push((day, vec![row])),
        }
    }
    page(&UpcomingPage { frame: app.frame("Upcoming", "upcoming", &headers), days })
}
