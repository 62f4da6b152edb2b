//! Copies the chunks that are needed out of packs that are mostly dead.
//!
//! They are copied as they are compressed, and proven by their names on the way; in a sealed repository they are opened, and sealed anew
//! for their new places. What the chosen backup needs comes first, so that
//! it lies together.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};

use super::packs::{DataPacks, Placed, Uploads};
use super::survey::Live;
use crate::format::map::PackRef;
use crate::format::pack::{self, NewChunk, PackEntry, PackKind};
use crate::format::{FormatError, Keyring, StoredChunk};
use crate::model::{PackId, Phase, Progress};
use crate::prune::Skip;
use crate::repository::{Repository, RepositoryError};

/// Longest stretch of a pack that is read at once.
const RANGE_BYTES_MAX: u32 = 8 << 20;
/// Bytes between two chunks that are read along rather than in a request of their own.
const GAP_BYTES_MAX: u32 = 256 << 10;
/// Stretches read at the same time: 32 MiB of stored bytes.
const RANGES_IN_FLIGHT: usize = 4;

/// Where chunks went, by their old packs and, ascending, their old offsets: 16 bytes each.
#[derive(Debug, Default)]
pub(super) struct Moves(HashMap<PackId, Vec<(u32, Placed)>>);

impl Moves {
    /// Where the chunk at `offset` of `pack` went.
    pub fn find(&self, pack: &PackId, offset: u32) -> Option<Placed> {
        let chunks = self.0.get(pack)?;
        let place = chunks.binary_search_by_key(&offset, |(offset, _)| *offset).ok()?;
        Some(chunks[place].1)
    }

    /// Chunks that went somewhere.
    pub fn len(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }
}

/// A stretch of a pack, and what of it is needed.
struct Stretch {
    pack: PackRef,
    entries: Vec<PackEntry>,
}

/// Copies the chunks of `live` into `data`. A pack of which one cannot be read, or is not what its name says, stays as it is.
pub(super) async fn copy(
    repository: &Arc<Repository>,
    packs: &[PackRef],
    live: &HashMap<PackId, Vec<Live>>,
    data: &mut DataPacks,
    uploads: &mut Uploads,
    progress: &dyn Progress,
) -> Result<(Moves, Vec<Skip>), RepositoryError> {
    let (mut moves, mut skipped) = (Moves::default(), HashMap::new());
    for chosen in [true, false] {
        let stretches = futures::stream::iter(packs.iter()).map(|pack| async move {
            let wanted = live.get(&pack.id).map(Vec::as_slice).unwrap_or_default();
            let wanted: Vec<u32> = wanted.iter().filter(|live| live.chosen == chosen).map(|live| live.offset).collect();
            if wanted.is_empty() {
                return Ok(Vec::new());
            }
            match stretches(repository, *pack, &wanted).await {
                Ok(stretches) => Ok(stretches.into_iter().map(Ok).collect()),
                Err(error) => damage(error).map(|error| vec![Err(fault(*pack, error))]),
            }
        });
        let stretches = stretches.buffered(RANGES_IN_FLIGHT).map_ok(|found| futures::stream::iter(found).map(Ok));
        let reads = stretches.try_flatten().map_ok(|stretch| async move {
            match stretch {
                Err(fault) => Ok(Err(fault)),
                Ok(Stretch { pack, entries }) => match read(repository, pack, entries).await {
                    Ok(chunks) => Ok(Ok((pack, chunks))),
                    Err(error) => damage(error).map(|error| Err(fault(pack, error))),
                },
            }
        });
        let mut reads = std::pin::pin!(reads.try_buffered(RANGES_IN_FLIGHT));
        while let Some(read) = reads.try_next().await? {
            match read {
                Err(fault) => {
                    skipped.entry(fault.0.id).or_insert(fault.1);
                }
                Ok((pack, chunks)) => {
                    for (entry, stored) in chunks {
                        let PackEntry { id, raw_bytes, encoding, sums, .. } = &entry;
                        let (id, raw_bytes, encoding) = (*id, *raw_bytes, *encoding);
                        let placed =
                            data.add(&NewChunk { id, raw_bytes, encoding, sums, stored: &stored }, uploads).await?;
                        moves.0.entry(pack.id).or_default().push((entry.offset, placed));
                        progress.advance(Phase::Fetch, stored.len() as u64);
                    }
                }
            }
        }
    }
    moves.0.retain(|pack, _| !skipped.contains_key(pack));
    moves.0.values_mut().for_each(|chunks| chunks.sort_unstable_by_key(|(offset, _)| *offset));
    let told = skipped.iter().map(|(pack, error)| {
        let what = format!("pack {pack} is left as it is: {}", crate::prune::causes(error));
        Skip::new(what).with_hint("`haulout check --read-data` tells which backups it hits")
    });
    Ok((moves, told.collect()))
}

/// What is wrong with a pack; boxed, because it is seldom met.
type Fault = Box<(PackRef, RepositoryError)>;

fn fault(pack: PackRef, error: RepositoryError) -> Fault {
    Box::new((pack, error))
}

/// What is damaged is told; a store that does not answer ends the run.
fn damage(error: RepositoryError) -> Result<RepositoryError, RepositoryError> {
    match error {
        RepositoryError::Store(error) => Err(error.into()),
        error => Ok(error),
    }
}

/// The stretches of a pack that hold the chunks at `wanted`, which ascend.
async fn stretches(repository: &Repository, pack: PackRef, wanted: &[u32]) -> Result<Vec<Stretch>, RepositoryError> {
    let directory = repository.directory(pack).await?;
    let mut stretches: Vec<Stretch> = Vec::new();
    for offset in wanted {
        let place = directory.binary_search_by_key(offset, |entry| entry.offset).map_err(|_| {
            let problem = format!("no chunk of its directory begins at {offset}");
            let source = FormatError::Document { what: "pack".to_owned(), problem };
            RepositoryError::Pack { pack: pack.id, source }
        })?;
        let entry = &directory[place];
        let end = |entry: &PackEntry| entry.offset.saturating_add(entry.stored_bytes);
        let fits = stretches.last().is_some_and(|stretch| {
            let (first, last) = (&stretch.entries[0], &stretch.entries[stretch.entries.len() - 1]);
            entry.offset.saturating_sub(end(last)) <= GAP_BYTES_MAX && end(entry) - first.offset <= RANGE_BYTES_MAX
        });
        match stretches.last_mut().filter(|_| fits) {
            Some(stretch) => stretch.entries.push(entry.clone()),
            None => stretches.push(Stretch { pack, entries: vec![entry.clone()] }),
        }
    }
    Ok(stretches)
}

/// The compressed bytes of chunks, opened where the repository is sealed, each proven by its name. Bytes can be spoiled on their way;
/// those that are spoiled in the store are so at the second look too.
async fn read(
    repository: &Arc<Repository>,
    pack: PackRef,
    entries: Vec<PackEntry>,
) -> Result<Vec<(PackEntry, Bytes)>, RepositoryError> {
    match read_once(repository, pack, entries.clone()).await {
        Err(RepositoryError::Pack { .. }) => read_once(repository, pack, entries).await,
        read => read,
    }
}

async fn read_once(
    repository: &Arc<Repository>,
    pack: PackRef,
    entries: Vec<PackEntry>,
) -> Result<Vec<(PackEntry, Bytes)>, RepositoryError> {
    let (Some(first), Some(last)) = (entries.first(), entries.last()) else { return Ok(Vec::new()) };
    let start = u64::from(first.offset);
    let range = start..u64::from(last.offset) + u64::from(last.stored_bytes);
    let bytes = repository.read_range(pack.id, range).await?;
    let keyring = repository.keyring().clone();
    let proven = tokio::task::spawn_blocking(move || {
        let prove_one = |entry: PackEntry| {
            let from = (u64::from(entry.offset) - start) as usize;
            let stored = bytes.slice(from..from + entry.stored_bytes as usize);
            let opened = prove(&keyring, &entry, &stored);
            let opened = opened.map_err(|source| RepositoryError::Pack { pack: pack.id, source })?;
            Ok((entry, opened))
        };
        entries.into_iter().map(prove_one).collect()
    });
    match proven.await {
        Ok(proven) => proven,
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

/// Proves that a chunk of a data pack is what its name says, and its pages what their sums say; gives its compressed bytes, opened.
pub(super) fn prove(keyring: &Keyring, entry: &PackEntry, stored: &Bytes) -> Result<Bytes, FormatError> {
    let PackEntry { id, offset, encoding, raw_bytes, .. } = *entry;
    let chunk = StoredChunk { kind: PackKind::Data, id, offset, encoding, raw_bytes };
    let opened = match keyring.unseal_chunk("chunk", &chunk, stored)? {
        Cow::Borrowed(_) => stored.clone(),
        Cow::Owned(opened) => opened.into(),
    };
    let raw = pack::decompress("chunk", encoding, &opened, raw_bytes as usize)?;
    let namer = keyring.namer();
    let found = match entry.sums.len() {
        0 => namer.chunk_of_file(&raw),
        pages => {
            let page_bytes = (raw.len() / pages).max(1);
            let hashes = namer.pages(&raw, page_bytes);
            if !hashes.iter().map(|hash| hash.sum()).eq(entry.sums.iter().copied()) {
                let problem = "the sums of its pages are wrong".to_owned();
                return Err(FormatError::Document { what: format!("chunk {}", entry.id), problem });
            }
            namer.chunk_of_pages(&hashes)
        }
    };
    if found == entry.id {
        return Ok(opened);
    }
    let (expected, found) = (entry.id.to_string(), found.to_string());
    Err(FormatError::WrongHash { what: "chunk", expected, found })
}
