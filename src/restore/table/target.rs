//! The running server that a table is brought back into.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::definition::Definition;
use super::{STATEMENT_LIMIT, TableError};
use crate::mariadb::connection::Connection;
use crate::mariadb::datadir::server_runs_on;
use crate::mariadb::facts::ServerFacts;
use crate::mariadb::filename;
use crate::mariadb::sql::{ResultSet, Session, quoted_name, quoted_text};
use crate::mariadb::tool::Tools;
use crate::restore::tree::Owner;
use crate::restore::{RestoreError, TableName};

/// Longest time for the import of a table and its check, which read all of it: a day.
const IMPORT_LIMIT: Duration = Duration::from_secs(24 * 3600);

/// What every session here begins with. Nothing of it goes to replicas: they do not have the file.
const SESSION: &str = "SET SESSION sql_mode = 'NO_ENGINE_SUBSTITUTION', foreign_key_checks = 0, lock_wait_timeout = 120, \
                       innodb_lock_wait_timeout = 120, default_storage_engine = InnoDB";

/// What stands at the place of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Present {
    /// Nothing.
    Nothing,
    /// A table without rows.
    Empty,
    /// A table with rows.
    Rows,
}

/// A server that a table comes to.
pub(super) struct Target<'a> {
    tools: &'a Tools,
    connection: &'a Connection,
    /// Its datadir, without symbolic links.
    pub datadir: PathBuf,
    log_bin: bool,
    /// `ROW_FORMAT` that it gives to tables that name none, in capitals.
    row_format: String,
    /// The table as it will be called.
    pub table: TableName,
    /// The table while it is being made.
    pub working: TableName,
    /// The table that is replaced, once it has made room.
    old: TableName,
}

/// The place of a file that the server made, and how it made it.
#[derive(Debug, Clone)]
pub(super) struct Place {
    /// Path without ending.
    stem: PathBuf,
    owner: Owner,
    mode: u32,
}

impl<'a> Target<'a> {
    /// Asks the server, and checks that it can take a table and that its files are on this machine.
    ///
    /// # Errors
    /// When it cannot be asked, is of a kind that takes no table, or lives elsewhere.
    pub fn look(
        tools: &'a Tools,
        connection: &'a Connection,
        table: &TableName,
        suffix: &str,
    ) -> Result<Target<'a>, TableError> {
        let session = Session::new(tools, connection);
        let facts = ServerFacts::gather(&session)?;
        let refused = |why: &str, hint| Err(TableError::Server { why: why.to_owned(), hint });
        if facts.galera {
            return refused("it is a node of a Galera cluster, whose other nodes do not have the file", BY_DUMP);
        }
        let settings = session.query("SELECT @@innodb_file_per_table, @@innodb_read_only, @@innodb_default_row_format");
        let settings = settings.map_err(|source| TableError::Sql { action: "ask the server", source })?;
        let is_on = |place: usize| {
            settings
                .first()
                .and_then(|row| row.get(place)?.as_deref())
                .is_some_and(|value| value == "1" || value == "ON")
        };
        if !is_on(0) {
            return refused("innodb_file_per_table is off", "SET GLOBAL innodb_file_per_table = ON");
        }
        if is_on(1) {
            return refused("innodb_read_only is on", "start it without");
        }
        let elsewhere = |why| TableError::Elsewhere { datadir: facts.datadir.clone(), why };
        let row_format = settings.first().and_then(|row| row.get(2)?.as_deref()).unwrap_or_default().to_uppercase();
        let datadir = facts.datadir.canonicalize().map_err(|_| elsewhere("there is no such directory"))?;
        match server_runs_on(&datadir) {
            Ok(Some(_)) => {}
            Ok(None) => return Err(elsewhere("no server is seen to run on it")),
            Err(_) => return Err(elsewhere("it cannot be looked at")),
        }
        let other = |kind: &str| TableName { schema: table.schema.clone(), table: format!("haulout_{kind}_{suffix}") };
        let (working, old, table) = (other("new"), other("old"), table.clone());
        Ok(Target { tools, connection, datadir, log_bin: facts.log_bin, row_format, table, working, old })
    }

    fn run(&self, action: &'static str, statements: &[&str], limit: Duration) -> Result<Vec<ResultSet>, TableError> {
        let mut all = vec![SESSION];
        if self.log_bin {
            all.push("SET SESSION sql_log_bin = 0");
        }
        all.extend(statements);
        let session = Session::new(self.tools, self.connection);
        session.run(&all, limit).map_err(|source| TableError::Sql { action, source })
    }

    fn ask(&self, question: &str) -> Result<Vec<Vec<Option<String>>>, TableError> {
        let sets = self.run("look at the server's tables", &[question], STATEMENT_LIMIT)?;
        Ok(sets.into_iter().next_back().unwrap_or_default().rows)
    }

    /// Tells what stands at the place of the table.
    ///
    /// # Errors
    /// When there is something that no table may replace, or no schema.
    pub fn present(&self) -> Result<Present, TableError> {
        let TableName { schema, table } = &self.table;
        let (schema_text, table_text) = (quoted_text(schema), quoted_text(table));
        let known =
            self.ask(&format!("SELECT 1 FROM information_schema.schemata WHERE schema_name = {schema_text}"))?;
        if known.is_empty() {
            let why = format!("it has no schema {schema}, or the account may not see it");
            return Err(TableError::Server { why, hint: "CREATE DATABASE first" });
        }
        let found = self.ask(&format!(
            "SELECT table_type FROM information_schema.tables WHERE table_schema = {schema_text} AND table_name = {table_text}"
        ))?;
        let Some(kind) = found.first().and_then(|row| row.first()?.as_deref()) else { return Ok(Present::Nothing) };
        let in_the_way = |why: String, hint| Err(TableError::InTheWay { table: self.table.clone(), why, hint });
        if !matches!(kind, "BASE TABLE" | "SYSTEM VERSIONED") {
            return in_the_way(
                format!("it is a {}", kind.to_lowercase()),
                "restore the table under another name with --as",
            );
        }
        let children = self.ask(&format!(
            "SELECT table_name FROM information_schema.referential_constraints WHERE unique_constraint_schema = \
             {schema_text} AND referenced_table_name = {table_text}"
        ))?;
        if let Some(child) = children.first().and_then(|row| row.first()?.as_deref()) {
            let why = format!("a foreign key of table {child} refers to it");
            return in_the_way(why, "restore the table under another name with --as, and copy the rows");
        }
        let triggers = self.ask(&format!(
            "SELECT trigger_name FROM information_schema.triggers WHERE event_object_schema = {schema_text} AND \
             event_object_table = {table_text}"
        ))?;
        if let Some(trigger) = triggers.first().and_then(|row| row.first()?.as_deref()) {
            let why = format!("it has trigger {trigger}, which would go with it");
            return in_the_way(
                why,
                "drop the trigger and make it again afterwards, or restore under another name with --as",
            );
        }
        Ok(if self.has_rows(&self.table)? { Present::Rows } else { Present::Empty })
    }

    /// Tables under working names, of runs that are under way or were killed.
    ///
    /// # Errors
    /// When the server cannot be asked.
    pub fn unfinished(&self) -> Result<Vec<String>, TableError> {
        let schema = quoted_text(&self.table.schema);
        let rows = self.ask(&format!(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = {schema} AND \
             table_name REGEXP '^haulout_(new|old)_' ORDER BY table_name"
        ))?;
        let names = rows.into_iter().filter_map(|row| row.into_iter().next().flatten());
        Ok(names.map(|table| TableName { schema: self.table.schema.clone(), table }.to_string()).collect())
    }

    /// Whether a table has rows, or had some where the server keeps its history.
    fn has_rows(&self, table: &TableName) -> Result<bool, TableError> {
        let (schema, name) = (quoted_text(&table.schema), quoted_text(&table.table));
        let kind = self.ask(&format!(
            "SELECT table_type FROM information_schema.tables WHERE table_schema = {schema} AND table_name = {name}"
        ))?;
        let versioned = kind.first().and_then(|row| row.first()?.as_deref()) == Some("SYSTEM VERSIONED");
        let history = if versioned { " FOR SYSTEM_TIME ALL" } else { "" };
        Ok(!self.ask(&format!("SELECT 1 FROM {}{history} LIMIT 1", sql_name(table)))?.is_empty())
    }

    /// Makes the empty table under its working name; tells where the server put its file.
    ///
    /// # Errors
    /// When the server refuses, or its file is not in the datadir here.
    pub fn create(&self, definition: &Definition) -> Result<Place, TableError> {
        self.run("create the table", &[&definition.create(&self.working, &self.row_format)], STATEMENT_LIMIT)?;
        let stem = self.stem(&self.working).ok_or_else(|| self.elsewhere("the name fits no file"))?;
        let file = stem.with_extension("ibd");
        // The name is this run's own: where the file is, there the server is.
        let meta = fs::metadata(&file).map_err(|_| self.elsewhere("the file of a new table does not appear there"))?;
        let owner = Owner { uid: meta.uid(), gid: meta.gid() };
        Ok(Place { stem, owner, mode: meta.mode() & 0o777 })
    }

    fn elsewhere(&self, why: &'static str) -> TableError {
        TableError::Elsewhere { datadir: self.datadir.clone(), why }
    }

    fn stem(&self, table: &TableName) -> Option<PathBuf> {
        let (schema, table) = (filename::encode(&table.schema)?, filename::encode(&table.table)?);
        Some(self.datadir.join(schema).join(table))
    }

    /// Takes the table's empty file away.
    ///
    /// # Errors
    /// When the server refuses.
    pub fn discard(&self) -> Result<(), TableError> {
        let statement = format!("ALTER TABLE {} DISCARD TABLESPACE", sql_name(&self.working));
        self.run("discard the empty table's file", &[&statement], STATEMENT_LIMIT).map(drop)
    }

    /// Lets the server take the file that was put in place, and checks every row of it.
    ///
    /// # Errors
    /// When the server refuses, or the table is not sound.
    pub fn import(&self, place: &Place) -> Result<(), TableError> {
        let import = format!("ALTER TABLE {} IMPORT TABLESPACE", sql_name(&self.working));
        self.run("import the table", &[&import], IMPORT_LIMIT)?;
        // The server leaves it; a schema with it in cannot be dropped.
        fs::remove_file(place.stem.with_extension("cfg")).ok();
        let check = format!("CHECK TABLE {}", sql_name(&self.working));
        let sets = self.run("check the table", &[&check], IMPORT_LIMIT)?;
        let rows = sets.into_iter().next_back().unwrap_or_default().rows;
        let text = |row: &[Option<String>], column: usize| row.get(column).cloned().flatten().unwrap_or_default();
        let unsound = rows.iter().find(|row| text(row, 2) != "status" || text(row, 3) != "OK");
        match unsound {
            None if !rows.is_empty() => Ok(()),
            found => {
                let found = found.map_or_else(String::new, |row| format!("{}: {}", text(row, 2), text(row, 3)));
                Err(TableError::Unsound { table: self.table.clone(), found })
            }
        }
    }

    /// Gives the table its name, in place of the one that has it.
    ///
    /// A table that is replaced because it was empty must be so still when nobody reaches it any more.
    ///
    /// # Errors
    /// When the server refuses, or the other table got rows meanwhile; then both are as they were.
    pub fn swap(&self, present: Present, replace: bool) -> Result<(), TableError> {
        let rename = |from: &TableName, to: &TableName| format!("{} TO {}", sql_name(from), sql_name(to));
        let enter = rename(&self.working, &self.table);
        if present == Present::Nothing {
            let statement = format!("RENAME TABLE {enter}");
            return self.run("give the table its name", &[&statement], STATEMENT_LIMIT).map(drop);
        }
        // One statement: nobody ever sees that there is none.
        let statement = format!("RENAME TABLE {}, {enter}", rename(&self.table, &self.old));
        self.run("replace the table", &[&statement], STATEMENT_LIMIT)?;
        if !replace && self.has_rows(&self.old)? {
            let back =
                format!("RENAME TABLE {}, {}", rename(&self.table, &self.working), rename(&self.old, &self.table));
            self.run("put the table back", &[&back], STATEMENT_LIMIT)?;
            return Err(TableError::Exists { table: self.table.clone() });
        }
        let drop_old = format!("DROP TABLE {}", sql_name(&self.old));
        let dropped = self.run("drop the table that was replaced", &[&drop_old], STATEMENT_LIMIT);
        dropped.map(drop).map_err(|error| self.left_behind(&self.old, error))
    }

    /// Has the server write a checkpoint. The backup tool reads the redo log from the last one on, finds that the working
    /// table was discarded and not that it was imported, and takes it for dropped.
    ///
    /// # Errors
    /// When the account may not.
    pub fn checkpoint(&self) -> Result<(), TableError> {
        let statement = "SET GLOBAL innodb_log_checkpoint_now = ON";
        self.run("have the server write a checkpoint", &[statement], IMPORT_LIMIT).map(drop)
    }

    fn left_behind(&self, left: &TableName, error: TableError) -> TableError {
        match error {
            TableError::Sql { source, .. } => TableError::LeftBehind {
                left: left.to_string(),
                table: self.table.to_string(),
                source: Box::new(source),
            },
            other => other,
        }
    }

    /// Removes the table under its working name, as far as it was made.
    ///
    /// # Errors
    /// When the server refuses.
    pub fn undo(&self) -> Result<(), TableError> {
        let statement = format!("DROP TABLE IF EXISTS {}", sql_name(&self.working));
        let dropped = self.run("remove the unfinished table", &[&statement], STATEMENT_LIMIT);
        // What was put in place and not imported is no file of the server's.
        for ending in ["cfg", "ibd"] {
            if let Some(stem) = self.stem(&self.working).filter(|_| dropped.is_ok()) {
                fs::remove_file(stem.with_extension(ending)).ok();
            }
        }
        dropped.map(drop).map_err(|error| self.left_behind(&self.working, error))
    }
}

impl Place {
    /// Puts the exported file at `from`, its path without ending, in place of the one that was discarded.
    ///
    /// # Errors
    /// When it cannot be copied, or not be given to the server's user.
    pub fn fill(
        &self,
        from: &Path,
        copy: impl Fn(&Path, &Path) -> Result<(), RestoreError>,
    ) -> Result<(), RestoreError> {
        use std::os::unix::fs::PermissionsExt;
        for ending in ["ibd", "cfg"] {
            let (source, target) = (from.with_extension(ending), self.stem.with_extension(ending));
            // Until the import the file is nobody's: a rename makes it appear whole.
            if fs::rename(&source, &target).is_err() {
                copy(&source, &target)?;
            }
            fs::set_permissions(&target, fs::Permissions::from_mode(self.mode))
                .map_err(RestoreError::io("set the mode of", &target))?;
            std::os::unix::fs::lchown(&target, Some(self.owner.uid), Some(self.owner.gid))
                .map_err(RestoreError::io("change the owner of", &target))?;
        }
        Ok(())
    }
}

/// How tables come to such a server.
const BY_DUMP: &str =
    "restore the backup into another datadir, start a server on it and copy the table with mariadb-dump";

fn sql_name(table: &TableName) -> String {
    format!("{}.{}", quoted_name(&table.schema), quoted_name(&table.table))
}
