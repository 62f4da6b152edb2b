//! `haulout list --windows`: from when to when any second can be restored.

use serde::Serialize;

use super::super::{
    Context, Finish,
    table::{Column, Table},
};
use crate::{
    cli::{
        failure::Failure,
        human, open,
        options::StoreSettings,
        output::{Message, Output},
        paint::Paint,
    },
    format::Manifest,
    model::{GtidSet, Timestamp},
    repository::Window,
};

/// A time in which any second can be restored.
#[derive(Debug, Clone, Serialize)]
struct WindowLine {
    #[serde(flatten)]
    window: Window,
    /// Its length in seconds.
    seconds: u64,
}

impl Message for WindowLine {
    const TYPE: &'static str = "window";
}

/// A time between two windows, of which no moment can be restored.
#[derive(Debug, Clone, Serialize)]
struct GapLine {
    from: Timestamp,
    to: Timestamp,
    seconds: u64,
    /// Why, where the archiver knew it.
    reason: Option<String>,
}

impl Message for GapLine {
    const TYPE: &'static str = "gap";
}

/// Summary of `list --windows`.
#[derive(Debug, Clone, Serialize)]
struct WindowsSummary {
    url: String,
    windows: u64,
    gaps: u64,
    /// The last moment that can be restored; null when there is none.
    latest: Option<Timestamp>,
    /// Where that stands.
    gtid: Option<GtidSet>,
    /// Segments of binary log that cannot be read.
    damaged: u64,
}

impl Message for WindowsSummary {
    const TYPE: &'static str = "summary";
}

/// Lists the windows.
///
/// # Errors
/// When the repository cannot be read.
pub(super) async fn list(settings: &StoreSettings, context: &Context) -> Result<Finish, Failure> {
    let repository = open::repository(settings, context).await?;
    let backups: Vec<Manifest> = repository.manifests().await?.into_iter().filter_map(|(_, read)| read.ok()).collect();
    let (history, damaged) = repository.binlog_history().await?;
    let windows = history.windows(&backups);
    for error in &damaged {
        context.output.warn(&format!("a stream of binary log cannot be read: {error}"));
    }
    let latest = windows.iter().max_by_key(|window| window.to);
    let gaps = gaps(&windows);
    let summary = WindowsSummary {
        url: settings.url.clone(),
        windows: windows.len() as u64,
        gaps: gaps.len() as u64,
        latest: latest.map(|window| window.to),
        gtid: latest.map(|window| window.gtid.clone()),
        damaged: damaged.len() as u64,
    };
    tell(&summary, &windows, &gaps, &context.output);
    Ok(if damaged.is_empty() { Finish::Done } else { Finish::Damaged })
}

fn seconds(from: Timestamp, to: Timestamp) -> u64 {
    to.seconds_since(from).max(0).unsigned_abs()
}

/// The times between windows, which ascend.
fn gaps(windows: &[Window]) -> Vec<GapLine> {
    let mut gaps = Vec::new();
    let mut end: Option<Timestamp> = None;
    for window in windows {
        if let Some(end) = end.filter(|end| *end < window.from) {
            let reason = window.gap.clone();
            gaps.push(GapLine { from: end, to: window.from, seconds: seconds(end, window.from), reason });
        }
        end = end.max(Some(window.to));
    }
    gaps
}

fn tell(summary: &WindowsSummary, windows: &[Window], gaps: &[GapLine], output: &Output) {
    if output.is_json() {
        for window in windows {
            output.json(&WindowLine { window: window.clone(), seconds: seconds(window.from, window.to) });
        }
        gaps.iter().for_each(|gap| output.json(gap));
        output.json(summary);
    } else {
        output.data(text(summary, windows, gaps, output.options.columns, output.options.stdout).as_bytes());
    }
}

fn text(summary: &WindowsSummary, windows: &[Window], gaps: &[GapLine], width: Option<usize>, paint: Paint) -> String {
    if windows.is_empty() {
        return "no window: only the moments of the backups can be restored; run `haulout archive` beside the server\n"
            .to_owned();
    }
    let column = |title, right, drop| Column { title, right, drop };
    let columns = vec![
        column("FROM", false, 0),
        column("TO", false, 0),
        column("LENGTH", true, 1),
        column("BACKUPS", true, 3),
        column("SEGMENTS", true, 4),
        column("STORED", true, 2),
    ];
    let rows = windows.iter().map(|window| {
        vec![
            window.from.to_string(),
            window.to.to_string(),
            human::duration(seconds(window.from, window.to)),
            human::count(window.backups.len() as u64),
            human::count(window.segments),
            human::bytes(window.bytes),
        ]
    });
    let table = Table { columns, rows: rows.collect() };
    let (mut text, _) = table.text(width, paint, |_, _, cell| cell.to_owned());
    for gap in gaps {
        let length = human::duration(gap.seconds);
        let reason = gap.reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
        text += &format!("gap of {length} from {} to {}{reason}\n", gap.from, gap.to);
    }
    if let Some(latest) = summary.latest {
        text +=
            &format!("any second of a window can be restored: haulout restore --datadir DIR --to-time '{latest}'\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(from: &str, to: &str, gap: Option<&str>) -> Window {
        let moment = |time: &str| Timestamp(format!("2026-11-22T{time}Z").parse().unwrap());
        Window {
            from: moment(from),
            to: moment(to),
            backups: vec!["20261122T020000Z-3f9a16".parse().unwrap()],
            streams: vec!["20261122T020500Z-51c0de".parse().unwrap()],
            segments: 2_310,
            bytes: 70 << 20,
            gtid: "0-1-207".parse().unwrap(),
            gap: gap.map(str::to_owned),
        }
    }

    #[test]
    fn windows_and_the_gaps_between_them_are_told() {
        let windows = [
            window("02:10:00", "14:03:00", None),
            window("13:00:00", "13:59:00", None),
            window("15:10:00", "16:00:07", Some("the server has purged its binary logs up to b.000007")),
        ];
        let gaps = gaps(&windows);
        assert_eq!(gaps.len(), 1);
        let latest = windows[2].to;
        let summary = WindowsSummary {
            url: "s3://bucket/db1".to_owned(),
            windows: 3,
            gaps: 1,
            latest: Some(latest),
            gtid: None,
            damaged: 0,
        };
        let told = text(&summary, &windows, &gaps, None, Paint::default());
        assert_eq!(told.lines().count(), 6, "{told}");
        assert!(told.contains("2026-11-22T02:10:00Z  2026-11-22T14:03:00Z"), "{told}");
        let gap = "gap of 1h07m from 2026-11-22T14:03:00Z to 2026-11-22T15:10:00Z: the server has purged";
        assert!(told.contains(gap), "{told}");
        let none = text(&summary, &[], &[], None, Paint::default());
        assert!(none.contains("no window"), "{none}");
    }
}
