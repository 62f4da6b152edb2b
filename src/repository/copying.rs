//! A repository as a row of objects: what a copy of it in another store is made of, sealed or not.
//!
//! Objects go across as they are stored. A copy has the repository's id and seal, so manifests, sealed documents and chunks are in their
//! places there too; what it is opened with opens both.

use bytes::Bytes;
use futures::TryStreamExt;

use super::{
    ObjectKey, Repository, RepositoryError, SegmentKey, StoredBackup, StoredSegment, put_config, read_config, store_key,
};
use crate::error::{Diagnose, Kind};
use crate::format::{
    Config, DOCUMENT_BYTES_MAX, Document, FormatError, KeySlot, Keyring, Manifest, Segment, SegmentPack,
    check_envelope, decode_document, pack, pack::PACK_BYTES_MAX,
};
use crate::model::{BackupId, PackId, SlotId};
use crate::store::{Key, Store, StoreError};

/// Key slots that are looked at; a repository has far fewer.
const SLOTS_COPIED_MAX: usize = 128;

/// A backup's manifest as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredManifest {
    /// The backup.
    pub id: BackupId,
    /// Which edition it is.
    pub edition: u32,
    /// The document.
    pub bytes: Bytes,
    /// What it says, where a key opens it.
    pub manifest: Option<Manifest>,
}

impl Repository {
    /// Opens the repository in `store`, sealed or not, for what needs no key: to move its objects as they are.
    ///
    /// # Errors
    /// Those of [`Repository::open`].
    pub async fn open_as_stored(store: Store) -> Result<Repository, RepositoryError> {
        let config = read_config(&store).await?;
        Ok(Repository::with(store, config, Keyring::plain(), None))
    }

    /// Whether manifests and maps can be read: not in a sealed repository that was opened without a key.
    pub fn opens_maps(&self) -> bool {
        self.keyring.is_sealed() || !self.config.is_sealed()
    }

    /// The copy of this repository in `store`, with the keys of this one; nothing where there is no repository at all.
    ///
    /// # Errors
    /// [`RepositoryError::Another`] when it is none of this one's; those of [`Repository::open`].
    pub async fn find_copy(&self, store: &Store) -> Result<Option<Repository>, RepositoryError> {
        let config = match read_config(store).await {
            Err(RepositoryError::Missing { .. }) => return Ok(None),
            config => config?,
        };
        let url = || store.origin().url.clone();
        if config.repository_id != self.config.repository_id {
            let (expected, found) = (self.config.repository_id, config.repository_id);
            return Err(RepositoryError::Another { url: url(), expected, found });
        }
        if config.seal != self.config.seal {
            return Err(RepositoryError::UnlikeSeal { url: url() });
        }
        Ok(Some(Repository::with(store.clone(), config, self.keyring.clone(), self.slot)))
    }

    /// Makes a copy of this repository in `store`, without any backups yet, and tells what is wrong with key slots that were not copied. Its
    /// objects are not locked, whatever this one's are: nobody extends the locks of what a copy shares.
    ///
    /// # Errors
    /// When the store refuses, another run makes a repository there, or no key slot of a sealed one can be copied: nothing would open its copy.
    pub async fn make_copy(&self, store: &Store) -> Result<(Repository, Vec<String>), RepositoryError> {
        let config = Config { lock: None, ..self.config.clone() };
        let copy = Repository::with(store.clone(), config, self.keyring.clone(), self.slot);
        // Before haulout.json, as `init` does it.
        let (copied, faults) = self.copy_slots(&copy).await?;
        if self.config.is_sealed() && copied == 0 && copy.slot_ids().await?.is_empty() {
            return Err(RepositoryError::NoSlots { url: self.store.origin().url.clone(), faults });
        }
        put_config(&copy.store, &copy.config).await?;
        Ok((copy, faults))
    }

    /// Puts the key slots into `copy` that it lacks; tells how many, and what is wrong with those that cannot be copied.
    ///
    /// # Errors
    /// When a store does not answer or refuses.
    pub async fn copy_slots(&self, copy: &Repository) -> Result<(u64, Vec<String>), RepositoryError> {
        let there = copy.slot_ids().await?;
        let (mut copied, mut faults) = (0, Vec::new());
        for id in self.slot_ids().await? {
            if there.contains(&id) {
                continue;
            }
            let key = ObjectKey::Slot(id);
            let Some(mut bytes) = self.slot_bytes(&key).await? else { continue };
            if decode_document::<KeySlot>(&key.text(), &bytes).is_err() {
                // Bytes can be spoiled on their way; those that are spoiled in the store are so at the second look too.
                let Some(again) = self.slot_bytes(&key).await? else { continue };
                bytes = again;
            }
            match decode_document::<KeySlot>(&key.text(), &bytes) {
                Ok(slot) if slot.id == id && slot.repository_id == self.config.repository_id => {
                    copy.store.put(&store_key(&key)?, bytes).await?;
                    copied += 1;
                }
                // One of another repository opens nothing here.
                Ok(slot) if slot.id == id => {}
                Ok(slot) => faults.push(format!("key slot {id} is not copied: it is that of slot {}", slot.id)),
                Err(error) => faults.push(format!("key slot {id} is not copied: {error}")),
            }
        }
        Ok((copied, faults))
    }

    /// What a key slot's document is; nothing when it is gone since it was listed.
    async fn slot_bytes(&self, key: &ObjectKey) -> Result<Option<Bytes>, RepositoryError> {
        match self.store.get(&store_key(key)?, DOCUMENT_BYTES_MAX).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    async fn slot_ids(&self) -> Result<Vec<SlotId>, RepositoryError> {
        let mut ids = Vec::new();
        let mut objects = self.store.list(Some(&Key::new(ObjectKey::SLOTS)?));
        while let Some(object) = objects.try_next().await? {
            if let Some(ObjectKey::Slot(id)) = ObjectKey::parse(object.key.as_str()) {
                ids.push(id);
            }
            if ids.len() == SLOTS_COPIED_MAX {
                break;
            }
        }
        Ok(ids)
    }

    /// The manifest of a backup that was listed, as it is stored: its newest edition that can be read, or, where no key opens it, whose
    /// envelope is right. Nothing when it is gone since.
    ///
    /// # Errors
    /// What is wrong with the newest edition where none is of use; what the store says.
    pub async fn stored_manifest(&self, backup: &StoredBackup) -> Result<Option<StoredManifest>, RepositoryError> {
        let mut fault = None;
        for (edition, _) in backup.editions.iter().rev() {
            let key = ObjectKey::edition(&backup.id, *edition);
            let bytes = match self.store.get(&store_key(&key)?, DOCUMENT_BYTES_MAX).await {
                Ok(bytes) => bytes,
                Err(error) if error.is_not_found() => continue,
                Err(error) => match RepositoryError::from(error) {
                    // Longer than any document.
                    error if error.kind() == Kind::Corrupt => {
                        fault.get_or_insert(error);
                        continue;
                    }
                    error => return Err(error),
                },
            };
            match self.prove_stored_manifest(&backup.id, *edition, &bytes) {
                Ok(manifest) => {
                    return Ok(Some(StoredManifest { id: backup.id.clone(), edition: *edition, bytes, manifest }));
                }
                Err(error) => drop(fault.get_or_insert(error)),
            }
        }
        fault.map_or(Ok(None), Err)
    }

    fn prove_stored_manifest(
        &self,
        id: &BackupId,
        edition: u32,
        bytes: &[u8],
    ) -> Result<Option<Manifest>, RepositoryError> {
        if self.opens_maps() {
            return self.prove_manifest(id, edition, bytes).map(Some);
        }
        let key = ObjectKey::edition(id, edition).text();
        let word = check_envelope(&key, bytes)?;
        if word == Manifest::WORD {
            return Ok(None);
        }
        let problem = format!("it is a {word:?}, expected a {:?}", Manifest::WORD);
        Err(FormatError::Document { what: key, problem }.into())
    }

    /// Stores a manifest that another copy of this repository has: from here on the backup exists in this one.
    ///
    /// # Errors
    /// When the store refuses, or has another manifest under the name.
    pub async fn put_stored_manifest(&self, manifest: &StoredManifest) -> Result<(), RepositoryError> {
        let key = ObjectKey::edition(&manifest.id, manifest.edition);
        self.store.put(&store_key(&key)?, manifest.bytes.clone()).await?;
        Ok(())
    }

    /// True when a pack is there, which a listing may tell too late.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn has_pack(&self, id: PackId) -> Result<bool, RepositoryError> {
        match self.store.head(&store_key(&ObjectKey::Pack(id))?).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// The document of a segment of binary log as it is stored, proven as far as keys go; all its packs are among those that were listed.
    ///
    /// # Errors
    /// When it cannot be read, is damaged, or names a pack that is not there with its size.
    pub async fn stored_segment(&self, stored: &StoredSegment) -> Result<Bytes, RepositoryError> {
        let key = ObjectKey::Segment(stored.key.clone());
        let bytes = self.store.get(&store_key(&key)?, DOCUMENT_BYTES_MAX).await?;
        let wrong = |problem| FormatError::Document { what: key.text(), problem };
        let word = check_envelope(&key.text(), &bytes)?;
        if word != Segment::WORD {
            return Err(wrong(format!("it is a {word:?}, expected a {:?}", Segment::WORD)).into());
        }
        if self.opens_maps() {
            let segment = self.read_segment(&stored.key).await?;
            let is_there = |pack: &&SegmentPack| stored.packs.contains(&(pack.pack, u64::from(pack.bytes)));
            if let Some(lost) = segment.packs.iter().find(|pack| !is_there(pack)) {
                return Err(RepositoryError::PackMissing { pack: lost.pack });
            }
        }
        Ok(bytes)
    }

    /// Stores the document of a segment that another copy of this repository has, and whose packs are all there.
    ///
    /// # Errors
    /// When the store refuses, or has another document under the name.
    pub async fn put_stored_segment(&self, key: &SegmentKey, document: Bytes) -> Result<(), RepositoryError> {
        self.store.put(&store_key(&ObjectKey::Segment(key.clone()))?, document).await?;
        Ok(())
    }

    /// A pack of a segment, proven by its name.
    ///
    /// # Errors
    /// When it is missing, or its bytes have another name.
    pub async fn read_proven_segment_pack(&self, key: &SegmentKey, id: PackId) -> Result<Bytes, RepositoryError> {
        let place = store_key(&ObjectKey::SegmentPack(key.stream.clone(), key.number, id))?;
        let bytes = self.store.get(&place, PACK_BYTES_MAX).await?;
        pack::check_name(id, &bytes).map_err(|source| RepositoryError::Pack { pack: id, source })?;
        Ok(bytes)
    }

    /// Stores a pack of a segment, which is proven by its name.
    ///
    /// # Errors
    /// When the store refuses, or has other bytes under the name and does not let go of them.
    pub async fn put_proven_segment_pack(
        &self,
        key: &SegmentKey,
        id: PackId,
        bytes: Bytes,
    ) -> Result<(), RepositoryError> {
        let place = store_key(&ObjectKey::SegmentPack(key.stream.clone(), key.number, id))?;
        match self.store.put(&place, bytes.clone()).await {
            Err(StoreError::AlreadyExists { .. }) => {}
            put => return Ok(put.map(drop)?),
        }
        match self.store.mend(&place, bytes).await {
            Err(source @ (StoreError::AlreadyExists { .. } | StoreError::Denied { .. })) => {
                Err(RepositoryError::NotMended { pack: id, source: Box::new(source) })
            }
            mended => Ok(mended?),
        }
    }

    /// A whole pack, proven by its name.
    ///
    /// # Errors
    /// Those of [`Repository::read_pack`]; [`RepositoryError::Pack`] when its bytes have another name.
    pub async fn read_proven_pack(&self, id: PackId) -> Result<Bytes, RepositoryError> {
        let bytes = self.read_pack(id).await?;
        pack::check_name(id, &bytes).map_err(|source| RepositoryError::Pack { pack: id, source })?;
        Ok(bytes)
    }
}
