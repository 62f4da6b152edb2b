//! The redo log of a backup.

use haulout::{
    mariadb::{
        redo::{HEADER_BYTES, RedoError, RedoFormat, RedoHeader, RedoScanner, RedoSummary},
        redo_write::RedoWriter,
    },
    model::Lsn,
};

use super::{cuts::piece_bytes, flipped};

/// Start checkpoint of the logs that are made here.
const START: Lsn = Lsn(4_000_000_000);

/// The first byte tells what follows: a whole file, a log without its header, or mini-transactions without their ends, each
/// behind its length in two bytes.
pub fn check(input: &[u8]) {
    let Some((how, rest)) = input.split_first() else { return };
    let format = [RedoFormat::Plain, RedoFormat::Encrypted, RedoFormat::EncryptedWhole][usize::from(how / 3 % 3)];
    let file = match how % 3 {
        0 => rest.to_vec(),
        1 => [&begun(format), rest].concat(),
        _ => [begun(format), ended(format, rest)].concat(),
    };
    one(&file);
}

/// A log that ends behind its start checkpoint.
fn begun(format: RedoFormat) -> Vec<u8> {
    let mut writer = RedoWriter::new(format, START);
    writer.checkpoint();
    writer.into_file()
}

/// Mini-transactions with the ends that their records ought to have.
fn ended(format: RedoFormat, mut rest: &[u8]) -> Vec<u8> {
    let nonce: &[u8] = if format == RedoFormat::Plain { &[] } else { &[7; 8] };
    let mut log = Vec::new();
    while let Some((len, after)) = rest.split_first_chunk() {
        let (records, later) = after.split_at(after.len().min(u16::from_be_bytes(*len).into()));
        rest = later;
        log.extend_from_slice(records);
        log.push(1);
        log.extend_from_slice(nonce);
        let crc = crc32c::crc32c_append(crc32c::crc32c(records), nonce);
        log.extend_from_slice(&crc.to_be_bytes());
    }
    log
}

fn one(file: &[u8]) {
    let header = match RedoHeader::parse(file) {
        Ok(header) => header,
        Err(error) => {
            let _ = error.to_string();
            return;
        }
    };
    assert_eq!(RedoHeader::parse(&flipped(file, 0..512)).ok(), None, "a flipped bit of the header passes");
    let log = &file[HEADER_BYTES..];
    let whole = scan(&header, log, log.len().max(1), Lsn(0));
    assert_eq!(whole, scan(&header, log, piece_bytes(log), Lsn(0)), "cut elsewhere, the same log says something else");
    let Ok(summary) = whole else { return };
    let used = (summary.end.0 - summary.start.0) as usize;
    assert_eq!(used as u64 + summary.trailing_bytes, log.len() as u64);
    assert!(scan(&header, log, log.len(), summary.end).is_ok());
    let beyond = scan(&header, log, log.len(), Lsn(summary.end.0 + 1));
    assert!(matches!(beyond, Err(RedoError::Gap { .. })), "{beyond:?}");
    let changed = scan(&header, &flipped(log, 0..used), log.len(), summary.end);
    assert!(changed.is_err(), "a flipped bit of the log passes: {changed:?}");
}

fn scan(header: &RedoHeader, log: &[u8], piece_bytes: usize, last_lsn: Lsn) -> Result<RedoSummary, RedoError> {
    let mut scanner = RedoScanner::new(header);
    log.chunks(piece_bytes).try_for_each(|piece| scanner.push(piece))?;
    scanner.finish(last_lsn)
}
