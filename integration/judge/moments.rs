//! Random moments of a busy server, restored from a backup and archived binary log, and held against a replica that stopped there.

use std::{
    collections::BTreeMap,
    fs,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use haulout::model::GtidSet;

use super::replica::Replica;
use crate::support::{
    Binlogs, Haulout, MariaDb, ServerOptions,
    binary::Running,
    binlog_streams, full,
    load::{assert_books_balance, make_bank, transfer},
    random::Random,
    scratch, wait,
};

/// Moments of an ordinary run, and of a full one.
const MOMENTS: usize = 6;
const MOMENTS_FULL: usize = 100;
/// Replication domains, each with a client of its own.
const DOMAINS: u64 = 3;
/// Transactions of a client before it looks whether it is to end.
const AT_ONCE: u64 = 25;
/// Transactions between one event and the next.
const STRETCH: u64 = 300;
const LIMIT: Duration = Duration::from_secs(120);

/// Statements of a client, in a domain of its own.
fn work(domain: u64, round: u64, random: &mut Random) -> String {
    let mut sql = format!("SET gtid_domain_id = {domain};");
    for _ in 0..AT_ONCE - 3 {
        sql += &transfer(random);
    }
    let table = format!("bank.of{domain}");
    sql + &format!(
        "CREATE TABLE IF NOT EXISTS {table} (id INT AUTO_INCREMENT PRIMARY KEY, text VARCHAR(99)) ENGINE=MyISAM;
         INSERT INTO {table} (text) VALUES ('round {round}'), (UUID());
         CREATE OR REPLACE TABLE {table}_{} AS SELECT * FROM {table} WHERE id > {round};",
        random.below(4)
    )
}

fn archiver(haulout: &Haulout, server: &MariaDb) -> Running {
    let arguments = [&["--json", "archive", "--every=1s"].map(str::to_owned)[..], &server.flags()].concat();
    haulout.spawn(arguments)
}

#[test]
fn random_moments_of_a_busy_server_are_as_a_replica_has_them() {
    let options = ServerOptions::new().tcp().argument("--log-bin=binlog").argument("--server-id=1");
    let (source, folder) = (MariaDb::with(options), scratch());
    source.sql(
        "CREATE USER replica@127.0.0.1 IDENTIFIED BY 'replica'; GRANT REPLICATION SLAVE ON *.* TO replica@127.0.0.1",
    );
    make_bank(&source);
    let replica = Replica::of(&source, ServerOptions::new());
    let haulout = Haulout::on(format!("file://{}", folder.path().join("repository").display()));
    haulout.run(["init"]).ok();
    let binlogs = Binlogs::at(&format!("file://{}", folder.path().join("repository").display()));
    let seed = 7;
    let (ended, done) = (AtomicBool::new(false), AtomicU64::new(0));
    let go_on = |more: u64| {
        let goal = done.load(Ordering::SeqCst) + more;
        wait::until("the load to go on", LIMIT, || (done.load(Ordering::SeqCst) >= goal).then_some(()));
    };
    let first = thread::scope(|scope| {
        for domain in 0..DOMAINS {
            let (client, ended, done) = (source.client(), &ended, &done);
            scope.spawn(move || {
                let mut random = Random::new(seed * 100 + domain);
                for round in 0.. {
                    if ended.load(Ordering::SeqCst) {
                        break;
                    }
                    client.sql(&work(domain, round, &mut random));
                    done.fetch_add(AT_ONCE, Ordering::SeqCst);
                }
            });
        }
        go_on(STRETCH);
        let first = haulout.backup(&source, &[]).ok().summary()["position"]["gtid"].as_str().unwrap().to_owned();
        let mut archiving = archiver(&haulout, &source);
        for turn in 0..4 {
            let stored = binlogs.count();
            go_on(STRETCH);
            if turn % 2 == 0 {
                // It dies with something done, and the other times with nothing.
                archiving.wait_for("more to be archived", |_| binlogs.count() > stored);
                go_on(STRETCH / 3);
            }
            // What died is gone on with by the next one; a lease that it left runs out for nobody but two of one server.
            archiving.kill9();
            if turn == 1 {
                source.sql("FLUSH BINARY LOGS");
            }
            if turn == 2 {
                haulout.backup(&source, &["--incremental"]).ok();
            }
            archiving = archiver(&haulout, &source);
        }
        go_on(STRETCH);
        ended.store(true, Ordering::SeqCst);
        archiving.interrupt();
        archiving.wait().ok();
        first
    });
    let once = [&["--json", "archive", "--once"].map(str::to_owned)[..], &source.flags()].concat();
    haulout.run(once).ok();

    let all = binlog_streams::gtids(&source);
    let backup: GtidSet = first.parse().unwrap();
    let place = |gtid: String| all.iter().position(|other| *other == gtid).unwrap();
    let begin = backup.iter().map(|gtid| place(gtid.to_string())).max().unwrap() + 1;
    let mut random = Random::new(seed);
    let count = if full() { MOMENTS_FULL } else { MOMENTS };
    let mut targets: Vec<usize> =
        (0..count).map(|_| begin + random.below((all.len() - begin) as u64) as usize).collect();
    targets.push(all.len() - 1);
    targets.sort_unstable();
    let mut backups: BTreeMap<String, usize> = BTreeMap::new();
    for target in &targets {
        let datadir = folder.path().join("restored");
        let gtid = &all[*target];
        let run = haulout.run(["--json", "restore", "--datadir", datadir.to_str().unwrap(), "--to-gtid", gtid]).ok();
        let summary = run.summary();
        *backups.entry(summary["backup_id"].to_string()).or_default() += 1;
        let position = summary["position"]["gtid"].as_str().unwrap();
        replica.advance(position).unwrap();
        let restored = MariaDb::on(&datadir, ServerOptions::new());
        assert_eq!(restored.checksums(), replica.server.checksums(), "{gtid}: {position}");
        assert_books_balance(&restored);
        assert_eq!(restored.check_all(), [""; 0], "{gtid}");
        drop(restored);
        fs::remove_dir_all(datadir).unwrap();
    }
    println!("{} moments of {} transactions, from backups {backups:?}", targets.len(), all.len() - begin);
    assert_eq!(replica.server.checksums(), source.checksums());
}
