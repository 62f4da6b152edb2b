//! `haulout check`.

use super::{Context, Finish, not_built};
use crate::{
    cli::{
        args::CheckArgs,
        failure::Failure,
        options::ReadSettings,
        progress::Unit,
        report::{CheckSummary, Damage},
    },
    model::Progress,
};

/// Checks what the backups need.
///
/// # Errors
/// When the settings are wrong or the repository cannot be read; damage is no error but [`Finish::Damaged`].
pub async fn run(args: &CheckArgs, context: &Context) -> Result<Finish, Failure> {
    let read = ReadSettings::assemble(&context.layers, context.url(), &args.store, args.connections);
    let read = context.settle(read)?;
    let progress = context.progress(if args.read_data { Unit::Bytes } else { Unit::Objects });
    let (damages, summary) = operation(&read, args.read_data, progress.as_ref(), context).await?;
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

// Plug in here.
async fn operation(
    _read: &ReadSettings,
    _read_data: bool,
    _progress: &dyn Progress,
    _context: &Context,
) -> Result<(Vec<Damage>, CheckSummary), Failure> {
    Err(not_built("check"))
}
