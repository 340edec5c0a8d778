//! The state the engine decides on: jobs, workers, leases.
//!
//! Not here: how it changes (the other modules, one per kind of event), which slots are free (`pool`).

use std::collections::{BTreeMap, BTreeSet};

use lethe_domain::{
    ArtifactRef, Epoch, JobId, LeaseId, Phase, Principal, Progress, ShardIndex, SlotIndex, SlotRef,
    TaskOutput, WorkerId,
};

use crate::done::DoneShards;
use crate::gang::GangWork;
use crate::lease_work::LeaseWork;
use crate::past::Past;
use crate::plan::Schedulable;
use crate::planner::Wants;
use crate::pool::Pool;
use crate::record::WorkerRecord;
use crate::snapshot::Changed;
use crate::{Config, JobRecord, Now, Request};

/// Everything the coordinator knows. Only [`State::step`] changes it.
#[derive(Debug)]
pub struct State {
    pub(crate) config: Config,
    pub(crate) epoch: Epoch,
    /// Jobs of which something is still to be done.
    pub(crate) jobs: BTreeMap<JobId, Job>,
    /// The others.
    pub(crate) past: BTreeMap<JobId, Past>,
    /// Submission order: (time, id).
    pub(crate) order: Vec<JobId>,
    /// Jobs that are not final, in that order.
    pub(crate) live: BTreeSet<(u64, JobId)>,
    /// Those that are, of both kinds, by when they ended.
    pub(crate) finished: BTreeSet<(u64, JobId)>,
    /// Jobs that are forgotten, whose artifacts are not gone yet.
    pub(crate) erasing: BTreeSet<JobId>,
    /// Live jobs that could use a slot now.
    pub(crate) schedulable: BTreeMap<(u64, JobId), Schedulable>,
    /// Live jobs in a phase that is a gang's.
    pub(crate) gangs: BTreeSet<(u64, JobId)>,
    /// Something that a plan rests on has changed since the last one.
    pub(crate) stale: bool,
    /// The most urgent job that the last plan left without a slot: its priority, and what it wants.
    pub(crate) urgent: Option<(i32, Wants)>,
    /// What looks different since somebody looked.
    pub(crate) changed: Changed,
    /// Jobs that this step has touched.
    pub(crate) dirty: BTreeSet<JobId>,
    pub(crate) requests: BTreeMap<Request, JobId>,
    pub(crate) workers: BTreeMap<WorkerId, Worker>,
    /// Workers that died lately, for people.
    pub(crate) dead: BTreeMap<WorkerId, Dead>,
    /// What is decided about workers, joined or not.
    pub(crate) cordons: BTreeMap<WorkerId, WorkerRecord>,
    pub(crate) leases: BTreeMap<LeaseId, Lease>,
    /// Slots held by each owner's jobs.
    pub(crate) holds: BTreeMap<String, u32>,
    pub(crate) pool: Pool,
    /// No tick is needed before this time.
    pub(crate) wake_ms: Option<u64>,
    /// The time of the last step.
    pub(crate) now: Now,
}

/// A job and the work of its current phase.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) record: JobRecord,
    pub(crate) work: Work,
    /// Counts up with every change that people can see.
    pub(crate) version: u64,
    /// Outputs of the shards of earlier phases that count, which later tasks need.
    pub(crate) done: BTreeMap<Phase, DoneShards>,
    /// Its files are being put in order: said once by this leader.
    pub(crate) tidying: bool,
    /// A job found half cancelled after a restart waits this long for workers that may still hold its leases.
    pub(crate) settle_after_ms: u64,
}

/// The work of a job's current phase.
#[derive(Debug)]
pub(crate) enum Work {
    /// None: the job is final or being cancelled.
    None,
    /// Leases over shards; a single task is one shard.
    Leases(Box<LeaseWork>),
    /// A gang.
    Gang(Box<GangWork>),
}

/// A worker that has joined.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) hostname: String,
    pub(crate) version: String,
    /// Tells its process from any other of the same name.
    pub(crate) incarnation: String,
    /// It came with leases: it was a member under the leader before.
    pub(crate) came_with_leases: bool,
    pub(crate) last_seen_ms: u64,
    /// Its heartbeats are late.
    pub(crate) suspect: bool,
    /// It has said that it is about to leave.
    pub(crate) leaving: bool,
    pub(crate) slots: Vec<Slot>,
}

/// A device of a worker.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) device: String,
    pub(crate) lease: Option<LeaseId>,
    /// Its executor is up and its canary is as it should be.
    pub(crate) proven: bool,
    /// What is wrong with its canary.
    pub(crate) fault: Option<String>,
    /// Shards that failed here and succeeded elsewhere, less those that succeeded here.
    pub(crate) strikes: u32,
    /// Samples per second over its last leases, everything included; 0 before the first.
    pub(crate) speed: f64,
}

/// A worker whose heartbeats have ceased.
#[derive(Debug)]
pub(crate) struct Dead {
    pub(crate) worker: Worker,
    pub(crate) at_ms: u64,
}

/// A grant that has not come back.
#[derive(Debug)]
pub(crate) struct Lease {
    pub(crate) slot: SlotRef,
    /// Shards it covers, from the one in its id on.
    pub(crate) shards: u32,
    pub(crate) granted_ms: u64,
    pub(crate) deadline_ms: u64,
    pub(crate) progress: Option<Progress>,
    /// Told to stop; its outcome no longer matters, only that the slot becomes free.
    pub(crate) stopping: bool,
    /// Told to yield; rank 0 saves first if true.
    pub(crate) yielding: Option<bool>,
}

impl Lease {
    /// The shards it covers.
    pub(crate) fn shards(&self, id: &LeaseId) -> impl Iterator<Item = ShardIndex> + use<> {
        (id.shard.0..id.shard.0.saturating_add(self.shards)).map(ShardIndex)
    }

    /// Whether it covers this shard.
    pub(crate) fn covers(&self, id: &LeaseId, shard: ShardIndex) -> bool {
        (id.shard.0..id.shard.0.saturating_add(self.shards)).contains(&shard.0)
    }
}

impl State {
    /// An empty state for a leader with this epoch.
    pub fn new(config: Config, epoch: Epoch) -> Self {
        Self {
            config,
            epoch,
            jobs: BTreeMap::new(),
            past: BTreeMap::new(),
            order: Vec::new(),
            live: BTreeSet::new(),
            finished: BTreeSet::new(),
            erasing: BTreeSet::new(),
            schedulable: BTreeMap::new(),
            gangs: BTreeSet::new(),
            stale: false,
            urgent: None,
            changed: Changed::default(),
            dirty: BTreeSet::new(),
            requests: BTreeMap::new(),
            workers: BTreeMap::new(),
            dead: BTreeMap::new(),
            cordons: BTreeMap::new(),
            leases: BTreeMap::new(),
            holds: BTreeMap::new(),
            pool: Pool::default(),
            wake_ms: None,
            now: Now::default(),
        }
    }

    /// The state after a restart, from what was written down: each job with its finished shards, and what is decided
    /// about workers.
    pub fn restore(
        config: Config,
        epoch: Epoch,
        now: Now,
        jobs: impl IntoIterator<Item = (JobRecord, Vec<(Phase, ShardIndex, TaskOutput)>)>,
        workers: impl IntoIterator<Item = WorkerRecord>,
    ) -> Self {
        let mut state = Self::new(config, epoch);
        state.now = now;
        state.cordons = workers.into_iter().map(|record| (record.id.clone(), record)).collect();
        let claim_by_ms = now.mono_ms + state.config.claim_ms;
        for (record, shards) in jobs {
            if record.tidy && !record.unwanted {
                state.insert_past(&record);
                continue;
            }
            let mut job = Job::restore(record, shards, now, epoch, claim_by_ms);
            job.settle_after_ms = claim_by_ms;
            state.insert(job);
        }
        let submitted = |id: &JobId| match state.jobs.get(id) {
            Some(job) => job.record.submitted_unix_ms,
            None => state.past.get(id).map_or(0, |past| past.status.submitted_unix_ms),
        };
        let mut order = state.order.clone();
        order.sort_by_cached_key(|id| (submitted(id), id.clone()));
        state.order = order;
        // Nobody has joined: nothing can be granted, but everybody learns what it waits for.
        state.on_plan(&mut Vec::new());
        if !state.finished.is_empty() || !state.cordons.is_empty() {
            state.wake(claim_by_ms);
        }
        state
    }

    /// Adds a job to every index.
    pub(crate) fn insert(&mut self, job: Job) {
        let id = job.record.id.clone();
        if let Some(request) = job.record.request() {
            self.requests.insert(request, id.clone());
        }
        if job.record.state.is_final() {
            self.finished.insert(job.end());
        } else {
            self.live.insert(job.place());
        }
        self.order.push(id.clone());
        self.dirty.insert(id.clone());
        self.jobs.insert(id, job);
    }

    /// Adds the summary of a job that is over to every index.
    fn insert_past(&mut self, record: &JobRecord) {
        let past = Past::new(record, 1);
        if let Some(request) = &past.request {
            self.requests.insert(request.clone(), record.id.clone());
        }
        self.finished.insert(past.end());
        self.order.push(record.id.clone());
        self.past.insert(record.id.clone(), past);
    }

    /// The leader's fencing token.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The record of a job, unless it is over.
    pub fn record(&self, job: &JobId) -> Option<&JobRecord> {
        self.jobs.get(job).map(|job| &job.record)
    }

    /// The job that an earlier submission by the same principal with this request id made.
    pub fn job_of_request(&self, by: &Principal, request_id: &str) -> Option<&JobId> {
        self.requests.get(&(by.clone(), request_id.to_owned()))
    }

    /// Jobs, oldest first.
    pub fn job_ids(&self) -> &[JobId] {
        &self.order
    }

    pub(crate) fn slot(&self, at: &SlotRef) -> Option<&Slot> {
        self.workers.get(&at.worker)?.slots.get(at.slot.0 as usize)
    }

    pub(crate) fn slot_mut(&mut self, at: &SlotRef) -> Option<&mut Slot> {
        self.workers.get_mut(&at.worker)?.slots.get_mut(at.slot.0 as usize)
    }

    /// Leases of one job.
    pub(crate) fn leases_of(&self, job: &JobId) -> impl Iterator<Item = (&LeaseId, &Lease)> {
        self.leases.range(first_lease(job)..).take_while(move |(id, _)| &id.job == job)
    }

    /// Leases of one job, to be changed.
    pub(crate) fn leases_of_mut<'a>(
        &'a mut self,
        job: &'a JobId,
    ) -> impl Iterator<Item = (&'a LeaseId, &'a mut Lease)> {
        self.leases.range_mut(first_lease(job)..).take_while(move |(id, _)| &id.job == job)
    }

    /// Takes a lease off its slot.
    pub(crate) fn release(&mut self, lease: &LeaseId) -> Option<Lease> {
        let held = self.leases.remove(lease)?;
        if let Some(slot) = self.slot_mut(&held.slot)
            && slot.lease.as_ref() == Some(lease)
        {
            slot.lease = None;
        }
        if let Some(job) = self.jobs.get(&lease.job)
            && let Some(holds) = self.holds.get_mut(&job.record.spec.queue.owner)
        {
            *holds = holds.saturating_sub(1);
            if *holds == 0 {
                self.holds.remove(&job.record.spec.queue.owner);
            }
        }
        self.refresh_slot(&held.slot);
        self.stale = true;
        self.dirty.insert(lease.job.clone());
        Some(held)
    }

    /// Puts a lease over some shards on a free slot.
    pub(crate) fn occupy(&mut self, lease: LeaseId, shards: u32, at: SlotRef) {
        let now = self.now.mono_ms;
        let deadline_ms = now + self.config.lease_ms;
        if let Some(slot) = self.slot_mut(&at) {
            slot.lease = Some(lease.clone());
        }
        if let Some(job) = self.jobs.get(&lease.job) {
            *self.holds.entry(job.record.spec.queue.owner.clone()).or_default() += 1;
        }
        self.refresh_slot(&at);
        self.stale = true;
        self.wake(deadline_ms);
        self.dirty.insert(lease.job.clone());
        let held = Lease {
            slot: at,
            shards,
            granted_ms: now,
            deadline_ms,
            progress: None,
            stopping: false,
            yielding: None,
        };
        self.leases.insert(lease, held);
    }

    /// Leases on one worker.
    pub(crate) fn leases_on(&self, worker: &WorkerId) -> Vec<LeaseId> {
        let slots = self.workers.get(worker).map_or(&[][..], |worker| &worker.slots);
        slots.iter().filter_map(|slot| slot.lease.clone()).collect()
    }
}

/// Before every lease of a job.
fn first_lease(job: &JobId) -> LeaseId {
    LeaseId {
        job: job.clone(),
        phase: Phase::ALL[0],
        shard: ShardIndex(0),
        attempt: lethe_domain::Attempt(0),
    }
}

/// Every slot of a worker.
pub(crate) fn slots_of(worker: &WorkerId, count: usize) -> impl Iterator<Item = SlotRef> + use<> {
    let worker = worker.clone();
    (0..count as u32).map(move |slot| SlotRef { worker: worker.clone(), slot: SlotIndex(slot) })
}

impl Job {
    pub(crate) fn new(record: JobRecord, now: Now, epoch: Epoch) -> Self {
        let mut job = Self {
            record,
            work: Work::None,
            version: 1,
            done: BTreeMap::new(),
            tidying: false,
            settle_after_ms: 0,
        };
        if job.record.phase_began_unix_ms == 0 {
            job.record.phase_began_unix_ms = now.unix_ms;
        }
        job.open_phase(epoch);
        job
    }

    fn restore(
        record: JobRecord,
        shards: Vec<(Phase, ShardIndex, TaskOutput)>,
        now: Now,
        epoch: Epoch,
        claim_by_ms: u64,
    ) -> Self {
        let mut job = Self::new(record, now, epoch);
        if let Work::Gang(work) = &mut job.work {
            work.await_claims(&job.record, claim_by_ms);
        }
        for (phase, shard, output) in shards {
            match &mut job.work {
                Work::None => {}
                Work::Leases(work) if phase == job.record.phase => work.restore(shard, &output),
                // Those beyond the end of the phase came too late to count.
                Work::Leases(_) | Work::Gang(_) => {
                    if job.record.reached.get(&phase).is_some_and(|reached| shard.0 < reached.shards_done) {
                        job.done.entry(phase).or_default().insert(shard, &output);
                    }
                }
            }
        }
        job
    }

    /// What the shards of an earlier phase gave, in order.
    pub(crate) fn shards_of(&self, phase: Phase) -> Vec<ArtifactRef> {
        self.done.get(&phase).into_iter().flat_map(DoneShards::artifacts).collect()
    }

    /// Its place among jobs: (time of submission, id).
    pub(crate) fn place(&self) -> (u64, JobId) {
        (self.record.submitted_unix_ms, self.record.id.clone())
    }

    /// Its place among jobs that have ended: (when, id).
    pub(crate) fn end(&self) -> (u64, JobId) {
        (self.record.finished_unix_ms.unwrap_or_default(), self.record.id.clone())
    }

    /// Marks a change that people can see.
    pub(crate) fn touch(&mut self) {
        self.version += 1;
    }
}
