//! `lethe job explain`.

use std::process::ExitCode;

use super::OneJob;
use lethe_domain::numbers::counted;

use crate::commands::{block_on, job_id};
use crate::error::Error;
use crate::output::{columns, print};

/// Say what of a job waits, and why.
pub(crate) fn execute(arguments: &OneJob) -> Result<ExitCode, Error> {
    let id = job_id(&arguments.job)?;
    let (lines, status) = block_on(async {
        let client = arguments.coordinator.connect().await?;
        Ok((client.explain(&id).await?, client.get(&id).await?.0))
    })?;
    print(&lines, arguments.output.format, |_| {
        if lines.is_empty() {
            let slots = if status.slots == 0 {
                String::new()
            } else {
                format!(", {} at work", counted(u64::from(status.slots), "slot"))
            };
            return format!("nothing of job {id} waits: it is {}{slots}", status.state);
        }
        let rows: Vec<Vec<String>> =
            lines.iter().map(|line| vec![line.what.clone(), line.why.clone()]).collect();
        columns(&["WAITS", "BECAUSE"], &rows)
    })?;
    Ok(ExitCode::SUCCESS)
}
