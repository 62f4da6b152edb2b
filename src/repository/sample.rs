//! Some packs that a backup needs, taken by chance off its map.

use std::collections::HashSet;

use super::{Repository, RepositoryError};
use crate::format::Manifest;
use crate::format::map::{BlockRef, Content, Extent, SpaceDirectory, SpaceMap, SpaceRecord};
use crate::model::{Entropy, PackId};

/// Space directories, and records of each, that a sample looks into.
const SAMPLE_DIRECTORIES: usize = 4;

impl Repository {
    /// Some of the packs that a backup needs, by chance: of up to 16 of its InnoDB files, a block's each.
    ///
    /// # Errors
    /// When the map cannot be read or is damaged.
    pub async fn some_needed_packs(
        &self,
        manifest: &Manifest,
        entropy: &dyn Entropy,
    ) -> Result<HashSet<PackId>, RepositoryError> {
        let root = self.map_root(manifest).await?;
        let mut packs = HashSet::from([manifest.map.pack]);
        for (_, block) in chosen(&root.spaces, entropy) {
            packs.insert(block.at.pack.id);
            for record in chosen(&self.space_directory(block).await?, entropy) {
                match &record.map {
                    SpaceMap::Inline(extents) => note_extents(&mut packs, extents),
                    SpaceMap::Blocks(blocks) => {
                        if let Some(block) = chosen(blocks, entropy).first() {
                            packs.insert(block.block.at.pack.id);
                            note_extents(&mut packs, &self.map_extents(record.key, block).await?);
                        }
                    }
                }
            }
        }
        Ok(packs)
    }

    async fn space_directory(&self, block: &BlockRef) -> Result<Vec<SpaceRecord>, RepositoryError> {
        let damaged = |source| RepositoryError::Pack { pack: block.at.pack.id, source };
        Ok(SpaceDirectory::decode(&self.read_block(block).await?, block.at.pack).map_err(damaged)?.records)
    }
}

/// Up to [`SAMPLE_DIRECTORIES`] of `all`, by chance; one may come twice.
fn chosen<'a, T>(all: &'a [T], entropy: &dyn Entropy) -> Vec<&'a T> {
    let mut random = [0; 8 * SAMPLE_DIRECTORIES];
    entropy.fill(&mut random);
    let number = |bytes: &[u8]| bytes.iter().fold(0u64, |number, byte| number << 8 | u64::from(*byte));
    let place = |bytes: &[u8]| usize::try_from(number(bytes) % all.len() as u64).unwrap_or_default();
    if all.is_empty() { Vec::new() } else { random.chunks(8).map(|bytes| &all[place(bytes)]).collect() }
}

fn note_extents(packs: &mut HashSet<PackId>, extents: &[Extent]) {
    for piece in extents.iter().flat_map(|extent| &extent.pieces) {
        if let Content::Chunk(chunk) = &piece.content {
            packs.insert(chunk.at.pack.id);
        }
    }
}
