//! From a URL and settings to a store.

use std::{io, path::Path, sync::Arc};

use aws_config::{
    BehaviorVersion, SdkConfig, environment::EnvironmentVariableRegionProvider, meta::region::RegionProviderChain,
    profile::ProfileFileRegionProvider, timeout::TimeoutConfig,
};
use aws_credential_types::{Credentials, provider::SharedCredentialsProvider};
use aws_sdk_s3::config::{Region, SharedHttpClient};
use aws_smithy_http_client::{Connector, proxy::ProxyConfig, tls};
use aws_types::service_config::ServiceConfigKey;
use object_store::{
    Certificate, ClientConfigKey, ClientOptions, ObjectStore, RetryConfig,
    aws::{AmazonS3Builder, Checksum},
    azure::MicrosoftAzureBuilder,
    client::HttpConnector,
    gcp::GoogleCloudStorageBuilder,
    local::LocalFileSystem,
    memory::InMemory,
    prefix::PrefixStore,
};
use url::Url;

use super::{
    Store, StoreError, StoreOptions, StoreUrl,
    classify::{Attempt, Reason, chain_text},
    client::{Directory, Parts},
    credentials::AwsCredentials,
    error::{Action, Cause, Origin},
    locker::{Locker, LockingStore},
    refusal::RefusalConnector,
    url::{BucketPrefix, Location},
};

/// Region that is signed for where no one names one: most compatible stores take it, and S3 itself names the right one.
const REGION_DEFAULT: &str = "us-east-1";

/// Opens the store at `url`. A bucket is not contacted yet, its credentials are fetched.
///
/// # Errors
/// [`StoreError::NoDirectory`] when a `file://` directory is missing and not to be created,
/// [`StoreError::NoCredentials`], [`StoreError::BadOptions`].
pub async fn open(url: &StoreUrl, options: &StoreOptions) -> Result<Store, StoreError> {
    open_wrapped(url, options, |objects| objects).await
}

/// Opens the store at `url` with a wrapper around it, such as [`super::faulty::FaultyStore`].
///
/// # Errors
/// Those of [`open`].
pub async fn open_wrapped(
    url: &StoreUrl,
    options: &StoreOptions,
    wrap: impl FnOnce(Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore>,
) -> Result<Store, StoreError> {
    let origin = Origin { url: url.to_string(), ..Origin::default() };
    let mut parts = match url.location() {
        Location::S3(place) => open_s3(place, origin, options).await?,
        Location::Google(place) => open_google(place, origin, options).await?,
        Location::Azure(place) => open_azure(place, origin, options).await?,
        Location::Directory(directory) => open_directory(directory, origin, options)?,
        Location::Memory(_) => Parts::plain(Arc::new(InMemory::new()), origin, String::new()),
    };
    parts.objects = wrap(parts.objects);
    Ok(Store::new(parts, options.clone()))
}

async fn open_s3(place: &BucketPrefix, mut origin: Origin, options: &StoreOptions) -> Result<Parts, StoreError> {
    let ca = read_ca(options).await?;
    // The client of the AWS chain panics over a certificate that this one refuses.
    RefusalConnector
        .connect(&client_options(options, None, ca.as_deref())?)
        .map_err(|error| bad_store(&origin, &error))?;
    let sdk = load_aws(options, ca.as_deref()).await;
    let endpoint = match &options.endpoint {
        Some(endpoint) => Some(endpoint.clone()),
        None => configured_endpoint(&sdk)?,
    };
    if let Some(endpoint) = &endpoint {
        check_endpoint(endpoint)?;
    }
    let provider = sdk.credentials_provider().ok_or_else(|| StoreError::NoCredentials {
        url: origin.url.clone(),
        source: Box::new(Reason("the AWS configuration has none".to_owned())),
    })?;
    let credentials = Arc::new(AwsCredentials::new(provider.clone(), options.clock.clone(), origin.url.clone()));
    let told = credentials.told().await?;
    origin.credentials = Some(match &options.profile {
        Some(profile) => format!("{told} (profile {profile})"),
        None => told,
    });
    let region = match sdk.region() {
        Some(region) => region.to_string(),
        None => machine_region(&origin, endpoint.is_some()).await.unwrap_or_else(|| REGION_DEFAULT.to_owned()),
    };
    // A dot in the bucket's name breaks the certificate of a host that begins with it.
    let path_style = options.path_style.unwrap_or(endpoint.is_some() || place.bucket.contains('.'));
    origin.region = Some(region.clone());
    origin.endpoint = endpoint.as_ref().map(|endpoint| endpoint.as_str().trim_end_matches('/').to_owned());

    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(&place.bucket)
        .with_region(&region)
        .with_credentials(credentials.clone())
        .with_virtual_hosted_style_request(!path_style)
        // One request for one object is what every compatible store knows.
        .with_disable_bulk_delete(true)
        .with_retry(no_retries())
        .with_client_options(client_options(options, endpoint.as_ref(), ca.as_deref())?)
        .with_http_connector(RefusalConnector);
    if options.upload_checksum {
        builder = builder.with_checksum_algorithm(Checksum::SHA256);
    }
    if let Some(endpoint) = &endpoint {
        builder = builder.with_endpoint(bucket_endpoint(endpoint, &place.bucket, path_style)?);
    }
    let objects = builder.build().map_err(|error| bad_store(&origin, &error))?;

    let mut bucket = aws_sdk_s3::config::Builder::from(&sdk)
        .region(Region::new(region))
        .credentials_provider(provider)
        .force_path_style(path_style)
        .http_client(proxied_client(ca.as_deref()));
    if let Some(endpoint) = &origin.endpoint {
        bucket = bucket.endpoint_url(endpoint);
    }
    let locker = Locker::new(bucket.clone(), credentials.clone(), (&place.bucket, &place.prefix), options);
    let locker = Arc::new(locker);
    let bucket = aws_sdk_s3::Client::from_conf(bucket.build());
    Ok(Parts {
        objects: prefixed(LockingStore::new(objects, locker.clone()), &place.prefix),
        origin,
        credentials: Some(credentials),
        bucket: Some(bucket),
        bucket_name: place.bucket.clone(),
        locker: Some(locker.clone()),
        archives: Some(locker),
        directory: None,
    })
}

/// Loads the AWS configuration: environment, shared files, and whatever the credential chain needs.
async fn load_aws(options: &StoreOptions, ca: Option<&[u8]>) -> SdkConfig {
    let mut profile_region = ProfileFileRegionProvider::builder();
    let mut loader = aws_config::defaults(BehaviorVersion::latest()).timeout_config(
        TimeoutConfig::builder()
            .connect_timeout(options.retry.connect_max)
            .operation_attempt_timeout(options.retry.silence_max)
            .build(),
    );
    if let Some(profile) = &options.profile {
        loader = loader.profile_name(profile);
        profile_region = profile_region.profile_name(profile);
    }
    // Not the default chain: it asks the instance metadata service, for seconds where there is none.
    loader = match &options.region {
        Some(region) => loader.region(Region::new(region.clone())),
        None => loader.region(
            RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new()).or_else(profile_region.build()),
        ),
    };
    if let Some(key) = &options.access_key {
        let token = key.session_token.as_ref().map(|token| token.reveal().to_owned());
        let given = Credentials::new(&key.id, key.secret.reveal(), token, None, "settings");
        loader = loader.credentials_provider(SharedCredentialsProvider::new(given));
    }
    if let Some(context) = ca.and_then(|ca| tls_context(Some(ca))) {
        let client = aws_smithy_http_client::Builder::new()
            .tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::AwsLc))
            .tls_context(context)
            .build_https();
        loader = loader.http_client(client);
    }
    loader.load().await
}

/// Building a context cannot fail; the certificates are loaded when a client is made.
fn tls_context(ca: Option<&[u8]>) -> Option<tls::TlsContext> {
    let trusted = tls::TrustStore::default();
    let trusted = match ca {
        Some(ca) => trusted.with_pem_certificate(ca),
        None => trusted,
    };
    tls::TlsContext::builder().with_trust_store(trusted).build().ok()
}

/// An HTTP client for S3 that goes by the proxy variables, as the store crate's does and that of the AWS crates does not.
/// Credentials are fetched without: the machine's metadata service stands behind no proxy.
fn proxied_client(ca: Option<&[u8]>) -> SharedHttpClient {
    let context = tls_context(ca).unwrap_or_default();
    aws_smithy_http_client::Builder::new().build_with_connector_fn(move |settings, _| {
        let mut connector = Connector::builder()
            .tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::AwsLc))
            .tls_context(context.clone())
            .proxy_config(ProxyConfig::from_env());
        connector.set_connector_settings(settings.cloned());
        connector.build()
    })
}

/// The endpoint of `AWS_ENDPOINT_URL_S3`, `AWS_ENDPOINT_URL` or their like in the profile.
fn configured_endpoint(sdk: &SdkConfig) -> Result<Option<Url>, StoreError> {
    let key = ServiceConfigKey::builder().service_id("S3").env("AWS_ENDPOINT_URL").profile("endpoint_url").build();
    let of_s3 = match (sdk.service_config(), key) {
        (Some(config), Ok(key)) => config.load_config(key),
        _ => None,
    };
    let Some(text) = of_s3.or_else(|| sdk.endpoint_url().map(str::to_owned)) else {
        return Ok(None);
    };
    match text.parse() {
        Ok(endpoint) => Ok(Some(endpoint)),
        Err(error) => Err(StoreError::BadOptions {
            what: "the endpoint in the AWS environment or profile is not a URL".to_owned(),
            hint: "correct AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL or endpoint_url",
            source: Some(Box::new(error)),
        }),
    }
}

/// The region of the machine, asked only where the machine gave the credentials.
async fn machine_region(origin: &Origin, has_endpoint: bool) -> Option<String> {
    let on_machine = origin.credentials.as_ref().is_some_and(|told| told.starts_with("the machine's role"));
    if has_endpoint || !on_machine {
        return None;
    }
    let provider = aws_config::imds::region::ImdsRegionProvider::builder().build();
    Some(provider.region().await?.to_string())
}

fn check_endpoint(endpoint: &Url) -> Result<(), StoreError> {
    let bad = |what: &str| StoreError::BadOptions {
        what: format!("the endpoint {what}"),
        hint: "write https://host or http://host:port",
        source: None,
    };
    if !matches!(endpoint.scheme(), "http" | "https") || endpoint.host_str().is_none() {
        return Err(bad("is not an http or https URL"));
    }
    if !endpoint.username().is_empty() || endpoint.password().is_some() {
        return Err(bad("holds a user or a secret"));
    }
    if endpoint.query().is_some() || endpoint.fragment().is_some() {
        return Err(bad("has a query or a fragment"));
    }
    Ok(())
}

/// The endpoint as the store crate wants it: with the bucket in the host where it is to be there.
fn bucket_endpoint(endpoint: &Url, bucket: &str, path_style: bool) -> Result<String, StoreError> {
    let mut endpoint = endpoint.clone();
    if !path_style {
        let host = format!("{bucket}.{}", endpoint.host_str().unwrap_or_default());
        endpoint.set_host(Some(&host)).map_err(|error| StoreError::BadOptions {
            what: format!("bucket {bucket} cannot stand before the host of {endpoint}"),
            hint: "turn path style on",
            source: Some(Box::new(error)),
        })?;
    }
    Ok(endpoint.as_str().trim_end_matches('/').to_owned())
}

async fn open_google(place: &BucketPrefix, mut origin: Origin, options: &StoreOptions) -> Result<Parts, StoreError> {
    let ca = read_ca(options).await?;
    let mut builder = GoogleCloudStorageBuilder::from_env()
        .with_bucket_name(&place.bucket)
        .with_retry(no_retries())
        .with_client_options(client_options(options, options.endpoint.as_ref(), ca.as_deref())?)
        .with_http_connector(RefusalConnector);
    if let Some(endpoint) = &options.endpoint {
        check_endpoint(endpoint)?;
        builder = builder.with_base_url(endpoint.as_str().trim_end_matches('/'));
    }
    origin.endpoint = options.endpoint.as_ref().map(Url::to_string);
    let objects = builder.build().map_err(|error| bad_store(&origin, &error))?;
    Ok(Parts::plain(prefixed(objects, &place.prefix), origin, place.bucket.clone()))
}

async fn open_azure(place: &BucketPrefix, mut origin: Origin, options: &StoreOptions) -> Result<Parts, StoreError> {
    let ca = read_ca(options).await?;
    let mut builder = MicrosoftAzureBuilder::from_env()
        .with_container_name(&place.bucket)
        .with_retry(no_retries())
        .with_client_options(client_options(options, options.endpoint.as_ref(), ca.as_deref())?)
        .with_http_connector(RefusalConnector);
    if let Some(endpoint) = &options.endpoint {
        check_endpoint(endpoint)?;
        builder = builder.with_endpoint(endpoint.as_str().trim_end_matches('/').to_owned());
    }
    origin.endpoint = options.endpoint.as_ref().map(Url::to_string);
    let objects = builder.build().map_err(|error| bad_store(&origin, &error))?;
    Ok(Parts::plain(prefixed(objects, &place.prefix), origin, place.bucket.clone()))
}

fn open_directory(directory: &Path, origin: Origin, options: &StoreOptions) -> Result<Parts, StoreError> {
    let attempt = Attempt {
        action: if options.create_directory { Action::Store } else { Action::Look },
        what: "the directory".to_owned(),
        origin: Arc::new(origin.clone()),
    };
    let failed = |error: io::Error| {
        if error.kind() == io::ErrorKind::NotFound {
            return StoreError::NoDirectory { directory: directory.to_owned() };
        }
        attempt.classify(object_store::Error::Generic { store: "file", source: Box::new(error) }).error
    };
    if options.create_directory {
        create_directory(directory).map_err(failed)?;
    }
    if !std::fs::metadata(directory).map_err(failed)?.is_dir() {
        return Err(StoreError::BadOptions {
            what: format!("{} is not a directory", directory.display()),
            hint: "name a directory",
            source: None,
        });
    }
    let opened = Directory::open(directory.to_owned()).map_err(failed)?;
    let objects = LocalFileSystem::new_with_prefix(directory).map_err(|error| attempt.classify(error).error)?;
    Ok(Parts { directory: Some(opened), ..Parts::plain(Arc::new(objects.with_fsync(true)), origin, String::new()) })
}

/// Creates `directory` and those above it, each one's entry made durable.
fn create_directory(directory: &Path) -> io::Result<()> {
    let mut missing = Vec::new();
    let mut next = Some(directory);
    while let Some(path) = next.filter(|path| !path.exists()) {
        missing.push(path);
        next = path.parent();
    }
    for path in missing.into_iter().rev() {
        match std::fs::create_dir(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        if let Some(parent) = path.parent() {
            std::fs::File::open(parent)?.sync_all()?;
        }
    }
    Ok(())
}

fn prefixed(objects: impl ObjectStore, prefix: &str) -> Arc<dyn ObjectStore> {
    // Parsed when the URL was; taken as it stands, where `Path::from` would encode it.
    match object_store::path::Path::parse(prefix) {
        Ok(path) if !prefix.is_empty() => Arc::new(PrefixStore::new(objects, path)),
        _ => Arc::new(objects),
    }
}

/// No repetition inside the store crate: see [`super::retry`].
fn no_retries() -> RetryConfig {
    RetryConfig { max_retries: 0, ..RetryConfig::default() }
}

fn client_options(
    options: &StoreOptions,
    endpoint: Option<&Url>,
    ca: Option<&[u8]>,
) -> Result<ClientOptions, StoreError> {
    let mut client = ClientOptions::new()
        .with_config(ClientConfigKey::UserAgent, concat!("haulout/", env!("CARGO_PKG_VERSION")))
        .with_connect_timeout(options.retry.connect_max)
        // Its timeout knows nothing of sizes; ours are in `client`.
        .with_timeout_disabled()
        .with_allow_http(endpoint.is_some_and(|endpoint| endpoint.scheme() == "http"));
    for certificate in ca.map(certificates).transpose()?.unwrap_or_default() {
        client = client.with_root_certificate(certificate);
    }
    Ok(client)
}

async fn read_ca(options: &StoreOptions) -> Result<Option<Vec<u8>>, StoreError> {
    let Some(file) = &options.ca_file else {
        return Ok(None);
    };
    let pem = tokio::fs::read(file).await.map_err(|error| StoreError::BadOptions {
        what: format!("cannot read the file of certificates {}", file.display()),
        hint: "name a readable PEM file",
        source: Some(Box::new(error)),
    })?;
    certificates(&pem)?;
    Ok(Some(pem))
}

fn certificates(pem: &[u8]) -> Result<Vec<Certificate>, StoreError> {
    let bad = |source: Option<Cause>| StoreError::BadOptions {
        what: "the file of certificates holds none".to_owned(),
        hint: "name a file with certificates in PEM form",
        source,
    };
    let found = Certificate::from_pem_bundle(pem).map_err(|error| bad(Some(Box::new(error))))?;
    if found.is_empty() { Err(bad(None)) } else { Ok(found) }
}

fn bad_store(origin: &Origin, error: &object_store::Error) -> StoreError {
    StoreError::BadOptions {
        what: format!("cannot make a client for {}", origin.url),
        hint: "check the settings of the store and the credentials in the environment",
        source: Some(Box::new(Reason(chain_text(error)))),
    }
}
