//! `haulout completions`.

use clap::CommandFactory;

use super::{Context, Finish};
use crate::cli::{
    args::{Cli, CompletionsArgs},
    failure::Failure,
};

/// Prints a completion script.
///
/// # Errors
/// Never; what stdout refuses is told at the end.
pub fn run(args: &CompletionsArgs, context: &Context) -> Result<Finish, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "haulout", &mut script);
    context.output.data(&script);
    Ok(Finish::Done)
}
