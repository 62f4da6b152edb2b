//! Whether the server is still on its parent's timeline.
//!
//! A server whose files were taken back to an older state under the same inodes (a snapshot of the volume that was rolled
//! back, `rsync --inplace`) and that has since passed the parent's LSN cannot be told by LSNs of the whole. Two things
//! that only grow give it away: pages of the parent, of which a few dozen are looked at on disk, and the binlog.

use std::collections::{BTreeMap, HashMap};

use super::base::Base;
use super::drafts::SpaceDraft;
use super::{Obstacle, Source, Survey};
use crate::format::map::SpaceKey;
use crate::format::{Timeline, Witness};
use crate::model::{ExtentNo, Lsn, PageNo, SpaceId};

/// Witnesses of one tablespace, each of another extent.
pub(super) const WITNESSES_OF_SPACE: usize = 4;
/// Witnesses of one backup: 30 bytes of manifest and one read of the next run each.
pub(super) const WITNESSES_MAX: usize = 256;

/// The newest pages of a tablespace, each of another extent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Newest(Vec<(Lsn, PageNo)>);

impl Newest {
    /// Takes note of an extent's newest page; the last word on an extent counts.
    pub(super) fn note(&mut self, lsn: Lsn, page: PageNo) {
        self.0.retain(|(_, known)| known.extent() != page.extent());
        self.0.push((lsn, page));
        self.0.sort_unstable_by(|one, other| other.cmp(one));
        self.0.truncate(WITNESSES_OF_SPACE);
    }

    /// LSN of the newest page.
    pub(super) fn lsn(&self) -> Lsn {
        self.0.first().map_or(Lsn(0), |(lsn, _)| *lsn)
    }
}

/// Pages by which the next run will know this backup's timeline: the newest of those that it captured, and those of its
/// parent that did not change since.
///
/// The newest of all, because whatever state the server is taken back to, pages newer than that are the ones that betray it.
pub(super) fn witnesses<'a>(captured: impl Iterator<Item = &'a SpaceDraft>, parent: Option<&Base>) -> Vec<Witness> {
    let mut known: BTreeMap<SpaceId, BTreeMap<ExtentNo, Witness>> = BTreeMap::new();
    // Of a system tablespace of many files the first tells enough; pages of the others are numbered by file.
    for draft in captured.filter(|draft| draft.begun.key.part == 0) {
        let pages = known.entry(draft.begun.key.space).or_default();
        for (lsn, page) in &draft.newest.0 {
            pages.insert(page.extent(), Witness { space: draft.begun.key.space, page: *page, lsn: *lsn });
        }
    }
    // An extent whose page was seen again has a newer one now, or the same; those of dropped tables are let go.
    for witness in parent.iter().flat_map(|parent| &parent.manifest.timeline.witnesses) {
        if let Some(pages) = known.get_mut(&witness.space) {
            pages.entry(witness.page.extent()).or_insert(*witness);
        }
    }
    let mut witnesses = Vec::new();
    for pages in known.into_values() {
        let mut pages: Vec<Witness> = pages.into_values().filter(|witness| witness.lsn > Lsn(0)).collect();
        pages.sort_unstable_by_key(|witness| std::cmp::Reverse(witness.lsn));
        witnesses.extend(pages.into_iter().take(WITNESSES_OF_SPACE));
    }
    witnesses.sort_unstable_by_key(|witness| (std::cmp::Reverse(witness.lsn), witness.space, witness.page));
    witnesses.truncate(WITNESSES_MAX);
    witnesses
}

/// Checks the parent's witnesses, and that the binlog went on from where the parent saw it.
///
/// # Errors
/// [`Obstacle::Forked`] or [`Obstacle::BinlogWentBack`].
pub(super) fn check(parent: &Base, survey: &Survey, source: &dyn Source) -> Result<(), Obstacle> {
    let names: HashMap<(u64, Option<i64>), &str> =
        survey.walk.files().map(|(name, file)| ((file.inode, file.birth_ns), name)).collect();
    for witness in &parent.manifest.timeline.witnesses {
        let key = SpaceKey { space: witness.space, part: 0 };
        // Dropped tables have no say, nor files that were put in place anew: these are looked for elsewhere.
        let Some(record) = parent.spaces.get(&key) else { continue };
        let Some(identity) = record.identity else { continue };
        let Some(name) = names.get(&(identity.inode, identity.born_ns)) else { continue };
        let Some(found) = source.page_lsn_on_disk(survey, name, witness.page, record.page_size) else { continue };
        if !may_follow(found, witness.lsn, parent.start()) {
            let (name, page, parent) = ((*name).to_owned(), witness.page, witness.lsn);
            return Err(Obstacle::Forked { name, page, parent, found });
        }
    }
    check_binlog(&parent.manifest.timeline, &parent.manifest.position, survey)
}

/// True when a page that a backup of start checkpoint `start` has with LSN `was` can be on disk with LSN `found` later, on
/// the same timeline: unchanged, or changed after the checkpoint. What came before the checkpoint was on disk by then.
fn may_follow(found: Lsn, was: Lsn, start: Lsn) -> bool {
    found == was || (found > was && found > start)
}

/// A binlog file is only ever appended to, and a server that starts begins another one.
fn check_binlog(timeline: &Timeline, position: &crate::format::GtidPosition, survey: &Survey) -> Result<(), Obstacle> {
    let (Some(was), Some(name), Some(length)) = (timeline.binlog, &position.file, position.position) else {
        return Ok(());
    };
    let Some(now) = survey.binlog(name) else {
        // Purged, or no longer written; other checks must do.
        return Ok(());
    };
    if now.inode == was.inode && now.birth_ns == was.born_ns && now.bytes >= length {
        return Ok(());
    }
    Err(Obstacle::BinlogWentBack { name: name.clone(), parent: length, found: now.bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_follows_itself_and_what_was_changed_after_the_start_checkpoint() {
        let start = Lsn(100);
        for (was, found, fine) in [
            (50, 50, true),
            (50, 101, true),
            (150, 150, true),
            (150, 151, true),
            // Behind what the parent read.
            (50, 49, false),
            (150, 149, false),
            (150, 0, false),
            // Changed before the checkpoint and not seen by the parent, which read it after the checkpoint.
            (50, 51, false),
            (50, 100, false),
        ] {
            assert_eq!(may_follow(Lsn(found), Lsn(was), start), fine, "{was} then {found}");
        }
    }

    #[test]
    fn the_newest_pages_are_kept_one_of_an_extent() {
        let mut newest = Newest::default();
        for (lsn, page) in [(5, 1), (9, 64), (7, 65), (3, 130), (1, 200), (2, 260), (8, 330)] {
            newest.note(Lsn(lsn), PageNo(page));
        }
        let expected = [(8, 330), (7, 65), (5, 1), (3, 130)].map(|(lsn, page)| (Lsn(lsn), PageNo(page)));
        assert_eq!(newest.0, expected);
        assert_eq!(newest.lsn(), Lsn(8));
    }
}
