//! The command line: the only room that prints, and the only one that reads the environment and HOME.
//!
//! ```text
//! args (clap) ─┐
//! environment ─┼─► settings (layers) ─► options (one operation's, plain) ─► commands ─► an operation of another room
//! file (TOML) ─┘                                                               │
//!              stdout, stderr ◄─ output, progress ◄─ report (text and JSON) ◄──┘
//! ```
#![doc = include_str!("OUTPUT.md")]

pub mod args;
pub mod commands;
mod doctor;
pub mod employment;
pub mod environment;
pub mod failure;
pub mod figures;
pub mod human;
mod key_command;
pub mod keyholder;
pub mod lineage;
pub mod open;
pub mod options;
pub mod output;
pub mod paint;
mod programs;
pub mod progress;
pub mod report;
#[cfg(test)]
mod samples;
pub mod screen;
pub mod secret;
pub mod settings;
pub mod signals;
#[cfg(test)]
mod snapshot;
pub mod spool;
mod start_command;

use std::{
    ffi::OsString,
    io::{self, Write},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use clap::Parser;

use self::{
    args::Cli,
    commands::{Context, Finish},
    environment::Environment,
    failure::Failure,
    output::{Output, OutputOptions},
    paint::Paint,
    screen::{LogWriter, Screen},
    settings::{Layers, SettingsError},
};
use crate::error::Kind;

/// Threads of the runtime: requests and files are waited for on them, and what computes has threads of its own.
const RUNTIME_THREADS: usize = 2;

/// Time that background work has to end once the command has: a request that hangs must not hold the process.
const SHUTDOWN_MAX: Duration = Duration::from_secs(5);

/// Runs the command line of this process and returns its exit code.
pub fn main() -> ExitCode {
    raise_open_files();
    let run = || {
        let environment = Environment::of_process();
        if !employment::take_up(&environment) {
            return Kind::Interrupted.exit_code();
        }
        run(std::env::args_os().collect(), environment)
    };
    // A bug has told itself on stderr by then; it must still end with a code of the table.
    let code = std::panic::catch_unwind(run).unwrap_or(Kind::Failed.exit_code());
    ExitCode::from(code)
}

/// Lets this process, and the tools that it starts, open as many files as the system lets it: a prepare opens all tables at once.
fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    // Containers can have a billion, for which programs make tables.
    const ENOUGH: u64 = 1 << 20;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = maximum.unwrap_or(ENOUGH).min(ENOUGH);
    if current.is_some_and(|current| current < wanted) {
        // Where that is not allowed, things are as they were.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum });
    }
}

fn run(args: Vec<OsString>, environment: Environment) -> u8 {
    let plain = environment.plain();
    let cli = match parse(&args) {
        Ok(cli) => cli,
        Err(refusal) => return refusal.tell(&args),
    };
    let global = &cli.global;
    let bars = environment.stderr_columns.is_some()
        && !(environment.dumb() || global.json || global.quiet || global.no_progress);
    let options = OutputOptions {
        json: global.json,
        quiet: global.quiet,
        stdout: Paint { coloured: environment.stdout_columns.is_some() && !plain },
        stderr: Paint { coloured: environment.stderr_columns.is_some() && !plain },
        columns: environment.stdout_columns,
    };
    let screen = Arc::new(Screen::of_process(bars));
    log_to(&screen, &environment, global.verbose, options.stderr);
    let output = Arc::new(Output::new(options, screen, Box::new(io::stdout())));
    execute(&cli, environment, &output)
}

/// Carries out what `cli` says and tells how it ended.
fn execute(cli: &Cli, environment: Environment, output: &Arc<Output>) -> u8 {
    let result = attempt(cli, environment, output);
    output.screen.clear();
    // What was done is done; but whoever saved the output must learn that it is cut short.
    let result = result.and_then(|finish| output.finish().map(|()| finish));
    match result {
        Ok(finish) => finish.exit_code(),
        Err(failure) => {
            output.failure(&failure);
            failure.kind.exit_code()
        }
    }
}

fn attempt(cli: &Cli, environment: Environment, output: &Arc<Output>) -> Result<Finish, Failure> {
    let layers = Layers::open(environment, cli.global.config.as_deref())?;
    let is_agent = matches!(cli.command, args::Command::Agent(_));
    let mut runtime = if is_agent {
        // It idles for years, and runs are processes of their own.
        tokio::runtime::Builder::new_current_thread()
    } else {
        tokio::runtime::Builder::new_multi_thread()
    };
    let runtime = runtime.worker_threads(RUNTIME_THREADS).enable_all().build();
    let runtime = runtime.map_err(|error| Failure::of_io("cannot start the runtime", &error))?;
    let result = runtime.block_on(async {
        let listen = if is_agent { signals::listen_as_service } else { signals::listen };
        let stop = listen(Arc::clone(output));
        let stop = stop.map_err(|error| Failure::of_io("cannot catch signals", &error))?;
        let context = Context { output: Arc::clone(output), layers, global: cli.global.clone(), stop };
        if is_told(cli) {
            output.figures.want();
        }
        tokio::select! {
            result = commands::run(&cli.command, &context) => result,
            never = tell_figures(output) => never,
        }
    });
    runtime.shutdown_timeout(SHUTDOWN_MAX);
    result
}

/// Whether the figures of the command are told: of those that an agent runs.
fn is_told(cli: &Cli) -> bool {
    use args::Command::{Archive, Backup, Check, Compact, Copy, Drill, Prune};
    let command = &cli.command;
    let long = matches!(command, Archive(_) | Backup(_) | Check(_) | Compact(_) | Copy(_) | Drill(_) | Prune(_));
    long && cli.global.json && !cli.global.quiet && !cli.global.no_progress
}

/// Tells the figures, for as long as it is polled.
async fn tell_figures<T>(output: &Output) -> T {
    loop {
        tokio::time::sleep(figures::PAUSE).await;
        output.tell_figures();
    }
}

/// Arguments that are not carried out.
#[derive(Debug)]
enum Refusal {
    /// By us.
    Ours(Failure),
    /// By clap; also the help or the version that was asked for.
    Clap(clap::Error),
}

fn parse(args: &[OsString]) -> Result<Cli, Refusal> {
    // Looked for before clap sees it: clap would repeat what it does not know, and offer what it knows.
    let password = |arg: &OsString| {
        let arg = arg.as_encoded_bytes();
        arg == b"--password" || arg.starts_with(b"--password=") || arg.starts_with(b"-p")
    };
    if options(args).any(password) {
        return Err(Refusal::Ours(SettingsError::PasswordArgument.into()));
    }
    let passphrase = |arg: &OsString| {
        let arg = arg.as_encoded_bytes();
        arg == b"--passphrase" || arg.starts_with(b"--passphrase=")
    };
    if options(args).any(passphrase) {
        let problem = "a passphrase does not belong on the command line, where every user of the machine can read it";
        let hint = "use --passphrase-file FILE or HAULOUT_PASSPHRASE";
        return Err(Refusal::Ours(SettingsError::Keys { problem, hint }.into()));
    }
    Cli::try_parse_from(args).map_err(Refusal::Clap)
}

/// The arguments before `--`.
fn options(args: &[OsString]) -> impl Iterator<Item = &OsString> {
    args.iter().take_while(|arg| *arg != "--")
}

impl Refusal {
    /// Tells it and returns the exit code.
    fn tell(self, args: &[OsString]) -> u8 {
        let json = options(args).any(|arg| arg == "--json");
        let failure = match self {
            Refusal::Clap(error) if !json || !error.use_stderr() => {
                // A reader that went away is no reason to fail.
                let _ = error.print().and_then(|()| io::stdout().flush());
                return if error.use_stderr() { Kind::Usage.exit_code() } else { 0 };
            }
            Refusal::Clap(error) => usage_failure(&error),
            Refusal::Ours(failure) => failure,
        };
        let screen = Arc::new(Screen::of_process(false));
        let options = OutputOptions { json, ..OutputOptions::default() };
        Output::new(options, screen, Box::new(io::stdout())).failure(&failure);
        failure.kind.exit_code()
    }
}

fn usage_failure(error: &clap::Error) -> Failure {
    let text = error.render().to_string();
    let first: Vec<&str> = text.lines().take_while(|line| !line.is_empty()).map(str::trim).collect();
    let message = first.join(" ");
    let message = message.strip_prefix("error: ").unwrap_or(&message);
    let tip = text.lines().find_map(|line| line.trim().strip_prefix("tip: "));
    Failure::new(Kind::Usage, message).with_hint(tip.unwrap_or("run `haulout help`"))
}

/// Sends the log to `screen`: warnings, and more with each `-v`; `HAULOUT_LOG` says it exactly.
fn log_to(screen: &Arc<Screen>, environment: &Environment, verbose: u8, paint: Paint) {
    let levels = match verbose {
        // Whoever runs outside of EC2 need not be told so by the AWS client.
        0 => "warn,aws_config::imds=error",
        1 => "warn,haulout=info",
        2 => "info,haulout=debug",
        _ => "trace",
    };
    let own = environment.get("HAULOUT_LOG").and_then(|filter| filter.to_str());
    let filter = tracing_subscriber::EnvFilter::builder().parse_lossy(own.unwrap_or(levels));
    let screen = Arc::clone(screen);
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(paint.coloured)
        .with_writer(move || LogWriter(Arc::clone(&screen)));
    // Fails when there is one already, as in a test.
    let _ = subscriber.try_init();
}

#[cfg(test)]
mod tests;
