//! The tables of a backup, read off the names of its files.
//!
//! Only the directories of the map are read, and the first bytes of `.frm` files that have no other file beside them: a
//! view is told from a table that lives in memory by them alone.

use std::collections::BTreeMap;

use futures::stream::{self, StreamExt, TryStreamExt};
use serde::Serialize;

use super::walk::{read_files, read_spaces};
use super::{Cancel, RestoreError};
use crate::format::map::{
    Extent, ExtentBlockRef, FileBlockRef, FileMap, FilePiece, FileRecord, FileSource, Location, Piece, SpaceMap,
    SpaceRecord,
};
use crate::format::pack::PackKind;
use crate::format::{Manifest, StoredChunk};
use crate::mariadb::filename;
use crate::repository::{Repository, RepositoryError};

/// Definitions read at the same time.
const DEFINITIONS_AHEAD: usize = 16;
/// What a `.frm` of a view begins with.
const VIEW: &[u8] = b"TYPE=VIEW";
/// Schemas that belong to the server.
const OWN_SCHEMAS: [&str; 4] = ["mysql", "sys", "performance_schema", "information_schema"];

/// What keeps the rows of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Engine {
    /// `.ibd`.
    Innodb,
    /// `.MAI` and `.MAD`.
    Aria,
    /// `.MYI` and `.MYD`.
    Myisam,
    /// `.CSV` and `.CSM`.
    Csv,
    /// `.ARZ`.
    Archive,
    /// `.MRG`.
    Merge,
    /// A `.frm` alone that is a view's.
    View,
    /// A `.frm` alone: rows in memory, on another server or nowhere.
    NoFiles,
    /// The words of FULLTEXT indexes of a table that only InnoDB's dictionary knows.
    FulltextIndex,
}

impl Engine {
    /// As people know it.
    pub const fn name(self) -> &'static str {
        match self {
            Engine::Innodb => "InnoDB",
            Engine::Aria => "Aria",
            Engine::Myisam => "MyISAM",
            Engine::Csv => "CSV",
            Engine::Archive => "ARCHIVE",
            Engine::Merge => "MERGE",
            Engine::View => "view",
            Engine::NoFiles => "no files",
            Engine::FulltextIndex => "fulltext",
        }
    }
}

/// Name of a table: schema and table, as SQL has them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct TableName {
    /// The schema.
    pub schema: String,
    /// The table in it.
    pub table: String,
}

impl std::fmt::Display for TableName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.schema, self.table)
    }
}

impl TableName {
    /// True when the schema is one of the server's own.
    pub fn is_servers(&self) -> bool {
        is_servers(&self.schema)
    }
}

/// A table of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TableEntry {
    /// Its name.
    #[serde(flatten)]
    pub name: TableName,
    /// What keeps its rows.
    pub engine: Engine,
    /// Partitions by name, subpartitions behind a slash; none of a table that has none.
    pub partitions: Vec<String>,
    /// Whether InnoDB's files are encrypted, where that is known.
    pub encrypted: bool,
    /// True when its files lie elsewhere by `DATA DIRECTORY`.
    pub linked: bool,
    /// Files.
    pub files: u64,
    /// Bytes of its files.
    pub logical_bytes: u64,
    /// Bytes that their chunks take in packs.
    pub stored_bytes: u64,
}

/// Sums of files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct FileSums {
    /// How many.
    pub files: u64,
    /// Their bytes.
    pub logical_bytes: u64,
    /// Bytes that their chunks take in packs.
    pub stored_bytes: u64,
}

/// What is inside of a backup.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Catalogue {
    /// Tables by name.
    pub tables: Vec<TableEntry>,
    /// Files that are no table's: system and undo tablespaces, logs, options of schemas.
    pub others: FileSums,
}

/// What the path of a file in the datadir says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FileRole {
    /// The table that the file belongs to.
    pub name: TableName,
    /// Partition, and subpartition behind a slash.
    pub partition: Option<String>,
    /// What the ending tells.
    pub engine: Option<Engine>,
}

/// True for schemas that the server makes itself.
pub(super) fn is_servers(schema: &str) -> bool {
    OWN_SCHEMAS.contains(&schema)
}

/// The schema whose directory the file at `path` lies in.
pub(super) fn schema_of(path: &str) -> Option<String> {
    path.split_once('/').map(|(directory, _)| filename::shown(directory))
}

/// The table whose file lies at `path` in the datadir; nothing for files that are no table's.
pub fn table_of(path: &str) -> Option<TableName> {
    role_of(path).map(|role| role.name)
}

/// Tells what the file at `path` is; nothing for files that are no table's.
pub(super) fn role_of(path: &str) -> Option<FileRole> {
    let (directory, file) = path.split_once('/')?;
    let (stem, ending) = file.rsplit_once('.')?;
    let engine = match ending {
        "ibd" => Some(Engine::Innodb),
        "MAI" | "MAD" => Some(Engine::Aria),
        "MYI" | "MYD" => Some(Engine::Myisam),
        "CSV" | "CSM" => Some(Engine::Csv),
        "ARZ" | "ARM" => Some(Engine::Archive),
        "MRG" => Some(Engine::Merge),
        "frm" | "par" | "isl" | "TRG" => None,
        _ => return None,
    };
    let schema = filename::shown(directory);
    if let (Some(Engine::Innodb), Some(id)) = (engine, fulltext_of(stem)) {
        let name = TableName { schema, table: id.to_owned() };
        return Some(FileRole { name, partition: None, engine: Some(Engine::FulltextIndex) });
    }
    let (table, partition) = split_partition(stem);
    let partition = partition.map(|(partition, sub)| match sub {
        None => filename::shown(partition),
        Some(sub) => format!("{}/{}", filename::shown(partition), filename::shown(sub)),
    });
    Some(FileRole { name: TableName { schema, table: filename::shown(table) }, partition, engine })
}

/// `FTS_` and the number of a table, of the files `FTS_<number>_…` that hold its FULLTEXT indexes (`fts0fts.cc`).
fn fulltext_of(stem: &str) -> Option<&str> {
    let digits = stem.strip_prefix("FTS_")?.get(..16)?;
    let rest = &stem[4 + 16..];
    (digits.bytes().all(|digit| digit.is_ascii_hexdigit()) && rest.starts_with('_')).then(|| &stem[..4 + 16])
}

/// Splits `t#P#p0#SP#s0`; with `lower_case_table_names` the letters between are small ones.
fn split_partition(stem: &str) -> (&str, Option<(&str, Option<&str>)>) {
    let split = |text: &str, marks: [&str; 2]| marks.iter().find_map(|mark| text.find(mark).map(|at| (at, mark.len())));
    let Some((at, length)) = split(stem, ["#P#", "#p#"]) else { return (stem, None) };
    let rest = &stem[at + length..];
    let parts = match split(rest, ["#SP#", "#sp#"]) {
        Some((sub, length)) => (&rest[..sub], Some(&rest[sub + length..])),
        None => (rest, None),
    };
    (&stem[..at], Some(parts))
}

impl Catalogue {
    /// Reads what is inside of a backup.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub async fn read(
        repository: &Repository,
        manifest: &Manifest,
        cancel: &Cancel,
    ) -> Result<Catalogue, RestoreError> {
        cancel.or(Catalogue::gather(repository, manifest)).await
    }

    async fn gather(repository: &Repository, manifest: &Manifest) -> Result<Catalogue, RestoreError> {
        let root = repository.map_root(manifest).await?;
        let mut gathering = Gathering::default();
        for (_, block) in &root.spaces {
            for record in read_spaces(repository, *block).await? {
                gathering.space(&record);
            }
        }
        for (_, block) in &root.files {
            for record in read_files(repository, *block).await? {
                gathering.file(record);
            }
        }
        let Gathering { mut tables, others, definitions } = gathering;
        // Only a definition without any other file needs a look.
        let alone = definitions.into_iter().filter(|(name, _)| tables[name].engine == Engine::NoFiles);
        let alone: Vec<_> = alone.collect();
        let looks = alone.into_iter().map(|(name, piece)| async move {
            let view = begins_with(repository, &piece, VIEW).await?;
            Ok::<_, RestoreError>((name, view))
        });
        let mut looks = stream::iter(looks).buffer_unordered(DEFINITIONS_AHEAD);
        while let Some((name, view)) = looks.try_next().await? {
            if let Some(entry) = tables.get_mut(&name).filter(|_| view) {
                entry.engine = Engine::View;
            }
        }
        drop(looks);
        Ok(Catalogue { tables: tables.into_values().collect(), others })
    }

    /// Names of tables that are most like `wanted`, at most three.
    pub fn near(&self, wanted: &TableName) -> Vec<&TableName> {
        let mut near: Vec<(usize, &TableName)> = self
            .tables
            .iter()
            .filter(|entry| entry.engine != Engine::FulltextIndex)
            .map(|entry| {
                let elsewhere = usize::from(entry.name.schema != wanted.schema);
                let schema = distance(&entry.name.schema, &wanted.schema).min(2 + elsewhere);
                (schema + distance(&entry.name.table, &wanted.table), &entry.name)
            })
            .collect();
        near.sort();
        let limit = (wanted.table.chars().count() / 2).clamp(1, 3);
        near.into_iter().take_while(|(distance, _)| *distance <= limit).map(|(_, name)| name).take(3).collect()
    }

    /// Sums of all files.
    pub fn sums(&self) -> FileSums {
        self.tables.iter().fold(self.others, |sums, entry| sums.with(entry))
    }
}

impl FileSums {
    /// The sums with those of a table.
    #[must_use]
    pub fn with(self, entry: &TableEntry) -> FileSums {
        FileSums {
            files: self.files + entry.files,
            logical_bytes: self.logical_bytes + entry.logical_bytes,
            stored_bytes: self.stored_bytes + entry.stored_bytes,
        }
    }

    fn add(&mut self, logical_bytes: u64, stored_bytes: u64) {
        self.files += 1;
        self.logical_bytes += logical_bytes;
        self.stored_bytes += stored_bytes;
    }
}

#[derive(Default)]
struct Gathering {
    tables: BTreeMap<TableName, TableEntry>,
    others: FileSums,
    /// The first piece of each definition.
    definitions: Vec<(TableName, FilePiece)>,
}

impl Gathering {
    fn space(&mut self, record: &SpaceRecord) {
        let stored = match &record.map {
            SpaceMap::Inline(extents) => stored_in(extents),
            SpaceMap::Blocks(blocks) => blocks.iter().map(|ExtentBlockRef { stored_bytes, .. }| stored_bytes).sum(),
        };
        if let Some(entry) = self.add(&record.name, record.bytes(), stored) {
            entry.encrypted |= record.encrypted == Some(true);
        }
    }

    fn file(&mut self, record: FileRecord) {
        let (stored, first) = match &record.map {
            FileMap::Inline(pieces) => (pieces.iter().map(FilePiece::stored_bytes).sum(), pieces.first().copied()),
            FileMap::Blocks(blocks) => {
                (blocks.iter().map(|FileBlockRef { stored_bytes, .. }| stored_bytes).sum(), None)
            }
        };
        let Some(entry) = self.add(&record.path, record.bytes, stored) else { return };
        entry.linked |= record.path.ends_with(".isl");
        let name = entry.name.clone();
        if let Some(piece) = first.filter(|_| record.path.ends_with(".frm")) {
            self.definitions.push((name, piece));
        }
    }

    fn add(&mut self, path: &str, logical: u64, stored: u64) -> Option<&mut TableEntry> {
        let Some(FileRole { name, partition, engine }) = role_of(path) else {
            self.others.add(logical, stored);
            return None;
        };
        let entry = self.tables.entry(name.clone()).or_insert_with(|| TableEntry {
            name,
            engine: Engine::NoFiles,
            partitions: Vec::new(),
            encrypted: false,
            linked: false,
            files: 0,
            logical_bytes: 0,
            stored_bytes: 0,
        });
        entry.engine = engine.unwrap_or(entry.engine);
        if let Some(partition) = partition.filter(|partition| !entry.partitions.contains(partition)) {
            entry.partitions.push(partition);
            entry.partitions.sort();
        }
        entry.files += 1;
        entry.logical_bytes += logical;
        entry.stored_bytes += stored;
        Some(entry)
    }
}

fn stored_in(extents: &[Extent]) -> u64 {
    extents.iter().flat_map(|extent| &extent.pieces).map(Piece::stored_bytes).sum()
}

async fn begins_with(repository: &Repository, piece: &FilePiece, text: &[u8]) -> Result<bool, RestoreError> {
    let FileSource::Chunk { id, raw_bytes, skip, at } = piece.source else { return Ok(false) };
    if !repository.keyring().opens_data() {
        // With a key for maps alone, a view cannot be told from a table that lives in memory.
        return Ok(false);
    }
    let range = u64::from(at.offset)..u64::from(at.offset) + u64::from(at.stored_bytes);
    let stored = repository.read_range(at.pack.id, range).await?;
    let damaged = |source| RepositoryError::Pack { pack: at.pack.id, source };
    let Location { offset, encoding, .. } = at;
    let chunk = StoredChunk { kind: PackKind::Data, id, offset, encoding, raw_bytes };
    let raw = repository.keyring().open_chunk("chunk", &chunk, &stored).map_err(damaged)?;
    let found = repository.namer().chunk_of_file(&raw);
    if found != id {
        let (expected, found) = (id.to_string(), found.to_string());
        return Err(damaged(crate::format::FormatError::WrongHash { what: "chunk", expected, found }).into());
    }
    Ok(raw.get(skip as usize..).is_some_and(|bytes| bytes.starts_with(text)))
}

/// Characters to be changed, added or taken away to make one name of the other (Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.to_lowercase().chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (place, left) in one.to_lowercase().chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = place + 1;
        for (column, right) in other.iter().enumerate() {
            let changed = diagonal + usize::from(left != *right);
            diagonal = row[column + 1];
            row[column + 1] = changed.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role(path: &str) -> Option<(String, Option<String>, Option<Engine>)> {
        role_of(path).map(|role| (role.name.to_string(), role.partition, role.engine))
    }

    #[test]
    fn names_partitions_and_engines_are_read_off_paths() {
        let some =
            |name: &str, partition: Option<&str>, engine| Some((name.to_owned(), partition.map(str::to_owned), engine));
        assert_eq!(role("shop/item.ibd"), some("shop.item", None, Some(Engine::Innodb)));
        assert_eq!(role("sp@0020ace/o@0020rder@0024@1o.frm"), some("sp ace.o rder$ü", None, None));
        assert_eq!(role("shop/part#P#p@00201.ibd"), some("shop.part", Some("p 1"), Some(Engine::Innodb)));
        assert_eq!(role("shop/part#p#a#sp#b.MAD"), some("shop.part", Some("a/b"), Some(Engine::Aria)));
        assert_eq!(role("shop/x.TRG"), some("shop.x", None, None));
        let fulltext = some("shop.FTS_0000000000000013", None, Some(Engine::FulltextIndex));
        assert_eq!(role("shop/FTS_0000000000000013_0000000000000020_INDEX_5.ibd"), fulltext);
        assert_eq!(role("shop/FTS_0000000000000013_CONFIG.ibd"), fulltext);
        assert_eq!(role("shop/FTS_mine.ibd"), some("shop.FTS_mine", None, Some(Engine::Innodb)));
        for path in ["ibdata1", "ib_logfile0", "shop/db.opt", "shop/tr.TRN", "xtrabackup_info"] {
            assert_eq!(role(path), None, "{path}");
        }
    }

    #[test]
    fn a_wrong_name_finds_its_neighbours() {
        let entry = |name: &str| {
            let (schema, table) = name.split_once('.').unwrap();
            let mut gathering = Gathering::default();
            gathering.add(&format!("{schema}/{table}.ibd"), 1, 1);
            gathering.tables.into_values().next().unwrap()
        };
        let tables = ["shop.items", "shop.order", "shop.orders", "store.item", "other.thing"].map(entry).to_vec();
        let catalogue = Catalogue { tables, others: FileSums::default() };
        let near = |schema: &str, table: &str| -> Vec<String> {
            let wanted = TableName { schema: schema.to_owned(), table: table.to_owned() };
            catalogue.near(&wanted).into_iter().map(TableName::to_string).collect()
        };
        assert_eq!(near("shop", "item")[0], "shop.items");
        assert_eq!(near("shop", "Orders")[0], "shop.orders");
        assert_eq!(near("shop", "nothing like it"), Vec::<String>::new());
        assert_eq!((distance("kitten", "sitting"), distance("", "ab"), distance("ü", "u")), (3, 2, 1));
    }
}
