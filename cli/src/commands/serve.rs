//! `lethe serve`: a coordinator in the foreground.

use std::process::ExitCode;

use lethe_coordinator::{Coordinator, Flags};

use crate::commands::{block_on, log_to_stderr};
use crate::error::Error;
use crate::output::remark;

/// Start a coordinator that workers join and people submit jobs to.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    flags: Flags,
}

/// Serves until Ctrl-C or SIGTERM.
pub(crate) fn execute(arguments: Arguments) -> Result<ExitCode, Error> {
    log_to_stderr("info");
    let config = arguments.flags.config("lethe-state").map_err(|error| Error::Other(error.into()))?;
    block_on(async {
        let coordinator = Coordinator::start(config).await.map_err(|error| Error::Other(error.into()))?;
        let grpc = coordinator.grpc_address();
        remark(&format!(
            "coordinator at http://{grpc}; workers join with: lethe-worker --coordinator http://{grpc}"
        ));
        if let Some(http) = coordinator.http_address() {
            remark(&format!("page at http://{http}/"));
        }
        coordinator.until_told().await.map_err(|error| Error::Other(error.into()))?;
        Ok(ExitCode::SUCCESS)
    })
}
