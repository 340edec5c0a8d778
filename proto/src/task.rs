//! Leases and what is done under them: assignments, progress, how it ended. Tasks and outputs are in `phase`.

use lethe_domain::{
    Assignment, Attempt, Cut, Failure, GangRole, Generation, JobId, LeaseId, Progress, Rank, SampleRange,
    ShardIndex, TaskOutput,
};

use crate::conversion::{read, required, required_choice};
use crate::{ConversionError, v1};

/// How a lease ended: what it gave, or why it failed.
#[derive(Debug, Clone, PartialEq)]
pub struct LeaseOutcome {
    /// The lease.
    pub lease: LeaseId,
    /// What it gave, or why it failed.
    pub outcome: Result<TaskOutput, Failure>,
}

impl From<LeaseId> for v1::LeaseId {
    fn from(lease: LeaseId) -> Self {
        Self {
            job_id: lease.job.into(),
            phase: v1::Phase::from(lease.phase).into(),
            shard: lease.shard.0,
            attempt: lease.attempt.0,
        }
    }
}

impl TryFrom<v1::LeaseId> for LeaseId {
    type Error = ConversionError;

    fn try_from(lease: v1::LeaseId) -> Result<Self, ConversionError> {
        Ok(Self {
            job: read::<String, JobId>(lease.job_id, "job_id")?,
            phase: required_choice::<v1::Phase, _>(lease.phase, "phase")?,
            shard: ShardIndex(lease.shard),
            attempt: Attempt(lease.attempt),
        })
    }
}

impl From<Progress> for v1::LeaseProgress {
    fn from(progress: Progress) -> Self {
        Self {
            lease: Some(progress.lease.into()),
            done: progress.done,
            total: progress.total,
            samples_per_second: progress.samples_per_second,
            loss: progress.loss,
        }
    }
}

impl TryFrom<v1::LeaseProgress> for Progress {
    type Error = ConversionError;

    fn try_from(progress: v1::LeaseProgress) -> Result<Self, ConversionError> {
        Ok(Self {
            lease: required(progress.lease, "lease")?,
            done: progress.done,
            total: progress.total,
            samples_per_second: progress.samples_per_second,
            loss: progress.loss,
        })
    }
}

impl From<LeaseOutcome> for v1::LeaseOutcome {
    fn from(finished: LeaseOutcome) -> Self {
        use v1::lease_outcome::Outcome as Wire;
        let outcome = match finished.outcome {
            Ok(output) => Wire::Output(output.into()),
            Err(failure) => Wire::Failure(failure.into()),
        };
        Self { lease: Some(finished.lease.into()), outcome: Some(outcome) }
    }
}

impl TryFrom<v1::LeaseOutcome> for LeaseOutcome {
    type Error = ConversionError;

    fn try_from(finished: v1::LeaseOutcome) -> Result<Self, ConversionError> {
        use v1::lease_outcome::Outcome as Wire;
        let outcome = match finished.outcome.ok_or_else(|| ConversionError::missing("outcome"))? {
            Wire::Output(output) => Ok(read(output, "output")?),
            Wire::Failure(failure) => Err(read(failure, "failure")?),
        };
        Ok(Self { lease: required(finished.lease, "lease")?, outcome })
    }
}

impl From<SampleRange> for v1::SampleRange {
    fn from(SampleRange { start, count }: SampleRange) -> Self {
        Self { start, count }
    }
}

impl From<v1::SampleRange> for SampleRange {
    fn from(v1::SampleRange { start, count }: v1::SampleRange) -> Self {
        Self { start, count }
    }
}

impl From<Cut> for v1::Cut {
    fn from(Cut { sign, threshold }: Cut) -> Self {
        Self { sign, threshold }
    }
}

impl From<v1::Cut> for Cut {
    fn from(v1::Cut { sign, threshold }: v1::Cut) -> Self {
        Self { sign, threshold }
    }
}

impl From<GangRole> for v1::GangRole {
    fn from(role: GangRole) -> Self {
        Self {
            generation: role.generation.0,
            rank: role.rank.0,
            world: role.world,
            store: role.store.unwrap_or_default(),
            floor: role.floor,
        }
    }
}

impl TryFrom<v1::GangRole> for GangRole {
    type Error = ConversionError;

    fn try_from(role: v1::GangRole) -> Result<Self, ConversionError> {
        if role.rank >= role.world {
            let message = format_args!("found {} in a gang of {}", role.rank, role.world);
            return Err(ConversionError::bad("rank", message));
        }
        Ok(Self {
            generation: Generation(role.generation),
            rank: Rank(role.rank),
            world: role.world,
            store: Some(role.store).filter(|store| !store.is_empty()),
            floor: role.floor,
        })
    }
}

impl From<Assignment> for v1::Assignment {
    fn from(assignment: Assignment) -> Self {
        Self {
            lease: Some(assignment.lease.into()),
            spec: Some(assignment.spec.into()),
            inputs: Some(assignment.inputs.into()),
            artifacts_uri: assignment.artifacts,
            task: Some(assignment.task.into()),
        }
    }
}

impl TryFrom<v1::Assignment> for Assignment {
    type Error = ConversionError;

    fn try_from(assignment: v1::Assignment) -> Result<Self, ConversionError> {
        Ok(Self {
            lease: required(assignment.lease, "lease")?,
            spec: required(assignment.spec, "spec")?,
            inputs: read(assignment.inputs.unwrap_or_default(), "inputs")?,
            artifacts: assignment.artifacts_uri,
            task: required(assignment.task, "task")?,
        })
    }
}
