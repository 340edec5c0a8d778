//! Changing a gang's members on purpose: newcomers folded in, slots given up to a drain or to a more urgent job, spares.
//!
//! A gang that is to change yields: every rank ends the same step and keeps its state, and the next generation forms on
//! other slots. Nothing is lost, and nothing is counted as a failure.

use lethe_domain::{
    ErrorCode, Failure, JobId, JobState, LeaseId, Phase, Shape, ShardIndex, SlotRef, Task, WorkerId,
};

use crate::gang::Gang;
use crate::grant::{most_ranks, wants};
use crate::planner::Wants;
use crate::state::{Job, Work};
use crate::{Command, Effect, Metric, State};

impl Job {
    /// Its gang, while it is at work and nothing is wrong with it.
    fn gang_at_work(&self) -> Option<&Gang> {
        let Work::Gang(work) = &self.work else { return None };
        let busy = |gang: &&Gang| {
            gang.met && gang.failure.is_none() && gang.yield_by_ms.is_none() && gang.claim_by_ms.is_none()
        };
        work.gang.as_ref().filter(busy)
    }
}

impl State {
    /// Asks a gang to end at a step boundary, all ranks at the same one.
    fn yield_gang(&mut self, id: &JobId, save: bool, effects: &mut Vec<Effect>) {
        let by = self.now.mono_ms + self.config.yield_ms;
        let Some(job) = self.jobs.get_mut(id) else { return };
        let Work::Gang(work) = &mut job.work else { return };
        let Some(gang) = work.gang.as_mut().filter(|gang| gang.failure.is_none()) else { return };
        if gang.yield_by_ms.is_some() {
            return;
        }
        gang.yield_by_ms = Some(by);
        let world = gang.world();
        effects.push(Effect::Metric(Metric::GangYielded));
        for (lease, held) in self.leases_of_mut(id).filter(|(lease, _)| lease.shard.0 < world) {
            held.yielding = Some(save);
            let command = Command::Yield { slot: held.slot.slot, lease: lease.clone(), save };
            effects.push(Effect::Send { worker: held.slot.worker.clone(), command });
        }
        self.wake(by);
    }

    /// Has gangs yield that have a rank where nobody is to work any more.
    pub(crate) fn yield_cordoned(&mut self, worker: &WorkerId, effects: &mut Vec<Effect>) {
        let Some(known) = self.workers.get(worker) else { return };
        let mark = self.cordons.get(worker);
        let all = known.leaving || mark.is_some_and(|mark| mark.draining || mark.quarantine.is_some());
        let marked = |at: &SlotRef| all || mark.is_some_and(|mark| mark.slots.contains_key(&at.slot));
        let held = self.leases_on(worker);
        let jobs: Vec<JobId> = held
            .iter()
            .filter(|lease| self.leases.get(lease).is_some_and(|held| marked(&held.slot) && !held.stopping))
            .filter(|lease| self.jobs.get(&lease.job).is_some_and(|job| matches!(job.work, Work::Gang(_))))
            .map(|lease| lease.job.clone())
            .collect();
        jobs.iter().for_each(|job| self.yield_gang(job, true, effects));
    }

    /// Stops what takes too long to yield, and gives up ranks that nobody has claimed.
    pub(crate) fn watch_gangs(&mut self, effects: &mut Vec<Effect>) {
        let now = self.now.mono_ms;
        let due = |at: Option<u64>| at.is_some_and(|at| at <= now);
        let gangs = self.gangs.iter().filter_map(|(_, id)| match &self.jobs.get(id)?.work {
            Work::Gang(work) => Some((id.clone(), work.gang.as_ref()?)),
            Work::None | Work::Leases(_) => None,
        });
        let (mut late, mut unclaimed) = (Vec::new(), Vec::new());
        for (id, gang) in gangs {
            if due(gang.yield_by_ms) {
                late.push(id);
            } else if due(gang.claim_by_ms)
                && let Some(rank) = gang.slots.iter().position(Option::is_none)
            {
                unclaimed.push(gang.lease(&id, rank as u32));
            }
        }
        for id in late {
            self.stop_leases(&id, |_, _| true, effects);
        }
        for lease in unclaimed {
            let failure = self.stamped(Failure::new(
                ErrorCode::WorkerLost,
                format!("no worker came back with {lease} after the coordinator changed"),
                "nothing to do: another slot takes over",
            ));
            self.on_rank_failed(&lease, failure, effects);
        }
    }

    /// What is left of the free slots, after everybody who waits was served, goes to gangs at work: as spares, or as more
    /// ranks where that is worth a new generation.
    pub(crate) fn use_leftovers(&mut self, effects: &mut Vec<Effect>) {
        if self.pool.free().sum() == 0 {
            return;
        }
        let at_work = |id: &&JobId| self.jobs.get(*id).is_some_and(|job| job.gang_at_work().is_some());
        let ids: Vec<JobId> = self.gangs.iter().map(|(_, id)| id).filter(at_work).cloned().collect();
        for id in ids {
            let Some(job) = self.jobs.get(&id) else { continue };
            let Some(gang) = job.gang_at_work() else { continue };
            let (world, spec) = (gang.world(), &job.record.spec);
            let Some(cuda) = self.kind_of(gang) else { continue };
            let suits = cuda || wants(spec) != Wants::Cuda;
            let all = self.pool.free();
            let free = match (suits, cuda) {
                (false, _) => 0,
                (true, true) => all.cuda,
                (true, false) => all.cpu,
            };
            let spares = self.leases_of(&id).filter(|(lease, _)| lease.shard.0 >= world).count() as u32;
            if free > 0 && world < most_ranks(spec) && self.worth_resizing(job, gang) {
                self.yield_gang(&id, false, effects);
            } else if spares < spec.resources.slots.spares {
                let wanted = (spec.resources.slots.spares - spares).min(free);
                (0..wanted).for_each(|_| self.stand_by(&id, cuda, effects));
            }
        }
    }

    /// Whether the gang's slots have GPUs.
    fn kind_of(&self, gang: &Gang) -> Option<bool> {
        let at = gang.slots.iter().flatten().next()?;
        Some(self.slot(at)?.has_gpu())
    }

    /// Not right after it was formed, not before it has moved, and not when it is nearly done.
    fn worth_resizing(&self, job: &Job, gang: &Gang) -> bool {
        let Work::Gang(work) = &job.work else { return false };
        let ripe = gang.formed_ms + self.config.resize_after_ms <= self.now.mono_ms;
        let left = job.record.spec.unlearn.steps.saturating_sub(work.best_step());
        let per_second = self
            .leases_of(&job.record.id)
            .filter_map(|(_, held)| held.progress.as_ref())
            .map(|progress| progress.samples_per_second / job.record.spec.unlearn.global_batch as f64)
            .fold(0.0, f64::max);
        let left_ms = left as f64 / per_second * 1000.0;
        ripe && work.best_step() > gang.step_at_start && left_ms > self.config.resize_after_ms as f64
    }

    /// Has a slot load what a rank needs, and wait.
    fn stand_by(&mut self, id: &JobId, cuda: bool, effects: &mut Vec<Effect>) {
        let Some(at) = self.pool.free_slots(cuda).next().cloned() else { return };
        let Some(job) = self.jobs.get_mut(id) else { return };
        let Some(direction) = job.record.outputs.direction() else { return };
        let task = Task::Standby { target: direction.target.clone(), pool: job.shards_of(Phase::Edit) };
        let Work::Gang(work) = &mut job.work else { return };
        let Some(gang) = &mut work.gang else { return };
        let lease = gang.lease(id, gang.world() + gang.spares);
        gang.spares += 1;
        effects.extend(self.start_for(id, &at, lease.clone(), task));
        self.occupy(lease, 1, at);
    }

    /// Ends the standing by of slots.
    pub(crate) fn stop_spares(&mut self, id: &JobId, effects: &mut Vec<Effect>) {
        let world = match self.jobs.get(id).and_then(|job| job.record.gang) {
            Some(gang) => gang.world,
            None => return,
        };
        let spare = |lease: &LeaseId| lease.phase.shape() == Shape::Gang && lease.shard >= ShardIndex(world);
        self.stop_leases(id, |lease, _| spare(lease), effects);
    }

    /// Has the least urgent gang yield, with a checkpoint, to a more urgent job that finds no slot.
    pub(crate) fn preempt(&mut self, effects: &mut Vec<Effect>) {
        if !self.config.preempt {
            return;
        }
        let Some((priority, wanted)) = self.urgent else { return };
        let yielding = |job: &Job| matches!(&job.work, Work::Gang(work) if work.gang.as_ref().is_some_and(|gang| gang.yield_by_ms.is_some()));
        let gangs = || self.gangs.iter().filter_map(|(_, id)| self.jobs.get(id));
        if gangs().any(yielding) {
            return; // Slots are on their way.
        }
        let victim = gangs()
            .filter(|job| job.record.state == JobState::Running && job.record.spec.queue.priority < priority)
            .filter(|job| {
                let kind = job.gang_at_work().and_then(|gang| self.kind_of(gang));
                kind.is_some_and(|cuda| cuda || wanted != Wants::Cuda)
            })
            .min_by_key(|job| job.record.spec.queue.priority)
            .map(|job| job.record.id.clone());
        if let Some(victim) = victim {
            self.yield_gang(&victim, true, effects);
        }
    }
}
