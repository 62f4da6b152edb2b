//! Finds out what files on disk hold of a window already, each byte of it proven by hashes of the repository's.
//!
//! - A chunk that is there as a whole bears its name: all that it holds is hashed, and nothing else is believed.
//! - Of a chunk of pages some may have been replaced by newer pieces. Where the rest is there, the name cannot be made up;
//!   then each page that is wanted is compared with its sum in the pack's directory, which is proven by the hash in the
//!   pack's footer, or by its seal. That costs a read of the directory, and is left until the chunks of the pack that it could
//!   have proven have cost as much.
//!
//! Each extent is read once, whatever number of pieces it has, and each page hashed once. A file that cannot be read counts
//! as one that is not there, but for want of rights; so what a dying disk does not give any more is fetched.

use std::collections::{BTreeMap, HashMap};
use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::stream::{self, StreamExt};
use rustix::fs::OFlags;

use super::RestoreError;
use super::plan::{directories_of, join};
use super::walk::{Pages, TargetFile};
use super::window::Window;
use super::write::{Need, Place};
use crate::format::map::{Location, PackRef, PageChunk};
use crate::format::{Namer, PageHash, PageSum};
use crate::model::{EXTENT_PAGES, PackId, PageMask};
use crate::repository::{PACK_TAIL_BYTES, Repository};

/// Pieces that are compared before what is missing of them is fetched, while the next are compared: 1 GiB of a backup without
/// small pieces, so that both go on side by side.
pub(super) const COMPARED_PIECES: usize = 1024;
/// Extents, or pieces of plain files, that a thread looks at in one go: up to 32 MiB of pages of 16 KiB.
const GROUPS_AT_ONCE: usize = 32;
/// Threads that read and hash; more only wait for the disk.
const THREADS_MAX: usize = 8;
/// Directories of packs that are read at the same time: they hide a store's latency.
const DIRECTORIES_AHEAD: usize = 8;
/// Packs of which is remembered what they could have proven: some 20 MiB. A backup of 4 TiB needs no more.
const UNPROVEN_MAX: usize = 256 << 10;

/// What of a window was there, and what it took to know that.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Compared {
    /// Pieces that were looked for.
    pub pieces: u64,
    /// Those that are there.
    pub equal: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes of directories of packs that were read.
    pub bytes_fetched: u64,
    /// Directories that were read.
    pub requests: u64,
}

impl Compared {
    /// The sums of both.
    pub fn add(&mut self, other: Compared) {
        self.pieces += other.pieces;
        self.equal += other.equal;
        self.bytes += other.bytes;
        self.bytes_fetched += other.bytes_fetched;
        self.requests += other.requests;
    }
}

/// A comparison of a backup with the files of a directory, window by window.
pub(super) struct Comparison<'a> {
    repository: &'a Repository,
    root: &'a Path,
    /// Bytes of chunks that the directory of a pack could have proven, since it was read last.
    unproven: HashMap<PackId, u64>,
    thrifty: bool,
}

impl<'a> Comparison<'a> {
    /// With the files below `root`, of all that is to be restored.
    pub fn with(repository: &'a Repository, root: &'a Path) -> Comparison<'a> {
        Comparison { repository, root, unproven: HashMap::new(), thrifty: true }
    }

    /// The same of a sample: a directory is read for each chunk that it could prove.
    pub fn of_sample(repository: &'a Repository, root: &'a Path) -> Comparison<'a> {
        Comparison { thrifty: false, ..Comparison::with(repository, root) }
    }

    /// Takes those needs out of `window` that the files fulfil.
    ///
    /// # Errors
    /// When a file may not be read.
    pub async fn settle(&mut self, window: &mut Window) -> Result<Compared, RestoreError> {
        let (repository, root) = (self.repository, self.root);
        let local = Arc::new(Local {
            root: root.to_owned(),
            namer: repository.namer().clone(),
            files: window.files.clone(),
            needs: window.needs.clone(),
        });
        let groups = groups(&window.needs);
        let batches: Vec<Vec<Range<usize>>> = groups.chunks(GROUPS_AT_ONCE).map(<[_]>::to_vec).collect();
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
        let mut looks = stream::iter(batches)
            .map(|batch| {
                let local = local.clone();
                tokio::task::spawn_blocking(move || local.look(&batch))
            })
            .buffered(threads);
        let mut equal = vec![false; window.needs.len()];
        let mut open = Vec::new();
        while let Some(found) = looks.next().await {
            for (place, verdict) in found?? {
                match verdict {
                    Verdict::Equal => equal[place] = true,
                    Verdict::Pages(sums) => open.push((place, sums)),
                }
            }
        }
        drop(looks);
        let mut compared = Compared { pieces: window.needs.len() as u64, ..Compared::default() };
        let open = self.worth_asking(window, open);
        let asked = ask_directories(repository, window, open).await;
        compared.requests = asked.requests;
        compared.bytes_fetched = asked.bytes_fetched;
        asked.equal.into_iter().for_each(|place| equal[place] = true);
        for (need, _) in window.needs.iter().zip(&equal).filter(|(_, equal)| **equal) {
            compared.equal += 1;
            compared.bytes += local.bytes_of(need);
        }
        let mut equal = equal.into_iter();
        window.needs.retain(|_| !equal.next().unwrap_or(false));
        Ok(compared)
    }

    /// What is to be looked for in directories, by the pack's place in the window.
    fn worth_asking(&mut self, window: &Window, open: Open) -> BTreeMap<u32, Open> {
        let mut packs: BTreeMap<u32, Open> = BTreeMap::new();
        for (place, sums) in open {
            packs.entry(window.needs[place].pack).or_default().push((place, sums));
        }
        if self.unproven.len() >= UNPROVEN_MAX {
            self.unproven.clear();
        }
        packs.retain(|pack, open| {
            let pack = window.packs[*pack as usize];
            let chunks = open.iter().map(|(place, _)| window.needs[*place].chunk);
            // A chunk that two pieces need is fetched once.
            let chunks: HashMap<u32, u32> = chunks.map(|chunk| (chunk.offset, chunk.stored_bytes)).collect();
            let unproven = self.unproven.entry(pack.id).or_default();
            *unproven += chunks.values().map(|bytes| u64::from(*bytes)).sum::<u64>();
            let asked = !self.thrifty || self.repository.has_directory(pack) || *unproven > tail_bytes(pack);
            if asked {
                *unproven = 0;
            }
            asked
        });
        packs
    }
}

/// Pieces of which pages are there, by their places in the window.
type Open = Vec<(usize, Vec<PageSum>)>;

/// Neighbours that are of one extent, and pieces of plain files each alone.
fn groups(needs: &[Need]) -> Vec<Range<usize>> {
    let extent = |need: &Need| match need.place {
        Place::Pages { extent, .. } => Some((need.file, extent)),
        Place::Bytes { .. } => None,
    };
    let mut groups: Vec<Range<usize>> = Vec::new();
    for (place, need) in needs.iter().enumerate() {
        match groups.last_mut() {
            Some(last) if extent(need).is_some() && extent(need) == extent(&needs[last.start]) => last.end = place + 1,
            _ => groups.push(place..place + 1),
        }
    }
    groups
}

/// What is known of a piece without its pack; nothing of those that are not there.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// All of its chunk is there.
    Equal,
    /// Pages of it are there, ascending, with these sums; others of its chunk are not.
    Pages(Vec<PageSum>),
}

/// The files, and what is looked for in them.
struct Local {
    root: PathBuf,
    namer: Namer,
    files: Vec<Arc<TargetFile>>,
    needs: Vec<Need>,
}

impl Local {
    fn look(&self, groups: &[Range<usize>]) -> Result<Vec<(usize, Verdict)>, RestoreError> {
        let mut found = Vec::new();
        let mut buffer = Vec::new();
        let mut open: Option<(u32, Option<File>)> = None;
        for group in groups {
            let first = &self.needs[group.start];
            if open.as_ref().is_none_or(|(place, _)| *place != first.file) {
                open = Some((first.file, open_plain(&self.root, &self.files[first.file as usize].path)?));
            }
            let Some((_, Some(file))) = &open else { continue };
            let pages = self.files[first.file as usize].pages;
            match (first.place, pages) {
                (Place::Bytes { at, skip, .. }, _) => {
                    if self.is_there(file, first, at, skip, &mut buffer) {
                        found.push((group.start, Verdict::Equal));
                    }
                }
                (Place::Pages { .. }, Some(pages)) => self.look_at_extent(file, pages, group, &mut buffer, &mut found),
                (Place::Pages { .. }, None) => {}
            }
        }
        Ok(found)
    }

    /// Whether the chunk of a plain file lies where its piece is wanted.
    fn is_there(&self, file: &File, need: &Need, at: u64, skip: u32, buffer: &mut Vec<u8>) -> bool {
        let raw_bytes = need.chunk.raw_bytes as usize;
        let Some(start) = at.checked_sub(u64::from(skip)) else { return false };
        read_up_to(file, start, raw_bytes, buffer) == raw_bytes && self.namer.chunk_of_file(buffer) == need.chunk.id
    }

    fn look_at_extent(
        &self,
        file: &File,
        pages: Pages,
        group: &Range<usize>,
        buffer: &mut Vec<u8>,
        found: &mut Vec<(usize, Verdict)>,
    ) {
        let page_bytes = pages.size.bytes();
        let places = self.needs[group.clone()].iter().filter_map(|need| match need.place {
            Place::Pages { extent, mask, pages } => Some((extent, mask, pages, need.chunk.id)),
            Place::Bytes { .. } => None,
        });
        let places: Vec<_> = places.collect();
        let Some((extent, ..)) = places.first() else { return };
        let wanted = places.iter().fold(PageMask::EMPTY, |wanted, (_, mask, held, _)| wanted.union(*mask).union(*held));
        let (from, to) = (wanted.0.trailing_zeros(), 64 - wanted.0.leading_zeros());
        let start = (u64::from(extent.0) * u64::from(EXTENT_PAGES) + u64::from(from)) * page_bytes as u64;
        let length = to.saturating_sub(from) as usize * page_bytes;
        let read = read_up_to(file, start, length, buffer) / page_bytes * page_bytes;
        let hashes = self.namer.pages(&buffer[..read], page_bytes);
        let hash = |index: u32| hashes.get((index - from) as usize);
        for (place, (_, mask, held, id)) in group.clone().zip(places) {
            let all: Option<Vec<&PageHash>> = held.indices().map(hash).collect();
            if all.is_some_and(|all| self.namer.chunk_of_pages(all) == id) {
                found.push((place, Verdict::Equal));
            } else if mask != held
                && let Some(sums) = mask.indices().map(|index| hash(index).map(PageHash::sum)).collect()
            {
                found.push((place, Verdict::Pages(sums)));
            }
        }
    }

    /// Bytes of files that a need is about.
    fn bytes_of(&self, need: &Need) -> u64 {
        match need.place {
            Place::Bytes { bytes, .. } => u64::from(bytes),
            Place::Pages { mask, .. } => {
                let pages = self.files[need.file as usize].pages;
                u64::from(mask.len()) * pages.map_or(0, |pages| pages.size.bytes() as u64)
            }
        }
    }
}

/// Opens the file at `path` below `root`, if there is one that is nobody else's too: a link to it would see what is written over it,
/// and what lies behind a link is not the datadir's.
///
/// # Errors
/// When it may not be read.
fn open_plain(root: &Path, path: &str) -> Result<Option<File>, RestoreError> {
    for directory in directories_of(path) {
        if !join(root, directory)?.symlink_metadata().is_ok_and(|meta| meta.is_dir()) {
            return Ok(None);
        }
    }
    let path = join(root, path)?;
    // Whatever else bears the name, a pipe for one, is not waited for.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits();
    let file = match OpenOptions::new().read(true).custom_flags(flags.cast_signed()).open(&path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return Err(RestoreError::io("open", path)(error));
        }
        Err(_) => return Ok(None),
        Ok(file) => file,
    };
    let own = file.metadata().is_ok_and(|meta| meta.is_file() && meta.nlink() == 1);
    Ok(own.then_some(file))
}

/// Fills `buffer` with up to `bytes` bytes from `start`; tells how many there were.
fn read_up_to(file: &File, start: u64, bytes: usize, buffer: &mut Vec<u8>) -> usize {
    buffer.resize(bytes, 0);
    let mut read = 0;
    while read < bytes {
        match file.read_at(&mut buffer[read..], start + read as u64) {
            Ok(0) => break,
            Ok(more) => read += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // What cannot be read is not there.
            Err(_) => break,
        }
    }
    read
}

/// What the directories of packs told.
struct Asked {
    /// Needs that are fulfilled, by their places.
    equal: Vec<usize>,
    requests: u64,
    bytes_fetched: u64,
}

/// Compares the sums of pages with those in the directories of packs.
async fn ask_directories(repository: &Repository, window: &Window, packs: BTreeMap<u32, Open>) -> Asked {
    let mut asked = Asked { equal: Vec::new(), requests: 0, bytes_fetched: 0 };
    let mut looks = stream::iter(packs)
        .map(|(pack, open)| async move {
            let pack = window.packs[pack as usize];
            let bytes = if repository.has_directory(pack) { 0 } else { tail_bytes(pack) };
            let equal = equal_pages(repository, window, pack, open).await;
            (bytes, equal)
        })
        .buffer_unordered(DIRECTORIES_AHEAD);
    while let Some((bytes, equal)) = looks.next().await {
        asked.requests += u64::from(bytes > 0);
        asked.bytes_fetched += bytes;
        asked.equal.extend(equal);
    }
    drop(looks);
    asked
}

/// What reading the directory of a pack costs.
fn tail_bytes(pack: PackRef) -> u64 {
    u64::from(pack.bytes).min(PACK_TAIL_BYTES)
}

async fn equal_pages(repository: &Repository, window: &Window, pack: PackRef, open: Open) -> Vec<usize> {
    let mut equal = Vec::new();
    for (place, sums) in open {
        let need = &window.needs[place];
        let Place::Pages { mask, pages: held, .. } = need.place else { continue };
        let chunk = need.chunk;
        let at = Location { pack, offset: chunk.offset, stored_bytes: chunk.stored_bytes, encoding: chunk.encoding };
        // A directory that cannot be had proves nothing; the chunk may be whole all the same.
        let Ok(Some(stored)) = repository.page_sums(&PageChunk { id: chunk.id, pages: held, at }).await else {
            continue;
        };
        let expected = mask.indices().map(|index| stored.get(held.rank(index) as usize));
        if expected.eq(sums.iter().map(Some)) {
            equal.push(place);
        }
    }
    equal
}
