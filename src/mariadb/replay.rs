//! Binary log into a server: `mariadb-binlog` reads it, `mariadb` runs what that says, in one session.

use std::{
    os::fd::AsFd,
    path::{Path, PathBuf},
    process::{ChildStdin, Stdio},
};

use super::{
    child::last_words,
    connection::{Connection, ConnectionArgs, ConnectionError},
    process::{Listener, Process, Stopper},
    sql::SqlError,
    tool::{ToolError, Tools},
};
use crate::error::{Diagnose, Kind};

/// Room of the pipes between the programs: what each account may have (`/proc/sys/fs/pipe-max-size`). In the usual 64 KiB they wait for each other
/// at every event.
const PIPE_BYTES: usize = 1 << 20;

/// Why binary log was not replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// A program is missing.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// The connection's options are wrong.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    /// A program does not start, or cannot be waited for.
    #[error("cannot run {path:?}")]
    Run {
        /// The program.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The server refuses a statement.
    #[error("the server refuses what the binary log says")]
    Refused {
        /// What it said.
        source: SqlError,
    },
    /// `mariadb-binlog` does not read it.
    #[error("mariadb-binlog failed: {}", last_words(tail))]
    Binlog {
        /// Its last lines.
        tail: Vec<String>,
    },
}

impl Diagnose for ReplayError {
    fn kind(&self) -> Kind {
        match self {
            ReplayError::Tool(error) => error.kind(),
            ReplayError::Connection(error) => error.kind(),
            ReplayError::Run { .. } => Kind::Failed,
            ReplayError::Refused { .. } | ReplayError::Binlog { .. } => Kind::DatabaseRefused,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            ReplayError::Tool(error) => error.hint(),
            ReplayError::Connection(error) => error.hint(),
            ReplayError::Refused { .. } => Some(
                "restore to a moment before this transaction, or see it with `haulout binlog show`; what the server needs besides is \
                 given by --mariadbd-option"
                    .to_owned(),
            ),
            ReplayError::Run { .. } | ReplayError::Binlog { .. } => None,
        }
    }
}

/// What a program says, of which the last lines are kept by the process.
#[derive(Debug)]
struct Said(&'static str);

impl Listener for Said {
    fn line(&mut self, line: &str) {
        tracing::debug!(target: "haulout::replay", "{}: {line}", self.0);
    }
}

/// Makes a pipe larger; where the system has no room for that, it stays as it is.
fn widen(pipe: &impl AsFd) {
    if let Err(error) = rustix::pipe::fcntl_setpipe_size(pipe, PIPE_BYTES) {
        tracing::debug!(target: "haulout::replay", "a pipe keeps its size: {error}");
    }
}

/// The two programs at work; dropping it ends them.
#[derive(Debug)]
pub struct Replay {
    binlog: (PathBuf, Process<Said>),
    client: (PathBuf, Process<Said>),
    /// The client reads its password whenever it is started far enough.
    _connection: ConnectionArgs,
}

impl Replay {
    /// Starts the programs; what is written into the pipe that comes back is replayed: one binary log file, with as many descriptions of its
    /// format in it as there are. Files that statements load lie in `folder` meanwhile.
    ///
    /// # Errors
    /// When a program is missing or does not start.
    pub fn start(
        tools: &Tools,
        connection: &Connection,
        folder: &Path,
    ) -> Result<(Replay, Option<ChildStdin>), ReplayError> {
        let (binlog, client) = (tools.binlog()?, tools.client()?.clone());
        let mut command = tools.command(&binlog);
        let mut local_load = std::ffi::OsString::from("--local-load=");
        local_load.push(folder);
        command.args(["--no-defaults", "--verify-binlog-checksum"]).arg(local_load).arg("-");
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let run = |path: &Path| {
            let path = path.to_owned();
            move |source| ReplayError::Run { path, source }
        };
        let mut reading = Process::spawn(command, Said("mariadb-binlog")).map_err(run(&binlog.path))?;
        let (input, output) = (reading.take_stdin(), reading.take_stdout());
        input.iter().for_each(widen);
        output.iter().for_each(widen);
        let connection = connection.open()?;
        let mut command = tools.command(&client);
        connection.apply(&mut command);
        command.args(["--batch", "--binary-mode", "--local-infile=1", "--max-allowed-packet=1G", "--skip-reconnect"]);
        command.stdin(output.map_or_else(Stdio::null, Stdio::from)).stdout(Stdio::null());
        let asking = Process::spawn(command, Said("mariadb")).map_err(run(&client.path))?;
        Ok((Replay { binlog: (binlog.path, reading), client: (client.path, asking), _connection: connection }, input))
    }

    /// Handles that end the programs from any thread.
    pub fn stoppers(&self) -> [Stopper; 2] {
        [self.client.1.stopper(), self.binlog.1.stopper()]
    }

    /// Waits until all that was written has been carried out; the pipe must be closed.
    ///
    /// # Errors
    /// When a program ended with a complaint: something was not carried out.
    pub fn finish(self) -> Result<(), ReplayError> {
        let (path, process) = self.client;
        let client = process.wait(None).map_err(|source| ReplayError::Run { path, source })?;
        if !client.status.success() {
            return Err(ReplayError::Refused { source: SqlError::from_client(&client.tail.join("\n")) });
        }
        let (path, process) = self.binlog;
        let binlog = process.wait(None).map_err(|source| ReplayError::Run { path, source })?;
        if !binlog.status.success() {
            return Err(ReplayError::Binlog { tail: binlog.tail });
        }
        Ok(())
    }
}
