//! Options that several commands have.

use std::path::PathBuf;

use clap::{ArgAction, Args};
use url::Url;

use crate::cli::{human::ByteSize, settings::endpoint};

/// How an S3-compatible store is reached.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Object store")]
pub struct StoreArgs {
    /// Endpoint of an S3-compatible store; AWS itself needs none
    #[arg(long, value_name = "URL", value_parser = endpoint)]
    pub endpoint_url: Option<Url>,
    /// Region of the bucket
    #[arg(long, value_name = "REGION")]
    pub region: Option<String>,
    /// Profile in ~/.aws/config and ~/.aws/credentials
    #[arg(long, value_name = "NAME")]
    pub profile: Option<String>,
    /// PEM file of authorities that are trusted beside the system's
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// Upload at most so many bytes a second, as a mean over some packs
    #[arg(long, value_name = "SIZE")]
    pub limit_upload: Option<ByteSize>,
    /// Read at most so many bytes a second from the store
    #[arg(long, value_name = "SIZE")]
    pub limit_download: Option<ByteSize>,
    /// Name the bucket in the path [default with --endpoint-url]
    #[arg(long, conflicts_with = "virtual_host_style")]
    pub path_style: bool,
    /// Name the bucket in the host [default without --endpoint-url]
    #[arg(long)]
    pub virtual_host_style: bool,
}

impl StoreArgs {
    /// Whether the bucket is named in the path, if that was said.
    pub fn path_style(&self) -> Option<bool> {
        (self.path_style || self.virtual_host_style).then_some(self.path_style)
    }
}

/// How the server is reached; the names are those of `mariadb-backup`.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "MariaDB server")]
pub struct ConnectionArgs {
    /// Unix socket of the server
    #[arg(long, short = 'S', value_name = "FILE")]
    pub socket: Option<PathBuf>,
    /// Host of the server, for TCP; it must be this machine, whose files are read
    #[arg(long, short = 'H', value_name = "HOST")]
    pub host: Option<String>,
    /// TCP port of the server
    #[arg(long, short = 'P', value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
    /// Account to log in with
    #[arg(long, short = 'u', value_name = "NAME")]
    pub user: Option<String>,
    /// File whose first line is the password [env: HAULOUT_PASSWORD is the password itself]
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// The only option file that MariaDB's tools read
    #[arg(long, value_name = "FILE", conflicts_with = "defaults_extra_file")]
    pub defaults_file: Option<PathBuf>,
    /// An option file that MariaDB's tools read after the global ones
    #[arg(long, value_name = "FILE")]
    pub defaults_extra_file: Option<PathBuf>,
    /// Encrypt the connection
    #[arg(long)]
    pub ssl: bool,
    /// Do not encrypt the connection
    #[arg(long, conflicts_with_all = ["ssl", "ssl_ca", "ssl_cert", "ssl_key", "ssl_verify_server_cert"])]
    pub skip_ssl: bool,
    /// PEM file of the authority that signed the server's certificate
    #[arg(long, value_name = "FILE")]
    pub ssl_ca: Option<PathBuf>,
    /// PEM file of the client's certificate
    #[arg(long, value_name = "FILE")]
    pub ssl_cert: Option<PathBuf>,
    /// PEM file of the client's key
    #[arg(long, value_name = "FILE")]
    pub ssl_key: Option<PathBuf>,
    /// Refuse a server whose certificate bears another name
    #[arg(long, action = ArgAction::SetTrue)]
    pub ssl_verify_server_cert: bool,
}

impl ConnectionArgs {
    /// The TLS options as MariaDB's tools want them.
    pub fn tls_args(&self) -> Vec<String> {
        let flags = [
            (self.ssl, "--ssl"),
            (self.skip_ssl, "--skip-ssl"),
            (self.ssl_verify_server_cert, "--ssl-verify-server-cert"),
        ];
        let files = [("--ssl-ca", &self.ssl_ca), ("--ssl-cert", &self.ssl_cert), ("--ssl-key", &self.ssl_key)];
        let flags = flags.into_iter().filter(|(set, _)| *set).map(|(_, name)| name.to_owned());
        let files = files.into_iter().filter_map(|(name, file)| Some(format!("{name}={}", file.as_ref()?.display())));
        flags.chain(files).collect()
    }
}

/// Where MariaDB's tools are.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "MariaDB tools")]
pub struct ToolsArgs {
    /// Directory of mariadb-backup and mariadb [default: along PATH]
    #[arg(long, value_name = "DIR")]
    pub tool_dir: Option<PathBuf>,
    /// The program mariadb-backup itself
    #[arg(long, value_name = "FILE")]
    pub mariadb_backup: Option<PathBuf>,
}
