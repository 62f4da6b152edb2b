//! What can still be brought back from a backup of which some files cannot be restored.

use std::collections::BTreeSet;

use super::RestoreError;
use super::catalogue::{Engine, TableName, role_of};
use super::choice::{Need, need_of};
use super::walk::{read_files, read_spaces};
use crate::format::Manifest;
use crate::repository::Repository;

/// Tables of a backup by whether `fetch --tables` and `restore-table` can bring them back; those of the schemas that the server makes
/// itself are left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Remains {
    /// Files without which no table can be brought back: of the top level, and of the schema `mysql`.
    pub needed_by_all: BTreeSet<String>,
    /// Tables that can be brought back.
    pub whole: BTreeSet<TableName>,
    /// Tables that cannot, because of a file of theirs or of their schema.
    pub hit: BTreeSet<TableName>,
}

impl Remains {
    /// Reads which tables a backup has; `lost` are the files that cannot be restored, by path in the datadir.
    ///
    /// # Errors
    /// When the directories of the page map cannot be read; nothing can be brought back then.
    pub async fn read<'f>(
        repository: &Repository,
        manifest: &Manifest,
        lost: impl Iterator<Item = &'f str>,
    ) -> Result<Remains, RestoreError> {
        let root = repository.map_root(manifest).await?;
        let mut tables = BTreeSet::new();
        for (_, block) in &root.spaces {
            tables.extend(read_spaces(repository, *block).await?.iter().filter_map(|record| table_of(&record.name)));
        }
        for (_, block) in &root.files {
            tables.extend(read_files(repository, *block).await?.iter().filter_map(|record| table_of(&record.path)));
        }
        Ok(Remains::of(tables, lost))
    }

    fn of<'f>(tables: BTreeSet<TableName>, lost: impl Iterator<Item = &'f str>) -> Remains {
        let mut remains = Remains::default();
        let (mut schemas, mut hit) = (BTreeSet::new(), BTreeSet::new());
        for path in lost {
            match need_of(path) {
                Need::All => drop(remains.needed_by_all.insert(path.to_owned())),
                Need::Nobody => {}
                Need::Schema(schema) => drop(schemas.insert(schema)),
                Need::Table(name) => drop(hit.insert(name)),
            }
        }
        for name in tables {
            if !remains.needed_by_all.is_empty() || schemas.contains(&name.schema) || hit.contains(&name) {
                remains.hit.insert(name);
            } else {
                remains.whole.insert(name);
            }
        }
        remains
    }
}

fn table_of(path: &str) -> Option<TableName> {
    let role = role_of(path).filter(|role| role.engine != Some(Engine::FulltextIndex))?;
    (!role.name.is_servers()).then_some(role.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remains(lost: &[&str]) -> (String, String) {
        let files =
            ["a/one.ibd", "a/two.ibd", "a/part#P#p0.ibd", "b/one.MAI", "mysql/user.frm", "sys/x.frm", "ibdata1"];
        let tables = files.iter().filter_map(|path| table_of(path)).collect();
        let Remains { whole, hit, .. } = Remains::of(tables, lost.iter().copied());
        let names = |names: BTreeSet<TableName>| names.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        (names(whole), names(hit))
    }

    #[test]
    fn a_table_is_whole_when_all_that_its_fetch_needs_is() {
        let all = "a.one a.part a.two b.one";
        for (lost, whole, hit) in [
            (&[][..], all, ""),
            (&["a/one.ibd"], "a.part a.two b.one", "a.one"),
            (&["a/one.frm", "a/part#P#p0.ibd"], "a.two b.one", "a.one a.part"),
            (&["a/db.opt"], "b.one", "a.one a.part a.two"),
            (&["b/FTS_0000000000000013_CONFIG.ibd"], "a.one a.part a.two", "b.one"),
            (&["sys/x.frm", "a/two.isl"], all, ""),
            (&["ibdata1"], "", all),
            (&["mysql/proc.MAD"], "", all),
        ] {
            assert_eq!(remains(lost), (whole.to_owned(), hit.to_owned()), "{lost:?}");
        }
    }
}
