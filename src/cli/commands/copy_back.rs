//! `haulout copy-back`.

use std::sync::Arc;

use super::{Context, Finish};
use crate::{
    cli::{
        args::MoveArgs,
        failure::Failure,
        open,
        options::OwnedMove,
        progress::Unit,
        report::{MoveAction, MoveSummary},
    },
    model::Progress,
    restore,
};

/// Copies a prepared directory into the datadir, and keeps it.
///
/// # Errors
/// When the settings are wrong or it could not be done; then the datadir is as it was.
pub async fn run(args: &MoveArgs, context: &Context) -> Result<Finish, Failure> {
    let settings = context.settle(OwnedMove::assemble(&context.layers, args))?;
    let progress = context.progress(Unit::Bytes);
    let summary = operation(&settings, progress, context).await?;
    context.output.summary(&summary, MoveSummary::text);
    Ok(Finish::Done)
}

async fn operation(
    settings: &OwnedMove,
    progress: Arc<dyn Progress>,
    context: &Context,
) -> Result<MoveSummary, Failure> {
    let owner = open::owner(settings.owner.as_ref())?;
    let watch = open::watch(progress, context);
    let moved = restore::copy_back(&settings.target, &settings.datadir, owner, &watch).await?;
    Ok(MoveSummary {
        action: MoveAction::Copied,
        target: settings.target.clone(),
        datadir: moved.datadir,
        files: moved.files,
        written_bytes: moved.bytes,
        seconds: moved.seconds,
    })
}
