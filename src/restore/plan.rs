//! What a restore will do, found out before anything is written.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::choice::TableChoice;
use super::walk::{Pages, Step, TargetFile, Walk};
use super::window::Window;
use super::{Cancel, FetchOptions, RestoreError};
use crate::format::Manifest;
use crate::format::map::{Content, Extent, FilePiece, FileSource};
use crate::mariadb::tool::{ServerVersion, ToolFit, Tools};
use crate::model::BackupId;
use crate::repository::Repository;

/// Bytes that the prepare may need besides its redo log: a new log, InnoDB's temporary tablespace, undo logs that grow.
const PREPARE_BYTES: u64 = 64 << 20;
/// One byte in so many is kept free besides, for the file system's own blocks: 5 %.
const RESERVE_SHARE: u64 = 20;
/// Block of a file system, to which small files and the pages of compressed tablespaces are rounded up.
const DISK_BLOCK_BYTES: u64 = 4096;
/// Permission bits of directories of which the manifest says nothing: MariaDB's `UMASK_DIR` is 0700.
const DIRECTORY_MODE: u32 = 0o700;
/// Permission bits of files of which the map says nothing: MariaDB's `UMASK` is 0660.
const FILE_MODE: u32 = 0o660;

/// A file that a restore writes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct PlannedFile {
    /// Path in the datadir.
    pub path: String,
    /// Length in bytes.
    pub bytes: u64,
    /// Permission bits.
    pub mode: u32,
}

/// What a restore of one backup does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RestorePlan {
    /// The backup.
    pub backup: BackupId,
    /// Version of the server that it was taken from.
    pub server_version: String,
    /// Directories, by path, with their permission bits; the datadir itself is left out.
    pub directories: BTreeMap<String, u32>,
    /// Files by path.
    pub files: Vec<PlannedFile>,
    /// Bytes of all files, as `ls` shows them.
    pub logical_bytes: u64,
    /// Bytes that are written into them; what is missing are zeros, which take no room.
    pub written_bytes: u64,
    /// Bytes that the files take on disk at the most.
    pub disk_bytes: u64,
    /// Bytes of packs that the files need.
    pub stored_bytes: u64,
    /// Bytes of packs that are fetched: each chunk once in a window, and some that lie between.
    pub fetched_bytes: u64,
    /// Ranged GETs for them.
    pub requests: u64,
    /// Stretches of files that come from a chunk each.
    pub pieces: u64,
    /// Bytes that the prepare may need besides.
    pub prepare_bytes: u64,
}

impl RestorePlan {
    /// Reads the whole page map of a backup, and proves that it says where every byte of every file comes from.
    ///
    /// The map is some 0.01 % of the data. Memory goes with the number of files, at 100 bytes each.
    ///
    /// # Errors
    /// When the map cannot be read or is damaged.
    pub async fn read(
        repository: &Repository,
        manifest: &Manifest,
        options: FetchOptions,
        cancel: &Cancel,
    ) -> Result<RestorePlan, RestoreError> {
        RestorePlan::of(repository, manifest, &TableChoice::All, options, cancel).await
    }

    /// As [`RestorePlan::read`], of chosen tables and what they need.
    ///
    /// # Errors
    /// When the map cannot be read or is damaged.
    pub async fn of(
        repository: &Repository,
        manifest: &Manifest,
        tables: &TableChoice,
        options: FetchOptions,
        cancel: &Cancel,
    ) -> Result<RestorePlan, RestoreError> {
        repository.needs_data_key()?;
        cancel.or(read(repository, manifest, tables, options)).await
    }

    /// Bytes that must be free on the file system of the files.
    pub fn needed_bytes(&self) -> u64 {
        with_reserve(self.disk_bytes.saturating_add(self.prepare_bytes))
    }

    /// Checks that `available` bytes on the file system of `directory` are enough.
    ///
    /// # Errors
    /// [`RestoreError::NoSpace`].
    pub fn check_space(&self, directory: &Path, available: u64) -> Result<(), RestoreError> {
        self.check_space_over(directory, available, 0)
    }

    /// As [`RestorePlan::check_space`], where the files take `held` bytes already that are written over.
    ///
    /// # Errors
    /// [`RestoreError::NoSpace`].
    pub fn check_space_over(&self, directory: &Path, available: u64, held: u64) -> Result<(), RestoreError> {
        let needed = with_reserve(self.disk_bytes.saturating_sub(held).saturating_add(self.prepare_bytes));
        if available >= needed {
            return Ok(());
        }
        Err(RestoreError::NoSpace { directory: directory.to_owned(), needed, available })
    }
}

fn with_reserve(bytes: u64) -> u64 {
    bytes.saturating_add(bytes / RESERVE_SHARE)
}

async fn read(
    repository: &Repository,
    manifest: &Manifest,
    tables: &TableChoice,
    options: FetchOptions,
) -> Result<RestorePlan, RestoreError> {
    let root = repository.map_root(manifest).await?;
    let mut walk = Walk::of(repository, &root, tables);
    let mut plan = RestorePlan {
        backup: manifest.id.clone(),
        server_version: manifest.server.version.clone(),
        directories: BTreeMap::new(),
        files: Vec::new(),
        logical_bytes: 0,
        written_bytes: 0,
        disk_bytes: 0,
        stored_bytes: 0,
        fetched_bytes: 0,
        requests: 0,
        pieces: 0,
        // Pages that the redo log speaks of can lie beyond the ends of the files.
        prepare_bytes: PREPARE_BYTES.saturating_add(manifest.redo.bytes),
    };
    let mut window = Window::default();
    while let Some(step) = walk.next().await? {
        match &step {
            Step::File(file) => plan.add_file(file, manifest),
            Step::Extents(extents) => {
                let pages = window.file().and_then(|file| file.pages);
                extents.iter().for_each(|extent| plan.add_extent(extent, pages));
            }
            Step::Pieces(_, pieces) => pieces.iter().for_each(|piece| plan.add_piece(piece)),
        }
        window.add(step)?;
        if window.is_full() {
            let next = window.next();
            plan.add_requests(std::mem::replace(&mut window, next), options);
        }
    }
    plan.add_requests(window, options);
    plan.settle_paths()?;
    Ok(plan)
}

impl RestorePlan {
    fn add_file(&mut self, file: &TargetFile, manifest: &Manifest) {
        self.logical_bytes += file.bytes;
        let modes = Modes::of(manifest);
        for directory in directories_of(&file.path) {
            if !self.directories.contains_key(directory) {
                self.directories.insert(directory.to_owned(), modes.directory(directory));
            }
        }
        self.files.push(PlannedFile { path: file.path.clone(), bytes: file.bytes, mode: file_mode(file.mode) });
    }

    fn add_extent(&mut self, extent: &Extent, pages: Option<Pages>) {
        let Some(pages) = pages else { return };
        for piece in extent.pieces.iter().filter(|piece| matches!(piece.content, Content::Chunk(_))) {
            let (count, stored) = (u64::from(piece.mask.len()), piece.stored_bytes());
            let bytes = count * pages.size.bytes() as u64;
            // Compressed pages end in holes; what zstd could not make smaller is what they hold.
            let disk = if pages.compressed { bytes.min(stored + count * DISK_BLOCK_BYTES) } else { bytes };
            self.add_bytes(bytes, disk, stored);
        }
    }

    fn add_piece(&mut self, piece: &FilePiece) {
        if matches!(piece.source, FileSource::Chunk { .. }) {
            let bytes = u64::from(piece.bytes);
            self.add_bytes(bytes, bytes.next_multiple_of(DISK_BLOCK_BYTES), piece.stored_bytes());
        }
    }

    fn add_requests(&mut self, mut window: Window, options: FetchOptions) {
        for request in window.requests(options) {
            self.requests += 1;
            self.fetched_bytes += request.bytes.end - request.bytes.start;
        }
    }

    fn add_bytes(&mut self, written: u64, disk: u64, stored: u64) {
        self.written_bytes += written;
        self.disk_bytes += disk;
        self.stored_bytes += stored;
        self.pieces += 1;
    }

    /// Sorts the files, no two of which may be in each other's place.
    fn settle_paths(&mut self) -> Result<(), RestoreError> {
        self.files.sort();
        let twice = self.files.windows(2).find(|pair| pair[0].path == pair[1].path).map(|pair| &pair[0]);
        let also_directory = self.files.iter().find(|file| self.directories.contains_key(&file.path));
        match twice.or(also_directory) {
            None => Ok(()),
            Some(file) => {
                Err(RestoreError::Map { what: file.path.clone(), problem: "two things bear this name".to_owned() })
            }
        }
    }
}

/// Permission bits of directories.
pub(super) struct Modes<'a> {
    manifest: &'a Manifest,
}

impl<'a> Modes<'a> {
    /// Those of the server's directories.
    pub fn of(manifest: &'a Manifest) -> Modes<'a> {
        Modes { manifest }
    }

    /// Those of the datadir.
    pub fn datadir(&self) -> u32 {
        usable(self.manifest.server.datadir_mode.unwrap_or(DIRECTORY_MODE), 0o700)
    }

    /// Those of the directory at `path` in the datadir.
    pub fn directory(&self, path: &str) -> u32 {
        let server = &self.manifest.server;
        let mode = server.directory_modes.get(path).copied().or(server.directory_mode);
        usable(mode.unwrap_or(DIRECTORY_MODE), 0o700)
    }
}

/// Permission bits of a file.
pub(super) fn file_mode(mode: Option<u32>) -> u32 {
    usable(mode.unwrap_or(FILE_MODE), 0o600)
}

/// The owner must be able to go on with what is restored, and a backup gives nobody another's rights.
fn usable(mode: u32, least: u32) -> u32 {
    (mode & 0o777) | least
}

/// The directories that `path` lies in, the outermost first.
pub(super) fn directories_of(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(|(at, _)| &path[..at])
}

/// Paths of a restored tree stay inside of it.
pub(super) fn join(root: &Path, path: &str) -> Result<PathBuf, RestoreError> {
    let inside = !path.is_empty()
        && Path::new(path).components().all(|part| matches!(part, std::path::Component::Normal(_)))
        && !path.contains('\0');
    if inside {
        return Ok(root.join(path));
    }
    Err(RestoreError::Map { what: path.to_owned(), problem: "the path leads out of the datadir".to_owned() })
}

/// Checks that the tool can prepare backups of a server of version `server`.
///
/// # Errors
/// When the server is of another release series, or not supported at all.
pub fn check_tool(server: &str, tools: &Tools) -> Result<ToolFit, RestoreError> {
    let version: ServerVersion = server.parse()?;
    Ok(tools.fit(&version)?)
}

/// Bytes that this process may still write on the file system of `directory`.
///
/// # Errors
/// When the file system cannot be asked.
pub fn available_bytes(directory: &Path) -> Result<u64, RestoreError> {
    let figures = rustix::fs::statvfs(directory)
        .map_err(|error| RestoreError::io("look at the file system of", directory)(error.into()))?;
    // Blocks that only root may use are left to root's other needs.
    Ok(figures.f_bavail.saturating_mul(figures.f_frsize))
}
