//! How MariaDB's tools reach the server, and how they get the password.
//!
//! The password is in no argument and in no environment variable, where `ps` or a crash report would show it, and in no
//! file, which a `kill -9` would leave behind. It is written to a memory file (`memfd_create(2)`, mode 0600) that the
//! tools read as their option file by the path `/proc/<our pid>/fd/<n>`: it vanishes with this process, whatever ends it.

use std::{
    ffi::OsString,
    fs::File,
    io::Write,
    os::fd::AsRawFd,
    path::{Path, PathBuf, absolute},
    process::Command,
};

use crate::{
    error::{Diagnose, Kind},
    model::Secret,
};

/// Longest password: MariaDB's option files have lines of at most 4,096 bytes, and each byte may need two.
const PASSWORD_BYTES_MAX: usize = 1_024;

/// Groups of the option file that carry the password.
///
/// `mariadb-backup` reads `[client]` first and its own group last, `mariadb` the same way; a password in the last group
/// wins over one of the operator's option files in either.
const PASSWORD_GROUPS: [&str; 3] = ["client", "mariadb-client", "mariadb-backup"];

/// Prefixes of the options that may be handed through to both tools.
const TLS_OPTIONS: [&str; 5] = ["--ssl", "--skip-ssl", "--disable-ssl", "--tls-version", "--protocol"];

/// Ways to the server, by the names that `mariadb-backup` gives them; what is absent is left to the option files.
#[derive(Debug, Clone, Default)]
pub struct Connection {
    /// The only option file that the tools read.
    pub defaults_file: Option<PathBuf>,
    /// An option file that the tools read after the global ones.
    pub defaults_extra_file: Option<PathBuf>,
    /// Unix socket of the server.
    pub socket: Option<PathBuf>,
    /// Host of the server.
    pub host: Option<String>,
    /// TCP port of the server.
    pub port: Option<u16>,
    /// Account to log in with.
    pub user: Option<String>,
    /// Password of the account.
    pub password: Option<Secret>,
    /// Options that both tools know alike: `--ssl…`, `--skip-ssl…`, `--tls-version=…`, `--protocol=…`.
    pub tls_args: Vec<String>,
    /// Directory whose `.my.cnf` the tools read, as they do when started by hand.
    pub home: Option<PathBuf>,
}

impl Connection {
    /// Checks the options and puts the password where the tools find it.
    ///
    /// # Errors
    /// When two option files exclude each other, one cannot be read, an option is not one of TLS, or the password cannot
    /// stand in an option file.
    pub fn open(&self) -> Result<ConnectionArgs, ConnectionError> {
        if self.defaults_file.is_some() && self.defaults_extra_file.is_some() {
            return Err(ConnectionError::TwoDefaultsFiles);
        }
        for arg in &self.tls_args {
            if !TLS_OPTIONS.iter().any(|prefix| arg.starts_with(prefix)) || arg.contains("pass") {
                let name = arg.split('=').next().unwrap_or_default();
                return Err(ConnectionError::NotTls { option: name.to_owned() });
            }
        }
        let (defaults, file) = self.defaults()?;
        // The tools change into the datadir before they connect: a relative path would point elsewhere.
        let socket = self.socket.as_ref().map(|path| absolute_path(path)).transpose()?;
        let mut args = vec![];
        args.extend(defaults);
        args.extend(socket.map(|path| option("--socket=", path)));
        args.extend(self.host.as_ref().map(|host| option("--host=", host)));
        args.extend(self.port.map(|port| option("--port=", port.to_string())));
        args.extend(self.user.as_ref().map(|user| option("--user=", user)));
        args.extend(self.tls_args.iter().map(OsString::from));
        // With a password, the home's option file is included by ours; read a second time, after ours, it would win.
        let home = if file.is_some() { None } else { self.home.clone() };
        Ok(ConnectionArgs { args, home, _file: file })
    }

    /// The option that names the option file, and the memory file that it names when there is a password.
    fn defaults(&self) -> Result<(Option<OsString>, Option<OptionFile>), ConnectionError> {
        let (name, given) = match (&self.defaults_file, &self.defaults_extra_file) {
            (Some(path), _) => ("--defaults-file=", Some(readable(path)?)),
            (None, Some(path)) => ("--defaults-extra-file=", Some(readable(path)?)),
            (None, None) => ("--defaults-extra-file=", None),
        };
        let Some(password) = &self.password else {
            return Ok((given.map(|path| option(name, path)), None));
        };
        let personal = match (&self.defaults_file, &self.home) {
            (None, Some(home)) => Some(home.join(".my.cnf")).filter(|path| path.is_file()),
            _ => None,
        };
        let text = option_file_text(given.iter().chain(&personal), password)?;
        let file = OptionFile::new(&text)?;
        Ok((Some(option(name, &file.path)), Some(file)))
    }
}

/// Arguments that lead a tool to the server; the password's memory file lives as long as they do.
#[derive(Debug)]
pub struct ConnectionArgs {
    args: Vec<OsString>,
    home: Option<PathBuf>,
    _file: Option<OptionFile>,
}

impl ConnectionArgs {
    /// Adds the arguments to `command`, which must have none yet: the tools want their option file named first.
    pub(super) fn apply(&self, command: &mut Command) {
        command.args(&self.args);
        if let Some(home) = &self.home {
            command.env("HOME", home);
        }
    }
}

/// A file in memory that other processes of the same user open by its path.
#[derive(Debug)]
struct OptionFile {
    path: PathBuf,
    _file: File,
}

impl OptionFile {
    fn new(text: &str) -> Result<OptionFile, ConnectionError> {
        let make = || -> std::io::Result<OptionFile> {
            let mut file =
                File::from(rustix::fs::memfd_create("haulout-option-file", rustix::fs::MemfdFlags::CLOEXEC)?);
            // MariaDB ignores option files that everyone may write, as memory files are when they are made.
            rustix::fs::fchmod(&file, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR)?;
            file.write_all(text.as_bytes())?;
            let path = PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd()));
            File::open(&path)?;
            Ok(OptionFile { path, _file: file })
        };
        make().map_err(|source| ConnectionError::HandOver { source })
    }
}

/// The option file that includes `included` in this order and then sets the password.
fn option_file_text<'a>(
    included: impl Iterator<Item = &'a PathBuf>,
    password: &Secret,
) -> Result<String, ConnectionError> {
    let mut text = String::new();
    for path in included {
        // A line is the whole syntax there is: no quotes, and the blanks at its ends are dropped.
        let plain = path.to_str().filter(|line| line.trim() == *line && !line.contains(['\n', '\r']));
        let line = plain.ok_or_else(|| ConnectionError::PathUnfit { path: path.clone() })?;
        text += &format!("!include {line}\n");
    }
    let quoted = quote(password.reveal())?;
    for group in PASSWORD_GROUPS {
        text += &format!("[{group}]\npassword={quoted}\n");
    }
    Ok(text)
}

/// Quotes a value for an option file (MariaDB `mysys/my_default.c`, `search_default_file_with_ext`).
fn quote(value: &str) -> Result<String, ConnectionError> {
    if value.len() > PASSWORD_BYTES_MAX || value.contains('\0') {
        return Err(ConnectionError::PasswordUnfit { bytes_max: PASSWORD_BYTES_MAX });
    }
    let mut quoted = String::from("\"");
    for char in value.chars() {
        match char {
            '\\' => quoted += "\\\\",
            '"' => quoted += "\\\"",
            '\n' => quoted += "\\n",
            '\r' => quoted += "\\r",
            '\t' => quoted += "\\t",
            '\x08' => quoted += "\\b",
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    Ok(quoted)
}

fn option(name: &str, value: impl AsRef<std::ffi::OsStr>) -> OsString {
    let mut option = OsString::from(name);
    option.push(value);
    option
}

fn absolute_path(path: &Path) -> Result<PathBuf, ConnectionError> {
    absolute(path).map_err(|source| ConnectionError::OptionFile { path: path.to_owned(), source })
}

/// The absolute path of an option file. MariaDB passes over an included file that it cannot read without a word.
fn readable(path: &Path) -> Result<PathBuf, ConnectionError> {
    let path = absolute_path(path)?;
    match File::open(&path) {
        Ok(_) => Ok(path),
        Err(source) => Err(ConnectionError::OptionFile { path, source }),
    }
}

/// Why the way to the server cannot be laid.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// Both option files are given.
    #[error("--defaults-file and --defaults-extra-file exclude each other")]
    TwoDefaultsFiles,
    /// An option file cannot be read.
    #[error("cannot read option file {path:?}")]
    OptionFile {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The path of an option file cannot stand in an option file.
    #[error("path of option file {path:?} cannot be included by another: line break, blank at an end, or not UTF-8")]
    PathUnfit {
        /// The path.
        path: PathBuf,
    },
    /// The password cannot stand in an option file.
    #[error("password does not fit into an option file: longer than {bytes_max} bytes, or with a zero byte")]
    PasswordUnfit {
        /// Longest password.
        bytes_max: usize,
    },
    /// An option is not one that both tools know.
    #[error("not a TLS option: {option}")]
    NotTls {
        /// The option's name, without its value.
        option: String,
    },
    /// The password's memory file cannot be made.
    #[error("cannot hand the password over to MariaDB's tools")]
    HandOver {
        /// The system's error.
        source: std::io::Error,
    },
}

impl Diagnose for ConnectionError {
    fn kind(&self) -> Kind {
        match self {
            ConnectionError::HandOver { .. } => Kind::Failed,
            _ => Kind::Usage,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            ConnectionError::TwoDefaultsFiles => Some("name one, and `!include` the other in it".to_owned()),
            ConnectionError::PathUnfit { .. } => Some("rename the option file".to_owned()),
            ConnectionError::NotTls { .. } => {
                Some("give options that begin with --ssl, --skip-ssl, --tls-version or --protocol".to_owned())
            }
            ConnectionError::HandOver { .. } => {
                Some("a mounted /proc is needed, or put the password into an option file of your own".to_owned())
            }
            ConnectionError::OptionFile { .. } | ConnectionError::PasswordUnfit { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_password(connection: Connection) -> (Vec<String>, String) {
        let password = Some(Secret::new("s3cr et"));
        let opened = Connection { password, ..connection }.open().unwrap();
        let args = opened.args.iter().map(|arg| arg.to_str().unwrap().to_owned()).collect::<Vec<_>>();
        let path = args[0].split_once('=').unwrap().1.to_owned();
        (args, std::fs::read_to_string(path).unwrap())
    }

    #[test]
    fn the_password_is_in_no_argument_and_in_no_debug_output() {
        let (args, text) = with_password(Connection { user: Some("b".to_owned()), ..Connection::default() });
        assert!(text.contains("s3cr et"));
        assert!(!args.iter().any(|arg| arg.contains("s3cr")), "{args:?}");
        let connection = Connection { password: Some(Secret::new("s3cr et")), ..Connection::default() };
        assert!(!format!("{connection:?} {:?}", connection.open().unwrap()).contains("s3cr"));
    }

    #[test]
    fn the_memory_file_is_gone_with_its_arguments() {
        let opened = Connection { password: Some(Secret::new("x")), ..Connection::default() }.open().unwrap();
        let path = opened._file.as_ref().unwrap().path.clone();
        assert_eq!(rustix::fs::stat(&path).unwrap().st_mode & 0o7777, 0o600);
        drop(opened);
        assert!(!std::fs::read_to_string(&path).is_ok_and(|text| text.contains("password")));
    }

    #[test]
    fn quoting_protects_what_option_files_would_interpret() {
        assert_eq!(quote(r#"a#b "q' \ ü;=x "#).unwrap(), r#""a#b \"q' \\ ü;=x ""#);
        assert_eq!(quote("\n\t").unwrap(), r#""\n\t""#);
        assert!(quote("a\0b").is_err());
        assert!(quote(&"x".repeat(PASSWORD_BYTES_MAX + 1)).is_err());
    }

    #[test]
    fn the_operators_option_files_come_before_the_password() {
        let dir = tempfile::tempdir().unwrap();
        let own = dir.path().join("own.cnf");
        std::fs::write(&own, "").unwrap();
        std::fs::write(dir.path().join(".my.cnf"), "").unwrap();
        let home = Some(dir.path().to_owned());
        let extra = Connection { defaults_extra_file: Some(own.clone()), home: home.clone(), ..Connection::default() };
        let (args, text) = with_password(extra);
        assert!(args[0].starts_with("--defaults-extra-file=/proc/"), "{args:?}");
        let expected = format!("!include {0}/own.cnf\n!include {0}/.my.cnf\n[client]\n", dir.path().display());
        assert!(text.starts_with(&expected), "{text}");
        let only = Connection { defaults_file: Some(own), home, ..Connection::default() };
        let (args, text) = with_password(only);
        assert!(args[0].starts_with("--defaults-file=/proc/"), "{args:?}");
        assert!(!text.contains(".my.cnf"), "{text}");
    }

    #[test]
    fn relative_paths_are_made_absolute() {
        let opened = Connection { socket: Some("x.sock".into()), ..Connection::default() }.open().unwrap();
        let expected = std::env::current_dir().unwrap().join("x.sock");
        assert_eq!(opened.args, [option("--socket=", expected)]);
    }

    #[test]
    fn only_tls_options_pass() {
        for arg in ["--password=x", "--pass=x", "--ssl-passphrase=x", "-px", "--datadir=/x"] {
            let error = Connection { tls_args: vec![arg.to_owned()], ..Connection::default() }.open().unwrap_err();
            assert!(!error.to_string().contains("=x"), "{error}");
        }
        let tls_args = vec!["--ssl-ca=/x".to_owned(), "--skip-ssl-verify-server-cert".to_owned()];
        assert!(Connection { tls_args, ..Connection::default() }.open().is_ok());
    }

    #[test]
    fn an_unreadable_option_file_is_named() {
        let connection = Connection { defaults_file: Some("/nowhere/my.cnf".into()), ..Connection::default() };
        assert!(connection.open().unwrap_err().to_string().contains("/nowhere/my.cnf"));
    }
}
