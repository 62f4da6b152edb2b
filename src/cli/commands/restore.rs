//! `haulout restore`.

use super::{Context, Finish, not_built};
use crate::{
    cli::{
        args::RestoreArgs,
        failure::Failure,
        options::RestoreSettings,
        progress::Unit,
        report::{RestorePlan, RestoreSummary},
    },
    model::Progress,
};

/// Brings a backup back, or says what that would take.
///
/// # Errors
/// When the settings are wrong or the backup was not restored; then the datadir is as it was.
pub async fn run(args: &RestoreArgs, context: &Context) -> Result<Finish, Failure> {
    let settings = context.settle(RestoreSettings::assemble(&context.layers, context.url(), args))?;
    let progress = context.progress(Unit::Bytes);
    if settings.dry_run {
        let plan = plan(&settings, context).await?;
        context.output.summary(&plan, RestorePlan::text);
    } else {
        let summary = operation(&settings, progress.as_ref(), context).await?;
        context.output.summary(&summary, RestoreSummary::text);
    }
    Ok(Finish::Done)
}

// Plug in here.
async fn plan(_settings: &RestoreSettings, _context: &Context) -> Result<RestorePlan, Failure> {
    Err(not_built("restore --dry-run"))
}

// Plug in here.
async fn operation(
    _settings: &RestoreSettings,
    _progress: &dyn Progress,
    _context: &Context,
) -> Result<RestoreSummary, Failure> {
    Err(not_built("restore"))
}
