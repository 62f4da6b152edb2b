//! The tables of a backup, and what it added to each: read from its page map and its parent's when somebody asks, and kept for the next one.

use std::collections::{BTreeMap, HashSet};
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

use lru::LruCache;
use tokio::sync::Semaphore;

use crate::error::{Diagnose, Kind};
use crate::format::Manifest;
use crate::format::map::{
    Content, Extent, FileMap, FilePiece, FileRecord, FileSource, MapRoot, SpaceKey, SpaceMap, SpaceRecord,
};
use crate::model::{BackupId, ChunkId};
use crate::repository::{Repository, RepositoryError};
use crate::restore::{Cancel, Catalogue, RestoreError, table_of};

/// Backups whose tables are remembered: some 100 bytes for each table.
const KEPT: usize = 32;
/// Most tables of a backup that are remembered one by one, the largest; the others are summed up.
const TABLES_MAX: usize = 5000;
/// Maps that are read at the same time: one of a TiB takes some 100 MiB while it is compared.
const READING: usize = 2;
/// Others that may wait for that.
const WAITING: usize = 8;

/// A table of a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableGrowth {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub table: String,
    /// What keeps its rows.
    pub engine: &'static str,
    /// Bytes of its files.
    pub logical_bytes: u64,
    /// Bytes that their chunks take.
    pub stored_bytes: u64,
    /// Bytes of those chunks that the backup before did not have.
    pub added_bytes: u64,
}

/// The tables of a backup.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TableSizes {
    /// Those of users, what was added the most first.
    pub tables: Vec<TableGrowth>,
    /// Tables beyond those that are named.
    pub more: u64,
    /// Everything else: the server's own schemas, system and undo tablespaces, logs, and tables that are not named.
    pub others: (u64, u64, u64),
    /// The backup that it was compared with; what the first one of a repository added is all of it.
    pub compared: Option<BackupId>,
}

/// Why tables cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum TablesError {
    /// The map cannot be read.
    #[error(transparent)]
    Repository(Box<RepositoryError>),
    /// The map cannot be taken apart.
    #[error(transparent)]
    Restore(Box<RestoreError>),
    /// Too many are waiting.
    #[error("too many page maps are being read")]
    Busy,
    /// The thread that read them died.
    #[error("the page map was not read to its end")]
    Abandoned,
}

impl From<RepositoryError> for TablesError {
    fn from(error: RepositoryError) -> TablesError {
        TablesError::Repository(Box::new(error))
    }
}

impl From<RestoreError> for TablesError {
    fn from(error: RestoreError) -> TablesError {
        TablesError::Restore(Box::new(error))
    }
}

impl Diagnose for TablesError {
    fn kind(&self) -> Kind {
        match self {
            TablesError::Repository(error) => error.kind(),
            TablesError::Restore(error) => error.kind(),
            TablesError::Busy | TablesError::Abandoned => Kind::StorageUnavailable,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            TablesError::Repository(error) => error.hint(),
            TablesError::Restore(error) => error.hint(),
            TablesError::Busy | TablesError::Abandoned => Some("try again in a moment".to_owned()),
        }
    }
}

/// Reads tables, and remembers them.
#[derive(Debug)]
pub(super) struct Tables {
    kept: Mutex<LruCache<(String, BackupId), Arc<TableSizes>>>,
    reading: Semaphore,
    waiting: Semaphore,
}

impl Default for Tables {
    fn default() -> Tables {
        let kept = LruCache::new(NonZeroUsize::new(KEPT).unwrap_or(NonZeroUsize::MIN));
        Tables { kept: Mutex::new(kept), reading: Semaphore::new(READING), waiting: Semaphore::new(WAITING) }
    }
}

impl Tables {
    /// Those of a backup.
    pub(super) async fn of(
        &self,
        name: &str,
        repository: &Arc<Repository>,
        id: &BackupId,
    ) -> Result<Arc<TableSizes>, TablesError> {
        let key = (name.to_owned(), id.clone());
        let known = || self.kept.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if let Some(known) = known() {
            return Ok(known);
        }
        let _waits = self.waiting.try_acquire().map_err(|_| TablesError::Busy)?;
        let _reads = self.reading.acquire().await.map_err(|_| TablesError::Busy)?;
        // Another may have asked for the same.
        if let Some(known) = known() {
            return Ok(known);
        }
        // Maps are taken apart on a thread of their own: the others answer requests.
        let (repository, wanted) = (repository.clone(), id.clone());
        let runtime = tokio::runtime::Handle::current();
        let read = tokio::task::spawn_blocking(move || runtime.block_on(read(&repository, &wanted)));
        let sizes = Arc::new(read.await.map_err(|_| TablesError::Abandoned)??);
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).put(key, sizes.clone());
        Ok(sizes)
    }
}

async fn read(repository: &Repository, id: &BackupId) -> Result<TableSizes, TablesError> {
    let manifest = repository.manifest(id).await?;
    let before = before(repository, &manifest).await?;
    let catalogue = Catalogue::read(repository, &manifest, &Cancel::never()).await?;
    let added = added(repository, &manifest, before.as_ref()).await?;
    let added_to =
        |schema: &str, table: &str| added.get(&(schema.to_owned(), table.to_owned())).copied().unwrap_or_default();
    let mut others = (catalogue.others.logical_bytes, catalogue.others.stored_bytes, 0);
    let all_added: u64 = added.values().sum();
    let mut tables = Vec::new();
    for entry in catalogue.tables {
        if entry.name.is_servers() {
            others.0 += entry.logical_bytes;
            others.1 += entry.stored_bytes;
            continue;
        }
        tables.push(TableGrowth {
            added_bytes: added_to(&entry.name.schema, &entry.name.table),
            engine: entry.engine.name(),
            logical_bytes: entry.logical_bytes,
            stored_bytes: entry.stored_bytes,
            schema: entry.name.schema,
            table: entry.name.table,
        });
    }
    tables.sort_by(|one, other| {
        (other.added_bytes, other.logical_bytes, &one.schema, &one.table).cmp(&(
            one.added_bytes,
            one.logical_bytes,
            &other.schema,
            &other.table,
        ))
    });
    let more = tables.len().saturating_sub(TABLES_MAX);
    for left_out in tables.drain(tables.len() - more..) {
        others.0 += left_out.logical_bytes;
        others.1 += left_out.stored_bytes;
    }
    others.2 = all_added - tables.iter().map(|table| table.added_bytes).sum::<u64>();
    Ok(TableSizes { tables, more: more as u64, others, compared: before.map(|before| before.id) })
}

/// The backup that this one is compared with: its parent, or the newest one that was done before it began.
async fn before(repository: &Repository, manifest: &Manifest) -> Result<Option<Manifest>, RepositoryError> {
    let ids = repository.backup_ids().await?;
    let older = ids.into_iter().rfind(|id| *id < manifest.id);
    let Some(id) = manifest.parent.clone().or(older) else { return Ok(None) };
    match repository.manifest(&id).await {
        Ok(before) => Ok(Some(before)),
        // A parent that was pruned: then all is new, and told so.
        Err(RepositoryError::NoBackup { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

type Added = BTreeMap<(String, String), u64>;

/// Bytes of chunks that `before` does not have in the same file, by table; those of no table under two empty texts.
async fn added(
    repository: &Repository,
    manifest: &Manifest,
    before: Option<&Manifest>,
) -> Result<Added, RepositoryError> {
    let root = repository.map_root(manifest).await?;
    let old_root = match before {
        Some(before) => Some(repository.map_root(before).await?),
        None => None,
    };
    let mut added = Added::new();
    let old = old_spaces(repository, old_root.as_ref()).await?;
    for record in repository.map_spaces(&root).await? {
        let bytes = added_to_space(repository, &record, old.get(&record.key)).await?;
        note(&mut added, &record.name, bytes);
    }
    drop(old);
    let old: BTreeMap<String, FileRecord> = match &old_root {
        Some(root) => {
            repository.map_files(root).await?.into_iter().map(|record| (record.path.clone(), record)).collect()
        }
        None => BTreeMap::new(),
    };
    for record in repository.map_files(&root).await? {
        let bytes = added_to_file(repository, &record, old.get(&record.path)).await?;
        note(&mut added, &record.path, bytes);
    }
    Ok(added)
}

fn note(added: &mut Added, path: &str, bytes: u64) {
    let name = table_of(path).map_or_else(Default::default, |name| (name.schema, name.table));
    *added.entry(name).or_default() += bytes;
}

async fn old_spaces(
    repository: &Repository,
    root: Option<&MapRoot>,
) -> Result<BTreeMap<SpaceKey, SpaceRecord>, RepositoryError> {
    let Some(root) = root else { return Ok(BTreeMap::new()) };
    Ok(repository.map_spaces(root).await?.into_iter().map(|record| (record.key, record)).collect())
}

fn chunks(extents: &[Extent]) -> impl Iterator<Item = (ChunkId, u64)> + '_ {
    extents.iter().flat_map(|extent| &extent.pieces).filter_map(|piece| match &piece.content {
        Content::Zero => None,
        Content::Chunk(chunk) => Some((chunk.id, u64::from(chunk.at.stored_bytes))),
    })
}

async fn added_to_space(
    repository: &Repository,
    record: &SpaceRecord,
    old: Option<&SpaceRecord>,
) -> Result<u64, RepositoryError> {
    let (mut fresh, mut known): (Vec<(ChunkId, u64)>, HashSet<ChunkId>) = (Vec::new(), HashSet::new());
    match (&record.map, old.map(|old| &old.map)) {
        (SpaceMap::Blocks(blocks), old) => {
            let old_blocks: &[_] = if let Some(SpaceMap::Blocks(blocks)) = old { blocks } else { &[] };
            let same = |one: &crate::format::map::ExtentBlockRef| {
                old_blocks.iter().any(|other| other.index == one.index && other.block.id == one.block.id)
            };
            for block in blocks.iter().filter(|block| !same(block)) {
                fresh.extend(chunks(&repository.map_extents(record.key, block).await?));
                for old in old_blocks.iter().filter(|old| old.index == block.index) {
                    known.extend(chunks(&repository.map_extents(record.key, old).await?).map(|(id, _)| id));
                }
            }
            if let Some(SpaceMap::Inline(extents)) = old {
                known.extend(chunks(extents).map(|(id, _)| id));
            }
        }
        (SpaceMap::Inline(extents), old) => {
            fresh.extend(chunks(extents));
            match old {
                Some(SpaceMap::Inline(extents)) => known.extend(chunks(extents).map(|(id, _)| id)),
                Some(SpaceMap::Blocks(blocks)) => {
                    for block in blocks.iter().take(1) {
                        known.extend(chunks(&repository.map_extents(record.key, block).await?).map(|(id, _)| id));
                    }
                }
                None => {}
            }
        }
    }
    Ok(sum_of_new(fresh, &known))
}

fn file_chunks(pieces: &[FilePiece]) -> impl Iterator<Item = (ChunkId, u64)> + '_ {
    pieces.iter().filter_map(|piece| match &piece.source {
        FileSource::Zero => None,
        FileSource::Chunk { id, at, .. } => Some((*id, u64::from(at.stored_bytes))),
    })
}

async fn added_to_file(
    repository: &Repository,
    record: &FileRecord,
    old: Option<&FileRecord>,
) -> Result<u64, RepositoryError> {
    let pieces = |record: &FileRecord| {
        let map = record.map.clone();
        async move {
            match map {
                FileMap::Inline(pieces) => Ok(file_chunks(&pieces).collect::<Vec<_>>()),
                FileMap::Blocks(blocks) => {
                    let mut all = Vec::new();
                    for block in &blocks {
                        all.extend(file_chunks(&repository.map_file_pieces(block).await?));
                    }
                    Ok::<_, RepositoryError>(all)
                }
            }
        }
    };
    if old.is_some_and(|old| old.map == record.map) {
        return Ok(0);
    }
    let known = match old {
        Some(old) => pieces(old).await?.into_iter().map(|(id, _)| id).collect(),
        None => HashSet::new(),
    };
    Ok(sum_of_new(pieces(record).await?, &known))
}

/// Bytes of the chunks that are not `known`, each counted once.
fn sum_of_new(fresh: Vec<(ChunkId, u64)>, known: &HashSet<ChunkId>) -> u64 {
    let mut seen = HashSet::new();
    fresh.into_iter().filter(|(id, _)| !known.contains(id) && seen.insert(*id)).map(|(_, bytes)| bytes).sum()
}
