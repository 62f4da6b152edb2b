//! The small text files of a backup.

use haulout::mariadb::{
    control::{BackupConfig, BackupInfo, BinlogPosition, Checkpoints},
    delta::DeltaMeta,
    galera::GaleraState,
    packages::PackageSystem,
};

/// Reads the bytes as each of the files.
pub fn check(input: &[u8]) {
    if let Ok(checkpoints) = Checkpoints::parse(input) {
        for checkpoints in [checkpoints, checkpoints.restored()] {
            assert_eq!(Checkpoints::parse(checkpoints.to_text().as_bytes()), Ok(checkpoints));
        }
    }
    if let Ok(meta) = DeltaMeta::parse(input) {
        assert_eq!(DeltaMeta::parse(meta.to_text().as_bytes()), Ok(meta));
    }
    if let Ok(position) = BinlogPosition::parse(input) {
        assert!(!position.file.is_empty() && position.gtid.is_none_or(|gtid| !gtid.is_empty()));
    }
    let text = String::from_utf8_lossy(input);
    if let Some(state) = GaleraState::parse(&text) {
        assert_eq!(GaleraState::parse(&format!("{}:{}", state.uuid, state.seqno)), Some(state));
    }
    let _ = PackageSystem::of(&text);
    let _ = BackupInfo::parse(input);
    if let Ok(config) = BackupConfig::parse(input) {
        let _ = (config.page_size(), config.undo_tablespaces());
        if let Ok(data_files) = config.data_files() {
            assert!(!data_files.files.is_empty());
            let _ = data_files.files.iter().fold(0, |sum: u128, file| sum + u128::from(file.bytes));
        }
    }
}
