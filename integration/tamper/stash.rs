//! A repository in memory that is changed and put right again, and who notices.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::TryStreamExt;
use haulout::format::{KeySlot, SecretKey, key_of_file};
use haulout::model::{BackupId, Silent, SystemEntropy};
use haulout::repository::{Access, KeySource, ObjectKey, Repository};
use haulout::restore::{Cancel, FetchOptions, Remains, TableChoice, TableName, Watch, fetch_tables};
use haulout::store::{RetryPolicy, Store, StoreOptions};
use haulout::verify::{ReadData, Selection, check};
use object_store::{ObjectStore, ObjectStoreExt, memory::InMemory};

use crate::synthetic::KEY_FILE;

/// All objects of a repository by key.
pub type Objects = BTreeMap<String, Bytes>;

/// Files that came back, by path.
pub type Files = BTreeMap<String, Bytes>;

/// A backup, or a table of it in the schema `shop`.
pub type Restorable = (BackupId, Option<String>);

/// Who noticed a change first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Notice {
    /// Whoever opens the repository.
    Opening,
    /// `check --read-data`.
    Check,
    /// Whoever asks for a backup by its name.
    Name,
    /// Whoever fetches a backup.
    Fetch,
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Notice::Opening => "opening",
            Notice::Check => "check --read-data",
            Notice::Name => "the backup's name",
            Notice::Fetch => "fetch",
        })
    }
}

/// False for objects without which every backup restores: documents of runs that are at an end, and lists of what was damaged.
pub fn is_needed(key: &str) -> bool {
    !matches!(ObjectKey::parse(key), Some(ObjectKey::Lease(_) | ObjectKey::Damage(_)))
}

/// Reads all objects of a store.
pub async fn read(store: &InMemory) -> Objects {
    let mut objects = Objects::new();
    let listed: Vec<_> = store.list(None).try_collect().await.unwrap();
    for object in listed {
        let bytes = store.get(&object.location).await.unwrap().bytes().await.unwrap();
        objects.insert(object.location.to_string(), bytes);
    }
    objects
}

/// Reads all objects below a directory.
pub fn load(directory: &str) -> Objects {
    let mut objects = Objects::new();
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join(directory), "", &mut objects);
    objects
}

fn walk(directory: &Path, prefix: &str, files: &mut BTreeMap<String, Bytes>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let key = format!("{prefix}{}", entry.file_name().to_str().unwrap());
        if entry.path().is_dir() {
            walk(&entry.path(), &format!("{key}/"), files);
        } else {
            files.insert(key, std::fs::read(entry.path()).unwrap().into());
        }
    }
}

/// Has the key of every sealed repository here.
struct KeyFile;

#[async_trait]
impl KeySource for KeyFile {
    async fn key(&self, _: &KeySlot) -> Result<Option<SecretKey>, String> {
        Ok(key_of_file(KEY_FILE).ok())
    }
}

/// A store of its own with all objects, and what is in it.
pub struct Judge<'a> {
    right: &'a Objects,
    is_sealed: bool,
    store: Arc<InMemory>,
    backups: Vec<BackupId>,
}

impl<'a> Judge<'a> {
    /// A store with all `objects`; in it, nothing is wrong.
    pub async fn new(right: &'a Objects) -> Judge<'a> {
        let store = Arc::new(InMemory::new());
        for (key, bytes) in right {
            store.put(&key.as_str().into(), bytes.clone().into()).await.unwrap();
        }
        let is_sealed = right.keys().any(|key| key.starts_with("keys/"));
        let mut judge = Judge { right, is_sealed, store, backups: Vec::new() };
        let repository = judge.open().await.unwrap();
        judge.backups = repository.backup_ids().await.unwrap();
        assert!(judge.backups.len() >= 2);
        assert_eq!(judge.notice(true).await, None, "a whole repository");
        judge
    }

    async fn open(&self) -> Option<Repository> {
        let retry = RetryPolicy { attempts_max: 1, ..RetryPolicy::default() };
        let store = Store::over("memory:///", self.store.clone(), StoreOptions { retry, ..StoreOptions::default() });
        if self.is_sealed {
            let access = Access { keys: Arc::new(KeyFile), entropy: Arc::new(SystemEntropy) };
            return Repository::unlock(store, &access).await.ok();
        }
        Repository::open(store).await.ok()
    }

    /// Who notices when these objects are other, or gone; then all is put right again.
    pub async fn judge(&self, changed: &[(String, Option<Bytes>)]) -> Option<Notice> {
        self.put(changed).await;
        // What no backup needs changes no backup; that it is so, the whole repository has shown.
        let each = changed.iter().any(|(key, _)| is_needed(key));
        let noticed = self.notice(each).await;
        self.put_right(changed).await;
        noticed
    }

    /// Changes or removes objects.
    pub async fn put(&self, changed: &[(String, Option<Bytes>)]) {
        for (key, bytes) in changed {
            match bytes {
                Some(bytes) => drop(self.store.put(&key.as_str().into(), bytes.clone().into()).await.unwrap()),
                None => self.store.delete(&key.as_str().into()).await.unwrap(),
            }
        }
    }

    /// Gives these objects the bytes that they had.
    pub async fn put_right(&self, changed: &[(String, Option<Bytes>)]) {
        for (key, _) in changed {
            self.store.put(&key.as_str().into(), self.right[key].clone().into()).await.unwrap();
        }
    }

    /// Every backup, and every table of each, as it comes back.
    pub async fn all(&self) -> BTreeMap<Restorable, Files> {
        let mut all = BTreeMap::new();
        for id in &self.backups {
            for table in [None, Some("orders"), Some("items")] {
                let what = (id.clone(), table.map(str::to_owned));
                all.insert(what.clone(), self.fetched(&what).await.unwrap());
            }
        }
        all
    }

    /// What a check says can be brought back.
    pub async fn called_whole(&self) -> Vec<Restorable> {
        let repository = self.open().await.unwrap();
        let read = Some(ReadData { percent: 100, seed: 0, part: None });
        let report = check(&repository, &Selection::All, read, &Silent).await.unwrap();
        assert_eq!(report.damaged_backups, report.wrecks.iter().map(|wreck| wreck.backup.clone()).collect::<Vec<_>>());
        let mut whole = Vec::new();
        for id in &self.backups {
            match report.wrecks.iter().find(|wreck| wreck.backup == *id) {
                None => whole.push((id.clone(), None)),
                Some(wreck) if wreck.unreadable => {}
                Some(wreck) => {
                    if wreck.files.is_empty() {
                        whole.push((id.clone(), None));
                    }
                    let manifest = repository.manifest(id).await.unwrap();
                    let lost = wreck.files.iter().map(|file| &**file);
                    let remains = Remains::read(&repository, &manifest, lost).await.unwrap();
                    whole.extend(remains.whole.into_iter().map(|name| (id.clone(), Some(name.table))));
                }
            }
        }
        whole
    }

    /// The files of a backup, or those that one table of it needs; nothing when they cannot be had.
    pub async fn fetched(&self, (id, table): &Restorable) -> Option<Files> {
        let repository = self.open().await?;
        let manifest = repository.manifest(id).await.ok()?;
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("files");
        let watch = Watch { progress: Arc::new(Silent), cancel: Cancel::never() };
        let tables = table.as_ref().map_or(TableChoice::All, |table| {
            TableChoice::These(BTreeSet::from([TableName { schema: "shop".to_owned(), table: table.clone() }]))
        });
        fetch_tables(&repository, &manifest, &tables, &target, FetchOptions::default(), &watch).await.ok()?;
        let mut files = Files::new();
        walk(&target, "", &mut files);
        // Says when it was written.
        files.retain(|path, _| !path.starts_with(".haulout"));
        Some(files)
    }

    async fn notice(&self, each: bool) -> Option<Notice> {
        let Some(repository) = self.open().await else { return Some(Notice::Opening) };
        let read = Some(ReadData { percent: 100, seed: 0, part: None });
        match check(&repository, &Selection::All, read, &Silent).await {
            Ok(report) if report.is_clean() => {}
            _ => return Some(Notice::Check),
        }
        if !each {
            return None;
        }
        for id in &self.backups {
            let alone = Selection::These(BTreeSet::from([id.clone()]));
            match check(&repository, &alone, read, &Silent).await {
                Ok(report) if report.is_clean() => {}
                _ => return Some(Notice::Name),
            }
            if self.fetched(&(id.clone(), None)).await.is_none() {
                return Some(Notice::Fetch);
            }
        }
        None
    }
}
