//! The command line as clap reads it. Its doc comments are the help texts.

mod agent;
mod archive;
mod binlog;
mod copy;
mod drill;
mod keys;
mod operations;
mod prune;
mod replica;
mod serve;
mod shared;
mod target;
mod thaw;

use std::{fmt, path::PathBuf, str::FromStr};

use clap::{Args, Parser, Subcommand};

pub use agent::{AgentArgs, ConfigArgs, ConfigCommand};
pub use archive::ArchiveArgs;
pub use binlog::{BinlogArgs, BinlogCommand, BinlogFetchArgs, BinlogListArgs, BinlogRangeArgs, BinlogShowArgs};
pub use copy::{CopyArgs, CopyPlaceArgs};
pub use drill::DrillArgs;
pub use keys::{KeyAddArgs, KeyArgs, KeyCommand, KeyListArgs, KeyRemoveArgs, KeyRotateArgs, NewKeyArgs};
pub use operations::{
    BackupArgs, BackupMode, CheckArgs, CompletionsArgs, DoctorArgs, FetchArgs, InitArgs, ListArgs, ManArgs, MoveArgs,
    Part, PrepareArgs, PrepareDirectoryArgs, RestoreArgs, RestoreTableArgs, ShowArgs, TableArg, UnhideArgs,
};
pub use prune::{CompactArgs, PruneArgs, UndeleteArgs};
pub use replica::ReplicaArgs;
pub use serve::ServeArgs;
pub use shared::{ConnectionArgs, StoreArgs, ToolsArgs};
pub use target::TargetArgs;
pub use thaw::ThawArgs;

use crate::model::BackupId;

// Lines of examples fit 80 columns; paragraphs are one line each, which clap breaks.
const EXAMPLES: &str = "\
Examples:
  haulout --repo s3://bucket/db1 init       create the repository, once
  haulout --repo s3://bucket/db1 backup     back the server up, every night
  haulout --repo s3://bucket/db1 list       see what there is
  haulout --repo s3://bucket/db1 restore --datadir /var/lib/mysql --owner mysql:mysql

Settings: a flag beats the environment (HAULOUT_REPO and others), which beats the settings file \
(/etc/haulout.toml). Secrets come from files and the environment alone. S3 credentials are those of the AWS tools: \
AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile, or the machine's role.

Exit codes: 0 ok, 1 failed, 2 usage, 3 finished with damage named, 10 no repository, 11 locked, 12 wrong key, \
20 corrupt data, 21 chain broken, 22 storage unavailable, 23 database refused, 130 interrupted.";

/// Physical backup of MariaDB to object storage: every backup costs an incremental and restores like a full.
#[derive(Debug, Parser)]
#[command(name = "haulout", version, after_help = EXAMPLES, max_term_width = 100)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub global: GlobalArgs,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Global options")]
pub struct GlobalArgs {
    /// Repository: s3://BUCKET/PREFIX or file:///DIRECTORY [env: HAULOUT_REPO]
    #[arg(long, value_name = "URL", global = true)]
    pub repo: Option<String>,
    /// Settings file [env: HAULOUT_CONFIG] [default: /etc/haulout.toml]
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
    /// Print JSON lines, each with a `message_type`
    #[arg(long, global = true)]
    pub json: bool,
    /// Print warnings, errors and what was asked for; nothing else
    #[arg(long, short, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Log more: -v what is done, -vv why, -vvv everything [env: HAULOUT_LOG]
    #[arg(long, short, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Show no progress bars; there are none in a pipe anyway
    #[arg(long, global = true)]
    pub no_progress: bool,
    /// Key file of a sealed repository [env: HAULOUT_KEY_FILE]
    #[arg(long, value_name = "FILE", global = true, help_heading = "Encryption")]
    pub key_file: Option<PathBuf>,
    /// File whose first line is the passphrase [env: HAULOUT_PASSPHRASE is the passphrase itself]
    #[arg(long, value_name = "FILE", global = true, help_heading = "Encryption")]
    pub passphrase_file: Option<PathBuf>,
    /// Shell command that decrypts the key on its stdin, such as one of a KMS [env: HAULOUT_KEY_COMMAND]
    #[arg(long, value_name = "COMMAND", global = true, help_heading = "Encryption")]
    pub key_command: Option<String>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create a repository
    Init(InitArgs),
    /// Back the server up, while it runs
    Backup(Box<BackupArgs>),
    /// Archive the server's binary log as it is written, so that any second can be restored
    Archive(Box<ArchiveArgs>),
    /// List the backups, as lineages
    List(ListArgs),
    /// Show everything about one backup
    Show(ShowArgs),
    /// Bring a backup back: fetch, prepare and move it into the datadir
    Restore(Box<RestoreArgs>),
    /// Bring one table of a backup back into a running server
    RestoreTable(Box<RestoreTableArgs>),
    /// Write a backup's files into a directory, for `prepare`
    Fetch(FetchArgs),
    /// Make a fetched directory consistent, once (`mariadb-backup --prepare`)
    Prepare(PrepareDirectoryArgs),
    /// Move a prepared directory into the datadir
    MoveBack(MoveArgs),
    /// Copy a prepared directory into the datadir, and keep it
    CopyBack(MoveArgs),
    /// Check that all that the backups need is in the repository
    Check(CheckArgs),
    /// Prove that a backup restores: on a server of its own, with a record of it
    Drill(Box<DrillArgs>),
    /// Let go of backups by rules, and delete what then nobody needs
    Prune(Box<PruneArgs>),
    /// Gather what is needed out of packs that are mostly dead, so that restores read less
    Compact(Box<CompactArgs>),
    /// Copy backups to another bucket, region, account or provider
    Copy(Box<CopyArgs>),
    /// List, fetch or show archived binary logs
    Binlog(BinlogArgs),
    /// Keep backups that a prune lets go of, before their grace period is over
    Undelete(UndeleteArgs),
    /// Bring back objects that were deleted or written over, in a bucket that keeps versions
    Unhide(UnhideArgs),
    /// Add, remove, list or rotate the keys of a sealed repository
    Key(KeyArgs),
    /// Serve a page that shows a server or a whole fleet, from the bucket alone
    Serve(Box<ServeArgs>),
    /// Look for what would stop a backup or a restore
    Doctor(Box<DoctorArgs>),
    /// Keep a server protected, by the schedule of the settings file
    Agent(AgentArgs),
    /// Check the settings file, or show every setting and where it came from
    Config(ConfigArgs),
    /// Print a completion script for a shell
    Completions(CompletionsArgs),
    /// Print the manual page, or write all of them into a directory
    Man(ManArgs),
}

/// Which backup.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum BackupChoice {
    /// The one that started last.
    #[default]
    Latest,
    /// The one of this name.
    Id(BackupId),
    /// The one whose name begins so.
    Beginning(String),
}

impl FromStr for BackupChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<BackupChoice, String> {
        if text == "latest" {
            return Ok(BackupChoice::Latest);
        }
        if let Ok(id) = text.parse() {
            return Ok(BackupChoice::Id(id));
        }
        let plain = |byte: u8| byte.is_ascii_digit() || b"TZ-abcdef".contains(&byte);
        if text.starts_with(|first: char| first.is_ascii_digit()) && text.bytes().all(plain) {
            return Ok(BackupChoice::Beginning(text.to_owned()));
        }
        Err("expected `latest` or a backup's name from `haulout list`, such as 20261122T170445Z-3f9a1c".to_owned())
    }
}

impl fmt::Display for BackupChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BackupChoice::Latest => f.write_str("latest"),
            BackupChoice::Id(id) => id.fmt(f),
            BackupChoice::Beginning(text) => f.write_str(text),
        }
    }
}

#[cfg(test)]
mod tests;
