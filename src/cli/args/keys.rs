//! Options of `key`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::StoreArgs;
use crate::model::SlotId;

/// Options of `key`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  haulout key list
  haulout key add --new-passphrase-file /root/passphrase --label 'in the safe'
  haulout key add --map --new-key-file /etc/haulout-agent.key --label 'for list, check and prune'
  haulout key rotate --new-key-file /etc/haulout-new.key
  haulout key remove 0f1e2d3c4b5a6978

The key that opens the repository comes from --key-file, --passphrase-file or --key-command, or their settings. Each key opens a slot, \
which wraps the keys of the repository. These never change: what was stored stays as it is, and whoever had a key and a copy of its slot \
can still open what that repository holds.")]
pub struct KeyArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: KeyCommand,
}

/// What `key` does.
#[derive(Debug, Clone, Subcommand)]
pub enum KeyCommand {
    /// Add a key
    Add(KeyAddArgs),
    /// Remove a key; never the one that is used for it
    Remove(KeyRemoveArgs),
    /// List the keys
    List(KeyListArgs),
    /// Put another key in the place of the one that is used
    Rotate(KeyRotateArgs),
}

/// What a new key is made of.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "New key")]
pub struct NewKeyArgs {
    /// Key file of the new key
    #[arg(long, value_name = "FILE", conflicts_with_all = ["new_passphrase_file", "new_key_command"])]
    pub new_key_file: Option<PathBuf>,
    /// File whose first line is the new passphrase [env: HAULOUT_NEW_PASSPHRASE is the passphrase itself]
    #[arg(long, value_name = "FILE", conflicts_with = "new_key_command")]
    pub new_passphrase_file: Option<PathBuf>,
    /// Shell command that encrypts the new key on its stdin; --key-command must decrypt it
    #[arg(long, value_name = "COMMAND")]
    pub new_key_command: Option<String>,
    /// What `key list` calls it
    #[arg(long, value_name = "TEXT")]
    pub label: Option<String>,
}

/// Options of `key add`.
#[derive(Debug, Clone, Args)]
pub struct KeyAddArgs {
    /// Let the new key open names, maps and manifests alone: enough to list, show, check and prune, and neither to back up nor to restore
    #[arg(long)]
    pub map: bool,
    /// The new key.
    #[command(flatten)]
    pub new: NewKeyArgs,
    /// The store.
    #[command(flatten)]
    pub store: StoreArgs,
}

/// Options of `key rotate`.
#[derive(Debug, Clone, Args)]
pub struct KeyRotateArgs {
    /// The new key.
    #[command(flatten)]
    pub new: NewKeyArgs,
    /// The store.
    #[command(flatten)]
    pub store: StoreArgs,
}

/// Options of `key remove`.
#[derive(Debug, Clone, Args)]
pub struct KeyRemoveArgs {
    /// Name of the key's slot, from `key list`
    #[arg(value_name = "ID")]
    pub id: SlotId,
    /// The store.
    #[command(flatten)]
    pub store: StoreArgs,
}

/// Options of `key list`.
#[derive(Debug, Clone, Args)]
pub struct KeyListArgs {
    /// The store.
    #[command(flatten)]
    pub store: StoreArgs,
}
