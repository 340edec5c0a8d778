//! Granting what was planned: leases over shards, and gangs.
//!
//! Not here: who gets which slot (`plan`), saying why something waits (`explain`).

use lethe_domain::spec::Device as Wanted;
use lethe_domain::{Assignment, JobId, JobSpec, JobState, LeaseId, Phase, SampleRange, Shape, SlotRef, Task};

use crate::lease_work::Grant;
use crate::planner::{Slots, Wants};
use crate::state::{Job, Work};
use crate::{Command, Effect, JobRecord, Metric, State, Write};

/// Which slots suit a job.
pub(crate) fn wants(spec: &JobSpec) -> Wants {
    match spec.resources.device {
        Wanted::Auto => Wants::Any,
        Wanted::Cpu => Wants::Cpu,
        Wanted::Cuda => Wants::Cuda,
    }
}

/// How many ranks a job's gang has at most: more than its steps have parts would have nothing to do.
pub(crate) fn most_ranks(spec: &JobSpec) -> u32 {
    spec.resources.slots.max.min(u32::try_from(spec.unlearn.parts()).unwrap_or(u32::MAX))
}

impl State {
    pub(crate) fn give(&mut self, id: &JobId, slots: Slots, effects: &mut Vec<Effect>) {
        let of = |cuda: bool, count: u32| self.pool.free_slots(cuda).take(count as usize).cloned();
        let chosen: Vec<SlotRef> = of(true, slots.cuda).chain(of(false, slots.cpu)).collect();
        self.mark_running(id, effects);
        if self.jobs.get(id).is_some_and(|job| matches!(job.work, Work::Gang(_))) {
            self.form_gang(id, chosen, effects);
        } else {
            chosen.into_iter().for_each(|slot| self.grant_shards(id, slot, effects));
        }
    }

    pub(crate) fn is_live(&self, id: &JobId) -> bool {
        self.jobs.get(id).is_some_and(|job| match job.record.state {
            JobState::Queued | JobState::Running => true,
            JobState::Cancelling | JobState::Succeeded | JobState::Failed | JobState::Cancelled => false,
        })
    }

    fn mark_running(&mut self, id: &JobId, effects: &mut Vec<Effect>) {
        let Some(job) = self.jobs.get_mut(id) else { return };
        if job.record.state == JobState::Queued {
            job.record.state = JobState::Running;
            // The time spent in the queue is not the probe's.
            job.record.phase_began_unix_ms = self.now.unix_ms;
            effects.push(Effect::Persist(Write::Job(Box::new(job.record.clone()))));
        }
        job.touch();
        effects.push(Effect::Notify { job: id.clone() });
    }

    /// Grants as many shards as this slot does in the time a lease should take, or else a straggler.
    fn grant_shards(&mut self, id: &JobId, slot: SlotRef, effects: &mut Vec<Effect>) {
        let now = self.now.mono_ms;
        let (after, factor) = (self.config.tail_after_ms, self.config.tail_factor);
        let most = self.shards_for(id, &slot);
        let Some(job) = self.jobs.get_mut(id) else { return };
        let phase = job.record.phase;
        let Work::Leases(work) = &mut job.work else { return };
        let granted = work.grant(now, most).or_else(|| {
            let late = work.straggler(now, after, factor)?;
            work.duplicate(late)
        });
        let Some(Grant { first, shards, attempt, twin }) = granted else { return };
        let range = work.range(first, shards);
        let Some(task) = task(job, phase, range) else { return };
        let lease = LeaseId { job: id.clone(), phase, shard: first, attempt };
        let send = self.start_for(id, &slot, lease.clone(), task);
        effects.extend(send);
        effects.push(Effect::Metric(Metric::LeaseGranted { phase }));
        if twin {
            effects.push(Effect::Metric(Metric::LeaseDuplicated { phase }));
        }
        self.occupy(lease, shards, slot);
    }

    /// How many shards a lease on this slot should have: by the slot's speed, and so that nobody has the last ones alone.
    fn shards_for(&self, id: &JobId, at: &SlotRef) -> u32 {
        let Some(slot) = self.slot(at) else { return 1 };
        let Some(Job { work: Work::Leases(work), .. }) = self.jobs.get(id) else { return 1 };
        if work.phase.shape() != Shape::Sharded || slot.speed <= 0.0 {
            return 1;
        }
        let by_speed = work.shards_in(slot.speed * self.config.lease_target_ms as f64 / 1000.0);
        let fair = work.left().div_ceil(2 * self.pool.fleet().sum().max(1));
        by_speed.min(fair).clamp(1, self.config.shards_per_lease.max(1))
    }

    pub(crate) fn start_for(&self, id: &JobId, slot: &SlotRef, lease: LeaseId, task: Task) -> Option<Effect> {
        self.jobs.get(id).map(|job| self.start(slot, lease, &job.record, task))
    }

    /// The command that starts a task. The driver fills in the artifact root.
    pub(crate) fn start(&self, slot: &SlotRef, lease: LeaseId, record: &JobRecord, task: Task) -> Effect {
        let (spec, inputs) = (record.spec.clone(), record.inputs.clone());
        let assignment = Box::new(Assignment { lease, spec, inputs, artifacts: String::new(), task });
        Effect::Send { worker: slot.worker.clone(), command: Command::Start { slot: slot.slot, assignment } }
    }
}

/// The task of some shards in a row, with what earlier phases gave.
fn task(job: &Job, phase: Phase, range: SampleRange) -> Option<Task> {
    Task::of(phase, range, &job.record.outputs, |of| job.shards_of(of))
}
