//! What retention writes into a repository, and what the listing of it tells.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use tokio::sync::Mutex;

use super::{LeaseGuard, ObjectKey, PruneKey, Repository, RepositoryError, store_key};
use crate::format::{Keep, PACKS_PER_PART, PrunePacks, PrunePlan, PruneStep};
use crate::model::{BackupId, Entropy, PackId, PlanId, Timestamp};
use crate::store::Key;

/// Documents of a plan read at the same time: 7 MiB each.
const PARTS_IN_FLIGHT: usize = 4;
/// Looks, after which a sweep is taken to be at a standstill: ten minutes with the usual pause.
const LOOKS_MAX: u32 = 300;

/// How far a plan has come, by the listing. All times are the store's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PlanState {
    /// When the plan itself was stored; nothing if the run died before, and there is no plan.
    pub stored: Option<Timestamp>,
    /// When something first began to carry it out: from then on, things may be missing.
    pub begun: Option<Timestamp>,
    /// When that came to its end.
    pub done: Option<Timestamp>,
    /// Documents with packs that are there.
    pub parts: Vec<u32>,
}

impl PlanState {
    /// True when it was made and did not come to its end.
    pub fn is_pending(&self) -> bool {
        self.stored.is_some() && self.done.is_none()
    }

    /// When anything of it was stored last.
    pub fn newest(&self) -> Option<Timestamp> {
        [self.stored, self.begun, self.done].into_iter().flatten().max()
    }
}

/// The packs that a plan names.
#[derive(Debug, Default)]
pub struct PlannedPacks {
    /// Those that can be read, ascending within each document.
    pub packs: Vec<PackId>,
    /// What is wrong with the first of its documents that cannot be read, or is not there. What that names, nobody knows.
    pub unread: Option<RepositoryError>,
}

/// What the folder of retention holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PruneState {
    /// Every plan, the oldest first.
    pub plans: BTreeMap<PlanId, PlanState>,
    /// Backups that stay whatever retention says: key, and when it was stored.
    pub keeps: Vec<(PruneKey, BackupId, Timestamp)>,
}

impl PruneState {
    /// Plans that were made and did not come to their ends.
    pub fn pending(&self) -> impl Iterator<Item = (&PlanId, &PlanState)> {
        self.plans.iter().filter(|(_, state)| state.is_pending())
    }

    /// When somebody last said that `backup` stays.
    pub fn kept(&self, backup: &BackupId) -> Option<Timestamp> {
        self.keeps.iter().filter(|(_, kept, _)| kept == backup).map(|(_, _, stored)| *stored).max()
    }

    /// Plans of which something may have been deleted since `moment`: those that were begun and did not end before it.
    pub fn swept_since(&self, moment: Option<Timestamp>) -> impl Iterator<Item = &PlanId> {
        let since = move |done: Timestamp| moment.is_none_or(|moment| done >= moment);
        let swept = self.plans.iter().filter(move |(_, state)| state.begun.is_some() && state.done.is_none_or(since));
        swept.map(|(id, _)| id)
    }
}

impl Repository {
    /// What retention wrote, by one listing.
    ///
    /// # Errors
    /// When the store cannot list.
    pub async fn prune_state(&self) -> Result<PruneState, RepositoryError> {
        let mut state = PruneState::default();
        let mut objects = self.store.list(Some(&Key::new(ObjectKey::PRUNE)?));
        while let Some(object) = objects.try_next().await? {
            let Some(ObjectKey::Prune(key)) = ObjectKey::parse(object.key.as_str()) else { continue };
            let stored = object.last_modified;
            match &key {
                PruneKey::Plan(plan) => state.plans.entry(plan.clone()).or_default().stored = Some(stored),
                PruneKey::Begun(plan) => state.plans.entry(plan.clone()).or_default().begun = Some(stored),
                PruneKey::Done(plan) => state.plans.entry(plan.clone()).or_default().done = Some(stored),
                PruneKey::Packs(plan, part) => state.plans.entry(plan.clone()).or_default().parts.push(*part),
                PruneKey::Keep(backup, _) => state.keeps.push((key.clone(), backup.clone(), stored)),
            }
        }
        Ok(state)
    }

    /// A plan.
    ///
    /// # Errors
    /// When it cannot be read, is damaged, or lies under another plan's key.
    pub async fn prune_plan(&self, id: &PlanId) -> Result<PrunePlan, RepositoryError> {
        let plan: PrunePlan = self.get_document(&ObjectKey::Prune(PruneKey::Plan(id.clone()))).await?;
        if plan.id == *id {
            return Ok(plan);
        }
        Err(misplaced(id, &plan.id))
    }

    /// The packs that a plan names.
    ///
    /// # Errors
    /// When the store does not answer. What cannot be read of them is told.
    pub async fn prune_packs(&self, plan: &PrunePlan) -> Result<PlannedPacks, RepositoryError> {
        let reads = (0..plan.parts).map(|part| async move {
            let key = ObjectKey::Prune(PruneKey::Packs(plan.id.clone(), part));
            match self.get_document::<PrunePacks>(&key).await {
                Ok(packs) if packs.plan == plan.id && packs.part == part => Ok(Ok(packs.packs)),
                Ok(packs) => Ok(Err(misplaced(&plan.id, &packs.plan))),
                Err(RepositoryError::Store(error)) if !error.is_not_found() => Err(RepositoryError::Store(error)),
                Err(damage) => Ok(Err(damage)),
            }
        });
        let mut parts = futures::stream::iter(reads).buffered(PARTS_IN_FLIGHT);
        let mut planned = PlannedPacks::default();
        while let Some(part) = parts.try_next().await? {
            match part {
                Ok(packs) => planned.packs.extend(packs),
                Err(damage) => drop(planned.unread.get_or_insert(damage)),
            }
        }
        Ok(planned)
    }

    /// Stores a plan: first the packs, then the plan itself, whose arrival is the plan. Fills in [`PrunePlan::parts`].
    ///
    /// # Errors
    /// When something cannot be stored; then there is no plan.
    pub async fn put_plan(&self, plan: &mut PrunePlan, packs: &[PackId]) -> Result<(), RepositoryError> {
        plan.parts = 0;
        for (part, packs) in packs.chunks(PACKS_PER_PART).enumerate() {
            let part = part as u32;
            let mut packs = PrunePacks { plan: plan.id.clone(), part, packs: packs.to_vec() };
            packs.packs.sort_unstable();
            self.put_document(&ObjectKey::Prune(PruneKey::Packs(plan.id.clone(), part)), &packs).await?;
            plan.parts = part + 1;
        }
        self.put_document(&ObjectKey::Prune(PruneKey::Plan(plan.id.clone())), plan).await
    }

    /// Notes that a plan is being carried out, or has been.
    ///
    /// # Errors
    /// When the store refuses.
    pub async fn put_prune_step(&self, step: &PruneStep) -> Result<(), RepositoryError> {
        let plan = step.plan.clone();
        let key = if step.done { PruneKey::Done(plan) } else { PruneKey::Begun(plan) };
        match self.put_document(&ObjectKey::Prune(key), step).await {
            // By a run that died, or by one that ended the same plan with other figures.
            Err(RepositoryError::Store(crate::store::StoreError::AlreadyExists { .. })) => Ok(()),
            stored => stored,
        }
    }

    /// Has a backup stay, whatever retention says.
    ///
    /// # Errors
    /// When the store refuses.
    pub async fn put_keep(&self, backup: &BackupId, entropy: &dyn Entropy) -> Result<(), RepositoryError> {
        let mut random = [0; 4];
        entropy.fill(&mut random);
        let key = ObjectKey::Prune(PruneKey::Keep(backup.clone(), random));
        self.put_document(&key, &Keep { backup: backup.clone() }).await
    }

    /// Waits until none of `plans` is being carried out any more: each has ended, or nobody is at work with it. Whoever holds `lease` is
    /// renewed by that.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn outlast_sweeps(
        &self,
        plans: &[PlanId],
        lease: &Mutex<LeaseGuard>,
        pause: Duration,
    ) -> Result<(), RepositoryError> {
        for _ in 0..LOOKS_MAX {
            let at_work = self.at_work("prune", &mut *lease.lock().await).await?;
            let is_under_way = |(id, state): (&PlanId, &PlanState)| plans.contains(id) && state.is_pending();
            if at_work.is_none() || !self.prune_state().await?.plans.iter().any(is_under_way) {
                return Ok(());
            }
            tokio::time::sleep(pause).await;
        }
        Ok(())
    }

    /// Deletes an object; one that is not there is deleted already.
    ///
    /// # Errors
    /// When the store refuses.
    pub async fn delete(&self, key: &ObjectKey) -> Result<(), RepositoryError> {
        Ok(self.store.delete(&store_key(key)?).await?)
    }
}

fn misplaced(expected: &PlanId, found: &PlanId) -> RepositoryError {
    let problem = format!("it is that of plan {found}");
    crate::format::FormatError::Document { what: format!("prune plan {expected}"), problem }.into()
}
