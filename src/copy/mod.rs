//! Copies backups into another store: the same repository a second time, in another bucket, region, account or provider.
//!
//! ```text
//! choose (pure) ─► what a backup needs ─► packs that the copy lacks: read ─► proven by name ─► put ─► is all there? ─► manifest
//! ```
//! The copy has the repository's id, seal and key slots, so that every command works on it and what opens one opens the other. A
//! backup is in the copy once its manifest is, and that is put when all packs that it needs are there; backups come in the order in which
//! they were taken. A run that dies leaves packs that no backup needs yet, and the next finds them in its listing.
//!
//! - **What is needed** the maps tell. In a sealed repository without a key nobody knows: then all packs are copied, and a backup counts as
//!   arrived when its manifest is still there after a listing of packs all of which have come across. A prune deletes manifests before packs.
//! - **Prunes of the source** may let go of what is being copied: the backup is left out, and told. Its packs do no harm.
//! - **Prunes of the copy.** A run holds the lease `backup` of the copy, so that sweeps are put off; and before each manifest it looks
//!   whether one was under way all the same, and then counts what the backup needs against a new listing (`Run::settle`). Packs that are
//!   newer than the copy's newest backup are never planned.
//! - **Binary log** comes after the backups (`copy::binlogs`).
//! - **What a prune of the copy let go of** does not come back: unless others are asked for, only backups are copied that are newer than the
//!   newest one there.
//!
//! Memory: the packs in flight, some 150 bytes for each pack that both places hold, and [`References`].

mod binlogs;
mod choose;
mod error;
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
mod transfer;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, watch};

pub use binlogs::CopiedBinlogs;
pub use choose::{Wanted, choose};
pub use error::CopyError;
use transfer::is_unfit;

use crate::model::{BackupId, Entropy, PackId, PlanId, Progress};
use crate::repository::{
    LeaseGuard, References, Repository, RepositoryError, StoredBackup, StoredManifest, StoredPack,
};
use crate::store::{Store, StoreError};

/// Packs on their way at the same time, unless another number is asked for. 8: each holds 16 MiB, and a line to another continent is full.
pub const PACKS_IN_FLIGHT: usize = 8;
/// Pause between two looks at a sweep of the copy that is under way.
pub const SWEEP_PAUSE: Duration = Duration::from_secs(2);
/// Editions of a backup's manifest that are tried: compactions and prunes of the source may replace one while it is copied.
const EDITIONS_TRIED_MAX: u32 = 3;
/// Sweeps of the copy that a run outlasts before one manifest: each is a day after its plan.
const SWEEPS_OUTLASTED_MAX: u32 = 5;
/// Listings of a sealed source that is copied without a key: after the first, packs vanish only if it is pruned again and again.
const ROUNDS_MAX: u32 = 4;

/// What a copy works with.
#[derive(Clone)]
pub struct Context {
    /// The repository that is copied.
    pub source: Arc<Repository>,
    /// Where the copy is, or is to be.
    pub target: Store,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// Who watches.
    pub progress: Arc<dyn Progress>,
    /// Becomes true when the run should end.
    pub cancel: watch::Receiver<bool>,
}

/// What is wanted.
#[derive(Debug, Clone)]
pub struct CopyOptions {
    /// Which backups.
    pub wanted: Wanted,
    /// Packs on their way at the same time.
    pub packs_in_flight: usize,
    /// Pause between two looks at a sweep of the copy.
    pub sweep_pause: Duration,
    /// Says what is missing, and writes nothing.
    pub dry_run: bool,
    /// Copies archived binary log, too.
    pub binlogs: bool,
}

impl Default for CopyOptions {
    fn default() -> CopyOptions {
        let wanted = Wanted::default();
        CopyOptions {
            wanted,
            packs_in_flight: PACKS_IN_FLIGHT,
            sweep_pause: SWEEP_PAUSE,
            dry_run: false,
            binlogs: true,
        }
    }
}

/// A backup that was copied, or would be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copied {
    /// The backup.
    pub id: BackupId,
    /// The edition of its manifest.
    pub edition: u32,
    /// Packs that the copy lacked for it.
    pub packs: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// A backup that was not copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skip {
    /// The backup; nothing where it is all that were to be copied, or none.
    pub backup: Option<BackupId>,
    /// What, and why.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

/// What a copy did, or would do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CopyReport {
    /// True when the copy was made by this run, or would be.
    pub made: bool,
    /// Backups of the source when the run began.
    pub source_backups: u64,
    /// Backups of the copy when it ended.
    pub copy_backups: u64,
    /// The newest of them.
    pub latest: Option<BackupId>,
    /// Backups that were copied, the oldest first.
    pub copied: Vec<Copied>,
    /// Packs that came across, those of backups that were then not copied among them.
    pub packs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Key slots that came across after the copy was made.
    pub slots: u64,
    /// What could not be copied.
    pub skipped: Vec<Skip>,
    /// Backups that a prune of the source let go of meanwhile.
    pub let_go: Vec<BackupId>,
    /// Backups of the source that are newer than the newest of the copy, now.
    pub behind: Vec<BackupId>,
    /// Binary log that was copied.
    pub binlogs: CopiedBinlogs,
}

/// How far a copy is behind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lag {
    /// Backups that it has.
    pub backups: BTreeSet<BackupId>,
    /// Those of the source that are newer than its newest, the oldest first.
    pub behind: Vec<BackupId>,
}

/// Compares the copy in `target` with its source, whose backups are `backups`. Where there is no repository yet, all is missing.
///
/// # Errors
/// When there is another repository, or the store does not answer.
pub async fn lag(source: &Repository, target: &Store, backups: &[BackupId]) -> Result<Lag, CopyError> {
    refuse_same(source, target)?;
    let there = match source.find_copy(target).await? {
        Some(copy) => copy.backup_ids().await?.into_iter().collect(),
        None => BTreeSet::new(),
    };
    Ok(Lag { behind: choose(backups, &there, &Wanted::default()), backups: there })
}

/// Copies backups.
///
/// # Errors
/// When the place of the copy holds another repository, a backup, a prune or another copy is at work there, or a store does not answer. What
/// is damaged is no error: it is in the report.
pub async fn copy(context: &Context, options: &CopyOptions) -> Result<CopyReport, CopyError> {
    refuse_same(&context.source, &context.target)?;
    let (source, entropy) = (&context.source, &*context.entropy);
    let mut report = CopyReport::default();
    let found = source.find_copy(&context.target).await?;
    report.made = found.is_none();
    if options.dry_run {
        return Run::new(context, options, found.map(Arc::new), None, report).go().await;
    }
    let copy = match found {
        Some(copy) => copy,
        None => {
            let (copy, faults) = source.make_copy(&context.target).await?;
            context.progress.note(&format!("a repository was made at {}", context.target.origin().url));
            report.skipped.extend(faults.into_iter().map(slot_skip));
            copy
        }
    };
    let copy = Arc::new(copy);
    let lease = Arc::new(Mutex::new(copy.lease("backup", entropy).await?));
    let renewal = {
        let (copy, lease, progress) = (copy.clone(), lease.clone(), context.progress.clone());
        tokio::spawn(async move { copy.keep_renewed(&lease, &*progress).await })
    };
    let mut cancel = context.cancel.clone();
    let run = Run::new(context, options, Some(copy.clone()), Some(&lease), report);
    let report = tokio::select! {
        report = run.go() => report,
        Ok(_) = cancel.wait_for(|cancel| *cancel) => Err(CopyError::Interrupted),
    };
    renewal.abort();
    copy.give_back(&lease, &*context.progress).await;
    report
}

/// The same place twice would be no copy.
fn refuse_same(source: &Repository, target: &Store) -> Result<(), CopyError> {
    let (one, other) = (source.store().origin(), target.origin());
    if one.url == other.url && one.endpoint == other.endpoint {
        return Err(CopyError::SamePlace { url: one.url.clone() });
    }
    Ok(())
}

fn slot_skip(message: String) -> Skip {
    let hint = "`haulout key list` shows the slots there are; those that were copied open the copy";
    Skip { backup: None, message, hint: Some(hint.to_owned()) }
}

/// A run, and what it knows by now.
struct Run<'a> {
    context: &'a Context,
    options: &'a CopyOptions,
    /// Nothing in a dry run without a copy.
    copy: Option<Arc<Repository>>,
    /// Nothing in a dry run.
    lease: Option<&'a Mutex<LeaseGuard>>,
    /// Packs of the source as it was listed.
    listed: HashMap<PackId, StoredPack>,
    /// Packs that are in the copy, with their sizes.
    arrived: HashMap<PackId, u64>,
    /// Packs of the copy that a check found damaged: nothing new rests on them until they were put again.
    damaged: HashSet<PackId>,
    /// What backups need that were looked at: all of it has arrived.
    references: References,
    /// Plans of the copy that have ended, and after whose ends it was listed again.
    settled: BTreeSet<PlanId>,
    /// Backups of the copy.
    there: BTreeSet<BackupId>,
    report: CopyReport,
}

impl<'a> Run<'a> {
    fn new(
        context: &'a Context,
        options: &'a CopyOptions,
        copy: Option<Arc<Repository>>,
        lease: Option<&'a Mutex<LeaseGuard>>,
        report: CopyReport,
    ) -> Run<'a> {
        Run {
            context,
            options,
            copy,
            lease,
            listed: HashMap::new(),
            arrived: HashMap::new(),
            damaged: HashSet::new(),
            references: References::default(),
            settled: BTreeSet::new(),
            there: BTreeSet::new(),
            report,
        }
    }

    async fn go(mut self) -> Result<CopyReport, CopyError> {
        let source = &self.context.source;
        // Before the packs: whatever a backup needs was stored before it.
        let mut backups = source.stored_backups().await?;
        self.listed = source.packs().await?;
        if let Some(copy) = self.copy.clone() {
            self.there = copy.backup_ids().await?.into_iter().collect();
            self.list_copy(&copy).await?;
            if copy.opens_maps() {
                self.damaged = copy.known_damage().await?.packs.into_iter().collect();
            }
            if self.lease.is_some() && !self.report.made {
                let (slots, faults) = source.copy_slots(&copy).await?;
                self.report.slots = slots;
                self.report.skipped.extend(faults.into_iter().map(slot_skip));
            }
        }
        let ids: Vec<BackupId> = backups.iter().map(|backup| backup.id.clone()).collect();
        self.report.source_backups = ids.len() as u64;
        let chosen: BTreeSet<BackupId> = choose(&ids, &self.there, &self.options.wanted).into_iter().collect();
        backups.retain(|backup| chosen.contains(&backup.id));
        if source.opens_maps() {
            for backup in backups {
                self.copy_backup(backup).await?;
            }
        } else if !backups.is_empty() {
            self.copy_everything(backups).await?;
        }
        self.copy_binlogs().await?;
        self.report.copy_backups = self.there.len() as u64;
        self.report.latest = self.there.last().cloned();
        self.report.behind = choose(&ids, &self.there, &Wanted::default());
        Ok(self.report)
    }

    /// Copies one backup, unless it is damaged or let go of.
    async fn copy_backup(&mut self, mut listed: StoredBackup) -> Result<(), CopyError> {
        let source = &self.context.source;
        let mut tried = 1;
        loop {
            let unfit = match source.stored_manifest(&listed).await {
                Ok(Some(stored)) => match self.try_backup(&stored).await? {
                    None => return Ok(()),
                    Some(unfit) => unfit,
                },
                Ok(None) => RepositoryError::NoBackup { id: listed.id.to_string() },
                Err(error) if is_unfit(&error) => error,
                Err(error) => return Err(error.into()),
            };
            // What it named and did not get may be missing for every backup that shares it.
            self.references = References::default();
            let now = source.stored_backups().await?.into_iter().find(|now| now.id == listed.id);
            match now {
                None => {
                    self.let_go(&listed.id);
                    return Ok(());
                }
                // A compaction has written another edition, and a prune deleted what that replaced.
                Some(now) if now.editions != listed.editions && tried < EDITIONS_TRIED_MAX => {
                    listed = now;
                    tried += 1;
                }
                Some(_) => {
                    self.skip(&listed.id, &unfit);
                    return Ok(());
                }
            }
        }
    }

    /// Copies what a backup needs and then its manifest; gives what is wrong with it, if anything is.
    async fn try_backup(&mut self, stored: &StoredManifest) -> Result<Option<RepositoryError>, CopyError> {
        let source = &self.context.source;
        let Some(manifest) = &stored.manifest else {
            return Ok(Some(RepositoryError::KeyMissing { url: source.store().origin().url.clone() }));
        };
        match self.references.add(source, manifest).await {
            Ok(()) => {}
            Err(error) if is_unfit(&error) => return Ok(Some(error)),
            Err(error) => return Err(error.into()),
        }
        let needed = self.references.take_packs();
        let missing = self.missing(needed);
        if self.lease.is_none() {
            self.would_copy(stored, &missing);
            return Ok(None);
        }
        let (packs, bytes) = (self.report.packs, self.report.bytes);
        if let Some(unfit) = self.transfer(missing).await?.into_iter().next() {
            return Ok(Some(unfit));
        }
        if let Some(unfit) = self.settle(Some(stored)).await? {
            return Ok(Some(unfit));
        }
        self.commit(stored, (packs, bytes)).await?;
        Ok(None)
    }

    /// Copies all packs of a sealed repository that no key opens, and then manifests.
    async fn copy_everything(&mut self, mut backups: Vec<StoredBackup>) -> Result<(), CopyError> {
        let source = self.context.source.clone();
        self.context.progress.note("no key is given: all packs are copied, whether or not a backup needs them");
        if self.lease.is_none() {
            return self.would_copy_everything(&backups).await;
        }
        let (packs, bytes) = (self.report.packs, self.report.bytes);
        for round in 1.. {
            let all = self.listed.keys().copied().collect();
            let missing = self.missing(all);
            let failures = self.transfer(missing).await?;
            let damaged = failures.iter().find(|error| !matches!(error, RepositoryError::PackMissing { .. }));
            if damaged.is_some() || (!failures.is_empty() && round == ROUNDS_MAX) {
                let error = damaged.or(failures.first()).map(causes).unwrap_or_default();
                self.report.skipped.push(Skip {
                    backup: None,
                    message: format!(
                        "no backup is copied, because which need this pack nobody knows without a key: {error}"
                    ),
                    hint: Some("give a key, if only one of the sort `map`: then the others are copied".to_owned()),
                });
                return Ok(());
            }
            let now = source.stored_backups().await?;
            let is_same = |backup: &StoredBackup| {
                now.iter().find(|now| now.id == backup.id).is_none_or(|now| now.editions == backup.editions)
            };
            if failures.is_empty() && (backups.iter().all(is_same) || round == ROUNDS_MAX) {
                break;
            }
            // The source is pruned or compacted. Of a manifest that was there before a listing, all that it needs is in the listing.
            self.listed = source.packs().await?;
            backups = self.still_there(backups, now);
        }
        let mut counted = (packs, bytes);
        for listed in backups {
            match source.stored_manifest(&listed).await {
                Ok(Some(stored)) => {
                    if let Some(unfit) = self.settle(None).await? {
                        self.skip(&listed.id, &unfit);
                        continue;
                    }
                    self.commit(&stored, counted).await?;
                    counted = (self.report.packs, self.report.bytes);
                }
                Ok(None) if source.stored_backups().await?.iter().any(|now| now.id == listed.id) => {
                    self.skip(&listed.id, &RepositoryError::NoBackup { id: listed.id.to_string() });
                }
                Ok(None) => self.let_go(&listed.id),
                Err(error) if is_unfit(&error) => self.skip(&listed.id, &error),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Those of `backups` that are among `now`, as they are there.
    fn still_there(&mut self, backups: Vec<StoredBackup>, now: Vec<StoredBackup>) -> Vec<StoredBackup> {
        let mut now: HashMap<BackupId, StoredBackup> =
            now.into_iter().map(|backup| (backup.id.clone(), backup)).collect();
        let mut still = Vec::new();
        for backup in backups {
            match now.remove(&backup.id) {
                Some(backup) => still.push(backup),
                None => self.let_go(&backup.id),
            }
        }
        still
    }

    /// Sees that no sweep has taken anything from the copy since it was listed, of what a backup needs, or of all; brings back what one took.
    ///
    /// A sweep is put off while the lease holds that this run took before it listed the copy. But one may have begun before that, or the lease
    /// have lapsed, as on a machine that slept.
    async fn settle(&mut self, stored: Option<&StoredManifest>) -> Result<Option<RepositoryError>, CopyError> {
        let (Some(copy), Some(lease)) = (self.copy.clone(), self.lease) else { return Ok(None) };
        let taken = lease.lock().await.taken();
        let mut last = None;
        for _ in 0..SWEEPS_OUTLASTED_MAX {
            let state = copy.prune_state().await?;
            let plans: Vec<PlanId> =
                state.swept_since(taken).filter(|plan| !self.settled.contains(plan)).cloned().collect();
            if plans.is_empty() {
                return Ok(None);
            }
            self.context.progress.note("the copy was pruned meanwhile: counting that all is there");
            copy.outlast_sweeps(&plans, lease, self.options.sweep_pause).await?;
            let state = copy.prune_state().await?;
            let ended = |plan: &&PlanId| state.plans.get(plan).is_none_or(|state| state.done.is_some());
            self.settled.extend(plans.iter().filter(ended).cloned());
            self.list_copy(&copy).await?;
            let needed = match stored.and_then(|stored| stored.manifest.as_ref()) {
                Some(manifest) => {
                    let mut references = References::default();
                    match references.add(&self.context.source, manifest).await {
                        Ok(()) => references.into_packs(),
                        Err(error) if is_unfit(&error) => return Ok(Some(error)),
                        Err(error) => return Err(error.into()),
                    }
                }
                None => self.listed.keys().copied().collect(),
            };
            let unended = plans.iter().filter(|plan| !self.settled.contains(plan));
            for plan in unended {
                self.refuse_named(&copy, plan, &needed).await?;
            }
            let missing = self.missing(needed);
            if missing.is_empty() {
                return Ok(None);
            }
            if let Some(unfit) = self.transfer(missing).await?.into_iter().next() {
                return Ok(Some(unfit));
            }
            last = plans.into_iter().next_back();
        }
        match last {
            Some(plan) => Err(CopyError::Swept { plan }),
            None => Ok(None),
        }
    }

    /// Refuses to rest on packs that `plan` names, which was begun and has not ended: whoever carries it out, and sleeps, goes on by what he
    /// counted. Without a key nobody knows what it names.
    async fn refuse_named(&self, copy: &Repository, plan: &PlanId, needed: &HashSet<PackId>) -> Result<(), CopyError> {
        let unended = || CopyError::Unended { plan: plan.clone() };
        if !copy.opens_maps() {
            return Err(unended());
        }
        let named = match copy.prune_plan(plan).await {
            Ok(document) => copy.prune_packs(&document).await,
            Err(error) => Err(error),
        };
        match named {
            // What a document names that cannot be read, nobody knows.
            Ok(named) if named.unread.is_some() || named.packs.iter().any(|pack| needed.contains(pack)) => {
                Err(unended())
            }
            Ok(_) => Ok(()),
            Err(error) if is_unfit(&error) => Err(unended()),
            Err(error) => Err(error.into()),
        }
    }

    /// Stores a manifest in the copy; `before` is what had come across before this backup's turn.
    async fn commit(&mut self, stored: &StoredManifest, before: (u64, u64)) -> Result<(), CopyError> {
        let Some(copy) = &self.copy else { return Ok(()) };
        let StoredManifest { id, edition, .. } = stored;
        match copy.put_stored_manifest(stored).await {
            Ok(()) => {}
            Err(RepositoryError::Store(StoreError::AlreadyExists { .. })) => {
                self.report.skipped.push(Skip {
                    backup: Some(id.clone()),
                    message: format!(
                        "the copy has another manifest under the name of edition {edition} of backup {id}"
                    ),
                    hint: Some(
                        "if it was not compacted by itself, `haulout check` there tells what is wrong".to_owned(),
                    ),
                });
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        }
        let (packs, bytes) = (self.report.packs - before.0, self.report.bytes - before.1);
        if packs == 0 && self.there.contains(id) {
            return Ok(());
        }
        self.context.progress.note(&format!("backup {id} is in the copy: {packs} packs, {} MiB", bytes >> 20));
        self.there.insert(id.clone());
        self.report.copied.push(Copied { id: id.clone(), edition: *edition, packs, bytes });
        Ok(())
    }

    /// Packs among `needed` that the copy does not have as the source has them, in the order in which they were stored there.
    fn missing(&self, needed: HashSet<PackId>) -> Vec<PackId> {
        let is_there = |id: &PackId| {
            let size = self.listed.get(id).map(|pack| pack.bytes);
            let found = self.arrived.get(id).filter(|_| !self.damaged.contains(id));
            found.is_some_and(|found| size.is_none_or(|size| size == *found))
        };
        let mut missing: Vec<PackId> = needed.into_iter().filter(|id| !is_there(id)).collect();
        missing.sort_unstable_by_key(|id| (self.listed.get(id).map(|pack| pack.stored), *id));
        missing
    }

    fn bytes_of(&self, packs: &[PackId]) -> u64 {
        packs.iter().filter_map(|id| self.listed.get(id)).map(|pack| pack.bytes).sum()
    }

    async fn list_copy(&mut self, copy: &Repository) -> Result<(), CopyError> {
        self.arrived = copy.packs().await?.into_iter().map(|(id, pack)| (id, pack.bytes)).collect();
        self.forget_swept(copy).await
    }

    /// Asks for packs that are listed although a sweep of the copy named them: a listing can be old. Without a key nobody knows which.
    async fn forget_swept(&mut self, copy: &Repository) -> Result<(), CopyError> {
        if !copy.opens_maps() {
            return Ok(());
        }
        let state = copy.prune_state().await?;
        for (id, _) in state.plans.iter().filter(|(_, plan)| plan.stored.is_some() && plan.begun.is_some()) {
            let named = match copy.prune_plan(id).await {
                Ok(plan) => copy.prune_packs(&plan).await,
                Err(error) => Err(error),
            };
            let packs = match named {
                Ok(named) => named.packs,
                // `settle` looks at those that have not ended.
                Err(error) if is_unfit(&error) => continue,
                Err(error) => return Err(error.into()),
            };
            for pack in packs {
                if self.arrived.contains_key(&pack) && !copy.has_pack(pack).await? {
                    self.arrived.remove(&pack);
                }
            }
        }
        Ok(())
    }

    /// Counts a backup as copied, in a dry run.
    fn would_copy(&mut self, stored: &StoredManifest, missing: &[PackId]) {
        let (packs, bytes) = (missing.len() as u64, self.bytes_of(missing));
        if packs == 0 && self.there.contains(&stored.id) {
            return;
        }
        for id in missing {
            self.damaged.remove(id);
            self.arrived.insert(*id, self.listed.get(id).map_or(0, |pack| pack.bytes));
        }
        self.report.packs += packs;
        self.report.bytes += bytes;
        self.report.copied.push(Copied { id: stored.id.clone(), edition: stored.edition, packs, bytes });
    }

    async fn would_copy_everything(&mut self, backups: &[StoredBackup]) -> Result<(), CopyError> {
        let source = self.context.source.clone();
        let mut missing = self.missing(self.listed.keys().copied().collect());
        for listed in backups {
            match source.stored_manifest(listed).await {
                Ok(Some(stored)) => self.would_copy(&stored, &std::mem::take(&mut missing)),
                Ok(None) => self.let_go(&listed.id),
                Err(error) if is_unfit(&error) => self.skip(&listed.id, &error),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn let_go(&mut self, id: &BackupId) {
        self.context.progress.note(&format!("backup {id} is not copied: it was let go of at the source meanwhile"));
        self.report.let_go.push(id.clone());
    }

    fn skip(&mut self, id: &BackupId, error: &RepositoryError) {
        self.report.skipped.push(Skip {
            backup: Some(id.clone()),
            message: format!("backup {id} is not copied: {}", causes(error)),
            hint: Some(
                "`haulout check --read-data` tells what is wrong with it; `copy --backup` tries it again".to_owned(),
            ),
        });
    }
}

/// An error and its cause in one line.
fn causes(error: &RepositoryError) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}
