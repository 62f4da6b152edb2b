//! stub
use crate::model::*;
use std::collections::HashMap;
#[derive(Debug)]
pub struct Checkpoints {
    pub from_lsn: Lsn,
    pub to_lsn: Lsn,
    pub last_lsn: Lsn,
}
#[derive(Debug, thiserror::Error)]
#[error("x")]
pub struct ControlError;
fn kv(b: &[u8]) -> HashMap<String, String> {
    String::from_utf8_lossy(b)
        .lines()
        .filter_map(|l| l.split_once('='))
        .map(|(a, b)| (a.trim().to_owned(), b.trim().to_owned()))
        .collect()
}
impl Checkpoints {
    pub fn parse(b: &[u8]) -> Result<Self, ControlError> {
        let m = kv(b);
        let g = |k: &str| m.get(k).and_then(|v| v.parse().ok()).map(Lsn).ok_or(ControlError);
        Ok(Checkpoints { from_lsn: g("from_lsn")?, to_lsn: g("to_lsn")?, last_lsn: g("last_lsn")? })
    }
}
#[derive(Debug)]
pub struct BackupInfo {
    pub partial: bool,
    pub compressed: bool,
    pub binlog_file: Option<String>,
    pub binlog_position: Option<u64>,
    pub gtid: Option<String>,
}
impl BackupInfo {
    pub fn parse(b: &[u8]) -> Result<Self, ControlError> {
        let m = kv(b);
        Ok(BackupInfo {
            partial: m.get("partial").is_some_and(|v| v != "N"),
            compressed: m.get("compressed").is_some_and(|v| v != "N"),
            binlog_file: None,
            binlog_position: None,
            gtid: None,
        })
    }
}
