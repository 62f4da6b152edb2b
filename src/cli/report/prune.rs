//! What `prune` and `undelete` tell.

use serde::Serialize;

use crate::{
    cli::{human, output::Message, paint::Paint},
    model::{BackupId, PlanId, Timestamp},
    prune::{Decided, Fate, PruneReport},
};

/// What became of a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Action {
    /// It stays.
    Stays,
    /// A plan lets go of it.
    Goes,
    /// It was deleted.
    Deleted,
}

/// A `retention` line of `prune`: a backup and what becomes of it.
#[derive(Debug, Clone, Serialize)]
pub struct PruneLine<'a> {
    backup_id: &'a BackupId,
    kind: Option<&'static str>,
    started: Option<Timestamp>,
    tags: &'a [String],
    action: Action,
    reasons: Vec<&'a str>,
    plan: Option<&'a PlanId>,
    deleted_after: Option<Timestamp>,
}

impl Message for PruneLine<'_> {
    const TYPE: &'static str = "retention";
}

impl<'a> PruneLine<'a> {
    /// What `report` says of `backup`.
    pub fn of(backup: &'a Decided, report: &'a PruneReport) -> PruneLine<'a> {
        let id = &backup.judged.id;
        let manifest = backup.manifest.as_deref();
        let deleted = report.swept.iter().find(|swept| swept.backups.contains(id));
        let spared = report.swept.iter().any(|swept| swept.spared.contains(id));
        let made = report.made.as_ref().filter(|made| made.backups.contains(id));
        let planned = backup.planned.as_ref().filter(|_| !spared);
        let fate = match &backup.judged.fate {
            Fate::Stays(reasons) => reasons.iter().map(String::as_str).collect(),
            Fate::Goes { reason, .. } => vec![reason.as_str()],
        };
        let planned_for = || vec![planned.map_or("", |planned| planned.reason.as_str())];
        let (action, reasons) = match (deleted, planned, made) {
            (Some(_), Some(_), _) => (Action::Deleted, planned_for()),
            (Some(_), None, _) => (Action::Deleted, fate),
            (None, Some(_), _) => (Action::Goes, planned_for()),
            (None, None, Some(_)) => (Action::Goes, fate),
            (None, None, None) => (Action::Stays, fate),
        };
        let deleted_after = planned.map(|planned| planned.due).or_else(|| made.map(|made| made.due));
        PruneLine {
            backup_id: id,
            kind: manifest.map(|manifest| manifest.kind.name()),
            started: manifest.map(|manifest| manifest.started),
            tags: manifest.map(|manifest| manifest.tags.as_slice()).unwrap_or_default(),
            action,
            reasons,
            plan: planned.map(|planned| &planned.plan).or_else(|| made.and_then(|made| made.plan.as_ref())),
            deleted_after: deleted_after.filter(|_| action != Action::Stays),
        }
    }

    /// True when the backup stays.
    pub fn stays(&self) -> bool {
        self.action == Action::Stays
    }

    /// For people: name, kind, start, what becomes of it, why.
    pub fn cells(&self) -> Vec<String> {
        let action = match (self.action, self.deleted_after) {
            (Action::Stays, _) => "stays".to_owned(),
            (Action::Deleted, _) => "deleted".to_owned(),
            (Action::Goes, None) => "goes".to_owned(),
            (Action::Goes, Some(due)) => format!("goes {}", minute(due)),
        };
        let started = self.started.map_or(String::new(), |started| started.to_string().replace('T', " "));
        vec![
            self.backup_id.to_string(),
            self.kind.unwrap_or("damaged").to_owned(),
            started.trim_end_matches('Z').to_owned(),
            action,
            self.reasons.join(", "),
        ]
    }
}

/// Backups, and superseded editions of others where there are any.
fn with_editions(backups: String, editions: u64) -> String {
    match editions {
        0 => backups,
        some => format!("{backups} and {} of others", human::counted(some, "superseded edition")),
    }
}

/// A moment to the minute, in UTC.
fn minute(moment: Timestamp) -> String {
    moment.0.strftime("%Y-%m-%d %H:%M").to_string()
}

/// Summary of `prune`.
#[derive(Debug, Clone, Serialize)]
pub struct PruneSummary<'a> {
    dry_run: bool,
    stays: u64,
    goes: u64,
    plan: Option<&'a PlanId>,
    deleted_after: Option<Timestamp>,
    planned_backups: u64,
    planned_editions: u64,
    planned_packs: u64,
    planned_bytes: u64,
    planned_segments: u64,
    planned_segment_bytes: u64,
    deleted_backups: u64,
    deleted_editions: u64,
    deleted_packs: u64,
    deleted_bytes: u64,
    deleted_segments: u64,
    deleted_segment_bytes: u64,
    locked_packs: u64,
    locked_until: Option<Timestamp>,
    waiting_plans: u64,
    skipped: Vec<&'a str>,
    put_off: Option<&'a str>,
    seconds: f64,
}

impl Message for PruneSummary<'_> {
    const TYPE: &'static str = "summary";
}

impl<'a> PruneSummary<'a> {
    /// Sums `report` up.
    pub fn of(report: &'a PruneReport, dry_run: bool, seconds: f64) -> PruneSummary<'a> {
        let made = report.made.as_ref();
        let lines: Vec<PruneLine<'_>> = report.backups.iter().map(|backup| PruneLine::of(backup, report)).collect();
        let count = |action| lines.iter().filter(|line| line.action == action).count() as u64;
        let swept = &report.swept;
        PruneSummary {
            dry_run,
            stays: count(Action::Stays),
            goes: count(Action::Goes),
            plan: made.and_then(|made| made.plan.as_ref()),
            deleted_after: made.map(|made| made.due),
            planned_backups: made.map_or(0, |made| made.backups.len() as u64),
            planned_editions: made.map_or(0, |made| made.editions),
            planned_packs: made.map_or(0, |made| made.packs),
            planned_bytes: made.map_or(0, |made| made.pack_bytes),
            planned_segments: made.map_or(0, |made| made.segments),
            planned_segment_bytes: made.map_or(0, |made| made.segment_bytes),
            deleted_backups: swept.iter().map(|swept| swept.backups.len() as u64).sum(),
            deleted_editions: swept.iter().map(|swept| swept.editions).sum(),
            deleted_packs: swept.iter().map(|swept| swept.packs).sum(),
            deleted_bytes: swept.iter().map(|swept| swept.pack_bytes).sum(),
            deleted_segments: swept.iter().map(|swept| swept.segments).sum(),
            deleted_segment_bytes: swept.iter().map(|swept| swept.segment_bytes).sum(),
            locked_packs: swept.iter().map(|swept| swept.locked_packs).sum(),
            locked_until: swept.iter().filter_map(|swept| swept.locked_until).min(),
            waiting_plans: report.waiting,
            skipped: report.skipped.iter().map(|skip| skip.message.as_str()).collect(),
            put_off: report.put_off.as_deref(),
            seconds,
        }
    }

    /// For people.
    pub fn text(&self, paint: Paint) -> String {
        let mut text = String::new();
        if self.deleted_backups + self.deleted_editions + self.deleted_packs > 0 {
            let backups = with_editions(human::counted(self.deleted_backups, "backup"), self.deleted_editions);
            let packs = human::counted(self.deleted_packs, "pack");
            text += &format!("deleted {backups} and {packs} ({})\n", human::bytes(self.deleted_bytes));
        }
        if self.deleted_segments + self.deleted_segment_bytes > 0 {
            let (segments, size) = (self.deleted_segments, human::bytes(self.deleted_segment_bytes));
            text += &format!("deleted {} of binary log ({size})\n", human::counted(segments, "segment"));
        }
        if self.locked_packs > 0 {
            let packs = human::counted(self.locked_packs, "pack");
            let until = self.locked_until.map_or("for now".to_owned(), |until| format!("until {} UTC", minute(until)));
            text += &format!("{packs} that nobody needs stay locked {until}, and are planned again\n");
        }
        if let Some(who) = self.put_off {
            text += &format!("a backup is running ({who}): what is due is deleted by the next prune\n");
        }
        match self.deleted_after.filter(|_| self.planned_backups + self.planned_editions + self.planned_packs > 0) {
            Some(due) if self.deleted_backups == 0 || self.plan.is_none() || self.waiting_plans > 0 => {
                let backups = paint.yellow(&human::counted(self.planned_backups, "backup"));
                let backups = with_editions(backups, self.planned_editions);
                let packs = human::counted(self.planned_packs, "pack");
                let (size, due) = (human::bytes(self.planned_bytes), minute(due));
                let (lets, are) = if self.dry_run { ("would let", "would be") } else { ("lets", "are") };
                let plan = self.plan.map_or("a plan".to_owned(), |plan| format!("plan {plan}"));
                text += &format!(
                    "{plan} {lets} go of {backups}; they and {packs} ({size}) {are} deleted by the first prune after {due} UTC\n"
                );
                if self.planned_backups > 0 && !self.dry_run {
                    text += "until then `haulout undelete ID` keeps a backup\n";
                }
            }
            _ => {}
        }
        if let Some(due) = self.deleted_after.filter(|_| self.planned_segments + self.planned_segment_bytes > 0)
            && (self.deleted_segments == 0 || self.plan.is_none() || self.waiting_plans > 0)
        {
            let (size, due) = (human::bytes(self.planned_segment_bytes), minute(due));
            let segments = human::counted(self.planned_segments, "segment");
            text += &format!("{segments} of binary log ({size}), which no backup that stays needs: after {due} UTC\n");
        }
        let (stays, goes) = (human::counted(self.stays, "backup"), self.goes);
        let verb = if self.stays == 1 { "stays" } else { "stay" };
        text += &format!("{stays} {verb}, {goes} to go\n");
        text
    }
}

/// Summary of `undelete`.
#[derive(Debug, Clone, Serialize)]
pub struct UndeleteSummary {
    /// Backups that stay.
    pub backups: Vec<BackupId>,
}

impl Message for UndeleteSummary {
    const TYPE: &'static str = "summary";
}

impl UndeleteSummary {
    /// For people.
    pub fn text(&self, _: Paint) -> String {
        let stay = |id: &BackupId| format!("backup {id} stays, until `haulout prune --let-go` names it\n");
        self.backups.iter().map(stay).collect()
    }
}
