//! End to end: the built program, real servers, real stores.

mod access;
mod bad_store;
mod bad_tool;
mod compact;
mod doctor;
mod fleet;
mod forced_full;
mod holds_crypt;
mod holds_engines;
mod holds_innodb;
mod holds_large;
mod holds_layout;
mod holds_names;
mod holds_pages;
mod holes;
mod holes_fork;
mod immutable;
mod impatient;
mod infra;
mod odd_places;
mod prune;
mod readme;
mod repair;
mod replica;
mod restore;
mod restore_table;
mod rules;
mod runbook;
mod sealed;
mod smoke;
mod stopped;
#[path = "../support/mod.rs"]
mod support;
mod tables;
mod terminal;
mod versions;
