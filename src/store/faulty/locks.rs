//! Requests about locks and versions, which can go wrong like all others.

use async_trait::async_trait;
use object_store::{Error, Result};

use super::{Fault, FaultyStore, Operation, reset};
use crate::{
    model::Retention,
    store::{locker::Locks, versions::VersionPage},
};

impl FaultyStore {
    async fn through<T>(
        &self,
        operation: Operation,
        key: &str,
        request: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        let fault = self.meet(operation, key).await?;
        let answer = request.await?;
        self.turn().await;
        if fault == Some(Fault::LoseAnswer) { Err(reset()) } else { Ok(answer) }
    }

    fn inner_locks(&self) -> Result<&dyn Locks> {
        let (operation, implementer) = ("a lock".to_owned(), self.to_string());
        self.locks.as_deref().ok_or(Error::NotImplemented { operation, implementer })
    }
}

#[async_trait]
impl Locks for FaultyStore {
    async fn retention(&self, key: &str, version: Option<&str>) -> Result<Option<Retention>> {
        self.through(Operation::Lock, key, self.inner_locks()?.retention(key, version)).await
    }

    async fn legal_hold(&self, key: &str) -> Result<bool> {
        self.through(Operation::Lock, key, self.inner_locks()?.legal_hold(key)).await
    }

    async fn extend(&self, key: &str, version: Option<&str>, retention: Retention) -> Result<()> {
        self.through(Operation::Lock, key, self.inner_locks()?.extend(key, version, retention)).await
    }

    async fn copy_version(&self, key: &str, version: &str, retention: Option<Retention>) -> Result<()> {
        self.through(Operation::Lock, key, self.inner_locks()?.copy_version(key, version, retention)).await
    }

    async fn delete_version(&self, key: &str, version: &str) -> Result<()> {
        self.through(Operation::Delete, key, self.inner_locks()?.delete_version(key, version)).await
    }

    async fn version_page(&self, prefix: &str, start: Option<&(String, Option<String>)>) -> Result<VersionPage> {
        self.through(Operation::List, prefix, self.inner_locks()?.version_page(prefix, start)).await
    }

    async fn bucket_may_lock(&self) -> Result<bool> {
        self.through(Operation::Lock, "the bucket", self.inner_locks()?.bucket_may_lock()).await
    }
}
