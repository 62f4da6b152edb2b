//! The operations on a store.

use std::{
    fmt, io,
    ops::Range,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::{StreamExt, stream::BoxStream};
use object_store::{
    GetOptions, GetRange, GetResult, GetResultPayload, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions,
    PutPayload, path::Path,
};
use tokio::{sync::Semaphore, task::JoinSet, time::Instant};

use super::{
    Counters, Key, StoreError, StoreOptions,
    buffers::{Buffer, Buffers},
    classify::{Attempt, Failure, Next, Reason},
    counters::Count,
    credentials::AwsCredentials,
    endurance::Endurance,
    error::{Action, Origin},
    lock::LOCK_REQUESTS_MAX,
    locker::Locks,
    pace::Pace,
    retry::Patience,
    thaw::Archives,
};
use crate::model::{LockPolicy, Timestamp};

/// An object store that holds one repository; clones share limits, counters and connections.
#[derive(Clone)]
pub struct Store {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) objects: Arc<dyn ObjectStore>,
    pub(super) options: StoreOptions,
    pub(super) origin: Arc<Origin>,
    pub(super) counters: Counters,
    upload_pace: Option<Pace>,
    download_pace: Option<Pace>,
    pub(super) credentials: Option<Arc<AwsCredentials>>,
    pub(super) bucket: Option<aws_sdk_s3::Client>,
    pub(super) bucket_name: String,
    pub(super) locker: Option<Arc<dyn Locks>>,
    /// Where objects may lie in an archive.
    pub(super) archives: Option<Arc<dyn Archives>>,
    /// The lock of every object that is put.
    pub(super) lock_policy: Mutex<Option<LockPolicy>>,
    /// The directory of a `file://` repository; a store elsewhere lists in order of keys.
    pub(super) directory: Option<Directory>,
    pub(super) lock_requests: Semaphore,
    uploads: Semaphore,
    pub(super) reads: Semaphore,
    /// For the bodies of answers.
    pub(super) buffers: Arc<Buffers>,
    /// Set once the bucket has said that it has no object lock.
    pub(super) is_without_locks: AtomicBool,
    /// Set once the store has said that it cannot put an object only where none is.
    plain_puts: AtomicBool,
    /// When it was last told that requests fail.
    pub(super) told: Mutex<Option<Instant>>,
    pub(super) endurance: Endurance,
}

/// The parts that `open` puts together.
pub(super) struct Parts {
    pub(super) objects: Arc<dyn ObjectStore>,
    pub(super) origin: Origin,
    pub(super) credentials: Option<Arc<AwsCredentials>>,
    pub(super) bucket: Option<aws_sdk_s3::Client>,
    pub(super) bucket_name: String,
    pub(super) locker: Option<Arc<dyn Locks>>,
    pub(super) archives: Option<Arc<dyn Archives>>,
    pub(super) directory: Option<Directory>,
}

/// A directory as it was when it was opened.
#[derive(Debug)]
pub(super) struct Directory {
    pub(super) path: PathBuf,
    device_and_inode: (u64, u64),
}

/// What is known of an object without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Its key.
    pub key: Key,
    /// Its length in bytes.
    pub size: u64,
    /// When it was stored, by the store's clock.
    pub last_modified: Timestamp,
}

/// How a put ended well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PutOutcome {
    /// The object is new.
    Stored,
    /// An object of this key with exactly these bytes was there, perhaps from a request whose answer was lost.
    AlreadyThere,
}

impl Store {
    /// Wraps any object store, such as one that fails on purpose; `name` stands for the URL in messages.
    pub fn over(name: &str, objects: Arc<dyn ObjectStore>, options: StoreOptions) -> Store {
        let origin = Origin { url: name.to_owned(), ..Origin::default() };
        Store::new(Parts::plain(objects, origin, String::new()), options)
    }

    pub(super) fn new(parts: Parts, options: StoreOptions) -> Store {
        let Parts { objects, origin, credentials, bucket, bucket_name, locker, archives, directory } = parts;
        let shared = Shared {
            objects,
            origin: Arc::new(origin),
            counters: Counters::adding_to(options.totals.clone()),
            upload_pace: options.upload_rate_max.map(Pace::of),
            download_pace: options.download_rate_max.map(Pace::of),
            credentials,
            bucket,
            bucket_name,
            locker,
            archives,
            lock_policy: Mutex::new(None),
            directory,
            lock_requests: Semaphore::new(LOCK_REQUESTS_MAX),
            is_without_locks: AtomicBool::new(false),
            uploads: Semaphore::new(options.uploads_max.max(1)),
            reads: Semaphore::new(options.reads_max.max(1)),
            buffers: Arc::default(),
            plain_puts: AtomicBool::new(false),
            told: Mutex::new(None),
            endurance: Endurance::default(),
            options,
        };
        Store { shared: Arc::new(shared) }
    }

    /// How the store is reached.
    pub fn origin(&self) -> &Origin {
        &self.shared.origin
    }

    /// What the store was asked to do so far.
    pub fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    /// Stores an object once: it never replaces one of the same key, where the store can tell.
    ///
    /// The store checks the bytes it received against a checksum. A store that ignores the condition overwrites
    /// ([`Store::probe`] tells); keys are unique, so nothing rests on it.
    ///
    /// # Errors
    /// [`StoreError::AlreadyExists`] when the key holds other bytes; those of access, space and availability.
    pub async fn put(&self, key: &Key, payload: impl Into<PutPayload>) -> Result<PutOutcome, StoreError> {
        self.put_as(key, payload.into(), true).await
    }

    /// As [`Store::put`], without the lock of [`Store::lock_puts`]: for what is kept for a moment only.
    ///
    /// # Errors
    /// Those of [`Store::put`].
    pub async fn put_brief(&self, key: &Key, payload: impl Into<PutPayload>) -> Result<PutOutcome, StoreError> {
        self.put_as(key, payload.into(), false).await
    }

    async fn put_as(&self, key: &Key, payload: PutPayload, locked: bool) -> Result<PutOutcome, StoreError> {
        let path = key.path();
        let _permit = self.shared.uploads.acquire().await;
        let attempt = self.attempt(Action::Store, key.as_str());
        self.repeat(&attempt, || self.put_once(&attempt, &path, &payload, locked)).await
    }

    /// Puts the right bytes in the place of an object whose bytes are not what its key says, and reads them back.
    ///
    /// Nothing else may be replaced: only of an object that is named by its bytes is it known which are right.
    ///
    /// # Errors
    /// [`StoreError::AlreadyExists`] when the store said that all went well and still has other bytes; those of access, space and
    /// availability.
    pub async fn mend(&self, key: &Key, payload: impl Into<PutPayload>) -> Result<(), StoreError> {
        let payload = payload.into();
        let path = key.path();
        let _permit = self.shared.uploads.acquire().await;
        let attempt = self.attempt(Action::Store, key.as_str());
        let mended = self.repeat(&attempt, || async {
            self.check_directory(&attempt).await?;
            let options = PutOptions { mode: PutMode::Overwrite, ..self.put_options(true) };
            self.send(&attempt, &path, &payload, options).await?;
            self.compare(&attempt, &path, &payload).await
        });
        mended.await.map(|_| ())
    }

    /// Reads a whole object that is at most `bytes_max` long.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::TooLarge`], before any byte is read; those of access and availability.
    pub async fn get(&self, key: &Key, bytes_max: u64) -> Result<Bytes, StoreError> {
        self.get_wanted(key, Wanted::Whole { bytes_max }).await
    }

    pub(super) async fn get_wanted(&self, key: &Key, wanted: Wanted) -> Result<Bytes, StoreError> {
        let (store, path, attempt) = (self.clone(), key.path(), self.attempt(Action::Read, key.as_str()));
        apart(async move {
            let _permit = store.shared.reads.acquire().await;
            store.repeat(&attempt, || store.get_once(&attempt, &path, wanted.clone())).await
        })
        .await
    }

    /// Reads bytes `range` of an object: all of them.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Truncated`] when the object ends before the range; those of access and
    /// availability.
    pub async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes, StoreError> {
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        self.get_wanted(key, Wanted::Range(range)).await
    }

    /// Asks for the size of an object.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], also where the bucket is missing: the answer to this request does not tell them apart.
    pub async fn head(&self, key: &Key) -> Result<ObjectInfo, StoreError> {
        let (store, path, attempt) = (self.clone(), key.path(), self.attempt(Action::Look, key.as_str()));
        let look = async move {
            let _permit = store.shared.reads.acquire().await;
            store.repeat(&attempt, || store.head_once(&attempt, &path)).await
        };
        let meta = apart(look).await?;
        Ok(ObjectInfo { key: key.clone(), size: meta.size, last_modified: timestamp(&meta) })
    }

    /// Lists all objects in folder `folder` and the folders in it, or in the whole repository, in no promised order.
    ///
    /// Objects whose keys are none of ours are passed over.
    pub fn list(&self, folder: Option<&Key>) -> BoxStream<'static, Result<ObjectInfo, StoreError>> {
        self.list_from(folder, None)
    }

    /// As [`Store::list`], but only objects whose keys come behind `after`: what is new costs no more than itself.
    pub fn list_after(&self, folder: &Key, after: &Key) -> BoxStream<'static, Result<ObjectInfo, StoreError>> {
        self.list_from(Some(folder), Some(after.path()))
    }

    fn list_from(
        &self,
        folder: Option<&Key>,
        last: Option<Path>,
    ) -> BoxStream<'static, Result<ObjectInfo, StoreError>> {
        let listing = Listing {
            attempt: self.attempt(Action::List, folder.map_or("/", Key::as_str)),
            patience: Patience::new(&self.shared.options.retry),
            folder: folder.map(Key::path),
            store: self.clone(),
            objects: None,
            last,
        };
        futures::stream::try_unfold(listing, |mut listing| async move {
            Ok(listing.next().await?.map(|info| (info, listing)))
        })
        .boxed()
    }

    /// Deletes an object that is not locked; one that is not there is deleted already.
    ///
    /// # Errors
    /// [`StoreError::Locked`], with the lock; those of access and availability.
    pub async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        self.refuse_locked(key).await?;
        self.delete_brief(key).await
    }

    /// Deletes an object without asking whether it is locked: for what [`Store::put_brief`] stored.
    ///
    /// # Errors
    /// Those of access and availability.
    pub async fn delete_brief(&self, key: &Key) -> Result<(), StoreError> {
        let (store, path, attempt) = (self.clone(), key.path(), self.attempt(Action::Delete, key.as_str()));
        let deleted = async move {
            let _permit = store.shared.reads.acquire().await;
            let once = || async {
                store.check_directory(&attempt).await?;
                store.shared.counters.add(Count::Delete, 1);
                let time_max = store.shared.options.retry.silence_max;
                timely(&attempt, time_max, store.shared.objects.delete(&path)).await
            };
            store.repeat(&attempt, once).await
        };
        match apart(deleted).await {
            Err(StoreError::NotFound { .. }) => Ok(()),
            result => result,
        }
    }

    pub(super) fn attempt(&self, action: Action, what: &str) -> Attempt {
        Attempt { action, what: what.to_owned(), origin: self.shared.origin.clone() }
    }

    async fn put_once(
        &self,
        attempt: &Attempt,
        path: &Path,
        payload: &PutPayload,
        locked: bool,
    ) -> Result<PutOutcome, Failure> {
        // Made for each attempt: the time until which it locks is counted from now.
        let options = self.put_options(locked);
        self.check_directory(attempt).await?;
        if self.shared.plain_puts.load(Ordering::Relaxed) {
            return self.put_plain(attempt, path, payload, options).await;
        }
        match self.send(attempt, path, payload, PutOptions { mode: PutMode::Create, ..options.clone() }).await {
            Err(Failure { next: Next::Compare, .. }) => self.compare(attempt, path, payload).await,
            Err(Failure { next: Next::PutPlain, .. }) => {
                let outcome = self.put_plain(attempt, path, payload, options).await?;
                self.shared.plain_puts.store(true, Ordering::Relaxed);
                Ok(outcome)
            }
            result => result.map(|()| PutOutcome::Stored),
        }
    }

    /// Puts where the store knows no conditions: looks first, which two writers at once can both do.
    async fn put_plain(
        &self,
        attempt: &Attempt,
        path: &Path,
        payload: &PutPayload,
        options: PutOptions,
    ) -> Result<PutOutcome, Failure> {
        match self.head_once(attempt, path).await {
            Ok(_) => self.compare(attempt, path, payload).await,
            Err(Failure { error: StoreError::NotFound { .. }, .. }) => {
                let options = PutOptions { mode: PutMode::Overwrite, ..options };
                self.send(attempt, path, payload, options).await.map(|()| PutOutcome::Stored)
            }
            Err(failure) => Err(failure),
        }
    }

    pub(super) async fn send(
        &self,
        attempt: &Attempt,
        path: &Path,
        payload: &PutPayload,
        options: PutOptions,
    ) -> Result<(), Failure> {
        let size = payload.content_length() as u64;
        if let Some(pace) = &self.shared.upload_pace {
            pace.send(size).await;
        }
        self.shared.counters.add(Count::Put, 1);
        let put = self.shared.objects.put_opts(path, payload.clone(), options);
        timely(attempt, self.shared.options.retry.transfer_max(size), put).await?;
        self.shared.counters.add(Count::BytesUp, size);
        Ok(())
    }

    /// Decides by its bytes whether the object that is there is the one to be put.
    async fn compare(&self, attempt: &Attempt, path: &Path, payload: &PutPayload) -> Result<PutOutcome, Failure> {
        let exists = || Failure::give_up(StoreError::AlreadyExists { key: attempt.what.clone() });
        let size = payload.content_length() as u64;
        match self.get_once(attempt, path, Wanted::Whole { bytes_max: size }).await {
            Ok(found) => {
                let mut rest = &found[..];
                let same = found.len() as u64 == size
                    && payload.iter().all(|part| {
                        let (head, tail) = rest.split_at(part.len());
                        rest = tail;
                        head == part
                    });
                if same { Ok(PutOutcome::AlreadyThere) } else { Err(exists()) }
            }
            Err(Failure { error: StoreError::TooLarge { .. }, .. }) => Err(exists()),
            // Another put of this key was under way and came to nothing.
            Err(Failure { error: StoreError::NotFound { source, .. }, .. }) => Err(attempt.unavailable(source)),
            // Credentials that have ended are renewed, and it is asked again.
            Err(failure @ Failure { error: StoreError::Denied { .. }, next: Next::Renew }) => Err(failure),
            // Who may not read cannot tell, and must not take another's object for its own.
            Err(Failure { error: StoreError::Denied { .. }, .. }) => Err(exists()),
            Err(failure) => Err(failure),
        }
    }

    async fn get_once(&self, attempt: &Attempt, path: &Path, wanted: Wanted) -> Result<Bytes, Failure> {
        self.check_directory(attempt).await?;
        let pace = self.shared.download_pace.as_ref();
        let turn = match pace {
            Some(pace) => Some(pace.begin().await),
            None => None,
        };
        self.shared.counters.add(Count::Get, 1);
        let range = match &wanted {
            Wanted::Whole { .. } | Wanted::Version { .. } => None,
            Wanted::Range(range) => Some(GetRange::Bounded(range.clone())),
        };
        let version = match &wanted {
            Wanted::Version { version, .. } => Some(version.clone()),
            _ => None,
        };
        let options = GetOptions { range, version, ..GetOptions::default() };
        let silence_max = self.shared.options.retry.silence_max;
        let result = timely(attempt, silence_max, self.shared.objects.get_opts(path, options)).await;
        let result = match (result, &wanted) {
            // A range that begins past the end is refused in as many ways as there are stores.
            (Err(failure @ Failure { error: StoreError::Other { .. }, .. }), Wanted::Range(range)) => {
                let size = self.head_once(attempt, path).await?.size;
                return Err(if size < range.end { truncated(attempt, range.end, size) } else { failure });
            }
            (result, _) => result?,
        };
        match &wanted {
            Wanted::Whole { bytes_max } | Wanted::Version { bytes_max, .. } if result.meta.size > *bytes_max => {
                let (expected, found) = (*bytes_max, result.meta.size);
                return Err(Failure::give_up(StoreError::TooLarge { key: attempt.what.clone(), expected, found }));
            }
            Wanted::Range(range) if result.range != *range => {
                return Err(truncated(attempt, range.end, result.range.end));
            }
            _ => {}
        }
        if let Some(pace) = pace {
            pace.take(result.range.end.saturating_sub(result.range.start));
        }
        drop(turn);
        let bytes = self.receive(attempt, result).await?;
        self.shared.counters.add(Count::BytesDown, bytes.len() as u64);
        Ok(bytes)
    }

    /// Receives the body of an answer, whose length is known and was accepted.
    async fn receive(&self, attempt: &Attempt, result: GetResult) -> Result<Bytes, Failure> {
        let policy = &self.shared.options.retry;
        let size = result.range.end.saturating_sub(result.range.start);
        let transfer_max = policy.transfer_max(size);
        let bytes = match result.payload {
            GetResultPayload::File(..) => timely(attempt, transfer_max, result.bytes()).await?,
            GetResultPayload::Stream(parts) => {
                let collected = collect(attempt, parts, size, policy.silence_max, &self.shared.buffers);
                tokio::time::timeout(transfer_max, collected)
                    .await
                    .unwrap_or_else(|_| Err(attempt.unavailable(late(transfer_max))))?
            }
        };
        if bytes.len() as u64 == size {
            return Ok(bytes);
        }
        let reason = format!("the answer ended after {} of {size} bytes", bytes.len());
        Err(attempt.unavailable(Box::new(Reason(reason))))
    }

    async fn head_once(&self, attempt: &Attempt, path: &Path) -> Result<ObjectMeta, Failure> {
        self.check_directory(attempt).await?;
        self.shared.counters.add(Count::Head, 1);
        let silence_max = self.shared.options.retry.silence_max;
        match timely(attempt, silence_max, self.shared.objects.head(path)).await {
            Err(failure) if failure.is_bare_refusal() => {
                // An expired token has to be renewed and a wrong secret to be named: reading one byte tells.
                self.shared.counters.add(Count::Get, 1);
                let options = GetOptions { range: Some(GetRange::Bounded(0..1)), ..GetOptions::default() };
                match timely(attempt, silence_max, self.shared.objects.get_opts(path, options)).await {
                    Err(told) if !told.is_bare_refusal() && told.is_refusal() => Err(told),
                    _ => Err(failure),
                }
            }
            result => result,
        }
    }

    /// True when this is the store of a directory that is no longer there, or another: its disk was away, and it must be opened again.
    pub async fn is_lost(&self) -> bool {
        let Some(directory) = &self.shared.directory else { return false };
        let found = tokio::time::timeout(self.shared.options.retry.silence_max, directory.is_same()).await;
        !matches!(found, Ok(Ok(true)))
    }

    /// Fails when the directory of a `file://` repository is no longer there: without its disk it would be created anew
    /// below the mount point, and everything in it would seem to be gone.
    pub(super) async fn check_directory(&self, attempt: &Attempt) -> Result<(), Failure> {
        let Some(directory) = &self.shared.directory else {
            return Ok(());
        };
        let silence_max = self.shared.options.retry.silence_max;
        let found = tokio::time::timeout(silence_max, directory.is_same())
            .await
            .map_err(|_| attempt.unavailable(late(silence_max)))?;
        match found {
            Ok(true) => Ok(()),
            _ => Err(Failure::give_up(StoreError::DirectoryGone { directory: directory.path.clone() })),
        }
    }
}

/// Does `work` in a task of its own, which ends at the latest with the future that waits for it.
///
/// Whoever reads ahead does not always ask how his reads get on. A future that nobody polls keeps its place among the requests in
/// flight, and all others would wait for it.
pub(super) async fn apart<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    let mut tasks = JoinSet::new();
    tasks.spawn(work);
    match tasks.join_next().await {
        Some(Ok(done)) => done,
        Some(Err(error)) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        // The runtime is being shut down.
        _ => std::future::pending().await,
    }
}

impl Parts {
    /// Those of a store without locks, versions or archives.
    pub(super) fn plain(objects: Arc<dyn ObjectStore>, origin: Origin, bucket_name: String) -> Parts {
        let (credentials, bucket, locker, archives, directory) = (None, None, None, None, None);
        Parts { objects, origin, credentials, bucket, bucket_name, locker, archives, directory }
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Store({})", self.shared.origin.url)
    }
}

impl Directory {
    pub(super) fn open(path: PathBuf) -> io::Result<Directory> {
        let device_and_inode = device_and_inode(&std::fs::metadata(&path)?);
        Ok(Directory { path, device_and_inode })
    }

    async fn is_same(&self) -> io::Result<bool> {
        Ok(device_and_inode(&tokio::fs::metadata(&self.path).await?) == self.device_and_inode)
    }
}

fn device_and_inode(metadata: &std::fs::Metadata) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt;
    (metadata.dev(), metadata.ino())
}

/// What to read of an object.
#[derive(Debug, Clone)]
pub(super) enum Wanted {
    Whole { bytes_max: u64 },
    Version { version: String, bytes_max: u64 },
    Range(Range<u64>),
}

/// A listing under way, which goes on behind the last key when it breaks off.
struct Listing {
    store: Store,
    attempt: Attempt,
    patience: Patience,
    folder: Option<Path>,
    objects: Option<BoxStream<'static, object_store::Result<ObjectMeta>>>,
    last: Option<Path>,
}

impl Listing {
    async fn next(&mut self) -> Result<Option<ObjectInfo>, StoreError> {
        loop {
            match self.next_meta().await {
                Ok(None) => return Ok(None),
                Ok(Some(meta)) => {
                    // Each stretch that went well earns the next its own attempts.
                    if self.patience.was_used() {
                        self.patience = Patience::new(&self.store.shared.options.retry);
                    }
                    let info = Key::of_path(&meta.location).map(|key| {
                        let last_modified = timestamp(&meta);
                        ObjectInfo { key, size: meta.size, last_modified }
                    });
                    self.last = Some(meta.location);
                    if info.is_some() {
                        return Ok(info);
                    }
                }
                Err(failure) => {
                    self.objects = None;
                    let in_order = self.store.shared.directory.is_none();
                    if self.last.is_some() && !in_order {
                        return Err(failure.error);
                    }
                    let store = self.store.clone();
                    store.wait(&self.attempt, failure, &mut self.patience).await?;
                }
            }
        }
    }

    async fn next_meta(&mut self) -> Result<Option<ObjectMeta>, Failure> {
        let shared = &self.store.shared;
        let objects = match &mut self.objects {
            Some(objects) => objects,
            None => {
                self.store.check_directory(&self.attempt).await?;
                shared.counters.add(Count::List, 1);
                self.objects.insert(match &self.last {
                    Some(last) => shared.objects.list_with_offset(self.folder.as_ref(), last),
                    None => shared.objects.list(self.folder.as_ref()),
                })
            }
        };
        let silence_max = shared.options.retry.silence_max;
        match tokio::time::timeout(silence_max, objects.next()).await {
            Ok(meta) => meta.transpose().map_err(|error| self.attempt.classify(error)),
            Err(_) => Err(self.attempt.unavailable(late(silence_max))),
        }
    }
}

/// Waits for a request for at most `time_max`.
pub(super) async fn timely<T>(
    attempt: &Attempt,
    time_max: Duration,
    request: impl Future<Output = object_store::Result<T>>,
) -> Result<T, Failure> {
    match tokio::time::timeout(time_max, request).await {
        Ok(result) => result.map_err(|error| attempt.classify(error)),
        Err(_) => Err(attempt.unavailable(late(time_max))),
    }
}

async fn collect(
    attempt: &Attempt,
    mut parts: BoxStream<'static, object_store::Result<Bytes>>,
    size: u64,
    silence_max: Duration,
    buffers: &Arc<Buffers>,
) -> Result<Bytes, Failure> {
    let mut body: Option<Buffer> = None;
    loop {
        let part = match tokio::time::timeout(silence_max, parts.next()).await {
            Ok(Some(part)) => part.map_err(|error| attempt.classify(error))?,
            Ok(None) => return Ok(body.map(Buffer::freeze).unwrap_or_default()),
            Err(_) => return Err(attempt.unavailable(late(silence_max))),
        };
        if part.len() as u64 == size && body.is_none() {
            return Ok(part);
        }
        let length = body.as_ref().map_or(0, Buffer::len);
        if (length + part.len()) as u64 > size {
            let reason = format!("the answer is longer than the {size} bytes announced");
            return Err(attempt.unavailable(Box::new(Reason(reason))));
        }
        // What was asked for, or less than the caller's limit.
        let room = usize::try_from(size).unwrap_or(part.len());
        body.get_or_insert_with(|| buffers.take(room)).extend(&part);
    }
}

fn late(time_max: Duration) -> super::error::Cause {
    Box::new(Reason(format!("no answer within {} s", time_max.as_secs())))
}

fn truncated(attempt: &Attempt, expected: u64, found: u64) -> Failure {
    Failure::give_up(StoreError::Truncated { key: attempt.what.clone(), expected, found })
}

fn timestamp(meta: &ObjectMeta) -> Timestamp {
    let modified = meta.last_modified;
    let nanoseconds = i32::try_from(modified.timestamp_subsec_nanos()).unwrap_or(0);
    // A store that tells a time outside of the calendar tells nothing.
    Timestamp(jiff::Timestamp::new(modified.timestamp(), nanoseconds).unwrap_or(jiff::Timestamp::UNIX_EPOCH))
}
