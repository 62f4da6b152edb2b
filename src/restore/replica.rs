//! A restored server that becomes a replica: of the server that was backed up, or of one that has the same transactions.
//!
//! The backup's position says after which transaction the restored state begins. From it and the source's address come the statements that
//! attach the server; they lie in the datadir as a script for the client program, and can be run here once the server is up.

use std::fs::{self, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::cancel::Cancel;
use super::{Owner, RestoreError};
use crate::error::{Diagnose, Kind};
use crate::format::{GtidPosition, Manifest};
use crate::mariadb::connection::Connection;
use crate::mariadb::sql::{ResultSet, Session, SqlError};
use crate::mariadb::tool::Tools;
use crate::model::{BackupId, Secret};

/// Name of the script in the datadir, which the server takes for nothing of its own.
pub const SCRIPT: &str = "haulout-replica.sql";
/// Time for the server to answer once it was started: its buffer pool may be read in meanwhile.
const START_LIMIT: Duration = Duration::from_secs(600);
/// Time for the replica to reach its source.
const ATTACH_LIMIT: Duration = Duration::from_secs(60);
/// Time for the statements; a source that does not answer is no matter of theirs.
const STATEMENT_LIMIT: Duration = Duration::from_secs(60);
/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(200);
/// Most of a GTID position: a GTID for each domain, each of 20 digits at most.
const GTID_BYTES_MAX: usize = 16 << 10;

/// The server that a replica follows.
#[derive(Debug, Clone)]
pub struct ReplicaSource {
    /// Its host name or address; that of the server that was backed up when absent.
    pub host: Option<String>,
    /// Its TCP port; MariaDB's usual one when absent.
    pub port: Option<u16>,
    /// The account that replicates.
    pub user: Option<String>,
    /// Its password.
    pub password: Option<Secret>,
    /// Whether the connection is encrypted.
    pub ssl: bool,
}

/// Where the restored state stands in the source's history.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Start {
    Gtid(String),
    File(String, u64),
}

impl Start {
    fn of(position: &GtidPosition) -> Result<Start, &'static str> {
        let gtid = position.gtid.as_deref().map(str::trim).filter(|gtid| !gtid.is_empty());
        match (gtid, &position.file, position.position) {
            (Some(gtid), _, _) if is_gtid_position(gtid) => Ok(Start::Gtid(gtid.to_owned())),
            (Some(_), _, _) => Err("what its manifest says is no GTID position"),
            (None, Some(file), Some(place)) => Ok(Start::File(file.clone(), place)),
            _ => Err("its server wrote no binary log"),
        }
    }
}

/// How a restored server becomes a replica.
#[derive(Debug, Clone)]
pub struct ReplicaPlan {
    start: Start,
    backup: BackupId,
    host: String,
    source: ReplicaSource,
    /// `server_id` of the server that was backed up, which no other server may have.
    server_id: u64,
}

/// A replica that follows its source.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Attached {
    /// Where its replication stands.
    pub gtid_slave_pos: String,
    /// By how many seconds it is behind, where it can tell.
    pub seconds_behind: Option<u64>,
}

/// Why a restored server is no replica.
#[derive(Debug, thiserror::Error)]
pub enum ReplicaError {
    /// The backup does not know where it stands.
    #[error("backup {backup} has no position from which a replica could go on: {why}")]
    NoPosition {
        /// The backup.
        backup: BackupId,
        /// Why it has none.
        why: &'static str,
    },
    /// The restored server was not started.
    #[error("the start command {command:?} failed: {problem}")]
    Start {
        /// The command.
        command: String,
        /// How it ended.
        problem: String,
    },
    /// Another server answers.
    #[error("the server that answers runs on {found:?}, not on the restored {datadir:?}")]
    Elsewhere {
        /// Its datadir.
        found: String,
        /// The restored one.
        datadir: PathBuf,
    },
    /// Two servers of one number do not replicate.
    #[error("the restored server has server_id {0}, as the server that was backed up")]
    SameId(u64),
    /// The server refuses.
    #[error("cannot {action}")]
    Sql {
        /// What was to be done.
        action: &'static str,
        /// What it said.
        source: SqlError,
    },
    /// It is configured, and does not run.
    #[error("replication from {host} does not run: {problem}")]
    NotRunning {
        /// The source.
        host: String,
        /// What the server says of it.
        problem: String,
    },
}

impl Diagnose for ReplicaError {
    fn kind(&self) -> Kind {
        match self {
            ReplicaError::NoPosition { .. } => Kind::Usage,
            _ => Kind::DatabaseRefused,
        }
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            ReplicaError::NoPosition { .. } => {
                "set log_bin on the server and take another backup, or attach the replica by hand"
            }
            ReplicaError::Start { .. } => {
                "start the server, then run the script in its datadir with the mariadb client"
            }
            ReplicaError::Elsewhere { .. } => "name the restored server by --socket, or by --host and --port",
            ReplicaError::SameId(_) => {
                "set server_id to a number of its own in the restored server's option file, restart it, then run the script in its datadir"
            }
            ReplicaError::Sql { source: SqlError::MissingPrivilege { .. }, .. } => {
                "GRANT REPLICATION SLAVE ADMIN, REPLICA MONITOR ON *.* to the account"
            }
            ReplicaError::Sql { source, .. } => return source.hint(),
            ReplicaError::NotRunning { .. } => {
                "see SHOW SLAVE STATUS on the restored server; the source must let the account in and still have the binary logs from \
                 the backup's position on"
            }
        };
        Some(hint.to_owned())
    }
}

/// A text as a literal of SQL, under the `sql_mode` that the script sets.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''").replace('\n', "\\n").replace('\0', "\\0"))
}

/// `domain-server-sequence`, some of them, with commas between.
fn is_gtid_position(text: &str) -> bool {
    let number = |part: &str| !part.is_empty() && part.len() <= 20 && part.bytes().all(|byte| byte.is_ascii_digit());
    let gtid = |text: &str| text.split('-').count() == 3 && text.split('-').all(number);
    text.len() <= GTID_BYTES_MAX && text.split(',').all(|part| gtid(part.trim()))
}

impl ReplicaPlan {
    /// The plan for a replica of `source` that begins as `manifest`'s backup.
    ///
    /// # Errors
    /// [`ReplicaError::NoPosition`] when the backup has none, or what it has is none.
    pub fn new(manifest: &Manifest, source: &ReplicaSource) -> Result<ReplicaPlan, ReplicaError> {
        let start = Start::of(&manifest.position)
            .map_err(|why| ReplicaError::NoPosition { backup: manifest.id.clone(), why })?;
        let host = source.host.clone().unwrap_or_else(|| manifest.server.hostname.clone());
        let server_id = u64::from(manifest.server.server_id);
        Ok(ReplicaPlan { start, backup: manifest.id.clone(), host, source: source.clone(), server_id })
    }

    /// The source's host.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The statement that names the source; a password is in it only when `reveals` it.
    pub fn change_master(&self, reveals: bool) -> String {
        let ReplicaSource { port, user, password, ssl, .. } = &self.source;
        let mut parts = vec![format!("MASTER_HOST={}", literal(&self.host))];
        parts.extend(port.map(|port| format!("MASTER_PORT={port}")));
        parts.extend(user.as_ref().map(|user| format!("MASTER_USER={}", literal(user))));
        let shown =
            password.as_ref().map(|password| if reveals { literal(password.reveal()) } else { "'…'".to_owned() });
        parts.extend(shown.map(|password| format!("MASTER_PASSWORD={password}")));
        parts.extend(ssl.then(|| "MASTER_SSL=1".to_owned()));
        match &self.start {
            Start::Gtid(_) => parts.push("MASTER_USE_GTID=slave_pos".to_owned()),
            Start::File(file, place) => {
                parts.push(format!("MASTER_LOG_FILE={}", literal(file)));
                parts.push(format!("MASTER_LOG_POS={place}"));
                parts.push("MASTER_USE_GTID=no".to_owned());
            }
        }
        format!("CHANGE MASTER TO {}", parts.join(", "))
    }

    /// All statements, in order. They can be run again.
    pub fn statements(&self, reveals: bool) -> Vec<String> {
        let mut all = vec!["SET SESSION sql_mode = ''".to_owned(), "STOP ALL SLAVES".to_owned()];
        if let Start::Gtid(gtid) = &self.start {
            all.push(format!("SET GLOBAL gtid_slave_pos = {}", literal(gtid)));
        }
        all.push(self.change_master(reveals));
        all.push("START SLAVE".to_owned());
        all
    }

    /// Writes the script into `datadir` as a file for its owner alone, who is `owner` or the directory's; returns its path.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, datadir: &Path, owner: Option<Owner>) -> Result<PathBuf, RestoreError> {
        let path = datadir.join(SCRIPT);
        let mut text = format!(
            "-- Makes this server, restored from backup {}, a replica. Once it runs: mariadb < {SCRIPT}\n\
             -- Its server_id must be a number of its own; that of the server that was backed up is {}.\n",
            self.backup, self.server_id
        );
        if self.source.user.is_none() {
            text += "-- The account that replicates was not named: add MASTER_USER and MASTER_PASSWORD.\n";
        }
        for statement in self.statements(true) {
            text += &statement;
            text += ";\n";
        }
        let meta = fs::metadata(datadir).map_err(RestoreError::io("look at", datadir))?;
        let owner = owner.unwrap_or(Owner { uid: meta.uid(), gid: meta.gid() });
        // Not over another file, and nobody else's while it is written: there is a password in it.
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(RestoreError::io("create", &path))?;
        file.set_permissions(Permissions::from_mode(0o600)).map_err(RestoreError::io("create", &path))?;
        file.write_all(text.as_bytes()).map_err(RestoreError::io("write", &path))?;
        file.sync_all().map_err(RestoreError::io("write", &path))?;
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&path, Some(owner.uid), Some(owner.gid))
                .map_err(RestoreError::io("chown", &path))?;
        }
        Ok(path)
    }

    /// Runs the statements on the server that was started on `datadir`, and waits until it follows its source.
    ///
    /// # Errors
    /// When it does not answer, is another server, refuses, or does not reach its source; the statements may have been run by then.
    pub fn attach(
        &self,
        tools: &Tools,
        connection: &Connection,
        datadir: &Path,
        cancel: &Cancel,
    ) -> Result<Attached, RestoreError> {
        let session = Session::new(tools, connection);
        self.await_server(&session, datadir, cancel)?;
        let statements = self.statements(true);
        let statements: Vec<&str> = statements.iter().map(String::as_str).collect();
        let failed = |action| move |source| ReplicaError::Sql { action, source };
        session.run(&statements, STATEMENT_LIMIT).map_err(failed("make the server a replica"))?;
        let deadline = Instant::now() + ATTACH_LIMIT;
        loop {
            let sets = session
                .run(&["SHOW SLAVE STATUS", "SELECT @@gtid_slave_pos"], STATEMENT_LIMIT)
                .map_err(failed("look at the replication"))?;
            let [status, position] = sets.as_slice() else {
                return Err(ReplicaError::Sql { action: "look at the replication", source: SqlError::Garbled }.into());
            };
            match self.look(status) {
                Ok(Some(seconds_behind)) => {
                    let gtid_slave_pos = position.rows.first().and_then(|row| row.first()?.clone()).unwrap_or_default();
                    return Ok(Attached { gtid_slave_pos, seconds_behind });
                }
                Ok(None) if Instant::now() < deadline => {}
                Ok(None) => return Err(self.not_running("it does not reach its source").into()),
                Err(problem) => return Err(self.not_running(&problem).into()),
            }
            pause(cancel)?;
        }
    }

    fn not_running(&self, problem: &str) -> ReplicaError {
        ReplicaError::NotRunning { host: self.host.clone(), problem: problem.to_owned() }
    }

    fn await_server(&self, session: &Session<'_>, datadir: &Path, cancel: &Cancel) -> Result<(), RestoreError> {
        let deadline = Instant::now() + START_LIMIT;
        let facts = loop {
            match session.query("SELECT @@datadir, @@server_id") {
                Ok(rows) => break rows,
                Err(error) if Instant::now() > deadline || !error.is_no_connection() => {
                    return Err(ReplicaError::Sql { action: "ask the restored server", source: error }.into());
                }
                Err(_) => pause(cancel)?,
            }
        };
        let fact = |place: usize| facts.first().and_then(|row| row.get(place)?.clone()).unwrap_or_default();
        let found = fact(0);
        let same =
            |path: &str| fs::canonicalize(path).ok().is_some_and(|path| Some(path) == fs::canonicalize(datadir).ok());
        if !same(&found) {
            return Err(ReplicaError::Elsewhere { found, datadir: datadir.to_owned() }.into());
        }
        match fact(1).parse() {
            Ok(id) if id == self.server_id => Err(ReplicaError::SameId(id).into()),
            _ => Ok(()),
        }
    }

    /// What `SHOW SLAVE STATUS` says: nothing while it connects; by how much it is behind once it runs.
    fn look(&self, status: &ResultSet) -> Result<Option<Option<u64>>, String> {
        let value = |name: &str| status.value(name).unwrap_or_default();
        for (number, text) in [("Last_IO_Errno", "Last_IO_Error"), ("Last_SQL_Errno", "Last_SQL_Error")] {
            if !matches!(value(number), "" | "0") {
                return Err(format!("{} (error {})", value(text), value(number)));
            }
        }
        if status.rows.is_empty() || value("Slave_SQL_Running") == "No" {
            return Err("its threads do not run".to_owned());
        }
        let runs = value("Slave_IO_Running") == "Yes" && value("Slave_SQL_Running") == "Yes";
        Ok(runs.then(|| value("Seconds_Behind_Master").parse().ok()))
    }
}

fn pause(cancel: &Cancel) -> Result<(), RestoreError> {
    if cancel.is_requested() {
        return Err(RestoreError::Interrupted);
    }
    thread::sleep(PAUSE);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(position: GtidPosition) -> Result<ReplicaPlan, &'static str> {
        let password = Some(Secret::new("it's\\"));
        let source = ReplicaSource { host: None, port: Some(3307), user: Some("repl".to_owned()), password, ssl: true };
        let backup = "20261122T170445Z-3f9a1c".parse().unwrap();
        Ok(ReplicaPlan { start: Start::of(&position)?, backup, host: "db'1".to_owned(), source, server_id: 7 })
    }

    fn at(gtid: Option<&str>, file: Option<&str>, position: Option<u64>) -> GtidPosition {
        GtidPosition { file: file.map(str::to_owned), position, gtid: gtid.map(str::to_owned) }
    }

    #[test]
    fn the_statements_begin_at_the_backups_gtid_and_name_the_source() {
        let plan = plan(at(Some("0-1-42,3-7-9"), Some("binlog.000003"), Some(4711))).unwrap();
        assert_eq!(
            plan.statements(true),
            [
                "SET SESSION sql_mode = ''",
                "STOP ALL SLAVES",
                "SET GLOBAL gtid_slave_pos = '0-1-42,3-7-9'",
                "CHANGE MASTER TO MASTER_HOST='db''1', MASTER_PORT=3307, MASTER_USER='repl', MASTER_PASSWORD='it''s\\\\', MASTER_SSL=1, \
                 MASTER_USE_GTID=slave_pos",
                "START SLAVE",
            ]
        );
        assert!(!plan.statements(false).join("").contains("it''s"));
    }

    #[test]
    fn a_backup_without_gtids_begins_at_its_place_in_the_binary_log() {
        let plan = plan(at(Some(""), Some("binlog.000003"), Some(4711))).unwrap();
        assert!(
            plan.change_master(false)
                .ends_with("MASTER_LOG_FILE='binlog.000003', MASTER_LOG_POS=4711, MASTER_USE_GTID=no")
        );
        assert!(!plan.statements(true).join(";").contains("gtid_slave_pos"));
    }

    #[test]
    fn a_backup_that_does_not_know_where_it_stands_makes_no_replica() {
        for position in [
            at(None, None, None),
            at(None, Some("binlog.000003"), None),
            at(Some("0-1"), None, None),
            at(Some("0-1-x"), Some("a"), Some(4)),
            at(Some("0-1-2'; DROP TABLE x"), None, None),
        ] {
            assert!(plan(position.clone()).is_err(), "{position:?}");
        }
    }

    #[test]
    fn the_script_is_for_the_owners_eyes_and_over_no_other_file() {
        let folder = tempfile::tempdir().unwrap();
        let plan = plan(at(Some("0-1-42"), None, None)).unwrap();
        let path = plan.write(folder.path(), None).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.ends_with("MASTER_USE_GTID=slave_pos;\nSTART SLAVE;\n"), "{text}");
        assert!(matches!(plan.write(folder.path(), None), Err(RestoreError::Io { action: "create", .. })));
    }

    #[test]
    fn what_the_server_says_of_its_replication_is_told() {
        let plan = plan(at(Some("0-1-42"), None, None)).unwrap();
        let status = |values: &[(&str, &str)]| {
            let (columns, row) =
                values.iter().map(|(name, value)| ((*name).to_owned(), Some((*value).to_owned()))).unzip();
            ResultSet { columns, rows: vec![row] }
        };
        let runs = [("Slave_IO_Running", "Yes"), ("Slave_SQL_Running", "Yes"), ("Seconds_Behind_Master", "7")];
        assert_eq!(plan.look(&status(&runs)), Ok(Some(Some(7))));
        let connects = [("Slave_IO_Running", "Connecting"), ("Slave_SQL_Running", "Yes"), ("Last_IO_Errno", "0")];
        assert_eq!(plan.look(&status(&connects)), Ok(None));
        let lost = [("Slave_IO_Running", "No"), ("Last_IO_Errno", "1236"), ("Last_IO_Error", "purged")];
        assert_eq!(plan.look(&status(&lost)), Err("purged (error 1236)".to_owned()));
        assert!(plan.look(&ResultSet::default()).is_err());
    }
}
