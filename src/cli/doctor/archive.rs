//! The archiver: whether the server's binary log can be archived, and waits long enough for it.

use super::{Record, aside, check};
use crate::{
    cli::{commands::doctor::Patient, human, open},
    mariadb::{
        facts::{Privileges, ServerFacts},
        sql::{ResultSet, Session, SqlError},
        tool::{ToolError, Tools},
    },
};

/// What `archive` needs of the account.
const REQUIRED: [&str; 2] = ["REPLICATION SLAVE", "BINLOG MONITOR"];
/// Seconds that the server should keep its logs, at least: a weekend without the archiver.
const KEPT_SECONDS_MIN: u64 = 3 * 86_400;

const ASK: &str = "SELECT @@log_slave_updates log_slave_updates, @@binlog_expire_logs_seconds expire";

/// What the server says of its log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LogFacts {
    /// True when what it replicates is in its log.
    pub log_slave_updates: bool,
    /// Seconds after which it removes its logs; 0 is never.
    pub expire_seconds: u64,
    /// Privileges that the account lacks.
    pub lacking: Vec<&'static str>,
}

impl LogFacts {
    fn gather(session: &Session<'_>) -> Result<LogFacts, SqlError> {
        let answers = session.batch(&[ASK, "SHOW GRANTS"])?;
        let [log, grants] = &answers[..] else { return Err(SqlError::Garbled) };
        LogFacts::read(log, grants).ok_or(SqlError::Garbled)
    }

    fn read(log: &ResultSet, grants: &ResultSet) -> Option<LogFacts> {
        let grants: Vec<String> = grants.rows.iter().filter_map(|row| row.first()?.clone()).collect();
        Some(LogFacts {
            log_slave_updates: log.value("log_slave_updates")? != "0",
            expire_seconds: log.value("expire")?.parse().ok()?,
            lacking: Privileges::lacking(&grants, &REQUIRED),
        })
    }
}

/// Looks at what `archive` needs.
pub(super) async fn examine(record: &mut Record<'_>, tools: &Tools, patient: &Patient, facts: &ServerFacts) {
    tool(record, tools.binlog().map(|tool| tool.path.display().to_string()), tools, facts);
    if !facts.log_bin {
        return off(record);
    }
    let (own_tools, connection) = (tools.clone(), open::connection(&patient.connection));
    match aside(move || LogFacts::gather(&Session::new(&own_tools, &connection))).await {
        Ok(Ok(log)) => told(record, &log, &facts.account, facts.replica),
        Ok(Err(error)) => unknown(record, error),
        Err(abandoned) => unknown(record, abandoned),
    }
}

fn unknown(record: &mut Record<'_>, error: impl Into<crate::cli::failure::Failure>) {
    record.problem(check::ARCHIVE_LOG, error);
    record.skip(check::ARCHIVE, check::ARCHIVE_LOG);
}

pub(super) fn tool(record: &mut Record<'_>, found: Result<String, ToolError>, tools: &Tools, facts: &ServerFacts) {
    match (found, tools.client()) {
        (Ok(path), Ok(client)) if client.version.series() == facts.version.series() => {
            record.ok(check::ARCHIVE_TOOL, format!("{path} {}", client.version));
        }
        (Ok(path), Ok(client)) => record.warn(
            check::ARCHIVE_TOOL,
            format!(
                "{path} is of {}, and the server of {}: it may not know all that the log has",
                client.version, facts.version
            ),
            "install the client programs of the server's release series",
        ),
        (Err(error), _) | (_, Err(error)) => {
            let hint = "install mariadb-client, or do without `haulout archive` and restores to any second";
            record.warn(check::ARCHIVE_TOOL, error.to_string(), hint);
        }
    }
}

/// Tells that there is nothing to archive, which is no fault of a server whose backups are enough.
pub(super) fn off(record: &mut Record<'_>) {
    record.ok(
        check::ARCHIVE_LOG,
        "the server writes no binary log (log_bin), so that backups alone can be restored, and no second between them",
    );
    for check in [check::ARCHIVE_PRIVILEGES, check::ARCHIVE_RETENTION] {
        record.ok(check, "there is no binary log to archive");
    }
}

/// Tells what a server that writes a log says of it.
pub(super) fn told(record: &mut Record<'_>, log: &LogFacts, account: &str, replica: bool) {
    if replica && !log.log_slave_updates {
        record.warn(
            check::ARCHIVE_LOG,
            "the server is a replica with log_slave_updates off: what it replicates is not in its binary log, and restores to any second lack it",
            "set log_slave_updates=ON in the option file and restart it, or archive from the source",
        );
    } else {
        record.ok(check::ARCHIVE_LOG, "the server writes a binary log that can be archived");
    }
    if log.lacking.is_empty() {
        record.ok(check::ARCHIVE_PRIVILEGES, "the account has all that `archive` needs");
    } else {
        let (user, host) = account.rsplit_once('@').unwrap_or((account, "%"));
        let message = format!("account {account} lacks {}, which `archive` needs", log.lacking.join(", "));
        record.warn(
            check::ARCHIVE_PRIVILEGES,
            message,
            format!("GRANT {} ON *.* TO `{user}`@`{host}`", REQUIRED.join(", ")),
        );
    }
    match log.expire_seconds {
        0 => record.ok(check::ARCHIVE_RETENTION, "the server keeps its binary logs until somebody purges them"),
        seconds if seconds < KEPT_SECONDS_MIN => record.warn(
            check::ARCHIVE_RETENTION,
            format!(
                "the server removes its binary logs after {}: an archiver that is away for longer leaves a gap",
                human::duration(seconds)
            ),
            format!("SET GLOBAL binlog_expire_logs_seconds = {KEPT_SECONDS_MIN}, and the same in the option file"),
        ),
        seconds => {
            let kept = human::duration(seconds);
            record.ok(check::ARCHIVE_RETENTION, format!("the server keeps its binary logs for {kept}"));
        }
    }
}
