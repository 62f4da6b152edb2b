//! `haulout compact`.

use std::time::Instant;

use super::{Context, Finish};
use crate::{
    cli::{
        args::CompactArgs,
        failure::Failure,
        open,
        options::CompactSettings,
        output::Output,
        progress::Unit,
        report::{CompactSummary, RestoreCost},
    },
    model::BackupId,
    prune::{self, CompactOptions, CompactReport},
    repository::Repository,
    restore::{FetchOptions, RestorePlan},
};

/// Gathers what backups need out of packs that are mostly dead.
///
/// # Errors
/// When the settings are wrong, another compaction or prune is at work, or the repository cannot be read or written; what is damaged
/// is no error but [`Finish::Damaged`].
pub async fn run(args: &CompactArgs, context: &Context) -> Result<Finish, Failure> {
    let settings = context.settle(CompactSettings::assemble(&context.layers, context.url(), args))?;
    let begun = Instant::now();
    let repository = open::repository(&settings.store, context).await?;
    repository.needs_data_key()?;
    let backup = match &settings.backup {
        Some(choice) => Some(open::choice(&repository, choice).await?),
        None => repository.backup_ids().await?.pop(),
    };
    let fetching = FetchOptions { requests: settings.connections.get() as usize, ..FetchOptions::default() };
    let before = restore_cost(&repository, backup.as_ref(), fetching, context).await;
    let options = CompactOptions {
        live_share: u8::try_from(settings.live_share.get()).unwrap_or(100),
        pieces_max: settings.pieces.get(),
        backup: settings.backup.as_ref().and(backup),
        dry_run: settings.dry_run,
    };
    let run = prune::Context {
        repository: repository.clone(),
        clock: context.clock(),
        entropy: context.entropy(),
        progress: context.progress(Unit::Objects),
        cancel: context.stop.clone(),
    };
    let report = prune::compact(&run, &options).await?;
    let after = match report.after {
        Some(_) => restore_cost(&repository, report.chosen.as_ref(), fetching, context).await,
        None => None,
    };
    Ok(tell(&report, settings.dry_run, (before, after), begun.elapsed().as_secs_f64(), &context.output))
}

/// What a restore of `backup` reads; nothing where its map cannot be read, of which the compaction tells more.
async fn restore_cost(
    repository: &Repository,
    backup: Option<&BackupId>,
    fetching: FetchOptions,
    context: &Context,
) -> Option<RestoreCost> {
    let manifest = repository.manifest(backup?).await.ok()?;
    let cancel = context.stop.clone().into();
    let plan = RestorePlan::read(repository, &manifest, fetching, &cancel).await.ok()?;
    Some(RestoreCost::from(&plan))
}

/// Tells `report`.
pub(in crate::cli) fn tell(
    report: &CompactReport,
    dry_run: bool,
    restore: (Option<RestoreCost>, Option<RestoreCost>),
    seconds: f64,
    output: &Output,
) -> Finish {
    for skip in &report.skipped {
        let hint = skip.hint.as_ref().map_or(String::new(), |hint| format!("; {hint}"));
        output.warn(&format!("{}{hint}", skip.message));
    }
    output.summary(&CompactSummary::of(report, dry_run, restore, seconds), CompactSummary::text);
    if report.skipped.is_empty() { Finish::Done } else { Finish::Damaged }
}
