//! A server on restored files, as a real one is, but that it does nothing for anybody else.
//!
//! It recovers, rolls back and reads its grant tables and the plugins that are installed in them like any other. It has no network, takes
//! up no replication, runs no events, writes no binary log, and lets nobody in but a drill, by an account that an init file makes.

use std::{
    ffi::OsString,
    fs::{self, OpenOptions},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::Path,
    time::Duration,
};

use super::{
    connection::Connection,
    scratch::{Launch, ScratchError, ScratchServer},
    tool::Tools,
};
use crate::model::Secret;

/// Longest time for the start: what a prepare left to do is little, and a large buffer pool takes its time.
const START_LIMIT: Duration = Duration::from_secs(600);
/// The account that a drill uses.
const ACCOUNT: &str = "haulout-drill";
/// Name of the file with the statements that make the account.
const INIT_FILE: &str = "init.sql";
/// Redo log of the server, which writes next to nothing: the size that the backup's server had may be gigabytes.
const REDO_LOG_MIB: u64 = 64;
/// Room on disk that the server takes besides the files: redo log, InnoDB's temporary tablespace of 12 MiB, Aria's log, what purge
/// writes.
pub const DRILL_SERVER_BYTES: u64 = (REDO_LOG_MIB + 64) << 20;

/// Options that make the server what it is; none of them may be given by hand.
const OWN: [&str; 8] = [
    "--skip-networking",
    "--skip-log-bin",
    "--skip-slave-start",
    "--innodb-buffer-pool-load-at-startup=OFF",
    "--innodb-buffer-pool-dump-at-shutdown=OFF",
    "--performance-schema=OFF",
    "--general-log=OFF",
    "--slow-query-log=OFF",
];
/// The same of one whose files nobody needs afterwards.
const OWN_TO_LOOK: [&str; 4] =
    ["--event-scheduler=DISABLED", "--read-only=ON", "--innodb-fast-shutdown=2", "--local-infile=OFF"];
/// The same of one whose files are to be a server's: it is shut down in good order, and what happens to them when it dies before is no matter.
/// Statements on events need the scheduler's tables, which it does not look at when it is disabled.
const OWN_TO_CHANGE: [&str; 8] = [
    "--event-scheduler=OFF",
    "--read-only=OFF",
    "--innodb-fast-shutdown=1",
    "--innodb-flush-log-at-trx-commit=0",
    "--skip-innodb-doublewrite",
    "--local-infile=ON",
    "--max-allowed-packet=1G",
    "--gtid-strict-mode=OFF",
];

/// What the server is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// It is looked at.
    Look,
    /// It is changed, with so many bytes of memory for its buffer pool.
    Change(u64),
}

/// Where a drill's server runs.
#[derive(Debug, Clone, Copy)]
pub struct DrillServer<'a> {
    /// The prepared files.
    pub datadir: &'a Path,
    /// Directory of its socket and of the file with its process id, which nobody else may enter.
    pub place: &'a Path,
    /// Directory of its temporary files.
    pub temporary: &'a Path,
    /// Options as `--name=value`, which were checked.
    pub options: &'a [String],
    /// Password of the account that is made.
    pub password: &'a Secret,
    /// What it is for.
    pub to: Use,
}

impl DrillServer<'_> {
    /// Starts the server.
    ///
    /// # Errors
    /// When the machine has no `mariadbd`, the path is too long for a socket, or the server does not answer in time;
    /// [`ScratchError::Stopped`] once `stop` says so.
    pub fn start(&self, tools: &Tools, stop: &dyn Fn() -> bool) -> Result<ScratchServer, ScratchError> {
        let init_file = self.place.join(INIT_FILE);
        self.write_init_file(&init_file).map_err(|source| ScratchError::Start { path: init_file.clone(), source })?;
        let mut init = OsString::from("--init-file=");
        init.push(&init_file);
        let (usual, own): (String, &[&str]) = match self.to {
            Use::Look => (format!("--innodb-log-file-size={REDO_LOG_MIB}M"), &OWN_TO_LOOK),
            Use::Change(bytes) => (format!("--innodb-buffer-pool-size={bytes}"), &OWN_TO_CHANGE),
        };
        let mut arguments: Vec<OsString> = vec![usual.into()];
        arguments.extend(self.options.iter().map(OsString::from));
        arguments.extend(OWN.iter().chain(own).map(OsString::from));
        arguments.push(init);
        let connection = Connection {
            user: Some(ACCOUNT.to_owned()),
            password: Some(self.password.clone()),
            // Nobody listens on a socket in a directory of our own.
            tls_args: vec!["--skip-ssl".to_owned()],
            ..Connection::default()
        };
        let Self { datadir, place, temporary, .. } = *self;
        let launch = Launch { datadir, place, temporary, arguments, connection, limit: START_LIMIT };
        let server = ScratchServer::launch(tools, launch, stop);
        // It was read, or never will be.
        fs::remove_file(&init_file).ok();
        server
    }

    /// The statement by which the account is gone.
    pub fn farewell() -> String {
        format!("DROP USER IF EXISTS '{ACCOUNT}'@'localhost'")
    }

    fn write_init_file(&self, path: &Path) -> std::io::Result<()> {
        let account = format!("'{ACCOUNT}'@'localhost'");
        // Whoever replays what others were granted must be able to grant it: whom they stand in for, and roles, which only who made them gives.
        // Whoever runs an init file may grant neither, and writes both down.
        let grants = match self.to {
            Use::Look => format!("GRANT ALL PRIVILEGES ON *.* TO {account};\n"),
            Use::Change(_) => format!(
                "GRANT ALL PRIVILEGES ON *.* TO {account} WITH GRANT OPTION;\n\
                 INSERT INTO mysql.proxies_priv (Host, User, Proxied_host, Proxied_user, With_grant, Grantor) \
                 VALUES ('localhost', '{ACCOUNT}', '', '', 1, '');\n\
                 INSERT INTO mysql.roles_mapping (Host, User, Role, Admin_option) \
                 SELECT 'localhost', '{ACCOUNT}', User, 'Y' FROM mysql.user WHERE is_role = 'Y' AND User <> 'PUBLIC';\n\
                 FLUSH PRIVILEGES;\n"
            ),
        };
        let text = format!("CREATE OR REPLACE USER {account} IDENTIFIED BY '{}';\n{grants}", self.password.reveal());
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        file.write_all(text.as_bytes())
    }
}
