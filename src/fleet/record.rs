//! What is remembered of a repository: small records, from which pages are drawn.

use std::sync::Arc;

use crate::error::{Diagnose, Kind};
use crate::format::{BackupKind, LsnRange, Manifest, Proof, PrunePlan};
use crate::model::{BackupId, GtidSet, PlanId, ProofId, Timestamp};
use crate::repository::{RestorePoint, Window, position_of};

/// Causes of a fault that are told: whoever wants more runs `haulout list`.
const CAUSES_MAX: usize = 3;

/// Why something could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What the operator does next.
    pub kind: Kind,
    /// What happened, without secrets.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

impl Fault {
    /// The fault that an error is, its causes behind it.
    pub fn of_error(error: &impl Diagnose) -> Fault {
        let mut message = error.to_string();
        let mut source = std::error::Error::source(error);
        for _ in 0..CAUSES_MAX {
            let Some(cause) = source else { break };
            let told = cause.to_string();
            // Other people's errors often repeat their cause.
            if !message.contains(&told) {
                message = format!("{message}: {told}");
            }
            source = cause.source();
        }
        Fault { kind: error.kind(), message, hint: error.hint() }
    }
}

/// How far a repository has been read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// It was found, and not looked at yet.
    Waiting,
    /// It is read.
    Read,
    /// It is sealed and no key for it was given: names and times of its objects alone are known.
    Sealed,
    /// It could never be read.
    Failed,
}

/// A backup in brief.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupRecord {
    /// Its name.
    pub id: BackupId,
    /// The edition of the manifest that this was read from.
    pub edition: u32,
    /// How it was captured.
    pub kind: BackupKind,
    /// The backup that an incremental reaches back to.
    pub parent: Option<BackupId>,
    /// Incrementals since the full.
    pub depth: u32,
    /// When the capture began.
    pub started: Timestamp,
    /// When it was stored.
    pub finished: Timestamp,
    /// LSNs.
    pub lsn: LsnRange,
    /// Bytes once restored.
    pub logical_bytes: u64,
    /// Bytes of the tool's stream.
    pub stream_bytes: u64,
    /// Bytes that were put into the store for it.
    pub uploaded_bytes: u64,
    /// Bytes of all that it needs.
    pub stored_bytes: u64,
    /// Bytes of its redo log.
    pub redo_bytes: u64,
    /// Where the binary log stood; none where the server wrote none.
    pub position: Option<GtidSet>,
    /// Sentences of warning in its manifest.
    pub warnings: u32,
    /// Whose it is, and of which version: shared by the backups of one server.
    pub server: Arc<(String, String)>,
}

impl BackupRecord {
    /// The record of a manifest.
    pub(super) fn of(manifest: &Manifest) -> BackupRecord {
        BackupRecord {
            id: manifest.id.clone(),
            edition: manifest.edition,
            kind: manifest.kind,
            parent: manifest.parent.clone(),
            depth: manifest.depth,
            started: manifest.started,
            finished: manifest.finished,
            lsn: manifest.lsn,
            logical_bytes: manifest.sizes.logical_bytes,
            stream_bytes: manifest.sizes.stream_bytes,
            uploaded_bytes: manifest.sizes.uploaded_bytes,
            stored_bytes: manifest.sizes.stored_bytes,
            redo_bytes: manifest.redo.bytes,
            position: position_of(manifest),
            warnings: u32::try_from(manifest.warnings.len()).unwrap_or(u32::MAX),
            server: Arc::new((manifest.server.hostname.clone(), manifest.server.version.clone())),
        }
    }

    /// Seconds that the capture took.
    pub fn seconds(&self) -> u64 {
        self.finished.seconds_since(self.started).max(0).unsigned_abs()
    }

    pub(super) fn restore_point(&self) -> Option<RestorePoint> {
        let position = self.position.clone()?;
        Some(RestorePoint { id: self.id.clone(), finished: self.finished, position })
    }
}

/// A proof in brief.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProofRecord {
    /// Its name.
    pub id: ProofId,
    /// The backup.
    pub backup: BackupId,
    /// When the drill ended.
    pub finished: Timestamp,
    /// Whether nothing failed; not known of a sealed repository that is not opened, or of a proof that cannot be read.
    pub passed: Option<bool>,
    /// The first failure, or why it cannot be read.
    pub problem: Option<String>,
    /// The measured time to recover, in milliseconds.
    pub rto_ms: Option<u64>,
    /// Tables that were checked, and those that were left out.
    pub tables: (u64, u64),
    /// The machine of the drill.
    pub host: String,
}

impl ProofRecord {
    pub(super) fn of(proof: &Proof) -> ProofRecord {
        ProofRecord {
            id: proof.id.clone(),
            backup: proof.backup.clone(),
            finished: proof.finished,
            passed: Some(proof.passed),
            problem: proof.failures.first().cloned(),
            rto_ms: Some(proof.took.rto_ms()).filter(|ms| *ms > 0),
            tables: (proof.tables.checked, proof.tables.left_out),
            host: proof.host.clone(),
        }
    }
}

/// A prune plan that has not come to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanRecord {
    /// Its name.
    pub id: PlanId,
    /// When it was stored.
    pub stored: Timestamp,
    /// When it may be carried out; not known where it cannot be read.
    pub due: Option<Timestamp>,
    /// Whether something has begun to carry it out.
    pub begun: bool,
    /// Backups that go, where nobody has kept them since.
    pub backups: Vec<BackupId>,
    /// Bytes of packs and binary log that go.
    pub bytes: u64,
}

impl PlanRecord {
    pub(super) fn of(plan: &PrunePlan, stored: Timestamp) -> PlanRecord {
        PlanRecord {
            id: plan.id.clone(),
            stored,
            due: Some(stored.after(i64::try_from(plan.grace_seconds).unwrap_or(i64::MAX))),
            begun: false,
            backups: plan.backups.iter().map(|entry| entry.id.clone()).collect(),
            bytes: plan.pack_bytes.saturating_add(plan.segment_bytes),
        }
    }
}

/// A time in which any second can be restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WindowRecord {
    /// When its first backup was done.
    pub from: Timestamp,
    /// Time of the last transaction that was archived.
    pub to: Timestamp,
    /// Backups that it begins from.
    pub backups: u64,
    /// The newest of these.
    pub last_backup: Option<BackupId>,
    /// Why what came before does not lead here.
    pub gap: Option<String>,
    /// The GTID position at its end.
    pub gtid: String,
}

impl WindowRecord {
    pub(super) fn of(window: &Window) -> WindowRecord {
        WindowRecord {
            from: window.from,
            to: window.to,
            backups: window.backups.len() as u64,
            last_backup: window.backups.last().cloned(),
            gap: window.gap.clone(),
            gtid: window.gtid.to_string(),
        }
    }
}

/// A time between two windows, of which only the moments of backups can be restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GapRecord {
    /// Where the window before it ends.
    pub from: Timestamp,
    /// Where the next one begins.
    pub to: Timestamp,
    /// Why, where the archiver knew it.
    pub reason: Option<String>,
}

/// The times between windows, which ascend.
pub fn gaps(windows: &[WindowRecord]) -> Vec<GapRecord> {
    let mut gaps = Vec::new();
    let mut end: Option<Timestamp> = None;
    for window in windows {
        if let Some(end) = end.filter(|end| *end < window.from) {
            gaps.push(GapRecord { from: end, to: window.from, reason: window.gap.clone() });
        }
        end = end.max(Some(window.to));
    }
    gaps
}

/// What is archived of binary log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BinlogFigures {
    /// Streams.
    pub streams: u64,
    /// Segments.
    pub segments: u64,
    /// Bytes of these.
    pub bytes: u64,
    /// Time of the last transaction.
    pub last: Option<Timestamp>,
    /// Rows of segments that cannot be read.
    pub damaged: u64,
}

/// A repository, which is the history of one server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerRecord {
    /// Its path under the place; empty where the place itself is the repository.
    pub name: String,
    /// Its URL.
    pub url: String,
    /// How far it is read.
    pub reading: Reading,
    /// When it was read last.
    pub read_at: Option<Timestamp>,
    /// Why the last look failed; what was known before stands.
    pub fault: Option<Fault>,
    /// Looks in a row that failed.
    pub failures: u32,
    /// Whether what is stored is sealed.
    pub sealed: bool,
    /// Backups, the oldest first.
    pub backups: Arc<Vec<BackupRecord>>,
    /// Names and beginnings of backups of which no more is known: those of a sealed repository that is not opened.
    pub listed: Arc<Vec<BackupId>>,
    /// Backups whose manifest cannot be read, and why.
    pub unread: Vec<(BackupId, String)>,
    /// Backups beyond those that are kept in mind, the older ones.
    pub left_out: u64,
    /// Proofs, the newest first.
    pub proofs: Arc<Vec<ProofRecord>>,
    /// Plans that have not come to their ends, the oldest first.
    pub plans: Vec<PlanRecord>,
    /// Windows, the oldest first.
    pub windows: Vec<WindowRecord>,
    /// What is archived of binary log.
    pub binlogs: BinlogFigures,
    /// Packs that a check found damaged and none found whole since.
    pub damaged_packs: u64,
}

impl ServerRecord {
    /// A repository that was found and not read yet.
    pub fn waiting(name: &str, url: &str) -> ServerRecord {
        ServerRecord {
            name: name.to_owned(),
            url: url.to_owned(),
            reading: Reading::Waiting,
            read_at: None,
            fault: None,
            failures: 0,
            sealed: false,
            backups: Arc::default(),
            listed: Arc::default(),
            unread: Vec::new(),
            left_out: 0,
            proofs: Arc::default(),
            plans: Vec::new(),
            windows: Vec::new(),
            binlogs: BinlogFigures::default(),
            damaged_packs: 0,
        }
    }

    /// One that could not even be opened.
    pub fn failed(name: &str, url: &str, fault: Fault) -> ServerRecord {
        let waiting = ServerRecord::waiting(name, url);
        ServerRecord { reading: Reading::Failed, fault: Some(fault), failures: 1, ..waiting }
    }

    /// Looks in a row that failed although the store answered.
    pub(super) fn wasted_looks(&self) -> u32 {
        let away = self.fault.as_ref().is_some_and(|fault| fault.kind == Kind::StorageUnavailable);
        if away { 0 } else { self.failures }
    }

    /// What people call it: its path, or the last part of its URL.
    pub fn title(&self) -> &str {
        if self.name.is_empty() { self.url.rsplit('/').next().unwrap_or(&self.url) } else { &self.name }
    }

    /// The newest backup.
    pub fn newest(&self) -> Option<&BackupRecord> {
        self.backups.last()
    }

    /// When the newest backup was done; of a sealed one when it was begun, which its name tells.
    pub fn newest_at(&self) -> Option<Timestamp> {
        let listed = || self.listed.last().and_then(|id| Timestamp::parse_compact(id.as_str().split('-').next()?));
        self.backups.iter().map(|backup| backup.finished).max().or_else(listed)
    }

    /// How many backups there are.
    pub fn backup_count(&self) -> u64 {
        (self.backups.len().max(self.listed.len()) + self.unread.len()) as u64 + self.left_out
    }

    /// The last moment that can be restored.
    pub fn protected_until(&self) -> Option<Timestamp> {
        self.windows.iter().map(|window| window.to).max().max(self.newest_at())
    }

    /// The first moment that can be restored.
    pub fn oldest_restorable(&self) -> Option<Timestamp> {
        self.backups.iter().map(|backup| backup.finished).min()
    }

    /// The newest proof.
    pub fn last_proof(&self) -> Option<&ProofRecord> {
        self.proofs.first()
    }

    /// The newest proof that passed.
    pub fn last_proven(&self) -> Option<&ProofRecord> {
        self.proofs.iter().find(|proof| proof.passed == Some(true))
    }

    /// The newest time to recover that a drill measured, in milliseconds.
    pub fn rto_ms(&self) -> Option<u64> {
        self.last_proven().and_then(|proof| proof.rto_ms)
    }

    /// Host name and version of the server, from its newest backup.
    pub fn host(&self) -> Option<(&str, &str)> {
        self.newest().map(|backup| (backup.server.0.as_str(), backup.server.1.as_str()))
    }
}
