//! Archived binary log on its way: each segment's packs, then its document, the oldest first.
//!
//! Keys alone tell what is there and what lacks, so no key of a sealed repository is needed. A run that dies leaves packs that belong to
//! nothing, and the next run puts what the copy lacks. What a prune of the copy let go of, which are first segments, does not come back:
//! nothing is copied that lies before the first segment of the copy, or ended before its oldest backup.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::StreamExt;

use super::transfer::is_unfit;
use super::{CopyError, Run, Skip, causes};
use crate::model::{Phase, StreamId, Timestamp};
use crate::repository::{Repository, RepositoryError, StoredSegment, StoredStream};
use crate::store::StoreError;

/// How far before the beginning of the oldest backup the log must have ended that is left out, as a prune has it.
const MARGIN_SECONDS: i64 = 60 * 60;
/// Bytes at the beginning of a backup's name that tell when it was begun.
const BEGUN_BYTES: usize = "YYYYMMDDThhmmssZ".len();

/// Binary log that was copied, or would be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CopiedBinlogs {
    /// Segments.
    pub segments: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Segments of the source that nobody wanted to be copied.
    pub left_out: u64,
}

/// Which segments of `source` are to be copied into what has `copy`, whose oldest backup was begun at `oldest`.
fn choose(source: Vec<StoredStream>, copy: &[StoredStream], oldest: Option<Timestamp>) -> Vec<StoredSegment> {
    let there: BTreeMap<&StreamId, BTreeSet<u32>> = copy
        .iter()
        .map(|stream| (&stream.id, stream.segments.iter().map(|segment| segment.key.number).collect()))
        .collect();
    let first = there.iter().find(|(_, numbers)| !numbers.is_empty()).map(|(id, _)| *id);
    let needed = oldest.map(|oldest| oldest.after(-MARGIN_SECONDS));
    let mut chosen = Vec::new();
    for stream in source {
        if first.is_some_and(|first| stream.id < *first) {
            continue;
        }
        let numbers = there.get(&stream.id);
        let begin = numbers.and_then(|numbers| numbers.first()).copied();
        // From the first one on that anybody needs all are: what is in the copy is a row.
        let is_early = |segment: &StoredSegment| match begin {
            Some(begin) => segment.key.number < begin,
            None => needed.is_some_and(|needed| segment.key.last < needed),
        };
        let segments = stream.segments.into_iter().skip_while(is_early);
        chosen.extend(segments.filter(|segment| numbers.is_none_or(|numbers| !numbers.contains(&segment.key.number))));
    }
    chosen
}

impl Run<'_> {
    /// Copies the binary log that the copy lacks.
    pub(super) async fn copy_binlogs(&mut self) -> Result<(), CopyError> {
        let source = self.context.source.clone();
        let streams = source.binlog_streams().await?;
        if !self.options.binlogs {
            self.report.binlogs.left_out = streams.iter().map(|stream| stream.segments.len() as u64).sum();
            return Ok(());
        }
        let there = match &self.copy {
            Some(copy) if !streams.is_empty() => copy.binlog_streams().await?,
            _ => Vec::new(),
        };
        // In a dry run none has come yet.
        let backups = self.there.iter().chain(self.report.copied.iter().map(|copied| &copied.id));
        let oldest = backups.min().and_then(|id| id.as_str().get(..BEGUN_BYTES));
        let chosen = choose(streams, &there, oldest.and_then(Timestamp::parse_compact));
        let (Some(copy), true) = (self.copy.clone(), self.lease.is_some()) else {
            self.report.binlogs.segments = chosen.len() as u64;
            self.report.binlogs.bytes = chosen.iter().map(|segment| segment.bytes).sum();
            return Ok(());
        };
        if chosen.is_empty() {
            return Ok(());
        }
        let progress = self.context.progress.clone();
        progress.begin(Phase::Copy, Some(chosen.iter().map(|segment| segment.bytes).sum()));
        let carries = chosen.into_iter().map(|segment| {
            let (source, copy) = (source.clone(), copy.clone());
            async move {
                let carried = carry(&source, &copy, &segment).await;
                (segment, carried)
            }
        });
        // Documents in their order: where a run dies, the first segments are there and not the last.
        let mut carries = futures::stream::iter(carries).buffered(self.options.packs_in_flight.max(1));
        while let Some((segment, carried)) = carries.next().await {
            match carried {
                Ok(document) => match copy.put_stored_segment(&segment.key, document).await {
                    Ok(()) => {
                        self.report.binlogs.segments += 1;
                        self.report.binlogs.bytes += segment.bytes;
                    }
                    Err(error @ RepositoryError::Store(StoreError::AlreadyExists { .. })) => {
                        self.skip_segment(&source, &segment, &error).await?;
                    }
                    Err(error) => return Err(error.into()),
                },
                Err(error) if is_unfit(&error) => self.skip_segment(&source, &segment, &error).await?,
                Err(error) => return Err(error.into()),
            }
            progress.advance(Phase::Copy, segment.bytes);
        }
        progress.end(Phase::Copy);
        Ok(())
    }

    /// Tells of a segment that is not copied, unless a prune of the source let go of it meanwhile.
    async fn skip_segment(
        &mut self,
        source: &Repository,
        segment: &StoredSegment,
        error: &RepositoryError,
    ) -> Result<(), CopyError> {
        let (stream, number) = (&segment.key.stream, segment.key.number);
        let now = source.binlog_stream(stream).await?;
        if now.is_some_and(|now| now.segments.iter().any(|now| now.key.number == number)) {
            self.report.skipped.push(Skip {
                backup: None,
                message: format!("segment {number} of binary log stream {stream} is not copied: {}", causes(error)),
                hint: Some("`haulout check --read-data` tells what is wrong with it".to_owned()),
            });
        }
        Ok(())
    }
}

/// Copies the packs of a segment, and gives its document.
async fn carry(
    source: &Arc<Repository>,
    copy: &Arc<Repository>,
    segment: &StoredSegment,
) -> Result<bytes::Bytes, RepositoryError> {
    let document = source.stored_segment(segment).await?;
    for (pack, _) in &segment.packs {
        let bytes = source.read_proven_segment_pack(&segment.key, *pack).await?;
        copy.put_proven_segment_pack(&segment.key, *pack, bytes).await?;
    }
    Ok(document)
}

#[cfg(test)]
mod tests;
