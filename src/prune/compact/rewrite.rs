//! Rewrites page maps: each block that speaks of what has moved once, however many backups share it; all others stay as they are.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures::TryStreamExt;

use super::copy::Moves;
use super::merge::{Fragments, Merged, Merges};
use super::packs::{DataPacks, Uploads};
use super::survey::DIRECTORIES_AT_ONCE;
use super::{Name, Subject, name_of};
use crate::format::map::{
    BlockRef, Content, Extent, ExtentBlock, FileBlock, FileDirectory, FileMap, FilePiece, FileSource, Location,
    MapFiller, MapRoot, PageChunk, Piece, SpaceDirectory, SpaceKey, SpaceMap,
};
use crate::format::pack::PackKind;
use crate::format::{FormatError, Manifest, StoredBlock};
use crate::model::{PackId, PageMask};
use crate::repository::{Repository, RepositoryError};

/// What moves.
#[derive(Clone, Copy)]
pub(super) enum Order<'a> {
    /// What would move: chunks of these data packs, and these extents.
    Planned(&'a HashSet<PackId>, &'a Fragments),
    /// What has moved.
    Moved(&'a Moves, &'a Merges, &'a DataPacks),
}

impl Order<'_> {
    /// The new place of a chunk, if it has one. While that is not known, its old one.
    fn find(&self, at: &Location) -> Option<Location> {
        match self {
            Order::Planned(packs, _) => packs.contains(&at.pack.id).then_some(*at),
            Order::Moved(moves, _, data) => data.name(moves.find(&at.pack.id, at.offset)?, at.encoding),
        }
    }

    /// The new pieces of an extent that is merged.
    fn merged(&self, key: SpaceKey, extent: &Extent) -> Option<Vec<Piece>> {
        match self {
            Order::Planned(_, fragments) => fragments.holds(key, extent).then(|| extent.pieces.clone()),
            Order::Moved(_, merges, data) => {
                let Merged { pages, id, encoding, placed } = *merges.get(&(key, extent.no.0))?;
                let at = data.name(placed, encoding)?;
                let zeros = extent.covered().without(pages);
                let mut pieces = vec![Piece { mask: pages, content: Content::Chunk(PageChunk { id, pages, at }) }];
                if !zeros.is_empty() {
                    pieces.push(Piece { mask: zeros, content: Content::Zero });
                }
                pieces.sort_by_key(|piece| piece.mask.0.trailing_zeros());
                Some(pieces)
            }
        }
    }
}

/// What becomes of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It stays as it is, where it is.
    Stays,
    /// Another takes its place: the one of this number.
    Goes(u32),
}

/// How the rewriting of something went.
#[derive(Debug, Clone, Copy, Default)]
struct Change {
    /// Whether it speaks of anything that moves.
    touched: bool,
    /// Whether it holds extents that are merged, which is so for the chosen backup alone.
    merged: bool,
    /// Stored bytes that it needs more, or fewer.
    bytes: i64,
}

impl Change {
    fn add(&mut self, other: Change) {
        self.touched |= other.touched;
        self.merged |= other.merged;
        self.bytes += other.bytes;
    }
}

/// A block in the place of another.
#[derive(Debug, Clone, Copy)]
struct Rewritten {
    /// As [`MapFiller::add`] gave it.
    block: BlockRef,
    change: Change,
}

/// Rewrites maps, or looks at what would be rewritten.
///
/// Memory: some 30 bytes for each map block, 110 for each that is rewritten.
pub(super) struct Rewriter<'a> {
    repository: &'a Arc<Repository>,
    order: Order<'a>,
    /// Map packs whose blocks move.
    map_packs: &'a HashSet<PackId>,
    /// Nothing while it only looks.
    output: Option<(MapFiller, &'a mut Uploads)>,
    fates: HashMap<Name, Fate>,
    /// Of blocks that are another's with the chosen backup.
    own_fates: HashMap<Name, Fate>,
    rewritten: Vec<Rewritten>,
    /// Bytes of blocks that stay, by their packs.
    pub staying: HashMap<PackId, u64>,
    is_chosen: bool,
}

impl<'a> Rewriter<'a> {
    /// Looks at what would be rewritten.
    pub fn look(repository: &'a Arc<Repository>, order: Order<'a>, map_packs: &'a HashSet<PackId>) -> Rewriter<'a> {
        Rewriter {
            repository,
            order,
            map_packs,
            output: None,
            fates: HashMap::new(),
            own_fates: HashMap::new(),
            rewritten: Vec::new(),
            staying: HashMap::new(),
            is_chosen: false,
        }
    }

    /// Writes new blocks into packs that go to `uploads`.
    ///
    /// # Errors
    /// When the key for them is not known.
    pub fn write(
        repository: &'a Arc<Repository>,
        order: Order<'a>,
        map_packs: &'a HashSet<PackId>,
        uploads: &'a mut Uploads,
    ) -> Result<Rewriter<'a>, FormatError> {
        let pack = repository.keyring().new_pack(PackKind::Map)?;
        let output = Some((MapFiller::new(repository.namer().clone(), pack), uploads));
        Ok(Rewriter { output, ..Rewriter::look(repository, order, map_packs) })
    }

    /// Rewrites the map of a backup; nothing if it stays as it is. The chosen backup comes first.
    pub async fn backup(&mut self, subject: &Subject<'_>) -> Result<Option<MapChange>, RepositoryError> {
        self.is_chosen = subject.is_chosen;
        let block = BlockRef::try_from(&subject.manifest.map)?;
        let MapRoot { mut totals, mut spaces, mut files } = self.repository.map_root(subject.manifest).await?;
        for directories in spaces.chunks(DIRECTORIES_AT_ONCE) {
            self.spaces(directories.iter().map(|(_, block)| *block).collect()).await?;
        }
        for directories in files.chunks(DIRECTORIES_AT_ONCE) {
            self.files(directories.iter().map(|(_, block)| *block).collect()).await?;
        }
        let mut change = Change { touched: self.map_packs.contains(&block.at.pack.id), ..Change::default() };
        for directory in spaces.iter_mut().map(|(_, block)| block).chain(files.iter_mut().map(|(_, block)| block)) {
            change.add(self.follow(directory));
        }
        if !change.touched {
            self.stays(&block);
            return Ok(None);
        }
        totals.stored_bytes = totals.stored_bytes.saturating_add_signed(change.bytes);
        self.make_room().await?;
        for directory in spaces.iter_mut().map(|(_, block)| block).chain(files.iter_mut().map(|(_, block)| block)) {
            *directory = self.locate(*directory);
        }
        let root = self.add(&block, || MapRoot { totals, spaces, files }.encode())?;
        Ok(Some(MapChange { root, stored_bytes: totals.stored_bytes }))
    }

    /// Closes the last pack. From then on the changed manifests can be asked for.
    pub async fn finish(&mut self) -> Result<(), RepositoryError> {
        let keyring = self.repository.keyring();
        if let Some((filler, uploads)) = &mut self.output
            && let Some(last) =
                filler.close(|| keyring.new_pack(PackKind::Map), |filled| uploads.finish_pack(filled, PackKind::Map))?
        {
            uploads.put(last).await?;
        }
        Ok(())
    }

    /// The edition of `manifest` that leads to a new map.
    pub fn edition(&self, manifest: &Manifest, edition: u32, change: &MapChange) -> Manifest {
        let map = StoredBlock::from(self.locate(change.root));
        let mut next = Manifest { edition, map, ..manifest.clone() };
        next.sizes.stored_bytes = change.stored_bytes;
        next
    }

    async fn spaces(&mut self, directories: Vec<BlockRef>) -> Result<(), RepositoryError> {
        let mut read: Vec<(BlockRef, SpaceDirectory)> = Vec::new();
        let mut reads = std::pin::pin!(self.repository.read_blocks(self.new_ones(directories), |block, raw| {
            Ok((*block, SpaceDirectory::decode(raw, block.at.pack)?))
        }));
        while let Some(some) = reads.try_next().await? {
            read.extend(some);
        }
        let below = read.iter().flat_map(|(_, directory)| &directory.records).flat_map(|record| match &record.map {
            SpaceMap::Inline(_) => &[],
            SpaceMap::Blocks(blocks) => blocks.as_slice(),
        });
        let below: Vec<BlockRef> = below.map(|block| block.block).collect();
        let mut reads = std::pin::pin!(self.repository.read_blocks(self.new_ones(below), |block, raw| {
            Ok((*block, ExtentBlock::decode(raw, block.at.pack)?))
        }));
        while let Some(some) = reads.try_next().await? {
            for (block, mut decoded) in some {
                let change = self.extents(decoded.key, &mut decoded.extents)?;
                self.settle(&block, change, || decoded.encode()).await?;
            }
        }
        for (block, mut directory) in read {
            let mut change = Change::default();
            for record in &mut directory.records {
                match &mut record.map {
                    SpaceMap::Inline(extents) => change.add(self.extents(record.key, extents)?),
                    SpaceMap::Blocks(blocks) => {
                        for at in blocks {
                            let of_block = self.follow(&mut at.block);
                            at.stored_bytes = at.stored_bytes.saturating_add_signed(of_block.bytes);
                            change.add(of_block);
                        }
                    }
                }
            }
            self.make_room().await?;
            for record in &mut directory.records {
                if let SpaceMap::Blocks(blocks) = &mut record.map {
                    blocks.iter_mut().for_each(|at| at.block = self.locate(at.block));
                }
            }
            self.settle(&block, change, || directory.encode()).await?;
        }
        Ok(())
    }

    async fn files(&mut self, directories: Vec<BlockRef>) -> Result<(), RepositoryError> {
        let mut read: Vec<(BlockRef, FileDirectory)> = Vec::new();
        let mut reads = std::pin::pin!(self.repository.read_blocks(self.new_ones(directories), |block, raw| {
            Ok((*block, FileDirectory::decode(raw, block.at.pack)?))
        }));
        while let Some(some) = reads.try_next().await? {
            read.extend(some);
        }
        let below = read.iter().flat_map(|(_, directory)| &directory.records).flat_map(|record| match &record.map {
            FileMap::Inline(_) => &[],
            FileMap::Blocks(blocks) => blocks.as_slice(),
        });
        let below: Vec<BlockRef> = below.map(|block| block.block).collect();
        let mut reads =
            std::pin::pin!(self.repository.read_blocks(self.new_ones(below), |block, raw| {
                Ok((*block, FileBlock::decode(raw, block.at.pack)?))
            }));
        while let Some(some) = reads.try_next().await? {
            for (block, mut decoded) in some {
                let change = self.pieces(&mut decoded.pieces);
                self.settle(&block, change, || decoded.encode()).await?;
            }
        }
        for (block, mut directory) in read {
            let mut change = Change::default();
            for record in &mut directory.records {
                match &mut record.map {
                    FileMap::Inline(pieces) => change.add(self.pieces(pieces)),
                    FileMap::Blocks(blocks) => {
                        for at in blocks {
                            let of_block = self.follow(&mut at.block);
                            at.stored_bytes = at.stored_bytes.saturating_add_signed(of_block.bytes);
                            change.add(of_block);
                        }
                    }
                }
            }
            self.make_room().await?;
            for record in &mut directory.records {
                if let FileMap::Blocks(blocks) = &mut record.map {
                    blocks.iter_mut().for_each(|at| at.block = self.locate(at.block));
                }
            }
            self.settle(&block, change, || directory.encode()).await?;
        }
        Ok(())
    }

    /// Extents with their chunks at their new places.
    fn extents(&self, key: SpaceKey, extents: &mut [Extent]) -> Result<Change, FormatError> {
        let mut change = Change::default();
        for extent in extents {
            let (covered, stored) = (extent.covered(), stored_bytes(&extent.pieces));
            if let Some(pieces) = self.order.merged(key, extent).filter(|_| self.is_chosen) {
                extent.pieces = pieces;
                (change.touched, change.merged) = (true, true);
            } else {
                for piece in &mut extent.pieces {
                    if let Content::Chunk(chunk) = &mut piece.content
                        && let Some(at) = self.order.find(&chunk.at)
                    {
                        chunk.at = at;
                        change.touched = true;
                    }
                }
            }
            // No edition is written that leaves a page out.
            let (once, all) = (extent.covered(), extent.pieces.iter().map(|piece| piece.mask.len()).sum::<u32>());
            if once != covered || all != covered.len() {
                let problem = format!("extent {} would lose pages {:?}", extent.no.0, PageMask(once.0 ^ covered.0));
                return Err(FormatError::Document { what: "page map".to_owned(), problem });
            }
            change.bytes += stored_bytes(&extent.pieces) as i64 - stored as i64;
        }
        Ok(change)
    }

    /// Pieces of a file with their chunks at their new places.
    fn pieces(&self, pieces: &mut [FilePiece]) -> Change {
        let mut change = Change::default();
        for piece in pieces {
            let stored = piece.stored_bytes();
            if let FileSource::Chunk { at, .. } = &mut piece.source
                && let Some(new) = self.order.find(at)
            {
                *at = new;
                change.touched = true;
                change.bytes += piece.stored_bytes() as i64 - stored as i64;
            }
        }
        change
    }

    /// Those of `blocks` of which nothing is decided, each once.
    fn new_ones(&self, mut blocks: Vec<BlockRef>) -> Vec<BlockRef> {
        let mut asked = HashSet::new();
        blocks.retain(|block| self.fate(block).is_none() && asked.insert(name_of(block)));
        blocks
    }

    fn fate(&self, block: &BlockRef) -> Option<Fate> {
        let name = name_of(block);
        let own = self.own_fates.get(&name).filter(|_| self.is_chosen);
        own.or_else(|| self.fates.get(&name)).copied()
    }

    /// Puts what takes the place of a block into a reference to it.
    fn follow(&self, block: &mut BlockRef) -> Change {
        match self.fate(block) {
            Some(Fate::Goes(number)) => {
                let Rewritten { block: new, change } = self.rewritten[number as usize];
                *block = new;
                change
            }
            _ => Change::default(),
        }
    }

    /// Decides what becomes of a block, in which `change` was found.
    async fn settle(
        &mut self,
        block: &BlockRef,
        change: Change,
        encode: impl FnOnce() -> Vec<u8>,
    ) -> Result<(), RepositoryError> {
        let touched = change.touched || self.map_packs.contains(&block.at.pack.id);
        let fate = if touched {
            self.make_room().await?;
            let change = Change { touched, ..change };
            let new = self.add(block, encode)?;
            self.rewritten.push(Rewritten { block: new, change });
            Fate::Goes((self.rewritten.len() - 1) as u32)
        } else {
            self.stays(block);
            Fate::Stays
        };
        let fates = if change.merged { &mut self.own_fates } else { &mut self.fates };
        fates.insert(name_of(block), fate);
        Ok(())
    }

    fn stays(&mut self, block: &BlockRef) {
        *self.staying.entry(block.at.pack.id).or_default() += u64::from(block.at.stored_bytes);
    }

    async fn make_room(&mut self) -> Result<(), RepositoryError> {
        let keyring = self.repository.keyring();
        if let Some((filler, uploads)) = &mut self.output
            && let Some(full) = filler
                .make_room(|| keyring.new_pack(PackKind::Map), |filled| uploads.finish_pack(filled, PackKind::Map))?
        {
            uploads.put(full).await?;
        }
        Ok(())
    }

    fn locate(&self, block: BlockRef) -> BlockRef {
        self.output.as_ref().map_or(block, |(filler, _)| filler.locate(block))
    }

    /// Writes a block; while this only looks, the old one stands for it.
    fn add(&mut self, old: &BlockRef, encode: impl FnOnce() -> Vec<u8>) -> Result<BlockRef, FormatError> {
        self.output.as_mut().map_or(Ok(*old), |(filler, _)| filler.add(&encode()))
    }
}

fn stored_bytes(pieces: &[Piece]) -> u64 {
    pieces.iter().map(Piece::stored_bytes).sum()
}

/// The map of a backup that was rewritten.
#[derive(Debug, Clone, Copy)]
pub(super) struct MapChange {
    root: BlockRef,
    stored_bytes: u64,
}
