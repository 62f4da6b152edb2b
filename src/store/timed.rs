//! A store on a clock of its own, so that days pass in a test as fast as it likes.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, RenameOptions, Result,
};

use crate::model::{Clock, Timestamp};

/// Tells of each object the time that its clock had when the object was put.
#[derive(Clone)]
pub struct TimedStore {
    inner: Arc<dyn ObjectStore>,
    clock: Arc<dyn Clock>,
    stored: Arc<Mutex<HashMap<Path, Timestamp>>>,
}

impl TimedStore {
    /// Puts `inner` on `clock`.
    pub fn new(inner: Arc<dyn ObjectStore>, clock: Arc<dyn Clock>) -> TimedStore {
        TimedStore { inner, clock, stored: Arc::default() }
    }

    /// The same times over `inner`, which holds a copy of the same objects, on `clock` from here on.
    pub fn fork(&self, inner: Arc<dyn ObjectStore>, clock: Arc<dyn Clock>) -> TimedStore {
        let stored = self.stored.lock().unwrap_or_else(PoisonError::into_inner).clone();
        TimedStore { inner, clock, stored: Arc::new(Mutex::new(stored)) }
    }

    fn timed(&self, mut meta: ObjectMeta) -> ObjectMeta {
        let stored = self.stored.lock().unwrap_or_else(PoisonError::into_inner).get(&meta.location).copied();
        if let Some(stored) = stored {
            meta.last_modified = SystemTime::from(stored.0).into();
        }
        meta
    }
}

impl fmt::Debug for TimedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for TimedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TimedStore({})", self.inner)
    }
}

#[async_trait]
impl ObjectStore for TimedStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let result = self.inner.put_opts(location, payload, options).await?;
        let now = self.clock.now();
        self.stored.lock().unwrap_or_else(PoisonError::into_inner).insert(location.clone(), now);
        Ok(result)
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let mut result = self.inner.get_opts(location, options).await?;
        result.meta = self.timed(result.meta);
        Ok(result)
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let store = self.clone();
        self.inner.list(prefix).map(move |meta| meta.map(|meta| store.timed(meta))).boxed()
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        let store = self.clone();
        self.inner.list_with_offset(prefix, offset).map(move |meta| meta.map(|meta| store.timed(meta))).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let mut listed = self.inner.list_with_delimiter(prefix).await?;
        listed.objects = listed.objects.into_iter().map(|meta| self.timed(meta)).collect();
        Ok(listed)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.inner.rename_opts(from, to, options).await
    }
}
