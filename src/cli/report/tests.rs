use std::path::PathBuf;

use super::{repair::NAMED_MAX, *};
use crate::{
    cli::{
        failure::Failure,
        output::{OutputOptions, tests::sheets},
        progress::{Status, Unit},
        samples::{incremental, manifest},
        snapshot,
    },
    copy::{Copied, CopyReport},
    drill::DrillPlan,
    error::Kind,
    format::{GtidPosition, ProofTables},
    mariadb::galera::GaleraState,
    model::{BackupId, LockMode, Lsn, RepositoryId, SlotId, Timestamp},
    prune::{CompactReport, Decided, Fate, Judged, Made, Planned, PruneReport, Skip, Swept, Usage},
    repository::RepositoryError,
    restore::{Aside, Moment, Remains, TableName},
    unhide::{self, Action},
};

fn id() -> BackupId {
    "20261122T020000Z-3f9a16".parse().unwrap()
}

fn transaction(gtid: &str, time: &str) -> Moment {
    Moment { gtid: gtid.parse().unwrap(), time: Timestamp(time.parse().unwrap()) }
}

/// `message` as text and as a JSON line.
fn both<M: Message>(message: &M, text: impl Fn(&M, Paint) -> String) -> (String, String) {
    let (output, out, _) = sheets(OutputOptions { json: true, ..OutputOptions::default() });
    output.json(message);
    (text(message, Paint::default()), out.text())
}

#[test]
fn every_summary_is_as_reviewed() {
    let full = manifest(21);
    let mut child = incremental(22, &full);
    child.warnings.push("table `shop`.`log` is not InnoDB: it was locked for 12s".to_owned());
    child.locked_until = Some(child.started.after(40 * 24 * 3600));
    let created = full.started;
    let slot = Some(SlotId([1, 2, 3, 4, 5, 6, 7, 8]));
    let position = GtidPosition { gtid: Some("0-1-8000022".to_owned()), ..GtidPosition::default() };
    let (datadir, target) = (PathBuf::from("/var/lib/mysql"), PathBuf::from("/restore/db1"));
    let (lsn, files, written_bytes, fetched_bytes, requests) =
        (Lsn(180_550_185), 2462, 128_849_018_880, 33_500_000_000, 2310);
    let parts = [
        both(
            &InitSummary {
                repository_id: full.repository_id,
                url: "s3://backups/db1".to_owned(),
                created,
                lock: None,
                key_id: None,
            },
            InitSummary::text,
        ),
        both(
            &InitSummary {
                repository_id: full.repository_id,
                url: "s3://backups/db1".to_owned(),
                created,
                lock: Some(LockPolicy { mode: LockMode::Compliance, days: 30.try_into().unwrap() }),
                key_id: None,
            },
            InitSummary::text,
        ),
        both(
            &InitSummary {
                repository_id: full.repository_id,
                url: "s3://backups/db1".to_owned(),
                created,
                key_id: slot,
                lock: None,
            },
            InitSummary::text,
        ),
        both(&key_line(created), |line, _| line.label.clone() + "\n"),
        both(&KeySummary::List { keys: 2, unreadable: 1, sealed: true }, KeySummary::text),
        both(&KeySummary::Changed(KeyChange { added: slot, removed: slot, remaining: None }), KeySummary::text),
        both(
            &KeySummary::Changed(KeyChange {
                added: slot,
                removed: None,
                remaining: Some("keys/0102030405060708.json".to_owned()),
            }),
            KeySummary::text,
        ),
        both(&BackupSummary::from(&full), BackupSummary::text),
        both(&BackupSummary::from(&child), BackupSummary::text),
        both(
            &RestorePlan {
                dry_run: true,
                backup_id: id(),
                datadir: datadir.clone(),
                work_dir: "/var/lib/.haulout".into(),
                lsn,
                replay: None,
                files,
                written_bytes,
                fetched_bytes,
                reused_bytes: 0,
                requests,
                free_bytes: 500 << 30,
                aside: None,
                terms: restore_terms::tests::ready(),
            },
            RestorePlan::text,
        ),
        both(
            &RestorePlan {
                dry_run: true,
                backup_id: id(),
                datadir: datadir.clone(),
                work_dir: "/var/lib/mysql.haulout".into(),
                lsn,
                replay: None,
                files,
                written_bytes: 1 << 30,
                fetched_bytes: 300 << 20,
                reused_bytes: written_bytes - (1 << 30),
                requests: 60,
                free_bytes: 5 << 30,
                aside: Some(Aside { directory: "/var/lib/mysql.haulout-aside".into(), files: 3, bytes: 12 << 20 }),
                terms: restore_terms::tests::ready(),
            },
            RestorePlan::text,
        ),
        both(
            &RestoreSummary {
                backup_id: id(),
                datadir: datadir.clone(),
                lsn,
                position,
                replay: Some(ReplayReport {
                    gtid: "0-1-207,3-1-7".parse().unwrap(),
                    segments: 1_207,
                    stored_bytes: 61 << 20,
                    last: Some(transaction("0-1-207", "2026-11-22T14:02:58Z")),
                    next: Some(transaction("0-1-208", "2026-11-22T14:03:00Z")),
                    transactions: Some(81_207),
                    replayed_bytes: Some(310 << 20),
                }),
                files,
                written_bytes,
                fetched_bytes,
                reused_bytes: 7 << 30,
                requests,
                seconds: 312.4,
                steps: StepSeconds { fetch: 290.1, prepare: 21.9, replay: 0.0, moving: 0.4 },
                aside: Some(Aside { directory: "/var/lib/mysql.haulout-aside".into(), files: 3, bytes: 12 << 20 }),
                replica: Some(ReplicaReport {
                    script: Some(datadir.join("haulout-replica.sql")),
                    statements: vec![
                        "SET GLOBAL gtid_slave_pos = '0-1-42'".to_owned(),
                        "CHANGE MASTER TO MASTER_HOST='db1', MASTER_USE_GTID=slave_pos".to_owned(),
                    ],
                    attached: None,
                }),
                galera: Some(GaleraReport::new(
                    GaleraState { uuid: "fa90272c-eaaf-11f1-91e9-26ecaaad0201".to_owned(), seqno: 42 },
                    &datadir,
                )),
            },
            RestoreSummary::text,
        ),
        both(
            &FetchSummary {
                backup_id: id(),
                target: target.clone(),
                tables: None,
                lsn,
                files,
                written_bytes,
                fetched_bytes,
                requests,
                seconds: 290.1,
            },
            FetchSummary::text,
        ),
        both(
            &FetchSummary {
                backup_id: id(),
                target: "/restore/tables".into(),
                tables: Some(3),
                lsn,
                files: 97,
                written_bytes: 700_000_000,
                fetched_bytes: 90_000_000,
                requests: 40,
                seconds: 3.3,
            },
            FetchSummary::text,
        ),
        both(&PrepareSummary { target: target.clone(), exported: false, lsn, seconds: 21.9 }, PrepareSummary::text),
        both(
            &PrepareSummary { target: "/restore/tables".into(), exported: true, lsn, seconds: 4.1 },
            PrepareSummary::text,
        ),
        both(
            &MoveSummary { action: MoveAction::Copied, target, datadir, files, written_bytes, seconds: 77.0 },
            MoveSummary::text,
        ),
        both(
            &RestoreTablePlan {
                dry_run: true,
                backup_id: id(),
                table: "shop.orders".to_owned(),
                target: "shop.orders_before".to_owned(),
                replaces: false,
                datadir: "/var/lib/mysql".into(),
                work_dir: "/var/lib/mysql.haulout-table".into(),
                table_bytes: 44 << 30,
                written_bytes: 45 << 30,
                fetched_bytes: 11 << 30,
                requests: 812,
                free_bytes: 500 << 30,
            },
            RestoreTablePlan::text,
        ),
        both(
            &RestoreTableSummary {
                backup_id: id(),
                table: "shop.orders".to_owned(),
                target: "shop.orders".to_owned(),
                replaced: true,
                datadir: "/var/lib/mysql".into(),
                table_bytes: 44 << 30,
                fetched_bytes: 11 << 30,
                requests: 812,
                triggers: vec!["audit".to_owned()],
                seconds: 401.0,
                steps: TableStepSeconds { fetch: 110.2, prepare: 14.9, import: 275.0 },
            },
            RestoreTableSummary::text,
        ),
        both(&unhidden(false, Action::Planned), Unhidden::text),
        both(&unhidden(true, Action::Unmarked), Unhidden::text),
        both(&unhidden(false, Action::Copied), Unhidden::text),
        both(&unhidden(true, Action::Left), Unhidden::text),
        both(&unhidden(false, Action::Beyond), Unhidden::text),
        both(
            &UnhideSummary {
                dry_run: false,
                objects: 2107,
                hidden: 2,
                overwritten: 1,
                brought_back: 2,
                left: 1,
                beyond: 1,
                seconds: 7.5,
            },
            UnhideSummary::text,
        ),
        both(&damage(), Damage::text),
        both(&manifest_damage(), Damage::text),
        both(&wreck(&["shop/orders.ibd"]), DamagedBackup::text),
        both(&wreck(&["shop/db.opt"]), DamagedBackup::text),
        both(&wreck(&["ibdata1", "mysql/user.frm", "shop/orders.ibd"]), DamagedBackup::text),
        both(&wreck(&[]), DamagedBackup::text),
        both(&DamagedBackup::new(id(), std::iter::empty(), None), DamagedBackup::text),
        both(&DamagedBackup::new(id(), std::iter::empty(), None).crowded(true), DamagedBackup::text),
        both(&repaired(2, Some("damage/20261122T070000Z-5e1f02.json")), CheckSummary::text),
        both(&repaired(0, Some("damage/20261122T080000Z-99ab01.json")), CheckSummary::text),
        both(&repaired(0, None), CheckSummary::text),
        both(&check(0), CheckSummary::text),
        both(&check(1), CheckSummary::text),
        both(
            &LockedCheckSummary {
                without_key: true,
                backups: 7,
                documents: 9,
                objects: 2100,
                bytes: 35_000_000_000,
                read_percent: 100,
                damaged_objects: 1,
                seconds: 60.0,
            },
            LockedCheckSummary::text,
        ),
        both(&finding(Level::Ok, "store.reachable", "s3://backups/db1 answers in 12 ms", None), |finding, paint| {
            finding.text(paint, None)
        }),
        both(
            &finding(
                Level::Warning,
                "store.conditional_put",
                "the store ignores If-None-Match",
                Some("keys are unique, so this is safe"),
            ),
            |finding, paint| finding.text(paint, None),
        ),
        both(
            &finding(
                Level::Problem,
                "server.privileges",
                "account backup@localhost lacks RELOAD",
                Some("GRANT RELOAD ON *.* TO backup@localhost"),
            ),
            |finding, paint| finding.text(paint, None),
        ),
        both(
            &DoctorSummary {
                ok: 12,
                skipped: 0,
                warnings: 1,
                problems: 1,
                problem_checks: vec!["server.privileges".to_owned()],
            },
            DoctorSummary::text,
        ),
    ];
    let text: Vec<String> = parts.iter().map(|(text, _)| text.clone()).collect();
    snapshot::check("summaries.txt", &text.join("\n"));
    snapshot::check("summaries.jsonl", &parts.map(|(_, json)| json).concat());
}

fn unhidden(hidden: bool, action: Action) -> Unhidden {
    Unhidden::from(&unhide::Finding { object: "packs/ba/baba".to_owned(), hidden, action })
}

fn key_line(created: Timestamp) -> KeyLine {
    KeyLine {
        key_id: SlotId([1, 2, 3, 4, 5, 6, 7, 8]),
        wraps: "all",
        method: "passphrase",
        created,
        label: "the safe".to_owned(),
        in_use: Some(true),
    }
}

fn damage() -> Damage {
    Damage {
        object: "packs/ba/baba".to_owned(),
        problem: "missing".to_owned(),
        backups: vec![id()],
        files: vec!["shop/orders.ibd".to_owned()],
        hint: None,
    }
}

fn manifest_damage() -> Damage {
    Damage {
        object: format!("backups/{}.json", id()),
        problem: "its body is whole, but the bytes around it are other".to_owned(),
        files: Vec::new(),
        hint: Some("an earlier version of the object brings the backup back".to_owned()),
        ..damage()
    }
}

/// A backup that has lost `files`.
fn wreck(files: &[&str]) -> DamagedBackup {
    let name = |table: &str| TableName { schema: "shop".to_owned(), table: table.to_owned() };
    let tables = ["orders", "items", "customers"].map(name);
    let mut remains = Remains::default();
    for table in tables {
        let hit =
            files.iter().any(|file| ["ibdata1", "shop/db.opt", &format!("shop/{}.ibd", table.table)].contains(file));
        if hit {
            remains.hit.insert(table)
        } else {
            remains.whole.insert(table)
        };
    }
    let needed_by_all = files.iter().filter(|file| !file.starts_with("shop/"));
    remains.needed_by_all = needed_by_all.map(|file| (*file).to_owned()).collect();
    DamagedBackup::new(id(), files.iter().copied(), Some(&remains))
}

fn repaired(damaged_packs: u64, recorded: Option<&str>) -> CheckSummary {
    let whole_backups: Names = (0..5).map(|number| format!("20261122T01000{number}Z-3f9a16")).collect();
    let repair = Some(Repair { whole_backups, damaged_packs, recorded: recorded.map(str::to_owned) });
    CheckSummary { repair, ..check(damaged_packs) }
}

#[test]
fn no_more_names_are_told_than_can_be_read() {
    let many: Names = (0..NAMED_MAX + 5).map(|number| format!("t{number}")).collect();
    let line = serde_json::to_value(&many).unwrap();
    assert_eq!((line["named"].as_array().unwrap().len(), &line["more"]), (NAMED_MAX, &serde_json::json!(5)));
}

fn check(damaged: u64) -> CheckSummary {
    CheckSummary {
        backups: 7,
        objects: 2100,
        bytes: 35_000_000_000,
        read_percent: if damaged == 0 { 100 } else { 0 },
        pages_checked: if damaged == 0 { 7_864_320 } else { 0 },
        chunks_not_opened: damaged * 5,
        unreferenced_objects: damaged * 2,
        unreferenced_bytes: damaged * 30_000_000,
        damaged_objects: damaged,
        damaged_backups: damaged,
        binlog_segments: 1200 * damaged.min(1),
        binlog_bytes_read: 0,
        repair: None,
        seconds: 4.2,
    }
}

fn finding(level: Level, check: &str, message: &str, hint: Option<&str>) -> Finding {
    Finding { check: check.to_owned(), level, message: message.to_owned(), hint: hint.map(str::to_owned) }
}

fn moment(text: &str) -> Timestamp {
    Timestamp(text.parse().unwrap())
}

/// A prune that carried a plan out and made another.
fn pruned() -> PruneReport {
    let decided = |day: u32, fate: Fate, planned: Option<Planned>| {
        let mut manifest = manifest(day);
        manifest.tags = if day == 16 { vec!["release".to_owned()] } else { Vec::new() };
        let judged = Judged { id: manifest.id.clone(), fate, protected: None };
        Decided {
            judged,
            manifest: Some(Box::new(manifest)),
            planned,
            superseded: Vec::new(),
            damaged: Vec::new(),
            stored: None,
        }
    };
    let goes = || Fate::Goes { reason: "no rule keeps it".to_owned(), named: false };
    let stays = |reasons: &[&str]| Fate::Stays(reasons.iter().map(ToString::to_string).collect());
    let planned = |plan: &str, due: &str| {
        Some(Planned {
            plan: plan.parse().unwrap(),
            due: moment(due),
            reason: "no rule keeps it".to_owned(),
            named: false,
        })
    };
    let (first, second) = ("20261119T030000Z-3f9a77", "20261121T030000Z-3f9a78");
    let mut damaged = decided(15, stays(&["damaged: rules do not judge it"]), None);
    damaged.manifest = None;
    PruneReport {
        backups: vec![
            decided(14, goes(), planned(first, "2026-11-20T03:00:00Z")),
            damaged,
            decided(16, stays(&["tag release"]), None),
            decided(17, goes(), planned(second, "2026-11-22T03:00:00Z")),
            decided(18, goes(), None),
            decided(21, stays(&["the newest backup", "last", "daily 2026-11-21"]), None),
        ],
        swept: vec![Swept {
            plan: first.parse().unwrap(),
            backups: vec![manifest(14).id],
            editions: 0,
            spared: Vec::new(),
            packs: 120,
            pack_bytes: 2_000_000_000,
            locked_packs: 2,
            locked_until: Some(moment("2026-12-20T03:00:00Z")),
            segments: 17_000,
            segment_bytes: 300_000_000,
        }],
        skipped: vec![
            Skip::new("the manifest of backup 20261115T020000Z-3f9a0f cannot be read".to_owned())
                .with_hint("`haulout check` tells what is wrong"),
        ],
        made: Some(Made {
            plan: Some("20261121T090000Z-3f9a79".parse().unwrap()),
            backups: vec![manifest(18).id],
            editions: 3,
            packs: 7,
            pack_bytes: 100_000_000,
            segments: 1200,
            segment_bytes: 20_000_000,
            due: moment("2026-11-22T09:00:00Z"),
        }),
        waiting: 2,
        put_off: None,
    }
}

#[test]
fn what_prune_tells_is_as_reviewed() {
    let report = pruned();
    let mut dry = pruned();
    (dry.swept, dry.skipped) = (Vec::new(), Vec::new());
    dry.made.as_mut().unwrap().plan = None;
    let nothing = PruneReport { put_off: Some("haulout 4711 on db1".to_owned()), ..PruneReport::default() };
    let mut texts = String::new();
    let mut lines = String::new();
    for (report, dry_run) in [(&report, false), (&dry, true), (&nothing, false)] {
        let (output, out, err) = sheets(OutputOptions { columns: Some(110), ..OutputOptions::default() });
        let finish = crate::cli::commands::prune::tell(report, dry_run, 3.5, &output);
        assert_eq!(finish.exit_code(), if report.skipped.is_empty() { 0 } else { 3 });
        texts += &format!("{}--- stderr\n{}\n", out.text(), err.text());
        let (output, out, _) = sheets(OutputOptions { json: true, ..OutputOptions::default() });
        crate::cli::commands::prune::tell(report, dry_run, 3.5, &output);
        lines += &out.text();
    }
    let (text, json) = both(&UndeleteSummary { backups: vec![id()] }, UndeleteSummary::text);
    snapshot::check("prune.txt", &(texts + &text));
    snapshot::check("prune.jsonl", &(lines + &json));
}

#[test]
fn what_compact_tells_is_as_reviewed() {
    let usage = |packs, bytes, live_bytes| Usage { packs, bytes, live_bytes, dead_bytes: bytes - live_bytes };
    let cost = |fetched_bytes, requests, pieces| Some(RestoreCost { fetched_bytes, requests, pieces });
    let report = CompactReport {
        chosen: Some(id()),
        backups: 30,
        before: usage(2400, 40_000_000_000, 31_000_000_000),
        after: Some(usage(2010, 33_700_000_000, 33_500_000_000)),
        data_packs: 640,
        map_packs: 20,
        moved_chunks: 5_200,
        merged_extents: 2_300,
        written_packs: 250,
        written_bytes: 4_100_000_000,
        editions: vec![manifest(21).id, id()],
        left: 7,
        skipped: vec![Skip::new("pack abab is left as it is: it is damaged".to_owned())],
        put_off: None,
    };
    let dry = CompactReport {
        after: None,
        written_packs: 0,
        written_bytes: 0,
        left: 0,
        skipped: Vec::new(),
        ..report.clone()
    };
    let idle = CompactReport { editions: Vec::new(), before: usage(10, 1000, 990), ..dry.clone() };
    let put_off = CompactReport { put_off: Some("haulout 4711 on db1".to_owned()), ..CompactReport::default() };
    let before = || cost(34_000_000_000, 9_000, 80_000);
    let (mut texts, mut lines) = (String::new(), String::new());
    for (report, dry_run, restore) in [
        (&report, false, (before(), cost(33_000_000_000, 4_300, 31_000))),
        (&dry, true, (before(), None)),
        (&idle, false, (before(), None)),
        (&put_off, false, (None, None)),
        (&CompactReport::default(), false, (None, None)),
    ] {
        let (output, out, err) = sheets(OutputOptions::default());
        let finish = crate::cli::commands::compact::tell(report, dry_run, restore, 3.5, &output);
        assert_eq!(finish.exit_code(), if report.skipped.is_empty() { 0 } else { 3 });
        texts += &format!("{}--- stderr\n{}\n", out.text(), err.text());
        let (output, out, _) = sheets(OutputOptions { json: true, ..OutputOptions::default() });
        crate::cli::commands::compact::tell(report, dry_run, restore, 3.5, &output);
        lines += &out.text();
    }
    snapshot::check("compact.txt", &texts);
    snapshot::check("compact.jsonl", &lines);
}

#[test]
fn what_drill_tells_is_as_reviewed() {
    let plan = DrillPlan {
        files: 2462,
        written_bytes: 128_849_018_880,
        fetched_bytes: 33_500_000_000,
        requests: 2310,
        needed_bytes: 140_000_000_000,
        free_bytes: 500 << 30,
    };
    let mut stopped = crate::format::proof_example();
    stopped.failures = vec!["pack abab is missing".to_owned()];
    stopped.more_failures = 7;
    (stopped.assertions, stopped.sample) = (Vec::new(), None);
    (stopped.took.prepare_ms, stopped.took.start_ms) = (0, 0);
    stopped.tables = ProofTables { expected: 900, ..ProofTables::default() };
    let (passed, failed) = (crate::format::proof_passing(), crate::format::proof_example());
    let key = || Some("proofs/20261122T020000Z-3f9a16-20261122T053000Z-7c01d2.json".to_owned());
    let parts = [
        both(&DrillPlanSummary::of(&plan, id(), "/srv/drill".into()), DrillPlanSummary::text),
        both(&DrillSummary::of(&passed, key(), 801.3), DrillSummary::text),
        both(&DrillSummary::of(&failed, key(), 801.3), DrillSummary::text),
        both(&DrillSummary::of(&stopped, None, 292.0), DrillSummary::text),
    ];
    let text: Vec<String> = parts.iter().map(|(text, _)| text.clone()).collect();
    snapshot::check("drill.txt", &text.join("\n"));
    snapshot::check("drill.jsonl", &parts.map(|(_, json)| json).concat());
}

#[test]
fn what_copy_tells_is_as_reviewed() {
    let copied = |day, packs, bytes| Copied { id: manifest(day).id, edition: day % 2, packs, bytes };
    let report = CopyReport {
        made: true,
        source_backups: 12,
        copy_backups: 2,
        latest: Some(manifest(21).id),
        copied: vec![copied(20, 1998, 33_500_000_000), copied(21, 12, 190_000_000)],
        packs: 2010,
        bytes: 33_690_000_000,
        slots: 0,
        skipped: vec![crate::copy::Skip {
            backup: Some(manifest(18).id),
            message: "backup 20261118T020000Z-3f9a12 is not copied: pack baba is damaged".to_owned(),
            hint: Some("`haulout check --read-data` tells what is wrong with it".to_owned()),
        }],
        let_go: vec![manifest(19).id],
        behind: Vec::new(),
        binlogs: crate::copy::CopiedBinlogs { segments: 17_280, bytes: 900_000_000, left_out: 0 },
    };
    let (made, skipped, copy_backups, latest) = (false, Vec::new(), 0, None);
    let behind = vec![manifest(20).id, manifest(21).id];
    let dry = CopyReport { made: true, skipped, copy_backups, latest, behind, ..report.clone() };
    let idle = CopyReport { made, copied: Vec::new(), packs: 0, bytes: 0, skipped: Vec::new(), ..report.clone() };
    let idle = CopyReport { binlogs: crate::copy::CopiedBinlogs { segments: 0, bytes: 0, left_out: 12 }, ..idle };
    let (mut texts, mut lines) = (String::new(), String::new());
    for (report, dry_run) in [(&report, false), (&dry, true), (&idle, false), (&idle, true)] {
        let told = || crate::cli::commands::copy::Told {
            report,
            repository_id: RepositoryId([0x5a; 16]),
            url: "s3://backups/db1",
            to: "s3://backups-west/db1",
        };
        let (output, out, err) = sheets(OutputOptions::default());
        let finish = crate::cli::commands::copy::tell(&told(), dry_run, 340.5, &output);
        assert_eq!(finish.exit_code(), if report.skipped.is_empty() { 0 } else { 3 });
        texts += &format!("{}--- stderr\n{}\n", out.text(), err.text());
        let (output, out, _) = sheets(OutputOptions { json: true, ..OutputOptions::default() });
        crate::cli::commands::copy::tell(&told(), dry_run, 340.5, &output);
        lines += &out.text();
    }
    snapshot::check("copy.txt", &texts);
    snapshot::check("copy.jsonl", &lines);
}

#[test]
fn everything_about_a_backup_is_as_reviewed() {
    let manifest = incremental(22, &manifest(21));
    snapshot::check("show.txt", &details(&manifest, &[], Paint::default()));
    let proofs = [crate::format::proof_example(), crate::format::proof_passing()];
    snapshot::check("show-proven.txt", &details(&manifest, &proofs, Paint::default()));
    let (output, out, _) = sheets(OutputOptions { json: true, ..OutputOptions::default() });
    output.json(&BackupLine::of(&manifest, None));
    snapshot::check("show.jsonl", &out.text());
}

#[test]
fn show_has_the_lsns_of_xtrabackup_checkpoints() {
    let (parent, text) = (manifest(21), details(&incremental(22, &manifest(21)), &[], Paint::default()));
    let squeezed = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let from = parent.lsn.start.0 - 1;
    assert!(squeezed.contains(&format!("backup_type = incremental from_lsn = {from} to_lsn = ")), "{text}");
}

#[test]
fn what_is_told_on_the_way_and_of_a_failure_is_as_reviewed() {
    let (output, out, _) = sheets(OutputOptions { json: true, ..OutputOptions::default() });
    let (done, total) = (1 << 30, Some(120 << 30));
    output.json(&Status { phase: "capture", done, total, unit: Unit::Bytes, seconds: 4.1, ended: false });
    output.json(&Status { phase: "check", done: 7, total: None, unit: Unit::Objects, seconds: 0.3, ended: true });
    output.note("full: there is no backup yet");
    output.warn("mariadb-backup 10.11.6 is older than the server 10.11.19: install the same version");
    output.failure(&Failure::new(Kind::Failed, "nothing was done"));
    let cause = RepositoryError::PackMissing { pack: crate::model::PackId([0xba; 32]) };
    output.failure(&Failure::from(crate::backup::BackupError::from(cause)));
    snapshot::check("messages.jsonl", &out.text());
}

#[test]
fn the_schedule_and_the_settings_as_json_and_for_people() {
    let (output, out, _) = sheets(OutputOptions { json: true, ..OutputOptions::default() });
    let planned = PlannedLine {
        job: crate::web::service::Job::Backup,
        full: true,
        schedule: "0 2 * * 0".to_owned(),
        zone: "Europe/Berlin".to_owned(),
        next: vec![Timestamp("2026-11-29T01:00:00Z".parse().unwrap())],
    };
    let check = ConfigCheckSummary {
        file: "/etc/haulout.toml".to_owned(),
        server: "db1".to_owned(),
        url: "s3://backups/db1".to_owned(),
        planned: 1,
        archive: true,
    };
    let (set, unset) = (
        SettingLine {
            key: "[agent] name".to_owned(),
            value: Some("db1".to_owned()),
            origin: Some("/etc/haulout.toml:3".to_owned()),
        },
        SettingLine { key: "[s3] region".to_owned(), value: None, origin: None },
    );
    let show = ConfigShowSummary { file: Some("/etc/haulout.toml".to_owned()), settings: 90, set: 12 };
    output.json(&planned);
    output.json(&check);
    output.json(&set);
    output.json(&unset);
    output.json(&show);
    let figures = crate::cli::figures::FiguresLine::default();
    output.json(&figures);
    snapshot::check("config.jsonl", &out.text());
    let text = [planned.text(), check.text(), set.text(), unset.text(), show.text()].concat();
    snapshot::check("config.txt", &text);
}

#[test]
fn every_message_type_and_field_is_documented() {
    let documentation = include_str!("../OUTPUT.md");
    let names = [
        "summaries",
        "messages",
        "archive",
        "show",
        "list",
        "list-damaged",
        "list-proven",
        "drill",
        "tables",
        "restore-plan",
        "prune",
        "compact",
        "copy",
        "list-copy",
        "binlog-list",
        "config",
    ];
    for name in names.map(|name| format!("{name}.jsonl")) {
        let path = format!("{}/src/cli/snapshots/{name}", env!("CARGO_MANIFEST_DIR"));
        for line in std::fs::read_to_string(path).unwrap().lines() {
            let value: serde_json::Value = serde_json::from_str(line).unwrap();
            let kind = value["message_type"].as_str().unwrap();
            assert!(documentation.contains(&format!("`{kind}`")), "{kind}");
            fields(&value, &mut |field| {
                assert!(documentation.contains(&format!("`{field}`")), "{kind}: {field}");
            });
        }
    }
}

/// Calls `see` with the name of each field in `value`, and in the objects in it.
fn fields(value: &serde_json::Value, see: &mut dyn FnMut(&str)) {
    for (name, value) in value.as_object().into_iter().flatten() {
        see(name);
        fields(value, see);
    }
}

#[test]
fn every_exit_code_is_documented() {
    let documentation = include_str!("../OUTPUT.md");
    for kind in crate::cli::commands::man::EXIT_KINDS {
        let row = format!("| {} | `{}` |", kind.exit_code(), kind.name());
        assert!(documentation.contains(&row), "OUTPUT.md lacks {row}");
    }
}
