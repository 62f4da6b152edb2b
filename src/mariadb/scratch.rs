//! A server of our own on a prepared directory, that tells what only a server can tell of the tables in it.
//!
//! It listens on a socket alone. It ends when this process ends, whatever ends it: a shell waits beside it for the end of a pipe whose
//! other end is here. The one that [`ScratchServer::start`] starts changes no file of InnoDB's and knows no accounts.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use rustix::process::{WaitId, WaitIdOptions};

use super::{
    child::last_words,
    connection::Connection,
    process::{Listener, Process, Stopper},
    sql::{Session, SqlError},
    tool::{ToolError, Tools},
};
use crate::error::{Diagnose, Kind};

/// Longest time for the start: the directory was prepared, so that nothing is left to recover.
const START_LIMIT: Duration = Duration::from_secs(120);
/// Pause between two looks whether it answers.
const START_PAUSE: Duration = Duration::from_millis(50);
/// Longest path of a socket (`sun_path` in `unix(7)`), its closing zero left out.
const SOCKET_BYTES_MAX: usize = 107;
/// Name of the socket in the directory.
const SOCKET: &str = "haulout.sock";
/// Name of the file that has the server's process id.
pub const PID_FILE: &str = "haulout.pid";
/// The option file that the backup tool wrote there.
const OPTION_FILE: &str = "backup-my.cnf";
/// Error lines of the server that are kept.
const ERRORS_MAX: usize = 20;
/// Starts the server, and ends it once nobody holds the other end of the pipe.
///
/// The one that waits for that ends with the server, and before the server's number can belong to another process.
const KEEPER: &str = "exec 3<&0; \"$@\" </dev/null & server=$!; { read -r line <&3; kill $server; } >/dev/null 2>&1 & \
                      keeper=$!; wait $server; status=$?; { kill $keeper; wait $keeper; } 2>/dev/null; exit $status";

/// A running server; dropping it ends it.
#[derive(Debug)]
pub struct ScratchServer {
    process: Process<Log>,
    connection: Connection,
    errors: Errors,
}

/// What the server called an error, the first lines.
type Errors = Arc<Mutex<Vec<String>>>;

#[derive(Debug)]
struct Log {
    errors: Errors,
}

impl Listener for Log {
    fn line(&mut self, line: &str) {
        tracing::debug!(target: "haulout::scratch", "{line}");
        if let Some((_, error)) = line.split_once("[ERROR] ") {
            let mut errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
            if errors.len() < ERRORS_MAX {
                errors.push(error.to_owned());
            }
        }
    }
}

/// A server that is to be started.
pub(super) struct Launch<'a> {
    /// What was prepared.
    pub datadir: &'a Path,
    /// Where its socket and the file with its process id lie.
    pub place: &'a Path,
    /// Where its temporary files lie.
    pub temporary: &'a Path,
    /// Options besides those of places; the last of two alike counts.
    pub arguments: Vec<OsString>,
    /// How to log in; the option file and the socket are filled in.
    pub connection: Connection,
    /// Longest time for the start.
    pub limit: Duration,
}

impl ScratchServer {
    /// Starts a server on `directory`, which was prepared with `--export`.
    ///
    /// # Errors
    /// When the machine has no `mariadbd`, the path is too long for a socket, or the server does not answer in time;
    /// [`ScratchError::Stopped`] once `stop` says so.
    pub fn start(tools: &Tools, directory: &Path, stop: &dyn Fn() -> bool) -> Result<ScratchServer, ScratchError> {
        let arguments = [
            "--skip-networking",
            "--skip-grant-tables",
            "--innodb-read-only=ON",
            "--innodb-buffer-pool-size=16M",
            "--innodb-buffer-pool-load-at-startup=OFF",
            "--innodb-buffer-pool-dump-at-shutdown=OFF",
            "--performance-schema=OFF",
            "--skip-log-bin",
            "--skip-slave-start",
            "--event-scheduler=DISABLED",
        ];
        let launch = Launch {
            datadir: directory,
            place: directory,
            temporary: directory,
            arguments: arguments.map(OsString::from).into(),
            connection: Connection::default(),
            limit: START_LIMIT,
        };
        ScratchServer::launch(tools, launch, stop)
    }

    /// Starts a server.
    ///
    /// # Errors
    /// As of [`ScratchServer::start`].
    pub(super) fn launch(
        tools: &Tools,
        launch: Launch<'_>,
        stop: &dyn Fn() -> bool,
    ) -> Result<ScratchServer, ScratchError> {
        let server =
            tools.server.as_ref().ok_or(ToolError::Missing { name: "mariadbd", package: "mariadb-server-core" })?;
        let absolute = |path: &Path| {
            std::path::absolute(path).map_err(|source| ScratchError::Start { path: path.to_owned(), source })
        };
        let (datadir, place, temporary) =
            (absolute(launch.datadir)?, absolute(launch.place)?, absolute(launch.temporary)?);
        let (socket, options) = (place.join(SOCKET), datadir.join(OPTION_FILE));
        if socket.as_os_str().len() > SOCKET_BYTES_MAX {
            return Err(ScratchError::PathTooLong { path: socket });
        }
        let mut command = tools.shell();
        command.args(["-c", KEEPER, "sh"]).arg(&server.path);
        for (name, path) in [
            ("--defaults-file=", &options),
            ("--datadir=", &datadir),
            ("--aria-log-dir-path=", &datadir),
            ("--tmpdir=", &temporary),
            ("--socket=", &socket),
            ("--pid-file=", &place.join(PID_FILE)),
        ] {
            let mut argument = OsString::from(name);
            argument.push(path);
            command.arg(argument);
        }
        command.args(launch.arguments);
        if rustix::process::geteuid().is_root() {
            command.arg("--user=root");
        }
        command.current_dir(&datadir).stdin(Stdio::piped()).stdout(Stdio::null());
        let errors = Errors::default();
        let process = Process::spawn(command, Log { errors: errors.clone() })
            .map_err(|source| ScratchError::Start { path: server.path.clone(), source })?;
        let connection = Connection { defaults_file: Some(options), socket: Some(socket), ..launch.connection };
        let server = ScratchServer { process, connection, errors };
        server.answers(tools, launch.limit, stop)
    }

    /// Waits until it answers.
    fn answers(self, tools: &Tools, limit: Duration, stop: &dyn Fn() -> bool) -> Result<ScratchServer, ScratchError> {
        let started = Instant::now();
        loop {
            let answer = Session::new(tools, &self.connection).query("SELECT 1");
            let Err(error) = answer else { return Ok(self) };
            if self.has_ended() {
                return Err(ScratchError::Ended { tail: self.last_words() });
            }
            if stop() {
                return Err(ScratchError::Stopped);
            }
            // Its accounts are there before it listens.
            if started.elapsed() > limit || matches!(error, SqlError::AccessDenied { .. }) {
                return Err(ScratchError::Silent { source: error });
            }
            std::thread::sleep(START_PAUSE);
        }
    }

    /// True when the server has ended by itself.
    pub fn has_ended(&self) -> bool {
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        matches!(rustix::process::waitid(WaitId::Pid(self.process.pid()), look), Ok(Some(_)))
    }

    /// What a server that has ended said: its errors, or its last lines.
    pub fn last_words(self) -> Vec<String> {
        let errors = self.errors();
        let tail = self.process.wait(Some(START_PAUSE * 20)).map(|ended| ended.tail).unwrap_or_default();
        if errors.is_empty() { tail } else { errors }
    }

    /// What the server has called an error so far, the first twenty lines.
    pub fn errors(&self) -> Vec<String> {
        self.errors.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The way to it.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// A handle that ends the server from any thread.
    pub fn stopper(&self) -> Stopper {
        self.process.stopper()
    }

    /// Shuts the server down in good order, within `limit`.
    ///
    /// # Errors
    /// When it refuses, does not end in time, or ends with a complaint; it is ended all the same.
    pub fn shut_down(self, tools: &Tools, limit: Duration) -> Result<(), ScratchError> {
        self.shut_down_after(&[], tools, limit)
    }

    /// As [`ScratchServer::shut_down`], once it has run `statements`, after which nobody may be able to log in any more.
    ///
    /// # Errors
    /// Those of it.
    pub fn shut_down_after(self, statements: &[&str], tools: &Tools, limit: Duration) -> Result<(), ScratchError> {
        let asked = Session::new(tools, &self.connection).run(&[statements, &["SHUTDOWN"]].concat(), limit);
        if let Err(source) = asked {
            if self.has_ended() {
                return Err(ScratchError::Ended { tail: self.last_words() });
            }
            return Err(ScratchError::Stuck { source: Some(source) });
        }
        let errors = self.errors();
        match self.process.wait(Some(limit)) {
            Err(_) => Err(ScratchError::Stuck { source: None }),
            Ok(ended) if ended.status.success() => Ok(()),
            Ok(ended) => Err(ScratchError::Ended { tail: if errors.is_empty() { ended.tail } else { errors } }),
        }
    }
}

/// Why there is no scratch server.
#[derive(Debug, thiserror::Error)]
pub enum ScratchError {
    /// The program is missing.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// No socket can have that path.
    #[error("path {path:?} is too long for a socket: {} bytes, expected at most {SOCKET_BYTES_MAX}", path.as_os_str().len())]
    PathTooLong {
        /// The path.
        path: PathBuf,
    },
    /// The program does not start.
    #[error("cannot start {path:?}")]
    Start {
        /// The program.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The server ended by itself.
    #[error("the scratch server ended by itself: {}", last_words(tail))]
    Ended {
        /// Its last lines.
        tail: Vec<String>,
    },
    /// The server does not answer.
    #[error("the scratch server does not answer")]
    Silent {
        /// What its client says.
        source: SqlError,
    },
    /// The server does not shut down.
    #[error("the scratch server does not shut down")]
    Stuck {
        /// What its client says, where it does not take the order.
        source: Option<SqlError>,
    },
    /// Someone asked to stop.
    #[error("the scratch server was stopped")]
    Stopped,
}

/// What the server says of options and plugins that this machine's does not have (MariaDB `sql_plugin.cc`, `my_getopt.c`).
const LACKING: [&str; 6] = [
    "Can't open shared library",
    "Couldn't load plugin",
    "unknown variable",
    "unknown option",
    "ambiguous option",
    "requires an argument",
];

impl ScratchError {
    /// True when the server did not start for what this machine's program lacks, options or plugins. That says nothing of the files.
    pub fn lacks_something(&self) -> bool {
        let ScratchError::Ended { tail } = self else { return false };
        tail.iter().any(|line| LACKING.iter().any(|text| line.contains(text)))
    }
}

impl Diagnose for ScratchError {
    fn kind(&self) -> Kind {
        match self {
            ScratchError::PathTooLong { .. } => Kind::Usage,
            ScratchError::Start { .. } => Kind::Failed,
            ScratchError::Stopped => Kind::Interrupted,
            ScratchError::Tool(_)
            | ScratchError::Ended { .. }
            | ScratchError::Silent { .. }
            | ScratchError::Stuck { .. } => Kind::DatabaseRefused,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            ScratchError::Tool(error) => error.hint(),
            ScratchError::PathTooLong { .. } => Some("name a shorter one with --work-dir, or --scratch".to_owned()),
            error if error.lacks_something() => Some(
                "install the plugin of the server's version, or say where it is: of a drill by --mariadbd-option plugin-dir=DIR"
                    .to_owned(),
            ),
            _ => None,
        }
    }
}
