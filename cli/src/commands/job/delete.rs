//! `lethe job delete`.

use std::process::ExitCode;

use crate::commands::{CoordinatorOption, block_on, job_id};
use crate::error::Error;
use crate::output::remark;

/// Forget jobs that have ended, with their files: what they published elsewhere (publish.uri) stays
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The jobs
    #[arg(required = true)]
    jobs: Vec<String>,
    #[command(flatten)]
    coordinator: CoordinatorOption,
}

pub(crate) fn execute(arguments: &Arguments) -> Result<ExitCode, Error> {
    let ids = arguments.jobs.iter().map(|job| job_id(job)).collect::<Result<Vec<_>, _>>()?;
    block_on(async {
        let client = arguments.coordinator.connect().await?;
        for id in &ids {
            client.delete(id).await?;
            remark(&format!("{id} is deleted"));
        }
        Ok(ExitCode::SUCCESS)
    })
}
