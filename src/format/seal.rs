//! Sealing: AES-256-GCM under keys that are derived from the repository's master key.
//!
//! ```text
//! master key ─► naming key (names of chunks)
//!            ├► meta key   (map packs, directories of packs, documents)
//!            └► data key   (chunks of data packs)
//! ```
//! Whatever is sealed is a *box*: salt 16 B │ ciphertext │ tag 16 B. The salt makes the key, so no key seals two things at one nonce:
//! a pack's salt is random, and each of its offsets, which is the nonce, is written once; all other boxes have a salt of their own.
//! The byte layout is in FORMAT.md, "Sealing".

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use zeroize::{Zeroize, Zeroizing};

use super::pack::{self, Encoding, PackBuilder, PackKind};
use super::{Decoder, Document, FormatError, Namer, envelope};
use crate::model::{ChunkId, Entropy, RepositoryId};

/// Bytes of every key.
pub const KEY_BYTES: usize = 32;
/// Random bytes at the beginning of whatever is sealed.
pub const SALT_BYTES: usize = 16;
const TAG_BYTES: usize = 16;
/// By how much a sealed thing is longer than what was sealed.
pub const SEAL_BYTES: usize = SALT_BYTES + TAG_BYTES;

const NAMING: &str = "haulout format 1: naming key";
const META: &str = "haulout format 1: meta key";
const DATA: &str = "haulout format 1: data key";
const DATA_CHUNKS: &str = "haulout format 1: chunks of a data pack";
const MAP_CHUNKS: &str = "haulout format 1: chunks of a map pack";
const DIRECTORY: &str = "haulout format 1: directory of a pack";
const DOCUMENT: &str = "haulout format 1: document";

/// A key: never shown, and wiped from memory when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretKey([u8; KEY_BYTES]);

impl Drop for SecretKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(…)")
    }
}

impl SecretKey {
    /// Takes `bytes` as a key.
    pub fn new(bytes: [u8; KEY_BYTES]) -> SecretKey {
        SecretKey(bytes)
    }

    /// A new one.
    pub fn random(entropy: &dyn Entropy) -> SecretKey {
        let mut key = SecretKey([0; KEY_BYTES]);
        entropy.fill(&mut key.0);
        key
    }

    /// The key itself.
    pub fn reveal(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }

    /// Key for what `context` says, derived from `material` (BLAKE3 `derive_key`).
    pub(super) fn derive(context: &str, material: &[u8]) -> SecretKey {
        SecretKey(blake3::derive_key(context, material))
    }

    fn salted(&self, context: &str, salt: &[u8; SALT_BYTES]) -> SecretKey {
        let mut material = Zeroizing::new([0; KEY_BYTES + SALT_BYTES]);
        material[..KEY_BYTES].copy_from_slice(&self.0);
        material[KEY_BYTES..].copy_from_slice(salt);
        SecretKey::derive(context, &material[..])
    }
}

/// What a key slot wraps, and so what one can do who opens it.
#[derive(Debug, Clone)]
pub struct RepositoryKeys {
    naming: SecretKey,
    meta: SecretKey,
    data: Option<SecretKey>,
    master: Option<SecretKey>,
}

impl RepositoryKeys {
    /// All keys, which follow from the master key.
    pub fn all(master: SecretKey) -> RepositoryKeys {
        RepositoryKeys {
            naming: SecretKey::derive(NAMING, &master.0),
            meta: SecretKey::derive(META, &master.0),
            data: Some(SecretKey::derive(DATA, &master.0)),
            master: Some(master),
        }
    }

    /// Those for names, maps and documents: neither page nor file can be read or written.
    pub fn map(naming: SecretKey, meta: SecretKey) -> RepositoryKeys {
        RepositoryKeys { naming, meta, data: None, master: None }
    }

    /// The master key, where it is known.
    pub fn master(&self) -> Option<&SecretKey> {
        self.master.as_ref()
    }

    /// Naming key and meta key.
    pub(super) fn map_keys(&self) -> (&SecretKey, &SecretKey) {
        (&self.naming, &self.meta)
    }
}

fn cipher(key: &SecretKey, what: &'static str) -> Result<LessSafeKey, FormatError> {
    let key = UnboundKey::new(&AES_256_GCM, &key.0).map_err(|_| FormatError::Cipher { what })?;
    Ok(LessSafeKey::new(key))
}

fn nonce(offset: u32) -> Nonce {
    let mut bytes = [0; NONCE_LEN];
    bytes[..4].copy_from_slice(&offset.to_le_bytes());
    Nonce::assume_unique_for_key(bytes)
}

/// Appends to `out` the box of `plain` under `key`, which must be used for no other box at `offset`.
fn push_box(
    out: &mut Vec<u8>,
    (key, salt): (&LessSafeKey, &[u8; SALT_BYTES]),
    (what, offset): (&'static str, u32),
    aad: &[u8],
    plain: &[u8],
) -> Result<(), FormatError> {
    out.extend_from_slice(salt);
    let begin = out.len();
    out.extend_from_slice(plain);
    let tag = key.seal_in_place_separate_tag(nonce(offset), Aad::from(aad), &mut out[begin..]);
    out.extend_from_slice(tag.map_err(|_| FormatError::Cipher { what })?.as_ref());
    Ok(())
}

/// The parts of a box.
struct SealedBox<'a> {
    salt: &'a [u8; SALT_BYTES],
    ciphertext: &'a [u8],
    tag: &'a [u8; TAG_BYTES],
}

impl SealedBox<'_> {
    fn parse<'a>(what: &'static str, sealed: &'a [u8]) -> Result<SealedBox<'a>, FormatError> {
        let parts = sealed.split_first_chunk().and_then(|(salt, rest)| {
            let (ciphertext, tag) = rest.split_last_chunk()?;
            Some(SealedBox { salt, ciphertext, tag })
        });
        let few = || Decoder::new(what, sealed).fault(format!("{} bytes are too few to be sealed", sealed.len()));
        parts.ok_or_else(few)
    }
}

/// Opens a box whose key is derived from `key` and the box's own salt.
fn open_box(
    (what, offset): (&'static str, u32),
    (key, context): (&SecretKey, &str),
    aad: &[u8],
    sealed: &[u8],
) -> Result<Vec<u8>, FormatError> {
    let SealedBox { salt, ciphertext, tag } = SealedBox::parse(what, sealed)?;
    let key = cipher(&key.salted(context, salt), what)?;
    let mut plain = vec![0; ciphertext.len()];
    key.open_separate_gather(nonce(offset), Aad::from(aad), ciphertext, tag, &mut plain)
        .map_err(|_| FormatError::NotOpened { what })?;
    Ok(plain)
}

/// The box of `plain` with a salt of its own.
pub(super) fn seal_alone(
    what: &'static str,
    (key, context): (&SecretKey, &str),
    aad: &[u8],
    plain: &[u8],
    entropy: &dyn Entropy,
) -> Result<Vec<u8>, FormatError> {
    let mut salt = [0; SALT_BYTES];
    entropy.fill(&mut salt);
    let mut sealed = Vec::with_capacity(plain.len() + SEAL_BYTES);
    push_box(&mut sealed, (&cipher(&key.salted(context, &salt), what)?, &salt), (what, 0), aad, plain)?;
    Ok(sealed)
}

/// What [`seal_alone`] sealed.
pub(super) fn open_alone(
    what: &'static str,
    key: (&SecretKey, &str),
    aad: &[u8],
    sealed: &[u8],
) -> Result<Zeroizing<Vec<u8>>, FormatError> {
    open_box((what, 0), key, aad, sealed).map(Zeroizing::new)
}

fn chunk_aad(kind: PackKind, id: &ChunkId) -> [u8; 33] {
    let mut aad = [kind.to_byte(); 33];
    aad[1..].copy_from_slice(&id.0);
    aad
}

/// Seals one pack.
pub(super) struct PackSeal {
    kind: PackKind,
    salt: [u8; SALT_BYTES],
    chunks: LessSafeKey,
    directory: LessSafeKey,
}

impl fmt::Debug for PackSeal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PackSeal(…)")
    }
}

impl PackSeal {
    pub(super) fn salt(&self) -> &[u8; SALT_BYTES] {
        &self.salt
    }

    /// Appends the sealed chunk `id` to `pack`, where it begins at the present end.
    pub(super) fn push_chunk(&self, pack: &mut Vec<u8>, id: &ChunkId, stored: &[u8]) -> Result<(), FormatError> {
        let at = ("chunk", pack.len() as u32);
        push_box(pack, (&self.chunks, &self.salt), at, &chunk_aad(self.kind, id), stored)
    }

    /// Appends the sealed directory; `aad` is the beginning of the footer.
    pub(super) fn push_directory(&self, pack: &mut Vec<u8>, aad: &[u8], stored: &[u8]) -> Result<(), FormatError> {
        let at = ("pack directory", pack.len() as u32);
        push_box(pack, (&self.directory, &self.salt), at, aad, stored)
    }
}

/// A chunk as a map or a directory speaks of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredChunk {
    /// What its pack holds.
    pub kind: PackKind,
    /// Its name.
    pub id: ChunkId,
    /// Where its stored bytes begin in the pack.
    pub offset: u32,
    /// How it is stored.
    pub encoding: Encoding,
    /// Its length.
    pub raw_bytes: u32,
}

/// Names, seals and opens what a repository stores.
#[derive(Debug, Clone)]
pub struct Keyring {
    namer: Namer,
    sealed: Option<Arc<Sealed>>,
}

struct Sealed {
    keys: RepositoryKeys,
    entropy: Arc<dyn Entropy>,
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealed(…)")
    }
}

impl Keyring {
    /// That of a repository that is not sealed.
    pub fn plain() -> Keyring {
        Keyring { namer: Namer::new(&[0; KEY_BYTES]), sealed: None }
    }

    /// That of a sealed repository; salts come from `entropy`.
    pub fn sealed(keys: RepositoryKeys, entropy: Arc<dyn Entropy>) -> Keyring {
        Keyring { namer: Namer::new(&keys.naming.0), sealed: Some(Arc::new(Sealed { keys, entropy })) }
    }

    /// How chunks are named.
    pub fn namer(&self) -> &Namer {
        &self.namer
    }

    /// True in a sealed repository.
    pub fn is_sealed(&self) -> bool {
        self.sealed.is_some()
    }

    /// True when chunks of data packs can be opened and sealed.
    pub fn opens_data(&self) -> bool {
        self.sealed.as_ref().is_none_or(|sealed| sealed.keys.data.is_some())
    }

    /// The keys of a sealed repository.
    pub fn keys(&self) -> Option<&RepositoryKeys> {
        self.sealed.as_ref().map(|sealed| &sealed.keys)
    }

    /// Where the salts of a sealed repository come from.
    pub fn entropy(&self) -> Option<&dyn Entropy> {
        self.sealed.as_ref().map(|sealed| &*sealed.entropy)
    }

    /// Most bytes that a chunk of `raw_bytes` bytes takes: compression never makes it longer, the seal does.
    pub fn stored_bytes_max(&self, raw_bytes: usize) -> usize {
        raw_bytes + if self.is_sealed() { SEAL_BYTES } else { 0 }
    }

    /// An empty pack of `kind`, with a salt of its own.
    ///
    /// # Errors
    /// When the key for it is not known.
    pub fn new_pack(&self, kind: PackKind) -> Result<PackBuilder, FormatError> {
        let Some(Sealed { keys, entropy }) = self.sealed.as_deref() else { return Ok(PackBuilder::new(kind)) };
        let (key, context) = keys.of(kind, "pack")?;
        let mut salt = [0; SALT_BYTES];
        entropy.fill(&mut salt);
        let chunks = cipher(&key.salted(context, &salt), "pack")?;
        let directory = cipher(&keys.meta.salted(DIRECTORY, &salt), "pack")?;
        Ok(PackBuilder::sealed(kind, PackSeal { kind, salt, chunks, directory }))
    }

    /// The stored bytes of `chunk` as they were before they were sealed, still compressed.
    ///
    /// # Errors
    /// When they were not sealed as this chunk at this place.
    pub fn unseal_chunk<'a>(
        &self,
        what: &'static str,
        chunk: &StoredChunk,
        stored: &'a [u8],
    ) -> Result<Cow<'a, [u8]>, FormatError> {
        let Some(Sealed { keys, .. }) = self.sealed.as_deref() else { return Ok(stored.into()) };
        let key = keys.of(chunk.kind, what)?;
        open_box((what, chunk.offset), key, &chunk_aad(chunk.kind, &chunk.id), stored).map(Into::into)
    }

    /// The bytes of `chunk` from its stored bytes. That they bear its name is for the caller to check, who knows what it holds.
    ///
    /// # Errors
    /// When they were not sealed as this chunk at this place, or do not decompress to as many bytes as they should.
    pub fn open_chunk(&self, what: &'static str, chunk: &StoredChunk, stored: &[u8]) -> Result<Vec<u8>, FormatError> {
        let raw_bytes = chunk.raw_bytes as usize;
        match (chunk.encoding, self.unseal_chunk(what, chunk, stored)?) {
            (Encoding::Raw, Cow::Owned(opened)) if opened.len() == raw_bytes => Ok(opened),
            (encoding, opened) => pack::decompress(what, encoding, &opened, raw_bytes),
        }
    }

    /// As [`open_chunk`](Keyring::open_chunk), without a copy where there need be none: `room` is used again for what is decompressed, and
    /// bytes that lie in the pack as they are stay in `stored`.
    ///
    /// # Errors
    /// Those of [`open_chunk`](Keyring::open_chunk).
    pub fn open_chunk_in<'a>(
        &self,
        what: &'static str,
        chunk: &StoredChunk,
        stored: &'a [u8],
        room: &'a mut Vec<u8>,
    ) -> Result<&'a [u8], FormatError> {
        let raw_bytes = chunk.raw_bytes as usize;
        let raw = match (chunk.encoding, self.unseal_chunk(what, chunk, stored)?) {
            (Encoding::Raw, Cow::Borrowed(opened)) => opened,
            (Encoding::Raw, Cow::Owned(opened)) => {
                *room = opened;
                room
            }
            (Encoding::Zstd, opened) => {
                pack::decompress_into(what, &opened, raw_bytes, room)?;
                room
            }
        };
        pack::check_length(what, stored, raw, raw_bytes)?;
        Ok(raw)
    }

    /// What a directory's stored bytes hold, which begin at `offset` of the pack; `aad` is the beginning of the footer.
    pub(super) fn open_directory<'a>(
        &self,
        offset: u32,
        aad: &[u8],
        stored: &'a [u8],
    ) -> Result<Cow<'a, [u8]>, FormatError> {
        let Some(Sealed { keys, .. }) = self.sealed.as_deref() else { return Ok(stored.into()) };
        open_box(("pack directory", offset), (&keys.meta, DIRECTORY), aad, stored).map(Into::into)
    }
}

impl RepositoryKeys {
    fn of(&self, kind: PackKind, what: &'static str) -> Result<(&SecretKey, &'static str), FormatError> {
        match kind {
            PackKind::Map => Ok((&self.meta, MAP_CHUNKS)),
            PackKind::Data => match &self.data {
                Some(key) => Ok((key, DATA_CHUNKS)),
                None => Err(FormatError::NoDataKey { what }),
            },
        }
    }
}

/// A place for a document: what is sealed for one is opened in no other.
#[derive(Debug, Clone, Copy)]
pub struct DocumentPlace<'a> {
    /// Opens and seals.
    pub keyring: &'a Keyring,
    /// The repository.
    pub repository_id: RepositoryId,
    /// The document's key in it.
    pub key: &'a str,
}

/// Body of a sealed document.
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct SealedBody {
    sealed: String,
}

impl DocumentPlace<'_> {
    fn aad(&self) -> Vec<u8> {
        [&self.repository_id.0[..], self.key.as_bytes()].concat()
    }

    /// The bytes of `document` as they are stored here.
    ///
    /// # Errors
    /// When it cannot be written as JSON, or not be sealed.
    pub fn encode<D: Document>(&self, document: &D) -> Result<Vec<u8>, FormatError> {
        let Some(Sealed { keys, entropy }) = self.keyring.sealed.as_deref().filter(|_| D::SEALED) else {
            return envelope::encode_document(document);
        };
        let body = envelope::encode_body(document)?;
        let key = (&keys.meta, DOCUMENT);
        let sealed = seal_alone("document", key, &self.aad(), body.get().as_bytes(), &**entropy)?;
        envelope::encode_enveloped::<D, _>(&SealedBody { sealed: STANDARD.encode(sealed) })
    }

    /// The document that `bytes`, which are stored here, hold.
    ///
    /// # Errors
    /// When it is damaged, was sealed for another place, or is sealed where it should not be and the other way round.
    pub fn decode<D: Document>(&self, bytes: &[u8]) -> Result<D, FormatError> {
        let fault = |problem: &str| FormatError::Document { what: self.key.to_owned(), problem: problem.to_owned() };
        let body = envelope::open_envelope::<D>(self.key, bytes)?;
        let sealed = serde_json::from_str::<SealedBody>(body);
        match (self.keyring.sealed.as_deref().filter(|_| D::SEALED), sealed) {
            (None, Err(_)) => envelope::decode_body(self.key, body),
            (None, Ok(_)) => Err(fault("it is sealed, and its repository is not")),
            (Some(_), Err(_)) => Err(fault("it is not sealed, and its repository is")),
            (Some(Sealed { keys, .. }), Ok(SealedBody { sealed })) => {
                let sealed = STANDARD.decode(sealed).map_err(|error| fault(&error.to_string()))?;
                let opened = open_alone("document", (&keys.meta, DOCUMENT), &self.aad(), &sealed);
                let opened = opened.map_err(|_| {
                    fault("it cannot be opened: it was changed, or sealed for another place or another repository")
                })?;
                let text = std::str::from_utf8(&opened).map_err(|error| fault(&error.to_string()))?;
                envelope::decode_body(self.key, text)
            }
        }
    }
}

#[cfg(test)]
#[path = "seal_tests.rs"]
mod tests;
