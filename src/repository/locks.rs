//! Object lock: what `init` settles, and how long things stay locked.
//!
//! Each object is locked when it is put, for the period and a third of it ([`LockPolicy::slack_seconds`]). An object's age
//! so tells for how long it is locked at least, without a request for it. What is needed for longer is extended by whoever
//! commits a backup that needs it.

use std::collections::HashSet;

use futures::{StreamExt, TryStreamExt, stream::FuturesUnordered};

use super::history::History;
use super::{ObjectKey, Repository, RepositoryError, store_key};
use crate::model::{Clock, Entropy, LockPolicy, PackId, Retention, Timestamp};
use crate::store::{Store, StoreError};

/// Seconds by which clocks and the times of a store may be wrong.
pub const LOCK_MARGIN_SECONDS: i64 = 3600;
/// Part of the slack for which a lock may have run and is not extended yet.
const FRESH_PART: i64 = 8;
/// Locks that are being extended; the store lets as many through.
const EXTENSIONS_IN_FLIGHT: usize = 64;

/// How long locks have to last, and last.
#[derive(Debug, Clone, Copy)]
pub struct Deadlines {
    policy: LockPolicy,
    /// Until when what a backup needs is to be locked that is committed now.
    pub needed: Timestamp,
    /// What ends earlier is extended, once extensions are due.
    fresh: Timestamp,
    /// The lock that it gets.
    pub target: Retention,
}

impl Deadlines {
    /// The deadlines of a backup that is committed at `now`.
    pub fn at(policy: LockPolicy, now: Timestamp) -> Deadlines {
        let target = policy.retention(now);
        let fresh = target.until.after(-policy.slack_seconds() / FRESH_PART);
        let needed = now.after(policy.period_seconds() + LOCK_MARGIN_SECONDS);
        Deadlines { policy, needed, fresh, target }
    }

    /// Until when an object is locked, at least, that was put at `stored`, where that is long enough to leave it.
    pub fn by_age(&self, stored: Timestamp) -> Option<Timestamp> {
        let until = self.policy.retention(stored).until.after(-LOCK_MARGIN_SECONDS);
        (until >= self.fresh).then_some(until)
    }
}

/// What became of locks that had to last.
#[derive(Debug)]
pub struct Extension {
    /// Until when all of them last, at least.
    pub until: Timestamp,
    /// Locks that were extended.
    pub extended: u64,
    /// Objects of which somebody has stored another version since, which now hides theirs.
    pub overwritten: u64,
    /// Locks that could not be extended.
    pub failed: u64,
    /// Why, of the first of them.
    pub cause: Option<StoreError>,
}

impl Extension {
    /// Nothing to be done: all last until then.
    pub fn of(until: Timestamp) -> Extension {
        Extension { until, extended: 0, overwritten: 0, failed: 0, cause: None }
    }

    fn note(&mut self, result: Result<Timestamp, StoreError>) {
        match result {
            Ok(until) => {
                self.extended += 1;
                self.until = self.until.min(until);
            }
            Err(error) => {
                self.failed += 1;
                self.cause.get_or_insert(error);
            }
        }
    }
}

/// Sees that `store` locks what is put, and has it do so from now on.
pub(super) async fn begin_locks(store: &Store, lock: LockPolicy) -> Result<(), RepositoryError> {
    store.check_locks().await?;
    store.lock_puts(lock);
    Ok(())
}

impl Repository {
    /// Makes a repository in an empty place whose objects are locked, and proves that the store keeps the locks.
    ///
    /// # Errors
    /// Those of [`Repository::init`]; [`StoreError::NoLocks`] where nothing can be locked.
    pub async fn init_locked(
        store: Store,
        lock: LockPolicy,
        clock: &dyn Clock,
        entropy: &dyn Entropy,
    ) -> Result<Repository, RepositoryError> {
        begin_locks(&store, lock).await?;
        let repository = Repository::create(store, Some(lock), clock, entropy).await?;
        repository.prove_locks().await?;
        Ok(repository)
    }

    /// Proves that the store kept the lock of `haulout.json`, which was just put; removes what was put where it did not.
    pub(super) async fn prove_locks(&self) -> Result<(), RepositoryError> {
        let key = store_key(&ObjectKey::Config)?;
        if let Err(error) = self.store.check_locked(&key).await {
            // Where the lock was not kept, it does not hinder this either.
            if matches!(error, StoreError::NoLocks { .. }) {
                self.store.delete_brief(&key).await?;
                if let Some(slot) = self.slot() {
                    self.store.delete_brief(&store_key(&ObjectKey::Slot(slot))?).await?;
                }
            }
            return Err(error.into());
        }
        Ok(())
    }

    /// How objects are locked that are put here: nothing where `init` did not ask for it, or where the repository was
    /// copied to a store that locks nothing.
    pub fn lock_policy(&self) -> Option<LockPolicy> {
        self.locks
    }

    /// Proves that `haulout.json` is locked, and tells until when.
    ///
    /// # Errors
    /// [`StoreError::NoLocks`]; those of access and availability.
    pub async fn config_locked_until(&self) -> Result<Option<Timestamp>, RepositoryError> {
        let lock = self.store.object_lock(&store_key(&ObjectKey::Config)?).await?;
        Ok(lock.retention.map(|retention| retention.until))
    }

    /// Sees to it that `packs` stay locked for the period from `now` on, and most of them for longer.
    ///
    /// One listing of versions tells how old they are, 1000 to a request. Without `trust_age` every lock is extended: for
    /// a repository whose objects were copied, and lost their locks on the way.
    ///
    /// # Errors
    /// [`RepositoryError::PackMissing`]; when the store cannot list versions. Locks that could not be extended are counted.
    pub async fn extend_packs(
        &self,
        policy: LockPolicy,
        mut packs: HashSet<PackId>,
        now: Timestamp,
        trust_age: bool,
    ) -> Result<Extension, RepositoryError> {
        let deadlines = Deadlines::at(policy, now);
        let target = deadlines.target;
        let mut extension = Extension::of(target.until);
        let mut under_way = FuturesUnordered::new();
        let mut histories = self.histories(&format!("{}/", ObjectKey::PACKS));
        while let Some(history) = histories.try_next().await? {
            let ObjectKey::Pack(id) = history.object else { continue };
            if !packs.remove(&id) {
                continue;
            }
            let (Some(first), true) = (history.first(), history.present.is_some()) else {
                return Err(RepositoryError::PackMissing { pack: id });
            };
            extension.overwritten += u64::from(history.count > 1);
            let by_age = deadlines.by_age(first.last_modified).filter(|_| trust_age && history.count == 1);
            if let Some(until) = by_age {
                extension.until = extension.until.min(until);
                continue;
            }
            under_way.push(self.extend(history, policy, target, now));
            if under_way.len() >= EXTENSIONS_IN_FLIGHT
                && let Some(result) = under_way.next().await
            {
                extension.note(result);
            }
        }
        while let Some(result) = under_way.next().await {
            extension.note(result);
        }
        match packs.into_iter().next() {
            Some(pack) => Err(RepositoryError::PackMissing { pack }),
            None => Ok(extension),
        }
    }

    /// As [`Repository::extend_packs`], for what all backups need besides: `haulout.json` and the key slots. Their locks are
    /// looked at, since there are few.
    ///
    /// # Errors
    /// When the store cannot list versions or tell locks.
    pub async fn extend_documents(&self, policy: LockPolicy, now: Timestamp) -> Result<Extension, RepositoryError> {
        let Deadlines { needed, target, .. } = Deadlines::at(policy, now);
        let mut extension = Extension::of(target.until);
        for prefix in [ObjectKey::Config.text(), format!("{}/", ObjectKey::SLOTS)] {
            let mut histories = self.histories(&prefix);
            while let Some(history) = histories.try_next().await? {
                let Some(first) = history.first() else { continue };
                extension.overwritten += u64::from(history.count > 1);
                let lock = self.store.version_lock(&first.key, &first.version).await?;
                match lock.map(|lock| lock.until).filter(|until| *until >= needed) {
                    Some(until) => extension.until = extension.until.min(until),
                    None => extension.note(self.extend(history, policy, target, now).await),
                }
            }
        }
        Ok(extension)
    }

    /// As [`Repository::extend_packs`], for a few packs whose locks are looked at.
    ///
    /// # Errors
    /// Those of [`Repository::extend_packs`].
    pub async fn extend_few(
        &self,
        policy: LockPolicy,
        packs: Vec<PackId>,
        now: Timestamp,
    ) -> Result<Extension, RepositoryError> {
        let Deadlines { needed, target, .. } = Deadlines::at(policy, now);
        let looks = packs.into_iter().map(|pack| async move {
            let history = self.histories(&ObjectKey::Pack(pack).text()).try_next().await?;
            let history = history.ok_or(RepositoryError::PackMissing { pack })?;
            let first = history.first().ok_or(RepositoryError::PackMissing { pack })?;
            let lock = self.store.version_lock(&first.key, &first.version).await?;
            match lock.filter(|lock| lock.until >= needed) {
                Some(lock) => Ok::<_, RepositoryError>((lock.until, None)),
                None => Ok((target.until, Some(self.extend(history, policy, target, now).await))),
            }
        });
        let mut looks = futures::stream::iter(looks).buffer_unordered(EXTENSIONS_IN_FLIGHT);
        let mut extension = Extension::of(target.until);
        while let Some((until, extended)) = looks.try_next().await? {
            match extended {
                Some(result) => extension.note(result),
                None => extension.until = extension.until.min(until),
            }
        }
        Ok(extension)
    }

    /// Until when the first version of a pack is locked.
    ///
    /// # Errors
    /// [`RepositoryError::PackMissing`], or what the store says.
    pub async fn pack_locked_until(&self, pack: PackId) -> Result<Option<Timestamp>, RepositoryError> {
        let mut histories = self.histories(&ObjectKey::Pack(pack).text());
        let history = histories.try_next().await?;
        let first = history.as_ref().and_then(History::first).ok_or(RepositoryError::PackMissing { pack })?;
        Ok(self.store.version_lock(&first.key, &first.version).await?.map(|lock| lock.until))
    }

    /// Extends the lock of an object's first version, and of its present one, until `target`; tells until when they are
    /// locked then.
    async fn extend(
        &self,
        history: History,
        policy: LockPolicy,
        target: Retention,
        now: Timestamp,
    ) -> Result<Timestamp, StoreError> {
        let mut until = target.until;
        let present = history.present.iter().filter(|_| history.count > 1);
        for version in history.first().into_iter().chain(present) {
            match self.store.extend_lock(&version.key, Some(&version.version), target).await {
                Ok(()) => {}
                // A longer or a stricter lock than ours is not changed, and serves.
                Err(error @ StoreError::Denied { .. }) => {
                    let lock = self.store.version_lock(&version.key, &version.version).await?;
                    match lock.map(|lock| lock.until) {
                        Some(found) if found >= now.after(policy.period_seconds()) => until = until.min(found),
                        _ => return Err(error),
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(until)
    }
}
