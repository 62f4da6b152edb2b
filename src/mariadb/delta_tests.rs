use proptest::prelude::*;

use super::*;
use crate::mariadb::page::{PageVerdict, SpaceFormat, check_page, page_space_id};

/// The meta file beside `testdata/tiny_1k.delta.zst`.
const META: &[u8] = b"page_size = 1024\nzip_size = 1024 \nspace_id = 565\n";

fn page_size(bytes: u32) -> PageSize {
    PageSize::new(bytes).unwrap()
}

/// A page that holds its number where InnoDB has it, and otherwise a byte of its own.
fn page(size: PageSize, number: u32) -> Vec<u8> {
    // Never zero: a page of LSN 0 is newer than nothing, so no delta holds one, and inferring the page size relies on that.
    let mut page = vec![(number as u8 ^ 0x5a) | 1; size.bytes()];
    page[4..8].copy_from_slice(&number.to_be_bytes());
    page
}

fn delta(size: PageSize, numbers: &[u32]) -> Vec<u8> {
    let pages: Vec<_> = numbers.iter().map(|number| (PageNo(*number), page(size, *number))).collect();
    let pages: Vec<_> = pages.iter().map(|(number, page)| (*number, page.as_slice())).collect();
    write_delta(size, &pages)
}

type Pages = Vec<(PageNo, Vec<u8>)>;

/// Parses `file` in pieces of the given sizes, and puts the slices of each page together.
fn read(file: &[u8], size: Option<PageSize>, sizes: &[usize]) -> Result<(Pages, DeltaSummary), DeltaError> {
    let mut pages: Pages = Vec::new();
    let mut collect = |number: PageNo, offset: usize, bytes: &[u8]| {
        if offset == 0 {
            pages.push((number, Vec::new()));
        }
        let (last, content) = pages.last_mut().unwrap();
        assert_eq!((*last, content.len()), (number, offset));
        content.extend_from_slice(bytes);
        Ok(())
    };
    let mut parser = DeltaParser::new(size);
    let (mut rest, mut turn) = (file, 0);
    while !rest.is_empty() {
        let (now, later) = rest.split_at(sizes[turn % sizes.len()].clamp(1, rest.len()));
        parser.push(now, &mut collect)?;
        (rest, turn) = (later, turn + 1);
    }
    let summary = parser.finish::<DeltaError>(&mut collect)?;
    Ok((pages, summary))
}

#[test]
fn a_delta_of_several_full_clusters_parses_back() {
    let size = page_size(1024);
    for count in [0_u32, 1, 254, 255, 256, 510, 511] {
        let numbers: Vec<u32> = (0..count).map(|number| number * 3).collect();
        let file = delta(size, &numbers);
        let (pages, summary) = read(&file, Some(size), &[10_000]).unwrap();
        assert_eq!(pages.len() as u32, count);
        assert!(pages.iter().all(|(number, content)| *content == page(size, number.0)));
        assert_eq!(summary.max_page, numbers.last().copied().map(PageNo));
        assert_eq!(summary.pages, count);
    }
}

#[test]
fn a_real_delta_holds_good_pages_of_its_space() {
    // Of an incremental of 10.11.19: a new table with KEY_BLOCK_SIZE=1.
    let file = zstd::decode_all(&include_bytes!("testdata/tiny_1k.delta.zst")[..]).unwrap();
    let meta = DeltaMeta::parse(META).unwrap();
    let format = SpaceFormat::assumed(meta.space_id, meta.page_size, meta.zip_size);
    for size in [Some(meta.page_size), None] {
        let (pages, summary) = read(&file, size, &[1000, 7]).unwrap();
        assert_eq!((summary.page_size, summary.pages, summary.max_page), (meta.page_size, 4, Some(PageNo(3))));
        for (number, bytes) in pages {
            assert_eq!(check_page(&format, number, &bytes), PageVerdict::Good);
            assert_eq!(page_space_id(&bytes), Some(meta.space_id));
        }
    }
}

#[test]
fn the_page_size_is_inferred_from_the_pages_or_the_length() {
    for size in SIZES.map(page_size) {
        for numbers in [&[][..], &[0], &[7, 8], &[5, 100, 4_000_000]] {
            let file = delta(size, numbers);
            let (pages, summary) = read(&file, None, &[70_001, 3]).unwrap();
            assert_eq!(summary.page_size, size, "{numbers:?}");
            assert_eq!(pages.len(), numbers.len());
        }
    }
}

#[test]
fn a_page_size_that_cannot_be_told_is_refused() {
    let size = page_size(4096);
    let mut file = delta(size, &[9]);
    file[4096 + 4] ^= 1;
    assert_eq!(read(&file, None, &[5000]), Err(DeltaError::Size { found: 0 }));
    let mut file = delta(size, &[9, 10]);
    // The number stands where two sizes look for it.
    file[8192 + 4..8192 + 8].copy_from_slice(&9_u32.to_be_bytes());
    assert_eq!(read(&file, None, &[5000]), Err(DeltaError::Size { found: 2 }));
}

#[test]
fn a_cut_delta_is_refused_wherever_it_is_cut() {
    let size = page_size(1024);
    let file = delta(size, &[1, 2]);
    for len in 0..file.len() {
        assert!(matches!(read(&file[..len], Some(size), &[77]), Err(DeltaError::Truncated { .. })), "{len}");
    }
}

#[test]
fn bytes_after_the_end_are_refused() {
    let size = page_size(1024);
    for numbers in [&[][..], &[1, 2]] {
        let mut file = delta(size, numbers);
        let at = file.len() as u64;
        file.push(0);
        assert_eq!(read(&file, Some(size), &[500]), Err(DeltaError::Trailing { at }));
    }
}

#[test]
fn page_numbers_must_ascend_over_all_clusters() {
    let size = page_size(1024);
    assert_eq!(
        read(&delta(size, &[3, 3]), Some(size), &[500]),
        Err(DeltaError::Order { at: 0, previous: PageNo(3), found: PageNo(3) })
    );
    let mut numbers: Vec<u32> = (0..256).collect();
    numbers[255] = 100;
    assert_eq!(
        read(&delta(size, &numbers), Some(size), &[9999]),
        Err(DeltaError::Order { at: 256 * 1024, previous: PageNo(254), found: PageNo(100) })
    );
}

#[test]
fn only_the_last_cluster_may_be_short() {
    let size = page_size(1024);
    let mut file = delta(size, &[3]);
    file[..4].copy_from_slice(b"xtra");
    assert_eq!(read(&file, Some(size), &[500]), Err(DeltaError::Short { at: 0, expected: 255, found: 1 }));
    file[..4].copy_from_slice(b"xtrA");
    assert_eq!(read(&file, Some(size), &[500]), Err(DeltaError::Magic { at: 0, found: *b"xtrA" }));
}

#[test]
fn a_full_cluster_can_be_the_last_or_be_followed_by_an_empty_one() {
    let size = page_size(1024);
    let numbers: Vec<u32> = (0..255).collect();
    let mut file = delta(size, &numbers);
    assert_eq!(&file[..4], b"XTRA");
    assert_eq!(read(&file, Some(size), &[9999]).unwrap().1.pages, 255);
    file[..4].copy_from_slice(b"xtra");
    assert!(matches!(read(&file, Some(size), &[9999]), Err(DeltaError::Truncated { .. })));
    file.extend_from_slice(&delta(size, &[]));
    assert_eq!(read(&file, Some(size), &[9999]).unwrap().1.pages, 255);
}

#[test]
fn an_error_of_the_receiver_comes_back_as_it_is() {
    #[derive(Debug, PartialEq)]
    enum Mine {
        Full,
        Delta,
    }
    impl From<DeltaError> for Mine {
        fn from(_: DeltaError) -> Mine {
            Mine::Delta
        }
    }
    let size = page_size(1024);
    let mut parser = DeltaParser::new(Some(size));
    assert_eq!(parser.push(&delta(size, &[1]), &mut |_, _, _| Err(Mine::Full)), Err(Mine::Full));
    let mut parser = DeltaParser::new(Some(size));
    assert_eq!(parser.push(&[0; 1024], &mut |_, _, _| Err(Mine::Full)), Err(Mine::Delta));
}

#[test]
fn meta_files_of_the_tool_are_read() {
    let meta = DeltaMeta::parse(b"page_size = 16384\nzip_size = 0 \nspace_id = 9\n").unwrap();
    assert_eq!(meta, DeltaMeta { page_size: page_size(16384), zip_size: None, space_id: SpaceId(9) });
    let meta = DeltaMeta::parse(b"page_size = 4096\nzip_size = 4096 \nspace_id = 11\n").unwrap();
    assert_eq!((meta.page_size, meta.zip_size), (page_size(4096), Some(page_size(4096))));
    assert_eq!(
        DeltaMeta::parse(b"space_id=4294967295\n page_size=65536\r\nzip_size=0").unwrap().space_id,
        SpaceId(u32::MAX)
    );
}

#[test]
fn meta_files_that_are_none_are_refused() {
    for text in [
        "",
        "page_size = 16384\nzip_size = 0 \n",
        "page_size = 16384\nzip_size = 0 \nspace_id = x\n",
        "page_size = 16384\nzip_size = 0 \nspace_id = 4294967296\n",
        "page_size = 16384\nzip_size = 0 \nspace_id = 9\nspace_id = 9\n",
        "page_size = 1000\nzip_size = 0 \nspace_id = 9\n",
        "page_size = 16384\nzip_size = 8192 \nspace_id = 9\n",
    ] {
        assert!(DeltaMeta::parse(text.as_bytes()).is_err(), "{text:?}");
    }
    assert!(matches!(DeltaMeta::parse(&[b' '; META_BYTES_MAX + 1]), Err(MetaError::TooLong { .. })));
}

#[test]
fn the_size_of_a_single_page_is_inferred_whatever_its_number() {
    // 1882 ends in 0x5a, for which pages of zeros were made once.
    for number in [0, 1, 90, 1882, 99_999] {
        let size = page_size(1024);
        let (pages, _) = read(&delta(size, &[number]), None, &[1]).unwrap();
        assert_eq!(pages, [(PageNo(number), page(size, number))]);
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..3000),
        size in proptest::option::of(0_usize..7),
        last in any::<bool>(),
    ) {
        let mut file = if last { LAST.to_vec() } else { MORE.to_vec() };
        file.extend_from_slice(&bytes);
        let _ = read(&file, size.map(|index| page_size(SIZES[index])), &[100, 1, 999]);
        let _ = DeltaMeta::parse(&bytes);
    }

    #[test]
    fn written_deltas_parse_back_however_they_are_pushed(
        numbers in proptest::collection::btree_set(0_u32..100_000, 0..300),
        sizes in proptest::collection::vec(1_usize..3000, 1..5),
        known in any::<bool>(),
    ) {
        let size = page_size(1024);
        let numbers: Vec<u32> = numbers.into_iter().collect();
        let (pages, summary) = read(&delta(size, &numbers), known.then_some(size), &sizes).unwrap();
        prop_assert_eq!(summary.pages as usize, numbers.len());
        for ((number, content), expected) in pages.iter().zip(&numbers) {
            prop_assert_eq!((number.0, content), (*expected, &page(size, *expected)));
        }
    }

    #[test]
    fn meta_files_parse_back(size in 0_usize..7, zip in any::<bool>(), space_id in any::<u32>()) {
        let page_size = page_size(SIZES[size]);
        let meta = DeltaMeta { page_size, zip_size: zip.then_some(page_size), space_id: SpaceId(space_id) };
        prop_assert_eq!(DeltaMeta::parse(meta.to_text().as_bytes()), Ok(meta));
    }
}
