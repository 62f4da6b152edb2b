//! A moment as people write it, and the zone in which it was understood.

use std::{fmt, str::FromStr};

use jiff::{
    civil::DateTime,
    tz::{AmbiguousOffset, Offset, TimeZone},
};

use crate::{cli::settings::SettingsError, model::Timestamp};

const EXPECTED: &str = "expected a time such as \"2026-11-22 14:02:59\", which is meant in this machine's zone, \
                        \"2026-11-22 14:02:59 +01:00\", \"2026-11-22 14:02:59 Europe/Berlin\" or \"2026-11-22T13:02:59Z\"";
/// Length of `YYYY-MM-DDThh:mm:ss`.
const SECOND_LENGTH: usize = 19;

/// A day and a time of it, with a zone or without one.
///
/// It is `YYYY-MM-DD hh:mm:ss` or, as in RFC 3339, with a `T`; then nothing, `Z`, an offset such as `+01:00`, or the name of a zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moment {
    written: String,
    civil: DateTime,
    zone: Option<TimeZone>,
}

impl FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Moment, String> {
        let wrong = || EXPECTED.to_owned();
        let text = text.trim();
        let (second, rest) = text.split_at_checked(SECOND_LENGTH).ok_or_else(wrong)?;
        // Half a time would be read as well, and one that is another's notation.
        let fits = second.bytes().enumerate().all(|(place, byte)| match place {
            4 | 7 => byte == b'-',
            10 => matches!(byte, b' ' | b'T' | b't'),
            13 | 16 => byte == b':',
            _ => byte.is_ascii_digit(),
        });
        let fraction = match rest.strip_prefix('.') {
            Some(digits) => 1 + digits.bytes().take_while(u8::is_ascii_digit).count(),
            None => 0,
        };
        let (fraction, zone) = rest.split_at(fraction);
        let civil = fits.then(|| format!("{}T{}{fraction}", &second[..10], &second[11..]).parse()).ok_or_else(wrong)?;
        let civil: DateTime = civil.map_err(|error: jiff::Error| error.to_string())?;
        Ok(Moment { written: text.to_owned(), civil, zone: zone_of(zone.trim())? })
    }
}

fn zone_of(text: &str) -> Result<Option<TimeZone>, String> {
    let name = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    match name {
        "" if text.is_empty() => Ok(None),
        "Z" | "z" | "UTC" | "utc" => Ok(Some(TimeZone::UTC)),
        offset if offset.starts_with(['+', '-']) => {
            offset_of(offset).map(|offset| Some(TimeZone::fixed(offset))).ok_or_else(|| EXPECTED.to_owned())
        }
        name if name.starts_with(|first: char| first.is_ascii_alphabetic()) => {
            let unknown = || format!("this machine knows no time zone {name:?}; write the offset, such as +01:00");
            TimeZone::get(name).map(Some).map_err(|_| unknown())
        }
        _ => Err(EXPECTED.to_owned()),
    }
}

/// The offset that is written `+01:00` or `+0100`.
fn offset_of(text: &str) -> Option<Offset> {
    let (sign, rest) = text.split_at_checked(1)?;
    let digits = rest.replacen(':', "", 1);
    if digits.len() != 4 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (hours, minutes): (i32, i32) = (digits[..2].parse().ok()?, digits[2..].parse().ok()?);
    let seconds = (hours < 24 && minutes < 60).then_some((hours * 60 + minutes) * 60)?;
    Offset::from_seconds(if sign == "-" { -seconds } else { seconds }).ok()
}

impl Moment {
    /// The moment that is meant; `local` is the machine's zone, in which one without a zone is meant, and `option` the option that gave it.
    ///
    /// # Errors
    /// When that zone has no such time, or has it twice, as when clocks are changed, or the machine tells no zone.
    pub fn understood(&self, local: Option<&TimeZone>, option: &'static str) -> Result<Understood, SettingsError> {
        let wrong = |problem| SettingsError::BadValue { origin: option.to_owned(), key: self.written.clone(), problem };
        let zone = self.zone.as_ref().or(local);
        let zone = zone.ok_or_else(|| {
            wrong("this machine does not tell its time zone; write one behind it, such as +01:00".to_owned())
        })?;
        let name = named(zone);
        let ambiguous = zone.to_ambiguous_timestamp(self.civil);
        match ambiguous.offset() {
            AmbiguousOffset::Unambiguous { .. } => {}
            AmbiguousOffset::Gap { .. } => {
                return Err(wrong(format!("there was no such time in {name}, where clocks were put forward")));
            }
            AmbiguousOffset::Fold { before, after } => {
                return Err(wrong(format!(
                    "that time came twice in {name}, where clocks were put back; write {before} or {after} behind it"
                )));
            }
        }
        let moment = ambiguous.unambiguous().map_err(|error| wrong(error.to_string()))?;
        Ok(Understood { moment: Timestamp(moment), civil: self.civil, offset: zone.to_offset(moment), zone: name })
    }
}

fn named(zone: &TimeZone) -> String {
    match zone.iana_name() {
        Some("Etc/UTC" | "Etc/UCT" | "Etc/Universal" | "Etc/Zulu") => "UTC".to_owned(),
        Some(name) => name.to_owned(),
        None => zone.to_fixed_offset().map_or_else(|_| "this machine's zone".to_owned(), |offset| offset.to_string()),
    }
}

/// A moment, and how that was understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Understood {
    /// The moment.
    pub moment: Timestamp,
    civil: DateTime,
    offset: Offset,
    zone: String,
}

impl fmt::Display for Understood {
    /// Such as `2026-11-22 14:02:59 +01 (Europe/Berlin; 2026-11-22T13:02:59Z)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Understood { moment, civil, offset, zone } = self;
        let (day, time) = (civil.date(), civil.time());
        if zone == "UTC" || zone == "Etc/UTC" {
            write!(f, "{day} {time} UTC")
        } else {
            write!(f, "{day} {time} {offset} ({zone}; {moment})")
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn berlin() -> TimeZone {
        TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap()
    }

    fn moment(text: &str) -> Timestamp {
        text.parse::<Moment>().unwrap().understood(Some(&berlin()), "--to").unwrap().moment
    }

    #[test]
    fn a_time_without_a_zone_is_the_machines_and_one_with_a_zone_is_not() {
        for (text, utc) in [
            ("2026-11-22 14:02:59", "2026-11-22T13:02:59Z"),
            ("2026-11-22T14:02:59", "2026-11-22T13:02:59Z"),
            ("2026-07-22 14:02:59", "2026-07-22T12:02:59Z"),
            ("2026-11-22 14:02:59.25", "2026-11-22T13:02:59.25Z"),
            ("2026-11-22 14:02:59Z", "2026-11-22T14:02:59Z"),
            ("2026-11-22t14:02:59z", "2026-11-22T14:02:59Z"),
            ("2026-11-22 14:02:59 UTC", "2026-11-22T14:02:59Z"),
            ("2026-11-22T14:02:59+00:00", "2026-11-22T14:02:59Z"),
            ("2026-11-22T14:02:59-03:30", "2026-11-22T17:32:59Z"),
            (" 2026-11-22 14:02:59 +0100 ", "2026-11-22T13:02:59Z"),
        ] {
            assert_eq!(moment(text), Timestamp(utc.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn the_zone_in_which_it_was_understood_is_told() {
        let told = |text: &str, zone: &TimeZone| {
            text.parse::<Moment>().unwrap().understood(Some(zone), "--to").unwrap().to_string()
        };
        let local = told("2026-11-22 14:02:59", &berlin());
        assert_eq!(local, "2026-11-22 14:02:59 +01 (this machine's zone; 2026-11-22T13:02:59Z)");
        assert_eq!(told("2026-11-22T14:02:59Z", &berlin()), "2026-11-22 14:02:59 UTC");
        assert_eq!(told("2026-11-22 14:02:59", &TimeZone::UTC), "2026-11-22 14:02:59 UTC");
    }

    #[test]
    fn a_time_that_came_twice_or_not_at_all_is_refused_and_an_offset_mends_it() {
        let problem =
            |text: &str| text.parse::<Moment>().unwrap().understood(Some(&berlin()), "--to").unwrap_err().to_string();
        assert!(problem("2026-10-25 02:30:00").contains("twice") && problem("2026-10-25 02:30:00").contains("+02"));
        assert!(problem("2026-03-29 02:30:00").contains("no such time"));
        assert_eq!(moment("2026-10-25 02:30:00 +02:00"), Timestamp("2026-10-25T00:30:00Z".parse().unwrap()));
    }

    #[test]
    fn a_machine_without_a_zone_wants_one() {
        let plain: Moment = "2026-11-22 14:02:59".parse().unwrap();
        assert!(plain.understood(None, "--to").unwrap_err().to_string().contains("does not tell its time zone"));
        assert!("2026-11-22 14:02:59Z".parse::<Moment>().unwrap().understood(None, "--to").is_ok());
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "14:03",
            "2026-11-22",
            "2026-11-22 14:02",
            "22.11.2026 14:02:59",
            "2026-13-22 14:02:59",
            "2026-11-22 25:02:59",
            "2026-11-22 14:02:59 +1",
            "2026-11-22 14:02:59 +25:00",
            "2026-11-22 14:02:59 Mars/Base",
            "2026-11-22 14:02:59 []",
            "2026-11-22 14:02:59 14",
            "2026-11-22_14:02:59",
            "yesterday",
        ] {
            assert!(text.parse::<Moment>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_moment_or_refused(text in "\\PC{0,40}|2026-1[0-2]-[0-3][0-9][ T][0-2][0-9]:[0-5][0-9]:[0-5][0-9]\\PC{0,12}") {
            if let Ok(moment) = text.parse::<Moment>() {
                let _ = moment.understood(Some(&berlin()), "--to");
            }
        }
    }
}
