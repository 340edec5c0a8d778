//! Jobs and workers as people see them, and failures.

use lethe_domain::{
    ErrorCode, Explanation, Failure, JobFilter, JobId, JobState, JobStatus, PhaseState, PhaseStatus,
    SlotState, SpecProblem, WorkerId, WorkerState, WorkerStatus,
};

use crate::conversion::{each, enumeration, list, optional, read, required_choice};
use crate::result::{OfJob, result_of};
use crate::time::{ms, seconds, span, span_of_ms, timestamp, unix_ms};
use crate::{ConversionError, v1};

enumeration!(v1::JobState, JobState:
    Queued = Queued, Running = Running, Cancelling = Cancelling,
    Succeeded = Succeeded, Failed = Failed, Cancelled = Cancelled);
enumeration!(v1::PhaseState, PhaseState: Pending = Pending, Running = Running, Done = Done, Failed = Failed);
enumeration!(v1::WorkerState, WorkerState:
    Ready = Ready, Suspect = Suspect, Joining = Joining, Canary = Canary, Busy = Busy,
    Dead = Dead, Draining = Draining, Quarantined = Quarantined);

impl From<JobStatus> for v1::Job {
    fn from(job: JobStatus) -> Self {
        Self {
            id: job.id.into(),
            name: job.name,
            feature: job.feature,
            owner: job.owner,
            state: v1::JobState::from(job.state).into(),
            submit_time: Some(timestamp(job.submitted_unix_ms)),
            finish_time: job.finished_unix_ms.map(timestamp),
            phases: each(job.phases),
            slots: job.slots,
            waiting: job.waiting.map(Into::into),
            retried: each(job.retried),
            failure: job.failure.map(Into::into),
            result: job.result.map(Into::into),
            version: job.version,
        }
    }
}

impl TryFrom<v1::Job> for JobStatus {
    type Error = ConversionError;

    fn try_from(job: v1::Job) -> Result<Self, ConversionError> {
        let submit_time = job.submit_time.ok_or_else(|| ConversionError::missing("submit_time"))?;
        let id = read::<String, JobId>(job.id, "id")?;
        let state = required_choice::<v1::JobState, _>(job.state, "state")?;
        let failure: Option<Failure> = optional(job.failure, "failure")?;
        let of_job = OfJob {
            id: id.clone(),
            name: job.name.clone(),
            feature: job.feature.clone(),
            state,
            failure: failure.clone(),
        };
        let result = job.result.map(|result| result_of(of_job, result)).transpose();
        Ok(Self {
            id,
            name: job.name,
            feature: job.feature,
            owner: job.owner,
            state,
            submitted_unix_ms: unix_ms(submit_time, "submit_time")?,
            finished_unix_ms: job.finish_time.map(|time| unix_ms(time, "finish_time")).transpose()?,
            phases: list(job.phases, "phases")?,
            slots: job.slots,
            waiting: optional(job.waiting, "waiting")?,
            retried: list(job.retried, "retried")?,
            failure,
            result: result.map_err(|error| error.within("result"))?,
            version: job.version,
        })
    }
}

impl From<JobFilter> for v1::JobFilter {
    fn from(filter: JobFilter) -> Self {
        Self {
            states: filter.states.into_iter().map(|state| v1::JobState::from(state).into()).collect(),
            owner: filter.owner.unwrap_or_default(),
            name: filter.name.unwrap_or_default(),
            since: filter.since_unix_ms.map(timestamp),
        }
    }
}

impl TryFrom<v1::JobFilter> for JobFilter {
    type Error = ConversionError;

    fn try_from(filter: v1::JobFilter) -> Result<Self, ConversionError> {
        let given = |text: String| Some(text).filter(|text| !text.is_empty());
        let state = |(place, state)| required_choice::<v1::JobState, _>(state, &format!("states[{place}]"));
        Ok(Self {
            states: filter.states.into_iter().enumerate().map(state).collect::<Result<_, _>>()?,
            owner: given(filter.owner),
            name: given(filter.name),
            since_unix_ms: filter.since.map(|time| unix_ms(time, "since")).transpose()?,
        })
    }
}

impl From<PhaseStatus> for v1::PhaseStatus {
    fn from(status: PhaseStatus) -> Self {
        Self {
            phase: v1::Phase::from(status.phase).into(),
            state: v1::PhaseState::from(status.state).into(),
            done: status.done,
            total: status.total,
            shards_done: status.shards_done,
            shards: status.shards,
            elapsed: span(status.seconds),
            samples_per_second: status.samples_per_second,
            loss: status.loss,
            eta: status.eta_seconds.and_then(span),
        }
    }
}

impl TryFrom<v1::PhaseStatus> for PhaseStatus {
    type Error = ConversionError;

    fn try_from(status: v1::PhaseStatus) -> Result<Self, ConversionError> {
        Ok(Self {
            phase: required_choice::<v1::Phase, _>(status.phase, "phase")?,
            state: required_choice::<v1::PhaseState, _>(status.state, "state")?,
            done: status.done,
            total: status.total,
            shards_done: status.shards_done,
            shards: status.shards,
            seconds: status.elapsed.map(seconds).unwrap_or_default(),
            samples_per_second: status.samples_per_second,
            loss: status.loss,
            eta_seconds: status.eta.map(seconds),
        })
    }
}

impl From<Failure> for v1::Failure {
    fn from(failure: Failure) -> Self {
        Self {
            code: failure.code.name().to_owned(),
            message: failure.message,
            hint: failure.hint,
            time: (failure.at_unix_ms > 0).then(|| timestamp(failure.at_unix_ms)),
        }
    }
}

impl TryFrom<v1::Failure> for Failure {
    type Error = ConversionError;

    fn try_from(failure: v1::Failure) -> Result<Self, ConversionError> {
        let unknown = || {
            let message = format_args!("found '{}' ({})", failure.code, failure.message);
            ConversionError::bad("code", format_args!("{message}, expected a name from docs/errors"))
        };
        Ok(Self {
            code: ErrorCode::from_name(&failure.code).ok_or_else(unknown)?,
            message: failure.message,
            hint: failure.hint,
            at_unix_ms: failure.time.map(|time| unix_ms(time, "time")).transpose()?.unwrap_or_default(),
        })
    }
}

impl From<SpecProblem> for v1::SpecProblem {
    fn from(SpecProblem { path, message }: SpecProblem) -> Self {
        Self { path, message }
    }
}

impl From<v1::SpecProblem> for SpecProblem {
    fn from(v1::SpecProblem { path, message }: v1::SpecProblem) -> Self {
        Self { path, message }
    }
}

impl From<Explanation> for v1::Explanation {
    fn from(Explanation { what, why }: Explanation) -> Self {
        Self { what, why }
    }
}

impl From<v1::Explanation> for Explanation {
    fn from(v1::Explanation { what, why }: v1::Explanation) -> Self {
        Self { what, why }
    }
}

impl From<WorkerStatus> for v1::Worker {
    fn from(worker: WorkerStatus) -> Self {
        Self {
            id: worker.id.into(),
            hostname: worker.hostname,
            version: worker.version,
            state: v1::WorkerState::from(worker.state).into(),
            slots: each(worker.slots),
            heartbeat_age: Some(span_of_ms(worker.heartbeat_age_ms)),
            reason: worker.reason.unwrap_or_default(),
        }
    }
}

impl TryFrom<v1::Worker> for WorkerStatus {
    type Error = ConversionError;

    fn try_from(worker: v1::Worker) -> Result<Self, ConversionError> {
        let age = worker.heartbeat_age.ok_or_else(|| ConversionError::missing("heartbeat_age"))?;
        Ok(Self {
            id: read::<String, WorkerId>(worker.id, "id")?,
            hostname: worker.hostname,
            version: worker.version,
            state: required_choice::<v1::WorkerState, _>(worker.state, "state")?,
            slots: list(worker.slots, "slots")?,
            heartbeat_age_ms: ms(age, "heartbeat_age")?,
            reason: Some(worker.reason).filter(|reason| !reason.is_empty()),
        })
    }
}

impl From<SlotState> for v1::Slot {
    fn from(slot: SlotState) -> Self {
        Self {
            device: slot.device,
            lease: slot.lease.map(Into::into),
            proven: slot.proven,
            quarantine: slot.quarantine,
            samples_per_second: slot.samples_per_second,
        }
    }
}

impl TryFrom<v1::Slot> for SlotState {
    type Error = ConversionError;

    fn try_from(slot: v1::Slot) -> Result<Self, ConversionError> {
        Ok(Self {
            device: slot.device,
            lease: optional(slot.lease, "lease")?,
            proven: slot.proven,
            quarantine: slot.quarantine,
            samples_per_second: slot.samples_per_second,
        })
    }
}
