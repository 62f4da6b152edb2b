//! MariaDB's own formats and tools: the `mariadb-backup` child, its stream, InnoDB pages and redo log, SQL, prepare.
//!
//! Half of the room is pure code on bytes: [`xbstream`] (the child's stream), [`delta`] (the files of an incremental),
//! [`page`] (InnoDB pages and their checksums), [`redo`] (the redo log of a backup) and [`control`] (the small text files).
//! Where a fact stands in MariaDB's sources, the file and symbol are named beside it.

//pub mod control;
pub mod delta;
//pub mod page;
//pub mod redo;
pub mod xbstream;
pub mod xbstream_write;
