//! The server's binary log: its files, and the events in them.

mod dump;
mod end;
mod event;
mod log;
pub mod print;
mod transaction;

pub use dump::{BinlogDump, DumpError, DumpOrder};
pub use end::{BinlogEnd, counted_beyond, stands_still};
#[cfg(test)]
pub(crate) use event::tests as made_events;
pub use event::{BinlogError, Event, EventParser, GtidEvent, HEADER_BYTES, MAGIC, kinds};
pub use log::{LogFile, ServerLog, positions};
pub use transaction::{Step, Transaction, Transactions};
