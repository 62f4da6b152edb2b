//! `haulout restore`.

mod plan;

use std::{path::Path, sync::Arc, time::Instant};

use super::{Context, Finish};
use crate::{
    cli::{
        args::{BackupChoice, RestoreArgs},
        failure::Failure,
        open,
        options::RestoreSettings,
        programs::{self, Programs},
        progress::Unit,
        report::{GaleraReport, ReplayReport, ReplicaReport, RestoreSummary, StepSeconds, announcement},
        start_command,
    },
    error::Kind,
    format::{GtidPosition, Manifest},
    mariadb::{packages::Program, tool::Tools},
    model::{Progress, Silent},
    repository::{ProcessIdentity, Repository, RepositoryError},
    restore::{self, Attached, DrillTimes, ReplayOrder, ReplayPlan, ReplicaPlan, RestoreError, RestoreOptions},
};

/// Brings a backup back, or says what that would take.
///
/// # Errors
/// When the settings are wrong or the backup was not restored; then the datadir is as it was, unless it was to be reused.
pub async fn run(args: &RestoreArgs, context: &Context) -> Result<Finish, Failure> {
    let settings = context.settle(RestoreSettings::assemble(&context.layers, context.url(), args))?;
    let progress = context.progress(Unit::Bytes);
    if settings.dry_run {
        plan::tell(&settings, progress, context).await?;
    } else {
        let (summary, attaching) = operation(&settings, progress, context).await?;
        context.output.summary(&summary, RestoreSummary::text);
        attaching?;
    }
    Ok(Finish::Done)
}

struct Order {
    repository: Arc<Repository>,
    manifest: Manifest,
    tools: Tools,
    options: RestoreOptions,
    replica: Option<ReplicaPlan>,
}

/// What is restored.
struct Aim {
    repository: Arc<Repository>,
    manifest: Manifest,
    /// What is replayed on the backup, where it is to become a later moment.
    replay: Option<ReplayPlan>,
}

/// Opens the repository and chooses the backup: the one that is named, or the newest one that leads to the moment that is wanted.
async fn aim(settings: &RestoreSettings, context: &Context) -> Result<Aim, Failure> {
    let (repository, manifest) = open::to_read(&settings.read, &settings.backup, context).await?;
    let Some(wanted) = &settings.target else { return Ok(Aim { repository, manifest, replay: None }) };
    if let Some(time) = &wanted.time {
        context.output.note(&format!("restoring to the end of second {time}"));
    }
    let backups: Vec<Manifest> = match settings.backup {
        BackupChoice::Latest => repository.manifests().await?.into_iter().filter_map(|(_, read)| read.ok()).collect(),
        _ => vec![manifest],
    };
    let plan = restore::plan_replay(&repository, &backups, &wanted.target).await?;
    let manifest = backups.into_iter().find(|manifest| manifest.id == plan.backup);
    let manifest = manifest.ok_or_else(|| RepositoryError::NoBackup { id: plan.backup.to_string() })?;
    Ok(Aim { repository, manifest, replay: Some(plan) })
}

/// Where the server stands once that was replayed; it is no place in a file of its own.
fn position(replay: &ReplayPlan) -> GtidPosition {
    GtidPosition { file: None, position: None, gtid: Some(replay.gtid.to_string()) }
}

async fn order(settings: &RestoreSettings, context: &Context) -> Result<Order, Failure> {
    let paths = settings.prepare.tools.clone();
    // The programs take their time to tell their versions, and so does a store to answer.
    let look = tokio::task::spawn_blocking(move || Programs::look(&paths));
    let aimed = aim(settings, context).await;
    let programs = look.await.map_err(RestoreError::from)??;
    let Aim { repository, manifest, replay } = aimed?;
    // Before anything is fetched: a replica that could not go on from there is not what was asked for.
    let replica = replica(settings, &manifest, replay.as_ref())?;
    let needs = programs.needs(&manifest)?;
    // The tool comes before the owner: the server's package makes the server's user, too.
    let tools = programs.fitting(&needs)?;
    let options = options(settings, &manifest, open::owner(settings.owner.as_ref())?, replay);
    if let Some((lacking, hint)) = needs.lacks(Program::Server).zip(needs.hint(programs::package_system())) {
        // It may be started on another machine.
        let text = format!("to start the server here: {lacking}; {hint}");
        if lacking.found.is_some() { context.output.warn(&text) } else { context.output.note(&text) }
    }
    let drill = newest_drill(&repository, context).await;
    context.output.note(&announcement(&manifest, drill.as_ref()));
    Ok(Order { repository, manifest, tools, options, replica })
}

/// How the restored server becomes a replica, where that is wanted.
fn replica(
    settings: &RestoreSettings,
    manifest: &Manifest,
    replay: Option<&ReplayPlan>,
) -> Result<Option<ReplicaPlan>, Failure> {
    let mut manifest = manifest.clone();
    if let Some(replay) = replay {
        manifest.position = position(replay);
    }
    let plan = settings.replica.as_ref().map(|replica| ReplicaPlan::new(&manifest, &replica.source)).transpose();
    Ok(plan.map_err(RestoreError::from)?)
}

/// How the backup is restored, to `owner`.
fn options(
    settings: &RestoreSettings,
    manifest: &Manifest,
    owner: Option<restore::Owner>,
    replay: Option<ReplayPlan>,
) -> RestoreOptions {
    let server_options = settings.target.as_ref().map(|target| target.server_options.clone()).unwrap_or_default();
    RestoreOptions {
        replay: replay.map(|plan| ReplayOrder { plan, server_options }),
        owner,
        work_dir: settings.work_dir.clone(),
        reuse: settings.reuse,
        keep_fetched: false,
        fetch: open::fetching(&settings.read),
        prepare: open::preparing(&settings.prepare),
        galera: settings.galera && !was_no_node(manifest),
    }
}

/// Whether the manifest says that the server was no node. InnoDB may still know where one stood that it was before: what came after is not the
/// cluster's.
fn was_no_node(manifest: &Manifest) -> bool {
    manifest.server.galera == Some(false)
}

/// That nothing can be said to a cluster.
fn without_cluster(manifest: &Manifest) -> Failure {
    let message = format!("backup {} knows of no Galera cluster: no grastate.dat is written", manifest.id);
    let hint = "its server was no node; the datadir is restored all the same, and a cluster that it joins sends it everything (SST)";
    Failure::new(Kind::Failed, message).with_hint(hint)
}

/// What the last drill took. A restore does without: what keeps it from being known is told, and no more.
async fn newest_drill(repository: &Repository, context: &Context) -> Option<DrillTimes> {
    let host = ProcessIdentity::current().host;
    let drill = restore::newest_drill(repository, &host).await;
    drill.unwrap_or_else(|error| {
        context.output.warn(&format!("what drills took is not known: {error}"));
        None
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
    let replay = options.replay.as_ref().map(|order| ReplayReport::new(&order.plan, outcome.replayed));
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
    let galera = outcome.galera.map(|state| GaleraReport::new(state, &outcome.datadir));
    if settings.galera && galera.is_none() {
        attaching = Err(without_cluster(&manifest));
    }
    let summary = RestoreSummary {
        backup_id: manifest.id,
        datadir: outcome.datadir,
        lsn: manifest.lsn.last,
        position: options.replay.map_or(manifest.position, |order| position(&order.plan)),
        replay,
        files: outcome.figures.files,
        written_bytes: outcome.figures.bytes_written,
        fetched_bytes: outcome.figures.bytes_fetched,
        reused_bytes: outcome.figures.bytes_reused,
        requests: outcome.figures.requests,
        seconds: restored.as_secs_f64(),
        steps: StepSeconds { fetch: steps.fetch, prepare: steps.prepare, replay: steps.replay, moving: steps.move_in },
        aside: outcome.aside,
        replica: report,
        galera,
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
