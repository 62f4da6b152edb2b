//! What the pipeline needs of a repository, so that it can also be run on generated streams alone.

use crate::format::PageSum;
use crate::format::map::{BlockRef, Location, PageChunk};
use crate::format::pack::{FinishedPack, PackBuilder, PackKind};

use super::BackupError;
use crate::model::{ChunkId, PackId};

/// Takes finished packs and gives back what earlier backups stored. Called from blocking threads.
pub trait Stash: Send + Sync {
    /// An empty pack, sealed where the repository is.
    ///
    /// # Errors
    /// When the key for it is not known.
    fn new_pack(&self, kind: PackKind) -> Result<PackBuilder, BackupError>;

    /// Hands over a finished pack. Returns soon; what goes wrong with the upload is told by a later call or at the end.
    ///
    /// # Errors
    /// When an upload failed for good.
    fn put_pack(&self, pack: FinishedPack) -> Result<(), BackupError>;

    /// The bytes of a map block, checked.
    ///
    /// # Errors
    /// When it is not there or damaged.
    fn read_block(&self, block: &BlockRef) -> Result<Vec<u8>, BackupError>;

    /// As [`Stash::read_block`], for whoever the tool's pipe waits for.
    ///
    /// # Errors
    /// [`BackupError::NotSoon`] where the store does not answer for the moment.
    fn read_block_soon(&self, block: &BlockRef) -> Result<Vec<u8>, BackupError> {
        self.read_block(block)
    }

    /// Where chunk `id` of `raw_bytes` bytes lies that no backup needs yet, but that is stored all the same.
    fn find(&self, id: &ChunkId, raw_bytes: usize) -> Option<Location>;

    /// The sums of the pages of a chunk, in the chunk's order; nothing when they cannot be had, or not soon.
    fn page_sums(&self, chunk: &PageChunk) -> Option<Vec<PageSum>>;

    /// True when any pack is known to be damaged.
    fn knows_damage(&self) -> bool {
        false
    }

    /// True when the pack is known to be damaged: nothing new may rest on it.
    fn is_damaged(&self, _pack: &PackId) -> bool {
        false
    }

    /// Puts the bytes of a damaged pack in order, where the store allows that; nothing rests on it.
    ///
    /// # Errors
    /// When an upload failed for good.
    fn mend(&self, _pack: FinishedPack) -> Result<(), BackupError> {
        Ok(())
    }
}
