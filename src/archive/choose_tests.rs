use super::*;
use crate::format::segment_example;

fn set(text: &str) -> GtidSet {
    text.parse().unwrap()
}

/// The server of the example, with these files and the GTID position at the head of each, and where its log ends.
fn server(files: &[(&str, u64)], position: &str) -> ServerLog {
    let files = files.iter().map(|(name, bytes)| LogFile { name: (*name).to_owned(), bytes: *bytes }).collect();
    ServerLog {
        hostname: "db1".to_owned(),
        port: 3306,
        server_id: 1,
        version: "10.11.19-MariaDB-log".to_owned(),
        partial: false,
        files,
        position: set(position),
    }
}

fn known(server: ServerLog) -> Known {
    let segment = segment_example();
    Known { server, newest: Some(segment.clone()), own: Some(segment), backup: None, findings: Findings::default() }
}

/// Chooses on a server where these places have these positions.
fn choose(known: &Known, places: &[(&str, u64, &str)]) -> Result<Start, ArchiveError> {
    known.choose(&mut |asked| {
        let at = |(file, byte): &(&str, u64)| {
            let place = places.iter().find(|(name, at, _)| name == file && at == byte);
            place.map(|(_, _, position)| set(position))
        };
        Ok(asked.iter().map(at).collect())
    })
}

const ENDS: (&str, u64, &str) = ("db1-bin.000042", 88_061, "0-1-207,3-1-7");

#[test]
fn a_run_goes_on_at_the_very_byte_where_the_last_one_ended() {
    let own = segment_example();
    let log = server(&[("db1-bin.000042", 88_061), ("db1-bin.000043", 500)], "0-1-300,3-1-7");
    let start = choose(&known(log.clone()), &[ENDS]).unwrap();
    assert_eq!((start.file.as_str(), start.position, &start.at), ("db1-bin.000042", 88_061, &own.after));
    let (link, created) = start.continues.clone().unwrap();
    assert_eq!((link.stream, link.number, link.sum, created), (own.stream, 0, own.sum, own.file_created));
    // Of the same name, and another file.
    assert!(known(log.clone()).verify(&start, own.file_created).is_ok());
    let error = known(log).verify(&start, own.file_created + 1).unwrap_err();
    assert!(matches!(error, ArchiveError::OtherFile { .. }), "{error}");
}

#[test]
fn what_is_not_the_place_where_the_last_run_ended_is_not_gone_on_from() {
    let heads = [("db1-bin.000042", 4, "0-1-100"), ("db1-bin.000043", 4, "0-1-207,3-1-7")];
    let files = [("db1-bin.000042", 88_061), ("db1-bin.000043", 500)];
    let begins = |known: &Known, places: &[(&str, u64, &str)]| {
        let start = choose(known, places).unwrap();
        assert_eq!((start.continues, start.gap), (None, None));
        (start.file, start.position, start.at)
    };
    let expected = ("db1-bin.000043".to_owned(), 4, set("0-1-207,3-1-7"));
    // Other GTIDs there, no event that ends there, a shorter file, no such file.
    let usual = known(server(&files, "0-1-300,3-1-7"));
    assert_eq!(begins(&usual, &[heads[0], heads[1], (ENDS.0, ENDS.1, "0-1-206,3-1-7")]), expected);
    assert_eq!(begins(&usual, &heads), expected);
    let shorter = known(server(&[("db1-bin.000042", 88_060), files[1]], "0-1-300,3-1-7"));
    assert_eq!(begins(&shorter, &[heads[0], heads[1], ENDS]), expected);
    assert_eq!(begins(&known(server(&files[1..], "0-1-300,3-1-7")), &heads[1..]), expected);
    // Another file under its name.
    let mut other = known(server(&files, "0-1-300,3-1-7"));
    other.findings.other_file = true;
    assert_eq!(begins(&other, &[heads[0], heads[1], ENDS]), expected);
}

#[test]
fn where_the_server_sends_no_more_of_a_file_the_next_one_tells_whether_anything_is_missing() {
    let files = [("db1-bin.000042", 99_000), ("db1-bin.000043", 500), ("db1-bin.000044", 500)];
    let mut torn = known(server(&files, "0-1-300,3-1-7"));
    torn.findings.no_further = true;
    let heads =
        |next| [("db1-bin.000042", 4, ""), ("db1-bin.000043", 4, next), ("db1-bin.000044", 4, "0-1-250,3-1-7"), ENDS];
    let start = choose(&torn, &heads("0-1-207,3-1-7")).unwrap();
    assert_eq!((start.file.as_str(), start.position, start.gap), ("db1-bin.000043", 4, None));
    let start = choose(&torn, &heads("0-1-208,3-1-7")).unwrap();
    assert_eq!((start.file.as_str(), start.position), ("db1-bin.000043", 4));
    assert!(start.gap.unwrap().reason.contains("behind byte 88061 of db1-bin.000042"));
    // Nothing is behind it yet.
    torn.server.files.truncate(1);
    assert!(matches!(choose(&torn, &heads("")), Err(ArchiveError::Moved)));
}

#[test]
fn after_a_failover_the_newest_file_is_taken_that_begins_early_enough() {
    let mut log = server(&[("db1-bin.000042", 99), ("db1-bin.000043", 99), ("db1-bin.000044", 99)], "0-2-208,3-1-7");
    log.server_id = 2;
    let mut other = known(log);
    other.own = None;
    let heads =
        [("db1-bin.000042", 4, ""), ("db1-bin.000043", 4, "0-1-207,3-1-6"), ("db1-bin.000044", 4, "0-2-208,3-1-7")];
    let start = choose(&other, &heads).unwrap();
    assert_eq!((start.file.as_str(), start.position, start.at.clone()), ("db1-bin.000043", 4, set("0-1-207,3-1-6")));
    assert_eq!((&start.continues, &start.gap), (&None, &None));
    // A replica may have had it late.
    assert!(other.verify(&start, u32::MAX).is_ok());
    // One that never had it all.
    other.server.position = set("0-1-206,3-1-7");
    let gap = choose(&other, &heads).unwrap().gap.unwrap();
    assert_eq!(
        (gap.after, gap.reason.as_str()),
        (set("0-1-207,3-1-7"), "the server lacks 0-1-207 of what was archived")
    );
}

#[test]
fn what_was_purged_before_it_was_archived_is_a_gap() {
    let log = server(&[("db1-bin.000050", 99), ("db1-bin.000051", 99)], "0-1-900,3-1-7");
    let heads = [("db1-bin.000050", 4, "0-1-700,3-1-7"), ("db1-bin.000051", 4, "0-1-800,3-1-7")];
    let start = choose(&known(log), &heads).unwrap();
    assert_eq!((start.file.as_str(), start.position), ("db1-bin.000050", 4));
    let gap = start.gap.unwrap();
    assert_eq!(gap.after, set("0-1-207,3-1-7"));
    assert!(gap.reason.contains("purged its binary logs up to db1-bin.000050"), "{}", gap.reason);
}

#[test]
fn a_log_that_was_begun_anew_is_a_gap_and_taken_from_its_beginning() {
    let files = [("db1-bin.000001", 99), ("db1-bin.000002", 99)];
    let heads = [("db1-bin.000001", 4, ""), ("db1-bin.000002", 4, "0-1-40")];
    let start = choose(&known(server(&files, "0-1-50")), &heads).unwrap();
    assert_eq!((start.file.as_str(), start.gap.is_some()), ("db1-bin.000001", true));
    // Its numbers have passed those that were archived: only the time tells.
    let mut passed = known(server(&files, "0-1-300,3-1-9"));
    let start = choose(&passed, &heads).unwrap();
    assert_eq!((start.file.as_str(), &start.gap), ("db1-bin.000002", &None));
    let last = segment_example().last_time.0.as_second() as u32;
    assert!(passed.verify(&start, last).is_ok());
    assert!(matches!(passed.verify(&start, last + 1), Err(ArchiveError::BegunAnew)));
    passed.findings.begun_anew = true;
    let start = choose(&passed, &heads).unwrap();
    assert_eq!((start.file.as_str(), start.gap.is_some()), ("db1-bin.000001", true));
    assert!(passed.verify(&start, last + 1).is_ok());
}

#[test]
fn a_file_that_cannot_be_read_is_passed_over_with_a_gap() {
    let mut known = known(server(&[("db1-bin.000042", 99_999), ("db1-bin.000043", 500)], "0-1-300,3-1-7"));
    known.findings.unreadable = Some(("db1-bin.000042".to_owned(), "damaged".to_owned()));
    let start = choose(&known, &[ENDS, ("db1-bin.000043", 4, "0-1-290,3-1-7")]).unwrap();
    assert_eq!((start.file.as_str(), start.gap.unwrap().reason.as_str()), ("db1-bin.000043", "damaged"));
    known.server.files.pop();
    assert!(matches!(choose(&known, &[ENDS]), Err(ArchiveError::Moved)));
}

#[test]
fn without_a_stream_a_run_begins_at_the_newest_backup() {
    let log = server(&[("b.000041", 2000), ("b.000042", 2000), ("b.000043", 99)], "0-1-900");
    let heads = [("b.000041", 4, "0-1-100"), ("b.000042", 4, "0-1-200"), ("b.000043", 4, "0-1-300")];
    let mut first = Known { server: log, newest: None, own: None, backup: None, findings: Findings::default() };
    let begins = |known: &Known, here: &str| {
        let start = choose(known, &[&heads[..], &[("b.000042", 1500, here)]].concat()).unwrap();
        assert_eq!((start.continues, start.gap), (None, None));
        (start.file, start.position)
    };
    assert_eq!(begins(&first, "0-1-250"), ("b.000041".to_owned(), 4));
    first.backup = Some(BackupPlace {
        hostname: "db1".to_owned(),
        server_id: 1,
        file: Some("b.000042".to_owned()),
        position: Some(1500),
        gtid: set("0-1-250"),
    });
    assert_eq!(begins(&first, "0-1-250"), ("b.000042".to_owned(), 1500));
    // Of the same name, with other transactions, or another server's: by GTID then.
    assert_eq!(begins(&first, "0-1-249"), ("b.000042".to_owned(), 4));
    first.server.server_id = 2;
    assert_eq!(begins(&first, "0-1-250"), ("b.000042".to_owned(), 4));
    // The server has nothing that old.
    first.backup.as_mut().unwrap().gtid = set("0-1-50");
    assert_eq!(begins(&first, "0-1-250"), ("b.000041".to_owned(), 4));
}
