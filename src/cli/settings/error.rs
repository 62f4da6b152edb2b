//! What can be wrong with settings.

use std::path::PathBuf;

use super::Place;
use crate::{
    cli::secret::SecretError,
    error::{Diagnose, Kind},
};

/// Settings that cannot be used; each is for the operator to correct.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The settings file cannot be read.
    #[error("cannot read settings file {path:?}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The settings file is something else.
    #[error("settings file {path:?} is longer than {bytes_max} bytes")]
    TooLong {
        /// The file.
        path: PathBuf,
        /// Longest file.
        bytes_max: u64,
    },
    /// The settings file is no TOML.
    #[error("{place}: {problem}")]
    Syntax {
        /// Where.
        place: Place,
        /// What the parser says.
        problem: String,
    },
    /// A section that no setting has.
    #[error("{place}: unknown section [{section}]")]
    UnknownSection {
        /// Where.
        place: Place,
        /// The section.
        section: String,
        /// What was probably meant.
        suggestion: String,
    },
    /// A key that no setting has.
    #[error("{place}: unknown key `{name}`{}", section.as_ref().map(|section| format!(" in [{section}]")).unwrap_or_default())]
    UnknownKey {
        /// Where.
        place: Place,
        /// The key.
        name: String,
        /// Its section.
        section: Option<String>,
        /// What was probably meant.
        suggestion: String,
    },
    /// A value that a setting cannot have.
    #[error("{origin}: {key}: {problem}")]
    BadValue {
        /// Where it came from.
        origin: String,
        /// The setting.
        key: String,
        /// What is wrong.
        problem: String,
    },
    /// Nobody says where the repository is.
    #[error("no repository is named")]
    NoRepository,
    /// Nobody says where a drill is to work.
    #[error("no scratch directory is named")]
    NoScratch,
    /// The file with assertions cannot be read.
    #[error("cannot read assertions from {path:?}")]
    Assertions {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// Nobody says where the copy is.
    #[error("no place is named for the copy")]
    NoCopy,
    /// A password on the command line.
    #[error("a password does not belong on the command line, where every user of the machine can read it")]
    PasswordArgument,
    /// A password from two places.
    #[error("a password comes both from {one} and from {other}")]
    TwoPasswords {
        /// The first place.
        one: String,
        /// The second place.
        other: String,
    },
    /// An agent without a settings file.
    #[error("an agent needs a settings file, and there is none")]
    NoFile,
    /// An agent that would do nothing.
    #[error("the settings give the agent nothing to do")]
    NothingToDo,
    /// Half of an access key.
    #[error("[s3] {present} is set, but {absent} is not")]
    HalfAccessKey {
        /// The key that is there.
        present: &'static str,
        /// The key that is not.
        absent: &'static str,
    },
    /// A secret cannot be had.
    #[error("cannot get the secret named by {key}")]
    Secret {
        /// The setting.
        key: &'static str,
        /// Why.
        source: SecretError,
    },
    /// A key file cannot be used.
    #[error("key file {path:?} cannot be used: {problem}")]
    KeyFile {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// What a key is to be made of, or how it is to be had, was not said, or said twice.
    #[error("{problem}")]
    Keys {
        /// What is wrong.
        problem: &'static str,
        /// What to do.
        hint: &'static str,
    },
    /// An option that `mariadb-backup` must not be given.
    #[error("option {option} cannot be handed through to mariadb-backup: {reason}")]
    ToolArgument {
        /// The option, without its value.
        option: String,
        /// Why not.
        reason: &'static str,
    },
    /// A page that other machines would reach.
    #[error("the page would be reached from other machines at {listen}")]
    Remote {
        /// The address.
        listen: std::net::SocketAddr,
    },
    /// An option that MariaDB's tools do not know as one of TLS.
    #[error("[mariadb] tls: {option} is no TLS option")]
    NotTls {
        /// The option, without its value.
        option: String,
    },
}

impl Diagnose for SettingsError {
    fn kind(&self) -> Kind {
        Kind::Usage
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            SettingsError::UnknownSection { suggestion, .. } | SettingsError::UnknownKey { suggestion, .. } => {
                suggestion
            }
            SettingsError::NoRepository => {
                "give --repo URL, set HAULOUT_REPO, or write `url` under [repository] in the settings file"
            }
            SettingsError::NoScratch => {
                "give --scratch DIR, set HAULOUT_DRILL_SCRATCH, or write `scratch` under [drill] in the settings file"
            }
            SettingsError::Assertions { .. } => "it is a text file of at most 1 MiB",
            SettingsError::NoCopy => {
                "give --to URL, set HAULOUT_COPY_TO, or write `to` under [copy] in the settings file"
            }
            SettingsError::NoFile => "name it with --config or HAULOUT_CONFIG, or write /etc/haulout.toml",
            SettingsError::NothingToDo => "write `schedule = \"0 2 * * *\"` under [agent.backup] in the settings file",
            SettingsError::PasswordArgument => {
                "use --password-file FILE, HAULOUT_PASSWORD, or an option file with --defaults-file"
            }
            SettingsError::TwoPasswords { .. } => "keep one of them",
            SettingsError::KeyFile { .. } => "`openssl rand -hex 32` makes one",
            SettingsError::Keys { hint, .. } => hint,
            SettingsError::HalfAccessKey { .. } => "set both, or neither to use the AWS environment, profile or role",
            SettingsError::Remote { .. } => {
                "put a proxy with TLS and a login before 127.0.0.1, or give --allow-remote if that is wanted"
            }
            SettingsError::NotTls { .. } => "options begin with --ssl, --skip-ssl, --tls-version or --protocol",
            _ => return None,
        };
        Some(hint.to_owned())
    }
}
