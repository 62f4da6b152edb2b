//! Bytes in the store and what they mean, without any I/O.
#![doc = include_str!("FORMAT.md")]

mod codec;
mod damage;
mod envelope;
#[cfg(test)]
mod example;
mod hash;
mod manifest;
pub mod map;
pub mod pack;
mod proof;
mod prune;
mod seal;
mod segment;
mod slot;

pub use codec::{Decoder, Encoder, TEXT_BYTES_MAX};
pub use damage::{DAMAGED_PACKS_MAX, DamageList};
pub use envelope::{
    Config, DOCUMENT_BYTES_MAX, Document, Lease, check_envelope, decode_document, encode_document, is_whole_document,
};
pub use hash::{Namer, PageHash, PageSum, pack_id};
#[cfg(test)]
pub(crate) use manifest::tests::full as manifest_example;
pub use manifest::{
    BackupKind, EDITION_MAX, GtidPosition, LsnRange, Manifest, RedoFormat, Server, Sizes, StoredBlock, SystemFile,
    Timeline, Witness,
};
pub use pack::Encoding;
#[cfg(test)]
pub(crate) use proof::tests::{example as proof_example, passing as proof_passing};
pub use proof::{
    ASSERTIONS_MAX, PROOF_LINES_MAX, PROOF_TEXT_BYTES_MAX, Proof, ProofAssertion, ProofSample, ProofSpaces,
    ProofTables, ProofTimes,
};
pub use prune::{BinlogLetGo, Keep, LetGo, PACKS_PER_PART, PrunePacks, PrunePlan, PruneStep, Superseded, SweepTally};
pub use seal::{DocumentPlace, KEY_BYTES, Keyring, RepositoryKeys, SEAL_BYTES, SecretKey, StoredChunk};
#[cfg(test)]
pub(crate) use segment::tests::example as segment_example;
pub use segment::{BinlogSource, Gap, SEGMENT_PACKS_MAX, Segment, SegmentPack, StreamLink};
pub use slot::{
    Argon2id, Credential, KeySlot, Method, NewSlot, PASSPHRASE_CHARACTERS_MIN, SEALED_KEY_BYTES_MAX, Wraps, key_of_file,
};

use crate::error::{Diagnose, Kind};

/// Version of the format that this program writes, and the newest that it reads.
pub const FORMAT_VERSION: u32 = 1;

/// Stored bytes that are not what the format says.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// A binary block breaks the layout.
    #[error("{what} is damaged at byte {offset}: {problem}")]
    Block {
        /// What was being read.
        what: &'static str,
        /// Where in it.
        offset: usize,
        /// What was found.
        problem: String,
    },
    /// Bytes do not bear the name they are stored under.
    #[error("{what} {expected} is damaged: its bytes hash to {found}")]
    WrongHash {
        /// What was being read.
        what: &'static str,
        /// The name asked for.
        expected: String,
        /// The name that the bytes have.
        found: String,
    },
    /// Bytes do not compress or decompress.
    #[error("{what} cannot be compressed or decompressed")]
    Compression {
        /// What was being read or written.
        what: &'static str,
        /// The reason zstd gives.
        source: std::io::Error,
    },
    /// A JSON document is not what it should be.
    #[error("{what} is damaged: {problem}")]
    Document {
        /// What was being read.
        what: String,
        /// What was found.
        problem: String,
    },
    /// Written by a later version of this program.
    #[error("{what} has format {found}, this program reads up to {supported}")]
    Newer {
        /// What was being read.
        what: &'static str,
        /// The version found.
        found: u32,
        /// The newest that can be read.
        supported: u32,
    },
    /// Sealed bytes are not what was sealed under that name, at that place and with that key.
    #[error("{what} cannot be opened: it was changed, or sealed as something else or with another key")]
    NotOpened {
        /// What was being read.
        what: &'static str,
    },
    /// The cipher refuses, which it does for lengths that nothing here has.
    #[error("{what} cannot be sealed")]
    Cipher {
        /// What was being sealed or opened.
        what: &'static str,
    },
    /// Only the keys of a `map` slot are known.
    #[error("{what} is sealed with the data key, which a key of the sort `map` does not open")]
    NoDataKey {
        /// What was being read or written.
        what: &'static str,
    },
    /// What a key slot is to be made of will not do.
    #[error("{problem}")]
    UnfitKey {
        /// Why.
        problem: String,
    },
    /// A key slot cannot be used.
    #[error("key slot: {problem}")]
    Slot {
        /// What is wrong with it.
        problem: String,
    },
    /// Sealed with a key, which this program cannot open.
    #[error("{what} is sealed ({seal}), which this program cannot open")]
    Sealed {
        /// What was being read.
        what: &'static str,
        /// The seal's name or number.
        seal: String,
    },
}

impl Diagnose for FormatError {
    fn kind(&self) -> Kind {
        match self {
            FormatError::Newer { .. } => Kind::NoRepository,
            FormatError::Sealed { .. } | FormatError::NoDataKey { .. } => Kind::WrongKey,
            FormatError::Cipher { .. } => Kind::Failed,
            FormatError::UnfitKey { .. } => Kind::Usage,
            FormatError::Compression { .. }
            | FormatError::Block { .. }
            | FormatError::WrongHash { .. }
            | FormatError::NotOpened { .. }
            | FormatError::Slot { .. }
            | FormatError::Document { .. } => Kind::Corrupt,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            FormatError::Newer { .. } => Some("use a newer haulout".to_owned()),
            FormatError::Sealed { .. } => Some("use a haulout that knows this seal".to_owned()),
            FormatError::NoDataKey { .. } => {
                Some("use a key whose slot wraps `all`; `haulout key list` shows the slots".to_owned())
            }
            FormatError::Cipher { .. } | FormatError::UnfitKey { .. } | FormatError::Slot { .. } => None,
            _ => Some("run `haulout check --read-data` to learn which backups are whole".to_owned()),
        }
    }
}
