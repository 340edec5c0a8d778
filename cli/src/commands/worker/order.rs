//! `lethe worker drain`, `quarantine` and `release`.

use std::process::ExitCode;
use std::time::Duration;

use lethe_client::Client;
use lethe_domain::{SlotIndex, WorkerId, WorkerStatus};

use super::{get, worker_id};
use crate::commands::{CoordinatorOption, block_on};
use crate::error::Error;
use crate::output::{OutputOption, print, remark};

/// Give a worker no more work; it hands back what it has
#[derive(Debug, clap::Args)]
pub(crate) struct Drain {
    /// The worker
    worker: String,
    /// Wait until it has nothing left to do
    #[arg(long)]
    wait: bool,
    /// Seconds to wait at most
    #[arg(long, default_value_t = 600)]
    timeout: u64,
    #[command(flatten)]
    coordinator: CoordinatorOption,
    #[command(flatten)]
    output: OutputOption,
}

/// Give a worker, or one slot of it, no work until it is released
#[derive(Debug, clap::Args)]
pub(crate) struct Quarantine {
    /// The worker
    worker: String,
    /// Only this slot
    #[arg(long)]
    slot: Option<u32>,
    /// Why, for those who wonder later
    #[arg(long, default_value = "")]
    reason: String,
    #[command(flatten)]
    coordinator: CoordinatorOption,
    #[command(flatten)]
    output: OutputOption,
}

/// Give a worker, or one slot of it, work again
#[derive(Debug, clap::Args)]
pub(crate) struct Release {
    /// The worker
    worker: String,
    /// Only this slot
    #[arg(long)]
    slot: Option<u32>,
    #[command(flatten)]
    coordinator: CoordinatorOption,
    #[command(flatten)]
    output: OutputOption,
}

/// Between two looks at a worker that is being drained.
const PACE: Duration = Duration::from_millis(500);

pub(crate) fn drain(arguments: &Drain) -> Result<ExitCode, Error> {
    let id = worker_id(&arguments.worker)?;
    let worker = block_on(async {
        let client = arguments.coordinator.connect().await?;
        let worker = client.drain(&id).await?;
        let limit = Duration::from_secs(arguments.timeout);
        if arguments.wait { until_idle(&client, &id, worker, limit).await } else { Ok(worker) }
    })?;
    show(&worker, arguments.output)?;
    remark(&format!("it takes work again after: lethe worker release {id}"));
    Ok(ExitCode::SUCCESS)
}

/// Looks until a worker holds nothing, or is gone.
async fn until_idle(
    client: &Client,
    id: &WorkerId,
    mut worker: WorkerStatus,
    limit: Duration,
) -> Result<WorkerStatus, Error> {
    let idle = async {
        while worker.slots.iter().any(|slot| slot.lease.is_some()) {
            tokio::time::sleep(PACE).await;
            match client.worker(id).await {
                Ok(now) => worker = now,
                Err(lethe_client::Error::NotFound { .. }) => break,
                Err(error) => return Err(Error::from(error)),
            }
        }
        Ok(worker)
    };
    tokio::time::timeout(limit, idle)
        .await
        .map_err(|_| Error::TimedOut { job: format!("worker {id}"), seconds: limit.as_secs() })?
}

pub(crate) fn quarantine(arguments: &Quarantine) -> Result<ExitCode, Error> {
    let id = worker_id(&arguments.worker)?;
    let slot = arguments.slot.map(SlotIndex);
    let worker = block_on(async {
        Ok(arguments.coordinator.connect().await?.quarantine(&id, slot, &arguments.reason).await?)
    })?;
    show(&worker, arguments.output)
}

pub(crate) fn release(arguments: &Release) -> Result<ExitCode, Error> {
    let id = worker_id(&arguments.worker)?;
    let slot = arguments.slot.map(SlotIndex);
    let worker = block_on(async { Ok(arguments.coordinator.connect().await?.release(&id, slot).await?) })?;
    show(&worker, arguments.output)
}

fn show(worker: &WorkerStatus, output: OutputOption) -> Result<ExitCode, Error> {
    print(worker, output.format, |_| get::text(worker))?;
    Ok(ExitCode::SUCCESS)
}
