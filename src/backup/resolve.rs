//! Makes records of drafts once the stream has ended: final names, lengths, identities.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::base::Base;
use super::collect::Origin;
use super::drafts::{Drafts, FileDraft, SpaceDraft};
use super::mappack::MapPacks;
use super::slots::SlotTable;
use super::{BackupError, Obstacle};
use crate::format::map::{FileIdentity, FileRecord, SpaceKey, SpaceRecord};
use crate::mariadb::page::Crypt;
use crate::mariadb::page_set::PageSet;
use crate::model::{Lsn, SpaceId};

/// What the file system said of the server's files.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// Identity of each InnoDB file, by its path in the datadir, from before the stream began.
    pub identities: HashMap<String, FileIdentity>,
    /// Permission bits of files, by their path in the datadir.
    pub modes: HashMap<String, u32>,
    /// Files of the system tablespace, in order.
    pub system_files: Vec<String>,
    /// Tablespaces that the redo log says were deleted during the backup; nothing when it cannot tell.
    pub deleted_spaces: HashSet<SpaceId>,
    /// Pages that the redo log writes anew or frees; nothing when it cannot tell.
    pub voided: Option<PageSet>,
    /// Files of tables that were put in place during the backup and were there, under these names, when no DDL was going on any more.
    pub appeared: Vec<String>,
    /// Files of tables whose first page can be missing on disk: the redo log writes it anew, or, where the log cannot tell, they
    /// were put in place during the backup.
    pub unwritten: HashSet<String>,
    /// Last LSN of the backup.
    pub last: Lsn,
}

/// The records of the new map, by key and by path.
#[derive(Debug)]
pub(super) struct Records {
    pub spaces: Vec<SpaceRecord>,
    pub files: Vec<FileRecord>,
}

/// Makes records of `drafts`.
///
/// `parent` is the base of an incremental; a full has none, whatever it was compared with.
pub(super) fn resolve(
    mut drafts: Drafts,
    parent: Option<&Arc<Base>>,
    around: &Surroundings,
    slots: &SlotTable,
    maps: &mut MapPacks,
) -> Result<Records, BackupError> {
    check_metas(&drafts)?;
    let named = final_names(&mut drafts)?;
    check_appeared(&named, &drafts, around)?;
    check_blanks(&drafts, around)?;
    let lengths = system_lengths(&named, parent, around)?;
    let mut spaces = BTreeMap::new();
    for (name, draft) in named {
        if draft.newest.lsn() > around.last {
            return Err(BackupError::FutureLsn { path: name, found: draft.newest.lsn(), last: around.last });
        }
        let key = draft.begun.key;
        let record = record(name, draft, parent, around, &lengths, slots, maps)?;
        if let Some(SpaceRecord { name: other, .. }) = spaces.insert(key, record) {
            let name = spaces[&key].name.clone();
            return Err(BackupError::SameSpace { space: key.space, one: other, other: name });
        }
    }
    let mut files = Vec::with_capacity(drafts.files.len());
    for (path, draft) in &drafts.files {
        let (mode, map) = (around.modes.get(path).copied(), draft.map(slots, maps)?);
        files.push(FileRecord { path: path.clone(), bytes: draft.bytes, mode, map });
    }
    Ok(Records { spaces: spaces.into_values().collect(), files })
}

/// Every `.delta` must have had a `.meta` that says the same as its pages.
fn check_metas(drafts: &Drafts) -> Result<(), BackupError> {
    for draft in drafts.spaces.iter().filter(|draft| draft.begun.origin == Origin::Delta) {
        let name = &draft.begun.name;
        let meta = drafts.metas.get(name).ok_or_else(|| BackupError::MetaMissing { path: format!("{name}.delta") })?;
        if meta.space_id != draft.begun.key.space || meta.page_size != draft.begun.page_size {
            let (expected, found) = (meta.space_id, draft.begun.key.space);
            return Err(BackupError::SpaceMismatch { path: name.clone(), expected, found });
        }
    }
    Ok(())
}

/// Each file that was put in place meanwhile must have come, under its last name.
fn check_appeared(named: &[(String, SpaceDraft)], drafts: &Drafts, around: &Surroundings) -> Result<(), BackupError> {
    let came: HashSet<&String> = named.iter().map(|(name, _)| name).chain(drafts.files.keys()).collect();
    let lost: Vec<&str> = around.appeared.iter().filter(|name| !came.contains(name)).map(String::as_str).collect();
    if lost.is_empty() { Ok(()) } else { Err(BackupError::LeftOut { names: lost.join(", ") }) }
}

/// A file without a first page must be one whose first page recovery will write; any other is damaged on the server's disk.
fn check_blanks(drafts: &Drafts, around: &Surroundings) -> Result<(), BackupError> {
    let is_sound = |path: &str| {
        // What an ALTER TABLE left that was interrupted by a crash is no table.
        around.unwritten.contains(path) || path.rsplit_once('/').is_some_and(|(_, file)| file.starts_with("#sql"))
    };
    let blanks = drafts.files.values().filter(|draft| draft.blank.is_some()).map(|draft| draft.path.as_str());
    let damaged: Vec<&str> = blanks.filter(|path| !is_sound(path)).collect();
    if damaged.is_empty() { Ok(()) } else { Err(BackupError::Blank { paths: damaged.join(", ") }) }
}

/// Applies what happened to tablespaces during the backup, in the order in which the stock tool does: gone, renamed (all
/// at once, so that swaps come out right), new. What is new takes the place of anything else of its name.
fn final_names(drafts: &mut Drafts) -> Result<Vec<(String, SpaceDraft)>, BackupError> {
    let deleted: HashSet<&String> = drafts.deleted.iter().collect();
    let renamed: HashMap<&String, &String> = drafts.renamed.iter().map(|(from, to)| (from, to)).collect();
    let (new, old): (Vec<_>, Vec<_>) =
        std::mem::take(&mut drafts.spaces).into_iter().partition(|draft| draft.begun.origin == Origin::New);
    let (new_blanks, old_blanks): (Vec<_>, Vec<_>) =
        std::mem::take(&mut drafts.blanks).into_iter().partition(|(origin, _)| *origin == Origin::New);
    let mut named: BTreeMap<String, SpaceDraft> = BTreeMap::new();
    let new_keys: HashSet<SpaceKey> = new.iter().map(|draft| draft.begun.key).collect();
    let new_names: HashSet<String> = new.iter().map(|draft| draft.begun.name.clone()).collect();
    let new_blank_names: HashSet<String> = new_blanks.iter().map(|(_, draft)| draft.path.clone()).collect();
    for draft in old {
        let name = &draft.begun.name;
        if deleted.contains(name) || new_keys.contains(&draft.begun.key) {
            continue;
        }
        let name = renamed.get(name).map_or(name, |name| *name).clone();
        if new_names.contains(&name) || new_blank_names.contains(&name) {
            continue;
        }
        if let Some(other) = named.get(&name) {
            return Err(BackupError::SameName { name, one: other.begun.key.space, other: draft.begun.key.space });
        }
        named.insert(name, draft);
    }
    for (_, draft) in old_blanks {
        let name = renamed.get(&draft.path).map_or(&draft.path, |name| *name).clone();
        if !deleted.contains(&draft.path) && !new_names.contains(&name) && !named.contains_key(&name) {
            drafts.files.insert(name.clone(), FileDraft { path: name, ..draft });
        }
    }
    for draft in new {
        named.insert(draft.begun.name.clone(), draft);
    }
    for (_, draft) in new_blanks.into_iter().filter(|(_, draft)| !new_names.contains(&draft.path)) {
        drafts.files.insert(draft.path.clone(), draft);
    }
    Ok(named.into_iter().collect())
}

/// Lengths in pages of the files of a system tablespace of several files: all but the last have a fixed one, and page 0
/// of the first tells the sum.
fn system_lengths(
    named: &[(String, SpaceDraft)],
    parent: Option<&Arc<Base>>,
    around: &Surroundings,
) -> Result<HashMap<u16, u32>, BackupError> {
    let parts = around.system_files.len() as u16;
    let mut lengths = HashMap::new();
    let Some(parent) = parent.filter(|_| parts > 1) else { return Ok(lengths) };
    let known = |part| parent.spaces.get(&SpaceKey { space: SpaceId(0), part }).map(|record| record.pages);
    let missing = |part: u16| {
        let name = around.system_files.get(usize::from(part)).cloned().unwrap_or_default();
        BackupError::NeedsFull(Obstacle::SystemFiles { name })
    };
    let drafted = |part| {
        named.iter().map(|(_, draft)| draft).find(|draft| draft.begun.key == SpaceKey { space: SpaceId(0), part })
    };
    let mut others = 0_u32;
    for part in 0..parts - 1 {
        let pages = known(part).ok_or_else(|| missing(part))?;
        lengths.insert(part, pages);
        others = others.checked_add(pages).ok_or_else(|| missing(part))?;
    }
    let last = parts - 1;
    let total = drafted(0).and_then(|draft| draft.ended.as_ref()?.page0.as_ref()).map(|page0| page0.size_pages);
    let highest = drafted(last).and_then(|draft| draft.ended.as_ref()?.page_max).map_or(0, |page| page.0 + 1);
    let pages = match total {
        Some(total) => total.checked_sub(others).ok_or_else(|| missing(last))?,
        None => known(last).ok_or_else(|| missing(last))?,
    };
    lengths.insert(last, pages.max(highest));
    Ok(lengths)
}

fn record(
    name: String,
    draft: SpaceDraft,
    parent: Option<&Arc<Base>>,
    around: &Surroundings,
    lengths: &HashMap<u16, u32>,
    slots: &SlotTable,
    maps: &mut MapPacks,
) -> Result<SpaceRecord, BackupError> {
    let begun = draft.begun.clone();
    let key = begun.key;
    let base = parent.filter(|_| begun.origin == Origin::Delta);
    let known = base.and_then(|base| Some((&**base, base.spaces.get(&key)?)));
    let Some(ended) = draft.ended.clone() else { return Err(BackupError::Unfinished { path: begun.name }) };
    let page0 = ended.page0.as_ref();
    if begun.origin == Origin::Delta && known.is_none() && page0.is_none() {
        return Err(BackupError::NeedsFull(Obstacle::Page0Missing { name }));
    }
    if begun.origin == Origin::Delta && known.is_none() {
        let pages = draft.pages_missing(around.voided.as_ref());
        if pages > 0 {
            return Err(BackupError::NeedsFull(Obstacle::PagesMissing { name, pages }));
        }
    }
    let drafted = if key.space == SpaceId(0) { lengths.get(&key.part).copied() } else { None };
    let pages = drafted.or(draft.pages).or(known.map(|(_, record)| record.pages)).unwrap_or(0);
    let known_flags = known.map(|(_, record)| record.flags);
    let flags = page0.map(|page0| page0.flags.bits()).or(known_flags).unwrap_or(0);
    let encrypted = page0.map(|page0| page0.crypt == Crypt::Present);
    let encrypted = encrypted.or(known.and_then(|(_, record)| record.encrypted));
    let identity = around.identities.get(&begun.name).copied();
    let mode = around.modes.get(&begun.name).or_else(|| around.modes.get(&name)).copied();
    let suspect = around.deleted_spaces.contains(&key.space);
    let map = draft.map(pages, known, slots, maps)?;
    Ok(SpaceRecord { key, name, page_size: begun.page_size, flags, encrypted, pages, identity, suspect, mode, map })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::collect::SpaceBegun;
    use crate::model::PageSize;

    fn space(name: &str, space: u32, origin: Origin) -> SpaceDraft {
        let (key, page_size) = (SpaceKey { space: SpaceId(space), part: 0 }, PageSize::new(16_384).unwrap());
        SpaceDraft::new(SpaceBegun { origin, name: name.to_owned(), key, page_size })
    }

    fn blank(path: &str, origin: Origin) -> (Origin, FileDraft) {
        (origin, FileDraft { path: path.to_owned(), blank: Some(origin), bytes: 65_536, ..FileDraft::default() })
    }

    /// What is left, as `name=space` or as a name alone of a file without a first page.
    fn left(mut drafts: Drafts) -> String {
        let named = final_names(&mut drafts).unwrap();
        let spaces = named.iter().map(|(name, draft)| format!("{name}={}", draft.begun.key.space));
        let mut left: Vec<String> = spaces.chain(drafts.files.values().map(|draft| draft.path.clone())).collect();
        left.sort();
        left.join(" ")
    }

    #[test]
    fn files_without_a_first_page_are_renamed_and_removed_as_others_are() {
        let renamed = |pairs: &[(&str, &str)]| pairs.iter().map(|(from, to)| ((*from).into(), (*to).into())).collect();
        let drafts = Drafts {
            blanks: ["d/a", "d/b", "d/c", "d/e"].map(|path| blank(path, Origin::Whole)).into(),
            spaces: vec![space("d/f", 5, Origin::Whole)],
            renamed: renamed(&[("d/a", "d/b"), ("d/b", "d/a"), ("d/e", "d/g"), ("d/f", "d/e")]),
            deleted: vec!["d/c".to_owned()],
            ..Drafts::default()
        };
        assert_eq!(left(drafts), "d/a d/b d/e=5 d/g");
    }

    #[test]
    fn what_came_anew_goes_before_a_file_without_a_first_page_and_the_other_way_round() {
        let drafts = Drafts {
            blanks: vec![blank("d/a", Origin::Whole), blank("d/b", Origin::New), blank("d/c", Origin::New)],
            spaces: vec![space("d/a", 5, Origin::New), space("d/b", 6, Origin::Whole), space("d/c", 7, Origin::New)],
            ..Drafts::default()
        };
        assert_eq!(left(drafts), "d/a=5 d/b d/c=7");
    }

    #[test]
    fn a_file_without_a_first_page_must_be_one_that_recovery_writes() {
        let check = |path: &str, unwritten: &[&str]| {
            let mut drafts = Drafts { blanks: vec![blank(path, Origin::Whole)], ..Drafts::default() };
            drafts.files.insert("d/t.frm".to_owned(), FileDraft::default());
            assert_eq!(final_names(&mut drafts).unwrap().len(), 0);
            let unwritten = unwritten.iter().map(|name| (*name).to_owned()).collect();
            check_blanks(&drafts, &Surroundings { unwritten, ..Surroundings::default() })
        };
        check("d/t.ibd", &["d/t.ibd"]).unwrap();
        check("d/#sql-alter-1.ibd", &[]).unwrap();
        for path in ["d/t.ibd", "undo001"] {
            let error = check(path, &["d/u.ibd"]).unwrap_err();
            assert!(matches!(&error, BackupError::Blank { paths } if paths == path), "{error}");
        }
    }

    #[test]
    fn every_file_that_appeared_must_have_come_under_its_last_name() {
        let check = |appeared: &str| {
            let mut drafts = Drafts {
                blanks: vec![blank("d/b.ibd", Origin::New)],
                spaces: vec![space("d/a.ibd", 5, Origin::New), space("d/old.ibd", 6, Origin::Whole)],
                renamed: vec![("d/old.ibd".to_owned(), "d/new.ibd".to_owned())],
                ..Drafts::default()
            };
            let named = final_names(&mut drafts).unwrap();
            let appeared = appeared.split(' ').map(str::to_owned).collect();
            check_appeared(&named, &drafts, &Surroundings { appeared, ..Surroundings::default() })
        };
        check("d/a.ibd d/b.ibd d/new.ibd").unwrap();
        let error = check("d/a.ibd d/old.ibd d/c.ibd").unwrap_err();
        assert!(matches!(&error, BackupError::LeftOut { names } if names == "d/old.ibd, d/c.ibd"), "{error}");
    }
}
