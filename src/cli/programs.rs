//! MariaDB's programs on this machine, held against the server that a backup is of.

use std::{fs::File, io::Read};

use super::{failure::Failure, open, options::ToolSettings};
use crate::{
    format::Manifest,
    mariadb::{
        packages::{Needs, PackageSystem, Program},
        tool::{Tool, ToolError, Tools},
    },
    restore::{self, RestoreError},
};

/// Bytes of `/etc/os-release` that are read; the longest ones have some hundreds.
const OS_RELEASE_BYTES_MAX: u64 = 64 << 10;

/// What was found.
#[derive(Debug)]
pub struct Programs {
    /// The tools, or that `mariadb-backup` is missing.
    tools: Result<Tools, ToolError>,
    /// The server, which need not be there.
    server: Option<Tool>,
}

impl Programs {
    /// Looks for them.
    ///
    /// # Errors
    /// When a program that is there does not start, or is not MariaDB's.
    pub fn look(settings: &ToolSettings) -> Result<Programs, Failure> {
        let paths = open::tools(settings);
        match Tools::discover(&paths) {
            Ok(tools) => Ok(Programs { server: tools.server.clone(), tools: Ok(tools) }),
            Err(missing @ ToolError::Missing { .. }) => {
                Ok(Programs { tools: Err(missing), server: Tools::server_alone(&paths)? })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// `mariadb-backup`, where it is there.
    pub fn backup(&self) -> Option<&Tool> {
        self.tools.as_ref().ok().map(|tools| &tools.backup)
    }

    /// `mariadbd`, where it is there.
    pub fn server(&self) -> Option<&Tool> {
        self.server.as_ref()
    }

    /// What this machine lacks to bring `manifest`'s backup back, and to start a server on it.
    ///
    /// # Errors
    /// When the manifest names no version.
    pub fn needs(&self, manifest: &Manifest) -> Result<Needs, Failure> {
        let server = manifest.server.version.parse().map_err(RestoreError::from)?;
        let version = |tool: Option<&Tool>| tool.map(|tool| tool.version.clone());
        Ok(Needs::new(server, version(self.backup()).as_ref(), version(self.server()).as_ref()))
    }

    /// The tools, when they can prepare the backup whose `needs` these are.
    ///
    /// # Errors
    /// When they cannot; the hint names the packages.
    pub fn fitting(self, needs: &Needs) -> Result<Tools, Failure> {
        let failure: Failure = match self.tools {
            Err(missing) => missing.into(),
            Ok(tools) => match restore::check_tool(&needs.server.to_string(), &tools) {
                Ok(_) => return Ok(tools),
                Err(error) => error.into(),
            },
        };
        let hint = needs.hint(package_system()).filter(|_| needs.lacks(Program::Backup).is_some());
        Err(match hint {
            Some(hint) => failure.with_hint(hint),
            None => failure,
        })
    }
}

/// How this machine gets its packages.
pub fn package_system() -> PackageSystem {
    let mut text = String::new();
    // Without the file, or where it is no text, nothing is known.
    let read = File::open("/etc/os-release").and_then(|file| file.take(OS_RELEASE_BYTES_MAX).read_to_string(&mut text));
    if read.is_ok() { PackageSystem::of(&text) } else { PackageSystem::Other }
}
