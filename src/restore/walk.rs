//! Goes through a page map from its first file to its last, a few map blocks at a time, and proves that every byte of
//! every file has exactly one source.

use std::sync::Arc;

use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};

use super::RestoreError;
use super::choice::TableChoice;
use crate::format::map::{
    BlockRef, Extent, ExtentBlockRef, FileBlockRef, FileDirectory, FileMap, FilePiece, FileRecord, MapRoot, MapTotals,
    Piece, SpaceDirectory, SpaceKey, SpaceMap, SpaceRecord,
};
use crate::model::{EXTENT_PAGES, PageMask, PageSize};
use crate::repository::{Repository, RepositoryError};

/// Directories of the map that are read ahead: some 64 records each.
const DIRECTORIES_AHEAD: usize = 4;
/// Map blocks read ahead: they hide a store's latency. The largest extent block, with 64 pieces in every extent, takes
/// 4 MiB decoded; a usual one takes 60 KiB.
const BLOCKS_AHEAD: usize = 8;

/// A file to be restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TargetFile {
    /// Path in the datadir.
    pub path: String,
    /// Length in bytes.
    pub bytes: u64,
    /// Permission bits.
    pub mode: Option<u32>,
    /// Its pages; none for a plain file.
    pub pages: Option<Pages>,
}

/// The pages of an InnoDB file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pages {
    /// Physical size of each.
    pub size: PageSize,
    /// How many there are.
    pub count: u32,
    /// Whether the server punches holes at the ends of pages.
    pub compressed: bool,
}

/// One step through a map; pieces belong to the file that was begun last.
#[derive(Debug)]
pub(super) enum Step {
    /// A file begins.
    File(Arc<TargetFile>),
    /// The next extents of an InnoDB file.
    Extents(Vec<Extent>),
    /// The next pieces of a plain file, and where the first begins.
    Pieces(u64, Vec<FilePiece>),
}

enum Task {
    Ready(Step),
    Extents(SpaceKey, ExtentBlockRef),
    Pieces(FileBlockRef),
}

/// The steps through the map of a backup, checked one by one.
pub(super) struct Walk<'a> {
    steps: BoxStream<'a, Result<Step, RepositoryError>>,
    cover: Cover,
    found: MapTotals,
    /// Sums over all files, where all are wanted.
    expected: Option<MapTotals>,
}

impl<'a> Walk<'a> {
    /// Begins at the map's first file among those that `choice` needs; pieces of others are not read.
    pub fn of(repository: &'a Repository, root: &'a MapRoot, choice: &'a TableChoice) -> Walk<'a> {
        let spaces = stream::iter(root.spaces.iter().map(|(_, block)| *block))
            .map(move |block| read_spaces(repository, block))
            .buffered(DIRECTORIES_AHEAD)
            .map_ok(|records| {
                stream::iter(
                    records.into_iter().filter(|record| choice.needs(&record.name)).flat_map(space_tasks).map(Ok),
                )
            })
            .try_flatten();
        let files = stream::iter(root.files.iter().map(|(_, block)| *block))
            .map(move |block| read_files(repository, block))
            .buffered(DIRECTORIES_AHEAD)
            .map_ok(|records| {
                stream::iter(
                    records.into_iter().filter(|record| choice.needs(&record.path)).flat_map(file_tasks).map(Ok),
                )
            })
            .try_flatten();
        let steps = spaces.chain(files).map_ok(move |task| run(repository, task)).try_buffered(BLOCKS_AHEAD).boxed();
        let expected = choice.is_all().then_some(root.totals);
        Walk { steps, cover: Cover::default(), found: MapTotals::default(), expected }
    }

    /// The next step; nothing when every file was found whole and the sums are those of the root.
    ///
    /// # Errors
    /// When a map block cannot be read or is damaged, or a page or byte of a file has no source, or more than one.
    pub async fn next(&mut self) -> Result<Option<Step>, RestoreError> {
        let step = self.steps.try_next().await?;
        match &step {
            Some(Step::File(file)) => {
                self.cover.begin(file)?;
                self.found.logical_bytes += file.bytes;
                if file.pages.is_some() {
                    self.found.spaces += 1;
                } else {
                    self.found.files += 1;
                }
            }
            Some(Step::Extents(extents)) => {
                extents.iter().try_for_each(|extent| self.cover.extent(extent))?;
                let pieces = extents.iter().flat_map(|extent| &extent.pieces);
                self.found.stored_bytes += pieces.map(Piece::stored_bytes).sum::<u64>();
            }
            Some(Step::Pieces(offset, pieces)) => {
                self.cover.pieces(*offset, pieces)?;
                self.found.stored_bytes += pieces.iter().map(FilePiece::stored_bytes).sum::<u64>();
            }
            None => self.finish()?,
        }
        Ok(step)
    }

    fn finish(&mut self) -> Result<(), RestoreError> {
        self.cover.finish()?;
        let Some(expected) = self.expected.filter(|expected| *expected != self.found) else { return Ok(()) };
        let problem = format!("its files make {:?}, its root says {expected:?}", self.found);
        Err(RestoreError::Map { what: "the backup".to_owned(), problem })
    }
}

pub(super) async fn read_spaces(repository: &Repository, block: BlockRef) -> Result<Vec<SpaceRecord>, RepositoryError> {
    let bytes = repository.read_block(&block).await?;
    let directory = SpaceDirectory::decode(&bytes, block.at.pack);
    let directory = directory.map_err(|source| RepositoryError::Pack { pack: block.at.pack.id, source })?;
    Ok(directory.records)
}

pub(super) async fn read_files(repository: &Repository, block: BlockRef) -> Result<Vec<FileRecord>, RepositoryError> {
    let bytes = repository.read_block(&block).await?;
    let directory = FileDirectory::decode(&bytes, block.at.pack);
    let directory = directory.map_err(|source| RepositoryError::Pack { pack: block.at.pack.id, source })?;
    Ok(directory.records)
}

async fn run(repository: &Repository, task: Task) -> Result<Step, RepositoryError> {
    match task {
        Task::Ready(step) => Ok(step),
        Task::Extents(key, block) => repository.map_extents(key, &block).await.map(Step::Extents),
        Task::Pieces(block) => {
            repository.map_file_pieces(&block).await.map(|pieces| Step::Pieces(block.offset, pieces))
        }
    }
}

fn space_tasks(record: SpaceRecord) -> Vec<Task> {
    let pages = Pages { size: record.page_size, count: record.pages, compressed: page_compressed(record.flags) };
    let file = TargetFile { bytes: record.bytes(), path: record.name, mode: record.mode, pages: Some(pages) };
    let begin = Task::Ready(Step::File(Arc::new(file)));
    match record.map {
        SpaceMap::Inline(extents) => vec![begin, Task::Ready(Step::Extents(extents))],
        SpaceMap::Blocks(blocks) => {
            std::iter::once(begin).chain(blocks.into_iter().map(|block| Task::Extents(record.key, block))).collect()
        }
    }
}

fn file_tasks(record: FileRecord) -> Vec<Task> {
    let file = TargetFile { path: record.path, bytes: record.bytes, mode: record.mode, pages: None };
    let begin = Task::Ready(Step::File(Arc::new(file)));
    match record.map {
        FileMap::Inline(pieces) => vec![begin, Task::Ready(Step::Pieces(0, pieces))],
        FileMap::Blocks(blocks) => std::iter::once(begin).chain(blocks.into_iter().map(Task::Pieces)).collect(),
    }
}

/// Whether the pages of a tablespace are compressed with holes at their ends (MariaDB `fsp0types.h`,
/// `fil_space_t::is_compressed`): the algorithm in bits 5–7 of `full_crc32` flags, bit 16 of older ones.
fn page_compressed(flags: u32) -> bool {
    const FULL_CRC32: u32 = 1 << 4;
    if flags & FULL_CRC32 != 0 { flags >> 5 & 0b111 != 0 } else { flags >> 16 & 1 != 0 }
}

/// How far the file in hand is covered.
#[derive(Debug, Default)]
struct Cover {
    file: Option<Arc<TargetFile>>,
    extents: u32,
    bytes: u64,
}

impl Cover {
    fn begin(&mut self, file: &Arc<TargetFile>) -> Result<(), RestoreError> {
        self.finish()?;
        *self = Cover { file: Some(file.clone()), extents: 0, bytes: 0 };
        Ok(())
    }

    /// Extents follow one another without a gap, and the decoder has proven that no page is in two pieces.
    fn extent(&mut self, extent: &Extent) -> Result<(), RestoreError> {
        let Some(pages) = self.file.as_ref().and_then(|file| file.pages) else {
            return self.fault("extents of a plain file".to_owned());
        };
        if extent.no.0 != self.extents {
            return self.fault(format!("extent {} follows where {} is expected", extent.no.0, self.extents));
        }
        let first = u64::from(extent.no.0) * u64::from(EXTENT_PAGES);
        let left = u64::from(pages.count).saturating_sub(first);
        let expected = PageMask::first(u32::try_from(left).unwrap_or(u32::MAX));
        let found = extent.covered();
        if found != expected || expected.is_empty() {
            return self.fault(format!("extent {} covers pages {found:?}, expected {expected:?}", extent.no.0));
        }
        self.extents += 1;
        self.bytes += u64::from(expected.len()) * pages.size.bytes() as u64;
        Ok(())
    }

    fn pieces(&mut self, offset: u64, pieces: &[FilePiece]) -> Result<(), RestoreError> {
        if self.file.as_ref().is_none_or(|file| file.pages.is_some()) {
            return self.fault("pieces of a plain file".to_owned());
        }
        if offset != self.bytes {
            return self.fault(format!("pieces from byte {offset} follow where {} is expected", self.bytes));
        }
        self.bytes += pieces.iter().map(|piece| u64::from(piece.bytes)).sum::<u64>();
        Ok(())
    }

    fn finish(&mut self) -> Result<(), RestoreError> {
        match &self.file {
            Some(file) if file.bytes != self.bytes => {
                self.fault(format!("{} of {} bytes are covered", self.bytes, file.bytes))
            }
            _ => Ok(()),
        }
    }

    fn fault(&self, problem: String) -> Result<(), RestoreError> {
        let what = self.file.as_ref().map_or_else(|| "the backup".to_owned(), |file| file.path.clone());
        Err(RestoreError::Map { what, problem })
    }
}
