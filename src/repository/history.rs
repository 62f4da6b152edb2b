//! All versions of each object, in a bucket that keeps them.

use std::collections::VecDeque;

use futures::StreamExt;
use futures::stream::BoxStream;

use super::{ObjectKey, Repository, RepositoryError};
use crate::store::{ObjectVersion, Store};

/// Versions of one object that are remembered, the oldest ones, and as many delete markers. 64: whoever has written more
/// over it cannot have written before it, and the first is what counts.
const VERSIONS_KEPT: usize = 64;

/// The versions of one object of the repository.
#[derive(Debug, Clone)]
pub struct History {
    /// What it is.
    pub object: ObjectKey,
    /// Its versions, newest first: the oldest ones, where there are too many.
    pub(super) versions: VecDeque<ObjectVersion>,
    /// How many versions there are.
    pub count: u64,
    /// Its delete markers: some, where there are too many.
    pub(super) markers: Vec<ObjectVersion>,
    /// How many delete markers there are.
    pub marker_count: u64,
    /// The version that readers see; nothing where that is a delete marker.
    pub(super) present: Option<ObjectVersion>,
}

impl History {
    fn new(object: ObjectKey) -> History {
        let (versions, markers) = (VecDeque::new(), Vec::new());
        History { object, versions, count: 0, markers, marker_count: 0, present: None }
    }

    fn add(&mut self, version: ObjectVersion) {
        if version.is_marker {
            self.marker_count += 1;
            if self.markers.len() < VERSIONS_KEPT {
                self.markers.push(version);
            }
            return;
        }
        self.count += 1;
        if version.is_latest {
            self.present = Some(version.clone());
        }
        self.versions.push_back(version);
        if self.versions.len() > VERSIONS_KEPT {
            self.versions.pop_front();
        }
    }

    /// The version that was stored first, which is the one that this program stored.
    pub(super) fn first(&self) -> Option<&ObjectVersion> {
        self.versions.back()
    }
}

/// The objects of a listing under way.
struct Grouping {
    versions: BoxStream<'static, Result<ObjectVersion, crate::store::StoreError>>,
    current: Option<History>,
}

/// The histories of all objects of a repository whose keys begin with `prefix`, in order of keys. What is no object of a
/// repository is passed over.
pub(super) fn histories(store: &Store, prefix: &str) -> BoxStream<'static, Result<History, RepositoryError>> {
    let grouping = Grouping { versions: store.versions(prefix), current: None };
    futures::stream::try_unfold(grouping, |mut grouping| async move {
        Ok(grouping.next().await?.map(|history| (history, grouping)))
    })
    .boxed()
}

impl Grouping {
    async fn next(&mut self) -> Result<Option<History>, RepositoryError> {
        while let Some(version) = self.versions.next().await {
            let version = version?;
            let Some(object) = ObjectKey::parse(version.key.as_str()) else { continue };
            let mut done = None;
            if self.current.as_ref().is_none_or(|current| current.object != object) {
                done = self.current.replace(History::new(object));
            }
            if let Some(current) = &mut self.current {
                current.add(version);
            }
            if done.is_some() {
                return Ok(done);
            }
        }
        Ok(self.current.take())
    }
}

impl Repository {
    /// As [`histories`].
    pub(super) fn histories(&self, prefix: &str) -> BoxStream<'static, Result<History, RepositoryError>> {
        histories(&self.store, prefix)
    }
}
