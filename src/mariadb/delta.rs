//! The `.delta` and `.meta` files of an incremental backup.
//!
//! A `.delta` file is a row of clusters: a header block of one page size, which lists up to K − 1 page numbers
//! (K = page size / 4), and then these pages. A cluster with all K − 1 is up to 1 GiB long, so pages are handed on in the
//! slices in which they arrive, and only the header block is held.
//!
//! Source: MariaDB `extra/mariabackup/write_filt.cc` (`wf_incremental_process`), `xtrabackup.cc` (`xtrabackup_apply_delta`,
//! `xb_write_delta_metadata`).

use std::num::ParseIntError;

use crate::{
    error::{Diagnose, Kind},
    model::{PageNo, PageSize, SpaceId},
};

/// First bytes of a cluster that others follow.
const MORE: [u8; 4] = *b"xtra";
/// First bytes of the last cluster.
const LAST: [u8; 4] = *b"XTRA";
/// Where a page number should be, when a cluster has fewer than it could.
const TERMINATOR: u32 = u32::MAX;
/// Page sizes of InnoDB, physical.
const SIZES: [u32; 7] = [1024, 2048, 4096, 8192, 16384, 32768, 65536];
/// What must be seen to tell the page size: the longest header block, and the number and LSN of the page behind it.
const INFER_BYTES: usize = 65536 + 24;
/// Longest `.meta` file: three short lines, with room for lines to come.
pub const META_BYTES_MAX: usize = 4096;

/// What a `.delta` file held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeltaSummary {
    /// Physical size of the pages.
    pub page_size: PageSize,
    /// Number of pages.
    pub pages: u32,
    /// The highest page number; none in an empty delta.
    pub max_page: Option<PageNo>,
}

/// A `.delta` file that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeltaError {
    /// A cluster does not begin like one.
    #[error("no cluster begins at byte {at} of the delta: expected \"xtra\" or \"XTRA\", found {found:02x?}")]
    Magic {
        /// Offset in the file.
        at: u64,
        /// The bytes there.
        found: [u8; 4],
    },
    /// A cluster before the last is not full.
    #[error("cluster at byte {at} of the delta lists {found} pages, but only the last may list fewer than {expected}")]
    Short {
        /// Offset of the cluster.
        at: u64,
        /// Pages of a full cluster.
        expected: u32,
        /// Pages that it lists.
        found: u32,
    },
    /// Page numbers do not ascend.
    #[error("cluster at byte {at} of the delta lists page {found} after page {previous}")]
    Order {
        /// Offset of the cluster.
        at: u64,
        /// The page before.
        previous: PageNo,
        /// The page that should be higher.
        found: PageNo,
    },
    /// There are bytes behind the last page of the last cluster.
    #[error("delta goes on after its last page, at byte {at}")]
    Trailing {
        /// Offset of the first byte too many.
        at: u64,
    },
    /// The file ends inside a cluster.
    #[error("delta ends at byte {at}, in {part}")]
    Truncated {
        /// Length of the file.
        at: u64,
        /// The part that is not whole.
        part: &'static str,
    },
    /// The page size is not known, and the file fits none or several.
    #[error("cannot tell the page size of the delta: {found} sizes fit")]
    Size {
        /// How many fit.
        found: usize,
    },
}

impl Diagnose for DeltaError {
    fn kind(&self) -> Kind {
        Kind::Corrupt
    }
}

/// Called with a page's number, an offset in the page, and bytes that stand there.
pub type OnSlice<'a, E> = &'a mut dyn FnMut(PageNo, usize, &[u8]) -> Result<(), E>;

/// Parses one `.delta` file from bytes pushed to it in pieces of any size.
#[derive(Debug)]
pub struct DeltaParser {
    /// Page size and header block, once the size is known.
    cluster: Option<Cluster>,
    /// The beginning of the file, while the page size is not known; at most `INFER_BYTES`.
    unsized_head: Vec<u8>,
    position: u64,
    pages: u32,
    previous: Option<PageNo>,
}

#[derive(Debug)]
struct Cluster {
    page_size: PageSize,
    header: Box<[u8]>,
    /// Offset of the cluster in the file.
    at: u64,
    place: Place,
}

/// What the next byte belongs to.
#[derive(Debug, Clone, Copy)]
enum Place {
    /// The header block, of which `filled` bytes are there.
    Header { filled: usize },
    /// Byte `offset` of the page in slot `index` of `count`; slot 1 is the first.
    Page { index: u32, count: u32, offset: usize, last: bool },
    /// Nothing: the file is complete.
    End,
}

impl DeltaParser {
    /// Parses a delta of pages of `page_size` (physical), as its `.meta` says; without one the size is inferred.
    pub fn new(page_size: Option<PageSize>) -> DeltaParser {
        DeltaParser {
            cluster: page_size.map(Cluster::new),
            unsized_head: Vec::new(),
            position: 0,
            pages: 0,
            previous: None,
        }
    }

    /// Takes the next bytes of the file and calls `page` with each slice of a page in them, in the order of the file.
    ///
    /// # Errors
    /// [`DeltaError`], or what `page` returns. After an error the parser is of no further use.
    pub fn push<E: From<DeltaError>>(&mut self, bytes: &[u8], page: OnSlice<'_, E>) -> Result<(), E> {
        if self.cluster.is_some() {
            return self.advance(bytes, page);
        }
        let (head, rest) = bytes.split_at(bytes.len().min(INFER_BYTES - self.unsized_head.len()));
        self.unsized_head.extend_from_slice(head);
        if self.unsized_head.len() < INFER_BYTES {
            return Ok(());
        }
        self.infer(page)?;
        self.advance(rest, page)
    }

    /// Ends the file.
    ///
    /// `page` is called only if the page size was not known and the file was too short to tell it before.
    ///
    /// # Errors
    /// [`DeltaError::Truncated`] if the file is not whole, [`DeltaError::Size`] if its page size cannot be told.
    pub fn finish<E: From<DeltaError>>(mut self, page: OnSlice<'_, E>) -> Result<DeltaSummary, E> {
        if self.cluster.is_none() {
            self.infer(page)?;
        }
        let part = match &self.cluster {
            Some(Cluster { place: Place::End, page_size, .. }) => {
                return Ok(DeltaSummary { page_size: *page_size, pages: self.pages, max_page: self.previous });
            }
            Some(Cluster { place: Place::Page { .. }, .. }) => "a page",
            _ => "the header of a cluster",
        };
        Err(DeltaError::Truncated { at: self.position, part }.into())
    }

    /// Tells the page size from the beginning of the file, and parses that.
    fn infer<E: From<DeltaError>>(&mut self, page: OnSlice<'_, E>) -> Result<(), E> {
        let head = std::mem::take(&mut self.unsized_head);
        self.cluster = Some(Cluster::new(infer_page_size(&head)?));
        self.advance(&head, page)
    }

    fn advance<E: From<DeltaError>>(&mut self, mut bytes: &[u8], page: OnSlice<'_, E>) -> Result<(), E> {
        let Some(cluster) = &mut self.cluster else { return Ok(()) };
        let size = cluster.page_size.bytes();
        while !bytes.is_empty() {
            let taken = match cluster.place {
                Place::Header { filled } => {
                    let taken = bytes.len().min(size - filled);
                    cluster.header[filled..filled + taken].copy_from_slice(&bytes[..taken]);
                    cluster.place = Place::Header { filled: filled + taken };
                    if filled + taken == size {
                        cluster.open(&mut self.previous, &mut self.pages)?;
                    }
                    taken
                }
                Place::Page { index, count, offset, last } => {
                    let taken = bytes.len().min(size - offset);
                    page(PageNo(cluster.number(index)), offset, &bytes[..taken])?;
                    cluster.place = if offset + taken < size {
                        Place::Page { index, count, offset: offset + taken, last }
                    } else if index < count {
                        Place::Page { index: index + 1, count, offset: 0, last }
                    } else if last {
                        Place::End
                    } else {
                        Place::Header { filled: 0 }
                    };
                    taken
                }
                Place::End => return Err(DeltaError::Trailing { at: self.position }.into()),
            };
            bytes = &bytes[taken..];
            self.position += taken as u64;
            if let Place::Header { filled: 0 } = cluster.place {
                cluster.at = self.position;
            }
        }
        Ok(())
    }
}

impl Cluster {
    fn new(page_size: PageSize) -> Cluster {
        Cluster {
            page_size,
            header: vec![0; page_size.bytes()].into_boxed_slice(),
            at: 0,
            place: Place::Header { filled: 0 },
        }
    }

    /// Page number in slot `index` of the header block.
    fn number(&self, index: u32) -> u32 {
        u32_at(&self.header, index as usize * 4).unwrap_or(TERMINATOR)
    }

    /// Checks the header block, which is whole, and goes to the first page.
    fn open(&mut self, previous: &mut Option<PageNo>, pages: &mut u32) -> Result<(), DeltaError> {
        let slots = (self.page_size.bytes() / 4 - 1) as u32;
        let last = match [self.header[0], self.header[1], self.header[2], self.header[3]] {
            MORE => false,
            LAST => true,
            found => return Err(DeltaError::Magic { at: self.at, found }),
        };
        let mut count = 0;
        while count < slots && self.number(count + 1) != TERMINATOR {
            let found = PageNo(self.number(count + 1));
            if let Some(previous) = *previous
                && found <= previous
            {
                return Err(DeltaError::Order { at: self.at, previous, found });
            }
            *previous = Some(found);
            count += 1;
        }
        if !last && count < slots {
            return Err(DeltaError::Short { at: self.at, expected: slots, found: count });
        }
        // Ascending numbers are at most 2^32 - 1 many.
        *pages += count;
        self.place = if count == 0 { Place::End } else { Place::Page { index: 1, count, offset: 0, last } };
        Ok(())
    }
}

/// Tells the physical page size of a delta from its beginning: the whole file, or `INFER_BYTES` of it.
///
/// The first page holds its own number, and that number stands first in the list of the header block: only behind a header
/// of the right length are the two equal. Page 0 could be taken for the zeros at the end of a longer header block, but a page
/// with LSN 0 is in no delta. An empty delta is one header block, as long as a page.
fn infer_page_size(head: &[u8]) -> Result<PageSize, DeltaError> {
    let Some(first) = u32_at(head, 4) else {
        return Err(DeltaError::Truncated { at: head.len() as u64, part: "the header of a cluster" });
    };
    let fits = |size: usize| {
        if first == TERMINATOR {
            return head.len() == size;
        }
        let lsn = head.get(size + 16..size + 24).is_some_and(|lsn| lsn.iter().any(|byte| *byte != 0));
        u32_at(head, size + 4) == Some(first) && lsn
    };
    let mut fitting = SIZES.into_iter().filter(|size| fits(*size as usize)).filter_map(PageSize::new);
    match (fitting.next(), fitting.count()) {
        (Some(size), 0) => Ok(size),
        (None, _) => Err(DeltaError::Size { found: 0 }),
        (Some(_), more) => Err(DeltaError::Size { found: more + 1 }),
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}

/// Writes a `.delta` file, for simulations and tests. `pages` ascend, and each holds `page_size` bytes.
pub fn write_delta(page_size: PageSize, pages: &[(PageNo, &[u8])]) -> Vec<u8> {
    let slots = page_size.bytes() / 4 - 1;
    let mut file = Vec::new();
    let mut rest = pages;
    loop {
        let (now, later) = rest.split_at(rest.len().min(slots));
        let begin = file.len();
        file.extend_from_slice(if later.is_empty() { &LAST } else { &MORE });
        for (number, _) in now {
            file.extend_from_slice(&number.0.to_be_bytes());
        }
        if now.len() < slots {
            file.extend_from_slice(&TERMINATOR.to_be_bytes());
        }
        file.resize(begin + page_size.bytes(), 0);
        for (_, page) in now {
            file.extend_from_slice(page);
        }
        if later.is_empty() {
            return file;
        }
        rest = later;
    }
}

/// What a `.meta` file says of the `.delta` beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeltaMeta {
    /// Size of the pages in the delta: the physical one, also for `ROW_FORMAT=COMPRESSED`.
    pub page_size: PageSize,
    /// Size of a compressed page, for `ROW_FORMAT=COMPRESSED` only.
    pub zip_size: Option<PageSize>,
    /// The tablespace.
    pub space_id: SpaceId,
}

/// A `.meta` file that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MetaError {
    /// The file is longer than any.
    #[error("meta file of {found} bytes; at most {META_BYTES_MAX} are possible")]
    TooLong {
        /// Its length.
        found: usize,
    },
    /// The file is not text.
    #[error("meta file is not text")]
    NotText,
    /// A line is missing or comes twice.
    #[error("meta file has {found} lines {key:?}, expected one")]
    Lines {
        /// The key.
        key: &'static str,
        /// How many there are.
        found: usize,
    },
    /// A number is none.
    #[error("meta file has {key} = {found:?}, expected a number")]
    Number {
        /// The key.
        key: &'static str,
        /// What stands there.
        found: String,
        /// Why it is none.
        source: ParseIntError,
    },
    /// A size that no page has.
    #[error("meta file has {key} = {found}, which is no page size")]
    Size {
        /// The key.
        key: &'static str,
        /// The size.
        found: u32,
    },
    /// The two sizes contradict each other.
    #[error("meta file has page_size = {page_size} and zip_size = {zip_size}, expected equal sizes")]
    Sizes {
        /// The page size.
        page_size: u32,
        /// The compressed page size.
        zip_size: u32,
    },
}

impl Diagnose for MetaError {
    fn kind(&self) -> Kind {
        Kind::Corrupt
    }
}

impl DeltaMeta {
    /// Parses a `.meta` file: lines `page_size = 16384`, `zip_size = 0`, `space_id = 9`, with blanks anywhere.
    ///
    /// # Errors
    /// [`MetaError`] if a line is missing or its value impossible. Unknown lines are passed over.
    pub fn parse(bytes: &[u8]) -> Result<DeltaMeta, MetaError> {
        if bytes.len() > META_BYTES_MAX {
            return Err(MetaError::TooLong { found: bytes.len() });
        }
        let text = std::str::from_utf8(bytes).map_err(|_| MetaError::NotText)?;
        let page_size = meta_number(text, "page_size")?;
        let zip_size = meta_number(text, "zip_size")?;
        let size = |key, found| PageSize::new(found).ok_or(MetaError::Size { key, found });
        if zip_size != 0 && zip_size != page_size {
            return Err(MetaError::Sizes { page_size, zip_size });
        }
        Ok(DeltaMeta {
            page_size: size("page_size", page_size)?,
            zip_size: if zip_size == 0 { None } else { Some(size("zip_size", zip_size)?) },
            space_id: SpaceId(meta_number(text, "space_id")?),
        })
    }

    /// The text of the file, as the tool writes it.
    pub fn to_text(&self) -> String {
        let zip_size = self.zip_size.map_or(0, u32::from);
        format!("page_size = {}\nzip_size = {zip_size} \nspace_id = {}\n", u32::from(self.page_size), self.space_id)
    }
}

fn meta_number(text: &str, key: &'static str) -> Result<u32, MetaError> {
    let values: Vec<&str> = text
        .lines()
        .filter_map(|line| line.split_once('='))
        .filter(|(name, _)| name.trim() == key)
        .map(|(_, value)| value.trim())
        .collect();
    let [value] = values[..] else { return Err(MetaError::Lines { key, found: values.len() }) };
    value.parse().map_err(|source| MetaError::Number { key, found: value.to_owned(), source })
}

#[cfg(test)]
#[path = "delta_tests.rs"]
mod tests;
