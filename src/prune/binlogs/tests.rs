use std::sync::Arc;

use super::super::tests::{Bench, DAY, keep};
use super::super::{PruneOptions, undelete};
use super::*;
use crate::format::{Segment, segment_example};
use crate::repository::{Repository, SegmentWriter};
use crate::store::faulty::{Fault, Operation, Rule};

const STREAM: &str = "20261122T020500Z-51c0de";

/// Five backups, and for each a segment that only those can use that were begun before it, and one more.
async fn bench(seed: u64) -> Bench {
    let bench = Bench::new(seed, 5).await;
    let repository = bench.open(Vec::new()).await.unwrap();
    for number in 0..5 {
        let last = bench.manifests[number as usize].started.after(-MARGIN_SECONDS - 30);
        put(&repository, STREAM, number, last).await;
    }
    put(&repository, STREAM, 5, bench.manifests[4].started).await;
    bench
}

async fn written(repository: &Arc<Repository>, stream: &str, number: u32) -> crate::repository::WrittenSegment {
    let mut writer = SegmentWriter::new(repository.clone(), stream.parse().unwrap(), number).unwrap();
    writer.write(format!("{stream} {number}").as_bytes()).await.unwrap();
    writer.finish().await.unwrap()
}

async fn put(repository: &Arc<Repository>, stream: &str, number: u32, last: Timestamp) {
    let written = written(repository, stream, number).await;
    let segment = Segment {
        repository_id: repository.config().repository_id,
        stream: stream.parse().unwrap(),
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

/// Numbers of the segments that are there, which are a row, and those of which packs alone are there.
async fn numbers(bench: &Bench) -> (Vec<u32>, Vec<u32>) {
    let repository = bench.open(Vec::new()).await.unwrap();
    let Some(stream) = repository.binlog_stream(&STREAM.parse().unwrap()).await.unwrap() else {
        return Default::default();
    };
    assert!(stream.is_unbroken());
    let unfinished = stream.unfinished.iter().map(|pack| pack.0).collect();
    (stream.segments.iter().map(|segment| segment.key.number).collect(), unfinished)
}

#[tokio::test]
async fn log_that_no_backup_can_use_goes_by_a_plan_after_its_grace() {
    let bench = bench(51).await;
    let dry = bench.prune(&PruneOptions { dry_run: true, ..keep(2) }).await.made.unwrap();
    assert_eq!(bench.prune(&keep(4)).await.made.unwrap().segments, 2, "segments 0 and 1");
    let made = bench.prune(&keep(2)).await.made.unwrap();
    assert_eq!((dry.segments, made.segments), (4, 2), "what another plan names is not planned again");
    assert!(made.segment_bytes > 0);
    bench.pass(DAY - 600);
    bench.prune(&keep(2)).await;
    assert_eq!(numbers(&bench).await.0.len(), 6);
    bench.pass(1200);
    let swept = bench.prune(&keep(2)).await.swept;
    assert_eq!(swept.iter().map(|swept| swept.segments).collect::<Vec<_>>(), [2, 2]);
    assert!(swept.iter().all(|swept| swept.segment_bytes > 0));
    assert_eq!(numbers(&bench).await, (vec![4, 5], vec![]));
    assert_eq!(bench.prune(&keep(2)).await.made, None);
}

#[tokio::test]
async fn without_rules_log_stays_as_long_as_the_oldest_backup() {
    let bench = bench(52).await;
    let options = PruneOptions { grace_seconds: 0, ..PruneOptions::default() };
    assert_eq!(bench.prune(&options).await.made.unwrap().segments, 1);
    assert_eq!(numbers(&bench).await, (vec![1, 2, 3, 4, 5], vec![]));
}

#[tokio::test]
async fn log_stays_that_a_backup_needs_which_was_undeleted() {
    for by_rules in [true, false] {
        let bench = bench(53).await;
        assert_eq!(bench.prune(&keep(1)).await.made.unwrap().segments, 5);
        let repository = bench.open(Vec::new()).await.unwrap();
        undelete(&repository, &[bench.id(1)], &*bench.entropy).await.unwrap();
        bench.pass(2 * DAY);
        let options =
            if by_rules { keep(1) } else { PruneOptions { grace_seconds: 86_400, ..PruneOptions::default() } };
        let report = bench.prune(&options).await;
        assert_eq!(report.swept[0].spared, [bench.id(1)]);
        let expected: &[u32] = if by_rules { &[2, 3, 4, 5] } else { &[0, 1, 2, 3, 4, 5] };
        assert_eq!(numbers(&bench).await.0, expected, "by rules: {by_rules}");
    }
}

#[tokio::test]
async fn with_keep_pitr_log_goes_though_older_backups_stay() {
    let bench = bench(54).await;
    let span = |seconds: i64| Some((jiff::Span::new().seconds(seconds), format!("{seconds}s")));
    let ended = |number: usize| {
        let (newest, backup) = (bench.manifests[4].started, &bench.manifests[number]);
        newest.seconds_since(backup.finished)
    };
    let policy = KeepPolicy { pitr: span(ended(2)), ..KeepPolicy::default() };
    let options = PruneOptions { policy, grace_seconds: 0, ..PruneOptions::default() };
    let report = bench.prune(&options).await;
    assert_eq!(report.swept[0].segments, 3);
    assert_eq!(bench.there().await.len(), 5, "given alone it lets no backup go");
    assert_eq!(numbers(&bench).await, (vec![3, 4, 5], vec![]));
    let too_long = KeepPolicy { pitr: span(ended(0) + 1), ..KeepPolicy::default() };
    assert_eq!(bench.prune(&PruneOptions { policy: too_long, ..options }).await.made, None);
}

#[tokio::test]
async fn the_last_segment_stays_for_the_archiver_to_go_on_from() {
    let bench = Bench::new(55, 2).await;
    let repository = bench.open(Vec::new()).await.unwrap();
    let early = bench.manifests[0].started.after(-40 * DAY);
    for (stream, numbers) in [("20261001T000000Z-aaaaaa", 3), (STREAM, 2)] {
        for number in 0..numbers {
            put(&repository, stream, number, early).await;
        }
    }
    let options = PruneOptions { grace_seconds: 0, ..PruneOptions::default() };
    assert_eq!(bench.prune(&options).await.swept[0].segments, 4);
    assert_eq!(numbers(&bench).await.0, [1]);
    assert_eq!(repository.binlog_streams().await.unwrap().len(), 1);
}

#[tokio::test]
async fn packs_of_a_segment_that_never_came_go_after_a_day_and_one_that_came_meanwhile_stays() {
    let bench = bench(56).await;
    let repository = bench.open(Vec::new()).await.unwrap();
    for number in [6, 7] {
        written(&repository, STREAM, number).await;
    }
    let all = keep(5);
    bench.prune(&all).await;
    assert_eq!(numbers(&bench).await.1, [6, 7]);
    bench.pass(DAY + 600);
    let made = bench.prune(&all).await.made.unwrap();
    assert!(made.segments == 0 && made.segment_bytes > 0, "{made:?}");
    assert_eq!(bench.prune(&all).await.made, None, "planned already");
    put(&repository, STREAM, 6, bench.manifests[4].started).await;
    bench.pass(DAY + 600);
    bench.prune(&all).await;
    assert_eq!(numbers(&bench).await, (vec![1, 2, 3, 4, 5, 6], vec![]));
}

#[tokio::test]
async fn a_prune_that_dies_among_segments_is_finished_by_the_next() {
    let bench = bench(57).await;
    bench.prune(&keep(2)).await;
    bench.pass(2 * DAY);
    let mut deaths = 0;
    for skip in 0..40 {
        let copy = bench.fork().await;
        let rule = Rule { skip, ..Rule::once(Operation::Delete, Fault::Reset).on_keys("binlogs") };
        if copy.prune_with(&keep(2), vec![rule]).await.is_err() {
            deaths += 1;
        }
        copy.pass(i64::from(crate::repository::LEASE_SECONDS) + 10);
        copy.prune(&keep(2)).await;
        assert_eq!(numbers(&copy).await, (vec![4, 5], vec![]), "died at the deletion {skip}");
    }
    assert_eq!(deaths, 8, "four documents and four packs");
}

#[tokio::test]
async fn log_stays_where_a_backup_cannot_be_read() {
    let bench = bench(58).await;
    bench.tamper(&format!("backups/{}.json", bench.id(0)), b"rot".to_vec()).await;
    let report = bench.prune(&PruneOptions { grace_seconds: 0, ..keep(2) }).await;
    assert!(!report.skipped.is_empty());
    assert_eq!(numbers(&bench).await.0.len(), 6);
}

#[test]
fn what_is_locked_is_not_planned_and_nothing_behind_it() {
    let stored = |number| {
        let key = segment_example().key();
        let key = crate::repository::SegmentKey { number, ..key };
        crate::repository::StoredSegment { key, stored: Timestamp::from_seconds(number), bytes: 10, packs: Vec::new() }
    };
    let segments = (0..9).map(stored).collect();
    let streams = [StoredStream { id: STREAM.parse().unwrap(), segments, unfinished: Vec::new() }];
    let (horizon, now) = (Timestamp(jiff::Timestamp::MAX), Timestamp::from_seconds(100));
    let is_locked = |moment: Timestamp| moment >= Timestamp::from_seconds(4);
    let goes = choose(&streams, horizon, &[], now, is_locked);
    assert_eq!((goes.segments, goes.bytes, goes.entries[0].below), (4, 40, 4));
    let named = goes.entries;
    assert_eq!(choose(&streams, horizon, &[&named[0]], now, is_locked).entries, []);
    assert_eq!(choose(&streams, horizon, &[&named[0]], now, |_| false).segments, 4, "all but the last");
}
