//! A restore carried out to prove that it works: fetch, prepare, a real server, and questions to it.
//!
//! ```text
//! scratch ─► plan ─► fetch ─► prepare ─► mariadbd ─► tables, CHECK TABLE, assertions ─► shutdown ─► proof ─► scratch removed
//! ```
//! - What is wrong with the backup is a verdict, and recorded: damage that the fetch or the prepare finds, a server that does not start on
//!   the files, tables that are missing or damaged, an assertion that does not hold.
//! - What is wrong with the machine or the store is an error, and nothing is recorded: too little room, missing tools, plugins or keys, a
//!   store that does not answer.
//! - Nothing but the scratch directory is touched. It is removed whatever happens, and by the next drill when this one is killed.
//!
//! The steps of the restore are those of `restore`, so that what is proven is what an operator runs.

mod error;
mod examine;
mod findings;
mod inventory;
mod sample;
mod scratch;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use error::DrillError;
use examine::{Examined, Examiner, Questions};
use findings::{Findings, causes};
use inventory::Inventory;
use scratch::Scratch;

use crate::error::{Diagnose, Kind};
use crate::format::{Manifest, Proof, ProofSample, ProofTimes};
use crate::mariadb::drill_server::{DRILL_SERVER_BYTES, DrillServer, Use};
use crate::mariadb::prepare::PrepareError;
use crate::mariadb::scratch::{ScratchError, ScratchServer};
use crate::mariadb::tool::{ServerVersion, ToolError, Tools};
use crate::model::{Clock, Entropy, ProofId, Secret};
use crate::repository::{ObjectKey, ProcessIdentity, Repository, RepositoryError};
use crate::restore::{
    self, FetchOptions, PrepareSettings, RestoreError, RestorePlan, TableChoice, Watch, available_bytes, check_tool,
};

/// Longest time for the server to shut down.
const STOP_LIMIT: Duration = Duration::from_secs(600);

/// What a drill works with.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// The repository.
    pub repository: &'a Repository,
    /// The backup.
    pub manifest: &'a Manifest,
    /// MariaDB's tools, the server among them.
    pub tools: &'a Tools,
    /// Wall clock, for names and for people.
    pub clock: &'a dyn Clock,
    /// Randomness.
    pub entropy: &'a dyn Entropy,
    /// Who watches, and who may stop it.
    pub watch: &'a Watch,
}

/// How a drill is carried out.
#[derive(Debug, Clone)]
pub struct DrillOptions {
    /// Directory for everything; it is empty or missing, and left so.
    pub scratch: PathBuf,
    /// By what tables are chosen to be checked; all are when absent.
    pub sample: Option<ProofSample>,
    /// Statements of which each must return one true value.
    pub assertions: Vec<String>,
    /// Options of the server as `--name=value`, which were checked.
    pub server_options: Vec<String>,
    /// How files are fetched.
    pub fetch: FetchOptions,
    /// How they are prepared.
    pub prepare: PrepareSettings,
}

/// What a drill takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrillPlan {
    /// Files to restore.
    pub files: u64,
    /// Bytes to write into them.
    pub written_bytes: u64,
    /// Bytes to fetch.
    pub fetched_bytes: u64,
    /// Requests for them.
    pub requests: u64,
    /// Bytes that must be free: files, redo log, server, and some more.
    pub needed_bytes: u64,
    /// Bytes that are free.
    pub free_bytes: u64,
}

/// How a drill ended.
#[derive(Debug)]
pub struct DrillOutcome {
    /// The verdict.
    pub proof: Proof,
    /// Where it is recorded, or why it is not.
    pub recorded: Result<ObjectKey, RepositoryError>,
    /// What stays behind in the scratch directory.
    pub left_behind: Option<DrillError>,
}

/// Finds out what a drill takes, and whether there is room; writes nothing.
///
/// # Errors
/// When the backup's map is damaged, the tools do not fit, or there is too little room.
pub async fn plan_drill(context: Context<'_>, options: &DrillOptions) -> Result<DrillPlan, DrillError> {
    server_version(context)?;
    let absolute = std::path::absolute(&options.scratch).map_err(DrillError::io("look at", &options.scratch))?;
    let place = absolute.ancestors().find(|ancestor| ancestor.is_dir()).unwrap_or(Path::new("/"));
    let Context { repository, manifest, watch, .. } = context;
    let plan = RestorePlan::read(repository, manifest, options.fetch, &watch.cancel).await?;
    check_room(&plan, place)
}

/// Restores a backup in a directory of its own, starts a server on it, looks at it, and records what came out.
///
/// # Errors
/// When there is no verdict; nothing is recorded then.
pub async fn drill(context: Context<'_>, options: &DrillOptions) -> Result<DrillOutcome, DrillError> {
    let server_version = server_version(context)?;
    let (path, backup) = (options.scratch.clone(), context.manifest.id.clone());
    let scratch = blocking(move || Scratch::take(&path, &backup)).await?;
    if scratch.leftovers {
        context.watch.progress.note(&format!("what a killed drill had left in {:?} was removed", scratch.path()));
    }
    let run = Run { context, options, scratch: &scratch };
    let proof = run.carry_out(server_version).await;
    let recorded = match &proof {
        Ok(proof) => Some(context.repository.put_proof(proof).await),
        Err(_) => None,
    };
    let removed = blocking(move || scratch.remove()).await;
    match (proof, recorded) {
        (Ok(proof), Some(recorded)) => Ok(DrillOutcome { proof, recorded, left_behind: removed.err() }),
        // Should files stay, the next drill removes them; the first error tells more.
        (Err(error), _) => Err(error),
        (Ok(_), None) => Err(DrillError::Interrupted),
    }
}

/// The version of this machine's server, which must be of the backup's series, as the backup tool must.
fn server_version(context: Context<'_>) -> Result<ServerVersion, DrillError> {
    let Context { manifest, tools, .. } = context;
    check_tool(&manifest.server.version, tools)?;
    let wanted: ServerVersion = manifest.server.version.parse()?;
    let server =
        tools.server.as_ref().ok_or(ToolError::Missing { name: "mariadbd", package: "mariadb-server-core" })?;
    tools.client()?;
    if server.version.series() != wanted.series() {
        return Err(DrillError::OtherSeries { found: server.version.clone(), wanted });
    }
    Ok(server.version.clone())
}

/// Checks that there is room in `place`.
fn check_room(plan: &RestorePlan, place: &Path) -> Result<DrillPlan, DrillError> {
    let free_bytes = available_bytes(place)?;
    let plan = DrillPlan {
        files: plan.files.len() as u64,
        written_bytes: plan.written_bytes,
        fetched_bytes: plan.fetched_bytes,
        requests: plan.requests,
        needed_bytes: plan.needed_bytes().saturating_add(DRILL_SERVER_BYTES),
        free_bytes,
    };
    if plan.needed_bytes > free_bytes {
        let (scratch, needed) = (place.to_owned(), plan.needed_bytes);
        return Err(DrillError::NoSpace { scratch, needed, available: free_bytes });
    }
    Ok(plan)
}

/// What is known of a drill so far.
#[derive(Debug, Default)]
struct Course {
    took: ProofTimes,
    fetched_bytes: u64,
    written_bytes: u64,
    examined: Examined,
    findings: Findings,
}

struct Run<'a> {
    context: Context<'a>,
    options: &'a DrillOptions,
    scratch: &'a Scratch,
}

impl Run<'_> {
    async fn carry_out(&self, server_version: ServerVersion) -> Result<Proof, DrillError> {
        let Context { repository, manifest, tools, clock, entropy, .. } = self.context;
        let started = clock.now().whole_seconds();
        let mut course = Course::default();
        self.steps(&server_version, &mut course).await?;
        let Course { took, fetched_bytes, written_bytes, examined, mut findings } = course;
        let Examined { tables, spaces, assertions, .. } = examined;
        for warning in examined.findings.warnings {
            findings.warn(warning);
        }
        let Findings { failures, more_failures, warnings } = findings;
        Ok(Proof {
            repository_id: repository.config().repository_id,
            id: ProofId::new(started, entropy),
            backup: manifest.id.clone(),
            started,
            finished: clock.now().whole_seconds().max(started),
            passed: failures.is_empty() && more_failures == 0,
            failures,
            more_failures,
            warnings,
            haulout_version: env!("CARGO_PKG_VERSION").to_owned(),
            tool_version: tools.backup.version.to_string(),
            server_version: server_version.to_string(),
            host: ProcessIdentity::current().host,
            fetched_bytes,
            written_bytes,
            took,
            tables,
            spaces,
            sample: self.options.sample,
            assertions,
        })
    }

    /// Goes as far as the backup lets it; what it does not let is in the course's findings.
    async fn steps(&self, version: &ServerVersion, course: &mut Course) -> Result<(), DrillError> {
        let Context { repository, manifest, tools, watch, .. } = self.context;
        let (scratch, options) = (self.scratch, self.options);
        // Not part of the time to recover: a backup that is to be recovered soon does not lie in an archive.
        restore::thaw(repository, manifest, &TableChoice::All, options.fetch.thaw, watch).await?;
        let begun = Instant::now();
        let plan = RestorePlan::read(repository, manifest, options.fetch, &watch.cancel).await;
        course.took.plan_ms = elapsed(begun);
        let Some(plan) = verdict(plan, &mut course.findings)? else { return Ok(()) };
        let inventory = Arc::new(Inventory::of(&plan.files));
        course.examined.tables.expected = inventory.definitions.len() as u64;
        course.examined.spaces.expected = inventory.spaces();
        let DrillPlan { needed_bytes, free_bytes, .. } = check_room(&plan, scratch.path())?;
        drop(plan);
        let mib = |bytes: u64| bytes.div_ceil(1 << 20);
        let path = scratch.path();
        watch.progress.note(&format!(
            "the drill needs {} MiB in {path:?}, where {} MiB are free",
            mib(needed_bytes),
            mib(free_bytes)
        ));

        let (begun, data) = (Instant::now(), scratch.data());
        let fetched = restore::fetch(repository, manifest, &data, options.fetch, watch).await;
        course.took.fetch_ms = elapsed(begun);
        let Some(fetched) = verdict(fetched, &mut course.findings)? else { return Ok(()) };
        (course.fetched_bytes, course.written_bytes) = (fetched.figures.bytes_fetched, fetched.figures.bytes_written);

        let begun = Instant::now();
        let prepared = restore::prepare(&data, tools, &options.prepare, watch).await;
        course.took.prepare_ms = elapsed(begun);
        if verdict(prepared, &mut course.findings)?.is_none() {
            return Ok(());
        }

        watch.progress.note(&format!("starting mariadbd {version} on the restored files"));
        let begun = Instant::now();
        let started = self.start().await?;
        course.took.start_ms = elapsed(begun);
        let server = match started {
            Ok(server) => server,
            Err(error) => {
                course.findings.fail(format!("mariadbd does not start on the restored files: {}", causes(&error)));
                return Ok(());
            }
        };
        let (server, examined) = self.examine(server, inventory).await?;
        (course.took.check_ms, course.took.assert_ms) = (examined.check_ms, examined.assert_ms);
        course.findings = examined.findings.clone();
        for error in server.errors() {
            course.findings.warn(format!("mariadbd: {error}"));
        }
        course.examined = Examined { findings: Findings::default(), ..examined };

        let (begun, tools) = (Instant::now(), tools.clone());
        let stopped = tokio::task::spawn_blocking(move || server.shut_down(&tools, STOP_LIMIT)).await?;
        course.took.stop_ms = elapsed(begun);
        if watch.cancel.is_requested() {
            return Err(DrillError::Interrupted);
        }
        if let Err(error) = stopped {
            course.findings.fail(format!("mariadbd does not shut down in good order: {}", causes(&error)));
        }
        Ok(())
    }

    /// Starts the server; the inner error is the backup's fault, as far as can be known.
    async fn start(&self) -> Result<Result<ScratchServer, ScratchError>, DrillError> {
        let Context { tools, entropy, watch, .. } = self.context;
        let mut random = [0; 16];
        entropy.fill(&mut random);
        // With characters of each sort, for plugins that want them.
        let password = Secret::new(format!("Hd1-{}", hex::encode(random)));
        let (data, place, temporary) = (self.scratch.data(), self.scratch.run(), self.scratch.temporary());
        let (tools, options, cancel) = (tools.clone(), self.options.server_options.clone(), watch.cancel.clone());
        let started = tokio::task::spawn_blocking(move || {
            let server = DrillServer {
                datadir: &data,
                place: &place,
                temporary: &temporary,
                options: &options,
                password: &password,
                to: Use::Look,
            };
            server.start(&tools, &|| cancel.is_requested())
        });
        match started.await? {
            Err(ScratchError::Stopped) => Err(DrillError::Interrupted),
            Err(error @ (ScratchError::Ended { .. } | ScratchError::Silent { .. })) if !error.lacks_something() => {
                Ok(Err(error))
            }
            Err(error) => Err(DrillError::Server(Box::new(error))),
            Ok(server) => Ok(Ok(server)),
        }
    }

    /// Asks the server, and ends it when the drill is to stop.
    async fn examine(
        &self,
        server: ScratchServer,
        inventory: Arc<Inventory>,
    ) -> Result<(ScratchServer, Examined), DrillError> {
        let Context { tools, watch, .. } = self.context;
        let questions = Questions { sample: self.options.sample, assertions: self.options.assertions.clone() };
        let examiner = Examiner { tools: tools.clone(), inventory, questions, watch: watch.clone() };
        let stopper = server.stopper();
        let mut examined = tokio::task::spawn_blocking(move || {
            let examined = examiner.examine(&server);
            (server, examined)
        });
        let (server, examined) = tokio::select! {
            biased;
            examined = &mut examined => examined?,
            () = watch.cancel.requested() => {
                // Whatever it is asked just now ends with it.
                stopper.stop();
                examined.await?
            }
        };
        Ok((server, examined?))
    }
}

fn elapsed(begun: Instant) -> u64 {
    begun.elapsed().as_millis() as u64
}

/// Tells damage of the backup, which is a finding, from what keeps the drill from a verdict.
fn verdict<T>(result: Result<T, RestoreError>, findings: &mut Findings) -> Result<Option<T>, DrillError> {
    match result {
        Ok(done) => Ok(Some(done)),
        Err(error) if is_of_backup(&error) => {
            findings.fail(causes(&error));
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// True when the backup is at fault, as far as can be known.
fn is_of_backup(error: &RestoreError) -> bool {
    match error {
        RestoreError::Misplaced { .. } => true,
        RestoreError::Prepare(PrepareError::Failed { .. } | PrepareError::Incomplete { .. }) => true,
        error => error.kind() == Kind::Corrupt,
    }
}

/// Runs what blocks where it blocks nobody.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, DrillError> + Send + 'static,
) -> Result<T, DrillError> {
    tokio::task::spawn_blocking(work).await?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mariadb::prepare::Damage;

    #[test]
    fn what_is_wrong_with_a_backup_is_a_verdict_and_what_is_wrong_with_the_machine_is_none() {
        let damaged = |damage| PrepareError::Damaged { damage, message: "it says so".to_owned(), in_parts: false };
        let pack = crate::model::PackId([7; 32]);
        let of_backup: [RestoreError; 4] = [
            RepositoryError::PackMissing { pack }.into(),
            damaged(Damage::MissingTablespace).into(),
            RestoreError::Misplaced { files: "shop/item.ibd".to_owned(), more: 0 },
            PrepareError::Incomplete { tail: Vec::new() }.into(),
        ];
        for error in of_backup {
            let mut findings = Findings::default();
            let text = error.to_string();
            assert!(verdict::<()>(Err(error), &mut findings).unwrap().is_none());
            assert!(findings.failures[0].starts_with(&text), "{findings:?}");
        }
        let of_machine: [RestoreError; 4] = [
            PrepareError::OpenFiles.into(),
            damaged(Damage::EncryptionKey).into(),
            RestoreError::NoSpace { directory: "/x".into(), needed: 2, available: 1 },
            RestoreError::Interrupted,
        ];
        for error in of_machine {
            let mut findings = Findings::default();
            assert!(verdict::<()>(Err(error), &mut findings).is_err());
            assert_eq!(findings, Findings::default());
        }
    }

    #[test]
    fn room_is_wanted_for_files_redo_log_and_server_before_anything_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let plan = |disk_bytes, prepare_bytes| RestorePlan {
            backup: "20261122T020000Z-3f9a16".parse().unwrap(),
            server_version: "10.11.19-MariaDB".to_owned(),
            directories: Default::default(),
            files: Vec::new(),
            logical_bytes: disk_bytes,
            written_bytes: disk_bytes,
            disk_bytes,
            stored_bytes: 0,
            fetched_bytes: 0,
            requests: 0,
            pieces: 0,
            prepare_bytes,
        };
        let small = check_room(&plan(0, 0), folder.path()).unwrap();
        assert_eq!(small.needed_bytes, DRILL_SERVER_BYTES);
        let with_log = check_room(&plan(2000, 1000), folder.path()).unwrap();
        assert_eq!(with_log.needed_bytes, 3150 + DRILL_SERVER_BYTES);
        let error = check_room(&plan(1 << 62, 1 << 40), folder.path()).unwrap_err();
        assert!(matches!(error, DrillError::NoSpace { .. }), "{error}");
        let (text, hint) = (error.to_string(), error.hint().unwrap());
        assert!(text.contains("the drill needs") && hint.contains("--scratch"), "{text}: {hint}");
        assert_eq!(error.kind(), Kind::Failed);
    }
}
