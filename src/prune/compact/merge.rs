//! Puts the pages of an extent that lie in many chunks into one.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};

use super::packs::{DataPacks, Placed, Uploads};
use super::survey::DIRECTORIES_AT_ONCE;
use crate::format::map::{
    BlockRef, Content, Extent, ExtentBlock, Location, PageChunk, SpaceDirectory, SpaceKey, SpaceMap,
};
use crate::format::pack::{self, NewChunk, PackKind};
use crate::format::{Encoding, FormatError, Keyring, Manifest, Namer, PageSum, StoredChunk};
use crate::model::{ChunkId, PageMask, Phase, Progress};
use crate::prune::Skip;
use crate::repository::{Repository, RepositoryError};

/// Longest stretch of a pack that is read at once.
const RANGE_BYTES_MAX: u64 = 4 << 20;
/// Bytes between two chunks that are read along rather than in a request of their own.
const GAP_BYTES_MAX: u64 = 256 << 10;
/// Stretches read at the same time: 32 MiB of stored bytes.
const RANGES_IN_FLIGHT: usize = 8;
/// Extents hashed and compressed at the same time.
const WORKERS: usize = 4;
/// Level at which the new chunks are compressed: that of backups, unless they are told another.
const LEVEL: i32 = 1;

/// Extents with too many pieces.
#[derive(Debug)]
pub(super) struct Fragments {
    /// Pieces that an extent may have.
    pieces_max: u32,
    /// Extents that are merged at most.
    extents_max: usize,
    found: HashSet<(SpaceKey, u32)>,
    settled: bool,
    /// Extents beyond the limit, which wait for the next run.
    pub left: u64,
    /// Pieces of those that were found.
    pub pieces: u64,
}

impl Fragments {
    pub fn new(pieces_max: u32, extents_max: usize) -> Fragments {
        Fragments { pieces_max, extents_max, found: HashSet::new(), settled: false, left: 0, pieces: 0 }
    }

    /// Looks at an extent; true if it is to be merged.
    pub fn note(&mut self, key: SpaceKey, extent: &Extent) -> bool {
        if self.settled {
            return self.holds(key, extent);
        }
        let pieces = extent.pieces.iter().filter(|piece| matches!(piece.content, Content::Chunk(_))).count() as u32;
        if pieces <= self.pieces_max {
            return false;
        }
        if self.found.len() >= self.extents_max {
            self.left += 1;
            return false;
        }
        self.pieces += u64::from(pieces);
        self.found.insert((key, extent.no.0));
        true
    }

    /// From here on nothing is added.
    pub fn settle(&mut self) {
        self.settled = true;
    }

    /// Whether an extent is to be merged.
    pub fn holds(&self, key: SpaceKey, extent: &Extent) -> bool {
        self.found.contains(&(key, extent.no.0))
    }

    /// How many are to be merged.
    pub fn len(&self) -> usize {
        self.found.len()
    }
}

/// The chunk that holds all pages of an extent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Merged {
    /// The pages.
    pub pages: PageMask,
    /// Name of the chunk.
    pub id: ChunkId,
    /// How it is stored.
    pub encoding: Encoding,
    /// Where.
    pub placed: Placed,
}

/// Merged extents: 80 bytes each.
pub(super) type Merges = HashMap<(SpaceKey, u32), Merged>;

/// An extent that is being merged.
struct Job {
    key: SpaceKey,
    page_bytes: usize,
    extent: Extent,
}

impl Job {
    fn chunks(&self) -> impl Iterator<Item = (PageMask, &PageChunk)> {
        self.extent.pieces.iter().filter_map(|piece| match &piece.content {
            Content::Chunk(chunk) => Some((piece.mask, chunk)),
            Content::Zero => None,
        })
    }

    fn pages(&self) -> PageMask {
        self.chunks().fold(PageMask::EMPTY, |pages, (mask, _)| pages.union(mask))
    }
}

/// What merges need.
pub(super) struct Merger<'a> {
    pub repository: &'a Arc<Repository>,
    pub fragments: &'a Fragments,
    pub data: &'a mut DataPacks,
    pub uploads: &'a mut Uploads,
    /// Bytes of pages that are in memory at the same time.
    pub window_bytes: usize,
    pub progress: &'a dyn Progress,
    pub merges: Merges,
    pub skipped: Vec<Skip>,
}

impl<'a> Merger<'a> {
    pub fn new(
        repository: &'a Arc<Repository>,
        fragments: &'a Fragments,
        data: &'a mut DataPacks,
        uploads: &'a mut Uploads,
        progress: &'a dyn Progress,
    ) -> Merger<'a> {
        let (merges, skipped) = (Merges::new(), Vec::new());
        Merger { repository, fragments, data, uploads, window_bytes: 0, progress, merges, skipped }
    }

    /// Merges the extents of the backup of `manifest`. One of which anything is damaged stays as it is.
    pub async fn run(&mut self, manifest: &Manifest) -> Result<(), RepositoryError> {
        let blocks: HashSet<(SpaceKey, u32)> = self
            .fragments
            .found
            .iter()
            .map(|(key, no)| (*key, ExtentBlock::index_of(crate::model::ExtentNo(*no))))
            .collect();
        let root = self.repository.map_root(manifest).await?;
        let mut window = Vec::new();
        for directories in root.spaces.chunks(DIRECTORIES_AT_ONCE) {
            let directories = directories.iter().map(|(_, block)| *block).collect();
            let (mut page_bytes, mut below) = (HashMap::new(), Vec::new());
            let mut reads = std::pin::pin!(
                self.repository
                    .read_blocks(directories, |block, raw| Ok(SpaceDirectory::decode(raw, block.at.pack)?.records))
            );
            while let Some(read) = reads.try_next().await? {
                for record in read.into_iter().flatten() {
                    page_bytes.insert(record.key, record.page_size.bytes());
                    match record.map {
                        SpaceMap::Inline(extents) => self.gather(record.key, &page_bytes, extents, &mut window).await?,
                        SpaceMap::Blocks(refs) => below.extend(
                            refs.iter().filter(|at| blocks.contains(&(record.key, at.index))).map(|at| at.block),
                        ),
                    }
                }
            }
            self.blocks(below, &page_bytes, &mut window).await?;
        }
        self.window(window).await
    }

    async fn blocks(
        &mut self,
        blocks: Vec<BlockRef>,
        page_bytes: &HashMap<SpaceKey, usize>,
        window: &mut Vec<Job>,
    ) -> Result<(), RepositoryError> {
        let mut reads =
            std::pin::pin!(self.repository.read_blocks(blocks, |block, raw| ExtentBlock::decode(raw, block.at.pack)));
        while let Some(read) = reads.try_next().await? {
            for ExtentBlock { key, extents, .. } in read {
                self.gather(key, page_bytes, extents, window).await?;
            }
        }
        Ok(())
    }

    async fn gather(
        &mut self,
        key: SpaceKey,
        page_bytes: &HashMap<SpaceKey, usize>,
        extents: Vec<Extent>,
        window: &mut Vec<Job>,
    ) -> Result<(), RepositoryError> {
        let Some(page_bytes) = page_bytes.get(&key).copied() else { return Ok(()) };
        for extent in extents.into_iter().filter(|extent| self.fragments.holds(key, extent)) {
            window.push(Job { key, page_bytes, extent });
            let bytes: usize = window.iter().map(|job| job.pages().len() as usize * job.page_bytes).sum();
            if bytes >= self.window_bytes {
                self.window(std::mem::take(window)).await?;
            }
        }
        Ok(())
    }

    /// Fetches what the extents of a window need, in the order of packs and offsets, and stores each as one chunk.
    async fn window(&mut self, jobs: Vec<Job>) -> Result<(), RepositoryError> {
        let jobs = Arc::new(jobs);
        let mut pages: Vec<Result<BTreeMap<u32, Vec<u8>>, RepositoryError>> = Vec::new();
        pages.resize_with(jobs.len(), || Ok(BTreeMap::new()));
        let requests = requests(&jobs);
        let repository = self.repository;
        let reads = requests.into_iter().map(|request| read(repository, jobs.clone(), request));
        let mut reads = futures::stream::iter(reads).buffer_unordered(RANGES_IN_FLIGHT);
        while let Some(read) = reads.try_next().await? {
            for (job, cut) in read {
                match (&mut pages[job], cut) {
                    (Ok(pages), Ok(cut)) => pages.extend(cut),
                    (Ok(_), Err(error)) => pages[job] = Err(error),
                    (Err(_), _) => {}
                }
            }
        }
        let mut whole = Vec::new();
        for (job, pages) in jobs.iter().zip(pages) {
            let wanted = job.pages();
            match pages {
                Ok(pages) if pages.keys().copied().eq(wanted.indices()) => whole.push((job, wanted, pages)),
                Ok(_) => {}
                Err(error) => self.skipped.push(Skip::new(format!(
                    "extent {} of tablespace {} is left as it is: {}",
                    job.extent.no.0,
                    job.key.space,
                    crate::prune::causes(&error)
                ))),
            }
        }
        let namer = self.repository.namer();
        let seals = whole.into_iter().map(|(job, mask, pages)| {
            let (namer, page_bytes) = (namer.clone(), job.page_bytes);
            async move {
                let sealed = tokio::task::spawn_blocking(move || seal(&namer, page_bytes, pages)).await;
                match sealed {
                    Ok(sealed) => Ok::<_, RepositoryError>((job, mask, sealed?)),
                    Err(panic) => std::panic::resume_unwind(panic.into_panic()),
                }
            }
        });
        let mut seals = futures::stream::iter(seals).buffered(WORKERS);
        while let Some((job, pages, sealed)) = seals.try_next().await? {
            let Sealed { id, raw_bytes, encoding, sums, stored } = sealed;
            let chunk = NewChunk { id, raw_bytes, encoding, sums: &sums, stored: &stored };
            let placed = self.data.add(&chunk, self.uploads).await?;
            self.merges.insert((job.key, job.extent.no.0), Merged { pages, id, encoding, placed });
            self.progress.advance(Phase::Fetch, stored.len() as u64);
        }
        Ok(())
    }
}

/// A chunk that an extent needs.
#[derive(Clone, Copy)]
struct Need {
    job: usize,
    mask: PageMask,
    chunk: PageChunk,
}

struct Request {
    bytes: Range<u64>,
    needs: Vec<Need>,
}

/// Stretches of packs that hold all that the extents need.
fn requests(jobs: &[Job]) -> Vec<Request> {
    let needs = jobs
        .iter()
        .enumerate()
        .flat_map(|(job, of)| of.chunks().map(move |(mask, chunk)| Need { job, mask, chunk: *chunk }));
    let mut needs: Vec<Need> = needs.collect();
    needs.sort_unstable_by_key(|need| (need.chunk.at.pack.id, need.chunk.at.offset));
    let mut requests: Vec<Request> = Vec::new();
    for need in needs {
        let at = &need.chunk.at;
        let (start, end) = (u64::from(at.offset), u64::from(at.offset) + u64::from(at.stored_bytes));
        let fits = requests.last().is_some_and(|last| {
            last.needs[0].chunk.at.pack == at.pack
                && start <= last.bytes.end + GAP_BYTES_MAX
                && end.max(last.bytes.end) - last.bytes.start <= RANGE_BYTES_MAX
        });
        match requests.last_mut().filter(|_| fits) {
            Some(last) => {
                last.bytes.end = last.bytes.end.max(end);
                last.needs.push(need);
            }
            None => requests.push(Request { bytes: start..end, needs: vec![need] }),
        }
    }
    requests
}

/// Pages of an extent, by their places in it.
type Cut = Vec<(u32, Vec<u8>)>;

/// Reads a stretch and cuts the pages out that extents need. Bytes can be spoiled on their way, so there is a second look.
async fn read(
    repository: &Arc<Repository>,
    jobs: Arc<Vec<Job>>,
    request: Request,
) -> Result<Vec<(usize, Result<Cut, RepositoryError>)>, RepositoryError> {
    let request = Arc::new(request);
    let first = read_once(repository, jobs.clone(), request.clone()).await?;
    if first.iter().all(|(_, cut)| cut.is_ok()) {
        return Ok(first);
    }
    read_once(repository, jobs, request).await
}

async fn read_once(
    repository: &Arc<Repository>,
    jobs: Arc<Vec<Job>>,
    request: Arc<Request>,
) -> Result<Vec<(usize, Result<Cut, RepositoryError>)>, RepositoryError> {
    let pack = request.needs[0].chunk.at.pack.id;
    let stored = match repository.read_range(pack, request.bytes.clone()).await {
        Ok(stored) => stored,
        Err(RepositoryError::PackMissing { pack }) => {
            let lost = |need: &Need| (need.job, Err(RepositoryError::PackMissing { pack }));
            return Ok(request.needs.iter().map(lost).collect());
        }
        Err(error) => return Err(error),
    };
    let keyring = repository.keyring().clone();
    let cut = tokio::task::spawn_blocking(move || {
        let cut_one = |need: &Need| {
            let from = (u64::from(need.chunk.at.offset) - request.bytes.start) as usize;
            let stored = &stored[from..from + need.chunk.at.stored_bytes as usize];
            let pages = cut(&keyring, need, jobs[need.job].page_bytes, stored);
            (need.job, pages.map_err(|source| RepositoryError::Pack { pack, source }))
        };
        request.needs.iter().map(cut_one).collect()
    });
    match cut.await {
        Ok(cut) => Ok(cut),
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

/// The pages that are needed of a chunk, which is proven by its name.
fn cut(keyring: &Keyring, need: &Need, page_bytes: usize, stored: &[u8]) -> Result<Cut, FormatError> {
    let Need { mask, chunk, .. } = need;
    let PageChunk { id, pages, at } = chunk;
    let (raw_bytes, Location { offset, encoding, .. }) = (pages.len() * page_bytes as u32, *at);
    let sealed = StoredChunk { kind: PackKind::Data, id: *id, offset, encoding, raw_bytes };
    let raw = keyring.open_chunk("chunk", &sealed, stored)?;
    let namer = keyring.namer();
    let found = namer.chunk_of_pages(&namer.pages(&raw, page_bytes));
    if found != chunk.id {
        let (expected, found) = (chunk.id.to_string(), found.to_string());
        return Err(FormatError::WrongHash { what: "chunk", expected, found });
    }
    let held = chunk.pages.indices().zip(raw.chunks(page_bytes));
    Ok(held.filter(|(index, _)| mask.contains(*index)).map(|(index, page)| (index, page.to_vec())).collect())
}

/// A chunk ready to be put into a pack.
struct Sealed {
    id: ChunkId,
    raw_bytes: u32,
    encoding: Encoding,
    sums: Vec<PageSum>,
    stored: Vec<u8>,
}

fn seal(namer: &Namer, page_bytes: usize, pages: BTreeMap<u32, Vec<u8>>) -> Result<Sealed, FormatError> {
    let raw: Vec<u8> = pages.into_values().flatten().collect();
    let hashes = namer.pages(&raw, page_bytes);
    let mut compressor =
        zstd::bulk::Compressor::new(LEVEL).map_err(|source| FormatError::Compression { what: "chunk", source })?;
    let mut stored = Vec::new();
    let encoding = pack::compress(&mut compressor, &raw, &mut stored)?;
    let sums = hashes.iter().map(|hash| hash.sum()).collect();
    Ok(Sealed { id: namer.chunk_of_pages(&hashes), raw_bytes: raw.len() as u32, encoding, sums, stored })
}
