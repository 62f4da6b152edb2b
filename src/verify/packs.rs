//! Reads packs and proves that every chunk in them is what its name says, and its pages what the maps say of them.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use futures::{StreamExt, TryStreamExt};
use tokio::sync::Semaphore;

use super::error::{chain, damage};
use super::pages::{Header, PageFault, Place, check_pages};
use super::tour::{ChunkKind, ChunkRef, Mark, Visitor};
use super::{Tally, VerifyError};
use crate::format::map::PackRef;
use crate::format::pack::{self, PackEntry, PackKind};
use crate::format::{FormatError, Keyring, StoredChunk};
use crate::model::{PackId, Phase, Progress};
use crate::repository::Repository;

/// Bytes of packs in memory at the same time: two packs of usual size, and room for large ones.
const IN_FLIGHT_BYTES: u64 = 48 << 20;
/// What one permit of the budget stands for.
const PERMIT_BYTES: u64 = 1 << 20;
/// Packs read at the same time, where the budget allows.
const PACKS_AHEAD: usize = 8;
/// References that are held at the same time: 36 MiB of table, and what is needed at several places besides; those of a
/// larger repository are checked in several turns.
const REFERENCES_MAX: usize = 450_000;

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
    found: HashMap<Fingerprint, Reference>,
    /// Further places of chunks that are needed at several, or by several backups with several pages of them.
    more: HashMap<Fingerprint, Vec<Place>>,
    /// What is said of the tablespace whose page 0 a chunk holds.
    headers: HashMap<Fingerprint, Vec<Header>>,
    held: usize,
    max: usize,
}

#[derive(Debug)]
struct Reference {
    /// The first 32 bits of the pack's name.
    pack: u32,
    place: Option<Place>,
}

/// All that maps say of a chunk's pages.
#[derive(Debug, Default)]
struct Wanted {
    places: Vec<Place>,
    headers: Vec<Header>,
}

/// The first 32 bits of a pack's name.
pub(super) fn prefix(pack: PackId) -> u32 {
    u32::from_be_bytes([pack.0[0], pack.0[1], pack.0[2], pack.0[3]])
}

impl References {
    /// Begins at `start`.
    pub fn from(start: u64) -> References {
        let (found, more, headers) = (HashMap::new(), HashMap::new(), HashMap::new());
        References { range: start..1 << 32, found, more, headers, held: 0, max: REFERENCES_MAX }
    }

    #[cfg(test)]
    pub fn with_max(self, max: usize) -> References {
        References { max, ..self }
    }

    /// Names whose references are all here.
    pub fn range(&self) -> Range<u64> {
        self.range.clone()
    }

    fn add(&mut self, chunk: &ChunkRef, place: Option<&Place>) {
        let (name, pack) = (fingerprint(chunk), prefix(chunk.pack.id));
        let known = self.found.entry(name).or_insert_with(|| {
            self.held += 1;
            Reference { pack, place: place.copied() }
        });
        let Some(place) = place else { return };
        let further = self.more.get(&name).into_iter().flatten();
        if known.place.iter().chain(further).any(|known| known.covers(place)) {
            return;
        }
        self.held += 1;
        self.more.entry(name).or_default().push(*place);
    }

    fn add_header(&mut self, chunk: &ChunkRef, header: &Header) {
        let name = fingerprint(chunk);
        let known = self.headers.entry(name).or_default();
        if !known.contains(header) {
            self.held += 1;
            known.push(*header);
        }
    }

    /// Lets go of the upper half of the range until the rest fits.
    fn fit(&mut self) {
        while self.held > self.max && self.range.end - self.range.start > 1 {
            let Range { start, end } = self.range;
            self.range = start..start + (end - start) / 2;
            let References { range, found, more, headers, .. } = self;
            found.retain(|_, reference| range.contains(&u64::from(reference.pack)));
            more.retain(|name, _| found.contains_key(name));
            headers.retain(|name, _| found.contains_key(name));
            self.held = found.len() + more.values().map(Vec::len).sum::<usize>();
            self.held += headers.values().map(Vec::len).sum::<usize>();
        }
    }

    /// Takes away a reference that the pack's directory has; what stays is in no directory.
    fn resolve(&mut self, name: Fingerprint) -> Wanted {
        let Some(reference) = self.found.remove(&name) else { return Wanted::default() };
        let further = self.more.remove(&name).unwrap_or_default();
        let places = reference.place.into_iter().chain(further).collect();
        Wanted { places, headers: self.headers.remove(&name).unwrap_or_default() }
    }

    /// Forgets references to packs of which more is wrong.
    pub fn forget(&mut self, packs: &[PackId]) {
        let forgotten: std::collections::HashSet<u32> = packs.iter().map(|pack| prefix(*pack)).collect();
        self.found.retain(|_, reference| !forgotten.contains(&reference.pack));
    }

    /// References that were not resolved.
    pub fn rest(&mut self) -> impl Iterator<Item = Fingerprint> {
        std::mem::take(&mut self.found).into_keys()
    }
}

/// Chooses references while a tour goes on.
pub(super) struct Gather<'a> {
    /// What was gathered.
    pub references: References,
    /// Whether a pack is to be read.
    pub chosen: &'a dyn Fn(PackId) -> bool,
}

impl Gather<'_> {
    fn wants(&self, chunk: &ChunkRef) -> bool {
        self.references.range.contains(&u64::from(prefix(chunk.pack.id))) && (self.chosen)(chunk.pack.id)
    }
}

impl Visitor for Gather<'_> {
    fn chunk(&mut self, _: &str, chunk: &ChunkRef, place: Option<&Place>, _: &mut Vec<Mark>) {
        if self.wants(chunk) {
            self.references.add(chunk, place);
            self.references.fit();
        }
    }

    fn header(&mut self, _: &str, chunk: &ChunkRef, header: &Header, _: &mut Vec<Mark>) {
        if self.wants(chunk) {
            self.references.add_header(chunk, header);
            self.references.fit();
        }
    }
}

/// What reading a pack told.
pub(super) struct PackResult {
    /// The pack.
    pub pack: PackId,
    /// Bytes that were read.
    pub bytes: u64,
    /// What its chunks told, or what is wrong with the pack.
    pub found: Result<PackFinding, String>,
}

/// What the pages of a pack that is right told.
#[derive(Debug, Default)]
pub(super) struct PackFinding {
    /// Pages that were checked.
    pub pages: u64,
    /// Chunks that were not opened, because the key opens no data: all that is proven of them is the pack's hash.
    pub unopened: Tally,
    /// Pages that are not what maps say, by the chunk.
    pub faults: Vec<(ChunkRef, PageFault)>,
    /// What is wrong with the pack, where that leaves some of its chunks as they were. References to the others stay.
    pub changed: Option<String>,
}

/// Reads `packs`, resolves what `references` has of them and gives each result to `tell`.
///
/// # Errors
/// When the store does not answer.
pub(super) async fn read_packs(
    repository: &Repository,
    packs: Vec<PackRef>,
    references: &Arc<Mutex<References>>,
    progress: &dyn Progress,
    mut tell: impl FnMut(PackResult),
) -> Result<(), VerifyError> {
    let budget = Arc::new(Semaphore::new((IN_FLIGHT_BYTES / PERMIT_BYTES) as usize));
    let reads = packs.into_iter().map(|pack| read_pack(repository, pack, budget.clone(), references.clone(), progress));
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
    references: Arc<Mutex<References>>,
    progress: &dyn Progress,
) -> Result<PackResult, VerifyError> {
    let permits = u64::from(pack.bytes).div_ceil(PERMIT_BYTES).clamp(1, IN_FLIGHT_BYTES / PERMIT_BYTES);
    // The semaphore is never closed.
    let _permits = budget.acquire_many(permits as u32).await.ok();
    let bytes = match repository.read_pack(pack.id).await {
        Ok(bytes) => bytes,
        Err(error) => return Ok(PackResult { pack: pack.id, bytes: 0, found: Err(damage(error)?) }),
    };
    let length = bytes.len() as u64;
    let keyring = repository.keyring().clone();
    let found = tokio::task::spawn_blocking(move || check_pack(pack, &bytes, &keyring, &references)).await?;
    progress.advance(Phase::Check, length);
    let found = found.map_err(|error| chain(&error));
    Ok(PackResult { pack: pack.id, bytes: length, found })
}

/// Proves a pack and all chunks in it, and those of their pages that are needed.
fn check_pack(
    pack: PackRef,
    bytes: &[u8],
    keyring: &Keyring,
    references: &Mutex<References>,
) -> Result<PackFinding, FormatError> {
    let mut finding = PackFinding::default();
    let parsed = match pack::parse_pack(pack.id, bytes, keyring) {
        Err(error @ FormatError::WrongHash { .. }) => {
            // What a key does not open cannot be told from what was changed.
            let parsed = pack::parse_changed_pack(bytes, keyring).ok().filter(|_| keyring.opens_data());
            let Some(parsed) = parsed else { return Err(error) };
            finding.changed = Some(chain(&error));
            parsed
        }
        parsed => parsed?,
    };
    if parsed.kind == PackKind::Data && !keyring.opens_data() {
        let mut references = references.lock().unwrap_or_else(PoisonError::into_inner);
        for entry in &parsed.entries {
            references.resolve(fingerprint(&unopened(pack, entry)));
            finding.unopened.objects += 1;
            finding.unopened.bytes += u64::from(entry.stored_bytes);
        }
        return Ok(finding);
    }
    let mut room = Vec::new();
    for entry in &parsed.entries {
        let (chunk, raw) = match check_chunk(pack, parsed.kind, entry, bytes, keyring, &mut room) {
            Err(_) if finding.changed.is_some() => continue,
            checked => checked?,
        };
        let wanted = references.lock().unwrap_or_else(PoisonError::into_inner).resolve(fingerprint(&chunk));
        let mut faults = Vec::new();
        finding.pages += check_pages(raw, &wanted.places, &wanted.headers, &mut faults);
        finding.faults.extend(faults.into_iter().map(|fault| (chunk, fault)));
    }
    Ok(finding)
}

/// A chunk of data as the directory speaks of it, whatever it holds.
fn unopened(pack: PackRef, entry: &PackEntry) -> ChunkRef {
    let PackEntry { id, offset, stored_bytes, raw_bytes, encoding, ref sums } = *entry;
    let kind = if sums.is_empty() { ChunkKind::File } else { ChunkKind::Pages(sums.len() as u32) };
    ChunkRef { pack, id, offset, stored_bytes, raw_bytes, encoding, kind }
}

fn check_chunk<'a>(
    pack: PackRef,
    pack_kind: PackKind,
    entry: &PackEntry,
    bytes: &'a [u8],
    keyring: &Keyring,
    room: &'a mut Vec<u8>,
) -> Result<(ChunkRef, &'a [u8]), FormatError> {
    let PackEntry { id, offset, stored_bytes, raw_bytes, encoding, ref sums } = *entry;
    let damaged = |problem: String| FormatError::Document { what: format!("chunk {id}"), problem };
    let range = offset as usize..offset as usize + stored_bytes as usize;
    let stored = bytes.get(range).ok_or_else(|| damaged("it lies outside its pack".to_owned()))?;
    let chunk = StoredChunk { kind: pack_kind, id, offset, encoding, raw_bytes };
    let raw = keyring.open_chunk_in("chunk", &chunk, stored, room)?;
    let namer = keyring.namer();
    let (kind, found) = match (pack_kind, sums.len()) {
        (PackKind::Map, _) => (ChunkKind::Map, namer.map_block(raw)),
        (PackKind::Data, 0) => (ChunkKind::File, namer.chunk_of_file(raw)),
        (PackKind::Data, pages) => {
            let page_bytes = raw.len() / pages;
            if page_bytes == 0 || page_bytes * pages != raw.len() {
                return Err(damaged(format!("{} bytes are not {pages} pages", raw.len())));
            }
            let hashes = namer.pages(raw, page_bytes);
            if !hashes.iter().map(|hash| hash.sum()).eq(sums.iter().copied()) {
                return Err(damaged("the sums of its pages are wrong".to_owned()));
            }
            (ChunkKind::Pages(pages as u32), namer.chunk_of_pages(&hashes))
        }
    };
    if found != id {
        return Err(FormatError::WrongHash { what: "chunk", expected: id.to_string(), found: found.to_string() });
    }
    Ok((ChunkRef { pack, id, offset, stored_bytes, raw_bytes, encoding, kind }, raw))
}
