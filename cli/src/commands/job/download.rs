//! `lethe job download`.

use std::path::PathBuf;
use std::process::ExitCode;

use lethe_domain::JobResult;
use lethe_domain::result_files::{RESULT, SHEET};

use crate::commands::{CoordinatorOption, block_on, job_id};
use crate::error::Error;
use crate::output::{Format, print, remark};
use crate::result_folder::{Force, ResultFolder, generator_name};

/// Download what a finished job made
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The job
    job: String,
    /// Folder to write into [default: one with the job's id]
    #[arg(long)]
    out: Option<PathBuf>,
    /// Replace files there that are not of this job
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    coordinator: CoordinatorOption,
}

pub(crate) fn execute(arguments: &Arguments) -> Result<ExitCode, Error> {
    let id = job_id(&arguments.job)?;
    let out = arguments.out.clone().unwrap_or_else(|| PathBuf::from(id.as_str()));
    block_on(async {
        let client = arguments.coordinator.connect().await?;
        let (status, _) = client.get(&id).await?;
        let Some(result) = status.result else {
            return Err(Error::Usage(format!("job {id} is {}: it has no result yet", status.state)));
        };
        let names = names(&result);
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let force = if arguments.force { Force::Said } else { Force::Unsaid };
        let mut folder = ResultFolder::take(&out, Some(&id), &names, force)?;
        let result = folder.deliver(&client, &id, result, |_| {}).await?;
        remark(&format!("written to {}", out.display()));
        print(&result, Format::Json, |_| String::new())?;
        Ok(ExitCode::SUCCESS)
    })
}

/// The files that a result consists of.
fn names(result: &JobResult) -> Vec<String> {
    let mut names = vec![RESULT.to_owned(), SHEET.to_owned()];
    if let Some(path) = &result.artifacts.generator {
        let name = generator_name(path);
        names.extend([format!("{name}.json"), name]);
    }
    names
}
