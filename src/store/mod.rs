//! The object store by URL: write-once puts, bounded reads, retries, limits and probes.
//!
//! It stands on the `object_store` crate. What that crate cannot do, the AWS credential chain and the look at a bucket's
//! settings, object lock, is done with `aws-config` and `aws-sdk-s3`.
//!
//! This room reads no environment of its own. By design the clients below it do: `aws-config` its `AWS_*` variables and
//! shared files, the store crate's builders for Google and Azure their credentials (`GOOGLE_*`, `AZURE_*`), and the HTTP
//! clients the proxy variables. Settings that are given in [`StoreOptions`] win over all of them.
//!
//! What a request can do wrong, and where it is dealt with:
//!
//! | failure | answer |
//! |---|---|
//! | connection refused or reset, 5xx, 429, silence, body cut short | repeated with growing pauses, or those that `Retry-After` asks for (`retry`) |
//! | answer of a put lost | repeated; "exists already" is compared with the bytes to be put (`client`) |
//! | object lies in an archive | [`StoreError::Archived`]; [`Store::thaw`] asks for it where the operator wants that (`thaw`) |
//! | object is locked (WORM) | [`Store::delete`] asks first and refuses: [`StoreError::Locked`] (`lock`) |
//! | credentials expire | fetched anew before, and once more when the store says so (`credentials`) |
//! | store ignores `If-None-Match: *` | found by [`Store::probe`]; keys are unique, so nothing is lost |
//! | store refuses conditions | looks first, then puts (`client`) |
//! | disk full, wrong secret, wrong region, wrong clock, no bucket | a [`StoreError`] of its own, with a hint (`classify`) |
//! | disk of a `file://` repository not mounted | [`StoreError::NoDirectory`], [`StoreError::DirectoryGone`] |

pub mod bucket;
mod buffers;
mod classify;
mod client;
pub mod conformance;
mod counters;
mod credentials;
mod endurance;
mod error;
pub mod faulty;
mod folders;
mod key;
mod lock;
mod locker;
mod open;
mod options;
mod pace;
mod probe;
mod refusal;
mod retry;
mod thaw;
pub mod timed;
mod url;
mod versions;

#[cfg(test)]
mod bucket_tests;
#[cfg(test)]
pub mod frozen;
#[cfg(test)]
mod http_tests;
#[cfg(test)]
mod lock_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod thaw_tests;

pub use client::{ObjectInfo, PutOutcome, Store};
pub use counters::{Counters, Counts};
pub use error::{Action, Cause, Origin, Refused, StoreError};
pub use folders::Inside;
pub use key::Key;
pub use lock::ObjectLock;
/// Bytes to be stored, in one part or many that are not copied together.
pub use object_store::PutPayload;
pub use open::{open, open_wrapped};
pub use options::{AccessKey, RetryPolicy, StoreOptions};
pub use probe::{Answer, Capabilities, Finding, Verdict};
pub use refusal::Refusal;
pub use thaw::{Frost, ListedFrost, ThawAnswer};
pub use url::StoreUrl;
pub use versions::ObjectVersion;
