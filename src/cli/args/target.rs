//! Options of `restore` that choose a moment behind a backup.

use std::str::FromStr;

use clap::Args;

use crate::{cli::options::Moment, model::Gtid};

/// A place in the server's binary log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BinlogPlace {
    /// The server's file.
    pub file: String,
    /// The byte behind the last transaction.
    pub position: u64,
}

impl FromStr for BinlogPlace {
    type Err = String;

    fn from_str(text: &str) -> Result<BinlogPlace, String> {
        let place = text.rsplit_once(':').and_then(|(file, position)| {
            let position = position.parse().ok()?;
            (!file.is_empty()).then(|| BinlogPlace { file: file.to_owned(), position })
        });
        place.ok_or_else(|| {
            "expected a file of the server's binary log and a byte in it: db1-bin.000042:88061".to_owned()
        })
    }
}

/// The moment.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Any moment, from archived binary logs")]
pub struct TargetArgs {
    /// All up to the end of that second, such as '2026-11-22 14:02:59'; without an offset, in this machine's time zone
    #[arg(long, value_name = "TIME", group = "moment")]
    pub to_time: Option<Moment>,
    /// All up to that transaction, and that one too
    #[arg(long, value_name = "GTID", group = "moment")]
    pub to_gtid: Option<Gtid>,
    /// All before that transaction
    #[arg(long, value_name = "GTID", group = "moment")]
    pub before_gtid: Option<Gtid>,
    /// All up to that byte of that file of the server's binary log
    #[arg(long, value_name = "FILE:BYTE", group = "moment")]
    pub to_position: Option<BinlogPlace>,
    /// An option of mariadbd that the server needs that replays; can be given several times
    #[arg(long, value_name = "NAME=VALUE", requires = "moment")]
    pub mariadbd_option: Vec<String>,
}
