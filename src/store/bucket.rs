//! A made-up bucket in memory, on a clock of its own, with versions, object lock, and more strictness than S3 has.
//!
//! | what | S3 | here |
//! |---|---|---|
//! | put where nothing is | with or without a condition | only with `If-None-Match: *`, unless [`Limits::unconditional`] |
//! | body whose sum is not the one sent along | 400 `BadDigest` | the same |
//! | object in one request | 5 GiB | [`Limits::put_bytes_max`] |
//! | parts | 5 MiB at least but for the last, 10,000 at most | [`Limits::part_bytes_min`], [`Limits::parts_max`] |
//! | range that begins past the end | 416 | the same |
//! | listing | pages of 1000, each of another moment | pages of [`Limits::page_keys`], each of another moment |
//! | request that was signed 15 minutes ago | 403 | the same ([`super::faulty::FaultyStore`]) |
//! | shorter lock, removal of a locked version | 403 | the same |
//! | plain delete of a locked object | hides it | hides it, and [`Bucket::hidden_though_locked`] tells |

use std::{
    collections::BTreeMap,
    fmt,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{
    FutureExt, StreamExt,
    stream::{self, BoxStream},
};
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result, UploadPart, path::Path,
};

use super::{Key, ObjectVersion, faulty::refused, locker::Locks, versions::VersionPage};
use crate::model::{Clock, Retention, Timestamp};

/// How strict the bucket is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of an object that comes in one request: 5 GiB.
    pub put_bytes_max: u64,
    /// Least bytes of each part but the last: 5 MiB.
    pub part_bytes_min: u64,
    /// Parts of an object: 10,000.
    pub parts_max: usize,
    /// Keys of a page of a listing.
    pub page_keys: usize,
    /// Whether an object can be put where nothing is without a condition.
    pub unconditional: bool,
    /// Whether conditions are passed over in silence, as some stores do.
    pub ignores_conditions: bool,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            put_bytes_max: 5 << 30,
            part_bytes_min: 5 << 20,
            parts_max: 10_000,
            page_keys: 1000,
            unconditional: false,
            ignores_conditions: false,
        }
    }
}

/// The sum over a body that its sender made; S3's is `x-amz-checksum-sha256`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BodySum([u8; 32]);

impl BodySum {
    pub(super) fn of(body: &[u8]) -> BodySum {
        BodySum(*blake3::hash(body).as_bytes())
    }
}

/// A bucket; clones are the same one.
#[derive(Clone)]
pub struct Bucket {
    clock: Arc<dyn Clock>,
    limits: Limits,
    /// Whether it keeps versions and locks objects.
    locks: bool,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// All versions of each key, the oldest first; at least one.
    objects: BTreeMap<Path, Vec<Version>>,
    versions: u64,
    hidden_though_locked: Vec<String>,
}

#[derive(Debug, Clone)]
struct Version {
    id: String,
    /// Nothing in a delete marker.
    bytes: Option<Bytes>,
    stored: Timestamp,
    retention: Option<Retention>,
}

impl Version {
    fn holds_at(&self, now: Timestamp) -> bool {
        self.retention.is_some_and(|retention| retention.until > now)
    }
}

impl Bucket {
    /// A bucket without versions and locks.
    pub fn plain(clock: Arc<dyn Clock>, limits: Limits) -> Bucket {
        Bucket { clock, limits, locks: false, state: Arc::default() }
    }

    /// A bucket that keeps versions and has object lock.
    pub fn locking(clock: Arc<dyn Clock>, limits: Limits) -> Bucket {
        Bucket { locks: true, ..Bucket::plain(clock, limits) }
    }

    /// The time of the bucket.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Objects that somebody deleted while they were locked.
    pub fn hidden_though_locked(&self) -> Vec<String> {
        self.state().hidden_though_locked.clone()
    }

    /// Until when the first version of an object is locked; nothing where there is none, or no lock.
    pub fn first_locked_until(&self, key: &str) -> Option<Timestamp> {
        let state = self.state();
        let first = state.objects.get(&Path::from(key))?.iter().find(|version| version.bytes.is_some())?;
        first.retention.map(|retention| retention.until)
    }

    /// Changes the bytes of an object's present version behind everybody's back, as rot does; false where there is none.
    pub fn rot(&self, key: &str, change: impl FnOnce(&mut Vec<u8>)) -> bool {
        let mut state = self.state();
        let present = state.objects.get_mut(&Path::from(key)).and_then(|versions| versions.last_mut());
        let Some(bytes) = present.and_then(|version| version.bytes.as_mut()) else { return false };
        let mut changed = bytes.to_vec();
        change(&mut changed);
        *bytes = changed.into();
        true
    }

    /// Removes an object and all its versions behind everybody's back.
    pub fn lose(&self, key: &str) -> bool {
        self.state().objects.remove(&Path::from(key)).is_some()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, location: &Path, body: Bytes, mode: &PutMode, retention: Option<Retention>) -> Result<PutResult> {
        let is_conditional = *mode == PutMode::Create;
        let now = self.clock.now();
        let mut state = self.state();
        let is_there = state.present(location).is_some();
        if is_conditional && is_there && !self.limits.ignores_conditions {
            return Err(refused(412, Some("PreconditionFailed")));
        }
        if !is_conditional && !is_there && !self.limits.unconditional {
            return Err(refused(400, Some("UnconditionalPut")));
        }
        let id = state.name();
        let version = Version { id: id.clone(), bytes: Some(body), stored: now, retention };
        state.add(location, version, self.locks);
        Ok(PutResult { e_tag: None, version: Some(id), extensions: Default::default() })
    }

    fn delete(&self, location: &Path) {
        let now = self.clock.now();
        let mut state = self.state();
        if !self.locks {
            state.objects.remove(location);
            return;
        }
        let Some(present) = state.present(location) else { return };
        if present.holds_at(now) {
            let what = format!("{location} until {:?}", present.retention.map(|lock| lock.until.to_string()));
            state.hidden_though_locked.push(what);
        }
        let id = state.name();
        state.add(location, Version { id, bytes: None, stored: now, retention: None }, true);
    }

    /// A page of the listing: what lies behind `after`, and whether there is more.
    fn page(&self, prefix: Option<&Path>, after: Option<&Path>) -> (Vec<ObjectMeta>, bool) {
        let state = self.state();
        let belongs = |location: &Path| {
            prefix.is_none_or(|prefix| location.prefix_matches(prefix)) && after.is_none_or(|after| location > after)
        };
        let there = state.objects.keys().filter(|location| belongs(location));
        let mut metas = there.filter_map(|location| Some(meta(location, state.present(location)?)));
        let page: Vec<ObjectMeta> = metas.by_ref().take(self.limits.page_keys).collect();
        let more = metas.next().is_some();
        (page, more)
    }

    fn listing(&self, prefix: Option<&Path>, after: Option<Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (bucket, prefix) = (self.clone(), prefix.cloned());
        let pages = stream::unfold(Some((after, false)), move |next| {
            let (bucket, prefix) = (bucket.clone(), prefix.clone());
            async move {
                let (after, is_further) = next?;
                if is_further {
                    // Between two requests, others have theirs.
                    tokio::task::yield_now().await;
                }
                let (page, more) = bucket.page(prefix.as_ref(), after.as_ref());
                let last = page.last().map(|meta| meta.location.clone());
                Some((stream::iter(page.into_iter().map(Ok)), last.filter(|_| more).map(|last| (Some(last), true))))
            }
        });
        pages.flatten().boxed()
    }

    fn is_of(version: &Version, wanted: Option<&str>) -> bool {
        wanted.is_none_or(|wanted| version.id == wanted)
    }
}

impl State {
    fn name(&mut self) -> String {
        self.versions += 1;
        format!("v{:08}", self.versions)
    }

    fn present(&self, location: &Path) -> Option<&Version> {
        self.objects.get(location)?.last().filter(|version| version.bytes.is_some())
    }

    fn add(&mut self, location: &Path, version: Version, keeps_versions: bool) {
        let versions = self.objects.entry(location.clone()).or_default();
        if !keeps_versions {
            versions.clear();
        }
        versions.push(version);
    }

    /// The present version that readers see, or version `id`; of delete markers none.
    fn find(&self, location: &Path, id: Option<&str>) -> Result<&Version> {
        let found = match id {
            None => self.present(location),
            Some(id) => {
                let versions = self.objects.get(location).map_or(&[][..], Vec::as_slice);
                versions.iter().find(|version| version.id == id && version.bytes.is_some())
            }
        };
        found.ok_or_else(|| refused(404, Some("NoSuchKey")))
    }
}

fn meta(location: &Path, version: &Version) -> ObjectMeta {
    ObjectMeta {
        location: location.clone(),
        last_modified: SystemTime::from(version.stored.0).into(),
        size: version.bytes.as_ref().map_or(0, |bytes| bytes.len() as u64),
        e_tag: None,
        version: Some(version.id.clone()),
    }
}

fn whole(payload: &PutPayload) -> Bytes {
    payload.iter().flat_map(|part| part.iter().copied()).collect()
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bucket")
    }
}

#[async_trait]
impl ObjectStore for Bucket {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let body = whole(&payload);
        if body.len() as u64 > self.limits.put_bytes_max {
            return Err(refused(400, Some("EntityTooLarge")));
        }
        if options.extensions.get::<BodySum>().is_some_and(|sum| *sum != BodySum::of(&body)) {
            return Err(refused(400, Some("BadDigest")));
        }
        let retention = options.extensions.get::<Retention>().copied();
        if retention.is_some() && !self.locks {
            return Err(refused(400, Some("InvalidRequest")));
        }
        self.put(location, body, &options.mode, retention)
    }

    async fn put_multipart_opts(&self, location: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Ok(Box::new(Parts { bucket: self.clone(), location: location.clone(), parts: Vec::new() }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let version = self.state().find(location, options.version.as_deref())?.clone();
        let meta = meta(location, &version);
        let bytes = version.bytes.unwrap_or_default();
        let range = match &options.range {
            Some(range) => range.as_range(meta.size).map_err(|_| refused(416, Some("InvalidRange")))?,
            None => 0..meta.size,
        };
        let body = bytes.slice(range.start as usize..range.end as usize);
        let body = if options.head { Bytes::new() } else { body };
        let payload = GetResultPayload::Stream(stream::once(async { Ok(body) }).boxed());
        Ok(GetResult { payload, meta, range, attributes: Default::default(), extensions: Default::default() })
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let mut found = Vec::new();
        for range in ranges {
            let options = GetOptions { range: Some(range.clone().into()), ..GetOptions::default() };
            found.push(self.get_opts(location, options).await?.bytes().await?);
        }
        Ok(found)
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let bucket = self.clone();
        locations
            .map(move |location| {
                let location = location?;
                bucket.delete(&location);
                Ok(location)
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.listing(prefix, None)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.listing(prefix, Some(offset.clone()))
    }

    async fn list_with_delimiter(&self, _: Option<&Path>) -> Result<ListResult> {
        Err(unknown("a listing by delimiter"))
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(unknown("a copy"))
    }

    async fn rename_opts(&self, _: &Path, _: &Path, _: RenameOptions) -> Result<()> {
        Err(unknown("a rename"))
    }
}

fn unknown(operation: &str) -> Error {
    Error::NotImplemented { operation: operation.to_owned(), implementer: "Bucket".to_owned() }
}

#[async_trait]
impl Locks for Bucket {
    async fn retention(&self, key: &str, version: Option<&str>) -> Result<Option<Retention>> {
        Ok(self.state().find(&Path::from(key), version)?.retention)
    }

    async fn legal_hold(&self, key: &str) -> Result<bool> {
        self.state().find(&Path::from(key), None).map(|_| false)
    }

    async fn extend(&self, key: &str, version: Option<&str>, retention: Retention) -> Result<()> {
        let now = self.clock.now();
        let location = Path::from(key);
        let mut state = self.state();
        let id = state.find(&location, version)?.id.clone();
        let versions = state.objects.get_mut(&location).into_iter().flatten();
        for found in versions.filter(|found| Bucket::is_of(found, Some(&id))) {
            let is_shorter = found.retention.is_some_and(|lock| lock.until > now && lock.until > retention.until);
            if is_shorter {
                return Err(refused(403, Some("AccessDenied")));
            }
            found.retention = Some(retention);
        }
        Ok(())
    }

    async fn copy_version(&self, key: &str, version: &str, retention: Option<Retention>) -> Result<()> {
        let location = Path::from(key);
        let body = self.state().find(&location, Some(version))?.bytes.clone().unwrap_or_default();
        let now = self.clock.now();
        let mut state = self.state();
        let id = state.name();
        state.add(&location, Version { id, bytes: Some(body), stored: now, retention }, true);
        Ok(())
    }

    async fn delete_version(&self, key: &str, version: &str) -> Result<()> {
        let now = self.clock.now();
        let location = Path::from(key);
        let mut state = self.state();
        let Some(versions) = state.objects.get_mut(&location) else { return Ok(()) };
        if versions.iter().any(|found| Bucket::is_of(found, Some(version)) && found.holds_at(now)) {
            return Err(refused(403, Some("AccessDenied")));
        }
        versions.retain(|found| !Bucket::is_of(found, Some(version)));
        if versions.is_empty() {
            state.objects.remove(&location);
        }
        Ok(())
    }

    async fn version_page(&self, prefix: &str, start: Option<&(String, Option<String>)>) -> Result<VersionPage> {
        let state = self.state();
        // Whole keys to a page: a marker behind a version of a key is never given.
        let begins = |location: &Path| {
            location.as_ref().starts_with(prefix) && start.is_none_or(|(key, _)| location.as_ref() > key.as_str())
        };
        let mut keys = state.objects.iter().filter(|(location, _)| begins(location));
        let mut page = VersionPage::default();
        let mut last = None;
        for (location, versions) in keys.by_ref().take(self.limits.page_keys) {
            last = Some(location.as_ref().to_owned());
            let Some(key) = Key::of_path(location) else { continue };
            let newest = versions.last().map(|version| version.id.clone());
            let told = |version: &Version| ObjectVersion {
                key: key.clone(),
                version: version.id.clone(),
                is_marker: version.bytes.is_none(),
                is_latest: newest.as_ref() == Some(&version.id),
                size: version.bytes.as_ref().map_or(0, |bytes| bytes.len() as u64),
                last_modified: version.stored,
            };
            let (markers, objects): (Vec<_>, Vec<_>) =
                versions.iter().rev().map(told).partition(|version| version.is_marker);
            page.versions.extend(objects.into_iter().chain(markers));
        }
        page.next = last.filter(|_| keys.next().is_some()).map(|key| (key, None));
        Ok(page)
    }

    async fn bucket_may_lock(&self) -> Result<bool> {
        Ok(self.locks)
    }
}

/// An upload in parts.
#[derive(Debug)]
struct Parts {
    bucket: Bucket,
    location: Path,
    parts: Vec<Bytes>,
}

#[async_trait]
impl MultipartUpload for Parts {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        // Their order is that of the calls, however the requests overtake each other.
        self.parts.push(whole(&data));
        let many = self.parts.len() > self.bucket.limits.parts_max;
        async move { if many { Err(refused(400, Some("InvalidArgument"))) } else { Ok(()) } }.boxed()
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let Limits { part_bytes_min, parts_max, .. } = self.bucket.limits;
        let Some((_, all_but_last)) = self.parts.split_last() else { return Err(refused(400, Some("MalformedXML"))) };
        if all_but_last.iter().any(|part| (part.len() as u64) < part_bytes_min) {
            return Err(refused(400, Some("EntityTooSmall")));
        }
        if self.parts.len() > parts_max {
            return Err(refused(400, Some("InvalidArgument")));
        }
        self.bucket.put(&self.location, self.parts.concat().into(), &PutMode::Create, None)
    }

    async fn abort(&mut self) -> Result<()> {
        self.parts.clear();
        Ok(())
    }
}
