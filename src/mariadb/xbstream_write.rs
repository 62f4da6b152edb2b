//! A writer of the stream that [`super::xbstream`] parses, for simulations and tests.

use std::{
    collections::HashMap,
    io::{Result, Write},
};

use super::xbstream::{IGNORABLE, MAGIC, REWRITE, StreamPath};

/// Writes chunks as `mariadb-backup` does. It refuses nothing: a test may want a stream that is wrong.
#[derive(Debug)]
pub struct StreamWriter<W> {
    output: W,
    offsets: HashMap<StreamPath, u64>,
    replace: bool,
}

impl<W: Write> StreamWriter<W> {
    /// Writes to `output`.
    pub fn new(output: W) -> StreamWriter<W> {
        StreamWriter { output, offsets: HashMap::new(), replace: false }
    }

    /// Whether the chunks that follow say that their file replaces one already delivered.
    pub fn set_replace(&mut self, replace: bool) {
        self.replace = replace;
    }

    /// Writes a payload chunk that goes on where the file's last one ended.
    pub fn data(&mut self, path: &StreamPath, bytes: &[u8]) -> Result<()> {
        let offset = self.offsets.entry(path.clone()).or_default();
        let at = *offset;
        *offset += bytes.len() as u64;
        self.data_at(path, at, bytes)
    }

    /// Writes a payload chunk with the offset `at`, wherever the file is.
    pub fn data_at(&mut self, path: &StreamPath, at: u64, bytes: &[u8]) -> Result<()> {
        self.head(b'P', 0, path)?;
        self.payload(at, bytes)
    }

    /// Ends a file; one that had no payload is empty.
    pub fn end(&mut self, path: &StreamPath) -> Result<()> {
        self.offsets.remove(path);
        self.head(b'E', 0, path)
    }

    /// Moves to the absolute `offset` of the file.
    pub fn seek(&mut self, path: &StreamPath, offset: u64) -> Result<()> {
        self.offsets.insert(path.clone(), offset);
        self.head(b'S', 0, path)?;
        self.output.write_all(&offset.to_le_bytes())
    }

    /// Renames a delivered file.
    pub fn rename(&mut self, from: &StreamPath, to: &StreamPath) -> Result<()> {
        self.head(b'R', 0, from)?;
        self.path(to)
    }

    /// Removes a delivered file.
    pub fn remove(&mut self, path: &StreamPath) -> Result<()> {
        self.head(b'D', 0, path)
    }

    /// Writes a chunk of a type that readers do not know and may skip.
    pub fn ignorable(&mut self, kind: u8, path: &StreamPath, bytes: &[u8]) -> Result<()> {
        self.head(kind, IGNORABLE, path)?;
        self.payload(0, bytes)
    }

    /// Writes a whole file, its payload in chunks of `chunk_bytes`.
    pub fn file(&mut self, path: &StreamPath, bytes: &[u8], chunk_bytes: usize) -> Result<()> {
        for chunk in bytes.chunks(chunk_bytes.max(1)) {
            self.data(path, chunk)?;
        }
        self.end(path)
    }

    /// The output, with everything written.
    pub fn into_inner(self) -> W {
        self.output
    }

    fn head(&mut self, kind: u8, flags: u8, path: &StreamPath) -> Result<()> {
        let replace = if self.replace { REWRITE } else { 0 };
        self.output.write_all(&MAGIC)?;
        self.output.write_all(&[flags | replace, kind])?;
        self.path(path)
    }

    fn path(&mut self, path: &StreamPath) -> Result<()> {
        // A path is at most 511 bytes long.
        self.output.write_all(&(path.as_str().len() as u32).to_le_bytes())?;
        self.output.write_all(path.as_str().as_bytes())
    }

    fn payload(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.output.write_all(&(bytes.len() as u64).to_le_bytes())?;
        self.output.write_all(&offset.to_le_bytes())?;
        self.output.write_all(&crc32fast::hash(bytes).to_le_bytes())?;
        self.output.write_all(bytes)
    }
}
