//! Archives the server's binary log, continuously.
//!
//! ```text
//! server ──mariadb-binlog──► copy of its file on disk ──► events, checksums ──► whole transactions ──► segment ──► store
//! ```
//! The copy is the buffer: it grows while the store is slow or away, up to a limit, and is cut away behind what is stored. Memory is that of one
//! event's beginning and of the pack in hand. Whatever ends a connection, the next one begins at the very byte behind what was stored,
//! in a stream that says so; where that cannot be, the new stream says what is missing.

mod choose;
mod cut;
mod error;
mod figures;
mod follow;
mod run;
mod ship;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, watch};

pub use error::ArchiveError;
pub use figures::Figures;

use crate::mariadb::connection::Connection;
use crate::mariadb::tool::Tools;
use crate::model::{Clock, Entropy, Progress};
use crate::repository::Repository;

/// The purpose of an archiver's lease.
pub const LEASE_PURPOSE: &str = "archive";

/// What a run works with.
#[derive(Clone)]
pub struct Context {
    /// Where the log goes.
    pub repository: Arc<Repository>,
    /// Wall clock.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// Who watches.
    pub progress: Arc<dyn Progress>,
    /// Becomes true when the run should end.
    pub cancel: watch::Receiver<bool>,
    /// Where the run tells how far it is.
    pub figures: Arc<watch::Sender<Figures>>,
    /// MariaDB's tools.
    pub tools: Arc<Tools>,
    /// The way to the server.
    pub connection: Arc<Connection>,
}

/// How the log is archived.
#[derive(Debug, Clone)]
pub struct ArchiveOptions {
    /// Longest time from the first event of a segment to its end.
    pub every: Duration,
    /// Bytes at which a segment ends before that, at the end of a transaction.
    pub segment_bytes: u64,
    /// A directory of this program's own, for what was received; cleared of what an earlier run left.
    pub spool: PathBuf,
    /// Most bytes in it.
    pub spool_bytes_max: u64,
    /// End when all is archived that the server had at the beginning.
    pub once: bool,
}

/// Archives the log until the run is told to end, or until all is stored that was there.
///
/// # Errors
/// When it cannot be begun; once the log is followed, only what no waiting mends. What was stored is whole all the same.
pub async fn archive(context: &Context, options: &ArchiveOptions) -> Result<Figures, ArchiveError> {
    let repository = &context.repository;
    repository.needs_data_key()?;
    let lease = Arc::new(Mutex::new(repository.lease(LEASE_PURPOSE, &*context.entropy).await?));
    let renewal = {
        let (context, lease) = (context.clone(), lease.clone());
        tokio::spawn(async move { context.repository.keep_renewed(&lease, &*context.progress).await })
    };
    let outcome = run::Run::new(context, options).archive().await;
    renewal.abort();
    repository.give_back(&lease, &*context.progress).await;
    outcome
}
