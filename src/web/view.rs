//! What pages and the JSON API tell of servers, backups and tables: one set of types for both, so that neither knows more.

use serde::Serialize;
use utoipa::ToSchema;

use crate::fleet::{
    BackupRecord, Forecast, Judgement, PlanRecord, ProofRecord, Reading, ServerRecord, Snapshot, Standing, TableSizes,
    WindowRecord, gaps,
};
use crate::format::Manifest;
use crate::model::Timestamp;

/// Backups whose additions the fleet's table draws.
const TREND_BACKUPS: usize = 14;

impl utoipa::PartialSchema for Timestamp {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, SchemaFormat, Type};
        ObjectBuilder::new()
            .schema_type(Type::String)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
            .description(Some("a moment in UTC"))
            .into()
    }
}

impl ToSchema for Timestamp {}

/// A server of the fleet.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct ServerView {
    /// Its path under the place; empty where the place itself is the repository.
    pub server: String,
    /// As it stands in addresses: `~1` for a slash, `~0` for a tilde, `~` for the empty name.
    pub slug: String,
    /// What people call it.
    pub title: String,
    /// URL of the repository.
    pub url: String,
    /// How it stands, in a word: the worst that is to be said.
    pub standing: String,
    /// `critical`, `warning`, `unknown` or `fine`.
    pub severity: String,
    /// The standing for people.
    #[serde(skip)]
    pub label: String,
    /// Why, for people.
    pub reason: String,
    /// What else is not as it should be.
    pub also: Vec<String>,
    /// Host name of the server.
    pub host: Option<String>,
    /// Its version.
    pub version: Option<String>,
    /// Whether what is stored is sealed.
    pub sealed: bool,
    /// Number of backups.
    pub backups: u64,
    /// When the newest backup was done.
    pub newest_backup: Option<Timestamp>,
    /// The last moment that can be restored.
    pub protected_until: Option<Timestamp>,
    /// The first one.
    pub oldest_restorable: Option<Timestamp>,
    /// When the last drill ended.
    pub last_drill: Option<Timestamp>,
    /// Whether it passed.
    pub last_drill_passed: Option<bool>,
    /// When the last drill that passed ended.
    pub last_proven: Option<Timestamp>,
    /// Seconds until a restored server answered, in that drill.
    pub rto_seconds: Option<f64>,
    /// Bytes of the newest backup once restored.
    pub logical_bytes: Option<u64>,
    /// Whether more is known than names and times.
    pub opened: bool,
    /// Bytes in the store, drawn from manifests and the listing of binary logs, where these are known.
    pub stored_bytes: Option<u64>,
    /// Bytes that come in a day, where that can be told.
    pub bytes_per_day: Option<f64>,
    /// Bytes that the newest backups added, the oldest first.
    pub trend: Vec<u64>,
    /// Gaps between windows.
    pub gaps: u64,
    /// When the repository was read last.
    pub read_at: Option<Timestamp>,
}

impl ServerView {
    pub(super) fn of(record: &ServerRecord, judgement: &Judgement) -> ServerView {
        let drill = record.last_proof();
        let skipped = record.backups.len().saturating_sub(TREND_BACKUPS);
        ServerView {
            server: record.name.clone(),
            slug: slug(&record.name),
            title: record.title().to_owned(),
            url: record.url.clone(),
            standing: judgement.standing.name().to_owned(),
            severity: judgement.standing.severity().name().to_owned(),
            label: judgement.standing.label().to_owned(),
            reason: judgement.reason.clone(),
            also: judgement.also.iter().map(|(_, reason)| reason.clone()).collect(),
            host: record.host().map(|(host, _)| host.to_owned()),
            version: record.host().map(|(_, version)| version.to_owned()),
            sealed: record.sealed,
            backups: record.backup_count(),
            newest_backup: record.newest_at(),
            protected_until: record.protected_until(),
            oldest_restorable: record.oldest_restorable(),
            last_drill: drill.map(|proof| proof.finished),
            last_drill_passed: drill.and_then(|proof| proof.passed),
            last_proven: record.last_proven().map(|proof| proof.finished),
            rto_seconds: record.rto_ms().map(|ms| ms as f64 / 1000.0),
            logical_bytes: record.newest().map(|backup| backup.logical_bytes),
            opened: record.reading == Reading::Read,
            stored_bytes: stored(record),
            bytes_per_day: Forecast::of(record).map(|forecast| forecast.bytes_per_day),
            trend: record.backups[skipped..].iter().map(|backup| backup.uploaded_bytes).collect(),
            gaps: gaps(&record.windows).len() as u64,
            read_at: record.read_at,
        }
    }
}

fn stored(record: &ServerRecord) -> Option<u64> {
    crate::fleet::stored_over_time(record).last().map(|(_, bytes)| *bytes)
}

/// A fleet.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct FleetView {
    /// URL of the place.
    pub url: String,
    /// Servers that were found.
    pub found: u64,
    /// Those of them that were read.
    pub read: u64,
    /// True when the place has been searched to the end.
    pub complete: bool,
    /// Why the place cannot be listed now.
    pub problem: Option<String>,
    /// Servers by standing, of all that were found.
    pub standings: Vec<StandingCount>,
    /// Servers that the query asks for.
    pub matching: u64,
    /// The page, from 1, and how many there are.
    pub page: u64,
    /// Number of pages.
    pub pages: u64,
    /// The servers of this page.
    pub servers: Vec<ServerView>,
}

/// How many servers stand so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct StandingCount {
    /// The word.
    pub standing: String,
    /// How much it matters.
    pub severity: String,
    /// How many.
    pub servers: u64,
    /// The word for people.
    #[serde(skip)]
    pub label: String,
}

impl StandingCount {
    pub(super) fn of(standing: Standing, servers: u64) -> StandingCount {
        StandingCount {
            standing: standing.name().to_owned(),
            severity: standing.severity().name().to_owned(),
            label: standing.label().to_owned(),
            servers,
        }
    }
}

/// A server and all that is remembered of it.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct ServerDetails {
    /// In brief.
    #[serde(flatten)]
    pub summary: ServerView,
    /// Backups, the newest first.
    pub all_backups: Vec<BackupView>,
    /// Backups whose manifest cannot be read, and why.
    pub unreadable: Vec<String>,
    /// Drills, the newest first.
    pub drills: Vec<DrillView>,
    /// Plans that have not come to their ends.
    pub plans: Vec<PlanView>,
    /// Times in which any second can be restored, and the gaps between them.
    pub windows: WindowsView,
    /// What is archived of binary log.
    pub binlog_bytes: u64,
    /// Segments of it.
    pub binlog_segments: u64,
}

impl ServerDetails {
    pub(super) fn of(record: &ServerRecord, judgement: &Judgement) -> ServerDetails {
        ServerDetails {
            summary: ServerView::of(record, judgement),
            all_backups: record.backups.iter().rev().map(|backup| BackupView::of(record, backup)).collect(),
            unreadable: record.unread.iter().map(|(id, problem)| format!("{id}: {problem}")).collect(),
            drills: record.proofs.iter().map(DrillView::of).collect(),
            plans: record.plans.iter().map(PlanView::of).collect(),
            windows: WindowsView::of(record),
            binlog_bytes: record.binlogs.bytes,
            binlog_segments: record.binlogs.segments,
        }
    }
}

/// A backup in brief.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct BackupView {
    /// Its name.
    pub id: String,
    /// `full` or `incremental`.
    pub kind: String,
    /// The backup that an incremental reaches back to.
    pub parent: Option<String>,
    /// Incrementals since the full.
    pub depth: u32,
    /// When the capture began.
    pub started: Timestamp,
    /// When it was stored.
    pub finished: Timestamp,
    /// Seconds between.
    pub seconds: u64,
    /// Bytes once restored.
    pub logical_bytes: u64,
    /// Bytes that it added to the store.
    pub uploaded_bytes: u64,
    /// Bytes of all that it needs.
    pub stored_bytes: u64,
    /// Warnings in its manifest.
    pub warnings: u32,
    /// When a drill of it last passed.
    pub proven: Option<Timestamp>,
    /// When a plan that lets go of it may be carried out.
    pub goes_at: Option<Timestamp>,
}

impl BackupView {
    pub(super) fn of(record: &ServerRecord, backup: &BackupRecord) -> BackupView {
        let proofs = record.proofs.iter().filter(|proof| proof.backup == backup.id);
        let plans = record.plans.iter().filter(|plan| plan.backups.contains(&backup.id));
        BackupView {
            id: backup.id.to_string(),
            kind: backup.kind.name().to_owned(),
            parent: backup.parent.as_ref().map(ToString::to_string),
            depth: backup.depth,
            started: backup.started,
            finished: backup.finished,
            seconds: backup.seconds(),
            logical_bytes: backup.logical_bytes,
            uploaded_bytes: backup.uploaded_bytes,
            stored_bytes: backup.stored_bytes,
            warnings: backup.warnings,
            proven: proofs.filter(|proof| proof.passed == Some(true)).map(|proof| proof.finished).max(),
            goes_at: plans.filter_map(|plan| plan.due).min(),
        }
    }
}

/// A drill.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct DrillView {
    /// The backup.
    pub backup: String,
    /// When it ended.
    pub finished: Timestamp,
    /// Whether nothing failed, where that is known.
    pub passed: Option<bool>,
    /// The first failure, or why the proof cannot be read.
    pub problem: Option<String>,
    /// Seconds until the restored server answered.
    pub rto_seconds: Option<f64>,
    /// Tables that were checked.
    pub tables_checked: u64,
    /// Tables that were not.
    pub tables_left_out: u64,
    /// The machine.
    pub host: String,
}

impl DrillView {
    fn of(proof: &ProofRecord) -> DrillView {
        DrillView {
            backup: proof.backup.to_string(),
            finished: proof.finished,
            passed: proof.passed,
            problem: proof.problem.clone(),
            rto_seconds: proof.rto_ms.map(|ms| ms as f64 / 1000.0),
            tables_checked: proof.tables.0,
            tables_left_out: proof.tables.1,
            host: proof.host.clone(),
        }
    }
}

/// A prune plan that has not come to its end.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct PlanView {
    /// Its name.
    pub id: String,
    /// When it was stored.
    pub stored: Timestamp,
    /// When it may be carried out, where that is known.
    pub due: Option<Timestamp>,
    /// Whether something has begun to.
    pub begun: bool,
    /// Backups that go.
    pub backups: Vec<String>,
    /// Bytes that go.
    pub bytes: u64,
}

impl PlanView {
    fn of(plan: &PlanRecord) -> PlanView {
        PlanView {
            id: plan.id.to_string(),
            stored: plan.stored,
            due: plan.due,
            begun: plan.begun,
            backups: plan.backups.iter().map(ToString::to_string).collect(),
            bytes: plan.bytes,
        }
    }
}

/// From when to when any second can be restored.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct WindowsView {
    /// The windows, the oldest first.
    pub windows: Vec<WindowView>,
    /// The gaps between them.
    pub gaps: Vec<GapView>,
}

/// A time in which any second can be restored.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct WindowView {
    /// When its first backup was done.
    pub from: Timestamp,
    /// Time of the last transaction that was archived.
    pub to: Timestamp,
    /// Backups that it begins from.
    pub backups: u64,
    /// The GTID position at its end.
    pub gtid: String,
}

/// A time of which only the moments of backups can be restored.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct GapView {
    /// Where the window before it ends.
    pub from: Timestamp,
    /// Where the next one begins.
    pub to: Timestamp,
    /// Why, where the archiver knew it.
    pub reason: Option<String>,
}

impl WindowsView {
    pub(super) fn of(record: &ServerRecord) -> WindowsView {
        let window = |window: &WindowRecord| WindowView {
            from: window.from,
            to: window.to,
            backups: window.backups,
            gtid: window.gtid.clone(),
        };
        let gaps = gaps(&record.windows).into_iter();
        WindowsView {
            windows: record.windows.iter().map(window).collect(),
            gaps: gaps.map(|gap| GapView { from: gap.from, to: gap.to, reason: gap.reason }).collect(),
        }
    }
}

/// Everything that a manifest says which people ask for.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct BackupDetails {
    /// In brief.
    #[serde(flatten)]
    pub summary: BackupView,
    /// Why it is of its kind.
    pub reason: String,
    /// Words that the operator gave it.
    pub tags: Vec<String>,
    /// Host name of the server.
    pub host: String,
    /// Version of the server.
    pub server_version: String,
    /// Version of `mariadb-backup`.
    pub tool_version: String,
    /// Version of haulout.
    pub haulout_version: String,
    /// Its datadir.
    pub datadir: String,
    /// Bytes of a page.
    pub page_size: u32,
    /// LSN at or below which pages were left out; 0 for a full.
    pub lsn_from: String,
    /// LSN of the start checkpoint.
    pub lsn_start: String,
    /// LSN of the newest checkpoint at the end.
    pub lsn_to: String,
    /// LSN of the state that a restore yields.
    pub lsn_last: String,
    /// Bytes of its redo log.
    pub redo_bytes: u64,
    /// Binary log file.
    pub binlog_file: Option<String>,
    /// Position in it.
    pub binlog_position: Option<u64>,
    /// GTID position.
    pub gtid: Option<String>,
    /// InnoDB files.
    pub spaces: u64,
    /// Other files.
    pub files: u64,
    /// Packs that were put for it.
    pub uploaded_packs: u64,
    /// Sentences of warning.
    pub notes: Vec<String>,
    /// Until when everything that it needs is locked at least.
    pub locked_until: Option<Timestamp>,
    /// The command that restores it, for a shell.
    pub restore_command: String,
}

impl BackupDetails {
    pub(super) fn of(manifest: &Manifest, brief: BackupView, restore_command: String) -> BackupDetails {
        BackupDetails {
            summary: BackupView { warnings: manifest.warnings.len() as u32, ..brief },
            reason: manifest.reason.clone(),
            tags: manifest.tags.clone(),
            host: manifest.server.hostname.clone(),
            server_version: manifest.server.version.clone(),
            tool_version: manifest.tool_version.clone(),
            haulout_version: manifest.haulout_version.clone(),
            datadir: manifest.server.datadir.clone(),
            page_size: manifest.server.page_size,
            lsn_from: manifest.lsn.from.to_string(),
            lsn_start: manifest.lsn.start.to_string(),
            lsn_to: manifest.lsn.to.to_string(),
            lsn_last: manifest.lsn.last.to_string(),
            redo_bytes: manifest.redo.bytes,
            binlog_file: manifest.position.file.clone(),
            binlog_position: manifest.position.position,
            gtid: manifest.position.gtid.clone(),
            spaces: manifest.spaces,
            files: manifest.files,
            uploaded_packs: manifest.sizes.uploaded_packs,
            notes: manifest.warnings.clone(),
            locked_until: manifest.locked_until,
            restore_command,
        }
    }
}

/// Tables of a backup.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct TablesView {
    /// Those of users: what was added to the most first.
    pub tables: Vec<TableView>,
    /// Tables that are not named, because there are too many.
    pub more: u64,
    /// Everything else.
    pub others: TableView,
    /// The backup that it was compared with.
    pub compared: Option<String>,
}

/// A table.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct TableView {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub table: String,
    /// What keeps its rows.
    pub engine: String,
    /// Bytes of its files.
    pub logical_bytes: u64,
    /// Bytes that their chunks take in the store.
    pub stored_bytes: u64,
    /// Bytes of these that the backup before did not have.
    pub added_bytes: u64,
}

impl TablesView {
    pub(super) fn of(sizes: &TableSizes) -> TablesView {
        let tables = sizes.tables.iter().map(|table| TableView {
            schema: table.schema.clone(),
            table: table.table.clone(),
            engine: table.engine.to_owned(),
            logical_bytes: table.logical_bytes,
            stored_bytes: table.stored_bytes,
            added_bytes: table.added_bytes,
        });
        let (logical_bytes, stored_bytes, added_bytes) = sizes.others;
        let empty = String::new;
        let others =
            TableView { schema: empty(), table: empty(), engine: empty(), logical_bytes, stored_bytes, added_bytes };
        TablesView {
            tables: tables.collect(),
            more: sizes.more,
            others,
            compared: sizes.compared.as_ref().map(ToString::to_string),
        }
    }
}

/// How the service itself is.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct StatusView {
    /// Version of haulout.
    pub version: String,
    /// URL of the place.
    pub url: String,
    /// Servers that were found.
    pub found: u64,
    /// Those of them that were read.
    pub read: u64,
    /// Looks at repositories that went well.
    pub looks: u64,
    /// Looks that failed.
    pub failed_looks: u64,
    /// Why the place cannot be listed now.
    pub problem: Option<String>,
    /// Whether an agent is attached.
    pub agent: bool,
    /// Whether runs can be started with a token.
    pub can_start: bool,
}

impl StatusView {
    pub(super) fn of(snapshot: &Snapshot, agent: bool, can_start: bool) -> StatusView {
        StatusView {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            url: snapshot.url.clone(),
            found: snapshot.servers.len() as u64,
            read: snapshot.read,
            looks: snapshot.looks.0,
            failed_looks: snapshot.looks.1,
            problem: snapshot.fault.as_ref().map(|fault| fault.message.clone()),
            agent,
            can_start,
        }
    }
}

/// The name of a server as it stands in addresses, after RFC 6901: a slash in them is changed by some proxies.
pub(super) fn slug(name: &str) -> String {
    if name.is_empty() { "~".to_owned() } else { name.replace('~', "~0").replace('/', "~1") }
}

/// The name that a slug stands for.
pub(super) fn unslug(slug: &str) -> String {
    if slug == "~" { String::new() } else { slug.replace("~1", "/").replace("~0", "~") }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_name_comes_back_from_its_address(name in "[a-z~/01 ]{0,12}") {
            let slug = slug(&name);
            prop_assert!(!slug.contains('/') && !slug.is_empty());
            prop_assert_eq!(unslug(&slug), name);
        }
    }
}
