//! Compaction on a real server: what was compacted restores as before, and reads less.

use serde_json::Value;

use crate::support::{ServerOptions, Site, state::Lineage};

fn id(backup: &Value) -> String {
    backup["backup_id"].as_str().unwrap().to_owned()
}

/// What a restore of the newest backup would read: bytes and requests.
fn cost(site: &Site) -> (u64, u64) {
    let datadir = site.folder().join("nothing");
    let run = site.haulout.run(["--json", "restore", "--datadir", datadir.to_str().unwrap(), "--dry-run"]).ok();
    let figure = |name: &str| run.summary()[name].as_u64().unwrap();
    (figure("fetched_bytes"), figure("requests"))
}

fn figure(value: &Value, name: &str) -> u64 {
    value[name].as_u64().unwrap_or_else(|| panic!("no {name} in {value}"))
}

/// A full, and incrementals of which each changes pages all over a table; then most of them are let go of.
fn history(site: &Site) -> (Lineage, Vec<String>) {
    let mut lineage = Lineage::default();
    // Random bytes, so that what is stored is about as long as what is backed up.
    let mut backups = vec![lineage.step(
        site,
        "USE shop; CREATE TABLE wide (id INT PRIMARY KEY, b VARBINARY(1000), KEY (b(20)));
         INSERT INTO wide SELECT seq, RANDOM_BYTES(1000) FROM seq_1_to_12000;
         CREATE TABLE brief AS SELECT * FROM wide WHERE id <= 6000;
         FLUSH TABLES wide, brief FOR EXPORT; UNLOCK TABLES",
        &[],
    )];
    for step in 1..=11 {
        let drop = if step == 3 { "DROP TABLE brief;" } else { "" };
        let change = format!(
            "USE shop; {drop} UPDATE wide SET b = RANDOM_BYTES(1000) WHERE id % 150 BETWEEN {} AND {};
             FLUSH TABLES wide FOR EXPORT; UNLOCK TABLES",
            step * 12,
            step * 12 + 4
        );
        backups.push(lineage.step(site, &change, &["--incremental"]));
    }
    let ids: Vec<String> = backups.iter().map(id).collect();
    let gone = [0, 1, 2, 4, 5, 6, 8, 9];
    let mut prune = vec!["--json", "prune", "--grace", "0s"];
    gone.iter().for_each(|place: &usize| prune.extend(["--let-go", &ids[*place]]));
    site.haulout.run(prune).ok();
    lineage.let_go(&gone);
    (lineage, ids)
}

#[test]
fn what_was_compacted_restores_as_before_and_reads_less() {
    let (site, _bucket) = Site::in_bucket();
    compacts(&site);
}

#[test]
fn what_was_compacted_in_a_sealed_repository_restores_as_before_and_reads_less() {
    compacts(&Site::sealed());
}

fn compacts(site: &Site) {
    let (mut lineage, ids) = history(site);
    let before = cost(site);
    let dry = site.haulout.run(["--json", "compact", "--dry-run"]).ok().summary().clone();
    assert_eq!((&dry["after"], figure(&dry["restore_before"], "requests")), (&Value::Null, before.1), "{dry}");
    let summary = site.haulout.run(["--json", "compact"]).ok().summary().clone();
    let after = cost(site);
    println!("{summary}");
    let told = |restore: &Value| (figure(restore, "fetched_bytes"), figure(restore, "requests"));
    assert_eq!((told(&summary["restore_before"]), told(&summary["restore_after"])), (before, after));
    assert!(after.0 < before.0 && after.1 < before.1, "{before:?}, then {after:?}");
    assert!(figure(&summary["after"], "dead_bytes") < figure(&summary["before"], "dead_bytes"), "{summary}");
    assert!(figure(&summary, "merged_extents") > 0 && figure(&summary, "moved_chunks") > 0, "{summary}");
    assert!(site.listing().iter().all(|backup| backup["edition"] == 1), "{:?}", site.listing());
    let check = site.haulout.run(["--json", "check", "--read-data"]).ok().summary().clone();
    assert_eq!(check["damaged_objects"], 0, "{check}");
    lineage.all_restore(site, &ServerOptions::new(), |_, _| {});
    // The next backup builds on what was compacted.
    let next =
        lineage.step(site, "UPDATE shop.wide SET b = RANDOM_BYTES(1000) WHERE id % 1000 = 7", &["--incremental"]);
    assert_eq!(next["parent"], ids[11].as_str());
    // What was superseded goes, and frees room.
    let swept = site.haulout.run(["--json", "prune", "--grace", "0s"]).ok().summary().clone();
    assert_eq!((&swept["deleted_backups"], &swept["deleted_editions"]), (&0.into(), &4.into()), "{swept}");
    assert!(figure(&swept, "deleted_bytes") > 0, "{swept}");
    let check = site.haulout.run(["--json", "check", "--read-data"]).ok().summary().clone();
    assert_eq!((&check["damaged_objects"], &check["unreferenced_objects"]), (&0.into(), &0.into()), "{check}");
    for restored in std::fs::read_dir(site.folder()).unwrap().flatten() {
        if restored.file_name().to_string_lossy().starts_with("of-") {
            std::fs::remove_dir_all(restored.path()).unwrap();
        }
    }
    lineage.all_restore(site, &ServerOptions::new(), |_, _| {});
}

#[test]
fn where_there_is_nothing_to_compact_nothing_is_written() {
    let site = Site::new();
    assert_eq!(site.haulout.run(["--json", "compact"]).ok().summary()["backup_id"], Value::Null);
    site.backed_up(&[]);
    let objects = || (site.objects("packs"), site.objects("backups"));
    let before = objects();
    let summary = site.haulout.run(["--json", "compact"]).ok().summary().clone();
    assert_eq!((&summary["editions"], &summary["after"]), (&serde_json::json!([]), &Value::Null), "{summary}");
    assert_eq!(objects(), before);
    site.haulout.run(["compact", "--live-share", "0"]).exits(2);
    site.haulout.run(["compact", "--pieces", "65"]).exits(2);
    site.haulout.run(["compact", "--backup", "20200101T000000Z-aaaaaa"]).exits(1);
}
