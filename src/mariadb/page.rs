//! InnoDB pages: what page 0 says of its tablespace, and whether a page is as it was written.
//!
//! Every page that can be checked without keys and without decompression is. The rules are those of the server and of
//! `mariadb-backup`; where these accept a page that nothing protects (`innodb_checksum_algorithm=none`, a page compressed the
//! old way), the verdict says so and does not call it good. All integers are big-endian.
//!
//! Source: MariaDB `storage/innobase/buf/buf0buf.cc` (`buf_page_is_corrupted`), `buf/buf0checksum.cc`, `page/page0zip.cc`
//! (`page_zip_verify_checksum`), `fil/fil0crypt.cc` (`fil_space_verify_crypt_checksum`), `include/fsp0types.h`,
//! `extra/mariabackup/fil_cur.cc` (`page_is_corrupted`).

use std::ops::Range;

use super::page_checksum as checksum;
use crate::{
    error::{Diagnose, Kind},
    model::{Lsn, PageNo, PageSize, SpaceId},
};

/// `FIL_PAGE_SPACE_OR_CHKSUM`, in the full_crc32 form the key version.
const CHECKSUM: usize = 0;
const PAGE_NO: usize = 4;
const LSN: usize = 16;
const TYPE: usize = 24;
/// `FIL_PAGE_FILE_FLUSH_LSN_OR_KEY_VERSION`: the key version of a page encrypted in the legacy form.
const KEY_VERSION: usize = 26;
/// Checksum over the ciphertext of a page encrypted in the legacy form.
const CRYPT_CHECKSUM: usize = 30;
const SPACE_ID: usize = 34;
const FSP_SPACE_ID: usize = 38;
const FSP_SIZE: usize = 46;
const FSP_FREE_LIMIT: usize = 50;
const FSP_SPACE_FLAGS: usize = 54;
/// `FIL_PAGE_PAGE_COMPRESSED`.
const PAGE_COMPRESSED: u16 = 34354;
/// `FIL_PAGE_PAGE_COMPRESSED_ENCRYPTED`.
const PAGE_COMPRESSED_ENCRYPTED: u16 = 37401;
/// Begins the crypt data of page 0 (`CRYPT_MAGIC` in `fil0crypt.h`).
const CRYPT_MAGIC: &[u8; 6] = b"s\x0e\x0cREt";
/// First extent descriptor of a descriptor page (`XDES_ARR_OFFSET`).
const DESCRIPTORS: usize = 150;
/// The page bitmap of an extent descriptor (`XDES_BITMAP`): two bits for each page, the first set when the page is free.
const DESCRIPTOR_BITMAP: usize = 24;

static ZEROES: [u8; 65536] = [0; 65536];

/// Flags of a tablespace (`FSP_SPACE_FLAGS`), known to be possible.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpaceFlags(u32);

/// Page 0 that is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Page0Error {
    /// There are too few bytes to tell.
    #[error("page 0 has {found} bytes, expected {expected}")]
    Truncated {
        /// Bytes needed.
        expected: usize,
        /// Bytes there.
        found: usize,
    },
    /// The flags describe no tablespace.
    #[error("tablespace flags {found:#010x} are impossible")]
    Flags {
        /// The flags.
        found: u32,
    },
}

impl Diagnose for Page0Error {
    fn kind(&self) -> Kind {
        Kind::Corrupt
    }
}

impl SpaceFlags {
    /// Accepts flags whose page sizes InnoDB has.
    pub fn new(bits: u32) -> Option<SpaceFlags> {
        let flags = SpaceFlags(bits);
        let logical = size_of_shift(flags.logical_shift())?;
        match flags.zip_shift() {
            0 => (logical.bytes() >= 4096).then_some(flags),
            shift => (size_of_shift(shift)?.bytes() <= logical.bytes()).then_some(flags),
        }
    }

    /// Reads the flags from the first 58 bytes of page 0.
    ///
    /// # Errors
    /// [`Page0Error`] if there are fewer bytes, or the flags are impossible.
    pub fn from_page0(page0: &[u8]) -> Result<SpaceFlags, Page0Error> {
        let expected = FSP_SPACE_FLAGS + 4;
        let found = u32_at(page0, FSP_SPACE_FLAGS).ok_or(Page0Error::Truncated { expected, found: page0.len() })?;
        SpaceFlags::new(found).ok_or(Page0Error::Flags { found })
    }

    /// The flags as they are stored.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// True for tablespaces of `innodb_checksum_algorithm=full_crc32`, whose pages end with a CRC-32C over all of them.
    pub const fn full_crc32(self) -> bool {
        self.0 & 0x10 != 0
    }

    /// True when the tablespace can hold pages of `PAGE_COMPRESSED=1`.
    pub const fn page_compressed(self) -> bool {
        if self.full_crc32() { self.0 & 0xe0 != 0 } else { self.0 & 0x1_0000 != 0 }
    }

    /// Size of a page in the buffer pool: `innodb_page_size`.
    pub fn logical_size(self) -> PageSize {
        // `new` has seen that the shift gives a size.
        size_of_shift(self.logical_shift()).unwrap_or(DEFAULT_SIZE)
    }

    /// Size of a compressed page, for `ROW_FORMAT=COMPRESSED` only.
    pub fn zip_size(self) -> Option<PageSize> {
        if self.zip_shift() == 0 { None } else { size_of_shift(self.zip_shift()) }
    }

    /// Size of a page in the file.
    pub fn physical_size(self) -> PageSize {
        self.zip_size().unwrap_or_else(|| self.logical_size())
    }

    /// Offset of the crypt data in page 0, right behind the extent descriptors.
    ///
    /// `FSP_HEADER_OFFSET + fsp_header_get_encryption_offset()`, and that function counts the header once more.
    fn crypt_offset(self) -> usize {
        let pages = extent_pages(self.logical_size());
        FSP_SPACE_ID + DESCRIPTORS + descriptor_bytes(pages) * (self.physical_size().bytes() / pages as usize)
    }

    const fn logical_shift(self) -> u32 {
        match (self.full_crc32(), self.0 & 15, self.0 >> 6 & 15) {
            (true, shift, _) => shift,
            (false, _, 0) => 5,
            (false, _, shift) => shift,
        }
    }

    const fn zip_shift(self) -> u32 {
        if self.full_crc32() { 0 } else { self.0 >> 1 & 15 }
    }
}

/// 16 KiB.
const DEFAULT_SIZE: PageSize = match PageSize::new(16384) {
    Some(size) => size,
    None => unreachable!(),
};

/// The page size 512 · 2^shift.
fn size_of_shift(shift: u32) -> Option<PageSize> {
    PageSize::new(512_u32.checked_shl(shift)?)
}

/// Pages of an InnoDB extent (`FSP_EXTENT_SIZE`): 1 MiB, and 64 pages where these are longer than 16 KiB.
fn extent_pages(logical: PageSize) -> u32 {
    (1_048_576 / u32::from(logical)).max(64)
}

/// Bytes of an extent descriptor (`XDES_SIZE`).
const fn descriptor_bytes(extent_pages: u32) -> usize {
    DESCRIPTOR_BITMAP + (extent_pages as usize * 2).div_ceil(8)
}

/// Whether pages of a tablespace can be encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Crypt {
    /// Page 0 was not seen.
    Unknown,
    /// Page 0 holds no crypt data.
    Absent,
    /// Page 0 holds crypt data: each page is encrypted or not.
    Present,
}

/// What page 0 of a tablespace says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page0 {
    /// The tablespace.
    pub space_id: SpaceId,
    /// Length of the tablespace in pages (`FSP_SIZE`), of all its files together.
    pub size_pages: u32,
    /// Pages from here on were never used (`FSP_FREE_LIMIT`).
    pub free_limit: PageNo,
    /// Flags of the tablespace.
    pub flags: SpaceFlags,
    /// [`Crypt::Absent`] or [`Crypt::Present`].
    pub crypt: Crypt,
}

impl Page0 {
    /// Parses page 0, which is never encrypted or compressed; bytes behind it are passed over.
    ///
    /// # Errors
    /// [`Page0Error`] if the bytes are no whole page 0. The page's checksum is not looked at.
    pub fn parse(page0: &[u8]) -> Result<Page0, Page0Error> {
        let flags = SpaceFlags::from_page0(page0)?;
        let expected = flags.physical_size().bytes();
        let truncated = Page0Error::Truncated { expected, found: page0.len() };
        let page0 = page0.get(..expected).ok_or(truncated)?;
        let field = |at| u32_at(page0, at).ok_or(truncated);
        let crypt = page0.get(flags.crypt_offset()..).is_some_and(|data| data.starts_with(CRYPT_MAGIC));
        Ok(Page0 {
            space_id: SpaceId(field(FSP_SPACE_ID)?),
            size_pages: field(FSP_SIZE)?,
            free_limit: PageNo(field(FSP_FREE_LIMIT)?),
            flags,
            crypt: if crypt { Crypt::Present } else { Crypt::Absent },
        })
    }
}

/// True for the file of an undo tablespace, by its path in the datadir: `undo001` and on.
pub fn is_undo_file(path: &str) -> bool {
    path.strip_prefix("undo").is_some_and(|rest| rest.len() == 3 && rest.bytes().all(|byte| byte.is_ascii_digit()))
}

/// LSN of the newest change in a page: bytes 16..24 (`FIL_PAGE_LSN`), readable in encrypted pages too; 0 if there are fewer.
pub fn page_lsn(page: &[u8]) -> Lsn {
    Lsn(page.get(LSN..).and_then(|lsn| lsn.first_chunk()).map_or(0, |lsn| u64::from_be_bytes(*lsn)))
}

/// Number that a page gives itself (`FIL_PAGE_OFFSET`), in the whole tablespace; none if there are too few bytes.
pub fn page_no(page: &[u8]) -> Option<PageNo> {
    u32_at(page, PAGE_NO).map(PageNo)
}

/// Tablespace that a page says it is of; meaningless in a page encrypted in the full_crc32 form.
pub fn page_space_id(page: &[u8]) -> Option<SpaceId> {
    u32_at(page, SPACE_ID).map(SpaceId)
}

/// Numbers of the pages that a descriptor page calls allocated, counted from the descriptor page itself.
///
/// Descriptor pages are those whose number is a multiple of the physical page size. Pages at and beyond the free limit are
/// called allocated too, since nothing was written for them: the caller leaves them out.
pub fn allocated_pages(flags: SpaceFlags, descriptor_page: &[u8]) -> impl Iterator<Item = u32> + '_ {
    let pages = extent_pages(flags.logical_size());
    let count = u32::from(flags.physical_size());
    (0..count).filter(move |index| {
        let (extent, bit) = ((index / pages) as usize, (index % pages) as usize * 2);
        let at = DESCRIPTORS + extent * descriptor_bytes(pages) + DESCRIPTOR_BITMAP + bit / 8;
        descriptor_page.get(at).is_some_and(|byte| byte >> (bit % 8) & 1 == 0)
    })
}

/// [`allocated_pages`] of a page that calls itself a descriptor page (`FIL_PAGE_TYPE_FSP_HDR`, `FIL_PAGE_TYPE_XDES`); none
/// of any other.
pub fn described_pages(format: &SpaceFormat, page: &[u8]) -> Vec<u32> {
    let kind = page.get(TYPE..TYPE + 2);
    match (format.flags, kind) {
        (Some(flags), Some([0, 8 | 9])) => allocated_pages(flags, page).collect(),
        _ => Vec::new(),
    }
}

/// How the pages of one file are to be checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpaceFormat {
    page_size: PageSize,
    form: Form,
    crypt: Crypt,
    /// The doublewrite buffer's pages, which hold copies of others, torn ones too.
    doublewrite: Range<u32>,
    /// Flags, where page 0 was seen.
    flags: Option<SpaceFlags>,
    /// False in the system tablespace, whose files count on from each other and whose oldest pages hold garbage.
    numbered: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    FullCrc32,
    Legacy {
        zip: bool,
        page_compressed: bool,
    },
    /// One of the two, not `ROW_FORMAT=COMPRESSED`.
    Unknown,
}

impl SpaceFormat {
    /// The format of a tablespace whose page 0 was seen.
    pub fn of(page0: &Page0) -> SpaceFormat {
        SpaceFormat::new(page0.space_id, page0.flags, page0.crypt)
    }

    /// The format of a tablespace with these flags.
    pub fn new(space: SpaceId, flags: SpaceFlags, crypt: Crypt) -> SpaceFormat {
        let form = if flags.full_crc32() {
            Form::FullCrc32
        } else {
            Form::Legacy { zip: flags.zip_size().is_some(), page_compressed: flags.page_compressed() }
        };
        SpaceFormat { flags: Some(flags), ..SpaceFormat::build(space, flags.physical_size(), form, crypt) }
    }

    /// The format as far as a `.meta` file tells it: all checksums are tried, and a page that fits one is good.
    pub fn assumed(space: SpaceId, page_size: PageSize, zip_size: Option<PageSize>) -> SpaceFormat {
        let form = match zip_size {
            Some(_) => Form::Legacy { zip: true, page_compressed: false },
            None => Form::Unknown,
        };
        SpaceFormat::build(space, zip_size.unwrap_or(page_size), form, Crypt::Unknown)
    }

    fn build(space: SpaceId, page_size: PageSize, form: Form, crypt: Crypt) -> SpaceFormat {
        let system = space == SpaceId(0);
        let extent = extent_pages(page_size);
        SpaceFormat {
            page_size,
            form,
            crypt,
            doublewrite: if system { extent..extent * 3 } else { 0..0 },
            flags: None,
            numbered: !system,
        }
    }

    /// The format of the second and later files of the same tablespace, `ibdata2` and on.
    pub fn continued(mut self) -> SpaceFormat {
        self.doublewrite = 0..0;
        self
    }

    /// Size of a page in the file.
    pub fn page_size(&self) -> PageSize {
        self.page_size
    }
}

/// What a check says of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageVerdict {
    /// All bytes are zero: never written, or freed.
    Zero,
    /// A checksum of the page is right.
    Good,
    /// Nothing in the page protects it, so nothing can be said without keys or decompression.
    Unverifiable(Unprotected),
    /// The page is not what the server wrote.
    Bad(PageFault),
}

/// Why a page cannot be checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unprotected {
    /// It is in the doublewrite buffer.
    Doublewrite,
    /// `PAGE_COMPRESSED=1` in the legacy form has no checksum on disk.
    PageCompressed,
    /// Compressed and then encrypted, in the legacy form.
    PageCompressedEncrypted,
    /// Written with `innodb_checksum_algorithm=none`, or before there were checksums.
    NoChecksum,
}

/// What is wrong with a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PageFault {
    /// It has not the length of a page.
    #[error("{found} bytes long, expected {expected}")]
    Length {
        /// The page size.
        expected: usize,
        /// Its length.
        found: usize,
    },
    /// It is another page.
    #[error("calls itself page {found}, expected page {expected}")]
    Number {
        /// Number by its place.
        expected: PageNo,
        /// Number that it gives itself.
        found: PageNo,
    },
    /// It is another tablespace's page.
    #[error("calls itself a page of tablespace {found}, expected {expected}")]
    Space {
        /// The tablespace whose file it is in.
        expected: SpaceId,
        /// The one that it names.
        found: SpaceId,
    },
    /// Its checksum is wrong.
    #[error("checksum is {found:08x}, expected {expected:08x}")]
    Checksum {
        /// Checksum that the page holds.
        expected: u32,
        /// Checksum of its bytes.
        found: u32,
    },
    /// The LSNs at its head and its foot differ: a torn page.
    #[error("LSN at the end has the low half {found:08x}, expected {expected:08x}")]
    EndLsn {
        /// Low half of the LSN at the head.
        expected: u32,
        /// What stands at the foot.
        found: u32,
    },
    /// It gives itself a compressed length that no page has.
    #[error("compressed length is {found}, expected less than {limit}")]
    CompressedLength {
        /// The page size.
        limit: usize,
        /// The length.
        found: usize,
    },
}

impl Diagnose for PageFault {
    fn kind(&self) -> Kind {
        Kind::Corrupt
    }

    fn hint(&self) -> Option<String> {
        Some(
            "run CHECK TABLE on the table, and test the server's disk and memory; older backups are not affected"
                .into(),
        )
    }
}

/// Checks page `number` of a file. An LSN beyond the backup's last is for the caller to notice.
///
/// Cost: one comparison with zeros that ends at the first other byte, and one pass of CRC-32C.
pub fn check_page(format: &SpaceFormat, number: PageNo, page: &[u8]) -> PageVerdict {
    let expected = format.page_size.bytes();
    if page.len() != expected {
        return PageVerdict::Bad(PageFault::Length { expected, found: page.len() });
    }
    if page == &ZEROES[..expected] {
        return PageVerdict::Zero;
    }
    let found = PageNo(field(page, PAGE_NO));
    if format.numbered && found != number {
        return PageVerdict::Bad(PageFault::Number { expected: number, found });
    }
    if format.doublewrite.contains(&number.0) {
        return PageVerdict::Unverifiable(Unprotected::Doublewrite);
    }
    match format.form {
        Form::FullCrc32 => full_crc32(page).map_or_else(PageVerdict::Bad, |()| PageVerdict::Good),
        Form::Legacy { zip, page_compressed } => legacy(page, number, zip, page_compressed, format.crypt),
        Form::Unknown => match full_crc32(page) {
            Ok(()) => PageVerdict::Good,
            Err(_) => legacy(page, number, false, true, format.crypt),
        },
    }
}

/// The checksum of the full_crc32 form stands behind the page, or behind its compressed part; it covers the ciphertext.
/// Checks that a page whose checksum is right is one of tablespace `space`, as the server does when it reads one
/// (`buf_page_t::read_complete`).
///
/// # Errors
/// [`PageFault::Space`]. Old pages of the system tablespace hold garbage there; of encrypted and of compressed pages
/// only the server knows what they hold. None of these is checked.
pub fn check_page_space(format: &SpaceFormat, space: SpaceId, page: &[u8]) -> Result<(), PageFault> {
    let found = SpaceId(field(page, SPACE_ID));
    if found == space || !format.numbered {
        return Ok(());
    }
    let full = || field(page, CHECKSUM) != 0 || field16(page, TYPE) & 0x8000 != 0;
    let legacy = || field(page, KEY_VERSION) != 0;
    let opaque = match format.form {
        Form::FullCrc32 => full(),
        Form::Legacy { .. } => legacy(),
        Form::Unknown => full() || legacy(),
    };
    if opaque { Ok(()) } else { Err(PageFault::Space { expected: space, found }) }
}

fn full_crc32(page: &[u8]) -> Result<(), PageFault> {
    let kind = field16(page, TYPE);
    let compressed = kind & 0x8000 != 0;
    let mut len = page.len();
    if compressed {
        let found = usize::from(kind & 0x7fff) << 8;
        // Less than 256 bytes would not even hold the header.
        if found == 0 || found >= len {
            return Err(PageFault::CompressedLength { limit: len, found });
        }
        len = found;
    }
    let expected = field(page, len - 4);
    let found = crc32c::crc32c(&page[..len - 4]);
    if expected != found {
        return Err(PageFault::Checksum { expected, found });
    }
    if !compressed && field(page, CHECKSUM) == 0 {
        return end_lsn(page, len - 8);
    }
    Ok(())
}

fn legacy(page: &[u8], number: PageNo, zip: bool, page_compressed: bool, crypt: Crypt) -> PageVerdict {
    let kind = field16(page, TYPE);
    // Page 0 is never encrypted, and holds another LSN there.
    if number != PageNo(0) && crypt != Crypt::Absent && field(page, KEY_VERSION) != 0 {
        if kind == PAGE_COMPRESSED_ENCRYPTED {
            return PageVerdict::Unverifiable(Unprotected::PageCompressedEncrypted);
        }
        match field(page, CRYPT_CHECKSUM) {
            stored if checksum::protects(page, zip, stored) => return PageVerdict::Good,
            checksum::NONE => return PageVerdict::Unverifiable(Unprotected::NoChecksum),
            // A page of a spatial index holds its split sequence number here, and is not encrypted.
            _ => {}
        }
    }
    if page_compressed && (kind == PAGE_COMPRESSED || kind == PAGE_COMPRESSED_ENCRYPTED) {
        return PageVerdict::Unverifiable(Unprotected::PageCompressed);
    }
    if zip { legacy_zip(page) } else { legacy_plain(page) }
}

fn legacy_zip(page: &[u8]) -> PageVerdict {
    match field(page, CHECKSUM) {
        stored if checksum::protects(page, true, stored) => PageVerdict::Good,
        checksum::NONE => PageVerdict::Unverifiable(Unprotected::NoChecksum),
        expected => PageVerdict::Bad(PageFault::Checksum { expected, found: checksum::zip_crc32(page) }),
    }
}

/// A page has a checksum at its head and one, of any algorithm, at its foot.
fn legacy_plain(page: &[u8]) -> PageVerdict {
    if let Err(fault) = end_lsn(page, page.len() - 4) {
        return PageVerdict::Bad(fault);
    }
    let (head, foot) = (field(page, CHECKSUM), field(page, page.len() - 8));
    let crc32 = checksum::crc32(page);
    if head == crc32 && foot == crc32 {
        return PageVerdict::Good;
    }
    let blank = |range: Range<usize>| page[range.clone()] == ZEROES[range];
    if head == 0 && foot == 0 && blank(0..KEY_VERSION) && blank(SPACE_ID..page.len()) {
        // Before MariaDB 10.1.25 shutdown wrote an LSN into the first page of each file, also into an empty one.
        return PageVerdict::Zero;
    }
    let foot_fits = foot == field(page, LSN) || foot == checksum::NONE || foot == checksum::fold_head(page);
    match head {
        0 | checksum::NONE if foot_fits => PageVerdict::Unverifiable(Unprotected::NoChecksum),
        _ if foot_fits && head == checksum::fold_page(page) => PageVerdict::Good,
        expected => PageVerdict::Bad(PageFault::Checksum { expected, found: crc32 }),
    }
}

/// The low half of the LSN stands at the page's foot too.
fn end_lsn(page: &[u8], at: usize) -> Result<(), PageFault> {
    let (expected, found) = (field(page, LSN + 4), field(page, at));
    if expected == found { Ok(()) } else { Err(PageFault::EndLsn { expected, found }) }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}

/// The number at `at` of a page whose length was checked.
fn field(page: &[u8], at: usize) -> u32 {
    u32_at(page, at).unwrap_or(0)
}

fn field16(page: &[u8], at: usize) -> u16 {
    page.get(at..).and_then(|bytes| bytes.first_chunk()).map_or(0, |bytes| u16::from_be_bytes(*bytes))
}

#[cfg(test)]
#[path = "page_tests.rs"]
mod tests;
