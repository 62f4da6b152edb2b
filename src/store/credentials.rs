//! The AWS credential chain, handed to the store crate.
//!
//! `aws-config` knows environment, profiles, SSO, web identity (IRSA), processes, container and instance roles; the store
//! crate knows some of them, and no profiles. This adapter keeps what it fetched until shortly before it expires: a
//! backup runs for longer than temporary credentials live.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use aws_credential_types::{
    Credentials,
    credential_feature::AwsCredentialFeature as Feature,
    provider::{ProvideCredentials, SharedCredentialsProvider},
};
use object_store::{CredentialProvider, aws::AwsCredential};
use tokio::sync::Mutex;

use super::{
    StoreError,
    classify::{Reason, chain_text},
};
use crate::model::Clock;

/// Time before their end at which credentials are fetched anew: 5 minutes, more than any request and its repetitions
/// take, and than clocks are apart that a store still accepts.
const RENEW_BEFORE: Duration = Duration::from_secs(300);

/// Time for one fetch: 30 s, in which a role is assumed through two others.
const FETCH_TIME_MAX: Duration = Duration::from_secs(30);

/// Credentials of the AWS chain, fetched when needed and kept until they are about to expire.
pub(super) struct AwsCredentials {
    provider: SharedCredentialsProvider,
    clock: Arc<dyn Clock>,
    url: String,
    kept: Mutex<Option<Kept>>,
}

#[derive(Clone)]
struct Kept {
    credential: Arc<AwsCredential>,
    expiry: Option<SystemTime>,
    told: String,
}

impl std::fmt::Debug for AwsCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AwsCredentials").field("url", &self.url).finish_non_exhaustive()
    }
}

impl AwsCredentials {
    pub(super) fn new(provider: SharedCredentialsProvider, clock: Arc<dyn Clock>, url: String) -> AwsCredentials {
        AwsCredentials { provider, clock, url, kept: Mutex::new(None) }
    }

    /// Where the credentials come from and which they are, without the secret.
    ///
    /// # Errors
    /// [`StoreError::NoCredentials`] when there are none.
    pub(super) async fn told(&self) -> Result<String, StoreError> {
        Ok(self.current().await?.told)
    }

    /// Lets go of what is kept, after the store has said that it expired.
    pub(super) async fn forget(&self) {
        *self.kept.lock().await = None;
    }

    async fn current(&self) -> Result<Kept, StoreError> {
        // Held while fetching: many requests that need new credentials at once fetch them once.
        let mut kept = self.kept.lock().await;
        let now = SystemTime::from(self.clock.now().0);
        let lives = |kept: &Kept, margin| kept.expiry.is_none_or(|expiry| expiry > now + margin);
        if let Some(kept) = kept.as_ref().filter(|kept| lives(kept, RENEW_BEFORE)) {
            return Ok(kept.clone());
        }
        match (self.fetch().await, kept.as_ref()) {
            (Ok(fetched), _) => Ok(kept.insert(fetched).clone()),
            // What cannot be renewed yet serves until its last minute.
            (Err(_), Some(kept)) if lives(kept, Duration::ZERO) => Ok(kept.clone()),
            (Err(error), _) => Err(error),
        }
    }

    async fn fetch(&self) -> Result<Kept, StoreError> {
        let failed =
            |reason: String| StoreError::NoCredentials { url: self.url.clone(), source: Box::new(Reason(reason)) };
        let fetched = tokio::time::timeout(FETCH_TIME_MAX, self.provider.provide_credentials())
            .await
            .map_err(|_| failed(format!("no answer within {} s", FETCH_TIME_MAX.as_secs())))?
            .map_err(|error| failed(chain_text(&error)))?;
        let credential = AwsCredential {
            key_id: fetched.access_key_id().to_owned(),
            secret_key: fetched.secret_access_key().to_owned(),
            token: fetched.session_token().map(str::to_owned),
        };
        let told = format!("{}, access key {}", origin_of(&fetched), masked(fetched.access_key_id()));
        Ok(Kept { credential: Arc::new(credential), expiry: fetched.expiry(), told })
    }
}

#[async_trait]
impl CredentialProvider for AwsCredentials {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let kept = self.current().await;
        kept.map(|kept| kept.credential)
            .map_err(|error| object_store::Error::Generic { store: "S3", source: Box::new(error) })
    }
}

/// Where `aws-config` says that it found `credentials`; the last step of a chain of roles counts.
fn origin_of(credentials: &Credentials) -> &'static str {
    let features = credentials.get_property::<Vec<Feature>>();
    let last =
        features.and_then(|features| features.iter().rev().find(|feature| **feature != Feature::ResolvedAccountId));
    match last {
        None | Some(Feature::CredentialsCode) => "the settings",
        Some(Feature::CredentialsEnvVars) => "the environment",
        // The last of these also stands for a token that the environment names.
        Some(
            Feature::CredentialsEnvVarsStsWebIdToken
            | Feature::CredentialsStsAssumeRoleWebId
            | Feature::CredentialsProfileStsWebIdToken,
        ) => "a web identity token (IRSA)",
        Some(Feature::CredentialsStsAssumeRole) => "an assumed role",
        Some(
            Feature::CredentialsProfile
            | Feature::CredentialsProfileSourceProfile
            | Feature::CredentialsProfileNamedProvider,
        ) => "a profile",
        Some(Feature::CredentialsProfileSso | Feature::CredentialsSso) => "single sign-on",
        Some(Feature::CredentialsProfileProcess | Feature::CredentialsProcess) => "a credential process",
        Some(Feature::CredentialsHttp) => "the container's role",
        Some(Feature::CredentialsImds) => "the machine's role",
        Some(_) => "the AWS chain",
    }
}

/// The ends of an access key id, by which its owner knows it.
fn masked(id: &str) -> String {
    let characters: Vec<char> = id.chars().collect();
    if characters.len() < 12 {
        return id.to_owned();
    }
    let ends = |part: &[char]| part.iter().collect::<String>();
    format!("{}…{}", ends(&characters[..4]), ends(&characters[characters.len() - 4..]))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

    use aws_credential_types::provider::{error::CredentialsError, future};

    use super::*;
    use crate::model::Timestamp;

    /// Gives credentials that live for an hour, and fails when it is told to.
    #[derive(Debug, Default)]
    struct Hourly {
        fetched: AtomicU64,
        broken_from: AtomicU64,
        now: Arc<AtomicI64>,
    }

    impl ProvideCredentials for Hourly {
        fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
        where
            Self: 'a,
        {
            let number = self.fetched.fetch_add(1, Ordering::SeqCst) + 1;
            let broken_from = self.broken_from.load(Ordering::SeqCst);
            if broken_from != 0 && number >= broken_from {
                return future::ProvideCredentials::ready(Err(CredentialsError::not_loaded("role is gone")));
            }
            let now = self.now.load(Ordering::SeqCst) as u64;
            let expiry = SystemTime::UNIX_EPOCH + Duration::from_secs(now + 3600);
            let id = format!("AKIA{number:012}");
            future::ProvideCredentials::ready(Ok(Credentials::new(id, "hunter2", None, Some(expiry), "test")))
        }
    }

    struct Hand(Arc<AtomicI64>);

    impl Clock for Hand {
        fn now(&self) -> Timestamp {
            Timestamp(jiff::Timestamp::from_second(self.0.load(Ordering::SeqCst)).unwrap())
        }
    }

    fn credentials(provider: Arc<Hourly>) -> AwsCredentials {
        let clock = Arc::new(Hand(provider.now.clone()));
        let provider: Arc<dyn ProvideCredentials> = provider;
        AwsCredentials::new(SharedCredentialsProvider::from(provider), clock, "s3://b".to_owned())
    }

    #[tokio::test]
    async fn credentials_are_renewed_before_they_expire_and_not_earlier() {
        let provider = Arc::new(Hourly::default());
        let credentials = credentials(provider.clone());
        for (now, fetches) in [(0, 1), (3000, 1), (3299, 1), (3300, 2), (6599, 2), (6600, 3)] {
            provider.now.store(now, Ordering::SeqCst);
            credentials.get_credential().await.unwrap();
            assert_eq!(provider.fetched.load(Ordering::SeqCst), fetches, "at {now}");
        }
    }

    #[tokio::test]
    async fn credentials_that_cannot_be_renewed_serve_until_they_expire() {
        let provider = Arc::new(Hourly { broken_from: AtomicU64::new(2), ..Hourly::default() });
        let credentials = credentials(provider.clone());
        credentials.get_credential().await.unwrap();
        provider.now.store(3599, Ordering::SeqCst);
        credentials.get_credential().await.unwrap();
        provider.now.store(3600, Ordering::SeqCst);
        let error = credentials.get_credential().await.unwrap_err();
        assert!(chain_text(&error).contains("role is gone"), "{error}");
    }

    #[tokio::test]
    async fn credentials_are_told_without_their_secret() {
        let credentials = credentials(Arc::new(Hourly::default()));
        let told = credentials.told().await.unwrap();
        assert_eq!(told, "the settings, access key AKIA…0001");
        assert!(!format!("{credentials:?}").contains("hunter2"));
    }
}
