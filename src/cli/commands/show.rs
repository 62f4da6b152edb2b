//! `haulout show`.

use super::{Context, Finish, tables};
use crate::{
    cli::{
        args::ShowArgs,
        failure::Failure,
        open,
        options::StoreSettings,
        report::{BackupLine, details},
    },
    format::{Manifest, Proof},
    restore::Catalogue,
};

/// Shows everything about one backup.
///
/// # Errors
/// When the settings are wrong, there is no such backup, or its manifest is damaged.
pub async fn run(args: &ShowArgs, context: &Context) -> Result<Finish, Failure> {
    let settings = context.settle(StoreSettings::assemble(&context.layers, context.url(), &args.store))?;
    let repository = open::repository(&settings, context).await?;
    let manifest = repository.manifest(&open::choice(&repository, &args.backup).await?).await?;
    if args.tables {
        let catalogue = Catalogue::read(&repository, &manifest, &context.stop.clone().into()).await?;
        tables::tell(&manifest.id, &catalogue, args.wide, &context.output);
    } else {
        let mut proofs = open::proofs(&repository, std::slice::from_ref(&manifest.id), context).await?;
        tell(&manifest, &proofs.remove(&manifest.id).unwrap_or_default(), context);
    }
    Ok(Finish::Done)
}

fn tell(manifest: &Manifest, proofs: &[Proof], context: &Context) {
    let output = &context.output;
    if output.is_json() {
        output.json(&BackupLine::of(manifest, None).proven(proofs));
    } else {
        output.data(details(manifest, proofs, output.options.stdout).as_bytes());
    }
}
