//! This machine: MariaDB's tools and the spool.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{Record, aside, check};
use crate::{
    cli::{commands::doctor::Patient, failure::Failure, human, report::Level},
    error::Kind,
    format::pack::PACK_BYTES_MAX,
    mariadb::tool::{Tool, ToolError, ToolPaths, Tools},
};

/// Looks for the tools, and returns them when a backup could use them.
pub(super) async fn tools(record: &mut Record<'_>, paths: ToolPaths) -> Option<Tools> {
    let discovered = match aside(move || Tools::discover(&paths)).await {
        Ok(discovered) => discovered,
        Err(abandoned) => {
            record.problem(check::TOOLS_BACKUP, abandoned);
            return None;
        }
    };
    tools_found(record, discovered)
}

pub(super) fn tools_found(record: &mut Record<'_>, discovered: Result<Tools, ToolError>) -> Option<Tools> {
    let tools = match discovered {
        Ok(tools) => tools,
        Err(error) => {
            let culprit = culprit(&error);
            record.problem(culprit, error);
            record.skip(check::TOOLS, culprit);
            return None;
        }
    };
    let told = |tool: &Tool| format!("{} {}", tool.path.display(), tool.version);
    record.ok(check::TOOLS_BACKUP, told(&tools.backup));
    match tools.client() {
        Ok(client) => record.ok(check::TOOLS_CLIENT, told(client)),
        Err(error) => record.problem(check::TOOLS_CLIENT, error),
    }
    match &tools.server {
        Some(server) => record.ok(check::TOOLS_SERVER, told(server)),
        None => record.ok(check::TOOLS_SERVER, "not installed; backup and restore do without it"),
    }
    Some(tools)
}

/// The check of the tool that `error` speaks of.
fn culprit(error: &ToolError) -> &'static str {
    let path = match error {
        ToolError::NotAProgram { path } | ToolError::Start { path, .. } | ToolError::NotMariaDb { path, .. } => path,
        _ => return check::TOOLS_BACKUP,
    };
    match path.file_name().and_then(|name| name.to_str()) {
        Some("mariadb" | "mysql") => check::TOOLS_CLIENT,
        Some("mariadbd" | "mysqld") => check::TOOLS_SERVER,
        _ => check::TOOLS_BACKUP,
    }
}

/// Looks at the directory in which packs wait and the tools put their temporary files.
pub(super) fn spool(record: &mut Record<'_>, patient: &Patient) {
    let directory = patient.spool_dir.as_path();
    let (room, free) = match existing(directory).and_then(|room| writable(&room).map(|free| (room, free))) {
        Ok(found) => found,
        Err(error) => {
            let message = format!("cannot write in {}", directory.display());
            let failure = Failure { kind: Kind::Failed, ..Failure::of_io(message, &error) };
            let hint = "name a directory that can be written: --spool-dir of `backup`, or spool_dir in the settings";
            record.problem(check::SPOOL_WRITABLE, failure.with_hint(hint));
            record.skip(check::SPOOL, check::SPOOL_WRITABLE);
            return;
        }
    };
    let made = if room == directory { "" } else { ", which will be made," };
    record.ok(check::SPOOL_WRITABLE, format!("{}{made} can be written", directory.display()));
    space(record, free, (!patient.is_local()).then_some(patient.spool_size.0));
}

/// Judges the bytes that are free for a spool of `wanted` bytes; a local repository needs none.
pub(super) fn space(record: &mut Record<'_>, free: u64, wanted: Option<u64>) {
    let told = human::bytes(free);
    match wanted.filter(|wanted| *wanted > 0) {
        None => record.ok(check::SPOOL_SPACE, format!("{told} free; packs for this repository do not wait here")),
        Some(_) if free < PACK_BYTES_MAX => {
            let failure = Failure::new(Kind::Failed, format!("{told} free, which is not enough for one pack"));
            record.problem(check::SPOOL_SPACE, failure.with_hint("free space there, or name another spool_dir"));
        }
        Some(wanted) if free < wanted => record.add(
            check::SPOOL_SPACE,
            Level::Warning,
            format!("{told} free, but up to {} may wait here while the store is slow", human::bytes(wanted)),
            Some("free space there, name another spool_dir, or set a smaller spool_size".to_owned()),
        ),
        Some(wanted) => {
            record.ok(check::SPOOL_SPACE, format!("{told} free, up to {} may wait here", human::bytes(wanted)));
        }
    }
}

/// `directory`, or the nearest one above it that exists.
fn existing(directory: &Path) -> io::Result<PathBuf> {
    let nearest = directory.ancestors().find(|path| path.symlink_metadata().is_ok());
    nearest.map(Path::to_owned).ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// Writes a small file, removes it, and returns the bytes that are free.
fn writable(directory: &Path) -> io::Result<u64> {
    let probe = directory.join(format!(".haulout-doctor-{}", std::process::id()));
    // Never through a link that somebody else put there: the directory may be everybody's.
    let file = fs::OpenOptions::new().write(true).create_new(true).open(&probe)?;
    let written = io::Write::write_all(&mut &file, &[0; 4096]).and_then(|()| file.sync_all());
    fs::remove_file(&probe)?;
    written?;
    let room = rustix::fs::statvfs(directory)?;
    Ok(room.f_bavail.saturating_mul(room.f_frsize))
}
