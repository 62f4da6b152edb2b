//! Goes through the page maps of many backups and visits every map block once, however many backups share it.
//!
//! What is remembered of a block is a few figures and the marks that were left in it and below, so that a backup that
//! shares it is judged without reading it again: some 250 bytes for each block, which is 40 KiB of map for 512 MiB of data.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures::StreamExt;

use super::VerifyError;
use super::error::damage;
use super::pages::{Header, Place, SpaceFile};
use crate::format::map::{
    BLOCK_EXTENTS, BlockRef, Content, Extent, ExtentBlockRef, FileBlockRef, FileDirectory, FileMap, FilePiece,
    FileRecord, FileSource, Location, MapTotals, PackRef, SpaceDirectory, SpaceKey, SpaceMap, SpaceRecord,
};
use crate::format::pack::CHUNK_BYTES_MAX;
use crate::format::{Encoding, FormatError, LsnRange, Manifest};
use crate::model::{ChunkId, EXTENT_PAGES, PackId, PageMask};
use crate::repository::{Repository, RepositoryError};

/// Map blocks read at the same time: they hide a store's latency.
const BLOCKS_AHEAD: usize = 16;
/// Faults that are told apart; a repository with more is beyond a list.
const FAULTS_MAX: usize = 10_000;

/// Files with marks that are remembered, some 80 bytes each: those of all directories of all backups, and again of all backups. Beyond
/// that, what is left of a backup is not told unless it is checked alone.
pub(super) const FILES_KEPT_MAX: usize = 400_000;

/// What a chunk holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ChunkKind {
    /// So many pages.
    Pages(u32),
    /// Bytes of a plain file.
    File,
    /// A map block.
    Map,
}

/// A chunk as a map speaks of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ChunkRef {
    /// The pack that holds it.
    pub pack: PackRef,
    /// Its name.
    pub id: ChunkId,
    /// First byte in the pack.
    pub offset: u32,
    /// Number of bytes in the pack.
    pub stored_bytes: u32,
    /// Length before compression.
    pub raw_bytes: u32,
    /// How it is stored.
    pub encoding: Encoding,
    /// What it holds.
    pub kind: ChunkKind,
}

impl ChunkRef {
    fn new(id: ChunkId, at: &Location, raw_bytes: u32, kind: ChunkKind) -> ChunkRef {
        let Location { pack, offset, stored_bytes, encoding } = *at;
        ChunkRef { pack, id, offset, stored_bytes, raw_bytes, encoding, kind }
    }
}

/// Left in a block, and so on every backup that needs the block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Mark {
    /// A fault of the map, by its place in [`Tour::faults`].
    Fault(usize),
    /// Something that the visitor knows by this number.
    Visitor(usize),
}

/// Sees every chunk that a map needs, map blocks included, once for each block that speaks of it.
///
/// Where several backups share the block, it is seen for the first of them.
pub(super) trait Visitor {
    /// Sees a chunk that `file` needs, at `place` when it holds pages; may leave marks.
    fn chunk(&mut self, file: &str, chunk: &ChunkRef, place: Option<&Place>, marks: &mut Vec<Mark>);

    /// Sees the chunk that holds page 0 of a tablespace, once for each record that speaks of it, after the chunk itself.
    fn header(&mut self, _file: &str, _chunk: &ChunkRef, _header: &Header, _marks: &mut Vec<Mark>) {}
}

/// Something wrong with a page map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    /// The pack that holds the map block.
    pub pack: PackId,
    /// What is wrong with it.
    pub problem: String,
}

/// What is remembered of a block.
#[derive(Debug, Clone, Default)]
struct Facts {
    totals: MapTotals,
    /// Pages or bytes of its file that a block of pieces covers, without a gap from where it begins.
    covered: u64,
    /// The chunk that holds page 0, where it is in this block.
    page0: Option<Box<(ChunkRef, Place)>>,
    marks: Vec<Mark>,
    /// Marks of map blocks that could be read all the same: what they speak of is not hit.
    soft: Vec<Mark>,
    /// Files of a directory with the marks that were left in them and below, where there are any.
    files: Vec<(Arc<str>, Vec<Mark>)>,
    /// True when files are missing here, because a block that tells which there are cannot be read.
    broken: bool,
    /// True when files are missing here, because there are too many.
    crowded: bool,
}

/// What was found in the map of a backup.
#[derive(Debug, Default)]
pub(super) struct Visit {
    /// All marks that were left in it.
    pub marks: Vec<Mark>,
    /// Files that need what was marked, with those marks.
    pub files: Vec<(Arc<str>, Vec<Mark>)>,
    /// True when it cannot be told which files the backup has, or how long they are.
    pub broken: bool,
    /// True when more files need what was marked than are remembered.
    pub crowded: bool,
}

impl Facts {
    fn has_fault(&self) -> bool {
        self.marks.iter().any(|mark| matches!(mark, Mark::Fault(_)))
    }

    fn add(&mut self, other: &Facts) {
        self.totals.spaces += other.totals.spaces;
        self.totals.files += other.totals.files;
        self.totals.logical_bytes += other.totals.logical_bytes;
        self.totals.stored_bytes += other.totals.stored_bytes;
        self.marks.extend(&other.marks);
        self.soft.extend(&other.soft);
        self.broken |= other.broken;
        self.crowded |= other.crowded;
    }

    fn visit(mut self) -> Visit {
        self.marks.append(&mut self.soft);
        Visit { marks: self.marks, files: self.files, broken: self.broken, crowded: self.crowded }
    }

    fn settle(&mut self) {
        for marks in [&mut self.marks, &mut self.soft] {
            marks.sort_unstable();
            marks.dedup();
        }
    }
}

/// A stored block, by its name and its place: two of one name can lie in different packs, and speak of different ones, since
/// a block calls the pack that holds it "this one".
type StoredKey = (ChunkId, PackId, u32);

fn stored_key(block: &BlockRef) -> StoredKey {
    (block.id, block.at.pack.id, block.at.offset)
}

/// A block of pieces belongs to one place of one InnoDB file, or is one of a plain file.
type BlockKey = (StoredKey, Option<(SpaceKey, u32)>);

/// A tour through page maps.
pub(super) struct Tour<'a, V> {
    repository: &'a Repository,
    /// Sees the chunks.
    pub visitor: V,
    /// LSNs of the backup in hand.
    lsn: LsnRange,
    directories: HashMap<StoredKey, Facts>,
    blocks: HashMap<BlockKey, Facts>,
    /// What is wrong with the maps.
    pub faults: Vec<Fault>,
    files_kept: usize,
}

impl<'a, V: Visitor> Tour<'a, V> {
    /// A tour that has seen nothing yet.
    pub fn new(repository: &'a Repository, visitor: V) -> Tour<'a, V> {
        let (directories, blocks) = (HashMap::new(), HashMap::new());
        Tour { repository, visitor, lsn: LsnRange::default(), directories, blocks, faults: Vec::new(), files_kept: 0 }
    }

    /// Visits what no backup before had; tells all that was found for the backup.
    ///
    /// Backups come by ascending last LSN: that of the first backup to need a page is then the least.
    ///
    /// # Errors
    /// When the store does not answer. What is damaged becomes a fault.
    pub async fn backup(&mut self, manifest: &Manifest) -> Result<Visit, VerifyError> {
        let mut all = Facts::default();
        self.lsn = manifest.lsn;
        if let Ok(block) = BlockRef::try_from(&manifest.map) {
            self.see_block("the page map", &block, &mut all.soft);
        }
        let root = match self.repository.map_root(manifest).await {
            Ok(root) => root,
            Err(error) => {
                all.marks.push(self.fault(manifest.map.pack, damage(error)?));
                return Ok(Visit { broken: true, ..all.visit() });
            }
        };
        for (_, block) in &root.spaces {
            self.directory(block, &mut all, SpaceDirectory::decode, |directory| {
                directory.records.iter().map(|record| File::of_space(record, &directory.records)).collect()
            })
            .await?;
        }
        for (_, block) in &root.files {
            self.directory(block, &mut all, FileDirectory::decode, |directory| {
                directory.records.iter().map(File::of_file).collect()
            })
            .await?;
        }
        all.settle();
        if !all.has_fault() && all.totals != root.totals {
            let problem = format!("the page map's files make {:?}, its root says {:?}", all.totals, root.totals);
            all.marks.push(self.fault(manifest.map.pack, problem));
            all.broken = true;
        }
        Ok(all.visit())
    }

    async fn directory<T>(
        &mut self,
        at: &BlockRef,
        all: &mut Facts,
        decode: impl FnOnce(&[u8], PackRef) -> Result<T, FormatError>,
        files: impl FnOnce(&T) -> Vec<File<'_>>,
    ) -> Result<(), VerifyError> {
        if let Some(known) = self.directories.get(&stored_key(at)) {
            all.add(known);
            all.files.extend(known.files.iter().cloned());
            return Ok(());
        }
        let pack = at.at.pack;
        let mut facts = Facts::default();
        self.see_block("the page map", at, &mut facts.soft);
        let decoded =
            self.repository.read_block(at).await.and_then(|bytes| {
                decode(&bytes, pack).map_err(|source| RepositoryError::Pack { pack: pack.id, source })
            });
        match decoded {
            Ok(directory) => {
                let files = files(&directory);
                self.read_blocks(files.iter().flat_map(|file| &file.blocks)).await?;
                for file in &files {
                    let found = self.file(pack.id, file);
                    facts.add(&found);
                    if !found.marks.is_empty() {
                        if self.files_kept < FILES_KEPT_MAX {
                            self.files_kept += 1;
                            facts.files.push((file.name.into(), found.marks));
                        } else {
                            facts.crowded = true;
                        }
                    }
                }
            }
            Err(error) => {
                facts.marks.push(self.fault(pack.id, damage(error)?));
                facts.broken = true;
            }
        }
        facts.settle();
        all.add(&facts);
        all.files.extend(facts.files.iter().cloned());
        self.directories.insert(stored_key(at), facts);
        Ok(())
    }

    /// Reads the blocks of pieces that no backup before had, and remembers what they say.
    async fn read_blocks<'b>(&mut self, wanted: impl Iterator<Item = &'b Block>) -> Result<(), VerifyError> {
        let mut asked = HashSet::new();
        let new = wanted.filter(|block| !self.blocks.contains_key(&block.key()) && asked.insert(block.key()));
        let new: Vec<Block> = new.cloned().collect();
        let repository = self.repository;
        let reads = new.into_iter().map(|block| async move {
            let pieces = block.read(repository).await;
            (block, pieces)
        });
        let mut reads = futures::stream::iter(reads).buffered(BLOCKS_AHEAD);
        while let Some((block, pieces)) = reads.next().await {
            let mut facts = Facts::default();
            self.see_block(&block.file, &block.at, &mut facts.soft);
            let pack = block.at.at.pack.id;
            match pieces {
                Ok(pieces) => self.pieces(pack, &block.stretch(), &pieces, &mut facts),
                Err(error) => facts.marks.push(self.fault(pack, damage(error)?)),
            }
            if !facts.has_fault() && facts.totals.stored_bytes != block.stored_bytes {
                let problem = format!("a page map block of {} needs other bytes than its record says", block.file);
                facts.marks.push(self.fault(pack, problem));
            }
            facts.settle();
            self.blocks.insert(block.key(), facts);
        }
        Ok(())
    }

    /// Joins what the blocks of a file say, and proves that it is covered from its first page or byte to its last.
    fn file(&mut self, directory: PackId, file: &File<'_>) -> Facts {
        let mut facts = Facts::default();
        let mut gap = None;
        if let Some(pieces) = &file.inline {
            let stretch = Stretch { file: file.name, begin: 0, space: file.space.map(|(space, _)| space) };
            self.pieces(directory, &stretch, pieces, &mut facts);
        }
        for block in &file.blocks {
            let Some(known) = self.blocks.get(&block.key()) else { continue };
            facts.page0 = facts.page0.take().or_else(|| known.page0.clone());
            if facts.covered != block.begin {
                gap = gap.or(Some(facts.covered));
            }
            facts.add(known);
            facts.covered += known.covered;
        }
        let page_bytes = file.space.map(|(space, _)| space.page_bytes());
        facts.totals.spaces = u64::from(page_bytes.is_some());
        facts.totals.files = u64::from(page_bytes.is_none());
        facts.totals.logical_bytes = file.length * page_bytes.unwrap_or(1);
        let unit = if page_bytes.is_some() { "page" } else { "byte" };
        let problem = match gap {
            Some(at) => Some(format!("page map of {} has no or two sources for {unit} {at}", file.name)),
            None if facts.covered != file.length => {
                Some(format!("page map of {} covers {} of {} {unit}s", file.name, facts.covered, file.length))
            }
            None => file.space.and_then(|(space, _)| {
                let no_header = space.has_header() && file.length > 0 && facts.page0.is_none();
                let problem = if no_header { Some("has no page 0".to_owned()) } else { space.problem() };
                problem.map(|problem| format!("page map of {} {problem}", file.name))
            }),
        };
        if let (Some((_, pages)), Some(page0)) = (file.space, facts.page0.take()) {
            let (chunk, place) = *page0;
            let header = Header::new(file.name, place, pages, self.lsn.start);
            self.visitor.header(file.name, &chunk, &header, &mut facts.marks);
        }
        // What is wrong with a block has said enough of the file.
        if let Some(problem) = problem.filter(|_| !facts.has_fault()) {
            facts.marks.push(self.fault(directory, problem));
        }
        facts.settle();
        facts
    }

    fn pieces(&mut self, pack: PackId, stretch: &Stretch<'_>, pieces: &Pieces, facts: &mut Facts) {
        match pieces {
            Pieces::Extents(extents) => self.extents(pack, stretch, extents, facts),
            Pieces::File(pieces) => {
                for piece in pieces {
                    facts.covered += u64::from(piece.bytes);
                    facts.totals.stored_bytes += piece.stored_bytes();
                    if let FileSource::Chunk { id, raw_bytes, at, .. } = &piece.source {
                        let chunk = ChunkRef::new(*id, at, *raw_bytes, ChunkKind::File);
                        self.chunk(pack, stretch.file, &chunk, None, facts);
                    }
                }
            }
        }
    }

    /// Sees the chunks of extents, and counts the pages that they cover without a gap.
    fn extents(&mut self, pack: PackId, stretch: &Stretch<'_>, extents: &[Extent], facts: &mut Facts) {
        for extent in extents {
            let first = u64::from(extent.no.0) * u64::from(EXTENT_PAGES);
            let covered = extent.covered();
            // Each extent begins where the one before it ends; so only the last of a file can have fewer than all pages.
            if first != stretch.begin + facts.covered || covered != PageMask::first(covered.len()) {
                let problem =
                    format!("page map of {} has a gap at page {}", stretch.file, stretch.begin + facts.covered);
                facts.marks.push(self.fault(pack, problem));
                return;
            }
            facts.covered += u64::from(covered.len());
            for piece in &extent.pieces {
                facts.totals.stored_bytes += piece.stored_bytes();
                if let (Content::Chunk(chunk), Some(file)) = (&piece.content, stretch.space) {
                    let (pages, used, last) = (chunk.pages, piece.mask, self.lsn.last);
                    let raw_bytes = pages.len().saturating_mul(file.page_bytes() as u32);
                    let chunk = ChunkRef::new(chunk.id, &chunk.at, raw_bytes, ChunkKind::Pages(pages.len()));
                    let place = Place { file, extent: extent.no, pages, used, last };
                    if first == 0 && used.contains(0) && file.has_header() {
                        facts.page0 = Some(Box::new((chunk, place)));
                    }
                    self.chunk(pack, stretch.file, &chunk, Some(&place), facts);
                }
            }
        }
    }

    fn chunk(&mut self, pack: PackId, file: &str, chunk: &ChunkRef, place: Option<&Place>, facts: &mut Facts) {
        let ChunkRef { id, stored_bytes, raw_bytes, .. } = *chunk;
        // A chunk that compression does not make smaller is stored as it is, but for its seal.
        let stored_bytes_max = self.repository.keyring().stored_bytes_max(raw_bytes as usize);
        if raw_bytes == 0 || raw_bytes as usize > CHUNK_BYTES_MAX || stored_bytes as usize > stored_bytes_max {
            let problem = format!("page map of {file} has chunk {id} of {raw_bytes} bytes take {stored_bytes}");
            facts.marks.push(self.fault(pack, problem));
        }
        self.visitor.chunk(file, chunk, place, &mut facts.marks);
    }

    fn see_block(&mut self, file: &str, block: &BlockRef, marks: &mut Vec<Mark>) {
        let chunk = ChunkRef::new(block.id, &block.at, block.raw_bytes, ChunkKind::Map);
        self.visitor.chunk(file, &chunk, None, marks);
    }

    fn fault(&mut self, pack: PackId, problem: String) -> Mark {
        let fault = Fault { pack, problem };
        if let Some(known) = self.faults.iter().rposition(|known| *known == fault) {
            return Mark::Fault(known);
        }
        if self.faults.len() < FAULTS_MAX {
            self.faults.push(fault);
        }
        Mark::Fault(self.faults.len() - 1)
    }
}

/// A file as a record describes it; a page or a byte is its unit.
struct File<'a> {
    name: &'a str,
    length: u64,
    /// The InnoDB file, and the pages that its tablespace has in all of its files.
    space: Option<(SpaceFile, u32)>,
    inline: Option<Pieces>,
    blocks: Vec<Block>,
}

/// A block of pieces that a record speaks of.
#[derive(Clone)]
struct Block {
    file: String,
    place: Option<(SpaceKey, u32)>,
    /// First page or byte that it covers.
    begin: u64,
    space: Option<SpaceFile>,
    stored_bytes: u64,
    at: BlockRef,
}

/// Where pieces stand in their file.
struct Stretch<'a> {
    file: &'a str,
    begin: u64,
    space: Option<SpaceFile>,
}

enum Pieces {
    Extents(Vec<Extent>),
    File(Vec<FilePiece>),
}

impl Block {
    fn key(&self) -> BlockKey {
        (stored_key(&self.at), self.place)
    }

    fn stretch(&self) -> Stretch<'_> {
        Stretch { file: &self.file, begin: self.begin, space: self.space }
    }

    async fn read(&self, repository: &Repository) -> Result<Pieces, RepositoryError> {
        let Block { stored_bytes, at, .. } = *self;
        match self.place {
            Some((key, index)) => repository
                .map_extents(key, &ExtentBlockRef { index, stored_bytes, block: at })
                .await
                .map(Pieces::Extents),
            None => {
                let block = FileBlockRef { offset: self.begin, stored_bytes, block: at };
                repository.map_file_pieces(&block).await.map(Pieces::File)
            }
        }
    }
}

impl<'a> File<'a> {
    /// The file of `record`, one of `records`; those of one tablespace are in one directory.
    fn of_space(record: &'a SpaceRecord, records: &[SpaceRecord]) -> File<'a> {
        let block_pages = u64::from(BLOCK_EXTENTS) * u64::from(EXTENT_PAGES);
        let space = SpaceFile::of(record);
        let of_tablespace = records.iter().filter(|other| other.key.space == record.key.space);
        let pages = of_tablespace.fold(0u32, |pages, other| pages.saturating_add(other.pages));
        let block = |at: &ExtentBlockRef| Block {
            file: record.name.clone(),
            place: Some((record.key, at.index)),
            begin: u64::from(at.index) * block_pages,
            space: Some(space),
            stored_bytes: at.stored_bytes,
            at: at.block,
        };
        let (inline, blocks) = match &record.map {
            SpaceMap::Inline(extents) => (Some(Pieces::Extents(extents.clone())), Vec::new()),
            SpaceMap::Blocks(blocks) => (None, blocks.iter().map(block).collect()),
        };
        File { name: &record.name, length: u64::from(record.pages), space: Some((space, pages)), inline, blocks }
    }

    fn of_file(record: &'a FileRecord) -> File<'a> {
        let block = |at: &FileBlockRef| Block {
            file: record.path.clone(),
            place: None,
            begin: at.offset,
            space: None,
            stored_bytes: at.stored_bytes,
            at: at.block,
        };
        let (inline, blocks) = match &record.map {
            FileMap::Inline(pieces) => (Some(Pieces::File(pieces.clone())), Vec::new()),
            FileMap::Blocks(blocks) => (None, blocks.iter().map(block).collect()),
        };
        File { name: &record.path, length: record.bytes, space: None, inline, blocks }
    }
}
