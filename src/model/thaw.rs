//! Thawing: what is asked of a store that keeps objects in an archive, and how long that takes there.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// How fast an object is to be thawed; the faster, the dearer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ThawTier {
    /// Hours.
    Standard,
    /// The cheapest, and the slowest.
    Bulk,
    /// Minutes; not from a deep archive.
    Expedited,
}

impl ThawTier {
    /// The word on the command line and in output.
    pub const fn name(self) -> &'static str {
        match self {
            ThawTier::Standard => "standard",
            ThawTier::Bulk => "bulk",
            ThawTier::Expedited => "expedited",
        }
    }
}

impl fmt::Display for ThawTier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for ThawTier {
    type Err = String;

    fn from_str(text: &str) -> Result<ThawTier, String> {
        let known = [ThawTier::Standard, ThawTier::Bulk, ThawTier::Expedited].into_iter();
        let mut fitting = known.filter(|tier| tier.name() == text);
        fitting.next().ok_or_else(|| "expected standard, bulk or expedited".to_owned())
    }
}

/// What is asked of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ThawOrder {
    /// Days for which thawed objects can be read.
    pub days: NonZeroU32,
    /// How fast they are to be thawed.
    pub tier: ThawTier,
}

impl ThawOrder {
    /// Most days: longer than anybody restores; S3 takes more.
    pub const DAYS_MAX: u32 = 365;
}

/// Where an object lies of which nothing can be read before it is thawed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Archive {
    /// The archive tier of Intelligent-Tiering, from which an object comes back for good.
    Tier,
    /// Storage class GLACIER.
    Glacier,
    /// The deep archive tier of Intelligent-Tiering.
    DeepTier,
    /// Storage class DEEP_ARCHIVE.
    Deep,
}

impl Archive {
    /// True for those that thaw in hours at the least.
    pub const fn is_deep(self) -> bool {
        matches!(self, Archive::Deep | Archive::DeepTier)
    }

    /// True when a thawed copy is kept for some days; else the object comes back for good.
    pub const fn thaws_for_days(self) -> bool {
        matches!(self, Archive::Glacier | Archive::Deep)
    }

    /// The longest that thawing takes, as Amazon documents it ("Archive retrieval options"); nothing where the tier is not offered.
    pub const fn longest(self, tier: ThawTier) -> Option<Duration> {
        let (time, count) = match (self.is_deep(), tier) {
            (false, ThawTier::Expedited) => (MINUTE, 5),
            (false, ThawTier::Standard) => (HOUR, 5),
            (false, ThawTier::Bulk) => (HOUR, 12),
            (true, ThawTier::Standard) => (HOUR, 12),
            (true, ThawTier::Bulk) => (HOUR, 48),
            (true, ThawTier::Expedited) => return None,
        };
        Some(time.saturating_mul(count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_times_are_those_that_amazon_documents() {
        let hours = |archive: Archive, tier| archive.longest(tier).map(|time| time.as_secs_f64() / 3600.0);
        for (archive, standard, bulk) in [(Archive::Glacier, 5.0, 12.0), (Archive::Deep, 12.0, 48.0)] {
            assert_eq!(hours(archive, ThawTier::Standard), Some(standard));
            assert_eq!(hours(archive, ThawTier::Bulk), Some(bulk));
        }
        assert_eq!(hours(Archive::Glacier, ThawTier::Expedited), Some(5.0 / 60.0));
        assert_eq!(hours(Archive::DeepTier, ThawTier::Expedited), None);
    }

    #[test]
    fn a_tier_is_read_by_its_name() {
        for tier in [ThawTier::Standard, ThawTier::Bulk, ThawTier::Expedited] {
            assert_eq!(tier.name().parse(), Ok(tier));
        }
        assert!("Express".parse::<ThawTier>().is_err());
    }
}
