//! Fills data packs, and stores packs while the next are being filled.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use tokio::task::JoinSet;

use crate::format::map::{Location, PackRef};
use crate::format::pack::{self, FinishedPack, NewChunk, PackBuilder, PackKind, finish_apart};
use crate::format::{Encoding, FormatError, Keyring};
use crate::model::{PackId, Phase, Progress};
use crate::repository::{PutOutcome, Repository, RepositoryError};

/// Packs on their way at the same time: some 16 MiB each.
const UPLOADS_MAX: usize = 4;

/// Stores packs.
pub(super) struct Uploads {
    repository: Arc<Repository>,
    progress: Arc<dyn Progress>,
    tasks: JoinSet<Result<Option<PackId>, RepositoryError>>,
    /// Packs that a check found damaged, whose names no new one takes.
    damaged: BTreeSet<PackId>,
    /// Packs handed over.
    pub written: HashSet<PackId>,
    /// Their bytes.
    pub bytes: u64,
    /// Those of them that were there already: of runs that died, and of any age.
    pub found: Vec<PackId>,
}

impl Uploads {
    /// Nothing is on its way yet; no pack is to take the name of one that is `damaged`.
    pub fn new(repository: Arc<Repository>, progress: Arc<dyn Progress>, damaged: BTreeSet<PackId>) -> Uploads {
        let (tasks, written) = (JoinSet::new(), HashSet::new());
        Uploads { repository, progress, damaged, tasks, written, bytes: 0, found: Vec::new() }
    }

    /// How a pack is finished.
    ///
    /// # Errors
    /// When its directory cannot be compressed.
    pub fn finish_pack(&self, pack: PackBuilder, kind: PackKind) -> Result<FinishedPack, FormatError> {
        if self.damaged.is_empty() {
            return pack.finish();
        }
        let namer = self.repository.namer();
        Ok(finish_apart(pack, kind, namer, |id| self.damaged.contains(id))?.0)
    }

    /// Hands a pack over; waits while too many are on their way.
    ///
    /// # Errors
    /// When one that was handed over before could not be stored.
    pub async fn put(&mut self, pack: FinishedPack) -> Result<(), RepositoryError> {
        while self.tasks.len() >= UPLOADS_MAX {
            self.wait().await?;
        }
        if self.written.insert(pack.id) {
            self.bytes += pack.bytes.len() as u64;
        }
        let (repository, progress) = (self.repository.clone(), self.progress.clone());
        self.tasks.spawn(async move {
            let (id, bytes) = (pack.id, Bytes::from(pack.bytes));
            let length = bytes.len() as u64;
            let outcome = repository.put_pack(id, bytes).await?;
            progress.advance(Phase::Upload, length);
            Ok((outcome == PutOutcome::AlreadyThere).then_some(id))
        });
        Ok(())
    }

    /// Waits until all that was handed over is stored.
    ///
    /// # Errors
    /// When something could not be.
    pub async fn finish(&mut self) -> Result<(), RepositoryError> {
        while !self.tasks.is_empty() {
            self.wait().await?;
        }
        Ok(())
    }

    async fn wait(&mut self) -> Result<(), RepositoryError> {
        match self.tasks.join_next().await {
            None => {}
            Some(Ok(stored)) => self.found.extend(stored?),
            Some(Err(panic)) => std::panic::resume_unwind(panic.into_panic()),
        }
        Ok(())
    }
}

/// Where a chunk came to lie among the packs that are being filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Placed {
    /// Number of the pack.
    pub pack: u32,
    /// First byte in it.
    pub offset: u32,
    /// Number of bytes in it.
    pub stored_bytes: u32,
}

/// Data packs that are being filled, and sealed where the repository is.
pub(super) struct DataPacks {
    keyring: Keyring,
    builder: PackBuilder,
    finished: Vec<PackRef>,
}

impl DataPacks {
    /// Begins an empty pack.
    ///
    /// # Errors
    /// When the key for it is not known.
    pub fn new(keyring: &Keyring) -> Result<DataPacks, FormatError> {
        let builder = keyring.new_pack(PackKind::Data)?;
        Ok(DataPacks { keyring: keyring.clone(), builder, finished: Vec::new() })
    }

    /// Puts a chunk, which is not sealed, into the pack that is being filled.
    ///
    /// # Errors
    /// When a pack that was full could not be stored.
    pub async fn add(&mut self, chunk: &NewChunk<'_>, uploads: &mut Uploads) -> Result<Placed, RepositoryError> {
        if self.builder.is_full() {
            self.close(uploads).await?;
        }
        let pack::Placed { offset, stored_bytes } = self.builder.add(chunk);
        Ok(Placed { pack: self.finished.len() as u32, offset, stored_bytes })
    }

    /// Closes the pack whatever it holds; from then on [`DataPacks::name`] knows all names.
    ///
    /// # Errors
    /// When it could not be stored.
    pub async fn close(&mut self, uploads: &mut Uploads) -> Result<(), RepositoryError> {
        if self.builder.is_empty() {
            return Ok(());
        }
        let filled = std::mem::replace(&mut self.builder, self.keyring.new_pack(PackKind::Data)?);
        let finished = uploads.finish_pack(filled, PackKind::Data)?;
        self.finished.push(PackRef { id: finished.id, bytes: finished.bytes.len() as u32 });
        uploads.put(finished).await
    }

    /// The location of what was placed, stored as it was before; nothing for a pack that is still being filled.
    pub fn name(&self, placed: Placed, encoding: Encoding) -> Option<Location> {
        let Placed { pack, offset, stored_bytes } = placed;
        Some(Location { pack: *self.finished.get(pack as usize)?, offset, stored_bytes, encoding })
    }
}
