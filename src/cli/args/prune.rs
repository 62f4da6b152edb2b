//! Options of the commands of retention.

use clap::Args;

use super::{BackupChoice, StoreArgs};
use crate::cli::settings::{
    Stretch,
    keys::{KeepCount, LiveShare, Pieces},
};

/// Options of `prune`.
#[derive(Debug, Clone, Default, Args)]
#[command(after_help = "\
Examples:
  haulout prune --keep-daily 7 --keep-weekly 5 --keep-monthly 12 --dry-run
  haulout prune --keep-within 30d --keep-tag release
  haulout prune --keep-pitr 14d --keep-daily 14 --keep-monthly 12
  haulout prune --let-go 20261122T170445Z-3f9a1c

A backup that any rule keeps stays; with no rule, all stay, and only what nobody needs is deleted. Of each hour, day, ISO week, \
month and year (UTC) the newest backup counts. The newest backup never goes. Any other may, the base of a lineage too: all \
that stay restore as before.

Archived binary log stays as long as the oldest backup that stays could use it. With --keep-pitr 14d log that is older than that goes: the newest backup stays that had ended 14 days before the newest one began, and the log since it; older backups that stay are single points in time. Given alone, --keep-pitr lets no backup go.

What is to go is written down as a plan and deleted by the first prune after the grace period, which counts once more what is \
needed. Until then `haulout undelete` keeps a backup. Exits with 3 when something could not be done.")]
pub struct PruneArgs {
    /// Keep the newest N
    #[arg(long, value_name = "N")]
    pub keep_last: Option<KeepCount>,
    /// Keep one of each of the newest N hours that have any
    #[arg(long, value_name = "N")]
    pub keep_hourly: Option<KeepCount>,
    /// Keep one of each of the newest N days that have any
    #[arg(long, value_name = "N")]
    pub keep_daily: Option<KeepCount>,
    /// Keep one of each of the newest N weeks that have any
    #[arg(long, value_name = "N")]
    pub keep_weekly: Option<KeepCount>,
    /// Keep one of each of the newest N months that have any
    #[arg(long, value_name = "N")]
    pub keep_monthly: Option<KeepCount>,
    /// Keep one of each of the newest N years that have any
    #[arg(long, value_name = "N")]
    pub keep_yearly: Option<KeepCount>,
    /// Keep all that were begun so long before the newest, such as 30d, 6mo, 1y
    #[arg(long, value_name = "TIME")]
    pub keep_within: Option<Stretch>,
    /// Keep all with this tag; can be given several times
    #[arg(long, value_name = "TAG")]
    pub keep_tag: Vec<String>,
    /// Keep what any second is restored from that lies so long before the newest backup, such as 14d: one backup that is so old, or the
    /// oldest while none is, and the binary log since
    #[arg(long, value_name = "TIME")]
    pub keep_pitr: Option<Stretch>,
    /// Let go of this backup, whatever the rules say; can be given several times
    #[arg(long, value_name = "ID")]
    pub let_go: Vec<BackupChoice>,
    /// Time between a plan and its deletions [default: 24h]
    #[arg(long, value_name = "TIME")]
    pub grace: Option<Stretch>,
    /// Say what would be done and why, and do nothing
    #[arg(long, short = 'n')]
    pub dry_run: bool,
    /// The store.
    #[command(flatten)]
    pub store: StoreArgs,
}

/// Options of `undelete`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
A backup that was undeleted stays, whatever rules say, until `haulout prune --let-go` names it.")]
pub struct UndeleteArgs {
    /// Backups that a plan lets go of: their names, or the beginnings of their names
    #[arg(value_name = "ID", required = true)]
    pub backups: Vec<BackupChoice>,
    /// The store.
    #[command(flatten)]
    pub store: StoreArgs,
}

/// Options of `compact`.
#[derive(Debug, Clone, Default, Args)]
#[command(after_help = "\
Examples:
  haulout compact --dry-run
  haulout compact && haulout prune

What backups need of packs that are mostly dead is copied into new packs, and extents of the newest backup that lie in many chunks \
are made one chunk again, from the store alone. All backups restore as before. Nothing is deleted by it: what it has superseded \
takes room until `haulout prune` has let go of it, a grace period later. While a backup is running, nothing is done. In a sealed \
repository what moves is opened and sealed anew, so the key must be one that opens data.

Exits with 3 when something is damaged, which then stays as it is.")]
pub struct CompactArgs {
    /// Move what is needed of packs of which less than so much is, in percent [default: 50]
    #[arg(long, value_name = "PERCENT")]
    pub live_share: Option<LiveShare>,
    /// Chunks that an extent may lie in before they are made one [default: 8]
    #[arg(long, value_name = "N")]
    pub pieces: Option<Pieces>,
    /// Backup whose extents are made whole: its name, the beginning of it, or `latest` [default: latest]
    #[arg(long, value_name = "ID")]
    pub backup: Option<BackupChoice>,
    /// Say what would be done, and do nothing
    #[arg(long, short = 'n')]
    pub dry_run: bool,
    /// The store.
    #[command(flatten)]
    pub store: StoreArgs,
}
