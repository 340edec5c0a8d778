//! `lethe job get`.

use std::process::ExitCode;

use lethe_domain::numbers::{counted, grouped, span};
use lethe_domain::{JobState, JobStatus, PhaseState};

use super::OneJob;
use crate::commands::{block_on, job_id};
use crate::error::Error;
use crate::output::{columns, print};
use crate::result_table;

/// Show one job.
pub(crate) fn execute(arguments: &OneJob) -> Result<ExitCode, Error> {
    let id = job_id(&arguments.job)?;
    let (status, _) = block_on(async { Ok(arguments.coordinator.connect().await?.get(&id).await?) })?;
    print(&status, arguments.output.format, |wide| table(&status, wide))?;
    Ok(ExitCode::SUCCESS)
}

fn table(status: &JobStatus, wide: bool) -> String {
    if let (JobState::Succeeded, Some(result)) = (status.state, &status.result) {
        let table = result_table::render(result, wide);
        return std::iter::once(table).chain(result_table::warnings(result)).collect::<Vec<_>>().join("\n");
    }
    let rows: Vec<Vec<String>> = status
        .phases
        .iter()
        .map(|phase| {
            let state = match phase.state {
                PhaseState::Pending => "-",
                PhaseState::Running => "running",
                PhaseState::Done => "done",
                PhaseState::Failed => match status.state {
                    JobState::Cancelled => "cancelled",
                    JobState::Cancelling => "stopping",
                    _ => "failed",
                },
            };
            let done = if phase.total == 0 {
                String::new()
            } else {
                format!("{}/{}", grouped(phase.done), grouped(phase.total))
            };
            vec![phase.phase.to_string(), state.to_owned(), done, span(phase.seconds)]
        })
        .collect();
    let ended = status.failure.as_ref().map_or_else(String::new, |failure| {
        let hint = if failure.hint.is_empty() { String::new() } else { format!("\nhint: {}", failure.hint) };
        format!("\n{failure}{hint}")
    });
    let waiting = status.waiting.as_ref().map(|waiting| format!("\nwaiting: {waiting}")).unwrap_or_default();
    format!(
        "{} ({}): {}, {}\n{}{waiting}{ended}",
        status.name,
        status.id,
        status.state,
        counted(u64::from(status.slots), "slot"),
        columns(&["PHASE", "STATE", "DONE", "TIME"], &rows)
    )
}
