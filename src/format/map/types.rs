//! What a page map says, independent of its bytes.
//!
//! Types are generic over `P`, how a pack is named: [`PackRef`] once a pack is finished, a slot while it is being filled.

use crate::format::Encoding;
use crate::format::pack::{FOOTER_BYTES, HEADER_BYTES, PACK_BYTES_MAX};
use crate::model::{ChunkId, ExtentNo, PackId, PageMask, PageNo, PageSize, SpaceId};

/// A finished pack and its size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PackRef {
    /// Name of the pack.
    pub id: PackId,
    /// Size of the object in bytes.
    pub bytes: u32,
}

impl PackRef {
    /// In a block's bytes: the pack that holds this very block, whose name cannot be known while it is being filled.
    pub const HOME: PackRef = PackRef { id: PackId([0; 32]), bytes: 0 };

    /// False for a size that no pack has: less than header and footer, or more than any reader accepts.
    pub const fn has_possible_size(self) -> bool {
        self.bytes as usize >= HEADER_BYTES + FOOTER_BYTES && self.bytes as u64 <= PACK_BYTES_MAX
    }
}

/// Where a chunk's stored bytes lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Location<P = PackRef> {
    /// The pack.
    pub pack: P,
    /// First byte in the pack.
    pub offset: u32,
    /// Number of bytes in the pack.
    pub stored_bytes: u32,
    /// How they are stored.
    pub encoding: Encoding,
}

impl<P> Location<P> {
    /// The same place with the pack named by `name`.
    pub fn map<Q>(self, name: impl FnOnce(P) -> Q) -> Location<Q> {
        let Location { pack, offset, stored_bytes, encoding } = self;
        Location { pack: name(pack), offset, stored_bytes, encoding }
    }
}

/// A chunk that holds pages of one extent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageChunk<P = PackRef> {
    /// Name of the chunk.
    pub id: ChunkId,
    /// The pages that the chunk holds, ascending, one after the other.
    pub pages: PageMask,
    /// Where it is stored.
    pub at: Location<P>,
}

/// Where the bytes of some pages come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content<P = PackRef> {
    /// Every byte is zero.
    Zero,
    /// From a chunk.
    Chunk(PageChunk<P>),
}

/// Some pages of an extent and where their bytes come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece<P = PackRef> {
    /// The pages; a chunk may hold more than these, which newer pieces have replaced.
    pub mask: PageMask,
    /// Their bytes.
    pub content: Content<P>,
}

impl<P> Piece<P> {
    /// The same piece with its pack named by `name`.
    pub fn map<Q>(self, name: impl FnOnce(P) -> Q) -> Piece<Q> {
        let content = match self.content {
            Content::Zero => Content::Zero,
            Content::Chunk(PageChunk { id, pages, at }) => Content::Chunk(PageChunk { id, pages, at: at.map(name) }),
        };
        Piece { mask: self.mask, content }
    }

    /// Bytes that the piece's chunk takes in its pack; none for zeros.
    pub fn stored_bytes(&self) -> u64 {
        match &self.content {
            Content::Zero => 0,
            Content::Chunk(chunk) => u64::from(chunk.at.stored_bytes),
        }
    }
}

/// One extent and its pieces, which are disjoint and cover every page of the extent that the file has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extent<P = PackRef> {
    /// Number of the extent in its file.
    pub no: ExtentNo,
    /// Its pieces, by their lowest page.
    pub pieces: Vec<Piece<P>>,
}

impl<P: Copy> Extent<P> {
    /// The same extent with its packs named by `name`.
    pub fn map<Q>(&self, mut name: impl FnMut(P) -> Q) -> Extent<Q> {
        Extent { no: self.no, pieces: self.pieces.iter().map(|piece| piece.map(&mut name)).collect() }
    }

    /// All pages of all pieces.
    pub fn covered(&self) -> PageMask {
        self.pieces.iter().fold(PageMask::EMPTY, |covered, piece| covered.union(piece.mask))
    }
}

/// A map block and where it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockRef {
    /// Name of the block.
    pub id: ChunkId,
    /// Length of the block before compression.
    pub raw_bytes: u32,
    /// Where it is stored.
    pub at: Location,
}

/// An extent block of a tablespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExtentBlockRef {
    /// Covers extents 512·index up to 512·index + 511.
    pub index: u32,
    /// Sum of the stored bytes of the pieces inside.
    pub stored_bytes: u64,
    /// The block.
    pub block: BlockRef,
}

/// What tells one InnoDB file: the tablespace and, for a system tablespace of several files, which of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpaceKey {
    /// The tablespace.
    pub space: SpaceId,
    /// 0, or the place of the file in `innodb_data_file_path`.
    pub part: u16,
}

/// What the file system tells of a file and no tool inside the database can change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileIdentity {
    /// Inode number.
    pub inode: u64,
    /// Birth time in nanoseconds since 1970, where the file system keeps it.
    pub born_ns: Option<i64>,
}

/// The pieces of a tablespace's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SpaceMap<P = PackRef> {
    /// Few extents, here.
    Inline(Vec<Extent<P>>),
    /// Extent blocks by ascending index.
    Blocks(Vec<ExtentBlockRef>),
}

/// One InnoDB file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpaceRecord<P = PackRef> {
    /// Which file.
    pub key: SpaceKey,
    /// Path in the datadir, such as `shop/orders.ibd`.
    pub name: String,
    /// Physical page size.
    pub page_size: PageSize,
    /// `FSP_SPACE_FLAGS` of page 0.
    pub flags: u32,
    /// Whether page 0 says that pages are encrypted, where that is known.
    pub encrypted: Option<bool>,
    /// Length of the file in pages.
    pub pages: u32,
    /// Identity of the file that was read, taken before it was read.
    pub identity: Option<FileIdentity>,
    /// Something replaced the file while it was being backed up: it is no base for an incremental.
    pub suspect: bool,
    /// Permission bits of the file in the datadir.
    pub mode: Option<u32>,
    /// Its pieces.
    pub map: SpaceMap<P>,
}

/// Where the bytes of a stretch of a plain file come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileSource<P = PackRef> {
    /// Every byte is zero.
    Zero,
    /// From a chunk, beginning `skip` bytes into it.
    Chunk {
        /// Name of the chunk.
        id: ChunkId,
        /// Length of the chunk before compression.
        raw_bytes: u32,
        /// Bytes of the chunk before the stretch.
        skip: u32,
        /// Where it is stored.
        at: Location<P>,
    },
}

/// A stretch of a plain file; it begins where the one before it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FilePiece<P = PackRef> {
    /// Length of the stretch.
    pub bytes: u32,
    /// Its bytes.
    pub source: FileSource<P>,
}

impl<P> FilePiece<P> {
    /// The same piece with its pack named by `name`.
    pub fn map<Q>(self, name: impl FnOnce(P) -> Q) -> FilePiece<Q> {
        let source = match self.source {
            FileSource::Zero => FileSource::Zero,
            FileSource::Chunk { id, raw_bytes, skip, at } => {
                FileSource::Chunk { id, raw_bytes, skip, at: at.map(name) }
            }
        };
        FilePiece { bytes: self.bytes, source }
    }

    /// Bytes that the piece's chunk takes in its pack; none for zeros.
    pub fn stored_bytes(&self) -> u64 {
        match &self.source {
            FileSource::Zero => 0,
            FileSource::Chunk { at, .. } => u64::from(at.stored_bytes),
        }
    }
}

/// A file block of a plain file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileBlockRef {
    /// First byte of the file that the block covers.
    pub offset: u64,
    /// Sum of the stored bytes of the pieces inside.
    pub stored_bytes: u64,
    /// The block.
    pub block: BlockRef,
}

/// The pieces of a plain file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileMap<P = PackRef> {
    /// Few pieces, here.
    Inline(Vec<FilePiece<P>>),
    /// File blocks by ascending offset.
    Blocks(Vec<FileBlockRef>),
}

/// One file that is not a tablespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileRecord<P = PackRef> {
    /// Path in the datadir, such as `shop/orders.frm`.
    pub path: String,
    /// Length of the file.
    pub bytes: u64,
    /// Permission bits of the file in the datadir.
    pub mode: Option<u32>,
    /// Its pieces.
    pub map: FileMap<P>,
}

impl<P> SpaceRecord<P> {
    /// Extents that the file has; the last may be shorter than 64 pages.
    pub fn extents(&self) -> u32 {
        self.pages.div_ceil(crate::model::EXTENT_PAGES)
    }

    /// Pages of extent `extent` that the file has.
    pub fn pages_of(&self, extent: ExtentNo) -> PageMask {
        let PageNo(first) = extent.first_page();
        PageMask::first(self.pages.saturating_sub(first))
    }

    /// Length of the file in bytes.
    pub fn bytes(&self) -> u64 {
        u64::from(self.pages) * self.page_size.bytes() as u64
    }
}
