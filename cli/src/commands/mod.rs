//! The subcommands, and what they share: a runtime, a client, waiting for a job.

mod job;
mod run;
mod serve;
mod worker;

use std::future::Future;
use std::process::ExitCode;
use std::time::Duration;

use futures::StreamExt;
use lethe_client::{Client, Options};
use lethe_domain::{JobId, JobState, JobStatus};
use lethe_process::log;

use crate::error::Error;
use crate::output::remark;
use crate::progress::ProgressView;
use crate::result_table;

/// What `lethe` does.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Run one job from start to end on this machine
    Run(run::Arguments),
    /// Start a coordinator that workers join and people submit jobs to
    Serve(serve::Arguments),
    /// Submit, watch and cancel jobs of a coordinator
    #[command(subcommand)]
    Job(job::Command),
    /// Look at the workers of a coordinator, and tell it what to do with them
    #[command(subcommand)]
    Worker(worker::Command),
}

/// Does it.
pub(crate) fn execute(command: Command) -> Result<ExitCode, Error> {
    match command {
        Command::Run(arguments) => run::execute(arguments),
        Command::Serve(arguments) => serve::execute(arguments),
        Command::Job(command) => job::execute(command),
        Command::Worker(command) => worker::execute(command),
    }
}

/// Which coordinator.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct CoordinatorOption {
    /// Address of the coordinator; may be given several times
    #[arg(long, env = "LETHE_COORDINATOR", value_delimiter = ',', default_value = "http://127.0.0.1:7400")]
    pub(crate) coordinator: Vec<String>,
}

impl CoordinatorOption {
    pub(crate) async fn connect(&self) -> Result<Client, Error> {
        Ok(Client::connect(&self.coordinator, Options::default()).await?)
    }
}

/// Runs a command that waits for things.
pub(crate) fn block_on<T>(work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Error::Other(anyhow::Error::new(error).context("cannot start the runtime")))?;
    runtime.block_on(work)
}

/// Logs of the parts inside this process, on stderr, as `RUST_LOG` asks (nothing by default but errors).
pub(crate) fn log_to_stderr(default: &str) {
    log::start(log::filter("RUST_LOG", default), log::Format::Text);
}

/// A job's id from the command line.
pub(crate) fn job_id(text: &str) -> Result<JobId, Error> {
    JobId::new(text).map_err(|error| Error::Usage(error.to_string()))
}

/// Follows a job until it is over, showing progress in `view`. Ctrl-C leaves the job alone.
pub(crate) async fn follow(
    client: &Client,
    id: &JobId,
    timeout: Option<Duration>,
    mut view: ProgressView,
) -> Result<JobStatus, Error> {
    let watch = async {
        let mut statuses = client.watch(id);
        while let Some(status) = statuses.next().await {
            let status = status?;
            view.show(&status);
            if status.state.is_final() {
                return Ok(Some(status));
            }
        }
        Ok::<_, Error>(None)
    };
    let limit = timeout.unwrap_or(Duration::MAX);
    let seen = tokio::select! {
        seen = watch => seen?,
        () = tokio::time::sleep(limit.min(Duration::from_secs(u64::from(u32::MAX)))) => {
            return Err(Error::TimedOut { job: id.to_string(), seconds: limit.as_secs() });
        }
        _ = tokio::signal::ctrl_c() => {
            return Err(Error::Interrupted(format!("no longer watching; job {id} goes on: lethe job watch {id}")));
        }
    };
    drop(view);
    match seen {
        Some(status) => Ok(status),
        None => Ok(client.get(id).await?.0),
    }
}

/// The error a job ended with, if it ended badly; what makes its result doubtful is told.
pub(crate) fn verdict(status: &JobStatus) -> Result<(), Error> {
    status.result.iter().flat_map(result_table::warnings).for_each(|warning| remark(&warning));
    match (status.state, &status.failure) {
        (JobState::Failed, Some(failure)) => Err(Error::Job(failure.clone())),
        (JobState::Cancelled, _) => Err(Error::Cancelled(status.id.to_string())),
        _ => Ok(()),
    }
}
