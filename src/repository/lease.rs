//! Leases: politeness between runs. Nothing is lost when two runs do go on at once.
//!
//! A lease is a row of documents, each with a key of its own. Whether one still holds is judged by the store's clock
//! alone: by how much younger the newest document of the asker is. Nobody's own clock matters, and no request needs to be
//! conditional.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt;

use super::{LeaseKey, ObjectKey, ProcessIdentity, Repository, RepositoryError, store_key};
use crate::format::Lease;
use crate::model::{Entropy, Progress, Timestamp};
use crate::store::Key;

/// A lease holds for so long after its newest document was stored: three renewals may fail.
pub const LEASE_SECONDS: u32 = 300;
/// How often a run renews its lease.
pub const LEASE_RENEW_SECONDS: u64 = 90;

/// Time for giving a lease back.
const RELEASE_LIMIT: Duration = Duration::from_secs(10);

/// A lease that this run holds.
#[derive(Debug)]
pub struct LeaseGuard {
    purpose: String,
    holder: String,
    number: u32,
    may_delete: bool,
    /// When it was taken, by the store's clock; nothing if the store did not list it.
    taken: Option<Timestamp>,
}

impl Repository {
    /// Takes the lease for `purpose`.
    ///
    /// # Errors
    /// [`RepositoryError::Locked`] when another run holds it.
    pub async fn lease(&self, purpose: &str, entropy: &dyn Entropy) -> Result<LeaseGuard, RepositoryError> {
        let mut holder = [0; 8];
        entropy.fill(&mut holder);
        let holder = hex::encode(holder);
        let mut guard = LeaseGuard { purpose: purpose.to_owned(), holder, number: 0, may_delete: true, taken: None };
        self.put_lease(&guard, false).await?;
        match self.contender(&mut guard).await {
            Ok(None) => Ok(guard),
            Ok(Some(who)) => {
                self.release(&mut guard).await?;
                Err(RepositoryError::Locked { purpose: purpose.to_owned(), who })
            }
            Err(error) => {
                // The first error tells more than that the lease could not be given back either.
                let _ = self.release(&mut guard).await;
                Err(error)
            }
        }
    }

    /// Makes the lease hold for another [`LEASE_SECONDS`].
    ///
    /// # Errors
    /// When the store refuses.
    pub async fn renew(&self, guard: &mut LeaseGuard) -> Result<(), RepositoryError> {
        guard.number += 1;
        self.put_lease(guard, false).await?;
        guard.may_delete = self.forget(guard, guard.number - 1).await;
        Ok(())
    }

    /// Renews the lease every [`LEASE_RENEW_SECONDS`], for as long as it is polled. What fails is told, and tried again.
    pub async fn keep_renewed(&self, guard: &tokio::sync::Mutex<LeaseGuard>, progress: &dyn Progress) {
        loop {
            tokio::time::sleep(Duration::from_secs(LEASE_RENEW_SECONDS)).await;
            if let Err(error) = self.renew(&mut *guard.lock().await).await {
                progress.warn(&format!("the lease could not be renewed: {error}"));
            }
        }
    }

    /// Ends the lease, in the time that whoever stops a run wants to wait; what fails is told, and it ends by itself.
    pub async fn give_back(&self, guard: &tokio::sync::Mutex<LeaseGuard>, progress: &dyn Progress) {
        let release = async { self.release(&mut *guard.lock().await).await };
        let error = match tokio::time::timeout(RELEASE_LIMIT, release).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "the store does not answer".to_owned(),
        };
        progress.warn(&format!("the lease could not be given back and ends by itself: {error}"));
    }

    /// Ends the lease.
    ///
    /// # Errors
    /// When the store refuses; the lease then ends by itself.
    pub async fn release(&self, guard: &mut LeaseGuard) -> Result<(), RepositoryError> {
        guard.number += 1;
        // At once: when the older document is gone and this one could not be stored, the lease has ended all the same.
        let (stored, may_delete) =
            futures::future::join(self.put_lease(guard, true), self.forget(guard, guard.number - 1)).await;
        guard.may_delete = may_delete;
        stored
    }

    async fn put_lease(&self, guard: &LeaseGuard, released: bool) -> Result<(), RepositoryError> {
        let mut process = ProcessIdentity::current();
        if !self.opens_maps() {
            // In a sealed repository no name of a machine is shown.
            "a machine without the key".clone_into(&mut process.host);
        }
        let who = serde_json::to_string(&process).unwrap_or_default();
        let lease = Lease {
            holder: guard.holder.clone(),
            purpose: guard.purpose.clone(),
            who,
            seconds: LEASE_SECONDS,
            released,
        };
        let key = ObjectKey::Lease(guard.key(guard.number, released));
        let bytes = Bytes::from(self.document_place(&key.text()).encode(&lease)?);
        // Not locked: a lease is of no use once it has ended, and whoever may delete removes it.
        self.store.put_brief(&store_key(&key)?, bytes).await?;
        Ok(())
    }

    /// Removes an older document of the run and tells whether that is allowed. Credentials that may not delete leave it
    /// to `prune`.
    async fn forget(&self, guard: &LeaseGuard, number: u32) -> bool {
        match store_key(&ObjectKey::Lease(guard.key(number, false))) {
            Ok(key) if guard.may_delete => self.store.delete_brief(&key).await.is_ok(),
            _ => guard.may_delete,
        }
    }

    /// Who else holds the lease and came before.
    async fn contender(&self, guard: &mut LeaseGuard) -> Result<Option<String>, RepositoryError> {
        let mut newest = newest(self.leases().await?);
        newest.retain(|_, (key, _)| key.purpose == guard.purpose);
        let Some((_, own_stored)) = newest.remove(&guard.holder) else { return Ok(None) };
        guard.taken = Some(own_stored);
        for (key, _) in newest.into_values().filter(|(key, stored)| holds(key, *stored, guard, own_stored)) {
            if let Some(who) = self.living_holder(&key).await? {
                return Ok(Some(who));
            }
        }
        Ok(None)
    }

    /// Every lease document, and when it was stored.
    ///
    /// # Errors
    /// When the store cannot list.
    pub async fn leases(&self) -> Result<Vec<(LeaseKey, Timestamp)>, RepositoryError> {
        let mut leases = Vec::new();
        let mut objects = self.store.list(Some(&Key::new(ObjectKey::LEASES)?));
        while let Some(object) = objects.try_next().await? {
            if let Some(ObjectKey::Lease(key)) = ObjectKey::parse(object.key.as_str()) {
                leases.push((key, object.last_modified));
            }
        }
        Ok(leases)
    }

    /// Who is at work with `purpose` at this moment, besides the run that holds `own`, which is renewed: the store's clock is
    /// read off its document.
    ///
    /// # Errors
    /// When the store refuses.
    pub async fn at_work(&self, purpose: &str, own: &mut LeaseGuard) -> Result<Option<String>, RepositoryError> {
        self.renew(own).await?;
        let mut newest = newest(self.leases().await?);
        let now = newest.remove(&own.holder).map(|(_, stored)| stored);
        let lives = |key: &LeaseKey, stored: Timestamp| {
            // Without a clock, whoever did not say that he ended may be at work.
            let expired = now.is_some_and(|now| now.seconds_since(stored) > i64::from(LEASE_SECONDS));
            key.purpose == purpose && !key.released && !expired
        };
        for (key, _) in newest.into_values().filter(|(key, stored)| lives(key, *stored)) {
            if let Some(who) = self.living_holder(&key).await? {
                return Ok(Some(who));
            }
        }
        Ok(None)
    }

    async fn living_holder(&self, key: &LeaseKey) -> Result<Option<String>, RepositoryError> {
        let key = ObjectKey::Lease(key.clone());
        let lease: Lease = match self.get_document(&key).await {
            // Renewed or released since it was listed: which of them, only another look could tell.
            Err(RepositoryError::Store(error)) if error.is_not_found() => {
                return Ok(Some("a run that is just ending or renewing".to_owned()));
            }
            // Not sealed where all is, or the other way round: of a copy that goes on without the key. He may live.
            Err(RepositoryError::Format(_)) => {
                return Ok(Some("a run whose lease cannot be read, as a copy without the key puts it".to_owned()));
            }
            lease => lease?,
        };
        match serde_json::from_str::<ProcessIdentity>(&lease.who) {
            Ok(process) if process.is_known_dead() => Ok(None),
            Ok(process) => Ok(Some(process.to_string())),
            Err(_) => Ok(Some(lease.who)),
        }
    }
}

/// The newest document of each holder.
fn newest(leases: Vec<(LeaseKey, Timestamp)>) -> BTreeMap<String, (LeaseKey, Timestamp)> {
    let mut newest: BTreeMap<String, (LeaseKey, Timestamp)> = BTreeMap::new();
    for (key, stored) in leases {
        let known = newest.entry(key.holder.clone()).or_insert_with(|| (key.clone(), stored));
        if known.0.number < key.number {
            *known = (key, stored);
        }
    }
    newest
}

/// Whether the newest document `key` of another run, stored at `stored`, keeps `own` from going on, whose own was stored at
/// `own_stored`.
fn holds(key: &LeaseKey, stored: Timestamp, own: &LeaseGuard, own_stored: Timestamp) -> bool {
    let expired = own_stored.seconds_since(stored) > i64::from(LEASE_SECONDS);
    let came_later = (stored, &key.holder) > (own_stored, &own.holder);
    // A later first document gives way to ours; a later renewal belongs to someone who was here before us.
    !(key.released || expired || (came_later && key.number == 0))
}

impl LeaseGuard {
    /// When it was taken, by the store's clock; nothing if the store did not list it.
    pub fn taken(&self) -> Option<Timestamp> {
        self.taken
    }

    fn key(&self, number: u32, released: bool) -> LeaseKey {
        LeaseKey { purpose: self.purpose.clone(), holder: self.holder.clone(), number, released }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use object_store::memory::InMemory;

    use super::*;
    use crate::model::{SystemClock, SystemEntropy};
    use crate::store::faulty::{Fault, FaultyStore, Operation, Rule, Script};
    use crate::store::{Store, StoreOptions};

    fn at(second: i64) -> Timestamp {
        Timestamp(jiff::Timestamp::from_second(second).unwrap())
    }

    fn guard(holder: &str) -> LeaseGuard {
        LeaseGuard { purpose: "backup".to_owned(), holder: holder.to_owned(), number: 0, may_delete: true, taken: None }
    }

    #[test]
    fn of_two_runs_the_one_that_came_first_goes_on() {
        let own = guard("8");
        for (holder, number, released, stored, expected) in [
            ("1", 0, false, 999, true),
            ("1", 0, true, 999, false),
            // After five minutes without a renewal, by the store's clock.
            ("1", 0, false, 700, true),
            ("1", 0, false, 699, false),
            ("1", 7, false, 699, false),
            // At the same second the names decide, and only one of both gives way.
            ("1", 0, false, 1000, true),
            ("9", 0, false, 1000, false),
            ("1", 0, false, 1001, false),
            // A renewal that came later is of a run that was there before.
            ("9", 1, false, 1001, true),
        ] {
            let key = guard(holder).key(number, released);
            assert_eq!(holds(&key, at(stored), &own, at(1000)), expected, "{key:?} at {stored}");
        }
        let (one, other) = (guard("1"), guard("9"));
        assert_ne!(
            holds(&one.key(0, false), at(5), &other, at(5)),
            holds(&other.key(0, false), at(5), &one, at(5)),
            "both would go on, or neither"
        );
    }

    /// A repository, and the store beneath it.
    async fn repository(rules: Vec<Rule>) -> (Repository, Arc<InMemory>) {
        let objects = Arc::new(InMemory::new());
        let faulty = FaultyStore::new(objects.clone(), Script { rules, ..Script::default() });
        let store = Store::over("memory:///", Arc::new(faulty), StoreOptions::default());
        (Repository::init(store, &SystemClock, &SystemEntropy).await.unwrap(), objects)
    }

    async fn documents(repository: &Repository) -> Vec<LeaseKey> {
        let folder = Key::new(ObjectKey::LEASES).unwrap();
        let objects: Vec<_> = repository.store.list(Some(&folder)).try_collect().await.unwrap();
        let key = |text: &str| match ObjectKey::parse(text) {
            Some(ObjectKey::Lease(key)) => key,
            other => panic!("{text} is {other:?}"),
        };
        let mut keys: Vec<_> = objects.iter().map(|object| key(object.key.as_str())).collect();
        keys.sort();
        keys
    }

    #[tokio::test]
    async fn a_lease_is_renewed_by_a_new_document_and_given_back_by_another() {
        let (repository, _) = repository(Vec::new()).await;
        let mut first = repository.lease("backup", &SystemEntropy).await.unwrap();
        repository.renew(&mut first).await.unwrap();
        repository.renew(&mut first).await.unwrap();
        assert_eq!(documents(&repository).await, [first.key(2, false)]);
        // Of this very process, which lives.
        let locked = repository.lease("backup", &SystemEntropy).await.unwrap_err();
        assert!(matches!(&locked, RepositoryError::Locked { .. }), "{locked}");
        let mut other = repository.lease("prune", &SystemEntropy).await.unwrap();
        repository.release(&mut other).await.unwrap();
        repository.release(&mut first).await.unwrap();
        assert!(documents(&repository).await.iter().all(|key| key.released));
        repository.lease("backup", &SystemEntropy).await.unwrap();
    }

    #[tokio::test]
    async fn without_leave_to_delete_a_lease_is_renewed_and_given_back_all_the_same() {
        let (repository, _) = repository(vec![Rule::always(Operation::Delete, Fault::Denied)]).await;
        let mut first = repository.lease("backup", &SystemEntropy).await.unwrap();
        repository.renew(&mut first).await.unwrap();
        assert_eq!(documents(&repository).await.len(), 2);
        assert!(repository.lease("backup", &SystemEntropy).await.is_err());
        repository.release(&mut first).await.unwrap();
        repository.lease("backup", &SystemEntropy).await.unwrap();
    }
}
