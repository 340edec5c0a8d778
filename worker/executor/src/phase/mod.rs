//! The phases, one file each. A phase takes what it needs from the [`Work`], and gives it back by returning.

mod direction;
mod evaluate;
pub(crate) mod fine_tune;
mod probe;
mod publish;
mod report;
pub(crate) mod sample;

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
        Task::Sample { range } => TaskOutput::Sample(sample::run(work, range)?),
        Task::Direction { scores } => TaskOutput::Direction(direction::run(work, &scores)?),
        Task::FineTune { target, role } => TaskOutput::FineTune(fine_tune::run(work, &target, &role)?),
        Task::Evaluate { range, target, weights } => {
            TaskOutput::Evaluate(evaluate::run(work, range, &target, &weights)?)
        }
        Task::Report { moments, target } => TaskOutput::Report(report::run(work, &moments, &target)?),
        Task::Publish { target, weights } => TaskOutput::Publish(publish::run(work, &target, &weights)?),
    })
}

/// Cuts a range into batches, from its start: a batch always holds the same samples, whoever works on it.
pub(crate) fn batches(range: SampleRange, batch: u64) -> impl Iterator<Item = SampleRange> {
    let batch = batch.max(1);
    (0..range.count.div_ceil(batch)).map(move |place| {
        let done = place * batch;
        SampleRange { start: range.start + done, count: batch.min(range.count - done) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_cover_a_range_once() {
        let cut = |start, count, batch| {
            batches(SampleRange { start, count }, batch).map(|b| (b.start, b.count)).collect::<Vec<_>>()
        };
        assert_eq!(cut(100, 7, 3), [(100, 3), (103, 3), (106, 1)]);
        assert_eq!(cut(0, 6, 6), [(0, 6)]);
        assert_eq!(cut(5, 0, 3), []);
    }
}
