//! One backup: what it is, what is inside, and the command that restores it.

use askama::Template;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use axum::response::Response;
use serde::Deserialize;

use super::super::App;
use super::super::svg;
use super::super::text::{ago, escaped, moment, second, shell_word};
use super::super::view::{BackupDetails, ServerView, TableView, TablesView, slug, unslug};
use super::{Frame, page, told};
use crate::fleet::ServerRecord;
use crate::format::Manifest;
use crate::model::{Timestamp, human};

/// Tables of a backup's page.
const TABLES_SHOWN: usize = 500;
/// The command that restores a backup, for a shell of the machine that it is restored on.
pub(in crate::web) fn restore_command(record: &ServerRecord, manifest: &Manifest) -> String {
    let datadir = manifest.server.datadir.trim_end_matches('/');
    let datadir = if datadir.is_empty() { "/var/lib/mysql" } else { datadir };
    format!(
        "haulout --repo {} restore --backup {} --datadir {} --owner mysql:mysql",
        shell_word(&record.url),
        shell_word(manifest.id.as_str()),
        shell_word(datadir)
    )
}

#[derive(Template)]
#[template(path = "backup.html")]
struct BackupPage {
    frame: Frame,
    server: ServerView,
    details: BackupDetails,
    facts: Vec<(&'static str, String)>,
    goes: Option<String>,
    to_time: Option<String>,
    tables: Option<TablesView>,
    table_rows: Vec<TableRow>,
    tables_left_out: u64,
    tables_problem: Option<String>,
    tables_address: String,
}

struct TableRow {
    name: String,
    engine: String,
    logical: String,
    stored: String,
    added: String,
    share: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::web) struct TablesQuery {
    tables: String,
}

pub(in crate::web) async fn backup(
    State(app): State<App>,
    headers: HeaderMap,
    Path((server, backup)): Path<(String, String)>,
    query: Result<Query<TablesQuery>, QueryRejection>,
) -> Response {
    let name = unslug(&server);
    let found = match app.server(&name) {
        Ok((record, judgement)) => app.backup(&name, &backup).await.map(|details| (record, judgement, details)),
        Err(missing) => Err(missing),
    };
    let (record, judgement, details) = match found {
        Ok(found) => found,
        Err(missing) => return told(&app, &headers, missing),
    };
    let now = app.now();
    let wanted = query.is_ok_and(|Query(query)| query.tables == "show");
    let (tables, tables_problem) = match wanted {
        false => (None, None),
        true => match app.tables(&name, &backup).await {
            Ok(tables) => (Some(tables), None),
            Err(missing) => (None, Some(missing.message)),
        },
    };
    let most = tables.as_ref().and_then(|view| view.tables.iter().map(|table| table.added_bytes).max()).unwrap_or(0);
    let rows = tables.iter().flat_map(|view| &view.tables).take(TABLES_SHOWN).map(|table| table_row(table, most));
    let window = record
        .windows
        .iter()
        .find(|window| window.from <= details.summary.finished && details.summary.finished < window.to);
    let page_template = BackupPage {
        server: ServerView::of(&record, &judgement),
        facts: facts(&details),
        goes: details.summary.goes_at.map(|at| format!("{} ({})", moment(at), ago(at, now))),
        to_time: window.map(|window| to_time(&details.restore_command, &backup, window.to)),
        table_rows: rows.collect(),
        tables_left_out: tables
            .as_ref()
            .map_or(0, |view| view.more + view.tables.len().saturating_sub(TABLES_SHOWN) as u64),
        tables,
        tables_problem,
        tables_address: format!("/servers/{}/backups/{backup}?tables=show#tables", slug(&name)),
        frame: app.frame(&format!("Backup {backup}"), "fleet", &headers),
        details,
    };
    page(&page_template)
}

/// The same command to a second: the backup is chosen by it.
fn to_time(command: &str, backup: &str, to: Timestamp) -> String {
    command.replacen(&format!("--backup {backup}"), &format!("--to-time {to}"), 1)
}

fn table_row(table: &TableView, most: u64) -> TableRow {
    TableRow {
        name: format!("{}.{}", table.schema, table.table),
        engine: table.engine.clone(),
        logical: human::bytes(table.logical_bytes),
        stored: human::bytes(table.stored_bytes),
        added: human::bytes(table.added_bytes),
        share: svg::share(table.added_bytes, most),
    }
}

fn facts(details: &BackupDetails) -> Vec<(&'static str, String)> {
    let text = |text: &str| escaped(text);
    let mut facts = vec![
        ("Kind", format!("{}: {}", text(&details.summary.kind), text(&details.reason))),
        (
            "Captured",
            format!(
                "{} to {}, {}",
                second(details.summary.started),
                second(details.summary.finished),
                human::duration(details.summary.seconds)
            ),
        ),
        ("Server", format!("{}, MariaDB {}", text(&details.host), text(&details.server_version))),
        ("Once restored", human::bytes(details.summary.logical_bytes)),
        (
            "Added to the store",
            format!(
                "{} in {}",
                human::bytes(details.summary.uploaded_bytes),
                human::counted(details.uploaded_packs, "pack")
            ),
        ),
        ("Needs in the store", human::bytes(details.summary.stored_bytes)),
        (
            "Files",
            format!("{} of InnoDB, {}", human::count(details.spaces), human::counted(details.files, "other file")),
        ),
        (
            "LSN",
            format!(
                "from {}, start {}, to {}, last {}",
                details.lsn_from, details.lsn_start, details.lsn_to, details.lsn_last
            ),
        ),
        ("Redo log", human::bytes(details.redo_bytes)),
    ];
    if let Some(parent) = &details.summary.parent {
        facts.insert(1, ("Parent", text(parent)));
    }
    if let (Some(file), Some(position)) = (&details.binlog_file, details.binlog_position) {
        facts.push(("Binary log", format!("{} at {position}", text(file))));
    }
    if let Some(gtid) = &details.gtid {
        facts.push(("GTID", text(gtid)));
    }
    facts.push((
        "Programs",
        format!("haulout {}, mariadb-backup {}", text(&details.haulout_version), text(&details.tool_version)),
    ));
    if !details.tags.is_empty() {
        facts.push(("Tags", text(&details.tags.join(", "))));
    }
    if let Some(until) = details.locked_until {
        facts.push(("Locked until", moment(until)));
    }
    facts
}
