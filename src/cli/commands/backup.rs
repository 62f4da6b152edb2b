//! `haulout backup`.

use std::sync::{Arc, OnceLock};

use super::{Context, Finish};
use crate::{
    backup::{self, BackupOptions, MariadbBackup, SpoolOptions, Want},
    cli::{
        args::{BackupArgs, BackupMode},
        failure::Failure,
        open,
        options::BackupSettings,
        progress::Unit,
        report::BackupSummary,
        spool::SpoolDirectory,
    },
    format::Manifest,
    mariadb::tool::Tools,
    model::Progress,
};

/// Incrementals on one full in this version: a lineage may grow as long as the operator likes.
const DEPTH_MAX: u32 = u32::MAX;

/// Takes a backup.
///
/// # Errors
/// When the settings are wrong or no backup was taken; then there is no manifest either.
pub async fn run(args: &BackupArgs, context: &Context) -> Result<Finish, Failure> {
    let settings = context.settle(BackupSettings::assemble(&context.layers, context.url(), args))?;
    let progress = context.progress(Unit::Bytes);
    let (manifest, finish) = operation(&settings, progress, context).await?;
    context.output.summary(&BackupSummary::from(&manifest), BackupSummary::text);
    Ok(finish)
}

async fn operation(
    settings: &BackupSettings,
    progress: Arc<dyn Progress>,
    context: &Context,
) -> Result<(Manifest, Finish), Failure> {
    // The tools tell their versions while the repository is opened. What is wrong with them, the backup itself tells.
    let found = Arc::new(OnceLock::new());
    let (paths, finding) = (open::tools(&settings.tools), found.clone());
    tokio::task::spawn_blocking(move || {
        finding.get_or_init(|| Tools::discover_for_backup(&paths).ok());
    });
    let repository = open::repository(&settings.store, context).await?;
    // A local repository is as fast as a spool beside it would be.
    let is_local = settings.store.url.starts_with("file:");
    let own = SpoolDirectory::make(&settings.spool_dir, &settings.store.url)?;
    let spool =
        SpoolOptions { directory: own.path().to_owned(), bytes_max: if is_local { 0 } else { settings.spool_size.0 } };
    let source = MariadbBackup {
        tools: open::tools(&settings.tools),
        connection: open::connection(&settings.connection),
        parallel: u16::try_from(settings.parallel.get()).unwrap_or(u16::MAX),
        nice: settings.nice.and_then(|nice| i32::try_from(nice.get()).ok()),
        extra_args: settings.tool_args.clone(),
        scratch: own.path().to_owned(),
        found,
    };
    let options = BackupOptions {
        want: match settings.mode {
            BackupMode::Automatic => Want::Either,
            BackupMode::Full => Want::Full,
            BackupMode::Incremental => Want::Incremental,
        },
        compression_level: i32::try_from(settings.compression_level.get()).unwrap_or(1),
        workers: std::thread::available_parallelism().map_or(2, usize::from),
        uploads_max: settings.uploads.get() as usize,
        spool,
        depth_max: DEPTH_MAX,
        tags: settings.tags.clone(),
        sweep_pause: backup::SWEEP_PAUSE,
    };
    let context = backup::Context {
        repository,
        clock: context.clock(),
        entropy: context.entropy(),
        progress,
        cancel: context.stop.clone(),
    };
    let outcome = backup::backup(&context, Arc::new(source), &options).await?;
    if outcome.unverifiable_pages > 0 {
        let pages = outcome.unverifiable_pages;
        context.progress.note(&format!("{pages} pages have no checksum that can be checked without their keys"));
    }
    let finish = match &outcome.lock_warning {
        Some(warning) => {
            context.progress.warn(warning);
            Finish::Damaged
        }
        None => Finish::Done,
    };
    Ok((outcome.manifest, finish))
}
