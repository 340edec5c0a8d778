//! `lethe job list`.

use std::process::ExitCode;

use lethe_domain::{JobResult, JobStatus, PhaseState, Unit};

use crate::commands::{CoordinatorOption, block_on};
use crate::error::Error;
use crate::output::{OutputOption, columns, print};
use crate::units::duration;

/// List jobs, newest first
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Show at most this many
    #[arg(long, default_value_t = 50)]
    limit: usize,
    #[command(flatten)]
    coordinator: CoordinatorOption,
    #[command(flatten)]
    output: OutputOption,
}

pub(crate) fn execute(arguments: &Arguments) -> Result<ExitCode, Error> {
    let jobs = block_on(async {
        let client = arguments.coordinator.connect().await?;
        let mut jobs = Vec::new();
        let mut after = None;
        while jobs.len() < arguments.limit {
            let page = client.list(0, after.as_deref()).await?;
            jobs.extend(page.jobs);
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        jobs.truncate(arguments.limit);
        Ok(jobs)
    })?;
    print(&jobs, arguments.output.format, |wide| table(&jobs, wide))?;
    Ok(ExitCode::SUCCESS)
}

fn table(jobs: &[JobStatus], wide: bool) -> String {
    let mut head = vec!["JOB", "FEATURE", "STATE", "PHASE", "SLOTS", "REMAINING", "WARNINGS", "TIME"];
    if wide {
        head.push("NOTE");
    }
    let rows: Vec<Vec<String>> = jobs.iter().map(|job| row(job, wide)).collect();
    columns(&head, &rows)
}

fn row(job: &JobStatus, wide: bool) -> Vec<String> {
    let running = job.phases.iter().find(|phase| phase.state == PhaseState::Running);
    let phase = running.map_or_else(|| "-".to_owned(), |phase| phase.phase.to_string());
    let result = job.result.as_ref();
    let remaining = result.and_then(JobResult::remaining_share).map(|share| Unit::Share.show(share));
    let codes: Vec<&str> =
        result.iter().flat_map(|result| &result.warnings).map(|warning| warning.code.name()).collect();
    let seconds: f64 = job.phases.iter().map(|phase| phase.seconds).sum();
    let mut row = vec![
        job.id.to_string(),
        job.feature.clone(),
        job.state.to_string(),
        phase,
        job.slots.to_string(),
        remaining.unwrap_or_else(|| "-".to_owned()),
        codes.len().to_string(),
        duration(seconds),
    ];
    if wide {
        let waiting = job.waiting.as_ref().map(ToString::to_string);
        let failure = job.failure.as_ref().map(ToString::to_string);
        row.push(failure.or(waiting).unwrap_or_else(|| codes.join(", ")));
    }
    row
}
