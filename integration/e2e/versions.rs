//! Other servers than the one of this machine: MariaDB 11.8 after an upgrade, and 10.5, which is refused.

use std::path::Path;

use crate::{
    holes::restores_to,
    support::{Haulout, MariaDb, Recording, ServerOptions, Site, full, not_shown, scratch, site::assert_says},
};

/// A PATH that `integration/test.sh --full` sets.
fn path(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run integration/test.sh --full"))
}

#[test]
fn the_tool_s_files_are_read_under_both_of_their_names() {
    let site = Site::new();
    let recording = Recording::of(&site.server);
    let other = recording.with_other_names();
    assert_ne!(other.control("checkpoints"), recording.control("checkpoints"));
    // The tool itself prepares what has its own names only.
    let renamed = site.backed_up(&["--full", &other.tool().flag()]);
    let own = site.backed_up(&["--full", &recording.tool().flag()]);
    assert_eq!((&renamed["lsn"], &renamed["position"]), (&own["lsn"], &own["position"]));
    restores_to(&site, &own, &site.server.checksums());
}

/// The datadir stays, inode by inode, and so does the LSN; pages of the older server would be mixed with those of the newer.
#[test]
fn a_server_that_was_upgraded_gets_a_full() {
    if !full() {
        return not_shown("an upgrade of the server's series");
    }
    let (older, newer) = (path("HAULOUT_TEST_OLDER_PATH"), path("HAULOUT_TEST_NEWER_PATH"));
    let mut site = Site::with(ServerOptions::new().programs(&older));
    let url = format!("file://{}", site.repository().display());
    let haulout = |path: &String| Haulout::on(&url).with([("PATH", path)]);
    site.haulout = haulout(&older);
    let was = site.server.sql("SELECT VERSION()").trim().to_owned();
    site.backed_up(&[]);
    site.server.stop();
    site.server.upgrade(&newer);
    site.server.restart();
    let is = site.server.sql("SELECT VERSION()").trim().to_owned();
    assert_ne!(was.split('.').take(2).collect::<Vec<_>>(), is.split('.').take(2).collect::<Vec<_>>());
    // The older tool is refused on it.
    site.refuses_backup(23, "but the server is of version", "install the package mariadb-backup", &[]);
    site.haulout = haulout(&newer);
    site.needs_full(&format!("the server was upgraded from {was} to {is}"));
    let datadir = site.folder().join("restored");
    site.haulout.run(["restore", "--datadir", datadir.to_str().unwrap()]).ok();
    let mut restored = MariaDb::on(&datadir, ServerOptions::new().programs(&newer));
    assert_eq!(restored.checksums(), site.server.checksums());
    restored.stop();
}

#[test]
fn mariadb_10_5_is_refused_by_name() {
    if !full() {
        return not_shown("that MariaDB 10.5 is refused by name");
    }
    let old = path("HAULOUT_TEST_OLD_PATH");
    let server = MariaDb::with(ServerOptions::new().programs(&old));
    assert_eq!(server.series(), "10.5");
    let folder = scratch();
    let url = format!("file://{}", folder.path().join("repository").display());
    let haulout = Haulout::on(&url).with([("PATH", &old)]);
    haulout.run(["init"]).ok();
    let run = haulout.backup(&server, &[]).exits(23);
    assert_says(&run, 23, "is not supported: its redo log has the format of before 10.8", "upgrade the server");
    assert!(!Path::new(folder.path()).join("repository/backups").exists());
}
