//! Where MariaDB's tools are and which server they fit.

use std::{
    ffi::OsString,
    fmt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    str::FromStr,
    thread,
    time::Duration,
};

use super::bounded;
use crate::error::{Diagnose, Kind};

/// Longest time for `--version`: it reads no data, so that only a dead disk takes longer.
const VERSION_LIMIT: Duration = Duration::from_secs(20);

/// Longest output of `--version`.
const VERSION_BYTES_MAX: usize = 64 << 10;

/// Directories searched when the caller names none.
const STANDARD_DIRECTORIES: [&str; 6] =
    ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/usr/local/mysql/bin", "/usr/libexec"];

/// Names of the server's program, the newer one first.
const SERVER_NAMES: [&str; 2] = ["mariadbd", "mysqld"];

/// Version of a MariaDB server or of a tool built with it, such as `10.11.19-MariaDB-log`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerVersion {
    /// First number.
    pub major: u16,
    /// Second number; with the first it names the release series.
    pub minor: u16,
    /// Third number.
    pub patch: u16,
    /// All that follows, with its leading hyphen; may be empty.
    pub suffix: String,
}

impl ServerVersion {
    /// Release series: what a tool and a server must have in common.
    pub const fn series(&self) -> (u16, u16) {
        (self.major, self.minor)
    }

    /// Finds the first three-part version in the output of `--version`.
    fn find(text: &str) -> Option<ServerVersion> {
        text.split(|char: char| char.is_whitespace() || char == ',').find_map(|word| word.parse().ok())
    }

    /// Checks that backups of this server can be taken and restored.
    ///
    /// # Errors
    /// [`ToolError::Unsupported`] for servers before 10.8, with the reason by name.
    pub fn supported(&self) -> Result<(), ToolError> {
        let reason = match self.series() {
            (10, 1..=4) => {
                "its backups are prepared with --apply-log-only and its redo log has a format that is not read here"
            }
            (10, 5..=7) => "its redo log has the format of before 10.8, without the start checkpoint in its header",
            (major, minor) if (major, minor) < (10, 1) => "there is no mariadb-backup for it",
            _ => return Ok(()),
        };
        Err(ToolError::Unsupported { version: self.clone(), reason })
    }
}

impl FromStr for ServerVersion {
    type Err = NotAVersion;

    fn from_str(text: &str) -> Result<ServerVersion, NotAVersion> {
        // Servers before 11.0 can put this before their version, for the sake of old replicas.
        let bare = text.strip_prefix("5.5.5-").unwrap_or(text);
        let end = bare.find(|char: char| !char.is_ascii_digit() && char != '.').unwrap_or(bare.len());
        let (numbers, suffix) = bare.split_at(end);
        let parts: Vec<u16> = numbers.split('.').map_while(|part| part.parse().ok()).collect();
        match (parts.as_slice(), numbers.split('.').count()) {
            (&[major, minor, patch], 3) => Ok(ServerVersion { major, minor, patch, suffix: suffix.to_owned() }),
            _ => Err(NotAVersion { found: text.to_owned() }),
        }
    }
}

impl fmt::Display for ServerVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}{}", self.major, self.minor, self.patch, self.suffix)
    }
}

/// A text that is no version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a MariaDB version: {found:?}")]
pub struct NotAVersion {
    /// The text found.
    pub found: String,
}

/// Where to look for the tools.
#[derive(Debug, Clone, Default)]
pub struct ToolPaths {
    /// `mariadb-backup` itself, where it is not to be searched.
    pub mariadb_backup: Option<PathBuf>,
    /// The client `mariadb`.
    pub mariadb: Option<PathBuf>,
    /// The server `mariadbd`.
    pub mariadbd: Option<PathBuf>,
    /// Directories to search in this order; the standard ones when empty.
    pub search: Vec<PathBuf>,
    /// Environment that the tools get; they inherit nothing, and no secret of this process.
    pub environment: Vec<(OsString, OsString)>,
}

/// One tool: a program and its version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tool {
    /// The program.
    pub path: PathBuf,
    /// What it says of itself.
    pub version: ServerVersion,
}

/// The tools of this machine.
#[derive(Debug, Clone)]
pub struct Tools {
    /// `mariadb-backup`, which takes and prepares backups.
    pub backup: Tool,
    /// `mariadb`, through which the server is asked; a restore goes without.
    pub client: Option<Tool>,
    /// `mariadbd`, which a drill starts; a backup goes without and does not ask for it.
    pub server: Option<Tool>,
    search: Vec<PathBuf>,
    environment: Vec<(OsString, OsString)>,
}

/// How well a tool fits a server of the same series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToolFit {
    /// The tool is as new as the server, or newer.
    Fits,
    /// The tool is of an older patch release: it mostly works, and is worth a warning.
    OlderPatch,
}

impl Tools {
    /// Finds the tools and asks each for its version.
    ///
    /// # Errors
    /// When `mariadb-backup`, or a tool that `paths` names, is missing, does not start or is not MariaDB's.
    pub fn discover(paths: &ToolPaths) -> Result<Tools, ToolError> {
        Tools::search(paths, true, true)
    }

    /// Finds what a backup needs, which is all but the server: that one takes twice as long as the others to tell its version.
    ///
    /// # Errors
    /// As of [`Tools::discover`].
    pub fn discover_for_backup(paths: &ToolPaths) -> Result<Tools, ToolError> {
        Tools::search(paths, false, true)
    }

    /// Finds what following a server takes, on a machine that need not have `mariadb-backup`: where it is missing, its name stands in its place,
    /// and whoever runs it is told so.
    ///
    /// # Errors
    /// When the client or `mariadb-binlog` is missing, or a tool that is there does not start or is not MariaDB's.
    pub fn discover_to_follow(paths: &ToolPaths) -> Result<Tools, ToolError> {
        let tools = Tools::search(paths, false, false)?;
        tools.binlog()?;
        Ok(tools)
    }

    fn search(paths: &ToolPaths, with_server: bool, needs_backup: bool) -> Result<Tools, ToolError> {
        let find = |named: &Option<PathBuf>, names: &[&'static str]| -> Result<Option<Tool>, ToolError> {
            let path = match named {
                Some(path) if !is_program(path) => return Err(ToolError::NotAProgram { path: path.clone() }),
                Some(path) => Some(path.clone()),
                None => search(&paths.search, names),
            };
            path.map(|path| ask_version(path, &paths.environment)).transpose()
        };
        // Side by side: each of them loads its libraries for longer than it speaks.
        let (backup, client, server) = thread::scope(|scope| {
            let client = scope.spawn(|| find(&paths.mariadb, &["mariadb", "mysql"]));
            let server = scope.spawn(|| if with_server { find(&paths.mariadbd, &SERVER_NAMES) } else { Ok(None) });
            let backup = find(&paths.mariadb_backup, &["mariadb-backup", "mariabackup"]);
            (backup, client.join(), server.join())
        });
        let missing = |name, package| ToolError::Missing { name, package };
        let asked = |answer: thread::Result<_>| answer.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let backup = backup?;
        if backup.is_none() && needs_backup {
            return Err(missing("mariadb-backup", "mariadb-backup"));
        }
        let (client, server) = (asked(client)?, asked(server)?);
        let stand_in = |client: &Tool| Tool { path: PathBuf::from("mariadb-backup"), version: client.version.clone() };
        let backup = backup.or_else(|| client.as_ref().map(stand_in));
        let backup = backup.ok_or(missing("mariadb", "mariadb-client"))?;
        let (search, environment) = (paths.search.clone(), paths.environment.clone());
        Ok(Tools { backup, client, server, search, environment })
    }

    /// The server `mariadbd` of a machine that need not have `mariadb-backup`.
    ///
    /// # Errors
    /// When it is there and does not start, or is not MariaDB's.
    pub fn server_alone(paths: &ToolPaths) -> Result<Option<Tool>, ToolError> {
        let path = paths.mariadbd.clone().or_else(|| search(&paths.search, &SERVER_NAMES));
        path.map(|path| ask_version(path, &paths.environment)).transpose()
    }

    /// The program `mariadb-binlog` of a machine that need not have `mariadb-backup`.
    ///
    /// # Errors
    /// [`ToolError::Missing`] when the machine has none.
    pub fn binlog_alone(paths: &ToolPaths) -> Result<PathBuf, ToolError> {
        search(&paths.search, &["mariadb-binlog", "mysqlbinlog"])
            .ok_or(ToolError::Missing { name: "mariadb-binlog", package: "mariadb-client" })
    }

    /// The client `mariadb`.
    ///
    /// # Errors
    /// [`ToolError::Missing`] when the machine has none.
    pub fn client(&self) -> Result<&Tool, ToolError> {
        self.client.as_ref().ok_or(ToolError::Missing { name: "mariadb", package: "mariadb-client" })
    }

    /// `mariadb-binlog`, which reads binary logs; its version is that of the client, with which it comes.
    ///
    /// # Errors
    /// [`ToolError::Missing`] when the machine has none.
    pub fn binlog(&self) -> Result<Tool, ToolError> {
        let path = search(&self.search, &["mariadb-binlog", "mysqlbinlog"]);
        let path = path.ok_or(ToolError::Missing { name: "mariadb-binlog", package: "mariadb-client" })?;
        Ok(Tool { path, version: self.client()?.version.clone() })
    }

    /// A machine that has `mariadb-backup` and no other tool.
    #[cfg(test)]
    pub(super) fn of(backup: Tool) -> Tools {
        Tools { backup, client: None, server: None, search: vec![], environment: vec![] }
    }

    /// The same tools, with others searched in `directory` alone.
    #[cfg(test)]
    pub(super) fn searching(self, directory: &Path) -> Tools {
        Tools { search: vec![directory.to_owned()], ..self }
    }

    /// Checks that `mariadb-backup` fits a server of version `server`, or a backup that such a server made.
    ///
    /// # Errors
    /// When the server is not supported, or of another release series than the tool: the redo log's format and the data
    /// dictionary change between series, and `mariadb-backup` does not always notice.
    pub fn fit(&self, server: &ServerVersion) -> Result<ToolFit, ToolError> {
        server.supported()?;
        let tool = &self.backup.version;
        if tool.series() != server.series() {
            return Err(ToolError::OtherSeries { tool: tool.clone(), server: server.clone() });
        }
        Ok(if tool.patch < server.patch { ToolFit::OlderPatch } else { ToolFit::Fits })
    }

    /// A shell with what a tool gets.
    pub(super) fn shell(&self) -> Command {
        bare_command(Path::new("/bin/sh"), &self.environment)
    }

    /// A command that runs `tool` with stable messages, nothing on stdin and nothing inherited.
    pub(super) fn command(&self, tool: &Tool) -> Command {
        bare_command(&tool.path, &self.environment)
    }
}

pub(super) fn bare_command(path: &Path, environment: &[(OsString, OsString)]) -> Command {
    let mut command = Command::new(path);
    command.env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    // The messages are told apart by their text.
    command.envs(environment.iter().map(|(name, value)| (name, value))).env("LC_ALL", "C.UTF-8").env("LANG", "C.UTF-8");
    command.stdin(Stdio::null());
    command
}

fn search(directories: &[PathBuf], names: &[&str]) -> Option<PathBuf> {
    let standard: Vec<PathBuf> = STANDARD_DIRECTORIES.iter().map(PathBuf::from).collect();
    let directories = if directories.is_empty() { &standard } else { directories };
    // A MySQL installed beside MariaDB owns the old names only, so a new name anywhere beats an old one.
    names.iter().find_map(|name| directories.iter().map(|dir| dir.join(name)).find(|path| is_program(path)))
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

fn ask_version(path: PathBuf, environment: &[(OsString, OsString)]) -> Result<Tool, ToolError> {
    let mut command = bare_command(&path, environment);
    // An option file with an unknown option would end the tool before it tells its version.
    command.args(["--no-defaults", "--version"]);
    let output = match bounded::run(command, None, VERSION_LIMIT, VERSION_BYTES_MAX) {
        Ok(output) => output,
        Err(source) => return Err(ToolError::Start { path, source }),
    };
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    let found = || text.lines().next().unwrap_or_default().chars().take(200).collect();
    match ServerVersion::find(&text) {
        Some(version) if text.contains("MariaDB") => Ok(Tool { path, version }),
        _ => Err(ToolError::NotMariaDb { path, found: found() }),
    }
}

/// Why a tool cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// No program of that name.
    #[error("{name} is not installed")]
    Missing {
        /// Name of the program.
        name: &'static str,
        /// Package that brings it.
        package: &'static str,
    },
    /// The path that was named leads to no program.
    #[error("not an executable file: {path:?}")]
    NotAProgram {
        /// The path.
        path: PathBuf,
    },
    /// The program does not start, or does not end.
    #[error("cannot run {path:?}")]
    Start {
        /// The program.
        path: PathBuf,
        /// What went wrong.
        source: bounded::RunError,
    },
    /// The program is not MariaDB's.
    #[error("{path:?} is not MariaDB's: {found:?}")]
    NotMariaDb {
        /// The program.
        path: PathBuf,
        /// First line of what it says of itself.
        found: String,
    },
    /// Servers of this version cannot be backed up.
    #[error("MariaDB {version} is not supported: {reason}")]
    Unsupported {
        /// Version of the server.
        version: ServerVersion,
        /// Why not.
        reason: &'static str,
    },
    /// Tool and server are of different release series.
    #[error("mariadb-backup is of version {tool}, but the server is of version {server}")]
    OtherSeries {
        /// Version of the tool.
        tool: ServerVersion,
        /// Version of the server.
        server: ServerVersion,
    },
}

impl Diagnose for ToolError {
    fn kind(&self) -> Kind {
        match self {
            ToolError::NotAProgram { .. } => Kind::Usage,
            _ => Kind::DatabaseRefused,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            ToolError::Missing { package, .. } => {
                Some(format!("install the package {package} of the server's version, or name the program's path"))
            }
            ToolError::NotMariaDb { .. } => Some("name the path of MariaDB's own program".to_owned()),
            ToolError::Unsupported { .. } => {
                Some("supported are MariaDB 10.8 and later: upgrade the server".to_owned())
            }
            ToolError::OtherSeries { server, .. } => {
                let (major, minor) = server.series();
                Some(format!("install the package mariadb-backup of MariaDB {major}.{minor}"))
            }
            ToolError::NotAProgram { .. } | ToolError::Start { .. } => None,
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Writes an executable script into `dir`.
    ///
    /// A shell does the writing: a descriptor of ours could live on in a child that another test starts just then, and the
    /// script would be "text file busy".
    pub fn script_file(dir: &Path, script: &str) -> PathBuf {
        let path = dir.join("mariadb-backup");
        let write = "printf '#!/bin/sh\\n%s\\n' \"$2\" > \"$1\" && chmod 755 \"$1\"";
        let done = Command::new("/bin/sh").args(["-c", write, "sh"]).arg(&path).arg(script).status().unwrap();
        assert!(done.success());
        path
    }

    fn version(text: &str) -> ServerVersion {
        text.parse().unwrap()
    }

    #[test]
    fn versions_are_found_in_what_each_tool_prints() {
        for (text, expected) in [
            ("mariadb-backup based on MariaDB server 10.11.19-MariaDB debian-linux-gnu (x86_64)", "10.11.19-MariaDB"),
            ("mariadb  Ver 15.1 Distrib 10.11.19-MariaDB, for debian-linux-gnu (x86_64)", "10.11.19-MariaDB"),
            ("mariadb from 11.8.6-MariaDB, client 15.2 for debian-linux-gnu (x86_64)", "11.8.6-MariaDB"),
            ("mariadbd  Ver 10.11.19-MariaDB-0+deb12u1 for debian-linux-gnu", "10.11.19-MariaDB-0+deb12u1"),
        ] {
            assert_eq!(ServerVersion::find(text).unwrap().to_string(), expected);
        }
    }

    #[test]
    fn version_text_that_is_no_version_is_refused() {
        assert_eq!(version("5.5.5-10.6.2-MariaDB-log").series(), (10, 6));
        for text in ["", "15.1", "10.11", "10.11.x", "10.11.19.2", "10..1", "99999999.1.1", "-MariaDB"] {
            assert!(text.parse::<ServerVersion>().is_err(), "{text}");
        }
    }

    #[test]
    fn servers_before_10_8_are_refused_by_name() {
        for (text, reason) in [
            ("10.1.48-MariaDB", "--apply-log-only"),
            ("10.4.34-MariaDB", "--apply-log-only"),
            ("10.6.18-MariaDB", "before 10.8"),
            ("5.5.68-MariaDB", "no mariadb-backup"),
        ] {
            let error = version(text).supported().unwrap_err();
            assert!(error.to_string().contains(text) && error.to_string().contains(reason), "{error}");
        }
        for text in ["10.8.1-MariaDB", "10.11.19-MariaDB", "11.8.6-MariaDB", "12.0.1-MariaDB"] {
            assert!(version(text).supported().is_ok(), "{text}");
        }
    }

    #[test]
    fn a_tool_fits_servers_of_its_series_only() {
        let backup = Tool { path: "/x".into(), version: version("10.11.6-MariaDB") };
        let tools = Tools::of(backup);
        assert_eq!(tools.fit(&version("10.11.5-MariaDB")).unwrap(), ToolFit::Fits);
        assert_eq!(tools.fit(&version("10.11.7-MariaDB")).unwrap(), ToolFit::OlderPatch);
        let error = tools.fit(&version("11.4.2-MariaDB")).unwrap_err();
        assert!(error.hint().unwrap().contains("MariaDB 11.4"), "{error}");
        assert!(tools.fit(&version("10.10.2-MariaDB")).is_err());
    }

    #[test]
    fn a_missing_tool_names_its_package() {
        let empty = tempfile::tempdir().unwrap();
        let error =
            Tools::discover(&ToolPaths { search: vec![empty.path().into()], ..ToolPaths::default() }).unwrap_err();
        assert!(matches!(error, ToolError::Missing { .. }));
        assert!(error.hint().unwrap().contains("mariadb-backup"));
    }

    #[test]
    fn a_program_is_believed_what_it_says_of_itself() {
        let dir = tempfile::tempdir().unwrap();
        let path =
            Some(script_file(dir.path(), "echo 'mariadb-backup based on MariaDB server 10.6.1-MariaDB Linux' >&2"));
        let tools = Tools::discover(&ToolPaths { mariadb_backup: path, ..ToolPaths::default() }).unwrap();
        assert_eq!(tools.backup.version.to_string(), "10.6.1-MariaDB");
        assert!(matches!(tools.fit(&version("10.11.19-MariaDB")), Err(ToolError::OtherSeries { .. })));
    }

    #[test]
    fn a_program_that_is_not_mariadbs_is_refused() {
        let path = Some(PathBuf::from("/bin/ls"));
        let error = Tools::discover(&ToolPaths { mariadb_backup: path, ..ToolPaths::default() }).unwrap_err();
        assert!(matches!(error, ToolError::NotMariaDb { .. }), "{error}");
    }
}
