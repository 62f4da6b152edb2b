//! Which packs backups need: the count that decides what may be deleted.
//!
//! Every block begins with the packs that it speaks of, so blocks of pieces are read and proven, but not taken apart. A block that
//! backups share is read once. Blocks that lie side by side, as those of one backup do, are one request.

use std::collections::HashSet;
use std::sync::Arc;

use futures::TryStreamExt;

use super::{Repository, RepositoryError};
use crate::format::Manifest;
use crate::format::map::{
    BlockRef, FileDirectory, FileMap, MapRoot, PackRef, SpaceDirectory, SpaceMap, packs_of_pieces,
};
use crate::model::PackId;

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

    /// The packs that were found since this was last asked: all that a backup needs but for what stands in blocks that backups added
    /// before share with it.
    pub fn take_packs(&mut self) -> HashSet<PackId> {
        std::mem::take(&mut self.packs)
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
        let mut reads = std::pin::pin!(repository.read_blocks(blocks, move |block, raw| {
            let (mut packs, below) = parse(raw, block.at.pack)?;
            packs.push(block.at.pack);
            Ok((packs, below))
        }));
        let mut below = Vec::new();
        while let Some(parsed) = reads.try_next().await? {
            for (packs, blocks) in parsed {
                self.packs.extend(packs.into_iter().map(|pack| pack.id));
                below.extend(blocks);
            }
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
