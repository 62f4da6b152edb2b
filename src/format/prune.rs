//! Documents of retention: what is to go, how far that has come, and what stays all the same.

use serde::{Deserialize, Serialize};

use super::{Document, FormatError};
use crate::model::{BackupId, PackId, PlanId, StreamId, Timestamp};

/// Packs named in one [`PrunePacks`]: 67 bytes each, so that a document stays below 7 MiB.
pub const PACKS_PER_PART: usize = 100_000;

/// A backup that a plan lets go of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LetGo {
    /// The backup.
    pub id: BackupId,
    /// Why, for people.
    pub reason: String,
    /// True when the operator named it, false when retention let go of it.
    pub named: bool,
}

/// An edition of a backup's manifest that a later one has replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Superseded {
    /// The backup.
    pub id: BackupId,
    /// The edition.
    pub edition: u32,
}

/// What a plan lets go of a stream of binary log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BinlogLetGo {
    /// The stream.
    pub stream: StreamId,
    /// All segments with lower numbers go.
    pub below: u32,
    /// Segments whose documents had not come, and whose packs go if they still have not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unfinished: Vec<u32>,
}

/// `prune/<plan>-plan.json`: its arrival is the plan. Nothing in it happens before the grace period has passed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrunePlan {
    /// Its name, also in its key.
    pub id: PlanId,
    /// When it was made, by the clock of the machine that made it. What counts is the store's.
    pub created: Timestamp,
    /// Seconds from when the store received it until it may be carried out.
    pub grace_seconds: u64,
    /// Version of haulout.
    pub haulout_version: String,
    /// The rules that it follows, for people.
    pub policy: Vec<String>,
    /// Backups that go.
    pub backups: Vec<LetGo>,
    /// Editions of other backups that go.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub editions: Vec<Superseded>,
    /// Documents `prune/<plan>-packs-<part>.json` that name the packs.
    pub parts: u32,
    /// Packs that no backup will need once these are gone.
    pub packs: u64,
    /// Their bytes.
    pub pack_bytes: u64,
    /// Binary log that goes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub binlogs: Vec<BinlogLetGo>,
    /// Segments of it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub segments: u64,
    /// Their bytes, and those of packs of unfinished ones.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub segment_bytes: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Document for PrunePlan {
    const WORD: &'static str = "prune-plan";
}

/// `prune/<plan>-packs-<part>.json`: names of packs that nobody needed when the plan was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrunePacks {
    /// The plan.
    pub plan: PlanId,
    /// Number of the document, from 0.
    pub part: u32,
    /// Ascending.
    pub packs: Vec<PackId>,
}

impl Document for PrunePacks {
    const WORD: &'static str = "prune-packs";

    fn check(&self) -> Result<(), FormatError> {
        if self.packs.len() <= PACKS_PER_PART && self.packs.is_sorted() {
            return Ok(());
        }
        let problem = format!("{} packs in one document, or not ascending", self.packs.len());
        Err(FormatError::Document { what: format!("prune plan {}", self.plan), problem })
    }
}

/// What a sweep deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SweepTally {
    /// Backups.
    pub backups: u64,
    /// Superseded editions of others.
    #[serde(default)]
    pub editions: u64,
    /// Packs.
    pub packs: u64,
    /// Bytes of these packs.
    pub pack_bytes: u64,
    /// Segments of binary log.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub segments: u64,
    /// Bytes of their packs, and of those of unfinished ones.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub segment_bytes: u64,
}

/// `prune/<plan>-begun.json`, from when things may be missing, and `prune/<plan>-done.json`, from when no more will be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PruneStep {
    /// The plan.
    pub plan: PlanId,
    /// True in the document that ends it.
    pub done: bool,
    /// What was deleted; nothing in the document that begins it.
    pub deleted: SweepTally,
}

impl Document for PruneStep {
    const WORD: &'static str = "prune-step";
}

/// `prune/keep-<backup>-<random>.json`: the backup stays, whatever retention says, and whatever plan named it before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keep {
    /// The backup.
    pub backup: BackupId,
}

impl Document for Keep {
    const WORD: &'static str = "keep";
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::{decode_document, encode_document};

    #[test]
    fn documents_of_retention_round_trip() {
        let moment = Timestamp("2026-11-22T02:00:00Z".parse().unwrap());
        let id: PlanId = "20261122T020000Z-aaaaaa".parse().unwrap();
        let backup: BackupId = "20261120T020000Z-bbbbbb".parse().unwrap();
        let plan = PrunePlan {
            id: id.clone(),
            created: moment,
            grace_seconds: 86400,
            haulout_version: "0.1.0".to_owned(),
            policy: vec!["--keep-last 3".to_owned()],
            backups: vec![LetGo { id: backup.clone(), reason: "no rule keeps it".to_owned(), named: false }],
            editions: vec![Superseded { id: backup.clone(), edition: 3 }],
            parts: 1,
            packs: 2,
            pack_bytes: 3,
            binlogs: vec![BinlogLetGo { stream: backup.as_str().parse().unwrap(), below: 7, unfinished: vec![9] }],
            segments: 7,
            segment_bytes: 8,
        };
        assert_eq!(decode_document::<PrunePlan>("plan", &encode_document(&plan).unwrap()).unwrap(), plan);
        let packs = PrunePacks { plan: id.clone(), part: 0, packs: vec![PackId([1; 32]), PackId([2; 32])] };
        assert_eq!(decode_document::<PrunePacks>("packs", &encode_document(&packs).unwrap()).unwrap(), packs);
        let step = PruneStep {
            plan: id,
            done: true,
            deleted: SweepTally { backups: 1, editions: 4, packs: 2, pack_bytes: 3, segments: 5, segment_bytes: 6 },
        };
        assert_eq!(decode_document::<PruneStep>("step", &encode_document(&step).unwrap()).unwrap(), step);
        let keep = Keep { backup };
        assert_eq!(decode_document::<Keep>("keep", &encode_document(&keep).unwrap()).unwrap(), keep);
    }

    #[test]
    fn plans_without_binary_log_are_read_and_written_as_before_there_was_any() {
        let text = r#"{"id":"20261122T020000Z-aaaaaa","created":"2026-11-22T02:00:00Z","grace_seconds":1,"haulout_version":"0.1.0","policy":[],"backups":[],"parts":0,"packs":0,"pack_bytes":0}"#;
        let plan: PrunePlan = serde_json::from_str(text).unwrap();
        assert!(plan.binlogs.is_empty());
        assert_eq!(serde_json::to_string(&plan).unwrap(), text);
        let text = r#"{"backups":1,"editions":4,"packs":2,"pack_bytes":3}"#;
        assert_eq!(serde_json::to_string(&serde_json::from_str::<SweepTally>(text).unwrap()).unwrap(), text);
    }

    #[test]
    fn packs_of_a_plan_that_are_out_of_order_are_refused() {
        let plan: PlanId = "20261122T020000Z-aaaaaa".parse().unwrap();
        let packs = PrunePacks { plan, part: 0, packs: vec![PackId([2; 32]), PackId([1; 32])] };
        assert!(decode_document::<PrunePacks>("packs", &encode_document(&packs).unwrap()).is_err());
    }
}
