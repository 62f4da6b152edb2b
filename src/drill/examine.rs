//! Asks the restored server whether it is what the backup says: which tables it has, CHECK TABLE, and what the operator wants to be true.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::DrillError;
use super::findings::{Findings, causes, cut};
use super::inventory::{Inventory, Sort};
use super::sample::{batches, shuffle};
use crate::format::{ProofAssertion, ProofSample, ProofSpaces, ProofTables};
use crate::mariadb::scratch::ScratchServer;
use crate::mariadb::sql::{ResultSet, Session, SqlError, quoted_name};
use crate::mariadb::tool::Tools;
use crate::model::Phase;
use crate::restore::{TableName, Watch};

/// Longest time for the list of all tables: the server opens the definition of each.
const LIST_LIMIT: Duration = Duration::from_secs(3600);
/// Longest time for one CHECK TABLE: some terabytes from a slow disk.
const CHECK_LIMIT: Duration = Duration::from_secs(48 * 3600);
/// The least time that a statement gets.
const LEAST_TIME: Duration = Duration::from_secs(1);
/// What the client has beyond the time that the server has for a statement.
const CLIENT_MARGIN: Duration = Duration::from_secs(60);
/// Longest time for one assertion.
const ASSERTION_LIMIT: Duration = Duration::from_secs(3600);
/// Bytes of tables that one statement checks, so that progress shows and a wish to stop is heard.
const BATCH_BYTES: u64 = 256 << 20;
/// The same where there is a limit of time.
const BATCH_BYTES_TIMED: u64 = 32 << 20;
/// Beginning of a statement in a message.
const STATEMENT_SHOWN: usize = 200;

/// Keeps a statement from changing anything; of the session, because DDL ends a transaction.
const READ_ONLY: &str = "SET SESSION TRANSACTION READ ONLY";
const LIST_TABLES: &str = "SELECT table_schema, table_name, table_type FROM information_schema.tables \
                           WHERE table_schema NOT IN ('information_schema', 'performance_schema')";
/// Tables, partitions and indexes that have files of their own.
const LIST_SPACES: &str = "SELECT name FROM information_schema.innodb_sys_tables WHERE space <> 0";

/// What is asked.
#[derive(Debug, Clone)]
pub(super) struct Questions {
    /// By what tables are chosen; all are checked when absent.
    pub sample: Option<ProofSample>,
    /// Statements of which each must return one true value.
    pub assertions: Vec<String>,
}

/// What came back.
#[derive(Debug, Default)]
pub(super) struct Examined {
    pub tables: ProofTables,
    pub spaces: ProofSpaces,
    pub assertions: Vec<ProofAssertion>,
    pub check_ms: u64,
    pub assert_ms: u64,
    pub findings: Findings,
}

/// Asks one server.
pub(super) struct Examiner {
    pub tools: Tools,
    pub inventory: Arc<Inventory>,
    pub questions: Questions,
    pub watch: Watch,
}

/// What CHECK TABLE says of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    Sound,
    /// Sound, but for something that it says.
    Odd(String),
    Damaged(String),
    /// There was no time.
    LeftOut,
}

impl Examiner {
    /// Asks everything. Blocks for as long as that takes.
    ///
    /// # Errors
    /// [`DrillError::Interrupted`] alone: whatever is wrong with the server is a finding.
    pub fn examine(&self, server: &ScratchServer) -> Result<Examined, DrillError> {
        let mut examined = Examined::default();
        let begun = Instant::now();
        examined.tables.expected = self.inventory.definitions.len() as u64;
        examined.spaces.expected = self.inventory.spaces();
        match self.list(server) {
            Ok((tables, spaces)) => self.check_tables(server, &tables, &spaces, begun, &mut examined)?,
            Err(error) => {
                self.check_stop()?;
                examined.findings.fail(format!("the restored server's tables cannot be listed: {}", causes(&error)));
            }
        }
        examined.check_ms = begun.elapsed().as_millis() as u64;
        let begun = Instant::now();
        for statement in &self.questions.assertions {
            self.check_stop()?;
            let (passed, found) = self.ask(server, statement);
            if !passed {
                let shown: String = statement.chars().take(STATEMENT_SHOWN).collect();
                examined.findings.fail(format!("assertion `{shown}` came back with {found}, not with one true value"));
            }
            examined.assertions.push(ProofAssertion { statement: cut(statement), passed, found: cut(&found) });
        }
        self.check_stop()?;
        examined.assert_ms = begun.elapsed().as_millis() as u64;
        Ok(examined)
    }

    fn check_stop(&self) -> Result<(), DrillError> {
        if self.watch.cancel.is_requested() { Err(DrillError::Interrupted) } else { Ok(()) }
    }

    fn session<'a>(&'a self, server: &'a ScratchServer) -> Session<'a> {
        Session::new(&self.tools, server.connection())
    }

    /// Tables that the server shows, and the tablespaces of its dictionary.
    fn list(&self, server: &ScratchServer) -> Result<(BTreeMap<TableName, Sort>, BTreeSet<String>), SqlError> {
        let sets = self.session(server).run(&[LIST_TABLES, LIST_SPACES], LIST_LIMIT)?;
        let [tables, spaces] = sets.as_slice() else { return Err(SqlError::Garbled) };
        let table = |row: &Vec<Option<String>>| match row.as_slice() {
            [Some(schema), Some(table), Some(sort)] => {
                let sort = if sort.ends_with("VIEW") { Sort::View } else { Sort::Table };
                Some((TableName { schema: schema.clone(), table: table.clone() }, sort))
            }
            _ => None,
        };
        let tables: Option<BTreeMap<TableName, Sort>> = tables.rows.iter().map(table).collect();
        let spaces = spaces.rows.iter().filter_map(|row| row.first()?.clone()).collect();
        Ok((tables.ok_or(SqlError::Garbled)?, spaces))
    }

    fn check_tables(
        &self,
        server: &ScratchServer,
        found: &BTreeMap<TableName, Sort>,
        spaces: &BTreeSet<String>,
        begun: Instant,
        examined: &mut Examined,
    ) -> Result<(), DrillError> {
        let Examined { tables, findings, .. } = examined;
        self.inventory.compare(found, findings);
        let (spaces, first) = self.inventory.compare_spaces(spaces, findings);
        let (mut order, mut later): (Vec<TableName>, Vec<TableName>) = found
            .iter()
            .filter(|(_, sort)| **sort == Sort::Table)
            .map(|(table, _)| table.clone())
            .partition(|table| first.contains(table));
        tables.found = found.len() as u64;
        tables.views = tables.found - (order.len() + later.len()) as u64;
        let deadline = self.questions.sample.map(|sample| {
            shuffle(&mut later, sample.seed);
            begun + Duration::from_secs(sample.seconds)
        });
        order.append(&mut later);
        let total = order.len() as u64;
        let bytes_max = if deadline.is_some() { BATCH_BYTES_TIMED } else { BATCH_BYTES };
        let progress = self.watch.progress.as_ref();
        progress.begin(Phase::Check, Some(total));
        for batch in batches(order, bytes_max, |table| self.inventory.bytes(table)) {
            self.check_stop()?;
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            // A drill that checks nothing proves nothing: some tables always get a moment.
            if left.is_some_and(|left| left.is_zero()) && tables.checked > 0 {
                break;
            }
            let Some(verdicts) = self.check(server, &batch, left, findings) else {
                self.check_stop()?;
                break;
            };
            for (table, verdict) in batch.iter().zip(verdicts) {
                match &verdict {
                    Verdict::LeftOut => continue,
                    Verdict::Sound => {}
                    Verdict::Odd(said) => findings.warn(format!("CHECK TABLE {table}: {said}")),
                    Verdict::Damaged(said) => {
                        tables.damaged += 1;
                        findings.fail(format!("CHECK TABLE {table}: {said}"));
                    }
                }
                tables.checked += 1;
            }
            progress.advance(Phase::Check, batch.len() as u64);
        }
        progress.end(Phase::Check);
        tables.left_out = total - tables.checked;
        if tables.checked == 0 {
            findings.fail("no table was checked");
        }
        examined.spaces = spaces;
        Ok(())
    }

    /// Checks a few tables, in the `left` time where there is a limit; nothing when the server is gone.
    fn check(
        &self,
        server: &ScratchServer,
        tables: &[TableName],
        left: Option<Duration>,
        findings: &mut Findings,
    ) -> Option<Vec<Verdict>> {
        // In whole milliseconds, as the server is told it.
        let left = left.map(|left| Duration::from_millis(left.max(LEAST_TIME).as_millis() as u64));
        let quoted = |table: &TableName| format!("{}.{}", quoted_name(&table.schema), quoted_name(&table.table));
        let names: Vec<String> = tables.iter().map(quoted).collect();
        let names = names.join(", ");
        let (statement, limit) = match left {
            None => (format!("CHECK TABLE {names}"), CHECK_LIMIT),
            Some(left) => {
                let seconds = left.as_secs_f64();
                (
                    format!("SET STATEMENT max_statement_time = {seconds:.3} FOR CHECK TABLE {names}"),
                    left + CLIENT_MARGIN,
                )
            }
        };
        let begun = Instant::now();
        match self.session(server).run(&[&statement], limit) {
            Ok(sets) => Some(judge(tables, &sets, left.is_some_and(|left| begun.elapsed() >= left))),
            Err(_) if self.watch.cancel.is_requested() => None,
            Err(error) if server.has_ended() || matches!(error, SqlError::Unreachable { .. }) => {
                let (first, more) = (&tables[0], tables.len() - 1);
                let said = server.errors().join(" | ");
                findings.fail(format!("mariadbd ended while it checked {first} and {more} others: {error}: {said}"));
                None
            }
            // The server was told to end it, and did not.
            Err(SqlError::Client { .. }) if left.is_some() => Some(vec![Verdict::LeftOut; tables.len()]),
            // One of them may be such that the statement is refused.
            Err(_) if tables.len() > 1 => {
                let one = |table: &TableName| {
                    let left = left.map(|left| left.saturating_sub(begun.elapsed()));
                    self.check(server, std::slice::from_ref(table), left, findings)
                };
                let verdicts: Option<Vec<Vec<Verdict>>> = tables.iter().map(one).collect();
                verdicts.map(|verdicts| verdicts.concat())
            }
            Err(error) => Some(vec![Verdict::Damaged(causes(&error))]),
        }
    }

    /// Whether a statement returns one true value, and what it returns.
    fn ask(&self, server: &ScratchServer, statement: &str) -> (bool, String) {
        let statement = statement.trim_end().trim_end_matches(';');
        match self.session(server).run(&[READ_ONLY, "START TRANSACTION", statement], ASSERTION_LIMIT) {
            Ok(sets) => truth(&sets),
            Err(error) => (false, causes(&error)),
        }
    }
}

/// What CHECK TABLE says of each of `tables`; `late` when it took all the time that it had.
fn judge(tables: &[TableName], sets: &[ResultSet], late: bool) -> Vec<Verdict> {
    let mut said: BTreeMap<&str, Vec<(&str, &str)>> = BTreeMap::new();
    for row in sets.iter().flat_map(|set| &set.rows) {
        if let [Some(table), _, Some(sort), Some(text)] = row.as_slice() {
            said.entry(table).or_default().push((sort, text));
        }
    }
    let judge = |table: &TableName| match said.get(table.to_string().as_str()) {
        Some(rows) => verdict(rows),
        // The statement ends where its time does.
        None if said.values().flatten().any(|(_, text)| is_out_of_time(text)) => Verdict::LeftOut,
        None => Verdict::Damaged("the server said nothing of it".to_owned()),
    };
    let mut verdicts: Vec<Verdict> = tables.iter().map(judge).collect();
    if late {
        // InnoDB says OK of a table in whose midst the time was over (`ha_innobase::check`; seen on 10.11.19): the last before those that
        // were not begun.
        let begun = verdicts.iter().position(|verdict| *verdict == Verdict::LeftOut).unwrap_or(verdicts.len());
        let last = verdicts[..begun].last_mut().filter(|verdict| !matches!(verdict, Verdict::Damaged(_)));
        last.into_iter().for_each(|verdict| *verdict = Verdict::LeftOut);
    }
    verdicts
}

fn is_out_of_time(text: &str) -> bool {
    text.contains("max_statement_time exceeded")
}

/// What the rows of a table mean, each a sort of message and its text (MariaDB `sql_admin.cc`, `mysql_admin_table`).
fn verdict(rows: &[(&str, &str)]) -> Verdict {
    let texts = || rows.iter().map(|(_, text)| *text).collect::<Vec<_>>().join("; ");
    if rows.iter().any(|(_, text)| is_out_of_time(text)) {
        return Verdict::LeftOut;
    }
    // So it was on the server that was backed up.
    if rows.iter().any(|(_, text)| text.contains("Tablespace has been discarded")) {
        return Verdict::Odd(texts());
    }
    let fine = |(sort, text): &(&str, &str)| match *sort {
        "status" => ["OK", "Table is already up to date"].contains(text),
        "note" | "Note" => true,
        _ => false,
    };
    match rows.last() {
        Some(last) if !fine(last) => Verdict::Damaged(texts()),
        _ if rows.iter().any(|(sort, _)| sort.eq_ignore_ascii_case("error")) => Verdict::Damaged(texts()),
        _ if rows.iter().any(|(sort, _)| sort.eq_ignore_ascii_case("warning")) => Verdict::Odd(texts()),
        _ => Verdict::Sound,
    }
}

/// Whether these are one value that is a number other than 0; and what they are, in words.
fn truth(sets: &[ResultSet]) -> (bool, String) {
    let rows = match sets {
        [] => return (false, "no row".to_owned()),
        [set] => &set.rows,
        several => return (false, format!("{} results", several.len())),
    };
    let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "NULL".to_owned());
    match rows.as_slice() {
        [] => (false, "no row".to_owned()),
        [row] => match row.as_slice() {
            [value] => {
                let number = value.as_deref().and_then(|text| text.trim().parse::<f64>().ok());
                (number.is_some_and(|number| number != 0.0 && !number.is_nan()), shown(value))
            }
            values => {
                (false, format!("{} values: {}", values.len(), values.iter().map(shown).collect::<Vec<_>>().join(", ")))
            }
        },
        [first, ..] => {
            let first: Vec<String> = first.iter().map(shown).collect();
            (false, format!("{} rows, the first of which is {}", rows.len(), first.join(", ")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(rows: &[&[Option<&str>]]) -> ResultSet {
        let row = |row: &&[Option<&str>]| row.iter().map(|value| value.map(str::to_owned)).collect();
        ResultSet { rows: rows.iter().map(row).collect(), ..ResultSet::default() }
    }

    #[test]
    fn only_one_value_that_is_a_number_and_not_0_is_true() {
        let of = |rows: &[&[Option<&str>]]| truth(&[set(rows)]);
        for value in ["1", "-3", "0.5", " 7 ", "1e3", "18446744073709551615"] {
            assert_eq!(of(&[&[Some(value)]]), (true, value.to_owned()));
        }
        for value in ["0", "0.00", "-0", "", "yes", "1; DROP", "nan", "2026-11-22"] {
            assert_eq!(of(&[&[Some(value)]]), (false, value.to_owned()));
        }
        assert_eq!(of(&[&[None]]), (false, "NULL".to_owned()));
        assert_eq!(of(&[]), (false, "no row".to_owned()));
        assert_eq!(truth(&[]), (false, "no row".to_owned()));
        assert_eq!(of(&[&[Some("1"), None]]), (false, "2 values: 1, NULL".to_owned()));
        assert_eq!(of(&[&[Some("1")], &[Some("1")]]), (false, "2 rows, the first of which is 1".to_owned()));
        assert_eq!(truth(&[set(&[]), set(&[])]), (false, "2 results".to_owned()));
    }

    #[test]
    fn what_check_table_says_is_understood() {
        let said = |rows: &[(&str, &str)]| verdict(rows);
        assert_eq!(said(&[("status", "OK")]), Verdict::Sound);
        assert_eq!(said(&[("note", "The storage engine for the table doesn't support check")]), Verdict::Sound);
        let warning = "1 client is using or hasn't closed the table properly";
        assert_eq!(said(&[("warning", warning), ("status", "OK")]), Verdict::Odd(format!("{warning}; OK")));
        for rows in [
            &[("Warning", "InnoDB: Index 'v' contains 7 entries, should be 8"), ("error", "Corrupt")][..],
            &[("Error", "Table 'shop.x' doesn't exist in engine"), ("status", "Operation failed")],
            &[("Error", "Unknown storage engine 'ARCHIVE'"), ("error", "Corrupt")],
            &[("error", "Size of datafile is: 4 Should be: 7"), ("status", "OK")],
            &[("status", "Operation failed")],
        ] {
            assert!(matches!(said(rows), Verdict::Damaged(_)), "{rows:?}");
        }
        assert!(matches!(
            said(&[("Error", "Tablespace has been discarded for table `x`"), ("error", "Corrupt")]),
            Verdict::Odd(_)
        ));
        let out = ("Error", "Query execution was interrupted (max_statement_time exceeded)");
        assert_eq!(said(&[out, ("status", "Operation failed")]), Verdict::LeftOut);
    }

    #[test]
    fn a_table_in_whose_midst_the_time_was_over_does_not_count_as_checked() {
        let tables = ["a", "b", "c"].map(|table| TableName { schema: "s".to_owned(), table: table.to_owned() });
        let ok = |table| [Some(table), Some("check"), Some("status"), Some("OK")];
        let out = |table| {
            [
                Some(table),
                Some("check"),
                Some("Error"),
                Some("Query execution was interrupted (max_statement_time exceeded)"),
            ]
        };
        let told = set(&[&ok("s.a"), &ok("s.b"), &out("s.c")]);
        assert_eq!(judge(&tables, &[told], true), [Verdict::Sound, Verdict::LeftOut, Verdict::LeftOut]);
        let told = set(&[&ok("s.a"), &ok("s.b"), &ok("s.c")]);
        assert_eq!(
            judge(&tables, std::slice::from_ref(&told), true),
            [Verdict::Sound, Verdict::Sound, Verdict::LeftOut]
        );
        assert_eq!(judge(&tables, &[told], false), [const { Verdict::Sound }; 3]);
        let bad = [Some("s.b"), Some("check"), Some("error"), Some("Corrupt")];
        let told = set(&[&ok("s.a"), &bad, &out("s.c")]);
        let verdicts = judge(&tables, &[told], true);
        assert!(matches!(verdicts[1], Verdict::Damaged(_)) && verdicts[0] == Verdict::Sound, "{verdicts:?}");
        assert_eq!(judge(&tables[..1], &[set(&[&out("s.a")])], true), [Verdict::LeftOut]);
    }

    #[test]
    fn every_table_of_a_statement_gets_a_verdict_whatever_came_back() {
        let names = ["a", "b.c", "d"];
        let tables = names.map(|table| TableName { schema: "s".to_owned(), table: table.to_owned() });
        let row = |table, sort, text| [Some(table), Some("check"), Some(sort), Some(text)];
        let (first, second) = (row("s.a", "status", "OK"), row("s.b.c", "status", "OK"));
        let verdicts = judge(&tables, &[set(&[&first, &second])], false);
        assert_eq!(verdicts[..2], [Verdict::Sound, Verdict::Sound]);
        assert!(matches!(verdicts[2], Verdict::Damaged(_)));
        let late = row("s.b.c", "Error", "Query execution was interrupted (max_statement_time exceeded)");
        let verdicts = judge(&tables, &[set(&[&first, &late])], false);
        assert_eq!(verdicts, [Verdict::Sound, Verdict::LeftOut, Verdict::LeftOut]);
        assert_eq!(judge(&tables, &[set(&[&[None, None]])], true).len(), 3);
    }
}
