//! The checkpoints file, by which `mariadb-backup --prepare` takes a directory for a full backup.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use super::RestoreError;
use crate::format::Manifest;
use crate::mariadb::control::{BackupType, CHECKPOINTS_NAMES, CONTROL_BYTES_MAX, Checkpoints};
use crate::mariadb::tool::ServerVersion;

/// Writes the checkpoints file of a fetched directory, in place of the one that the backup has.
///
/// The backup may be an incremental; its files are those of a full one, in which nothing is left out. Of two names each
/// tool writes one; since 11.1, when the new one came, it reads both, the new one first (MariaDB `xtrabackup.cc`,
/// `xtrabackup_read_metadata`).
pub(super) fn write(directory: &Path, manifest: &Manifest, server: &ServerVersion) -> Result<(), RestoreError> {
    let [old, new] = CHECKPOINTS_NAMES;
    let mut name = if server.series() >= (11, 1) { new } else { old };
    let mut recover_binlog_info = Some(false);
    for present in CHECKPOINTS_NAMES {
        let path = directory.join(present);
        if let Some(bytes) = read(&path).map_err(RestoreError::io("read", &path))? {
            recover_binlog_info = Checkpoints::parse(&bytes)?.recover_binlog_info;
            name = present;
            fs::remove_file(&path).map_err(RestoreError::io("remove", &path))?;
        }
    }
    let checkpoints = Checkpoints {
        backup_type: BackupType::Full,
        from_lsn: crate::model::Lsn(0),
        to_lsn: manifest.lsn.to,
        last_lsn: manifest.lsn.last,
        recover_binlog_info,
    };
    let path = directory.join(name);
    fs::write(&path, checkpoints.to_text()).map_err(RestoreError::io("write", path))
}

/// True when the stock tool has prepared the directory: it says so in the checkpoints file.
pub(super) fn says_prepared(directory: &Path) -> bool {
    let [old, new] = CHECKPOINTS_NAMES;
    let bytes = [new, old].iter().find_map(|name| read(&directory.join(name)).ok().flatten());
    let checkpoints = bytes.and_then(|bytes| Checkpoints::parse(&bytes).ok());
    checkpoints.is_some_and(|checkpoints| checkpoints.backup_type == BackupType::Prepared)
}

fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let mut bytes = Vec::new();
    file.take(CONTROL_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}
