//! Where the server's binlog ends, by its files.

use std::{fs::File, io::Read, path::Path};

/// The end of the newest binlog file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BinlogEnd {
    /// Name of the file.
    pub file: String,
    /// Its length in bytes.
    pub bytes: u64,
}

impl BinlogEnd {
    /// Looks at the files named `base` and a number, such as `/var/lib/mysql/binlog.000017`; none when there is none that can be
    /// seen.
    ///
    /// Source: MariaDB `sql/log.cc` (`find_uniq_filename`): the number is written with six digits or more.
    pub fn look(base: &Path) -> Option<BinlogEnd> {
        let stem = base.file_name()?.to_str()?;
        let names = base.parent()?.read_dir().ok()?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let number = |name: &str| {
            let digits = name.strip_prefix(stem)?.strip_prefix('.')?;
            digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse::<u64>().ok())?
        };
        let (_, file) = names.filter_map(|name| Some((number(&name)?, name))).max()?;
        let bytes = base.with_file_name(&file).metadata().ok()?.len();
        Some(BinlogEnd { file, bytes })
    }
}

/// Bytes that the event at a file's end takes that tells where the binlog goes on.
const ROTATE_BYTES_MAX: u64 = 512;
/// Bytes of a new file that are looked at: its head, and with many replication domains a long list in it.
const HEAD_BYTES_MAX: u64 = 64 << 10;
/// Bytes that the head of a file may take whose events are encrypted.
const ENCRYPTED_HEAD_BYTES_MAX: u64 = 1 << 10;
/// Length of an event's header, and where its type and its length stand in it (MariaDB `sql/log_event.h`).
const EVENT_HEADER_BYTES: u64 = 19;
const FORMAT_DESCRIPTION: u8 = 15;
const BINLOG_CHECKPOINT: u8 = 161;
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
    if file == before.file {
        return position <= before.bytes;
    }
    let ended = length(&before.file).is_some_and(|bytes| bytes <= before.bytes + ROTATE_BYTES_MAX);
    ended && head_bytes(&base.with_file_name(file)).is_some_and(|head| position <= head)
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
        assert_eq!(BinlogEnd::look(&base), None);
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
        assert_eq!(BinlogEnd::look(&base), Some(BinlogEnd { file: "db.bin.1000000".to_owned(), bytes: 4 }));
        assert_eq!(BinlogEnd::look(&dir.path().join("none/db")), None);
    }
    fn event(kind: u8, bytes: u32) -> Vec<u8> {
        let mut event = vec![0; bytes as usize];
        event[4] = kind;
        event[9..13].copy_from_slice(&bytes.to_le_bytes());
        event
    }

    #[test]
    fn another_file_alone_is_no_step_forward() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("b");
        let before = BinlogEnd { file: "b.000001".to_owned(), bytes: 1000 };
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
