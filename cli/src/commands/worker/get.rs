//! `lethe worker get`.

use std::process::ExitCode;

use lethe_domain::numbers::span;
use lethe_domain::{WorkerState, WorkerStatus};

use super::worker_id;
use crate::commands::{CoordinatorOption, block_on};
use crate::error::Error;
use crate::output::{OutputOption, columns, print};

/// Show one worker, slot by slot
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The worker
    worker: String,
    #[command(flatten)]
    coordinator: CoordinatorOption,
    #[command(flatten)]
    output: OutputOption,
}

pub(crate) fn execute(arguments: &Arguments) -> Result<ExitCode, Error> {
    let id = worker_id(&arguments.worker)?;
    let worker = block_on(async { Ok(arguments.coordinator.connect().await?.worker(&id).await?) })?;
    print(&worker, arguments.output.format, |_| text(&worker))?;
    Ok(ExitCode::SUCCESS)
}

/// Whether nothing is granted to a worker in this state.
fn gets_no_work(state: WorkerState) -> bool {
    matches!(state, WorkerState::Draining | WorkerState::Suspect | WorkerState::Dead)
}

/// A worker and its slots, for people.
pub(super) fn text(worker: &WorkerStatus) -> String {
    let reason = worker.reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
    let head = format!(
        "worker {} on {} (version {}) is {}{reason}\nlast heartbeat {} ago",
        worker.id,
        worker.hostname,
        worker.version,
        worker.state.name(),
        span(worker.heartbeat_age_ms as f64 / 1000.0)
    );
    let rows: Vec<Vec<String>> = worker
        .slots
        .iter()
        .enumerate()
        .map(|(index, slot)| {
            let state = match (&slot.quarantine, &slot.lease) {
                (Some(reason), _) => format!("quarantined: {reason}"),
                (None, Some(lease)) => format!("works on {lease}"),
                (None, None) if gets_no_work(worker.state) => {
                    format!("idle, gets no work ({})", worker.state.name())
                }
                (None, None) if slot.proven => "free".to_owned(),
                (None, None) => "its executor is not up yet".to_owned(),
            };
            let speed = match slot.samples_per_second {
                speed if speed > 0.0 => format!("{speed:.0}"),
                _ => "-".to_owned(),
            };
            vec![index.to_string(), slot.device.clone(), speed, state]
        })
        .collect();
    format!("{head}\n\n{}", columns(&["SLOT", "DEVICE", "SAMPLES/S", "STATE"], &rows))
}
