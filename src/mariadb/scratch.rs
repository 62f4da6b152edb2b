//! A server of our own on a prepared directory, that tells what only a server can tell of the tables in it.
//!
//! It changes no file of InnoDB's, listens on a socket in the directory alone, and knows no accounts. It ends when this process
//! ends, whatever ends it: a shell waits beside it for the end of a pipe whose other end is here.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use rustix::process::{WaitId, WaitIdOptions};

use super::{
    child::last_words,
    connection::Connection,
    process::{Listener, Process},
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
/// The option file that the backup tool wrote there.
const OPTION_FILE: &str = "backup-my.cnf";
/// Starts the server, and ends it once nobody holds the other end of the pipe.
const KEEPER: &str = "exec 3<&0; \"$@\" </dev/null & server=$!; { read -r line <&3; kill $server; } >/dev/null 2>&1 & \
                      wait $server";

/// A running server; dropping it ends it.
#[derive(Debug)]
pub struct ScratchServer {
    _process: Process<Log>,
    connection: Connection,
}

#[derive(Debug)]
struct Log;

impl Listener for Log {
    fn line(&mut self, line: &str) {
        tracing::debug!(target: "haulout::scratch", "{line}");
    }
}

impl ScratchServer {
    /// Starts a server on `directory`, which was prepared with `--export`.
    ///
    /// # Errors
    /// When the machine has no `mariadbd`, the path is too long for a socket, or the server does not answer in time;
    /// [`ScratchError::Stopped`] once `stop` says so.
    pub fn start(tools: &Tools, directory: &Path, stop: &dyn Fn() -> bool) -> Result<ScratchServer, ScratchError> {
        let server =
            tools.server.as_ref().ok_or(ToolError::Missing { name: "mariadbd", package: "mariadb-server-core" })?;
        let directory = std::path::absolute(directory)
            .map_err(|source| ScratchError::Start { path: directory.to_owned(), source })?;
        let (socket, options) = (directory.join(SOCKET), directory.join(OPTION_FILE));
        if socket.as_os_str().len() > SOCKET_BYTES_MAX {
            return Err(ScratchError::PathTooLong { path: socket });
        }
        let mut command = tools.shell();
        command.args(["-c", KEEPER, "sh"]).arg(&server.path);
        for (name, path) in [
            ("--defaults-file=", &options),
            ("--datadir=", &directory),
            ("--aria-log-dir-path=", &directory),
            ("--tmpdir=", &directory),
            ("--socket=", &socket),
            ("--pid-file=", &directory.join("haulout.pid")),
        ] {
            let mut argument = std::ffi::OsString::from(name);
            argument.push(path);
            command.arg(argument);
        }
        command.args([
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
        ]);
        if rustix::process::geteuid().is_root() {
            command.arg("--user=root");
        }
        command.current_dir(&directory).stdin(Stdio::piped()).stdout(Stdio::null());
        let process =
            Process::spawn(command, Log).map_err(|source| ScratchError::Start { path: server.path.clone(), source })?;
        let connection = Connection { defaults_file: Some(options), socket: Some(socket), ..Connection::default() };
        let started = Instant::now();
        loop {
            let answer = Session::new(tools, &connection).query("SELECT 1");
            let Err(error) = answer else { return Ok(ScratchServer { _process: process, connection }) };
            let look = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
            if matches!(rustix::process::waitid(WaitId::Pid(process.pid()), look), Ok(Some(_))) {
                let tail = process.wait(Some(START_PAUSE * 20)).map(|ended| ended.tail).unwrap_or_default();
                return Err(ScratchError::Ended { tail });
            }
            if stop() {
                return Err(ScratchError::Stopped);
            }
            if started.elapsed() > START_LIMIT {
                return Err(ScratchError::Silent { source: error });
            }
            std::thread::sleep(START_PAUSE);
        }
    }

    /// The way to it.
    pub fn connection(&self) -> &Connection {
        &self.connection
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
    #[error("the scratch server did not start: {}", last_words(tail))]
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
    /// Someone asked to stop.
    #[error("the scratch server was stopped")]
    Stopped,
}

impl Diagnose for ScratchError {
    fn kind(&self) -> Kind {
        match self {
            ScratchError::PathTooLong { .. } => Kind::Usage,
            ScratchError::Start { .. } => Kind::Failed,
            ScratchError::Stopped => Kind::Interrupted,
            ScratchError::Tool(_) | ScratchError::Ended { .. } | ScratchError::Silent { .. } => Kind::DatabaseRefused,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            ScratchError::Tool(error) => error.hint(),
            ScratchError::PathTooLong { .. } => Some("name a shorter one with --work-dir".to_owned()),
            _ => None,
        }
    }
}
