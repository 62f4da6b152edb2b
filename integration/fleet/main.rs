//! Writes a simulated fleet: repositories with real manifests, proofs, plans and documents of binary log, of servers that fare differently,
//! and no packs: `cargo bench --bench fleet -- DIRECTORY SERVERS [BACKUPS]`; `integration/fleet_bench.sh` measures the page of one. With
//! `-- serve DIRECTORY [TOKEN]` it serves the page of a fleet, and where a token is given, a made-up agent behind it: `integration/browser.sh` opens it.

mod agent;

use std::path::PathBuf;
use std::sync::Arc;

use haulout::format::{Manifest, Proof, PrunePlan, Segment};
use haulout::model::{BackupId, Entropy, SystemClock, Timestamp};
use haulout::repository::Repository;
use haulout::store::{Store, StoreOptions};
use object_store::local::LocalFileSystem;
use serde_json::{Value, json};

const DAY: i64 = 86_400;
/// Segments of each day of binary log: their documents are a row without a gap.
const SEGMENTS_PER_DAY: u32 = 6;
/// Days of binary log.
const BINLOG_DAYS: i64 = 8;

/// Numbers that are the same at each run: SplitMix64.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }

    /// Between 0 and 1.
    fn share(&mut self) -> f64 {
        self.below(1 << 30) as f64 / f64::from(1 << 30)
    }
}

struct Fixed(std::sync::Mutex<Dice>);

impl Entropy for Fixed {
    fn fill(&self, bytes: &mut [u8]) {
        let mut dice = self.0.lock().expect("no other thread died");
        bytes.iter_mut().for_each(|byte| *byte = dice.next() as u8);
    }
}

/// What is wrong with a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Fine,
    TooOld,
    DrillFailed,
    Gap,
    Unproven,
    NoBackup,
    Unreadable,
    NoArchive,
}

fn fate(number: usize, servers: usize) -> Fate {
    if servers == 1 {
        return Fate::Fine;
    }
    match number % 97 {
        11 => Fate::TooOld,
        23 => Fate::DrillFailed,
        31 | 77 => Fate::Gap,
        37 | 59 | 83 => Fate::Unproven,
        41 => Fate::NoBackup,
        47 if servers > 100 => Fate::Unreadable,
        _ if number % 9 == 4 => Fate::NoArchive,
        _ => Fate::Fine,
    }
}

fn time(at: Timestamp) -> Value {
    Value::String(at.whole_seconds().to_string())
}

fn document<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("a document of this version")
}

struct Server {
    repository: Repository,
    entropy: Arc<Fixed>,
    dice: Dice,
    host: String,
    fate: Fate,
    now: Timestamp,
    logical: f64,
}

impl Server {
    fn manifest(&mut self, at: Timestamp, parent: Option<&Manifest>, number: u64) -> Manifest {
        let full = parent.is_none();
        let seconds = (self.logical / 3e8) as i64 / if full { 1 } else { 9 } + 20 + self.dice.below(30) as i64;
        let id = BackupId::new(at.after(-seconds), &*self.entropy);
        let changed = if full && number == 0 {
            0.32
        } else if full {
            0.03
        } else {
            0.004 + 0.014 * self.dice.share()
        };
        let uploaded = (self.logical * changed) as u64;
        let lsn = 10_000_000_000 + number * 50_000_000;
        let mariadb = ["10.11.19-MariaDB", "11.4.8-MariaDB", "11.8.6-MariaDB"][self.host.len() % 3];
        document(json!({
            "repository_id": self.repository.config().repository_id, "id": id,
            "kind": if full { "full" } else { "incremental" },
            "reason": if full { "a full was asked for" } else { "the last backup is a safe base" },
            "parent": parent.map(|parent| parent.id.clone()),
            "depth": parent.map_or(0, |parent| parent.depth + 1),
            "started": time(at.after(-seconds)), "finished": time(at),
            "haulout_version": env!("CARGO_PKG_VERSION"), "tool_version": mariadb,
            "server": { "version": mariadb, "hostname": self.host, "server_id": 7, "datadir": "/var/lib/mysql/",
                "page_size": 16384, "data_file_path": "ibdata1:12M:autoextend", "undo_tablespaces": 3,
                "system_file": null, "datadir_mode": null, "directory_mode": null },
            "lsn": { "from": if full { 0 } else { lsn - 50_000_001 }, "start": lsn, "to": lsn + 900_000, "last": lsn + 1_000_000 },
            "redo": { "creator": "Backup", "encrypted": false, "bytes": 1_000_000 },
            "position": { "file": format!("{}-bin.{:06}", self.host, number + 1), "position": 4, "gtid": format!("0-7-{}", (at.0.as_second() - 1_700_000_000).max(1)) },
            "filters": [],
            "sizes": { "logical_bytes": self.logical as u64, "stream_bytes": uploaded * 3, "uploaded_bytes": uploaded,
                "stored_bytes": (self.logical * 0.33) as u64, "uploaded_packs": uploaded / (16 << 20) + 1 },
            "spaces": 412, "files": 97, "warnings": [],
            "map": { "chunk": "01".repeat(32), "raw_bytes": 300, "pack": "02".repeat(32), "pack_bytes": 1000,
                "offset": 100, "stored_bytes": 200, "encoding": "raw" }
        }))
    }

    async fn backups(&mut self, count: u64) -> Vec<Manifest> {
        let newest = match self.fate {
            Fate::TooOld => self.now.after(-(3 + self.dice.below(5) as i64) * DAY),
            _ => self.now.after(-(1 + self.dice.below(20) as i64) * 3600),
        };
        let mut backups: Vec<Manifest> = Vec::new();
        for number in 0..count {
            let at = newest.after(-((count - 1 - number) as i64) * DAY + self.dice.below(900) as i64 - 900);
            let parent = backups.last().filter(|_| number % 7 != 0).cloned();
            let manifest = self.manifest(at, parent.as_ref(), number);
            self.repository.commit(&manifest, parent.as_ref()).await.expect("a backup");
            backups.push(manifest);
            self.logical *= 1.0 + 0.006 * self.dice.share();
        }
        backups
    }

    async fn proofs(&mut self, backups: &[Manifest]) {
        let drilled: Vec<&Manifest> = backups.iter().rev().step_by(7).take(5).collect();
        for (place, backup) in drilled.iter().enumerate() {
            let passed = !(self.fate == Fate::DrillFailed && place == 0);
            let at = backup.finished.after(3 * 3600).min(self.now);
            let fetch = (self.logical * 0.33 / 1.1e8 * 1000.0 * (0.9 + 0.2 * self.dice.share())) as u64;
            let failures = if passed {
                json!([])
            } else {
                json!(["assertion `SELECT SUM(balance) = 0 FROM bank.account` came back with 0"])
            };
            let proof: Proof = document(json!({
                "repository_id": self.repository.config().repository_id, "id": BackupId::new(at, &*self.entropy),
                "backup": backup.id, "started": time(at.after(-900)), "finished": time(at), "passed": passed,
                "failures": failures, "warnings": [], "haulout_version": env!("CARGO_PKG_VERSION"),
                "tool_version": "10.11.19-MariaDB", "server_version": "10.11.19-MariaDB", "host": "drill1.example.com",
                "fetched_bytes": 1, "written_bytes": 2,
                "took": { "plan_ms": 900, "fetch_ms": fetch, "prepare_ms": 14_000, "start_ms": 1900, "check_ms": 90_000, "assert_ms": 12, "stop_ms": 900 },
                "tables": { "expected": 412, "found": 412, "views": 12, "checked": 400, "damaged": 0, "left_out": 0 },
                "spaces": { "expected": 400, "found": 400 }, "assertions": []
            }));
            self.repository.put_proof(&proof).await.expect("a proof");
        }
    }

    async fn plan(&mut self, backups: &[Manifest]) {
        let goes: Vec<Value> = backups
            .iter()
            .take(2)
            .map(|backup| json!({ "id": backup.id, "reason": "no rule keeps it", "named": false }))
            .collect();
        let mut plan: PrunePlan = document(json!({
            "id": BackupId::new(self.now, &*self.entropy), "created": time(self.now), "grace_seconds": 86_400,
            "haulout_version": env!("CARGO_PKG_VERSION"), "policy": ["--keep-daily 30"], "backups": goes, "parts": 0,
            "packs": 1200, "pack_bytes": 19_000_000_000_u64
        }));
        self.repository.put_plan(&mut plan, &[]).await.expect("a plan");
    }

    /// Streams: one, or two with a gap between them.
    async fn binlogs(&mut self) {
        let begin = self.now.after(-BINLOG_DAYS * DAY);
        let end = self.now.after(-(self.dice.below(90) as i64) - 5);
        let middle = self.now.after(-2 * DAY);
        if self.fate == Fate::Gap {
            self.stream(begin, middle.after(-5 * 3600), None).await;
            self.stream(middle, end, Some("the server has purged its binary logs up to db1-bin.000041")).await;
        } else {
            self.stream(begin, end, None).await;
        }
    }

    async fn stream(&mut self, begin: Timestamp, end: Timestamp, gap: Option<&str>) {
        let id = BackupId::new(begin, &*self.entropy);
        let step = DAY / i64::from(SEGMENTS_PER_DAY);
        let count = (end.seconds_since(begin) / step).max(1) as u32;
        let sequence = |at: Timestamp| (at.0.as_second() - 1_700_000_000).max(2);
        let gtid = |at: Timestamp| format!("0-7-{}", sequence(at));
        for number in 0..count {
            let from = begin.after(i64::from(number) * step);
            let to = if number + 1 == count { end } else { begin.after(i64::from(number + 1) * step - 1) };
            let mut segment = json!({
                "repository_id": self.repository.config().repository_id, "stream": id, "number": number,
                "source": { "hostname": self.host, "port": 3306, "server_id": 7, "version": "10.11.19-MariaDB-log" },
                "file": "db-bin.000042", "file_created": 1, "start": 342, "end": 88_061,
                "before": gtid(from.after(-1)), "after": gtid(to), "first_gtid": gtid(from), "last_gtid": gtid(to),
                "first_time": time(from), "last_time": time(to), "transactions": 900, "raw_bytes": 87_975,
                "sum": "11".repeat(32), "packs": [{ "pack": "ab".repeat(32), "bytes": 30_121 }], "archived": time(to)
            });
            if number > 0 {
                segment["previous"] = json!("11".repeat(32));
            } else if let Some(reason) = gap {
                segment["gap"] = json!({ "reason": reason, "after": gtid(from.after(-5 * 3600)) });
            }
            self.repository.put_segment(&document::<Segment>(segment)).await.expect("a segment");
        }
    }
}

async fn server(root: &std::path::Path, number: usize, servers: usize, backups: u64) {
    let (region, group) =
        (["eu-central", "eu-west", "us-east"][number % 3], ["shop", "billing", "search", "crm"][number / 3 % 4]);
    let name = format!("{group}-db{:03}", number + 1);
    let path = if servers == 1 { root.join("shop-db001") } else { root.join(region).join(&name) };
    std::fs::create_dir_all(&path).expect("a folder");
    let objects = LocalFileSystem::new_with_prefix(&path).expect("a folder");
    let store = Store::over(&format!("file://{}", path.display()), Arc::new(objects), StoreOptions::default());
    let mut dice = Dice(number as u64 * 7919 + 17);
    let entropy = Arc::new(Fixed(std::sync::Mutex::new(Dice(dice.next()))));
    let repository = Repository::init(store, &SystemClock, &*entropy).await.expect("a repository");
    let logical = 10f64.powf(9.6 + 2.4 * dice.share());
    let now = haulout::model::Clock::now(&SystemClock);
    let mut server = Server { repository, entropy, dice, host: name, fate: fate(number, servers), now, logical };
    if server.fate == Fate::NoBackup {
        return;
    }
    let all = server.backups(backups).await;
    if server.fate != Fate::Unproven {
        server.proofs(&all).await;
    }
    if number.is_multiple_of(5) {
        server.plan(&all).await;
    }
    if server.fate != Fate::NoArchive {
        server.binlogs().await;
    }
    if server.fate == Fate::Unreadable {
        std::fs::write(path.join("haulout.json"), "rot").expect("a file");
    }
}

fn main() {
    // What cargo adds.
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    if let [serve, directory, token @ ..] = args.as_slice()
        && serve == "serve"
    {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        return runtime.expect("a runtime").block_on(agent::run(directory, token.first().cloned()));
    }
    let [directory, servers, rest @ ..] = args.as_slice() else {
        eprintln!("usage: cargo bench --bench fleet -- DIRECTORY SERVERS [BACKUPS] | serve DIRECTORY [TOKEN]");
        return;
    };
    let servers: usize = servers.parse().expect("a number of servers");
    let backups: u64 = rest.first().map_or(35, |text| text.parse().expect("a number of backups"));
    let root = PathBuf::from(directory);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        for number in 0..servers {
            server(&root, number, servers, backups).await;
        }
    });
    println!("{servers} servers with {backups} backups each under {}", root.display());
}
