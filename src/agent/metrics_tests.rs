use std::collections::BTreeSet;

use serde_json::json;

use super::*;
use crate::web::service::{Archiving, Running, Upcoming};

fn moment() -> Timestamp {
    Timestamp("2026-11-28T08:00:00Z".parse().unwrap())
}

/// The metrics of an agent of which everything is known.
fn whole() -> String {
    let jobs = [Job::Backup, Job::Archive, Job::Check, Job::Prune, Job::Compact, Job::Drill, Job::Copy];
    let last = Last { outcome: Outcome::Failed, finished: moment(), seconds: 7, succeeded: Some(moment()) };
    let mut tally = Tally::default();
    tally.add(Job::Backup, None, &json!({"requests": {"put": 3}, "errors": {"refused": 1}, "memory_peak_bytes": 5}));
    let sample = Sample {
        last: jobs.into_iter().map(|job| (job, last.clone())).collect(),
        ended: [((Job::Backup, "failed"), 2)].into(),
        proven: Some(Proven { finished: moment(), rto_seconds: Some(12.5) }),
        sizes: Some(Sizes { logical_bytes: 100, stream_bytes: 90, uploaded_bytes: 10, stored_bytes: 40 }),
        tally,
        sent: (3, 1),
        hook_failures: 1,
        memory_failures: 1,
        reloads: 2,
    };
    let upcoming = |job| Upcoming {
        at: moment().after(60),
        job,
        schedule: "0 2 * * *".to_owned(),
        zone: "UTC".to_owned(),
        detail: String::new(),
    };
    let status = AgentStatus {
        server: "db\"1".to_owned(),
        repository: "s3://backups/db1".to_owned(),
        version: "0.1.0".to_owned(),
        host: "h".to_owned(),
        started: moment(),
        config_file: "/etc/haulout.toml".to_owned(),
        config_loaded: moment(),
        config_problem: Some("x".to_owned()),
        running: vec![Running {
            run: 1,
            job: Job::Backup,
            cause: "schedule".to_owned(),
            started: moment(),
            phases: Vec::new(),
            log: Vec::new(),
        }],
        recent: Vec::new(),
        archiving: Some(Archiving {
            following: true,
            last_event: Some(moment()),
            waiting_seconds: 1,
            behind_bytes: Some(2),
            spooled_bytes: 3,
            gaps: 4,
            problem: None,
        }),
        upcoming: jobs.into_iter().filter(|job| *job != Job::Archive).map(upcoming).collect(),
    };
    text(&sample, &status, moment().after(90))
}

/// Names of metrics in `text`: of samples, without labels.
fn names(text: &str) -> BTreeSet<&str> {
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines.map(|line| line.split(['{', ' ']).next().unwrap()).collect()
}

/// Names of metrics that are meant in `text`, an expression or a whole file.
fn meant(text: &str) -> BTreeSet<&str> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.split(|c| !is_name(c)).filter(|word| word.starts_with("haulout_")).collect()
}

#[test]
fn values_are_those_that_were_seen() {
    let text = whole();
    for line in [
        "haulout_job_last_success_age_seconds{job=\"backup\"} 90.0",
        "haulout_job_last_outcome{job=\"backup\",outcome=\"failed\"} 1.0",
        "haulout_job_last_outcome{job=\"backup\",outcome=\"succeeded\"} 0.0",
        "haulout_job_running{job=\"backup\"} 1.0",
        "haulout_job_running{job=\"check\"} 0.0",
        "haulout_job_runs_total{job=\"backup\",outcome=\"failed\"} 2",
        "haulout_backup_dedup_ratio 0.75",
        "haulout_store_requests_total{kind=\"put\"} 3",
        "haulout_store_errors_total{kind=\"refused\"} 1",
        "haulout_archive_gaps_total 4",
        "haulout_restore_rto_seconds 12.5",
        "haulout_config_last_reload_successful 0.0",
        "haulout_webhook_failures_total 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    assert!(text.contains(r#"server="db\"1""#) && text.ends_with("# EOF\n"), "{text}");
    assert!(text.lines().any(|line| line.starts_with("haulout_agent_resident_memory_bytes ")), "{text}");
}

#[test]
fn alerts_and_the_dashboard_use_metrics_that_there_are_and_between_them_most_of_them() {
    let text = whole();
    let there = names(&text);
    let alerts = include_str!("../../infra/prometheus/alerts.yaml");
    let tests = include_str!("../../infra/prometheus/alerts_test.yaml");
    let dashboard = include_str!("../../infra/grafana/haulout.json");
    for (what, document) in [("alerts.yaml", alerts), ("alerts_test.yaml", tests), ("haulout.json", dashboard)] {
        let missing: Vec<_> = meant(document).difference(&there).copied().collect();
        assert!(missing.is_empty(), "{what} uses {missing:?}, which are none of {there:?}");
        assert!(meant(document).len() > 4, "{what}");
    }
    serde_json::from_str::<serde_json::Value>(dashboard).unwrap();
    let used: BTreeSet<_> = meant(alerts).union(&meant(dashboard)).copied().collect();
    assert!(used.len() * 2 > there.len(), "only {} of {}", used.len(), there.len());
}

#[test]
fn names_are_told_from_other_words() {
    assert_eq!(names("# HELP a b\na_b{c=\"d\"} 1\ne 2\n# EOF\n"), BTreeSet::from(["a_b", "e"]));
    assert_eq!(meant("rate(haulout_a_total{x=\"y\"}[5m]) > other"), BTreeSet::from(["haulout_a_total"]));
}
