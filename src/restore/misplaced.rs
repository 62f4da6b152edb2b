//! Holds the names and tablespaces of a prepared directory against what they were to be.
//!
//! A tablespace that was made during the backup can come as a file of zeros, its pages being in the redo log alone. When recovery has
//! not the memory to take the log at once, it takes parts of it in turn; each such file that is renamed in a later part than it was
//! made in keeps its earlier name, and may take another's place. The tool notes `Ignoring data file …`, as it does of harmless
//! cases, and ends with 0 and `completed OK!` (seen on 10.11.19 with `--use-memory=64M` and a log of 47 MB). So what each
//! file must be is read before: from its first page, and where that is still to be written from the names in the redo log.
//!
//! Cost: the first KiB of each file, twice; where there are such files, one pass of the redo log.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::{RestoreError, tree};
use crate::mariadb::page::page_space_id;
use crate::mariadb::redo::{HEADER_BYTES, RedoHeader, RedoScanner};
use crate::mariadb::redo_names::FileNames;
use crate::model::{Lsn, SpaceId};

/// Bytes of the smallest page.
const HEAD_BYTES: usize = 1024;

/// Bytes of the redo log read at once.
const READ_BYTES: usize = 1 << 20;

/// Tables named in an error.
const NAMED_MAX: usize = 10;

/// What the files of a directory must be once it is prepared.
#[derive(Debug, Default)]
pub(super) struct Expected {
    /// Files with a first page, by their path below the directory.
    written: BTreeMap<String, SpaceId>,
    /// Files without one, with the tablespace where the redo log tells it.
    unwritten: BTreeMap<String, Option<SpaceId>>,
}

impl Expected {
    /// Looks at a directory that was fetched and is still to be prepared; its backup ends at `last`.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn of(directory: &Path, last: Lsn) -> Result<Expected, RestoreError> {
        let mut expected = Expected::default();
        for path in tree::descendants(directory)? {
            let Some(name) = table_file(directory, &path) else { continue };
            match first_page(&path).map_err(RestoreError::io("read", &path))? {
                First::Written(space) => drop(expected.written.insert(name, space)),
                First::Blank => drop(expected.unwritten.insert(name, None)),
                First::Absent => {}
            }
        }
        if !expected.unwritten.is_empty() {
            let redo = directory.join("ib_logfile0");
            let names = names(&redo, last).map_err(RestoreError::io("read", &redo))?;
            let by_name = names.as_ref().map(FileNames::by_name).unwrap_or_default();
            for (name, space) in &mut expected.unwritten {
                *space = by_name.get(name.as_str()).copied();
            }
        }
        Ok(expected)
    }

    /// Looks at the directory once it was prepared.
    ///
    /// # Errors
    /// [`RestoreError::Misplaced`] names the tables whose files are not what they should be.
    pub fn check(&self, directory: &Path) -> Result<(), RestoreError> {
        let mut wrong = Vec::new();
        for (name, space) in &self.written {
            let is_right = match look(directory, name)? {
                First::Written(found) => found == *space,
                // A file that the log deletes is gone.
                First::Absent => true,
                First::Blank => false,
            };
            if !is_right {
                wrong.push(name.as_str());
            }
        }
        for (name, space) in &self.unwritten {
            let is_right = match (look(directory, name)?, space) {
                (First::Written(found), Some(space)) => found == *space,
                (First::Written(_) | First::Absent, None) => true,
                (First::Absent, Some(_)) | (First::Blank, _) => false,
            };
            if !is_right {
                wrong.push(name);
            }
        }
        if wrong.is_empty() {
            return Ok(());
        }
        let more = wrong.len().saturating_sub(NAMED_MAX);
        wrong.truncate(NAMED_MAX);
        Err(RestoreError::Misplaced { files: wrong.join(", "), more })
    }
}

/// Path below the directory of the file of a table; none of what is no such file, or what an interrupted ALTER TABLE left.
fn table_file(directory: &Path, path: &Path) -> Option<String> {
    let name = path.strip_prefix(directory).ok()?.to_str()?;
    let (_, file) = name.rsplit_once('/')?;
    (file.ends_with(".ibd") && !file.starts_with("#sql")).then(|| name.to_owned())
}

/// What the first page of a file says.
enum First {
    Written(SpaceId),
    Blank,
    /// There is no file, or it is shorter than any page.
    Absent,
}

fn look(directory: &Path, name: &str) -> Result<First, RestoreError> {
    let path: PathBuf = directory.join(name);
    first_page(&path).map_err(RestoreError::io("read", &path))
}

fn first_page(path: &Path) -> io::Result<First> {
    let mut head = [0; HEAD_BYTES];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut head));
    match read {
        Ok(()) if head == [0; HEAD_BYTES] => Ok(First::Blank),
        Ok(()) => Ok(page_space_id(&head).map_or(First::Absent, First::Written)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof) => {
            Ok(First::Absent)
        }
        Err(error) => Err(error),
    }
}

/// Names at the end of the redo log; none if it hides them, or is one that prepare will find wrong.
fn names(path: &Path, last: Lsn) -> io::Result<Option<FileNames>> {
    let mut file = File::open(path)?;
    let mut head = vec![0; HEADER_BYTES];
    file.read_exact(&mut head)?;
    let Ok(header) = RedoHeader::parse(&head) else { return Ok(None) };
    let mut scanner = RedoScanner::new(&header).with_names();
    let mut bytes = vec![0; READ_BYTES];
    loop {
        let read = file.read(&mut bytes)?;
        if read == 0 {
            return Ok(scanner.finish(last).ok().and_then(|summary| summary.names));
        }
        if scanner.push(&bytes[..read]).is_err() {
            return Ok(None);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::mariadb::redo::RedoFormat;
    use crate::mariadb::redo_write::RedoWriter;

    fn page(space: u32) -> Vec<u8> {
        let mut page = vec![0; 4096];
        page[24..26].copy_from_slice(&8_u16.to_be_bytes());
        page[34..38].copy_from_slice(&space.to_be_bytes());
        page
    }

    /// A directory whose log makes a, b and c, swaps a and b, and drops c; and its last LSN.
    fn fetched(format: RedoFormat) -> (tempfile::TempDir, Lsn) {
        let dir = tempfile::tempdir().unwrap();
        let mut log = RedoWriter::new(format, Lsn(1_000_000));
        for (space, name) in [(5, "./db/a.ibd"), (6, "./db/b.ibd"), (7, "/far/db/c.ibd")] {
            log.create(SpaceId(space), name);
        }
        log.commit();
        log.checkpoint();
        for (space, from, to) in [(5, "a", "x"), (6, "b", "a"), (5, "x", "b")] {
            log.rename(SpaceId(space), &format!("./db/{from}.ibd"), &format!("./db/{to}.ibd"));
        }
        log.delete(SpaceId(7), "/far/db/c.ibd");
        log.commit();
        let last = log.end();
        fs::create_dir(dir.path().join("db")).unwrap();
        fs::write(dir.path().join("ib_logfile0"), log.into_file()).unwrap();
        for name in ["a", "b", "c", "#sql-alter-1"] {
            fs::write(dir.path().join(format!("db/{name}.ibd")), [0; 16384]).unwrap();
        }
        fs::write(dir.path().join("db/old.ibd"), page(3)).unwrap();
        (dir, last)
    }

    /// What is said of a directory in which files hold these tablespaces after the prepare.
    fn said(format: RedoFormat, after: &[(&str, Option<u32>)]) -> Result<(), String> {
        let (dir, last) = fetched(format);
        let expected = Expected::of(dir.path(), last).unwrap();
        for (name, space) in after {
            let path = dir.path().join(format!("db/{name}.ibd"));
            match space {
                Some(space) => fs::write(&path, page(*space)).unwrap(),
                None => fs::remove_file(&path).unwrap(),
            }
        }
        expected.check(dir.path()).map_err(|error| error.to_string())
    }

    #[test]
    fn each_file_must_hold_its_own_tablespace() {
        let right = [("a", Some(6)), ("b", Some(5)), ("c", None)];
        assert_eq!(said(RedoFormat::Plain, &right), Ok(()));
        for (change, named) in [
            (("a", Some(5)), "db/a.ibd"),
            (("a", None), "db/a.ibd"),
            (("b", Some(6)), "db/b.ibd"),
            (("old", Some(5)), "db/old.ibd"),
        ] {
            let error = said(RedoFormat::Plain, &[&right[..], &[change]].concat()).unwrap_err();
            assert!(error.contains(named), "{error}");
        }
        let error = said(RedoFormat::Plain, &right[1..]).unwrap_err();
        assert!(error.contains("db/a.ibd") && !error.contains("db/b.ibd"), "still zero: {error}");
    }

    #[test]
    fn a_log_that_hides_names_leaves_it_at_files_that_are_still_zero() {
        let all = [("a", Some(5)), ("b", Some(6)), ("c", None)];
        assert_eq!(said(RedoFormat::EncryptedWhole, &all), Ok(()));
        let error = said(RedoFormat::EncryptedWhole, &all[1..]).unwrap_err();
        assert!(error.contains("db/a.ibd"), "{error}");
    }
}
