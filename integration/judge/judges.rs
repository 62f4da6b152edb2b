//! Restores a backup and holds it against the stock tools' restore and against the replica.

use std::{
    fs,
    path::{Path, PathBuf},
};

use haulout::mariadb::control::BINLOG_INFO_NAMES;
use serde_json::Value;

use super::{
    changes::IMPORTED_WRONG,
    plan::{Plan, Planned},
    replica::Replica,
    seed::Outcome,
    state::{Difference, Kind, State, rows},
    stock::{Chain, Unable},
    tool::Captured,
};
use crate::support::{Haulout, MariaDb, ServerOptions, binary::Run, load::assert_books_balance};

/// Memory for the prepare: so little that long redo logs are taken in parts, and so much that none is.
const LITTLE_MEMORY: &str = "64MiB";
const MUCH_MEMORY: &str = "512MiB";

/// A committed backup and the stream that it was made of.
#[derive(Debug)]
pub struct Taken {
    number: usize,
    id: String,
    full: bool,
    in_one: bool,
    gtid: String,
    binlog: String,
    captured: Captured,
}

impl Taken {
    pub fn of(number: usize, planned: &Planned, summary: &Value, captured: Captured) -> Taken {
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let position = &summary["position"];
        Taken {
            number,
            id: text(&summary["backup_id"]),
            full: summary["kind"] == "full",
            in_one: planned.in_one,
            gtid: text(&position["gtid"]),
            binlog: format!(
                "{}\t{}\t{}",
                text(&position["file"]),
                text(&position["position"]),
                text(&position["gtid"])
            ),
            captured,
        }
    }
}

/// Both judges of one run.
pub struct Judges<'a> {
    options: ServerOptions,
    folder: &'a Path,
    haulout: &'a Haulout,
    replica: &'a Replica,
    chain: Option<Chain>,
    /// Why the replica can judge no more.
    lost: Option<String>,
}

/// What the stock tools made of a backup.
enum Stock {
    Runs { server: Box<MariaDb>, datadir: PathBuf },
    Cannot,
}

impl<'a> Judges<'a> {
    pub fn new(plan: &Plan, folder: &'a Path, haulout: &'a Haulout, replica: &'a Replica) -> Judges<'a> {
        Judges { options: plan.options(), folder, haulout, replica, chain: None, lost: None }
    }

    /// Judges one backup; those of a run come in their order.
    pub fn judge(&mut self, taken: &Taken, outcome: &mut Outcome) {
        let name = format!("backup {} ({})", taken.number, if taken.full { "full" } else { "incremental" });
        let before = outcome.faults.len();
        let datadir = self.folder.join(format!("ours-{}", taken.number));
        let ours = self.restored(taken, &datadir, outcome);
        let stock = self.stock(taken, &name, outcome);
        let Some(ours) = ours else { return };
        let state = State::of(&ours);
        outcome.counts.add("backups_restored", 1);
        outcome.counts.add("tables_compared", state.tables() as u64);
        check_inside(&ours, &name, outcome);
        let from_replica = self.against_replica(taken, &ours, &state, &name, outcome);
        self.against_stock(stock, &datadir, &state, from_replica.as_deref(), &name, outcome);
        drop(ours);
        let spotless = outcome.faults.len() == before;
        if spotless {
            let _ = fs::remove_dir_all(&datadir);
        }
    }

    /// Runs a restore, or its steps, with so much memory for the prepare.
    fn restoring(&self, taken: &Taken, place: &str, memory: &str) -> Vec<Run> {
        let memory = format!("--use-memory={memory}");
        if taken.in_one {
            return vec![self.haulout.run(["restore", "--backup", &taken.id, "--datadir", place, &memory])];
        }
        let fetch = self.haulout.run(["fetch", "--backup", &taken.id, "--target", place]);
        let prepare = (fetch.code() == Some(0)).then(|| self.haulout.run(["prepare", "--target", place, &memory]));
        std::iter::once(fetch).chain(prepare).collect()
    }

    /// Restores with haulout and starts a server; none is a fault.
    fn restored(&self, taken: &Taken, datadir: &Path, outcome: &mut Outcome) -> Option<MariaDb> {
        let place = datadir.to_str().unwrap();
        let mut runs = self.restoring(taken, place, LITTLE_MEMORY);
        let is_spoilt = |run: &Run| {
            let said = run.stdout.clone() + &run.stderr;
            said.contains("left the wrong tablespace") || said.contains("of memory for a redo log of")
        };
        if runs.iter().any(is_spoilt) {
            // Recovery in parts spoils files that are made and renamed meanwhile, and calls pages corrupted; that is said, and with more
            // memory it does neither.
            outcome.counts.add("prepares_spoilt_by_little_memory", 1);
            let _ = fs::remove_dir_all(datadir);
            runs = self.restoring(taken, place, MUCH_MEMORY);
        }
        let number = taken.number;
        if let Some(run) = runs.iter().find(|run| run.code() != Some(0)) {
            outcome.faults.push(format!("backup {number} is not restored: {}{}", run.stdout, run.stderr));
            return None;
        }
        // What is restored in one has no such files in its datadir, as after the stock tool's move.
        let found = binlog_info(datadir);
        if !taken.in_one && found.as_deref() != Some(taken.binlog.as_str()) {
            outcome
                .faults
                .push(format!("backup {number} is at {:?} by its summary, at {found:?} by its files", taken.binlog));
        }
        match MariaDb::try_on(datadir, self.options.clone()) {
            Ok(server) => Some(server),
            Err(log) => {
                outcome.faults.push(format!("backup {number} does not start: {log}"));
                None
            }
        }
    }

    fn stock(&mut self, taken: &Taken, name: &str, outcome: &mut Outcome) -> Stock {
        let stream = taken.captured.stream();
        let result = if taken.full {
            let target = self.folder.join(format!("chain-{}", taken.number));
            let (chain, result) = Chain::full(&target, &stream);
            self.chain = Some(chain);
            result
        } else {
            let folder = self.folder.join(format!("increment-{}", taken.number));
            let chain = self.chain.as_mut().expect("an incremental comes after a full");
            chain.increment(&folder, &stream)
        };
        let counts = &mut outcome.counts;
        if let Some(why) = self.chain.as_mut().and_then(|chain| chain.mbstream.take()) {
            counts.add("stock_mbstream_fails", 1);
            counts.note("stock", format!("{name} mbstream: {why}"));
        }
        match result {
            Ok(()) => {}
            Err(Unable::Spoilt) => {
                counts.add("stock_spoilt_before", 1);
                return Stock::Cannot;
            }
            Err(Unable::Extract(why)) => {
                counts.add("stock_cannot_extract", 1);
                counts.note("stock", format!("{name} extract: {why}"));
                return Stock::Cannot;
            }
            Err(Unable::Prepare(why)) => {
                counts.add("stock_cannot_prepare", 1);
                counts.note("stock", format!("{name} prepare: {why}"));
                return Stock::Cannot;
            }
        }
        let datadir = self.folder.join(format!("stock-{}", taken.number));
        self.chain.as_ref().expect("a chain").copy(&datadir);
        match MariaDb::try_on(&datadir, self.options.clone()) {
            Ok(server) => Stock::Runs { server: Box::new(server), datadir },
            Err(log) => {
                counts.add("stock_cannot_start", 1);
                counts.note("stock", format!("{name} start: {log}"));
                let _ = fs::remove_dir_all(&datadir);
                Stock::Cannot
            }
        }
    }

    /// What is not as the replica has it; none when the replica cannot judge.
    fn against_replica(
        &mut self,
        taken: &Taken,
        ours: &MariaDb,
        state: &State,
        name: &str,
        outcome: &mut Outcome,
    ) -> Option<Vec<Difference>> {
        if self.lost.is_none() {
            self.lost = self.replica.advance(&taken.gtid).err();
            if let Some(why) = &self.lost {
                outcome.counts.note("replica", format!("{name}: {why}"));
            }
        }
        if self.lost.is_some() {
            outcome.counts.add("replica_cannot_judge", 1);
            return None;
        }
        outcome.counts.add("replica_judged", 1);
        let replica = State::of(&self.replica.server);
        let mut different = state.differences(&replica, replicated);
        // A checksum also tells how rows are stored; rows alone must be alike.
        different.retain_mut(|found| {
            let alike = found.kind == Kind::Rows && only_rows(ours, &self.replica.server, found);
            outcome.counts.add("tables_compared_by_rows", u64::from(alike));
            !alike
        });
        if different.is_empty() {
            outcome.counts.add("replica_agrees", 1);
        } else {
            outcome.faults.push(format!("{name} is not as the replica at {}: {}", taken.gtid, told(&different)));
        }
        Some(different)
    }

    fn against_stock(
        &self,
        stock: Stock,
        datadir: &Path,
        state: &State,
        from_replica: Option<&[Difference]>,
        name: &str,
        outcome: &mut Outcome,
    ) {
        let agreed = from_replica.is_some_and(<[_]>::is_empty);
        let counts = &mut outcome.counts;
        let Stock::Runs { server, datadir: theirs } = stock else {
            counts.add("stock_failed_ours_passed", u64::from(agreed));
            return;
        };
        counts.add("stock_judged", 1);
        let different = state.differences(&State::of(&server), |_, _| true);
        let complaints = server.check_all();
        if !complaints.is_empty() {
            counts.add("stock_restores_damaged", 1);
            counts.note("stock", format!("{name} check: {}", complaints.join(" | ")));
        }
        drop(server);
        let positions = [datadir, &theirs].map(positions);
        if positions[0].1.is_some() && positions[0] != positions[1] {
            outcome.faults.push(format!("{name}: binlog positions {:?}, stock {:?}", positions[0], positions[1]));
        }
        let _ = fs::remove_dir_all(&theirs);
        if different.is_empty() {
            counts.add("stock_agrees", 1);
        } else if agreed && different.iter().all(|found| settled(found, &different)) {
            counts.add("stock_differs_replica_is_as_ours", 1);
            counts.note("stock", format!("{name} differs: {}", told(&different)));
        } else {
            outcome.faults.push(format!("{name} is not as stock's: {}", told(&different)));
        }
    }
}

/// True when the rows are alike; else `found` tells how many each has, and a few that the other has not.
fn only_rows(ours: &MariaDb, theirs: &MariaDb, found: &mut Difference) -> bool {
    let (Ok(one), Ok(other)) = (rows(ours, &found.name), rows(theirs, &found.name)) else { return false };
    let only = |these: &[String], those: &[String]| {
        let lacking: Vec<_> = these.iter().filter(|row| those.binary_search(row).is_err()).collect();
        let some: Vec<_> = lacking.iter().take(2).map(|row| row.chars().take(80).collect::<String>()).collect();
        format!("{} rows, {} alone here: {some:?}", these.len(), lacking.len())
    };
    if one == other {
        return true;
    }
    (found.one, found.other) = (Some(only(&one, &other)), Some(only(&other, &one)));
    false
}

/// True for what a replica must have as its source had it.
fn replicated(kind: Kind, name: &str) -> bool {
    let imported = name.starts_with("`imported`") || name.split('.').next() == Some("imported");
    !imported && !matches!(kind, Kind::Own | Kind::AutoIncrement | Kind::EventStatus)
}

/// True when that a replica is as ours settles a difference from stock's: the replica must have it as the source had, or it is
/// said of a table that stock has lost.
fn settled(found: &Difference, different: &[Difference]) -> bool {
    let lost = |table: &Difference| table.kind == Kind::Table && table.name == found.name;
    replicated(found.kind, &found.name) || (found.other.is_none() && different.iter().any(lost))
}

/// What must hold in any restored server.
fn check_inside(ours: &MariaDb, name: &str, outcome: &mut Outcome) {
    let complaints = ours.check_all();
    if !complaints.is_empty() {
        outcome.faults.push(format!("{name}: CHECK TABLE: {}", complaints.join(" | ")));
    }
    if std::panic::catch_unwind(|| assert_books_balance(ours)).is_err() {
        outcome.faults.push(format!("{name}: the bank's books do not balance"));
    }
    let wrong = ours.try_sql(IMPORTED_WRONG);
    if wrong.as_deref().map(str::trim) != Ok("0") {
        outcome.faults.push(format!("{name}: imported rows are wrong: {wrong:?}"));
    }
}

fn told(different: &[Difference]) -> String {
    let some: Vec<_> = different.iter().take(12).map(|found| format!("{found:.300?}")).collect();
    format!("{} things: {}", different.len(), some.join("; "))
}

fn binlog_info(datadir: &Path) -> Option<String> {
    let read = |name: &&str| fs::read_to_string(datadir.join(name)).ok();
    BINLOG_INFO_NAMES.iter().find_map(read).map(|text| text.trim().to_owned())
}

/// What prepare found of the binlog's position in InnoDB, and what the tool wrote down.
fn positions(datadir: &Path) -> (Option<String>, Option<String>) {
    let names = ["xtrabackup_binlog_pos_innodb", "mariadb_backup_binlog_pos_innodb"];
    (names.iter().find_map(|name| fs::read_to_string(datadir.join(name)).ok()), binlog_info(datadir))
}
