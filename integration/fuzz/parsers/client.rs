//! What MariaDB's client prints: answers, errors, versions, grants.

use haulout::mariadb::{
    facts::Privileges,
    sql::{ResultSet, SqlError},
    tool::ServerVersion,
};

/// The first byte tells what follows: what the client printed, or the values of one row with line breaks between them.
pub fn check(input: &[u8]) {
    let Some((how, rest)) = input.split_first() else { return };
    let text = String::from_utf8_lossy(rest);
    if how % 2 == 1 {
        return row(&text);
    }
    let _ = ResultSet::parse_all(&text);
    let _ = SqlError::from_client(&text).to_string();
    if let Ok(version) = text.parse::<ServerVersion>() {
        let _ = (version.to_string(), version.series());
    }
    let grants: Vec<_> = text.lines().map(str::to_owned).collect();
    let privileges = Privileges::from_grants(&grants);
    assert!(privileges.missing.len() <= 3 && privileges.advised.len() <= 1);
}

/// Values come back as the client wrote them; an empty line stands for NULL.
fn row(text: &str) {
    let values: Vec<Option<String>> =
        text.split('\n').map(|value| (!value.is_empty()).then(|| value.to_owned())).collect();
    let field = |value: &Option<String>| match value {
        None => "\t<field name=\"a\" xsi:nil=\"true\" />\n".to_owned(),
        Some(value) => format!("\t<field name=\"{0}\">{0}</field>\n", escaped(value)),
    };
    let fields: String = values.iter().map(field).collect();
    let statement = escaped(text);
    let xml = format!(
        "<?xml version=\"1.0\"?>\n\n<resultset statement=\"{statement}\" xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\">\
         \n  <row>\n{fields}  </row>\n</resultset>\n"
    );
    let sets = ResultSet::parse_all(&xml).expect("a whole answer");
    assert_eq!((sets.len(), &sets[0].rows), (1, &vec![values]));
}

/// As the client does it (MariaDB `client/mysql.cc`, `xmlmeta`).
fn escaped(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    text.replace('"', "&quot;").replace('\0', "&#0;")
}
