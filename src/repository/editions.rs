//! Editions of a backup's manifest.
//!
//! Nothing is ever changed: a compaction, which moves what a backup needs to other places, writes another edition of its manifest, and
//! the newest that can be read is the backup's. All of them restore alike. Older ones are there until a prune deletes them, and all that
//! they need is there with them: so one that is damaged gives way to the one before it.

use std::collections::BTreeMap;

use futures::{StreamExt, TryStreamExt};

use super::{DOCUMENTS_IN_FLIGHT, ObjectKey, Repository, RepositoryError};
use crate::format::{FormatError, Manifest};
use crate::model::{BackupId, Timestamp};
use crate::store::Key;

/// A backup and the editions of its manifest that are there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredBackup {
    /// The backup.
    pub id: BackupId,
    /// Its editions, at least one, ascending, and when each was stored by the store's clock.
    pub editions: Vec<(u32, Timestamp)>,
}

/// The editions of one backup, read.
#[derive(Debug)]
pub struct Editions {
    /// The backup.
    pub id: BackupId,
    /// Every edition that is there, ascending, with its manifest or what is wrong with it.
    pub all: Vec<(u32, Result<Manifest, RepositoryError>)>,
}

impl Editions {
    /// The manifest of the backup: its newest edition that can be read.
    pub fn newest(&self) -> Option<&Manifest> {
        self.all.iter().rev().find_map(|(_, manifest)| manifest.as_ref().ok())
    }

    /// Editions that a newer one which can be read has replaced.
    pub fn superseded(&self) -> impl Iterator<Item = u32> {
        let newest = self.newest().map_or(0, |manifest| manifest.edition);
        self.all.iter().map(|(edition, _)| *edition).filter(move |edition| *edition < newest)
    }

    /// Editions that cannot be read and that no newer one has replaced.
    pub fn damaged(&self) -> impl Iterator<Item = (u32, &RepositoryError)> {
        let newest = self.newest().map(|manifest| manifest.edition);
        let newer = move |edition: u32| newest.is_none_or(|newest| edition > newest);
        self.all
            .iter()
            .filter_map(|(edition, manifest)| Some((*edition, manifest.as_ref().err()?)))
            .filter(move |(edition, _)| newer(*edition))
    }

    /// The number of the newest edition that is there, readable or not.
    pub fn last(&self) -> u32 {
        self.all.last().map_or(0, |(edition, _)| *edition)
    }

    /// The newest manifest that can be read, or what is wrong with the newest; nothing if none is there any more.
    fn into_newest(self) -> Option<Result<Manifest, RepositoryError>> {
        let mut fault = None;
        for (edition, manifest) in self.all.into_iter().rev() {
            match manifest {
                Ok(manifest) => return Some(Ok(manifest)),
                Err(error) => {
                    tracing::warn!("edition {edition} of backup {} is of no use: {error}", self.id);
                    fault.get_or_insert(error);
                }
            }
        }
        fault.map(Err)
    }
}

impl Repository {
    /// All backups and their editions, oldest first, by one listing.
    ///
    /// # Errors
    /// When the store cannot list.
    pub async fn stored_backups(&self) -> Result<Vec<StoredBackup>, RepositoryError> {
        let mut backups: BTreeMap<BackupId, Vec<(u32, Timestamp)>> = BTreeMap::new();
        let mut objects = self.store.list(Some(&Key::new(ObjectKey::BACKUPS)?));
        while let Some(object) = objects.try_next().await? {
            let (id, edition) = match ObjectKey::parse(object.key.as_str()) {
                Some(ObjectKey::Manifest(id)) => (id, 0),
                Some(ObjectKey::Edition(id, edition)) => (id, edition),
                _ => continue,
            };
            backups.entry(id).or_default().push((edition, object.last_modified));
        }
        let sorted = backups.into_iter().map(|(id, mut editions)| {
            editions.sort_unstable();
            StoredBackup { id, editions }
        });
        Ok(sorted.collect())
    }

    /// The manifest of backup `id`: its newest edition that can be read, proven to be of this backup in this repository.
    ///
    /// # Errors
    /// [`RepositoryError::NoBackup`], or what is wrong with the newest edition where none can be read.
    pub async fn manifest(&self, id: &BackupId) -> Result<Manifest, RepositoryError> {
        let listed = self.stored_backups().await?.into_iter().find(|stored| stored.id == *id);
        // A store may list late.
        let editions = listed.map_or_else(|| vec![0], |stored| numbers(&stored));
        let mut fault = None;
        for edition in editions.into_iter().rev() {
            match self.manifest_edition(id, edition).await {
                Ok(manifest) => return Ok(manifest),
                Err(RepositoryError::Store(error)) => return Err(error.into()),
                // Listed, and gone since: somebody prunes.
                Err(RepositoryError::NoBackup { .. }) => {}
                Err(error) => {
                    tracing::warn!("edition {edition} of backup {id} is of no use: {error}");
                    fault.get_or_insert(error);
                }
            }
        }
        Err(fault.unwrap_or_else(|| RepositoryError::NoBackup { id: id.to_string() }))
    }

    /// One edition of a backup's manifest, proven to be that of this backup in this repository.
    ///
    /// # Errors
    /// [`RepositoryError::NoBackup`] when it is not there, or what is wrong with it.
    pub async fn manifest_edition(&self, id: &BackupId, edition: u32) -> Result<Manifest, RepositoryError> {
        let bytes = match self.document_bytes(&ObjectKey::edition(id, edition)).await {
            Err(RepositoryError::Store(error)) if error.is_not_found() => {
                return Err(RepositoryError::NoBackup { id: id.to_string() });
            }
            bytes => bytes?,
        };
        self.prove_manifest(id, edition, &bytes)
    }

    /// The manifest that `bytes` hold, which are stored as this edition of backup `id`.
    pub(super) fn prove_manifest(
        &self,
        id: &BackupId,
        edition: u32,
        bytes: &[u8],
    ) -> Result<Manifest, RepositoryError> {
        let manifest: Manifest = self.decode_document(&ObjectKey::edition(id, edition), bytes)?;
        if manifest.id != *id {
            return Err(RepositoryError::Misplaced { expected: id.clone(), found: manifest.id });
        }
        if manifest.repository_id != self.config.repository_id {
            let (expected, found) = (self.config.repository_id, manifest.repository_id);
            return Err(RepositoryError::Foreign { id: id.clone(), expected, found });
        }
        if manifest.edition != edition {
            let problem = format!("it is edition {}, stored as edition {edition}", manifest.edition);
            return Err(FormatError::Document { what: format!("backup {id}"), problem }.into());
        }
        manifest.check(None)?;
        Ok(manifest)
    }

    /// Every backup with its manifest, or with what is wrong with it, oldest first. Of each, the newest edition that can be read counts.
    ///
    /// # Errors
    /// When the store cannot list or be reached.
    pub async fn manifests(&self) -> Result<Vec<(BackupId, Result<Manifest, RepositoryError>)>, RepositoryError> {
        let backups = self.stored_backups().await?;
        let reads = backups.into_iter().map(|stored| async move {
            let manifest = self.manifest_of(&stored).await?;
            Ok::<_, RepositoryError>(manifest.map(|manifest| (stored.id, manifest)))
        });
        let read: Vec<_> = futures::stream::iter(reads).buffered(DOCUMENTS_IN_FLIGHT).try_collect().await?;
        Ok(read.into_iter().flatten().collect())
    }

    /// The newest edition of a backup that can be read, the older ones being read only where it cannot; nothing when it is gone meanwhile.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn manifest_of(
        &self,
        stored: &StoredBackup,
    ) -> Result<Option<Result<Manifest, RepositoryError>>, RepositoryError> {
        let mut all = Vec::new();
        for edition in numbers(stored).into_iter().rev() {
            let Some(manifest) = self.edition_if_there(&stored.id, edition).await? else { continue };
            let found = manifest.is_ok();
            all.insert(0, (edition, manifest));
            if found {
                break;
            }
        }
        Ok(Editions { id: stored.id.clone(), all }.into_newest())
    }

    /// Every edition of one backup; of one that is not there, that it is not.
    ///
    /// # Errors
    /// When the store cannot list or be reached.
    pub async fn editions_of(&self, id: &BackupId) -> Result<Editions, RepositoryError> {
        let listed = self.stored_backups().await?.into_iter().find(|stored| stored.id == *id);
        let mut all = Vec::new();
        for edition in listed.iter().flat_map(numbers) {
            all.extend(self.edition_if_there(id, edition).await?.map(|manifest| (edition, manifest)));
        }
        if all.is_empty() {
            // A store may list late.
            all.push((0, self.manifest_edition(id, 0).await));
        }
        Ok(Editions { id: id.clone(), all })
    }

    /// Every edition of every backup, oldest first.
    ///
    /// # Errors
    /// When the store cannot list or be reached.
    pub async fn editions(&self) -> Result<Vec<Editions>, RepositoryError> {
        let backups = self.stored_backups().await?;
        let single = backups.iter().flat_map(|stored| numbers(stored).into_iter().map(|edition| (&stored.id, edition)));
        let reads = single.map(|(id, edition)| async move {
            Ok::<_, RepositoryError>((id, edition, self.edition_if_there(id, edition).await?))
        });
        let mut reads = futures::stream::iter(reads).buffered(DOCUMENTS_IN_FLIGHT);
        let mut read: Vec<Editions> = Vec::with_capacity(backups.len());
        while let Some((id, edition, manifest)) = reads.try_next().await? {
            let Some(manifest) = manifest else { continue };
            match read.last_mut().filter(|last| last.id == *id) {
                Some(last) => last.all.push((edition, manifest)),
                None => read.push(Editions { id: id.clone(), all: vec![(edition, manifest)] }),
            }
        }
        Ok(read)
    }

    /// An edition; nothing when it was deleted since it was listed.
    ///
    /// # Errors
    /// When the store does not answer. What is wrong with the edition is no error.
    async fn edition_if_there(
        &self,
        id: &BackupId,
        edition: u32,
    ) -> Result<Option<Result<Manifest, RepositoryError>>, RepositoryError> {
        match self.manifest_edition(id, edition).await {
            Err(RepositoryError::Store(error)) => Err(error.into()),
            Err(RepositoryError::NoBackup { .. }) => Ok(None),
            manifest => Ok(Some(manifest)),
        }
    }
}

fn numbers(stored: &StoredBackup) -> Vec<u32> {
    stored.editions.iter().map(|(edition, _)| *edition).collect()
}
