//! One file per command: it puts the settings together, calls the operation, tells how it ended.

pub mod agent;
pub mod archive;
pub mod backup;
pub mod binlog;
pub mod check;
pub mod compact;
pub mod completions;
pub mod config;
pub mod copy;
pub mod copy_back;
pub mod doctor;
pub mod drill;
pub mod fetch;
pub mod init;
pub mod key;
pub mod list;
pub mod man;
pub mod move_back;
pub mod prepare;
pub mod prune;
pub mod restore;
pub mod restore_table;
pub mod serve;
pub mod show;
mod table;
mod tables;
pub mod undelete;
pub mod unhide;

use std::sync::Arc;

use super::{
    args::{Command, GlobalArgs},
    failure::Failure,
    output::Output,
    progress::{Unit, Watcher},
    settings::Layers,
    signals::Stop,
};
use crate::{
    error::Kind,
    model::{Clock, Entropy, SystemClock, SystemEntropy},
};

/// How a command ended that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// All is well.
    Done,
    /// It came to its end, with damage or skips that it named.
    Damaged,
}

impl Finish {
    /// Exit code of the process.
    pub fn exit_code(self) -> u8 {
        match self {
            Finish::Done => 0,
            Finish::Damaged => Kind::Damaged.exit_code(),
        }
    }
}

/// What every command works with.
#[derive(Debug)]
pub struct Context {
    /// Where it tells.
    pub output: Arc<Output>,
    /// Settings below the flags.
    pub layers: Layers,
    /// Options of every command.
    pub global: GlobalArgs,
    /// Turns true when it is to stop.
    pub stop: Stop,
}

impl Context {
    /// URL of the repository on the command line.
    pub fn url(&self) -> Option<&str> {
        self.global.repo.as_deref()
    }

    /// Hands on settings that were put together, after telling what the operator should know of them.
    ///
    /// # Errors
    /// When they are wrong.
    pub fn settle<T, E: Into<Failure>>(&self, settings: Result<T, E>) -> Result<T, Failure> {
        for warning in self.layers.take_warnings() {
            self.output.warn(&warning);
        }
        settings.map_err(Into::into)
    }

    /// Watches an operation; `check_unit` is what its checking counts.
    pub fn progress(&self, check_unit: Unit) -> Arc<Watcher> {
        Arc::new(Watcher::new(Arc::clone(&self.output), check_unit, !self.global.no_progress))
    }

    /// The machine's clock.
    pub fn clock(&self) -> Arc<dyn Clock> {
        Arc::new(SystemClock)
    }

    /// The machine's chance.
    pub fn entropy(&self) -> Arc<dyn Entropy> {
        Arc::new(SystemEntropy)
    }
}

/// Carries out `command`.
///
/// # Errors
/// When it fails; a failure after the operator asked to stop is [`Kind::Interrupted`].
pub async fn run(command: &Command, context: &Context) -> Result<Finish, Failure> {
    let result = match command {
        Command::Init(args) => init::run(args, context).await,
        Command::Backup(args) => backup::run(args, context).await,
        Command::Archive(args) => archive::run(args, context).await,
        Command::List(args) => list::run(args, context).await,
        Command::Show(args) => show::run(args, context).await,
        Command::Restore(args) => restore::run(args, context).await,
        Command::RestoreTable(args) => restore_table::run(args, context).await,
        Command::Fetch(args) => fetch::run(args, context).await,
        Command::Prepare(args) => prepare::run(args, context).await,
        Command::MoveBack(args) => move_back::run(args, context).await,
        Command::CopyBack(args) => copy_back::run(args, context).await,
        Command::Check(args) => check::run(args, context).await,
        Command::Drill(args) => drill::run(args, context).await,
        Command::Prune(args) => prune::run(args, context).await,
        Command::Compact(args) => compact::run(args, context).await,
        Command::Copy(args) => copy::run(args, context).await,
        Command::Binlog(args) => binlog::run(args, context).await,
        Command::Undelete(args) => undelete::run(args, context).await,
        Command::Unhide(args) => unhide::run(args, context).await,
        Command::Key(args) => key::run(args, context).await,
        Command::Serve(args) => serve::run(args, context).await,
        Command::Doctor(args) => doctor::run(args, context).await,
        Command::Agent(args) => agent::run(args, context).await,
        Command::Config(args) => config::run(args, context),
        Command::Completions(args) => completions::run(args, context),
        Command::Man(args) => man::run(args, context),
    };
    let stopped = *context.stop.borrow();
    result.map_err(|failure| if stopped { failure.interrupted() } else { failure })
}
