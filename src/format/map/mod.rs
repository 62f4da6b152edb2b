//! Page maps: which chunk holds which page of a backup, as a tree of content-addressed blocks.
//!
//! ```text
//! root ─► space directories (64 space ids each) ─► space records ─► extent blocks (512 extents each) ─► pieces
//!      └► file directories  (cut by path hash)  ─► file records  ─► file blocks   (1024 pieces each) ─► pieces
//! ```
//! Where blocks are cut depends on ids and paths alone, so a backup shares with its parent every block in which nothing
//! changed. A small tablespace or file keeps its pieces in its record. The byte layout is in FORMAT.md, "Map blocks".

mod directory;
mod filler;
mod pieces;
mod root;
mod types;

pub use directory::{FileDirectory, SpaceDirectory, file_begins_block, space_bucket};
pub use filler::MapFiller;
pub use pieces::{ExtentBlock, FileBlock, packs_of_pieces};
pub use root::{MapRoot, MapTotals};
pub use types::{
    BlockRef, Content, Extent, ExtentBlockRef, FileBlockRef, FileIdentity, FileMap, FilePiece, FileRecord, FileSource,
    Location, PackRef, PageChunk, Piece, SpaceKey, SpaceMap, SpaceRecord,
};

/// Extents in one extent block: 512 MiB of 16 KiB pages, about 40 KiB of block.
pub const BLOCK_EXTENTS: u32 = 512;
/// A tablespace of so many extents or fewer keeps them in its record.
pub const INLINE_EXTENTS_MAX: usize = 4;
/// Pieces in one file block: 1 GiB of a plain file.
pub const BLOCK_FILE_PIECES: usize = 1024;
/// A file of so many pieces or fewer keeps them in its record.
pub const INLINE_FILE_PIECES_MAX: usize = 4;
/// No reader accepts a larger map block.
pub const BLOCK_BYTES_MAX: u32 = 16 << 20;

const KIND_ROOT: u8 = 1;
const KIND_SPACES: u8 = 2;
const KIND_FILES: u8 = 3;
const KIND_EXTENTS: u8 = 4;
const KIND_FILE_PIECES: u8 = 5;

#[cfg(test)]
mod tests;
