//! Fills map packs.

use super::{BlockRef, Location, PackRef};
use crate::format::pack::{self, FinishedPack, NewChunk, PackBuilder, Placed};
use crate::format::{FormatError, Namer};
use crate::model::ChunkId;

/// Level at which map blocks are compressed: most of a block is hashes, which no level makes smaller.
const LEVEL: i32 = 1;

/// Puts map blocks into packs, and gives each when it is full.
///
/// The name of a pack is not known while it is being filled. References to blocks in it say [`PackRef::HOME`] until
/// [`MapFiller::locate`] is asked, which a block that is to be written must do for every reference in it.
pub struct MapFiller {
    namer: Namer,
    pack: PackBuilder,
    finished: Vec<PackRef>,
}

impl std::fmt::Debug for MapFiller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MapFiller").field("finished", &self.finished.len()).finish_non_exhaustive()
    }
}

/// Number of the pack that is being filled hides in the size of a reference to it until it is finished.
fn mark(number: usize) -> PackRef {
    PackRef { id: PackRef::HOME.id, bytes: number as u32 + 1 }
}

impl MapFiller {
    /// Begins with `pack`, an empty one; blocks are named by `namer`.
    pub fn new(namer: Namer, pack: PackBuilder) -> MapFiller {
        MapFiller { namer, pack, finished: Vec::new() }
    }

    /// Adds a block.
    ///
    /// # Errors
    /// When it is longer than any reader accepts, or cannot be compressed.
    pub fn add(&mut self, raw: &[u8]) -> Result<BlockRef, FormatError> {
        let id: ChunkId = self.namer.map_block(raw);
        let mut compressor = zstd::bulk::Compressor::new(LEVEL)
            .map_err(|source| FormatError::Compression { what: "map block", source })?;
        let mut stored = Vec::new();
        let encoding = pack::compress(&mut compressor, raw, &mut stored)?;
        let raw_bytes = raw.len() as u32;
        let placed = self.pack.add(&NewChunk { id, raw_bytes, encoding, sums: &[], stored: &stored });
        let Placed { offset, stored_bytes } = placed;
        let at = Location { pack: mark(self.finished.len()), offset, stored_bytes, encoding };
        Ok(BlockRef { id, raw_bytes, at })
    }

    /// Closes the pack if it is full, and gives it to be stored; to be called before the references of a new block are located.
    ///
    /// # Errors
    /// When `next`, which gives another empty pack, or `finish` fails.
    pub fn make_room<E>(
        &mut self,
        next: impl FnOnce() -> Result<PackBuilder, E>,
        finish: impl FnOnce(PackBuilder) -> Result<FinishedPack, E>,
    ) -> Result<Option<FinishedPack>, E> {
        if self.pack.is_full() { self.close(next, finish) } else { Ok(None) }
    }

    /// The reference as a block that is added next must say it.
    pub fn locate(&self, block: BlockRef) -> BlockRef {
        let PackRef { id, bytes } = block.at.pack;
        if id != PackRef::HOME.id {
            return block;
        }
        let pack = self.finished.get((bytes as usize).saturating_sub(1)).copied().unwrap_or(PackRef::HOME);
        BlockRef { at: Location { pack, ..block.at }, ..block }
    }

    /// Closes the pack whatever it holds; from then on [`MapFiller::locate`] knows where every block lies.
    ///
    /// # Errors
    /// When `next`, which gives another empty pack, or `finish` fails.
    pub fn close<E>(
        &mut self,
        next: impl FnOnce() -> Result<PackBuilder, E>,
        finish: impl FnOnce(PackBuilder) -> Result<FinishedPack, E>,
    ) -> Result<Option<FinishedPack>, E> {
        if self.pack.is_empty() {
            return Ok(None);
        }
        let finished = finish(std::mem::replace(&mut self.pack, next()?))?;
        self.finished.push(PackRef { id: finished.id, bytes: finished.bytes.len() as u32 });
        Ok(Some(finished))
    }
}
