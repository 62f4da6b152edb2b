//! The rules of a lineage: what is read, from where, and what is stored of it.

use serde_json::Value;

use crate::support::{MariaDb, Site, Tool, tool};

fn number(value: &Value) -> u64 {
    value.as_u64().or_else(|| value.as_str()?.parse().ok()).unwrap_or_else(|| panic!("no number: {value}"))
}

#[test]
fn the_first_backup_is_a_full_and_says_why() {
    let site = Site::new();
    site.refuses_backup(21, "there is no backup yet", "haulout backup --full", &["--incremental"]);
    let first = site.backed_up(&[]);
    assert_eq!((&first["kind"], &first["parent"], &first["depth"]), (&"full".into(), &Value::Null, &0.into()));
    assert_eq!(first["reason"], "there is no backup yet");
    assert_eq!(number(&first["lsn"]["from"]), 0);
}

#[test]
fn an_incremental_reads_from_one_before_the_start_checkpoint_of_its_parent() {
    let site = Site::new();
    let mut parent = site.backed_up(&[]);
    for depth in 1..=3 {
        site.change();
        let next = site.backed_up(&[if depth == 1 { "--incremental" } else { "--compression-level=3" }]);
        assert_eq!((&next["kind"], &next["depth"]), (&"incremental".into(), &depth.into()));
        assert_eq!(next["parent"], parent["backup_id"]);
        assert_eq!(number(&next["lsn"]["from"]), number(&parent["lsn"]["start"]) - 1);
        assert!(number(&next["lsn"]["start"]) >= number(&parent["lsn"]["start"]));
        assert!(number(&next["lsn"]["last"]) > number(&parent["lsn"]["last"]));
        // What list says is what the manifest says.
        let listed = site.listing().into_iter().find(|backup| backup["backup_id"] == next["backup_id"]).unwrap();
        assert_eq!(listed["lsn"], next["lsn"]);
        parent = next;
    }
    let full = site.backed_up(&["--full"]);
    assert_eq!((&full["kind"], &full["parent"]), (&"full".into(), &Value::Null));
    assert_eq!(full["reason"], "--full was given");
}

#[test]
fn a_second_full_uploads_little() {
    let site = Site::new();
    // What does not compress: whoever uploads it again is found out.
    site.server.sql(
        "USE shop; CREATE TABLE shop.picture (id INT PRIMARY KEY, bytes BLOB) ENGINE=InnoDB;
         INSERT INTO shop.picture SELECT seq, RANDOM_BYTES(1000) FROM seq_1_to_8000;
         CREATE TABLE shop.scan (id INT PRIMARY KEY, bytes BLOB) ENGINE=MyISAM;
         INSERT INTO shop.scan SELECT seq, RANDOM_BYTES(1000) FROM seq_1_to_4000;
         FLUSH TABLES shop.picture FOR EXPORT; UNLOCK TABLES;",
    );
    let first = site.backed_up(&[]);
    let uploaded = |backup: &Value| number(&backup["sizes"]["uploaded_bytes"]);
    assert!(uploaded(&first) > 12_000_000, "{first}");
    site.change();
    let second = site.backed_up(&["--full"]);
    assert!(number(&second["sizes"]["stream_bytes"]) > 12_000_000, "{second}");
    // The redo log that was written since the last checkpoint comes again, and the pages that the checkpoint flushed.
    assert!(uploaded(&second) < 2_000_000, "{second}");
    // Plain files come whole in each stream and are stored once.
    site.server.sql("INSERT INTO shop.scan VALUES (100000, 'one more')");
    let third = site.backed_up(&["--incremental"]);
    assert!(number(&third["sizes"]["stream_bytes"]) > 4_000_000, "{third}");
    assert!(uploaded(&third) < 2_000_000, "{third}");
    let in_repository: u64 = site.objects("packs").iter().map(|pack| pack.metadata().unwrap().len()).sum();
    assert_eq!(in_repository, uploaded(&first) + uploaded(&second) + uploaded(&third));
}

#[test]
fn the_lsns_shown_are_those_of_the_tool_s_own_files() {
    let site = Site::new();
    let tool = Tool::new("\"$real\" \"$@\" > \"$here/stream\" && cat \"$here/stream\"");
    for kind in ["full-backuped", "incremental"] {
        site.change();
        let backup = site.backed_up(&[&tool.flag()]);
        let stream = std::fs::read(tool.folder().join("stream")).unwrap();
        let text = String::from_utf8(tool::file(&stream, &tool::control(&stream, "checkpoints"))).unwrap();
        let checkpoints = |name: &str| -> &str {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap();
            line.split(" = ").nth(1).unwrap().trim()
        };
        assert_eq!(checkpoints("backup_type"), kind);
        let redo = tool::file(&stream, "ib_logfile0");
        let start = u64::from_be_bytes(redo[8..16].try_into().unwrap());
        let id = backup["backup_id"].as_str().unwrap();
        let shown = site.haulout.run(["--json", "show", id]).ok();
        let shown = shown.message("backup").clone();
        for (field, expected) in [
            ("from", checkpoints("from_lsn").to_owned()),
            ("to", checkpoints("to_lsn").to_owned()),
            ("last", checkpoints("last_lsn").to_owned()),
            ("start", start.to_string()),
        ] {
            assert_eq!(number(&shown["lsn"][field]).to_string(), expected, "{field}");
        }
        let text = site.haulout.run(["show", id]).ok().stdout;
        for name in ["backup_type", "from_lsn", "to_lsn", "last_lsn"] {
            let line =
                text.lines().find(|line| line.trim_start().starts_with(name)).unwrap_or_else(|| panic!("{text}"));
            assert!(line.ends_with(&format!("= {}", checkpoints(name))), "{line}");
        }
    }
}

/// Rule 5: what an earlier backup stored is byte for byte as it was after later ones.
#[test]
fn objects_are_never_changed() {
    let site = Site::new();
    let objects = || -> std::collections::BTreeMap<std::path::PathBuf, Vec<u8>> {
        // Leases come and go.
        let folders = ["packs", "backups"].into_iter().flat_map(|folder| site.objects(folder));
        let config = [site.repository().join("haulout.json")];
        folders.chain(config).map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
    };
    site.backed_up(&[]);
    let mut before = objects();
    for kind in ["--incremental", "--full", "--incremental"] {
        site.change();
        site.backed_up(&[kind]);
        let after = objects();
        assert!(after.len() > before.len());
        for (path, bytes) in &before {
            assert!(after.get(path) == Some(bytes), "{} changed", path.display());
        }
        before = after;
    }
}

/// A backup whose parent is no longer there restores all the same, and the next builds on it.
#[test]
fn a_backup_needs_no_other_manifest() {
    let mut site = Site::new();
    let full = site.backed_up(&[]);
    site.change();
    let child = site.backed_up(&["--incremental"]);
    let expected = site.server.checksums();
    std::fs::remove_file(site.manifest(&full)).unwrap();
    let listed = site.listing();
    assert_eq!((listed.len(), &listed[0]["parent_gone"]), (1, &true.into()));
    let restored = MariaDb::on(&site.restored(&child), Default::default());
    assert_eq!(restored.checksums(), expected);
    drop(restored);
    site.haulout.run(["check", "--read-data"]).ok();
    site.change();
    let next = site.backed_up(&["--incremental"]);
    assert_eq!(next["parent"], child["backup_id"]);
    let expected = site.server.checksums();
    site.server.stop();
    assert_eq!(MariaDb::on(&site.restored(&next), Default::default()).checksums(), expected);
}
