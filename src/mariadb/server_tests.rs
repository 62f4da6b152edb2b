//! The tools against a real server, which each test starts in a scratch directory of its own.

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc::{Sender, channel},
    time::Duration,
};

use super::{
    child::{BackupChild, BackupOptions, ChildError},
    connection::Connection,
    datadir::{DatadirError, ServerEvidence, ensure_vacant, server_runs_on},
    facts::{FactsError, ServerFacts},
    identity::{DatadirLayout, DatadirWalk},
    messages::{Cause, Remedy},
    prepare::{Damage, Prepare, PrepareError, PrepareOptions},
    process::{Listener, Process},
    sql::{Session, SqlError},
    tool::{ToolPaths, Tools},
};
use crate::{
    error::Diagnose,
    model::{Lsn, Secret},
};

/// A password with all that option files, shells and connection strings stumble over.
const PASSWORD: &str = "a#b \"q' \\ ü;=x\\n $(id) ";

struct Server {
    dir: tempfile::TempDir,
    tools: Tools,
    process: Option<Process<Ready>>,
}

/// Waits for the server's own word instead of asking it again and again.
struct Ready(Sender<()>);

impl Listener for Ready {
    fn line(&mut self, line: &str) {
        if line.contains("ready for connections") {
            self.0.send(()).ok();
        }
    }
}

impl Server {
    fn start() -> Server {
        let tools = Tools::discover(&ToolPaths::default()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let datadir = option("--datadir=", &dir.path().join("data"));
        // A server deletes the temporary tables that it finds in its tmpdir at start, those of its neighbours too.
        let tmpdir = option("--tmpdir=", dir.path());
        let install = Command::new("mariadb-install-db")
            .args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db", &datadir, &tmpdir])
            .args(as_root())
            .output()
            .unwrap();
        assert!(install.status.success(), "{}", String::from_utf8_lossy(&install.stderr));
        let mut server = Server { dir, tools, process: None };
        server.run();
        server
    }

    fn run(&mut self) {
        let mut command = Command::new(&self.tools.server.as_ref().unwrap().path);
        command.args(["--no-defaults", "--skip-networking", "--log-bin=binlog", "--server-id=7"]);
        command.arg(option("--datadir=", &self.datadir())).arg(option("--socket=", &self.socket()));
        command.arg(option("--tmpdir=", self.dir.path())).args(as_root());
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let (sender, ready) = channel();
        self.process = Some(Process::spawn(command, Ready(sender)).unwrap());
        ready.recv_timeout(Duration::from_secs(60)).unwrap();
    }

    /// Ends the server at once: nobody wants its data any more.
    fn kill(&mut self) {
        if let Some(process) = self.process.take() {
            rustix::process::kill_process(process.pid(), rustix::process::Signal::KILL).unwrap();
            process.wait(Some(Duration::from_secs(60))).unwrap();
        }
    }

    fn datadir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("s.sock")
    }

    fn scratch(&self, name: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::create_dir(&path).unwrap();
        path
    }

    fn root(&self) -> Connection {
        Connection { socket: Some(self.socket()), user: Some("root".to_owned()), ..Connection::default() }
    }

    fn account(&self, user: &str, password: &str) -> Connection {
        let password = Some(Secret::new(password));
        Connection { user: Some(user.to_owned()), password, ..self.root() }
    }

    fn sql(&self, statement: &str) -> Vec<Vec<Option<String>>> {
        // A statement without a result set is no question; `batch` wants one for each.
        let root = self.root();
        Session::new(&self.tools, &root).query(&format!("{statement}; SELECT 1")).unwrap()
    }

    /// Other connections than the one that asks.
    fn connections(&self) -> usize {
        let root = self.root();
        let list = "SELECT id FROM information_schema.PROCESSLIST WHERE id <> CONNECTION_ID() AND command <> 'Daemon'";
        Session::new(&self.tools, &root).query(list).unwrap().len()
    }

    /// Whether there are no other connections, or soon will be: the server sees a moment later that a client has gone.
    fn is_left(&self) -> bool {
        (0..300).any(|_| self.connections() == 0)
    }

    fn spawn(&self, connection: &Connection, scratch: &Path) -> Result<BackupChild, ChildError> {
        let options = BackupOptions {
            incremental_from: None,
            parallel: 2,
            scratch: scratch.to_owned(),
            nice: Some(1),
            extra_args: vec![],
        };
        BackupChild::spawn(&self.tools, connection, &options, None)
    }

    /// A whole backup; returns the stream and its end.
    fn backup(
        &self,
        connection: &Connection,
        scratch: &str,
    ) -> (Vec<u8>, Result<super::child::ChildReport, ChildError>) {
        let mut child = self.spawn(connection, &self.scratch(scratch)).unwrap();
        let mut stream = vec![];
        child.take_stdout().unwrap().read_to_end(&mut stream).unwrap();
        (stream, child.finish())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn option(name: &str, path: &Path) -> String {
    format!("{name}{}", path.display())
}

fn as_root() -> &'static [&'static str] {
    if rustix::process::geteuid().is_root() { &["--user=root"] } else { &[] }
}

fn unpack(stream: &[u8], into: &Path) {
    let file = into.with_extension("xb");
    fs::write(&file, stream).unwrap();
    let input = fs::File::open(&file).unwrap();
    let done = Command::new("mbstream").args(["-x", "-C"]).arg(into).stdin(input).status().unwrap();
    assert!(done.success());
}

fn last_lsn(directory: &Path) -> Lsn {
    let text = fs::read_to_string(directory.join("xtrabackup_checkpoints"))
        .or_else(|_| fs::read_to_string(directory.join("mariadb_backup_checkpoints")))
        .unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("last_lsn = ")).unwrap();
    Lsn(line.parse().unwrap())
}

#[test]
fn accounts_are_let_in_refused_and_told_what_they_lack() {
    let server = Server::start();
    let quoted = PASSWORD.replace('\\', "\\\\").replace('\'', "''");
    server.sql(&format!("CREATE USER b1@localhost IDENTIFIED BY '{quoted}'"));
    server.sql("GRANT RELOAD, PROCESS, LOCK TABLES, BINLOG MONITOR ON *.* TO b1@localhost");
    server.sql("CREATE USER b2@localhost IDENTIFIED BY 'x'");
    // Both option files of the operator have a wrong password; ours must win over them.
    let home = server.scratch("home");
    fs::write(home.join(".my.cnf"), "[client]\npassword=wrong\n[mariadb-backup]\npassword=wrong\n").unwrap();
    let own = home.join("own file.cnf");
    let socket = server.socket();
    let text =
        format!("[mysqld]\ninnodb_page_size=16k\n[client]\nuser=b1\npassword=wrong\nsocket={}\n", socket.display());
    fs::write(&own, text).unwrap();

    let by_home = Connection { home: Some(home.clone()), ..server.account("b1", PASSWORD) };
    let secret = Some(Secret::new(PASSWORD));
    let by_file = Connection { defaults_file: Some(own.clone()), password: secret.clone(), ..Connection::default() };
    let by_extra = Connection {
        defaults_extra_file: Some(own),
        password: secret,
        home: Some(home.clone()),
        ..Connection::default()
    };
    for (connection, scratch) in [(by_home, "t1"), (by_file, "t2"), (by_extra, "t3")] {
        let facts = ServerFacts::gather(&Session::new(&server.tools, &connection)).unwrap();
        assert_eq!((facts.account.as_str(), facts.check().is_ok()), ("b1@localhost", true));
        server.backup(&connection, scratch).1.unwrap();
    }

    let poor = server.account("b2", "x");
    let facts = ServerFacts::gather(&Session::new(&server.tools, &poor)).unwrap();
    assert_eq!(facts.privileges.missing, ["RELOAD", "PROCESS", "BINLOG MONITOR"]);
    let error = facts.check().unwrap_err();
    assert!(
        matches!(error, FactsError::MissingPrivileges { .. }) && error.hint().unwrap().contains("`b2`@`localhost`")
    );
    let error = server.backup(&poor, "t4").1.unwrap_err();
    assert!(
        matches!(&error, ChildError::Failed { cause: Some(Cause::MissingPrivilege { .. }), tail, .. }
        if !tail.iter().any(|line| line.contains("PASSWORD"))),
        "{error:?}"
    );

    let wrong = server.account("b1", "wrong");
    let error = Session::new(&server.tools, &wrong).query("SELECT 1").unwrap_err();
    assert!(matches!(error, SqlError::AccessDenied { code: 1045, .. }), "{error}");
    let error = server.backup(&wrong, "t5").1.unwrap_err();
    assert!(matches!(error, ChildError::Failed { cause: Some(Cause::AccessDenied { .. }), .. }), "{error}");

    let down = Connection { socket: Some(home.join("none.sock")), ..server.root() };
    let error = Session::new(&server.tools, &down).query("SELECT 1").unwrap_err();
    assert!(matches!(error, SqlError::Unreachable { code: 2002, .. }), "{error}");
    assert_eq!(server.backup(&down, "t6").1.unwrap_err().remedy(), Remedy::Retry);
}

#[test]
fn answers_come_back_as_the_server_has_them() {
    let server = Server::start();
    let root = server.root();
    let session = Session::new(&server.tools, &root);
    let rows =
        session.query("SELECT NULL, 'NULL', '', 'a\\tb\\nc<&>\"ü', '</field>' UNION SELECT 1, 2, 3, 4, 5").unwrap();
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(rows[0], [None, some("NULL"), some(""), some("a\tb\nc<&>\"ü"), some("</field>")]);
    assert_eq!(rows.len(), 2);
    let error = session.query("SELECT nope").unwrap_err();
    assert!(matches!(error, SqlError::Other { code: 1054, .. }), "{error}");

    let facts = ServerFacts::gather(&session).unwrap();
    assert_eq!(facts.version.series(), server.tools.backup.version.series());
    assert_eq!(facts.datadir.canonicalize().unwrap(), server.datadir().canonicalize().unwrap());
    assert_eq!((facts.server_id, facts.log_bin, facts.replica, facts.galera), (7, true, false, false));
    assert!(facts.has_engine("InnoDB") && !facts.has_engine("rocksdb"));
    assert!(facts.innodb.lsn_current >= facts.innodb.lsn_last_checkpoint && facts.started <= facts.now);
    assert!(server.tools.fit(&facts.version).is_ok());
}

#[test]
fn a_backup_prepares_whole_and_not_without_one_of_its_tablespaces() {
    let server = Server::start();
    server.sql("CREATE DATABASE db");
    server.sql("CREATE TABLE db.t (a INT PRIMARY KEY) ENGINE=InnoDB");
    // Redo log for an old table after the last checkpoint, so that its absence is noticed; a table that the redo log itself
    // creates could come back without its file.
    server.sql("SET GLOBAL innodb_log_checkpoint_now=ON");
    server.sql("INSERT INTO db.t SELECT seq FROM mysql.seq_1_to_1000");
    let (stream, report) = server.backup(&server.root(), "target");
    let report = report.unwrap();
    assert_eq!(report.server.unwrap().series(), server.tools.backup.version.series());
    assert!(report.vanished.is_empty() && report.redo_copied.is_some());

    let whole = server.scratch("whole");
    unpack(&stream, &whole);
    let options = |directory: &Path, last_lsn| PrepareOptions {
        directory: directory.to_owned(),
        memory_bytes: Some(32 << 20),
        last_lsn: Some(last_lsn),
        ..PrepareOptions::default()
    };
    let lsn = last_lsn(&whole);
    let report = Prepare::spawn(&server.tools, &options(&whole, lsn), None).unwrap().finish().unwrap();
    assert_eq!(report.end_of_log, Some(lsn));
    assert_eq!(report.errors, Vec::<String>::new());

    let partial = server.scratch("partial");
    unpack(&stream, &partial);
    fs::remove_file(partial.join("db/t.ibd")).unwrap();
    let error = Prepare::spawn(&server.tools, &options(&partial, lsn), None).unwrap().finish().unwrap_err();
    assert!(matches!(error, PrepareError::Damaged { damage: Damage::MissingTablespace, .. }), "{error}");

    let short = server.scratch("short");
    unpack(&stream, &short);
    let error = Prepare::spawn(&server.tools, &options(&short, Lsn(lsn.0 + 1)), None).unwrap().finish().unwrap_err();
    assert!(matches!(error, PrepareError::RedoShort { .. }), "{error}");
}

#[test]
fn a_stopped_or_abandoned_backup_leaves_nothing_on_the_server() {
    let server = Server::start();
    // More than a pipe holds, so that the child waits for its reader.
    server.sql("CREATE DATABASE db");
    server.sql("CREATE TABLE db.t (a INT PRIMARY KEY, b VARCHAR(1000)) ENGINE=InnoDB");
    server.sql("INSERT INTO db.t SELECT seq, REPEAT('x', 1000) FROM mysql.seq_1_to_20000");

    let connection = server.account("root", "");
    let mut child = server.spawn(&connection, &server.scratch("stopped")).unwrap();
    let mut start = vec![0; 1 << 16];
    let mut stream = child.take_stdout().unwrap();
    stream.read_exact(&mut start).unwrap();
    assert!(server.connections() > 0);
    child.stopper().stop();
    assert!(matches!(child.finish(), Err(ChildError::Stopped)));
    assert!(server.is_left());
    drop(stream);

    // What a kill -9 of this process comes to: nobody holds the other end of the pipe.
    let mut child = server.spawn(&connection, &server.scratch("abandoned")).unwrap();
    let mut stream = child.take_stdout().unwrap();
    stream.read_exact(&mut start).unwrap();
    drop(stream);
    let error = child.finish().unwrap_err();
    assert!(matches!(error, ChildError::Failed { .. }), "{error}");
    assert!(server.is_left());

    let mut child = server.spawn(&connection, &server.scratch("dropped")).unwrap();
    child.take_stdout().unwrap().read_exact(&mut start).unwrap();
    drop(child);
    assert!(server.is_left());
}

#[test]
fn the_password_shows_in_no_argument_and_no_environment_of_the_child() {
    let server = Server::start();
    server.sql("CREATE USER b1@localhost IDENTIFIED BY 'visible-secret'");
    server.sql("GRANT ALL ON *.* TO b1@localhost");
    server.sql("CREATE DATABASE db");
    server.sql("CREATE TABLE db.t (a INT PRIMARY KEY, b VARCHAR(1000)) ENGINE=InnoDB");
    server.sql("INSERT INTO db.t SELECT seq, REPEAT('x', 1000) FROM mysql.seq_1_to_5000");
    let mut child = server.spawn(&server.account("b1", "visible-secret"), &server.scratch("target")).unwrap();
    let mut stream = child.take_stdout().unwrap();
    stream.read_exact(&mut vec![0; 1 << 16]).unwrap();
    for file in ["cmdline", "environ"] {
        let bytes = fs::read(format!("/proc/{}/{file}", child.id())).unwrap();
        assert!(!bytes.is_empty() && !String::from_utf8_lossy(&bytes).contains("visible-secret"), "{file}");
    }
    let mut rest = vec![];
    stream.read_to_end(&mut rest).unwrap();
    child.finish().unwrap();
    // The tool writes its own command line into the backup.
    assert!(!rest.windows(14).any(|bytes| bytes == b"visible-secret"));
}

#[test]
fn a_running_server_is_noticed_and_new_files_are_told_from_old_ones() {
    let mut server = Server::start();
    let found = server_runs_on(&server.datadir()).unwrap().unwrap();
    assert!(matches!(found, ServerEvidence::LockedFile { .. }), "{found}");
    let link = server.dir.path().join("link");
    std::os::unix::fs::symlink(server.datadir(), &link).unwrap();
    assert!(matches!(ensure_vacant(&link), Err(DatadirError::InUse { .. })));

    fs::write(server.datadir().join("backup-my.cnf"), "").unwrap();
    let options = PrepareOptions { directory: server.datadir(), ..PrepareOptions::default() };
    let refused = Prepare::spawn(&server.tools, &options, None).err().unwrap();
    assert!(matches!(refused, PrepareError::InUse { .. }), "{refused}");

    server.sql("CREATE DATABASE db");
    server.sql("CREATE TABLE db.t (a INT PRIMARY KEY) ENGINE=InnoDB");
    server.sql("CREATE TABLE db.u (a INT PRIMARY KEY) ENGINE=InnoDB");
    let root = server.root();
    let walk = || {
        let facts = ServerFacts::gather(&Session::new(&server.tools, &root)).unwrap();
        DatadirWalk::walk(&DatadirLayout::of(&facts)).unwrap()
    };
    let before = walk();
    assert!(before.identity("ibdata1").is_some());
    let copy = server.dir.path().join("t.ibd");
    server.sql("FLUSH TABLES db.t FOR EXPORT");
    fs::copy(server.datadir().join("db/t.ibd"), &copy).unwrap();
    server.sql("ALTER TABLE db.t DISCARD TABLESPACE");
    fs::copy(&copy, server.datadir().join("db/t.ibd")).unwrap();
    server.sql("ALTER TABLE db.t IMPORT TABLESPACE");
    server.sql("INSERT INTO db.u VALUES (1)");
    let after = walk();
    let same = |name: &str| before.identity(name).unwrap().same_file(&after.identity(name).unwrap());
    assert_eq!((same("db/t.ibd"), same("db/u.ibd"), same("ibdata1")), (false, true, true));

    // Its files are gone, but it still runs there.
    let moved = server.dir.path().join("moved");
    fs::rename(server.datadir(), &moved).unwrap();
    assert!(matches!(server_runs_on(&moved).unwrap(), Some(ServerEvidence::LockedFile { .. })));
    for name in ["ibdata1", "aria_log_control"] {
        fs::remove_file(moved.join(name)).unwrap();
    }
    assert!(matches!(server_runs_on(&moved).unwrap(), Some(ServerEvidence::WorkingDirectory { .. })));
    server.kill();
    assert_eq!(server_runs_on(&moved).unwrap(), None);
    assert!(matches!(ensure_vacant(&moved), Err(DatadirError::NotEmpty { .. })));
}
