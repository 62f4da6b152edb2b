//! Settings of `agent`.

use std::{
    io::Read,
    path::{Path, PathBuf},
};

use jiff::tz::TimeZone;
use url::Url;

use super::{
    ArchiveSettings, BackupSettings, CompactSettings, CopySettings, DrillSettings, PageSettings, PruneSettings,
    ReadSettings, StoreSettings,
};
use crate::{
    agent::{AgentConfig, Cron, Hooks, IoClass, Planned, Task, zone_named},
    cli::{
        args::{AgentArgs, ArchiveArgs, BackupArgs, CompactArgs, CopyArgs, DrillArgs, PruneArgs, ServeArgs, StoreArgs},
        settings::{
            Addresses, Layers, SettingsError, Stretch, Value, endpoint,
            keys::{self, Described as _, Key, Nice},
        },
    },
};

/// Where an agent keeps its memory.
const STATE_DIR: &str = "/var/lib/haulout";
/// Longest delay behind the time of a schedule: beyond a day it would be another day's run.
const JITTER_SECONDS_MAX: u64 = 24 * 3600;
/// Usual seconds before a run is repeated that failed.
const RETRY_SECONDS: u64 = 60;
/// Usual seconds of a hook, and the most.
const HOOK_SECONDS: u64 = 60;
const HOOK_SECONDS_MAX: u64 = 3600;
/// Addresses that are told of runs.
const ADDRESSES_MAX: usize = 16;
/// Longest file of addresses.
const ADDRESS_BYTES_MAX: u64 = 64 << 10;
/// Checks that one reading of everything may be divided into.
const PARTS_MAX: u64 = 10_000;
/// Moments of a schedule that are looked at, to tell how many checks there are in a time.
const MOMENTS_MAX: usize = 10_001;

/// All that `agent` needs to know.
#[derive(Debug, Clone)]
pub struct AgentSettings {
    /// What it is to do.
    pub config: AgentConfig,
    /// Seconds before a run is repeated that failed.
    pub retry_seconds: u32,
    /// The repository, as its page reads it.
    pub store: StoreSettings,
    /// The page, where it listens.
    pub page: Option<PageSettings>,
}

impl AgentSettings {
    /// Resolves the settings of `agent`, and of all that it will run; `host` is the machine's name.
    ///
    /// # Errors
    /// When a value is wrong or missing, for the agent or for one of its runs.
    pub fn assemble(
        layers: &Layers,
        url: Option<&str>,
        args: &AgentArgs,
        host: &str,
    ) -> Result<AgentSettings, SettingsError> {
        let file = layers.file.as_ref().ok_or(SettingsError::NoFile)?.path.clone();
        let name = layers.pick_or(&keys::AGENT_NAME, None, host.to_owned())?;
        let zone = zone(layers)?;
        let planned = planned(layers, &zone)?;
        let archive = layers.pick_or(&keys::AGENT_ARCHIVE, None, false)?;
        if planned.is_empty() && !archive {
            return Err(SettingsError::NothingToDo);
        }
        let full_every = layers.pick(&keys::AGENT_FULL_EVERY, None)?;
        let seconds = |stretch: &Stretch| stretch.seconds();
        let full_every_seconds = full_every.as_ref().map(seconds).transpose();
        let full_every_seconds =
            full_every_seconds.map_err(|problem| wrong(layers, &keys::AGENT_FULL_EVERY, problem))?;
        let repository = runs(layers, url, &planned, archive)?;
        let config = AgentConfig {
            name,
            repository,
            file: absolute(&file),
            listen: layers.pick(&keys::AGENT_LISTEN, args.listen)?,
            state_dir: layers.pick_or(&keys::AGENT_STATE_DIR, args.state_dir.clone(), STATE_DIR.into())?,
            jitter_seconds: time(layers, &keys::AGENT_JITTER, 0, JITTER_SECONDS_MAX)?,
            // Never above 19.
            nice: layers.pick(&keys::AGENT_NICE, None)?.map_or(0, Nice::get) as u8,
            io_class: io_class(layers)?,
            check_parts: check_parts(layers, &planned)?,
            hooks: hooks(layers)?,
            webhooks: addresses(layers, &keys::AGENT_WEBHOOKS, &keys::AGENT_WEBHOOKS_FILE)?,
            heartbeat: addresses(layers, &keys::AGENT_HEARTBEAT, &keys::AGENT_HEARTBEAT_FILE)?,
            drill_time: layers.pick(&keys::DRILL_TIME, None)?.map(|time| time.to_string()),
            planned,
            full_every_seconds,
            archive,
            arguments: url.map(|url| vec!["--repo".to_owned(), url.to_owned()]).unwrap_or_default(),
        };
        let retry_seconds = time(layers, &keys::AGENT_RETRY_AFTER, RETRY_SECONDS, JITTER_SECONDS_MAX)?.max(1);
        let page = config.listen.map(|listen| PageSettings::at(listen, layers, &ServeArgs::default())).transpose()?;
        let store = StoreSettings::assemble(layers, url, &StoreArgs::default())?;
        Ok(AgentSettings { config, retry_seconds, store, page })
    }
}

/// A settings file is looked at again and again, and the agent's directory may not be the operator's.
fn absolute(file: &Path) -> PathBuf {
    std::path::absolute(file).unwrap_or_else(|_| file.to_owned())
}

fn wrong<T: Value>(layers: &Layers, key: &'static Key<T>, problem: String) -> SettingsError {
    let place = layers.file.as_ref().and_then(|file| file.get(key.section(), key.name()));
    let origin = place.map_or_else(|| "a setting of the agent".to_owned(), |(place, _)| place.to_string());
    SettingsError::BadValue { origin, key: format!("[{}] {}", key.section(), key.name()), problem }
}

fn zone(layers: &Layers) -> Result<TimeZone, SettingsError> {
    match layers.pick(&keys::AGENT_TIME_ZONE, None)? {
        Some(name) => zone_named(&name).map_err(|problem| wrong(layers, &keys::AGENT_TIME_ZONE, problem)),
        None => Ok(layers.environment.zone.clone().unwrap_or(TimeZone::UTC)),
    }
}

/// What is due when.
fn planned(layers: &Layers, zone: &TimeZone) -> Result<Vec<Planned>, SettingsError> {
    let schedules: [(Task, &'static Key<String>); 7] = [
        (Task::Backup, &keys::AGENT_BACKUP_SCHEDULE),
        (Task::FullBackup, &keys::AGENT_FULL_SCHEDULE),
        (Task::Check, &keys::AGENT_CHECK_SCHEDULE),
        (Task::Drill, &keys::AGENT_DRILL_SCHEDULE),
        (Task::Prune, &keys::AGENT_PRUNE_SCHEDULE),
        (Task::Compact, &keys::AGENT_COMPACT_SCHEDULE),
        (Task::Copy, &keys::AGENT_COPY_SCHEDULE),
    ];
    let mut planned = Vec::new();
    for (task, key) in schedules {
        if let Some(text) = layers.pick(key, None)? {
            let cron = Cron::parse(&text, zone).map_err(|problem| wrong(layers, key, problem))?;
            planned.push(Planned { task, cron });
        }
    }
    Ok(planned)
}

/// Resolves what the runs will be told, so that what is wrong is found now and not at night; gives the repository's URL.
fn runs(layers: &Layers, url: Option<&str>, planned: &[Planned], archive: bool) -> Result<String, SettingsError> {
    for planned in planned {
        match planned.task {
            Task::Backup | Task::FullBackup => {
                BackupSettings::assemble(layers, url, &BackupArgs::default())?;
            }
            Task::Check => {}
            Task::Drill => {
                DrillSettings::assemble(layers, url, &DrillArgs::default())?;
            }
            Task::Prune => {
                PruneSettings::assemble(layers, url, &PruneArgs::default())?;
            }
            Task::Compact => {
                CompactSettings::assemble(layers, url, &CompactArgs::default())?;
            }
            Task::Copy => {
                CopySettings::assemble(layers, url, &CopyArgs::default())?;
            }
        }
    }
    if archive {
        ArchiveSettings::assemble(layers, url, &ArchiveArgs::default())?;
    }
    Ok(ReadSettings::assemble(layers, url, &StoreArgs::default(), None)?.store.url)
}

fn hooks(layers: &Layers) -> Result<Hooks, SettingsError> {
    let seconds = time(layers, &keys::AGENT_HOOK_TIME, HOOK_SECONDS, HOOK_SECONDS_MAX)?;
    Ok(Hooks {
        before: layers.pick(&keys::AGENT_HOOK_BEFORE, None)?,
        after: layers.pick(&keys::AGENT_HOOK_AFTER, None)?,
        seconds: seconds.max(1),
        required: layers.pick_or(&keys::AGENT_HOOK_REQUIRED, None, false)?,
    })
}

/// The addresses that the setting and the lines of the file name.
fn addresses(
    layers: &Layers,
    key: &'static Key<Addresses>,
    file: &'static Key<PathBuf>,
) -> Result<Vec<Url>, SettingsError> {
    let mut addresses = layers.pick(key, None)?.unwrap_or_default().0;
    if let Some(path) = layers.pick(file, None)? {
        let text =
            read(&path).map_err(|error| wrong(layers, file, format!("cannot read {}: {error}", path.display())))?;
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        for (number, line) in lines.enumerate() {
            let problem = |problem| wrong(layers, file, format!("address {}: {problem}", number + 1));
            addresses.push(endpoint(line).map_err(problem)?);
        }
    }
    if addresses.len() > ADDRESSES_MAX {
        return Err(wrong(layers, key, format!("expected at most {ADDRESSES_MAX} addresses")));
    }
    Ok(addresses)
}

fn read(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?.take(ADDRESS_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

fn io_class(layers: &Layers) -> Result<Option<IoClass>, SettingsError> {
    match layers.pick(&keys::AGENT_IO_CLASS, None)?.as_deref() {
        None => Ok(None),
        Some("best-effort") => Ok(Some(IoClass::BestEffort)),
        Some("idle") => Ok(Some(IoClass::Idle)),
        Some(_) => Err(wrong(layers, &keys::AGENT_IO_CLASS, "expected \"best-effort\" or \"idle\"".to_owned())),
    }
}

fn time(layers: &Layers, key: &'static Key<Stretch>, usual: u64, seconds_max: u64) -> Result<u32, SettingsError> {
    let Some(stretch) = layers.pick(key, None)? else { return Ok(u32::try_from(usual).unwrap_or(u32::MAX)) };
    let seconds = stretch.seconds().map_err(|problem| wrong(layers, key, problem))?;
    if seconds > seconds_max {
        return Err(wrong(layers, key, format!("expected at most {seconds_max} seconds")));
    }
    Ok(u32::try_from(seconds).unwrap_or(u32::MAX))
}

/// How many checks the schedule has in the time in which everything is to be read: the fewest that it can have.
fn check_parts(layers: &Layers, planned: &[Planned]) -> Result<Option<u32>, SettingsError> {
    let Some(within) = layers.pick(&keys::AGENT_EVERYTHING_WITHIN, None)? else { return Ok(None) };
    let refused = |problem: &str| wrong(layers, &keys::AGENT_EVERYTHING_WITHIN, problem.to_owned());
    let seconds = within.seconds().map_err(|problem| refused(&problem))?;
    let Some(check) = planned.iter().find(|planned| planned.task == Task::Check) else {
        return Err(refused("[agent.check] has no schedule"));
    };
    let checks = check.cron.fewest_within(seconds, MOMENTS_MAX);
    if checks == 0 {
        return Err(refused("the schedule has no check in that time"));
    }
    // At most PARTS_MAX.
    Ok(Some(checks.min(PARTS_MAX) as u32))
}
