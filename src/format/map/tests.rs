//! Blocks round-trip, and damaged ones are refused without a panic.

use proptest::prelude::*;

use super::*;
use crate::format::Encoding;
use crate::model::{ChunkId, ExtentNo, PackId, PageMask, PageSize, SpaceId};

fn pack(number: u8) -> PackRef {
    PackRef { id: PackId([number; 32]), bytes: 64 << 20 }
}

fn location() -> impl Strategy<Value = Location> {
    (1u8..5, 0u32..1 << 24, 0u32..1 << 20, any::<bool>()).prop_map(|(number, offset, stored_bytes, raw)| Location {
        pack: pack(number),
        offset,
        stored_bytes,
        encoding: if raw { Encoding::Raw } else { Encoding::Zstd },
    })
}

fn content(mask: PageMask) -> impl Strategy<Value = Content> {
    prop_oneof![
        Just(Content::Zero),
        (location(), any::<[u8; 32]>(), any::<u64>(), any::<bool>()).prop_map(move |(at, id, more, same)| {
            let pages = if same { mask } else { mask.union(PageMask(more)) };
            Content::Chunk(PageChunk { id: ChunkId(id), pages, at })
        }),
    ]
}

prop_compose! {
    fn pieces()(cut in any::<u64>())(
        first in content(PageMask(cut | 1)),
        second in content(PageMask(!(cut | 1))),
        cut in Just(cut | 1),
    ) -> Vec<Piece> {
        let (one, other) = (PageMask(cut), PageMask(!cut));
        let mut pieces = vec![Piece { mask: one, content: first }];
        if !other.is_empty() {
            pieces.push(Piece { mask: other, content: second });
        }
        pieces
    }
}

fn extents(from: u32) -> impl Strategy<Value = Vec<Extent>> {
    prop::collection::btree_map(0..BLOCK_EXTENTS, pieces(), 1..20).prop_map(move |extents| {
        extents.into_iter().map(|(no, pieces)| Extent { no: ExtentNo(from + no), pieces }).collect()
    })
}

fn block_ref() -> impl Strategy<Value = BlockRef> {
    (any::<[u8; 32]>(), 0..BLOCK_BYTES_MAX, location()).prop_map(|(id, raw_bytes, at)| BlockRef {
        id: ChunkId(id),
        raw_bytes,
        at,
    })
}

prop_compose! {
    fn space(number: u32)(
        part in 0u16..3,
        pages in any::<u32>(),
        encrypted in any::<Option<bool>>(),
        identity in any::<Option<(u64, Option<i64>)>>(),
        suspect in any::<bool>(),
        mode in any::<Option<u32>>(),
        map in prop_oneof![
            extents(0).prop_map(SpaceMap::Inline),
            prop::collection::btree_map(0u32..100, (any::<u64>(), block_ref()), 0..5).prop_map(|blocks| SpaceMap::Blocks(
                blocks.into_iter().map(|(index, (stored_bytes, block))| ExtentBlockRef { index, stored_bytes, block }).collect()
            )),
        ],
    ) -> SpaceRecord {
        SpaceRecord {
            key: SpaceKey { space: SpaceId(number), part },
            name: format!("shop/t{number}.ibd"),
            page_size: PageSize::new(16384).unwrap(),
            flags: 21,
            encrypted,
            pages,
            identity: identity.map(|(inode, born_ns)| FileIdentity { inode, born_ns }),
            suspect,
            mode,
            map,
        }
    }
}

prop_compose! {
    fn file_piece()(bytes in 1u32..1 << 20, skip in 0u32..1 << 10, id: [u8; 32], at in location(), zero: bool) -> FilePiece {
        let source = FileSource::Chunk { id: ChunkId(id), raw_bytes: bytes + skip, skip, at };
        FilePiece { bytes, source: if zero { FileSource::Zero } else { source } }
    }
}

proptest! {
    #[test]
    fn extent_blocks_round_trip(index in 0u32..100, part in 0u16..3, seed in any::<u32>(), extents in extents(0)) {
        let extents = extents
            .into_iter()
            .map(|extent| Extent { no: ExtentNo(extent.no.0 + index * BLOCK_EXTENTS), ..extent })
            .collect();
        let block = ExtentBlock { key: SpaceKey { space: SpaceId(seed), part }, index, extents };
        prop_assert_eq!(ExtentBlock::decode(&block.encode(), pack(9)).unwrap(), block);
    }

    #[test]
    fn space_directories_round_trip(one in space(3), other in space(17)) {
        let directory = SpaceDirectory { records: vec![one.clone(), other] };
        let decoded = SpaceDirectory::decode(&directory.encode(), pack(9)).unwrap();
        prop_assert_eq!(decoded.find(one.key), Some(&one));
        prop_assert_eq!(decoded, directory);
    }

    #[test]
    fn file_directories_and_blocks_round_trip(pieces in prop::collection::vec(file_piece(), 0..8), blocks in prop::collection::vec(block_ref(), 1..4)) {
        let bytes = pieces.iter().map(|piece| u64::from(piece.bytes)).sum();
        let block = FileBlock { pieces: pieces.clone() };
        prop_assert_eq!(FileBlock::decode(&block.encode(), pack(9)).unwrap(), block);
        let refs: Vec<_> = blocks.iter().enumerate().map(|(place, block)| FileBlockRef { offset: place as u64 * 100, stored_bytes: 5, block: *block }).collect();
        let directory = FileDirectory { records: vec![
            FileRecord { path: "a/b.frm".into(), bytes, mode: Some(0o660), map: FileMap::Inline(pieces) },
            FileRecord { path: "a/c.MYD".into(), bytes: 1000, mode: None, map: FileMap::Blocks(refs) },
        ] };
        prop_assert_eq!(FileDirectory::decode(&directory.encode(), pack(9)).unwrap(), directory);
    }

    #[test]
    fn roots_round_trip_and_find_directories(blocks in prop::collection::vec(block_ref(), 3..6)) {
        let spaces = blocks.iter().enumerate().map(|(place, block)| (SpaceKey { space: SpaceId(place as u32 * 64), part: 0 }, *block)).collect();
        let files = blocks.iter().enumerate().map(|(place, block)| (format!("dir{place}/x"), *block)).collect();
        let totals = MapTotals { spaces: 9, files: 8, logical_bytes: 7, stored_bytes: 6 };
        let root = MapRoot { totals, spaces, files };
        prop_assert_eq!(&MapRoot::decode(&root.encode(), pack(9)).unwrap(), &root);
        prop_assert_eq!(root.space_directory(SpaceKey { space: SpaceId(70), part: 0 }), Some(&blocks[1]));
        prop_assert_eq!(root.file_directory("dir1/y"), Some(&blocks[1]));
        prop_assert_eq!(root.file_directory("aaa"), None);
    }

    #[test]
    fn arbitrary_bytes_are_refused_without_a_panic(kind in 1u8..6, mut bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        bytes.insert(0, kind);
        let _ = MapRoot::decode(&bytes, pack(9));
        let _ = SpaceDirectory::decode(&bytes, pack(9));
        let _ = FileDirectory::decode(&bytes, pack(9));
        let _ = ExtentBlock::decode(&bytes, pack(9));
        let _ = FileBlock::decode(&bytes, pack(9));
    }
}

#[test]
fn a_page_in_two_pieces_is_refused() {
    let piece = Piece { mask: PageMask(3), content: Content::Zero };
    let extent = Extent { no: ExtentNo(0), pieces: vec![piece, Piece { mask: PageMask(2), content: Content::Zero }] };
    let block = ExtentBlock { key: SpaceKey { space: SpaceId(1), part: 0 }, index: 0, extents: vec![extent] };
    assert!(ExtentBlock::decode(&block.encode(), pack(9)).is_err());
}

#[test]
fn a_path_out_of_the_datadir_is_refused() {
    for path in ["../etc/passwd", "/etc/passwd", "a//b", "a/./b", "", "a/.."] {
        let record = FileRecord { path: path.into(), bytes: 0, mode: None, map: FileMap::Inline(Vec::new()) };
        let directory = FileDirectory { records: vec![record] };
        assert!(FileDirectory::decode(&directory.encode(), pack(9)).is_err(), "{path}");
    }
}

#[test]
fn a_block_finds_what_lies_in_its_own_pack() {
    let at = Location { pack: PackRef::HOME, offset: 48, stored_bytes: 100, encoding: Encoding::Zstd };
    let content = Content::Chunk(PageChunk { id: ChunkId([1; 32]), pages: PageMask(1), at });
    let extents = vec![Extent { no: ExtentNo(0), pieces: vec![Piece { mask: PageMask(1), content }] }];
    // A location must lie inside its pack, and the size of one's own is known to the reader alone.
    let block = ExtentBlock { key: SpaceKey { space: SpaceId(1), part: 0 }, index: 0, extents };
    let decoded = ExtentBlock::decode(&block.encode(), pack(9)).unwrap();
    let Content::Chunk(chunk) = decoded.extents[0].pieces[0].content else { panic!("a chunk was written") };
    assert_eq!(chunk.at.pack, pack(9));
}

fn piece(mask: u64, pages: u64, at: Location) -> Piece {
    Piece {
        mask: PageMask(mask),
        content: Content::Chunk(PageChunk { id: ChunkId([1; 32]), pages: PageMask(pages), at }),
    }
}

fn block_of(pieces: Vec<Piece>) -> ExtentBlock {
    let extents = vec![Extent { no: ExtentNo(0), pieces }];
    ExtentBlock { key: SpaceKey { space: SpaceId(1), part: 0 }, index: 0, extents }
}

const AT: Location = Location {
    pack: PackRef { id: PackId([7; 32]), bytes: 1000 },
    offset: 48,
    stored_bytes: 100,
    encoding: Encoding::Zstd,
};

#[test]
fn a_piece_that_its_chunk_does_not_hold_is_refused() {
    let decode = |piece| ExtentBlock::decode(&block_of(vec![piece]).encode(), pack(9));
    assert!(decode(piece(0b011, 0b111, AT)).is_ok());
    assert!(decode(piece(0b011, 0b110, AT)).is_err());
    assert!(decode(piece(0, 0b110, AT)).is_err());
    assert!(decode(piece(1, 1, Location { stored_bytes: 953, ..AT })).is_err());
}

#[test]
fn pieces_out_of_order_are_refused() {
    let (one, other) = (piece(0b1, 0b1, AT), piece(0b10, 0b11, AT));
    assert!(ExtentBlock::decode(&block_of(vec![one, other]).encode(), pack(9)).is_ok());
    assert!(ExtentBlock::decode(&block_of(vec![other, one]).encode(), pack(9)).is_err());
}

#[test]
fn a_pack_that_cannot_be_is_refused() {
    for (id, bytes) in [([0; 32], 1), ([0; 32], 1000), ([7; 32], 0), ([7; 32], 111), ([7; 32], (64 << 20) + 1)] {
        let at = Location { pack: PackRef { id: PackId(id), bytes }, offset: 0, stored_bytes: 0, ..AT };
        let block = block_of(vec![piece(1, 1, at)]);
        assert!(ExtentBlock::decode(&block.encode(), pack(9)).is_err(), "{id:?} of {bytes} bytes");
    }
}

#[test]
fn an_extent_beyond_the_last_page_number_is_refused() {
    let last = u32::MAX / 64;
    for (no, good) in [(last, true), (last + 1, false), (u32::MAX, false)] {
        let extents = vec![Extent { no: ExtentNo(no), pieces: vec![piece(1, 1, AT)] }];
        let block = ExtentBlock { index: no / BLOCK_EXTENTS, extents, ..block_of(Vec::new()) };
        assert_eq!(ExtentBlock::decode(&block.encode(), pack(9)).is_ok(), good, "extent {no}");
    }
}

#[test]
fn zeros_with_the_flags_of_a_chunk_are_refused() {
    let block = block_of(vec![Piece { mask: PageMask(1), content: Content::Zero }]);
    let bytes = block.encode();
    let flags = bytes.len() - 9;
    assert_eq!(bytes[flags], 0);
    for bit in 3..8 {
        let mut changed = bytes.clone();
        changed[flags] |= 1 << bit;
        assert!(ExtentBlock::decode(&changed, pack(9)).is_err(), "bit {bit}");
    }
}

#[test]
fn a_file_without_its_pieces_is_refused() {
    let chunk = FileSource::Chunk { id: ChunkId([1; 32]), raw_bytes: 10, skip: 0, at: AT };
    let file = |bytes, map| FileDirectory { records: vec![FileRecord { path: "a".into(), bytes, mode: None, map }] };
    let decode = |bytes, map| FileDirectory::decode(&file(bytes, map).encode(), pack(9));
    let inline = |bytes| FileMap::Inline(vec![FilePiece { bytes, source: chunk }]);
    assert!(decode(10, inline(10)).is_ok());
    assert!(decode(11, inline(10)).is_err(), "too few bytes");
    assert!(decode(9, inline(9)).is_ok(), "part of a chunk");
    assert!(decode(11, inline(11)).is_err(), "more than the chunk holds");
    assert!(decode(0, inline(0)).is_err(), "a piece of nothing");
    assert!(decode(10, FileMap::Blocks(Vec::new())).is_err(), "no blocks");
}

#[test]
fn a_directory_of_nothing_is_refused() {
    assert!(SpaceDirectory::decode(&SpaceDirectory { records: Vec::new() }.encode(), pack(9)).is_err());
    assert!(FileDirectory::decode(&FileDirectory { records: Vec::new() }.encode(), pack(9)).is_err());
}

/// Extent blocks of 16 MiB of one byte take a few KiB in a pack, and must not make a reader take a hundred times their length.
#[test]
fn more_pieces_than_an_extent_has_pages_are_refused_before_they_are_kept() {
    let extents = |pieces: &[u8]| [&[4, 0, 1, 0, 0, 1, 0, pieces.len() as u8][..], pieces].concat();
    let whole = 0b100;
    assert!(ExtentBlock::decode(&extents(&[whole]), pack(9)).is_ok());
    // The second covers the first, and what is wrong with the third must not matter any more.
    let error = ExtentBlock::decode(&extents(&[whole, whole, 0xff]), pack(9)).unwrap_err();
    assert!(error.to_string().contains("a page in two pieces"), "{error}");
}

#[test]
fn more_than_a_block_can_hold_is_refused() {
    let zeros = |count| vec![FilePiece { bytes: 1, source: FileSource::Zero }; count];
    for (count, good) in [(BLOCK_FILE_PIECES, true), (BLOCK_FILE_PIECES + 1, false)] {
        assert_eq!(FileBlock::decode(&FileBlock { pieces: zeros(count) }.encode(), pack(9)).is_ok(), good, "{count}");
    }
    let zero = Piece { mask: PageMask::first(64), content: Content::Zero };
    for (count, good) in [(BLOCK_EXTENTS, true), (BLOCK_EXTENTS + 1, false)] {
        let extents = (0..count).map(|no| Extent { no: ExtentNo(no), pieces: vec![zero] }).collect();
        let record = SpaceRecord { map: SpaceMap::Inline(extents), ..a_space() };
        let directory = SpaceDirectory { records: vec![record] };
        assert_eq!(SpaceDirectory::decode(&directory.encode(), pack(9)).is_ok(), good, "{count}");
    }
}

fn a_space() -> SpaceRecord {
    SpaceRecord {
        key: SpaceKey { space: SpaceId(1), part: 0 },
        name: "shop/t.ibd".to_owned(),
        page_size: PageSize::new(16384).unwrap(),
        flags: 21,
        encrypted: None,
        pages: 64,
        identity: None,
        suspect: false,
        mode: None,
        map: SpaceMap::Inline(Vec::new()),
    }
}

#[test]
fn a_block_has_one_form_only() {
    let other = Location { pack: PackRef { id: PackId([8; 32]), ..AT.pack }, ..AT };
    let block = block_of(vec![piece(0b1, 0b1, AT), piece(0b10, 0b110, other)]);
    let bytes = block.encode();
    assert_eq!(ExtentBlock::decode(&bytes, pack(9)).unwrap(), block);
    let refused = |what: &str, bytes: &[u8], home| {
        let error = ExtentBlock::decode(bytes, home).expect_err(what);
        assert!(error.to_string().contains(what), "{what}: {error}");
    };
    let entry = |place: usize| 2 + 36 * place..2 + 36 * (place + 1);
    // The table's second entry is the first pack again, of another size.
    let mut twice = bytes.clone();
    twice.copy_within(entry(0), entry(1).start);
    twice[entry(1).end - 4] ^= 1;
    refused("in the table twice", &twice, pack(9));
    refused("in the table twice", &bytes, other.pack);
    let mut idle = bytes.clone();
    idle[1] = 3;
    idle.splice(entry(2).start..entry(2).start, [&[9; 32][..], &1000_u32.to_le_bytes()].concat());
    refused("nothing lies in pack", &idle, pack(10));
    let places: Vec<_> = (0..bytes.len()).filter(|at| bytes[*at + 1..].starts_with(&[48, 100])).collect();
    let [first, second] = places[..] else { panic!("two locations at {places:?}") };
    let mut turned = bytes.clone();
    turned[entry(0).start..entry(1).end].rotate_left(36);
    (turned[first], turned[second]) = (1, 0);
    refused("named before", &turned, pack(9));
    // Masks in full where a flag would do.
    let full = block_of(vec![piece(u64::MAX, u64::MAX, AT)]).encode();
    let flags = entry(0).end + 6;
    assert_eq!(full[flags], 0b1110);
    let mut own = full.clone();
    own[flags] = 0b1010;
    own.splice(flags + 1..flags + 1, [0xff; 8]);
    refused("a flag should stand for", &own, pack(9));
    let mut held = full.clone();
    held[flags] = 0b0110;
    held.splice(flags + 1..flags + 1, [0xff; 8]);
    refused("a flag should stand for", &held, pack(9));
    let source = FileSource::Chunk { id: ChunkId([1; 32]), raw_bytes: 10, skip: 0, at: AT };
    let mut whole = FileBlock { pieces: vec![FilePiece { bytes: 10, source }] }.encode();
    let flags = entry(0).end + 1;
    assert_eq!(whole[flags], 0b1010);
    whole[flags] = 0b0010;
    whole.splice(flags + 2..flags + 2, [0, 10]);
    let error = FileBlock::decode(&whole, pack(9)).unwrap_err();
    assert!(error.to_string().contains("a flag should stand for"), "{error}");
}

proptest! {
    /// A changed block may well be another good one: its name tells. What is refused here is what no block can be.
    #[test]
    fn a_block_with_any_byte_changed_is_refused_or_whole(extents in extents(0), record in space(5), place: prop::sample::Index, flip in 1u8..) {
        let block = ExtentBlock { key: SpaceKey { space: SpaceId(1), part: 0 }, index: 0, extents };
        let mut bytes = block.encode();
        bytes[place.index(block.encode().len())] ^= flip;
        if let Ok(found) = ExtentBlock::decode(&bytes, pack(9)) {
            for extent in &found.extents {
                let pages: u32 = extent.pieces.iter().map(|piece| piece.mask.len()).sum();
                prop_assert_eq!(pages, extent.covered().len());
                let _ = extent.no.first_page();
            }
            prop_assert_eq!(&ExtentBlock::decode(&found.encode(), pack(9)).unwrap(), &found);
        }
        let directory = SpaceDirectory { records: vec![record] };
        let mut bytes = directory.encode();
        bytes[place.index(directory.encode().len())] ^= flip;
        if let Ok(found) = SpaceDirectory::decode(&bytes, pack(9)) {
            prop_assert_eq!(&SpaceDirectory::decode(&found.encode(), pack(9)).unwrap(), &found);
        }
    }
}
