//! What `config` tells.

use jiff::tz::TimeZone;
use serde::Serialize;

use crate::{agent::zone_named, cli::output::Message, model::Timestamp, web::service::Job};

/// A part of the schedule.
#[derive(Debug, Clone, Serialize)]
pub struct PlannedLine {
    /// What is begun.
    pub job: Job,
    /// Whether it is a full backup.
    pub full: bool,
    /// The five fields.
    pub schedule: String,
    /// Their time zone.
    pub zone: String,
    /// The next moments, with the delay of this server.
    pub next: Vec<Timestamp>,
}

impl Message for PlannedLine {
    const TYPE: &'static str = "planned";
}

impl PlannedLine {
    /// For people: moments are those of the schedule's own zone.
    pub fn text(&self) -> String {
        let zone = zone_named(&self.zone).unwrap_or(TimeZone::UTC);
        let full = if self.full { " (full)" } else { "" };
        let name = format!("{:?}", self.job).to_lowercase();
        let mut text = format!("{name}{full} at \"{}\" {}\n", self.schedule, self.zone);
        for moment in &self.next {
            text += &format!("  {}\n", moment.0.to_zoned(zone.clone()).strftime("%a %Y-%m-%d %H:%M:%S %Z"));
        }
        text
    }
}

/// Summary of `config check`.
#[derive(Debug, Clone, Serialize)]
pub struct ConfigCheckSummary {
    /// The settings file.
    pub file: String,
    /// Name of the server.
    pub server: String,
    /// Where the repository is.
    pub url: String,
    /// Parts of the schedule.
    pub planned: u64,
    /// Whether the binary log is archived.
    pub archive: bool,
}

impl Message for ConfigCheckSummary {
    const TYPE: &'static str = "summary";
}

impl ConfigCheckSummary {
    /// For people.
    pub fn text(&self) -> String {
        let archive = if self.archive { "; the binary log is archived" } else { "" };
        format!("{} is right: {} into {}{archive}\n", self.file, self.server, self.url)
    }
}

/// A setting.
#[derive(Debug, Clone, Serialize)]
pub struct SettingLine {
    /// Section and key.
    pub key: String,
    /// Its value; null where nobody gives one and the command decides.
    pub value: Option<String>,
    /// Where the value came from.
    pub origin: Option<String>,
}

impl Message for SettingLine {
    const TYPE: &'static str = "setting";
}

impl SettingLine {
    /// For people.
    pub fn text(&self) -> String {
        match (&self.value, &self.origin) {
            (Some(value), Some(origin)) => format!("{:<34} {value}  ({origin})\n", self.key),
            _ => format!("{:<34} –\n", self.key),
        }
    }
}

/// Summary of `config show`.
#[derive(Debug, Clone, Serialize)]
pub struct ConfigShowSummary {
    /// The settings file.
    pub file: Option<String>,
    /// Settings that there are.
    pub settings: u64,
    /// Settings that have a value.
    pub set: u64,
}

impl Message for ConfigShowSummary {
    const TYPE: &'static str = "summary";
}

impl ConfigShowSummary {
    /// For people.
    pub fn text(&self) -> String {
        match &self.file {
            Some(file) => format!("{} of {} settings have a value; the file is {file}\n", self.set, self.settings),
            None => format!("{} of {} settings have a value; there is no settings file\n", self.set, self.settings),
        }
    }
}
