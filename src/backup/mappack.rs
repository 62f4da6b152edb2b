//! Fills map packs and hands them over.

use std::sync::Arc;

use super::{BackupError, Stash, anew};
use crate::format::Namer;
use crate::format::map::{BlockRef, MapFiller};
use crate::format::pack::{FinishedPack, PackBuilder, PackKind};

/// Puts map blocks into packs, as [`MapFiller`] does, and the packs into a stash.
pub(super) struct MapPacks {
    stash: Arc<dyn Stash>,
    namer: Namer,
    filler: MapFiller,
    pub uploaded_bytes: u64,
}

impl MapPacks {
    pub(super) fn new(stash: Arc<dyn Stash>, namer: Namer) -> Result<MapPacks, BackupError> {
        let filler = MapFiller::new(namer.clone(), stash.new_pack(PackKind::Map)?);
        Ok(MapPacks { stash, filler, namer, uploaded_bytes: 0 })
    }

    /// Adds a block.
    pub(super) fn add(&mut self, raw: Vec<u8>) -> Result<BlockRef, BackupError> {
        Ok(self.filler.add(&raw)?)
    }

    /// Closes the pack if it is full; to be called before the references of a new block are located.
    pub(super) fn make_room(&mut self) -> Result<(), BackupError> {
        let MapPacks { stash, namer, filler, .. } = self;
        let full = filler.make_room(|| stash.new_pack(PackKind::Map), |filled| finish(filled, namer, &**stash))?;
        self.put(full)
    }

    /// The reference as a block that is added next must say it.
    pub(super) fn locate(&self, block: BlockRef) -> BlockRef {
        self.filler.locate(block)
    }

    /// Closes the last pack and gives the root's final place.
    pub(super) fn finish(&mut self, root: BlockRef) -> Result<BlockRef, BackupError> {
        let MapPacks { stash, namer, filler, .. } = self;
        let last = filler.close(|| stash.new_pack(PackKind::Map), |filled| finish(filled, namer, &**stash))?;
        self.put(last)?;
        Ok(self.filler.locate(root))
    }

    fn put(&mut self, pack: Option<FinishedPack>) -> Result<(), BackupError> {
        let Some(pack) = pack else { return Ok(()) };
        self.uploaded_bytes += pack.bytes.len() as u64;
        self.stash.put_pack(pack)
    }
}

fn finish(filled: PackBuilder, namer: &Namer, stash: &dyn Stash) -> Result<FinishedPack, BackupError> {
    anew::finish(filled, PackKind::Map, namer, stash)
}
