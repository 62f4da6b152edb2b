//! Moments as people write them.

use std::{fmt, str::FromStr};

use jiff::{civil::DateTime, fmt::temporal::DateTimeParser, tz::TimeZone};

use crate::model::Timestamp;

/// A moment that was given on the command line, and the time zone that it was understood in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moment {
    /// The moment, in whole seconds.
    pub timestamp: Timestamp,
    zone: TimeZone,
}

impl Moment {
    /// Reads a text; a time without an offset is one of `local`.
    ///
    /// # Errors
    /// What was expected.
    fn parse(text: &str, local: TimeZone) -> Result<Moment, String> {
        let expected = || {
            "expected a moment such as '2026-11-22 14:02:59', which is in this machine's time zone, or with its offset: \
             2026-11-22T14:02:59Z, 2026-11-22T15:02:59+01:00"
                .to_owned()
        };
        let text = text.trim();
        if let Ok(timestamp) = text.parse::<jiff::Timestamp>() {
            let pieces = DateTimeParser::new().parse_pieces(text).map_err(|_| expected())?;
            let zone = pieces.to_numeric_offset().map_or(TimeZone::UTC, TimeZone::fixed);
            return Ok(Moment { timestamp: Timestamp(timestamp).whole_seconds(), zone });
        }
        let civil: DateTime = text.parse().map_err(|_| expected())?;
        if !text.contains(':') {
            return Err(expected());
        }
        // Where the clock was set back, an hour has two meanings.
        let moment = local.to_ambiguous_timestamp(civil).unambiguous().map_err(|_| {
            format!("{text} is ambiguous in this machine's time zone, or does not exist in it: give its offset")
        })?;
        Ok(Moment { timestamp: Timestamp(moment).whole_seconds(), zone: local })
    }
}

impl FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Moment, String> {
        Moment::parse(text, TimeZone::system())
    }
}

impl fmt::Display for Moment {
    /// With its offset, and in UTC where that differs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let zoned = self.timestamp.0.to_zoned(self.zone.clone());
        if zoned.offset().is_zero() {
            return self.timestamp.fmt(f);
        }
        let name = self.zone.iana_name().map_or_else(String::new, |name| format!(" ({name})"));
        write!(f, "{}{name}, which is {}", zoned.strftime("%Y-%m-%dT%H:%M:%S%:z"), self.timestamp)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn berlin() -> TimeZone {
        TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap()
    }

    #[test]
    fn a_moment_has_an_offset_or_is_local() {
        let read = |text: &str| Moment::parse(text, berlin()).map(|moment| moment.timestamp.to_string());
        for text in ["2026-11-22 14:02:59", "2026-11-22T14:02:59", "2026-11-22T13:02:59Z", "2026-11-22 08:02:59-05:00"]
        {
            assert_eq!(read(text).as_deref(), Ok("2026-11-22T13:02:59Z"), "{text}");
        }
        assert_eq!(read("2026-07-01 14:00:00").as_deref(), Ok("2026-07-01T12:00:00Z"));
        for text in ["", "now", "2026-11-22", "14:02:59", "2026-13-01 00:00:00", "2026-11-22 14:02:59 Mars"] {
            assert!(read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_hour_that_comes_twice_or_never_needs_its_offset() {
        for text in ["2026-10-25 02:30:00", "2026-03-29 02:30:00"] {
            assert!(Moment::parse(text, berlin()).unwrap_err().contains("give its offset"), "{text}");
        }
        assert!(Moment::parse("2026-10-25T02:30:00+02:00", berlin()).is_ok());
    }

    #[test]
    fn it_tells_how_it_was_understood() {
        let told = |text: &str| Moment::parse(text, berlin()).unwrap().to_string();
        assert_eq!(told("2026-11-22 14:02:59"), "2026-11-22T14:02:59+01:00, which is 2026-11-22T13:02:59Z");
        assert_eq!(told("2026-11-22T14:02:59Z"), "2026-11-22T14:02:59Z");
        assert_eq!(told("2026-11-22T14:02:59-05:00"), "2026-11-22T14:02:59-05:00, which is 2026-11-22T19:02:59Z");
    }
}
