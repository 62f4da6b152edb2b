//! Where transactions begin and end in a row of events.

use super::event::{BinlogError, Event, kinds};
use crate::model::Gtid;

/// A transaction that is whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transaction {
    /// Its name.
    pub gtid: Gtid,
    /// When its last statement began, in seconds since 1970, as its first event says: that is the COMMIT, or what commits by itself.
    pub time: u32,
}

/// What an event is to the transactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// It belongs to none.
    Between,
    /// A transaction begins with it.
    Begin(Transaction),
    /// It is inside of one.
    Within,
    /// A transaction ends with it.
    End(Transaction),
}

/// Follows the events of a log.
///
/// Source: MariaDB `sql/sql_repl.cc` and `sql/log_event.h` (`Log_event::is_part_of_group`, `Query_log_event::peek_is_commit_rollback`).
#[derive(Debug, Default)]
pub struct Transactions {
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    transaction: Transaction,
    standalone: bool,
}

impl Transactions {
    /// True inside of a transaction.
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Takes the next event, which begins at byte `at` of `what`.
    ///
    /// # Errors
    /// When a transaction begins before the one before it has ended, or changes come that belong to none.
    pub fn step(&mut self, event: &Event, what: &str, at: u64) -> Result<Step, BinlogError> {
        let damaged = |problem: String| Err(BinlogError::Damaged { what: what.to_owned(), at, problem });
        if let Some(begin) = event.gtid() {
            if let Some(open) = &self.open {
                return damaged(format!("transaction {} begins inside of {}", begin.gtid, open.transaction.gtid));
            }
            let transaction = Transaction { gtid: begin.gtid, time: event.timestamp };
            self.open = Some(Open { transaction, standalone: begin.standalone });
            return Ok(Step::Begin(transaction));
        }
        let outside = event.stands_between();
        let Some(open) = &self.open else {
            if outside {
                return Ok(Step::Between);
            }
            return damaged(format!("an event of type {} belongs to no transaction", event.kind));
        };
        if outside {
            // A server that is killed leaves a transaction unfinished, which is then none; made up events come in between.
            if !event.is_artificial() && event.kind != kinds::BINLOG_CHECKPOINT {
                self.open = None;
            }
            return Ok(Step::Between);
        }
        let prelude = matches!(
            event.kind,
            kinds::INTVAR
                | kinds::RAND
                | kinds::USER_VAR
                | kinds::TABLE_MAP
                | kinds::ANNOTATE_ROWS
                | kinds::BEGIN_LOAD_QUERY
                | kinds::APPEND_BLOCK
        );
        let ends = match open.standalone {
            true => !prelude,
            false => matches!(event.kind, kinds::XID | kinds::XA_PREPARE) || event.is_commit_or_rollback(),
        };
        if !ends {
            return Ok(Step::Within);
        }
        let transaction = open.transaction;
        self.open = None;
        Ok(Step::End(transaction))
    }
}

#[cfg(test)]
mod tests {
    use super::super::event::{EventParser, tests as made};
    use super::*;

    fn steps(file: &[u8]) -> Result<Vec<Step>, BinlogError> {
        let (mut parser, mut transactions) = (EventParser::new("b", 4), Transactions::default());
        let (mut rest, mut steps) = (file, Vec::new());
        while let Some(event) = parser.next(&mut rest)? {
            steps.push(transactions.step(&event, "b", 0)?);
        }
        Ok(steps)
    }

    #[test]
    fn a_transaction_ends_with_its_commit() {
        let file = [made::format_description(1), made::transaction(5, "0-1-7", "INSERT")].concat();
        let whole = Transaction { gtid: "0-1-7".parse().unwrap(), time: 5 };
        assert_eq!(steps(&file).unwrap(), [Step::Between, Step::Begin(whole), Step::Within, Step::End(whole)]);
    }

    #[test]
    fn what_commits_by_itself_ends_with_its_statement() {
        let file = [
            made::format_description(1),
            made::gtid(5, "0-1-8", true),
            made::event(5, kinds::INTVAR, 1, &[0; 9]),
            made::event(6, kinds::QUERY, 1, b"DROP TABLE t"),
            made::event(6, kinds::BINLOG_CHECKPOINT, 1, b"b"),
        ]
        .concat();
        let whole = Transaction { gtid: "0-1-8".parse().unwrap(), time: 5 };
        let expected = [Step::Between, Step::Begin(whole), Step::Within, Step::End(whole), Step::Between];
        assert_eq!(steps(&file).unwrap(), expected);
    }

    #[test]
    fn what_belongs_to_no_transaction_is_refused() {
        let first = made::format_description(1);
        assert!(steps(&[first.clone(), made::event(5, kinds::QUERY, 1, b"DROP TABLE t")].concat()).is_err());
        let two = [first, made::gtid(5, "0-1-8", false), made::gtid(5, "0-1-9", false)].concat();
        assert!(steps(&two).unwrap_err().to_string().contains("0-1-9 begins inside of 0-1-8"));
    }
}
