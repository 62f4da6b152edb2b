//! Options that make a restored server a replica.

use std::path::PathBuf;

use clap::Args;

/// How a restored server becomes a replica.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Replica")]
pub struct ReplicaArgs {
    /// Leave the statements in the datadir by which the server goes on from here as a replica
    #[arg(long)]
    pub as_replica: bool,
    /// Start the server by this command of the shell, run the statements on it, and wait until it follows
    #[arg(long, value_name = "COMMAND", requires = "as_replica")]
    pub start_replica: Option<String>,
    /// Host that the replica follows [default: the host that was backed up]
    #[arg(long, value_name = "HOST", requires = "as_replica")]
    pub source_host: Option<String>,
    /// Its TCP port [default: 3306]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..), requires = "as_replica")]
    pub source_port: Option<u16>,
    /// Account there that has REPLICATION SLAVE
    #[arg(long, value_name = "NAME", requires = "as_replica")]
    pub source_user: Option<String>,
    /// File whose first line is that account's password
    #[arg(long, value_name = "FILE", requires = "source_user")]
    pub source_password_file: Option<PathBuf>,
    /// Encrypt the replication
    #[arg(long, requires = "as_replica")]
    pub source_ssl: bool,
}
