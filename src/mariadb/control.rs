//! The small text files of a backup: checkpoints, info, binlog position and `backup-my.cnf`.
//!
//! MariaDB 10.x names them `xtrabackup_*`, 11.x `mariadb_backup_*`; what stands in them is the same. Info files hold the
//! tool's command line and `backup-my.cnf` the settings of encryption plugins, keys among them: neither is kept in a value that
//! can be printed.
//!
//! Source: MariaDB `extra/mariabackup/xtrabackup.cc` (`xtrabackup_read_metadata`, `xtrabackup_print_metadata`),
//! `backup_mysql.cc` (`write_xtrabackup_info`, `write_binlog_info`, `write_backup_config_file`).

use std::{collections::BTreeMap, fmt, str::FromStr};

use crate::{
    error::{Diagnose, Kind},
    model::{Lsn, PageSize},
};

/// Longest file accepted: they are a few hundred bytes, `tool_command` a few thousand.
pub const CONTROL_BYTES_MAX: usize = 1 << 20;

/// A control file that does not say what it must.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// It is no text, or far too long.
    #[error("{file} of {bytes} bytes is not a text of at most {CONTROL_BYTES_MAX} bytes")]
    NotText {
        /// Which file.
        file: &'static str,
        /// Its length.
        bytes: usize,
    },
    /// A line is missing.
    #[error("{file} has no {key}")]
    Missing {
        /// Which file.
        file: &'static str,
        /// The line's key.
        key: &'static str,
    },
    /// A value is not what it should be.
    #[error("{file} has {key} = {found:?}, expected {expected}")]
    Value {
        /// Which file.
        file: &'static str,
        /// The line's key.
        key: &'static str,
        /// What stands there.
        found: String,
        /// What should.
        expected: &'static str,
    },
}

impl Diagnose for ControlError {
    fn kind(&self) -> Kind {
        Kind::Corrupt
    }
}

/// Name of the file with the LSNs, in MariaDB 10.x and 11.x.
pub const CHECKPOINTS_NAMES: [&str; 2] = ["xtrabackup_checkpoints", "mariadb_backup_checkpoints"];
/// Name of the file that says what was backed up, in MariaDB 10.x and 11.x; the tool writes it last.
pub const INFO_NAMES: [&str; 2] = ["xtrabackup_info", "mariadb_backup_info"];
/// Name of the file with the binlog position, in MariaDB 10.x and 11.x; it is missing where there is no binlog.
pub const BINLOG_INFO_NAMES: [&str; 2] = ["xtrabackup_binlog_info", "mariadb_backup_binlog_info"];
/// Name of the file with the settings that prepare needs.
pub const CONFIG_NAME: &str = "backup-my.cnf";

const CHECKPOINTS: &str = "checkpoints file";
const INFO: &str = "info file";
const BINLOG_INFO: &str = "binlog info file";

/// What a checkpoints file calls a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackupType {
    /// `full-backuped`.
    Full,
    /// `incremental`.
    Incremental,
    /// `log-applied`: prepared.
    Prepared,
}

impl BackupType {
    const fn text(self) -> &'static str {
        match self {
            BackupType::Full => "full-backuped",
            BackupType::Incremental => "incremental",
            BackupType::Prepared => "log-applied",
        }
    }
}

/// The checkpoints file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checkpoints {
    /// Full, incremental or prepared.
    pub backup_type: BackupType,
    /// `--incremental-lsn`, or 0.
    pub from_lsn: Lsn,
    /// The server's newest checkpoint when the backup ended; not the backup's start checkpoint, which the redo log has.
    pub to_lsn: Lsn,
    /// End of the redo log copied.
    pub last_lsn: Lsn,
    /// Whether prepare writes a binlog position, where the file says it.
    pub recover_binlog_info: Option<bool>,
}

impl Checkpoints {
    /// Parses the file.
    ///
    /// # Errors
    /// [`ControlError`] if a line is missing or its value impossible.
    pub fn parse(bytes: &[u8]) -> Result<Checkpoints, ControlError> {
        let lines = Lines::parse(CHECKPOINTS, bytes)?;
        let backup_type = [BackupType::Full, BackupType::Incremental, BackupType::Prepared];
        let found = lines.get("backup_type")?;
        let backup_type = backup_type
            .into_iter()
            .find(|kind| kind.text() == found)
            .ok_or_else(|| lines.fault("backup_type", found, "full-backuped, incremental or log-applied"))?;
        Ok(Checkpoints {
            backup_type,
            from_lsn: lines.lsn("from_lsn")?,
            to_lsn: lines.lsn("to_lsn")?,
            last_lsn: lines.lsn("last_lsn")?,
            recover_binlog_info: match lines.find("recover_binlog_info") {
                None => None,
                Some("0") => Some(false),
                Some("1") => Some(true),
                Some(found) => return Err(lines.fault("recover_binlog_info", found, "0 or 1")),
            },
        })
    }

    /// What a restored directory, whose pages are all there, must say so that prepare takes it for a full backup.
    pub fn restored(self) -> Checkpoints {
        Checkpoints { backup_type: BackupType::Full, from_lsn: Lsn(0), ..self }
    }

    /// The text of the file. The tool reads its lines in this order.
    pub fn to_text(&self) -> String {
        let binlog = self
            .recover_binlog_info
            .map_or(String::new(), |recover| format!("recover_binlog_info = {}\n", u8::from(recover)));
        format!(
            "backup_type = {}\nfrom_lsn = {}\nto_lsn = {}\nlast_lsn = {}\n{binlog}",
            self.backup_type.text(),
            self.from_lsn,
            self.to_lsn,
            self.last_lsn
        )
    }
}

/// A place in the server's binlog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BinlogPosition {
    /// Name of the file.
    pub file: String,
    /// Offset in it.
    pub position: u64,
    /// GTID of the last change, where the server has GTIDs: `0-3-2189`, or several with commas.
    pub gtid: Option<String>,
}

impl BinlogPosition {
    /// Parses the binlog info file: file, position and GTID with tabs between them.
    ///
    /// # Errors
    /// [`ControlError`] if the file is not of this form.
    pub fn parse(bytes: &[u8]) -> Result<BinlogPosition, ControlError> {
        let text = text(BINLOG_INFO, bytes)?;
        let mut fields = text.trim_end_matches(['\n', '\r']).splitn(3, '\t');
        let fault = || ControlError::Value {
            file: BINLOG_INFO,
            key: "its line",
            found: text.to_owned(),
            expected: "file, position and GTID with tabs between them",
        };
        let file = fields.next().filter(|file| !file.is_empty()).ok_or_else(fault)?;
        let position = fields.next().and_then(number).ok_or_else(fault)?;
        let gtid = fields.next().map(str::trim).filter(|gtid| !gtid.is_empty());
        Ok(BinlogPosition { file: file.to_owned(), position, gtid: gtid.map(str::to_owned) })
    }

    /// Parses what stands in the info file: `filename 'x', position 'y', GTID of the last change 'z'`.
    fn from_info(text: &str) -> Option<BinlogPosition> {
        let (file, rest) = text.strip_prefix("filename '")?.split_once("', position '")?;
        let (position, rest) = rest.split_once('\'')?;
        let gtid = match rest {
            "" => None,
            rest => Some(rest.strip_prefix(", GTID of the last change '")?.strip_suffix('\'')?),
        };
        let gtid = gtid.filter(|gtid| !gtid.is_empty()).map(str::to_owned);
        Some(BinlogPosition { file: file.to_owned(), position: number(position)?, gtid })
    }
}

/// The info file, without the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupInfo {
    /// Name that the tool gave the backup.
    pub uuid: String,
    /// Version of the tool, such as `10.11.19-MariaDB`.
    pub tool_version: String,
    /// Version of the server.
    pub server_version: String,
    /// Start, in the local time of the tool: `2026-11-22 17:35:19`.
    pub start_time: String,
    /// End, in the local time of the tool.
    pub end_time: String,
    /// Binlog position, where there is a binlog.
    pub binlog: Option<BinlogPosition>,
    /// `--incremental-lsn`, or 0.
    pub from_lsn: Lsn,
    /// As in the checkpoints file.
    pub to_lsn: Lsn,
    /// True when databases or tables were left out.
    pub partial: bool,
    /// True for an incremental.
    pub incremental: bool,
    /// True when the tool compressed the files.
    pub compressed: bool,
}

impl BackupInfo {
    /// Parses the file.
    ///
    /// # Errors
    /// [`ControlError`] if a line is missing or its value impossible.
    pub fn parse(bytes: &[u8]) -> Result<BackupInfo, ControlError> {
        let lines = Lines::parse(INFO, bytes)?;
        let owned = |key| lines.get(key).map(str::to_owned);
        let binlog = match lines.get("binlog_pos")? {
            "" => None,
            found => Some(BinlogPosition::from_info(found).ok_or_else(|| {
                lines.fault("binlog_pos", found, "filename '…', position '…', GTID of the last change '…'")
            })?),
        };
        Ok(BackupInfo {
            uuid: owned("uuid")?,
            tool_version: owned("tool_version")?,
            server_version: owned("server_version")?,
            start_time: owned("start_time")?,
            end_time: owned("end_time")?,
            binlog,
            from_lsn: lines.lsn("innodb_from_lsn")?,
            to_lsn: lines.lsn("innodb_to_lsn")?,
            partial: lines.flag("partial")?,
            incremental: lines.flag("incremental")?,
            compressed: !matches!(lines.get("compressed")?, "N" | "0"),
        })
    }
}

/// `backup-my.cnf`. Its values can be secrets, so that it prints its keys only.
#[derive(Clone, PartialEq, Eq)]
pub struct BackupConfig {
    values: BTreeMap<String, String>,
}

impl fmt::Debug for BackupConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.values.keys()).finish()
    }
}

impl BackupConfig {
    /// Parses the `[mysqld]` section: `key=value` lines, `#` and `;` for comments; the last of equal keys counts.
    ///
    /// # Errors
    /// [`ControlError::NotText`] only.
    pub fn parse(bytes: &[u8]) -> Result<BackupConfig, ControlError> {
        let mut values = BTreeMap::new();
        let mut ours = false;
        for line in text(CONFIG_NAME, bytes)?.lines().map(str::trim) {
            if let Some(section) = line.strip_prefix('[') {
                ours = section.trim_end_matches(']').trim() == "mysqld";
            } else if ours && !line.is_empty() && !line.starts_with(['#', ';']) {
                let (key, value) = line.split_once('=').unwrap_or((line, ""));
                // Options are the same with dashes and with underscores.
                values.insert(key.trim().replace('-', "_"), unquoted(value.trim()).to_owned());
            }
        }
        Ok(BackupConfig { values })
    }

    /// Value of a key, which is written with underscores.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(String::as_str)
    }

    /// `innodb_page_size`.
    ///
    /// # Errors
    /// [`ControlError`] if it is missing or no page size.
    pub fn page_size(&self) -> Result<PageSize, ControlError> {
        let key = "innodb_page_size";
        let found = self.needed(key)?;
        let size = found.parse().ok().and_then(PageSize::new).filter(|size| size.bytes() >= 4096);
        size.ok_or_else(|| fault(CONFIG_NAME, key, found, "a page size in bytes"))
    }

    /// `innodb_data_file_path`: the files of the system tablespace.
    ///
    /// # Errors
    /// [`ControlError`] if it is missing or cannot be understood.
    pub fn data_files(&self) -> Result<DataFiles, ControlError> {
        self.needed("innodb_data_file_path")?.parse()
    }

    /// `innodb_undo_tablespaces`: how many files `undo001` and on there are.
    ///
    /// # Errors
    /// [`ControlError`] if it is missing or no number.
    pub fn undo_tablespaces(&self) -> Result<u32, ControlError> {
        let key = "innodb_undo_tablespaces";
        let found = self.needed(key)?;
        found.parse().map_err(|_| fault(CONFIG_NAME, key, found, "a number"))
    }

    fn needed(&self, key: &'static str) -> Result<&str, ControlError> {
        self.get(key).ok_or(ControlError::Missing { file: CONFIG_NAME, key })
    }
}

/// A file of the system tablespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataFile {
    /// Name, or path where the server has it elsewhere.
    pub name: String,
    /// Size in bytes; of the last file the smallest.
    pub bytes: u64,
}

/// The files of the system tablespace, whose pages count on from each other. Only the last one grows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataFiles {
    /// The files in their order, at least one.
    pub files: Vec<DataFile>,
    /// True when the last one grows.
    pub autoextend: bool,
}

impl FromStr for DataFiles {
    type Err = ControlError;

    /// Parses `ibdata1:12M;ibdata2:12M:autoextend:max:1G`; raw devices are refused.
    fn from_str(text: &str) -> Result<DataFiles, ControlError> {
        let expected = "files as in ibdata1:12M;ibdata2:12M:autoextend";
        let refused = || fault(CONFIG_NAME, "innodb_data_file_path", text, expected);
        let mut files = Vec::new();
        let mut autoextend = false;
        for item in text.split(';') {
            // Nothing follows a file that grows.
            if autoextend {
                return Err(refused());
            }
            let mut fields = item.split(':').map(str::trim);
            let name = fields.next().filter(|name| !name.is_empty()).ok_or_else(refused)?;
            let bytes = fields.next().and_then(size).ok_or_else(refused)?;
            match (fields.next(), fields.next(), fields.next().map(size), fields.next()) {
                (None, ..) => {}
                (Some("autoextend"), None, ..) | (Some("autoextend"), Some("max"), Some(Some(_)), None) => {
                    autoextend = true
                }
                _ => return Err(refused()),
            }
            files.push(DataFile { name: name.to_owned(), bytes });
        }
        Ok(DataFiles { files, autoextend })
    }
}

/// A size with the suffixes K, M, G, or in bytes.
fn size(text: &str) -> Option<u64> {
    let (digits, factor) = match text.chars().last()?.to_ascii_uppercase() {
        'K' => (&text[..text.len() - 1], 1 << 10),
        'M' => (&text[..text.len() - 1], 1 << 20),
        'G' => (&text[..text.len() - 1], 1 << 30),
        _ => (text, 1),
    };
    number(digits)?.checked_mul(factor)
}

/// A decimal number without sign.
fn number(text: &str) -> Option<u64> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

fn unquoted(value: &str) -> &str {
    let inner = |quote| value.strip_prefix(quote).and_then(|value| value.strip_suffix(quote));
    inner('"').or_else(|| inner('\'')).unwrap_or(value)
}

fn text<'a>(file: &'static str, bytes: &'a [u8]) -> Result<&'a str, ControlError> {
    let text = std::str::from_utf8(bytes).ok().filter(|text| text.len() <= CONTROL_BYTES_MAX);
    text.ok_or(ControlError::NotText { file, bytes: bytes.len() })
}

fn fault(file: &'static str, key: &'static str, found: &str, expected: &'static str) -> ControlError {
    ControlError::Value { file, key, found: found.to_owned(), expected }
}

/// Lines `key = value`; the first of equal keys counts.
struct Lines<'a> {
    file: &'static str,
    values: BTreeMap<&'a str, &'a str>,
}

impl<'a> Lines<'a> {
    fn parse(file: &'static str, bytes: &'a [u8]) -> Result<Lines<'a>, ControlError> {
        let mut values = BTreeMap::new();
        for (key, value) in text(file, bytes)?.lines().filter_map(|line| line.split_once('=')) {
            values.entry(key.trim()).or_insert(value.trim());
        }
        Ok(Lines { file, values })
    }

    fn find(&self, key: &str) -> Option<&'a str> {
        self.values.get(key).copied()
    }

    fn get(&self, key: &'static str) -> Result<&'a str, ControlError> {
        self.find(key).ok_or(ControlError::Missing { file: self.file, key })
    }

    fn lsn(&self, key: &'static str) -> Result<Lsn, ControlError> {
        let found = self.get(key)?;
        number(found).map(Lsn).ok_or_else(|| self.fault(key, found, "an LSN"))
    }

    fn flag(&self, key: &'static str) -> Result<bool, ControlError> {
        match self.get(key)? {
            "Y" => Ok(true),
            "N" => Ok(false),
            found => Err(self.fault(key, found, "Y or N")),
        }
    }

    fn fault(&self, key: &'static str, found: &str, expected: &'static str) -> ControlError {
        fault(self.file, key, found, expected)
    }
}

#[cfg(test)]
#[path = "control_tests.rs"]
mod tests;
