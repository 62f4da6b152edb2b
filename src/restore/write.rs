//! Turns stored bytes into bytes of files: cuts out chunks, checks them, and writes each page to its place.

use std::fs::{File, OpenOptions};
use std::num::NonZeroUsize;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use lru::LruCache;
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use super::RestoreError;
use super::plan::join;
use super::walk::{Pages, TargetFile};
use crate::format::map::PackRef;
use crate::format::pack::PackKind;
use crate::format::{Encoding, FormatError, Keyring, StoredChunk};
use crate::model::{ChunkId, ExtentNo, PageMask};

/// Files held open: a window touches many in turn, and a process may open a thousand.
const OPEN_FILES: NonZeroUsize = NonZeroUsize::new(256).expect("256 is not zero");
/// Block of a file system, in which the server punches holes at the ends of compressed pages.
const HOLE_BYTES: usize = 4096;
/// Bytes written to a file from which on they are put on the disk at once, by one of those that fetch while the others go on: at the end,
/// when all of it is made durable, there is little left to wait for.
const UNSYNCED_BYTES_MAX: u64 = 32 << 20;
/// Zeros that are written at a time where there can be no holes.
const ZEROS_BYTES: usize = 1 << 20;

/// A chunk and where it lies in its pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Chunk {
    /// Name.
    pub id: ChunkId,
    /// First byte in the pack.
    pub offset: u32,
    /// Number of bytes in the pack.
    pub stored_bytes: u32,
    /// Length before compression.
    pub raw_bytes: u32,
    /// How it is stored.
    pub encoding: Encoding,
}

impl Chunk {
    /// First byte in the pack, and the byte after the last.
    pub fn range(&self) -> (u64, u64) {
        (u64::from(self.offset), u64::from(self.offset) + u64::from(self.stored_bytes))
    }
}

/// Where the bytes of a chunk go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Pages of an extent.
    Pages {
        /// The extent.
        extent: ExtentNo,
        /// The pages that are taken from the chunk.
        mask: PageMask,
        /// The pages that the chunk holds.
        pages: PageMask,
    },
    /// A stretch of a plain file.
    Bytes {
        /// Where it begins in the file.
        at: u64,
        /// Bytes of the chunk before it.
        skip: u32,
        /// Its length.
        bytes: u32,
    },
}

/// A chunk that a file needs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Need {
    /// Place of the pack in the batch.
    pub pack: u32,
    /// The chunk.
    pub chunk: Chunk,
    /// Place of the file in the batch.
    pub file: u32,
    /// Where the bytes go.
    pub place: Place,
}

/// A stretch of a file that is all zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Zeros {
    /// Place of the file in the batch.
    pub file: u32,
    /// Where it begins.
    pub at: u64,
    /// Its length.
    pub bytes: u64,
}

/// A stretch of a pack, and which needs it serves.
#[derive(Debug, Clone)]
pub(super) struct Request {
    /// Place of the pack in the batch.
    pub pack: u32,
    /// The stretch.
    pub bytes: Range<u64>,
    /// The needs, by their places in the batch.
    pub needs: Range<usize>,
}

/// What threads need to write the pieces of a window.
#[derive(Debug)]
pub(super) struct Batch {
    root: PathBuf,
    keyring: Keyring,
    files: Vec<Arc<TargetFile>>,
    /// The packs that the needs speak of.
    pub packs: Vec<PackRef>,
    needs: Vec<Need>,
    /// Whether the files may hold something already: zeros are then written too.
    over: bool,
    open: Mutex<LruCache<u32, Arc<OpenFile>>>,
    /// Room for what is decompressed, for each thread that wrote at the same time: fresh room is a page fault for each of its pages.
    rooms: Mutex<Vec<Vec<u8>>>,
}

/// A file that is written to.
struct OpenFile {
    file: File,
    /// Only one at a time can write to a file: the others sleep meanwhile, where the kernel would have them spin.
    turn: Mutex<()>,
    /// Bytes that were written since the disk had all.
    unsynced: AtomicU64,
}

impl OpenFile {
    /// Puts what was written on the disk if that is much by now. That all is there is for the one to see to who says so: an error comes again
    /// then, or comes here.
    fn written(&self, bytes: u64) -> std::io::Result<()> {
        let unsynced = self.unsynced.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if unsynced < UNSYNCED_BYTES_MAX {
            return Ok(());
        }
        self.unsynced.store(0, Ordering::Relaxed);
        self.file.sync_data()
    }
}

impl Batch {
    /// `needs` are sorted by pack and offset.
    pub fn new(
        root: &Path,
        keyring: &Keyring,
        files: Vec<Arc<TargetFile>>,
        packs: Vec<PackRef>,
        needs: Vec<Need>,
        over: bool,
    ) -> Batch {
        let open = Mutex::new(LruCache::new(OPEN_FILES));
        let (root, keyring) = (root.to_owned(), keyring.clone());
        Batch { root, keyring, files, packs, needs, over, open, rooms: Mutex::default() }
    }

    /// The first file that a request serves, for an error message.
    pub fn file_of(&self, request: &Request) -> String {
        let first = self.needs.get(request.needs.start).and_then(|need| self.files.get(need.file as usize));
        first.map(|file| file.path.clone()).unwrap_or_default()
    }

    /// Writes what `stored`, the bytes that `request` asked for, holds; returns the number of bytes of files.
    ///
    /// # Errors
    /// When a chunk is damaged, or a file cannot be written.
    pub fn write(&self, request: &Request, stored: &[u8]) -> Result<u64, RestoreError> {
        let mut room = self.rooms.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
        let written = self.write_with(request, stored, &mut room);
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner).push(room);
        written
    }

    fn write_with(&self, request: &Request, stored: &[u8], room: &mut Vec<u8>) -> Result<u64, RestoreError> {
        let mut written = 0;
        let page_bytes = |need: &Need| self.files[need.file as usize].pages.map(|pages| pages.size.bytes());
        let same = |one: &Need, other: &Need| one.chunk == other.chunk && page_bytes(one) == page_bytes(other);
        for needs in self.needs[request.needs.clone()].chunk_by(same) {
            let first = &needs[0];
            let raw = self.open_chunk(request, first, page_bytes(first), stored, room).map_err(|source| {
                let (file, pack) = (self.files[first.file as usize].path.clone(), self.packs[first.pack as usize].id);
                RestoreError::Damaged { file, pack, source }
            })?;
            for need in needs {
                let file = &self.files[need.file as usize];
                let out = self.file(need.file, &file.path)?;
                let turn = out.turn.lock().unwrap_or_else(PoisonError::into_inner);
                let bytes = put(&out.file, file.pages, &need.place, raw, self.over);
                drop(turn);
                let bytes = bytes.and_then(|bytes| out.written(bytes).map(|()| bytes));
                written += bytes.map_err(RestoreError::io("write", self.root.join(&file.path)))?;
            }
        }
        Ok(written)
    }

    /// Makes stretches of zeros what they should be, in files that may hold something else.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn clear(&self, zeros: &[Zeros]) -> Result<(), RestoreError> {
        for Zeros { file, at, bytes } in zeros {
            let path = &self.files[*file as usize].path;
            let out = self.file(*file, path)?;
            clear(&out.file, *at, *bytes).map_err(RestoreError::io("write", self.root.join(path)))?;
        }
        Ok(())
    }

    /// Decompresses a chunk and proves that it bears its name.
    fn open_chunk<'a>(
        &self,
        request: &Request,
        need: &Need,
        page_bytes: Option<usize>,
        stored: &'a [u8],
        room: &'a mut Vec<u8>,
    ) -> Result<&'a [u8], FormatError> {
        let chunk = &need.chunk;
        let (start, end) = chunk.range();
        let stored = stored.get((start - request.bytes.start) as usize..(end - request.bytes.start) as usize);
        // The store has given as many bytes as were asked for.
        let stored = stored.unwrap_or_default();
        let Chunk { id, offset, encoding, raw_bytes, .. } = *chunk;
        let in_pack = StoredChunk { kind: PackKind::Data, id, offset, encoding, raw_bytes };
        let raw = self.keyring.open_chunk_in("chunk", &in_pack, stored, room)?;
        let namer = self.keyring.namer();
        let found = match page_bytes {
            Some(page_bytes) => namer.chunk_of_pages(&namer.pages(raw, page_bytes)),
            None => namer.chunk_of_file(raw),
        };
        if found == chunk.id {
            return Ok(raw);
        }
        Err(FormatError::WrongHash { what: "chunk", expected: chunk.id.to_string(), found: found.to_string() })
    }

    fn file(&self, place: u32, path: &str) -> Result<Arc<OpenFile>, RestoreError> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = open.get(&place) {
            return Ok(file.clone());
        }
        let path = join(&self.root, path)?;
        let file = OpenOptions::new().write(true).open(&path).map_err(RestoreError::io("open", path))?;
        let file = Arc::new(OpenFile { file, turn: Mutex::default(), unsynced: AtomicU64::new(0) });
        open.put(place, file.clone());
        Ok(file)
    }
}

/// Writes the bytes of a chunk that belong into `file`.
fn put(file: &File, pages: Option<Pages>, place: &Place, raw: &[u8], over: bool) -> std::io::Result<u64> {
    let beyond = || std::io::Error::other("the chunk is shorter than the map says");
    match *place {
        Place::Bytes { at, skip, bytes } => {
            let (skip, bytes) = (skip as usize, bytes as usize);
            let raw = raw.get(skip..skip + bytes).ok_or_else(beyond)?;
            file.write_all_at(raw, at)?;
            Ok(bytes as u64)
        }
        Place::Pages { extent, mask, pages: held } => {
            let page_bytes = pages.map_or(0, |pages| pages.size.bytes());
            let first = u64::from(extent.0) * u64::from(crate::model::EXTENT_PAGES);
            for run in runs(mask) {
                // Pages that follow one another in the file do so in the chunk, which holds all of the mask.
                let from = held.rank(run.start) as usize * page_bytes;
                let raw = raw.get(from..from + run.len() * page_bytes).ok_or_else(beyond)?;
                let at = (first + u64::from(run.start)) * page_bytes as u64;
                if pages.is_some_and(|pages| pages.compressed) {
                    put_with_holes(file, raw, page_bytes, at, over)?;
                } else {
                    file.write_all_at(raw, at)?;
                }
            }
            Ok(u64::from(mask.len()) * page_bytes as u64)
        }
    }
}

/// Writes pages without the zeros at their ends, which stay holes, or become some.
fn put_with_holes(file: &File, pages: &[u8], page_bytes: usize, at: u64, over: bool) -> std::io::Result<()> {
    for (place, page) in pages.chunks(page_bytes).enumerate() {
        let used = page.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let used = used.next_multiple_of(HOLE_BYTES).min(page.len());
        let at = at + (place * page_bytes) as u64;
        file.write_all_at(&page[..used], at)?;
        if over && used < page.len() {
            clear(file, at + used as u64, (page.len() - used) as u64)?;
        }
    }
    Ok(())
}

/// Makes a stretch of a file a hole, or zeros where the file system knows no holes.
fn clear(file: &File, at: u64, bytes: u64) -> std::io::Result<()> {
    match fallocate(file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, at, bytes) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => write_zeros(file, at, bytes),
        punched => Ok(punched?),
    }
}

fn write_zeros(file: &File, at: u64, bytes: u64) -> std::io::Result<()> {
    let zeros = vec![0; ZEROS_BYTES.min(bytes as usize)];
    let mut done = 0;
    while done < bytes {
        let part = (bytes - done).min(zeros.len() as u64);
        file.write_all_at(&zeros[..part as usize], at + done)?;
        done += part;
    }
    Ok(())
}

/// Stretches of consecutive pages in `mask`, ascending.
pub(super) fn runs(mask: PageMask) -> impl Iterator<Item = Range<u32>> {
    let mut rest = mask.0;
    std::iter::from_fn(move || {
        if rest == 0 {
            return None;
        }
        let start = rest.trailing_zeros();
        let length = (rest >> start).trailing_ones();
        let end = start + length;
        rest = if end >= 64 { 0 } else { rest >> end << end };
        Some(start..end)
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use proptest::prelude::*;

    use super::*;
    use crate::model::PageSize;

    proptest! {
        #[test]
        fn runs_are_the_pages_of_the_mask(bits: u64) {
            let indices: Vec<_> = runs(PageMask(bits)).flatten().collect();
            prop_assert_eq!(indices, PageMask(bits).indices().collect::<Vec<_>>());
        }

        #[test]
        fn pages_of_a_part_of_a_chunk_land_in_their_places(bits in 1u64.., keep: u64) {
            let (held, mask) = (PageMask(bits), PageMask(bits & keep));
            let pages = Pages { size: PageSize::new(1024).unwrap(), count: 128, compressed: false };
            let raw: Vec<u8> = held.indices().flat_map(|index| vec![index as u8 + 1; 1024]).collect();
            let file = tempfile::tempfile().unwrap();
            file.set_len(128 * 1024).unwrap();
            put(&file, Some(pages), &Place::Pages { extent: ExtentNo(1), mask, pages: held }, &raw, false).unwrap();
            let mut expected = vec![0; 128 * 1024];
            for index in mask.indices() {
                let at = (64 + index as usize) * 1024;
                expected[at..at + 1024].fill(index as u8 + 1);
            }
            let mut found = vec![0; 128 * 1024];
            file.read_exact_at(&mut found, 0).unwrap();
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn ends_of_compressed_pages_stay_holes() {
        let pages = Pages { size: PageSize::new(16384).unwrap(), count: 64, compressed: true };
        let mut raw = vec![0; 64 * 16384];
        raw.chunks_mut(16384).for_each(|page| page[..4097].fill(7));
        let file = tempfile::tempfile().unwrap();
        file.set_len(64 * 16384).unwrap();
        let all = PageMask::first(64);
        put(&file, Some(pages), &Place::Pages { extent: ExtentNo(0), mask: all, pages: all }, &raw, false).unwrap();
        let mut found = vec![1; raw.len()];
        file.read_exact_at(&mut found, 0).unwrap();
        assert!(found == raw);
        // The file system's own blocks, which list so many stretches, count too once they are written.
        let most = 64 * 8192 + (64 << 10);
        assert!(file.metadata().unwrap().blocks() * 512 <= most, "half of each page is a hole");
    }

    #[test]
    fn what_was_in_a_file_does_not_show_through_zeros() {
        let pages = Pages { size: PageSize::new(16384).unwrap(), count: 64, compressed: true };
        let mut raw = vec![0; 64 * 16384];
        raw.chunks_mut(16384).for_each(|page| page[..5000].fill(7));
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&vec![9; 65 * 16384], 0).unwrap();
        let all = PageMask::first(64);
        let place = Place::Pages { extent: ExtentNo(0), mask: all, pages: all };
        put(&file, Some(pages), &place, &raw, true).unwrap();
        clear(&file, 64 * 16384, 1000).unwrap();
        write_zeros(&file, 64 * 16384 + 1000, 1000).unwrap();
        let mut found = vec![1; 65 * 16384];
        file.read_exact_at(&mut found, 0).unwrap();
        assert!(found[..raw.len()] == raw);
        assert!(found[raw.len()..][..2000].iter().all(|byte| *byte == 0));
        assert!(found[raw.len() + 2000..].iter().all(|byte| *byte == 9));
    }
}
