//! Reads many map blocks with few requests: those that lie side by side, as those of one backup do, come together.

use std::sync::Arc;

use futures::{Stream, StreamExt};

use super::{Repository, RepositoryError};
use crate::format::FormatError;
use crate::format::map::BlockRef;

/// Longest stretch of a pack that is read at once; some hundred blocks.
const RANGE_BYTES_MAX: u32 = 4 << 20;
/// Bytes between two blocks that are read along rather than in a request of their own.
const GAP_BYTES_MAX: u32 = 64 << 10;
/// Stretches read at the same time: 32 MiB at most.
const RANGES_IN_FLIGHT: usize = 8;

impl Repository {
    /// Reads blocks in the order of packs and offsets, proves them by their names, and gives what `parse` makes of each, a stretch of
    /// neighbours at a time.
    ///
    /// Fails when a block cannot be read or is damaged.
    pub fn read_blocks<T, P>(
        self: &Arc<Repository>,
        blocks: Vec<BlockRef>,
        parse: P,
    ) -> impl Stream<Item = Result<Vec<T>, RepositoryError>> + use<T, P>
    where
        T: Send + 'static,
        P: Fn(&BlockRef, &[u8]) -> Result<T, FormatError> + Clone + Send + 'static,
    {
        let repository = self.clone();
        let reads =
            stretches(blocks).into_iter().map(move |stretch| read_stretch(repository.clone(), stretch, parse.clone()));
        futures::stream::iter(reads).buffered(RANGES_IN_FLIGHT)
    }
}

/// Blocks of one pack that are read at once, by their offsets.
fn stretches(mut blocks: Vec<BlockRef>) -> Vec<Vec<BlockRef>> {
    blocks.sort_unstable_by_key(|block| (block.at.pack.id, block.at.offset));
    let mut stretches: Vec<Vec<BlockRef>> = Vec::new();
    for block in blocks {
        let fits = stretches.last().and_then(|stretch| Some((stretch.first()?, stretch.last()?))).is_some_and(
            |(first, last)| {
                let end = last.at.offset.saturating_add(last.at.stored_bytes);
                first.at.pack == block.at.pack
                    && block.at.offset.saturating_sub(end) <= GAP_BYTES_MAX
                    && block.at.offset.saturating_add(block.at.stored_bytes) - first.at.offset <= RANGE_BYTES_MAX
            },
        );
        match stretches.last_mut().filter(|_| fits) {
            Some(stretch) => stretch.push(block),
            None => stretches.push(vec![block]),
        }
    }
    stretches
}

async fn read_stretch<T, P>(
    repository: Arc<Repository>,
    stretch: Vec<BlockRef>,
    parse: P,
) -> Result<Vec<T>, RepositoryError>
where
    T: Send + 'static,
    P: Fn(&BlockRef, &[u8]) -> Result<T, FormatError> + Send + 'static,
{
    let (Some(first), Some(last)) = (stretch.first(), stretch.last()) else { return Ok(Vec::new()) };
    let (start, end) = (u64::from(first.at.offset), u64::from(last.at.offset) + u64::from(last.at.stored_bytes));
    let bytes = repository.read_range(first.at.pack.id, start..end).await?;
    let parsed = tokio::task::spawn_blocking(move || {
        let parse_one = |block: &BlockRef| {
            let from = (u64::from(block.at.offset) - start) as usize;
            let stored = &bytes[from..from + block.at.stored_bytes as usize];
            let raw = repository.open_block(block, stored)?;
            parse(block, &raw).map_err(|source| RepositoryError::Pack { pack: block.at.pack.id, source })
        };
        stretch.iter().map(parse_one).collect()
    });
    match parsed.await {
        Ok(parsed) => parsed,
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}
