//! `haulout backup`.

use super::{Context, Finish, not_built};
use crate::{
    cli::{args::BackupArgs, failure::Failure, options::BackupSettings, progress::Unit, report::BackupSummary},
    format::Manifest,
    model::Progress,
};

/// Takes a backup.
///
/// # Errors
/// When the settings are wrong or no backup was taken; then there is no manifest either.
pub async fn run(args: &BackupArgs, context: &Context) -> Result<Finish, Failure> {
    let settings = context.settle(BackupSettings::assemble(&context.layers, context.url(), args))?;
    let progress = context.progress(Unit::Bytes);
    let manifest = operation(&settings, progress.as_ref(), context).await?;
    context.output.summary(&BackupSummary::from(&manifest), BackupSummary::text);
    Ok(Finish::Done)
}

// Plug in here: it tells warnings through `progress` as they come, and returns the manifest that it stored.
async fn operation(
    _settings: &BackupSettings,
    _progress: &dyn Progress,
    _context: &Context,
) -> Result<Manifest, Failure> {
    Err(not_built("backup"))
}
