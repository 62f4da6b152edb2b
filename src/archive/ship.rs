//! Stores a segment whose bytes lie in a copy of the server's file.

use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use super::ArchiveError;
use super::cut::Draft;
use super::follow::Kept;
use crate::format::Segment;
use crate::model::StreamId;
use crate::repository::{Repository, SegmentRoom, SegmentWriter, WrittenSegment};

/// What is used from one segment to the next: the memory that its packs are made in.
#[derive(Debug, Default)]
pub(super) struct Room(Mutex<Option<SegmentRoom>>);

/// Stores the packs of segment `number` of `stream`, whose bytes lie in `copy`, and in memory as far as they are `kept`.
///
/// # Errors
/// When the copy cannot be read or the store refuses; it may be tried again.
pub(super) async fn packs(
    repository: &Arc<Repository>,
    (stream, number): (&StreamId, u32),
    (copy, kept): (&Path, &Kept),
    draft: &Draft,
    room: &Room,
) -> Result<WrittenSegment, ArchiveError> {
    let spool = |source| ArchiveError::Spool { directory: copy.parent().unwrap_or(copy).to_owned(), source };
    let file = File::open(copy).map_err(spool)?;
    let left = room.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    let memory = match left {
        Some(memory) => memory,
        None => SegmentRoom::new()?,
    };
    let mut writer = SegmentWriter::in_room(repository.clone(), stream.clone(), number, memory);
    let mut buffer = Vec::new();
    let head = 0..draft.head_bytes;
    for part in std::iter::once(&head).chain(&draft.parts) {
        let mut at = part.start;
        while at < part.end {
            let bytes = kept.read(&file, at..part.end, &mut buffer).map_err(spool)?;
            writer.write(bytes).await?;
            at += bytes.len() as u64;
        }
    }
    let (written, memory) = writer.finish_and_leave().await?;
    *room.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(memory);
    Ok(written)
}

/// Stores the document of a segment; one of an earlier try whose answer was lost is as good.
///
/// # Errors
/// When the store refuses, or has another one in its place.
pub(super) async fn document(repository: &Repository, segment: &Segment) -> Result<(), ArchiveError> {
    match repository.put_segment(segment).await {
        Err(error) if error.is_taken() => {
            let found = repository.read_segment(&segment.key()).await?;
            if found == *segment { Ok(()) } else { Err(error.into()) }
        }
        stored => Ok(stored?),
    }
}
