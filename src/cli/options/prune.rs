//! Settings of retention.

use super::StoreSettings;
use crate::{
    cli::{
        args::{BackupChoice, CompactArgs, PruneArgs},
        settings::{
            Layers, SettingsError, Stretch,
            keys::{self, Connections, KeepCount, Key, LiveShare, Pieces},
        },
    },
    prune::{GRACE_SECONDS, KeepPolicy, LIVE_SHARE, PIECES_MAX},
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
            pitr: layers.pick(&keys::KEEP_PITR, args.keep_pitr.clone())?.map(|stretch| stretch.parts()),
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

/// All that `compact` needs to know.
#[derive(Debug, Clone)]
pub struct CompactSettings {
    /// The repository.
    pub store: StoreSettings,
    /// Share of a pack, in percent, below which what is needed of it is moved.
    pub live_share: LiveShare,
    /// Chunks that an extent may lie in.
    pub pieces: Pieces,
    /// The backup whose extents are made whole.
    pub backup: Option<BackupChoice>,
    /// Reads of a restore in flight, for what one would read.
    pub connections: Connections,
    /// Only say what would be done.
    pub dry_run: bool,
}

impl CompactSettings {
    /// Resolves the settings of `compact`.
    ///
    /// # Errors
    /// When a value is wrong.
    pub fn assemble(layers: &Layers, url: Option<&str>, args: &CompactArgs) -> Result<CompactSettings, SettingsError> {
        Ok(CompactSettings {
            store: StoreSettings::assemble(layers, url, &args.store)?,
            live_share: layers.pick_or(&keys::LIVE_SHARE, args.live_share, LiveShare::clamped(LIVE_SHARE.into()))?,
            pieces: layers.pick_or(&keys::PIECES, args.pieces, Pieces::clamped(PIECES_MAX))?,
            backup: args.backup.clone(),
            connections: layers.pick_or(&keys::CONNECTIONS, None, Connections::clamped(16))?,
            dry_run: args.dry_run,
        })
    }
}
