//! The repository, its last backup, and what the next one would be.

use std::{sync::Arc, time::Duration};

use super::{Record, check};
use crate::{
    backup::{self, BackupError, MariadbBackup, Want},
    cli::{
        commands::{Context, doctor::Patient},
        failure::Failure,
        human, open,
    },
    error::Kind,
    format::{BackupKind, Manifest},
    model::{Silent, Timestamp},
    repository::{Repository, RepositoryError},
    store::Store,
};

/// Age from which on the last backup is worth a warning: a daily one and half a day of delay.
const OLD_SECONDS: i64 = 36 * 3600;

/// Time for each look at the repository; the map of a server of some terabytes is read within it.
const REPOSITORY_LIMIT: Duration = Duration::from_secs(120);

/// Looks at the repository in `store`.
pub(super) async fn examine(record: &mut Record<'_>, store: Store, patient: &Patient, context: &Context) {
    let opened = async { Ok::<_, Failure>(open::unlocked(store, open::keyholder(context)?, context).await?) };
    let repository = match limited(opened).await {
        Ok(repository) => Arc::new(repository),
        Err(failure) => {
            record.problem(check::REPOSITORY_FORMAT, failure);
            record.skip(check::REPOSITORY, check::REPOSITORY_FORMAT);
            return record.skip(&[check::BACKUP_NEXT], check::REPOSITORY_FORMAT);
        }
    };
    let config = repository.config();
    let seal = match repository.slot() {
        Some(slot) => format!("sealed ({}), opened by key slot {slot}", config.seal),
        None => "not sealed".to_owned(),
    };
    let message = format!("repository {}, made {}, {seal}", config.repository_id, config.created);
    record.ok(check::REPOSITORY_FORMAT, message);
    lock(record, &repository, context.clock().now()).await;
    last_backup(record, &repository, context.clock().now()).await;
    if let Err(error) = repository.needs_data_key() {
        return record.problem(check::BACKUP_NEXT, error);
    }
    next_backup(record, repository, patient, context).await;
}

/// Tells whether objects are locked as `init` settled it.
async fn lock(record: &mut Record<'_>, repository: &Repository, now: Timestamp) {
    let Some(settled) = repository.config().lock else {
        return record.ok(check::REPOSITORY_LOCK, "objects are not locked: `init --lock` does that");
    };
    let hint = "its objects were copied here, or the bucket's object lock is off: locked backups need a bucket of S3 that has it";
    if repository.lock_policy().is_none() {
        let message = format!("objects were to be locked for {settled}, and this store cannot lock any");
        return record.warn(check::REPOSITORY_LOCK, message, hint);
    }
    match limited(repository.config_locked_until()).await {
        Ok(Some(until)) if until > now => {
            let message = format!("every object is locked for {settled}; haulout.json until {until}");
            record.ok(check::REPOSITORY_LOCK, message);
        }
        Ok(_) => {
            let message = format!("objects were to be locked for {settled}, and haulout.json is not");
            record.warn(check::REPOSITORY_LOCK, message, hint);
        }
        Err(failure) => record.problem(check::REPOSITORY_LOCK, failure),
    }
}

async fn last_backup(record: &mut Record<'_>, repository: &Repository, now: Timestamp) {
    let newest = async { Ok::<_, RepositoryError>(repository.backup_ids().await?.into_iter().next_back()) };
    let manifest = match limited(newest).await {
        Ok(None) => {
            record.ok(check::REPOSITORY_LAST_BACKUP, "no backup yet");
            return record.ok(check::REPOSITORY_LAST_MAP, "no backup yet");
        }
        Ok(Some(id)) => limited(repository.manifest(&id)).await,
        Err(failure) => Err(failure),
    };
    let manifest = match manifest {
        Ok(manifest) => manifest,
        Err(failure) => {
            record.problem(check::REPOSITORY_LAST_BACKUP, failure);
            return record.skip(check::REPOSITORY, check::REPOSITORY_LAST_BACKUP);
        }
    };
    age_told(record, &manifest, now);
    let map = async {
        let root = repository.map_root(&manifest).await?;
        futures::try_join!(repository.map_spaces(&root), repository.map_files(&root))
    };
    match limited(map).await {
        Ok((spaces, files)) => {
            let spaces = human::counted(spaces.len() as u64, "tablespace file");
            let files = human::counted(files.len() as u64, "other file");
            record.ok(check::REPOSITORY_LAST_MAP, format!("its map can be read: {spaces}, {files}"));
        }
        Err(failure) => record.problem(check::REPOSITORY_LAST_MAP, failure),
    }
}

/// Tells how old the newest backup is.
pub(super) fn age_told(record: &mut Record<'_>, manifest: &Manifest, now: Timestamp) {
    let age = now.seconds_since(manifest.finished);
    let told = human::duration(age.unsigned_abs());
    if age > OLD_SECONDS {
        let message = format!("backup {} ended {told} ago: none has been made since", manifest.id);
        record.warn(check::REPOSITORY_LAST_BACKUP, message, "see whether the schedule runs; `haulout list` shows all");
    } else {
        let when = if age < 0 { "in the future, by this machine's clock" } else { "ago" };
        record.ok(check::REPOSITORY_LAST_BACKUP, format!("backup {} ended {told} {when}", manifest.id));
    }
}

async fn next_backup(record: &mut Record<'_>, repository: Arc<Repository>, patient: &Patient, context: &Context) {
    let needs = [check::TOOLS, check::SERVER].concat();
    if let Some(culprit) = record.first_problem(&needs) {
        return record.skip(&[check::BACKUP_NEXT], culprit);
    }
    let source = MariadbBackup {
        tools: open::tools(&patient.tools),
        connection: open::connection(&patient.connection),
        parallel: 1,
        nice: None,
        extra_args: Vec::new(),
        scratch: patient.spool_dir.clone(),
        found: Arc::default(),
    };
    let run = backup::Context {
        repository,
        clock: context.clock(),
        entropy: context.entropy(),
        progress: Arc::new(Silent),
        cancel: context.stop.clone(),
    };
    let preview = async {
        let preview = backup::preview(&run, Arc::new(source), Want::Either).await?;
        Ok::<_, BackupError>(match (preview.kind, preview.parent) {
            (BackupKind::Incremental, Some(parent)) => format!("an incremental on {parent}: {}", preview.reason),
            _ => format!("a full: {}", preview.reason),
        })
    };
    match limited(preview).await {
        Ok(told) => record.ok(check::BACKUP_NEXT, told),
        Err(failure) => record.problem(check::BACKUP_NEXT, failure),
    }
}

async fn limited<T, E: Into<Failure>>(look: impl Future<Output = Result<T, E>>) -> Result<T, Failure> {
    match tokio::time::timeout(REPOSITORY_LIMIT, look).await {
        Ok(result) => result.map_err(Into::into),
        Err(_) => {
            let message = format!("no answer within {} s", REPOSITORY_LIMIT.as_secs());
            Err(Failure::new(Kind::StorageUnavailable, message))
        }
    }
}
