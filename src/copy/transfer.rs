//! Packs on their way: read, proven by their names, put, and their sizes confirmed.

use std::sync::Arc;

use tokio::task::JoinSet;

use super::{CopyError, Run};
use crate::error::{Diagnose, Kind};
use crate::model::{PackId, Phase};
use crate::repository::{Repository, RepositoryError};

/// Reads of a pack whose bytes are not what its name says, before it counts as damaged: the line may have changed them.
const READS_MAX: u32 = 2;

/// Why a pack did not come across.
enum Failure {
    /// The source has it no more, or damaged, or what is under its name in the copy cannot be replaced.
    Unfit(RepositoryError),
    /// A store does not answer or refuses.
    Store(RepositoryError),
}

/// Whether an error says that what is stored is not whole, and not that a store does not answer.
pub(super) fn is_unfit(error: &RepositoryError) -> bool {
    match error {
        RepositoryError::Store(error) => error.is_not_found() || error.kind() == Kind::Corrupt,
        _ => true,
    }
}

impl Run<'_> {
    /// Copies packs, so many at a time; gives what was wrong with those that did not come across.
    pub(super) async fn transfer(&mut self, missing: Vec<PackId>) -> Result<Vec<RepositoryError>, CopyError> {
        let Some(copy) = self.copy.clone() else { return Ok(Vec::new()) };
        if missing.is_empty() {
            return Ok(Vec::new());
        }
        let progress = &self.context.progress;
        progress.begin(Phase::Copy, Some(self.bytes_of(&missing)));
        let mut waiting = missing.into_iter();
        // Tasks, so that hashing goes on on every core; dropped with the run, which ends them.
        let mut under_way = JoinSet::new();
        let mut failures = Vec::new();
        loop {
            while under_way.len() < self.options.packs_in_flight.max(1)
                && let Some(id) = waiting.next()
            {
                let (source, copy) = (self.context.source.clone(), copy.clone());
                under_way.spawn(async move { (id, carry(&source, &copy, id).await) });
            }
            let Some(joined) = under_way.join_next().await else { break };
            let (id, carried) = joined.map_err(|_| CopyError::Abandoned)?;
            match carried {
                Ok(bytes) => {
                    progress.advance(Phase::Copy, bytes);
                    self.damaged.remove(&id);
                    self.arrived.insert(id, bytes);
                    self.report.packs += 1;
                    self.report.bytes += bytes;
                }
                Err(Failure::Unfit(error)) => failures.push(error),
                Err(Failure::Store(error)) => return Err(error.into()),
            }
        }
        progress.end(Phase::Copy);
        Ok(failures)
    }
}

/// Copies one pack; gives its size.
async fn carry(source: &Arc<Repository>, copy: &Arc<Repository>, id: PackId) -> Result<u64, Failure> {
    let mut reads = 1;
    let bytes = loop {
        match source.read_proven_pack(id).await {
            Ok(bytes) => break bytes,
            Err(RepositoryError::Pack { .. }) if reads < READS_MAX => reads += 1,
            Err(error) if is_unfit(&error) => return Err(Failure::Unfit(error)),
            Err(error) => return Err(Failure::Store(error)),
        }
    };
    let size = bytes.len() as u64;
    match copy.put_pack(id, bytes).await {
        Ok(_) => Ok(size),
        Err(error @ RepositoryError::NotMended { .. }) => Err(Failure::Unfit(error)),
        Err(error) => Err(Failure::Store(error)),
    }
}
