//! Options of `archive`.

use std::path::PathBuf;

use clap::Args;

use super::{ConnectionArgs, StoreArgs, ToolsArgs};
use crate::cli::{human::ByteSize, settings::Stretch};

/// Options of `archive`.
#[derive(Debug, Clone, Default, Args)]
#[command(after_help = "\
Examples:
  haulout archive                     for ever, as a service
  haulout archive --once              what the server has now, from cron
  haulout archive --user backup --password-file /etc/haulout.password --every 1s

It follows the server's binary log as a replica does, the file that is being written among them, and stores whole transactions at most --every after \
the first of them came. It survives restarts of the server and of itself: the next run goes on at the very byte. What the server \
purged, reset or lost before it was archived is a gap, which is recorded and told, and which no restore leads across: take a backup then. \
What the server keeps encrypted it sends in the clear: seal the repository.

Ctrl-C or SIGTERM stores what has come whole, and ends with 0. Exits with 3 when there was a gap. One archiver \
of a repository runs at a time; it need not run on the server's machine.

The account needs GRANT REPLICATION SLAVE, BINLOG MONITOR ON *.*, and the server log_bin. The spool takes what waits for the store, mostly less than \
the segment's size and 1 MiB; on a file system that cannot punch holes, as much as the server's max_binlog_size besides.")]
pub struct ArchiveArgs {
    /// Longest time from the first transaction of a segment to its end, 1s to 1h [default: 5s]
    #[arg(long, value_name = "TIME")]
    pub every: Option<Stretch>,
    /// Bytes at which a segment ends before that, 64KiB to 1GiB [default: 16MiB]
    #[arg(long, value_name = "SIZE")]
    pub segment_size: Option<ByteSize>,
    /// Archive what the server has when it begins, and end
    #[arg(long)]
    pub once: bool,
    /// Where what was received waits to be stored [default: TMPDIR or /var/tmp]
    #[arg(long, value_name = "DIR")]
    pub spool_dir: Option<PathBuf>,
    /// Most that may wait there; then no more is received until it is stored [default: 4GiB]
    #[arg(long, value_name = "SIZE")]
    pub spool_size: Option<ByteSize>,
    /// The server.
    #[command(flatten)]
    pub connection: ConnectionArgs,
    /// The tools.
    #[command(flatten)]
    pub tools: ToolsArgs,
    /// The store.
    #[command(flatten)]
    pub store: StoreArgs,
}
