//! The root of a page map.

use super::pieces::{PackList, PackTable, read_block_ref, read_key, write_block_ref};
use super::{BlockRef, KIND_ROOT, PackRef, SpaceKey};
use crate::format::{Decoder, Encoder, FormatError};

/// Sums over the whole map.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MapTotals {
    /// InnoDB files.
    pub spaces: u64,
    /// Other files.
    pub files: u64,
    /// Bytes of all files once restored.
    pub logical_bytes: u64,
    /// Bytes in packs of the chunks that the map needs.
    pub stored_bytes: u64,
}

/// Leads to every directory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MapRoot {
    /// Sums over the whole map.
    pub totals: MapTotals,
    /// Space directories, each with the key of its first record, ascending.
    pub spaces: Vec<(SpaceKey, BlockRef)>,
    /// File directories, each with the path of its first record, ascending.
    pub files: Vec<(String, BlockRef)>,
}

impl MapRoot {
    /// The block's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let (mut body, mut packs) = (Encoder::new(), PackTable::default());
        for figure in [self.totals.spaces, self.totals.files, self.totals.logical_bytes, self.totals.stored_bytes] {
            body.varint(figure);
        }
        body.varint(self.spaces.len() as u64);
        for (first, block) in &self.spaces {
            body.varint(u64::from(first.space.0));
            body.varint(u64::from(first.part));
            write_block_ref(&mut body, &mut packs, block);
        }
        body.varint(self.files.len() as u64);
        for (first, block) in &self.files {
            body.text(first);
            write_block_ref(&mut body, &mut packs, block);
        }
        packs.block(KIND_ROOT, body)
    }

    /// Parses a root that lies in pack `home`.
    ///
    /// # Errors
    /// When the bytes are no root.
    pub fn decode(bytes: &[u8], home: PackRef) -> Result<MapRoot, FormatError> {
        let mut decoder = Decoder::new("map root", bytes);
        let mut packs = PackList::read(&mut decoder, KIND_ROOT, home)?;
        let totals = MapTotals {
            spaces: decoder.varint()?,
            files: decoder.varint()?,
            logical_bytes: decoder.varint()?,
            stored_bytes: decoder.varint()?,
        };
        let mut spaces: Vec<(SpaceKey, BlockRef)> = Vec::new();
        for _ in 0..decoder.count(32)? {
            let first = read_key(&mut decoder)?;
            if spaces.last().is_some_and(|(last, _)| *last >= first) {
                return Err(decoder.fault("space directories are out of order"));
            }
            spaces.push((first, read_block_ref(&mut decoder, &mut packs)?));
        }
        let mut files: Vec<(String, BlockRef)> = Vec::new();
        for _ in 0..decoder.count(32)? {
            let first = decoder.text()?;
            if files.last().is_some_and(|(last, _)| *last >= first) {
                return Err(decoder.fault("file directories are out of order"));
            }
            files.push((first, read_block_ref(&mut decoder, &mut packs)?));
        }
        packs.finish(&decoder)?;
        decoder.finish()?;
        Ok(MapRoot { totals, spaces, files })
    }

    /// The directory in which `key` stands if it stands anywhere.
    pub fn space_directory(&self, key: SpaceKey) -> Option<&BlockRef> {
        let after = self.spaces.partition_point(|(first, _)| *first <= key);
        after.checked_sub(1).map(|place| &self.spaces[place].1)
    }

    /// The directory in which `path` stands if it stands anywhere.
    pub fn file_directory(&self, path: &str) -> Option<&BlockRef> {
        let after = self.files.partition_point(|(first, _)| first.as_str() <= path);
        after.checked_sub(1).map(|place| &self.files[place].1)
    }
}
