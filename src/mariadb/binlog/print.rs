//! Events as text, by `mariadb-binlog`, which knows every event type.

use std::{
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    error::{Diagnose, Kind},
    mariadb::tool,
    model::Timestamp,
};

/// Bytes that are kept of what the tool says on stderr.
const MESSAGE_BYTES_MAX: usize = 8 << 10;
/// Bytes taken off the tool's output at a time.
const READ_BYTES: usize = 64 << 10;

/// What is printed, and by what.
#[derive(Debug)]
pub struct PrintOptions<'a> {
    /// `mariadb-binlog`.
    pub program: &'a Path,
    /// Environment that it gets.
    pub environment: &'a [(OsString, OsString)],
    /// Events before this second are left out.
    pub from: Option<Timestamp>,
    /// The first event of this second or a later one ends it.
    pub to: Option<Timestamp>,
}

/// Why not all was printed.
#[derive(Debug)]
pub enum PrintError<E> {
    /// The bytes could not be had.
    Source(E),
    /// The tool could not be run, or refused them.
    Tool(PrinterError),
}

/// The tool could not be run, or refused what it was given.
#[derive(Debug, thiserror::Error)]
pub enum PrinterError {
    /// It does not start, or its pipes broke.
    #[error("cannot run {path:?}")]
    Run {
        /// The program.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// It says that something is wrong.
    #[error("mariadb-binlog ended with {status}: {message}")]
    Refused {
        /// How it ended.
        status: ExitStatus,
        /// The last of what it said.
        message: String,
    },
}

impl Diagnose for PrinterError {
    fn kind(&self) -> Kind {
        Kind::DatabaseRefused
    }

    fn hint(&self) -> Option<String> {
        let hint = "`haulout binlog fetch` writes the files, for a mariadb-binlog as new as the server";
        matches!(self, PrinterError::Refused { .. }).then(|| hint.to_owned())
    }
}

/// Prints the binary log file whose bytes `next` gives, one part after another, into `sink`. Times are UTC, and rows are decoded.
///
/// # Errors
/// When the bytes cannot be had, or the tool does not start or refuses them.
pub async fn print<E>(
    options: &PrintOptions<'_>,
    mut next: impl AsyncFnMut() -> Result<Option<Vec<u8>>, E>,
    mut sink: impl FnMut(&[u8]),
) -> Result<(), PrintError<E>> {
    let broken = |source| PrintError::Tool(PrinterError::Run { path: options.program.to_owned(), source });
    let mut child = command(options).spawn().map_err(broken)?;
    let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (Some(mut stdin), Some(mut stdout), Some(mut stderr)) = pipes else {
        return Err(broken(io::ErrorKind::BrokenPipe.into()));
    };
    let feed = async move {
        while let Some(bytes) = next().await.map_err(PrintError::Source)? {
            match stdin.write_all(&bytes).await {
                // It has seen all that it was to print, or its status tells what is wrong.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => break,
                written => written.map_err(broken)?,
            }
        }
        Ok(())
    };
    let drain = async {
        let mut part = vec![0; READ_BYTES];
        loop {
            match stdout.read(&mut part).await.map_err(broken)? {
                0 => return Ok(()),
                bytes => sink(&part[..bytes]),
            }
        }
    };
    let listen = async {
        let (mut message, mut part) = (Vec::new(), [0; 4096]);
        loop {
            match stderr.read(&mut part).await.map_err(broken)? {
                0 => return Ok(message),
                bytes => message.extend_from_slice(&part[..bytes]),
            }
            message.drain(..message.len().saturating_sub(MESSAGE_BYTES_MAX));
        }
    };
    let (fed, drained, message) = tokio::join!(feed, drain, listen);
    let status = child.wait().await.map_err(broken)?;
    fed?;
    drained?;
    let message: Vec<u8> = message?;
    if status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&message);
    let message = message.trim().lines().last().unwrap_or("it says nothing").to_owned();
    Err(PrintError::Tool(PrinterError::Refused { status, message }))
}

fn command(options: &PrintOptions<'_>) -> tokio::process::Command {
    let mut command = tool::bare_command(options.program, options.environment);
    command.args(["--no-defaults", "--base64-output=decode-rows", "--verbose"]);
    let second = |moment: Timestamp| moment.0.strftime("%Y-%m-%d %H:%M:%S").to_string();
    command.args(options.from.map(|from| format!("--start-datetime={}", second(from))));
    command.args(options.to.map(|to| format!("--stop-datetime={}", second(to))));
    // Both the options and what it prints are in the zone of the process.
    command.arg("-").env("TZ", "UTC0").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut command = tokio::process::Command::from(command);
    command.kill_on_drop(true);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_no_binary_log_is_refused_with_what_the_tool_says() {
        let program = tool::Tools::binlog_alone(&tool::ToolPaths::default()).unwrap();
        let options = PrintOptions { program: &program, environment: &[], from: None, to: None };
        let mut parts = vec![vec![7; 300]; 3].into_iter();
        let printed = print::<()>(&options, async || Ok(parts.next()), |_| ()).await;
        let Err(PrintError::Tool(error)) = printed else { panic!("{printed:?}") };
        assert!(error.to_string().contains("ended with exit status: 1: "), "{error}");
        let printed = print(&options, async || Err("gone"), |_| ()).await;
        assert!(matches!(printed, Err(PrintError::Source("gone"))));
    }
}
