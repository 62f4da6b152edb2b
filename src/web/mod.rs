//! The page, the JSON API and the metrics, over HTTP.
//!
//! Everything is drawn on this side and works without a script; the one script there is brings moments into the viewer's zone and fetches
//! anew what has changed. Reading needs no token, starting does. Whatever comes over a connection has a limit.

mod api;
mod auth;
mod events;
mod fleet_query;
mod guard;
mod metrics;
mod pages;
mod server;
pub mod service;
mod svg;
#[cfg(test)]
mod tests;
mod text;
mod view;

use std::net::IpAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};

pub use auth::TOKEN_BYTES_MIN;
pub use server::serve;

use crate::error::{Diagnose, Kind};
use crate::fleet::{Fleet, Judgement, ServerRecord, Thresholds, judge};
use crate::model::{BackupId, Clock, Entropy, Secret, Timestamp};

use service::Service;
use view::{BackupDetails, BackupView, TablesView};

/// Bytes of a request's body.
const BODY_BYTES_MAX: usize = 16 << 10;

/// How the service shows things, and to whom.
#[derive(Clone)]
pub struct WebOptions {
    /// Names by which it is called, beside `localhost` and addresses.
    pub hosts: Vec<String>,
    /// With it runs can be started.
    pub token: Option<Secret>,
    /// What is borne.
    pub thresholds: Thresholds,
    /// Price of a GiB for a month, in whatever money.
    pub price: Option<f64>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Chance, for sessions.
    pub entropy: Arc<dyn Entropy>,
}

/// What every handler works with; clones are the same.
#[derive(Clone)]
struct App {
    fleet: Fleet,
    service: Option<Arc<dyn Service>>,
    options: Arc<WebOptions>,
    auth: Arc<auth::Guard>,
    streams: Arc<tokio::sync::Semaphore>,
}

/// What cannot be shown.
#[derive(Debug)]
struct Missing {
    status: StatusCode,
    message: String,
    hint: Option<String>,
}

impl Missing {
    fn not_found(what: &str) -> Missing {
        Missing { status: StatusCode::NOT_FOUND, message: what.to_owned(), hint: None }
    }

    fn of(error: &impl Diagnose) -> Missing {
        let status = match error.kind() {
            Kind::NoRepository | Kind::Usage => StatusCode::NOT_FOUND,
            _ => StatusCode::BAD_GATEWAY,
        };
        Missing { status, message: error.to_string(), hint: error.hint() }
    }
}

/// All that is served of `fleet`, and of the agent where there is one.
pub fn router(fleet: Fleet, service: Option<Arc<dyn Service>>, options: WebOptions) -> Router {
    let auth = auth::Guard::new(options.token.as_ref(), options.clock.clone(), options.entropy.clone());
    let streams = Arc::new(tokio::sync::Semaphore::new(events::STREAMS_MAX));
    let app = App { fleet, service, options: Arc::new(options), auth: Arc::new(auth), streams };
    Router::new()
        .route("/", get(pages::fleet))
        .route("/servers/{server}", get(pages::server))
        .route("/servers/{server}/backups/{backup}", get(pages::backup))
        .route("/running", get(pages::running))
        .route("/upcoming", get(pages::upcoming))
        .route("/runs", post(pages::begin))
        .route("/login", get(pages::login_form).post(pages::login))
        .route("/logout", post(pages::logout))
        .route("/events", get(events::events))
        .route("/assets/style.css", get(|| asset("text/css; charset=utf-8", pages::STYLE)))
        .route("/assets/script.js", get(|| asset("text/javascript; charset=utf-8", pages::SCRIPT)))
        .route("/favicon.ico", get(|| asset("image/svg+xml", pages::ICON)))
        .route("/assets/icon.svg", get(|| asset("image/svg+xml", pages::ICON)))
        .route("/metrics", get(metrics_text))
        .route("/healthz", get(health))
        .route("/readyz", get(ready))
        .nest("/api/v1", api::routes())
        .fallback(pages::not_found)
        .method_not_allowed_fallback(pages::not_allowed)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn_with_state(app.clone(), guard::guard))
        .with_state(app)
}

/// True for addresses that only this machine reaches.
pub fn is_local(address: IpAddr) -> bool {
    address.is_loopback()
}

async fn asset(kind: &'static str, text: &'static str) -> Response {
    // Its address changes with its content.
    let headers = [(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "public, max-age=31536000, immutable")];
    (headers, text).into_response()
}

async fn metrics_text(State(app): State<App>) -> impl IntoResponse {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], metrics::text(&app).await)
}

async fn health(State(app): State<App>) -> (StatusCode, &'static str) {
    match &app.service {
        Some(service) if !service.alive() => (StatusCode::SERVICE_UNAVAILABLE, "stuck\n"),
        _ => (StatusCode::OK, "ok\n"),
    }
}

/// An agent is ready when it says so: it works while the store is away, too. Without one, once the fleet was searched and every repository
/// looked at.
async fn ready(State(app): State<App>) -> Response {
    let not_yet = |told: String| (StatusCode::SERVICE_UNAVAILABLE, told).into_response();
    if let Some(service) = &app.service {
        return service.ready().map_or_else(|problem| not_yet(format!("{problem}\n")), |()| "ok\n".into_response());
    }
    let snapshot = app.fleet.snapshot();
    match &snapshot.fault {
        Some(fault) => not_yet(format!("{}\n", fault.message)),
        None if !snapshot.found => not_yet("the place is being searched\n".to_owned()),
        None if snapshot.read < snapshot.servers.len() as u64 => {
            not_yet(format!("{} of {} servers were read\n", snapshot.read, snapshot.servers.len()))
        }
        None => "ok\n".into_response(),
    }
}

impl App {
    fn now(&self) -> Timestamp {
        self.options.clock.now()
    }

    fn can_start(&self) -> bool {
        self.service.is_some() && self.auth.has_token()
    }

    fn agent(&self) -> Result<&Arc<dyn Service>, Missing> {
        self.service.as_ref().ok_or_else(|| Missing::not_found("no agent is attached to this service"))
    }

    fn server(&self, name: &str) -> Result<(Arc<ServerRecord>, Judgement), Missing> {
        let record = self.fleet.snapshot().servers.get(name).cloned();
        let record = record.ok_or_else(|| Missing::not_found("there is no such server"))?;
        let judgement = judge(&record, &self.options.thresholds, self.now());
        Ok((record, judgement))
    }

    async fn backup(&self, name: &str, id: &str) -> Result<BackupDetails, Missing> {
        let (record, _) = self.server(name)?;
        let id: BackupId = id.parse().map_err(|_| Missing::not_found("that is no backup's name"))?;
        let known = record.backups.iter().find(|backup| backup.id == id);
        let known = known.ok_or_else(|| Missing::not_found("there is no such backup, or it cannot be read"))?;
        let manifest = self.fleet.manifest(name, &id).await.map_err(|error| Missing::of(&error))?;
        let command = pages::restore_command(&record, &manifest);
        Ok(BackupDetails::of(&manifest, BackupView::of(&record, known), command))
    }

    async fn tables(&self, name: &str, id: &str) -> Result<TablesView, Missing> {
        self.server(name)?;
        let id: BackupId = id.parse().map_err(|_| Missing::not_found("that is no backup's name"))?;
        match self.fleet.tables(name, &id).await {
            Ok(sizes) => Ok(TablesView::of(&sizes)),
            Err(error @ crate::fleet::TablesError::Busy) => {
                let (message, hint) = (error.to_string(), error.hint());
                Err(Missing { status: StatusCode::SERVICE_UNAVAILABLE, message, hint })
            }
            Err(error) => Err(Missing::of(&error)),
        }
    }
}
