//! One agent has a state directory at a time.

use std::{
    fs::{DirBuilder, File, OpenOptions},
    io::{Read, Seek, SeekFrom, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
};

use rustix::fs::{FlockOperation, flock};

use super::AgentError;

/// Longest text of a holder that is told.
const HOLDER_BYTES_MAX: u64 = 256;

/// The lock of a state directory, until it is dropped or the process ends, however it does.
#[derive(Debug)]
pub struct StateLock {
    _file: File,
}

impl StateLock {
    /// Makes `directory` where it is not there, and takes its lock for `holder`.
    ///
    /// # Errors
    /// [`AgentError::Locked`] when another process has it; the system's.
    pub fn take(directory: &Path, holder: &str) -> Result<StateLock, AgentError> {
        let failed = |source| AgentError::StateDirectory { path: directory.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
        let path = directory.join("agent.lock");
        let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
        let mut file = opened.map_err(failed)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut holder = String::new();
                let _ = (&mut file).take(HOLDER_BYTES_MAX).read_to_string(&mut holder);
                let holder = holder.trim();
                let holder = if holder.is_empty() { "it does not say which" } else { holder }.to_owned();
                return Err(AgentError::Locked { path: directory.to_owned(), holder });
            }
            Err(error) => return Err(failed(error.into())),
        }
        // Who holds it is for people: a full disk must not keep an agent from its work.
        let _ = file.set_len(0).and_then(|()| file.seek(SeekFrom::Start(0))).and_then(|_| writeln!(file, "{holder}"));
        Ok(StateLock { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_agent_is_told_who_has_the_directory() {
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path().join("deep/state");
        let lock = StateLock::take(&directory, "process 7 on db1").unwrap();
        let error = StateLock::take(&directory, "process 8").unwrap_err();
        assert!(error.to_string().ends_with("process 7 on db1"), "{error}");
        assert_eq!(crate::error::Diagnose::kind(&error).exit_code(), 11);
        drop(lock);
        StateLock::take(&directory, "process 8").unwrap();
    }
}
