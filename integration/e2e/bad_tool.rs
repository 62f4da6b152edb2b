//! A tool or a server that does not do as it should: nothing is committed, and the next run works.

use std::{fs, os::unix::fs::symlink, path::Path};

use crate::support::{
    Haulout, MariaDb, Recording, ServerOptions, Site, Tool, scratch,
    site::assert_unlocked,
    tool::{self, CHUNK_HEAD, Chunk, reseal},
};

#[test]
fn a_server_that_is_down_is_named() {
    let mut site = Site::new();
    site.backed_up(&[]);
    site.server.stop();
    let run = site.refuses_backup(23, "socket", "check that the server runs", &[]);
    assert!(run.stdout.contains(site.server.socket().to_str().unwrap()), "{}", run.stdout);
    site.server.restart();
    site.backed_up(&["--incremental"]);
}

#[test]
fn an_account_that_may_not_back_up_is_told_what_it_lacks() {
    let site = Site::with(ServerOptions::new().tcp());
    site.server.sql(
        "CREATE USER backup@localhost IDENTIFIED BY 'right'; GRANT PROCESS, BINLOG MONITOR ON *.* TO backup@localhost;",
    );
    let run = |password: &str, more: &[&str]| {
        let haulout =
            Haulout::on(format!("file://{}", site.repository().display())).with([("HAULOUT_PASSWORD", password)]);
        let socket = format!("--socket={}", site.server.socket().display());
        let mut arguments = vec!["--json", "backup", &socket, "--user=backup"];
        arguments.extend(more);
        haulout.run(arguments)
    };
    let denied = site.refuses(23, "Access denied for user 'backup'", "password", || run("wrong", &[]));
    let said = format!("{}{}", denied.stdout, denied.stderr);
    assert!(!said.contains("'wrong'") && !said.contains("=wrong"), "the password is shown: {said}");
    site.refuses(23, "RELOAD", "GRANT RELOAD", || run("right", &[]));
    site.server.sql("GRANT RELOAD, LOCK TABLES ON *.* TO backup@localhost");
    run("right", &[]).ok();
    // The same over TCP.
    let port = format!("--port={}", site.server.port());
    site.server.sql("CREATE USER backup@'127.0.0.1' IDENTIFIED BY 'right'; GRANT ALL ON *.* TO backup@'127.0.0.1'");
    let tcp = Haulout::on(format!("file://{}", site.repository().display())).with([("HAULOUT_PASSWORD", "right")]);
    let next = tcp.run(["--json", "backup", "--host=127.0.0.1", &port, "--user=backup"]).ok();
    assert_eq!(next.summary()["kind"], "incremental");
    site.refuses(23, "Access denied", "password", || {
        let none = Haulout::on(format!("file://{}", site.repository().display()));
        none.run(["--json", "backup", "--host=127.0.0.1", &port, "--user=backup"])
    });
}

#[test]
fn a_tool_that_is_missing_or_does_not_fit_is_named() {
    let site = Site::new();
    let empty = scratch();
    symlink(tool::real("mariadb"), empty.path().join("mariadb")).unwrap();
    let flag = format!("--tool-dir={}", empty.path().display());
    site.refuses_backup(23, "mariadb-backup is not installed", "install the package mariadb-backup", &[&flag]);
    let series = site.server.series();
    for version in ["10.6.21-MariaDB", "11.4.6-MariaDB"] {
        let tool = Tool::of_version(version);
        let hint = format!("install the package mariadb-backup of MariaDB {series}");
        site.refuses_backup(23, version, &hint, &[&tool.flag()]);
    }
    let nothing = Tool::of_version("the new one");
    site.refuses_backup(23, "is not MariaDB's", "name the path", &[&nothing.flag()]);
    // An older patch release mostly works, and is worth a warning.
    let older = format!("{series}.1-MariaDB");
    let run = site.backup(&[&Tool::of_version(&older).flag()]).ok();
    let warning = run.message("warning")["message"].as_str().unwrap().to_owned();
    assert!(warning.contains(&format!("{older} is older than the server")), "{warning}");
}

#[test]
fn a_tool_that_is_killed_in_the_middle_leaves_nothing() {
    let site = Site::new();
    let tool = Tool::new(
        "mkfifo \"$here/pipe.$$\"
         \"$real\" \"$@\" > \"$here/pipe.$$\" &
         tool=$!
         head -c 3000000 < \"$here/pipe.$$\"
         kill -9 $tool
         echo killed >> \"$here/kills\"
         kill -9 $$",
    );
    site.refuses_backup(23, "killed by signal 9", "out-of-memory", &[&tool.flag()]);
    // Such a fault can pass, so that it is tried again, but not for ever.
    let kills = fs::read_to_string(tool.folder().join("kills")).unwrap().lines().count();
    assert!((2..=3).contains(&kills), "{kills}");
    assert_unlocked(&site.server);
    // One that is killed once costs a warning.
    let once = Tool::new(
        "[ -e \"$here/kills\" ] && exec \"$real\" \"$@\"
         echo killed >> \"$here/kills\"
         \"$real\" \"$@\" | head -c 3000000
         kill -9 $$",
    );
    let run = site.backup(&[&once.flag()]).ok();
    assert!(run.message("warning")["message"].as_str().unwrap().contains("trying again"), "{}", run.stdout);
    assert_eq!(site.backed_up(&[])["kind"], "incremental");
}

#[test]
fn a_tool_that_ends_with_0_but_not_well_is_not_believed() {
    let site = Site::new();
    let silent =
        Tool::new("\"$real\" \"$@\" 2>\"$here/err\" || exit; grep -v 'completed OK!' \"$here/err\" >&2; exit 0");
    site.refuses_backup(23, "without \"completed OK!\"", "reinstall", &[&silent.flag()]);
    let failing = Tool::new("\"$real\" \"$@\"; exit 1");
    site.refuses_backup(23, "exit status: 1", "", &[&failing.flag()]);
    let mute = Tool::new("exit 0");
    site.refuses_backup(23, "without \"completed OK!\"", "", &[&mute.flag()]);
    let missing = Tool::new(
        "\"$real\" \"$@\" && echo '[01] 2026-01-01 00:00:00 Warning: We assume the  table was dropped \
         during xtrabackup execution and ignore the tablespace ./shop/item.ibd' >&2",
    );
    site.refuses_backup(20, "left out shop/item, and no DDL explains it", "run the backup again", &[&missing.flag()]);
    site.backed_up(&[]);
}

/// A stream with one thing wrong with it.
struct Damage {
    what: String,
    stream: Vec<u8>,
    says: &'static str,
}

fn damage(what: impl Into<String>, stream: Vec<u8>, says: &'static str) -> Damage {
    Damage { what: what.into(), stream, says }
}

/// Every way in which the tool's stream is cut or changed in these tests, the tool itself saying that all is well.
fn damages(recording: &Recording) -> Vec<Damage> {
    let stream = &recording.stream;
    let chunks = recording.chunks();
    let first = |path: &str, kind: u8| -> &Chunk {
        let found = chunks.iter().find(|chunk| chunk.path == path && chunk.kind == kind);
        found.unwrap_or_else(|| panic!("no chunk of {path}"))
    };
    let without = |wanted: &dyn Fn(&Chunk) -> bool| -> Vec<u8> {
        chunks.iter().filter(|chunk| !wanted(chunk)).flat_map(|chunk| stream[chunk.start..chunk.end].to_vec()).collect()
    };
    let changed = |change: &dyn Fn(&mut Vec<u8>)| -> Vec<u8> {
        let mut stream = stream.clone();
        change(&mut stream);
        stream
    };
    let item = first("shop/item.ibd", b'P');
    let redo = first("ib_logfile0", b'P');
    let last = chunks.last().unwrap();
    let info = first(&recording.control("info"), b'P');
    let checkpoints = recording.control("checkpoints");
    let mut damages = vec![
        damage("nothing at all", Vec::new(), ""),
        damage("cut in a payload", stream[..item.payload.start + 5000].to_vec(), ""),
        damage("cut in a chunk's head", stream[..item.start + 9].to_vec(), ""),
        damage("cut at a chunk's border", stream[..item.start].to_vec(), ""),
        damage("cut before the end of a file", stream[..item.end].to_vec(), ""),
        damage("cut before the last chunk", stream[..last.start].to_vec(), "backup_info"),
        damage("cut before the last file", stream[..info.start].to_vec(), "xtrabackup_info is missing"),
        damage("cut by one byte", stream[..stream.len() - 1].to_vec(), ""),
        damage("junk at the end", changed(&|stream| stream.extend(b"XBSTJUNK")), ""),
        damage("no redo log", without(&|chunk| chunk.path == "ib_logfile0"), "ib_logfile0 is missing"),
        damage("no system tablespace", without(&|chunk| chunk.path == "ibdata1"), "ibdata1"),
        damage("no checkpoints", without(&|chunk| chunk.path == checkpoints), "checkpoints is missing"),
        damage("no settings", without(&|chunk| chunk.path == "backup-my.cnf"), "backup-my.cnf is missing"),
        damage("a payload missing", without(&|chunk| chunk == redo), ""),
        damage(
            "a chunk twice",
            changed(&|new| {
                let again = stream[item.start..item.end].to_vec();
                new.splice(item.end..item.end, again);
            }),
            "shop/item.ibd",
        ),
        damage("a bit flipped in the magic", changed(&|stream| stream[item.start + 3] ^= 1), ""),
        damage("a bit flipped in the kind", changed(&|stream| stream[item.start + 9] ^= 0x20), ""),
        damage("a bit flipped in a path's length", changed(&|stream| stream[item.start + 12] ^= 1), ""),
        damage("a bit flipped in a length", changed(&|stream| stream[item.payload.start - 20] ^= 1), ""),
        damage("a bit flipped in an offset", changed(&|stream| stream[item.payload.start - 11] ^= 1), ""),
        damage("a bit flipped in a payload", changed(&|stream| stream[item.payload.start + 40_000] ^= 4), "checksum"),
        damage(
            "a bit flipped in a page on the server's disk",
            changed(&|stream| {
                stream[item.payload.start + 3 * 16_384 + 5000] ^= 4;
                reseal(stream, item);
            }),
            "page 3 of shop/item.ibd is damaged",
        ),
        damage(
            "a page of another table",
            changed(&|stream| {
                let other = first("mysql/innodb_table_stats.ibd", b'P').payload.start + 3 * 16_384;
                let page = stream[other..other + 16_384].to_vec();
                stream[item.payload.start + 3 * 16_384..][..16_384].copy_from_slice(&page);
                reseal(stream, item);
            }),
            "shop/item.ibd",
        ),
        damage(
            "a bit flipped in the redo log",
            changed(&|stream| {
                stream[redo.payload.start + 0x3000 + 20] ^= 1;
                reseal(stream, redo);
            }),
            "redo log",
        ),
        damage(
            "another start checkpoint",
            changed(&|stream| {
                stream[redo.payload.start + 13] ^= 1;
                reseal(stream, redo);
            }),
            "redo log",
        ),
    ];
    let path = item.start + CHUNK_HEAD;
    for name in
        ["../hop/item.ibd", "/shop/tem.ibd", "shop/../it.ibd", "./../../i.ibd", "shop/..", "..", "/etc/passwd", "a\0b"]
    {
        let stream = chunks.iter().fold(Vec::new(), |mut new, chunk| {
            if chunk.path == item.path {
                new.extend(&stream[chunk.start..chunk.start + 10]);
                new.extend(u32::try_from(name.len()).unwrap().to_le_bytes());
                new.extend(name.as_bytes());
                new.extend(&stream[chunk.start + CHUNK_HEAD + chunk.path.len()..chunk.end]);
            } else {
                new.extend(&stream[chunk.start..chunk.end]);
            }
            new
        });
        damages.push(damage(format!("a path {name:?}"), stream, "path"));
    }
    assert_eq!(&stream[path..path + item.path.len()], item.path.as_bytes());
    damages
}

#[test]
fn a_stream_that_was_cut_or_changed_is_never_committed() {
    let site = Site::new();
    let recording = Recording::of(&site.server);
    for Damage { what, stream, says } in damages(&recording) {
        println!("{what}");
        let tool = recording.with(stream).tool();
        site.refuses_backup(20, says, "", &["--full", &tool.flag()]);
    }
    assert_no_strangers(site.folder());
    // The recording itself is fine: what was refused was refused for what was changed in it.
    site.backed_up(&["--full", &recording.tool().flag()]);
    site.backed_up(&[]);
}

/// Panics when something lies beside the repository.
fn assert_no_strangers(folder: &Path) {
    let names: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["repository"]);
}

/// The tool goes on without a table whose file was not there just when it was to be opened, as DDL can have it.
#[test]
fn a_table_that_the_tool_could_not_open_for_a_moment_is_there_after_another_capture() {
    let site = Site::new();
    let recording = Recording::of(&site.server);
    let kept = recording.chunks().into_iter().filter(|chunk| !chunk.path.starts_with("shop/note.MA"));
    let stream: Vec<u8> = kept.flat_map(|chunk| recording.stream[chunk.start..chunk.end].to_vec()).collect();
    assert!(stream.len() < recording.stream.len());
    let without = recording.with(stream).tool();
    // Once, and then the real tool.
    let tool = Tool::new(&format!(
        "[ ! -e \"$here/played\" ] || exec \"$real\" \"$@\"; : > \"$here/played\"
         echo '[00] 2026-11-25 10:00:00 Error on aria table file open ./shop/note.MAI' >&2
         cat {folder}/stderr >&2; exec cat {folder}/stream",
        folder = without.folder().display()
    ));
    let run = site.backup(&[&tool.flag()]).ok();
    assert!(
        run.message("warning")["message"].as_str().unwrap().contains("could not open shop/note.MAI"),
        "{}",
        run.stdout
    );
    let restored = MariaDb::on(&site.restored(run.summary()), ServerOptions::new());
    assert_eq!(restored.checksums(), site.server.checksums());
}
