//! `lethe job`: submit, watch, cancel and delete jobs of a coordinator.

mod cancel;
mod delete;
mod download;
mod explain;
mod get;
mod list;
mod submit;
mod validate;
mod watch;

use std::process::ExitCode;

use crate::commands::CoordinatorOption;
use crate::error::Error;
use crate::output::OutputOption;

/// One job to look at.
#[derive(Debug, clap::Args)]
pub(crate) struct OneJob {
    /// The job
    job: String,
    #[command(flatten)]
    coordinator: CoordinatorOption,
    #[command(flatten)]
    output: OutputOption,
}

/// Submit, watch, cancel and delete jobs of a coordinator.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Submit a job
    Submit(submit::Arguments),
    /// Say everything that can be known to be wrong with a job, and run nothing
    Validate(validate::Arguments),
    /// Print the JSON schema of a job spec
    Schema,
    /// Show one job
    Get(OneJob),
    /// List jobs, newest first
    List(list::Arguments),
    /// Follow a job until it is over
    Watch(watch::Arguments),
    /// Say what of a job waits, and why
    Explain(OneJob),
    /// End a job
    Cancel(cancel::Arguments),
    /// Forget jobs that have ended, with their files
    Delete(delete::Arguments),
    /// Download what a finished job made
    Download(download::Arguments),
}

/// Does it.
pub(crate) fn execute(command: Command) -> Result<ExitCode, Error> {
    match command {
        Command::Submit(arguments) => submit::execute(arguments),
        Command::Validate(arguments) => validate::execute(&arguments),
        Command::Schema => validate::schema(),
        Command::Get(arguments) => get::execute(&arguments),
        Command::List(arguments) => list::execute(&arguments),
        Command::Watch(arguments) => watch::execute(&arguments),
        Command::Explain(arguments) => explain::execute(&arguments),
        Command::Cancel(arguments) => cancel::execute(&arguments),
        Command::Delete(arguments) => delete::execute(&arguments),
        Command::Download(arguments) => download::execute(&arguments),
    }
}
