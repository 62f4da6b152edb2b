//! The `mariadb` room.

mod bounded;
pub mod child;
pub mod connection;
pub mod datadir;
pub mod facts;
pub mod messages;
pub mod prepare;
mod process;
pub mod sql;
pub mod tool;

pub use bounded::RunError;
pub use process::Stopper;
