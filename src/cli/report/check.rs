//! What `check` and `doctor` find.

use serde::Serialize;

use super::Repair;
use crate::{
    cli::{human, output::Message, paint::Paint},
    model::BackupId,
    repository::ObjectKey,
};

/// A `damage` line of `check`: one stored object that is not as it should be.
#[derive(Debug, Clone, Serialize)]
pub struct Damage {
    /// Key of the object in the repository.
    pub object: String,
    /// What is wrong with it.
    pub problem: String,
    /// Backups that cannot be restored without it.
    pub backups: Vec<BackupId>,
    /// Files of these backups that need it, the first few.
    pub files: Vec<String>,
    /// What can be done.
    pub hint: Option<String>,
}

impl Message for Damage {
    const TYPE: &'static str = "damage";
}

impl Damage {
    /// For people.
    pub fn text(&self, paint: Paint) -> String {
        let ids: Vec<&str> = self.backups.iter().map(BackupId::as_str).collect();
        let hint = self.hint.as_ref().map_or_else(String::new, |hint| format!("  hint: {hint}\n"));
        let needed = match ids.is_empty() {
            true if self.object.starts_with(ObjectKey::BINLOGS) => "restores to a moment in it or behind it".to_owned(),
            true if self.object.starts_with(ObjectKey::PACKS) => "no backup whose page map can be read".to_owned(),
            true => "no backup".to_owned(),
            false => ids.join(", "),
        };
        let files = if self.files.is_empty() { String::new() } else { format!(", for {}", self.files.join(", ")) };
        format!("{} {}: {}\n  needed by {needed}{files}\n{hint}", paint.red("damaged"), self.object, self.problem)
    }
}

/// Summary of `check`.
#[derive(Debug, Clone, Serialize)]
pub struct CheckSummary {
    /// Backups whose objects were checked.
    pub backups: u64,
    /// Objects checked.
    pub objects: u64,
    /// Their size.
    pub bytes: u64,
    /// Share of the packs of which every byte was read, in percent; 0 when sizes were compared.
    pub read_percent: u8,
    /// Pages of InnoDB files that were checked; 0 when sizes were compared.
    pub pages_checked: u64,
    /// Chunks in packs that were read whose contents the key does not open.
    pub chunks_not_opened: u64,
    /// Objects that are damaged or missing.
    pub damaged_objects: u64,
    /// Backups that cannot be restored.
    pub damaged_backups: u64,
    /// Packs that no backup needs, such as those of a run that died.
    pub unreferenced_objects: u64,
    /// Their size.
    pub unreferenced_bytes: u64,
    /// Segments of archived binary log that were checked.
    pub binlog_segments: u64,
    /// Bytes of binary log whose events were read.
    pub binlog_bytes_read: u64,
    /// With `--repair`: what was done for later backups.
    pub repair: Option<Repair>,
    /// Time that it took.
    pub seconds: f64,
}

impl Message for CheckSummary {
    const TYPE: &'static str = "summary";
}

impl CheckSummary {
    /// For people.
    pub fn text(&self, paint: Paint) -> String {
        let how = match self.read_percent {
            0 => "presence and size of".to_owned(),
            100 => "every byte of".to_owned(),
            share => format!("every byte of {share} % of the packs, and presence and size of"),
        };
        let (backups, objects) = (human::counted(self.backups, "backup"), human::counted(self.objects, "object"));
        let time = human::duration(self.seconds.round() as u64);
        let verdict = match self.damaged_backups {
            0 if self.damaged_objects == 0 => paint.green("no damage"),
            broken => {
                let objects = human::counted(self.damaged_objects, "damaged object");
                let verb = if broken == 1 { "needs" } else { "need" };
                paint.red(&format!("{objects}, which {} {verb}", human::counted(broken, "backup")))
            }
        };
        let unreferenced = match self.unreferenced_objects {
            0 => String::new(),
            packs => {
                let (packs, size) = (human::counted(packs, "pack"), human::bytes(self.unreferenced_bytes));
                format!("{packs} ({size}) that no backup needs\n")
            }
        };
        let pages = match self.pages_checked {
            0 => String::new(),
            pages => {
                let rate = (pages as f64 / self.seconds.max(0.001)).round() as u64;
                let (pages, rate) = (human::counted(pages, "page"), human::count(rate));
                format!("{pages} checked for number, tablespace, checksum and LSN, {rate} a second\n")
            }
        };
        let binlogs = match (self.binlog_segments, self.binlog_bytes_read) {
            (0, _) => String::new(),
            (segments, 0) => format!("{} of binary log checked\n", human::counted(segments, "segment")),
            (segments, bytes) => {
                let (segments, bytes) = (human::counted(segments, "segment"), human::bytes(bytes));
                format!("{segments} of binary log checked, {bytes} of events read\n")
            }
        };
        let sealed = match self.chunks_not_opened {
            0 => String::new(),
            chunks => format!(
                "not checked: what is in {}, which a key of the sort `map` does not open; their packs are as they were written\n",
                human::counted(chunks, "chunk")
            ),
        };
        let size = human::bytes(self.bytes);
        let repair = match &self.repair {
            Some(repair) => repair.text(),
            None if self.damaged_objects > 0 => {
                "hint: `haulout check --read-data --repair` tells what can still be brought back, and lets the next backup store anew what is \
                 damaged\n"
                    .to_owned()
            }
            None => String::new(),
        };
        format!(
            "checked {how} {objects} ({size}) of {backups} in {time}: {verdict}\n{pages}{binlogs}{sealed}{unreferenced}{repair}"
        )
    }
}

/// Blanks before what does not begin with a level.
const INDENT: usize = 9;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// As it should be.
    Ok,
    /// Could not be looked at, because something else is wrong.
    Skipped,
    /// Worth to know.
    Warning,
    /// Would stop a backup or a restore.
    Problem,
}

/// Summary of `check --without-key`.
#[derive(Debug, Clone, Serialize)]
pub struct LockedCheckSummary {
    /// Always true.
    pub without_key: bool,
    /// Backups by the names of their manifests.
    pub backups: u64,
    /// Documents that were read.
    pub documents: u64,
    /// Packs that are there.
    pub objects: u64,
    /// Their size.
    pub bytes: u64,
    /// Share of the packs of which every byte was read, in percent.
    pub read_percent: u8,
    /// Objects that are not as they were written.
    pub damaged_objects: u64,
    /// Time that it took.
    pub seconds: f64,
}

impl Message for LockedCheckSummary {
    const TYPE: &'static str = "summary";
}

impl LockedCheckSummary {
    /// For people.
    pub fn text(&self, paint: Paint) -> String {
        let packs = match self.read_percent {
            0 => "no pack".to_owned(),
            100 => "every pack".to_owned(),
            share => format!("{share} % of the packs"),
        };
        let (documents, objects) = (human::counted(self.documents, "document"), human::counted(self.objects, "pack"));
        let (size, time) = (human::bytes(self.bytes), human::duration(self.seconds.round() as u64));
        let verdict = match self.damaged_objects {
            0 => paint.green("all as they were written"),
            broken => paint.red(&human::counted(broken, "damaged object")),
        };
        format!(
            "checked {documents} and {packs} of {objects} ({size}) in {time}, without a key: {verdict}\n\
             not checked: whether all packs are there that the {} need, and what is in them; that takes the key\n",
            human::counted(self.backups, "backup")
        )
    }
}

/// A `finding` line of `doctor`.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    /// What was looked at, such as `store.conditional_put`; it does not change between versions.
    pub check: String,
    /// How bad it is.
    pub level: Level,
    /// What was found.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

impl Message for Finding {
    const TYPE: &'static str = "finding";
}

impl Finding {
    /// For people; at most `columns` wide where there is a width.
    pub fn text(&self, paint: Paint, columns: Option<usize>) -> String {
        let word = match self.level {
            Level::Ok => paint.green("ok     "),
            Level::Skipped => paint.dim("skipped"),
            Level::Warning => paint.yellow("warning"),
            Level::Problem => paint.red("problem"),
        };
        // One line each: what a server or a store says can have line breaks.
        let words = format!("{}: {}", self.check, self.message);
        let lines = human::wrapped(&words, columns, INDENT);
        let hint = self.hint.as_ref().map(|hint| human::wrapped(&format!("hint: {hint}"), columns, INDENT));
        let indent = " ".repeat(INDENT);
        let mut text = format!("{word}  {}\n", lines.join(&format!("\n{indent}")));
        for line in hint.iter().flatten() {
            text += &format!("{indent}{line}\n");
        }
        text
    }
}

/// Summary of `doctor`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct DoctorSummary {
    /// Findings that are as they should be.
    pub ok: u64,
    /// Things that could not be looked at.
    pub skipped: u64,
    /// Warnings.
    pub warnings: u64,
    /// Problems.
    pub problems: u64,
    /// Names of the checks that found them.
    pub problem_checks: Vec<String>,
}

impl Message for DoctorSummary {
    const TYPE: &'static str = "summary";
}

impl DoctorSummary {
    /// Counts `findings`.
    pub fn of(findings: &[Finding]) -> DoctorSummary {
        let count = |level| findings.iter().filter(|finding| finding.level == level).count() as u64;
        DoctorSummary {
            ok: count(Level::Ok),
            skipped: count(Level::Skipped),
            warnings: count(Level::Warning),
            problems: count(Level::Problem),
            problem_checks: findings
                .iter()
                .filter(|finding| finding.level == Level::Problem)
                .map(|finding| finding.check.clone())
                .collect(),
        }
    }

    /// For people.
    pub fn text(&self, paint: Paint) -> String {
        let warnings = human::counted(self.warnings, "warning");
        match self.problems {
            0 => format!("{}, {warnings}\n", paint.green("a backup can run")),
            // By then the first of them may have left the screen.
            problems => {
                let problems = paint.red(&human::counted(problems, "problem"));
                format!("{problems}: {}; {warnings}\n", self.problem_checks.join(", "))
            }
        }
    }
}
