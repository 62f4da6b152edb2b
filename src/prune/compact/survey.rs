//! Counts which bytes of which packs backups need.
//!
//! Every chunk that anybody needs is noted once, by its pack and offset. What does not fit is left to further turns, which go by the
//! first bits of packs' names, and of which each reads the maps again.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use futures::TryStreamExt;

use super::{Fragments, Limits, Name, Subject, name_of};
use crate::format::map::{
    BlockRef, Content, Extent, ExtentBlock, FileBlock, FileDirectory, FileMap, FilePiece, FileSource, Location,
    PackRef, SpaceDirectory, SpaceKey, SpaceMap,
};
use crate::model::{PackId, Phase, Progress};
use crate::repository::{Repository, RepositoryError};

/// Directories of a map that are taken apart at the same time: some 64 records each.
pub(super) const DIRECTORIES_AT_ONCE: usize = 64;

/// Who needs a chunk; of several, the first here counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum By {
    /// The chosen backup.
    Chosen,
    /// Others alone.
    Others,
    /// The chosen backup, until the extent is merged, and nobody else.
    Fragment,
}

/// A chunk that is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Need {
    pack: u32,
    offset: u32,
    by: By,
    stored_bytes: u32,
}

/// A chunk of a pack that is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Live {
    /// First byte in the pack.
    pub offset: u32,
    /// Whether the chosen backup needs it.
    pub chosen: bool,
}

/// A pack that backups need.
#[derive(Debug, Clone, Copy)]
pub(super) struct NeededPack {
    /// Its name and size.
    pub pack: PackRef,
    /// Whether it holds map blocks.
    pub is_map: bool,
    /// Bytes of it that are needed now.
    pub needed_bytes: u64,
    /// Bytes of it that are needed once extents are merged.
    pub live_bytes: u64,
    /// Chunks of it that are needed then.
    pub chunks: u64,
}

/// What backups need.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// Every pack that is needed.
    pub packs: Vec<NeededPack>,
    /// Packs to which maps give different sizes.
    pub torn: HashSet<PackId>,
    numbers: HashMap<PackId, u32>,
    /// All that is needed, if it took one turn.
    needs: Option<Vec<Need>>,
}

/// Reads the maps of `subjects`, of which the chosen one comes first, and counts. Extents of that one with more pieces than
/// `fragments` allows are noted there, and their pieces do not count for it.
pub(super) async fn survey(
    repository: &Arc<Repository>,
    subjects: &[Subject<'_>],
    fragments: &mut Fragments,
    limits: &Limits,
    progress: &dyn Progress,
) -> Result<Survey, RepositoryError> {
    let mut survey = Survey::default();
    let mut start = 0;
    while start < 1 << 32 {
        let mut turn = Turn::new(repository, &mut survey, fragments, start, limits.needs);
        progress.begin(Phase::Check, Some(subjects.len() as u64));
        for subject in subjects {
            turn.backup(subject).await?;
            progress.advance(Phase::Check, 1);
        }
        progress.end(Phase::Check);
        turn.sort();
        let (needs, range) = (turn.needs, turn.range);
        fragments.settle();
        for need in &needs {
            let pack = &mut survey.packs[need.pack as usize];
            let bytes = u64::from(need.stored_bytes);
            pack.needed_bytes += bytes;
            if need.by != By::Fragment {
                pack.live_bytes += bytes;
                pack.chunks += 1;
            }
        }
        survey.needs = (range == (0..1 << 32)).then_some(needs);
        start = range.end;
    }
    Ok(survey)
}

impl Survey {
    /// The chunks of `packs` that are needed, by ascending offset. Their number is the caller's to bound.
    pub async fn live(
        &mut self,
        repository: &Arc<Repository>,
        subjects: &[Subject<'_>],
        fragments: &mut Fragments,
        packs: &HashSet<PackId>,
    ) -> Result<HashMap<PackId, Vec<Live>>, RepositoryError> {
        let needs = match self.needs.take() {
            Some(needs) => needs,
            None => {
                let mut turn = Turn::new(repository, self, fragments, 0, usize::MAX);
                turn.only = Some(packs);
                for subject in subjects {
                    turn.backup(subject).await?;
                }
                turn.sort();
                turn.needs
            }
        };
        let mut live: HashMap<PackId, Vec<Live>> = HashMap::new();
        for need in needs.into_iter().filter(|need| need.by != By::Fragment) {
            let pack = self.packs[need.pack as usize].pack.id;
            if packs.contains(&pack) {
                live.entry(pack).or_default().push(Live { offset: need.offset, chosen: need.by == By::Chosen });
            }
        }
        Ok(live)
    }
}

struct Turn<'a> {
    repository: &'a Arc<Repository>,
    survey: &'a mut Survey,
    fragments: &'a mut Fragments,
    /// Packs that this turn counts, by the first four bytes of their names.
    range: Range<u64>,
    only: Option<&'a HashSet<PackId>>,
    needs: Vec<Need>,
    needs_max: usize,
    seen: HashSet<Name>,
    is_chosen: bool,
}

fn prefix(pack: PackId) -> u64 {
    let mut first = [0; 4];
    first.copy_from_slice(&pack.0[..4]);
    u64::from(u32::from_be_bytes(first))
}

impl<'a> Turn<'a> {
    fn new(
        repository: &'a Arc<Repository>,
        survey: &'a mut Survey,
        fragments: &'a mut Fragments,
        start: u64,
        needs_max: usize,
    ) -> Turn<'a> {
        let (range, only) = (start..1 << 32, None);
        let (needs, seen) = (Vec::new(), HashSet::new());
        Turn { repository, survey, fragments, range, only, needs, needs_max, seen, is_chosen: false }
    }

    async fn backup(&mut self, subject: &Subject<'_>) -> Result<(), RepositoryError> {
        self.is_chosen = subject.is_chosen;
        let root = self.repository.map_root(subject.manifest).await?;
        self.need(&BlockRef::try_from(&subject.manifest.map)?.at, true, self.by());
        for directories in root.spaces.chunks(DIRECTORIES_AT_ONCE) {
            self.spaces(directories.iter().map(|(_, block)| *block).collect()).await?;
        }
        for directories in root.files.chunks(DIRECTORIES_AT_ONCE) {
            self.files(directories.iter().map(|(_, block)| *block).collect()).await?;
        }
        Ok(())
    }

    async fn spaces(&mut self, directories: Vec<BlockRef>) -> Result<(), RepositoryError> {
        let mut below = Vec::new();
        let mut reads = std::pin::pin!(self.repository.read_blocks(self.new_ones(directories), |block, raw| {
            Ok((*block, SpaceDirectory::decode(raw, block.at.pack)?))
        }));
        while let Some(read) = reads.try_next().await? {
            for (block, directory) in read {
                let mut fragmented = false;
                for record in &directory.records {
                    match &record.map {
                        SpaceMap::Inline(extents) => fragmented |= self.extents(record.key, extents),
                        SpaceMap::Blocks(blocks) => below.extend(blocks.iter().map(|block| block.block)),
                    }
                }
                self.saw(&block, fragmented);
            }
        }
        let mut reads = std::pin::pin!(self.repository.read_blocks(self.new_ones(below), |block, raw| {
            Ok((*block, ExtentBlock::decode(raw, block.at.pack)?))
        }));
        while let Some(read) = reads.try_next().await? {
            for (block, ExtentBlock { key, extents, .. }) in read {
                let fragmented = self.extents(key, &extents);
                self.saw(&block, fragmented);
            }
        }
        Ok(())
    }

    async fn files(&mut self, directories: Vec<BlockRef>) -> Result<(), RepositoryError> {
        let mut below = Vec::new();
        let mut reads = std::pin::pin!(self.repository.read_blocks(self.new_ones(directories), |block, raw| {
            Ok((*block, FileDirectory::decode(raw, block.at.pack)?))
        }));
        while let Some(read) = reads.try_next().await? {
            for (block, directory) in read {
                for record in &directory.records {
                    match &record.map {
                        FileMap::Inline(pieces) => self.pieces(pieces),
                        FileMap::Blocks(blocks) => below.extend(blocks.iter().map(|block| block.block)),
                    }
                }
                self.saw(&block, false);
            }
        }
        let mut reads =
            std::pin::pin!(self.repository.read_blocks(self.new_ones(below), |block, raw| {
                Ok((*block, FileBlock::decode(raw, block.at.pack)?))
            }));
        while let Some(read) = reads.try_next().await? {
            for (block, FileBlock { pieces }) in read {
                self.pieces(&pieces);
                self.saw(&block, false);
            }
        }
        Ok(())
    }

    /// Those of `blocks` that were not seen yet, each once.
    fn new_ones(&mut self, mut blocks: Vec<BlockRef>) -> Vec<BlockRef> {
        blocks.retain(|block| self.seen.insert(name_of(block)));
        blocks
    }

    /// Counts a block that was read. One with extents that are to be merged for the chosen backup is looked at again for others,
    /// which go on needing all of its pieces.
    fn saw(&mut self, block: &BlockRef, fragmented: bool) {
        self.need(&block.at, true, self.by());
        if fragmented {
            self.seen.remove(&name_of(block));
        }
    }

    /// Notes what extents need; true if some are to be merged.
    fn extents(&mut self, key: SpaceKey, extents: &[Extent]) -> bool {
        let mut fragmented = false;
        for extent in extents {
            let merges = self.is_chosen && self.fragments.note(key, extent);
            fragmented |= merges;
            let by = match (merges, self.is_chosen) {
                (true, _) => By::Fragment,
                (false, true) => By::Chosen,
                (false, false) => By::Others,
            };
            for piece in &extent.pieces {
                if let Content::Chunk(chunk) = &piece.content {
                    self.need(&chunk.at, false, by);
                }
            }
        }
        fragmented
    }

    fn pieces(&mut self, pieces: &[FilePiece]) {
        for piece in pieces {
            if let FileSource::Chunk { at, .. } = &piece.source {
                self.need(at, false, self.by());
            }
        }
    }

    fn by(&self) -> By {
        if self.is_chosen { By::Chosen } else { By::Others }
    }

    fn need(&mut self, at: &Location, is_map: bool, by: By) {
        let next = self.survey.packs.len() as u32;
        let number = *self.survey.numbers.entry(at.pack.id).or_insert(next);
        if number == next {
            self.survey.packs.push(NeededPack { pack: at.pack, is_map, needed_bytes: 0, live_bytes: 0, chunks: 0 });
        }
        let known = self.survey.packs[number as usize];
        if known.pack != at.pack || known.is_map != is_map {
            self.survey.torn.insert(at.pack.id);
        }
        let is_wanted = self.only.is_none_or(|only| only.contains(&at.pack.id));
        if !is_wanted || !self.range.contains(&prefix(at.pack.id)) {
            return;
        }
        let (offset, stored_bytes) = (at.offset, at.stored_bytes);
        self.needs.push(Need { pack: number, offset, by, stored_bytes });
        if self.needs.len() >= self.needs_max {
            self.fit();
        }
    }

    fn sort(&mut self) {
        self.needs.sort_unstable();
        self.needs.dedup_by_key(|need| (need.pack, need.offset));
    }

    /// Forgets what is noted twice, and lets go of the upper half of the range until there is room.
    fn fit(&mut self) {
        self.sort();
        while self.needs.len() > self.needs_max / 2 && self.range.end - self.range.start > 1 {
            self.range.end = self.range.start + (self.range.end - self.range.start) / 2;
            let (packs, range) = (&self.survey.packs, &self.range);
            self.needs.retain(|need| range.contains(&prefix(packs[need.pack as usize].pack.id)));
        }
    }
}
