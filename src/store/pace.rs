//! Keeps what goes over the line below so many bytes a second.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::{sync::MutexGuard, time::Instant};

/// A line that is shared by all requests of a store.
///
/// A request begins when those before it have had their time; its own body then goes as fast as it can. So the mean over some
/// requests is what was asked for, and a body of 16 MiB still takes one moment and not many.
#[derive(Debug)]
pub(super) struct Pace {
    bytes_per_second: u64,
    free: Mutex<Instant>,
    /// Held by the request that begins next, until it is known how much it brings.
    next: tokio::sync::Mutex<()>,
}

impl Pace {
    /// So many bytes a second, at least one.
    pub fn of(bytes_per_second: u64) -> Pace {
        Pace {
            bytes_per_second: bytes_per_second.max(1),
            free: Mutex::new(Instant::now()),
            next: tokio::sync::Mutex::new(()),
        }
    }

    /// Waits for the turn of a request of `bytes` bytes, and takes it.
    pub async fn send(&self, bytes: u64) {
        let turn = self.take(bytes);
        tokio::time::sleep_until(turn).await;
    }

    /// Waits for the turn of a request whose answer tells how many bytes come. Nobody else begins before they were taken, or the guard was
    /// dropped: else all that wait would begin in the same moment.
    pub async fn begin(&self) -> MutexGuard<'_, ()> {
        let guard = self.next.lock().await;
        let turn = *self.free.lock().unwrap_or_else(PoisonError::into_inner);
        tokio::time::sleep_until(turn).await;
        guard
    }

    /// Takes time for `bytes` bytes; tells when it begins.
    pub fn take(&self, bytes: u64) -> Instant {
        let time = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = (*free).max(Instant::now());
        *free = turn + time;
        turn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn requests_take_the_time_that_their_bytes_have() {
        let pace = Pace::of(1000);
        let begun = Instant::now();
        for _ in 0..5 {
            pace.send(2000).await;
        }
        assert_eq!(begun.elapsed().as_secs(), 8, "the last one has only begun");
        // A pause is not saved up.
        tokio::time::advance(Duration::from_secs(1000)).await;
        let begun = Instant::now();
        pace.send(2000).await;
        pace.send(1).await;
        assert_eq!(begun.elapsed().as_secs(), 2);
    }
}
