//! Follows tables of other engines than InnoDB through the DDL of a backup.
//!
//! The tool copies such tables while DDL goes on. Under its lock it then copies every `.frm`, and last it repeats the server's
//! log of DDL on what it has sent: files are renamed, removed and sent anew. It does so by name, and a name can have been
//! another table's when its files were copied, or have no copy at all. Then it ends with 0 and `completed OK!`, and a
//! table is missing, or has another's rows (seen on 10.11.19: Aria and MyISAM tables that were renamed or dropped in the window).
//! So what it sent is believed in these cases alone, and all else is a backup to be taken again:
//!
//! - a file that was sent and not touched again;
//! - a file that was sent anew, which is as it was under the lock, and not renamed thereafter;
//! - a file that was removed, when its table has no `.frm` under the lock.
//!
//! Source: MariaDB `extra/mariabackup/ddl_log.cc` (`process_rename`, `process_remove`, `process_recopy`).

use std::collections::{BTreeMap, BTreeSet};

use super::BackupError;
use super::drafts::FileDraft;
use crate::mariadb::plain_tables::{PlainFile, PlainTables, has_head};

/// First bytes of a table's `.frm`; a view's is a text.
const FRM_MAGIC: [u8; 2] = [0xfe, 0x01];
/// Where a `.frm` says which engine it is of, and of which its partitions are (MariaDB `sql/handler.h`, `legacy_db_type`).
const ENGINE_AT: usize = 3;
const PARTITION_ENGINE_AT: usize = 61;
const PARTITIONED: u8 = 20;

/// Tables named in an error.
const NAMED_MAX: usize = 10;

/// The engine by its number in a `.frm`, and the files that each of its tables has.
const ENGINES: [(u8, &str, &[&str]); 5] = [
    (9, "MyISAM", &["MYI", "MYD"]),
    (10, "MERGE", &["MRG"]),
    (16, "ARCHIVE", &["ARZ"]),
    (17, "CSV", &["CSM", "CSV"]),
    (42, "Aria", &["MAI", "MAD"]),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Definition {
    engine: &'static str,
    extensions: &'static [&'static str],
    partitioned: bool,
}

impl Definition {
    fn of(head: &[u8]) -> Option<Definition> {
        if !head.starts_with(&FRM_MAGIC) {
            return None;
        }
        let partitioned = *head.get(ENGINE_AT)? == PARTITIONED;
        let number = *head.get(if partitioned { PARTITION_ENGINE_AT } else { ENGINE_AT })?;
        let (_, engine, extensions) = ENGINES.iter().find(|(engine, ..)| *engine == number)?;
        Some(Definition { engine, extensions, partitioned })
    }
}

/// Tables of other engines than InnoDB, as far as the stream has told of them.
#[derive(Debug, Default)]
pub(super) struct Altered {
    /// By the path of the `.frm` without its extension.
    tables: BTreeMap<String, Definition>,
    /// Files that may not be what their name says.
    doubtful: BTreeSet<String>,
    /// First bytes of index files.
    heads: BTreeMap<String, Vec<u8>>,
    /// Tables whose `.frm` was sent and then removed.
    removed: BTreeSet<String>,
}

impl Altered {
    /// A file begins, or begins anew.
    pub(super) fn began(&mut self, path: &str) {
        self.doubtful.remove(path);
        if let Some(table) = path.strip_suffix(".frm") {
            self.removed.remove(table);
            self.tables.remove(table);
        }
    }

    /// A `.frm` or an index file begins with these bytes.
    pub(super) fn defined(&mut self, path: &str, head: &[u8]) {
        if has_head(path) {
            self.heads.insert(path.to_owned(), head.to_vec());
        }
        if let (Some(table), Some(definition)) = (path.strip_suffix(".frm"), Definition::of(head)) {
            self.tables.insert(table.to_owned(), definition);
        }
    }

    /// A file got another name, whether or not it was sent.
    pub(super) fn renamed(&mut self, from: &str, to: &str) {
        self.doubtful.remove(from);
        self.doubtful.insert(to.to_owned());
        if let Some(head) = self.heads.remove(from) {
            self.heads.insert(to.to_owned(), head);
        }
    }

    /// A file that was sent is no part of the backup.
    pub(super) fn removed(&mut self, path: &str) {
        self.doubtful.remove(path);
        if let Some(table) = path.strip_suffix(".frm") {
            self.tables.remove(table);
            self.removed.insert(table.to_owned());
        }
    }

    /// Checks that each table has its files, and that they are its own; `files` are those of the backup.
    ///
    /// # Errors
    /// [`BackupError::TablesAltered`] names those of which that is not certain.
    pub(super) fn check<T>(&self, files: &BTreeMap<String, T>) -> Result<(), BackupError> {
        let of_table = self.tables.iter().filter(|(table, definition)| !self.is_whole(table, definition, files));
        let mut names: Vec<String> =
            of_table.map(|(table, definition)| format!("{table} ({})", definition.engine)).collect();
        names.extend(self.removed.iter().cloned());
        named(names)
    }

    /// Checks that the files that were sent are as good as those that the server had when nothing could be written any more.
    ///
    /// # Errors
    /// [`BackupError::TablesAltered`] names the tables of others.
    pub(super) fn compare(&self, files: &BTreeMap<String, FileDraft>, plain: &PlainTables) -> Result<(), BackupError> {
        let empty = Vec::new();
        let differs = |path: &str, file: &PlainFile| {
            files.get(path).is_none_or(|draft| !file.is_as(draft.bytes, self.heads.get(path).unwrap_or(&empty)))
        };
        // A file without a definition is no table's.
        let of_table = |path: &str| {
            let (stem, _) = path.rsplit_once('.')?;
            let table = stem.split_once("#P#").map_or(stem, |(table, _)| table);
            files.contains_key(&format!("{table}.frm")).then(|| table.to_owned())
        };
        let altered = plain.0.iter().filter(|(path, file)| differs(path, file)).filter_map(|(path, _)| of_table(path));
        named(altered.collect::<BTreeSet<_>>().into_iter().collect())
    }

    /// Takes out of `files` what is left of tables that were renamed or dropped: without a `.frm` they are none, and a later CREATE
    /// TABLE or CREATE DATABASE would stumble over them.
    pub(super) fn drop_leftovers<T>(files: &mut BTreeMap<String, T>) {
        let is_leftover = |path: &String| {
            let Some((stem, extension)) = path.rsplit_once('.').filter(|(stem, _)| stem.contains('/')) else {
                return false;
            };
            // A table of ARCHIVE holds its own definition.
            let of_engine = ENGINES.iter().any(|(_, engine, known)| *engine != "ARCHIVE" && known.contains(&extension));
            let table = stem.split_once("#P#").map_or(stem, |(table, _)| table);
            of_engine && !files.contains_key(&format!("{table}.frm"))
        };
        let leftovers: Vec<String> = files.keys().filter(|path| is_leftover(path)).cloned().collect();
        for path in leftovers {
            files.remove(&path);
        }
    }

    fn is_whole<T>(&self, table: &str, definition: &Definition, files: &BTreeMap<String, T>) -> bool {
        // What an ALTER TABLE at work has made so far is no table yet.
        if table.rsplit('/').next().is_some_and(|name| name.starts_with("#sql")) {
            return true;
        }
        definition.extensions.iter().all(|extension| {
            if definition.partitioned {
                let (prefix, suffix) = (format!("{table}#P#"), format!(".{extension}"));
                let mut parts = files.range(prefix.clone()..).take_while(|(path, _)| path.starts_with(&prefix));
                return parts.any(|(path, _)| path.ends_with(&suffix) && !self.doubtful.contains(path));
            }
            let path = format!("{table}.{extension}");
            files.contains_key(&path) && !self.doubtful.contains(&path)
        })
    }
}

fn named(mut names: Vec<String>) -> Result<(), BackupError> {
    let more = names.len().saturating_sub(NAMED_MAX);
    names.truncate(NAMED_MAX);
    if names.is_empty() { Ok(()) } else { Err(BackupError::TablesAltered { names: names.join(", "), more }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(engine: u8) -> Vec<u8> {
        let mut head = vec![0; 64];
        head[..4].copy_from_slice(&[0xfe, 0x01, 0x0a, engine]);
        head
    }

    /// A backup as the stream tells it: `+path` is sent, `-path` removed, `from>to` renamed whether or not it was sent.
    fn told(steps: &str) -> Result<(), String> {
        let (mut altered, mut files) = (Altered::default(), BTreeMap::new());
        for step in steps.split_whitespace() {
            if let Some(path) = step.strip_prefix('+') {
                altered.began(path);
                altered.defined(path, &head(if path.starts_with("a/") { 42 } else { 9 }));
                files.insert(path.to_owned(), ());
            } else if let Some(path) = step.strip_prefix('-') {
                if files.remove(path).is_some() {
                    altered.removed(path);
                }
            } else if let Some((from, to)) = step.split_once('>') {
                altered.renamed(from, to);
                if files.remove(from).is_some() {
                    files.insert(to.to_owned(), ());
                }
            }
        }
        altered.check(&files).map_err(|error| error.to_string())
    }

    const TABLE: &str = "+a/t.MAI +a/t.MAD +a/t.frm ";

    #[test]
    fn tables_that_were_left_alone_or_sent_anew_or_dropped_are_believed() {
        for steps in [
            TABLE.to_owned(),
            format!("{TABLE} +a/t.MAI +a/t.MAD +a/t.frm"),
            "+a/t.MAI +a/t.MAD -a/t.MAI -a/t.MAD -a/t.frm".to_owned(),
            format!("{TABLE} -a/t.MAI -a/t.MAD -a/t.frm +a/t.MAI +a/t.MAD +a/t.frm"),
            // Renamed and dropped: no .frm is left.
            "+a/t.MAI +a/t.MAD a/t.MAI>a/u.MAI a/t.MAD>a/u.MAD -a/u.MAI -a/u.MAD".to_owned(),
            "a/t.MAI>a/u.MAI a/t.MAD>a/u.MAD".to_owned(),
            "+a/#sql-alter-1-2.frm".to_owned(),
            "+d/t.MYI +d/t.MYD +d/t.frm".to_owned(),
        ] {
            assert_eq!(told(&steps), Ok(()), "{steps}");
        }
    }

    #[test]
    fn tables_that_the_tool_lost_are_named() {
        for steps in [
            // Never sent, as a file that had another name when the tool looked for it.
            "+a/t.frm".to_owned(),
            "+a/t.MAI +a/t.frm".to_owned(),
            "+a/t.frm a/s.MAI>a/t.MAI a/s.MAD>a/t.MAD +a/t.frm".to_owned(),
            // Sent when the name was another table's, or the table's own already.
            format!("{TABLE} a/s.MAI>a/t.MAI a/s.MAD>a/t.MAD +a/t.frm"),
            format!("+a/s.MAI +a/s.MAD {TABLE} a/s.MAI>a/t.MAI a/s.MAD>a/t.MAD +a/t.frm"),
            // Sent anew as it was under the lock, and then renamed as it had been before.
            format!("{TABLE} +a/s.MAI +a/s.MAD a/s.MAI>a/t.MAI a/s.MAD>a/t.MAD +a/t.frm"),
            // There under the lock, and removed with what was dropped before it.
            format!("{TABLE} -a/t.MAI -a/t.MAD -a/t.frm"),
        ] {
            let error = told(&steps).unwrap_err();
            assert!(error.contains("a/t"), "{steps}: {error}");
        }
    }

    #[test]
    fn files_that_are_not_as_the_server_has_them_in_the_end_are_named() {
        let index = |lsn: u8| [&[0xfe, 0xfe, 0x09][..], &[0; 25], &[lsn; 96]].concat();
        let mut altered = Altered::default();
        altered.defined("a/t.MAI", &index(1));
        let sent = [("a/t.frm", 900), ("a/t.MAI", 8192), ("a/m.frm", 900), ("a/m.MYD", 70), ("a/p.frm", 9)];
        let draft = |(path, bytes): (&str, u64)| (path.to_owned(), FileDraft { bytes, ..FileDraft::default() });
        let files: BTreeMap<String, FileDraft> = sent.into_iter().map(draft).collect();
        let check = |path: &str, bytes: u64, head: Vec<u8>| {
            let found = BTreeMap::from([(path.to_owned(), PlainFile { bytes, head })]);
            altered.compare(&files, &PlainTables(found)).map_err(|error| error.to_string())
        };
        assert_eq!(check("a/t.MAI", 8192, index(1)), Ok(()));
        assert!(check("a/t.MAI", 8192, index(2)).unwrap_err().ends_with(": a/t"));
        assert_eq!(check("a/m.MYD", 70, Vec::new()), Ok(()));
        assert!(check("a/m.MYD", 0, Vec::new()).unwrap_err().ends_with(": a/m"));
        // A partition that did not come at all.
        assert!(check("a/p#P#p0.MYD", 7, Vec::new()).unwrap_err().ends_with(": a/p"));
        assert_eq!(check("a/none.MYD", 7, Vec::new()), Ok(()), "no table");
    }

    #[test]
    fn files_without_a_table_are_left_out() {
        let sent = "a/t.MAI a/t.MAD a/t.frm a/u.MAI a/u.MAD a/p#P#0.MYI a/p.frm a/q#P#0.MYI a/db.opt gone/m.MYD gone/r.ARZ aria_log.1";
        let mut files: BTreeMap<String, ()> = sent.split(' ').map(|path| (path.to_owned(), ())).collect();
        Altered::drop_leftovers(&mut files);
        let left = "a/db.opt a/p#P#0.MYI a/p.frm a/t.MAD a/t.MAI a/t.frm aria_log.1 gone/r.ARZ";
        assert_eq!(files.into_keys().collect::<Vec<_>>().join(" "), left);
    }

    #[test]
    fn a_partitioned_table_has_files_of_its_partitions_engine() {
        let mut bytes = head(PARTITIONED);
        bytes[PARTITION_ENGINE_AT] = 9;
        let mut altered = Altered::default();
        altered.defined("d/t.frm", &bytes);
        let mut files = BTreeMap::from([("d/t#P#p0.MYI".to_owned(), ()), ("d/t.par".to_owned(), ())]);
        assert!(altered.check(&files).unwrap_err().to_string().contains("d/t (MyISAM)"));
        files.insert("d/t#P#p0.MYD".to_owned(), ());
        altered.check(&files).unwrap();
        bytes[PARTITION_ENGINE_AT] = 12;
        assert_eq!(Definition::of(&bytes), None);
    }

    proptest::proptest! {
        #[test]
        fn any_head_of_a_frm_is_read_without_a_panic(bytes: Vec<u8>) {
            Definition::of(&bytes);
        }
    }
}
