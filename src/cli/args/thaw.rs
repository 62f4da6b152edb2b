//! Options of the commands that read what may be archived.

use clap::Args;

use crate::{cli::settings::Stretch, model::ThawTier};

/// Whether, how fast and for how long archived objects are thawed.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Archived objects")]
pub struct ThawArgs {
    /// Ask the store to thaw what is needed and archived, at the provider's price
    #[arg(long)]
    pub thaw: bool,
    /// Days for which it can be read then [default: 7]
    #[arg(long, value_name = "N", requires = "thaw", value_parser = clap::value_parser!(u32).range(1..=365))]
    pub thaw_days: Option<u32>,
    /// How fast: hours, up to two days at the lowest price, or minutes at the highest [default: standard]
    #[arg(long, value_name = "standard|bulk|expedited", requires = "thaw")]
    pub thaw_tier: Option<ThawTier>,
    /// Wait until it can be read, so long at the most [TIME when left out: 3d]
    #[arg(long, value_name = "TIME", requires = "thaw", num_args = 0..=1, require_equals = true,
          default_missing_value = "3d")]
    pub thaw_wait: Option<Stretch>,
}
