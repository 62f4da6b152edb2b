//! Settings: a flag beats the environment, which beats the file.
#![doc = include_str!("../SETTINGS.md")]

mod error;
mod file;
pub mod keys;
mod listen;
mod passthrough;
mod server_options;
mod stretch;
mod value;

use std::cell::RefCell;

pub use error::SettingsError;
pub use file::{Place, Raw, SettingsFile};
use keys::{Described as _, Key};
pub use listen::{Listen, Price};
pub use passthrough::check_tool_args;
pub use server_options::server_options;
pub use stretch::Stretch;
pub use value::{Addresses, Owner, UpTo, Value, endpoint};

use super::environment::Environment;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The command line.
    Flag(&'static str),
    /// An environment variable.
    Variable(&'static str),
    /// A line of the settings file.
    File(Place),
    /// Nobody said otherwise.
    Default,
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Origin::Flag(flag) => f.write_str(flag),
            Origin::Variable(name) => write!(f, "environment variable {name}"),
            Origin::File(place) => place.fmt(f),
            Origin::Default => f.write_str("default"),
        }
    }
}

/// A value that was used, and where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picked {
    /// Section and key, such as `[backup] uploads`.
    pub key: String,
    /// The value for people.
    pub shown: String,
    /// Where it came from.
    pub origin: Origin,
}

/// The layers below the flags. It keeps a record of every value that a command asks for.
#[derive(Debug, Default)]
pub struct Layers {
    /// Variables of the process.
    pub environment: Environment,
    /// The settings file, if there is one.
    pub file: Option<SettingsFile>,
    picked: RefCell<Vec<Picked>>,
    warnings: RefCell<Vec<String>>,
}

impl Layers {
    /// Reads the settings file: the one that is named by `flag` or `HAULOUT_CONFIG`, or the standard one if it exists.
    ///
    /// # Errors
    /// When the file that was named is missing, or any is wrong.
    pub fn open(environment: Environment, flag: Option<&std::path::Path>) -> Result<Layers, SettingsError> {
        let named = flag.map(Into::into).or_else(|| environment.get("HAULOUT_CONFIG").map(std::path::PathBuf::from));
        let standard = || Some(environment.config_file.clone()).filter(|path| path.exists());
        let file = named.or_else(standard).map(|path| SettingsFile::read(&path)).transpose()?;
        Ok(Layers::new(environment, file))
    }

    /// The layers of `environment` and `file`.
    pub fn new(environment: Environment, file: Option<SettingsFile>) -> Layers {
        Layers { environment, file, ..Layers::default() }
    }

    /// The value of `key`: `flag`, or else the environment's, or else the file's.
    ///
    /// # Errors
    /// When the variable's text is no such value.
    pub fn pick<T: Value>(&self, key: &'static Key<T>, flag: Option<T>) -> Result<Option<T>, SettingsError> {
        let (value, origin) = match flag {
            Some(value) => (value, Origin::Flag(key.flag().unwrap_or("command line"))),
            None => match self.lower(key)? {
                Some(found) => found,
                None => return Ok(None),
            },
        };
        self.record(key, &value, origin);
        Ok(Some(value))
    }

    /// The same with a value for when nobody gives one.
    ///
    /// # Errors
    /// When the variable's text is no such value.
    pub fn pick_or<T: Value>(&self, key: &'static Key<T>, flag: Option<T>, default: T) -> Result<T, SettingsError> {
        if let Some(value) = self.pick(key, flag)? {
            return Ok(value);
        }
        self.record(key, &default, Origin::Default);
        Ok(default)
    }

    /// The values that were picked until now.
    pub fn picked(&self) -> Vec<Picked> {
        self.picked.borrow().clone()
    }

    /// Keeps a sentence for the operator until [`Layers::take_warnings`].
    pub fn warn(&self, message: String) {
        self.warnings.borrow_mut().push(message);
    }

    /// What the operator should know of the settings that were picked; told once.
    pub fn take_warnings(&self) -> Vec<String> {
        self.warnings.take()
    }

    /// The value that the environment or the file gives.
    fn lower<T: Value>(&self, key: &Key<T>) -> Result<Option<(T, Origin)>, SettingsError> {
        let wrong = |origin: &Origin, problem| SettingsError::BadValue {
            origin: origin.to_string(),
            key: format!("[{}] {}", key.section(), key.name()),
            problem,
        };
        if let Some(name) = key.variable()
            && let Some(text) = self.environment.get(name)
        {
            let origin = Origin::Variable(name);
            let text = text.to_str().ok_or_else(|| wrong(&origin, "it is not UTF-8".to_owned()))?;
            let value = T::from_text(text).map_err(|problem| wrong(&origin, problem))?;
            return Ok(Some((value, origin)));
        }
        let Some((place, raw)) = self.file.as_ref().and_then(|file| file.get(key.section(), key.name())) else {
            return Ok(None);
        };
        let origin = Origin::File(place);
        let value = T::from_raw(raw).map_err(|problem| wrong(&origin, problem))?;
        Ok(Some((value, origin)))
    }

    fn record<T: Value>(&self, key: &'static Key<T>, value: &T, origin: Origin) {
        let key = format!("[{}] {}", key.section(), key.name());
        tracing::debug!(key, value = value.shown(), %origin, "setting");
        self.picked.borrow_mut().push(Picked { key, shown: value.shown(), origin });
    }
}

#[cfg(test)]
mod tests;
