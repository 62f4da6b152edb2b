//! Time and chance, which come in as arguments so that a simulation can supply them.

use std::fmt;

use jiff::{civil::DateTime, tz::TimeZone};
use serde::{Deserialize, Serialize};

/// A moment in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub jiff::Timestamp);

impl Timestamp {
    /// Whole seconds from `earlier` to `self`, negative when `earlier` is later.
    pub fn seconds_since(self, earlier: Timestamp) -> i64 {
        self.0.as_second() - earlier.0.as_second()
    }

    /// The moment `seconds` later, in whole seconds; the calendar's last second where there is none.
    pub fn after(self, seconds: i64) -> Timestamp {
        let second = self.0.as_second().saturating_add(seconds);
        Timestamp(jiff::Timestamp::from_second(second).unwrap_or(jiff::Timestamp::MAX))
    }

    /// The compact form used in keys: `20261122T170445Z`.
    pub fn compact(self) -> String {
        self.0.strftime("%Y%m%dT%H%M%SZ").to_string()
    }

    /// Reads the compact form.
    pub fn parse_compact(text: &str) -> Option<Timestamp> {
        let civil = DateTime::strptime("%Y%m%dT%H%M%SZ", text).ok()?;
        let moment = Timestamp(civil.to_zoned(TimeZone::UTC).ok()?.timestamp());
        (moment.compact() == text).then_some(moment)
    }

    /// The moment that the server writes as seconds since 1970.
    pub fn from_seconds(seconds: u32) -> Timestamp {
        Timestamp(jiff::Timestamp::from_second(i64::from(seconds)).unwrap_or_default())
    }

    /// This moment cut to whole seconds.
    pub fn whole_seconds(self) -> Timestamp {
        Timestamp(jiff::Timestamp::from_second(self.0.as_second()).unwrap_or(self.0))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.strftime("%Y-%m-%dT%H:%M:%SZ").fmt(f)
    }
}

/// Where wall-clock time comes from.
pub trait Clock: Send + Sync {
    /// The present moment.
    fn now(&self) -> Timestamp;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp(jiff::Timestamp::now())
    }
}

/// Where random bytes come from.
pub trait Entropy: Send + Sync {
    /// Fills `bytes` with unpredictable bytes.
    fn fill(&self, bytes: &mut [u8]);
}

/// The operating system's generator.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn fill(&self, bytes: &mut [u8]) {
        rand::RngCore::fill_bytes(&mut rand::rng(), bytes);
    }
}
