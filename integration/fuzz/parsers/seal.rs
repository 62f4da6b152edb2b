//! What is sealed: chunks, packs, documents, and the slots that hold the keys.

use std::sync::Arc;

use haulout::{
    format::{
        Credential, DocumentPlace, Encoding, KeySlot, Keyring, Lease, NewSlot, RepositoryKeys, SecretKey, StoredChunk,
        Wraps, decode_document, encode_document, key_of_file,
        pack::{NewChunk, PackKind, parse_changed_pack, parse_pack},
        pack_id,
    },
    model::{ChunkId, Entropy, RepositoryId, Timestamp},
};

use super::flipped;

/// Longest chunk that is decompressed here; more is only slower.
const RAW_BYTES_MAX: u32 = 1 << 20;

/// The same salts for the same input.
struct Fixed;

impl Entropy for Fixed {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(9);
    }
}

fn keys() -> RepositoryKeys {
    RepositoryKeys::all(SecretKey::new([7; 32]))
}

fn keyring() -> Keyring {
    Keyring::sealed(keys(), Arc::new(Fixed))
}

/// The first byte tells what follows: a stored chunk, a pack, a document or a key slot from outside, or what is to be sealed.
pub fn check(input: &[u8]) {
    let Some((how, rest)) = input.split_first() else { return };
    match how % 5 {
        0 => chunk(rest),
        1 => pack(rest),
        2 => document(rest),
        3 => slot(rest),
        _ => sealed(rest),
    }
}

/// Eight bytes tell how the map speaks of the chunk; its stored bytes follow. Nobody finds bytes that open.
fn chunk(rest: &[u8]) {
    let Some((&[kind, offset @ .., high, middle, low], stored)) = rest.split_first_chunk::<8>() else { return };
    let kind = if kind & 1 == 0 { PackKind::Data } else { PackKind::Map };
    let raw_bytes = u32::from_be_bytes([0, high, middle, low]).min(RAW_BYTES_MAX);
    let offset = u32::from_be_bytes(offset);
    for encoding in [Encoding::Raw, Encoding::Zstd] {
        let chunk = StoredChunk { kind, id: ChunkId([1; 32]), offset, encoding, raw_bytes };
        assert!(keyring().open_chunk("chunk", &chunk, stored).is_err(), "made-up bytes open");
        let raw = Keyring::plain().open_chunk("chunk", &chunk, stored);
        assert!(raw.is_err() || raw.is_ok_and(|raw| raw.len() == raw_bytes as usize));
    }
}

fn pack(bytes: &[u8]) {
    assert!(parse_pack(pack_id(bytes), bytes, &keyring()).is_err() && parse_changed_pack(bytes, &keyring()).is_err());
}

fn place(keyring: &Keyring) -> DocumentPlace<'_> {
    DocumentPlace { keyring, repository_id: RepositoryId([3; 16]), key: "leases/a.json" }
}

/// What is in `sealed` is put into an envelope with the right hash.
fn document(sealed: &[u8]) {
    assert!(place(&keyring()).decode::<Lease>(sealed).is_err());
    let body = [b"{\"sealed\":\"", sealed, b"\"}"].concat();
    let bytes = wrapped("lease", &body);
    assert!(place(&keyring()).decode::<Lease>(&bytes).is_err(), "a made-up document opens");
    assert!(place(&Keyring::plain()).decode::<Lease>(&bytes).is_err());
}

fn wrapped(word: &str, body: &[u8]) -> Vec<u8> {
    let hash = blake3::hash(body);
    [format!("{{\"haulout\":\"{word}\",\"format\":1,\"blake3\":\"{hash}\",\"body\":").as_bytes(), body, b"}"].concat()
}

/// The body of a slot. Its passphrase is not tried, which takes what the slot asks for, within the limits.
fn slot(body: &[u8]) {
    let Ok(slot) = decode_document::<KeySlot>("key", &wrapped("key", body.trim_ascii())) else { return };
    let written = encode_document(&slot).unwrap();
    assert_eq!(decode_document::<KeySlot>("key", &written).unwrap(), slot);
    let _ = slot.sealed_key().unwrap();
    assert!(slot.open(&SecretKey::new([1; 32])).is_err(), "a made-up slot opens");
}

/// What was sealed comes back, and not with a flipped bit.
fn sealed(rest: &[u8]) {
    let keyring = keyring();
    let mut builder = keyring.new_pack(PackKind::Data).unwrap();
    let mut chunks = Vec::new();
    for raw in rest.chunks(997) {
        let id = keyring.namer().chunk_of_file(raw);
        let (raw_bytes, encoding) = (raw.len() as u32, Encoding::Raw);
        let placed = builder.add(&NewChunk { id, raw_bytes, encoding, sums: &[], stored: raw });
        let chunk = StoredChunk { kind: PackKind::Data, id, offset: placed.offset, encoding, raw_bytes };
        chunks.push((raw, chunk, placed.stored_bytes));
    }
    let pack = builder.finish().unwrap();
    let parsed = parse_pack(pack.id, &pack.bytes, &keyring).unwrap();
    assert_eq!(parsed.entries, pack.entries);
    for (raw, chunk, stored_bytes) in chunks {
        let stored = &pack.bytes[chunk.offset as usize..][..stored_bytes as usize];
        assert_eq!(keyring.open_chunk("chunk", &chunk, stored).unwrap(), raw);
        assert!(
            keyring.open_chunk("chunk", &chunk, &flipped(stored, 0..stored.len())).is_err(),
            "a flipped bit passes"
        );
    }
    let text = String::from_utf8_lossy(rest).into_owned();
    let lease = Lease { holder: text.clone(), purpose: text.clone(), who: text.clone(), seconds: 1, released: false };
    let bytes = place(&keyring).encode(&lease).unwrap();
    assert_eq!(place(&keyring).decode::<Lease>(&bytes).unwrap(), lease);
    let changed = flipped(&bytes, 0..bytes.len() - 1);
    assert!(place(&keyring).decode::<Lease>(&changed).is_err(), "a flipped bit passes");
    let Ok(key) = key_of_file(rest) else { return };
    let label = text.chars().take(50).collect();
    let new = NewSlot { credential: Credential::File(key.clone()), wraps: Wraps::All, label };
    let created = Timestamp(Default::default());
    let slot = KeySlot::wrap(&new, &keys(), RepositoryId([3; 16]), created, &Fixed).unwrap();
    assert!(slot.open(&key).unwrap().master() == keys().master());
}
