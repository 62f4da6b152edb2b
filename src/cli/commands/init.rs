//! `haulout init`.

use super::{Context, Finish};
use crate::{
    cli::{args::InitArgs, failure::Failure, open, options::StoreSettings, report::InitSummary},
    repository::Repository,
};

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

async fn operation(settings: &StoreSettings, context: &Context) -> Result<InitSummary, Failure> {
    let store = open::store(settings, true, context).await?;
    let repository = Repository::init(store, &*context.clock(), &*context.entropy()).await?;
    let config = repository.config();
    Ok(InitSummary { repository_id: config.repository_id, url: settings.url.clone(), created: config.created })
}
