//! Drills and their proofs.

use std::path::PathBuf;

use serde::Serialize;

use super::Facts;
use crate::{
    cli::{human, output::Message, paint::Paint},
    drill::DrillPlan,
    format::{Proof, ProofAssertion, ProofSample, ProofSpaces, ProofTables, ProofTimes},
    model::{BackupId, ProofId, Timestamp},
};

/// Summary of `drill`.
#[derive(Debug, Clone, Serialize)]
pub struct DrillSummary<'a> {
    passed: bool,
    backup_id: &'a BackupId,
    proof_id: &'a ProofId,
    recorded: Option<String>,
    failures: &'a [String],
    more_failures: u64,
    warnings: &'a [String],
    started: Timestamp,
    finished: Timestamp,
    host: &'a str,
    server_version: &'a str,
    tool_version: &'a str,
    fetched_bytes: u64,
    written_bytes: u64,
    rto_seconds: f64,
    seconds: f64,
    steps: DrillSeconds,
    tables: ProofTables,
    spaces: ProofSpaces,
    sample: Option<ProofSample>,
    assertions: &'a [ProofAssertion],
}

/// Time that the steps of a drill took.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct DrillSeconds {
    plan: f64,
    fetch: f64,
    prepare: f64,
    start: f64,
    check: f64,
    assert: f64,
    stop: f64,
}

fn seconds(milliseconds: u64) -> f64 {
    milliseconds as f64 / 1000.0
}

fn rounded(milliseconds: u64) -> String {
    human::duration(milliseconds.saturating_add(500) / 1000)
}

impl From<ProofTimes> for DrillSeconds {
    fn from(took: ProofTimes) -> DrillSeconds {
        DrillSeconds {
            plan: seconds(took.plan_ms),
            fetch: seconds(took.fetch_ms),
            prepare: seconds(took.prepare_ms),
            start: seconds(took.start_ms),
            check: seconds(took.check_ms),
            assert: seconds(took.assert_ms),
            stop: seconds(took.stop_ms),
        }
    }
}

impl Message for DrillSummary<'_> {
    const TYPE: &'static str = "summary";
}

impl<'a> DrillSummary<'a> {
    /// Of a proof, recorded as the object of this key; `seconds` is what the whole took.
    pub fn of(proof: &'a Proof, recorded: Option<String>, seconds: f64) -> DrillSummary<'a> {
        DrillSummary {
            passed: proof.passed,
            backup_id: &proof.backup,
            proof_id: &proof.id,
            recorded,
            failures: &proof.failures,
            more_failures: proof.more_failures,
            warnings: &proof.warnings,
            started: proof.started,
            finished: proof.finished,
            host: &proof.host,
            server_version: &proof.server_version,
            tool_version: &proof.tool_version,
            fetched_bytes: proof.fetched_bytes,
            written_bytes: proof.written_bytes,
            rto_seconds: self::seconds(proof.took.rto_ms()),
            seconds,
            steps: proof.took.into(),
            tables: proof.tables,
            spaces: proof.spaces,
            sample: proof.sample,
            assertions: &proof.assertions,
        }
    }

    /// For people.
    pub fn text(&self, paint: Paint) -> String {
        let DrillSeconds { plan, fetch, prepare, start, .. } = self.steps;
        let time = |seconds: f64| human::duration(seconds.round() as u64);
        let ready = format!(
            "{} (plan {}, fetch {}, prepare {}, start {})",
            time(self.rto_seconds),
            time(plan),
            time(fetch),
            time(prepare),
            time(start)
        );
        let hold = self.assertions.iter().filter(|assertion| assertion.passed).count();
        let assertions = (!self.assertions.is_empty()).then(|| format!("{hold} of {} hold", self.assertions.len()));
        let mut failures = self.failures.to_vec();
        if self.more_failures > 0 {
            failures.push(format!("and {} more", self.more_failures));
        }
        let verdict = if self.passed { paint.green("passed") } else { paint.red("failed") };
        let facts = Facts::default()
            .with_some("failed", (!self.passed).then(|| failures.join("\n")))
            .with(if self.steps.start > 0.0 && self.tables.found > 0 { "ready after" } else { "took" }, ready)
            .with("restored", format!("{} by mariadbd {}", human::bytes(self.written_bytes), self.server_version))
            .with("tables", tables(self.tables, self.sample))
            .with_some("assertions", assertions)
            .with("took in all", time(self.seconds))
            .with("proof", self.recorded.clone().unwrap_or_else(|| "not recorded".to_owned()));
        format!("drill of backup {} {verdict}\n{}", paint.bold(self.backup_id.as_str()), facts.text(paint))
    }
}

/// What was checked, in words.
fn tables(tables: ProofTables, sample: Option<ProofSample>) -> String {
    let ProofTables { expected, found, views, checked, damaged, left_out } = tables;
    let seed = sample.map_or(String::new(), |sample| format!(" (seed {})", sample.seed));
    let count = human::count;
    let mut text =
        format!("{} of {} there, {} checked", count(found), human::counted(expected, "table"), count(checked));
    if views > 0 {
        text += &format!(", {}", human::counted(views, "view"));
    }
    if left_out > 0 {
        text += &format!(", {} left out", count(left_out));
    }
    if damaged > 0 {
        text += &format!(", {} damaged", count(damaged));
    }
    text + &seed
}

/// Summary of `drill --dry-run`.
#[derive(Debug, Clone, Serialize)]
pub struct DrillPlanSummary {
    dry_run: bool,
    backup_id: BackupId,
    scratch: PathBuf,
    files: u64,
    written_bytes: u64,
    fetched_bytes: u64,
    requests: u64,
    needed_bytes: u64,
    free_bytes: u64,
}

impl Message for DrillPlanSummary {
    const TYPE: &'static str = "summary";
}

impl DrillPlanSummary {
    /// Of a plan to drill `backup_id` in `scratch`.
    pub fn of(plan: &DrillPlan, backup_id: BackupId, scratch: PathBuf) -> DrillPlanSummary {
        DrillPlanSummary {
            dry_run: true,
            backup_id,
            scratch,
            files: plan.files,
            written_bytes: plan.written_bytes,
            fetched_bytes: plan.fetched_bytes,
            requests: plan.requests,
            needed_bytes: plan.needed_bytes,
            free_bytes: plan.free_bytes,
        }
    }

    /// For people.
    pub fn text(&self, paint: Paint) -> String {
        let (needed, free) = (human::bytes(self.needed_bytes), human::bytes(self.free_bytes));
        let facts = Facts::default()
            .with("scratch", self.scratch.display().to_string())
            .with("room", format!("{needed} needed, {free} free"))
            .with("write", format!("{} in {}", human::bytes(self.written_bytes), human::counted(self.files, "file")))
            .with(
                "fetch",
                format!("{} in {}", human::bytes(self.fetched_bytes), human::counted(self.requests, "request")),
            );
        format!("would drill backup {}\n{}", paint.bold(self.backup_id.as_str()), facts.text(paint))
    }
}

/// A proof as `list` and `show` tell it.
#[derive(Debug, Clone, Serialize)]
pub struct ProofLine<'a> {
    proof_id: &'a ProofId,
    passed: bool,
    started: Timestamp,
    finished: Timestamp,
    host: &'a str,
    rto_seconds: f64,
    steps: DrillSeconds,
    tables: ProofTables,
    sample: Option<ProofSample>,
    failures: &'a [String],
}

impl<'a> From<&'a Proof> for ProofLine<'a> {
    fn from(proof: &'a Proof) -> ProofLine<'a> {
        ProofLine {
            proof_id: &proof.id,
            passed: proof.passed,
            started: proof.started,
            finished: proof.finished,
            host: &proof.host,
            rto_seconds: seconds(proof.took.rto_ms()),
            steps: proof.took.into(),
            tables: proof.tables,
            sample: proof.sample,
            failures: &proof.failures,
        }
    }
}

/// The newest proof that passed; `proofs` begin with the newest.
pub(in crate::cli) fn last_passed(proofs: &[Proof]) -> Option<&Proof> {
    proofs.iter().find(|proof| proof.passed)
}

/// When a restore was proven and how long it took, in two cells.
pub(in crate::cli) fn proof_cells(proofs: &[Proof]) -> [String; 2] {
    match (proofs.first(), last_passed(proofs)) {
        (Some(newest), _) if !newest.passed => ["failed".to_owned(), String::new()],
        (_, Some(proof)) => [proof.finished.0.strftime("%Y-%m-%d").to_string(), rounded(proof.took.rto_ms())],
        _ => [String::new(), String::new()],
    }
}

/// Proofs for people, a line each and its failures below.
pub(in crate::cli) fn proof_facts(proofs: &[Proof]) -> Facts {
    proofs.iter().fold(Facts::default(), |facts, proof| {
        let moment = proof.started.0.strftime("%Y-%m-%d %H:%M");
        let mut text = format!("{moment} UTC on {}; {}", proof.host, tables(proof.tables, proof.sample));
        if proof.passed {
            text += &format!("; ready after {}", rounded(proof.took.rto_ms()));
        }
        for failure in &proof.failures {
            text += &format!("\n{failure}");
        }
        facts.with(if proof.passed { "passed" } else { "failed" }, text)
    })
}
