//! `lethe job download`, and fetching a finished job's files for `lethe run`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use lethe_client::Client;
use lethe_domain::{JobId, JobResult};

use crate::commands::{CoordinatorOption, block_on, job_id};
use crate::error::Error;
use crate::output::{Format, print, remark};
use crate::whole_file;

/// Download what a finished job made
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The job
    job: String,
    /// Folder to write into
    #[arg(long, default_value = ".")]
    out: PathBuf,
    #[command(flatten)]
    coordinator: CoordinatorOption,
}

pub(crate) fn execute(arguments: &Arguments) -> Result<ExitCode, Error> {
    let id = job_id(&arguments.job)?;
    block_on(async {
        let client = arguments.coordinator.connect().await?;
        let (status, _) = client.get(&id).await?;
        let Some(result) = status.result else {
            return Err(Error::Usage(format!("job {id} is {}: it has no result yet", status.state)));
        };
        let result = fetch(&client, &id, result, &arguments.out).await?;
        write_result(&arguments.out, &result)?;
        remark(&format!("written to {}", arguments.out.display()));
        print(&result, Format::Json, |_| String::new())?;
        Ok(ExitCode::SUCCESS)
    })
}

/// Fetches the generator, its sidecar and the contact sheet into `out`; the result with their names. Every file appears
/// whole or not at all.
pub(crate) async fn fetch(
    client: &Client,
    id: &JobId,
    mut result: JobResult,
    out: &Path,
) -> Result<JobResult, Error> {
    std::fs::create_dir_all(out).map_err(|error| Error::io("create", out, error))?;
    if let Some(path) = result.artifacts.generator.take() {
        let extension =
            Path::new(&path).extension().map_or("bin".into(), |extension| extension.to_string_lossy());
        let name = format!("generator.{extension}");
        fetch_file(client, id, "generator", &out.join(&name)).await?;
        fetch_file(client, id, "sidecar", &out.join(format!("{name}.json"))).await?;
        result.artifacts.generator = Some(name);
    }
    if result.artifacts.before_after_png.take().is_some() {
        let name = "before_after.png".to_owned();
        fetch_file(client, id, "before_after_png", &out.join(&name)).await?;
        result.artifacts.before_after_png = Some(name);
    }
    Ok(result)
}

/// Writes result.json into `out`, whole or not at all. It comes last: where it is, all is.
pub(crate) fn write_result(out: &Path, result: &JobResult) -> Result<(), Error> {
    whole_file::write_json(&out.join(RESULT), result)
}

/// The file with the figures.
pub(crate) const RESULT: &str = "result.json";

async fn fetch_file(client: &Client, id: &JobId, name: &str, target: &Path) -> Result<(), Error> {
    let temporary = whole_file::temporary(target);
    let mut file =
        tokio::fs::File::create(&temporary).await.map_err(|error| Error::io("write", &temporary, error))?;
    let downloaded = client.download(id, name, &mut file).await;
    if let Err(error) = downloaded {
        let _ = std::fs::remove_file(&temporary);
        return Err(error.into());
    }
    file.sync_all().await.map_err(|error| Error::io("write", &temporary, error))?;
    std::fs::rename(&temporary, target).map_err(|error| Error::io("write", target, error))
}
