//! Pictures: drawn from records as SVG without a script, and without styles of their own. Each has a text that says what it shows, and
//! all its figures stand in a table beside it.

use std::fmt::Write;

use super::text::escaped;
use crate::fleet::{Forecast, ServerRecord, gaps, stored_over_time};
use crate::format::BackupKind;
use crate::model::{Timestamp, human};

const WIDTH: f64 = 1000.0;
/// Width of a picture that stands beside another.
const HALF: f64 = 560.0;
/// Room for the names of lanes.
const LEFT: f64 = 92.0;
const RIGHT: f64 = 14.0;
/// Marks of one lane that are drawn; of more, the newest.
const MARKS_MAX: usize = 400;
const DAY: i64 = 86_400;

/// A stretch of time that is drawn.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    from: Timestamp,
    to: Timestamp,
    width: f64,
}

impl Span {
    /// The last `days` days of a server, or all of it, up to `now`; nothing where it has no backup.
    pub(super) fn of(record: &ServerRecord, days: Option<i64>, now: Timestamp) -> Option<Span> {
        let first = record.backups.iter().map(|backup| backup.started).min()?;
        let due = record.plans.iter().filter_map(|plan| plan.due).max().filter(|due| *due > now);
        let earliest = days.map_or(first, |days| now.after(-days * DAY).max(first));
        // A lone backup a minute old still has a day around it.
        let from = earliest.min(now.after(-DAY));
        let to = due.unwrap_or(now).min(now.after((now.seconds_since(from) / 6).max(3600))).max(now);
        Some(Span { from, to, width: WIDTH })
    }

    fn x(&self, at: Timestamp) -> f64 {
        let whole = self.to.seconds_since(self.from).max(1) as f64;
        let share = at.seconds_since(self.from) as f64 / whole;
        LEFT + share.clamp(0.0, 1.0) * (self.width - LEFT - RIGHT)
    }

    fn holds(&self, at: Timestamp) -> bool {
        self.from <= at && at <= self.to
    }

    /// Lines at whole hours, days or weeks, some eight of them.
    fn ticks(&self) -> Vec<(Timestamp, bool)> {
        let whole = self.to.seconds_since(self.from).max(1);
        let steps =
            [3600, 3 * 3600, 6 * 3600, 12 * 3600, DAY, 2 * DAY, 7 * DAY, 14 * DAY, 28 * DAY, 84 * DAY, 364 * DAY];
        let step = steps.into_iter().find(|step| whole / step <= 9).unwrap_or(3640 * DAY);
        let begin = self.from.0.as_second();
        let first = begin + (step - begin.rem_euclid(step)) % step;
        let places = (0..).map(|number| first + number * step).take_while(|at| *at <= self.to.0.as_second());
        places.map(|at| (self.from.after(at - begin), step < DAY)).collect()
    }

    fn axis(&self, svg: &mut String, top: f64, bottom: f64) {
        for (at, with_hours) in self.ticks() {
            let x = self.x(at);
            let _ = write!(svg, "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{top}\" y2=\"{bottom}\"/>");
            let (format, style) = if with_hours { ("%d %b %H:%M", "hour") } else { ("%d %b", "day") };
            let label = at.0.strftime(format);
            if x < WIDTH - 40.0 && x > LEFT + 20.0 {
                let _ = write!(
                    svg,
                    "<text class=\"tick\" x=\"{x:.1}\" y=\"{:.0}\" data-time=\"{at}\" data-style=\"{style}\">{label}</text>",
                    bottom + 16.0
                );
            }
        }
    }
}

fn begin((width, height): (f64, f64), id: &str, title: &str, told: &str) -> String {
    format!(
        "<svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-labelledby=\"{id}-t {id}-d\" class=\"picture\">\
<title id=\"{id}-t\">{}</title><desc id=\"{id}-d\">{}</desc>",
        escaped(title),
        escaped(told)
    )
}

fn lane(svg: &mut String, name: &str, y: f64) {
    let _ = write!(svg, "<text class=\"lane\" x=\"0\" y=\"{:.0}\">{name}</text>", y + 4.0);
    let _ = write!(svg, "<line class=\"track\" x1=\"{LEFT}\" x2=\"{:.0}\" y1=\"{y}\" y2=\"{y}\"/>", WIDTH - RIGHT);
}

/// The history of a server: backups and their lineages, windows and gaps, drills, and what plans let go of.
pub(super) fn timeline(record: &ServerRecord, span: Span, now: Timestamp) -> String {
    let told = format!(
        "{}, {}, {}, {}, {}",
        human::counted(record.backup_count(), "backup"),
        human::counted(record.windows.len() as u64, "window"),
        human::counted(gaps(&record.windows).len() as u64, "gap"),
        human::counted(record.proofs.len() as u64, "drill"),
        human::counted(record.plans.len() as u64, "plan")
    );
    let mut svg = begin((WIDTH, 196.0), "timeline", &format!("Timeline of {}", record.title()), &told);
    span.axis(&mut svg, 8.0, 172.0);
    lane(&mut svg, "Any second", 30.0);
    windows(&mut svg, record, span);
    lane(&mut svg, "Backups", 76.0);
    backups(&mut svg, record, span);
    lane(&mut svg, "Drills", 118.0);
    drills(&mut svg, record, span);
    lane(&mut svg, "Pruning", 156.0);
    plans(&mut svg, record, span);
    let x = span.x(now);
    let _ =
        write!(svg, "<line class=\"now\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"8\" y2=\"172\"><title>now</title></line>");
    svg.push_str("</svg>");
    svg
}

fn bar(svg: &mut String, class: &str, x: (f64, f64), y: (f64, f64), title: &str) {
    let width = (x.1 - x.0).max(2.0);
    let (top, height) = (y.0, y.1 - y.0);
    let title = escaped(title);
    let _ = write!(
        svg,
        "<rect class=\"{class}\" x=\"{:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{height:.1}\"><title>{title}</title></rect>",
        x.0
    );
}

fn windows(svg: &mut String, record: &ServerRecord, span: Span) {
    let skipped = record.windows.len().saturating_sub(MARKS_MAX);
    for window in record.windows[skipped..].iter().filter(|window| window.to >= span.from) {
        let title = format!("any second from {} to {}", window.from, window.to);
        bar(svg, "window", (span.x(window.from), span.x(window.to)), (22.0, 38.0), &title);
    }
    for gap in gaps(&record.windows).into_iter().filter(|gap| gap.to >= span.from).take(MARKS_MAX) {
        let reason = gap.reason.map_or_else(String::new, |reason| format!(": {reason}"));
        let title = format!("gap from {} to {}{reason}", gap.from, gap.to);
        bar(svg, "gap", (span.x(gap.from), span.x(gap.to)), (22.0, 38.0), &title);
        let middle = (span.x(gap.from) + span.x(gap.to)) / 2.0;
        let _ = write!(svg, "<text class=\"mark-text\" x=\"{middle:.1}\" y=\"17\">gap</text>");
    }
}

fn backups(svg: &mut String, record: &ServerRecord, span: Span) {
    let skipped = record.backups.len().saturating_sub(MARKS_MAX);
    let shown: Vec<_> = record.backups[skipped..].iter().filter(|backup| span.holds(backup.finished)).collect();
    // A lineage is a line from its full to its last incremental.
    let mut lineage: Option<(f64, f64)> = None;
    let draw = |svg: &mut String, lineage: Option<(f64, f64)>| {
        if let Some((from, to)) = lineage {
            let _ = write!(svg, "<line class=\"lineage\" x1=\"{from:.1}\" x2=\"{to:.1}\" y1=\"76\" y2=\"76\"/>");
        }
    };
    for backup in &shown {
        let x = span.x(backup.finished);
        if backup.kind == BackupKind::Full {
            draw(svg, lineage.take());
            lineage = Some((x, x));
        } else {
            lineage = Some(lineage.map_or((LEFT, x), |(from, _)| (from, x)));
        }
    }
    draw(svg, lineage);
    for backup in shown {
        let x = span.x(backup.finished);
        let goes = record.plans.iter().any(|plan| plan.backups.contains(&backup.id));
        let title = escaped(&format!(
            "{} backup of {}, {} added{}",
            backup.kind.name(),
            backup.finished,
            human::bytes(backup.uploaded_bytes),
            if goes { "; a plan lets go of it" } else { "" }
        ));
        let goes = if goes { " goes" } else { "" };
        let _ = match backup.kind {
            BackupKind::Full => write!(
                svg,
                "<rect class=\"full{goes}\" x=\"{:.1}\" y=\"67\" width=\"10\" height=\"18\" rx=\"2\"><title>{title}</title></rect>",
                x - 5.0
            ),
            BackupKind::Incremental => write!(
                svg,
                "<circle class=\"incremental{goes}\" cx=\"{x:.1}\" cy=\"76\" r=\"4\"><title>{title}</title></circle>"
            ),
        };
    }
}

fn drills(svg: &mut String, record: &ServerRecord, span: Span) {
    for proof in record.proofs.iter().filter(|proof| span.holds(proof.finished)).take(MARKS_MAX) {
        let x = span.x(proof.finished);
        let (class, told, path) = match proof.passed {
            Some(true) => ("passed", "a drill passed", "M-5 0 L-1.5 4 L5 -4"),
            Some(false) => ("failed", "a drill failed", "M-4 -4 L4 4 M4 -4 L-4 4"),
            None => ("open", "a drill, of which no more is known", "M-4 0 L4 0"),
        };
        let title = escaped(&format!("{told} at {}", proof.finished));
        let _ = write!(
            svg,
            "<g class=\"drill {class}\" transform=\"translate({x:.1} 118)\"><title>{title}</title><circle r=\"9\"/><path d=\"{path}\"/></g>"
        );
    }
}

fn plans(svg: &mut String, record: &ServerRecord, span: Span) {
    for plan in record.plans.iter().take(MARKS_MAX) {
        let due = plan.due.unwrap_or(span.to);
        let title = format!(
            "plan of {} lets go of {}{}",
            plan.stored,
            human::counted(plan.backups.len() as u64, "backup"),
            plan.due.map_or_else(String::new, |due| format!("; it may be carried out from {due} on"))
        );
        bar(svg, "plan", (span.x(plan.stored), span.x(due)), (150.0, 162.0), &title);
    }
}

/// What the newest backups added and how long they took.
pub(super) fn additions(record: &ServerRecord) -> String {
    const HEIGHT: f64 = 210.0;
    const SHOWN: usize = 60;
    let skipped = record.backups.len().saturating_sub(SHOWN);
    let shown = &record.backups[skipped..];
    let most = shown.iter().map(|backup| backup.uploaded_bytes).max().unwrap_or(0).max(1);
    let longest = shown.iter().map(|backup| backup.seconds()).max().unwrap_or(0).max(1);
    let told = format!("at most {} and {}", human::bytes(most), human::duration(longest));
    let mut svg = begin((HALF, HEIGHT), "additions", "What each backup added and how long it took", &told);
    let (top, bottom) = (14.0, HEIGHT - 26.0);
    scale(&mut svg, most as f64, (top, bottom), |value| human::bytes(value as u64));
    let step = (HALF - LEFT - RIGHT) / shown.len().max(1) as f64;
    let width = (step * 0.7).min(34.0);
    // A scale of roots: beside a full the incrementals would not be seen.
    let share = |bytes: u64| (bytes as f64 / most as f64).sqrt();
    let mut line = String::new();
    for (place, backup) in shown.iter().enumerate() {
        let middle = LEFT + step * (place as f64 + 0.5);
        let height = (share(backup.uploaded_bytes) * (bottom - top)).max(1.0);
        let title = format!(
            "{} backup of {}: {} in {}",
            backup.kind.name(),
            backup.finished,
            human::bytes(backup.uploaded_bytes),
            human::duration(backup.seconds())
        );
        let x = (middle - width / 2.0, middle + width / 2.0);
        bar(&mut svg, &format!("added {}", backup.kind.name()), x, (bottom - height, bottom), &title);
        let y = bottom - (backup.seconds() as f64 / longest as f64).sqrt() * (bottom - top);
        let _ = write!(line, "{}{middle:.1} {y:.1}", if place == 0 { "M" } else { " L" });
    }
    let _ = write!(svg, "<path class=\"duration\" d=\"{line}\"/>");
    ends(
        &mut svg,
        shown.first().map(|backup| backup.finished),
        shown.last().map(|backup| backup.finished),
        HEIGHT - 8.0,
    );
    svg.push_str("</svg>");
    svg
}

/// Names of the first and the last moment below a chart.
fn ends(svg: &mut String, first: Option<Timestamp>, last: Option<Timestamp>, y: f64) {
    let (Some(first), Some(last)) = (first, last) else { return };
    let text = |at: Timestamp| at.0.strftime("%d %b").to_string();
    let _ = write!(
        svg,
        "<text class=\"tick start\" x=\"{LEFT}\" y=\"{y}\" data-time=\"{first}\" data-style=\"day\">{}</text>",
        text(first)
    );
    let x = HALF - RIGHT;
    let _ = write!(
        svg,
        "<text class=\"tick end\" x=\"{x}\" y=\"{y}\" data-time=\"{last}\" data-style=\"day\">{}</text>",
        text(last)
    );
}

/// Lines at nothing, a quarter (which is the middle of a scale of roots) and the whole.
fn scale(svg: &mut String, most: f64, (top, bottom): (f64, f64), told: impl Fn(f64) -> String) {
    for (share, part) in [(0.0, 0.0), (0.5, 0.25), (1.0, 1.0)] {
        let y = bottom - share * (bottom - top);
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.0}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/><text class=\"scale\" x=\"{:.0}\" y=\"{:.1}\">{}</text>",
            HALF - RIGHT,
            LEFT - 8.0,
            y + 4.0,
            told(most * part)
        );
    }
}

/// What is stored over time, and what is to be expected.
pub(super) fn growth(record: &ServerRecord, forecast: Option<Forecast>, days: f64) -> Option<String> {
    const HEIGHT: f64 = 210.0;
    let points = stored_over_time(record);
    let ((first, _), (last, newest)) = (*points.first()?, *points.last()?);
    if points.len() < 2 {
        return None;
    }
    let end = if forecast.is_some() { last.after((days * DAY as f64) as i64) } else { last };
    let expected = forecast.map_or(0.0, |forecast| forecast.in_days(days));
    let most = points.iter().map(|(_, bytes)| *bytes as f64).fold(expected, f64::max).max(1.0);
    let told = match forecast {
        Some(_) => {
            format!("{} now, {} expected in {days:.0} days", human::bytes(newest), human::bytes(expected as u64))
        }
        None => format!("{} now", human::bytes(newest)),
    };
    let mut svg = begin((HALF, HEIGHT), "growth", "Bytes in the store over time", &told);
    let (top, bottom) = (14.0, HEIGHT - 26.0);
    for share in [0.0, 0.5, 1.0] {
        let y = bottom - share * (bottom - top);
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.0}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/><text class=\"scale\" x=\"{:.0}\" y=\"{:.1}\">{}</text>",
            HALF - RIGHT,
            LEFT - 8.0,
            y + 4.0,
            human::bytes((most * share) as u64)
        );
    }
    let span = Span { from: first, to: end, width: HALF };
    let y = |bytes: f64| bottom - bytes / most * (bottom - top);
    let skipped = points.len().saturating_sub(MARKS_MAX);
    let mut line = String::new();
    for (place, (at, bytes)) in points[skipped..].iter().enumerate() {
        let _ = write!(line, "{}{:.1} {:.1}", if place == 0 { "M" } else { " L" }, span.x(*at), y(*bytes as f64));
    }
    let (begin_x, end_x) = (span.x(points[skipped].0), span.x(last));
    let _ = write!(
        svg,
        "<path class=\"area\" d=\"{line} L{end_x:.1} {bottom} L{begin_x:.1} {bottom} Z\"/><path class=\"stored\" d=\"{line}\"/>"
    );
    if forecast.is_some() {
        let (x, to) = (span.x(end), y(expected));
        let from = y(newest as f64);
        let _ = write!(svg, "<path class=\"forecast\" d=\"M{end_x:.1} {from:.1} L{x:.1} {to:.1}\"/>");
    }
    ends(&mut svg, Some(first), Some(end), HEIGHT - 8.0);
    svg.push_str("</svg>");
    Some(svg)
}

/// A row of small bars: what the newest backups added.
pub(super) fn trend(values: &[u64]) -> String {
    if values.len() < 2 {
        return String::new();
    }
    let most = values.iter().copied().max().unwrap_or(0).max(1) as f64;
    let mut svg = String::from("<svg class=\"trend\" viewBox=\"0 0 70 20\" aria-hidden=\"true\" focusable=\"false\">");
    let step = 70.0 / values.len() as f64;
    for (place, value) in values.iter().enumerate() {
        let height = ((*value as f64 / most).sqrt() * 19.0).max(1.0);
        let (x, y) = (step * place as f64, 20.0 - height);
        let _ = write!(
            svg,
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{height:.1}\"/>",
            (step - 1.2).max(0.8)
        );
    }
    svg.push_str("</svg>");
    svg
}

/// A share of `most` as a bar.
pub(super) fn share(value: u64, most: u64) -> String {
    let width = value as f64 / most.max(1) as f64 * 100.0;
    format!(
        "<svg class=\"share\" viewBox=\"0 0 100 8\" preserveAspectRatio=\"none\" aria-hidden=\"true\" focusable=\"false\">\
<rect class=\"track\" width=\"100\" height=\"8\"/><rect width=\"{width:.1}\" height=\"8\"/></svg>"
    )
}
