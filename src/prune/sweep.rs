//! Carries plans out: manifests first, then the packs that a second count finds no backup to need.

use std::collections::{BTreeSet, HashSet};

use futures::StreamExt;
use serde::Serialize;
use tokio::sync::Mutex;

use super::{Count, Decided, Fate, Packs, PruneError, PruneReport, RECORDS_SECONDS, Run};
use crate::format::{PrunePlan, PruneStep, SweepTally};
use crate::model::{BackupId, PackId, Phase, PlanId, Timestamp};
use crate::repository::{LeaseGuard, LeaseKey, ObjectKey, PruneKey, RepositoryError};

/// Objects deleted at the same time.
const DELETES_IN_FLIGHT: usize = 16;
/// Lease documents of runs that have ended stay for so long.
const LEASE_RECORDS_SECONDS: i64 = 24 * 60 * 60;

/// A plan that was carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Swept {
    /// The plan.
    pub plan: PlanId,
    /// Backups that it deleted.
    pub backups: Vec<BackupId>,
    /// Backups that it named and that stay after all.
    pub spared: Vec<BackupId>,
    /// Packs that it deleted.
    pub packs: u64,
    /// Their bytes.
    pub pack_bytes: u64,
    /// Packs that it named and that the store keeps, because their locks were extended.
    pub locked_packs: u64,
    /// When the first of these locks ends.
    pub locked_until: Option<Timestamp>,
}

impl Swept {
    fn of(plan: &PlanId) -> Swept {
        Swept {
            plan: plan.clone(),
            backups: Vec::new(),
            spared: Vec::new(),
            packs: 0,
            pack_bytes: 0,
            locked_packs: 0,
            locked_until: None,
        }
    }
}

/// Something that was not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Skip {
    /// What, and why.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

impl Skip {
    /// Nothing can be done about it.
    pub fn new(message: String) -> Skip {
        Skip { message, hint: None }
    }

    /// A backup is damaged.
    pub(super) fn lost(message: String) -> Skip {
        Skip::new(message).with_hint(
            "`haulout check` tells what is wrong; `haulout prune --let-go ID` lets go of a backup that is lost",
        )
    }

    /// The same with a hint.
    #[must_use]
    pub fn with_hint(self, hint: impl Into<String>) -> Skip {
        Skip { hint: Some(hint.into()), ..self }
    }
}

impl Run<'_> {
    /// Carries out `plans`, whose time has come.
    pub(super) async fn sweep(
        &self,
        lease: &Mutex<LeaseGuard>,
        plans: &[&PrunePlan],
        backups: &[Decided],
        count: &mut Count,
        report: &mut PruneReport,
    ) -> Result<(), PruneError> {
        let repository = &self.context.repository;
        if self.is_put_off(lease, report).await? {
            return Ok(());
        }
        for plan in plans {
            let step = PruneStep { plan: plan.id.clone(), done: false, deleted: SweepTally::default() };
            repository.put_prune_step(&step).await?;
        }
        // A backup that has begun since sees the step; one that has not seen it is seen here.
        if self.is_put_off(lease, report).await? {
            return Ok(());
        }
        let Some(mut swept) = self.delete_manifests(plans, backups, report).await? else { return Ok(()) };
        if !self.count_the_rest(count, report).await? {
            return Ok(());
        }
        let packs = repository.packs().await?;
        let mut planned = HashSet::new();
        for (plan, swept) in plans.iter().zip(&mut swept) {
            let names = repository.prune_packs(plan).await?;
            let unneeded = names.into_iter().filter(|id| !count.references.need(id) && planned.insert(*id));
            let unneeded: Vec<PackId> = unneeded.filter(|id| packs.contains_key(id)).collect();
            if !self.delete_packs(&unneeded, &packs, swept, report).await? {
                return Ok(());
            }
            let (backups, pack_bytes) = (swept.backups.len() as u64, swept.pack_bytes);
            let deleted = SweepTally { backups, packs: swept.packs, pack_bytes };
            repository.put_prune_step(&PruneStep { plan: plan.id.clone(), done: true, deleted }).await?;
        }
        report.swept.extend(swept);
        Ok(())
    }

    async fn is_put_off(&self, lease: &Mutex<LeaseGuard>, report: &mut PruneReport) -> Result<bool, PruneError> {
        let Some(who) = self.context.repository.at_work("backup", &mut *lease.lock().await).await? else {
            return Ok(false);
        };
        report.put_off = Some(who);
        Ok(true)
    }

    /// Deletes the manifests of backups that still are to go; nothing if that is not allowed.
    async fn delete_manifests(
        &self,
        plans: &[&PrunePlan],
        backups: &[Decided],
        report: &mut PruneReport,
    ) -> Result<Option<Vec<Swept>>, PruneError> {
        let repository = &self.context.repository;
        let state = repository.prune_state().await?;
        let there: BTreeSet<BackupId> = repository.backup_ids().await?.into_iter().collect();
        let by_rules = !self.options.policy.is_empty();
        let mut all = Vec::new();
        for plan in plans {
            let stored = state.plans.get(&plan.id).and_then(|state| state.stored);
            let mut swept = Swept::of(&plan.id);
            for entry in plan.backups.iter().filter(|entry| there.contains(&entry.id)) {
                let judged = backups.iter().find(|backup| backup.judged.id == entry.id).map(|backup| &backup.judged);
                let rules_keep = by_rules && judged.is_some_and(|judged| matches!(judged.fate, Fate::Stays(_)));
                let kept = state.kept(&entry.id);
                let undeleted = kept.is_some_and(|kept| !entry.named || stored.is_none_or(|stored| kept >= stored));
                // Not judged: it has come since, under a name that a plan cannot have known.
                let protected = judged.is_none_or(|judged| judged.protected.is_some());
                if protected || undeleted || (rules_keep && !entry.named) {
                    swept.spared.push(entry.id.clone());
                    continue;
                }
                match repository.delete(&ObjectKey::Manifest(entry.id.clone())).await {
                    Ok(()) => swept.backups.push(entry.id.clone()),
                    Err(error) if error.is_locked() => {
                        self.context.progress.note(&format!("backup {} stays for now: {error}", entry.id));
                        swept.spared.push(entry.id.clone());
                    }
                    Err(error) if error.is_denied() => {
                        report.skipped.push(denied(&error));
                        return Ok(None);
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            all.push(swept);
        }
        Ok(Some(all))
    }

    /// Counts what all backups need that are left; false when that cannot be known.
    async fn count_the_rest(&self, count: &mut Count, report: &mut PruneReport) -> Result<bool, PruneError> {
        let repository = &self.context.repository;
        let manifests = repository.manifests().await?;
        let progress = &self.context.progress;
        progress.begin(Phase::Check, Some(manifests.len() as u64));
        for (id, manifest) in manifests {
            let counted = match manifest {
                Ok(manifest) => count.add(repository, &manifest).await?,
                Err(error) => {
                    count.failed = true;
                    Err(Skip::lost(format!("the manifest of backup {id} cannot be read, so no pack goes: {error}")))
                }
            };
            progress.advance(Phase::Check, 1);
            if let Err(skip) = counted {
                report.skipped.push(skip);
                break;
            }
        }
        progress.end(Phase::Check);
        Ok(!count.failed)
    }

    /// Deletes packs; false if that is not allowed.
    async fn delete_packs(
        &self,
        unneeded: &[PackId],
        packs: &Packs,
        swept: &mut Swept,
        report: &mut PruneReport,
    ) -> Result<bool, PruneError> {
        let repository = &self.context.repository;
        let progress = &self.context.progress;
        progress.begin(Phase::Delete, Some(unneeded.len() as u64));
        let deletes = unneeded.iter().map(|id| async move { (*id, repository.delete(&ObjectKey::Pack(*id)).await) });
        let mut deletes = futures::stream::iter(deletes).buffer_unordered(DELETES_IN_FLIGHT);
        while let Some((id, deleted)) = deletes.next().await {
            match deleted {
                Ok(()) => {
                    swept.packs += 1;
                    swept.pack_bytes += packs.get(&id).map_or(0, |pack| pack.bytes);
                    progress.advance(Phase::Delete, 1);
                }
                Err(error) if error.is_locked() => {
                    swept.locked_packs += 1;
                    swept.locked_until = swept.locked_until.into_iter().chain(error.locked_until()).min();
                    progress.advance(Phase::Delete, 1);
                }
                Err(error) if error.is_denied() => {
                    report.skipped.push(denied(&error));
                    return Ok(false);
                }
                Err(error) => return Err(error.into()),
            }
        }
        progress.end(Phase::Delete);
        Ok(true)
    }

    /// Removes records that are of no use any more. Where that is not allowed, they stay, and do no harm.
    pub(super) async fn tidy(&self, now: Timestamp) -> Result<(), PruneError> {
        let repository = &self.context.repository;
        let state = repository.prune_state().await?;
        let there: HashSet<BackupId> = repository.backup_ids().await?.into_iter().collect();
        let mut old: Vec<ObjectKey> = Vec::new();
        for (id, plan) in &state.plans {
            let over = plan.done.is_some_and(|done| now.seconds_since(done) > RECORDS_SECONDS);
            if over {
                // The plan itself goes last but for the document that ends it, so that nobody takes it up again.
                old.extend(plan.parts.iter().map(|part| ObjectKey::Prune(PruneKey::Packs(id.clone(), *part))));
                old.push(ObjectKey::Prune(PruneKey::Plan(id.clone())));
                old.push(ObjectKey::Prune(PruneKey::Begun(id.clone())));
                old.push(ObjectKey::Prune(PruneKey::Done(id.clone())));
            }
        }
        let idle = |stored: Timestamp| now.seconds_since(stored) > RECORDS_SECONDS;
        let keeps = state.keeps.iter().filter(|(_, backup, stored)| !there.contains(backup) && idle(*stored));
        old.extend(keeps.map(|(key, ..)| ObjectKey::Prune(key.clone())));
        old.extend(old_leases(repository.leases().await?, now));
        for key in old {
            match repository.delete(&key).await {
                Ok(()) => {}
                Err(error) if error.is_locked() => {}
                Err(error) if error.is_denied() => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// Documents of runs whose newest document is old.
fn old_leases(leases: Vec<(LeaseKey, Timestamp)>, now: Timestamp) -> Vec<ObjectKey> {
    let recent = |stored: Timestamp| now.seconds_since(stored) <= LEASE_RECORDS_SECONDS;
    let living: HashSet<String> =
        leases.iter().filter(|(_, stored)| recent(*stored)).map(|(key, _)| key.holder.clone()).collect();
    let mut old: Vec<LeaseKey> =
        leases.into_iter().map(|(key, _)| key).filter(|key| !living.contains(&key.holder)).collect();
    // Of each run the last goes last: without it, an older one would speak for the run.
    old.sort();
    old.into_iter().map(ObjectKey::Lease).collect()
}

fn denied(error: &RepositoryError) -> Skip {
    let message = format!("these credentials may not delete ({error}): the plan stays, for a prune that may");
    Skip::new(message).with_hint(
        "run `haulout prune` with credentials that have s3:DeleteObject on backups/*, packs/*, prune/* and leases/* of the repository",
    )
}
