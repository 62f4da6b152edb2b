//! Copies of a repository in another store: whole when they are there, and all that is left when the first is gone.

use std::{fs, path::Path, time::Duration};

use serde_json::Value;

use crate::support::{
    Bucket, Fault, FaultyPath, Haulout, LocalStack, ServerOptions, Site,
    binary::Run,
    site::{assert_says, listing},
    state::Lineage,
    wait,
};

fn id(backup: &Value) -> String {
    backup["backup_id"].as_str().unwrap().to_owned()
}

fn figure(value: &Value, name: &str) -> u64 {
    value[name].as_u64().unwrap_or_else(|| panic!("no {name} in {value}"))
}

fn copy(haulout: &Haulout, to: &str, options: &[&str]) -> Run {
    haulout.run(["--json", "copy", "--to", to].iter().chain(options))
}

/// Ids of the backups that are there, the oldest first.
fn there(haulout: &Haulout) -> Vec<String> {
    let mut ids: Vec<String> = listing(haulout).iter().map(id).collect();
    ids.sort();
    ids
}

/// Some history of a shop: a full, incrementals with DDL between them, and another full.
fn history(site: &Site) -> (Lineage, Vec<String>) {
    let mut lineage = Lineage::default();
    let steps: [(&str, &[&str]); 4] = [
        ("SELECT 1", &[]),
        (
            "USE shop; CREATE TABLE second (id INT PRIMARY KEY, b BLOB); INSERT INTO second SELECT seq, RANDOM_BYTES(900) FROM seq_1_to_9000",
            &[],
        ),
        (
            "USE shop; DROP TABLE note; RENAME TABLE item TO thing; DELETE FROM second WHERE id % 3 = 0",
            &["--incremental"],
        ),
        ("USE shop; UPDATE thing SET text = CONCAT('later ', id) WHERE id % 7 = 0", &["--full"]),
    ];
    let ids = steps.iter().map(|(sql, arguments)| id(&lineage.step(site, sql, arguments))).collect();
    (lineage, ids)
}

/// Proves that nothing is missing or damaged at `haulout`, and gives how many packs no backup needs.
fn checked(haulout: &Haulout) -> u64 {
    let check = haulout.run(["--json", "check", "--read-data"]).ok().summary().clone();
    assert_eq!((&check["damaged_objects"], &check["damaged_backups"]), (&0.into(), &0.into()), "{check}");
    figure(&check, "unreferenced_objects")
}

fn emptied(bucket: &Bucket) {
    loop {
        let keys = bucket.keys("");
        if keys.is_empty() {
            return;
        }
        keys.iter().for_each(|key| bucket.delete(key));
    }
}

fn endpoint(bucket: &Bucket) -> [String; 2] {
    let [endpoint, ..] = bucket.environment().map(|(_, value)| value);
    assert!(endpoint.starts_with("http"), "{endpoint}");
    ["--to-endpoint-url".to_owned(), endpoint]
}

#[test]
fn when_the_first_bucket_is_gone_every_backup_restores_from_its_copy_in_another() {
    let (mut site, first) = Site::in_bucket();
    let (mut lineage, ids) = history(&site);
    let second = LocalStack::shared().bucket();
    let to = second.url("copies/db1");
    let run = copy(&site.haulout, &to, &[]).ok();
    let summary = run.summary().clone();
    println!("{summary}");
    let copied: Vec<String> = run.messages.iter().filter(|line| line["message_type"] == "copied").map(id).collect();
    assert_eq!((&copied, figure(&summary, "behind"), &summary["made"]), (&ids, 0, &true.into()), "{summary}");
    let again = copy(&site.haulout, &to, &[]).ok().summary().clone();
    assert_eq!((figure(&again, "copied_bytes"), figure(&again, "copied_backups")), (0, 0), "{again}");

    emptied(&first);
    assert!(site.haulout.run(["list"]).code() == Some(10));
    site.haulout = Haulout::in_bucket(&second, "copies/db1");
    assert_eq!(checked(&site.haulout), 0);
    assert_eq!(there(&site.haulout), ids);
    site.haulout.run(["show", &ids[2]]).ok();
    lineage.all_restore(&site, &ServerOptions::new(), |_, _| {});
    // The lineage goes on there, and the copy is pruned and compacted by itself.
    let next = lineage.step(&site, "USE shop; INSERT INTO thing (text) VALUES ('after')", &["--incremental"]);
    assert_eq!(next["parent"], ids[3].as_str());
    site.haulout.run(["compact"]).ok();
    site.haulout.run(["prune", "--let-go", &ids[0], "--grace", "0s"]).ok();
    checked(&site.haulout);

    // Back into the first bucket, which is empty: what the second has now.
    let back = copy(&site.haulout, &first.url("db1"), &[]).ok().summary().clone();
    assert_eq!(figure(&back, "copied_backups"), 4, "{back}");
    site.haulout = Haulout::in_bucket(&first, "db1");
    assert_eq!(checked(&site.haulout), 0);
    for restored in fs::read_dir(site.folder()).unwrap().flatten() {
        if restored.file_name().to_string_lossy().starts_with("of-") {
            fs::remove_dir_all(restored.path()).unwrap();
        }
    }
    lineage.let_go(&[0]);
    lineage.all_restore(&site, &ServerOptions::new(), |_, _| {});
}

#[test]
fn a_copy_goes_from_disk_to_a_bucket_and_back_and_restores() {
    let mut site = Site::new();
    let (lineage, ids) = history(&site);
    let bucket = LocalStack::shared().bucket();
    // The repository's own settings lead elsewhere: what the copy's store is reached by is said for it alone.
    let environment = bucket.environment();
    let keys: Vec<(&str, &str)> = environment
        .iter()
        .filter(|(name, _)| name.starts_with("AWS_") && !name.contains("ENDPOINT"))
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    let operator = site.operator(&keys).with([("HAULOUT_ENDPOINT_URL", "http://127.0.0.1:9")]);
    let place = endpoint(&bucket);
    copy(&operator, &bucket.url("db1"), &[&place[0], &place[1], "--last", "3"]).ok();
    let in_bucket = Haulout::in_bucket(&bucket, "db1");
    assert_eq!(there(&in_bucket), ids[1..]);
    // A disk that is not mounted is no empty copy.
    let disk = site.folder().join("disk");
    let to = format!("file://{}", disk.display());
    assert_says(&copy(&in_bucket, &to, &[]).exits(10), 10, "does not exist", "the disk is mounted");
    fs::create_dir(&disk).unwrap();
    copy(&in_bucket, &to, &[]).ok();
    emptied(&bucket);
    fs::remove_dir_all(site.repository()).unwrap();
    site.haulout = Haulout::on(to);
    assert_eq!((there(&site.haulout), checked(&site.haulout)), (ids[1..].to_vec(), 0));
    for place in 1..4 {
        lineage.restored(&site, place, &ServerOptions::new());
    }
}

/// The line goes down after so many bytes, the run is killed, and the next goes on from wherever it was.
#[test]
fn copies_that_are_killed_one_after_the_other_come_to_their_end_and_send_each_pack_once() {
    let site = Site::new();
    let (_, ids) = history(&site);
    let bucket = LocalStack::shared().bucket();
    let path = FaultyPath::to(LocalStack::shared().address());
    let haulout = site.operator(&[]).with(bucket.environment()).with([
        ("HAULOUT_COPY_ENDPOINT_URL", path.endpoint()),
        ("HAULOUT_COPY_TO", bucket.url("db1")),
        ("HAULOUT_TRANSFERS", "2".to_owned()),
    ]);
    let here = Haulout::in_bucket(&bucket, "db1");
    let size = |keys: &[String]| keys.iter().map(|key| bucket.get(key).len() as u64).sum::<u64>();
    let total: u64 = site.objects("packs").iter().map(|pack| fs::metadata(pack).unwrap().len()).sum();
    let mut kills = 0;
    let (last, before) = loop {
        let before = size(&bucket.keys("db1/packs/"));
        // More each time: a pack that is longer than that would be begun for ever.
        path.set(Fault::DownAfter(if kills < 8 { 3_000 * (kills + 1) } else { (kills - 7) * total / 6 }));
        let mut running = haulout.spawn(["--json", "copy"]);
        wait::until("the line to go down, or the end", Duration::from_secs(60), || {
            (path.fault() == Fault::Down || running.ended()).then_some(())
        });
        let killed = path.fault() == Fault::Down;
        path.set(Fault::None);
        if !killed {
            break (running.wait().ok(), before);
        }
        running.kill9();
        kills += 1;
        match here.run(["--json", "check"]) {
            // Not even haulout.json has arrived.
            run if run.code() == Some(10) => assert_eq!(bucket.keys("db1/backups/"), [""; 0]),
            run => assert_eq!(run.ok().summary()["damaged_objects"], 0, "after {kills} kills"),
        }
    };
    let summary = last.summary();
    println!("killed {kills} times; the last run: {summary}");
    assert!(kills > 8, "{kills}");
    assert_eq!(figure(summary, "copied_bytes"), total - before, "what had come across was copied again");
    assert!(before > 0);
    assert_eq!((there(&here), checked(&here)), (ids, 0));
}

#[test]
fn sealed_data_is_copied_without_its_key_and_restores_with_it() {
    let mut site = Site::sealed();
    let (lineage, ids) = history(&site);
    let (bucket, with_key) = (LocalStack::shared().bucket(), LocalStack::shared().bucket());
    let key = site.key_file().to_str().unwrap().to_owned();
    let stranger = site.operator(&[]).with(bucket.environment());
    let place = endpoint(&bucket);
    let summary = copy(&stranger, &bucket.url("db1"), &[&place[0], &place[1]]).ok().summary().clone();
    assert_eq!((figure(&summary, "copied_backups"), figure(&summary, "behind")), (4, 0), "{summary}");
    let there_without = Haulout::in_bucket(&bucket, "db1");
    assert_says(&there_without.run(["--json", "list"]).exits(12), 12, "is sealed, and no key is given", "--key-file");
    // With the key, the same objects.
    let owner = site.operator(&[("HAULOUT_KEY_FILE", &key)]).with(with_key.environment());
    copy(&owner, &with_key.url("db1"), &[&place[0], &place[1]]).ok();
    let kept = |bucket: &Bucket| {
        let keys = bucket.keys("db1/").into_iter().filter(|key| !key.contains("/leases/"));
        keys.map(|key| (bucket.get(&key), key)).collect::<Vec<_>>()
    };
    assert_eq!(kept(&bucket), kept(&with_key));
    // A wrong key opens neither.
    let wrong = site.folder().join("wrong");
    fs::write(&wrong, "5b".repeat(32)).unwrap();
    let wrong = site.operator(&[("HAULOUT_KEY_FILE", wrong.to_str().unwrap())]).with(bucket.environment());
    assert_says(&copy(&wrong, &bucket.url("db1"), &[]).exits(12), 12, "opens none of", "");

    fs::remove_dir_all(site.repository()).unwrap();
    site.haulout = Haulout::in_bucket(&bucket, "db1").with([("HAULOUT_KEY_FILE", key)]);
    assert_eq!((there(&site.haulout), checked(&site.haulout)), (ids, 0));
    lineage.all_restore(&site, &ServerOptions::new(), |_, _| {});
}

#[test]
fn a_list_tells_how_far_a_copy_is_behind_and_a_dry_run_what_is_missing() {
    let site = Site::new();
    let first = id(&site.backed_up(&[]));
    let folder = site.folder().join("copy");
    fs::create_dir(&folder).unwrap();
    let to = format!("file://{}", folder.display());
    let state = || {
        let run = site.haulout.run(["--json", "list", "--copy", "--to", &to]).ok();
        let lines = run.messages.iter().filter(|line| line["message_type"] == "backup");
        let copied: Vec<bool> = lines.map(|line| line["in_copy"].as_bool().unwrap()).collect();
        (copied, run.summary()["copy"].clone())
    };
    let (copied, nothing) = state();
    assert_eq!((copied, figure(&nothing, "behind"), figure(&nothing, "backups")), (vec![false], 1, 0), "{nothing}");
    copy(&site.haulout, &to, &[]).ok();
    let (copied, level) = state();
    assert_eq!(
        (copied, figure(&level, "behind"), &level["latest"]),
        (vec![true], 0, &first.as_str().into()),
        "{level}"
    );
    site.change();
    let second = id(&site.backed_up(&[]));
    site.change();
    site.backed_up(&[]);
    let (copied, behind) = state();
    assert_eq!((copied.iter().filter(|copied| **copied).count(), figure(&behind, "behind")), (1, 2), "{behind}");
    let text = site.haulout.run(["list", "--copy", "--to", &to]).ok().stdout;
    assert!(
        text.contains(" has 1 backup and lacks the newest 2 (") && text.contains("`haulout copy` brings it up"),
        "{text}"
    );
    let before = fs::read_dir(folder.join("packs")).unwrap().count();
    let dry = copy(&site.haulout, &to, &["--dry-run"]).ok();
    assert_eq!((figure(dry.summary(), "copied_backups"), figure(dry.summary(), "behind")), (2, 2), "{}", dry.stdout);
    assert_eq!(fs::read_dir(folder.join("packs")).unwrap().count(), before);
    let wet = copy(&site.haulout, &to, &["--backup", &second]).ok();
    let line = |run: &Run| run.messages.iter().find(|line| line["message_type"] == "copied").unwrap().clone();
    assert_eq!(line(&wet), line(&dry));
    assert_eq!(state().1["behind"], 1);
    site.haulout.run(["--json", "list", "--copy"]).exits(2);
}

#[test]
fn what_cannot_be_a_copy_is_refused_and_what_is_damaged_is_named() {
    let (site, other) = (Site::new(), Site::new());
    let first = id(&site.backed_up(&[]));
    site.change();
    let second = id(&site.backed_up(&["--full"]));
    let url = |path: &Path| format!("file://{}", path.display());
    let before = other.objects("");
    let run = copy(&site.haulout, &url(&other.repository()), &[]).exits(2);
    assert_says(&run, 2, "no copy of", "a place of its own");
    assert_eq!(other.objects(""), before);
    assert_says(&copy(&site.haulout, &url(&site.repository()), &[]).exits(2), 2, "its own copy", "--to");
    assert_says(&site.haulout.run(["--json", "copy"]).exits(2), 2, "no place is named for the copy", "HAULOUT_COPY_TO");
    let folder = site.folder().join("copy");
    fs::create_dir(&folder).unwrap();
    let to = url(&folder);
    assert_says(&copy(&site.haulout, &to, &["--backup", "2020"]).exits(1), 1, "there is no backup", "haulout list");
    // A manifest that is damaged costs its backup; the other comes.
    let manifest = site.repository().join(format!("backups/{first}.json"));
    let whole = fs::read(&manifest).unwrap();
    fs::write(&manifest, &whole[..whole.len() / 2]).unwrap();
    let run = copy(&site.haulout, &to, &[]).exits(3);
    assert!(run.summary()["skipped"][0].as_str().unwrap().contains(&first), "{}", run.summary());
    let here = Haulout::on(&to);
    assert_eq!(there(&here), [second.as_str()]);
    fs::write(&manifest, whole).unwrap();
    // It is older than the newest one there, as one that a prune let go of.
    assert_eq!(figure(copy(&site.haulout, &to, &[]).ok().summary(), "copied_backups"), 0);
    copy(&site.haulout, &to, &["--all"]).ok();
    assert_eq!((there(&here), checked(&here)), (vec![first, second.clone()], 0));
    // What the copy lets go of by itself stays away.
    here.run(["prune", "--keep-last", "1", "--grace", "0s"]).ok();
    site.change();
    let third = id(&site.backed_up(&[]));
    copy(&site.haulout, &to, &[]).ok();
    assert_eq!((there(&here), checked(&here)), (vec![second, third], 0));
}

#[test]
fn what_rotted_in_a_repository_comes_back_from_its_copy() {
    let site = Site::new();
    site.backed_up(&[]);
    site.change();
    site.backed_up(&["--incremental"]);
    let folder = site.folder().join("copy");
    fs::create_dir(&folder).unwrap();
    let here = Haulout::on(format!("file://{}", folder.display()));
    copy(&site.haulout, &format!("file://{}", folder.display()), &[]).ok();
    let packs = site.objects("packs");
    for (place, pack) in packs.iter().enumerate() {
        let mut bytes = fs::read(pack).unwrap();
        // All of them: what a backup needs whose map is hit is found by no map.
        match place % 2 {
            0 => bytes[60] ^= 1,
            _ => bytes.truncate(100),
        }
        fs::write(pack, bytes).unwrap();
    }
    let run = site.haulout.run(["--json", "check", "--read-data", "--repair"]).exits(3);
    assert!(run.summary()["repair"]["recorded"].is_string(), "{}", run.summary());
    let hit: Vec<String> =
        run.messages.iter().filter(|line| line["message_type"] == "damaged_backup").map(id).collect();
    assert!(!hit.is_empty());
    let url = format!("file://{}", site.repository().display());
    for backup in hit {
        copy(&here, &url, &["--backup", &backup]).ok();
    }
    assert_eq!(checked(&site.haulout), 0);
    // And the next backup is told so.
    site.haulout.run(["check", "--read-data", "--repair"]).ok();
    site.change();
    site.backed_up(&["--incremental"]);
}

/// A prune of the source that deletes what is being copied, and one of the copy that is put off.
#[test]
fn prunes_of_both_ends_may_run_while_a_copy_does() {
    let site = Site::new();
    let (_, mut ids) = history(&site);
    site.server.sql("UPDATE shop.thing SET text = CONCAT('last ', id) WHERE id % 5 = 0");
    ids.push(id(&site.backed_up(&[])));
    let bucket = LocalStack::shared().bucket();
    let path = FaultyPath::to(LocalStack::shared().address());
    let to = bucket.url("db1");
    let here = Haulout::in_bucket(&bucket, "db1");
    let near = endpoint(&bucket);
    let haulout = site.operator(&[]).with(bucket.environment());
    copy(&haulout, &to, &[&near[0], &near[1], "--backup", &ids[0], "--backup", &ids[1]]).ok();
    // Some bytes of the third backup have gone across, and then nothing passes.
    path.set(Fault::DownAfter(60_000));
    let mut running = haulout.spawn(["--json", "copy", "--to", &to, "--to-endpoint-url", &path.endpoint()]);
    wait::until("the line to go down", Duration::from_secs(60), || (path.fault() == Fault::Down).then_some(()));
    let prune = ["--json", "prune", "--keep-last", "1", "--grace", "0s"];
    let held = here.run(prune).ok().summary().clone();
    assert!(held["put_off"].is_string() && held["deleted_backups"] == 0, "{held}");
    let let_go = ["--json", "prune", "--let-go", &ids[2], "--let-go", &ids[3], "--grace", "0s"];
    assert_eq!(figure(site.haulout.run(let_go).ok().summary(), "deleted_backups"), 2);
    assert!(!running.ended(), "it did not wait for the store");
    path.set(Fault::None);
    let run = running.wait().ok();
    println!("{}", run.summary());
    let gone: Vec<&str> = run.summary()["let_go"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    let found = there(&here);
    assert!([&ids[0], &ids[1], &ids[4]].iter().all(|id| found.contains(id)), "{found:?}");
    // The third was being copied: it may have come whole.
    for id in &ids[2..4] {
        assert!(gone.contains(&id.as_str()) != found.contains(id), "{gone:?}, {found:?}");
    }
    assert!(gone.contains(&ids[3].as_str()), "{gone:?}");
    checked(&here);
    let pruned = here.run(prune).ok().summary().clone();
    assert!(pruned["put_off"].is_null() && figure(&pruned, "deleted_backups") > 1, "{pruned}");
    assert_eq!(there(&here), [ids[4].as_str()]);
    // What came across of backups that were let go of may be as young as the newest backup, by the second, and goes with a later prune.
    checked(&here);
}
