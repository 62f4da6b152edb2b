//! MariaDB's own formats and tools: the `mariadb-backup` child, its stream, InnoDB pages and redo log, SQL, prepare.
//!
//! Half of the room is pure code on bytes: [`xbstream`] (the child's stream), [`delta`] (the files of an incremental),
//! [`page`] (InnoDB pages and their checksums), [`redo`] (the redo log of a backup) and [`control`] (the small text files).
//! The other half runs MariaDB's tools and asks the server. Where a fact stands in MariaDB's sources, the file and symbol
//! are named beside it.

pub mod binlog;
mod bounded;
pub mod child;
pub mod connection;
pub mod control;
pub mod datadir;
pub mod delta;
pub mod drill_server;
pub mod facts;
pub mod filename;
pub mod galera;
pub mod identity;
pub mod messages;
pub mod packages;
pub mod page;
mod page_checksum;
pub mod page_set;
pub mod plain_tables;
pub mod prepare;
mod process;
pub mod redo;
pub mod redo_names;
pub mod redo_write;
pub mod replay;
pub mod scratch;
pub mod sql;
pub mod tool;
pub mod xbstream;
pub mod xbstream_write;

pub use bounded::RunError;
pub use process::Stopper;

#[cfg(test)]
mod server_tests;
