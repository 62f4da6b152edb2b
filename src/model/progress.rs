//! What a running operation tells whoever watches it.

/// A stretch of an operation with a length of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Reading the stream of the backup tool; bytes read.
    Capture,
    /// Storing packs; bytes stored.
    Upload,
    /// Copying packs into another store; bytes.
    Copy,
    /// Fetching packs; bytes written to files.
    Fetch,
    /// The backup tool's `--prepare`; LSN distance, where it tells it.
    Prepare,
    /// Replaying binary log; bytes of segments in the store.
    Replay,
    /// Moving or copying files into the datadir; bytes.
    Move,
    /// Checking stored objects; bytes or objects.
    Check,
    /// Deleting objects; objects.
    Delete,
    /// Waiting for objects to be thawed; objects.
    Thaw,
}

/// What is told of a stretch of an operation at one moment, in bytes; LSNs count bytes of redo log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Level {
    /// What waits on disk for the store.
    Spooled,
    /// How much may wait there.
    SpoolMax,
    /// How far the server has written its redo log; 0 once nothing is captured any more.
    RedoWritten,
    /// How far a capture has got it. What is told may lie before what was told earlier, and does not count then.
    RedoGot,
    /// How much redo log the server keeps: what is not copied when it has written so much more is lost, and the capture with it.
    RedoKept,
}

/// Watches an operation. Calls are frequent and come from many threads: an implementation must be quick.
pub trait Progress: Send + Sync {
    /// A phase begins; `total` is its length in the phase's unit, where that is known.
    fn begin(&self, phase: Phase, total: Option<u64>);
    /// The phase went on by `amount`.
    fn advance(&self, phase: Phase, amount: u64);
    /// The phase is over.
    fn end(&self, phase: Phase);
    /// A sentence for the operator: lower case, no full stop.
    fn note(&self, message: &str);
    /// A sentence that the operator must not miss.
    fn warn(&self, message: &str);
    /// Something stands at so many bytes now.
    fn level(&self, _: Level, _: u64) {}
}

/// Tells nobody.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn begin(&self, _: Phase, _: Option<u64>) {}
    fn advance(&self, _: Phase, _: u64) {}
    fn end(&self, _: Phase) {}
    fn note(&self, _: &str) {}
    fn warn(&self, _: &str) {}
}
