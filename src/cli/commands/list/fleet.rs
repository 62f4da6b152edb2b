//! `haulout list` of a place under which repositories lie: what a fleet has, and how old its newest backups are.

use futures::{StreamExt, stream};
use serde::Serialize;

use super::super::{
    Context, Finish,
    table::{Column, Table},
};
use crate::{
    cli::{
        failure::Failure,
        human, open,
        options::StoreSettings,
        output::{Message, Output},
    },
    error::Kind,
    fleet::{Found, find},
    format::Manifest,
    model::Timestamp,
};

/// Repositories that are opened side by side.
const OPENING: usize = 16;
/// A repository of the fleet.
#[derive(Debug, Clone, Default, Serialize)]
struct RepositoryLine {
    url: String,
    server: Option<String>,
    server_version: Option<String>,
    backups: Option<u64>,
    latest: Option<String>,
    latest_finished: Option<Timestamp>,
    logical_bytes: Option<u64>,
    stored_bytes: Option<u64>,
    problem: Option<String>,
}

impl Message for RepositoryLine {
    const TYPE: &'static str = "repository";
}

/// Summary of `list` of a fleet.
#[derive(Debug, Clone, Serialize)]
struct FleetSummary {
    url: String,
    repositories: u64,
    unreadable: u64,
}

impl Message for FleetSummary {
    const TYPE: &'static str = "summary";
}

/// Lists the repositories under the place of `settings`; nothing if there are none.
///
/// # Errors
/// When the place cannot be listed.
pub(super) async fn list(settings: &StoreSettings, context: &Context) -> Result<Option<Finish>, Failure> {
    let store = open::store(settings, false, context).await?;
    let Found { paths: found, cut } = find(&store).await?;
    // A repository that cannot be opened is no fleet: why it cannot is told as of any other.
    if found.iter().any(Vec::is_empty) || found.is_empty() {
        return Ok(None);
    }
    let base = settings.url.trim_end_matches('/');
    let urls: Vec<String> = found.iter().map(|path| format!("{base}/{}", path.join("/"))).collect();
    let looks = urls.iter().map(|url| look(url, settings, context));
    let lines: Vec<(RepositoryLine, bool)> = stream::iter(looks).buffered(OPENING).collect().await;
    if cut {
        context.output.warn(&format!("there are more folders under {base} than are looked into"));
    }
    let unreadable = lines.iter().filter(|(_, damaged)| *damaged).count() as u64;
    let lines: Vec<RepositoryLine> = lines.into_iter().map(|(line, _)| line).collect();
    tell(base, &lines, unreadable, context.clock().now(), &context.output);
    Ok(Some(if unreadable == 0 && !cut { Finish::Done } else { Finish::Damaged }))
}

/// What there is to tell of the repository at `url`, and whether it cannot be read although a key is not what is missing.
async fn look(url: &str, settings: &StoreSettings, context: &Context) -> (RepositoryLine, bool) {
    let settings = StoreSettings { url: url.to_owned(), ..settings.clone() };
    let mut line = RepositoryLine { url: url.to_owned(), ..RepositoryLine::default() };
    match newest(&settings, context).await {
        Ok((backups, newest)) => {
            line.backups = Some(backups);
            if let Some(manifest) = newest {
                line.latest = Some(manifest.id.to_string());
                line.latest_finished = Some(manifest.finished);
                line.logical_bytes = Some(manifest.sizes.logical_bytes);
                line.stored_bytes = Some(manifest.sizes.stored_bytes);
                line.server = Some(manifest.server.hostname);
                line.server_version = Some(manifest.server.version);
            }
            (line, false)
        }
        Err(failure) => {
            let damaged = failure.kind != Kind::WrongKey;
            line.problem = Some(failure.message);
            (line, damaged)
        }
    }
}

/// How many backups there are, and the newest one.
async fn newest(settings: &StoreSettings, context: &Context) -> Result<(u64, Option<Manifest>), Failure> {
    let repository = open::repository(settings, context).await?;
    let ids = repository.backup_ids().await?;
    let Some(id) = ids.iter().max() else { return Ok((0, None)) };
    Ok((ids.len() as u64, Some(repository.manifest(id).await?)))
}

const COLUMNS: [Column; 7] = [
    Column { title: "REPOSITORY", right: false, drop: 0 },
    Column { title: "SERVER", right: false, drop: 2 },
    Column { title: "VERSION", right: false, drop: 4 },
    Column { title: "BACKUPS", right: true, drop: 3 },
    Column { title: "NEWEST (UTC)", right: false, drop: 0 },
    Column { title: "AGE", right: true, drop: 0 },
    Column { title: "LOGICAL", right: true, drop: 1 },
];

fn tell(base: &str, lines: &[RepositoryLine], unreadable: u64, now: Timestamp, output: &Output) {
    let summary = FleetSummary { url: base.to_owned(), repositories: lines.len() as u64, unreadable };
    if output.is_json() {
        lines.iter().for_each(|line| output.json(line));
        return output.json(&summary);
    }
    let table = Table { columns: COLUMNS.to_vec(), rows: lines.iter().map(|line| cells(base, line, now)).collect() };
    let paint = output.options.stdout;
    let (body, _) = table.text(output.options.columns, paint, |row, _, cell| match lines[row].problem {
        Some(_) => paint.red(cell),
        None => cell.to_owned(),
    });
    let counted = match lines.len() {
        1 => "1 repository".to_owned(),
        many => format!("{many} repositories"),
    };
    output.data(format!("{counted} under {}\n\n{body}\n", paint.bold(base)).as_bytes());
    if let Some(line) = lines.iter().find(|line| line.problem.is_none()) {
        output.data(format!("`haulout list --repo {}` shows its backups\n", line.url).as_bytes());
    }
    for line in lines {
        if let Some(problem) = &line.problem {
            output.warn(&format!("{}: {problem}", line.url));
        }
    }
}

fn cells(base: &str, line: &RepositoryLine, now: Timestamp) -> Vec<String> {
    let path = line.url.strip_prefix(base).unwrap_or(&line.url).trim_start_matches('/').to_owned();
    let text = |value: Option<String>| value.unwrap_or_else(|| "–".to_owned());
    let age = |finished: Timestamp| {
        let seconds = now.0.as_second().saturating_sub(finished.0.as_second());
        human::duration(u64::try_from(seconds).unwrap_or_default())
    };
    vec![
        path,
        text(line.server.clone()),
        text(line.server_version.clone()),
        text(line.backups.map(human::count)),
        text(line.latest_finished.map(|finished| finished.0.strftime("%Y-%m-%d %H:%M").to_string())),
        text(line.latest_finished.map(age)),
        text(line.logical_bytes.map(human::bytes)),
    ]
}
