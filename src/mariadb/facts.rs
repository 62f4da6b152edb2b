//! What a backup has to know of the server before it begins.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use super::{
    sql::{ResultSet, Session, SqlError},
    tool::{ServerVersion, ToolError},
};
use crate::{
    error::{Diagnose, Kind},
    model::{Lsn, PageSize, Timestamp},
};

/// Privileges without which `mariadb-backup` fails.
const REQUIRED: [&str; 3] = ["RELOAD", "PROCESS", "BINLOG MONITOR"];

/// Privileges that MariaDB's manual asks for besides.
const ADVISED: [&str; 1] = ["LOCK TABLES"];

/// States that are asked for, out of several hundred.
const STATES: &str = "SHOW GLOBAL STATUS WHERE Variable_name IN ('Innodb_lsn_current', 'Innodb_lsn_flushed', \
     'Innodb_lsn_last_checkpoint', 'Innodb_checkpoint_age', 'Innodb_checkpoint_max_age', 'Uptime', 'Slaves_running')";

/// The server at one moment, asked in one connection.
#[derive(Debug, Clone)]
pub struct ServerFacts {
    /// Its version.
    pub version: ServerVersion,
    /// The account that asked, as `user@host`.
    pub account: String,
    /// The server's clock.
    pub now: Timestamp,
    /// When the server was started.
    pub started: Timestamp,
    /// Name of its machine.
    pub hostname: String,
    /// `server_id` of replication.
    pub server_id: u64,
    /// `server_uid`, where the server has it: made from the machine's network address and the port, so that two servers of
    /// one machine that listen on sockets only have the same.
    pub server_uid: Option<String>,
    /// Its datadir, absolute.
    pub datadir: PathBuf,
    /// Its socket.
    pub socket: Option<PathBuf>,
    /// InnoDB's files.
    pub innodb: InnodbFacts,
    /// True when it writes binlogs.
    pub log_bin: bool,
    /// Path of its binlogs without their numbers, such as `/var/lib/mysql/binlog`.
    pub binlog_base: Option<PathBuf>,
    /// Last transaction in its own binlog.
    pub gtid_binlog_pos: String,
    /// Last transaction of all.
    pub gtid_current_pos: String,
    /// True when it is, or was, a replica.
    pub replica: bool,
    /// True when it is a node of a Galera cluster.
    pub galera: bool,
    /// Storage engines that are loaded, such as `InnoDB`, `Aria`, `ROCKSDB`.
    pub engines: Vec<String>,
    /// What the account lacks.
    pub privileges: Privileges,
}

/// InnoDB's settings and positions.
#[derive(Debug, Clone)]
pub struct InnodbFacts {
    /// Page size of the instance.
    pub page_size: PageSize,
    /// `innodb_data_file_path`, such as `ibdata1:12M:autoextend`.
    pub data_file_path: String,
    /// `innodb_data_home_dir`, empty where it is the datadir.
    pub data_home_dir: String,
    /// Number of undo tablespaces.
    pub undo_tablespaces: u32,
    /// Directory of the undo tablespaces.
    pub undo_directory: String,
    /// Directory of the redo log.
    pub log_group_home_dir: String,
    /// True when the redo log is archived, which `mariadb-backup` cannot copy.
    pub log_archive: bool,
    /// True when the redo log is encrypted.
    pub encrypt_log: bool,
    /// Size of the redo log.
    pub log_file_bytes: u64,
    /// End of the redo log.
    pub lsn_current: Lsn,
    /// Last checkpoint.
    pub lsn_last_checkpoint: Lsn,
    /// Bytes of redo log since the last checkpoint.
    pub checkpoint_age: u64,
    /// Most bytes of redo log between checkpoints: what the tool must copy in time.
    pub checkpoint_max_age: u64,
}

/// Global privileges that the account lacks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Privileges {
    /// Without these a backup fails.
    pub missing: Vec<&'static str>,
    /// These the manual asks for too.
    pub advised: Vec<&'static str>,
}

impl ServerFacts {
    /// Asks the server.
    ///
    /// # Errors
    /// When it cannot be asked, or is no MariaDB with InnoDB.
    pub fn gather(session: &Session<'_>) -> Result<ServerFacts, FactsError> {
        let sets = session.batch(&[
            "SHOW GLOBAL VARIABLES",
            STATES,
            "SHOW ENGINES",
            "SHOW GRANTS",
            "SELECT CURRENT_USER(), UNIX_TIMESTAMP()",
        ])?;
        ServerFacts::read(&sets)
    }

    /// Reads the answers to the questions of [`ServerFacts::gather`].
    fn read(sets: &[ResultSet]) -> Result<ServerFacts, FactsError> {
        let [variables, states, engines, grants, who] = sets else {
            return Err(FactsError::Sql(SqlError::Garbled));
        };
        let table = Table::new(variables.rows.iter().chain(&states.rows));
        // First of all, so that an old server is refused by its version and not by what it does not have.
        let version = table.version()?;
        version.supported()?;
        let first = |rows: &[Vec<Option<String>>]| -> Vec<String> {
            rows.iter().filter_map(|row| row.first().cloned().flatten()).collect()
        };
        let loaded =
            engines.rows.iter().filter(|row| matches!(row.get(1).and_then(Option::as_deref), Some("YES" | "DEFAULT")));
        let (account, now) = match who.rows.first().map(Vec::as_slice) {
            Some([Some(account), Some(now)]) => (account.clone(), now.parse::<f64>().unwrap_or_default() as i64),
            _ => return Err(FactsError::Sql(SqlError::Garbled)),
        };
        let moment = |seconds: i64| Timestamp(jiff::Timestamp::from_second(seconds).unwrap_or_default());
        let uptime: i64 = table.number("uptime")?;
        Ok(ServerFacts {
            version,
            account,
            now: moment(now),
            started: moment(now.saturating_sub(uptime)),
            hostname: table.text("hostname")?,
            server_id: table.number("server_id")?,
            server_uid: table.get("server_uid").filter(|uid| !uid.is_empty()).map(str::to_owned),
            datadir: PathBuf::from(table.text("datadir")?),
            socket: table.get("socket").filter(|path| !path.is_empty()).map(PathBuf::from),
            innodb: table.innodb()?,
            log_bin: table.on("log_bin"),
            binlog_base: table
                .get("log_bin_basename")
                .map(PathBuf::from)
                .filter(|base| base.is_absolute() && base.parent().is_some()),
            gtid_binlog_pos: table.text("gtid_binlog_pos")?,
            gtid_current_pos: table.text("gtid_current_pos")?,
            replica: table.get("slaves_running").is_some_and(|count| count != "0")
                || table.get("gtid_slave_pos").is_some_and(|position| !position.is_empty()),
            galera: table.on("wsrep_on"),
            engines: loaded.filter_map(|row| row.first().cloned().flatten()).collect(),
            privileges: Privileges::from_grants(&first(&grants.rows)),
        })
    }

    /// True when storage engine `name` is loaded, in any case of letters.
    pub fn has_engine(&self, name: &str) -> bool {
        self.engines.iter().any(|engine| engine.eq_ignore_ascii_case(name))
    }

    /// Absolute form of a directory or file that a variable gives relative to the datadir.
    pub fn in_datadir(&self, path: &str) -> PathBuf {
        let path = Path::new(path);
        self.datadir.join(path.strip_prefix("./").unwrap_or(path))
    }

    /// Checks what would make a backup fail or be worthless.
    ///
    /// # Errors
    /// When a required privilege is missing, or the redo log is archived.
    pub fn check(&self) -> Result<(), FactsError> {
        if !self.privileges.missing.is_empty() {
            let missing = self.privileges.missing.join(", ");
            return Err(FactsError::MissingPrivileges { account: self.account.clone(), missing });
        }
        if self.innodb.log_archive { Err(FactsError::RedoArchived) } else { Ok(()) }
    }
}

impl Privileges {
    /// Reads the rows of `SHOW GRANTS`, those of the active roles among them.
    pub fn from_grants(grants: &[String]) -> Privileges {
        let lacking = |wanted: &[&'static str]| Privileges::lacking(grants, wanted);
        Privileges { missing: lacking(&REQUIRED), advised: lacking(&ADVISED) }
    }

    /// Those of `wanted`, global privileges, that rows of `SHOW GRANTS` do not give.
    pub fn lacking(grants: &[String], wanted: &[&'static str]) -> Vec<&'static str> {
        let mut held: Vec<&str> = vec![];
        for grant in grants {
            let Some((list, _)) = grant.strip_prefix("GRANT ").and_then(|rest| rest.split_once(" ON *.* TO ")) else {
                continue;
            };
            held.extend(list.split(", "));
        }
        let has = |name: &str| {
            held.iter().any(|held| match *held {
                "ALL PRIVILEGES" => true,
                // SUPER opens `SHOW MASTER STATUS` too; REPLICATION CLIENT is the old name.
                "SUPER" | "REPLICATION CLIENT" => name == "BINLOG MONITOR",
                other => other == name,
            })
        };
        wanted.iter().copied().filter(|name| !has(name)).collect()
    }
}

/// Variables and states by their names in lower case.
struct Table<'a>(BTreeMap<String, &'a str>);

impl<'a> Table<'a> {
    fn new(rows: impl Iterator<Item = &'a Vec<Option<String>>>) -> Table<'a> {
        let pair = |row: &'a Vec<Option<String>>| match row.as_slice() {
            [Some(name), Some(value)] => Some((name.to_ascii_lowercase(), value.as_str())),
            _ => None,
        };
        Table(rows.filter_map(pair).collect())
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).copied()
    }

    fn on(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| value == "ON" || value == "1")
    }

    fn text(&self, name: &'static str) -> Result<String, FactsError> {
        self.get(name).map(str::to_owned).ok_or(FactsError::Absent { name })
    }

    fn number<N: std::str::FromStr>(&self, name: &'static str) -> Result<N, FactsError> {
        let value = self.get(name).ok_or(FactsError::Absent { name })?;
        value.parse().map_err(|_| FactsError::NotANumber { name, found: value.to_owned() })
    }

    fn version(&self) -> Result<ServerVersion, FactsError> {
        let text = self.text("version")?;
        // Distributions and operators can change `version`; MariaDB alone has its own GTIDs.
        let mariadb = text.contains("MariaDB") || self.get("gtid_binlog_state").is_some();
        text.parse().ok().filter(|_| mariadb).ok_or(FactsError::NotMariaDb { version: text })
    }

    fn innodb(&self) -> Result<InnodbFacts, FactsError> {
        let page_size: u32 = self.number("innodb_page_size")?;
        let unfit = || FactsError::NotANumber { name: "innodb_page_size", found: page_size.to_string() };
        Ok(InnodbFacts {
            page_size: PageSize::new(page_size).ok_or_else(unfit)?,
            data_file_path: self.text("innodb_data_file_path")?,
            data_home_dir: self.text("innodb_data_home_dir")?,
            undo_tablespaces: self.number("innodb_undo_tablespaces")?,
            undo_directory: self.text("innodb_undo_directory")?,
            log_group_home_dir: self.text("innodb_log_group_home_dir")?,
            log_archive: self.on("innodb_log_archive"),
            encrypt_log: self.on("innodb_encrypt_log"),
            log_file_bytes: self.number("innodb_log_file_size")?,
            lsn_current: Lsn(self.number("innodb_lsn_current")?),
            lsn_last_checkpoint: Lsn(self.number("innodb_lsn_last_checkpoint")?),
            checkpoint_age: self.number("innodb_checkpoint_age")?,
            checkpoint_max_age: self.number("innodb_checkpoint_max_age")?,
        })
    }
}

/// Why nothing, or nothing good, is known of the server.
#[derive(Debug, thiserror::Error)]
pub enum FactsError {
    /// The server cannot be asked.
    #[error(transparent)]
    Sql(#[from] SqlError),
    /// The server is too old.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// A variable is not there: InnoDB is off, or the server is too old.
    #[error("the server has no variable {name}")]
    Absent {
        /// Name of the variable.
        name: &'static str,
    },
    /// A variable has an unexpected value.
    #[error("variable {name} of the server has an unexpected value: {found:?}")]
    NotANumber {
        /// Name of the variable.
        name: &'static str,
        /// Its value.
        found: String,
    },
    /// The server is not MariaDB.
    #[error("the server is not MariaDB: version {version:?}")]
    NotMariaDb {
        /// Version that it tells.
        version: String,
    },
    /// The account cannot take backups.
    #[error("account {account} lacks privileges: {missing}")]
    MissingPrivileges {
        /// The account, as `user@host`.
        account: String,
        /// What it lacks.
        missing: String,
    },
    /// The redo log is archived.
    #[error("the server archives its redo log, which mariadb-backup cannot copy")]
    RedoArchived,
}

impl Diagnose for FactsError {
    fn kind(&self) -> Kind {
        match self {
            FactsError::Sql(error) => error.kind(),
            FactsError::Tool(error) => error.kind(),
            _ => Kind::DatabaseRefused,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            FactsError::Sql(error) => error.hint(),
            FactsError::Tool(error) => error.hint(),
            FactsError::MissingPrivileges { account, .. } => {
                let (user, host) = account.rsplit_once('@').unwrap_or((account, "%"));
                Some(format!("GRANT {}, {} ON *.* TO `{user}`@`{host}`", REQUIRED.join(", "), ADVISED.join(", ")))
            }
            FactsError::RedoArchived => Some("set innodb_log_archive=OFF".to_owned()),
            FactsError::Absent { .. } => Some("supported are MariaDB 10.8 and later, with InnoDB".to_owned()),
            FactsError::NotANumber { .. } | FactsError::NotMariaDb { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn privileges(grants: &[&str]) -> Privileges {
        Privileges::from_grants(&grants.iter().map(|grant| (*grant).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn grants_of_roles_count_and_grants_on_databases_do_not() {
        let role = [
            "GRANT `r1` TO `b7`@`localhost`",
            "GRANT USAGE ON *.* TO `b7`@`localhost`",
            "GRANT RELOAD, PROCESS ON *.* TO `r1`",
            "GRANT ALL PRIVILEGES ON `db`.* TO `b7`@`localhost`",
        ];
        assert_eq!(privileges(&role), Privileges { missing: vec!["BINLOG MONITOR"], advised: vec!["LOCK TABLES"] });
    }

    /// The answers of a server of which these variables differ from those of a usual one.
    fn answers(different: &[(&str, &str)]) -> Vec<ResultSet> {
        let usual = [
            ("version", "13.0.1-MariaDB"),
            ("gtid_binlog_pos", ""),
            ("gtid_current_pos", ""),
            ("hostname", "db1"),
            ("server_id", "1"),
            ("datadir", "/var/lib/mysql/"),
            ("innodb_page_size", "16384"),
            ("innodb_data_file_path", "ibdata1:12M:autoextend"),
            ("innodb_data_home_dir", ""),
            ("innodb_undo_tablespaces", "3"),
            ("innodb_undo_directory", "./"),
            ("innodb_log_group_home_dir", "./"),
            ("innodb_log_file_size", "100663296"),
        ];
        let states = [
            ("Innodb_lsn_current", "2"),
            ("Innodb_lsn_last_checkpoint", "1"),
            ("Innodb_checkpoint_age", "1"),
            ("Innodb_checkpoint_max_age", "9"),
            ("Uptime", "7"),
        ];
        let set = |rows: Vec<Vec<&str>>| ResultSet {
            columns: vec![],
            rows: rows.into_iter().map(|row| row.into_iter().map(|value| Some(value.to_owned())).collect()).collect(),
        };
        vec![
            set(usual.iter().chain(different).map(|(name, value)| vec![*name, *value]).collect()),
            set(states.iter().map(|(name, value)| vec![*name, *value]).collect()),
            set(vec![vec!["InnoDB", "DEFAULT"]]),
            set(vec![vec!["GRANT ALL PRIVILEGES ON *.* TO `root`@`localhost`"]]),
            set(vec![vec!["root@localhost", "1795374363"]]),
        ]
    }

    #[test]
    fn a_server_that_archives_its_redo_log_is_refused_with_the_reason() {
        for off in [&[][..], &[("innodb_log_archive", "OFF")]] {
            ServerFacts::read(&answers(off)).unwrap().check().unwrap();
        }
        let facts = ServerFacts::read(&answers(&[("innodb_log_archive", "ON")])).unwrap();
        let error = facts.check().unwrap_err();
        assert_eq!(error.to_string(), "the server archives its redo log, which mariadb-backup cannot copy");
        assert_eq!(
            (error.kind(), error.hint().unwrap().as_str()),
            (Kind::DatabaseRefused, "set innodb_log_archive=OFF")
        );
    }

    #[test]
    fn binlogs_lie_where_the_server_says() {
        let of = |different| ServerFacts::read(&answers(different)).unwrap().binlog_base;
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[("log_bin_basename", "/logs/binlog")]), Some(PathBuf::from("/logs/binlog")));
        assert_eq!(of(&[("log_bin_basename", "")]), None);
    }

    #[test]
    fn all_privileges_lack_nothing() {
        let root = ["GRANT ALL PRIVILEGES ON *.* TO `root`@`localhost` WITH GRANT OPTION"];
        assert_eq!(privileges(&root), Privileges::default());
        let manual = [
            "GRANT RELOAD, PROCESS, LOCK TABLES, BINLOG MONITOR ON *.* TO `b`@`localhost` IDENTIFIED BY PASSWORD '*3'",
        ];
        assert_eq!(privileges(&manual), Privileges::default());
        assert_eq!(privileges(&[]).missing.len(), REQUIRED.len());
    }
}
