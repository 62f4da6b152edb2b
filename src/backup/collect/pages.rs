//! Cuts InnoDB files into extents.

use std::sync::Arc;

use crossbeam_channel::bounded;

use super::files::PlainCutter;
use super::{Origin, Outlets, SpaceBegun, SpaceEnded, Step, StreamFacts, page0_missing};
use crate::backup::BackupError;
use crate::backup::work::{Job, PageJob};
use crate::format::map::SpaceKey;
use crate::mariadb::delta::{DeltaError, DeltaMeta, DeltaParser};
use crate::mariadb::page::{Crypt, Page0, SpaceFlags, SpaceFormat, page_space_id};
use crate::mariadb::xbstream::FileNo;
use crate::model::{EXTENT_PAGES, ExtentNo, PageMask, PageNo, PageSize, SpaceId};

/// Bytes of the smallest page, that of a table with `KEY_BLOCK_SIZE=1`; the flags of any page 0 are among them.
const LEAST_PAGE_BYTES: usize = 1024;

/// Sends the pages of one file to the workers, an extent at a time.
struct ExtentFeed {
    name: Arc<str>,
    key: SpaceKey,
    format: SpaceFormat,
    /// True for a tablespace that is new in an incremental.
    describe: bool,
}

impl ExtentFeed {
    fn send(
        &self,
        file: FileNo,
        extent: ExtentNo,
        pages: PageMask,
        bytes: Vec<u8>,
        facts: &StreamFacts,
        outlets: &Outlets,
    ) -> Result<(), BackupError> {
        let base = match &facts.base {
            Some(base) => base.extent(self.key, extent)?,
            None => Vec::new(),
        };
        let (reply, result) = bounded(1);
        let job = PageJob {
            path: self.name.clone(),
            format: self.format.clone(),
            space: self.key.space,
            extent,
            pages,
            bytes,
            base,
            describe: self.describe,
        };
        // The row of steps is the shorter one: when it is full, this waits, and no job piles up.
        outlets.step(Step::Extent(file, result))?;
        outlets.job(Job::Pages(Box::new(job), reply))
    }
}

/// Cuts a whole InnoDB file.
pub(super) struct WholeCutter {
    origin: Origin,
    name: String,
    /// Place among the system tablespace's files.
    system: Option<u16>,
    /// Begun, once page 0 (or, of a later system file, the first page) is complete.
    feed: Option<ExtentFeed>,
    page0: Option<Page0>,
    /// Bytes of the first page until it has begun.
    head: Vec<u8>,
    /// The extent that is being filled: none, or as long as an extent.
    buffer: Vec<u8>,
    filled: usize,
    extent: ExtentNo,
    position: u64,
}

impl WholeCutter {
    pub(super) fn new(origin: Origin, name: &str, system: Option<u16>) -> WholeCutter {
        WholeCutter {
            origin,
            name: name.to_owned(),
            system,
            feed: None,
            page0: None,
            head: Vec::new(),
            buffer: Vec::new(),
            filled: 0,
            extent: ExtentNo(0),
            position: 0,
        }
    }

    /// What was received before it was clear that the file has no page 0.
    pub(super) fn head(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.head)
    }

    /// Room for the next bytes, once it is clear how long pages are; none for bytes of another `offset`.
    pub(super) fn room(&mut self, offset: u64, outlets: &Outlets) -> Option<&mut [u8]> {
        let extent_bytes = self.feed.as_ref()?.format.page_size().extent_bytes();
        if offset != self.position {
            return None;
        }
        if self.buffer.is_empty() {
            self.buffer = outlets.spare.try_recv().unwrap_or_default();
        }
        self.buffer.resize(extent_bytes, 0);
        Some(&mut self.buffer[self.filled..])
    }

    /// Takes `len` bytes that stand in the room.
    pub(super) fn filled(
        &mut self,
        file: FileNo,
        len: usize,
        facts: &StreamFacts,
        outlets: &Outlets,
    ) -> Result<(), BackupError> {
        self.position += len as u64;
        self.filled += len;
        if self.filled == self.buffer.len() { self.flush(file, facts, outlets) } else { Ok(()) }
    }

    /// Takes bytes. A file whose page 0 is all zero has no space id; it goes on as a plain file, which is returned. Nor does it
    /// say how long its pages are, and others may have been written already.
    pub(super) fn data(
        &mut self,
        file: FileNo,
        offset: u64,
        bytes: &[u8],
        facts: &StreamFacts,
        outlets: &Outlets,
    ) -> Result<Option<Box<PlainCutter>>, BackupError> {
        if offset != self.position {
            return Err(BackupError::OutOfOrder { path: self.name.clone(), expected: self.position, found: offset });
        }
        let mut rest = bytes;
        while !rest.is_empty() && self.feed.is_none() {
            let wanted = self.first_page_bytes(facts);
            let taken = rest.len().min(wanted - self.head.len());
            self.head.extend_from_slice(&rest[..taken]);
            self.position += taken as u64;
            rest = &rest[taken..];
            if self.head.len() < wanted {
                break;
            }
            if self.is_blank() {
                self.head.extend_from_slice(rest);
                return Ok(Some(Box::new(PlainCutter::blank(&self.name, self.origin))));
            }
            if self.head.len() == self.first_page_bytes(facts) {
                self.begin(file, facts, outlets)?;
            }
        }
        if self.feed.is_some() { self.put(file, rest, facts, outlets) } else { Ok(()) }.map(|()| None)
    }

    /// Puts bytes into extents.
    fn put(
        &mut self,
        file: FileNo,
        mut rest: &[u8],
        facts: &StreamFacts,
        outlets: &Outlets,
    ) -> Result<(), BackupError> {
        while !rest.is_empty() {
            let Some(room) = self.room(self.position, outlets) else { break };
            let (now, later) = rest.split_at(rest.len().min(room.len()));
            room[..now.len()].copy_from_slice(now);
            self.filled(file, now.len(), facts, outlets)?;
            rest = later;
        }
        Ok(())
    }

    /// True when page 0 is zero, as far as it has come.
    fn is_blank(&self) -> bool {
        self.system.is_none_or(|part| part == 0) && self.head.iter().all(|byte| *byte == 0)
    }

    /// Bytes of the first page, as far as the bytes so far tell.
    fn first_page_bytes(&self, facts: &StreamFacts) -> usize {
        if self.system.is_some() {
            return facts.page_size.bytes();
        }
        if self.head.len() < LEAST_PAGE_BYTES {
            return LEAST_PAGE_BYTES;
        }
        SpaceFlags::from_page0(&self.head).map_or(facts.page_size, SpaceFlags::physical_size).bytes()
    }

    fn begin(&mut self, file: FileNo, facts: &StreamFacts, outlets: &Outlets) -> Result<(), BackupError> {
        let part = self.system.unwrap_or(0);
        let (space, format) = if part == 0 {
            let page0 =
                Page0::parse(&self.head).map_err(|source| BackupError::Page0 { path: self.name.clone(), source })?;
            self.page0 = Some(page0);
            (page0.space_id, SpaceFormat::of(&page0))
        } else {
            // Only the first file of a system tablespace says how its pages are checked.
            (SpaceId(0), SpaceFormat::assumed(SpaceId(0), facts.page_size, None).continued())
        };
        if self.system.is_some() && space != SpaceId(0) {
            return Err(BackupError::NotSystem { path: self.name.clone(), space });
        }
        if self.system.is_none() && space == SpaceId(0) {
            return Err(BackupError::IsSystem { path: self.name.clone() });
        }
        let page_size = format.page_size();
        let key = SpaceKey { space, part };
        let begun = SpaceBegun { origin: self.origin, name: self.name.clone(), key, page_size };
        outlets.step(Step::BeginSpace(file, begun))?;
        self.feed = Some(ExtentFeed { name: self.name.as_str().into(), key, format, describe: false });
        self.position = 0;
        let head = self.head();
        self.put(file, &head, facts, outlets)
    }

    fn flush(&mut self, file: FileNo, facts: &StreamFacts, outlets: &Outlets) -> Result<(), BackupError> {
        let Some(feed) = &self.feed else { return Ok(()) };
        let pages = self.filled / feed.format.page_size().bytes();
        let mut bytes = std::mem::take(&mut self.buffer);
        bytes.truncate(self.filled);
        self.filled = 0;
        feed.send(file, self.extent, PageMask::first(pages as u32), bytes, facts, outlets)?;
        self.extent = ExtentNo(self.extent.0 + 1);
        Ok(())
    }

    pub(super) fn end(mut self, file: FileNo, facts: &StreamFacts, outlets: &Outlets) -> Result<(), BackupError> {
        if self.feed.is_none() && self.head.iter().any(|byte| *byte != 0) {
            self.begin(file, facts, outlets)?;
        }
        let Some(feed) = &self.feed else {
            // Shorter than a page, or empty: it goes along as it is.
            let mut plain = PlainCutter::blank(&self.name, self.origin);
            plain.begin(file, outlets)?;
            plain.data(file, 0, &self.head, facts, outlets)?;
            return plain.end(file, facts, outlets);
        };
        let page_bytes = feed.format.page_size().bytes() as u64;
        if !self.position.is_multiple_of(page_bytes) {
            return Err(BackupError::PartialPage { path: self.name, bytes: self.position, page_bytes });
        }
        let pages = u32::try_from(self.position / page_bytes).map_err(|_| BackupError::PartialPage {
            path: self.name.clone(),
            bytes: self.position,
            page_bytes,
        })?;
        if self.filled > 0 {
            self.flush(file, facts, outlets)?;
        }
        let page_max = pages.checked_sub(1).map(PageNo);
        outlets.step(Step::EndSpace(file, SpaceEnded { page0: self.page0, pages, page_max }))
    }
}

/// Cuts a `.delta` file.
pub(super) struct DeltaCutter {
    name: String,
    system: Option<u16>,
    meta: Option<DeltaMeta>,
    parser: Option<DeltaParser>,
    pending: Pending,
}

/// Pages of the extent that is being gathered.
struct Pending {
    feed: Option<ExtentFeed>,
    page0: Option<Page0>,
    extent: ExtentNo,
    pages: PageMask,
    bytes: Vec<u8>,
    page_max: Option<PageNo>,
}

/// What pushing bytes into a delta can end with.
enum PushError {
    Delta(DeltaError),
    Backup(BackupError),
}

impl From<DeltaError> for PushError {
    fn from(error: DeltaError) -> PushError {
        PushError::Delta(error)
    }
}

impl From<BackupError> for PushError {
    fn from(error: BackupError) -> PushError {
        PushError::Backup(error)
    }
}

impl DeltaCutter {
    pub(super) fn new(name: &str, meta: Option<DeltaMeta>, system: Option<u16>) -> DeltaCutter {
        let pending = Pending {
            feed: None,
            page0: None,
            extent: ExtentNo(0),
            pages: PageMask::EMPTY,
            bytes: Vec::new(),
            page_max: None,
        };
        let parser = Some(DeltaParser::new(meta.map(|meta| meta.page_size)));
        DeltaCutter { name: name.to_owned(), system, meta, parser, pending }
    }

    pub(super) fn data(
        &mut self,
        file: FileNo,
        bytes: &[u8],
        facts: &StreamFacts,
        outlets: &Outlets,
    ) -> Result<(), BackupError> {
        let DeltaCutter { name, system, meta, parser, pending } = self;
        let Some(parser) = parser else { return Ok(()) };
        let mut on_page = |page: PageNo, offset: usize, bytes: &[u8]| -> Result<(), PushError> {
            let is_next = offset == 0 && page.extent() != pending.extent && !pending.pages.is_empty();
            if is_next {
                pending.flush(file, name, *system, meta.as_ref(), facts, outlets)?;
            }
            pending.take(page, bytes);
            Ok(())
        };
        parser.push(bytes, &mut on_page).map_err(|error| name_error(&self.name, error))
    }

    pub(super) fn end(mut self, file: FileNo, facts: &StreamFacts, outlets: &Outlets) -> Result<(), BackupError> {
        let Some(parser) = self.parser.take() else { return Ok(()) };
        let (name, system, meta) = (&self.name, self.system, self.meta.as_ref());
        let pending = &mut self.pending;
        let mut on_page = |page: PageNo, offset: usize, bytes: &[u8]| -> Result<(), PushError> {
            if offset == 0 && page.extent() != pending.extent && !pending.pages.is_empty() {
                pending.flush(file, name, system, meta, facts, outlets)?;
            }
            pending.take(page, bytes);
            Ok(())
        };
        let summary = parser.finish(&mut on_page).map_err(|error| name_error(name, error))?;
        if !pending.pages.is_empty() {
            pending.flush(file, name, system, meta, facts, outlets)?;
        }
        if pending.feed.is_none() {
            // Not a page changed; without the .meta nobody could tell which tablespace that is said of.
            let meta = meta.ok_or_else(|| BackupError::MetaMissing { path: format!("{name}.delta") })?;
            let key = SpaceKey { space: meta.space_id, part: system.unwrap_or(0) };
            let begun = SpaceBegun { origin: Origin::Delta, name: name.clone(), key, page_size: summary.page_size };
            outlets.step(Step::BeginSpace(file, begun))?;
        }
        let Pending { page0, page_max, .. } = self.pending;
        outlets.step(Step::EndSpace(file, SpaceEnded { page0, pages: 0, page_max }))
    }
}

fn name_error(name: &str, error: PushError) -> BackupError {
    match error {
        PushError::Delta(source) => BackupError::Delta { path: format!("{name}.delta"), source },
        PushError::Backup(error) => error,
    }
}

impl Pending {
    fn take(&mut self, page: PageNo, bytes: &[u8]) {
        self.extent = page.extent();
        self.pages = self.pages.union(PageMask::only(page.index()));
        self.page_max = Some(page);
        self.bytes.extend_from_slice(bytes);
    }

    fn flush(
        &mut self,
        file: FileNo,
        name: &str,
        system: Option<u16>,
        meta: Option<&DeltaMeta>,
        facts: &StreamFacts,
        outlets: &Outlets,
    ) -> Result<(), BackupError> {
        if self.feed.is_none() {
            let page_bytes = self.bytes.len() as u32 / self.pages.len();
            let page_size = PageSize::new(page_bytes).ok_or_else(|| BackupError::PartialPage {
                path: name.to_owned(),
                bytes: self.bytes.len() as u64,
                page_bytes: u64::from(page_bytes),
            })?;
            self.begin(file, name, system, meta, page_size, facts, outlets)?;
        }
        let Some(feed) = &self.feed else { return Ok(()) };
        let bytes = std::mem::replace(&mut self.bytes, Vec::with_capacity(feed.format.page_size().bytes() * 4));
        let pages = std::mem::replace(&mut self.pages, PageMask::EMPTY);
        feed.send(file, self.extent, pages, bytes, facts, outlets)
    }

    #[expect(clippy::too_many_arguments, reason = "private, and a struct would only be unpacked again")]
    fn begin(
        &mut self,
        file: FileNo,
        name: &str,
        system: Option<u16>,
        meta: Option<&DeltaMeta>,
        page_size: PageSize,
        facts: &StreamFacts,
        outlets: &Outlets,
    ) -> Result<(), BackupError> {
        let part = system.unwrap_or(0);
        // Page 0 and pages that are not encrypted tell the tablespace themselves; the `.meta` is compared at the end.
        let space = meta.map(|meta| meta.space_id).or_else(|| page_space_id(&self.bytes)).unwrap_or(SpaceId(0));
        let key = SpaceKey { space, part };
        let has_page0 = part == 0 && self.extent == ExtentNo(0) && self.pages.contains(0);
        let known = facts.base.as_ref().and_then(|base| base.spaces.get(&key));
        let format = if has_page0 {
            let page0 = Page0::parse(&self.bytes[..page_size.bytes()])
                .map_err(|source| BackupError::Page0 { path: name.to_owned(), source })?;
            if page0.space_id != space {
                return Err(BackupError::SpaceMismatch {
                    path: name.to_owned(),
                    expected: space,
                    found: page0.space_id,
                });
            }
            self.page0 = Some(page0);
            SpaceFormat::of(&page0)
        } else if part > 0 {
            SpaceFormat::assumed(SpaceId(0), facts.page_size, None).continued()
        } else {
            let known = known.ok_or_else(|| page0_missing(name))?;
            let crypt = known.encrypted.map_or(Crypt::Unknown, |is| if is { Crypt::Present } else { Crypt::Absent });
            let flags = SpaceFlags::new(known.flags)
                .ok_or_else(|| BackupError::Flags { path: name.to_owned(), flags: known.flags })?;
            SpaceFormat::new(space, flags, crypt)
        };
        // Workers cut what they get by the format.
        if format.page_size() != page_size {
            let (expected, found) = (format.page_size().bytes(), page_size.bytes());
            return Err(BackupError::PageSize { path: name.to_owned(), expected, found });
        }
        let begun = SpaceBegun { origin: Origin::Delta, name: name.to_owned(), key, page_size };
        outlets.step(Step::BeginSpace(file, begun))?;
        self.feed = Some(ExtentFeed { name: name.into(), key, format, describe: known.is_none() && part == 0 });
        Ok(())
    }
}

const _: () = assert!(EXTENT_PAGES == u64::BITS);
