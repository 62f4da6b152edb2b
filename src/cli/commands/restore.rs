//! `haulout restore`.

use std::{path::Path, sync::Arc, time::Instant};

use super::{Context, Finish};
use crate::{
    cli::{
        args::RestoreArgs,
        failure::Failure,
        open,
        options::RestoreSettings,
        progress::Unit,
        report::{ReplicaReport, RestorePlan, RestoreSummary, StepSeconds},
        start_command,
    },
    format::Manifest,
    mariadb::tool::Tools,
    model::{Progress, Silent},
    repository::Repository,
    restore::{self, Attached, ReplicaPlan, RestoreError, RestoreOptions},
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
        let (summary, attaching) = operation(&settings, progress, context).await?;
        context.output.summary(&summary, RestoreSummary::text);
        attaching?;
    }
    Ok(Finish::Done)
}

/// What plan and restore both need.
struct Order {
    repository: Arc<Repository>,
    manifest: Manifest,
    tools: Tools,
    options: RestoreOptions,
    replica: Option<ReplicaPlan>,
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
    // Before anything is fetched: a replica that could not go on from there is not what was asked for.
    let replica = settings.replica.as_ref().map(|replica| ReplicaPlan::new(&manifest, &replica.source)).transpose();
    let replica = replica.map_err(RestoreError::from)?;
    Ok(Order { repository, manifest, tools, options, replica })
}

async fn plan(
    settings: &RestoreSettings,
    progress: Arc<dyn Progress>,
    context: &Context,
) -> Result<RestorePlan, Failure> {
    let Order { repository, manifest, tools, options, .. } = order(settings, context).await?;
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
) -> Result<(RestoreSummary, Result<(), Failure>), Failure> {
    let begun = Instant::now();
    let Order { repository, manifest, tools, options, replica } = order(settings, context).await?;
    let watch = open::watch(progress, context);
    let outcome = restore::restore(&repository, &manifest, &settings.datadir, &tools, &options, &watch).await?;
    let (steps, restored) = (outcome.seconds, begun.elapsed());
    let mut attaching = Ok(());
    let mut report = None;
    if let Some(plan) = &replica {
        let mut made = ReplicaReport { script: None, statements: plan.statements(false), attached: None };
        match make_replica(plan, settings, &tools, &outcome.datadir, context, &mut made).await {
            Ok(attached) => made.attached = attached,
            Err(error) => attaching = Err(error),
        }
        report = Some(made);
    }
    let summary = RestoreSummary {
        backup_id: manifest.id,
        datadir: outcome.datadir,
        lsn: manifest.lsn.last,
        position: manifest.position,
        files: outcome.figures.files,
        written_bytes: outcome.figures.bytes_written,
        fetched_bytes: outcome.figures.bytes_fetched,
        requests: outcome.figures.requests,
        seconds: restored.as_secs_f64(),
        steps: StepSeconds { fetch: steps.fetch, prepare: steps.prepare, moving: steps.move_in },
        replica: report,
    };
    Ok((summary, attaching))
}

/// Writes the script, and starts the replica where that was asked for.
async fn make_replica(
    plan: &ReplicaPlan,
    settings: &RestoreSettings,
    tools: &Tools,
    datadir: &Path,
    context: &Context,
    report: &mut ReplicaReport,
) -> Result<Option<Attached>, Failure> {
    let owner = open::owner(settings.owner.as_ref())?;
    report.script = Some(plan.write(datadir, owner)?);
    let Some((command, connection)) = settings.replica.as_ref().and_then(|replica| replica.start.as_ref()) else {
        return Ok(None);
    };
    start_command::run(command).await.map_err(RestoreError::from)?;
    let connection = open::connection(connection);
    let cancel = open::watch(Arc::new(Silent), context).cancel;
    let attached = tokio::task::block_in_place(|| plan.attach(tools, &connection, datadir, &cancel))?;
    Ok(Some(attached))
}
