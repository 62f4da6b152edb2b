//! Object lock: what is put is locked with the same request, and a lock is asked for before anything is deleted.
//!
//! Where a bucket keeps versions, a plain delete is never refused for a lock: it hides the locked version behind a delete
//! marker, frees nothing, and takes the object away from every reader. So [`Store::delete`] asks first.

use std::sync::atomic::Ordering;

use object_store::PutOptions;

use super::{
    Answer, Key, Store, StoreError,
    client::timely,
    counters::Count,
    error::{Action, Refused},
    locker::Locks,
};
use crate::model::{LockPolicy, Retention, Timestamp};

/// Requests about locks in flight. 64: each is small, and a store that takes 30 ms for one then answers 2000 a second.
pub(super) const LOCK_REQUESTS_MAX: usize = 64;

/// How an object is locked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ObjectLock {
    /// The lock that ends by itself, which may be over.
    pub retention: Option<Retention>,
    /// A lock that holds until somebody takes it away; asked for only where the other does not hold.
    pub legal_hold: bool,
}

impl ObjectLock {
    /// True when the object cannot be deleted at `now`.
    pub fn holds_at(&self, now: Timestamp) -> bool {
        self.legal_hold || self.retention.is_some_and(|retention| retention.until > now)
    }
}

impl Store {
    /// Has every object locked that [`Store::put`] stores from now on; true when this store can.
    ///
    /// Whether the bucket does keep the locks is for [`Store::object_lock`] to tell: some take them and forget them.
    pub fn lock_puts(&self, policy: LockPolicy) -> bool {
        if self.shared.locker.is_none() {
            return false;
        }
        *self.shared.lock_policy.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(policy);
        true
    }

    /// Options of a put, with the lock that belongs to it.
    pub(super) fn put_options(&self, locked: bool) -> PutOptions {
        let mut options = PutOptions::default();
        let policy = *self.shared.lock_policy.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(policy) = policy.filter(|_| locked) {
            options.extensions.insert(policy.retention(self.shared.options.clock.now()));
        }
        options
    }

    /// Asks how the object that `key` names is locked. A store other than S3 locks nothing.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Denied`] when the account may not ask; those of availability.
    pub async fn object_lock(&self, key: &Key) -> Result<ObjectLock, StoreError> {
        let Some(locker) = &self.shared.locker else { return Ok(ObjectLock::default()) };
        let _permit = self.shared.lock_requests.acquire().await;
        let attempt = self.attempt(Action::LookAtLock, key.as_str());
        let silence_max = self.shared.options.retry.silence_max;
        self.repeat(&attempt, || async {
            self.shared.counters.add(Count::Head, 1);
            let retention = timely(&attempt, silence_max, locker.retention(key.as_str(), None)).await?;
            let mut lock = ObjectLock { retention, legal_hold: false };
            if !lock.holds_at(self.shared.options.clock.now()) {
                self.shared.counters.add(Count::Head, 1);
                lock.legal_hold = timely(&attempt, silence_max, locker.legal_hold(key.as_str())).await?;
            }
            Ok(lock)
        })
        .await
    }

    /// Locks an object until a later time: its present version, or version `version`.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Denied`] when the account may not, or the object is locked for longer;
    /// those of availability.
    pub async fn extend_lock(&self, key: &Key, version: Option<&str>, retention: Retention) -> Result<(), StoreError> {
        let attempt = self.attempt(Action::Lock, key.as_str());
        let locker = self.locker()?;
        let _permit = self.shared.lock_requests.acquire().await;
        let silence_max = self.shared.options.retry.silence_max;
        self.repeat(&attempt, || async {
            self.shared.counters.add(Count::Lock, 1);
            timely(&attempt, silence_max, locker.extend(key.as_str(), version, retention)).await
        })
        .await
    }

    /// Finds out whether the bucket keeps versions and has object lock; what the account may not ask stays open.
    ///
    /// # Errors
    /// [`StoreError::NoLocks`] with the reason; those of access and availability.
    pub async fn check_locks(&self) -> Result<(), StoreError> {
        self.locker()?;
        let (versioning, object_lock, _) = self.probe_bucket().await;
        for answer in [versioning, object_lock] {
            if let Answer::No(reason) = answer {
                return Err(self.no_locks(&format!("in its bucket, {reason}")));
            }
        }
        Ok(())
    }

    /// Proves that the store keeps the lock of an object that was just put: some take locks and forget them.
    ///
    /// # Errors
    /// [`StoreError::NoLocks`] when it does not; those of access and availability.
    pub async fn check_locked(&self, key: &Key) -> Result<(), StoreError> {
        let lock = self.object_lock(key).await?;
        if lock.retention.is_some_and(|retention| retention.until > self.shared.options.clock.now()) {
            return Ok(());
        }
        Err(self.no_locks(&format!("it took the lock of {key} and does not keep it")))
    }

    /// Finds out whether the bucket keeps versions; what the account may not ask stays open.
    ///
    /// # Errors
    /// [`StoreError::NoVersions`]; those of access and availability.
    pub async fn check_versions(&self) -> Result<(), StoreError> {
        let no_versions = || StoreError::NoVersions { url: self.shared.origin.url.clone() };
        if self.shared.locker.is_none() {
            return Err(no_versions());
        }
        match self.probe_bucket().await {
            (Answer::No(_), ..) => Err(no_versions()),
            _ => Ok(()),
        }
    }

    /// The present moment, by this machine's clock.
    pub fn now(&self) -> Timestamp {
        self.shared.options.clock.now()
    }

    fn no_locks(&self, reason: &str) -> StoreError {
        StoreError::NoLocks { url: self.shared.origin.url.clone(), reason: reason.to_owned() }
    }

    pub(super) fn locker(&self) -> Result<&dyn Locks, StoreError> {
        self.shared.locker.as_deref().ok_or_else(|| self.no_locks("it is no bucket of S3"))
    }

    /// Fails when the object is locked. What cannot be found out because the account may not ask is left to the store.
    pub(super) async fn refuse_locked(&self, key: &Key) -> Result<(), StoreError> {
        if !self.bucket_may_lock().await? {
            return Ok(());
        }
        match self.object_lock(key).await {
            Ok(lock) if lock.holds_at(self.shared.options.clock.now()) => {
                Err(StoreError::Locked { key: key.to_string(), lock })
            }
            Ok(_) | Err(StoreError::NotFound { .. }) => Ok(()),
            Err(StoreError::Denied { reason: Refused::Permission, .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Whether objects in this bucket may be locked, asked once.
    async fn bucket_may_lock(&self) -> Result<bool, StoreError> {
        let Some(locker) = &self.shared.locker else { return Ok(false) };
        if self.shared.is_without_locks.load(Ordering::Relaxed) {
            return Ok(false);
        }
        let attempt = self.attempt(Action::LookAtLock, "the bucket");
        let silence_max = self.shared.options.retry.silence_max;
        let asked = self.repeat(&attempt, || async {
            self.shared.counters.add(Count::Head, 1);
            timely(&attempt, silence_max, locker.bucket_may_lock()).await
        });
        match asked.await {
            Ok(may_lock) => {
                self.shared.is_without_locks.store(!may_lock, Ordering::Relaxed);
                Ok(may_lock)
            }
            Err(StoreError::Denied { reason: Refused::Permission, .. }) => Ok(true),
            Err(error) => Err(error),
        }
    }
}
