//! Sealed repositories: made, opened with a key, and their key slots.

use std::sync::Arc;

use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt};

use super::{
    DOCUMENTS_IN_FLIGHT, ObjectKey, Repository, RepositoryError, locks, new_config, put_config, read_config,
    refuse_existing, store_key,
};
use crate::format::{
    Config, DOCUMENT_BYTES_MAX, FormatError, KeySlot, Keyring, NewSlot, RepositoryKeys, SecretKey, Wraps,
    check_envelope, decode_document, pack,
};
use crate::model::{Clock, Entropy, LockPolicy, PackId, RepositoryId, SlotId};
use crate::store::{Key, Store};

/// Most key slots: each that fits the method is tried, and a passphrase takes a moment for each.
const SLOTS_MAX: usize = 32;

/// Gives the keys that open slots. It is the operator's own: nothing in it comes from the repository.
#[async_trait]
pub trait KeySource: Send + Sync {
    /// The key for `slot`; none when its method is not among what was given.
    ///
    /// # Errors
    /// Says why it cannot be had, such as a command that fails.
    async fn key(&self, slot: &KeySlot) -> Result<Option<SecretKey>, String>;
}

/// What a sealed repository is opened with.
#[derive(Clone)]
pub struct Access {
    /// Gives the keys.
    pub keys: Arc<dyn KeySource>,
    /// Gives the salts.
    pub entropy: Arc<dyn Entropy>,
}

/// What could not be deleted, because the credentials may not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leftover {
    /// Key of the object.
    pub object: String,
    /// What the store said.
    pub reason: String,
}

impl Repository {
    /// Makes a sealed repository in an empty place; `slot` opens it, and wraps all. With `lock`, its objects are locked, the slot
    /// among them.
    ///
    /// # Errors
    /// [`RepositoryError::Exists`] when there is one already; when the slot cannot be made; those of [`Repository::init_locked`].
    pub async fn init_sealed(
        store: Store,
        lock: Option<LockPolicy>,
        clock: &dyn Clock,
        entropy: Arc<dyn Entropy>,
        slot: &NewSlot,
    ) -> Result<Repository, RepositoryError> {
        if let Some(lock) = lock {
            locks::begin_locks(&store, lock).await?;
        }
        refuse_existing(&store).await?;
        let config = new_config(Config::SEAL_AES, lock, clock, &*entropy);
        let keyring = Keyring::sealed(RepositoryKeys::all(SecretKey::random(&*entropy)), entropy);
        let repository = Repository::with(store, config, keyring, None);
        // Before haulout.json: a repository that nobody could open would be worse than a slot without one.
        let slot = repository.add_slot(slot, clock).await?;
        put_config(&repository.store, &repository.config).await?;
        let repository = Repository { slot: Some(slot.id), ..repository };
        if lock.is_some() {
            repository.prove_locks().await?;
        }
        Ok(repository)
    }

    /// Opens the sealed repository in `store`.
    ///
    /// # Errors
    /// [`RepositoryError::NotSealed`] when it is not sealed, whoever took the seal away; [`RepositoryError::WrongKey`] when no slot
    /// opens; those of [`Repository::open`].
    pub async fn unlock(store: Store, access: &Access) -> Result<Repository, RepositoryError> {
        let config = read_config(&store).await?;
        let url = store.origin().url.clone();
        if !config.is_sealed() {
            return Err(RepositoryError::NotSealed { url });
        }
        let (slots, mut faults) = read_slots(&store, config.repository_id).await?;
        for slot in slots.iter().take(SLOTS_MAX) {
            match access.keys.key(slot).await {
                Ok(Some(key)) => {
                    if let Ok(keys) = slot.open(&key) {
                        let keyring = Keyring::sealed(keys, access.entropy.clone());
                        return Ok(Repository::with(store, config, keyring, Some(slot.id)));
                    }
                }
                Ok(None) => {}
                Err(fault) => faults.push(format!("slot {}: {fault}", slot.id)),
            }
        }
        Err(RepositoryError::WrongKey { url, slots: slots.len(), faults })
    }

    /// The key slot that it was opened with.
    pub fn slot(&self) -> Option<SlotId> {
        self.slot
    }

    /// All key slots that can be read, those that open all first, and what is wrong with the others.
    ///
    /// # Errors
    /// When the store cannot list or be read.
    pub async fn slots(&self) -> Result<(Vec<KeySlot>, Vec<String>), RepositoryError> {
        read_slots(&self.store, self.config.repository_id).await
    }

    /// Adds a key slot.
    ///
    /// # Errors
    /// When the keys that it is to wrap are not known, or it cannot be made or stored.
    pub async fn add_slot(&self, new: &NewSlot, clock: &dyn Clock) -> Result<KeySlot, RepositoryError> {
        let url = || self.store.origin().url.clone();
        let keyring = &self.keyring;
        let (Some(keys), Some(entropy)) = (keyring.keys(), keyring.entropy()) else {
            return Err(RepositoryError::NotSealed { url: url() });
        };
        let slots = self.slots().await?.0.len();
        if slots >= SLOTS_MAX {
            return Err(RepositoryError::SlotsFull { slots });
        }
        let slot = KeySlot::wrap(new, keys, self.config.repository_id, clock.now().whole_seconds(), entropy)?;
        let key = ObjectKey::Slot(slot.id);
        self.put_document(&key, &slot).await?;
        // Read back: it may be all that is left one day.
        let read: KeySlot = self.get_document(&key).await?;
        if read == slot { Ok(slot) } else { Err(RepositoryError::NoSlot { id: slot.id }) }
    }

    /// Removes key slot `id`. Never the one that this run was opened with, which is proven to open all: so the last one of that sort
    /// stays, whatever others somebody may have put beside it.
    ///
    /// # Errors
    /// When there is no such slot, it is the one in use, or the key in use does not open all.
    pub async fn remove_slot(&self, id: SlotId) -> Result<Option<Leftover>, RepositoryError> {
        self.needs_data_key()?;
        if self.slot == Some(id) {
            return Err(RepositoryError::SlotInUse { id });
        }
        self.delete_slot(id).await
    }

    /// Puts `new` in the place of the slot that this run was opened with, and removes that.
    ///
    /// # Errors
    /// When the new slot cannot be made; then the old one stays.
    pub async fn rotate_slot(
        &self,
        new: &NewSlot,
        clock: &dyn Clock,
    ) -> Result<(KeySlot, Option<Leftover>), RepositoryError> {
        let slot = self.add_slot(new, clock).await?;
        let leftover = match self.slot {
            Some(old) => self.delete_slot(old).await?,
            None => None,
        };
        Ok((slot, leftover))
    }

    async fn delete_slot(&self, id: SlotId) -> Result<Option<Leftover>, RepositoryError> {
        let key = ObjectKey::Slot(id);
        match self.store.head(&store_key(&key)?).await {
            Ok(_) => {}
            Err(error) if error.is_not_found() => return Err(RepositoryError::NoSlot { id }),
            Err(error) => return Err(error.into()),
        }
        let deleted = self.store.delete(&store_key(&key)?).await;
        Ok(deleted.err().map(|error| Leftover { object: key.text(), reason: error.to_string() }))
    }
}

/// The readable slots of repository `id`, those that open all first, and what is wrong with others. A slot of another repository is
/// none of this one's.
async fn read_slots(store: &Store, id: RepositoryId) -> Result<(Vec<KeySlot>, Vec<String>), RepositoryError> {
    let mut ids = Vec::new();
    let mut objects = store.list(Some(&Key::new(ObjectKey::SLOTS)?));
    while let Some(object) = objects.try_next().await? {
        if let Some(ObjectKey::Slot(id)) = ObjectKey::parse(object.key.as_str()) {
            ids.push(id);
        }
        if ids.len() > 4 * SLOTS_MAX {
            break;
        }
    }
    let reads = ids.into_iter().map(|id| async move { (id, read_slot(store, id).await) });
    let read: Vec<_> = futures::stream::iter(reads).buffered(DOCUMENTS_IN_FLIGHT).collect().await;
    let (mut slots, mut faults) = (Vec::new(), Vec::new());
    for (slot_id, slot) in read {
        match slot {
            Ok(slot) if slot.repository_id != id => {}
            Ok(slot) if slot.id != slot_id => faults.push(format!("slot {slot_id}: it is that of slot {}", slot.id)),
            Ok(slot) => slots.push(slot),
            // Listed, and gone since: somebody removes one.
            Err(RepositoryError::Store(error)) if error.is_not_found() => {}
            Err(RepositoryError::Store(error)) => return Err(error.into()),
            Err(error) => faults.push(format!("slot {slot_id}: {error}")),
        }
    }
    slots.sort_by_key(|slot| (slot.wraps != Wraps::All, slot.created, slot.id));
    Ok((slots, faults))
}

async fn read_slot(store: &Store, id: SlotId) -> Result<KeySlot, RepositoryError> {
    let key = ObjectKey::Slot(id);
    let bytes = store.get(&store_key(&key)?, DOCUMENT_BYTES_MAX).await?;
    Ok(decode_document(&key.text(), &bytes)?)
}

/// A sealed repository that was not opened: what can be proven without a key.
#[derive(Debug)]
pub struct Locked {
    store: Store,
    config: Config,
}

/// An object of a repository that was not opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockedObject {
    /// What it is.
    pub key: ObjectKey,
    /// Its size in bytes.
    pub bytes: u64,
}

impl Locked {
    /// Looks at the repository in `store`, sealed or not.
    ///
    /// # Errors
    /// Those of [`Repository::open`].
    pub async fn open(store: Store) -> Result<Locked, RepositoryError> {
        let config = read_config(&store).await?;
        Ok(Locked { store, config })
    }

    /// What `init` wrote.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// As [`Repository::slots`]: what they say needs no key.
    ///
    /// # Errors
    /// When the store cannot list or be read.
    pub async fn slots(&self) -> Result<(Vec<KeySlot>, Vec<String>), RepositoryError> {
        read_slots(&self.store, self.config.repository_id).await
    }

    /// Every object of the repository that is this program's.
    ///
    /// # Errors
    /// When the store cannot list.
    pub async fn objects(&self) -> Result<Vec<LockedObject>, RepositoryError> {
        let mut found = Vec::new();
        let mut objects = self.store.list(None);
        while let Some(object) = objects.try_next().await? {
            if let Some(key) = ObjectKey::parse(object.key.as_str()) {
                found.push(LockedObject { key, bytes: object.size });
            }
        }
        Ok(found)
    }

    /// Proves that an object is as it was written: a pack bears its name, a document its hash.
    ///
    /// # Errors
    /// What the store says, or what is wrong with the object.
    pub async fn check(&self, key: &ObjectKey) -> Result<(), RepositoryError> {
        match key {
            ObjectKey::Pack(id) | ObjectKey::SegmentPack(.., id) => {
                let bytes = self.store.get(&store_key(key)?, pack::PACK_BYTES_MAX).await?;
                // Hashing takes milliseconds, for which no other thread is worth it.
                check_pack(*id, &bytes).map_err(|source| RepositoryError::Pack { pack: *id, source })
            }
            _ => {
                let bytes = self.store.get(&store_key(key)?, DOCUMENT_BYTES_MAX).await?;
                check_envelope(&key.text(), &bytes).map(drop).map_err(RepositoryError::Format)
            }
        }
    }
}

fn check_pack(id: PackId, bytes: &[u8]) -> Result<(), FormatError> {
    pack::check_name(id, bytes)
}

#[cfg(test)]
#[path = "slots_tests.rs"]
mod tests;
