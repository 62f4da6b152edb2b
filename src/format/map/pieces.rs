//! Blocks of pieces, and how a piece is written.

use std::collections::{HashMap, HashSet};

use super::{
    BLOCK_EXTENTS, BLOCK_FILE_PIECES, BlockRef, Content, Extent, FilePiece, FileSource, KIND_EXTENTS, KIND_FILE_PIECES,
    Location, PackRef, PageChunk, Piece, SpaceKey,
};
use crate::format::pack::CHUNK_BYTES_MAX;
use crate::format::{Decoder, Encoder, Encoding, FormatError};
use crate::model::{ChunkId, EXTENT_PAGES, ExtentNo, PackId, PageMask, SpaceId};

const CONTENT_MASK: u8 = 0b11;
const CONTENT_ZERO: u8 = 0;
const CONTENT_RAW: u8 = 1;
const CONTENT_ZSTD: u8 = 2;
/// The piece has all 64 pages; its mask is left out.
const MASK_IS_FULL: u8 = 1 << 2;
/// The chunk holds just the piece's pages; its own mask is left out.
const CHUNK_IS_MASK: u8 = 1 << 3;
/// The piece begins where its chunk begins and is as long; both figures are left out.
const WHOLE_CHUNK: u8 = 1 << 3;
/// The last extent whose pages have numbers of 32 bits.
const EXTENT_NO_MAX: u32 = u32::MAX / EXTENT_PAGES;
/// An extent takes at least its number, its count of pieces and the shortest piece.
const EXTENT_BYTES_MIN: usize = 3;

/// The packs that a block speaks of, each once; pieces name them by their place in this table.
#[derive(Debug, Default)]
pub(super) struct PackTable {
    packs: Vec<PackRef>,
    places: HashMap<PackId, u32>,
}

impl PackTable {
    /// Place of `pack` in the table, put there if it is new.
    pub(super) fn place(&mut self, pack: PackRef) -> u64 {
        let next = self.packs.len() as u32;
        let place = *self.places.entry(pack.id).or_insert(next);
        if place == next {
            self.packs.push(pack);
        }
        u64::from(place)
    }

    /// A block: its kind, the table, and `body`, which names packs by their place.
    pub(super) fn block(self, kind: u8, body: Encoder) -> Vec<u8> {
        let mut block = Encoder::new();
        block.u8(kind);
        block.varint(self.packs.len() as u64);
        for pack in &self.packs {
            block.raw(&pack.id.0);
            block.u32(pack.bytes);
        }
        block.raw(&body.finish());
        block.finish()
    }
}

/// Every pack that a block of pieces speaks of, from its table alone: what must be there for the block to be of use.
///
/// # Errors
/// When the bytes, which lie in pack `home`, do not begin like such a block.
pub fn packs_of_pieces(bytes: &[u8], home: PackRef) -> Result<Vec<PackRef>, FormatError> {
    let kind = if bytes.first() == Some(&KIND_FILE_PIECES) { KIND_FILE_PIECES } else { KIND_EXTENTS };
    Ok(PackList::read(&mut Decoder::new("block of pieces", bytes), kind, home)?.packs)
}

/// The packs of a block that is being read.
#[derive(Debug)]
pub(super) struct PackList {
    packs: Vec<PackRef>,
    /// How many of them a location has named; they stand in the order in which that happens.
    named: usize,
}

impl PackList {
    /// Reads the kind, which must be `kind`, and the table of a block that lies in pack `home`.
    pub(super) fn read(decoder: &mut Decoder<'_>, kind: u8, home: PackRef) -> Result<PackList, FormatError> {
        let found = decoder.u8()?;
        if found != kind {
            return Err(decoder.fault(format!("block of kind {found}, expected {kind}")));
        }
        let count = decoder.count(36)?;
        let (mut packs, mut known) = (Vec::with_capacity(count), HashSet::with_capacity(count));
        for _ in 0..count {
            let pack = PackRef { id: PackId(decoder.array()?), bytes: decoder.u32()? };
            // One pack has one size, and none can name itself.
            if pack.id == home.id || !known.insert(pack.id) {
                return Err(decoder.fault(format!("pack {} stands in the table twice", pack.id)));
            }
            if pack == PackRef::HOME {
                packs.push(home);
                continue;
            }
            // The tag of a pack that was still being filled must never reach a store.
            if pack.id == PackRef::HOME.id || !pack.has_possible_size() {
                return Err(decoder.fault(format!("pack {} of {} bytes", pack.id, pack.bytes)));
            }
            packs.push(pack);
        }
        Ok(PackList { packs, named: 0 })
    }

    /// The pack at `place`, which was named before or is the next.
    fn name(&mut self, decoder: &Decoder<'_>, place: u32) -> Result<PackRef, FormatError> {
        let place = place as usize;
        let pack = *self.packs.get(place).ok_or_else(|| decoder.fault(format!("no pack {place} in the table")))?;
        if place > self.named {
            return Err(decoder.fault(format!("pack {place} is named before pack {}", self.named)));
        }
        self.named = self.named.max(place + 1);
        Ok(pack)
    }

    /// Fails when a pack was not named.
    pub(super) fn finish(self, decoder: &Decoder<'_>) -> Result<(), FormatError> {
        match self.packs.get(self.named) {
            None => Ok(()),
            Some(pack) => Err(decoder.fault(format!("nothing lies in pack {} of the table", pack.id))),
        }
    }
}

pub(super) fn write_location(body: &mut Encoder, packs: &mut PackTable, at: &Location) {
    body.varint(packs.place(at.pack));
    body.varint(u64::from(at.offset));
    body.varint(u64::from(at.stored_bytes));
}

pub(super) fn read_location(
    decoder: &mut Decoder<'_>,
    packs: &mut PackList,
    encoding: Encoding,
) -> Result<Location, FormatError> {
    let place = decoder.varint_u32()?;
    let pack = packs.name(decoder, place)?;
    let (offset, stored_bytes) = (decoder.varint_u32()?, decoder.varint_u32()?);
    if u64::from(offset) + u64::from(stored_bytes) > u64::from(pack.bytes) {
        return Err(decoder.fault(format!("bytes {offset}+{stored_bytes} lie outside pack {}", pack.id)));
    }
    Ok(Location { pack, offset, stored_bytes, encoding })
}

pub(super) fn write_block_ref(body: &mut Encoder, packs: &mut PackTable, block: &BlockRef) {
    body.raw(&block.id.0);
    body.varint(u64::from(block.raw_bytes));
    body.u8(block.at.encoding.to_byte());
    write_location(body, packs, &block.at);
}

pub(super) fn read_block_ref(decoder: &mut Decoder<'_>, packs: &mut PackList) -> Result<BlockRef, FormatError> {
    let id = ChunkId(decoder.array()?);
    let raw_bytes = decoder.varint_u32()?;
    if raw_bytes > super::BLOCK_BYTES_MAX {
        return Err(decoder.fault(format!("map block of {raw_bytes} bytes")));
    }
    let encoding = decoder.u8()?;
    let encoding = Encoding::from_byte(encoding).ok_or_else(|| decoder.fault(format!("encoding {encoding}")))?;
    Ok(BlockRef { id, raw_bytes, at: read_location(decoder, packs, encoding)? })
}

fn content_flag(encoding: Encoding) -> u8 {
    match encoding {
        Encoding::Raw => CONTENT_RAW,
        Encoding::Zstd => CONTENT_ZSTD,
    }
}

fn write_piece(body: &mut Encoder, packs: &mut PackTable, piece: &Piece) {
    let mut flags = if piece.mask == PageMask::first(64) { MASK_IS_FULL } else { 0 };
    if let Content::Chunk(chunk) = &piece.content {
        flags |= content_flag(chunk.at.encoding);
        if chunk.pages == piece.mask {
            flags |= CHUNK_IS_MASK;
        }
    }
    body.u8(flags);
    if flags & MASK_IS_FULL == 0 {
        body.u64(piece.mask.0);
    }
    if let Content::Chunk(chunk) = &piece.content {
        if flags & CHUNK_IS_MASK == 0 {
            body.u64(chunk.pages.0);
        }
        write_location(body, packs, &chunk.at);
        body.raw(&chunk.id.0);
    }
}

fn read_encoding(decoder: &Decoder<'_>, flags: u8, known: u8) -> Result<Option<Encoding>, FormatError> {
    if flags & !known != 0 {
        return Err(decoder.fault(format!("piece flags {flags:#04x}")));
    }
    match flags & CONTENT_MASK {
        // Both flags of this value speak of a chunk, and zeros have none.
        CONTENT_ZERO if flags & CHUNK_IS_MASK != 0 => Err(decoder.fault(format!("piece flags {flags:#04x}"))),
        CONTENT_ZERO => Ok(None),
        CONTENT_RAW => Ok(Some(Encoding::Raw)),
        CONTENT_ZSTD => Ok(Some(Encoding::Zstd)),
        other => Err(decoder.fault(format!("piece content {other}"))),
    }
}

fn read_piece(decoder: &mut Decoder<'_>, packs: &mut PackList) -> Result<Piece, FormatError> {
    let flags = decoder.u8()?;
    let encoding = read_encoding(decoder, flags, CONTENT_MASK | MASK_IS_FULL | CHUNK_IS_MASK)?;
    let mask = if flags & MASK_IS_FULL != 0 { PageMask::first(64) } else { PageMask(decoder.u64()?) };
    let content = match encoding {
        None => Content::Zero,
        Some(encoding) => {
            let pages = if flags & CHUNK_IS_MASK != 0 { mask } else { PageMask(decoder.u64()?) };
            let at = read_location(decoder, packs, encoding)?;
            Content::Chunk(PageChunk { id: ChunkId(decoder.array()?), pages, at })
        }
    };
    if mask.is_empty() {
        return Err(decoder.fault("piece without pages"));
    }
    let spelled_out = match &content {
        Content::Chunk(chunk) => flags & CHUNK_IS_MASK == 0 && chunk.pages == mask,
        Content::Zero => false,
    };
    if spelled_out || flags & MASK_IS_FULL == 0 && mask == PageMask::first(64) {
        return Err(decoder.fault("mask that a flag should stand for"));
    }
    if let Content::Chunk(chunk) = &content
        && !mask.is_subset(chunk.pages)
    {
        return Err(decoder.fault(format!("piece of pages {mask:?} that its chunk {:?} does not hold", chunk.pages)));
    }
    Ok(Piece { mask, content })
}

pub(super) fn write_extents(body: &mut Encoder, packs: &mut PackTable, extents: &[Extent]) {
    body.varint(extents.len() as u64);
    for extent in extents {
        body.varint(u64::from(extent.no.0));
        body.varint(extent.pieces.len() as u64);
        extent.pieces.iter().for_each(|piece| write_piece(body, packs, piece));
    }
}

pub(super) fn read_extents(decoder: &mut Decoder<'_>, packs: &mut PackList) -> Result<Vec<Extent>, FormatError> {
    let count = decoder.count(EXTENT_BYTES_MIN)?;
    if count > BLOCK_EXTENTS as usize {
        return Err(decoder.fault(format!("{count} extents, {BLOCK_EXTENTS} at most")));
    }
    let mut extents: Vec<Extent> = Vec::with_capacity(count);
    for _ in 0..count {
        let no = ExtentNo(decoder.varint_u32()?);
        if extents.last().is_some_and(|last| last.no >= no) || no.0 > EXTENT_NO_MAX {
            return Err(decoder.fault(format!("extent {} is out of order", no.0)));
        }
        extents.push(Extent { no, pieces: read_pieces(decoder, packs, no)? });
    }
    Ok(extents)
}

fn read_pieces(decoder: &mut Decoder<'_>, packs: &mut PackList, no: ExtentNo) -> Result<Vec<Piece>, FormatError> {
    let count = decoder.count(1)?;
    let mut pieces: Vec<Piece> = Vec::with_capacity(count.min(EXTENT_PAGES as usize));
    let mut covered = PageMask::EMPTY;
    // Each piece is held against those before it, so that no more than 64 are kept of however many are announced.
    for _ in 0..count {
        let piece = read_piece(decoder, packs)?;
        if !covered.intersection(piece.mask).is_empty() {
            return Err(decoder.fault(format!("extent {} has a page in two pieces", no.0)));
        }
        let lowest = |piece: &Piece| piece.mask.0.trailing_zeros();
        if pieces.last().is_some_and(|last| lowest(last) > lowest(&piece)) {
            return Err(decoder.fault(format!("pieces of extent {} are out of order", no.0)));
        }
        covered = covered.union(piece.mask);
        pieces.push(piece);
    }
    Ok(pieces)
}

/// Up to 512 extents of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtentBlock {
    /// The file.
    pub key: SpaceKey,
    /// Covers extents 512·index up to 512·index + 511.
    pub index: u32,
    /// The extents, ascending.
    pub extents: Vec<Extent>,
}

impl ExtentBlock {
    /// The block that extent `extent` belongs to.
    pub const fn index_of(extent: ExtentNo) -> u32 {
        extent.0 / BLOCK_EXTENTS
    }

    /// The block's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let (mut body, mut packs) = (Encoder::new(), PackTable::default());
        body.varint(u64::from(self.key.space.0));
        body.varint(u64::from(self.key.part));
        body.varint(u64::from(self.index));
        write_extents(&mut body, &mut packs, &self.extents);
        packs.block(KIND_EXTENTS, body)
    }

    /// Parses a block that lies in pack `home` and checks that every extent belongs to it and no page is covered twice.
    ///
    /// # Errors
    /// When the bytes are no such block.
    pub fn decode(bytes: &[u8], home: PackRef) -> Result<ExtentBlock, FormatError> {
        let mut decoder = Decoder::new("extent block", bytes);
        let mut packs = PackList::read(&mut decoder, KIND_EXTENTS, home)?;
        let key = read_key(&mut decoder)?;
        let index = decoder.varint_u32()?;
        let extents = read_extents(&mut decoder, &mut packs)?;
        if extents.is_empty() {
            return Err(decoder.fault("extent block without extents"));
        }
        if let Some(stray) = extents.iter().find(|extent| ExtentBlock::index_of(extent.no) != index) {
            return Err(decoder.fault(format!("extent {} in block {index}", stray.no.0)));
        }
        packs.finish(&decoder)?;
        decoder.finish()?;
        Ok(ExtentBlock { key, index, extents })
    }
}

pub(super) fn read_key(decoder: &mut Decoder<'_>) -> Result<SpaceKey, FormatError> {
    let space = SpaceId(decoder.varint_u32()?);
    let part = decoder.varint()?;
    let part = u16::try_from(part).map_err(|_| decoder.fault(format!("file {part} of a tablespace")))?;
    Ok(SpaceKey { space, part })
}

pub(super) fn write_file_pieces(body: &mut Encoder, packs: &mut PackTable, pieces: &[FilePiece]) {
    body.varint(pieces.len() as u64);
    for piece in pieces {
        match &piece.source {
            FileSource::Zero => {
                body.u8(CONTENT_ZERO);
                body.varint(u64::from(piece.bytes));
            }
            FileSource::Chunk { id, raw_bytes, skip, at } => {
                let whole = *skip == 0 && *raw_bytes == piece.bytes;
                body.u8(content_flag(at.encoding) | if whole { WHOLE_CHUNK } else { 0 });
                body.varint(u64::from(piece.bytes));
                if !whole {
                    body.varint(u64::from(*skip));
                    body.varint(u64::from(*raw_bytes));
                }
                write_location(body, packs, at);
                body.raw(&id.0);
            }
        }
    }
}

pub(super) fn read_file_pieces(decoder: &mut Decoder<'_>, packs: &mut PackList) -> Result<Vec<FilePiece>, FormatError> {
    let count = decoder.count(2)?;
    if count > BLOCK_FILE_PIECES {
        return Err(decoder.fault(format!("{count} pieces of a file, {BLOCK_FILE_PIECES} at most")));
    }
    let mut pieces = Vec::with_capacity(count);
    for _ in 0..count {
        let flags = decoder.u8()?;
        let encoding = read_encoding(decoder, flags, CONTENT_MASK | WHOLE_CHUNK)?;
        let bytes = decoder.varint_u32()?;
        let source = match encoding {
            None => FileSource::Zero,
            Some(encoding) => {
                let whole = flags & WHOLE_CHUNK != 0;
                let (skip, raw_bytes) = if whole { (0, bytes) } else { (decoder.varint_u32()?, decoder.varint_u32()?) };
                let at = read_location(decoder, packs, encoding)?;
                let id = ChunkId(decoder.array()?);
                if u64::from(skip) + u64::from(bytes) > u64::from(raw_bytes) || raw_bytes as usize > CHUNK_BYTES_MAX {
                    return Err(decoder.fault(format!("stretch {skip}+{bytes} of a chunk of {raw_bytes} bytes")));
                }
                if !whole && skip == 0 && bytes == raw_bytes {
                    return Err(decoder.fault("whole chunk that a flag should stand for"));
                }
                FileSource::Chunk { id, raw_bytes, skip, at }
            }
        };
        if bytes == 0 {
            return Err(decoder.fault("piece without bytes"));
        }
        pieces.push(FilePiece { bytes, source });
    }
    Ok(pieces)
}

/// Up to 1024 consecutive pieces of one plain file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileBlock {
    /// The pieces, in the order of the file.
    pub pieces: Vec<FilePiece>,
}

impl FileBlock {
    /// The block's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let (mut body, mut packs) = (Encoder::new(), PackTable::default());
        write_file_pieces(&mut body, &mut packs, &self.pieces);
        packs.block(KIND_FILE_PIECES, body)
    }

    /// Parses a block that lies in pack `home`.
    ///
    /// # Errors
    /// When the bytes are no such block.
    pub fn decode(bytes: &[u8], home: PackRef) -> Result<FileBlock, FormatError> {
        let mut decoder = Decoder::new("file block", bytes);
        let mut packs = PackList::read(&mut decoder, KIND_FILE_PIECES, home)?;
        let pieces = read_file_pieces(&mut decoder, &mut packs)?;
        packs.finish(&decoder)?;
        decoder.finish()?;
        Ok(FileBlock { pieces })
    }
}
