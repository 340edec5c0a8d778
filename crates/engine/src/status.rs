//! Jobs and workers as people see them.

use std::collections::BTreeSet;

use lethe_domain::{
    JobId, JobState, JobStatus, Phase, PhaseState, PhaseStatus, Shape, SlotIndex, SlotRef, SlotState,
    WorkerId, WorkerState, WorkerStatus, counted_slots,
};

use crate::record::Reached;
use crate::snapshot::{JobSnapshot, WorkerSnapshot};
use crate::state::{Job, Work, Worker};
use crate::waits::Waits;
use crate::{JobRecord, Now, State};

impl State {
    /// A job as people see it.
    pub fn status(&self, id: &JobId, now: Now) -> Option<JobStatus> {
        Some(self.job_snapshot(id)?.status(now, self.fleet_snapshot()))
    }

    /// A job for people to see, now and later.
    pub fn job_snapshot(&self, id: &JobId) -> Option<JobSnapshot> {
        let now = self.now;
        if let Some(past) = self.past.get(id) {
            return Some(JobSnapshot { at: now, status: past.status.clone(), waits: Waits::default() });
        }
        let job = self.jobs.get(id)?;
        let phases = Phase::of(&job.record.spec).map(|phase| self.phase_status(job, phase, now)).collect();
        let slots = self.leases_of(id).count() as u32;
        let status = JobStatus { slots, version: job.version, ..job.record.status(phases) };
        Some(JobSnapshot { at: now, status, waits: self.waits(job) })
    }

    /// Workers as people see them, by name; those that died lately too.
    pub fn workers(&self, now: Now) -> Vec<WorkerStatus> {
        let ids: BTreeSet<&WorkerId> = self.workers.keys().chain(self.dead.keys()).collect();
        ids.into_iter().filter_map(|id| self.worker(id, now)).collect()
    }

    /// One worker as people see it.
    pub fn worker(&self, id: &WorkerId, now: Now) -> Option<WorkerStatus> {
        Some(self.worker_snapshot(id)?.status(now, None))
    }

    /// A worker for people to see, now and later.
    pub fn worker_snapshot(&self, id: &WorkerId) -> Option<WorkerSnapshot> {
        let (worker, dead) = match (self.workers.get(id), self.dead.get(id)) {
            (Some(worker), _) => (worker, false),
            (None, Some(dead)) => (&dead.worker, true),
            (None, None) => return None,
        };
        let mut status = self.worker_status(id, worker);
        if dead {
            (status.state, status.reason) = (WorkerState::Dead, None);
        }
        let suspect_after_ms = self.config.suspect_after_ms;
        Some(WorkerSnapshot { status, last_seen_ms: worker.last_seen_ms, suspect_after_ms })
    }

    /// A worker that is heard from.
    fn worker_status(&self, id: &WorkerId, worker: &Worker) -> WorkerStatus {
        let at = |index: usize| SlotRef { worker: id.clone(), slot: SlotIndex(index as u32) };
        let slots: Vec<SlotState> = worker
            .slots
            .iter()
            .enumerate()
            .map(|(index, slot)| SlotState {
                device: slot.device.clone(),
                lease: slot.lease.clone(),
                proven: slot.proven,
                quarantine: self.quarantine_of(&at(index)),
                samples_per_second: slot.speed,
            })
            .collect();
        let mark = self.cordons.get(id);
        let busy = slots.iter().filter(|slot| slot.lease.is_some()).count();
        let barred = slots.iter().filter(|slot| slot.quarantine.is_some()).count();
        let verb = if barred == 1 { "is" } else { "are" };
        let quarantined =
            (barred > 0).then(|| format!("{} {verb} quarantined", counted_slots(barred as u32)));
        let draining = worker.leaving || mark.is_some_and(|mark| mark.draining);
        let (state, reason) = if barred == slots.len() {
            (WorkerState::Quarantined, slots.first().and_then(|slot| slot.quarantine.clone()))
        } else if draining {
            let who = if worker.leaving { "it is about to leave" } else { "drained by an operator" };
            let left = if busy == 0 {
                "nothing left to do".to_owned()
            } else {
                format!("{} busy", counted_slots(busy as u32))
            };
            (WorkerState::Draining, Some(format!("{who}, {left}")))
        } else if slots.iter().all(|slot| !slot.proven) {
            (WorkerState::Joining, Some("no executor is up yet".to_owned()))
        } else if slots.iter().any(|slot| !slot.proven && slot.quarantine.is_none()) {
            (WorkerState::Canary, Some("some executors are not up yet".to_owned()))
        } else if busy > 0 {
            (WorkerState::Busy, quarantined)
        } else {
            (WorkerState::Ready, quarantined)
        };
        WorkerStatus {
            id: id.clone(),
            hostname: worker.hostname.clone(),
            version: worker.version.clone(),
            state,
            reason,
            slots,
            heartbeat_age_ms: 0,
        }
    }

    fn phase_status(&self, job: &Job, phase: Phase, now: Now) -> PhaseStatus {
        let mut status = job.record.phase_status(phase);
        if matches!(status.state, PhaseState::Failed | PhaseState::Running) {
            self.running(job, phase, now, &mut status);
        }
        status
    }

    /// How far a job's current phase is, once it has begun.
    pub(crate) fn reached(&self, id: &JobId) -> Option<Reached> {
        let job = self.jobs.get(id).filter(|job| job.record.state == JobState::Running)?;
        let PhaseStatus { done, total, shards_done, shards, .. } =
            self.phase_status(job, job.record.phase, self.now);
        Some(Reached { done, total, shards_done, shards, reused: job.shards_reused() })
    }

    fn running(&self, job: &Job, phase: Phase, now: Now, status: &mut PhaseStatus) {
        if status.state == PhaseState::Running {
            status.seconds += job.phase_seconds(now);
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
                status.shards_done = work.shards_done();
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

impl JobRecord {
    /// A job as people see it when it is over.
    pub fn over(&self) -> JobStatus {
        self.status(Phase::of(&self.spec).map(|phase| self.phase_status(phase)).collect())
    }

    /// As far as it is written down.
    fn status(&self, phases: Vec<PhaseStatus>) -> JobStatus {
        JobStatus {
            id: self.id.clone(),
            name: self.spec.name.clone(),
            feature: self.spec.feature.name.clone(),
            owner: self.spec.queue.owner.clone(),
            state: self.state,
            submitted_unix_ms: self.submitted_unix_ms,
            finished_unix_ms: self.finished_unix_ms,
            phases,
            slots: 0,
            waiting: None,
            retried: self.retried.clone(),
            failure: self.failure.clone(),
            result: self.state.is_final().then(|| self.result()),
            version: 1,
        }
    }

    fn phase_status(&self, phase: Phase) -> PhaseStatus {
        let mut status = PhaseStatus {
            phase,
            state: self.phase_state(phase),
            done: 0,
            total: 0,
            shards_done: 0,
            shards: 0,
            seconds: self.seconds.get(&phase).copied().unwrap_or(0.0),
            samples_per_second: 0.0,
            loss: None,
            eta_seconds: None,
        };
        match status.state {
            PhaseState::Pending | PhaseState::Running => {}
            PhaseState::Failed => self.show_reached(phase, &mut status),
            PhaseState::Done => {
                self.show_reached(phase, &mut status);
                self.show_speed(phase, &mut status);
            }
        }
        status
    }

    fn phase_state(&self, phase: Phase) -> PhaseState {
        use std::cmp::Ordering;
        match (phase.cmp(&self.phase), self.state) {
            (Ordering::Less, _) | (_, JobState::Succeeded) => PhaseState::Done,
            (Ordering::Greater, _) => PhaseState::Pending,
            (Ordering::Equal, JobState::Failed | JobState::Cancelled | JobState::Cancelling) => {
                PhaseState::Failed
            }
            (Ordering::Equal, JobState::Queued) => PhaseState::Pending,
            (Ordering::Equal, JobState::Running) => PhaseState::Running,
        }
    }

    fn show_reached(&self, phase: Phase, status: &mut PhaseStatus) {
        if let Some(reached) = self.reached.get(&phase) {
            (status.done, status.total) = (reached.done, reached.total);
            (status.shards_done, status.shards) = (reached.shards_done, reached.shards);
        }
    }

    fn show_speed(&self, phase: Phase, status: &mut PhaseStatus) {
        match phase.shape() {
            Shape::Sharded if status.seconds > 0.0 => {
                status.samples_per_second = status.done as f64 / status.seconds;
            }
            Shape::Single | Shape::Sharded => {}
            Shape::Gang => {
                if let Some(trained) = self.outputs.fine_tune() {
                    status.loss = Some(trained.loss_last);
                    status.samples_per_second = trained.samples_per_second;
                }
            }
        }
    }
}
