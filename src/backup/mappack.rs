//! Fills map packs.

use std::sync::Arc;

use super::{BackupError, Stash, anew};
use crate::format::Namer;
use crate::format::map::{BlockRef, Location, PackRef};
use crate::format::pack::{self, NewChunk, PackBuilder, PackKind, Placed};
use crate::model::ChunkId;

/// Level at which map blocks are compressed: most of a block is hashes, which no level makes smaller.
const LEVEL: i32 = 1;

/// Puts map blocks into packs.
///
/// The name of a pack is not known while it is being filled. References to blocks in it say [`PackRef::HOME`] until
/// [`MapPacks::locate`] is asked, which a block that is to be written must do for every reference in it.
pub(super) struct MapPacks {
    stash: Arc<dyn Stash>,
    namer: Namer,
    pack: PackBuilder,
    finished: Vec<PackRef>,
    pub uploaded_bytes: u64,
}

/// Number of the pack that is being filled hides in the size of a reference to it until it is finished.
fn mark(number: usize) -> PackRef {
    PackRef { id: PackRef::HOME.id, bytes: number as u32 + 1 }
}

impl MapPacks {
    pub(super) fn new(stash: Arc<dyn Stash>, namer: Namer) -> Result<MapPacks, BackupError> {
        let pack = stash.new_pack(PackKind::Map)?;
        Ok(MapPacks { stash, namer, pack, finished: Vec::new(), uploaded_bytes: 0 })
    }

    /// Adds a block.
    pub(super) fn add(&mut self, raw: Vec<u8>) -> Result<BlockRef, BackupError> {
        let id: ChunkId = self.namer.map_block(&raw);
        let mut compressor = zstd::bulk::Compressor::new(LEVEL).map_err(|source| BackupError::Compressor { source })?;
        let mut stored = Vec::new();
        let encoding = pack::compress(&mut compressor, &raw, &mut stored)?;
        let raw_bytes = raw.len() as u32;
        let placed = self.pack.add(&NewChunk { id, raw_bytes, encoding, sums: &[], stored: &stored });
        let Placed { offset, stored_bytes } = placed;
        let at = Location { pack: mark(self.finished.len()), offset, stored_bytes, encoding };
        Ok(BlockRef { id, raw_bytes, at })
    }

    /// Closes the pack if it is full; to be called before the references of a new block are located.
    pub(super) fn make_room(&mut self) -> Result<(), BackupError> {
        if self.pack.is_full() { self.close() } else { Ok(()) }
    }

    /// The reference as a block that is added next must say it.
    pub(super) fn locate(&self, block: BlockRef) -> BlockRef {
        self.name(block, PackRef::HOME)
    }

    fn name(&self, block: BlockRef, home: PackRef) -> BlockRef {
        let PackRef { id, bytes } = block.at.pack;
        if id != PackRef::HOME.id {
            return block;
        }
        let pack = self.finished.get((bytes as usize).saturating_sub(1)).copied().unwrap_or(home);
        BlockRef { at: Location { pack, ..block.at }, ..block }
    }

    /// Closes the last pack and gives the root's final place.
    pub(super) fn finish(&mut self, root: BlockRef) -> Result<BlockRef, BackupError> {
        self.close()?;
        Ok(self.name(root, PackRef::HOME))
    }

    fn close(&mut self) -> Result<(), BackupError> {
        if self.pack.is_empty() {
            return Ok(());
        }
        let filled = std::mem::replace(&mut self.pack, self.stash.new_pack(PackKind::Map)?);
        let finished = anew::finish(filled, PackKind::Map, &self.namer, &*self.stash)?;
        let pack = PackRef { id: finished.id, bytes: finished.bytes.len() as u32 };
        self.uploaded_bytes += u64::from(pack.bytes);
        self.finished.push(pack);
        self.stash.put_pack(finished)
    }
}
