//! A made-up store with an archive: what lies there is not read before it was asked for and some listings have gone by.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard},
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{TryStreamExt, stream::BoxStream};
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, RenameOptions, Result, path::Path,
};

use super::{
    Frost, Key, ListedFrost, RetryPolicy, Store, StoreOptions, ThawAnswer,
    client::Parts,
    error::Origin,
    faulty::refused,
    thaw::{Archives, FrostPage},
};
use crate::model::{Archive, ThawOrder};

/// The store; clones are the same.
#[derive(Clone)]
pub struct FrozenStore {
    inner: Arc<dyn ObjectStore>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    frozen: BTreeMap<String, Archive>,
    thawing: BTreeMap<String, u32>,
    /// Listings between a wish and its fulfilment.
    patience: u32,
    lists_no_status: bool,
    refused: BTreeSet<String>,
    stuck: BTreeSet<String>,
    forgets: Option<ThawAnswer>,
    wishes: u32,
    asked: Vec<(String, ThawOrder)>,
    listings: u32,
}

impl FrozenStore {
    /// Over the objects of `inner`, none of which is archived. What is asked for can be read after `patience` listings.
    pub fn new(inner: Arc<dyn ObjectStore>, patience: u32) -> FrozenStore {
        let state = State { patience, ..State::default() };
        FrozenStore { inner, state: Arc::new(Mutex::new(state)) }
    }

    /// The same whose listings tell the class alone, and not what was thawed.
    pub fn without_status(self) -> FrozenStore {
        self.lock().lists_no_status = true;
        self
    }

    /// A store on top of it, which does not try again.
    pub fn store(&self) -> Store {
        let retry = RetryPolicy { attempts_max: 1, ..RetryPolicy::default() };
        let origin = Origin { url: "memory://frozen".to_owned(), ..Origin::default() };
        let objects = Arc::new(self.clone());
        let parts = Parts { archives: Some(objects.clone()), ..Parts::plain(objects, origin, String::new()) };
        Store::new(parts, StoreOptions { retry, ..StoreOptions::default() })
    }

    /// Moves `key` to an archive.
    pub fn freeze(&self, key: &str, archive: Archive) {
        let mut state = self.lock();
        state.thawing.remove(key);
        state.frozen.insert(key.to_owned(), archive);
    }

    /// Refuses a wish to thaw `key`.
    pub fn refuse(&self, key: &str) {
        self.lock().refused.insert(key.to_owned());
    }

    /// Never thaws `key`, whoever asks for it.
    pub fn never(&self, key: &str) {
        self.lock().stuck.insert(key.to_owned());
    }

    /// Answers each wish with `answer`, and forgets it.
    pub fn forget(&self, answer: ThawAnswer) {
        self.lock().forgets = Some(answer);
    }

    /// Wishes so far.
    pub fn wishes(&self) -> u32 {
        self.lock().wishes
    }

    /// What was asked for, in this order.
    pub fn asked(&self) -> Vec<(String, ThawOrder)> {
        self.lock().asked.clone()
    }

    /// How often it was listed to see what can be read.
    pub fn listings(&self) -> u32 {
        self.lock().listings
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

impl State {
    fn frost(&self, key: &str) -> Frost {
        match (self.frozen.get(key), self.thawing.contains_key(key)) {
            (None, _) => Frost::Readable,
            (Some(archive), true) => Frost::Thawing(*archive),
            (Some(archive), false) => Frost::Frozen(*archive),
        }
    }

    fn pass(&mut self) {
        self.listings += 1;
        let going = self.thawing.iter_mut().filter(|(key, _)| !self.stuck.contains(*key));
        going.for_each(|(_, left)| *left = left.saturating_sub(1));
        let done: Vec<String> =
            self.thawing.iter().filter(|(_, left)| **left == 0).map(|(key, _)| key.clone()).collect();
        for key in done {
            self.thawing.remove(&key);
            self.frozen.remove(&key);
        }
    }
}

#[async_trait]
impl Archives for FrozenStore {
    async fn frost_page(&self, prefix: &str, _: Option<&str>) -> Result<FrostPage> {
        self.lock().pass();
        let metas: Vec<ObjectMeta> = self.inner.list(None).try_collect().await?;
        let state = self.lock();
        let objects = metas.into_iter().filter(|meta| meta.location.as_ref().starts_with(prefix)).map(|meta| {
            let frost = state.frost(meta.location.as_ref());
            let (frost, sure) = match frost {
                Frost::Frozen(archive) | Frost::Thawing(archive) if archive.thaws_for_days() => {
                    (if state.lists_no_status { Frost::Frozen(archive) } else { frost }, !state.lists_no_status)
                }
                Frost::Frozen(_) | Frost::Thawing(_) => (Frost::Readable, false),
                Frost::Readable => (Frost::Readable, true),
            };
            ListedFrost { key: Key::new(meta.location.as_ref()).unwrap(), size: meta.size, frost, sure }
        });
        Ok(FrostPage { objects: objects.collect(), next: None })
    }

    async fn frost(&self, key: &str) -> Result<Frost> {
        Ok(self.lock().frost(key))
    }

    async fn thaw(&self, key: &str, archive: Archive, order: ThawOrder) -> Result<ThawAnswer> {
        let mut state = self.lock();
        state.wishes += 1;
        if let Some(answer) = state.forgets {
            return Ok(answer);
        }
        if state.refused.contains(key) {
            return Err(refused(403, Some("AccessDenied")));
        }
        match state.frost(key) {
            Frost::Readable => Ok(ThawAnswer::Readable),
            Frost::Thawing(_) => Ok(ThawAnswer::UnderWay),
            Frost::Frozen(found) => {
                assert_eq!(found, archive, "{key}");
                state.asked.push((key.to_owned(), order));
                let patience = state.patience;
                state.thawing.insert(key.to_owned(), patience);
                Ok(ThawAnswer::Accepted)
            }
        }
    }
}

impl fmt::Debug for FrozenStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for FrozenStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FrozenStore({})", self.inner)
    }
}

#[async_trait]
impl ObjectStore for FrozenStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.inner.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        if !options.head && self.lock().frost(location.as_ref()) != Frost::Readable {
            return Err(refused(403, Some("InvalidObjectState")));
        }
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.inner.rename_opts(from, to, options).await
    }
}
