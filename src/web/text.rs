//! Pieces of HTML that templates put in as they are: moments, sizes, addresses. Whatever came from outside is escaped here.

use std::fmt::Write;

use crate::model::{Timestamp, human};

/// `text` with the five characters escaped that mean something in HTML.
pub(super) fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

/// A moment, in UTC; the script shows it in the viewer's zone.
pub(super) fn moment(at: Timestamp) -> String {
    format!("<time datetime=\"{at}\">{} UTC</time>", at.0.strftime("%Y-%m-%d %H:%M"))
}

/// A moment to the second.
pub(super) fn second(at: Timestamp) -> String {
    format!("<time datetime=\"{at}\" data-seconds=\"\">{} UTC</time>", at.0.strftime("%Y-%m-%d %H:%M:%S"))
}

/// How long ago, or how long until: `2h05m ago`, `in 3d00h`.
pub(super) fn ago(at: Timestamp, now: Timestamp) -> String {
    let seconds = now.seconds_since(at);
    let told = human::duration(seconds.unsigned_abs());
    if seconds < 0 { format!("in {told}") } else { format!("{told} ago") }
}

/// Seconds as people say them, with one digit below ten.
pub(super) fn seconds(seconds: f64) -> String {
    if seconds < 9.95 { format!("{seconds:.1}s") } else { human::duration(seconds.round() as u64) }
}

/// A text as one word of a POSIX shell.
pub(super) fn shell_word(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:=@%+,".contains(&byte);
    if !text.is_empty() && text.bytes().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// A text as a part of a query.
pub(super) fn query_part(text: &str) -> String {
    let mut part = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            part.push(byte as char);
        } else {
            let _ = write!(part, "%{byte:02X}");
        }
    }
    part
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn moments_are_written_for_people_and_programs() {
        let at = Timestamp("2026-11-22T02:10:07.5Z".parse().unwrap());
        assert_eq!(moment(at), "<time datetime=\"2026-11-22T02:10:07Z\">2026-11-22 02:10 UTC</time>");
        assert_eq!((ago(at, at.after(65)), ago(at.after(65), at)), ("1m05s ago".to_owned(), "in 1m05s".to_owned()));
    }

    proptest! {
        #[test]
        fn no_text_leaves_its_place_in_a_page(text in "\\PC{0,40}") {
            let escaped = escaped(&text);
            prop_assert!(!escaped.contains(['<', '>', '"', '\'']));
        }

        #[test]
        fn a_shell_reads_one_word_and_the_same_one(text in "[ -~]{0,30}") {
            let script = format!("set -- {}; printf '%s:%s' \"$#\" \"$1\"", shell_word(&text));
            let told = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
            prop_assert_eq!(String::from_utf8(told.stdout).unwrap(), format!("1:{text}"));
        }
    }
}
