//! `haulout copy`.

use std::{collections::BTreeSet, sync::Arc, time::Instant};

use super::{Context, Finish};
use crate::{
    cli::{
        args::CopyArgs,
        failure::Failure,
        open,
        options::{CopyChoice, CopySettings, StoreSettings},
        output::Output,
        progress::Unit,
        report::{CopiedLine, CopySummary},
    },
    copy::{self, CopyOptions, CopyReport, SWEEP_PAUSE, Wanted},
    error::Kind,
    model::RepositoryId,
    repository::Repository,
    store::Store,
};

/// Copies backups to another store.
///
/// # Errors
/// When the settings are wrong, the copy's place holds something else, another run is at work there, or a store does not answer; what is
/// damaged is no error but [`Finish::Damaged`].
pub async fn run(args: &CopyArgs, context: &Context) -> Result<Finish, Failure> {
    let settings = context.settle(CopySettings::assemble(&context.layers, context.url(), args))?;
    let begun = Instant::now();
    let (report, repository_id) = operation(&settings, context).await?;
    let told = Told { report: &report, repository_id, url: &settings.store.url, to: &settings.place.url };
    Ok(tell(&told, settings.dry_run, begun.elapsed().as_secs_f64(), &context.output))
}

async fn operation(settings: &CopySettings, context: &Context) -> Result<(CopyReport, RepositoryId), Failure> {
    let source = source(&settings.store, context).await?;
    let wanted = match &settings.choice {
        CopyChoice::New(last) => Wanted::New { last: *last },
        CopyChoice::All => Wanted::All,
        CopyChoice::Named(choices) => {
            let mut named = BTreeSet::new();
            for choice in choices {
                named.insert(source.find(&choice.to_string()).await?);
            }
            Wanted::Named(named)
        }
    };
    let options = CopyOptions {
        wanted,
        packs_in_flight: settings.transfers,
        sweep_pause: SWEEP_PAUSE,
        dry_run: settings.dry_run,
        binlogs: settings.binlogs,
    };
    let repository_id = source.config().repository_id;
    let run = copy::Context {
        source,
        target: place(&settings.place, context).await?,
        entropy: context.entropy(),
        progress: context.progress(Unit::Objects),
        cancel: context.stop.clone(),
    };
    Ok((copy::copy(&run, &options).await?, repository_id))
}

/// Opens the repository with the keys that are given; without any, as it is stored.
async fn source(settings: &StoreSettings, context: &Context) -> Result<Arc<Repository>, Failure> {
    let holder = open::keyholder(context)?;
    let store = open::store(settings, false, context).await?;
    let opened = match holder.is_empty() {
        true => Repository::open_as_stored(store).await,
        false => open::unlocked(store, holder, context).await,
    };
    Ok(Arc::new(opened?))
}

/// Opens the store of the copy.
///
/// # Errors
/// Those of [`open::store`]; a directory that is missing is not made.
pub(in crate::cli) async fn place(settings: &StoreSettings, context: &Context) -> Result<Store, Failure> {
    let opened = open::store(settings, false, context).await;
    opened.map_err(|failure| match failure.kind {
        Kind::NoRepository => {
            failure.with_hint("check that the disk is mounted; for the first copy, make the directory")
        }
        _ => failure,
    })
}

/// What is told of a copy.
pub(in crate::cli) struct Told<'a> {
    /// What was done.
    pub report: &'a CopyReport,
    /// The repository.
    pub repository_id: RepositoryId,
    /// Where it is.
    pub url: &'a str,
    /// Where its copy is.
    pub to: &'a str,
}

/// Tells how a copy ended.
pub(in crate::cli) fn tell(told: &Told<'_>, dry_run: bool, seconds: f64, output: &Output) -> Finish {
    let report = told.report;
    let lines: Vec<CopiedLine<'_>> = report.copied.iter().map(CopiedLine::from).collect();
    if output.is_json() {
        lines.iter().for_each(|line| output.json(line));
    } else {
        let text: String = lines.iter().map(CopiedLine::text).collect();
        output.data(text.as_bytes());
    }
    for skip in &report.skipped {
        let hint = skip.hint.as_ref().map_or(String::new(), |hint| format!("; {hint}"));
        output.warn(&format!("{}{hint}", skip.message));
    }
    let summary = CopySummary::of(report, (told.repository_id, told.url, told.to), dry_run, seconds);
    output.summary(&summary, CopySummary::text);
    if report.skipped.is_empty() { Finish::Done } else { Finish::Damaged }
}
