//! A node of a Galera cluster that was restored joins it again by what it lacks, and is told when it cannot.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{
    Haulout, MariaDb, ServerOptions, Site, not_shown, scratch, server::free_port, site::assert_says, wait,
};

/// Time for a node to join.
const JOIN_LIMIT: Duration = Duration::from_secs(60);

/// Stands for the scripts that send a node everything. Only who calls it, and for what, is of interest: a donor is called with `--bypass`
/// where an incremental transfer will do. Where it will not, this one sends nothing, and the joiner ends.
const SCRIPT: &str = r#"#!/bin/bash
echo "$*" >>HERE/calls
for word; do
  case $last in --role) role=$word ;; --gtid) gtid=$word ;; esac
  [ "$word" = --bypass ] && bypass=yes
  last=$word
done
case $role in
  joiner) rm -f HERE/sent; mkfifo HERE/sent; echo 'ready 127.0.0.1:1'; read -r line <HERE/sent; [ -n "$line" ] && echo "$line" ;;
  donor) if [ -n "$bypass" ]; then echo "$gtid" >HERE/sent; echo "done $gtid"; else : >HERE/sent; exit 22; fi ;;
esac
"#;

/// Galera's library, where it can be had.
pub fn library() -> Option<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("integration/galera.sh");
    let output = Command::new(script).output().expect("integration/galera.sh can be run");
    output.status.success().then(|| String::from_utf8(output.stdout).unwrap().trim().into())
}

/// A cluster on loopback.
pub struct Cluster {
    library: PathBuf,
    folder: TempDir,
}

impl Cluster {
    pub fn new(library: PathBuf) -> Cluster {
        let folder = scratch();
        let cluster = Cluster { library, folder };
        let script = cluster.script();
        fs::write(&script, SCRIPT.replace("HERE", cluster.folder.path().to_str().unwrap())).unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        cluster
    }

    /// The script that every node calls.
    pub fn script(&self) -> PathBuf {
        self.folder.path().join("wsrep_sst_nothing")
    }

    /// Options of a node that listens on a port, and joins that of another; without one it begins the cluster.
    pub fn node(&self, id: u32, port: u16, of: Option<u16>) -> ServerOptions {
        let path = format!("{}:{}", self.folder.path().display(), std::env::var("PATH").unwrap());
        let options = ServerOptions::new().tcp().programs(path);
        self.arguments(id, port, of).into_iter().fold(options, ServerOptions::argument)
    }

    /// The arguments among them.
    pub fn arguments(&self, id: u32, port: u16, of: Option<u16>) -> [String; 12] {
        let address = of.map_or_else(|| "gcomm://".to_owned(), |of| format!("gcomm://127.0.0.1:{of}"));
        let provider =
            format!("gmcast.listen_addr=tcp://127.0.0.1:{port};ist.recv_addr=127.0.0.1:{};gcache.size=4M", free_port());
        [
            format!("--server-id={id}"),
            "--log-bin=binlog".to_owned(),
            "--binlog-format=ROW".to_owned(),
            "--innodb-autoinc-lock-mode=2".to_owned(),
            "--wsrep-on=ON".to_owned(),
            format!("--wsrep-provider={}", self.library.display()),
            "--wsrep-cluster-name=shop".to_owned(),
            format!("--wsrep-cluster-address={address}"),
            format!("--wsrep-node-address=127.0.0.1:{port}"),
            format!("--wsrep-node-name=node{id}"),
            format!("--wsrep-provider-options={provider}"),
            "--wsrep-sst-method=nothing".to_owned(),
        ]
    }

    /// Roles in which the script was called, and whether the transfer was an incremental one; forgotten then.
    pub fn calls(&self) -> Vec<(bool, bool)> {
        let path = self.folder.path().join("calls");
        let calls = fs::read_to_string(&path).unwrap_or_default();
        fs::remove_file(path).ok();
        calls.lines().map(|line| (line.contains("--role donor"), line.contains(" --bypass"))).collect()
    }
}

pub fn status(server: &MariaDb, name: &str) -> String {
    let row = server.sql(&format!("SHOW STATUS LIKE '{name}'"));
    row.trim().split('\t').nth(1).unwrap_or_default().to_owned()
}

fn restored(haulout: &Haulout, datadir: &Path) -> Value {
    haulout.run(["--json", "restore", "--galera", "--datadir", datadir.to_str().unwrap()]).ok().summary().clone()
}

#[test]
fn a_restored_node_joins_its_cluster_by_what_it_lacks_and_is_told_where_it_cannot() {
    let Some(library) = library() else {
        return not_shown("that a restored node joins a Galera cluster: there is no library");
    };
    let cluster = Cluster::new(library);
    let port = free_port();
    let first = MariaDb::with(cluster.node(1, port, None));
    assert_eq!(status(&first, "wsrep_ready"), "ON");
    first.sql("CREATE DATABASE shop; CREATE TABLE shop.item (id INT PRIMARY KEY AUTO_INCREMENT, text VARCHAR(2000))");
    let haulout = Haulout::on(format!("file://{}", cluster.folder.path().join("repository").display()));
    haulout.run(["init"]).ok();
    let insert = "USE shop; INSERT INTO item (text) SELECT MD5(RAND()) FROM seq_1_to_20";
    // Write sets before, during and after the backup.
    let (client, over) = (first.client(), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                client.sql(insert);
            }
        });
        let taken = haulout.backup(&first, &[]);
        over.store(true, Ordering::Relaxed);
        taken.ok();
    });
    first.sql(insert);

    let datadirs = ["joins", "lacks"].map(|name| cluster.folder.path().join(name));
    haulout.run(["restore", "--galera", "--dry-run", "--datadir", datadirs[0].to_str().unwrap()]).ok();
    let told = restored(&haulout, &datadirs[0])["galera"].clone();
    assert_eq!(told["uuid"], status(&first, "wsrep_cluster_state_uuid").as_str(), "{told}");
    let (seqno, last) = (told["seqno"].as_u64().unwrap(), status(&first, "wsrep_last_committed").parse().unwrap());
    assert!(seqno > 2 && seqno < last, "{told}: {last}");
    assert_eq!(
        (&told["next_seqno"], told["file"].as_str().unwrap()),
        (&(seqno + 1).into(), datadirs[0].join("grastate.dat").to_str().unwrap())
    );
    let state = fs::read_to_string(datadirs[0].join("grastate.dat")).unwrap();
    assert!(state.contains(&format!("\nseqno:   {seqno}\nsafe_to_bootstrap: 0\n")), "{state}");
    assert!(!datadirs[0].join("xtrabackup_galera_info").exists());

    // The cluster has what comes after it, which is what it sends.
    let downto = |server: &MariaDb| -> u64 { status(server, "wsrep_local_cached_downto").parse().unwrap() };
    assert!(downto(&first) <= seqno + 1);
    let mut second = MariaDb::on(&datadirs[0], cluster.node(2, free_port(), Some(port)));
    wait::until("the node's joining", JOIN_LIMIT, || {
        (status(&second, "wsrep_local_state_comment") == "Synced").then_some(())
    });
    assert_eq!(cluster.calls(), [(false, false), (true, true)], "not an incremental transfer");
    assert!(second.error_log().contains("IST received: "), "{}", second.error_log());
    // What the file said is what InnoDB has. Were it more, write sets would be lost where the node is behind by no others.
    let stored = format!("Recovered position from storage: {}:{seqno}\n", told["uuid"].as_str().unwrap());
    assert!(second.error_log().contains(&stored), "{stored}{}", second.error_log());
    assert_eq!(status(&first, "wsrep_cluster_size"), "2");
    let sums = first.checksums();
    assert_eq!(second.checksums(), sums);
    second.sql("SET SESSION wsrep_sync_wait = 0; INSERT INTO shop.item (text) VALUES ('from the restored node')");
    first.sql("SET SESSION wsrep_sync_wait = 1; SELECT COUNT(*) FROM shop.item");
    assert!(first.checksums() != sums && first.checksums() == second.checksums());
    assert_eq!(second.check_all(), [""; 0]);
    second.stop();

    // Once no node has it any more, everything would be sent.
    restored(&haulout, &datadirs[1]);
    for _ in 0..12 {
        first.sql("USE shop; INSERT INTO item (text) SELECT REPEAT(MD5(RAND()), 60) FROM seq_1_to_400");
    }
    assert!(downto(&first) > seqno + 1, "{} of {seqno}", downto(&first));
    let refused = MariaDb::try_on(&datadirs[1], cluster.node(3, free_port(), Some(port)));
    assert!(refused.is_err(), "it joined without its state");
    assert_eq!(cluster.calls(), [(false, false), (true, false)], "not everything");
}

/// InnoDB still knows where it stood, and what was written since no other node has.
#[test]
fn a_server_that_left_its_cluster_is_restored_as_no_node_of_it() {
    let Some(library) = library() else {
        return not_shown("that a server which left its Galera cluster is no node: there is no library");
    };
    let cluster = Cluster::new(library);
    let mut node = MariaDb::with(cluster.node(1, free_port(), None));
    node.sql("CREATE DATABASE shop; CREATE TABLE shop.item (id INT PRIMARY KEY); INSERT INTO shop.item VALUES (1)");
    node.stop();
    let alone = MariaDb::on(node.datadir(), ServerOptions::new());
    alone.sql("INSERT INTO shop.item VALUES (2)");
    let haulout = Haulout::on(format!("file://{}", cluster.folder.path().join("repository").display()));
    haulout.run(["init"]).ok();
    haulout.backup(&alone, &[]).ok();
    let datadir = cluster.folder.path().join("restored");
    for dry in [&["--dry-run"][..], &[]] {
        let restore = ["--json", "restore", "--galera", "--datadir", datadir.to_str().unwrap()];
        let run = haulout.run(restore.iter().chain(dry));
        assert_says(&run, 1, "knows of no Galera cluster", "SST");
        assert_eq!((datadir.join("ibdata1").exists(), datadir.join("grastate.dat").exists()), (dry.is_empty(), false));
    }
}

#[test]
fn a_backup_of_a_server_without_a_cluster_is_restored_and_told_to_know_of_none() {
    let site = Site::new();
    site.backed_up(&[]);
    let datadir = site.folder().join("data");
    let at = datadir.to_str().unwrap();
    // Beforehand, too, beside what a restore takes.
    let plan = site.haulout.run(["--json", "restore", "--galera", "--dry-run", "--datadir", at]);
    assert_says(&plan, 1, "knows of no Galera cluster", "SST");
    let told = plan.summary()["obstacles"].as_array().unwrap().len();
    assert!(told == 1 && !datadir.exists(), "{}", plan.stdout);
    site.haulout.run(["restore", "--dry-run", "--datadir", at]).ok();
    let run = site.haulout.run(["--json", "restore", "--galera", "--datadir", datadir.to_str().unwrap()]);
    assert_says(&run, 1, "knows of no Galera cluster", "SST");
    assert!(run.summary()["galera"].is_null() && datadir.join("ibdata1").exists());
    assert!(!datadir.join("grastate.dat").exists());
    site.haulout.run(["restore", "--galera", "--as-replica", "--datadir", "/x"]).exits(2);
}
