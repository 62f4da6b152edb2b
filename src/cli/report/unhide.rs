//! What `unhide` finds and does.

use serde::Serialize;

use crate::{
    cli::{human, output::Message, paint::Paint},
    unhide::{Action, Finding},
};

/// An `unhidden` line of `unhide`: one object that readers did not see as it was stored.
#[derive(Debug, Clone, Serialize)]
pub struct Unhidden {
    /// Its key.
    pub object: String,
    /// `hidden` behind a delete marker, `overwritten` by other bytes, `beyond` when no version of it is right.
    pub state: &'static str,
    /// `planned`, `unmarked`, `copied`, `left` or `none`.
    pub action: &'static str,
}

impl From<&Finding> for Unhidden {
    fn from(finding: &Finding) -> Unhidden {
        let state = match (finding.action, finding.hidden) {
            (Action::Beyond, _) => "beyond",
            (_, true) => "hidden",
            (_, false) => "overwritten",
        };
        let action = match finding.action {
            Action::Planned => "planned",
            Action::Unmarked => "unmarked",
            Action::Copied => "copied",
            Action::Left => "left",
            Action::Beyond => "none",
        };
        Unhidden { object: finding.object.clone(), state, action }
    }
}

impl Message for Unhidden {
    const TYPE: &'static str = "unhidden";
}

impl Unhidden {
    /// For people.
    pub fn text(&self, paint: Paint) -> String {
        let state = match self.state {
            "hidden" => "deleted",
            "overwritten" => "written over",
            _ => "damaged",
        };
        let done = match self.action {
            "planned" => "would be brought back",
            "unmarked" => "brought back by removing its delete markers",
            "copied" => "brought back by a copy",
            "left" => "left so: it is not locked, as what was pruned; --all brings it back",
            _ => "no version of it is right",
        };
        format!("{} {}: {done}\n", paint.bold(state), self.object)
    }
}

/// Summary of `unhide`.
#[derive(Debug, Clone, Serialize)]
pub struct UnhideSummary {
    /// True when nothing was done.
    pub dry_run: bool,
    /// Objects looked at.
    pub objects: u64,
    /// Objects that were behind delete markers.
    pub hidden: u64,
    /// Objects that were behind other bytes.
    pub overwritten: u64,
    /// Objects brought back.
    pub brought_back: u64,
    /// Objects that stay hidden.
    pub left: u64,
    /// Objects of which no version is right.
    pub beyond: u64,
    /// Time that it took.
    pub seconds: f64,
}

impl Message for UnhideSummary {
    const TYPE: &'static str = "summary";
}

impl UnhideSummary {
    /// For people.
    pub fn text(&self, paint: Paint) -> String {
        let objects = human::counted(self.objects, "object");
        let found = format!("{} deleted, {} written over", human::count(self.hidden), human::count(self.overwritten));
        let done = match self.dry_run {
            true => "nothing was done".to_owned(),
            false => format!("{} brought back", human::count(self.brought_back)),
        };
        let beyond = match self.beyond {
            0 => String::new(),
            beyond => paint.red(&format!(", {} without a right version", human::count(beyond))),
        };
        format!("looked at {objects}: {found}, {done}{beyond}\n")
    }
}
