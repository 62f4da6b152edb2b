//! The one loop that waits: for an event, with a limit.

use std::{
    thread,
    time::{Duration, Instant},
};

/// Time between two looks: short beside what is waited for, long beside a look.
const PAUSE: Duration = Duration::from_millis(20);

/// Looks again and again until `look` finds something; none after `limit`.
pub fn try_until<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if start.elapsed() >= limit {
            return None;
        }
        thread::sleep(PAUSE);
    }
}

/// Looks until `look` finds something; panics with `what` after `limit`.
pub fn until<T>(what: &str, limit: Duration, look: impl FnMut() -> Option<T>) -> T {
    try_until(limit, look).unwrap_or_else(|| panic!("{what}: not within {limit:?}"))
}
