//! An S3-compatible store for the tests: one for the whole process, a bucket for each test.

use std::{
    path::Path,
    process::{self, Command},
    sync::{
        LazyLock, OnceLock,
        atomic::{AtomicU32, Ordering},
    },
};

use aws_sdk_s3::{
    Client,
    config::Region,
    error::ProvideErrorMetadata,
    primitives::{ByteStream, DateTime},
    types::{
        DefaultRetention, MetadataDirective, ObjectLockConfiguration, ObjectLockEnabled, ObjectLockRetention,
        ObjectLockRetentionMode, ObjectLockRule, RestoreRequest, StorageClass,
    },
};
use tokio::runtime::Runtime;

/// What the store accepts as key and as secret.
const KEY: &str = "test";
const REGION: &str = "us-east-1";

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime")
});

/// The store: the one that `integration/test.sh` started, or one that ends with this process.
#[derive(Debug)]
pub struct LocalStack {
    endpoint: String,
}

impl LocalStack {
    /// The store of this process, started when it is first wanted.
    pub fn shared() -> &'static LocalStack {
        static SHARED: OnceLock<LocalStack> = OnceLock::new();
        SHARED.get_or_init(|| match std::env::var("HAULOUT_TEST_S3_ENDPOINT") {
            Ok(endpoint) => LocalStack { endpoint },
            Err(_) => LocalStack { endpoint: start() },
        })
    }

    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Host and port of the endpoint.
    pub fn address(&self) -> &str {
        self.endpoint.trim_start_matches("http://").trim_end_matches('/')
    }

    /// Makes a bucket that no other test uses.
    pub fn bucket(&self) -> Bucket {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("haulout-{}-{}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        self.named(name, false)
    }

    /// The same with object lock, and so with versions: each object is kept for a day, unless someone may set that aside.
    pub fn locked_bucket(&self) -> Bucket {
        let bucket = self.named(format!("haulout-{}-locked", process::id()), true);
        let days = DefaultRetention::builder().days(1).mode(ObjectLockRetentionMode::Governance).build();
        let rule = ObjectLockRule::builder().default_retention(days).build();
        let lock =
            ObjectLockConfiguration::builder().object_lock_enabled(ObjectLockEnabled::Enabled).rule(rule).build();
        let request = bucket.client.put_object_lock_configuration().bucket(&bucket.name);
        RUNTIME.block_on(request.object_lock_configuration(lock).send()).expect("objects can be locked");
        bucket
    }

    /// The same with object lock and versions, and nothing locked by itself.
    pub fn bucket_with_locks(&self) -> Bucket {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("haulout-{}-locks-{}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        self.named(name, true)
    }

    fn named(&self, name: String, locked: bool) -> Bucket {
        let bucket = Bucket { client: client(&self.endpoint), endpoint: self.endpoint.clone(), name };
        let request = bucket.client.create_bucket().bucket(&bucket.name);
        let request = if locked { request.object_lock_enabled_for_bucket(true) } else { request };
        RUNTIME.block_on(request.send()).expect("a bucket can be made");
        bucket
    }
}

/// A version of an object, or a delete marker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    pub key: String,
    pub id: String,
    pub is_marker: bool,
    pub is_latest: bool,
}

/// A bucket, looked at and changed behind haulout's back.
#[derive(Debug)]
pub struct Bucket {
    client: Client,
    endpoint: String,
    name: String,
}

impl Bucket {
    pub fn name(&self) -> &str {
        &self.name
    }

    /// URL of a repository in the bucket.
    pub fn url(&self, prefix: &str) -> String {
        format!("s3://{}/{prefix}", self.name)
    }

    /// Environment in which haulout finds the store and may use it.
    pub fn environment(&self) -> [(&'static str, String); 4] {
        environment(&self.endpoint)
    }

    /// Keys that begin with `prefix`, in the store's order. At most 1000: no test here has more.
    pub fn keys(&self, prefix: &str) -> Vec<String> {
        let request = self.client.list_objects_v2().bucket(&self.name).prefix(prefix);
        let listing = RUNTIME.block_on(request.send()).expect("the bucket can be listed");
        assert_ne!(listing.is_truncated(), Some(true), "more than 1000 keys");
        listing.contents().iter().filter_map(|object| object.key()).map(str::to_owned).collect()
    }

    /// Deletes the bucket with all that is in it; it has no versions.
    pub fn destroy(self) {
        loop {
            let keys = self.keys("");
            if keys.is_empty() {
                break;
            }
            keys.iter().for_each(|key| self.delete(key));
        }
        RUNTIME.block_on(self.client.delete_bucket().bucket(&self.name).send()).expect("the bucket can be deleted");
    }

    pub fn get(&self, key: &str) -> Vec<u8> {
        RUNTIME.block_on(async {
            let answer =
                self.client.get_object().bucket(&self.name).key(key).send().await.expect("the object is there");
            answer.body.collect().await.expect("the object can be read").to_vec()
        })
    }

    pub fn put(&self, key: &str, bytes: Vec<u8>) {
        let request = self.client.put_object().bucket(&self.name).key(key).body(ByteStream::from(bytes));
        RUNTIME.block_on(request.send()).expect("the object can be put");
    }

    /// Moves an object to an archive, as a lifecycle rule would: it cannot be read until it is thawed.
    pub fn archive(&self, key: &str, class: &str) {
        // What is archived is not copied before it is thawed.
        self.thaw_if_archived(key);
        let request = self.client.copy_object().bucket(&self.name).key(key).copy_source(format!("{}/{key}", self.name));
        let request = request.storage_class(StorageClass::from(class)).metadata_directive(MetadataDirective::Replace);
        RUNTIME.block_on(request.send()).expect("the object can be archived");
        assert_eq!(self.class(key), (class.to_owned(), None));
    }

    fn thaw_if_archived(&self, key: &str) {
        let (class, restore) = self.class(key);
        if ["GLACIER", "DEEP_ARCHIVE"].contains(&class.as_str()) && restore.is_none() {
            self.thaw(key);
        }
    }

    /// Storage class of an object, and what is said of its thawing.
    pub fn class(&self, key: &str) -> (String, Option<String>) {
        let request = self.client.head_object().bucket(&self.name).key(key);
        let answer = RUNTIME.block_on(request.send()).expect("the object is there");
        let class = answer.storage_class.map_or_else(|| "STANDARD".to_owned(), |class| class.as_str().to_owned());
        (class, answer.restore)
    }

    /// Thaws an archived object for a day. Here that is done at once.
    pub fn thaw(&self, key: &str) {
        let request = self.client.restore_object().bucket(&self.name).key(key);
        let day = RestoreRequest::builder().days(1).build();
        RUNTIME.block_on(request.restore_request(day).send()).expect("the object can be thawed");
    }

    /// Versions and delete markers of all keys that begin with `prefix`, in the store's order. At most 1000.
    pub fn versions(&self, prefix: &str) -> Vec<Version> {
        let request = self.client.list_object_versions().bucket(&self.name).prefix(prefix);
        let listing = RUNTIME.block_on(request.send()).expect("the versions can be listed");
        assert_ne!(listing.is_truncated(), Some(true), "more than 1000 versions");
        let text = |text: Option<&str>| text.expect("a key and a version").to_owned();
        let objects = listing.versions().iter().map(|version| Version {
            key: text(version.key()),
            id: text(version.version_id()),
            is_marker: false,
            is_latest: version.is_latest() == Some(true),
        });
        let markers = listing.delete_markers().iter().map(|marker| Version {
            key: text(marker.key()),
            id: text(marker.version_id()),
            is_marker: true,
            is_latest: marker.is_latest() == Some(true),
        });
        objects.chain(markers).collect()
    }

    pub fn get_version(&self, version: &Version) -> Vec<u8> {
        RUNTIME.block_on(async {
            let request = self.client.get_object().bucket(&self.name).key(&version.key).version_id(&version.id);
            let answer = request.send().await.expect("the version is there");
            answer.body.collect().await.expect("the version can be read").to_vec()
        })
    }

    /// Mode and end of a version's lock in seconds since 1970; nothing where it has none.
    pub fn lock(&self, version: &Version) -> Option<(String, i64)> {
        let request = self.client.get_object_retention().bucket(&self.name).key(&version.key);
        let answer = RUNTIME.block_on(request.version_id(&version.id).send()).ok()?;
        let retention = answer.retention?;
        Some((retention.mode?.as_str().to_owned(), retention.retain_until_date?.secs()))
    }

    /// Sets a version's lock, by whoever may set aside governance.
    pub fn set_lock(&self, version: &Version, mode: &str, seconds: i64) {
        let lock =
            ObjectLockRetention::builder().mode(mode.into()).retain_until_date(DateTime::from_secs(seconds)).build();
        let request = self.client.put_object_retention().bucket(&self.name).key(&version.key).version_id(&version.id);
        RUNTIME.block_on(request.retention(lock).bypass_governance_retention(true).send()).expect("a lock can be set");
    }

    /// Deletes a version for good; the store's answer where it refuses.
    pub fn delete_version(&self, version: &Version) -> Result<(), String> {
        let request = self.client.delete_object().bucket(&self.name).key(&version.key).version_id(&version.id);
        let answer = RUNTIME.block_on(request.send());
        answer.map(drop).map_err(|error| error.code().unwrap_or("no code").to_owned())
    }

    pub fn delete(&self, key: &str) {
        let request = self.client.delete_object().bucket(&self.name).key(key);
        RUNTIME.block_on(request.send()).expect("the object can be deleted");
    }
}

/// Environment in which haulout finds the store at `endpoint`, which may be a [`super::FaultyPath`]'s.
pub fn environment(endpoint: &str) -> [(&'static str, String); 4] {
    [
        ("AWS_ENDPOINT_URL", endpoint.to_owned()),
        ("AWS_ACCESS_KEY_ID", KEY.to_owned()),
        ("AWS_SECRET_ACCESS_KEY", KEY.to_owned()),
        ("AWS_REGION", REGION.to_owned()),
    ]
}

fn client(endpoint: &str) -> Client {
    let config = aws_sdk_s3::Config::builder()
        .behavior_version_latest()
        .endpoint_url(endpoint)
        .region(Region::from_static(REGION))
        .credentials_provider(aws_credential_types::Credentials::new(KEY, KEY, None, None, "tests"))
        .force_path_style(true)
        .build();
    Client::from_conf(config)
}

/// Starts LocalStack; it ends soon after this process.
fn start() -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("localstack/run.sh");
    let own = format!("localstack-{}", process::id());
    let output = Command::new(&script)
        .args(["start", "--port", "0", "--until-exit-of", &process::id().to_string(), "--dir"])
        .arg(Path::new(env!("CARGO_TARGET_TMPDIR")).join(own))
        .output()
        .expect("localstack/run.sh can be run");
    assert!(output.status.success(), "{}: {}", script.display(), String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}
