//! Names of stored things.

use std::{fmt, str::FromStr};

use jiff::Span;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Entropy, Timestamp};

/// A text that does not name what it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a {what}: {found:?}")]
pub struct IdError {
    /// What was expected, such as `backup id`.
    pub what: &'static str,
    /// The text found.
    pub found: String,
}

macro_rules! byte_id {
    ($(#[$doc:meta])* $name:ident, $bytes:expr, $what:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $bytes]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), hex::encode(self.0))
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                let mut bytes = [0; $bytes];
                let lower = !text.bytes().any(|byte| byte.is_ascii_uppercase());
                match hex::decode_to_slice(text, &mut bytes) {
                    Ok(()) if lower => Ok(Self(bytes)),
                    _ => Err(IdError { what: $what, found: text.to_owned() }),
                }
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

byte_id!(
    /// Name of a chunk: the BLAKE3 hash of its bytes before compression, 32 bytes.
    ChunkId, 32, "chunk id"
);
byte_id!(
    /// Name of a pack: the BLAKE3 hash of the whole object, 32 bytes.
    PackId, 32, "pack id"
);
byte_id!(
    /// Name of a repository, random, 16 bytes, made by `init`.
    RepositoryId, 16, "repository id"
);
byte_id!(
    /// Name of a key slot, random, 8 bytes.
    SlotId, 8, "key slot id"
);

/// Name of a backup: `<start time>-<6 hexadecimal digits>`, such as `20261122T170445Z-3f9a1c`.
///
/// Names sort in the order in which backups were begun. They are keys in the store, so the parts hold no other characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct BackupId(String);

impl BackupId {
    /// Makes the name of a backup that starts at `start` and sorts behind `newest`: where both began within a second, or the
    /// clock was set back between them, it says a later time than `start`.
    pub fn following(newest: Option<&BackupId>, start: Timestamp, entropy: &dyn Entropy) -> BackupId {
        let earliest =
            newest.and_then(BackupId::second).and_then(|newest| newest.0.checked_add(Span::new().seconds(1)).ok());
        let start = earliest.map_or(start, |earliest| start.max(Timestamp(earliest)));
        BackupId::new(start, entropy)
    }

    /// The second that the name says.
    fn second(&self) -> Option<Timestamp> {
        Timestamp::parse_compact(self.0.split('-').next()?)
    }

    /// Makes the name of a backup that starts at `start`.
    pub fn new(start: Timestamp, entropy: &dyn Entropy) -> BackupId {
        let mut random = [0; 3];
        entropy.fill(&mut random);
        BackupId(format!("{}-{}", start.compact(), hex::encode(random)))
    }

    /// The text of the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BackupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for BackupId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let bytes = text.as_bytes();
        let shape = b"dddddddd\x54dddddd\x5a-hhhhhh";
        let fits = bytes.len() == shape.len()
            && bytes.iter().zip(shape).all(|(byte, kind)| match kind {
                b'd' => byte.is_ascii_digit(),
                b'h' => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
                fixed => byte == fixed,
            });
        if fits { Ok(BackupId(text.to_owned())) } else { Err(IdError { what: "backup id", found: text.to_owned() }) }
    }
}

impl<'de> Deserialize<'de> for BackupId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

macro_rules! moment_id {
    ($(#[$doc:meta])* $name:ident, $what:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(transparent)]
        pub struct $name(BackupId);

        impl $name {
            /// Makes the name of one that is made at `moment`.
            pub fn new(moment: Timestamp, entropy: &dyn Entropy) -> $name {
                $name(BackupId::new(moment, entropy))
            }

            /// The text of the name.
            pub fn as_str(&self) -> &str {
                self.0.as_str()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                text.parse().map($name).map_err(|IdError { found, .. }| IdError { what: $what, found })
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

moment_id!(
    /// Name of a prune plan, of the same shape as a backup's: the second in which it was made, and six hexadecimal digits.
    PlanId, "plan id"
);
moment_id!(
    /// Name of a proof, of the same shape as a backup's: the second in which its drill began, and six hexadecimal digits.
    ProofId, "proof id"
);
moment_id!(
    /// Name of a stream of binary log, of the same shape as a backup's: the second in which its archiving began, and six hexadecimal digits.
    StreamId, "stream id"
);

impl StreamId {
    /// Makes the name of a stream that begins at `moment` and sorts behind `newest`, as [`BackupId::following`] does.
    pub fn following(newest: Option<&StreamId>, moment: Timestamp, entropy: &dyn Entropy) -> StreamId {
        StreamId(BackupId::following(newest.map(|newest| &newest.0), moment, entropy))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed;

    impl Entropy for Fixed {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.fill(0xab);
        }
    }

    #[test]
    fn backup_id_round_trips_through_its_text() {
        let start = Timestamp("2026-11-22T17:04:45Z".parse().unwrap());
        let id = BackupId::new(start, &Fixed);
        assert_eq!(id.as_str(), "20261122T170445Z-ababab");
        assert_eq!(id.as_str().parse::<BackupId>().unwrap(), id);
    }

    #[test]
    fn a_later_backup_has_a_later_name_whatever_the_clock_says() {
        let start = Timestamp("2026-11-22T17:04:45Z".parse().unwrap());
        let id = |newest: Option<&str>| {
            let newest = newest.map(|text| text.parse::<BackupId>().unwrap());
            let id = BackupId::following(newest.as_ref(), start, &Fixed);
            assert!(newest.is_none_or(|newest| newest < id));
            id.as_str().to_owned()
        };
        assert_eq!(id(None), "20261122T170445Z-ababab");
        assert_eq!(id(Some("20261122T170444Z-ffffff")), "20261122T170445Z-ababab");
        assert_eq!(id(Some("20261122T170445Z-ffffff")), "20261122T170446Z-ababab");
        assert_eq!(id(Some("20261231T235959Z-ffffff")), "20270101T000000Z-ababab");
    }

    #[test]
    fn backup_id_refuses_what_is_no_plain_key() {
        for text in ["", "latest", "20261122T170445Z-ABABAB", "20261122T170445Z-../../", "20261122T170445Z-ababab.json"]
        {
            assert!(text.parse::<BackupId>().is_err(), "{text}");
        }
    }

    #[test]
    fn chunk_id_refuses_wrong_length_and_case() {
        assert!("ab".parse::<ChunkId>().is_err());
        assert!("AB".repeat(32).parse::<ChunkId>().is_err());
        assert_eq!("ab".repeat(32).parse::<ChunkId>().unwrap(), ChunkId([0xab; 32]));
    }
}
