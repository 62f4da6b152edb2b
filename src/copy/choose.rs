//! Which backups are copied: pure.

use std::collections::BTreeSet;

use crate::model::BackupId;

/// Which backups of the source are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// Those that are newer than the newest of the copy: what a prune of the copy let go of does not come back.
    New {
        /// Of the source's backups, the newest so many alone.
        last: Option<usize>,
    },
    /// All that the copy does not have.
    All,
    /// These, and of those that the copy has what it has lost of them.
    Named(BTreeSet<BackupId>),
}

impl Default for Wanted {
    fn default() -> Wanted {
        Wanted::New { last: None }
    }
}

/// Those of the backups of the source, `source`, that are to be copied to where `copy` are already, the oldest first. Ids sort in the order of
/// the runs.
pub fn choose(source: &[BackupId], copy: &BTreeSet<BackupId>, wanted: &Wanted) -> Vec<BackupId> {
    let source: BTreeSet<&BackupId> = source.iter().collect();
    let newest = copy.last();
    let left_out = match wanted {
        Wanted::New { last: Some(last) } => source.len().saturating_sub(*last),
        _ => 0,
    };
    let is_wanted = |id: &BackupId| match wanted {
        Wanted::New { .. } => newest.is_none_or(|newest| id > newest),
        Wanted::All => !copy.contains(id),
        Wanted::Named(named) => named.contains(id),
    };
    source.into_iter().skip(left_out).filter(|id| is_wanted(id)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ids(days: impl IntoIterator<Item = u32>) -> Vec<BackupId> {
        days.into_iter()
            .map(|day| format!("2026{:02}{:02}T020000Z-3f9a1c", 1 + day / 28, 1 + day % 28).parse().unwrap())
            .collect()
    }

    #[test]
    fn what_is_newer_than_the_copy_is_copied_and_what_it_let_go_of_stays_away() {
        let source = ids(0..6);
        let copy: BTreeSet<BackupId> = ids([0, 3]).into_iter().collect();
        assert_eq!(choose(&source, &copy, &Wanted::default()), ids([4, 5]));
        assert_eq!(choose(&source, &copy, &Wanted::New { last: Some(1) }), ids([5]));
        assert_eq!(choose(&source, &copy, &Wanted::All), ids([1, 2, 4, 5]));
        let named = Wanted::Named(ids([1, 3]).into_iter().collect());
        assert_eq!(choose(&source, &copy, &named), ids([1, 3]));
        assert_eq!(choose(&source, &BTreeSet::new(), &Wanted::New { last: Some(2) }), ids([4, 5]));
        // A copy whose lineage went on by itself.
        assert_eq!(choose(&source, &ids([0, 9]).into_iter().collect(), &Wanted::default()), ids([]));
    }

    proptest! {
        #[test]
        fn a_copy_that_ran_has_nothing_left_to_do(
            source in proptest::collection::btree_set(0u32..200, 0..40),
            copy in proptest::collection::btree_set(0u32..200, 0..40),
            last in proptest::option::of(1usize..9),
        ) {
            let (source, mut copy) = (ids(source), ids(copy).into_iter().collect::<BTreeSet<_>>());
            let newest = copy.last().cloned();
            let chosen = choose(&source, &copy, &Wanted::New { last });
            prop_assert!(chosen.is_sorted() && chosen.iter().all(|id| newest.as_ref().is_none_or(|newest| id > newest)));
            prop_assert!(chosen.len() <= last.unwrap_or(usize::MAX));
            let behind = source.last().is_some_and(|id| newest.as_ref().is_none_or(|newest| newest < id));
            prop_assert_eq!(behind, chosen.last() == source.last() && !chosen.is_empty());
            copy.extend(chosen);
            prop_assert_eq!(choose(&source, &copy, &Wanted::New { last }), Vec::new());
        }
    }
}
