//! `lethe worker`: look at the workers of a coordinator, and tell it what to do with them.

mod get;
mod list;
mod order;

use std::process::ExitCode;

use lethe_domain::WorkerId;

use crate::error::Error;

/// Look at the workers of a coordinator, and tell it what to do with them.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// List workers and what their slots do
    List(list::Arguments),
    /// Show one worker, slot by slot
    Get(get::Arguments),
    /// Give a worker no more work; it hands back what it has
    Drain(order::Drain),
    /// Give a worker, or one slot of it, no work until it is released
    Quarantine(order::Quarantine),
    /// Give a worker, or one slot of it, work again
    Release(order::Release),
}

/// Does it.
pub(crate) fn execute(command: Command) -> Result<ExitCode, Error> {
    match command {
        Command::List(arguments) => list::execute(&arguments),
        Command::Get(arguments) => get::execute(&arguments),
        Command::Drain(arguments) => order::drain(&arguments),
        Command::Quarantine(arguments) => order::quarantine(&arguments),
        Command::Release(arguments) => order::release(&arguments),
    }
}

/// A worker's id from the command line.
fn worker_id(text: &str) -> Result<WorkerId, Error> {
    WorkerId::new(text).map_err(|error| Error::Usage(error.to_string()))
}
