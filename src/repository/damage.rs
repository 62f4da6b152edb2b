//! What checks found damaged: a row of documents, of which the newest that can be read counts.
//!
//! A later backup does not read what it builds on. These documents tell it on which packs nothing new may rest.

use std::collections::BTreeSet;

use futures::TryStreamExt;

use super::{ObjectKey, Repository, RepositoryError};
use crate::error::{Diagnose, Kind};
use crate::format::{DAMAGED_PACKS_MAX, DamageList, FormatError};
use crate::model::{BackupId, Clock, Entropy, PackId, Timestamp};
use crate::store::Key;

/// Documents that are tried, from the newest on, until one can be read; whoever has more damaged ones names the packs anew.
const LISTS_READ_MAX: usize = 16;

/// Packs that are known to be damaged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KnownDamage {
    /// The packs.
    pub packs: BTreeSet<PackId>,
    /// Damaged packs that were too many to be named.
    pub more: u64,
    /// Name of the newest document, whether or not it can be read.
    pub newest: Option<BackupId>,
    /// Documents newer than the one that counts, and what is wrong with them: what they name is not known.
    pub unread: Vec<(BackupId, String)>,
}

/// What a check has to say of packs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// Packs that are damaged.
    pub damaged: BTreeSet<PackId>,
    /// Packs that were known to be damaged, and are right.
    pub whole: BTreeSet<PackId>,
    /// True when every byte of every pack that a backup needs was read: what is not found damaged is not.
    pub complete: bool,
}

impl Repository {
    /// Packs that a check found damaged and none found whole since.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn known_damage(&self) -> Result<KnownDamage, RepositoryError> {
        let names = self.damage_lists().await?;
        let names: Vec<BackupId> = names.into_iter().map(|(id, _)| id).collect();
        let mut known = KnownDamage { newest: names.first().cloned(), ..KnownDamage::default() };
        for id in names.into_iter().take(LISTS_READ_MAX) {
            match self.damage_list(&id).await {
                Ok(list) => {
                    known.packs = list.packs.into_iter().collect();
                    known.more = list.more;
                    break;
                }
                Err(RepositoryError::Store(error)) if error.is_not_found() => {}
                Err(error) => match error.kind() {
                    Kind::Corrupt | Kind::WrongKey | Kind::NoRepository => known.unread.push((id, error.to_string())),
                    _ => return Err(error),
                },
            }
        }
        Ok(known)
    }

    /// Every document, the newest first, and when it was stored.
    async fn damage_lists(&self) -> Result<Vec<(BackupId, Timestamp)>, RepositoryError> {
        let mut lists = Vec::new();
        let mut objects = self.store.list(Some(&Key::new(ObjectKey::DAMAGE)?));
        while let Some(object) = objects.try_next().await? {
            if let Some(ObjectKey::Damage(id)) = ObjectKey::parse(object.key.as_str()) {
                lists.push((id, object.last_modified));
            }
        }
        lists.sort_by(|(one, _), (other, _)| other.cmp(one));
        Ok(lists)
    }

    /// Documents that nobody reads any more, whatever becomes of newer ones, and when each was stored.
    ///
    /// # Errors
    /// When the store cannot list.
    pub async fn old_damage_lists(&self) -> Result<Vec<(ObjectKey, Timestamp)>, RepositoryError> {
        let lists = self.damage_lists().await?.into_iter().skip(LISTS_READ_MAX);
        Ok(lists.map(|(id, stored)| (ObjectKey::Damage(id), stored)).collect())
    }

    async fn damage_list(&self, id: &BackupId) -> Result<DamageList, RepositoryError> {
        let key = ObjectKey::Damage(id.clone());
        let list: DamageList = self.get_document(&key).await?;
        if list.id == *id && list.repository_id == self.config.repository_id {
            return Ok(list);
        }
        let problem = format!("it is {} of repository {}", list.id, list.repository_id);
        Err(FormatError::Document { what: key.text(), problem }.into())
    }

    /// Writes down what a check found, if that is anything new; gives the key of the document, and what is known now.
    ///
    /// # Errors
    /// When the store refuses.
    pub async fn record_damage(
        &self,
        findings: &Findings,
        clock: &dyn Clock,
        entropy: &dyn Entropy,
    ) -> Result<(Option<String>, KnownDamage), RepositoryError> {
        // Read now, so that what another check found meanwhile is kept.
        let known = self.known_damage().await?;
        let kept = known.packs.difference(&findings.whole).filter(|_| !findings.complete);
        let packs: BTreeSet<PackId> = kept.chain(&findings.damaged).copied().collect();
        let unnamed = packs.len().saturating_sub(DAMAGED_PACKS_MAX) as u64;
        let more = unnamed.max(if findings.complete { 0 } else { known.more });
        let packs: BTreeSet<PackId> = packs.into_iter().take(DAMAGED_PACKS_MAX).collect();
        if packs == known.packs && more == known.more && known.unread.is_empty() {
            return Ok((None, known));
        }
        let written = clock.now().whole_seconds();
        let id = BackupId::following(known.newest.as_ref(), written, entropy);
        let list = DamageList {
            repository_id: self.config.repository_id,
            id: id.clone(),
            written,
            haulout_version: env!("CARGO_PKG_VERSION").to_owned(),
            packs: packs.iter().copied().collect(),
            more,
        };
        let key = ObjectKey::Damage(id.clone());
        self.put_document(&key, &list).await?;
        Ok((Some(key.text()), KnownDamage { packs, more, newest: Some(id), unread: Vec::new() }))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use object_store::{ObjectStoreExt, memory::InMemory};

    use super::*;
    use crate::model::{SystemClock, SystemEntropy};
    use crate::store::{Store, StoreOptions};

    fn packs(names: &[u8]) -> BTreeSet<PackId> {
        names.iter().map(|name| PackId([*name; 32])).collect()
    }

    fn found(damaged: &[u8], whole: &[u8], complete: bool) -> Findings {
        Findings { damaged: packs(damaged), whole: packs(whole), complete }
    }

    async fn repository() -> (Arc<InMemory>, Repository) {
        let objects = Arc::new(InMemory::new());
        let store = Store::over("memory:///", objects.clone(), StoreOptions::default());
        (objects, Repository::init(store, &SystemClock, &SystemEntropy).await.unwrap())
    }

    async fn record(repository: &Repository, findings: Findings) -> Option<String> {
        repository.record_damage(&findings, &SystemClock, &SystemEntropy).await.unwrap().0
    }

    #[tokio::test]
    async fn the_newest_list_counts_and_names_all_that_is_damaged() {
        let (_, repository) = repository().await;
        assert_eq!(repository.known_damage().await.unwrap(), KnownDamage::default());
        assert_eq!(record(&repository, found(&[], &[], true)).await, None, "nothing to tell");
        let mut keys = Vec::new();
        for (findings, expected) in [
            (found(&[1, 2], &[], false), &[1, 2][..]),
            (found(&[3], &[2], false), &[1, 3]),
            (found(&[4], &[], true), &[4]),
            (found(&[], &[], true), &[]),
        ] {
            keys.push(record(&repository, findings.clone()).await.unwrap());
            let known = repository.known_damage().await.unwrap();
            assert_eq!((known.packs, known.unread), (packs(expected), Vec::new()));
            assert_eq!(record(&repository, findings).await, None, "nothing new");
        }
        assert!(keys.is_sorted(), "{keys:?}");
    }

    #[tokio::test]
    async fn a_list_that_cannot_be_read_is_told_and_written_anew() {
        let (objects, repository) = repository().await;
        record(&repository, found(&[1], &[], false)).await.unwrap();
        let key = record(&repository, found(&[2], &[], false)).await.unwrap();
        objects.put(&key.as_str().into(), b"{}".to_vec().into()).await.unwrap();
        let known = repository.known_damage().await.unwrap();
        assert_eq!((known.packs, known.unread.len()), (packs(&[1]), 1));
        let again = record(&repository, found(&[], &[], false)).await.unwrap();
        assert!(again > key);
        let known = repository.known_damage().await.unwrap();
        assert_eq!((known.packs, known.unread.len()), (packs(&[1]), 0));
    }

    #[tokio::test]
    async fn a_list_under_another_name_or_of_another_repository_does_not_count() {
        let (objects, repository) = repository().await;
        let key = record(&repository, found(&[1], &[], false)).await.unwrap();
        let bytes = objects.get(&key.as_str().into()).await.unwrap().bytes().await.unwrap();
        objects.put(&"damage/29991231T000000Z-000000.json".into(), bytes.clone().into()).await.unwrap();
        let known = repository.known_damage().await.unwrap();
        assert_eq!((known.packs, known.unread.len()), (packs(&[1]), 1));
        let (elsewhere, other) = self::repository().await;
        elsewhere.put(&key.as_str().into(), bytes.into()).await.unwrap();
        let known = other.known_damage().await.unwrap();
        assert_eq!((known.packs, known.unread.len()), (packs(&[]), 1));
    }
}
