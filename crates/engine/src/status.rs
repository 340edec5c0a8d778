//! Jobs and workers as people see them.

use lethe_domain::{
    JobId, JobState, JobStatus, Phase, PhaseState, PhaseStatus, Shape, SlotState, WorkerState, WorkerStatus,
};

use crate::grant::shards_done;
use crate::lease_work::sample_goal;
use crate::state::{Job, Work};
use crate::{Now, State};

impl State {
    /// A job as people see it.
    pub fn status(&self, id: &JobId, now: Now) -> Option<JobStatus> {
        let job = self.jobs.get(id)?;
        let record = &job.record;
        Some(JobStatus {
            id: id.clone(),
            name: record.spec.name.clone(),
            feature: record.spec.feature.name.clone(),
            state: record.state,
            submitted_unix_ms: record.submitted_unix_ms,
            finished_unix_ms: record.finished_unix_ms,
            phases: Phase::ALL.into_iter().map(|phase| self.phase_status(job, phase, now)).collect(),
            slots: self.leases_of(id).count() as u32,
            waiting: self.waiting(id),
            retried: record.retried.clone(),
            failure: record.failure.clone(),
            result: if record.state.is_final() { self.result(id) } else { None },
            version: job.version,
        })
    }

    /// Workers as people see them, by name.
    pub fn workers(&self, now: Now) -> Vec<WorkerStatus> {
        self.workers
            .iter()
            .map(|(id, worker)| {
                let age = now.mono_ms.saturating_sub(worker.last_seen_ms);
                WorkerStatus {
                    id: id.clone(),
                    hostname: worker.hostname.clone(),
                    version: worker.version.clone(),
                    state: if age >= self.config.suspect_after_ms {
                        WorkerState::Suspect
                    } else {
                        WorkerState::Ready
                    },
                    slots: worker
                        .slots
                        .iter()
                        .map(|slot| SlotState { device: slot.device.clone(), lease: slot.lease.clone() })
                        .collect(),
                    heartbeat_age_ms: age,
                }
            })
            .collect()
    }

    fn phase_status(&self, job: &Job, phase: Phase, now: Now) -> PhaseStatus {
        let state = phase_state(job, phase);
        let mut status = PhaseStatus {
            phase,
            state,
            done: 0,
            total: 0,
            shards_done: 0,
            shards: 0,
            seconds: job.record.seconds.get(&phase).copied().unwrap_or(0.0),
            samples_per_second: 0.0,
            loss: None,
            eta_seconds: None,
        };
        match state {
            PhaseState::Pending => {}
            PhaseState::Done => finished(job, phase, &mut status),
            PhaseState::Failed | PhaseState::Running => self.running(job, phase, now, &mut status),
        }
        status
    }

    fn running(&self, job: &Job, phase: Phase, now: Now, status: &mut PhaseStatus) {
        let elapsed = now.mono_ms.saturating_sub(job.phase_began_ms) as f64 / 1000.0;
        if status.state == PhaseState::Running {
            status.seconds += elapsed;
        }
        let at_work = || {
            self.leases_of(&job.record.id)
                .filter(|(lease, held)| lease.phase == phase && !held.stopping)
                .filter_map(|(_, held)| held.progress.as_ref())
        };
        match &job.work {
            Work::None => {}
            Work::Leases(work) => {
                let sharded = phase.shape() == Shape::Sharded;
                let open: u64 = at_work().map(|progress| progress.done).sum();
                status.shards_done = work.done.len() as u32;
                status.shards = work.limit;
                (status.done, status.total) = if sharded {
                    (work.samples_done() + open, work.samples_total())
                } else {
                    (open, at_work().map(|progress| progress.total).sum())
                };
                status.samples_per_second = at_work().map(|progress| progress.samples_per_second).sum();
            }
            Work::Gang(work) => {
                status.total = job.record.spec.unlearn.steps;
                status.done = work.best_step();
                status.loss = at_work().filter_map(|progress| progress.loss).next();
                status.samples_per_second =
                    at_work().map(|progress| progress.samples_per_second).fold(0.0, f64::max);
            }
        }
        let left = status.total.saturating_sub(status.done) as f64;
        let per_second = match phase.shape() {
            Shape::Gang => status.samples_per_second / job.record.spec.unlearn.global_batch as f64,
            Shape::Single | Shape::Sharded => status.samples_per_second,
        };
        status.eta_seconds = (per_second > 0.0 && left > 0.0).then(|| left / per_second);
    }
}

fn phase_state(job: &Job, phase: Phase) -> PhaseState {
    use std::cmp::Ordering;
    match (phase.cmp(&job.record.phase), job.record.state) {
        (Ordering::Less, _) | (_, JobState::Succeeded) => PhaseState::Done,
        (Ordering::Greater, _) => PhaseState::Pending,
        (Ordering::Equal, JobState::Failed | JobState::Cancelled | JobState::Cancelling) => {
            PhaseState::Failed
        }
        (Ordering::Equal, JobState::Queued) => PhaseState::Pending,
        (Ordering::Equal, JobState::Running) => PhaseState::Running,
    }
}

fn finished(job: &Job, phase: Phase, status: &mut PhaseStatus) {
    let outputs = &job.record.outputs;
    let spec = &job.record.spec;
    let shards = shards_done(job, phase);
    let samples = match phase {
        Phase::Sample => match &outputs.direction {
            Some(direction) => direction.samples,
            None => sample_goal(spec).0.min(u64::from(shards) * spec.sample.shard_size),
        },
        Phase::Evaluate => spec.evaluate.samples,
        Phase::FineTune => outputs.fine_tune.as_ref().map_or(0, |trained| trained.steps),
        Phase::Probe | Phase::Direction | Phase::Report | Phase::Publish => 1,
    };
    (status.done, status.total) = (samples, samples);
    (status.shards_done, status.shards) = (shards, shards);
    match (phase, &outputs.fine_tune) {
        (Phase::FineTune, Some(trained)) => {
            status.loss = Some(trained.loss_last);
            status.samples_per_second = trained.samples_per_second;
        }
        (Phase::Sample | Phase::Evaluate, _) if status.seconds > 0.0 => {
            status.samples_per_second = samples as f64 / status.seconds;
        }
        _ => {}
    }
}
