//! A stretch of time as people write it.

use std::{fmt, str::FromStr};

use jiff::{Span, SpanRelativeTo, Unit};

use super::value::Value;

/// A stretch of time such as `24h`, `30d`, `2w`, `6mo` or `1y`; not negative.
#[derive(Debug, Clone)]
pub struct Stretch {
    span: Span,
    written: String,
}

impl Stretch {
    /// `count` hours.
    pub fn hours(count: u32) -> Stretch {
        Stretch { span: Span::new().hours(i64::from(count)), written: format!("{count}h") }
    }

    /// The span, and how it was written.
    pub fn parts(&self) -> (Span, String) {
        (self.span, self.written.clone())
    }

    /// Its seconds, where a day has 24 hours.
    ///
    /// # Errors
    /// When it has months or years, whose lengths differ.
    pub fn seconds(&self) -> Result<u64, String> {
        let seconds = self.span.total((Unit::Second, SpanRelativeTo::days_are_24_hours()));
        // At most some ten thousand years, which fit.
        seconds.map(|seconds| seconds as u64).map_err(|_| "expected hours, days or weeks, such as 24h".to_owned())
    }
}

impl FromStr for Stretch {
    type Err = String;

    fn from_str(text: &str) -> Result<Stretch, String> {
        let span: Span = text.parse().map_err(|_| format!("expected {}", Self::EXPECTED))?;
        if span.is_negative() {
            return Err(format!("expected {}", Self::EXPECTED));
        }
        Ok(Stretch { span, written: text.trim().to_owned() })
    }
}

impl fmt::Display for Stretch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)
    }
}

impl Value for Stretch {
    const EXPECTED: &'static str = "a stretch of time such as \"24h\", \"30d\", \"6mo\" or \"1y\"";

    fn from_text(text: &str) -> Result<Stretch, String> {
        text.parse()
    }

    fn shown(&self) -> String {
        self.written.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stretch_is_read_in_the_usual_units() {
        for (text, seconds) in [("24h", 86_400), ("1d", 86_400), ("2w", 1_209_600), ("90m", 5400), ("1d 12h", 129_600)]
        {
            assert_eq!(text.parse::<Stretch>().unwrap().seconds(), Ok(seconds), "{text}");
        }
        assert!("6mo".parse::<Stretch>().unwrap().seconds().is_err());
        assert_eq!(Stretch::hours(24).seconds(), Ok(86_400));
    }

    #[test]
    fn what_is_no_stretch_is_refused() {
        for text in ["", "24", "-1d", "tomorrow", "1 parsec", "99999999999999y"] {
            assert!(text.parse::<Stretch>().is_err(), "{text}");
        }
    }
}
