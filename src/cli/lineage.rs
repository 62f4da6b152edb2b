//! Backups as a forest: each full is a root, each incremental stands below its parent.

use std::collections::HashMap;

use super::failure::Failure;
use crate::{error::Diagnose, format::Manifest, model::BackupId};

/// A backup as the repository has it: its manifest, or why there is none to be read.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Name of the backup, from its key.
    pub id: BackupId,
    /// The manifest.
    pub manifest: Result<Box<Manifest>, Failure>,
}

impl Entry {
    /// A backup whose manifest was read, or not.
    pub fn new<E: Diagnose>(id: BackupId, manifest: Result<Manifest, E>) -> Entry {
        Entry { id, manifest: manifest.map(Box::new).map_err(Failure::from) }
    }

    fn parent(&self) -> Option<&BackupId> {
        self.manifest.as_ref().ok()?.parent.as_ref()
    }
}

/// One backup in its place.
#[derive(Debug)]
pub struct Row<'a> {
    /// The backup.
    pub entry: &'a Entry,
    /// What connects it with the lines above: `├─ ` and the like, nothing for a root.
    pub branch: String,
    /// The root of its lineage.
    pub root: &'a BackupId,
    /// Its parent, where that is not in the repository.
    pub parent_gone: Option<&'a BackupId>,
    /// What does not hold of a manifest that could be read.
    pub fault: Option<Failure>,
}

impl<'a> Row<'a> {
    /// Why the backup is not to be trusted.
    pub fn damage(&self) -> Option<&Failure> {
        self.entry.manifest.as_ref().err().or(self.fault.as_ref())
    }

    /// The manifest, where it could be read.
    pub fn manifest(&self) -> Option<&'a Manifest> {
        self.entry.manifest.as_deref().ok()
    }
}

/// Backups in the order and with the branches in which they are drawn, the oldest lineage first.
///
/// A parent stands above its children. The line that leads to the newest backup goes straight down; what branches off it
/// is indented and comes first. So a lineage of a hundred incrementals is no wider than one of two.
#[derive(Debug)]
pub struct Forest<'a> {
    /// Lines from top to bottom.
    pub rows: Vec<Row<'a>>,
    /// Number of lineages.
    pub lineages: usize,
}

/// A line before its branch is drawn: place in the entries, depth on paper (0 for roots), place of the root.
struct Line {
    entry: usize,
    level: usize,
    root: usize,
}

impl<'a> Forest<'a> {
    /// Draws `entries`, in whatever order they come.
    pub fn grow(entries: &'a [Entry]) -> Forest<'a> {
        let places: HashMap<&BackupId, usize> = entries.iter().enumerate().map(|(n, entry)| (&entry.id, n)).collect();
        let mut children: Vec<Vec<usize>> = vec![Vec::new(); entries.len()];
        let mut roots = Vec::new();
        for (place, entry) in entries.iter().enumerate() {
            match entry.parent().and_then(|parent| places.get(parent)) {
                Some(parent) => children[*parent].push(place),
                None => roots.push(place),
            }
        }
        let by_age = |place: &usize| &entries[*place].id;
        roots.sort_by_key(by_age);
        children.iter_mut().for_each(|siblings| siblings.sort_by_key(by_age));

        let mut lines = Vec::with_capacity(entries.len());
        let mut seen = vec![false; entries.len()];
        for root in &roots {
            lines.extend(walk(*root, &children, entries, &mut seen));
        }
        // Manifests that name each other as parents hang from no root; they must be seen all the same.
        for place in 0..entries.len() {
            if !seen[place] {
                roots.push(place);
                lines.extend(walk(place, &children, entries, &mut seen));
            }
        }
        let rows = branches(&lines).into_iter().zip(&lines).map(|(branch, line)| {
            let entry = &entries[line.entry];
            let parent_gone = entry.parent().filter(|parent| !places.contains_key(parent));
            let parent = entry.parent().and_then(|parent| places.get(parent)).map(|place| &entries[*place]);
            let parent = parent.and_then(|parent| parent.manifest.as_deref().ok());
            let fault = entry.manifest.as_deref().ok().and_then(|manifest| manifest.check(parent).err());
            Row { entry, branch, root: &entries[line.root].id, parent_gone, fault: fault.map(Failure::from) }
        });
        Forest { rows: rows.collect(), lineages: roots.len() }
    }
}

/// The lines of the lineage of `root`, from top to bottom.
fn walk(root: usize, children: &[Vec<usize>], entries: &[Entry], seen: &mut [bool]) -> Vec<Line> {
    let straight = straight_children(root, children, entries);
    let mut lines = Vec::new();
    // What is drawn next lies on top. A chain may be long, so there is no recursion.
    let mut stack = vec![(root, 0, true)];
    while let Some((place, level, starts)) = stack.pop() {
        if std::mem::replace(&mut seen[place], true) {
            continue;
        }
        lines.push(Line { entry: place, level, root });
        // Below a root, or where a branch starts, the first line is one step to the right.
        let below = if starts { level + 1 } else { level };
        if let Some(main) = straight.get(&place) {
            stack.push((*main, below, false));
        }
        let aside = if level == 0 { 1 } else { level + 1 };
        let others = children[place].iter().rev().filter(|child| straight.get(&place) != Some(child));
        stack.extend(others.map(|child| (*child, aside, true)));
    }
    lines
}

/// For each backup with children, the child through which the newest backup is reached.
fn straight_children(root: usize, children: &[Vec<usize>], entries: &[Entry]) -> HashMap<usize, usize> {
    let mut order = Vec::new();
    let mut known = vec![false; entries.len()];
    let mut stack = vec![root];
    while let Some(place) = stack.pop() {
        if !std::mem::replace(&mut known[place], true) {
            order.push(place);
            stack.extend(&children[place]);
        }
    }
    let mut newest: HashMap<usize, usize> = HashMap::new();
    let mut straight = HashMap::new();
    for place in order.into_iter().rev() {
        let reached = |child: &usize| newest.get(child).copied().unwrap_or(*child);
        let main = children[place].iter().copied().max_by_key(|child| &entries[reached(child)].id);
        let best = main.map_or(place, |child| reached(&child));
        newest.insert(place, if entries[best].id > entries[place].id { best } else { place });
        straight.extend(main.map(|child| (place, child)));
    }
    straight
}

/// What stands before each line's name.
fn branches(lines: &[Line]) -> Vec<String> {
    // From below: at which levels another line follows before the lineage turns back to the left.
    let mut follows: Vec<bool> = Vec::new();
    let mut drawn = Vec::with_capacity(lines.len());
    for line in lines.iter().rev() {
        let mut text = String::new();
        for level in 1..line.level {
            text += if follows.get(level) == Some(&true) { "│  " } else { "   " };
        }
        if line.level > 0 {
            text += if follows.get(line.level) == Some(&true) { "├─ " } else { "└─ " };
        }
        follows.resize(line.level.max(follows.len()) + 1, false);
        follows[line.level] = true;
        follows.truncate(line.level + 1);
        drawn.push(text);
    }
    drawn.reverse();
    drawn
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cli::samples::{incremental, manifest};

    fn drawn(pairs: &[(u32, Option<u32>)]) -> Vec<String> {
        let entries: Vec<Entry> = pairs.iter().map(|(day, parent)| entry(*day, *parent)).collect();
        let forest = Forest::grow(&entries);
        forest.rows.iter().map(|row| format!("{}{}", row.branch, day_of(&row.entry.id))).collect()
    }

    fn entry(day: u32, parent: Option<u32>) -> Entry {
        let sample = match parent {
            None => manifest(day),
            Some(parent) => incremental(day, &manifest(parent)),
        };
        Entry { id: sample.id.clone(), manifest: Ok(Box::new(sample)) }
    }

    fn day_of(id: &BackupId) -> u32 {
        id.as_str()[6..8].parse().unwrap()
    }

    #[test]
    fn a_chain_goes_straight_down() {
        assert_eq!(drawn(&[(1, None), (2, Some(1)), (3, Some(2)), (4, Some(3))]), ["1", "├─ 2", "├─ 3", "└─ 4"]);
    }

    #[test]
    fn what_branches_off_is_indented() {
        let pairs = [(1, None), (2, Some(1)), (3, Some(2)), (4, Some(3)), (5, Some(2)), (6, Some(5)), (7, Some(1))];
        assert_eq!(drawn(&pairs[..6]), ["1", "├─ 2", "│  └─ 3", "│     └─ 4", "├─ 5", "└─ 6"]);
        assert_eq!(drawn(&pairs), ["1", "├─ 2", "│  ├─ 3", "│  │  └─ 4", "│  ├─ 5", "│  └─ 6", "└─ 7"]);
    }

    #[test]
    fn lineages_come_oldest_first_whatever_the_order() {
        assert_eq!(drawn(&[(4, Some(3)), (3, None), (2, Some(1)), (1, None)]), ["1", "└─ 2", "3", "└─ 4"]);
    }

    #[test]
    fn a_backup_whose_parent_is_gone_is_a_root_that_says_so() {
        let entries = [entry(2, Some(1)), entry(3, Some(2))];
        let forest = Forest::grow(&entries);
        assert_eq!(day_of(forest.rows[0].parent_gone.unwrap()), 1);
        assert_eq!((forest.rows[1].branch.as_str(), forest.lineages), ("└─ ", 1));
        assert_eq!(forest.rows[1].root, &entries[0].id);
    }

    #[test]
    fn backups_that_name_each_other_as_parents_are_drawn() {
        assert_eq!(drawn(&[(1, Some(2)), (2, Some(1))]).len(), 2);
        assert_eq!(drawn(&[(1, Some(1))]), ["1"]);
    }

    proptest! {
        #[test]
        fn every_backup_is_drawn_once_below_its_parent(parents in proptest::collection::vec(proptest::option::of(1_u32..28), 28)) {
            let pairs: Vec<_> = parents.iter().enumerate().map(|(n, parent)| (n as u32 + 1, *parent)).collect();
            let entries: Vec<Entry> = pairs.iter().map(|(day, parent)| entry(*day, *parent)).collect();
            let forest = Forest::grow(&entries);
            prop_assert_eq!(forest.rows.len(), entries.len());
            let mut above = std::collections::HashSet::new();
            for row in &forest.rows {
                prop_assert!(above.insert(&row.entry.id));
                if !row.branch.is_empty() {
                    prop_assert!(above.contains(row.entry.parent().unwrap()));
                }
            }
        }
    }
}
