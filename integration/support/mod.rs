//! What the end-to-end tests stand on: scratch servers, a store, the built program, load and faults.
//!
//! Everything made here is private to its test, listens on loopback or a socket in a folder of its own, and ends with
//! the value that stands for it, also when the test panics; children that a killed test process would leave behind ask
//! the kernel to end with it.

// Each helper waits here for the tests of the commands that need it.
#![allow(dead_code, unused_imports, reason = "a harness has more than any one target's tests use")]

use std::io::Write;

pub mod agent;
pub mod binary;
pub mod binlog_streams;
pub mod binlogs;
pub mod gate;
pub mod load;
pub mod page;
pub mod plugins;
pub mod policy;
pub mod proxy;
pub mod random;
pub mod server;
pub mod site;
pub mod slots;
pub mod state;
pub mod store;
pub mod tablespace;
pub mod tool;
pub mod wait;

pub use agent::Agent;
pub use binary::Haulout;
pub use binlog_streams::Binlogs;
pub use gate::{Gate, Side};
pub use load::{Load, LoadOptions};
pub use page::{Answer, Page};
pub use policy::{PolicedPath, Policy};
pub use proxy::{Fault, FaultyPath};
pub use server::{MariaDb, ServerOptions};
pub use site::Site;
pub use state::Lineage;
pub use store::{Bucket, LocalStack};
pub use tool::{Recording, Tool};

/// A folder of its own for one test, removed at the end. Its path is short: a socket's may have 107 bytes.
pub fn scratch() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("haulout-").tempdir().expect("a scratch folder")
}

/// Says that something is not tested here, where the test's own output is not held back.
pub fn not_shown(what: &str) {
    let _ = writeln!(std::io::stderr(), "NOT SHOWN: {what}");
}

/// True when the long tests are wanted too (`integration/test.sh --full`).
pub fn full() -> bool {
    std::env::var_os("HAULOUT_TEST_FULL").is_some()
}
