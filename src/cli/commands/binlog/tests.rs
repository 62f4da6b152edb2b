use std::sync::Arc;

use object_store::memory::InMemory;

use super::{list::Listing, *};
use crate::{
    cli::{
        args::BinlogListArgs,
        environment::Environment,
        options::Moment,
        output::{OutputOptions, tests::sheets},
        settings::Layers,
        snapshot,
    },
    format::segment_example,
    model::{SystemClock, SystemEntropy},
    repository::SegmentWriter,
    store::{Store, StoreOptions},
};

async fn repository() -> Arc<Repository> {
    let store = Store::over("memory:///", Arc::new(InMemory::new()), StoreOptions::default());
    Arc::new(Repository::init(store, &SystemClock, &SystemEntropy).await.unwrap())
}

/// Segments of a minute each, from 02:05 on, but for those that `lacks` names.
async fn archive(repository: &Arc<Repository>, stream: &str, numbers: std::ops::Range<u32>, lacks: &[u32]) {
    let first = segment_example();
    let mut previous = (numbers.start > 0).then_some(first.sum);
    for number in numbers {
        let mut writer = SegmentWriter::new(repository.clone(), stream.parse().unwrap(), number).unwrap();
        writer.write(format!("{stream} {number}").as_bytes()).await.unwrap();
        let written = writer.finish().await.unwrap();
        let sequence = first.first_gtid.sequence + u64::from(number) * 200;
        let (from, start) = (first.first_time.after(i64::from(number) * 60), first.start + u64::from(number) * 5);
        let segment = Segment {
            repository_id: repository.config().repository_id,
            stream: stream.parse().unwrap(),
            number,
            previous,
            gap: first.gap.clone().filter(|_| number == 0),
            first_time: from,
            last_time: from.after(40),
            first_gtid: format!("0-1-{sequence}").parse().unwrap(),
            last_gtid: format!("0-1-{}", sequence + 106).parse().unwrap(),
            after: format!("0-1-{},3-1-7", sequence + 106).parse().unwrap(),
            start,
            end: start + 5,
            raw_bytes: written.raw_bytes,
            sum: written.sum,
            packs: written.packs,
            ..first.clone()
        };
        previous = Some(segment.sum);
        if !lacks.contains(&number) {
            repository.put_segment(&segment).await.unwrap();
        }
    }
}

const ONE: &str = "20261122T020500Z-51c0de";
const OTHER: &str = "20261122T040000Z-0badca";

async fn two_streams() -> Arc<Repository> {
    let repository = repository().await;
    archive(&repository, ONE, 0..6, &[2, 3]).await;
    archive(&repository, OTHER, 4..6, &[]).await;
    repository
}

fn settings(from: Option<&str>, to: Option<&str>, stream: Option<&str>) -> BinlogSettings {
    let layers = Layers::new(Environment::of_variables(&[("HAULOUT_REPO", "s3://backups/db1")]), None);
    let moment = |text: &str| text.parse::<Moment>().unwrap();
    let range = BinlogRangeArgs { from: from.map(moment), to: to.map(moment), stream: stream.map(str::to_owned) };
    BinlogSettings::assemble(&layers, None, &range, &StoreArgs::default()).unwrap()
}

async fn numbers(repository: &Repository, settings: &BinlogSettings) -> Vec<(String, Vec<u32>)> {
    let chosen = choose(repository.binlog_streams().await.unwrap(), settings).unwrap();
    let numbers = |segments: &[StoredSegment]| segments.iter().map(|segment| segment.key.number).collect();
    chosen.iter().map(|chosen| (chosen.stream.id.to_string(), numbers(&chosen.segments))).collect()
}

#[tokio::test]
async fn a_range_has_what_overlaps_it_to_the_second() {
    let repository = two_streams().await;
    let one = |from, to| {
        let repository = &repository;
        async move { numbers(repository, &settings(from, to, Some(ONE))).await.pop().map(|(_, numbers)| numbers) }
    };
    assert_eq!(one(None, None).await, Some(vec![0, 1, 4, 5]));
    assert_eq!(one(Some("2026-11-22 02:05:40.9Z"), Some("2026-11-22 02:06:00Z")).await, Some(vec![0, 1]));
    assert_eq!(one(Some("2026-11-22 02:05:41Z"), Some("2026-11-22 02:05:59.9Z")).await, None);
    assert_eq!(one(Some("2026-11-22 03:09:10 +01:00"), None).await, Some(vec![4, 5]));
    let both = numbers(&repository, &settings(None, None, None)).await;
    assert_eq!(both[1], (OTHER.to_owned(), vec![4, 5]));
    let unknown =
        choose(repository.binlog_streams().await.unwrap(), &settings(None, None, Some("2027"))).err().unwrap();
    assert_eq!(unknown.kind, Kind::Usage);
}

#[test]
fn a_range_that_ends_before_it_begins_is_refused() {
    let layers = Layers::new(Environment::of_variables(&[("HAULOUT_REPO", "s3://b")]), None);
    let moment = |text: &str| Some(text.parse::<Moment>().unwrap());
    let range =
        BinlogRangeArgs { from: moment("2026-11-22 02:05:01Z"), to: moment("2026-11-22 02:05:00Z"), stream: None };
    let error = BinlogSettings::assemble(&layers, None, &range, &StoreArgs::default()).unwrap_err();
    assert!(error.to_string().contains("it is before --from"), "{error}");
}

async fn told(repository: &Arc<Repository>, args: &BinlogListArgs, json: bool) -> (Finish, String, String) {
    let layers = Layers::new(Environment::of_variables(&[("HAULOUT_REPO", "s3://backups/db1")]), None);
    let settings = BinlogSettings::assemble(&layers, None, &args.range, &args.store).unwrap();
    let streams = choose(repository.binlog_streams().await.unwrap(), &settings).unwrap();
    let range = Range { settings, repository: repository.clone(), streams };
    let (output, out, err) = sheets(OutputOptions { json, columns: Some(100), ..OutputOptions::default() });
    let (listing, faults) = Listing::read(range, args.long || json).await.unwrap();
    let finish = listing.tell(args, &faults, &output);
    (finish, out.text(), err.text())
}

/// What differs between two runs.
fn settled(text: &str, repository: &Repository) -> String {
    text.replace(&repository.config().repository_id.to_string(), "REPOSITORY")
}

#[tokio::test]
async fn streams_and_segments_with_their_gaps_are_as_reviewed() {
    let repository = two_streams().await;
    let (finish, streams, _) = told(&repository, &BinlogListArgs::default(), false).await;
    assert_eq!(finish, Finish::Damaged, "segments are missing");
    let long = BinlogListArgs { long: true, wide: true, ..BinlogListArgs::default() };
    let (_, long, _) = told(&repository, &long, false).await;
    snapshot::check("binlog-list.txt", &settled(&format!("{streams}\n{long}"), &repository));
    let (_, json, _) = told(&repository, &BinlogListArgs::default(), true).await;
    snapshot::check("binlog-list.jsonl", &settled(&json, &repository));
    let quiet = self::repository().await;
    let (finish, none, _) = told(&quiet, &BinlogListArgs::default(), false).await;
    assert!(finish == Finish::Done && none.contains("none is archived"), "{none}");
}

#[tokio::test]
async fn a_segment_that_cannot_be_read_is_named_and_the_others_are_listed() {
    let objects = Arc::new(InMemory::new());
    let store = Store::over("memory:///", objects.clone(), StoreOptions::default());
    let repository = Arc::new(Repository::init(store, &SystemClock, &SystemEntropy).await.unwrap());
    archive(&repository, ONE, 0..3, &[]).await;
    let key =
        crate::repository::ObjectKey::Segment(repository.binlog_streams().await.unwrap()[0].segments[1].key.clone());
    object_store::ObjectStoreExt::put(&*objects, &object_store::path::Path::from(key.text()), "rot".into())
        .await
        .unwrap();
    let (finish, _, err) = told(&repository, &BinlogListArgs { long: true, ..BinlogListArgs::default() }, false).await;
    assert_eq!(finish, Finish::Damaged);
    assert!(err.contains(&format!("segment 1 of stream {ONE} cannot be read")), "{err}");
}

#[test]
fn names_of_files_sort_and_lead_nowhere() {
    let mut segment = segment_example();
    assert_eq!(fetch::file_name(&segment), format!("{ONE}-00000000-db1-bin.000042"));
    segment.file = "../../etc/passwd\0\n".to_owned();
    assert_eq!(fetch::file_name(&segment), format!("{ONE}-00000000-.._.._etc_passwd__"));
}

#[test]
fn files_have_the_bytes_of_their_segments_and_their_names_last() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let repository = repository().await;
        archive(&repository, ONE, 0..1, &[]).await;
        let stored = repository.binlog_streams().await.unwrap()[0].segments[0].clone();
        let segment = repository.read_segment(&stored.key).await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("b.000001");
        let progress = crate::model::Silent;
        assert_eq!(fetch::write(&repository, &segment, &path, &progress).await.unwrap(), segment.raw_bytes);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{ONE} 0"));
        let lost = Segment { packs: vec![crate::format::SegmentPack { bytes: 1, ..segment.packs[0] }; 2], ..segment };
        assert!(fetch::write(&repository, &lost, &dir.path().join("other"), &progress).await.is_err());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "what is no binary log stays behind");
    });
}
