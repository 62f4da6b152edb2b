//! The policies of `infra/iam` are enough for the work of their roles, and what they do not allow is not done.

use crate::support::{Bucket, Haulout, LocalStack, MariaDb, PolicedPath, Policy, ServerOptions, Site, site::listing};

/// Days of `init --lock`, and as `infra/README.md` has it the days that the policies allow for them.
const LOCK: [&str; 2] = ["--lock", "3d"];
const LOCK_DAYS: &str = "\"5\"";

fn path(role: &str, words: &[(&str, &str)]) -> PolicedPath {
    PolicedPath::to(LocalStack::shared().address(), Policy::of(role, words))
}

/// The program with a role's rights.
fn as_role(path: &PolicedPath, bucket: &Bucket) -> Haulout {
    Haulout::in_bucket(bucket, "db1").with([("AWS_ENDPOINT_URL", path.endpoint())])
}

/// Leases end by themselves: that they may not be deleted is no matter.
pub fn none_but_of_leases(refused: &[String], bucket: &Bucket) -> bool {
    let leases = format!("s3:DeleteObject on {}/db1/leases/", bucket.name());
    refused.iter().all(|right| right.starts_with(&leases))
}

fn markers(bucket: &Bucket) -> usize {
    bucket.versions("").iter().filter(|version| version.is_marker).count()
}

/// Restores the newest backup with these rights and compares it with the server.
fn restores(haulout: &Haulout, server: &MariaDb) {
    let folder = crate::support::scratch();
    let datadir = folder.path().join("data");
    haulout.run(["restore", "--datadir", datadir.to_str().unwrap()]).ok();
    let mut restored = MariaDb::on(&datadir, ServerOptions::new());
    assert_eq!(restored.checksums(), server.checksums());
    restored.stop();
}

#[test]
fn a_copy_needs_the_copier_s_rights_and_no_others_and_deletes_nothing() {
    let (site, first) = Site::sealed_and_locked(&LOCK);
    // As `infra/terraform` makes it: it can lock, and has versions.
    let second = LocalStack::shared().bucket_with_locks();
    let policy = Policy::of("copier", &[("BUCKET", first.name()), ("SECOND", second.name()), ("PREFIX", "db1")]);
    let path = PolicedPath::to(LocalStack::shared().address(), policy.clone());
    // It has no key either.
    let copier = as_role(&path, &first);
    let to = second.url("db1");
    for _ in 0..2 {
        site.change();
        site.backed_up(&[]);
        let summary = copier.run(["--json", "copy", "--to", &to]).ok().summary().clone();
        assert_eq!((&summary["copied_backups"], &summary["behind"]), (&1.into(), &0.into()), "{summary}");
    }
    let refused = path.refused();
    assert!(none_but_of_leases(&refused, &second), "{refused:#?}");
    assert_eq!(path.used(), policy.allowed(), "it allows what nobody needs");
    assert_eq!(markers(&second), 0);

    // What is there stays, whatever is run with these rights; and the first bucket is only read.
    let keys = || [&first, &second].map(|bucket| bucket.versions("db1/"));
    let (key, before) = (site.key_file(), keys());
    let with_key = [("HAULOUT_KEY_FILE", key.to_str().unwrap())];
    let oldest = listing(&site.haulout)[0]["backup_id"].as_str().unwrap().to_owned();
    for bucket in [&first, &second] {
        let thief = as_role(&path, bucket).with(with_key);
        let prune = thief.run(["prune", "--let-go", &oldest, "--grace", "0s"]);
        assert_ne!(prune.code(), Some(0), "{}", prune.stdout);
    }
    assert_ne!(as_role(&path, &first).with(with_key).backup(&site.server, &[]).code(), Some(0));
    let now = keys();
    assert_eq!(before[0], now[0], "the first bucket was changed");
    assert!(before[1].iter().all(|version| now[1].contains(version)), "{before:#?}\n{now:#?}");
    assert_eq!(markers(&second), 0);

    let copy = Haulout::in_bucket(&second, "db1").with(with_key);
    copy.run(["check", "--read-data"]).ok();
    restores(&copy, &site.server);
}

/// A locked repository, begun and kept by the agent, read by the reader, pruned by the pruner.
#[test]
fn each_role_does_its_work_with_the_rights_of_its_policy_and_no_other_s() {
    let (site, bucket) = Site::in_bucket_with_locks();
    let of_bucket = [("BUCKET", bucket.name()), ("PREFIX", "db1")];
    let of_locks = [of_bucket[0], ("\"41\"", LOCK_DAYS), of_bucket[1]];
    let [agents, readers, pruners] = [("agent", &of_locks[..]), ("reader", &of_bucket), ("pruner", &of_locks)]
        .map(|(role, words)| path(role, words));
    let [agent, reader, pruner] = [&agents, &readers, &pruners].map(|path| as_role(path, &bucket));
    let refused = |path: &PolicedPath| {
        let refused = path.refused();
        assert!(none_but_of_leases(&refused, &bucket), "{refused:#?}");
    };

    agent.run([&["init"], &LOCK[..]].concat()).ok();
    for arguments in [&[][..], &["--incremental"], &["--full"]] {
        site.change();
        agent.backup(&site.server, arguments).ok();
    }
    agent.run(["check"]).ok();
    refused(&agents);
    assert_eq!(markers(&bucket), 0);
    let backups = listing(&agent);
    assert!(backups.len() == 3 && backups.iter().all(|backup| backup["locked_until"].is_string()), "{backups:?}");

    reader.run(["check", "--read-data"]).ok();
    restores(&reader, &site.server);
    refused(&readers);
    assert_ne!(reader.backup(&site.server, &[]).code(), Some(0));
    assert!(readers.refused().iter().any(|right| right.starts_with("s3:PutObject on ")));

    let oldest = backups[0]["backup_id"].as_str().unwrap();
    let let_go = ["prune", "--let-go", oldest, "--grace", "0s"];
    for other in [&agent, &reader] {
        assert_ne!(other.run(let_go).code(), Some(0));
        assert_eq!((listing(&pruner).len(), markers(&bucket)), (3, 0));
    }
    pruner.run(["prune", "--keep-last", "9"]).ok();
    assert_eq!(pruners.refused(), [""; 0]);
}

/// What the tests above rest on: the path refuses what the policy does not allow.
#[test]
fn what_a_policy_does_not_allow_is_refused() {
    let (bucket, other) = (LocalStack::shared().bucket_with_locks(), LocalStack::shared().bucket_with_locks());
    let words = [("BUCKET", bucket.name()), ("\"41\"", LOCK_DAYS), ("PREFIX", "db1")];
    let path = path("agent", &words);
    let agent = |bucket: &Bucket, prefix: &str| {
        Haulout::in_bucket(bucket, prefix).with([("AWS_ENDPOINT_URL", path.endpoint())])
    };
    for (bucket, prefix, lock) in
        [(&bucket, "db2", &[][..]), (&bucket, "db1x", &[]), (&other, "db1", &[]), (&bucket, "db1", &["--lock", "4d"])]
    {
        let arguments = [&["init"], lock].concat();
        let run = agent(bucket, prefix).run(&arguments);
        assert_eq!(run.code(), Some(22), "{prefix} {arguments:?}: {}", run.stderr);
        assert!(!path.refused().is_empty());
    }
    agent(&bucket, "db1").run([&["init"], &LOCK[..], &["--lock-mode", "governance"]].concat()).exits(22);
    assert_eq!(path.refused(), [format!("s3:PutObjectRetention on {}/db1/haulout.json", bucket.name())]);
    assert_eq!((bucket.keys("").len(), other.keys("").len()), (0, 0));
}
