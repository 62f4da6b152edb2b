//! Packs: many compressed chunks in one object, with a directory at its end.
//!
//! ```text
//! header 48 B │ chunk │ chunk │ … │ directory (zstd) │ footer 64 B
//! ```
//! The byte layout is in FORMAT.md, "Packs".

use std::ops::Range;

use super::seal::{PackSeal, SALT_BYTES, SEAL_BYTES};
use super::{Decoder, Encoder, FormatError, Keyring, PageSum, hash};
use crate::model::{ChunkId, EXTENT_PAGES, PackId};

/// Bytes before the first chunk.
pub const HEADER_BYTES: usize = 48;
/// Bytes after the directory.
pub const FOOTER_BYTES: usize = 64;
/// A pack is closed once it holds this much: one PUT, small enough to retry, large enough that requests cost little.
pub const PACK_BYTES_TARGET: usize = 16 << 20;
/// No reader accepts a larger pack: the target, the largest chunk, and a directory, with room to spare.
pub const PACK_BYTES_MAX: u64 = 64 << 20;
/// Largest chunk before compression: an extent of 64 KiB pages.
pub const CHUNK_BYTES_MAX: usize = 4 << 20;
/// Longest directory before compression; bounds what a reader allocates for a pack's end.
pub const DIRECTORY_BYTES_MAX: usize = 32 << 20;
/// Room beyond the target for the last chunk and a usual directory.
const ROOM_BYTES: usize = CHUNK_BYTES_MAX + (1 << 20);
/// A pack of very small chunks is closed once its directory holds this much, so that no reader refuses it.
const DIRECTORY_BYTES_TARGET: usize = 8 << 20;

const MAGIC: &[u8; 8] = b"HAULPACK";
const FOOTER_MAGIC: &[u8; 8] = b"HAULPEND";
const VERSION: u8 = 1;
const SEAL_NONE: u8 = 0;
const SEAL_AES: u8 = 1;
/// The part of the footer that a sealed directory is bound to: all that stands before its hash.
const FOOTER_BOUND_BYTES: usize = 24;
/// id, offset, stored length, raw length, encoding, number of sums.
const ENTRY_BYTES_MIN: usize = 32 + 4 + 4 + 4 + 1 + 1;
const SUM_BYTES: usize = 16;
/// The largest thing that a pack holds: a map block may be longer than a chunk of data.
const ENTRY_RAW_BYTES_MAX: u32 = super::map::BLOCK_BYTES_MAX;

/// What a pack holds: data and maps lie apart, so that a map can be read without its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PackKind {
    /// Chunks of pages and of files.
    Data,
    /// Map blocks.
    Map,
}

impl PackKind {
    /// The byte that stands for it.
    pub const fn to_byte(self) -> u8 {
        match self {
            PackKind::Data => 1,
            PackKind::Map => 2,
        }
    }
}

/// How a chunk is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// As it is, because compression did not make it smaller.
    Raw,
    /// One zstd frame.
    Zstd,
}

impl Encoding {
    /// The byte that stands for it.
    pub const fn to_byte(self) -> u8 {
        match self {
            Encoding::Raw => 0,
            Encoding::Zstd => 1,
        }
    }

    /// The encoding that `byte` stands for.
    pub const fn from_byte(byte: u8) -> Option<Encoding> {
        match byte {
            0 => Some(Encoding::Raw),
            1 => Some(Encoding::Zstd),
            _ => None,
        }
    }
}

/// One line of a pack's directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackEntry {
    /// Name of the chunk.
    pub id: ChunkId,
    /// Where the stored bytes begin in the pack.
    pub offset: u32,
    /// Length of the stored bytes.
    pub stored_bytes: u32,
    /// Length of the chunk itself.
    pub raw_bytes: u32,
    /// How it is stored.
    pub encoding: Encoding,
    /// A sum for each page of a chunk of pages, in its order; none for other chunks.
    pub sums: Vec<PageSum>,
}

/// A chunk about to be put into a pack.
#[derive(Debug, Clone)]
pub struct NewChunk<'a> {
    /// Name of the chunk.
    pub id: ChunkId,
    /// Length before compression.
    pub raw_bytes: u32,
    /// How `stored` came from the chunk's bytes.
    pub encoding: Encoding,
    /// A sum for each page of a chunk of pages.
    pub sums: &'a [PageSum],
    /// The stored bytes.
    pub stored: &'a [u8],
}

/// Fills one pack.
#[derive(Debug)]
pub struct PackBuilder {
    bytes: Vec<u8>,
    entries: Vec<PackEntry>,
    directory_bytes: usize,
    seal: Option<PackSeal>,
    fault: Option<FormatError>,
}

/// Where a chunk came to lie in a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    /// First byte in the pack.
    pub offset: u32,
    /// Number of bytes in the pack: in a sealed one more than the chunk brought.
    pub stored_bytes: u32,
}

/// A pack ready to be stored.
#[derive(Debug)]
pub struct FinishedPack {
    /// Name: the hash of `bytes`.
    pub id: PackId,
    /// The whole object.
    pub bytes: Vec<u8>,
    /// Its directory.
    pub entries: Vec<PackEntry>,
}

impl PackBuilder {
    /// An empty pack of `kind` of a repository that is not sealed; [`Keyring::new_pack`] makes one of any.
    pub fn new(kind: PackKind) -> PackBuilder {
        // Never to grow: a pack that moved while it was filled would leave a hole of its size in the heap each time.
        let mut bytes = Vec::with_capacity(PACK_BYTES_TARGET + ROOM_BYTES);
        bytes.extend_from_slice(MAGIC);
        bytes.push(VERSION);
        bytes.push(kind.to_byte());
        bytes.push(SEAL_NONE);
        bytes.resize(HEADER_BYTES, 0);
        PackBuilder { bytes, entries: Vec::new(), directory_bytes: 0, seal: None, fault: None }
    }

    pub(super) fn sealed(kind: PackKind, seal: PackSeal) -> PackBuilder {
        let mut builder = PackBuilder::new(kind);
        builder.bytes[10] = SEAL_AES;
        builder.bytes[11..11 + SALT_BYTES].copy_from_slice(seal.salt());
        PackBuilder { seal: Some(seal), ..builder }
    }

    /// The same pack in the memory of `room`, whatever that holds.
    pub fn moved_into(mut self, mut room: Vec<u8>) -> PackBuilder {
        if room.capacity() >= PACK_BYTES_TARGET + ROOM_BYTES {
            room.clear();
            room.extend_from_slice(&self.bytes);
            self.bytes = room;
        }
        self
    }

    /// Appends a chunk, and seals it where the repository is sealed. What may go wrong with that, [`PackBuilder::finish`] tells.
    pub fn add(&mut self, chunk: &NewChunk<'_>) -> Placed {
        let offset = self.bytes.len() as u32;
        match &self.seal {
            None => self.bytes.extend_from_slice(chunk.stored),
            Some(seal) => {
                if let Err(error) = seal.push_chunk(&mut self.bytes, &chunk.id, chunk.stored) {
                    self.fault.get_or_insert(error);
                }
            }
        }
        let stored_bytes = self.bytes.len() as u32 - offset;
        self.directory_bytes += ENTRY_BYTES_MIN + SUM_BYTES * chunk.sums.len();
        self.entries.push(PackEntry {
            id: chunk.id,
            offset,
            stored_bytes,
            raw_bytes: chunk.raw_bytes,
            encoding: chunk.encoding,
            sums: chunk.sums.to_vec(),
        });
        Placed { offset, stored_bytes }
    }

    /// Another with the same chunks so far; none of a sealed pack, in which each place is sealed once.
    pub fn copied(&self) -> Option<PackBuilder> {
        if self.seal.is_some() {
            return None;
        }
        let (bytes, entries) = (self.bytes.clone(), self.entries.clone());
        Some(PackBuilder { bytes, entries, directory_bytes: self.directory_bytes, seal: None, fault: None })
    }

    /// Bytes so far, without the directory.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// True when the pack should be closed.
    pub fn is_full(&self) -> bool {
        self.bytes.len() >= PACK_BYTES_TARGET || self.directory_bytes >= DIRECTORY_BYTES_TARGET
    }

    /// True when nothing was added.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Closes the pack.
    ///
    /// # Errors
    /// When a chunk could not be sealed, or the directory cannot be compressed or sealed.
    pub fn finish(mut self) -> Result<FinishedPack, FormatError> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        let mut directory = Encoder::new();
        for entry in &self.entries {
            directory.raw(&entry.id.0);
            directory.u32(entry.offset);
            directory.u32(entry.stored_bytes);
            directory.u32(entry.raw_bytes);
            directory.u8(entry.encoding.to_byte());
            directory.u8(entry.sums.len() as u8);
            entry.sums.iter().for_each(|sum| directory.raw(&sum.0));
        }
        let raw = directory.finish();
        let compressed = zstd::bulk::compress(&raw, 1)
            .map_err(|source| FormatError::Compression { what: "pack directory", source })?;
        let stored_bytes = compressed.len() + if self.seal.is_some() { SEAL_BYTES } else { 0 };
        let offset = self.bytes.len();
        let mut footer = Encoder::new();
        footer.u64(offset as u64);
        footer.u32(stored_bytes as u32);
        footer.u32(raw.len() as u32);
        footer.u32(self.entries.len() as u32);
        footer.u32(0);
        let footer = footer.finish();
        match &self.seal {
            None => self.bytes.extend_from_slice(&compressed),
            Some(seal) => seal.push_directory(&mut self.bytes, &footer, &compressed)?,
        }
        let hash = blake3::hash(&self.bytes[offset..]);
        self.bytes.extend_from_slice(&footer);
        self.bytes.extend_from_slice(hash.as_bytes());
        self.bytes.extend_from_slice(FOOTER_MAGIC);
        Ok(FinishedPack { id: hash::pack_id(&self.bytes), bytes: self.bytes, entries: self.entries })
    }
}

/// Finishes a pack under a name that `is_damaged` does not know; chunks stay where they are in it. Where it would take such a name, one
/// small chunk is added that nobody refers to. Also gives what would have borne those names.
///
/// # Errors
/// When the directory cannot be compressed.
pub fn finish_apart(
    mut pack: PackBuilder,
    kind: PackKind,
    namer: &super::Namer,
    is_damaged: impl Fn(&PackId) -> bool,
) -> Result<(FinishedPack, Vec<FinishedPack>), FormatError> {
    let mut damaged = Vec::new();
    // Each turn meets another of the damaged names, which are finite in number.
    loop {
        // A sealed pack has a random salt, and by that a name that no other has.
        let Some(copy) = pack.copied() else { return Ok((pack.finish()?, damaged)) };
        let finished = copy.finish()?;
        if !is_damaged(&finished.id) {
            return Ok((finished, damaged));
        }
        let marker = format!("instead of pack {}\n", finished.id).into_bytes();
        let id = match kind {
            PackKind::Data => namer.chunk_of_file(&marker),
            PackKind::Map => namer.map_block(&marker),
        };
        let raw_bytes = marker.len() as u32;
        pack.add(&NewChunk { id, raw_bytes, encoding: Encoding::Raw, sums: &[], stored: &marker });
        damaged.push(finished);
    }
}

/// The last 64 bytes of a pack, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackFooter {
    directory_offset: u64,
    directory_stored_bytes: u32,
    directory_raw_bytes: u32,
    entries: u32,
    directory_hash: [u8; 32],
    /// The bytes of the footer that a sealed directory is bound to.
    bound: [u8; FOOTER_BOUND_BYTES],
}

impl PackFooter {
    /// Parses the footer of a pack of `pack_bytes` bytes.
    ///
    /// # Errors
    /// When it is no footer, or speaks of a directory that does not end where the footer begins.
    pub fn parse(footer: &[u8], pack_bytes: u64) -> Result<PackFooter, FormatError> {
        let mut decoder = Decoder::new("pack footer", footer);
        let bound = footer.first_chunk().copied().ok_or_else(|| decoder.fault("it ends early"))?;
        let parsed = PackFooter {
            bound,
            directory_offset: decoder.u64()?,
            directory_stored_bytes: decoder.u32()?,
            directory_raw_bytes: decoder.u32()?,
            entries: decoder.u32()?,
            directory_hash: match decoder.u32()? {
                0 => decoder.array()?,
                other => return Err(decoder.fault(format!("reserved bytes hold {other}"))),
            },
        };
        if decoder.raw(8)? != FOOTER_MAGIC {
            return Err(decoder.fault("no pack footer"));
        }
        let end = parsed.directory_offset.checked_add(u64::from(parsed.directory_stored_bytes) + FOOTER_BYTES as u64);
        let begins_after_header = parsed.directory_offset >= HEADER_BYTES as u64;
        if end != Some(pack_bytes) || !begins_after_header || parsed.directory_raw_bytes as usize > DIRECTORY_BYTES_MAX
        {
            return Err(decoder.fault(format!("directory does not fit a pack of {pack_bytes} bytes")));
        }
        decoder.finish()?;
        Ok(parsed)
    }

    /// Where the directory's stored bytes lie in the pack.
    pub fn directory_range(&self) -> Range<u64> {
        self.directory_offset..self.directory_offset + u64::from(self.directory_stored_bytes)
    }

    /// Parses the directory from its stored bytes.
    ///
    /// # Errors
    /// When the bytes are not those that the footer speaks of, were not sealed as its directory, or an entry points outside the chunks.
    pub fn parse_directory(&self, stored: &[u8], keyring: &Keyring) -> Result<Vec<PackEntry>, FormatError> {
        if blake3::hash(stored).as_bytes() != &self.directory_hash {
            return Err(Decoder::new("pack directory", stored).fault("hash is not the one in the footer"));
        }
        let opened = keyring.open_directory(self.directory_offset as u32, &self.bound, stored)?;
        let raw = decompress("pack directory", Encoding::Zstd, &opened, self.directory_raw_bytes as usize)?;
        let mut decoder = Decoder::new("pack directory", &raw);
        if self.entries as usize > raw.len() / ENTRY_BYTES_MIN {
            return Err(decoder.fault(format!("{} entries announced", self.entries)));
        }
        let mut entries: Vec<PackEntry> = Vec::with_capacity(self.entries as usize);
        let mut free = HEADER_BYTES as u64;
        for _ in 0..self.entries {
            let entry = self.parse_entry(&mut decoder, keyring)?;
            if u64::from(entry.offset) < free {
                return Err(decoder.fault(format!("chunk {} lies over the one before it", entry.id)));
            }
            free = u64::from(entry.offset) + u64::from(entry.stored_bytes);
            entries.push(entry);
        }
        decoder.finish()?;
        Ok(entries)
    }

    fn parse_entry(&self, decoder: &mut Decoder<'_>, keyring: &Keyring) -> Result<PackEntry, FormatError> {
        let id = ChunkId(decoder.array()?);
        let (offset, stored_bytes, raw_bytes) = (decoder.u32()?, decoder.u32()?, decoder.u32()?);
        let encoding = decoder.u8()?;
        let encoding = Encoding::from_byte(encoding).ok_or_else(|| decoder.fault(format!("encoding {encoding}")))?;
        let sum_count = u32::from(decoder.u8()?);
        if sum_count > EXTENT_PAGES {
            return Err(decoder.fault(format!("{sum_count} page sums")));
        }
        let sums = (0..sum_count).map(|_| decoder.array().map(PageSum)).collect::<Result<_, _>>()?;
        let end = u64::from(offset) + u64::from(stored_bytes);
        if (offset as usize) < HEADER_BYTES || end > self.directory_offset {
            return Err(decoder.fault(format!("chunk {id} lies outside the pack")));
        }
        if raw_bytes == 0 || raw_bytes > ENTRY_RAW_BYTES_MAX {
            return Err(decoder.fault(format!("chunk {id} of {raw_bytes} bytes")));
        }
        let expected = keyring.stored_bytes_max(raw_bytes as usize);
        if encoding == Encoding::Raw && stored_bytes as usize != expected {
            return Err(decoder.fault(format!("chunk {id} of {raw_bytes} bytes is stored raw in {stored_bytes}")));
        }
        Ok(PackEntry { id, offset, stored_bytes, raw_bytes, encoding, sums })
    }
}

/// The first 48 bytes of a pack, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackHeader {
    /// What the pack holds.
    pub kind: PackKind,
    /// Salt of a sealed pack.
    pub salt: Option<[u8; SALT_BYTES]>,
}

/// Checks the first 48 bytes of a pack.
///
/// # Errors
/// When they are no header, or one of a later format or with a seal that is not known.
pub fn parse_header(header: &[u8]) -> Result<PackHeader, FormatError> {
    let mut decoder = Decoder::new("pack header", header);
    if decoder.raw(8)? != MAGIC {
        return Err(decoder.fault("no pack"));
    }
    let version = decoder.u8()?;
    if version == 0 {
        return Err(decoder.fault("version 0"));
    }
    if version > VERSION {
        return Err(FormatError::Newer { what: "pack", found: u32::from(version), supported: u32::from(VERSION) });
    }
    let kind = match decoder.u8()? {
        1 => PackKind::Data,
        2 => PackKind::Map,
        other => return Err(decoder.fault(format!("pack kind {other}"))),
    };
    let salt = match decoder.u8()? {
        SEAL_NONE => None,
        SEAL_AES => Some(decoder.array()?),
        other => return Err(FormatError::Sealed { what: "pack", seal: format!("seal {other}") }),
    };
    let reserved = HEADER_BYTES - 11 - if salt.is_some() { SALT_BYTES } else { 0 };
    if decoder.raw(reserved)?.iter().any(|byte| *byte != 0) {
        return Err(decoder.fault("reserved bytes are not zero"));
    }
    decoder.finish()?;
    Ok(PackHeader { kind, salt })
}

/// A pack taken apart and proven: header, footer, directory.
#[derive(Debug)]
pub struct ParsedPack {
    /// What it holds.
    pub kind: PackKind,
    /// Its directory.
    pub entries: Vec<PackEntry>,
}

/// Proves that `bytes` are the pack whose name is `id`, as anyone can who has no key.
///
/// # Errors
/// When the bytes do not bear that name.
pub fn check_name(id: PackId, bytes: &[u8]) -> Result<(), FormatError> {
    let found = hash::pack_id(bytes);
    if found != id {
        return Err(FormatError::WrongHash { what: "pack", expected: id.to_string(), found: found.to_string() });
    }
    Ok(())
}

/// Parses a whole pack whose name is `id`.
///
/// # Errors
/// When the bytes do not bear that name, or are no pack, or none of this repository.
pub fn parse_pack(id: PackId, bytes: &[u8], keyring: &Keyring) -> Result<ParsedPack, FormatError> {
    check_name(id, bytes)?;
    parse_changed_pack(bytes, keyring)
}

/// Parses a whole pack whose bytes need not be those that its name stands for: which of its chunks are as they were, their own
/// names tell.
///
/// # Errors
/// When the bytes are no pack, or its directory is not as it was.
pub fn parse_changed_pack(bytes: &[u8], keyring: &Keyring) -> Result<ParsedPack, FormatError> {
    if bytes.len() < HEADER_BYTES + FOOTER_BYTES {
        return Err(Decoder::new("pack", bytes).fault(format!("{} bytes are no pack", bytes.len())));
    }
    let PackHeader { kind, salt } = parse_header(&bytes[..HEADER_BYTES])?;
    if salt.is_some() != keyring.is_sealed() {
        let problem = if salt.is_some() {
            "it is sealed, and its repository is not"
        } else {
            "it is not sealed, and its repository is"
        };
        return Err(Decoder::new("pack", bytes).fault(problem));
    }
    let footer = PackFooter::parse(&bytes[bytes.len() - FOOTER_BYTES..], bytes.len() as u64)?;
    let range = footer.directory_range();
    let stored = &bytes[range.start as usize..range.end as usize];
    let entries = footer.parse_directory(stored, keyring)?;
    if let Some(salt) = salt.filter(|salt| !stored.starts_with(salt)) {
        return Err(
            Decoder::new("pack", bytes).fault(format!("salt {} is not that of its directory", hex::encode(salt)))
        );
    }
    Ok(ParsedPack { kind, entries })
}

/// Compresses `raw`, or tells that it should be stored as it is.
///
/// # Errors
/// When it is longer than any reader accepts, or zstd fails, which it does for want of memory alone.
pub fn compress(
    compressor: &mut zstd::bulk::Compressor<'_>,
    raw: &[u8],
    into: &mut Vec<u8>,
) -> Result<Encoding, FormatError> {
    if raw.len() > ENTRY_RAW_BYTES_MAX as usize {
        // Refused here, so that no backup is committed that cannot be read.
        return Err(Decoder::new("chunk", raw).fault(format!("{} bytes, {ENTRY_RAW_BYTES_MAX} at most", raw.len())));
    }
    into.clear();
    into.reserve(zstd::zstd_safe::compress_bound(raw.len()));
    compressor.compress_to_buffer(raw, into).map_err(|source| FormatError::Compression { what: "chunk", source })?;
    if into.len() < raw.len() {
        return Ok(Encoding::Zstd);
    }
    into.clear();
    into.extend_from_slice(raw);
    Ok(Encoding::Raw)
}

/// The `raw_bytes` bytes that `stored` holds.
///
/// # Errors
/// When `stored` does not decompress to exactly that many bytes.
pub fn decompress(
    what: &'static str,
    encoding: Encoding,
    stored: &[u8],
    raw_bytes: usize,
) -> Result<Vec<u8>, FormatError> {
    let mut raw = Vec::new();
    match encoding {
        Encoding::Raw => raw.extend_from_slice(stored),
        Encoding::Zstd => decompress_into(what, stored, raw_bytes, &mut raw)?,
    }
    check_length(what, stored, &raw, raw_bytes)?;
    Ok(raw)
}

/// Decompresses `stored` into `raw`, whose room is used again and whose content is replaced.
///
/// # Errors
/// When `stored` does not decompress, or to more than `raw_bytes`.
pub(super) fn decompress_into(
    what: &'static str,
    stored: &[u8],
    raw_bytes: usize,
    raw: &mut Vec<u8>,
) -> Result<(), FormatError> {
    raw.clear();
    raw.reserve(raw_bytes);
    let damaged = |source| FormatError::Compression { what, source };
    let mut decompressor = zstd::bulk::Decompressor::new().map_err(damaged)?;
    // It writes into all the room that there is, which may be more than was asked for.
    decompressor.decompress_to_buffer(stored, raw).map_err(damaged)?;
    Ok(())
}

/// Holds that `raw`, which came of `stored`, is as long as it should be.
pub(super) fn check_length(what: &'static str, stored: &[u8], raw: &[u8], raw_bytes: usize) -> Result<(), FormatError> {
    if raw.len() == raw_bytes {
        return Ok(());
    }
    Err(Decoder::new(what, stored).fault(format!("{raw_bytes} bytes expected, {} found", raw.len())))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::format::Namer;

    fn pack_of(chunks: &[Vec<u8>]) -> FinishedPack {
        let namer = Namer::new(&[0; 32]);
        let mut compressor = zstd::bulk::Compressor::new(1).unwrap();
        let mut builder = PackBuilder::new(PackKind::Data);
        for chunk in chunks {
            let mut stored = Vec::new();
            let encoding = compress(&mut compressor, chunk, &mut stored).unwrap();
            let id = namer.chunk_of_file(chunk);
            let raw_bytes = chunk.len() as u32;
            builder.add(&NewChunk { id, raw_bytes, encoding, sums: &[PageSum([9; 16])], stored: &stored });
        }
        builder.finish().unwrap()
    }

    proptest! {
        #[test]
        fn chunks_come_back_from_a_pack(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..3000), 0..20)) {
            let pack = pack_of(&chunks);
            let parsed = parse_pack(pack.id, &pack.bytes, &Keyring::plain()).unwrap();
            prop_assert_eq!(&parsed.entries, &pack.entries);
            for (entry, chunk) in parsed.entries.iter().zip(&chunks) {
                let stored = &pack.bytes[entry.offset as usize..(entry.offset + entry.stored_bytes) as usize];
                let raw = decompress("chunk", entry.encoding, stored, entry.raw_bytes as usize).unwrap();
                prop_assert_eq!(&raw, chunk);
            }
        }

        #[test]
        fn arbitrary_bytes_are_no_pack_and_no_panic(bytes: Vec<u8>) {
            prop_assert!(parse_pack(hash::pack_id(&bytes), &bytes, &Keyring::plain()).is_err());
            let _ = PackFooter::parse(&bytes, bytes.len() as u64);
            let _ = parse_header(&bytes);
        }
    }

    #[test]
    fn every_changed_byte_of_a_pack_is_noticed() {
        let pack = pack_of(&[vec![1; 500], vec![2; 100]]);
        for place in 0..pack.bytes.len() {
            let mut bytes = pack.bytes.clone();
            bytes[place] ^= 1;
            assert!(parse_pack(pack.id, &bytes, &Keyring::plain()).is_err(), "byte {place}");
        }
    }

    #[test]
    fn a_directory_alone_notices_every_changed_byte() {
        let pack = pack_of(&[vec![1; 500], vec![2; 100]]);
        let size = pack.bytes.len() as u64;
        let footer_at = pack.bytes.len() - FOOTER_BYTES;
        let directory_at = PackFooter::parse(&pack.bytes[footer_at..], size).unwrap().directory_range().start as usize;
        for place in directory_at..pack.bytes.len() {
            let mut bytes = pack.bytes.clone();
            bytes[place] ^= 1;
            let read = PackFooter::parse(&bytes[footer_at..], size).and_then(|footer| {
                let range = footer.directory_range();
                footer.parse_directory(&bytes[range.start as usize..range.end as usize], &Keyring::plain())
            });
            assert!(read.is_err(), "byte {place}");
        }
    }

    /// A pack whose directory holds `entries`, which need not be true.
    fn forged(entries: Vec<PackEntry>) -> Result<ParsedPack, FormatError> {
        let mut builder = PackBuilder::new(PackKind::Data);
        builder.bytes.resize(4096, 7);
        builder.entries = entries;
        let pack = builder.finish().unwrap();
        parse_pack(pack.id, &pack.bytes, &Keyring::plain())
    }

    #[test]
    fn a_directory_that_cannot_be_true_is_refused() {
        let id = ChunkId([1; 32]);
        let entry = |offset, stored_bytes, raw_bytes, encoding| PackEntry {
            id,
            offset,
            stored_bytes,
            raw_bytes,
            encoding,
            sums: Vec::new(),
        };
        let (raw, zstd) = (Encoding::Raw, Encoding::Zstd);
        assert!(forged(vec![entry(48, 100, 100, raw), entry(148, 52, 9000, zstd)]).is_ok());
        let wrong = [
            ("two chunks overlap", vec![entry(48, 100, 100, raw), entry(147, 53, 9000, zstd)]),
            ("chunks out of order", vec![entry(148, 52, 9000, zstd), entry(48, 100, 100, raw)]),
            ("inside the header", vec![entry(47, 100, 100, raw)]),
            ("beyond the last chunk", vec![entry(4000, 97, 97, raw)]),
            ("raw of another length", vec![entry(48, 100, 101, raw)]),
            ("no bytes", vec![entry(48, 0, 0, raw)]),
            ("too long", vec![entry(48, 100, ENTRY_RAW_BYTES_MAX + 1, zstd)]),
        ];
        for (name, entries) in wrong {
            assert!(forged(entries).is_err(), "{name}");
        }
    }

    #[test]
    fn the_longest_map_block_may_stand_in_a_directory() {
        let longest = vec![0; super::super::map::BLOCK_BYTES_MAX as usize];
        let pack = pack_of(&[longest]);
        assert!(parse_pack(pack.id, &pack.bytes, &Keyring::plain()).is_ok());
    }

    #[test]
    fn what_no_reader_accepts_is_not_written() {
        let too_long = vec![0; super::super::map::BLOCK_BYTES_MAX as usize + 1];
        let mut compressor = zstd::bulk::Compressor::new(1).unwrap();
        assert!(compress(&mut compressor, &too_long, &mut Vec::new()).is_err());
    }

    #[test]
    fn a_pack_of_the_smallest_chunks_closes_before_its_directory_is_too_long() {
        let mut builder = PackBuilder::new(PackKind::Data);
        let chunk = NewChunk { id: ChunkId([1; 32]), raw_bytes: 1, encoding: Encoding::Raw, sums: &[], stored: &[0] };
        while !builder.is_full() {
            builder.add(&chunk);
        }
        let pack = builder.finish().unwrap();
        assert!(parse_pack(pack.id, &pack.bytes, &Keyring::plain()).is_ok());
        assert!(pack.bytes.len() as u64 <= PACK_BYTES_MAX);
    }

    #[test]
    fn a_sealed_or_newer_pack_is_named_as_such() {
        let mut header = pack_of(&[]).bytes[..HEADER_BYTES].to_vec();
        header[10] = 2;
        assert!(matches!(parse_header(&header), Err(FormatError::Sealed { .. })));
        header[8] = 2;
        assert!(matches!(parse_header(&header), Err(FormatError::Newer { found: 2, .. })));
        header[8] = 0;
        assert!(matches!(parse_header(&header), Err(FormatError::Block { .. })));
    }
}
