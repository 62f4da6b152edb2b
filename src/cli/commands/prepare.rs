//! `haulout prepare`.

use std::path::Path;

use super::{Context, Finish, not_built};
use crate::{
    cli::{
        args::PrepareDirectoryArgs, failure::Failure, options::PrepareSettings, progress::Unit, report::PrepareSummary,
    },
    model::Progress,
};

/// Makes a fetched directory consistent.
///
/// # Errors
/// When the settings are wrong or `mariadb-backup --prepare` fails.
pub async fn run(args: &PrepareDirectoryArgs, context: &Context) -> Result<Finish, Failure> {
    let settings = context.settle(PrepareSettings::assemble(&context.layers, &args.prepare))?;
    let progress = context.progress(Unit::Bytes);
    let summary = operation(&settings, &args.target, progress.as_ref(), context).await?;
    context.output.summary(&summary, PrepareSummary::text);
    Ok(Finish::Done)
}

// Plug in here.
async fn operation(
    _settings: &PrepareSettings,
    _target: &Path,
    _progress: &dyn Progress,
    _context: &Context,
) -> Result<PrepareSummary, Failure> {
    Err(not_built("prepare"))
}
