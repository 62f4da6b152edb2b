//! How a server stands: one word, and an order in which the worst comes first. A pure function of what is known and the time.

use std::sync::Arc;

use super::record::{Reading, ServerRecord, gaps};
use crate::error::Kind;
use crate::model::{Timestamp, human};

/// What is borne.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thresholds {
    /// Seconds that the newest backup may be old.
    pub backup_age_max: u64,
    /// Seconds that the newest proof may be old; proofs are not asked for when absent.
    pub proof_age_max: Option<u64>,
    /// Seconds back from now in which a gap between windows matters.
    pub gap_within: u64,
}

impl Default for Thresholds {
    /// A nightly backup with two hours to spare, a drill a month, gaps of the last week.
    fn default() -> Thresholds {
        Thresholds { backup_age_max: 26 * 3600, proof_age_max: Some(35 * 86_400), gap_within: 7 * 86_400 }
    }
}

/// How much a standing matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Somebody must act: what is wanted cannot be restored, or that is not known.
    Critical,
    /// It can be restored, with less than was wanted.
    Warning,
    /// Too little is known to say.
    Unknown,
    /// All is well.
    Fine,
}

/// How a server stands; the order is that of the page, the worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Standing {
    /// The repository cannot be read, or is none any more.
    Unreadable,
    /// It has no backup.
    NoBackup,
    /// A manifest cannot be read, or a check found packs damaged.
    Damaged,
    /// The newest backup is too old.
    TooOld,
    /// The newest proof of a restore failed.
    ProofFailed,
    /// A time of which no second can be restored lies between what is archived, or the archive ends before the newest backup.
    Gap,
    /// The repository could be read before and cannot be reached now.
    Unreachable,
    /// No restore was proven for too long, or ever.
    Unproven,
    /// It is sealed, and no key for it was given.
    Sealed,
    /// It was not looked at yet.
    Waiting,
    /// All is well.
    Fine,
}

impl Standing {
    /// All, the worst first.
    pub const ALL: [Standing; 11] = [
        Standing::Unreadable,
        Standing::NoBackup,
        Standing::Damaged,
        Standing::TooOld,
        Standing::ProofFailed,
        Standing::Gap,
        Standing::Unreachable,
        Standing::Unproven,
        Standing::Sealed,
        Standing::Waiting,
        Standing::Fine,
    ];

    /// The word in the API, in metrics and in addresses.
    pub const fn name(self) -> &'static str {
        match self {
            Standing::Unreadable => "unreadable",
            Standing::NoBackup => "no_backup",
            Standing::Damaged => "damaged",
            Standing::TooOld => "too_old",
            Standing::ProofFailed => "proof_failed",
            Standing::Gap => "gap",
            Standing::Unreachable => "unreachable",
            Standing::Unproven => "unproven",
            Standing::Sealed => "sealed",
            Standing::Waiting => "waiting",
            Standing::Fine => "fine",
        }
    }

    /// What people read.
    pub const fn label(self) -> &'static str {
        match self {
            Standing::Unreadable => "Unreadable",
            Standing::NoBackup => "No backup",
            Standing::Damaged => "Damaged",
            Standing::TooOld => "Too old",
            Standing::ProofFailed => "Drill failed",
            Standing::Gap => "Gap",
            Standing::Unreachable => "Unreachable",
            Standing::Unproven => "Unproven",
            Standing::Sealed => "Sealed",
            Standing::Waiting => "Reading",
            Standing::Fine => "Fine",
        }
    }

    /// How much it matters.
    pub const fn severity(self) -> Severity {
        match self {
            Standing::Unreadable
            | Standing::NoBackup
            | Standing::Damaged
            | Standing::TooOld
            | Standing::ProofFailed => Severity::Critical,
            Standing::Gap | Standing::Unreachable | Standing::Unproven => Severity::Warning,
            Standing::Sealed | Standing::Waiting => Severity::Unknown,
            Standing::Fine => Severity::Fine,
        }
    }
}

impl Severity {
    /// The word in the API and in class names.
    pub const fn name(self) -> &'static str {
        match self {
            Severity::Critical => "critical",
            Severity::Warning => "warning",
            Severity::Unknown => "unknown",
            Severity::Fine => "fine",
        }
    }
}

/// How a server stands, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// The worst of all.
    pub standing: Standing,
    /// A sentence for people.
    pub reason: String,
    /// What else is not as it should be, the worst first.
    pub also: Vec<(Standing, String)>,
}

/// Judges one server.
pub fn judge(server: &ServerRecord, thresholds: &Thresholds, now: Timestamp) -> Judgement {
    let mut all = complaints(server, thresholds, now);
    all.sort_by_key(|(standing, _)| *standing);
    if all.is_empty() {
        all.push((Standing::Fine, "everything can be restored".to_owned()));
    }
    let (standing, reason) = all.remove(0);
    Judgement { standing, reason, also: all }
}

fn complaints(server: &ServerRecord, thresholds: &Thresholds, now: Timestamp) -> Vec<(Standing, String)> {
    let mut found = Vec::new();
    let age = |moment: Timestamp| now.seconds_since(moment).max(0).unsigned_abs();
    if let Some(fault) = &server.fault {
        let problem = &fault.message;
        found.push(match server.read_at.filter(|_| fault.kind == Kind::StorageUnavailable) {
            Some(read) => {
                let told = format!("what is known of it is {} old: {problem}", human::duration(age(read)));
                (Standing::Unreachable, told)
            }
            None => (Standing::Unreadable, problem.clone()),
        });
    }
    match server.reading {
        Reading::Waiting => {
            found.push((Standing::Waiting, "it was not looked at yet".to_owned()));
            return found;
        }
        Reading::Failed => return found,
        Reading::Sealed => {
            found.push((Standing::Sealed, "no key for it was given: only names and times are known".to_owned()))
        }
        Reading::Read => {}
    }
    if server.backup_count() == 0 {
        found.push((Standing::NoBackup, "no backup was ever taken".to_owned()));
        return found;
    }
    if let Some((id, problem)) = server.unread.last() {
        found.push((Standing::Damaged, format!("backup {id} cannot be read: {problem}")));
    }
    if server.damaged_packs > 0 {
        let packs = human::counted(server.damaged_packs, "pack");
        found.push((Standing::Damaged, format!("a check found {packs} damaged")));
    }
    if let Some(newest) = server.newest_at()
        && age(newest) > thresholds.backup_age_max
    {
        let told = human::duration(age(newest));
        found.push((Standing::TooOld, format!("the newest backup is {told} old")));
    }
    if server.reading == Reading::Read {
        found.extend(of_proofs(server, thresholds, &age));
        found.extend(of_windows(server, thresholds, now));
    }
    found
}

fn of_proofs(
    server: &ServerRecord,
    thresholds: &Thresholds,
    age: &dyn Fn(Timestamp) -> u64,
) -> Option<(Standing, String)> {
    let told = human::duration;
    if let Some(proof) = server.last_proof().filter(|proof| proof.passed == Some(false)) {
        let problem = proof.problem.clone().unwrap_or_else(|| "it does not say why".to_owned());
        return Some((Standing::ProofFailed, format!("the last drill failed: {problem}")));
    }
    let age_max = thresholds.proof_age_max?;
    match server.last_proven() {
        None => Some((Standing::Unproven, "no restore was ever proven by a drill".to_owned())),
        Some(proof) if age(proof.finished) > age_max => {
            Some((Standing::Unproven, format!("the last proven restore is {} old", told(age(proof.finished)))))
        }
        Some(_) => None,
    }
}

fn of_windows(server: &ServerRecord, thresholds: &Thresholds, now: Timestamp) -> Option<(Standing, String)> {
    let told = human::duration;
    let within = now.after(-i64::try_from(thresholds.gap_within).unwrap_or(i64::MAX));
    let gap = gaps(&server.windows).into_iter().rfind(|gap| gap.to >= within);
    if let Some(gap) = gap {
        let length = told(gap.to.seconds_since(gap.from).max(0).unsigned_abs());
        let reason = gap.reason.map_or_else(String::new, |reason| format!(": {reason}"));
        return Some((Standing::Gap, format!("{length} cannot be restored to the second{reason}")));
    }
    // An idle server archives nothing: what lacks is known by the newest backup's position alone.
    let newest = server.newest()?;
    let reached = server.windows.iter().any(|window| window.last_backup.as_ref() == Some(&newest.id));
    let end = server.windows.iter().map(|window| window.to).max();
    let behind = |end: Timestamp| newest.started.seconds_since(end).max(0).unsigned_abs();
    match end {
        _ if reached => None,
        None if server.binlogs.streams > 0 => {
            Some((Standing::Gap, "what is archived of binary log leads from no backup".to_owned()))
        }
        Some(end) if behind(end) > thresholds.backup_age_max => Some((
            Standing::Gap,
            format!("the archive of binary log ends {} before the newest backup", told(behind(end))),
        )),
        _ => None,
    }
}

/// Judges every server, the worst first; equals stand in the order of their names.
pub fn judged(servers: &[Arc<ServerRecord>], thresholds: &Thresholds, now: Timestamp) -> Vec<Judged> {
    let mut all: Vec<Judged> = servers.iter().map(|server| (server.clone(), judge(server, thresholds, now))).collect();
    all.sort_by(|(one, left), (other, right)| (left.standing, &one.name).cmp(&(right.standing, &other.name)));
    all
}

/// A server and how it stands.
pub type Judged = (Arc<ServerRecord>, Judgement);
