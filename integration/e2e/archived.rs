//! Objects that somebody's lifecycle rule has moved to an archive, where nothing can be read before it is thawed.

use std::fs;

use crate::support::{Site, site::assert_says};

#[test]
fn archived_packs_are_named_as_such_and_a_restore_succeeds_once_they_are_thawed() {
    let (site, bucket) = Site::in_bucket();
    site.backed_up(&[]);
    let packs = bucket.keys("db1/packs/");
    let is_data = |key: &&String| bucket.get(key)[9] == 1;
    let (data, maps): (Vec<_>, Vec<_>) = packs.iter().partition(is_data);
    assert!(!data.is_empty() && !maps.is_empty(), "{packs:?}");
    let datadir = site.folder().join("restored");
    let restore = ["--json", "restore", "--datadir", datadir.to_str().unwrap()];

    data.iter().for_each(|key| bucket.archive(key));
    assert_says(&site.haulout.run(restore), 22, "is archived", "restore-object");
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
    maps.iter().for_each(|key| bucket.archive(key));
    assert_says(&site.haulout.run(["--json", "check"]), 22, "is archived", "restore-object");
    assert_eq!(site.listing().len(), 1 + taken);

    data.iter().chain(&maps).for_each(|key| bucket.thaw(key));
    site.haulout.run(restore).ok();
    assert!(fs::metadata(datadir.join("ibdata1")).is_ok());
    let incremental = site.backed_up(&[]);
    assert_eq!(incremental["kind"], "incremental", "{incremental}");
    site.haulout.run(["check", "--read-data"]).ok();
}
