//! `lethe run`: one job from start to end on this machine.
//!
//! A coordinator and an agent live in this process and talk over loopback as they would across a network; the
//! executors are child processes. State lies in a folder, so that the same command goes on after an interruption.

mod folder;
mod resume;

use std::path::PathBuf;
use std::process::ExitCode;

use lethe_agent::{
    Agent, AgentConfig, DeviceChoice, Patience, Slots, find_executor, hostname, new_worker_id, plan_slots,
};
use lethe_client::{Client, Options};
use lethe_coordinator::{Coordinator, CoordinatorConfig, KEEP_EDITS};
use lethe_domain::spec::Device;
use lethe_domain::{JobId, JobResult, JobSpec, JobState, JobStatus};
use tokio_util::sync::CancellationToken;

use crate::commands::{block_on, follow, log_to_stderr, verdict};
use crate::error::Error;
use crate::output::{OutputOption, print, remark};
use crate::progress::ProgressView;
use crate::result_table;
use crate::spec_file::{self, Look};
use folder::{Folder, artifact_path};
use resume::Standing;

/// Run one job from start to end on this machine
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The job spec, YAML or JSON; - reads standard input
    file: PathBuf,
    /// Folder for the result; the state lies below it. Default: lethe-out/NAME
    #[arg(long)]
    out: Option<PathBuf>,
    /// Executors to start. Default: the GPUs, or on a cpu as many as resources.slots allows and cores there are
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=256))]
    slots: Option<u32>,
    /// Begin anew, whatever the folder holds
    #[arg(long)]
    fresh: bool,
    /// Where lethe-executor is. Default: beside lethe
    #[arg(long, env = "LETHE_EXECUTOR")]
    executor: Option<PathBuf>,
    #[command(flatten)]
    output: OutputOption,
}

/// Runs it.
pub(crate) fn execute(arguments: Arguments) -> Result<ExitCode, Error> {
    log_to_stderr("error");
    let spec = spec_file::read(&arguments.file, Look::Here)?;
    let slots = slots(&spec, arguments.slots)?;
    let executor =
        find_executor(arguments.executor.as_deref()).map_err(|error| Error::Usage(error.to_string()))?;
    let out = arguments.out.clone().unwrap_or_else(|| PathBuf::from("lethe-out").join(&spec.name));
    let mut folder = Folder::open(&out, arguments.fresh, &spec)?;
    let (status, result) = block_on(run(&spec, slots, executor, &mut folder))?;
    if let Some(result) = result {
        print(&result, arguments.output.format, |wide| result_table::render(&result, wide))?;
    }
    verdict(&status)?;
    remark(&format!("result in {}", folder.out().display()));
    Ok(ExitCode::SUCCESS)
}

/// The devices to work on: the GPUs, or on a cpu as many executors as the gang may use and cores there are.
fn slots(spec: &JobSpec, wanted: Option<u32>) -> Result<Slots, Error> {
    let range = spec.resources.slots;
    if let Some(wanted) = wanted.filter(|wanted| *wanted < range.min) {
        return Err(Error::Usage(format!(
            "--slots {wanted} is fewer than resources.slots.min ({}) in the spec: raise one or lower the other",
            range.min
        )));
    }
    let choice = match spec.resources.device {
        Device::Auto => DeviceChoice::Auto,
        Device::Cpu => DeviceChoice::Cpu,
        Device::Cuda => DeviceChoice::Cuda,
    };
    let threads = Some(spec.resources.threads).filter(|threads| *threads > 0);
    let plan = |count| plan_slots(&choice, count, threads).map_err(|error| Error::Usage(error.to_string()));
    let slots = plan(wanted)?;
    let on_cpu = slots.devices.iter().all(|device| device == "cpu");
    if wanted.is_some() || !on_cpu {
        return Ok(slots);
    }
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u32);
    plan(Some(range.max.min(cores).max(range.min)))
}

type Outcome = (JobStatus, Option<JobResult>);

async fn run(spec: &JobSpec, slots: Slots, executor: PathBuf, folder: &mut Folder) -> Result<Outcome, Error> {
    let mut config = CoordinatorConfig {
        listen: ([127, 0, 0, 1], 0).into(),
        advertise: None,
        leader_ttl: std::time::Duration::from_secs(3),
        http: None,
        store: folder.store_uri(),
        artifacts: folder.artifacts_uri(),
        allow_chaos: false,
        keep_edits: KEEP_EDITS,
        engine: Default::default(),
    };
    // Somebody waits at this terminal: what does not pass in seconds is to be told.
    config.engine.storage_attempts = 4;
    // Tries that failed in this folder before.
    config.engine.keep_jobs = Some(10);
    let coordinator = Coordinator::start(config).await.map_err(|error| Error::Other(error.into()))?;
    let address = format!("http://{}", coordinator.grpc_address());
    let client = Client::connect(&[&address], Options::default()).await?;
    let outcome = match resume::standing(&client, spec).await {
        Ok(Standing::Done(status)) => {
            unchanged(&client, &status.id, folder).await?;
            remark(&format!("{} was already run here; --fresh runs it again", spec.name));
            Ok(*status)
        }
        Ok(Standing::Unfinished(id)) => {
            unchanged(&client, &id, folder).await?;
            remark(&format!("going on with job {id}"));
            work(agent(&address, slots, executor, folder)?, &client, id, folder).await
        }
        Ok(Standing::New) => {
            folder.forget_result()?;
            let submitted = client.submit(spec, None).await?;
            work(agent(&address, slots, executor, folder)?, &client, submitted.id, folder).await
        }
        Err(error) => Err(error),
    };
    let outcome = match outcome {
        Ok(status) => match deliver(&client, status.clone(), folder).await {
            // What stopped the job also stops its result from being written: the first cause is the one to name.
            Err(error) if status.state != JobState::Succeeded => {
                remark(&format!("there is no result: {error}"));
                Ok((status, None))
            }
            delivered => delivered,
        },
        Err(error) => Err(error),
    };
    coordinator.shutdown().await;
    outcome
}

/// Refuses to go on with other files than the job was accepted with. The executors would too, and the job would be over.
async fn unchanged(client: &Client, id: &JobId, folder: &Folder) -> Result<(), Error> {
    let inputs = client.inputs(id).await?;
    match lethe_coordinator::changed(&inputs).await.map_err(Error::Usage)? {
        None => Ok(()),
        Some((role, input)) => Err(Error::Usage(format!(
            "{} ({role}) has changed since the job began in {}: put the old one back (SHA-256 {}), or begin anew with --fresh",
            input.uri,
            folder.out().display(),
            input.sha256
        ))),
    }
}

fn agent(coordinator: &str, slots: Slots, executor: PathBuf, folder: &Folder) -> Result<Agent, Error> {
    let hostname = hostname();
    let broken = |error: lethe_agent::Error| Error::Other(error.into());
    let config = AgentConfig {
        coordinators: vec![coordinator.to_owned()],
        id: new_worker_id(&hostname).map_err(broken)?,
        hostname,
        executor,
        devices: slots.devices,
        threads: slots.threads,
        logs: Some(folder.logs()),
        chaos: None,
        patience: Patience::default(),
    };
    Agent::new(config).map_err(broken)
}

/// Has the job done by an agent of our own, and ends its executors whatever happens.
async fn work(agent: Agent, client: &Client, id: JobId, folder: &Folder) -> Result<JobStatus, Error> {
    let stop = CancellationToken::new();
    let mut running = tokio::spawn(agent.run(stop.clone().cancelled_owned()));
    let followed = tokio::select! {
        followed = follow(client, &id, None, ProgressView::of_own_worker()) => followed,
        ended = &mut running => {
            let error = match ended {
                Ok(Err(error)) => anyhow::Error::new(error),
                Ok(Ok(())) => anyhow::anyhow!("the agent left before the job was over"),
                Err(panic) => anyhow::Error::new(panic).context("the agent broke down"),
            };
            return Err(Error::Other(error));
        }
        () = terminated() => Err(Error::Interrupted(String::new())),
    };
    stop.cancel();
    let _ = running.await;
    followed.map_err(|error| match error {
        Error::Interrupted(_) => Error::Interrupted(format!(
            "interrupted: the executors have ended, the state is in {}; the same command goes on from there",
            folder.out().display()
        )),
        other => other,
    })
}

async fn terminated() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut signal) => drop(signal.recv().await),
        Err(_) => std::future::pending().await,
    }
}

async fn deliver(client: &Client, status: JobStatus, folder: &mut Folder) -> Result<Outcome, Error> {
    let Some(result) = status.result.clone() else { return Ok((status, None)) };
    let results = folder.results();
    let relative = |result: &mut JobResult| {
        result.artifacts.checkpoint = result.artifacts.checkpoint.take().map(|path| artifact_path(&path));
    };
    let result = results.deliver(client, &status.id, result, relative).await?;
    Ok((status, Some(result)))
}
