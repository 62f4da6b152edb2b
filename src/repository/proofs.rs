//! What drills proved: a document for each, of which the newest of a backup counts.

use std::collections::BTreeMap;

use futures::{StreamExt, TryStreamExt};

use super::{ObjectKey, Repository, RepositoryError};
use crate::error::{Diagnose, Kind};
use crate::format::{FormatError, Proof};
use crate::model::{BackupId, ProofId, Timestamp};
use crate::store::Key;

/// Proofs of one backup that are read, the newest: what is older speaks of the same bytes.
const PROOFS_READ_MAX: usize = 16;
/// Newest proofs of any backup that are read for what they measured.
const NEWEST_READ_MAX: usize = 8;
/// Proofs read at the same time.
const PROOFS_IN_FLIGHT: usize = 16;

/// A proof by its key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct StoredProof {
    /// The backup.
    pub backup: BackupId,
    /// The proof.
    pub id: ProofId,
    /// When it was stored, by the store's clock.
    pub stored: Timestamp,
}

impl StoredProof {
    /// Its key.
    pub fn key(&self) -> ObjectKey {
        ObjectKey::Proof(self.backup.clone(), self.id.clone())
    }
}

/// A proof, or what is wrong with it.
pub type ReadProof = (ProofId, Result<Proof, RepositoryError>);

impl Repository {
    /// All proofs that are there, by backup and then from the oldest on.
    ///
    /// # Errors
    /// When the store cannot list.
    pub async fn stored_proofs(&self) -> Result<Vec<StoredProof>, RepositoryError> {
        let mut proofs = Vec::new();
        let mut objects = self.store.list(Some(&Key::new(ObjectKey::PROOFS)?));
        while let Some(object) = objects.try_next().await? {
            if let Some(ObjectKey::Proof(backup, id)) = ObjectKey::parse(object.key.as_str()) {
                proofs.push(StoredProof { backup, id, stored: object.last_modified });
            }
        }
        proofs.sort();
        Ok(proofs)
    }

    /// The proofs of `backups`, sixteen of each at most, the newest first.
    ///
    /// # Errors
    /// When the store does not answer. What is wrong with a proof that is damaged comes in its place.
    pub async fn proofs(&self, backups: &[BackupId]) -> Result<BTreeMap<BackupId, Vec<ReadProof>>, RepositoryError> {
        let mut wanted: BTreeMap<BackupId, Vec<StoredProof>> =
            backups.iter().map(|backup| (backup.clone(), Vec::new())).collect();
        for proof in self.stored_proofs().await?.into_iter().rev() {
            if let Some(of_backup) = wanted.get_mut(&proof.backup).filter(|proofs| proofs.len() < PROOFS_READ_MAX) {
                of_backup.push(proof);
            }
        }
        let reads = wanted.into_values().flatten().map(|proof| async move {
            let read = self.read_proof(&proof).await?;
            Ok::<_, RepositoryError>((proof, read))
        });
        let mut reads = futures::stream::iter(reads).buffered(PROOFS_IN_FLIGHT);
        let mut proofs: BTreeMap<BackupId, Vec<ReadProof>> = BTreeMap::new();
        while let Some((StoredProof { backup, id, .. }, read)) = reads.try_next().await? {
            // Nothing where a prune took it away meanwhile.
            if let Some(read) = read {
                proofs.entry(backup).or_default().push((id, read));
            }
        }
        Ok(proofs)
    }

    /// The newest proofs of any backup, eight at most, the newest first. Those that cannot be read are left out.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn newest_proofs(&self) -> Result<Vec<Proof>, RepositoryError> {
        let mut stored = self.stored_proofs().await?;
        stored.sort_by(|one, other| other.id.cmp(&one.id));
        stored.truncate(NEWEST_READ_MAX);
        let reads = stored.iter().map(|proof| self.read_proof(proof));
        let reads: Vec<_> = futures::stream::iter(reads).buffered(PROOFS_IN_FLIGHT).try_collect().await?;
        Ok(reads.into_iter().flatten().filter_map(Result::ok).collect())
    }

    /// The newest of `backups`, which ascend, of which a restore was proven; and proofs that could not be read on the way to it.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn last_proven(
        &self,
        backups: &[BackupId],
    ) -> Result<(Option<BackupId>, Vec<RepositoryError>), RepositoryError> {
        let proofs = self.stored_proofs().await?;
        let mut damaged = Vec::new();
        for backup in backups.iter().rev() {
            let of_backup = proofs.iter().rev().filter(|proof| proof.backup == *backup);
            for proof in of_backup.take(PROOFS_READ_MAX) {
                match self.read_proof(proof).await? {
                    Some(Ok(proof)) if proof.passed => return Ok((Some(backup.clone()), damaged)),
                    Some(Ok(_)) | None => {}
                    Some(Err(error)) => damaged.push(error),
                }
            }
        }
        Ok((None, damaged))
    }

    /// A proof, or what is wrong with it; nothing where it is not there.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn read_proof(
        &self,
        stored: &StoredProof,
    ) -> Result<Option<Result<Proof, RepositoryError>>, RepositoryError> {
        let key = stored.key();
        match self.get_document::<Proof>(&key).await {
            Ok(proof) if proof.id == stored.id && proof.backup == stored.backup && self.is_own(&proof) => {
                Ok(Some(Ok(proof)))
            }
            Ok(Proof { id, backup, repository_id, .. }) => {
                let problem = format!("it is proof {id} of backup {backup} of repository {repository_id}");
                Ok(Some(Err(FormatError::Document { what: key.text(), problem }.into())))
            }
            Err(RepositoryError::Store(error)) if error.is_not_found() => Ok(None),
            Err(error) => match error.kind() {
                Kind::Corrupt | Kind::WrongKey | Kind::NoRepository => Ok(Some(Err(error))),
                _ => Err(error),
            },
        }
    }

    fn is_own(&self, proof: &Proof) -> bool {
        proof.repository_id == self.config.repository_id
    }

    /// Stores a proof; gives its key.
    ///
    /// # Errors
    /// When the store refuses.
    pub async fn put_proof(&self, proof: &Proof) -> Result<ObjectKey, RepositoryError> {
        let key = ObjectKey::Proof(proof.backup.clone(), proof.id.clone());
        self.put_document(&key, proof).await?;
        Ok(key)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use object_store::{ObjectStoreExt, memory::InMemory};

    use super::*;
    use crate::format::{proof_example, proof_passing};
    use crate::model::{SystemClock, SystemEntropy};
    use crate::store::{Store, StoreOptions};

    async fn repository() -> (Arc<InMemory>, Repository) {
        let objects = Arc::new(InMemory::new());
        let store = Store::over("memory:///", objects.clone(), StoreOptions::default());
        (objects, Repository::init(store, &SystemClock, &SystemEntropy).await.unwrap())
    }

    fn backup(day: u32) -> BackupId {
        format!("202611{day:02}T020000Z-3f9a16").parse().unwrap()
    }

    /// Stores a proof of the backup of day `day`, of a drill at hour `hour`.
    async fn put(repository: &Repository, day: u32, hour: u32, passed: bool) -> String {
        let mut proof = if passed { proof_passing() } else { proof_example() };
        proof.repository_id = repository.config().repository_id;
        proof.backup = backup(day);
        proof.id = format!("20261123T{hour:02}0000Z-7c01d2").parse().unwrap();
        repository.put_proof(&proof).await.unwrap().text()
    }

    async fn proven(repository: &Repository, days: &[u32]) -> (Option<BackupId>, usize) {
        let backups: Vec<BackupId> = days.iter().map(|day| backup(*day)).collect();
        let (proven, damaged) = repository.last_proven(&backups).await.unwrap();
        (proven, damaged.len())
    }

    #[tokio::test]
    async fn the_newest_backup_with_a_proof_that_passed_is_the_last_proven() {
        let (_, repository) = repository().await;
        assert_eq!(proven(&repository, &[1, 2]).await, (None, 0));
        put(&repository, 1, 1, true).await;
        put(&repository, 2, 2, false).await;
        assert_eq!(proven(&repository, &[1, 2, 3]).await, (Some(backup(1)), 0));
        assert_eq!(proven(&repository, &[2, 3]).await, (None, 0), "a backup that is gone");
        // A drill that fails later does not undo that it was restored once.
        put(&repository, 2, 3, true).await;
        put(&repository, 2, 4, false).await;
        assert_eq!(proven(&repository, &[1, 2, 3]).await, (Some(backup(2)), 0));
    }

    #[tokio::test]
    async fn proofs_of_a_backup_come_newest_first_and_no_more_than_can_be_read() {
        let (_, repository) = repository().await;
        for hour in 0..20 {
            put(&repository, 1, hour, hour % 2 == 0).await;
        }
        put(&repository, 2, 5, true).await;
        let proofs = repository.proofs(&[backup(1), backup(3)]).await.unwrap();
        assert_eq!(proofs.keys().collect::<Vec<_>>(), [&backup(1)]);
        let ids: Vec<&str> = proofs[&backup(1)].iter().map(|(id, _)| id.as_str()).collect();
        assert_eq!((ids.len(), ids[0]), (PROOFS_READ_MAX, "20261123T190000Z-7c01d2"));
        assert!(ids.is_sorted_by(|one, other| one > other));
        assert!(proofs[&backup(1)].iter().all(|(id, proof)| proof.as_ref().unwrap().id == *id));
    }

    #[tokio::test]
    async fn the_newest_proofs_come_first_whatever_their_backups() {
        let (objects, repository) = repository().await;
        for hour in 0..10 {
            put(&repository, 20 - hour, hour, true).await;
        }
        let newest = repository.newest_proofs().await.unwrap();
        let backups: Vec<BackupId> = newest.iter().map(|proof| proof.backup.clone()).collect();
        assert_eq!((backups.len(), &backups[0]), (NEWEST_READ_MAX, &backup(11)));
        assert!(newest.is_sorted_by(|one, other| one.id > other.id));
        let damaged = put(&repository, 1, 12, true).await;
        objects.put(&damaged.as_str().into(), b"{}".to_vec().into()).await.unwrap();
        assert_eq!(repository.newest_proofs().await.unwrap()[0].backup, backup(11));
    }

    #[tokio::test]
    async fn a_proof_that_is_damaged_or_of_another_place_proves_nothing() {
        let (objects, repository) = repository().await;
        let key = put(&repository, 1, 1, true).await;
        let bytes = objects.get(&key.as_str().into()).await.unwrap().bytes().await.unwrap();
        // Under another backup's name, under another proof's, and damaged.
        let moved = key.replace("20261101T020000Z", "20261102T020000Z");
        let renamed = key.replace("20261123T010000Z", "20261123T020000Z");
        for place in [&moved, &renamed] {
            objects.put(&place.as_str().into(), bytes.clone().into()).await.unwrap();
        }
        let cut = key.replace("20261123T010000Z", "20261123T030000Z");
        objects.put(&cut.as_str().into(), b"{}".to_vec().into()).await.unwrap();
        assert_eq!(proven(&repository, &[1, 2]).await, (Some(backup(1)), 3));
        assert_eq!(proven(&repository, &[2]).await, (None, 1));
        let proofs = repository.proofs(&[backup(1)]).await.unwrap();
        let sound: Vec<bool> = proofs[&backup(1)].iter().map(|(_, proof)| proof.is_ok()).collect();
        assert_eq!(sound, [false, false, true]);
        // Of another repository.
        let (elsewhere, other) = self::repository().await;
        elsewhere.put(&key.as_str().into(), bytes.into()).await.unwrap();
        assert_eq!(proven(&other, &[1]).await, (None, 1));
    }
}
