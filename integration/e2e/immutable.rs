//! Locked repositories: what is stored stays, whoever has the agent's credentials.
//!
//! LocalStack keeps locks and versions as S3 does, and knows no policies: an attacker here restricts himself to what
//! `infra/iam/agent.json` allows, and says where he has more rights.

use std::{collections::BTreeMap, fs, path::Path};

use haulout::{
    format::{Manifest, decode_document, encode_document},
    model::{Clock, SystemClock},
};
use serde_json::Value;

use crate::support::{
    Bucket, FaultyPath, Haulout, LocalStack, MariaDb, ServerOptions, Site, binary::Run, scratch, site::assert_says,
    store::Version,
};

const DAY: i64 = 24 * 3600;

fn now() -> i64 {
    SystemClock.now().0.as_second()
}

/// All versions of the repository's objects, leases and what `doctor` tried left out.
fn objects(bucket: &Bucket) -> Vec<Version> {
    let brief = |key: &str| key.starts_with("db1/leases/") || key.starts_with("db1/probe/");
    bucket.versions("db1/").into_iter().filter(|version| !brief(&version.key)).collect()
}

fn key_of(backup: &Value) -> String {
    format!("db1/backups/{}.json", backup["backup_id"].as_str().unwrap())
}

/// What `fetch` writes of a backup, by path.
fn fetched(haulout: &Haulout, backup: &Value) -> BTreeMap<String, Vec<u8>> {
    let folder = scratch();
    let target = folder.path().join("fetched");
    let id = backup["backup_id"].as_str().unwrap();
    haulout.run(["fetch", "--backup", id, "--target", target.to_str().unwrap()]).ok();
    let mut files = BTreeMap::new();
    read(&target, &target, &mut files);
    // When and how it was fetched stands in it.
    files.retain(|path, _| !path.starts_with("haulout"));
    files
}

fn read(root: &Path, folder: &Path, files: &mut BTreeMap<String, Vec<u8>>) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            read(root, &path, files);
        } else {
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            files.insert(name, fs::read(path).unwrap());
        }
    }
}

fn unhidden(run: &Run) -> Vec<(&str, &str)> {
    let lines = run.messages.iter().filter(|message| message["message_type"] == "unhidden");
    lines.map(|line| (line["object"].as_str().unwrap(), line["action"].as_str().unwrap())).collect()
}

fn noted(run: &Run, words: &str) -> bool {
    run.messages.iter().any(|message| message["message"].as_str().is_some_and(|text| text.contains(words)))
}

#[test]
fn every_object_of_a_locked_repository_is_locked_for_the_whole_period() {
    let (site, bucket) = Site::locked(&["--lock", "3d"]);
    let first = site.backed_up(&[]);
    site.change();
    let second = site.backup(&["--incremental"]).ok();
    assert!(!noted(&second, "locks extended"), "locks were extended that were fresh");
    let objects = objects(&bucket);
    assert!(objects.len() >= 6, "{objects:?}");
    for object in &objects {
        let (mode, until) = bucket.lock(object).unwrap_or_else(|| panic!("{} is not locked", object.key));
        assert_eq!(mode, "COMPLIANCE");
        assert!((now() + 3 * DAY..now() + 4 * DAY + 60).contains(&until), "{} until {until}", object.key);
        // Not even by whoever may do everything.
        assert_eq!(bucket.delete_version(object), Err("AccessDenied".to_owned()));
    }
    for backup in [&first, second.summary()] {
        assert!(backup["locked_until"].as_str().is_some(), "{backup}");
    }
    for lease in bucket.versions("db1/leases/").iter().filter(|version| !version.is_marker) {
        assert_eq!(bucket.lock(lease), None, "{}", lease.key);
    }
    let doctor = site.haulout.run([&["--json".to_owned(), "doctor".to_owned()][..], &site.server.flags()].concat());
    assert!(noted(&doctor.ok(), "every object is locked for 3 days (compliance)"));
}

#[test]
fn locks_that_end_too_early_are_extended_before_the_commit() {
    let (site, bucket) = Site::locked(&["--lock", "3d", "--lock-mode", "governance"]);
    let first = site.backed_up(&[]);
    let kept = fetched(&site.haulout, &first);
    // As after three days in which nobody extended anything, though the manifest says that somebody did.
    for object in objects(&bucket) {
        bucket.set_lock(&object, "GOVERNANCE", now() + 3600);
    }
    // Whoever has the agent's credentials may write over a pack: the lock of the version that counts is extended.
    let is_data = |key: &String| bucket.get(key)[9] == 1;
    let victim = bucket.keys("db1/packs/").into_iter().find(is_data).unwrap();
    bucket.put(&victim, bucket.get(&victim).iter().map(|byte| !byte).collect());
    site.change();
    let second = site.backup(&[]).ok();
    assert!(noted(&second, "is locked for less than the newest backup says"), "{}", second.stdout);
    assert!(noted(&second, "locks extended") && noted(&second, "haulout unhide"), "{}", second.stdout);
    let parent = key_of(&first);
    for object in objects(&bucket).iter().filter(|object| object.key != parent) {
        let (_, until) = bucket.lock(object).unwrap_or_else(|| panic!("{} is not locked", object.key));
        assert!(until > now() + 3 * DAY, "{} until {until}", object.key);
    }
    site.haulout.run(["unhide"]).ok();
    assert!(kept == fetched(&site.haulout, &first));
}

/// A lock of another mode is not ours to change. Without the backup tonight's state would be lost at once.
#[test]
fn a_backup_whose_locks_cannot_be_extended_is_taken_and_says_so() {
    let (site, bucket) = Site::locked(&["--lock", "3d", "--lock-mode", "governance"]);
    let first = site.backed_up(&[]);
    for object in objects(&bucket) {
        bucket.set_lock(&object, "COMPLIANCE", now() + 3600);
    }
    site.change();
    let run = site.backup(&["--incremental"]).exits(3);
    let second = run.summary();
    assert!(second["warnings"].to_string().contains("is not locked for the whole period"), "{second}");
    assert!(second["locked_until"].is_null(), "{second}");
    assert_eq!(second["parent"], first["backup_id"]);
    // Nobody takes the missing claim for a lock: it is tried again.
    let run = site.backup(&[]).exits(3);
    assert!(run.summary()["locked_until"].is_null());
    // What was stored anew is locked all the same.
    let full = site.backup(&["--full"]);
    assert!(matches!(full.code(), Some(0 | 3)), "{}", full.stdout);
    site.haulout.run(["check", "--read-data"]).ok();
}

/// He has the agent's credentials: he may put, read, list and extend locks, and not delete.
#[test]
fn with_the_agents_credentials_no_backup_is_made_unrestorable() {
    let (site, bucket) = Site::locked(&["--lock", "3d", "--lock-mode", "governance"]);
    let mut backups = Vec::new();
    for _ in 0..3 {
        let backup = site.backed_up(&[]);
        let checksums = site.server.checksums();
        let files = fetched(&site.haulout, &backup);
        backups.push((backup, checksums, files));
        site.change();
    }
    let good = objects(&bucket);
    let repository = bucket.get("db1/haulout.json");
    Haulout::in_bucket(&bucket, "db2").run(["init"]).ok();

    // Garbage over every object, of the same length, of none, and of another sort.
    for (number, object) in good.iter().enumerate() {
        let bytes = bucket.get(&object.key);
        match number % 3 {
            0 => bucket.put(&object.key, bytes.iter().map(|byte| byte ^ 1).collect()),
            1 => bucket.put(&object.key, Vec::new()),
            _ => bucket.put(&object.key, repository.clone()),
        }
    }
    // Documents that are right in themselves.
    bucket.put("db1/haulout.json", bucket.get("db2/haulout.json"));
    let first = key_of(&backups[0].0);
    let genuine = good.iter().find(|object| object.key == first).unwrap();
    let mut forged: Manifest = decode_document(&first, &bucket.get_version(genuine)).unwrap();
    forged.reason = "forged".to_owned();
    bucket.put(&first, encode_document(&forged).unwrap());
    // Objects of his own.
    bucket.put("db1/backups/20990101T000000Z-abcdef.json", b"a bogus backup".to_vec());
    bucket.put("db1/backups/20990101T000001Z-abcdef.json", encode_document(&forged).unwrap());
    bucket.put("db1/leases/backup-0123456789abcdef-000009-live.json", b"a bogus lease".to_vec());
    bucket.put("db1/prune/20990101T000000Z-abcdef.json", b"a bogus plan".to_vec());
    // He tries what he may not, and somebody who may delete hides what he can.
    for object in &good {
        assert_eq!(bucket.delete_version(object), Err("AccessDenied".to_owned()), "{}", object.key);
    }
    for object in good.iter().step_by(2) {
        bucket.delete(&object.key);
    }
    let lost = site.haulout.run(["check"]);
    assert_ne!(lost.code(), Some(0), "nothing was lost");

    let before = objects(&bucket);
    let dry = site.haulout.run(["--json", "unhide", "--dry-run"]).ok();
    assert_eq!(unhidden(&dry).len(), good.len(), "{}", dry.stdout);
    assert!(unhidden(&dry).iter().all(|(_, action)| *action == "planned"), "{}", dry.stdout);
    assert_eq!(objects(&bucket), before, "a dry run changed something");

    let run = site.haulout.run(["--json", "unhide"]).ok();
    assert_eq!(run.summary()["brought_back"], good.len(), "{}", run.stdout);
    assert_eq!(run.summary()["beyond"], 0);
    // Whoever runs it again has nothing to do.
    let again = site.haulout.run(["--json", "unhide"]).ok();
    assert_eq!(unhidden(&again), []);

    assert_eq!(bucket.get("db1/haulout.json"), repository);
    for object in objects(&bucket).iter().filter(|object| object.is_latest && !object.key.contains("/2099")) {
        let written = object.key.starts_with("db1/prune/");
        assert!(written || bucket.lock(object).is_some(), "{} is not locked", object.key);
    }
    for (backup, checksums, files) in &backups {
        let after = fetched(&site.haulout, backup);
        assert!(*files == after, "{backup} is not what it was");
        let datadir = site.restored(backup);
        let mut server = MariaDb::on(&datadir, ServerOptions::new());
        assert_eq!(server.checksums(), *checksums, "{backup}");
        server.stop();
    }
    // The bogus lease ends by itself; until then it is in the way of new backups alone. A bogus backup gets no child.
    bucket.delete("db1/leases/backup-0123456789abcdef-000009-live.json");
    let next = site.backed_up(&[]);
    assert_eq!(next["kind"], "full", "{next}");
}

#[test]
fn what_was_written_over_a_thousand_times_comes_back() {
    let (site, bucket) = Site::locked(&["--lock", "1d", "--lock-mode", "governance"]);
    let backup = site.backed_up(&[]);
    let key = key_of(&backup);
    let genuine = bucket.get(&key);
    // More than a page of a listing, and than what is remembered of one object.
    for number in 0..1010 {
        bucket.put(&key, format!("garbage {number}").into_bytes());
    }
    let run = site.haulout.run(["--json", "unhide"]).ok();
    assert_eq!(unhidden(&run), [(&key[4..], "copied")]);
    assert_eq!(bucket.get(&key), genuine);
}

#[test]
fn what_was_deleted_comes_back_by_removing_the_markers_while_it_is_locked() {
    let (site, bucket) = Site::locked(&["--lock", "3d", "--lock-mode", "governance"]);
    let backup = site.backed_up(&[]);
    let files = fetched(&site.haulout, &backup);
    let good = objects(&bucket);
    for object in &good {
        bucket.delete(&object.key);
        bucket.delete(&object.key);
    }
    assert_says(&site.haulout.run(["--json", "list"]), 10, "there is no repository", "haulout init");
    let run = site.haulout.run(["--json", "unhide"]).ok();
    assert_eq!(unhidden(&run).len(), good.len());
    assert!(unhidden(&run).iter().all(|(_, action)| *action == "unmarked"), "{}", run.stdout);
    let mut now_there = objects(&bucket);
    let mut good = good;
    for versions in [&mut now_there, &mut good] {
        versions.sort_by(|one, other| one.key.cmp(&other.key));
    }
    assert_eq!(now_there, good, "more is there than before");
    assert!(files == fetched(&site.haulout, &backup));
    site.haulout.run(["check", "--read-data"]).ok();
}

/// Slots and `haulout.json` among them, so it takes no key: nobody could use one yet.
#[test]
fn a_sealed_repository_is_locked_as_a_whole_and_brought_back_without_a_key() {
    let (site, bucket) = Site::sealed_and_locked(&["--lock", "3d", "--lock-mode", "governance"]);
    let first = site.backed_up(&[]);
    let kept = fetched(&site.haulout, &first);
    let slots = bucket.keys("db1/keys/");
    assert_eq!(slots.len(), 1);
    // As after three days; the next backup extends them, that of the slot too.
    for object in objects(&bucket) {
        bucket.set_lock(&object, "GOVERNANCE", now() + 3600);
    }
    site.change();
    let second = site.backed_up(&["--incremental"]);
    let parent = key_of(&first);
    for object in objects(&bucket).iter().filter(|object| object.key != parent) {
        let (_, until) = bucket.lock(object).unwrap_or_else(|| panic!("{} is not locked", object.key));
        assert!(until > now() + 3 * DAY, "{} until {until}", object.key);
    }
    // The slot is not removed while it is locked, and the new one opens the repository.
    let new_key = site.folder().join("new");
    fs::write(&new_key, "5b".repeat(32)).unwrap();
    let run = site.haulout.run(["--json", "key", "rotate", "--new-key-file", new_key.to_str().unwrap()]).exits(3);
    assert_eq!(run.summary()["remaining"], slots[0][4..]);

    // All is hidden, or has another right document over it.
    let good = objects(&bucket);
    let (manifest, other) = (key_of(&first), bucket.get(&key_of(&second)));
    for object in &good {
        match object.key == manifest {
            true => bucket.put(&manifest, other.clone()),
            false => bucket.delete(&object.key),
        }
    }
    let nobody = Haulout::in_bucket(&bucket, "db1");
    let run = nobody.run(["--json", "unhide"]).ok();
    assert_eq!(unhidden(&run).len(), good.len(), "{}", run.stdout);
    for object in &good {
        assert_eq!(bucket.get(&object.key), bucket.get_version(object), "{}", object.key);
    }
    for key in [site.key_file(), new_key] {
        let haulout = Haulout::in_bucket(&bucket, "db1").with([("HAULOUT_KEY_FILE", key.to_str().unwrap())]);
        haulout.run(["check", "--read-data"]).ok();
        assert!(kept == fetched(&haulout, &first));
    }
}

/// What `compact` writes is locked like all else, it takes nothing away, and later backups extend what it wrote.
#[test]
fn a_compacted_repository_is_locked_as_a_whole() {
    let (site, bucket) = Site::locked(&["--lock", "3d", "--lock-mode", "governance"]);
    site.server.sql(
        "USE shop; CREATE TABLE wide (id INT PRIMARY KEY, b VARBINARY(1000));
         INSERT INTO wide SELECT seq, RANDOM_BYTES(1000) FROM seq_1_to_6000",
    );
    let mut backups = Vec::new();
    for step in 0..4 {
        site.server.sql(&format!(
            "USE shop; UPDATE wide SET b = RANDOM_BYTES(1000) WHERE id % 150 BETWEEN {0} AND {0} + 4;
             FLUSH TABLES wide FOR EXPORT; UNLOCK TABLES",
            step * 12
        ));
        let backup = site.backed_up(&[]);
        let files = fetched(&site.haulout, &backup);
        backups.push((backup, files));
    }
    let before = objects(&bucket);
    let summary = site.haulout.run(["--json", "compact", "--pieces", "1"]).ok().summary().clone();
    assert!(summary["merged_extents"].as_u64().unwrap() > 0, "{summary}");
    let after = objects(&bucket);
    assert!(before.iter().all(|object| after.contains(object)), "something was taken away or written over");
    let written: Vec<&Version> = after.iter().filter(|object| !before.contains(object)).collect();
    let of = |folder: &str| written.iter().filter(|object| object.key.starts_with(folder)).count();
    assert!(of("db1/packs/") > 0 && of("db1/backups/") > 0, "{written:?}");
    for object in &after {
        let (_, until) = bucket.lock(object).unwrap_or_else(|| panic!("{} is not locked", object.key));
        assert!(until > now() + 3 * DAY, "{} until {until}", object.key);
    }
    // Whoever may delete hides all of it, the editions among it.
    for object in &after {
        bucket.delete(&object.key);
    }
    let run = site.haulout.run(["--json", "unhide"]).ok();
    assert_eq!(unhidden(&run).len(), after.len(), "{}", run.stdout);
    for (backup, files) in &backups {
        assert!(*files == fetched(&site.haulout, backup), "{backup} is not what it was");
    }
    site.haulout.run(["check", "--read-data"]).ok();
    // As after three days: what the next backup still needs of what was written is extended.
    for object in &after {
        bucket.set_lock(object, "GOVERNANCE", now() + 3600);
    }
    let next = site.backup(&["--incremental"]).ok();
    assert!(noted(&next, "locks extended") && !next.summary()["locked_until"].is_null(), "{}", next.stdout);
    for object in
        written.iter().filter(|object| object.key.starts_with("db1/packs/") && bucket.get(&object.key)[9] == 1)
    {
        let (_, until) = bucket.lock(object).unwrap();
        assert!(until > now() + 3 * DAY, "{} until {until}", object.key);
    }
    site.haulout.run(["prune", "--keep-last", "1", "--grace", "0s"]).ok();
    site.haulout.run(["prune", "--keep-last", "1", "--grace", "0s"]).ok();
    site.haulout.run(["check", "--read-data"]).ok();
}

/// Locked puts go another way than all other requests, and through the same proxy.
#[test]
fn a_locked_repository_is_reached_through_a_proxy() {
    let bucket = LocalStack::shared().bucket_with_locks();
    let proxy = FaultyPath::to(LocalStack::shared().address());
    let haulout = Haulout::in_bucket(&bucket, "db1")
        .with([("AWS_ENDPOINT_URL", "http://s3.example.invalid"), ("http_proxy", &proxy.endpoint())]);
    haulout.run(["init", "--lock", "1d", "--lock-mode", "governance"]).ok();
    let server = MariaDb::start();
    haulout.backup(&server, &[]).ok();
    haulout.run(["unhide"]).ok();
    assert!(objects(&bucket).iter().all(|object| bucket.lock(object).is_some()));
}

/// What is locked is passed over, without failing, and nothing is hidden behind a delete marker meanwhile.
#[test]
fn a_prune_passes_over_what_is_locked() {
    let (site, bucket) = Site::locked(&["--lock", "3d"]);
    let first = site.backed_up(&[]);
    site.change();
    site.backed_up(&[]);
    let before = objects(&bucket).len();
    let run = site.haulout.run(["--json", "prune", "--keep-last", "1", "--grace", "0s"]).ok();
    let line = run.messages.iter().find(|line| line["backup_id"] == first["backup_id"]).unwrap();
    assert_eq!(line["action"], "stays");
    assert!(line["reasons"][0].as_str().unwrap().starts_with("locked until "), "{line}");
    let id = first["backup_id"].as_str().unwrap();
    let named = site.haulout.run(["--json", "prune", "--let-go", id, "--grace", "0s"]);
    assert_says(&named, 1, "is locked until", "run `haulout prune` again");
    assert_eq!(objects(&bucket).len(), before);
}

/// As after `prune`: it deletes what is not locked, and nobody brings that back by mistake.
#[test]
fn what_is_deleted_and_not_locked_comes_back_only_when_asked_for() {
    let bucket = LocalStack::shared().bucket_with_locks();
    let haulout = Haulout::in_bucket(&bucket, "db1");
    haulout.run(["init"]).ok();
    let server = MariaDb::start();
    haulout.backup(&server, &[]).ok();
    let manifest = bucket.keys("db1/backups/").remove(0);
    bucket.delete(&manifest);
    let run = haulout.run(["--json", "unhide"]).ok();
    assert_eq!(unhidden(&run), [(&manifest[4..], "left")]);
    let run = haulout.run(["--json", "unhide", "--all"]).ok();
    assert_eq!(unhidden(&run), [(&manifest[4..], "unmarked")]);
    assert_eq!(bucket.keys("db1/backups/"), [manifest]);
    haulout.run(["check"]).ok();
}

#[test]
fn where_nothing_can_be_locked_a_locked_repository_is_refused() {
    let folder = scratch();
    let place = folder.path().join("repository");
    let init = |haulout: &Haulout| haulout.run(["--json", "init", "--lock", "30d"]);
    let on_disk = Haulout::on(format!("file://{}", place.display()));
    assert_says(&init(&on_disk), 2, "it is no bucket of S3", "s3://");
    assert!(!place.exists());
    let bucket = LocalStack::shared().bucket();
    let run = init(&Haulout::in_bucket(&bucket, "db1"));
    assert_says(&run, 2, "versioning is off", "--object-lock-enabled-for-bucket");
    assert_eq!(bucket.versions(""), []);
    for lock in ["0d", "30h", "-1d", "40000d"] {
        Haulout::in_bucket(&bucket, "db1").run(["init".to_owned(), format!("--lock={lock}")]).exits(2);
    }
    let run = Haulout::in_bucket(&bucket, "db1").run(["--json", "unhide"]);
    assert_says(&run, 2, "no versions of objects are kept", "another copy");
}
