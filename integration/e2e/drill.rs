//! Drills: a backup is restored and looked at by a real server, and what came out is on record.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::support::{MariaDb, ServerOptions, Site, Tool, binary::Run, plugins, scratch, site::assert_says};

/// Where the drills of `site` work.
pub fn scratch_of(site: &Site) -> PathBuf {
    site.folder().join("d")
}

/// Arguments of `drill`, with more.
pub fn arguments(site: &Site, more: &[&str]) -> Vec<String> {
    let scratch = scratch_of(site);
    let first = ["--json", "drill", "--scratch", scratch.to_str().unwrap()];
    first.iter().chain(more).map(|argument| (*argument).to_owned()).collect()
}

/// Runs `drill`, and panics when it leaves anything behind: a file, or a process that works on one.
#[track_caller]
pub fn drill(site: &Site, more: &[&str]) -> Run {
    let run = site.haulout.run(arguments(site, more));
    let scratch = scratch_of(site);
    assert!(!scratch.exists(), "{scratch:?} is left: {:?}\n{}\n{}", run.code(), run.stdout, run.stderr);
    assert_eq!(working_in(&scratch), [0; 0], "{}", run.stdout);
    run
}

/// Processes whose working directory is in `folder`, or was before it was removed.
pub fn working_in(folder: &Path) -> Vec<i32> {
    let processes = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let there =
        |pid: &i32| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|directory| directory.starts_with(folder));
    processes.filter(there).collect()
}

/// The failures of a drill that was failed.
#[track_caller]
fn failures(run: Run) -> Vec<String> {
    let run = run.exits(3);
    let summary = run.summary();
    assert_eq!(summary["passed"], false, "{summary}");
    summary["failures"].as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
}

/// The only failure of a drill, which is also what `list` and `show` tell of it.
#[track_caller]
fn failure(site: &Site, run: Run) -> String {
    let id = run.summary()["proof_id"].clone();
    let failures = failures(run);
    assert_eq!(failures.len(), 1, "{failures:?}");
    // By its name: of two drills of one second either may come first.
    let listed = site.listing().pop().unwrap();
    let proof = listed["proofs"].as_array().unwrap().iter().find(|proof| proof["proof_id"] == id).unwrap();
    assert_eq!((&proof["passed"], &proof["failures"][0]), (&false.into(), &Value::from(failures[0].clone())));
    let shown = site.haulout.run(["show", "latest"]).ok().stdout;
    assert!(shown.contains(&failures[0]) && site.haulout.run(["list"]).ok().stdout.contains("failed"), "{shown}");
    failures.concat()
}

/// A `mariadb-backup` that prepares like the real one, and then does something to the files in `$dir`.
fn spoils(what: &str) -> Tool {
    Tool::new(&format!(
        "for a in \"$@\"; do case $a in --target-dir=*) dir=${{a#--target-dir=}} ;; esac; done
         \"$real\" \"$@\" || exit
         {what}"
    ))
}

/// All about a proof that must be the same wherever it is told.
fn gist(proof: &Value) -> Vec<Value> {
    ["proof_id", "passed", "started", "finished", "host", "rto_seconds", "steps", "tables", "sample", "failures"]
        .map(|name| proof[name].clone())
        .into()
}

#[test]
fn a_restore_is_proven_and_list_show_and_the_repository_know_when_and_how_long_it_took() {
    let site = Site::new();
    site.server.sql(
        "USE shop; CREATE VIEW seen AS SELECT id FROM item; CREATE SEQUENCE numbers;
         CREATE DATABASE `sp ace é`; CREATE TABLE `sp ace é`.`a/b.c#d` (id INT PRIMARY KEY); CREATE TABLE parts (id INT)
         PARTITION BY HASH (id) PARTITIONS 3; CREATE TABLE old (id INT) ENGINE=MyISAM; CREATE TABLE words (t TEXT, FULLTEXT (t));
         CREATE PROCEDURE p() SELECT 1; CREATE EVENT e ON SCHEDULE EVERY 1 SECOND DO INSERT INTO item (text) VALUES ('event')",
    );
    site.backed_up(&[]);
    site.change();
    let backup = site.backed_up(&["--incremental"]);
    let before = site.server.checksums();
    let rows = format!("SELECT COUNT(*) = {} FROM shop.item", site.server.sql("SELECT COUNT(*) FROM shop.item").trim());
    let run = drill(&site, &["--assert", &rows, "--assert", "SELECT 1 WHERE @@skip_networking AND @@read_only"]).ok();
    let summary = run.summary();
    assert_eq!((&summary["passed"], &summary["backup_id"]), (&true.into(), &backup["backup_id"]));
    assert_eq!(
        (&summary["failures"], &summary["warnings"]),
        (&serde_json::json!([]), &serde_json::json!([])),
        "{summary}"
    );
    let tables = &summary["tables"];
    assert_eq!(
        (&tables["found"], &tables["damaged"], &tables["left_out"]),
        (&tables["expected"], &0.into(), &0.into())
    );
    let number = |name: &str| tables[name].as_u64().unwrap();
    assert_eq!(number("checked") + number("views"), number("found"));
    // Views of the schema `sys` besides our own.
    assert!(number("views") > 1 && number("checked") > 30, "{tables}");
    assert_eq!(summary["spaces"]["found"], summary["spaces"]["expected"]);
    assert_eq!(summary["assertions"][0], serde_json::json!({"statement": rows, "passed": true, "found": "1"}));
    let steps: f64 =
        ["plan", "fetch", "prepare", "start"].iter().map(|step| summary["steps"][step].as_f64().unwrap()).sum();
    let rto = summary["rto_seconds"].as_f64().unwrap();
    assert!((steps - rto).abs() < 0.01 && rto > 0.1 && rto < summary["seconds"].as_f64().unwrap(), "{summary}");
    assert!(run.stdout.contains("MiB are free"), "{}", run.stdout);
    // The living server was not touched.
    assert_eq!(site.server.checksums(), before);

    let recorded = site.objects("proofs");
    assert_eq!(recorded, [site.repository().join(summary["recorded"].as_str().unwrap())]);
    let listed = site.listing().pop().unwrap();
    assert_eq!((&listed["proven"], &listed["rto_seconds"]), (&summary["finished"], &summary["rto_seconds"]));
    assert_eq!(gist(&listed["proofs"][0]), gist(summary));
    let shown = site.haulout.run(["--json", "show", "latest"]).ok();
    assert_eq!(shown.message("backup")["proofs"], listed["proofs"]);
    assert!(site.listing()[0]["proofs"].is_null(), "the full was not drilled");
    let text = site.haulout.run(["list"]).ok().stdout;
    assert!(text.contains("PROVEN") && text.contains("RTO"), "{text}");
    let text = site.haulout.run(["show", "latest"]).ok().stdout;
    assert!(text.contains("ready after"), "{text}");
    // Nothing else changed.
    let check = site.haulout.run(["--json", "check", "--read-data"]).ok().summary().clone();
    assert_eq!((&check["damaged_objects"], &check["unreferenced_objects"]), (&0.into(), &0.into()));

    // Any other backup, into a directory that is there; it stays.
    let first = site.listing()[0]["backup_id"].as_str().unwrap().to_owned();
    let scratch = site.folder().join("there");
    fs::create_dir(&scratch).unwrap();
    let of_first = ["drill", "--scratch", scratch.to_str().unwrap(), "--backup", &first];
    let text = site.haulout.run(of_first).ok().stdout;
    assert!(text.contains(&first) && text.contains("passed"), "{text}");
    assert_eq!(fs::read_dir(&scratch).unwrap().count(), 0);
}

#[test]
fn an_assertion_that_does_not_hold_fails_the_drill_and_is_named_with_what_came_back() {
    let site = Site::new();
    site.backed_up(&[]);
    let file = site.folder().join("assertions.sql");
    fs::write(&file, "-- what must be\nSELECT COUNT(*)\n  FROM shop.note;\nSELECT 1;\n").unwrap();
    let file = file.to_str().unwrap();
    drill(&site, &["--assert-file", file]).ok();
    let run = drill(&site, &["--assert-file", file, "--assert", "SELECT COUNT(*) FROM shop.item WHERE id = -7"]);
    let text = failure(&site, run);
    assert_eq!(
        text,
        "assertion `SELECT COUNT(*) FROM shop.item WHERE id = -7` came back with 0, not with one true value"
    );
    let statements = [
        ("SELECT NULL", "came back with NULL"),
        ("SELECT text FROM shop.item WHERE id = -1", "came back with no row"),
        ("SELECT id FROM shop.item WHERE id < 3", "2 rows, the first of which is 1"),
        ("SELECT 1, 2", "2 values: 1, 2"),
        ("SELECT 1; SELECT 1", "came back with 2 results"),
        ("SELECT 1 FROM shop.nothing", "shop.nothing' doesn't exist"),
        ("DELETE FROM shop.item", "READ ONLY"),
        ("DROP TABLE shop.item", "READ ONLY"),
        ("SELEKT 1", "SQL syntax"),
        ("SELECT 1", ""),
    ];
    let asserts: Vec<&str> = statements.iter().flat_map(|(statement, _)| ["--assert", statement]).collect();
    let told = failures(drill(&site, &asserts));
    assert_eq!(told.len(), statements.len() - 1, "{told:?}");
    for ((_, says), told) in statements.iter().zip(&told) {
        assert!(told.contains(says), "{told}");
    }
    // What failed does not undo what passed before.
    assert!(site.listing()[0]["proven"].is_string());
}

#[test]
fn damage_fails_the_drill_wherever_it_comes_up() {
    let site = Site::new();
    site.backed_up(&[]);
    // In the store: the fetch finds it.
    let packs = site.objects("packs");
    let data = packs.iter().max_by_key(|pack| fs::metadata(pack).unwrap().len()).unwrap();
    let sound = fs::read(data).unwrap();
    let mut rotten = sound.clone();
    rotten[sound.len() / 2] ^= 1;
    fs::write(data, &rotten).unwrap();
    let text = failure(&site, drill(&site, &[]));
    assert!(text.contains(data.file_name().unwrap().to_str().unwrap()), "{text}");
    fs::remove_file(data).unwrap();
    let text = failure(&site, drill(&site, &[]));
    assert!(text.contains("missing"), "{text}");
    fs::write(data, &sound).unwrap();

    // In the files, as if recovery had made it: CHECK TABLE finds a page, the comparison what is missing or more.
    let page =
        spoils("printf spoilt | dd of=\"$dir/shop/item.ibd\" bs=1 seek=$((5 * 16384 + 300)) conv=notrunc 2>/dev/null");
    let run = drill(&site, &[&page.flag()]);
    let told = failures(run);
    assert!(told.iter().any(|text| text.contains("shop.item")), "{told:?}");
    let lost = spoils("rm \"$dir/shop/note.frm\"");
    let text = failure(&site, drill(&site, &[&lost.flag()]));
    assert!(text.contains("shop.note is in the backup, and the restored server does not have it"), "{text}");
    let more = spoils("for e in frm MAI MAD; do cp \"$dir/shop/note.$e\" \"$dir/shop/more.$e\"; done");
    let text = failure(&site, drill(&site, &[&more.flag()]));
    assert!(text.contains("shop.more is not in the backup"), "{text}");
    let space = spoils("rm \"$dir/shop/item.ibd\"");
    let told = failures(drill(&site, &[&space.flag()]));
    assert!(told.iter().any(|text| text.starts_with("CHECK TABLE shop.item: ")), "{told:?}");

    // A server that does not start on the files.
    let system = spoils("truncate -s 4096 \"$dir/ibdata1\"");
    let text = failure(&site, drill(&site, &[&system.flag()]));
    assert!(
        text.starts_with("mariadbd does not start on the restored files: the scratch server ended by itself: "),
        "{text}"
    );
    let prepare = Tool::new("echo 'this is no completed message' >&2");
    let text = failure(&site, drill(&site, &[&prepare.flag()]));
    assert!(text.contains("without \"completed OK!\""), "{text}");
    assert!(site.listing()[0]["proven"].is_null());
    drill(&site, &[]).ok();
    assert!(site.listing()[0]["proven"].is_string());
}

#[test]
fn a_drill_with_a_time_says_what_it_left_out_and_by_which_seed() {
    let site = Site::new();
    let more: Vec<String> = (0..90).map(|number| format!("CREATE TABLE t{number} (id INT PRIMARY KEY);")).collect();
    site.server.sql(&format!("USE shop; {}", more.concat()));
    site.backed_up(&[]);
    let run = drill(&site, &["--time", "0s", "--seed", "4711"]).ok();
    let summary = run.summary();
    assert_eq!(summary["sample"], serde_json::json!({"seed": 4711, "seconds": 0}));
    let tables = &summary["tables"];
    let number = |name: &str| tables[name].as_u64().unwrap();
    assert!(number("checked") > 0 && number("left_out") > 40, "{tables}");
    assert_eq!(number("checked") + number("left_out") + number("views"), number("found"));
    assert!(run.stdout.contains("drawn by --seed 4711"), "{}", run.stdout);
    // Without a seed one is drawn, and said.
    let summary = drill(&site, &["--time", "10m"]).ok().summary().clone();
    assert!(summary["sample"]["seed"].is_u64() && summary["tables"]["left_out"] == 0, "{summary}");
    assert_eq!(site.listing()[0]["proofs"].as_array().unwrap().len(), 2);
}

#[test]
fn prune_keeps_the_backup_that_was_proven_last() {
    let site = Site::new();
    let ids: Vec<String> = (0..4)
        .map(|_| {
            site.change();
            site.backed_up(&[])["backup_id"].as_str().unwrap().to_owned()
        })
        .collect();
    drill(&site, &["--backup", &ids[0]]).ok();
    drill(&site, &["--backup", &ids[1]]).ok();
    drill(&site, &["--backup", &ids[2], "--assert", "SELECT 0"]).exits(3);
    let prune = |more: &[&str]| site.haulout.run([&["--json", "prune"], more].concat());
    assert_says(&prune(&["--let-go", &ids[1]]), 1, "the newest backup of which a restore was proven", "haulout drill");
    let summary = prune(&["--keep-last", "1", "--grace", "0s"]).ok().summary().clone();
    assert_eq!(summary["deleted_backups"], 2, "{summary}");
    let left: Vec<Value> = site.listing().iter().map(|backup| backup["backup_id"].clone()).collect();
    assert_eq!(left, [ids[1].as_str(), ids[3].as_str()]);
    // Once a newer one is proven, it may go.
    drill(&site, &[]).ok();
    prune(&["--keep-last", "1", "--grace", "0s"]).ok();
    assert_eq!(site.listing().len(), 1);
    site.haulout.run(["check", "--read-data"]).ok();
}

#[test]
fn proofs_of_a_sealed_repository_are_sealed_and_a_key_for_maps_drills_nothing() {
    let site = Site::sealed();
    site.backed_up(&[]);
    let statement = "SELECT COUNT(*) > 0 FROM shop.item WHERE text <> 'whisper'";
    let summary = drill(&site, &["--assert", statement]).ok().summary().clone();
    let bytes = fs::read(site.repository().join(summary["recorded"].as_str().unwrap())).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    assert!(text.contains("{\"sealed\":\""), "{text}");
    for secret in ["whisper", "shop", "passed", "mariadb", "SELECT"] {
        assert!(!text.contains(secret), "{secret}: {text}");
    }
    assert_eq!(gist(&site.listing()[0]["proofs"][0]), gist(&summary));
    let map = site.folder().join("map-key");
    fs::write(&map, "6b".repeat(32)).unwrap();
    let map = map.to_str().unwrap();
    site.haulout.run(["key", "add", "--map", "--new-key-file", map]).ok();
    let reader = site.operator(&[("HAULOUT_KEY_FILE", map)]);
    let run = reader.run(arguments(&site, &[])).exits(12);
    assert_says(&run, 12, "", "wraps `all`");
    assert!(!scratch_of(&site).exists());
    // It sees what was proven.
    assert!(reader.run(["list"]).ok().stdout.contains("PROVEN"));
}

#[test]
fn an_encrypted_server_is_drilled_and_a_plugin_that_is_missing_is_named() {
    let folder = scratch();
    let keys = folder.path().join("keys");
    let options = ServerOptions::new().keys(&keys).argument("--innodb-encrypt-log=ON").plugin("ha_archive");
    let site = Site::with(options);
    site.server.sql(
        "CREATE TABLE shop.locked (id INT PRIMARY KEY, t TEXT) ENCRYPTED=YES; INSERT INTO shop.locked VALUES (1, 'x');
         CREATE TABLE shop.put_away (id INT) ENGINE=ARCHIVE; INSERT INTO shop.put_away VALUES (1)",
    );
    site.backed_up(&[]);
    let assertion = ["--assert", "SELECT COUNT(*) FROM shop.locked"];
    // The encryption plugin comes with the backup's own option file. ARCHIVE's does not.
    let told = failures(drill(&site, &assertion));
    assert!(told.len() == 1 && told[0].contains("shop.put_away"), "{told:?}");
    let dir = format!("plugin-dir={}", plugins::folder().display());
    let with =
        [&assertion[..], &["--mariadbd-option", &dir, "--mariadbd-option", "plugin-load-add=ha_archive"]].concat();
    drill(&site, &with).ok();
    // A plugin that this machine does not have says nothing of the backup.
    let before = site.objects("proofs");
    let run =
        drill(&site, &["--mariadbd-option", "plugin-load-add=no_such_plugin", "--mariadbd-option", "no-such-option=1"]);
    assert_says(&run.exits(23), 23, "no-such-option", "--mariadbd-option");
    fs::rename(&keys, folder.path().join("elsewhere")).unwrap();
    assert_says(&drill(&site, &[]).exits(23), 23, keys.to_str().unwrap(), "backup-my.cnf");
    assert_eq!(site.objects("proofs"), before);
}

#[test]
fn what_keeps_a_drill_from_its_verdict_is_an_error_and_not_recorded() {
    let site = Site::new();
    assert_says(&site.haulout.run(arguments(&site, &[])), 1, "there is no backup", "");
    site.backed_up(&[]);
    let run = |arguments: &[&str]| site.haulout.run([&["--json", "drill"], arguments].concat());
    assert_says(&run(&[]), 2, "no scratch directory is named", "--scratch DIR");
    let mine = site.folder().join("mine");
    fs::create_dir(&mine).unwrap();
    fs::write(mine.join("letter"), "keep me").unwrap();
    assert_says(
        &run(&["--scratch", mine.to_str().unwrap()]),
        2,
        "is not empty: it holds \"letter\"",
        "an empty directory",
    );
    let datadir = site.server.datadir().to_str().unwrap();
    assert_says(&run(&["--scratch", datadir]), 2, "is not empty", "an empty directory");
    assert_eq!(fs::read_to_string(mine.join("letter")).unwrap(), "keep me");
    assert_says(&run(&["--scratch", "/proc/nowhere/x"]), 1, "/proc/nowhere/x", "");
    let long = site.folder().join("x".repeat(100));
    assert_says(&run(&["--scratch", long.to_str().unwrap()]), 2, "too long for a socket", "--scratch");
    let option = |option| drill(&site, &["--mariadbd-option", option]);
    assert_says(&option("datadir=/var/lib/mysql"), 2, "datadir", "");
    assert_says(&option("innodb-force-recovery=6"), 2, "prove nothing", "");
    assert_says(&drill(&site, &["--seed", "7"]), 2, "--seed", "");
    let other = Tool::of_version("11.4.2-MariaDB");
    let version = site.server.sql("SELECT VERSION()");
    let series = version.split('.').take(2).collect::<Vec<_>>().join(".");
    assert_says(&drill(&site, &[&other.flag()]), 23, "11.4.2", &format!("MariaDB {series}"));
    assert_eq!(
        site.objects("proofs").len() + site.listing().iter().filter(|backup| !backup["proofs"].is_null()).count(),
        0
    );
    // What it takes is told beforehand, and nothing is done.
    let plan = drill(&site, &["--dry-run"]).ok().summary().clone();
    let (needed, written) = (plan["needed_bytes"].as_u64().unwrap(), plan["written_bytes"].as_u64().unwrap());
    assert!(needed > written + (128 << 20) && plan["free_bytes"].as_u64().unwrap() > needed, "{plan}");
    assert_eq!(site.objects("proofs"), [""; 0].map(PathBuf::from));
}

#[test]
fn credentials_that_may_not_write_get_the_verdict_and_are_told_that_it_is_not_recorded() {
    let site = Site::new();
    site.backed_up(&[]);
    // As good as a store that refuses: no object can be put where a file is.
    fs::write(site.repository().join("proofs"), "").unwrap();
    let told = |run: &Run| {
        run.messages.iter().any(|line| {
            line["message_type"] == "warning" && line["message"].as_str().unwrap().contains("the proof is not recorded")
        })
    };
    let run = drill(&site, &[]).ok();
    assert!(told(&run) && run.summary()["recorded"].is_null(), "{}", run.stdout);
    let run = drill(&site, &["--assert", "SELECT 0"]).exits(3);
    assert!(told(&run) && run.summary()["recorded"].is_null(), "{}", run.stdout);
}

#[test]
fn a_backup_of_what_was_restored_from_a_drilled_one_goes_on_as_ever() {
    let site = Site::new();
    let backup = site.backed_up(&[]);
    drill(&site, &[]).ok();
    let expected = site.server.checksums();
    let restored = MariaDb::on(&site.restored(&backup), ServerOptions::new());
    assert_eq!(restored.checksums(), expected);
    // The drill's account is nowhere but in the drill.
    for server in [&restored, &site.server] {
        assert_eq!(server.sql("SELECT COUNT(*) FROM mysql.global_priv WHERE user LIKE 'haulout%'").trim(), "0");
    }
    site.change();
    assert_eq!(site.backed_up(&["--incremental"])["parent"], backup["backup_id"]);
}
