//! JSON documents: manifests, leases, and what makes a prefix a repository.

use std::fmt::Debug;

use haulout::format::{
    Config, DamageList, Document, Lease, Manifest, Proof, decode_document, encode_document, map::BlockRef,
};

use super::flipped;

/// The first byte tells what follows: a document, or the body of one, which then gets the envelope that it ought to have.
pub fn check(input: &[u8]) {
    let Some((how, rest)) = input.split_first() else { return };
    let document = match how % 6 {
        0 => rest.to_vec(),
        1 => wrapped(Manifest::WORD, rest),
        2 => wrapped(Config::WORD, rest),
        3 => wrapped(Lease::WORD, rest),
        4 => wrapped(DamageList::WORD, rest),
        _ => wrapped(Proof::WORD, rest),
    };
    if let Some(manifest) = one::<Manifest>(&document) {
        let _ = (manifest.check(None), manifest.check(Some(&manifest)), manifest.totals());
        if let Ok(block) = BlockRef::try_from(&manifest.map) {
            assert!(block.at.pack.has_possible_size());
        }
    }
    one::<Config>(&document);
    one::<Lease>(&document);
    one::<DamageList>(&document);
    one::<Proof>(&document);
}

/// The body in an envelope with its hash. Blanks around it are no part of it.
fn wrapped(word: &str, body: &[u8]) -> Vec<u8> {
    let body = body.trim_ascii();
    let hash = blake3::hash(body);
    [format!("{{\"haulout\":\"{word}\",\"format\":1,\"blake3\":\"{hash}\",\"body\":").as_bytes(), body, b"}\n"].concat()
}

fn one<D: Document + PartialEq + Debug>(bytes: &[u8]) -> Option<D> {
    let document: D = decode_document("name", bytes).ok()?;
    let written = encode_document(&document).unwrap();
    let read: D = decode_document("name", &written).unwrap();
    assert_eq!(read, document);
    assert_eq!(encode_document(&read).unwrap(), written);
    let changed = flipped(&written, 0..written.len());
    assert!(decode_document::<D>("name", &changed).is_err(), "a flipped bit passes");
    Some(document)
}
