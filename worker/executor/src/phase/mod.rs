//! The phases, one file each. A phase takes what it needs from the [`Work`], and gives it back by returning.

mod cost;
mod direction;
pub(crate) mod edit;
mod evaluate;
pub(crate) mod fine_tune;
mod left;
mod probe;
mod publish;
mod report;
pub(crate) mod sample;
mod search;
mod standby;
mod wording;

use lethe_domain::{SampleRange, Task, TaskOutput};

use crate::error::Result;
use crate::work::Work;

/// Does a task.
///
/// # Errors
/// Those of the phase; [`crate::error::Error::Stopped`].
pub(crate) fn run(task: Task, work: &mut Work<'_>) -> Result<TaskOutput> {
    Ok(match task {
        Task::Probe => TaskOutput::Probe(probe::run(work)?),
        Task::Sample { range } => {
            each_shard(work, range, |work, shard| Ok(TaskOutput::Sample(sample::run(work, shard)?)))?
        }
        Task::Direction { scores } => TaskOutput::Direction(direction::run(work, &scores)?),
        Task::Edit { range, target } => {
            each_shard(work, range, |work, shard| Ok(TaskOutput::Edit(edit::run(work, shard, &target)?)))?
        }
        Task::Search { round, range, target, pool, before } => each_shard(work, range, |work, shard| {
            Ok(TaskOutput::Search(search::run(work, shard, round, (&target, &pool, &before))?))
        })?,
        Task::FineTune { target, pool, search, role } => {
            TaskOutput::FineTune(fine_tune::run(work, &target, &pool, &search, &role)?)
        }
        Task::Standby { target, pool } => standby::run(work, &target, &pool)?,
        Task::Evaluate { range, target, weights } => each_shard(work, range, |work, shard| {
            Ok(TaskOutput::Evaluate(evaluate::run(work, shard, &target, &weights)?))
        })?,
        Task::Report { moments, target } => TaskOutput::Report(report::run(work, &moments, &target)?),
        Task::Publish { target, weights, report } => {
            TaskOutput::Publish(publish::run(work, &target, &weights, &report)?)
        }
    })
}

/// One of the shards of a lease.
#[derive(Debug, Clone, Copy)]
struct Shard {
    index: u64,
    range: SampleRange,
    /// All samples of the lease: progress counts over them.
    lease: SampleRange,
}

impl Shard {
    /// Whether the lease begins with it: what came before was loading.
    fn is_first(&self) -> bool {
        self.range.start == self.lease.start
    }

    /// Between two batches: this many samples of the shard are done.
    ///
    /// # Errors
    /// As [`Work::step`].
    fn step(&self, work: &mut Work<'_>, done: u64) -> Result<()> {
        work.step(self.range.start - self.lease.start + done, self.lease.count)
    }
}

/// Does the shards of a range one after the other, each as if it were alone.
fn each_shard(
    work: &mut Work<'_>,
    lease: SampleRange,
    mut run: impl FnMut(&mut Work<'_>, Shard) -> Result<TaskOutput>,
) -> Result<TaskOutput> {
    let cut = work.lease.phase.portions(&work.spec).cut(lease);
    let mut shards: Vec<Shard> =
        cut.map(|(index, range)| Shard { index: u64::from(index.0), range, lease }).collect();
    if shards.len() == 1 {
        return run(work, shards.remove(0));
    }
    Ok(TaskOutput::Shards(shards.into_iter().map(|shard| run(work, shard)).collect::<Result<_>>()?))
}
