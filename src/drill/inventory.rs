//! What the files of a backup say that the server must have.

use std::collections::{BTreeMap, BTreeSet};

use super::findings::Findings;
use crate::format::ProofSpaces;
use crate::restore::{PlannedFile, TableName, table_of};

/// Beginning of names that belong to no table: what an ALTER leaves that was interrupted.
const TEMPORARY: &str = "#sql";
/// Beginning of the files of FULLTEXT indexes, in small letters.
const FULLTEXT: &str = "fts_";
/// Schemas that the server makes up; they have no files.
const MADE_UP: [&str; 2] = ["information_schema", "performance_schema"];

/// Sort of a table that a server shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sort {
    /// It has rows, and can be checked.
    Table,
    /// It has none.
    View,
}

/// Tables and tablespaces by the names of the files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Inventory {
    /// What has a definition: tables, sequences and views.
    pub definitions: BTreeSet<TableName>,
    /// What has any file.
    named: BTreeMap<TableName, u64>,
    /// Tablespace files, as InnoDB's dictionary names them.
    spaces: BTreeSet<String>,
}

impl Inventory {
    /// What these files say.
    pub fn of(files: &[PlannedFile]) -> Inventory {
        let mut inventory = Inventory::default();
        for file in files {
            let Some((_, name)) = file.path.split_once('/') else { continue };
            let Some(table) = table_of(&file.path).filter(|table| !MADE_UP.contains(&table.schema.as_str())) else {
                continue;
            };
            if name.starts_with(TEMPORARY) {
                continue;
            }
            if name.ends_with(".frm") {
                inventory.definitions.insert(table.clone());
            }
            if let Some(space) = file.path.strip_suffix(".ibd") {
                inventory.spaces.insert(space.to_owned());
            }
            let bytes = inventory.named.entry(table).or_default();
            *bytes = bytes.saturating_add(file.bytes);
        }
        inventory
    }

    /// Bytes of the files of `table`.
    pub fn bytes(&self, table: &TableName) -> u64 {
        self.named.get(table).copied().unwrap_or(0)
    }

    /// Tablespace files in the backup.
    pub fn spaces(&self) -> u64 {
        self.spaces.len() as u64
    }

    /// Compares with the tables that the server shows.
    pub fn compare(&self, found: &BTreeMap<TableName, Sort>, findings: &mut Findings) {
        for table in self.definitions.iter().filter(|table| !found.contains_key(table)) {
            findings.fail(format!("{table} is in the backup, and the restored server does not have it"));
        }
        for table in found.keys().filter(|table| !self.named.contains_key(table)) {
            findings.fail(format!("{table} is not in the backup, and the restored server has it"));
        }
    }

    /// Compares with the tablespaces of InnoDB's dictionary; gives the numbers, and the tables whose files are missing.
    pub fn compare_spaces(
        &self,
        found: &BTreeSet<String>,
        findings: &mut Findings,
    ) -> (ProofSpaces, BTreeSet<TableName>) {
        let known = self.spaces.iter().filter(|space| found.contains(*space)).count() as u64;
        let strays: Vec<&str> =
            self.spaces.iter().filter(|space| !found.contains(*space)).map(String::as_str).collect();
        if !strays.is_empty() {
            let (count, first) = (strays.len(), strays[0]);
            findings.warn(format!(
                "InnoDB's dictionary does not know {count} of the tablespace files, such as {first}.ibd"
            ));
        }
        let mut tables = BTreeSet::new();
        for space in found.iter().filter(|space| !self.spaces.contains(*space)) {
            let Some((_, name)) = space.split_once('/').filter(|(_, name)| !name.starts_with(TEMPORARY)) else {
                continue;
            };
            let table = table_of(&format!("{space}.ibd"));
            match table.filter(|_| !name.to_ascii_lowercase().starts_with(FULLTEXT)) {
                // Whether it was discarded, CHECK TABLE tells.
                Some(table) => drop(tables.insert(table)),
                None => findings.fail(format!("InnoDB's dictionary speaks of {space}.ibd, which is not in the backup")),
            }
        }
        (ProofSpaces { expected: self.spaces(), found: known }, tables)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(schema: &str, table: &str) -> TableName {
        TableName { schema: schema.to_owned(), table: table.to_owned() }
    }

    fn inventory() -> Inventory {
        let file = |path: &str| PlannedFile { path: path.to_owned(), bytes: 10, mode: 0o660 };
        let files = [
            "ibdata1",
            "mysql/user.frm",
            "shop/db.opt",
            "shop/item.frm",
            "shop/item.ibd",
            "shop/@00e4@0020b.frm",
            "shop/parts.frm",
            "shop/parts.par",
            "shop/parts#P#p0.ibd",
            "shop/parts#P#p1.ibd",
            "shop/view.frm",
            "shop/#sql-alter-1-2.frm",
            "shop/#sql-ib77.ibd",
            "shop/stray.ibd",
            "shop/archive.ARZ",
            "performance_schema/x.frm",
        ];
        Inventory::of(&files.map(file))
    }

    fn server() -> BTreeMap<TableName, Sort> {
        let tables = [("mysql", "user"), ("shop", "item"), ("shop", "ä b"), ("shop", "parts"), ("shop", "archive")];
        let tables = tables.map(|(schema, table)| (name(schema, table), Sort::Table));
        tables.into_iter().chain([(name("shop", "view"), Sort::View)]).collect()
    }

    fn names(list: &[&str]) -> BTreeSet<String> {
        list.iter().map(|name| (*name).to_owned()).collect()
    }

    const SPACES: [&str; 3] = ["shop/item", "shop/parts#P#p0", "shop/parts#P#p1"];

    #[test]
    fn a_server_that_has_all_and_nothing_else_is_as_the_backup() {
        let (inventory, mut findings) = (inventory(), Findings::default());
        assert_eq!((inventory.definitions.len(), inventory.bytes(&name("shop", "parts"))), (5, 40));
        inventory.compare(&server(), &mut findings);
        assert_eq!(findings, Findings::default());
        let (spaces, tables) = inventory.compare_spaces(&names(&SPACES), &mut findings);
        assert_eq!((spaces, tables.len()), (ProofSpaces { expected: 4, found: 3 }, 0));
        assert!(findings.failures.is_empty() && findings.warnings[0].contains("shop/stray.ibd"), "{findings:?}");
    }

    #[test]
    fn every_table_that_is_missing_or_more_is_named() {
        let (inventory, mut findings) = (inventory(), Findings::default());
        let mut found = server();
        found.remove(&name("shop", "ä b"));
        found.remove(&name("shop", "view"));
        found.insert(name("shop", "more"), Sort::Table);
        inventory.compare(&found, &mut findings);
        let named: Vec<&str> = findings.failures.iter().filter_map(|text| text.split(" is ").next()).collect();
        assert_eq!(named, ["shop.view", "shop.ä b", "shop.more"]);
    }

    #[test]
    fn tables_whose_tablespaces_are_missing_are_to_be_checked() {
        let (inventory, mut findings) = (inventory(), Findings::default());
        let more = ["shop/lost", "shop/cut#P#p7", "shop/#sql-ib9", "shop/FTS_0000000000000123_CONFIG"];
        let found = names(&[&SPACES[..], &more].concat());
        let (_, tables) = inventory.compare_spaces(&found, &mut findings);
        assert_eq!(tables, BTreeSet::from([name("shop", "cut"), name("shop", "lost")]));
        assert_eq!(findings.failures.len(), 1);
        assert!(findings.failures[0].contains("FTS_0000000000000123_CONFIG.ibd"), "{findings:?}");
    }
}
