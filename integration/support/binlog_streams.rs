//! Archived binary log, read back through the library and told by MariaDB's own tool.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, LazyLock},
    time::Duration,
};

use haulout::{
    format::{KeySlot, SecretKey, Segment, key_of_file},
    model::{GtidSet, Secret, SystemEntropy},
    repository::{Access, KeySource, Repository, SegmentReader, StoredStream},
    store::{self, AccessKey, StoreOptions},
};
use tokio::runtime::Runtime;

use super::{LocalStack, MariaDb, scratch, wait};

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime")
});

/// The key of sealed sites.
struct Key(SecretKey);

#[async_trait::async_trait]
impl KeySource for Key {
    async fn key(&self, _: &KeySlot) -> Result<Option<SecretKey>, String> {
        Ok(Some(self.0.clone()))
    }
}

/// The streams of the repository at a URL.
pub struct Binlogs {
    repository: Repository,
}

/// A segment, and the binary log file that it is.
pub struct Archived {
    pub segment: Segment,
    pub bytes: Vec<u8>,
}

/// Transactions that follow on each other without a gap.
#[derive(Debug, Default)]
pub struct Row {
    /// Their GTIDs.
    pub gtids: Vec<String>,
    /// Streams of it that go on at the very byte.
    pub continued: usize,
    /// Streams of it that are joined by their GTIDs.
    pub joined: usize,
    /// Why it does not go on from the row before it.
    pub gap: Option<String>,
}

impl Binlogs {
    /// Those at `url`, on disk or in the tests' store.
    pub fn at(url: &str) -> Binlogs {
        Binlogs::open(url, None)
    }

    /// Those of a repository that is sealed with the key of [`super::Site::sealed`].
    pub fn sealed(url: &str) -> Binlogs {
        let keys = Arc::new(Key(key_of_file("5a".repeat(32).as_bytes()).unwrap()));
        Binlogs::open(url, Some(Access { keys, entropy: Arc::new(SystemEntropy) }))
    }

    fn open(url: &str, access: Option<Access>) -> Binlogs {
        let bucket = url.starts_with("s3:").then(LocalStack::shared);
        let access_key =
            bucket.map(|_| AccessKey { id: "test".to_owned(), secret: Secret::new("test"), session_token: None });
        let endpoint = bucket.map(|bucket| bucket.endpoint().parse().unwrap());
        let options =
            StoreOptions { region: Some("us-east-1".to_owned()), endpoint, access_key, ..StoreOptions::default() };
        let repository = RUNTIME.block_on(async {
            let store = store::open(&url.parse().unwrap(), &options).await.unwrap();
            match access {
                Some(access) => Repository::unlock(store, &access).await.unwrap(),
                None => Repository::open(store).await.unwrap(),
            }
        });
        Binlogs { repository }
    }

    fn streams(&self) -> Vec<StoredStream> {
        let mut streams = RUNTIME.block_on(self.repository.binlog_streams()).unwrap();
        streams.retain(|stream| !stream.segments.is_empty());
        streams
    }

    /// The GTID position of all that is archived; empty before anything is.
    pub fn position(&self) -> GtidSet {
        let streams = self.streams();
        let Some(last) = streams.last().and_then(|stream| stream.segments.last()) else { return GtidSet::new() };
        RUNTIME.block_on(self.repository.read_segment(&last.key)).unwrap().after
    }

    /// Number of segments.
    pub fn count(&self) -> usize {
        self.streams().iter().map(|stream| stream.segments.len()).sum()
    }

    /// All segments, stream by stream, with their bytes, which are proven.
    pub fn segments(&self) -> Vec<Vec<Archived>> {
        let read = async |segment: &Segment| {
            let (mut reader, mut bytes) = (SegmentReader::new(&self.repository, segment), Vec::new());
            while let Some(part) = reader.next().await.unwrap() {
                bytes.extend(part);
            }
            bytes
        };
        let found = self.streams();
        let all = async {
            let mut streams = Vec::new();
            for stream in found {
                assert!(stream.is_unbroken(), "a number lacks in {}", stream.id);
                let mut segments = Vec::new();
                for stored in &stream.segments {
                    let segment = self.repository.read_segment(&stored.key).await.unwrap();
                    let bytes = read(&segment).await;
                    segments.push(Archived { segment, bytes });
                }
                streams.push(segments);
            }
            streams
        };
        RUNTIME.block_on(all)
    }

    /// What is archived, one row after another between which there are gaps. Panics where a link does not hold, or anything comes twice.
    pub fn rows(&self) -> Vec<Row> {
        let streams = self.segments();
        let mut ends: BTreeMap<(String, u32), &Segment> = BTreeMap::new();
        let (mut rows, mut position) = (Vec::<Row>::new(), GtidSet::new());
        for stream in &streams {
            let first = &stream[0].segment;
            assert_eq!((first.number, first.previous), (0, None));
            let mut skip = GtidSet::new();
            if let Some(link) = &first.continues {
                let end = ends[&(link.stream.to_string(), link.number)];
                assert_eq!((end.sum, &end.after), (link.sum, &first.before), "{first:?}");
                // Where nothing more came in that file, the first transaction is in a later one.
                let same = (&end.file, end.file_created) == (&first.file, first.file_created);
                assert!(!same || end.end == first.start, "{first:?}");
                rows.last_mut().unwrap().continued += 1;
            } else if first.gap.is_some() || rows.is_empty() {
                let gap = first.gap.clone();
                assert!(gap.as_ref().is_none_or(|gap| gap.after == position), "{gap:?} at {position}");
                rows.push(Row { gap: gap.map(|gap| gap.reason), ..Row::default() });
            } else {
                assert!(position.covers(&first.before), "{position} and then {}", first.before);
                skip = position.clone();
                rows.last_mut().unwrap().joined += 1;
            }
            let row = rows.last_mut().unwrap();
            let mut before: Option<&Segment> = None;
            for Archived { segment, bytes } in stream {
                if let Some(before) = before {
                    assert_eq!((segment.previous, &segment.before), (Some(before.sum), &before.after));
                    assert!(segment.continues.is_none() && segment.gap.is_none());
                    assert!(segment.file != before.file || segment.start == before.end, "{segment:?}");
                }
                let found = gtids_of(bytes);
                assert_eq!(found.len() as u64, segment.transactions);
                assert_eq!(found.first(), Some(&segment.first_gtid.to_string()));
                assert_eq!(found.last(), Some(&segment.last_gtid.to_string()));
                let is_known = |gtid: &str| {
                    let one: GtidSet = gtid.parse().unwrap();
                    skip.covers(&one)
                };
                row.gtids.extend(found.into_iter().filter(|gtid| !is_known(gtid)));
                ends.insert((segment.stream.to_string(), segment.number), segment);
                position = segment.after.clone();
                before = Some(segment);
            }
        }
        rows
    }
}

/// GTIDs of a binary log file, in order, by MariaDB's own tool.
pub fn gtids_of(bytes: &[u8]) -> Vec<String> {
    let folder = scratch();
    let path = folder.path().join("binlog");
    fs::write(&path, bytes).unwrap();
    gtids_in(&[path])
}

/// GTIDs of binary log files, in order.
pub fn gtids_in(files: &[PathBuf]) -> Vec<String> {
    let output =
        Command::new("mariadb-binlog").args(["--no-defaults", "--base64-output=decode-rows"]).args(files).output();
    let output = output.expect("mariadb-binlog can be run");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout);
    let gtid = |line: &str| {
        let rest = line.split_once("\tGTID ")?.1;
        rest.split_whitespace().next().map(str::to_owned)
    };
    text.lines().filter(|line| line.starts_with('#')).filter_map(gtid).collect()
}

/// The server's binary log files, in order.
pub fn files(server: &MariaDb) -> Vec<PathBuf> {
    let names = server.sql("SHOW BINARY LOGS");
    names.lines().map(|line| server.datadir().join(line.split('\t').next().unwrap())).collect()
}

/// All that the server has in its binary log, in order.
pub fn gtids(server: &MariaDb) -> Vec<String> {
    gtids_in(&files(server))
}

/// Writes until no connection reads the server's log any more, and tells how many still do after a minute: the server notices that nobody
/// listens when it has something to send.
pub fn readers_left(server: &MariaDb) -> usize {
    let count = || -> usize {
        let rows = server.sql("SELECT COUNT(*) FROM information_schema.processlist WHERE command LIKE 'Binlog Dump%'");
        rows.trim().parse().unwrap()
    };
    let none = || {
        server.sql("UPDATE shop.item SET text = RAND() WHERE id = 1");
        (count() == 0).then_some(0)
    };
    wait::try_until(Duration::from_secs(60), none).unwrap_or_else(count)
}

/// The server's GTID position.
pub fn position(server: &MariaDb) -> GtidSet {
    server.sql("SELECT @@gtid_binlog_pos").trim().parse().unwrap()
}

/// A segment's bytes behind its head, and what the server has in the same place.
pub fn both_sides(archived: &Archived, datadir: &Path) -> (Vec<u8>, Vec<u8>) {
    let Archived { segment, bytes } = archived;
    let length = (segment.end - segment.start) as usize;
    let file = fs::read(datadir.join(&segment.file)).unwrap();
    (bytes[bytes.len() - length..].to_vec(), file[segment.start as usize..segment.end as usize].to_vec())
}
