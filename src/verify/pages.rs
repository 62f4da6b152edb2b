//! Proves pages from their own bytes: each is the page that the maps call it, of the right tablespace, as it was written,
//! and not newer than the backups that need it.
//!
//! A chunk can be needed by several backups through several pieces, each of which takes some of its pages. What a page must
//! be follows from its [`Place`]; how new it may be, from the least last LSN of the backups that need it there.

use std::fmt;

use crate::format::map::{SpaceKey, SpaceRecord};
use crate::mariadb::page::{
    Crypt, Page0, PageVerdict, SpaceFlags, SpaceFormat, check_page, check_page_space, is_undo_file, page_lsn,
};
use crate::model::{ExtentNo, Lsn, PageMask, PageSize};

/// What a map says of an InnoDB file and what its pages must agree with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct SpaceFile {
    key: SpaceKey,
    page_size: PageSize,
    flags: u32,
    encrypted: Option<bool>,
}

/// Where the pages of a chunk stand, as one piece of a map has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// The file.
    pub file: SpaceFile,
    /// The extent.
    pub extent: ExtentNo,
    /// The pages that the chunk holds.
    pub pages: PageMask,
    /// Those of them that the piece takes.
    pub used: PageMask,
    /// Last LSN of the backup: no page is newer.
    pub last: Lsn,
}

/// What a map says of a tablespace that its page 0 says too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// Where page 0 is.
    pub place: Place,
    /// Pages that the tablespace has, in all of its files; the most there can be, where fewer than page 0 says prove nothing.
    pub pages: u32,
    /// Start checkpoint of the backup: what is newer is in its redo log.
    pub start: Lsn,
}

/// What the server extends a file by: of a table with smaller pages, as `ROW_FORMAT=COMPRESSED` has, the last may be no part of the file
/// until they are written (MariaDB `fil0fil.cc`, `fil_space_extend_must_retry`).
const GROWTH_BYTES: u64 = 4096;
/// Length to which the server truncates an undo tablespace (MariaDB `srv0srv.h`, `SRV_UNDO_TABLESPACE_SIZE_IN_PAGES`).
const UNDO_BYTES: u64 = 10 << 20;

impl Header {
    /// Of a tablespace in the file `name` with `pages` pages, for a backup with the start checkpoint `start`.
    ///
    /// An undo tablespace can be truncated between its first page and its last while it is copied. Then page 0 is old and tells the
    /// length before; the redo log holds the new page 0 and the truncation.
    pub fn new(name: &str, place: Place, pages: u32, start: Lsn) -> Header {
        let bytes = u64::from(pages) * place.file.page_size.bytes() as u64;
        let pages = if is_undo_file(name) && bytes >= UNDO_BYTES { u32::MAX } else { pages };
        Header { place, pages, start }
    }

    /// True when the tablespace lacks pages of the `size_pages` that page 0 says.
    fn is_short_of(&self, size_pages: u32) -> bool {
        let page_bytes = self.place.file.page_bytes();
        u64::from(self.pages) * page_bytes < u64::from(size_pages) * page_bytes / GROWTH_BYTES * GROWTH_BYTES
    }
}

/// What is wrong with pages of a chunk at one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PageFault {
    /// The file whose pages they should be.
    pub file: SpaceFile,
    /// The extent in which they should be.
    pub extent: ExtentNo,
    /// Which pages of it.
    pub pages: PageMask,
    /// Whom it hits.
    pub hits: Hits,
    /// What is wrong with the first of them.
    pub problem: String,
}

/// Backups that a fault hits, of those that need the pages where they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hits {
    /// All.
    All,
    /// Those whose last LSN lies before this one.
    EndBefore(Lsn),
    /// Those whose map has fewer pages than page 0, of this LSN, says, and whose redo log begins behind it.
    Shorter(u32, Lsn),
}

impl SpaceFile {
    /// The file of `record`.
    pub fn of(record: &SpaceRecord) -> SpaceFile {
        let SpaceRecord { key, page_size, flags, encrypted, .. } = *record;
        SpaceFile { key, page_size, flags, encrypted }
    }

    /// Size of a page.
    pub fn page_bytes(&self) -> u64 {
        self.page_size.bytes() as u64
    }

    /// True when its first page describes the tablespace.
    pub fn has_header(&self) -> bool {
        self.key.part == 0
    }

    /// What is wrong with the record itself.
    pub fn problem(&self) -> Option<String> {
        if self.key.part > 0 {
            // Only the first file of a system tablespace has flags.
            return None;
        }
        match SpaceFlags::new(self.flags) {
            None => Some(format!("has flags {:#x}, which no tablespace has", self.flags)),
            Some(flags) if flags.physical_size() != self.page_size => {
                let (found, expected) = (self.page_size.bytes(), flags.physical_size().bytes());
                Some(format!("has pages of {found} bytes, its flags say {expected}"))
            }
            Some(_) => None,
        }
    }

    /// How its pages are checked.
    fn format(&self) -> Option<SpaceFormat> {
        if self.key.part > 0 {
            return Some(SpaceFormat::assumed(self.key.space, self.page_size, None).continued());
        }
        let crypt = self.encrypted.map_or(Crypt::Unknown, |is| if is { Crypt::Present } else { Crypt::Absent });
        SpaceFlags::new(self.flags).map(|flags| SpaceFormat::new(self.key.space, flags, crypt))
    }
}

impl fmt::Display for SpaceFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.key {
            SpaceKey { space, part: 0 } => write!(f, "tablespace {space}"),
            SpaceKey { space, part } => write!(f, "file {} of tablespace {space}", part + 1),
        }
    }
}

/// Checks the pages of a chunk at all places that need it; returns how many of its pages are needed anywhere.
///
/// `raw` holds as many pages as each place says; that was compared before.
pub(super) fn check_pages(raw: &[u8], places: &[Place], headers: &[Header], faults: &mut Vec<PageFault>) -> u64 {
    for place in places {
        check_place(raw, place, faults);
    }
    for header in headers {
        check_header(raw, header, faults);
    }
    let needed = places.iter().fold(PageMask::EMPTY, |needed, place| needed.union(place.used));
    u64::from(needed.len())
}

fn check_place(raw: &[u8], place: &Place, faults: &mut Vec<PageFault>) {
    let Place { file, extent, pages, used, last } = *place;
    let fault = |pages, hits, problem| PageFault { file, extent, pages, hits, problem };
    let Some(format) = file.format() else { return };
    let page_bytes = file.page_size.bytes();
    let (mut bad, mut first) = (PageMask::EMPTY, None);
    for index in used.intersection(pages).indices() {
        let (number, at) = (extent.page(index), pages.rank(index) as usize * page_bytes);
        let Some(page) = raw.get(at..at + page_bytes) else { continue };
        let found = match check_page(&format, number, page) {
            PageVerdict::Bad(fault) => Some(fault),
            PageVerdict::Good => check_page_space(&format, file.key.space, page).err(),
            PageVerdict::Zero | PageVerdict::Unverifiable(_) => None,
        };
        let lsn = page_lsn(page);
        if let Some(found) = found {
            bad = bad.union(PageMask::only(index));
            first.get_or_insert_with(|| format!("page {number} of {file}: {found}"));
        } else if lsn > last {
            let problem = format!("page {number} of {file} has LSN {lsn}, but a backup that needs it ends at {last}");
            faults.push(fault(PageMask::only(index), Hits::EndBefore(lsn), problem));
        }
    }
    if let Some(first) = first {
        let more = bad.len() - 1;
        let problem = if more > 0 { format!("{first}, and {more} more of its pages are wrong") } else { first };
        faults.push(fault(bad, Hits::All, problem));
    }
}

/// Compares page 0 with what the map says of the tablespace.
fn check_header(raw: &[u8], header: &Header, faults: &mut Vec<PageFault>) {
    let Place { file, extent, pages, .. } = header.place;
    let at = pages.rank(0) as usize * file.page_size.bytes();
    let Some(page) = raw.get(at..at + file.page_size.bytes()) else { return };
    let (hits, problem) = match Page0::parse(page) {
        Err(error) => (Hits::All, error.to_string()),
        Ok(page0) if page0.space_id != file.key.space => {
            (Hits::All, format!("page 0 names tablespace {}", page0.space_id))
        }
        Ok(page0) if page0.flags.bits() != file.flags => {
            let found = page0.flags.bits();
            (Hits::All, format!("page 0 has flags {found:#x}, the page map says {:#x}", file.flags))
        }
        Ok(page0) if file.encrypted.is_some_and(|encrypted| encrypted != (page0.crypt == Crypt::Present)) => {
            (Hits::All, "page 0 and the page map disagree on whether pages are encrypted".to_owned())
        }
        // A file that grew while it was copied is shorter than page 0 says, and the redo log makes it longer.
        Ok(page0) if header.is_short_of(page0.size_pages) && page_lsn(page) <= header.start => {
            let problem = format!("page 0 says {} pages, the page map {}", page0.size_pages, header.pages);
            (Hits::Shorter(page0.size_pages, page_lsn(page)), problem)
        }
        Ok(_) => return,
    };
    let problem = format!("{file}: {problem}");
    faults.push(PageFault { file, extent, pages: PageMask::only(0), hits, problem });
}

impl Place {
    /// True when all that `other` asks for is asked for here, at the same place.
    pub fn covers(&self, other: &Place) -> bool {
        (self.file, self.extent, self.pages) == (other.file, other.extent, other.pages)
            && other.used.is_subset(self.used)
            && self.last <= other.last
    }
}

impl PageFault {
    /// True when a piece at `place` takes one of the pages.
    pub fn is_at(&self, place: &Place) -> bool {
        (self.file, self.extent) == (place.file, place.extent) && !self.pages.intersection(place.used).is_empty()
    }

    /// True when it is the fault of a page 0 that `header` contradicts.
    pub fn contradicts(&self, header: &Header) -> bool {
        matches!(self.hits, Hits::Shorter(pages, lsn) if header.is_short_of(pages) && lsn <= header.start)
            && self.is_at(&header.place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::SpaceId;

    #[test]
    fn only_an_undo_tablespace_may_be_shorter_than_its_page_0_says() {
        let page_size = PageSize::new(16384).unwrap();
        let key = SpaceKey { space: SpaceId(2), part: 0 };
        let file = SpaceFile { key, page_size, flags: 0x15, encrypted: None };
        let (pages, used) = (PageMask::only(0), PageMask::only(0));
        let place = Place { file, extent: ExtentNo(0), pages, used, last: Lsn(9) };
        let fault =
            PageFault { file, extent: ExtentNo(0), pages, hits: Hits::Shorter(832, Lsn(5)), problem: String::new() };
        for (name, length, is_fault) in [
            ("undo002", 640, false),
            ("undo002", 639, true),
            ("undo002", 832, false),
            ("shop/undo002.ibd", 640, true),
            ("shop/t.ibd", 832, false),
        ] {
            let header = Header::new(name, place, length, Lsn(7));
            assert_eq!(fault.contradicts(&header), is_fault, "{name} {length}");
        }
    }

    #[test]
    fn a_file_of_small_pages_may_end_before_the_last_4_kib_that_its_page_0_counts() {
        let key = SpaceKey { space: SpaceId(175), part: 0 };
        // The first of 2 KiB was seen on a server with pages of 4 KiB.
        for (page_bytes, counted, length, is_fault) in [
            (2048, 53, 52, false),
            (2048, 53, 51, true),
            (2048, 52, 51, true),
            (1024, 55, 52, false),
            (1024, 55, 51, true),
            (1024, 56, 52, true),
            (4096, 53, 52, true),
            (16384, 53, 52, true),
        ] {
            let file = SpaceFile { key, page_size: PageSize::new(page_bytes).unwrap(), flags: 0x21, encrypted: None };
            let place =
                Place { file, extent: ExtentNo(0), pages: PageMask::only(0), used: PageMask::only(0), last: Lsn(9) };
            let (pages, hits) = (PageMask::only(0), Hits::Shorter(counted, Lsn(5)));
            let fault = PageFault { file, extent: ExtentNo(0), pages, hits, problem: String::new() };
            let header = Header::new("ddl/d2.ibd", place, length, Lsn(7));
            assert_eq!(fault.contradicts(&header), is_fault, "{page_bytes} {counted} {length}");
        }
    }
}
