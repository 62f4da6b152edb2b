//! Every setting: its place in the file, its flag, its variable.

use std::{marker::PhantomData, net::SocketAddr, path::PathBuf};

use url::Url;

use super::{
    Layers, Listen, Origin, Price, SettingsError, Stretch,
    file::Raw,
    value::{Addresses, Owner, UpTo, Value},
};
use crate::cli::human::ByteSize;

/// Threads of `mariadb-backup` that read files; more only fight for the disk.
pub type Parallel = UpTo<64>;
/// Levels of zstd that keep up with a server; above 19 it needs gigabytes.
pub type CompressionLevel = UpTo<19>;
/// Share of a pack below which it is compacted, in percent.
pub type LiveShare = UpTo<100>;
/// Pieces that an extent may have.
pub type Pieces = UpTo<64>;
/// Niceness; 0 is that of every process.
pub type Nice = UpTo<19>;
/// Uploads in flight; each holds a pack of 16 MiB.
pub type Uploads = UpTo<32>;
/// Packs of a copy on their way at the same time; each holds 16 MiB.
pub type Transfers = UpTo<64>;
/// Seconds for which a request that fails is repeated; beyond an hour a night's backup is lost anyway.
pub type GiveUpAfter = UpTo<3600>;
/// Backups that a rule of retention keeps.
pub type KeepCount = UpTo<100_000>;
/// Ranged reads in flight.
pub type Connections = UpTo<256>;

/// A setting of type `T`.
#[derive(Debug)]
pub struct Key<T> {
    section: &'static str,
    name: &'static str,
    flag: Option<&'static str>,
    variable: Option<&'static str>,
    about: &'static str,
    value: PhantomData<fn() -> T>,
}

/// A setting of any type.
pub trait Described: Sync {
    /// Table of the settings file.
    fn section(&self) -> &'static str;
    /// Key in that table.
    fn name(&self) -> &'static str;
    /// Flag on the command line.
    fn flag(&self) -> Option<&'static str>;
    /// Environment variable.
    fn variable(&self) -> Option<&'static str>;
    /// What it is, in a few words.
    fn about(&self) -> &'static str;
    /// Checks a value of the settings file.
    ///
    /// # Errors
    /// Says what is wrong with it.
    fn check(&self, raw: &Raw) -> Result<(), String>;
    /// The value that the environment or the settings file gives, for people, and where it came from.
    ///
    /// # Errors
    /// When it is no such value.
    fn look(&self, layers: &Layers) -> Result<Option<(String, Origin)>, SettingsError>;
}

impl<T> Key<T> {
    const fn new(
        (section, name): (&'static str, &'static str),
        flag: Option<&'static str>,
        variable: Option<&'static str>,
        about: &'static str,
    ) -> Key<T> {
        Key { section, name, flag, variable, about, value: PhantomData }
    }
}

impl<T: Value> Described for Key<T> {
    fn section(&self) -> &'static str {
        self.section
    }

    fn name(&self) -> &'static str {
        self.name
    }

    fn flag(&self) -> Option<&'static str> {
        self.flag
    }

    fn variable(&self) -> Option<&'static str> {
        self.variable
    }

    fn about(&self) -> &'static str {
        self.about
    }

    fn check(&self, raw: &Raw) -> Result<(), String> {
        T::from_raw(raw).map(|_| ())
    }

    fn look(&self, layers: &Layers) -> Result<Option<(String, Origin)>, SettingsError> {
        Ok(layers.lower(self)?.map(|(value, origin)| (value.shown(), origin)))
    }
}

macro_rules! keys {
    ($($constant:ident: $type:ty = $section:literal . $name:literal, $flag:expr, $variable:expr, $about:literal;)*) => {
        $(
            #[doc = $about]
            pub static $constant: Key<$type> = Key::new(($section, $name), $flag, $variable, $about);
        )*

        /// All settings, in the order of the documentation.
        pub static ALL: &[&dyn Described] = &[$(&$constant),*];
    };
}

keys! {
    URL: String = "repository"."url", Some("--repo"), Some("HAULOUT_REPO"), "URL of the repository";

    KEY_FILE: PathBuf = "encryption"."key_file", Some("--key-file"), Some("HAULOUT_KEY_FILE"),
        "key file of a sealed repository";
    PASSPHRASE_FILE: PathBuf = "encryption"."passphrase_file", Some("--passphrase-file"), Some("HAULOUT_PASSPHRASE_FILE"),
        "file that holds the passphrase of a sealed repository";
    KEY_COMMAND: String = "encryption"."key_command", Some("--key-command"), Some("HAULOUT_KEY_COMMAND"),
        "shell command that decrypts the key of a sealed repository";

    ENDPOINT_URL: Url = "s3"."endpoint_url", Some("--endpoint-url"), Some("HAULOUT_ENDPOINT_URL"),
        "endpoint of an S3-compatible store";
    REGION: String = "s3"."region", Some("--region"), Some("HAULOUT_REGION"), "region of the bucket";
    PROFILE: String = "s3"."profile", Some("--profile"), Some("HAULOUT_PROFILE"), "profile in the AWS files";
    CA_FILE: PathBuf = "s3"."ca_file", Some("--ca-file"), Some("HAULOUT_CA_FILE"),
        "PEM file of authorities trusted beside the system's";
    PATH_STYLE: bool = "s3"."path_style", Some("--path-style"), Some("HAULOUT_PATH_STYLE"),
        "whether the bucket is named in the path rather than in the host";
    UPLOAD_CHECKSUM: bool = "s3"."upload_checksum", None, None,
        "whether uploads carry a SHA-256 for the store to check; true unless a store refuses it";
    GIVE_UP_AFTER: GiveUpAfter = "s3"."give_up_after", None, None,
        "seconds for which a request that fails is repeated; unless given some 50, and 900 in a backup whose capture has begun";
    LIMIT_UPLOAD: ByteSize = "s3"."limit_upload", Some("--limit-upload"), Some("HAULOUT_LIMIT_UPLOAD"),
        "most bytes a second that go to any store, as a mean over some packs";
    LIMIT_DOWNLOAD: ByteSize = "s3"."limit_download", Some("--limit-download"), Some("HAULOUT_LIMIT_DOWNLOAD"),
        "most bytes a second that come from any store";
    ACCESS_KEY_ID: String = "s3"."access_key_id", None, None, "access key, instead of what the AWS chain finds";
    SECRET_ACCESS_KEY_FILE: PathBuf = "s3"."secret_access_key_file", None, None, "file that holds the secret of access_key_id";
    SESSION_TOKEN_FILE: PathBuf = "s3"."session_token_file", None, None, "file that holds the token of a temporary access_key_id";

    SOCKET: PathBuf = "mariadb"."socket", Some("--socket"), Some("HAULOUT_SOCKET"), "Unix socket of the server";
    HOST: String = "mariadb"."host", Some("--host"), Some("HAULOUT_HOST"), "host of the server, for TCP";
    PORT: u16 = "mariadb"."port", Some("--port"), Some("HAULOUT_PORT"), "TCP port of the server";
    USER: String = "mariadb"."user", Some("--user"), Some("HAULOUT_USER"), "account to log in with";
    PASSWORD_FILE: PathBuf = "mariadb"."password_file", Some("--password-file"), Some("HAULOUT_PASSWORD_FILE"),
        "file that holds the account's password";
    DEFAULTS_FILE: PathBuf = "mariadb"."defaults_file", Some("--defaults-file"), Some("HAULOUT_DEFAULTS_FILE"),
        "the only option file that MariaDB's tools read";
    DEFAULTS_EXTRA_FILE: PathBuf = "mariadb"."defaults_extra_file", Some("--defaults-extra-file"),
        Some("HAULOUT_DEFAULTS_EXTRA_FILE"), "an option file that MariaDB's tools read after the global ones";
    TLS: Vec<String> = "mariadb"."tls", None, None, "TLS options for MariaDB's tools, such as \"--ssl-ca=/etc/ssl/db.pem\"";
    TOOL_DIR: PathBuf = "mariadb"."tool_dir", Some("--tool-dir"), Some("HAULOUT_TOOL_DIR"),
        "directory of MariaDB's tools";
    MARIADB_BACKUP: PathBuf = "mariadb"."mariadb_backup", Some("--mariadb-backup"), Some("HAULOUT_MARIADB_BACKUP"),
        "the program mariadb-backup itself";
    PASS_ENVIRONMENT: Vec<String> = "mariadb"."pass_environment", None, None,
        "names of variables that MariaDB's tools inherit, such as VAULT_TOKEN";

    PARALLEL: Parallel = "backup"."parallel", Some("--parallel"), Some("HAULOUT_PARALLEL"),
        "threads of mariadb-backup that read files";
    COMPRESSION_LEVEL: CompressionLevel = "backup"."compression_level", Some("--compression-level"),
        Some("HAULOUT_COMPRESSION_LEVEL"), "zstd level";
    UPLOADS: Uploads = "backup"."uploads", Some("--uploads"), Some("HAULOUT_UPLOADS"), "uploads in flight";
    SPOOL_DIR: PathBuf = "backup"."spool_dir", Some("--spool-dir"), Some("HAULOUT_SPOOL_DIR"),
        "where finished packs wait while the store is slow";
    SPOOL_SIZE: ByteSize = "backup"."spool_size", Some("--spool-size"), Some("HAULOUT_SPOOL_SIZE"),
        "how much may wait there";
    NICE: Nice = "backup"."nice", Some("--nice"), Some("HAULOUT_NICE"), "niceness of mariadb-backup";
    TOOL_ARGS: Vec<String> = "backup"."tool_args", Some("--"), None, "options handed through to mariadb-backup";

    ARCHIVE_EVERY: Stretch = "archive"."every", Some("--every"), Some("HAULOUT_ARCHIVE_EVERY"),
        "longest time from the first transaction of a segment of binary log to its end";
    SEGMENT_SIZE: ByteSize = "archive"."segment_size", Some("--segment-size"), Some("HAULOUT_SEGMENT_SIZE"),
        "bytes at which a segment of binary log ends before that";

    USE_MEMORY: ByteSize = "restore"."use_memory", Some("--use-memory"), Some("HAULOUT_USE_MEMORY"),
        "memory for mariadb-backup --prepare";
    CONNECTIONS: Connections = "restore"."connections", Some("--connections"), Some("HAULOUT_CONNECTIONS"),
        "reads from the store in flight";
    WORK_DIR: PathBuf = "restore"."work_dir", Some("--work-dir"), Some("HAULOUT_WORK_DIR"),
        "where files are put together before they move into the datadir; not used with `--reuse`";
    OWNER: Owner = "restore"."owner", Some("--owner"), Some("HAULOUT_OWNER"), "user and group of the restored files";

    DRILL_SCRATCH: PathBuf = "drill"."scratch", Some("--scratch"), Some("HAULOUT_DRILL_SCRATCH"),
        "directory in which a drill restores, empty or absent";
    DRILL_TIME: Stretch = "drill"."time", Some("--time"), Some("HAULOUT_DRILL_TIME"),
        "for how long a drill checks tables; all are checked unless given";
    DRILL_ASSERT_FILE: PathBuf = "drill"."assert_file", Some("--assert-file"), Some("HAULOUT_DRILL_ASSERT_FILE"),
        "file with statements that must each return one true value";
    MARIADBD_OPTIONS: Vec<String> = "drill"."mariadbd_options", Some("--mariadbd-option"), None,
        "options of mariadbd that the restored server needs, such as \"plugin-dir=/opt/plugins\"";

    KEEP_LAST: KeepCount = "prune"."keep_last", Some("--keep-last"), Some("HAULOUT_KEEP_LAST"), "newest backups that stay";
    KEEP_HOURLY: KeepCount = "prune"."keep_hourly", Some("--keep-hourly"), Some("HAULOUT_KEEP_HOURLY"),
        "hours of which a backup stays";
    KEEP_DAILY: KeepCount = "prune"."keep_daily", Some("--keep-daily"), Some("HAULOUT_KEEP_DAILY"),
        "days of which a backup stays";
    KEEP_WEEKLY: KeepCount = "prune"."keep_weekly", Some("--keep-weekly"), Some("HAULOUT_KEEP_WEEKLY"),
        "ISO weeks of which a backup stays";
    KEEP_MONTHLY: KeepCount = "prune"."keep_monthly", Some("--keep-monthly"), Some("HAULOUT_KEEP_MONTHLY"),
        "months of which a backup stays";
    KEEP_YEARLY: KeepCount = "prune"."keep_yearly", Some("--keep-yearly"), Some("HAULOUT_KEEP_YEARLY"),
        "years of which a backup stays";
    KEEP_WITHIN: Stretch = "prune"."keep_within", Some("--keep-within"), Some("HAULOUT_KEEP_WITHIN"),
        "time before the newest backup, within which all stay";
    KEEP_PITR: Stretch = "prune"."keep_pitr", Some("--keep-pitr"), Some("HAULOUT_KEEP_PITR"),
        "time before the newest backup, of which any second stays restorable";
    KEEP_TAGS: Vec<String> = "prune"."keep_tags", Some("--keep-tag"), Some("HAULOUT_KEEP_TAGS"),
        "tags whose backups stay";
    GRACE: Stretch = "prune"."grace", Some("--grace"), Some("HAULOUT_GRACE"), "time between a plan and its deletions";

    LIVE_SHARE: LiveShare = "compact"."live_share", Some("--live-share"), Some("HAULOUT_LIVE_SHARE"),
        "percent of a pack below which what is needed of it is moved";
    PIECES: Pieces = "compact"."pieces", Some("--pieces"), Some("HAULOUT_PIECES"),
        "chunks that an extent may lie in before they are made one";

    AGENT_NAME: String = "agent"."name", None, None, "name of the server in metrics and messages; the machine's unless given";
    AGENT_LISTEN: SocketAddr = "agent"."listen", None, Some("HAULOUT_AGENT_LISTEN"),
        "address and port of the page and the metrics of an agent, such as \"127.0.0.1:9187\"";
    AGENT_STATE_DIR: PathBuf = "agent"."state_dir", Some("--state-dir"), Some("HAULOUT_STATE_DIR"),
        "directory of the agent's memory and lock";
    AGENT_TIME_ZONE: String = "agent"."time_zone", None, None,
        "time zone of schedules that name none, such as \"Europe/Berlin\"; the machine's unless given";
    AGENT_JITTER: Stretch = "agent"."jitter", None, None,
        "longest delay of a run behind its time; of one server always the same";
    AGENT_RETRY_AFTER: Stretch = "agent"."retry_after", None, None,
        "time before a run is repeated that failed for a reason that passes; it doubles each time, up to half an hour";
    AGENT_NICE: Nice = "agent"."nice", None, None, "niceness of runs";
    AGENT_IO_CLASS: String = "agent"."io_class", None, None, "I/O class of runs: \"best-effort\" or \"idle\"";
    AGENT_HOOK_BEFORE: String = "agent.hooks"."before", None, None, "shell command before each run; it reads JSON";
    AGENT_HOOK_AFTER: String = "agent.hooks"."after", None, None, "shell command after each run; it reads JSON";
    AGENT_HOOK_TIME: Stretch = "agent.hooks"."time_limit", None, None, "time that a hook has; 60s unless given";
    AGENT_HOOK_REQUIRED: bool = "agent.hooks"."required", None, None,
        "whether a run is left out when the command before it fails; false unless given";
    AGENT_WEBHOOKS: Addresses = "agent.webhooks"."urls", None, None, "addresses that are told of runs by POST";
    AGENT_WEBHOOKS_FILE: PathBuf = "agent.webhooks"."urls_file", None, None, "file with such addresses, one a line";
    AGENT_HEARTBEAT: Addresses = "agent.heartbeat"."urls", None, None,
        "addresses that are asked by GET each time a run has succeeded and all else is well";
    AGENT_HEARTBEAT_FILE: PathBuf = "agent.heartbeat"."urls_file", None, None, "file with such addresses, one a line";
    AGENT_BACKUP_SCHEDULE: String = "agent.backup"."schedule", None, None,
        "when backups are taken, as a cron expression such as \"0 2 * * *\"";
    AGENT_FULL_SCHEDULE: String = "agent.backup"."full_schedule", None, None, "when full backups are taken";
    AGENT_FULL_EVERY: Stretch = "agent.backup"."full_every", None, None,
        "time after a full backup at which the next one of the schedule is full";
    AGENT_ARCHIVE: bool = "agent.archive"."enabled", None, None, "whether the server's binary log is archived";
    AGENT_CHECK_SCHEDULE: String = "agent.check"."schedule", None, None, "when the repository is checked";
    AGENT_EVERYTHING_WITHIN: Stretch = "agent.check"."everything_within", None, None,
        "time in which checks read every byte once, a part each; sizes alone are compared unless given";
    AGENT_DRILL_SCHEDULE: String = "agent.drill"."schedule", None, None, "when a restore is proven";
    AGENT_PRUNE_SCHEDULE: String = "agent.prune"."schedule", None, None, "when backups are let go of, by the rules of `[prune]`";
    AGENT_COMPACT_SCHEDULE: String = "agent.compact"."schedule", None, None, "when packs are compacted";
    AGENT_COPY_SCHEDULE: String = "agent.copy"."schedule", None, None, "when backups are copied to the place of `[copy]`";

    COPY_TO: String = "copy"."to", Some("--to"), Some("HAULOUT_COPY_TO"), "URL of the copy";
    TRANSFERS: Transfers = "copy"."transfers", Some("--transfers"), Some("HAULOUT_TRANSFERS"),
        "packs on their way at the same time";
    COPY_ENDPOINT_URL: Url = "copy"."endpoint_url", Some("--to-endpoint-url"), Some("HAULOUT_COPY_ENDPOINT_URL"),
        "endpoint of the copy's store, where that is S3-compatible";
    COPY_REGION: String = "copy"."region", Some("--to-region"), Some("HAULOUT_COPY_REGION"), "region of the copy's bucket";
    COPY_PROFILE: String = "copy"."profile", Some("--to-profile"), Some("HAULOUT_COPY_PROFILE"),
        "profile in the AWS files for the copy";
    COPY_CA_FILE: PathBuf = "copy"."ca_file", Some("--to-ca-file"), Some("HAULOUT_COPY_CA_FILE"),
        "PEM file of authorities trusted beside the system's, for the copy";
    COPY_PATH_STYLE: bool = "copy"."path_style", Some("--to-path-style"), Some("HAULOUT_COPY_PATH_STYLE"),
        "whether the copy's bucket is named in the path rather than in the host";
    COPY_UPLOAD_CHECKSUM: bool = "copy"."upload_checksum", None, None, "as in `[s3]`, for the copy";
    COPY_ACCESS_KEY_ID: String = "copy"."access_key_id", None, None, "access key for the copy, instead of what the AWS chain finds";
    COPY_SECRET_ACCESS_KEY_FILE: PathBuf = "copy"."secret_access_key_file", None, None,
        "file that holds the secret of access_key_id";
    COPY_SESSION_TOKEN_FILE: PathBuf = "copy"."session_token_file", None, None,
        "file that holds the token of a temporary access_key_id";

    LISTEN: Listen = "serve"."listen", Some("--listen"), Some("HAULOUT_LISTEN"),
        "address and port of the page";
    ALLOW_REMOTE: bool = "serve"."allow_remote", Some("--allow-remote"), Some("HAULOUT_ALLOW_REMOTE"),
        "whether it may listen where other machines reach it";
    ALLOW_HOSTS: Vec<String> = "serve"."hosts", Some("--allow-host"), Some("HAULOUT_ALLOW_HOSTS"),
        "further names by which browsers call the page";
    TOKEN_FILE: PathBuf = "serve"."token_file", Some("--token-file"), Some("HAULOUT_TOKEN_FILE"),
        "file that holds the token that starts runs";
    REFRESH: Stretch = "serve"."refresh", Some("--refresh"), Some("HAULOUT_REFRESH"),
        "time between two looks at a repository";
    MAX_AGE: Stretch = "serve"."max_age", Some("--max-age"), Some("HAULOUT_MAX_AGE"),
        "age from which a newest backup is too old";
    MAX_PROOF_AGE: Stretch = "serve"."max_proof_age", Some("--max-proof-age"), Some("HAULOUT_MAX_PROOF_AGE"),
        "age from which the last proven restore is too old";
    GAP_WITHIN: Stretch = "serve"."gap_within", Some("--gap-within"), Some("HAULOUT_GAP_WITHIN"),
        "time back from now in which a gap in the binary log counts";
    PRICE: Price = "serve"."price", Some("--price"), Some("HAULOUT_PRICE"),
        "price of a GiB for a month";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_settings_share_a_place_flag_or_variable() {
        let places: BTreeSet<_> = ALL.iter().map(|key| (key.section(), key.name())).collect();
        assert_eq!(places.len(), ALL.len());
        for names in [
            ALL.iter().filter_map(|key| key.flag()).collect::<Vec<_>>(),
            ALL.iter().filter_map(|key| key.variable()).collect(),
        ] {
            assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
        }
    }

    #[test]
    fn every_setting_is_documented() {
        let text = include_str!("../SETTINGS.md");
        for key in ALL {
            let row = format!(
                "| `[{}] {}` | {} | {} | {} |",
                key.section(),
                key.name(),
                key.flag().map_or("–".to_owned(), |flag| format!("`{flag}`")),
                key.variable().map_or("–".to_owned(), |name| format!("`{name}`")),
                key.about()
            );
            assert!(text.contains(&row), "SETTINGS.md lacks the row\n{row}");
        }
    }
}
