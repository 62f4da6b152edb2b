use proptest::prelude::*;

use super::*;

/// A page that MariaDB 10.11.19 wrote.
struct Sample {
    name: String,
    space: SpaceId,
    flags: SpaceFlags,
    crypt: Crypt,
    number: PageNo,
    bytes: Vec<u8>,
}

/// `testdata/pages.zst`: lines `name;space;flags;encrypted;page number;length`, an empty line, and the pages in that order.
fn samples() -> Vec<Sample> {
    let archive = zstd::decode_all(&include_bytes!("testdata/pages.zst")[..]).unwrap();
    let end = archive.windows(2).position(|bytes| bytes == b"\n\n").unwrap();
    let mut pages = &archive[end + 2..];
    std::str::from_utf8(&archive[..end])
        .unwrap()
        .lines()
        .map(|line| {
            let fields: Vec<&str> = line.split(';').collect();
            let (page, rest) = pages.split_at(fields[5].parse().unwrap());
            pages = rest;
            Sample {
                name: fields[0].to_owned(),
                space: SpaceId(fields[1].parse().unwrap()),
                flags: SpaceFlags::new(fields[2].parse().unwrap()).unwrap(),
                crypt: if fields[3] == "1" { Crypt::Present } else { Crypt::Absent },
                number: PageNo(fields[4].parse().unwrap()),
                bytes: page.to_vec(),
            }
        })
        .collect()
}

fn sample(name: &str) -> Sample {
    samples().into_iter().find(|sample| sample.name == name).unwrap()
}

impl Sample {
    fn format(&self) -> SpaceFormat {
        SpaceFormat::new(self.space, self.flags, self.crypt)
    }

    fn assumed(&self) -> SpaceFormat {
        SpaceFormat::assumed(self.space, self.flags.physical_size(), self.flags.zip_size())
    }

    fn expected(&self) -> PageVerdict {
        match self.name.as_str() {
            "legacy page compressed 4k" => PageVerdict::Unverifiable(Unprotected::PageCompressed),
            "legacy compressed encrypted 4k" => PageVerdict::Unverifiable(Unprotected::PageCompressedEncrypted),
            _ => PageVerdict::Good,
        }
    }
}

#[test]
fn pages_of_all_formats_are_verified_as_far_as_they_can_be() {
    for sample in samples() {
        assert_eq!(check_page(&sample.format(), sample.number, &sample.bytes), sample.expected(), "{}", sample.name);
        assert_eq!(check_page(&sample.assumed(), sample.number, &sample.bytes), sample.expected(), "{}", sample.name);
    }
}

#[test]
fn page_0_tells_size_flags_and_crypt_data() {
    let mut seen = 0;
    for sample in samples().iter().filter(|sample| sample.number == PageNo(0)) {
        let page0 = Page0::parse(&sample.bytes).unwrap();
        assert_eq!(
            (page0.space_id, page0.flags, page0.crypt),
            (sample.space, sample.flags, sample.crypt),
            "{}",
            sample.name
        );
        assert_eq!(page0.flags.physical_size().bytes(), sample.bytes.len(), "{}", sample.name);
        assert!(page0.free_limit.0 > 0 && page0.size_pages > 0, "{}", sample.name);
        assert_eq!(SpaceFormat::of(&page0), sample.format());
        assert!(matches!(Page0::parse(&sample.bytes[..sample.bytes.len() - 1]), Err(Page0Error::Truncated { .. })));
        seen += 1;
    }
    assert_eq!(seen, 14);
    let page0 = Page0::parse(&sample("zip crypt page 0 4k").bytes).unwrap();
    assert_eq!((page0.size_pages, page0.free_limit), (53, PageNo(64)));
    assert!(!page0.flags.full_crc32() && !page0.flags.page_compressed());
    assert_eq!(page0.flags.logical_size().bytes(), 16384);
    assert!(sample("legacy page compressed page 0 4k").flags.page_compressed());
    assert!(sample("full_crc32 page compressed page 0 4k").flags.page_compressed());
}

/// Bytes of a page that its checksum covers.
fn covered(sample: &Sample) -> Vec<usize> {
    let len = sample.bytes.len();
    match sample.name.as_str() {
        name if name.starts_with("full_crc32") => {
            let kind = field16(&sample.bytes, TYPE);
            (0..if kind & 0x8000 != 0 { usize::from(kind & 0x7fff) << 8 } else { len }).collect()
        }
        // The checksum under the encryption is not looked at; bytes 26..30 decide whether the page is encrypted.
        "zip encrypted 1k" => (4..16).chain(24..25).chain(30..34).chain(34..len).collect(),
        "legacy encrypted 4k" => (4..26).chain(30..34).chain(38..len - 8).collect(),
        name if name.starts_with("zip") => (0..16).chain(24..26).chain(34..len).collect(),
        _ => (0..26).chain(38..len).collect(),
    }
}

#[test]
fn a_flipped_bit_is_bad_wherever_the_checksum_reaches() {
    for sample in samples().iter().filter(|sample| sample.expected() == PageVerdict::Good) {
        let mut page = sample.bytes.clone();
        for (turn, at) in covered(sample).into_iter().enumerate().filter(|(turn, at)| *at < 64 || turn % 37 == 0) {
            let bit = 1 << (turn % 8);
            page[at] ^= bit;
            for format in [sample.format(), sample.assumed()] {
                let verdict = check_page(&format, sample.number, &page);
                assert!(matches!(verdict, PageVerdict::Bad(_)), "{} byte {at}: {verdict:?}", sample.name);
            }
            page[at] ^= bit;
        }
    }
}

#[test]
fn a_page_at_another_place_is_bad() {
    let sample = sample("full_crc32 index");
    assert_eq!(
        check_page(&sample.format(), PageNo(5), &sample.bytes),
        PageVerdict::Bad(PageFault::Number { expected: PageNo(5), found: PageNo(4) })
    );
    let system = SpaceFormat::new(SpaceId(0), sample.flags, Crypt::Absent);
    assert_eq!(check_page(&system, PageNo(5), &sample.bytes), PageVerdict::Good);
}

#[test]
fn zero_pages_are_no_fault_and_short_ones_are() {
    for sample in samples() {
        let zero = vec![0; sample.bytes.len()];
        assert_eq!(check_page(&sample.format(), PageNo(77), &zero), PageVerdict::Zero);
        assert_eq!(
            check_page(&sample.format(), PageNo(77), &zero[1..]),
            PageVerdict::Bad(PageFault::Length { expected: zero.len(), found: zero.len() - 1 })
        );
    }
}

#[test]
fn the_doublewrite_buffer_is_passed_over_in_the_first_file_only() {
    let garbage = vec![1; 16384];
    let system = SpaceFormat::new(SpaceId(0), SpaceFlags::new(0x15).unwrap(), Crypt::Absent);
    let verdict = |format: &SpaceFormat, number| check_page(format, PageNo(number), &garbage);
    assert_eq!(verdict(&system, 64), PageVerdict::Unverifiable(Unprotected::Doublewrite));
    assert_eq!(verdict(&system, 191), PageVerdict::Unverifiable(Unprotected::Doublewrite));
    assert!(matches!(verdict(&system, 63), PageVerdict::Bad(_)));
    assert!(matches!(verdict(&system, 192), PageVerdict::Bad(_)));
    assert!(matches!(verdict(&system.continued(), 64), PageVerdict::Bad(_)));
    let small = SpaceFormat::new(SpaceId(0), SpaceFlags::new(0x13).unwrap(), Crypt::Absent);
    assert_eq!(check_page(&small, PageNo(767), &garbage[..4096]), PageVerdict::Unverifiable(Unprotected::Doublewrite));
    assert!(matches!(check_page(&small, PageNo(768), &garbage[..4096]), PageVerdict::Bad(_)));
}

/// A page of the legacy form with these checksums at head and foot.
fn legacy_page(head: impl Fn(&[u8]) -> u32, foot: impl Fn(&[u8]) -> u32) -> Vec<u8> {
    let mut page: Vec<u8> = (0..4096_u32).map(|at| (at * 7) as u8).collect();
    page[4..8].copy_from_slice(&9_u32.to_be_bytes());
    page[16..24].copy_from_slice(&0x0000_0007_0000_1234_u64.to_be_bytes());
    page[24..26].copy_from_slice(&17855_u16.to_be_bytes());
    page[26..34].fill(0);
    page[4092..].copy_from_slice(&0x1234_u32.to_be_bytes());
    let sum = head(&page);
    page[..4].copy_from_slice(&sum.to_be_bytes());
    let sum = foot(&page);
    page[4088..4092].copy_from_slice(&sum.to_be_bytes());
    page
}

#[test]
fn older_checksums_are_accepted_and_missing_ones_named() {
    let format = SpaceFormat::new(SpaceId(3), SpaceFlags::new(0xe1).unwrap(), Crypt::Absent);
    let verdict = |page: Vec<u8>| check_page(&format, PageNo(9), &page);
    assert_eq!(verdict(legacy_page(checksum::crc32, checksum::crc32)), PageVerdict::Good);
    assert_eq!(verdict(legacy_page(checksum::fold_page, checksum::fold_head)), PageVerdict::Good);
    assert_eq!(verdict(legacy_page(checksum::fold_page, |_| 7)), PageVerdict::Good, "the LSN's high half");
    let none = PageVerdict::Unverifiable(Unprotected::NoChecksum);
    assert_eq!(verdict(legacy_page(|_| checksum::NONE, |_| checksum::NONE)), none);
    assert_eq!(verdict(legacy_page(|_| 0, checksum::fold_head)), none);
    for page in [
        legacy_page(|_| 0, |_| 0),
        legacy_page(checksum::crc32, |_| 0),
        legacy_page(checksum::fold_page, |_| 8),
        legacy_page(|_| 1, |_| checksum::NONE),
    ] {
        assert!(matches!(verdict(page), PageVerdict::Bad(PageFault::Checksum { .. })));
    }
    let mut torn = legacy_page(checksum::crc32, checksum::crc32);
    torn[4095] ^= 1;
    assert_eq!(verdict(torn), PageVerdict::Bad(PageFault::EndLsn { expected: 0x1234, found: 0x1235 }));
}

#[test]
fn a_split_sequence_number_is_not_taken_for_encryption() {
    let mut page = legacy_page(|_| 0, |_| 0);
    page[26..34].copy_from_slice(&5_u64.to_be_bytes());
    page[29] = 9;
    let sum = checksum::crc32(&page).to_be_bytes();
    page[..4].copy_from_slice(&sum);
    page[4088..4092].copy_from_slice(&sum);
    for crypt in [Crypt::Unknown, Crypt::Absent, Crypt::Present] {
        let format = SpaceFormat::new(SpaceId(3), SpaceFlags::new(0xe1).unwrap(), crypt);
        assert_eq!(check_page(&format, PageNo(9), &page), PageVerdict::Good, "{crypt:?}");
    }
}

#[test]
fn compressed_types_without_the_flag_are_checked_like_others() {
    let sample = sample("legacy page compressed 4k");
    let format = SpaceFormat::new(sample.space, SpaceFlags::new(0xe1).unwrap(), Crypt::Absent);
    assert!(matches!(check_page(&format, sample.number, &sample.bytes), PageVerdict::Bad(_)));
}

#[test]
fn impossible_flags_are_refused() {
    for bits in [0x10, 0x12, 0x18, 0x40, 0xc0 | 0b1010, 0b1100, 0x3c0] {
        assert!(SpaceFlags::new(bits).is_none(), "{bits:#x}");
    }
    for (bits, logical, zip) in [(0x0, 16384, None), (0x21, 16384, None), (0x29, 16384, Some(8192)), (0xe1, 4096, None)]
    {
        let flags = SpaceFlags::new(bits).unwrap();
        assert_eq!((flags.logical_size().bytes(), flags.zip_size().map(PageSize::bytes)), (logical, zip), "{bits:#x}");
    }
    assert!(matches!(SpaceFlags::from_page0(&[0; 57]), Err(Page0Error::Truncated { expected: 58, found: 57 })));
}

#[test]
fn the_descriptor_page_itself_is_allocated() {
    for sample in samples().iter().filter(|sample| sample.number == PageNo(0)) {
        let allocated: Vec<u32> = allocated_pages(sample.flags, &sample.bytes).take(3).collect();
        assert_eq!(allocated, [0, 1, 2], "{}", sample.name);
    }
}

#[test]
fn parts_of_the_header_are_where_they_are() {
    let sample = sample("full_crc32 index");
    assert_eq!((page_no(&sample.bytes), page_space_id(&sample.bytes)), (Some(sample.number), Some(sample.space)));
    assert!(page_lsn(&sample.bytes) > Lsn(0));
    assert_eq!((page_lsn(&[1; 20]), page_no(&[]), page_space_id(&[])), (Lsn(0), None, None));
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..5000),
        bits in any::<u32>(),
        size in 0_usize..7,
        kind in prop_oneof![Just(PAGE_COMPRESSED), Just(PAGE_COMPRESSED_ENCRYPTED), any::<u16>()],
    ) {
        let _ = Page0::parse(&bytes);
        if bytes.len() > 26 {
            bytes[24..26].copy_from_slice(&kind.to_be_bytes());
        }
        bytes.resize(1024 << size, 0);
        let flags = [0x13, 0x15, 0x17, 0x21, 0xe1, 0x23, 0x29, 0x101e1, bits & 0x1_0fff];
        for flags in flags.into_iter().filter_map(SpaceFlags::new) {
            for crypt in [Crypt::Unknown, Crypt::Absent, Crypt::Present] {
                let _ = check_page(&SpaceFormat::new(SpaceId(1), flags, crypt), PageNo(1), &bytes);
            }
            let _ = allocated_pages(flags, &bytes).count();
        }
    }
}
