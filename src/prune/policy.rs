//! Which backups stay, and why: a pure decision.

use std::collections::BTreeSet;

use jiff::Span;
use jiff::tz::TimeZone;

use crate::model::{BackupId, Timestamp};

/// Why the backup stays that was drilled last.
pub(super) const PROVEN: &str = "the newest backup of which a restore was proven";

/// Rules of retention. A backup that any of them keeps stays; with none at all, every backup stays.
///
/// Of each hour, day, ISO week, month and year, in UTC, the newest backup counts, by when it was begun.
#[derive(Debug, Clone, Default)]
pub struct KeepPolicy {
    /// The newest so many.
    pub last: u32,
    /// One of each of the newest so many hours that have any.
    pub hourly: u32,
    /// One of each of the newest so many days that have any.
    pub daily: u32,
    /// One of each of the newest so many ISO weeks that have any.
    pub weekly: u32,
    /// One of each of the newest so many months that have any.
    pub monthly: u32,
    /// One of each of the newest so many years that have any.
    pub yearly: u32,
    /// All that were begun so long before the newest, and how the operator wrote that.
    pub within: Option<(Span, String)>,
    /// All that bear one of these words.
    pub tags: BTreeSet<String>,
    /// For so long before the newest backup any second stays restorable: the newest backup that had ended by then, and all binary log since.
    /// Given alone, it keeps what is needed for that and lets no backup go.
    pub pitr: Option<(Span, String)>,
}

/// One of the rules that keep a backup of each stretch of time.
struct Rule {
    word: &'static str,
    count: u32,
    /// The stretch in which a moment lies.
    stretch: fn(&jiff::Zoned) -> String,
}

impl KeepPolicy {
    fn rules(&self) -> [Rule; 5] {
        let day = |moment: &jiff::Zoned| moment.strftime("%Y-%m-%d").to_string();
        let week = |moment: &jiff::Zoned| moment.strftime("%G-W%V").to_string();
        [
            Rule {
                word: "hourly",
                count: self.hourly,
                stretch: |moment| moment.strftime("%Y-%m-%d %H:00").to_string(),
            },
            Rule { word: "daily", count: self.daily, stretch: day },
            Rule { word: "weekly", count: self.weekly, stretch: week },
            Rule { word: "monthly", count: self.monthly, stretch: |moment| moment.strftime("%Y-%m").to_string() },
            Rule { word: "yearly", count: self.yearly, stretch: |moment| moment.strftime("%Y").to_string() },
        ]
    }

    /// True when there is no rule by which a backup could go.
    pub fn is_empty(&self) -> bool {
        let KeepPolicy { last, hourly, daily, weekly, monthly, yearly, within, tags, pitr: _ } = self;
        [last, hourly, daily, weekly, monthly, yearly].iter().all(|count| **count == 0)
            && within.is_none()
            && tags.is_empty()
    }

    /// The rules as options of the command line.
    pub fn words(&self) -> Vec<String> {
        let mut words = Vec::new();
        if self.last > 0 {
            words.push(format!("--keep-last {}", self.last));
        }
        let counted = self.rules();
        let counted = counted.iter().filter(|rule| rule.count > 0);
        words.extend(counted.map(|rule| format!("--keep-{} {}", rule.word, rule.count)));
        words.extend(self.within.iter().map(|(_, written)| format!("--keep-within {written}")));
        words.extend(self.tags.iter().map(|tag| format!("--keep-tag {tag}")));
        words.extend(self.pitr.iter().map(|(_, written)| format!("--keep-pitr {written}")));
        words
    }

    /// Which of `backups`, told by begin and end, any second is reached from that [`KeepPolicy::pitr`] keeps: the oldest, while none is so old,
    /// as in the first days of a repository.
    pub(super) fn pitr_base(&self, backups: &[(Timestamp, Timestamp)]) -> Option<usize> {
        let (span, _) = self.pitr.as_ref()?;
        let newest = backups.iter().map(|(started, _)| *started).max()?;
        // Before the calendar's beginning lies nothing.
        let earliest = newest.0.to_zoned(TimeZone::UTC).checked_sub(*span).ok()?.timestamp();
        let early = backups.iter().enumerate().filter(|(_, (_, finished))| finished.0 <= earliest);
        let oldest = || backups.iter().enumerate().min_by_key(|(_, (started, _))| *started);
        early.max_by_key(|(_, (started, _))| *started).or_else(oldest).map(|(place, _)| place)
    }
}

/// A backup as retention sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its name.
    pub id: BackupId,
    /// When it was begun; nothing where its manifest cannot be read, and the backup counts for nothing then.
    pub started: Option<Timestamp>,
    /// When it had ended; nothing where its manifest cannot be read.
    pub finished: Option<Timestamp>,
    /// Words that the operator gave it.
    pub tags: Vec<String>,
    /// The operator said that it stays.
    pub kept: bool,
    /// A restore of it has been tried and was right.
    pub proven: bool,
    /// Until when the store keeps it from being deleted, where that is after a plan could be carried out.
    pub locked: Option<Timestamp>,
}

/// What is to become of a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It stays, for these reasons.
    Stays(Vec<String>),
    /// No rule keeps it.
    Goes {
        /// Why.
        reason: String,
        /// True when the operator named it.
        named: bool,
    },
}

/// A decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judged {
    /// The backup.
    pub id: BackupId,
    /// What is to become of it.
    pub fate: Fate,
    /// Why nothing may let go of it, not even the operator.
    pub protected: Option<&'static str>,
}

/// Decides for each backup; `named` are those that the operator wants to go. Backups come and are given by ascending name.
pub fn decide(backups: &[Candidate], policy: &KeepPolicy, named: &BTreeSet<BackupId>) -> Vec<Judged> {
    let sound: Vec<(&Candidate, Timestamp)> =
        backups.iter().filter_map(|backup| Some((backup, backup.started?))).collect();
    let newest = sound.last().map(|(backup, _)| &backup.id);
    let proven = sound.iter().rev().find(|(backup, _)| backup.proven).map(|(backup, _)| &backup.id);
    let mut reasons: std::collections::BTreeMap<&BackupId, Vec<String>> = Default::default();
    let mut keep = |id, reason: String| reasons.entry(id).or_default().push(reason);
    for (backup, _) in sound.iter().rev().take(policy.last as usize) {
        keep(&backup.id, "last".to_owned());
    }
    for rule in policy.rules() {
        let mut stretches = BTreeSet::new();
        for (backup, started) in sound.iter().rev() {
            let stretch = (rule.stretch)(&started.0.to_zoned(TimeZone::UTC));
            if stretches.len() < rule.count as usize && stretches.insert(stretch.clone()) {
                keep(&backup.id, format!("{} {stretch}", rule.word));
            }
        }
    }
    if let (Some((span, written)), Some((_, newest))) = (&policy.within, sound.last()) {
        let earliest = newest.0.to_zoned(TimeZone::UTC).checked_sub(*span);
        for (backup, started) in &sound {
            // Before the calendar's beginning lies nothing.
            if earliest.as_ref().map_or(true, |earliest| started.0 >= earliest.timestamp()) {
                keep(&backup.id, format!("within {written}"));
            }
        }
    }
    for (backup, _) in &sound {
        for tag in backup.tags.iter().filter(|tag| policy.tags.contains(*tag)) {
            keep(&backup.id, format!("tag {tag}"));
        }
    }
    let unnamed: Vec<(&BackupId, Timestamp, Timestamp)> = sound
        .iter()
        .filter(|(backup, _)| !named.contains(&backup.id))
        .filter_map(|(backup, started)| Some((&backup.id, *started, backup.finished?)))
        .collect();
    let times: Vec<(Timestamp, Timestamp)> =
        unnamed.iter().map(|(_, started, finished)| (*started, *finished)).collect();
    if let (Some(base), Some((_, written))) = (policy.pitr_base(&times), &policy.pitr) {
        keep(unnamed[base].0, format!("pitr {written}"));
    }
    let judge = |backup: &Candidate| {
        let id = &backup.id;
        let protected = match () {
            () if newest == Some(id) => Some("the newest backup"),
            () if backup.locked.is_some() => Some("locked"),
            () if proven == Some(id) => Some(PROVEN),
            () => None,
        };
        let why = |protected: &str| match backup.locked.filter(|_| protected == "locked") {
            Some(until) => format!("locked until {until}"),
            None => protected.to_owned(),
        };
        let mut kept: Vec<String> = protected.map(why).into_iter().collect();
        kept.extend(reasons.get(id).into_iter().flatten().cloned());
        let is_named = named.contains(id) && protected.is_none();
        if backup.kept {
            kept.push("kept by undelete".to_owned());
        }
        if backup.started.is_none() {
            kept.push("damaged: rules do not judge it".to_owned());
        }
        let fate = match kept.is_empty() {
            _ if is_named => Fate::Goes { reason: "named".to_owned(), named: true },
            true if !policy.is_empty() => Fate::Goes { reason: "no rule keeps it".to_owned(), named: false },
            true => Fate::Stays(vec!["no rules given".to_owned()]),
            false => Fate::Stays(kept),
        };
        Judged { id: id.clone(), fate, protected }
    };
    backups.iter().map(judge).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn backup(started: &str, number: u32) -> Candidate {
        let moment = Timestamp(started.parse().unwrap());
        let id = format!("{}-{number:06x}", moment.compact()).parse().unwrap();
        let (started, finished) = (Some(moment), Some(moment.after(600)));
        Candidate { id, started, finished, tags: Vec::new(), kept: false, proven: false, locked: None }
    }

    /// Every six hours from the first of the month on.
    fn every_six_hours(count: u32) -> Vec<Candidate> {
        let first: jiff::Timestamp = "2026-10-01T00:10:00Z".parse().unwrap();
        (0..count)
            .map(|n| backup(&(first + jiff::SignedDuration::from_hours(6 * i64::from(n))).to_string(), n))
            .collect()
    }

    fn staying(backups: &[Candidate], policy: &KeepPolicy) -> Vec<String> {
        let judged = decide(backups, policy, &BTreeSet::new());
        let stays = judged.into_iter().filter(|judged| matches!(judged.fate, Fate::Stays(_)));
        stays.map(|judged| judged.id.as_str()[..11].to_owned()).collect()
    }

    fn within(text: &str) -> Option<(Span, String)> {
        Some((text.parse().unwrap(), text.to_owned()))
    }

    #[test]
    fn of_each_stretch_of_time_the_newest_stays() {
        let backups = every_six_hours(40);
        let policy = |change: fn(&mut KeepPolicy)| {
            let mut policy = KeepPolicy::default();
            change(&mut policy);
            policy
        };
        let stays = |change| staying(&backups, &policy(change));
        assert_eq!(stays(|policy| policy.last = 2), ["20261010T12", "20261010T18"]);
        assert_eq!(stays(|policy| policy.daily = 3), ["20261008T18", "20261009T18", "20261010T18"]);
        assert_eq!(stays(|policy| policy.hourly = 2), ["20261010T12", "20261010T18"]);
        // The fourth of October is a Sunday.
        assert_eq!(stays(|policy| policy.weekly = 2), ["20261004T18", "20261010T18"]);
        assert_eq!(stays(|policy| policy.monthly = 5), ["20261010T18"]);
        assert_eq!(stays(|policy| policy.yearly = 5), ["20261010T18"]);
        assert_eq!(stays(|policy| policy.within = within("12h")), ["20261010T06", "20261010T12", "20261010T18"]);
        assert_eq!(stays(|policy| (policy.last, policy.daily) = (1, 2)), ["20261009T18", "20261010T18"]);
    }

    #[test]
    fn without_rules_all_stay_and_with_none_that_keeps_anything_the_newest() {
        let backups = every_six_hours(8);
        assert_eq!(staying(&backups, &KeepPolicy::default()).len(), 8);
        let policy = KeepPolicy { tags: ["none".to_owned()].into(), ..KeepPolicy::default() };
        assert_eq!(staying(&backups, &policy), ["20261002T18"]);
    }

    #[test]
    fn time_is_reckoned_from_the_newest_backup_so_that_nothing_ages_when_backups_stop() {
        let policy = KeepPolicy { within: within("1d"), ..KeepPolicy::default() };
        assert_eq!(staying(&every_six_hours(8), &policy).len(), 5);
    }

    #[test]
    fn the_newest_backup_that_ended_before_the_seconds_that_stay_restorable_is_kept() {
        let backups = every_six_hours(8);
        let with = |text: &str, last| KeepPolicy { last, pitr: within(text), ..KeepPolicy::default() };
        // The newest was begun on the second at 18:10.
        assert_eq!(
            staying(&backups, &with("24h", 1)),
            ["20261001T12", "20261002T18"],
            "the one of 18:10 ended at 18:20"
        );
        assert_eq!(staying(&backups, &with("23h50m", 2)), ["20261001T18", "20261002T12", "20261002T18"]);
        assert_eq!(staying(&backups, &with("30d", 1)), ["20261001T00", "20261002T18"], "none is so old: the oldest");
        assert_eq!(staying(&backups, &with("24h", 0)).len(), 8, "alone it lets no backup go");
        let judged = decide(&backups, &with("24h", 1), &BTreeSet::from([backups[2].id.clone()]));
        assert_eq!(judged[1].fate, Fate::Stays(vec!["pitr 24h".to_owned()]), "the one that was named is no base");
    }

    #[test]
    fn damaged_backups_do_not_count_and_are_not_judged() {
        let mut backups = every_six_hours(4);
        backups[3].started = None;
        let policy = KeepPolicy { last: 1, ..KeepPolicy::default() };
        assert_eq!(staying(&backups, &policy), ["20261001T12", "20261001T18"]);
        let named = BTreeSet::from([backups[3].id.clone()]);
        let judged = decide(&backups, &policy, &named);
        assert_eq!(judged[3].fate, Fate::Goes { reason: "named".to_owned(), named: true });
        assert_eq!(judged[2].protected, Some("the newest backup"));
    }

    #[test]
    fn the_newest_and_the_last_proven_never_go() {
        let mut backups = every_six_hours(6);
        backups[1].proven = true;
        backups[2].proven = true;
        let all = backups.iter().map(|backup| backup.id.clone()).collect();
        let judged = decide(&backups, &KeepPolicy { last: 1, ..KeepPolicy::default() }, &all);
        let stays: Vec<usize> = (0..6).filter(|n| matches!(judged[*n].fate, Fate::Stays(_))).collect();
        assert_eq!(stays, [2, 5]);
    }

    #[test]
    fn what_is_locked_stays_until_then_and_says_so() {
        let mut backups = every_six_hours(4);
        backups[0].locked = Some(Timestamp("2026-11-01T00:00:00Z".parse().unwrap()));
        let named = BTreeSet::from([backups[0].id.clone(), backups[1].id.clone()]);
        let judged = decide(&backups, &KeepPolicy { last: 1, ..KeepPolicy::default() }, &named);
        assert_eq!(judged[0].fate, Fate::Stays(vec!["locked until 2026-11-01T00:00:00Z".to_owned()]));
        assert!(matches!(judged[1].fate, Fate::Goes { named: true, .. }));
    }

    #[test]
    fn what_was_undeleted_or_bears_a_tag_stays() {
        let mut backups = every_six_hours(6);
        backups[0].kept = true;
        backups[1].tags = vec!["release".to_owned()];
        let policy = KeepPolicy { last: 1, tags: ["release".to_owned()].into(), ..KeepPolicy::default() };
        assert_eq!(staying(&backups, &policy), ["20261001T00", "20261001T06", "20261002T06"]);
        let judged = decide(&backups, &policy, &BTreeSet::new());
        assert_eq!(judged[1].fate, Fate::Stays(vec!["tag release".to_owned()]));
    }

    proptest! {
        #[test]
        fn a_plan_that_was_carried_out_lets_go_of_nothing_more(
            gaps in prop::collection::vec(1u32..40_000, 1..60),
            counts in [0u32..4, 0u32..4, 0u32..4, 0u32..4, 0u32..4, 0u32..4],
            pitr_hours in prop::option::of(1i64..2000),
        ) {
            let mut moment: jiff::Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
            let backups: Vec<Candidate> = gaps.iter().enumerate().map(|(n, gap)| {
                moment += jiff::SignedDuration::from_mins(i64::from(*gap));
                backup(&moment.to_string(), n as u32)
            }).collect();
            let [last, hourly, daily, weekly, monthly, yearly] = counts;
            let policy = KeepPolicy { last, hourly, daily, weekly, monthly, yearly, ..KeepPolicy::default() };
            let pitr = pitr_hours.map(|hours| (Span::new().hours(hours), format!("{hours}h")));
            let policy = KeepPolicy { pitr, ..policy };
            let stays = |backups: &[Candidate]| -> Vec<Candidate> {
                let judged = decide(backups, &policy, &BTreeSet::new());
                let pairs = backups.iter().zip(judged).filter(|(_, judged)| matches!(judged.fate, Fate::Stays(_)));
                pairs.map(|(backup, _)| backup.clone()).collect()
            };
            let left = stays(&backups);
            prop_assert!(left.last() == backups.last());
            prop_assert_eq!(stays(&left), left);
        }
    }
}
