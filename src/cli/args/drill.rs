//! Options of `drill`.

use std::path::PathBuf;

use clap::Args;

use super::{BackupChoice, PrepareArgs, StoreArgs, ThawArgs};
use crate::cli::settings::{Stretch, keys::Connections};

/// Options of `drill`.
#[derive(Debug, Clone, Default, Args)]
#[command(after_help = "\
Examples:
  haulout drill --scratch /srv/drill
  haulout drill --scratch /srv/drill --time 10m
  haulout drill --scratch /srv/drill --assert 'SELECT COUNT(*) > 0 FROM shop.t'

Restores the backup into the scratch directory, starts a server on it that only the drill can reach (no network, no \
replication, no events), compares its tables with the backup's, checks them and asks what is to be asserted. Then the server \
is shut down, the directory emptied, and the proof recorded in the repository: `haulout list` shows it, with the time that \
it took until the server answered, and `haulout prune` keeps the newest backup that was proven.

An assertion is a statement that must return one row with one value that is a number other than 0. It is asked in a \
read-only transaction. In a file, statements end with a semicolon at the end of a line, and lines that begin with -- or # \
are left out. Proofs hold the statements.

With --time, tables are drawn by a seed until the time is over; the proof says which seed, and how many were left out.

The scratch directory is empty or absent. It needs room for the restored files, the redo log and some 200 MB; that is \
checked first. Run it as root or, better, as a user of its own; credentials that may only read give a verdict that is not \
recorded. Exits with 3 when the drill failed.")]
pub struct DrillArgs {
    /// Directory to restore into, empty or absent; nothing stays in it
    #[arg(long, value_name = "DIR")]
    pub scratch: Option<PathBuf>,
    /// Backup to drill: its name, the beginning of one, or `latest`
    #[arg(long, value_name = "ID", default_value_t = BackupChoice::Latest)]
    pub backup: BackupChoice,
    /// Check tables for so long, such as 10m; without, all are checked
    #[arg(long, value_name = "TIME")]
    pub time: Option<Stretch>,
    /// With --time: draw the tables by this number [default: another each time]
    #[arg(long, value_name = "N")]
    pub seed: Option<u32>,
    /// A statement that must return one true value; can be given several times
    #[arg(long, value_name = "SQL")]
    pub assert: Vec<String>,
    /// File with such statements
    #[arg(long, value_name = "FILE")]
    pub assert_file: Option<PathBuf>,
    /// An option of mariadbd that the restored server needs; can be given several times
    #[arg(long, value_name = "NAME=VALUE")]
    pub mariadbd_option: Vec<String>,
    /// Say what would be done and how much room it takes, and do nothing
    #[arg(long, short = 'n')]
    pub dry_run: bool,
    /// Reads from the store in flight [default: 16]
    #[arg(long, value_name = "N")]
    pub connections: Option<Connections>,
    /// Preparing.
    #[command(flatten)]
    pub prepare: PrepareArgs,
    /// Thawing.
    #[command(flatten)]
    pub thaw: ThawArgs,
    /// The store.
    #[command(flatten)]
    pub store: StoreArgs,
}
