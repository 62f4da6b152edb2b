//! Where a run begins, so that no transaction is missing and as few as possible come twice.

use super::ArchiveError;
use crate::format::{BinlogSource, Gap, Manifest, Segment, StreamLink};
use crate::mariadb::binlog::{LogFile, ServerLog};
use crate::mariadb::sql::SqlError;
use crate::model::GtidSet;

/// The first event of a file.
pub(super) const FILE_HEAD: u64 = 4;
/// Files whose heads are asked for at once, the newest first: mostly the first of them is the one.
const HEADS: usize = 16;

/// Tells the GTID position at places of the server's log, none where it has no such place.
pub(super) type Positions<'a> = dyn FnMut(&[(&str, u64)]) -> Result<Vec<Option<GtidSet>>, SqlError> + 'a;

/// What earlier tries of this run have found out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Findings {
    /// The own stream's file is another than the one that has its name.
    pub other_file: bool,
    /// The server does not send what comes behind the own stream's last byte in its file.
    pub no_further: bool,
    /// The log was begun anew, and its GTIDs are not those that were archived under the same names.
    pub begun_anew: bool,
    /// A file that cannot be read to its end, and why.
    pub unreadable: Option<(String, String)>,
}

/// Where the log stood at a backup.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct BackupPlace {
    /// `@@hostname` of its server.
    pub hostname: String,
    /// `@@server_id` of its server.
    pub server_id: u32,
    /// The file, where there was a log.
    pub file: Option<String>,
    /// The byte in it.
    pub position: Option<u64>,
    /// GTID position; empty where there was none.
    pub gtid: GtidSet,
}

impl From<&Manifest> for BackupPlace {
    fn from(manifest: &Manifest) -> BackupPlace {
        BackupPlace {
            hostname: manifest.server.hostname.clone(),
            server_id: manifest.server.server_id,
            file: manifest.position.file.clone(),
            position: manifest.position.position,
            gtid: manifest.position.gtid.as_ref().and_then(|gtid| gtid.parse().ok()).unwrap_or_default(),
        }
    }
}

/// What the choice stands on.
#[derive(Debug, Clone)]
pub(super) struct Known {
    /// The server.
    pub server: ServerLog,
    /// Last segment of the newest stream.
    pub newest: Option<Segment>,
    /// Last segment of the newest stream of this server's.
    pub own: Option<Segment>,
    /// The newest backup.
    pub backup: Option<BackupPlace>,
    /// What earlier tries have found out.
    pub findings: Findings,
}

/// Where the log is followed from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Start {
    /// The server's file.
    pub file: String,
    /// The byte in it.
    pub position: u64,
    /// GTID position there.
    pub at: GtidSet,
    /// The segment behind which it begins, and when the server began the file.
    pub continues: Option<(StreamLink, u32)>,
    /// Why it does not go on from what was archived.
    pub gap: Option<Gap>,
}

/// True when `source` is the server that `log` is of.
pub(super) fn is_source(source: &BinlogSource, log: &ServerLog) -> bool {
    source.hostname == log.hostname && source.port == log.port && source.server_id == log.server_id
}

impl Known {
    /// Chooses where to begin.
    ///
    /// # Errors
    /// When the server writes no log, cannot be asked, or its files come and go.
    pub(super) fn choose(&self, at: &mut Positions<'_>) -> Result<Start, ArchiveError> {
        let Some(oldest) = self.server.files.first() else { return Err(ArchiveError::LogOff) };
        if let Some((file, reason)) = &self.findings.unreadable {
            let next = self.server.place(file).and_then(|place| self.server.files.get(place + 1));
            // Until there is one the damage is told again and again: a look costs little.
            return self.head(next.ok_or(ArchiveError::Moved)?, Some(reason.clone()), at);
        }
        if let Some(start) = self.behind_own(at)? {
            return Ok(start);
        }
        let Some(newest) = &self.newest else { return self.behind_backup(oldest, at) };
        let lacking = newest.after.clone();
        let rewound = self.findings.begun_anew || !self.server.position.covers(&lacking);
        if rewound && is_source(&newest.source, &self.server) {
            // Names and numbers may be those of old, and all that the files hold may be new.
            let reason = "the server's binary log was begun anew, or has lost its end".to_owned();
            return self.head(oldest, Some(reason), at);
        }
        if self.findings.no_further
            && let Some(own) = &self.own
            && let Some(place) = self.server.place(&own.file)
        {
            return self.behind_torn(own, place, at);
        }
        let lost =
            rewound.then(|| format!("the server lacks {} of what was archived", self.server.position.lacks(&lacking)));
        match newest_covered(&self.server.files, &lacking, at)? {
            Some(file) => self.head(file, lost, at),
            None => {
                let reason = format!("the server has purged its binary logs up to {}", oldest.name);
                self.head(oldest, Some(lost.unwrap_or(reason)), at)
            }
        }
    }

    /// Right behind the last segment of the server's own, if that is still a place in its log.
    fn behind_own(&self, at: &mut Positions<'_>) -> Result<Option<Start>, ArchiveError> {
        let own = self.own.as_ref();
        let Findings { other_file, no_further, begun_anew, .. } = self.findings;
        let own = own.filter(|_| !(other_file || no_further || begun_anew));
        let Some(own) = own else { return Ok(None) };
        let long_enough = |file: &LogFile| file.name == own.file && file.bytes >= own.end;
        if !self.server.files.iter().any(long_enough) {
            return Ok(None);
        }
        let found = at(&[(own.file.as_str(), own.end)])?.pop().flatten();
        if found.as_ref() != Some(&own.after) {
            return Ok(None);
        }
        let link = StreamLink { stream: own.stream.clone(), number: own.number, sum: own.sum };
        Ok(Some(Start {
            file: own.file.clone(),
            position: own.end,
            at: own.after.clone(),
            continues: Some((link, own.file_created)),
            gap: None,
        }))
    }

    /// From the file behind the one of which the server sends no more: what a crash of the machine tore off was never committed, and the head
    /// of the next file says whether anything else is missing.
    fn behind_torn(&self, own: &Segment, place: usize, at: &mut Positions<'_>) -> Result<Start, ArchiveError> {
        let next = self.server.files.get(place + 1).ok_or(ArchiveError::Moved)?;
        let head = at(&[(next.name.as_str(), FILE_HEAD)])?.pop().flatten().ok_or(ArchiveError::Moved)?;
        let reason = format!("the server does not send what comes behind byte {} of {}", own.end, own.file);
        self.head(next, (!own.after.covers(&head)).then_some(reason), at)
    }

    /// Where nothing was archived yet: from the newest backup on.
    fn behind_backup(&self, oldest: &LogFile, at: &mut Positions<'_>) -> Result<Start, ArchiveError> {
        let Some(backup) = &self.backup else { return self.head(oldest, None, at) };
        let server = &self.server;
        let is_own = backup.hostname == server.hostname && backup.server_id == server.server_id;
        if let (true, Some(file), Some(position)) = (is_own, &backup.file, backup.position)
            && server.files.iter().any(|known| known.name == *file && known.bytes >= position)
        {
            let found = at(&[(file.as_str(), position)])?.pop().flatten();
            if let Some(found) = found.filter(|found| *found == backup.gtid) {
                return Ok(Start { file: file.clone(), position, at: found, continues: None, gap: None });
            }
        }
        let covered = newest_covered(&server.files, &backup.gtid, at)?;
        self.head(covered.unwrap_or(oldest), None, at)
    }

    fn head(&self, file: &LogFile, gap: Option<String>, at: &mut Positions<'_>) -> Result<Start, ArchiveError> {
        let found = at(&[(file.name.as_str(), FILE_HEAD)])?.pop().flatten().ok_or(ArchiveError::Moved)?;
        let after = self.newest.as_ref().map(|newest| newest.after.clone()).unwrap_or_default();
        let gap = gap.map(|reason| Gap { reason, after });
        Ok(Start { file: file.name.clone(), position: FILE_HEAD, at: found, continues: None, gap })
    }

    /// Looks at when the server began the file that it now sends.
    ///
    /// # Errors
    /// When it is not the file that was chosen, or its log does not hold what was archived under the same GTIDs.
    pub(super) fn verify(&self, start: &Start, created: u32) -> Result<(), ArchiveError> {
        if let Some((_, expected)) = &start.continues {
            let file = start.file.clone();
            return if created == *expected { Ok(()) } else { Err(ArchiveError::OtherFile { file }) };
        }
        let Some(newest) = self.newest.as_ref().filter(|_| start.gap.is_none()) else { return Ok(()) };
        // What was archived of this server came before the file was begun, and so its head must count it.
        let begun_later = i64::from(created) > newest.last_time.0.as_second();
        if is_source(&newest.source, &self.server) && begun_later && !start.at.covers(&newest.after) {
            return Err(ArchiveError::BegunAnew);
        }
        Ok(())
    }
}

/// The newest file at whose head nothing has come that is not in `position`.
fn newest_covered<'a>(
    files: &'a [LogFile],
    position: &GtidSet,
    at: &mut Positions<'_>,
) -> Result<Option<&'a LogFile>, ArchiveError> {
    for files in files.rchunks(HEADS) {
        let places: Vec<(&str, u64)> = files.iter().map(|file| (file.name.as_str(), FILE_HEAD)).collect();
        let heads = at(&places)?;
        let covered = |(_, head): &(&LogFile, Option<GtidSet>)| head.as_ref().is_some_and(|head| position.covers(head));
        if let Some((file, _)) = files.iter().zip(heads).rev().find(covered) {
            return Ok(Some(file));
        }
    }
    Ok(None)
}

#[cfg(test)]
#[path = "choose_tests.rs"]
mod tests;
