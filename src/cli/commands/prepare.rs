//! `haulout prepare`.

use std::sync::Arc;

use super::{Context, Finish};
use crate::{
    cli::{
        args::PrepareDirectoryArgs, failure::Failure, open, options::PrepareSettings, progress::Unit,
        report::PrepareSummary,
    },
    model::Progress,
    restore,
};

/// Makes a fetched directory consistent.
///
/// # Errors
/// When the settings are wrong or `mariadb-backup --prepare` fails.
pub async fn run(args: &PrepareDirectoryArgs, context: &Context) -> Result<Finish, Failure> {
    let settings = context.settle(PrepareSettings::assemble(&context.layers, &args.prepare))?;
    let progress = context.progress(Unit::Bytes);
    let summary = operation(&settings, args, progress, context).await?;
    context.output.summary(&summary, PrepareSummary::text);
    Ok(Finish::Done)
}

async fn operation(
    settings: &PrepareSettings,
    args: &PrepareDirectoryArgs,
    progress: Arc<dyn Progress>,
    context: &Context,
) -> Result<PrepareSummary, Failure> {
    let tools = open::discover(&settings.tools)?;
    let watch = open::watch(progress, context);
    let how = restore::PrepareSettings { export: args.export, ..open::preparing(settings) };
    let prepared = restore::prepare(&args.target, &tools, &how, &watch).await?;
    Ok(PrepareSummary { target: prepared.target, exported: args.export, lsn: prepared.lsn, seconds: prepared.seconds })
}
