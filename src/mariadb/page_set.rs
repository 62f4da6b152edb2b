//! A bounded set of pages of many tablespaces.

use std::collections::BTreeMap;

use crate::model::{ExtentNo, PageMask, PageNo, SpaceId};

/// Most extents with a page in a set: 16 MiB or so. It takes 64 GiB of new 16 KiB pages in one backup to fill it.
pub const SET_EXTENTS_MAX: usize = 1 << 16;

/// Pages of many tablespaces, remembered by extent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PageSet {
    extents: BTreeMap<(SpaceId, ExtentNo), PageMask>,
    overflowed: bool,
}

impl PageSet {
    /// Adds a page; one more than the set has room for marks the set as incomplete.
    pub fn insert(&mut self, space: SpaceId, page: PageNo) {
        let full = self.extents.len() >= SET_EXTENTS_MAX;
        let key = (space, page.extent());
        match self.extents.get_mut(&key) {
            Some(mask) => *mask = mask.union(PageMask::only(page.index())),
            None if full => self.overflowed = true,
            None => {
                self.extents.insert(key, PageMask::only(page.index()));
            }
        }
    }

    /// The pages of an extent that are in the set.
    pub fn of(&self, space: SpaceId, extent: ExtentNo) -> PageMask {
        self.extents.get(&(space, extent)).copied().unwrap_or_default()
    }

    /// True when pages were left out for want of room.
    pub fn overflowed(&self) -> bool {
        self.overflowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_too_many_marks_the_set_as_incomplete() {
        let mut set = PageSet::default();
        for extent in 0..SET_EXTENTS_MAX as u32 {
            set.insert(SpaceId(1), ExtentNo(extent).first_page());
        }
        set.insert(SpaceId(1), PageNo(1));
        assert!(!set.overflowed());
        assert_eq!(set.of(SpaceId(1), ExtentNo(0)), PageMask(3));
        set.insert(SpaceId(2), PageNo(1));
        assert!(set.overflowed());
        assert_eq!(set.of(SpaceId(2), ExtentNo(0)), PageMask::EMPTY);
    }
}
