//! `/metrics`: what is known of the fleet, in Prometheus' text format.

use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use super::App;
use crate::fleet::{ServerRecord, Standing, gaps, judge, stored_over_time};
use crate::model::Timestamp;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfServer {
    server: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfStanding {
    standing: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfRequest {
    operation: String,
}

type Figures = Family<OfServer, Gauge<f64, AtomicU64>>;

/// The figures of servers, each under its name in the registry.
struct Servers {
    backup_age: Figures,
    last_success: Figures,
    protected_until: Figures,
    oldest: Figures,
    proven: Figures,
    rto: Figures,
    stored: Figures,
    logical: Figures,
    backups: Figures,
    gaps: Figures,
    damaged: Figures,
    ok: Figures,
}

impl Servers {
    fn register(registry: &mut Registry) -> Servers {
        let mut figures = |name: &str, help: &str, unit: Option<Unit>| {
            let family = Figures::default();
            match unit {
                Some(unit) => registry.register_with_unit(name, help, unit, family.clone()),
                None => registry.register(name, help, family.clone()),
            }
            family
        };
        Servers {
            backup_age: figures("last_backup_age", "Age of the newest backup", Some(Unit::Seconds)),
            last_success: figures("last_backup_timestamp", "When the newest backup was done", Some(Unit::Seconds)),
            protected_until: figures(
                "protected_until_timestamp",
                "Last moment that can be restored",
                Some(Unit::Seconds),
            ),
            oldest: figures("oldest_restorable_timestamp", "First moment that can be restored", Some(Unit::Seconds)),
            proven: figures("last_proven_restore_timestamp", "When a drill last passed", Some(Unit::Seconds)),
            rto: figures(
                "proven_recovery_time",
                "Time until a restored server answered, in the last drill that passed",
                Some(Unit::Seconds),
            ),
            stored: figures("stored", "Bytes in the store, drawn from manifests", Some(Unit::Bytes)),
            logical: figures("logical", "Bytes of the newest backup once restored", Some(Unit::Bytes)),
            backups: figures("backups", "Backups that are there", None),
            gaps: figures("pitr_gaps", "Gaps between times in which any second can be restored", None),
            damaged: figures("damaged_packs", "Packs that a check found damaged", None),
            ok: figures("server_fine", "1 when nothing is to be said against the server, else 0", None),
        }
    }

    fn note(&self, record: &ServerRecord, standing: Standing, now: Timestamp) {
        let label = || OfServer { server: record.title().to_owned() };
        let set = |family: &Figures, value: Option<f64>| {
            if let Some(value) = value {
                family.get_or_create(&label()).set(value);
            }
        };
        let second = |at: Timestamp| at.0.as_millisecond() as f64 / 1000.0;
        let newest = record.newest_at();
        set(&self.backup_age, newest.map(|at| now.seconds_since(at).max(0) as f64));
        set(&self.last_success, newest.map(second));
        set(&self.protected_until, record.protected_until().map(second));
        set(&self.oldest, record.oldest_restorable().map(second));
        set(&self.proven, record.last_proven().map(|proof| second(proof.finished)));
        set(&self.rto, record.rto_ms().map(|ms| ms as f64 / 1000.0));
        set(&self.stored, stored_over_time(record).last().map(|(_, bytes)| *bytes as f64));
        set(&self.logical, record.newest().map(|backup| backup.logical_bytes as f64));
        set(&self.backups, Some(record.backup_count() as f64));
        set(&self.gaps, Some(gaps(&record.windows).len() as f64));
        set(&self.damaged, Some(record.damaged_packs as f64));
        set(&self.ok, Some(if standing == Standing::Fine { 1.0 } else { 0.0 }));
    }
}

/// The text for a scraper; the agent's own comes behind it.
pub(super) async fn text(app: &App) -> String {
    let snapshot = app.fleet.snapshot();
    let now = app.now();
    let mut registry = Registry::with_prefix("haulout_fleet");
    let servers = Servers::register(&mut registry);
    let standings = Family::<OfStanding, Gauge>::default();
    registry.register("servers", "Servers by how they stand", standings.clone());
    for standing in Standing::ALL {
        standings.get_or_create(&OfStanding { standing: standing.name().to_owned() }).set(0);
    }
    for record in snapshot.servers.values() {
        let standing = judge(record, &app.options.thresholds, now).standing;
        standings.get_or_create(&OfStanding { standing: standing.name().to_owned() }).inc();
        servers.note(record, standing, now);
    }
    let (well, badly): (Counter, Counter) = Default::default();
    well.inner().store(snapshot.looks.0, Ordering::Relaxed);
    badly.inner().store(snapshot.looks.1, Ordering::Relaxed);
    registry.register("looks", "Looks at repositories that went well", well);
    registry.register("failed_looks", "Looks at repositories that failed", badly);
    let requests = Family::<OfRequest, Counter>::default();
    let counts = app.fleet.requests().await;
    let kinds = [
        ("get", counts.gets),
        ("head", counts.heads),
        ("list", counts.lists),
        ("retry", counts.retries),
        ("error", counts.errors),
    ];
    for (operation, count) in kinds {
        requests.get_or_create(&OfRequest { operation: operation.to_owned() }).inner().store(count, Ordering::Relaxed);
    }
    registry.register("store_requests", "Requests to the store, retries and errors", requests);
    let mut text = String::new();
    if encode(&mut text, &registry).is_err() {
        // Writing into a text does not fail.
        text.clear();
    }
    match &app.service {
        None => text,
        Some(service) => format!("{}\n{}", text.trim_end().trim_end_matches("# EOF").trim_end(), service.metrics()),
    }
}
