//! `haulout drill`.

use std::time::Instant;

use super::{Context, Finish};
use crate::{
    cli::{
        args::DrillArgs,
        failure::Failure,
        open,
        options::DrillSettings,
        progress::Unit,
        report::{DrillPlanSummary, DrillSummary},
    },
    drill::{self, DrillOptions},
    error::Diagnose,
    format::ProofSample,
};

/// Proves a restore on a scratch server.
///
/// # Errors
/// When the settings are wrong or there is no verdict; a drill that failed is no error but [`Finish::Damaged`].
pub async fn run(args: &DrillArgs, context: &Context) -> Result<Finish, Failure> {
    let begun = Instant::now();
    let settings = context.settle(DrillSettings::assemble(&context.layers, context.url(), args))?;
    let options = DrillOptions {
        scratch: settings.scratch.clone(),
        sample: sample(&settings, context),
        assertions: settings.assertions.clone(),
        server_options: settings.server_options.clone(),
        fetch: open::fetching(&settings.read),
        prepare: open::preparing(&settings.prepare),
    };
    let tools = open::discover(&settings.prepare.tools)?;
    let (repository, manifest) = open::to_read(&settings.read, &settings.backup, context).await?;
    let (clock, entropy) = (context.clock(), context.entropy());
    let watch = open::watch(context.progress(Unit::Objects), context);
    let work = drill::Context {
        repository: &repository,
        manifest: &manifest,
        tools: &tools,
        clock: &*clock,
        entropy: &*entropy,
        watch: &watch,
    };
    if settings.dry_run {
        let plan = drill::plan_drill(work, &options).await?;
        let summary = DrillPlanSummary::of(&plan, manifest.id.clone(), settings.scratch);
        context.output.summary(&summary, DrillPlanSummary::text);
        return Ok(Finish::Done);
    }
    if let Some(ProofSample { seed, seconds }) = options.sample {
        context.output.note(&format!("tables are checked for {seconds} s, drawn by --seed {seed}"));
    }
    let outcome = drill::drill(work, &options).await?;
    let output = &context.output;
    for warning in &outcome.proof.warnings {
        output.warn(warning);
    }
    let recorded = match outcome.recorded {
        Ok(key) => Some(key.text()),
        Err(error) => {
            let failure = Failure::from(error);
            let mut why = vec![failure.message];
            why.extend(failure.causes);
            let why = why.join(": ");
            output.warn(&format!("the proof is not recorded, so `list` and `prune` do not know of it: {why}"));
            None
        }
    };
    if let Some(error) = outcome.left_behind {
        let hint = error.hint().map_or(String::new(), |hint| format!("; {hint}"));
        output.warn(&format!("something stays in the scratch directory, and the next drill removes it: {error}{hint}"));
    }
    let summary = DrillSummary::of(&outcome.proof, recorded, begun.elapsed().as_secs_f64());
    output.summary(&summary, DrillSummary::text);
    Ok(if outcome.proof.passed { Finish::Done } else { Finish::Damaged })
}

fn sample(settings: &DrillSettings, context: &Context) -> Option<ProofSample> {
    let seconds = settings.check_seconds?;
    let drawn = || {
        let mut random = [0; 4];
        context.entropy().fill(&mut random);
        u32::from_le_bytes(random)
    };
    Some(ProofSample { seed: settings.seed.unwrap_or_else(drawn), seconds })
}
