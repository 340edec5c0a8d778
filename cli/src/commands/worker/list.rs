//! `lethe worker list`.

use std::process::ExitCode;

use lethe_domain::WorkerStatus;
use lethe_domain::numbers::span;

use crate::commands::{CoordinatorOption, block_on};
use crate::error::Error;
use crate::output::{OutputOption, columns, print};

/// List workers and what their slots do
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    coordinator: CoordinatorOption,
    #[command(flatten)]
    output: OutputOption,
}

pub(crate) fn execute(arguments: &Arguments) -> Result<ExitCode, Error> {
    let workers = block_on(async { Ok(arguments.coordinator.connect().await?.workers().await?) })?;
    print(&workers, arguments.output.format, |wide| table(&workers, wide))?;
    Ok(ExitCode::SUCCESS)
}

fn table(workers: &[WorkerStatus], wide: bool) -> String {
    let mut head = vec!["WORKER", "HOST", "STATE", "SLOTS", "BUSY", "HEARTBEAT", "REASON"];
    if wide {
        head.extend(["VERSION", "LEASES"]);
    }
    let rows: Vec<Vec<String>> = workers
        .iter()
        .map(|worker| {
            let leases: Vec<String> =
                worker.slots.iter().filter_map(|slot| slot.lease.as_ref()).map(ToString::to_string).collect();
            let mut row = vec![
                worker.id.to_string(),
                worker.hostname.clone(),
                worker.state.name().to_owned(),
                worker.slots.len().to_string(),
                leases.len().to_string(),
                format!("{} ago", span(worker.heartbeat_age_ms as f64 / 1000.0)),
                worker.reason.clone().unwrap_or_default(),
            ];
            if wide {
                row.extend([worker.version.clone(), leases.join(" ")]);
            }
            row
        })
        .collect();
    columns(&head, &rows)
}
