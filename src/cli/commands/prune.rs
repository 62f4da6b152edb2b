//! `haulout prune`.

use std::{collections::BTreeSet, time::Instant};

use super::{
    Context, Finish,
    table::{Column, Table},
};
use crate::{
    cli::{
        args::PruneArgs,
        failure::Failure,
        open,
        options::PruneSettings,
        output::Output,
        paint::Paint,
        progress::Unit,
        report::{PruneLine, PruneSummary},
    },
    prune::{self, PruneOptions, PruneReport},
};

/// Lets go of backups.
///
/// # Errors
/// When the settings are wrong, another prune is at work or the repository cannot be read; what could not be done is no error
/// but [`Finish::Damaged`].
pub async fn run(args: &PruneArgs, context: &Context) -> Result<Finish, Failure> {
    let settings = context.settle(PruneSettings::assemble(&context.layers, context.url(), args))?;
    let begun = Instant::now();
    let report = operation(&settings, context).await?;
    Ok(tell(&report, settings.dry_run, begun.elapsed().as_secs_f64(), &context.output))
}

async fn operation(settings: &PruneSettings, context: &Context) -> Result<PruneReport, Failure> {
    let repository = open::repository(&settings.store, context).await?;
    let mut named = BTreeSet::new();
    for choice in &settings.let_go {
        named.insert(open::choice(&repository, choice).await?);
    }
    let options = PruneOptions {
        policy: settings.policy.clone(),
        named,
        grace_seconds: settings.grace_seconds,
        dry_run: settings.dry_run,
    };
    let context = prune::Context {
        repository,
        clock: context.clock(),
        entropy: context.entropy(),
        progress: context.progress(Unit::Objects),
        cancel: context.stop.clone(),
    };
    Ok(prune::prune(&context, &options).await?)
}

/// Tells `report`.
pub(in crate::cli) fn tell(report: &PruneReport, dry_run: bool, seconds: f64, output: &Output) -> Finish {
    let lines: Vec<PruneLine<'_>> = report.backups.iter().map(|backup| PruneLine::of(backup, report)).collect();
    if output.is_json() {
        lines.iter().for_each(|line| output.json(line));
    } else if !lines.is_empty() {
        output.data(table(&lines, output.options.columns, output.options.stdout).as_bytes());
    }
    for skip in &report.skipped {
        let hint = skip.hint.as_ref().map_or(String::new(), |hint| format!("; {hint}"));
        output.warn(&format!("{}{hint}", skip.message));
    }
    output.summary(&PruneSummary::of(report, dry_run, seconds), PruneSummary::text);
    if report.skipped.is_empty() { Finish::Done } else { Finish::Damaged }
}

const COLUMNS: [Column; 5] = [
    Column { title: "BACKUP", right: false, drop: 0 },
    Column { title: "KIND", right: false, drop: 1 },
    Column { title: "STARTED (UTC)", right: false, drop: 2 },
    Column { title: "", right: false, drop: 0 },
    Column { title: "WHY", right: false, drop: 0 },
];

fn table(lines: &[PruneLine<'_>], width: Option<usize>, paint: Paint) -> String {
    let table = Table { columns: COLUMNS.to_vec(), rows: lines.iter().map(PruneLine::cells).collect() };
    let (text, _) = table.text(width, paint, |row, column, cell| match column {
        3 if lines[row].stays() => paint.green(cell),
        3 => paint.yellow(cell),
        _ => cell.to_owned(),
    });
    format!("{text}\n")
}
