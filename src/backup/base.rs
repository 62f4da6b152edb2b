//! The backup that a run is compared with: the parent of an incremental, the newest backup for a full.

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

use lru::LruCache;

use super::{BackupError, Stash};
use crate::format::Manifest;
use crate::format::map::{
    Content, Extent, ExtentBlock, ExtentBlockRef, FileBlock, FileMap, FilePiece, FileRecord, FileSource, MapRoot,
    PackRef, Piece, SpaceKey, SpaceMap, SpaceRecord,
};
use crate::model::{ChunkId, ExtentNo, Lsn, PackId};

/// Extent and file blocks kept: one of each file that the tool reads at the same time, with room to spare; 150 KiB each.
const BLOCKS_KEPT: usize = 64;

/// The map of an earlier backup. Records are held, some 300 bytes for a table; blocks of pieces are read when needed.
pub struct Base {
    /// Its manifest.
    pub manifest: Manifest,
    /// Root of its map.
    pub root: MapRoot,
    /// Its InnoDB files.
    pub spaces: BTreeMap<SpaceKey, SpaceRecord>,
    /// Its other files.
    pub files: BTreeMap<String, FileRecord>,
    packs: HashMap<PackId, u64>,
    stash: Arc<dyn Stash>,
    extents: Mutex<LruCache<ChunkId, Arc<Vec<Extent>>>>,
    pieces: Mutex<LruCache<ChunkId, Arc<Vec<FilePiece>>>>,
}

impl std::fmt::Debug for Base {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Base({})", self.manifest.id)
    }
}

fn cache<T>() -> Mutex<LruCache<ChunkId, T>> {
    Mutex::new(LruCache::new(NonZeroUsize::new(BLOCKS_KEPT).unwrap_or(NonZeroUsize::MIN)))
}

impl Base {
    /// Puts together a map that was read from `stash`; `packs` are those that the store holds, with their sizes.
    pub fn new(
        manifest: Manifest,
        root: MapRoot,
        spaces: Vec<SpaceRecord>,
        files: Vec<FileRecord>,
        packs: HashMap<PackId, u64>,
        stash: Arc<dyn Stash>,
    ) -> Base {
        Base {
            manifest,
            root,
            spaces: spaces.into_iter().map(|record| (record.key, record)).collect(),
            files: files.into_iter().map(|record| (record.path.clone(), record)).collect(),
            packs,
            stash,
            extents: cache(),
            pieces: cache(),
        }
    }

    /// True when the store holds the pack, with its size.
    pub fn holds(&self, pack: &PackRef) -> bool {
        self.packs.get(&pack.id) == Some(&u64::from(pack.bytes))
    }

    /// What the backup has for extent `extent` of file `key`, leaving out chunks whose packs are gone.
    ///
    /// # Errors
    /// When a map block cannot be read.
    pub fn extent(&self, key: SpaceKey, extent: ExtentNo) -> Result<Vec<Piece>, BackupError> {
        let Some(record) = self.spaces.get(&key) else { return Ok(Vec::new()) };
        let extents = self.block(record, ExtentBlock::index_of(extent))?;
        let found = extents.binary_search_by_key(&extent, |extent| extent.no).ok();
        let pieces = found.map(|place| extents[place].pieces.as_slice()).unwrap_or_default();
        Ok(pieces.iter().filter(|piece| self.is_there(piece)).copied().collect())
    }

    fn is_there(&self, piece: &Piece) -> bool {
        match &piece.content {
            Content::Zero => true,
            Content::Chunk(chunk) => self.holds(&chunk.at.pack),
        }
    }

    /// The extents of block `index` of a file.
    ///
    /// # Errors
    /// When the block cannot be read.
    pub fn block(&self, record: &SpaceRecord, index: u32) -> Result<Arc<Vec<Extent>>, BackupError> {
        match &record.map {
            SpaceMap::Inline(extents) => {
                let here = extents.iter().filter(|extent| ExtentBlock::index_of(extent.no) == index);
                Ok(Arc::new(here.cloned().collect()))
            }
            SpaceMap::Blocks(blocks) => match blocks.binary_search_by_key(&index, |block| block.index) {
                Ok(place) => self.read_extents(record.key, &blocks[place]),
                Err(_) => Ok(Arc::default()),
            },
        }
    }

    fn read_extents(&self, key: SpaceKey, at: &ExtentBlockRef) -> Result<Arc<Vec<Extent>>, BackupError> {
        if let Some(known) = self.extents.lock().unwrap_or_else(PoisonError::into_inner).get(&at.block.id) {
            return Ok(known.clone());
        }
        let block = ExtentBlock::decode(&self.stash.read_block(&at.block)?, at.block.at.pack)?;
        if block.key != key || block.index != at.index {
            return Err(BackupError::ForeignBlock { backup: self.manifest.id.clone(), path: format!("{key:?}") });
        }
        let extents = Arc::new(block.extents);
        self.extents.lock().unwrap_or_else(PoisonError::into_inner).put(at.block.id, extents.clone());
        Ok(extents)
    }

    /// What the backup has for the stretch of `bytes` bytes at `offset` of a plain file, if that is one piece whose pack
    /// is there.
    ///
    /// # Errors
    /// When a map block cannot be read.
    pub fn file_piece(&self, path: &str, offset: u64, bytes: u64) -> Result<Option<FilePiece>, BackupError> {
        let Some(record) = self.files.get(path) else { return Ok(None) };
        let (start, pieces) = match &record.map {
            FileMap::Inline(pieces) => (0, Arc::new(pieces.clone())),
            FileMap::Blocks(blocks) => {
                let after = blocks.partition_point(|block| block.offset <= offset);
                let Some(block) = after.checked_sub(1).map(|place| blocks[place]) else { return Ok(None) };
                (block.offset, self.read_pieces(&block.block)?)
            }
        };
        let mut at = start;
        for piece in pieces.iter() {
            if at == offset && u64::from(piece.bytes) == bytes {
                let there = match &piece.source {
                    FileSource::Zero => true,
                    FileSource::Chunk { at, .. } => self.holds(&at.pack),
                };
                return Ok(there.then_some(*piece));
            }
            at += u64::from(piece.bytes);
            if at > offset {
                break;
            }
        }
        Ok(None)
    }

    fn read_pieces(&self, at: &crate::format::map::BlockRef) -> Result<Arc<Vec<FilePiece>>, BackupError> {
        if let Some(known) = self.pieces.lock().unwrap_or_else(PoisonError::into_inner).get(&at.id) {
            return Ok(known.clone());
        }
        let pieces = Arc::new(FileBlock::decode(&self.stash.read_block(at)?, at.at.pack)?.pieces);
        self.pieces.lock().unwrap_or_else(PoisonError::into_inner).put(at.id, pieces.clone());
        Ok(pieces)
    }

    /// Start checkpoint of the backup.
    pub fn start(&self) -> Lsn {
        self.manifest.lsn.start
    }

    /// The first pack that the map needs and the store does not hold.
    ///
    /// # Errors
    /// When a map block cannot be read.
    pub fn missing_pack(&self) -> Result<Option<PackRef>, BackupError> {
        for record in self.spaces.values() {
            let indices: Vec<u32> = match &record.map {
                SpaceMap::Inline(_) => vec![0],
                SpaceMap::Blocks(blocks) => blocks.iter().map(|block| block.index).collect(),
            };
            for index in indices {
                let gone =
                    self.block(record, index)?.iter().flat_map(|extent| extent.pieces.clone()).find_map(|piece| {
                        match piece.content {
                            Content::Chunk(chunk) if !self.holds(&chunk.at.pack) => Some(chunk.at.pack),
                            _ => None,
                        }
                    });
                if gone.is_some() {
                    return Ok(gone);
                }
            }
        }
        Ok(None)
    }
}
