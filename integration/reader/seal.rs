//! Keys and sealed bytes, as FORMAT.md says, "Sealing".

use std::{fs, path::Path};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;

use crate::block::Fault;

type Key = [u8; 32];

/// What follows from the master key.
pub struct Keys {
    pub naming: Key,
    pub meta: Key,
    pub data: Key,
}

impl Keys {
    fn of(master: &[u8]) -> Keys {
        let derive = |what: &str| blake3::derive_key(&format!("haulout format 1: {what} key"), master);
        Keys { naming: derive("naming"), meta: derive("meta"), data: derive("data") }
    }
}

/// Opens a box: salt, ciphertext, tag.
pub fn open(context: &str, key: &Key, offset: u32, aad: &[u8], sealed: &[u8]) -> Result<Vec<u8>, Fault> {
    let (salt, rest) = sealed.split_at_checked(16).ok_or("a box without a salt")?;
    let key = blake3::derive_key(&format!("haulout format 1: {context}"), &[&key[..], salt].concat());
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &key).map_err(|error| error.to_string())?);
    let mut nonce = [0; 12];
    nonce[..4].copy_from_slice(&offset.to_le_bytes());
    let mut bytes = rest.to_vec();
    let opened = key.open_in_place(Nonce::assume_unique_for_key(nonce), Aad::from(aad), &mut bytes);
    let length = opened.map_err(|_| format!("a box of {context} does not open"))?.len();
    bytes.truncate(length);
    Ok(bytes)
}

/// The body of a sealed document that lies under `key`.
pub fn open_body(body: &Value, meta: &Key, repository: &[u8], key: &str) -> Result<Value, Fault> {
    let members = body.as_object().ok_or("no object")?;
    let sealed = members.get("sealed").and_then(Value::as_str).filter(|_| members.len() == 1).ok_or("not sealed")?;
    let sealed = STANDARD.decode(sealed).map_err(|error| error.to_string())?;
    let body = open("document", meta, 0, &[repository, key.as_bytes()].concat(), &sealed)?;
    serde_json::from_slice(&body).map_err(|error| error.to_string())
}

fn text(out: &mut Vec<u8>, text: &str) {
    // One byte of varint: nothing here is longer.
    assert!(text.len() < 128);
    out.push(text.len() as u8);
    out.extend_from_slice(text.as_bytes());
}

/// The key-encryption key of a slot, from the files in `secrets`.
fn key_of(slot: &Value, secrets: &Path) -> Result<Key, Fault> {
    let read = |name: &str| fs::read(secrets.join(name)).map_err(|error| error.to_string());
    let digits = |bytes: &[u8]| hex::decode(bytes.trim_ascii()).map_err(|error| error.to_string());
    match slot["method"].as_str() {
        Some("file") if slot["wraps"] == "all" => {
            Ok(blake3::derive_key("haulout format 1: key file", &digits(&read("file")?)?))
        }
        Some("file") => Ok(blake3::derive_key("haulout format 1: key file", &read("map-file")?)),
        Some("passphrase") => {
            let argon2id = &slot["argon2id"];
            let number = |member: &str| argon2id[member].as_u64().unwrap() as u32;
            let salt = digits(argon2id["salt"].as_str().unwrap().as_bytes())?;
            let params = argon2::Params::new(number("memory_kib"), number("passes"), number("lanes"), Some(32));
            let params = params.map_err(|error| error.to_string())?;
            let argon2 = argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
            let mut key = [0; 32];
            let passphrase = read("passphrase")?;
            let passphrase = passphrase.strip_suffix(b"\n").unwrap_or(&passphrase);
            argon2.hash_password_into(passphrase, &salt, &mut key).map_err(|error| error.to_string())?;
            Ok(key)
        }
        Some("command") => {
            // What the golden repository's command does: `tr g-v 0-9a-f`.
            let sealed = STANDARD.decode(slot["sealed_key"].as_str().unwrap()).map_err(|error| error.to_string())?;
            let plain: Vec<u8> = sealed.iter().map(|letter| b"0123456789abcdef"[usize::from(letter - b'g')]).collect();
            digits(&plain)?.try_into().map_err(|_| "the command's key is short".to_owned())
        }
        other => Err(format!("method {other:?}")),
    }
}

/// Opens all slots with the files in `secrets`; they must agree.
pub fn unlock(slots: &[Value], secrets: &Path, repository: &[u8]) -> Result<Keys, Fault> {
    let (mut masters, mut maps) = (Vec::new(), Vec::new());
    for slot in slots {
        let member = |name: &str| slot[name].as_str().unwrap_or_default();
        let mut aad = repository.to_vec();
        aad.extend(hex::decode(member("id")).map_err(|error| error.to_string())?);
        ["method", "wraps", "label"].iter().for_each(|name| text(&mut aad, member(name)));
        let wrapped = STANDARD.decode(member("wrapped")).map_err(|error| error.to_string())?;
        let payload = open("key slot", &key_of(slot, secrets)?, 0, &aad, &wrapped)?;
        if member("wraps") == "all" { masters.push(payload) } else { maps.push(payload) }
    }
    let master = masters.first().filter(|master| master.len() == 32).ok_or("no slot that wraps all")?;
    let keys = Keys::of(master);
    let map = [keys.naming, keys.meta].concat();
    if masters.iter().any(|other| other != master) || maps.iter().any(|other| *other != map) {
        return Err("slots disagree".to_owned());
    }
    Ok(keys)
}
