//! Archived binary log: streams of segments.
//!
//! A segment's packs come first and its document then, whose arrival is the segment. One archiver writes a stream, from one connection to the
//! end of it; the next one begins another, which says what it goes on from. So nobody ever adds to what another is writing.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;

use super::keys::SegmentKey;
use super::{ObjectKey, Repository, RepositoryError, store_key};
use crate::format::pack::{self, NewChunk, PACK_BYTES_MAX, PackBuilder, PackEntry, PackKind};
use crate::format::{FormatError, Segment, SegmentPack, StoredChunk};
use crate::model::{ChunkId, PackId, StreamId, Timestamp};
use crate::store::{Key, StoreError};

/// Bytes of a chunk of a segment.
const CHUNK_BYTES: usize = 1 << 20;
/// How strongly chunks are compressed: little, for the archiver works beside the server.
const ZSTD_LEVEL: i32 = 1;

/// A segment by its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredSegment {
    /// Its key.
    pub key: SegmentKey,
    /// When its document was stored, by the store's clock.
    pub stored: Timestamp,
    /// Bytes of its packs and of its document.
    pub bytes: u64,
    /// Packs that are there under its number, in the order of their names.
    pub packs: Vec<(PackId, u64)>,
}

/// A stream: what one archiver archived without a break.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredStream {
    /// Its name.
    pub id: StreamId,
    /// Its segments, by number; where one lacks, a number lacks.
    pub segments: Vec<StoredSegment>,
    /// Packs of segments whose document has not come, with their segment's number, size and time.
    pub unfinished: Vec<(u32, PackId, u64, Timestamp)>,
}

impl StoredStream {
    /// True when no segment is missing between the first and the last.
    pub fn is_unbroken(&self) -> bool {
        self.segments.windows(2).all(|pair| pair[0].key.number.checked_add(1) == Some(pair[1].key.number))
    }
}

impl Segment {
    /// The key of its document.
    pub fn key(&self) -> SegmentKey {
        let mut sum = [0; 8];
        sum.copy_from_slice(&self.sum.0[..8]);
        SegmentKey {
            stream: self.stream.clone(),
            number: self.number,
            first: self.first_time,
            last: self.last_time,
            gtid: self.first_gtid,
            sum,
        }
    }
}

impl Repository {
    /// All streams, by name, which is the order in which they were begun.
    ///
    /// # Errors
    /// When the store cannot list.
    pub async fn binlog_streams(&self) -> Result<Vec<StoredStream>, RepositoryError> {
        self.streams_under(ObjectKey::BINLOGS.to_owned()).await
    }

    /// One stream; none when nothing is there of it.
    ///
    /// # Errors
    /// When the store cannot list.
    pub async fn binlog_stream(&self, id: &StreamId) -> Result<Option<StoredStream>, RepositoryError> {
        Ok(self.streams_under(format!("{}/{id}", ObjectKey::BINLOGS)).await?.pop())
    }

    async fn streams_under(&self, folder: String) -> Result<Vec<StoredStream>, RepositoryError> {
        let mut streams: BTreeMap<StreamId, Found> = BTreeMap::new();
        let mut objects = self.store.list(Some(&Key::new(folder)?));
        while let Some(object) = objects.try_next().await? {
            match ObjectKey::parse(object.key.as_str()) {
                Some(ObjectKey::Segment(key)) => {
                    let found = streams.entry(key.stream.clone()).or_default();
                    let (stored, bytes) = (object.last_modified, object.size);
                    found.segments.insert(key.number, StoredSegment { key, stored, bytes, packs: Vec::new() });
                }
                Some(ObjectKey::SegmentPack(stream, number, pack)) => {
                    let found = streams.entry(stream).or_default();
                    found.packs.push((number, pack, object.size, object.last_modified));
                }
                _ => {}
            }
        }
        Ok(streams.into_iter().map(|(id, found)| found.stream(id)).collect())
    }

    /// The document of a segment.
    ///
    /// # Errors
    /// When it cannot be read, or is another's.
    pub async fn read_segment(&self, key: &SegmentKey) -> Result<Segment, RepositoryError> {
        let place = ObjectKey::Segment(key.clone());
        let segment: Segment = self.get_document(&place).await?;
        if segment.key() == *key && segment.repository_id == self.config.repository_id {
            return Ok(segment);
        }
        let problem =
            format!("it is segment {} of stream {} of another repository or place", segment.number, segment.stream);
        Err(FormatError::Document { what: place.text(), problem }.into())
    }

    /// Stores the document of a segment whose packs are all there.
    ///
    /// # Errors
    /// When it contradicts itself, or the store refuses.
    pub async fn put_segment(&self, segment: &Segment) -> Result<(), RepositoryError> {
        crate::format::Document::check(segment)?;
        self.put_document(&ObjectKey::Segment(segment.key()), segment).await
    }

    /// Proves that the packs of a segment are those that were stored, without looking at what is in them.
    ///
    /// # Errors
    /// When one is missing or damaged.
    pub async fn prove_segment_packs(&self, segment: &Segment) -> Result<(), RepositoryError> {
        for pack in &segment.packs {
            self.read_segment_pack(&segment.stream, segment.number, *pack).await?;
        }
        Ok(())
    }

    async fn put_segment_pack(&self, key: &ObjectKey, id: PackId, bytes: Bytes) -> Result<(), RepositoryError> {
        let expected = bytes.len() as u64;
        let place = store_key(key)?;
        match self.store.put(&place, bytes).await {
            // Its name is its hash, and nobody else writes into the stream: it is what an earlier try has stored.
            Ok(_) | Err(StoreError::AlreadyExists { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let found = self.store.head(&place).await?.size;
        if found != expected {
            return Err(RepositoryError::PackSize { pack: id, expected, found });
        }
        Ok(())
    }

    async fn read_segment_pack(
        &self,
        stream: &StreamId,
        number: u32,
        pack: SegmentPack,
    ) -> Result<(Bytes, Vec<PackEntry>), RepositoryError> {
        let key = store_key(&ObjectKey::SegmentPack(stream.clone(), number, pack.pack))?;
        let bytes = match self.store.get(&key, PACK_BYTES_MAX).await {
            Ok(bytes) => bytes,
            Err(error) if error.is_not_found() => return Err(RepositoryError::PackMissing { pack: pack.pack }),
            Err(error) => return Err(error.into()),
        };
        let damaged = |source| RepositoryError::Pack { pack: pack.pack, source };
        let parsed = pack::parse_pack(pack.pack, &bytes, &self.keyring).map_err(damaged)?;
        Ok((bytes, parsed.entries))
    }
}

#[derive(Default)]
struct Found {
    segments: BTreeMap<u32, StoredSegment>,
    packs: Vec<(u32, PackId, u64, Timestamp)>,
}

impl Found {
    fn stream(mut self, id: StreamId) -> StoredStream {
        let mut unfinished = Vec::new();
        for pack in self.packs {
            match self.segments.get_mut(&pack.0) {
                Some(segment) => {
                    segment.bytes += pack.2;
                    segment.packs.push((pack.1, pack.2));
                }
                None => unfinished.push(pack),
            }
        }
        StoredStream { id, segments: self.segments.into_values().collect(), unfinished }
    }
}

/// What was stored of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenSegment {
    /// [`Segment::raw_bytes`].
    pub raw_bytes: u64,
    /// [`Segment::sum`].
    pub sum: ChunkId,
    /// [`Segment::packs`].
    pub packs: Vec<SegmentPack>,
}

/// The memory that segments are made in, some 20 MiB, to be used again: an archiver makes some every few seconds, and memory that is new costs
/// a page fault for each of its pages.
pub struct SegmentRoom {
    compressor: zstd::bulk::Compressor<'static>,
    chunk: Vec<u8>,
    stored: Vec<u8>,
    pack: Vec<u8>,
}

impl std::fmt::Debug for SegmentRoom {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SegmentRoom").finish_non_exhaustive()
    }
}

impl SegmentRoom {
    /// Room in which nothing is.
    ///
    /// # Errors
    /// When there is no memory to compress with.
    pub fn new() -> Result<SegmentRoom, RepositoryError> {
        let compressor = zstd::bulk::Compressor::new(ZSTD_LEVEL)
            .map_err(|source| FormatError::Compression { what: "binary log", source })?;
        Ok(SegmentRoom { compressor, chunk: Vec::with_capacity(CHUNK_BYTES), stored: Vec::new(), pack: Vec::new() })
    }
}

/// The bytes of a pack, which its writer looks at again when the store has them.
struct Lent(Arc<Vec<u8>>);

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Stores the bytes of a segment as they come; some 20 MiB of memory.
#[derive(Debug)]
pub struct SegmentWriter {
    repository: Arc<Repository>,
    stream: StreamId,
    number: u32,
    room: SegmentRoom,
    builder: Option<PackBuilder>,
    names: Vec<u8>,
    written: WrittenSegment,
}

impl SegmentWriter {
    /// A writer of segment `number` of `stream`.
    ///
    /// # Errors
    /// When there is no memory to compress with.
    pub fn new(repository: Arc<Repository>, stream: StreamId, number: u32) -> Result<SegmentWriter, RepositoryError> {
        Ok(SegmentWriter::in_room(repository, stream, number, SegmentRoom::new()?))
    }

    /// The same in memory that was used before.
    pub fn in_room(repository: Arc<Repository>, stream: StreamId, number: u32, mut room: SegmentRoom) -> SegmentWriter {
        room.chunk.clear();
        let written = WrittenSegment { raw_bytes: 0, sum: ChunkId([0; 32]), packs: Vec::new() };
        SegmentWriter { repository, stream, number, room, builder: None, names: Vec::new(), written }
    }

    /// Bytes that it was given.
    pub fn raw_bytes(&self) -> u64 {
        self.written.raw_bytes
    }

    /// Takes the next bytes; stores each pack that is full.
    ///
    /// # Errors
    /// When they cannot be sealed or stored.
    pub async fn write(&mut self, mut bytes: &[u8]) -> Result<(), RepositoryError> {
        self.written.raw_bytes += bytes.len() as u64;
        while !bytes.is_empty() {
            if self.room.chunk.is_empty() && bytes.len() >= CHUNK_BYTES {
                let (chunk, rest) = bytes.split_at(CHUNK_BYTES);
                self.add_chunk(chunk).await?;
                bytes = rest;
                continue;
            }
            let (part, rest) = bytes.split_at(bytes.len().min(CHUNK_BYTES - self.room.chunk.len()));
            self.room.chunk.extend_from_slice(part);
            bytes = rest;
            if self.room.chunk.len() == CHUNK_BYTES {
                self.close_chunk().await?;
            }
        }
        Ok(())
    }

    async fn close_chunk(&mut self) -> Result<(), RepositoryError> {
        let mut chunk = std::mem::take(&mut self.room.chunk);
        if !chunk.is_empty() {
            self.add_chunk(&chunk).await?;
        }
        chunk.clear();
        self.room.chunk = chunk;
        Ok(())
    }

    async fn add_chunk(&mut self, chunk: &[u8]) -> Result<(), RepositoryError> {
        let id = self.repository.namer().chunk_of_file(chunk);
        self.names.extend_from_slice(&id.0);
        let encoding = pack::compress(&mut self.room.compressor, chunk, &mut self.room.stored)?;
        let mut builder = match self.builder.take() {
            Some(builder) => builder,
            None => self.repository.keyring().new_pack(PackKind::Data)?.moved_into(std::mem::take(&mut self.room.pack)),
        };
        let raw_bytes = chunk.len() as u32;
        builder.add(&NewChunk { id, raw_bytes, encoding, sums: &[], stored: &self.room.stored });
        let full = builder.is_full();
        self.builder = Some(builder);
        if full { self.close_pack().await } else { Ok(()) }
    }

    async fn close_pack(&mut self) -> Result<(), RepositoryError> {
        let Some(builder) = self.builder.take() else { return Ok(()) };
        let finished = builder.finish()?;
        let (id, bytes) = (finished.id, finished.bytes.len() as u32);
        let key = ObjectKey::SegmentPack(self.stream.clone(), self.number, id);
        let lent = Arc::new(finished.bytes);
        self.repository.put_segment_pack(&key, id, Bytes::from_owner(Lent(lent.clone()))).await?;
        // Where the store still holds on to it, the next one gets new memory.
        self.room.pack = Arc::try_unwrap(lent).unwrap_or_default();
        self.written.packs.push(SegmentPack { pack: id, bytes });
        Ok(())
    }

    /// Stores what is left.
    ///
    /// # Errors
    /// When it cannot be sealed or stored.
    pub async fn finish(self) -> Result<WrittenSegment, RepositoryError> {
        Ok(self.finish_and_leave().await?.0)
    }

    /// The same, and gives the memory for the next one.
    ///
    /// # Errors
    /// When it cannot be sealed or stored.
    pub async fn finish_and_leave(mut self) -> Result<(WrittenSegment, SegmentRoom), RepositoryError> {
        self.close_chunk().await?;
        self.close_pack().await?;
        self.written.sum = self.repository.namer().chunk_of_file(&self.names);
        Ok((self.written, self.room))
    }
}

/// Reads the bytes of a segment, a chunk of a MiB at a time, and proves them.
#[derive(Debug)]
pub struct SegmentReader<'a> {
    repository: &'a Repository,
    segment: &'a Segment,
    next_pack: usize,
    bytes: Bytes,
    entries: VecDeque<PackEntry>,
    names: Vec<u8>,
    read: u64,
}

impl<'a> SegmentReader<'a> {
    /// A reader of `segment`.
    pub fn new(repository: &'a Repository, segment: &'a Segment) -> SegmentReader<'a> {
        let (bytes, entries, names) = (Bytes::new(), VecDeque::new(), Vec::new());
        SegmentReader { repository, segment, next_pack: 0, bytes, entries, names, read: 0 }
    }

    /// The next bytes; none at the end, when all of them were proven to be the segment's.
    ///
    /// # Errors
    /// When a pack is missing or damaged, or the whole is not what the segment says.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, RepositoryError> {
        let Segment { stream, number, packs, .. } = self.segment;
        while self.entries.is_empty() {
            let Some(pack) = packs.get(self.next_pack) else { return self.end() };
            let (bytes, entries) = self.repository.read_segment_pack(stream, *number, *pack).await?;
            (self.bytes, self.entries) = (bytes, entries.into());
            self.next_pack += 1;
        }
        let Some(entry) = self.entries.pop_front() else { return Ok(None) };
        let pack = packs[self.next_pack - 1].pack;
        let damaged = |source| RepositoryError::Pack { pack, source };
        let stored = &self.bytes[entry.offset as usize..(entry.offset + entry.stored_bytes) as usize];
        let chunk = StoredChunk {
            kind: PackKind::Data,
            id: entry.id,
            offset: entry.offset,
            encoding: entry.encoding,
            raw_bytes: entry.raw_bytes,
        };
        let raw = self.repository.keyring().open_chunk("binary log", &chunk, stored).map_err(damaged)?;
        let found = self.repository.namer().chunk_of_file(&raw);
        if found != entry.id {
            let (expected, found) = (entry.id.to_string(), found.to_string());
            return Err(damaged(FormatError::WrongHash { what: "binary log", expected, found }));
        }
        self.names.extend_from_slice(&entry.id.0);
        self.read += raw.len() as u64;
        Ok(Some(raw))
    }

    fn end(&self) -> Result<Option<Vec<u8>>, RepositoryError> {
        let Segment { sum, raw_bytes, .. } = self.segment;
        let found = self.repository.namer().chunk_of_file(&self.names);
        if found == *sum && self.read == *raw_bytes {
            return Ok(None);
        }
        let what = ObjectKey::Segment(self.segment.key()).text();
        let problem = format!("its packs hold {} bytes named {found}, expected {raw_bytes} named {sum}", self.read);
        Err(FormatError::Document { what, problem }.into())
    }
}

#[cfg(test)]
mod tests {
    use object_store::{ObjectStoreExt, memory::InMemory};

    use super::*;
    use crate::format::segment_example;
    use crate::model::{SystemClock, SystemEntropy};
    use crate::store::{Store, StoreOptions};

    async fn repository() -> (Arc<InMemory>, Arc<Repository>) {
        let objects = Arc::new(InMemory::new());
        let store = Store::over("memory:///", objects.clone(), StoreOptions::default());
        (objects, Arc::new(Repository::init(store, &SystemClock, &SystemEntropy).await.unwrap()))
    }

    async fn put(repository: &Arc<Repository>, raw: &[u8]) -> Segment {
        let mut segment = segment_example();
        let mut writer = SegmentWriter::new(repository.clone(), segment.stream.clone(), 0).unwrap();
        for part in raw.chunks(700_001) {
            writer.write(part).await.unwrap();
        }
        let written = writer.finish().await.unwrap();
        segment.repository_id = repository.config().repository_id;
        (segment.raw_bytes, segment.sum, segment.packs) = (written.raw_bytes, written.sum, written.packs);
        repository.put_segment(&segment).await.unwrap();
        segment
    }

    async fn read(repository: &Repository, segment: &Segment) -> Result<Vec<u8>, RepositoryError> {
        let (mut reader, mut raw) = (SegmentReader::new(repository, segment), Vec::new());
        while let Some(bytes) = reader.next().await? {
            raw.extend(bytes);
        }
        Ok(raw)
    }

    /// Bytes that do not compress.
    fn noise(bytes: usize) -> Vec<u8> {
        let mut noise = vec![0; bytes];
        blake3::Hasher::new().update(b"noise").finalize_xof().fill(&mut noise);
        noise
    }

    #[tokio::test]
    async fn a_segment_comes_back_as_it_was() {
        for raw in [b"binlog".to_vec(), noise(40 << 20)] {
            let (_, repository) = repository().await;
            let segment = put(&repository, &raw).await;
            let streams = repository.binlog_streams().await.unwrap();
            assert_eq!(streams.len(), 1);
            assert!(streams[0].unfinished.is_empty() && streams[0].is_unbroken());
            let stored = &streams[0].segments[0];
            assert!(stored.bytes > raw.len() as u64);
            assert_eq!(repository.read_segment(&stored.key).await.unwrap(), segment);
            assert!(read(&repository, &segment).await.unwrap() == raw, "other bytes");
        }
    }

    #[tokio::test]
    async fn a_segment_that_lost_something_is_not_read() {
        let (objects, repository) = repository().await;
        let segment = put(&repository, &noise(20 << 20)).await;
        let mut shorter = segment.clone();
        shorter.packs.pop();
        assert!(read(&repository, &shorter).await.unwrap_err().to_string().contains("bytes named"));
        let key = ObjectKey::SegmentPack(segment.stream.clone(), 0, segment.packs[1].pack);
        let path = object_store::path::Path::from(key.text());
        let mut bytes = objects.get(&path).await.unwrap().bytes().await.unwrap().to_vec();
        bytes[4000] ^= 1;
        objects.put(&path, bytes.into()).await.unwrap();
        assert!(matches!(read(&repository, &segment).await, Err(RepositoryError::Pack { .. })));
        objects.delete(&path).await.unwrap();
        assert!(matches!(read(&repository, &segment).await, Err(RepositoryError::PackMissing { .. })));
        let document = object_store::path::Path::from(ObjectKey::Segment(segment.key()).text());
        objects.delete(&document).await.unwrap();
        let streams = repository.binlog_streams().await.unwrap();
        assert_eq!((streams[0].segments.len(), streams[0].unfinished.len()), (0, 1));
    }
}
