//! The server: whether it lets a backup be taken, and whether its files can be read.

use std::{io, path::PathBuf};

use super::{Abandoned, Record, archive, aside, check};
use crate::{
    backup,
    cli::{commands::doctor::Patient, human, open},
    mariadb::{
        datadir::{self, ServerEvidence},
        facts::{FactsError, InnodbFacts, ServerFacts},
        identity::{DatadirLayout, DatadirWalk, WalkError},
        sql::{Session, SqlError},
        tool::{ToolFit, Tools},
    },
};

/// Redo log below which a warning is due: a busy server writes this in seconds, and a backup that has not copied the log
/// by the time it is overwritten fails.
const REDO_BYTES_SMALL: u64 = 64 << 20;

/// Part of the redo log between checkpoints, in percent, from which on the server is hard pressed already.
const REDO_FULL_PERCENT: u64 = 75;

/// Looks at the server.
pub(super) async fn examine(record: &mut Record<'_>, tools: &Tools, patient: &Patient) {
    let (own_tools, connection) = (tools.clone(), open::connection(&patient.connection));
    let facts = match aside(move || ServerFacts::gather(&Session::new(&own_tools, &connection))).await {
        Ok(Ok(facts)) => facts,
        Ok(Err(error)) => return refused(record, error),
        Err(abandoned) => {
            record.problem(check::SERVER_REACHABLE, abandoned);
            record.skip(check::SERVER, check::SERVER_REACHABLE);
            return record.skip(check::ARCHIVE, check::SERVER_REACHABLE);
        }
    };
    facts_told(record, tools, &facts);
    let own_facts = facts.clone();
    let looked = aside(move || Files::look(&own_facts)).await;
    files_told(record, looked);
    archive::examine(record, tools, patient, &facts).await;
}

/// Tells why the server gave no facts, and what was seen of it until then.
pub(super) fn refused(record: &mut Record<'_>, error: FactsError) {
    let place = match &error {
        FactsError::Sql(SqlError::AccessDenied { .. }) => check::SERVER_LOGIN,
        FactsError::Sql(SqlError::MissingPrivilege { .. }) => check::SERVER_PRIVILEGES,
        FactsError::Sql(_) => check::SERVER_REACHABLE,
        _ => check::SERVER_VERSION,
    };
    if place != check::SERVER_REACHABLE {
        record.ok(check::SERVER_REACHABLE, "a server answers");
        if place != check::SERVER_LOGIN {
            record.ok(check::SERVER_LOGIN, "the account may log in");
        }
    }
    record.problem(place, error);
    record.skip(check::SERVER, place);
    record.skip(check::ARCHIVE, place);
}

/// Tells what the server says of itself.
pub(super) fn facts_told(record: &mut Record<'_>, tools: &Tools, facts: &ServerFacts) {
    let version = &facts.version;
    let place = facts.socket.as_ref().map_or_else(String::new, |socket| format!(", socket {}", socket.display()));
    record.ok(
        check::SERVER_REACHABLE,
        format!("server on {}, datadir {}{place}", facts.hostname, facts.datadir.display()),
    );
    record.ok(check::SERVER_LOGIN, format!("account {}", facts.account));
    record.ok(check::SERVER_VERSION, format!("MariaDB {version} is supported"));
    let tool = &tools.backup.version;
    match tools.fit(version) {
        Ok(ToolFit::Fits) => record.ok(check::SERVER_TOOL_FIT, format!("mariadb-backup {tool} fits")),
        Ok(ToolFit::OlderPatch) => record.warn(
            check::SERVER_TOOL_FIT,
            format!("mariadb-backup {tool} is older than the server {version}"),
            "install mariadb-backup of the server's version",
        ),
        Err(error) => record.problem(check::SERVER_TOOL_FIT, error),
    }
    privileges(record, facts);
    let engines: Vec<&str> = facts.engines.iter().map(String::as_str).collect();
    verdict(record, check::SERVER_ENGINES, backup::check_engines(facts), || format!("loaded: {}", engines.join(", ")));
    let archive = if facts.innodb.log_archive { Err(FactsError::RedoArchived) } else { Ok(()) };
    verdict(record, check::SERVER_REDO_ARCHIVE, archive, || "the redo log is a ring, which can be copied".to_owned());
    redo_size(record, &facts.innodb);
    if facts.innodb.encrypt_log {
        record.warn(
            check::SERVER_REDO_ENCRYPTION,
            "the redo log is encrypted: a restore needs the server's keys, which no backup holds",
            "keep the key file, or access to the key service, apart from the server and from the backups",
        );
    } else {
        record.ok(check::SERVER_REDO_ENCRYPTION, "the redo log is not encrypted");
    }
    verdict(record, check::SERVER_LAYOUT, backup::check_layout(facts), || {
        "InnoDB's files lie in the datadir".to_owned()
    });
}

fn verdict<E: crate::error::Diagnose>(
    record: &mut Record<'_>,
    check: &str,
    result: Result<(), E>,
    fine: impl FnOnce() -> String,
) {
    match result {
        Ok(()) => record.ok(check, fine()),
        Err(error) => record.problem(check, error),
    }
}

fn privileges(record: &mut Record<'_>, facts: &ServerFacts) {
    let lacking =
        |list: &[&str]| FactsError::MissingPrivileges { account: facts.account.clone(), missing: list.join(", ") };
    let held = &facts.privileges;
    if !held.missing.is_empty() {
        record.problem(check::SERVER_PRIVILEGES, lacking(&held.missing));
    } else if !held.advised.is_empty() {
        let hint = crate::error::Diagnose::hint(&lacking(&held.advised)).unwrap_or_default();
        let advised = held.advised.join(", ");
        let account = &facts.account;
        let message =
            format!("account {account} lacks {advised}, which MariaDB's manual asks for; backups mostly work");
        record.warn(check::SERVER_PRIVILEGES, message, hint);
    } else {
        record.ok(check::SERVER_PRIVILEGES, "the account has all that a backup needs");
    }
}

fn redo_size(record: &mut Record<'_>, innodb: &InnodbFacts) {
    let size = human::bytes(innodb.log_file_bytes);
    let percent = innodb.checkpoint_age.saturating_mul(100) / innodb.checkpoint_max_age.max(1);
    let hint =
        "SET GLOBAL innodb_log_file_size = 1073741824, and the same in the option file (before 10.9 there alone)";
    if innodb.log_file_bytes < REDO_BYTES_SMALL {
        let risk = "a busy server overwrites it before it is copied, and the backup fails";
        record.warn(check::SERVER_REDO_SIZE, format!("the redo log has only {size}: {risk}"), hint);
    } else if percent >= REDO_FULL_PERCENT {
        let message = format!("{percent} % of the redo log ({size}) are in use: a backup may not keep up");
        record.warn(check::SERVER_REDO_SIZE, message, hint);
    } else {
        record.ok(check::SERVER_REDO_SIZE, format!("redo log of {size}, {percent} % in use"));
    }
}

/// What can be seen of the server's files.
#[derive(Debug)]
pub(super) struct Files {
    /// Directory, number of InnoDB's files and their bytes.
    pub readable: Result<(PathBuf, u64, u64), WalkError>,
    /// Whether a server runs on the datadir here.
    pub running: Option<ServerEvidence>,
}

impl Files {
    fn look(facts: &ServerFacts) -> Files {
        Files {
            readable: readable(facts),
            // What cannot be looked at is told by the other.
            running: datadir::server_runs_on(&facts.datadir).unwrap_or_default(),
        }
    }
}

fn readable(facts: &ServerFacts) -> Result<(PathBuf, u64, u64), WalkError> {
    let walk = DatadirWalk::walk(&DatadirLayout::of(facts))?;
    let (mut files, mut bytes) = (0, 0);
    for (name, identity) in walk.files() {
        let path = walk.datadir.join(name);
        match rustix::fs::access(&path, rustix::fs::Access::READ_OK) {
            // Dropped since, or kept in another directory, where the tool looks for it.
            Ok(()) | Err(rustix::io::Errno::NOENT) => {}
            Err(error) => return Err(WalkError::Read { path, source: io::Error::from(error) }),
        }
        (files, bytes) = (files + 1, bytes + identity.bytes);
    }
    Ok((walk.datadir, files, bytes))
}

/// Tells what can be seen of the server's files.
pub(super) fn files_told(record: &mut Record<'_>, looked: Result<Files, Abandoned>) {
    let files = match looked {
        Ok(files) => files,
        Err(abandoned) => {
            record.problem(check::SERVER_DATADIR, abandoned);
            return record.skip(check::SERVER, check::SERVER_DATADIR);
        }
    };
    let datadir = match files.readable {
        Ok((datadir, files, bytes)) => {
            let files = human::counted(files, "file");
            let message = format!("{files} of InnoDB, {}, can be read in {}", human::bytes(bytes), datadir.display());
            record.ok(check::SERVER_DATADIR, message);
            datadir
        }
        Err(error) => {
            record.problem(check::SERVER_DATADIR, error);
            return record.skip(check::SERVER, check::SERVER_DATADIR);
        }
    };
    match files.running {
        Some(evidence) => record.ok(check::SERVER_MACHINE, format!("the server runs on this machine: {evidence}")),
        None => record.warn(
            check::SERVER_MACHINE,
            format!(
                "no server is seen to run on {} here: another machine's server may have answered",
                datadir.display()
            ),
            "run haulout on the server's own machine, with its datadir",
        ),
    }
}
