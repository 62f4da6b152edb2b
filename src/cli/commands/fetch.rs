//! `haulout fetch`.

use std::path::Path;

use super::{Context, Finish, not_built};
use crate::{
    cli::{
        args::{BackupChoice, FetchArgs},
        failure::Failure,
        options::ReadSettings,
        progress::Unit,
        report::FetchSummary,
    },
    model::Progress,
};

/// Writes a backup's files into a directory.
///
/// # Errors
/// When the settings are wrong or not all could be written.
pub async fn run(args: &FetchArgs, context: &Context) -> Result<Finish, Failure> {
    let read = ReadSettings::assemble(&context.layers, context.url(), &args.store, args.connections);
    let read = context.settle(read)?;
    let progress = context.progress(Unit::Bytes);
    let summary = operation(&read, &args.backup, &args.target, progress.as_ref(), context).await?;
    context.output.summary(&summary, FetchSummary::text);
    Ok(Finish::Done)
}

// Plug in here.
async fn operation(
    _read: &ReadSettings,
    _backup: &BackupChoice,
    _target: &Path,
    _progress: &dyn Progress,
    _context: &Context,
) -> Result<FetchSummary, Failure> {
    Err(not_built("fetch"))
}
