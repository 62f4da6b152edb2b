//! What a server can hold: encrypted tables, an encrypted redo log, and keys that change.

use std::{fs, path::Path, time::Duration};

use crate::support::{Lineage, MariaDb, Recording, ServerOptions, Site, scratch, site::assert_says, wait};

/// What the tables hold, and their files must not.
const SECRET: &str = "the quick brown sea lion";

const ROWS: &str = "(id INT PRIMARY KEY AUTO_INCREMENT, text VARCHAR(500), KEY (text(40)))";

/// Makes a table with options and the secret in it.
fn table(name: &str, options: &str) -> String {
    format!(
        "CREATE TABLE crypt.{name} {ROWS} {options};
         INSERT INTO crypt.{name} (text) SELECT CONCAT('{SECRET} ', MD5(RAND()), REPEAT('x', seq % 200))
             FROM seq_1_to_3000;"
    )
}

/// Changes a table in many places.
fn change(name: &str) -> String {
    format!(
        "UPDATE crypt.{name} SET text = CONCAT('changed ', text) WHERE id % 9 = 0;
         DELETE FROM crypt.{name} WHERE id % 7 = 0;
         INSERT INTO crypt.{name} (text) SELECT CONCAT('{SECRET}: ', MD5(RAND())) FROM seq_1_to_500;"
    )
}

/// True when a file of schema `crypt` in `datadir` holds the secret as it is.
fn is_open(datadir: &Path, file: &str) -> bool {
    let bytes = fs::read(datadir.join("crypt").join(file)).unwrap();
    bytes.windows(SECRET.len()).any(|window| window == SECRET.as_bytes())
}

/// Waits until the server has encrypted, or decrypted, all tablespaces that it is to.
fn settled(server: &MariaDb, encrypted: bool) {
    let scheme = u8::from(encrypted);
    let open = format!(
        "SELECT COUNT(*) FROM information_schema.innodb_tablespaces_encryption
         WHERE (encryption_scheme <> {scheme} OR rotating_or_flushing OR key_rotation_page_number IS NOT NULL
                OR (min_key_version = 0) = {scheme})
         AND name LIKE 'crypt/%' AND name NOT LIKE '%/chosen%'"
    );
    wait::until("the encryption of all tables", Duration::from_secs(60), || {
        (server.sql(&open).trim() == "0").then_some(())
    });
    server.sql("SET GLOBAL innodb_max_dirty_pages_pct_lwm = 0; SET GLOBAL innodb_max_dirty_pages_pct = 0");
}

#[test]
fn a_server_that_encrypts_everything_restores_and_so_do_tables_whose_key_changed() {
    let folder = scratch();
    let options = ServerOptions::new().keys(&folder.path().join("keys"));
    let options = ["--innodb-encrypt-tables=FORCE", "--innodb-encrypt-log=ON", "--innodb-encryption-threads=2"]
        .into_iter()
        .chain(["--aria-encrypt-tables=ON", "--encrypt-tmp-disk-tables=ON"])
        .fold(options, ServerOptions::argument);
    let site = Site::with(options.clone());
    let tables = [
        ("plain", ""),
        ("squeezed", "PAGE_COMPRESSED=1"),
        ("zipped", "ROW_FORMAT=COMPRESSED KEY_BLOCK_SIZE=4"),
        ("aria", "ENGINE=Aria TRANSACTIONAL=1"),
    ];
    let mut create = "CREATE DATABASE crypt CHARACTER SET utf8mb4; USE crypt;".to_owned();
    create.extend(tables.map(|(name, options)| table(name, options)));
    let changes: String = tables.map(|(name, _)| change(name)).concat();
    let mut lineage = Lineage::default();
    lineage.step(&site, &create, &[]);
    // The redo log hides which pages are new: tables made just before may make this a full one.
    lineage.step(&site, &format!("USE crypt; {changes}"), &[]);
    lineage.step(&site, &format!("USE crypt; {changes}"), &["--incremental"]);
    let other_keys = "ALTER TABLE crypt.plain ENCRYPTION_KEY_ID=2; ALTER TABLE crypt.squeezed ENCRYPTION_KEY_ID=3;";
    lineage.step(&site, &format!("{other_keys} USE crypt; {changes}"), &[]);
    tables.iter().for_each(|(name, _)| lineage.assert_changed(&format!("`crypt`.`{name}`")));
    lineage.all_restore(&site, &options, |place, server| {
        for file in ["plain.ibd", "squeezed.ibd", "zipped.ibd", "aria.MAD"] {
            assert!(!is_open(server.datadir(), file), "{file} of backup {place}");
        }
        let key =
            "SELECT current_key_id FROM information_schema.innodb_tablespaces_encryption WHERE name = 'crypt/plain'";
        assert_eq!(server.sql(key).trim(), if place == 3 { "2" } else { "1" });
    });
}

#[test]
fn single_tables_may_be_encrypted_and_all_may_become_so_in_place_and_back() {
    let folder = scratch();
    let options = ServerOptions::new().keys(&folder.path().join("keys")).argument("--innodb-encryption-threads=2");
    let site = Site::with(options.clone());
    let tables = [
        ("plain", ""),
        ("squeezed", "PAGE_COMPRESSED=1"),
        ("zipped", "ROW_FORMAT=COMPRESSED KEY_BLOCK_SIZE=8"),
        ("chosen", "ENCRYPTED=YES ENCRYPTION_KEY_ID=2"),
        ("chosen_squeezed", "ENCRYPTED=YES PAGE_COMPRESSED=1"),
        ("chosen_zipped", "ENCRYPTED=YES ROW_FORMAT=COMPRESSED KEY_BLOCK_SIZE=2"),
        ("chosen_open", "ENCRYPTED=NO"),
    ];
    let mut create = "CREATE DATABASE crypt CHARACTER SET utf8mb4; USE crypt;".to_owned();
    create.extend(tables.map(|(name, options)| table(name, options)));
    let changes: String = tables.map(|(name, _)| change(name)).concat();
    let mut lineage = Lineage::default();
    lineage.step(&site, &create, &[]);
    for (switch, encrypted) in [("ON", true), ("OFF", false)] {
        site.server.sql(&format!("SET GLOBAL innodb_encrypt_tables = {switch}; USE crypt; {changes}"));
        settled(&site.server, encrypted);
        let backup = lineage.backed_up(&site, &["--incremental"]);
        assert_eq!(backup["kind"], "incremental");
    }
    tables.iter().for_each(|(name, _)| lineage.assert_changed(&format!("`crypt`.`{name}`")));
    // Else the server would change the files by itself, as it is set up now.
    let options = options.argument("--innodb-encryption-threads=0");
    lineage.all_restore(&site, &options, |place, server| {
        assert_eq!(is_open(server.datadir(), "plain.ibd"), place != 1, "backup {place}");
        assert!(is_open(server.datadir(), "chosen_open.ibd"));
        assert!(!is_open(server.datadir(), "chosen.ibd"));
    });
}

/// Files written before MariaDB 10.5 have this form; in it, pages both compressed and encrypted cannot be checked.
#[test]
fn encrypted_files_of_the_form_before_full_crc32_restore() {
    let folder = scratch();
    let options = ServerOptions::new()
        .keys(&folder.path().join("keys"))
        .argument("--innodb-encryption-threads=2")
        .argument("--innodb-encrypt-tables=ON")
        .argument("--innodb-checksum-algorithm=crc32");
    let site = Site::with(options.clone());
    let tables = [
        ("plain", ""),
        ("squeezed", "PAGE_COMPRESSED=1"),
        ("zipped", "ROW_FORMAT=COMPRESSED KEY_BLOCK_SIZE=4"),
        ("open", "ENCRYPTED=NO"),
    ];
    let mut create = "CREATE DATABASE crypt CHARACTER SET utf8mb4; USE crypt;".to_owned();
    create.extend(tables.map(|(name, options)| table(name, options)));
    let changes: String = tables.map(|(name, _)| change(name)).concat();
    let mut lineage = Lineage::default();
    lineage.step(&site, &create, &[]);
    lineage.step(&site, &format!("USE crypt; {changes}"), &["--incremental"]);
    tables.iter().for_each(|(name, _)| lineage.assert_changed(&format!("`crypt`.`{name}`")));
    lineage.all_restore(&site, &options, |_, server| assert!(!is_open(server.datadir(), "plain.ibd")));
}

#[test]
fn a_restore_without_the_keys_says_where_they_should_be_and_works_when_they_are_there_or_elsewhere() {
    let folder = scratch();
    let keys = folder.path().join("keys");
    let options = ServerOptions::new().keys(&keys).argument("--innodb-encrypt-log=ON");
    let site = Site::with(options.clone());
    let create = table("plain", "ENCRYPTED=YES");
    let mut lineage = Lineage::default();
    let backup = lineage.step(&site, &format!("CREATE DATABASE crypt; USE crypt; {create}"), &[]);
    let elsewhere = folder.path().join("elsewhere");
    fs::rename(&keys, &elsewhere).unwrap();
    let [datadir, target] = ["without-keys", "fetched"].map(|name| site.folder().join(name));
    let [datadir_text, target_text] = [&datadir, &target].map(|path| path.to_str().unwrap());
    let id = backup["backup_id"].as_str().unwrap();
    let run = site.haulout.run(["--json", "restore", "--backup", id, "--datadir", datadir_text]);
    assert_says(&run, 23, keys.to_str().unwrap(), "backup-my.cnf");
    assert!(!datadir.exists());
    // What the repository holds can be checked all the same.
    site.haulout.run(["check", "--read-data"]).ok();
    // Keys at another place: the option file of the fetched directory says where.
    site.haulout.run(["fetch", "--backup", id, "--target", target_text]).ok();
    let option_file = target.join("backup-my.cnf");
    let text = fs::read_to_string(&option_file).unwrap();
    fs::write(&option_file, text.replace(keys.to_str().unwrap(), elsewhere.to_str().unwrap())).unwrap();
    site.haulout.run(["prepare", "--target", target_text]).ok();
    site.haulout.run(["move-back", "--target", target_text, "--datadir", datadir_text]).ok();
    drop(lineage.started(0, &datadir, &ServerOptions::new().keys(&elsewhere).argument("--innodb-encrypt-log=ON")));
    fs::rename(&elsewhere, &keys).unwrap();
    lineage.all_restore(&site, &options, |_, _| ());
}

#[test]
fn a_changed_byte_in_an_encrypted_page_is_found_without_keys() {
    let folder = scratch();
    let options = ServerOptions::new().keys(&folder.path().join("keys"));
    let site = Site::with(options);
    let tables = [
        ("plain", "ENCRYPTED=YES", 16384),
        ("squeezed", "ENCRYPTED=YES PAGE_COMPRESSED=1", 16384),
        ("zipped", "ENCRYPTED=YES ROW_FORMAT=COMPRESSED KEY_BLOCK_SIZE=4", 4096),
    ];
    site.server.sql("CREATE DATABASE crypt CHARACTER SET utf8mb4");
    for (name, options, _) in tables {
        let create = table(name, options);
        site.server.sql(&format!("USE crypt; {create} FLUSH TABLES crypt.{name} FOR EXPORT; UNLOCK TABLES;"));
    }
    let recording = Recording::of(&site.server);
    for (name, _, page_bytes) in tables {
        let path = format!("crypt/{name}.ibd");
        let chunks = recording.chunks();
        let chunk = chunks.iter().find(|chunk| chunk.path == path && chunk.payload.len() > 8 * page_bytes).unwrap();
        let mut stream = recording.stream.clone();
        // In the middle of the page with the first rows.
        stream[chunk.payload.start + 4 * page_bytes + 100] ^= 1;
        crate::support::tool::reseal(&mut stream, chunk);
        let tool = recording.with(stream).tool();
        site.refuses_backup(20, &path, "CHECK TABLE", &[&tool.flag()]);
    }
    let tool = recording.tool();
    site.backed_up(&[&tool.flag()]);
}
