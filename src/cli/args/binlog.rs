//! Options of `binlog`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{StoreArgs, ToolsArgs};
use crate::cli::options::Moment;

/// Options of `binlog`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  haulout binlog list
  haulout binlog list --from '2026-11-22 14:00:00' --to '2026-11-22 14:10:00' --long
  haulout binlog show --from '2026-11-22 14:00:00' --to '2026-11-22 14:10:00' | grep -B 20 'DROP TABLE'
  haulout binlog fetch --from 2026-11-22T13:00:00Z --into /tmp/binlogs

A stream is what one archiver stored of one server's binary log without a break, a segment a run of whole transactions in it. A time without \
a zone is meant in the zone of this machine, and the command says how it understood it; an offset such as +01:00, the name of a zone or Z can stand behind it. \
The times of transactions are those of the server's clock.")]
pub struct BinlogArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: BinlogCommand,
}

/// What `binlog` does.
#[derive(Debug, Clone, Subcommand)]
pub enum BinlogCommand {
    /// List streams, and with a range or --long their segments
    List(BinlogListArgs),
    /// Write each segment as a binary log file that is complete in itself
    Fetch(BinlogFetchArgs),
    /// Print events as text, by mariadb-binlog
    Show(BinlogShowArgs),
}

/// Which part of what was archived.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Range")]
pub struct BinlogRangeArgs {
    /// Leave out what came before this time
    #[arg(long, value_name = "TIME")]
    pub from: Option<Moment>,
    /// Leave out what came after this time
    #[arg(long, value_name = "TIME")]
    pub to: Option<Moment>,
    /// This stream alone: its name, or the beginning of it
    #[arg(long, value_name = "ID")]
    pub stream: Option<String>,
}

/// Options of `binlog list`.
#[derive(Debug, Clone, Default, Args)]
#[command(after_help = "\
Keys of objects tell streams and segments; with --long and --json the document of each segment is read as well, for files and positions. \
Exits with 3 when a segment is missing or cannot be read.")]
pub struct BinlogListArgs {
    /// List all segments, with files, positions and sizes
    #[arg(long, short)]
    pub long: bool,
    /// Print all columns, whatever the width of the terminal
    #[arg(long, short)]
    pub wide: bool,
    /// The range.
    #[command(flatten)]
    pub range: BinlogRangeArgs,
    /// The store.
    #[command(flatten)]
    pub store: StoreArgs,
}

/// Options of `binlog fetch`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Each segment that has a transaction of the range becomes a file STREAM-NUMBER-FILE, so that names sort; mariadb-binlog reads each by itself. \
A segment is written whole: its first and last transactions may lie outside of the range. What the bytes are is proven before a file gets its name.")]
pub struct BinlogFetchArgs {
    /// Directory to write into; made if it is not there
    #[arg(long, value_name = "DIR")]
    pub into: PathBuf,
    /// The range.
    #[command(flatten)]
    pub range: BinlogRangeArgs,
    /// The store.
    #[command(flatten)]
    pub store: StoreArgs,
}

/// Options of `binlog show`.
#[derive(Debug, Clone, Default, Args)]
#[command(after_help = "\
The events of the range, as `mariadb-binlog --base64-output=decode-rows --verbose` prints them: statements as such, changes of rows as \
commented pseudo-SQL. Times in what it prints are UTC. Of each file it ends at the first event after --to, as mariadb-binlog does. It is for reading: decoded rows cannot be replayed. Nothing is written to disk.")]
pub struct BinlogShowArgs {
    /// The range.
    #[command(flatten)]
    pub range: BinlogRangeArgs,
    /// The tools.
    #[command(flatten)]
    pub tools: ToolsArgs,
    /// The store.
    #[command(flatten)]
    pub store: StoreArgs,
}
