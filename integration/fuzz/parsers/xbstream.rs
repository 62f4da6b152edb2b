//! The stream of the backup tool.

use std::{collections::HashMap, convert::Infallible, io::Read, ops::Range};

use haulout::mariadb::{
    xbstream::{FileNo, FileSink, ParseError, StreamPath, StreamSummary, parse},
    xbstream_write::StreamWriter,
};

use super::{
    cuts::{Pieces, piece_bytes},
    flipped,
};

#[derive(Debug, PartialEq, Eq)]
enum Event {
    Begin(FileNo, StreamPath, bool),
    Data(FileNo, u64, Vec<u8>),
    End(FileNo),
    Rename(StreamPath, StreamPath),
    Remove(StreamPath),
}

/// Keeps what it is told; bytes that follow each other in one file become one event, however they were cut.
#[derive(Default)]
struct Recorder {
    events: Vec<Event>,
}

impl FileSink for Recorder {
    type Error = Infallible;

    fn begin(&mut self, file: FileNo, path: &StreamPath, replace: bool) -> Result<(), Infallible> {
        self.events.push(Event::Begin(file, path.clone(), replace));
        Ok(())
    }

    fn data(&mut self, file: FileNo, offset: u64, bytes: &[u8]) -> Result<(), Infallible> {
        assert!(!bytes.is_empty(), "a slice of nothing is no progress");
        match self.events.last_mut() {
            Some(Event::Data(last, at, held)) if *last == file && *at + held.len() as u64 == offset => {
                held.extend_from_slice(bytes);
            }
            _ => self.events.push(Event::Data(file, offset, bytes.to_vec())),
        }
        Ok(())
    }

    fn end(&mut self, file: FileNo) -> Result<(), Infallible> {
        self.events.push(Event::End(file));
        Ok(())
    }

    fn rename(&mut self, from: &StreamPath, to: &StreamPath) -> Result<(), Infallible> {
        self.events.push(Event::Rename(from.clone(), to.clone()));
        Ok(())
    }

    fn remove(&mut self, path: &StreamPath) -> Result<(), Infallible> {
        self.events.push(Event::Remove(path.clone()));
        Ok(())
    }
}

type Outcome = Result<StreamSummary, ParseError<Infallible>>;

fn read(stream: impl Read) -> (Vec<Event>, Outcome) {
    let mut recorder = Recorder::default();
    let outcome = parse(stream, &mut recorder);
    (recorder.events, outcome)
}

/// Reads the bytes as they are, and once more with the checksums that the payloads ought to have.
pub fn check(input: &[u8]) {
    let mut repaired = input.to_vec();
    let payloads = repair(&mut repaired);
    if repaired != input {
        one(input);
    }
    if one(&repaired)
        && let Some(payload) = payloads.into_iter().find(|payload| !payload.is_empty())
    {
        let (_, outcome) = read(&flipped(&repaired, payload)[..]);
        assert!(matches!(outcome, Err(ParseError::Checksum { .. })), "a flipped bit passes: {outcome:?}");
    }
}

/// True when the bytes are a whole stream.
fn one(stream: &[u8]) -> bool {
    let (events, outcome) = read(stream);
    let (again, cut) = read(Pieces { rest: stream, piece_bytes: piece_bytes(stream), reads: 0 });
    assert!(events == again, "cut elsewhere, the same stream has other files");
    assert_eq!(format!("{outcome:?}"), format!("{cut:?}"), "cut elsewhere, the same stream ends otherwise");
    let Ok(summary) = outcome else { return false };
    assert_eq!(summary.bytes, stream.len() as u64);
    let written = written(&events);
    let (read_back, outcome) = read(&written[..]);
    assert!(outcome.is_ok(), "what was written is refused: {outcome:?}");
    assert!(events == read_back, "what was written is read back as something else");
    true
}

/// A stream of the same events.
fn written(events: &[Event]) -> Vec<u8> {
    let mut writer = StreamWriter::new(Vec::new());
    let mut open: HashMap<FileNo, (&StreamPath, bool)> = HashMap::new();
    for event in events {
        // Writing to memory does not fail.
        let done = match event {
            Event::Begin(file, path, replace) => {
                open.insert(*file, (path, *replace));
                writer.set_replace(*replace);
                writer.seek(path, 0)
            }
            Event::Data(file, offset, bytes) => {
                let (path, replace) = open[file];
                writer.set_replace(replace);
                writer.seek(path, *offset).and_then(|()| writer.data(path, bytes))
            }
            Event::End(file) => writer.end(open[file].0),
            Event::Rename(from, to) => writer.rename(from, to),
            Event::Remove(path) => writer.remove(path),
        };
        done.unwrap();
    }
    writer.into_inner()
}

/// Gives the chunks the checksums of their payloads, as far as chunks can be told, and returns where payloads lie.
pub fn repair(stream: &mut [u8]) -> Vec<Range<usize>> {
    let mut payloads = Vec::new();
    let mut at = 0;
    while let Some(path_bytes) = stream.get(at + 10..at + 14).map(|len| u32::from_le_bytes(len.try_into().unwrap())) {
        let kind = stream[at + 9];
        let body = at + 14 + path_bytes as usize;
        at = match kind {
            b'E' | b'D' => body,
            b'S' => body + 8,
            b'R' => {
                let Some(len) = stream.get(body..body + 4) else { break };
                body + 4 + u32::from_le_bytes(len.try_into().unwrap()) as usize
            }
            _ => {
                let Some(len) = stream.get(body..body + 8) else { break };
                let len = u64::from_le_bytes(len.try_into().unwrap());
                let begin = body + 20;
                let end = usize::try_from(len).ok().and_then(|len| begin.checked_add(len));
                let Some(payload) = end.and_then(|end| stream.get(begin..end)) else { break };
                let crc = crc32fast::hash(payload).to_le_bytes();
                let end = begin + payload.len();
                stream[body + 16..begin].copy_from_slice(&crc);
                payloads.push(begin..end);
                end
            }
        };
    }
    payloads
}
