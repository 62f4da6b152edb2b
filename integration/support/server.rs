//! Scratch MariaDB servers.

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use tempfile::TempDir;

use super::{
    scratch,
    slots::{self, Slot},
    wait,
};

/// Time for a server to start, recovery included, or to stop.
const START_LIMIT: Duration = Duration::from_secs(120);

/// Has the client and the server speak in UTF-8, for names that are not ASCII.
pub const NAMES: &str = "SET NAMES utf8mb4;";

/// Kinds of tables that hold rows.
const TABLES: &str = "'BASE TABLE', 'SYSTEM VERSIONED'";

/// Schemas that a server has from the start.
const OWN_SCHEMAS: &str = "'mysql', 'information_schema', 'performance_schema', 'sys'";

/// How a server differs from the usual small one.
#[derive(Debug, Clone, Default)]
pub struct ServerOptions {
    arguments: Vec<String>,
    install: Vec<String>,
    tcp: bool,
    path: Option<String>,
}

impl ServerOptions {
    pub fn new() -> ServerOptions {
        ServerOptions::default()
    }

    /// Adds an option of `mariadbd`, such as `--innodb-log-file-size=64M`. The last of two alike counts.
    pub fn argument(mut self, argument: impl Into<String>) -> ServerOptions {
        self.arguments.push(argument.into());
        self
    }

    /// Adds an option that the datadir is made with and needs ever after, such as `--innodb-page-size=4K`.
    pub fn install_argument(mut self, argument: impl Into<String>) -> ServerOptions {
        self.install.push(argument.into());
        self
    }

    /// Takes the server and its client from this PATH and not from the test's own.
    pub fn programs(mut self, path: impl Into<String>) -> ServerOptions {
        self.path = Some(path.into());
        self
    }

    /// Listens on a loopback port too.
    pub fn tcp(mut self) -> ServerOptions {
        self.tcp = true;
        self
    }
}

/// A running server, or one that was stopped and can be started again. Killed when dropped.
#[derive(Debug)]
pub struct MariaDb {
    datadir: PathBuf,
    client: Client,
    port: Option<u16>,
    options: ServerOptions,
    child: Option<Child>,
    folder: TempDir,
    _slot: Arc<Slot>,
}

impl MariaDb {
    /// Starts a small server with an empty datadir.
    pub fn start() -> MariaDb {
        MariaDb::with(ServerOptions::new())
    }

    /// Starts a server with an empty datadir.
    pub fn with(options: ServerOptions) -> MariaDb {
        let slot = slots::take();
        let folder = scratch();
        let datadir = folder.path().join("data");
        copy(&template(&options), &datadir);
        MariaDb::new(folder, datadir, options, slot)
    }

    /// Starts a server on a datadir that is there already; it stays when the server goes.
    pub fn on(datadir: &Path, options: ServerOptions) -> MariaDb {
        let slot = slots::take();
        MariaDb::new(scratch(), datadir.to_owned(), options, slot)
    }

    /// As [`MariaDb::on`]; the error is the log of a server that did not start.
    pub fn try_on(datadir: &Path, options: ServerOptions) -> Result<MariaDb, String> {
        let slot = slots::take();
        let mut server = MariaDb::stopped(scratch(), datadir.to_owned(), options, slot);
        if server.start_again() { Ok(server) } else { Err(server.error_log()) }
    }

    fn new(folder: TempDir, datadir: PathBuf, options: ServerOptions, slot: Arc<Slot>) -> MariaDb {
        let mut server = MariaDb::stopped(folder, datadir, options, slot);
        server.restart();
        server
    }

    fn stopped(folder: TempDir, datadir: PathBuf, options: ServerOptions, slot: Arc<Slot>) -> MariaDb {
        let client = Client { socket: folder.path().join("s"), path: options.path.clone() };
        let port = options.tcp.then(free_port);
        MariaDb { datadir, client, port, options, child: None, folder, _slot: slot }
    }

    /// Starts the server again, after [`MariaDb::stop`] or [`MariaDb::kill9`].
    pub fn restart(&mut self) {
        assert!(self.start_again(), "mariadbd did not start:\n{}", self.error_log());
    }

    /// False when the server does not start.
    fn start_again(&mut self) -> bool {
        assert!(self.child.is_none(), "the server runs already");
        let log = self.folder.path().join("error.log");
        // The kernel ends the server with the thread that started it, so that a killed test leaves nothing behind.
        let mut command = program("setpriv", &self.options.path);
        command.args(["--pdeathsig", "KILL", "mariadbd", "--no-defaults"]);
        command.arg(format!("--datadir={}", self.datadir.display()));
        command.arg(format!("--socket={}", self.client.socket.display()));
        command.arg(format!("--pid-file={}", self.folder.path().join("pid").display()));
        command.arg(format!("--log-error={}", log.display()));
        command.arg(temporary(self.folder.path()));
        command.args(as_root()).args(SMALL).args(&self.options.install).args(&self.options.arguments);
        match self.port {
            Some(port) => command.args([format!("--port={port}"), "--bind-address=127.0.0.1".to_owned()]),
            None => command.arg("--skip-networking"),
        };
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().expect("setpriv and mariadbd can be run");
        let ready = wait::try_until(START_LIMIT, || {
            let ended = child.try_wait().unwrap().is_some();
            if ended { Some(false) } else { self.client.try_sql("SELECT 1").is_ok().then_some(true) }
        });
        self.child = Some(child);
        ready == Some(true)
    }

    /// Shuts the server down in good order.
    pub fn stop(&mut self) {
        let mut child = self.child.take().expect("the server runs");
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        wait::until("shutdown of mariadbd", START_LIMIT, || child.try_wait().unwrap());
    }

    /// Kills the server as a loss of power does, but for what the kernel still writes.
    pub fn kill9(&mut self) {
        let mut child = self.child.take().expect("the server runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Takes the server and its client from this PATH at the next start, as after an upgrade.
    pub fn upgrade(&mut self, path: &str) {
        self.options.path = Some(path.to_owned());
        self.client.path = self.options.path.clone();
    }

    /// Adds an option for the next start.
    pub fn add_argument(&mut self, argument: &str) {
        self.options.arguments.push(argument.to_owned());
    }

    pub fn datadir(&self) -> &Path {
        &self.datadir
    }

    pub fn socket(&self) -> &Path {
        &self.client.socket
    }

    /// Loopback port, when the options asked for one.
    pub fn port(&self) -> u16 {
        self.port.expect("the server was started with tcp()")
    }

    /// Flags that make haulout and the stock tools connect.
    pub fn flags(&self) -> Vec<String> {
        vec![format!("--socket={}", self.client.socket.display()), "--user=root".to_owned()]
    }

    /// A client for other threads.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    pub fn error_log(&self) -> String {
        fs::read_to_string(self.folder.path().join("error.log")).unwrap_or_default()
    }

    /// Answer to `sql`, which may be many statements: rows as lines, columns separated by tabs.
    pub fn sql(&self, sql: &str) -> String {
        self.client.sql(sql)
    }

    /// As [`MariaDb::sql`]; the error is what the client says.
    pub fn try_sql(&self, sql: &str) -> Result<String, String> {
        self.client.try_sql(sql)
    }

    /// The first two numbers of its version, as `10.11`.
    pub fn series(&self) -> String {
        let version = self.sql("SELECT VERSION()");
        version.splitn(3, '.').take(2).collect::<Vec<_>>().join(".")
    }

    /// Checksum of every table outside of the server's own schemas, by `` `schema`.`table` ``.
    pub fn checksums(&self) -> BTreeMap<String, String> {
        let tables = self.tables();
        if tables.is_empty() {
            return BTreeMap::new();
        }
        let rows = self.sql(&format!("{NAMES} CHECKSUM TABLE {} EXTENDED", tables.join(", ")));
        let sums: Vec<_> = rows.lines().map(|row| row.rsplit('\t').next().unwrap_or_default().to_owned()).collect();
        assert_eq!(sums.len(), tables.len(), "{rows}");
        tables.into_iter().zip(sums).collect()
    }

    /// Complaints of `CHECK TABLE … EXTENDED` about any table, the server's own included; empty when all is well.
    pub fn check_all(&self) -> Vec<String> {
        let tables = self.named("table_schema NOT IN ('information_schema', 'performance_schema')", TABLES);
        let report = self.sql(&format!("{NAMES} CHECK TABLE {} EXTENDED", tables.join(", ")));
        let fine = |line: &&str| line.ends_with("\tstatus\tOK") || line.contains("\tnote\t");
        report.lines().filter(|line| !fine(line)).map(str::to_owned).collect()
    }

    /// Names of all tables outside of the server's own schemas, quoted.
    pub fn tables(&self) -> Vec<String> {
        self.named(&format!("table_schema NOT IN ({OWN_SCHEMAS})"), TABLES)
    }

    /// Names of all tables, sequences and views outside of the server's own schemas, quoted.
    pub fn relations(&self) -> Vec<String> {
        self.named(
            &format!("table_schema NOT IN ({OWN_SCHEMAS})"),
            "'BASE TABLE', 'SYSTEM VERSIONED', 'SEQUENCE', 'VIEW'",
        )
    }

    fn named(&self, which: &str, kinds: &str) -> Vec<String> {
        let quoted = |column: &str| format!("'`', REPLACE({column}, '`', '``'), '`'");
        let (schema, table) = (quoted("table_schema"), quoted("table_name"));
        let sql = format!(
            "SELECT CONCAT({schema}, '.', {table}) FROM information_schema.tables
             WHERE table_type IN ({kinds}) AND {which} ORDER BY 1"
        );
        // Raw: else the client would write a backslash in a name twice.
        let output = self
            .client
            .command()
            .args(["--default-character-set=utf8mb4", "--raw", "--execute", &sql])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
    }

    /// Backup tools at work on this server, as pids.
    pub fn backups_running(&self) -> Vec<u32> {
        let socket = self.client.socket.display().to_string();
        let processes =
            fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        let is_backup = |pid: &u32| {
            let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let command = String::from_utf8_lossy(&command).into_owned();
            command.split('\0').next().is_some_and(|name| name.ends_with("mariadb-backup")) && command.contains(&socket)
        };
        processes.filter(is_backup).collect()
    }
}

impl Drop for MariaDb {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Speaks SQL with a server through the stock client.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
    path: Option<String>,
}

impl Client {
    /// The client as a command; `--unbuffered`, so that each answer comes at once.
    pub fn command(&self) -> Command {
        let mut command = program("mariadb", &self.path);
        command.arg("--no-defaults").arg(format!("--socket={}", self.socket.display()));
        command.args(["--user=root", "--batch", "--skip-column-names", "--unbuffered"]);
        command
    }

    pub fn sql(&self, sql: &str) -> String {
        self.try_sql(sql).unwrap_or_else(|error| panic!("{error}\nin {sql:.2000}"))
    }

    /// Runs statement after statement whatever becomes of them; what was answered, and what went wrong.
    pub fn sql_anyway(&self, sql: &str) -> (String, String) {
        let (output, complaints, _) = self.run(self.command().arg("--force"), sql);
        (output, complaints)
    }

    pub fn try_sql(&self, sql: &str) -> Result<String, String> {
        let (output, complaints, success) = self.run(&mut self.command(), sql);
        if success { Ok(output) } else { Err(complaints) }
    }

    fn run(&self, command: &mut Command, sql: &str) -> (String, String, bool) {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the mariadb client can be run");
        let mut input = child.stdin.take().unwrap();
        // Written beside the reading: long SQL and a long answer would else block each other.
        let output = thread::scope(|scope| {
            scope.spawn(move || input.write_all(sql.as_bytes()));
            child.wait_with_output().unwrap()
        });
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        (text(output.stdout), text(output.stderr), output.status.success())
    }
}

/// Little memory, little redo log, no work in the background that tests do not need. The log's writes go to the kernel
/// at commit, so they outlive the process; a machine that goes down is not what these tests can show.
const SMALL: [&str; 11] = [
    "--innodb-buffer-pool-size=32M",
    "--innodb-log-file-size=16M",
    "--innodb-log-buffer-size=4M",
    "--innodb-flush-log-at-trx-commit=2",
    "--innodb-buffer-pool-load-at-startup=OFF",
    "--innodb-buffer-pool-dump-at-shutdown=OFF",
    "--aria-pagecache-buffer-size=8M",
    "--key-buffer-size=8M",
    "--performance-schema=OFF",
    "--max-connections=40",
    "--skip-name-resolve",
];

/// A program of this PATH, or of the test's own.
fn program(name: &str, path: &Option<String>) -> Command {
    let mut command = Command::new(name);
    if let Some(path) = path {
        command.env("PATH", path);
    }
    command
}

/// `mariadbd` wants to be told that it may run as root.
fn as_root() -> Option<&'static str> {
    rustix::process::getuid().is_root().then_some("--user=root")
}

/// A folder for the server's temporary tables in `folder`. A server that starts removes all such files from its folder,
/// those of other servers too: where two share /tmp, one's queries fail.
pub fn temporary(folder: &Path) -> String {
    let folder = folder.join("tmp");
    fs::create_dir_all(&folder).unwrap();
    format!("--tmpdir={}", folder.display())
}

/// A loopback port that is free now.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Copies a folder with what it holds; `to` must not be there.
pub fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(status.success(), "cp -a {} {}", from.display(), to.display());
}

/// An empty datadir made with the options' `install`; made once for each version of the server, and copied from then on.
fn template(options: &ServerOptions) -> PathBuf {
    let install = &options.install;
    static MAKING: Mutex<()> = Mutex::new(());
    // A test that panicked while it made one left nothing under the final name.
    let _alone = MAKING.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let version = program("mariadbd", &options.path).arg("--version").output().expect("mariadbd can be run");
    // A distribution can say more than a file's name can hold.
    let version = String::from_utf8_lossy(&version.stdout).split(" (").next().unwrap_or_default().trim().to_owned();
    let name = format!("{version} {}", install.join(" "));
    let name: String = name.chars().map(|char| if char.is_ascii_alphanumeric() { char } else { '_' }).collect();
    let templates = Path::new(env!("CARGO_TARGET_TMPDIR")).join("datadirs");
    let made = templates.join(name);
    if made.exists() {
        return made;
    }
    fs::create_dir_all(&templates).unwrap();
    let making = TempDir::new_in(&templates).unwrap();
    let datadir = making.path().join("data");
    let output = program("mariadb-install-db", &options.path)
        .args(["--no-defaults", "--skip-test-db", "--skip-name-resolve", "--auth-root-authentication-method=normal"])
        .arg("--innodb-log-file-size=16M")
        .arg(format!("--datadir={}", datadir.display()))
        .arg(temporary(making.path()))
        .args(as_root())
        .args(install)
        .output()
        .expect("mariadb-install-db can be run");
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(output.status.success(), "mariadb-install-db: {}", said.join("\n"));
    // Another test process may have been quicker; its template is as good.
    let _ = fs::rename(&datadir, &made);
    assert!(made.exists(), "{} could not be made", made.display());
    made
}
