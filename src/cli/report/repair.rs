//! What `check --repair` tells: what is whole, what can still be brought back, and what later backups will store anew.

use serde::Serialize;

use crate::{
    cli::{human, output::Message, paint::Paint},
    model::BackupId,
    restore::{Remains, TableName},
};

/// Most names in a list; the rest is counted. A thousand lines are more than anybody reads at night, and scripts get most of what is hit.
pub const NAMED_MAX: usize = 1000;
/// Longest line of names for people, where the screen is wider or there is none.
const COLUMNS: usize = 120;

/// Names, and how many more there are.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Names {
    named: Vec<String>,
    more: u64,
}

impl<T: ToString> FromIterator<T> for Names {
    fn from_iter<I: IntoIterator<Item = T>>(names: I) -> Names {
        let mut names = names.into_iter();
        let named = names.by_ref().take(NAMED_MAX).map(|name| name.to_string()).collect();
        Names { named, more: names.count() as u64 }
    }
}

impl Names {
    fn is_empty(&self) -> bool {
        self.named.is_empty()
    }

    /// A paragraph behind `head`.
    fn text(&self, head: &str) -> String {
        let more = (self.more > 0).then(|| format!("and {} more", human::count(self.more)));
        let words: Vec<&str> = self.named.iter().map(String::as_str).chain(more.as_deref()).collect();
        let indent = head.chars().count();
        let lines = human::wrapped(&words.join(", "), Some(COLUMNS), indent);
        format!("{head}{}\n", lines.join(&format!("\n{}", " ".repeat(indent))))
    }
}

/// A `damaged_backup` line of `check --repair`: what is left of a backup.
#[derive(Debug, Clone, Serialize)]
pub struct DamagedBackup {
    backup_id: BackupId,
    /// Whether it can be told which tables it has.
    readable: bool,
    /// Whether so much is damaged that the lists are left out.
    crowded: bool,
    /// Files that cannot be restored.
    files_hit: Names,
    /// Those of them without which no single table can be fetched.
    needed_by_all: Names,
    tables_hit: Names,
    tables_whole: Names,
}

impl Message for DamagedBackup {
    const TYPE: &'static str = "damaged_backup";
}

impl DamagedBackup {
    /// What is left of `backup_id`; `remains` where its map can be read.
    pub fn new<'f>(
        backup_id: BackupId,
        files: impl Iterator<Item = &'f str>,
        remains: Option<&Remains>,
    ) -> DamagedBackup {
        let names = |choose: fn(&Remains) -> &std::collections::BTreeSet<TableName>| -> Names {
            remains.into_iter().flat_map(choose).collect()
        };
        DamagedBackup {
            backup_id,
            readable: remains.is_some(),
            crowded: false,
            files_hit: files.collect(),
            needed_by_all: remains.into_iter().flat_map(|remains| &remains.needed_by_all).collect(),
            tables_hit: names(|remains| &remains.hit),
            tables_whole: names(|remains| &remains.whole),
        }
    }

    /// The same, or with `crowded` of a backup whose lists are left out.
    #[must_use]
    pub fn crowded(self, crowded: bool) -> DamagedBackup {
        DamagedBackup { crowded, readable: self.readable || crowded, ..self }
    }

    /// For people.
    pub fn text(&self, paint: Paint) -> String {
        let id = &self.backup_id;
        let head = |what: &str| format!("{} {id}: {what}\n", paint.red("damaged backup"));
        if self.crowded {
            return head(&format!(
                "too much is damaged to tell of all backups at once; `haulout check --repair --backup {id}` tells of this one"
            ));
        }
        if !self.readable {
            return head("its manifest or page map cannot be read, and nothing can be brought back from it as it is");
        }
        if self.files_hit.is_empty() {
            return head("all its files can be restored; what is damaged are parts of objects that no restore reads");
        }
        if !self.needed_by_all.is_empty() {
            return head("no table can be brought back, because each needs files that are hit")
                + &self.needed_by_all.text("  hit      ");
        }
        let mut text = head(if self.tables_hit.is_empty() {
            "all its tables can be brought back, the whole server cannot"
        } else {
            "some of its tables can still be brought back"
        });
        if self.tables_hit.is_empty() {
            text += &self.files_hit.text("  hit      ");
        } else {
            text += &self.tables_hit.text("  hit      ");
        }
        if self.tables_whole.is_empty() {
            return text + "  whole    no table\n";
        }
        text += &self.tables_whole.text("  whole    ");
        let by = format!(
            "haulout restore-table --backup {id} --table SCHEMA.TABLE, or haulout fetch --backup {id} --tables"
        );
        text + &format!("  by       {by} SCHEMA.TABLE --target DIR\n")
    }
}

/// What `check --repair` adds to the summary.
#[derive(Debug, Clone, Serialize)]
pub struct Repair {
    /// Backups that are whole, as far as was read.
    pub whole_backups: Names,
    /// Packs on which no later backup will rest.
    pub damaged_packs: u64,
    /// Key of the document that was written for later backups, if there was anything new to tell.
    pub recorded: Option<String>,
}

impl Repair {
    /// For people.
    pub fn text(&self) -> String {
        let mut text = String::new();
        if !self.whole_backups.is_empty() {
            text += &self.whole_backups.text("whole backups: ");
        }
        text += &match (self.damaged_packs, &self.recorded) {
            (0, None) => "no pack is damaged: later backups build on what is there\n".to_owned(),
            (0, Some(key)) => format!("no pack is damaged any more ({key}): later backups build on what is there\n"),
            (packs, recorded) => {
                let said = recorded.as_ref().map_or_else(String::new, |key| format!(" ({key})"));
                let packs = human::counted(packs, "damaged pack");
                format!(
                    "{packs}{said}: the next `haulout backup` rests on none of them, and stores anew what the server still has\n"
                )
            }
        };
        text
    }
}
