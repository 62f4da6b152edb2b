//! `doctor` names what would stop a backup, once, and leaves out what it cannot know because of it.

use serde_json::Value;

use crate::support::{Fault, FaultyPath, Haulout, LocalStack, MariaDb, ServerOptions, binary::Run, scratch, store};

/// Every finding, by its name: level and message with hint.
#[derive(Debug)]
struct Findings(Vec<(String, String, String)>);

impl Findings {
    fn of(run: &Run) -> Findings {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let found = run.messages.iter().filter(|message| message["message_type"] == "finding").map(|finding| {
            let words = format!("{} | {}", text(&finding["message"]), text(&finding["hint"]));
            (text(&finding["check"]), text(&finding["level"]), words)
        });
        let findings = Findings(found.collect());
        for (at, (check, ..)) in findings.0.iter().enumerate() {
            assert!(findings.0[..at].iter().all(|(earlier, ..)| earlier != check), "{check} is told twice");
        }
        findings
    }

    /// Level of a check, and what was said.
    #[track_caller]
    fn get(&self, check: &str) -> (&str, &str) {
        let found = self.0.iter().find(|(name, ..)| name == check);
        let (_, level, words) = found.unwrap_or_else(|| panic!("no {check} in {:#?}", self.0));
        (level, words)
    }

    /// Names of the checks of a level, in their order.
    fn of_level(&self, wanted: &str) -> Vec<&str> {
        self.0.iter().filter(|(_, level, _)| level == wanted).map(|(check, ..)| check.as_str()).collect()
    }
}

/// Flags that keep the redo log as large as a careful administrator's.
fn server() -> MariaDb {
    MariaDb::with(ServerOptions::new().argument("--innodb-log-file-size=96M"))
}

fn doctor(haulout: &Haulout, server: &MariaDb) -> Run {
    let mut arguments = vec!["--json".to_owned(), "doctor".to_owned()];
    arguments.extend(server.flags());
    haulout.run(arguments)
}

#[test]
fn a_healthy_server_with_a_local_repository_has_no_finding_but_ok() {
    let (server, place) = (server(), scratch());
    let haulout = Haulout::on(format!("file://{}/repository", place.path().display()));
    haulout.run(["init"]).ok();
    let run = doctor(&haulout, &server).ok();
    let found = Findings::of(&run);
    assert_eq!(found.of_level("ok").len(), found.0.len(), "{:#?}", found.0);
    assert!(found.get("backup.next").1.contains("full"), "{:?}", found.get("backup.next"));
    let ok = u64::try_from(found.0.len()).unwrap();
    assert_eq!((&run.summary()["ok"], &run.summary()["problems"]), (&ok.into(), &0.into()));

    haulout.backup(&server, &[]).ok();
    let found = Findings::of(&doctor(&haulout, &server).ok());
    assert!(found.get("backup.next").1.contains("incremental on "), "{:?}", found.get("backup.next"));
    assert_eq!(found.get("repository.last_map").0, "ok");
    assert_eq!(haulout.run(["--json", "list"]).ok().summary()["backups"], 1, "doctor took a backup");
}

#[test]
fn a_server_that_is_down_is_one_problem() {
    let (mut server, place) = (server(), scratch());
    let haulout = Haulout::on(format!("file://{}/repository", place.path().display()));
    haulout.run(["init"]).ok();
    server.stop();
    let run = doctor(&haulout, &server).exits(3);
    let found = Findings::of(&run);
    assert_eq!(found.of_level("problem"), ["server.reachable"]);
    let (_, words) = found.get("server.reachable");
    assert!(words.contains("socket") && words.contains("check that the server runs"), "{words}");
    for check in ["server.privileges", "server.datadir", "backup.next"] {
        let (level, words) = found.get(check);
        assert_eq!((level, words.contains("server.reachable")), ("skipped", true), "{check}: {words}");
    }
    assert_eq!(found.get("repository.format").0, "ok");
}

#[test]
fn privileges_that_are_missing_are_named_with_the_statement_that_grants_them() {
    let (server, place) = (server(), scratch());
    let haulout = Haulout::on(format!("file://{}/repository", place.path().display()));
    haulout.run(["init"]).ok();
    server
        .sql("CREATE USER poor@localhost IDENTIFIED BY 'secret'; GRANT PROCESS, LOCK TABLES ON *.* TO poor@localhost");
    let socket = format!("--socket={}", server.socket().display());
    let arguments = ["--json", "doctor", &socket, "--user=poor"];
    let haulout = haulout.with([("HAULOUT_PASSWORD", "secret")]);
    let found = Findings::of(&haulout.run(arguments).exits(3));
    assert_eq!(found.of_level("problem"), ["server.privileges"]);
    let (_, words) = found.get("server.privileges");
    assert!(words.contains("poor@localhost lacks privileges: RELOAD, BINLOG MONITOR"), "{words}");
    assert!(words.contains("GRANT RELOAD, PROCESS, BINLOG MONITOR"), "{words}");
    assert_eq!(found.get("backup.next").0, "skipped");

    server.sql("GRANT RELOAD, BINLOG MONITOR ON *.* TO poor@localhost");
    let found = Findings::of(&haulout.run(arguments).ok());
    assert_eq!((found.get("server.privileges").0, found.get("backup.next").0), ("ok", "ok"));

    let haulout = haulout.with([("HAULOUT_PASSWORD", "wrong")]);
    let run = haulout.run(arguments).exits(3);
    let found = Findings::of(&run);
    assert_eq!(found.of_level("problem"), ["server.login"]);
    assert_eq!(found.get("server.reachable").0, "ok");
    assert!(!run.stdout.contains("wrong\""), "{}", run.stdout);
}

#[test]
fn a_place_without_a_repository_says_how_to_make_one() {
    let (server, place) = (server(), scratch());
    let found = |place: &std::path::Path| {
        Findings::of(&doctor(&Haulout::on(format!("file://{}", place.display())), &server).exits(3))
    };
    let empty = found(place.path());
    assert_eq!(empty.of_level("problem"), ["repository.format"]);
    assert!(empty.get("repository.format").1.contains("haulout init"), "{:?}", empty.get("repository.format"));
    let nowhere = found(&place.path().join("nowhere"));
    assert_eq!(nowhere.of_level("problem"), ["store.settings"]);
    assert_eq!(nowhere.get("store.write").0, "skipped");
    assert!(!place.path().join("nowhere").exists(), "doctor made a directory");
}

#[test]
fn a_bucket_is_told_by_what_it_can_do() {
    let (server, bucket) = (server(), LocalStack::shared().bucket());
    let haulout = Haulout::in_bucket(&bucket, "db1");
    haulout.run(["init"]).ok();
    let keys = bucket.keys("");
    let found = Findings::of(&doctor(&haulout, &server).ok());
    assert_eq!(found.get("store.conditional_put").0, "ok");
    assert!(found.get("store.object_lock").1.contains("object lock is off"), "{:?}", found.get("store.object_lock"));
    assert!(found.get("store.credentials").1.contains("environment"), "{:?}", found.get("store.credentials"));
    assert_eq!(found.of_level("problem"), [""; 0]);
    assert_eq!(bucket.keys(""), keys, "doctor left objects behind");
}

/// Where nothing can be changed or removed for a day, backups are taken and restored as elsewhere.
#[test]
fn a_bucket_with_object_lock_is_told_and_serves() {
    let (server, bucket) = (server(), LocalStack::shared().locked_bucket());
    let haulout = Haulout::in_bucket(&bucket, "db1");
    haulout.run(["init"]).ok();
    let found = Findings::of(&doctor(&haulout, &server).ok());
    assert!(found.get("store.object_lock").1.contains("object lock: each object is kept for"), "{found:?}");
    assert_eq!(found.get("store.versioning").0, "ok", "{found:?}");
    for _ in 0..2 {
        haulout.backup(&server, &[]).ok();
    }
    haulout.run(["check", "--read-data"]).ok();
    let folder = scratch();
    let datadir = folder.path().join("restored");
    haulout.run(["restore", "--datadir", datadir.to_str().unwrap()]).ok();
    assert!(datadir.join("ibdata1").exists());
}

#[test]
fn a_bucket_that_is_missing_is_one_problem() {
    let server = server();
    let haulout =
        Haulout::on("s3://haulout-no-such-bucket/db1").with(store::environment(LocalStack::shared().endpoint()));
    let found = Findings::of(&doctor(&haulout, &server).exits(3));
    assert_eq!(found.of_level("problem"), ["store.reachable"]);
    let (_, words) = found.get("store.reachable");
    assert!(words.contains("there is no bucket") && words.contains("create the bucket"), "{words}");
    assert_eq!(found.get("repository.format").0, "skipped");
    assert_eq!(found.get("server.privileges").0, "ok");
}

#[test]
fn an_endpoint_that_is_down_or_silent_is_told_within_a_minute() {
    let server = server();
    let path = FaultyPath::to(LocalStack::shared().address());
    let haulout = Haulout::on("s3://some-bucket/db1").with(store::environment(&path.endpoint()));
    for fault in [Fault::Down, Fault::Stall] {
        path.set(fault);
        let run = doctor(&haulout, &server).exits(3);
        let found = Findings::of(&run);
        assert_eq!(found.of_level("problem"), ["store.reachable"], "{fault:?}");
        assert!(found.get("store.reachable").1.contains(&path.endpoint()), "{:?}", found.get("store.reachable"));
        assert!(run.seconds < 60.0, "{fault:?} took {} s", run.seconds);
    }
}
