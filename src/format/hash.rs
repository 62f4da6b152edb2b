//! How chunks, pages and packs are named: BLAKE3, keyed by what is hashed.
//!
//! A chunk's name is a keyed hash whose key is derived from the repository's naming key and from the sort of thing that
//! is named, so that a file cannot be made to bear the name of a page. A plain repository's naming key is 32 zero bytes.

use crate::model::{ChunkId, PackId};

/// First 16 bytes of a page's hash: enough to tell whether a page changed, small enough to keep for every page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PageSum(pub [u8; 16]);

/// Keys under which things are named.
#[derive(Clone)]
pub struct Namer {
    page: [u8; 32],
    pages: [u8; 32],
    plain: [u8; 32],
    map: [u8; 32],
}

impl std::fmt::Debug for Namer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Namer")
    }
}

impl Namer {
    /// Names things in a repository whose naming key is `key`; 32 zero bytes for a plain repository.
    pub fn new(key: &[u8; 32]) -> Namer {
        Namer {
            page: blake3::derive_key("haulout format 1: page", key),
            pages: blake3::derive_key("haulout format 1: chunk of pages", key),
            plain: blake3::derive_key("haulout format 1: chunk of a file", key),
            map: blake3::derive_key("haulout format 1: map block", key),
        }
    }

    /// Hash of each page of `pages`, which is a whole number of pages of `page_bytes` bytes.
    pub fn pages(&self, pages: &[u8], page_bytes: usize) -> Vec<PageHash> {
        pages.chunks(page_bytes).map(|page| PageHash(*blake3::keyed_hash(&self.page, page).as_bytes())).collect()
    }

    /// Name of a chunk of the pages with these hashes, in the order in which the chunk holds them.
    pub fn chunk_of_pages<'a>(&self, hashes: impl IntoIterator<Item = &'a PageHash>) -> ChunkId {
        let mut hasher = blake3::Hasher::new_keyed(&self.pages);
        for hash in hashes {
            hasher.update(&hash.0);
        }
        ChunkId(*hasher.finalize().as_bytes())
    }

    /// Name of a chunk of a plain file.
    pub fn chunk_of_file(&self, bytes: &[u8]) -> ChunkId {
        ChunkId(*blake3::keyed_hash(&self.plain, bytes).as_bytes())
    }

    /// Name of a map block.
    pub fn map_block(&self, bytes: &[u8]) -> ChunkId {
        ChunkId(*blake3::keyed_hash(&self.map, bytes).as_bytes())
    }
}

/// Hash of one page, 32 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageHash(pub [u8; 32]);

impl PageHash {
    /// The part of the hash that pack directories keep.
    pub fn sum(&self) -> PageSum {
        let mut sum = [0; 16];
        sum.copy_from_slice(&self.0[..16]);
        PageSum(sum)
    }
}

/// Name of a pack: the unkeyed BLAKE3 hash of the object, so that anyone can check one.
pub fn pack_id(bytes: &[u8]) -> PackId {
    PackId(*blake3::hash(bytes).as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_cannot_bear_the_name_of_a_page_or_map_block() {
        let namer = Namer::new(&[0; 32]);
        let page = vec![7; 16384];
        let hashes = namer.pages(&page, 16384);
        let names = [
            namer.chunk_of_pages(&hashes),
            namer.chunk_of_file(&page),
            namer.map_block(&page),
            namer.chunk_of_file(&hashes[0].0),
        ];
        for (index, name) in names.iter().enumerate() {
            assert!(!names[index + 1..].contains(name));
        }
    }

    #[test]
    fn another_key_gives_other_names() {
        let (one, other) = (Namer::new(&[0; 32]), Namer::new(&[1; 32]));
        assert_ne!(one.chunk_of_file(b"x"), other.chunk_of_file(b"x"));
    }
}
