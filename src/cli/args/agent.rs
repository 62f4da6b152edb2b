//! Options of `agent` and `config`.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Subcommand};

/// Options of `agent`.
#[derive(Debug, Clone, Default, Args)]
#[command(after_help = "\
Examples:
  haulout agent --config /etc/haulout.toml
  haulout config check           whether the file is right, and what would run when

It begins what the sections [agent.backup], [agent.archive], [agent.check], [agent.drill], [agent.prune], [agent.compact] and [agent.copy] of the \
settings file say, each run as a process of its own: `haulout backup` and so on, with the settings of the same file. Runs that were missed are \
caught up with once; those that fail because another is at work, the store or the server is away, are repeated.

SIGHUP, or a change of the file, has it read anew; a file that is wrong is refused, and the one before stays in force. SIGTERM ends \
the runs in good order within 30 s; the next start repeats them. It tells systemd when it is ready (Type=notify), and that it lives.

At --listen it serves the page of its server, where runs can be begun with the token of [serve] token_file, the JSON API, /metrics (Prometheus), \
/healthz and /readyz. What others may reach, and what is borne, is set in [serve], as for `haulout serve`.")]
pub struct AgentArgs {
    /// Serve the page and the metrics at this address; nowhere unless given [env: HAULOUT_AGENT_LISTEN]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<SocketAddr>,
    /// Directory of its memory and its lock [env: HAULOUT_STATE_DIR] [default: /var/lib/haulout]
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
}

/// Commands about settings.
#[derive(Debug, Clone, Args)]
pub struct ConfigArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: ConfigCommand,
}

/// What to do with settings.
#[derive(Debug, Clone, Copy, Subcommand)]
pub enum ConfigCommand {
    /// Say whether the settings file is right, and when an agent would do what
    Check,
    /// Show every setting, and where it came from
    Show,
}
