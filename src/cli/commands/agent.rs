//! `haulout agent`.

use std::{path::PathBuf, sync::Arc, time::Duration};

use sd_notify::NotifyState;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use super::{Context, Finish, serve};
use crate::{
    agent::{self, Launcher, Loaded, Source, Supervisor},
    cli::{
        args::AgentArgs,
        employment,
        environment::Environment,
        failure::Failure,
        options::AgentSettings,
        output::Output,
        progress::Unit,
        settings::{Layers, SettingsError},
    },
    fleet::Fleet,
    model::SystemClock,
    web::{self, service::AgentStatus},
};

/// Variables by which systemd talks to a service, and that are not for its runs.
const SERVICE_VARIABLES: [&str; 3] = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];

/// Looks after a server until it is told to stop.
///
/// # Errors
/// When the settings are wrong, another agent is at work, or it cannot begin.
pub async fn run(args: &AgentArgs, context: &Context) -> Result<Finish, Failure> {
    let hangup = signal(SignalKind::hangup()).map_err(|error| Failure::of_io("cannot catch signals", &error))?;
    let program = std::env::current_exe().map_err(|error| Failure::of_io("cannot find the own program", &error))?;
    let host = host();
    let file = context.layers.file.as_ref().ok_or(SettingsError::NoFile)?.path.clone();
    let source = SettingsSource {
        environment: context.layers.environment.clone(),
        file: std::path::absolute(&file).unwrap_or(file),
        url: context.global.repo.clone(),
        args: args.clone(),
        host: host.clone(),
    };
    let (first, settings) = source.read()?;
    let shown = match &settings.page {
        Some(page) => Some((serve::fleet(&settings.store, None, context)?, serve::web_options(page, context))),
        None => None,
    };
    let reading = shown.as_ref().map(|(fleet, _)| serve::read(fleet.clone(), context));
    let page = shown.map(|(fleet, options)| -> agent::Page {
        Box::new(move |service| {
            tokio::spawn(show_what_came(fleet.clone(), service.changes()));
            web::router(fleet.clone(), Some(service), options.clone())
        })
    });
    let mut environment: Vec<_> = SERVICE_VARIABLES.iter().map(|name| (name.into(), None)).collect();
    // The file in force is named on the command line.
    environment.push(("HAULOUT_CONFIG".into(), None));
    let work = agent::Context {
        clock: Arc::new(SystemClock),
        source: Arc::new(source),
        supervisor: Arc::new(Systemd::new()),
        progress: context.progress(Unit::Objects),
        launcher: Launcher { program, environment, variable: employment::VARIABLE },
        host,
        retry_seconds: settings.retry_seconds,
        page,
    };
    let ended = agent::run(&work, first, context.stop.clone(), hangup).await;
    if let Some(reading) = reading {
        reading.abort();
    }
    ended?;
    Ok(Finish::Done)
}

/// Has the page look at the repository whenever a run has ended.
async fn show_what_came(fleet: Fleet, mut changes: watch::Receiver<Arc<AgentStatus>>) {
    let mut last = None;
    while changes.changed().await.is_ok() {
        let newest = changes.borrow_and_update().recent.first().map(|ended| ended.run);
        if newest != last {
            last = newest;
            fleet.hurry();
        }
    }
}

/// Name of this machine.
pub fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "localhost".to_owned() } else { name.to_owned() }
}

struct SettingsSource {
    environment: Environment,
    file: PathBuf,
    url: Option<String>,
    args: AgentArgs,
    host: String,
}

impl SettingsSource {
    fn read(&self) -> Result<(Loaded, AgentSettings), Failure> {
        let text =
            std::fs::read(&self.file).map_err(|source| SettingsError::Read { path: self.file.clone(), source })?;
        let layers = Layers::open(self.environment.clone(), Some(&self.file))?;
        let settings = AgentSettings::assemble(&layers, self.url.as_deref(), &self.args, &self.host)?;
        let loaded = Loaded { config: settings.config.clone(), text, warnings: layers.take_warnings() };
        Ok((loaded, settings))
    }
}

impl Source for SettingsSource {
    fn load(&self) -> Result<Loaded, String> {
        let failed = |failure: Failure| {
            let mut told = vec![failure.message];
            told.extend(failure.causes);
            let told = told.join(": ");
            failure.hint.map_or(told.clone(), |hint| format!("{told} ({hint})"))
        };
        self.read().map(|(loaded, _)| loaded).map_err(failed)
    }
}

/// systemd, where it started the agent; else nobody.
struct Systemd {
    patience: Option<Duration>,
}

impl Systemd {
    fn new() -> Systemd {
        let mut micros = 0;
        let patience = sd_notify::watchdog_enabled(false, &mut micros).then_some(Duration::from_micros(micros));
        Systemd { patience }
    }

    fn notify(states: &[NotifyState<'_>]) {
        // Nobody can be told that nobody listens.
        let _ = sd_notify::notify(false, states);
    }
}

impl Supervisor for Systemd {
    fn ready(&self) {
        Systemd::notify(&[NotifyState::Ready]);
    }

    fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => Systemd::notify(&[NotifyState::Reloading, now]),
            Err(_) => Systemd::notify(&[NotifyState::Reloading]),
        }
    }

    fn stopping(&self) {
        Systemd::notify(&[NotifyState::Stopping]);
    }

    fn alive(&self) {
        Systemd::notify(&[NotifyState::Watchdog]);
    }

    fn tell(&self, status: &str) {
        Systemd::notify(&[NotifyState::Status(status)]);
    }

    fn patience(&self) -> Option<Duration> {
        self.patience
    }
}

/// The settings of the agent that the operator's file describes, for `config`.
///
/// # Errors
/// When they are wrong.
pub fn settings(context: &Context) -> Result<AgentSettings, SettingsError> {
    AgentSettings::assemble(&context.layers, context.url(), &AgentArgs::default(), &host())
}

/// Tells what the operator should know of the settings.
pub fn warn(layers: &Layers, output: &Output) {
    layers.take_warnings().iter().for_each(|warning| output.warn(warning));
}
