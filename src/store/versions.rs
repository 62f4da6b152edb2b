//! Versions of objects, in a bucket that keeps them.

use std::collections::VecDeque;

use bytes::Bytes;
use futures::{StreamExt, stream::BoxStream};

use super::{
    Key, Store, StoreError,
    client::{Wanted, timely},
    counters::Count,
    error::Action,
};
use crate::model::{Retention, Timestamp};

/// One version of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectVersion {
    /// Key of the object.
    pub key: Key,
    /// The store's name for the version.
    pub version: String,
    /// True for a delete marker, behind which the versions before it are hidden.
    pub is_marker: bool,
    /// True for the one that a plain read sees.
    pub is_latest: bool,
    /// Length in bytes.
    pub size: u64,
    /// When it was stored, by the store's clock.
    pub last_modified: Timestamp,
}

/// One answer to a listing of versions.
#[derive(Debug, Default)]
pub(super) struct VersionPage {
    /// By key; of one key the newest first, and delete markers after all others.
    pub(super) versions: Vec<ObjectVersion>,
    /// Where the next page begins.
    pub(super) next: Option<(String, Option<String>)>,
}

struct Listing {
    store: Store,
    folder: String,
    page: VecDeque<ObjectVersion>,
    /// Nothing after the last page.
    next: Option<Option<(String, Option<String>)>>,
}

impl Store {
    /// Lists all versions and delete markers of objects whose keys begin with `prefix`, in order of keys; of one key the
    /// versions come newest first.
    ///
    /// Objects whose keys are none of ours are passed over. A store other than S3 has none.
    pub fn versions(&self, prefix: &str) -> BoxStream<'static, Result<ObjectVersion, StoreError>> {
        let listing =
            Listing { store: self.clone(), folder: prefix.to_owned(), page: VecDeque::new(), next: Some(None) };
        futures::stream::try_unfold(listing, |mut listing| async move {
            Ok(listing.next().await?.map(|version| (version, listing)))
        })
        .boxed()
    }

    /// Reads version `version` of an object that is at most `bytes_max` long.
    ///
    /// # Errors
    /// Those of [`Store::get`].
    pub async fn get_version(&self, key: &Key, version: &str, bytes_max: u64) -> Result<Bytes, StoreError> {
        self.get_wanted(key, Wanted::Version { version: version.to_owned(), bytes_max }).await
    }

    /// Asks for the lock of version `version`, legal holds left out.
    ///
    /// # Errors
    /// Those of [`Store::object_lock`].
    pub async fn version_lock(&self, key: &Key, version: &str) -> Result<Option<Retention>, StoreError> {
        let Some(locker) = &self.shared.locker else { return Ok(None) };
        let _permit = self.shared.lock_requests.acquire().await;
        let attempt = self.attempt(Action::LookAtLock, key.as_str());
        let silence_max = self.shared.options.retry.silence_max;
        self.repeat(&attempt, || async {
            self.shared.counters.add(Count::Head, 1);
            timely(&attempt, silence_max, locker.retention(key.as_str(), Some(version))).await
        })
        .await
    }

    /// Makes version `version` of an object its present one, by a copy within the store, which is locked like a put.
    ///
    /// # Errors
    /// Those of access and availability.
    pub async fn restore_version(&self, key: &Key, version: &str) -> Result<(), StoreError> {
        let locker = self.locker()?;
        let _permit = self.shared.lock_requests.acquire().await;
        let attempt = self.attempt(Action::Store, key.as_str());
        // The store copies, which takes it no longer than a transfer would.
        let time_max = self.shared.options.retry.transfer_max(COPIED_BYTES_MAX);
        self.repeat(&attempt, || async {
            self.shared.counters.add(Count::Put, 1);
            let retention = self.put_options(true).extensions.get::<Retention>().copied();
            timely(&attempt, time_max, locker.copy_version(key.as_str(), version, retention)).await
        })
        .await
    }

    /// Removes a delete marker, or any other version that is not locked.
    ///
    /// # Errors
    /// [`StoreError::Denied`] where the account may not, or the version is locked; those of availability.
    pub async fn delete_version(&self, key: &Key, version: &str) -> Result<(), StoreError> {
        let locker = self.locker()?;
        let _permit = self.shared.lock_requests.acquire().await;
        let attempt = self.attempt(Action::Delete, key.as_str());
        let silence_max = self.shared.options.retry.silence_max;
        self.repeat(&attempt, || async {
            self.shared.counters.add(Count::Delete, 1);
            timely(&attempt, silence_max, locker.delete_version(key.as_str(), version)).await
        })
        .await
    }
}

/// Longest object that is copied: a pack.
const COPIED_BYTES_MAX: u64 = 64 << 20;

impl Listing {
    async fn next(&mut self) -> Result<Option<ObjectVersion>, StoreError> {
        loop {
            if let Some(version) = self.page.pop_front() {
                return Ok(Some(version));
            }
            let (Some(locker), Some(start)) = (&self.store.shared.locker, self.next.take()) else { return Ok(None) };
            let attempt = self.store.attempt(Action::List, &self.folder);
            let silence_max = self.store.shared.options.retry.silence_max;
            let page = self.store.repeat(&attempt, || async {
                self.store.shared.counters.add(Count::List, 1);
                timely(&attempt, silence_max, locker.version_page(&self.folder, start.as_ref())).await
            });
            let page = page.await?;
            self.page = page.versions.into();
            self.next = page.next.map(Some);
        }
    }
}
