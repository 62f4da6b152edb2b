//! The fleet: one answer in large letters, and every server, the worst first.

use askama::Template;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::Response;

use super::super::App;
use super::super::fleet_query::FleetQuery;
use super::super::svg;
use super::super::text::{ago, moment, seconds};
use super::super::view::{FleetView, ServerView};
use super::{Chip, Figure, Frame, page};
use crate::fleet::{Severity, Standing, judged};
use crate::model::{Timestamp, human};

struct Heading {
    label: &'static str,
    address: String,
    /// For `aria-sort`.
    sorted: &'static str,
    number: bool,
}

struct Row {
    view: ServerView,
    protected: String,
    protected_ago: String,
    drill: &'static str,
    drill_ago: String,
    rto: String,
    size: String,
    stored: String,
    growth: String,
    trend: String,
}

impl Row {
    fn of(view: &ServerView, now: Timestamp) -> Row {
        let none = || "–".to_owned();
        let drill = match (view.last_drill, view.last_drill_passed) {
            (Some(_), Some(true)) => "passed",
            (Some(_), Some(false)) => "failed",
            (Some(_), None) => "not read",
            (None, _) if !view.opened => "–",
            (None, _) => "never",
        };
        Row {
            protected: view.protected_until.map_or_else(none, moment),
            protected_ago: view.protected_until.map_or_else(String::new, |at| ago(at, now)),
            drill,
            drill_ago: view.last_drill.map_or_else(String::new, |at| ago(at, now)),
            rto: view.rto_seconds.map_or_else(none, seconds),
            size: view.logical_bytes.map_or_else(none, human::bytes),
            stored: view.stored_bytes.map_or_else(none, human::bytes),
            growth: view.bytes_per_day.map_or_else(String::new, |bytes| format!("+{}/day", human::bytes(bytes as u64))),
            trend: svg::trend(&view.trend),
            view: view.clone(),
        }
    }
}

#[derive(Template)]
#[template(path = "fleet.html")]
struct FleetPage {
    frame: Frame,
    verdict: String,
    verdict_severity: &'static str,
    verdict_note: String,
    figures: Vec<Figure>,
    chips: Vec<Chip>,
    headings: Vec<Heading>,
    query: FleetQuery,
    fleet: FleetView,
    rows: Vec<Row>,
    earlier: Option<String>,
    later: Option<String>,
}

/// The answer to the first question: can everything be restored?
fn verdict(servers: &[(Standing, Option<Timestamp>)], searched: bool) -> (String, &'static str) {
    let all = servers.len() as u64;
    let critical = servers.iter().filter(|(standing, _)| standing.severity() == Severity::Critical).count() as u64;
    let warning = servers.iter().filter(|(standing, _)| standing.severity() == Severity::Warning).count() as u64;
    let unknown = servers.iter().filter(|(standing, _)| standing.severity() == Severity::Unknown).count() as u64;
    let of_all = |some: u64| format!("{} of {}", human::count(some), human::counted(all, "server"));
    match () {
        () if all == 0 && searched => ("No repository is here".to_owned(), "unknown"),
        () if all == 0 => ("Looking for repositories".to_owned(), "unknown"),
        () if critical > 0 => {
            (format!("{} {} you", of_all(critical), if critical == 1 { "needs" } else { "need" }), "critical")
        }
        () if unknown > 0 && warning == 0 => (format!("{} not known yet", of_all(unknown)), "unknown"),
        () if warning > 0 => (format!("Everything can be restored; {} to look at", of_all(warning)), "warning"),
        () if all == 1 => ("Everything can be restored".to_owned(), "fine"),
        () => (format!("All {} can be restored", human::counted(all, "server")), "fine"),
    }
}

pub(in crate::web) async fn fleet(
    State(app): State<App>,
    headers: HeaderMap,
    query: Result<Query<FleetQuery>, QueryRejection>,
) -> Response {
    let query = query.map(|Query(query)| query).unwrap_or_default();
    let now = app.now();
    let (views, _) = app.judged_views();
    let fleet = app.fleet_view(&query);
    let standings: Vec<(Standing, Option<Timestamp>)> = {
        let servers: Vec<_> = app.fleet.snapshot().servers.values().cloned().collect();
        let judged = judged(&servers, &app.options.thresholds, now);
        judged.iter().map(|(server, judgement)| (judgement.standing, server.protected_until())).collect()
    };
    let (verdict, verdict_severity) = verdict(&standings, fleet.complete);
    let sort = |label, name: &str, number| {
        let (order, turned) = query.order();
        let chosen = order == name || (order.is_empty() && name == "worst");
        let next = if chosen && !turned { format!("-{name}") } else { name.to_owned() };
        let sorted = match (chosen, turned) {
            (false, _) => "none",
            (true, false) => "ascending",
            (true, true) => "descending",
        };
        Heading { label, address: query.with(None, Some(&next), None), sorted, number }
    };
    let page_of = |page: u64| query.with(None, None, Some(page));
    let page_template = FleetPage {
        verdict,
        verdict_severity,
        verdict_note: restorable_note(&views),
        figures: figures(&views, app.options.price, now),
        chips: fleet
            .standings
            .iter()
            .map(|count| Chip {
                label: count.label.clone(),
                severity: count.severity.clone(),
                count: human::count(count.servers),
                address: query.with(
                    Some(if query.standing == count.standing { "" } else { &count.standing }),
                    None,
                    None,
                ),
                chosen: query.standing == count.standing || query.standing == count.severity,
            })
            .collect(),
        headings: vec![
            sort("Status", "worst", false),
            sort("Server", "name", false),
            sort("Protected until", "protected", false),
            sort("Last drill", "drill", false),
            sort("Recovery", "rto", true),
            sort("Size", "size", true),
            sort("Stored", "stored", true),
            sort("Growth", "growth", true),
        ],
        rows: fleet.servers.iter().map(|view| Row::of(view, now)).collect(),
        earlier: (fleet.page > 1).then(|| page_of(fleet.page - 1)),
        later: (fleet.page < fleet.pages).then(|| page_of(fleet.page + 1)),
        frame: app.frame("Fleet", "fleet", &headers),
        query,
        fleet,
    };
    page(&page_template)
}

fn restorable_note(views: &[ServerView]) -> String {
    let proven = views.iter().filter(|view| view.last_proven.is_some()).count() as u64;
    match views.len() as u64 {
        0 => String::new(),
        all => format!("{} of {} proven by a drill", human::count(proven), human::count(all)),
    }
}

/// To when, since when, how long, how much.
pub(super) fn figures(views: &[ServerView], price: Option<f64>, now: Timestamp) -> Vec<Figure> {
    let none = || "–".to_owned();
    let until = views.iter().filter_map(|view| view.protected_until.map(|at| (at, &view.title))).min();
    let since = views.iter().filter_map(|view| view.oldest_restorable.map(|at| (at, &view.title))).max();
    let mut slowest: Vec<(f64, &String)> =
        views.iter().filter_map(|view| Some((view.rto_seconds?, &view.title))).collect();
    slowest.sort_by(|one, other| one.0.total_cmp(&other.0));
    let stored: u64 = views.iter().filter_map(|view| view.stored_bytes).sum();
    let grows: f64 = views.iter().filter_map(|view| view.bytes_per_day).sum();
    let many = views.len() > 1;
    // One that has nothing must not vanish behind those that have.
    let bare = views.iter().filter(|view| many && view.protected_until.is_none()).count() as u64;
    let note = |name: &str, fallback: &str| if many { format!("{fallback}: {name}") } else { String::new() };
    let mut figures = vec![
        Figure {
            label: match bare {
                0 if many => "All protected until",
                0 => "Protected until",
                _ => "The others protected until",
            },
            value: until.map_or_else(none, |(at, _)| moment(at)),
            note: until.map_or_else(String::new, |(at, name)| {
                let bare = if bare > 0 { format!(" · {} not at all", human::count(bare)) } else { String::new() };
                let note = note(name, "furthest behind");
                if note.is_empty() { ago(at, now) } else { format!("{} · {note}{bare}", ago(at, now)) }
            }),
        },
        Figure {
            label: if many { "Restorable since, all" } else { "Restorable since" },
            value: since.map_or_else(none, |(at, _)| moment(at)),
            note: since.map_or_else(String::new, |(_, name)| note(name, "shortest history")),
        },
        Figure {
            label: if many { "Slowest proven recovery" } else { "Proven recovery" },
            value: slowest.last().map_or_else(none, |(slow, _)| seconds(*slow)),
            note: match slowest.get(slowest.len() / 2) {
                Some((median, _)) if many => {
                    format!("median {} · slowest: {}", seconds(*median), slowest.last().map_or("", |(_, name)| name))
                }
                Some(_) => "measured by the last drill".to_owned(),
                None => "no drill has measured it".to_owned(),
            },
        },
        Figure { label: "Stored", value: human::bytes(stored), note: format!("+{} a day", human::bytes(grows as u64)) },
    ];
    if let Some(price) = price {
        figures.push(Figure {
            label: "Cost a month",
            value: money(cost(stored as f64, price)),
            note: format!("at {price} per GiB"),
        });
    }
    figures
}

pub(super) fn cost(bytes: f64, price: f64) -> f64 {
    bytes / (1_u64 << 30) as f64 * price
}

pub(super) fn money(amount: f64) -> String {
    if amount < 100.0 { format!("{amount:.2}") } else { human::count(amount.round() as u64) }
}
