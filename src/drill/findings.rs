//! What a drill has found so far.

use std::error::Error;

use crate::format::{PROOF_LINES_MAX, PROOF_TEXT_BYTES_MAX};

/// Failures and warnings, no more of them than a proof holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Findings {
    /// What failed.
    pub failures: Vec<String>,
    /// Failures beyond those that are named.
    pub more_failures: u64,
    /// What is odd.
    pub warnings: Vec<String>,
}

impl Findings {
    /// Something failed.
    pub fn fail(&mut self, what: impl AsRef<str>) {
        if self.failures.len() < PROOF_LINES_MAX {
            self.failures.push(cut(what.as_ref()));
        } else {
            self.more_failures += 1;
        }
    }

    /// Something is odd; what is one too many is left out.
    pub fn warn(&mut self, what: impl AsRef<str>) {
        if self.warnings.len() < PROOF_LINES_MAX {
            self.warnings.push(cut(what.as_ref()));
        }
    }
}

/// An error and its causes in one line.
pub(super) fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}

/// `text`, or as much of its beginning as a proof holds.
pub(super) fn cut(text: &str) -> String {
    const MORE: &str = " …";
    if text.len() <= PROOF_TEXT_BYTES_MAX {
        return text.to_owned();
    }
    let mut end = PROOF_TEXT_BYTES_MAX - MORE.len();
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{MORE}", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_kept_than_a_proof_holds() {
        let mut findings = Findings::default();
        for number in 0..PROOF_LINES_MAX + 7 {
            findings.fail(format!("{number} {}", "ü".repeat(number * 20)));
            findings.warn("odd");
        }
        assert_eq!((findings.failures.len(), findings.more_failures), (PROOF_LINES_MAX, 7));
        assert_eq!(findings.warnings.len(), PROOF_LINES_MAX);
        assert!(findings.failures.iter().all(|text| text.len() <= PROOF_TEXT_BYTES_MAX));
        assert!(findings.failures[99].ends_with("ü …") && findings.failures[1].ends_with('ü'));
    }
}
