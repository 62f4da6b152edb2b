//! What `key` tells.

use serde::Serialize;

use crate::{
    cli::{human, output::Message, paint::Paint},
    format::KeySlot,
    model::{SlotId, Timestamp},
};

/// A `key` line of `key list`: one slot.
#[derive(Debug, Clone, Serialize)]
pub struct KeyLine {
    /// Name of the slot.
    pub key_id: SlotId,
    /// What it wraps: `all` or `map`.
    pub wraps: &'static str,
    /// What opens it: `passphrase`, `file` or `command`.
    pub method: &'static str,
    /// When it was made.
    pub created: Timestamp,
    /// For people.
    pub label: String,
    /// Whether the key that was given opens it; null when none was given.
    pub in_use: Option<bool>,
}

impl Message for KeyLine {
    const TYPE: &'static str = "key";
}

impl KeyLine {
    /// That of `slot`; `own` is the one that this run was opened with, if it was opened.
    pub fn of(slot: &KeySlot, own: Option<SlotId>) -> KeyLine {
        KeyLine {
            key_id: slot.id,
            wraps: slot.wraps.word(),
            method: slot.method.word(),
            created: slot.created,
            label: slot.label.clone(),
            in_use: own.map(|own| own == slot.id),
        }
    }
}

/// What changed.
#[derive(Debug, Clone, Serialize)]
pub struct KeyChange {
    /// The new slot.
    pub added: Option<SlotId>,
    /// The slot that is gone.
    pub removed: Option<SlotId>,
    /// Key of the object that should be gone and that the credentials may not delete.
    pub remaining: Option<String>,
}

/// Summary of `key`.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub enum KeySummary {
    /// Of `key list`.
    List {
        /// Slots that can be read.
        keys: u64,
        /// Slots that cannot.
        unreadable: u64,
        /// Whether the repository is sealed at all.
        sealed: bool,
    },
    /// Of the others.
    Changed(KeyChange),
}

impl Message for KeySummary {
    const TYPE: &'static str = "summary";
}

impl KeySummary {
    /// For people.
    pub fn text(&self, _: Paint) -> String {
        match self {
            KeySummary::List { sealed: false, .. } => "the repository is not sealed\n".to_owned(),
            KeySummary::List { keys, unreadable: 0, .. } => format!("{}\n", human::counted(*keys, "key")),
            KeySummary::List { keys, unreadable, .. } => {
                format!("{}, and {unreadable} that cannot be read\n", human::counted(*keys, "key"))
            }
            KeySummary::Changed(KeyChange { added, removed, remaining }) => {
                let mut text = String::new();
                if let Some(added) = added {
                    text += &format!(
                        "added key slot {added}; keep its key away from this machine and from the bucket, too\n"
                    );
                }
                if let Some(removed) = removed {
                    text += &format!("removed key slot {removed}\n");
                }
                if let Some(remaining) = remaining {
                    text += &format!(
                        "not removed: {remaining}, which the store keeps; delete it with credentials that may, once no lock holds it\n"
                    );
                }
                text
            }
        }
    }
}
