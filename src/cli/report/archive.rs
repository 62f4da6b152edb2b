//! What `archive` tells.

use serde::Serialize;

use crate::{
    archive::Figures,
    cli::{human, output::Message, paint::Paint},
    model::{GtidSet, Timestamp},
};

/// An `archive` line: how far the archive is.
#[derive(Debug, Clone, Serialize)]
pub struct ArchiveStatus {
    following: bool,
    seconds_since_event: Option<u64>,
    waiting_seconds: u64,
    behind_bytes: Option<u64>,
    spooled_bytes: u64,
    file: Option<String>,
    position: u64,
    gtid: GtidSet,
    last_event: Option<Timestamp>,
    segments: u64,
    transactions: u64,
    binlog_bytes: u64,
    stored_bytes: u64,
    gaps: u64,
}

impl Message for ArchiveStatus {
    const TYPE: &'static str = "archive";
}

impl ArchiveStatus {
    /// As `figures` say, at `now`.
    pub fn new(figures: &Figures, now: Timestamp) -> ArchiveStatus {
        ArchiveStatus {
            following: figures.following,
            seconds_since_event: figures.seconds_since_event(now),
            waiting_seconds: figures.waiting_seconds(now),
            behind_bytes: figures.behind_bytes,
            spooled_bytes: figures.spooled_bytes,
            file: figures.file.clone(),
            position: figures.position,
            gtid: figures.gtid.clone(),
            last_event: figures.last_event,
            segments: figures.segments,
            transactions: figures.transactions,
            binlog_bytes: figures.binlog_bytes,
            stored_bytes: figures.stored_bytes,
            gaps: figures.gaps,
        }
    }
}

/// Summary of `archive`.
#[derive(Debug, Clone, Serialize)]
pub struct ArchiveSummary {
    segments: u64,
    transactions: u64,
    binlog_bytes: u64,
    stored_bytes: u64,
    gaps: u64,
    file: Option<String>,
    position: u64,
    gtid: GtidSet,
    last_event: Option<Timestamp>,
    seconds: f64,
}

impl Message for ArchiveSummary {
    const TYPE: &'static str = "summary";
}

impl ArchiveSummary {
    /// Sums `figures` up, of a run that took `seconds`.
    pub fn new(figures: &Figures, seconds: f64) -> ArchiveSummary {
        ArchiveSummary {
            segments: figures.segments,
            transactions: figures.transactions,
            binlog_bytes: figures.binlog_bytes,
            stored_bytes: figures.stored_bytes,
            gaps: figures.gaps,
            file: figures.file.clone(),
            position: figures.position,
            gtid: figures.gtid.clone(),
            last_event: figures.last_event,
            seconds,
        }
    }

    /// For people.
    pub fn text(&self, paint: Paint) -> String {
        let mut text = match (self.segments, self.last_event) {
            (0, _) | (_, None) => "nothing was archived\n".to_owned(),
            (segments, Some(last)) => {
                let (transactions, segments) =
                    (human::counted(self.transactions, "transaction"), human::counted(segments, "segment"));
                let (binlog, stored) = (human::bytes(self.binlog_bytes), human::bytes(self.stored_bytes));
                format!(
                    "archived {transactions} in {segments}: {binlog} of binary log in {stored}, up to {last}, GTID {}\n",
                    self.gtid
                )
            }
        };
        if self.gaps > 0 {
            let gaps = paint.yellow(&human::counted(self.gaps, "gap"));
            text += &format!("there is {gaps}, which no restore leads across: run `haulout backup`\n");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{
        output::{OutputOptions, tests::sheets},
        snapshot,
    };

    #[test]
    fn what_archive_tells_is_as_reviewed() {
        let moment = |text: &str| Timestamp(text.parse().unwrap());
        let figures = Figures {
            following: true,
            file: Some("db1-bin.000042".to_owned()),
            position: 88_061,
            gtid: "0-1-207,3-1-7".parse().unwrap(),
            last_event: Some(moment("2026-11-22T02:05:04Z")),
            waiting_since: Some(moment("2026-11-22T02:05:06Z")),
            behind_bytes: Some(4_011),
            spooled_bytes: 12_288,
            segments: 3,
            transactions: 1_114,
            binlog_bytes: 1_087_975,
            stored_bytes: 230_121,
            gaps: 1,
        };
        let (output, out, _) = sheets(OutputOptions { json: true, ..OutputOptions::default() });
        let mut texts = String::new();
        output.json(&ArchiveStatus::new(&figures, moment("2026-11-22T02:05:08Z")));
        for figures in [figures, Figures::default()] {
            let summary = ArchiveSummary::new(&figures, 61.2);
            texts += &summary.text(Paint::default());
            output.json(&summary);
        }
        snapshot::check("archive.txt", &texts);
        snapshot::check("archive.jsonl", &out.text());
    }
}
