//! `haulout unhide`.

use std::time::Instant;

use super::{Context, Finish};
use crate::{
    cli::{
        args::UnhideArgs,
        failure::Failure,
        open,
        options::StoreSettings,
        progress::Unit,
        report::{Unhidden, UnhideSummary},
    },
    error::Kind,
    model::{Phase, Progress},
    repository::Repository,
    unhide::{self, UnhideOptions},
};

/// Brings back what was hidden or written over.
///
/// # Errors
/// When the settings are wrong, the bucket keeps no versions, or the store refuses.
pub async fn run(args: &UnhideArgs, context: &Context) -> Result<Finish, Failure> {
    let settings = context.settle(StoreSettings::assemble(&context.layers, context.url(), &args.store))?;
    let begun = Instant::now();
    let mut stop = context.stop.clone();
    let report = tokio::select! {
        report = operation(&settings, args, context) => report?,
        _ = stop.wait_for(|stop| *stop) => return Err(Failure::new(Kind::Interrupted, "interrupted")),
    };
    let unhide::Report { objects, hidden, overwritten, brought_back, left, beyond } = report;
    let (dry_run, seconds) = (args.dry_run, begun.elapsed().as_secs_f64());
    let summary = UnhideSummary { dry_run, objects, hidden, overwritten, brought_back, left, beyond, seconds };
    context.output.summary(&summary, UnhideSummary::text);
    Ok(if beyond == 0 { Finish::Done } else { Finish::Damaged })
}

async fn operation(settings: &StoreSettings, args: &UnhideArgs, context: &Context) -> Result<unhide::Report, Failure> {
    let store = open::store(settings, false, context).await?;
    let (repository, config) = Repository::open_hidden(store).await?;
    let progress = context.progress(Unit::Objects);
    let output = &context.output;
    let mut tell = |finding: &unhide::Finding| {
        let line = Unhidden::from(finding);
        if output.is_json() {
            output.json(&line);
        } else {
            output.data(line.text(output.options.stdout).as_bytes());
        }
    };
    let options = UnhideOptions { dry_run: args.dry_run, all: args.all };
    progress.begin(Phase::Check, None);
    let report = unhide::unhide(&repository, config, options, &*progress, &mut tell).await;
    progress.end(Phase::Check);
    Ok(report?)
}
