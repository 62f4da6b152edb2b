//! Options of `copy`, and of what looks at a copy.

use std::path::PathBuf;

use clap::Args;
use url::Url;

use super::{BackupChoice, StoreArgs};
use crate::cli::settings::{
    endpoint,
    keys::{KeepCount, Transfers},
};

/// Where the copy is, and how its store is reached: nothing of that is taken over from the repository's own settings.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "The copy")]
pub struct CopyPlaceArgs {
    /// Where the copy is [env: HAULOUT_COPY_TO]
    #[arg(long, value_name = "URL")]
    pub to: Option<String>,
    /// Endpoint of the copy's store, where that is S3-compatible; AWS itself needs none
    #[arg(long, value_name = "URL", value_parser = endpoint)]
    pub to_endpoint_url: Option<Url>,
    /// Region of the copy's bucket
    #[arg(long, value_name = "REGION")]
    pub to_region: Option<String>,
    /// Profile in ~/.aws/config and ~/.aws/credentials for the copy
    #[arg(long, value_name = "NAME")]
    pub to_profile: Option<String>,
    /// PEM file of authorities that are trusted beside the system's
    #[arg(long, value_name = "FILE")]
    pub to_ca_file: Option<PathBuf>,
    /// Name the copy's bucket in the path [default with --to-endpoint-url]
    #[arg(long, conflicts_with = "to_virtual_host_style")]
    pub to_path_style: bool,
    /// Name the copy's bucket in the host [default without --to-endpoint-url]
    #[arg(long)]
    pub to_virtual_host_style: bool,
}

impl CopyPlaceArgs {
    /// Whether the bucket is named in the path, if that was said.
    pub fn path_style(&self) -> Option<bool> {
        (self.to_path_style || self.to_virtual_host_style).then_some(self.to_path_style)
    }
}

/// Options of `copy`.
#[derive(Debug, Clone, Default, Args)]
#[command(after_help = "\
Examples:
  haulout copy --to s3://backups-west/db1 --to-region us-west-2
  haulout copy --to file:///mnt/disk/db1 --last 7
  haulout copy --to s3://backups-west/db1 --to-region us-west-2 --dry-run

The first run makes the copy: it is the same repository a second time, with the same key slots, and every command works on \
it, `backup` too. Packs that the copy has are not copied again, each pack is proven by its name before it is put, and a \
backup appears in the copy once all that it needs is there. A run that is killed is gone on with by the next.

Archived binary log is copied after the backups: what the copy lacks behind the first segment that it has, and nothing that ended before its oldest backup.

Nothing is deleted in the copy, whatever happens to the repository: it has a `haulout prune` of its own. So that what that let go of \
does not come back, only backups are copied that are newer than the newest one in the copy, unless --all or --backup says otherwise.

A sealed repository is copied without a key, too; then all packs are, whether or not a backup needs them. A key slot that was removed \
from the repository stays in the copy until `haulout key remove` is run there. The copy of a locked repository is not locked by \
haulout: give its bucket a default retention.

The directory of a file:// copy must exist: so a disk that is not mounted is no empty copy. While it runs, no backup is taken \
into the copy, and its prunes delete nothing. Exits with 0 when all is there, and with 3 when something is damaged that was to be \
copied.")]
pub struct CopyArgs {
    /// Copy this backup, though newer ones are there, or what the copy has lost of it: its name, the beginning of it, or `latest`; can be given several times
    #[arg(long, value_name = "ID", conflicts_with_all = ["all", "last"])]
    pub backup: Vec<BackupChoice>,
    /// Copy the newest N backups at most
    #[arg(long, value_name = "N", conflicts_with = "all")]
    pub last: Option<KeepCount>,
    /// Copy all backups that the copy does not have, those that a prune of it let go of among them
    #[arg(long)]
    pub all: bool,
    /// Leave archived binary log out
    #[arg(long)]
    pub no_binlogs: bool,
    /// Packs on their way at the same time; each holds 16 MiB of memory [default: 8]
    #[arg(long, value_name = "N")]
    pub transfers: Option<Transfers>,
    /// Say what is missing, and do nothing
    #[arg(long, short = 'n')]
    pub dry_run: bool,
    /// The copy.
    #[command(flatten)]
    pub place: CopyPlaceArgs,
    /// The store.
    #[command(flatten)]
    pub store: StoreArgs,
}
