//! Server-sent events: they say that something changed, and the page fetches itself anew. What changed they do not say, so that there is one
//! way alone in which anything is drawn.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::stream;
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::App;
use super::service::AgentStatus;
use crate::fleet::Snapshot;

/// Streams at the same time: the other connections are for all else.
pub(super) const STREAMS_MAX: usize = 64;
/// Least time between two events of a stream.
const PAUSE: Duration = Duration::from_secs(1);

struct Source {
    fleet: watch::Receiver<Arc<Snapshot>>,
    agent: Option<watch::Receiver<Arc<AgentStatus>>>,
    begun: bool,
    _place: OwnedSemaphorePermit,
}

impl Source {
    /// Waits until something has changed; false when nothing will any more.
    async fn changed(&mut self) -> bool {
        match &mut self.agent {
            None => self.fleet.changed().await.is_ok(),
            Some(agent) => tokio::select! {
                changed = self.fleet.changed() => changed.is_ok(),
                changed = agent.changed() => changed.is_ok(),
            },
        }
    }
}

/// Tells of changes until the connection ends.
pub(super) async fn events(State(app): State<App>) -> Response {
    let Ok(place) = app.streams.clone().try_acquire_owned() else {
        return (StatusCode::SERVICE_UNAVAILABLE, "too many pages are open\n").into_response();
    };
    let agent = app.service.as_ref().map(|service| service.changes());
    let source = Source { fleet: app.fleet.changes(), agent, begun: false, _place: place };
    let events = stream::unfold(source, |mut source| async move {
        if source.begun {
            tokio::time::sleep(PAUSE).await;
            if !source.changed().await {
                return None;
            }
        }
        source.begun = true;
        let revision = source.fleet.borrow_and_update().revision;
        if let Some(agent) = &mut source.agent {
            agent.borrow_and_update();
        }
        let event = Event::default().event("changed").data(revision.to_string());
        Some((Ok::<_, Infallible>(event), source))
    });
    Sse::new(events).keep_alive(KeepAlive::default()).into_response()
}
