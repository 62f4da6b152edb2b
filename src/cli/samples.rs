//! Invented backups for tests.

use std::collections::BTreeMap;

use crate::{
    format::{BackupKind, GtidPosition, LsnRange, Manifest, RedoFormat, Server, Sizes, StoredBlock, Timeline},
    model::{ChunkId, Lsn, PackId, RepositoryId, Timestamp},
};

/// A full backup of day `day` of November 2026.
pub fn manifest(day: u32) -> Manifest {
    let start = Lsn(139_843_486 + u64::from(day) * 1_200_000_000);
    let moment = |time: &str| Timestamp(format!("2026-11-{day:02}T{time}Z").parse().unwrap());
    Manifest {
        repository_id: RepositoryId([0x5a; 16]),
        id: format!("202611{day:02}T020000Z-3f9a{day:02x}").parse().unwrap(),
        edition: 0,
        kind: BackupKind::Full,
        reason: "a full backup was asked for".to_owned(),
        tags: Vec::new(),
        parent: None,
        depth: 0,
        started: moment("02:00:00"),
        finished: moment("02:12:04"),
        haulout_version: "0.1.0".to_owned(),
        tool_version: "10.11.19-MariaDB".to_owned(),
        server: Server {
            version: "10.11.19-MariaDB-log".to_owned(),
            hostname: "db1.example.com".to_owned(),
            server_id: 1,
            datadir: "/var/lib/mysql/".to_owned(),
            page_size: 16384,
            data_file_path: "ibdata1:12M:autoextend".to_owned(),
            undo_tablespaces: 0,
            system_file: None,
            datadir_mode: Some(0o755),
            directory_mode: Some(0o700),
            directory_modes: BTreeMap::new(),
            galera: Some(false),
        },
        lsn: LsnRange { from: Lsn(0), start, to: Lsn(start.0 + 30_000_000), last: Lsn(start.0 + 40_706_699) },
        redo: RedoFormat { creator: "Backup 10.11.19-MariaDB".to_owned(), encrypted: false, bytes: 40_706_699 },
        position: GtidPosition {
            file: Some("mysql-bin.000042".to_owned()),
            position: Some(1_234_567),
            gtid: Some(format!("0-1-{}", 8_000_000 + day)),
        },
        timeline: Timeline::default(),
        filters: Vec::new(),
        sizes: Sizes {
            logical_bytes: 120 << 30,
            stream_bytes: 118 << 30,
            uploaded_bytes: 33_500_000_000,
            stored_bytes: 33_500_000_000,
            uploaded_packs: 1998,
        },
        spaces: 812,
        files: 1650,
        warnings: Vec::new(),
        locked_until: None,
        map: StoredBlock {
            chunk: ChunkId([0xc4; 32]),
            raw_bytes: 5000,
            pack: PackId([0xba; 32]),
            pack_bytes: 900_000,
            offset: 16,
            stored_bytes: 3000,
            encoding: "zstd".to_owned(),
        },
    }
}

/// An incremental of day `day` on `parent`.
pub fn incremental(day: u32, parent: &Manifest) -> Manifest {
    let mut manifest = manifest(day);
    manifest.kind = BackupKind::Incremental;
    manifest.reason = "the last backup is a safe parent".to_owned();
    manifest.parent = Some(parent.id.clone());
    manifest.depth = parent.depth + 1;
    manifest.finished = Timestamp(format!("2026-11-{day:02}T02:01:09Z").parse().unwrap());
    manifest.lsn.from = Lsn(parent.lsn.start.0 - 1);
    manifest.sizes.stream_bytes = 2_100_000_000;
    manifest.sizes.uploaded_bytes = 640_000_000;
    manifest.sizes.uploaded_packs = 39;
    manifest.sizes.stored_bytes += 640_000_000;
    manifest
}
