//! What the store crate cannot ask of S3, by `aws-sdk-s3`: locks and versions, and in `thaw` archives.
//!
//! Requests are repeated by [`super::retry`] alone, and errors are told in the store crate's words, so that `classify`
//! judges them like all others. Locked puts stand below the store crate's trait: wrappers, conditions, counters and the
//! comparison after a lost answer see no difference.

use std::{error::Error, fmt, ops::Range, sync::Arc};

use async_trait::async_trait;
use aws_credential_types::{
    Credentials,
    provider::{ProvideCredentials, SharedCredentialsProvider, error::CredentialsError, future},
};
use aws_sdk_s3::{
    Client,
    config::{
        IdentityCache, StalledStreamProtectionConfig, http::HttpResponse, retry::RetryConfig, timeout::TimeoutConfig,
    },
    error::{ProvideErrorMetadata, SdkError},
    primitives::{ByteStream, DateTime},
    types::{
        ChecksumAlgorithm, MetadataDirective, ObjectLockLegalHoldStatus, ObjectLockMode, ObjectLockRetention,
        ObjectLockRetentionMode,
    },
};
use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::{
    CopyOptions, CredentialProvider, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result,
    client::{HttpError, HttpErrorKind},
    path::Path,
};

use super::{
    Key, ObjectVersion, StoreError, StoreOptions,
    classify::{Reason, chain_text, find},
    credentials::AwsCredentials,
    error::Cause,
    refusal::{Refusal, seconds, short},
    versions::VersionPage,
};
use crate::model::{LockMode, Retention, Timestamp};

/// What a bucket is asked for that concerns locks and versions. Keys are those within the repository.
#[async_trait]
pub(super) trait Locks: Send + Sync {
    /// Asks for the lock of an object's present version, or of version `version`.
    async fn retention(&self, key: &str, version: Option<&str>) -> Result<Option<Retention>>;

    /// Asks whether somebody has placed a legal hold on the object's present version.
    async fn legal_hold(&self, key: &str) -> Result<bool>;

    /// Locks an object's present version, or version `version`, until a later time.
    async fn extend(&self, key: &str, version: Option<&str>, retention: Retention) -> Result<()>;

    /// Makes a version the present one, by a copy within the store.
    async fn copy_version(&self, key: &str, version: &str, retention: Option<Retention>) -> Result<()>;

    /// Removes a version or a delete marker for good.
    async fn delete_version(&self, key: &str, version: &str) -> Result<()>;

    /// A page of all versions whose keys begin with `prefix`, from `start` on.
    async fn version_page(&self, prefix: &str, start: Option<&(String, Option<String>)>) -> Result<VersionPage>;

    /// Asks whether the bucket has object lock; where that is not told, it may have.
    async fn bucket_may_lock(&self) -> Result<bool>;
}

/// A client for what concerns locks, and the place of the repository.
pub(super) struct Locker {
    pub(super) client: Client,
    pub(super) bucket: String,
    /// Put before every key: empty, or a path with a slash at its end.
    pub(super) prefix: String,
    sha256: bool,
}

impl Locker {
    /// A client with the settings of `sdk`, `credentials` that are renewed with those of all other requests, and neither
    /// repetitions nor limits of its own.
    pub(super) fn new(
        sdk: aws_sdk_s3::config::Builder,
        credentials: Arc<AwsCredentials>,
        (bucket, prefix): (&str, &str),
        options: &StoreOptions,
    ) -> Locker {
        let timeouts = TimeoutConfig::builder().connect_timeout(options.retry.connect_max);
        let config = sdk
            .credentials_provider(SharedCredentialsProvider::new(Kept(credentials)))
            .identity_cache(IdentityCache::no_cache())
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts.disable_operation_attempt_timeout().build())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
        let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        let client = Client::from_conf(config.build());
        Locker { client, bucket: bucket.to_owned(), prefix, sha256: options.upload_checksum }
    }

    pub(super) fn full(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    /// Puts an object with its lock in one request; `key` is the whole key.
    async fn put(&self, key: &str, payload: &PutPayload, mode: &PutMode, retention: Retention) -> Result<PutResult> {
        let body = match payload.as_ref() {
            [one] => one.clone(),
            parts => parts.concat().into(),
        };
        // Where object lock is on, S3 takes no object without a checksum: the client adds one of its own choice.
        let answer = self
            .client
            .put_object()
            .bucket(&self.bucket)
            .key(key)
            .set_if_none_match(matches!(mode, PutMode::Create).then(|| "*".to_owned()))
            .set_checksum_algorithm(self.sha256.then_some(ChecksumAlgorithm::Sha256))
            .object_lock_mode(lock_mode(retention.mode))
            .object_lock_retain_until_date(DateTime::from_secs(retention.until.0.as_second()))
            .body(ByteStream::from(body))
            .send()
            .await
            .map_err(told)?;
        Ok(PutResult { e_tag: answer.e_tag, version: answer.version_id, extensions: Default::default() })
    }
}

#[async_trait]
impl Locks for Locker {
    async fn retention(&self, key: &str, version: Option<&str>) -> Result<Option<Retention>> {
        let request = self.client.get_object_retention().bucket(&self.bucket).key(self.full(key));
        let answer = match request.set_version_id(version.map(str::to_owned)).send().await {
            Ok(answer) => answer,
            Err(error) if has_no_lock(&error) => return Ok(None),
            Err(error) => return Err(told(error)),
        };
        let Some(ObjectLockRetention { mode, retain_until_date: Some(until), .. }) = answer.retention else {
            return Ok(None);
        };
        let until = jiff::Timestamp::from_second(until.secs()).unwrap_or(jiff::Timestamp::MAX);
        // A mode that is not known is taken for the one that nobody lifts.
        let governance = mode == Some(ObjectLockRetentionMode::Governance);
        let mode = if governance { LockMode::Governance } else { LockMode::Compliance };
        Ok(Some(Retention { mode, until: Timestamp(until) }))
    }

    async fn legal_hold(&self, key: &str) -> Result<bool> {
        let request = self.client.get_object_legal_hold().bucket(&self.bucket).key(self.full(key));
        match request.send().await {
            Ok(answer) => {
                let status = answer.legal_hold.and_then(|hold| hold.status);
                Ok(status == Some(ObjectLockLegalHoldStatus::On))
            }
            Err(error) if has_no_lock(&error) => Ok(false),
            Err(error) => Err(told(error)),
        }
    }

    async fn extend(&self, key: &str, version: Option<&str>, retention: Retention) -> Result<()> {
        let lock = ObjectLockRetention::builder()
            .mode(match retention.mode {
                LockMode::Compliance => ObjectLockRetentionMode::Compliance,
                LockMode::Governance => ObjectLockRetentionMode::Governance,
            })
            .retain_until_date(DateTime::from_secs(retention.until.0.as_second()))
            .build();
        let request = self.client.put_object_retention().bucket(&self.bucket).key(self.full(key)).retention(lock);
        request.set_version_id(version.map(str::to_owned)).send().await.map(drop).map_err(told)
    }

    async fn copy_version(&self, key: &str, version: &str, retention: Option<Retention>) -> Result<()> {
        let key = self.full(key);
        let source = format!("{}/{}?versionId={}", self.bucket, encoded(&key), encoded(version));
        let request = self.client.copy_object().bucket(&self.bucket).key(&key).copy_source(source);
        // Some stores copy an object over itself only when something changes; of metadata there is none.
        let request = request.metadata_directive(MetadataDirective::Replace);
        let request = request.set_object_lock_mode(retention.map(|retention| lock_mode(retention.mode)));
        let until = retention.map(|retention| DateTime::from_secs(retention.until.0.as_second()));
        let request = request.set_object_lock_retain_until_date(until);
        request.send().await.map(drop).map_err(told)
    }

    async fn delete_version(&self, key: &str, version: &str) -> Result<()> {
        let request = self.client.delete_object().bucket(&self.bucket).key(self.full(key)).version_id(version);
        request.send().await.map(drop).map_err(told)
    }

    async fn version_page(&self, prefix: &str, start: Option<&(String, Option<String>)>) -> Result<VersionPage> {
        let request = self.client.list_object_versions().bucket(&self.bucket).prefix(self.full(prefix));
        let request = request.set_key_marker(start.map(|(key, _)| key.clone()));
        let request = request.set_version_id_marker(start.and_then(|(_, version)| version.clone()));
        let answer = request.send().await.map_err(told)?;
        let next = answer.next_key_marker.filter(|_| answer.is_truncated == Some(true));
        let next = next.map(|key| (key, answer.next_version_id_marker));
        let made = |key: Option<String>, version: Option<String>, stored: Option<DateTime>| {
            let stored = jiff::Timestamp::from_second(stored?.secs()).ok()?;
            let key = Key::new(key?.strip_prefix(&self.prefix)?).ok()?;
            Some((key, version?, Timestamp(stored)))
        };
        let objects = answer.versions.into_iter().flatten().filter_map(|found| {
            let (key, version, last_modified) = made(found.key, found.version_id, found.last_modified)?;
            let size = u64::try_from(found.size.unwrap_or_default()).unwrap_or_default();
            let is_latest = found.is_latest == Some(true);
            Some(ObjectVersion { key, version, is_marker: false, is_latest, size, last_modified })
        });
        let markers = answer.delete_markers.into_iter().flatten().filter_map(|found| {
            let (key, version, last_modified) = made(found.key, found.version_id, found.last_modified)?;
            let is_latest = found.is_latest == Some(true);
            Some(ObjectVersion { key, version, is_marker: true, is_latest, size: 0, last_modified })
        });
        let mut versions: Vec<_> = objects.chain(markers).collect();
        versions.sort_by(|one, other| one.key.cmp(&other.key));
        Ok(VersionPage { versions, next })
    }

    async fn bucket_may_lock(&self) -> Result<bool> {
        match self.client.get_object_lock_configuration().bucket(&self.bucket).send().await {
            Ok(answer) => {
                let enabled = answer.object_lock_configuration.and_then(|lock| lock.object_lock_enabled);
                Ok(enabled.is_some())
            }
            Err(error) if has_no_lock(&error) => Ok(false),
            Err(error) => Err(told(error)),
        }
    }
}

fn lock_mode(mode: LockMode) -> ObjectLockMode {
    match mode {
        LockMode::Compliance => ObjectLockMode::Compliance,
        LockMode::Governance => ObjectLockMode::Governance,
    }
}

/// Percent-encoded, but for slashes.
fn encoded(text: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(byte);
    text.bytes().map(|byte| if plain(&byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// True for the answers by which S3 and its imitators say that there is no lock.
fn has_no_lock<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> bool {
    let SdkError::ServiceError(answer) = error else { return false };
    match answer.err().code() {
        Some(
            "NoSuchObjectLockConfiguration"
            | "ObjectLockConfigurationNotFoundError"
            | "NotImplemented"
            | "MethodNotAllowed",
        ) => true,
        // "Bucket is missing Object Lock Configuration".
        Some("InvalidRequest") => answer.err().message().is_some_and(|text| text.contains("Object Lock")),
        _ => answer.raw().status().as_u16() == 501,
    }
}

/// The error in the store crate's words.
pub(super) fn told<E>(error: SdkError<E, HttpResponse>) -> object_store::Error
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    let source: Cause = match error {
        SdkError::ServiceError(answer) => Box::new(refusal(answer.err(), answer.raw())),
        // Credentials are fetched inside a request, and their failure is told as such.
        error if find::<StoreError>(&error).is_some() => Box::new(error),
        error => Box::new(HttpError::new(HttpErrorKind::Connect, Reason(chain_text(&error)))),
    };
    object_store::Error::Generic { store: "S3", source }
}

fn refusal<E: ProvideErrorMetadata>(error: &E, answer: &HttpResponse) -> Refusal {
    let header = |name: &str| answer.headers().get(name).map(short);
    Refusal {
        status: answer.status().as_u16(),
        code: error.code().map(short),
        message: error.message().map(short),
        region: header("x-amz-bucket-region"),
        request_id: header("x-amz-request-id"),
        retry_after: answer.headers().get("retry-after").and_then(seconds),
    }
}

/// The credentials of all other requests.
#[derive(Debug)]
struct Kept(Arc<AwsCredentials>);

impl ProvideCredentials for Kept {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async {
            let kept = self.0.get_credential().await.map_err(CredentialsError::provider_error)?;
            Ok(Credentials::new(&kept.key_id, &kept.secret_key, kept.token.clone(), None, "haulout"))
        })
    }
}

/// The store crate's S3 store, but for puts that carry a [`Retention`] among their extensions.
#[derive(Debug)]
pub(super) struct LockingStore<S> {
    inner: S,
    locker: Arc<Locker>,
}

impl<S> LockingStore<S> {
    pub(super) fn new(inner: S, locker: Arc<Locker>) -> LockingStore<S> {
        LockingStore { inner, locker }
    }
}

impl fmt::Debug for Locker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Locker").field("bucket", &self.bucket).field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

impl<S: fmt::Display> fmt::Display for LockingStore<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
impl<S: ObjectStore> ObjectStore for LockingStore<S> {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        match options.extensions.get::<Retention>() {
            Some(retention) => self.locker.put(location.as_ref(), &payload, &options.mode, *retention).await,
            None => self.inner.put_opts(location, payload, options).await,
        }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.inner.rename_opts(from, to, options).await
    }
}
