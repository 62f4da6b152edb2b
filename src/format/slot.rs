//! Key slots: the repository's keys, wrapped by a key that a passphrase, a file or a command gives.
//!
//! A slot is a document of its own that is written once. Slots are added and removed without touching anything else; the keys that
//! they wrap never change. What one needs to open a slot never comes from the repository: of a command, only the key that it encrypted
//! is stored, and the command that decrypts it is the operator's own.

use std::fmt;

use argon2::{Algorithm, Argon2, Params, Version};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::seal::{KEY_BYTES, SALT_BYTES, SEAL_BYTES, open_alone, seal_alone};
use super::{Document, Encoder, FormatError, RepositoryKeys, SecretKey};
use crate::model::{Entropy, RepositoryId, Secret, SlotId, Timestamp};

/// Shortest passphrase for a new slot: whoever has the bucket may try as many as he likes.
pub const PASSPHRASE_CHARACTERS_MIN: usize = 12;
/// Longest key that a command encrypted: those of cloud services have some hundred bytes.
pub const SEALED_KEY_BYTES_MAX: usize = 16 << 10;
/// Most memory of Argon2id that a slot may ask for, in KiB: it could else take the machine down that opens it.
const MEMORY_KIB_MAX: u32 = 1 << 20;
/// Most passes over that memory: some ten seconds.
const PASSES_MAX: u32 = 16;
const LANES_MAX: u32 = 16;
/// Longest label.
const LABEL_BYTES_MAX: usize = 200;

const KEY_FILE: &str = "haulout format 1: key file";
const KEY_SLOT: &str = "haulout format 1: key slot";

/// What a slot wraps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Wraps {
    /// The master key, from which all others follow.
    All,
    /// Naming key and meta key: lists, shows, checks and prunes, and neither reads nor writes a page.
    Map,
}

impl Wraps {
    /// The word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Wraps::All => "all",
            Wraps::Map => "map",
        }
    }

    const fn payload_bytes(self) -> usize {
        match self {
            Wraps::All => KEY_BYTES,
            Wraps::Map => 2 * KEY_BYTES,
        }
    }
}

impl fmt::Display for Wraps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// How hard it is to try a passphrase.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Argon2id {
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Passes over it.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
    /// Random bytes, in hexadecimal digits.
    #[serde(with = "hex::serde")]
    pub salt: [u8; SALT_BYTES],
}

impl Argon2id {
    /// The second recommendation of RFC 9106, section 4: 64 MiB, which a backup has anyway, and some 0.2 s.
    fn recommended(entropy: &dyn Entropy) -> Argon2id {
        let mut salt = [0; SALT_BYTES];
        entropy.fill(&mut salt);
        Argon2id { memory_kib: 64 << 10, passes: 3, lanes: 4, salt }
    }

    fn params(&self) -> Result<Params, FormatError> {
        let Argon2id { memory_kib, passes, lanes, .. } = *self;
        if memory_kib > MEMORY_KIB_MAX || passes > PASSES_MAX || lanes > LANES_MAX {
            let problem =
                format!("Argon2id with {memory_kib} KiB, {passes} passes and {lanes} lanes is beyond all use");
            return Err(FormatError::Slot { problem });
        }
        let wrong = |error: argon2::Error| FormatError::Slot { problem: format!("Argon2id: {error}") };
        Params::new(memory_kib, passes, lanes, Some(KEY_BYTES)).map_err(wrong)
    }

    fn stretch(&self, passphrase: &Secret) -> Result<SecretKey, FormatError> {
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        Argon2::new(Algorithm::Argon2id, Version::V0x13, self.params()?)
            .hash_password_into(passphrase.reveal().as_bytes(), &self.salt, &mut *key)
            .map_err(|error| FormatError::Slot { problem: format!("Argon2id: {error}") })?;
        Ok(SecretKey::new(*key))
    }
}

/// Where the key comes from that opens a slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "method", rename_all = "lowercase")]
pub enum Method {
    /// A passphrase.
    Passphrase {
        /// How it becomes a key.
        argon2id: Argon2id,
    },
    /// A key file.
    File {},
    /// A command decrypts it.
    Command {
        /// What the command gets: base64.
        sealed_key: String,
    },
}

impl Method {
    /// The word for it.
    pub const fn word(&self) -> &'static str {
        match self {
            Method::Passphrase { .. } => "passphrase",
            Method::File {} => "file",
            Method::Command { .. } => "command",
        }
    }
}

/// `keys/<id>.json`: a key slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeySlot {
    /// The repository that it belongs to.
    pub repository_id: RepositoryId,
    /// Its name, also in its key.
    pub id: SlotId,
    /// What opens it.
    #[serde(flatten)]
    pub method: Method,
    /// What it wraps.
    pub wraps: Wraps,
    /// For people.
    pub label: String,
    /// When it was made.
    pub created: Timestamp,
    /// The wrapped keys: a box in base64.
    pub wrapped: String,
}

impl Document for KeySlot {
    const WORD: &'static str = "key";
    const SEALED: bool = false;

    fn check(&self) -> Result<(), FormatError> {
        let fault = |problem: &str| Err(FormatError::Slot { problem: problem.to_owned() });
        if self.label.len() > LABEL_BYTES_MAX {
            return fault("its label is too long");
        }
        match &self.method {
            Method::Passphrase { argon2id } => argon2id.params().map(drop)?,
            Method::File {} => {}
            Method::Command { sealed_key } => sealed_key_bytes(sealed_key).map(drop)?,
        }
        match STANDARD.decode(&self.wrapped) {
            Ok(wrapped) if wrapped.len() == self.wraps.payload_bytes() + SEAL_BYTES => Ok(()),
            _ => fault("what it wraps is no key"),
        }
    }
}

fn sealed_key_bytes(text: &str) -> Result<Vec<u8>, FormatError> {
    match STANDARD.decode(text) {
        Ok(bytes) if bytes.len() <= SEALED_KEY_BYTES_MAX => Ok(bytes),
        _ => Err(FormatError::Slot { problem: "its encrypted key is none".to_owned() }),
    }
}

/// What a new slot is to be opened with.
#[derive(Debug, Clone)]
pub enum Credential {
    /// A passphrase.
    Passphrase(Secret),
    /// The key of a key file, see [`key_of_file`].
    File(SecretKey),
    /// A random key that a command encrypted.
    Command {
        /// The key.
        key: SecretKey,
        /// What the command made of it.
        sealed_key: Vec<u8>,
    },
}

/// The key that stands for a key file: 64 hexadecimal digits are the 32 bytes that they say, anything else of 32 bytes or more is what
/// it is.
///
/// # Errors
/// When it is shorter.
pub fn key_of_file(bytes: &[u8]) -> Result<SecretKey, FormatError> {
    let mut decoded = Zeroizing::new([0; KEY_BYTES]);
    if hex::decode_to_slice(bytes.trim_ascii(), &mut *decoded).is_ok() {
        return Ok(SecretKey::derive(KEY_FILE, &*decoded));
    }
    if bytes.len() < KEY_BYTES {
        let problem = format!("a key file needs {KEY_BYTES} random bytes, or 64 hexadecimal digits");
        return Err(FormatError::UnfitKey { problem });
    }
    Ok(SecretKey::derive(KEY_FILE, bytes))
}

/// A slot about to be made.
#[derive(Debug, Clone)]
pub struct NewSlot {
    /// What opens it.
    pub credential: Credential,
    /// What it wraps.
    pub wraps: Wraps,
    /// For people.
    pub label: String,
}

impl KeySlot {
    /// Wraps `keys`.
    ///
    /// # Errors
    /// When the passphrase is too short, the label too long, or a `map` slot is to open all.
    pub fn wrap(
        new: &NewSlot,
        keys: &RepositoryKeys,
        repository_id: RepositoryId,
        created: Timestamp,
        entropy: &dyn Entropy,
    ) -> Result<KeySlot, FormatError> {
        let unfit = |problem: String| FormatError::UnfitKey { problem };
        if new.label.len() > LABEL_BYTES_MAX {
            return Err(unfit(format!("a label has {LABEL_BYTES_MAX} bytes at most")));
        }
        let mut id = [0; 8];
        entropy.fill(&mut id);
        let (method, key) = match &new.credential {
            Credential::Passphrase(passphrase) => {
                if passphrase.reveal().chars().count() < PASSPHRASE_CHARACTERS_MIN {
                    let problem = format!("a passphrase needs {PASSPHRASE_CHARACTERS_MIN} characters or more");
                    return Err(unfit(problem));
                }
                let argon2id = Argon2id::recommended(entropy);
                let key = argon2id.stretch(passphrase)?;
                (Method::Passphrase { argon2id }, key)
            }
            Credential::File(key) => (Method::File {}, key.clone()),
            Credential::Command { key, sealed_key } => {
                (Method::Command { sealed_key: STANDARD.encode(sealed_key) }, key.clone())
            }
        };
        let payload = Zeroizing::new(match (new.wraps, keys.master()) {
            (Wraps::All, Some(master)) => master.reveal().to_vec(),
            (Wraps::All, None) => return Err(FormatError::NoDataKey { what: "a slot that opens all" }),
            (Wraps::Map, _) => {
                let (naming, meta) = keys.map_keys();
                [&naming.reveal()[..], &meta.reveal()[..]].concat()
            }
        });
        let slot = KeySlot {
            repository_id,
            id: SlotId(id),
            method,
            wraps: new.wraps,
            label: new.label.clone(),
            created,
            wrapped: String::new(),
        };
        let sealed = seal_alone("key slot", (&key, KEY_SLOT), &slot.aad(), &payload, entropy)?;
        let slot = KeySlot { wrapped: STANDARD.encode(sealed), ..slot };
        slot.check()?;
        Ok(slot)
    }

    /// Repository, slot, method, sort and label: none of them can be changed without the key.
    fn aad(&self) -> Vec<u8> {
        let mut aad = Encoder::new();
        aad.raw(&self.repository_id.0);
        aad.raw(&self.id.0);
        aad.text(self.method.word());
        aad.text(self.wraps.word());
        aad.text(&self.label);
        aad.finish()
    }

    /// The key that `passphrase` stands for, if this slot is opened with a passphrase. It takes a moment.
    ///
    /// # Errors
    /// When the slot asks for more than is reasonable.
    pub fn stretched(&self, passphrase: &Secret) -> Result<Option<SecretKey>, FormatError> {
        match &self.method {
            Method::Passphrase { argon2id } => argon2id.stretch(passphrase).map(Some),
            _ => Ok(None),
        }
    }

    /// The key as a command encrypted it, if this slot is opened with a command.
    ///
    /// # Errors
    /// When it is none.
    pub fn sealed_key(&self) -> Result<Option<Vec<u8>>, FormatError> {
        match &self.method {
            Method::Command { sealed_key } => sealed_key_bytes(sealed_key).map(Some),
            _ => Ok(None),
        }
    }

    /// The keys that it wraps.
    ///
    /// # Errors
    /// When `key` is not its key, or the slot was changed.
    pub fn open(&self, key: &SecretKey) -> Result<RepositoryKeys, FormatError> {
        let none = || FormatError::Slot { problem: "what it wraps is no key".to_owned() };
        let wrapped = STANDARD.decode(&self.wrapped).map_err(|_| none())?;
        let payload = open_alone("key slot", (key, KEY_SLOT), &self.aad(), &wrapped)?;
        let secret = |bytes: &[u8]| bytes.first_chunk().map(|bytes| SecretKey::new(*bytes)).ok_or_else(none);
        match self.wraps {
            _ if payload.len() != self.wraps.payload_bytes() => Err(none()),
            Wraps::All => Ok(RepositoryKeys::all(secret(&payload)?)),
            Wraps::Map => Ok(RepositoryKeys::map(secret(&payload)?, secret(&payload[KEY_BYTES..])?)),
        }
    }
}

#[cfg(test)]
#[path = "slot_tests.rs"]
mod tests;
