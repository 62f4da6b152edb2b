//! Workers: check, hash, compare with the parent, compress. One extent or one MiB of a file at a time.

use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender};

use super::slots::{Slot, old};
use super::{BackupError, Stash};
use crate::format::map::{Content, FilePiece, FileSource, PageChunk, Piece};
use crate::format::pack::{self, Encoding};
use crate::format::{Namer, PageHash, PageSum};
use crate::mariadb::page::{
    PageFault, PageVerdict, SpaceFormat, Unprotected, check_page, check_page_space, described_pages, page_lsn,
};
use crate::model::{ChunkId, ExtentNo, Lsn, PageMask, PageNo, SpaceId};

/// How much nicer workers are than the other threads: a quarter of a core's time if others want all of it.
const NICENESS: i32 = 5;

/// Pages of one extent as they came from the stream.
pub(super) struct PageJob {
    /// Path in the stream, for errors.
    pub path: Arc<str>,
    /// How pages of this file are checked.
    pub format: SpaceFormat,
    /// The tablespace.
    pub space: SpaceId,
    /// The extent.
    pub extent: ExtentNo,
    /// The pages that `bytes` holds, ascending.
    pub pages: PageMask,
    /// Their bytes.
    pub bytes: Vec<u8>,
    /// What the parent has for this extent.
    pub base: Vec<Piece>,
    /// True when descriptor pages are to be read: of a tablespace that an incremental's parent does not have.
    pub describe: bool,
}

impl PageJob {
    fn bad_page(&self, page: PageNo, fault: PageFault) -> BackupError {
        BackupError::Page { path: self.path.to_string(), page, fault }
    }
}

/// Up to a MiB of a plain file.
pub(super) struct FileJob {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// What the parent has at the same place.
    pub base: Option<FilePiece>,
}

/// A chunk that has to be stored.
#[derive(Debug)]
pub(super) struct FreshChunk {
    pub id: ChunkId,
    pub raw_bytes: u32,
    pub encoding: Encoding,
    pub sums: Vec<PageSum>,
    pub stored: Vec<u8>,
}

/// What became of a [`PageJob`].
#[derive(Debug)]
pub(super) struct PageResult {
    pub extent: ExtentNo,
    /// Pieces that need no storing: zeros, and what the parent has already.
    pub kept: Vec<Piece<Slot>>,
    /// The other pages and their chunk.
    pub fresh: Option<(PageMask, FreshChunk)>,
    /// The newest page, and its LSN.
    pub newest: Option<(Lsn, PageNo)>,
    /// Pages whose checksum could not be checked without a key.
    pub unverifiable: u32,
    /// Pages that a descriptor page in the extent calls allocated, where that was asked for.
    pub allocated: Vec<(ExtentNo, PageMask)>,
}

/// What became of a [`FileJob`].
#[derive(Debug)]
pub(super) enum FileResult {
    /// Stored already, or all zeros.
    Kept(FilePiece<Slot>),
    /// To be stored.
    Fresh(FreshChunk),
}

/// Work for one worker, and where the result goes.
pub(super) enum Job {
    Pages(Box<PageJob>, Sender<Result<PageResult, BackupError>>),
    File(FileJob, Sender<Result<FileResult, BackupError>>),
}

/// What all workers share.
pub(super) struct Workshop {
    pub namer: Namer,
    pub stash: Arc<dyn Stash>,
    pub compression_level: i32,
    /// Last LSN of the parent: a page with a newer one is certainly another page.
    pub parent_last: Lsn,
    /// Whether workers give way to other threads. Of an incremental the tool has little to tell, and what it waits for is the
    /// disk: it must have a core at once when its bytes are there. Of a full it waits for the workers.
    pub gives_way: bool,
    /// Where buffers go that are no longer needed: new ones cost the kernel a zeroed page for every 4 KiB.
    pub spare: Sender<Vec<u8>>,
}

impl Workshop {
    /// Works until `jobs` ends.
    pub(super) fn run(&self, jobs: &Receiver<Job>) {
        if self.gives_way {
            // Where that is not allowed, workers just run as the others do.
            let _ = rustix::process::nice(NICENESS);
        }
        let mut compressor = zstd::bulk::Compressor::new(self.compression_level).ok();
        for job in jobs {
            // Whoever asked may have given up; there is nobody else to tell.
            match job {
                Job::Pages(job, reply) => {
                    drop(reply.send(self.pages(&job, &mut compressor)));
                    let _ = self.spare.try_send(job.bytes);
                }
                Job::File(job, reply) => drop(reply.send(self.file(job, &mut compressor))),
            }
        }
    }

    fn pages(&self, job: &PageJob, compressor: &mut Compressor) -> Result<PageResult, BackupError> {
        let page_bytes = job.format.page_size().bytes();
        let mut result = PageResult {
            extent: job.extent,
            kept: Vec::new(),
            fresh: None,
            newest: None,
            unverifiable: 0,
            allocated: if job.describe { allocated(job) } else { Vec::new() },
        };
        let (mut zero, mut older) = (PageMask::EMPTY, PageMask::EMPTY);
        for (index, page) in job.pages.indices().zip(job.bytes.chunks(page_bytes)) {
            let number = job.extent.page(index);
            let mut is_copy = false;
            match check_page(&job.format, number, page) {
                PageVerdict::Zero => {
                    zero = zero.union(PageMask::only(index));
                    continue;
                }
                PageVerdict::Good => {
                    check_page_space(&job.format, job.space, page).map_err(|fault| job.bad_page(number, fault))?;
                }
                // Copies of other pages, which recovery looks at only after a crash of the server itself.
                PageVerdict::Unverifiable(Unprotected::Doublewrite) => is_copy = true,
                PageVerdict::Unverifiable(_) => result.unverifiable += 1,
                PageVerdict::Bad(fault) => return Err(job.bad_page(number, fault)),
            }
            let lsn = page_lsn(page);
            // A place for copies has now one page and now another, whose number can be its own by chance: it bears no witness.
            if !is_copy {
                result.newest = result.newest.max(Some((lsn, number)));
            }
            if lsn <= self.parent_last {
                older = older.union(PageMask::only(index));
            }
        }
        if !zero.is_empty() {
            result.kept.push(Piece { mask: zero, content: Content::Zero });
        }
        let hashes = self.namer.pages(&job.bytes, page_bytes);
        let mut rest = job.pages.without(zero);
        for piece in &job.base {
            let same = self.same_pages(job, piece, rest.intersection(older), &hashes);
            if !same.is_empty() {
                result.kept.push(old(&Piece { mask: same, content: piece.content }));
                rest = rest.without(same);
            }
        }
        if rest.is_empty() {
            return Ok(result);
        }
        let places = || rest.indices().map(|index| job.pages.rank(index) as usize);
        let id = self.namer.chunk_of_pages(places().map(|place| &hashes[place]));
        match self.stash.find(&id, rest.len() as usize * page_bytes) {
            Some(at) => {
                let chunk = PageChunk { id, pages: rest, at: at.map(Slot::Old) };
                result.kept.push(Piece { mask: rest, content: Content::Chunk(chunk) });
            }
            None => {
                let sums = places().map(|place| hashes[place].sum()).collect();
                result.fresh = Some((rest, self.chunk_of_pages(job, rest, id, sums, compressor)?));
            }
        }
        Ok(result)
    }

    /// Pages among `candidates` that the parent's `piece` holds already.
    fn same_pages(&self, job: &PageJob, piece: &Piece, candidates: PageMask, hashes: &[PageHash]) -> PageMask {
        let Content::Chunk(chunk) = &piece.content else { return PageMask::EMPTY };
        let candidates = candidates.intersection(piece.mask);
        if candidates.is_empty() {
            return PageMask::EMPTY;
        }
        let hash_of = |index: u32| &hashes[job.pages.rank(index) as usize];
        if candidates == chunk.pages && self.namer.chunk_of_pages(chunk.pages.indices().map(hash_of)) == chunk.id {
            return candidates;
        }
        let Some(sums) = self.stash.page_sums(chunk) else { return PageMask::EMPTY };
        let is_same =
            |index: &u32| sums.get(chunk.pages.rank(*index) as usize).is_some_and(|sum| *sum == hash_of(*index).sum());
        candidates.indices().filter(is_same).fold(PageMask::EMPTY, |same, index| same.union(PageMask::only(index)))
    }

    fn chunk_of_pages(
        &self,
        job: &PageJob,
        pages: PageMask,
        id: ChunkId,
        sums: Vec<PageSum>,
        compressor: &mut Compressor,
    ) -> Result<FreshChunk, BackupError> {
        let page_bytes = job.format.page_size().bytes();
        let gathered;
        let raw = if pages == job.pages {
            &job.bytes[..]
        } else {
            let mut bytes = Vec::with_capacity(pages.len() as usize * page_bytes);
            for index in pages.indices() {
                bytes.extend_from_slice(&job.bytes[job.pages.rank(index) as usize * page_bytes..][..page_bytes]);
            }
            gathered = bytes;
            &gathered[..]
        };
        compress(compressor, self.compression_level, id, raw, sums)
    }

    fn file(&self, job: FileJob, compressor: &mut Compressor) -> Result<FileResult, BackupError> {
        let bytes = job.bytes.len() as u32;
        if job.bytes.iter().all(|byte| *byte == 0) {
            return Ok(FileResult::Kept(FilePiece { bytes, source: FileSource::Zero }));
        }
        let id = self.namer.chunk_of_file(&job.bytes);
        if let Some(piece) = job.base
            && let FileSource::Chunk { id: known, raw_bytes, skip: 0, .. } = piece.source
            && known == id
            && raw_bytes == bytes
        {
            return Ok(FileResult::Kept(FilePiece { bytes, ..piece }.map(Slot::Old)));
        }
        if let Some(at) = self.stash.find(&id, job.bytes.len()) {
            let source = FileSource::Chunk { id, raw_bytes: bytes, skip: 0, at: at.map(Slot::Old) };
            return Ok(FileResult::Kept(FilePiece { bytes, source }));
        }
        Ok(FileResult::Fresh(compress(compressor, self.compression_level, id, &job.bytes, Vec::new())?))
    }
}

/// Pages that the descriptor page at the beginning of the extent calls allocated, if there is one.
fn allocated(job: &PageJob) -> Vec<(ExtentNo, PageMask)> {
    let page_bytes = job.format.page_size().bytes();
    let first = job.extent.first_page();
    if !job.pages.contains(0) || !(first.0 as usize).is_multiple_of(page_bytes) {
        return Vec::new();
    }
    let mut extents: Vec<(ExtentNo, PageMask)> = Vec::new();
    for number in described_pages(&job.format, &job.bytes[..page_bytes]) {
        let page = PageNo(first.0 + number);
        match extents.last_mut() {
            Some((extent, mask)) if *extent == page.extent() => *mask = mask.union(PageMask::only(page.index())),
            _ => extents.push((page.extent(), PageMask::only(page.index()))),
        }
    }
    extents
}

type Compressor = Option<zstd::bulk::Compressor<'static>>;

fn compress(
    compressor: &mut Compressor,
    level: i32,
    id: ChunkId,
    raw: &[u8],
    sums: Vec<PageSum>,
) -> Result<FreshChunk, BackupError> {
    let compressor = match compressor {
        Some(compressor) => compressor,
        None => {
            let made = zstd::bulk::Compressor::new(level);
            compressor.insert(made.map_err(|source| BackupError::Compressor { source })?)
        }
    };
    let mut stored = Vec::new();
    let encoding = pack::compress(compressor, raw, &mut stored)?;
    Ok(FreshChunk { id, raw_bytes: raw.len() as u32, encoding, sums, stored })
}

/// The pieces that stand for pages `chunk` once it lies in `at`.
pub(super) fn piece_of(pages: PageMask, chunk: &FreshChunk, at: crate::format::map::Location<Slot>) -> Piece<Slot> {
    Piece { mask: pages, content: Content::Chunk(PageChunk { id: chunk.id, pages, at }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::map::{BlockRef, Location};
    use crate::format::pack::{FinishedPack, PackBuilder, PackKind};
    use crate::mariadb::page::{Crypt, SpaceFlags};

    /// A store that has nothing.
    struct Nothing;

    impl Stash for Nothing {
        fn new_pack(&self, kind: PackKind) -> Result<PackBuilder, BackupError> {
            Ok(PackBuilder::new(kind))
        }

        fn put_pack(&self, _: FinishedPack) -> Result<(), BackupError> {
            Ok(())
        }

        fn read_block(&self, _: &BlockRef) -> Result<Vec<u8>, BackupError> {
            Err(BackupError::Abandoned)
        }

        fn find(&self, _: &ChunkId, _: usize) -> Option<Location> {
            None
        }

        fn page_sums(&self, _: &PageChunk) -> Option<Vec<PageSum>> {
            None
        }
    }

    /// Extent `extent` of the system tablespace, with one page of a sort that is as good in the doublewrite buffer as elsewhere.
    fn newest(extent: u32) -> Option<(Lsn, PageNo)> {
        let extent = ExtentNo(extent);
        let mut page = vec![0; 16384];
        page[4..8].copy_from_slice(&extent.page(1).0.to_be_bytes());
        page[16..24].copy_from_slice(&7u64.to_be_bytes());
        page[16376..16380].copy_from_slice(&7u32.to_be_bytes());
        let sum = crc32c::crc32c(&page[..16380]);
        page[16380..].copy_from_slice(&sum.to_be_bytes());
        let workshop = Workshop {
            namer: Namer::new(&[0; 32]),
            stash: Arc::new(Nothing),
            compression_level: 1,
            parent_last: Lsn(0),
            gives_way: false,
            spare: crossbeam_channel::bounded(1).0,
        };
        let job = PageJob {
            path: "ibdata1".into(),
            format: SpaceFormat::new(SpaceId(0), SpaceFlags::new(0x15).unwrap(), Crypt::Absent),
            space: SpaceId(0),
            extent,
            pages: PageMask::only(1),
            bytes: page,
            base: Vec::new(),
            describe: false,
        };
        let result = workshop.pages(&job, &mut None).unwrap();
        assert!(result.fresh.is_some(), "it is stored all the same");
        result.newest
    }

    #[test]
    fn pages_of_the_doublewrite_buffer_are_no_witnesses() {
        assert_eq!(newest(0), Some((Lsn(7), PageNo(1))));
        assert_eq!((newest(1), newest(2)), (None, None));
        assert_eq!(newest(3), Some((Lsn(7), PageNo(193))));
    }
}
