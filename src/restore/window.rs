//! Gathers what a stretch of the map needs, so that it is fetched with few requests and each chunk once.
//!
//! A window is sorted by pack and offset: one ranged GET then serves many pieces. What bounds memory, whatever the size
//! of the backup:
//!
//! | what | bytes |
//! |---|---|
//! | stored bytes in flight | [`IN_FLIGHT_BYTES`], 64 MiB |
//! | decompressed chunks, one for each request | 8 × 1 MiB, with 64 KiB pages 8 × 4 MiB |
//! | the window: [`WINDOW_PIECES`] pieces of some 100 bytes, [`WINDOW_FILES`] names | 14 MiB + 4 MiB |
//! | map blocks read ahead | some MiB (`walk`) |

use std::collections::HashMap;
use std::sync::Arc;

use super::walk::{Step, TargetFile};
use super::write::{Chunk, Need, Place, Request, Zeros, runs};
use super::{RestoreError, ThawOptions};
use crate::format::SEAL_BYTES;
use crate::format::map::{Content, Extent, FilePiece, FileSource, Location, PackRef};
use crate::format::pack::CHUNK_BYTES_MAX;
use crate::model::{ChunkId, EXTENT_PAGES, PackId};

/// Stored bytes that are in memory at the same time, fetched or being fetched.
const IN_FLIGHT_BYTES: u64 = 64 << 20;
/// Longest ranged GET: long enough that a request's latency is small beside its transfer.
const REQUEST_BYTES_MAX: u64 = 8 << 20;
/// Bytes that nobody needs and that are read over rather than asked around: about what a line of 1 Gbit/s carries in the
/// time of a request.
const GAP_BYTES_MAX: u64 = 256 << 10;
/// Pieces in a window: 128 GiB of a backup without small pieces, so that few neighbours are separated.
const WINDOW_PIECES: usize = 128 << 10;
/// Files in a window, small ones mostly.
const WINDOW_FILES: usize = 16 << 10;
/// Most requests at the same time; more only wait for each other.
const REQUESTS_MAX: usize = 64;

/// How files are fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchOptions {
    /// Requests at the same time, 1 to 64.
    pub requests: usize,
    /// Whether what is archived is thawed first.
    pub thaw: Option<ThawOptions>,
}

impl Default for FetchOptions {
    fn default() -> FetchOptions {
        // Eight of 8 MiB fill a line of 10 Gbit/s at 50 ms.
        FetchOptions { requests: 8, thaw: None }
    }
}

impl FetchOptions {
    /// Requests at the same time.
    pub(super) fn requests(self) -> usize {
        self.requests.clamp(1, REQUESTS_MAX)
    }

    fn request_bytes_max(self) -> u64 {
        (IN_FLIGHT_BYTES / self.requests() as u64).min(REQUEST_BYTES_MAX)
    }
}

/// Some files, and the pieces of them that come from chunks.
#[derive(Debug, Default)]
pub(super) struct Window {
    /// The files, the one in hand last.
    pub files: Vec<Arc<TargetFile>>,
    /// Files at the front that exist already.
    made: usize,
    /// The pieces of them that come from chunks.
    pub needs: Vec<Need>,
    /// The packs that hold the chunks.
    pub packs: Vec<PackRef>,
    /// The stretches of zeros of them, where the files may hold something else already.
    pub zeros: Vec<Zeros>,
    over: bool,
    places: HashMap<PackId, u32>,
}

impl Window {
    /// The window after this one, which goes on with the file in hand.
    pub fn next(&self) -> Window {
        let files: Vec<_> = self.files.last().cloned().into_iter().collect();
        Window { made: files.len(), files, over: self.over, ..Window::default() }
    }

    /// The first window of files that may be there already.
    pub fn over() -> Window {
        Window { over: true, ..Window::default() }
    }

    /// Takes a step of the walk in.
    ///
    /// # Errors
    /// When a chunk cannot be as the map says.
    pub fn add(&mut self, step: Step) -> Result<(), RestoreError> {
        match step {
            Step::File(file) => {
                self.files.push(file);
                Ok(())
            }
            Step::Extents(extents) => extents.iter().try_for_each(|extent| self.add_extent(extent)),
            Step::Pieces(offset, pieces) => self.add_pieces(offset, &pieces),
        }
    }

    /// True when the window should be dealt with.
    pub fn is_full(&self) -> bool {
        self.needs.len() >= WINDOW_PIECES || self.files.len() >= WINDOW_FILES
    }

    /// True when there are as many as `pieces` in it, or as many files as a window has.
    pub fn holds(&self, pieces: usize) -> bool {
        self.needs.len() + self.zeros.len() >= pieces || self.files.len() >= WINDOW_FILES
    }

    /// Files that no window before this one had.
    pub fn new_files(&self) -> &[Arc<TargetFile>] {
        &self.files[self.made.min(self.files.len())..]
    }

    /// Sorts the needs, and tells how they are fetched.
    pub fn requests(&mut self, options: FetchOptions) -> Vec<Request> {
        self.needs.sort_unstable_by_key(|need| (need.pack, need.chunk.offset));
        requests(&self.needs, options.request_bytes_max())
    }

    fn add_extent(&mut self, extent: &Extent) -> Result<(), RestoreError> {
        for piece in &extent.pieces {
            let page_bytes = self.file().and_then(|file| file.pages).map_or(0, |pages| pages.size.bytes());
            let Content::Chunk(chunk) = &piece.content else {
                let first = u64::from(extent.no.0) * u64::from(EXTENT_PAGES);
                for run in runs(piece.mask) {
                    let at = (first + u64::from(run.start)) * page_bytes as u64;
                    self.add_zeros(at, run.len() as u64 * page_bytes as u64);
                }
                continue;
            };
            let raw_bytes = chunk.pages.len() as usize * page_bytes;
            let place = Place::Pages { extent: extent.no, mask: piece.mask, pages: chunk.pages };
            self.need(chunk.id, chunk.at, raw_bytes, place)?;
        }
        Ok(())
    }

    fn add_pieces(&mut self, offset: u64, pieces: &[FilePiece]) -> Result<(), RestoreError> {
        let mut at = offset;
        for piece in pieces {
            if let FileSource::Chunk { id, raw_bytes, skip, at: location } = piece.source {
                let place = Place::Bytes { at, skip, bytes: piece.bytes };
                self.need(id, location, raw_bytes as usize, place)?;
            } else {
                self.add_zeros(at, u64::from(piece.bytes));
            }
            at += u64::from(piece.bytes);
        }
        Ok(())
    }

    fn add_zeros(&mut self, at: u64, bytes: u64) {
        if self.over {
            let file = self.files.len().saturating_sub(1) as u32;
            self.zeros.push(Zeros { file, at, bytes });
        }
    }

    fn need(&mut self, id: ChunkId, at: Location, raw_bytes: usize, place: Place) -> Result<(), RestoreError> {
        // A chunk that compression does not make smaller is stored as it is, and may be sealed.
        if raw_bytes == 0 || raw_bytes > CHUNK_BYTES_MAX || at.stored_bytes as usize > raw_bytes + SEAL_BYTES {
            let what = self.file().map_or_else(String::new, |file| file.path.clone());
            let problem = format!("chunk {id} of {raw_bytes} bytes takes {}", at.stored_bytes);
            return Err(RestoreError::Map { what, problem });
        }
        let next = self.packs.len() as u32;
        let pack = *self.places.entry(at.pack.id).or_insert(next);
        if pack == next {
            self.packs.push(at.pack);
        }
        let Location { offset, stored_bytes, encoding, .. } = at;
        let chunk = Chunk { id, offset, stored_bytes, raw_bytes: raw_bytes as u32, encoding };
        let file = self.files.len().saturating_sub(1) as u32;
        self.needs.push(Need { pack, chunk, file, place });
        Ok(())
    }

    /// The file in hand.
    pub fn file(&self) -> Option<&TargetFile> {
        self.files.last().map(Arc::as_ref)
    }
}

/// Cuts `needs`, which are sorted, into stretches that are fetched by one request each.
fn requests(needs: &[Need], bytes_max: u64) -> Vec<Request> {
    let mut requests: Vec<Request> = Vec::new();
    for (place, need) in needs.iter().enumerate() {
        let (start, end) = need.chunk.range();
        if let Some(last) = requests.last_mut()
            && last.pack == need.pack
            && start <= last.bytes.end.saturating_add(GAP_BYTES_MAX)
            && end.max(last.bytes.end) - last.bytes.start <= bytes_max
        {
            last.bytes.end = last.bytes.end.max(end);
            last.needs.end = place + 1;
            continue;
        }
        requests.push(Request { pack: need.pack, bytes: start..end, needs: place..place + 1 });
    }
    requests
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::format::Encoding;
    use crate::model::{ExtentNo, PageMask};

    fn need(pack: u32, offset: u32, stored_bytes: u32) -> Need {
        let chunk =
            Chunk { id: ChunkId([0; 32]), offset, stored_bytes, raw_bytes: stored_bytes, encoding: Encoding::Raw };
        let place = Place::Pages { extent: ExtentNo(0), mask: PageMask(1), pages: PageMask(1) };
        Need { pack, chunk, file: 0, place }
    }

    proptest! {
        #[test]
        fn every_need_is_in_one_request_that_covers_it(
            mut needs in prop::collection::vec((0u32..3, 48u32..20 << 20, 1u32..1 << 20), 0..200),
            bytes_max in (1u64 << 20)..(8 << 20),
        ) {
            needs.sort_unstable();
            let needs: Vec<_> = needs.into_iter().map(|(pack, offset, stored)| need(pack, offset, stored)).collect();
            let requests = requests(&needs, bytes_max);
            let mut next = 0;
            for request in requests {
                prop_assert_eq!(request.needs.start, next);
                next = request.needs.end;
                prop_assert!(request.bytes.end - request.bytes.start <= bytes_max);
                for need in &needs[request.needs] {
                    let (start, end) = need.chunk.range();
                    prop_assert!(need.pack == request.pack && request.bytes.start <= start && end <= request.bytes.end);
                }
            }
            prop_assert_eq!(next, needs.len());
        }
    }

    #[test]
    fn near_neighbours_share_a_request_and_far_ones_do_not() {
        let needs = [need(0, 48, 1000), need(0, 100_000, 1000), need(0, 2_000_000, 1000), need(1, 2_001_000, 1000)];
        let cut: Vec<_> = requests(&needs, REQUEST_BYTES_MAX).into_iter().map(|request| request.needs).collect();
        assert_eq!(cut, [0..2, 2..3, 3..4]);
    }
}
