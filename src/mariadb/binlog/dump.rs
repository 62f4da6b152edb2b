//! `mariadb-binlog --read-from-remote-server --raw --stop-never`: a copy of the server's log as it grows.

use std::{
    ffi::OsString,
    io,
    path::PathBuf,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use super::super::{
    child::last_words,
    connection::{Connection, ConnectionArgs, ConnectionError},
    process::{Ended, Listener, Process},
    tool::{ToolError, Tools},
};
use crate::error::{Diagnose, Kind};

/// Time between the tool's last sign of life and its status.
const FINISH_LIMIT: Duration = Duration::from_secs(10);

/// Runs the tool and ends it when nobody holds the other end of its stdin any more: killed without a word, this program would else leave
/// a replica behind that fills the disk.
const LEASH: &str = "exec 3<&0 </dev/null; \"$@\" 3<&- & tool=$!
    (read -r _ <&3; kill \"$tool\") >/dev/null 2>&1 & leash=$!
    exec 3<&-; wait \"$tool\"; status=$?; kill \"$leash\"; exit \"$status\"";

/// What is to be followed.
#[derive(Debug, Clone)]
pub struct DumpOrder {
    /// File of the server's to begin with.
    pub file: String,
    /// The byte in it: 4, or the end of an event.
    pub position: u64,
    /// An existing, empty directory: the copies have the names of the server's files.
    pub directory: PathBuf,
    /// The server id that it bears as a replica; no other replica's.
    pub server_id: u32,
}

/// The running tool; dropping it ends it.
///
/// Of a file that is followed from its byte 4 the copy is the same, byte for byte. One that is followed from a later byte has at its beginning an event that
/// describes its format, made up by the server, and then what comes from there on.
#[derive(Debug)]
pub struct BinlogDump {
    process: Process<Kept>,
}

/// Keeps the password's memory file while the tool may read it.
#[derive(Debug)]
struct Kept {
    _connection: ConnectionArgs,
    _leash: Option<io::PipeWriter>,
}

impl Listener for Kept {
    fn line(&mut self, _: &str) {}
}

impl BinlogDump {
    /// Starts the tool.
    ///
    /// # Errors
    /// When it is missing, does not start, or the connection's options are wrong.
    pub fn spawn(tools: &Tools, connection: &Connection, order: &DumpOrder) -> Result<BinlogDump, DumpError> {
        let path = tools.binlog()?.path;
        let connection = connection.open()?;
        let mut command = tools.shell();
        command.args(["-c", LEASH, "sh"]).arg(&path);
        connection.apply(&mut command);
        let mut result = OsString::from("--result-file=");
        // The tool puts the names of files behind it as they are.
        result.push(order.directory.join(""));
        command.args(["--read-from-remote-server", "--raw", "--stop-never"]).arg(result);
        command.arg(format!("--stop-never-slave-server-id={}", order.server_id));
        command.arg(format!("--start-position={}", order.position)).arg(&order.file);
        let start = |source| DumpError::Start { path: path.clone(), source };
        let (stdin, leash) = io::pipe().map_err(start)?;
        command.stdin(stdin).stdout(Stdio::null());
        let process = Process::spawn(command, Kept { _connection: connection, _leash: Some(leash) }).map_err(start)?;
        Ok(BinlogDump { process })
    }

    /// True when the tool has ended: what it has written is all that there will be.
    pub fn has_ended(&self) -> bool {
        self.process.has_ended()
    }

    /// Why it ended; call it when it has.
    pub fn finish(self) -> DumpError {
        match self.process.wait(Some(FINISH_LIMIT)) {
            Ok(Ended { status, tail, .. }) => DumpError::Ended { status, tail },
            Err(_) => DumpError::Stuck,
        }
    }
}

/// Why the log is not followed.
#[derive(Debug, thiserror::Error)]
pub enum DumpError {
    /// The tool is missing.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// The connection's options are wrong.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    /// The tool does not start.
    #[error("cannot start {path:?}")]
    Start {
        /// The program.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The tool ended, though it never should.
    #[error("mariadb-binlog ended ({status}): {}", last_words(tail))]
    Ended {
        /// How it ended.
        status: ExitStatus,
        /// Its last lines.
        tail: Vec<String>,
    },
    /// The tool ended and its status does not come.
    #[error("mariadb-binlog does not end")]
    Stuck,
}

impl Diagnose for DumpError {
    fn kind(&self) -> Kind {
        match self {
            DumpError::Tool(error) => error.kind(),
            DumpError::Connection(error) => error.kind(),
            _ => Kind::DatabaseRefused,
        }
    }

    fn hint(&self) -> Option<String> {
        let said =
            |words: &str| matches!(self, DumpError::Ended { tail, .. } if tail.iter().any(|line| line.contains(words)));
        match self {
            DumpError::Tool(error) => error.hint(),
            DumpError::Connection(error) => error.hint(),
            _ if said("REPLICATION SLAVE") || said("Access denied") => {
                Some("GRANT REPLICATION SLAVE, BINLOG MONITOR ON *.* to the account".to_owned())
            }
            _ if said("unknown variable") || said("unknown option") => {
                Some("move the option from [client] to [mariadb-client] in MariaDB's option files".to_owned())
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::super::tool::{Tool, tests::script_file};
    use super::*;

    fn dump(script: &str) -> (tempfile::TempDir, BinlogDump) {
        let dir = tempfile::tempdir().unwrap();
        let path = script_file(dir.path(), script);
        fs::rename(&path, dir.path().join("mariadb-binlog")).unwrap();
        let tool = Tool { path, version: "10.11.19-MariaDB".parse().unwrap() };
        let mut tools = Tools::of(tool.clone()).searching(dir.path());
        tools.client = Some(tool);
        let order = DumpOrder { file: "b.000001".to_owned(), position: 4, directory: dir.path().into(), server_id: 7 };
        (dir, BinlogDump::spawn(&tools, &Connection::default(), &order).unwrap())
    }

    #[test]
    fn the_tools_last_words_and_status_are_told() {
        let (_dir, dump) = dump("echo \"$*\" >&2; exit 7");
        let error = dump.finish();
        let text = error.to_string();
        assert!(text.contains("exit status: 7") && text.contains("--start-position=4 b.000001"), "{text}");
        assert!(text.contains("--raw --stop-never --result-file=/"), "{text}");
    }

    #[test]
    fn what_the_account_lacks_is_the_hint() {
        let (_dir, dump) = dump("echo 'ERROR: you need the REPLICATION SLAVE privilege' >&2; exit 1");
        assert!(dump.finish().hint().unwrap().contains("GRANT REPLICATION SLAVE"));
    }

    /// The end of this program is that of the other end of the tool's stdin.
    #[test]
    fn a_tool_whose_starter_is_gone_ends() {
        let mut command = std::process::Command::new("/bin/sh");
        command.args(["-c", LEASH, "sh", "/bin/sleep", "600"]).stdin(Stdio::piped());
        let mut child = command.spawn().unwrap();
        drop(child.stdin.take());
        assert!(!child.wait().unwrap().success());
    }

    #[test]
    fn a_dump_that_is_dropped_is_gone() {
        let (dir, dump) = dump("echo $$ > \"$(dirname \"$0\")/pid\"; exec sleep 600");
        let pid = loop {
            match fs::read_to_string(dir.path().join("pid")).ok().and_then(|text| text.trim().parse::<i32>().ok()) {
                Some(pid) => break rustix::process::Pid::from_raw(pid).unwrap(),
                None => assert!(!dump.has_ended()),
            }
        };
        drop(dump);
        assert!(rustix::process::test_kill_process(pid).is_err());
    }
}
