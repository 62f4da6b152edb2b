//! Reads packs and proves that every chunk in them is what its name says.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use tokio::sync::Semaphore;

use super::VerifyError;
use super::error::{chain, damage};
use super::tour::{ChunkKind, ChunkRef, Visitor};
use crate::format::map::PackRef;
use crate::format::pack::{self, PackEntry, PackKind};
use crate::format::{FormatError, Namer};
use crate::model::{PackId, Phase, Progress};
use crate::repository::Repository;

/// Bytes of packs in memory at the same time: two packs of usual size, and room for large ones.
const IN_FLIGHT_BYTES: u64 = 48 << 20;
/// What one permit of the budget stands for.
const PERMIT_BYTES: u64 = 1 << 20;
/// Packs read at the same time, where the budget allows.
const PACKS_AHEAD: usize = 8;
/// References that are held at the same time: 36 MiB of table; those of a larger repository are checked in several turns.
const REFERENCES_MAX: usize = 1_800_000;

/// Sixteen hexadecimal digits' worth of a reference: two different ones agree in none of a million repositories.
pub(super) type Fingerprint = u64;

/// Sums up all that a map says of a chunk and that a pack's directory must say too.
pub(super) fn fingerprint(chunk: &ChunkRef) -> Fingerprint {
    let (kind, pages) = match chunk.kind {
        ChunkKind::Pages(pages) => (1u8, pages),
        ChunkKind::File => (2, 0),
        ChunkKind::Map => (3, 0),
    };
    let mut hasher = blake3::Hasher::new();
    hasher.update(&chunk.pack.id.0).update(&chunk.id.0).update(&[kind, chunk.encoding.to_byte()]);
    for figure in [chunk.offset, chunk.stored_bytes, chunk.raw_bytes, pages] {
        hasher.update(&figure.to_le_bytes());
    }
    let mut first = [0; 8];
    first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    u64::from_le_bytes(first)
}

/// Gathers references to packs whose names lie in a range, as wide as memory allows.
#[derive(Debug)]
pub(super) struct References {
    /// Names by their first 32 bits.
    range: Range<u64>,
    /// Each with the first 32 bits of its pack's name.
    found: HashMap<Fingerprint, u32>,
    max: usize,
}

/// The first 32 bits of a pack's name.
pub(super) fn prefix(pack: PackId) -> u32 {
    u32::from_be_bytes([pack.0[0], pack.0[1], pack.0[2], pack.0[3]])
}

impl References {
    /// Begins at `start`.
    pub fn from(start: u64) -> References {
        References { range: start..1 << 32, found: HashMap::new(), max: REFERENCES_MAX }
    }

    #[cfg(test)]
    pub fn with_max(self, max: usize) -> References {
        References { max, ..self }
    }

    /// Names whose references are all here.
    pub fn range(&self) -> Range<u64> {
        self.range.clone()
    }

    /// Takes away a reference that the pack's directory has; what stays is in no directory.
    pub fn resolve(&mut self, fingerprint: Fingerprint) {
        self.found.remove(&fingerprint);
    }

    /// Forgets references to packs of which more is wrong.
    pub fn forget(&mut self, packs: &[PackId]) {
        let forgotten: std::collections::HashSet<u32> = packs.iter().map(|pack| prefix(*pack)).collect();
        self.found.retain(|_, pack| !forgotten.contains(pack));
    }

    /// References that were not resolved.
    pub fn rest(self) -> impl Iterator<Item = Fingerprint> {
        self.found.into_keys()
    }
}

/// Chooses references while a tour goes on.
pub(super) struct Gather<'a> {
    /// What was gathered.
    pub references: References,
    /// Whether a pack is to be read.
    pub chosen: &'a dyn Fn(PackId) -> bool,
}

impl Visitor for Gather<'_> {
    fn chunk(&mut self, _: &str, chunk: &ChunkRef) -> Option<usize> {
        let references = &mut self.references;
        let pack = prefix(chunk.pack.id);
        if !references.range.contains(&u64::from(pack)) || !(self.chosen)(chunk.pack.id) {
            return None;
        }
        references.found.insert(fingerprint(chunk), pack);
        while references.found.len() > references.max && references.range.end - references.range.start > 1 {
            let Range { start, end } = references.range;
            references.range = start..start + (end - start) / 2;
            references.found.retain(|_, pack| references.range.contains(&u64::from(*pack)));
        }
        None
    }
}

/// What reading a pack told.
pub(super) struct PackResult {
    /// The pack.
    pub pack: PackId,
    /// Bytes that were read.
    pub bytes: u64,
    /// Fingerprints of all chunks that are right, or what is wrong with the pack.
    pub chunks: Result<Vec<Fingerprint>, String>,
}

/// Reads `packs` and gives each result to `tell`.
///
/// # Errors
/// When the store does not answer.
pub(super) async fn read_packs(
    repository: &Repository,
    packs: Vec<PackRef>,
    progress: &dyn Progress,
    mut tell: impl FnMut(PackResult),
) -> Result<(), VerifyError> {
    let budget = Arc::new(Semaphore::new((IN_FLIGHT_BYTES / PERMIT_BYTES) as usize));
    let reads = packs.into_iter().map(|pack| read_pack(repository, pack, budget.clone(), progress));
    let mut results = futures::stream::iter(reads).buffer_unordered(PACKS_AHEAD);
    while let Some(result) = results.try_next().await? {
        tell(result);
    }
    Ok(())
}

async fn read_pack(
    repository: &Repository,
    pack: PackRef,
    budget: Arc<Semaphore>,
    progress: &dyn Progress,
) -> Result<PackResult, VerifyError> {
    let permits = u64::from(pack.bytes).div_ceil(PERMIT_BYTES).clamp(1, IN_FLIGHT_BYTES / PERMIT_BYTES);
    // The semaphore is never closed.
    let _permits = budget.acquire_many(permits as u32).await.ok();
    let bytes = match repository.read_pack(pack.id).await {
        Ok(bytes) => bytes,
        Err(error) => return Ok(PackResult { pack: pack.id, bytes: 0, chunks: Err(damage(error)?) }),
    };
    let length = bytes.len() as u64;
    let namer = repository.namer().clone();
    let chunks = tokio::task::spawn_blocking(move || check_pack(pack, &bytes, &namer)).await?;
    progress.advance(Phase::Check, length);
    let chunks = chunks.map_err(|error| chain(&error));
    Ok(PackResult { pack: pack.id, bytes: length, chunks })
}

/// Proves a pack and all chunks in it.
fn check_pack(pack: PackRef, bytes: &[u8], namer: &Namer) -> Result<Vec<Fingerprint>, FormatError> {
    let parsed = pack::parse_pack(pack.id, bytes)?;
    parsed.entries.iter().map(|entry| check_chunk(pack, parsed.kind, entry, bytes, namer)).collect()
}

fn check_chunk(
    pack: PackRef,
    pack_kind: PackKind,
    entry: &PackEntry,
    bytes: &[u8],
    namer: &Namer,
) -> Result<Fingerprint, FormatError> {
    let PackEntry { id, offset, stored_bytes, raw_bytes, encoding, ref sums } = *entry;
    let damaged = |problem: String| FormatError::Document { what: format!("chunk {id}"), problem };
    let range = offset as usize..offset as usize + stored_bytes as usize;
    let stored = bytes.get(range).ok_or_else(|| damaged("it lies outside its pack".to_owned()))?;
    let raw = pack::decompress("chunk", encoding, stored, raw_bytes as usize)?;
    let (kind, found) = match (pack_kind, sums.len()) {
        (PackKind::Map, _) => (ChunkKind::Map, namer.map_block(&raw)),
        (PackKind::Data, 0) => (ChunkKind::File, namer.chunk_of_file(&raw)),
        (PackKind::Data, pages) => {
            let page_bytes = raw.len() / pages;
            if page_bytes == 0 || page_bytes * pages != raw.len() {
                return Err(damaged(format!("{} bytes are not {pages} pages", raw.len())));
            }
            let hashes = namer.pages(&raw, page_bytes);
            if !hashes.iter().map(|hash| hash.sum()).eq(sums.iter().copied()) {
                return Err(damaged("the sums of its pages are wrong".to_owned()));
            }
            (ChunkKind::Pages(pages as u32), namer.chunk_of_pages(&hashes))
        }
    };
    if found != id {
        return Err(FormatError::WrongHash { what: "chunk", expected: id.to_string(), found: found.to_string() });
    }
    Ok(fingerprint(&ChunkRef { pack, id, offset, stored_bytes, raw_bytes, encoding, kind }))
}
