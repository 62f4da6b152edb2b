use std::sync::Arc;

use object_store::{ObjectStoreExt, memory::InMemory};

use super::*;
use crate::error::Kind;
use crate::format::{BackupKind, LsnRange, manifest_example, proof_example};
use crate::model::{Lsn, SystemClock, SystemEntropy};
use crate::store::faulty::{Fault as Trouble, FaultyStore, Rule, Script};
use crate::store::{RetryPolicy, StoreOptions, StoreUrl};

const BEGIN: u32 = 1_795_348_800;

pub(crate) fn moment(second: i64) -> Timestamp {
    Timestamp::from_seconds(BEGIN).after(second)
}

/// A backup that was done `second` seconds after the tests' time began.
pub(crate) fn backup(second: i64) -> BackupRecord {
    BackupRecord {
        id: BackupId::new(moment(second), &SystemEntropy),
        edition: 0,
        kind: BackupKind::Full,
        parent: None,
        depth: 0,
        started: moment(second - 60),
        finished: moment(second),
        lsn: LsnRange { from: Lsn(0), start: Lsn(10), to: Lsn(20), last: Lsn(30) },
        logical_bytes: 4 << 30,
        stream_bytes: 4 << 30,
        uploaded_bytes: 1 << 30,
        stored_bytes: 1 << 30,
        redo_bytes: 1 << 20,
        position: None,
        warnings: 0,
        server: Arc::new(("db1".to_owned(), "10.11.19-MariaDB".to_owned())),
    }
}

pub(crate) fn proof(second: i64, passed: bool) -> ProofRecord {
    ProofRecord {
        id: format!("{}-aaaaaa", moment(second).compact()).parse().unwrap(),
        backup: backup(0).id,
        finished: moment(second),
        passed: Some(passed),
        problem: (!passed).then(|| "the bank is bankrupt".to_owned()),
        rto_ms: Some(120_000),
        tables: (10, 0),
        host: "drill1".to_owned(),
    }
}

pub(crate) fn window(from: i64, to: i64) -> WindowRecord {
    let last_backup = None;
    WindowRecord { from: moment(from), to: moment(to), backups: 1, last_backup, gap: None, gtid: "0-1-9".to_owned() }
}

/// A server of which all is well at `moment(0)`.
pub(crate) fn server(name: &str) -> ServerRecord {
    ServerRecord {
        reading: Reading::Read,
        read_at: Some(moment(0)),
        backups: Arc::new(vec![backup(-3600)]),
        proofs: Arc::new(vec![proof(-1800, true)]),
        ..ServerRecord::waiting(name, &format!("s3://bucket/{name}"))
    }
}

fn fault(kind: Kind) -> Fault {
    Fault { kind, message: "the store says no".to_owned(), hint: None }
}

/// Servers, one of each standing.
pub(crate) fn one_of_each() -> Vec<(Standing, ServerRecord)> {
    let day = 86_400;
    let with = |change: &dyn Fn(&mut ServerRecord)| {
        let mut record = server("db");
        change(&mut record);
        record
    };
    vec![
        (Standing::Unreadable, ServerRecord::failed("db", "s3://bucket/db", fault(Kind::Corrupt))),
        (Standing::NoBackup, with(&|record| record.backups = Arc::default())),
        (Standing::Damaged, with(&|record| record.damaged_packs = 2)),
        (Standing::TooOld, with(&|record| record.backups = Arc::new(vec![backup(-2 * day)]))),
        (Standing::ProofFailed, with(&|record| record.proofs = Arc::new(vec![proof(-10, false), proof(-20, true)]))),
        (Standing::Gap, with(&|record| record.windows = vec![window(-3 * day, -2 * day), window(-day, 0)])),
        (Standing::Unreachable, with(&|record| record.fault = Some(fault(Kind::StorageUnavailable)))),
        (Standing::Unproven, with(&|record| record.proofs = Arc::new(vec![proof(-40 * day, true)]))),
        (Standing::Sealed, with(&|record| record.reading = Reading::Sealed)),
        (Standing::Waiting, ServerRecord::waiting("db", "s3://bucket/db")),
        (Standing::Fine, server("db")),
    ]
}

#[test]
fn every_standing_is_told_and_the_worst_comes_first() {
    let thresholds = Thresholds::default();
    let each = one_of_each();
    for (standing, record) in &each {
        assert_eq!(judge(record, &thresholds, moment(0)).standing, *standing, "{standing:?}");
    }
    let named = each
        .iter()
        .rev()
        .enumerate()
        .map(|(number, (_, record))| Arc::new(ServerRecord { name: format!("db{number:02}"), ..record.clone() }));
    let servers: Vec<_> = named.collect();
    let order: Vec<Standing> =
        judged(&servers, &thresholds, moment(0)).iter().map(|(_, judgement)| judgement.standing).collect();
    assert_eq!(order, Standing::ALL);
    assert!(Standing::ALL.windows(2).all(|pair| pair[0].severity() <= pair[1].severity()));
}

#[test]
fn of_several_complaints_the_worst_counts_and_the_others_are_told() {
    let mut record = server("db");
    record.backups = Arc::new(vec![backup(-3 * 86_400)]);
    record.proofs = Arc::default();
    record.fault = Some(fault(Kind::StorageUnavailable));
    let judgement = judge(&record, &Thresholds::default(), moment(0));
    assert_eq!(judgement.standing, Standing::TooOld);
    let also: Vec<_> = judgement.also.iter().map(|(standing, _)| *standing).collect();
    assert_eq!(also, [Standing::Unreachable, Standing::Unproven]);
    let later = judge(&record, &Thresholds::default(), moment(2 * 3600));
    assert!(later.also[0].1.starts_with("what is known of it is 2h00m old: "), "{:?}", later.also);
}

#[test]
fn thresholds_decide_to_the_second() {
    let mut record = server("db");
    let of = |record: &ServerRecord, thresholds: Thresholds| judge(record, &thresholds, moment(0)).standing;
    let thresholds = Thresholds { backup_age_max: 3600, ..Thresholds::default() };
    assert_eq!(of(&record, thresholds), Standing::Fine);
    assert_eq!(of(&record, Thresholds { backup_age_max: 3599, ..thresholds }), Standing::TooOld);
    assert_eq!(of(&record, Thresholds { proof_age_max: Some(1799), ..thresholds }), Standing::Unproven);
    record.proofs = Arc::default();
    assert_eq!(of(&record, Thresholds { proof_age_max: None, ..thresholds }), Standing::Fine);
    record.windows = vec![window(-900, -800), window(-700, -600)];
    assert_eq!(of(&record, Thresholds { proof_age_max: None, gap_within: 701, ..thresholds }), Standing::Gap);
    assert_eq!(of(&record, Thresholds { proof_age_max: None, gap_within: 600, ..thresholds }), Standing::Fine);
}

#[test]
fn an_idle_server_whose_newest_backup_lies_in_its_window_has_no_gap() {
    let mut record = server("db");
    let mut idle = window(-9 * 86_400, -8 * 86_400);
    record.windows = vec![idle.clone()];
    assert_eq!(judge(&record, &Thresholds::default(), moment(0)).standing, Standing::Gap);
    idle.last_backup = Some(record.backups[0].id.clone());
    record.windows = vec![idle];
    assert_eq!(judge(&record, &Thresholds::default(), moment(0)).standing, Standing::Fine);
}

async fn put_backup(repository: &Repository, second: i64) -> BackupId {
    let mut manifest = manifest_example();
    manifest.repository_id = repository.config().repository_id;
    manifest.id = BackupId::new(moment(second), &SystemEntropy);
    (manifest.started, manifest.finished) = (moment(second), moment(second + 60));
    repository.commit(&manifest, None).await.unwrap();
    manifest.id
}

async fn fleet_of(names: &[&str]) -> (Arc<InMemory>, Fleet, Vec<Repository>) {
    let objects = Arc::new(InMemory::new());
    let store = Store::over("memory://fleet", objects.clone(), StoreOptions::default());
    let mut repositories = Vec::new();
    for name in names {
        let path: Vec<String> = name.split('/').map(str::to_owned).collect();
        let repository = Repository::init(store.below(&path).unwrap(), &SystemClock, &SystemEntropy).await.unwrap();
        put_backup(&repository, 0).await;
        repositories.push(repository);
    }
    let options = FleetOptions { refresh: None, access: None, clock: Arc::new(SystemClock) };
    (objects, Fleet::new(store, options), repositories)
}

#[tokio::test]
async fn a_fleet_is_found_read_and_kept_up_to_date_by_what_is_new() {
    let (_, fleet, repositories) = fleet_of(&["eu/db1", "eu/db2", "us/db3"]).await;
    fleet.look().await;
    let snapshot = fleet.snapshot();
    assert_eq!((snapshot.servers.len(), snapshot.read, snapshot.found), (3, 3, true));
    let gets = fleet.requests().await.gets;
    fleet.look().await;
    assert_eq!(fleet.requests().await.gets, gets, "a look that finds nothing new reads nothing");
    let newer = put_backup(&repositories[1], 3600).await;
    let mut proof = proof_example();
    (proof.repository_id, proof.backup) = (repositories[1].config().repository_id, newer.clone());
    repositories[1].put_proof(&proof).await.unwrap();
    fleet.look().await;
    let server = fleet.snapshot().servers["eu/db2"].clone();
    assert_eq!(server.newest().unwrap().id, newer);
    assert_eq!(server.last_proof().unwrap().id, proof.id);
    assert_eq!(fleet.requests().await.gets, gets + 2, "the new manifest and the new proof");
    assert_eq!(fleet.manifest("eu/db2", &newer).await.unwrap().id, newer);
}

#[tokio::test]
async fn whoever_knows_of_something_new_need_not_wait_for_the_next_look() {
    let (_, fleet, repositories) = fleet_of(&["db1"]).await;
    let (_go_on, stop) = watch::channel(false);
    let reading = tokio::spawn({
        let fleet = fleet.clone();
        async move { fleet.run(stop).await }
    });
    let mut changes = fleet.changes();
    changes.wait_for(|snapshot| snapshot.read == 1).await.unwrap();
    let newer = put_backup(&repositories[0], 3600).await;
    fleet.hurry();
    let shown = |snapshot: &Arc<Snapshot>| snapshot.servers["db1"].newest().is_some_and(|backup| backup.id == newer);
    // The next look by itself would be a minute later.
    tokio::time::timeout(Duration::from_secs(30), changes.wait_for(shown)).await.unwrap().unwrap();
    reading.abort();
}

#[tokio::test]
async fn a_disk_that_is_mounted_late_or_anew_is_read_when_it_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let (mount, away) = (folder.path().join("mount"), folder.path().join("away"));
    let url: StoreUrl = format!("file://{}", mount.display()).parse().unwrap();
    let (told, place) = (url.to_string(), url.clone());
    let opener: Opener = Arc::new(move || {
        let url = url.clone();
        async move { crate::store::open(&url, &StoreOptions::default()).await }.boxed()
    });
    let options = FleetOptions { refresh: None, access: None, clock: Arc::new(SystemClock) };
    let fleet = Fleet::waiting(told, opener, options);
    fleet.look().await;
    let fault = fleet.snapshot().fault.clone().unwrap();
    assert!(fault.message.contains("mount") && fault.hint.is_some(), "{fault:?}");
    assert!(!fleet.snapshot().found);
    std::fs::create_dir_all(mount.join("db1")).unwrap();
    let db1 = async || {
        let store = crate::store::open(&place, &StoreOptions::default()).await.unwrap();
        store.below(&["db1".to_owned()]).unwrap()
    };
    let repository = Repository::init(db1().await, &SystemClock, &SystemEntropy).await.unwrap();
    put_backup(&repository, 0).await;
    fleet.look().await;
    let known = |fleet: &Fleet| (fleet.snapshot().fault.is_none(), fleet.snapshot().servers["db1"].backups.len());
    assert_eq!(known(&fleet), (true, 1));
    std::fs::rename(&mount, &away).unwrap();
    fleet.look().await;
    assert_eq!(known(&fleet), (false, 1), "what was known stays");
    // What a disk was mounted on is there, and empty.
    std::fs::create_dir(&mount).unwrap();
    for _ in 0..2 {
        fleet.look().await;
        assert_eq!(known(&fleet), (false, 1));
        let fault = fleet.snapshot().servers["db1"].fault.clone().unwrap();
        assert_eq!(
            (fault.kind, fleet.snapshot().fault.clone().unwrap().kind),
            (Kind::StorageUnavailable, Kind::StorageUnavailable)
        );
    }
    std::fs::remove_dir(&mount).unwrap();
    // The same files with other inodes, as behind another mount.
    let copied = std::process::Command::new("cp").arg("-r").args([&away, &mount]).status().unwrap();
    assert!(copied.success());
    put_backup(&Repository::open(db1().await).await.unwrap(), 3600).await;
    fleet.look().await;
    assert_eq!(known(&fleet), (true, 2));
}

#[tokio::test]
async fn one_that_is_damaged_hides_no_other_and_what_was_known_of_it_stays() {
    let (objects, fleet, _) = fleet_of(&["db1", "db2"]).await;
    fleet.look().await;
    objects.put(&"db1/haulout.json".into(), "no repository".into()).await.unwrap();
    let store = Store::over("memory://fleet", objects.clone(), StoreOptions::default());
    let options = FleetOptions { refresh: None, access: None, clock: Arc::new(SystemClock) };
    let fresh = Fleet::new(store, options);
    fresh.look().await;
    let snapshot = fresh.snapshot();
    assert_eq!(snapshot.servers["db1"].reading, Reading::Failed);
    assert_eq!(snapshot.servers["db2"].reading, Reading::Read);
    let backup = snapshot.servers["db2"].newest().unwrap().id.clone();
    let path = format!("db2/backups/{backup}.json");
    objects.put(&path.as_str().into(), "rot".into()).await.unwrap();
    let late = put_backup(
        &Repository::open(fresh.opened_place().unwrap().below(&["db2".to_owned()]).unwrap()).await.unwrap(),
        9,
    )
    .await;
    objects.put(&format!("db2/backups/{late}.json").as_str().into(), "rot".into()).await.unwrap();
    fresh.look().await;
    let server = fresh.snapshot().servers["db2"].clone();
    assert_eq!(
        (server.backups.len(), server.unread.len()),
        (1, 1),
        "what was read stays, what cannot be read is named"
    );
}

#[tokio::test]
async fn a_place_that_is_a_repository_is_a_fleet_of_one() {
    let store = Store::over("memory://bucket/db1", Arc::new(InMemory::new()), StoreOptions::default());
    let repository = Repository::init(store.clone(), &SystemClock, &SystemEntropy).await.unwrap();
    put_backup(&repository, 0).await;
    let options = FleetOptions { refresh: None, access: None, clock: Arc::new(SystemClock) };
    let fleet = Fleet::new(store, options);
    fleet.look().await;
    let snapshot = fleet.snapshot();
    assert_eq!(snapshot.servers.keys().collect::<Vec<_>>(), [""]);
    assert_eq!((snapshot.servers[""].title(), snapshot.servers[""].backups.len()), ("db1", 1));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_was_away_for_long_is_known_again_at_the_first_look() {
    let faulty = FaultyStore::new(Arc::new(InMemory::new()), Script::default());
    let options = StoreOptions { retry: RetryPolicy::lasting(Duration::from_secs(1)), ..StoreOptions::default() };
    let store = faulty.store("memory://fleet", options);
    let mut repositories = Vec::new();
    for name in ["db1", "db2"] {
        let store = store.below(&[name.to_owned()]).unwrap();
        repositories.push(Repository::init(store, &SystemClock, &SystemEntropy).await.unwrap());
    }
    put_backup(&repositories[0], 0).await;
    let fleet = Fleet::new(store, FleetOptions { refresh: None, access: None, clock: Arc::new(SystemClock) });
    fleet.look().await;
    assert_eq!(fleet.snapshot().read, 2);
    faulty.set_script(Script { rules: vec![Rule::after(0, Trouble::Reset)], ..Script::default() });
    for _ in 0..45 {
        fleet.look().await;
    }
    let away = fleet.snapshot();
    let kinds: Vec<_> = away.servers.values().map(|server| server.fault.as_ref().map(|fault| fault.kind)).collect();
    assert_eq!(kinds, [Some(Kind::StorageUnavailable); 2]);
    assert!(away.fault.is_some());
    faulty.set_script(Script::default());
    let newer = put_backup(&repositories[0], 3600).await;
    fleet.look().await;
    let back = fleet.snapshot();
    assert_eq!((&back.fault, back.servers.values().filter(|server| server.fault.is_some()).count()), (&None, 0));
    assert_eq!(back.servers["db1"].newest().unwrap().id, newer);
}
