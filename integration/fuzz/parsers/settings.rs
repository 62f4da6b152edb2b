//! The settings file.

use std::path::Path;

use haulout::cli::settings::SettingsFile;

/// Reads the text as a settings file; what is wrong is said in one line.
pub fn check(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Err(error) = SettingsFile::parse(Path::new("/etc/haulout.toml"), text) {
        assert!(!error.to_string().is_empty());
    }
}
