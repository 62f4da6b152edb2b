//! The first judge: the stock tools, which prepare a lineage one increment after another.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Output},
};

use haulout::mariadb::control::CHECKPOINTS_NAMES;

use super::chunks;
use crate::support::{server, tool::real};

/// Why the stock tools could not judge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unable {
    /// The stream cannot be extracted.
    Extract(String),
    /// `mariadb-backup --prepare` fails.
    Prepare(String),
    /// An earlier increment of the lineage spoilt the target.
    Spoilt,
}

/// A target directory that is prepared backup after backup.
#[derive(Debug)]
pub struct Chain {
    target: PathBuf,
    spoilt: bool,
    /// Why `mbstream` did not accept the last stream, which was then extracted without it.
    pub mbstream: Option<String>,
}

impl Chain {
    /// Extracts and prepares a full backup into `target`, which must not be there.
    pub fn full(target: &Path, stream: &Path) -> (Chain, Result<(), Unable>) {
        let mut chain = Chain { target: target.to_owned(), spoilt: false, mbstream: None };
        let result = chain.extract(stream, target).and_then(|()| chain.prepare(None));
        chain.spoilt = result.is_err();
        (chain, result)
    }

    /// Applies an increment, which is extracted into `folder`.
    pub fn increment(&mut self, folder: &Path, stream: &Path) -> Result<(), Unable> {
        if self.spoilt {
            return Err(Unable::Spoilt);
        }
        let result = self.extract(stream, folder).and_then(|()| {
            accept(&self.target, folder);
            self.prepare(Some(folder))
        });
        self.spoilt = result.is_err();
        let _ = fs::remove_dir_all(folder);
        result
    }

    /// Copies the target as it stands.
    pub fn copy(&self, datadir: &Path) {
        server::copy(&self.target, datadir);
    }

    fn extract(&mut self, stream: &Path, folder: &Path) -> Result<(), Unable> {
        fs::create_dir_all(folder).unwrap();
        let mut command = Command::new(real("mbstream"));
        command.arg("-x").arg("-C").arg(folder).stdin(File::open(stream).unwrap());
        let output = command.output().expect("mbstream can be run");
        // Some errors leave its exit code 0.
        self.mbstream = if output.status.success() && checkpoints(folder).is_some() {
            None
        } else {
            fs::remove_dir_all(folder).unwrap();
            fs::create_dir_all(folder).unwrap();
            chunks::extract(stream, folder).map_err(Unable::Extract)?;
            Some(complaints(&String::from_utf8_lossy(&output.stderr), &output))
        };
        Ok(())
    }

    fn prepare(&self, increment: Option<&Path>) -> Result<(), Unable> {
        let mut command = Command::new(real("mariadb-backup"));
        // Of the options only those of the backup itself: the tool finds them in the target when it is told of no file.
        command.arg("--prepare");
        command.arg(format!("--target-dir={}", self.target.display()));
        if let Some(folder) = increment {
            command.arg(format!("--incremental-dir={}", folder.display()));
        }
        let output = command.output().expect("mariadb-backup can be run");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() && said.contains("completed OK!") {
            return Ok(());
        }
        Err(Unable::Prepare(complaints(&said, &output)))
    }
}

/// The lines that say what is wrong, or the last.
fn complaints(said: &str, output: &Output) -> String {
    let bad = |line: &&str| ["[ERROR]", "rror:", "FATAL", "Assertion", "signal"].iter().any(|word| line.contains(word));
    let lines: Vec<_> = said.lines().filter(bad).take(4).collect();
    let lines = if lines.is_empty() { said.lines().rev().take(2).collect() } else { lines };
    format!("{}: {}", output.status, lines.join(" | "))
}

fn checkpoints(folder: &Path) -> Option<PathBuf> {
    CHECKPOINTS_NAMES.iter().map(|name| folder.join(name)).find(|path| path.exists())
}

/// Makes the stock tool accept an increment that reaches farther back than the target's end: it wants both to be equal.
fn accept(target: &Path, increment: &Path) {
    let read = |folder: &Path| fs::read_to_string(checkpoints(folder).expect("a checkpoints file")).unwrap();
    let text = read(target);
    let line = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.trim().strip_prefix("= "));
    let ends = line("to_lsn").expect("the target's to_lsn").to_owned();
    let patched: Vec<_> = read(increment)
        .lines()
        .map(|line| if line.starts_with("from_lsn") { format!("from_lsn = {ends}") } else { line.to_owned() })
        .collect();
    fs::write(checkpoints(increment).unwrap(), patched.join("\n") + "\n").unwrap();
}
