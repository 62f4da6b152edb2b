//! Gives back the disk that freed pages of page-compressed tables take.
//!
//! The server punches a hole where it frees a page of such a table (MariaDB `buf0flu.cc`, `fil_space_t::flush_freed`). A
//! page that is all zero has no LSN, so no incremental tells of it, and the parent's page stays in the map: no harm, since
//! nobody reads a free page before it is written anew, but disk. A prepared directory is consistent, so its descriptor
//! pages say which pages are free, and the holes are made here.
//!
//! Cost: 64 bytes of each file, and of page-compressed files a descriptor page for each 256 MiB (at 16 KiB pages).

use std::fs::{File, OpenOptions};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use super::{Cancel, RestoreError, tree};
use crate::mariadb::page::{Page0, SpaceFlags, SpaceFormat, described_pages, page_no};
use crate::model::PageNo;

/// Bytes of page 0 up to the end of the flags.
const FLAGS_END: usize = 58;

/// Punches holes where page-compressed tablespaces of the prepared `directory` have free pages; returns their number.
///
/// # Errors
/// When a file cannot be read, or not be changed for other reasons than that its file system knows no holes.
pub(super) fn punch_freed(directory: &Path, cancel: &Cancel) -> Result<u64, RestoreError> {
    let mut punched = 0;
    for path in tree::descendants(directory)? {
        if path.extension().is_none_or(|ending| ending != "ibd") {
            continue;
        }
        cancel.check()?;
        punched += punch(&path).map_err(RestoreError::io("punch holes into", &path))?;
    }
    Ok(punched)
}

fn punch(path: &Path) -> std::io::Result<u64> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    let mut head = [0; FLAGS_END];
    if length < head.len() as u64 {
        return Ok(0);
    }
    file.read_exact_at(&mut head, 0)?;
    // What prepare made nothing of is not for us to judge.
    let Ok(flags) = SpaceFlags::from_page0(&head) else { return Ok(0) };
    if !flags.page_compressed() {
        return Ok(0);
    }
    let page_bytes = flags.physical_size().bytes();
    let mut page = vec![0; page_bytes];
    if length < page_bytes as u64 {
        return Ok(0);
    }
    file.read_exact_at(&mut page, 0)?;
    let Ok(page0) = Page0::parse(&page) else { return Ok(0) };
    let format = SpaceFormat::of(&page0);
    let used = page0.free_limit.0.min(page0.size_pages).min((length / page_bytes as u64) as u32);
    let file = OpenOptions::new().write(true).read(true).open(path)?;
    let mut punched = 0;
    // A descriptor page speaks of as many pages, itself among them, as it has bytes.
    for first in (0..used).step_by(page_bytes) {
        file.read_exact_at(&mut page, u64::from(first) * page_bytes as u64)?;
        // None of these pages is free, or the page is no descriptor page of this place.
        let allocated = described_pages(&format, &page);
        if allocated.first() != Some(&0) || page_no(&page) != Some(PageNo(first)) {
            continue;
        }
        let end = (first + page_bytes as u32).min(used);
        for free in between(&allocated, end - first) {
            let start = (u64::from(first) + u64::from(free.start)) * page_bytes as u64;
            let bytes = free.len() as u64 * page_bytes as u64;
            match fallocate(&file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, start, bytes) {
                Ok(()) => punched += free.len() as u64,
                // The server had no holes there either.
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(punched),
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(punched)
}

/// Stretches of `0..end` that are not in `allocated`, which is sorted.
fn between(allocated: &[u32], end: u32) -> impl Iterator<Item = Range<u32>> + '_ {
    let starts = std::iter::once(0).chain(allocated.iter().map(|page| page + 1));
    let ends = allocated.iter().copied().chain(std::iter::once(end));
    starts.zip(ends).map(move |(start, stop)| start..stop.min(end)).filter(|free| !free.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn stretches_between_are_what_is_not_allocated(mask: u64, end in 0_u32..64) {
            let allocated: Vec<u32> = (0..64).filter(|page| mask >> page & 1 == 1).collect();
            let free: Vec<u32> = between(&allocated, end).flatten().collect();
            let expected: Vec<u32> = (0..end).filter(|page| mask >> page & 1 == 0).collect();
            proptest::prop_assert_eq!(free, expected);
        }
    }
}
