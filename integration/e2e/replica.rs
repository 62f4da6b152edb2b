//! A restored server becomes a replica of the one that was backed up, and catches up.

use std::{fs, path::Path, process::Stdio, time::Duration};

use crate::support::{MariaDb, ServerOptions, Site, server::temporary, site::assert_says, wait};

const CATCH_UP: Duration = Duration::from_secs(60);

fn source() -> Site {
    let options = ServerOptions::new().tcp().argument("--log-bin=binlog").argument("--server-id=1");
    let site = Site::with(options);
    site.server.sql("CREATE USER repl@127.0.0.1 IDENTIFIED BY 'it''s a ''secret\\\\'; GRANT REPLICATION SLAVE ON *.* TO repl@127.0.0.1");
    fs::write(site.folder().join("password"), "it's a 'secret\\\n").unwrap();
    site
}

/// Arguments of a restore into `datadir`, with more.
fn arguments(site: &Site, datadir: &Path, more: &[&str]) -> Vec<String> {
    let (port, password) = (site.server.port().to_string(), site.folder().join("password"));
    let usual = ["--json", "restore", "--as-replica", "--source-host", "127.0.0.1", "--source-user", "repl"];
    let mut all: Vec<String> = usual.map(str::to_owned).into();
    all.extend(["--source-port".to_owned(), port, "--datadir".to_owned(), datadir.display().to_string()]);
    all.extend(["--source-password-file".to_owned(), password.display().to_string()]);
    all.extend(more.iter().map(|argument| (*argument).to_owned()));
    all
}

/// GTID position of the source, whose transactions are over.
fn position(site: &Site) -> String {
    site.server.sql("SELECT @@gtid_binlog_pos").trim().to_owned()
}

#[test]
fn a_restored_server_attaches_by_the_script_in_its_datadir_and_catches_up() {
    let site = source();
    let first = site.backed_up(&[]);
    site.change();
    site.backed_up(&["--incremental"]);
    site.change();
    for (name, backup) in [("first", first["backup_id"].as_str().unwrap()), ("latest", "latest")] {
        let datadir = site.folder().join(name);
        let run = site.haulout.run(arguments(&site, &datadir, &["--backup", backup])).ok();
        let (summary, gtid) = (run.summary(), run.summary()["position"]["gtid"].as_str().unwrap());
        let told = summary["replica"]["statements"].to_string();
        assert!(told.contains(&format!("gtid_slave_pos = '{gtid}'")), "{summary}");
        assert!(told.contains("MASTER_HOST='127.0.0.1'") && told.contains("MASTER_USE_GTID=slave_pos"), "{summary}");
        assert!(!run.stdout.contains("a 'secret") && !run.stdout.contains("a ''secret"), "the password is shown");
        let script = summary["replica"]["script"].as_str().unwrap();
        assert_eq!(script, datadir.join("haulout-replica.sql").to_str().unwrap());

        let replica = MariaDb::on(&datadir, ServerOptions::new().argument("--server-id=2"));
        let client = replica.client().command().stdin(fs::File::open(script).unwrap()).status().unwrap();
        assert!(client.success(), "the script fails");
        site.server.sql("INSERT INTO shop.item (text) VALUES ('after the backup')");
        let (expected, wanted) = (site.server.checksums(), position(&site));
        wait::until("the replica", CATCH_UP, || {
            (replica.sql("SELECT @@gtid_slave_pos").trim() == wanted).then_some(())
        });
        assert_eq!(replica.checksums(), expected, "{name}");
        assert_eq!(replica.check_all(), [""; 0]);
    }
}

/// A server that a start command left running, ended with the test.
struct Started<'a>(&'a Path);

impl Drop for Started<'_> {
    fn drop(&mut self) {
        let pid = fs::read_to_string(self.0.join("pid")).ok().and_then(|text| text.trim().parse().ok());
        if let Some(pid) = pid.and_then(rustix::process::Pid::from_raw) {
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).ok();
            wait::until("the server's end", CATCH_UP, || {
                rustix::process::test_kill_process(pid).is_err().then_some(())
            });
        }
    }
}

#[test]
fn a_replica_that_is_started_here_follows_its_source_and_what_keeps_it_from_that_is_told() {
    let site = source();
    site.backed_up(&[]);
    site.change();
    let run_dir = site.folder().join("run");
    fs::create_dir(&run_dir).unwrap();
    let datadir = site.folder().join("replica");
    let socket = run_dir.join("s");
    let start = |id: u32| {
        format!(
            "mariadbd --no-defaults --user=root --datadir={} --socket={} --pid-file={} --skip-networking --server-id={id} {} \
             2>{}/log &",
            datadir.display(),
            socket.display(),
            run_dir.join("pid").display(),
            temporary(&run_dir),
            run_dir.display()
        )
    };
    let restore = |start: &str| {
        let reached = ["--start-replica", start, "--socket", socket.to_str().unwrap(), "--user", "root"];
        site.haulout.run(arguments(&site, &datadir, &reached))
    };
    let again = || {
        fs::remove_dir_all(&datadir).unwrap();
        fs::remove_file(&socket).ok();
    };

    assert_says(&restore("exit 7"), 23, "the start command \"exit 7\" failed", "start the server");
    assert!(datadir.join("haulout-replica.sql").exists() && datadir.join("ibdata1").exists());
    again();
    {
        let _server = Started(&run_dir);
        let run = restore(&start(1));
        assert_says(&run, 23, "has server_id 1", "a number of its own");
        assert_eq!(run.summary()["replica"]["attached"], serde_json::Value::Null);
    }
    again();
    {
        // The source lets nobody in.
        site.server.sql("ALTER USER repl@127.0.0.1 IDENTIFIED BY 'another'");
        let _server = Started(&run_dir);
        assert_says(&restore(&start(2)), 23, "Access denied", "SHOW SLAVE STATUS");
        fs::write(site.folder().join("password"), "another\n").unwrap();
    }
    again();
    let _server = Started(&run_dir);
    let run = restore(&start(2)).ok();
    assert!(run.summary()["replica"]["attached"]["gtid_slave_pos"].is_string(), "{}", run.stdout);
    let ask = |statement: &str| {
        let mut client = std::process::Command::new("mariadb");
        client.args(["--no-defaults", "--batch", "--skip-column-names", "--user=root"]).stderr(Stdio::inherit());
        let output =
            client.arg(format!("--socket={}", socket.display())).arg(format!("--execute={statement}")).output();
        String::from_utf8(output.unwrap().stdout).unwrap().trim().to_owned()
    };
    let wanted = position(&site);
    wait::until("the replica", CATCH_UP, || (ask("SELECT @@gtid_slave_pos") == wanted).then_some(()));
    let sum = "CHECKSUM TABLE shop.item";
    assert_eq!(ask(sum), site.server.sql(sum).trim());
}

#[test]
fn a_backup_that_does_not_know_where_it_stands_is_not_restored_as_a_replica() {
    let site = Site::new();
    site.backed_up(&[]);
    let datadir = site.folder().join("replica");
    let arguments = ["--json", "restore", "--as-replica", "--datadir", datadir.to_str().unwrap()];
    for more in [&[][..], &["--dry-run"]] {
        let run = site.haulout.run(arguments.iter().chain(more));
        assert_says(&run, 2, "no position from which a replica could go on", "log_bin");
    }
    assert!(!datadir.exists());
    site.haulout.run(["restore", "--datadir", datadir.to_str().unwrap(), "--source-host", "db1"]).exits(2);
}
