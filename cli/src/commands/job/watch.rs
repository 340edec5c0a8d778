//! `lethe job watch`.

use std::process::ExitCode;
use std::time::Duration;

use crate::commands::{CoordinatorOption, block_on, follow, job_id, verdict};
use crate::error::Error;
use crate::output::{OutputOption, print};
use crate::progress::ProgressView;
use crate::result_table;

/// Follow a job until it is over
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The job
    job: String,
    /// Wait no longer than this many seconds
    #[arg(long)]
    timeout: Option<u64>,
    #[command(flatten)]
    coordinator: CoordinatorOption,
    #[command(flatten)]
    output: OutputOption,
}

pub(crate) fn execute(arguments: &Arguments) -> Result<ExitCode, Error> {
    let id = job_id(&arguments.job)?;
    block_on(async {
        let client = arguments.coordinator.connect().await?;
        let status =
            follow(&client, &id, arguments.timeout.map(Duration::from_secs), ProgressView::new()).await?;
        print(&status, arguments.output.format, |wide| {
            status.result.as_ref().map(|result| result_table::render(result, wide)).unwrap_or_default()
        })?;
        verdict(&status)?;
        Ok(ExitCode::SUCCESS)
    })
}
