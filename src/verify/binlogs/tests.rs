use std::sync::Arc;

use object_store::{ObjectStoreExt, memory::InMemory, path::Path};

use super::*;
use crate::format::{BinlogLetGo, PrunePlan, PruneStep, SweepTally, segment_example};
use crate::mariadb::binlog::made_events as made;
use crate::model::{Silent, SystemClock, SystemEntropy};
use crate::repository::{SegmentWriter, WrittenSegment};
use crate::store::{Store, StoreOptions};
use crate::verify::{CheckReport, Selection};

const ALL: Option<ReadData> = Some(ReadData { percent: 100, seed: 0, part: None });
const STREAM: &str = "20261122T020500Z-51c0de";
const OTHER_STREAM: &str = "20261122T060500Z-51c0de";
/// What makes something else of a segment, and what is then said of it.
type Change = (fn(&mut Segment), &'static str);

/// Transactions of a segment.
const EACH: u32 = 5;

/// A repository with a stream of four segments.
struct Shelf {
    objects: Arc<InMemory>,
    repository: Arc<Repository>,
    segments: Vec<Segment>,
    /// The stream that is written, and how many segments were before it.
    stream: (&'static str, usize),
}

async fn empty() -> Shelf {
    let objects = Arc::new(InMemory::new());
    let store = Store::over("memory:///", objects.clone(), StoreOptions::default());
    let repository = Arc::new(Repository::init(store, &SystemClock, &SystemEntropy).await.unwrap());
    Shelf { objects, repository, segments: Vec::new(), stream: (STREAM, 0) }
}

async fn shelf() -> Shelf {
    let mut shelf = empty().await;
    for _ in 0..4 {
        shelf.add(|_| ()).await;
    }
    shelf
}

impl Shelf {
    /// The bytes of a segment's transactions.
    fn transactions(number: u32) -> Vec<u8> {
        let one = |n: u32| made::transaction(1_795_000_000 + n, &format!("0-1-{}", n + 1), "INSERT");
        (number * EACH..(number + 1) * EACH).flat_map(one).collect()
    }

    async fn written(&self, number: u32, bytes: &[u8]) -> WrittenSegment {
        let mut writer = SegmentWriter::new(self.repository.clone(), self.stream.0.parse().unwrap(), number).unwrap();
        writer.write(bytes).await.unwrap();
        writer.finish().await.unwrap()
    }

    /// Puts the next segment, of which `change` makes something else.
    async fn add(&mut self, change: impl FnOnce(&mut Segment)) {
        let number = self.segments.len() as u32;
        let (head, own) =
            ([&MAGIC[..], &made::format_description(1_795_000_000)].concat(), Shelf::transactions(number));
        let of_stream = number - self.stream.1 as u32;
        let written = self.written(of_stream, &[head, own.clone()].concat()).await;
        let last = self.segments.last();
        let gtid = |sequence: u32| -> Gtid { format!("0-1-{sequence}").parse().unwrap() };
        let (first_gtid, last_gtid) = (gtid(number * EACH + 1), gtid((number + 1) * EACH));
        let start = last.map_or(342, |last| last.end);
        let mut segment = Segment {
            repository_id: self.repository.config().repository_id,
            stream: self.stream.0.parse().unwrap(),
            number: of_stream,
            previous: last.filter(|_| of_stream > 0).map(|last| last.sum),
            gap: None,
            start,
            end: start + own.len() as u64,
            before: last.map(|last| last.after.clone()).unwrap_or_default(),
            after: [last_gtid].into_iter().collect(),
            first_gtid,
            last_gtid,
            first_time: Timestamp::from_seconds(1_795_000_000 + number * EACH),
            last_time: Timestamp::from_seconds(1_795_000_000 + (number + 1) * EACH - 1),
            transactions: u64::from(EACH),
            raw_bytes: written.raw_bytes,
            sum: written.sum,
            packs: written.packs,
            ..segment_example()
        };
        change(&mut segment);
        self.repository.put_segment(&segment).await.unwrap();
        self.segments.push(segment);
    }

    async fn check(&self, read_data: Option<ReadData>) -> CheckReport {
        crate::verify::check(&self.repository, &Selection::All, read_data, &Silent).await.unwrap()
    }

    /// What is wrong: objects and problems.
    async fn wrong(&self, read_data: Option<ReadData>) -> Vec<(String, String)> {
        let report = self.check(read_data).await;
        report.damages.into_iter().map(|damage| (damage.object, damage.problem)).collect()
    }

    /// The same with a backup that stands at `position`, of the time of the first transaction.
    async fn wrong_with(&self, position: &str, read_data: Option<ReadData>) -> Vec<(String, String)> {
        let mut backup = crate::format::manifest_example();
        (backup.started, backup.finished) = (self.segments[0].first_time, self.segments[0].first_time);
        backup.position.gtid = Some(position.to_owned());
        backup.position.file = Some("b.000001".to_owned());
        let (_, damages) = super::check(&self.repository, &[backup], read_data, &Silent).await.unwrap();
        damages.into_iter().map(|damage| (damage.object, damage.problem)).collect()
    }

    /// Begins another stream.
    fn go_on_in_another(&mut self) {
        self.stream = (OTHER_STREAM, self.segments.len());
    }

    fn document(&self, number: usize) -> String {
        ObjectKey::Segment(self.segments[number].key()).text()
    }

    fn pack(&self, number: usize) -> String {
        let segment = &self.segments[number];
        ObjectKey::SegmentPack(segment.stream.clone(), segment.number, segment.packs[0].pack).text()
    }

    async fn delete(&self, key: &str) {
        self.objects.delete(&Path::from(key)).await.unwrap();
    }

    async fn rot(&self, key: &str, bytes_less: usize) {
        let mut bytes = self.objects.get(&Path::from(key)).await.unwrap().bytes().await.unwrap().to_vec();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        bytes.truncate(bytes.len() - bytes_less);
        self.objects.put(&Path::from(key), bytes.into()).await.unwrap();
    }
}

#[tokio::test]
async fn a_whole_stream_is_clean_and_all_of_it_was_read() {
    let shelf = shelf().await;
    assert_eq!(shelf.wrong(None).await, []);
    let report = shelf.check(ALL).await;
    assert!(report.is_clean(), "{:?}", report.damages);
    let read_bytes = shelf.segments.iter().map(|segment| segment.raw_bytes).sum();
    assert_eq!(report.binlogs, BinlogTally { streams: 1, segments: 4, read_bytes, transactions: 20 });
    // What was begun and never came is nobody's.
    shelf.written(4, b"more").await;
    assert_eq!(shelf.wrong(ALL).await, []);
}

#[tokio::test]
async fn segments_and_packs_that_are_missing_or_damaged_are_named() {
    let shelf = shelf().await;
    shelf.delete(&shelf.document(1)).await;
    let missing = |problem: &str| (format!("binlogs/{STREAM}"), problem.to_owned());
    assert_eq!(shelf.wrong(None).await, [missing("segment 1 is missing")]);
    shelf.delete(&shelf.document(2)).await;
    assert_eq!(shelf.wrong(ALL).await, [missing("segments 1 to 2 are missing")]);
    shelf.rot(&shelf.pack(0), 0).await;
    assert_eq!(shelf.wrong(None).await.len(), 1, "its size is right");
    assert_eq!(shelf.wrong(ALL).await[0].0, shelf.pack(0));
    shelf.rot(&shelf.pack(0), 1).await;
    let wrong = shelf.wrong(ALL).await;
    assert!(wrong.len() == 2 && wrong[0].0 == shelf.pack(0) && wrong[0].1.contains("expected"), "{wrong:?}");
    shelf.delete(&shelf.pack(0)).await;
    let wrong = shelf.wrong(ALL).await;
    assert_eq!((wrong.len(), &wrong[0]), (2, &(shelf.pack(0), "it is missing".to_owned())));
    shelf.rot(&shelf.document(3), 0).await;
    assert!(shelf.wrong(None).await.iter().any(|(object, _)| *object == shelf.document(3)));
}

#[tokio::test]
async fn a_segment_that_does_not_go_on_from_the_one_before_it_is_named() {
    let changes: &[Change] = &[
        (|segment| segment.previous = Some(segment.sum), "it names another predecessor than segment 0"),
        (|segment| segment.before = "0-1-4".parse().unwrap(), "it begins at 0-1-4, and segment 0 ends at 0-1-5"),
        (|segment| (segment.start, segment.end) = (segment.start + 1, segment.end + 1), "and segment 0 ends at"),
    ];
    for (change, problem) in changes.iter().copied() {
        let mut shelf = empty().await;
        shelf.add(|_| ()).await;
        shelf.add(change).await;
        let wrong = shelf.wrong(None).await;
        assert!(wrong.len() == 1 && wrong[0].0 == shelf.document(1) && wrong[0].1.contains(problem), "{wrong:?}");
    }
}

#[tokio::test]
async fn a_document_that_says_otherwise_than_its_events_is_named() {
    let changes: &[Change] = &[
        (|segment| segment.transactions += 1, "its transactions are 5, and it says 6"),
        (|segment| segment.first_gtid.sequence += 1, "its first and last transactions are"),
        (
            |segment| segment.after.note("3-1-1".parse().unwrap()),
            "it ends at 0-1-5, and says that it ends at 0-1-5,3-1-1",
        ),
        (|segment| segment.last_time = segment.last_time.after(1), "its times are"),
        (|segment| segment.end += 1, "bytes of the server's, and says 342 to"),
        (|segment| segment.raw_bytes += 1, "bytes named"),
    ];
    for (change, problem) in changes.iter().copied() {
        let mut shelf = empty().await;
        shelf.add(change).await;
        assert_eq!(shelf.wrong(None).await, [], "only the bytes tell");
        let wrong = shelf.wrong(ALL).await;
        assert!(wrong.len() == 1 && wrong[0].0 == shelf.document(0) && wrong[0].1.contains(problem), "{wrong:?}");
    }
}

#[tokio::test]
async fn bytes_that_are_no_binary_log_or_half_of_one_are_named() {
    let head = [&MAGIC[..], &made::format_description(1)].concat();
    let half = [head.clone(), made::gtid(1_795_000_000, "0-1-1", false)].concat();
    let mut torn = [head.clone(), Shelf::transactions(0)].concat();
    torn.truncate(torn.len() - 3);
    let mut flipped = [head, Shelf::transactions(0)].concat();
    let at = flipped.len() - 40;
    flipped[at] ^= 1;
    for (bytes, problem) in [
        (b"no binary log".to_vec(), "it does not begin as a binary log file"),
        (half, "it ends inside of a transaction"),
        (torn, "it ends inside of a transaction"),
        (flipped, "is damaged at byte"),
    ] {
        let mut shelf = empty().await;
        let written = shelf.written(0, &bytes).await;
        shelf
            .add(|segment| {
                (segment.raw_bytes, segment.sum, segment.packs) = (written.raw_bytes, written.sum, written.packs)
            })
            .await;
        let wrong = shelf.wrong(ALL).await;
        assert!(wrong.len() == 1 && wrong[0].1.contains(problem), "{problem}: {wrong:?}");
    }
}

#[tokio::test]
async fn what_a_prune_lets_go_of_is_not_missed() {
    let shelf = shelf().await;
    let id: crate::model::PlanId = "20261123T000000Z-aaaaaa".parse().unwrap();
    let mut plan = PrunePlan {
        id: id.clone(),
        created: shelf.segments[0].archived,
        grace_seconds: 0,
        haulout_version: "0.1.0".to_owned(),
        policy: Vec::new(),
        backups: Vec::new(),
        editions: Vec::new(),
        parts: 0,
        packs: 0,
        pack_bytes: 0,
        binlogs: vec![BinlogLetGo { stream: STREAM.parse().unwrap(), below: 2, unfinished: Vec::new() }],
        segments: 2,
        segment_bytes: 0,
    };
    shelf.repository.put_plan(&mut plan, &[]).await.unwrap();
    shelf.delete(&shelf.document(1)).await;
    assert_eq!(shelf.wrong(None).await.len(), 1, "nobody has begun to carry it out");
    let step = PruneStep { plan: id, done: false, deleted: SweepTally::default() };
    shelf.repository.put_prune_step(&step).await.unwrap();
    assert_eq!(shelf.wrong(None).await, [], "it died between two segments");
    shelf.delete(&shelf.document(2)).await;
    let wrong = shelf.wrong(None).await;
    assert_eq!(wrong.len(), 1);
    assert_eq!(wrong[0].1, "segment 2 is missing");
}

#[tokio::test]
async fn packs_of_segments_are_proven_without_a_key() {
    let shelf = shelf().await;
    let open = || async {
        let store = Store::over("memory:///", shelf.objects.clone(), StoreOptions::default());
        let locked = crate::repository::Locked::open(store).await.unwrap();
        crate::verify::check_locked(&locked, ALL, &Silent).await.unwrap()
    };
    let report = open().await;
    assert_eq!((report.damages, report.read.objects), (vec![], 4));
    shelf.rot(&shelf.pack(2), 0).await;
    let damages = open().await.damages;
    assert_eq!(damages.iter().map(|damage| damage.object.clone()).collect::<Vec<_>>(), [shelf.pack(2)]);
}

/// By numbers all of these lie in the stream.
#[tokio::test]
async fn a_backup_whose_transaction_does_not_come_in_its_stream_is_named() {
    let shelf = shelf().await;
    for position in ["0-1-1", "0-1-7", "0-1-10", "0-1-20"] {
        for read_data in [None, ALL] {
            assert_eq!(shelf.wrong_with(position, read_data).await, [], "{position}");
        }
    }
    // Of no window.
    assert_eq!(shelf.wrong_with("0-2-21", ALL).await, []);
    let id = crate::format::manifest_example().id;
    let lost = |gtid: &str| {
        let problem = format!(
            "transaction {gtid}, at which the backup stands, does not come in it: no moment behind backup {id} can be restored by it"
        );
        [(format!("binlogs/{STREAM}"), problem)]
    };
    // Documents tell of the transactions that segments end with, and only the bytes of those inside.
    assert_eq!(shelf.wrong_with("0-2-10", None).await, lost("0-2-10"));
    assert_eq!(shelf.wrong_with("0-2-10", ALL).await, lost("0-2-10"));
    assert_eq!(shelf.wrong_with("0-2-7", None).await, []);
    assert_eq!(shelf.wrong_with("0-2-7", ALL).await, lost("0-2-7"));
}

#[tokio::test]
async fn a_segment_that_cannot_be_read_is_told_once_and_not_by_every_backup() {
    let shelf = shelf().await;
    shelf.rot(&shelf.pack(1), 0).await;
    let wrong = shelf.wrong_with("0-1-7", ALL).await;
    assert!(wrong.len() == 1 && wrong[0].0 == shelf.pack(1), "{wrong:?}");
}

#[tokio::test]
async fn a_stream_that_goes_on_elsewhere_than_where_it_says_is_named_with_the_backups_before_it() {
    for (before, problem) in [("0-1-10", None), ("0-1-9", Some("at 0-1-9, and it ends at 0-1-10: no window leads on"))]
    {
        let mut shelf = empty().await;
        shelf.add(|_| ()).await;
        shelf.add(|_| ()).await;
        let last = shelf.segments[1].clone();
        shelf.go_on_in_another();
        let link = crate::format::StreamLink { stream: last.stream, number: 1, sum: last.sum };
        shelf.add(|segment| (segment.continues, segment.before) = (Some(link), before.parse().unwrap())).await;
        let wrong = shelf.wrong_with("0-1-3", None).await;
        assert_eq!(wrong.len(), usize::from(problem.is_some()), "{wrong:?}");
        if let Some(problem) = problem {
            assert!(wrong[0].0 == shelf.document(1) && wrong[0].1.contains(problem), "{wrong:?}");
            let id = crate::format::manifest_example().id;
            assert!(wrong[0].1.ends_with(&format!("backup {id}")), "{wrong:?}");
            assert_eq!(shelf.wrong_with("0-1-12", None).await, [], "a backup behind it leads on");
        }
    }
}

#[tokio::test]
async fn another_servers_log_that_begins_at_a_transaction_that_never_came_is_named() {
    for (before, without, with) in [("0-1-8", 0, 0), ("0-2-8", 0, 1), ("0-2-10", 1, 1)] {
        let mut shelf = empty().await;
        shelf.add(|_| ()).await;
        shelf.add(|_| ()).await;
        shelf.go_on_in_another();
        shelf.add(|segment| segment.before = before.parse().unwrap()).await;
        for (read_data, number) in [(None, without), (ALL, with)] {
            let wrong = shelf.wrong_with("0-1-3", read_data).await;
            assert_eq!(wrong.len(), number, "{before}: {wrong:?}");
            let why = format!("transaction {before}, at which the log of the next server begins, does not come");
            assert!(wrong.iter().all(|(object, problem)| object.contains(STREAM) && problem.starts_with(&why)));
        }
    }
}
