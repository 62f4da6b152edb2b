//! Files of pages newer than the parent.

use haulout::{
    mariadb::delta::{DeltaError, DeltaParser, DeltaSummary, write_delta},
    model::{PageNo, PageSize},
};

use super::cuts::piece_bytes;

type Pages = Vec<(PageNo, Vec<u8>)>;

/// The first byte tells the page size, or that it is not known; the file follows.
pub fn check(input: &[u8]) {
    let Some((choice, file)) = input.split_first() else { return };
    let page_size = match choice % 8 {
        0 => None,
        shift => PageSize::new(512 << shift),
    };
    let (pages, outcome) = read(page_size, file, file.len().max(1));
    let (again, cut) = read(page_size, file, piece_bytes(file));
    assert_eq!(outcome, cut, "cut elsewhere, the same file ends otherwise");
    assert!(pages == again, "cut elsewhere, the same file has other pages");
    let Ok(summary) = outcome else { return };
    assert_eq!((summary.pages as usize, summary.max_page), (pages.len(), pages.last().map(|(number, _)| *number)));
    assert!(pages.iter().all(|(_, page)| page.len() == summary.page_size.bytes()));
    let borrowed: Vec<_> = pages.iter().map(|(number, page)| (*number, &page[..])).collect();
    let written = write_delta(summary.page_size, &borrowed);
    assert_eq!(read(Some(summary.page_size), &written, written.len()), (pages, Ok(summary)));
}

fn read(page_size: Option<PageSize>, file: &[u8], piece_bytes: usize) -> (Pages, Result<DeltaSummary, DeltaError>) {
    let mut pages = Pages::new();
    let mut keep = |number, offset, bytes: &[u8]| {
        assert!(!bytes.is_empty(), "a slice of nothing is no progress");
        if offset == 0 {
            pages.push((number, Vec::new()));
        }
        let (last, page) = pages.last_mut().unwrap();
        assert_eq!((*last, page.len()), (number, offset), "slices of a page follow each other");
        page.extend_from_slice(bytes);
        Ok(())
    };
    let mut parser = DeltaParser::new(page_size);
    let pushed = file.chunks(piece_bytes).try_for_each(|piece| parser.push(piece, &mut keep));
    let outcome = pushed.and_then(|()| parser.finish(&mut keep));
    (pages, outcome)
}
