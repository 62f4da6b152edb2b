//! A writer of the redo log of a backup, which [`super::redo`] parses, for simulations and tests.

use super::redo::{CHECKPOINTS, HEADER_BYTES, RedoFormat};
use crate::model::{Lsn, PageNo, SpaceId};

/// Type bytes of the records on whole files.
const CREATE: u8 = 0x80;
const DELETE: u8 = 0x90;
const RENAME: u8 = 0xa0;
const MODIFY: u8 = 0xb0;
const CHECKPOINT: u8 = 0xf0;
/// Type bytes of the records that free a page, and write it anew from nothing.
const FREE: u8 = 0x00;
const INIT: u8 = 0x10;
/// Type byte of a record that writes bytes to a page.
const WRITE: u8 = 0x30;

/// Writes mini-transactions behind each other. What they say is not encrypted, also where the format says so.
#[derive(Debug)]
pub struct RedoWriter {
    format: RedoFormat,
    start: Lsn,
    checkpoint_end: Lsn,
    log: Vec<u8>,
    records: Vec<u8>,
}

impl RedoWriter {
    /// Begins a log at the start checkpoint `start`.
    pub fn new(format: RedoFormat, start: Lsn) -> RedoWriter {
        RedoWriter { format, start, checkpoint_end: start, log: Vec::new(), records: Vec::new() }
    }

    /// LSN of the end of the last mini-transaction.
    pub fn end(&self) -> Lsn {
        Lsn(self.start.0 + self.log.len() as u64)
    }

    /// Adds a record that writes `bytes` to a page.
    pub fn page(&mut self, space: SpaceId, page: PageNo, bytes: &[u8]) {
        self.record(WRITE, space.0, page.0, bytes);
    }

    /// Adds FREE_PAGE.
    pub fn free(&mut self, space: SpaceId, page: PageNo) {
        self.record(FREE, space.0, page.0, &[]);
    }

    /// Adds INIT_PAGE.
    pub fn init(&mut self, space: SpaceId, page: PageNo) {
        self.record(INIT, space.0, page.0, &[]);
    }

    /// Adds FILE_CREATE.
    pub fn create(&mut self, space: SpaceId, name: &str) {
        self.record(CREATE, space.0, 0, name.as_bytes());
    }

    /// Adds FILE_DELETE.
    pub fn delete(&mut self, space: SpaceId, name: &str) {
        self.record(DELETE, space.0, 0, name.as_bytes());
    }

    /// Adds FILE_RENAME.
    pub fn rename(&mut self, space: SpaceId, from: &str, to: &str) {
        self.record(RENAME, space.0, 0, format!("{from}\0{to}").as_bytes());
    }

    /// Adds FILE_MODIFY.
    pub fn modify(&mut self, space: SpaceId, name: &str) {
        self.record(MODIFY, space.0, 0, name.as_bytes());
    }

    /// Writes the mini-transaction that ends the start checkpoint, without which the log is of no use.
    pub fn checkpoint(&mut self) {
        self.checkpoint_end = self.end();
        self.record(CHECKPOINT, 0, 0, &self.start.0.to_be_bytes());
        self.commit();
    }

    /// Ends the mini-transaction of the records added since the last one.
    pub fn commit(&mut self) {
        let mut crc = crc32c::crc32c(&self.records);
        self.log.append(&mut self.records);
        self.log.push(1);
        if self.format != RedoFormat::Plain {
            let nonce = self.end().0.to_be_bytes();
            crc = crc32c::crc32c_append(crc, &nonce);
            self.log.extend_from_slice(&nonce);
        }
        self.log.extend_from_slice(&crc.to_be_bytes());
    }

    /// The whole file.
    pub fn into_file(self) -> Vec<u8> {
        let mut file = vec![0; HEADER_BYTES];
        let number: u32 = if self.format == RedoFormat::EncryptedWhole { 0xf09f_979d } else { 0x5068_7973 };
        file[..4].copy_from_slice(&number.to_be_bytes());
        file[8..16].copy_from_slice(&self.start.0.to_be_bytes());
        file[16..30].copy_from_slice(b"Backup 10.11.0");
        if self.format != RedoFormat::Plain {
            file[51] = 1;
            file[55] = 1;
        }
        let crc = crc32c::crc32c(&file[..508]).to_be_bytes();
        file[508..512].copy_from_slice(&crc);
        let block = &mut file[CHECKPOINTS[0]..CHECKPOINTS[0] + 64];
        block[..8].copy_from_slice(&self.start.0.to_be_bytes());
        block[8..16].copy_from_slice(&self.checkpoint_end.0.to_be_bytes());
        let crc = crc32c::crc32c(&block[..60]).to_be_bytes();
        block[60..].copy_from_slice(&crc);
        file.extend_from_slice(&self.log);
        file
    }

    fn record(&mut self, kind: u8, space: u32, page: u32, body: &[u8]) {
        let mut payload = varint(space);
        payload.extend_from_slice(&varint(page));
        payload.extend_from_slice(body);
        match payload.len() {
            len @ 1..=15 => self.records.push(kind | len as u8),
            // The length that stands in the record counts its own bytes, less 15.
            len => {
                let added = (1..=3).map(|bytes| (bytes, varint((len + bytes - 15) as u32)));
                let field = added.into_iter().find(|(bytes, field)| field.len() == *bytes);
                self.records.push(kind);
                self.records.extend_from_slice(&field.map(|(_, field)| field).unwrap_or_default());
            }
        }
        self.records.extend_from_slice(&payload);
    }
}

/// Encodes a number (`mlog_encode_varint`).
fn varint(value: u32) -> Vec<u8> {
    match value {
        0..128 => vec![value as u8],
        128..16_512 => (0x8000 | (value - 128)).to_be_bytes()[2..].to_vec(),
        16_512..2_113_664 => (0xc0_0000 | (value - 16_512)).to_be_bytes()[1..].to_vec(),
        2_113_664..270_549_120 => (0xe000_0000 | (value - 2_113_664)).to_be_bytes().to_vec(),
        _ => [&[0xf0][..], &(value - 270_549_120).to_be_bytes()].concat(),
    }
}
