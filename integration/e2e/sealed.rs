//! Sealed repositories: whoever has the key has all, and whoever has not has nothing.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::support::{Haulout, MariaDb, ServerOptions, Site, site::assert_says};

/// Panics when any object of the repository holds one of these texts.
#[track_caller]
fn shows_nothing(site: &Site, texts: &[String]) {
    let objects = site.objects("");
    assert!(objects.len() > 5, "{objects:?}");
    for object in objects {
        let name = object.strip_prefix(site.repository()).unwrap().to_str().unwrap();
        let bytes = fs::read(&object).unwrap();
        for text in texts {
            assert!(!bytes.windows(text.len()).any(|found| found == text.as_bytes()), "{name} shows {text:?}");
            assert!(!name.contains(text), "the name {name} shows {text:?}");
        }
    }
}

fn put_file(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

fn id(backup: &Value) -> &str {
    backup["backup_id"].as_str().unwrap()
}

/// Panics unless `haulout` is told to keep out.
#[track_caller]
fn opens_nothing(haulout: &Haulout, says: &str, hint: &str) {
    for command in [&["list"][..], &["show", "latest"], &["check"], &["restore", "--datadir", "/nowhere/data"]] {
        let run = haulout.run(["--json"].iter().chain(command)).exits(12);
        assert_says(&run, 12, says, hint);
    }
}

#[test]
fn a_sealed_repository_restores_equal_tables_and_shows_nothing() {
    let site = Site::sealed();
    site.backed_up(&["--full"]);
    site.change();
    site.server.sql("USE shop; CREATE TABLE fresh ENGINE=InnoDB SELECT seq AS id FROM seq_1_to_500");
    let incremental = site.backed_up(&["--incremental"]);
    assert_eq!(incremental["kind"], "incremental");
    let checksums = site.server.checksums();
    // A second full stores next to nothing anew: what is there is known by its keyed names.
    let full = site.backed_up(&["--full"]);
    let (uploaded, logical) = (&full["sizes"]["uploaded_bytes"], &full["sizes"]["logical_bytes"]);
    assert!(uploaded.as_u64().unwrap() * 20 < logical.as_u64().unwrap(), "{full}");

    // A page's text, names of tables and files, the machine.
    let page = site.server.sql("SELECT LEFT(text, 32) FROM shop.item WHERE id IN (1, 2, 3)");
    let mut texts: Vec<String> = page.lines().map(str::to_owned).collect();
    assert_eq!(texts.len(), 3);
    texts.push(site.server.sql("SELECT @@hostname").trim().to_owned());
    texts.push(site.server.datadir().to_str().unwrap().to_owned());
    texts.extend(["shop", "ibdata1", "changed ", "mysql/", "10.11.", "seq_1", "innodb"].map(str::to_owned));
    texts.retain(|text| text.len() > 3);
    shows_nothing(&site, &texts);

    let check = site.haulout.run(["--json", "check", "--read-data"]).ok();
    assert_eq!((&check.summary()["read_percent"], &check.summary()["damaged_objects"]), (&100.into(), &0.into()));
    assert!(check.summary()["pages_checked"].as_u64().unwrap() > 100);
    assert!(site.haulout.run(["list"]).ok().stdout.contains(", sealed\n"));
    assert!(site.haulout.run(["show", "latest", "--tables"]).ok().stdout.contains("shop"));
    for backup in [&incremental, &full] {
        let restored = MariaDb::on(&site.restored(backup), ServerOptions::new());
        assert_eq!(restored.checksums(), checksums, "{}", id(backup));
        assert_eq!(restored.check_all(), [""; 0]);
    }
    // One table, into the running server.
    site.server.sql("DELETE FROM shop.item WHERE id % 2 = 0");
    let mut arguments = ["restore-table", "--table", "shop.item", "--replace"].map(str::to_owned).to_vec();
    arguments.extend(site.server.flags());
    site.haulout.run(arguments).ok();
    assert_eq!(site.server.checksums(), checksums);
}

#[test]
fn without_its_key_a_sealed_repository_tells_nothing_and_says_how_to_give_one() {
    let site = Site::sealed();
    site.backed_up(&[]);
    opens_nothing(&site.operator(&[]), "is sealed, and no key is given", "--key-file");
    let wrong = put_file(site.folder(), "wrong", &"5b".repeat(32));
    let wrong = site.operator(&[("HAULOUT_KEY_FILE", &wrong)]);
    opens_nothing(&wrong, "opens none of the 1 key slots", "check that the key is that of this repository");
    let run = wrong.backup(&site.server, &[]).exits(12);
    assert_says(&run, 12, "opens none of", "");
    // What can be checked without a key, all the same, and what cannot.
    let check = site.operator(&[]).run(["check", "--without-key", "--read-data"]).ok();
    assert!(
        check.stdout.contains("all as they were written") && check.stdout.contains("not checked:"),
        "{}",
        check.stdout
    );
    let pack = site.objects("packs").remove(0);
    let mut bytes = fs::read(&pack).unwrap();
    bytes[60] ^= 1;
    fs::write(&pack, bytes).unwrap();
    let check = site.operator(&[]).run(["--json", "check", "--without-key", "--read-data"]).exits(3);
    assert!(check.message("damage")["problem"].as_str().unwrap().contains("hash"), "{}", check.stdout);

    // Whoever takes the seal away does not get the backups of whoever has a key.
    fs::rename(site.repository(), site.folder().join("aside")).unwrap();
    site.operator(&[]).run(["init"]).ok();
    let run = site.backup(&[]).exits(12);
    assert_says(&run, 12, "a key is given, but the repository", "somebody has put another one in its place");
}

#[test]
fn keys_are_added_rotated_and_removed_while_backups_stay() {
    let site = Site::sealed();
    let backup = site.backed_up(&[]);
    let (key, folder) = (site.key_file(), site.folder().to_owned());
    let stored = || site.objects("packs").into_iter().map(|pack| fs::read(pack).unwrap()).collect::<Vec<_>>();
    let before = stored();

    // A passphrase beside the key file.
    let passphrase = put_file(&folder, "passphrase", "correct horse battery staple\n");
    let run = site.haulout.run(["--json", "key", "add", "--new-passphrase-file", &passphrase, "--label", "safe"]).ok();
    let added = run.summary()["added"].as_str().unwrap().to_owned();
    let by_passphrase = site.operator(&[("HAULOUT_PASSPHRASE", "correct horse battery staple")]);
    by_passphrase.run(["show", id(&backup)]).ok();
    let listed = by_passphrase.run(["--json", "key", "list"]).ok();
    let lines: Vec<&Value> = listed.messages.iter().filter(|line| line["message_type"] == "key").collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    let own = lines.iter().find(|line| line["in_use"] == true).unwrap();
    assert_eq!(
        (&own["key_id"], &own["label"], &own["method"]),
        (&added.as_str().into(), &"safe".into(), &"passphrase".into())
    );
    assert!(site.operator(&[]).run(["key", "list"]).ok().stdout.contains("safe"), "it takes no key to list them");

    // The one in use is not removed, and so not the last either.
    let run = by_passphrase.run(["--json", "key", "remove", &added]).exits(1);
    assert_says(&run, 1, "is the one that this key opens", "haulout key rotate");

    // The passphrase changes; the old one opens nothing more.
    let newer = put_file(&folder, "newer", "another one, as long\n");
    let run = by_passphrase.run(["--json", "key", "rotate", "--new-passphrase-file", &newer]).ok();
    assert_eq!(run.summary()["removed"], added.as_str());
    opens_nothing(&by_passphrase, "opens none of the 2 key slots", "slot was not removed");
    let newer = site.operator(&[("HAULOUT_PASSPHRASE_FILE", &newer)]);
    newer.run(["show", id(&backup)]).ok();

    // The key file's slot goes; what was stored is as it was, and the next incremental builds on it.
    let run = site.operator(&[]).run(["--json", "key", "list"]).ok();
    let first =
        run.messages.iter().find(|line| line["method"] == "file").unwrap()["key_id"].as_str().unwrap().to_owned();
    newer.run(["key", "remove", &first]).ok();
    opens_nothing(&site.haulout, "opens none of the 1 key slots", "slot was not removed");
    assert!(key.exists() && stored() == before);
    site.change();
    assert_eq!(newer.backup(&site.server, &["--incremental"]).ok().summary()["parent"], id(&backup));
    newer.run(["check", "--read-data"]).ok();
    assert!(newer.run(["key", "add", "--new-key-file", "/nowhere"]).code() == Some(2));
}

#[test]
fn a_key_for_maps_lists_and_checks_and_neither_backs_up_nor_restores() {
    let site = Site::sealed();
    let backup = site.backed_up(&[]);
    let file = put_file(site.folder(), "map-key", &"6c".repeat(32));
    site.haulout.run(["key", "add", "--map", "--new-key-file", &file, "--label", "watchman"]).ok();
    let watchman = site.operator(&[("HAULOUT_KEY_FILE", &file)]);
    assert!(watchman.run(["list"]).ok().stdout.contains(id(&backup)));
    watchman.run(["show", "latest"]).ok();
    assert!(watchman.run(["show", "latest", "--tables"]).ok().stdout.contains("shop"));
    watchman.run(["check"]).ok();
    let check = watchman.run(["check", "--read-data"]).ok();
    assert!(check.stdout.contains("no damage") && check.stdout.contains("not checked: what is in"), "{}", check.stdout);
    // It lets go of backups, too, and its plan is sealed like everything else.
    site.change();
    let second = site.backed_up(&["--full"]);
    let run = watchman.run(["--json", "prune", "--keep-last", "1"]).ok();
    assert_eq!(run.summary()["planned_backups"], 1, "{}", run.stdout);
    let plans = site.objects("prune");
    assert!(!plans.is_empty());
    for plan in plans {
        assert!(fs::read_to_string(&plan).unwrap().contains("\"body\":{\"sealed\":\""), "{}", plan.display());
    }
    watchman.run(["undelete", id(&backup)]).ok();
    let run = watchman.run(["--json", "prune", "--let-go", id(&backup), "--grace", "0s"]).ok();
    assert!(
        run.summary()["planned_backups"].as_u64().unwrap() + run.summary()["deleted_backups"].as_u64().unwrap() > 0
    );
    watchman.run(["--json", "prune", "--keep-last", "1", "--grace", "0s"]).ok();
    assert_eq!(watchman.run(["check"]).ok().code(), Some(0));
    assert_eq!(
        site.listing().iter().map(|line| line["backup_id"].clone()).collect::<Vec<_>>(),
        [second["backup_id"].clone()]
    );
    // What it finds damaged is told to whoever backs up next, and to nobody without a key.
    // Every pack of data: one alone may have none of the pages that an incremental would build on.
    for pack in site.objects("packs") {
        let mut bytes = fs::read(&pack).unwrap();
        if bytes[9] == 1 {
            bytes[60] ^= 1;
            fs::write(&pack, bytes).unwrap();
        }
    }
    let run = watchman.run(["--json", "check", "--read-data", "--repair"]).exits(3);
    assert_eq!(run.message("damaged_backup")["backup_id"], second["backup_id"], "{}", run.stdout);
    let list = site.repository().join(run.summary()["repair"]["recorded"].as_str().unwrap());
    assert!(fs::read_to_string(&list).unwrap().contains("\"body\":{\"sealed\":\""), "{}", list.display());
    let third = site.backed_up(&[]);
    let reason = third["reason"].as_str().unwrap();
    assert!(third["kind"] == "full" && reason.contains("which a check found damaged"), "{reason}");
    site.haulout.run(["check", "--backup", id(&third), "--read-data"]).ok();

    let says = "opens neither pages nor files";
    let run = watchman.backup(&site.server, &[]).exits(12);
    assert_says(&run, 12, says, "haulout key list");
    let target = site.folder().join("target");
    for command in [["restore", "--datadir"], ["fetch", "--target"]] {
        let run = watchman.run(["--json", command[0], command[1], target.to_str().unwrap()]).exits(12);
        assert_says(&run, 12, says, "haulout key list");
    }
    for compact in [&["--json", "compact"][..], &["--json", "compact", "--dry-run"]] {
        assert_says(&watchman.run(compact), 12, says, "haulout key list");
    }
    assert!(!target.exists());
    // Nor does it make itself more than it is.
    let run = watchman.run(["--json", "key", "add", "--new-key-file", &file]).exits(12);
    assert_says(&run, 12, "does not open", "wraps `all`");
    assert_eq!(site.leases_held(), [""; 0]);
}

#[test]
fn a_command_keeps_the_key_and_never_comes_from_the_repository() {
    let site = Site::sealed();
    let backup = site.backed_up(&[]);
    // What a KMS does, with a file in its place.
    let encrypt = "tr 0-9a-f g-v";
    let decrypt = "tr g-v 0-9a-f";
    let key = site.key_file();
    let both = site.operator(&[("HAULOUT_KEY_FILE", key.to_str().unwrap()), ("HAULOUT_KEY_COMMAND", decrypt)]);
    both.run(["key", "add", "--new-key-command", encrypt]).ok();
    let run = site.haulout.run(["--json", "key", "add", "--new-key-command", encrypt]).exits(2);
    assert_says(&run, 2, "nothing says how to decrypt", "--key-command");
    site.operator(&[("HAULOUT_KEY_COMMAND", decrypt)]).run(["show", id(&backup)]).ok();
    let run = site.operator(&[("HAULOUT_KEY_COMMAND", "exit 7")]).run(["--json", "list"]).exits(12);
    assert_says(&run, 12, "exit status: 7", "");
    // A repository made with commands alone.
    let url = format!("file://{}", site.folder().join("other").display());
    let other = Haulout::on(url).with([("HAULOUT_KEY_COMMAND", decrypt)]);
    let made = other.run(["init", "--encrypt", "--new-key-command", encrypt]).ok();
    assert!(made.stdout.contains("Keep the key") && made.stdout.contains("can ever be read again"), "{}", made.stdout);
    other.backup(&site.server, &[]).ok();
    other.run(["check", "--read-data"]).ok();
}

#[test]
fn what_init_needs_for_a_key_is_asked_for() {
    let folder = crate::support::scratch();
    let url = format!("file://{}", folder.path().join("repository").display());
    let key = put_file(folder.path(), "key", &"5a".repeat(32));
    let short = put_file(folder.path(), "short", "short\n");
    for (arguments, code, says) in [
        (&["--encrypt"][..], 2, "no key is given"),
        (&["--key-file", &key], 2, "but not --encrypt"),
        (&["--encrypt", "--key-command", "cat"], 2, "how to encrypt"),
        (&["--encrypt", "--key-file", &key, "--passphrase-file", &short], 2, "more than one key"),
        (&["--encrypt", "--key-file", &short], 2, "32 random bytes"),
        (&["--encrypt", "--passphrase-file", &short], 2, "12 characters or more"),
    ] {
        let run = Haulout::on(&url).run(["--json", "init"].iter().chain(arguments)).exits(code);
        assert_says(&run, code, says, "");
    }
    assert!(!folder.path().join("repository/haulout.json").exists());
}

/// Puts the bytes of `from` in the place of `to` while `look` looks.
fn exchanged(to: &Path, bytes: Vec<u8>, look: impl FnOnce()) {
    let before = fs::read(to).unwrap();
    fs::write(to, bytes).unwrap();
    look();
    fs::write(to, before).unwrap();
}

#[test]
fn objects_that_are_exchanged_cut_or_moved_are_noticed() {
    let site = Site::sealed();
    let first = site.backed_up(&[]);
    site.change();
    let second = site.backed_up(&["--incremental"]);
    let checks = |code: i32| site.haulout.run(["--json", "check", "--read-data"]).exits(code);
    let restore_fails = |backup: &Value| {
        let target = site.folder().join("target");
        let run = site.haulout.run(["--json", "fetch", "--backup", id(backup), "--target", target.to_str().unwrap()]);
        assert_eq!(run.code(), Some(20), "{}", run.stdout);
        assert!(!target.join("ibdata1").exists());
    };
    // A manifest under another name.
    let (one, other) = (site.manifest(&first), site.manifest(&second));
    exchanged(&one, fs::read(&other).unwrap(), || {
        let damage = checks(3).message("damage").clone();
        assert!(damage["problem"].as_str().unwrap().contains("sealed for another place"), "{damage}");
        restore_fails(&first);
    });
    // One of another repository, which the same key file opens.
    let url = format!("file://{}", site.folder().join("other").display());
    let twin = Haulout::on(url).with([("HAULOUT_KEY_FILE", site.key_file().to_str().unwrap())]);
    twin.run(["init", "--encrypt"]).ok();
    let theirs = twin.backup(&site.server, &[]).ok().summary().clone();
    let foreign = site.folder().join("other/backups").join(format!("{}.json", id(&theirs)));
    let here = site.manifest(&theirs);
    fs::copy(&foreign, &here).unwrap();
    let damage = checks(3).message("damage").clone();
    assert!(damage["problem"].as_str().unwrap().contains("another repository"), "{damage}");
    restore_fails(&theirs);
    fs::remove_file(here).unwrap();
    // Even with their haulout.json and their key slots beside it.
    let slot = fs::read_dir(site.folder().join("other/keys")).unwrap().next().unwrap().unwrap().path();
    fs::copy(&slot, site.repository().join("keys").join(slot.file_name().unwrap())).unwrap();
    site.haulout.run(["list"]).ok();
    // Packs: cut, and in each other's place.
    let packs: Vec<PathBuf> = site.objects("packs");
    for (pack, next) in packs.iter().zip(packs.iter().cycle().skip(1)) {
        let bytes = fs::read(pack).unwrap();
        exchanged(pack, bytes[..bytes.len() - 1].to_vec(), || drop(checks(3)));
        exchanged(pack, fs::read(next).unwrap(), || drop(checks(3)));
    }
    checks(0);
}
