//! What `doctor` looks at: tools, server, spool, store and repository, in the order in which a backup meets them.
//!
//! Nothing here fails: what is wrong is a finding, and what cannot be looked at because of it is one too. Every look has a
//! limit, and after the first failure of a store or a server its other checks are left out, so that an endpoint that does
//! not answer costs one patience and not ten.

mod archive;
mod host;
mod repository;
mod server;
mod store;
#[cfg(test)]
mod tests;

use super::{
    commands::{Context, doctor::Patient},
    failure::Failure,
    open,
    report::{Finding, Level},
};
use crate::error::{Diagnose, Kind};

/// Names of the checks. Scripts rely on them (OUTPUT.md): a name is added, never changed.
pub mod check {
    pub const TOOLS_BACKUP: &str = "tools.mariadb_backup";
    pub const TOOLS_CLIENT: &str = "tools.mariadb";
    pub const TOOLS_SERVER: &str = "tools.mariadbd";
    pub const SERVER_REACHABLE: &str = "server.reachable";
    pub const SERVER_LOGIN: &str = "server.login";
    pub const SERVER_VERSION: &str = "server.version";
    pub const SERVER_TOOL_FIT: &str = "server.tool_fit";
    pub const SERVER_PRIVILEGES: &str = "server.privileges";
    pub const SERVER_ENGINES: &str = "server.engines";
    pub const SERVER_REDO_ARCHIVE: &str = "server.redo_archive";
    pub const SERVER_REDO_SIZE: &str = "server.redo_size";
    pub const SERVER_REDO_ENCRYPTION: &str = "server.redo_encryption";
    pub const SERVER_LAYOUT: &str = "server.layout";
    pub const SERVER_DATADIR: &str = "server.datadir";
    pub const SERVER_MACHINE: &str = "server.machine";
    pub const ARCHIVE_TOOL: &str = "archive.tool";
    pub const ARCHIVE_LOG: &str = "archive.log";
    pub const ARCHIVE_PRIVILEGES: &str = "archive.privileges";
    pub const ARCHIVE_RETENTION: &str = "archive.retention";
    pub const SPOOL_WRITABLE: &str = "spool.writable";
    pub const SPOOL_SPACE: &str = "spool.space";
    pub const STORE_SETTINGS: &str = "store.settings";
    pub const STORE_CREDENTIALS: &str = "store.credentials";
    pub const STORE_REACHABLE: &str = "store.reachable";
    pub const STORE_WRITE: &str = "store.write";
    pub const STORE_READ: &str = "store.read";
    pub const STORE_LIST: &str = "store.list";
    pub const STORE_DELETE: &str = "store.delete";
    pub const STORE_CONDITIONAL_PUT: &str = "store.conditional_put";
    pub const STORE_VERSIONING: &str = "store.versioning";
    pub const STORE_OBJECT_LOCK: &str = "store.object_lock";
    pub const STORE_CLOCK: &str = "store.clock";
    pub const REPOSITORY_FORMAT: &str = "repository.format";
    pub const REPOSITORY_LOCK: &str = "repository.lock";
    pub const REPOSITORY_LAST_BACKUP: &str = "repository.last_backup";
    pub const REPOSITORY_LAST_MAP: &str = "repository.last_map";
    pub const BACKUP_NEXT: &str = "backup.next";

    /// Checks of MariaDB's tools.
    pub const TOOLS: &[&str] = &[TOOLS_BACKUP, TOOLS_CLIENT, TOOLS_SERVER];
    /// Checks of the server.
    pub const SERVER: &[&str] = &[
        SERVER_REACHABLE,
        SERVER_LOGIN,
        SERVER_VERSION,
        SERVER_TOOL_FIT,
        SERVER_PRIVILEGES,
        SERVER_ENGINES,
        SERVER_REDO_ARCHIVE,
        SERVER_REDO_SIZE,
        SERVER_REDO_ENCRYPTION,
        SERVER_LAYOUT,
        SERVER_DATADIR,
        SERVER_MACHINE,
    ];
    /// Checks of what `archive` needs.
    pub const ARCHIVE: &[&str] = &[ARCHIVE_TOOL, ARCHIVE_LOG, ARCHIVE_PRIVILEGES, ARCHIVE_RETENTION];
    /// Checks of the spool.
    pub const SPOOL: &[&str] = &[SPOOL_WRITABLE, SPOOL_SPACE];
    /// Checks of the store.
    pub const STORE: &[&str] = &[
        STORE_SETTINGS,
        STORE_CREDENTIALS,
        STORE_REACHABLE,
        STORE_WRITE,
        STORE_READ,
        STORE_LIST,
        STORE_DELETE,
        STORE_CONDITIONAL_PUT,
        STORE_VERSIONING,
        STORE_OBJECT_LOCK,
        STORE_CLOCK,
    ];
    /// Checks of the repository.
    pub const REPOSITORY: &[&str] = &[REPOSITORY_FORMAT, REPOSITORY_LOCK, REPOSITORY_LAST_BACKUP, REPOSITORY_LAST_MAP];
}

/// Looks at everything and tells each finding as it comes.
pub async fn examine(patient: &Patient, tell: &dyn Fn(&Finding), context: &Context) -> Vec<Finding> {
    let mut record = Record { tell, findings: Vec::new() };
    let tools = host::tools(&mut record, open::tools(&patient.tools)).await;
    match &tools {
        Some(tools) if tools.client.is_some() => server::examine(&mut record, tools, patient).await,
        _ => {
            let culprit = record.culprit(check::TOOLS);
            record.skip(check::SERVER, culprit);
            record.skip(check::ARCHIVE, culprit);
        }
    }
    host::spool(&mut record, patient);
    match store::examine(&mut record, patient, context).await {
        Some(store) => repository::examine(&mut record, store, patient, context).await,
        None => {
            let culprit = record.culprit(check::STORE);
            record.skip(check::REPOSITORY, culprit);
            record.skip(&[check::BACKUP_NEXT], culprit);
        }
    }
    record.findings
}

/// The findings so far; each is told as it is added.
struct Record<'a> {
    tell: &'a dyn Fn(&Finding),
    findings: Vec<Finding>,
}

impl Record<'_> {
    fn add(&mut self, check: &str, level: Level, message: impl Into<String>, hint: Option<String>) {
        let finding = Finding { check: check.to_owned(), level, message: message.into(), hint };
        (self.tell)(&finding);
        self.findings.push(finding);
    }

    fn ok(&mut self, check: &str, message: impl Into<String>) {
        self.add(check, Level::Ok, message, None);
    }

    fn warn(&mut self, check: &str, message: impl Into<String>, hint: impl Into<String>) {
        self.add(check, Level::Warning, message, Some(hint.into()));
    }

    /// Notes an error of another room as a problem, in one sentence.
    fn problem(&mut self, check: &str, error: impl Into<Failure>) {
        let failure = error.into();
        let message = std::iter::once(failure.message).chain(failure.causes).collect::<Vec<_>>().join(": ");
        self.add(check, Level::Problem, message, failure.hint);
    }

    /// Notes those of `checks` that were not looked at, because of `culprit`.
    fn skip(&mut self, checks: &[&str], culprit: &str) {
        for check in checks {
            if !self.findings.iter().any(|finding| finding.check == *check) {
                self.add(check, Level::Skipped, format!("not looked at, because of {culprit}"), None);
            }
        }
    }

    /// The first of `checks` that is a problem.
    fn first_problem<'b>(&self, checks: &[&'b str]) -> Option<&'b str> {
        let is_problem = |finding: &Finding, check| finding.check == check && finding.level == Level::Problem;
        checks.iter().copied().find(|check| self.findings.iter().any(|finding| is_problem(finding, *check)))
    }

    /// The check among `checks` because of which others were not looked at.
    fn culprit<'b>(&self, checks: &[&'b str]) -> &'b str {
        self.first_problem(checks).or(checks.first().copied()).unwrap_or_default()
    }
}

/// Runs `look` where it may block. A panic is a bug; the other checks go on.
async fn aside<T: Send + 'static>(look: impl FnOnce() -> T + Send + 'static) -> Result<T, Abandoned> {
    tokio::task::spawn_blocking(look).await.map_err(|_| Abandoned)
}

/// A look came to no end.
#[derive(Debug, thiserror::Error)]
#[error("this check failed by itself")]
struct Abandoned;

impl Diagnose for Abandoned {
    fn kind(&self) -> Kind {
        Kind::Failed
    }

    fn hint(&self) -> Option<String> {
        Some("this is a bug in haulout: please report it with the log of `haulout -vv doctor`".to_owned())
    }
}
