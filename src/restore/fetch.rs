//! Writes all files of a backup into a directory, in one pass over its chunks.
//!
//! Pieces are disjoint, so that no order matters between them: each is fetched, checked, decompressed and written to its
//! place. `window` says how they are gathered, and what bounds memory.

use std::collections::HashSet;
use std::convert::Infallible;
use std::fs;
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use tokio::sync::mpsc;

use super::RestoreError;
use super::cancel::Cancel;
use super::choice::TableChoice;
use super::plan::{Modes, directories_of, file_mode, join};
use super::steps::Watch;
use super::walk::{TargetFile, Walk};
use super::window::{FetchOptions, Window};
use super::write::{Batch, Request};
use crate::format::Manifest;
use crate::model::{Phase, Progress};
use crate::repository::Repository;

/// What fetching took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct FetchFigures {
    /// Files written, plain ones included.
    pub files: u64,
    /// Bytes of packs that were read for them, map blocks left out.
    pub bytes_fetched: u64,
    /// Bytes written into files.
    pub bytes_written: u64,
    /// Ranged GETs for them.
    pub requests: u64,
}

/// Writes the files of `manifest`'s backup that `tables` needs into the empty directory `root`. Whatever it returns, it has done with
/// `root` then: a task that writes goes on when the one that waits for it is dropped.
pub(super) async fn fetch_files(
    repository: &Repository,
    manifest: &Manifest,
    tables: &TableChoice,
    root: &Path,
    options: FetchOptions,
    watch: &Watch,
) -> Result<FetchFigures, RestoreError> {
    let (writing, mut written) = mpsc::channel(1);
    let (directories, figures) = (HashSet::new(), FetchFigures::default());
    let progress = watch.progress.as_ref();
    let fetch = Fetch { repository, manifest, progress, options, root, writing, directories, figures };
    let fetched = fetch.all(tables, &watch.cancel).await;
    while written.recv().await.is_some() {}
    fetched
}

struct Fetch<'a> {
    repository: &'a Repository,
    manifest: &'a Manifest,
    progress: &'a dyn Progress,
    options: FetchOptions,
    root: &'a Path,
    /// Each task that writes has one of these as long as it runs.
    writing: mpsc::Sender<Infallible>,
    /// Directories that exist, by path.
    directories: HashSet<String>,
    figures: FetchFigures,
}

impl Fetch<'_> {
    async fn all(mut self, tables: &TableChoice, cancel: &Cancel) -> Result<FetchFigures, RestoreError> {
        let map = self.repository.map_root(self.manifest).await?;
        let mut walk = Walk::of(self.repository, &map, tables);
        let mut window = Window::default();
        while let Some(step) = cancel.or(walk.next()).await? {
            window.add(step)?;
            if window.is_full() {
                let next = window.next();
                cancel.or(self.window(std::mem::replace(&mut window, next))).await?;
            }
        }
        cancel.or(self.window(window)).await?;
        Ok(self.figures)
    }

    async fn window(&mut self, mut window: Window) -> Result<(), RestoreError> {
        self.make(window.new_files()).await?;
        let requests = window.requests(self.options);
        let Window { files, packs, needs, .. } = window;
        let batch = Arc::new(Batch::new(self.root, self.repository.keyring(), files, packs, needs));
        let this = &*self;
        let jobs = requests.into_iter().map(|request| this.request(batch.clone(), request));
        let mut done = futures::stream::iter(jobs).buffer_unordered(self.options.requests());
        let mut sum = FetchFigures::default();
        while let Some(figures) = done.try_next().await? {
            sum.requests += figures.requests;
            sum.bytes_fetched += figures.bytes_fetched;
            sum.bytes_written += figures.bytes_written;
        }
        drop(done);
        self.figures.requests += sum.requests;
        self.figures.bytes_fetched += sum.bytes_fetched;
        self.figures.bytes_written += sum.bytes_written;
        Ok(())
    }

    /// Makes `files` with their lengths and permission bits, all holes yet, and the directories they lie in.
    async fn make(&mut self, files: &[Arc<TargetFile>]) -> Result<(), RestoreError> {
        let modes = Modes::of(self.manifest);
        let mut directories = Vec::new();
        for directory in files.iter().flat_map(|file| directories_of(&file.path)) {
            if self.directories.insert(directory.to_owned()) {
                directories.push((join(self.root, directory)?, modes.directory(directory)));
            }
        }
        let paths = files.iter().map(|file| Ok((join(self.root, &file.path)?, file.clone())));
        let files: Vec<_> = paths.collect::<Result<_, RestoreError>>()?;
        self.figures.files += files.len() as u64;
        let writing = self.writing.clone();
        tokio::task::spawn_blocking(move || {
            let _writing = writing;
            directories.iter().try_for_each(|(path, mode)| make_directory(path, *mode))?;
            files.iter().try_for_each(|(path, file)| make_file(path, file))
        })
        .await?
    }

    /// Fetches one stretch of a pack and writes all that it holds.
    async fn request(&self, batch: Arc<Batch>, request: Request) -> Result<FetchFigures, RestoreError> {
        let mut figures = FetchFigures::default();
        let mut second_look = false;
        loop {
            let pack = batch.packs[request.pack as usize].id;
            let stored = self.repository.read_range(pack, request.bytes.clone()).await;
            let stored = stored.map_err(|source| RestoreError::Unread { file: batch.file_of(&request), source })?;
            figures.requests += 1;
            figures.bytes_fetched += stored.len() as u64;
            let (task_batch, task_request, writing) = (batch.clone(), request.clone(), self.writing.clone());
            let task = tokio::task::spawn_blocking(move || {
                let _writing = writing;
                task_batch.write(&task_request, &stored)
            });
            match task.await? {
                // Bytes can be spoiled on their way; those that are spoiled in the store are so at the second look too.
                Err(RestoreError::Damaged { .. }) if !second_look => second_look = true,
                Err(error) => return Err(error),
                Ok(written) => {
                    figures.bytes_written += written;
                    self.progress.advance(Phase::Fetch, written);
                    return Ok(figures);
                }
            }
        }
    }
}

fn make_directory(path: &Path, mode: u32) -> Result<(), RestoreError> {
    fs::create_dir(path).map_err(RestoreError::io("create", path))?;
    // The umask took bits away from what was asked for.
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(RestoreError::io("set the mode of", path))
}

fn make_file(path: &Path, file: &TargetFile) -> Result<(), RestoreError> {
    let mode = file_mode(file.mode);
    let made = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    let made = match made {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let problem = "two things bear this name".to_owned();
            return Err(RestoreError::Map { what: file.path.clone(), problem });
        }
        made => made.map_err(RestoreError::io("create", path))?,
    };
    made.set_permissions(fs::Permissions::from_mode(mode)).map_err(RestoreError::io("set the mode of", path))?;
    made.set_len(file.bytes).map_err(RestoreError::io("set the length of", path))
}
