//! The gang of a fine-tune phase: forming, meeting, dissolving, forming again.
//!
//! A gang has one generation number for each incarnation, never reused. Rank 0 starts first, opens the rendezvous store
//! and says where; then the others start. One lost rank dissolves the gang; when every slot is free the next generation
//! forms and goes on from the newest checkpoint. Not here: collectives, checkpoints (the executor's).

use lethe_domain::{
    Attempt, ErrorCode, Failure, GangRole, Generation, JobId, LeaseId, Phase, Rank, ShardIndex, SlotRef, Task,
};

use crate::{Effect, Metric, State, Write, state::Work};

/// The gang of a job.
#[derive(Debug, Default)]
pub(crate) struct GangWork {
    pub(crate) gang: Option<Gang>,
    /// No new generation before this time.
    pub(crate) not_before_ms: u64,
    /// Since when there are enough slots, but fewer than wanted.
    pub(crate) enough_since_ms: Option<u64>,
    /// The furthest step any rank has reported.
    best_step: u64,
    /// Generations in a row that ended without a further step.
    fruitless: u32,
    /// The first cause of failure since the last step forward.
    cause: Option<Failure>,
}

/// One incarnation.
#[derive(Debug)]
pub(crate) struct Gang {
    pub(crate) generation: Generation,
    pub(crate) slots: Vec<SlotRef>,
    /// The ranks other than 0 have been told to start.
    met: bool,
    /// Dissolving, for this reason.
    failure: Option<Failure>,
    step_at_start: u64,
}

impl Gang {
    fn lease(&self, job: &JobId, rank: u32) -> LeaseId {
        LeaseId {
            job: job.clone(),
            phase: Phase::FineTune,
            shard: ShardIndex(rank),
            attempt: Attempt(self.generation.0),
        }
    }
}

impl GangWork {
    /// A rank reported a step.
    pub(crate) fn progress(&mut self, step: u64) {
        self.best_step = self.best_step.max(step);
    }

    /// The furthest step any rank has reported.
    pub(crate) fn best_step(&self) -> u64 {
        self.best_step
    }
}

/// Whether a rank failed only because another one did, or because it was told to stop.
fn dragged_down(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::GangAborted | ErrorCode::Cancelled)
}

/// The earlier cause; a rank that was dragged down by another is never the cause when there is a better one.
fn first_cause(one: Failure, other: Failure) -> Failure {
    let rank = |failure: &Failure| (dragged_down(failure.code), failure.at_unix_ms);
    if rank(&other) < rank(&one) { other } else { one }
}

impl State {
    /// Forms the next generation on these slots.
    pub(crate) fn form_gang(&mut self, id: &JobId, slots: Vec<SlotRef>, effects: &mut Vec<Effect>) {
        let Some(job) = self.jobs.get_mut(id) else { return };
        let Work::Gang(work) = &mut job.work else { return };
        let generation = Generation(job.record.generation.0 + 1);
        job.record.generation = generation;
        let gang = Gang {
            generation,
            slots: slots.clone(),
            met: false,
            failure: None,
            step_at_start: work.best_step,
        };
        let leases: Vec<LeaseId> = (0..slots.len() as u32).map(|rank| gang.lease(id, rank)).collect();
        work.gang = Some(gang);
        work.enough_since_ms = None;
        effects.push(Effect::Persist(Write::Job(Box::new(job.record.clone()))));
        effects.push(Effect::Metric(Metric::GangFormed { world: slots.len() as u32 }));
        for (lease, slot) in leases.into_iter().zip(slots) {
            self.occupy(lease, slot);
        }
        self.start_rank(id, Rank(0), None, effects);
    }

    /// Rank 0 says where the ranks meet: start the others.
    pub(crate) fn on_store_open(&mut self, lease: &LeaseId, address: &str, effects: &mut Vec<Effect>) {
        let Some(job) = self.jobs.get_mut(&lease.job) else { return };
        let Work::Gang(GangWork { gang: Some(gang), .. }) = &mut job.work else { return };
        let current = gang.generation.0 == lease.attempt.0 && lease.shard.0 == 0;
        if !current || gang.met || gang.failure.is_some() {
            return;
        }
        gang.met = true;
        let world = gang.slots.len() as u32;
        for rank in 1..world {
            self.start_rank(&lease.job, Rank(rank), Some(address), effects);
        }
    }

    fn start_rank(&self, id: &JobId, rank: Rank, store: Option<&str>, effects: &mut Vec<Effect>) {
        let Some(job) = self.jobs.get(id) else { return };
        let Work::Gang(GangWork { gang: Some(gang), .. }) = &job.work else { return };
        let Some(direction) = &job.record.outputs.direction else { return };
        let role = GangRole {
            generation: gang.generation,
            rank,
            world: gang.slots.len() as u32,
            store: store.map(str::to_owned),
        };
        let task = Task::FineTune { target: direction.target.clone(), role };
        let Some(slot) = gang.slots.get(rank.0 as usize) else { return };
        effects.push(self.start(slot, gang.lease(id, rank.0), &job.record.spec, task));
    }

    /// A rank failed, or its worker is gone: the gang dissolves.
    pub(crate) fn on_rank_failed(&mut self, lease: &LeaseId, failure: Failure, effects: &mut Vec<Effect>) {
        let Some(job) = self.jobs.get_mut(&lease.job) else { return };
        let Work::Gang(GangWork { gang: Some(gang), .. }) = &mut job.work else { return };
        if gang.generation.0 != lease.attempt.0 {
            return;
        }
        gang.failure = Some(match gang.failure.take() {
            Some(earlier) => first_cause(earlier, failure),
            None => failure,
        });
        self.stop_leases(&lease.job, |_| true, effects);
        self.settle_gang(&lease.job, effects);
    }

    /// When a dissolving gang holds no slot any more: form another, or give up.
    pub(crate) fn settle_gang(&mut self, id: &JobId, effects: &mut Vec<Effect>) {
        if self.leases_of(id).next().is_some() {
            return;
        }
        let now = self.now;
        let config = self.config.clone();
        let Some(job) = self.jobs.get_mut(id) else { return };
        let Work::Gang(work) = &mut job.work else { return };
        let Some(gang) = work.gang.take_if(|gang| gang.failure.is_some()) else { return };
        let Some(failure) = gang.failure else { return };
        let moved = work.best_step > gang.step_at_start;
        work.fruitless = if moved { 1 } else { work.fruitless + 1 };
        let cause = match work.cause.take_if(|_| !moved) {
            Some(earlier) => first_cause(earlier, failure.clone()),
            None => failure.clone(),
        };
        work.cause = Some(cause.clone());
        let hopeless = !failure.code.retryable() && !dragged_down(failure.code);
        if hopeless || work.fruitless >= config.generations_without_progress {
            self.fail_job(id, cause, effects);
            return;
        }
        work.not_before_ms = now.mono_ms + config.backoff(work.fruitless);
        job.record.remember(failure);
        job.touch();
        effects.push(Effect::Persist(Write::Job(Box::new(job.record.clone()))));
        effects.push(Effect::Notify { job: id.clone() });
    }
}
