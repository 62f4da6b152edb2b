//! A server's binary log in a repository, as an archiver would put it there.

use std::{fs, path::Path, sync::Arc};

use haulout::{
    format::{BinlogSource, Segment},
    mariadb::binlog::{EventParser, MAGIC, Step, Transaction, Transactions},
    model::{GtidSet, Timestamp},
    repository::{Repository, SegmentWriter},
    store::{self, StoreOptions},
};

/// Transactions of a segment.
const OF_A_SEGMENT: usize = 3;

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
    let bytes = fs::read(file).unwrap();
    let (head, created, parts) = cut(&bytes);
    let (mut segments, mut position): (Vec<Segment>, GtidSet) = (Vec::new(), GtidSet::new());
    for part in parts {
        let number = segments.len() as u32;
        let before = position.clone();
        part.transactions.iter().for_each(|transaction| position.note(transaction.gtid));
        let times = || part.transactions.iter().map(|transaction| transaction.time);
        let written = runtime().block_on(async {
            let mut writer = SegmentWriter::new(repository.clone(), stream.parse().unwrap(), number).unwrap();
            writer.write(&bytes[..head]).await.unwrap();
            writer.write(&bytes[part.start..part.end]).await.unwrap();
            writer.finish().await.unwrap()
        });
        let segment = Segment {
            repository_id: repository.config().repository_id,
            stream: stream.parse().unwrap(),
            number,
            previous: segments.last().map(|segment| segment.sum),
            continues: None,
            gap: None,
            source: BinlogSource { hostname: "db1".to_owned(), port: 3306, server_id: 1, version: "10.11".to_owned() },
            file: file.file_name().unwrap().to_str().unwrap().to_owned(),
            file_created: created,
            start: part.start as u64,
            end: part.end as u64,
            before,
            after: position.clone(),
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
        runtime().block_on(repository.put_segment(&segment)).unwrap();
        segments.push(segment);
    }
    segments
}

/// Length of what the file begins with, when it was begun, and its parts.
fn cut(bytes: &[u8]) -> (usize, u32, Vec<Part>) {
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
            if part.transactions.len() == OF_A_SEGMENT {
                let end = part.end;
                parts.push(std::mem::replace(&mut part, Part { start: end, end, transactions: Vec::new() }));
            }
        }
    }
    parts.extend(Some(part).filter(|part| !part.transactions.is_empty()));
    (head, first.timestamp, parts)
}
