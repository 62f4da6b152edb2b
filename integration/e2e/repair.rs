//! Stored bytes rot: what can still be brought back, and how the next backup makes good what was lost.

use std::{fs, path::PathBuf};

use haulout::{
    format::{
        Keyring,
        pack::{decompress, parse_pack},
    },
    model::PackId,
};
use serde_json::Value;

use crate::support::{MariaDb, ServerOptions, Site, binary::Run, site::assert_says};

/// A second table, whose pages are on disk too.
const MORE: &str = "USE shop; CREATE TABLE picture (id INT PRIMARY KEY, bytes BLOB) ENGINE=InnoDB;
    INSERT INTO picture SELECT seq, RANDOM_BYTES(1000) FROM seq_1_to_2000;
    FLUSH TABLES picture FOR EXPORT; UNLOCK TABLES;";

/// Flips a bit in each chunk that holds pages of tablespace `space`, and names the packs.
fn rot(site: &Site, space: u32) -> Vec<PathBuf> {
    let mut packs = site.objects("packs");
    packs.retain(|path| {
        let mut bytes = fs::read(path).unwrap();
        let id: PackId = path.file_name().unwrap().to_str().unwrap().parse().unwrap();
        let entries = parse_pack(id, &bytes, &Keyring::plain()).unwrap().entries;
        let mut is_hit = false;
        for entry in entries.iter().filter(|entry| !entry.sums.is_empty()) {
            let stored = entry.offset as usize..(entry.offset + entry.stored_bytes) as usize;
            let raw = decompress("chunk", entry.encoding, &bytes[stored.clone()], entry.raw_bytes as usize).unwrap();
            if raw[34..38] == space.to_be_bytes() {
                bytes[stored.end - 9] ^= 4;
                is_hit = true;
            }
        }
        if is_hit {
            fs::write(path, bytes).unwrap();
        }
        is_hit
    });
    packs
}

fn id(backup: &Value) -> &str {
    backup["backup_id"].as_str().unwrap()
}

fn lines<'r>(run: &'r Run, kind: &str) -> Vec<&'r Value> {
    run.messages.iter().filter(|message| message["message_type"] == kind).collect()
}

fn checksum(server: &MariaDb, table: &str) -> String {
    server.sql(&format!("CHECKSUM TABLE {table}")).trim().rsplit_once('\t').unwrap().1.to_owned()
}

#[test]
fn tables_outlive_the_rot_of_others_and_the_next_backup_is_a_whole_one() {
    let site = Site::new();
    site.server.sql(MORE);
    let first = site.backed_up(&[]);
    let of_first = checksum(&site.server, "shop.item");
    site.change();
    let second = site.backed_up(&["--incremental"]);
    let picture = "SELECT space FROM information_schema.innodb_sys_tablespaces WHERE name = 'shop/picture'";
    let rotten = rot(&site, site.server.sql(picture).trim().parse().unwrap());
    assert!(!rotten.is_empty());

    // Sizes are right; whoever reads finds out, and is told what is left.
    site.haulout.run(["check"]).ok();
    let run = site.haulout.run(["--json", "check", "--read-data", "--repair"]).exits(3);
    let wrecks = lines(&run, "damaged_backup");
    assert_eq!(wrecks.iter().map(|wreck| id(wreck)).collect::<Vec<_>>(), [id(&first), id(&second)]);
    for wreck in wrecks {
        assert_eq!(wreck["tables_hit"]["named"], serde_json::json!(["shop.picture"]), "{wreck}");
        assert_eq!(wreck["tables_whole"]["named"], serde_json::json!(["shop.item", "shop.note"]), "{wreck}");
        assert_eq!(wreck["files_hit"]["named"], serde_json::json!(["shop/picture.ibd"]), "{wreck}");
    }
    let repair = &run.summary()["repair"];
    assert_eq!(
        (&repair["damaged_packs"], &repair["whole_backups"]["named"]),
        (&rotten.len().into(), &Value::Array(vec![]))
    );
    let recorded = repair["recorded"].as_str().unwrap();
    assert!(site.repository().join(recorded).is_file(), "{recorded}");
    // The same again is nothing new.
    let run = site.haulout.run(["--json", "check", "--read-data", "--repair"]).exits(3);
    assert_eq!(run.summary()["repair"]["recorded"], Value::Null);
    let text = site.haulout.run(["check", "--read-data", "--repair", "--backup", id(&second)]).exits(3).stdout;
    assert!(text.contains("  hit      shop.picture\n  whole    shop.item, shop.note\n"), "{text}");

    // The damaged backups as a whole are refused, and their whole tables are not.
    let datadir = site.folder().join("datadir");
    site.haulout.run(["restore", "--backup", id(&second), "--datadir", datadir.to_str().unwrap()]).exits(20);
    for (table, code) in [("shop.note", 0), ("shop.item", 0), ("shop.picture", 20)] {
        let target = site.folder().join(table);
        let run = site.haulout.run([
            "fetch",
            "--backup",
            id(&second),
            "--tables",
            table,
            "--target",
            target.to_str().unwrap(),
        ]);
        run.exits(code);
    }

    // An incremental would rest on what is damaged.
    let full = site.needs_full("which a check found damaged");
    let alone = site.haulout.run(["--json", "check", "--read-data", "--backup", id(&full)]).ok();
    assert_eq!((&alone.summary()["backups"], &alone.summary()["damaged_objects"]), (&1.into(), &0.into()));
    let checksums = site.server.checksums();
    let run = site.haulout.run(["--json", "check", "--read-data", "--repair"]).exits(3);
    assert_eq!(run.summary()["damaged_backups"], 2, "{}", run.stdout);
    assert_eq!(run.summary()["repair"]["whole_backups"]["named"].as_array().unwrap().len(), 2);
    let newest = site.haulout.run(["--json", "show", "latest"]).ok().message("backup").clone();
    let restored = MariaDb::on(&site.restored(&newest), ServerOptions::new());
    assert_eq!(restored.checksums(), checksums);

    // A whole table of a damaged backup, into the running server.
    let mut arguments: Vec<String> =
        ["restore-table", "--table", "shop.item", "--as", "shop.before", "--backup", id(&first)]
            .map(str::to_owned)
            .into();
    arguments.extend(site.server.flags());
    site.haulout.run(arguments).ok();
    assert_eq!(checksum(&site.server, "shop.before"), of_first);
}

#[test]
fn a_table_that_every_other_needs_and_documents_that_are_gone_are_told() {
    let site = Site::new();
    let first = site.backed_up(&[]);
    site.change();
    let second = site.backed_up(&[]);
    fs::write(site.manifest(&first), "{}").unwrap();
    let rotten = rot(&site, 0);
    assert!(!rotten.is_empty(), "the system tablespace");
    let run = site.haulout.run(["--json", "check", "--read-data", "--repair"]).exits(3);
    let wrecks = lines(&run, "damaged_backup");
    assert_eq!((id(wrecks[0]), &wrecks[0]["readable"]), (id(&first), &Value::Bool(false)));
    assert_eq!((id(wrecks[1]), &wrecks[1]["readable"]), (id(&second), &Value::Bool(true)));
    assert_eq!(wrecks[1]["needed_by_all"]["named"], serde_json::json!(["ibdata1"]));
    assert_eq!(wrecks[1]["tables_whole"]["named"], serde_json::json!([]));
    let of_manifest =
        lines(&run, "damage").into_iter().find(|damage| damage["object"].as_str().unwrap().starts_with("backups/"));
    assert!(of_manifest.unwrap()["hint"].as_str().unwrap().contains("earlier version"), "{}", run.stdout);
    // The head of the repository says how it comes back, however it was lost.
    let head = site.repository().join("haulout.json");
    let right = fs::read(&head).unwrap();
    fs::write(&head, &right[..100]).unwrap();
    assert_says(&site.haulout.run(["--json", "check"]), 20, "haulout.json is damaged", "bring haulout.json back");
    fs::remove_file(&head).unwrap();
    assert_says(&site.haulout.run(["--json", "check"]), 20, "haulout.json is gone", "bring haulout.json back");
    fs::write(&head, right).unwrap();
    site.haulout.run(["--json", "check", "--backup", id(&second)]).ok();
}

/// What rots and is stored again under its own name is mended, and a check says that nothing is damaged any more.
#[test]
fn a_check_of_all_that_finds_nothing_clears_what_an_older_one_found() {
    let site = Site::new();
    site.backed_up(&[]);
    let pack = site.objects("packs").remove(0);
    let right = fs::read(&pack).unwrap();
    fs::write(&pack, &right[1..]).unwrap();
    let found = site.haulout.run(["--json", "check", "--repair"]).exits(3);
    assert_eq!(found.summary()["repair"]["damaged_packs"], 1);
    // Brought back, from an earlier version of the object.
    fs::write(&pack, &right).unwrap();
    let sizes = site.haulout.run(["--json", "check", "--repair"]).ok();
    assert_eq!(sizes.summary()["repair"]["damaged_packs"], 1, "sizes prove nothing");
    let read = site.haulout.run(["--json", "check", "--read-data", "--repair"]).ok();
    assert_eq!(read.summary()["repair"]["damaged_packs"], 0);
    assert!(read.summary()["repair"]["recorded"].is_string());
    site.change();
    site.backed_up(&["--incremental"]);
}
