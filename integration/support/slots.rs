//! How many tests may have servers at once.

use std::{
    cell::RefCell,
    num::NonZero,
    sync::{Arc, Condvar, Mutex, Weak},
    thread,
};

/// Tests with servers at once, whatever the number of cores: each has two or three servers of some 150 MiB.
const TESTS_MAX: usize = 4;

static TAKEN: Mutex<usize> = Mutex::new(0);
static FREED: Condvar = Condvar::new();

thread_local! {
    static OF_THIS_TEST: RefCell<Weak<Slot>> = const { RefCell::new(Weak::new()) };
}

/// The right of one test to have servers. All servers of one test share one: were each to want its own, two tests
/// that hold their first and wait for their second would wait for ever.
#[derive(Debug)]
pub struct Slot(());

/// The slot of this test (that is, of this thread), waiting for a free one when it has none yet.
pub fn take() -> Arc<Slot> {
    OF_THIS_TEST.with_borrow_mut(|known| {
        if let Some(slot) = known.upgrade() {
            return slot;
        }
        let most = thread::available_parallelism().map_or(1, NonZero::get).min(TESTS_MAX);
        let mut taken = TAKEN.lock().unwrap();
        while *taken >= most {
            taken = FREED.wait(taken).unwrap();
        }
        *taken += 1;
        let slot = Arc::new(Slot(()));
        *known = Arc::downgrade(&slot);
        slot
    })
}

impl Drop for Slot {
    fn drop(&mut self) {
        *TAKEN.lock().unwrap() -= 1;
        FREED.notify_one();
    }
}
