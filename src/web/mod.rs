//! What pages show of an agent at work: the contract between the two.

pub mod service;
