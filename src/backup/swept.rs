//! The look that a run takes, before it commits, at whether a sweep has gone on meanwhile.
//!
//! A sweep is put off while a backup is at work, and never takes what the newest backup needs. But a run whose lease had lapsed, as on a
//! machine that slept, is not seen; and a pack that a run stores may bear the name of one that a sweep is about to delete, and then
//! count as there already. So a run that finds a plan that was begun counts what it needs against what is there.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;

use super::{BackupError, Context, unless_cancelled};
use crate::format::Manifest;
use crate::model::{PlanId, Timestamp};
use crate::repository::{LeaseGuard, References, RepositoryError};

/// Plans of which something may have been deleted since the run took its lease at `taken`.
///
/// # Errors
/// When the store does not answer.
pub(super) async fn plans(context: &Context, taken: Option<Timestamp>) -> Result<Vec<PlanId>, BackupError> {
    let state = context.repository.prune_state().await?;
    Ok(state.swept_since(taken).cloned().collect())
}

/// Proves that all is there that `manifest` needs, once `plans` are not being carried out any more.
///
/// # Errors
/// [`BackupError::Swept`] when something is gone.
pub(super) async fn check(
    context: &Context,
    manifest: &Manifest,
    lease: &Arc<Mutex<LeaseGuard>>,
    plans: &[PlanId],
    pause: Duration,
) -> Result<(), BackupError> {
    let Some(plan) = plans.last() else { return Ok(()) };
    let repository = &context.repository;
    context.progress.note("packs were pruned meanwhile: counting that all this backup needs is there");
    unless_cancelled(context, repository.outlast_sweeps(plans, lease, pause)).await??;
    let swept = || BackupError::Swept { plan: plan.clone() };
    let mut references = References::default();
    match references.add(repository, manifest).await {
        Ok(()) => {}
        Err(RepositoryError::PackMissing { .. }) => return Err(swept()),
        Err(error) => return Err(error.into()),
    }
    let packs = repository.packs().await?;
    let missing = references.missing(|pack| packs.contains_key(pack));
    if missing.is_empty() { Ok(()) } else { Err(swept()) }
}
