//! What was counted over a run, as a table and as JSON.

use std::{collections::BTreeMap, fs, path::Path};

use serde_json::json;

/// Numbers by name, and sentences by kind.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    numbers: BTreeMap<String, u64>,
    notes: BTreeMap<String, Vec<String>>,
}

impl Counts {
    pub fn add(&mut self, name: &str, number: u64) {
        *self.numbers.entry(name.to_owned()).or_default() += number;
    }

    /// Keeps the larger number.
    pub fn most(&mut self, name: &str, number: u64) {
        let most = self.numbers.entry(name.to_owned()).or_default();
        *most = number.max(*most);
    }

    pub fn note(&mut self, kind: &str, text: impl Into<String>) {
        self.notes.entry(kind.to_owned()).or_default().push(text.into());
    }

    pub fn get(&self, name: &str) -> u64 {
        self.numbers.get(name).copied().unwrap_or_default()
    }

    pub fn join(&mut self, other: &Counts) {
        for (name, number) in &other.numbers {
            if name.ends_with(MOST) { self.most(name, *number) } else { self.add(name, *number) }
        }
        for (kind, notes) in &other.notes {
            self.notes.entry(kind.clone()).or_default().extend(notes.iter().cloned());
        }
    }

    /// Writes `integration/out/judge.json`.
    pub fn write(&self, seeds: &[u64], faults: &[String], seconds: f64) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("integration/out");
        fs::create_dir_all(&folder).unwrap();
        let (first, last) = (seeds.first(), seeds.last());
        let page = json!({"seeds": seeds.len(), "first": first, "last": last, "seconds": seconds.round(), "counts": self.numbers,
            "notes": self.notes, "faults": faults});
        fs::write(folder.join("judge.json"), serde_json::to_string_pretty(&page).unwrap() + "\n").unwrap();
    }

    pub fn table(&self) -> String {
        let wide = self.numbers.keys().map(String::len).max().unwrap_or_default();
        self.numbers.iter().map(|(name, number)| format!("{name:wide$} {number:>9}\n")).collect()
    }
}

/// How names of numbers end that are a most, and no sum.
pub const MOST: &str = "_most";
