//! `haulout restore-table`.

use std::{sync::Arc, time::Instant};

use super::{Context, Finish};
use crate::{
    cli::{
        args::RestoreTableArgs,
        failure::Failure,
        open,
        options::RestoreTableSettings,
        progress::Unit,
        report::{RestoreTablePlan, RestoreTableSummary, TableStepSeconds},
    },
    format::Manifest,
    mariadb::{connection::Connection, tool::Tools},
    model::Progress,
    repository::Repository,
    restore::{self, TableOptions, TableTarget},
};

/// Brings one table back into a running server, or says what that would take.
///
/// # Errors
/// When the settings are wrong or the table was not restored; then the server's tables are as they were.
pub async fn run(args: &RestoreTableArgs, context: &Context) -> Result<Finish, Failure> {
    let settings = RestoreTableSettings::assemble(&context.layers, context.url(), args);
    let settings = context.settle(settings)?;
    let progress = context.progress(Unit::Bytes);
    let order = order(args, &settings, context).await?;
    if args.dry_run {
        let plan = plan(&order, progress, context).await?;
        context.output.summary(&plan, RestoreTablePlan::text);
    } else {
        let summary = operation(&order, progress, context).await?;
        context.output.summary(&summary, RestoreTableSummary::text);
    }
    Ok(Finish::Done)
}

/// What plan and restore both need.
struct Order {
    repository: Arc<Repository>,
    manifest: Manifest,
    tools: Tools,
    connection: Connection,
    options: TableOptions,
}

async fn order(args: &RestoreTableArgs, settings: &RestoreTableSettings, context: &Context) -> Result<Order, Failure> {
    let mut random = [0; 6];
    context.entropy().fill(&mut random);
    let table = args.table.0.clone();
    let options = TableOptions {
        target: args.target.as_ref().map_or_else(|| table.clone(), |target| target.0.clone()),
        table,
        replace: args.replace,
        work_dir: args.work_dir.clone(),
        suffix: hex::encode(random),
        fetch: open::fetching(&settings.read),
        prepare: open::preparing(&settings.prepare),
    };
    let tools = open::discover(&settings.prepare.tools)?;
    let (repository, manifest) = open::to_read(&settings.read, &args.backup, context).await?;
    Ok(Order { repository, manifest, tools, connection: open::connection(&settings.connection), options })
}

async fn plan(order: &Order, progress: Arc<dyn Progress>, context: &Context) -> Result<RestoreTablePlan, Failure> {
    let Order { repository, manifest, tools, connection, options } = order;
    let watch = open::watch(progress, context);
    let target = TableTarget { tools, connection };
    let plan = restore::plan_table(repository, manifest, target, options, &watch).await?;
    Ok(RestoreTablePlan {
        dry_run: true,
        backup_id: manifest.id.clone(),
        table: options.table.to_string(),
        target: options.target.to_string(),
        replaces: plan.replaces,
        datadir: plan.datadir,
        work_dir: plan.work_dir,
        table_bytes: plan.table_bytes,
        written_bytes: plan.written_bytes,
        fetched_bytes: plan.fetched_bytes,
        requests: plan.requests,
        free_bytes: plan.free_bytes,
    })
}

async fn operation(
    order: &Order,
    progress: Arc<dyn Progress>,
    context: &Context,
) -> Result<RestoreTableSummary, Failure> {
    let begun = Instant::now();
    let Order { repository, manifest, tools, connection, options } = order;
    let watch = open::watch(progress, context);
    let target = TableTarget { tools, connection };
    let outcome = restore::restore_table(repository, manifest, target, options, &watch).await?;
    let [fetch, prepare, import] = outcome.seconds;
    if !outcome.triggers.is_empty() {
        let names = outcome.triggers.join(", ");
        context.output.warn(&format!("triggers are not restored; in the backup the table has {names}"));
    }
    Ok(RestoreTableSummary {
        backup_id: outcome.backup,
        table: options.table.to_string(),
        target: options.target.to_string(),
        replaced: outcome.replaced,
        datadir: outcome.datadir,
        table_bytes: outcome.table_bytes,
        fetched_bytes: outcome.fetched_bytes,
        requests: outcome.requests,
        triggers: outcome.triggers,
        seconds: begun.elapsed().as_secs_f64(),
        steps: TableStepSeconds { fetch, prepare, import },
    })
}
