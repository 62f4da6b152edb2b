//! A server's binary log in a repository, as an archiver would put it there, segment by segment as a test wants.

use std::{fs, path::Path, sync::Arc};

use haulout::{
    format::{BinlogSource, Segment, StreamLink},
    mariadb::binlog::{EventParser, MAGIC, Step, Transaction, Transactions},
    model::{GtidSet, StreamId, Timestamp},
    repository::{Repository, SegmentWriter},
    store::{self, StoreOptions},
};

use super::MariaDb;

/// A part of a file between two borders of transactions.
struct Part {
    start: usize,
    end: usize,
    transactions: Vec<Transaction>,
}

/// The repository in a directory.
pub fn repository(directory: &Path) -> Arc<Repository> {
    runtime().block_on(async {
        let url = format!("file://{}", directory.display()).parse().unwrap();
        Arc::new(Repository::open(store::open(&url, &StoreOptions::default()).await.unwrap()).await.unwrap())
    })
}

/// What carries out what waits.
pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

/// Puts the transactions of a binary log file into the repository as stream `stream`, three in each segment; gives the segments.
pub fn archive(repository: &Arc<Repository>, file: &Path, stream: &str) -> Vec<Segment> {
    let source = BinlogSource { hostname: "db1".to_owned(), port: 3306, server_id: 1, version: "10.11".to_owned() };
    let mut stream = Stream::over(repository.clone(), stream, source, 3);
    stream.store_file(file);
    stream.segments
}

/// A stream, as far as it was stored.
#[derive(Debug)]
pub struct Stream {
    repository: Arc<Repository>,
    id: StreamId,
    source: BinlogSource,
    /// Transactions of a segment.
    transactions: usize,
    state: GtidSet,
    pub continues: Option<StreamLink>,
    pub segments: Vec<Segment>,
}

impl Stream {
    fn over(repository: Arc<Repository>, id: &str, source: BinlogSource, transactions: usize) -> Stream {
        let (id, state) = (id.parse().unwrap(), GtidSet::new());
        Stream { repository, id, source, transactions, state, continues: None, segments: Vec::new() }
    }

    /// A stream named `id` of what `server` logs, in the repository in the directory `directory`, with so many transactions in a segment.
    pub fn new(directory: &Path, id: &str, server: &MariaDb, transactions: usize) -> Stream {
        let fact = |sql: &str| server.sql(sql).trim().to_owned();
        let source = BinlogSource {
            hostname: fact("SELECT @@hostname"),
            port: 0,
            server_id: fact("SELECT @@server_id").parse().unwrap(),
            version: fact("SELECT @@version"),
        };
        Stream::over(repository(directory), id, source, transactions)
    }

    /// What another stream says that goes on from here, at the very byte.
    pub fn link(&self) -> StreamLink {
        let last = self.segments.last().unwrap();
        StreamLink { stream: self.id.clone(), number: last.number, sum: last.sum }
    }

    /// That the log stands at `state` where the stream begins.
    pub fn begin_at(&mut self, state: &str) {
        self.state = state.parse().unwrap();
    }

    /// Stores all of the server's files from one on, which is its first or follows what was stored.
    pub fn store(&mut self, server: &MariaDb, files: &[&str]) {
        files.iter().for_each(|file| self.store_file(&server.datadir().join(file)));
    }

    fn store_file(&mut self, file: &Path) {
        let bytes = fs::read(file).unwrap();
        let (head, created, parts) = cut(&bytes, self.transactions);
        for part in parts {
            let number = self.segments.len() as u32;
            let before = self.state.clone();
            part.transactions.iter().for_each(|transaction| self.state.note(transaction.gtid));
            let times = || part.transactions.iter().map(|transaction| transaction.time);
            let written = runtime().block_on(async {
                let mut writer = SegmentWriter::new(self.repository.clone(), self.id.clone(), number).unwrap();
                writer.write(&bytes[..head]).await.unwrap();
                writer.write(&bytes[part.start..part.end]).await.unwrap();
                writer.finish().await.unwrap()
            });
            let segment = Segment {
                repository_id: self.repository.config().repository_id,
                stream: self.id.clone(),
                number,
                previous: self.segments.last().map(|segment| segment.sum),
                continues: self.continues.take(),
                gap: None,
                source: self.source.clone(),
                file: file.file_name().unwrap().to_str().unwrap().to_owned(),
                file_created: created,
                start: part.start as u64,
                end: part.end as u64,
                before,
                after: self.state.clone(),
                first_gtid: part.transactions.first().unwrap().gtid,
                last_gtid: part.transactions.last().unwrap().gtid,
                first_time: Timestamp::from_seconds(times().min().unwrap()),
                last_time: Timestamp::from_seconds(times().max().unwrap()),
                transactions: part.transactions.len() as u64,
                raw_bytes: written.raw_bytes,
                sum: written.sum,
                packs: written.packs,
                archived: Timestamp::from_seconds(times().max().unwrap()),
            };
            runtime().block_on(self.repository.put_segment(&segment)).unwrap();
            self.segments.push(segment);
        }
    }
}

/// Length of what the file begins with, when it was begun, and its parts of so many transactions.
fn cut(bytes: &[u8], of_a_segment: usize) -> (usize, u32, Vec<Part>) {
    assert_eq!(bytes[..4], MAGIC);
    let (mut parser, mut rest) = (EventParser::new("binlog", 4), &bytes[4..]);
    let first = parser.next(&mut rest).unwrap().unwrap();
    let head = 4 + first.bytes as usize;
    let (mut steps, mut parts) = (Transactions::default(), Vec::new());
    let mut part = Part { start: head, end: head, transactions: Vec::new() };
    while let Some(event) = parser.next(&mut rest).unwrap() {
        if let Step::End(transaction) = steps.step(&event, "binlog", parser.at()).unwrap() {
            part.end = parser.at() as usize;
            part.transactions.push(transaction);
            if part.transactions.len() == of_a_segment {
                let end = part.end;
                parts.push(std::mem::replace(&mut part, Part { start: end, end, transactions: Vec::new() }));
            }
        }
    }
    parts.extend(Some(part).filter(|part| !part.transactions.is_empty()));
    (head, first.timestamp, parts)
}
