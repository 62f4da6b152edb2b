//! A repository: the history of one server in a store.
//!
//! Everything is written once. The order of writing is packs, then map packs, then the manifest, whose arrival is the
//! backup; a run that dies before leaves packs that nobody refers to.

mod binlogs;
mod blocks;
mod cold;
mod copying;
mod damage;
mod digest;
mod editions;
mod error;
mod history;
mod keys;
mod lease;
mod locks;
mod maps;
mod process;
mod proofs;
mod pruning;
mod recover;
mod references;
mod sample;
mod slots;
mod timeline;

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::TryStreamExt;
use lru::LruCache;

pub use binlogs::{SegmentReader, SegmentRoom, SegmentWriter, StoredSegment, StoredStream, WrittenSegment};
pub use cold::{Care, Cold, ColdObject, Wanted, Wishes};
pub use copying::StoredManifest;
pub use damage::{Findings, KnownDamage};
pub use digest::StreamDigest;
pub use editions::{Editions, StoredBackup};
pub use error::RepositoryError;
pub use history::History;
pub use keys::{LeaseKey, ObjectKey, PruneKey, SegmentKey};
pub use lease::{LEASE_RENEW_SECONDS, LEASE_SECONDS, LeaseGuard};
pub use locks::{Deadlines, Extension, LOCK_MARGIN_SECONDS};
pub use process::ProcessIdentity;
pub use proofs::{ReadProof, StoredProof};
pub use pruning::{PlanState, PlannedPacks, PruneState};
pub use recover::{BroughtBack, FOLDERS, Loss, Verdict};
pub use references::References;
pub use slots::{Access, KeySource, Leftover, Locked, LockedObject};
pub use timeline::{BinlogHistory, Join, Leg, RestorePoint, StreamPart, Window, leg_of, position_of};

use crate::format::map::{BlockRef, PackRef, PageChunk};
use crate::format::pack::{FOOTER_BYTES, FinishedPack, PACK_BYTES_MAX, PackEntry, PackFooter, PackKind};
use crate::format::{
    Config, DOCUMENT_BYTES_MAX, Document, DocumentPlace, FormatError, Keyring, Manifest, Namer, PageSum, StoredChunk,
    decode_document, encode_document,
};
use crate::model::{BackupId, Clock, Entropy, LockPolicy, PackId, RepositoryId, SlotId, Timestamp};
pub use crate::store::PutOutcome;
use crate::store::{Key, Store, StoreError};

/// Documents read at the same time: enough that a thousand manifests take seconds, few enough for any store.
const DOCUMENTS_IN_FLIGHT: usize = 16;
/// Pack directories kept in memory: some 100 KiB each.
const DIRECTORIES_KEPT: usize = 128;
/// Bytes read from the end of a pack at first: the footer and, mostly, the whole directory.
pub const PACK_TAIL_BYTES: u64 = 128 << 10;

/// An opened repository.
pub struct Repository {
    store: Store,
    config: Config,
    keyring: Keyring,
    /// The key slot that it was opened with, where it is sealed.
    slot: Option<SlotId>,
    /// The lock of what is put.
    locks: Option<LockPolicy>,
    /// By name and size: whoever lists a pack with another size must not take the directory that it had for the one it has.
    directories: Mutex<LruCache<PackRef, Arc<Vec<PackEntry>>>>,
}

impl std::fmt::Debug for Repository {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Repository").field("config", &self.config).finish_non_exhaustive()
    }
}

/// A pack that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredPack {
    /// Its size in bytes.
    pub bytes: u64,
    /// When it was stored, by the store's clock.
    pub stored: Timestamp,
}

fn store_key(key: &ObjectKey) -> Result<Key, StoreError> {
    Key::new(key.text())
}

/// True when there are manifests.
async fn holds_backups(store: &Store) -> Result<bool, RepositoryError> {
    let folder = Key::new(ObjectKey::BACKUPS)?;
    let mut objects = store.list(Some(&folder));
    while let Some(object) = objects.try_next().await? {
        if matches!(ObjectKey::parse(object.key.as_str()), Some(ObjectKey::Manifest(_) | ObjectKey::Edition(..))) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Refuses a place that holds a repository, or what is left of one.
async fn refuse_existing(store: &Store) -> Result<(), RepositoryError> {
    // Read rather than looked at: a missing bucket is told from a missing object only so.
    match store.get(&store_key(&ObjectKey::Config)?, DOCUMENT_BYTES_MAX).await {
        Ok(_) => return Err(RepositoryError::Exists { url: store.origin().url.clone() }),
        Err(error) if error.is_not_found() => {}
        Err(error) => return Err(error.into()),
    }
    if holds_backups(store).await? {
        return Err(RepositoryError::Headless { url: store.origin().url.clone() });
    }
    Ok(())
}

async fn put_config(store: &Store, config: &Config) -> Result<(), RepositoryError> {
    match store.put(&store_key(&ObjectKey::Config)?, Bytes::from(encode_document(config)?)).await {
        Ok(_) => Ok(()),
        Err(StoreError::AlreadyExists { .. }) => Err(RepositoryError::Exists { url: store.origin().url.clone() }),
        Err(error) => Err(error.into()),
    }
}

async fn read_config(store: &Store) -> Result<Config, RepositoryError> {
    let key = ObjectKey::Config;
    let bytes = match store.get(&store_key(&key)?, DOCUMENT_BYTES_MAX).await {
        Ok(bytes) => bytes,
        Err(error) if error.is_not_found() => {
            let url = store.origin().url.clone();
            let headless = holds_backups(store).await?;
            return Err(if headless { RepositoryError::Headless { url } } else { RepositoryError::Missing { url } });
        }
        Err(error) => return Err(error.into()),
    };
    let head = |source| RepositoryError::Head { url: store.origin().url.clone(), source };
    decode_document(&key.text(), &bytes).map_err(head)
}

/// What `init` writes.
fn new_config(seal: &str, lock: Option<LockPolicy>, clock: &dyn Clock, entropy: &dyn Entropy) -> Config {
    let mut id = [0; 16];
    entropy.fill(&mut id);
    Config { repository_id: RepositoryId(id), created: clock.now().whole_seconds(), seal: seal.to_owned(), lock }
}

impl Repository {
    /// Makes a repository in an empty place that is not sealed.
    ///
    /// # Errors
    /// [`RepositoryError::Exists`] when there is one already.
    pub async fn init(store: Store, clock: &dyn Clock, entropy: &dyn Entropy) -> Result<Repository, RepositoryError> {
        Repository::create(store, None, clock, entropy).await
    }

    async fn create(
        store: Store,
        lock: Option<LockPolicy>,
        clock: &dyn Clock,
        entropy: &dyn Entropy,
    ) -> Result<Repository, RepositoryError> {
        refuse_existing(&store).await?;
        put_config(&store, &new_config(Config::SEAL_NONE, lock, clock, entropy)).await?;
        Repository::open(store).await
    }

    /// Opens the repository in `store`, which must not be sealed.
    ///
    /// # Errors
    /// [`RepositoryError::Missing`] when there is none; [`RepositoryError::KeyMissing`] when it is sealed; a format error when it is
    /// damaged or of a later format.
    pub async fn open(store: Store) -> Result<Repository, RepositoryError> {
        let config = read_config(&store).await?;
        if config.is_sealed() {
            return Err(RepositoryError::KeyMissing { url: store.origin().url.clone() });
        }
        Ok(Repository::with(store, config, Keyring::plain(), None))
    }

    fn with(store: Store, config: Config, keyring: Keyring, slot: Option<SlotId>) -> Repository {
        let directories = LruCache::new(NonZeroUsize::new(DIRECTORIES_KEPT).unwrap_or(NonZeroUsize::MIN));
        let locks = config.lock.filter(|policy| store.lock_puts(*policy));
        Repository { store, config, keyring, slot, locks, directories: Mutex::new(directories) }
    }

    /// What `init` wrote.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Until when an object is locked, at least, that was put at `stored`; nothing where objects are not locked.
    pub fn locked_until(&self, stored: Timestamp) -> Option<Timestamp> {
        self.locks.map(|policy| policy.retention(stored).until)
    }

    /// The store beneath.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// How chunks of this repository are named.
    pub fn namer(&self) -> &Namer {
        self.keyring.namer()
    }

    /// Names, seals and opens what is stored.
    pub fn keyring(&self) -> &Keyring {
        &self.keyring
    }

    /// Refuses a key that opens no pages and files, before anything is done that needs them.
    ///
    /// # Errors
    /// [`RepositoryError::MapKeyOnly`].
    pub fn needs_data_key(&self) -> Result<(), RepositoryError> {
        if self.keyring.opens_data() { Ok(()) } else { Err(RepositoryError::MapKeyOnly) }
    }

    /// Names of all backups, oldest first.
    ///
    /// # Errors
    /// When the store cannot list.
    pub async fn backup_ids(&self) -> Result<Vec<BackupId>, RepositoryError> {
        Ok(self.backups_stored().await?.into_iter().map(|(id, _)| id).collect())
    }

    /// Names of all backups, oldest first, and when each came to be by the store's clock: when the oldest edition of its manifest that is
    /// there was stored.
    ///
    /// # Errors
    /// When the store cannot list.
    pub async fn backups_stored(&self) -> Result<Vec<(BackupId, Timestamp)>, RepositoryError> {
        let stored = self.stored_backups().await?.into_iter();
        Ok(stored.filter_map(|StoredBackup { id, editions }| Some((id, editions.first()?.1))).collect())
    }

    /// The backup that `text` names: `latest`, an id, or the beginning of one.
    ///
    /// # Errors
    /// [`RepositoryError::NoBackup`] or [`RepositoryError::Ambiguous`].
    pub async fn find(&self, text: &str) -> Result<BackupId, RepositoryError> {
        let ids = self.backup_ids().await?;
        let none = || RepositoryError::NoBackup { id: text.to_owned() };
        if text == "latest" {
            return ids.into_iter().next_back().ok_or_else(none);
        }
        let mut fitting: Vec<_> = ids.into_iter().filter(|id| id.as_str().starts_with(text)).collect();
        match fitting.len() {
            1 => fitting.pop().ok_or_else(none),
            0 => Err(none()),
            count => Err(RepositoryError::Ambiguous { text: text.to_owned(), count }),
        }
    }

    /// Stores a manifest: from here on the backup, or this edition of it, exists.
    ///
    /// # Errors
    /// When the manifest breaks its own invariants, or cannot be stored.
    pub async fn commit(&self, manifest: &Manifest, parent: Option<&Manifest>) -> Result<(), RepositoryError> {
        manifest.check(parent)?;
        self.put_document(&ObjectKey::edition(&manifest.id, manifest.edition), manifest).await
    }

    /// Stores a document, sealed where the repository is.
    ///
    /// # Errors
    /// When it cannot be sealed or stored.
    pub async fn put_document<D: Document>(&self, key: &ObjectKey, document: &D) -> Result<(), RepositoryError> {
        let bytes = self.document_place(&key.text()).encode(document)?;
        self.store.put(&store_key(key)?, Bytes::from(bytes)).await?;
        Ok(())
    }

    /// The document stored as `key`, opened where the repository is sealed.
    ///
    /// # Errors
    /// What the store says, that there is none among it; or what is wrong with the document, such as that it is too long for one.
    pub async fn get_document<D: Document>(&self, key: &ObjectKey) -> Result<D, RepositoryError> {
        self.decode_document(key, &self.document_bytes(key).await?)
    }

    /// The bytes that are stored as `key`, which are at most those of a document.
    ///
    /// # Errors
    /// When it cannot be read; one that is too long is damaged.
    async fn document_bytes(&self, key: &ObjectKey) -> Result<Bytes, RepositoryError> {
        match self.store.get(&store_key(key)?, DOCUMENT_BYTES_MAX).await {
            Ok(bytes) => Ok(bytes),
            Err(StoreError::TooLarge { expected, found, .. }) => {
                let problem = format!("it has {found} bytes, and at most {expected} are read");
                Err(FormatError::Document { what: key.text(), problem }.into())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The document that `bytes`, which are stored as `key`, hold.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn decode_document<D: Document>(&self, key: &ObjectKey, bytes: &[u8]) -> Result<D, RepositoryError> {
        Ok(self.document_place(&key.text()).decode(bytes)?)
    }

    fn document_place<'a>(&'a self, key: &'a str) -> DocumentPlace<'a> {
        DocumentPlace { keyring: &self.keyring, repository_id: self.config.repository_id, key }
    }

    /// Stores a pack and confirms its size. Other bytes that are there under its name are damaged, and make room for the right ones.
    ///
    /// # Errors
    /// When it cannot be stored, is found to be there with another size, or damaged and not to be replaced.
    pub async fn put_pack(&self, id: PackId, bytes: Bytes) -> Result<PutOutcome, RepositoryError> {
        let key = store_key(&ObjectKey::Pack(id))?;
        let expected = bytes.len() as u64;
        let outcome = match self.store.put(&key, bytes.clone()).await {
            Err(StoreError::AlreadyExists { .. }) => {
                self.mend_pack(id, bytes).await?;
                PutOutcome::Stored
            }
            outcome => outcome?,
        };
        let found = self.store.head(&key).await?.size;
        if found != expected {
            return Err(RepositoryError::PackSize { pack: id, expected, found });
        }
        Ok(outcome)
    }

    /// Puts the bytes of a pack in the place of damaged ones.
    ///
    /// # Errors
    /// [`RepositoryError::NotMended`] when the store refuses; those of space and availability.
    pub async fn mend_pack(&self, id: PackId, bytes: Bytes) -> Result<(), RepositoryError> {
        match self.store.mend(&store_key(&ObjectKey::Pack(id))?, bytes).await {
            Err(source @ (StoreError::AlreadyExists { .. } | StoreError::Denied { .. })) => {
                Err(RepositoryError::NotMended { pack: id, source: Box::new(source) })
            }
            mended => Ok(mended?),
        }
    }

    /// Remembers the directory of a pack that was just made, so that it need not be read back.
    pub fn remember(&self, pack: &FinishedPack) {
        let Ok(bytes) = u32::try_from(pack.bytes.len()) else { return };
        self.keep_directory(PackRef { id: pack.id, bytes }, Arc::new(pack.entries.clone()));
    }

    /// Every pack that is there.
    ///
    /// # Errors
    /// When the store cannot list.
    pub async fn packs(&self) -> Result<HashMap<PackId, StoredPack>, RepositoryError> {
        let mut packs = HashMap::new();
        let mut objects = self.store.list(Some(&Key::new(ObjectKey::PACKS)?));
        while let Some(object) = objects.try_next().await? {
            if let Some(ObjectKey::Pack(id)) = ObjectKey::parse(object.key.as_str()) {
                packs.insert(id, StoredPack { bytes: object.size, stored: object.last_modified });
            }
        }
        Ok(packs)
    }

    /// Bytes `range` of a pack, unchecked.
    ///
    /// # Errors
    /// [`RepositoryError::PackMissing`], [`RepositoryError::PackCut`], or what the store says, which is then no damage.
    pub async fn read_range(&self, pack: PackId, range: Range<u64>) -> Result<Bytes, RepositoryError> {
        let damaged = |error: StoreError| match error {
            error if error.is_not_found() => RepositoryError::PackMissing { pack },
            StoreError::Truncated { expected: needed, found, .. } => RepositoryError::PackCut { pack, needed, found },
            error => RepositoryError::Store(error),
        };
        self.store.get_range(&store_key(&ObjectKey::Pack(pack))?, range).await.map_err(damaged)
    }

    /// A whole pack of `bytes` bytes, unchecked.
    ///
    /// # Errors
    /// [`RepositoryError::PackMissing`], [`RepositoryError::PackSize`], or what the store says.
    pub async fn read_pack(&self, pack: PackId) -> Result<Bytes, RepositoryError> {
        match self.store.get(&store_key(&ObjectKey::Pack(pack))?, PACK_BYTES_MAX).await {
            Ok(bytes) => Ok(bytes),
            Err(error) if error.is_not_found() => Err(RepositoryError::PackMissing { pack }),
            Err(error) => Err(error.into()),
        }
    }

    /// A map block, checked against its name.
    ///
    /// # Errors
    /// When it is not there or damaged.
    pub async fn read_block(&self, block: &BlockRef) -> Result<Vec<u8>, RepositoryError> {
        let start = u64::from(block.at.offset);
        let stored = self.read_range(block.at.pack.id, start..start + u64::from(block.at.stored_bytes)).await?;
        self.open_block(block, &stored)
    }

    /// The bytes of a map block from its stored bytes, checked against its name.
    ///
    /// # Errors
    /// When they are damaged.
    pub fn open_block(&self, block: &BlockRef, stored: &[u8]) -> Result<Vec<u8>, RepositoryError> {
        let damaged = |source| RepositoryError::Pack { pack: block.at.pack.id, source };
        let chunk = StoredChunk {
            kind: PackKind::Map,
            id: block.id,
            offset: block.at.offset,
            encoding: block.at.encoding,
            raw_bytes: block.raw_bytes,
        };
        let raw = self.keyring.open_chunk("map block", &chunk, stored).map_err(damaged)?;
        let found = self.namer().map_block(&raw);
        if found == block.id {
            return Ok(raw);
        }
        let (expected, found) = (block.id.to_string(), found.to_string());
        Err(damaged(FormatError::WrongHash { what: "map block", expected, found }))
    }

    /// The sums of the pages of `chunk`, from its pack's directory, in the chunk's order.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub async fn page_sums(&self, chunk: &PageChunk) -> Result<Option<Vec<PageSum>>, RepositoryError> {
        let directory = self.directory(chunk.at.pack).await?;
        let entry = directory.binary_search_by_key(&chunk.at.offset, |entry| entry.offset).ok();
        let entry = entry.map(|place| &directory[place]).filter(|entry| entry.id == chunk.id);
        Ok(entry.map(|entry| entry.sums.clone()).filter(|sums| sums.len() == chunk.pages.len() as usize))
    }

    /// The directory of a pack, in the order of offsets.
    ///
    /// # Errors
    /// When it cannot be read or is damaged.
    pub async fn directory(&self, pack: PackRef) -> Result<Arc<Vec<PackEntry>>, RepositoryError> {
        if let Some(known) = lock(&self.directories).get(&pack) {
            return Ok(known.clone());
        }
        let size = u64::from(pack.bytes);
        let damaged = |source| RepositoryError::Pack { pack: pack.id, source };
        let tail_start = size.saturating_sub(PACK_TAIL_BYTES);
        let tail = self.read_range(pack.id, tail_start..size).await?;
        let footer_at = tail.len().saturating_sub(FOOTER_BYTES);
        let footer = PackFooter::parse(&tail[footer_at..], size).map_err(damaged)?;
        let range = footer.directory_range();
        let stored = if range.start >= tail_start {
            tail.slice((range.start - tail_start) as usize..(range.end - tail_start) as usize)
        } else {
            self.read_range(pack.id, range).await?
        };
        let directory = Arc::new(footer.parse_directory(&stored, &self.keyring).map_err(damaged)?);
        self.keep_directory(pack, directory.clone());
        Ok(directory)
    }

    /// True when the directory of a pack is in memory, and asking for it costs no request.
    pub fn has_directory(&self, pack: PackRef) -> bool {
        lock(&self.directories).contains(&pack)
    }

    fn keep_directory(&self, pack: PackRef, directory: Arc<Vec<PackEntry>>) {
        lock(&self.directories).put(pack, directory);
    }
}

/// Nothing panics while it holds one of these locks; what is behind them is a cache.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
