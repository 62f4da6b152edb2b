//! `haulout config`.

use super::{Context, Finish, agent};
use crate::{
    agent::preview,
    cli::{
        args::{ConfigArgs, ConfigCommand},
        failure::Failure,
        report::{ConfigCheckSummary, ConfigShowSummary, PlannedLine, SettingLine},
        settings::{SettingsError, keys},
    },
};

/// Moments of each schedule that are told.
const MOMENTS: usize = 5;

/// Carries the command out.
///
/// # Errors
/// When a setting is wrong.
pub fn run(args: &ConfigArgs, context: &Context) -> Result<Finish, Failure> {
    match args.command {
        ConfigCommand::Check => check(context),
        ConfigCommand::Show => show(context),
    }
}

fn check(context: &Context) -> Result<Finish, Failure> {
    let settings = agent::settings(context);
    let config = context.settle(settings)?.config;
    let mut lines = Vec::new();
    for (planned, next) in preview(&config, context.clock().now(), MOMENTS) {
        lines.push(PlannedLine {
            job: planned.task.job(),
            full: planned.task == crate::agent::Task::FullBackup,
            schedule: planned.cron.fields().to_owned(),
            zone: planned.cron.zone_name().to_owned(),
            next,
        });
    }
    let summary = ConfigCheckSummary {
        file: config.file.display().to_string(),
        server: config.name,
        url: config.repository,
        planned: lines.len() as u64,
        archive: config.archive,
    };
    if context.output.is_json() {
        lines.iter().for_each(|line| context.output.json(line));
    } else {
        lines.iter().for_each(|line| context.output.data(line.text().as_bytes()));
    }
    context.output.summary(&summary, |summary, _| summary.text());
    Ok(Finish::Done)
}

fn show(context: &Context) -> Result<Finish, Failure> {
    // What cannot serve an agent can be right for other commands: the settings are shown all the same.
    match agent::settings(context) {
        Ok(_) | Err(SettingsError::NoFile | SettingsError::NothingToDo | SettingsError::NoRepository) => {}
        Err(error) => return Err(error.into()),
    }
    agent::warn(&context.layers, &context.output);
    let picked = context.layers.picked();
    let mut count = 0;
    for key in keys::ALL {
        let place = format!("[{}] {}", key.section(), key.name());
        let found = match picked.iter().find(|picked| picked.key == place) {
            Some(picked) => Some((picked.shown.clone(), picked.origin.to_string())),
            None => key.look(&context.layers)?.map(|(shown, origin)| (shown, origin.to_string())),
        };
        let (value, origin) = found.map_or((None, None), |(value, origin)| (Some(value), Some(origin)));
        count += u64::from(value.is_some());
        let line = SettingLine { key: place, value, origin };
        if context.output.is_json() {
            context.output.json(&line);
        } else {
            context.output.data(line.text().as_bytes());
        }
    }
    let file = context.layers.file.as_ref().map(|file| file.path.display().to_string());
    let summary = ConfigShowSummary { file, settings: keys::ALL.len() as u64, set: count };
    context.output.summary(&summary, |summary, _| summary.text());
    Ok(Finish::Done)
}
