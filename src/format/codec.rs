//! Reads and writes the integers and texts of binary blocks, never past their end.

use super::FormatError;

/// Longest text in a block: a path is at most 511 bytes in the stream, a server's setting a little more.
pub const TEXT_BYTES_MAX: usize = 4096;

/// Appends little-endian integers, LEB128 integers and texts.
#[derive(Debug, Default)]
pub struct Encoder {
    bytes: Vec<u8>,
}

impl Encoder {
    /// An empty block.
    pub fn new() -> Encoder {
        Encoder::default()
    }

    /// Appends one byte.
    pub fn u8(&mut self, value: u8) {
        self.bytes.push(value);
    }

    /// Appends four bytes, little-endian.
    pub fn u32(&mut self, value: u32) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    /// Appends eight bytes, little-endian.
    pub fn u64(&mut self, value: u64) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    /// Appends an unsigned LEB128 integer: seven bits a byte, lowest first, bit 7 set on all but the last.
    pub fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }

    /// Appends bytes as they are.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Appends a text: its length in bytes as a varint, then UTF-8.
    pub fn text(&mut self, text: &str) {
        self.varint(text.len() as u64);
        self.raw(text.as_bytes());
    }

    /// Appends a presence byte (0 or 1) and, after 1, what `write` writes.
    pub fn option<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Encoder, T)) {
        match value {
            None => self.u8(0),
            Some(value) => {
                self.u8(1);
                write(self, value);
            }
        }
    }

    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// True when nothing was appended.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The block.
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }
}

/// Takes a block apart; every method fails at the block's end instead of reading past it.
#[derive(Debug)]
pub struct Decoder<'a> {
    what: &'static str,
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Decoder<'a> {
    /// Decodes `bytes`, which hold a `what`.
    pub fn new(what: &'static str, bytes: &'a [u8]) -> Decoder<'a> {
        Decoder { what, bytes, offset: 0 }
    }

    /// An error at the present place that says `problem`.
    pub fn fault(&self, problem: impl Into<String>) -> FormatError {
        FormatError::Block { what: self.what, offset: self.offset, problem: problem.into() }
    }

    /// The next `count` bytes.
    pub fn raw(&mut self, count: usize) -> Result<&'a [u8], FormatError> {
        let end = self.offset.checked_add(count).filter(|end| *end <= self.bytes.len());
        let end = end.ok_or_else(|| self.fault(format!("{count} bytes expected, {} left", self.left())))?;
        let taken = &self.bytes[self.offset..end];
        self.offset = end;
        Ok(taken)
    }

    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], FormatError> {
        let mut array = [0; N];
        array.copy_from_slice(self.raw(N)?);
        Ok(array)
    }

    /// The next byte.
    pub fn u8(&mut self) -> Result<u8, FormatError> {
        Ok(self.array::<1>()?[0])
    }

    /// The next four bytes, little-endian.
    pub fn u32(&mut self) -> Result<u32, FormatError> {
        self.array().map(u32::from_le_bytes)
    }

    /// The next eight bytes, little-endian.
    pub fn u64(&mut self) -> Result<u64, FormatError> {
        self.array().map(u64::from_le_bytes)
    }

    /// The next LEB128 integer, in its shortest form.
    pub fn varint(&mut self) -> Result<u64, FormatError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(self.fault("integer of more than 64 bits"));
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                if byte == 0 && shift > 0 {
                    return Err(self.fault("integer not in its shortest form"));
                }
                return Ok(value);
            }
        }
        Err(self.fault("integer of more than 64 bits"))
    }

    /// The next varint, which must fit 32 bits.
    pub fn varint_u32(&mut self) -> Result<u32, FormatError> {
        let value = self.varint()?;
        u32::try_from(value).map_err(|_| self.fault(format!("{value} does not fit 32 bits")))
    }

    /// The next varint as a count of things that take at least `bytes_each` bytes, so that nobody allocates for more
    /// than the block can hold.
    pub fn count(&mut self, bytes_each: usize) -> Result<usize, FormatError> {
        let count = self.varint()?;
        let most = self.left() / bytes_each.max(1);
        match usize::try_from(count) {
            Ok(count) if count <= most => Ok(count),
            _ => Err(self.fault(format!("{count} entries announced, room for {most}"))),
        }
    }

    /// The next text.
    pub fn text(&mut self) -> Result<String, FormatError> {
        let length = self.count(1)?;
        if length > TEXT_BYTES_MAX {
            return Err(self.fault(format!("text of {length} bytes, {TEXT_BYTES_MAX} at most")));
        }
        let bytes = self.raw(length)?;
        std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| self.fault("text is not UTF-8"))
    }

    /// A presence byte and, after 1, what `read` reads.
    pub fn option<T>(
        &mut self,
        read: impl FnOnce(&mut Decoder<'a>) -> Result<T, FormatError>,
    ) -> Result<Option<T>, FormatError> {
        match self.u8()? {
            0 => Ok(None),
            1 => read(self).map(Some),
            other => Err(self.fault(format!("presence byte {other}"))),
        }
    }

    /// Bytes not yet read.
    pub fn left(&self) -> usize {
        self.bytes.len() - self.offset
    }

    /// Fails when bytes are left over.
    pub fn finish(self) -> Result<(), FormatError> {
        if self.left() == 0 { Ok(()) } else { Err(self.fault(format!("{} bytes left over", self.left()))) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn integers_and_texts_round_trip(values: Vec<u64>, text in "\\PC{0,200}", choice: Option<u32>) {
            let mut encoder = Encoder::new();
            values.iter().for_each(|value| encoder.varint(*value));
            encoder.text(&text);
            encoder.option(choice, |encoder, value| encoder.u32(value));
            let bytes = encoder.finish();
            let mut decoder = Decoder::new("test", &bytes);
            for value in &values {
                prop_assert_eq!(decoder.varint().unwrap(), *value);
            }
            prop_assert_eq!(decoder.text().unwrap(), text);
            prop_assert_eq!(decoder.option(|decoder| decoder.u32()).unwrap(), choice);
            prop_assert!(decoder.finish().is_ok());
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let mut decoder = Decoder::new("test", &bytes);
            while decoder.left() > 0 {
                if decoder.varint().is_err() && decoder.text().is_err() && decoder.u32().is_err() {
                    break;
                }
            }
        }
    }

    #[test]
    fn a_count_that_the_block_cannot_hold_is_refused() {
        let mut encoder = Encoder::new();
        encoder.varint(u64::MAX);
        let bytes = encoder.finish();
        assert!(Decoder::new("test", &bytes).count(1).is_err());
    }
}
