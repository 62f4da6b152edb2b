//! Where repositories lie under a place.

use futures::{FutureExt, StreamExt, stream};

use crate::store::{Store, StoreError};

/// Folders below the place in which repositories are looked for: `region/cluster/server` and one more.
const DEPTH_MAX: usize = 4;
/// Folders that are looked into at most.
const FOLDERS_MAX: usize = 20_000;
/// Folders that are looked into side by side.
const LOOKING: usize = 16;
/// The object that makes a folder a repository.
const CONFIG: &str = "haulout.json";

/// Repositories that were found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// Their paths, from the place, sorted; the empty one is the place itself.
    pub paths: Vec<Vec<String>>,
    /// True when there are more folders than are looked into.
    pub cut: bool,
}

/// Looks for repositories in the place of `store` and in the folders under it, four deep at most.
///
/// # Errors
/// When the place cannot be listed.
pub async fn find(store: &Store) -> Result<Found, StoreError> {
    let (mut found, mut looked) = (Found::default(), 0);
    let mut next: Vec<Vec<String>> = vec![Vec::new()];
    for depth in 0..=DEPTH_MAX {
        found.cut |= next.len() > FOLDERS_MAX - looked;
        next.truncate(FOLDERS_MAX - looked);
        looked += next.len();
        let looks = next.drain(..).map(|folder| {
            let store = store.clone();
            let look = async move {
                let inside = store.look_into(&folder).await;
                (folder, inside)
            };
            look.boxed()
        });
        let looked_into: Vec<_> = stream::iter(looks).buffered(LOOKING).collect().await;
        for (folder, inside) in looked_into {
            let inside = inside?;
            if inside.objects.iter().any(|name| name == CONFIG) {
                found.paths.push(folder);
            } else if depth < DEPTH_MAX {
                next.extend(inside.folders.into_iter().map(|name| folder.iter().cloned().chain([name]).collect()));
            }
        }
    }
    found.paths.sort();
    Ok(found)
}
