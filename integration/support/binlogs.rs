//! Binary log of a server, put into a repository as an archiver puts it, segment by segment as a test wants.

use std::{fs, path::Path, sync::Arc};

use haulout::{
    format::{BinlogSource, Segment, StreamLink},
    mariadb::binlog::{EventParser, MAGIC, Step, Transactions, kinds},
    model::{ChunkId, Clock, Gtid, GtidSet, StreamId, SystemClock, Timestamp},
    repository::{Repository, SegmentWriter},
    store::{self, StoreOptions},
};

use super::MariaDb;

/// Segments of one stream, as far as they were stored.
#[derive(Debug)]
pub struct Stream {
    repository: Arc<Repository>,
    id: StreamId,
    source: BinlogSource,
    /// Transactions of a segment.
    transactions: u64,
    state: GtidSet,
    number: u32,
    previous: Option<ChunkId>,
    pub continues: Option<StreamLink>,
}

/// A file of the server's binary log, taken apart.
struct Pieces {
    head: Vec<u8>,
    created: u32,
    runs: Vec<Piece>,
}

/// Whole transactions, and what stands before them.
struct Piece {
    bytes: Vec<u8>,
    start: u64,
    end: u64,
    /// GTIDs and times.
    gtids: Vec<(Gtid, u32)>,
}

fn piece(bytes: &[u8], start: usize, end: usize, gtids: Vec<(Gtid, u32)>) -> Piece {
    Piece { bytes: bytes[start..end].to_vec(), start: start as u64, end: end as u64, gtids }
}

fn take_apart(path: &Path, transactions: u64) -> Pieces {
    let bytes = fs::read(path).unwrap();
    assert_eq!(bytes[..4], MAGIC);
    let (mut parser, mut groups) = (EventParser::new(path.display().to_string(), 4), Transactions::default());
    let mut pieces = Pieces { head: Vec::new(), created: 0, runs: Vec::new() };
    let (mut rest, mut begin, mut gtids) = (&bytes[4..], 4, Vec::new());
    while let Some(event) = parser.next(&mut rest).unwrap() {
        let end = bytes.len() - rest.len();
        if event.kind == kinds::FORMAT_DESCRIPTION {
            (pieces.head, pieces.created, begin) = (bytes[..end].to_vec(), event.timestamp, end);
        }
        if let Step::End(transaction) = groups.step(&event, "binlog", 0).unwrap() {
            gtids.push((transaction.gtid, transaction.time));
            if gtids.len() as u64 == transactions {
                pieces.runs.push(piece(&bytes, begin, end, std::mem::take(&mut gtids)));
                begin = end;
            }
        }
    }
    if let Some(end) = (!gtids.is_empty()).then(|| bytes.len() - rest.len()) {
        pieces.runs.push(piece(&bytes, begin, end, gtids));
    }
    pieces
}

impl Stream {
    /// A stream named `id` of what `server` logs, in the repository in the directory `repository`, with so many transactions in a segment.
    pub fn new(repository: &Path, id: &str, server: &MariaDb, transactions: u64) -> Stream {
        let url = format!("file://{}", repository.display());
        let open = async {
            let store = store::open(&url.parse().unwrap(), &StoreOptions::default()).await.unwrap();
            Repository::open(store).await.unwrap()
        };
        let fact = |sql: &str| server.sql(sql).trim().to_owned();
        let source = BinlogSource {
            hostname: fact("SELECT @@hostname"),
            port: 0,
            server_id: fact("SELECT @@server_id").parse().unwrap(),
            version: fact("SELECT @@version"),
        };
        Stream {
            repository: Arc::new(runtime().block_on(open)),
            id: id.parse().unwrap(),
            source,
            transactions,
            state: GtidSet::new(),
            number: 0,
            previous: None,
            continues: None,
        }
    }

    /// What another stream says that goes on from here, at the very byte.
    pub fn link(&self) -> StreamLink {
        StreamLink { stream: self.id.clone(), number: self.number - 1, sum: self.previous.unwrap() }
    }

    /// That the log stands at `state` where the stream begins.
    pub fn begin_at(&mut self, state: &str) {
        self.state = state.parse().unwrap();
    }

    /// Stores all of the files from `first` on, which is the server's first or what follows what was stored.
    pub fn store(&mut self, server: &MariaDb, files: &[&str]) {
        for file in files {
            let pieces = take_apart(&server.datadir().join(file), self.transactions);
            for piece in &pieces.runs {
                let raw = [&pieces.head[..], &piece.bytes].concat();
                runtime().block_on(self.put(file, pieces.created, piece, &raw));
            }
        }
    }

    async fn put(&mut self, file: &str, file_created: u32, Piece { start, end, gtids, .. }: &Piece, raw: &[u8]) {
        let mut writer = SegmentWriter::new(self.repository.clone(), self.id.clone(), self.number).unwrap();
        writer.write(raw).await.unwrap();
        let written = writer.finish().await.unwrap();
        let before = self.state.clone();
        gtids.iter().for_each(|(gtid, _)| self.state.note(*gtid));
        let times = || gtids.iter().map(|(_, time)| Timestamp::from_seconds(*time));
        let segment = Segment {
            repository_id: self.repository.config().repository_id,
            stream: self.id.clone(),
            number: self.number,
            previous: self.previous,
            continues: self.continues.take(),
            gap: None,
            source: self.source.clone(),
            file: file.to_owned(),
            file_created,
            start: *start,
            end: *end,
            before,
            after: self.state.clone(),
            first_gtid: gtids[0].0,
            last_gtid: gtids[gtids.len() - 1].0,
            first_time: times().min().unwrap(),
            last_time: times().max().unwrap(),
            transactions: gtids.len() as u64,
            raw_bytes: written.raw_bytes,
            sum: written.sum,
            packs: written.packs,
            archived: SystemClock.now().whole_seconds(),
        };
        self.repository.put_segment(&segment).await.unwrap();
        (self.number, self.previous) = (self.number + 1, Some(segment.sum));
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}
