//! One server: its timeline, what its backups added, how it grows, and all of it in tables.

use askama::Template;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use axum::response::Response;
use serde::Deserialize;

use super::super::App;
use super::super::svg::{self, Span};
use super::super::text::{ago, moment, second, seconds};
use super::super::view::{BackupView, ServerDetails, slug, unslug};
use super::by_table::ByTable;
use super::fleet::{cost, figures, money};
use super::{Chip, Figure, Frame, page, told};
use crate::fleet::{Forecast, MONTH_DAYS};
use crate::model::{Timestamp, human};

/// Backups of a server's page that stand in its table.
const BACKUPS_SHOWN: usize = 100;
/// Days of the forecast.
const FORECAST_DAYS: f64 = 90.0;
#[derive(Template)]
#[template(path = "server.html")]
struct ServerPage {
    frame: Frame,
    details: ServerDetails,
    figures: Vec<Figure>,
    spans: Vec<Chip>,
    timeline: Option<String>,
    additions: Option<String>,
    by_table: Option<ByTable>,
    by_table_address: Option<String>,
    growth: Option<String>,
    forecast: Vec<Figure>,
    backups: Vec<BackupRow>,
    more_backups: u64,
    drills: Vec<DrillRow>,
    windows: Vec<(String, String, String)>,
    gaps: Vec<(String, String, String, String)>,
    plans: Vec<(String, String, String, String)>,
    newest: Option<String>,
    running: bool,
}

struct BackupRow {
    view: BackupView,
    address: String,
    finished: String,
    took: String,
    rate: String,
    size: String,
    added: String,
    proven: String,
    goes: String,
}

struct DrillRow {
    passed: Option<bool>,
    finished: String,
    backup: String,
    address: String,
    rto: String,
    tables: String,
    problem: String,
    host: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::web) struct SpanQuery {
    days: String,
    tables: String,
}

pub(in crate::web) async fn server(
    State(app): State<App>,
    headers: HeaderMap,
    Path(server): Path<String>,
    query: Result<Query<SpanQuery>, QueryRejection>,
) -> Response {
    let (record, judgement) = match app.server(&unslug(&server)) {
        Ok(found) => found,
        Err(missing) => return told(&app, &headers, missing),
    };
    let now = app.now();
    let SpanQuery { days, tables } = query.map(|Query(query)| query).unwrap_or_default();
    let details = ServerDetails::of(&record, &judgement);
    let slug = slug(&record.name);
    let span_of = |text: &str| match text {
        "all" => None,
        "7" => Some(7),
        "90" => Some(90),
        _ => Some(30),
    };
    let spans = [("7", "7 days"), ("", "30 days"), ("90", "90 days"), ("all", "All")].map(|(value, label)| Chip {
        label: label.to_owned(),
        severity: String::new(),
        count: String::new(),
        address: if value.is_empty() { format!("/servers/{slug}") } else { format!("/servers/{slug}?days={value}") },
        chosen: span_of(value) == span_of(&days),
    });
    let forecast = Forecast::of(&record);
    let has_history = record.backups.len() > 1;
    let by_table = match tables.as_str() {
        "show" => Some(ByTable::read(&app, &record).await),
        _ => None,
    };
    let shown = if matches!(days.as_str(), "7" | "90" | "all") { format!("days={days}&") } else { String::new() };
    let page_template = ServerPage {
        figures: figures(std::slice::from_ref(&details.summary), app.options.price, now),
        spans: spans.into(),
        timeline: Span::of(&record, span_of(&days), now).map(|span| svg::timeline(&record, span, now)),
        additions: has_history.then(|| svg::additions(&record)),
        by_table_address: (!record.backups.is_empty()).then(|| format!("/servers/{slug}?{shown}tables=show#by-table")),
        by_table,
        growth: svg::growth(&record, forecast, FORECAST_DAYS),
        forecast: forecast.map_or_else(Vec::new, |forecast| forecast_figures(&forecast, app.options.price)),
        backups: details.all_backups.iter().take(BACKUPS_SHOWN).map(|view| backup_row(view, &slug, now)).collect(),
        more_backups: details.all_backups.len().saturating_sub(BACKUPS_SHOWN) as u64,
        drills: details
            .drills
            .iter()
            .take(20)
            .map(|drill| DrillRow {
                passed: drill.passed,
                finished: moment(drill.finished),
                backup: drill.backup.clone(),
                address: format!("/servers/{slug}/backups/{}", drill.backup),
                rto: drill.rto_seconds.map_or_else(|| "–".to_owned(), seconds),
                tables: human::count(drill.tables_checked),
                problem: drill.problem.clone().unwrap_or_default(),
                host: drill.host.clone(),
            })
            .collect(),
        windows: details
            .windows
            .windows
            .iter()
            .rev()
            .take(20)
            .map(|window| {
                let length = window.to.seconds_since(window.from).max(0).unsigned_abs();
                (second(window.from), second(window.to), human::duration(length))
            })
            .collect(),
        gaps: details
            .windows
            .gaps
            .iter()
            .rev()
            .take(20)
            .map(|gap| {
                let length = gap.to.seconds_since(gap.from).max(0).unsigned_abs();
                (second(gap.from), second(gap.to), human::duration(length), gap.reason.clone().unwrap_or_default())
            })
            .collect(),
        plans: details
            .plans
            .iter()
            .map(|plan| {
                let due = plan
                    .due
                    .map_or_else(|| "not known".to_owned(), |due| format!("{} ({})", moment(due), ago(due, now)));
                (moment(plan.stored), due, human::count(plan.backups.len() as u64), human::bytes(plan.bytes))
            })
            .collect(),
        newest: record.newest().map(|newest| format!("/servers/{slug}/backups/{}", newest.id)),
        running: app.service.is_some(),
        frame: app.frame(record.title(), "fleet", &headers),
        details,
    };
    page(&page_template)
}

fn forecast_figures(forecast: &Forecast, price: Option<f64>) -> Vec<Figure> {
    [("In a month", MONTH_DAYS), ("In three months", 3.0 * MONTH_DAYS), ("In a year", 12.0 * MONTH_DAYS)]
        .map(|(label, days)| {
            let bytes = forecast.in_days(days);
            let note = price.map_or_else(String::new, |price| format!("{} a month", money(cost(bytes, price))));
            Figure { label, value: human::bytes(bytes as u64), note }
        })
        .into()
}

fn backup_row(view: &BackupView, slug: &str, now: Timestamp) -> BackupRow {
    let rate = view.logical_bytes.checked_div(view.seconds);
    BackupRow {
        address: format!("/servers/{slug}/backups/{}", view.id),
        finished: moment(view.finished),
        took: human::duration(view.seconds),
        rate: rate.map_or_else(|| "–".to_owned(), |rate| format!("{}/s", human::bytes(rate))),
        size: human::bytes(view.logical_bytes),
        added: human::bytes(view.uploaded_bytes),
        proven: view.proven.map_or_else(String::new, |at| ago(at, now)),
        goes: view.goes_at.map_or_else(String::new, |at| ago(at, now)),
        view: view.clone(),
    }
}
