//! Which packs backups need: the count that decides what may be deleted.
//!
//! Every block begins with the packs that it speaks of, so blocks of pieces are read and proven, but not taken apart. A block that
//! backups share is read once. Blocks that lie side by side, as those of one backup do, are one request.

use std::collections::HashSet;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};

use super::{Repository, RepositoryError};
use crate::format::Manifest;
use crate::format::map::{
    BlockRef, FileDirectory, FileMap, MapRoot, PackRef, SpaceDirectory, SpaceMap, packs_of_pieces,
};
use crate::model::PackId;

/// Longest stretch of a pack that is read at once; some hundred blocks.
const RANGE_BYTES_MAX: u32 = 4 << 20;
/// Bytes between two blocks that are read along rather than in a request of their own.
const GAP_BYTES_MAX: u32 = 64 << 10;
/// Stretches read at the same time: 32 MiB at most.
const RANGES_IN_FLIGHT: usize = 8;

/// Packs that backups need. Memory: some 20 bytes for each map block, 50 for each pack.
#[derive(Debug, Default)]
pub struct References {
    packs: HashSet<PackId>,
    /// Blocks that were read, by the beginnings of hashes over their names and places.
    seen: HashSet<[u8; 16]>,
}

impl References {
    /// Adds what a backup needs.
    ///
    /// # Errors
    /// When any part of its map cannot be read or is damaged: what that names, nobody could know.
    pub async fn add(&mut self, repository: &Arc<Repository>, manifest: &Manifest) -> Result<(), RepositoryError> {
        let block = BlockRef::try_from(&manifest.map)?;
        if !self.is_new(&block) {
            return Ok(());
        }
        self.packs.insert(block.at.pack.id);
        let MapRoot { spaces, files, .. } = repository.map_root(manifest).await?;
        let spaces: Vec<BlockRef> = spaces.into_iter().map(|(_, block)| block).filter(|at| self.is_new(at)).collect();
        let files: Vec<BlockRef> = files.into_iter().map(|(_, block)| block).filter(|at| self.is_new(at)).collect();
        let below = self.read(repository, spaces, space_blocks).await?;
        self.read_pieces(repository, below).await?;
        let below = self.read(repository, files, file_blocks).await?;
        self.read_pieces(repository, below).await
    }

    /// Whether any of the backups needs `pack`.
    pub fn need(&self, pack: &PackId) -> bool {
        self.packs.contains(pack)
    }

    /// The packs that are needed.
    pub fn into_packs(self) -> HashSet<PackId> {
        self.packs
    }

    /// Number of packs that are needed.
    pub fn packs(&self) -> usize {
        self.packs.len()
    }

    /// Those of the packs that are needed which `is_there` does not know.
    pub fn missing(&self, is_there: impl Fn(&PackId) -> bool) -> Vec<PackId> {
        let mut missing: Vec<PackId> = self.packs.iter().filter(|pack| !is_there(pack)).copied().collect();
        missing.sort_unstable();
        missing
    }

    fn is_new(&mut self, block: &BlockRef) -> bool {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&block.id.0).update(&block.at.pack.id.0).update(&block.at.offset.to_le_bytes());
        let mut name = [0; 16];
        name.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        self.seen.insert(name)
    }

    async fn read_pieces(
        &mut self,
        repository: &Arc<Repository>,
        blocks: Vec<BlockRef>,
    ) -> Result<(), RepositoryError> {
        let new = blocks.into_iter().filter(|block| self.is_new(block)).collect();
        self.read(repository, new, |bytes, home| Ok((packs_of_pieces(bytes, home)?, Vec::new()))).await?;
        Ok(())
    }

    /// Reads blocks, notes the packs that `parse` finds in them, and gives the blocks.
    async fn read(
        &mut self,
        repository: &Arc<Repository>,
        blocks: Vec<BlockRef>,
        parse: Parse,
    ) -> Result<Vec<BlockRef>, RepositoryError> {
        let reads = stretches(blocks).into_iter().map(|stretch| read_stretch(repository.clone(), stretch, parse));
        let mut reads = futures::stream::iter(reads).buffer_unordered(RANGES_IN_FLIGHT);
        let mut below = Vec::new();
        while let Some((packs, blocks)) = reads.try_next().await? {
            self.packs.extend(packs.into_iter().map(|pack| pack.id));
            below.extend(blocks);
        }
        Ok(below)
    }
}

/// The packs that a block speaks of, and the blocks.
type Parsed = (Vec<PackRef>, Vec<BlockRef>);
type Parse = fn(&[u8], PackRef) -> Result<Parsed, crate::format::FormatError>;

fn space_blocks(bytes: &[u8], home: PackRef) -> Result<Parsed, crate::format::FormatError> {
    let directory = SpaceDirectory::decode(bytes, home)?;
    let (mut packs, mut below) = (Vec::new(), Vec::new());
    for record in &directory.records {
        match &record.map {
            SpaceMap::Inline(extents) => {
                packs.extend(extents.iter().flat_map(|extent| &extent.pieces).filter_map(pack))
            }
            SpaceMap::Blocks(blocks) => below.extend(blocks.iter().map(|block| block.block)),
        }
    }
    Ok((packs, below))
}

fn pack(piece: &crate::format::map::Piece) -> Option<PackRef> {
    match &piece.content {
        crate::format::map::Content::Zero => None,
        crate::format::map::Content::Chunk(chunk) => Some(chunk.at.pack),
    }
}

fn file_blocks(bytes: &[u8], home: PackRef) -> Result<Parsed, crate::format::FormatError> {
    let directory = FileDirectory::decode(bytes, home)?;
    let (mut packs, mut below) = (Vec::new(), Vec::new());
    for record in &directory.records {
        match &record.map {
            FileMap::Inline(pieces) => packs.extend(pieces.iter().filter_map(|piece| match &piece.source {
                crate::format::map::FileSource::Zero => None,
                crate::format::map::FileSource::Chunk { at, .. } => Some(at.pack),
            })),
            FileMap::Blocks(blocks) => below.extend(blocks.iter().map(|block| block.block)),
        }
    }
    Ok((packs, below))
}

/// Blocks of one pack that are read at once, by their offsets.
fn stretches(mut blocks: Vec<BlockRef>) -> Vec<Vec<BlockRef>> {
    blocks.sort_unstable_by_key(|block| (block.at.pack.id, block.at.offset));
    let mut stretches: Vec<Vec<BlockRef>> = Vec::new();
    for block in blocks {
        let fits = stretches.last().and_then(|stretch| Some((stretch.first()?, stretch.last()?))).is_some_and(
            |(first, last)| {
                let end = last.at.offset.saturating_add(last.at.stored_bytes);
                first.at.pack == block.at.pack
                    && block.at.offset.saturating_sub(end) <= GAP_BYTES_MAX
                    && block.at.offset.saturating_add(block.at.stored_bytes) - first.at.offset <= RANGE_BYTES_MAX
            },
        );
        match stretches.last_mut().filter(|_| fits) {
            Some(stretch) => stretch.push(block),
            None => stretches.push(vec![block]),
        }
    }
    stretches
}

async fn read_stretch(
    repository: Arc<Repository>,
    stretch: Vec<BlockRef>,
    parse: Parse,
) -> Result<Parsed, RepositoryError> {
    let (Some(first), Some(last)) = (stretch.first(), stretch.last()) else { return Ok(Parsed::default()) };
    let (start, end) = (u64::from(first.at.offset), u64::from(last.at.offset) + u64::from(last.at.stored_bytes));
    let bytes = repository.read_range(first.at.pack.id, start..end).await?;
    let parsed = tokio::task::spawn_blocking(move || {
        let (mut packs, mut below) = (Vec::new(), Vec::new());
        for block in &stretch {
            let from = (u64::from(block.at.offset) - start) as usize;
            let stored = &bytes[from..from + block.at.stored_bytes as usize];
            let raw = repository.open_block(block, stored)?;
            let damaged = |source| RepositoryError::Pack { pack: block.at.pack.id, source };
            let (of_block, blocks) = parse(&raw, block.at.pack).map_err(damaged)?;
            packs.push(block.at.pack);
            packs.extend(of_block);
            below.extend(blocks);
        }
        packs.sort_unstable_by_key(|pack| pack.id);
        packs.dedup();
        Ok((packs, below))
    });
    match parsed.await {
        Ok(parsed) => parsed,
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}
