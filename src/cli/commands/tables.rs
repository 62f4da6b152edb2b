//! The tables of a backup, for `show --tables`.

use super::table::{Column, Table};
use crate::{
    cli::{
        human,
        output::Output,
        paint::Paint,
        report::{TableLine, TablesSummary},
    },
    model::BackupId,
    restore::{Catalogue, Engine, FileSums, TableEntry},
};

const COLUMNS: [Column; 5] = [
    Column { title: "TABLE", right: false, drop: 0 },
    Column { title: "ENGINE", right: false, drop: 2 },
    Column { title: "PARTITIONS", right: true, drop: 3 },
    Column { title: "LOGICAL", right: true, drop: 0 },
    Column { title: "STORED", right: true, drop: 1 },
];

/// Tells what is inside of backup `id`, on a terminal as wide as that is unless `wide`.
pub(in crate::cli) fn tell(id: &BackupId, catalogue: &Catalogue, wide: bool, output: &Output) {
    let summary = TablesSummary::of(id.clone(), catalogue);
    if output.is_json() {
        catalogue.tables.iter().for_each(|entry| output.json(&TableLine::of(entry)));
        output.json(&summary);
    } else {
        let width = output.options.columns.filter(|_| !wide);
        output.data(text(&summary, catalogue, width, output.options.stdout).as_bytes());
    }
}

fn text(summary: &TablesSummary, catalogue: &Catalogue, width: Option<usize>, paint: Paint) -> String {
    let (own, users): (Vec<_>, Vec<_>) = catalogue.tables.iter().partition(|entry| entry.name.is_servers());
    let mut rows: Vec<Vec<String>> = users.iter().map(|entry| cells(entry)).collect();
    let tables = rows.len();
    for group in own.chunk_by(|one, other| one.name.schema == other.name.schema) {
        let sums = group.iter().fold(FileSums::default(), |sums, entry| sums.with(entry));
        let views = group.iter().filter(|entry| entry.engine == Engine::View).count();
        let tables = human::counted((group.len() - views) as u64, "table");
        let views = human::counted(views as u64, "view");
        rows.push(sum_row(format!("{}: {tables}, {views}", group[0].name.schema), sums));
    }
    let others = human::counted(catalogue.others.files, "file");
    rows.push(sum_row(format!("system, logs: {others}"), catalogue.others));
    let table = Table { columns: COLUMNS.to_vec(), rows };
    let decorate = |row: usize, _: usize, cell: &str| if row < tables { cell.to_owned() } else { paint.dim(cell) };
    let (body, left_out) = table.text(width, paint, decorate);
    let mut text = format!("tables of backup {}\n\n{body}\n", paint.bold(summary.backup_id.as_str()));
    let (count, views) = (human::counted(summary.tables, "table"), human::counted(summary.views, "view"));
    let (logical, stored) = (human::bytes(summary.logical_bytes), human::bytes(summary.stored_bytes));
    let schemas = human::counted(summary.schemas, "schema");
    text += &format!("{count} and {views} in {schemas}; all files {logical}, stored {stored}\n");
    if left_out > 0 {
        let columns = human::counted(left_out as u64, "column");
        text += &format!("{}\n", paint.dim(&format!("{columns} left out at this width; --wide shows all")));
    }
    text
}

fn cells(entry: &TableEntry) -> Vec<String> {
    let TableEntry { name, engine, partitions, logical_bytes, stored_bytes, .. } = entry;
    let encrypted = if entry.encrypted { ", encrypted" } else { "" };
    let partitions = if partitions.is_empty() { String::new() } else { human::count(partitions.len() as u64) };
    let size = |bytes: u64| if *engine == Engine::View { String::new() } else { human::bytes(bytes) };
    let name = printable(&name.to_string());
    vec![name, format!("{}{encrypted}", engine.name()), partitions, size(*logical_bytes), size(*stored_bytes)]
}

fn sum_row(label: String, sums: FileSums) -> Vec<String> {
    let (logical, stored) = (human::bytes(sums.logical_bytes), human::bytes(sums.stored_bytes));
    vec![label, String::new(), String::new(), logical, stored]
}

/// A name without what moves a terminal's cursor or changes its colours.
pub(in crate::cli) fn printable(name: &str) -> String {
    let plain = |character: char| match character {
        character if character.is_control() => character.escape_default().to_string(),
        character => character.to_string(),
    };
    name.chars().map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cli::{
            output::{OutputOptions, tests::sheets},
            snapshot,
        },
        restore::TableName,
    };

    fn entry(schema: &str, table: &str, engine: Engine, logical_bytes: u64) -> TableEntry {
        TableEntry {
            name: TableName { schema: schema.to_owned(), table: table.to_owned() },
            engine,
            partitions: Vec::new(),
            encrypted: false,
            linked: false,
            files: 2,
            logical_bytes,
            stored_bytes: logical_bytes / 4,
        }
    }

    fn catalogue() -> Catalogue {
        let mut tables = vec![
            entry("mysql", "db", Engine::Aria, 24_000),
            entry("mysql", "user", Engine::View, 900),
            entry("shop", "FTS_0000000000000013", Engine::FulltextIndex, 700_000),
            entry("shop", "archive", Engine::Innodb, 93 << 30),
            entry("shop", "customer", Engine::Innodb, 11 << 20),
            entry("shop", "note", Engine::Myisam, 1 << 20),
            entry("shop", "o rder$ü", Engine::Innodb, 44 << 30),
            entry("shop", "totals", Engine::View, 1100),
            entry("sys", "version", Engine::View, 1000),
        ];
        tables[3].partitions = (0..12).map(|month| format!("p{month}")).collect();
        tables[4].encrypted = true;
        Catalogue { tables, others: FileSums { files: 9, logical_bytes: 700 << 20, stored_bytes: 90 << 20 } }
    }

    fn told(catalogue: &Catalogue, columns: Option<usize>, json: bool) -> String {
        let (output, out, _) = sheets(OutputOptions { columns, json, ..OutputOptions::default() });
        tell(&"20261122T020000Z-3f9a16".parse().unwrap(), catalogue, false, &output);
        out.text()
    }

    #[test]
    fn tables_fit_the_terminal_and_are_as_reviewed() {
        let narrow = told(&catalogue(), Some(48), false);
        let body = narrow.lines().skip(2).take_while(|line| !line.is_empty());
        assert!(body.into_iter().all(|line| line.chars().count() <= 48), "{narrow}");
        snapshot::check("tables.txt", &format!("{}\n{narrow}", told(&catalogue(), Some(100), false)));
        snapshot::check("tables.jsonl", &told(&catalogue(), None, true));
    }

    #[test]
    fn ten_thousand_tables_are_one_line_each() {
        let tables =
            (0..10_000).map(|number| entry("many", &format!("t{number:05}"), Engine::Innodb, 1 << 20)).collect();
        let text = told(&Catalogue { tables, others: FileSums::default() }, Some(80), false);
        assert_eq!(text.lines().filter(|line| line.starts_with("many.t")).count(), 10_000);
        assert!(
            text.ends_with("10,000 tables and 0 views in 1 schema; all files 9.77 GiB, stored 2.44 GiB\n"),
            "{text:.300}"
        );
    }

    #[test]
    fn a_name_cannot_play_with_the_terminal() {
        let tables = vec![entry("a\x1b[31m", "b\nc", Engine::Innodb, 1)];
        let text = told(&Catalogue { tables, others: FileSums::default() }, Some(80), false);
        assert!(text.contains(r"a\u{1b}[31m.b\nc"), "{text}");
    }
}
