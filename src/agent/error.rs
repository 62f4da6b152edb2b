//! What ends an agent, or keeps it from beginning.

use std::{io, path::PathBuf};

use crate::error::{Diagnose, Kind};

/// Why an agent did not begin, or ended.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// Another agent has the state directory.
    #[error("another agent has {path:?}: {holder}")]
    Locked {
        /// The state directory.
        path: PathBuf,
        /// What the lock file says of it.
        holder: String,
    },
    /// The state directory cannot be used.
    #[error("cannot use the state directory {path:?}")]
    StateDirectory {
        /// The directory.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Nothing can listen there.
    #[error("cannot listen at {address}")]
    Listen {
        /// Where.
        address: String,
        /// The system's error.
        source: io::Error,
    },
    /// The settings cannot be kept for the runs.
    #[error("cannot keep the settings in memory for the runs")]
    Settings(#[source] io::Error),
}

impl Diagnose for AgentError {
    fn kind(&self) -> Kind {
        match self {
            AgentError::Locked { .. } => Kind::Locked,
            _ => Kind::Failed,
        }
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            AgentError::Locked { .. } => "one agent serves one server; give another server's its own [agent] state_dir",
            AgentError::StateDirectory { .. } => {
                "name a directory that this account may write, with --state-dir or state_dir under [agent]"
            }
            AgentError::Listen { .. } => "name another address with --listen or listen under [agent]",
            AgentError::Settings(_) => return None,
        };
        Some(hint.to_owned())
    }
}
