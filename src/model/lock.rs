//! Object lock: who may lift it, and until when it holds.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Timestamp;

const DAY_SECONDS: i64 = 24 * 3600;

/// Who may lift a lock before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LockMode {
    /// Nobody, the owner of the account included.
    Compliance,
    /// Whoever has the right `s3:BypassGovernanceRetention`.
    Governance,
}

impl LockMode {
    /// The word in documents and in output.
    pub const fn name(self) -> &'static str {
        match self {
            LockMode::Compliance => "compliance",
            LockMode::Governance => "governance",
        }
    }
}

impl fmt::Display for LockMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for LockMode {
    type Err = String;

    fn from_str(text: &str) -> Result<LockMode, String> {
        match text {
            "compliance" => Ok(LockMode::Compliance),
            "governance" => Ok(LockMode::Governance),
            _ => Err("expected compliance or governance".to_owned()),
        }
    }
}

/// The lock of one object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Retention {
    /// Who may lift it.
    pub mode: LockMode,
    /// When it ends.
    pub until: Timestamp,
}

/// How long a repository locks what it holds; in JSON `{"mode":"compliance","days":30}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LockPolicy {
    /// Who may lift the locks.
    pub mode: LockMode,
    /// The period: days for which a backup stays locked as a whole after its commit.
    pub days: NonZeroU32,
}

impl LockPolicy {
    /// Longest period in days: what S3 accepts, 100 years.
    pub const DAYS_MAX: u32 = 36_500;

    /// The period in seconds.
    pub fn period_seconds(self) -> i64 {
        i64::from(self.days.get()) * DAY_SECONDS
    }

    /// Seconds for which an object is locked beyond the period: a third of it, at least a day.
    ///
    /// What is needed for longer has to be extended once in this time, which is one request for each object: of 600,000
    /// packs and 30 days some 65,000 a night on average. More would keep for longer what nobody needs.
    pub fn slack_seconds(self) -> i64 {
        (self.period_seconds() / 3).max(DAY_SECONDS)
    }

    /// The lock of an object that is put, or extended, at `now`.
    pub fn retention(self, now: Timestamp) -> Retention {
        Retention { mode: self.mode, until: now.after(self.period_seconds() + self.slack_seconds()) }
    }
}

impl fmt::Display for LockPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.days.get() == 1 { "" } else { "s" };
        write!(f, "{} day{plural} ({})", self.days, self.mode)
    }
}
