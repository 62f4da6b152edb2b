//! The `mariadb` room.

mod bounded;
pub mod connection;
pub mod facts;
pub mod sql;
pub mod tool;

pub use bounded::RunError;
