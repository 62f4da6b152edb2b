//! The agent as others see it: pages, monitoring.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicI64, Ordering},
};

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot, watch};

use super::metrics::{self, Sample};
use crate::{
    model::{Clock, Timestamp},
    web::service::{AgentStatus, Job, Refusal, Service},
};

/// Wishes that wait for the agent; then whoever wishes does.
pub const WISHES_MAX: usize = 16;
/// Seconds without a sign of life after which the agent is taken for stuck; it gives one every few seconds.
const ALIVE_SECONDS_MAX: i64 = 60;

/// Somebody's wish for a run, and where the answer goes.
pub type Wish = (Job, oneshot::Sender<Result<u64, Refusal>>);

/// What others see of the agent, and may ask of it.
pub struct Handle {
    status: watch::Sender<Arc<AgentStatus>>,
    sample: Mutex<Arc<Sample>>,
    wishes: mpsc::Sender<Wish>,
    clock: Arc<dyn Clock>,
    seen: AtomicI64,
    obstacle: Mutex<Option<String>>,
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle").finish_non_exhaustive()
    }
}

impl Handle {
    /// One that shows `status` and `sample`, and hands wishes to `wishes`.
    pub fn new(status: AgentStatus, sample: Sample, wishes: mpsc::Sender<Wish>, clock: Arc<dyn Clock>) -> Handle {
        Handle {
            status: watch::Sender::new(Arc::new(status)),
            sample: Mutex::new(Arc::new(sample)),
            wishes,
            seen: AtomicI64::new(clock.now().0.as_second()),
            clock,
            obstacle: Mutex::new(Some("it is starting".to_owned())),
        }
    }

    /// Shows `status` and `sample` from now on.
    pub fn show(&self, status: AgentStatus, sample: Sample) {
        *self.sample.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(sample);
        self.status.send_replace(Arc::new(status));
    }

    /// Gives a sign of life.
    pub fn live(&self, now: Timestamp) {
        self.seen.store(now.0.as_second(), Ordering::Relaxed);
    }

    /// What keeps the agent from its work, if anything does.
    pub fn obstruct(&self, obstacle: Option<String>) {
        *self.obstacle.lock().unwrap_or_else(PoisonError::into_inner) = obstacle;
    }
}

#[async_trait]
impl Service for Handle {
    fn status(&self) -> Arc<AgentStatus> {
        Arc::clone(&self.status.borrow())
    }

    fn changes(&self) -> watch::Receiver<Arc<AgentStatus>> {
        self.status.subscribe()
    }

    async fn start(&self, job: Job) -> Result<u64, Refusal> {
        let (answer, answered) = oneshot::channel();
        self.wishes.send((job, answer)).await.map_err(|_| Refusal::Stopping)?;
        answered.await.unwrap_or(Err(Refusal::Stopping))
    }

    fn metrics(&self) -> String {
        let sample = Arc::clone(&self.sample.lock().unwrap_or_else(PoisonError::into_inner));
        metrics::text(&sample, &self.status(), self.clock.now())
    }

    /// Unless the agent has given no sign of life for long.
    fn alive(&self) -> bool {
        let seen = self.seen.load(Ordering::Relaxed);
        self.clock.now().0.as_second().saturating_sub(seen) <= ALIVE_SECONDS_MAX
    }

    fn ready(&self) -> Result<(), String> {
        match self.obstacle.lock().unwrap_or_else(PoisonError::into_inner).clone() {
            Some(obstacle) => Err(obstacle),
            None => Ok(()),
        }
    }
}
