//! `lethe job list`.

use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::builder::{PossibleValuesParser, TypedValueParser};
use lethe_domain::numbers::span;
use lethe_domain::{JobFilter, JobResult, JobState, JobStatus, PhaseState, Unit};

use crate::commands::{CoordinatorOption, block_on};
use crate::error::Error;
use crate::output::{OutputOption, columns, print};

/// List jobs, newest first
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Show at most this many
    #[arg(long, default_value_t = 50)]
    limit: usize,
    /// Only jobs in this state; may be given several times
    #[arg(long = "state", value_name = "STATE", value_parser = state())]
    states: Vec<JobState>,
    /// Only jobs of this owner (queue.owner of their specs)
    #[arg(long)]
    owner: Option<String>,
    /// Only jobs whose spec has this name
    #[arg(long)]
    name: Option<String>,
    /// Only jobs submitted within this time, such as 2h or 7days
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    since: Option<Duration>,
    #[command(flatten)]
    coordinator: CoordinatorOption,
    #[command(flatten)]
    output: OutputOption,
}

/// The states by the names that lists show.
fn state() -> impl TypedValueParser<Value = JobState> {
    let named = |name: String| JobState::ALL.into_iter().find(|state| state.name() == name);
    PossibleValuesParser::new(JobState::ALL.map(JobState::name))
        .try_map(move |name| named(name).ok_or("no such state"))
}

impl Arguments {
    fn filter(&self) -> JobFilter {
        let since = self.since.and_then(|ago| SystemTime::now().checked_sub(ago));
        JobFilter {
            states: self.states.clone(),
            owner: self.owner.clone(),
            name: self.name.clone(),
            // Before 1970 there were no jobs.
            since_unix_ms: since
                .and_then(|at| at.duration_since(UNIX_EPOCH).ok())
                .map(|at| at.as_millis() as u64),
        }
    }
}

pub(crate) fn execute(arguments: &Arguments) -> Result<ExitCode, Error> {
    let jobs = block_on(async {
        let client = arguments.coordinator.connect().await?;
        let filter = arguments.filter();
        let mut jobs = Vec::new();
        let mut after = None;
        while jobs.len() < arguments.limit {
            let page = client.list_fitting(&filter, 0, after.as_deref()).await?;
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
        head.extend(["OWNER", "NOTE"]);
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
        span(seconds),
    ];
    if wide {
        let waiting = job.waiting.as_ref().map(ToString::to_string);
        let failure = job.failure.as_ref().map(ToString::to_string);
        row.push(job.owner.clone());
        row.push(failure.or(waiting).unwrap_or_else(|| codes.join(", ")));
    }
    row
}
