//! `haulout check`.

use std::{collections::BTreeSet, sync::Arc, time::Instant};

use super::{Context, Finish};
use crate::{
    cli::{
        args::CheckArgs,
        failure::Failure,
        open,
        options::ReadSettings,
        progress::Unit,
        report::{CheckSummary, Damage, DamagedBackup, LockedCheckSummary, Repair},
    },
    error::{Diagnose, Kind},
    model::{BackupId, Progress},
    repository::{Locked, ObjectKey, Repository, RepositoryError},
    restore::{Remains, RestoreError},
    verify::{self, CheckReport, ReadData, Selection, Wreck},
};

/// Checks what the backups need.
///
/// # Errors
/// When the settings are wrong or the repository cannot be read, or `--repair` cannot write down what was found; damage is no
/// error but [`Finish::Damaged`].
pub async fn run(args: &CheckArgs, context: &Context) -> Result<Finish, Failure> {
    let read = ReadSettings::assemble(&context.layers, context.url(), &args.store, args.connections);
    let read = context.settle(read)?;
    let progress = context.progress(if args.percent().is_some() { Unit::Bytes } else { Unit::Objects });
    if args.without_key {
        let (damages, summary) = without_key(&read, args.percent(), args.part(), progress, context).await?;
        damages.iter().for_each(|damage| tell(damage, context));
        context.output.summary(&summary, LockedCheckSummary::text);
        return Ok(if damages.is_empty() { Finish::Done } else { Finish::Damaged });
    }
    let begun = Instant::now();
    let repository = open::repository(&read.store, context).await?;
    // The store's own requests know nothing of a signal; what was checked so far is of no use then.
    let mut stop = context.stop.clone();
    tokio::select! {
        finish = operation(args, &repository, progress, begun, context) => finish,
        _ = stop.wait_for(|stop| *stop) => Err(Failure::new(Kind::Interrupted, "interrupted")),
    }
}

async fn operation(
    args: &CheckArgs,
    repository: &Repository,
    progress: Arc<dyn Progress>,
    begun: Instant,
    context: &Context,
) -> Result<Finish, Failure> {
    let read_data = args.percent().map(|percent| ReadData { percent, seed: seed(context), part: args.part() });
    let selection = selection(args, repository).await?;
    let report = verify::check(repository, &selection, read_data, &*progress).await?;
    report.damages.iter().for_each(|damage| tell(damage, context));
    let repair = if args.repair { Some(repair(repository, &report, context).await?) } else { None };
    let summary = summary(&report, args.percent(), repair, begun);
    context.output.summary(&summary, CheckSummary::text);
    Ok(if report.is_clean() { Finish::Done } else { Finish::Damaged })
}

async fn selection(args: &CheckArgs, repository: &Repository) -> Result<Selection, Failure> {
    if args.backup.is_empty() {
        return Ok(Selection::All);
    }
    let mut chosen = BTreeSet::new();
    for backup in &args.backup {
        chosen.insert(open::choice(repository, backup).await?);
    }
    Ok(Selection::These(chosen))
}

fn tell(damage: &verify::Damage, context: &Context) {
    let verify::Damage { object, problem, backups, files } = damage.clone();
    let hint = match ObjectKey::parse(&object) {
        Some(ObjectKey::Manifest(_)) => Some(
            "an earlier version of the object, or the one in a copy of the bucket, brings the backup back; no other backup needs it",
        ),
        Some(ObjectKey::Edition(..)) if backups.is_empty() => {
            Some("the edition before it serves meanwhile; `haulout compact` writes another")
        }
        Some(ObjectKey::Edition(..)) => {
            Some("an earlier version of the object, or the one in a copy of the bucket, brings the backup back")
        }
        Some(ObjectKey::Damage(_)) => {
            Some("`haulout check --read-data --repair` finds out anew which packs are damaged")
        }
        _ if object.starts_with(ObjectKey::BINLOGS) => Some(
            "take a backup: from it on any second can be restored again; a copy of the bucket may have what is damaged here",
        ),
        _ => None,
    };
    let damage = Damage { object, problem, backups, files, hint: hint.map(str::to_owned) };
    let output = &context.output;
    if output.is_json() {
        output.json(&damage);
    } else {
        output.data(damage.text(output.options.stdout).as_bytes());
    }
}

async fn without_key(
    read: &ReadSettings,
    percent: Option<u8>,
    part: Option<(u32, u32)>,
    progress: Arc<dyn Progress>,
    context: &Context,
) -> Result<(Vec<verify::Damage>, LockedCheckSummary), Failure> {
    let begun = Instant::now();
    let repository = Locked::open(open::store(&read.store, false, context).await?).await?;
    let read_data = percent.map(|percent| ReadData { percent, seed: seed(context), part });
    let mut stop = context.stop.clone();
    let report = tokio::select! {
        report = verify::check_locked(&repository, read_data, &*progress) => report?,
        _ = stop.wait_for(|stop| *stop) => return Err(Failure::new(Kind::Interrupted, "interrupted")),
    };
    let summary = LockedCheckSummary {
        without_key: true,
        backups: report.backups,
        documents: report.documents.objects,
        objects: report.packs.objects,
        bytes: report.packs.bytes,
        read_percent: percent.unwrap_or(0),
        damaged_objects: report.damages.len() as u64,
        seconds: begun.elapsed().as_secs_f64(),
    };
    Ok((report.damages, summary))
}

/// Chooses which packs a sample has.
fn seed(context: &Context) -> u64 {
    let mut seed = [0; 8];
    context.entropy().fill(&mut seed);
    u64::from_le_bytes(seed)
}

/// Tells what is left of damaged backups, and lets later backups know of damaged packs.
async fn repair(repository: &Repository, report: &CheckReport, context: &Context) -> Result<Repair, Failure> {
    let output = &context.output;
    for wreck in &report.wrecks {
        let remains = remains(repository, wreck).await?;
        let files = wreck.files.iter().map(|file| &**file);
        let line = DamagedBackup::new(wreck.backup.clone(), files, remains.as_ref()).crowded(wreck.crowded);
        if output.is_json() {
            output.json(&line);
        } else {
            output.data(line.text(output.options.stdout).as_bytes());
        }
    }
    let (recorded, known) = repository.record_damage(&report.findings, &*context.clock(), &*context.entropy()).await?;
    let damaged: BTreeSet<&BackupId> = report.damaged_backups.iter().collect();
    Ok(Repair {
        whole_backups: report.backups.iter().filter(|id| !damaged.contains(id)).collect(),
        damaged_packs: known.packs.len() as u64 + known.more,
        recorded,
    })
}

/// Which tables can be brought back; nothing when what tells of them cannot be read.
async fn remains(repository: &Repository, wreck: &Wreck) -> Result<Option<Remains>, Failure> {
    if wreck.unreadable || wreck.crowded {
        return Ok(None);
    }
    let is_damage = |error: &RepositoryError| matches!(error.kind(), Kind::Corrupt | Kind::Failed);
    let manifest = match repository.manifest(&wreck.backup).await {
        Ok(manifest) => manifest,
        Err(error) if is_damage(&error) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    match Remains::read(repository, &manifest, wreck.files.iter().map(|file| &**file)).await {
        Ok(remains) => Ok(Some(remains)),
        Err(RestoreError::Repository(error)) if is_damage(&error) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn summary(report: &CheckReport, percent: Option<u8>, repair: Option<Repair>, begun: Instant) -> CheckSummary {
    let unreferenced = report.unreferenced.unwrap_or_default();
    CheckSummary {
        backups: report.backups.len() as u64,
        objects: report.packs.objects,
        bytes: report.packs.bytes,
        read_percent: percent.unwrap_or(0),
        pages_checked: report.pages,
        chunks_not_opened: report.unopened.objects,
        damaged_objects: report.damages.len() as u64,
        damaged_backups: report.damaged_backups.len() as u64,
        unreferenced_objects: unreferenced.objects,
        unreferenced_bytes: unreferenced.bytes,
        binlog_segments: report.binlogs.segments,
        binlog_bytes_read: report.binlogs.read_bytes,
        repair,
        seconds: begun.elapsed().as_secs_f64(),
    }
}
