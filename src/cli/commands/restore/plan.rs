//! `haulout restore --dry-run`: what a restore takes, what this machine lacks for it, and how long it may take.

use std::sync::Arc;

use super::super::Context;
use crate::{
    cli::{
        failure::Failure,
        open,
        options::RestoreSettings,
        programs::{self, Programs},
        report::{ReplayReport, RestorePlan, RestoreTerms},
    },
    error::Kind,
    mariadb::tool::Tool,
    model::Progress,
    restore::{self, Estimate, PlacedPlan, RestoreError, TableChoice},
};

/// Tells all that is known beforehand, also where something is in the way.
///
/// # Errors
/// With the first thing that is in the way, once all was told; at once when the backup cannot be read.
pub(super) async fn tell(
    settings: &RestoreSettings,
    progress: Arc<dyn Progress>,
    context: &Context,
) -> Result<(), Failure> {
    let programs = Programs::look(&settings.prepare.tools)?;
    let super::Aim { repository, manifest, replay } = super::aim(settings, context).await?;
    super::replica(settings, &manifest, replay.as_ref())?;
    let report = replay.as_ref().map(|plan| ReplayReport::new(plan, None));
    let needs = programs.needs(&manifest)?;
    let version = |tool: Option<&Tool>| tool.map(|tool| tool.version.to_string());
    let (tool_version, mariadbd_version) = (version(programs.backup()), version(programs.server()));

    let mut obstacles: Vec<Failure> = programs.fitting(&needs).err().into_iter().collect();
    let owner = open::owner(settings.owner.as_ref()).unwrap_or_else(|failure| {
        obstacles.push(failure);
        None
    });
    let options = super::options(settings, &manifest, owner, replay);
    let watch = open::watch(progress, context);
    let (placed, in_the_way) =
        restore::plan_restore(&repository, &manifest, &settings.datadir, &options, &watch).await?;
    obstacles.extend(in_the_way.into_iter().map(Failure::from));
    if settings.galera && super::was_no_node(&manifest) {
        obstacles.push(super::without_cluster(&manifest));
    }
    let frozen = match restore::frozen(&repository, &manifest, &TableChoice::All, &watch).await {
        Err(RestoreError::Interrupted) => return Err(RestoreError::Interrupted.into()),
        Err(error) => {
            context.output.warn(&format!("whether packs are archived is not known: {error}"));
            None
        }
        Ok(frozen) => frozen,
    };
    let is_frozen = frozen.is_some();
    obstacles.extend(frozen.map(Failure::from));
    // What is read of a datadir that is written over is most of it then, and has no rate.
    let stretch = async {
        if options.reuse || is_frozen {
            return Ok(None);
        }
        restore::read_stretch(&repository, &manifest, options.fetch, &watch.cancel).await
    };
    let measured = match stretch.await {
        Ok(measured) => measured,
        Err(error) => {
            let failure = Failure::from(error);
            if failure.kind == Kind::Interrupted {
                return Err(failure);
            }
            obstacles.push(failure);
            None
        }
    };
    let drill = super::newest_drill(&repository, context).await;
    let PlacedPlan { plan, datadir, work_dir, free_bytes, copied, reused_bytes, aside } = placed;
    let estimate = Estimate::new(&manifest, plan.fetched_bytes, measured.as_ref(), drill.as_ref());
    let estimate = match (options.reuse, copied) {
        (true, _) => estimate.of_what_differs(),
        (false, true) => estimate.with_a_copy(),
        (false, false) => estimate,
    };
    let terms = RestoreTerms {
        server_version: manifest.server.version.clone(),
        tool_version,
        mariadbd_version,
        lacking: RestoreTerms::lacking_of(&needs),
        install: needs.commands(programs::package_system()),
        logical_bytes: plan.logical_bytes,
        redo_bytes: manifest.redo.bytes,
        needed_bytes: plan.needed_bytes(),
        copied,
        estimate,
        measured,
        drill,
        obstacles: obstacles.iter().map(sentence).collect(),
    };
    let summary = RestorePlan {
        dry_run: true,
        backup_id: manifest.id,
        datadir,
        work_dir,
        lsn: manifest.lsn.last,
        replay: report,
        files: plan.files.len() as u64,
        written_bytes: plan.written_bytes,
        fetched_bytes: plan.fetched_bytes,
        reused_bytes,
        requests: plan.requests,
        free_bytes,
        aside,
        terms,
    };
    context.output.summary(&summary, RestorePlan::text);
    obstacles.into_iter().next().map_or(Ok(()), Err)
}

/// A failure and its causes, in one sentence.
fn sentence(failure: &Failure) -> String {
    let causes = failure.causes.iter().map(String::as_str);
    std::iter::once(failure.message.as_str()).chain(causes).collect::<Vec<_>>().join(": ")
}
