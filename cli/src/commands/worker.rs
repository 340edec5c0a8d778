//! `lethe worker`: look at the workers of a coordinator.

use std::process::ExitCode;

use lethe_domain::WorkerStatus;

use crate::commands::{CoordinatorOption, block_on};
use crate::error::Error;
use crate::output::{OutputOption, columns, print};
use crate::units::duration;

/// Look at the workers of a coordinator.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// List workers and what their slots do
    List {
        #[command(flatten)]
        coordinator: CoordinatorOption,
        #[command(flatten)]
        output: OutputOption,
    },
}

/// Does it.
pub(crate) fn execute(command: Command) -> Result<ExitCode, Error> {
    let Command::List { coordinator, output } = command;
    let workers = block_on(async { Ok(coordinator.connect().await?.workers().await?) })?;
    print(&workers, output.format, |wide| table(&workers, wide))?;
    Ok(ExitCode::SUCCESS)
}

fn table(workers: &[WorkerStatus], wide: bool) -> String {
    let mut head = vec!["WORKER", "HOST", "STATE", "SLOTS", "BUSY", "HEARTBEAT"];
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
                format!("{} ago", duration(worker.heartbeat_age_ms as f64 / 1000.0)),
            ];
            if wide {
                row.extend([worker.version.clone(), leases.join(" ")]);
            }
            row
        })
        .collect();
    columns(&head, &rows)
}
