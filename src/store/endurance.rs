//! For how long requests that fail are repeated, which a run can change, and for how long they have failed.
//!
//! A run that has begun what a failure would cost holds out for longer than one that has only just asked; and while somebody
//! waits for it, it does not.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::{RetryPolicy, Store};

/// What holds for all requests of a store.
#[derive(Debug, Default)]
pub(super) struct Endurance(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    mode: Mode,
    /// When the first request failed of those since the last one that was answered.
    failing_since: Option<Instant>,
}

#[derive(Debug, Default, Clone, Copy)]
enum Mode {
    /// As the policy says.
    #[default]
    Usual,
    /// For so long, however many requests that makes.
    For(Duration),
    /// As the policy says, or until then if that is later.
    Until(Instant),
}

impl Endurance {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is to be another attempt after `attempts` of an operation that began at `started`, after a pause.
    pub(super) fn allows(&self, policy: &RetryPolicy, started: Instant, attempts: u32, pause: Duration) -> bool {
        let usual = || attempts < policy.attempts_max && started.elapsed() + pause <= policy.time_max;
        match self.lock().mode {
            Mode::Usual => usual(),
            Mode::For(time_max) => started.elapsed() + pause <= time_max,
            Mode::Until(end) => Instant::now() + pause <= end || usual(),
        }
    }

    /// Notes whether the store answered a request, be it with a refusal.
    pub(super) fn note(&self, answered: bool) {
        let mut state = self.lock();
        if answered {
            state.failing_since = None;
        } else {
            state.failing_since.get_or_insert_with(Instant::now);
        }
    }
}

impl Store {
    /// From now on, requests that fail are repeated for [`super::StoreOptions::hold_out_max`], if that is given.
    pub fn hold_out(&self) {
        if let Some(time_max) = self.shared.options.hold_out_max {
            self.shared.endurance.lock().mode = Mode::For(time_max);
        }
    }

    /// From now on, requests that fail are repeated as usual, counted anew from now: somebody waits for `time_max` at most.
    pub fn hurry(&self, time_max: Duration) {
        self.shared.endurance.lock().mode = match self.shared.options.hold_out_max {
            Some(_) => Mode::Until(Instant::now() + time_max),
            None => Mode::Usual,
        };
    }

    /// For how long no request has been answered while some failed; nothing when the last one was.
    pub fn failing_for(&self) -> Option<Duration> {
        self.shared.endurance.lock().failing_since.map(|since| since.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use object_store::memory::InMemory;

    use super::*;
    use crate::store::faulty::{Fault, FaultyStore, Operation, Rule, Script};
    use crate::store::{Key, StoreOptions};

    fn key() -> Key {
        Key::new("packs/ab/abcd").unwrap()
    }

    /// A store that is away, and the switch.
    fn away(hold_out_max: Option<Duration>) -> (Store, FaultyStore) {
        let rules = [Operation::Put, Operation::Get].map(|operation| Rule::always(operation, Fault::Reset)).to_vec();
        let faulty = FaultyStore::new(Arc::new(InMemory::new()), Script { rules, ..Script::default() });
        let options = StoreOptions { hold_out_max, ..StoreOptions::default() };
        (Store::over("memory:///", Arc::new(faulty.clone()), options), faulty)
    }

    /// Puts an object while the store is away for `seconds`.
    async fn put_through(store: &Store, faulty: &FaultyStore, seconds: u64) -> (bool, Duration) {
        let begun = Instant::now();
        let back = async {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            faulty.set_script(Script::default());
            std::future::pending::<()>().await;
        };
        let key = key();
        let put = store.put(&key, "content");
        tokio::select! {
            stored = put => (stored.is_ok(), begun.elapsed()),
            () = back => unreachable!(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_that_holds_out_outlasts_an_outage_of_five_minutes_and_another_does_not() {
        let (store, faulty) = away(Some(Duration::from_secs(900)));
        let (stored, after) = put_through(&store, &faulty, 300).await;
        assert!(!stored && after < Duration::from_secs(100), "{after:?}");
        store.hold_out();
        let (stored, after) = put_through(&store, &faulty, 300).await;
        assert!(stored && after < Duration::from_secs(320), "{after:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_that_holds_out_gives_up_in_the_end() {
        let (store, faulty) = away(Some(Duration::from_secs(900)));
        store.hold_out();
        let (stored, after) = put_through(&store, &faulty, 4000).await;
        assert!(!stored && after > Duration::from_secs(800) && after <= Duration::from_secs(900), "{after:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_operator_has_set_holds_for_runs_that_hold_out_too() {
        let (store, faulty) = away(None);
        store.hold_out();
        let (stored, after) = put_through(&store, &faulty, 300).await;
        assert!(!stored && after < Duration::from_secs(100), "{after:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn while_somebody_waits_a_request_is_given_up_in_time() {
        let (store, faulty) = away(Some(Duration::from_secs(900)));
        store.hold_out();
        let begun = Instant::now();
        let hurry = async {
            tokio::time::sleep(Duration::from_secs(200)).await;
            store.hurry(Duration::from_secs(60));
            std::future::pending::<()>().await;
        };
        let stored = tokio::select! {
            (stored, _) = put_through(&store, &faulty, 4000) => stored,
            () = hurry => unreachable!(),
        };
        let after = begun.elapsed();
        assert!(!stored && after > Duration::from_secs(240) && after <= Duration::from_secs(260), "{after:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_fails_from_its_first_failure_until_it_answers() {
        let (store, faulty) = away(None);
        assert_eq!(store.failing_for(), None);
        let begun = Instant::now();
        store.get(&key(), 9).await.unwrap_err();
        assert_eq!(store.failing_for(), Some(begun.elapsed()));
        faulty.set_script(Script::default());
        // That there is no such object is an answer.
        store.get(&key(), 9).await.unwrap_err();
        assert_eq!(store.failing_for(), None);
    }
}
