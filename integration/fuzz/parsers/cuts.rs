//! The same bytes, cut in another way.

use std::io::{Error, ErrorKind, Read, Result};

/// Lengths of pieces in which `input` is read for the second time: single bytes where that is quick, else a few.
pub fn piece_bytes(input: &[u8]) -> usize {
    let chance = crc32fast::hash(input) as usize % 61;
    if input.len() <= 4096 && chance.is_multiple_of(4) { 1 } else { 1 + chance + input.len() / 256 }
}

/// Reads `rest` in pieces of `piece_bytes`, and is interrupted now and then.
pub struct Pieces<'a> {
    pub rest: &'a [u8],
    pub piece_bytes: usize,
    pub reads: usize,
}

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        self.reads += 1;
        if self.reads.is_multiple_of(5) {
            return Err(Error::from(ErrorKind::Interrupted));
        }
        let len = self.piece_bytes.min(buffer.len()).min(self.rest.len());
        let (now, later) = self.rest.split_at(len);
        buffer[..len].copy_from_slice(now);
        self.rest = later;
        Ok(len)
    }
}
