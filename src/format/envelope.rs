//! JSON documents: an envelope that tells what is inside and proves that nothing was cut off or changed.
//!
//! ```json
//! {"haulout":"backup","format":1,"blake3":"<64 hexadecimal digits>","body":{…}}
//! ```
//! `blake3` is the hash of the body's bytes exactly as they stand in the document.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;

use super::{FORMAT_VERSION, FormatError};
use crate::model::{LockPolicy, RepositoryId, Timestamp};

/// Longest document that a reader accepts; a manifest is a few KiB.
pub const DOCUMENT_BYTES_MAX: u64 = 16 << 20;

/// A sort of JSON document.
pub trait Document: Serialize + DeserializeOwned {
    /// The word in the envelope's `haulout` member.
    const WORD: &'static str;
    /// Whether it is sealed in a sealed repository; not what is needed to open one.
    const SEALED: bool = true;

    /// Checks what the body's types alone do not hold.
    ///
    /// # Errors
    /// When the document cannot be used.
    fn check(&self) -> Result<(), FormatError> {
        Ok(())
    }
}

/// `haulout.json`: what makes a prefix a repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// Random name of the repository.
    pub repository_id: RepositoryId,
    /// When it was made.
    pub created: Timestamp,
    /// `none` or `aes-256-gcm`; a later version may know others.
    pub seal: String,
    /// How every object is locked, leases left out; absent where they are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock: Option<LockPolicy>,
}

impl Config {
    /// [`Config::seal`] of a repository without a key.
    pub const SEAL_NONE: &'static str = "none";
    /// [`Config::seal`] of a repository whose packs and documents are sealed by AES-256-GCM.
    pub const SEAL_AES: &'static str = "aes-256-gcm";

    /// True when nothing in it can be read without a key.
    pub fn is_sealed(&self) -> bool {
        self.seal != Config::SEAL_NONE
    }
}

impl Document for Config {
    const WORD: &'static str = "repository";
    const SEALED: bool = false;

    fn check(&self) -> Result<(), FormatError> {
        match self.seal.as_str() {
            Config::SEAL_NONE | Config::SEAL_AES => Ok(()),
            other => Err(FormatError::Sealed { what: Config::WORD, seal: other.to_owned() }),
        }
    }
}

/// `leases/…`: somebody is at work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Random, the same for all documents of one run.
    pub holder: String,
    /// What the run does, such as `backup`.
    pub purpose: String,
    /// Host name and process id, for people.
    pub who: String,
    /// How long the lease holds from the moment when the store received it.
    pub seconds: u32,
    /// True when this document ends the lease.
    pub released: bool,
}

impl Document for Lease {
    const WORD: &'static str = "lease";
}

#[derive(Serialize)]
struct EnvelopeOut<'a> {
    haulout: &'a str,
    format: u32,
    blake3: &'a str,
    body: &'a RawValue,
}

#[derive(Deserialize)]
struct EnvelopeIn<'a> {
    haulout: String,
    format: u32,
    blake3: String,
    #[serde(borrow)]
    body: &'a RawValue,
}

/// The bytes of a document that is not sealed.
///
/// # Errors
/// When the body cannot be written as JSON, such as a map whose keys are no texts.
pub fn encode_document<D: Document>(body: &D) -> Result<Vec<u8>, FormatError> {
    encode_enveloped::<D, D>(body)
}

/// A body as JSON.
pub(super) fn encode_body<B: Serialize>(body: &B) -> Result<Box<RawValue>, FormatError> {
    let fault =
        |error: serde_json::Error| FormatError::Document { what: "document".to_owned(), problem: error.to_string() };
    serde_json::value::to_raw_value(body).map_err(fault)
}

/// The bytes of a document of the sort `D` whose body is another.
pub(super) fn encode_enveloped<D: Document, B: Serialize>(body: &B) -> Result<Vec<u8>, FormatError> {
    let fault =
        |error: serde_json::Error| FormatError::Document { what: D::WORD.to_owned(), problem: error.to_string() };
    let body = serde_json::value::to_raw_value(body).map_err(fault)?;
    let blake3 = blake3::hash(body.get().as_bytes()).to_hex();
    wrap(D::WORD, FORMAT_VERSION, &blake3, &body).map_err(fault)
}

fn wrap(haulout: &str, format: u32, blake3: &str, body: &RawValue) -> Result<Vec<u8>, serde_json::Error> {
    let mut bytes = serde_json::to_vec(&EnvelopeOut { haulout, format, blake3, body })?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// Parses a document stored as `name` that is not sealed.
///
/// # Errors
/// When it is cut short, changed, of another sort, or of a later format.
pub fn decode_document<D: Document>(name: &str, bytes: &[u8]) -> Result<D, FormatError> {
    decode_body(name, open_envelope::<D>(name, bytes)?)
}

/// Proves the envelope of any document stored as `name`: that nothing was cut off or changed. Tells its sort, and what its body says
/// is for whoever has the key.
///
/// # Errors
/// When it is cut short, changed, or of a later format.
pub fn check_envelope(name: &str, bytes: &[u8]) -> Result<String, FormatError> {
    let envelope = parse_envelope(name, "document", bytes)?;
    Ok(envelope.haulout)
}

/// The body of a document of the sort `D`, proven by its hash.
pub(super) fn open_envelope<'a, D: Document>(name: &str, bytes: &'a [u8]) -> Result<&'a str, FormatError> {
    let envelope = parse_envelope(name, D::WORD, bytes)?;
    if envelope.haulout != D::WORD {
        let problem = format!("it is a {:?}, expected a {:?}", envelope.haulout, D::WORD);
        return Err(FormatError::Document { what: name.to_owned(), problem });
    }
    Ok(envelope.body.get())
}

fn parse_envelope<'a>(name: &str, word: &'static str, bytes: &'a [u8]) -> Result<EnvelopeIn<'a>, FormatError> {
    let fault = |problem: String| FormatError::Document { what: name.to_owned(), problem };
    let envelope: EnvelopeIn<'_> = serde_json::from_slice(bytes).map_err(|error| fault(error.to_string()))?;
    if envelope.format > FORMAT_VERSION {
        return Err(FormatError::Newer { what: word, found: envelope.format, supported: FORMAT_VERSION });
    }
    if envelope.format == 0 {
        return Err(fault("format 0".to_owned()));
    }
    let found = blake3::hash(envelope.body.get().as_bytes()).to_hex();
    if found.as_str() != envelope.blake3 {
        return Err(fault(format!("its body hashes to {found}, the envelope says {}", envelope.blake3)));
    }
    // Bytes around the body that say nothing have been touched by somebody all the same.
    if wrap(&envelope.haulout, envelope.format, &envelope.blake3, envelope.body).ok().as_deref() != Some(bytes) {
        return Err(fault(
            "its body is whole, but the bytes around it, such as the line break at its end, are other".to_owned(),
        ));
    }
    Ok(envelope)
}

/// The document whose body is `body`.
pub(super) fn decode_body<D: Document>(name: &str, body: &str) -> Result<D, FormatError> {
    let fault = |error: serde_json::Error| FormatError::Document { what: name.to_owned(), problem: error.to_string() };
    let document: D = serde_json::from_str(body).map_err(fault)?;
    document.check()?;
    Ok(document)
}

/// Whether these are the bytes of a document of any sort and format whose body hashes to what its envelope says.
pub fn is_whole_document(bytes: &[u8]) -> bool {
    let Ok(EnvelopeIn { haulout, format, blake3, body }) = serde_json::from_slice(bytes) else { return false };
    blake3::hash(body.get().as_bytes()).to_hex().as_str() == blake3
        && wrap(&haulout, format, &blake3, body).ok().as_deref() == Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::LockMode;

    fn config() -> Config {
        let created = Timestamp("2026-11-22T17:04:45Z".parse().unwrap());
        Config { repository_id: RepositoryId([7; 16]), created, seal: "none".to_owned(), lock: None }
    }

    #[test]
    fn a_document_round_trips() {
        let bytes = encode_document(&config()).unwrap();
        assert_eq!(decode_document::<Config>("haulout.json", &bytes).unwrap(), config());
    }

    #[test]
    fn a_document_cut_anywhere_is_refused() {
        let bytes = encode_document(&config()).unwrap();
        for length in 0..bytes.len() {
            assert!(decode_document::<Config>("haulout.json", &bytes[..length]).is_err(), "{length} bytes");
            assert!(!is_whole_document(&bytes[..length]), "{length} bytes");
        }
    }

    #[test]
    fn a_document_edited_anywhere_is_refused() {
        let bytes = encode_document(&config()).unwrap();
        for place in 0..bytes.len() {
            let mut edited = bytes.clone();
            edited[place] ^= 1;
            assert!(decode_document::<Config>("haulout.json", &edited).is_err(), "byte {place}");
        }
    }

    #[test]
    fn a_document_with_anything_around_it_is_refused() {
        let bytes = encode_document(&config()).unwrap();
        for (before, after) in [("", "\n"), ("", " "), (" ", ""), ("", "\0"), ("", "{}"), ("\u{feff}", "")] {
            let longer = [before.as_bytes(), &bytes, after.as_bytes()].concat();
            assert!(decode_document::<Config>("haulout.json", &longer).is_err(), "{before:?}, {after:?}");
        }
        let spaced = String::from_utf8(bytes).unwrap().replacen("\"format\":1", "\"format\": 1", 1);
        assert!(decode_document::<Config>("haulout.json", spaced.as_bytes()).is_err());
    }

    #[test]
    fn a_sealed_repository_is_named_as_such() {
        let bytes = encode_document(&Config { seal: "age-x25519".to_owned(), ..config() }).unwrap();
        let error = decode_document::<Config>("haulout.json", &bytes).unwrap_err();
        assert_eq!(error.to_string(), "repository is sealed (age-x25519), which this program cannot open");
    }

    #[test]
    fn a_lock_stands_in_the_repository_document_or_is_absent() {
        let text = |lock| String::from_utf8(encode_document(&Config { lock, ..config() }).unwrap()).unwrap();
        assert!(!text(None).contains("lock"));
        let lock = LockPolicy { mode: LockMode::Governance, days: 30.try_into().unwrap() };
        let locked = text(Some(lock));
        assert!(locked.contains(r#","lock":{"mode":"governance","days":30}}"#), "{locked}");
        assert_eq!(decode_document::<Config>("haulout.json", locked.as_bytes()).unwrap().lock, Some(lock));
    }

    #[test]
    fn members_that_a_later_version_adds_are_passed_over() {
        let body = r#"{"repository_id":"07070707070707070707070707070707","colour":"green","created":"2026-11-22T17:04:45Z","seal":"none"}"#;
        let blake3 = blake3::hash(body.as_bytes()).to_hex();
        let text = format!(r#"{{"haulout":"repository","format":1,"blake3":"{blake3}","body":{body}}}"#) + "\n";
        assert_eq!(decode_document::<Config>("haulout.json", text.as_bytes()).unwrap(), config());
    }

    #[test]
    fn a_newer_format_is_named_before_anything_else() {
        let bytes = br#"{"haulout":"repository","format":2,"blake3":"","body":{"all":"new"}}"#;
        assert!(matches!(decode_document::<Config>("haulout.json", bytes), Err(FormatError::Newer { found: 2, .. })));
    }

    proptest! {
        #[test]
        fn a_document_with_any_bit_flipped_is_refused(id: [u8; 16], second in 0i64..4_000_000_000, place: prop::sample::Index, bit in 0u8..8) {
            let created = Timestamp(jiff::Timestamp::from_second(second).unwrap());
            let mut bytes = encode_document(&Config { repository_id: RepositoryId(id), created, ..config() }).unwrap();
            let place = place.index(bytes.len());
            bytes[place] ^= 1 << bit;
            prop_assert!(decode_document::<Config>("haulout.json", &bytes).is_err());
        }

        #[test]
        fn any_body_is_a_document_or_refused(body in "[\\[\\]{}:,\"a-z0-9_.\\\\ -]{0,60}", whole in "\\PC{0,80}") {
            let blake3 = blake3::hash(body.as_bytes()).to_hex();
            let text = format!(r#"{{"haulout":"lease","format":1,"blake3":"{blake3}","body":{body}}}"#) + "\n";
            if let Ok(lease) = decode_document::<Lease>("lease", text.as_bytes()) {
                let bytes = encode_document(&lease).unwrap();
                prop_assert_eq!(decode_document::<Lease>("lease", &bytes).unwrap(), lease);
            }
            prop_assert!(decode_document::<Lease>("lease", whole.as_bytes()).is_err());
        }
    }
}
