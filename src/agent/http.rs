//! What monitoring asks: metrics, and whether the agent lives and works.

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::net::TcpListener;

use super::service::Handle;
use crate::web::service::Service;

/// The text format that OpenMetrics defines.
const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Answers at `listener` for as long as it is polled.
pub async fn serve(listener: TcpListener, handle: Arc<Handle>) -> std::io::Result<()> {
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(health))
        .route("/readyz", get(ready))
        .with_state(handle);
    axum::serve(listener, router).await
}

async fn metrics(State(handle): State<Arc<Handle>>) -> Response {
    ([(header::CONTENT_TYPE, METRICS_TYPE)], handle.metrics()).into_response()
}

async fn health(State(handle): State<Arc<Handle>>) -> (StatusCode, &'static str) {
    if handle.is_alive() { (StatusCode::OK, "ok\n") } else { (StatusCode::SERVICE_UNAVAILABLE, "stuck\n") }
}

async fn ready(State(handle): State<Arc<Handle>>) -> (StatusCode, String) {
    match handle.ready() {
        Ok(()) => (StatusCode::OK, "ok\n".to_owned()),
        Err(obstacle) => (StatusCode::SERVICE_UNAVAILABLE, format!("{obstacle}\n")),
    }
}
