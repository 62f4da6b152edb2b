//! What `show --tables` tells.

use serde::Serialize;

use crate::{
    cli::output::Message,
    model::BackupId,
    restore::{Catalogue, Engine, FileSums, TableEntry},
};

/// A `table` line of `show --tables`.
#[derive(Debug, Clone, Serialize)]
pub struct TableLine<'a> {
    schema: &'a str,
    table: &'a str,
    engine: Engine,
    partitions: &'a [String],
    encrypted: bool,
    own: bool,
    files: u64,
    logical_bytes: u64,
    stored_bytes: u64,
}

impl Message for TableLine<'_> {
    const TYPE: &'static str = "table";
}

impl<'a> TableLine<'a> {
    /// The line of `entry`.
    pub fn of(entry: &'a TableEntry) -> TableLine<'a> {
        let TableEntry { name, engine, partitions, encrypted, files, logical_bytes, stored_bytes, .. } = entry;
        TableLine {
            schema: &name.schema,
            table: &name.table,
            engine: *engine,
            partitions,
            encrypted: *encrypted,
            own: name.is_servers(),
            files: *files,
            logical_bytes: *logical_bytes,
            stored_bytes: *stored_bytes,
        }
    }
}

/// Summary of `show --tables`.
#[derive(Debug, Clone, Serialize)]
pub struct TablesSummary {
    /// The backup.
    pub backup_id: BackupId,
    /// Schemas with tables in them, the server's own too.
    pub schemas: u64,
    /// Tables.
    pub tables: u64,
    /// Views.
    pub views: u64,
    /// Files.
    pub files: u64,
    /// Bytes of all files.
    pub logical_bytes: u64,
    /// Bytes that their chunks take in packs.
    pub stored_bytes: u64,
    /// Files that are no table's.
    pub other_files: u64,
    /// Bytes of those.
    pub other_logical_bytes: u64,
    /// Bytes that their chunks take in packs.
    pub other_stored_bytes: u64,
}

impl Message for TablesSummary {
    const TYPE: &'static str = "summary";
}

impl TablesSummary {
    /// The sums of `catalogue`.
    pub fn of(backup_id: BackupId, catalogue: &Catalogue) -> TablesSummary {
        let is_view = |entry: &&TableEntry| entry.engine == Engine::View;
        let is_table = |entry: &&TableEntry| !matches!(entry.engine, Engine::View | Engine::FulltextIndex);
        let mut schemas: Vec<_> = catalogue.tables.iter().map(|entry| &entry.name.schema).collect();
        schemas.dedup();
        let (FileSums { files, logical_bytes, stored_bytes }, others) = (catalogue.sums(), catalogue.others);
        TablesSummary {
            backup_id,
            schemas: schemas.len() as u64,
            tables: catalogue.tables.iter().filter(is_table).count() as u64,
            views: catalogue.tables.iter().filter(is_view).count() as u64,
            files,
            logical_bytes,
            stored_bytes,
            other_files: others.files,
            other_logical_bytes: others.logical_bytes,
            other_stored_bytes: others.stored_bytes,
        }
    }
}
