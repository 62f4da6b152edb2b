//! The settings file: TOML, with each fault named by its line.

use std::{
    collections::BTreeMap,
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use toml::de::{DeTable, DeValue};

use super::{SettingsError, keys};

/// Longest settings file: all keys with all their comments take a few KiB, and the parser can take a thousand times the
/// length of a malicious one.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// A value as the file has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Raw {
    /// A text.
    Text(String),
    /// A whole number in decimal digits.
    Integer(String),
    /// True or false.
    Boolean(bool),
    /// A list of texts.
    List(Vec<String>),
    /// Something that no setting holds.
    Other(&'static str),
}

impl Raw {
    /// What it is, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Raw::Text(_) => "a text",
            Raw::Integer(_) => "a number",
            Raw::Boolean(_) => "true or false",
            Raw::List(_) => "a list",
            Raw::Other(kind) => kind,
        }
    }
}

impl From<&DeValue<'_>> for Raw {
    fn from(value: &DeValue<'_>) -> Raw {
        match value {
            DeValue::String(text) => Raw::Text(text.to_string()),
            DeValue::Integer(number) if number.radix() == 10 => Raw::Integer(number.as_str().to_owned()),
            DeValue::Integer(_) => Raw::Other("a number that is not decimal"),
            DeValue::Boolean(value) => Raw::Boolean(*value),
            DeValue::Array(items) => {
                let texts: Option<_> = items.iter().map(|item| item.get_ref().as_str().map(str::to_owned)).collect();
                texts.map_or(Raw::Other("a list of other things than texts"), Raw::List)
            }
            DeValue::Float(_) => Raw::Other("a number with a point"),
            DeValue::Datetime(_) => Raw::Other("a time"),
            DeValue::Table(_) => Raw::Other("a table"),
        }
    }
}

/// A settings file: every key in it is known, and every value of the right kind.
#[derive(Debug, Clone, Default)]
pub struct SettingsFile {
    /// Where it lies.
    pub path: PathBuf,
    values: BTreeMap<(String, String), (usize, Raw)>,
}

impl SettingsFile {
    /// Reads and checks the file at `path`.
    ///
    /// # Errors
    /// When it cannot be read, is no TOML, or has an unknown key or a wrong value.
    pub fn read(path: &Path) -> Result<SettingsFile, SettingsError> {
        let failed = |source| SettingsError::Read { path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        let mut text = String::new();
        file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(failed)?;
        if text.len() as u64 > FILE_BYTES_MAX {
            return Err(SettingsError::TooLong { path: path.to_owned(), bytes_max: FILE_BYTES_MAX });
        }
        SettingsFile::parse(path, &text)
    }

    /// Checks `text`, the contents of the file at `path`.
    ///
    /// # Errors
    /// When it is no TOML, or has an unknown key or a wrong value.
    pub fn parse(path: &Path, text: &str) -> Result<SettingsFile, SettingsError> {
        let line_of = |offset: usize| 1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count();
        let at = |offset: usize| Place { path: path.to_owned(), line: line_of(offset) };
        let root = DeTable::parse(text).map_err(|error| SettingsError::Syntax {
            place: at(error.span().map_or(0, |span| span.start)),
            problem: error.message().lines().collect::<Vec<_>>().join(", "),
        })?;
        let mut values = BTreeMap::new();
        for (section, content) in root.get_ref() {
            let place = at(section.span().start);
            let Some(table) = content.get_ref().as_table() else {
                return Err(stray_key(place, section.get_ref()));
            };
            check_section(&place, section.get_ref())?;
            for (name, value) in table {
                let place = at(name.span().start);
                if let (true, Some(inner)) = (has_sections(section.get_ref()), value.get_ref().as_table()) {
                    let section = format!("{}.{}", section.get_ref(), name.get_ref());
                    check_section(&place, &section)?;
                    for (name, value) in inner {
                        let (place, raw) = (at(name.span().start), Raw::from(value.get_ref()));
                        check_key(&place, &section, name.get_ref(), &raw)?;
                        values.insert((section.clone(), name.get_ref().to_string()), (place.line, raw));
                    }
                    continue;
                }
                let raw = Raw::from(value.get_ref());
                check_key(&place, section.get_ref(), name.get_ref(), &raw)?;
                values.insert((section.get_ref().to_string(), name.get_ref().to_string()), (place.line, raw));
            }
        }
        Ok(SettingsFile { path: path.to_owned(), values })
    }

    /// Value of `name` in `section`, with its line.
    pub fn get(&self, section: &str, name: &str) -> Option<(Place, &Raw)> {
        let (line, raw) = self.values.get(&(section.to_owned(), name.to_owned()))?;
        Some((Place { path: self.path.clone(), line: *line }, raw))
    }
}

/// A line of a settings file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub path: PathBuf,
    /// Line, counted from 1.
    pub line: usize,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.path.display(), self.line)
    }
}

/// Whether sections of a job lie in `section`, as `[agent.backup]` does.
fn has_sections(section: &str) -> bool {
    keys::ALL.iter().any(|key| key.section().strip_prefix(section).is_some_and(|rest| rest.starts_with('.')))
}

/// A key outside of every section.
fn stray_key(place: Place, name: &str) -> SettingsError {
    let sections = keys::ALL.iter().map(|key| key.section());
    let owner = keys::ALL.iter().find(|key| key.name() == name).map(|key| key.section());
    let suggestion = match owner.or_else(|| nearest(name, sections)) {
        Some(section) => format!("it belongs under [{section}]"),
        None => "every key stands under a section such as [repository]".to_owned(),
    };
    SettingsError::UnknownKey { place, name: name.to_owned(), section: None, suggestion }
}

fn check_section(place: &Place, section: &str) -> Result<(), SettingsError> {
    if keys::ALL.iter().any(|key| key.section() == section) {
        return Ok(());
    }
    let suggestion = match nearest(section, keys::ALL.iter().map(|key| key.section())) {
        Some(known) => format!("did you mean [{known}]?"),
        None => "the sections are [repository], [s3], [mariadb], [backup] and [restore]".to_owned(),
    };
    Err(SettingsError::UnknownSection { place: place.clone(), section: section.to_owned(), suggestion })
}

fn check_key(place: &Place, section: &str, name: &str, raw: &Raw) -> Result<(), SettingsError> {
    if let Some(key) = keys::ALL.iter().find(|key| key.section() == section && key.name() == name) {
        return key.check(raw).map_err(|problem| SettingsError::BadValue {
            origin: place.to_string(),
            key: format!("[{section}] {name}"),
            problem,
        });
    }
    let here = keys::ALL.iter().filter(|key| key.section() == section).map(|key| key.name());
    let elsewhere = keys::ALL.iter().find(|key| key.name() == name).map(|key| key.section());
    let suggestion = match (elsewhere, nearest(name, here.clone())) {
        (Some(other), _) => format!("it belongs under [{other}]"),
        _ if ["password", "secret_access_key", "session_token"].contains(&name) => {
            format!("put the secret into a file of its own and name that as `{name}_file`")
        }
        (None, Some(known)) => format!("did you mean `{known}`?"),
        (None, None) => format!("[{section}] has the keys {}", here.collect::<Vec<_>>().join(", ")),
    };
    Err(SettingsError::UnknownKey {
        place: place.clone(),
        name: name.to_owned(),
        section: Some(section.to_owned()),
        suggestion,
    })
}

/// The word of `known` that `word` was probably meant to be.
pub(super) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (word.chars().count() / 3).max(2);
    let close = |candidate: &&str| distance(word, candidate) <= limit;
    known.filter(close).min_by_key(|candidate| distance(word, candidate))
}

/// Letters to change, add or leave out to make `one` into `other` (Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    // Both are short: keys of ours and keys of a file whose length is limited.
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (line, letter) in one.chars().enumerate() {
        let mut diagonal = line;
        row[0] = line + 1;
        for column in 0..other.len() {
            let changed = diagonal + usize::from(letter != other[column]);
            diagonal = row[column + 1];
            row[column + 1] = changed.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::error::Diagnose;

    fn refused(text: &str) -> String {
        let error = SettingsFile::parse(Path::new("/etc/haulout.toml"), text).unwrap_err();
        assert_eq!(error.kind().exit_code(), 2);
        format!("{error} ({})", error.hint().unwrap_or_default())
    }

    #[test]
    fn a_fault_is_named_with_file_line_and_remedy() {
        for (text, expected) in [
            (
                "[repository]\nurll = 'x'",
                "/etc/haulout.toml:2: unknown key `urll` in [repository] (did you mean `url`?)",
            ),
            ("\n[mariadbb]\n", "/etc/haulout.toml:2: unknown section [mariadbb] (did you mean [mariadb]?)"),
            ("url = 'x'", "/etc/haulout.toml:1: unknown key `url` (it belongs under [repository])"),
            (
                "[backup]\nuse_memory = '1G'",
                "/etc/haulout.toml:2: unknown key `use_memory` in [backup] (it belongs under [restore])",
            ),
            (
                "[mariadb]\nport = 'x'",
                "/etc/haulout.toml:2: [mariadb] port: expected a number from 1 to 65535, found a text ()",
            ),
            ("[backup]\n\nuploads = 99", "/etc/haulout.toml:3: [backup] uploads: expected a number from 1 to 32 ()"),
            (
                "[backup]\nspool_dir = 'spool'",
                "/etc/haulout.toml:2: [backup] spool_dir: expected an absolute path, found \"spool\" ()",
            ),
        ] {
            assert_eq!(refused(text), expected);
        }
    }

    #[test]
    fn a_secret_in_the_file_is_refused_without_repeating_it() {
        let told = refused("[mariadb]\npassword = 'hunter2'");
        assert!(told.contains("`password_file`") && !told.contains("hunter2"), "{told}");
        assert!(refused("[s3]\nsecret_access_key = 'x'").contains("`secret_access_key_file`"));
    }

    #[test]
    fn a_fault_of_syntax_is_named_with_its_line() {
        assert!(refused("[repository]\nurl = 'x\n").starts_with("/etc/haulout.toml:2: "));
        assert!(refused("[s3]\nregion = 'a'\nregion = 'b'").contains("duplicate"));
    }

    #[test]
    fn values_are_found_with_their_line() {
        let text = "[repository]\nurl = 's3://b/p'\n[backup]\nspool_size = '1G'\ntool_args = ['--throttle=1']\n";
        let file = SettingsFile::parse(Path::new("f"), text).unwrap();
        let (place, raw) = file.get("backup", "tool_args").unwrap();
        assert_eq!((place.line, raw), (5, &Raw::List(vec!["--throttle=1".to_owned()])));
        assert_eq!(file.get("backup", "uploads"), None);
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[\\[\\]a-z_='\"0-9\n .#]{0,60}") {
            let _ = SettingsFile::parse(Path::new("f"), &text);
        }
    }
}
