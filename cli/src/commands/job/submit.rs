//! `lethe job submit`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use crate::commands::{CoordinatorOption, block_on, follow, verdict};
use crate::error::Error;
use crate::output::{Format, OutputOption, print, remark};
use crate::progress::ProgressView;
use crate::result_table;
use crate::spec_file::{self, Look};

/// Submit a job
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The job spec, YAML or JSON; - reads standard input
    file: PathBuf,
    /// Wait until the job is over, showing its progress
    #[arg(long)]
    wait: bool,
    /// Wait no longer than this many seconds
    #[arg(long, requires = "wait")]
    timeout: Option<u64>,
    /// Makes a repeated submission the same job
    #[arg(long)]
    request_id: Option<String>,
    #[command(flatten)]
    coordinator: CoordinatorOption,
    #[command(flatten)]
    output: OutputOption,
}

pub(crate) fn execute(arguments: Arguments) -> Result<ExitCode, Error> {
    let spec = spec_file::read(&arguments.file, Look::IfRefused)?;
    block_on(async {
        let client = arguments.coordinator.connect().await?;
        let submitted = client.submit(&spec, arguments.request_id.as_deref()).await?;
        if !arguments.wait {
            print(&submitted, arguments.output.format, |_| submitted.id.to_string())?;
            if arguments.output.format == Format::Table {
                remark(&format!("follow it with: lethe job watch {}", submitted.id));
            }
            return Ok(ExitCode::SUCCESS);
        }
        let status =
            follow(&client, &submitted.id, arguments.timeout.map(Duration::from_secs), ProgressView::new())
                .await?;
        print(&status, arguments.output.format, |wide| {
            status.result.as_ref().map(|result| result_table::render(result, wide)).unwrap_or_default()
        })?;
        verdict(&status)?;
        Ok(ExitCode::SUCCESS)
    })
}
