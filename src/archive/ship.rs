//! Stores a segment whose bytes lie in a copy of the server's file.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use super::ArchiveError;
use super::cut::Draft;
use crate::format::Segment;
use crate::model::StreamId;
use crate::repository::{Repository, SegmentWriter, WrittenSegment};

/// Bytes read at a time.
const READ_BYTES: usize = 1 << 20;

/// Stores the packs of segment `number` of `stream`.
///
/// # Errors
/// When the copy cannot be read or the store refuses; it may be tried again.
pub(super) async fn packs(
    repository: &Arc<Repository>,
    (stream, number): (&StreamId, u32),
    copy: &Path,
    draft: &Draft,
) -> Result<WrittenSegment, ArchiveError> {
    let spool = |source| ArchiveError::Spool { directory: copy.parent().unwrap_or(copy).to_owned(), source };
    let file = File::open(copy).map_err(spool)?;
    let mut writer = SegmentWriter::new(repository.clone(), stream.clone(), number)?;
    let mut buffer = vec![0; READ_BYTES];
    let head = 0..draft.head_bytes;
    for part in std::iter::once(&head).chain(&draft.parts) {
        let mut at = part.start;
        while at < part.end {
            let length = usize::try_from(part.end - at).unwrap_or(usize::MAX).min(READ_BYTES);
            file.read_exact_at(&mut buffer[..length], at).map_err(spool)?;
            writer.write(&buffer[..length]).await?;
            at += length as u64;
        }
    }
    Ok(writer.finish().await?)
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
