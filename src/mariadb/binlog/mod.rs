//! The server's binary log: its files, and the events in them.

mod end;
mod event;
pub mod print;
mod transaction;

pub use end::{BinlogEnd, counted_beyond, stands_still};
#[cfg(test)]
pub(crate) use event::tests as made_events;
pub use event::{BinlogError, Event, EventParser, GtidEvent, HEADER_BYTES, MAGIC, kinds};
pub use transaction::{Step, Transaction, Transactions};
