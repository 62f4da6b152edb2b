//! Pages of InnoDB.

use haulout::{
    mariadb::page::{
        Crypt, Page0, PageVerdict, SpaceFlags, SpaceFormat, allocated_pages, check_page, check_page_space,
        described_pages, page_lsn, page_no, page_space_id,
    },
    model::{PageNo, PageSize, SpaceId},
};

/// Flag of the first byte: the page is brought to its right length.
const FIT: u8 = 0x10;
/// Flag of the first byte: the page gets the number it is asked for under.
const NUMBER: u8 = 0x20;
/// Flag of the first byte: the page gets the checksum of the full_crc32 form.
const CHECKSUM: u8 = 0x40;
/// Flag of the first byte: the page is of a second file of its tablespace.
const CONTINUED: u8 = 0x80;

/// Eight bytes tell how the page is to be read: flags, tablespace, page number (two bytes), flags of the tablespace (four).
pub fn check(input: &[u8]) {
    let Some((head, page)) = input.split_first_chunk::<8>() else { return };
    let [how, space, high, low, flags @ ..] = *head;
    let (space, number) = (SpaceId(space.into()), PageNo(u16::from_be_bytes([high, low]).into()));
    let flags = u32::from_be_bytes(flags);
    let page0 = Page0::parse(page);
    let format = match how & 0x0f {
        0..4 => page0.map(|page0| SpaceFormat::of(&page0)).ok(),
        4 => SpaceFlags::new(flags).map(|flags| SpaceFormat::new(space, flags, Crypt::Unknown)),
        5 => SpaceFlags::new(flags).map(|flags| SpaceFormat::new(space, flags, Crypt::Absent)),
        6 => SpaceFlags::new(flags).map(|flags| SpaceFormat::new(space, flags, Crypt::Present)),
        7..12 => size(flags).map(|size| SpaceFormat::assumed(space, size, None)),
        _ => size(flags).map(|size| SpaceFormat::assumed(space, size, Some(size))),
    };
    let Some(format) = format else { return };
    let format = if how & CONTINUED != 0 { format.continued() } else { format };
    if let Some(flags) = SpaceFlags::new(flags) {
        let allocated = allocated_pages(flags, page).last();
        assert!(allocated.is_none_or(|last| last < u32::from(flags.physical_size())));
    }
    let mut page = page.to_vec();
    if how & FIT != 0 {
        page.resize(format.page_size().bytes(), 0);
    }
    if how & NUMBER != 0 && page.len() >= 8 {
        page[4..8].copy_from_slice(&number.0.to_be_bytes());
    }
    if how & CHECKSUM != 0 && page.len() >= 64 {
        let at = page.len() - 4;
        let (low_lsn, crc_at) = ([page[20], page[21], page[22], page[23]], at);
        page[at - 4..at].copy_from_slice(&low_lsn);
        let crc = crc32c::crc32c(&page[..crc_at]);
        page[crc_at..].copy_from_slice(&crc.to_be_bytes());
    }
    one(&format, space, number, &page);
}

fn size(flags: u32) -> Option<PageSize> {
    PageSize::new(1024 << (flags % 7))
}

fn one(format: &SpaceFormat, space: SpaceId, number: PageNo, page: &[u8]) {
    let verdict = check_page(format, number, page);
    let _ = (check_page_space(format, space, page), page_lsn(page), page_no(page), page_space_id(page));
    assert!(described_pages(format, page).is_sorted());
    if verdict == PageVerdict::Good {
        // Every checksum covers these bytes, that of the shortest compressed page too.
        let changed = super::flipped(page, 40..248);
        let verdict = check_page(format, number, &changed);
        assert!(!matches!(verdict, PageVerdict::Good | PageVerdict::Zero), "a flipped bit passes: {verdict:?}");
    }
}
