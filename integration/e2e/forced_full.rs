//! What LSNs cannot see forces a full backup, which says why.

use std::{fs, path::PathBuf, time::Duration};

use haulout::format::{
    Keyring,
    map::{ExtentBlock, PackRef},
    pack::{decompress, parse_pack},
};
use haulout::model::PackId;

use crate::support::{
    Site, server,
    site::assert_says,
    tablespace::{import, on_disk},
    wait,
};

#[test]
fn a_server_restored_to_an_older_state_gets_a_full() {
    let mut site = Site::new();
    site.backed_up(&[]);
    site.server.stop();
    let kept = site.folder().join("kept");
    server::copy(site.server.datadir(), &kept);
    site.server.restart();
    site.change();
    site.backed_up(&["--incremental"]);
    site.server.stop();
    fs::remove_dir_all(site.server.datadir()).unwrap();
    fs::rename(&kept, site.server.datadir()).unwrap();
    site.server.restart();
    site.needs_full("it was restored to an older state");
}

#[test]
fn a_server_whose_files_were_put_in_place_anew_gets_a_full_even_when_its_lsn_has_passed() {
    let mut site = Site::new();
    site.backed_up(&[]);
    site.server.stop();
    let copied = site.folder().join("copied");
    server::copy(site.server.datadir(), &copied);
    fs::remove_dir_all(site.server.datadir()).unwrap();
    fs::rename(&copied, site.server.datadir()).unwrap();
    site.server.restart();
    site.server.sql("INSERT INTO shop.item (text) SELECT text FROM shop.item");
    site.needs_full("it was restored, copied or replaced");
}

#[test]
fn an_import_into_a_table_that_the_parent_has_gets_a_full() {
    let site = Site::new();
    site.backed_up(&[]);
    import(&site.server, "shop.item");
    let full = site.needs_full("shop/item.ibd was replaced since the parent, as IMPORT TABLESPACE does");
    assert_eq!(full["depth"], 0);
}

#[test]
fn an_import_into_a_table_made_since_the_parent_gets_a_full() {
    let site = Site::new();
    site.backed_up(&[]);
    site.server.sql("CREATE TABLE shop.fresh LIKE shop.item");
    import(&site.server, "shop.fresh");
    // What the server still has in its redo log alone would come with that.
    on_disk(&site.server);
    site.needs_full("shop/fresh.ibd is new");
}

#[test]
fn other_undo_tablespaces_get_a_full() {
    let mut site = Site::new();
    let before = site.server.sql("SELECT @@innodb_undo_tablespaces").trim().to_owned();
    site.backed_up(&[]);
    // Their number can be changed when nothing is in them.
    site.server.sql("SET GLOBAL innodb_fast_shutdown = 0");
    site.server.stop();
    site.server.add_argument("--innodb-undo-tablespaces=4");
    site.server.restart();
    assert_eq!(site.server.sql("SELECT @@innodb_undo_tablespaces").trim(), "4");
    site.needs_full(&format!("innodb_undo_tablespaces changed from {before} to 4"));
}

#[test]
fn a_pack_of_the_parent_that_is_gone_or_cut_gets_a_full() {
    let site = Site::new();
    // Enough for a few packs.
    site.server.sql(
        "USE shop; CREATE TABLE shop.picture (id INT PRIMARY KEY, bytes BLOB) ENGINE=InnoDB;
         INSERT INTO shop.picture SELECT seq, RANDOM_BYTES(1000) FROM seq_1_to_24000;",
    );
    // Else the first backup has a redo log of megabytes that no later one needs.
    on_disk(&site.server);
    site.backed_up(&[]);
    let packs = site.objects("packs");
    assert!(packs.len() >= 2, "{packs:?}");
    let aside = site.folder().join("aside");
    let mut refused = 0;
    for pack in &packs {
        let name = pack.file_name().unwrap().to_str().unwrap();
        fs::rename(pack, &aside).unwrap();
        let whole = fs::read(&aside).unwrap();
        for cut in [false, true] {
            if cut {
                fs::write(pack, &whole[..whole.len() - 1]).unwrap();
            }
            let run = site.backup(&["--incremental"]);
            if run.code() == Some(0) {
                // What only this pack had comes anew in each backup: the redo log and the plain files.
                fs::remove_file(site.manifest(run.summary())).unwrap();
                continue;
            }
            assert_says(&run.exits(21), 21, name, "haulout backup --full");
            refused += 1;
        }
        fs::rename(&aside, pack).unwrap();
    }
    assert!(refused >= 2, "{refused}");
    let lost: u64 = packs.iter().map(|pack| pack.metadata().unwrap().len()).sum();
    for pack in &packs {
        fs::remove_file(pack).unwrap();
    }
    let reason = "the newest backup";
    let full = site.needs_full(reason);
    // What was lost is stored again, all of it.
    assert!(full["sizes"]["uploaded_bytes"].as_u64().unwrap() > lost * 9 / 10, "{full}");
}

/// Changes a byte in each block of extents in a pack, and tells how many there are.
fn damage_extent_blocks(path: &PathBuf) -> usize {
    let mut bytes = fs::read(path).unwrap();
    let id: PackId = path.file_name().unwrap().to_str().unwrap().parse().unwrap();
    let home = PackRef { id, bytes: bytes.len() as u32 };
    let mut damaged = 0;
    for entry in parse_pack(id, &bytes, &Keyring::plain()).unwrap().entries {
        let stored = entry.offset as usize..(entry.offset + entry.stored_bytes) as usize;
        let raw = decompress("block", entry.encoding, &bytes[stored.clone()], entry.raw_bytes as usize).unwrap();
        if ExtentBlock::decode(&raw, home).is_ok() {
            bytes[stored.end - 1] ^= 1;
            damaged += 1;
        }
    }
    // A pack that is stored anew after the backup would count as what a run left that died.
    if damaged > 0 {
        fs::write(path, bytes).unwrap();
    }
    damaged
}

#[test]
fn a_damaged_block_of_the_parents_map_gets_a_full_that_stores_anew_what_it_spoke_of() {
    let site = Site::new();
    site.server.sql(
        "USE shop; CREATE TABLE shop.picture (id INT PRIMARY KEY, bytes BLOB) ENGINE=InnoDB;
         INSERT INTO shop.picture SELECT seq, RANDOM_BYTES(1000) FROM seq_1_to_12000;",
    );
    on_disk(&site.server);
    site.backed_up(&[]);
    let damaged = site.objects("packs").iter().map(damage_extent_blocks).sum::<usize>();
    assert!(damaged >= 2, "the system tablespace and the table have blocks of their own, found {damaged}");
    let full = site.needs_full("cannot be read: pack");
    assert!(full["sizes"]["uploaded_bytes"].as_u64().unwrap() > 10_000_000, "{full}");
    let check = site.haulout.run(["--json", "check", "--read-data"]).exits(3);
    assert_eq!(check.summary()["damaged_backups"], 1, "only the first backup needs the damaged pack: {}", check.stdout);
}

#[test]
fn a_parent_whose_manifest_is_not_its_own_gets_a_full() {
    let site = Site::new();
    let neighbour = Site::new();
    let foreign = neighbour.backed_up(&[]);
    let edit = |bytes: &[u8]| {
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        let edited = text.replace("\"server_id\":1,", "\"server_id\":2,");
        assert_ne!(edited, text);
        edited.into_bytes()
    };
    type Edit<'a> = Box<dyn Fn(&[u8]) -> Vec<u8> + 'a>;
    let cases: [(&str, Edit<'_>); 5] = [
        ("cannot be read", Box::new(|bytes| bytes[..bytes.len() / 2].to_vec())),
        ("cannot be read", Box::new(|_| Vec::new())),
        ("its body hashes to", Box::new(edit)),
        ("is that of backup", Box::new(|_| fs::read(neighbour.manifest(&foreign)).unwrap())),
        ("cannot be read", Box::new(|bytes| bytes.iter().map(|byte| byte ^ 0x80).collect())),
    ];
    for (reason, damage) in cases {
        site.change();
        let newest = site.backed_up(&[]);
        let place = site.manifest(&newest);
        let bytes = fs::read(&place).unwrap();
        fs::write(&place, damage(&bytes)).unwrap();
        let run = site.haulout.run(["--json", "list"]).exits(3);
        let listed = run.messages.iter().find(|message| message["backup_id"] == newest["backup_id"]).unwrap();
        assert_eq!(listed["damaged"], true, "{listed}");
        site.needs_full(reason);
        fs::remove_file(place).unwrap();
    }
    // Under its own name in another's repository.
    let moved = site.repository().join(neighbour.manifest(&foreign).strip_prefix(neighbour.repository()).unwrap());
    for manifest in site.objects("backups") {
        fs::remove_file(manifest).unwrap();
    }
    fs::copy(neighbour.manifest(&foreign), &moved).unwrap();
    site.needs_full("belongs to repository");
}

#[test]
fn a_lineage_whose_objects_are_all_gone_begins_anew() {
    let site = Site::new();
    let first = site.backed_up(&[]);
    for object in [site.objects("packs"), site.objects("backups")].concat() {
        fs::remove_file(object).unwrap();
    }
    let again = site.needs_full("there is no backup yet");
    let bytes = |backup: &serde_json::Value| backup["sizes"]["uploaded_bytes"].as_u64().unwrap();
    assert!(bytes(&again) > bytes(&first) * 9 / 10, "{again}");
}

/// The copy that ALTER TABLE makes is a table `#sql…`, which the tool leaves out; when it then gets its name, its pages
/// are older than the parent, and no incremental brings them.
#[test]
fn a_table_that_was_being_copied_during_the_parent_gets_a_full() {
    let mut site = Site::new();
    // A row lock that outlives its session, without a lock on the table: it holds up the copy at its last row.
    site.server.sql(
        "XA START 'x'; UPDATE shop.item SET text = 'held' WHERE id = (SELECT MAX(id) FROM shop.note) + 3000;
        XA END 'x'; XA PREPARE 'x'",
    );
    site.server.kill9();
    site.server.restart();
    let client = site.server.client();
    let altered = std::thread::spawn(move || {
        client.try_sql(
            // From MariaDB 11.2 on a copy waits for no row, unless it is told to.
            "SET innodb_lock_wait_timeout = 100;
            ALTER TABLE shop.item ADD COLUMN more INT DEFAULT 5, ALGORITHM=COPY, LOCK=SHARED",
        )
    });
    wait::until("the copy to wait for the row", Duration::from_secs(60), || {
        let waiting = "SELECT variable_value FROM information_schema.global_status
             WHERE variable_name = 'INNODB_ROW_LOCK_CURRENT_WAITS'";
        assert!(!altered.is_finished(), "the ALTER did not wait");
        (site.server.sql(waiting).trim() == "1").then_some(())
    });
    // The copy's pages must be on disk and below the checkpoint at which the parent starts.
    on_disk(&site.server);
    site.backed_up(&[]);
    site.server.sql("XA COMMIT 'x'");
    altered.join().unwrap().unwrap();
    site.needs_full("shop/item.ibd is new");
}
