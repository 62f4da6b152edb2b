//! The JSON API, and the document that describes it.

use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Json, Router};
use serde::{Deserialize, Serialize};
use utoipa::{OpenApi, ToSchema};

use super::auth::Verdict;
use super::fleet_query::FleetQuery;
use super::server::Peer;
use super::service::{AgentStatus, Ended, Job, Refusal, Running, Upcoming};
use super::view::{BackupDetails, FleetView, ServerDetails, StatusView, TablesView, WindowsView, unslug};
use super::{App, Missing};

/// What went wrong.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct Problem {
    /// What.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

/// What is at work, and what has ended.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct RunsView {
    /// What is at work.
    pub running: Vec<Running>,
    /// What has ended, the newest first.
    pub recent: Vec<Ended>,
}

/// A run that is to be begun.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub(super) struct NewRun {
    /// What to do.
    pub job: Job,
}

/// A run that was begun.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct BegunRun {
    /// Its number.
    pub run: u64,
}

#[derive(OpenApi)]
#[openapi(
    info(title = "haulout", description = "What is known of a fleet's backups, and of an agent at work"),
    paths(status, fleet, server, windows, backup, tables, agent, upcoming, runs, begin, openapi),
    components(schemas(Problem))
)]
struct Document;

/// The routes, below `/api/v1`.
pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/status", get(status))
        .route("/fleet", get(fleet))
        .route("/servers/{server}", get(server))
        .route("/servers/{server}/windows", get(windows))
        .route("/servers/{server}/backups/{backup}", get(backup))
        .route("/servers/{server}/backups/{backup}/tables", get(tables))
        .route("/agent", get(agent))
        .route("/upcoming", get(upcoming))
        .route("/runs", get(runs).post(begin))
        .route("/openapi.json", get(openapi))
        .fallback(|| async { problem(StatusCode::NOT_FOUND, "there is no such address", None) })
        .method_not_allowed_fallback(|| async {
            problem(StatusCode::METHOD_NOT_ALLOWED, "that cannot be done at this address", None)
        })
}

/// The document as it is served.
pub(super) fn document() -> utoipa::openapi::OpenApi {
    Document::openapi()
}

fn problem(status: StatusCode, message: &str, hint: Option<String>) -> Response {
    (status, Json(Problem { message: message.to_owned(), hint })).into_response()
}

impl IntoResponse for Missing {
    fn into_response(self) -> Response {
        problem(self.status, &self.message, self.hint)
    }
}

#[utoipa::path(get, path = "/api/v1/status", responses((status = 200, body = StatusView)))]
async fn status(State(app): State<App>) -> Json<StatusView> {
    Json(StatusView::of(&app.fleet.snapshot(), app.service.is_some(), app.can_start()))
}

#[utoipa::path(get, path = "/api/v1/fleet", params(FleetQuery), responses((status = 200, body = FleetView)))]
async fn fleet(State(app): State<App>, Query(query): Query<FleetQuery>) -> Json<FleetView> {
    Json(app.fleet_view(&query))
}

#[utoipa::path(get, path = "/api/v1/servers/{server}", params(("server" = String, Path)),
    responses((status = 200, body = ServerDetails), (status = 404, body = Problem)))]
async fn server(State(app): State<App>, Path(server): Path<String>) -> Result<Json<ServerDetails>, Missing> {
    let (record, judgement) = app.server(&unslug(&server))?;
    Ok(Json(ServerDetails::of(&record, &judgement)))
}

#[utoipa::path(get, path = "/api/v1/servers/{server}/windows", params(("server" = String, Path)),
    responses((status = 200, body = WindowsView), (status = 404, body = Problem)))]
async fn windows(State(app): State<App>, Path(server): Path<String>) -> Result<Json<WindowsView>, Missing> {
    Ok(Json(WindowsView::of(&app.server(&unslug(&server))?.0)))
}

#[utoipa::path(get, path = "/api/v1/servers/{server}/backups/{backup}",
    params(("server" = String, Path), ("backup" = String, Path)),
    responses((status = 200, body = BackupDetails), (status = 404, body = Problem), (status = 502, body = Problem)))]
async fn backup(
    State(app): State<App>,
    Path((server, backup)): Path<(String, String)>,
) -> Result<Json<BackupDetails>, Missing> {
    Ok(Json(app.backup(&unslug(&server), &backup).await?))
}

#[utoipa::path(get, path = "/api/v1/servers/{server}/backups/{backup}/tables",
    params(("server" = String, Path), ("backup" = String, Path)),
    responses((status = 200, body = TablesView), (status = 404, body = Problem), (status = 502, body = Problem),
        (status = 503, body = Problem)))]
async fn tables(
    State(app): State<App>,
    Path((server, backup)): Path<(String, String)>,
) -> Result<Json<TablesView>, Missing> {
    Ok(Json(app.tables(&unslug(&server), &backup).await?))
}

#[utoipa::path(get, path = "/api/v1/agent", responses((status = 200, body = AgentStatus), (status = 404, body = Problem)))]
async fn agent(State(app): State<App>) -> Result<Json<AgentStatus>, Missing> {
    Ok(Json(AgentStatus::clone(&*app.agent()?.status())))
}

#[utoipa::path(get, path = "/api/v1/upcoming", responses((status = 200, body = Vec<Upcoming>), (status = 404, body = Problem)))]
async fn upcoming(State(app): State<App>) -> Result<Json<Vec<Upcoming>>, Missing> {
    Ok(Json(app.agent()?.status().upcoming.clone()))
}

#[utoipa::path(get, path = "/api/v1/runs", responses((status = 200, body = RunsView), (status = 404, body = Problem)))]
async fn runs(State(app): State<App>) -> Result<Json<RunsView>, Missing> {
    let status = app.agent()?.status();
    Ok(Json(RunsView { running: status.running.clone(), recent: status.recent.clone() }))
}

#[utoipa::path(post, path = "/api/v1/runs", request_body = NewRun,
    responses((status = 202, body = BegunRun), (status = 400, body = Problem), (status = 401, body = Problem),
        (status = 404, body = Problem), (status = 409, body = Problem), (status = 413, body = Problem),
        (status = 415, body = Problem), (status = 422, body = Problem), (status = 429, body = Problem)))]
async fn begin(
    State(app): State<App>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    run: Result<Json<NewRun>, axum::extract::rejection::JsonRejection>,
) -> Result<Response, Missing> {
    let service = app.agent()?;
    let refused = |status, message: &str| Missing { status, message: message.to_owned(), hint: None };
    if !app.can_start() {
        return Err(refused(StatusCode::NOT_FOUND, "no token is set up: nothing can be started here"));
    }
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    match bearer.map(|token| app.auth.look(token, peer.0.ip())) {
        Some(Verdict::Right) => {}
        Some(Verdict::TooMany) => return Err(refused(StatusCode::TOO_MANY_REQUESTS, "too many tokens were wrong")),
        Some(Verdict::Wrong) | None => return Err(refused(StatusCode::UNAUTHORIZED, "the token is missing or wrong")),
    }
    let run = run.map_err(|error| refused(error.status(), &error.body_text()))?;
    match service.start(run.0.job).await {
        Ok(run) => Ok((StatusCode::ACCEPTED, Json(BegunRun { run })).into_response()),
        Err(refusal) => Err(Missing::of_refusal(&refusal)),
    }
}

#[utoipa::path(get, path = "/api/v1/openapi.json", responses((status = 200, body = Object)))]
async fn openapi() -> Json<utoipa::openapi::OpenApi> {
    Json(document())
}

impl Missing {
    pub(super) fn of_refusal(refusal: &Refusal) -> Missing {
        let status = match refusal {
            Refusal::NotSetUp(_) => StatusCode::NOT_FOUND,
            Refusal::Busy(_) | Refusal::Stopping => StatusCode::CONFLICT,
        };
        Missing { status, message: refusal.to_string(), hint: None }
    }
}
