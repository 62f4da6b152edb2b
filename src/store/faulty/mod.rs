//! A store that fails on purpose, by a script or by seeded chance.
//!
//! It wraps any [`ObjectStore`], so that it stands below [`super::Store`] and its retries, as a real network does. Over a made-up
//! [`Bucket`] the requests about locks and versions go through it, too.

mod locks;
mod script;
#[cfg(test)]
mod tests;

use std::{
    collections::VecDeque,
    fmt, io,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use aws_credential_types::{
    Credentials,
    provider::{ProvideCredentials, SharedCredentialsProvider, future},
};
use bytes::Bytes;
use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use object_store::{
    CopyOptions, CredentialProvider, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult,
    RenameOptions, Result, path::Path,
};

pub use script::{Fault, Odds, Operation, Rule, Script};

use script::Play;

use super::{
    Refusal, Store, StoreOptions,
    bucket::{BodySum, Bucket},
    client::Parts,
    credentials::AwsCredentials,
    error::Origin,
    locker::Locks,
};

/// Bytes of each part of a body that is cut or changed.
const PART_BYTES: usize = 64 << 10;

/// Time for which S3 takes a signature. A machine that slept in the middle of a request is refused.
const SIGNATURE_SECONDS: i64 = 15 * 60;

/// Deleted objects that old listings may still have.
const GRAVES_KEPT: usize = 16;

/// An object store that fails as its script says.
#[derive(Clone)]
pub struct FaultyStore {
    inner: Arc<dyn ObjectStore>,
    locks: Option<Arc<dyn Locks>>,
    bucket: Option<Bucket>,
    credentials: Option<Arc<AwsCredentials>>,
    play: Arc<Mutex<Play>>,
    /// What was deleted last, for old listings.
    graves: Arc<Mutex<VecDeque<ObjectMeta>>>,
}

impl FaultyStore {
    /// Puts `script` between the caller and `inner`.
    pub fn new(inner: Arc<dyn ObjectStore>, script: Script) -> FaultyStore {
        let play = Arc::new(Mutex::new(Play::new(script)));
        FaultyStore { inner, locks: None, bucket: None, credentials: None, play, graves: Arc::default() }
    }

    /// The same over a made-up bucket, whose locks and versions come through it as well.
    pub fn over_bucket(bucket: &Bucket, script: Script) -> FaultyStore {
        let faulty = FaultyStore::new(Arc::new(bucket.clone()), script);
        FaultyStore { locks: Some(Arc::new(bucket.clone())), bucket: Some(bucket.clone()), ..faulty }
    }

    /// The way of another process to the same store, with weather and credentials of its own. What one deletes, old
    /// listings of the other may still have.
    pub fn beside(&self, script: Script) -> FaultyStore {
        FaultyStore { play: Arc::new(Mutex::new(Play::new(script))), credentials: None, ..self.clone() }
    }

    /// A store on top of it, called `name`, that comes with temporary credentials, and gets others when it asks again.
    pub fn store(&self, name: &str, options: StoreOptions) -> Store {
        let provider = SharedCredentialsProvider::new(Renewable::default());
        let credentials = Arc::new(AwsCredentials::new(provider, options.clock.clone(), name.to_owned()));
        let faulty = Arc::new(FaultyStore { credentials: Some(credentials.clone()), ..self.clone() });
        let origin = Origin { url: name.to_owned(), ..Origin::default() };
        let locker = self.locks.is_some().then(|| faulty.clone() as Arc<dyn Locks>);
        let credentials = Some(credentials);
        let parts = Parts { credentials, locker, ..Parts::plain(faulty, origin, String::new()) };
        Store::new(parts, options)
    }

    /// Replaces the script; a clone that was kept outside turns the weather with it.
    pub fn set_script(&self, script: Script) {
        self.lock().script = script;
    }

    /// Requests that went wrong so far.
    pub fn faults(&self) -> u64 {
        self.lock().faults
    }

    /// Requests so far.
    pub fn requests(&self) -> u64 {
        self.lock().requests
    }

    fn lock(&self) -> MutexGuard<'_, Play> {
        self.play.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets others go on.
    async fn turn(&self) {
        let turns = self.lock().turns();
        for _ in 0..turns {
            tokio::task::yield_now().await;
        }
    }

    /// What goes wrong with this request; faults that come before any effect are carried out here.
    async fn meet(&self, operation: Operation, key: &str) -> Result<Option<Fault>> {
        let signed = self.bucket.as_ref().map(Bucket::now);
        self.turn().await;
        // As a real client does, which signs each request.
        let key_id = match &self.credentials {
            Some(credentials) => credentials.get_credential().await?.key_id.clone(),
            None => String::new(),
        };
        if let (Some(bucket), Some(signed)) = (&self.bucket, signed)
            && bucket.now().seconds_since(signed) > SIGNATURE_SECONDS
        {
            return Err(refused(403, Some("RequestTimeTooSkewed")));
        }
        let fault = {
            let mut play = self.lock();
            let fault = play.decide(operation, key);
            if fault == Some(Fault::Expire) {
                play.ended = Some(key_id.clone());
            }
            if play.ended.as_ref() == Some(&key_id) {
                return Err(refused(400, Some("ExpiredToken")));
            }
            fault
        };
        match fault {
            Some(Fault::Reset) => Err(reset()),
            Some(Fault::Denied) => {
                let source = Box::new(io::Error::other("denied on purpose"));
                Err(Error::PermissionDenied { path: key.to_owned(), source })
            }
            Some(Fault::NoSpace) => Err(generic(io::Error::from(io::ErrorKind::StorageFull))),
            Some(Fault::Throttle { status, retry_after }) => {
                let code = (status == 503).then(|| "SlowDown".to_owned());
                Err(generic(Refusal { status, code, retry_after, ..Refusal::default() }))
            }
            Some(Fault::Conflict) if operation == Operation::Put => {
                Err(refused(409, Some("ConditionalRequestConflict")))
            }
            Some(Fault::Delay(time)) => {
                tokio::time::sleep(time).await;
                Ok(None)
            }
            Some(Fault::Hang) => std::future::pending().await,
            later => Ok(later),
        }
    }
}

/// Credentials of which there are always others.
#[derive(Debug, Default)]
struct Renewable(std::sync::atomic::AtomicU64);

impl ProvideCredentials for Renewable {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        let number = self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let id = format!("MADEUP{number:010}");
        future::ProvideCredentials::ready(Ok(Credentials::new(id, "made up", None, None, "faulty")))
    }
}

impl fmt::Debug for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FaultyStore({})", self.inner)
    }
}

#[async_trait]
impl ObjectStore for FaultyStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let fault = self.meet(Operation::Put, location.as_ref()).await?;
        let (mut payload, mut options) = (payload, options);
        match fault {
            Some(Fault::FlipBit(bit)) => {
                let whole = join(&payload);
                options.extensions.insert(BodySum::of(&whole));
                payload = flipped(&whole, bit).into();
            }
            Some(Fault::IgnoreCondition) => options.mode = PutMode::Overwrite,
            Some(Fault::RefuseCondition) if options.mode == PutMode::Create => {
                let (operation, implementer) = ("a conditional put".to_owned(), self.to_string());
                return Err(Error::NotImplemented { operation, implementer });
            }
            _ => {}
        }
        let result = self.inner.put_opts(location, payload, options).await?;
        self.turn().await;
        if fault == Some(Fault::LoseAnswer) { Err(reset()) } else { Ok(result) }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let operation = if options.head { Operation::Head } else { Operation::Get };
        let fault = self.meet(operation, location.as_ref()).await?;
        let result = self.inner.get_opts(location, options).await?;
        self.turn().await;
        match fault {
            Some(Fault::LoseAnswer) => Err(reset()),
            Some(fault @ (Fault::CutBody(_) | Fault::BreakBody(_) | Fault::FlipBit(_)))
                if operation == Operation::Get =>
            {
                spoil(result, fault).await
            }
            _ => Ok(result),
        }
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.meet(Operation::Get, location.as_ref()).await?;
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        locations
            .then(move |location| {
                let store = store.clone();
                async move {
                    let location = location?;
                    let fault = store.meet(Operation::Delete, location.as_ref()).await?;
                    if let Ok(meta) = store.inner.head(&location).await {
                        store.bury(meta);
                    }
                    store.inner.delete(&location).await?;
                    store.turn().await;
                    if fault == Some(Fault::LoseAnswer) { Err(reset()) } else { Ok(location) }
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.listed(prefix, None, self.inner.list(prefix))
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.listed(prefix, Some(offset), self.inner.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.meet(Operation::List, prefix.map_or("", Path::as_ref)).await?;
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.inner.rename_opts(from, to, options).await
    }
}

impl FaultyStore {
    fn listed(
        &self,
        prefix: Option<&Path>,
        offset: Option<&Path>,
        objects: BoxStream<'static, Result<ObjectMeta>>,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let store = self.clone();
        let folder = prefix.map_or_else(String::new, ToString::to_string);
        let (prefix, offset) = (prefix.cloned(), offset.cloned());
        stream::once(async move {
            match store.meet(Operation::List, &folder).await {
                Err(error) => stream::once(async { Err(error) }).boxed(),
                Ok(Some(Fault::BreakBody(count))) => {
                    let count = usize::try_from(count).unwrap_or(usize::MAX);
                    objects.take(count).chain(stream::once(async { Err(reset()) })).boxed()
                }
                Ok(Some(Fault::LoseAnswer)) => stream::once(async { Err(reset()) }).boxed(),
                Ok(Some(Fault::OldList(count))) => {
                    let buried = store.buried(prefix.as_ref(), offset.as_ref(), count);
                    aged(objects, buried, count).await
                }
                Ok(_) => objects,
            }
        })
        .flatten()
        .boxed()
    }

    fn bury(&self, meta: ObjectMeta) {
        let mut graves = self.graves.lock().unwrap_or_else(PoisonError::into_inner);
        graves.push_back(meta);
        if graves.len() > GRAVES_KEPT {
            graves.pop_front();
        }
    }

    /// The `count` objects that were deleted last, where they belong to the listing.
    fn buried(&self, prefix: Option<&Path>, offset: Option<&Path>, count: u64) -> Vec<ObjectMeta> {
        let graves = self.graves.lock().unwrap_or_else(PoisonError::into_inner);
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        let belongs = |meta: &&ObjectMeta| {
            prefix.is_none_or(|prefix| meta.location.prefix_matches(prefix))
                && offset.is_none_or(|offset| meta.location > *offset)
        };
        graves.iter().rev().take(count).filter(belongs).cloned().collect()
    }
}

/// The listing without the `count` objects that were stored last, and with those that are `buried`.
async fn aged(
    objects: BoxStream<'static, Result<ObjectMeta>>,
    buried: Vec<ObjectMeta>,
    count: u64,
) -> BoxStream<'static, Result<ObjectMeta>> {
    let mut listed: Vec<Result<ObjectMeta>> = objects.collect().await;
    for _ in 0..count {
        let times =
            listed.iter().enumerate().filter_map(|(place, meta)| Some((meta.as_ref().ok()?.last_modified, place)));
        if let Some((_, newest)) = times.max() {
            drop(listed.remove(newest));
        }
    }
    for meta in buried {
        // In order of keys, as listings are.
        let is_before = |listed: &Result<ObjectMeta>| listed.as_ref().is_ok_and(|one| one.location < meta.location);
        let place = listed.iter().take_while(|listed| is_before(listed)).count();
        let is_there = listed.get(place).is_some_and(|one| one.as_ref().is_ok_and(|one| one.location == meta.location));
        if !is_there {
            listed.insert(place, Ok(meta));
        }
    }
    stream::iter(listed).boxed()
}

/// The answer with its body cut, broken off or changed.
async fn spoil(result: GetResult, fault: Fault) -> Result<GetResult> {
    let (meta, range) = (result.meta.clone(), result.range.clone());
    let (attributes, extensions) = (result.attributes.clone(), result.extensions.clone());
    let mut body = result.bytes().await?;
    let mut end = None;
    match fault {
        // At least one byte is missing.
        Fault::CutBody(length) => body.truncate((length as usize).min(body.len().saturating_sub(1))),
        Fault::BreakBody(length) => {
            body.truncate((length as usize).min(body.len().saturating_sub(1)));
            end = Some(Err(reset()));
        }
        Fault::FlipBit(bit) => body = flipped(&body, bit),
        _ => {}
    }
    let parts: Vec<Result<Bytes>> = body.chunks(PART_BYTES).map(|part| Ok(body.slice_ref(part))).chain(end).collect();
    let payload = GetResultPayload::Stream(stream::iter(parts).boxed());
    Ok(GetResult { payload, meta, range, attributes, extensions })
}

fn join(payload: &PutPayload) -> Bytes {
    payload.iter().flat_map(|part| part.iter().copied()).collect()
}

fn flipped(bytes: &[u8], bit: u64) -> Bytes {
    let mut bytes = bytes.to_vec();
    if !bytes.is_empty() {
        let bit = bit % (bytes.len() as u64 * 8);
        bytes[(bit / 8) as usize] ^= 1 << (bit % 8);
    }
    bytes.into()
}

fn reset() -> Error {
    generic(io::Error::from(io::ErrorKind::ConnectionReset))
}

/// An answer that refuses.
pub(super) fn refused(status: u16, code: Option<&str>) -> Error {
    generic(Refusal { status, code: code.map(str::to_owned), ..Refusal::default() })
}

fn generic(source: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Generic { store: "faulty", source: Box::new(source) }
}
