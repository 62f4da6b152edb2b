//! Options of `serve`.

use std::path::PathBuf;

use clap::Args;

use super::StoreArgs;
use crate::cli::settings::{Listen, Price, Stretch};

/// Options of `serve`.
#[derive(Debug, Clone, Default, Args)]
#[command(after_help = "\
Examples:
  haulout serve --repo s3://bucket                   every server under it, at http://127.0.0.1:8321/
  haulout serve --repo s3://bucket/db1 --max-age 2h  one server, backed up every hour
  ssh -L 8321:127.0.0.1:8321 backup-host             seen from elsewhere, without opening anything

Everything that is shown is read from the bucket: which repositories there are, their manifests, proofs of drills, prune plans and the names of archived \
binary log. It only reads, and needs no agent, no database and no right to put or delete. Pages work without JavaScript; /api/v1 has the \
same as JSON, described by /api/v1/openapi.json, and /metrics for Prometheus. Of a sealed repository that no key is given for, names and times alone are shown.

Whoever reaches the address sees names of servers, tables and machines. So it listens on this machine alone; for others to see it, put a proxy \
with TLS and a login before it, or give --allow-remote and --allow-host. Ctrl-C or SIGTERM end it.

Each look at a repository costs five listings, once a minute; of many repositories more rarely, a thousand of them every five minutes, unless --refresh says otherwise.")]
pub struct ServeArgs {
    /// Address to listen on [default: 127.0.0.1:8321]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<Listen>,
    /// Listen on an address that other machines reach
    #[arg(long)]
    pub allow_remote: bool,
    /// Further name by which browsers call this service; can be given several times
    #[arg(long, value_name = "NAME")]
    pub allow_host: Vec<String>,
    /// File whose first line is the token that starts runs, where an agent is attached
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Time between two looks at a repository, 5s to 1d
    #[arg(long, value_name = "TIME")]
    pub refresh: Option<Stretch>,
    /// Age from which a newest backup is too old [default: 26h]
    #[arg(long, value_name = "TIME")]
    pub max_age: Option<Stretch>,
    /// Age from which the last proven restore is too old; 0s asks for none [default: 35d]
    #[arg(long, value_name = "TIME")]
    pub max_proof_age: Option<Stretch>,
    /// Time back from now in which a gap in the binary log counts [default: 7d]
    #[arg(long, value_name = "TIME")]
    pub gap_within: Option<Stretch>,
    /// Price of a GiB for a month, to tell what storage costs
    #[arg(long, value_name = "NUMBER")]
    pub price: Option<Price>,
    /// The store.
    #[command(flatten)]
    pub store: StoreArgs,
}
