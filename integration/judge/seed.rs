//! One run: a server under load, its backups, and the judgement of each.

use std::{fs, path::Path, time::Duration};

use serde_json::Value;
use tempfile::TempDir;

use super::{
    acts,
    changes::{self, Surroundings},
    chunks::Chunks,
    judges::{Judges, Taken},
    plan::{Before, Plan, Planned},
    replica::Replica,
    report::{Counts, MOST},
    tool::{Captured, GatedTool, Held},
};
use crate::support::{
    Haulout, Load, MariaDb,
    binary::Run,
    load::{make_bank, transfer},
    random::Random,
    scratch,
};

/// Number of the worker whose statements are DDL alone.
const DDL_WORKER: usize = 3;

/// Statements of each session before a backup, as many again while it runs, and fewer at each gate.
const STATEMENTS: u64 = 60;
const STATEMENTS_AT_GATE: u64 = 12;

/// Time for them, the machine being busy: what is late is done later.
const STEP_LIMIT: Duration = Duration::from_secs(20);
const GATE_LIMIT: Duration = Duration::from_secs(4);

/// How far the checkpoint must have moved in a window to count as far.
const FAR_BYTES: u64 = 1 << 20;

/// Streams are taken to be as long as this before the first of their kind.
const STREAM_BYTES: [u64; 2] = [60 << 20, 6 << 20];

/// What a run found.
#[derive(Debug, Default)]
pub struct Outcome {
    pub counts: Counts,
    pub faults: Vec<String>,
}

/// Runs `seed` to its end.
pub fn run(seed: u64) -> Outcome {
    let plan = Plan::of(seed);
    println!("seed {seed}: {plan:?}");
    let mut outcome = Outcome::default();
    let mut stage = Stage::new(&plan);
    let taken = stage.take_all(&plan, &mut outcome);
    outcome.counts.add("seeds", 1);
    let (site, source, replica) = (stage.folder, stage.source, stage.replica);
    let mut judges = Judges::new(&plan, site.path(), &stage.haulout, &replica);
    for taken in &taken {
        judges.judge(taken, &mut outcome);
    }
    let check = stage.haulout.run(["check", "--read-data"]);
    if check.code() != Some(0) {
        outcome.faults.push(format!("check --read-data: {}{}", check.stdout, check.stderr));
    }
    drop(source);
    for fault in &mut outcome.faults {
        *fault = format!("seed {seed}: {fault}");
    }
    keep(site, seed, !outcome.faults.is_empty());
    outcome
}

/// Keeps the folder of a run with faults in the folder that HAULOUT_JUDGE_KEEP names.
fn keep(folder: TempDir, seed: u64, faulty: bool) {
    let Some(place) = std::env::var_os("HAULOUT_JUDGE_KEEP").filter(|_| faulty) else { return };
    let from = folder.keep();
    let to = Path::new(&place).join(format!("seed-{seed}"));
    let _ = fs::remove_dir_all(&to);
    fs::rename(&from, &to).unwrap_or_else(|error| println!("{} stays: {error}", from.display()));
}

/// Everything that a run needs until it is judged.
struct Stage {
    source: MariaDb,
    replica: Replica,
    haulout: Haulout,
    tool: GatedTool,
    folder: TempDir,
    /// Length of the last stream of a full and of an incremental.
    lengths: [u64; 2],
    generation: u64,
}

impl Stage {
    fn new(plan: &Plan) -> Stage {
        let folder = scratch();
        let haulout = Haulout::on(format!("file://{}", folder.path().join("repository").display()));
        haulout.run(["init"]).ok();
        let options = plan.options().tcp();
        let options = ["--log-bin=binlog", "--server-id=1", "--binlog-format=ROW", "--sync-binlog=0"]
            .into_iter()
            .chain(["--innodb-undo-log-truncate=ON", "--innodb-max-undo-log-size=10485760"])
            .chain([
                "--loose-innodb-purge-rseg-truncate-frequency=1",
                "--innodb-log-file-size=96M",
                "--aria-log-file-size=8388608",
            ])
            .fold(options, |options, argument| options.argument(argument));
        let source = MariaDb::with(options);
        source.sql("GRANT REPLICATION SLAVE ON *.* TO replica@'%' IDENTIFIED BY 'replica'");
        let replica = Replica::of(&source, plan.options());
        make_bank(&source);
        source.sql(changes::setup());
        source.sql(changes::setup_imported());
        Stage {
            source,
            replica,
            haulout,
            tool: GatedTool::in_folder(folder.path()),
            folder,
            lengths: STREAM_BYTES,
            generation: 0,
        }
    }

    fn load(&self, seed: u64, plain: bool) -> Load {
        let around = || Surroundings { compressed: true, plain };
        let (one, two) = (around(), around());
        Load::of(
            &self.source.client(),
            STATEMENTS,
            [
                (seed, Box::new(transfer) as crate::support::load::Statements),
                (seed ^ 2, Box::new(changes::dml)),
                (seed ^ 3, Box::new(changes::dml)),
                (seed ^ 4, Box::new(move |random: &mut Random| changes::ddl(random, &one))),
                (seed ^ 5, Box::new(move |random: &mut Random| changes::ddl(random, &two))),
            ],
        )
    }

    fn take_all(&mut self, plan: &Plan, outcome: &mut Outcome) -> Vec<Taken> {
        let mut taken = Vec::new();
        for (number, planned) in plan.backups.iter().enumerate() {
            self.before(planned.before, outcome);
            let load = self.load(planned.seed, planned.plain);
            load.rest(STEP_LIMIT);
            acts::ready(&self.source);
            load.allow(STATEMENTS);
            let (run, mut streams) = self.backup(planned, &load, outcome);
            load.stop();
            for stream in &streams {
                count_chunks(stream, &mut outcome.counts);
            }
            match run.code() {
                Some(0) => {
                    let captured = streams.pop().expect("the tool ran");
                    self.count(&run, &captured, outcome);
                    taken.push(Taken::of(number, planned, run.summary(), captured));
                }
                _ => refused(number, &run, outcome),
            }
        }
        let truncations = self.source.error_log().matches("InnoDB: Truncated ").count();
        outcome.counts.add("undo_truncations", truncations as u64);
        taken
    }

    fn before(&mut self, before: Before, outcome: &mut Outcome) {
        match before {
            Before::Nothing => {}
            Before::Import => {
                self.generation += 1;
                let done = acts::import(&self.source, self.source.datadir(), self.generation);
                imported("imports_between", done, &mut outcome.counts);
            }
            Before::Undo => acts::fill_undo(&self.source),
            Before::Restart => {
                self.source.stop();
                self.source.restart();
                outcome.counts.add("restarts", 1);
            }
            Before::Crash => {
                self.source.kill9();
                self.source.restart();
                outcome.counts.add("crashes", 1);
            }
            Before::Checkpoint => drop(self.source.sql("SET GLOBAL innodb_log_checkpoint_now = ON")),
        }
    }

    fn backup(&mut self, planned: &Planned, load: &Load, outcome: &mut Outcome) -> (Run, Vec<Captured>) {
        let mut random = Random::new(planned.seed);
        let length = self.lengths[usize::from(!planned.full && self.generation_of_full_is_taken())];
        let gates: Vec<_> = planned.gates.iter().map(|part| 1 + length / 1000 * part).collect();
        let more: &[&str] = if planned.full { &["--full"] } else { &[] };
        let (source, generation, counts) = (&self.source, &mut self.generation, &mut outcome.counts);
        self.tool.backup(&self.haulout, source, more, &gates, |held: Held| {
            let midway = held.midway();
            acts::at_gate(source, &mut random, planned.plain && held.run == 0);
            if planned.aria_log && planned.plain && held.gate == 0 {
                acts::fill_aria_log(source, held.run == 0);
            }
            if planned.import && held.run == 0 && held.gate == 0 {
                *generation += 1;
                imported("imports_during", acts::import(source, source.datadir(), *generation), counts);
            }
            let before = load.done(DDL_WORKER);
            load.allow(STATEMENTS_AT_GATE);
            let idle = load.rest(GATE_LIMIT);
            let ddl = load.done(DDL_WORKER) - before;
            if idle && random.below(2) == 0 {
                source.sql("SET GLOBAL innodb_log_checkpoint_now = ON");
                load.allow(STATEMENTS_AT_GATE);
            }
            counts.add("gates_midway", u64::from(midway));
            counts.add("ddl_at_gates", if midway { ddl } else { 0 });
        })
    }

    fn generation_of_full_is_taken(&self) -> bool {
        self.lengths[0] != STREAM_BYTES[0]
    }

    /// Counts what the stream of a backup holds.
    fn count(&mut self, run: &Run, captured: &Captured, outcome: &mut Outcome) {
        let summary = run.summary();
        let full = summary["kind"] == "full";
        let counts = &mut outcome.counts;
        counts.add(if full { "backups_full" } else { "backups_incremental" }, 1);
        if full {
            counts.note("full", summary["reason"].as_str().unwrap_or_default());
        }
        let chunks = match Chunks::of(&captured.stream()) {
            Ok(chunks) => chunks,
            Err(error) => {
                return outcome.faults.push(format!("the stream of a committed backup cannot be parsed: {error}"));
            }
        };
        self.lengths[usize::from(!full)] = chunks.summary.bytes;
        let lsn = |name: &str| summary["lsn"][name].as_u64().expect("an LSN");
        if chunks.start != lsn("start") {
            outcome.faults.push(format!(
                "start checkpoint {} in the stream, {} in the summary",
                chunks.start,
                lsn("start")
            ));
        }
        let moved = lsn("to") - lsn("start");
        counts.add("checkpoint_far", u64::from(moved >= FAR_BYTES));
        counts.most(&format!("checkpoint_moved_bytes{MOST}"), moved);
    }
}

/// Counts what the stream of any run of the tool holds, whether or not a backup came of it.
fn count_chunks(captured: &Captured, counts: &mut Counts) {
    // A run that was stopped has no whole stream.
    let Ok(chunks) = Chunks::of(&captured.stream()) else { return };
    counts.add("streams", 1);
    for (name, number) in [
        ("chunks_payload", chunks.summary.payload_chunks),
        ("chunks_seek", chunks.summary.seek_chunks),
        ("chunks_rename", chunks.summary.rename_chunks),
        ("chunks_remove", chunks.summary.remove_chunks),
        ("chunks_void", chunks.summary.void_chunks),
        ("files_rewritten", chunks.rewritten),
        ("files_new", chunks.new),
        ("files_ren", chunks.renamed),
        ("files_del", chunks.deleted),
        ("stream_bytes", chunks.summary.bytes),
    ] {
        counts.add(name, number);
    }
    let said = captured.said();
    for (name, text) in [("created", "create"), ("renamed", "rename"), ("dropped", "delete")] {
        let line = format!("DDL tracking : {text} ");
        counts.add(&format!("{name}_in_window"), said.matches(&line).count() as u64);
    }
}

fn imported(name: &str, done: Result<(), String>, counts: &mut Counts) {
    match done {
        Ok(()) => counts.add(name, 1),
        Err(why) => counts.note("import", why),
    }
}

/// A backup that was not committed says why; that is right for what cannot be backed up, and a fault for all else.
fn refused(number: usize, run: &Run, outcome: &mut Outcome) {
    let error = run.messages.iter().rev().find(|message| message["message_type"] == "error");
    let error = error.cloned().unwrap_or(Value::Null);
    let text = format!("backup {number}: {} {} {}", error["code"], error["message"], error["causes"]);
    outcome.counts.add("backups_refused", 1);
    let told = error["message"].as_str().unwrap_or_default();
    let rightly =
        ["lost track of tables", "while commits were blocked", "an incremental backup is not safe", "could not open"];
    if matches!(error["code"].as_i64(), Some(21 | 23)) && rightly.iter().any(|reason| told.contains(reason)) {
        outcome.counts.note("refused", text);
    } else {
        outcome.faults.push(format!("{text}\n{}\n{}", run.stdout, run.stderr));
    }
}
