//! Backups, in lists and by themselves.

use serde::Serialize;

use super::{Facts, ProofLine, drill::proof_facts, last_passed};
use crate::{
    cli::{failure::Failure, human, output::Message, paint::Paint},
    format::{BackupKind, GtidPosition, LsnRange, Manifest, Proof, RedoFormat, Server, Sizes, StoredBlock},
    model::{BackupId, Lsn, RepositoryId, Timestamp},
};

/// LSNs as JSON.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Lsns {
    /// Pages at or below it were left out.
    pub from: Lsn,
    /// Start checkpoint.
    pub start: Lsn,
    /// Newest checkpoint at the end.
    pub to: Lsn,
    /// State that a restore yields.
    pub last: Lsn,
}

impl From<LsnRange> for Lsns {
    fn from(LsnRange { from, start, to, last }: LsnRange) -> Lsns {
        Lsns { from, start, to, last }
    }
}

/// Seconds that a capture took.
pub(in crate::cli) fn capture_seconds(manifest: &Manifest) -> u64 {
    u64::try_from(manifest.finished.seconds_since(manifest.started)).unwrap_or_default()
}

/// Summary of `backup`.
#[derive(Debug, Clone, Serialize)]
pub struct BackupSummary<'a> {
    backup_id: &'a BackupId,
    kind: &'static str,
    reason: &'a str,
    tags: &'a [String],
    parent: Option<&'a BackupId>,
    depth: u32,
    started: Timestamp,
    finished: Timestamp,
    seconds: u64,
    lsn: Lsns,
    sizes: Sizes,
    position: &'a GtidPosition,
    spaces: u64,
    files: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    locked_until: Option<Timestamp>,
    warnings: &'a [String],
}

impl<'a> From<&'a Manifest> for BackupSummary<'a> {
    fn from(manifest: &'a Manifest) -> BackupSummary<'a> {
        BackupSummary {
            backup_id: &manifest.id,
            kind: manifest.kind.name(),
            reason: &manifest.reason,
            tags: &manifest.tags,
            parent: manifest.parent.as_ref(),
            depth: manifest.depth,
            started: manifest.started,
            finished: manifest.finished,
            seconds: capture_seconds(manifest),
            lsn: manifest.lsn.into(),
            sizes: manifest.sizes,
            position: &manifest.position,
            spaces: manifest.spaces,
            files: manifest.files,
            locked_until: manifest.locked_until,
            warnings: &manifest.warnings,
        }
    }
}

impl Message for BackupSummary<'_> {
    const TYPE: &'static str = "summary";
}

impl BackupSummary<'_> {
    /// For people.
    pub fn text(&self, paint: Paint) -> String {
        let Sizes { logical_bytes, stream_bytes, uploaded_bytes, uploaded_packs, .. } = self.sizes;
        let parent = self.parent.map(|parent| format!("incremental {} on {parent}", self.depth));
        let Lsns { from, start, last, .. } = self.lsn;
        let pages = if from == Lsn(0) { "all pages".to_owned() } else { format!("pages after LSN {from}") };
        let (files, packs) = (human::counted(self.spaces + self.files, "file"), human::counted(uploaded_packs, "pack"));
        let (time, rate) = (human::duration(self.seconds), human::rate(stream_bytes, self.seconds as f64));
        let facts = Facts::default()
            .with("kind", parent.unwrap_or_else(|| self.kind.to_owned()))
            .with("reason", self.reason)
            .with("captured", format!("{pages}, redo log from {start}"))
            .with("restores to", format!("LSN {last}"))
            .with_some("GTID", self.position.gtid.clone())
            .with("server", format!("{} in {files}", human::bytes(logical_bytes)))
            .with("read", format!("{} in {time}, {rate}", human::bytes(stream_bytes)))
            .with("uploaded", format!("{} in {packs}", human::bytes(uploaded_bytes)))
            .with_some("locked", self.locked_until.map(|until| format!("until {until} at least")));
        format!("backup {}\n{}", paint.bold(self.backup_id.as_str()), facts.text(paint))
    }
}

/// Where a backup stands in its lineage.
#[derive(Debug, Clone, Copy)]
pub struct LineagePlace<'a> {
    /// The root of the lineage.
    pub root: &'a BackupId,
    /// True when the parent is not in the repository.
    pub parent_gone: bool,
}

/// A `backup` line of `list` and `show`.
#[derive(Debug, Clone, Serialize)]
pub struct BackupLine<'a> {
    backup_id: &'a BackupId,
    damaged: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a Failure>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deleted_after: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    proven: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rto_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    proofs: Vec<ProofLine<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    in_copy: Option<bool>,
    #[serde(flatten)]
    content: Option<Content<'a>>,
}

#[derive(Debug, Clone, Serialize)]
struct Content<'a> {
    edition: u32,
    kind: &'static str,
    reason: &'a str,
    tags: &'a [String],
    parent: Option<&'a BackupId>,
    parent_gone: bool,
    depth: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    lineage: Option<&'a BackupId>,
    started: Timestamp,
    finished: Timestamp,
    seconds: u64,
    lsn: Lsns,
    sizes: Sizes,
    spaces: u64,
    files: u64,
    position: &'a GtidPosition,
    server: &'a Server,
    redo: &'a RedoFormat,
    filters: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    locked_until: Option<Timestamp>,
    warnings: &'a [String],
    tool_version: &'a str,
    haulout_version: &'a str,
    repository_id: RepositoryId,
    map: &'a StoredBlock,
}

impl Message for BackupLine<'_> {
    const TYPE: &'static str = "backup";
}

impl<'a> BackupLine<'a> {
    /// A backup that can be read; `place` is known to `list` alone.
    pub fn of(manifest: &'a Manifest, place: Option<LineagePlace<'a>>) -> BackupLine<'a> {
        let content = Content {
            edition: manifest.edition,
            kind: manifest.kind.name(),
            reason: &manifest.reason,
            tags: &manifest.tags,
            parent: manifest.parent.as_ref(),
            parent_gone: place.is_some_and(|place| place.parent_gone),
            depth: manifest.depth,
            lineage: place.map(|place| place.root),
            started: manifest.started,
            finished: manifest.finished,
            seconds: capture_seconds(manifest),
            lsn: manifest.lsn.into(),
            sizes: manifest.sizes,
            spaces: manifest.spaces,
            files: manifest.files,
            position: &manifest.position,
            server: &manifest.server,
            redo: &manifest.redo,
            filters: &manifest.filters,
            locked_until: manifest.locked_until,
            warnings: &manifest.warnings,
            tool_version: &manifest.tool_version,
            haulout_version: &manifest.haulout_version,
            repository_id: manifest.repository_id,
            map: &manifest.map,
        };
        BackupLine { content: Some(content), ..BackupLine::bare(&manifest.id) }
    }

    /// The same with what does not hold of it.
    #[must_use]
    pub fn with_fault(self, fault: Option<&'a Failure>) -> BackupLine<'a> {
        BackupLine { damaged: fault.is_some(), error: fault, ..self }
    }

    /// A backup whose manifest cannot be read.
    pub fn damaged(backup_id: &'a BackupId, error: &'a Failure) -> BackupLine<'a> {
        BackupLine { damaged: true, error: Some(error), ..BackupLine::bare(backup_id) }
    }

    fn bare(backup_id: &'a BackupId) -> BackupLine<'a> {
        BackupLine {
            backup_id,
            damaged: false,
            error: None,
            deleted_after: None,
            in_copy: None,
            proven: None,
            rto_seconds: None,
            proofs: Vec::new(),
            content: None,
        }
    }

    /// The same with its proofs, the newest first.
    #[must_use]
    pub fn proven(self, proofs: &'a [Proof]) -> BackupLine<'a> {
        let passed = last_passed(proofs);
        BackupLine {
            proven: passed.map(|proof| proof.finished),
            rto_seconds: passed.map(|proof| proof.took.rto_ms() as f64 / 1000.0),
            proofs: proofs.iter().map(ProofLine::from).collect(),
            ..self
        }
    }

    /// The same with when it may be deleted.
    #[must_use]
    pub fn planned(self, deleted_after: Option<Timestamp>) -> BackupLine<'a> {
        BackupLine { deleted_after, ..self }
    }

    /// The same with whether a copy has it, where one was looked at.
    #[must_use]
    pub fn copied(self, in_copy: Option<bool>) -> BackupLine<'a> {
        BackupLine { in_copy, ..self }
    }
}

/// Everything about a backup, for people.
pub(in crate::cli) fn details(manifest: &Manifest, proofs: &[Proof], paint: Paint) -> String {
    let sections = [
        ("xtrabackup_checkpoints", checkpoints(manifest)),
        ("Redo log", redo_log(manifest)),
        ("Sizes", figures(manifest)),
        ("Server", server(manifest)),
        ("Made by", makers(manifest)),
        ("Page map", page_map(manifest)),
    ];
    let mut text = format!("backup {}\n{}", paint.bold(manifest.id.as_str()), head(manifest).text(paint));
    for (title, facts) in sections {
        text += &format!("\n{}\n{}", paint.bold(title), facts.text(paint));
    }
    if !proofs.is_empty() {
        text += &format!("\n{}\n{}", paint.bold("Drills"), proof_facts(proofs).text(paint));
    }
    text
}

/// Said where there is nothing to say.
const NONE: &str = "–";

fn or_none(text: Option<String>) -> String {
    text.unwrap_or_else(|| NONE.to_owned())
}

fn lines(items: &[String]) -> String {
    if items.is_empty() { NONE.to_owned() } else { items.join("\n") }
}

fn head(manifest: &Manifest) -> Facts {
    let kind = match manifest.kind {
        BackupKind::Full => "full".to_owned(),
        BackupKind::Incremental => format!("incremental, number {} after its full", manifest.depth),
    };
    let time = |moment: Timestamp| moment.to_string().replace('T', " ").replace('Z', " UTC");
    let took = human::duration(capture_seconds(manifest));
    Facts::default()
        .with("kind", kind)
        .with("reason", &manifest.reason)
        .with_some(
            "edition",
            Some(manifest.edition)
                .filter(|edition| *edition > 0)
                .map(|edition| format!("{edition}, by `haulout compact`")),
        )
        .with_some("tags", Some(manifest.tags.join(" ")).filter(|tags| !tags.is_empty()))
        .with("parent", or_none(manifest.parent.as_ref().map(BackupId::to_string)))
        .with("started", time(manifest.started))
        .with("finished", format!("{} ({took})", time(manifest.finished)))
        .with_some("locked", manifest.locked_until.map(|until| format!("until {} at least", time(until))))
        .with("warnings", lines(&manifest.warnings))
}

/// LSNs by the names and in the words of that file.
fn checkpoints(Manifest { kind, lsn, .. }: &Manifest) -> Facts {
    Facts::default()
        .with("backup_type", format!("= {}", checkpoint_type(*kind)))
        .with("from_lsn", format!("= {}", lsn.from))
        .with("to_lsn", format!("= {}", lsn.to))
        .with("last_lsn", format!("= {}", lsn.last))
}

fn redo_log(Manifest { lsn, redo, .. }: &Manifest) -> Facts {
    Facts::default()
        .with("starts at", format!("{} (start checkpoint, not in xtrabackup_checkpoints)", lsn.start))
        .with("ends at", lsn.last.to_string())
        .with("size", human::bytes(redo.bytes))
        .with("written by", &redo.creator)
        .with("encrypted", if redo.encrypted { "yes" } else { "no" })
}

fn figures(Manifest { sizes, spaces, files, .. }: &Manifest) -> Facts {
    let (spaces, files) = (human::counted(*spaces, "tablespace file"), human::counted(*files, "other file"));
    let packs = human::counted(sizes.uploaded_packs, "pack");
    Facts::default()
        .with("restored", format!("{} in {spaces} and {files}", human::bytes(sizes.logical_bytes)))
        .with("read", format!("{} from mariadb-backup", human::bytes(sizes.stream_bytes)))
        .with("uploaded", format!("{} in {packs}", human::bytes(sizes.uploaded_bytes)))
        .with("stored", format!("{}, shared with other backups", human::bytes(sizes.stored_bytes)))
}

fn server(Manifest { server, position, .. }: &Manifest) -> Facts {
    let binlog = position.file.as_ref().map(|file| format!("{file}:{}", position.position.unwrap_or_default()));
    Facts::default()
        .with("host", format!("{} (server_id {})", server.hostname, server.server_id))
        .with("version", &server.version)
        .with("datadir", &server.datadir)
        .with("page size", human::bytes(u64::from(server.page_size)))
        .with("ibdata", &server.data_file_path)
        .with("undo", human::counted(u64::from(server.undo_tablespaces), "tablespace"))
        .with_some("cluster", (server.galera == Some(true)).then(|| "a node of a Galera cluster".to_owned()))
        .with("GTID", or_none(position.gtid.clone()))
        .with("binary log", or_none(binlog))
}

fn makers(manifest: &Manifest) -> Facts {
    Facts::default()
        .with("haulout", &manifest.haulout_version)
        .with("mariadb-backup", &manifest.tool_version)
        .with("filters", lines(&manifest.filters))
        .with("repository", manifest.repository_id.to_string())
}

fn page_map(Manifest { map, .. }: &Manifest) -> Facts {
    Facts::default()
        .with("root", map.chunk.to_string())
        .with("pack", map.pack.to_string())
        .with("offset", map.offset.to_string())
}

/// `backup_type` as `mariadb-backup` writes it.
fn checkpoint_type(kind: BackupKind) -> &'static str {
    match kind {
        BackupKind::Full => "full-backuped",
        BackupKind::Incremental => "incremental",
    }
}
