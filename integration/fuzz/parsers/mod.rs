//! One function for each parser of bytes from outside, which holds it to its promises on any input.
//!
//! The fuzz targets beside this folder give them what libFuzzer makes up; `integration/corpus` gives them every file of the
//! corpus. A function panics when a promise is broken: besides panicking itself, a parser must not read the same bytes
//! differently when they are cut elsewhere, nor read back something else than was written, nor call bytes whole of which a bit
//! was flipped, nor take more memory than [`Heap`] allows. That it ends is for whoever calls to see, by a limit on time.

mod arguments;
mod capture;
mod client;
mod control;
mod cuts;
mod delta;
mod document;
mod keys;
mod map;
mod messages;
mod pack;
mod page;
mod redo;
mod seal;
mod settings;
mod xbstream;

use std::sync::{Mutex, PoisonError};

use peak_alloc::PeakAlloc;

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

/// Held while an input runs, because the heap is counted for the whole process.
static RUNNING: Mutex<()> = Mutex::new(());

/// A parser and what it is held to.
pub struct Target {
    /// Name of the fuzz target and of its folder in the corpus.
    pub name: &'static str,
    check: fn(&[u8]),
    heap: Heap,
}

/// Most bytes of heap at one moment, the checks' own copies included.
struct Heap {
    /// What it may take for the shortest input: its buffers, and what it declares and bounds.
    fixed: usize,
    /// What it may take for each byte of input.
    factor: usize,
}

/// All parsers.
pub const TARGETS: [Target; 15] = [
    Target { name: "arguments", check: arguments::check, heap: Heap { fixed: 8 << 20, factor: 256 } },
    // Four packs of 21 MiB, of data and of maps, full and to be filled; the rows of jobs; a fork of the base's store.
    Target { name: "capture", check: capture::check, heap: Heap { fixed: 128 << 20, factor: 256 } },
    // Empty lines become texts of the check's own, of 24 bytes and more.
    Target { name: "client", check: client::check, heap: Heap { fixed: 64 << 10, factor: 256 } },
    Target { name: "control", check: control::check, heap: Heap { fixed: 64 << 10, factor: 64 } },
    // Two parsers and the longest header block of each.
    Target { name: "delta", check: delta::check, heap: Heap { fixed: 512 << 10, factor: 32 } },
    Target { name: "document", check: document::check, heap: Heap { fixed: 128 << 10, factor: 64 } },
    Target { name: "keys", check: keys::check, heap: Heap { fixed: 64 << 10, factor: 64 } },
    Target { name: "map", check: map::check, heap: Heap { fixed: 64 << 10, factor: 64 } },
    Target { name: "messages", check: messages::check, heap: Heap { fixed: 64 << 10, factor: 32 } },
    // A directory of 32 MiB is the longest that a footer may announce, and a pack of 21 MiB is being filled.
    Target { name: "pack", check: pack::check, heap: Heap { fixed: 80 << 20, factor: 64 } },
    // A descriptor page of 64 KiB speaks of as many pages, four bytes each.
    Target { name: "page", check: page::check, heap: Heap { fixed: 2 << 20, factor: 8 } },
    Target { name: "redo", check: redo::check, heap: Heap { fixed: 256 << 10, factor: 64 } },
    // A pack of 21 MiB is being filled, and a zstd frame may say 1 MiB.
    Target { name: "seal", check: seal::check, heap: Heap { fixed: 48 << 20, factor: 64 } },
    // Each dot of a key is a table to the TOML parser; the file's own length is limited for that.
    Target { name: "settings", check: settings::check, heap: Heap { fixed: 64 << 10, factor: 2048 } },
    // The read buffers of two parsers, 1 MiB each.
    Target { name: "xbstream", check: xbstream::check, heap: Heap { fixed: 3 << 20, factor: 64 } },
];

impl Target {
    /// Runs the parser on `input`.
    ///
    /// # Panics
    /// When it breaks a promise.
    pub fn run(&self, input: &[u8]) {
        let _alone = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        HEAP.reset_peak_usage();
        let before = HEAP.current_usage();
        (self.check)(input);
        let taken = HEAP.peak_usage().saturating_sub(before);
        let most = self.heap.fixed + self.heap.factor * input.len();
        assert!(
            taken <= most,
            "{} took {taken} bytes of heap for {} bytes of input, {most} at most",
            self.name,
            input.len()
        );
    }
}

/// A copy of `bytes` with one bit flipped, in `place`, chosen by what the bytes are.
fn flipped(bytes: &[u8], place: std::ops::Range<usize>) -> Vec<u8> {
    let chance = crc32fast::hash(bytes) as usize;
    let mut copy = bytes.to_vec();
    copy[place.start + chance % place.len()] ^= 1 << (chance >> 16 & 7);
    copy
}
