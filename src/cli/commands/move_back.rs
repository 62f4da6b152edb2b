//! `haulout move-back`.

use super::{Context, Finish, not_built};
use crate::{
    cli::{args::MoveArgs, failure::Failure, options::OwnedMove, progress::Unit, report::MoveSummary},
    model::Progress,
};

/// Moves a prepared directory into the datadir.
///
/// # Errors
/// When the settings are wrong or it could not be done; then the datadir is as it was.
pub async fn run(args: &MoveArgs, context: &Context) -> Result<Finish, Failure> {
    let settings = context.settle(OwnedMove::assemble(&context.layers, args))?;
    let progress = context.progress(Unit::Bytes);
    let summary = operation(&settings, progress.as_ref(), context).await?;
    context.output.summary(&summary, MoveSummary::text);
    Ok(Finish::Done)
}

// Plug in here.
async fn operation(
    _settings: &OwnedMove,
    _progress: &dyn Progress,
    _context: &Context,
) -> Result<MoveSummary, Failure> {
    Err(not_built("move-back"))
}
