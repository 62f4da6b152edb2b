//! Decides whether a backup can be an incremental (rule 3: what LSNs cannot see forces a full).

use std::collections::{HashMap, HashSet};

use super::base::Base;
use super::{Obstacle, Source, Survey, Want};
use crate::format::Manifest;
use crate::mariadb::tool::ServerVersion;
use crate::model::SpaceId;

/// What the manifests and the server tell before the parent's map is read.
///
/// # Errors
/// The first thing that speaks against an incremental on `parent`.
pub(super) fn compare(parent: &Manifest, survey: &Survey, depth_max: u32) -> Result<(), Obstacle> {
    let facts = &survey.facts;
    let was = &parent.server;
    if series(&was.version) != Some(facts.version.series()) {
        return Err(Obstacle::Upgraded { parent: was.version.clone(), found: facts.version.to_string() });
    }
    let settings = [
        ("innodb_page_size", was.page_size.to_string(), u32::from(facts.innodb.page_size).to_string()),
        ("innodb_data_file_path", was.data_file_path.clone(), facts.innodb.data_file_path.clone()),
        ("innodb_undo_tablespaces", was.undo_tablespaces.to_string(), facts.innodb.undo_tablespaces.to_string()),
    ];
    for (setting, parent, found) in settings {
        if parent != found {
            return Err(Obstacle::Setting { setting, parent, found });
        }
    }
    if facts.innodb.lsn_current < parent.lsn.last {
        return Err(Obstacle::WentBack { parent: parent.lsn.last, found: facts.innodb.lsn_current });
    }
    let system = system_file(survey);
    let same = match (was.system_file, system) {
        (Some(was), Some(now)) => was.inode == now.inode && was.born_ns == now.born_ns,
        _ => false,
    };
    if !same {
        return Err(Obstacle::OtherTimeline);
    }
    if !parent.filters.is_empty() {
        return Err(Obstacle::Filters);
    }
    if parent.depth >= depth_max {
        return Err(Obstacle::Long { depth: parent.depth });
    }
    Ok(())
}

fn series(version: &str) -> Option<(u16, u16)> {
    version.parse::<ServerVersion>().ok().map(|version| version.series())
}

/// Identity of the first file of the system tablespace.
pub(super) fn system_file(survey: &Survey) -> Option<crate::format::map::FileIdentity> {
    let first = super::system_files(&survey.facts.innodb.data_file_path).into_iter().next()?;
    survey.walk.identity(&first).map(super::source::stored)
}

/// Looks for tablespaces whose file is another one than the parent read: `ALTER TABLE … IMPORT TABLESPACE` puts pages in
/// place that no LSN tells of.
///
/// # Errors
/// The first such tablespace.
pub(super) fn compare_files(parent: &Base, survey: &Survey, source: &dyn Source) -> Result<(), Obstacle> {
    if let Some(record) = parent.spaces.values().find(|record| record.suspect) {
        return Err(Obstacle::Suspect { name: record.name.clone() });
    }
    if let Some(record) = parent.spaces.values().find(|record| record.identity.is_none()) {
        return Err(Obstacle::Unseen { name: record.name.clone() });
    }
    let known: HashMap<(u64, Option<i64>), SpaceId> = parent
        .spaces
        .values()
        .filter_map(|record| record.identity.map(|file| ((file.inode, file.born_ns), record.key.space)))
        .collect();
    let spaces: HashSet<SpaceId> = parent.spaces.values().map(|record| record.key.space).collect();
    for (name, identity) in survey.walk.files() {
        let read = known.get(&(identity.inode, identity.birth_ns));
        // Without a time of birth, the inode may be another table's that was dropped.
        if read.is_some() && (identity.birth_ns.is_some() || !name.contains('/')) {
            continue;
        }
        let space = source.space_on_disk(survey, name).filter(|space| space.0 != 0);
        if read.is_some() && read == space.as_ref() {
            continue;
        }
        // A file that the parent did not read: of a table made since, unless it says that it is one of the parent's.
        if space.is_some_and(|space| spaces.contains(&space)) {
            return Err(Obstacle::Replaced { name: name.to_owned() });
        }
    }
    super::timeline::check(parent, survey, source)
}

/// The reason that a full backup gives.
pub(super) fn full_reason(want: Want, obstacle: Option<&Obstacle>) -> String {
    match (want, obstacle) {
        (_, Some(obstacle)) => obstacle.to_string(),
        (Want::Full, None) => Obstacle::Asked.to_string(),
        (_, None) => Obstacle::First.to_string(),
    }
}
