use std::{collections::BTreeMap, convert::Infallible};

use proptest::prelude::*;

use super::*;
use crate::mariadb::xbstream_write::StreamWriter;

/// Keeps files in memory, as a directory would after `mbstream -x`.
#[derive(Debug, Default, PartialEq, Eq)]
struct Directory {
    open: BTreeMap<FileNo, (String, Vec<u8>)>,
    files: BTreeMap<String, Vec<u8>>,
    undelivered: Vec<(String, String)>,
}

impl FileSink for Directory {
    type Error = Infallible;

    fn begin(&mut self, file: FileNo, path: &StreamPath, replace: bool) -> Result<(), Infallible> {
        assert_eq!(replace, self.files.contains_key(path.as_str()));
        assert!(self.open.insert(file, (path.to_string(), Vec::new())).is_none());
        Ok(())
    }

    fn data(&mut self, file: FileNo, offset: u64, bytes: &[u8]) -> Result<(), Infallible> {
        let (_, content) = self.open.get_mut(&file).unwrap();
        let start = usize::try_from(offset).unwrap();
        content.resize(content.len().max(start + bytes.len()), 0);
        content[start..start + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn end(&mut self, file: FileNo) -> Result<(), Infallible> {
        let (path, content) = self.open.remove(&file).unwrap();
        self.files.insert(path, content);
        Ok(())
    }

    fn rename(&mut self, from: &StreamPath, to: &StreamPath) -> Result<(), Infallible> {
        let content = self.files.remove(from.as_str()).unwrap();
        self.files.insert(to.to_string(), content);
        Ok(())
    }

    fn rename_undelivered(&mut self, from: &StreamPath, to: &StreamPath) -> Result<(), Infallible> {
        self.undelivered.push((from.to_string(), to.to_string()));
        Ok(())
    }

    fn remove(&mut self, path: &StreamPath) -> Result<(), Infallible> {
        if let Some(prefix) = path.as_str().strip_suffix('*') {
            self.files.retain(|path, _| !path.starts_with(prefix));
            return Ok(());
        }
        assert!(self.files.remove(path.as_str()).is_some());
        Ok(())
    }
}

/// Gives bytes out in pieces of the given sizes, over and over.
struct Pieces<'a> {
    bytes: &'a [u8],
    sizes: &'a [usize],
    turn: usize,
}

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let size = self.sizes[self.turn % self.sizes.len()].min(self.bytes.len()).min(buffer.len());
        self.turn += 1;
        if size == 0 && !self.bytes.is_empty() {
            return Err(ErrorKind::Interrupted.into());
        }
        buffer[..size].copy_from_slice(&self.bytes[..size]);
        self.bytes = &self.bytes[size..];
        Ok(size)
    }
}

fn path(text: &str) -> StreamPath {
    StreamPath::new(text).unwrap()
}

fn read(stream: &[u8]) -> Result<(Directory, StreamSummary), ParseError<Infallible>> {
    let mut directory = Directory::default();
    let summary = parse(stream, &mut directory)?;
    Ok((directory, summary))
}

/// Two interleaved files, an empty one, one that seeks back.
fn sample() -> Vec<u8> {
    let mut writer = StreamWriter::new(Vec::new());
    let (a, b, log) = (path("db/a.ibd"), path("ib_logfile0"), path("aria_log.00000001"));
    writer.data(&a, b"hello ").unwrap();
    writer.data(&b, b"redo").unwrap();
    writer.data(&a, b"world").unwrap();
    writer.data(&log, b"oldheader and log").unwrap();
    writer.seek(&log, 0).unwrap();
    writer.data(&log, b"newheader").unwrap();
    writer.end(&a).unwrap();
    writer.end(&log).unwrap();
    writer.end(&path("db/empty.frm")).unwrap();
    writer.end(&b).unwrap();
    writer.into_inner()
}

/// A directory that has room for so many bytes at once, of files whose paths end so.
struct Roomy {
    directory: Directory,
    room: Vec<u8>,
    ending: &'static str,
}

impl FileSink for Roomy {
    type Error = Infallible;

    fn begin(&mut self, file: FileNo, path: &StreamPath, replace: bool) -> Result<(), Infallible> {
        self.directory.begin(file, path, replace)
    }

    fn data(&mut self, file: FileNo, offset: u64, bytes: &[u8]) -> Result<(), Infallible> {
        self.directory.data(file, offset, bytes)
    }

    fn room(&mut self, file: FileNo, _offset: u64) -> Option<&mut [u8]> {
        let (path, _) = self.directory.open.get(&file)?;
        path.ends_with(self.ending).then_some(&mut self.room)
    }

    fn filled(&mut self, file: FileNo, offset: u64, len: usize) -> Result<(), Infallible> {
        let bytes = self.room[..len].to_vec();
        self.directory.data(file, offset, &bytes)
    }

    fn end(&mut self, file: FileNo) -> Result<(), Infallible> {
        self.directory.end(file)
    }

    fn rename(&mut self, from: &StreamPath, to: &StreamPath) -> Result<(), Infallible> {
        self.directory.rename(from, to)
    }

    fn remove(&mut self, path: &StreamPath) -> Result<(), Infallible> {
        self.directory.remove(path)
    }
}

#[test]
fn a_sink_with_room_of_its_own_gets_the_same_files() {
    let mut writer = StreamWriter::new(Vec::new());
    let long: Vec<u8> = (0..3_u32 << 20).map(|at| ((at * 7) >> 3) as u8).collect();
    let (a, b) = (path("db/a.ibd"), path("db/b.frm"));
    for chunk in [&long[..], &long[9..2_000_000], b"x", &long[77..]] {
        writer.data(&a, chunk).unwrap();
        writer.data(&b, &chunk[..chunk.len() / 3]).unwrap();
    }
    writer.end(&a).unwrap();
    writer.end(&b).unwrap();
    let stream = writer.into_inner();
    let (expected, summary) = read(&stream).unwrap();
    for (room, ending, sizes) in [
        (1 << 20, ".ibd", &[65536][..]),
        (4096, "", &[1 << 20]),
        (100_000, ".frm", &[7, 0, 70_000]),
        (1, ".none", &[1 << 19]),
        (0, ".ibd", &[1 << 19]),
    ] {
        let mut sink = Roomy { directory: Directory::default(), room: vec![0; room], ending };
        let found = parse(Pieces { bytes: &stream, sizes, turn: 0 }, &mut sink).unwrap();
        assert_eq!(found, summary, "{room} {ending}");
        assert!(sink.directory == expected, "{room} {ending}");
        let mut sink = Roomy { directory: Directory::default(), room: vec![0; room], ending };
        let cut = &stream[..stream.len() - 3_000_000];
        let error = parse(Pieces { bytes: cut, sizes, turn: 0 }, &mut sink).unwrap_err();
        let end = cut.len() as u64;
        assert!(matches!(error, ParseError::Truncated { at, .. } if at == end), "{error}");
    }
}

#[test]
fn files_come_out_as_they_were_written() {
    let (directory, summary) = read(&sample()).unwrap();
    assert_eq!(directory.files["db/a.ibd"], b"hello world");
    assert_eq!(directory.files["aria_log.00000001"], b"newheader and log");
    assert_eq!(directory.files["db/empty.frm"], b"");
    assert_eq!(summary.bytes, sample().len() as u64);
    assert_eq!((summary.files, summary.payload_chunks, summary.seek_chunks), (4, 5, 1));
    assert_eq!(summary.last_ended, Some(path("ib_logfile0")));
}

#[test]
fn a_cut_stream_is_noticed_wherever_it_is_cut_but_at_the_end_of_all_open_files() {
    let stream = sample();
    for len in 1..stream.len() {
        assert!(read(&stream[..len]).is_err(), "cut at {len}");
    }
}

#[test]
fn a_flipped_bit_never_delivers_wrong_bytes() {
    let stream = sample();
    let (whole, _) = read(&stream).unwrap();
    for bit in 0..stream.len() * 8 {
        let mut broken = stream.clone();
        broken[bit / 8] ^= 1 << (bit % 8);
        // A name has no checksum, and the end of an empty file can become its removal: what must be there the caller knows.
        if let Ok((directory, _)) = read(&broken) {
            assert!(
                directory.files.values().all(|content| whole.files.values().any(|right| right == content)),
                "bit {bit}"
            );
        }
    }
}

#[test]
fn a_wrong_checksum_names_file_and_place() {
    let mut stream = sample();
    let at = stream.windows(5).position(|window| window == b"world").unwrap();
    stream[at] ^= 0x20;
    let error = read(&stream).unwrap_err();
    assert!(matches!(&error, ParseError::Checksum { path, offset: 6, .. } if path.as_str() == "db/a.ibd"), "{error}");
    assert_eq!(error_kind(error), "checksum");
}

fn error_kind(error: ParseError<Infallible>) -> &'static str {
    match error {
        ParseError::Checksum { .. } => "checksum",
        ParseError::OutOfOrder { .. } => "order",
        ParseError::Again { .. } => "again",
        ParseError::Unfit { .. } => "unfit",
        ParseError::Unended { .. } => "unended",
        ParseError::UnknownChunk { .. } => "unknown",
        ParseError::TooLong { .. } => "long",
        ParseError::Path { .. } => "path",
        ParseError::TooManyOpen { .. } => "open",
        ParseError::Magic { .. } => "magic",
        _ => "other",
    }
}

fn refused(write: impl FnOnce(&mut StreamWriter<Vec<u8>>) -> std::io::Result<()>) -> &'static str {
    let mut writer = StreamWriter::new(Vec::new());
    write(&mut writer).unwrap();
    read(&writer.into_inner()).map_or_else(error_kind, |_| "nothing")
}

#[test]
fn a_gap_between_payloads_is_refused() {
    let a = path("a");
    assert_eq!(refused(|writer| writer.data(&a, b"12").and_then(|()| writer.data_at(&a, 3, b"4"))), "order");
    assert_eq!(refused(|writer| writer.data_at(&a, 1, b"4")), "order");
}

#[test]
fn a_file_comes_twice_only_if_it_says_that_it_replaces_or_was_removed() {
    let a = path("a");
    assert_eq!(refused(|writer| writer.file(&a, b"1", 9).and_then(|()| writer.file(&a, b"2", 9))), "again");
    let mut writer = StreamWriter::new(Vec::new());
    writer.file(&a, b"1", 9).unwrap();
    writer.set_replace(true);
    writer.file(&a, b"2", 9).unwrap();
    writer.set_replace(false);
    writer.remove(&a).unwrap();
    writer.file(&a, b"3", 9).unwrap();
    let (directory, summary) = read(&writer.into_inner()).unwrap();
    assert_eq!(directory.files["a"], b"3");
    assert_eq!((summary.files, summary.remove_chunks), (3, 1));
}

#[test]
fn the_end_alone_of_a_delivered_file_replaces_it_by_an_empty_one() {
    let a = path("a");
    let mut writer = StreamWriter::new(Vec::new());
    writer.file(&a, b"1", 9).unwrap();
    writer.end(&a).unwrap();
    assert_eq!(read(&writer.into_inner()).unwrap().0.files["a"], b"");
}

#[test]
fn renames_and_removals_of_open_files_are_refused_and_of_absent_ones_passed_over() {
    let (a, b) = (path("a"), path("b"));
    let mut writer = StreamWriter::new(Vec::new());
    writer.rename(&a, &b).unwrap();
    writer.remove(&b).unwrap();
    let (directory, summary) = read(&writer.into_inner()).unwrap();
    assert_eq!((directory.files.len(), summary.void_chunks), (0, 2));
    assert_eq!(directory.undelivered, [("a".to_owned(), "b".to_owned())]);
    assert_eq!(refused(|writer| writer.data(&a, b"1").and_then(|()| writer.rename(&a, &b))), "unfit");
    assert_eq!(refused(|writer| writer.data(&a, b"1").and_then(|()| writer.remove(&a))), "unfit");
    let mut writer = StreamWriter::new(Vec::new());
    writer.file(&a, b"1", 9).unwrap();
    writer.rename(&a, &b).unwrap();
    writer.file(&a, b"2", 9).unwrap();
    let (directory, _) = read(&writer.into_inner()).unwrap();
    assert_eq!((&directory.files["a"][..], &directory.files["b"][..]), (&b"2"[..], &b"1"[..]));
}

#[test]
fn a_removal_by_pattern_comes_through() {
    let mut writer = StreamWriter::new(Vec::new());
    for name in ["d/t#P#p0.MYD", "d/t#P#p1.MYD", "d/u#P#p0.MYD"] {
        writer.file(&path(name), b"1", 9).unwrap();
    }
    writer.remove(&path("d/t#P#*")).unwrap();
    let (directory, _) = read(&writer.into_inner()).unwrap();
    assert_eq!(directory.files.keys().collect::<Vec<_>>(), ["d/u#P#p0.MYD"]);
}

#[test]
fn unknown_chunks_are_skipped_only_if_they_allow_it() {
    let a = path("a");
    let mut writer = StreamWriter::new(Vec::new());
    writer.ignorable(b'x', &a, b"anything").unwrap();
    let stream = writer.into_inner();
    let (directory, summary) = read(&stream).unwrap();
    assert_eq!((directory, summary.ignored_chunks), (Directory::default(), 1));
    let mut strict = stream;
    strict[8] = 0;
    assert_eq!(read(&strict).map_or_else(error_kind, |_| "nothing"), "unknown");
}

#[test]
fn a_stream_without_end_of_a_file_is_refused() {
    assert_eq!(refused(|writer| writer.data(&path("a"), b"1")), "unended");
}

#[test]
fn open_files_are_limited() {
    assert_eq!(
        refused(|writer| (0..=OPEN_FILES_MAX).try_for_each(|number| writer.data(&path(&format!("f{number}")), b"1"))),
        "open"
    );
}

#[test]
fn paths_that_lead_elsewhere_are_refused() {
    let long = "a".repeat(PATH_BYTES_MAX + 1);
    for bad in ["", "/etc/passwd", ".", "..", "./a", "../a", "a/../b", "a/./b", "a//b", "a/", "a\0b", "a\\b", &long] {
        assert!(StreamPath::new(bad).is_err(), "{bad:?}");
    }
    for good in ["a", "db/t@0040.ibd.delta", "#rocksdb/x", ".cache/db.opt", "..x/y", "a/.b", "a/b..c", "ib_logfile0"] {
        assert_eq!(StreamPath::new(good).unwrap().as_str(), good);
    }
    assert_eq!(StreamPath::from_bytes(b"a\xff").unwrap_err().reason, "not UTF-8");
    let mut stream = sample();
    let at = stream.windows(8).position(|window| window == b"db/a.ibd").unwrap();
    stream[at..at + 8].copy_from_slice(b"../a.ibd");
    assert_eq!(read(&stream).map_or_else(error_kind, |_| "nothing"), "path");
}

#[test]
fn path_parts() {
    assert_eq!((path("db/t.ibd").directory(), path("db/t.ibd").file_name()), (Some("db"), "t.ibd"));
    assert_eq!((path("ibdata1").directory(), path("ibdata1").file_name()), (None, "ibdata1"));
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), head in any::<bool>()) {
        let stream = if head { [&MAGIC[..], &bytes].concat() } else { bytes };
        struct Deaf;
        impl FileSink for Deaf {
            type Error = Infallible;
            fn begin(&mut self, _: FileNo, _: &StreamPath, _: bool) -> Result<(), Infallible> { Ok(()) }
            fn data(&mut self, _: FileNo, _: u64, _: &[u8]) -> Result<(), Infallible> { Ok(()) }
            fn end(&mut self, _: FileNo) -> Result<(), Infallible> { Ok(()) }
            fn rename(&mut self, _: &StreamPath, _: &StreamPath) -> Result<(), Infallible> { Ok(()) }
            fn remove(&mut self, _: &StreamPath) -> Result<(), Infallible> { Ok(()) }
        }
        let _ = parse(&stream[..], &mut Deaf);
    }

    #[test]
    fn written_streams_parse_back_however_they_are_read(
        files in proptest::collection::btree_map("[a-z]{1,6}(/[a-z]{1,6})?", proptest::collection::vec(any::<u8>(), 0..400), 0..6),
        chunk_bytes in 1_usize..300,
        sizes in proptest::collection::vec(0_usize..200, 1..5),
    ) {
        prop_assume!(sizes.iter().any(|size| *size > 0));
        let mut writer = StreamWriter::new(Vec::new());
        // Interleaved: a chunk of each file in turn.
        let longest = files.values().map(Vec::len).max().unwrap_or(0).div_ceil(chunk_bytes);
        for turn in 0..longest {
            for (name, content) in &files {
                if let Some(chunk) = content.chunks(chunk_bytes).nth(turn) {
                    writer.data(&path(name), chunk).unwrap();
                }
            }
        }
        for name in files.keys() {
            writer.end(&path(name)).unwrap();
        }
        let stream = writer.into_inner();
        let mut directory = Directory::default();
        let summary = parse(Pieces { bytes: &stream, sizes: &sizes, turn: 0 }, &mut directory).unwrap();
        prop_assert_eq!(&directory.files, &files);
        prop_assert_eq!(summary.bytes, stream.len() as u64);
        prop_assert_eq!(summary.files, files.len() as u64);
    }
}
