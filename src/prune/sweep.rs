//! Carries plans out: manifests first, then the packs that a second count finds no backup to need.

use std::collections::{BTreeMap, HashSet};

use futures::StreamExt;
use serde::Serialize;
use tokio::sync::Mutex;

use super::{Count, Decided, Fate, Packs, PruneError, PruneReport, RECORDS_SECONDS, Run, causes};
use crate::format::{PrunePlan, PruneStep, Superseded, SweepTally};
use crate::model::{BackupId, PackId, Phase, PlanId, Timestamp};
use crate::repository::{
    Editions, LeaseGuard, LeaseKey, ObjectKey, PruneKey, RepositoryError, StoredBackup, StoredProof,
};

/// Objects deleted at the same time.
pub(super) const DELETES_IN_FLIGHT: usize = 16;
/// Lease documents of runs that have ended stay for so long.
const LEASE_RECORDS_SECONDS: i64 = 24 * 60 * 60;

/// A plan that was carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Swept {
    /// The plan.
    pub plan: PlanId,
    /// Backups that it deleted.
    pub backups: Vec<BackupId>,
    /// Superseded editions of others that it deleted.
    pub editions: u64,
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
    /// Segments of binary log that it deleted.
    pub segments: u64,
    /// Bytes of their packs, and of those whose segments never came to be.
    pub segment_bytes: u64,
}

impl Swept {
    fn of(plan: &PlanId) -> Swept {
        Swept {
            plan: plan.clone(),
            backups: Vec::new(),
            editions: 0,
            spared: Vec::new(),
            packs: 0,
            pack_bytes: 0,
            locked_packs: 0,
            locked_until: None,
            segments: 0,
            segment_bytes: 0,
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

    /// An edition of a manifest is damaged.
    pub(super) fn edition(id: &BackupId, edition: u32, why: &str) -> Skip {
        Skip::new(format!("edition {edition} of backup {id} cannot be read, so no pack goes: {why}"))
            .with_hint("the edition before it serves meanwhile; `haulout compact` writes another, and a later prune deletes this one")
    }

    /// The same with a hint.
    #[must_use]
    pub fn with_hint(self, hint: impl Into<String>) -> Skip {
        Skip { hint: Some(hint.into()), ..self }
    }
}

/// How the deletion of a manifest went.
pub(super) enum Deleted {
    /// It is gone.
    Gone,
    /// Object lock keeps it.
    Locked,
    /// These credentials may not.
    Denied,
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
        if !self.count_the_rest(count, backups, &swept, report).await? {
            return Ok(());
        }
        let packs = repository.packs().await?;
        let mut planned = HashSet::new();
        let gone: Vec<BackupId> = swept.iter().flat_map(|swept| swept.backups.iter().cloned()).collect();
        for (plan, swept) in plans.iter().zip(&mut swept) {
            let names = repository.prune_packs(plan).await?;
            if let Some(damage) = &names.unread {
                let what = format!("which packs plan {} names cannot all be read ({})", plan.id, causes(damage));
                report.skipped.push(Skip::new(format!("{what}: a later plan names the others anew")));
            }
            let unneeded = names.packs.into_iter().filter(|id| !count.references.need(id) && planned.insert(*id));
            let unneeded: Vec<PackId> = unneeded.filter(|id| packs.contains_key(id)).collect();
            if !self.delete_packs(&unneeded, &packs, swept, report).await? {
                return Ok(());
            }
            if !self.delete_binlogs(plan, backups, &gone, swept, report).await? {
                return Ok(());
            }
            let Swept { editions, packs, pack_bytes, segments, segment_bytes, .. } = *swept;
            let backups = swept.backups.len() as u64;
            let deleted = SweepTally { backups, editions, packs, pack_bytes, segments, segment_bytes };
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
        let stored = repository.stored_backups().await?.into_iter();
        let numbers = |stored: StoredBackup| stored.editions.into_iter().map(|(edition, _)| edition).collect();
        let mut there: BTreeMap<BackupId, Vec<u32>> =
            stored.map(|stored| (stored.id.clone(), numbers(stored))).collect();
        let by_rules = !self.options.policy.is_empty();
        let mut all = Vec::new();
        for plan in plans {
            let stored = state.plans.get(&plan.id).and_then(|state| state.stored);
            let mut swept = Swept::of(&plan.id);
            for entry in &plan.backups {
                let Some(editions) = there.get(&entry.id) else { continue };
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
                // The newest goes last, so that as long as there is a backup, it is read by its newest edition. By an older one it would
                // restore as well: all that it needs is there until no edition is.
                let mut gone = true;
                for edition in editions {
                    match self.delete_manifest(&entry.id, *edition, report).await? {
                        Deleted::Denied => return Ok(None),
                        Deleted::Locked => gone = false,
                        Deleted::Gone => {}
                    }
                }
                if !gone {
                    swept.spared.push(entry.id.clone());
                    continue;
                }
                there.remove(&entry.id);
                swept.backups.push(entry.id.clone());
            }
            for Superseded { id, edition } in &plan.editions {
                if !there.get(id).is_some_and(|editions| editions.contains(edition)) {
                    continue;
                }
                // What replaced it may have become unreadable since; then it is the backup.
                let replaced = repository.manifest(id).await.is_ok_and(|newest| newest.edition > *edition);
                if !replaced {
                    let what = format!("edition {edition} of backup {id} stays: no newer one can be read");
                    report.skipped.push(Skip::lost(what));
                    continue;
                }
                match self.delete_manifest(id, *edition, report).await? {
                    Deleted::Denied => return Ok(None),
                    // A later plan names it again.
                    Deleted::Locked => {}
                    Deleted::Gone => swept.editions += 1,
                }
            }
            all.push(swept);
        }
        Ok(Some(all))
    }

    /// Deletes an edition of a backup's manifest.
    async fn delete_manifest(
        &self,
        id: &BackupId,
        edition: u32,
        report: &mut PruneReport,
    ) -> Result<Deleted, PruneError> {
        match self.context.repository.delete(&ObjectKey::edition(id, edition)).await {
            Ok(()) => Ok(Deleted::Gone),
            Err(error) if error.is_locked() => {
                self.context.progress.note(&format!("backup {id} stays for now, or an edition of it: {error}"));
                Ok(Deleted::Locked)
            }
            Err(error) if error.is_denied() => {
                report.skipped.push(denied(&error));
                Ok(Deleted::Denied)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Counts what all backups need that are left, each edition of them; false when that cannot be known.
    ///
    /// Those that were there when this run began, and that it has not deleted, are among them whatever the store lists now: a listing can
    /// be old, and a backup that was undeleted has not been counted before.
    async fn count_the_rest(
        &self,
        count: &mut Count,
        known: &[Decided],
        swept: &[Swept],
        report: &mut PruneReport,
    ) -> Result<bool, PruneError> {
        let repository = &self.context.repository;
        let backups = repository.editions().await?;
        let deleted = |id: &BackupId| swept.iter().any(|swept| swept.backups.contains(id));
        for Decided { judged, manifest, .. } in known.iter().filter(|known| !deleted(&known.judged.id)) {
            let (id, is_listed) = (&judged.id, backups.iter().any(|listed| listed.id == judged.id));
            let counted = match manifest {
                Some(manifest) => count.add(repository, manifest).await?,
                None if is_listed => continue,
                None => {
                    count.failed = true;
                    Err(Skip::lost(format!("the manifest of backup {id} could not be read, so no pack goes")))
                }
            };
            if let Err(skip) = counted {
                report.skipped.push(skip);
                return Ok(false);
            }
        }
        let progress = &self.context.progress;
        progress.begin(Phase::Check, Some(backups.len() as u64));
        let lost = |backup: &Editions| backup.newest().is_none();
        let all = backups.iter().flat_map(|backup| backup.all.iter().map(move |edition| (backup, edition)));
        for (backup, (edition, manifest)) in all {
            let id = &backup.id;
            let counted = match manifest {
                Ok(manifest) => count.add(repository, manifest).await?,
                Err(error) => {
                    count.failed = true;
                    let what = || format!("the manifest of backup {id} cannot be read, so no pack goes: {error}");
                    Err(if lost(backup) { Skip::lost(what()) } else { Skip::edition(id, *edition, &causes(error)) })
                }
            };
            progress.advance(Phase::Check, u64::from(*edition == backup.last()));
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

    /// Removes records that are of no use any more, and plans that cannot be read: what they let go of is planned anew. Where that is
    /// not allowed, they stay, and do no harm.
    pub(super) async fn tidy(&self, now: Timestamp, damaged: &[PlanId]) -> Result<(), PruneError> {
        let repository = &self.context.repository;
        let state = repository.prune_state().await?;
        // Listed before the backups: a proof comes after its backup.
        let proofs = repository.stored_proofs().await?;
        let there: HashSet<BackupId> = repository.backup_ids().await?.into_iter().collect();
        let mut old: Vec<ObjectKey> = Vec::new();
        for (id, plan) in &state.plans {
            let ended = plan.done.or(plan.newest().filter(|_| damaged.contains(id)));
            if ended.is_some_and(|ended| now.seconds_since(ended) > RECORDS_SECONDS) {
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
        let lists = repository.old_damage_lists().await?.into_iter();
        old.extend(lists.filter(|(_, stored)| idle(*stored)).map(|(key, _)| key));
        let unneeded = proofs.iter().filter(|proof| !there.contains(&proof.backup) && idle(proof.stored));
        old.extend(unneeded.map(StoredProof::key));
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

pub(super) fn denied(error: &RepositoryError) -> Skip {
    let message = format!("these credentials may not delete ({error}): the plan stays, for a prune that may");
    Skip::new(message).with_hint(
        "run `haulout prune` with credentials that have s3:DeleteObject on backups/*, packs/*, binlogs/*, prune/* and leases/* of the repository",
    )
}
