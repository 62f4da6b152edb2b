//! Directories of tablespaces and of files.

use super::pieces::{
    PackList, PackTable, read_block_ref, read_extents, read_file_pieces, read_key, write_block_ref, write_extents,
    write_file_pieces,
};
use super::{
    ExtentBlockRef, FileBlockRef, FileIdentity, FileMap, FileRecord, KIND_FILES, KIND_SPACES, PackRef, SpaceKey,
    SpaceMap, SpaceRecord,
};
use crate::format::{Decoder, Encoder, FormatError};
use crate::model::{PageSize, SpaceId};

/// Space ids that share a directory: 2^6.
const BUCKET_BITS: u32 = 6;
/// One path in so many begins a new file directory.
const FILES_PER_BLOCK: u8 = 64;

/// Number of the directory that tablespace `space` stands in.
pub const fn space_bucket(space: SpaceId) -> u32 {
    space.0 >> BUCKET_BITS
}

/// True when a new file directory begins at `path`; depends on the path alone, so that files that come and go move no
/// other boundary.
pub fn file_begins_block(path: &str) -> bool {
    blake3::hash(path.as_bytes()).as_bytes()[0].is_multiple_of(FILES_PER_BLOCK)
}

const MAP_INLINE: u8 = 0;
const MAP_BLOCKS: u8 = 1;

/// Tablespaces whose ids share all but their lowest six bits, ascending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpaceDirectory {
    /// The files, ascending by key.
    pub records: Vec<SpaceRecord>,
}

impl SpaceDirectory {
    /// The block's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let (mut body, mut packs) = (Encoder::new(), PackTable::default());
        body.varint(self.records.len() as u64);
        self.records.iter().for_each(|record| write_space(&mut body, &mut packs, record));
        packs.block(KIND_SPACES, body)
    }

    /// Parses a block that lies in pack `home`.
    ///
    /// # Errors
    /// When the bytes are no such block.
    pub fn decode(bytes: &[u8], home: PackRef) -> Result<SpaceDirectory, FormatError> {
        let mut decoder = Decoder::new("space directory", bytes);
        let mut packs = PackList::read(&mut decoder, KIND_SPACES, home)?;
        let count = decoder.count(8)?;
        let mut records: Vec<SpaceRecord> = Vec::with_capacity(count);
        for _ in 0..count {
            let record = read_space(&mut decoder, &mut packs)?;
            if records.last().is_some_and(|last| last.key >= record.key) {
                return Err(decoder.fault(format!("tablespace {} is out of order", record.key.space)));
            }
            records.push(record);
        }
        if records.is_empty() {
            return Err(decoder.fault("directory without tablespaces"));
        }
        packs.finish(&decoder)?;
        decoder.finish()?;
        Ok(SpaceDirectory { records })
    }

    /// The record of `key`.
    pub fn find(&self, key: SpaceKey) -> Option<&SpaceRecord> {
        self.records.binary_search_by_key(&key, |record| record.key).ok().map(|place| &self.records[place])
    }
}

fn write_space(body: &mut Encoder, packs: &mut PackTable, record: &SpaceRecord) {
    body.varint(u64::from(record.key.space.0));
    body.varint(u64::from(record.key.part));
    body.text(&record.name);
    body.u32(record.page_size.into());
    body.u32(record.flags);
    body.u8(match record.encrypted {
        None => 0,
        Some(false) => 1,
        Some(true) => 2,
    });
    body.varint(u64::from(record.pages));
    body.option(record.identity, |body, identity| {
        body.u64(identity.inode);
        body.option(identity.born_ns, |body, born| body.u64(born as u64));
    });
    body.u8(u8::from(record.suspect));
    body.option(record.mode, |body, mode| body.u32(mode));
    match &record.map {
        SpaceMap::Inline(extents) => {
            body.u8(MAP_INLINE);
            write_extents(body, packs, extents);
        }
        SpaceMap::Blocks(blocks) => {
            body.u8(MAP_BLOCKS);
            body.varint(blocks.len() as u64);
            for block in blocks {
                body.varint(u64::from(block.index));
                body.varint(block.stored_bytes);
                write_block_ref(body, packs, &block.block);
            }
        }
    }
}

fn read_space(decoder: &mut Decoder<'_>, packs: &mut PackList) -> Result<SpaceRecord, FormatError> {
    let key = read_key(decoder)?;
    let name = read_path(decoder)?;
    let page_size = decoder.u32()?;
    let page_size = PageSize::new(page_size).ok_or_else(|| decoder.fault(format!("page size {page_size}")))?;
    let flags = decoder.u32()?;
    let encrypted = match decoder.u8()? {
        0 => None,
        1 => Some(false),
        2 => Some(true),
        other => return Err(decoder.fault(format!("encryption state {other}"))),
    };
    let pages = decoder.varint_u32()?;
    let identity = decoder.option(|decoder| {
        let inode = decoder.u64()?;
        let born_ns = decoder.option(|decoder| decoder.u64())?.map(|born| born as i64);
        Ok(FileIdentity { inode, born_ns })
    })?;
    let suspect = match decoder.u8()? {
        0 => false,
        1 => true,
        other => return Err(decoder.fault(format!("suspicion {other}"))),
    };
    let mode = decoder.option(|decoder| decoder.u32())?;
    let map = match decoder.u8()? {
        MAP_INLINE => SpaceMap::Inline(read_extents(decoder, packs)?),
        MAP_BLOCKS => SpaceMap::Blocks(read_extent_blocks(decoder, packs)?),
        other => return Err(decoder.fault(format!("map form {other}"))),
    };
    Ok(SpaceRecord { key, name, page_size, flags, encrypted, pages, identity, suspect, mode, map })
}

fn read_extent_blocks(decoder: &mut Decoder<'_>, packs: &mut PackList) -> Result<Vec<ExtentBlockRef>, FormatError> {
    let count = decoder.count(32)?;
    let mut blocks: Vec<ExtentBlockRef> = Vec::with_capacity(count);
    for _ in 0..count {
        let index = decoder.varint_u32()?;
        if blocks.last().is_some_and(|last| last.index >= index) {
            return Err(decoder.fault(format!("extent block {index} is out of order")));
        }
        let stored_bytes = decoder.varint()?;
        blocks.push(ExtentBlockRef { index, stored_bytes, block: read_block_ref(decoder, packs)? });
    }
    Ok(blocks)
}

/// Reads a path that stays inside the directory it is put into.
fn read_path(decoder: &mut Decoder<'_>) -> Result<String, FormatError> {
    let path = decoder.text()?;
    let inside = !path.is_empty()
        && !path.bytes().any(|byte| byte == 0)
        && path.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
    if inside { Ok(path) } else { Err(decoder.fault(format!("path {path:?} leads out of the datadir"))) }
}

/// Files whose paths stand next to each other, ascending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileDirectory {
    /// The files, ascending by path.
    pub records: Vec<FileRecord>,
}

impl FileDirectory {
    /// The block's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let (mut body, mut packs) = (Encoder::new(), PackTable::default());
        body.varint(self.records.len() as u64);
        self.records.iter().for_each(|record| write_file(&mut body, &mut packs, record));
        packs.block(KIND_FILES, body)
    }

    /// Parses a block that lies in pack `home`.
    ///
    /// # Errors
    /// When the bytes are no such block.
    pub fn decode(bytes: &[u8], home: PackRef) -> Result<FileDirectory, FormatError> {
        let mut decoder = Decoder::new("file directory", bytes);
        let mut packs = PackList::read(&mut decoder, KIND_FILES, home)?;
        let count = decoder.count(4)?;
        let mut records: Vec<FileRecord> = Vec::with_capacity(count);
        for _ in 0..count {
            let record = read_file(&mut decoder, &mut packs)?;
            if records.last().is_some_and(|last| last.path >= record.path) {
                return Err(decoder.fault(format!("file {:?} is out of order", record.path)));
            }
            records.push(record);
        }
        if records.is_empty() {
            return Err(decoder.fault("directory without files"));
        }
        packs.finish(&decoder)?;
        decoder.finish()?;
        Ok(FileDirectory { records })
    }

    /// The record of `path`.
    pub fn find(&self, path: &str) -> Option<&FileRecord> {
        self.records.binary_search_by(|record| record.path.as_str().cmp(path)).ok().map(|place| &self.records[place])
    }
}

fn write_file(body: &mut Encoder, packs: &mut PackTable, record: &FileRecord) {
    body.text(&record.path);
    body.varint(record.bytes);
    body.option(record.mode, |body, mode| body.u32(mode));
    match &record.map {
        FileMap::Inline(pieces) => {
            body.u8(MAP_INLINE);
            write_file_pieces(body, packs, pieces);
        }
        FileMap::Blocks(blocks) => {
            body.u8(MAP_BLOCKS);
            body.varint(blocks.len() as u64);
            for block in blocks {
                body.varint(block.offset);
                body.varint(block.stored_bytes);
                write_block_ref(body, packs, &block.block);
            }
        }
    }
}

fn read_file(decoder: &mut Decoder<'_>, packs: &mut PackList) -> Result<FileRecord, FormatError> {
    let path = read_path(decoder)?;
    let bytes = decoder.varint()?;
    let mode = decoder.option(|decoder| decoder.u32())?;
    let map = match decoder.u8()? {
        MAP_INLINE => {
            let pieces = read_file_pieces(decoder, packs)?;
            let found: u64 = pieces.iter().map(|piece| u64::from(piece.bytes)).sum();
            if found != bytes {
                return Err(decoder.fault(format!("file {path:?} of {bytes} bytes has pieces for {found}")));
            }
            FileMap::Inline(pieces)
        }
        MAP_BLOCKS => {
            let count = decoder.count(32)?;
            let mut blocks: Vec<FileBlockRef> = Vec::with_capacity(count);
            for _ in 0..count {
                let (offset, stored_bytes) = (decoder.varint()?, decoder.varint()?);
                let in_order = blocks.last().map_or(offset == 0, |last| last.offset < offset) && offset < bytes;
                if !in_order {
                    return Err(decoder.fault(format!("file block at {offset} is out of order")));
                }
                blocks.push(FileBlockRef { offset, stored_bytes, block: read_block_ref(decoder, packs)? });
            }
            if blocks.is_empty() {
                return Err(decoder.fault(format!("file {path:?} has no blocks")));
            }
            FileMap::Blocks(blocks)
        }
        other => return Err(decoder.fault(format!("map form {other}"))),
    };
    Ok(FileRecord { path, bytes, mode, map })
}
