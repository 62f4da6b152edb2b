//! What the server says of its binary log.

use super::super::sql::{ResultSet, Session, SqlError, quoted_text};
use crate::model::GtidSet;

/// Places asked for in one batch.
const PLACES_MAX: usize = 64;

/// A file of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFile {
    /// Its name.
    pub name: String,
    /// Its length in bytes, as far as it is written.
    pub bytes: u64,
}

/// The server and its binary log at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerLog {
    /// `@@hostname`.
    pub hostname: String,
    /// `@@port`.
    pub port: u16,
    /// `@@server_id`.
    pub server_id: u32,
    /// `@@version`.
    pub version: String,
    /// True when it is a replica whose log lacks what it replicates.
    pub partial: bool,
    /// Its files, the oldest first; none when it writes no log.
    pub files: Vec<LogFile>,
    /// `@@gtid_binlog_pos`: where the log ends.
    pub position: GtidSet,
}

const WHO: &str = "SELECT @@hostname hostname, @@port port, @@server_id server_id, @@version version, @@log_bin log_bin, \
     @@log_slave_updates log_slave_updates, @@gtid_binlog_pos position, @@gtid_slave_pos slave";

const FILES: &str = "SHOW BINARY LOGS";
/// `ER_NO_BINARY_LOGGING`.
const NO_LOG: u16 = 1381;

impl ServerLog {
    /// Asks the server.
    ///
    /// # Errors
    /// When it cannot be asked, or the account may not ask (BINLOG MONITOR).
    pub fn ask(session: &Session<'_>) -> Result<ServerLog, SqlError> {
        // Asked after the position, so that the files are at least as long; in one session, for an archiver asks every few seconds.
        let (mut answers, has_log) = match session.batch(&[WHO, FILES]) {
            Err(SqlError::Other { code: NO_LOG, .. }) => (session.batch(&[WHO])?, false),
            answers => (answers?, true),
        };
        let files = if has_log { answers.pop() } else { None };
        let mut log = ServerLog::read(&answers.pop().unwrap_or_default()).ok_or(SqlError::Garbled)?;
        if let Some(files) = files {
            log.files = files.rows.iter().map(|row| file(row)).collect::<Option<_>>().ok_or(SqlError::Garbled)?;
        }
        Ok(log)
    }

    fn read(who: &ResultSet) -> Option<ServerLog> {
        let text = |name| who.value(name);
        let is_replica = text("slave").is_some_and(|position| !position.is_empty());
        Some(ServerLog {
            hostname: text("hostname")?.to_owned(),
            port: text("port")?.parse().ok()?,
            server_id: text("server_id")?.parse().ok()?,
            version: text("version")?.to_owned(),
            partial: is_replica && text("log_slave_updates") == Some("0"),
            files: Vec::new(),
            position: text("position")?.parse().ok()?,
        })
    }

    /// The place of `file` among its files.
    pub fn place(&self, file: &str) -> Option<usize> {
        self.files.iter().position(|known| known.name == file)
    }

    /// Where the log ends.
    pub fn end(&self) -> Option<&LogFile> {
        self.files.last()
    }

    /// Bytes behind byte `position` of `file`; none when it has no such place.
    pub fn bytes_behind(&self, file: &str, position: u64) -> Option<u64> {
        let rest = &self.files[self.place(file)?..];
        let all: u64 = rest.iter().map(|file| file.bytes).sum();
        all.checked_sub(position).filter(|_| rest[0].bytes >= position)
    }
}

fn file(row: &[Option<String>]) -> Option<LogFile> {
    let (name, bytes) = (row.first()?.clone()?, row.get(1)?.as_ref()?.parse().ok()?);
    Some(LogFile { name, bytes })
}

/// The GTID position at each of `places`, file and byte, which must be the end of an event; none where the server has no such place.
///
/// # Errors
/// When the server cannot be asked.
pub fn positions(session: &Session<'_>, places: &[(&str, u64)]) -> Result<Vec<Option<GtidSet>>, SqlError> {
    let mut found = Vec::with_capacity(places.len());
    for places in places.chunks(PLACES_MAX) {
        let columns: Vec<String> =
            places.iter().map(|(file, byte)| format!("BINLOG_GTID_POS({}, {byte})", quoted_text(file))).collect();
        let row = session.query(&format!("SELECT {}", columns.join(", ")))?.pop().unwrap_or_default();
        if row.len() != places.len() {
            return Err(SqlError::Garbled);
        }
        for value in row {
            found.push(value.map(|value| value.parse()).transpose().map_err(|_| SqlError::Garbled)?);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_behind_is_counted_over_all_later_files() {
        let file = |name: &str, bytes| LogFile { name: name.to_owned(), bytes };
        let log = ServerLog {
            hostname: String::new(),
            port: 3306,
            server_id: 1,
            version: String::new(),
            partial: false,
            files: vec![file("b.000008", 900), file("b.000009", 700), file("b.000010", 500)],
            position: GtidSet::new(),
        };
        assert_eq!(log.bytes_behind("b.000009", 600), Some(600));
        assert_eq!(log.bytes_behind("b.000010", 500), Some(0));
        assert_eq!(log.bytes_behind("b.000010", 501), None, "the file was longer");
        assert_eq!(log.bytes_behind("b.000001", 4), None);
    }
}
