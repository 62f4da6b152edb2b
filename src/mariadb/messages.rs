//! What `mariadb-backup` says on stderr, told apart by its text (MariaDB `extra/mariabackup`, 10.11 and 11.8).
//!
//! Texts are looked for anywhere in a line: prefixes differ between releases, and progress dots without a line break can
//! stand before them.

use std::time::SystemTime;

use jiff::{civil::DateTime, tz::TimeZone};

use crate::model::{Lsn, SpaceId};

use super::tool::ServerVersion;

/// A change of a tablespace's name that the tool saw in the redo log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ddl {
    /// The tablespace appeared, or was first mentioned.
    Create,
    /// It got the name given here.
    Rename(String),
    /// It was dropped.
    Delete,
}

/// One message of `mariadb-backup --backup`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChildEvent {
    /// The tool says that its backup is complete.
    Completed,
    /// Version of the server, as the server told it.
    Server(ServerVersion),
    /// The redo log that was copied, as the tool prints it: from its newest checkpoint, which is not the start checkpoint.
    RedoCopied {
        /// The checkpoint at the end of the backup.
        from: Lsn,
        /// End of the copied redo log.
        to: Lsn,
    },
    /// The redo log was copied so far (versions before 10.8 tell it each second).
    RedoScanned(Lsn),
    /// DDL during the backup.
    Ddl {
        /// The tablespace.
        space: SpaceId,
        /// Its name before, such as `./db/t.ibd`.
        name: String,
        /// What became of it.
        ddl: Ddl,
    },
    /// A tablespace could not be opened and is left out, although the tool goes on and ends with 0.
    Vanished {
        /// Its name, such as `./db/t.ibd`.
        name: String,
    },
    /// A file of another engine than InnoDB could not be opened and is left out, although the tool goes on and ends with 0.
    /// It may have been dropped; or it is a symbolic link, which the tool does not follow for Aria tables.
    Unopened {
        /// Its path in the datadir, such as `db/t.MAI`.
        path: String,
    },
    /// From here to the end of the backup no DDL can happen.
    DdlBlocked,
    /// From here to the end of the backup nothing is written.
    CommitBlocked,
    /// Reading the redo log is tried again.
    RedoRetry,
    /// A page was torn or wrong and is read again.
    PageRetry,
    /// Something that ends the backup.
    Failure(Cause),
    /// A line that says `Warning`.
    Warning(String),
    /// Anything else.
    Other,
}

/// Why a backup failed, by what can be done about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// The server overwrote redo log that was not copied yet.
    RedoOverwritten {
        /// The tool's sentence.
        message: String,
    },
    /// The server was restarted with other undo tablespaces since the parent.
    UndoTablespacesChanged,
    /// A page of a file is damaged on the server's disk.
    SourceCorrupt {
        /// The file.
        file: String,
    },
    /// DDL, or an undo truncation, got in the way.
    DdlRace {
        /// The tool's sentence.
        message: String,
    },
    /// The account or its password is not accepted.
    AccessDenied {
        /// The server's sentence.
        message: String,
    },
    /// The account lacks a privilege.
    MissingPrivilege {
        /// Which, in the server's words.
        privilege: String,
    },
    /// The server cannot be reached, or went away.
    Unreachable {
        /// The client library's sentence.
        message: String,
    },
    /// A lock was not granted in time.
    LockTimeout {
        /// The server's sentence.
        message: String,
    },
    /// The tool does not understand this server's files.
    VersionMismatch {
        /// The tool's sentence.
        message: String,
    },
    /// The server archives its redo log, which the tool cannot copy.
    RedoArchived,
    /// The reader of the stream went away.
    StreamClosed {
        /// The tool's sentence.
        message: String,
    },
    /// Anything else that the tool calls an error.
    Error {
        /// The tool's sentence.
        message: String,
    },
}

/// What a run does after a failed child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// Try the same again.
    Retry,
    /// Take a full backup instead.
    TakeFull,
    /// Stop: the operator must act first.
    Stop,
}

impl Cause {
    /// What the run can do by itself.
    pub const fn remedy(&self) -> Remedy {
        match self {
            Cause::RedoOverwritten { .. }
            | Cause::DdlRace { .. }
            | Cause::Unreachable { .. }
            | Cause::LockTimeout { .. } => Remedy::Retry,
            Cause::UndoTablespacesChanged => Remedy::TakeFull,
            _ => Remedy::Stop,
        }
    }

    /// True when a backup is worth nothing after this, even if the tool then ends with 0.
    pub(super) const fn is_final(&self) -> bool {
        matches!(
            self,
            Cause::RedoOverwritten { .. }
                | Cause::UndoTablespacesChanged
                | Cause::SourceCorrupt { .. }
                | Cause::StreamClosed { .. }
                | Cause::RedoArchived
        )
    }

    /// True for a cause that says more than that there was an error.
    pub(super) const fn is_specific(&self) -> bool {
        !matches!(self, Cause::Error { .. })
    }

    /// One sentence on what to do.
    pub(super) fn hint(&self) -> Option<String> {
        let hint = match self {
            Cause::RedoOverwritten { .. } => "back up at a quieter hour, or enlarge innodb_log_file_size",
            Cause::UndoTablespacesChanged => "take a full backup",
            Cause::SourceCorrupt { .. } => "run CHECK TABLE on the server, and keep the earlier backups",
            Cause::DdlRace { .. } => {
                "run the backup again; if it names the same table each time, that table's file is damaged on the server's disk, though the \
                 server may still have its pages in memory: write it anew with ALTER TABLE … FORCE, and keep the earlier backups"
            }
            Cause::AccessDenied { .. } => "check user, password and the account's host",
            Cause::MissingPrivilege { .. } => {
                "GRANT RELOAD, PROCESS, LOCK TABLES, BINLOG MONITOR ON *.* to the account"
            }
            Cause::Unreachable { .. } => "check that the server runs and that socket, host and port are right",
            Cause::LockTimeout { .. } => "look for long-running statements on the server, and run the backup again",
            Cause::VersionMismatch { .. } => "install the mariadb-backup of the server's own version",
            Cause::RedoArchived => "set innodb_log_archive=OFF",
            Cause::StreamClosed { .. } | Cause::Error { .. } => return None,
        };
        Some(hint.to_owned())
    }
}

impl std::fmt::Display for Cause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Cause::RedoOverwritten { message } => write!(f, "the server overwrote its redo log meanwhile: {message}"),
            Cause::UndoTablespacesChanged => f.write_str("the server's undo tablespaces changed since the parent"),
            Cause::SourceCorrupt { file } => write!(f, "{file} is damaged on the server's disk"),
            Cause::DdlRace { message } => write!(f, "DDL got in the way: {message}"),
            Cause::AccessDenied { message } => f.write_str(message),
            Cause::MissingPrivilege { privilege } => write!(f, "the account lacks a privilege: {privilege}"),
            Cause::Unreachable { message } => write!(f, "the server cannot be reached: {message}"),
            Cause::LockTimeout { message } => write!(f, "a lock was not granted in time: {message}"),
            Cause::VersionMismatch { message } => write!(f, "tool and server do not fit: {message}"),
            Cause::RedoArchived => f.write_str("the server archives its redo log (innodb_log_archive=ON)"),
            Cause::StreamClosed { message } => write!(f, "the stream was closed: {message}"),
            Cause::Error { message } => f.write_str(message),
        }
    }
}

impl ChildEvent {
    /// Tells what a line of `mariadb-backup --backup` means.
    pub fn classify(line: &str) -> ChildEvent {
        let line = sentence(line);
        if is_completed(line) {
            return ChildEvent::Completed;
        }
        if let Some(event) = ddl(line) {
            return event;
        }
        if let Some(name) = after(line, "and ignore the tablespace ") {
            return ChildEvent::Vanished { name: name.to_owned() };
        }
        if let Some(name) = after(line, "cannot open tablespace ") {
            return ChildEvent::Vanished { name: name.to_owned() };
        }
        // MariaDB `aria_backup_client.cc` and `common_engine.cc`.
        let unopened = after(line, "Error on aria table file open ")
            .or_else(|| after(line, "Error on file ").and_then(|rest| Some(rest.split_once(" open during ")?.0)));
        if let Some(path) = unopened {
            return ChildEvent::Unopened { path: path.trim().trim_start_matches("./").to_owned() };
        }
        if let Some(version) = after(line, "Using server version ").and_then(|text| text.trim().parse().ok()) {
            return ChildEvent::Server(version);
        }
        if let Some(event) = redo_copied(line) {
            return event;
        }
        if let Some(lsn) = after(line, "log scanned up to (").and_then(|rest| rest.split_once(')')?.0.parse().ok()) {
            return ChildEvent::RedoScanned(Lsn(lsn));
        }
        if line.contains("Acquired locks for BACKUP STAGE BLOCK_DDL") {
            return ChildEvent::DdlBlocked;
        }
        if line.contains("Acquired locks for BACKUP STAGE BLOCK_COMMIT") {
            return ChildEvent::CommitBlocked;
        }
        if line.contains("Retrying read of log at LSN") {
            return ChildEvent::RedoRetry;
        }
        if line.contains("Database page corruption detected at page") {
            return ChildEvent::PageRetry;
        }
        match failure(line) {
            Some(cause) => ChildEvent::Failure(cause),
            None if line.contains("Warning") || line.contains("[Warning]") => ChildEvent::Warning(line.to_owned()),
            None => ChildEvent::Other,
        }
    }
}

fn failure(line: &str) -> Option<Cause> {
    let has = |text: &str| line.contains(text);
    let message = line.to_owned();
    if let Some(privilege) = after(line, "missing required privilege ") {
        return Some(Cause::MissingPrivilege { privilege: privilege.to_owned() });
    }
    if let Some(privilege) = after(line, "you need (at least one of) the ") {
        return Some(Cause::MissingPrivilege { privilege: privilege.replace(" privilege(s) for this operation", "") });
    }
    if has("Access denied for user") {
        return Some(Cause::AccessDenied { message });
    }
    if has("Was only able to copy log from") {
        return Some(Cause::RedoOverwritten { message });
    }
    if has("restarted with different innodb_undo_tablespaces") {
        return Some(Cause::UndoTablespacesChanged);
    }
    if let Some(rest) = after(line, "failed to read page after 10 retries. File ") {
        let file = rest.split(" seems to be corrupted").next().unwrap_or(rest);
        return Some(Cause::SourceCorrupt { file: file.to_owned() });
    }
    if has("innodb_log_archive") {
        return Some(Cause::RedoArchived);
    }
    const RACES: [&str; 5] = [
        "detected in the late phase of backup",
        "there is no undo tablespace truncation redo record",
        "Failed to validate first page of the file",
        "Can't open datafile",
        "Can't handle DDL operation on tablespace",
    ];
    if RACES.iter().any(|text| has(text)) {
        return Some(Cause::DdlRace { message });
    }
    if has("Lock wait timeout exceeded") || has("Unable to obtain lock") {
        return Some(Cause::LockTimeout { message });
    }
    const GONE: [&str; 4] = [
        "Failed to connect to MariaDB server",
        "Lost connection to server",
        "Server has gone away",
        "cannot open a server connection for the log copying thread",
    ];
    if GONE.iter().any(|text| has(text)) {
        return Some(Cause::Unreachable { message });
    }
    const VERSIONS: [&str; 4] = [
        "cannot process redo log before MariaDB",
        "cannot read redo log header",
        "Unsupported redo log format",
        "Unsupported server version",
    ];
    if VERSIONS.iter().any(|text| has(text)) {
        return Some(Cause::VersionMismatch { message });
    }
    if has("xb_stream_write_data() failed") || has("Broken pipe") {
        return Some(Cause::StreamClosed { message });
    }
    let error = has("FATAL ERROR") || has("[ERROR]") || has("Error: ") || has("error: ") || line.starts_with("Error");
    (error || has("failed to execute query") || has("xtrabackup_copy_datafile() failed"))
        .then_some(Cause::Error { message })
}

/// True for the sentence that a backup and a prepare end with; no file name can imitate it.
pub(super) fn is_completed(line: &str) -> bool {
    (line == "completed OK!" || line.ends_with(" completed OK!")) && !line.contains(['"', '/', '\''])
}

/// The line without the tool's thread number and time: `[00] 2026-11-22 17:22:53 text`.
pub(super) fn sentence(line: &str) -> &str {
    let rest = match line.split_once("] ") {
        Some((thread, rest)) if thread.starts_with('[') && thread[1..].bytes().all(|byte| byte.is_ascii_digit()) => {
            rest
        }
        _ => return line.trim_end(),
    };
    undated(rest).unwrap_or(rest).trim_end()
}

/// What follows a time such as `2026-11-22 17:22:53 `; none if there is no time. Its whole shape is looked at: of a line that
/// begins otherwise nothing may be taken off, least of all the part of a file's name that would tell it from a sentence.
fn undated(text: &str) -> Option<&str> {
    const SHAPE: &[u8; 20] = b"0000-00-00 00:00:00 ";
    let time = text.as_bytes().first_chunk::<20>()?;
    let fits = |(byte, shape): (&u8, &u8)| if *shape == b'0' { byte.is_ascii_digit() } else { byte == shape };
    if time.iter().zip(SHAPE).all(fits) { text.get(20..) } else { None }
}

/// The second in which a line such as `[00] 2026-11-22 17:22:53 text` was written by a tool whose local time is UTC; none if it does not
/// say.
pub fn printed_at(line: &str) -> Option<SystemTime> {
    let (_, dated) = line.split_once("] ")?;
    undated(dated)?;
    let time = DateTime::strptime("%Y-%m-%d %H:%M:%S", &dated[..19]).ok()?;
    Some(TimeZone::UTC.to_timestamp(time).ok()?.into())
}

fn after<'a>(line: &'a str, text: &str) -> Option<&'a str> {
    line.find(text).map(|at| &line[at + text.len()..])
}

fn ddl(line: &str) -> Option<ChildEvent> {
    let (verb, rest) = after(line, "DDL tracking : ")?.split_once(' ')?;
    let (space, names) = rest.split_once(' ')?;
    let names = names.strip_prefix('"')?.strip_suffix('"')?;
    let (name, ddl) = match verb {
        "create" => (names, Ddl::Create),
        "delete" => (names, Ddl::Delete),
        "rename" => {
            let (from, to) = names.split_once("\",\"")?;
            (from, Ddl::Rename(to.to_owned()))
        }
        _ => return None,
    };
    Some(ChildEvent::Ddl { space: SpaceId(space.parse().ok()?), name: name.to_owned(), ddl })
}

fn redo_copied(line: &str) -> Option<ChildEvent> {
    let (span, _) = after(line, "Redo log (from LSN ")?.split_once(')')?;
    let (from, to) = span.split_once(" to ")?;
    Some(ChildEvent::RedoCopied { from: Lsn(from.parse().ok()?), to: Lsn(to.parse().ok()?) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cause(line: &str) -> Cause {
        match ChildEvent::classify(line) {
            ChildEvent::Failure(cause) => cause,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn lines_tell_when_they_were_written() {
        let told = |line| printed_at(line).map(|at| at.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs());
        let line = "[00] 2026-11-22 17:22:53 Acquired locks for BACKUP STAGE BLOCK_COMMIT";
        assert_eq!(told(line), Some(1_795_368_173));
        for line in ["Acquired locks for BACKUP STAGE BLOCK_COMMIT", "[00] completed", "[00] 2026-13-22 17:22:53 x", ""]
        {
            assert_eq!(told(line), None, "{line}");
        }
    }

    #[test]
    fn completion_is_the_sentence_alone() {
        assert_eq!(ChildEvent::classify("[00] 2026-11-22 17:23:45 completed OK!"), ChildEvent::Completed);
        for line in [
            "[00] 2026-11-22 17:23:45 DDL tracking : create 5 \"./db/completed OK!\"",
            "[01] 2026-11-22 17:23:45 Streaming ./db/x completed OK!",
            "completed OK",
            "completed OK! not",
            "[00] 2026-11-22 g ./db/x completed OK!",
        ] {
            assert_ne!(ChildEvent::classify(line), ChildEvent::Completed, "{line}");
        }
    }

    #[test]
    fn ddl_names_its_tablespace() {
        let line = "[00] 2026-11-22 17:34:54 DDL tracking : rename 5 \"./db1/t1.ibd\",\"./db1/t@00201x.ibd\"";
        let (space, name) = (SpaceId(5), "./db1/t1.ibd".to_owned());
        let ddl = Ddl::Rename("./db1/t@00201x.ibd".to_owned());
        assert_eq!(ChildEvent::classify(line), ChildEvent::Ddl { space, name, ddl });
        let line = "[00] 2026-11-22 17:34:54 DDL tracking : delete 7 \"./db1/d1.ibd\"";
        let (space, name) = (SpaceId(7), "./db1/d1.ibd".to_owned());
        assert_eq!(ChildEvent::classify(line), ChildEvent::Ddl { space, name, ddl: Ddl::Delete });
    }

    #[test]
    fn facts_are_read_even_behind_progress_dots() {
        let line = "mariabackup: Stopping log copying thread.[00] 2026-11-22 17:22:53 Failed to connect to MariaDB server: \
                    Can't connect to local server through socket 's.sock' (2 \"No such file or directory\").";
        assert_eq!(cause(line).remedy(), Remedy::Retry);
        let line = "[00] 2026-11-22 17:23:45 Redo log (from LSN 44404 to 47165) was copied.";
        assert_eq!(ChildEvent::classify(line), ChildEvent::RedoCopied { from: Lsn(44404), to: Lsn(47165) });
        let line = "[00] 2026-11-22 17:22:54 >> log scanned up to (47165)";
        assert_eq!(ChildEvent::classify(line), ChildEvent::RedoScanned(Lsn(47165)));
        let line = "[00] 2026-11-22 17:22:53 Using server version 10.11.19-MariaDB-0+deb12u1-log";
        assert_eq!(ChildEvent::classify(line), ChildEvent::Server("10.11.19-MariaDB-0+deb12u1-log".parse().unwrap()));
    }

    #[test]
    fn a_vanished_tablespace_is_named() {
        let line = "[01] 2026-11-22 17:22:53 Warning: We assume the  table was dropped during xtrabackup execution \
                    and ignore the tablespace ./db/t.ibd";
        assert_eq!(ChildEvent::classify(line), ChildEvent::Vanished { name: "./db/t.ibd".to_owned() });
        let line = "[01] 2026-11-22 17:22:53 mariabackup: error: cannot open tablespace ./db/t.ibd";
        assert_eq!(ChildEvent::classify(line), ChildEvent::Vanished { name: "./db/t.ibd".to_owned() });
    }

    #[test]
    fn a_file_that_could_not_be_opened_is_named() {
        let line = "[00] 2026-11-24 22:35:57 Error on aria table file open ./d/afar.MAI";
        assert_eq!(ChildEvent::classify(line), ChildEvent::Unopened { path: "d/afar.MAI".to_owned() });
        let line = "[01] 2026-11-24 22:35:57 Error on file ./d/t.MYD open during `d`.`t` table copy";
        assert_eq!(ChildEvent::classify(line), ChildEvent::Unopened { path: "d/t.MYD".to_owned() });
    }

    #[test]
    fn each_failure_has_its_remedy() {
        for (line, remedy, part) in [
            ("[00] 2026-11-22 17:22:54 Error: missing required privilege RELOAD on *.*", Remedy::Stop, "RELOAD on *.*"),
            (
                "[00] FATAL ERROR: 2026-11-22 17:23:46 failed to execute query SHOW MASTER STATUS: Access denied; you need \
                 (at least one of) the SUPER, BINLOG MONITOR privilege(s) for this operation",
                Remedy::Stop,
                "privilege: SUPER, BINLOG MONITOR",
            ),
            (
                "[00] 2026-11-22 17:22:54 Failed to connect to MariaDB server: Access denied for user 'b2'@'localhost' \
                 (using password: YES).",
                Remedy::Stop,
                "Access denied for user 'b2'",
            ),
            (
                "[00] FATAL ERROR: 2026-11-22 17:23:46 Was only able to copy log from 1 to 2, not 3; try increasing \
              innodb_log_file_size",
                Remedy::Retry,
                "overwrote",
            ),
            (
                "--incremental backup is impossible if the server had been restarted with different innodb_undo_tablespaces.",
                Remedy::TakeFull,
                "undo",
            ),
            (
                "[01] 2026-11-22 17:23:46 Error: failed to read page after 10 retries. File ./db/t.ibd seems to be corrupted.",
                Remedy::Stop,
                "./db/t.ibd is damaged",
            ),
            (
                "[00] 2026-11-22 17:23:46 mariabackup: Failed to read undo log tablespace space id 3 and there is no undo \
              tablespace truncation redo record.",
                Remedy::Retry,
                "undo",
            ),
            (
                "[00] FATAL ERROR: 2026-11-22 17:23:46 failed to execute query BACKUP STAGE START: Lock wait timeout exceeded; \
              try restarting transaction",
                Remedy::Retry,
                "lock",
            ),
            ("[00] 2026-11-22 17:23:46 Error: cannot process redo log before MariaDB 10.8", Remedy::Stop, "do not fit"),
            ("xb_stream_write_data() failed.", Remedy::Stop, "stream"),
            ("2026-11-22 17:23:46 0 [ERROR] InnoDB: something new", Remedy::Stop, "something new"),
        ] {
            let cause = cause(line);
            assert_eq!(cause.remedy(), remedy, "{line}");
            assert!(cause.to_string().contains(part), "{cause}");
        }
    }

    #[test]
    fn chatter_is_no_event() {
        for line in [
            "[01] 2026-11-22 17:34:54         ...done",
            "[00] 2026-11-22 17:34:55 MySQL binlog position: filename 'binlog.000001', position '303342878'",
            "2026-11-22 17:22:53 0 [Note] InnoDB: Using io_uring",
            "",
            "[",
            "[] ",
            "[00] ü",
        ] {
            assert_eq!(ChildEvent::classify(line), ChildEvent::Other, "{line}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_line_is_classified_without_a_panic(line in "\\PC*", mixed in "(\\[[0-9]{0,3}\\] )?[0-9 :üDKL\"',.-]{0,60}") {
            ChildEvent::classify(&line);
            ChildEvent::classify(&mixed);
            ChildEvent::classify(&format!("DDL tracking : {line}"));
            ChildEvent::classify(&format!("Redo log (from LSN {line}"));
        }
    }
}
