//! The manifest, whose arrival in the store is the backup.

use serde::{Deserialize, Serialize};

use super::map::{BlockRef, FileIdentity, Location, MapTotals, PackRef};
use super::{Document, Encoding, FormatError};
use crate::model::{BackupId, ChunkId, Lsn, PackId, PageNo, RepositoryId, SpaceId, Timestamp};

/// How a backup was captured; both kinds restore alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BackupKind {
    /// All pages were read.
    Full,
    /// Pages newer than the parent were read.
    Incremental,
}

impl BackupKind {
    /// The word in manifests and in output.
    pub const fn name(self) -> &'static str {
        match self {
            BackupKind::Full => "full",
            BackupKind::Incremental => "incremental",
        }
    }
}

/// The LSNs of one backup; they are those of `xtrabackup_checkpoints`, and the start checkpoint which that file lacks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LsnRange {
    /// Pages at or below this LSN were left out; 0 for a full backup.
    pub from: Lsn,
    /// Start checkpoint C: where the backup's redo log begins.
    pub start: Lsn,
    /// Newest checkpoint at the end of the backup.
    pub to: Lsn,
    /// Where the backup's redo log ends: the state that a restore yields.
    pub last: Lsn,
}

/// Format of the redo log that a backup holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RedoFormat {
    /// `creator` text of the log's header, such as `Backup 10.11.19-MariaDB`.
    pub creator: String,
    /// True when the log's contents are encrypted by the server.
    pub encrypted: bool,
    /// Bytes of log from the start checkpoint to the last LSN.
    pub bytes: u64,
}

/// The server as it was when the backup began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    /// `@@version`.
    pub version: String,
    /// `@@hostname`.
    pub hostname: String,
    /// `@@server_id`.
    pub server_id: u32,
    /// `@@datadir`.
    pub datadir: String,
    /// `@@innodb_page_size`, bytes.
    pub page_size: u32,
    /// `@@innodb_data_file_path`.
    pub data_file_path: String,
    /// `@@innodb_undo_tablespaces`.
    pub undo_tablespaces: u32,
    /// Identity of the first file of the system tablespace.
    pub system_file: Option<SystemFile>,
    /// Permission bits of the datadir.
    pub datadir_mode: Option<u32>,
    /// Permission bits that most directories in the datadir have.
    pub directory_mode: Option<u32>,
    /// Permission bits of directories in the datadir that differ from it, by their path in the datadir.
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub directory_modes: std::collections::BTreeMap<String, u32>,
    /// Whether it was a node of a Galera cluster (`@@wsrep_on`); none where nobody wrote it down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub galera: Option<bool>,
}

/// [`FileIdentity`] of the system tablespace, as JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SystemFile {
    /// Inode number.
    pub inode: u64,
    /// Birth time in nanoseconds since 1970, where the file system keeps it.
    pub born_ns: Option<i64>,
}

impl From<FileIdentity> for SystemFile {
    fn from(identity: FileIdentity) -> SystemFile {
        SystemFile { inode: identity.inode, born_ns: identity.born_ns }
    }
}

/// A page by which the next run knows that the server is still on the backup's timeline.
///
/// In JSON a list: space id, page number, LSN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(SpaceId, PageNo, Lsn)", into = "(SpaceId, PageNo, Lsn)")]
pub struct Witness {
    /// The tablespace; of the system tablespace its first file.
    pub space: SpaceId,
    /// The page.
    pub page: PageNo,
    /// LSN that it has in the backup.
    pub lsn: Lsn,
}

impl From<(SpaceId, PageNo, Lsn)> for Witness {
    fn from((space, page, lsn): (SpaceId, PageNo, Lsn)) -> Witness {
        Witness { space, page, lsn }
    }
}

impl From<Witness> for (SpaceId, PageNo, Lsn) {
    fn from(witness: Witness) -> (SpaceId, PageNo, Lsn) {
        (witness.space, witness.page, witness.lsn)
    }
}

/// What a later run needs to see that the server's files were not taken back to an older state meanwhile.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timeline {
    /// Identity of the binlog that `position.file` names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binlog: Option<SystemFile>,
    /// Newest pages, the newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub witnesses: Vec<Witness>,
}

impl Timeline {
    fn is_empty(&self) -> bool {
        *self == Timeline::default()
    }
}

/// Where the server's binary log and GTIDs stood at the backup's last LSN.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GtidPosition {
    /// Binary log file.
    pub file: Option<String>,
    /// Position in it.
    pub position: Option<u64>,
    /// GTID position of the server.
    pub gtid: Option<String>,
}

/// Bytes, as `list` shows them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sizes {
    /// Bytes of all files once restored.
    pub logical_bytes: u64,
    /// Bytes that the backup tool's stream had.
    pub stream_bytes: u64,
    /// Bytes put into the store for this backup, its manifest left out.
    pub uploaded_bytes: u64,
    /// Bytes in packs of all chunks that the backup needs, its parents' included.
    pub stored_bytes: u64,
    /// Packs put into the store for this backup.
    pub uploaded_packs: u64,
}

/// [`BlockRef`] as JSON: where the root of the page map lies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredBlock {
    /// Name of the block.
    pub chunk: ChunkId,
    /// Length before compression.
    pub raw_bytes: u32,
    /// The pack that holds it.
    pub pack: PackId,
    /// Size of the pack.
    pub pack_bytes: u32,
    /// First byte in the pack.
    pub offset: u32,
    /// Number of bytes in the pack.
    pub stored_bytes: u32,
    /// `raw` or `zstd`.
    pub encoding: String,
}

impl From<BlockRef> for StoredBlock {
    fn from(block: BlockRef) -> StoredBlock {
        StoredBlock {
            chunk: block.id,
            raw_bytes: block.raw_bytes,
            pack: block.at.pack.id,
            pack_bytes: block.at.pack.bytes,
            offset: block.at.offset,
            stored_bytes: block.at.stored_bytes,
            encoding: match block.at.encoding {
                Encoding::Raw => "raw".to_owned(),
                Encoding::Zstd => "zstd".to_owned(),
            },
        }
    }
}

impl TryFrom<&StoredBlock> for BlockRef {
    type Error = FormatError;

    fn try_from(block: &StoredBlock) -> Result<BlockRef, FormatError> {
        let fault = |problem: String| FormatError::Document { what: "page map's root".to_owned(), problem };
        let encoding = match block.encoding.as_str() {
            "raw" => Encoding::Raw,
            "zstd" => Encoding::Zstd,
            other => return Err(fault(format!("encoding {other:?}"))),
        };
        if u64::from(block.offset) + u64::from(block.stored_bytes) > u64::from(block.pack_bytes) {
            return Err(fault(format!("it lies outside its pack {}", block.pack)));
        }
        if block.raw_bytes > super::map::BLOCK_BYTES_MAX {
            return Err(fault(format!("{} bytes", block.raw_bytes)));
        }
        let pack = PackRef { id: block.pack, bytes: block.pack_bytes };
        if !pack.has_possible_size() {
            return Err(fault(format!("its pack {} has {} bytes", pack.id, pack.bytes)));
        }
        let at = Location { pack, offset: block.offset, stored_bytes: block.stored_bytes, encoding };
        Ok(BlockRef { id: block.chunk, raw_bytes: block.raw_bytes, at })
    }
}

/// One backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The repository that it belongs to.
    pub repository_id: RepositoryId,
    /// Its name, also in its key.
    pub id: BackupId,
    /// Which edition of the manifest this is, also in its key: 0 for the one that the backup wrote, later ones come from compactions.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub edition: u32,
    /// How it was captured.
    pub kind: BackupKind,
    /// Why it is of this kind.
    pub reason: String,
    /// Words that the operator gave it, by which retention can keep it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// The backup that an incremental reaches back to; the backup that a full was deduplicated against is not one.
    pub parent: Option<BackupId>,
    /// Number of incrementals since the full: 0 for a full.
    pub depth: u32,
    /// When the capture began.
    pub started: Timestamp,
    /// When everything but this document was stored.
    pub finished: Timestamp,
    /// Version of haulout.
    pub haulout_version: String,
    /// Version that `mariadb-backup` gives itself.
    pub tool_version: String,
    /// The server.
    pub server: Server,
    /// LSNs.
    pub lsn: LsnRange,
    /// The redo log.
    pub redo: RedoFormat,
    /// Binary log and GTID.
    pub position: GtidPosition,
    /// What a later run compares the server with.
    #[serde(default, skip_serializing_if = "Timeline::is_empty")]
    pub timeline: Timeline,
    /// Options of the capture that choose what is backed up, which must be the same along a lineage.
    pub filters: Vec<String>,
    /// Bytes.
    pub sizes: Sizes,
    /// InnoDB files and other files.
    pub spaces: u64,
    /// Other files.
    pub files: u64,
    /// Sentences that the backup tool or haulout wants people to read.
    pub warnings: Vec<String>,
    /// Until when everything that it needs was locked, at least, when it was committed; absent where that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locked_until: Option<Timestamp>,
    /// Root of the page map.
    pub map: StoredBlock,
}

/// No key has room for a greater number of an edition.
pub const EDITION_MAX: u32 = 999_999;

fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl Document for Manifest {
    const WORD: &'static str = "backup";
}

impl Manifest {
    /// Sums of the map as the manifest repeats them.
    pub fn totals(&self) -> MapTotals {
        MapTotals {
            spaces: self.spaces,
            files: self.files,
            logical_bytes: self.sizes.logical_bytes,
            stored_bytes: self.sizes.stored_bytes,
        }
    }

    /// Checks what must hold of every manifest, and of one with this `parent`.
    ///
    /// # Errors
    /// Names the first invariant that does not hold.
    pub fn check(&self, parent: Option<&Manifest>) -> Result<(), FormatError> {
        let fault = |problem: String| Err(FormatError::Document { what: format!("backup {}", self.id), problem });
        let LsnRange { from, start, to, last } = self.lsn;
        if !(start <= to && to <= last) {
            return fault(format!("LSNs out of order: start {start}, to {to}, last {last}"));
        }
        if self.started > self.finished {
            return fault(format!("it finished at {} and started at {}", self.finished, self.started));
        }
        match (self.kind, &self.parent) {
            (BackupKind::Full, Some(parent)) => return fault(format!("a full backup names a parent, {parent}")),
            (BackupKind::Incremental, None) => return fault("an incremental names no parent".to_owned()),
            (BackupKind::Full, None) if from != Lsn(0) || self.depth != 0 => {
                return fault(format!("a full backup reaches back to LSN {from} at depth {}", self.depth));
            }
            _ => {}
        }
        let Some(parent) = parent else { return Ok(()) };
        if self.parent.as_ref() != Some(&parent.id) || self.repository_id != parent.repository_id {
            return fault(format!("backup {} is not its parent", parent.id));
        }
        if from >= parent.lsn.start {
            return fault(format!("it reaches back to LSN {from}, its parent starts at {}", parent.lsn.start));
        }
        if start < parent.lsn.start || last < parent.lsn.last {
            return fault(format!(
                "LSNs {start} to {last} went back from its parent's {} to {}",
                parent.lsn.start, parent.lsn.last
            ));
        }
        if parent.depth.checked_add(1) != Some(self.depth) {
            return fault(format!("depth {} after its parent's {}", self.depth, parent.depth));
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::format::{decode_document, encode_document};

    pub(crate) fn full() -> Manifest {
        let moment = |text: &str| Timestamp(text.parse().unwrap());
        Manifest {
            repository_id: RepositoryId([7; 16]),
            id: "20261122T020000Z-aaaaaa".parse().unwrap(),
            edition: 0,
            kind: BackupKind::Full,
            reason: "it is the first".to_owned(),
            tags: vec!["release".to_owned()],
            parent: None,
            depth: 0,
            started: moment("2026-11-22T02:00:00Z"),
            finished: moment("2026-11-22T02:10:00Z"),
            haulout_version: "0.1.0".to_owned(),
            tool_version: "10.11.19-MariaDB".to_owned(),
            server: Server {
                version: "10.11.19-MariaDB".to_owned(),
                hostname: "db1".to_owned(),
                server_id: 1,
                datadir: "/var/lib/mysql/".to_owned(),
                page_size: 16384,
                data_file_path: "ibdata1:12M:autoextend".to_owned(),
                undo_tablespaces: 0,
                system_file: Some(SystemFile { inode: u64::MAX, born_ns: Some(i64::MAX) }),
                datadir_mode: None,
                directory_mode: Some(0o700),
                directory_modes: [("shop".to_owned(), 0o750)].into(),
                galera: Some(true),
            },
            lsn: LsnRange { from: Lsn(0), start: Lsn(1000), to: Lsn(2000), last: Lsn(3000) },
            redo: RedoFormat { creator: "Backup 10.11.19".to_owned(), encrypted: false, bytes: 2000 },
            position: GtidPosition::default(),
            timeline: Timeline {
                binlog: Some(SystemFile { inode: 7, born_ns: None }),
                witnesses: vec![Witness { space: SpaceId(5), page: PageNo(3), lsn: Lsn(2500) }],
            },
            filters: Vec::new(),
            sizes: Sizes::default(),
            spaces: 1,
            files: 1,
            warnings: Vec::new(),
            locked_until: None,
            map: StoredBlock {
                chunk: ChunkId([1; 32]),
                raw_bytes: 300,
                pack: PackId([2; 32]),
                pack_bytes: 1000,
                offset: 48,
                stored_bytes: 200,
                encoding: "zstd".to_owned(),
            },
        }
    }

    fn incremental() -> Manifest {
        Manifest {
            id: "20261123T020000Z-bbbbbb".parse().unwrap(),
            kind: BackupKind::Incremental,
            parent: Some(full().id),
            depth: 1,
            lsn: LsnRange { from: Lsn(999), start: Lsn(2000), to: Lsn(4000), last: Lsn(5000) },
            ..full()
        }
    }

    #[test]
    fn a_manifest_that_says_nothing_of_a_cluster_leaves_that_open() {
        let older = Manifest { server: Server { galera: None, ..full().server }, ..full() };
        let bytes = encode_document(&older).unwrap();
        assert!(!String::from_utf8_lossy(&bytes).contains("galera"));
        assert_eq!(decode_document::<Manifest>("backup", &bytes).unwrap(), older);
    }

    #[test]
    fn a_manifest_round_trips() {
        for manifest in [full(), incremental(), Manifest { edition: 7, ..full() }] {
            let bytes = encode_document(&manifest).unwrap();
            assert_eq!(decode_document::<Manifest>("backup", &bytes).unwrap(), manifest);
        }
    }

    #[test]
    fn a_manifest_that_breaks_its_lineage_is_refused() {
        full().check(None).unwrap();
        incremental().check(None).unwrap();
        incremental().check(Some(&full())).unwrap();
        let lsn = |from, start, to, last| LsnRange { from: Lsn(from), start: Lsn(start), to: Lsn(to), last: Lsn(last) };
        let alone = [
            ("start after to", Manifest { lsn: lsn(0, 2001, 2000, 3000), ..full() }),
            ("to after last", Manifest { lsn: lsn(0, 1000, 3001, 3000), ..full() }),
            ("full with from", Manifest { lsn: lsn(1, 1000, 2000, 3000), ..full() }),
            ("full with a depth", Manifest { depth: 1, ..full() }),
            ("full with a parent", Manifest { parent: Some(full().id), ..full() }),
            ("incremental without a parent", Manifest { parent: None, ..incremental() }),
            ("finished before it started", Manifest { finished: full().started, started: full().finished, ..full() }),
        ];
        for (what, manifest) in alone {
            assert!(manifest.check(None).is_err(), "{what}");
        }
        let with_parent = [
            ("pages of the parent's window left out", Manifest { lsn: lsn(1000, 2000, 4000, 5000), ..incremental() }),
            ("start went back", Manifest { lsn: lsn(998, 999, 4000, 5000), ..incremental() }),
            ("last went back", Manifest { lsn: lsn(999, 1500, 2000, 2999), ..incremental() }),
            ("depth", Manifest { depth: 2, ..incremental() }),
            ("another parent", Manifest { parent: Some(incremental().id), ..incremental() }),
            ("another repository", Manifest { repository_id: RepositoryId([8; 16]), ..incremental() }),
        ];
        for (what, manifest) in with_parent {
            assert!(manifest.check(Some(&full())).is_err(), "{what}");
        }
        let endless = Manifest { depth: u32::MAX, ..full() };
        assert!(Manifest { depth: 0, ..incremental() }.check(Some(&endless)).is_err(), "depth after the last");
    }

    #[test]
    fn a_root_that_cannot_be_is_refused() {
        let root = full().map;
        BlockRef::try_from(&root).unwrap();
        let wrong = [
            ("encoding", StoredBlock { encoding: "lz4".to_owned(), ..root.clone() }),
            ("outside its pack", StoredBlock { offset: 801, ..root.clone() }),
            ("too long", StoredBlock { raw_bytes: (16 << 20) + 1, ..root.clone() }),
            ("pack too large", StoredBlock { pack_bytes: u32::MAX, ..root.clone() }),
        ];
        for (what, root) in wrong {
            assert!(BlockRef::try_from(&root).is_err(), "{what}");
        }
    }
}
