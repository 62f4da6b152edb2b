//! Options of the single commands.

use std::{num::NonZeroU32, path::PathBuf};

use clap::Args;
use clap_complete::Shell;

use super::{BackupChoice, ConnectionArgs, CopyPlaceArgs, ReplicaArgs, StoreArgs, TargetArgs, ThawArgs, ToolsArgs};
use crate::{
    cli::{
        human::ByteSize,
        settings::{
            Owner,
            keys::{CompressionLevel, Connections, Nice, Parallel, Uploads},
        },
    },
    model::{LockMode, LockPolicy},
    restore::{TableName, TablePattern},
};

/// Options of `init`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  haulout --repo s3://bucket/db1 init
  haulout --repo s3://bucket/db1 init --endpoint-url https://s3.example.com --region eu-1
  haulout --repo s3://bucket/db1 init --lock 30d
  haulout --repo file:///backup/db1 init
  haulout --repo s3://bucket/db1 init --encrypt --key-file /etc/haulout.key

A bucket must exist already; a directory is created. A key file is 32 random bytes in hexadecimal digits (openssl rand -hex 32), or any file of 32 bytes or more. \
Without a key that opens it, nothing in a sealed repository can ever be read again.

With --lock every object is put with object lock, leases left out, and each backup extends the locks of the older objects \
that it needs: from its commit on it is locked as a whole for the period. The bucket needs versioning and object lock, which \
is set when it is made. What is locked costs its storage until the lock ends, a third of the period later at most, and with \
`compliance` nobody can change that, the owner of the account included.")]
pub struct InitArgs {
    /// Lock every object for this many days
    #[arg(long, value_name = "DAYS")]
    pub lock: Option<LockPeriod>,
    /// Who may lift a lock early: nobody, or whoever has s3:BypassGovernanceRetention
    #[arg(long, value_name = "compliance|governance", requires = "lock", default_value_t = LockMode::Compliance)]
    pub lock_mode: LockMode,
    /// Seal all that is stored, with the key of --key-file, --passphrase-file, or --key-command and --new-key-command
    #[arg(long)]
    pub encrypt: bool,
    /// With --encrypt: shell command that encrypts the key on its stdin for --key-command
    #[arg(long, value_name = "COMMAND", requires = "encrypt")]
    pub new_key_command: Option<String>,
    /// With --encrypt: what `key list` calls this key
    #[arg(long, value_name = "TEXT", requires = "encrypt")]
    pub label: Option<String>,
    /// The store.
    #[command(flatten)]
    pub store: StoreArgs,
}

/// A number of days, such as `30d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LockPeriod(pub NonZeroU32);

impl std::str::FromStr for LockPeriod {
    type Err = String;

    fn from_str(text: &str) -> Result<LockPeriod, String> {
        let days = text.strip_suffix('d').unwrap_or(text).parse().ok();
        let days = days.filter(|days: &NonZeroU32| days.get() <= LockPolicy::DAYS_MAX);
        days.map(LockPeriod).ok_or_else(|| format!("expected days, 1d to {}d", LockPolicy::DAYS_MAX))
    }
}

impl InitArgs {
    /// How objects are to be locked.
    pub fn lock_policy(&self) -> Option<LockPolicy> {
        self.lock.map(|LockPeriod(days)| LockPolicy { mode: self.lock_mode, days })
    }
}

/// How a backup is to be captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackupMode {
    /// An incremental where that is safe, otherwise a full.
    Automatic,
    /// A full.
    Full,
    /// An incremental, or nothing.
    Incremental,
}

/// Options of `backup`.
#[derive(Debug, Clone, Default, Args)]
#[command(after_help = "\
Examples:
  haulout backup                      an incremental where that is safe, else a full
  haulout backup --full               all pages; nothing is stored twice for it
  haulout backup --user backup --password-file /etc/haulout.password
  haulout backup -- --throttle=40     an option of mariadb-backup

The account needs GRANT RELOAD, PROCESS, LOCK TABLES, BINLOG MONITOR ON *.*; `haulout doctor` tells what is missing.")]
pub struct BackupArgs {
    /// Read all pages
    #[arg(long, conflicts_with = "incremental")]
    pub full: bool,
    /// Read the pages that are newer than the last backup; fail where that is not safe
    #[arg(long)]
    pub incremental: bool,
    /// Threads of mariadb-backup that read files [default: 2]
    #[arg(long, value_name = "N")]
    pub parallel: Option<Parallel>,
    /// zstd level, 1 (fast) to 19 (small) [default: 1]
    #[arg(long, value_name = "LEVEL")]
    pub compression_level: Option<CompressionLevel>,
    /// Uploads in flight; each holds 16 MiB of memory [default: 4]
    #[arg(long, value_name = "N")]
    pub uploads: Option<Uploads>,
    /// Where finished packs wait while the store is slow [default: TMPDIR or /var/tmp]
    #[arg(long, value_name = "DIR")]
    pub spool_dir: Option<PathBuf>,
    /// Most that may wait there [default: 4GiB]
    #[arg(long, value_name = "SIZE")]
    pub spool_size: Option<ByteSize>,
    /// Niceness of mariadb-backup, 1 to 19 [default: that of haulout]
    #[arg(long, value_name = "N")]
    pub nice: Option<Nice>,
    /// A word for this backup, by which `prune --keep-tag` keeps it; can be given several times
    #[arg(long, value_name = "TAG", value_parser = tag)]
    pub tag: Vec<String>,
    /// Options handed through to mariadb-backup
    #[arg(last = true, value_name = "MARIADB_BACKUP_OPTION")]
    pub tool_args: Vec<String>,
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

/// Most bytes of a tag.
const TAG_BYTES_MAX: usize = 100;

fn tag(text: &str) -> Result<String, String> {
    let plain = |char: char| char.is_alphanumeric() || "-_.:/@+".contains(char);
    if text.is_empty() || text.len() > TAG_BYTES_MAX || !text.chars().all(plain) {
        return Err(format!("expected a word of letters, digits and -_.:/@+, at most {TAG_BYTES_MAX} bytes"));
    }
    Ok(text.to_owned())
}

impl BackupArgs {
    /// How the backup is to be captured.
    pub fn mode(&self) -> BackupMode {
        match (self.full, self.incremental) {
            (true, _) => BackupMode::Full,
            (false, true) => BackupMode::Incremental,
            (false, false) => BackupMode::Automatic,
        }
    }
}

/// Options of `list`.
#[derive(Debug, Clone, Default, Args)]
#[command(after_help = "\
Each full backup begins a lineage; an incremental stands below the backup that it builds on. Each of them restores \
in one pass. On a narrow terminal some columns are left out; in a pipe all are there.

Where --repo is no repository, those are listed that lie in the folders under it, four deep at most: \
`haulout list --repo s3://bucket` finds what a fleet has stored there.")]
pub struct ListArgs {
    /// Print all columns, whatever the width of the terminal
    #[arg(long, short)]
    pub wide: bool,
    /// List the times of which any second can be restored, and the gaps between them
    #[arg(long, conflicts_with = "copy")]
    pub windows: bool,
    /// Tell how far the copy is behind, and with --json which backups it has
    #[arg(long)]
    pub copy: bool,
    /// The copy.
    #[command(flatten)]
    pub place: CopyPlaceArgs,
    /// The store.
    #[command(flatten)]
    pub store: StoreArgs,
}

/// Options of `show`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
With --tables: what is inside, by the names of the files. LOGICAL is what the files of a table take once restored, STORED \
what their chunks take in the repository, which other backups may share. The server's own schemas have a line each.")]
pub struct ShowArgs {
    /// Name of the backup, the beginning of one, or `latest`
    #[arg(value_name = "ID", default_value_t = BackupChoice::Latest)]
    pub backup: BackupChoice,
    /// List the tables inside, with their sizes
    #[arg(long)]
    pub tables: bool,
    /// Print all columns, whatever the width of the terminal
    #[arg(long, short, requires = "tables")]
    pub wide: bool,
    /// The store.
    #[command(flatten)]
    pub store: StoreArgs,
}

/// Memory and tools for preparing.
#[derive(Debug, Clone, Default, Args)]
pub struct PrepareArgs {
    /// Memory for mariadb-backup --prepare [default: 1GiB, or three times the redo log if the machine has it]
    #[arg(long, value_name = "SIZE")]
    pub use_memory: Option<ByteSize>,
    /// The tools.
    #[command(flatten)]
    pub tools: ToolsArgs,
}

/// Options of `restore`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  haulout restore --datadir /var/lib/mysql --owner mysql:mysql
  haulout restore --datadir /var/lib/mysql --backup 20261122T170445Z-3f9a1c --dry-run
  haulout restore --datadir /var/lib/mysql --to-time '2026-11-22 14:02:59'
  haulout restore --datadir /var/lib/mysql --reuse
  haulout restore --datadir /var/lib/mysql --as-replica --source-host db1 --source-user repl --source-password-file /etc/repl

Stop the server first, and move the old datadir away: it must be empty or absent. Until the last step it is not \
touched. The single steps are `fetch`, `prepare`, and `move-back` or `copy-back`.

With --to-time, --to-gtid, --before-gtid or --to-position the newest backup before that moment is restored, and what `haulout archive` has of \
the server's binary log is replayed on it: by a server of this machine's mariadbd, which nobody else can reach, before anything comes into the \
datadir. Each transaction is replayed once, up to the moment and no further. `haulout list --windows` tells which moments there are. What \
the server needs to start on the files is given by --mariadbd-option, such as --mariadbd-option lower_case_table_names=1.

With --reuse the datadir may hold an older or broken state of the same server: it is written over, and only what differs is \
fetched. That needs no room for a second copy, and takes the old state away: the datadir becomes DATADIR.haulout, and \
is a datadir again when the restore is done. What the backup does not have is moved to DATADIR.haulout-aside. A run that was \
stopped is gone on with by the same command. With --dry-run all of it is read, and the bytes told that would be fetched.

With --dry-run nothing is written. It tells sizes and what is in the way, the packages that this machine lacks, and how long it may take, \
by the last drill and by what it reads of the backup for that, some 85 MiB at the most.

With --as-replica the datadir has a file haulout-replica.sql with `SET GLOBAL gtid_slave_pos` and `CHANGE MASTER TO`: start the server, \
whose server_id must be its own, and run `mariadb < haulout-replica.sql`. With --start-replica 'systemctl start mariadb' that is \
done here; the options of the connection say how the restored server is reached.

With --galera the server joins its cluster by an incremental state transfer (IST), if some node still has in its gcache what comes after the \
backup: there `SHOW STATUS LIKE 'wsrep_local_cached_downto'` is not above the number that is printed. If none has, the cluster sends \
everything (SST), and what was restored is lost.

What a lifecycle rule has moved to Glacier or Deep Archive must be thawed before it can be read, which takes hours and costs money. With \
--thaw the store is asked for all that the backup needs, and the command says when to come back (exit code 22); with --thaw-wait it \
waits. Run again, with or without --thaw, it goes on.")]
pub struct RestoreArgs {
    /// Datadir to restore into, empty or absent but for --reuse
    #[arg(long, value_name = "DIR")]
    pub datadir: PathBuf,
    /// Write over what the datadir holds, and fetch only what differs
    #[arg(long, conflicts_with = "work_dir")]
    pub reuse: bool,
    /// Backup to restore: its name, the beginning of one, or `latest`
    #[arg(long, value_name = "ID", default_value_t = BackupChoice::Latest)]
    pub backup: BackupChoice,
    /// Give the files to this user and group [default: the present datadir's, if any]
    #[arg(long, value_name = "USER:GROUP")]
    pub owner: Option<Owner>,
    /// Say what would be done, and do nothing
    #[arg(long, short = 'n')]
    pub dry_run: bool,
    /// Where the files are put together, best on the datadir's file system [default: beside the datadir]
    #[arg(long, value_name = "DIR")]
    pub work_dir: Option<PathBuf>,
    /// Reads from the store in flight [default: 16]
    #[arg(long, value_name = "N")]
    pub connections: Option<Connections>,
    /// Leave grastate.dat in the datadir, by which the server joins its Galera cluster where it stands
    #[arg(long, conflicts_with = "as_replica")]
    pub galera: bool,
    /// The moment.
    #[command(flatten)]
    pub target: TargetArgs,
    /// Preparing.
    #[command(flatten)]
    pub prepare: PrepareArgs,
    /// Replication.
    #[command(flatten)]
    pub replica: ReplicaArgs,
    /// The restored server.
    #[command(flatten)]
    pub connection: ConnectionArgs,
    /// Thawing.
    #[command(flatten)]
    pub thaw: ThawArgs,
    /// The store.
    #[command(flatten)]
    pub store: StoreArgs,
}

/// Options of `restore-table`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  haulout restore-table --table shop.orders --as shop.orders_before
  haulout restore-table --table shop.orders --backup 20261122T170445Z-3f9a1c --replace

Run it on the server's own machine, as root or as the server's user: the table's file is put into the datadir. The table is \
made and checked under a name of its own and takes its place by one RENAME; until then the server's table is not touched. \
Tables of other engines than InnoDB, with partitions, FULLTEXT indexes or foreign keys, and encrypted ones are refused. \
Triggers are not made. Nothing is written to the binary log: replicas do not get the table. The next backup is a full one, \
because an import is not in the redo log.

The account needs GRANT SELECT, INSERT, CREATE, ALTER, DROP, TRIGGER on the schema, and BINLOG ADMIN ON *.* where there is a \
binary log; with SUPER too it has the server write a checkpoint, without which the next backup may have to wait for one.")]
pub struct RestoreTableArgs {
    /// The table, as it is called in the backup
    #[arg(long, value_name = "SCHEMA.TABLE")]
    pub table: TableArg,
    /// What it is to be called, in the same or another schema [default: the same]
    #[arg(long = "as", value_name = "SCHEMA.TABLE")]
    pub target: Option<TableArg>,
    /// Backup to take it from: its name, the beginning of one, or `latest`
    #[arg(long, value_name = "ID", default_value_t = BackupChoice::Latest)]
    pub backup: BackupChoice,
    /// Replace a table that has rows
    #[arg(long)]
    pub replace: bool,
    /// Say what would be done, and do nothing
    #[arg(long, short = 'n')]
    pub dry_run: bool,
    /// Where the table is made ready, best on the datadir's file system [default: beside the datadir]
    #[arg(long, value_name = "DIR")]
    pub work_dir: Option<PathBuf>,
    /// Reads from the store in flight [default: 16]
    #[arg(long, value_name = "N")]
    pub connections: Option<Connections>,
    /// The server.
    #[command(flatten)]
    pub connection: ConnectionArgs,
    /// Preparing.
    #[command(flatten)]
    pub prepare: PrepareArgs,
    /// Thawing.
    #[command(flatten)]
    pub thaw: ThawArgs,
    /// The store.
    #[command(flatten)]
    pub store: StoreArgs,
}

/// A table: its schema ends at the first dot that has no backslash before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableArg(pub TableName);

impl std::str::FromStr for TableArg {
    type Err = String;

    fn from_str(text: &str) -> Result<TableArg, String> {
        let pattern: TablePattern = text.parse()?;
        let several = "* and ? stand for several tables; put a backslash before one that is meant itself";
        pattern.literal().map(TableArg).ok_or_else(|| several.to_owned())
    }
}

/// Options of `fetch`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  haulout fetch --target /srv/restore
  haulout fetch --target /srv/tables --tables 'shop.order*' --tables shop.item

The directory is a full backup as mariadb-backup knows it: its own --prepare and --copy-back work on it too.

With --tables it holds these tables and what `mariadb-backup --prepare --export` (or `haulout prepare --export`) needs to \
make them ready for ALTER TABLE … IMPORT TABLESPACE in another server. It is no datadir, and is refused where one is \
wanted. In a pattern * stands for any characters, ? for one, and \\ takes the meaning from the next. `haulout restore-table` \
brings one table back in one command.")]
pub struct FetchArgs {
    /// Directory to write into, empty or absent
    #[arg(long, value_name = "DIR")]
    pub target: PathBuf,
    /// Backup to fetch: its name, the beginning of one, or `latest`
    #[arg(long, value_name = "ID", default_value_t = BackupChoice::Latest)]
    pub backup: BackupChoice,
    /// Fetch these tables alone, and what they need to be exported; can be given several times
    #[arg(long, value_name = "SCHEMA.TABLE")]
    pub tables: Vec<TablePattern>,
    /// Reads from the store in flight [default: 16]
    #[arg(long, value_name = "N")]
    pub connections: Option<Connections>,
    /// Thawing.
    #[command(flatten)]
    pub thaw: ThawArgs,
    /// The store.
    #[command(flatten)]
    pub store: StoreArgs,
}

/// Options of `prepare`.
#[derive(Debug, Clone, Args)]
pub struct PrepareDirectoryArgs {
    /// Directory that `fetch` wrote
    #[arg(long, value_name = "DIR")]
    pub target: PathBuf,
    /// Make tables ready for ALTER TABLE … IMPORT TABLESPACE in another server; the directory is no datadir then
    #[arg(long)]
    pub export: bool,
    /// Preparing.
    #[command(flatten)]
    pub prepare: PrepareArgs,
}

/// Options of `move-back` and `copy-back`.
#[derive(Debug, Clone, Args)]
pub struct MoveArgs {
    /// Directory that `prepare` made consistent
    #[arg(long, value_name = "DIR")]
    pub target: PathBuf,
    /// Datadir, empty or absent
    #[arg(long, value_name = "DIR")]
    pub datadir: PathBuf,
    /// Give the files to this user and group [default: the present datadir's, if any]
    #[arg(long, value_name = "USER:GROUP")]
    pub owner: Option<Owner>,
}

/// Options of `check`.
#[derive(Debug, Clone, Default, Args)]
#[command(after_help = "\
Without --read-data the page maps are read, and every page of every file must have one source; of packs, presence and \
size are compared. With it, packs are read too: every chunk must be what its name says, and every page the one that the \
map calls it, by its number, tablespace, checksum and LSN.

With --repair it also tells which backups are whole, and which tables of the others `fetch --tables` and `restore-table` can \
still bring back, and writes down which packs are damaged (of all with --read-data, else of those that are missing or of another \
size): no later backup rests on them, and the next one stores anew what they held, as far as the server still has it. Nothing is removed \
or changed.

Exits with 3 when something is damaged or missing; each such object is named, with the backups that need it.

Examples:
  haulout check --read-data=10
  haulout check --read-data --repair
  haulout check --backup latest --read-data")]
pub struct CheckArgs {
    /// Check this backup alone: its name, the beginning of one, or `latest`; can be given several times
    #[arg(long, value_name = "ID")]
    pub backup: Vec<BackupChoice>,
    /// Tell what can still be brought back, and let the next backup store anew what is damaged
    #[arg(long)]
    pub repair: bool,
    /// Read packs and check every byte of them, instead of sizes alone; all, or a share of them in percent
    #[arg(long, value_name = "PERCENT", num_args = 0..=1, require_equals = true, default_missing_value = "100",
          value_parser = clap::value_parser!(u8).range(1..=100))]
    pub read_data: Option<u8>,
    /// Read the packs of one part of so many, such as 3/30: all of them are read by as many checks
    #[arg(long, value_name = "PART/PARTS", require_equals = true, conflicts_with = "read_data")]
    pub read_part: Option<Part>,
    /// Of a sealed repository, check what can be checked without a key: that each object is as it was written
    #[arg(long, conflicts_with_all = ["backup", "repair"])]
    pub without_key: bool,
    /// Reads from the store in flight [default: 16]
    #[arg(long, value_name = "N")]
    pub connections: Option<Connections>,
    /// The store.
    #[command(flatten)]
    pub store: StoreArgs,
}

impl CheckArgs {
    /// Share of the packs that is read, in percent.
    pub fn percent(&self) -> Option<u8> {
        self.read_data.or(self.read_part.map(|part| part.percent()))
    }

    /// The part that is read, and the number of parts.
    pub fn part(&self) -> Option<(u32, u32)> {
        self.read_part.map(|part| (part.part, part.parts))
    }
}

/// One of so many parts, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    part: u32,
    parts: u32,
}

impl Part {
    fn percent(self) -> u8 {
        // At most 100.
        100u32.div_ceil(self.parts) as u8
    }
}

impl std::str::FromStr for Part {
    type Err = String;

    fn from_str(text: &str) -> Result<Part, String> {
        let expected = || "expected a part and the number of parts, such as 3/30".to_owned();
        let (part, parts) = text.split_once('/').ok_or_else(expected)?;
        let (part, parts) = (part.parse().map_err(|_| expected())?, parts.parse().map_err(|_| expected())?);
        if (1..=parts).contains(&part) { Ok(Part { part, parts }) } else { Err(expected()) }
    }
}

/// Options of `unhide`.
#[derive(Debug, Clone, Default, Args)]
#[command(after_help = "\
Examples:
  haulout unhide --dry-run     what is hidden or written over, and what would be done
  haulout unhide

A delete in a bucket that keeps versions puts a delete marker in front of the object, and a put another version; what was \
stored first is still there, and stays there while it is locked. Of the versions of each object the first that is right \
becomes the present one again: by removing delete markers where the account may (s3:DeleteObjectVersion), else by a copy \
within the store. Packs are judged by the hash in their names, documents by the hash that they carry. Only objects with \
several versions are read.

Objects that are hidden and not locked any more are left as they are, since `prune` leaves such: --all brings them back, too.

Exits with 3 when an object has no right version left.")]
pub struct UnhideArgs {
    /// Say what would be done, and do nothing
    #[arg(long, short = 'n')]
    pub dry_run: bool,
    /// Bring back what is not locked, too
    #[arg(long)]
    pub all: bool,
    /// The store.
    #[command(flatten)]
    pub store: StoreArgs,
}

/// Options of `doctor`.
#[derive(Debug, Clone, Default, Args)]
#[command(after_help = "\
Nothing is backed up. Small objects are written below the repository's prefix to learn what the store can do. Exits with 3 when something would stop a backup.")]
pub struct DoctorArgs {
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

/// Options of `completions`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  haulout completions bash > /usr/share/bash-completion/completions/haulout
  haulout completions zsh > /usr/share/zsh/site-functions/_haulout
  haulout completions fish > ~/.config/fish/completions/haulout.fish")]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_name = "SHELL")]
    pub shell: Shell,
}

/// Options of `man`.
#[derive(Debug, Clone, Default, Args)]
#[command(after_help = "\
Examples:
  haulout man | man -l -
  haulout man --out /usr/local/share/man/man1")]
pub struct ManArgs {
    /// Directory for the pages of all commands
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}
