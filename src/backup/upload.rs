//! Uploads packs beside the capture, which must not wait for the store.
//!
//! While the tool's pipe is full, the server goes on overwriting its redo log. So packs that cannot be uploaded at once go
//! to a spool on disk, which has a limit; beyond it the capture does wait.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinSet;

use super::salvage::Salvage;
use super::{BackupError, Stash};
use crate::format::PageSum;
use crate::format::map::{BlockRef, Location, PageChunk};
use crate::format::pack::{FinishedPack, PackBuilder, PackKind};
use crate::model::{ChunkId, Level, PackId, Phase, Progress};
use crate::repository::{PutOutcome, Repository, RepositoryError};

/// Part of the spool's limit at which the operator is warned, in percent.
const SPOOL_WARN_PERCENT: u64 = 50;

/// Time for which the capture waits for room while requests fail: as long as they are repeated where nothing is at stake. Meanwhile
/// the server overwrites its redo log, and may be waiting for the tool's locks.
const ROOM_WAIT: Duration = Duration::from_secs(60);
/// Time for which requests fail before the capture does without what it asks for. Most failures pass sooner.
const SOON: Duration = Duration::from_secs(2);
/// Pause between two looks at whether they do.
const LOOK: Duration = Duration::from_millis(250);

/// Where packs wait for their upload.
#[derive(Debug, Clone)]
pub struct SpoolOptions {
    /// A directory of this program's own; created, and cleared of what an earlier run left.
    pub directory: PathBuf,
    /// Most bytes in it; 0 for none.
    pub bytes_max: u64,
}

enum Waiting {
    Memory(Bytes),
    Spooled { path: PathBuf, bytes: u64 },
}

/// What a pack is uploaded for.
#[derive(Debug, Clone, Copy)]
enum Purpose {
    /// The backup needs it.
    Store,
    /// Its object is damaged, and older backups need it.
    Mend,
}

impl Purpose {
    async fn serve(
        self,
        repository: &Repository,
        id: PackId,
        bytes: Bytes,
        progress: &dyn Progress,
    ) -> Result<PutOutcome, BackupError> {
        match self {
            Purpose::Store => return Ok(repository.put_pack(id, bytes).await?),
            Purpose::Mend => match repository.mend_pack(id, bytes).await {
                Ok(()) => progress.note(&format!("damaged pack {id} is whole again")),
                Err(error @ RepositoryError::NotMended { .. }) => {
                    progress.note(&format!("{error}; this backup does without it"));
                }
                Err(error) => return Err(error.into()),
            },
        }
        Ok(PutOutcome::Stored)
    }
}

/// The first upload that failed.
#[derive(Default)]
struct Failure {
    happened: AtomicBool,
    error: Mutex<Option<BackupError>>,
    told: Notify,
}

impl Failure {
    fn set(&self, error: BackupError) {
        self.error.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        self.happened.store(true, Ordering::SeqCst);
        self.told.notify_one();
    }

    fn check(&self) -> Result<(), BackupError> {
        if !self.happened.load(Ordering::SeqCst) {
            return Ok(());
        }
        let error = self.error.lock().unwrap_or_else(PoisonError::into_inner).take();
        Err(error.unwrap_or(BackupError::Abandoned))
    }
}

/// Uploads packs to a repository.
pub(super) struct Uploader {
    repository: Arc<Repository>,
    progress: Arc<dyn Progress>,
    spool: SpoolOptions,
    handle: Handle,
    /// One for each upload; only such packs are in memory, 16 MiB each.
    uploads: Arc<Semaphore>,
    spooled_bytes: Arc<AtomicU64>,
    tasks: Mutex<JoinSet<()>>,
    failure: Arc<Failure>,
    /// True once nobody waits for an answer any more.
    stopped: watch::Sender<bool>,
    warned: AtomicBool,
    told_full: AtomicBool,
    number: AtomicU64,
    pub uploaded_packs: AtomicU64,
    /// Packs that are known to be damaged.
    damaged: OnceLock<HashSet<PackId>>,
    /// Packs that were there already when they were to be stored: few, and of any age.
    pub packs_found: Arc<Mutex<Vec<PackId>>>,
    /// What need not be uploaded, though no backup needs it yet.
    pub salvage: Salvage,
}

impl Uploader {
    /// Prepares the spool.
    ///
    /// # Errors
    /// When the spool's directory cannot be made or written.
    pub(super) fn new(
        repository: Arc<Repository>,
        progress: Arc<dyn Progress>,
        spool: SpoolOptions,
        uploads_max: usize,
        handle: Handle,
    ) -> Result<Uploader, BackupError> {
        let uploader = Uploader {
            repository,
            progress,
            handle,
            uploads: Arc::new(Semaphore::new(uploads_max)),
            spooled_bytes: Arc::new(AtomicU64::new(0)),
            tasks: Mutex::new(JoinSet::new()),
            failure: Arc::new(Failure::default()),
            stopped: watch::Sender::new(false),
            warned: AtomicBool::new(false),
            told_full: AtomicBool::new(false),
            number: AtomicU64::new(0),
            uploaded_packs: AtomicU64::new(0),
            damaged: OnceLock::new(),
            packs_found: Arc::default(),
            salvage: Salvage::default(),
            spool,
        };
        uploader.prepare_spool().map_err(|source| uploader.spool_error(source))?;
        Ok(uploader)
    }

    /// Tells which packs are damaged, once, before anything is handed over.
    pub(super) fn know_damaged(&self, packs: HashSet<PackId>) {
        self.damaged.get_or_init(|| packs);
    }

    fn prepare_spool(&self) -> io::Result<()> {
        self.progress.level(Level::SpoolMax, self.spool.bytes_max);
        if self.spool.bytes_max == 0 {
            return Ok(());
        }
        fs::create_dir_all(&self.spool.directory)?;
        for entry in fs::read_dir(&self.spool.directory)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "pack") {
                fs::remove_file(path)?;
            }
        }
        // Found out now rather than in the middle of the night's backup.
        let probe = self.spool.directory.join("probe.pack");
        fs::write(&probe, vec![0; 1 << 20])?;
        fs::remove_file(probe)?;
        let room = rustix::fs::statvfs(&self.spool.directory)?;
        let free = room.f_bavail * room.f_frsize;
        if free < crate::format::pack::PACK_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::StorageFull, format!("{} MiB are free", free >> 20)));
        }
        if free < self.spool.bytes_max {
            let directory = self.spool.directory.display();
            self.progress.warn(&format!("the spool {directory} may not reach its size: {} MiB are free", free >> 20));
        }
        Ok(())
    }

    fn spool_error(&self, source: io::Error) -> BackupError {
        BackupError::Spool { directory: self.spool.directory.clone(), source }
    }

    fn submit(&self, pack: FinishedPack) -> Result<(), BackupError> {
        self.repository.remember(&pack);
        // For the case that this capture has to be taken again.
        self.salvage.note(&pack);
        self.uploaded_packs.fetch_add(1, Ordering::SeqCst);
        self.hand_over(pack.id, pack.bytes, Purpose::Store)
    }

    /// Hands over a pack; waits when neither memory nor spool have room.
    fn hand_over(&self, id: PackId, bytes: Vec<u8>, purpose: Purpose) -> Result<(), BackupError> {
        self.failure.check()?;
        let bytes = Bytes::from(bytes);
        let waiting = match self.uploads.clone().try_acquire_owned() {
            Ok(permit) => {
                self.spawn(id, purpose, Waiting::Memory(bytes), Some(permit));
                return Ok(());
            }
            Err(_) => self.spool(&bytes)?,
        };
        match waiting {
            Some(spooled) => self.spawn(id, purpose, spooled, None),
            None => {
                // What fails now is not waited for as long as it would be if nobody waited.
                self.repository.store().hurry(ROOM_WAIT);
                let permit = self.handle.block_on(self.uploads.clone().acquire_owned());
                self.repository.store().hold_out();
                let permit = permit.map_err(|_| BackupError::Interrupted)?;
                self.spawn(id, purpose, Waiting::Memory(bytes), Some(permit));
            }
        }
        Ok(())
    }

    /// Writes a pack to the spool, or tells that there is no room.
    fn spool(&self, bytes: &Bytes) -> Result<Option<Waiting>, BackupError> {
        let length = bytes.len() as u64;
        let spooled = self.spooled_bytes.load(Ordering::SeqCst) + length;
        if spooled > self.spool.bytes_max {
            self.warn_of_full_spool();
            return Ok(None);
        }
        if spooled * 100 > self.spool.bytes_max * SPOOL_WARN_PERCENT && !self.warned.swap(true, Ordering::SeqCst) {
            self.progress.warn(&format!(
                "the store is slower than the backup: the spool holds {} of {} MiB",
                spooled >> 20,
                self.spool.bytes_max >> 20
            ));
        }
        let number = self.number.fetch_add(1, Ordering::SeqCst);
        let path = self.spool.directory.join(format!("{}-{number}.pack", std::process::id()));
        match fs::write(&path, bytes) {
            Ok(()) => {
                let before = self.spooled_bytes.fetch_add(length, Ordering::SeqCst);
                self.progress.level(Level::Spooled, before + length);
                Ok(Some(Waiting::Spooled { path, bytes: length }))
            }
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                let _ = fs::remove_file(&path);
                self.progress.warn("the spool's disk is full: the backup waits for the store");
                Ok(None)
            }
            Err(source) => Err(self.spool_error(source)),
        }
    }

    fn warn_of_full_spool(&self) {
        if self.spool.bytes_max == 0 || self.told_full.swap(true, Ordering::SeqCst) {
            return;
        }
        self.progress.warn(&format!(
            "the spool is full ({} MiB): the backup waits for the store, and the server goes on overwriting its redo log; a larger \
             --spool-size outlasts it",
            self.spool.bytes_max >> 20
        ));
    }

    fn spawn(&self, id: PackId, purpose: Purpose, waiting: Waiting, permit: Option<tokio::sync::OwnedSemaphorePermit>) {
        let (repository, progress) = (self.repository.clone(), self.progress.clone());
        let (uploads, failure) = (self.uploads.clone(), self.failure.clone());
        let (spooled_bytes, packs_found) = (self.spooled_bytes.clone(), self.packs_found.clone());
        let task = async move {
            // A pack from the spool will be in memory as well.
            let _permit = match permit {
                Some(permit) => Some(permit),
                None => uploads.acquire_owned().await.ok(),
            };
            if failure.happened.load(Ordering::SeqCst) {
                return;
            }
            let outcome = match &waiting {
                Waiting::Memory(bytes) => purpose.serve(&repository, id, bytes.clone(), &*progress).await,
                Waiting::Spooled { path, .. } => match read_spooled(id, path).await {
                    Ok(bytes) => purpose.serve(&repository, id, bytes, &*progress).await,
                    Err(source) => Err(BackupError::Spool { directory: path.clone(), source }),
                },
            };
            match outcome {
                Ok(PutOutcome::Stored) => {}
                Ok(PutOutcome::AlreadyThere) => {
                    packs_found.lock().unwrap_or_else(PoisonError::into_inner).push(id);
                }
                Err(error) => failure.set(error),
            }
            let length = match waiting {
                Waiting::Memory(bytes) => bytes.len() as u64,
                Waiting::Spooled { path, bytes } => {
                    // What stays behind is cleared by the next run.
                    let _ = tokio::fs::remove_file(path).await;
                    let before = spooled_bytes.fetch_sub(bytes, Ordering::SeqCst);
                    progress.level(Level::Spooled, before.saturating_sub(bytes));
                    bytes
                }
            };
            progress.advance(Phase::Upload, length);
        };
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn_on(task, &self.handle);
    }

    /// Waits until every pack is stored.
    ///
    /// # Errors
    /// The first upload that failed.
    pub(super) async fn finish(&self) -> Result<(), BackupError> {
        let mut tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        while tasks.join_next().await.is_some() {}
        self.failure.check()
    }

    /// The first upload that failed, if one did.
    ///
    /// # Errors
    /// That failure, once; then [`BackupError::Abandoned`].
    pub(super) fn failure(&self) -> Result<(), BackupError> {
        self.failure.check()
    }

    /// Wakes whoever waits for room or for an answer, and takes no more packs.
    pub(super) fn stop(&self) {
        self.failure.set(BackupError::Interrupted);
        self.uploads.close();
        self.stopped.send_replace(true);
    }

    /// What the store answers, for a thread that waits for it; nothing once the run is to end.
    fn answer<T>(&self, request: impl Future<Output = Result<T, RepositoryError>>) -> Result<T, BackupError> {
        let mut stopped = self.stopped.subscribe();
        self.handle.block_on(async {
            tokio::select! {
                answer = request => Ok(answer?),
                _ = stopped.wait_for(|stopped| *stopped) => Err(BackupError::Interrupted),
            }
        })
    }

    /// As [`Uploader::answer`], for a thread that the tool's pipe waits for: it does without as soon as requests are seen to fail.
    fn answer_soon<T>(&self, request: impl Future<Output = Result<T, RepositoryError>>) -> Result<T, BackupError> {
        let store = self.repository.store();
        let is_away = || store.failing_for().is_some_and(|time| time > SOON);
        if is_away() {
            return Err(BackupError::NotSoon);
        }
        self.answer(async {
            let away = async {
                while !is_away() {
                    tokio::time::sleep(LOOK).await;
                }
            };
            tokio::select! {
                answer = request => answer.map(Some),
                () = away => Ok(None),
            }
        })?
        .ok_or(BackupError::NotSoon)
    }

    /// Waits until an upload has failed for good.
    pub(super) async fn failed(&self) {
        self.failure.told.notified().await;
    }
}

/// A pack from the spool; a disk can damage it there too.
async fn read_spooled(id: PackId, path: &std::path::Path) -> io::Result<Bytes> {
    let bytes = tokio::fs::read(path).await?;
    if crate::format::pack_id(&bytes) == id {
        Ok(Bytes::from(bytes))
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidData, format!("{} was damaged on its disk", path.display())))
    }
}

impl Drop for Uploader {
    fn drop(&mut self) {
        let mut tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        tasks.abort_all();
        if self.spool.bytes_max > 0 && self.number.load(Ordering::SeqCst) > 0 {
            let own = format!("{}-", std::process::id());
            let entries = fs::read_dir(&self.spool.directory).into_iter().flatten().flatten();
            for entry in entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&own)) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

impl Stash for Uploader {
    fn new_pack(&self, kind: PackKind) -> Result<PackBuilder, BackupError> {
        Ok(self.repository.keyring().new_pack(kind)?)
    }

    fn put_pack(&self, pack: FinishedPack) -> Result<(), BackupError> {
        self.submit(pack)
    }

    fn read_block(&self, block: &BlockRef) -> Result<Vec<u8>, BackupError> {
        self.answer(self.repository.read_block(block))
    }

    fn read_block_soon(&self, block: &BlockRef) -> Result<Vec<u8>, BackupError> {
        self.answer_soon(self.repository.read_block(block))
    }

    fn find(&self, id: &ChunkId, raw_bytes: usize) -> Option<Location> {
        self.salvage.find(id, raw_bytes)
    }

    fn page_sums(&self, chunk: &PageChunk) -> Option<Vec<PageSum>> {
        // Without sums the pages are stored again, which is never wrong.
        self.answer_soon(self.repository.page_sums(chunk)).ok().flatten()
    }

    fn knows_damage(&self) -> bool {
        self.damaged.get().is_some_and(|packs| !packs.is_empty())
    }

    fn is_damaged(&self, pack: &PackId) -> bool {
        self.damaged.get().is_some_and(|packs| packs.contains(pack))
    }

    fn mend(&self, pack: FinishedPack) -> Result<(), BackupError> {
        self.hand_over(pack.id, pack.bytes, Purpose::Mend)
    }
}
