//! Checks backups: that all they need is there, and, when asked, that every byte of it is right.
//!
//! 1. Each map block of the chosen backups is read once, and every page and byte of every file must have one source.
//! 2. Each pack that a map speaks of must be there with the size that it was stored with.
//! 3. With [`ReadData`], packs are read, hashed and taken apart, every chunk is decompressed and must bear its name, and every
//!    reference of a map must be in its pack's directory. Every page that a backup needs must be the page that its map calls
//!    it: page number, tablespace and checksum right, its LSN not beyond the backup's last, and page 0 must say what the map
//!    says of its tablespace. Where it cannot be known what is needed, because a manifest or a map cannot be read, all packs that are
//!    there are read, so that one repair finds what would come to light when the map is back.
//! 4. Of archived binary log each stream must be a row of segments that link up, with all their packs; with [`ReadData`] the events in
//!    them must be what their documents say (`verify::binlogs`).
//! 5. When something is wrong, the maps are walked once more, to name the backups and files that it hits.
//!
//! Memory: 48 MiB of packs, 36 MiB of references, 250 bytes for each map block and 150 for each pack, which is 15 MiB for
//! a terabyte.

mod binlogs;
mod blame;
mod error;
mod locked;
mod packs;
mod pages;
mod tour;
mod windows;

#[cfg(test)]
#[path = "../restore/synthetic.rs"]
#[expect(clippy::duplicate_mod, reason = "neither room may use the other, and both test on the same made-up servers")]
mod synthetic;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

pub use binlogs::BinlogTally;
use blame::{Blame, damage_of};
pub use error::VerifyError;
pub use locked::{LockedReport, check_locked};
use packs::{Fingerprint, Gather, References, fingerprint, prefix, read_packs};
use pages::{PageFault, Place};
use tour::{ChunkRef, FILES_KEPT_MAX, Fault, Mark, Tour, Visitor};

use crate::format::Manifest;
use crate::format::map::PackRef;
use crate::model::{BackupId, PackId, Phase, Progress};
use crate::repository::{Findings, KnownDamage, ObjectKey, Repository, StoredPack};

/// Faults of pages that are kept; a repository with more is beyond a list.
const PAGE_FAULTS_MAX: usize = 10_000;

/// Which backups are checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// All, and what none of them needs is counted.
    All,
    /// These.
    These(BTreeSet<BackupId>),
}

/// How packs are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadData {
    /// Share of the packs that is read, 1 to 100.
    pub percent: u8,
    /// Chooses which, where it is not all of them.
    pub seed: u64,
    /// Instead, one of so many parts, counted from 1. Together the parts are all packs, and a pack is always in the same.
    pub part: Option<(u32, u32)>,
}

/// One stored object that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Damage {
    /// Key of the object in the repository.
    pub object: String,
    /// What is wrong with it.
    pub problem: String,
    /// Backups that cannot be restored without it, oldest first.
    pub backups: Vec<BackupId>,
    /// Files that need it, the first five.
    pub files: Vec<String>,
}

/// What damage leaves of a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wreck {
    /// The backup.
    pub backup: BackupId,
    /// True when its manifest, or what tells which files it has, cannot be read.
    pub unreadable: bool,
    /// True when so many files of so many backups are hit that they are not told here.
    pub crowded: bool,
    /// Its files that cannot be restored, by path in the datadir, ascending; all others can, unless it is unreadable or crowded.
    pub files: Vec<Arc<str>>,
}

/// Objects that no backup needs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// How many.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckReport {
    /// Backups that were checked.
    pub backups: Vec<BackupId>,
    /// Those that cannot be restored.
    pub damaged_backups: Vec<BackupId>,
    /// What is wrong, by object.
    pub damages: Vec<Damage>,
    /// Packs that the backups need.
    pub packs: Tally,
    /// Packs that were read.
    pub read: Tally,
    /// Pages of InnoDB files in them that a backup needs, each of which was checked; pages of zeros are not stored.
    pub pages: u64,
    /// Chunks in packs that were read that the key does not open. That their bytes are those that were stored is proven by the pack's
    /// hash; what is in them is not.
    pub unopened: Tally,
    /// Packs that no backup needs: those of runs that died or still go on. Nothing unless all backups were checked and
    /// their maps could be read.
    pub unreferenced: Option<Tally>,
    /// What is left of the backups that cannot be restored, oldest first.
    pub wrecks: Vec<Wreck>,
    /// What is to be kept of packs for later backups.
    pub findings: Findings,
    /// What was looked at of archived binary log; nothing unless all backups were checked.
    pub binlogs: BinlogTally,
}

impl CheckReport {
    /// True when nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.damages.is_empty()
    }
}

/// Checks backups.
///
/// # Errors
/// When the store does not answer, or a chosen backup does not exist. Damage is no error: it is in the report.
pub async fn check(
    repository: &Repository,
    selection: &Selection,
    read_data: Option<ReadData>,
    progress: &dyn Progress,
) -> Result<CheckReport, VerifyError> {
    let mut check = Check::begin(repository, selection).await?;
    if read_data.is_none() {
        progress.begin(Phase::Check, Some(check.manifests.len() as u64));
    }
    check.look(read_data.is_none().then_some(progress)).await?;
    if let Some(read_data) = read_data {
        check.read(read_data, *selection == Selection::All, References::from, progress).await?;
    }
    progress.end(Phase::Check);
    check.blame().await?;
    let backups = check.manifests.clone();
    let mut report = check.report(*selection == Selection::All, read_data);
    if *selection == Selection::All {
        let (tally, damages) = binlogs::check(repository, &backups, read_data, progress).await?;
        report.binlogs = tally;
        report.damages.extend(damages);
    }
    Ok(report)
}

struct Check<'a> {
    repository: &'a Repository,
    manifests: Vec<Manifest>,
    /// Backups without a manifest that can be read.
    unreadable: Vec<Damage>,
    needed: HashMap<PackId, PackRef>,
    listed: HashMap<PackId, StoredPack>,
    faults: Vec<Fault>,
    fault_backups: BTreeMap<usize, Vec<BackupId>>,
    /// What is wrong with packs.
    bad: BTreeMap<PackId, String>,
    /// What is wrong with packs of which some chunks are as they were.
    changed: BTreeMap<PackId, String>,
    /// References that are in no directory, or to chunks that are not as they were.
    unresolved: HashSet<Fingerprint>,
    /// Pages that are not what maps say, by the chunk that holds them.
    wrong: HashMap<Fingerprint, Vec<(ChunkRef, PageFault)>>,
    wrong_kept: usize,
    blamed: Vec<Damage>,
    wrecks: Vec<Wreck>,
    /// Packs that an earlier check found damaged, and that were read and are right.
    mended: BTreeSet<PackId>,
    known: KnownDamage,
    read: Tally,
    pages: u64,
    unopened: Tally,
}

/// Remembers every pack that is needed.
#[derive(Default)]
struct Needs {
    packs: HashMap<PackId, PackRef>,
    /// Packs to which maps give different sizes.
    torn: BTreeSet<PackId>,
}

impl Visitor for Needs {
    fn chunk(&mut self, _: &str, chunk: &ChunkRef, _: Option<&Place>, _: &mut Vec<Mark>) {
        let known = self.packs.entry(chunk.pack.id).or_insert(chunk.pack);
        if *known != chunk.pack {
            self.torn.insert(chunk.pack.id);
        }
    }
}

impl<'a> Check<'a> {
    async fn begin(repository: &'a Repository, selection: &Selection) -> Result<Check<'a>, VerifyError> {
        let (mut manifests, mut unreadable) = (Vec::new(), Vec::new());
        let all = match selection {
            Selection::All => repository.editions().await?,
            Selection::These(ids) => {
                let mut chosen = Vec::new();
                for id in ids {
                    chosen.push(repository.editions_of(id).await?);
                }
                chosen
            }
        };
        for editions in all {
            let lost = editions.newest().is_none();
            // Editions that another has replaced are of no concern: whatever is wrong with them, the backup restores.
            for (edition, manifest) in editions.all.into_iter().rev() {
                match manifest {
                    Ok(manifest) => {
                        manifests.push(manifest);
                        break;
                    }
                    Err(error) => unreadable.push(Damage {
                        problem: error::damage(error)?,
                        object: ObjectKey::edition(&editions.id, edition).text(),
                        backups: lost.then(|| editions.id.clone()).into_iter().collect(),
                        files: Vec::new(),
                    }),
                }
            }
        }
        let known = repository.known_damage().await?;
        // The first backup to need a page is then the one that may hold the oldest.
        manifests.sort_by(|one, other| (one.lsn.last, &one.id).cmp(&(other.lsn.last, &other.id)));
        Ok(Check {
            repository,
            manifests,
            unreadable,
            needed: HashMap::new(),
            listed: HashMap::new(),
            faults: Vec::new(),
            fault_backups: BTreeMap::new(),
            bad: BTreeMap::new(),
            changed: BTreeMap::new(),
            unresolved: HashSet::new(),
            wrong: HashMap::new(),
            wrong_kept: 0,
            blamed: Vec::new(),
            wrecks: Vec::new(),
            mended: BTreeSet::new(),
            known,
            read: Tally::default(),
            pages: 0,
            unopened: Tally::default(),
        })
    }

    /// Reads the maps, and compares the packs that they need with those that are there.
    async fn look(&mut self, progress: Option<&dyn Progress>) -> Result<(), VerifyError> {
        let mut tour = Tour::new(self.repository, Needs::default());
        for manifest in &self.manifests {
            for mark in tour.backup(manifest).await?.marks {
                if let Mark::Fault(fault) = mark {
                    self.fault_backups.entry(fault).or_default().push(manifest.id.clone());
                }
            }
            if let Some(progress) = progress {
                progress.advance(Phase::Check, 1);
            }
        }
        self.faults = tour.faults;
        self.needed = tour.visitor.packs;
        self.listed = self.repository.packs().await?;
        for id in tour.visitor.torn {
            self.bad.insert(id, "page maps disagree on its size".to_owned());
        }
        for pack in self.needed.values() {
            let expected = u64::from(pack.bytes);
            match self.listed.get(&pack.id).map(|pack| pack.bytes) {
                None => drop(self.bad.insert(pack.id, "it is missing".to_owned())),
                Some(found) if found != expected => {
                    self.bad.insert(pack.id, format!("it has {found} bytes, expected {expected}"));
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// Reads packs, in turns whose references fit in memory.
    async fn read(
        &mut self,
        how: ReadData,
        all: bool,
        references: impl Fn(u64) -> References,
        progress: &dyn Progress,
    ) -> Result<(), VerifyError> {
        let chosen: BTreeMap<PackId, PackRef> = self
            .needed
            .iter()
            .filter(|(id, _)| !self.bad.contains_key(id) && is_sampled(**id, how))
            .map(|(id, pack)| (*id, *pack))
            .collect();
        let strays = if all { self.strays(how) } else { Vec::new() };
        let bytes = chosen.values().chain(&strays).map(|pack| u64::from(pack.bytes)).sum();
        progress.begin(Phase::Check, Some(bytes));
        let mut start = 0;
        while start < 1 << 32 {
            let is_chosen = |id: PackId| chosen.contains_key(&id);
            let mut tour = Tour::new(self.repository, Gather { references: references(start), chosen: &is_chosen });
            for manifest in &self.manifests {
                tour.backup(manifest).await?;
            }
            let references = tour.visitor.references;
            let range = references.range();
            let references = Arc::new(Mutex::new(references));
            let turn = chosen.values().filter(|pack| range.contains(&u64::from(prefix(pack.id)))).copied().collect();
            let mut damaged = Vec::new();
            read_packs(self.repository, turn, &references, progress, |result| {
                self.read.objects += 1;
                self.read.bytes += result.bytes;
                match result.found {
                    Ok(found) => {
                        self.pages += found.pages;
                        if found.changed.is_none() && self.known.packs.contains(&result.pack) {
                            self.mended.insert(result.pack);
                        }
                        self.unopened.objects += found.unopened.objects;
                        self.unopened.bytes += found.unopened.bytes;
                        self.changed.extend(found.changed.map(|problem| (result.pack, problem)));
                        found.faults.into_iter().for_each(|(chunk, fault)| self.keep(chunk, fault));
                    }
                    Err(problem) => {
                        damaged.push(result.pack);
                        self.bad.insert(result.pack, problem);
                    }
                }
            })
            .await?;
            let mut references = references.lock().unwrap_or_else(PoisonError::into_inner);
            references.forget(&damaged);
            self.unresolved.extend(references.rest());
            start = range.end;
        }
        self.read_strays(strays, progress).await
    }

    /// Packs that a backup may need whose manifest or map cannot be read; those of a size that no pack has count as damaged at once.
    fn strays(&mut self, how: ReadData) -> Vec<PackRef> {
        let all_is_known = self.faults.is_empty() && self.unreadable.iter().all(|damage| damage.backups.is_empty());
        if all_is_known {
            return Vec::new();
        }
        let mut strays = Vec::new();
        for (id, pack) in self.listed.iter().filter(|(id, _)| !self.needed.contains_key(id) && is_sampled(**id, how)) {
            let stray = PackRef { id: *id, bytes: u32::try_from(pack.bytes).unwrap_or(u32::MAX) };
            if stray.has_possible_size() {
                strays.push(stray);
            } else {
                self.bad.insert(*id, format!("it has {} bytes, which no pack has", pack.bytes));
            }
        }
        strays.sort_unstable();
        strays
    }

    async fn read_strays(&mut self, strays: Vec<PackRef>, progress: &dyn Progress) -> Result<(), VerifyError> {
        let nothing = Arc::new(Mutex::new(References::from(0)));
        let mut damaged = Vec::new();
        read_packs(self.repository, strays, &nothing, progress, |result| {
            self.read.objects += 1;
            self.read.bytes += result.bytes;
            let problem = match result.found {
                Ok(found) => found.changed,
                Err(problem) => Some(problem),
            };
            match problem {
                Some(problem) => damaged.push((result.pack, problem)),
                None if self.known.packs.contains(&result.pack) => drop(self.mended.insert(result.pack)),
                None => {}
            }
        })
        .await?;
        for (pack, problem) in damaged {
            // A prune may have taken it meanwhile.
            if self.repository.has_pack(pack).await? {
                self.bad.insert(pack, problem);
            }
        }
        Ok(())
    }

    fn keep(&mut self, chunk: ChunkRef, fault: PageFault) {
        if self.wrong_kept < PAGE_FAULTS_MAX {
            self.wrong_kept += 1;
            self.wrong.entry(fingerprint(&chunk)).or_default().push((chunk, fault));
        }
    }

    /// Finds the backups and files that what is wrong hits.
    async fn blame(&mut self) -> Result<(), VerifyError> {
        let packs_are_right = self.bad.is_empty() && self.changed.is_empty();
        if packs_are_right && self.faults.is_empty() && self.unresolved.is_empty() && self.wrong.is_empty() {
            return Ok(());
        }
        let mut blame = Blame::new(&self.unresolved, &self.wrong);
        for (pack, problem) in std::mem::take(&mut self.bad) {
            blame.add_pack(pack, problem);
        }
        for (pack, problem) in std::mem::take(&mut self.changed) {
            blame.add_changed_pack(pack, problem);
        }
        let mut tour = Tour::new(self.repository, blame);
        let mut told = 0;
        for manifest in &self.manifests {
            let visit = tour.backup(manifest).await?;
            for mark in &visit.marks {
                if let Mark::Visitor(hit) = mark {
                    tour.visitor.charge(*hit, manifest);
                }
            }
            let is_hit = |mark: &Mark| match mark {
                Mark::Fault(_) => true,
                Mark::Visitor(hit) => tour.visitor.is_hit(*hit, manifest),
            };
            if visit.marks.iter().any(is_hit) {
                let hit = visit.files.into_iter().filter(|(_, marks)| marks.iter().any(is_hit));
                let mut files: Vec<_> = hit.map(|(file, _)| file).collect();
                files.sort();
                told += files.len();
                let crowded = visit.crowded || told > FILES_KEPT_MAX;
                if crowded {
                    files.clear();
                }
                self.wrecks.push(Wreck { backup: manifest.id.clone(), unreadable: visit.broken, crowded, files });
            }
        }
        self.blamed = tour.visitor.damages;
        Ok(())
    }

    fn report(mut self, all: bool, how: Option<ReadData>) -> CheckReport {
        let complete = how.is_some_and(|how| how.percent >= 100) && all && self.unreadable.is_empty();
        let maps_are_whole = self.unreadable.is_empty() && self.faults.is_empty();
        let unneeded = self.listed.iter().filter(|(id, _)| !self.needed.contains_key(id));
        let unreferenced = tally(unneeded.map(|(_, pack)| pack.bytes));
        let named: HashSet<String> = self.blamed.iter().map(|damage| damage.object.clone()).collect();
        let faults = self.faults.into_iter().enumerate().map(|(place, fault)| Damage {
            backups: self.fault_backups.get(&place).cloned().unwrap_or_default(),
            ..damage_of(fault.pack, fault.problem)
        });
        // A pack that is missing or damaged says more than the map block in it that could not be read.
        let faults = faults.filter(|damage| !named.contains(&damage.object));
        let mut damages: Vec<_> = self.unreadable.iter().cloned().chain(faults).chain(self.blamed).collect();
        damages.iter_mut().for_each(|damage| damage.backups.sort());
        let damaged_packs = damages.iter().filter_map(|damage| match ObjectKey::parse(&damage.object) {
            Some(ObjectKey::Pack(pack)) => Some(pack),
            _ => None,
        });
        let findings = Findings { damaged: damaged_packs.collect(), whole: self.mended, complete };
        if all {
            // Whatever they named may be damaged, and later backups may rest on it.
            let unread = std::mem::take(&mut self.known.unread).into_iter();
            damages.extend(unread.map(|(id, problem)| Damage {
                object: ObjectKey::Damage(id).text(),
                problem,
                backups: Vec::new(),
                files: Vec::new(),
            }));
        }
        let unread = self.unreadable.iter().flat_map(|damage| &damage.backups);
        self.wrecks.extend(unread.map(|id| Wreck {
            backup: id.clone(),
            unreadable: true,
            crowded: false,
            files: Vec::new(),
        }));
        self.wrecks.sort_by(|one, other| one.backup.cmp(&other.backup));
        let damaged: BTreeSet<_> = damages.iter().flat_map(|damage| &damage.backups).cloned().collect();
        let readable = self.manifests.into_iter().map(|manifest| manifest.id);
        let mut backups: Vec<_> =
            readable.chain(self.unreadable.into_iter().flat_map(|damage| damage.backups)).collect();
        backups.sort();
        backups.dedup();
        CheckReport {
            backups,
            damaged_backups: damaged.into_iter().collect(),
            damages,
            packs: tally(self.needed.values().map(|pack| u64::from(pack.bytes))),
            read: self.read,
            pages: self.pages,
            unopened: self.unopened,
            unreferenced: (all && maps_are_whole).then_some(unreferenced),
            wrecks: self.wrecks,
            findings,
            binlogs: BinlogTally::default(),
        }
    }
}

fn tally(sizes: impl Iterator<Item = u64>) -> Tally {
    sizes.fold(Tally::default(), |sum, bytes| Tally { objects: sum.objects + 1, bytes: sum.bytes + bytes })
}

/// Whether a pack is in the sample: the same seed chooses the same packs.
fn is_sampled(pack: PackId, how: ReadData) -> bool {
    let seed = if how.part.is_some() { 0 } else { how.seed };
    let hash = blake3::Hasher::new().update(&seed.to_le_bytes()).update(&pack.0).finalize();
    let mut first = [0; 4];
    first.copy_from_slice(&hash.as_bytes()[..4]);
    let place = u64::from(u32::from_le_bytes(first));
    match how.part {
        Some((part, parts)) => (place * u64::from(parts)) >> 32 == u64::from(part.saturating_sub(1)),
        None => place * 100 < u64::from(how.percent.min(100)) << 32,
    }
}
