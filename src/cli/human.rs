//! Sizes, durations and rates as people read and write them.

use std::{fmt, str::FromStr};

use serde::Serialize;

pub use crate::model::human::{bytes, count, counted, duration};

/// A number of bytes, read as `64M`, `64MiB` or `1.5 GiB` and shown with three digits.
///
/// Units are powers of 1024, as in MariaDB's own options. `MB` is refused, because it means either.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct ByteSize(pub u64);

impl ByteSize {
    /// `count` MiB.
    pub const fn mib(count: u64) -> ByteSize {
        ByteSize(count << 20)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&bytes(self.0))
    }
}

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<ByteSize, String> {
        let end = text.find(|char: char| !char.is_ascii_digit() && char != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(end);
        let power = match unit.trim().to_ascii_lowercase().as_str() {
            "" | "b" => 0,
            "k" | "kib" => 1,
            "m" | "mib" => 2,
            "g" | "gib" => 3,
            "t" | "tib" => 4,
            unit @ ("kb" | "mb" | "gb" | "tb") => {
                return Err(format!(
                    "{unit:?} is ambiguous: write {0}iB, which is a power of 1024",
                    unit[..1].to_uppercase()
                ));
            }
            _ => return Err("expected a size such as 512MiB or 4G".to_owned()),
        };
        let factor = 1_u64 << (10 * power);
        if let Ok(whole) = number.parse::<u64>() {
            return whole.checked_mul(factor).map(ByteSize).ok_or_else(|| "the size is too large".to_owned());
        }
        let number: f64 = number.parse().map_err(|_| "expected a size such as 512MiB or 4G".to_owned())?;
        let size = number * factor as f64;
        // 2^53: up to there a float counts single bytes.
        if size < 9_007_199_254_740_992.0 { Ok(ByteSize(size as u64)) } else { Err("the size is too large".to_owned()) }
    }
}

/// Bytes per second, such as `312 MiB/s`; nothing can be said of no time.
pub fn rate(amount: u64, seconds: f64) -> String {
    if seconds <= 0.0 {
        return "–".to_owned();
    }
    format!("{}/s", bytes((amount as f64 / seconds) as u64))
}

/// The words of `text` in lines that leave room for `indent` in `columns`; one line where there is no width.
///
/// Line breaks and runs of blanks become one blank. A word that is wider than a line stands alone.
pub fn wrapped(text: &str, columns: Option<usize>, indent: usize) -> Vec<String> {
    // Narrower than this nothing can be read anyway.
    let width = columns.map_or(usize::MAX, |columns| columns.saturating_sub(indent).max(20));
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_have_three_digits() {
        for (size, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "0.98 KiB"),
            (1024, "1.00 KiB"),
            (10 << 10, "10.0 KiB"),
            (1_023_488, "0.98 MiB"),
            (123 << 20, "123 MiB"),
            (5_368_709_120, "5.00 GiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(bytes(size), text);
        }
    }

    #[test]
    fn sizes_are_read_with_units_of_1024() {
        for (text, size) in [("0", 0), ("512", 512), ("64M", 64 << 20), ("64MiB", 64 << 20), ("1.5 GiB", 3 << 29)] {
            assert_eq!(text.parse::<ByteSize>(), Ok(ByteSize(size)), "{text}");
        }
    }

    #[test]
    fn ambiguous_and_senseless_sizes_are_refused() {
        for text in ["", "M", "-1", "64MB", "1kb", "1.2.3G", "999999999999G", "99999999999.5T", "1 parsec", "1e9"] {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
        }
    }

    #[test]
    fn durations_show_two_units() {
        for (seconds, text) in [(0, "0s"), (59, "59s"), (65, "1m05s"), (3725, "1h02m"), (183_600, "2d03h")] {
            assert_eq!(duration(seconds), text);
        }
    }

    #[test]
    fn thousands_stand_apart() {
        assert_eq!([count(0), count(999), count(1000), count(1_234_567)], ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([counted(1, "backup"), counted(2, "backup")], ["1 backup", "2 backups"]);
    }

    #[test]
    fn words_are_wrapped_and_never_cut() {
        let text = "one two\n  three averyveryverylongwordindeed four";
        assert_eq!(wrapped(text, None, 9), ["one two three averyveryverylongwordindeed four"]);
        assert_eq!(wrapped(text, Some(29), 9), ["one two three", "averyveryverylongwordindeed", "four"]);
        assert_eq!(wrapped("", Some(80), 9), [""]);
    }

    proptest! {
        #[test]
        fn every_size_fits_its_column(size: u64) {
            prop_assert!(bytes(size).len() <= 8, "{}", bytes(size));
        }

        #[test]
        fn any_text_is_a_size_or_refused(text in "[0-9.]{0,24} ?[a-zA-Z]{0,3}") {
            let _ = text.parse::<ByteSize>();
        }
    }
}
