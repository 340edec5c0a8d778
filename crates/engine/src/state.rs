//! The state the engine decides on: jobs, workers, leases.
//!
//! Not here: how it changes (the other modules, one per kind of event).

use std::collections::BTreeMap;

use lethe_domain::{
    Epoch, Failure, JobId, LeaseId, Phase, Progress, ShardIndex, SlotIndex, SlotRef, TaskOutput, WorkerId,
};

use crate::gang::GangWork;
use crate::lease_work::LeaseWork;
use crate::{Config, JobRecord, Now};

/// Everything the coordinator knows. Only [`State::step`] changes it.
#[derive(Debug)]
pub struct State {
    pub(crate) config: Config,
    pub(crate) epoch: Epoch,
    pub(crate) jobs: BTreeMap<JobId, Job>,
    /// Submission order: (time, id).
    pub(crate) order: Vec<JobId>,
    pub(crate) workers: BTreeMap<WorkerId, Worker>,
    pub(crate) leases: BTreeMap<LeaseId, Lease>,
    /// The time of the last step.
    pub(crate) now: Now,
}

/// A job and the work of its current phase.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) record: JobRecord,
    pub(crate) work: Work,
    /// Monotonic time at which the current phase began in this process.
    pub(crate) phase_began_ms: u64,
    /// Counts up with every change that people can see.
    pub(crate) version: u64,
    /// Outputs of shards of earlier phases, which later tasks and the status need.
    pub(crate) sample_done: BTreeMap<ShardIndex, TaskOutput>,
    pub(crate) evaluate_done: BTreeMap<ShardIndex, TaskOutput>,
    /// A job found half cancelled after a restart waits this long for workers that may still hold its leases.
    pub(crate) settle_after_ms: u64,
}

/// The work of a job's current phase.
#[derive(Debug)]
pub(crate) enum Work {
    /// None: the job is final or being cancelled.
    None,
    /// Leases over shards; a single task is one shard.
    Leases(LeaseWork),
    /// A gang.
    Gang(GangWork),
}

/// A worker that has joined.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) hostname: String,
    pub(crate) version: String,
    pub(crate) last_seen_ms: u64,
    pub(crate) slots: Vec<Slot>,
}

/// A device of a worker.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) device: String,
    pub(crate) lease: Option<LeaseId>,
}

/// A grant that has not come back.
#[derive(Debug)]
pub(crate) struct Lease {
    pub(crate) slot: SlotRef,
    pub(crate) granted_ms: u64,
    pub(crate) deadline_ms: u64,
    pub(crate) progress: Option<Progress>,
    /// Told to stop; its outcome no longer matters, only that the slot becomes free.
    pub(crate) stopping: bool,
}

impl State {
    /// An empty state for a leader with this epoch.
    pub fn new(config: Config, epoch: Epoch) -> Self {
        Self {
            config,
            epoch,
            jobs: BTreeMap::new(),
            order: Vec::new(),
            workers: BTreeMap::new(),
            leases: BTreeMap::new(),
            now: Now::default(),
        }
    }

    /// The state after a restart, from what was written down: each job with its finished shards.
    pub fn restore(
        config: Config,
        epoch: Epoch,
        now: Now,
        jobs: impl IntoIterator<Item = (JobRecord, Vec<(Phase, ShardIndex, TaskOutput)>)>,
    ) -> Self {
        let mut state = Self::new(config, epoch);
        state.now = now;
        for (record, shards) in jobs {
            let id = record.id.clone();
            let mut job = Job::restore(record, shards, now, epoch);
            job.settle_after_ms = now.mono_ms + state.config.dead_after_ms;
            state.order.push(id.clone());
            state.jobs.insert(id, job);
        }
        let jobs = &state.jobs;
        state
            .order
            .sort_by_key(|id| (jobs.get(id).map_or(0, |job| job.record.submitted_unix_ms), id.clone()));
        state
    }

    /// The leader's fencing token.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The record of a job.
    pub fn record(&self, job: &JobId) -> Option<&JobRecord> {
        self.jobs.get(job).map(|job| &job.record)
    }

    /// The job that an earlier submission with this request id made.
    pub fn job_of_request(&self, request_id: &str) -> Option<&JobId> {
        self.jobs
            .iter()
            .find(|(_, job)| job.record.request_id.as_deref() == Some(request_id))
            .map(|(id, _)| id)
    }

    /// Jobs, oldest first.
    pub fn job_ids(&self) -> &[JobId] {
        &self.order
    }

    pub(crate) fn slot_mut(&mut self, at: &SlotRef) -> Option<&mut Slot> {
        self.workers.get_mut(&at.worker)?.slots.get_mut(at.slot.0 as usize)
    }

    /// Leases of one job.
    pub(crate) fn leases_of(&self, job: &JobId) -> impl Iterator<Item = (&LeaseId, &Lease)> {
        self.leases.iter().filter(move |(id, _)| &id.job == job)
    }

    /// Takes a lease off its slot.
    pub(crate) fn release(&mut self, lease: &LeaseId) -> Option<Lease> {
        let held = self.leases.remove(lease)?;
        if let Some(slot) = self.slot_mut(&held.slot) {
            slot.lease = None;
        }
        Some(held)
    }

    /// Puts a lease on a free slot.
    pub(crate) fn occupy(&mut self, lease: LeaseId, at: SlotRef) {
        let now = self.now.mono_ms;
        let deadline_ms = now + self.config.lease_ms;
        if let Some(slot) = self.slot_mut(&at) {
            slot.lease = Some(lease.clone());
        }
        self.leases
            .insert(lease, Lease { slot: at, granted_ms: now, deadline_ms, progress: None, stopping: false });
    }

    /// Slots that hold nothing, in order, with their devices.
    pub(crate) fn free_slots(&self) -> impl Iterator<Item = (SlotRef, &str)> {
        self.workers.iter().flat_map(|(id, worker)| {
            worker.slots.iter().enumerate().filter(|(_, slot)| slot.lease.is_none()).map(
                move |(index, slot)| {
                    (SlotRef { worker: id.clone(), slot: SlotIndex(index as u32) }, slot.device.as_str())
                },
            )
        })
    }
}

impl Job {
    pub(crate) fn new(record: JobRecord, now: Now, epoch: Epoch) -> Self {
        let mut job = Self {
            record,
            work: Work::None,
            phase_began_ms: now.mono_ms,
            version: 1,
            sample_done: BTreeMap::new(),
            evaluate_done: BTreeMap::new(),
            settle_after_ms: 0,
        };
        job.open_phase(now, epoch);
        job
    }

    fn restore(
        record: JobRecord,
        shards: Vec<(Phase, ShardIndex, TaskOutput)>,
        now: Now,
        epoch: Epoch,
    ) -> Self {
        let mut job = Self::new(record, now, epoch);
        for (phase, shard, output) in shards {
            if phase == job.record.phase
                && let Work::Leases(work) = &mut job.work
            {
                work.restore(shard, output);
            } else {
                job.keep_shard(phase, shard, output);
            }
        }
        job
    }

    pub(crate) fn keep_shard(&mut self, phase: Phase, shard: ShardIndex, output: TaskOutput) {
        match phase {
            Phase::Sample => self.sample_done.insert(shard, output),
            Phase::Evaluate => self.evaluate_done.insert(shard, output),
            Phase::Probe | Phase::Direction | Phase::FineTune | Phase::Report | Phase::Publish => None,
        };
    }

    /// Marks a change that people can see.
    pub(crate) fn touch(&mut self) {
        self.version += 1;
    }

    /// Why the job ended badly, for its record.
    pub(crate) fn end_with(&mut self, failure: Option<Failure>) {
        self.record.failure = failure;
        self.work = Work::None;
    }
}
