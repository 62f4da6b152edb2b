//! Search, filter, order and pages of the fleet: all in the address, so that a view can be kept and sent to others.

use std::cmp::Ordering;
use std::fmt::Write;

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::App;
use super::text::query_part;
use super::view::{FleetView, ServerView, StandingCount};
use crate::fleet::{Standing, judged};

/// Servers of a page.
pub(super) const PAGE: usize = 100;
/// Bytes of a search that are looked at.
const SEARCH_BYTES_MAX: usize = 200;

/// What is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams, ToSchema)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub(super) struct FleetQuery {
    /// A part of the server's path, host name or version.
    pub q: String,
    /// A standing, or a severity.
    pub standing: String,
    /// `worst` (as it is when absent), `name`, `protected`, `drill`, `rto`, `size`, `stored` or `growth`; a minus before it turns it round.
    pub sort: String,
    /// The page, from 1.
    pub page: String,
}

impl FleetQuery {
    /// The address of the same view with another order, standing or page.
    pub(super) fn with(&self, standing: Option<&str>, sort: Option<&str>, page: Option<u64>) -> String {
        let mut address = String::from("/");
        let mut add = |name: &str, value: &str| {
            if !value.is_empty() {
                let mark = if address.len() == 1 { '?' } else { '&' };
                let _ = write!(address, "{mark}{name}={}", query_part(value));
            }
        };
        add("q", &self.q);
        add("standing", standing.unwrap_or(&self.standing));
        add("sort", sort.unwrap_or(&self.sort));
        add("page", &page.filter(|page| *page > 1).map(|page| page.to_string()).unwrap_or_default());
        address
    }

    /// The order, and whether it is turned round.
    pub(super) fn order(&self) -> (&str, bool) {
        match self.sort.strip_prefix('-') {
            Some(sort) => (sort, true),
            None => (&self.sort, false),
        }
    }

    fn wants(&self, view: &ServerView) -> bool {
        let standing = &self.standing;
        let stands = standing.is_empty() || view.standing == *standing || view.severity == *standing;
        let mut end = self.q.len().min(SEARCH_BYTES_MAX);
        while !self.q.is_char_boundary(end) {
            end -= 1;
        }
        let wanted = self.q[..end].trim().to_lowercase();
        let texts = [Some(&view.title), Some(&view.url), view.host.as_ref(), view.version.as_ref()];
        stands && (wanted.is_empty() || texts.into_iter().flatten().any(|text| text.to_lowercase().contains(&wanted)))
    }

    fn compare(&self, one: &ServerView, other: &ServerView) -> Ordering {
        let (order, turned) = self.order();
        let floats = |one: Option<f64>, other: Option<f64>| one.partial_cmp(&other).unwrap_or(Ordering::Equal);
        let ordering = match order {
            "name" => one.title.cmp(&other.title),
            "protected" => one.protected_until.cmp(&other.protected_until),
            "drill" => one.last_proven.cmp(&other.last_proven),
            "rto" => floats(other.rto_seconds, one.rto_seconds),
            "size" => other.logical_bytes.cmp(&one.logical_bytes),
            "stored" => other.stored_bytes.cmp(&one.stored_bytes),
            "growth" => floats(other.bytes_per_day, one.bytes_per_day),
            // They stand so already.
            _ => Ordering::Equal,
        };
        if turned { ordering.reverse() } else { ordering }
    }
}

impl App {
    /// The servers that `query` asks for.
    pub(super) fn fleet_view(&self, query: &FleetQuery) -> FleetView {
        let (views, counts) = self.judged_views();
        let snapshot = self.fleet.snapshot();
        let mut wanted: Vec<&ServerView> = views.iter().filter(|view| query.wants(view)).collect();
        wanted.sort_by(|one, other| query.compare(one, other));
        if query.order() == ("worst", true) {
            wanted.reverse();
        }
        let pages = wanted.len().div_ceil(PAGE).max(1);
        let page = query.page.parse().unwrap_or(1).clamp(1, pages);
        FleetView {
            url: snapshot.url.clone(),
            found: snapshot.servers.len() as u64,
            read: snapshot.read,
            complete: snapshot.found,
            problem: snapshot.fault.as_ref().map(|fault| fault.message.clone()),
            standings: counts,
            matching: wanted.len() as u64,
            page: page as u64,
            pages: pages as u64,
            servers: wanted.into_iter().skip((page - 1) * PAGE).take(PAGE).cloned().collect(),
        }
    }

    /// Every server, the worst first, and how many stand how.
    pub(super) fn judged_views(&self) -> (Vec<ServerView>, Vec<StandingCount>) {
        let servers: Vec<_> = self.fleet.snapshot().servers.values().cloned().collect();
        let judged = judged(&servers, &self.options.thresholds, self.now());
        let count = |standing: Standing| judged.iter().filter(|(_, found)| found.standing == standing).count() as u64;
        let counts = Standing::ALL.iter().map(|standing| StandingCount::of(*standing, count(*standing)));
        let counts = counts.filter(|count| count.servers > 0).collect();
        (judged.iter().map(|(server, judgement)| ServerView::of(server, judgement)).collect(), counts)
    }
}
