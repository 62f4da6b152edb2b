//! Cron expressions in a time zone, and what becomes of them when clocks change.

use cronexpr::{Crontab, MakeTimestamp, parse_crontab};
use jiff::{
    SignedDuration,
    civil::DateTime,
    tz::{Offset, TimeZone},
};

use crate::model::Timestamp;

/// Fields of an expression: minute, hour, day of the month, month, day of the week.
const FIELDS: usize = 5;
/// Moments by the clock on the wall that are looked at for one answer: those of two days, one a minute, and a few.
const LOOKS_MAX: usize = 3000;
/// Seconds of a year, in which schedules repeat themselves for the most part.
const YEAR_SECONDS: i64 = 366 * 24 * 3600;
/// How far before a moment a change of clocks can still matter. Samoa once left out a whole day.
const CHANGE_HOURS: i64 = 26;

/// Moments by the clock on the wall of a time zone.
///
/// An expression that names hours happens once on a day on which clocks change: what the left out hour would have had comes as much later
/// as clocks were put forward, and what comes in the hour that is there twice comes in the first. One that has `*` for hours goes by the
/// time that passes, so that nothing is left out and nothing comes twice in a row.
#[derive(Debug, Clone)]
pub struct Cron {
    written: String,
    fields: Crontab,
    zone: TimeZone,
    zone_name: String,
    every_hour: bool,
}

impl Cron {
    /// Reads five fields and perhaps the name of a time zone, instead of `zone`.
    ///
    /// # Errors
    /// Says what is wrong.
    pub fn parse(text: &str, zone: &TimeZone) -> Result<Cron, String> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let (fields, zone) = match words.len() {
            FIELDS => (words.join(" "), zone.clone()),
            length if length == FIELDS + 1 => {
                let name = words[FIELDS];
                (words[..FIELDS].join(" "), zone_named(name)?)
            }
            _ => {
                return Err("expected five fields such as \"0 2 * * *\" (minute, hour, day, month, day of the week), \
                     and perhaps a time zone such as Europe/Berlin"
                    .to_owned());
            }
        };
        let every_hour = fields.split(' ').nth(1) == Some("*");
        // In UTC every time of day is there once a day: what the zone makes of it is decided here.
        let parsed = parse_crontab(&format!("{fields} UTC")).map_err(|error| first_line(&error.to_string()))?;
        let zone_name = zone.iana_name().unwrap_or("UTC").to_owned();
        let cron = Cron { written: fields, fields: parsed, zone, zone_name, every_hour };
        if cron.civil_after(DateTime::constant(2024, 1, 1, 0, 0, 0, 0)).is_none() {
            return Err(format!("no day is ever like \"{}\"", cron.written));
        }
        Ok(cron)
    }

    /// The five fields.
    pub fn fields(&self) -> &str {
        &self.written
    }

    /// Name of the time zone.
    pub fn zone_name(&self) -> &str {
        &self.zone_name
    }

    /// The first moment later than `moment`; `None` where the calendar ends.
    pub fn next_after(&self, moment: Timestamp) -> Option<Timestamp> {
        let next = if self.every_hour { self.passing(moment.0) } else { self.on_the_wall(moment.0) };
        next.map(Timestamp)
    }

    /// How many moments a stretch of so many seconds has, whenever it begins in a year's time; `looks_max` moments are looked at.
    pub fn fewest_within(&self, seconds: u64, looks_max: usize) -> u64 {
        let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
        let start = Timestamp(Offset::UTC.to_timestamp(DateTime::constant(2024, 1, 1, 0, 0, 0, 0)).unwrap_or_default());
        let moments: Vec<Timestamp> =
            std::iter::successors(self.next_after(start), |moment| self.next_after(*moment)).take(looks_max).collect();
        // A stretch that begins right behind a moment has the fewest.
        let mut fewest = moments.len() as u64;
        let mut end = 0;
        for (at, begin) in moments.iter().enumerate() {
            while end < moments.len() && moments[end].seconds_since(*begin) <= seconds {
                end += 1;
            }
            if end == moments.len() || begin.seconds_since(start) > YEAR_SECONDS {
                break;
            }
            fewest = fewest.min((end - at - 1) as u64);
        }
        fewest
    }

    /// By the time that passes: from one change of clocks to the next it is that of an offset.
    fn passing(&self, moment: jiff::Timestamp) -> Option<jiff::Timestamp> {
        let mut offset = self.zone.to_offset(moment);
        let mut from = offset.to_datetime(moment);
        let mut changes = self.zone.following(moment);
        // Each round is a stretch without a change; a field of days or months can leave out some years.
        for _ in 0..LOOKS_MAX {
            let next = offset.to_timestamp(self.civil_after(from)?).ok()?;
            match changes.next() {
                Some(change) if change.timestamp() <= next => {
                    offset = change.offset();
                    let first = offset.to_datetime(change.timestamp());
                    from = first.checked_sub(SignedDuration::from_secs(1)).ok()?;
                }
                _ => return Some(next),
            }
        }
        None
    }

    /// By the clock on the wall, each time of day once.
    fn on_the_wall(&self, moment: jiff::Timestamp) -> Option<jiff::Timestamp> {
        let civil = self.zone.to_datetime(moment);
        let changed =
            self.zone.preceding(moment).next().is_some_and(|change| {
                moment.duration_since(change.timestamp()) < SignedDuration::from_hours(CHANGE_HOURS)
            });
        // What was left out comes later than the times of day behind it.
        let back = SignedDuration::from_hours(if changed { CHANGE_HOURS } else { 0 });
        let mut civil = civil.checked_sub(back).ok()?;
        let mut best: Option<jiff::Timestamp> = None;
        for _ in 0..LOOKS_MAX {
            civil = self.civil_after(civil)?;
            if best.is_some_and(|best| self.zone.to_datetime(best) <= civil) {
                break;
            }
            let found = self.zone.to_ambiguous_timestamp(civil).compatible().ok()?;
            if found > moment {
                best = Some(best.map_or(found, |best| best.min(found)));
            }
        }
        best
    }

    /// The first time that fits later than `civil`, on a clock that never changes.
    fn civil_after(&self, civil: DateTime) -> Option<DateTime> {
        let moment = Offset::UTC.to_timestamp(civil).ok()?;
        let next = self.fields.find_next(MakeTimestamp(moment)).ok()?;
        Some(Offset::UTC.to_datetime(next.timestamp()))
    }
}

/// The time zone of this name in the machine's database.
///
/// # Errors
/// When there is none.
pub fn zone_named(name: &str) -> Result<TimeZone, String> {
    TimeZone::get(name)
        .map_err(|_| format!("there is no time zone {name:?}: expected a name such as Europe/Berlin or UTC"))
}

fn first_line(text: &str) -> String {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).take(3).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp(text.parse().unwrap())
    }

    fn cron(text: &str) -> Cron {
        Cron::parse(text, &TimeZone::UTC).unwrap()
    }

    /// The moments of `text` after `from`, until `to`.
    fn between(text: &str, from: &str, to: &str) -> Vec<String> {
        let (cron, to) = (cron(text), at(to));
        let mut moments = Vec::new();
        let mut moment = at(from);
        while let Some(next) = cron.next_after(moment).filter(|next| *next <= to) {
            assert!(next > moment);
            moments.push(next.to_string());
            moment = next;
        }
        moments
    }

    #[test]
    fn what_would_come_in_the_hour_that_is_left_out_comes_once_and_later() {
        // Berlin, 2026-03-29: 02:00 becomes 03:00.
        let night = ("2026-03-29T00:00:00Z", "2026-03-29T12:00:00Z");
        assert_eq!(between("30 2 * * * Europe/Berlin", night.0, night.1), ["2026-03-29T01:30:00Z"]);
        assert_eq!(
            between("10 2,3 * * * Europe/Berlin", night.0, night.1),
            ["2026-03-29T01:10:00Z"],
            "both are the same moment"
        );
        assert_eq!(
            between("30 2 * * * Europe/Berlin", "2026-03-28T00:00:00Z", "2026-03-31T00:00:00Z"),
            ["2026-03-28T01:30:00Z", "2026-03-29T01:30:00Z", "2026-03-30T00:30:00Z"]
        );
    }

    #[test]
    fn what_comes_in_the_hour_that_is_there_twice_comes_once() {
        // Berlin, 2026-10-25: 03:00 becomes 02:00.
        assert_eq!(
            between("30 2 * * * Europe/Berlin", "2026-10-24T12:00:00Z", "2026-10-26T12:00:00Z"),
            ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]
        );
    }

    #[test]
    fn what_comes_each_hour_or_more_often_comes_by_the_time_that_passes() {
        for (day, hours) in [("2026-03-28T23:00:00Z", 23), ("2026-10-24T22:00:00Z", 25)] {
            let end = at(day).after(hours * 3600);
            let moments = between("0 * * * * Europe/Berlin", day, &end.to_string());
            assert_eq!(moments.len() as i64, hours, "{moments:?}");
            let quarters = between("*/15 * * * * Europe/Berlin", day, &end.to_string());
            assert_eq!(quarters.len() as i64, 4 * hours);
        }
    }

    #[test]
    fn a_zone_in_the_expression_beats_the_one_that_is_usual() {
        let tokyo = cron("0 2 * * 1-5 Asia/Tokyo");
        assert_eq!((tokyo.zone_name(), tokyo.fields()), ("Asia/Tokyo", "0 2 * * 1-5"));
        assert_eq!(tokyo.next_after(at("2026-11-20T12:00:00Z")), Some(at("2026-11-22T17:00:00Z")));
    }

    #[test]
    fn what_is_no_schedule_is_refused() {
        for text in [
            "",
            "0 2 * *",
            "0 2 * * * Europe/Nowhere",
            "61 2 * * *",
            "0 2 30 2 *",
            "@daily",
            "0 2 * * * UTC 1",
            "a b c d e",
        ] {
            let problem = Cron::parse(text, &TimeZone::UTC).expect_err(text);
            assert!(!problem.is_empty() && !problem.contains('\n'), "{problem:?}");
        }
    }

    proptest! {
        // Each case looks at a year.
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn moments_go_forward_and_none_between_is_left_out(
            minute in 0u8..60, step in prop::sample::select(vec!["*", "*/2", "1-4", "2", "0,2,3,23"]),
            zone in prop::sample::select(vec!["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Pacific/Apia"]),
            start in 1_300_000_000i64..1_800_000_000,
        ) {
            let cron = cron(&format!("{minute} {step} * * * {zone}"));
            let start = Timestamp(jiff::Timestamp::from_second(start).unwrap());
            let mut moment = start;
            for _ in 0..40 {
                let next = cron.next_after(moment).unwrap();
                prop_assert!(next > moment);
                // From any moment between the two the next one is the same.
                let middle = moment.after(next.seconds_since(moment) / 2);
                if middle < next {
                    prop_assert_eq!(cron.next_after(middle), Some(next));
                }
                moment = next;
            }
        }

        #[test]
        fn a_named_hour_comes_once_a_day(
            minute in 0u8..60, hour in 0u8..24,
            zone in prop::sample::select(vec!["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "UTC"]),
            start in 1_300_000_000i64..1_800_000_000,
        ) {
            let cron = cron(&format!("{minute} {hour} * * * {zone}"));
            let zone = zone_named(zone).unwrap();
            let mut moment = Timestamp(jiff::Timestamp::from_second(start).unwrap());
            let mut day = None;
            for _ in 0..400 {
                moment = cron.next_after(moment).unwrap();
                let date = zone.to_datetime(moment.0).date();
                if let Some(before) = day {
                    prop_assert_eq!(date, before);
                }
                day = Some(date.tomorrow().unwrap());
            }
        }

    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[0-9*/,LW# A-Za-z-]{0,30}") {
            if let Ok(cron) = Cron::parse(&text, &TimeZone::UTC) {
                let now = Timestamp(jiff::Timestamp::from_second(1_800_000_000).unwrap());
                let _ = cron.next_after(now);
            }
        }
    }
}
