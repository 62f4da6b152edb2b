//! `haulout doctor`.

use std::{cell::RefCell, path::PathBuf};

use super::{Context, Finish};
use crate::{
    cli::{
        args::DoctorArgs,
        doctor::examine,
        failure::Failure,
        human::ByteSize,
        options::{ConnectionSettings, SpoolSettings, StoreSettings, ToolSettings},
        report::{DoctorSummary, Finding, Level},
    },
    error::Kind,
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
    /// Where packs wait while the store is slow.
    pub spool_dir: PathBuf,
    /// How much may wait there.
    pub spool_size: ByteSize,
}

impl Patient {
    /// True when the repository is a directory of this machine.
    pub fn is_local(&self) -> bool {
        self.store.url.starts_with("file:")
    }

    /// True when the repository is in a bucket of S3 or its like.
    pub fn is_bucket(&self) -> bool {
        self.store.url.starts_with("s3:")
    }
}

/// Looks for what would stop a backup or a restore.
///
/// # Errors
/// When the settings are wrong; whatever else is wrong is a finding, and [`Finish::Damaged`].
pub async fn run(args: &DoctorArgs, context: &Context) -> Result<Finish, Failure> {
    let spool = context.settle(SpoolSettings::assemble(&context.layers, None, None))?;
    let patient = Patient {
        store: context.settle(StoreSettings::assemble(&context.layers, context.url(), &args.store))?,
        connection: context.settle(ConnectionSettings::assemble(&context.layers, &args.connection))?,
        tools: context.settle(ToolSettings::assemble(&context.layers, &args.tools))?,
        spool_dir: spool.directory,
        spool_size: spool.size,
    };
    let teller = Teller { context, skipped: RefCell::default() };
    let tell = |finding: &Finding| teller.tell(finding);
    let mut stop = context.stop.clone();
    let findings = tokio::select! {
        findings = examine(&patient, &tell, context) => findings,
        _ = stop.wait_for(|stop| *stop) => return Err(Failure::new(Kind::Interrupted, "interrupted")),
    };
    teller.flush();
    let summary = DoctorSummary::of(&findings);
    context.output.summary(&summary, DoctorSummary::text);
    Ok(if summary.problems == 0 { Finish::Done } else { Finish::Damaged })
}

/// Tells findings as they come. For people, those that were skipped for one reason are one line.
struct Teller<'a> {
    context: &'a Context,
    skipped: RefCell<Option<Finding>>,
}

impl Teller<'_> {
    fn tell(&self, finding: &Finding) {
        let output = &self.context.output;
        if output.is_json() {
            output.json(finding);
        } else if finding.level == Level::Skipped {
            self.skip(finding);
        } else {
            self.flush();
            self.print(finding);
        }
    }

    fn skip(&self, finding: &Finding) {
        let mut skipped = self.skipped.borrow_mut();
        match &mut *skipped {
            Some(earlier) if earlier.message == finding.message => {
                earlier.check.push_str(", ");
                earlier.check.push_str(&finding.check);
            }
            _ => {
                let earlier = skipped.replace(finding.clone());
                drop(skipped);
                earlier.iter().for_each(|earlier| self.print(earlier));
            }
        }
    }

    /// Prints what waits for more of its kind.
    fn flush(&self) {
        let skipped = self.skipped.take();
        skipped.iter().for_each(|finding| self.print(finding));
    }

    fn print(&self, finding: &Finding) {
        let output = &self.context.output;
        if !output.options.quiet || finding.level >= Level::Warning {
            output.data(finding.text(output.options.stdout, output.options.columns).as_bytes());
        }
    }
}
