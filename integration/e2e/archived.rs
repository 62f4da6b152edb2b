//! Objects that somebody's lifecycle rule has moved to an archive, where nothing can be read before it is thawed.
//!
//! What LocalStack 4.14 does with them (`services/s3/provider.py`), which S3 does too but where it says so:
//! - An object copied onto itself with the class GLACIER or DEEP_ARCHIVE lies there; reading it is refused with 403 `InvalidObjectState`.
//! - A HEAD is answered, with the class in `x-amz-storage-class`, and, once asked for, `x-amz-restore: ongoing-request="false", expiry-date=…`.
//! - `RestoreObject` thaws at once (S3: in minutes to days, `ongoing-request="true"` meanwhile), whatever the tier, and answers 202, or 200
//!   where it was thawed before; of other classes 403 `InvalidObjectState`. It never says `RestoreAlreadyInProgress`.
//! - A listing has the class, and never `RestoreStatus` (S3: where it is asked for).
//!
//! So that thawing takes hours is shown by `restore::thaw` over a made-up store, and the requests to the byte by `store::thaw_tests`.

use std::fs;

use serde_json::Value;

use crate::support::{Bucket, MariaDb, ServerOptions, Site, site::assert_says};

/// The packs of the site's repository: those with data, those with maps.
fn packs(bucket: &Bucket) -> (Vec<String>, Vec<String>) {
    let packs = bucket.keys("db1/packs/");
    let (data, maps): (Vec<_>, Vec<_>) = packs.into_iter().partition(|key| bucket.get(key)[9] == 1);
    assert!(!data.is_empty() && !maps.is_empty(), "{data:?} {maps:?}");
    (data, maps)
}

/// Class of the object, and whether it was thawed.
fn class(bucket: &Bucket, key: &str) -> (String, bool) {
    let (class, restore) = bucket.class(key);
    assert!(
        restore.iter().all(|restore| restore.starts_with("ongoing-request=\"false\", expiry-date=")),
        "{restore:?}"
    );
    (class, restore.is_some())
}

#[test]
fn archived_packs_are_named_as_such_and_a_restore_succeeds_once_they_are_thawed() {
    let (site, bucket) = Site::in_bucket();
    site.backed_up(&[]);
    let (data, maps) = packs(&bucket);
    let datadir = site.folder().join("restored");
    let restore = ["--json", "restore", "--datadir", datadir.to_str().unwrap()];

    data.iter().for_each(|key| bucket.archive(key, "GLACIER"));
    assert_says(&site.haulout.run(restore), 22, "archived", "--thaw");
    // Sizes can be asked for, and maps read. What an incremental compares pages with lies in the packs: it says so, or stores its pages
    // all the same: both were seen.
    site.haulout.run(["check"]).ok();
    site.change();
    let run = site.backup(&[]);
    let taken = usize::from(run.code() == Some(0));
    match taken {
        1 => assert_eq!(run.summary()["kind"], "incremental"),
        _ => assert_says(&run, 22, "is archived", "restore-object"),
    }
    maps.iter().for_each(|key| bucket.archive(key, "GLACIER"));
    assert_says(&site.haulout.run(["--json", "check"]), 22, "is archived", "restore-object");
    assert_eq!(site.listing().len(), 1 + taken);

    data.iter().chain(&maps).for_each(|key| bucket.thaw(key));
    site.haulout.run(restore).ok();
    assert!(fs::metadata(datadir.join("ibdata1")).is_ok());
    let incremental = site.backed_up(&[]);
    assert_eq!(incremental["kind"], "incremental", "{incremental}");
    site.haulout.run(["check", "--read-data"]).ok();
}

#[test]
fn a_restore_asks_for_what_it_needs_when_it_is_told_to_and_the_next_one_restores_it() {
    let (site, bucket) = Site::in_bucket();
    site.backed_up(&["--full"]);
    site.change();
    let newest = site.backed_up(&["--incremental"]);
    let expected = site.server.checksums();
    let (data, maps) = packs(&bucket);
    assert!(data.len() >= 2, "{data:?}");
    bucket.archive(&data[0], "DEEP_ARCHIVE");
    data[1..].iter().for_each(|key| bucket.archive(key, "GLACIER"));

    let datadir = site.folder().join("restored");
    let place = ["--json", "restore", "--datadir", datadir.to_str().unwrap()];
    let restore = |more: &[&str]| site.haulout.run([&place, more].concat());
    let told = format!("{} packs that backup {} needs", data.len(), newest["backup_id"].as_str().unwrap());
    let run = restore(&[]);
    assert_says(&run, 22, &told, "with --thaw the same command asks the store to thaw them, at the provider's price");
    let run = restore(&["--dry-run", "--thaw"]);
    assert_says(&run, 22, &told, "that takes up to 12 hours with --thaw-tier standard, up to 48 hours with bulk");
    let obstacles = run.summary()["obstacles"].to_string();
    assert!(obstacles.contains(&told), "{obstacles}");
    assert_eq!(run.summary()["measured"], Value::Null);
    assert_says(&restore(&["--thaw", "--thaw-tier", "expedited"]), 2, "1 object lies in a deep archive", "standard");
    let taken = site.folder().join("taken");
    fs::create_dir(&taken).unwrap();
    fs::write(taken.join("ibdata1"), "mine").unwrap();
    let over = ["--json", "restore", "--thaw", "--datadir", taken.to_str().unwrap()];
    assert_says(&site.haulout.run(over), 2, "is not empty", "");
    let thawed = |keys: &[String]| keys.iter().filter(|key| class(&bucket, key).1).count();
    assert_eq!(thawed(&data), 0, "nobody asked for it");

    let run = restore(&["--thaw", "--thaw-days", "3"]);
    assert_says(&run, 22, "are being thawed", "which takes up to 12 hours from now (standard)");
    let note = run.message("note")["message"].to_string();
    assert!(note.contains(&format!("asked to thaw {} objects (", data.len())), "{note}");
    assert!(note.contains("for 3 days (standard), which takes up to 12 hours"), "{note}");
    assert_eq!((thawed(&data), thawed(&maps)), (data.len(), 0));
    assert_eq!(class(&bucket, &data[0]).0, "DEEP_ARCHIVE");
    assert!(!datadir.exists());

    restore(&["--thaw"]).ok();
    assert_eq!(MariaDb::on(&datadir, ServerOptions::new()).checksums(), expected);
}

#[test]
fn a_repository_that_is_archived_as_a_whole_is_thawed_waited_for_and_restored_in_one_run() {
    let (site, bucket) = Site::in_bucket();
    site.backed_up(&[]);
    let expected = site.server.checksums();
    let all: Vec<String> = bucket.keys("db1/").into_iter().filter(|key| !key.starts_with("db1/leases/")).collect();
    all.iter().for_each(|key| bucket.archive(key, "DEEP_ARCHIVE"));
    let datadir = site.folder().join("restored");
    let place = ["--json", "restore", "--datadir", datadir.to_str().unwrap()];
    let restore = |more: &[&str]| site.haulout.run([&place, more].concat());
    assert_says(&restore(&[]), 22, "object haulout.json is archived", "--thaw");
    let run = restore(&["--thaw", "--thaw-tier", "bulk", "--thaw-wait"]).ok();
    let said = &run.stdout;
    assert!(said.contains("for 7 days (bulk), which takes up to 48 hours"), "{said}");
    assert!(said.contains(&format!("asked to thaw {} objects", all.len())), "{said}");
    assert!(all.iter().all(|key| class(&bucket, key).1));
    assert_eq!(MariaDb::on(&datadir, ServerOptions::new()).checksums(), expected);
}

#[test]
fn single_tables_and_drills_are_thawed_for_like_restores() {
    let (site, bucket) = Site::in_bucket();
    site.backed_up(&[]);
    let (data, maps) = packs(&bucket);
    let freeze = || data.iter().chain(&maps).for_each(|key| bucket.archive(key, "GLACIER"));
    let folder = |name: &str| site.folder().join(name).to_str().unwrap().to_owned();

    freeze();
    let fetch = ["--json", "fetch", "--target", &folder("tables"), "--tables", "shop.item"];
    assert_says(&site.haulout.run(fetch), 22, "lies in archived packs, so which it needs is not known", "--thaw");
    site.haulout.run([&fetch[..], &["--thaw", "--thaw-wait=1h"]].concat()).ok();

    // Where the map can be read, what it names is waited for, and how far that is told.
    data.iter().for_each(|key| bucket.archive(key, "GLACIER"));
    let target = folder("whole");
    let run = site.haulout.run(["--json", "fetch", "--target", &target, "--thaw", "--thaw-wait"]).ok();
    let ends = |line: &&Value| line["phase"] == "thaw" && line["ended"] == true;
    let told = run.messages.iter().find(ends).unwrap_or_else(|| panic!("{}", run.stdout));
    assert_eq!(
        (&told["done"], &told["total"], &told["unit"]),
        (&data.len().into(), &data.len().into(), &"objects".into())
    );

    freeze();
    let mut table =
        ["--json", "restore-table", "--table", "shop.item", "--as", "shop.before"].map(str::to_owned).to_vec();
    table.extend(site.server.flags());
    assert_says(&site.haulout.run(&table), 22, "archived", "--thaw");
    table.push("--thaw".to_owned());
    site.haulout.run(&table).ok();
    assert_eq!(site.server.sql("SELECT COUNT(*) FROM shop.before"), site.server.sql("SELECT COUNT(*) FROM shop.item"));

    freeze();
    let drill = ["--json", "drill", "--scratch", &folder("scratch")];
    assert_says(&site.haulout.run(drill), 22, "archived", "--thaw");
    site.haulout.run([&drill[..], &["--thaw"]].concat()).ok();
}
