use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;

use super::*;
use crate::format::pack::{FOOTER_BYTES, FinishedPack, HEADER_BYTES, NewChunk, PackFooter, compress, parse_pack};
use crate::format::{Config, Lease, PageSum};
use crate::model::Timestamp;

/// Never the same bytes twice.
struct Counting(AtomicU64);

impl Entropy for Counting {
    fn fill(&self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let next = self.0.fetch_add(1, Ordering::Relaxed).to_le_bytes();
            chunk.copy_from_slice(&next[..chunk.len()]);
        }
    }
}

fn master() -> SecretKey {
    SecretKey::new([7; KEY_BYTES])
}

fn keyring(master: SecretKey) -> Keyring {
    Keyring::sealed(RepositoryKeys::all(master), Arc::new(Counting(AtomicU64::new(1))))
}

fn map_keyring() -> Keyring {
    let keys = RepositoryKeys::all(master());
    let (naming, meta) = keys.map_keys();
    let keys = RepositoryKeys::map(naming.clone(), meta.clone());
    Keyring::sealed(keys, Arc::new(Counting(AtomicU64::new(1))))
}

fn pack_of(keyring: &Keyring, kind: PackKind, chunks: &[Vec<u8>]) -> FinishedPack {
    let mut compressor = zstd::bulk::Compressor::new(1).unwrap();
    let mut builder = keyring.new_pack(kind).unwrap();
    for chunk in chunks {
        let mut stored = Vec::new();
        let encoding = compress(&mut compressor, chunk, &mut stored).unwrap();
        let id = keyring.namer().chunk_of_file(chunk);
        let placed = builder.add(&NewChunk {
            id,
            raw_bytes: chunk.len() as u32,
            encoding,
            sums: &[PageSum([9; 16])],
            stored: &stored,
        });
        let seal = if keyring.is_sealed() { SEAL_BYTES } else { 0 };
        assert_eq!(placed.stored_bytes as usize, stored.len() + seal);
        assert!(placed.stored_bytes as usize <= keyring.stored_bytes_max(chunk.len()));
    }
    builder.finish().unwrap()
}

fn open(keyring: &Keyring, kind: PackKind, pack: &FinishedPack, place: usize) -> Result<Vec<u8>, FormatError> {
    let entry = &pack.entries[place];
    let chunk =
        StoredChunk { kind, id: entry.id, offset: entry.offset, encoding: entry.encoding, raw_bytes: entry.raw_bytes };
    let stored = &pack.bytes[entry.offset as usize..(entry.offset + entry.stored_bytes) as usize];
    keyring.open_chunk("chunk", &chunk, stored)
}

proptest! {
    #[test]
    fn sealed_chunks_come_back_and_show_nothing(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 16..3000), 1..8)) {
        let keyring = keyring(master());
        for kind in [PackKind::Data, PackKind::Map] {
            let pack = pack_of(&keyring, kind, &chunks);
            let parsed = parse_pack(pack.id, &pack.bytes, &keyring).unwrap();
            prop_assert_eq!(&parsed.entries, &pack.entries);
            for (place, chunk) in chunks.iter().enumerate() {
                prop_assert_eq!(&open(&keyring, kind, &pack, place).unwrap(), chunk);
                let name = keyring.namer().chunk_of_file(chunk);
                for text in [&chunk[..16], &name.0[..16]] {
                    prop_assert!(!pack.bytes.windows(16).any(|bytes| bytes == text));
                }
            }
        }
    }

    #[test]
    fn room_that_was_used_before_changes_nothing_of_what_comes_out(
        chunks in prop::collection::vec(prop::collection::vec(0u8..3, 1..3000), 1..8),
        longer in 0u32..3,
        spoiled: bool,
    ) {
        let mut room = vec![9; 100];
        for keyring in [Keyring::plain(), keyring(master())] {
            let pack = pack_of(&keyring, PackKind::Data, &chunks);
            for entry in &pack.entries {
                let (id, offset, encoding) = (entry.id, entry.offset, entry.encoding);
                let raw_bytes = entry.raw_bytes + longer;
                let chunk = StoredChunk { kind: PackKind::Data, id, offset, encoding, raw_bytes };
                let mut stored = pack.bytes[offset as usize..(offset + entry.stored_bytes) as usize].to_vec();
                stored[0] ^= u8::from(spoiled);
                let fresh = keyring.open_chunk("chunk", &chunk, &stored).ok();
                let found = keyring.open_chunk_in("chunk", &chunk, &stored, &mut room).ok().map(<[u8]>::to_vec);
                prop_assert_eq!(found, fresh);
            }
        }
    }

    #[test]
    fn any_bytes_are_opened_or_refused(stored: Vec<u8>, offset: u32, raw_bytes in 0u32..10_000, zstd: bool) {
        let encoding = if zstd { Encoding::Zstd } else { Encoding::Raw };
        let chunk = StoredChunk { kind: PackKind::Data, id: ChunkId([1; 32]), offset, encoding, raw_bytes };
        prop_assert!(keyring(master()).open_chunk("chunk", &chunk, &stored).is_err());
        prop_assert!(keyring(master()).open_directory(offset, &stored, &stored).is_err());
        let _ = Keyring::plain().open_chunk("chunk", &chunk, &stored);
    }
}

#[test]
fn a_chunk_opens_only_under_its_name_at_its_place_in_its_sort_of_pack() {
    let keyring = keyring(master());
    // Two chunks of the same length and encoding.
    let chunks = [vec![1; 500], vec![2; 500]];
    let pack = pack_of(&keyring, PackKind::Data, &chunks);
    let other = pack_of(&keyring, PackKind::Data, &chunks);
    let stored = |pack: &FinishedPack, place: usize| {
        let entry = &pack.entries[place];
        pack.bytes[entry.offset as usize..(entry.offset + entry.stored_bytes) as usize].to_vec()
    };
    let entry = &pack.entries[0];
    let chunk = StoredChunk {
        kind: PackKind::Data,
        id: entry.id,
        offset: entry.offset,
        encoding: entry.encoding,
        raw_bytes: entry.raw_bytes,
    };
    let opens = |chunk: &StoredChunk, stored: &[u8]| keyring.open_chunk("chunk", chunk, stored).is_ok();
    let own = stored(&pack, 0);
    assert!(opens(&chunk, &own));
    assert!(opens(&chunk, &stored(&other, 0)), "the same chunk at the same place of another pack is the same chunk");
    assert!(!opens(&chunk, &stored(&pack, 1)), "another chunk of the pack");
    assert!(!opens(&StoredChunk { id: pack.entries[1].id, ..chunk }, &own), "another name");
    assert!(!opens(&StoredChunk { offset: chunk.offset + 1, ..chunk }, &own), "another place");
    assert!(!opens(&StoredChunk { kind: PackKind::Map, ..chunk }, &own), "another sort of pack");
    for length in 0..own.len() {
        assert!(!opens(&chunk, &own[..length]), "cut to {length} bytes");
    }
    for place in 0..own.len() {
        let mut changed = own.clone();
        changed[place] ^= 1;
        assert!(!opens(&chunk, &changed), "byte {place}");
    }
}

#[test]
fn salts_are_never_used_twice() {
    let keyring = keyring(master());
    let salts: Vec<_> =
        (0..3).map(|_| pack_of(&keyring, PackKind::Data, &[vec![1; 500]]).bytes[11..27].to_vec()).collect();
    assert!(salts[0] != salts[1] && salts[1] != salts[2] && salts[0] != salts[2]);
}

#[test]
fn a_directory_is_bound_to_its_place_and_its_footer() {
    let keyring = keyring(master());
    let pack = pack_of(&keyring, PackKind::Data, &[vec![1; 500], vec![2; 100]]);
    let size = pack.bytes.len() as u64;
    let footer_at = pack.bytes.len() - FOOTER_BYTES;
    let whole = PackFooter::parse(&pack.bytes[footer_at..], size).unwrap();
    let directory_at = whole.directory_range().start as usize;
    // A forger may put a hash that fits.
    let read = |bytes: &[u8]| {
        let mut bytes = bytes.to_vec();
        let hash = *blake3::hash(&bytes[directory_at..footer_at]).as_bytes();
        bytes[footer_at + 24..footer_at + 56].copy_from_slice(&hash);
        let footer = PackFooter::parse(&bytes[footer_at..], size)?;
        let range = footer.directory_range();
        footer.parse_directory(&bytes[range.start as usize..range.end as usize], &keyring)
    };
    assert!(read(&pack.bytes).is_ok());
    for place in directory_at..footer_at + 24 {
        let mut bytes = pack.bytes.clone();
        bytes[place] ^= 1;
        assert!(read(&bytes).is_err(), "byte {place}");
    }
}

#[test]
fn a_pack_of_another_repository_or_none_is_refused() {
    let own = keyring(master());
    let chunks = [vec![1; 500]];
    let foreign = pack_of(&keyring(SecretKey::new([8; KEY_BYTES])), PackKind::Data, &chunks);
    assert!(parse_pack(foreign.id, &foreign.bytes, &own).is_err());
    let mut builder = PackBuilder::new(PackKind::Data);
    builder.add(&NewChunk { id: ChunkId([1; 32]), raw_bytes: 1, encoding: Encoding::Raw, sums: &[], stored: &[0] });
    let plain = builder.finish().unwrap();
    let error = parse_pack(plain.id, &plain.bytes, &own).unwrap_err();
    assert!(error.to_string().contains("it is not sealed, and its repository is"), "{error}");
    let sealed = pack_of(&own, PackKind::Data, &chunks);
    let error = parse_pack(sealed.id, &sealed.bytes, &Keyring::plain()).unwrap_err();
    assert!(error.to_string().contains("it is sealed, and its repository is not"), "{error}");
}

#[test]
fn a_sealed_header_and_its_directory_have_one_salt() {
    let keyring = keyring(master());
    let mut pack = pack_of(&keyring, PackKind::Data, &[vec![1; 500]]);
    assert!(pack.bytes[27..HEADER_BYTES].iter().all(|byte| *byte == 0));
    pack.bytes[12] ^= 1;
    let error = parse_pack(crate::format::pack_id(&pack.bytes), &pack.bytes, &keyring).unwrap_err();
    assert!(error.to_string().contains("is not that of its directory"), "{error}");
}

#[test]
fn map_keys_open_maps_and_directories_and_no_data() {
    let (all, map) = (keyring(master()), map_keyring());
    let chunks = [vec![1; 500]];
    let (data, maps) = (pack_of(&all, PackKind::Data, &chunks), pack_of(&all, PackKind::Map, &chunks));
    assert_eq!(open(&map, PackKind::Map, &maps, 0).unwrap(), chunks[0]);
    assert_eq!(parse_pack(data.id, &data.bytes, &map).unwrap().entries, data.entries);
    assert!(matches!(open(&map, PackKind::Data, &data, 0), Err(FormatError::NoDataKey { .. })));
    assert!(matches!(map.new_pack(PackKind::Data), Err(FormatError::NoDataKey { .. })));
    assert!(map.new_pack(PackKind::Map).is_ok() && all.opens_data() && !map.opens_data());
}

fn lease() -> Lease {
    let text = |text: &str| text.to_owned();
    Lease { holder: text("00"), purpose: text("backup"), who: text("db1.example.com"), seconds: 300, released: false }
}

fn place(keyring: &Keyring) -> DocumentPlace<'_> {
    DocumentPlace { keyring, repository_id: RepositoryId([3; 16]), key: "leases/a.json" }
}

#[test]
fn a_sealed_document_opens_in_its_place_alone() {
    let (all, map) = (keyring(master()), map_keyring());
    let bytes = place(&all).encode(&lease()).unwrap();
    assert!(!String::from_utf8_lossy(&bytes).contains("example"));
    assert_eq!(place(&all).decode::<Lease>(&bytes).unwrap(), lease());
    assert_eq!(place(&map).decode::<Lease>(&bytes).unwrap(), lease());
    assert_ne!(place(&all).encode(&lease()).unwrap(), bytes, "each has a salt of its own");
    let other = keyring(SecretKey::new([8; KEY_BYTES]));
    for wrong in [
        DocumentPlace { key: "leases/b.json", ..place(&all) },
        DocumentPlace { repository_id: RepositoryId([4; 16]), ..place(&all) },
        DocumentPlace { keyring: &other, ..place(&all) },
        DocumentPlace { keyring: &Keyring::plain(), ..place(&all) },
    ] {
        assert!(wrong.decode::<Lease>(&bytes).is_err(), "{wrong:?}");
    }
    assert_eq!(check_word(&bytes), "lease");
}

fn check_word(bytes: &[u8]) -> String {
    envelope::check_envelope("name", bytes).unwrap()
}

#[test]
fn a_sealed_document_edited_anywhere_is_refused() {
    let keyring = keyring(master());
    let bytes = place(&keyring).encode(&lease()).unwrap();
    for at in 0..bytes.len() - 1 {
        let mut edited = bytes.clone();
        edited[at] ^= 1;
        assert!(place(&keyring).decode::<Lease>(&edited).is_err(), "byte {at}");
    }
    // A forger may put a hash that fits: what is inside is sealed all the same.
    let text = String::from_utf8(bytes).unwrap();
    let (_, body) = text.split_once("\"body\":").unwrap();
    let body = body.strip_suffix("}\n").unwrap();
    let sealed = body.strip_prefix("{\"sealed\":\"").unwrap().strip_suffix("\"}").unwrap();
    for at in 0..sealed.len() {
        let mut edited = sealed.as_bytes().to_vec();
        edited[at] = if edited[at] == b'A' { b'B' } else { b'A' };
        let body = SealedBody { sealed: String::from_utf8(edited).unwrap() };
        let forged = envelope::encode_enveloped::<Lease, _>(&body).unwrap();
        assert!(place(&keyring).decode::<Lease>(&forged).is_err(), "digit {at}");
    }
}

#[test]
fn a_document_that_is_not_sealed_is_refused_where_all_are() {
    let keyring = keyring(master());
    let plain = envelope::encode_document(&lease()).unwrap();
    let error = place(&keyring).decode::<Lease>(&plain).unwrap_err();
    assert!(error.to_string().contains("it is not sealed, and its repository is"), "{error}");
    let sealed = place(&keyring).encode(&lease()).unwrap();
    let error = place(&Keyring::plain()).decode::<Lease>(&sealed).unwrap_err();
    assert!(error.to_string().contains("it is sealed, and its repository is not"), "{error}");
    // What is needed to open a repository is not.
    let created = Timestamp("2026-11-22T17:04:45Z".parse().unwrap());
    let config =
        Config { repository_id: RepositoryId([3; 16]), created, seal: Config::SEAL_AES.to_owned(), lock: None };
    let bytes = place(&keyring).encode(&config).unwrap();
    assert_eq!(envelope::decode_document::<Config>("haulout.json", &bytes).unwrap(), config);
}

#[test]
fn keys_are_never_shown() {
    let keyring = keyring(SecretKey::new([0xab; KEY_BYTES]));
    let builder = keyring.new_pack(PackKind::Map).unwrap();
    let keys = keyring.keys().unwrap();
    let shown = format!("{keyring:?} {keys:?} {:?}", keys.master());
    assert!(!shown.contains("171") && !shown.contains("ab, ") && shown.contains("SecretKey(…)"), "{shown}");
    assert!(format!("{builder:?}").contains("PackSeal(…)"));
}
