//! Reads one repository: all of it at first, then what listings show to be new.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::{FutureExt, StreamExt, TryStreamExt, stream};

use super::record::{BackupRecord, BinlogFigures, Fault, PlanRecord, ProofRecord, Reading, ServerRecord, WindowRecord};
use crate::error::{Diagnose, Kind};
use crate::model::{BackupId, PlanId, ProofId, StreamId, Timestamp};
use crate::repository::{
    Access, BinlogHistory, PruneState, Repository, RepositoryError, RestorePoint, StoredBackup, StoredProof,
    StreamDigest,
};
use crate::store::{Counts, Store};

/// Backups of one repository that are kept in mind, the newest.
const BACKUPS_MAX: usize = 2000;
/// Proofs of one repository that are read, the newest.
const PROOFS_MAX: usize = 60;
/// Plans of one repository that are read, the newest.
const PLANS_MAX: usize = 20;
/// Documents of one repository that are read at the same time.
const DOCUMENTS_IN_FLIGHT: usize = 4;
/// Looks after which all of the binary log is listed anew: what a prune took away from the beginning is seen then.
const DIGEST_EVERY: u64 = 60;

/// Reads one repository.
pub(super) struct Reader {
    store: Store,
    access: Option<Access>,
    repository: Option<Arc<Repository>>,
    looks: u64,
    streams: BTreeMap<StreamId, StreamDigest>,
    proofs: BTreeMap<ProofId, ProofRecord>,
    plans: BTreeMap<PlanId, PlanRecord>,
}

impl Reader {
    pub(super) fn new(store: Store, access: Option<Access>) -> Reader {
        let (streams, proofs, plans) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Reader { store, access, repository: None, looks: 0, streams, proofs, plans }
    }

    /// Requests so far.
    pub(super) fn counts(&self) -> Counts {
        self.store.counters().counts()
    }

    /// The repository, opened with the key where one is given that fits, and else as far as that needs none.
    pub(super) async fn repository(&mut self) -> Result<Arc<Repository>, RepositoryError> {
        if let Some(repository) = &self.repository {
            return Ok(repository.clone());
        }
        let opened = match &self.access {
            Some(access) => match Repository::unlock(self.store.clone(), access).await {
                // The key is another server's. One that could not be asked for is told as a fault.
                Err(RepositoryError::WrongKey { faults, .. }) if faults.is_empty() => {
                    Repository::open_as_stored(self.store.clone()).await
                }
                opened => opened,
            },
            None => match Repository::open(self.store.clone()).await {
                Err(error) if error.kind() == Kind::WrongKey => Repository::open_as_stored(self.store.clone()).await,
                opened => opened,
            },
        };
        let opened = Arc::new(opened?);
        // One that no key has opened may get a slot for it.
        if self.access.is_none() || opened.opens_maps() {
            self.repository = Some(opened.clone());
        }
        Ok(opened)
    }

    /// What is known after another look; `known` is what was known before it.
    pub(super) async fn look(&mut self, known: Option<Arc<ServerRecord>>, now: Timestamp) -> ServerRecord {
        let waiting = || Arc::new(ServerRecord::waiting("", &self.store.origin().url));
        let known = known.unwrap_or_else(waiting);
        match self.read(&known).await {
            Ok(record) => ServerRecord { read_at: Some(now), ..record },
            Err(error) => {
                // Another repository may stand in its place.
                if matches!(error.kind(), Kind::NoRepository | Kind::Corrupt | Kind::WrongKey) {
                    self.repository = None;
                }
                let reading = if known.read_at.is_some() { known.reading } else { Reading::Failed };
                let (fault, failures) = (Some(Fault::of_error(&error)), known.failures.saturating_add(1));
                ServerRecord { fault, failures, reading, ..ServerRecord::clone(&known) }
            }
        }
    }

    async fn read(&mut self, known: &ServerRecord) -> Result<ServerRecord, RepositoryError> {
        let repository = self.repository().await?;
        let opens = repository.opens_maps();
        let stored = repository.stored_backups().await?;
        let mut record = ServerRecord::waiting(&known.name, &known.url);
        record.sealed = repository.config().is_sealed();
        record.reading = if opens { Reading::Read } else { Reading::Sealed };
        if opens {
            backups(&repository, stored, known, &mut record).await?;
        } else {
            record.listed = Arc::new(stored.into_iter().map(|stored| stored.id).collect());
        }
        record.proofs = Arc::new(self.read_proofs(&repository, opens).await?);
        let prune = repository.prune_state().await?;
        if opens {
            record.plans = self.read_plans(&repository, &prune).await?;
            let damage = repository.known_damage().await?;
            record.damaged_packs = damage.packs.len() as u64 + damage.more;
            self.digest(&repository).await?;
            record.binlogs = self.figures();
            record.windows = self.windows(&record);
        }
        self.looks += 1;
        Ok(record)
    }

    async fn read_proofs(
        &mut self,
        repository: &Arc<Repository>,
        opens: bool,
    ) -> Result<Vec<ProofRecord>, RepositoryError> {
        let mut stored = repository.stored_proofs().await?;
        stored.sort_by(|one, other| other.id.cmp(&one.id));
        stored.truncate(PROOFS_MAX);
        if !opens {
            return Ok(stored.into_iter().map(|stored| unknown_proof(stored, None)).collect());
        }
        let fresh: Vec<StoredProof> =
            stored.iter().filter(|stored| !self.proofs.contains_key(&stored.id)).cloned().collect();
        let reads = fresh.into_iter().map(|stored| {
            let repository = repository.clone();
            let read = async move {
                let read = repository.read_proof(&stored).await?;
                Ok::<_, RepositoryError>((stored, read))
            };
            read.boxed()
        });
        let reads: Vec<_> = stream::iter(reads).buffered(DOCUMENTS_IN_FLIGHT).try_collect().await?;
        for (stored, read) in reads {
            let record = match read {
                Some(Ok(proof)) => ProofRecord::of(&proof),
                Some(Err(error)) => unknown_proof(stored.clone(), Some(error.to_string())),
                None => continue,
            };
            self.proofs.insert(stored.id.clone(), record);
        }
        let there: std::collections::BTreeSet<&ProofId> = stored.iter().map(|stored| &stored.id).collect();
        self.proofs.retain(|id, _| there.contains(id));
        Ok(self.proofs.values().rev().cloned().collect())
    }

    async fn read_plans(
        &mut self,
        repository: &Repository,
        state: &PruneState,
    ) -> Result<Vec<PlanRecord>, RepositoryError> {
        let pending: Vec<_> = state.pending().map(|(id, plan)| (id.clone(), plan.clone())).collect();
        let mut plans = Vec::new();
        for (id, plan) in pending.into_iter().rev().take(PLANS_MAX) {
            let Some(stored) = plan.stored else { continue };
            let mut record = match self.plans.get(&id) {
                Some(known) => known.clone(),
                None => match repository.prune_plan(&id).await {
                    Ok(plan) => PlanRecord::of(&plan, stored),
                    Err(RepositoryError::Store(error)) if !error.is_not_found() => return Err(error.into()),
                    Err(_) => {
                        PlanRecord { id: id.clone(), stored, due: None, begun: false, backups: Vec::new(), bytes: 0 }
                    }
                },
            };
            self.plans.insert(id, record.clone());
            record.begun = plan.begun.is_some();
            record.backups.retain(|backup| state.kept(backup).is_none_or(|kept| kept < stored));
            plans.push(record);
        }
        plans.reverse();
        self.plans.retain(|id, _| plans.iter().any(|plan| plan.id == *id));
        Ok(plans)
    }

    async fn digest(&mut self, repository: &Repository) -> Result<(), RepositoryError> {
        let ids = repository.binlog_stream_ids().await?;
        let whole = self.looks.is_multiple_of(DIGEST_EVERY);
        // Nobody adds to a stream behind which a later one was begun, but for the run that was just ending.
        let live = ids.len().saturating_sub(2);
        let mut streams = BTreeMap::new();
        for (place, id) in ids.iter().enumerate() {
            let known = self.streams.get(id).filter(|_| !whole);
            let digest = match known {
                Some(known) if place < live => known.clone(),
                known => repository.digest_stream(id, known).await?,
            };
            streams.insert(id.clone(), digest);
        }
        self.streams = streams;
        Ok(())
    }

    fn figures(&self) -> BinlogFigures {
        let digests = self.streams.values();
        BinlogFigures {
            streams: self.streams.len() as u64,
            segments: digests.clone().map(|digest| digest.segments).sum(),
            bytes: digests.clone().map(|digest| digest.bytes).sum(),
            last: digests.clone().flat_map(|digest| &digest.parts).map(|part| part.last.last_time).max(),
            damaged: digests.map(|digest| digest.damaged.len() as u64).sum(),
        }
    }

    fn windows(&self, record: &ServerRecord) -> Vec<WindowRecord> {
        let parts = self.streams.values().flat_map(|digest| digest.parts.iter().cloned()).collect();
        let points: Vec<RestorePoint> = record.backups.iter().filter_map(BackupRecord::restore_point).collect();
        BinlogHistory::of(parts).windows_from(&points).iter().map(WindowRecord::of).collect()
    }
}

fn unknown_proof(stored: StoredProof, problem: Option<String>) -> ProofRecord {
    ProofRecord {
        id: stored.id,
        backup: stored.backup,
        finished: stored.stored,
        passed: None,
        problem,
        rto_ms: None,
        tables: (0, 0),
        host: String::new(),
    }
}

/// Reads the manifests that are new, or of a new edition.
async fn backups(
    repository: &Arc<Repository>,
    mut stored: Vec<StoredBackup>,
    known: &ServerRecord,
    record: &mut ServerRecord,
) -> Result<(), RepositoryError> {
    record.left_out = stored.len().saturating_sub(BACKUPS_MAX) as u64;
    stored.drain(..record.left_out as usize);
    let remembered: BTreeMap<BackupId, BackupRecord> =
        known.backups.iter().map(|backup| (backup.id.clone(), backup.clone())).collect();
    let mut backups: Vec<BackupRecord> = Vec::with_capacity(stored.len());
    let reads = stored.into_iter().map(|stored| {
        let edition = stored.editions.last().map_or(0, |(edition, _)| *edition);
        let known = remembered.get(&stored.id).filter(|known| known.edition == edition).cloned();
        let repository = repository.clone();
        let read = async move {
            if let Some(known) = known {
                return Ok((stored.id, Some(Ok(known))));
            }
            let manifest = repository.manifest_of(&stored).await?;
            // The record alone is kept: a manifest takes ten times as much.
            let record = manifest.map(|read| read.map(|manifest| BackupRecord::of(&manifest)));
            Ok::<_, RepositoryError>((stored.id, record))
        };
        read.boxed()
    });
    let mut reads = stream::iter(reads).buffered(DOCUMENTS_IN_FLIGHT);
    while let Some((id, read)) = reads.try_next().await? {
        match read {
            Some(Ok(mut backup)) => {
                if let Some(before) = backups.last().filter(|before| before.server == backup.server) {
                    backup.server = before.server.clone();
                }
                backups.push(backup);
            }
            Some(Err(error)) => record.unread.push((id, error.to_string())),
            // A prune took it away between the listing and the read.
            None => {}
        }
    }
    drop(reads);
    record.backups = Arc::new(backups);
    Ok(())
}
