//! `haulout doctor`.

use super::{Context, Finish, not_built};
use crate::cli::{
    args::DoctorArgs,
    failure::Failure,
    options::{ConnectionSettings, StoreSettings, ToolSettings},
    report::{DoctorSummary, Finding, Level},
};

/// What the doctor looks at.
#[derive(Debug, Clone)]
pub struct Patient {
    /// The repository.
    pub store: StoreSettings,
    /// The server.
    pub connection: ConnectionSettings,
    /// MariaDB's tools.
    pub tools: ToolSettings,
}

/// Looks for what would stop a backup or a restore.
///
/// # Errors
/// When the settings are wrong; whatever else is wrong is a finding, and [`Finish::Damaged`].
pub async fn run(args: &DoctorArgs, context: &Context) -> Result<Finish, Failure> {
    let patient = Patient {
        store: context.settle(StoreSettings::assemble(&context.layers, context.url(), &args.store))?,
        connection: context.settle(ConnectionSettings::assemble(&context.layers, &args.connection))?,
        tools: context.settle(ToolSettings::assemble(&context.layers, &args.tools))?,
    };
    let tell = |finding: &Finding| tell(finding, context);
    let findings = operation(&patient, &tell, context).await?;
    let summary = DoctorSummary::of(&findings);
    context.output.summary(&summary, DoctorSummary::text);
    Ok(if summary.problems == 0 { Finish::Done } else { Finish::Damaged })
}

fn tell(finding: &Finding, context: &Context) {
    let output = &context.output;
    if output.is_json() {
        output.json(finding);
    } else if !output.options.quiet || finding.level >= Level::Warning {
        output.data(finding.text(output.options.stdout).as_bytes());
    }
}

// Plug in here; each finding goes to `tell` as it comes, and is returned too.
async fn operation(_patient: &Patient, _tell: &dyn Fn(&Finding), _context: &Context) -> Result<Vec<Finding>, Failure> {
    Err(not_built("doctor"))
}
