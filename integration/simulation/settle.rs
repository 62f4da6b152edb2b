//! What must hold when the weather has become fair.

use std::collections::BTreeSet;

use futures::TryStreamExt;

use haulout::backup::Want;
use haulout::model::{BackupId, PackId, Silent};
use haulout::prune::{self, KeepPolicy, PruneOptions};
use haulout::repository::{ObjectKey, References, Repository, RepositoryError};
use haulout::verify::{self, CheckReport, Selection};

use crate::DAY;
use crate::site::Site;
use crate::work::Work;

/// Prunes, each of them some days after the last, by which all garbage must have gone: the plan, the sweep, and with object lock
/// once more of both, when the longest lock has ended.
const PRUNES_MAX: usize = 6;
/// Most documents besides packs and manifests that stay when a month has passed: `haulout.json`, a key slot, 16 lists of damage,
/// marks of what stays, the plan and the leases of the last runs.
const RECORDS_MAX: usize = 40;

impl Site {
    /// Makes the weather fair and looks at what is there.
    pub async fn settle(&self, pruned: bool, rotten: bool) {
        let seed = self.seed;
        self.clock.wake();
        self.clock.pass(400);
        let repository = self.machine().await.repository;
        let there: BTreeSet<BackupId> = repository.backup_ids().await.unwrap().into_iter().collect();
        self.nobody_is_missing(&repository, &there, pruned).await;
        self.locks_hold(&repository).await;
        let mut report = self.checked(&repository, Selection::All).await;
        assert!(rotten || report.is_clean(), "seed {seed}: {report:#?}");
        self.all_restore(&repository, &report).await;
        // Another backup; after damage, one that stores anew what was lost, and another on top of it.
        self.clock.pass(DAY);
        if rotten {
            self.tally(|tally| tally.lost += report.damaged_backups.len());
            self.must(Work::Check { repair: true }).await;
            self.must(Work::Backup(Want::Full)).await;
            self.clock.pass(DAY);
        }
        self.source.0.lock().unwrap().live();
        self.must(Work::Backup(Want::Either)).await;
        if rotten {
            let newest = repository.backup_ids().await.unwrap().into_iter().rev().take(2).collect();
            let again = self.checked(&repository, Selection::These(newest)).await;
            assert!(again.damages.iter().all(|damage| damage.backups.is_empty()), "seed {seed}: {again:#?}");
            report = self.checked(&repository, Selection::All).await;
            self.all_restore(&repository, &report).await;
            // In the place of an edition that rotted, so that what is needed can be counted; a plan that rotted is removed before. What
            // is superseded goes once there is a newer backup.
            self.must(Work::Prune { last: 100, daily: 0, grace_hours: 24 }).await;
            self.must(Work::Compact { live_share: 50, pieces_max: 8 }).await;
            self.clock.pass(DAY);
            self.source.0.lock().unwrap().live();
            self.must(Work::Backup(Want::Either)).await;
        }
        self.garbage_goes(&repository, &report).await;
        self.records_go(&repository).await;
        let report = self.checked(&repository, Selection::All).await;
        assert!(rotten || report.is_clean(), "seed {seed}: {report:#?}");
        assert_eq!(report.damaged_backups, [], "seed {seed}");
        self.all_restore(&repository, &report).await;
        assert_eq!(self.bucket.hidden_though_locked(), [""; 0], "seed {seed}: deleted though locked");
    }

    /// Whatever came into the copy is whole, and it catches up.
    pub async fn copy_is_right(&self, rotten: bool) {
        let seed = self.seed;
        self.clock.pass(DAY);
        for caught_up in [false, true] {
            if caught_up {
                // A prune of the copy that died may have been about to delete what is needed again: the next one ends it, as the hint says.
                let copied = Box::pin(self.work(&self.machine().await, &Work::Copy { all: false })).await;
                if copied.is_err_and(|error| error.contains("was begun and has not ended")) {
                    self.must(Work::PruneCopy { last: 100 }).await;
                }
                self.must(Work::Copy { all: false }).await;
            }
            let machine = self.machine().await;
            let copy = match self.open(machine.copy).await {
                Ok(copy) => copy,
                Err(RepositoryError::Missing { .. }) if !caught_up => continue,
                Err(error) => panic!("seed {seed}: the copy: {error}"),
            };
            let report = self.checked(&copy, Selection::All).await;
            assert!(report.is_clean(), "seed {seed}: the copy: {report:#?}");
            let there = copy.backup_ids().await.unwrap();
            for id in &there {
                self.fetched(&copy, id).await.unwrap_or_else(|error| panic!("seed {seed}: {id} of the copy: {error}"));
                self.tally(|tally| tally.of_copy += 1);
            }
            let newest = machine.repository.backup_ids().await.unwrap().into_iter().max();
            assert!(
                !caught_up || rotten || there.iter().max() >= newest.as_ref(),
                "seed {seed}: the copy lacks {newest:?}"
            );
        }
    }

    /// Does `work`, which must end well.
    async fn must(&self, work: Work) {
        let told = Box::pin(self.work(&self.machine().await, &work)).await;
        let told = told.unwrap_or_else(|error| panic!("seed {}: {work:?}: {error}", self.seed));
        self.say(format!("  at the end: {work:?}: {told}"));
    }

    /// Whatever is gone was named by a plan that was begun; the newest, and what somebody was told stays, is there.
    async fn nobody_is_missing(&self, repository: &Repository, there: &BTreeSet<BackupId>, pruned: bool) {
        let seed = self.seed;
        let committed = self.committed.lock().unwrap().clone();
        let state = repository.prune_state().await.unwrap();
        let mut named = BTreeSet::new();
        for (id, _) in state.plans.iter().filter(|(_, plan)| plan.begun.is_some() && plan.stored.is_some()) {
            // One that rotted may have named anything.
            match repository.prune_plan(id).await {
                Ok(plan) => named.extend(plan.backups.into_iter().map(|entry| entry.id)),
                Err(_) if self.habits.rots => named.extend(committed.iter().cloned()),
                Err(error) => panic!("seed {seed}: plan {id}: {error}"),
            }
        }
        for id in committed.iter().filter(|id| !there.contains(*id)) {
            // A manifest that rotted away is nobody's fault.
            let lost = self.lost.lock().unwrap().contains(id);
            assert!(lost || (pruned && named.contains(id)), "seed {seed}: {id} is gone, and no plan let go of it");
        }
        for id in self.undeleted.lock().unwrap().iter() {
            let lost = self.lost.lock().unwrap().contains(id);
            assert!(lost || there.contains(id), "seed {seed}: {id} was undeleted, and is gone");
        }
        if let Some(newest) = committed.last() {
            let lost = self.lost.lock().unwrap().contains(newest);
            // One that is newer may be there although its run was told of a failure: the answer was lost.
            let newer = there.last().is_some_and(|last| last >= newest);
            assert!(lost || newer, "seed {seed}: the newest backup {newest} is gone");
        }
    }

    /// What each backup says of its locks is true.
    async fn locks_hold(&self, repository: &std::sync::Arc<Repository>) {
        if self.habits.lock.is_none() {
            return;
        }
        for (id, manifest) in repository.manifests().await.unwrap() {
            let Ok(manifest) = manifest else { continue };
            let Some(least) = manifest.locked_until else { continue };
            let mut references = References::default();
            if references.add(repository, &manifest).await.is_err() {
                continue;
            }
            for pack in references.into_packs() {
                let until = self.locked_until(&pack);
                let seed = self.seed;
                assert!(
                    until.is_none() || until >= Some(least),
                    "seed {seed}: {id} says {least}, and its pack {pack} is locked until {until:?}"
                );
                self.tally(|tally| tally.locks += 1);
            }
        }
    }

    async fn checked(&self, repository: &Repository, selection: Selection) -> CheckReport {
        let read = Some(verify::ReadData { percent: 100, seed: 0, part: None });
        verify::check(repository, &selection, read, &Silent).await.unwrap()
    }

    /// Every backup comes back byte for byte, but those that `report` calls damaged; they do, too, or fail.
    async fn all_restore(&self, repository: &Repository, report: &CheckReport) {
        for id in repository.backup_ids().await.unwrap() {
            match self.fetched(repository, &id).await {
                Ok(_) => self.tally(|tally| tally.restored += 1),
                Err(_) if report.damaged_backups.contains(&id) => {}
                Err(error) => panic!("seed {}: {id}: {error}", self.seed),
            }
        }
    }

    /// Damaged backups are let go of, and then whatever nobody needs goes.
    async fn garbage_goes(&self, repository: &std::sync::Arc<Repository>, report: &CheckReport) {
        let seed = self.seed;
        let mut named: BTreeSet<BackupId> = report.damaged_backups.iter().cloned().collect();
        for round in 0..PRUNES_MAX {
            let machine = self.machine().await;
            let (_stop, cancel) = tokio::sync::watch::channel(false);
            let policy = KeepPolicy { last: 3, ..KeepPolicy::default() };
            let there: BTreeSet<BackupId> = repository.backup_ids().await.unwrap().into_iter().collect();
            named.retain(|id| there.contains(id));
            let options =
                PruneOptions { policy, grace_seconds: 24 * 3600, named: named.clone(), ..PruneOptions::default() };
            let context = prune::Context {
                repository: machine.repository.clone(),
                clock: machine.clock.clone(),
                entropy: self.entropy.clone(),
                progress: std::sync::Arc::new(Silent),
                cancel,
            };
            let told = match Box::pin(prune::prune(&context, &options)).await {
                Ok(report) => {
                    // A backup that was let go of is named no more.
                    named.retain(|id| {
                        !report.backups.iter().any(|told| told.judged.id == *id && told.planned.is_some())
                    });
                    format!("{:?}, skipped {:?}, put off {:?}", report.swept, report.skipped, report.put_off)
                }
                Err(error @ prune::PruneError::Locked { .. }) => error.to_string(),
                Err(error) => panic!("seed {seed}: prune: {error}"),
            };
            self.say(format!("  prune {round} at the end: {told}"));
            if round >= 2 && self.garbage(repository).await.is_empty() {
                return;
            }
            self.clock.pass(4 * DAY);
            if self.habits.lock.is_some() {
                // In a repository that is locked a night without a backup lets locks run out; the next one extends them.
                self.source.0.lock().unwrap().live();
                self.must(Work::Backup(Want::Either)).await;
            }
        }
        let garbage = self.garbage(repository).await;
        assert_eq!(garbage, [""; 0], "seed {seed}: nobody needs this, and it stays");
    }

    /// Packs and editions that no backup needs and that are older than the newest backup.
    async fn garbage(&self, repository: &std::sync::Arc<Repository>) -> Vec<String> {
        let mut references = References::default();
        let mut garbage = Vec::new();
        for editions in repository.editions().await.unwrap() {
            garbage.extend(editions.superseded().map(|edition| ObjectKey::edition(&editions.id, edition).text()));
            for (_, manifest) in &editions.all {
                let Ok(manifest) = manifest else {
                    garbage.push(format!("{} cannot be read", editions.id));
                    continue;
                };
                if let Err(error) = references.add(repository, manifest).await {
                    garbage.push(format!("{}: {error}", editions.id));
                }
            }
        }
        let packs = repository.packs().await.unwrap();
        let unneeded: Vec<&PackId> = packs.keys().filter(|pack| !references.need(pack)).collect();
        garbage.extend(unneeded.iter().map(|pack| format!("pack {pack}")));
        garbage
    }

    /// After a month the records of runs are gone.
    async fn records_go(&self, repository: &Repository) {
        self.clock.pass(40 * DAY);
        self.must(Work::Prune { last: 3, daily: 0, grace_hours: 24 }).await;
        let objects: Vec<_> = repository.store().list(None).try_collect().await.unwrap();
        let is_record = |key: &str| !key.starts_with("packs/") && !key.starts_with("backups/");
        let records: Vec<&str> = objects.iter().map(|one| one.key.as_str()).filter(|key| is_record(key)).collect();
        assert!(records.len() <= RECORDS_MAX, "seed {}: {} records: {records:#?}", self.seed, records.len());
    }
}
