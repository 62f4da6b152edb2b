//! A table's definition, as `SHOW CREATE TABLE` tells it, and what in it keeps the table from being imported.

use super::TableError;
use crate::mariadb::sql::{SqlError, quoted_name};
use crate::mariadb::{scratch::ScratchServer, sql::Session, sql::quoted_text, tool::Tools};
use crate::restore::TableName;

/// A table's definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Definition {
    /// All behind the name.
    body: String,
    /// `ROW_FORMAT` in words that `CREATE TABLE` takes, of a table that has the server's default.
    row_format: Option<String>,
    /// Its triggers.
    pub triggers: Vec<String>,
}

impl Definition {
    /// Asks the scratch server for the definition of `table`.
    ///
    /// # Errors
    /// When it does not tell, or the table is of a kind that cannot be imported.
    pub fn ask(server: &ScratchServer, tools: &Tools, table: &TableName) -> Result<Definition, TableError> {
        let (schema, name) = (quoted_text(&table.schema), quoted_text(&table.table));
        let named = |column: &str, schema_column: &str, table_column: &str, from: &str| {
            format!(
                "SELECT {column} FROM information_schema.{from} WHERE {schema_column} = {schema} AND {table_column} = {name}"
            )
        };
        let show = format!("SHOW CREATE TABLE {}.{}", quoted_name(&table.schema), quoted_name(&table.table));
        let sets = Session::new(tools, server.connection()).run(
            &[
                "SET SESSION sql_mode = '', sql_quote_show_create = 1, character_set_results = utf8mb4",
                &show,
                &named("row_format", "table_schema", "table_name", "tables"),
                &named("trigger_name", "event_object_schema", "event_object_table", "triggers"),
            ],
            super::STATEMENT_LIMIT,
        );
        let sets = sets.map_err(|source| TableError::Sql { action: "read the table's definition", source })?;
        let garbled = || TableError::Sql { action: "read the table's definition", source: SqlError::Garbled };
        let [create, formats, triggers] = sets.as_slice() else { return Err(garbled()) };
        let text = create.rows.first().and_then(|row| row.get(1)?.clone()).ok_or_else(garbled)?;
        let row_format = formats.rows.first().and_then(|row| row.first()?.clone());
        let triggers = triggers.rows.iter().filter_map(|row| row.first()?.clone()).collect();
        Definition::read(table, &text, row_format, triggers)
    }

    /// Reads `CREATE TABLE …`, one column, index or constraint in each line, and options in the last.
    fn read(
        table: &TableName,
        text: &str,
        row_format: Option<String>,
        triggers: Vec<String>,
    ) -> Result<Definition, TableError> {
        let refused = |why: &str| Err(TableError::unsupported(table, why));
        let Some(body) = text.strip_prefix(&format!("CREATE TABLE {}", quoted_name(&table.table))) else {
            return refused("it is no plain table");
        };
        let (lines, options) = body.rsplit_once("\n)").unwrap_or((body, ""));
        let mut lines = lines.lines().map(str::trim_start);
        if lines.clone().any(|line| line.starts_with("FULLTEXT KEY ")) {
            return refused("it has a FULLTEXT index, whose files belong to one server");
        }
        if lines.any(|line| line.starts_with("CONSTRAINT ") && line.contains(" FOREIGN KEY (")) {
            return refused("it has foreign keys, whose names exist once in a schema");
        }
        if body.contains("GENERATED ALWAYS AS ROW START") && body.contains("bigint(20) unsigned GENERATED ALWAYS") {
            return refused("its history is kept by transactions that another server does not know");
        }
        let has = |option: &str| options.contains(option);
        match () {
            () if !has(" ENGINE=InnoDB") => refused("its engine is not InnoDB"),
            () if has("\n PARTITION BY ") || body.contains("\n PARTITION BY ") => refused("it is partitioned"),
            () if has(" SEQUENCE=1") || has(" `SEQUENCE`=1") => refused("it is a sequence"),
            () if has(" DATA DIRECTORY=") => refused("its file lies outside of the datadir"),
            () if has("`ENCRYPTED`=") && !has("`ENCRYPTED`=NO") && !has("`ENCRYPTED`='NO'") => {
                refused("it is encrypted")
            }
            () => {
                let row_format = row_format.filter(|_| !has(" ROW_FORMAT=")).map(|format| format.to_uppercase());
                let usable = |format: &String| ["DYNAMIC", "COMPACT", "REDUNDANT"].contains(&format.as_str());
                Ok(Definition { body: body.to_owned(), row_format: row_format.filter(usable), triggers })
            }
        }
    }

    /// The statement that makes the table under another name, on a server that gives `default` (in capitals) to tables that name no
    /// row format.
    pub fn create(&self, table: &TableName, default: &str) -> String {
        let name = format!("{}.{}", quoted_name(&table.schema), quoted_name(&table.table));
        // Only where it must: a format that is named changes what CHECKSUM TABLE counts of a table of fixed length.
        let format = self.row_format.as_ref().filter(|format| *format != default);
        let format = format.map_or_else(String::new, |format| format!(" ROW_FORMAT={format}"));
        format!("CREATE TABLE {name}{}{format}", self.body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, format: &str) -> Result<Definition, TableError> {
        let table = TableName { schema: "shop".to_owned(), table: "a`b".to_owned() };
        Definition::read(&table, text, Some(format.to_owned()), Vec::new())
    }

    const PLAIN: &str = "CREATE TABLE `a``b` (\n  `id` int(11) NOT NULL AUTO_INCREMENT COMMENT 'FULLTEXT KEY \\n FOREIGN KEY (',\n  \
                         PRIMARY KEY (`id`)\n) ENGINE=InnoDB AUTO_INCREMENT=7 DEFAULT CHARSET=utf8mb4";

    #[test]
    fn a_plain_table_is_made_under_another_name_and_names_its_row_format_where_the_default_is_another() {
        let target = TableName { schema: "o".to_owned(), table: "t".to_owned() };
        let made = read(PLAIN, "Dynamic").unwrap().create(&target, "COMPACT");
        assert!(made.starts_with("CREATE TABLE `o`.`t` (\n  `id` int(11)"), "{made}");
        assert!(made.ends_with("DEFAULT CHARSET=utf8mb4 ROW_FORMAT=DYNAMIC"), "{made}");
        let made = read(PLAIN, "Dynamic").unwrap().create(&target, "DYNAMIC");
        assert!(made.ends_with("DEFAULT CHARSET=utf8mb4"), "{made}");
        let compressed = format!("{PLAIN} ROW_FORMAT=COMPRESSED KEY_BLOCK_SIZE=8");
        let made = read(&compressed, "Compressed").unwrap().create(&target, "DYNAMIC");
        assert!(made.ends_with("ROW_FORMAT=COMPRESSED KEY_BLOCK_SIZE=8"), "{made}");
    }

    #[test]
    fn what_cannot_be_imported_is_refused_by_name() {
        let with_key = |key: &str| PLAIN.replace("  PRIMARY", &format!("  {key},\n  PRIMARY"));
        for (text, why) in [
            (with_key("FULLTEXT KEY `v` (`v`)"), "FULLTEXT"),
            (with_key("CONSTRAINT `x` FOREIGN KEY (`x`) REFERENCES `y` (`id`)"), "foreign keys"),
            (with_key("`s` bigint(20) unsigned GENERATED ALWAYS AS ROW START"), "history"),
            (PLAIN.replace("InnoDB", "Aria"), "engine"),
            (format!("{PLAIN}\n PARTITION BY HASH (`id`)\nPARTITIONS 4"), "partitioned"),
            (format!("{PLAIN} `ENCRYPTED`=YES"), "encrypted"),
            (format!("{PLAIN} DATA DIRECTORY='/x/'"), "outside"),
            ("CREATE ALGORITHM=UNDEFINED VIEW `a``b` AS select 1".to_owned(), "no plain table"),
            (PLAIN.replace("ENGINE=InnoDB", "ENGINE=InnoDB SEQUENCE=1"), "sequence"),
        ] {
            let error = read(&text, "Dynamic").unwrap_err();
            assert!(error.to_string().contains(why), "{why}: {error}");
        }
    }
}
