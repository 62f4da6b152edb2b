//! `haulout undelete`.

use super::{Context, Finish};
use crate::{
    cli::{args::UndeleteArgs, failure::Failure, open, options::StoreSettings, report::UndeleteSummary},
    prune,
};

/// Has backups stay that a plan lets go of.
///
/// # Errors
/// When the settings are wrong, a backup is gone or in no plan, or the repository cannot be written.
pub async fn run(args: &UndeleteArgs, context: &Context) -> Result<Finish, Failure> {
    let settings = context.settle(StoreSettings::assemble(&context.layers, context.url(), &args.store))?;
    let repository = open::repository(&settings, context).await?;
    let mut ids = Vec::new();
    for choice in &args.backups {
        ids.push(open::choice(&repository, choice).await?);
    }
    prune::undelete(&repository, &ids, &*context.entropy()).await?;
    context.output.summary(&UndeleteSummary { backups: ids }, UndeleteSummary::text);
    Ok(Finish::Done)
}
