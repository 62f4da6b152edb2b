//! The command line, and what a setting or an argument can hold.

use clap::Parser;
use haulout::cli::{
    args::{BackupChoice, Cli},
    human::ByteSize,
    settings::{Owner, UpTo, Value, check_tool_args, endpoint},
};
use url::Url;

/// Each line is an argument; the first is read as each sort of value too.
pub fn check(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let lines: Vec<String> = text.lines().map(str::to_owned).collect();
    if check_tool_args(&lines).is_ok() {
        assert!(lines.iter().all(|line| line.starts_with("--") && !line.starts_with("--password")), "{lines:?}");
    }
    let Some(first) = lines.first() else { return };
    if let Ok(size) = first.parse::<ByteSize>() {
        assert!(size.to_string().len() <= 8, "{size}");
    }
    if let Ok(number) = first.parse::<UpTo<32>>() {
        assert!((1..=32).contains(&number.get()));
    }
    if let Ok(owner) = first.parse::<Owner>() {
        assert_eq!(owner.to_string().parse(), Ok(owner));
    }
    if let Ok(url) = endpoint(first) {
        assert!(url.has_host() && url.username().is_empty() && url.password().is_none());
        assert_eq!(endpoint(url.as_str()), Ok(url));
    }
    let _ =
        (first.parse::<BackupChoice>().is_ok(), u16::from_text(first), bool::from_text(first), Url::from_text(first));
    if let Err(error) = Cli::try_parse_from(std::iter::once("haulout").chain(text.lines())) {
        let _ = error.render().to_string();
    }
}
