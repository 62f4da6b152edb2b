//! Retention: lets go of backups by rules, and deletes what then nobody needs.
//!
//! ```text
//! rules ─► decide (pure) ─► plan, written down ─► grace ─► sweep: begun ─► manifests ─► count again ─► packs ─► done
//! ```
//! A pack is deleted when two counts, a grace period apart, found that no backup needs it: the one for the plan, which names it, and
//! the one of the sweep. Nothing rests on a lock:
//!
//! - The base of a backup that runs is the newest one, and that never goes.
//! - Packs stored since the newest backup are never planned: a run that has not ended stored them, or one that died and from
//!   which the next goes on.
//! - A sweep that finds a backup at work is put off. Should one run all the same, because its lease had lapsed, it sees before it
//!   commits that a plan was begun, and then counts what it needs against what is there (`backup::swept`).
//! - Editions of manifests that a compaction replaced go the same way: what was reading by them goes on for the grace period.
//! - A run that dies anywhere leaves a plan that is not done, and the next carries it out.
//!
//! Time is the store's: that of the plan's document against that of the run's own lease.
//!
//! Memory: the references of all backups ([`References`]), 50 bytes for each stored pack, 32 for each that is named in plans.

mod binlogs;
mod compact;
mod error;
mod policy;
mod sweep;
#[cfg(test)]
#[path = "../restore/synthetic.rs"]
#[allow(
    dead_code,
    clippy::duplicate_mod,
    reason = "rooms that may not use each other test on the same made-up servers"
)]
mod synthetic;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use serde::Serialize;
use tokio::sync::{Mutex, watch};

pub use compact::{CompactOptions, CompactReport, LIVE_SHARE, PIECES_MAX, Usage, compact};
pub use error::PruneError;
pub use policy::{Candidate, Fate, Judged, KeepPolicy, decide};
pub use sweep::{Skip, Swept};

use crate::format::{LetGo, Manifest, PrunePlan, Superseded};
use crate::model::{BackupId, Clock, Entropy, PackId, Phase, PlanId, Progress, Timestamp};
use crate::repository::{Editions, LeaseGuard, PruneState, References, Repository, RepositoryError, StoredPack};

/// Grace period unless another is asked for: a day.
pub const GRACE_SECONDS: u64 = 24 * 60 * 60;
/// Records of plans and of runs that are over stay for so long, for people who look for what happened.
const RECORDS_SECONDS: i64 = 30 * 24 * 60 * 60;

/// What a prune works with.
#[derive(Clone)]
pub struct Context {
    /// The repository.
    pub repository: Arc<Repository>,
    /// Wall clock, for names and for people.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// Who watches.
    pub progress: Arc<dyn Progress>,
    /// Becomes true when the run should end.
    pub cancel: watch::Receiver<bool>,
}

/// What is wanted.
#[derive(Debug, Clone, Default)]
pub struct PruneOptions {
    /// Rules that keep backups.
    pub policy: KeepPolicy,
    /// Backups that go whatever the rules say.
    pub named: BTreeSet<BackupId>,
    /// Seconds between a plan and its sweep.
    pub grace_seconds: u64,
    /// Decides and counts, and writes nothing.
    pub dry_run: bool,
}

/// A backup that a plan names already.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Planned {
    /// The plan.
    pub plan: PlanId,
    /// When it may be carried out, by the store's clock.
    pub due: Timestamp,
    /// Why the backup goes.
    pub reason: String,
    /// True when the operator named it.
    pub named: bool,
}

/// A backup and what becomes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decided {
    /// The decision.
    pub judged: Judged,
    /// The manifest, where it can be read.
    pub manifest: Option<Box<Manifest>>,
    /// The plan that names it already.
    pub planned: Option<Planned>,
    /// When its oldest edition that is there was stored, by the store's clock; nothing if it came while the run looked.
    pub stored: Option<Timestamp>,
    /// Editions of its manifest that a newer one has replaced and no lock keeps.
    pub superseded: Vec<u32>,
    /// Editions that cannot be read though no newer one has replaced them, and why.
    pub damaged: Vec<(u32, String)>,
}

/// A plan that this run made, or would make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Made {
    /// Its name; nothing in a dry run.
    pub plan: Option<PlanId>,
    /// Backups that it lets go of.
    pub backups: Vec<BackupId>,
    /// Superseded editions of other backups.
    pub editions: u64,
    /// Packs that nobody needs then.
    pub packs: u64,
    /// Their bytes.
    pub pack_bytes: u64,
    /// Segments of binary log.
    pub segments: u64,
    /// Their bytes, and those of packs whose segments never came to be.
    pub segment_bytes: u64,
    /// When it may be carried out, by this machine's clock.
    pub due: Timestamp,
}

/// What a prune did, or would do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PruneReport {
    /// All backups that were there, by ascending name.
    pub backups: Vec<Decided>,
    /// Plans that were carried out.
    pub swept: Vec<Swept>,
    /// What was not done, and why.
    pub skipped: Vec<Skip>,
    /// The plan that was made.
    pub made: Option<Made>,
    /// Plans whose grace period has not passed.
    pub waiting: u64,
    /// The backup that was running, for which plans were not carried out that are due.
    pub put_off: Option<String>,
}

/// Plans that are not carried out yet, as they were read.
struct Pending {
    state: PruneState,
    plans: BTreeMap<PlanId, (PrunePlan, Timestamp)>,
    /// Plans that cannot be read.
    damaged: Vec<PlanId>,
    skipped: Vec<Skip>,
}

impl Pending {
    async fn read(repository: &Repository) -> Result<Pending, PruneError> {
        let state = repository.prune_state().await?;
        let (mut plans, mut damaged, mut skipped) = (BTreeMap::new(), Vec::new(), Vec::new());
        for (id, found) in state.pending() {
            let Some(stored) = found.stored else { continue };
            match repository.prune_plan(id).await {
                Ok(plan) => drop(plans.insert(id.clone(), (plan, stored))),
                Err(error @ RepositoryError::Format(_)) => {
                    skipped.push(Skip::new(format!("plan {id} is not carried out: {error}")));
                    damaged.push(id.clone());
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Pending { state, plans, damaged, skipped })
    }

    /// Whether a plan names this edition of a backup that stays.
    fn names_edition(&self, backup: &BackupId, edition: u32) -> bool {
        let mut named = self.plans.values().flat_map(|(plan, _)| &plan.editions);
        named.any(|entry| entry.id == *backup && entry.edition == edition)
    }

    /// Whether a plan that lets go of `backup`, or one of which that is not known, is being carried out, or was begun by a prune that died.
    fn may_be_sweeping(&self, backup: &BackupId) -> bool {
        let names = |plan: &PrunePlan| plan.backups.iter().any(|entry| entry.id == *backup);
        self.plans.values().any(|(plan, _)| names(plan) && self.has_begun(&plan.id))
            || self.damaged.iter().any(|id| self.has_begun(id))
    }

    /// Whether a plan is being carried out, or was begun by a prune that died.
    fn has_begun(&self, id: &PlanId) -> bool {
        self.state.plans.get(id).is_some_and(|plan| plan.begun.is_some())
    }

    /// The plan that lets go of `backup`, unless somebody said since that it stays.
    fn planned(&self, backup: &BackupId) -> Option<Planned> {
        self.plans.values().find_map(|(plan, stored)| {
            let entry = plan.backups.iter().find(|entry| entry.id == *backup)?;
            let spared = self.state.kept(backup).is_some_and(|kept| kept >= *stored || !entry.named);
            let (reason, named) = (entry.reason.clone(), entry.named);
            (!spared).then(|| Planned { plan: plan.id.clone(), due: due(plan, *stored), reason, named })
        })
    }
}

/// When a plan that was stored at `stored` may be carried out.
fn due(plan: &PrunePlan, stored: Timestamp) -> Timestamp {
    let grace = jiff::SignedDuration::from_secs(i64::try_from(plan.grace_seconds).unwrap_or(i64::MAX));
    Timestamp(stored.0.checked_add(grace).unwrap_or(jiff::Timestamp::MAX))
}

/// Backups that plans let go of and that are still there, with when that may be.
///
/// # Errors
/// When the store does not answer.
pub async fn planned(repository: &Repository, backups: &[BackupId]) -> Result<Vec<(BackupId, Planned)>, PruneError> {
    let pending = Pending::read(repository).await?;
    Ok(backups.iter().filter_map(|id| Some((id.clone(), pending.planned(id)?))).collect())
}

/// Has backups stay that plans let go of, and whatever the rules of later runs say.
///
/// # Errors
/// When a backup is gone, was never there as far as anything tells, no plan names it, or a prune that carries its plan out may have looked
/// before; those before it in the list stay then.
pub async fn undelete(repository: &Repository, ids: &[BackupId], entropy: &dyn Entropy) -> Result<(), PruneError> {
    for id in ids {
        let pending = Pending::read(repository).await?;
        let planned = pending.planned(id);
        let there = repository.backup_ids().await?.contains(id);
        match planned {
            _ if !there && was_there(&pending.state, repository, id).await? => {
                return Err(PruneError::TooLate { id: id.clone() });
            }
            _ if !there => return Err(RepositoryError::NoBackup { id: id.to_string() }.into()),
            None => return Err(PruneError::NotPlanned { id: id.clone() }),
            Some(_) => {}
        }
        repository.put_keep(id, entropy).await?;
        // A sweep reads what stays after it has said that it begins, and before it deletes anything: where none has begun by now, the
        // next one reads this. One that had begun already may have read too early.
        let begun = Pending::read(repository).await?.may_be_sweeping(id);
        if !repository.backup_ids().await?.contains(id) {
            return Err(PruneError::TooLate { id: id.clone() });
        }
        if begun {
            return Err(PruneError::Sweeping { id: id.clone() });
        }
    }
    Ok(())
}

/// Whether anything tells of a backup that is not there: a plan that names it, carried out or not, or that it was to stay.
async fn was_there(state: &PruneState, repository: &Repository, id: &BackupId) -> Result<bool, PruneError> {
    if state.kept(id).is_some() {
        return Ok(true);
    }
    for (plan, _) in state.plans.iter().filter(|(_, plan)| plan.stored.is_some()) {
        match repository.prune_plan(plan).await {
            Ok(plan) if plan.backups.iter().any(|entry| entry.id == *id) => return Ok(true),
            Ok(_) | Err(RepositoryError::Format(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(false)
}

/// Carries out plans whose time has come, and makes a new one by the rules.
///
/// # Errors
/// When another prune is at work, the store does not answer, or a backup was named that never goes.
pub async fn prune(context: &Context, options: &PruneOptions) -> Result<PruneReport, PruneError> {
    if options.dry_run {
        return Run { context, options, lease: None }.go().await;
    }
    leased(context, async |lease| Run { context, options, lease: Some(lease) }.go().await).await
}

/// Does `work` with the lease that prunes and compactions share, which is renewed meanwhile and then given back.
///
/// # Errors
/// [`RepositoryError::Locked`] when another holds it; [`PruneError::Interrupted`] when a signal comes first; those of `work`.
async fn leased<T>(
    context: &Context,
    work: impl AsyncFnOnce(&Mutex<LeaseGuard>) -> Result<T, PruneError>,
) -> Result<T, PruneError> {
    let repository = &context.repository;
    let lease = Arc::new(Mutex::new(repository.lease("prune", &*context.entropy).await?));
    let renewal = {
        let (context, lease) = (context.clone(), lease.clone());
        tokio::spawn(async move { context.repository.keep_renewed(&lease, &*context.progress).await })
    };
    let mut cancel = context.cancel.clone();
    let ended = tokio::select! {
        ended = work(&lease) => ended,
        Ok(_) = cancel.wait_for(|cancel| *cancel) => Err(PruneError::Interrupted),
    };
    renewal.abort();
    repository.give_back(&lease, &*context.progress).await;
    ended
}

struct Run<'a> {
    context: &'a Context,
    options: &'a PruneOptions,
    /// Nothing in a dry run.
    lease: Option<&'a Mutex<LeaseGuard>>,
}

impl Run<'_> {
    async fn go(&self) -> Result<PruneReport, PruneError> {
        let repository = &self.context.repository;
        let now = match self.lease {
            Some(lease) => lease.lock().await.taken(),
            None => None,
        };
        // A store that does not list what was just put tells no time; this machine's is all there is then.
        let now = now.unwrap_or_else(|| self.context.clock.now());
        let pending = Pending::read(repository).await?;
        let backups = self.decide(&pending, now).await?;
        let (ripe, waiting): (Vec<_>, Vec<_>) =
            pending.plans.values().partition(|(plan, stored)| due(plan, *stored) <= now);
        let skipped = pending.skipped.clone();
        let mut report = PruneReport { waiting: waiting.len() as u64, skipped, ..PruneReport::default() };
        // Counted in two steps: first what those need that stay, which tells what is to go, then the others, which are still there.
        let mut count = Count::default();
        let draft = self.draft(&pending, &backups, &mut count, now, &mut report).await?;
        let Some(lease) = self.lease else {
            report.made = draft.map(|draft| draft.made(None, now));
            report.backups = backups;
            return Ok(report);
        };
        let mut ripe: Vec<&PrunePlan> = ripe.iter().map(|(plan, _)| plan).collect();
        let mut draft = draft;
        if let Some(draft) = &mut draft {
            repository.put_plan(&mut draft.plan, &draft.packs).await?;
            report.made = Some(draft.made(Some(draft.plan.id.clone()), now));
            if self.options.grace_seconds == 0 {
                ripe.push(&draft.plan);
            } else {
                report.waiting += 1;
            }
        }
        if !ripe.is_empty() {
            self.sweep(lease, &ripe, &backups, &mut count, &mut report).await?;
        }
        self.tidy(now, &pending.damaged).await?;
        report.backups = backups;
        Ok(report)
    }

    /// What becomes of each backup.
    async fn decide(&self, pending: &Pending, now: Timestamp) -> Result<Vec<Decided>, PruneError> {
        let repository = &self.context.repository;
        // Listed first: what comes in between is among the manifests, and no time is known of it.
        let stored = repository.stored_backups().await?;
        let editions = repository.editions().await?;
        let stored: BTreeMap<BackupId, BTreeMap<u32, Timestamp>> =
            stored.into_iter().map(|stored| (stored.id, stored.editions.into_iter().collect())).collect();
        // A backup goes with all of its editions, so the lock of the last of them counts.
        let last = |id: &BackupId| stored.get(id)?.values().max().copied();
        let sound: Vec<BackupId> = editions
            .iter()
            .filter(|editions| editions.newest().is_some())
            .map(|editions| editions.id.clone())
            .collect();
        let (proven, damaged) = repository.last_proven(&sound).await?;
        for error in damaged {
            self.context.progress.warn(&format!("a proof does not count: {}", causes(&error)));
        }
        let candidate = |editions: &Editions| Candidate {
            id: editions.id.clone(),
            started: editions.newest().map(|manifest| manifest.started),
            finished: editions.newest().map(|manifest| manifest.finished),
            tags: editions.newest().map(|manifest| manifest.tags.clone()).unwrap_or_default(),
            kept: pending.state.kept(&editions.id).is_some(),
            proven: proven.as_ref() == Some(&editions.id),
            locked: last(&editions.id).and_then(|stored| self.locked(stored, now)),
        };
        let candidates: Vec<Candidate> = editions.iter().map(candidate).collect();
        let judged = decide(&candidates, &self.options.policy, &self.options.named);
        for name in &self.options.named {
            let Some(judged) = judged.iter().find(|judged| judged.id == *name) else {
                return Err(RepositoryError::NoBackup { id: name.to_string() }.into());
            };
            let locked = last(name).and_then(|stored| self.locked(stored, now));
            if let Some(until) = locked.filter(|_| judged.protected == Some("locked")) {
                return Err(PruneError::Locked { id: name.clone(), until });
            }
            if let Some(reason) = judged.protected {
                return Err(PruneError::Stays { id: name.clone(), reason });
            }
        }
        let is_locked = |id: &BackupId, edition: u32| {
            let stored = stored.get(id).and_then(|editions| editions.get(&edition));
            stored.is_some_and(|stored| self.locked(*stored, now).is_some())
        };
        let decided = editions.into_iter().zip(judged).map(|(editions, judged)| Decided {
            judged,
            manifest: editions.newest().cloned().map(Box::new),
            planned: pending.planned(&editions.id),
            superseded: editions.superseded().filter(|edition| !is_locked(&editions.id, *edition)).collect(),
            damaged: editions.damaged().map(|(edition, error)| (edition, error.to_string())).collect(),
            stored: stored.get(&editions.id).and_then(|editions| editions.values().next().copied()),
        });
        Ok(decided.collect())
    }

    /// A plan of what goes and of what nobody needs then; nothing if that is nothing.
    async fn draft(
        &self,
        pending: &Pending,
        backups: &[Decided],
        count: &mut Count,
        now: Timestamp,
        report: &mut PruneReport,
    ) -> Result<Option<Draft>, PruneError> {
        let repository = &self.context.repository;
        let unplanned = || backups.iter().filter(|backup| backup.planned.is_none());
        let goes: Vec<LetGo> = unplanned().filter_map(entry).collect();
        let stays: Vec<&Decided> = unplanned().filter(|backup| matches!(backup.judged.fate, Fate::Stays(_))).collect();
        if let Some(damaged) = stays.iter().find(|backup| backup.manifest.is_none()) {
            let id = &damaged.judged.id;
            let what = "what it needs is not known, so no pack is planned to go";
            report.skipped.push(Skip::lost(format!("the manifest of backup {id} cannot be read: {what}")));
            count.failed = true;
        }
        let damaged = stays
            .iter()
            .filter(|backup| backup.manifest.is_some())
            .flat_map(|backup| backup.damaged.iter().map(|(edition, why)| (&backup.judged.id, edition, why)));
        for (id, edition, why) in damaged {
            report.skipped.push(Skip::edition(id, *edition, why));
            count.failed = true;
        }
        let superseded = |backup: &&Decided| -> Vec<Superseded> {
            let id = &backup.judged.id;
            let unnamed = backup.superseded.iter().filter(|edition| !pending.names_edition(id, **edition));
            unnamed.map(|edition| Superseded { id: id.clone(), edition: *edition }).collect()
        };
        let editions: Vec<Superseded> = stays.iter().flat_map(superseded).collect();
        let progress = &self.context.progress;
        progress.begin(Phase::Check, Some(stays.len() as u64));
        for manifest in stays.iter().filter_map(|backup| backup.manifest.as_deref()) {
            if !count.failed
                && let Err(skip) = count.add(repository, manifest).await?
            {
                report.skipped.push(skip);
            }
            progress.advance(Phase::Check, 1);
        }
        progress.end(Phase::Check);
        let garbage = if count.failed { Vec::new() } else { self.garbage(pending, backups, count, now).await? };
        let binlogs = match count.failed {
            true => binlogs::Goes::default(),
            false => self.needless_binlogs(pending, backups, now).await?,
        };
        if goes.is_empty() && editions.is_empty() && garbage.is_empty() && binlogs.entries.is_empty() {
            return Ok(None);
        }
        let created = self.context.clock.now().whole_seconds();
        let plan = PrunePlan {
            id: PlanId::new(created, &*self.context.entropy),
            created,
            grace_seconds: self.options.grace_seconds,
            haulout_version: env!("CARGO_PKG_VERSION").to_owned(),
            policy: self.options.policy.words(),
            backups: goes,
            editions,
            parts: 0,
            packs: garbage.len() as u64,
            pack_bytes: garbage.iter().map(|(_, pack)| pack.bytes).sum(),
            binlogs: binlogs.entries,
            segments: binlogs.segments,
            segment_bytes: binlogs.bytes,
        };
        Ok(Some(Draft { plan, packs: garbage.into_iter().map(|(id, _)| id).collect() }))
    }

    /// Until when an object that was put at `stored` is locked, if that is after a plan that is made now may be carried out.
    fn locked(&self, stored: Timestamp, now: Timestamp) -> Option<Timestamp> {
        let grace = jiff::SignedDuration::from_secs(i64::try_from(self.options.grace_seconds).unwrap_or(i64::MAX));
        let due = now.0.checked_add(grace).unwrap_or(jiff::Timestamp::MAX);
        self.context.repository.locked_until(stored).filter(|until| until.0 > due)
    }

    /// Packs that nobody who stays needs, that no plan names yet, and that are older than the newest backup.
    async fn garbage(
        &self,
        pending: &Pending,
        backups: &[Decided],
        count: &Count,
        now: Timestamp,
    ) -> Result<Vec<(PackId, StoredPack)>, PruneError> {
        let repository = &self.context.repository;
        let packs = repository.packs().await?;
        // Of the backups that were counted, and not of one that was committed since: its packs are needed, and nobody has counted them.
        let Some(newest) = backups.iter().filter_map(|backup| backup.stored).max() else { return Ok(Vec::new()) };
        let mut named = HashSet::new();
        for (plan, _) in pending.plans.values() {
            // What cannot be read of it is planned anew.
            named.extend(repository.prune_packs(plan).await?.packs);
        }
        let is_garbage = |(id, pack): &(PackId, StoredPack)| {
            pack.stored < newest
                && self.locked(pack.stored, now).is_none()
                && !count.references.need(id)
                && !named.contains(id)
        };
        let mut garbage: Vec<(PackId, StoredPack)> = packs.into_iter().filter(is_garbage).collect();
        garbage.sort_unstable_by_key(|(id, _)| *id);
        Ok(garbage)
    }
}

fn entry(backup: &Decided) -> Option<LetGo> {
    match &backup.judged.fate {
        Fate::Goes { reason, named } => {
            Some(LetGo { id: backup.judged.id.clone(), reason: reason.clone(), named: *named })
        }
        Fate::Stays(_) => None,
    }
}

/// A plan that is not written down yet.
struct Draft {
    plan: PrunePlan,
    /// Ascending.
    packs: Vec<PackId>,
}

impl Draft {
    fn made(&self, plan: Option<PlanId>, now: Timestamp) -> Made {
        let PrunePlan { packs, pack_bytes, segments, segment_bytes, .. } = self.plan;
        let backups = self.plan.backups.iter().map(|entry| entry.id.clone()).collect();
        let editions = self.plan.editions.len() as u64;
        let due = due(&self.plan, now);
        Made { plan, backups, editions, packs, pack_bytes, segments, segment_bytes, due }
    }
}

/// The references of the backups that were counted.
#[derive(Default)]
struct Count {
    references: References,
    /// Backups, and which editions of them, whose references are among them.
    counted: HashSet<(BackupId, u32)>,
    /// True when one could not be counted.
    failed: bool,
}

impl Count {
    /// Counts what a backup needs.
    ///
    /// # Errors
    /// When the store does not answer. Damage makes the count useless, and gives what to say of it.
    async fn add(&mut self, repository: &Arc<Repository>, manifest: &Manifest) -> Result<Result<(), Skip>, PruneError> {
        let name = (manifest.id.clone(), manifest.edition);
        if self.counted.contains(&name) {
            return Ok(Ok(()));
        }
        match self.references.add(repository, manifest).await {
            Ok(()) => {
                self.counted.insert(name);
                Ok(Ok(()))
            }
            Err(RepositoryError::Store(error)) if !error.is_not_found() => Err(RepositoryError::Store(error).into()),
            Err(error) => {
                self.failed = true;
                let causes = causes(&error);
                let id = &manifest.id;
                Ok(Err(Skip::lost(format!("what backup {id} needs cannot be counted ({causes}), so no pack goes"))))
            }
        }
    }
}

/// Packs by name.
type Packs = HashMap<PackId, StoredPack>;

/// An error and its cause in one line.
fn causes(error: &RepositoryError) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}
