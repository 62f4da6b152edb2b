//! A bucket into which the store copies what `infra/terraform` has it copy: objects as they come, in any order, and no deletions.

use std::fs;

use serde_json::Value;

use crate::support::{Bucket, Haulout, LocalStack, MariaDb, ServerOptions, scratch, site::listing};

const REPLICATION: &str = include_str!("../../infra/terraform/replication.tf");

/// Beginnings of the keys that are copied, relative to the repository.
fn replicated() -> Vec<String> {
    let line = REPLICATION.lines().find_map(|line| line.trim().strip_prefix("replicated = ")).unwrap();
    serde_json::from_str(line).unwrap()
}

/// Copies what is in `from` and not in `to`, but for what `held_back` says; how much that was.
fn replicate(from: &Bucket, to: &Bucket, held_back: impl Fn(&str) -> bool) -> usize {
    let there = to.keys("db1/");
    let beginnings = replicated();
    let wanted =
        |key: &&String| beginnings.iter().any(|one| key.strip_prefix("db1/").unwrap().starts_with(one.as_str()));
    let keys = from.keys("db1/");
    let missing: Vec<_> = keys.iter().filter(wanted).filter(|key| !there.contains(key) && !held_back(key)).collect();
    missing.iter().for_each(|key| to.put(key, from.get(key)));
    missing.len()
}

fn id(backup: &Value) -> &str {
    backup["backup_id"].as_str().unwrap()
}

#[test]
fn what_the_store_replicates_is_a_repository_of_its_own_once_it_has_arrived() {
    let folder = scratch();
    let (first, second) = (LocalStack::shared().bucket_with_locks(), LocalStack::shared().bucket_with_locks());
    let key = folder.path().join("key");
    fs::write(&key, "5a".repeat(32)).unwrap();
    let at = |bucket: &Bucket| Haulout::in_bucket(bucket, "db1").with([("HAULOUT_KEY_FILE", key.to_str().unwrap())]);
    let (here, there) = (at(&first), at(&second));
    let server = MariaDb::start();
    server.sql(
        "CREATE DATABASE shop; USE shop; CREATE TABLE item (id INT PRIMARY KEY) AS SELECT seq AS id FROM seq_1_to_1000",
    );
    here.run(["init", "--encrypt"]).ok();
    let oldest = here.backup(&server, &[]).ok().summary().clone();
    let checksums = server.checksums();
    assert!(replicate(&first, &second, |_| false) > 3);
    server.sql("USE shop; INSERT INTO item SELECT seq FROM seq_1001_to_2000");
    let newest = here.backup(&server, &[]).ok().summary().clone();

    // The manifest comes before a pack: that is seen, and the older backup is whole all the same.
    let late = first.keys("db1/packs/").into_iter().find(|key| !second.keys("db1/packs/").contains(key)).unwrap();
    replicate(&first, &second, |key| key == late);
    let run = there.run(["check"]).exits(3);
    assert!(run.stdout.contains(id(&newest)), "{}", run.stdout);
    there.run(["check", "--backup", id(&oldest)]).ok();
    assert_eq!(replicate(&first, &second, |_| false), 1);
    there.run(["check", "--read-data"]).ok();

    // What is deleted in the first bucket stays in the second, until its own `prune` comes.
    let prune = ["prune", "--keep-last", "1", "--grace", "0s"];
    for _ in 0..2 {
        here.run(prune).ok();
    }
    replicate(&first, &second, |_| false);
    assert_eq!((listing(&here).len(), listing(&there).len()), (1, 2));
    assert_eq!(second.keys("db1/leases/").len() + second.keys("db1/prune/").len(), 0, "work in the first bucket");
    let datadir = folder.path().join("data");
    there.run(["restore", "--backup", id(&oldest), "--datadir", datadir.to_str().unwrap()]).ok();
    let mut restored = MariaDb::on(&datadir, ServerOptions::new());
    assert_eq!(restored.checksums(), checksums);
    restored.stop();
    for _ in 0..2 {
        there.run(prune).ok();
    }
    there.run(["check", "--read-data"]).ok();
    // And it takes the backups when the first one is gone.
    first.keys("db1/").iter().for_each(|key| first.delete(key));
    let next = there.backup(&server, &[]).ok().summary().clone();
    assert_eq!(next["parent"], newest["backup_id"], "{next}");
    assert_eq!(listing(&there).len(), 2);
}
