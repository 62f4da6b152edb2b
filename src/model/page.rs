//! InnoDB's units: LSNs, tablespaces, pages, extents.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Log sequence number: a byte position in the server's endless redo log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Lsn(pub u64);

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Number of a tablespace; 0 is the system tablespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SpaceId(pub u32);

impl fmt::Display for SpaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Number of a page in the file that holds it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PageNo(pub u32);

impl PageNo {
    /// The extent that holds the page.
    pub const fn extent(self) -> ExtentNo {
        ExtentNo(self.0 / EXTENT_PAGES)
    }

    /// Place of the page in its extent, 0..64.
    pub const fn index(self) -> u32 {
        self.0 % EXTENT_PAGES
    }
}

impl fmt::Display for PageNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Pages in an extent: one bit each of a [`PageMask`].
pub const EXTENT_PAGES: u32 = 64;

/// Number of an extent in the file that holds it: pages 64·n up to 64·n + 63.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExtentNo(pub u32);

impl ExtentNo {
    /// The first page of the extent.
    pub const fn first_page(self) -> PageNo {
        PageNo(self.0 * EXTENT_PAGES)
    }

    /// Page `index` of the extent.
    pub const fn page(self, index: u32) -> PageNo {
        PageNo(self.0 * EXTENT_PAGES + index)
    }
}

/// A set of pages of one extent; bit n is the extent's page n.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct PageMask(pub u64);

impl PageMask {
    /// No page.
    pub const EMPTY: PageMask = PageMask(0);

    /// The first `count` pages; all 64 when `count` is 64 or more.
    pub const fn first(count: u32) -> PageMask {
        if count >= EXTENT_PAGES { PageMask(u64::MAX) } else { PageMask((1 << count) - 1) }
    }

    /// The page at `index` alone.
    pub const fn only(index: u32) -> PageMask {
        PageMask(1 << index)
    }

    /// True when no page is in the set.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Number of pages in the set.
    pub const fn len(self) -> u32 {
        self.0.count_ones()
    }

    /// True when page `index` is in the set.
    pub const fn contains(self, index: u32) -> bool {
        self.0 & (1 << index) != 0
    }

    /// Pages in either set.
    pub const fn union(self, other: PageMask) -> PageMask {
        PageMask(self.0 | other.0)
    }

    /// Pages in both sets.
    pub const fn intersection(self, other: PageMask) -> PageMask {
        PageMask(self.0 & other.0)
    }

    /// Pages of this set that are not in `other`.
    pub const fn without(self, other: PageMask) -> PageMask {
        PageMask(self.0 & !other.0)
    }

    /// True when every page of this set is in `other`.
    pub const fn is_subset(self, other: PageMask) -> bool {
        self.0 & !other.0 == 0
    }

    /// How many pages of the set come before page `index`: where that page stands in a chunk of this mask.
    pub const fn rank(self, index: u32) -> u32 {
        (self.0 & ((1 << index) - 1)).count_ones()
    }

    /// Indices of the pages in the set, ascending.
    pub fn indices(self) -> impl Iterator<Item = u32> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            if rest == 0 {
                return None;
            }
            let index = rest.trailing_zeros();
            rest &= rest - 1;
            Some(index)
        })
    }
}

impl fmt::Debug for PageMask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PageMask({:#018x})", self.0)
    }
}

/// Physical size of the pages of a tablespace: a power of two from 1 KiB (compressed) to 64 KiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct PageSize(u32);

impl PageSize {
    /// Accepts 1, 2, 4, 8, 16, 32 or 64 KiB, given in bytes.
    pub const fn new(bytes: u32) -> Option<PageSize> {
        if bytes.is_power_of_two() && bytes >= 1024 && bytes <= 65536 { Some(PageSize(bytes)) } else { None }
    }

    /// Size in bytes.
    pub const fn bytes(self) -> usize {
        self.0 as usize
    }

    /// Bytes of a whole extent.
    pub const fn extent_bytes(self) -> usize {
        self.0 as usize * EXTENT_PAGES as usize
    }
}

impl From<PageSize> for u32 {
    fn from(size: PageSize) -> u32 {
        size.0
    }
}

impl TryFrom<u32> for PageSize {
    type Error = String;

    fn try_from(bytes: u32) -> Result<PageSize, String> {
        PageSize::new(bytes).ok_or_else(|| format!("not a page size: {bytes} bytes"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rank_is_the_place_in_a_chunk_of_the_mask() {
        let mask = PageMask(0b1010_1001);
        let places: Vec<_> = mask.indices().map(|index| (index, mask.rank(index))).collect();
        assert_eq!(places, [(0, 0), (3, 1), (5, 2), (7, 3)]);
    }

    #[test]
    fn first_covers_all_of_a_whole_extent() {
        assert_eq!(PageMask::first(64).len(), 64);
        assert_eq!(PageMask::first(3), PageMask(7));
        assert_eq!(PageMask::first(0), PageMask::EMPTY);
    }

    #[test]
    fn page_size_refuses_what_innodb_does_not_have() {
        for bytes in [0, 512, 1000, 16385, 131072] {
            assert!(PageSize::new(bytes).is_none(), "{bytes}");
        }
    }
}
