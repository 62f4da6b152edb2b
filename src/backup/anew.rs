//! Stores anew what damaged packs held.
//!
//! What is stored again may well make up the very pack that was damaged: the same chunks in the same order. Its object is then
//! mended where the store allows that, for the older backups' sake, but nothing new rests on it: the new backup has the same chunks
//! in a pack that bears another name because of one small chunk more, which nobody refers to.

use super::{BackupError, Stash};
use crate::format::Namer;
use crate::format::pack::{FinishedPack, PackBuilder, PackKind, finish_apart};

/// Finishes a pack under a name that is that of no damaged object; chunks stay where they are in it.
pub(super) fn finish(
    pack: PackBuilder,
    kind: PackKind,
    namer: &Namer,
    stash: &dyn Stash,
) -> Result<FinishedPack, BackupError> {
    if !stash.knows_damage() {
        return Ok(pack.finish()?);
    }
    let (finished, damaged) = finish_apart(pack, kind, namer, |id| stash.is_damaged(id))?;
    for pack in damaged {
        stash.mend(pack)?;
    }
    Ok(finished)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::Mutex;

    use super::*;
    use crate::format::map::{BlockRef, Location, PageChunk};
    use crate::format::pack::{NewChunk, parse_pack};
    use crate::format::{Encoding, Keyring, PageSum};
    use crate::model::{ChunkId, PackId};

    /// Knows which names are damaged, and what was to be mended.
    #[derive(Default)]
    struct Damaged(HashSet<PackId>, Mutex<Vec<PackId>>);

    impl Stash for Damaged {
        fn new_pack(&self, kind: PackKind) -> Result<PackBuilder, BackupError> {
            Ok(PackBuilder::new(kind))
        }
        fn put_pack(&self, _: FinishedPack) -> Result<(), BackupError> {
            Ok(())
        }
        fn read_block(&self, _: &BlockRef) -> Result<Vec<u8>, BackupError> {
            Err(BackupError::Abandoned)
        }
        fn find(&self, _: &ChunkId, _: usize) -> Option<Location> {
            None
        }
        fn page_sums(&self, _: &PageChunk) -> Option<Vec<PageSum>> {
            None
        }
        fn knows_damage(&self) -> bool {
            !self.0.is_empty()
        }
        fn is_damaged(&self, pack: &PackId) -> bool {
            self.0.contains(pack)
        }
        fn mend(&self, pack: FinishedPack) -> Result<(), BackupError> {
            self.1.lock().unwrap().push(pack.id);
            Ok(())
        }
    }

    #[test]
    fn a_pack_takes_the_name_of_no_damaged_one_and_holds_the_same() {
        let namer = Namer::new(&[0; 32]);
        for (kind, id) in [(PackKind::Data, namer.chunk_of_file(b"hello")), (PackKind::Map, namer.map_block(b"hello"))]
        {
            let builder = || {
                let mut pack = PackBuilder::new(kind);
                pack.add(&NewChunk { id, raw_bytes: 5, encoding: Encoding::Raw, sums: &[], stored: b"hello" });
                pack
            };
            let mut stash = Damaged::default();
            for turn in 0..3 {
                let finished = finish(builder(), kind, &namer, &stash).unwrap();
                assert!(!stash.is_damaged(&finished.id));
                assert_eq!(std::mem::take(&mut *stash.1.lock().unwrap()).len(), turn, "each damaged one is mended");
                let parsed = parse_pack(finished.id, &finished.bytes, &Keyring::plain()).unwrap();
                assert_eq!((parsed.kind, parsed.entries.len()), (kind, 1 + turn));
                assert_eq!(parsed.entries[0], builder().finish().unwrap().entries[0]);
                stash.0.insert(finished.id);
            }
        }
    }
}
