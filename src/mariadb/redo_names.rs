//! The names that tablespaces have at the end of a redo log.

use std::collections::BTreeMap;

use super::redo::FILE_OPS_MAX;
use crate::model::SpaceId;

/// The last name of each tablespace whose file a log creates, renames or names as changed, as `schema/table.ibd`; those that the
/// log deletes are not among them.
///
/// Memory: some 100 bytes a tablespace, 100 MiB at the most.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileNames(BTreeMap<SpaceId, String>);

impl FileNames {
    /// Tablespaces by the names of their files.
    pub fn by_name(&self) -> BTreeMap<&str, SpaceId> {
        self.0.iter().map(|(space, name)| (name.as_str(), *space)).collect()
    }

    /// The file of `space` is called `name`, which is as the log has it.
    pub(super) fn named(&mut self, space: SpaceId, name: &[u8]) {
        if self.0.len() >= FILE_OPS_MAX && !self.0.contains_key(&space) {
            return;
        }
        let name = String::from_utf8_lossy(name);
        // Of a table with DATA DIRECTORY the log has another directory, below which it is called the same.
        let mut parts = name.rsplit('/');
        if let (Some(file), Some(schema)) = (parts.next(), parts.next()) {
            self.0.insert(space, format!("{schema}/{file}"));
        }
    }

    /// The file of `space` goes from its name to the one behind the zero byte in `names`; false if there is none.
    pub(super) fn renamed(&mut self, space: SpaceId, names: &[u8]) -> bool {
        let Some(zero) = names.iter().position(|byte| *byte == 0) else { return false };
        self.named(space, &names[zero + 1..]);
        true
    }

    /// The file of `space` is gone.
    pub(super) fn deleted(&mut self, space: SpaceId) {
        self.0.remove(&space);
    }
}
