//! Blocks of a page map.

use haulout::{
    format::map::{
        BlockRef, ExtentBlock, FileBlock, FileDirectory, FileMap, FilePiece, Location, MapRoot, PackRef,
        SpaceDirectory, SpaceKey, SpaceMap,
    },
    model::{PackId, SpaceId},
};

/// The pack that the blocks lie in.
const HERE: PackRef = PackRef { id: PackId([0x5a; 32]), bytes: 64 << 20 };

/// Reads the bytes as each kind of block, at most one of which they are; they must be the block's only form.
pub fn check(input: &[u8]) {
    let kinds = [root(input), spaces(input), files(input), extents(input), file_pieces(input)];
    let written: Vec<_> = kinds.into_iter().flatten().collect();
    assert!(written.len() <= 1, "the same bytes are blocks of {} kinds", written.len());
    if let Some(written) = written.first() {
        assert!(written == input, "a block is written again as {} bytes, it had {}", written.len(), input.len());
    }
}

/// As a block's own bytes name its pack.
fn named(pack: PackRef) -> PackRef {
    if pack == HERE { PackRef::HOME } else { pack }
}

fn block(block: BlockRef) -> BlockRef {
    assert!(block.at.pack.has_possible_size());
    BlockRef { at: location(block.at), ..block }
}

fn location(at: Location) -> Location {
    assert!(u64::from(at.offset) + u64::from(at.stored_bytes) <= u64::from(at.pack.bytes));
    at.map(named)
}

fn root(input: &[u8]) -> Option<Vec<u8>> {
    let mut root = MapRoot::decode(input, HERE).ok()?;
    for (key, found) in &root.spaces {
        assert_eq!(root.space_directory(*key), Some(found));
    }
    for (path, found) in &root.files {
        assert_eq!(root.file_directory(path), Some(found));
    }
    root.spaces.iter_mut().for_each(|(_, found)| *found = block(*found));
    root.files.iter_mut().for_each(|(_, found)| *found = block(*found));
    Some(root.encode())
}

fn spaces(input: &[u8]) -> Option<Vec<u8>> {
    let mut directory = SpaceDirectory::decode(input, HERE).ok()?;
    assert_eq!(directory.find(SpaceKey { space: SpaceId(u32::MAX), part: u16::MAX }), None);
    for record in &mut directory.records {
        assert!(record.extents() <= 1 << 26 && record.bytes() <= 1 << 48);
        match &mut record.map {
            SpaceMap::Inline(extents) => extents.iter_mut().for_each(|extent| *extent = extent.map(named)),
            SpaceMap::Blocks(blocks) => blocks.iter_mut().for_each(|found| found.block = block(found.block)),
        }
    }
    Some(directory.encode())
}

fn files(input: &[u8]) -> Option<Vec<u8>> {
    let mut directory = FileDirectory::decode(input, HERE).ok()?;
    for record in &mut directory.records {
        match &mut record.map {
            FileMap::Inline(pieces) => pieces.iter_mut().for_each(|piece: &mut FilePiece| *piece = piece.map(named)),
            FileMap::Blocks(blocks) => blocks.iter_mut().for_each(|found| found.block = block(found.block)),
        }
    }
    Some(directory.encode())
}

fn extents(input: &[u8]) -> Option<Vec<u8>> {
    let mut block = ExtentBlock::decode(input, HERE).ok()?;
    for extent in &mut block.extents {
        let pages: u32 = extent.pieces.iter().map(|piece| piece.mask.len()).sum();
        assert_eq!(extent.covered().len(), pages, "a page is in two pieces");
        let _ = extent.no.page(63);
        *extent = extent.map(named);
    }
    Some(block.encode())
}

fn file_pieces(input: &[u8]) -> Option<Vec<u8>> {
    let mut block = FileBlock::decode(input, HERE).ok()?;
    block.pieces.iter_mut().for_each(|piece| *piece = piece.map(named));
    Some(block.encode())
}
