//! Which tables are fetched, and which files besides: what `mariadb-backup --prepare --export` needs to work on them.

use std::collections::BTreeSet;

use super::catalogue::{Catalogue, Engine, TableName, role_of, schema_of};
use super::{Cancel, RestoreError};
use crate::format::Manifest;
use crate::repository::Repository;

/// The schema without which no server starts, not even that of an export.
const NEEDED_SCHEMA: &str = "mysql";

/// A pattern for tables: `SCHEMA.TABLE`, in which `*` stands for any characters, `?` for one, and `\` takes the meaning
/// from the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TablePattern {
    text: String,
    schema: Vec<Glyph>,
    table: Vec<Glyph>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Glyph {
    Any,
    One,
    Just(char),
}

impl std::str::FromStr for TablePattern {
    type Err = String;

    fn from_str(text: &str) -> Result<TablePattern, String> {
        let malformed = || format!("expected SCHEMA.TABLE, such as 'shop.order*', found {text:?}");
        let (mut parts, mut part) = (Vec::new(), Vec::new());
        let mut characters = text.chars();
        while let Some(character) = characters.next() {
            match character {
                '\\' => part.push(Glyph::Just(characters.next().ok_or_else(malformed)?)),
                '*' => part.push(Glyph::Any),
                '?' => part.push(Glyph::One),
                // A table's name may hold further ones.
                '.' if parts.is_empty() => parts.push(std::mem::take(&mut part)),
                other => part.push(Glyph::Just(other)),
            }
        }
        match parts.pop() {
            Some(schema) if !schema.is_empty() && !part.is_empty() => {
                Ok(TablePattern { text: text.to_owned(), schema, table: part })
            }
            _ => Err(malformed()),
        }
    }
}

impl std::fmt::Display for TablePattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl TablePattern {
    /// True when the table is meant.
    pub fn fits(&self, name: &TableName) -> bool {
        fits(&self.schema, &name.schema) && fits(&self.table, &name.table)
    }

    /// The table that the pattern names when nothing in it stands for several.
    pub fn literal(&self) -> Option<TableName> {
        let text = |glyphs: &[Glyph]| -> Option<String> {
            glyphs
                .iter()
                .map(|glyph| if let Glyph::Just(character) = glyph { Some(*character) } else { None })
                .collect()
        };
        Some(TableName { schema: text(&self.schema)?, table: text(&self.table)? })
    }
}

/// Greedy, with one step back: a later `*` makes an earlier one's choice good.
fn fits(pattern: &[Glyph], text: &str) -> bool {
    let text: Vec<char> = text.chars().collect();
    let (mut at, mut place, mut star) = (0, 0, None);
    while at < text.len() {
        match pattern.get(place) {
            Some(Glyph::Any) => {
                star = Some((place, at));
                place += 1;
            }
            Some(Glyph::One) => (at, place) = (at + 1, place + 1),
            Some(Glyph::Just(character)) if *character == text[at] => (at, place) = (at + 1, place + 1),
            _ => match star {
                Some((before, from)) => {
                    star = Some((before, from + 1));
                    (at, place) = (from + 1, before + 1);
                }
                None => return false,
            },
        }
    }
    pattern[place..].iter().all(|glyph| *glyph == Glyph::Any)
}

/// The tables of a backup that `patterns` mean; all when there are none.
///
/// # Errors
/// When the map cannot be read, or a pattern means no table.
pub async fn choose_tables(
    repository: &Repository,
    manifest: &Manifest,
    patterns: &[TablePattern],
    cancel: &Cancel,
) -> Result<TableChoice, RestoreError> {
    if patterns.is_empty() {
        return Ok(TableChoice::All);
    }
    let catalogue = Catalogue::read(repository, manifest, cancel).await?;
    TableChoice::of(&catalogue, patterns).map_err(|pattern| {
        let near = pattern.literal().map(|name| catalogue.near(&name)).unwrap_or_default();
        let near = near.into_iter().map(TableName::to_string).collect();
        RestoreError::NoTable { backup: manifest.id.clone(), pattern: pattern.to_string(), near }
    })
}

/// Which tables of a backup are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum TableChoice {
    /// All, and everything else.
    #[default]
    All,
    /// These, and what they need to be exported.
    These(BTreeSet<TableName>),
}

impl TableChoice {
    /// The tables of `catalogue` that a pattern means.
    ///
    /// # Errors
    /// The first pattern that means none.
    pub fn of<'p>(catalogue: &Catalogue, patterns: &'p [TablePattern]) -> Result<TableChoice, &'p TablePattern> {
        let mut chosen = BTreeSet::new();
        for pattern in patterns {
            let known = catalogue.tables.iter().filter(|entry| entry.engine != Engine::FulltextIndex);
            let before = known.map(|entry| &entry.name).filter(|name| pattern.fits(name));
            let meant: Vec<_> = before.cloned().collect();
            if meant.is_empty() {
                return Err(pattern);
            }
            chosen.extend(meant);
        }
        Ok(TableChoice::These(chosen))
    }

    /// How many tables are wanted, where it is not all.
    pub fn count(&self) -> Option<u64> {
        match self {
            TableChoice::All => None,
            TableChoice::These(chosen) => Some(chosen.len() as u64),
        }
    }

    /// True when nothing is left out.
    pub fn is_all(&self) -> bool {
        *self == TableChoice::All
    }

    /// True when the file at `path` in the datadir is needed.
    ///
    /// Besides the files of the tables: all of the top level (tablespaces of the system, logs, options), the server's own
    /// tables, options and triggers of the schemas, and the FULLTEXT files in them, which only InnoDB's dictionary assigns to
    /// tables. A `.isl` file leads to the place of a living server's file and is never needed.
    pub(super) fn needs(&self, path: &str) -> bool {
        let TableChoice::These(chosen) = self else { return true };
        match need_of(path) {
            Need::All => true,
            Need::Nobody => false,
            Need::Table(name) => chosen.contains(&name),
            Need::Schema(schema) => chosen.iter().any(|name| name.schema == schema),
        }
    }
}

/// Which tables cannot be exported without a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Need {
    /// All.
    All,
    /// None.
    Nobody,
    /// This one.
    Table(TableName),
    /// Those of this schema.
    Schema(String),
}

/// Which tables need the file at `path` in the datadir.
pub(super) fn need_of(path: &str) -> Need {
    let Some(schema) = schema_of(path) else { return Need::All };
    if schema == NEEDED_SCHEMA {
        return Need::All;
    }
    if path.ends_with(".isl") {
        return Need::Nobody;
    }
    match role_of(path) {
        Some(role) if role.engine != Some(Engine::FulltextIndex) => Need::Table(role.name),
        _ => Need::Schema(schema),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(schema: &str, table: &str) -> TableName {
        TableName { schema: schema.to_owned(), table: table.to_owned() }
    }

    #[test]
    fn patterns_mean_the_tables_that_they_look_like() {
        let fits = |pattern: &str, schema: &str, table: &str| {
            pattern.parse::<TablePattern>().unwrap().fits(&name(schema, table))
        };
        assert!(fits("shop.order*", "shop", "orders") && fits("shop.order*", "shop", "order"));
        assert!(!fits("shop.order*", "shop", "reorder") && !fits("shop.order*", "shop2", "orders"));
        assert!(fits("*.*", "a", "b") && fits("s?op.*ab*ab", "shop", "xababxab") && !fits("s?op.*", "sop", "x"));
        assert!(fits("shop.o rder$ü", "shop", "o rder$ü") && fits("shop.a.b", "shop", "a.b"));
        assert!(fits(r"sh\.op.\*", "sh.op", "*") && !fits(r"shop.\*", "shop", "x"));
        for pattern in ["shop", "shop.", ".x", "", "shop.x\\"] {
            assert!(pattern.parse::<TablePattern>().is_err(), "{pattern}");
        }
        assert_eq!(r"a\.b.c".parse::<TablePattern>().unwrap().literal(), Some(name("a.b", "c")));
        assert_eq!("a.b*".parse::<TablePattern>().unwrap().literal(), None);
    }

    #[test]
    fn a_choice_takes_what_an_export_needs_and_no_other_table() {
        let choice = TableChoice::These(BTreeSet::from([name("shop", "item"), name("shop", "part")]));
        for path in [
            "ibdata1",
            "undo001",
            "ib_logfile0",
            "backup-my.cnf",
            "mysql/innodb_table_stats.ibd",
            "shop/db.opt",
            "shop/item.frm",
            "shop/item.ibd",
            "shop/item.TRG",
            "shop/part#P#p0.ibd",
            "shop/FTS_0000000000000013_CONFIG.ibd",
        ] {
            assert!(choice.needs(path), "{path}");
        }
        for path in ["shop/items.ibd", "shop/other.frm", "other/item.ibd", "other/db.opt", "sys/x.frm", "shop/item.isl"]
        {
            assert!(!choice.needs(path), "{path}");
            assert!(TableChoice::All.needs(path), "{path}");
        }
    }
}
