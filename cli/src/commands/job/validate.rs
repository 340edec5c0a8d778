//! `lethe job validate` and `lethe job schema`.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::commands::{CoordinatorOption, block_on};
use crate::error::Error;
use crate::output::{Format, print, remark};
use crate::spec_file::{self, Look};

/// Say everything that can be known to be wrong with a job, and run nothing
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The job spec, YAML or JSON; - reads standard input
    file: PathBuf,
    /// Ask the coordinator too, which may see other files than this machine. Objects of stores are then looked at by the
    /// coordinator alone, which may reach stores that this machine does not
    #[arg(long)]
    remote: bool,
    #[command(flatten)]
    coordinator: CoordinatorOption,
}

pub(crate) fn execute(arguments: &Arguments) -> Result<ExitCode, Error> {
    let look = if arguments.remote { Look::Here } else { Look::Everywhere };
    let spec = spec_file::read(&arguments.file, look)?;
    if arguments.remote {
        block_on(async { Ok(arguments.coordinator.connect().await?.validate(&spec).await?) })?;
    }
    remark(&format!("{} is a valid job", arguments.file.display()));
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn schema() -> Result<ExitCode, Error> {
    print(&lethe_domain::spec::json_schema(), Format::Json, |_| String::new())?;
    Ok(ExitCode::SUCCESS)
}
