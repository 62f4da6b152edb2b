//! The stream that `mariadb-backup --stream=xbstream` writes, parsed while it flows.
//!
//! A chunk can be as long as a whole `.delta` cluster, 1 GiB, so no chunk is ever held: its payload goes to the
//! [`FileSink`] in slices of one read buffer, and the price is that the sink sees bytes before their CRC is known to be
//! right. Only [`FileSink::end`] says that all of a file was.
//!
//! A stream has no header, no trailer and no count. One that is cut at a chunk's border ends like a whole one; what
//! tells is a file without its end, which is an error here, or the absence of the files that the tool writes last, which
//! the caller looks for.
//!
//! Source: MariaDB `extra/mariabackup/xbstream.h`, `xbstream_read.cc`, `xbstream_write.cc`.

use std::{
    collections::{HashMap, HashSet},
    error::Error,
    fmt,
    io::{ErrorKind, Read},
};

use crate::error::{Diagnose, Kind};

/// First bytes of each chunk.
pub(super) const MAGIC: [u8; 8] = *b"XBSTCK01";
/// Flag: a reader that does not know the chunk's type skips the chunk.
pub(super) const IGNORABLE: u8 = 0x01;
/// Flag: the file replaces one that was already delivered.
pub(super) const REWRITE: u8 = 0x02;

/// Longest path: one less than MariaDB's `FN_REFLEN`, so that what we accept the stock tools accept too.
pub const PATH_BYTES_MAX: usize = 511;
/// Files open at once: the tool holds one for each copying thread and one for the redo log, and spends 10 MiB of memory on
/// each, so that thousands are a damaged stream.
pub const OPEN_FILES_MAX: usize = 4096;
/// Longest payload of a chunk: the tool's largest write is a cluster of 64 KiB pages, 1 GiB.
pub const CHUNK_BYTES_MAX: u64 = 2 << 30;
/// Size of the read buffer: as much as a pipe can hold on Linux without privileges.
const BUFFER_BYTES: usize = 1 << 20;
/// Read at once behind a payload longer than that buffer. Another one is likely to follow, and can go straight to where it belongs.
const AHEAD_BYTES: usize = 16 << 10;

/// Number of an opened file in this stream, ascending from 0; a file that is opened again gets a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileNo(pub u32);

/// Path of a file in the stream: relative, `/` between components, none of them empty, `.` or `..`.
///
/// It is safe to join to a directory, and it is UTF-8: MariaDB encodes names in ASCII (`@0040`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamPath(Box<str>);

impl StreamPath {
    /// Accepts a path that stays below the directory it is joined to.
    ///
    /// # Errors
    /// [`PathFault`] names the first rule that the path breaks.
    pub fn new(path: &str) -> Result<StreamPath, PathFault> {
        let fault = |reason| Err(PathFault { path: path.to_owned(), reason });
        if path.is_empty() {
            return fault("empty");
        }
        if path.len() > PATH_BYTES_MAX {
            return fault("longer than 511 bytes");
        }
        if path.starts_with('/') {
            return fault("absolute");
        }
        if path.contains('\0') {
            return fault("holds a NUL byte");
        }
        if path.contains('\\') {
            return fault("holds a backslash");
        }
        for component in path.split('/') {
            match component {
                "" => return fault("has an empty component"),
                "." | ".." => return fault("has a component that is . or .."),
                _ => {}
            }
        }
        Ok(StreamPath(path.into()))
    }

    fn from_bytes(bytes: &[u8]) -> Result<StreamPath, PathFault> {
        match std::str::from_utf8(bytes) {
            Ok(path) => StreamPath::new(path),
            Err(_) => Err(PathFault { path: String::from_utf8_lossy(bytes).into_owned(), reason: "not UTF-8" }),
        }
    }

    /// The text of the path.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What stands before the last `/`, or nothing for a file at the top.
    pub fn directory(&self) -> Option<&str> {
        self.0.rsplit_once('/').map(|(directory, _)| directory)
    }

    /// What stands after the last `/`.
    pub fn file_name(&self) -> &str {
        self.0.rsplit_once('/').map_or(&*self.0, |(_, name)| name)
    }

    /// Sixteen bytes that stand for the path where millions of paths are remembered.
    fn digest(&self) -> [u8; 16] {
        let mut digest = [0; 16];
        digest.copy_from_slice(&blake3::hash(self.0.as_bytes()).as_bytes()[..16]);
        digest
    }
}

impl fmt::Display for StreamPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<std::path::Path> for StreamPath {
    fn as_ref(&self) -> &std::path::Path {
        std::path::Path::new(&*self.0)
    }
}

/// A path in the stream that could lead out of the directory it is joined to, or that MariaDB does not write.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("path {path:?} is refused: {reason}")]
pub struct PathFault {
    /// The path, with what is not UTF-8 replaced.
    pub path: String,
    /// The rule that it breaks.
    pub reason: &'static str,
}

/// Receives the files of a stream. Files interleave; the bytes of one come in order, save after a seek.
pub trait FileSink {
    /// Why the sink cannot go on.
    type Error: Error + Send + Sync + 'static;

    /// A file begins. With `replace` it takes the place of one of the same path that was delivered before.
    fn begin(&mut self, file: FileNo, path: &StreamPath, replace: bool) -> Result<(), Self::Error>;

    /// Bytes at the absolute `offset` of the file, whose CRC is not known yet.
    fn data(&mut self, file: FileNo, offset: u64, bytes: &[u8]) -> Result<(), Self::Error>;

    /// Room of the sink's own for bytes at `offset` of the file, so that they need no copy on their way; none if it has none.
    fn room(&mut self, _file: FileNo, _offset: u64) -> Option<&mut [u8]> {
        None
    }

    /// As [`FileSink::data`] of `len` bytes that stand at the beginning of what [`FileSink::room`] gave last.
    fn filled(&mut self, _file: FileNo, _offset: u64, _len: usize) -> Result<(), Self::Error> {
        Ok(())
    }

    /// The file is whole, and the CRCs of all its chunks were right.
    fn end(&mut self, file: FileNo) -> Result<(), Self::Error>;

    /// A delivered file gets another path, and takes the place of a file that has that path.
    fn rename(&mut self, from: &StreamPath, to: &StreamPath) -> Result<(), Self::Error>;

    /// A file that was not delivered gets another path: a file that has been delivered under that path is not it.
    fn rename_undelivered(&mut self, _from: &StreamPath, _to: &StreamPath) -> Result<(), Self::Error> {
        Ok(())
    }

    /// A delivered file is no part of the backup; with a `*` at the end of the path, all files whose paths begin so.
    fn remove(&mut self, path: &StreamPath) -> Result<(), Self::Error>;
}

/// What a whole stream held.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StreamSummary {
    /// Bytes of the stream.
    pub bytes: u64,
    /// Bytes of payload delivered.
    pub payload_bytes: u64,
    /// Files that were ended; a file that was delivered twice counts twice.
    pub files: u64,
    /// Payload chunks.
    pub payload_chunks: u64,
    /// Seek chunks.
    pub seek_chunks: u64,
    /// Rename chunks.
    pub rename_chunks: u64,
    /// Remove chunks.
    pub remove_chunks: u64,
    /// Rename and remove chunks of a file that was not delivered, which change nothing: the tool tells what DDL did to each
    /// file of a table, also to a `.frm` that it copies only later.
    pub void_chunks: u64,
    /// Chunks of unknown type that said themselves that they can be skipped.
    pub ignored_chunks: u64,
    /// The file that was ended last.
    pub last_ended: Option<StreamPath>,
}

/// A place in the stream where it stops being one.
#[derive(Debug, thiserror::Error)]
pub enum ParseError<E: Error + Send + Sync + 'static> {
    /// The stream could not be read.
    #[error("cannot read the stream of the backup tool at byte {at}")]
    Read {
        /// Offset in the stream.
        at: u64,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The stream ended inside a chunk.
    #[error("stream of the backup tool ends inside a chunk: byte {at} is missing, in {part}")]
    Truncated {
        /// Offset of the first missing byte.
        at: u64,
        /// The part of the chunk that was being read, with the path where that is known.
        part: String,
    },
    /// The stream ended between chunks, and a file was never ended.
    #[error("stream of the backup tool ends at byte {at} without the end of {path}{}", others(.more))]
    Unended {
        /// Length of the stream.
        at: u64,
        /// A file without end, the first by name.
        path: StreamPath,
        /// How many more there are.
        more: usize,
    },
    /// A chunk does not begin like one.
    #[error("no chunk begins at byte {at} of the stream: expected \"XBSTCK01\", found {found:02x?}")]
    Magic {
        /// Offset in the stream.
        at: u64,
        /// The bytes there.
        found: [u8; 8],
    },
    /// A chunk of a type that the parser does not know and must not skip.
    #[error("unknown chunk type {found:#04x} with flags {flags:#04x} at byte {at} of the stream")]
    UnknownChunk {
        /// Offset of the chunk.
        at: u64,
        /// The type.
        found: u8,
        /// The flags.
        flags: u8,
    },
    /// A length that no chunk has.
    #[error("{what} of {found} in the chunk at byte {at} of the stream; at most {limit} is possible")]
    TooLong {
        /// Offset of the chunk.
        at: u64,
        /// What is too long.
        what: &'static str,
        /// Its length.
        found: u64,
        /// The longest possible.
        limit: u64,
    },
    /// A path that is not safe to write to.
    #[error("chunk at byte {at} of the stream has a bad path")]
    Path {
        /// Offset of the chunk.
        at: u64,
        /// The path and the rule.
        source: PathFault,
    },
    /// A payload's CRC-32 is not the one that the chunk gives.
    #[error(
        "checksum of {path} at its byte {offset} is wrong (stream byte {at}): expected {expected:08x}, found {found:08x}"
    )]
    Checksum {
        /// Offset of the chunk.
        at: u64,
        /// The file.
        path: StreamPath,
        /// Offset of the payload in the file.
        offset: u64,
        /// The CRC that the chunk gives.
        expected: u32,
        /// The CRC of the payload.
        found: u32,
    },
    /// A payload does not follow the one before it.
    #[error("payload of {path} is out of order at byte {at} of the stream: expected offset {expected}, found {found}")]
    OutOfOrder {
        /// Offset of the chunk.
        at: u64,
        /// The file.
        path: StreamPath,
        /// Where the file was.
        expected: u64,
        /// Where the payload wants to be.
        found: u64,
    },
    /// A file that was already delivered begins again without saying that it replaces it.
    #[error("{path} begins a second time at byte {at} of the stream")]
    Again {
        /// Offset of the chunk.
        at: u64,
        /// The file.
        path: StreamPath,
    },
    /// A rename or remove that does not fit the files delivered so far.
    #[error("cannot {what} {path} at byte {at} of the stream: {reason}")]
    Unfit {
        /// Offset of the chunk.
        at: u64,
        /// `rename` or `remove`.
        what: &'static str,
        /// The file.
        path: StreamPath,
        /// Why not.
        reason: &'static str,
    },
    /// More files are open than the tool can hold.
    #[error("more than {OPEN_FILES_MAX} files are open in the stream when {path} begins at byte {at}")]
    TooManyOpen {
        /// Offset of the chunk.
        at: u64,
        /// The file.
        path: StreamPath,
    },
    /// The sink refused.
    #[error("cannot take the stream of the backup tool at byte {at}")]
    Sink {
        /// Offset in the stream.
        at: u64,
        /// Its error.
        source: E,
    },
}

fn others(more: &usize) -> String {
    if *more == 0 { String::new() } else { format!(" and {more} more") }
}

impl<E: Diagnose> Diagnose for ParseError<E> {
    fn kind(&self) -> Kind {
        match self {
            ParseError::Read { .. } => Kind::Failed,
            ParseError::Truncated { .. } | ParseError::Unended { .. } | ParseError::Again { .. } => {
                Kind::DatabaseRefused
            }
            ParseError::Sink { source, .. } => source.kind(),
            _ => Kind::Corrupt,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            ParseError::Read { .. } => None,
            ParseError::Truncated { .. } | ParseError::Unended { .. } => {
                Some("the backup tool stopped early: its own messages say why".to_owned())
            }
            ParseError::UnknownChunk { .. } => {
                Some("the backup tool may be newer than this program knows: look for a newer release".to_owned())
            }
            ParseError::Again { .. } => {
                Some("tables other than InnoDB were altered while they were copied: take the backup again".to_owned())
            }
            ParseError::Sink { source, .. } => source.hint(),
            _ => Some("the stream was damaged on its way: take the backup again, and test the memory".to_owned()),
        }
    }
}

/// Parses the whole stream `input` into `sink`.
///
/// # Errors
/// See [`ParseError`]; after one, what the sink got is no backup.
pub fn parse<S: FileSink>(input: impl Read, sink: &mut S) -> Result<StreamSummary, ParseError<S::Error>> {
    let mut parser = Parser {
        input: Input::new(input),
        sink,
        open: HashMap::new(),
        delivered: HashSet::new(),
        next_file: 0,
        summary: StreamSummary::default(),
    };
    while parser.chunk()? {}
    parser.finish()
}

struct OpenFile {
    file: FileNo,
    offset: u64,
}

struct Parser<'a, R, S> {
    input: Input<R>,
    sink: &'a mut S,
    open: HashMap<StreamPath, OpenFile>,
    /// Digests, not paths: a server can have a million files.
    delivered: HashSet<[u8; 16]>,
    next_file: u32,
    summary: StreamSummary,
}

/// Head of a chunk, up to its path.
struct Head {
    at: u64,
    flags: u8,
    path: StreamPath,
}

impl<R: Read, S: FileSink> Parser<'_, R, S> {
    /// Parses one chunk; false at the end of the stream.
    fn chunk(&mut self) -> Result<bool, ParseError<S::Error>> {
        let at = self.input.position;
        if self.input.fill().map_err(|source| ParseError::Read { at, source })? == 0 {
            return Ok(false);
        }
        let magic = self.array::<8>("the magic")?;
        if magic != MAGIC {
            return Err(ParseError::Magic { at, found: magic });
        }
        let [flags, kind] = self.array("the flags and type")?;
        let known = matches!(kind, b'P' | b'E' | b'S' | b'R' | b'D') && flags & !(IGNORABLE | REWRITE) == 0;
        if !known && flags & IGNORABLE == 0 {
            return Err(ParseError::UnknownChunk { at, found: kind, flags });
        }
        let head = Head { at, flags, path: self.path(at)? };
        match kind {
            b'P' => self.payload(&head)?,
            b'E' => self.end(head)?,
            b'S' => self.seek(&head)?,
            b'R' => self.rename(&head)?,
            b'D' => self.remove(&head)?,
            _ => self.ignored(&head)?,
        }
        Ok(true)
    }

    fn payload(&mut self, head: &Head) -> Result<(), ParseError<S::Error>> {
        let (len, offset, expected) = self.payload_head(head)?;
        let open = self.opened(head)?;
        let (file, current) = (open.file, open.offset);
        if offset != current {
            return Err(ParseError::OutOfOrder {
                at: head.at,
                path: head.path.clone(),
                expected: current,
                found: offset,
            });
        }
        let end = offset.checked_add(len).ok_or(ParseError::TooLong {
            at: head.at,
            what: "offset",
            found: offset,
            limit: u64::MAX - len,
        })?;
        let mut hasher = crc32fast::Hasher::new();
        let mut done = 0;
        while done < len {
            let at = self.input.position;
            if self.input.ready().is_empty()
                && let Some(room) = self.sink.room(file, offset + done)
                && !room.is_empty()
            {
                let wanted = usize::try_from(len - done).map_or(room.len(), |left| left.min(room.len()));
                let room = &mut room[..wanted];
                let taken = self.input.read_into(room).map_err(|source| ParseError::Read { at, source })?;
                if taken == 0 {
                    return Err(ParseError::Truncated { at, part: format!("a payload of {}", head.path) });
                }
                hasher.update(&room[..taken]);
                self.sink.filled(file, offset + done, taken).map_err(|source| ParseError::Sink { at, source })?;
                done += taken as u64;
                continue;
            }
            let bytes = next_slice(&mut self.input, len - done, &head.path)?;
            hasher.update(bytes);
            self.sink.data(file, offset + done, bytes).map_err(|source| ParseError::Sink { at, source })?;
            let taken = bytes.len();
            self.input.consume(taken);
            done += taken as u64;
        }
        let found = hasher.finalize();
        if found != expected {
            return Err(ParseError::Checksum { at: head.at, path: head.path.clone(), offset, expected, found });
        }
        if let Some(open) = self.open.get_mut(&head.path) {
            open.offset = end;
        }
        self.input.at_once = if len > BUFFER_BYTES as u64 { AHEAD_BYTES } else { BUFFER_BYTES };
        self.summary.payload_chunks += 1;
        self.summary.payload_bytes += len;
        Ok(())
    }

    fn ignored(&mut self, head: &Head) -> Result<(), ParseError<S::Error>> {
        // The stock reader takes what it may skip for a payload, so a writer of new types must give them that shape.
        let (len, offset, expected) = self.payload_head(head)?;
        let mut hasher = crc32fast::Hasher::new();
        let mut done = 0;
        while done < len {
            let bytes = next_slice(&mut self.input, len - done, &head.path)?;
            hasher.update(bytes);
            let taken = bytes.len();
            self.input.consume(taken);
            done += taken as u64;
        }
        let found = hasher.finalize();
        if found != expected {
            return Err(ParseError::Checksum { at: head.at, path: head.path.clone(), offset, expected, found });
        }
        self.summary.ignored_chunks += 1;
        Ok(())
    }

    fn payload_head(&mut self, head: &Head) -> Result<(u64, u64, u32), ParseError<S::Error>> {
        let len = u64::from_le_bytes(self.array("the length of a payload")?);
        let offset = u64::from_le_bytes(self.array("the offset of a payload")?);
        let crc = u32::from_le_bytes(self.array("the checksum of a payload")?);
        if len > CHUNK_BYTES_MAX {
            return Err(ParseError::TooLong { at: head.at, what: "payload", found: len, limit: CHUNK_BYTES_MAX });
        }
        Ok((len, offset, crc))
    }

    fn end(&mut self, mut head: Head) -> Result<(), ParseError<S::Error>> {
        // The tool sets the flag in payload chunks only, so an empty file that replaces another is an end alone (seen on
        // 10.11.19 with CREATE TABLE … ENGINE=MyISAM over a dropped one; the stock mbstream stops there).
        head.flags |= REWRITE;
        let file = self.opened(&head)?.file;
        self.sink.end(file).map_err(|source| ParseError::Sink { at: head.at, source })?;
        self.open.remove(&head.path);
        self.delivered.insert(head.path.digest());
        self.summary.files += 1;
        self.summary.last_ended = Some(head.path);
        Ok(())
    }

    fn seek(&mut self, head: &Head) -> Result<(), ParseError<S::Error>> {
        let offset = u64::from_le_bytes(self.array("the offset of a seek")?);
        self.opened(head)?.offset = offset;
        self.summary.seek_chunks += 1;
        Ok(())
    }

    fn rename(&mut self, head: &Head) -> Result<(), ParseError<S::Error>> {
        let to = self.path(head.at)?;
        let unfit = |path: &StreamPath, reason| {
            Err(ParseError::Unfit { at: head.at, what: "rename", path: path.clone(), reason })
        };
        if self.open.contains_key(&head.path) {
            return unfit(&head.path, "its end has not come yet");
        }
        if self.open.contains_key(&to) {
            return unfit(&to, "the end of the file that it would replace has not come yet");
        }
        self.summary.rename_chunks += 1;
        if !self.delivered.remove(&head.path.digest()) {
            self.summary.void_chunks += 1;
            let at = head.at;
            return self.sink.rename_undelivered(&head.path, &to).map_err(|source| ParseError::Sink { at, source });
        }
        self.delivered.insert(to.digest());
        self.sink.rename(&head.path, &to).map_err(|source| ParseError::Sink { at: head.at, source })
    }

    fn remove(&mut self, head: &Head) -> Result<(), ParseError<S::Error>> {
        if self.open.contains_key(&head.path) {
            let reason = "its end has not come yet";
            return Err(ParseError::Unfit { at: head.at, what: "remove", path: head.path.clone(), reason });
        }
        self.summary.remove_chunks += 1;
        // The tool removes the partitions of a table by a pattern.
        if !self.delivered.remove(&head.path.digest()) && !head.path.as_str().ends_with('*') {
            self.summary.void_chunks += 1;
            return Ok(());
        }
        self.sink.remove(&head.path).map_err(|source| ParseError::Sink { at: head.at, source })
    }

    /// The open file of the chunk's path, which begins with its first chunk of any kind.
    fn opened(&mut self, head: &Head) -> Result<&mut OpenFile, ParseError<S::Error>> {
        if !self.open.contains_key(&head.path) {
            let again = self.delivered.contains(&head.path.digest());
            let replace = again && head.flags & REWRITE != 0;
            if again && !replace {
                return Err(ParseError::Again { at: head.at, path: head.path.clone() });
            }
            if self.open.len() >= OPEN_FILES_MAX {
                return Err(ParseError::TooManyOpen { at: head.at, path: head.path.clone() });
            }
            let file = FileNo(self.next_file);
            self.next_file = self.next_file.checked_add(1).ok_or(ParseError::TooLong {
                at: head.at,
                what: "number of files",
                found: u64::from(u32::MAX) + 1,
                limit: u64::from(u32::MAX),
            })?;
            self.sink.begin(file, &head.path, replace).map_err(|source| ParseError::Sink { at: head.at, source })?;
            self.open.insert(head.path.clone(), OpenFile { file, offset: 0 });
        }
        // Looked up again: the borrow of a first look-up would reach over the insertion.
        self.open.get_mut(&head.path).ok_or(ParseError::Unfit {
            at: head.at,
            what: "open",
            path: head.path.clone(),
            reason: "it is not open",
        })
    }

    fn path(&mut self, at: u64) -> Result<StreamPath, ParseError<S::Error>> {
        let len = u32::from_le_bytes(self.array("the length of a path")?) as usize;
        if len > PATH_BYTES_MAX {
            return Err(ParseError::TooLong { at, what: "path", found: len as u64, limit: PATH_BYTES_MAX as u64 });
        }
        let mut path = [0; PATH_BYTES_MAX];
        let path = &mut path[..len];
        self.exact(path, "a path")?;
        StreamPath::from_bytes(path).map_err(|source| ParseError::Path { at, source })
    }

    fn array<const N: usize>(&mut self, part: &str) -> Result<[u8; N], ParseError<S::Error>> {
        let mut bytes = [0; N];
        self.exact(&mut bytes, part)?;
        Ok(bytes)
    }

    fn exact(&mut self, mut bytes: &mut [u8], part: &str) -> Result<(), ParseError<S::Error>> {
        while !bytes.is_empty() {
            let at = self.input.position;
            let ready = self.input.fill().map_err(|source| ParseError::Read { at, source })?;
            if ready == 0 {
                return Err(ParseError::Truncated { at, part: part.to_owned() });
            }
            let taken = ready.min(bytes.len());
            let (now, later) = bytes.split_at_mut(taken);
            now.copy_from_slice(&self.input.ready()[..taken]);
            self.input.consume(taken);
            bytes = later;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<StreamSummary, ParseError<S::Error>> {
        self.summary.bytes = self.input.position;
        let more = self.open.len().saturating_sub(1);
        match self.open.into_keys().min() {
            Some(path) => Err(ParseError::Unended { at: self.summary.bytes, path, more }),
            None => Ok(self.summary),
        }
    }
}

/// The next bytes of a payload, at most `max` of them and at least one.
fn next_slice<'a, R: Read, E: Error + Send + Sync + 'static>(
    input: &'a mut Input<R>,
    max: u64,
    path: &StreamPath,
) -> Result<&'a [u8], ParseError<E>> {
    let at = input.position;
    let ready = input.fill().map_err(|source| ParseError::Read { at, source })?;
    if ready == 0 {
        return Err(ParseError::Truncated { at, part: format!("a payload of {path}") });
    }
    let len = usize::try_from(max).map_or(ready, |max| max.min(ready));
    Ok(&input.ready()[..len])
}

fn read(reader: &mut impl Read, room: &mut [u8]) -> std::io::Result<usize> {
    loop {
        match reader.read(room) {
            // A reader that claims more than it was given room for is held to the room.
            Ok(len) => return Ok(len.min(room.len())),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// A reader with one buffer, refilled only when it is empty, so that payload is passed on without a copy.
struct Input<R> {
    reader: R,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    /// Offset in the stream of the next byte.
    position: u64,
    /// Most bytes that are read into the buffer at once.
    at_once: usize,
}

impl<R: Read> Input<R> {
    fn new(reader: R) -> Input<R> {
        Input {
            reader,
            buffer: vec![0; BUFFER_BYTES].into_boxed_slice(),
            start: 0,
            end: 0,
            position: 0,
            at_once: BUFFER_BYTES,
        }
    }

    /// Reads when nothing is ready; returns how much is ready, 0 at the end of the stream.
    fn fill(&mut self) -> std::io::Result<usize> {
        if self.start == self.end {
            let len = read(&mut self.reader, &mut self.buffer[..self.at_once])?;
            (self.start, self.end) = (0, len);
        }
        Ok(self.end - self.start)
    }

    /// Reads past the buffer, in which nothing is ready; returns how much, 0 at the end of the stream.
    fn read_into(&mut self, room: &mut [u8]) -> std::io::Result<usize> {
        let len = read(&mut self.reader, room)?;
        self.position += len as u64;
        Ok(len)
    }

    fn ready(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    fn consume(&mut self, len: usize) {
        self.start += len;
        self.position += len as u64;
    }
}

#[cfg(test)]
#[path = "xbstream_tests.rs"]
mod tests;
