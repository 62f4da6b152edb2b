//! `haulout init`.

use super::{Context, Finish};
use crate::{
    cli::{args::InitArgs, failure::Failure, open, options::StoreSettings, report::InitSummary},
    error::Kind,
    model::LockPolicy,
    repository::Repository,
    store::StoreUrl,
};

/// Creates the repository.
///
/// # Errors
/// When the settings are wrong or it cannot be created.
pub async fn run(args: &InitArgs, context: &Context) -> Result<Finish, Failure> {
    let settings = context.settle(StoreSettings::assemble(&context.layers, context.url(), &args.store))?;
    let summary = operation(&settings, args.lock_policy(), context).await?;
    context.output.summary(&summary, InitSummary::text);
    Ok(Finish::Done)
}

async fn operation(
    settings: &StoreSettings,
    lock: Option<LockPolicy>,
    context: &Context,
) -> Result<InitSummary, Failure> {
    let url: StoreUrl = settings.url.parse()?;
    if lock.is_some() && !url.is_s3() {
        let message = format!("objects at {url} cannot be locked: it is no bucket of S3");
        return Err(Failure::new(Kind::Usage, message).with_hint("name an s3:// URL, or do without --lock"));
    }
    let store = open::store(settings, true, context).await?;
    let (clock, entropy) = (context.clock(), context.entropy());
    let repository = match lock {
        Some(lock) => Repository::init_locked(store, lock, &*clock, &*entropy).await?,
        None => Repository::init(store, &*clock, &*entropy).await?,
    };
    let config = repository.config();
    let (repository_id, created, lock) = (config.repository_id, config.created, config.lock);
    Ok(InitSummary { repository_id, url: settings.url.clone(), created, lock })
}
