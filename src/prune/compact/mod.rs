//! Compaction: gathers what backups need out of packs that are mostly dead, and puts extents that lie in many pieces together again.
//!
//! ```text
//! survey (which bytes of which packs) ─► plan ─► copy chunks, merge extents ─► rewrite maps ─► prove ─► editions
//! ```
//! Nothing is changed, and nothing is deleted: chunks are copied into new packs, map blocks that speak of them are written anew, and each
//! backup whose map has changed gets another edition of its manifest. `prune` deletes what that has superseded after a grace
//! period. A run that dies leaves packs that nobody needs; the next starts over. It needs the store alone.
//!
//! - Packs of data are rewritten whose chunks are needed to a share of less than [`CompactOptions::live_share`]; those that are needed are
//!   copied as they are, or, in a sealed repository, opened and sealed anew for their new places. Map packs likewise.
//! - Extents of the newest backup, or of another that is chosen, with more pieces than [`CompactOptions::pieces_max`] get their
//!   pages merged into one chunk. Merging each version of an extent of every backup would store them all again.
//! - Before any edition is written, the new maps are read from the store, and all that they need is found there.
//! - Nothing rests on the lease: see [`Run::is_overtaken`].
//!
//! What bounds memory, whatever the size of the repository:
//!
//! | what | bytes |
//! |---|---|
//! | chunks that are counted in one turn, [`Limits::needs`] of 16 bytes | 64 MiB, 96 while that grows |
//! | chunks that move in one run, [`Limits::moves`] of 24 bytes | 48 MiB |
//! | extents that are merged in one run, [`Limits::merges`] of 120 bytes | 60 MiB |
//! | pages of extents that are being merged, twice | 2 × [`Limits::window_bytes`], 64 MiB |
//! | stored bytes being read | 32 MiB |
//! | packs being filled and stored | 6 × 21 MiB |
//! | map blocks: some 30 bytes for each, 110 for each that is rewritten; 60 bytes for each pack | 12 MiB for 100,000 |

mod copy;
mod merge;
mod packs;
mod rewrite;
mod survey;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap, HashSet};

use futures::{StreamExt, TryStreamExt};
use serde::Serialize;
use tokio::sync::Mutex;

use copy::Moves;
use merge::{Fragments, Merger};
use packs::{DataPacks, Uploads};
use rewrite::{Order, Rewriter};
use survey::{NeededPack, Survey, survey};

use super::{Context, Pending, PruneError, Skip, causes, leased};
use crate::format::map::{BlockRef, PackRef};
use crate::format::{EDITION_MAX, Manifest};
use crate::model::{BackupId, PackId, Phase, Timestamp};
use crate::repository::{Editions, Extension, LeaseGuard, RepositoryError};

/// Packs are rewritten of which less than this share is needed, in percent, unless another is asked for.
pub const LIVE_SHARE: u8 = 50;
/// Pieces that an extent may have, unless another number is asked for.
pub const PIECES_MAX: u32 = 8;
/// Directories of packs read at the same time.
const DIRECTORIES_IN_FLIGHT: usize = 16;
/// Looks at which blocks stay, after each of which further map packs may be mostly dead.
const MAP_ROUNDS_MAX: usize = 3;

/// A block by the beginning of a hash over its name and its place.
type Name = [u8; 16];

fn name_of(block: &BlockRef) -> Name {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&block.id.0).update(&block.at.pack.id.0).update(&block.at.offset.to_le_bytes());
    let mut name = [0; 16];
    name.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    name
}

/// What is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompactOptions {
    /// Packs are rewritten of which less than this share is needed, 1 to 100 percent.
    pub live_share: u8,
    /// Pieces that an extent of the chosen backup may have.
    pub pieces_max: u32,
    /// The backup whose extents are merged; the newest unless one is named.
    pub backup: Option<BackupId>,
    /// Counts, and writes nothing.
    pub dry_run: bool,
}

impl Default for CompactOptions {
    fn default() -> CompactOptions {
        CompactOptions { live_share: LIVE_SHARE, pieces_max: PIECES_MAX, backup: None, dry_run: false }
    }
}

/// What bounds a run. What is beyond is left to the next.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// Chunks counted in one turn through the maps.
    needs: usize,
    /// Chunks copied in one run: some 1 TiB of large ones.
    moves: u64,
    /// Extents merged in one run: 512 GiB of 16 KiB pages.
    merges: usize,
    /// Bytes of pages of extents that are merged at the same time.
    window_bytes: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { needs: 4 << 20, moves: 2 << 20, merges: 512 << 10, window_bytes: 32 << 20 }
    }
}

/// The packs that backups need.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// How many.
    pub packs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes of the chunks and map blocks in them that a backup needs.
    pub live_bytes: u64,
    /// The others: what no backup needs, and the packs' own directories.
    pub dead_bytes: u64,
}

/// What a compaction did, or would do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CompactReport {
    /// The backup whose extents were merged; nothing in a repository without any.
    pub chosen: Option<BackupId>,
    /// Backups that were looked at: all but those that a prune plan lets go of.
    pub backups: u64,
    /// What they needed.
    pub before: Usage,
    /// What they need now; nothing where nothing was written.
    pub after: Option<Usage>,
    /// Data packs whose chunks move.
    pub data_packs: u64,
    /// Map packs whose blocks move.
    pub map_packs: u64,
    /// Chunks that were copied, or would be.
    pub moved_chunks: u64,
    /// Extents that were merged, or would be.
    pub merged_extents: u64,
    /// Packs that were written.
    pub written_packs: u64,
    /// Their bytes.
    pub written_bytes: u64,
    /// Backups that got another edition, or would get one.
    pub editions: Vec<BackupId>,
    /// Packs and extents that wait for the next run.
    pub left: u64,
    /// What was not done, and why.
    pub skipped: Vec<Skip>,
    /// The backup that was running, for which nothing was done.
    pub put_off: Option<String>,
}

/// A backup that is looked at.
#[derive(Debug, Clone, Copy)]
struct Subject<'a> {
    manifest: &'a Manifest,
    /// Whether its extents are merged.
    is_chosen: bool,
}

/// Compacts the repository.
///
/// # Errors
/// When another prune or compaction is at work, the repository was opened with a key for maps alone, the store does not answer, or the chosen backup does not exist. What is damaged is no
/// error: it is in the report, and stays as it is.
pub async fn compact(context: &Context, options: &CompactOptions) -> Result<CompactReport, PruneError> {
    compact_within(context, options, &Limits::default()).await
}

async fn compact_within(
    context: &Context,
    options: &CompactOptions,
    limits: &Limits,
) -> Result<CompactReport, PruneError> {
    context.repository.needs_data_key()?;
    if options.dry_run {
        return Run { context, options, limits, lease: None }.go().await;
    }
    leased(context, async |lease| Run { context, options, limits, lease: Some(lease) }.go().await).await
}

struct Run<'a> {
    context: &'a Context,
    options: &'a CompactOptions,
    limits: &'a Limits,
    /// Nothing in a dry run.
    lease: Option<&'a Mutex<LeaseGuard>>,
}

/// What is to be done.
struct Plan {
    survey: Survey,
    fragments: Fragments,
    /// Data packs whose chunks move, in the order in which they were stored.
    data: Vec<PackRef>,
    /// Map packs whose blocks move.
    maps: HashSet<PackId>,
    /// Backups whose maps are rewritten.
    touched: BTreeSet<BackupId>,
}

impl Run<'_> {
    async fn go(&self) -> Result<CompactReport, PruneError> {
        let repository = &self.context.repository;
        let mut report = CompactReport::default();
        if let Some(lease) = self.lease {
            report.put_off = repository.at_work("backup", &mut *lease.lock().await).await?;
            if report.put_off.is_some() {
                return Ok(report);
            }
        }
        let Some(backups) = self.backups(&mut report).await? else { return Ok(report) };
        let subjects = self.subjects(&backups, report.chosen.as_ref());
        report.backups = subjects.len() as u64;
        let plan = match self.plan(&subjects, &backups, &mut report).await {
            Ok(Some(plan)) => plan,
            Ok(None) => return Ok(report),
            Err(PruneError::Repository(error)) => return lost(error, report),
            Err(error) => return Err(error),
        };
        report.editions = plan.touched.iter().cloned().collect();
        if let Some(lease) = self.lease.filter(|_| !plan.touched.is_empty()) {
            self.carry_out(lease, &backups, &subjects, plan, &mut report).await?;
        }
        Ok(report)
    }

    /// All backups that no plan lets go of; nothing if there are none, or if it cannot be known what one of them needs.
    async fn backups(&self, report: &mut CompactReport) -> Result<Option<Vec<Editions>>, PruneError> {
        let repository = &self.context.repository;
        let pending = Pending::read(repository).await?;
        if let Some(plan) = pending.damaged.iter().find(|plan| pending.has_begun(plan)) {
            // It may name any pack that is written: see `is_overtaken`.
            let what =
                format!("plan {plan}, which was begun and has not ended, cannot be read, so nothing is compacted");
            report.skipped.push(Skip::new(what).with_hint("`haulout prune` removes it a month after it was begun"));
            return Ok(None);
        }
        let mut backups = repository.editions().await?;
        if let Some(chosen) = &self.options.backup
            && !backups.iter().any(|backup| backup.id == *chosen)
        {
            return Err(RepositoryError::NoBackup { id: chosen.to_string() }.into());
        }
        backups
            .retain(|backup| self.options.backup.as_ref() == Some(&backup.id) || pending.planned(&backup.id).is_none());
        let Some(newest) = backups.last().map(|backup| backup.id.clone()) else { return Ok(None) };
        report.chosen = self.options.backup.clone().or(Some(newest));
        let lost = backups.iter().find(|backup| backup.newest().is_none());
        if let Some((id, (_, Err(error)))) = lost.and_then(|backup| Some((&backup.id, backup.all.last()?))) {
            let what =
                format!("the manifest of backup {id} cannot be read, so nothing is compacted: {}", causes(error));
            report.skipped.push(Skip::lost(what));
            return Ok(None);
        }
        Ok(Some(backups))
    }

    /// The chosen backup first: what it shares with others is looked at for it.
    fn subjects<'b>(&self, backups: &'b [Editions], chosen: Option<&BackupId>) -> Vec<Subject<'b>> {
        let manifests = backups.iter().filter_map(Editions::newest);
        let mut subjects: Vec<Subject<'_>> =
            manifests.map(|manifest| Subject { manifest, is_chosen: Some(&manifest.id) == chosen }).collect();
        subjects.sort_by_key(|subject| !subject.is_chosen);
        subjects
    }

    /// What is to be done; nothing when something is missing that a backup needs.
    async fn plan(
        &self,
        subjects: &[Subject<'_>],
        backups: &[Editions],
        report: &mut CompactReport,
    ) -> Result<Option<Plan>, PruneError> {
        let repository = &self.context.repository;
        let mut fragments = Fragments::new(self.options.pieces_max, self.limits.merges);
        let survey = survey(repository, subjects, &mut fragments, self.limits, &*self.context.progress).await?;
        let listed = repository.packs().await?;
        if let Some(fault) = survey.fault(|pack| listed.get(&pack.id).map(|stored| stored.bytes)) {
            report.skipped.push(Skip::lost(format!("nothing is compacted: {fault}")));
            return Ok(None);
        }
        report.before = survey.usage();
        report.left = fragments.left;
        report.merged_extents = fragments.len() as u64;
        let mostly_dead = self.mostly_dead(&survey, false, |pack| pack.live_bytes).await?;
        let (mut data, mut chunks) = (Vec::new(), 0);
        for pack in mostly_dead {
            if chunks + pack.chunks > self.limits.moves {
                report.left += 1;
                continue;
            }
            chunks += pack.chunks;
            data.push(pack.pack);
        }
        data.sort_by_key(|pack| (listed.get(&pack.id).map(|stored| stored.stored), pack.id));
        (report.data_packs, report.moved_chunks) = (data.len() as u64, chunks);
        let moving: HashSet<PackId> = data.iter().map(|pack| pack.id).collect();
        let (maps, mut touched) = self.maps(subjects, &survey, &moving, &fragments).await?;
        report.map_packs = maps.len() as u64;
        // Another edition in the place of one that is damaged, although nothing else moves.
        touched
            .extend(backups.iter().filter(|backup| backup.damaged().next().is_some()).map(|backup| backup.id.clone()));
        Ok(Some(Plan { survey, fragments, data, maps, touched }))
    }

    /// Map packs that are mostly dead once all is rewritten that speaks of what moves, and the backups whose maps that hits.
    async fn maps(
        &self,
        subjects: &[Subject<'_>],
        survey: &Survey,
        moving: &HashSet<PackId>,
        fragments: &Fragments,
    ) -> Result<(HashSet<PackId>, BTreeSet<BackupId>), PruneError> {
        let repository = &self.context.repository;
        let mut maps: HashSet<PackId> = HashSet::new();
        let mut rounds = 0;
        loop {
            let mut touched = BTreeSet::new();
            let mut look = Rewriter::look(repository, Order::Planned(moving, fragments), &maps);
            for subject in subjects {
                if look.backup(subject).await?.is_some() {
                    touched.insert(subject.manifest.id.clone());
                }
            }
            let staying = std::mem::take(&mut look.staying);
            drop(look);
            let bytes = |pack: &NeededPack| staying.get(&pack.pack.id).copied().unwrap_or(0);
            let mut further = self.mostly_dead(survey, true, bytes).await?;
            further.retain(|pack| !maps.contains(&pack.pack.id));
            if further.is_empty() || rounds == MAP_ROUNDS_MAX {
                return Ok((maps, touched));
            }
            rounds += 1;
            maps.extend(further.iter().map(|pack| pack.pack.id));
        }
    }

    /// Packs of data or of maps of whose chunks less than the share is needed, the deadest first. What of them is needed, `live` tells;
    /// those of which nothing is are left to `prune`.
    async fn mostly_dead(
        &self,
        survey: &Survey,
        is_map: bool,
        live: impl Fn(&NeededPack) -> u64,
    ) -> Result<Vec<NeededPack>, PruneError> {
        let repository = &self.context.repository;
        let share = u64::from(self.options.live_share);
        let is_below = |live: u64, all: u64| live * 100 < share * all;
        let candidate = |pack: &NeededPack| {
            let live = live(pack);
            pack.is_map == is_map && live > 0 && is_below(live, u64::from(pack.pack.bytes))
        };
        // A small pack is directory for the most part: what counts is the share of its chunks.
        let looks = survey.packs.iter().filter(|pack| candidate(pack)).map(|pack| {
            let (pack, live) = (*pack, live(pack));
            async move {
                let directory = repository.directory(pack.pack).await?;
                let all: u64 = directory.iter().map(|entry| u64::from(entry.stored_bytes)).sum();
                Ok::<_, RepositoryError>((pack, live, all))
            }
        });
        let looks = futures::stream::iter(looks).buffered(DIRECTORIES_IN_FLIGHT);
        let mut found: Vec<(NeededPack, u64, u64)> =
            looks.try_filter(|(_, live, all)| futures::future::ready(is_below(*live, *all))).try_collect().await?;
        found.sort_by_key(|(pack, live, all)| (live * 1000 / all.max(&1), pack.pack.id));
        Ok(found.into_iter().map(|(pack, ..)| pack).collect())
    }

    /// Writes what was planned, proves it, and then writes the editions.
    async fn carry_out(
        &self,
        lease: &Mutex<LeaseGuard>,
        backups: &[Editions],
        subjects: &[Subject<'_>],
        plan: Plan,
        report: &mut CompactReport,
    ) -> Result<(), PruneError> {
        let Context { repository, progress, .. } = self.context;
        let Plan { mut survey, mut fragments, data: moving, maps, .. } = plan;
        let known = repository.known_damage().await?;
        let began = self.context.clock.now();
        let mut uploads = Uploads::new(repository.clone(), progress.clone(), known.packs);
        let mut data = DataPacks::new(repository.keyring()).map_err(RepositoryError::from)?;
        progress.begin(Phase::Fetch, None);
        progress.begin(Phase::Upload, None);
        let mut moves = Moves::default();
        if !moving.is_empty() {
            let ids = moving.iter().map(|pack| pack.id).collect();
            let live = survey.live(repository, subjects, &mut fragments, &ids).await?;
            drop(survey);
            let (moved, skipped) = copy::copy(repository, &moving, &live, &mut data, &mut uploads, &**progress).await?;
            (moves, report.skipped) = (moved, skipped);
        }
        report.moved_chunks = moves.len() as u64;
        let mut merger = Merger::new(repository, &fragments, &mut data, &mut uploads, &**progress);
        merger.window_bytes = self.limits.window_bytes;
        if let Some(subject) = subjects.iter().find(|subject| subject.is_chosen && fragments.len() > 0) {
            merger.run(subject.manifest).await?;
        }
        let (merges, skipped) = (merger.merges, merger.skipped);
        report.skipped.extend(skipped);
        report.merged_extents = merges.len() as u64;
        data.close(&mut uploads).await?;
        progress.end(Phase::Fetch);
        // Data packs come before map packs, and these before the manifests.
        uploads.finish().await?;
        let mut editions =
            self.rewrite(backups, subjects, Order::Moved(&moves, &merges, &data), &maps, &mut uploads).await?;
        uploads.finish().await?;
        progress.end(Phase::Upload);
        self.secure(began, std::mem::take(&mut uploads.found), backups, &mut editions).await?;
        (report.written_packs, report.written_bytes) = (uploads.written.len() as u64, uploads.bytes);
        report.after = Some(self.proven(subjects, &editions).await?);
        if let Some(what) = self.is_overtaken(lease, backups, &uploads.written).await? {
            return Err(PruneError::Overtaken { what });
        }
        report.editions.clear();
        for edition in &editions {
            repository.commit(edition, None).await?;
            report.editions.push(edition.id.clone());
        }
        Ok(())
    }

    /// New editions of all backups whose maps speak of what has moved, and of those of which an edition is damaged.
    async fn rewrite(
        &self,
        backups: &[Editions],
        subjects: &[Subject<'_>],
        order: Order<'_>,
        maps: &HashSet<PackId>,
        uploads: &mut Uploads,
    ) -> Result<Vec<Manifest>, PruneError> {
        let repository = &self.context.repository;
        let mut rewriter = Rewriter::write(repository, order, maps, uploads).map_err(RepositoryError::from)?;
        let mut changes = HashMap::new();
        for subject in subjects {
            if let Some(change) = rewriter.backup(subject).await? {
                changes.insert(&subject.manifest.id, change);
            }
        }
        rewriter.finish().await?;
        let mut editions = Vec::new();
        for backup in backups {
            let Some(manifest) = backup.newest() else { continue };
            let number = backup.last().saturating_add(1);
            if number > EDITION_MAX {
                return Err(PruneError::Editions { id: backup.id.clone() });
            }
            match changes.get(&backup.id) {
                Some(change) => editions.push(rewriter.edition(manifest, number, change)),
                None if backup.damaged().next().is_some() => {
                    editions.push(Manifest { edition: number, ..manifest.clone() });
                }
                None => {}
            }
        }
        Ok(editions)
    }

    /// Has editions whose maps are new say no more of their locks than what this run stored since it `began` bears out. Packs that
    /// were there already are locked anew where that ends too early.
    async fn secure(
        &self,
        began: Timestamp,
        found: Vec<PackId>,
        backups: &[Editions],
        editions: &mut [Manifest],
    ) -> Result<(), PruneError> {
        let Context { repository, progress, clock, .. } = self.context;
        let Some(policy) = repository.lock_policy() else { return Ok(()) };
        let own = policy.retention(began).until;
        let until = match repository.extend_few(policy, found, clock.now()).await {
            Ok(Extension { cause: None, until, .. }) => Some(until.min(own)),
            Ok(Extension { cause: Some(error), .. }) | Err(RepositoryError::Store(error)) => {
                let words = "what an earlier run left is not locked for the whole period; the next backup tries again";
                progress.warn(&format!("{words}: {}", crate::prune::causes(&error.into())));
                None
            }
            Err(error) => return Err(error.into()),
        };
        for edition in editions {
            let before = backups.iter().find(|backup| backup.id == edition.id).and_then(Editions::newest);
            if before.is_none_or(|before| before.map != edition.map) {
                edition.locked_until = edition.locked_until.zip(until).map(|(old, new)| old.min(new));
            }
        }
        Ok(())
    }

    /// What backups need once they have their new editions: read from the store, and all of it found there.
    async fn proven(&self, subjects: &[Subject<'_>], editions: &[Manifest]) -> Result<Usage, PruneError> {
        let repository = &self.context.repository;
        let newest = |subject: &Subject<'_>| {
            editions.iter().find(|edition| edition.id == subject.manifest.id).unwrap_or(subject.manifest).clone()
        };
        let manifests: Vec<Manifest> = subjects.iter().map(newest).collect();
        let subjects: Vec<Subject<'_>> =
            manifests.iter().map(|manifest| Subject { manifest, is_chosen: false }).collect();
        let mut none = Fragments::new(u32::MAX, 0);
        let survey = survey(repository, &subjects, &mut none, self.limits, &*self.context.progress).await?;
        let listed = repository.packs().await?;
        match survey.fault(|pack| listed.get(&pack.id).map(|stored| stored.bytes)) {
            Some(what) => Err(PruneError::Overtaken { what }),
            None => Ok(survey.usage()),
        }
    }

    /// What speaks against the editions that are about to be written: they rest on what the backups needed when the run began.
    ///
    /// The lease keeps prunes and other compactions away for as long as it is renewed. If this machine slept, one of them may have come and
    /// gone: then something may be missing, or a backup has another edition. One that comes from here on finds the lease.
    async fn is_overtaken(
        &self,
        lease: &Mutex<LeaseGuard>,
        backups: &[Editions],
        written: &HashSet<PackId>,
    ) -> Result<Option<String>, PruneError> {
        let repository = &self.context.repository;
        let mut lease = lease.lock().await;
        if let Some(who) = repository.at_work("prune", &mut lease).await? {
            return Ok(Some(format!("{who} prunes or compacts, too")));
        }
        let state = repository.prune_state().await?;
        let taken = lease.taken();
        let is_recent =
            |moment: Option<Timestamp>| moment.is_some_and(|moment| taken.is_none_or(|taken| moment >= taken));
        if let Some((plan, _)) = state.plans.iter().find(|(_, plan)| is_recent(plan.begun) || is_recent(plan.done)) {
            return Ok(Some(format!("plan {plan} was carried out meanwhile")));
        }
        // Whoever began to delete, and sleeps, goes on by what he counted: a pack of the same bytes as one that a compaction left that
        // died is not safe from him.
        for (id, _) in state.pending().filter(|(_, plan)| plan.begun.is_some()) {
            let plan = match repository.prune_plan(id).await {
                Err(RepositoryError::Format(error)) => {
                    return Ok(Some(format!("plan {id} has become unreadable: {error}")));
                }
                plan => plan?,
            };
            let names = repository.prune_packs(&plan).await?;
            if names.unread.is_some() || names.packs.iter().any(|pack| written.contains(pack)) {
                return Ok(Some(format!(
                    "plan {id}, which was begun and has not ended, names packs that were written, or may"
                )));
            }
        }
        let stored = repository.stored_backups().await?;
        let is_same = |backup: &&Editions| {
            let now = stored.iter().find(|stored| stored.id == backup.id).map(|stored| &stored.editions);
            let before = backup.all.iter().map(|(edition, _)| *edition);
            now.is_some_and(|now| now.iter().map(|(edition, _)| *edition).eq(before))
        };
        let other = backups.iter().find(|backup| !is_same(backup));
        Ok(other.map(|backup| format!("backup {} has other editions than it had", backup.id)))
    }
}

impl Survey {
    /// The first thing that is not there as the maps say; `size` tells what is.
    fn fault(&self, size: impl Fn(&PackRef) -> Option<u64>) -> Option<String> {
        if let Some(pack) = self.torn.iter().min() {
            return Some(format!("page maps disagree on pack {pack}"));
        }
        self.packs.iter().find_map(|NeededPack { pack, .. }| match size(pack) {
            Some(bytes) if bytes == u64::from(pack.bytes) => None,
            Some(bytes) => Some(format!("pack {} has {bytes} bytes, expected {}", pack.id, pack.bytes)),
            None => Some(format!("pack {} is missing", pack.id)),
        })
    }

    fn usage(&self) -> Usage {
        let bytes = self.packs.iter().map(|pack| u64::from(pack.pack.bytes)).sum();
        let live_bytes = self.packs.iter().map(|pack| pack.needed_bytes).sum();
        Usage { packs: self.packs.len() as u64, bytes, live_bytes, dead_bytes: u64::saturating_sub(bytes, live_bytes) }
    }
}

/// Damage that was met before anything was written leaves everything as it is; a store that does not answer ends the run.
fn lost(error: RepositoryError, mut report: CompactReport) -> Result<CompactReport, PruneError> {
    if let RepositoryError::Store(error) = error {
        return Err(RepositoryError::Store(error).into());
    }
    report.skipped.push(Skip::lost(format!("nothing is compacted: {}", causes(&error))));
    Ok(report)
}
