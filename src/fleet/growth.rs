//! How a repository grows, and what that will cost. Pure functions of its backups.

use super::record::ServerRecord;
use crate::model::Timestamp;

/// Days of a month of a price.
pub const MONTH_DAYS: f64 = 365.25 / 12.0;
/// Days back from the newest backup from which the forecast is drawn: what was before says less of what comes.
const LOOK_BACK_DAYS: f64 = 30.0;
/// Least days between the first and the last backup: from less, nothing follows.
const SPAN_DAYS_MIN: f64 = 1.0;
const DAY: f64 = 86_400.0;

/// What is to be expected if it goes on like this.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Forecast {
    /// Bytes that are stored now.
    pub bytes: f64,
    /// Bytes that come in a day.
    pub bytes_per_day: f64,
}

impl Forecast {
    /// The forecast of a server; nothing where there is too little to draw it from.
    pub fn of(server: &ServerRecord) -> Option<Forecast> {
        let points = stored_over_time(server);
        let (last, _) = *points.last()?;
        let near: Vec<(f64, f64)> = points
            .iter()
            .map(|(at, bytes)| (at.seconds_since(last) as f64 / DAY, *bytes as f64))
            .filter(|(day, _)| *day >= -LOOK_BACK_DAYS)
            .collect();
        let bytes = near.last()?.1;
        if near.len() < 3 || -near[0].0 < SPAN_DAYS_MIN {
            return None;
        }
        Some(Forecast { bytes, bytes_per_day: slope(&near).max(0.0) })
    }

    /// Bytes in `days` days.
    pub fn in_days(&self, days: f64) -> f64 {
        self.bytes + self.bytes_per_day * days
    }
}

/// Slope of the straight line through `points` with the least squares.
fn slope(points: &[(f64, f64)]) -> f64 {
    let count = points.len() as f64;
    let mean = |pick: fn(&(f64, f64)) -> f64| points.iter().map(pick).sum::<f64>() / count;
    let (mean_x, mean_y) = (mean(|point| point.0), mean(|point| point.1));
    let over: f64 = points.iter().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum();
    let under: f64 = points.iter().map(|(x, _)| (x - mean_x).powi(2)).sum();
    if under > 0.0 { over / under } else { 0.0 }
}

/// About how many bytes were stored after each backup: what the oldest one needs, what each later one added, and the binary log, which is
/// taken to have come evenly. Packs themselves are not listed for it: a thousand keys cost a request.
pub fn stored_over_time(server: &ServerRecord) -> Vec<(Timestamp, u64)> {
    let Some(oldest) = server.backups.first() else { return Vec::new() };
    let (begin, end) = (oldest.finished, server.backups.last().map_or(oldest.finished, |newest| newest.finished));
    let span = end.seconds_since(begin).max(1) as f64;
    let mut bytes = oldest.stored_bytes.saturating_sub(oldest.uploaded_bytes);
    let mut points = Vec::with_capacity(server.backups.len());
    for backup in server.backups.iter() {
        bytes = bytes.saturating_add(backup.uploaded_bytes).max(backup.stored_bytes);
        let share = (backup.finished.seconds_since(begin).max(0) as f64 / span).min(1.0);
        let binlogs = (server.binlogs.bytes as f64 * if begin == end { 1.0 } else { share }) as u64;
        points.push((backup.finished, bytes.saturating_add(binlogs)));
    }
    points
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::tests::{backup, moment, server};
    use super::*;

    #[test]
    fn a_server_that_adds_a_gib_a_day_is_forecast_to() {
        let mut record = server("db1");
        let days = (0..40).map(|day| {
            let mut backup = backup(day * 86_400);
            backup.uploaded_bytes = if day == 0 { 100 << 30 } else { 1 << 30 };
            backup.stored_bytes = 100 << 30;
            backup
        });
        record.backups = Arc::new(days.collect());
        let forecast = Forecast::of(&record).unwrap();
        assert_eq!(forecast.bytes, (139_u64 << 30) as f64);
        assert!((forecast.bytes_per_day / (1_u64 << 30) as f64 - 1.0).abs() < 1e-9, "{forecast:?}");
        assert!((forecast.in_days(10.0) / (1_u64 << 30) as f64 - 149.0).abs() < 1e-6);
    }

    #[test]
    fn from_two_backups_or_one_day_nothing_follows() {
        let mut record = server("db1");
        assert_eq!(Forecast::of(&record), None);
        record.backups = Arc::new(vec![backup(0), backup(86_400 * 3)]);
        assert_eq!(Forecast::of(&record), None);
        record.backups = Arc::new((0..5).map(|hour| backup(hour * 3600)).collect());
        assert_eq!(Forecast::of(&record), None);
    }

    #[test]
    fn binary_log_is_part_of_what_is_stored() {
        let mut record = server("db1");
        record.backups = Arc::new(vec![backup(0), backup(86_400)]);
        record.binlogs.bytes = 1000;
        let points = stored_over_time(&record);
        assert_eq!((points[0].0, points[1].0), (moment(0), moment(86_400)));
        let without = record.backups[0].stored_bytes + record.backups[1].uploaded_bytes;
        assert_eq!(points[1].1, without + 1000);
    }
}
