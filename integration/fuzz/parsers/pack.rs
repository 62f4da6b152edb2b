//! Packs, their directories and footers, and what is compressed in them.

use haulout::{
    format::{
        Encoding, Keyring, Namer, PageSum,
        pack::{
            FOOTER_BYTES, HEADER_BYTES, NewChunk, PackBuilder, PackFooter, PackKind, compress, decompress,
            parse_header, parse_pack,
        },
        pack_id,
    },
    model::ChunkId,
};

use super::flipped;

/// Bytes of chunks before a directory that is made up.
const CHUNKS_BYTES: usize = 4096;
/// Longest chunk that is decompressed here; more is only slower.
const RAW_BYTES_MAX: usize = 1 << 20;

/// The first byte tells what follows: a whole pack, a pack's end, a directory, chunks, or a compressed chunk.
pub fn check(input: &[u8]) {
    let Some((how, rest)) = input.split_first() else { return };
    match how % 5 {
        0 => whole(rest),
        1 => end(rest),
        2 => directory(rest),
        3 => chunks(rest),
        _ => chunk(rest),
    }
}

fn whole(bytes: &[u8]) {
    let _ = parse_header(bytes);
    let Ok(parsed) = parse_pack(pack_id(bytes), bytes, &Keyring::plain()) else { return };
    assert!(
        parse_pack(pack_id(bytes), &flipped(bytes, 0..bytes.len()), &Keyring::plain()).is_err(),
        "a flipped bit passes"
    );
    // The same chunks in a pack of their own.
    let mut builder = PackBuilder::new(parsed.kind);
    for entry in &parsed.entries {
        let stored = &bytes[entry.offset as usize..][..entry.stored_bytes as usize];
        let (id, raw_bytes, encoding) = (entry.id, entry.raw_bytes, entry.encoding);
        builder.add(&NewChunk { id, raw_bytes, encoding, sums: &entry.sums, stored });
        if raw_bytes as usize <= RAW_BYTES_MAX {
            let raw = decompress("chunk", encoding, stored, raw_bytes as usize);
            assert!(raw.is_err() || raw.is_ok_and(|raw| raw.len() == raw_bytes as usize));
        }
    }
    let pack = builder.finish().unwrap();
    let again = parse_pack(pack.id, &pack.bytes, &Keyring::plain()).unwrap();
    assert_eq!(again.kind, parsed.kind);
    assert_eq!(again.entries, pack.entries);
    assert_eq!(again.entries.len(), parsed.entries.len());
    for (one, other) in again.entries.iter().zip(&parsed.entries) {
        let fields = |entry: &haulout::format::pack::PackEntry| {
            (entry.id, entry.stored_bytes, entry.raw_bytes, entry.encoding, entry.sums.clone())
        };
        assert_eq!(fields(one), fields(other));
    }
}

/// Four bytes tell how long the pack is; its last bytes follow, as they are read without the rest.
fn end(rest: &[u8]) {
    let Some((pack_bytes, tail)) = rest.split_first_chunk() else { return };
    let pack_bytes = u32::from_be_bytes(*pack_bytes).into();
    let (directory, footer) = tail.split_at(tail.len().saturating_sub(FOOTER_BYTES));
    let Ok(footer) = PackFooter::parse(footer, pack_bytes) else { return };
    let range = footer.directory_range();
    assert!(range.start >= HEADER_BYTES as u64 && range.end + FOOTER_BYTES as u64 == pack_bytes);
    let _ = footer.parse_directory(directory, &Keyring::plain());
}

/// Two bytes tell how many entries are announced, four how long the directory is; its bytes follow.
fn directory(rest: &[u8]) {
    let Some((&[high, low, announced @ ..], raw)) = rest.split_first_chunk::<6>() else { return };
    let stored = zstd::bulk::compress(raw, 1).unwrap();
    // An announced length of 0 stands for the true one.
    let raw_bytes = match u32::from_be_bytes(announced) {
        0 => raw.len() as u32,
        other => other,
    };
    let mut bytes = PackBuilder::new(PackKind::Data).finish().unwrap().bytes[..HEADER_BYTES].to_vec();
    bytes.resize(HEADER_BYTES + CHUNKS_BYTES, 7);
    let offset = bytes.len() as u64;
    bytes.extend_from_slice(&stored);
    bytes.extend_from_slice(&offset.to_le_bytes());
    for field in [stored.len() as u32, raw_bytes, u16::from_be_bytes([high, low]).into(), 0] {
        bytes.extend_from_slice(&field.to_le_bytes());
    }
    bytes.extend_from_slice(blake3::hash(&stored).as_bytes());
    bytes.extend_from_slice(b"HAULPEND");
    whole(&bytes);
}

/// Chunks behind their lengths in two bytes: they come back from a pack, and its end alone notices a flipped bit.
fn chunks(mut rest: &[u8]) {
    let namer = Namer::new(&[0; 32]);
    let mut compressor = zstd::bulk::Compressor::new(1).unwrap();
    let mut builder = PackBuilder::new(PackKind::Data);
    let mut raws = Vec::new();
    while let Some((len, after)) = rest.split_first_chunk() {
        let (raw, later) = after.split_at(after.len().min(u16::from_be_bytes(*len).into()));
        rest = later;
        if raw.is_empty() {
            continue;
        }
        let mut stored = Vec::new();
        let encoding = compress(&mut compressor, raw, &mut stored).unwrap();
        let sums = vec![PageSum([raw[0]; 16]); usize::from(raw[0] % 65)];
        let id = namer.chunk_of_file(raw);
        builder.add(&NewChunk { id, raw_bytes: raw.len() as u32, encoding, sums: &sums, stored: &stored });
        raws.push((id, raw));
    }
    let pack = builder.finish().unwrap();
    let parsed = parse_pack(pack.id, &pack.bytes, &Keyring::plain()).unwrap();
    assert_eq!(parsed.entries, pack.entries);
    assert_eq!(parsed.entries.len(), raws.len());
    for (entry, (id, raw)) in parsed.entries.iter().zip(&raws) {
        let stored = &pack.bytes[entry.offset as usize..][..entry.stored_bytes as usize];
        assert_eq!(entry.id, *id);
        assert_eq!(&decompress("chunk", entry.encoding, stored, entry.raw_bytes as usize).unwrap(), raw);
        named(&namer, *id, entry.encoding, stored, entry.raw_bytes as usize);
    }
    let footer_at = pack.bytes.len() - FOOTER_BYTES;
    let read = |bytes: &[u8]| {
        let footer = PackFooter::parse(&bytes[footer_at..], bytes.len() as u64)?;
        let range = footer.directory_range();
        footer.parse_directory(&bytes[range.start as usize..range.end as usize], &Keyring::plain())
    };
    assert_eq!(read(&pack.bytes).unwrap(), pack.entries);
    let directory_at = PackFooter::parse(&pack.bytes[footer_at..], pack.bytes.len() as u64).unwrap();
    let directory_at = directory_at.directory_range().start as usize;
    assert!(read(&flipped(&pack.bytes, directory_at..pack.bytes.len())).is_err(), "a flipped bit passes");
}

/// A chunk of which a stored bit was flipped does not come back under its name, unless it comes back whole.
fn named(namer: &Namer, id: ChunkId, encoding: Encoding, stored: &[u8], raw_bytes: usize) {
    let whole = decompress("chunk", encoding, stored, raw_bytes).unwrap();
    if let Ok(raw) = decompress("chunk", encoding, &flipped(stored, 0..stored.len()), raw_bytes) {
        assert_eq!(raw == whole, namer.chunk_of_file(&raw) == id);
    }
}

/// Three bytes tell the length before compression; a compressed chunk follows.
fn chunk(rest: &[u8]) {
    let Some((&[high, middle, low], stored)) = rest.split_first_chunk() else { return };
    let raw_bytes = (u32::from_be_bytes([0, high, middle, low]) as usize).min(RAW_BYTES_MAX);
    for encoding in [Encoding::Raw, Encoding::Zstd] {
        let raw = decompress("chunk", encoding, stored, raw_bytes);
        assert!(raw.is_err() || raw.is_ok_and(|raw| raw.len() == raw_bytes));
    }
}
