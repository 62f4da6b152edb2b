//! Objects in an archive (Glacier, Deep Archive, the archive tiers of Intelligent-Tiering): which they are, and their thawing.
//!
//! | what S3 says | taken for |
//! |---|---|
//! | class `GLACIER` or `DEEP_ARCHIVE` | frozen, unless it says more |
//! | of these, `RestoreStatus` in a listing, `x-amz-restore` in the answer to a HEAD | thawing, or readable for some days |
//! | class `INTELLIGENT_TIERING` | the HEAD alone tells, by `x-amz-archive-status` |
//! | any other class, none | readable |
//!
//! A listing costs one request for 1000 objects. Some stores list classes and not what was thawed; so what a listing says may be unsure
//! ([`ListedFrost::sure`]), and [`Store::frost`] tells. A store other than S3 has no archives, and is not asked.

use std::collections::VecDeque;

use async_trait::async_trait;
use aws_sdk_s3::{
    error::ProvideErrorMetadata,
    types::{
        ArchiveStatus, GlacierJobParameters, ObjectStorageClass, OptionalObjectAttributes, RestoreRequest,
        RestoreStatus, StorageClass, Tier,
    },
};
use futures::{StreamExt, stream::BoxStream};
use object_store::Result;

use super::{
    Key, Store, StoreError,
    client::timely,
    counters::Count,
    error::Action,
    locker::{Locker, told},
};
use crate::model::{Archive, ThawOrder, ThawTier};

/// Whether an object can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Frost {
    /// It can.
    Readable,
    /// Not before it is thawed, which nobody has asked for.
    Frozen(Archive),
    /// Not yet: it is being thawed.
    Thawing(Archive),
}

/// What a listing says of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedFrost {
    /// Its key.
    pub key: Key,
    /// Its length in bytes.
    pub size: u64,
    /// Whether it can be read, as far as its class tells.
    pub frost: Frost,
    /// Whether that is certain; if not, [`Store::frost`] tells.
    pub sure: bool,
}

/// What a store says to a wish that an object be thawed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ThawAnswer {
    /// It begins, or a thawed copy is kept for longer.
    Accepted,
    /// It was asked before.
    UnderWay,
    /// The object needs none.
    Readable,
}

/// One answer to a listing.
#[derive(Debug, Default)]
pub(super) struct FrostPage {
    pub(super) objects: Vec<ListedFrost>,
    /// Where the next page begins.
    pub(super) next: Option<String>,
}

/// What a bucket is asked for that concerns archives. Keys are those within the repository.
#[async_trait]
pub(super) trait Archives: Send + Sync {
    /// A page of all objects whose keys begin with `prefix`, from `start` on.
    async fn frost_page(&self, prefix: &str, start: Option<&str>) -> Result<FrostPage>;

    /// Asks whether an object can be read.
    async fn frost(&self, key: &str) -> Result<Frost>;

    /// Asks for an object to be thawed that lies in `archive`.
    async fn thaw(&self, key: &str, archive: Archive, order: ThawOrder) -> Result<ThawAnswer>;
}

struct Listing {
    store: Store,
    prefix: String,
    page: VecDeque<ListedFrost>,
    /// Nothing after the last page.
    next: Option<Option<String>>,
}

impl Store {
    /// True where objects may lie in an archive.
    pub fn has_archives(&self) -> bool {
        self.shared.archives.is_some()
    }

    /// Lists all objects whose keys begin with `prefix`, in order of keys, and whether they can be read.
    ///
    /// Objects whose keys are none of ours are passed over. A store without archives lists none, and is not asked.
    pub fn frosts(&self, prefix: &str) -> BoxStream<'static, Result<ListedFrost, StoreError>> {
        let listing =
            Listing { store: self.clone(), prefix: prefix.to_owned(), page: VecDeque::new(), next: Some(None) };
        futures::stream::try_unfold(listing, |mut listing| async move {
            Ok(listing.next().await?.map(|object| (object, listing)))
        })
        .boxed()
    }

    /// Asks whether an object can be read. In a store without archives it can.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; those of access and availability.
    pub async fn frost(&self, key: &Key) -> Result<Frost, StoreError> {
        let Some(archives) = &self.shared.archives else { return Ok(Frost::Readable) };
        let _permit = self.shared.lock_requests.acquire().await;
        let attempt = self.attempt(Action::LookAtArchive, key.as_str());
        let silence_max = self.shared.options.retry.silence_max;
        self.repeat(&attempt, || async {
            self.shared.counters.add(Count::Head, 1);
            timely(&attempt, silence_max, archives.frost(key.as_str())).await
        })
        .await
    }

    /// Asks for an object to be thawed that lies in `archive`, which costs what the provider charges. Asking twice does no harm.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Denied`] where the account may not; those of availability.
    pub async fn thaw(&self, key: &Key, archive: Archive, order: ThawOrder) -> Result<ThawAnswer, StoreError> {
        let Some(archives) = &self.shared.archives else { return Ok(ThawAnswer::Readable) };
        let _permit = self.shared.lock_requests.acquire().await;
        let attempt = self.attempt(Action::Thaw, key.as_str());
        let silence_max = self.shared.options.retry.silence_max;
        self.repeat(&attempt, || async {
            self.shared.counters.add(Count::Thaw, 1);
            timely(&attempt, silence_max, archives.thaw(key.as_str(), archive, order)).await
        })
        .await
    }
}

impl Listing {
    async fn next(&mut self) -> Result<Option<ListedFrost>, StoreError> {
        loop {
            if let Some(object) = self.page.pop_front() {
                return Ok(Some(object));
            }
            let (Some(archives), Some(start)) = (&self.store.shared.archives, self.next.take()) else {
                return Ok(None);
            };
            let attempt = self.store.attempt(Action::List, &self.prefix);
            let silence_max = self.store.shared.options.retry.silence_max;
            let page = self.store.repeat(&attempt, || async {
                self.store.shared.counters.add(Count::List, 1);
                timely(&attempt, silence_max, archives.frost_page(&self.prefix, start.as_deref())).await
            });
            let page = page.await?;
            self.page = page.objects.into();
            self.next = page.next.map(Some);
        }
    }
}

#[async_trait]
impl Archives for Locker {
    async fn frost_page(&self, prefix: &str, start: Option<&str>) -> Result<FrostPage> {
        let request = self.client.list_objects_v2().bucket(&self.bucket).prefix(self.full(prefix));
        let request = request.optional_object_attributes(OptionalObjectAttributes::RestoreStatus);
        let answer = request.set_continuation_token(start.map(str::to_owned)).send().await.map_err(told)?;
        let next = answer.next_continuation_token.filter(|_| answer.is_truncated == Some(true));
        let objects = answer.contents.into_iter().flatten().filter_map(|found| {
            let key = Key::new(found.key?.strip_prefix(&self.prefix)?).ok()?;
            let size = u64::try_from(found.size.unwrap_or_default()).unwrap_or_default();
            let (frost, sure) = listed(found.storage_class.as_ref(), found.restore_status.as_ref());
            Some(ListedFrost { key, size, frost, sure })
        });
        Ok(FrostPage { objects: objects.collect(), next })
    }

    async fn frost(&self, key: &str) -> Result<Frost> {
        let request = self.client.head_object().bucket(&self.bucket).key(self.full(key));
        let answer = request.send().await.map_err(told)?;
        let archive = match (answer.storage_class, answer.archive_status) {
            (_, Some(ArchiveStatus::ArchiveAccess)) => Archive::Tier,
            (_, Some(ArchiveStatus::DeepArchiveAccess)) => Archive::DeepTier,
            (Some(StorageClass::Glacier), _) => Archive::Glacier,
            (Some(StorageClass::DeepArchive), _) => Archive::Deep,
            _ => return Ok(Frost::Readable),
        };
        // `ongoing-request="true"`, or `ongoing-request="false", expiry-date="Fri, 21 Dec 2012 00:00:00 GMT"`.
        Ok(match answer.restore {
            None => Frost::Frozen(archive),
            Some(restore) if restore.contains("ongoing-request=\"true\"") => Frost::Thawing(archive),
            Some(_) => Frost::Readable,
        })
    }

    async fn thaw(&self, key: &str, archive: Archive, order: ThawOrder) -> Result<ThawAnswer> {
        let tier = match order.tier {
            ThawTier::Standard => Tier::Standard,
            ThawTier::Bulk => Tier::Bulk,
            ThawTier::Expedited => Tier::Expedited,
        };
        let job = GlacierJobParameters::builder().tier(tier).build().map_err(|error| {
            let source = Box::new(error);
            object_store::Error::Generic { store: "S3", source }
        })?;
        // An object of Intelligent-Tiering comes back for good, and S3 refuses days for it.
        let days = archive.thaws_for_days().then(|| i32::try_from(order.days.get()).unwrap_or(i32::MAX));
        let wanted = RestoreRequest::builder().set_days(days).glacier_job_parameters(job).build();
        let request = self.client.restore_object().bucket(&self.bucket).key(self.full(key)).restore_request(wanted);
        match request.send().await {
            Ok(_) => Ok(ThawAnswer::Accepted),
            Err(error) => match error.as_service_error().and_then(ProvideErrorMetadata::code) {
                Some("RestoreAlreadyInProgress") => Ok(ThawAnswer::UnderWay),
                Some("InvalidObjectState" | "ObjectAlreadyInActiveTierError") => Ok(ThawAnswer::Readable),
                _ => Err(told(error)),
            },
        }
    }
}

/// What class and status of an object in a listing say, and whether that is all there is to know.
fn listed(class: Option<&ObjectStorageClass>, status: Option<&RestoreStatus>) -> (Frost, bool) {
    let archive = match class {
        Some(ObjectStorageClass::Glacier) => Archive::Glacier,
        Some(ObjectStorageClass::DeepArchive) => Archive::Deep,
        Some(ObjectStorageClass::IntelligentTiering) => return (Frost::Readable, false),
        _ => return (Frost::Readable, true),
    };
    match status {
        Some(status) if status.is_restore_in_progress == Some(true) => (Frost::Thawing(archive), true),
        Some(status) if status.restore_expiry_date.is_some() => (Frost::Readable, true),
        _ => (Frost::Frozen(archive), false),
    }
}
