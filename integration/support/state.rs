//! What a server holds, written down so that it can be compared with what was restored.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::{MariaDb, ServerOptions, Site, server::NAMES};

/// Tables of the server's own that say who may do what, and what it does by itself.
const OWN_TABLES: [&str; 9] =
    ["global_priv", "roles_mapping", "db", "tables_priv", "columns_priv", "procs_priv", "proc", "event", "func"];

/// In place of a checksum that is not to be compared.
const FORGOTTEN: &str = "forgotten";

/// Everything that SQL tells of a server's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// Checksum of each table, by its quoted name.
    pub checksums: BTreeMap<String, String>,
    /// Schemas with their character sets and comments.
    pub schemas: Vec<String>,
    /// `SHOW CREATE` of tables, sequences and views. The next number of an AUTO_INCREMENT is left out: the server hands
    /// them out in blocks that no restart remembers.
    pub definitions: Vec<String>,
    /// Accounts, roles, privileges, routines and events.
    pub own: BTreeMap<&'static str, Vec<String>>,
    /// Triggers.
    pub triggers: Vec<String>,
}

impl State {
    /// The state of `server`, which must be quiet.
    pub fn of(server: &MariaDb) -> State {
        let lines = |sql: &str| server.sql(&format!("{NAMES} {sql}")).lines().map(str::to_owned).collect::<Vec<_>>();
        let shown = server.relations();
        let shown: String = shown.iter().map(|name| format!("SHOW CREATE TABLE {name};")).collect();
        let own = OWN_TABLES.map(|table| (table, lines(&format!("SELECT * FROM mysql.{table} ORDER BY 1, 2, 3"))));
        State {
            checksums: server.checksums(),
            schemas: lines("SELECT * FROM information_schema.schemata ORDER BY schema_name"),
            definitions: lines(&shown).iter().map(|line| without_next_number(line)).collect(),
            own: own.into(),
            triggers: lines(
                "SELECT trigger_schema, trigger_name, action_statement, definer FROM information_schema.triggers
                 ORDER BY 1, 2",
            ),
        }
    }
}

/// A lineage of backups, each with the state of its moment.
#[derive(Debug, Default)]
pub struct Lineage {
    points: Vec<(Value, State)>,
}

impl Lineage {
    /// Changes the server of `site`, and takes a backup with more arguments.
    #[track_caller]
    pub fn step(&mut self, site: &Site, sql: &str, arguments: &[&str]) -> Value {
        site.server.sql(sql);
        self.backed_up(site, arguments)
    }

    /// Takes a backup of the server as it is, with more arguments.
    #[track_caller]
    pub fn backed_up(&mut self, site: &Site, arguments: &[&str]) -> Value {
        let backup = site.backed_up(arguments);
        self.points.push((backup.clone(), State::of(&site.server)));
        backup
    }

    /// Takes up a backup that somebody else took of the server as it is.
    pub fn note(&mut self, backup: Value, server: &MariaDb) {
        self.points.push((backup, State::of(server)));
    }

    /// Number of backups.
    pub fn len(&self) -> usize {
        self.points.len()
    }

    /// Panics unless the rows of `table` are others in each backup than in the one before.
    #[track_caller]
    pub fn assert_changed(&self, table: &str) {
        let sums: Vec<_> = self.points.iter().map(|(_, state)| state.checksums.get(table)).collect();
        assert!(sums.iter().all(Option::is_some), "{table}: {sums:?}");
        assert!(sums.windows(2).all(|pair| pair[0] != pair[1]), "{table} did not change: {sums:?}");
    }

    /// Leaves the rows of `table` out of all comparisons.
    pub fn forget(&mut self, table: &str) {
        for (_, state) in &mut self.points {
            state.checksums.insert(table.to_owned(), FORGOTTEN.to_owned());
        }
    }

    /// Forgets backups that were let go of, by their places.
    pub fn let_go(&mut self, places: &[usize]) {
        let mut place = 0;
        self.points.retain(|_| {
            place += 1;
            !places.contains(&(place - 1))
        });
    }

    /// Restores the newest backup, compares what it holds and gives the server, which was started with `options`.
    #[track_caller]
    pub fn newest(&self, site: &Site, options: &ServerOptions) -> MariaDb {
        self.restored(site, self.points.len() - 1, options)
    }

    /// Restores every backup and compares what it holds, and lets `look` look at each server, given its place in the
    /// lineage. Every byte in the repository is checked too.
    #[track_caller]
    pub fn all_restore(&self, site: &Site, options: &ServerOptions, look: impl Fn(usize, &MariaDb)) {
        for place in 0..self.points.len() {
            look(place, &self.restored(site, place, options));
        }
        site.haulout.run(["check", "--read-data"]).ok();
    }

    /// Restores backup number `place`, compares what it holds and gives the server.
    #[track_caller]
    pub fn restored(&self, site: &Site, place: usize, options: &ServerOptions) -> MariaDb {
        self.started(place, &self.datadir(site, place), options)
    }

    /// Restores backup number `place`, and gives the datadir.
    #[track_caller]
    pub fn datadir(&self, site: &Site, place: usize) -> PathBuf {
        site.restored(&self.points[place].0)
    }

    /// Starts a server on what backup number `place` was restored to, and compares what it holds.
    #[track_caller]
    pub fn started(&self, place: usize, datadir: &Path, options: &ServerOptions) -> MariaDb {
        let (backup, state) = &self.points[place];
        let server = MariaDb::on(datadir, options.clone());
        assert_eq!(server.check_all(), [""; 0], "{backup}");
        assert_same(State::of(&server), state, backup);
        server
    }
}

/// Panics unless both are the same, and names what is not.
#[track_caller]
fn assert_same(mut found: State, expected: &State, backup: &Value) {
    for (table, sum) in &mut found.checksums {
        if expected.checksums.get(table).is_some_and(|sum| sum == FORGOTTEN) {
            *sum = FORGOTTEN.to_owned();
        }
    }
    assert_eq!(found.checksums, expected.checksums, "checksums of {backup}");
    assert_eq!(found.schemas, expected.schemas, "schemas of {backup}");
    for (found, expected) in found.definitions.iter().zip(&expected.definitions) {
        assert_eq!(found, expected, "a definition of {backup}");
    }
    assert_eq!(found, *expected, "{backup}");
}

fn without_next_number(line: &str) -> String {
    match line.split_once(" AUTO_INCREMENT=") {
        Some((before, after)) => before.to_owned() + after.trim_start_matches(|char: char| char.is_ascii_digit()),
        None => line.to_owned(),
    }
}

/// Bytes that a file takes on disk.
pub fn disk_bytes(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let meta = std::fs::metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    meta.blocks() * 512
}
