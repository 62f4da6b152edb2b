//! Settings of `drill`.

use std::{io::Read, path::Path, path::PathBuf};

use super::{PrepareSettings, ReadSettings};
use crate::{
    cli::{
        args::{BackupChoice, DrillArgs},
        settings::{Layers, SettingsError, keys, server_options},
    },
    format::ASSERTIONS_MAX,
};

/// Longest file with assertions.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Longest assertion: the client's lines are no problem, but people read proofs.
const STATEMENT_BYTES_MAX: usize = 64 << 10;

/// All that `drill` needs to know.
#[derive(Debug, Clone)]
pub struct DrillSettings {
    /// Where to read.
    pub read: ReadSettings,
    /// Which backup.
    pub backup: BackupChoice,
    /// How to prepare it.
    pub prepare: PrepareSettings,
    /// Directory for everything.
    pub scratch: PathBuf,
    /// For how many seconds tables are checked; for as long as it takes when absent.
    pub check_seconds: Option<u64>,
    /// Draws the tables that are checked; by chance when absent.
    pub seed: Option<u32>,
    /// Statements of which each must return one true value.
    pub assertions: Vec<String>,
    /// Options of the server as it takes them, checked.
    pub server_options: Vec<String>,
    /// Only say what would be done.
    pub dry_run: bool,
}

impl DrillSettings {
    /// Resolves the settings of `drill`.
    ///
    /// # Errors
    /// When a value is wrong, no directory is named, or the file with assertions cannot be read.
    pub fn assemble(layers: &Layers, url: Option<&str>, args: &DrillArgs) -> Result<DrillSettings, SettingsError> {
        let wrong = |key: &str, problem| {
            let origin = "a setting of the drill".to_owned();
            SettingsError::BadValue { origin, key: key.to_owned(), problem }
        };
        let scratch = layers.pick(&keys::DRILL_SCRATCH, args.scratch.clone())?;
        let scratch = scratch.ok_or(SettingsError::NoScratch)?;
        let time = layers.pick(&keys::DRILL_TIME, args.time.clone())?;
        let check_seconds = time.map(|time| time.seconds()).transpose().map_err(|text| wrong("[drill] time", text))?;
        if args.seed.is_some() && check_seconds.is_none() {
            return Err(wrong("--seed", "it draws tables to check, and without --time all are checked".to_owned()));
        }
        let mut assertions = args.assert.clone();
        if let Some(path) = layers.pick(&keys::DRILL_ASSERT_FILE, args.assert_file.clone())? {
            let text = read(&path).map_err(|source| SettingsError::Assertions { path, source })?;
            assertions.extend(statements(&text));
        }
        if assertions.len() > ASSERTIONS_MAX || assertions.iter().any(|text| text.len() > STATEMENT_BYTES_MAX) {
            let problem = format!("expected at most {ASSERTIONS_MAX}, of at most {STATEMENT_BYTES_MAX} bytes each");
            return Err(wrong("assertions", problem));
        }
        if assertions.iter().any(|text| text.trim_matches([' ', '\n', ';']).is_empty() || text.contains('\0')) {
            return Err(wrong("assertions", "one of them is no statement".to_owned()));
        }
        let given = Some(args.mariadbd_option.clone()).filter(|given| !given.is_empty());
        let given = layers.pick_or(&keys::MARIADBD_OPTIONS, given, Vec::new())?;
        Ok(DrillSettings {
            read: ReadSettings::assemble(layers, url, &args.store, args.connections)?
                .thawing(&args.thaw, args.dry_run)?,
            backup: args.backup.clone(),
            prepare: PrepareSettings::assemble(layers, &args.prepare)?,
            scratch,
            check_seconds,
            seed: args.seed,
            assertions,
            server_options: server_options(&given)?,
            dry_run: args.dry_run,
        })
    }
}

fn read(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    let read = std::fs::File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    if read as u64 > FILE_BYTES_MAX { Err(std::io::ErrorKind::FileTooLarge.into()) } else { Ok(text) }
}

/// The statements of a file, each of which ends with a semicolon at the end of a line.
fn statements(text: &str) -> Vec<String> {
    let mut statements = Vec::new();
    let mut lines: Vec<&str> = Vec::new();
    for line in text.lines().map(str::trim_end) {
        let between = lines.is_empty() && (line.trim().is_empty() || line.trim_start().starts_with(['#']));
        if between || (lines.is_empty() && line.trim_start().starts_with("--")) {
            continue;
        }
        lines.push(line);
        if line.ends_with(';') {
            statements.push(std::mem::take(&mut lines).join("\n"));
        }
    }
    if !lines.is_empty() {
        statements.push(lines.join("\n"));
    }
    statements
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::environment::Environment;

    fn settings(args: &DrillArgs, variables: &[(&str, &str)]) -> Result<DrillSettings, SettingsError> {
        let layers = Layers::open(Environment::of_variables(variables), None).unwrap();
        DrillSettings::assemble(&layers, Some("file:///x"), args)
    }

    fn args(change: impl FnOnce(&mut DrillArgs)) -> DrillArgs {
        let backup = BackupChoice::Latest;
        let mut args = DrillArgs { scratch: Some("/scratch".into()), backup, ..DrillArgs::default() };
        change(&mut args);
        args
    }

    #[test]
    fn statements_end_at_semicolons_at_the_ends_of_lines() {
        let text =
            "-- orders\nSELECT COUNT(*) > 0\n  FROM shop.orders;\n\n# ; no statement;\nSELECT ';' = ';' ;  \nSELECT 1";
        assert_eq!(statements(text), ["SELECT COUNT(*) > 0\n  FROM shop.orders;", "SELECT ';' = ';' ;", "SELECT 1"]);
        assert_eq!(statements("\n-- nothing\n"), [""; 0]);
    }

    #[test]
    fn assertions_of_flags_and_file_are_asked_alike() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("assertions.sql");
        std::fs::write(&path, "SELECT 2;\nSELECT 3;\n").unwrap();
        let with = args(|args| (args.assert, args.assert_file) = (vec!["SELECT 1".to_owned()], Some(path.clone())));
        assert_eq!(settings(&with, &[]).unwrap().assertions, ["SELECT 1", "SELECT 2;", "SELECT 3;"]);
        std::fs::write(&path, "SELECT 1;\n".repeat(ASSERTIONS_MAX)).unwrap();
        assert!(settings(&with, &[]).is_err());
        std::fs::write(&path, vec![b' '; FILE_BYTES_MAX as usize + 1]).unwrap();
        assert!(settings(&with, &[]).unwrap_err().to_string().contains("assertions.sql"));
        for text in ["", " ;", "SELECT '\0'"] {
            assert!(settings(&args(|args| args.assert = vec![text.to_owned()]), &[]).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_drill_needs_a_directory_and_a_seed_needs_a_time() {
        let error = settings(&args(|args| args.scratch = None), &[]).unwrap_err();
        assert!(error.to_string().contains("no scratch directory"), "{error}");
        let of_variable = settings(&args(|args| args.scratch = None), &[("HAULOUT_DRILL_SCRATCH", "/s")]).unwrap();
        assert_eq!(of_variable.scratch, Path::new("/s"));
        assert!(settings(&args(|args| args.seed = Some(7)), &[]).is_err());
        let timed =
            settings(&args(|args| (args.seed, args.time) = (Some(7), Some("10m".parse().unwrap()))), &[]).unwrap();
        assert_eq!((timed.seed, timed.check_seconds), (Some(7), Some(600)));
        assert!(settings(&args(|args| args.time = Some("1mo".parse().unwrap())), &[]).is_err());
    }
}
