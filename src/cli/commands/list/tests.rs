use super::*;
use crate::{
    cli::{
        output::{OutputOptions, tests::sheets},
        samples::{incremental, manifest},
        snapshot,
    },
    error::Kind,
    model::Lsn,
};

fn entry(manifest: Manifest) -> Entry {
    Entry { id: manifest.id.clone(), manifest: Ok(Box::new(manifest)) }
}

/// Two lineages, one with a branch.
fn sound() -> Vec<Entry> {
    let first = manifest(1);
    let second = incremental(2, &first);
    let third = incremental(3, &second);
    let aside = incremental(4, &second);
    let fifth = incremental(5, &third);
    let mut next = manifest(8);
    next.sizes.uploaded_bytes = 1_900_000_000;
    let last = incremental(9, &next);
    [last, next, fifth, aside, third, second, first].map(entry).into()
}

/// The same with a manifest that cannot be read, one that contradicts its parent, and one whose parent is gone.
fn damaged() -> Vec<Entry> {
    let mut entries = sound();
    let cut = Failure {
        causes: vec!["EOF while parsing a value at line 1 column 512".to_owned()],
        ..Failure::new(Kind::Corrupt, "backups/20261110T020000Z-3f9a0a.json is damaged")
    };
    entries.push(Entry { id: manifest(10).id, manifest: Err(cut) });
    let mut back = incremental(11, &manifest(9));
    back.depth = 2;
    back.lsn.last = Lsn(back.lsn.start.0 + 30_000_000);
    back.lsn.start = Lsn(2_000_000_000);
    entries.push(entry(back));
    entries.push(entry(incremental(13, &manifest(12))));
    entries
}

fn told(entries: Vec<Entry>, columns: Option<usize>, json: bool) -> (Finish, String, String) {
    told_with(entries, Vec::new(), columns, json)
}

fn told_with(
    entries: Vec<Entry>,
    planned: Vec<(BackupId, Planned)>,
    columns: Option<usize>,
    json: bool,
) -> (Finish, String, String) {
    told_of(
        Listing {
            url: "s3://backups/db1".to_owned(),
            entries,
            planned,
            proofs: BTreeMap::new(),
            sealed: false,
            copy: None,
        },
        columns,
        json,
    )
}

fn told_of(listing: Listing, columns: Option<usize>, json: bool) -> (Finish, String, String) {
    let (output, out, err) = sheets(OutputOptions { columns, json, ..OutputOptions::default() });
    let finish = tell(&listing, false, &output);
    (finish, out.text(), err.text())
}

#[test]
fn the_list_fits_its_terminal_and_is_as_reviewed() {
    for (name, columns) in [("list-80.txt", Some(80)), ("list-120.txt", Some(120)), ("list-wide.txt", None)] {
        let (finish, out, err) = told(sound(), columns, false);
        assert_eq!((finish, err.as_str()), (Finish::Done, ""));
        let width = out.lines().map(|line| line.chars().count()).max();
        assert!(width.unwrap() <= columns.unwrap_or(usize::MAX), "{out}");
        snapshot::check(name, &out);
    }
}

#[test]
fn json_of_the_list_is_as_documented() {
    let (_, out, err) = told(sound(), None, true);
    assert_eq!(err, "");
    snapshot::check("list.jsonl", &out);
}

#[test]
fn how_far_a_copy_is_behind_is_as_reviewed() {
    let entries = sound();
    let all: Vec<BackupId> = entries.iter().map(|entry| entry.id.clone()).collect();
    let has = |days: &[u32]| days.iter().map(|day| manifest(*day).id).collect();
    let (mut texts, mut lines) = (String::new(), String::new());
    for (days, behind) in [(&[2, 5][..], &[0, 1][..]), (&[5, 9], &[]), (&[], &[0, 1, 2, 3, 4, 5, 6])] {
        let mut behind: Vec<BackupId> = behind.iter().map(|place: &usize| all[*place].clone()).collect();
        behind.sort();
        let copy = Some(("s3://backups-west/db1".to_owned(), Lag { backups: has(days), behind }));
        let (url, entries) = ("s3://backups/db1".to_owned(), entries.clone());
        let listing = Listing { url, entries, planned: Vec::new(), proofs: BTreeMap::new(), sealed: false, copy };
        let (output, out, _) = sheets(OutputOptions { columns: Some(80), ..OutputOptions::default() });
        assert_eq!(tell(&listing, false, &output), Finish::Done);
        texts += &out.text();
        let (output, out, _) = sheets(OutputOptions { json: true, ..OutputOptions::default() });
        tell(&listing, false, &output);
        lines += &out.text();
    }
    snapshot::check("list-copy.txt", &texts);
    snapshot::check("list-copy.jsonl", &lines);
}

#[test]
fn damage_is_shown_in_its_place_named_and_told_by_the_exit_code() {
    let (finish, out, err) = told(damaged(), Some(100), false);
    assert_eq!(finish.exit_code(), 3);
    assert_eq!(err.lines().count(), 2, "{err}");
    snapshot::check("list-damaged.txt", &format!("{out}--- stderr\n{err}"));
    let (finish, out, _) = told(damaged(), None, true);
    assert_eq!(finish.exit_code(), 3);
    snapshot::check("list-damaged.jsonl", &out);
}

#[test]
fn what_a_plan_lets_go_of_is_told_with_its_time() {
    let planned = Planned {
        plan: "20261123T030000Z-3f9a77".parse().unwrap(),
        due: Timestamp("2026-11-24T03:00:00Z".parse().unwrap()),
        reason: "no rule keeps it".to_owned(),
        named: false,
    };
    let planned = vec![(manifest(1).id, planned)];
    let (finish, out, _) = told_with(sound(), planned.clone(), Some(100), false);
    assert_eq!(finish, Finish::Done);
    snapshot::check("list-planned.txt", &out);
    let (_, out, _) = told_with(sound(), planned, None, true);
    let line = out.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let due: Vec<_> = line.filter(|line| !line["deleted_after"].is_null()).collect();
    assert_eq!((due.len(), &due[0]["deleted_after"]), (1, &"2026-11-24T03:00:00Z".into()));
}

/// Proofs of three backups: one that passed, one that failed after one that passed, one that failed.
fn proofs() -> BTreeMap<BackupId, Vec<Proof>> {
    let of = |day: u32, passed: bool, started: &str| {
        let mut proof = if passed { crate::format::proof_passing() } else { crate::format::proof_example() };
        (proof.backup, proof.id) = (manifest(day).id, format!("{started}-7c01d2").parse().unwrap());
        proof
    };
    [
        vec![of(5, true, "20261122T053000Z")],
        vec![of(8, false, "20261123T053000Z"), of(8, true, "20261122T053000Z")],
        vec![of(9, false, "20261123T063000Z")],
    ]
    .into_iter()
    .map(|proofs| (proofs[0].backup.clone(), proofs))
    .collect()
}

#[test]
fn what_was_proven_is_shown_beside_each_backup() {
    let listing = |entries| Listing {
        url: "s3://backups/db1".to_owned(),
        entries,
        planned: Vec::new(),
        proofs: proofs(),
        sealed: false,
        copy: None,
    };
    for (name, columns) in [("list-proven-80.txt", Some(80)), ("list-proven-wide.txt", None)] {
        let (finish, out, err) = told_of(listing(sound()), columns, false);
        assert_eq!((finish, err.as_str()), (Finish::Done, ""));
        let width = out.lines().map(|line| line.chars().count()).max();
        assert!(width.unwrap() <= columns.unwrap_or(usize::MAX), "{out}");
        snapshot::check(name, &out);
    }
    let (_, out, _) = told_of(listing(sound()), None, true);
    snapshot::check("list-proven.jsonl", &out);
    // A manifest that cannot be read takes no cells away from its neighbours.
    let (_, out, _) = told_of(listing(damaged()), None, false);
    assert!(out.lines().any(|line| line.contains("damaged") && !line.contains("2026-11-22")), "{out}");
}

#[test]
fn an_empty_repository_says_what_to_do() {
    let (finish, out, _) = told(Vec::new(), Some(80), false);
    assert_eq!(finish, Finish::Done);
    assert!(out.contains("no backups yet"), "{out}");
    let (_, out, _) = told(Vec::new(), None, true);
    let line: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&line["backups"], &line["latest"]), (&0.into(), &serde_json::Value::Null));
}

#[test]
fn the_branches_of_a_long_lineage_do_not_widen_the_list() {
    let mut entries = vec![entry(manifest(1))];
    let mut parent = manifest(1);
    for day in 2..=30 {
        parent = incremental(day, &parent);
        entries.push(entry(parent.clone()));
    }
    let (_, out, _) = told(entries, Some(80), false);
    assert!(out.lines().all(|line| line.chars().count() <= 80), "{out}");
}
