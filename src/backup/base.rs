//! The backup that a run is compared with: the parent of an incremental, the newest backup for a full.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread;

use lru::LruCache;

use super::{BackupError, Obstacle, Stash};
use crate::format::Manifest;
use crate::format::map::{
    BlockRef, Content, Extent, ExtentBlock, ExtentBlockRef, FileBlock, FileMap, FilePiece, FileRecord, FileSource,
    MapRoot, PackRef, Piece, SpaceKey, SpaceMap, SpaceRecord,
};
use crate::model::{ChunkId, ExtentNo, Lsn, PackId};
use crate::repository::{RepositoryError, StoredPack};

/// Extent and file blocks kept: one of each file that the tool reads at the same time, with room to spare; 150 KiB each.
const BLOCKS_KEPT: usize = 64;
/// Blocks read at the same time while the whole map is looked through: they hide a store's latency.
const LOSS_READS: usize = 8;

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
    /// Packs that the store holds.
    pub packs: HashMap<PackId, StoredPack>,
    /// Packs that a check found damaged, and those in which a damaged block was found: nothing new shall rest on them.
    damaged: RwLock<HashSet<PackId>>,
    stash: Arc<dyn Stash>,
    extents: Mutex<LruCache<ChunkId, Arc<Vec<Extent>>>>,
    pieces: Mutex<LruCache<ChunkId, Arc<Vec<FilePiece>>>>,
}

/// Who waits for a block.
#[derive(Debug, Clone, Copy)]
enum Haste {
    /// Nobody but the run itself.
    None,
    /// The tool, whose pipe must not stall.
    Soon,
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
    /// Puts together a map that was read from `stash`; `packs` are those that the store holds, `damaged` those that are known to
    /// be damaged.
    pub fn new(
        manifest: Manifest,
        root: MapRoot,
        spaces: Vec<SpaceRecord>,
        files: Vec<FileRecord>,
        packs: HashMap<PackId, StoredPack>,
        damaged: HashSet<PackId>,
        stash: Arc<dyn Stash>,
    ) -> Base {
        Base {
            manifest,
            root,
            spaces: spaces.into_iter().map(|record| (record.key, record)).collect(),
            files: files.into_iter().map(|record| (record.path.clone(), record)).collect(),
            packs,
            damaged: RwLock::new(damaged),
            stash,
            extents: cache(),
            pieces: cache(),
        }
    }

    /// True when the store holds the pack, with its size, and no damage was found in it so far.
    pub fn holds(&self, pack: &PackRef) -> bool {
        self.is_stored(pack) && !self.is_damaged(pack.id)
    }

    /// True when any pack is known to be damaged.
    pub fn knows_damage(&self) -> bool {
        !self.damaged.read().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    fn is_stored(&self, pack: &PackRef) -> bool {
        self.packs.get(&pack.id).is_some_and(|found| found.bytes == u64::from(pack.bytes))
    }

    fn is_damaged(&self, pack: PackId) -> bool {
        self.damaged.read().unwrap_or_else(PoisonError::into_inner).contains(&pack)
    }

    /// What the backup has for extent `extent` of file `key`, leaving out chunks whose packs are gone, and blocks that are
    /// damaged or cannot be had soon: the tool's pipe waits for it.
    ///
    /// # Errors
    /// When the store does not answer.
    pub fn extent(&self, key: SpaceKey, extent: ExtentNo) -> Result<Vec<Piece>, BackupError> {
        let Some(record) = self.spaces.get(&key) else { return Ok(Vec::new()) };
        let extents = match self.block_by(record, ExtentBlock::index_of(extent), Haste::Soon) {
            // What cannot be read is stored anew; an incremental notices when it lays its pages over the parent's.
            Err(BackupError::NeedsFull(_) | BackupError::NotSoon) => return Ok(Vec::new()),
            extents => extents?,
        };
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
    /// [`Obstacle::ParentUnreadable`] when the block is damaged or gone; or when the store does not answer.
    pub fn block(&self, record: &SpaceRecord, index: u32) -> Result<Arc<Vec<Extent>>, BackupError> {
        self.block_by(record, index, Haste::None)
    }

    fn block_by(&self, record: &SpaceRecord, index: u32, haste: Haste) -> Result<Arc<Vec<Extent>>, BackupError> {
        match &record.map {
            SpaceMap::Inline(extents) => {
                let here = extents.iter().filter(|extent| ExtentBlock::index_of(extent.no) == index);
                Ok(Arc::new(here.cloned().collect()))
            }
            SpaceMap::Blocks(blocks) => match blocks.binary_search_by_key(&index, |block| block.index) {
                Ok(place) => self.read_extents(record.key, &blocks[place], haste),
                Err(_) => Ok(Arc::default()),
            },
        }
    }

    fn read_extents(&self, key: SpaceKey, at: &ExtentBlockRef, haste: Haste) -> Result<Arc<Vec<Extent>>, BackupError> {
        if let Some(known) = self.extents.lock().unwrap_or_else(PoisonError::into_inner).get(&at.block.id) {
            return Ok(known.clone());
        }
        let extents = Arc::new(self.decode_extents(key, at, haste)?);
        self.extents.lock().unwrap_or_else(PoisonError::into_inner).put(at.block.id, extents.clone());
        Ok(extents)
    }

    fn decode_extents(&self, key: SpaceKey, at: &ExtentBlockRef, haste: Haste) -> Result<Vec<Extent>, BackupError> {
        let read = || {
            let bytes = match haste {
                Haste::Soon => self.stash.read_block_soon(&at.block)?,
                Haste::None => self.stash.read_block(&at.block)?,
            };
            let block = ExtentBlock::decode(&bytes, at.block.at.pack)?;
            if block.key == key && block.index == at.index {
                return Ok(block.extents);
            }
            Err(BackupError::ForeignBlock { backup: self.manifest.id.clone(), path: format!("{key:?}") })
        };
        read().map_err(|error| self.unreadable(&at.block, error))
    }

    /// Damage is an obstacle; a store that does not answer stays an error.
    fn unreadable(&self, block: &BlockRef, error: BackupError) -> BackupError {
        match error {
            BackupError::Repository(RepositoryError::Store(_)) | BackupError::Interrupted | BackupError::NotSoon => {
                error
            }
            error => {
                self.damaged.write().unwrap_or_else(PoisonError::into_inner).insert(block.at.pack.id);
                let id = self.manifest.id.clone();
                BackupError::NeedsFull(Obstacle::ParentUnreadable { id, reason: super::chain(&error) })
            }
        }
    }

    /// What the backup has for the stretch of `bytes` bytes at `offset` of a plain file, if that is one piece whose pack
    /// is there and whose block is not damaged and can be had soon: the tool's pipe waits for it.
    ///
    /// # Errors
    /// When the store does not answer.
    pub fn file_piece(&self, path: &str, offset: u64, bytes: u64) -> Result<Option<FilePiece>, BackupError> {
        let Some(record) = self.files.get(path) else { return Ok(None) };
        let (start, pieces) = match &record.map {
            FileMap::Inline(pieces) => (0, Arc::new(pieces.clone())),
            FileMap::Blocks(blocks) => {
                let after = blocks.partition_point(|block| block.offset <= offset);
                let Some(block) = after.checked_sub(1).map(|place| blocks[place]) else { return Ok(None) };
                match self.read_pieces(&block.block) {
                    Err(BackupError::NeedsFull(_) | BackupError::NotSoon) => return Ok(None),
                    pieces => (block.offset, pieces?),
                }
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

    fn read_pieces(&self, at: &BlockRef) -> Result<Arc<Vec<FilePiece>>, BackupError> {
        if let Some(known) = self.pieces.lock().unwrap_or_else(PoisonError::into_inner).get(&at.id) {
            return Ok(known.clone());
        }
        let read = || Ok(FileBlock::decode(&self.stash.read_block_soon(at)?, at.at.pack)?.pieces);
        let pieces = Arc::new(read().map_err(|error| self.unreadable(at, error))?);
        self.pieces.lock().unwrap_or_else(PoisonError::into_inner).put(at.id, pieces.clone());
        Ok(pieces)
    }

    /// Start checkpoint of the backup.
    pub fn start(&self) -> Lsn {
        self.manifest.lsn.start
    }

    /// Reads every block of the map and compares the packs that it needs with those that the store holds; tells the first
    /// thing that speaks against an incremental. Ends early once `enough` is true.
    ///
    /// # Errors
    /// When the store does not answer.
    pub fn find_loss(&self, enough: &AtomicBool) -> Result<Option<Obstacle>, BackupError> {
        let directories = self.root.spaces.iter().map(|(_, block)| block);
        let directories = directories.chain(self.root.files.iter().map(|(_, block)| block));
        let root = PackRef { id: self.manifest.map.pack, bytes: self.manifest.map.pack_bytes };
        let of_blocks = self.spaces.values().flat_map(|record| match &record.map {
            SpaceMap::Inline(_) => [].iter(),
            SpaceMap::Blocks(blocks) => blocks.iter(),
        });
        let of_map = directories.map(|block| block.at.pack).chain(of_blocks.map(|block| block.block.at.pack));
        if let Some(lost) = std::iter::once(root).chain(of_map).find_map(|pack| self.lost(&pack)) {
            return Ok(Some(lost));
        }
        let mut blocks = Vec::new();
        for record in self.spaces.values() {
            match &record.map {
                SpaceMap::Inline(extents) => {
                    if let Some(lost) = self.lost_pack(extents) {
                        return Ok(Some(lost));
                    }
                }
                SpaceMap::Blocks(of_space) => blocks.extend(of_space.iter().map(|block| (record.key, block))),
            }
        }
        let next = AtomicUsize::new(0);
        let found = Mutex::new(Ok(None));
        thread::scope(|scope| {
            for _ in 0..LOSS_READS.min(blocks.len()) {
                scope.spawn(|| {
                    while !enough.load(Ordering::SeqCst)
                        && let Some((key, block)) = blocks.get(next.fetch_add(1, Ordering::SeqCst))
                    {
                        let lost = match self.decode_extents(*key, block, Haste::None) {
                            Ok(extents) => Ok(self.lost_pack(&extents)),
                            Err(BackupError::NeedsFull(obstacle)) => Ok(Some(obstacle)),
                            Err(error) => Err(error),
                        };
                        if !matches!(lost, Ok(None)) {
                            *found.lock().unwrap_or_else(PoisonError::into_inner) = lost;
                            next.store(blocks.len(), Ordering::SeqCst);
                        }
                    }
                });
            }
        });
        found.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    fn lost_pack(&self, extents: &[Extent]) -> Option<Obstacle> {
        extents.iter().flat_map(|extent| &extent.pieces).find_map(|piece| match &piece.content {
            Content::Chunk(chunk) => self.lost(&chunk.at.pack),
            Content::Zero => None,
        })
    }

    fn lost(&self, pack: &PackRef) -> Option<Obstacle> {
        let (id, pack_id) = (self.manifest.id.clone(), pack.id);
        if !self.is_stored(pack) {
            return Some(Obstacle::ParentIncomplete { id, pack: pack_id });
        }
        self.is_damaged(pack_id).then_some(Obstacle::ParentDamaged { id, pack: pack_id })
    }
}
