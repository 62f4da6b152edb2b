//! Names the backups and files that damage hits.

use std::collections::{HashMap, HashSet};

use super::Damage;
use super::packs::{Fingerprint, fingerprint};
use super::pages::{Header, Hits, PageFault, Place};
use super::tour::{ChunkRef, Mark, Visitor};
use crate::format::Manifest;
use crate::model::PackId;
use crate::repository::ObjectKey;

/// Files named for each damaged object; more make no one wiser.
const FILES_NAMED: usize = 5;

/// Names the files of damaged packs, and marks the backups that need them.
pub(super) struct Blame<'a> {
    unresolved: &'a HashSet<Fingerprint>,
    wrong: &'a HashMap<Fingerprint, Vec<(ChunkRef, PageFault)>>,
    /// What the marks stand for.
    hits: Vec<Hit>,
    /// Marks of packs that are damaged as a whole.
    packs: HashMap<PackId, usize>,
    /// Marks of packs that do not hold what maps say, or not all of it any more.
    strays: HashMap<PackId, usize>,
    /// Marks of pages that are wrong, by chunk and place in the list.
    pages: HashMap<(Fingerprint, usize), usize>,
    /// Where each pack with such pages is in the list of damages.
    of_pages: HashMap<PackId, usize>,
    /// What was found.
    pub damages: Vec<Damage>,
}

/// What is wrong, and whom it hits of those that need it.
#[derive(Debug, Clone, Copy)]
struct Hit {
    damage: usize,
    hits: Hits,
}

impl<'a> Blame<'a> {
    /// Knows of no damaged pack yet.
    pub fn new(
        unresolved: &'a HashSet<Fingerprint>,
        wrong: &'a HashMap<Fingerprint, Vec<(ChunkRef, PageFault)>>,
    ) -> Blame<'a> {
        let (hits, packs, strays, damages) = (Vec::new(), HashMap::new(), HashMap::new(), Vec::new());
        Blame { unresolved, wrong, hits, packs, strays, pages: HashMap::new(), of_pages: HashMap::new(), damages }
    }

    /// Adds a pack that is damaged as a whole.
    pub fn add_pack(&mut self, pack: PackId, problem: String) {
        let mark = self.add(damage_of(pack, problem));
        self.packs.insert(pack, mark);
    }

    /// Adds a pack of which some chunks are as they were: it hits those who need others.
    pub fn add_changed_pack(&mut self, pack: PackId, problem: String) {
        let mark = self.add(damage_of(pack, problem));
        self.strays.insert(pack, mark);
    }

    fn add(&mut self, damage: Damage) -> usize {
        self.damages.push(damage);
        self.hits.push(Hit { damage: self.damages.len() - 1, hits: Hits::All });
        self.hits.len() - 1
    }

    /// The mark of a fault; all of a pack's are one damage.
    fn mark_of(&mut self, name: Fingerprint, number: usize, chunk: &ChunkRef, fault: &PageFault) -> usize {
        if let Some(mark) = self.pages.get(&(name, number)) {
            return *mark;
        }
        let pack = chunk.pack.id;
        let damage = match self.of_pages.get(&pack) {
            Some(damage) => *damage,
            None => {
                let problem = format!("chunk {} at byte {}: {}", chunk.id, chunk.offset, fault.problem);
                self.damages.push(damage_of(pack, problem));
                self.damages.len() - 1
            }
        };
        self.of_pages.insert(pack, damage);
        self.hits.push(Hit { damage, hits: fault.hits });
        self.pages.insert((name, number), self.hits.len() - 1);
        self.hits.len() - 1
    }

    fn name_file(&mut self, mark: usize, file: &str) {
        let files = &mut self.damages[self.hits[mark].damage].files;
        if files.len() < FILES_NAMED && !files.iter().any(|known| known == file) {
            files.push(file.to_owned());
        }
    }

    /// True when what the mark stands for is wrong for a backup that needs it.
    pub fn is_hit(&self, mark: usize, manifest: &Manifest) -> bool {
        match self.hits[mark].hits {
            Hits::All => true,
            Hits::EndBefore(lsn) => manifest.lsn.last < lsn,
            Hits::Shorter(_, lsn) => lsn <= manifest.lsn.start,
        }
    }

    /// Names a backup that needs what the mark stands for.
    pub fn charge(&mut self, mark: usize, manifest: &Manifest) {
        let is_hit = self.is_hit(mark, manifest);
        let backups = &mut self.damages[self.hits[mark].damage].backups;
        if is_hit && !backups.contains(&manifest.id) {
            backups.push(manifest.id.clone());
        }
    }
}

impl Visitor for Blame<'_> {
    fn chunk(&mut self, file: &str, chunk: &ChunkRef, place: Option<&Place>, marks: &mut Vec<Mark>) {
        let pack = chunk.pack.id;
        if let Some(mark) = self.packs.get(&pack).copied() {
            self.name_file(mark, file);
            marks.push(Mark::Visitor(mark));
            return;
        }
        let name = fingerprint(chunk);
        if self.unresolved.contains(&name) {
            // Others may need what else is in the pack, which is as it was.
            let mark = match self.strays.get(&pack) {
                Some(mark) => *mark,
                None => {
                    let problem = format!("it holds no chunk {} at byte {}", chunk.id, chunk.offset);
                    self.add(damage_of(pack, problem))
                }
            };
            self.strays.insert(pack, mark);
            self.name_file(mark, file);
            marks.push(Mark::Visitor(mark));
        }
        let wrong = self.wrong;
        for (number, (chunk, fault)) in wrong.get(&name).into_iter().flatten().enumerate() {
            if !matches!(fault.hits, Hits::Shorter(..)) && place.is_some_and(|place| fault.is_at(place)) {
                let mark = self.mark_of(name, number, chunk, fault);
                self.name_file(mark, file);
                marks.push(Mark::Visitor(mark));
            }
        }
    }

    fn header(&mut self, file: &str, chunk: &ChunkRef, header: &Header, marks: &mut Vec<Mark>) {
        let (name, wrong) = (fingerprint(chunk), self.wrong);
        for (number, (chunk, fault)) in wrong.get(&name).into_iter().flatten().enumerate() {
            if fault.contradicts(header) {
                let mark = self.mark_of(name, number, chunk, fault);
                self.name_file(mark, file);
                marks.push(Mark::Visitor(mark));
            }
        }
    }
}

/// Damage of a pack, of which it is not known yet whom it hits.
pub(super) fn damage_of(pack: PackId, problem: String) -> Damage {
    Damage { object: ObjectKey::Pack(pack).text(), problem, backups: Vec::new(), files: Vec::new() }
}
