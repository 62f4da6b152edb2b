//! `haulout init`.

use super::{Context, Finish};
use crate::{
    cli::{
        args::InitArgs, failure::Failure, open, options::StoreSettings, report::InitSummary, settings::SettingsError,
    },
    error::Kind,
    format::{NewSlot, Wraps},
    repository::Repository,
    store::StoreUrl,
};

/// Creates the repository.
///
/// # Errors
/// When the settings are wrong or it cannot be created.
pub async fn run(args: &InitArgs, context: &Context) -> Result<Finish, Failure> {
    let settings = context.settle(StoreSettings::assemble(&context.layers, context.url(), &args.store))?;
    let summary = operation(args, &settings, context).await?;
    context.output.summary(&summary, InitSummary::text);
    Ok(Finish::Done)
}

async fn operation(args: &InitArgs, settings: &StoreSettings, context: &Context) -> Result<InitSummary, Failure> {
    let lock = args.lock_policy();
    let url: StoreUrl = settings.url.parse()?;
    if lock.is_some() && !url.is_s3() {
        let message = format!("objects at {url} cannot be locked: it is no bucket of S3");
        return Err(Failure::new(Kind::Usage, message).with_hint("name an s3:// URL, or do without --lock"));
    }
    let holder = open::keyholder(context)?;
    let (clock, entropy) = (context.clock(), context.entropy());
    if !args.encrypt && !holder.is_empty() {
        return Err(SettingsError::Keys {
            problem: "a key is given, but not --encrypt",
            hint: "add --encrypt to seal the repository, or leave the key out",
        }
        .into());
    }
    let repository = if args.encrypt {
        let credential = holder.first(args.new_key_command.as_deref(), &*entropy).await?;
        let slot = NewSlot { credential, wraps: Wraps::All, label: args.label.clone().unwrap_or_default() };
        let store = open::store(settings, true, context).await?;
        Repository::init_sealed(store, lock, &*clock, entropy, &slot).await?
    } else {
        let store = open::store(settings, true, context).await?;
        match lock {
            Some(lock) => Repository::init_locked(store, lock, &*clock, &*entropy).await?,
            None => Repository::init(store, &*clock, &*entropy).await?,
        }
    };
    let (config, key_id) = (repository.config(), repository.slot());
    let (repository_id, created, lock) = (config.repository_id, config.created, config.lock);
    Ok(InitSummary { repository_id, url: settings.url.clone(), created, key_id, lock })
}
