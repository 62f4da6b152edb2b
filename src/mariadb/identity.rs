//! Which files the server has, by what a copy cannot imitate: inode and time of birth.
//!
//! LSNs do not see `ALTER TABLE … IMPORT TABLESPACE`, which writes pages with LSN 0, nor a server that was itself restored.
//! Both put new files where old ones were: the same tablespace in another file forces a full backup. Besides, the walk
//! notes modes and owners, so that a restore can set them again.

use std::{
    collections::BTreeMap,
    io,
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Statx, StatxFlags},
    io::Errno,
};

use super::facts::ServerFacts;
use crate::error::{Diagnose, Kind};

/// Most files that a walk remembers, at some 100 bytes each.
const FILES_MAX: usize = 1_000_000;

/// Longest `.isl` file: it holds one path.
const ISL_BYTES_MAX: usize = 4_096;

/// What tells one file from another of the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileIdentity {
    /// Number of the inode.
    pub inode: u64,
    /// Time of birth in nanoseconds since 1970, where the file system keeps it.
    pub birth_ns: Option<i64>,
    /// Length in bytes when the walk came by.
    pub bytes: u64,
}

impl FileIdentity {
    /// True when both are the same file; lengths may differ. A birth time that one lacks decides nothing.
    pub fn same_file(&self, other: &FileIdentity) -> bool {
        let born = match (self.birth_ns, other.birth_ns) {
            (Some(own), Some(other)) => own == other,
            _ => true,
        };
        self.inode == other.inode && born
    }
}

/// Mode and owner of a file or directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ownership {
    /// Permission bits, 12 of them.
    pub mode: u32,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// Where the server's files lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatadirLayout {
    /// The datadir.
    pub datadir: PathBuf,
    /// Files of the system tablespace.
    pub system_files: Vec<PathBuf>,
    /// Directory of the undo tablespaces.
    pub undo_directory: PathBuf,
}

impl DatadirLayout {
    /// Reads the layout off the server's variables (`innodb_data_file_path`, MariaDB `fsp0sysspace.cc`).
    pub fn of(facts: &ServerFacts) -> DatadirLayout {
        let innodb = &facts.innodb;
        let home = facts.in_datadir(&innodb.data_home_dir);
        // `path:size[K|M|G][:autoextend[:max:size]]`, many with `;` between.
        let file = |spec: &str| spec.split(':').next().filter(|path| !path.is_empty()).map(|path| home.join(path));
        DatadirLayout {
            datadir: facts.datadir.clone(),
            system_files: innodb.data_file_path.split(';').filter_map(file).collect(),
            undo_directory: facts.in_datadir(&innodb.undo_directory),
        }
    }
}

/// The server's files at one moment.
#[derive(Debug, Clone)]
pub struct DatadirWalk {
    /// The datadir with all symbolic links resolved.
    pub datadir: PathBuf,
    /// The files of InnoDB by the name that they have in a backup, sorted: `db/t.ibd`, `ibdata1`, `undo001`.
    files: Vec<(Box<str>, FileIdentity)>,
    /// Mode and owner of the datadir itself.
    pub root: Ownership,
    /// Mode and owner of the directory `mysql`, which other directories share mostly.
    pub directories: Ownership,
    /// Mode and owner of the first system tablespace file, which other files share mostly.
    pub plain_files: Ownership,
    /// The entries that differ from these, by their path in the datadir.
    pub exceptions: BTreeMap<String, Ownership>,
}

impl DatadirWalk {
    /// Walks the datadir, the undo directory and the files of the system tablespace.
    ///
    /// A file that vanishes meanwhile was dropped, and is left out. `lost+found` is not looked into.
    ///
    /// # Errors
    /// When a directory or file cannot be read, or there are more than a million files.
    pub fn walk(layout: &DatadirLayout) -> Result<DatadirWalk, WalkError> {
        let datadir = layout.datadir.canonicalize().map_err(|source| at(&layout.datadir, source))?;
        let look = |path: &Path| stat(CWD, path).map_err(|error| at(path, error.into()));
        let root = ownership(&look(&datadir)?);
        let mut walk = DatadirWalk {
            files: vec![],
            root,
            directories: look(&datadir.join("mysql")).map_or(root, |status| ownership(&status)),
            plain_files: Ownership { mode: root.mode & 0o666, ..root },
            exceptions: BTreeMap::new(),
            datadir,
        };
        if let Some(first) = layout.system_files.first() {
            walk.plain_files = ownership(&look(first)?);
        }
        for database in walk.directory("")? {
            walk.directory(&database)?;
        }
        walk.outside(layout)?;
        walk.files.sort_unstable_by(|one, other| one.0.cmp(&other.0));
        walk.files.dedup_by(|one, other| one.0 == other.0);
        Ok(walk)
    }

    /// Identity of the InnoDB file that a backup names `name`.
    pub fn identity(&self, name: &str) -> Option<FileIdentity> {
        let at = self.files.binary_search_by(|(known, _)| (**known).cmp(name)).ok()?;
        Some(self.files[at].1)
    }

    /// All InnoDB files, sorted by name.
    pub fn files(&self) -> impl Iterator<Item = (&str, FileIdentity)> {
        self.files.iter().map(|(name, identity)| (&**name, *identity))
    }

    /// Where the file of InnoDB named `name` lies: in the datadir, or where the `.isl` beside it says.
    pub fn place(&self, name: &str) -> PathBuf {
        let here = self.datadir.join(name);
        if here.exists() {
            return here;
        }
        let elsewhere =
            name.strip_suffix(".ibd").and_then(|table| isl_target(&self.datadir.join(format!("{table}.isl"))).ok());
        elsewhere.unwrap_or(here)
    }

    /// Mode and owner of the file at `path` in the datadir.
    pub fn file_ownership(&self, path: &str) -> Ownership {
        self.exceptions.get(path).copied().unwrap_or(self.plain_files)
    }

    /// Mode and owner of the directory at `path` in the datadir.
    pub fn directory_ownership(&self, path: &str) -> Ownership {
        self.exceptions.get(path).copied().unwrap_or(self.directories)
    }
}

/// The walk itself.
impl DatadirWalk {
    /// Reads one directory, the datadir itself or a database in it, and returns the directories in it. InnoDB looks no deeper.
    fn directory(&mut self, name: &str) -> Result<Vec<String>, WalkError> {
        let mut below = vec![];
        let path = self.datadir.join(name);
        let open = rustix::fs::open(&path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        let fd = match open {
            Ok(fd) => fd,
            Err(Errno::NOENT) if !name.is_empty() => return Ok(below),
            Err(error) => return Err(at(&path, error.into())),
        };
        let mut entries = Dir::read_from(&fd).map_err(|error| at(&path, error.into()))?;
        while let Some(entry) = entries.read() {
            let entry = entry.map_err(|error| at(&path, error.into()))?;
            let file_name = entry.file_name();
            if matches!(file_name.to_bytes(), b"." | b".." | b"lost+found") {
                continue;
            }
            let status = match stat(&fd, file_name) {
                Ok(status) => status,
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(at(&path.join(file_name.to_string_lossy().as_ref()), error.into())),
            };
            // MariaDB writes its names in ASCII and passes over hidden ones; what is not UTF-8 is none of its own.
            match file_name.to_str() {
                Ok(file_name) if !file_name.starts_with('.') => below.extend(self.entry(name, file_name, &status)?),
                _ => {}
            }
        }
        Ok(below)
    }

    /// Notes one entry, and returns its path if it is a directory.
    fn entry(&mut self, database: &str, file_name: &str, status: &Statx) -> Result<Option<String>, WalkError> {
        let relative = if database.is_empty() { file_name.to_owned() } else { format!("{database}/{file_name}") };
        let own = ownership(status);
        match FileType::from_raw_mode(u32::from(status.stx_mode)) {
            FileType::Directory => {
                self.note_ownership(&relative, own, self.directories)?;
                return Ok(Some(relative));
            }
            FileType::RegularFile => {
                if file_name.ends_with(".isl") && !database.is_empty() {
                    self.linked(&relative)?;
                }
                if file_name.ends_with(".ibd") && !database.is_empty() {
                    self.note_file(relative.as_str(), status)?;
                }
                self.note_ownership(&relative, own, self.plain_files)?;
            }
            // Sockets and the like are the server's own while it runs.
            _ => {}
        }
        Ok(None)
    }

    fn note_file(&mut self, name: &str, status: &Statx) -> Result<(), WalkError> {
        self.check_room(self.files.len())?;
        self.files.push((name.into(), identity(status)));
        Ok(())
    }

    fn note_ownership(&mut self, path: &str, own: Ownership, usual: Ownership) -> Result<(), WalkError> {
        if own != usual {
            self.check_room(self.exceptions.len())?;
            self.exceptions.insert(path.to_owned(), own);
        }
        Ok(())
    }

    fn check_room(&self, count: usize) -> Result<(), WalkError> {
        let full = count >= FILES_MAX;
        if full { Err(WalkError::TooMany { path: self.datadir.clone(), files_max: FILES_MAX }) } else { Ok(()) }
    }

    /// A table with DATA DIRECTORY: its `.isl` file holds the path of its `.ibd`, which a backup names as if it lay here.
    fn linked(&mut self, isl: &str) -> Result<(), WalkError> {
        let path = self.datadir.join(isl);
        let target = match isl_target(&path) {
            Ok(target) => target,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(source) => return Err(at(&path, source)),
        };
        let name = format!("{}.ibd", isl.strip_suffix(".isl").unwrap_or(isl));
        self.single(&name, &target)
    }

    /// The files that lie beside the datadir, or in it under names without an ending.
    fn outside(&mut self, layout: &DatadirLayout) -> Result<(), WalkError> {
        for path in &layout.system_files {
            if let Some(name) = path.file_name().and_then(|name| name.to_str()) {
                self.single(name, path)?;
            }
        }
        let entries = layout.undo_directory.read_dir().map_err(|source| at(&layout.undo_directory, source))?;
        for entry in entries {
            let entry = entry.map_err(|source| at(&layout.undo_directory, source))?;
            let name = entry.file_name();
            let undo = name.to_str().filter(|name| {
                name.strip_prefix("undo")
                    .is_some_and(|rest| rest.len() == 3 && rest.bytes().all(|byte| byte.is_ascii_digit()))
            });
            if let Some(name) = undo {
                self.single(name, &entry.path())?;
            }
        }
        Ok(())
    }

    fn single(&mut self, name: &str, path: &Path) -> Result<(), WalkError> {
        match stat(CWD, path) {
            Ok(status) => self.note_file(name, &status),
            Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(at(path, error.into())),
        }
    }
}

fn stat(dir: impl AsFd, path: impl rustix::path::Arg) -> Result<Statx, Errno> {
    rustix::fs::statx(dir, path, AtFlags::empty(), StatxFlags::BASIC_STATS | StatxFlags::BTIME)
}

fn identity(status: &Statx) -> FileIdentity {
    let born = StatxFlags::from_bits_retain(status.stx_mask).contains(StatxFlags::BTIME);
    let time = &status.stx_btime;
    let birth_ns = time.tv_sec.saturating_mul(1_000_000_000).saturating_add(i64::from(time.tv_nsec));
    // Some file systems say that they know it, and give 1970.
    let birth_ns = (born && time.tv_sec != 0).then_some(birth_ns);
    FileIdentity { inode: status.stx_ino, birth_ns, bytes: status.stx_size }
}

fn ownership(status: &Statx) -> Ownership {
    Ownership { mode: u32::from(status.stx_mode) & 0o7777, uid: status.stx_uid, gid: status.stx_gid }
}

/// The path that an `.isl` file holds.
fn isl_target(isl: &Path) -> io::Result<PathBuf> {
    Ok(PathBuf::from(read_short(isl)?.trim_end_matches(['\n', '\r', ' '])))
}

/// What tells the file at `path` from another of the same name; none when there is none that can be looked at.
pub fn identity_of(path: &Path) -> Option<FileIdentity> {
    stat(CWD, path).ok().map(|status| identity(&status))
}

fn read_short(path: &Path) -> io::Result<String> {
    use std::io::Read;
    let mut text = String::new();
    std::fs::File::open(path)?.take(ISL_BYTES_MAX as u64).read_to_string(&mut text)?;
    Ok(text)
}

fn at(path: &Path, source: io::Error) -> WalkError {
    WalkError::Read { path: path.to_owned(), source }
}

/// Why the server's files are not known.
#[derive(Debug, thiserror::Error)]
pub enum WalkError {
    /// A file or directory cannot be looked at.
    #[error("cannot look at {path:?}")]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Too many files to remember.
    #[error("more than {files_max} files in {path:?}")]
    TooMany {
        /// The datadir.
        path: PathBuf,
        /// The limit.
        files_max: usize,
    },
}

impl Diagnose for WalkError {
    fn kind(&self) -> Kind {
        Kind::DatabaseRefused
    }

    fn hint(&self) -> Option<String> {
        match self {
            WalkError::Read { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Some("run the backup as root or as the server's own user".to_owned())
            }
            WalkError::Read { .. } => Some("run the backup on the server's own machine".to_owned()),
            WalkError::TooMany { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    fn layout(dir: &Path) -> DatadirLayout {
        DatadirLayout {
            datadir: dir.to_owned(),
            system_files: vec![dir.join("ibdata1")],
            undo_directory: dir.to_owned(),
        }
    }

    fn datadir() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("db")).unwrap();
        for name in ["ibdata1", "undo001", "undo_x", "undo0001", "db/t.ibd", "db/t.frm", "db/db.opt", "stray.ibd"] {
            fs::write(dir.path().join(name), name).unwrap();
        }
        dir
    }

    #[test]
    fn files_have_the_names_that_a_backup_gives_them() {
        let dir = datadir();
        let other = tempfile::tempdir().unwrap();
        fs::write(other.path().join("far.ibd"), "far away").unwrap();
        fs::write(dir.path().join("db/far.isl"), other.path().join("far.ibd").to_str().unwrap()).unwrap();
        let walk = DatadirWalk::walk(&layout(dir.path())).unwrap();
        let names: Vec<_> = walk.files().map(|(name, _)| name).collect();
        assert_eq!(names, ["db/far.ibd", "db/t.ibd", "ibdata1", "undo001"]);
        assert_eq!(walk.identity("db/far.ibd").unwrap().bytes, 8);
        assert_eq!(walk.identity("db/none.ibd"), None);
    }

    #[test]
    fn a_file_put_in_the_place_of_another_is_another_file() {
        let dir = datadir();
        let path = dir.path().join("db/t.ibd");
        let identity = || DatadirWalk::walk(&layout(dir.path())).unwrap().identity("db/t.ibd").unwrap();
        let before = identity();
        fs::write(&path, "longer than it was").unwrap();
        assert!(before.same_file(&identity()));
        fs::write(dir.path().join("new"), "x").unwrap();
        fs::rename(dir.path().join("new"), &path).unwrap();
        assert!(!before.same_file(&identity()));
    }

    #[test]
    fn modes_that_differ_from_the_usual_are_listed() {
        let dir = datadir();
        let set =
            |name: &str, mode| fs::set_permissions(dir.path().join(name), fs::Permissions::from_mode(mode)).unwrap();
        for name in ["ibdata1", "undo001", "undo_x", "undo0001", "db/t.ibd", "db/t.frm", "stray.ibd"] {
            set(name, 0o660);
        }
        set("db/db.opt", 0o640);
        fs::create_dir(dir.path().join("mysql")).unwrap();
        set("mysql", 0o700);
        set("db", 0o750);
        let walk = DatadirWalk::walk(&layout(dir.path())).unwrap();
        assert_eq!((walk.plain_files.mode, walk.directories.mode), (0o660, 0o700));
        assert_eq!(walk.exceptions.keys().collect::<Vec<_>>(), ["db", "db/db.opt"]);
        assert_eq!(walk.file_ownership("db/db.opt").mode, 0o640);
        assert_eq!(walk.file_ownership("db/created.later").mode, 0o660);
    }

    #[test]
    fn a_linked_datadir_is_resolved_and_a_missing_one_named() {
        let dir = datadir();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(dir.path(), &link).unwrap();
        let walk = DatadirWalk::walk(&layout(&link)).unwrap();
        assert_eq!(walk.datadir, dir.path().canonicalize().unwrap());
        let error = DatadirWalk::walk(&layout(Path::new("/nowhere"))).unwrap_err();
        assert!(error.to_string().contains("/nowhere"), "{error}");
    }
}
