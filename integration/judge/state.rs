//! What a server holds, as far as two of them can be compared.

use std::collections::BTreeMap;

use crate::support::MariaDb;

/// A kind of thing that a server holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A table's rows.
    Rows,
    /// A table of the server's own: accounts, routines, events and the like, by their bytes.
    Own,
    Table,
    /// What the next row would get, which a replica need not know.
    AutoIncrement,
    Column,
    Index,
    Constraint,
    Partition,
    View,
    Trigger,
    Event,
    /// A replica switches events off.
    EventStatus,
    Routine,
    Account,
    Sequence,
}

/// Everything in a server but its statistics and logs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    things: BTreeMap<(Kind, String), String>,
}

/// Schemas of the server, whose tables are looked at one by one.
const OWN: &str = "('mysql', 'information_schema', 'performance_schema', 'sys')";

/// Tables of the server that hold what was told it; its statistics and logs change by themselves.
const OWN_TABLES: [&str; 12] = [
    "global_priv",
    "db",
    "tables_priv",
    "columns_priv",
    "procs_priv",
    "proxies_priv",
    "roles_mapping",
    "proc",
    "event",
    "func",
    "servers",
    "gtid_slave_pos",
];

impl State {
    /// Looks at `server`.
    pub fn of(server: &MariaDb) -> State {
        let mut state = State::default();
        for (kind, sql) in queries() {
            for line in server.sql(&sql).lines() {
                let (name, value) = line.split_once('\t').unwrap_or((line, ""));
                state.things.insert((kind, name.to_owned()), value.to_owned());
            }
        }
        let tables = names(server, "table_type IN ('BASE TABLE', 'SYSTEM VERSIONED')");
        state.add_checksums(server, Kind::Rows, &tables);
        let own: Vec<_> = OWN_TABLES.iter().map(|name| format!("`mysql`.`{name}`")).collect();
        state.add_checksums(server, Kind::Own, &own);
        for sequence in names(server, "table_type = 'SEQUENCE'") {
            let row = server.sql(&format!("SELECT * FROM {sequence}"));
            state.things.insert((Kind::Sequence, sequence), row.trim().to_owned());
        }
        state
    }

    fn add_checksums(&mut self, server: &MariaDb, kind: Kind, tables: &[String]) {
        if tables.is_empty() {
            return;
        }
        let answer = server.sql(&format!("CHECKSUM TABLE {} EXTENDED", tables.join(", ")));
        // One line for each table, in order; the names in it are not quoted.
        let sums: Vec<_> = answer.lines().map(|line| line.rsplit('\t').next().unwrap_or_default()).collect();
        assert_eq!(sums.len(), tables.len(), "{answer}");
        for (table, sum) in tables.iter().zip(sums) {
            self.things.insert((kind, table.clone()), sum.to_owned());
        }
    }

    /// Number of tables whose rows were looked at.
    pub fn tables(&self) -> usize {
        self.things.keys().filter(|(kind, _)| *kind == Kind::Rows).count()
    }

    /// What is not alike in `self` and `other`, of those things that `counts` names.
    pub fn differences(&self, other: &State, counts: impl Fn(Kind, &str) -> bool) -> Vec<Difference> {
        let mut found = Vec::new();
        for key in self.things.keys().chain(other.things.keys().filter(|key| !self.things.contains_key(*key))) {
            let (one, two) = (self.things.get(key), other.things.get(key));
            if one != two && counts(key.0, &key.1) {
                found.push(Difference { kind: key.0, name: key.1.clone(), one: one.cloned(), other: two.cloned() });
            }
        }
        found
    }
}

/// One thing that is not alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    pub kind: Kind,
    pub name: String,
    pub one: Option<String>,
    pub other: Option<String>,
}

/// All rows of a table, in an order of their own.
pub fn rows(server: &MariaDb, table: &str) -> Result<Vec<String>, String> {
    let mut rows: Vec<_> = server.try_sql(&format!("SELECT * FROM {table}"))?.lines().map(str::to_owned).collect();
    rows.sort();
    Ok(rows)
}

fn names(server: &MariaDb, which: &str) -> Vec<String> {
    let sql = format!(
        "SELECT CONCAT('`', table_schema, '`.`', table_name, '`') FROM information_schema.tables
         WHERE {which} AND table_schema NOT IN {OWN} ORDER BY 1"
    );
    server.sql(&sql).lines().map(str::to_owned).collect()
}

/// Each query's first column names a thing, the others tell of it.
fn queries() -> Vec<(Kind, String)> {
    let view = |kind, view: &str, schema: &str, name: &str, columns: &str| {
        let sql = format!(
            "SELECT CONCAT_WS('.', {schema}, {name}), {columns} FROM information_schema.{view} WHERE {schema} NOT IN {OWN}"
        );
        (kind, sql)
    };
    let of_table = |kind, view_name: &str, more: &str, columns: &str| {
        view(kind, view_name, "table_schema", &format!("table_name{more}"), columns)
    };
    vec![
        of_table(
            Kind::Table,
            "tables",
            "",
            "table_type, engine, row_format, table_collation, create_options, table_comment",
        ),
        (
            Kind::AutoIncrement,
            format!(
                "SELECT CONCAT_WS('.', table_schema, table_name), auto_increment FROM information_schema.tables
                 WHERE auto_increment IS NOT NULL AND table_schema NOT IN {OWN}"
            ),
        ),
        of_table(
            Kind::Column,
            "columns",
            ", ordinal_position",
            "column_name, column_default, is_nullable, column_type, collation_name, column_key, extra, column_comment,
             is_generated, generation_expression",
        ),
        of_table(
            Kind::Index,
            "statistics",
            ", index_name, seq_in_index",
            "non_unique, column_name, collation, sub_part, nullable, index_type, comment, index_comment",
        ),
        of_table(Kind::Constraint, "table_constraints", ", constraint_name", "constraint_type"),
        view(
            Kind::Constraint,
            "referential_constraints",
            "constraint_schema",
            "table_name, constraint_name, 'to'",
            "referenced_table_name, unique_constraint_name, update_rule, delete_rule",
        ),
        of_table(
            Kind::Partition,
            "partitions",
            ", partition_name, subpartition_name",
            "partition_ordinal_position, partition_method, partition_expression, partition_description",
        ),
        of_table(Kind::View, "views", "", "view_definition, check_option, is_updatable, definer, security_type"),
        view(
            Kind::Trigger,
            "triggers",
            "trigger_schema",
            "trigger_name",
            "event_manipulation, event_object_table, action_order, action_timing, action_statement, sql_mode, definer",
        ),
        view(
            Kind::Event,
            "events",
            "event_schema",
            "event_name",
            "definer, event_definition, event_type, execute_at, interval_value, interval_field, on_completion, event_comment",
        ),
        view(Kind::EventStatus, "events", "event_schema", "event_name", "status"),
        view(
            Kind::Routine,
            "routines",
            "routine_schema",
            "routine_type, routine_name",
            "dtd_identifier, routine_definition, is_deterministic, security_type, definer, routine_comment",
        ),
        (Kind::Account, "SELECT CONCAT(user, '@', host), priv FROM mysql.global_priv".to_owned()),
        (
            Kind::Account,
            "SELECT CONCAT_WS(' ', grantee, table_schema, privilege_type), is_grantable
             FROM information_schema.schema_privileges"
                .to_owned(),
        ),
        (
            Kind::Account,
            "SELECT CONCAT_WS(' ', 'role', user, host, role), admin_option FROM mysql.roles_mapping".to_owned(),
        ),
        (
            Kind::Table,
            format!(
                "SELECT schema_name, default_character_set_name, default_collation_name FROM information_schema.schemata WHERE schema_name NOT IN {OWN}"
            ),
        ),
    ]
}
