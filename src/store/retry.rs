//! The one loop that repeats requests.
//!
//! The store crate repeats requests too; that is turned off, for four reasons: it repeats with credentials and a
//! signature that may have expired meanwhile, it does not repeat a conditional put whose answer was lost, it repeats
//! answers such as 501 that never change, and a store that fails on purpose ([`super::faulty`]) stands above it.
//! The price is that a body that breaks off is fetched anew and not from where it broke; no object is large.

use std::{error::Error, future::Future, sync::PoisonError, time::Duration};

use tokio::time::Instant;

use super::{
    RetryPolicy, Store, StoreError,
    classify::{Attempt, Failure, Next, chain_text},
    counters::Count,
    endurance::Endurance,
};
use crate::model::Entropy;

/// Time for which an operation fails before anybody is told: most failures pass sooner.
const TOLD_AFTER: Duration = Duration::from_millis(500);

/// Longest pause that a store can ask for by `Retry-After`. A minute: whoever asks for more is asked again all the same,
/// because the operation would else end before its time.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

/// Time between two such messages.
const TOLD_AGAIN: Duration = Duration::from_secs(60);

/// The pauses and the end of one operation's attempts.
#[derive(Debug)]
pub(super) struct Patience {
    policy: RetryPolicy,
    started: Instant,
    attempts: u32,
    renewed: bool,
}

impl Patience {
    pub(super) fn new(policy: &RetryPolicy) -> Patience {
        Patience { policy: policy.clone(), started: Instant::now(), attempts: 0, renewed: false }
    }

    /// True when an attempt has failed.
    pub(super) fn was_used(&self) -> bool {
        self.attempts > 0 || self.renewed
    }

    /// The pause before the next attempt, or nothing when there is to be none; not shorter than the store `asked` for.
    fn pause(&mut self, entropy: &dyn Entropy, asked: Option<Duration>, endurance: &Endurance) -> Option<Duration> {
        self.attempts += 1;
        let doubled = self.policy.pause_first.saturating_mul(1 << (self.attempts - 1).min(20));
        let mut chance = [0];
        entropy.fill(&mut chance);
        // Half to all of the time: those who failed together do not come back together.
        let pause = doubled.min(self.policy.pause_max).mul_f64(0.5 + f64::from(chance[0]) / 510.0);
        let pause = pause.max(asked.unwrap_or_default().min(RETRY_AFTER_MAX));
        endurance.allows(&self.policy, self.started, self.attempts, pause).then_some(pause)
    }
}

impl Store {
    /// Makes requests until one succeeds or there is no point in another.
    pub(super) async fn repeat<T, F, Fut>(&self, attempt: &Attempt, mut once: F) -> Result<T, StoreError>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<T, Failure>>,
    {
        let mut patience = Patience::new(&self.shared.options.retry);
        loop {
            match once().await {
                Ok(value) => {
                    self.shared.endurance.note(true);
                    return Ok(value);
                }
                Err(failure) => self.wait(attempt, failure, &mut patience).await?,
            }
        }
    }

    /// Waits for as long as `failure` asks for.
    ///
    /// # Errors
    /// The failure, when it is final.
    pub(super) async fn wait(
        &self,
        attempt: &Attempt,
        failure: Failure,
        patience: &mut Patience,
    ) -> Result<(), StoreError> {
        let counters = &self.shared.counters;
        if !matches!(failure.error, StoreError::NotFound { .. } | StoreError::AlreadyExists { .. }) {
            counters.add(Count::Error, 1);
            match (&failure.error, failure.next) {
                (StoreError::Denied { .. }, _) => counters.add(Count::Refused, 1),
                (_, Next::Retry) => counters.add(Count::Unavailable, 1),
                _ => {}
            }
        }
        self.shared.endurance.note(failure.next != Next::Retry);
        let pause = match failure.next {
            Next::Retry => {
                let asked = failure.retry_after();
                patience.pause(self.shared.options.entropy.as_ref(), asked, &self.shared.endurance)
            }
            Next::Renew if !patience.renewed && self.shared.credentials.is_some() => {
                patience.renewed = true;
                if let Some(credentials) = &self.shared.credentials {
                    credentials.forget().await;
                }
                Some(Duration::ZERO)
            }
            _ => None,
        };
        let Some(pause) = pause else {
            return Err(ended(failure.error, patience));
        };
        tracing::debug!(action = %attempt.action, what = attempt.what, cause = ?failure.error, ?pause, "request failed");
        counters.add(Count::Retry, 1);
        if patience.started.elapsed() >= TOLD_AFTER {
            self.tell(&failure.error);
        }
        tokio::time::sleep(pause).await;
        Ok(())
    }

    /// Tells, now and then, that a request failed which will be repeated.
    fn tell(&self, error: &StoreError) {
        let mut told = self.shared.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_some_and(|told| told.elapsed() < TOLD_AGAIN) {
            return;
        }
        *told = Some(Instant::now());
        let url = &self.shared.origin.url;
        let cause = error.source().map_or_else(|| error.to_string(), chain_text);
        self.shared.options.progress.warn(&format!("requests to {url} fail ({cause}); still trying"));
    }
}

/// The error with the number of attempts filled in.
fn ended(error: StoreError, patience: &Patience) -> StoreError {
    match error {
        StoreError::Unavailable { action, what, origin, source, .. } => StoreError::Unavailable {
            action,
            what,
            origin,
            attempts: patience.attempts.max(1),
            seconds: patience.started.elapsed().as_secs(),
            source,
        },
        error => error,
    }
}
