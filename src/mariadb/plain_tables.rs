//! The files of Aria, MyISAM, CSV, ARCHIVE and MERGE tables at one moment, by what tells whether a copy of them is of use.
//!
//! Statements that Aria's log does not hold (TRUNCATE, DELETE of all rows, rows put into an empty table, REPAIR, OPTIMIZE, ALTER)
//! write a new LSN into the header of the index file at once, below which recovery skips the log. All else of a
//! transactional table is in the log. Tables that are not transactional are written by nobody while they are copied,
//! and their header counts rows, lengths and updates. Inodes tell nothing: TRUNCATE and OPTIMIZE keep them, and so does the
//! server's log of DDL, which has no TRUNCATE (seen on 10.11.19).
//!
//! Source: MariaDB `storage/maria/ma_open.c` (`_ma_state_info_write_sub`), `ma_delete_all.c`, `storage/myisam/mi_open.c`.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read},
    path::Path,
};

/// Bytes of an index file that are compared: header and state up to the count of updates.
pub const HEAD_BYTES: usize = 124;

/// How often the file is open, and whether it changed since: neither says anything of rows.
const OPEN_AT: std::ops::Range<usize> = 24..28;
const CREATED_AT: std::ops::Range<usize> = 28..35;
const SKIP_AT: std::ops::Range<usize> = 42..49;

/// First bytes of an index file of Aria.
const ARIA_MAGIC: [u8; 3] = [0xfe, 0xfe, 0x09];

/// Written even while everything else waits.
const LOG_TABLES: [&str; 2] = ["mysql/general_log.", "mysql/slow_log."];

/// A file, as far as it is compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlainFile {
    /// Length in bytes.
    pub bytes: u64,
    /// Its first bytes; of an index file only.
    pub head: Vec<u8>,
}

impl PlainFile {
    /// True when a copy that begins with `head` and is `bytes` long is as good as this file.
    pub fn is_as(&self, bytes: u64, head: &[u8]) -> bool {
        if self.head.is_empty() {
            return self.bytes == bytes;
        }
        if self.head.len() < HEAD_BYTES || head.len() < HEAD_BYTES {
            return self.head == head;
        }
        let same = |range: std::ops::Range<usize>| self.head[range.clone()] == head[range];
        let state = if is_logged(&self.head) { [CREATED_AT, SKIP_AT] } else { [OPEN_AT.end..HEAD_BYTES, 0..0] };
        same(0..OPEN_AT.start) && state.into_iter().all(same)
    }
}

/// True for the index file of a transactional table.
fn is_logged(head: &[u8]) -> bool {
    head.starts_with(&ARIA_MAGIC) && head.get(CREATED_AT).is_some_and(|lsn| lsn.iter().any(|byte| *byte != 0))
}

/// True for the files whose first bytes are compared.
pub fn has_head(path: &str) -> bool {
    path.ends_with(".MAI") || path.ends_with(".MYI")
}

/// All such files in the datadir, by their path.
#[derive(Debug, Clone, Default)]
pub struct PlainTables(pub BTreeMap<String, PlainFile>);

impl PlainTables {
    /// Looks at all files. Those that vanish meanwhile, and tables that ALTER TABLE is still building, are left out.
    ///
    /// # Errors
    /// When a directory or a file cannot be read.
    pub fn look(datadir: &Path) -> io::Result<PlainTables> {
        let mut files = BTreeMap::new();
        for entry in datadir.read_dir()? {
            let entry = entry?;
            let Some(schema) = entry.file_name().to_str().map(str::to_owned) else { continue };
            if schema == "lost+found" || !entry.path().is_dir() {
                continue;
            }
            let Some(tables) = unless_gone(entry.path().read_dir())? else { continue };
            for table in tables {
                let table = table?;
                let Some(name) = table.file_name().to_str().map(str::to_owned) else { continue };
                let path = format!("{schema}/{name}");
                let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
                let known = matches!(extension, "MAI" | "MAD" | "MYI" | "MYD" | "CSV" | "ARZ" | "MRG");
                if !known || name.starts_with("#sql") || LOG_TABLES.iter().any(|table| path.starts_with(table)) {
                    continue;
                }
                if let Some(file) = unless_gone(read(&table.path(), has_head(&path)))? {
                    files.insert(path, file);
                }
            }
        }
        // How long the rows of a transactional table are in its file is the log's business.
        let logged: Vec<String> = files
            .iter()
            .filter(|(_, file)| is_logged(&file.head))
            .filter_map(|(path, _)| Some(format!("{}.MAD", path.strip_suffix(".MAI")?)))
            .collect();
        for path in logged {
            files.remove(&path);
        }
        Ok(PlainTables(files))
    }
}

fn unless_gone<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn read(path: &Path, with_head: bool) -> io::Result<PlainFile> {
    let mut head = Vec::new();
    if !with_head {
        return Ok(PlainFile { bytes: path.metadata()?.len(), head });
    }
    let file = File::open(path)?;
    let bytes = file.metadata()?.len();
    file.take(HEAD_BYTES as u64).read_to_end(&mut head)?;
    Ok(PlainFile { bytes, head })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(magic: [u8; 3], lsn: u8, skip: u8, rows: u8) -> Vec<u8> {
        let mut head = vec![0; HEAD_BYTES];
        head[..3].copy_from_slice(&magic);
        (head[CREATED_AT.start], head[SKIP_AT.start], head[56]) = (lsn, skip, rows);
        head
    }

    fn file(head: Vec<u8>) -> PlainFile {
        PlainFile { bytes: 8192, head }
    }

    #[test]
    fn rows_of_a_transactional_table_may_differ_and_its_lsns_may_not() {
        let now = file(index(ARIA_MAGIC, 3, 4, 9));
        assert!(now.is_as(1, &index(ARIA_MAGIC, 3, 4, 8)));
        assert!(!now.is_as(8192, &index(ARIA_MAGIC, 3, 3, 9)));
        assert!(!now.is_as(8192, &index(ARIA_MAGIC, 2, 4, 9)));
        assert!(!now.is_as(8192, &[]));
    }

    #[test]
    fn nothing_of_other_tables_may_differ_but_how_often_they_are_open() {
        for magic in [ARIA_MAGIC, [0xfe, 0xfe, 0x07]] {
            let now = file(index(magic, 0, 0, 9));
            let mut open = index(magic, 0, 0, 9);
            open[OPEN_AT.start + 1] = 1;
            assert!(now.is_as(8192, &open));
            assert!(!now.is_as(8192, &index(magic, 0, 0, 8)));
        }
        let rows = PlainFile { bytes: 70, head: Vec::new() };
        assert!(rows.is_as(70, &[]) && !rows.is_as(71, &[]));
    }

    #[test]
    fn log_tables_and_unfinished_ones_are_not_looked_at() {
        let dir = tempfile::tempdir().unwrap();
        for schema in ["mysql", "a"] {
            std::fs::create_dir(dir.path().join(schema)).unwrap();
        }
        for path in [
            "mysql/general_log.CSV",
            "a/#sql-alter-1.MAI",
            "a/t.MAI",
            "a/t.MAD",
            "a/u.MYD",
            "a/v.ARZ",
            "a/w.MRG",
            "a/t.frm",
        ] {
            std::fs::write(dir.path().join(path), index(ARIA_MAGIC, 1, 1, 1)).unwrap();
        }
        let found = PlainTables::look(dir.path()).unwrap();
        assert_eq!(found.0.keys().collect::<Vec<_>>(), ["a/t.MAI", "a/u.MYD", "a/v.ARZ", "a/w.MRG"]);
    }
}
