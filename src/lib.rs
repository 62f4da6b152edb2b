//! Physical backup of MariaDB to object storage: every backup costs an incremental and restores like a full.
//!
//! The rooms, their duties and the table of allowed imports:
#![doc = include_str!("ARCHITECTURE.md")]
#![forbid(unsafe_code)]

pub mod agent;
pub mod archive;
pub mod backup;
pub mod cli;
pub mod copy;
pub mod drill;
pub mod error;
pub mod fleet;
pub mod format;
pub mod mariadb;
pub mod model;
pub mod prune;
pub mod repository;
pub mod restore;
pub mod store;
pub mod unhide;
pub mod verify;
pub mod web;
