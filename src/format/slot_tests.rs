use proptest::prelude::*;

use super::*;
use crate::format::{decode_document, encode_document};
use crate::model::SystemEntropy;

const ID: RepositoryId = RepositoryId([3; 16]);

fn created() -> Timestamp {
    Timestamp("2026-11-22T17:04:45Z".parse().unwrap())
}

fn slot(credential: Credential, wraps: Wraps) -> KeySlot {
    let keys = RepositoryKeys::all(SecretKey::new([7; KEY_BYTES]));
    let new = NewSlot { credential, wraps, label: "ops".to_owned() };
    KeySlot::wrap(&new, &keys, ID, created(), &SystemEntropy).unwrap()
}

fn file_key() -> SecretKey {
    key_of_file(&[5; KEY_BYTES]).unwrap()
}

#[test]
fn a_slot_gives_back_what_it_wraps() {
    let passphrase = Secret::new("correct horse battery");
    let command = Credential::Command { key: SecretKey::new([9; KEY_BYTES]), sealed_key: b"blob".to_vec() };
    for credential in [Credential::Passphrase(passphrase.clone()), Credential::File(file_key()), command] {
        for wraps in [Wraps::All, Wraps::Map] {
            let slot = slot(credential.clone(), wraps);
            let bytes = encode_document(&slot).unwrap();
            let read: KeySlot = decode_document("key", &bytes).unwrap();
            assert_eq!(read, slot);
            let key = match &credential {
                Credential::Passphrase(passphrase) => read.stretched(passphrase).unwrap().unwrap(),
                Credential::File(key) => key.clone(),
                Credential::Command { key, sealed_key } => {
                    assert_eq!(read.sealed_key().unwrap().as_ref(), Some(sealed_key));
                    key.clone()
                }
            };
            let keys = read.open(&key).unwrap();
            assert_eq!(keys.master().is_some(), wraps == Wraps::All);
            assert!(read.open(&SecretKey::new([1; KEY_BYTES])).is_err());
        }
    }
}

#[test]
fn a_slot_that_was_changed_in_anything_that_matters_does_not_open() {
    let whole = slot(Credential::File(file_key()), Wraps::Map);
    let text = |text: &str| text.to_owned();
    let command = Method::Command { sealed_key: String::new() };
    for changed in [
        KeySlot { repository_id: RepositoryId([4; 16]), ..whole.clone() },
        KeySlot { id: SlotId([0; 8]), ..whole.clone() },
        KeySlot { method: command, ..whole.clone() },
        KeySlot { wraps: Wraps::All, ..whole.clone() },
        KeySlot { label: text("other"), ..whole.clone() },
        KeySlot { wrapped: text("AAAA"), ..whole.clone() },
    ] {
        assert!(changed.open(&file_key()).is_err(), "{changed:?}");
    }
    assert!(whole.open(&file_key()).is_ok());
}

#[test]
fn a_slot_that_asks_for_too_much_is_refused_before_anything_is_allocated() {
    let made = slot(Credential::Passphrase(Secret::new("correct horse battery")), Wraps::All);
    let Method::Passphrase { argon2id } = &made.method else { panic!("{made:?}") };
    for (memory_kib, passes, lanes) in [
        (100 << 20, 1, 1),
        (u32::MAX, 1, 1),
        (65536, 1000, 4),
        (65536, 3, 1000),
        (7, 1, 1),
        (65536, 0, 1),
        (65536, 3, 0),
    ] {
        let argon2id = Argon2id { memory_kib, passes, lanes, ..argon2id.clone() };
        let hostile = KeySlot { method: Method::Passphrase { argon2id }, ..made.clone() };
        assert!(hostile.stretched(&Secret::new("x")).is_err(), "{hostile:?}");
        let bytes = encode_document(&hostile).unwrap();
        assert!(decode_document::<KeySlot>("key", &bytes).is_err(), "{hostile:?}");
    }
}

#[test]
fn a_passphrase_becomes_the_key_that_rfc_9106_says() {
    // Computed with the reference implementation (argon2-cffi), whose parameters these are.
    let argon2id = Argon2id { memory_kib: 64, passes: 3, lanes: 1, salt: *b"saltsaltsaltsalt" };
    let key = argon2id.stretch(&Secret::new("correct horse battery")).unwrap();
    assert_eq!(hex::encode(key.reveal()), "b394075c5a98164dd751bb452de15461af73f1250d76408948d107ac98bc4e44");
}

#[test]
fn a_key_file_is_hexadecimal_digits_or_bytes_enough() {
    let digits = "aa".repeat(32);
    let key = |bytes: &[u8]| key_of_file(bytes).unwrap();
    assert!(key(digits.as_bytes()) == key(format!("{}\n", digits.to_uppercase()).as_bytes()));
    assert!(key(digits.as_bytes()) == key(&[0xaa; 32]));
    assert!(key(&[0xaa; 32]) != key(&[0xaa; 33]));
    assert!(key_of_file(&[0xaa; 31]).is_err());
}

#[test]
fn short_passphrases_and_long_labels_make_no_slot() {
    let keys = RepositoryKeys::all(SecretKey::new([7; KEY_BYTES]));
    let wrap = |credential, label: String| {
        KeySlot::wrap(&NewSlot { credential, wraps: Wraps::All, label }, &keys, ID, created(), &SystemEntropy)
    };
    assert!(wrap(Credential::Passphrase(Secret::new("short")), String::new()).is_err());
    assert!(wrap(Credential::File(file_key()), "x".repeat(201)).is_err());
}

proptest! {
    #[test]
    fn any_slot_is_read_or_refused(
        method in "passphrase|file|command|other", kib: u32, passes in 0u32..20, lanes in 0u32..20,
        salt in "[0-9a-f]{30,34}", sealed_key in "[A-Za-z0-9+/=]{0,20}", wrapped in "[A-Za-z0-9+/=]{0,130}",
    ) {
        let body = format!(
            r#"{{"repository_id":"{ID}","id":"0102030405060708","method":"{method}","argon2id":{{"memory_kib":{kib},"passes":{passes},"lanes":{lanes},"salt":"{salt}"}},"sealed_key":"{sealed_key}","wraps":"all","label":"","created":"2026-11-22T17:04:45Z","wrapped":"{wrapped}"}}"#
        );
        let blake3 = blake3::hash(body.as_bytes()).to_hex();
        let text = format!(r#"{{"haulout":"key","format":1,"blake3":"{blake3}","body":{body}}}"#);
        if let Ok(slot) = decode_document::<KeySlot>("key", text.as_bytes()) {
            prop_assert!(slot.open(&file_key()).is_err());
        }
    }
}
