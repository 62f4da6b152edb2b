//! What the process was started with. Nothing else in the program reads the environment.

use std::{
    collections::BTreeMap,
    env,
    ffi::{OsStr, OsString},
    io::IsTerminal,
    path::PathBuf,
};

use jiff::tz::TimeZone;

/// Settings file that is read when none is named and it exists.
pub const CONFIG_FILE: &str = "/etc/haulout.toml";

/// Columns where a terminal does not tell its width.
const COLUMNS_DEFAULT: usize = 80;

/// Variables and terminals of the process.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    variables: BTreeMap<OsString, OsString>,
    /// Settings file that is read when none is named and it exists.
    pub config_file: PathBuf,
    /// Width of the terminal on stdout; `None` for a pipe or a file.
    pub stdout_columns: Option<usize>,
    /// Width of the terminal on stderr; `None` for a pipe or a file.
    pub stderr_columns: Option<usize>,
    /// Zone of the machine's clock, by `TZ` or `/etc/localtime`; `None` where neither tells one.
    pub zone: Option<TimeZone>,
}

impl Environment {
    /// That of this process.
    pub fn of_process() -> Environment {
        let mut environment =
            Environment { config_file: CONFIG_FILE.into(), variables: env::vars_os().collect(), ..Default::default() };
        environment.stdout_columns = columns(std::io::stdout());
        environment.stderr_columns = columns(std::io::stderr());
        environment.zone = TimeZone::try_system().ok();
        environment
    }

    /// One of variables alone, without terminals.
    pub fn of_variables(variables: &[(&str, &str)]) -> Environment {
        let variables = variables.iter().map(|(name, value)| (name.into(), value.into())).collect();
        Environment { variables, ..Environment::default() }
    }

    /// Value of variable `name`; an empty one counts as not set.
    pub fn get(&self, name: &str) -> Option<&OsStr> {
        self.variables.get(OsStr::new(name)).map(OsString::as_os_str).filter(|value| !value.is_empty())
    }

    /// Home directory of the operator.
    pub fn home(&self) -> Option<PathBuf> {
        self.get("HOME").map(PathBuf::from)
    }

    /// Directory for files that may be lost: `TMPDIR`, or `/var/tmp`, which unlike `/tmp` is seldom in memory.
    pub fn scratch_directory(&self) -> PathBuf {
        self.get("TMPDIR").map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from)
    }

    /// True when colours and bars would be noise: a dumb terminal, or `NO_COLOR` (<https://no-color.org>).
    pub fn plain(&self) -> bool {
        self.get("NO_COLOR").is_some() || self.dumb()
    }

    /// True when the terminal cannot move its cursor.
    pub fn dumb(&self) -> bool {
        self.get("TERM").is_some_and(|term| term == "dumb")
    }
}

fn columns(stream: impl IsTerminal + std::os::fd::AsFd) -> Option<usize> {
    if !stream.is_terminal() {
        return None;
    }
    let width = rustix::termios::tcgetwinsize(stream).map_or(0, |size| usize::from(size.ws_col));
    Some(if width == 0 { COLUMNS_DEFAULT } else { width })
}
