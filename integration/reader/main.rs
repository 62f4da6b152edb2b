//! Golden repositories, read by a reader of its own that knows FORMAT.md and nothing of the library, and by the program.
//!
//! That the reader gets by with blake3, zstd and JSON, and for sealed ones with AES-GCM and Argon2, is the proof that FORMAT.md is complete; that it finds in
//! repositories of old what was put into them is the proof that the format has not moved.

mod block;
mod repository;
mod seal;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use repository::{Backup, Kind, Repository};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Folders of `integration/golden`, oldest first.
const GOLDEN: [&str; 4] = ["format1-plain", "format1-timeline", "format1-sealed", COMPACTED];
/// [`GOLDEN`]'s second, compacted.
const COMPACTED: &str = "format1-compacted";
/// The file that a restored directory has with other contents than the backup.
const CHECKPOINTS: &str = "xtrabackup_checkpoints";
/// The program's own notes in a fetched directory.
const MARKER: &str = "haulout-restore.tmp";

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("integration/golden").join(name)
}

fn expected(name: &str) -> Value {
    let path = golden(name).join("expected.json");
    serde_json::from_slice(&fs::read(path).unwrap_or_else(|_| b"null".to_vec())).unwrap()
}

/// What `expected.json` says of a backup.
fn told(backup: &Backup) -> Value {
    let files: Vec<_> = backup
        .files
        .iter()
        .map(|file| {
            let blake3 = blake3::hash(&file.bytes).to_hex().to_string();
            let mode = file.mode.map(|mode| format!("{mode:o}"));
            let mut told = json!({"path": file.path, "bytes": file.bytes.len(), "mode": mode, "blake3": blake3});
            if let Kind::Space { space, part, pages, page_size } = file.kind {
                told["space"] = json!({"id": space, "part": part, "pages": pages, "page_size": page_size});
            }
            told
        })
        .collect();
    let manifest = &backup.manifest;
    let mut told = json!({
        "id": manifest["id"], "kind": manifest["kind"], "parent": manifest["parent"], "depth": manifest["depth"],
        "lsn": manifest["lsn"], "position": manifest["position"], "files": files,
    });
    // Not in what the first versions wrote.
    if let Some(timeline) = manifest.get("timeline") {
        told["timeline"] = timeline.clone();
    }
    told
}

fn backups(expected: &Value) -> Vec<Value> {
    expected["backups"].as_array().cloned().unwrap_or_default()
}

#[test]
fn a_reader_made_from_the_specification_alone_finds_every_byte() {
    for name in GOLDEN {
        let repository = Repository::open(&golden(name).join("repository")).unwrap();
        let read: Vec<_> = repository.backup_ids().unwrap().iter().map(|id| repository.backup(id).unwrap()).collect();
        let found = json!({"backups": read.iter().map(told).collect::<Vec<_>>()});
        if found == expected(name) {
            continue;
        }
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.json"));
        // A line for each file.
        let text = found.to_string().replace("{\"blake3\"", "\n{\"blake3\"") + "\n";
        fs::write(&path, text).unwrap();
        panic!("{name} is not as its expected.json says; what it holds is in {}", path.display());
    }
}

#[test]
fn every_object_of_a_golden_repository_is_known() {
    for name in GOLDEN {
        let repository = Repository::open(&golden(name).join("repository")).unwrap();
        assert_eq!(repository.unknown_objects().unwrap(), [""; 0], "{name}");
        assert!(repository.leases().unwrap() > 0, "{name} shows a lease");
    }
}

#[test]
fn a_golden_repository_holds_each_kind_of_thing() {
    let repository = Repository::open(&golden("format1-plain").join("repository")).unwrap();
    for id in repository.backup_ids().unwrap() {
        repository.backup(&id).unwrap();
    }
    let seen = repository.seen();
    for thing in [
        "space map: inline",
        "space map: blocks",
        "file map: inline",
        "file map: blocks",
        "page piece: zero",
        "page piece: part of a chunk",
        "page piece: whole chunk",
        "page piece: zstd",
        "file piece: zero",
        "file piece: raw",
        "file piece: zstd",
        "pack table: home",
        "pack table: another pack",
        "second file of the system tablespace",
        "page size 4096",
        "page size 16384",
    ] {
        assert!(seen.contains(thing), "no {thing} in {seen:?}");
    }
}

/// Each backup by each edition of its manifest, and as the repository says that was compacted.
#[test]
fn a_golden_repository_that_was_compacted_holds_what_it_held() {
    let repository = Repository::open(&golden(COMPACTED).join("repository")).unwrap();
    let before = backups(&expected("format1-timeline"));
    assert_eq!(backups(&expected(COMPACTED)), before);
    let mut newest = Vec::new();
    for (id, before) in repository.backup_ids().unwrap().iter().zip(before) {
        let editions = repository.editions(id).unwrap();
        for edition in &editions {
            assert_eq!(told(&repository.edition(id, *edition).unwrap()), before, "edition {edition} of {id}");
        }
        newest.extend(editions.last().copied());
    }
    assert_eq!(newest, [0, 2, 2]);
}

/// What the next run compares with the server's disk is what the backup holds.
#[test]
fn the_witnesses_of_a_golden_timeline_are_pages_of_the_backup() {
    let repository = Repository::open(&golden("format1-timeline").join("repository")).unwrap();
    for id in repository.backup_ids().unwrap() {
        let backup = repository.backup(&id).unwrap();
        let timeline = &backup.manifest["timeline"];
        assert!(timeline["binlog"]["inode"].is_u64() && timeline["binlog"]["born_ns"].is_i64(), "{timeline}");
        let witnesses = timeline["witnesses"].as_array().unwrap();
        assert!((1..=256).contains(&witnesses.len()), "{timeline}");
        for witness in witnesses {
            let [space, page, lsn] = [0, 1, 2].map(|place| witness[place].as_u64().unwrap());
            let seen = backup.files.iter().any(|file| match file.kind {
                Kind::Space { space: found, page_size, .. } if u64::from(found) == space => {
                    let at = page as usize * page_size as usize;
                    file.bytes.get(at + 16..at + 24).is_some_and(|bytes| *bytes == lsn.to_be_bytes())
                }
                _ => false,
            });
            assert!(seen, "{id}: no page {page} of tablespace {space} has LSN {lsn}");
        }
    }
}

/// A copy of a golden repository that nobody may write to.
fn read_only_copy(name: &str) -> TempDir {
    let folder = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let run = |command: &mut Command| assert!(command.status().unwrap().success());
    run(Command::new("cp").arg("-r").arg(golden(name).join("repository")).arg(folder.path()));
    if golden(name).join("keys").exists() {
        run(Command::new("cp").arg("-r").arg(golden(name).join("keys")).arg(folder.path()));
    }
    run(Command::new("chmod").args(["-R", "a-w"]).arg(folder.path().join("repository")));
    folder
}

fn run(folder: &Path, arguments: &[&str]) -> Output {
    let url = format!("file://{}", folder.join("repository").display());
    let mut command = Command::new(env!("CARGO_BIN_EXE_haulout"));
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("HOME", folder);
    let key = folder.join("keys/file");
    if key.exists() {
        command.env("HAULOUT_KEY_FILE", key);
    }
    command.args(["--repo", &url]).args(arguments).output().unwrap()
}

fn haulout(folder: &Path, arguments: &[&str]) -> Output {
    let output = run(folder, arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "haulout {arguments:?}: {said}");
    output
}

#[test]
fn a_manifest_in_another_place_is_refused() {
    let folder = read_only_copy("format1-plain");
    let manifests = folder.path().join("repository/backups");
    let ids: Vec<_> = backups(&expected("format1-plain")).iter().map(|backup| backup["id"].clone()).collect();
    let [one, other] = [0, 1].map(|place: usize| ids[place].as_str().unwrap());
    assert!(Command::new("chmod").arg("u+w").arg(&manifests).status().unwrap().success());
    fs::rename(manifests.join(format!("{one}.json")), manifests.join(format!("{other}.json"))).unwrap();
    let output = run(folder.path(), &["show", other]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(20), "{said}");
    assert!(said.contains(one), "{said}");
}

/// Each key slot of the sealed golden repository opens it, by its own method.
#[test]
fn a_golden_repository_opens_by_each_of_its_keys() {
    let folder = read_only_copy("format1-sealed");
    let secret = |name: &str| folder.path().join("keys").join(name).display().to_string();
    let command = fs::read_to_string(secret("command")).unwrap();
    fs::rename(folder.path().join("keys"), folder.path().join("secrets")).unwrap();
    let secret = |name: &str| secret(name).replace("/keys/", "/secrets/");
    for arguments in [
        ["--key-file".to_owned(), secret("file")],
        ["--key-file".to_owned(), secret("map-file")],
        ["--passphrase-file".to_owned(), secret("passphrase")],
        ["--key-command".to_owned(), command.trim_end().to_owned()],
    ] {
        let [option, value] = arguments.each_ref().map(String::as_str);
        haulout(folder.path(), &[option, value, "check"]);
    }
    assert_eq!(run(folder.path(), &["list"]).status.code(), Some(12));
}

/// Sources of the library and of the tests, as one text.
fn sources(folder: &Path) -> String {
    let files = files_below(folder, "").into_iter().filter(|(path, _)| path.ends_with(".rs"));
    files.map(|(_, bytes)| String::from_utf8(bytes).unwrap()).collect()
}

#[test]
fn every_invariant_of_the_specification_has_its_test() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let specification = fs::read_to_string(top.join("src/format/FORMAT.md")).unwrap();
    let (_, invariants) = specification.split_once("## Invariants").unwrap();
    let (invariants, _) = invariants.split_once("\n## ").unwrap();
    let all = sources(&top.join("src")) + &sources(&top.join("integration"));
    for (number, invariant) in (1..).zip(invariants.split("\n- **I").skip(1)) {
        assert!(invariant.starts_with(&format!("{number}** ")), "I{number} is missing: {invariant}");
        let quoted = invariant.split('`').skip(1).step_by(2);
        let tests: Vec<_> = quoted.filter(|name| name.matches('_').count() > 2).collect();
        assert!(!tests.is_empty(), "I{number} names no test");
        for test in tests {
            assert!(all.contains(&format!("fn {test}(")), "there is no test {test} of I{number}");
        }
    }
}

fn files_below(folder: &Path, prefix: &str) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let path = format!("{prefix}{}", entry.file_name().to_str().unwrap());
        if entry.file_type().unwrap().is_dir() {
            files.extend(files_below(&entry.path(), &format!("{path}/")));
        } else {
            files.insert(path, fs::read(entry.path()).unwrap());
        }
    }
    files
}

#[test]
fn the_program_lists_shows_and_checks_golden_backups() {
    for name in GOLDEN {
        let (folder, expected) = (read_only_copy(name), backups(&expected(name)));
        let before = files_below(folder.path(), "");
        let listed = haulout(folder.path(), &["--json", "list"]);
        let listed = String::from_utf8(listed.stdout).unwrap();
        for backup in &expected {
            let id = backup["id"].as_str().unwrap();
            assert!(listed.contains(id), "{id} is not in {listed}");
            let shown = haulout(folder.path(), &["--json", "show", id]);
            let shown = String::from_utf8(shown.stdout).unwrap();
            let last = backup["lsn"]["last"].to_string();
            assert!(shown.contains(&last), "{id}: LSN {last} is not in {shown}");
        }
        haulout(folder.path(), &["check", "--read-data"]);
        assert!(files_below(folder.path(), "") == before, "{name}: what only reads has written");
    }
}

#[test]
fn the_program_fetches_golden_backups_byte_for_byte() {
    for name in GOLDEN {
        let folder = read_only_copy(name);
        for backup in backups(&expected(name)) {
            let id = backup["id"].as_str().unwrap();
            let target = folder.path().join(id);
            haulout(folder.path(), &["fetch", "--backup", id, "--target", target.to_str().unwrap()]);
            let mut found = files_below(&target, "");
            assert!(found.remove(MARKER).is_some());
            let lsn = |name: &str| backup["lsn"][name].as_u64().unwrap();
            let checkpoints = format!(
                "backup_type = full-backuped\nfrom_lsn = 0\nto_lsn = {}\nlast_lsn = {}\nrecover_binlog_info = 0\n",
                lsn("to"),
                lsn("last")
            );
            assert_eq!(String::from_utf8(found.remove(CHECKPOINTS).unwrap()).unwrap(), checkpoints, "{id}");
            let hashed = found.into_iter().map(|(path, bytes)| (path, blake3::hash(&bytes).to_hex().to_string()));
            let files = backup["files"].as_array().unwrap().iter();
            let files = files.map(|file| (file["path"].as_str().unwrap(), file["blake3"].as_str().unwrap()));
            let expected: BTreeMap<_, _> = files
                .filter(|(path, _)| *path != CHECKPOINTS)
                .map(|(path, hash)| (path.to_owned(), hash.to_owned()))
                .collect();
            assert_eq!(hashed.collect::<BTreeMap<_, _>>(), expected, "{id}");
        }
    }
}
