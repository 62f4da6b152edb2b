//! Restores and their steps.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{Facts, RestoreTerms};
use crate::{
    cli::{human, output::Message, paint::Paint},
    format::GtidPosition,
    mariadb::galera::{GaleraState, STATE_NAME},
    model::{BackupId, GtidSet, Lsn},
    restore::{Aside, Attached, Moment, ReplayPlan, Replayed},
};

/// Summary of `restore`.
#[derive(Debug, Clone, Serialize)]
pub struct RestoreSummary {
    /// The backup that was restored.
    pub backup_id: BackupId,
    /// Where it is now.
    pub datadir: PathBuf,
    /// LSN of the restored state.
    pub lsn: Lsn,
    /// Position in the binary log and GTID of the restored state.
    pub position: GtidPosition,
    /// What was replayed on the backup; null when nothing was to be.
    pub replay: Option<ReplayReport>,
    /// Files written.
    pub files: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Bytes read from the store.
    pub fetched_bytes: u64,
    /// Bytes that the datadir had already; 0 without `--reuse`.
    pub reused_bytes: u64,
    /// Requests to the store.
    pub requests: u64,
    /// Time that the whole took.
    pub seconds: f64,
    /// Time that its steps took.
    pub steps: StepSeconds,
    /// What the datadir had and the backup has not; null when there was nothing.
    pub aside: Option<Aside>,
    /// How it becomes a replica; null when that was not asked for.
    pub replica: Option<ReplicaReport>,
    /// How it joins its Galera cluster; null when that was not asked for, or is not known.
    pub galera: Option<GaleraReport>,
}

/// Binary log that is replayed on a backup.
#[derive(Debug, Clone, Serialize)]
pub struct ReplayReport {
    /// Where the restored state stands.
    pub gtid: GtidSet,
    /// Segments that are read.
    pub segments: u64,
    /// Bytes of them in the store.
    pub stored_bytes: u64,
    /// The last transaction of the restored state; null when the backup is older than all that is archived.
    pub last: Option<Moment>,
    /// The first one that is left out; null when none is archived.
    pub next: Option<Moment>,
    /// Transactions that were replayed; null when nothing has been done, or an earlier run had done it.
    pub transactions: Option<u64>,
    /// Bytes of binary log that were replayed; null likewise.
    pub replayed_bytes: Option<u64>,
}

impl ReplayReport {
    /// Of a plan, and of what was done.
    pub fn new(plan: &ReplayPlan, done: Option<Replayed>) -> ReplayReport {
        ReplayReport {
            gtid: plan.gtid.clone(),
            segments: plan.segments,
            stored_bytes: plan.stored_bytes,
            last: plan.last,
            next: plan.next,
            transactions: done.map(|done| done.transactions),
            replayed_bytes: done.map(|done| done.bytes),
        }
    }

    fn tell(&self, facts: Facts) -> Facts {
        let moment = |moment: Moment| format!("{} of {}", moment.gtid, moment.time);
        let log = match (self.transactions, self.replayed_bytes) {
            (Some(transactions), Some(bytes)) => {
                format!("{} in {} of binary log", human::counted(transactions, "transaction"), human::bytes(bytes))
            }
            _ => format!("{} of {}", human::counted(self.segments, "segment"), human::bytes(self.stored_bytes)),
        };
        facts
            .with("replay", log)
            .with_some("last event", self.last.map(moment))
            .with_some("left out", self.next.map(|next| format!("{} and what comes after it", moment(next))))
    }
}

/// How a restored server joins its Galera cluster.
#[derive(Debug, Clone, Serialize)]
pub struct GaleraReport {
    /// The file that tells it where it stands.
    pub file: PathBuf,
    /// The cluster, and the last write set.
    #[serde(flatten)]
    pub state: GaleraState,
    /// The first write set that it lacks, which a node of the cluster must still have.
    pub next_seqno: u64,
}

impl GaleraReport {
    /// Of the server in `datadir`.
    pub fn new(state: GaleraState, datadir: &Path) -> GaleraReport {
        GaleraReport { file: datadir.join(STATE_NAME), next_seqno: state.next(), state }
    }

    fn text(&self) -> String {
        let GaleraReport { file, state: GaleraState { uuid, seqno }, next_seqno } = self;
        format!(
            "{uuid}:{seqno}, in {}\n\
             before it is started, ask the nodes: SHOW STATUS LIKE 'wsrep_local_cached_downto'\n\
             {next_seqno} or less: that node can send the rest (IST); name it by wsrep_sst_donor\n\
             more at each: none can; the cluster sends everything (SST), and what was restored is lost",
            file.display()
        )
    }
}

/// How a restored server becomes a replica.
#[derive(Debug, Clone, Serialize)]
pub struct ReplicaReport {
    /// The script in its datadir; none when it could not be written.
    pub script: Option<PathBuf>,
    /// What is in it, the password left out.
    pub statements: Vec<String>,
    /// Where its replication stands, when it was started.
    pub attached: Option<Attached>,
}

impl ReplicaReport {
    /// What is to be done, or was.
    fn next(&self) -> String {
        match (&self.attached, &self.script) {
            (Some(Attached { seconds_behind: Some(seconds), .. }), _) => {
                format!("it follows its source, {} behind", human::counted(*seconds, "second"))
            }
            (Some(_), _) => "it follows its source".to_owned(),
            (None, Some(script)) => {
                format!("start the server, with a server_id of its own; then mariadb < {}", script.display())
            }
            (None, None) => "start the server, with a server_id of its own; then run the statements".to_owned(),
        }
    }
}

/// Time that the steps of a restore took.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct StepSeconds {
    /// Fetching.
    pub fetch: f64,
    /// `mariadb-backup --prepare`.
    pub prepare: f64,
    /// Replaying binary log.
    pub replay: f64,
    /// Moving into the datadir.
    #[serde(rename = "move")]
    pub moving: f64,
}

impl Message for RestoreSummary {
    const TYPE: &'static str = "summary";
}

impl RestoreSummary {
    /// For people.
    pub fn text(&self, paint: Paint) -> String {
        let StepSeconds { fetch, prepare, replay, moving } = self.steps;
        let time = |seconds: f64| human::duration(seconds.round() as u64);
        let replayed = if self.replay.is_some() { format!("replay {}, ", time(replay)) } else { String::new() };
        let took = format!(
            "{} (fetch {}, prepare {}, {replayed}move {})",
            time(self.seconds),
            time(fetch),
            time(prepare),
            time(moving)
        );
        let facts = Facts::default()
            .with("datadir", self.datadir.display().to_string())
            .with("state", format!("LSN {}", self.lsn))
            .with_some("GTID", self.position.gtid.clone());
        let facts = match &self.replay {
            Some(replay) => replay.tell(facts),
            None => facts,
        };
        let facts = facts
            .with("written", written(self.written_bytes, self.files))
            .with("fetched", fetched(self.fetched_bytes, self.requests))
            .with_some("reused", reused(self.reused_bytes))
            .with_some("aside", self.aside.as_ref().map(aside))
            .with("took", took)
            .with_some("cluster", self.galera.as_ref().map(GaleraReport::text))
            .with_some("replica", self.replica.as_ref().map(|replica| replica.statements.join(";\n")))
            .with("next", self.replica.as_ref().map_or_else(|| "start the server".to_owned(), ReplicaReport::next));
        format!("restored backup {}\n{}", paint.bold(self.backup_id.as_str()), facts.text(paint))
    }
}

fn written(bytes: u64, files: u64) -> String {
    format!("{} in {}", human::bytes(bytes), human::counted(files, "file"))
}

fn fetched(bytes: u64, requests: u64) -> String {
    format!("{} in {}", human::bytes(bytes), human::counted(requests, "request"))
}

fn reused(bytes: u64) -> Option<String> {
    (bytes > 0).then(|| human::bytes(bytes))
}

/// Whoever is done with the restore decides what becomes of it.
fn aside(aside: &Aside) -> String {
    let (bytes, files) = (human::bytes(aside.bytes), human::counted(aside.files, "file"));
    format!("{bytes} in {files} that the backup does not have, in {}", aside.directory.display())
}

/// Summary of `restore --dry-run`.
#[derive(Debug, Clone, Serialize)]
pub struct RestorePlan {
    /// Always true.
    pub dry_run: bool,
    /// The backup that would be restored.
    pub backup_id: BackupId,
    /// Where to.
    pub datadir: PathBuf,
    /// Where the files would be put together.
    pub work_dir: PathBuf,
    /// LSN of the backup's state.
    pub lsn: Lsn,
    /// What would be replayed on the backup; null when nothing is to be.
    pub replay: Option<ReplayReport>,
    /// Files to write.
    pub files: u64,
    /// Bytes to write.
    pub written_bytes: u64,
    /// Bytes to read from the store.
    pub fetched_bytes: u64,
    /// Bytes that the datadir has already; 0 without `--reuse`.
    pub reused_bytes: u64,
    /// Requests to the store.
    pub requests: u64,
    /// Free space where the files would be put together.
    pub free_bytes: u64,
    /// What would be set aside; null when there is nothing.
    pub aside: Option<Aside>,
    /// The machine, and the time.
    #[serde(flatten)]
    pub terms: RestoreTerms,
}

impl Message for RestorePlan {
    const TYPE: &'static str = "summary";
}

impl RestorePlan {
    /// For people.
    pub fn text(&self, paint: Paint) -> String {
        let to_write = format!(
            "{}; {} must be free, {} are",
            written(self.written_bytes, self.files),
            human::bytes(self.terms.needed_bytes),
            human::bytes(self.free_bytes)
        );
        let facts = Facts::default()
            .with("datadir", self.datadir.display().to_string())
            .with("work dir", self.work_dir.display().to_string())
            .with("state", format!("LSN {}", self.lsn));
        let facts = match &self.replay {
            Some(replay) => replay.tell(facts.with("GTID", replay.gtid.to_string())),
            None => facts,
        };
        let facts = facts
            .with("to write", to_write)
            .with("to fetch", fetched(self.fetched_bytes, self.requests))
            .with_some("reused", reused(self.reused_bytes))
            .with_some("aside", self.aside.as_ref().map(aside));
        let facts = self.terms.tell(facts);
        let id = paint.bold(self.backup_id.as_str());
        format!("would restore backup {id}; nothing was done\n{}", facts.text(paint))
    }
}

/// Summary of `fetch`.
#[derive(Debug, Clone, Serialize)]
pub struct FetchSummary {
    /// The backup that was fetched.
    pub backup_id: BackupId,
    /// Where it is.
    pub target: PathBuf,
    /// How many tables were chosen; null when the whole backup was fetched.
    pub tables: Option<u64>,
    /// LSN of its state, once prepared.
    pub lsn: Lsn,
    /// Files written.
    pub files: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Bytes read from the store.
    pub fetched_bytes: u64,
    /// Requests to the store.
    pub requests: u64,
    /// Time that it took.
    pub seconds: f64,
}

impl Message for FetchSummary {
    const TYPE: &'static str = "summary";
}

impl FetchSummary {
    /// For people.
    pub fn text(&self, paint: Paint) -> String {
        let rate = human::rate(self.written_bytes, self.seconds);
        let export = if self.tables.is_some() { "--export " } else { "" };
        let what = self.tables.map_or_else(String::new, |tables| format!("{} of ", human::counted(tables, "table")));
        let facts = Facts::default()
            .with("target", self.target.display().to_string())
            .with("written", written(self.written_bytes, self.files))
            .with("fetched", fetched(self.fetched_bytes, self.requests))
            .with("took", format!("{}, {rate}", human::duration(self.seconds.round() as u64)))
            .with("next", format!("haulout prepare {export}--target {}", self.target.display()));
        format!("fetched {what}backup {}\n{}", paint.bold(self.backup_id.as_str()), facts.text(paint))
    }
}

/// Summary of `prepare`.
#[derive(Debug, Clone, Serialize)]
pub struct PrepareSummary {
    /// The directory.
    pub target: PathBuf,
    /// Whether its tables were made ready for other servers.
    pub exported: bool,
    /// LSN of its state.
    pub lsn: Lsn,
    /// Time that it took.
    pub seconds: f64,
}

impl Message for PrepareSummary {
    const TYPE: &'static str = "summary";
}

impl PrepareSummary {
    /// For people.
    pub fn text(&self, paint: Paint) -> String {
        let target = self.target.display();
        let next = if self.exported {
            "ALTER TABLE … DISCARD TABLESPACE, copy .ibd and .cfg, ALTER TABLE … IMPORT TABLESPACE".to_owned()
        } else {
            format!("haulout move-back --target {target} --datadir DIR, or copy-back")
        };
        let facts = Facts::default()
            .with("state", format!("LSN {}", self.lsn))
            .with("took", human::duration(self.seconds.round() as u64))
            .with("next", next);
        format!("prepared {}\n{}", paint.bold(&target.to_string()), facts.text(paint))
    }
}

/// How files came into the datadir.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MoveAction {
    /// They are not where they were.
    Moved,
    /// They are in both places.
    Copied,
}

/// Summary of `move-back` and `copy-back`.
#[derive(Debug, Clone, Serialize)]
pub struct MoveSummary {
    /// How.
    pub action: MoveAction,
    /// Where the files were.
    pub target: PathBuf,
    /// Where they are.
    pub datadir: PathBuf,
    /// Files.
    pub files: u64,
    /// Bytes.
    pub written_bytes: u64,
    /// Time that it took.
    pub seconds: f64,
}

impl Message for MoveSummary {
    const TYPE: &'static str = "summary";
}

impl MoveSummary {
    /// For people.
    pub fn text(&self, paint: Paint) -> String {
        let word = match self.action {
            MoveAction::Moved => "moved",
            MoveAction::Copied => "copied",
        };
        let facts = Facts::default()
            .with("from", self.target.display().to_string())
            .with("files", written(self.written_bytes, self.files))
            .with("took", human::duration(self.seconds.round() as u64))
            .with("next", "start the server");
        format!("{word} into {}\n{}", paint.bold(&self.datadir.display().to_string()), facts.text(paint))
    }
}
