//! What `compact` tells.

use serde::Serialize;

use crate::{
    cli::{human, output::Message, paint::Paint},
    model::BackupId,
    prune::{CompactReport, Usage},
    restore::RestorePlan,
};

/// What a restore reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct RestoreCost {
    /// Bytes of packs.
    pub fetched_bytes: u64,
    /// Ranged GETs for them.
    pub requests: u64,
    /// Stretches of files that come from a chunk each.
    pub pieces: u64,
}

impl From<&RestorePlan> for RestoreCost {
    fn from(plan: &RestorePlan) -> RestoreCost {
        RestoreCost { fetched_bytes: plan.fetched_bytes, requests: plan.requests, pieces: plan.pieces }
    }
}

/// Summary of `compact`.
#[derive(Debug, Clone, Serialize)]
pub struct CompactSummary<'a> {
    dry_run: bool,
    backup_id: Option<&'a BackupId>,
    backups: u64,
    before: Usage,
    after: Option<Usage>,
    moved_data_packs: u64,
    moved_map_packs: u64,
    moved_chunks: u64,
    merged_extents: u64,
    written_packs: u64,
    written_bytes: u64,
    editions: &'a [BackupId],
    left: u64,
    restore_before: Option<RestoreCost>,
    restore_after: Option<RestoreCost>,
    skipped: Vec<&'a str>,
    put_off: Option<&'a str>,
    seconds: f64,
}

impl Message for CompactSummary<'_> {
    const TYPE: &'static str = "summary";
}

impl<'a> CompactSummary<'a> {
    /// Sums `report` up; `restore` is what a restore of the chosen backup reads before and after.
    pub fn of(
        report: &'a CompactReport,
        dry_run: bool,
        restore: (Option<RestoreCost>, Option<RestoreCost>),
        seconds: f64,
    ) -> CompactSummary<'a> {
        CompactSummary {
            dry_run,
            backup_id: report.chosen.as_ref(),
            backups: report.backups,
            before: report.before,
            after: report.after,
            moved_data_packs: report.data_packs,
            moved_map_packs: report.map_packs,
            moved_chunks: report.moved_chunks,
            merged_extents: report.merged_extents,
            written_packs: report.written_packs,
            written_bytes: report.written_bytes,
            editions: &report.editions,
            left: report.left,
            restore_before: restore.0,
            restore_after: restore.1,
            skipped: report.skipped.iter().map(|skip| skip.message.as_str()).collect(),
            put_off: report.put_off.as_deref(),
            seconds,
        }
    }

    /// For people.
    pub fn text(&self, paint: Paint) -> String {
        if let Some(what) = self.put_off {
            return format!("put off for what is at work: {what}\n");
        }
        let Some(chosen) = self.backup_id else { return "there are no backups\n".to_owned() };
        let mut text = String::new();
        if self.editions.is_empty() {
            text += if self.skipped.is_empty() { "nothing to compact\n" } else { "nothing was compacted\n" };
        } else {
            let (moved, merged) = if self.dry_run { ("would move", "would be") } else { ("moved", "were") };
            let (data, maps) = (human::counted(self.moved_data_packs, "data pack"), human::count(self.moved_map_packs));
            text +=
                &format!("{} {moved} out of {data} and {maps} of maps\n", human::counted(self.moved_chunks, "chunk"));
            let extents = human::counted(self.merged_extents, "extent");
            text += &format!("{extents} of {chosen} {merged} put together\n");
        }
        if self.written_packs > 0 {
            let (packs, bytes) = (human::counted(self.written_packs, "pack"), human::bytes(self.written_bytes));
            let backups = human::counted(self.editions.len() as u64, "backup");
            text += &format!("{packs} ({bytes}) written; {backups} read by new editions of their manifests\n");
        }
        let usage = |usage: &Usage| {
            let (packs, bytes) = (human::counted(usage.packs, "pack"), human::bytes(usage.bytes));
            format!("{packs} ({bytes}), of which {} are dead", human::bytes(usage.dead_bytes))
        };
        text += &format!("{} needed {}\n", human::counted(self.backups, "backup"), usage(&self.before));
        if let Some(after) = &self.after {
            text += &format!("now {}\n", paint.green(&usage(after)));
        }
        let cost = |cost: &RestoreCost| {
            format!("{} in {}", human::bytes(cost.fetched_bytes), human::counted(cost.requests, "request"))
        };
        match (&self.restore_before, &self.restore_after) {
            (Some(before), Some(after)) => {
                let after = paint.green(&cost(after));
                text += &format!("a restore of {chosen} read {}, and now reads {after}\n", cost(before));
            }
            (Some(before), None) => text += &format!("a restore of {chosen} reads {}\n", cost(before)),
            _ => {}
        }
        if self.left > 0 {
            text += &format!("{} beyond the limits of one run wait for the next\n", human::count(self.left));
        }
        if !self.dry_run && !self.editions.is_empty() {
            text += "what this has superseded takes room until `haulout prune` has let go of it\n";
        }
        text
    }
}
