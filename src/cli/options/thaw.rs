//! What a command asks of the store for what is archived.

use std::{num::NonZeroU32, time::Duration};

use tokio::time::Instant;

use super::ReadSettings;
use crate::{
    cli::{args::ThawArgs, settings::SettingsError},
    model::{ThawOrder, ThawTier},
    restore::ThawOptions,
};

/// Days for which thawed objects stay, unless others are given: a restore that waits for somebody's return from a weekend finds them.
const DAYS: NonZeroU32 = NonZeroU32::new(7).unwrap();

/// Longest time to wait, a year: nothing thaws for longer, and later moments may not exist.
const WAIT_SECONDS_MAX: u64 = 365 * 86_400;

impl ReadSettings {
    /// The same with what `args` say of thawing. A `dry_run` asks for none, because it does nothing.
    ///
    /// # Errors
    /// When a value is wrong.
    pub fn thawing(self, args: &ThawArgs, dry_run: bool) -> Result<ReadSettings, SettingsError> {
        let wait = args.thaw_wait.as_ref().map(|wait| wait.seconds()).transpose();
        let wait = wait.map_err(|problem| SettingsError::BadValue {
            origin: "the command line".to_owned(),
            key: "--thaw-wait".to_owned(),
            problem,
        })?;
        let order = ThawOrder {
            days: args.thaw_days.and_then(NonZeroU32::new).unwrap_or(DAYS),
            tier: args.thaw_tier.unwrap_or(ThawTier::Standard),
        };
        // One moment for all that is waited for, one after the other.
        let until = wait.map(|wait| Instant::now() + Duration::from_secs(wait.min(WAIT_SECONDS_MAX)));
        let options = ThawOptions { order, until };
        Ok(ReadSettings { thaw: (args.thaw && !dry_run).then_some(options), ..self })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{
        args::{Cli, Command, StoreArgs},
        environment::Environment,
        settings::Layers,
    };

    fn settled(flags: &[&str], dry_run: bool) -> Result<Option<ThawOptions>, SettingsError> {
        let line = ["haulout", "fetch", "--target", "/t"].iter().chain(flags);
        let Command::Fetch(args) = Cli::parse_from(line).command else { unreachable!() };
        let layers = Layers::open(Environment::of_variables(&[]), None).unwrap();
        let read = ReadSettings::assemble(&layers, Some("file:///r"), &StoreArgs::default(), None)?;
        Ok(read.thawing(&args.thaw, dry_run)?.thaw)
    }

    #[test]
    fn nothing_is_thawed_that_nobody_asked_for() {
        assert_eq!(settled(&[], false).unwrap(), None);
        assert_eq!(settled(&["--thaw"], true).unwrap(), None);
        for flag in ["--thaw-days=3", "--thaw-tier=bulk", "--thaw-wait"] {
            assert!(Cli::try_parse_from(["haulout", "fetch", "--target", "/t", flag]).is_err(), "{flag}");
        }
    }

    #[test]
    fn a_wish_has_days_a_tier_and_a_limit_to_the_waiting() {
        let order = ThawOrder { days: DAYS, tier: ThawTier::Standard };
        assert_eq!(settled(&["--thaw"], false).unwrap(), Some(ThawOptions { order, until: None }));
        let waits = |flags: &[&str]| {
            let before = Instant::now();
            let until = settled(flags, false).unwrap().unwrap().until.unwrap();
            until.duration_since(before).as_secs() / 3600
        };
        assert_eq!(waits(&["--thaw", "--thaw-wait"]), 72);
        assert_eq!(waits(&["--thaw", "--thaw-wait=9000000h"]), 365 * 24);
        let all = ["--thaw", "--thaw-days=2", "--thaw-tier=expedited", "--thaw-wait=1d"];
        let order = ThawOrder { days: NonZeroU32::new(2).unwrap(), tier: ThawTier::Expedited };
        assert_eq!((settled(&all, false).unwrap().unwrap().order, waits(&all)), (order, 24));
        let error = settled(&["--thaw", "--thaw-wait=1mo"], false).unwrap_err();
        assert!(error.to_string().contains("--thaw-wait: expected hours, days or weeks"), "{error}");
    }
}
