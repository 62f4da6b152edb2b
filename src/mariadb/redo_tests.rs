use proptest::prelude::*;

use super::*;
use crate::{
    mariadb::redo_write::RedoWriter,
    model::{ExtentNo, PageMask, PageNo},
};

const FORMATS: [RedoFormat; 3] = [RedoFormat::Plain, RedoFormat::Encrypted, RedoFormat::EncryptedWhole];

fn scan(file: &[u8], last_lsn: Lsn, sizes: &[usize]) -> Result<RedoSummary, RedoError> {
    let mut scanner = RedoScanner::new(&RedoHeader::parse(file)?);
    let (mut rest, mut turn) = (&file[HEADER_BYTES..], 0);
    while !rest.is_empty() {
        let (now, later) = rest.split_at(sizes[turn % sizes.len()].clamp(1, rest.len()));
        scanner.push(now)?;
        (rest, turn) = (later, turn + 1);
    }
    scanner.finish(last_lsn)
}

/// A log of five mini-transactions, and its end.
fn sample(format: RedoFormat) -> (Vec<u8>, Lsn) {
    let mut writer = RedoWriter::new(format, Lsn(1_000_000));
    writer.create(SpaceId(7), "./db/new.ibd");
    writer.commit();
    writer.page(SpaceId(7), PageNo(0), &[3; 300]);
    writer.page(SpaceId(7), PageNo(20_000), b"x");
    writer.commit();
    writer.modify(SpaceId(300_000_000), "./db/changed.ibd");
    writer.commit();
    writer.checkpoint();
    writer.rename(SpaceId(8), "./db/a.ibd", "./db/b.ibd");
    writer.delete(SpaceId(9), "./db/gone.ibd");
    writer.commit();
    let end = writer.end();
    (writer.into_file(), end)
}

#[test]
fn a_whole_log_is_walked_to_its_end() {
    for format in FORMATS {
        let (file, end) = sample(format);
        let header = RedoHeader::parse(&file).unwrap();
        assert_eq!((header.format, header.start, header.creator.as_str()), (format, Lsn(1_000_000), "Backup 10.11.0"));
        let summary = scan(&file, end, &[100_000]).unwrap();
        assert_eq!((summary.start, summary.end, summary.mini_transactions), (Lsn(1_000_000), end, 5));
        let Some(ops) = summary.file_ops else {
            assert_eq!(format, RedoFormat::EncryptedWhole);
            continue;
        };
        assert_eq!(ops.created, [SpaceId(7)].into());
        assert_eq!(ops.modified, [SpaceId(300_000_000)].into());
        assert_eq!(ops.renamed, [SpaceId(8)].into());
        assert_eq!(ops.deleted, [SpaceId(9)].into());
        assert!(!ops.overflowed);
    }
}

#[test]
fn pages_that_are_freed_or_written_anew_are_void_and_changed_ones_are_not() {
    for format in [RedoFormat::Plain, RedoFormat::Encrypted] {
        let mut writer = RedoWriter::new(format, Lsn(1_000_000));
        writer.checkpoint();
        writer.free(SpaceId(7), PageNo(3));
        writer.init(SpaceId(7), PageNo(64));
        writer.page(SpaceId(7), PageNo(4), b"x");
        writer.commit();
        let end = writer.end();
        let void = scan(&writer.into_file(), end, &[100]).unwrap().voided.unwrap();
        assert_eq!(void.of(SpaceId(7), ExtentNo(0)), PageMask::only(3), "{format:?}");
        assert_eq!(void.of(SpaceId(7), ExtentNo(1)), PageMask::only(0), "{format:?}");
    }
}

#[test]
fn a_file_can_be_without_a_first_page_only_if_the_log_writes_that_anew() {
    for format in FORMATS {
        let mut writer = RedoWriter::new(format, Lsn(1_000_000));
        writer.checkpoint();
        writer.create(SpaceId(7), "./db/new.ibd");
        writer.create(SpaceId(9), "./db/gone.ibd");
        writer.modify(SpaceId(8), "./db/old.ibd");
        writer.commit();
        writer.init(SpaceId(7), PageNo(0));
        writer.page(SpaceId(8), PageNo(0), b"x");
        writer.init(SpaceId(8), PageNo(9));
        writer.init(SpaceId(9), PageNo(0));
        writer.commit();
        writer.delete(SpaceId(9), "./db/gone.ibd");
        writer.rename(SpaceId(7), "./db/new.ibd", "./db/newest.ibd");
        writer.commit();
        let (end, file) = (writer.end(), writer.into_file());
        let mut scanner = RedoScanner::new(&RedoHeader::parse(&file).unwrap()).with_names();
        scanner.push(&file[HEADER_BYTES..]).unwrap();
        let unwritten = scanner.finish(end).unwrap().unwritten();
        let hidden = format == RedoFormat::EncryptedWhole;
        assert_eq!(unwritten, if hidden { HashSet::new() } else { HashSet::from(["db/newest.ibd".to_owned()]) });
        assert_eq!(scan(&file, end, &[100]).unwrap().unwritten(), HashSet::new(), "names were not asked for");
    }
}

#[test]
fn logs_of_real_backups_end_with_their_last_lsn() {
    // Of backups of 10.11.19, with the last LSN of their checkpoints files.
    let plain = zstd::decode_all(&include_bytes!("testdata/redo_plain.zst")[..]).unwrap();
    let summary = scan(&plain, Lsn(17_444_829), &[100]).unwrap();
    assert_eq!((summary.start, summary.end, summary.mini_transactions), (Lsn(17_441_098), Lsn(17_444_829), 104));
    assert_eq!((summary.file_ops, summary.unknown_records, summary.trailing_bytes), (Some(FileOps::default()), 0, 0));
    let encrypted = zstd::decode_all(&include_bytes!("testdata/redo_encrypted.zst")[..]).unwrap();
    let summary = scan(&encrypted, Lsn(245_745_418), &[100]).unwrap();
    assert_eq!((summary.start, summary.end, summary.mini_transactions), (Lsn(245_745_326), Lsn(245_745_418), 1));
    assert_eq!((summary.file_ops, summary.trailing_bytes), (None, 0));
}

#[test]
fn a_cut_log_is_a_gap_wherever_it_is_cut() {
    for format in FORMATS {
        let (file, end) = sample(format);
        for len in HEADER_BYTES..file.len() {
            let error = scan(&file[..len], end, &[50]).unwrap_err();
            assert!(matches!(error, RedoError::Gap { stop: Stop::Cut | Stop::End, .. }), "{format:?} {len} {error}");
        }
    }
}

#[test]
fn a_flipped_bit_is_never_walked_over() {
    for format in FORMATS {
        let (file, end) = sample(format);
        for at in HEADER_BYTES..file.len() {
            let mut broken = file.clone();
            broken[at] ^= 1 << (at % 8);
            assert!(scan(&broken, end, &[100_000]).is_err(), "{format:?} {at}");
        }
    }
}

#[test]
fn what_stands_behind_the_last_lsn_does_not_matter() {
    for tail in [&[0; 4096][..], &[0xff; 600], b"\x32\x00"] {
        let (mut file, end) = sample(RedoFormat::Plain);
        file.extend_from_slice(tail);
        assert_eq!(scan(&file, end, &[64]).unwrap().trailing_bytes, tail.len() as u64);
        assert!(matches!(scan(&file, Lsn(end.0 + 1), &[64]), Err(RedoError::Gap { found, .. }) if found == end));
    }
    let (file, end) = sample(RedoFormat::Plain);
    assert_eq!(scan(&file, Lsn(end.0 - 5), &[64]).unwrap().end, end);
}

#[test]
fn a_log_without_its_checkpoint_record_is_refused() {
    for format in FORMATS {
        let mut writer = RedoWriter::new(format, Lsn(5000));
        let file = RedoWriter::new(format, Lsn(5000)).into_file();
        assert!(matches!(scan(&file, Lsn(5000), &[9]), Err(RedoError::NoCheckpointRecord { .. })));
        writer.checkpoint();
        let end = writer.end();
        assert_eq!(scan(&writer.into_file(), end, &[9]).unwrap().mini_transactions, 1);
    }
}

#[test]
fn headers_that_are_damaged_or_of_a_server_are_refused() {
    let (file, _) = sample(RedoFormat::Plain);
    assert!(matches!(RedoHeader::parse(&file[..511]), Err(RedoError::Truncated { .. })));
    assert!(matches!(RedoHeader::parse(&file[..HEADER_BYTES - 1]), Err(RedoError::Truncated { .. })));
    for at in 4..512 {
        let mut broken = file.clone();
        broken[at] ^= 1;
        assert!(matches!(RedoHeader::parse(&broken), Err(RedoError::HeaderChecksum { .. })), "{at}");
    }
    let mut broken = file.clone();
    broken[4096 + 20] ^= 1;
    assert_eq!(RedoHeader::parse(&broken), Err(RedoError::NoCheckpoint));
    let mut server = file.clone();
    let block = &mut server[8192..8256];
    block[..8].copy_from_slice(&2_000_000_u64.to_be_bytes());
    block[8..16].copy_from_slice(&2_000_000_u64.to_be_bytes());
    let crc = crc32c::crc32c(&block[..60]).to_be_bytes();
    block[60..].copy_from_slice(&crc);
    assert_eq!(
        RedoHeader::parse(&server),
        Err(RedoError::NotABackup { first: Lsn(1_000_000), checkpoint: Lsn(2_000_000) })
    );
}

#[test]
fn the_log_of_a_real_backup_of_10_5_is_refused_by_name() {
    // The first 4 KiB of the log of a backup of 10.5.23, whose checkpoints file says to_lsn = 45580.
    let log = zstd::decode_all(&include_bytes!("testdata/redo_10_5.zst")[..]).unwrap();
    let error = RedoHeader::parse(&log).unwrap_err();
    let creator = "Backup 10.5.23-MariaDB".to_owned();
    assert_eq!(error, RedoError::Old { name: "MariaDB 10.5 to 10.7", creator, start: Lsn(45_580) });
}

#[test]
fn older_logs_are_refused_by_name_with_their_start() {
    for (number, expected) in [
        (0x5048_5953, "MariaDB 10.5 to 10.7"),
        (0x5048_5953 | 1 << 31, "MariaDB 10.5 to 10.7"),
        (104, "MariaDB 10.4"),
        (1, "MariaDB 10.2 or MySQL 5.7"),
    ] {
        let mut header = vec![0; 512];
        header[..4].copy_from_slice(&u32::to_be_bytes(number));
        header[8..16].copy_from_slice(&77_u64.to_be_bytes());
        header[16..30].copy_from_slice(b"MariaDB 10.5.0");
        let error = RedoHeader::parse(&header).unwrap_err();
        assert_eq!(error, RedoError::Old { name: expected, creator: "MariaDB 10.5.0".to_owned(), start: Lsn(77) });
        assert_eq!(error.kind(), Kind::DatabaseRefused);
    }
    let mut header = vec![0; 512];
    header[3] = 6;
    assert!(matches!(RedoHeader::parse(&header), Err(RedoError::Unknown { found: 6, .. })));
}

#[test]
fn a_sequence_byte_of_a_server_stops_the_scan() {
    let (mut file, end) = sample(RedoFormat::Plain);
    let at = file.len() - 5;
    file[at] = 0;
    let error = scan(&file, end, &[1000]).unwrap_err();
    assert!(matches!(error, RedoError::Gap { stop: Stop::Sequence { found: 0 }, .. }), "{error}");
}

#[test]
fn a_mini_transaction_without_end_is_not_carried_for_ever() {
    let (mut file, end) = sample(RedoFormat::Plain);
    let header = RedoHeader::parse(&file).unwrap();
    file.truncate(HEADER_BYTES);
    let mut scanner = RedoScanner::new(&header);
    for _ in 0..2000 {
        scanner.push(&[0x3f; 4096]).unwrap();
        assert!(scanner.carry.len() <= 3 * MTR_BYTES_MAX);
    }
    let error = scanner.finish(end).unwrap_err();
    assert!(matches!(error, RedoError::Gap { stop: Stop::TooLong, .. }), "{error}");
}

#[test]
fn file_operations_are_limited() {
    let mut ops = FileOps::default();
    for space in 0..=FILE_OPS_MAX as u32 {
        assert!(!ops.overflowed);
        ops.add((FileOp::Modify, SpaceId(space)));
    }
    assert!(ops.overflowed);
    assert_eq!(ops.modified.len(), FILE_OPS_MAX);
}

#[test]
fn numbers_of_every_length_are_decoded() {
    // The known record of a real log: FILE_CHECKPOINT of 8 bytes.
    assert_eq!(next_record(b"\xfa\0\0\0\0\0\0\0\0\0\x01"), Some((0xfa, &b"\0\0\0\0\0\0\0\0\0\x01"[..], &b""[..])));
    for (bytes, expected) in [
        (&b"\x7f"[..], 127),
        (b"\x80\0", 128),
        (b"\xbf\xff", 16_511),
        (b"\xc0\0\0", 16_512),
        (b"\xe0\0\0\0", 2_113_664),
        (b"\xf0\0\0\0\0", 270_549_120),
        (b"\xf0\xef\xdf\xbf\x7f", u32::MAX),
    ] {
        assert_eq!(varint(bytes), Some((expected, &b""[..])));
        assert_eq!(varint(&bytes[..bytes.len() - 1]), None);
    }
    assert_eq!(varint(b"\xf0\xff\xff\xff\xff"), None);
    assert_eq!(varint(b"\xf1\0\0\0\0"), None);
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2000), size in 1_usize..300) {
        let _ = RedoHeader::parse(&bytes);
        for format in FORMATS {
            let mut file = RedoWriter::new(format, Lsn(9)).into_file();
            file.extend_from_slice(&bytes);
            let _ = scan(&file, Lsn(9), &[size]);
            // The same as records of a mini-transaction whose checksum is right.
            file.truncate(HEADER_BYTES);
            file.extend_from_slice(&bytes);
            file.push(1);
            file.extend_from_slice(&crc32c::crc32c(&bytes).to_be_bytes());
            let _ = scan(&file, Lsn(9), &[size]);
        }
        let mut rest = &bytes[..];
        while let Some((_, _, later)) = next_record(rest) {
            rest = later;
        }
    }

    #[test]
    fn written_logs_parse_back_however_they_are_pushed(
        records in proptest::collection::vec((any::<u32>(), any::<u32>(), 0_usize..20_000, any::<bool>()), 0..40),
        sizes in proptest::collection::vec(1_usize..9000, 1..5),
        format in 0_usize..3,
    ) {
        let mut writer = RedoWriter::new(FORMATS[format], Lsn(123_456_789));
        let mut commits = 1;
        writer.checkpoint();
        for (space, page, len, commit) in records {
            writer.page(SpaceId(space), PageNo(page), &vec![5; len + 1]);
            if commit {
                writer.commit();
                commits += 1;
            }
        }
        let end = writer.end();
        let summary = scan(&writer.into_file(), end, &sizes).unwrap();
        prop_assert_eq!((summary.end, summary.mini_transactions, summary.unknown_records), (end, commits, 0));
    }
}
