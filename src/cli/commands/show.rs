//! `haulout show`.

use super::{Context, Finish};
use crate::{
    cli::{
        args::{BackupChoice, ShowArgs},
        failure::Failure,
        open,
        options::StoreSettings,
        report::{BackupLine, details},
    },
    format::Manifest,
};

/// Shows everything about one backup.
///
/// # Errors
/// When the settings are wrong, there is no such backup, or its manifest is damaged.
pub async fn run(args: &ShowArgs, context: &Context) -> Result<Finish, Failure> {
    let settings = context.settle(StoreSettings::assemble(&context.layers, context.url(), &args.store))?;
    let manifest = operation(&settings, &args.backup, context).await?;
    tell(&manifest, context);
    Ok(Finish::Done)
}

fn tell(manifest: &Manifest, context: &Context) {
    let output = &context.output;
    if output.is_json() {
        output.json(&BackupLine::of(manifest, None));
    } else {
        output.data(details(manifest, output.options.stdout).as_bytes());
    }
}

async fn operation(settings: &StoreSettings, backup: &BackupChoice, context: &Context) -> Result<Manifest, Failure> {
    let repository = open::repository(settings, context).await?;
    let id = open::choice(&repository, backup).await?;
    Ok(repository.manifest(&id).await?)
}
