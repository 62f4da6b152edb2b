//! What lies in a folder of a bucket or a directory, without what lies deeper: how repositories are found.

use std::sync::Arc;

use object_store::{path::Path, prefix::PrefixStore};

use super::classify::Attempt;
use super::client::{Directory, Parts, Store, timely};
use super::counters::Count;
use super::{Action, Origin, StoreError};

/// Names of the objects and folders right in a folder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inside {
    /// Objects, sorted.
    pub objects: Vec<String>,
    /// Folders, sorted.
    pub folders: Vec<String>,
}

impl Store {
    /// The store of the folder whose path, from this one's own place, is `folder`: over the same connections and with the same credentials,
    /// with counters and limits of its own. It is for reading: it neither locks nor thaws nor finds versions.
    ///
    /// # Errors
    /// Those of access, where the folder is a directory.
    pub fn below(&self, folder: &[String]) -> Result<Store, StoreError> {
        if folder.is_empty() {
            return Ok(self.clone());
        }
        let name = folder.join("/");
        let shared = &self.shared;
        let url = format!("{}/{name}", shared.origin.url.trim_end_matches('/'));
        let origin = Origin { url, ..(*shared.origin).clone() };
        let directory = match &shared.directory {
            None => None,
            Some(directory) => {
                let attempt = Attempt { action: Action::Look, what: name.clone(), origin: Arc::new(origin.clone()) };
                let opened = Directory::open(directory.path.join(&name));
                Some(opened.map_err(|source| {
                    attempt.classify(object_store::Error::Generic { store: "file", source: Box::new(source) }).error
                })?)
            }
        };
        let objects = Arc::new(PrefixStore::new(shared.objects.clone(), name));
        let parts = Parts { directory, ..Parts::plain(objects, origin, shared.bucket_name.clone()) };
        let credentials = shared.credentials.clone();
        Ok(Store::new(Parts { credentials, ..parts }, shared.options.clone()))
    }

    /// Looks into the folder whose path, from the store's own place, is `folder`. Nothing is there to be told of a folder that does not exist.
    ///
    /// Memory: all names, which the store hands out as a whole.
    ///
    /// # Errors
    /// Those of access and availability.
    pub async fn look_into(&self, folder: &[String]) -> Result<Inside, StoreError> {
        let Ok(path) = Path::parse(folder.join("/")) else { return Ok(Inside::default()) };
        let attempt = self.attempt(Action::List, if folder.is_empty() { "/" } else { path.as_ref() });
        let _permit = self.shared.reads.acquire().await;
        let listed = self
            .repeat(&attempt, || async {
                self.check_directory(&attempt).await?;
                self.shared.counters.add(Count::List, 1);
                let prefix = (!folder.is_empty()).then_some(&path);
                timely(&attempt, self.shared.options.retry.silence_max, self.shared.objects.list_with_delimiter(prefix))
                    .await
            })
            .await?;
        let name = |path: &Path| path.filename().map(str::to_owned);
        let mut inside = Inside {
            objects: listed.objects.iter().filter_map(|meta| name(&meta.location)).collect(),
            folders: listed.common_prefixes.iter().filter_map(name).collect(),
        };
        inside.objects.sort();
        inside.folders.sort();
        Ok(inside)
    }
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt;
    use object_store::{ObjectStore, ObjectStoreExt, PutPayload, memory::InMemory};

    use super::*;
    use crate::store::{Key, StoreOptions};

    #[tokio::test]
    async fn a_folder_tells_what_is_right_in_it() {
        let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        for key in [
            "fleet/db1/haulout.json",
            "fleet/db1/packs/aa/x",
            "fleet/eu west/db2/haulout.json",
            "fleet/readme",
            "other/x",
        ] {
            objects.put(&Path::parse(key).unwrap(), PutPayload::from_static(b"x")).await.unwrap();
        }
        let store = Store::over("memory://x", Arc::new(PrefixStore::new(objects, "fleet")), StoreOptions::default());
        let inside = |names: &'static [&'static str]| {
            let (store, names) = (store.clone(), names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
            async move { store.look_into(&names).await.unwrap() }
        };
        let told = |objects: &[&str], folders: &[&str]| {
            let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
            Inside { objects: owned(objects), folders: owned(folders) }
        };
        assert_eq!(inside(&[]).await, told(&["readme"], &["db1", "eu west"]));
        assert_eq!(inside(&["db1"]).await, told(&["haulout.json"], &["packs"]));
        assert_eq!(inside(&["eu west"]).await, told(&[], &["db2"]));
        assert_eq!(inside(&["nowhere"]).await, Inside::default());
    }

    #[tokio::test]
    async fn a_store_below_has_its_own_keys_and_lists_what_comes_behind_one() {
        let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        for key in ["eu west/db2/x/1", "eu west/db2/x/2", "eu west/db2/x/3", "eu west/db3/x/1"] {
            objects.put(&Path::parse(key).unwrap(), PutPayload::from_static(b"x")).await.unwrap();
        }
        let store = Store::over("memory://x", objects, StoreOptions::default());
        let below = store.below(&["eu west".to_owned(), "db2".to_owned()]).unwrap();
        assert_eq!(below.origin().url, "memory://x/eu west/db2");
        let key = |text: &str| Key::new(text).unwrap();
        let names = |infos: Vec<crate::store::ObjectInfo>| {
            infos.into_iter().map(|info| info.key.as_str().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(names(below.list(None).try_collect().await.unwrap()), ["x/1", "x/2", "x/3"]);
        let behind = below.list_after(&key("x"), &key("x/1")).try_collect().await.unwrap();
        assert_eq!(names(behind), ["x/2", "x/3"]);
        assert_eq!(below.get(&key("x/2"), 10).await.unwrap(), "x");
    }
}
