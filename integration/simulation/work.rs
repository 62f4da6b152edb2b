//! What agents do.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;
use tokio::sync::watch;

use haulout::backup::{self, BackupOptions, SpoolOptions, Want};
use haulout::copy::{self, CopyOptions, Wanted};
use haulout::error::Diagnose;
use haulout::model::{BackupId, Phase, Progress, Silent};
use haulout::prune::{self, CompactOptions, KeepPolicy, PruneOptions};
use haulout::repository::References;
use haulout::verify;

use crate::site::{Machine, Site, Weather};

/// What an agent does. Whatever else agents can do in a repository, belongs here: a variant, its odds in [`Work::of`], and
/// how it is done in [`Site::work`].
#[derive(Debug, Clone)]
pub enum Work {
    Backup(Want),
    Prune { last: u32, daily: u32, grace_hours: u64 },
    Compact { live_share: u8, pieces_max: u32 },
    Undelete(usize),
    Check { repair: bool },
    Fetch(usize),
    Copy { all: bool },
    PruneCopy { last: u32 },
}

impl Work {
    /// Some work; in a repository where they `quarrel`, one that another could come between.
    pub fn of(rng: &mut StdRng, quarrel: bool) -> Work {
        let choice = if quarrel { [0, 8, 8, 13, 13][rng.random_range(0..5)] } else { rng.random_range(0..20) };
        match choice {
            0..8 => Work::Backup([Want::Either, Want::Full][usize::from(rng.random_bool(0.2))]),
            8..13 => Work::Prune {
                last: rng.random_range(1..4),
                daily: rng.random_range(0..2),
                grace_hours: if quarrel { 0 } else { [0, 1, 24][rng.random_range(0..3)] },
            },
            13..16 => Work::Compact { live_share: rng.random_range(50..100), pieces_max: rng.random_range(1..4) },
            16..18 => Work::Undelete(rng.random_range(0..9)),
            18 => Work::Check { repair: rng.random_bool(0.5) },
            _ => Work::Fetch(rng.random_range(0..9)),
        }
    }

    /// Some work of a repository that has a copy.
    pub fn of_copy(rng: &mut StdRng) -> Work {
        match rng.random_range(0..10) {
            0..7 => Work::Copy { all: rng.random_bool(0.5) },
            _ => Work::PruneCopy { last: rng.random_range(1..3) },
        }
    }
}

/// Writes down what a run tells.
struct Heard(Arc<Mutex<Vec<String>>>);

impl Progress for Heard {
    fn begin(&self, _: Phase, _: Option<u64>) {}
    fn advance(&self, _: Phase, _: u64) {}
    fn end(&self, _: Phase) {}
    fn note(&self, message: &str) {
        self.0.lock().unwrap().push(format!("    {message}"));
    }
    fn warn(&self, message: &str) {
        self.0.lock().unwrap().push(format!("    warning: {message}"));
    }
}

fn failed(error: &impl Diagnose) -> String {
    format!("{:?}: {error}", error.kind())
}

impl Site {
    /// Does `work` in `weather`.
    pub async fn agent(&self, number: usize, work: Work, weather: Weather, seed: u64) {
        let (machine, way) = self.machine_in(&weather, seed).await;
        let told = match machine {
            // On the heap: the compiler lays futures out only so many deep.
            Ok(machine) => Box::pin(self.work(&machine, &work)).await,
            Err(error) => Err(failed(&error)),
        };
        let (faults, requests) = (way.faults(), way.requests());
        self.tally(|tally| {
            tally.faults += faults;
            tally.requests += requests;
            tally.killed += usize::from(matches!(weather, Weather::Dies(..)) && faults > 0);
        });
        self.say(format!("  agent {number}: {work:?} in {weather:?}, {faults} faults, {requests} requests: {told:?}"));
    }

    /// Does `work`; says how it ended.
    pub async fn work(&self, machine: &Machine, work: &Work) -> Result<String, String> {
        let (_stop, cancel) = watch::channel(false);
        let repository = machine.repository.clone();
        let (clock, entropy, progress) =
            (machine.clock.clone(), self.entropy.clone(), Arc::new(Heard(self.log.clone())));
        match work {
            Work::Backup(want) => {
                let context = backup::Context { repository, clock, entropy, progress, cancel };
                self.backup(&context, *want).await
            }
            Work::Prune { last, daily, grace_hours } => {
                let policy = KeepPolicy { last: *last, daily: *daily, ..KeepPolicy::default() };
                let options = PruneOptions { policy, grace_seconds: grace_hours * 3600, ..PruneOptions::default() };
                let context = prune::Context { repository, clock, entropy, progress, cancel };
                self.prune(&context, &options).await
            }
            Work::Compact { live_share, pieces_max } => {
                let context = prune::Context { repository, clock, entropy, progress, cancel };
                let options =
                    CompactOptions { live_share: *live_share, pieces_max: *pieces_max, backup: None, dry_run: false };
                let report = prune::compact(&context, &options).await.map_err(|error| failed(&error))?;
                self.tally(|tally| tally.compacted += report.editions.len());
                Ok(format!(
                    "editions {:?}, {} chunks and {} extents, skipped {:?}, put off {:?}",
                    report.editions, report.moved_chunks, report.merged_extents, report.skipped, report.put_off
                ))
            }
            Work::Undelete(number) => {
                let ids = repository.backup_ids().await.map_err(|error| failed(&error))?;
                let planned = prune::planned(&repository, &ids).await.map_err(|error| failed(&error))?;
                let Some((id, _)) = planned.get(number % planned.len().max(1)) else {
                    return Ok("nothing to undelete".to_owned());
                };
                let undeleted = prune::undelete(&repository, std::slice::from_ref(id), &*entropy).await;
                undeleted.map_err(|error| failed(&error))?;
                self.undeleted.lock().unwrap().insert(id.clone());
                Ok(format!("undeleted {id}"))
            }
            Work::Check { repair } => {
                let all = verify::Selection::All;
                let read = Some(verify::ReadData { percent: 100, seed: 0, part: None });
                let report = verify::check(&repository, &all, read, &Silent).await.map_err(|error| failed(&error))?;
                let damages = report.damages.len();
                if *repair {
                    let recorded = repository.record_damage(&report.findings, &*clock, &*entropy).await;
                    let (recorded, known) = recorded.map_err(|error| failed(&error))?;
                    return Ok(format!("{damages} damages, {recorded:?}, {} packs known", known.packs.len()));
                }
                Ok(format!("{damages} damages"))
            }
            Work::Copy { all } => {
                let context =
                    copy::Context { source: repository, target: machine.copy.clone(), entropy, progress, cancel };
                let wanted = if *all { Wanted::All } else { Wanted::default() };
                let options = CopyOptions {
                    wanted,
                    packs_in_flight: 2,
                    sweep_pause: Duration::from_millis(1),
                    ..CopyOptions::default()
                };
                let report = Box::pin(copy::copy(&context, &options)).await.map_err(|error| failed(&error))?;
                self.tally(|tally| tally.copied += report.copied.len());
                let ids: Vec<&BackupId> = report.copied.iter().map(|copied| &copied.id).collect();
                Ok(format!("copied {ids:?}, let go {:?}, skipped {:?}", report.let_go, report.skipped))
            }
            Work::PruneCopy { last } => {
                let repository = self.open(machine.copy.clone()).await.map_err(|error| failed(&error))?;
                let policy = KeepPolicy { last: *last, ..KeepPolicy::default() };
                let options = PruneOptions { policy, ..PruneOptions::default() };
                let context = prune::Context { repository, clock, entropy, progress, cancel };
                self.prune(&context, &options).await
            }
            Work::Fetch(number) => {
                let ids = repository.backup_ids().await.map_err(|error| failed(&error))?;
                let Some(id) = ids.get(number % ids.len().max(1)) else { return Ok("nothing to fetch".to_owned()) };
                self.fetched(&repository, id).await
            }
        }
    }

    async fn backup(&self, context: &backup::Context, want: Want) -> Result<String, String> {
        let options = BackupOptions {
            want,
            compression_level: 1,
            workers: 1,
            uploads_max: 2,
            spool: SpoolOptions { directory: PathBuf::new(), bytes_max: 0 },
            depth_max: u32::MAX,
            tags: Vec::new(),
            sweep_pause: Duration::from_millis(1),
        };
        // On the heap: the compiler lays futures out only so many deep.
        let outcome = Box::pin(backup::backup(context, self.source.clone(), &options)).await;
        let outcome = outcome.map_err(|error| failed(&error))?;
        let id = outcome.manifest.id.clone();
        self.tally(|tally| tally.backups += 1);
        self.committed.lock().unwrap().insert(id.clone());
        if outcome.lock_warning.is_none() {
            self.is_locked(&outcome.manifest).await;
        }
        Ok(format!("{id} {:?}, {:?}", outcome.manifest.kind, outcome.lock_warning))
    }

    /// Panics unless all that a backup needs is locked for the period from its end on.
    async fn is_locked(&self, manifest: &haulout::format::Manifest) {
        let Some(lock) = self.habits.lock else { return };
        let mut references = References::default();
        // What rots meanwhile cannot be counted, and what a prune took that slept cannot either; it is looked for at the end.
        if references.add(&self.machine().await.repository, manifest).await.is_err() {
            return;
        }
        let period = manifest.finished.after(lock.period_seconds());
        let least = manifest.locked_until.map_or(period, |until| until.max(period));
        for pack in references.into_packs() {
            let until = self.locked_until(&pack);
            let (seed, id) = (self.seed, &manifest.id);
            assert!(
                until.is_none() || until >= Some(least),
                "seed {seed}: {id}, which says {:?} and finished at {}, needs pack {pack}, which is locked until {until:?}",
                manifest.locked_until,
                manifest.finished
            );
            self.tally(|tally| tally.locks += 1);
        }
    }

    pub async fn prune(&self, context: &prune::Context, options: &PruneOptions) -> Result<String, String> {
        let report = match prune::prune(context, options).await {
            Ok(report) => report,
            // Whatever is locked is no reason to fail.
            Err(error) if matches!(error, prune::PruneError::Locked { .. }) => {
                panic!("seed {}: {error}", self.seed)
            }
            Err(error) => return Err(failed(&error)),
        };
        let deleted: Vec<&BackupId> = report.swept.iter().flat_map(|swept| &swept.backups).collect();
        self.tally(|tally| tally.deleted += deleted.len());
        let packs: u64 = report.swept.iter().map(|swept| swept.packs).sum();
        let locked: u64 = report.swept.iter().map(|swept| swept.locked_packs).sum();
        Ok(format!(
            "deleted {deleted:?} and {packs} packs, {locked} locked, made {:?}, skipped {:?}, put off {:?}",
            report.made, report.skipped, report.put_off
        ))
    }
}
