//! Before a backup is committed, all that it needs is locked for the whole period.
//!
//! What this run stored is locked by its put. What it shares with earlier backups was locked when the newest of these was
//! committed, until [`Manifest::locked_until`] at least: one time for all of it. Only when that is too little is the new
//! map read and each lock extended that is older than a fraction of the slack, so that a night without extensions follows
//! on the other; in between, a few packs taken by chance must bear the claim out.
//!
//! A lock that cannot be extended does not undo the backup: without it tonight's state would be lost today, and the lock
//! at the earliest when it ends. The backup is committed with a warning and without the claim, so the next one tries again.

use std::sync::PoisonError;

use super::base::Base;
use super::upload::Uploader;
use super::{BackupError, Context};
use crate::format::Manifest;
use crate::model::{LockPolicy, PackId, Timestamp};
use crate::repository::{Deadlines, Extension, LOCK_MARGIN_SECONDS, References, RepositoryError};

/// Packs whose locks are looked at in a night without extensions. 16: of a claim that is wrong for a fifth of the packs,
/// 97 % are found out.
const SAMPLE_PACKS: usize = 16;

/// How the locks of a backup came out.
#[derive(Debug, Default)]
pub(super) struct Secured {
    /// Until when all of it is locked, at least; nothing where that is not known.
    pub until: Option<Timestamp>,
    /// What the operator must know.
    pub warning: Option<String>,
}

/// What a backup shares with earlier ones.
pub(super) struct Shared<'a> {
    /// The backup that it was compared with.
    pub base: Option<&'a Base>,
    /// When that one's manifest was stored.
    pub base_stored: Option<Timestamp>,
    /// Packs of runs that died since, and when they were stored.
    pub strays: Vec<(PackId, Timestamp)>,
}

/// Extends the locks of what `manifest` needs where they end too early.
///
/// # Errors
/// When a pack that it needs is gone, or its map cannot be read.
pub(super) async fn secure(
    context: &Context,
    manifest: &Manifest,
    shared: &Shared<'_>,
    uploader: &Uploader,
) -> Result<Secured, BackupError> {
    let Some(policy) = context.repository.lock_policy() else {
        let copied = context.repository.config().lock.is_some();
        let warning = "this repository was made to lock its objects, and the store that it lies in now cannot";
        return Ok(Secured { until: None, warning: copied.then(|| warning.to_owned()) });
    };
    let now = context.clock.now();
    let needed = Deadlines::at(policy, now).needed;
    let documents = context.repository.extend_documents(policy, now).await;
    let few = old_packs(policy, shared, uploader, needed);
    let few = context.repository.extend_few(policy, few, now).await;
    let claimed = claimed(policy, manifest, shared, needed).filter(|claimed| *claimed >= needed);
    let packs = match claimed {
        Some(claimed) if bears_out(context, policy, manifest, shared, now).await? => Ok(Extension::of(claimed)),
        Some(_) => extend(context, policy, manifest, now, false).await,
        None => extend(context, policy, manifest, now, true).await,
    };
    told(context, [documents, few, packs])
}

/// Packs that are neither this run's nor an earlier backup's, and whose own locks may end too early.
fn old_packs(policy: LockPolicy, shared: &Shared<'_>, uploader: &Uploader, needed: Timestamp) -> Vec<PackId> {
    let mut packs: Vec<_> =
        shared.strays.iter().filter(|(_, stored)| by_age(policy, *stored) < needed).map(|(pack, _)| *pack).collect();
    packs.extend(uploader.packs_found.lock().unwrap_or_else(PoisonError::into_inner).iter());
    packs
}

/// Until when a pack that was put at `stored`, by the store's clock, is locked at least: whoever put it went by his own.
fn by_age(policy: LockPolicy, stored: Timestamp) -> Timestamp {
    policy.retention(stored).until.after(-LOCK_MARGIN_SECONDS)
}

/// Until when everything is locked, by what is known without a look.
fn claimed(policy: LockPolicy, manifest: &Manifest, shared: &Shared<'_>, needed: Timestamp) -> Option<Timestamp> {
    match (shared.base, shared.base_stored) {
        (Some(base), Some(stored)) => {
            let base = (base.manifest.locked_until, stored);
            claimed_of(policy, manifest.started, base, &shared.strays, needed)
        }
        (Some(_), None) => None,
        // Nothing is shared, so its own packs stand in for a backup's that has just been stored.
        (None, _) => {
            let own = (Some(policy.retention(manifest.started).until), manifest.started);
            claimed_of(policy, manifest.started, own, &shared.strays, needed)
        }
    }
}

/// The same for a run that began at `started`, of a base that says `base.0` and was stored at `base.1`.
fn claimed_of(
    policy: LockPolicy,
    started: Timestamp,
    base: (Option<Timestamp>, Timestamp),
    strays: &[(PackId, Timestamp)],
    needed: Timestamp,
) -> Option<Timestamp> {
    let own = policy.retention(started).until;
    // Nobody can have locked anything for longer, whatever the manifest says.
    let most = policy.retention(base.1).until.after(LOCK_MARGIN_SECONDS);
    // Strays that are locked for less than is needed are looked at one by one.
    let strays = strays.iter().map(|(_, stored)| by_age(policy, *stored)).filter(|until| *until >= needed);
    Some(strays.fold(base.0?.min(most).min(own), Timestamp::min))
}

/// Whether some packs of earlier backups, chosen by chance, are locked as they should be.
async fn bears_out(
    context: &Context,
    policy: LockPolicy,
    manifest: &Manifest,
    shared: &Shared<'_>,
    now: Timestamp,
) -> Result<bool, BackupError> {
    let Some(base) = shared.base else { return Ok(true) };
    let some = context.repository.some_needed_packs(manifest, &*context.entropy).await?;
    let earlier = some.into_iter().filter(|pack| base.packs.contains_key(pack)).take(SAMPLE_PACKS);
    for pack in earlier {
        let until = match context.repository.pack_locked_until(pack).await {
            Ok(until) => until,
            // Who may not look believes; the extension, when it is due, will fail aloud.
            Err(RepositoryError::Store(_)) => return Ok(true),
            Err(error) => return Err(error.into()),
        };
        if until.is_none_or(|until| until < now.after(policy.period_seconds())) {
            let words = "is locked for less than the newest backup says: all locks are extended";
            context.progress.warn(&format!("pack {pack} {words}"));
            return Ok(false);
        }
    }
    Ok(true)
}

async fn extend(
    context: &Context,
    policy: LockPolicy,
    manifest: &Manifest,
    now: Timestamp,
    trust_age: bool,
) -> Result<Extension, RepositoryError> {
    let mut needed = References::default();
    needed.add(&context.repository, manifest).await?;
    context.repository.extend_packs(policy, needed.into_packs(), now, trust_age).await
}

/// Tells how it came out; what failed becomes a warning, unless something is gone.
fn told(context: &Context, results: [Result<Extension, RepositoryError>; 3]) -> Result<Secured, BackupError> {
    let (mut until, mut extended, mut overwritten) = (None::<Timestamp>, 0, 0);
    let mut failures = Vec::new();
    for result in results {
        match result {
            Ok(extension) => {
                until = Some(until.map_or(extension.until, |until| until.min(extension.until)));
                extended += extension.extended;
                overwritten += extension.overwritten;
                if let Some(cause) = extension.cause {
                    let failed = extension.failed;
                    failures.push(format!("locks not extended: {failed}, the first because {}", super::chain(&cause)));
                }
            }
            Err(RepositoryError::Store(error)) => {
                failures.push(format!("locks not extended, because {}", super::chain(&error)));
            }
            Err(error) => return Err(error.into()),
        }
    }
    if extended > 0 {
        context.progress.note(&format!("locks extended: {extended}"));
    }
    if overwritten > 0 {
        let words = "`haulout unhide` brings the first versions back";
        context.progress.warn(&format!("objects that somebody has written over: {overwritten}; {words}"));
    }
    if failures.is_empty() {
        return Ok(Secured { until, warning: None });
    }
    let warning = format!("what this backup needs is not locked for the whole period: {}", failures.join("; "));
    Ok(Secured { until: None, warning: Some(warning) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::LockMode;

    const DAY: i64 = 24 * 3600;

    fn at(day: i64) -> Timestamp {
        Timestamp(jiff::Timestamp::from_second(day * DAY).unwrap())
    }

    /// 30 days, and 10 of slack.
    fn policy() -> LockPolicy {
        LockPolicy { mode: LockMode::Compliance, days: 30.try_into().unwrap() }
    }

    fn claim(stored: i64, base: Option<i64>, started: i64, strays: &[i64]) -> Option<Timestamp> {
        let strays: Vec<_> = strays.iter().map(|day| (PackId([1; 32]), at(*day))).collect();
        claimed_of(policy(), at(started), (base.map(at), at(stored)), &strays, at(started + 30))
    }

    #[test]
    fn a_lock_lasts_as_long_as_the_newest_backup_says_and_no_longer_than_it_can() {
        assert_eq!(claim(5, Some(40), 5, &[]), Some(at(40)));
        // What this run puts ends sooner than what was extended a moment ago by a clock that goes before.
        assert_eq!(claim(5, Some(46), 5, &[]), Some(at(45)));
        // A manifest that says more than anybody can have locked when it was stored.
        assert_eq!(claim(5, Some(400), 20, &[]), Some(at(45).after(LOCK_MARGIN_SECONDS)));
        // One that does not know.
        assert_eq!(claim(5, None, 5, &[]), None);
    }

    proptest! {
        /// Nights of a server: each stores a pack, and needs most of the earlier ones.
        #[test]
        fn every_night_all_is_locked_for_the_period_and_few_nights_extend(
            days in 1u32..60,
            hours in proptest::collection::vec(1i64..40, 1..120),
        ) {
            let policy = LockPolicy { mode: LockMode::Compliance, days: days.try_into().unwrap() };
            // When each pack was stored, and until when it is locked.
            let mut packs: Vec<(Timestamp, Timestamp)> = Vec::new();
            let (mut started, mut base) = (at(1000), None);
            let mut nights_with_extensions = 0;
            let begun = started;
            for hours in hours {
                let now = started.after(1800);
                let deadlines = Deadlines::at(policy, now);
                packs.push((started, policy.retention(started).until));
                let base_or_own = base.unwrap_or((Some(policy.retention(started).until), started));
                let claim = claimed_of(policy, started, base_or_own, &[], deadlines.needed);
                let claim = match claim.filter(|claim| *claim >= deadlines.needed) {
                    Some(claim) => claim,
                    None => {
                        nights_with_extensions += 1;
                        let mut least = deadlines.target.until;
                        for (stored, until) in &mut packs {
                            match deadlines.by_age(*stored) {
                                Some(known) => least = least.min(known),
                                None => *until = deadlines.target.until,
                            }
                        }
                        least
                    }
                };
                for (_, until) in &packs {
                    prop_assert!(*until >= now.after(policy.period_seconds()), "not locked for the period");
                    prop_assert!(*until >= claim, "the claim is false");
                }
                base = Some((Some(claim), now));
                started = started.after(hours * 3600);
            }
            // With what is not fresh and the margins off, each extension serves for more than half the slack.
            let nights = started.seconds_since(begun) / (policy.slack_seconds() / 2) + 2;
            prop_assert!(nights_with_extensions <= nights, "{nights_with_extensions} nights of {nights}");
        }
    }

    #[test]
    fn packs_of_a_run_that_died_shorten_the_claim_or_are_looked_at() {
        assert_eq!(claim(20, Some(60), 25, &[22, 24]), Some(at(60)));
        // By less than the store's time says: the clock of the run that put them may have been behind.
        assert_eq!(claim(20, Some(60), 25, &[16]), Some(at(56).after(-LOCK_MARGIN_SECONDS)));
        // Too old to be counted on: looked at one by one.
        assert_eq!(claim(20, Some(60), 25, &[14]), Some(at(60)));
    }
}
