//! `haulout check`.

use std::{sync::Arc, time::Instant};

use super::{Context, Finish};
use crate::{
    cli::{
        args::CheckArgs,
        failure::Failure,
        open,
        options::ReadSettings,
        progress::Unit,
        report::{CheckSummary, Damage},
    },
    error::Kind,
    model::Progress,
    verify::{self, ReadData, Selection},
};

/// Checks what the backups need.
///
/// # Errors
/// When the settings are wrong or the repository cannot be read; damage is no error but [`Finish::Damaged`].
pub async fn run(args: &CheckArgs, context: &Context) -> Result<Finish, Failure> {
    let read = ReadSettings::assemble(&context.layers, context.url(), &args.store, args.connections);
    let read = context.settle(read)?;
    let progress = context.progress(if args.read_data.is_some() { Unit::Bytes } else { Unit::Objects });
    let (damages, summary) = operation(&read, args.read_data, progress, context).await?;
    Ok(tell(&damages, &summary, context))
}

fn tell(damages: &[Damage], summary: &CheckSummary, context: &Context) -> Finish {
    let output = &context.output;
    for damage in damages {
        if output.is_json() {
            output.json(damage);
        } else {
            output.data(damage.text(output.options.stdout).as_bytes());
        }
    }
    output.summary(summary, CheckSummary::text);
    if summary.damaged_objects == 0 && summary.damaged_backups == 0 { Finish::Done } else { Finish::Damaged }
}

async fn operation(
    read: &ReadSettings,
    percent: Option<u8>,
    progress: Arc<dyn Progress>,
    context: &Context,
) -> Result<(Vec<Damage>, CheckSummary), Failure> {
    let begun = Instant::now();
    let repository = open::repository(&read.store, context).await?;
    let mut seed = [0; 8];
    context.entropy().fill(&mut seed);
    let read_data = percent.map(|percent| ReadData { percent, seed: u64::from_le_bytes(seed) });
    // The store's own requests know nothing of a signal; what was checked so far is of no use then.
    let mut stop = context.stop.clone();
    let report = tokio::select! {
        report = verify::check(&repository, &Selection::All, read_data, &*progress) => report?,
        _ = stop.wait_for(|stop| *stop) => return Err(Failure::new(Kind::Interrupted, "interrupted")),
    };
    let damages: Vec<Damage> = report
        .damages
        .into_iter()
        .map(|verify::Damage { object, problem, backups, files }| Damage { object, problem, backups, files })
        .collect();
    let unreferenced = report.unreferenced.unwrap_or_default();
    let summary = CheckSummary {
        backups: report.backups.len() as u64,
        objects: report.packs.objects,
        bytes: report.packs.bytes,
        read_percent: percent.unwrap_or(0),
        pages_checked: report.pages,
        damaged_objects: damages.len() as u64,
        damaged_backups: report.damaged_backups.len() as u64,
        unreferenced_objects: unreferenced.objects,
        unreferenced_bytes: unreferenced.bytes,
        seconds: begun.elapsed().as_secs_f64(),
    };
    Ok((damages, summary))
}
