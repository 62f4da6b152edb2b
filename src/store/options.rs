//! Settings of a store.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use url::Url;

use super::Counters;
use crate::model::{Clock, Entropy, Progress, Secret, Silent, SystemClock, SystemEntropy};

/// Keys given by the settings, which win over whatever the machine offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessKey {
    /// Access key id.
    pub id: String,
    /// Secret access key.
    pub secret: Secret,
    /// Session token of temporary keys.
    pub session_token: Option<Secret>,
}

/// How long a request may take and how often it is repeated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Requests made for one operation, the first included.
    ///
    /// 12: with the pauses below they spread over some 50 s, which outlasts the restart of a store's front end.
    pub attempts_max: u32,
    /// First pause. 100 ms: most failures are single.
    pub pause_first: Duration,
    /// Longest pause. 15 s: after an outage the store is busy again soon enough, and not everyone returns at once.
    pub pause_max: Duration,
    /// Time after which no new request is made. 180 s: the capture's spool fills while uploads wait.
    pub time_max: Duration,
    /// Time for a connection to come about. 10 s: three lost SYN packets.
    pub connect_max: Duration,
    /// Time for an answer to begin, and for each further part of it to come; a request with a body has more.
    ///
    /// 30 s: a store that is silent for so long has lost the request.
    pub silence_max: Duration,
    /// Slowest line on which a transfer is given its time, in bytes per second.
    ///
    /// 128 KiB/s: a pack of 16 MiB then has 128 s more. On a slower line no backup could keep up with a server.
    pub bytes_per_second_min: u64,
}

impl Default for RetryPolicy {
    fn default() -> RetryPolicy {
        RetryPolicy {
            attempts_max: 12,
            pause_first: Duration::from_millis(100),
            pause_max: Duration::from_secs(15),
            time_max: Duration::from_secs(180),
            connect_max: Duration::from_secs(10),
            silence_max: Duration::from_secs(30),
            bytes_per_second_min: 128 << 10,
        }
    }
}

impl RetryPolicy {
    /// The usual pauses for as long as `time_max`, however many requests that makes.
    pub fn lasting(time_max: Duration) -> RetryPolicy {
        RetryPolicy { attempts_max: u32::MAX, time_max, ..RetryPolicy::default() }
    }

    /// Time within which `bytes` have to be sent and answered, or received.
    pub(super) fn transfer_max(&self, bytes: u64) -> Duration {
        self.silence_max + Duration::from_secs(bytes / self.bytes_per_second_min.max(1))
    }
}

/// Settings of a store. The defaults suit a bucket at its provider, with the machine's own credentials.
#[derive(Clone)]
pub struct StoreOptions {
    /// Region of the bucket. Otherwise the profile's or the machine's; `us-east-1` with an endpoint.
    pub region: Option<String>,
    /// Endpoint of an S3-compatible store. Otherwise the one in the AWS environment or profile, if any.
    pub endpoint: Option<Url>,
    /// Whether the bucket is named in the path rather than in the host. Otherwise: with an endpoint, or a dot in the name.
    pub path_style: Option<bool>,
    /// Profile in the AWS files.
    pub profile: Option<String>,
    /// PEM file with authorities that are trusted beside the system's.
    pub ca_file: Option<PathBuf>,
    /// Keys that win over whatever the machine offers.
    pub access_key: Option<AccessKey>,
    /// Whether uploads carry a SHA-256 that the store checks and keeps (`x-amz-checksum-sha256`).
    ///
    /// Off for a store that refuses the header: the signature covers the content all the same. S3 takes no object without
    /// it where object lock is on.
    pub upload_checksum: bool,
    /// Whether the directory of a `file://` repository is created when it is missing; for `init` alone, so that a disk
    /// that is not mounted does not look like an empty repository.
    pub create_directory: bool,
    /// Uploads in flight. 4: with packs of 16 MiB they hold 64 MiB, and fill a line of 1 Gbit/s.
    pub uploads_max: usize,
    /// Other requests in flight. 16: a restore is fast only when many ranges are on their way.
    pub reads_max: usize,
    /// Most bytes a second that are uploaded, as a mean over some requests; as many as can be when absent.
    pub upload_rate_max: Option<u64>,
    /// The same of what is read.
    pub download_rate_max: Option<u64>,
    /// Counts that all stores of a process add to, beside their own.
    pub totals: Option<Arc<Counters>>,
    /// Limits of each request.
    pub retry: RetryPolicy,
    /// Time for which a request is repeated once the run holds out ([`super::Store::hold_out`]); as usual when absent.
    pub hold_out_max: Option<Duration>,
    /// Clock that says when credentials expire.
    pub clock: Arc<dyn Clock>,
    /// Chance that spreads the pauses between requests.
    pub entropy: Arc<dyn Entropy>,
    /// Who is told that requests fail while there is still hope.
    pub progress: Arc<dyn Progress>,
}

impl Default for StoreOptions {
    fn default() -> StoreOptions {
        StoreOptions {
            region: None,
            endpoint: None,
            path_style: None,
            profile: None,
            ca_file: None,
            access_key: None,
            upload_checksum: true,
            create_directory: false,
            uploads_max: 4,
            reads_max: 16,
            upload_rate_max: None,
            download_rate_max: None,
            totals: None,
            retry: RetryPolicy::default(),
            hold_out_max: None,
            clock: Arc::new(SystemClock),
            entropy: Arc::new(SystemEntropy),
            progress: Arc::new(Silent),
        }
    }
}

impl fmt::Debug for StoreOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreOptions")
            .field("region", &self.region)
            .field("endpoint", &self.endpoint.as_ref().map(Url::as_str))
            .field("path_style", &self.path_style)
            .field("profile", &self.profile)
            .field("ca_file", &self.ca_file)
            .field("access_key", &self.access_key)
            .field("upload_checksum", &self.upload_checksum)
            .field("create_directory", &self.create_directory)
            .field("uploads_max", &self.uploads_max)
            .field("reads_max", &self.reads_max)
            .field("retry", &self.retry)
            .field("hold_out_max", &self.hold_out_max)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_never_show_their_secrets() {
        let access_key = AccessKey {
            id: "AKIA".to_owned(),
            secret: Secret::new("hunter2"),
            session_token: Some(Secret::new("hunter3")),
        };
        let options = StoreOptions { access_key: Some(access_key), ..StoreOptions::default() };
        let shown = format!("{options:?} {options:#?}");
        assert!(!shown.contains("hunter"), "{shown}");
        assert!(shown.contains("AKIA"));
    }

    #[test]
    fn a_transfer_has_time_for_its_size() {
        let policy = RetryPolicy::default();
        assert_eq!(policy.transfer_max(0), Duration::from_secs(30));
        assert_eq!(policy.transfer_max(16 << 20), Duration::from_secs(158));
    }
}
