//! Objects that were hidden or written over, and the versions that bring them back.
//!
//! Objects are written once, so of all versions of a key the first that is right is the one that counts: a pack by the hash
//! in its key, a document by the hash in its envelope, a manifest also by its own name and its repository's. Whoever writes
//! a document of his own over another comes later, however right it is in itself. Of sealed documents the envelope is judged
//! alone, so no key is needed, and one whose slot was hidden is brought back like everything else.

use super::history::{History, histories};
use super::{ObjectKey, Repository, RepositoryError, store_key};
use crate::format::pack::PACK_BYTES_MAX;
use crate::format::{
    Config, DOCUMENT_BYTES_MAX, Document, Keyring, Manifest, check_envelope, decode_document, is_whole_document,
    pack_id,
};
use crate::store::{ObjectVersion, Store, StoreError};

/// Folders in the order in which their objects are brought back: a manifest makes the backup, and comes last.
pub const FOLDERS: [&str; 7] = ["keys/", "packs/", "binlogs/", "proofs/", "damage/", "prune/", "backups/"];

/// What is to be done about an object.
#[derive(Debug, Clone)]
pub enum Verdict {
    /// Nothing: readers see what was stored first.
    Right,
    /// Nothing can be: all its versions are gone.
    Gone,
    /// Nothing can be: none of its versions is right.
    Damaged,
    /// A version is to be brought back.
    Lost(Loss),
}

/// A version that readers do not see and should.
#[derive(Debug, Clone)]
pub struct Loss {
    /// The object.
    pub object: ObjectKey,
    /// True behind a delete marker, false behind another version.
    pub hidden: bool,
    /// True while the version is locked: what is hidden though was hidden by nobody who prunes.
    pub locked: bool,
    version: ObjectVersion,
    /// Delete markers whose removal shows the version; none where a copy alone does.
    markers: Vec<ObjectVersion>,
}

/// How a version was brought back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BroughtBack {
    /// Delete markers were removed.
    Unmarked,
    /// The version was copied over what hid it.
    Copied,
}

impl Repository {
    /// Opens the repository in `store` by the first right version of its `haulout.json`, and tells what is to be done about
    /// that one. A sealed one is not unlocked: nothing in it can be read by that.
    ///
    /// # Errors
    /// Those of [`Repository::open`]; [`StoreError::NoVersions`].
    pub async fn open_hidden(store: Store) -> Result<(Repository, Verdict), RepositoryError> {
        use futures::TryStreamExt;

        store.check_versions().await?;
        let key = ObjectKey::Config;
        let missing = || RepositoryError::Missing { url: store.origin().url.clone() };
        let history = histories(&store, &key.text()).try_next().await?.ok_or_else(missing)?;
        let verdict = judge(&store, None, history).await?;
        let bytes = match &verdict {
            Verdict::Lost(loss) => {
                store.get_version(&loss.version.key, &loss.version.version, DOCUMENT_BYTES_MAX).await?
            }
            Verdict::Gone => return Err(missing()),
            Verdict::Right | Verdict::Damaged => store.get(&store_key(&key)?, DOCUMENT_BYTES_MAX).await?,
        };
        let config: Config = decode_document(&key.text(), &bytes)?;
        Ok((Repository::with(store, config, Keyring::plain(), None), verdict))
    }

    /// The histories of all objects in `folder`, in order of keys.
    pub fn folder_histories(
        &self,
        folder: &str,
    ) -> futures::stream::BoxStream<'static, Result<History, RepositoryError>> {
        self.histories(folder)
    }

    /// Finds out whether readers see what was stored first. Versions are read only where there are several.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn judge(&self, history: History) -> Result<Verdict, RepositoryError> {
        judge(&self.store, Some(&self.config), history).await
    }

    /// Brings a version back: by removing the delete markers before it where that is enough and allowed, else by a copy.
    ///
    /// # Errors
    /// When the store refuses both.
    pub async fn bring_back(&self, loss: &Loss) -> Result<BroughtBack, RepositoryError> {
        if !loss.markers.is_empty() && self.remove(&loss.markers).await? {
            return Ok(BroughtBack::Unmarked);
        }
        self.store.restore_version(&loss.version.key, &loss.version.version).await?;
        Ok(BroughtBack::Copied)
    }

    /// Removes delete markers; false where the account may not.
    async fn remove(&self, markers: &[ObjectVersion]) -> Result<bool, RepositoryError> {
        for marker in markers {
            match self.store.delete_version(&marker.key, &marker.version).await {
                Ok(()) => {}
                Err(StoreError::Denied { .. }) => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }
}

async fn judge(store: &Store, config: Option<&Config>, history: History) -> Result<Verdict, RepositoryError> {
    let Some(first) = history.first() else { return Ok(Verdict::Gone) };
    if history.count == 1 {
        return match history.present {
            Some(_) => Ok(Verdict::Right),
            // There is no choice, so nothing has to be read.
            None => lost(store, first.clone(), &history).await,
        };
    }
    let mut right = None;
    for version in history.versions.iter().rev() {
        if let Some(bytes) = read(store, &history.object, version).await?
            && is_right(&history.object, config, &bytes)
        {
            right = Some((version.clone(), bytes));
            break;
        }
    }
    let Some((right, bytes)) = right else { return Ok(Verdict::Damaged) };
    if let Some(present) = &history.present
        && (present.version == right.version || read(store, &history.object, present).await? == Some(bytes))
    {
        return Ok(Verdict::Right);
    }
    lost(store, right, &history).await
}

async fn lost(store: &Store, version: ObjectVersion, history: &History) -> Result<Verdict, RepositoryError> {
    let hidden = history.present.is_none();
    let newest = history.versions.front().is_some_and(|newest| newest.version == version.version);
    let all_markers = history.markers.len() as u64 == history.marker_count;
    let markers = if hidden && newest && all_markers { history.markers.clone() } else { Vec::new() };
    let locked = match store.version_lock(&version.key, &version.version).await {
        Ok(lock) => lock.is_some_and(|lock| lock.until > store.now()),
        Err(StoreError::Denied { .. }) => false,
        Err(error) => return Err(error.into()),
    };
    Ok(Verdict::Lost(Loss { object: history.object.clone(), hidden, locked, version, markers }))
}

/// The bytes of a version; nothing where it is longer than any object of its kind, or gone since.
async fn read(
    store: &Store,
    object: &ObjectKey,
    version: &ObjectVersion,
) -> Result<Option<bytes::Bytes>, RepositoryError> {
    let bytes_max = match object {
        ObjectKey::Pack(_) | ObjectKey::SegmentPack(..) => PACK_BYTES_MAX,
        _ => DOCUMENT_BYTES_MAX,
    };
    match store.get_version(&version.key, &version.version, bytes_max).await {
        Ok(bytes) => Ok(Some(bytes)),
        Err(StoreError::TooLarge { .. } | StoreError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Whether `bytes` can have been stored as `object` by this program, in the repository of `config`.
fn is_right(object: &ObjectKey, config: Option<&Config>, bytes: &[u8]) -> bool {
    let name = object.text();
    match object {
        ObjectKey::Pack(id) | ObjectKey::SegmentPack(.., id) => pack_id(bytes) == *id,
        ObjectKey::Manifest(_) | ObjectKey::Edition(..) if config.is_some_and(Config::is_sealed) => {
            check_envelope(&name, bytes).is_ok_and(|word| word == Manifest::WORD)
        }
        ObjectKey::Manifest(id) => decode_document::<Manifest>(&name, bytes).is_ok_and(|manifest| {
            let own = config.is_none_or(|config| manifest.repository_id == config.repository_id);
            manifest.id == *id && manifest.edition == 0 && own && manifest.check(None).is_ok()
        }),
        ObjectKey::Edition(id, edition) => decode_document::<Manifest>(&name, bytes).is_ok_and(|manifest| {
            let own = config.is_none_or(|config| manifest.repository_id == config.repository_id);
            manifest.id == *id && manifest.edition == *edition && own && manifest.check(None).is_ok()
        }),
        ObjectKey::Config => decode_document::<Config>(&name, bytes).is_ok(),
        _ => is_whole_document(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{BackupId, PackId, SlotId};
    use crate::repository::{LeaseKey, PruneKey};

    #[test]
    fn a_pack_of_binary_log_is_right_when_its_bytes_bear_its_name() {
        let key = ObjectKey::SegmentPack("20261122T020500Z-51c0de".parse().unwrap(), 7, pack_id(b"pack"));
        assert!(is_right(&key, None, b"pack") && !is_right(&key, None, b"another"));
    }

    #[test]
    fn every_folder_that_locked_objects_lie_in_is_looked_through() {
        let backup: BackupId = "20261122T170445Z-3f9a1c".parse().unwrap();
        let lease = LeaseKey { purpose: "backup".to_owned(), holder: "0".repeat(16), number: 0, released: false };
        let samples = [
            ObjectKey::Pack(PackId([1; 32])),
            ObjectKey::Slot(SlotId([1; 8])),
            ObjectKey::Manifest(backup.clone()),
            ObjectKey::Edition(backup.clone(), 1),
            ObjectKey::Damage(backup.clone()),
            ObjectKey::SegmentPack("20261122T020500Z-51c0de".parse().unwrap(), 7, PackId([1; 32])),
            ObjectKey::Prune(PruneKey::Keep(backup, [1; 4])),
            ObjectKey::Lease(lease),
            ObjectKey::Config,
        ];
        for key in samples {
            let is_looked_through = FOLDERS.iter().any(|folder| key.text().starts_with(folder));
            // A new sort of object is to be put here.
            let expected = match &key {
                ObjectKey::Pack(_)
                | ObjectKey::Slot(_)
                | ObjectKey::Manifest(_)
                | ObjectKey::Edition(..)
                | ObjectKey::Damage(_)
                | ObjectKey::Proof(..)
                | ObjectKey::Segment(_)
                | ObjectKey::SegmentPack(..)
                | ObjectKey::Prune(_) => true,
                // Never locked; looked at by itself.
                ObjectKey::Lease(_) | ObjectKey::Config => false,
            };
            assert_eq!(is_looked_through, expected, "{}", key.text());
        }
    }
}
