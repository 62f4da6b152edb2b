//! Blocks of pieces, and how a piece is written.

use std::collections::HashMap;

use super::{
    BLOCK_EXTENTS, BlockRef, Content, Extent, FilePiece, FileSource, KIND_EXTENTS, KIND_FILE_PIECES, Location, PackRef,
    PageChunk, Piece, SpaceKey,
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

    /// Reads the kind, which must be `kind`, and the table of a block that lies in pack `home`.
    pub(super) fn read(decoder: &mut Decoder<'_>, kind: u8, home: PackRef) -> Result<Vec<PackRef>, FormatError> {
        let found = decoder.u8()?;
        if found != kind {
            return Err(decoder.fault(format!("block of kind {found}, expected {kind}")));
        }
        let count = decoder.count(36)?;
        let mut packs = Vec::with_capacity(count);
        for _ in 0..count {
            let pack = PackRef { id: PackId(decoder.array()?), bytes: decoder.u32()? };
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
        Ok(packs)
    }
}

pub(super) fn write_location(body: &mut Encoder, packs: &mut PackTable, at: &Location) {
    body.varint(packs.place(at.pack));
    body.varint(u64::from(at.offset));
    body.varint(u64::from(at.stored_bytes));
}

pub(super) fn read_location(
    decoder: &mut Decoder<'_>,
    packs: &[PackRef],
    encoding: Encoding,
) -> Result<Location, FormatError> {
    let place = decoder.varint_u32()?;
    let pack = *packs.get(place as usize).ok_or_else(|| decoder.fault(format!("no pack {place} in the table")))?;
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

pub(super) fn read_block_ref(decoder: &mut Decoder<'_>, packs: &[PackRef]) -> Result<BlockRef, FormatError> {
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

fn read_piece(decoder: &mut Decoder<'_>, packs: &[PackRef]) -> Result<Piece, FormatError> {
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

pub(super) fn read_extents(decoder: &mut Decoder<'_>, packs: &[PackRef]) -> Result<Vec<Extent>, FormatError> {
    let count = decoder.count(EXTENT_BYTES_MIN)?;
    let mut extents: Vec<Extent> = Vec::with_capacity(count);
    for _ in 0..count {
        let no = ExtentNo(decoder.varint_u32()?);
        if extents.last().is_some_and(|last| last.no >= no) || no.0 > EXTENT_NO_MAX {
            return Err(decoder.fault(format!("extent {} is out of order", no.0)));
        }
        let pieces = (0..decoder.count(1)?).map(|_| read_piece(decoder, packs)).collect::<Result<Vec<_>, _>>()?;
        if !pieces.is_sorted_by_key(|piece| piece.mask.0.trailing_zeros()) {
            return Err(decoder.fault(format!("pieces of extent {} are out of order", no.0)));
        }
        let mut covered = PageMask::EMPTY;
        for piece in &pieces {
            if !covered.intersection(piece.mask).is_empty() {
                return Err(decoder.fault(format!("extent {} has a page in two pieces", no.0)));
            }
            covered = covered.union(piece.mask);
        }
        extents.push(Extent { no, pieces });
    }
    Ok(extents)
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
        let packs = PackTable::read(&mut decoder, KIND_EXTENTS, home)?;
        let key = read_key(&mut decoder)?;
        let index = decoder.varint_u32()?;
        let extents = read_extents(&mut decoder, &packs)?;
        if extents.is_empty() {
            return Err(decoder.fault("extent block without extents"));
        }
        if let Some(stray) = extents.iter().find(|extent| ExtentBlock::index_of(extent.no) != index) {
            return Err(decoder.fault(format!("extent {} in block {index}", stray.no.0)));
        }
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

pub(super) fn read_file_pieces(decoder: &mut Decoder<'_>, packs: &[PackRef]) -> Result<Vec<FilePiece>, FormatError> {
    let count = decoder.count(2)?;
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
        let packs = PackTable::read(&mut decoder, KIND_FILE_PIECES, home)?;
        let pieces = read_file_pieces(&mut decoder, &packs)?;
        decoder.finish()?;
        Ok(FileBlock { pieces })
    }
}
