//! `haulout fetch`.

use std::sync::Arc;

use super::{Context, Finish};
use crate::{
    cli::{args::FetchArgs, failure::Failure, open, options::ReadSettings, progress::Unit, report::FetchSummary},
    model::Progress,
    restore,
};

/// Writes a backup's files into a directory.
///
/// # Errors
/// When the settings are wrong or not all could be written.
pub async fn run(args: &FetchArgs, context: &Context) -> Result<Finish, Failure> {
    let read = ReadSettings::assemble(&context.layers, context.url(), &args.store, args.connections);
    let read = read.and_then(|read| read.thawing(&args.thaw, false));
    let read = context.settle(read)?;
    let progress = context.progress(Unit::Bytes);
    let summary = operation(&read, args, progress, context).await?;
    context.output.summary(&summary, FetchSummary::text);
    Ok(Finish::Done)
}

async fn operation(
    read: &ReadSettings,
    args: &FetchArgs,
    progress: Arc<dyn Progress>,
    context: &Context,
) -> Result<FetchSummary, Failure> {
    let (repository, manifest) = open::to_read(read, &args.backup, context).await?;
    let watch = open::watch(progress, context);
    let choose = async || restore::choose_tables(&repository, &manifest, &args.tables, &watch.cancel).await;
    let tables = restore::thawed(&repository, &manifest, read.thaw, &watch, choose).await?;
    let (target, options) = (&args.target, open::fetching(read));
    let fetched = restore::fetch_tables(&repository, &manifest, &tables, target, options, &watch).await?;
    Ok(FetchSummary {
        backup_id: fetched.backup,
        target: fetched.target,
        tables: tables.count(),
        lsn: manifest.lsn.last,
        files: fetched.figures.files,
        written_bytes: fetched.figures.bytes_written,
        fetched_bytes: fetched.figures.bytes_fetched,
        requests: fetched.figures.requests,
        seconds: fetched.seconds,
    })
}
