//! Repositories of made-up servers, in memory: what a backup would have stored, without a server.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};

use crate::format::map::{
    BLOCK_EXTENTS, BLOCK_FILE_PIECES, BlockRef, Content, Extent, ExtentBlock, ExtentBlockRef, FileBlock, FileBlockRef,
    FileDirectory, FileMap, FilePiece, FileRecord, FileSource, INLINE_EXTENTS_MAX, INLINE_FILE_PIECES_MAX, Location,
    MapRoot, MapTotals, PackRef, PageChunk, Piece, SpaceDirectory, SpaceKey, SpaceMap, SpaceRecord, file_begins_block,
    space_bucket,
};
use crate::format::pack::{self, NewChunk, PackBuilder, PackKind, Placed};
use crate::format::{
    BackupKind, Credential, GtidPosition, Keyring, LsnRange, Manifest, NewSlot, PageSum, RedoFormat, Server, Sizes,
    StoredBlock, Timeline, Wraps, key_of_file,
};
use crate::model::{
    BackupId, ChunkId, Clock, EXTENT_PAGES, Entropy, ExtentNo, Lsn, PackId, PageMask, PageSize, SpaceId, SystemEntropy,
    Timestamp,
};
use crate::repository::{ObjectKey, Repository};
use crate::store::{RetryPolicy, Store, StoreOptions};

/// Packs are small here, so that a backup has many.
const PACK_BYTES: usize = 64 << 10;

/// `FIL_PAGE_INDEX`, and the type of page 0.
const PAGE_TYPES: [u16; 2] = [17855, 8];

/// A made-up server and its repository.
pub struct Synthetic {
    pub objects: Arc<InMemory>,
    pub repository: Repository,
    pub spaces: BTreeMap<SpaceKey, Space>,
    pub files: BTreeMap<String, Vec<u8>>,
    /// What is wrong with the next map.
    pub mistake: Option<Mistake>,
    /// Added to the LSN of each page that is written.
    pub ahead: u64,
    rng: StdRng,
    generation: u32,
    last: Option<Manifest>,
    known_blocks: HashMap<ChunkId, BlockRef>,
    known_files: HashMap<ChunkId, FilePiece>,
}

/// A map that does not fit its packs or itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mistake {
    /// The first extent of this file has no pieces.
    Forget(SpaceKey),
    /// The first chunk of this file is said to begin a byte early.
    Misplace(SpaceKey),
    /// Two extents of this file are said to be in each other's place.
    Exchange(SpaceKey),
    /// The second extent of the first file is said to be the second file's.
    Borrow(SpaceKey, SpaceKey),
    /// The last extent of this file is left out, and the record says so.
    Shorten(SpaceKey),
    /// The record of this file has other flags.
    Flags(SpaceKey),
}

/// A tablespace as it is now, and where its pages are stored.
pub struct Space {
    pub name: String,
    pub page_size: PageSize,
    pub flags: u32,
    pub mode: Option<u32>,
    pub pages: Vec<Vec<u8>>,
    dirty: BTreeSet<u32>,
    extents: Vec<Vec<Piece>>,
}

struct Counting(AtomicU8);

impl Entropy for Counting {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(self.0.fetch_add(1, Ordering::Relaxed));
    }
}

struct Fixed;

impl Clock for Fixed {
    fn now(&self) -> Timestamp {
        moment(0)
    }
}

fn moment(seconds: i64) -> Timestamp {
    Timestamp(jiff::Timestamp::from_second(1_795_000_000 + seconds).unwrap())
}

/// What opens a sealed one.
pub const KEY_FILE: &[u8] = b"a key file of thirty-two bytes or more";

fn over(store: Arc<dyn ObjectStore>) -> Store {
    let retry = RetryPolicy { attempts_max: 1, ..RetryPolicy::default() };
    Store::over("memory:///", store, StoreOptions { retry, ..StoreOptions::default() })
}

impl Synthetic {
    /// An empty server; the same `seed` makes the same history.
    pub async fn new(seed: u64) -> Synthetic {
        let objects = Arc::new(InMemory::new());
        Synthetic::on(seed, objects.clone(), objects).await
    }

    /// The same with a repository that lies in `store`, which keeps its objects in `objects`.
    pub async fn on(seed: u64, objects: Arc<InMemory>, store: Arc<dyn ObjectStore>) -> Synthetic {
        let store = over(store);
        let repository = Repository::init(store, &Fixed, &Counting(AtomicU8::new(seed as u8))).await.unwrap();
        Synthetic::over(objects, repository, seed)
    }

    /// The same with a sealed repository, which the key file [`KEY_FILE`] opens.
    pub async fn sealed(seed: u64) -> Synthetic {
        let objects = Arc::new(InMemory::new());
        Synthetic::sealed_on(seed, objects.clone(), objects).await
    }

    /// The same with a sealed repository in `store`, which ends in `objects`.
    pub async fn sealed_on(seed: u64, objects: Arc<InMemory>, store: Arc<dyn ObjectStore>) -> Synthetic {
        let credential = Credential::File(key_of_file(KEY_FILE).unwrap());
        let slot = NewSlot { credential, wraps: Wraps::All, label: String::new() };
        let repository =
            Repository::init_sealed(over(store), None, &Fixed, Arc::new(SystemEntropy), &slot).await.unwrap();
        Synthetic::over(objects, repository, seed)
    }

    fn over(objects: Arc<InMemory>, repository: Repository, seed: u64) -> Synthetic {
        Synthetic {
            objects,
            repository,
            spaces: BTreeMap::new(),
            files: BTreeMap::new(),
            mistake: None,
            ahead: 0,
            rng: StdRng::seed_from_u64(seed),
            generation: 0,
            last: None,
            known_blocks: HashMap::new(),
            known_files: HashMap::new(),
        }
    }

    /// A server with a system tablespace, tables of several page sizes, and plain files.
    pub async fn populated(seed: u64) -> Synthetic {
        let mut server = Synthetic::new(seed).await;
        server.populate();
        server
    }

    /// Gives the server its first tables and files.
    pub fn populate(&mut self) {
        let server = self;
        server.add_space(0, "ibdata1", 16384, 70);
        server.add_space(3, "shop/orders.ibd", 4096, 300);
        server.add_space(4, "shop/items.ibd", 1024, 64 * 9 + 5);
        server.add_space(70, "other/small.ibd", 16384, 7);
        server.add_file("ib_logfile0", 3 << 20);
        server.add_file("shop/orders.frm", 900);
        server.add_file("shop/db.opt", 0);
        server.add_file("backup-my.cnf", 100);
        let checkpoints =
            "backup_type = incremental\nfrom_lsn = 7\nto_lsn = 8\nlast_lsn = 9\nrecover_binlog_info = 1\n";
        server.files.insert("xtrabackup_checkpoints".to_owned(), checkpoints.into());
    }

    /// Adds a tablespace of `pages` pages, some of them zero.
    pub fn add_space(&mut self, space: u32, name: &str, page_bytes: u32, pages: u32) {
        let page_size = PageSize::new(page_bytes).unwrap();
        let key = SpaceKey { space: SpaceId(space), part: 0 };
        let made = Space {
            name: name.to_owned(),
            page_size,
            // ROW_FORMAT=COMPRESSED below 4 KiB, full_crc32 from there on.
            flags: match page_bytes.trailing_zeros() - 9 {
                shift @ 0..3 => 0x21 | shift << 1,
                shift => 0x10 | shift,
            },
            mode: Some(0o640),
            pages: Vec::new(),
            dirty: BTreeSet::new(),
            extents: Vec::new(),
        };
        self.spaces.insert(key, made);
        self.grow(key, pages);
    }

    fn grow(&mut self, key: SpaceKey, pages: u32) {
        let lsn = self.lsn();
        let space = self.spaces.get_mut(&key).unwrap();
        let length = space.pages.len() as u32;
        space.pages.resize((length + pages) as usize, Vec::new());
        for number in std::iter::once(0).chain(length..length + pages) {
            space.write(&mut self.rng, key, number, lsn);
        }
    }

    /// LSN of what is written now: within the window of the next backup.
    fn lsn(&self) -> u64 {
        1000 * u64::from(self.generation + 1) + 50 + self.ahead
    }

    /// Writes a page anew.
    pub fn write(&mut self, key: SpaceKey, number: u32) {
        let lsn = self.lsn();
        let space = self.spaces.get_mut(&key).unwrap();
        space.write(&mut self.rng, key, number, lsn);
    }

    /// Writes a page with a wrong checksum.
    pub fn spoil(&mut self, key: SpaceKey, number: u32) {
        let lsn = self.lsn();
        let space = self.spaces.get_mut(&key).unwrap();
        space.pages[number as usize] = vec![7; space.page_size.bytes()];
        space.seal(key, number, lsn);
        let last = space.page_size.bytes() - 30;
        space.pages[number as usize][last] ^= 1;
    }

    /// Adds a plain file of `bytes` bytes.
    pub fn add_file(&mut self, path: &str, bytes: usize) {
        let mut content = vec![0; bytes];
        self.rng.fill_bytes(&mut content);
        // A MiB of zeros, where there is one.
        content.iter_mut().skip(1 << 20).take(1 << 20).for_each(|byte| *byte = 0);
        self.files.insert(path.to_owned(), content);
    }

    /// Changes `pages` pages here and there, and lets tablespaces grow.
    pub fn live(&mut self, pages: u32) {
        let keys: Vec<_> = self.spaces.keys().copied().collect();
        let lsn = self.lsn();
        for _ in 0..pages {
            let key = keys[self.rng.random_range(0..keys.len())];
            let space = self.spaces.get_mut(&key).unwrap();
            let page = self.rng.random_range(0..space.pages.len());
            space.write(&mut self.rng, key, page as u32, lsn);
        }
        let key = keys[self.rng.random_range(0..keys.len())];
        let more = self.rng.random_range(0..90);
        self.grow(key, more);
    }

    /// Files as they are now, by path.
    pub fn state(&self) -> BTreeMap<String, Vec<u8>> {
        let spaces = self.spaces.values().map(|space| (space.name.clone(), space.pages.concat()));
        spaces.chain(self.files.clone()).collect()
    }

    /// Stores a backup of the present state.
    pub async fn backup(&mut self) -> Manifest {
        self.generation += 1;
        let mut packs = Packs::new(PackKind::Data, self.repository.keyring());
        let mut drafts = Vec::new();
        for (key, space) in &mut self.spaces {
            space.store(*key, &self.repository, &mut packs, &mut drafts);
        }
        let file_drafts = self.store_files(&mut packs);
        let data = packs.finish(&self.repository).await;
        for (key, extent, mask, mut piece) in drafts {
            if let Content::Chunk(chunk) = &mut piece.content {
                chunk.at.pack = data[chunk.at.pack.bytes as usize];
            }
            self.spaces.get_mut(&key).unwrap().replace(extent, mask, piece);
        }
        let files: Vec<_> = file_drafts.into_iter().map(|(path, pieces)| (path, self.settle(pieces, &data))).collect();
        let manifest = self.store_map(files).await;
        // Not by `commit`, which would refuse what is wrong with it on purpose.
        self.repository.put_document(&ObjectKey::Manifest(manifest.id.clone()), &manifest).await.unwrap();
        self.last = Some(manifest.clone());
        manifest
    }

    fn store_files(&mut self, packs: &mut Packs) -> Vec<(String, Vec<FilePiece>)> {
        let mut drafts = Vec::new();
        for (path, content) in &self.files {
            // Pieces of odd lengths, some of which begin in the middle of their chunk.
            let mut pieces = Vec::new();
            for piece in content.chunks(1 << 20) {
                let bytes = piece.len() as u32;
                if piece.iter().all(|byte| *byte == 0) {
                    pieces.push(FilePiece { bytes, source: FileSource::Zero });
                    continue;
                }
                let skip = if bytes > 1000 && bytes < 1 << 20 { 17 } else { 0 };
                let raw = [&vec![9; skip as usize], piece].concat();
                let id = self.repository.namer().chunk_of_file(&raw);
                let known = self.known_files.get(&id).copied();
                pieces.push(known.unwrap_or_else(|| {
                    let at = packs.add(id, &raw, &[]);
                    let source = FileSource::Chunk { id, raw_bytes: raw.len() as u32, skip, at };
                    FilePiece { bytes, source }
                }));
            }
            drafts.push((path.clone(), pieces));
        }
        drafts
    }

    fn settle(&mut self, mut pieces: Vec<FilePiece>, data: &[PackRef]) -> Vec<FilePiece> {
        for piece in &mut pieces {
            if let FileSource::Chunk { at, .. } = &mut piece.source
                && at.pack.id == DRAFT
            {
                at.pack = data[at.pack.bytes as usize];
            }
            if let FileSource::Chunk { id, .. } = piece.source {
                self.known_files.insert(id, *piece);
            }
        }
        pieces
    }

    async fn store_map(&mut self, files: Vec<(String, Vec<FilePiece>)>) -> Manifest {
        let mut maps = Maps { builder: self.repository.keyring().new_pack(PackKind::Map).unwrap(), new: Vec::new() };
        let mut totals = MapTotals::default();
        let mut directories: BTreeMap<u32, Vec<SpaceRecord>> = BTreeMap::new();
        for (key, space) in &self.spaces {
            let lent = match self.mistake {
                Some(Mistake::Borrow(borrower, lender)) if borrower == *key => self.spaces.get(&lender),
                _ => None,
            };
            let (record, stored) =
                space.record(*key, self.mistake, lent, &mut maps, &self.repository, &self.known_blocks);
            totals.spaces += 1;
            totals.logical_bytes += record.bytes();
            totals.stored_bytes += stored;
            directories.entry(space_bucket(key.space)).or_default().push(record);
        }
        let mut root = MapRoot::default();
        for records in directories.into_values() {
            let first = records[0].key;
            let bytes = SpaceDirectory { records }.encode();
            root.spaces.push((first, maps.add(&bytes, &self.repository, &self.known_blocks)));
        }
        let mut records: Vec<FileRecord> = Vec::new();
        let mut groups: Vec<Vec<FileRecord>> = Vec::new();
        for (path, pieces) in files {
            totals.files += 1;
            totals.stored_bytes += pieces.iter().map(FilePiece::stored_bytes).sum::<u64>();
            let bytes = self.files[&path].len() as u64;
            totals.logical_bytes += bytes;
            let map = file_map(pieces, &mut maps, &self.repository, &self.known_blocks);
            if file_begins_block(&path) && !records.is_empty() {
                groups.push(std::mem::take(&mut records));
            }
            records.push(FileRecord { path, bytes, mode: None, map });
        }
        groups.push(records);
        for records in groups.into_iter().filter(|records| !records.is_empty()) {
            let first = records[0].path.clone();
            let bytes = FileDirectory { records }.encode();
            root.files.push((first, maps.add(&bytes, &self.repository, &self.known_blocks)));
        }
        root.totals = totals;
        let root = maps.add(&root.encode(), &self.repository, &self.known_blocks);
        let home = maps.finish(&self.repository, &mut self.known_blocks).await;
        let at = Location { pack: if root.at.pack == PackRef::HOME { home } else { root.at.pack }, ..root.at };
        self.manifest(totals, BlockRef { at, ..root })
    }

    fn manifest(&self, totals: MapTotals, root: BlockRef) -> Manifest {
        let generation = self.generation;
        let started = moment(i64::from(generation) * 60);
        let parent = self.last.as_ref();
        let start = 1000 * u64::from(generation);
        Manifest {
            repository_id: self.repository.config().repository_id,
            id: BackupId::new(started, &Counting(AtomicU8::new(generation as u8))),
            edition: 0,
            kind: if parent.is_some() { BackupKind::Incremental } else { BackupKind::Full },
            reason: "made up".to_owned(),
            tags: Vec::new(),
            parent: parent.map(|parent| parent.id.clone()),
            depth: generation - 1,
            started,
            finished: moment(i64::from(generation) * 60 + 7),
            haulout_version: "0.0.0".to_owned(),
            tool_version: "10.11.19-MariaDB".to_owned(),
            server: Server {
                version: "10.11.19-MariaDB".to_owned(),
                hostname: "nowhere".to_owned(),
                server_id: 1,
                datadir: "/var/lib/mysql".to_owned(),
                page_size: 16384,
                data_file_path: "ibdata1:12M:autoextend".to_owned(),
                undo_tablespaces: 0,
                system_file: None,
                datadir_mode: Some(0o755),
                directory_mode: Some(0o750),
                directory_modes: BTreeMap::from([("shop".to_owned(), 0o710)]),
                galera: None,
            },
            lsn: LsnRange {
                from: Lsn(parent.map_or(0, |parent| parent.lsn.start.0 - 1)),
                start: Lsn(start),
                to: Lsn(start + 100),
                last: Lsn(start + 500),
            },
            redo: RedoFormat { creator: "Backup 10.11.19-MariaDB".to_owned(), encrypted: false, bytes: 500 },
            position: GtidPosition::default(),
            timeline: Timeline::default(),
            filters: Vec::new(),
            sizes: Sizes { logical_bytes: totals.logical_bytes, stored_bytes: totals.stored_bytes, ..Sizes::default() },
            spaces: totals.spaces,
            files: totals.files,
            warnings: Vec::new(),
            locked_until: None,
            map: StoredBlock::from(root),
        }
    }

    /// Names of all packs.
    pub async fn packs(&self) -> Vec<PackId> {
        let mut packs: Vec<_> = self.repository.packs().await.unwrap().into_keys().collect();
        packs.sort();
        packs
    }

    /// Whether a pack holds chunks of data.
    pub async fn is_data(&self, id: PackId) -> bool {
        let bytes = self.repository.read_pack(id).await.unwrap();
        pack::parse_pack(id, &bytes, self.repository.keyring()).unwrap().kind == PackKind::Data
    }

    /// Every object, by its key.
    pub async fn stored(&self) -> BTreeMap<String, Vec<u8>> {
        let listed: Vec<_> = self.objects.list(None).try_collect().await.unwrap();
        let mut stored = BTreeMap::new();
        for object in listed {
            let bytes = self.objects.get(&object.location).await.unwrap().bytes().await.unwrap();
            stored.insert(object.location.to_string(), bytes.to_vec());
        }
        stored
    }

    /// Replaces the bytes of an object, or removes it.
    pub async fn tamper(&self, key: &str, change: impl FnOnce(Vec<u8>) -> Option<Vec<u8>>) {
        let path = object_store::path::Path::from(key);
        let bytes = self.objects.get(&path).await.unwrap().bytes().await.unwrap();
        match change(bytes.to_vec()) {
            Some(bytes) => drop(self.objects.put(&path, bytes.into()).await.unwrap()),
            None => self.objects.delete(&path).await.unwrap(),
        }
    }

    /// Key of a pack.
    pub fn pack_key(id: PackId) -> String {
        ObjectKey::Pack(id).text()
    }
}

/// Stands for the pack of that number among those that are being filled.
const DRAFT: PackId = PackId([0xdd; 32]);

type PieceDraft = (SpaceKey, usize, PageMask, Piece);

impl Space {
    /// Writes page `number`: some are zero, half of each other compresses.
    fn write(&mut self, rng: &mut StdRng, key: SpaceKey, number: u32, lsn: u64) {
        let mut page = vec![0; self.page_size.bytes()];
        let is_written = number == 0 || rng.random_bool(0.7);
        if is_written {
            let half = page.len() / 2;
            rng.fill_bytes(&mut page[..half]);
        }
        self.pages[number as usize] = page;
        self.dirty.insert(number);
        if is_written {
            self.seal(key, number, lsn);
        }
    }

    /// Writes header and checksum of page `number`.
    fn seal(&mut self, key: SpaceKey, number: u32, lsn: u64) {
        let (pages, flags, bytes) = (self.pages.len() as u32, self.flags, self.page_size.bytes());
        let page = &mut self.pages[number as usize];
        self.dirty.insert(number);
        page[..4].fill(0);
        page[4..8].copy_from_slice(&number.to_be_bytes());
        page[16..24].copy_from_slice(&lsn.to_be_bytes());
        page[24..26].copy_from_slice(&PAGE_TYPES[usize::from(number == 0)].to_be_bytes());
        page[26..34].fill(0);
        page[34..38].copy_from_slice(&key.space.0.to_be_bytes());
        if number == 0 {
            for (at, figure) in [(38, key.space.0), (46, pages), (50, pages), (54, flags)] {
                page[at..at + 4].copy_from_slice(&figure.to_be_bytes());
            }
        }
        if flags & 0x10 != 0 {
            page[bytes - 8..bytes - 4].copy_from_slice(&(lsn as u32).to_be_bytes());
            let crc = crc32c::crc32c(&page[..bytes - 4]);
            page[bytes - 4..].copy_from_slice(&crc.to_be_bytes());
        } else {
            let crc = crc32c::crc32c(&page[4..16]) ^ crc32c::crc32c(&page[24..26]) ^ crc32c::crc32c(&page[34..]);
            page[..4].copy_from_slice(&crc.to_be_bytes());
        }
    }

    /// Adds the chunks of all changed pages to `packs`.
    fn store(&mut self, key: SpaceKey, repository: &Repository, packs: &mut Packs, drafts: &mut Vec<PieceDraft>) {
        let mut extents: BTreeMap<u32, PageMask> = BTreeMap::new();
        for page in std::mem::take(&mut self.dirty) {
            let mask = extents.entry(page / EXTENT_PAGES).or_default();
            *mask = mask.union(PageMask::only(page % EXTENT_PAGES));
        }
        for (extent, mask) in extents {
            let page = |index: u32| &self.pages[(extent * EXTENT_PAGES + index) as usize];
            let is_zero = |index: &u32| page(*index).iter().all(|byte| *byte == 0);
            let zeros =
                mask.indices().filter(is_zero).fold(PageMask::EMPTY, |all, index| all.union(PageMask::only(index)));
            let rest = mask.without(zeros);
            if !zeros.is_empty() {
                drafts.push((key, extent as usize, zeros, Piece { mask: zeros, content: Content::Zero }));
            }
            if !rest.is_empty() {
                let raw: Vec<u8> = rest.indices().flat_map(|index| page(index).clone()).collect();
                let hashes = repository.namer().pages(&raw, self.page_size.bytes());
                let sums: Vec<_> = hashes.iter().map(|hash| hash.sum()).collect();
                let id = repository.namer().chunk_of_pages(&hashes);
                let at = packs.add(id, &raw, &sums);
                let content = Content::Chunk(PageChunk { id, pages: rest, at });
                drafts.push((key, extent as usize, rest, Piece { mask: rest, content }));
            }
        }
    }

    /// Puts a piece over older ones.
    fn replace(&mut self, extent: usize, mask: PageMask, piece: Piece) {
        if self.extents.len() <= extent {
            self.extents.resize(extent + 1, Vec::new());
        }
        let pieces = &mut self.extents[extent];
        pieces.iter_mut().for_each(|old| old.mask = old.mask.without(mask));
        pieces.retain(|old| !old.mask.is_empty());
        pieces.push(piece);
        pieces.sort_by_key(|piece| piece.mask.0.trailing_zeros());
    }

    fn record(
        &self,
        key: SpaceKey,
        mistake: Option<Mistake>,
        lent: Option<&Space>,
        maps: &mut Maps,
        repository: &Repository,
        known: &HashMap<ChunkId, BlockRef>,
    ) -> (SpaceRecord, u64) {
        let extents = self.extents.iter().enumerate();
        let mut extents: Vec<_> =
            extents.map(|(no, pieces)| Extent { no: ExtentNo(no as u32), pieces: pieces.clone() }).collect();
        let (mut pages, mut flags) = (self.pages.len() as u32, self.flags);
        match mistake {
            Some(Mistake::Forget(wrong)) if wrong == key => drop(extents.remove(0)),
            Some(Mistake::Exchange(wrong)) if wrong == key => {
                let (one, other) = (extents[1].pieces.clone(), extents[2].pieces.clone());
                (extents[1].pieces, extents[2].pieces) = (other, one);
            }
            Some(Mistake::Shorten(wrong)) if wrong == key => {
                extents.pop();
                pages = extents.len() as u32 * EXTENT_PAGES;
            }
            Some(Mistake::Flags(wrong)) if wrong == key => flags ^= 0x20,
            _ => {}
        }
        if let Some(lent) = lent {
            extents[1].pieces = lent.extents[1].clone();
        }
        let stored = extents.iter().flat_map(|extent| &extent.pieces).map(Piece::stored_bytes).sum::<u64>();
        let chunks =
            extents.iter_mut().flat_map(|extent| &mut extent.pieces).filter_map(|piece| match &mut piece.content {
                Content::Chunk(chunk) => Some(chunk),
                Content::Zero => None,
            });
        if mistake == Some(Mistake::Misplace(key)) {
            chunks.take(1).for_each(|chunk| chunk.at.offset -= 1);
        }
        let map = if extents.len() <= INLINE_EXTENTS_MAX {
            SpaceMap::Inline(extents)
        } else {
            let blocks = extents.chunk_by(|a, b| a.no.0 / BLOCK_EXTENTS == b.no.0 / BLOCK_EXTENTS).map(|extents| {
                let index = extents[0].no.0 / BLOCK_EXTENTS;
                let stored_bytes = extents.iter().flat_map(|extent| &extent.pieces).map(Piece::stored_bytes).sum();
                let bytes = ExtentBlock { key, index, extents: extents.to_vec() }.encode();
                ExtentBlockRef { index, stored_bytes, block: maps.add(&bytes, repository, known) }
            });
            SpaceMap::Blocks(blocks.collect())
        };
        let (name, page_size, mode) = (self.name.clone(), self.page_size, self.mode);
        let (encrypted, identity, suspect) = (None, None, false);
        (SpaceRecord { key, name, page_size, flags, encrypted, pages, identity, suspect, mode, map }, stored)
    }
}

fn file_map(
    pieces: Vec<FilePiece>,
    maps: &mut Maps,
    repository: &Repository,
    known: &HashMap<ChunkId, BlockRef>,
) -> FileMap {
    if pieces.len() <= INLINE_FILE_PIECES_MAX {
        return FileMap::Inline(pieces);
    }
    let mut offset = 0;
    let mut blocks = Vec::new();
    for pieces in pieces.chunks(BLOCK_FILE_PIECES) {
        let stored_bytes = pieces.iter().map(FilePiece::stored_bytes).sum();
        let bytes = FileBlock { pieces: pieces.to_vec() }.encode();
        blocks.push(FileBlockRef { offset, stored_bytes, block: maps.add(&bytes, repository, known) });
        offset += pieces.iter().map(|piece| u64::from(piece.bytes)).sum::<u64>();
    }
    FileMap::Blocks(blocks)
}

/// Data packs that are being filled.
struct Packs {
    open: PackBuilder,
    open_bytes: usize,
    kind: PackKind,
    keyring: Keyring,
    full: Vec<PackBuilder>,
}

impl Packs {
    fn new(kind: PackKind, keyring: &Keyring) -> Packs {
        let open = keyring.new_pack(kind).unwrap();
        Packs { open, open_bytes: 0, kind, keyring: keyring.clone(), full: Vec::new() }
    }

    fn add(&mut self, id: ChunkId, raw: &[u8], sums: &[PageSum]) -> Location {
        if self.open_bytes > PACK_BYTES {
            self.full.push(std::mem::replace(&mut self.open, self.keyring.new_pack(self.kind).unwrap()));
            self.open_bytes = 0;
        }
        let mut compressor = zstd::bulk::Compressor::new(1).unwrap();
        let mut stored = Vec::new();
        let encoding = pack::compress(&mut compressor, raw, &mut stored).unwrap();
        self.open_bytes += stored.len();
        let placed = self.open.add(&NewChunk { id, raw_bytes: raw.len() as u32, encoding, sums, stored: &stored });
        let pack = PackRef { id: DRAFT, bytes: self.full.len() as u32 };
        Location { pack, offset: placed.offset, stored_bytes: placed.stored_bytes, encoding }
    }

    async fn finish(mut self, repository: &Repository) -> Vec<PackRef> {
        self.full.push(self.open);
        let mut done = Vec::new();
        for builder in self.full {
            let pack = builder.finish().unwrap();
            done.push(PackRef { id: pack.id, bytes: pack.bytes.len() as u32 });
            if !pack.entries.is_empty() {
                repository.put_pack(pack.id, pack.bytes.into()).await.unwrap();
            }
        }
        done
    }
}

/// The map pack that is being filled.
struct Maps {
    builder: PackBuilder,
    new: Vec<BlockRef>,
}

impl Maps {
    fn add(&mut self, raw: &[u8], repository: &Repository, known: &HashMap<ChunkId, BlockRef>) -> BlockRef {
        let id = repository.namer().map_block(raw);
        let here = self.new.iter().find(|block| block.id == id);
        if let Some(block) = known.get(&id).or(here) {
            return *block;
        }
        let mut compressor = zstd::bulk::Compressor::new(1).unwrap();
        let mut stored = Vec::new();
        let encoding = pack::compress(&mut compressor, raw, &mut stored).unwrap();
        let raw_bytes = raw.len() as u32;
        let Placed { offset, stored_bytes } =
            self.builder.add(&NewChunk { id, raw_bytes, encoding, sums: &[], stored: &stored });
        let at = Location { pack: PackRef::HOME, offset, stored_bytes, encoding };
        let block = BlockRef { id, raw_bytes, at };
        self.new.push(block);
        block
    }

    async fn finish(self, repository: &Repository, known: &mut HashMap<ChunkId, BlockRef>) -> PackRef {
        let pack = self.builder.finish().unwrap();
        let home = PackRef { id: pack.id, bytes: pack.bytes.len() as u32 };
        repository.put_pack(pack.id, pack.bytes.into()).await.unwrap();
        for block in self.new {
            known.insert(block.id, BlockRef { at: Location { pack: home, ..block.at }, ..block });
        }
        home
    }
}
