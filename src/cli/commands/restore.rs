//! `haulout restore`.

use std::{sync::Arc, time::Instant};

use super::{Context, Finish};
use crate::{
    cli::{
        args::RestoreArgs,
        failure::Failure,
        open,
        options::RestoreSettings,
        progress::Unit,
        report::{RestorePlan, RestoreSummary, StepSeconds},
    },
    format::Manifest,
    mariadb::tool::Tools,
    model::Progress,
    repository::Repository,
    restore::{self, RestoreOptions},
};

/// Brings a backup back, or says what that would take.
///
/// # Errors
/// When the settings are wrong or the backup was not restored; then the datadir is as it was.
pub async fn run(args: &RestoreArgs, context: &Context) -> Result<Finish, Failure> {
    let settings = context.settle(RestoreSettings::assemble(&context.layers, context.url(), args))?;
    let progress = context.progress(Unit::Bytes);
    if settings.dry_run {
        let plan = plan(&settings, progress, context).await?;
        context.output.summary(&plan, RestorePlan::text);
    } else {
        let summary = operation(&settings, progress, context).await?;
        context.output.summary(&summary, RestoreSummary::text);
    }
    Ok(Finish::Done)
}

/// What plan and restore both need.
struct Order {
    repository: Arc<Repository>,
    manifest: Manifest,
    tools: Tools,
    options: RestoreOptions,
}

async fn order(settings: &RestoreSettings, context: &Context) -> Result<Order, Failure> {
    let options = RestoreOptions {
        owner: open::owner(settings.owner.as_ref())?,
        work_dir: settings.work_dir.clone(),
        keep_fetched: false,
        fetch: open::fetching(&settings.read),
        prepare: open::preparing(&settings.prepare),
    };
    let tools = open::discover(&settings.prepare.tools)?;
    let repository = open::repository(&settings.read.store, context).await?;
    let manifest = open::chosen(&repository, &settings.backup, context).await?;
    Ok(Order { repository, manifest, tools, options })
}

async fn plan(
    settings: &RestoreSettings,
    progress: Arc<dyn Progress>,
    context: &Context,
) -> Result<RestorePlan, Failure> {
    let Order { repository, manifest, tools, options } = order(settings, context).await?;
    let watch = open::watch(progress, context);
    let placed = restore::plan_restore(&repository, &manifest, &settings.datadir, &tools, &options, &watch).await?;
    Ok(RestorePlan {
        dry_run: true,
        backup_id: manifest.id,
        datadir: placed.datadir,
        work_dir: placed.work_dir,
        lsn: manifest.lsn.last,
        files: placed.plan.files.len() as u64,
        written_bytes: placed.plan.written_bytes,
        fetched_bytes: placed.plan.fetched_bytes,
        requests: placed.plan.requests,
        free_bytes: placed.free_bytes,
    })
}

async fn operation(
    settings: &RestoreSettings,
    progress: Arc<dyn Progress>,
    context: &Context,
) -> Result<RestoreSummary, Failure> {
    let begun = Instant::now();
    let Order { repository, manifest, tools, options } = order(settings, context).await?;
    let watch = open::watch(progress, context);
    let outcome = restore::restore(&repository, &manifest, &settings.datadir, &tools, &options, &watch).await?;
    let steps = outcome.seconds;
    Ok(RestoreSummary {
        backup_id: manifest.id,
        datadir: outcome.datadir,
        lsn: manifest.lsn.last,
        position: manifest.position,
        files: outcome.figures.files,
        written_bytes: outcome.figures.bytes_written,
        fetched_bytes: outcome.figures.bytes_fetched,
        requests: outcome.figures.requests,
        seconds: begun.elapsed().as_secs_f64(),
        steps: StepSeconds { fetch: steps.fetch, prepare: steps.prepare, moving: steps.move_in },
    })
}
