//! Settings of `binlog`.

use super::{StoreSettings, Understood};
use crate::cli::{
    args::{BinlogRangeArgs, StoreArgs},
    settings::{Layers, SettingsError},
};

/// Which part of what was archived, and where that is.
#[derive(Debug, Clone)]
pub struct BinlogSettings {
    /// The repository.
    pub store: StoreSettings,
    /// From when on; from the beginning when absent.
    pub from: Option<Understood>,
    /// Until when, that moment included; to the end when absent.
    pub to: Option<Understood>,
    /// How the stream's name begins; any when absent.
    pub stream: Option<String>,
}

impl BinlogSettings {
    /// Resolves them.
    ///
    /// # Errors
    /// When a value is wrong, a time does not exist in its zone, or the range ends before it begins.
    pub fn assemble(
        layers: &Layers,
        url: Option<&str>,
        range: &BinlogRangeArgs,
        store: &StoreArgs,
    ) -> Result<BinlogSettings, SettingsError> {
        let local = layers.environment.zone.as_ref();
        let from = range.from.as_ref().map(|from| from.understood(local, "--from")).transpose()?;
        let to = range.to.as_ref().map(|to| to.understood(local, "--to")).transpose()?;
        if let (Some(from), Some(to)) = (&from, &to)
            && from.moment > to.moment
        {
            let (origin, key) = ("--to".to_owned(), to.to_string());
            return Err(SettingsError::BadValue { origin, key, problem: format!("it is before --from, {from}") });
        }
        let store = StoreSettings::assemble(layers, url, store)?;
        Ok(BinlogSettings { store, from, to, stream: range.stream.clone() })
    }

    /// How the range was understood, in a sentence; nothing where no time was given.
    pub fn understood(&self) -> Option<String> {
        match (&self.from, &self.to) {
            (Some(from), Some(to)) => Some(format!("from {from} to {to}")),
            (Some(from), None) => Some(format!("from {from} on")),
            (None, Some(to)) => Some(format!("until {to}")),
            (None, None) => None,
        }
    }
}
