//! Where the server's binlog ends, by its files.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::Path,
    time::{Duration, SystemTime},
};

/// The end of the newest binlog file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BinlogEnd {
    /// Name of the file.
    pub file: String,
    /// Its length in bytes.
    pub bytes: u64,
    /// True when the look came too late to tell: something had been written since commits were blocked.
    pub late: bool,
}

/// What waits for a commit waits for this long or longer, unless it does not wait at all: the least `lock_wait_timeout` but 0.
const WAIT_MIN: Duration = Duration::from_secs(1);

impl BinlogEnd {
    /// Looks at the files named `base` and a number, such as `/var/lib/mysql/binlog.000017`; none when there is none that can be
    /// seen. `blocked` is the second in which it was told that commits are blocked. Who looks before it is over sees the end as it was
    /// then, for a statement that gives up waiting does so later; who looks afterwards, only if the file is as old as that. A file that
    /// was written to after `now` lies where the clock is another, and its time tells nothing.
    ///
    /// Source: MariaDB `sql/log.cc` (`find_uniq_filename`): the number is written with six digits or more.
    pub fn look(base: &Path, blocked: Option<SystemTime>, now: SystemTime) -> Option<BinlogEnd> {
        let stem = base.file_name()?.to_str()?;
        let names = base.parent()?.read_dir().ok()?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let number = |name: &str| {
            let digits = name.strip_prefix(stem)?.strip_prefix('.')?;
            digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse::<u64>().ok())?
        };
        let (_, file) = names.filter_map(|name| Some((number(&name)?, name))).max()?;
        let meta = base.with_file_name(&file).metadata().ok()?;
        let since = |second| meta.modified().is_ok_and(|written| written >= second + WAIT_MIN && written <= now);
        let late = blocked.is_some_and(since);
        Some(BinlogEnd { file, bytes: meta.len(), late })
    }
}

/// Bytes that the event at a file's end takes that tells where the binlog goes on.
const ROTATE_BYTES_MAX: u64 = 512;
/// Bytes of a new file that are looked at: its head, and with many replication domains a long list in it.
const HEAD_BYTES_MAX: u64 = 64 << 10;
/// Bytes behind a position in which changes are looked for that came in the moment in which the tool asked for it.
const MOMENT_BYTES_MAX: u64 = 1 << 20;
/// Bytes that the head of a file may take whose events are encrypted.
const ENCRYPTED_HEAD_BYTES_MAX: u64 = 1 << 10;
/// Length of an event's header, and where its type and its length stand in it (MariaDB `sql/log_event.h`).
const EVENT_HEADER_BYTES: u64 = 19;
const FORMAT_DESCRIPTION: u8 = 15;
const BINLOG_CHECKPOINT: u8 = 161;
const GTID: u8 = 162;
const GTID_LIST: u8 = 163;
const START_ENCRYPTION: u8 = 164;

/// False when the binlog of `base` went on with something between its end `before` and byte `position` of `file`. That it went on in
/// another file alone is nothing: `mariadb-backup --galera-info` has it do so. What cannot be looked at is taken to stand still.
pub fn stands_still(base: &Path, before: &BinlogEnd, file: &str, position: u64) -> bool {
    let length = |name: &str| base.with_file_name(name).metadata().ok().map(|meta| meta.len());
    // Another server's files lie here, or none.
    if Path::new(file).file_name().is_none_or(|name| name != file) || length(file).is_none_or(|bytes| bytes < position)
    {
        return true;
    }
    if before.late {
        return false;
    }
    if file == before.file {
        return position <= before.bytes;
    }
    let ended = length(&before.file).is_some_and(|bytes| bytes <= before.bytes + ROTATE_BYTES_MAX);
    ended && head_bytes(&base.with_file_name(file)).is_some_and(|head| position <= head)
}

/// One of the changes that `gtid` counts and byte `position` of `file` does not. The tool asks for the one and then for the other, and
/// the binlog can go on in between. None that is found if its events are encrypted.
pub fn counted_beyond(base: &Path, file: &str, position: u64, gtid: &str) -> Option<String> {
    let counted: Vec<&str> = gtid.split(',').map(str::trim).collect();
    gtids_from(&base.with_file_name(file), position)?.into_iter().find(|gtid| counted.contains(&gtid.as_str()))
}

/// The GTIDs from byte `position` on, those of the next [`MOMENT_BYTES_MAX`].
fn gtids_from(path: &Path, position: u64) -> Option<Vec<String>> {
    let (mut bytes, mut gtids) = (Vec::new(), Vec::new());
    let mut file = File::open(path).ok()?;
    file.seek(SeekFrom::Start(position)).ok()?;
    file.take(MOMENT_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    let mut rest = &bytes[..];
    while let Some((header, body)) = rest.split_first_chunk::<{ EVENT_HEADER_BYTES as usize }>() {
        let number = |range: std::ops::Range<usize>| u32::from_le_bytes(header[range].try_into().unwrap_or_default());
        let (kind, server, length) = (header[4], number(5..9), number(9..13) as usize);
        if let (GTID, Some((sequence, [a, b, c, d, ..]))) = (kind, body.split_first_chunk::<8>()) {
            let domain = u32::from_le_bytes([*a, *b, *c, *d]);
            gtids.push(format!("{domain}-{server}-{}", u64::from_le_bytes(*sequence)));
        }
        rest = rest.get(length.max(EVENT_HEADER_BYTES as usize)..).unwrap_or_default();
    }
    Some(gtids)
}

/// Bytes of the events that each binlog file begins with, before the first that changes something.
fn head_bytes(path: &Path) -> Option<u64> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(HEAD_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    // The files' magic.
    let mut at = 4;
    loop {
        let header = bytes.get(at as usize..(at + EVENT_HEADER_BYTES) as usize);
        let Some((kind, length)) = header.map(|header| (header[4], &header[9..13])) else { return Some(at) };
        let length = length.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte));
        match kind {
            START_ENCRYPTION => return Some(ENCRYPTED_HEAD_BYTES_MAX),
            FORMAT_DESCRIPTION | GTID_LIST | BINLOG_CHECKPOINT if length >= EVENT_HEADER_BYTES => at += length,
            _ => return Some(at),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_of_the_highest_number_is_the_newest() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("db.bin");
        assert_eq!(BinlogEnd::look(&base, None, SystemTime::UNIX_EPOCH), None);
        for (name, bytes) in [
            ("db.bin.000002", 2),
            ("db.bin.999999", 3),
            ("db.bin.1000000", 4),
            ("db.bin.index", 5),
            ("db.bin.", 6),
            ("other.2000000", 7),
        ] {
            std::fs::write(dir.path().join(name), vec![0; bytes]).unwrap();
        }
        let end = BinlogEnd { file: "db.bin.1000000".to_owned(), bytes: 4, late: false };
        assert_eq!(BinlogEnd::look(&base, None, SystemTime::UNIX_EPOCH), Some(end));
        assert_eq!(BinlogEnd::look(&dir.path().join("none/db"), None, SystemTime::UNIX_EPOCH), None);
    }

    /// On a busy machine the tool's lines are read seconds after they were written.
    #[test]
    fn a_look_that_came_after_a_statement_gave_up_waiting_proves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("b");
        let file = File::create(dir.path().join("b.000001")).unwrap();
        file.set_len(700).unwrap();
        let blocked = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_000_000);
        let now = blocked + Duration::from_secs(5);
        let written = |after_ms: u64| {
            file.set_modified(blocked + Duration::from_millis(after_ms)).unwrap();
            let end = BinlogEnd::look(&base, Some(blocked), now).unwrap();
            stands_still(&base, &end, "b.000001", 700)
        };
        assert!(written(0) && written(999), "it was before anything gave up");
        assert!(!written(1000) && !written(5000));
        let end = BinlogEnd::look(&base, Some(blocked), now).unwrap();
        assert!(stands_still(&base, &end, "other.000001", 700), "not this server's");
        assert!(written(5001), "the clock of its file system goes ahead");
    }

    fn event(kind: u8, bytes: u32) -> Vec<u8> {
        let mut event = vec![0; bytes as usize];
        event[4] = kind;
        event[9..13].copy_from_slice(&bytes.to_le_bytes());
        event
    }

    fn gtid_event(sequence: u64, domain: u32, server: u32) -> Vec<u8> {
        let mut event = event(GTID, 42);
        event[5..9].copy_from_slice(&server.to_le_bytes());
        event[19..27].copy_from_slice(&sequence.to_le_bytes());
        event[27..31].copy_from_slice(&domain.to_le_bytes());
        event
    }

    #[test]
    fn a_change_that_only_the_gtid_counts_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("b");
        let before = [vec![0; 4], event(FORMAT_DESCRIPTION, 250), gtid_event(4, 0, 1), event(2, 90)].concat();
        let at = before.len() as u64;
        let after = [gtid_event(5, 0, 1), event(2, 90), gtid_event(7, 3, 1), vec![1; 30]].concat();
        std::fs::write(dir.path().join("b.000001"), [before, after].concat()).unwrap();
        let beyond = |position, gtid| counted_beyond(&base, "b.000001", position, gtid);
        assert_eq!((beyond(at, "0-1-4"), beyond(at, "0-2-5"), beyond(at + 132, "0-1-5,3-1-6")), (None, None, None));
        assert_eq!(beyond(at, "0-1-5").as_deref(), Some("0-1-5"));
        assert_eq!(beyond(at + 132, "0-1-5, 3-1-7").as_deref(), Some("3-1-7"));
        assert_eq!((beyond(at * 9, "0-1-5"), counted_beyond(&base, "none", 4, "0-1-5")), (None, None));
    }

    #[test]
    fn another_file_alone_is_no_step_forward() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("b");
        let before = BinlogEnd { file: "b.000001".to_owned(), bytes: 1000, late: false };
        let write = |name: &str, bytes: Vec<u8>| std::fs::write(dir.path().join(name), bytes).unwrap();
        write("b.000001", vec![0; 1040]);
        let head =
            [vec![0; 4], event(FORMAT_DESCRIPTION, 250), event(GTID_LIST, 43), event(BINLOG_CHECKPOINT, 40)].concat();
        let next = [head.clone(), event(162, 42), event(2, 90)].concat();
        write("b.000002", next.clone());
        let still = |file: &str, position: usize| stands_still(&base, &before, file, position as u64);
        assert!(still("b.000001", 1000) && still("b.000001", 900) && !still("b.000001", 1001));
        assert!(still("b.000002", head.len()) && !still("b.000002", next.len()));
        assert!(still("b.000002", next.len() + 1) && still("other.000001", 7), "not this server's");
        write("b.000001", vec![0; 2000]);
        assert!(!still("b.000002", head.len()), "what came before the other file");
        write("b.000001", vec![0; 1040]);
        write("b.000002", [head, event(START_ENCRYPTION, 36), vec![7; 900]].concat());
        assert!(still("b.000002", 500) && !still("b.000002", 1100));
    }
}
