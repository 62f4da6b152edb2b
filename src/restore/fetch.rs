//! Writes all files of a backup into a directory, in one pass over its chunks.
//!
//! Pieces are disjoint, so that no order matters between them: each is fetched, checked, decompressed and written to its
//! place. `window` says how they are gathered, and what bounds memory.
//!
//! Over files that are there already, smaller windows are compared with them first (`compare`), while what the window before
//! lacks is fetched.

use std::collections::HashSet;
use std::convert::Infallible;
use std::fs;
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use rustix::fs::OFlags;
use tokio::sync::mpsc;

use super::RestoreError;
use super::cancel::Cancel;
use super::choice::TableChoice;
use super::compare::{COMPARED_PIECES, Compared, Comparison};
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
    /// Bytes that were in the files already, and are not written.
    pub bytes_reused: u64,
    /// Ranged GETs for them.
    pub requests: u64,
}

/// What the directory holds that files are written into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ground {
    /// Nothing.
    Empty,
    /// Files, of which what is right is left as it is.
    Files,
}

/// Writes the files of `manifest`'s backup that `tables` needs into the directory `root`. Whatever it returns, it has done with
/// `root` then: a task that writes goes on when the one that waits for it is dropped.
pub(super) async fn fetch_files(
    repository: &Repository,
    manifest: &Manifest,
    tables: &TableChoice,
    (root, ground): (&Path, Ground),
    options: FetchOptions,
    watch: &Watch,
) -> Result<FetchFigures, RestoreError> {
    let (writing, mut written) = mpsc::channel(1);
    let (directories, figures) = (HashSet::new(), FetchFigures::default());
    let progress = watch.progress.as_ref();
    let fetch = Fetch { repository, manifest, progress, options, root, ground, writing, directories, figures };
    let fetched = match ground {
        Ground::Empty => fetch.all(tables, &watch.cancel).await,
        Ground::Files => watch.cancel.or(fetch.over(tables)).await,
    };
    while written.recv().await.is_some() {}
    fetched
}

struct Fetch<'a> {
    repository: &'a Repository,
    manifest: &'a Manifest,
    progress: &'a dyn Progress,
    options: FetchOptions,
    root: &'a Path,
    ground: Ground,
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

    /// Compares a window with the files while what the one before lacks is fetched.
    async fn over(mut self, tables: &TableChoice) -> Result<FetchFigures, RestoreError> {
        let (repository, root, progress) = (self.repository, self.root, self.progress);
        let map = repository.map_root(self.manifest).await?;
        let (send, mut compared) = mpsc::channel(1);
        let compare = async move {
            let (mut sum, mut comparison) = (Compared::default(), Comparison::with(repository, root));
            let mut windows = Windows::over(Walk::of(repository, &map, tables));
            while let Some(mut window) = windows.next().await? {
                let found = comparison.settle(&mut window).await?;
                progress.advance(Phase::Fetch, found.bytes);
                sum.add(found);
                if send.send(window).await.is_err() {
                    break;
                }
            }
            Ok::<_, RestoreError>(sum)
        };
        let fetch = async {
            while let Some(window) = compared.recv().await {
                self.window(window).await?;
            }
            Ok(())
        };
        let (found, ()) = tokio::try_join!(compare, fetch)?;
        self.figures.bytes_reused = found.bytes;
        self.figures.bytes_fetched += found.bytes_fetched;
        self.figures.requests += found.requests;
        Ok(self.figures)
    }

    async fn window(&mut self, mut window: Window) -> Result<(), RestoreError> {
        self.make(window.new_files()).await?;
        let requests = window.requests(self.options);
        let Window { files, packs, needs, zeros, .. } = window;
        let over = self.ground == Ground::Files;
        let batch = Arc::new(Batch::new(self.root, self.repository.keyring(), files, packs, needs, over));
        if !zeros.is_empty() {
            let (batch, writing) = (batch.clone(), self.writing.clone());
            let task = tokio::task::spawn_blocking(move || {
                let _writing = writing;
                batch.clear(&zeros)
            });
            task.await??;
        }
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
        let (writing, ground) = (self.writing.clone(), self.ground);
        tokio::task::spawn_blocking(move || {
            let _writing = writing;
            directories.iter().try_for_each(|(path, mode)| make_directory(path, *mode, ground))?;
            files.iter().try_for_each(|(path, file)| make_file(path, file, ground))
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

/// Windows of a map, one after the other, that are compared with files.
pub(super) struct Windows<'a> {
    walk: Walk<'a>,
    window: Window,
    ended: bool,
}

impl<'a> Windows<'a> {
    /// Those of files that may be there already.
    pub fn over(walk: Walk<'a>) -> Windows<'a> {
        Windows { walk, window: Window::over(), ended: false }
    }

    /// The next window; nothing behind the last.
    ///
    /// # Errors
    /// Those of [`Walk::next`].
    pub async fn next(&mut self) -> Result<Option<Window>, RestoreError> {
        while !self.ended {
            match self.walk.next().await? {
                Some(step) => self.window.add(step)?,
                None => self.ended = true,
            }
            if self.ended || self.window.holds(COMPARED_PIECES) {
                let next = self.window.next();
                return Ok(Some(std::mem::replace(&mut self.window, next)));
            }
        }
        Ok(None)
    }
}

fn make_directory(path: &Path, mode: u32, ground: Ground) -> Result<(), RestoreError> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && ground == Ground::Files => {}
        made => made.map_err(RestoreError::io("create", path))?,
    }
    // The umask took bits away from what was asked for.
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(RestoreError::io("set the mode of", path))
}

fn make_file(path: &Path, file: &TargetFile, ground: Ground) -> Result<(), RestoreError> {
    let mode = file_mode(file.mode);
    let mut options = fs::OpenOptions::new();
    match ground {
        Ground::Empty => options.create_new(true),
        Ground::Files => options.create(true).truncate(false).custom_flags(OFlags::NOFOLLOW.bits().cast_signed()),
    };
    let made = options.write(true).mode(mode).open(path);
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
