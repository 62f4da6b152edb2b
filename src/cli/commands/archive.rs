//! `haulout archive`.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::watch;

use super::{Context, Finish};
use crate::{
    archive::{self, ArchiveError, ArchiveOptions, Figures},
    cli::{
        args::ArchiveArgs,
        failure::Failure,
        open,
        options::ArchiveSettings,
        progress::Unit,
        report::{ArchiveStatus, ArchiveSummary},
        spool::SpoolDirectory,
    },
    mariadb::tool::Tools,
};

/// Pause between two lines that tell how far the archive is.
const STATUS_PAUSE: Duration = Duration::from_secs(5);

/// Archives the server's binary log.
///
/// # Errors
/// When the settings are wrong, another archiver is at work, or the log cannot be followed.
pub async fn run(args: &ArchiveArgs, context: &Context) -> Result<Finish, Failure> {
    let settings = context.settle(ArchiveSettings::assemble(&context.layers, context.url(), args))?;
    let begun = Instant::now();
    let figures = operation(&settings, context).await?;
    let gaps = figures.gaps;
    context.output.summary(&ArchiveSummary::new(&figures, begun.elapsed().as_secs_f64()), ArchiveSummary::text);
    Ok(if gaps > 0 { Finish::Damaged } else { Finish::Done })
}

async fn operation(settings: &ArchiveSettings, context: &Context) -> Result<Figures, Failure> {
    let paths = open::tools(&settings.tools);
    let found = tokio::task::spawn_blocking(move || Tools::discover_to_follow(&paths));
    let repository = open::repository(&settings.store, context).await?;
    let tools = found.await.map_err(|_| ArchiveError::Abandoned)??;
    let spool = SpoolDirectory::make_for_binlogs(&settings.spool.directory, &settings.store.url)?;
    let (figures, seen) = watch::channel(Figures::default());
    let options = ArchiveOptions {
        every: settings.every,
        segment_bytes: settings.segment_bytes,
        spool: spool.path().to_owned(),
        spool_bytes_max: settings.spool.size.0,
        once: settings.once,
    };
    let work = archive::Context {
        repository,
        clock: context.clock(),
        entropy: context.entropy(),
        progress: context.progress(Unit::Bytes),
        cancel: context.stop.clone(),
        figures: Arc::new(figures),
        tools: Arc::new(tools),
        connection: Arc::new(open::connection(&settings.connection)),
    };
    let archived = tokio::select! {
        archived = archive::archive(&work, &options) => archived,
        never = told(seen, context) => never,
    };
    match archived {
        // Told to stop before anything was received, it has nothing to store.
        Err(ArchiveError::Interrupted) => Ok(work.figures.borrow().clone()),
        archived => Ok(archived?),
    }
}

/// Tells how far it is, for as long as it is polled.
async fn told<T>(seen: watch::Receiver<Figures>, context: &Context) -> T {
    let wanted = context.output.is_json() && !context.global.quiet && !context.global.no_progress;
    loop {
        tokio::time::sleep(STATUS_PAUSE).await;
        if wanted {
            let status = ArchiveStatus::new(&seen.borrow(), context.clock().now());
            context.output.json(&status);
        }
    }
}
