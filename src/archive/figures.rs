//! How far the archive is, for whoever publishes it.

use crate::model::{GtidSet, Timestamp};

/// How far the archive is at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Figures {
    /// True while the server's log is followed.
    pub following: bool,
    /// File of the server's that is being archived; none before the first.
    pub file: Option<String>,
    /// The byte in it up to which all is stored.
    pub position: u64,
    /// GTID position of what is stored.
    pub gtid: GtidSet,
    /// When the newest stored transaction was made, by the server's clock.
    pub last_event: Option<Timestamp>,
    /// When the oldest transaction was received that is not stored.
    pub waiting_since: Option<Timestamp>,
    /// Bytes of the server's log that are not stored, at the last look.
    pub behind_bytes: Option<u64>,
    /// Bytes of what was received that are still on disk.
    pub spooled_bytes: u64,
    /// Segments that this run has stored.
    pub segments: u64,
    /// Transactions in them.
    pub transactions: u64,
    /// Bytes of binary log in them.
    pub binlog_bytes: u64,
    /// Bytes of the objects that hold them.
    pub stored_bytes: u64,
    /// Times that this run could not go on from what was archived before.
    pub gaps: u64,
}

impl Figures {
    /// Seconds from the newest stored transaction to `now`: of a server that writes nothing they grow, too.
    pub fn seconds_since_event(&self, now: Timestamp) -> Option<u64> {
        self.last_event.map(|last| now.seconds_since(last).max(0) as u64)
    }

    /// Seconds for which the oldest transaction has waited that is not stored; 0 when all that came is.
    pub fn waiting_seconds(&self, now: Timestamp) -> u64 {
        self.waiting_since.map_or(0, |since| now.seconds_since(since).max(0) as u64)
    }
}
