//! Restores one backup: fetches each page once, prepares once, moves it in.
//!
//! ```text
//! plan ──► fetch ──► checkpoints file ──► prepare ──► owner, modes, sync ──► rename into the datadir
//! ```
//! - `walk` goes through the page map and proves that every byte of every file has one source; `plan` does so before
//!   anything is written, `fetch` once more while it writes what `window` gathers.
//! - `workdir` is the directory in which files are gathered. Its `marker` says how far it is; a lock says that somebody
//!   works there. Whatever instruction a run is killed at, the next one knows from them what to do.
//! - `datadir` brings prepared files in, all or none.
//! - `reuse` makes a datadir that holds much of the backup already the work directory; `others` sets aside what the backup does
//!   not have, and `compare` proves what need not be fetched.
//! - `thaw` asks the store for what lies in an archive, where the operator wants that.

mod cancel;
mod catalogue;
mod checkpoints;
mod choice;
mod compare;
mod datadir;
mod error;
mod estimate;
mod fetch;
mod galera;
mod holes;
mod links;
mod marker;
mod memory;
mod misplaced;
mod others;
mod plan;
mod remains;
mod replay;
mod replica;
mod reuse;
mod steps;
mod table;
mod thaw;
mod thaw_error;
mod tree;
mod walk;
mod whole;
mod window;
mod workdir;
mod write;

#[cfg(test)]
#[allow(dead_code, reason = "the tests of `verify` use the rest of it")]
mod synthetic;
#[cfg(test)]
mod tests;

pub use cancel::Cancel;
pub use catalogue::{Catalogue, Engine, FileSums, TableEntry, TableName, table_of};
pub use choice::{TableChoice, TablePattern, choose_tables};
pub use error::RestoreError;
pub use estimate::{DrillTimes, Estimate, Stretch, newest_drill, read_stretch};
pub use fetch::FetchFigures;
pub use plan::{PlannedFile, RestorePlan, available_bytes, check_tool};
pub use remains::Remains;
pub use replay::{Moment, ReplayOrder, ReplayPlan, Replayed, Target, TargetError, plan_replay};
pub use replica::{Attached, ReplicaError, ReplicaPlan, ReplicaSource};
pub use steps::{
    FetchOutcome, MoveOutcome, Passage, PrepareOutcome, PrepareSettings, Watch, copy_back, fetch, fetch_tables,
    move_back, prepare,
};
pub use table::{TableError, TableOptions, TableOutcome, TablePlan, TableTarget, plan_table, restore_table};
pub use thaw::{Ice, ThawOptions, Thawed, frozen, thaw, thaw_documents, thawed};
pub use thaw_error::ThawError;
pub use tree::Owner;
pub use whole::{Aside, PhaseSeconds, PlacedPlan, RestoreOptions, RestoreOutcome, plan_restore, restore};
pub use window::FetchOptions;
