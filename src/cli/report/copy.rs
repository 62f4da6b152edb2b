//! What `copy` tells, and `list --copy` of a copy.

use serde::Serialize;

use crate::{
    cli::{human, output::Message, paint::Paint},
    copy::{Copied, CopyReport, Lag},
    model::{BackupId, RepositoryId},
};

/// A `copied` line: a backup that was copied, or would be.
#[derive(Debug, Clone, Serialize)]
pub struct CopiedLine<'a> {
    backup_id: &'a BackupId,
    edition: u32,
    packs: u64,
    bytes: u64,
}

impl<'a> From<&'a Copied> for CopiedLine<'a> {
    fn from(copied: &'a Copied) -> CopiedLine<'a> {
        CopiedLine { backup_id: &copied.id, edition: copied.edition, packs: copied.packs, bytes: copied.bytes }
    }
}

impl Message for CopiedLine<'_> {
    const TYPE: &'static str = "copied";
}

impl CopiedLine<'_> {
    /// For people.
    pub fn text(&self) -> String {
        let CopiedLine { backup_id, packs, bytes, .. } = self;
        format!("{backup_id}  {} in {}\n", human::bytes(*bytes), human::counted(*packs, "pack"))
    }
}

/// Summary of `copy`.
#[derive(Debug, Clone, Serialize)]
pub struct CopySummary<'a> {
    dry_run: bool,
    repository_id: RepositoryId,
    url: &'a str,
    to: &'a str,
    made: bool,
    source_backups: u64,
    copy_backups: u64,
    latest: Option<&'a BackupId>,
    behind: u64,
    copied_backups: u64,
    copied_packs: u64,
    copied_bytes: u64,
    copied_segments: u64,
    copied_segment_bytes: u64,
    left_out_segments: u64,
    copied_key_slots: u64,
    let_go: &'a [BackupId],
    skipped: Vec<&'a str>,
    seconds: f64,
}

impl Message for CopySummary<'_> {
    const TYPE: &'static str = "summary";
}

impl<'a> CopySummary<'a> {
    /// Sums `report` up, of a repository and where it and its copy are.
    pub fn of(
        report: &'a CopyReport,
        (repository_id, url, to): (RepositoryId, &'a str, &'a str),
        dry_run: bool,
        seconds: f64,
    ) -> CopySummary<'a> {
        CopySummary {
            dry_run,
            repository_id,
            url,
            to,
            made: report.made,
            source_backups: report.source_backups,
            copy_backups: report.copy_backups,
            latest: report.latest.as_ref(),
            behind: report.behind.len() as u64,
            copied_backups: report.copied.len() as u64,
            copied_packs: report.packs,
            copied_bytes: report.bytes,
            copied_segments: report.binlogs.segments,
            copied_segment_bytes: report.binlogs.bytes,
            left_out_segments: report.binlogs.left_out,
            copied_key_slots: report.slots,
            let_go: &report.let_go,
            skipped: report.skipped.iter().map(|skip| skip.message.as_str()).collect(),
            seconds,
        }
    }

    /// For people.
    pub fn text(&self, paint: Paint) -> String {
        let (backups, packs) =
            (human::counted(self.copied_backups, "backup"), human::counted(self.copied_packs, "pack"));
        let bytes = human::bytes(self.copied_bytes);
        let mut text = match (self.dry_run, self.copied_backups) {
            (true, 0) => "nothing to copy\n".to_owned(),
            (true, _) => format!("would copy {backups} to {}: {bytes} in {packs}\n", paint.bold(self.to)),
            (false, 0) if self.copied_packs == 0 => "nothing was copied\n".to_owned(),
            (false, _) => {
                let rate = human::rate(self.copied_bytes, self.seconds);
                let time = human::duration(self.seconds as u64);
                format!("copied {backups} to {}: {bytes} in {packs} in {time}, {rate}\n", paint.bold(self.to))
            }
        };
        if self.copied_segments > 0 {
            let (segments, bytes) = (human::counted(self.copied_segments, "segment"), self.copied_segment_bytes);
            let verb = if self.dry_run { "would copy" } else { "copied" };
            text += &format!("{verb} {segments} of binary log: {}\n", human::bytes(bytes));
        }
        if self.left_out_segments > 0 {
            text += "archived binary log was not copied\n";
        }
        let newest = self.latest.map_or(String::new(), |latest| format!(", the newest is {latest}"));
        text += &format!("the copy has {}{newest}; ", human::counted(self.copy_backups, "backup"));
        text += &match self.behind {
            0 => paint.green("it is not behind") + "\n",
            behind => paint.yellow(&format!("it is {} behind", human::counted(behind, "backup"))) + "\n",
        };
        text
    }
}

/// What `list --copy` tells of the copy.
#[derive(Debug, Clone, Serialize)]
pub struct CopyState<'a> {
    /// Where it is.
    pub url: &'a str,
    /// Backups that it has.
    pub backups: u64,
    /// The newest of them.
    pub latest: Option<&'a BackupId>,
    /// Backups of the repository that are newer.
    pub behind: u64,
    /// Time from the beginning of its newest backup to that of the repository's; null where one of the two is not known.
    pub behind_seconds: Option<i64>,
}

impl<'a> CopyState<'a> {
    /// Of a copy at `url`; `started` tells when a backup began.
    pub fn of(
        url: &'a str,
        lag: &'a Lag,
        started: impl Fn(&BackupId) -> Option<crate::model::Timestamp>,
    ) -> CopyState<'a> {
        let latest = lag.backups.last();
        let behind_seconds = match (lag.behind.last(), latest) {
            (None, _) => latest.map(|_| 0),
            (Some(newest), Some(latest)) => {
                started(newest).zip(started(latest)).map(|(newest, latest)| newest.seconds_since(latest))
            }
            (Some(_), None) => None,
        };
        CopyState { url, backups: lag.backups.len() as u64, latest, behind: lag.behind.len() as u64, behind_seconds }
    }

    /// For people: one line.
    pub fn text(&self, paint: Paint) -> String {
        let has = format!("copy {} has {}", paint.bold(self.url), human::counted(self.backups, "backup"));
        let time = self.behind_seconds.and_then(|seconds| u64::try_from(seconds).ok());
        let time = time.map_or(String::new(), |seconds| format!(" ({})", human::duration(seconds)));
        match self.behind {
            0 => format!("{has} and is {}\n", paint.green("not behind")),
            behind => {
                let lacks = format!("lacks the newest {}{time}", human::count(behind));
                format!("{has} and {}: `haulout copy` brings it up\n", paint.yellow(&lacks))
            }
        }
    }
}
