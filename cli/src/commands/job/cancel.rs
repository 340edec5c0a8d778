//! `lethe job cancel`.

use std::process::ExitCode;
use std::time::Duration;

use lethe_domain::JobState;

use crate::commands::{CoordinatorOption, block_on, follow, job_id};
use crate::error::Error;
use crate::output::{OutputOption, print};
use crate::progress::ProgressView;

/// End a job
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The job
    job: String,
    /// Why, for those who wonder later
    #[arg(long, default_value = "")]
    reason: String,
    /// Return at once instead of waiting until its slots are free
    #[arg(long)]
    no_wait: bool,
    #[command(flatten)]
    coordinator: CoordinatorOption,
    #[command(flatten)]
    output: OutputOption,
}

/// How long the slots of a cancelled job may take to become free.
const FREE_WITHIN: Duration = Duration::from_secs(60);

pub(crate) fn execute(arguments: &Arguments) -> Result<ExitCode, Error> {
    let id = job_id(&arguments.job)?;
    block_on(async {
        let client = arguments.coordinator.connect().await?;
        let mut status = client.cancel(&id, &arguments.reason).await?;
        if !arguments.no_wait && !status.state.is_final() {
            status = follow(&client, &id, Some(FREE_WITHIN), ProgressView::new()).await?;
        }
        print(&status, arguments.output.format, |_| match status.state {
            JobState::Cancelled => format!("{id} is cancelled, its slots are free"),
            state => format!("{id} is {state}"),
        })?;
        Ok(ExitCode::SUCCESS)
    })
}
