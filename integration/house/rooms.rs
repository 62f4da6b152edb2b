//! The table of rooms, read from `src/ARCHITECTURE.md`: what it says there is what is held.

use std::collections::{BTreeMap, BTreeSet};

/// Which room may use which.
#[derive(Debug)]
pub struct Rooms {
    may_use: BTreeMap<String, BTreeSet<String>>,
}

impl Rooms {
    /// Reads the table between `<!-- rooms -->` and `<!-- /rooms -->`.
    ///
    /// # Errors
    /// When the table is missing, or a row names what no row above it declares.
    pub fn parse(page: &str) -> Result<Rooms, String> {
        let table = page
            .split_once("<!-- rooms -->")
            .and_then(|(_, rest)| rest.split_once("<!-- /rooms -->"))
            .ok_or("no table between <!-- rooms --> and <!-- /rooms -->")?
            .0;
        let mut may_use = BTreeMap::<String, BTreeSet<String>>::new();
        for row in table.lines().map(str::trim).filter(|line| line.starts_with("| `")) {
            let cells: Vec<_> = row.trim_matches('|').split('|').collect();
            let [names, _, uses] = cells[..] else { return Err(format!("not three cells: {row}")) };
            let allowed = match uses.trim() {
                "–" => BTreeSet::new(),
                "all above" => may_use.keys().cloned().collect(),
                list => quoted(list).collect(),
            };
            if let Some(unknown) = allowed.iter().find(|name| !may_use.contains_key(*name)) {
                return Err(format!("{} uses `{unknown}`, which no row above declares", names.trim()));
            }
            may_use.extend(quoted(names).map(|name| (name, allowed.clone())));
        }
        if may_use.is_empty() { Err("the table has no rows".to_owned()) } else { Ok(Rooms { may_use }) }
    }

    /// True when `room` is in the table.
    pub fn has(&self, room: &str) -> bool {
        self.may_use.contains_key(room)
    }

    /// True when `room` may use `other`.
    pub fn allows(&self, room: &str, other: &str) -> bool {
        room == other || self.may_use.get(room).is_some_and(|allowed| allowed.contains(other))
    }

    /// True when a test of `room` may use `other`: the room may, or a room that it may use may in turn.
    pub fn allows_tests(&self, room: &str, other: &str) -> bool {
        self.allows(room, other)
            || self
                .may_use
                .get(room)
                .is_some_and(|allowed| allowed.iter().any(|between| self.allows_tests(between, other)))
    }
}

/// The words between backticks.
fn quoted(text: &str) -> impl Iterator<Item = String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(rows: &str) -> String {
        format!(
            "before\n<!-- rooms -->\n| room | role | may use |\n|---|---|---|\n{rows}<!-- /rooms -->\n| `z` | | – |"
        )
    }

    #[test]
    fn a_row_allows_what_it_names_and_itself() {
        let rooms =
            Rooms::parse(&page("| `a` | | – |\n| `b`, `c` | | `a` |\n| `d` | x | `b` |\n| `e` | | all above |\n"))
                .unwrap();
        assert!(rooms.allows("b", "a") && rooms.allows("c", "a") && rooms.allows("a", "a") && rooms.allows("e", "d"));
        assert!(!rooms.allows("a", "b") && !rooms.allows("b", "c") && !rooms.allows("d", "a") && !rooms.has("z"));
        assert!(rooms.allows_tests("d", "a") && !rooms.allows_tests("d", "c") && !rooms.allows_tests("a", "b"));
    }

    #[test]
    fn a_row_that_looks_down_is_refused() {
        assert!(Rooms::parse(&page("| `a` | | `b` |\n| `b` | | – |\n")).is_err());
        assert!(Rooms::parse(&page("| `a` | | `a` |\n")).is_err());
        assert!(Rooms::parse(&page("")).is_err());
        assert!(Rooms::parse("no table").is_err());
    }
}
