//! The pages of `infra/RUNBOOK.md` for Galera work as they stand there: a node that is seeded, and a cluster that is lost.

use std::fs;

use crate::{
    galera::{Cluster, library, status},
    runbook::{COUNT, MORE, Machine, NODE},
    support::{Bucket, Haulout, LocalStack, MariaDb, not_shown, server::free_port, site::listing},
};

/// What a server's option files would make of the machine: a node that listens on `port` and joins that of another.
fn node(machine: &Machine, cluster: &Cluster, id: u32, port: u16, of: u16) {
    fs::write(machine.path("node"), cluster.arguments(id, port, Some(of)).join("\n") + "\n").unwrap();
    machine.command("wsrep_sst_nothing", &fs::read_to_string(cluster.script()).unwrap());
    // As MariaDB's own: an option more, for once.
    machine.command(
        "galera_new_cluster",
        "#!/bin/bash\nset -eu\ntouch PLACE/new-cluster\nsystemctl start mariadb\nrm PLACE/new-cluster\n",
    );
}

/// The first node of a cluster, with a backup in the bucket and rows that are newer.
fn backed_up(cluster: &Cluster, port: u16, bucket: &Bucket) -> MariaDb {
    let first = MariaDb::with(cluster.node(1, port, None));
    first.sql("CREATE DATABASE shop; USE shop; CREATE TABLE item (id INT PRIMARY KEY) ENGINE=InnoDB");
    first.sql("USE shop; INSERT INTO item SELECT seq FROM seq_1_to_1000");
    let haulout = Haulout::in_bucket(bucket, "db1");
    haulout.run(["init"]).ok();
    haulout.backup(&first, &[]).ok();
    first.sql(MORE);
    first
}

/// Follows the page for a node while `first` lives; what was said.
fn seeded(machine: &Machine, first: &MariaDb) -> String {
    let there = format!("--socket={}", first.socket().display());
    machine.follows(NODE, &[("--host=db2", &there)], &format!("{COUNT}\n{SIZE}"))
}

const SIZE: &str = r#"mariadb --socket="$HAULOUT_SOCKET" --user=root -NBe "SHOW STATUS LIKE 'wsrep_cluster_size'""#;

#[test]
fn the_page_for_a_galera_node_has_it_join_by_what_it_lacks() {
    let Some(library) = library() else {
        return not_shown("that the runbook seeds a Galera node: there is no library");
    };
    let (cluster, port, bucket) = (Cluster::new(library), free_port(), LocalStack::shared().bucket());
    let first = backed_up(&cluster, port, &bucket);
    let machine = Machine::without_repository(bucket);
    node(&machine, &cluster, 2, free_port(), port);
    let said = seeded(&machine, &first);
    for words in ["\tSynced\n", "wsrep_local_cached_downto\t", "\nrows 2000\n", "\nwsrep_cluster_size\t2\n"] {
        assert!(said.contains(words), "{words:?}: {said}");
    }
    assert_eq!(cluster.calls(), [(false, false), (true, true)], "not an incremental transfer");
    assert!(!machine.path("mysql.old").exists());
}

#[test]
fn the_page_for_a_lost_galera_cluster_begins_a_new_one_from_which_the_others_are_seeded() {
    let Some(library) = library() else {
        return not_shown("that the runbook begins a lost Galera cluster anew: there is no library");
    };
    let (cluster, bucket) = (Cluster::new(library), LocalStack::shared().bucket());
    let ports = [free_port(), free_port()];
    let mut lost = backed_up(&cluster, free_port(), &bucket);
    let uuid = status(&lost, "wsrep_cluster_state_uuid");
    lost.stop();

    let mut machine = Machine::without_repository(bucket);
    node(&machine, &cluster, 1, ports[0], ports[1]);
    let said = machine.follows("galera cluster lost", &[], COUNT);
    assert!(said.contains("\nrows 1000\n") && said.contains("wsrep_cluster_size\t1\n"), "{said}");
    assert!(!machine.path("mysql.lost").exists());
    assert_eq!(listing(&machine.haulout()).len(), 2);

    // It goes on, with rows of its own; and another node is seeded from its backup.
    let first = MariaDb::on(&machine.path("mysql"), cluster.node(1, ports[0], None));
    assert_ne!(status(&first, "wsrep_cluster_state_uuid"), uuid);
    first.sql(MORE);
    let bucket = std::mem::replace(&mut machine.bucket, LocalStack::shared().bucket());
    let other = Machine::without_repository(bucket);
    node(&other, &cluster, 2, ports[1], ports[0]);
    let said = seeded(&other, &first);
    assert!(said.contains("\nrows 2000\n") && said.contains("\nwsrep_cluster_size\t2\n"), "{said}");
    assert_eq!(cluster.calls(), [(false, false), (true, true)], "not an incremental transfer");
}
