//! Where nothing is left but a bucket: `list` finds the repositories in it.

use std::fs;

use crate::support::{Haulout, LocalStack, MariaDb, binary::Run, scratch, site::assert_says};

/// `url` and whether it has a problem, of each repository that was listed.
fn listed(run: &Run) -> Vec<(String, bool)> {
    let lines = run.messages.iter().filter(|message| message["message_type"] == "repository");
    lines.map(|line| (line["url"].as_str().unwrap().to_owned(), !line["problem"].is_null())).collect()
}

#[test]
fn a_bucket_tells_which_repositories_lie_in_it_and_how_old_their_newest_backups_are() {
    let bucket = LocalStack::shared().bucket();
    let (db1, db2) = (Haulout::in_bucket(&bucket, "eu/db1"), Haulout::in_bucket(&bucket, "eu/prod/db2"));
    let server = MariaDb::start();
    for haulout in [&db1, &db2] {
        haulout.run(["init"]).ok();
    }
    let backup = db1.backup(&server, &[]).ok().summary().clone();
    let folder = scratch();
    let key = folder.path().join("key");
    fs::write(&key, "5a".repeat(32)).unwrap();
    let sealed = Haulout::in_bucket(&bucket, "eu/vault");
    sealed.run(["init", "--encrypt", "--key-file", key.to_str().unwrap()]).ok();
    bucket.put("eu/notes/readme", b"nothing of ours".to_vec());

    let fleet = Haulout::in_bucket(&bucket, "eu");
    let run = fleet.run(["--json", "list"]).ok();
    let url = |name: &str| bucket.url(&format!("eu/{name}"));
    assert_eq!(listed(&run), [(url("db1"), false), (url("prod/db2"), false), (url("vault"), true)]);
    let line = run.messages.iter().find(|message| message["url"] == url("db1").as_str()).unwrap();
    assert_eq!((&line["backups"], &line["latest"]), (&1.into(), &backup["backup_id"]), "{line}");
    assert_eq!(line["latest_finished"], backup["finished"], "{line}");
    assert_eq!((&run.summary()["repositories"], &run.summary()["unreadable"]), (&3.into(), &0.into()));
    let text = fleet.run(["list"]).ok().stdout;
    assert!(text.contains("3 repositories under") && text.contains("prod/db2") && text.contains("AGE"), "{text}");

    // With its key the sealed one is read; one that is damaged is named, and the others are told all the same.
    let opened = fleet.run(["--json", "list", "--key-file", key.to_str().unwrap()]);
    assert!(!listed(&opened).contains(&(url("vault"), true)), "{}", opened.stdout);
    bucket.put("eu/prod/db2/haulout.json", b"garbage".to_vec());
    let run = fleet.run(["--json", "list"]).exits(3);
    assert_eq!(listed(&run), [(url("db1"), false), (url("prod/db2"), true), (url("vault"), true)]);
    assert_eq!(run.summary()["unreadable"], 1);
    assert_says(
        &Haulout::in_bucket(&bucket, "us").run(["--json", "list"]),
        10,
        "there is no repository",
        "haulout init",
    );
}

#[test]
fn a_directory_tells_which_repositories_lie_in_it() {
    let folder = scratch();
    let place = |name: &str| format!("file://{}", folder.path().join(name).display());
    for name in ["one", "two of two"] {
        Haulout::on(place(name)).run(["init"]).ok();
    }
    let run = Haulout::on(format!("file://{}", folder.path().display())).run(["--json", "list"]).ok();
    assert_eq!(listed(&run), [(place("one"), false), (place("two of two"), false)]);
}
