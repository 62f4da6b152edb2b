use super::super::tests::{Bench, Key};
use super::super::{CopyOptions, Repository};
use super::*;
use crate::format::{Segment, segment_example};
use crate::model::Timestamp;
use crate::repository::{ObjectKey, SegmentReader, SegmentWriter};
use crate::store::faulty::{Fault, Rule};

const STREAM: &str = "20261122T020500Z-51c0de";

fn bytes_of(number: u32) -> Vec<u8> {
    format!("segment {number}").repeat(100).into_bytes()
}

async fn put(repository: &Arc<Repository>, number: u32, last: Timestamp) {
    let mut writer = SegmentWriter::new(repository.clone(), STREAM.parse().unwrap(), number).unwrap();
    writer.write(&bytes_of(number)).await.unwrap();
    let written = writer.finish().await.unwrap();
    let segment = Segment {
        repository_id: repository.config().repository_id,
        number,
        previous: (number > 0).then_some(written.sum),
        gap: None,
        first_time: last.after(-5).whole_seconds(),
        last_time: last.whole_seconds(),
        raw_bytes: written.raw_bytes,
        sum: written.sum,
        packs: written.packs,
        ..segment_example()
    };
    repository.put_segment(&segment).await.unwrap();
}

/// Two backups, and log from before the first on: two segments that no backup needs, and four.
async fn archived(bench: &Bench) {
    let source = bench.source.open(bench.key, Vec::new()).await.unwrap();
    let begun = bench.manifests[0].started;
    for number in 0..2 {
        put(&source, number, begun.after(-MARGIN_SECONDS - 10)).await;
    }
    for number in 2..6 {
        put(&source, number, begun.after(i64::from(number))).await;
    }
}

/// Numbers in the copy, which are a row; each of them is there with all its bytes.
async fn numbers(bench: &Bench) -> Vec<u32> {
    let Ok(copy) = bench.copy.open(bench.key, Vec::new()).await else { return Vec::new() };
    let streams = copy.binlog_streams().await.unwrap();
    assert!(streams.iter().all(StoredStream::is_unbroken));
    let mut numbers = Vec::new();
    for stored in streams.iter().flat_map(|stream| &stream.segments) {
        let segment = copy.read_segment(&stored.key).await.unwrap();
        let (mut reader, mut bytes) = (SegmentReader::new(&copy, &segment), Vec::new());
        while let Some(part) = reader.next().await.unwrap() {
            bytes.extend(part);
        }
        assert!(bytes == bytes_of(stored.key.number));
        numbers.push(stored.key.number);
    }
    numbers
}

#[tokio::test]
async fn binary_log_is_copied_once_and_from_where_the_copys_backups_need_it() {
    let bench = Bench::new(61, 2).await;
    archived(&bench).await;
    let dry = bench.run(&CopyOptions { dry_run: true, ..CopyOptions::default() }).await.binlogs;
    assert_eq!((dry.segments, numbers(&bench).await), (4, vec![]));
    let copied = bench.run(&CopyOptions::default()).await.binlogs;
    assert_eq!((copied.segments, numbers(&bench).await), (4, vec![2, 3, 4, 5]));
    assert!(copied.bytes > 0);
    assert_eq!(bench.run(&CopyOptions::default()).await.binlogs, CopiedBinlogs::default());
    let source = bench.source.open(bench.key, Vec::new()).await.unwrap();
    put(&source, 6, bench.manifests[1].started).await;
    assert_eq!(bench.run(&CopyOptions::default()).await.binlogs.segments, 1);
    assert_eq!(numbers(&bench).await, [2, 3, 4, 5, 6]);
}

#[tokio::test]
async fn binary_log_of_a_sealed_repository_is_copied_without_its_key() {
    let bench = Bench::sealed(62, 2).await;
    archived(&bench).await;
    let (report, _) = bench.run_with((Key::None, &CopyOptions::default()), Vec::new(), Vec::new()).await.unwrap();
    assert_eq!((report.binlogs.segments, report.skipped), (4, vec![]));
    assert_eq!(numbers(&bench).await, [2, 3, 4, 5]);
}

#[tokio::test]
async fn binary_log_that_is_not_wanted_is_left_out_and_told() {
    let bench = Bench::new(63, 1).await;
    archived(&bench).await;
    let report = bench.run(&CopyOptions { binlogs: false, ..CopyOptions::default() }).await;
    assert_eq!(report.binlogs, CopiedBinlogs { left_out: 6, ..CopiedBinlogs::default() });
    assert_eq!((report.copied.len(), numbers(&bench).await), (1, vec![]));
}

#[tokio::test]
async fn what_a_prune_of_the_copy_let_go_of_does_not_come_back() {
    let bench = Bench::new(64, 2).await;
    archived(&bench).await;
    bench.run(&CopyOptions::default()).await;
    let copy = bench.copy.open(bench.key, Vec::new()).await.unwrap();
    for segment in &copy.binlog_streams().await.unwrap()[0].segments[..2] {
        copy.delete(&ObjectKey::Segment(segment.key.clone())).await.unwrap();
    }
    assert_eq!(bench.run(&CopyOptions::default()).await.binlogs, CopiedBinlogs::default());
    assert_eq!(numbers(&bench).await, [4, 5]);
}

#[tokio::test]
async fn a_copy_that_dies_among_segments_is_gone_on_with() {
    let bench = Bench::new(65, 1).await;
    archived(&bench).await;
    bench.run(&CopyOptions { binlogs: false, ..CopyOptions::default() }).await;
    for fault in [Fault::Reset, Fault::LoseAnswer] {
        let mut deaths = 0;
        for requests in 0.. {
            let copy = bench.copy.open(bench.key, Vec::new()).await.unwrap();
            for stream in copy.binlog_streams().await.unwrap() {
                for segment in stream.segments.into_iter().rev() {
                    copy.delete(&ObjectKey::Segment(segment.key)).await.unwrap();
                }
            }
            let rules = vec![Rule::after(requests, fault.clone()).on_keys("binlogs/")];
            let died = bench.run_with((bench.key, &CopyOptions::default()), Vec::new(), rules).await;
            numbers(&bench).await;
            bench.pass_lease();
            bench.run(&CopyOptions::default()).await;
            assert_eq!(numbers(&bench).await, [2, 3, 4, 5], "{fault:?} after {requests} requests");
            if died.is_ok() {
                break;
            }
            deaths += 1;
        }
        assert!(deaths >= 8, "{fault:?}: {deaths}");
    }
}

#[tokio::test]
async fn a_segment_that_is_damaged_is_told_and_the_others_come_across() {
    let bench = Bench::new(66, 1).await;
    archived(&bench).await;
    let source = bench.source.open(bench.key, Vec::new()).await.unwrap();
    let segment = source.binlog_streams().await.unwrap()[0].segments[5].clone();
    let pack = ObjectKey::SegmentPack(STREAM.parse().unwrap(), 5, segment.packs[0].0);
    bench.source.tamper(&pack, |bytes| bytes[70] ^= 1).await;
    let report = bench.run(&CopyOptions::default()).await;
    assert_eq!((report.binlogs.segments, numbers(&bench).await), (3, vec![2, 3, 4]));
    let [skip] = report.skipped.as_slice() else { panic!("{report:?}") };
    assert!(skip.message.contains("segment 5 of binary log stream"), "{skip:?}");
    source.delete(&pack).await.unwrap();
    let report = bench.run(&CopyOptions::default()).await;
    assert_eq!((report.skipped.len(), numbers(&bench).await), (1, vec![2, 3, 4]));
}

#[tokio::test]
async fn rotten_packs_of_the_copy_are_put_again_before_their_document() {
    let bench = Bench::new(67, 1).await;
    archived(&bench).await;
    bench.run(&CopyOptions::default()).await;
    let copy = bench.copy.open(bench.key, Vec::new()).await.unwrap();
    let segment = copy.binlog_streams().await.unwrap()[0].segments[3].clone();
    copy.delete(&ObjectKey::Segment(segment.key.clone())).await.unwrap();
    let pack = ObjectKey::SegmentPack(STREAM.parse().unwrap(), 5, segment.packs[0].0);
    bench.copy.tamper(&pack, |bytes| bytes[70] ^= 1).await;
    assert_eq!(bench.run(&CopyOptions::default()).await.binlogs.segments, 1);
    assert_eq!(numbers(&bench).await, [2, 3, 4, 5]);
}
