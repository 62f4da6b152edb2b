//! A fleet: what is known of every repository under a place, read from the store alone, and kept up to date by listing what is new.
//!
//! Of a backup a small record is kept and not its manifest, of a stream of binary log its first and its last segment: a thousand servers
//! with 35 backups each take 38 MiB. One repository that cannot be reached or read hides no other: what was
//! known of it stays, and the fault beside it.

mod find;
mod growth;
mod judge;
mod read;
mod record;
mod tables;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, stream};
use tokio::sync::{Mutex, Notify, watch};

pub use find::{Found, find};
pub use growth::{Forecast, MONTH_DAYS, stored_over_time};
pub use judge::{Judged, Judgement, Severity, Standing, Thresholds, judge, judged};
pub use record::{
    BackupRecord, BinlogFigures, Fault, GapRecord, PlanRecord, ProofRecord, Reading, ServerRecord, WindowRecord, gaps,
};
use tables::Tables;
pub use tables::{TableGrowth, TableSizes, TablesError};

use crate::error::Kind;
use crate::format::Manifest;
use crate::model::{BackupId, Clock, Timestamp};
use crate::repository::{Access, Repository, RepositoryError};
use crate::store::{Counts, Store, StoreError};

use read::Reader;

/// Repositories that are read side by side: each has a few requests in flight.
const READING: usize = 16;
/// Seconds between two looks at a repository of a small fleet, unless the operator says otherwise.
const REFRESH_SECONDS: u64 = 60;
/// Further milliseconds for each repository: a look costs five listings, so a thousand cost 17 a second.
const REFRESH_MS_EACH: u64 = 240;
/// Looks after which the place is searched for repositories anew.
const FIND_EVERY: u64 = 10;
/// A repository that cannot be read is looked at more and more rarely, at every 32nd look at last; not so while the store is away, which is
/// back when it is back.
const BACKOFF_MAX: u32 = 5;

/// Opens the place of a fleet.
pub type Opener = Arc<dyn Fn() -> BoxFuture<'static, Result<Store, StoreError>> + Send + Sync>;

/// How a fleet is read.
#[derive(Clone)]
pub struct FleetOptions {
    /// Seconds between two looks at a repository; chosen by the number of repositories when absent.
    pub refresh: Option<Duration>,
    /// Opens sealed repositories, where a key is given.
    pub access: Option<Access>,
    /// Tells the time of looks.
    pub clock: Arc<dyn Clock>,
}

/// The fleet at one moment.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Grows with each change.
    pub revision: u64,
    /// URL of the place.
    pub url: String,
    /// Every repository that was found, by name.
    pub servers: Arc<BTreeMap<String, Arc<ServerRecord>>>,
    /// Those of them that were looked at at least once.
    pub read: u64,
    /// True when the place has been searched to the end.
    pub found: bool,
    /// True when the place has more folders than are looked into.
    pub cut: bool,
    /// Why the place cannot be listed now.
    pub fault: Option<Fault>,
    /// Looks at repositories that went well, and that did not.
    pub looks: (u64, u64),
    /// When anything of this was read last.
    pub at: Option<Timestamp>,
}

/// A fleet; clones are the same one.
#[derive(Clone)]
pub struct Fleet {
    shared: Arc<Shared>,
}

struct Shared {
    url: String,
    /// The place, once it is open.
    place: std::sync::Mutex<Option<Store>>,
    open: Opener,
    options: FleetOptions,
    snapshot: watch::Sender<Arc<Snapshot>>,
    readers: Mutex<BTreeMap<String, Arc<Mutex<Reader>>>>,
    tables: Tables,
    rounds: AtomicU64,
    hurry: Notify,
}

impl Fleet {
    /// The fleet under the place of `store`; nothing is read before [`Fleet::run`].
    pub fn new(store: Store, options: FleetOptions) -> Fleet {
        let url = store.origin().url.clone();
        Fleet::waiting(url, Arc::new(move || futures::future::ready(Ok(store.clone())).boxed()), options)
    }

    /// The fleet under the place `url`, which is opened when it is there, and again when its disk was away.
    pub fn waiting(url: String, open: Opener, options: FleetOptions) -> Fleet {
        let snapshot = Snapshot { url: url.clone(), ..Snapshot::default() };
        let shared = Shared {
            url,
            place: std::sync::Mutex::default(),
            open,
            options,
            snapshot: watch::channel(Arc::new(snapshot)).0,
            readers: Mutex::default(),
            tables: Tables::default(),
            rounds: AtomicU64::new(0),
            hurry: Notify::new(),
        };
        Fleet { shared: Arc::new(shared) }
    }

    /// What is known now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.shared.snapshot.borrow().clone()
    }

    /// Changes with every look that found something new.
    pub fn changes(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.shared.snapshot.subscribe()
    }

    /// Time between two looks at a repository.
    pub fn refresh(&self) -> Duration {
        let each = REFRESH_MS_EACH.saturating_mul(self.snapshot().servers.len() as u64);
        let chosen = Duration::from_secs(REFRESH_SECONDS) + Duration::from_millis(each);
        self.shared.options.refresh.unwrap_or(chosen)
    }

    /// Requests to the store so far.
    pub async fn requests(&self) -> Counts {
        let mut sum = self.opened_place().map_or_else(Counts::default, |store| store.counters().counts());
        for reader in self.shared.readers.lock().await.values() {
            // One that is at work is counted next time.
            let Ok(reader) = reader.try_lock() else { continue };
            let counts = reader.counts();
            sum.gets += counts.gets;
            sum.heads += counts.heads;
            sum.lists += counts.lists;
            sum.errors += counts.errors;
            sum.retries += counts.retries;
            sum.bytes_down += counts.bytes_down;
        }
        sum
    }

    /// Keeps the fleet up to date until `stop` turns true.
    pub async fn run(&self, mut stop: watch::Receiver<bool>) {
        let work = async {
            loop {
                self.look().await;
                tokio::select! {
                    () = tokio::time::sleep(self.refresh()) => {}
                    () = self.shared.hurry.notified() => {}
                }
            }
        };
        tokio::select! {
            () = work => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
    }

    /// Has the next look begin now, or when the present one has ended: somebody knows that there is something new.
    pub fn hurry(&self) {
        self.shared.hurry.notify_one();
    }

    /// Looks once at every repository that is due.
    pub async fn look(&self) {
        let round = self.shared.rounds.fetch_add(1, Ordering::Relaxed);
        let (known, lost) = (self.snapshot(), self.is_lost().await);
        if round.is_multiple_of(FIND_EVERY) || known.servers.is_empty() || known.fault.is_some() || lost {
            self.search(lost).await;
        }
        let due: Vec<(String, Arc<Mutex<Reader>>)> = {
            let snapshot = self.snapshot();
            let readers = self.shared.readers.lock().await;
            let due = |name: &str| {
                let failures = snapshot.servers.get(name).map_or(0, |server| server.wasted_looks());
                round.is_multiple_of(1 << failures.min(BACKOFF_MAX))
            };
            let due = readers.iter().filter(|(name, _)| due(name));
            due.map(|(name, reader)| (name.clone(), reader.clone())).collect()
        };
        let looks = due.into_iter().map(|(name, reader)| {
            let fleet = self.clone();
            let look = async move {
                let now = fleet.shared.options.clock.now();
                let known = fleet.snapshot().servers.get(&name).cloned();
                let seen = reader.lock().await.look(known, now).await;
                (name, seen)
            };
            look.boxed()
        });
        let mut looks = stream::iter(looks).buffer_unordered(READING);
        while let Some((name, record)) = looks.next().await {
            self.note(name, record);
        }
    }

    /// Opens the place, which [`Fleet::run`] does by itself.
    ///
    /// # Errors
    /// When it is not there, or there are no credentials.
    pub async fn open(&self) -> Result<(), StoreError> {
        if self.opened_place().is_none() {
            self.take_place((self.shared.open)().await?).await;
        }
        Ok(())
    }

    fn opened_place(&self) -> Option<Store> {
        self.shared.place.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// True when the place is not open, or its disk is not what it was.
    async fn is_lost(&self) -> bool {
        match self.opened_place() {
            Some(store) => store.is_lost().await,
            None => true,
        }
    }

    /// The place, and what is found in it; opened anew when it is lost.
    async fn find(&self, lost: bool) -> Result<(Store, Found), Fault> {
        let of = |error: StoreError| Fault::of(&error);
        if let Some(store) = self.opened_place().filter(|_| !lost) {
            let found = find(&store).await.map_err(of)?;
            return Ok((store, found));
        }
        let store = (self.shared.open)().await.map_err(of)?;
        let found = find(&store).await.map_err(of)?;
        let known = self.snapshot();
        // The bare directory on which a disk is mounted at other times.
        if !known.servers.is_empty() && !found.paths.iter().any(|path| known.servers.contains_key(&path.join("/"))) {
            let message = format!("{} has none of the repositories that were there", self.shared.url);
            let hint = Some(
                "check that the disk is still mounted; where they were moved away for good, start this anew".to_owned(),
            );
            return Err(Fault { kind: Kind::StorageUnavailable, message, hint });
        }
        self.take_place(store.clone()).await;
        Ok((store, found))
    }

    /// What was open under another place is of no use any more.
    async fn take_place(&self, store: Store) {
        self.shared.readers.lock().await.clear();
        self.shared.snapshot.send_modify(|snapshot| {
            let mut next = Snapshot::clone(snapshot);
            let due =
                |server: &Arc<ServerRecord>| Arc::new(ServerRecord { failures: 0, ..ServerRecord::clone(server) });
            next.servers = Arc::new(next.servers.iter().map(|(name, server)| (name.clone(), due(server))).collect());
            *snapshot = Arc::new(next);
        });
        *self.shared.place.lock().unwrap_or_else(PoisonError::into_inner) = Some(store);
    }

    /// Searches the place for repositories.
    async fn search(&self, lost: bool) {
        let (store, found) = match self.find(lost).await {
            Ok(found) => found,
            Err(fault) => return self.note_fault(fault),
        };
        let known = self.snapshot();
        let mut readers = self.shared.readers.lock().await;
        let mut fresh = Vec::new();
        let mut names = std::collections::BTreeSet::new();
        for path in found.paths {
            let name = path.join("/");
            names.insert(name.clone());
            if readers.contains_key(&name) {
                continue;
            }
            let store = match store.below(&path) {
                Ok(store) => store,
                Err(error) => {
                    fresh.push(ServerRecord::failed(&name, &self.url_of(&name), Fault::of(&error)));
                    continue;
                }
            };
            if !known.servers.contains_key(&name) {
                fresh.push(ServerRecord::waiting(&name, &self.url_of(&name)));
            }
            let reader = Reader::new(store, self.shared.options.access.clone());
            readers.insert(name, Arc::new(Mutex::new(reader)));
        }
        readers.retain(|name, _| names.contains(name));
        drop(readers);
        self.shared.snapshot.send_modify(|snapshot| {
            let mut next = Snapshot::clone(snapshot);
            let mut servers = BTreeMap::clone(&next.servers);
            servers.retain(|name, _| names.contains(name));
            servers.extend(fresh.into_iter().map(|record| (record.name.clone(), Arc::new(record))));
            next.servers = Arc::new(servers);
            (next.found, next.cut, next.fault) = (true, found.cut, None);
            next.revision += 1;
            *snapshot = Arc::new(next.counted());
        });
    }

    fn url_of(&self, name: &str) -> String {
        let url = self.shared.url.trim_end_matches('/');
        if name.is_empty() { url.to_owned() } else { format!("{url}/{name}") }
    }

    fn note_fault(&self, fault: Fault) {
        self.shared.snapshot.send_modify(|snapshot| {
            let mut next = Snapshot::clone(snapshot);
            next.revision += 1;
            next.fault = Some(fault);
            *snapshot = Arc::new(next);
        });
    }

    fn note(&self, name: String, record: ServerRecord) {
        let now = self.shared.options.clock.now();
        self.shared.snapshot.send_modify(|snapshot| {
            let mut next = Snapshot::clone(snapshot);
            if !next.servers.contains_key(&name) {
                return;
            }
            match record.fault {
                None => next.looks.0 += 1,
                Some(_) => next.looks.1 += 1,
            }
            let mut servers = BTreeMap::clone(&next.servers);
            servers.insert(name, Arc::new(record));
            next.servers = Arc::new(servers);
            next.revision += 1;
            next.at = Some(now);
            *snapshot = Arc::new(next.counted());
        });
    }

    /// The manifest of a backup of repository `name`, read anew.
    ///
    /// # Errors
    /// Those of [`Repository::manifest`]; [`RepositoryError::Missing`] when there is no such repository, or it is not opened.
    pub async fn manifest(&self, name: &str, id: &BackupId) -> Result<Manifest, RepositoryError> {
        self.opened(name).await?.manifest(id).await
    }

    /// The tables of a backup, and what it added to each: from memory, where it was asked for before.
    ///
    /// # Errors
    /// When the map cannot be read, or too many are being read.
    pub async fn tables(&self, name: &str, id: &BackupId) -> Result<Arc<TableSizes>, TablesError> {
        let repository = self.opened(name).await?;
        self.shared.tables.of(name, &repository, id).await
    }

    async fn opened(&self, name: &str) -> Result<Arc<Repository>, RepositoryError> {
        let missing = || RepositoryError::Missing { url: self.url_of(name) };
        let reader = self.shared.readers.lock().await.get(name).cloned().ok_or_else(missing)?;
        let repository = reader.lock().await.repository().await?;
        if repository.opens_maps() {
            return Ok(repository);
        }
        Err(RepositoryError::KeyMissing { url: self.url_of(name) })
    }
}

impl Snapshot {
    fn counted(mut self) -> Snapshot {
        self.read = self.servers.values().filter(|server| server.reading != Reading::Waiting).count() as u64;
        self
    }
}

impl Fault {
    fn of(error: &StoreError) -> Fault {
        Fault::of_error(error)
    }
}
