use std::{collections::BTreeSet, path::PathBuf};

use super::*;
use crate::{
    mariadb::{
        facts::FactsError,
        sql::SqlError,
        tool::{ToolError, ToolPaths, Tools},
    },
    store::{Answer, Capabilities, Refused, StoreError},
};

/// Findings of `look`, as level and check.
fn findings(look: impl FnOnce(&mut Record<'_>)) -> Vec<Finding> {
    let mut record = Record { tell: &|_| {}, findings: Vec::new() };
    look(&mut record);
    let names: BTreeSet<&str> = record.findings.iter().map(|finding| finding.check.as_str()).collect();
    assert_eq!(names.len(), record.findings.len(), "a check is told twice: {:#?}", record.findings);
    record.findings
}

fn of_level(findings: &[Finding], level: Level) -> Vec<&str> {
    findings.iter().filter(|finding| finding.level == level).map(|finding| finding.check.as_str()).collect()
}

fn able() -> Capabilities {
    Capabilities {
        write: Answer::Yes,
        read: Answer::Yes,
        list: Answer::Yes,
        delete: Answer::Yes,
        conditional_put: Answer::Yes,
        versioning: Answer::No("versioning is off".to_owned()),
        object_lock: Answer::No("object lock is off".to_owned()),
        default_retention: None,
        clock_skew_seconds: Some(0),
    }
}

fn told(capabilities: &Capabilities) -> Vec<Finding> {
    findings(|record| store::capabilities_told(record, capabilities, true))
}

#[test]
fn every_check_is_documented_and_named_once() {
    let page = include_str!("../OUTPUT.md");
    let all = [
        check::TOOLS,
        check::SERVER,
        check::ARCHIVE,
        check::SPOOL,
        check::STORE,
        check::REPOSITORY,
        &[check::BACKUP_NEXT],
    ];
    let all = all.concat();
    for check in &all {
        assert!(page.contains(&format!("| `{check}` |")), "{check} is not in OUTPUT.md");
    }
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
}

#[test]
fn a_store_that_can_do_everything_is_all_well() {
    let findings = told(&able());
    assert_eq!(of_level(&findings, Level::Ok).len(), findings.len(), "{findings:#?}");
}

#[test]
fn an_ignored_condition_is_a_warning_that_says_that_nothing_depends_on_it() {
    let ignored = Capabilities { conditional_put: Answer::No("ignored".to_owned()), ..able() };
    let findings = told(&ignored);
    assert_eq!(of_level(&findings, Level::Warning), [check::STORE_CONDITIONAL_PUT]);
    let finding = findings.iter().find(|finding| finding.level == Level::Warning).unwrap();
    assert!(finding.hint.as_ref().unwrap().contains("nothing depends on it"), "{finding:?}");
}

#[test]
fn an_account_that_may_not_write_is_one_problem_and_what_follows_is_skipped() {
    let unknown = || Answer::Unknown("no object could be stored to try it".to_owned());
    let denied = Capabilities {
        write: Answer::No("denied".to_owned()),
        read: unknown(),
        delete: unknown(),
        conditional_put: unknown(),
        clock_skew_seconds: None,
        ..able()
    };
    let findings = told(&denied);
    assert_eq!(of_level(&findings, Level::Problem), [check::STORE_WRITE]);
    let skipped = [check::STORE_READ, check::STORE_DELETE, check::STORE_CONDITIONAL_PUT, check::STORE_CLOCK];
    assert_eq!(of_level(&findings, Level::Skipped), skipped);
}

#[test]
fn clocks_that_differ_are_a_warning_before_they_are_a_problem() {
    for (skew, level) in [
        (0, Level::Ok),
        (-60, Level::Ok),
        (61, Level::Warning),
        (-840, Level::Warning),
        (841, Level::Problem),
        (i64::MIN, Level::Problem),
    ] {
        let findings = told(&Capabilities { clock_skew_seconds: Some(skew), ..able() });
        assert_eq!(findings.last().map(|finding| finding.level), Some(level), "{skew}");
    }
}

#[test]
fn a_refusal_of_the_store_is_told_where_it_belongs() {
    let source = || Box::new(std::io::Error::other("no"));
    let origin = || std::sync::Arc::new(crate::store::Origin::default());
    let denied = |reason| StoreError::Denied {
        action: crate::store::Action::Store,
        what: "x".to_owned(),
        reason,
        origin: origin(),
        source: source(),
    };
    for (error, culprit) in [
        (denied(Refused::WrongSecret), check::STORE_CREDENTIALS),
        (denied(Refused::Permission), check::STORE_REACHABLE),
        (StoreError::ClockSkew { origin: origin(), source: source() }, check::STORE_CLOCK),
        (StoreError::NoDirectory { directory: PathBuf::from("/x") }, check::STORE_SETTINGS),
        (StoreError::NoBucket { origin: origin(), source: source() }, check::STORE_REACHABLE),
    ] {
        let findings = findings(|record| store::refused(record, error, check::STORE));
        assert_eq!(of_level(&findings, Level::Problem), [culprit]);
        assert_eq!(findings.len(), check::STORE.len(), "each check has its finding");
        assert!(findings.iter().all(|finding| finding.level == Level::Problem || finding.message.contains(culprit)));
    }
}

#[test]
fn a_refusal_of_the_server_leaves_no_check_without_a_finding() {
    let unreachable = SqlError::Unreachable { code: 2002, message: "no".to_owned() };
    let denied = SqlError::AccessDenied { code: 1045, message: "no".to_owned() };
    for (error, culprit, well) in [
        (FactsError::Sql(unreachable), check::SERVER_REACHABLE, 0),
        (FactsError::Sql(denied), check::SERVER_LOGIN, 1),
        (FactsError::NotMariaDb { version: "8.0.36".to_owned() }, check::SERVER_VERSION, 2),
    ] {
        let findings = findings(|record| server::refused(record, error));
        assert_eq!(of_level(&findings, Level::Problem), [culprit]);
        assert_eq!(of_level(&findings, Level::Ok).len(), well);
        assert_eq!(findings.len(), check::SERVER.len() + check::ARCHIVE.len());
    }
}

#[test]
fn a_tool_that_is_missing_or_broken_is_told_by_its_own_name() {
    let missing = Tools::discover(&ToolPaths { search: vec!["/nowhere".into()], ..ToolPaths::default() });
    let findings_of = |discovered| {
        findings(|record| {
            host::tools_found(record, discovered);
        })
    };
    let found = findings_of(missing);
    assert_eq!(of_level(&found, Level::Problem), [check::TOOLS_BACKUP]);
    assert_eq!(of_level(&found, Level::Skipped), [check::TOOLS_CLIENT, check::TOOLS_SERVER]);
    assert!(found[0].hint.as_ref().unwrap().contains("install the package"), "{found:?}");
    for (path, culprit) in [("/usr/bin/mysql", check::TOOLS_CLIENT), ("/usr/sbin/mysqld", check::TOOLS_SERVER)] {
        let broken = ToolError::NotMariaDb { path: path.into(), found: "MySQL".to_owned() };
        assert_eq!(of_level(&findings_of(Err(broken)), Level::Problem), [culprit]);
    }
}

#[test]
fn a_spool_has_room_for_a_pack_and_better_for_all_it_may_hold() {
    let level = |free, wanted| findings(|record| host::space(record, free, wanted))[0].level;
    assert_eq!(level(1 << 20, Some(4 << 30)), Level::Problem);
    assert_eq!(level(1 << 30, Some(4 << 30)), Level::Warning);
    assert_eq!(level(8 << 30, Some(4 << 30)), Level::Ok);
    assert_eq!(level(1 << 20, None), Level::Ok);
    assert_eq!(level(1 << 20, Some(0)), Level::Ok);
}

#[test]
fn a_log_that_cannot_be_archived_or_does_not_wait_is_a_warning_that_says_how_to_mend_it() {
    let good = archive::LogFacts { log_slave_updates: true, expire_seconds: 10 * 86_400, lacking: vec![] };
    let told = |log: archive::LogFacts, replica| findings(|record| archive::told(record, &log, "b@localhost", replica));
    assert_eq!(of_level(&told(good.clone(), true), Level::Ok).len(), 3);
    assert_eq!(of_level(&told(archive::LogFacts { expire_seconds: 0, ..good.clone() }, false), Level::Ok).len(), 3);
    let without_updates = archive::LogFacts { log_slave_updates: false, ..good.clone() };
    assert_eq!(of_level(&told(without_updates.clone(), false), Level::Ok).len(), 3, "it replicates nothing");
    assert_eq!(of_level(&told(without_updates, true), Level::Warning), [check::ARCHIVE_LOG]);
    let poor = told(archive::LogFacts { lacking: vec!["REPLICATION SLAVE"], ..good.clone() }, false);
    assert_eq!(of_level(&poor, Level::Warning), [check::ARCHIVE_PRIVILEGES]);
    let hint = "GRANT REPLICATION SLAVE, BINLOG MONITOR ON *.* TO `b`@`localhost`";
    assert_eq!(poor[1].hint.as_deref(), Some(hint));
    let hasty = told(archive::LogFacts { expire_seconds: 3600, ..good }, false);
    assert_eq!(of_level(&hasty, Level::Warning), [check::ARCHIVE_RETENTION]);
    let off = findings(archive::off);
    assert_eq!(of_level(&off, Level::Ok).len(), 3, "backups need no log");
}
