//! End to end: the built program, real servers, real stores.

mod doctor;
mod smoke;
#[path = "../support/mod.rs"]
mod support;
