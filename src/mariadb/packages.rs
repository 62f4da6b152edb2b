//! Packages that bring MariaDB's programs of a release series to a machine that lacks them.
//!
//! Names and versions as Debian and Ubuntu have them, whose packages are of epoch 1, and as MariaDB's own RPM repository has them,
//! which holds every series (mariadb.org, "Download", and the packages themselves).

use std::fmt;

use super::tool::ServerVersion;

/// Where packages of a series are, which a distribution does not bring.
const REPOSITORIES: &str = "https://mariadb.org/download/?t=repo-config";

/// How a machine gets its packages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PackageSystem {
    /// `apt-get`: Debian, Ubuntu and their like.
    Debian,
    /// `dnf`, with MariaDB's own repository: Red Hat, Fedora and their like.
    Rpm,
    /// Neither is known of it.
    Other,
}

impl PackageSystem {
    /// Tells it from the text of `/etc/os-release`: by its `ID` and `ID_LIKE` (os-release(5)).
    pub fn of(os_release: &str) -> PackageSystem {
        let value = |line: &str| {
            let (name, value) = line.split_once('=')?;
            let value = value.trim().trim_matches(['"', '\'']).to_ascii_lowercase();
            matches!(name.trim(), "ID" | "ID_LIKE").then_some(value)
        };
        let names: Vec<String> = os_release.lines().filter_map(value).collect();
        let is = |one_of: &[&str]| {
            names.iter().flat_map(|names| names.split_whitespace()).any(|name| one_of.contains(&name))
        };
        match () {
            () if is(&["debian", "ubuntu"]) => PackageSystem::Debian,
            () if is(&["rhel", "fedora", "centos", "rocky", "almalinux", "ol", "amzn"]) => PackageSystem::Rpm,
            () => PackageSystem::Other,
        }
    }
}

/// A program that a package brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Program {
    /// The tool, which prepares the restored files.
    Backup,
    /// The server, which is started on them.
    Server,
}

impl Program {
    /// Name of the program.
    pub const fn name(self) -> &'static str {
        match self {
            Program::Backup => "mariadb-backup",
            Program::Server => "mariadbd",
        }
    }

    /// Name of the package, in Debian and wherever nothing else is known.
    pub const fn package(self) -> &'static str {
        match self {
            Program::Backup => "mariadb-backup",
            Program::Server => "mariadb-server",
        }
    }

    /// Name of the package in MariaDB's own RPM repository.
    const fn rpm(self) -> &'static str {
        match self {
            Program::Backup => "MariaDB-backup",
            Program::Server => "MariaDB-server",
        }
    }
}

/// A program that is missing, or of another release series than is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lacking {
    /// The program.
    pub program: Program,
    /// The version that is there.
    pub found: Option<ServerVersion>,
}

impl fmt::Display for Lacking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.program.name();
        match &self.found {
            None => write!(f, "{name} is not installed"),
            Some(version) => write!(f, "{name} is of version {version}"),
        }
    }
}

/// What a machine lacks to bring back the backup of a server, and to start a server on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Needs {
    /// Version of the server that was backed up.
    pub server: ServerVersion,
    /// The programs, [`Program::Backup`] first; none when all is there.
    pub lacking: Vec<Lacking>,
}

impl Needs {
    /// Holds the versions that are there against that of the backup's server.
    ///
    /// Another patch release of the series will do: both read each other's files.
    pub fn new(server: ServerVersion, backup: Option<&ServerVersion>, mariadbd: Option<&ServerVersion>) -> Needs {
        let there = [(Program::Backup, backup), (Program::Server, mariadbd)];
        let other = |found: Option<&ServerVersion>| found.is_none_or(|found| found.series() != server.series());
        let lacking = there.into_iter().filter(|(_, found)| other(*found));
        let lacking = lacking.map(|(program, found)| Lacking { program, found: found.cloned() }).collect();
        Needs { server, lacking }
    }

    /// The program, if it is lacking.
    pub fn lacks(&self, program: Program) -> Option<&Lacking> {
        self.lacking.iter().find(|lacking| lacking.program == program)
    }

    /// The release series, such as `10.11`.
    pub fn series(&self) -> String {
        let (major, minor) = self.server.series();
        format!("{major}.{minor}")
    }

    /// The version without its suffix, such as `10.11.19`: what packages are called by.
    pub fn release(&self) -> String {
        format!("{}.{}", self.series(), self.server.patch)
    }

    /// The packages, such as `mariadb-backup and mariadb-server of MariaDB 10.11, 10.11.19 or later`; nothing when all is there.
    pub fn packages(&self) -> Option<String> {
        let names: Vec<&str> = self.lacking.iter().map(|lacking| lacking.program.package()).collect();
        let of = format!("of MariaDB {}, {} or later", self.series(), self.release());
        (!names.is_empty()).then(|| format!("{} {of}", names.join(" and ")))
    }

    /// The commands that install them, one a line; nothing when all is there.
    ///
    /// Any patch release of the series is taken: a distribution keeps the newest one alone.
    pub fn commands(&self, system: PackageSystem) -> Option<String> {
        let list = |name: fn(Program) -> &'static str, before_version: &str| {
            let series = self.series();
            let package = |lacking: &Lacking| format!(" '{}{before_version}{series}.*'", name(lacking.program));
            self.lacking.iter().map(package).collect::<String>()
        };
        let debian = || format!("apt-get install{}", list(Program::package, "=1:"));
        let rpm = || format!("dnf install{}", list(Program::rpm, "-"));
        let all = match system {
            PackageSystem::Debian => debian(),
            PackageSystem::Rpm => rpm(),
            PackageSystem::Other => format!("{}\n{}", debian(), rpm()),
        };
        (!self.lacking.is_empty()).then_some(all)
    }

    /// What to do, in a sentence; nothing when all is there.
    pub fn hint(&self, system: PackageSystem) -> Option<String> {
        let commands = self.commands(system)?.replace('\n', ", or ");
        let series = self.series();
        Some(format!(
            "install {}: {commands}; where the distribution has no {series}, from MariaDB's own repositories, {REPOSITORIES}",
            self.packages()?
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> ServerVersion {
        text.parse().unwrap()
    }

    fn needs(backup: Option<&str>, mariadbd: Option<&str>) -> Needs {
        let there = |text: Option<&str>| text.map(version);
        Needs::new(version("10.11.19-MariaDB-log"), there(backup).as_ref(), there(mariadbd).as_ref())
    }

    #[test]
    fn a_machine_with_nothing_needs_tool_and_server_of_the_backups_series() {
        let needs = needs(None, None);
        assert_eq!(needs.packages().unwrap(), "mariadb-backup and mariadb-server of MariaDB 10.11, 10.11.19 or later");
        assert_eq!(
            needs.commands(PackageSystem::Debian).unwrap(),
            "apt-get install 'mariadb-backup=1:10.11.*' 'mariadb-server=1:10.11.*'"
        );
        assert_eq!(
            needs.commands(PackageSystem::Rpm).unwrap(),
            "dnf install 'MariaDB-backup-10.11.*' 'MariaDB-server-10.11.*'"
        );
        let either = needs.commands(PackageSystem::Other).unwrap();
        assert!(either.contains("apt-get install") && either.contains("dnf install"), "{either}");
        assert!(needs.hint(PackageSystem::Debian).unwrap().contains("'mariadb-server=1:10.11.*'; where"));
        assert_eq!(needs.lacking[0].to_string(), "mariadb-backup is not installed");
    }

    #[test]
    fn only_what_is_missing_or_of_another_series_is_named() {
        let older = needs(Some("10.11.2-MariaDB"), Some("11.8.6-MariaDB-log"));
        assert_eq!(older.packages().unwrap(), "mariadb-server of MariaDB 10.11, 10.11.19 or later");
        assert_eq!(older.lacks(Program::Server).unwrap().to_string(), "mariadbd is of version 11.8.6-MariaDB-log");
        assert_eq!(older.lacks(Program::Backup), None);
        let other_tool = needs(Some("10.6.21-MariaDB"), Some("10.11.19-MariaDB"));
        let only = other_tool.commands(PackageSystem::Debian).unwrap();
        assert_eq!(only, "apt-get install 'mariadb-backup=1:10.11.*'");
        let all = needs(Some("10.11.20-MariaDB"), Some("10.11.1-MariaDB"));
        assert_eq!(
            (all.packages(), all.commands(PackageSystem::Other), all.hint(PackageSystem::Rpm)),
            (None, None, None)
        );
    }

    #[test]
    fn distributions_are_known_by_themselves_and_by_what_they_are_like() {
        for (text, expected) in [
            ("PRETTY_NAME=\"Debian GNU/Linux 12\"\nID=debian\n", PackageSystem::Debian),
            ("ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n", PackageSystem::Debian),
            ("ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n", PackageSystem::Rpm),
            ("NAME=Fedora\nID='fedora'\n", PackageSystem::Rpm),
            ("ID=alpine\nVARIANT_ID=debian\n", PackageSystem::Other),
            ("", PackageSystem::Other),
            ("ID", PackageSystem::Other),
        ] {
            assert_eq!(PackageSystem::of(text), expected, "{text}");
        }
    }
}
