//! `haulout list`.

mod fleet;
mod windows;

use std::collections::BTreeMap;

use serde::Serialize;

use super::{
    Context, Finish,
    table::{Column, Table},
};
use crate::{
    cli::{
        args::ListArgs,
        failure::Failure,
        human,
        lineage::{Entry, Forest, Row},
        open,
        options::{StoreSettings, copy_place},
        output::{Message, Output},
        paint::Paint,
        report::{BackupLine, CopyState, LineagePlace, capture_seconds, proof_cells},
    },
    copy::{self, Lag},
    error::Kind,
    format::{BackupKind, Manifest, Proof},
    model::{BackupId, Timestamp},
    prune::{self, Planned},
};

/// What the repository holds.
#[derive(Debug, Clone)]
pub struct Listing {
    /// Where it is.
    pub url: String,
    /// All its backups, in any order.
    pub entries: Vec<Entry>,
    /// Backups that prune plans let go of.
    pub planned: Vec<(BackupId, Planned)>,
    /// What drills proved of them, the newest first.
    pub proofs: BTreeMap<BackupId, Vec<Proof>>,
    /// Whether nothing in it can be read without a key.
    pub sealed: bool,
    /// Where its copy is and how far that is behind, where that was asked for.
    pub copy: Option<(String, Lag)>,
}

/// Lists the backups.
///
/// # Errors
/// When the settings are wrong or the repository cannot be read; a damaged manifest is no error but [`Finish::Damaged`].
pub async fn run(args: &ListArgs, context: &Context) -> Result<Finish, Failure> {
    let settings = context.settle(StoreSettings::assemble(&context.layers, context.url(), &args.store))?;
    if args.windows {
        return windows::list(&settings, context).await;
    }
    let place = match args.copy {
        true => Some(context.settle(copy_place(&context.layers, &args.place))?),
        false => None,
    };
    match operation(&settings, place.as_ref(), context).await {
        Ok(listing) => Ok(tell(&listing, args.wide, &context.output)),
        // Whoever does not know the repositories looks for them above.
        Err(failure) if failure.kind == Kind::NoRepository && place.is_none() => {
            fleet::list(&settings, context).await.ok().flatten().ok_or(failure)
        }
        Err(failure) => Err(failure),
    }
}

async fn operation(
    settings: &StoreSettings,
    place: Option<&StoreSettings>,
    context: &Context,
) -> Result<Listing, Failure> {
    let repository = open::repository(settings, context).await?;
    let manifests = repository.manifests().await?;
    let entries: Vec<Entry> = manifests.into_iter().map(|(id, manifest)| Entry::new(id, manifest)).collect();
    let ids: Vec<BackupId> = entries.iter().map(|entry| entry.id.clone()).collect();
    let planned = prune::planned(&repository, &ids).await?;
    let proofs = open::proofs(&repository, &ids, context).await?;
    let copy = match place {
        Some(place) => {
            let target = super::copy::place(place, context).await?;
            Some((place.url.clone(), copy::lag(&repository, &target, &ids).await?))
        }
        None => None,
    };
    let sealed = repository.keyring().is_sealed();
    Ok(Listing { url: settings.url.clone(), entries, planned, proofs, sealed, copy })
}

/// Tells `listing`, on a terminal as wide as that is unless `wide`.
pub(in crate::cli) fn tell(listing: &Listing, wide: bool, output: &Output) -> Finish {
    let forest = Forest::grow(&listing.entries);
    let summary = ListSummary::of(listing, &forest);
    if output.is_json() {
        forest.rows.iter().for_each(|row| tell_json(row, listing, output));
        output.json(&summary);
    } else {
        let width = output.options.columns.filter(|_| !wide);
        output.data(text(listing, &summary, &forest, width, output.options.stdout).as_bytes());
        output.data(planned(listing).as_bytes());
        if let Some(copy) = &summary.copy {
            output.data(copy.text(output.options.stdout).as_bytes());
        }
        for row in &forest.rows {
            if let Some(damage) = row.damage() {
                let why: Vec<&str> = [&damage.message].into_iter().chain(&damage.causes).map(String::as_str).collect();
                output.warn(&why.join(": "));
            }
        }
    }
    if summary.damaged == 0 { Finish::Done } else { Finish::Damaged }
}

impl Listing {
    /// When a backup may be deleted, if a plan lets go of it.
    fn due(&self, backup: &BackupId) -> Option<Timestamp> {
        self.planned.iter().find(|(id, _)| id == backup).map(|(_, planned)| planned.due)
    }

    /// Its proofs, the newest first.
    fn proofs(&self, backup: &BackupId) -> &[Proof] {
        self.proofs.get(backup).map_or(&[], Vec::as_slice)
    }

    /// Whether the copy has a backup, where one was looked at.
    fn in_copy(&self, backup: &BackupId) -> Option<bool> {
        self.copy.as_ref().map(|(_, lag)| lag.backups.contains(backup))
    }

    fn copy_state(&self) -> Option<CopyState<'_>> {
        let started = |id: &BackupId| {
            let entry = self.entries.iter().find(|entry| entry.id == *id)?;
            Some(entry.manifest.as_ref().ok()?.started)
        };
        self.copy.as_ref().map(|(url, lag)| CopyState::of(url, lag, started))
    }
}

fn tell_json(row: &Row<'_>, listing: &Listing, output: &Output) {
    let (id, place) = (&row.entry.id, LineagePlace { root: row.root, parent_gone: row.parent_gone.is_some() });
    let (due, proofs, in_copy) = (listing.due(id), listing.proofs(id), listing.in_copy(id));
    match &row.entry.manifest {
        Ok(manifest) => {
            let line = BackupLine::of(manifest, Some(place)).with_fault(row.fault.as_ref());
            output.json(&line.planned(due).proven(proofs).copied(in_copy));
        }
        Err(failure) => output.json(&BackupLine::damaged(id, failure).planned(due).proven(proofs).copied(in_copy)),
    }
}

/// Summary of `list`.
#[derive(Debug, Clone, Serialize)]
pub struct ListSummary<'a> {
    url: &'a str,
    backups: u64,
    full: u64,
    incremental: u64,
    damaged: u64,
    lineages: u64,
    latest: Option<&'a BackupId>,
    uploaded_bytes: u64,
    sealed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    copy: Option<CopyState<'a>>,
}

impl Message for ListSummary<'_> {
    const TYPE: &'static str = "summary";
}

impl<'a> ListSummary<'a> {
    fn of(listing: &'a Listing, forest: &Forest<'a>) -> ListSummary<'a> {
        let sound = || forest.rows.iter().filter(|row| row.damage().is_none()).filter_map(Row::manifest);
        let count = |kind| sound().filter(|manifest| manifest.kind == kind).count() as u64;
        ListSummary {
            url: &listing.url,
            backups: forest.rows.len() as u64,
            full: count(BackupKind::Full),
            incremental: count(BackupKind::Incremental),
            damaged: forest.rows.iter().filter(|row| row.damage().is_some()).count() as u64,
            lineages: forest.lineages as u64,
            latest: sound().map(|manifest| &manifest.id).max(),
            uploaded_bytes: sound().fold(0, |sum, manifest| sum.saturating_add(manifest.sizes.uploaded_bytes)),
            sealed: listing.sealed,
            copy: listing.copy_state(),
        }
    }
}

/// Lines on what plans let go of.
fn planned(listing: &Listing) -> String {
    let line = |(id, planned): &(BackupId, Planned)| {
        let due = planned.due.0.strftime("%Y-%m-%d %H:%M");
        format!("{id}: deleted by the first prune after {due} UTC ({}); `haulout undelete` keeps it\n", planned.reason)
    };
    listing.planned.iter().map(line).collect()
}

const COLUMNS: [Column; 12] = [
    Column { title: "BACKUP", right: false, drop: 0 },
    Column { title: "KIND", right: false, drop: 0 },
    Column { title: "STARTED (UTC)", right: false, drop: 8 },
    Column { title: "TOOK", right: true, drop: 3 },
    Column { title: "FROM LSN", right: true, drop: 6 },
    Column { title: "START LSN", right: true, drop: 5 },
    Column { title: "TO LSN", right: true, drop: 7 },
    Column { title: "LAST LSN", right: true, drop: 1 },
    Column { title: "LOGICAL", right: true, drop: 2 },
    Column { title: "UPLOADED", right: true, drop: 0 },
    Column { title: "STORED", right: true, drop: 4 },
    Column { title: "SPACES", right: true, drop: 9 },
];

/// Place of the columns on drills.
const PROOFS_AT: usize = 2;
/// Of drills, where there were any.
const PROOF_COLUMNS: [Column; 2] =
    [Column { title: "PROVEN", right: false, drop: 0 }, Column { title: "RTO", right: true, drop: 1 }];

fn text(
    listing: &Listing,
    summary: &ListSummary<'_>,
    forest: &Forest<'_>,
    width: Option<usize>,
    paint: Paint,
) -> String {
    let seal = if summary.sealed { ", sealed" } else { "" };
    let mut text = format!("repository {}{}{seal}\n", paint.bold(summary.url), server(forest));
    if forest.rows.is_empty() {
        return text + "\nno backups yet: take one with `haulout backup`\n";
    }
    let mut table = Table { columns: COLUMNS.to_vec(), rows: forest.rows.iter().map(cells).collect() };
    if !listing.proofs.is_empty() {
        table.columns.splice(PROOFS_AT..PROOFS_AT, PROOF_COLUMNS);
        for (row, cells) in forest.rows.iter().zip(&mut table.rows) {
            cells.resize(COLUMNS.len(), String::new());
            cells.splice(PROOFS_AT..PROOFS_AT, proof_cells(listing.proofs(&row.entry.id)));
        }
    }
    let decorate = |row: usize, column: usize, cell: &str| match (column, forest.rows[row].damage()) {
        (0 | 1, Some(_)) => paint.red(cell),
        (0, None) if forest.rows[row].branch.is_empty() => paint.bold(cell),
        (PROOFS_AT, _) if cell.trim_end() == "failed" => paint.red(cell),
        _ => cell.to_owned(),
    };
    let (body, left_out) = table.text(width, paint, decorate);
    text += &format!("\n{body}\n{}", closing(summary));
    for row in &forest.rows {
        if let Some(parent) = row.parent_gone {
            text += &format!("{}: its parent {parent} is gone; it restores all the same\n", row.entry.id);
        }
    }
    if left_out > 0 {
        let columns = human::counted(left_out as u64, "column");
        let hidden = format!("{columns} left out at this width; --wide shows all");
        text += &format!("{}\n", paint.dim(&hidden));
    }
    text
}

/// The server, where all backups are of one.
fn server(forest: &Forest<'_>) -> String {
    let mut manifests = forest.rows.iter().filter_map(Row::manifest);
    let Some(first) = manifests.next() else { return String::new() };
    if manifests.any(|other| other.server.hostname != first.server.hostname) {
        return String::new();
    }
    format!(" of {}", first.server.hostname)
}

fn cells(row: &Row<'_>) -> Vec<String> {
    let name = format!("{}{}", row.branch, row.entry.id);
    let damaged = || "damaged".to_owned();
    let Some(manifest) = row.manifest() else { return vec![name, damaged()] };
    let Manifest { lsn, sizes, .. } = manifest;
    let kind = match manifest.kind {
        _ if row.fault.is_some() => damaged(),
        BackupKind::Full => "full".to_owned(),
        BackupKind::Incremental => format!("incr {}", manifest.depth),
    };
    let started = manifest.started.to_string().replace('T', " ");
    vec![
        name,
        kind,
        started.trim_end_matches('Z').to_owned(),
        human::duration(capture_seconds(manifest)),
        lsn.from.to_string(),
        lsn.start.to_string(),
        lsn.to.to_string(),
        lsn.last.to_string(),
        human::bytes(sizes.logical_bytes),
        human::bytes(sizes.uploaded_bytes),
        human::bytes(sizes.stored_bytes),
        human::count(manifest.spaces),
    ]
}

fn closing(summary: &ListSummary<'_>) -> String {
    let ListSummary { full, incremental, damaged, .. } = summary;
    let damage = if *damaged > 0 { format!(", {damaged} damaged") } else { String::new() };
    let (backups, lineages) = (human::counted(summary.backups, "backup"), human::counted(summary.lineages, "lineage"));
    let uploaded = human::bytes(summary.uploaded_bytes);
    format!("{backups} ({full} full, {incremental} incremental{damage}) in {lineages}; {uploaded} uploaded\n")
}

#[cfg(test)]
mod tests;
