//! What a store was asked to do, for summaries, metrics and tests.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// Running totals of one store; every clone of the store adds to the same.
#[derive(Debug, Default)]
pub struct Counters {
    puts: AtomicU64,
    gets: AtomicU64,
    heads: AtomicU64,
    lists: AtomicU64,
    deletes: AtomicU64,
    locks: AtomicU64,
    thaws: AtomicU64,
    bytes_up: AtomicU64,
    bytes_down: AtomicU64,
    errors: AtomicU64,
    retries: AtomicU64,
    refused: AtomicU64,
    unavailable: AtomicU64,
    /// Counts that are added to as well.
    totals: Option<Arc<Counters>>,
}

/// The totals at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests to store an object, repeated ones included.
    pub puts: u64,
    /// Requests for an object or a range of one, repeated ones included.
    pub gets: u64,
    /// Requests for an object's size or lock, repeated ones included.
    pub heads: u64,
    /// Listings begun, repeated ones included; a long one is many requests.
    pub lists: u64,
    /// Requests to delete an object, repeated ones included.
    pub deletes: u64,
    /// Requests to lock an object for longer, repeated ones included.
    pub locks: u64,
    /// Requests to thaw an object, repeated ones included.
    pub thaws: u64,
    /// Bytes of objects that were stored.
    pub bytes_up: u64,
    /// Bytes of objects that were received.
    pub bytes_down: u64,
    /// Requests that failed.
    pub errors: u64,
    /// Requests that repeated a failed one.
    pub retries: u64,
    /// Of those that failed, those that the store refused.
    pub refused: u64,
    /// Of those that failed, those that can be repeated: no answer, a busy store.
    pub unavailable: u64,
}

/// One kind of request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Count {
    Put,
    Get,
    Head,
    List,
    Delete,
    Lock,
    Thaw,
    BytesUp,
    BytesDown,
    Error,
    Retry,
    Refused,
    Unavailable,
}

impl Counters {
    /// Counts of one store that `totals` has, too.
    pub(super) fn adding_to(totals: Option<Arc<Counters>>) -> Counters {
        Counters { totals, ..Counters::default() }
    }

    /// The totals now.
    pub fn counts(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            puts: read(&self.puts),
            gets: read(&self.gets),
            heads: read(&self.heads),
            lists: read(&self.lists),
            deletes: read(&self.deletes),
            locks: read(&self.locks),
            thaws: read(&self.thaws),
            bytes_up: read(&self.bytes_up),
            bytes_down: read(&self.bytes_down),
            errors: read(&self.errors),
            retries: read(&self.retries),
            refused: read(&self.refused),
            unavailable: read(&self.unavailable),
        }
    }

    pub(super) fn add(&self, count: Count, amount: u64) {
        let counter = match count {
            Count::Put => &self.puts,
            Count::Get => &self.gets,
            Count::Head => &self.heads,
            Count::List => &self.lists,
            Count::Delete => &self.deletes,
            Count::Lock => &self.locks,
            Count::Thaw => &self.thaws,
            Count::BytesUp => &self.bytes_up,
            Count::BytesDown => &self.bytes_down,
            Count::Error => &self.errors,
            Count::Retry => &self.retries,
            Count::Refused => &self.refused,
            Count::Unavailable => &self.unavailable,
        };
        counter.fetch_add(amount, Ordering::Relaxed);
        if let Some(totals) = &self.totals {
            totals.add(count, amount);
        }
    }
}
