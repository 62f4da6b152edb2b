//! Settings put together for one operation: plain values, every layer resolved.

mod agent;
mod archive;
mod binlog;
mod copy;
mod drill;
mod moment;
mod prune;
mod serve;
mod thaw;

pub use agent::AgentSettings;
pub use archive::ArchiveSettings;
pub use binlog::BinlogSettings;
pub use copy::{CopyChoice, CopySettings, place as copy_place};
pub use drill::DrillSettings;
pub use moment::{Moment, Understood};
pub use prune::{CompactSettings, PruneSettings};
pub use serve::{PageSettings, ServeSettings};

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use url::Url;

use super::{
    args::{
        BackupArgs, BackupChoice, BackupMode, ConnectionArgs, MoveArgs, PrepareArgs, ReplicaArgs, RestoreArgs,
        RestoreTableArgs, StoreArgs, TargetArgs, ToolsArgs,
    },
    human::ByteSize,
    secret::SecretFile,
    settings::{
        Layers, Owner, SettingsError, Value, check_tool_args,
        keys::{self, CompressionLevel, Connections, Described as _, Key, Nice, Parallel, Uploads},
        server_options,
    },
};
use crate::{
    model::Secret,
    restore::{ReplicaSource, Target, ThawOptions},
};

/// Variables that MariaDB's tools inherit: where they find their libraries and put their files, and the time zone.
const TOOL_VARIABLES: [&str; 3] = ["LD_LIBRARY_PATH", "TMPDIR", "TZ"];

/// Directories searched for MariaDB's tools after those of PATH, which lacks `sbin` for most users.
const TOOL_DIRECTORIES: [&str; 4] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin"];

/// Where the repository is and how it is reached.
#[derive(Debug, Clone)]
pub struct StoreSettings {
    /// URL of the repository as it was given.
    pub url: String,
    /// Endpoint of an S3-compatible store.
    pub endpoint_url: Option<Url>,
    /// Region of the bucket.
    pub region: Option<String>,
    /// Profile in the AWS files.
    pub profile: Option<String>,
    /// PEM file of authorities trusted beside the system's.
    pub ca_file: Option<PathBuf>,
    /// Whether the bucket is named in the path; the store decides when absent.
    pub path_style: Option<bool>,
    /// Whether uploads carry a SHA-256.
    pub upload_checksum: bool,
    /// Seconds for which a request that fails is repeated; the store's own default when absent.
    pub give_up_after: Option<u32>,
    /// Keys that win over what the AWS chain finds.
    pub access_key: Option<AccessKey>,
    /// Most bytes a second that are uploaded.
    pub upload_rate_max: Option<u64>,
    /// Most bytes a second that are read.
    pub download_rate_max: Option<u64>,
    /// Uploads in flight; the store's own default when absent.
    pub uploads_max: Option<usize>,
    /// Reads in flight; the store's own default when absent.
    pub reads_max: Option<usize>,
}

/// Keys of an S3 account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessKey {
    /// Access key id.
    pub id: String,
    /// Secret access key.
    pub secret: Secret,
    /// Token of temporary keys.
    pub session_token: Option<Secret>,
}

impl StoreSettings {
    /// Resolves the repository's settings; `url` is the `--repo` of the command line.
    ///
    /// # Errors
    /// When no repository is named, a value is wrong, or a secret cannot be read.
    pub fn assemble(layers: &Layers, url: Option<&str>, args: &StoreArgs) -> Result<StoreSettings, SettingsError> {
        let url = layers.pick(&keys::URL, url.map(str::to_owned))?.ok_or(SettingsError::NoRepository)?;
        Ok(StoreSettings {
            url,
            endpoint_url: layers.pick(&keys::ENDPOINT_URL, args.endpoint_url.clone())?,
            region: layers.pick(&keys::REGION, args.region.clone())?,
            profile: layers.pick(&keys::PROFILE, args.profile.clone())?,
            ca_file: layers.pick(&keys::CA_FILE, args.ca_file.clone())?,
            path_style: layers.pick(&keys::PATH_STYLE, args.path_style())?,
            upload_checksum: layers.pick_or(&keys::UPLOAD_CHECKSUM, None, true)?,
            give_up_after: layers.pick(&keys::GIVE_UP_AFTER, None)?.map(keys::GiveUpAfter::get),
            // A profile on the command line beats keys in the file.
            access_key: if args.profile.is_some() { None } else { access_key(layers)? },
            upload_rate_max: rate(layers, &keys::LIMIT_UPLOAD, args.limit_upload)?,
            download_rate_max: rate(layers, &keys::LIMIT_DOWNLOAD, args.limit_download)?,
            uploads_max: None,
            reads_max: None,
        })
    }
}

/// Slowest line: below it a pack of 16 MiB takes longer than a request may.
const RATE_MIN: u64 = 64 << 10;

/// Bytes a second that may go over the line.
fn rate(layers: &Layers, key: &'static Key<ByteSize>, flag: Option<ByteSize>) -> Result<Option<u64>, SettingsError> {
    match layers.pick(key, flag)? {
        Some(ByteSize(rate)) if rate < RATE_MIN => {
            let (origin, key) = ("a setting of the store".to_owned(), format!("[{}] {}", key.section(), key.name()));
            Err(SettingsError::BadValue { origin, key, problem: "expected 64KiB a second or more".to_owned() })
        }
        rate => Ok(rate.map(|rate| rate.0)),
    }
}

fn access_key(layers: &Layers) -> Result<Option<AccessKey>, SettingsError> {
    let id = layers.pick(&keys::ACCESS_KEY_ID, None)?;
    let secret = layers.pick(&keys::SECRET_ACCESS_KEY_FILE, None)?;
    let token = layers.pick(&keys::SESSION_TOKEN_FILE, None)?;
    let half = |present, absent| SettingsError::HalfAccessKey { present, absent };
    match (id, secret) {
        (Some(id), Some(path)) => Ok(Some(AccessKey {
            id,
            secret: secret_of(layers, "[s3] secret_access_key_file", &path)?,
            session_token: token.map(|path| secret_of(layers, "[s3] session_token_file", &path)).transpose()?,
        })),
        (None, None) if token.is_none() => Ok(None),
        (Some(_), None) => Err(half("access_key_id", "secret_access_key_file")),
        (None, Some(_)) => Err(half("secret_access_key_file", "access_key_id")),
        (None, None) => Err(half("session_token_file", "access_key_id")),
    }
}

pub(super) fn secret_of(layers: &Layers, key: &'static str, path: &Path) -> Result<Secret, SettingsError> {
    let file = SecretFile::read(path).map_err(|source| SettingsError::Secret { key, source })?;
    if file.exposed {
        layers.warn(format!("secret file {} can be read by every user; run `chmod o= {0}`", path.display()));
    }
    Ok(file.secret)
}

/// Ways to the server; what is absent is left to MariaDB's option files.
#[derive(Debug, Clone)]
pub struct ConnectionSettings {
    /// The only option file that the tools read.
    pub defaults_file: Option<PathBuf>,
    /// An option file that the tools read after the global ones.
    pub defaults_extra_file: Option<PathBuf>,
    /// Unix socket of the server.
    pub socket: Option<PathBuf>,
    /// Host of the server.
    pub host: Option<String>,
    /// TCP port of the server.
    pub port: Option<u16>,
    /// Account to log in with.
    pub user: Option<String>,
    /// Password of the account.
    pub password: Option<Secret>,
    /// TLS options of the tools.
    pub tls_args: Vec<String>,
    /// Directory whose `.my.cnf` the tools read.
    pub home: Option<PathBuf>,
}

impl ConnectionSettings {
    /// Resolves the connection's settings.
    ///
    /// # Errors
    /// When a value is wrong, or the password is unreadable or given twice.
    pub fn assemble(layers: &Layers, args: &ConnectionArgs) -> Result<ConnectionSettings, SettingsError> {
        let mut tls_args = args.tls_args();
        if tls_args.is_empty() {
            tls_args = layers.pick_or(&keys::TLS, None, Vec::new())?;
        }
        const TLS_OPTIONS: [&str; 5] = ["--ssl", "--skip-ssl", "--disable-ssl", "--tls-version", "--protocol"];
        if let Some(arg) = tls_args.iter().find(|arg| !TLS_OPTIONS.iter().any(|option| arg.starts_with(option))) {
            let option = arg.split('=').next().unwrap_or_default().to_owned();
            return Err(SettingsError::NotTls { option });
        }
        // A way named by a flag is not mixed with another way from below.
        let (file, extra) = (args.defaults_file.is_some(), args.defaults_extra_file.is_some());
        let (socket, tcp) = (args.socket.is_some(), args.host.is_some() || args.port.is_some());
        Ok(ConnectionSettings {
            defaults_file: pick_if(!extra, layers, &keys::DEFAULTS_FILE, args.defaults_file.clone())?,
            defaults_extra_file: pick_if(!file, layers, &keys::DEFAULTS_EXTRA_FILE, args.defaults_extra_file.clone())?,
            socket: pick_if(!tcp, layers, &keys::SOCKET, args.socket.clone())?,
            host: pick_if(!socket, layers, &keys::HOST, args.host.clone())?,
            port: pick_if(!socket, layers, &keys::PORT, args.port)?,
            user: layers.pick(&keys::USER, args.user.clone())?,
            password: password(layers, args)?,
            tls_args,
            home: layers.environment.home(),
        })
    }
}

/// Picks the value of `key`; the flag's alone unless `below`.
fn pick_if<T: Value>(
    below: bool,
    layers: &Layers,
    key: &'static Key<T>,
    flag: Option<T>,
) -> Result<Option<T>, SettingsError> {
    if below || flag.is_some() { layers.pick(key, flag) } else { Ok(None) }
}

fn password(layers: &Layers, args: &ConnectionArgs) -> Result<Option<Secret>, SettingsError> {
    const VARIABLE: &str = "HAULOUT_PASSWORD";
    let variable = layers.environment.get(VARIABLE);
    let path = layers.pick(&keys::PASSWORD_FILE, args.password_file.clone())?;
    match (path, variable) {
        // Whoever says either on the command line means it.
        (Some(path), _) if args.password_file.is_some() => secret_of(layers, "--password-file", &path).map(Some),
        (Some(_), Some(_)) if layers.environment.get("HAULOUT_PASSWORD_FILE").is_some() => {
            Err(SettingsError::TwoPasswords { one: VARIABLE.to_owned(), other: "HAULOUT_PASSWORD_FILE".to_owned() })
        }
        (_, Some(value)) => match value.to_str() {
            Some(text) => Ok(Some(Secret::new(text))),
            None => Err(SettingsError::BadValue {
                origin: format!("environment variable {VARIABLE}"),
                key: "password".to_owned(),
                problem: "it is not UTF-8".to_owned(),
            }),
        },
        (Some(path), None) => secret_of(layers, "[mariadb] password_file", &path).map(Some),
        (None, None) => Ok(None),
    }
}

/// Where MariaDB's tools are and what they inherit.
#[derive(Debug, Clone)]
pub struct ToolSettings {
    /// The program `mariadb-backup` itself.
    pub mariadb_backup: Option<PathBuf>,
    /// Directories to search, in this order.
    pub search: Vec<PathBuf>,
    /// Environment that the tools get.
    pub environment: Vec<(OsString, OsString)>,
}

impl ToolSettings {
    /// Resolves where the tools are: in `--tool-dir` alone, or along PATH.
    ///
    /// # Errors
    /// When a value is wrong.
    pub fn assemble(layers: &Layers, args: &ToolsArgs) -> Result<ToolSettings, SettingsError> {
        let directory = layers.pick(&keys::TOOL_DIR, args.tool_dir.clone())?;
        let search = match directory {
            Some(directory) => vec![directory],
            None => {
                let path = layers.environment.get("PATH").unwrap_or_default();
                let own = std::env::split_paths(path).filter(|directory| directory.is_absolute());
                own.chain(TOOL_DIRECTORIES.map(PathBuf::from)).collect()
            }
        };
        let named = layers.pick_or(&keys::PASS_ENVIRONMENT, None, Vec::new())?;
        let names = TOOL_VARIABLES.into_iter().chain(named.iter().map(String::as_str));
        let value = |name: &str| Some((name.into(), layers.environment.get(name)?.to_owned()));
        Ok(ToolSettings {
            mariadb_backup: layers.pick(&keys::MARIADB_BACKUP, args.mariadb_backup.clone())?,
            search,
            environment: names.filter_map(value).collect(),
        })
    }
}

/// All that `backup` needs to know.
#[derive(Debug, Clone)]
pub struct BackupSettings {
    /// The repository.
    pub store: StoreSettings,
    /// The server.
    pub connection: ConnectionSettings,
    /// MariaDB's tools.
    pub tools: ToolSettings,
    /// Full, incremental, or whichever is safe.
    pub mode: BackupMode,
    /// Threads of `mariadb-backup`.
    pub parallel: Parallel,
    /// zstd level.
    pub compression_level: CompressionLevel,
    /// Uploads in flight.
    pub uploads: Uploads,
    /// Where packs wait while the store is slow.
    pub spool_dir: PathBuf,
    /// How much may wait there.
    pub spool_size: ByteSize,
    /// Niceness of `mariadb-backup`; haulout's own when absent.
    pub nice: Option<Nice>,
    /// Options handed through to `mariadb-backup`, checked.
    pub tool_args: Vec<String>,
    /// Words that the backup gets.
    pub tags: Vec<String>,
}

impl BackupSettings {
    /// Resolves the settings of `backup`.
    ///
    /// # Errors
    /// When a value is wrong or an option must not be handed through.
    pub fn assemble(layers: &Layers, url: Option<&str>, args: &BackupArgs) -> Result<BackupSettings, SettingsError> {
        let given = Some(args.tool_args.clone()).filter(|given| !given.is_empty());
        let tool_args = layers.pick_or(&keys::TOOL_ARGS, given, Vec::new())?;
        check_tool_args(&tool_args)?;
        let spool = SpoolSettings::assemble(layers, args.spool_dir.clone(), args.spool_size)?;
        let uploads = layers.pick_or(&keys::UPLOADS, args.uploads, Uploads::clamped(4))?;
        let store = StoreSettings::assemble(layers, url, &args.store)?;
        Ok(BackupSettings {
            store: StoreSettings { uploads_max: Some(uploads.get() as usize), ..store },
            connection: ConnectionSettings::assemble(layers, &args.connection)?,
            tools: ToolSettings::assemble(layers, &args.tools)?,
            mode: args.mode(),
            parallel: layers.pick_or(&keys::PARALLEL, args.parallel, Parallel::clamped(2))?,
            compression_level: layers.pick_or(
                &keys::COMPRESSION_LEVEL,
                args.compression_level,
                CompressionLevel::clamped(1),
            )?,
            uploads,
            spool_dir: spool.directory,
            spool_size: spool.size,
            nice: layers.pick(&keys::NICE, args.nice)?,
            tool_args,
            tags: args.tag.clone(),
        })
    }
}

/// Where packs wait while the store is slow.
#[derive(Debug, Clone)]
pub struct SpoolSettings {
    /// The directory.
    pub directory: PathBuf,
    /// How much may wait there.
    pub size: ByteSize,
}

impl SpoolSettings {
    /// Resolves them; the arguments are the flags.
    ///
    /// # Errors
    /// When a value is wrong.
    pub fn assemble(
        layers: &Layers,
        directory: Option<PathBuf>,
        size: Option<ByteSize>,
    ) -> Result<SpoolSettings, SettingsError> {
        let usual = layers.environment.scratch_directory();
        Ok(SpoolSettings {
            directory: layers.pick_or(&keys::SPOOL_DIR, directory, usual)?,
            size: layers.pick_or(&keys::SPOOL_SIZE, size, ByteSize::mib(4096))?,
        })
    }
}

/// All that reading from the repository needs to know.
#[derive(Debug, Clone)]
pub struct ReadSettings {
    /// The repository.
    pub store: StoreSettings,
    /// Reads in flight.
    pub connections: Connections,
    /// Whether what is archived is thawed first.
    pub thaw: Option<ThawOptions>,
}

impl ReadSettings {
    /// Resolves them; `connections` is the flag.
    ///
    /// # Errors
    /// When a value is wrong.
    pub fn assemble(
        layers: &Layers,
        url: Option<&str>,
        store: &StoreArgs,
        connections: Option<Connections>,
    ) -> Result<ReadSettings, SettingsError> {
        let connections = layers.pick_or(&keys::CONNECTIONS, connections, Connections::clamped(16))?;
        let store = StoreSettings::assemble(layers, url, store)?;
        let store = StoreSettings { reads_max: Some(connections.get() as usize), ..store };
        Ok(ReadSettings { store, connections, thaw: None })
    }
}

/// All that preparing a directory needs to know.
#[derive(Debug, Clone)]
pub struct PrepareSettings {
    /// MariaDB's tools.
    pub tools: ToolSettings,
    /// Memory that `--prepare` may use; by the length of the redo log when absent.
    pub use_memory: Option<ByteSize>,
}

impl PrepareSettings {
    /// Resolves them.
    ///
    /// # Errors
    /// When a value is wrong.
    pub fn assemble(layers: &Layers, args: &PrepareArgs) -> Result<PrepareSettings, SettingsError> {
        Ok(PrepareSettings {
            tools: ToolSettings::assemble(layers, &args.tools)?,
            use_memory: layers.pick(&keys::USE_MEMORY, args.use_memory)?,
        })
    }
}

/// A directory that is to become the datadir, by a move or a copy.
#[derive(Debug, Clone)]
pub struct OwnedMove {
    /// The prepared directory.
    pub target: PathBuf,
    /// The datadir.
    pub datadir: PathBuf,
    /// Owner of the files; their present one when absent.
    pub owner: Option<Owner>,
}

impl OwnedMove {
    /// Resolves it.
    ///
    /// # Errors
    /// When a value is wrong.
    pub fn assemble(layers: &Layers, args: &MoveArgs) -> Result<OwnedMove, SettingsError> {
        Ok(OwnedMove {
            target: args.target.clone(),
            datadir: args.datadir.clone(),
            owner: layers.pick(&keys::OWNER, args.owner.clone())?,
        })
    }
}

/// All that `restore` needs to know.
#[derive(Debug, Clone)]
pub struct RestoreSettings {
    /// Where to read.
    pub read: ReadSettings,
    /// Which backup.
    pub backup: BackupChoice,
    /// How to prepare it.
    pub prepare: PrepareSettings,
    /// The datadir.
    pub datadir: PathBuf,
    /// Owner of the files.
    pub owner: Option<Owner>,
    /// Where the files are put together; beside the datadir when absent.
    pub work_dir: Option<PathBuf>,
    /// Write over what is in the datadir.
    pub reuse: bool,
    /// Only say what would be done.
    pub dry_run: bool,
    /// How the server becomes a replica, if it does.
    pub replica: Option<ReplicaSettings>,
    /// Whether the server is told where it stands in its Galera cluster.
    pub galera: bool,
    /// The moment behind the backup that it is to become.
    pub target: Option<TargetSettings>,
}

/// A moment that is restored.
#[derive(Debug, Clone)]
pub struct TargetSettings {
    /// The moment.
    pub target: Target,
    /// How it was understood, where it is a time.
    pub time: Option<Understood>,
    /// Options of the server that replays, as it takes them, checked.
    pub server_options: Vec<String>,
}

impl TargetSettings {
    fn assemble(layers: &Layers, args: &TargetArgs) -> Result<Option<TargetSettings>, SettingsError> {
        let TargetArgs { to_time, to_gtid, before_gtid, to_position, mariadbd_option } = args;
        let local = layers.environment.zone.as_ref();
        let understood = to_time.as_ref().map(|time| time.understood(local, "--to-time")).transpose()?;
        let time = understood.as_ref().map(|time| Target::Time(time.moment.whole_seconds()));
        let place = to_position.as_ref();
        let place = place.map(|place| Target::Position { file: place.file.clone(), position: place.position });
        let target = time.or(to_gtid.map(Target::Gtid)).or(before_gtid.map(Target::BeforeGtid)).or(place);
        let Some(target) = target else { return Ok(None) };
        let given = Some(mariadbd_option.clone()).filter(|given| !given.is_empty());
        let given = layers.pick_or(&keys::MARIADBD_OPTIONS, given, Vec::new())?;
        Ok(Some(TargetSettings { target, time: understood, server_options: server_options(&given)? }))
    }
}

/// How a restored server becomes a replica.
#[derive(Debug, Clone)]
pub struct ReplicaSettings {
    /// The server that it follows.
    pub source: ReplicaSource,
    /// The command that starts the restored server, and how that is reached then.
    pub start: Option<(String, ConnectionSettings)>,
}

impl ReplicaSettings {
    fn assemble(
        layers: &Layers,
        args: &ReplicaArgs,
        connection: &ConnectionArgs,
    ) -> Result<Option<ReplicaSettings>, SettingsError> {
        if !args.as_replica {
            return Ok(None);
        }
        let password = args.source_password_file.as_deref();
        let password = password.map(|path| secret_of(layers, "--source-password-file", path)).transpose()?;
        let start = args.start_replica.clone();
        Ok(Some(ReplicaSettings {
            source: ReplicaSource {
                host: args.source_host.clone(),
                port: args.source_port,
                user: args.source_user.clone(),
                password,
                ssl: args.source_ssl,
            },
            start: start.map(|command| Ok((command, ConnectionSettings::assemble(layers, connection)?))).transpose()?,
        }))
    }
}

impl RestoreSettings {
    /// Resolves the settings of `restore`.
    ///
    /// # Errors
    /// When a value is wrong.
    pub fn assemble(layers: &Layers, url: Option<&str>, args: &RestoreArgs) -> Result<RestoreSettings, SettingsError> {
        Ok(RestoreSettings {
            read: ReadSettings::assemble(layers, url, &args.store, args.connections)?
                .thawing(&args.thaw, args.dry_run)?,
            backup: args.backup.clone(),
            prepare: PrepareSettings::assemble(layers, &args.prepare)?,
            datadir: args.datadir.clone(),
            owner: layers.pick(&keys::OWNER, args.owner.clone())?,
            // What is reused is put together where it is.
            work_dir: layers.pick(&keys::WORK_DIR, args.work_dir.clone())?.filter(|_| !args.reuse),
            reuse: args.reuse,
            dry_run: args.dry_run,
            replica: ReplicaSettings::assemble(layers, &args.replica, &args.connection)?,
            galera: args.galera,
            target: TargetSettings::assemble(layers, &args.target)?,
        })
    }
}

/// A table that comes back into a running server.
#[derive(Debug, Clone)]
pub struct RestoreTableSettings {
    /// The repository, read.
    pub read: ReadSettings,
    /// Preparing.
    pub prepare: PrepareSettings,
    /// The server.
    pub connection: ConnectionSettings,
}

impl RestoreTableSettings {
    /// Resolves the settings of `restore-table`.
    ///
    /// # Errors
    /// When a value is wrong.
    pub fn assemble(
        layers: &Layers,
        url: Option<&str>,
        args: &RestoreTableArgs,
    ) -> Result<RestoreTableSettings, SettingsError> {
        Ok(RestoreTableSettings {
            read: ReadSettings::assemble(layers, url, &args.store, args.connections)?
                .thawing(&args.thaw, args.dry_run)?,
            prepare: PrepareSettings::assemble(layers, &args.prepare)?,
            connection: ConnectionSettings::assemble(layers, &args.connection)?,
        })
    }
}

#[cfg(test)]
mod tests;
