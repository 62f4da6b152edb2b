//! What lies in a folder of a bucket or a directory, without what lies deeper: how repositories are found.

use object_store::path::Path;

use super::client::{Store, timely};
use super::counters::Count;
use super::{Action, StoreError};

/// Names of the objects and folders right in a folder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inside {
    /// Objects, sorted.
    pub objects: Vec<String>,
    /// Folders, sorted.
    pub folders: Vec<String>,
}

impl Store {
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
    use std::sync::Arc;

    use object_store::{ObjectStore, ObjectStoreExt, PutPayload, memory::InMemory, prefix::PrefixStore};

    use super::*;
    use crate::store::StoreOptions;

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
}
