//! Questions to the server, asked through the client program `mariadb`.
//!
//! The client reads the same option files and speaks TLS and authenticates by the same plugins as `mariadb-backup`: where
//! one gets in, so does the other. Its output is taken as XML, the only form that tells NULL from the word and keeps line
//! breaks.

use std::{path::PathBuf, time::Duration};

use super::{
    bounded::{self, RunError},
    connection::{Connection, ConnectionError},
    tool::{ToolError, Tools},
};
use crate::error::{Diagnose, Kind};

/// Longest time for one batch of statements, all of which read what the server has in memory.
const QUERY_LIMIT: Duration = Duration::from_secs(60);

/// Time for the client to connect; shorter than [`QUERY_LIMIT`], so that its own error comes first.
const CONNECT_TIMEOUT_S: u32 = 15;

/// Longest output of a batch: all variables and states of a server are a few hundred KiB.
const OUTPUT_BYTES_MAX: usize = 32 << 20;

/// What one statement returned.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResultSet {
    /// Names of the columns in the server's order; none when there are no rows.
    pub columns: Vec<String>,
    /// Rows in the server's order; a value that is absent is SQL's NULL.
    pub rows: Vec<Vec<Option<String>>>,
}

/// A way to ask one server.
#[derive(Debug, Clone)]
pub struct Session<'a> {
    tools: &'a Tools,
    connection: &'a Connection,
}

impl<'a> Session<'a> {
    /// Prepares to ask the server at the end of `connection`; nothing happens before the first question.
    pub fn new(tools: &'a Tools, connection: &'a Connection) -> Session<'a> {
        Session { tools, connection }
    }

    /// Runs one statement and returns its rows.
    ///
    /// # Errors
    /// As for [`Session::batch`].
    pub fn query(&self, statement: &str) -> Result<Vec<Vec<Option<String>>>, SqlError> {
        Ok(self.batch(&[statement])?.pop().unwrap_or_default().rows)
    }

    /// Runs statements in one connection, each of which must return a result set, if an empty one.
    ///
    /// # Errors
    /// When the client is missing, the server refuses the connection or a statement, or no answer comes in time.
    pub fn batch(&self, statements: &[&str]) -> Result<Vec<ResultSet>, SqlError> {
        let sets = self.run(statements, QUERY_LIMIT)?;
        if sets.len() == statements.len() { Ok(sets) } else { Err(SqlError::Garbled) }
    }

    /// Runs statements of any kind in one connection, for `limit` at most, and returns the result sets of those that have
    /// one. The first that fails is the last.
    ///
    /// # Errors
    /// As for [`Session::batch`].
    pub fn run(&self, statements: &[&str], limit: Duration) -> Result<Vec<ResultSet>, SqlError> {
        let client = self.tools.client()?;
        let connection = self.connection.open()?;
        let mut command = self.tools.command(client);
        connection.apply(&mut command);
        command.args(["--xml", "--batch", "--default-character-set=utf8mb4", "--skip-auto-rehash", "--skip-reconnect"]);
        command.arg(format!("--connect-timeout={CONNECT_TIMEOUT_S}"));
        let mut input = statements.join(";\n");
        input += ";\n";
        let output = bounded::run(command, Some(input.as_bytes()), limit, OUTPUT_BYTES_MAX)
            .map_err(|source| SqlError::Client { path: client.path.clone(), source })?;
        if !output.status.success() {
            return Err(SqlError::from_client(&String::from_utf8_lossy(&output.stderr)));
        }
        ResultSet::parse_all(&String::from_utf8_lossy(&output.stdout)).ok_or(SqlError::Garbled)
    }
}

/// A name as SQL takes it, whatever is in it.
pub fn quoted_name(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// A text as SQL takes it, whatever is in it and whatever the `sql_mode`.
pub fn quoted_text(text: &str) -> String {
    if text.is_empty() {
        return "''".to_owned();
    }
    format!("CONVERT(0x{} USING utf8mb4)", hex::encode(text))
}

impl ResultSet {
    /// Reads the client's XML (MariaDB `client/mysql.cc`, `print_table_data_xml`), which has one shape only; none if it is
    /// cut short.
    pub fn parse_all(text: &str) -> Option<Vec<ResultSet>> {
        let mut sets = vec![];
        let mut rest = text;
        while let Some(at) = rest.find("<resultset ") {
            // Text is escaped everywhere, in attributes too: a `>` is always markup.
            rest = &rest[at + rest[at..].find('>')? + 1..];
            let end = rest.find("</resultset>")?;
            sets.push(parse_rows(&rest[..end])?);
            rest = &rest[end..];
        }
        Some(sets)
    }

    /// The value of column `name` in the first row; nothing if there is none, or it is NULL.
    pub fn value(&self, name: &str) -> Option<&str> {
        let place = self.columns.iter().position(|column| column == name)?;
        self.rows.first()?.get(place)?.as_deref()
    }
}

fn parse_rows(text: &str) -> Option<ResultSet> {
    let (mut columns, mut rows) = (vec![], vec![]);
    for row in text.split("<row>").skip(1) {
        let mut rest = row.split_once("</row>")?.0;
        let mut values = vec![];
        let first = rows.is_empty();
        while let Some(at) = rest.find("<field ") {
            let close = at + rest[at..].find('>')?;
            let tag = &rest[at..close];
            if first {
                columns.push(unescape(tag.strip_prefix("<field name=\"")?.split_once('"')?.0));
            }
            rest = &rest[close + 1..];
            if tag.ends_with("xsi:nil=\"true\" /") {
                values.push(None);
                continue;
            }
            let (value, after) = rest.split_once("</field>")?;
            values.push(Some(unescape(value)));
            rest = after;
        }
        rows.push(values);
    }
    Some(ResultSet { columns, rows })
}

fn unescape(text: &str) -> String {
    let plain = text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&#0;", "\0");
    plain.replace("&amp;", "&")
}

/// Why the server gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum SqlError {
    /// The client program is missing.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// The connection's options are wrong.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    /// The client program could not be run, or hung.
    #[error("cannot ask the server through {path:?}")]
    Client {
        /// The program.
        path: PathBuf,
        /// What went wrong.
        source: RunError,
    },
    /// No server answers.
    #[error("the server cannot be reached: {message} (error {code})")]
    Unreachable {
        /// The client library's error number.
        code: u16,
        /// Its message.
        message: String,
    },
    /// The server does not let the account in.
    #[error("the server refuses the login: {message} (error {code})")]
    AccessDenied {
        /// The server's error number.
        code: u16,
        /// Its message.
        message: String,
    },
    /// The account may not do this.
    #[error("the account lacks a privilege: {message} (error {code})")]
    MissingPrivilege {
        /// The server's error number.
        code: u16,
        /// Its message.
        message: String,
    },
    /// Any other error of the server or the client.
    #[error("the server refuses: {message} (error {code})")]
    Other {
        /// The error number; 0 when the client failed without one.
        code: u16,
        /// The message.
        message: String,
    },
    /// The client ended well and printed something else than the answers.
    #[error("the client's answer cannot be read")]
    Garbled,
}

impl SqlError {
    /// Whether no server answers, so that one may yet.
    pub fn is_no_connection(&self) -> bool {
        matches!(self, SqlError::Unreachable { .. })
    }

    /// Reads `ERROR 1045 (28000): Access denied …` or `ERROR 1064 (42000) at line 1: …`.
    pub fn from_client(stderr: &str) -> SqlError {
        let found = stderr.lines().find_map(|line| {
            let (code, rest) = line.strip_prefix("ERROR ")?.split_once(' ')?;
            let (_, message) = rest.split_once(": ")?;
            Some((code.parse::<u16>().ok()?, message.chars().take(500).collect::<String>()))
        });
        let Some((code, message)) = found else {
            let message = stderr.trim().chars().take(500).collect();
            return SqlError::Other { code: 0, message };
        };
        match code {
            // Client library: connect, unknown host, gone away, lost, TLS. Server: shutting down.
            2002..=2006 | 2012 | 2013 | 2026 | 2055 | 1053 => SqlError::Unreachable { code, message },
            // Wrong password, host not allowed or blocked, no such plugin, account locked, password expired.
            1044 | 1045 | 1129 | 1130 | 1251 | 1524 | 1698 | 1820 | 1862 | 2059 | 2061 | 4151 => {
                SqlError::AccessDenied { code, message }
            }
            1142 | 1143 | 1227 | 1370 => SqlError::MissingPrivilege { code, message },
            _ => SqlError::Other { code, message },
        }
    }
}

impl Diagnose for SqlError {
    fn kind(&self) -> Kind {
        match self {
            SqlError::Tool(error) => error.kind(),
            SqlError::Connection(error) => error.kind(),
            _ => Kind::DatabaseRefused,
        }
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            SqlError::Tool(error) => return error.hint(),
            SqlError::Connection(error) => return error.hint(),
            SqlError::Unreachable { .. } => "check that the server runs and that socket, host and port are right",
            SqlError::AccessDenied { .. } => "check user, password and the account's host",
            SqlError::MissingPrivilege { .. } => {
                "GRANT RELOAD, PROCESS, LOCK TABLES, BINLOG MONITOR ON *.* to the account"
            }
            SqlError::Client { source: RunError::Timeout(_), .. } => "see whether the server answers at all",
            SqlError::Client { .. } | SqlError::Other { .. } | SqlError::Garbled => return None,
        };
        Some(hint.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `mariadb --xml` prints it for values with every special character.
    const XML: &str = "<?xml version=\"1.0\"?>\n\n<resultset statement=\"select 1 a, concat('x&lt;y&gt;&amp;&quot;z') b\" \
        xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\">\n  <row>\n\t<field name=\"a\">1</field>\n\
        \t<field name=\"b\" xsi:nil=\"true\" />\n\t<field name=\"c\">NULL</field>\n\t<field name=\"d\"></field>\n\
        \t<field name=\"e&lt;&quot;\">x&lt;y&gt;&amp;amp;&quot;z\t\tq\nnew</field>\n  </row>\n  <row>\n\
        \t<field name=\"a\">2</field>\n  </row>\n</resultset>\n<?xml version=\"1.0\"?>\n\n<resultset \
        statement=\"select 1 from dual where 0\" xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\"></resultset>\n";

    #[test]
    fn values_come_back_as_the_server_has_them() {
        let sets = ResultSet::parse_all(XML).unwrap();
        assert_eq!(sets.len(), 2);
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(sets[0].rows[0], [some("1"), None, some("NULL"), some(""), some("x<y>&amp;\"z\t\tq\nnew")]);
        assert_eq!(sets[0].rows[1], [some("2")]);
        assert_eq!(sets[0].columns, ["a", "b", "c", "d", "e<\""]);
        assert_eq!((sets[0].value("c"), sets[0].value("b"), sets[0].value("x")), (Some("NULL"), None, None));
        assert!(sets[1].rows.is_empty());
    }

    #[test]
    fn an_answer_cut_short_is_no_answer() {
        let last = XML.rfind("</resultset>").unwrap();
        for end in [last, XML.find("</row>").unwrap(), XML.find("</field>").unwrap()] {
            assert!(ResultSet::parse_all(&XML[..end]).is_none(), "{end}");
        }
    }

    #[test]
    fn errors_are_told_apart_by_their_number() {
        let class = |stderr: &str| SqlError::from_client(stderr);
        let down = class("ERROR 2002 (HY000): Can't connect to local server through socket 'nope' (2)\n");
        assert!(matches!(down, SqlError::Unreachable { code: 2002, .. }), "{down}");
        let denied = class("ERROR 1045 (28000): Access denied for user 'b2'@'localhost' (using password: YES)");
        assert!(matches!(denied, SqlError::AccessDenied { code: 1045, .. }), "{denied}");
        let privilege = class(
            "--------------\nshow binlog status\n--------------\n\nERROR 1227 (42000) at line 1: Access denied; you need \
             (at least one of) the SUPER, BINLOG MONITOR privilege(s) for this operation\n",
        );
        assert!(privilege.to_string().contains("BINLOG MONITOR"), "{privilege}");
        assert!(matches!(privilege, SqlError::MissingPrivilege { .. }));
        assert!(matches!(class("unknown option '--x'"), SqlError::Other { code: 0, .. }));
    }

    proptest::proptest! {
        #[test]
        fn any_output_is_read_without_a_panic(text in "(<resultset |<row>|</row>|<field |</field>|</resultset>|>|ü|[ a&;]){0,40}") {
            ResultSet::parse_all(&text);
            SqlError::from_client(&text);
        }
    }
}
