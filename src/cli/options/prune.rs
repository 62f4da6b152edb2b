//! Settings of retention.

use super::StoreSettings;
use crate::{
    cli::{
        args::{BackupChoice, PruneArgs},
        settings::{
            Layers, SettingsError, Stretch,
            keys::{self, KeepCount, Key},
        },
    },
    prune::{GRACE_SECONDS, KeepPolicy},
};

/// All that `prune` needs to know.
#[derive(Debug, Clone)]
pub struct PruneSettings {
    /// The repository.
    pub store: StoreSettings,
    /// Rules that keep backups.
    pub policy: KeepPolicy,
    /// Backups that go whatever the rules say.
    pub let_go: Vec<BackupChoice>,
    /// Seconds between a plan and its deletions.
    pub grace_seconds: u64,
    /// Only say what would be done.
    pub dry_run: bool,
}

impl PruneSettings {
    /// Resolves the settings of `prune`.
    ///
    /// # Errors
    /// When a value is wrong.
    pub fn assemble(layers: &Layers, url: Option<&str>, args: &PruneArgs) -> Result<PruneSettings, SettingsError> {
        let count = |key: &'static Key<KeepCount>, flag: Option<KeepCount>| {
            layers.pick(key, flag).map(|count| count.map_or(0, KeepCount::get))
        };
        let tags = Some(args.keep_tag.clone()).filter(|tags| !tags.is_empty());
        let policy = KeepPolicy {
            last: count(&keys::KEEP_LAST, args.keep_last)?,
            hourly: count(&keys::KEEP_HOURLY, args.keep_hourly)?,
            daily: count(&keys::KEEP_DAILY, args.keep_daily)?,
            weekly: count(&keys::KEEP_WEEKLY, args.keep_weekly)?,
            monthly: count(&keys::KEEP_MONTHLY, args.keep_monthly)?,
            yearly: count(&keys::KEEP_YEARLY, args.keep_yearly)?,
            within: layers.pick(&keys::KEEP_WITHIN, args.keep_within.clone())?.map(|stretch| stretch.parts()),
            tags: layers.pick(&keys::KEEP_TAGS, tags)?.unwrap_or_default().into_iter().collect(),
        };
        let usual = Stretch::hours(u32::try_from(GRACE_SECONDS / 3600).unwrap_or(u32::MAX));
        let grace = layers.pick_or(&keys::GRACE, args.grace.clone(), usual)?;
        let wrong = |problem| SettingsError::BadValue {
            origin: "the grace period".to_owned(),
            key: "[prune] grace".to_owned(),
            problem,
        };
        Ok(PruneSettings {
            store: StoreSettings::assemble(layers, url, &args.store)?,
            policy,
            let_go: args.let_go.clone(),
            grace_seconds: grace.seconds().map_err(wrong)?,
            dry_run: args.dry_run,
        })
    }
}
