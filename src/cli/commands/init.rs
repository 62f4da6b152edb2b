//! `haulout init`.

use super::{Context, Finish, not_built};
use crate::cli::{args::InitArgs, failure::Failure, options::StoreSettings, report::InitSummary};

/// Creates the repository.
///
/// # Errors
/// When the settings are wrong or it cannot be created.
pub async fn run(args: &InitArgs, context: &Context) -> Result<Finish, Failure> {
    let settings = context.settle(StoreSettings::assemble(&context.layers, context.url(), &args.store))?;
    let summary = operation(&settings, context).await?;
    context.output.summary(&summary, InitSummary::text);
    Ok(Finish::Done)
}

// Plug in here: the store with `create_directory`, and the repository's own `init`.
async fn operation(_settings: &StoreSettings, _context: &Context) -> Result<InitSummary, Failure> {
    Err(not_built("init"))
}
