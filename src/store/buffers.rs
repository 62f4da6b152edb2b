//! Buffers for the bodies of answers, used again and again.
//!
//! The allocator maps long blocks on their own and gives them back at once (`main`), so that each page of each buffer is a page fault:
//! of a fetch from a store nearby that was half of its time in the kernel.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

/// Shorter ones are the allocator's business.
const KEPT_BYTES_MIN: usize = 256 << 10;
/// Bytes of buffers that nobody uses at the moment: as many as a restore has in flight, and a check, and some.
const KEPT_BYTES_MAX: usize = 64 << 20;

/// Buffers that nobody uses at the moment, at most [`KEPT_BYTES_MAX`] of them.
#[derive(Debug, Default)]
pub(super) struct Buffers(Mutex<Vec<Vec<u8>>>);

/// A buffer that goes back when it is dropped.
#[derive(Debug)]
pub(super) struct Buffer {
    bytes: Vec<u8>,
    home: Arc<Buffers>,
}

impl Buffers {
    /// An empty buffer that has room for `bytes`: the smallest that fits, or a new one in the place of one that does not.
    pub fn take(self: &Arc<Buffers>, bytes: usize) -> Buffer {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |buffer: &Vec<u8>| bytes >= KEPT_BYTES_MIN && buffer.capacity() >= bytes;
        let fitting = kept.iter().enumerate().filter(|(_, buffer)| fits(buffer));
        let fitting = fitting.min_by_key(|(_, buffer)| buffer.capacity()).map(|(place, _)| place);
        let found = fitting.map(|place| kept.swap_remove(place));
        if found.is_none() && bytes >= KEPT_BYTES_MIN {
            kept.pop();
        }
        drop(kept);
        Buffer { bytes: found.unwrap_or_else(|| Vec::with_capacity(bytes)), home: self.clone() }
    }
}

impl Buffer {
    /// Number of bytes in it.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Adds bytes.
    pub fn extend(&mut self, part: &[u8]) {
        self.bytes.extend_from_slice(part);
    }

    /// Its bytes; the buffer goes back with the last that look at them.
    pub fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.clear();
        let mut kept = self.home.0.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = kept.iter().map(Vec::capacity).sum();
        if bytes.capacity() >= KEPT_BYTES_MIN && all + bytes.capacity() <= KEPT_BYTES_MAX {
            kept.push(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_used_again_and_no_more_are_kept_than_may_be() {
        let buffers = Arc::new(Buffers::default());
        let kept = || buffers.0.lock().unwrap().iter().map(Vec::capacity).collect::<Vec<_>>();
        let mut buffer = buffers.take(2 << 20);
        buffer.extend(b"an answer");
        let bytes = buffer.freeze();
        let part = bytes.slice(3..);
        drop(bytes);
        assert_eq!((&part[..], kept()), (&b"answer"[..], vec![]), "somebody looks at it still");
        drop(part);
        assert_eq!(kept(), [2 << 20]);
        let again = buffers.take(1 << 20);
        assert_eq!((again.len(), kept()), (0, vec![]));
        drop(again);
        // One that does not fit makes room for one that does.
        drop(buffers.take(3 << 20));
        assert_eq!(kept(), [3 << 20]);
        let many: Vec<_> = (0..40).map(|_| buffers.take(3 << 20)).collect();
        drop(many);
        let all: usize = kept().iter().sum();
        assert!(all <= KEPT_BYTES_MAX && all > KEPT_BYTES_MAX - (3 << 20), "{all}");
    }
}
