//! What each of the newest backups added, by table: a row for each table that grew the most, a column for each backup.

use std::collections::BTreeMap;

use super::super::App;
use super::super::svg;
use super::super::text::moment;
use super::super::view::{TablesView, slug};
use crate::fleet::ServerRecord;
use crate::model::human;

/// Backups that are shown.
const BACKUPS_SHOWN: usize = 8;
/// Tables that are named.
const TABLES_NAMED: usize = 12;
/// Seconds for which maps are read for one answer; what is left is read for the next one.
const READING_SECONDS_MAX: i64 = 8;

/// The table, with a bar in each cell.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ByTable {
    pub backups: Vec<Column>,
    pub rows: Vec<Row>,
    /// Backups whose maps have not been read.
    pub waiting: u64,
    pub problem: Option<String>,
}

/// A backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Column {
    /// Its page, with its tables.
    pub address: String,
    pub kind: &'static str,
    /// When it was done, as pages tell it.
    pub finished: String,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub name: String,
    /// Bytes in words and a bar, for each backup.
    pub cells: Vec<(String, String)>,
}

impl ByTable {
    /// Reads what is not known of the newest backups, the newest first.
    pub async fn read(app: &App, record: &ServerRecord) -> ByTable {
        let begun = app.now();
        let (mut read, mut waiting, mut problem) = (Vec::new(), 0, None);
        for backup in record.backups.iter().rev().take(BACKUPS_SHOWN) {
            if problem.is_some() || app.now().seconds_since(begun) > READING_SECONDS_MAX {
                waiting += 1;
                continue;
            }
            match app.tables(&record.name, backup.id.as_str()).await {
                Ok(tables) => {
                    let address = format!("/servers/{}/backups/{}?tables=show#tables", slug(&record.name), backup.id);
                    let (kind, finished) = (backup.kind.name(), moment(backup.finished));
                    read.push((Column { address, kind, finished }, tables));
                }
                Err(missing) => {
                    waiting += 1;
                    problem = Some(missing.message);
                }
            }
        }
        read.reverse();
        ByTable { waiting, problem, ..ByTable::of(&read) }
    }

    fn of(read: &[(Column, TablesView)]) -> ByTable {
        let mut tables: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        let mut others = vec![0; read.len()];
        for (place, (_, view)) in read.iter().enumerate() {
            others[place] = view.others.added_bytes;
            for table in &view.tables {
                let name = format!("{}.{}", table.schema, table.table);
                tables.entry(name).or_insert_with(|| vec![0; read.len()])[place] = table.added_bytes;
            }
        }
        let mut rows: Vec<_> = tables.into_iter().filter(|(_, added)| added.iter().any(|bytes| *bytes > 0)).collect();
        rows.sort_by_key(|(_, added)| std::cmp::Reverse(added.iter().sum::<u64>()));
        let unnamed = rows.split_off(rows.len().min(TABLES_NAMED));
        if !unnamed.is_empty() {
            let sum = |place: usize| unnamed.iter().map(|(_, added)| added[place]).sum();
            let name = format!("{} more", human::counted(unnamed.len() as u64, "table"));
            rows.push((name, (0..read.len()).map(sum).collect()));
        }
        rows.push(("everything else".to_owned(), others));
        let most = rows.iter().flat_map(|(_, added)| added).copied().max().unwrap_or(0);
        let cell = |bytes: &u64| match bytes {
            0 => ("–".to_owned(), String::new()),
            bytes => (human::bytes(*bytes), svg::share(*bytes, most)),
        };
        ByTable {
            backups: read.iter().map(|(column, _)| column.clone()).collect(),
            rows: rows.into_iter().map(|(name, added)| Row { name, cells: added.iter().map(cell).collect() }).collect(),
            ..ByTable::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::{TableGrowth, TableSizes};

    fn view(added: &[(&str, u64)], others: u64) -> TablesView {
        let table = |(table, added_bytes): &(&str, u64)| TableGrowth {
            schema: "shop".to_owned(),
            table: (*table).to_owned(),
            engine: "InnoDB",
            logical_bytes: 1 << 30,
            stored_bytes: 1 << 29,
            added_bytes: *added_bytes,
        };
        let tables = added.iter().map(table).collect();
        TablesView::of(&TableSizes { tables, more: 0, others: (0, 0, others), compared: None })
    }

    fn column(address: &str) -> Column {
        Column { address: address.to_owned(), kind: "full", finished: "yesterday".to_owned() }
    }

    #[test]
    fn tables_that_grew_the_most_come_first_and_what_is_not_named_is_summed_up() {
        let names: Vec<String> = (0..TABLES_NAMED + 3).map(|number| format!("t{number:02}")).collect();
        let first: Vec<_> = names.iter().map(|name| (name.as_str(), 1 << 20)).collect();
        let read = [
            (column("a"), view(&first, 3 << 20)),
            (column("b"), view(&[("t14", 5 << 20), ("still", 0), ("t00", 1 << 20)], 0)),
        ];
        let shown = ByTable::of(&read);
        assert_eq!(shown.backups.iter().map(|column| column.address.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        let told = |row: &Row| {
            let bytes: Vec<&str> = row.cells.iter().map(|(bytes, _)| bytes.as_str()).collect();
            format!("{}: {}", row.name, bytes.join(", "))
        };
        let rows: Vec<String> = shown.rows.iter().map(told).collect();
        assert_eq!(rows.len(), TABLES_NAMED + 2);
        assert_eq!(
            rows[..3],
            ["shop.t14: 1.00 MiB, 5.00 MiB", "shop.t00: 1.00 MiB, 1.00 MiB", "shop.t01: 1.00 MiB, –"]
        );
        assert_eq!(rows[TABLES_NAMED..], ["3 tables more: 3.00 MiB, –", "everything else: 3.00 MiB, –"]);
        assert!(shown.rows[0].cells[1].1.contains("width=\"100.0\""), "{:?}", shown.rows[0]);
    }

    #[test]
    fn where_nothing_was_read_there_is_nothing_to_show() {
        assert_eq!(ByTable::of(&[]).backups, []);
    }
}
