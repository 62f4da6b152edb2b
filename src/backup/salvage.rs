//! Chunks that are stored and that no backup needs yet: those of a run that died, and of this run's own earlier captures.
//!
//! A run that is killed leaves its packs and no manifest. Their directories tell what is in them, so that the next run need not
//! upload it again. A chunk's name is the hash of its bytes: that it was stored is all that has to be known of it.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use futures::StreamExt;

use crate::format::map::{Location, PackRef};
use crate::format::pack::{Encoding, FinishedPack, PackEntry};
use crate::model::{ChunkId, PackId, Timestamp};
use crate::repository::{Repository, RepositoryError, StoredPack};

/// Most chunks that are remembered, for which a table of 2^19 places of some 55 bytes is enough: they stand for up to 448 GiB. What is
/// beyond is uploaded again.
const CHUNKS_MAX: usize = (1 << 19) / 8 * 7;
/// Directories read at the same time: enough to hide a store's latency.
const READS: usize = 16;

struct Place {
    pack: u32,
    offset: u32,
    stored_bytes: u32,
    raw_bytes: u32,
    encoding: Encoding,
}

#[derive(Default)]
struct Known {
    packs: Vec<PackRef>,
    chunks: HashMap<ChunkId, Place>,
}

/// Chunks that are stored and that no backup needs yet.
#[derive(Default)]
pub(super) struct Salvage(RwLock<Known>);

impl Salvage {
    /// Reads the directories of `packs`, and gives the bytes of those that can be used. One that is damaged is passed over.
    ///
    /// # Errors
    /// When the store does not answer.
    pub(super) async fn read(&self, repository: &Repository, packs: &[PackRef]) -> Result<u64, RepositoryError> {
        let reads = packs.iter().map(|pack| async move { (*pack, repository.directory(*pack).await) });
        let mut reads = futures::stream::iter(reads).buffered(READS);
        let mut bytes = 0;
        while let Some((pack, directory)) = reads.next().await {
            match directory {
                Ok(entries) => {
                    bytes += u64::from(pack.bytes);
                    if !self.add(pack, &entries) {
                        break;
                    }
                }
                Err(RepositoryError::Store(error)) if !error.is_not_found() => return Err(error.into()),
                Err(error) => tracing::debug!("pack {} is of no use: {error}", pack.id),
            }
        }
        Ok(bytes)
    }

    /// Notes a pack that this run stores.
    pub(super) fn note(&self, pack: &FinishedPack) {
        let reference = PackRef { id: pack.id, bytes: pack.bytes.len() as u32 };
        self.add(reference, &pack.entries);
    }

    /// Where chunk `id` of `raw_bytes` bytes is stored, if it is.
    pub(super) fn find(&self, id: &ChunkId, raw_bytes: usize) -> Option<Location> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let Place { pack, offset, stored_bytes, raw_bytes: found, encoding } = *known.chunks.get(id)?;
        (found as usize == raw_bytes).then(|| Location {
            pack: known.packs[pack as usize],
            offset,
            stored_bytes,
            encoding,
        })
    }

    /// Notes chunks; false when there are as many as may be.
    fn add(&self, pack: PackRef, entries: &[PackEntry]) -> bool {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if known.chunks.len() + entries.len() > CHUNKS_MAX {
            return false;
        }
        let number = known.packs.len() as u32;
        known.packs.push(pack);
        for entry in entries {
            let PackEntry { id, offset, stored_bytes, raw_bytes, encoding, .. } = entry;
            let place = Place {
                pack: number,
                offset: *offset,
                stored_bytes: *stored_bytes,
                raw_bytes: *raw_bytes,
                encoding: *encoding,
            };
            known.chunks.insert(*id, place);
        }
        true
    }
}

/// Packs that were stored after the newest backup was, the last of them first: what a run left that died. All of them, if there is
/// no backup. A store whose clock has whole seconds hides those of the same second, which are then stored again.
pub(super) fn strays<'a>(
    packs: impl Iterator<Item = (&'a PackId, &'a StoredPack)>,
    newest: Option<Timestamp>,
) -> Vec<PackRef> {
    let since = packs.filter(|(_, pack)| newest.is_none_or(|newest| pack.stored > newest));
    let mut strays: Vec<(&PackId, &StoredPack)> = since.collect();
    strays.sort_by_key(|(_, pack)| std::cmp::Reverse(pack.stored));
    let reference = |(id, pack): (&PackId, &StoredPack)| Some(PackRef { id: *id, bytes: pack.bytes.try_into().ok()? });
    strays.into_iter().filter_map(reference).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: u8, raw_bytes: u32) -> PackEntry {
        PackEntry {
            id: ChunkId([id; 32]),
            offset: u32::from(id),
            stored_bytes: 7,
            raw_bytes,
            encoding: Encoding::Raw,
            sums: Vec::new(),
        }
    }

    #[test]
    fn a_chunk_is_found_by_its_name_and_length() {
        let salvage = Salvage::default();
        let pack = |id: u8| PackRef { id: PackId([id; 32]), bytes: 100 };
        assert!(salvage.add(pack(1), &[entry(10, 16384), entry(11, 5)]) && salvage.add(pack(2), &[entry(20, 5)]));
        let at = salvage.find(&ChunkId([20; 32]), 5).unwrap();
        assert_eq!((at.pack, at.offset, at.stored_bytes), (pack(2), 20, 7));
        assert_eq!(salvage.find(&ChunkId([10; 32]), 16384).unwrap().pack, pack(1));
        assert_eq!(salvage.find(&ChunkId([10; 32]), 16383), None);
        assert_eq!(salvage.find(&ChunkId([30; 32]), 5), None);
    }

    #[test]
    fn no_more_is_remembered_than_may_be() {
        let salvage = Salvage::default();
        let pack = PackRef { id: PackId([1; 32]), bytes: 100 };
        let entries: Vec<PackEntry> = (0..CHUNKS_MAX)
            .map(|number| {
                let mut entry = entry(0, 9);
                entry.id.0[..8].copy_from_slice(&number.to_le_bytes());
                entry
            })
            .collect();
        assert!(salvage.add(pack, &entries));
        assert!(!salvage.add(pack, &[entry(255, 9)]));
        assert_eq!(salvage.find(&ChunkId([255; 32]), 9), None);
    }

    #[test]
    fn strays_are_the_packs_since_the_newest_backup_the_last_of_them_first() {
        let at = |second: i64| Timestamp(jiff::Timestamp::from_second(second).unwrap());
        let packs: HashMap<PackId, StoredPack> = [(1u8, 5, 10), (2, 6, 30), (3, 7, 20), (4, u64::MAX, 40)]
            .map(|(id, bytes, second)| (PackId([id; 32]), StoredPack { bytes, stored: at(second) }))
            .into();
        let found = |newest: Option<i64>| -> Vec<u8> {
            strays(packs.iter(), newest.map(at)).iter().map(|pack| pack.id.0[0]).collect()
        };
        assert_eq!(found(None), [2, 3, 1]);
        assert_eq!(found(Some(20)), [2]);
        assert_eq!(found(Some(31)), [0u8; 0]);
    }
}
