//! Writes directories and root of the new page map, sharing with the base what did not change.

use std::collections::BTreeMap;

use super::BackupError;
use super::base::Base;
use super::mappack::MapPacks;
use super::resolve::Records;
use crate::format::map::{
    BlockRef, Extent, FileDirectory, FileMap, FilePiece, FileRecord, MapRoot, MapTotals, SpaceDirectory, SpaceKey,
    SpaceMap, SpaceRecord, file_begins_block, space_bucket,
};

/// Writes the map of `records` and returns its root's place.
pub(super) fn write_map(
    records: Records,
    base: Option<&Base>,
    maps: &mut MapPacks,
) -> Result<(BlockRef, MapTotals), BackupError> {
    let totals = totals(&records);
    let spaces = write_spaces(records.spaces, base, maps)?;
    let files = write_files(records.files, base, maps)?;
    maps.make_room()?;
    let root = MapRoot {
        totals,
        spaces: spaces.into_iter().map(|(key, block)| (key, maps.locate(block))).collect(),
        files: files.into_iter().map(|(path, block)| (path, maps.locate(block))).collect(),
    };
    let root = maps.add(root.encode())?;
    Ok((maps.finish(root)?, totals))
}

fn totals(records: &Records) -> MapTotals {
    let spaces = records.spaces.iter();
    let files = records.files.iter();
    MapTotals {
        spaces: records.spaces.len() as u64,
        files: records.files.len() as u64,
        logical_bytes: spaces.clone().map(SpaceRecord::bytes).sum::<u64>()
            + files.clone().map(|file| file.bytes).sum::<u64>(),
        stored_bytes: spaces.map(|space| space_stored(&space.map)).sum::<u64>()
            + files.map(|file| file_stored(&file.map)).sum::<u64>(),
    }
}

fn space_stored(map: &SpaceMap) -> u64 {
    let extents_stored =
        |extents: &[Extent]| extents.iter().flat_map(|extent| &extent.pieces).map(|piece| piece.stored_bytes()).sum();
    match map {
        SpaceMap::Inline(extents) => extents_stored(extents),
        SpaceMap::Blocks(blocks) => blocks.iter().map(|block| block.stored_bytes).sum(),
    }
}

fn file_stored(map: &FileMap) -> u64 {
    match map {
        FileMap::Inline(pieces) => pieces.iter().map(FilePiece::stored_bytes).sum(),
        FileMap::Blocks(blocks) => blocks.iter().map(|block| block.stored_bytes).sum(),
    }
}

fn write_spaces(
    records: Vec<SpaceRecord>,
    base: Option<&Base>,
    maps: &mut MapPacks,
) -> Result<Vec<(SpaceKey, BlockRef)>, BackupError> {
    let mut buckets: BTreeMap<u32, Vec<SpaceRecord>> = BTreeMap::new();
    for record in records {
        buckets.entry(space_bucket(record.key.space)).or_default().push(record);
    }
    let mut known: BTreeMap<u32, Vec<&SpaceRecord>> = BTreeMap::new();
    for record in base.iter().flat_map(|base| base.spaces.values()) {
        known.entry(space_bucket(record.key.space)).or_default().push(record);
    }
    let mut directories = Vec::with_capacity(buckets.len());
    for (bucket, mut records) in buckets {
        let first = records[0].key;
        let same = known.get(&bucket).is_some_and(|known| known.iter().copied().eq(records.iter()));
        let shared = base.filter(|_| same).and_then(|base| base.root.space_directory(first)).copied();
        let block = match shared.filter(|block| base.is_some_and(|base| base.holds(&block.at.pack))) {
            Some(block) => block,
            None => {
                maps.make_room()?;
                for record in &mut records {
                    if let SpaceMap::Blocks(blocks) = &mut record.map {
                        blocks.iter_mut().for_each(|block| block.block = maps.locate(block.block));
                    }
                }
                maps.add(SpaceDirectory { records }.encode())?
            }
        };
        directories.push((first, block));
    }
    Ok(directories)
}

fn write_files(
    records: Vec<FileRecord>,
    base: Option<&Base>,
    maps: &mut MapPacks,
) -> Result<Vec<(String, BlockRef)>, BackupError> {
    let known = groups(base.iter().flat_map(|base| base.files.values()));
    let mut directories = Vec::new();
    for (first, group) in groups(records.iter()) {
        let same = known.get(&first).is_some_and(|known| *known == group);
        let shared = base.filter(|_| same).and_then(|base| base.root.file_directory(&first)).copied();
        let block = match shared.filter(|block| base.is_some_and(|base| base.holds(&block.at.pack))) {
            Some(block) => block,
            None => {
                maps.make_room()?;
                let mut records: Vec<FileRecord> = group.into_iter().cloned().collect();
                for record in &mut records {
                    if let FileMap::Blocks(blocks) = &mut record.map {
                        blocks.iter_mut().for_each(|block| block.block = maps.locate(block.block));
                    }
                }
                maps.add(FileDirectory { records }.encode())?
            }
        };
        directories.push((first, block));
    }
    Ok(directories)
}

/// Files, by path, cut where a path says so.
fn groups<'a>(records: impl Iterator<Item = &'a FileRecord>) -> BTreeMap<String, Vec<&'a FileRecord>> {
    let mut groups: BTreeMap<String, Vec<&FileRecord>> = BTreeMap::new();
    let mut first: Option<String> = None;
    for record in records {
        if first.is_none() || file_begins_block(&record.path) {
            first = Some(record.path.clone());
        }
        if let Some(first) = &first {
            groups.entry(first.clone()).or_default().push(record);
        }
    }
    groups
}
