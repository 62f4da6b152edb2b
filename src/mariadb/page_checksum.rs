//! Checksums of InnoDB pages in the forms before full_crc32.
//!
//! Source: MariaDB `storage/innobase/buf/buf0checksum.cc`, `page/page0zip.cc` (`page_zip_calc_checksum`), `ut/ut0rnd.cc`.

/// What stands for a checksum with `innodb_checksum_algorithm=none` (`BUF_NO_CHECKSUM_MAGIC`).
pub(super) const NONE: u32 = 0xdead_beef;

/// CRC-32C of a page: of what lies before the flush LSN, and of what lies between the header and the foot, combined.
pub(super) fn crc32(page: &[u8]) -> u32 {
    crc32c::crc32c(&page[4..26]) ^ crc32c::crc32c(&page[38..page.len() - 8])
}

/// CRC-32C of a page of `ROW_FORMAT=COMPRESSED`, which has no foot and whose LSN is not covered.
pub(super) fn zip_crc32(page: &[u8]) -> u32 {
    crc32c::crc32c(&page[4..16]) ^ crc32c::crc32c(&page[24..26]) ^ crc32c::crc32c(&page[34..])
}

/// True when `stored` is a checksum of the page by any algorithm that servers have written.
pub(super) fn protects(page: &[u8], zip: bool, stored: u32) -> bool {
    if zip {
        stored == zip_crc32(page) || stored == zip_adler32(page)
    } else {
        stored == crc32(page) || stored == fold_page(page)
    }
}

/// Adler-32 over the same parts as [`zip_crc32`], begun with 0 instead of 1: `innodb` as the algorithm.
fn zip_adler32(page: &[u8]) -> u32 {
    let (mut low, mut high) = (0_u32, 0_u32);
    for part in [&page[4..16], &page[24..26], &page[34..]] {
        // Sums of so many bytes stay below 2^32.
        for bytes in part.chunks(5552) {
            for byte in bytes {
                low += u32::from(*byte);
                high += low;
            }
            low %= 65521;
            high %= 65521;
        }
    }
    high << 16 | low
}

/// The checksum of algorithm `innodb` at the head of a page (`buf_calc_page_new_checksum`).
pub(super) fn fold_page(page: &[u8]) -> u32 {
    fold(&page[4..26]).wrapping_add(fold(&page[38..page.len() - 8]))
}

/// The checksum of algorithm `innodb` at the foot of a page (`buf_calc_page_old_checksum`).
pub(super) fn fold_head(page: &[u8]) -> u32 {
    fold(&page[..26])
}

/// `ut_fold_binary`; the low half of its 64-bit sums, which is all that is stored.
fn fold(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |fold: u32, byte| {
        let byte = u32::from(*byte);
        ((((fold ^ byte ^ 1_653_893_711) << 8).wrapping_add(fold)) ^ 1_463_735_687).wrapping_add(byte)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adler_is_the_known_one_but_for_its_beginning() {
        let mut page = vec![0; 1024];
        page[4..13].copy_from_slice(b"Wikipedia");
        // Adler-32 of "Wikipedia", three zeros, then 2 + 990 zeros: the low half stays, and lacks the initial 1.
        let low = b"Wikipedia".iter().map(|byte| u32::from(*byte)).sum::<u32>();
        assert_eq!(zip_adler32(&page) & 0xffff, low);
        let high = (0..9).map(|at| u32::from(page[4 + at]) * (12 - at as u32 + 992)).sum::<u32>() % 65521;
        assert_eq!(zip_adler32(&page) >> 16, high);
    }

    #[test]
    fn fold_differs_for_each_place_of_a_byte() {
        let folds: std::collections::BTreeSet<u32> = (0..22)
            .map(|at| {
                let mut bytes = [0; 22];
                bytes[at] = 1;
                fold(&bytes)
            })
            .collect();
        assert_eq!(folds.len(), 22);
    }
}
